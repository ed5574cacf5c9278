//! Hands out ends of runs that the program is to be told of, and keeps what came of each.
//! Invariant: what was handed out is this runner's until it has said what came of it, also while the runner leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::engine::CallCounts;
use crate::grid::Wait;
use crate::key::{EndKey, Epoch};
use crate::meter::{NAMES_MAX, Named};
use crate::port::{Change, End, InFlight, Settled, Stored};
use crate::runtime::clock::Clock;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::{Runtime, Shared};
use crate::time::{Mono, Now, Wall};

/// Ends that other processes wrote down are looked for so often.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The first pause after a call that failed; each is twice the last one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// A call is given up that would be made again after pauses of so long. They count and no clock does, which may be set meanwhile.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// And one that ended its process so often.
const TRIES_MAX: u32 = 200;

/// So many ends of one workflow are told at once. While some of them take too long, so many of all such workflows are: what is known to hang holds
/// up nobody else. And of one such workflow so many hang at most.
const OF_ONE_MAX: usize = 4;
const OF_HANGING_MAX: usize = 2;
const OVERDUE_OF_ONE_MAX: usize = 16;

pub(super) struct Tellings {
    /// Whether there is anybody to tell.
    is_open: bool,
    /// Whether there may be more than was seen at the last look, and whether somebody looks.
    has_news: bool,
    is_looking: bool,
    in_hand: BTreeMap<EndKey, Call>,
    /// What came of some, which the store did not take: that they were told, or when they are to be told again and why.
    unsaid: BTreeMap<EndKey, Outcome>,
    /// When the next one is due.
    due: Option<Wall>,
    counted: Named<Arc<str>, CallCounts>,
}

impl Default for Tellings {
    fn default() -> Self {
        Self {
            is_open: false,
            has_news: false,
            is_looking: false,
            in_hand: BTreeMap::new(),
            unsaid: BTreeMap::new(),
            due: None,
            counted: Named::new(NAMES_MAX),
        }
    }
}

impl Tellings {
    /// Whether nothing is to be told at that time.
    pub(super) fn is_idle(&self, now: Wall) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        !self.is_open || !(self.has_news || self.is_looking || is_due) && self.in_hand.is_empty()
    }

    /// The workflows of which no more is to be told until a call comes home, and how many ends may be handed out of any other, while so many places are
    /// free.
    fn full(&self, free: usize) -> (Vec<String>, usize) {
        let mut under_way: BTreeMap<&str, UnderWay> = BTreeMap::new();
        for call in self.in_hand.values() {
            let of_it = under_way.entry(&call.end.workflow).or_default();
            *if call.is_overdue { &mut of_it.overdue } else { &mut of_it.calls } += 1;
        }
        let hanging = under_way.values().filter(|of_it| of_it.overdue > 0).map(|of_it| of_it.calls).sum();
        let room = |of_it: &UnderWay| of_it.room(hanging, free);
        let full = under_way.iter().filter(|(_, of_it)| room(of_it) == 0).map(|(name, _)| (*name).to_owned());
        let others = room(&UnderWay::default());
        let least = under_way.values().map(room).filter(|&room| room > 0).fold(others, usize::min);
        (full.collect(), least)
    }

    /// What became of calls, by workflows.
    pub(super) fn calls(&self) -> &Named<Arc<str>, CallCounts> {
        &self.counted
    }

    /// When there is something to tell, unless somebody is at it.
    pub(super) fn next_due(&self, now: Now) -> Option<Mono> {
        let left_us = u64::try_from(self.due?.0.saturating_sub(now.wall.0)).unwrap_or(0);
        Some(now.mono.after(Duration::from_micros(left_us)))
    }
}

/// A call about an end that was handed out.
#[derive(Debug)]
struct Call {
    end: End,
    /// It takes too long, and has left its place to another.
    is_overdue: bool,
}

/// How many calls of one workflow's callbacks are under way, and how many of them take too long.
#[derive(Debug, Default)]
struct UnderWay {
    calls: usize,
    overdue: usize,
}

impl UnderWay {
    /// How many more may be made, where so many are under way of those that hang, and so many places are free. The more of them are under way the more
    /// must be free for the next: of what begins to hang, and isn't known to, one or two workflows leave places to others.
    fn room(&self, hanging: usize, free: usize) -> usize {
        match self.overdue {
            0 => OF_ONE_MAX.saturating_sub(self.calls).min(free.saturating_sub(self.calls).div_ceil(2)),
            overdue => {
                let left = OVERDUE_OF_ONE_MAX.saturating_sub(overdue + self.calls);
                left.min(OF_HANGING_MAX.saturating_sub(hanging))
            }
        }
    }
}

