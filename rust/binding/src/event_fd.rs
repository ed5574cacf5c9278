//! A descriptor that an event loop reads, by which it is woken from a thread without the interpreter.
//! Invariant: nothing is written to a descriptor of that number that the program has made since it closed this one.

use std::fs::File;
use std::io::{Error, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use cloaca_core::runtime::Waker;
use cloaca_store::descriptors::{close_nameless, nameless, still};

/// Readable from a wake-up until that is heard.
pub struct EventFd {
    /// None once it is closed.
    file: RwLock<Option<File>>,
}

impl EventFd {
    /// A new one; none if the system has no descriptor to give.
    pub fn new() -> Result<Self, Error> {
        let make = || {
            // SAFETY: it takes two numbers.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            if fd < 0 {
                return Err(Error::last_os_error());
            }
            // SAFETY: it was just made, and is nobody else's.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        Ok(Self { file: RwLock::new(Some(File::from(nameless(make)?))) })
    }

    /// Its number.
    pub fn number(&self) -> Option<RawFd> {
        self.opened().as_ref().map(|file| file.as_raw_fd())
    }

    /// From now on it is readable no more, until the next wake-up.
    pub fn hear(&self) {
        if let Some(mut file) = still(self.opened().as_ref()) {
            let mut count = [0; 8];
            // Nothing to read is no fault.
            let _ = file.read(&mut count);
        }
    }

    /// Nobody reads it any more.
    pub fn close(&self) {
        let file = self.file.write().unwrap_or_else(PoisonError::into_inner).take();
        file.into_iter().for_each(close_nameless);
    }

    fn opened(&self) -> RwLockReadGuard<'_, Option<File>> {
        self.file.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waker for EventFd {
    fn wake(&self) {
        if let Some(mut file) = still(self.opened().as_ref()) {
            // A count that is full wakes as well.
            let _ = file.write(&1_u64.to_ne_bytes());
        }
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        self.close();
    }
}
