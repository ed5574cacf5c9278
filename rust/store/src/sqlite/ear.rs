//! Hears of news by the kernel instead of by looking. Invariant: what is missed here is found by the look that stands behind it; and what has
//! got the number of a descriptor that the program closed is not touched.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloaca_core::port::Ear;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::sqlite::descriptors::{close_nameless, nameless, still};

/// The kernel has few of them for a user, of which other programs want some.
const EARS_MAX: usize = 16;
static EARS: AtomicUsize = AtomicUsize::new(0);

/// So often it is seen that the program has closed what it was to be woken by.
const LOOK_MS: u16 = 2_000;

/// One of those that this process may have.
struct Share;

impl Share {
    fn take() -> Option<Self> {
        let more = |taken| (taken < EARS_MAX).then_some(taken + 1);
        EARS.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Self)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        EARS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An ear on the small file that grows when there is news.
struct Listening {
    _share: Share,
    /// None only as it is dropped.
    file: Option<Inotify>,
    end: Option<EventFd>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.file.take().into_iter().for_each(close_nameless);
        self.end.take().into_iter().for_each(close_nameless);
    }
}

/// None where this process or the kernel has no room for one more.
pub fn at(hint: &Path) -> Option<Arc<dyn Ear>> {
    let share = Share::take()?;
    let file = nameless(|| Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)).ok()?;
    let mut ear = Listening { _share: share, file: Some(file), end: None };
    ear.file.as_ref()?.add_watch(hint, AddWatchFlags::IN_MODIFY).ok()?;
    ear.end = Some(nameless(|| EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)).ok()?);
    Some(Arc::new(ear))
}

impl Ear for Listening {
    fn hear(&self) -> bool {
        let (Some(file), Some(end)) = (still(self.file.as_ref()), still(self.end.as_ref())) else {
            return false;
        };
        let mut ready =
            [PollFd::new(file.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        let heard = poll(&mut ready, LOOK_MS);
        if ready[1].any().unwrap_or(true) {
            return false;
        }
        // A watch that is gone, since its file is, tells so once and never again.
        let is_gone = |events: Vec<nix::sys::inotify::InotifyEvent>| {
            events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED))
        };
        match heard {
            Ok(0) => true,
            Ok(_) => still(Some(file)).is_some_and(|file| !file.read_events().is_ok_and(is_gone)),
            Err(nix::errno::Errno::EINTR) => true,
            Err(_) => false,
        }
    }

    fn close(&self) {
        if let Some(end) = still(self.end.as_ref()) {
            let _ = end.write(1);
        }
    }
}
