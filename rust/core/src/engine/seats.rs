//! The seats that attempts of limited tasks ask for, wait for, have and give back. An attempt asks once it has a permit, and gives that back
//! if it has to wait; what was granted to one that waits becomes ready anew.
//! Invariant: the body of such an attempt runs only between the store's word that it has its seats and this engine's that it gives them back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use crate::engine::{Effects, Engine, Job, Note, Then};
use crate::port::{Change, Receipt};
use crate::seat::{Ask, Limit, Pass, Pause, Seat};
use crate::time::{Now, Wall};
use crate::workflow::{Executor, Workflow};

/// While no more attempts are under limits, a run whose attempts all wait does not count among those in hand.
const RESTING_MAX: usize = 1000;

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// The store has not answered yet.
    Asked,
    /// It waits, without a permit.
    Waits,
    /// It has its seats.
    Has,
}

#[derive(Debug)]
struct Held {
    job: Job,
    seat: Seat,
    limits: Arc<[Arc<str>]>,
    stand: Stand,
    /// Its body is home in between, and goes on once it has them.
    is_away: bool,
    /// An attempt may ask again before all is answered that it asked before.
    number: u64,
}

/// Those of one runner, by run and task.
#[derive(Debug, Default)]
pub(super) struct Seats {
    held: BTreeMap<(Uuid, u32), Held>,
    places: HashMap<Seat, (Uuid, u32)>,
    /// For which limits how many wait here.
    waiting: BTreeMap<Arc<str>, usize>,
    /// When one may have its seats without anybody's doing.
    next: Option<Wall>,
    /// What was declared here.
    declared: BTreeMap<Arc<str>, Limit>,
    asked: u64,
}

impl Seats {
    /// When to look whether one has its seats by now.
    pub fn next(&self) -> Option<Wall> {
        self.next.filter(|_| !self.waiting.is_empty())
    }

    fn of(&self, job: Job) -> Option<&Held> {
        // Mostly there is none, and to look for it would cost each attempt.
        if self.held.is_empty() {
            return None;
        }
        self.held
            .get(&(job.run, job.task))
            .filter(|held| (held.job.life, held.job.attempt) == (job.life, job.attempt))
    }

    /// Whether an attempt of a run asked for seats, and has not given them back.
    pub fn has(&self, id: Uuid) -> bool {
        !self.held.is_empty() && self.held.range((id, 0)..=(id, u32::MAX)).next().is_some()
    }

    /// Whether an attempt may not begin yet, because it has not all of its seats.
    pub fn lacks(&self, job: Job) -> bool {
        self.of(job).is_some_and(|held| held.stand != Stand::Has)
    }

    /// The limits that an attempt waits for.
    pub fn awaited_by(&self, id: Uuid, task: usize) -> Option<&[Arc<str>]> {
        let task = u32::try_from(task).ok()?;
        self.held.get(&(id, task)).filter(|held| held.stand == Stand::Waits).map(|held| &*held.limits)
    }

    fn count(&mut self, limits: &[Arc<str>], comes: bool) {
        for name in limits {
            let many = self.waiting.entry(Arc::clone(name)).or_default();
            *many = if comes { *many + 1 } else { many.saturating_sub(1) };
            if *many == 0 {
                self.waiting.remove(name);
            }
        }
    }

    fn put(&mut self, held: Held) {
        let place = (held.job.run, held.job.task);
        self.take(place);
        self.count(&Arc::clone(&held.limits), true);
        self.places.insert(held.seat.clone(), place);
        self.held.insert(place, held);
    }

    fn take(&mut self, place: (Uuid, u32)) -> Option<Held> {
        let held = self.held.remove(&place)?;
        self.places.remove(&held.seat);
        if held.stand != Stand::Has {
            self.count(&Arc::clone(&held.limits), false);
        }
        Some(held)
    }

    /// It has its seats, says the answer to the question of that number, or to another's; who waited for that. What was not answered itself
    /// is not spoken of: the word is of seats that it had before, and has given back.
    fn grant(&mut self, seat: &Seat, answered: Option<u64>) -> Option<(Job, bool)> {
        let held = self.places.get(seat).and_then(|place| self.held.get_mut(place))?;
        let is_asked = held.stand == Stand::Asked;
        if held.stand == Stand::Has || is_asked && answered != Some(held.number) {
            return None;
        }
        held.stand = Stand::Has;
        let (job, is_away, limits) = (held.job, held.is_away, Arc::clone(&held.limits));
        self.count(&limits, false);
        (!is_asked).then_some((job, is_away))
    }
}

impl Engine {
    /// Whether anything here waits for a seat, so that news of others may be about one.
    pub fn waits_for_seats(&self) -> bool {
        !self.seats.waiting.is_empty()
    }

