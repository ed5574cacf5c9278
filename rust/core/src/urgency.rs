//! How urgent a run is, from when on it may begin, and what goes first of what could. Pure.
//! Invariant: of two attempts that are ready the one of the lower [`Rank`] is taken first, and of equal ones the one that came first.

use std::time::Duration;

use crate::time::Wall;

/// How urgent a run is among those that could begin: 9 goes first, 0 last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The most urgent.
    pub const MAX: Self = Self(9);

    /// The priority of that number; none beyond 0 to 9.
    pub fn new(number: i64) -> Option<Self> {
        u8::try_from(number).ok().filter(|&number| number <= Self::MAX.0).map(Self)
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

/// From when on a run may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// From that instant on.
    At(Wall),
    /// So long after it was asked for.
    After(Duration),
}

impl Due {
    /// The instant, for a run that is asked for at `now`.
    pub fn instant(self, now: Wall) -> Wall {
        match self {
            Self::At(at) => at,
            Self::After(span) => now.after(span),
        }
    }

    /// How long after it was asked for that is, in microseconds, if that was said and not the instant.
    pub fn delay_us(self) -> Option<i64> {
        match self {
            Self::At(_) => None,
            Self::After(span) => Some(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)),
        }
    }
}

/// What whoever asks for a run says of when it is to begin; what it leaves out its workflow decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Urgency {
    /// How urgent it is.
    pub priority: Option<Priority>,
    /// From when on it may begin; at once if none.
    pub due: Option<Due>,
}

/// So many ranks there are.
pub const RANKS: usize = 30;

/// What is taken first of what is ready: by priority, and of one priority first the tasks of runs that others have called, which may wait for them,
/// and then those of runs that have begun before the first tasks of others, so that what was begun is finished first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(u8);

impl Rank {
    /// Of a task of a run.
    pub fn of(priority: Priority, is_child: bool, has_begun: bool) -> Self {
        let step = if is_child { 0 } else { 1 + u8::from(!has_begun) };
        Self((Priority::MAX.0 - priority.0) * 3 + step)
    }

    /// Its place among all, from 0.
    pub fn place(self) -> usize {
        usize::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_urgent_goes_first_and_then_what_has_begun() {
        let rank = |number, has_begun| Rank::of(Priority::new(number).unwrap(), false, has_begun);
        assert!(rank(9, false) < rank(8, true));
        assert!(rank(5, true) < rank(5, false));
        let child = |number| Rank::of(Priority::new(number).unwrap(), true, false);
        assert!(child(5) < rank(5, true));
        assert!(rank(6, false) < child(5));
        assert_eq!((child(9).place(), rank(0, false).place()), (0, RANKS - 1));
    }

    #[test]
    fn a_priority_is_a_number_from_0_to_9() {
        assert_eq!([-1, 0, 9, 10].map(|number| Priority::new(number).is_some()), [false, true, true, false]);
        assert_eq!(Priority::default().number(), 5);
    }
}
