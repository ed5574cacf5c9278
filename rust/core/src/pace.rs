//! How many ended of late. Decides nothing. Invariant: what ended more than two spans ago counts no more.

use std::time::Duration;

use crate::time::Mono;

/// Ends in the span that runs now, and in the one before it.
#[derive(Debug)]
pub struct Pace {
    span: Duration,
    since: Mono,
    ended: usize,
    ended_before: usize,
}

impl Pace {
    /// Nothing has ended yet.
    pub fn new(span: Duration) -> Self {
        Self { span, since: Mono::default(), ended: 0, ended_before: 0 }
    }

    /// A new span begins, if it is time to.
    pub fn roll(&mut self, now: Mono) {
        let since = now.since(self.since);
        if since >= self.span {
            self.ended_before = if since < 2 * self.span { self.ended } else { 0 };
            (self.ended, self.since) = (0, now);
        }
    }

    /// One has ended.
    pub fn end(&mut self, now: Mono) {
        self.roll(now);
        self.ended += 1;
    }

    /// So many end in a span, as it seemed when it was last rolled.
    pub fn many(&self) -> usize {
        self.ended.max(self.ended_before)
    }
}
