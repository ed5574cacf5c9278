//! Forgets what has grown too old: found by reading, deleted in short steps, so that nobody waits for it.
//! Invariant: no step holds the store for much longer than [`STEP_LONGEST`], however large what it deletes is.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::Note;
use crate::port::{Found, Halt, Old, Unwanted};
use crate::runtime::Shared;
use crate::runtime::clock::Clock;
use crate::runtime::keeper::Order;
use crate::runtime::park::{lock, sleep};
use crate::time::{Mono, Now, Wall};

/// Between two looks for what has grown too old.
const EVERY: Duration = Duration::from_secs(600);

/// Sooner where much is written, so that a trigger whose answers change keeps little more than it should: but not before this.
const SOONEST: Duration = Duration::from_secs(10);

/// And a look takes at most so small a part of the time.
const LOOK_SHARE: u32 = 1000;

/// So many changes are much.
const CHANGES_MANY: u64 = 50;

/// Of each kind so much is found at once.
const FOUND_MAX: u64 = 20_000;

/// A step that took less may be larger next time, and one that took more must be smaller.
const STEP_SHORT: Duration = Duration::from_millis(4);
const STEP_LONGEST: Duration = Duration::from_millis(12);
const STEP_MIN: usize = 1;
const STEP_MAX: usize = 1000;

/// While a runner lives its two clocks go together; a machine that slept is no worse for waiting.
const JUMP_LIVE: Duration = Duration::from_secs(3600);

/// Between two steps, for whoever waits to write.
const PAUSE: Duration = Duration::from_millis(2);

/// After so long the liaison looks at what else there is to do.
const SLICE: Duration = Duration::from_millis(100);

/// So long after the last who declared a callback has gone, while others serve its workflow without, it may come back.
const CALLBACKS_KEPT: Duration = Duration::from_secs(3600);

/// How long what is over is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Final runs, and history at the longest; none keeps the runs.
    pub runs: Option<Duration>,
    /// History.
    pub ticks: Duration,
    /// So many stretches of history of one trigger.
    pub ticks_max: u64,
}

/// Where forgetting stands.
pub(super) struct Forgetting {
    pub(super) due: Mono,
    /// When the last look was.
    seen: Option<Now>,
    /// From when on much that was written brings the next look forward, and how many changes had been written by the last one.
    sooner: Option<(Mono, u64)>,
    /// Callbacks that nobody declares, and since when this runner finds them so.
    unwanted: BTreeMap<Unwanted, Mono>,
    old: Old,
    found: Found,
    is_all: bool,
    step: usize,
}

impl Forgetting {
    pub(super) fn new(due: Mono) -> Self {
        let old = Old { now: Wall(0), runs_before: None, ticks_before: Wall(0), ticks_max: 0 };
        Self {
            due,
            seen: None,
            sooner: None,
            unwanted: BTreeMap::new(),
            old,
            found: Found::default(),
            is_all: true,
            step: 100,
        }
    }

    /// Whether it is time for a look, once so many changes have been written.
    fn is_due(&self, now: Mono, changes: impl FnOnce() -> u64) -> bool {
        now >= self.due
            || self.sooner.is_some_and(|(from, before)| now >= from && changes() >= before + CHANGES_MANY)
    }

    /// A look that took so long is over.
    fn has_looked(&mut self, now: Mono, took: Duration, changes: u64) {
        self.sooner = Some((now.after(SOONEST.max(took * LOOK_SHARE)), changes));
    }
}

impl Shared {
    /// Looks for what is old if it is time to, and deletes for a while.
    pub(super) fn forget(&self, state: &mut Forgetting, now: Now) {
        // Who moves a clock by hand leaps over hours, and meets each look in its own time.
        let is_by_hand = matches!(self.clock, Clock::Manual(_));
        let changes = || if is_by_hand { 0 } else { lock(&self.doings).changes };
        if !state.is_due(now.mono, changes) {
            return;
        }
        if state.found.is_empty() && !self.find_old(state, now) {
            return;
        }
        let began = Instant::now();
        while !state.found.is_empty() && began.elapsed() < SLICE && !self.closing.load(Ordering::Acquire) {
            let part = state.found.take(state.step);
            let step_began = Instant::now();
            if self.store.prune(&state.old, &part).is_err() {
                // It is found again.
                state.found = Found::default();
                state.due = now.mono.after(EVERY);
                return;
            }
            let took = step_began.elapsed();
            if took < STEP_SHORT {
                state.step = (state.step * 2).min(STEP_MAX);
            } else if took > STEP_LONGEST {
                state.step = (state.step / 2).max(STEP_MIN);
            }
            sleep(PAUSE);
        }
        if state.found.is_empty() && state.is_all {
            state.due = now.mono.after(EVERY);
        } else {
            self.wake_liaison();
        }
    }

