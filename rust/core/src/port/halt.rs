//! How long somebody waits for a store. Invariant: what a thread asks of a store ends soon after its halt is asked for, also what only waits for its turn.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// No moment was set.
const NEVER: u64 = u64::MAX;

/// Where its times begin.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Ends what is asked of a store, from any thread: it comes back with a fault soon after.
#[derive(Debug, Clone, Default)]
pub struct Halt(Arc<State>);

#[derive(Debug)]
struct State {
    is_asked: AtomicBool,
    by_ns: AtomicU64,
    spared_ns: AtomicU64,
    /// What ends it as well.
    outer: Option<Halt>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            is_asked: AtomicBool::default(),
            by_ns: AtomicU64::new(NEVER),
            spared_ns: AtomicU64::default(),
            outer: None,
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Halt> = RefCell::default();
}

impl Halt {
    /// What ends a call that begins now after `span`, or when this thread is to wait no more.
    pub fn within(span: Duration) -> Self {
        let halt = Self(Arc::new(State { outer: Some(Self::current()), ..State::default() }));
        halt.ask_at(Instant::now() + span, Duration::ZERO);
        halt
    }

    /// Asks for the end.
    pub fn ask(&self) {
        self.0.is_asked.store(true, Ordering::Release);
    }

    /// Asks for it at a moment, and of what began only shortly before that, or after it, once it has taken `spared`. Of several moments the first counts.
    pub fn ask_at(&self, at: Instant, spared: Duration) {
        let since = at.saturating_duration_since(*BEGINNING);
        self.0.spared_ns.store(whole_ns(spared), Ordering::Release);
        self.0.by_ns.fetch_min(whole_ns(since), Ordering::AcqRel);
    }

    /// Whether somebody asked for it.
    pub fn is_asked(&self) -> bool {
        self.0.is_asked.load(Ordering::Acquire) || self.0.outer.as_ref().is_some_and(Self::is_asked)
    }

    /// Whether a moment was set and is still to come: until then it is worth while to try again.
    pub fn has_time(&self) -> bool {
        let by = self.0.by_ns.load(Ordering::Acquire);
        by != NEVER && !self.is_asked() && Instant::now() < *BEGINNING + Duration::from_nanos(by)
    }

    /// Whether what began then is to end. Where one thing was not answered in time nothing that comes after it is waited for.
    pub fn ends(&self, began: Instant) -> bool {
        if self.is_asked() || self.0.outer.as_ref().is_some_and(|outer| outer.ends(began)) {
            return true;
        }
        let by = self.0.by_ns.load(Ordering::Acquire);
        if by == NEVER {
            return false;
        }
        let spared = Duration::from_nanos(self.0.spared_ns.load(Ordering::Acquire));
        let by = (*BEGINNING + Duration::from_nanos(by)).max(began + spared);
        let is_over = Instant::now() >= by;
        if is_over {
            self.ask();
        }
        is_over
    }

    /// How this thread waits.
    pub fn current() -> Self {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Works with it, and then as before.
    pub fn over<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Restored(Halt);
        impl Drop for Restored {
            fn drop(&mut self) {
                CURRENT.set(std::mem::take(&mut self.0));
            }
        }
        let _restored = Restored(CURRENT.replace(self.clone()));
        work()
    }
}

fn whole_ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_after_the_moment_is_spared_until_one_is_given_up() {
        let halt = Halt::default();
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        halt.ask_at(now, hour);
        assert!(!halt.ends(now));
        assert!(halt.ends(now.checked_sub(hour).unwrap()));
        assert!(halt.ends(now));
    }

    #[test]
    fn there_is_time_until_the_moment_that_was_set_or_somebody_asks() {
        let halt = Halt::default();
        assert!(!halt.has_time());
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        halt.ask_at(now + hour, hour);
        assert!(halt.has_time());
        halt.ask();
        assert!(!halt.has_time());
        let over = Halt::default();
        over.ask_at(now, hour);
        assert!(!over.has_time());
    }

    #[test]
    fn a_thread_waits_as_it_is_told_until_the_end_of_that() {
        let halt = Halt::within(Duration::ZERO);
        assert!(halt.over(|| Halt::current().ends(Instant::now())));
        assert!(!Halt::current().ends(Instant::now()));
    }
}
