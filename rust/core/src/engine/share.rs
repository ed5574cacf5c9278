//! How much this runner takes in hand of what other runners could work on: the rest lies in the store, and whoever has room claims it.
//! Where nobody else declares a workflow all of its runs come here, which spares a claim each.
//! Invariant: a run counts from when it comes into hand until it leaves, but not while all that is open of it waits for a time, a permit that it
//! gave back, or its turn: what only waits must not keep out what could go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::engine::{Effects, Engine, Job, Settings, Then};
use crate::key::RunRow;
use crate::pace::Pace;
use crate::port::{Change, NewRun};
use crate::run::Run;
use crate::time::{Mono, Now};
use crate::workflow::Workflow;

/// Of short runs as many more are taken as ended in so long: to claim them a few at a time would take longer than to run them.
const AHEAD: Duration = Duration::from_millis(50);

/// Runs are short if in so long more of them end than can run at once: then some have begun and ended in it. Of longer ones only as many are
/// taken as can run. The next would wait here while somebody else has room for it, and a claim takes little beside them.
const SHORT: Duration = Duration::from_millis(200);

/// Workflows whose runs are to be claimed together, and how many of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Their names.
    pub workflows: Vec<Arc<str>>,
    /// So many runs.
    pub limit: u64,
    /// Of which share; none if all there are come here.
    pub hand: Option<usize>,
}

/// One share of the work in hand: what begins in one place to run, or all of it.
#[derive(Debug)]
struct Hand {
    /// So many can run at once.
    places: usize,
    /// So many runs, if the program says so.
    fixed: Option<usize>,
    /// So many runs count.
    busy: usize,
    /// Whether more may lie in the store.
    has_more: bool,
    /// Whether whoever claims has been asked to look, and has not yet.
    is_asked: bool,
    /// How many of its runs end soon, and whether they are short.
    ahead: Pace,
    turns: Pace,
}

#[derive(Debug)]
pub(super) struct Hands {
    shares: bool,
    /// Whether the program says how many runs it takes, of all together.
    is_fixed: bool,
    hands: Vec<Hand>,
}

impl Hand {
    fn of(places: usize, fixed: Option<usize>) -> Self {
        let (ahead, turns) = (Pace::new(AHEAD), Pace::new(SHORT));
        Self { places, fixed, busy: 0, has_more: false, is_asked: false, ahead, turns }
    }

    fn roll(&mut self, now: Mono) {
        self.ahead.roll(now);
        self.turns.roll(now);
    }

    fn end(&mut self, now: Mono) {
        self.ahead.end(now);
        self.turns.end(now);
    }

    fn are_short(&self) -> bool {
        self.turns.many() > self.places
    }

    fn most(&self) -> usize {
        let ahead = if self.are_short() { self.ahead.many() } else { 0 };
        self.fixed.unwrap_or(self.places.saturating_add(ahead))
    }

    fn room(&self) -> usize {
        self.most().saturating_sub(self.busy)
    }

    /// Whether it is time to claim: there is a place to run for which nothing is here, or half of what is to wait here is gone, so that a claim
    /// is worth its transaction.
    fn calls(&mut self) -> bool {
        if !self.has_more || self.is_asked {
            return false;
        }
        let most = self.most();
        let places = self.places.min(most);
        self.is_asked = self.busy < most && self.busy.saturating_sub(places) <= (most - places) / 2;
        self.is_asked
    }

    /// By how much it is too full. Of short runs not for a few: the next that end make up for them.
    fn excess(&self) -> usize {
        let slack = if self.are_short() { self.places / 2 } else { 0 };
        Some(self.busy.saturating_sub(self.most())).filter(|&excess| excess > slack).unwrap_or(0)
    }
}

impl Hands {
    pub(super) fn new(settings: &Settings) -> Self {
        let fixed = settings.runs_in_hand;
        let hands = match fixed {
            Some(most) => vec![Hand::of(most, fixed)],
            None => settings.permits.iter().map(|&permits| Hand::of(permits, None)).collect(),
        };
        Self { shares: settings.shares, is_fixed: fixed.is_some(), hands }
    }

    /// Which of them a run of that workflow counts in: that of the place where it begins.
    fn place(&self, workflow: &Workflow) -> usize {
        if self.is_fixed { 0 } else { begins_in(workflow).min(self.hands.len() - 1) }
    }

    /// The places to run of one of them.
    fn executors(&self, hand: usize) -> std::ops::Range<usize> {
        if self.is_fixed { 0..usize::MAX } else { hand..hand + 1 }
    }

    fn of(&mut self, workflow: &Workflow, now: Mono) -> &mut Hand {
        let place = self.place(workflow);
        let hand = &mut self.hands[place];
        hand.roll(now);
        hand
    }
}

/// The place to run where a run of that workflow begins.
fn begins_in(workflow: &Workflow) -> usize {
    workflow.graph.roots().first().map_or(0, |&root| workflow.tasks[root].executor.0 as usize)
}

