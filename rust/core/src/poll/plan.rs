//! How a trigger wants to be polled. Decides only how long to wait after failures.

use std::time::Duration;

/// How finely polls are timed unless somebody wishes otherwise: the trade between lateness and the price of waking up.
pub const RESOLUTION: Duration = Duration::from_micros(50);

/// How a trigger wants to be polled. Triggers that want the same share one.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// From one poll to the next.
    pub interval: Duration,
    /// Each poll comes later by a random share of this; at most the interval.
    pub jitter: Duration,
    /// A body that takes longer is given up.
    pub timeout: Option<Duration>,
    /// How long to wait after failures.
    pub backoff: Backoff,
    /// After so many failures in a row the trigger is disabled.
    pub failures_max: Option<u32>,
    /// Whether a trigger that was never polled is polled at once, and not an interval later.
    pub polls_at_start: bool,
    /// Whether it is a cron's, which is polled only when it is asked to: see [`Poller::ask`](crate::poll::Poller::ask).
    pub by_calendar: bool,
    /// Whether it is polled only when there is an end of a run to tell it of: see [`Poller::tell`](crate::poll::Poller::tell).
    pub by_ends: bool,
}

/// How long a trigger waits after polls that failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// After the first failure.
    pub base: Duration,
    /// Growth from one failure to the next.
    pub factor: f64,
    /// No wait is longer.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row.
    pub fn delay(&self, failures: u32) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let grown = self.base.as_secs_f64() * self.factor.powf(f64::from(failures - 1));
        // `min` first: an overflow to infinity must become the longest wait, not a panic.
        Duration::from_secs_f64(grown.min(self.longest.as_secs_f64()).max(0.0))
    }
}