    /// What a program says of limits by the tasks of a workflow goes to the store before any attempt under them.
    pub(super) fn declare_limits(&mut self, workflow: &Workflow, out: &mut Effects) {
        let mut new = Vec::new();
        for limit in workflow.tasks.iter().flat_map(|task| &task.limits) {
            if self.seats.declared.get(&limit.name) != Some(limit) {
                self.seats.declared.insert(Arc::clone(&limit.name), limit.clone());
                new.push(limit.clone());
            }
        }
        if !new.is_empty() {
            out.commits.push((Change::DeclareLimits { epoch: self.epoch, limits: new }, Then::Limits));
        }
    }

    /// Asks for an attempt's seats, if it needs some and has not got them: then it does not begin.
    pub(super) fn lacks_seats(&mut self, job: Job, now: Now, out: &mut Effects) -> bool {
        let executor = match self.seats.of(job) {
            Some(held) => return held.stand != Stand::Has,
            None => self.runs.get(&job.run).map(|run| run.workflow.tasks[job.task as usize].executor),
        };
        self.ask_for_seats(job, executor, now, out)
    }

    /// False if it needs none.
    fn ask_for_seats(&mut self, job: Job, executor: Option<Executor>, now: Now, out: &mut Effects) -> bool {
        let epoch = self.epoch;
        let Some(run) = self.run_of(job) else { return false };
        let spec = &run.workflow.tasks[job.task as usize];
        if spec.limits.is_empty() {
            return false;
        }
        let limits: Arc<[Arc<str>]> = spec.limits.iter().map(|limit| Arc::clone(&limit.name)).collect();
        let seat = Seat { run: run.row, task: Arc::clone(&spec.id), attempt: job.attempt };
        let ask = Ask {
            seat: seat.clone(),
            epoch,
            limits: Arc::clone(&limits),
            priority: run.priority,
            at: now.wall,
        };
        let is_away = executor.is_none();
        self.seats.asked += 1;
        let number = self.seats.asked;
        self.seats.put(Held { job, seat, limits, stand: Stand::Asked, is_away, number });
        out.commits.push((Change::Ask(ask), Then::Seated { job, executor, number }));
        true
    }

    /// An attempt whose body is home in between wants to go on.
    pub(super) fn wants_seats_again(&mut self, job: Job, now: Now, out: &mut Effects) {
        let is_told = self.runs.get(&job.run).is_some_and(|run| run.is_told(job.task as usize));
        let is_needed = self.expects(job) && !is_told && self.seats.of(job).is_none();
        if !is_needed || !self.ask_for_seats(job, None, now, out) {
            out.reseated.push(job);
        }
    }

    /// An attempt's body has ended, or will not begin, or rests: its seats are free.
    pub(super) fn unseat(&mut self, job: Job, now: Now, out: &mut Effects) {
        if self.seats.of(job).is_some()
            && let Some(held) = self.seats.take((job.run, job.task))
        {
            self.give_back(held, now, out);
        }
    }

    /// An attempt's body goes home, to come back when its condition holds.
    pub(super) fn rest(&mut self, job: Job, now: Now, out: &mut Effects) {
        if self.seats.of(job).is_some() {
            self.unseat(job, now, out);
            out.seatless.push(job);
        }
    }

    /// An attempt's body was told to end: if it rests, it goes home without waiting for seats.
    pub(super) fn forgo_seats(&mut self, job: Job, now: Now, out: &mut Effects) {
        if self.seats.of(job).is_some_and(|held| held.is_away && held.stand != Stand::Has) {
            self.unseat(job, now, out);
            out.reseated.push(job);
        }
    }

    fn give_back(&mut self, held: Held, now: Now, out: &mut Effects) {
        out.commits.push((Change::Unseat { seat: held.seat, epoch: self.epoch, at: now.wall }, Then::Seats));
    }

    /// Gives back what attempts of a run have or wait for, but for those that are to keep theirs: one that was given up does, until its
    /// body is home.
    pub(super) fn unseat_run(
        &mut self,
        id: Uuid,
        keeps: impl Fn(&Self, Job) -> bool,
        now: Now,
        out: &mut Effects,
    ) {
        if self.seats.held.is_empty() {
            return;
        }
        let places: Vec<(Uuid, u32)> = self
            .seats
            .held
            .range((id, 0)..=(id, u32::MAX))
            .filter(|(_, held)| !keeps(self, held.job) && !self.overdue.contains_key(&held.job))
            .map(|(&place, _)| place)
            .collect();
        for place in places {
            if let Some(held) = self.seats.take(place) {
                self.give_back(held, now, out);
            }
        }
    }