impl Engine {
    /// Whether what lies in the store comes back, here or elsewhere.
    pub(super) fn leaves_runs(&self) -> bool {
        self.hands.shares
    }

    /// Whether runs of that workflow may lie in the store while this runner serves it.
    fn shares(&self, workflow: &str) -> bool {
        self.hands.shares && (self.hands.is_fixed || self.elsewhere.contains(workflow))
    }

    /// Whether a new run comes into hand, or is left to whoever has room. What lies in the store goes before it.
    pub(super) fn has_room(&mut self, new: &NewRun, workflow: &Workflow, now: Now) -> bool {
        // Who has called it waits for it, and of a line one at a time goes on in any case.
        if !self.shares(&workflow.name) || new.parent.is_some() || self.turns.contains_key(&new.id) {
            return true;
        }
        let hand = self.hands.of(workflow, now.mono);
        let has_room = !hand.has_more && hand.room() > 0;
        hand.has_more |= !has_room;
        has_room
    }

    /// A run that was left to others is kept.
    pub(super) fn left_to_others(&mut self, hand: usize, out: &mut Effects) {
        out.is_offered = true;
        let hand = &mut self.hands.hands[hand];
        hand.has_more = true;
        out.is_due |= hand.calls();
    }

    pub(super) fn hand_of(&self, workflow: &Workflow) -> usize {
        self.hands.place(workflow)
    }

