//! How an event loop is woken from a thread without the interpreter: by a descriptor that it reads, or a bell that a thread of it waits for.
//! Invariant: who is woken hears of that once, however often.

use std::sync::Arc;
use std::time::Duration;

use cloaca_core::runtime::Waker;

#[cfg(target_os = "linux")]
use crate::event_fd::EventFd;
use crate::pump::Bell;

/// How the loop is woken.
#[derive(Clone)]
pub struct Way {
    #[cfg(target_os = "linux")]
    event: Option<Arc<EventFd>>,
    bell: Arc<Bell>,
}

impl Way {
    /// By a descriptor if the system has one to give, and by a bell.
    pub fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            event: EventFd::new().ok().map(Arc::new),
            bell: Arc::default(),
        }
    }

    /// The descriptor that is readable from a wake-up until that is heard; none if there is none.
    pub fn number(&self) -> Option<i32> {
        #[cfg(target_os = "linux")]
        return self.event.as_ref().and_then(|event| event.number());
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Waits at most `span` for the bell; false if it has not rung.
    pub fn heard_within(&self, span: Duration) -> bool {
        self.bell.heard_within(span)
    }

    /// The loop reads no descriptor any more.
    pub fn deafen(&self) {
        #[cfg(target_os = "linux")]
        self.event.iter().for_each(|event| event.close());
    }

    /// From now on the descriptor is readable no more, until the next wake-up.
    pub fn hear(&self) {
        #[cfg(target_os = "linux")]
        self.event.iter().for_each(|event| event.hear());
    }
}

impl Waker for Way {
    fn wake(&self) {
        #[cfg(target_os = "linux")]
        self.event.iter().for_each(|event| event.wake());
        self.bell.wake();
    }
}