    /// A body wants no other attempt to begin under a limit for a while: it goes to the store with what else that body left.
    pub(super) fn hold_up(&mut self, pause: Pause, out: &mut Effects) {
        if !self.seats.declared.contains_key(&pause.name) {
            out.logs.push(Note::LimitUnknown { name: Arc::clone(&pause.name), by: Arc::clone(&pause.by) });
        }
        out.commits.push((Change::Pause(pause), Then::Nothing));
    }

    /// Gives back what no body is in flight for.
    pub(super) fn unseat_idle(&mut self, in_flight: &[Job], now: Now, out: &mut Effects) {
        let runs: Vec<Uuid> = self.seats.held.keys().map(|&(run, _)| run).collect();
        for id in runs {
            self.unseat_run(id, |_, job| in_flight.contains(&job), now, out);
        }
    }

    /// Has the store looked whether one that waits here has its seats by now.
    pub(super) fn look_for_seats(&mut self, now: Now, out: &mut Effects) {
        self.seats.next = None;
        let limits: Vec<Arc<str>> = self.seats.waiting.keys().cloned().collect();
        if !limits.is_empty() {
            let change = Change::LookForSeats { epoch: self.epoch, limits, at: now.wall };
            out.commits.push((change, Then::Seats));
        }
    }

    /// The same, once its time has come.
    pub(super) fn look_for_open_seats(&mut self, now: Now, out: &mut Effects) {
        if self.seats.next().is_some_and(|next| next <= now.wall) {
            self.look_for_seats(now, out);
        }
    }

    /// The store has answered one that asked.
    pub(super) fn seated(
        &mut self,
        job: Job,
        executor: Option<Executor>,
        number: u64,
        receipt: Receipt,
        now: Now,
        out: &mut Effects,
    ) {
        match receipt {
            Receipt::Seats(pass) => self.passed(pass, Some(number), out),
            Receipt::Refused(why) if self.is_life(job.run, job.life) => {
                self.progress_refused(job.run, why, now, out);
            }
            Receipt::Fenced if self.is_life(job.run, job.life) => {
                out.logs.push(Note::RunTaken { run: job.run, workflow: self.workflow_of(job.run) });
                out.lost.push((job.run, "was taken over by another runner".to_owned()));
                self.drop_run(job.run, now, out);
            }
            _ => {}
        }
        let asked = self.seats.of(job).filter(|held| held.number == number);
        match (asked.map(|held| held.stand), executor) {
            (Some(Stand::Has), Some(executor)) => out.recorded.push((executor, job)),
            (Some(Stand::Has), None) => out.reseated.push(job),
            // Nobody waits for it any more, or it waits: the permit is for others.
            (_, Some(executor)) => out.unseated.push((executor, job)),
            (_, None) => {}
        }
        if let Some(held) = self.seats.held.get_mut(&(job.run, job.task))
            && held.number == number
            && held.stand == Stand::Asked
        {
            held.stand = Stand::Waits;
            self.rest_for_seats(job, executor.is_some(), out);
        }
    }

    /// A run that only waits for seats keeps out nothing that could go on; of too many it does, or a runner would take in hand whatever
    /// there is to wait.
    fn rest_for_seats(&mut self, job: Job, holds_permit: bool, out: &mut Effects) {
        if holds_permit && self.seats.held.len() <= RESTING_MAX {
            self.change_rest(job, true, out);
        }
    }

    fn change_rest(&mut self, job: Job, rests: bool, out: &mut Effects) {
        if let Some(run) = self.run_of(job) {
            run.deferred(job.task as usize, job.attempt, rests);
            self.recount(job.run, out);
        }
    }

    /// The store has given seats to some that waited.
    pub(super) fn passed(&mut self, pass: Pass, answered: Option<u64>, out: &mut Effects) {
        for (epoch, seat) in pass.granted {
            if epoch != self.epoch {
                if !out.seats_of.contains(&epoch) {
                    out.seats_of.push(epoch);
                }
                continue;
            }
            match self.seats.grant(&seat, answered) {
                Some((job, false)) => {
                    self.change_rest(job, false, out);
                    out.jobs.push(self.placed(job));
                }
                Some((job, true)) => out.reseated.push(job),
                // Whoever asked is answered in a moment.
                None => {}
            }
        }
        if let Some((next, first)) = pass.next {
            if self.waits_for_seats() {
                self.seats.next = [self.seats.next, Some(next)].into_iter().flatten().min();
            } else if first != self.epoch && !out.seats_of.contains(&first) {
                // Somebody who waits has to know when to look.
                out.seats_of.push(first);
            }
        }
    }
}