/// What came of an end, until the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It needs no further call, since then.
    Over(Settled, Wall),
    /// It is called again, because of that error.
    Again(Wait, String),
    /// It was not called: its callback is declared here no more, and may be so elsewhere, or in a moment.
    Back(Wait),
}

/// What became of a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOff {
    /// It is made again.
    Until(Wall),
    /// It is not.
    GivenUp,
}

/// The pause before the call that follows that many.
fn pause_after(tries: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

/// Whether the call that follows that many is not made.
fn is_over_after(tries: u32) -> bool {
    (1..=tries).map(pause_after).sum::<Duration>() > GIVEN_UP_AFTER
}

impl Runtime {
    /// The program wants to hear of ends of this workflow's runs from now on.
    pub fn open_tellings(&self, workflow: &str) {
        {
            let mut tellings = lock(&self.shared.tellings);
            // Who watches would lose the first of what appears only with it.
            tellings.counted.of(&workflow.into());
            if std::mem::replace(&mut tellings.is_open, true) {
                return;
            }
        }
        self.shared.tells_ends.store(true, Ordering::Release);
        self.shared.ends_came();
    }

    /// Says at once which workflows are declared here: of runs that end from now on their callbacks are to hear. Call detached.
    pub fn say_workflows(&self) {
        self.shared.say_workflows();
    }

    /// At most `limit` ends that the program is to be told of, which are its own until it says what came of each; empty if there are none for
    /// so long, none once the runner closes. By one thread at a time. Call detached.
    pub fn next_ends(&self, limit: u64, patience: Option<Duration>) -> Option<Vec<End>> {
        let shared = &self.shared;
        let deadline = patience.map(|span| Instant::now() + span);
        loop {
            let (full, room) = {
                let mut tellings = lock(&shared.tellings);
                if shared.closing.load(Ordering::Acquire) {
                    return None;
                }
                tellings.has_news = false;
                tellings.is_looking = true;
                tellings.full(usize::try_from(limit).unwrap_or(usize::MAX))
            };
            let (found, due) = shared.look_for_ends(limit.min(room as u64), &full);
            let mut tellings = lock(&shared.tellings);
            tellings.is_looking = false;
            if shared.closing.load(Ordering::Acquire) {
                // Whoever closes waits for what has been handed out.
                shared.tellings_wake.notify_all();
            }
            tellings.due = due;
            if !found.is_empty() {
                tellings.has_news = true;
                let call = |end: &End| (end.key, Call { end: end.clone(), is_overdue: false });
                tellings.in_hand.extend(found.iter().map(call));
                return Some(found);
            }
            let now = shared.now().wall;
            let until_due = due.map(|due| Duration::from_micros(u64::try_from(due.0 - now.0).unwrap_or(0)));
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Some(Vec::new());
            }
            if !tellings.has_news && !shared.closing.load(Ordering::Acquire) {
                let nap = match &shared.clock {
                    Clock::System(..) => Some(LOOK_EVERY.min(until_due.unwrap_or(LOOK_EVERY))),
                    // Whoever moves it tells.
                    Clock::Manual(_) => None,
                };
                let span = nap.into_iter().chain(left).min();
                drop(tellings);
                shared.move_on();
                let tellings = lock(&shared.tellings);
                if !tellings.has_news && !shared.closing.load(Ordering::Acquire) {
                    drop(wait_on(&shared.tellings_wake, tellings, span));
                }
            }
        }
    }

    /// Nothing more is to be called for an end.
    pub fn end_told(&self, key: EndKey, settled: Settled) {
        self.shared.count_call(key, |counts| match &settled {
            Settled::Called => counts.called += 1,
            Settled::GivenUp(_) => counts.given_up += 1,
            Settled::Withdrawn => {}
        });
        self.shared.say_end(key, Outcome::Over(settled, self.now().wall));
    }

    /// There is no such callback in this program any more: whoever declares it is to call it.
    pub fn end_given_back(&self, key: EndKey) {
        self.shared.say_end(key, Outcome::Back(Wait::new(LOOK_EVERY, self.now().wall)));
    }

    /// A call about an end has failed with `error`; whether it is made again, not before `wish` is over. None if there is no such call.
    pub fn end_failed(&self, key: EndKey, error: &str, wish: Duration) -> Option<PutOff> {
        let tries = lock(&self.shared.tellings).in_hand.get(&key)?.end.tries;
        let now = self.now().wall;
        let wait = Wait::new(pause_after(tries).max(wish), now);
        let is_over = is_over_after(tries);
        self.shared.count_call(key, |counts| {
            counts.called += 1;
            counts.failed += 1;
            counts.given_up += u64::from(is_over);
        });
        let outcome = match is_over {
            true => Outcome::Over(Settled::GivenUp(Some(error.to_owned())), now),
            false => Outcome::Again(wait, error.to_owned()),
        };
        self.shared.say_end(key, outcome);
        Some(if is_over { PutOff::GivenUp } else { PutOff::Until(wait.not_before) })
    }

    /// A call about an end takes so long that it leaves its place to another. Whether so many of its workflow do that no more of them are made until
    /// one comes home.
    pub fn end_overdue(&self, key: EndKey) -> bool {
        let mut tellings = lock(&self.shared.tellings);
        let Some(call) = tellings.in_hand.get_mut(&key) else { return false };
        call.is_overdue = true;
        let workflow = call.end.workflow.clone();
        let is_of_it = |call: &&Call| call.is_overdue && call.end.workflow == workflow;
        tellings.in_hand.values().filter(is_of_it).count() >= OVERDUE_OF_ONE_MAX
    }

    /// Has the callback of a run's end be called at once, by whoever declares it; false if none waits for its next call.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn call_soon(&self, run: Uuid) -> Stored<bool> {
        let is_due = self.shared.store.call_soon(run, self.now().wall)?;
        self.shared.ends_came();
        Ok(is_due)
    }

    /// Has the callback of a run's end not be called any more; false if none waits for its next call. One that is being called is left alone.
    ///
    /// # Errors
    /// A [`crate::port::Fault`] of the store.
    pub fn skip_call(&self, run: Uuid) -> Stored<bool> {
        let is_gone = self.shared.store.skip_call(run, self.now().wall)?;
        self.shared.ends_came();
        Ok(is_gone)
    }

    /// Whether a call has ended its process so often that it is made no more.
    pub fn is_given_up(&self, end: &End) -> bool {
        end.tries > TRIES_MAX
    }

    /// Waits until no call is under way but `own`; false if that is not so in time.
    pub(super) fn drain_tellings(&self, deadline: Instant, own: usize) -> bool {
        let mut tellings = lock(&self.shared.tellings);
        while tellings.is_looking || tellings.in_hand.len() > own {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            tellings = wait_on(&self.shared.tellings_wake, tellings, Some(left));
        }
        true
    }
}

