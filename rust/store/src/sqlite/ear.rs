//! Hears of news by the kernel instead of by looking. Invariant: what is missed here is found by the look that stands behind it.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloaca_core::port::Ear;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// The kernel has few of them for a user, of which other programs want some.
const EARS_MAX: usize = 16;
static EARS: AtomicUsize = AtomicUsize::new(0);

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
    file: Inotify,
    end: EventFd,
}

/// None where this process or the kernel has no room for one more.
pub fn at(hint: &Path) -> Option<Arc<dyn Ear>> {
    let share = Share::take()?;
    let file = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    file.add_watch(hint, AddWatchFlags::IN_MODIFY).ok()?;
    let end = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
    Some(Arc::new(Listening { _share: share, file, end }))
}

impl Ear for Listening {
    fn hear(&self) -> bool {
        let mut ready = [
            PollFd::new(self.file.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.end.as_fd(), PollFlags::POLLIN),
        ];
        let heard = poll(&mut ready, PollTimeout::NONE);
        if ready[1].any().unwrap_or(true) {
            return false;
        }
        // A watch that is gone, since its file is, tells so once and never again.
        let is_gone = |events: Vec<nix::sys::inotify::InotifyEvent>| {
            events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED))
        };
        match heard {
            Ok(_) => !self.file.read_events().is_ok_and(is_gone),
            Err(nix::errno::Errno::EINTR) => true,
            Err(_) => false,
        }
    }

    fn close(&self) {
        let _ = self.end.write(1);
    }
}
