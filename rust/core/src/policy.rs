//! When a failed attempt is tried again, and when. Pure: the random number for jitter is handed in.

use std::time::Duration;

/// How the delay grows from one attempt to the next.
#[derive(Debug, Clone, PartialEq)]
pub enum Backoff {
    /// Always the first delay.
    Fixed,
    /// `first * multiplier * attempt`.
    Linear {
        /// Growth per attempt.
        multiplier: f64,
    },
    /// `first * multiplier * base^(attempt - 1)`.
    Exponential {
        /// Growth per attempt.
        base: f64,
        /// Applied once.
        multiplier: f64,
    },
}

/// Which errors are worth another attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// None.
    Never,
    /// Time-outs, and messages that speak of a passing trouble.
    Transient,
    /// All.
    All,
    /// Those whose message contains one of these texts, ignoring case.
    Pattern(Vec<String>),
}

/// A task's retry policy.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Total number of attempts, at least 1.
    pub attempts_max: u32,
    /// No further attempt begins so long after the first one began.
    pub time_max: Option<Duration>,
    /// Delay before the second attempt.
    pub first_delay: Duration,
    /// No delay is longer.
    pub delay_max: Duration,
    /// How delays grow.
    pub backoff: Backoff,
    /// Which errors count.
    pub conditions: Vec<Condition>,
    /// Whether to spread delays by a random share.
    pub jitter: bool,
}

/// Words in an error message that make it transient.
pub const TRANSIENT_WORDS: [&str; 5] = ["connection", "network", "timeout", "temporary", "unavailable"];

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            time_max: None,
            first_delay: Duration::from_secs(1),
            delay_max: Duration::from_secs(60),
            backoff: Backoff::Exponential { base: 2.0, multiplier: 1.0 },
            conditions: vec![Condition::All],
            jitter: true,
        }
    }
}

impl RetryPolicy {
    /// Whether attempt number `attempt` (from 1), which failed with `error`, is followed by another.
    pub fn should_retry(&self, attempt: u32, error: &str) -> bool {
        attempt < self.attempts_max && self.conditions.iter().any(|condition| condition.matches(error))
    }

    /// Whether another attempt may begin so long after the first one began.
    pub fn has_time(&self, since_first: Duration) -> bool {
        self.time_max.is_none_or(|longest| since_first < longest)
    }

    /// How long to wait after attempt number `attempt` (from 1). `random` lies in `[0, 1)`; with jitter the delay is
    /// spread over 75 % to 125 % of its value, so that tasks that failed together do not return together.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let first = self.first_delay.as_secs_f64();
        let grown = match self.backoff {
            Backoff::Fixed => first,
            Backoff::Linear { multiplier } => first * multiplier * f64::from(attempt.max(1)),
            Backoff::Exponential { base, multiplier } => {
                first * multiplier * base.powf(f64::from(attempt.max(1) - 1))
            }
        };
        let spread = if self.jitter { grown * (0.75 + 0.5 * random) } else { grown };
        let longest = self.delay_max.as_secs_f64();
        // `min` first: an overflow to infinity must become the longest delay, not a panic.
        Duration::from_secs_f64(spread.min(longest).max(0.0))
    }
}

impl Condition {
    fn matches(&self, error: &str) -> bool {
        let contains = |word: &str| error.to_lowercase().contains(word);
        match self {
            Self::Never => false,
            Self::All => true,
            Self::Transient => contains("timed out") || TRANSIENT_WORDS.iter().any(|word| contains(word)),
            Self::Pattern(texts) => texts.iter().any(|text| contains(&text.to_lowercase())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_is_not_followed_by_another() {
        let policy = RetryPolicy::default();
        assert!(policy.should_retry(2, "boom"));
        assert!(!policy.should_retry(3, "boom"));
    }

    #[test]
    fn only_passing_troubles_are_transient() {
        let policy = RetryPolicy { conditions: vec![Condition::Transient], ..RetryPolicy::default() };
        assert!(policy.should_retry(1, "OSError: Connection refused"));
        assert!(policy.should_retry(1, "TimeoutError: timed out"));
        assert!(!policy.should_retry(1, "ValueError: boom"));
    }

    #[test]
    fn delays_grow_to_their_bound_and_never_panic() {
        let policy = RetryPolicy { jitter: false, ..RetryPolicy::default() };
        let seconds = [1, 2, 3, 7, 4_000_000_000].map(|attempt| policy.delay(attempt, 0.0).as_secs());
        assert_eq!(seconds, [1, 2, 4, 60, 60]);
    }
}