    /// Counts a run, or does so no more, as it stands now.
    pub(super) fn recount(&mut self, id: Uuid, out: &mut Effects) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let counts = !run.rests() && (self.turns.is_empty() || !self.turns.contains_key(&id));
        if run.counts == counts {
            return;
        }
        run.counts = counts;
        let place = self.hands.place(&run.workflow);
        let hand = &mut self.hands.hands[place];
        if counts {
            hand.busy += 1;
        } else {
            hand.busy -= 1;
            out.is_due |= hand.calls();
        }
    }

    /// A run has left.
    pub(super) fn uncount(&mut self, run: &Run, now: Now, out: &mut Effects) {
        let is_shared = self.shares(&run.workflow.name);
        let place = self.hands.place(&run.workflow);
        let hand = &mut self.hands.hands[place];
        hand.busy -= usize::from(run.counts);
        if is_shared {
            hand.end(now.mono);
            out.is_due |= hand.calls();
        }
    }

    /// What is to be claimed now, at most `limit` runs at once.
    pub fn claims(&mut self, limit: u64, now: Now) -> Vec<Claims> {
        if self.drains {
            return Vec::new();
        }
        let (shared, own): (Vec<_>, Vec<_>) =
            self.workflows.values().cloned().partition(|workflow| self.shares(&workflow.name));
        let names = |workflows: &[Arc<Workflow>]| {
            workflows.iter().map(|workflow| Arc::clone(&workflow.name)).collect()
        };
        let mut claims = Vec::new();
        if !own.is_empty() {
            claims.push(Claims { workflows: names(&own), limit, hand: None });
        }
        for place in 0..self.hands.hands.len() {
            let of_hand: Vec<_> =
                shared.iter().filter(|workflow| self.hands.place(workflow) == place).cloned().collect();
            let Some(first) = of_hand.first() else { continue };
            let permits = &self.settings.permits;
            let last = permits.len() - 1;
            let executors: BTreeSet<_> =
                of_hand.iter().map(|workflow| begins_in(workflow).min(last)).collect();
            let places =
                executors.into_iter().fold(0, |all: usize, executor| all.saturating_add(permits[executor]));
            let hand = self.hands.of(first, now.mono);
            hand.places = places;
            hand.is_asked = false;
            let room = hand.room();
            // Whoever has none looks as soon as there is some.
            hand.has_more |= room == 0;
            if room > 0 {
                let limit = limit.min(room as u64);
                claims.push(Claims { workflows: names(&of_hand), limit, hand: Some(place) });
            }
        }
        claims
    }

    /// Of these claims all that there was has come, or there may be more.
    pub(super) fn claimed_all(&mut self, hand: usize, is_all: bool, out: &mut Effects) {
        let hand = &mut self.hands.hands[hand];
        hand.has_more = !is_all;
        out.is_due |= hand.calls();
    }

    /// By how many runs what is in hand is too much, with the places to run where those begin: others could take what has not begun.
    pub fn excess(&mut self, now: Now) -> Vec<(std::ops::Range<usize>, usize)> {
        if !self.hands.shares || self.elsewhere.is_empty() && !self.hands.is_fixed {
            return Vec::new();
        }
        let excess = self.hands.hands.iter_mut().enumerate().map(|(place, hand)| {
            hand.roll(now.mono);
            (place, hand.excess())
        });
        let excess: Vec<_> = excess.filter(|&(_, many)| many > 0).collect();
        excess.into_iter().map(|(place, many)| (self.hands.executors(place), many)).collect()
    }

    /// Leaves those of these attempts' runs to others that have not begun. What cannot be left is ready again.
    pub(super) fn leave_to_others(&mut self, jobs: Vec<Job>, out: &mut Effects) {
        let (mut runs, mut hands) = (Vec::new(), Vec::new());
        let mut kept = Vec::new();
        for job in jobs {
            match self.may_leave(job) {
                None => {}
                Some(false) => kept.push(self.placed(job)),
                Some(true) => {
                    let Some((row, hand)) = self.leave_run(job.run, out) else { continue };
                    hands.push(hand);
                    runs.push(row);
                }
            }
        }
        // They were taken from the end of their queue, the last first.
        out.jobs.extend(kept.into_iter().rev());
        if !runs.is_empty() {
            hands.sort_unstable();
            hands.dedup();
            out.commits.push((Change::Release { epoch: self.epoch, runs }, Then::Released(hands)));
        }
    }

    /// Whether a run that had its turn before waits here for the end of that one: elsewhere that one would wait for it.
    pub(super) fn is_waited_for(&self, id: Uuid) -> bool {
        if self.turns.is_empty() {
            return false;
        }
        let has_begun = |run: Uuid| self.turns.get(&run).is_some_and(|turn| turn.resumed.is_some());
        self.gate.first_beside(id).is_some_and(has_begun) || self.gate.behind(id).any(has_begun)
    }

    /// Takes a run out of hand that is to lie in the store; its row, and the hand that it was in.
    pub(super) fn leave_run(&mut self, id: Uuid, out: &mut Effects) -> Option<(RunRow, usize)> {
        let run = self.runs.remove(&id)?;
        let hand = self.hands.place(&run.workflow);
        self.hands.hands[hand].busy -= usize::from(run.counts);
        // Whoever drives it, its trigger's next fires are judged with it in mind.
        if self.gate.holds(run.id) {
            self.others.insert(run.id);
        }
        out.elsewhere.push(run.id);
        self.left += usize::from(self.drains);
        Some((run.row, hand))
    }

    /// Whether the run of an attempt may be left to others: nothing of it has begun or is on its way to the store. None if nobody waits for it.
    fn may_leave(&self, job: Job) -> Option<bool> {
        let run = self.runs.get(&job.run).filter(|run| run.life == job.life)?;
        if !run.expects(job.task as usize, job.attempt) && !job.callback_only {
            return None;
        }
        let is_free = run.is_untouched() && !run.is_child && !self.turns.contains_key(&run.id);
        let is_free = is_free && !self.seats.has(run.id) && !self.is_waited_for(run.id);
        let is_others = self.drains || self.shares(&run.workflow.name);
        Some(is_free && is_others && !self.run_timer.contains_key(&run.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn hand(places: usize, fixed: Option<usize>, busy: usize) -> Hand {
        Hand { busy, has_more: true, ..Hand::of(places, fixed) }
    }

    /// So many ended, one every so many milliseconds, until now.
    fn ended(hand: &mut Hand, many: u64, each_ms: u64) {
        (1..=many).for_each(|n| hand.end(Mono(n * each_ms * MS)));
    }

    #[test]
    fn of_what_nothing_is_known_and_of_long_runs_as_many_are_taken_as_can_run() {
        let mut hand = hand(4, None, 4);
        assert_eq!(hand.room(), 0);
        (0..4).for_each(|_| hand.end(Mono(2_000 * MS)));
        assert_eq!((hand.room(), hand.calls()), (0, false));
        hand.busy = 3;
        assert_eq!((hand.room(), hand.calls()), (1, true), "one place that is free is filled");
    }

    #[test]
    fn of_short_runs_as_many_more_are_taken_as_end_soon_and_again_once_half_of_those_is_gone() {
        let mut hand = hand(4, None, 4);
        ended(&mut hand, 100, 1);
        assert_eq!(hand.room(), 50);
        hand.busy = 30;
        assert!(!hand.calls());
        hand.busy = 29;
        assert!(hand.calls());
        assert!(!hand.calls(), "whoever claims was asked already");
    }

    #[test]
    fn what_was_taken_for_short_is_too_much_once_nothing_ends() {
        let mut hand = hand(4, None, 50);
        ended(&mut hand, 100, 1);
        assert_eq!(hand.excess(), 0);
        hand.busy = 56;
        assert_eq!(hand.excess(), 0, "a few more are gone at once");
        hand.roll(Mono(1_000 * MS));
        assert_eq!(hand.excess(), 52);
        hand.busy = 5;
        assert_eq!(hand.excess(), 1, "not even one is to wait for a long run's end");
    }

    #[test]
    fn what_the_program_says_holds_however_long_runs_take() {
        let mut hand = hand(4, Some(16), 16);
        ended(&mut hand, 1_000, 1);
        assert_eq!((hand.room(), hand.excess()), (0, 0));
        hand.busy = 11;
        assert!(!hand.calls());
        hand.busy = 10;
        assert!(hand.calls());
        let mut hand = self::hand(4, Some(3), 2);
        assert!(hand.calls(), "it has fewer than could run");
    }
}