impl Shared {
    fn look_for_ends(&self, limit: u64, full: &[String]) -> (Vec<End>, Option<Wall>) {
        let unsaid = std::mem::take(&mut lock(&self.tellings).unsaid);
        for (key, outcome) in unsaid {
            // Whoever leaves waits for this look, so that it is this runner's epoch still.
            if !self.keep_end(self.epoch, key, &outcome) {
                lock(&self.tellings).unsaid.insert(key, outcome);
            }
        }
        let now = self.now().wall;
        let next = || self.store.next_end(self.epoch, now, full).unwrap_or_default();
        match next() {
            Some(due) if due <= now => {
                match self.store.take_ends(self.epoch, now, limit, full).unwrap_or_default() {
                    // Others took it, or it waits again after a clock that was ahead.
                    found if found.is_empty() => (found, next()),
                    // The answer came late, and others may call by now.
                    found if self.store.is_silent(self.epoch) => {
                        let back = |end: End| (end.key, Outcome::Back(Wait::new(LOOK_EVERY, now)));
                        lock(&self.tellings).unsaid.extend(found.into_iter().map(back));
                        (Vec::new(), None)
                    }
                    found => (found, None),
                }
            }
            due => (Vec::new(), due),
        }
    }

    fn count_call(&self, key: EndKey, count: impl FnOnce(&mut CallCounts)) {
        let mut tellings = lock(&self.tellings);
        let workflow = tellings.in_hand.get(&key).map(|call| Arc::from(call.end.workflow.as_str()));
        if let Some(workflow) = workflow {
            count(tellings.counted.of(&workflow));
        }
    }

    /// There may be more to tell.
    pub(super) fn ends_came(&self) {
        self.endings_came();
        if self.tells_ends.load(Ordering::Acquire) {
            lock(&self.tellings).has_news = true;
            self.tellings_wake.notify_all();
        }
    }

    /// The same after a commit of these.
    pub(super) fn ends_written(&self, changes: &[Change]) {
        let is_end = |change: &Change| matches!(change, Change::Run(change) if change.end.is_some());
        if (self.tells_ends.load(Ordering::Acquire) || self.endings.is_open()) && changes.iter().any(is_end) {
            self.ends_came();
        }
    }

    pub(super) fn ends_in_hand(&self, kept: &mut InFlight) {
        let mut tellings = lock(&self.tellings);
        // What is being handed out now is in the store already.
        while tellings.is_looking {
            tellings = wait_on(&self.tellings_wake, tellings, Some(LOOK_EVERY));
        }
        kept.ends = tellings.in_hand.keys().copied().collect();
    }