    /// False if there is nothing to delete now.
    fn find_old(&self, state: &mut Forgetting, now: Now) -> bool {
        state.due = now.mono.after(EVERY);
        let kept = self.kept;
        let ticks = kept.runs.map_or(kept.ticks, |runs| runs.min(kept.ticks));
        let Ok(spared) = self.store.spared(self.epoch) else { return false };
        let longest = kept.runs.map_or(kept.ticks, |runs| runs.max(kept.ticks));
        if let Some(until) = spared.until(
            now.wall,
            longest,
            state.seen.is_none(),
            state.seen.is_some_and(|seen| has_jumped(seen, now)),
        ) {
            if spared.until != Some(until) && self.store.spare(until).is_err() {
                return false;
            }
            state.seen = Some(now);
            state.due = now.mono.after(Duration::from_micros(until.0.abs_diff(now.wall.0)));
            state.sooner = None;
            return false;
        }
        state.seen = Some(now);
        self.drop_callbacks(&mut state.unwanted, now);
        let before = |span| earlier(now.wall, span);
        state.old = Old {
            now: now.wall,
            runs_before: kept.runs.map(before),
            ticks_before: before(ticks),
            ticks_max: kept.ticks_max,
        };
        let halt = Halt::default();
        let Ok(_open) = self.open(&halt) else { return false };
        let (began, changes) = (Instant::now(), lock(&self.doings).changes);
        let Ok(found) = self.store.find_old(&state.old, FOUND_MAX, &halt) else { return false };
        state.has_looked(now.mono, began.elapsed(), changes);
        let is_full = |length: usize| length as u64 >= FOUND_MAX;
        state.is_all =
            !(is_full(found.runs.len()) || is_full(found.ticks.len()) || is_full(found.keys.len()));
        state.found = found;
        // What is found is deleted at once, in slices.
        let is_some = !state.found.is_empty();
        if is_some {
            state.due = now.mono;
        }
        is_some
    }

    /// What waits for callbacks that a deploy has dropped is told to nobody.
    fn drop_callbacks(&self, seen: &mut BTreeMap<Unwanted, Mono>, now: Now) {
        let Ok(found) = self.store.unwanted_callbacks() else { return };
        let long: Vec<Unwanted> = match &self.clock {
            Clock::System(..) => long_seen(seen, found, now),
            // It is nobody else's, and leaps over hours.
            Clock::Manual(_) => {
                let before = earlier(now.wall, CALLBACKS_KEPT);
                found.into_iter().filter(|each| each.since < before).collect()
            }
        };
        if long.is_empty() {
            return;
        }
        for (workflow, count) in self.store.drop_callbacks(&long, now.wall).unwrap_or_default() {
            self.order(Order::Log(Note::CallbacksDropped { workflow: workflow.into(), count }));
        }
    }
}

/// Those that this runner has found so for as long as they are kept. Since when that is was written down by another machine, whose clock may differ, or
/// before a clock was set: only how long it was seen counts.
fn long_seen(seen: &mut BTreeMap<Unwanted, Mono>, found: Vec<Unwanted>, now: Now) -> Vec<Unwanted> {
    let since = |each: Unwanted| (seen.get(&each).copied().unwrap_or(now.mono), each);
    *seen = found.into_iter().map(since).map(|(since, each)| (each, since)).collect();
    let is_long = |&(_, since): &(&Unwanted, &Mono)| now.mono >= since.after(CALLBACKS_KEPT);
    seen.iter().filter(is_long).map(|(each, _)| each.clone()).collect()
}

/// A time so long before.
fn earlier(at: Wall, span: Duration) -> Wall {
    Wall(at.0.saturating_sub(Wall(0).after(span).0))
}

/// Whether the wall clock moved ahead of the other one.
fn has_jumped(seen: Now, now: Now) -> bool {
    let lived = Duration::from_nanos(now.mono.0.saturating_sub(seen.mono.0));
    now.wall > seen.wall.after(lived).after(JUMP_LIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_brings_a_look_forward_and_what_a_look_costs_puts_it_off() {
        let at = |seconds| Mono::default().after(Duration::from_secs(seconds));
        let mut state = Forgetting::new(at(600));
        assert!(!state.is_due(at(599), || 1_000_000), "nothing is known of how long a look takes");
        assert!(state.is_due(at(600), || 0));
        state.has_looked(at(0), Duration::from_millis(3), 7);
        let many = 7 + CHANGES_MANY;
        let due = [(9, many), (10, many), (10, many - 1)]
            .map(|(seconds, count)| state.is_due(at(seconds), || count));
        assert_eq!(due, [false, true, false]);
        state.has_looked(at(0), Duration::from_millis(30), 7);
        assert_eq!([29, 30].map(|seconds| state.is_due(at(seconds), || many)), [false, true]);
    }

    #[test]
    fn callbacks_that_nobody_declares_are_kept_for_an_hour_whatever_another_clock_says() {
        let unwanted = |since| Unwanted { workflow: "mail".to_owned(), since: Wall(since) };
        let mut seen = BTreeMap::new();
        // Two hours ahead of the clock that says since when.
        let ahead = Wall(0).after(Duration::from_secs(7200));
        let mut long = |minutes: u64, found: Vec<Unwanted>| {
            let lived = Duration::from_secs(minutes * 60);
            let now = Now { mono: Mono::default().after(lived), wall: ahead.after(lived) };
            long_seen(&mut seen, found, now)
        };
        assert_eq!(long(0, vec![unwanted(0)]), []);
        assert_eq!(long(59, vec![unwanted(0)]), []);
        assert_eq!(long(60, vec![unwanted(0)]), [unwanted(0)]);
        // Somebody has begun to declare the workflow since.
        assert_eq!(long(70, vec![unwanted(1)]), []);
        assert_eq!(long(130, vec![unwanted(1)]), [unwanted(1)]);
        // It was wanted in between.
        assert_eq!(long(140, vec![]), []);
        assert_eq!(long(150, vec![unwanted(1)]), []);
        let behind = i64::MAX;
        assert_eq!(long(150, vec![unwanted(behind)]), []);
        assert_eq!(long(210, vec![unwanted(behind)]), [unwanted(behind)]);
    }
}
