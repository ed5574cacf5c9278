//! Where a runtime takes the time from.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::runtime::park::{AtomicI64, Mutex, lock};
use crate::time::{Mono, Now, Wall};

/// By less than so much two clocks are the same: how long an answer took is not how old it is.
const AHEAD_MIN_US: i64 = 10_000;

/// Where a runtime takes the time from.
#[derive(Debug)]
pub enum Clock {
    /// The machine's clocks: monotonic time counts from the first, the second is the wall clock at that moment. By the third, in microseconds, the
    /// store's own clock is ahead, which decides for all who serve it.
    System(Instant, AtomicI64, AtomicI64),
    /// One that stands still unless [`crate::runtime::Runtime::advance`] moves it.
    Manual(Mutex<Now>),
}

pub(super) fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self::System(Instant::now(), AtomicI64::new(wall_now().0), AtomicI64::new(0))
    }

    /// A clock that stands at `start`.
    pub fn manual(start: Wall) -> Self {
        Self::Manual(Mutex::new(Now { mono: Mono(0), wall: start }))
    }

    pub(super) fn now(&self) -> Now {
        match self {
            Self::System(born, offset, ahead) => {
                let wall = Wall(wall_now().0.saturating_add(ahead.load(Ordering::Relaxed)));
                let now = Now { mono: Mono(born.elapsed().as_nanos() as u64), wall };
                offset.store(now.wall.0 - (now.mono.0 / 1000) as i64, Ordering::Relaxed);
                now
            }
            Self::Manual(now) => *lock(now),
        }
    }

    /// Like [`Clock::now`] for half the price: the wall clock is taken to move with the monotonic one since it was last looked at,
    /// which the timekeeper does twice a second.
    pub(super) fn quick(&self) -> Now {
        match self {
            Self::System(born, offset, _) => {
                let mono = Mono(born.elapsed().as_nanos() as u64);
                Now { mono, wall: Wall(offset.load(Ordering::Relaxed) + (mono.0 / 1000) as i64) }
            }
            Self::Manual(now) => *lock(now),
        }
    }

    /// The store's clock is so far ahead of the machine's, in microseconds.
    pub(super) fn set_ahead(&self, ahead_us: i64) {
        if let Self::System(_, _, ahead) = self
            && (ahead_us - ahead.load(Ordering::Relaxed)).abs() >= AHEAD_MIN_US
        {
            ahead.store(ahead_us, Ordering::Relaxed);
            self.now();
        }
    }

    /// When it will be `due`, by the wall clock as it stands now. The machine's two clocks are read one after the other, so that to the
    /// microsecond it would be another time at each look: it is told to the millisecond.
    pub(super) fn wall_of(&self, due: Mono, now: Now) -> Wall {
        let wall = now.wall.after(due.since(now.mono));
        match self {
            Self::System(..) => Wall(wall.0.saturating_add(500).div_euclid(1000) * 1000),
            Self::Manual(_) => wall,
        }
    }

    /// How long a thread sleeps that is to wake after `span` of this clock; none means until it is woken.
    pub(super) fn nap(&self, span: Duration) -> Option<Duration> {
        match self {
            Self::System(..) => Some(span),
            Self::Manual(_) => None,
        }
    }
}