    /// Keeps what came of an end. What the store does not take now is said again at the next look; if that never comes, whoever comes after this
    /// runner tells of it once more.
    fn say_end(&self, key: EndKey, outcome: Outcome) {
        // Held to the end: whoever leaves meanwhile would hand it on to another epoch.
        let stays = lock(&self.stays);
        let is_kept = stays.is_none_or(|epoch| self.keep_end(epoch, key, &outcome));
        drop(stays);
        {
            let mut tellings = lock(&self.tellings);
            tellings.in_hand.remove(&key);
            // At once: a manual clock would move on over what is to be told again.
            tellings.has_news = true;
            if !is_kept {
                tellings.unsaid.insert(key, outcome);
            }
        }
        self.ends_came();
        let is_leaving = lock(&self.jobs).is_leaving;
        if is_leaving {
            self.leave_late(true);
        }
    }

    fn keep_end(&self, epoch: Epoch, key: EndKey, outcome: &Outcome) -> bool {
        let said = match outcome {
            Outcome::Over(settled, at) => self.store.end_told(epoch, key, settled, *at),
            Outcome::Again(wait, error) => self.store.put_end_off(epoch, key, *wait, error),
            Outcome::Back(wait) => self.store.give_end_back(epoch, key, *wait),
        };
        said.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::RunStatus;

    #[test]
    fn pauses_double_up_to_ten_minutes() {
        let seconds: Vec<u64> = [1, 2, 3, 10, 11, 200].map(|tries| pause_after(tries).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 512, 600, 600]);
    }

    #[test]
    fn a_call_is_given_up_that_would_be_made_again_after_a_day_of_pauses() {
        // Ten pauses that double take 1,023 s, and each after them 600.
        assert_eq!([1, 152, 153, TRIES_MAX].map(is_over_after), [false, false, true, true]);
    }

    #[test]
    fn a_workflow_of_which_many_are_told_or_hang_has_no_room_and_the_others_have() {
        let told = |of: &[(&str, usize, usize)]| {
            let each = of.iter().flat_map(|&(name, calls, overdue)| {
                (0..calls + overdue).map(move |place| (name, place >= calls))
            });
            let call = |(number, (name, is_overdue)): (i64, (&str, bool))| {
                let (key, workflow) = (EndKey(number), name.to_owned());
                let end = End {
                    key,
                    run: Uuid::nil(),
                    workflow,
                    number: 1,
                    status: RunStatus::Failed,
                    tries: 1,
                    ended_at: None,
                };
                (key, Call { end, is_overdue })
            };
            let in_hand = (1..).zip(each).map(call).collect();
            let free = 8 - of.iter().map(|&(_, calls, _)| calls).sum::<usize>();
            let (full, room) = Tellings { in_hand, ..Tellings::default() }.full(free);
            (full.join(" "), room)
        };
        assert_eq!(told(&[]), (String::new(), 4));
        assert_eq!(told(&[("a", 3, 0)]), (String::new(), 1));
        assert_eq!(told(&[("a", 4, 0)]), ("a".to_owned(), 2));
        assert_eq!(told(&[("a", 4, 0), ("b", 1, 0)]), ("a".to_owned(), 1));
        assert_eq!(told(&[("a", 4, 0), ("b", 2, 0)]), ("a b".to_owned(), 1));
        assert_eq!(told(&[("a", 4, 0), ("b", 2, 0), ("c", 1, 0)]), ("a b c".to_owned(), 1));
        assert_eq!(told(&[("a", 0, 14)]), (String::new(), 2));
        assert_eq!(told(&[("a", 0, 15), ("b", 1, 0)]), (String::new(), 1));
        assert_eq!(told(&[("a", 1, 15), ("b", 0, 1)]), ("a".to_owned(), 1));
        assert_eq!(told(&[("a", 1, 1), ("b", 1, 1), ("c", 0, 1), ("d", 2, 0)]), ("a b c".to_owned(), 1));
    }

    #[test]
    fn nothing_is_to_be_told_at_that_time_where_nobody_is_told_or_the_next_is_due_later() {
        let open = || Tellings { is_open: true, ..Tellings::default() };
        let idle = |tellings: Tellings| tellings.is_idle(Wall(10));
        assert!(idle(open()));
        assert!(idle(Tellings { has_news: true, ..Tellings::default() }), "nobody is told");
        assert!(idle(Tellings { due: Some(Wall(11)), ..open() }));
        assert!(!idle(Tellings { due: Some(Wall(10)), ..open() }));
        assert!(!idle(Tellings { has_news: true, ..open() }));
        assert!(!idle(Tellings { is_looking: true, ..open() }));
        let now = Now { wall: Wall(10), mono: Mono::default() };
        let next = |due| Tellings { due: Some(Wall(due)), ..open() }.next_due(now);
        assert_eq!(next(14), Some(now.mono.after(Duration::from_micros(4))));
        assert_eq!(next(3), Some(now.mono), "what is late is due now");
    }
}
