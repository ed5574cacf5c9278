//! The runs in hand: how they come here, begin, and leave.
//! Invariant: a run in hand has one life; what belongs to an earlier one is stale.

use std::sync::Arc;

use uuid::Uuid;

use crate::engine::delays::Sent;
use crate::engine::line::Turn;
use crate::engine::{Effects, Engine, FireCounts, Job, Note, Request, Settings, Then};
use crate::key::RunRow;
use crate::port::{Admitted, Change, NewRun, Unfinished};
use crate::record::{TaskRecord, TaskStatus};
use crate::run::Run;
use crate::time::{Now, Wall};
use crate::urgency::Due;
use crate::workflow::Workflow;

impl Engine {
    /// The run that waits for this job, unless it was opened again since.
    pub(super) fn run_of(&mut self, job: Job) -> Option<&mut Run> {
        self.runs.get_mut(&job.run).filter(|run| run.life == job.life)
    }

    /// Whether that life of a run is in hand.
    pub(super) fn is_life(&self, id: Uuid, life: u32) -> bool {
        self.runs.get(&id).is_some_and(|run| run.life == life)
    }

    /// Whether the record of this attempt's beginning is on its way to the store, or its seats are.
    pub fn is_recording(&self, job: Job) -> bool {
        let run = self.runs.get(&job.run).filter(|run| run.life == job.life);
        run.is_some_and(|run| run.is_recording(job.task as usize)) || self.seats.lacks(job)
    }

    /// Whether the checkpoint of that number is kept, which an attempt left.
    pub fn is_checkpoint_kept(&self, job: Job, number: u64) -> bool {
        let run = self.runs.get(&job.run).filter(|run| run.life == job.life);
        run.is_some_and(|run| run.is_checkpoint_kept(job.task as usize, number))
    }

    /// Whether a worker should still take this job.
    pub fn expects(&self, job: Job) -> bool {
        let run = self.runs.get(&job.run).filter(|run| run.life == job.life);
        run.is_some_and(|run| job.callback_only || run.expects(job.task as usize, job.attempt))
    }

    pub(super) fn start(
        &mut self,
        workflow: &Arc<Workflow>,
        requests: Vec<Request>,
        now: Now,
        out: &mut Effects,
    ) {
        let ids = requests.iter().map(|request| request.id).collect();
        let mut runs = Vec::with_capacity(requests.len());
        for request in requests {
            let run = by_hand(workflow, &request, now.wall);
            runs.push(self.take_or_send(run, workflow, now, out));
        }
        out.commits.push((Change::Start { epoch: self.epoch, runs, cron: None }, Then::Start(ids)));
    }

    /// Runs that are kept and not taken in hand.
    pub(super) fn offer(
        &mut self,
        workflow: &Arc<str>,
        version: &Arc<str>,
        requests: Vec<Request>,
        now: Now,
        out: &mut Effects,
    ) {
        let ids = requests.iter().map(|request| request.id).collect();
        let runs = requests.iter().map(|request| new_run(workflow, version, request, now.wall)).collect();
        out.commits.push((Change::Offer { epoch: self.epoch, runs }, Then::Offered(ids)));
    }

    /// A new run comes into hand, unless it has to wait for its time or others may have it.
    pub(super) fn take_or_send(
        &mut self,
        new: NewRun,
        workflow: &Arc<Workflow>,
        now: Now,
        out: &mut Effects,
    ) -> NewRun {
        if let Some(due) = new.due_at.filter(|_| new.is_delayed()) {
            self.delays.send(new.id, Sent::Due(due));
            return new;
        }
        let is_paused = self.pauses.holds(&workflow.name) && self.leaves_runs();
        let is_paused = is_paused && !self.turns.contains_key(&new.id);
        if is_paused || !self.has_room(&new, workflow, now) {
            self.delays.send(new.id, Sent::Anyone(self.hand_of(workflow)));
            out.elsewhere.push(new.id);
            return NewRun { is_anyones: true, ..new };
        }
        self.take_new(&new, workflow, now, out);
        new
    }

    fn take_new(&mut self, new: &NewRun, workflow: &Arc<Workflow>, now: Now, out: &mut Effects) {
        let (workflow, context) = (Arc::clone(workflow), Arc::clone(&new.context));
        let mut run = Run::new(new.id, workflow, context, self.settings.contexts, now.wall);
        run.priority = new.priority.unwrap_or(run.priority);
        run.trace = new.trace.clone();
        if let Some(parent) = &new.parent {
            // A task may wait for it, and must not wait behind others that would.
            run.is_child = parent.task.is_some();
            run.priority =
                self.runs.get(&parent.run).map_or(run.priority, |parent| run.priority.max(parent.priority));
        }
        self.take_in_hand(run, out);
    }

    fn take_in_hand(&mut self, mut run: Run, out: &mut Effects) {
        self.lives = self.lives.wrapping_add(1);
        run.life = self.lives;
        run.slots = Some(self.meter.slots(&run.workflow));
        let id = run.id;
        self.runs.insert(id, run);
        self.recount(id, out);
    }

    /// What became of runs that were sent to the store: of the fires of the trigger in that place, or of what came without one.
    pub(super) fn begin_all(
        &mut self,
        place: Option<u32>,
        ids: Vec<Uuid>,
        admitted: Vec<Admitted>,
        now: Now,
        out: &mut Effects,
    ) {
        for (id, fate) in ids.into_iter().zip(admitted) {
            let sent = self.delays.answered(id, fate.is_kept());
            match (fate, sent) {
                (Admitted::Started { .. }, Some(sent)) => {
                    self.counts.started += 1;
                    if let Sent::Anyone(hand) = sent {
                        self.left_to_others(hand, out);
                    }
                    // Whoever claims it, its end is heard of like that of any run of others.
                    if self.gate.holds(id) && !self.runs.contains_key(&id) {
                        self.others.insert(id);
                    }
                }
                (Admitted::Started { row }, None) => self.kept_first(id, row, now, out),
                (Admitted::Held { .. }, _) => self.held(id, now, out),
                (Admitted::Unkeyed(_), _) => {
                    self.counts.errors += 1;
                    self.fired_in(place).errors += 1;
                    self.drop_run(id, now, out);
                }
                (
                    Admitted::DuplicateHash { .. } | Admitted::DuplicateKey { .. } | Admitted::Ended { .. },
                    _,
                ) => {
                    self.counts.deduplicated += 1;
                    self.fired_in(place).deduplicated += 1;
                    self.drop_run(id, now, out);
                }
                (fate @ (Admitted::Overlaps { .. } | Admitted::Limited(_)), _) => {
                    self.counts.dropped += 1;
                    self.fired_in(place).dropped += 1;
                    if let Admitted::Limited(dropped) = fate {
                        self.meter.limited(dropped.rule);
                    }
                    self.drop_run(id, now, out);
                }
                (Admitted::HeldBack, _) => {
                    self.counts.held_back += 1;
                    self.fired_in(place).held_back += 1;
                    self.drop_run(id, now, out);
                }
            }
        }
    }

    fn fired_in(&mut self, place: Option<u32>) -> &mut FireCounts {
        let name = place.map_or_else(|| "".into(), |place| self.trigger_in(place));
        self.meter.fired(&name)
    }

    /// A new run is committed: it begins, or waits for its turn.
    pub(super) fn kept_first(&mut self, id: Uuid, row: RunRow, now: Now, out: &mut Effects) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.row = row;
        self.counts.started += 1;
        if run.is_halted() {
            self.turns.remove(&id);
        }
        match self.turns.get_mut(&id) {
            None => self.begin(id, now, out),
            Some(turn) => {
                turn.kept = true;
                if turn.cancels {
                    self.cancel_before(id, now, out);
                }
                self.take_turn(id, now, out);
            }
        }
    }

    /// A new run is kept, and waits in the store until limits let it begin: whoever claims it then, it is out of hand.
    fn held(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        self.counts.started += 1;
        // Limits may have let it begin before this was heard of: then it has been claimed, and stays.
        if self.runs.get(&id).is_some_and(|run| run.row != RunRow(0)) {
            return;
        }
        if let Some(run) = self.runs.remove(&id) {
            self.uncount(&run, now, out);
            if run.is_halted() {
                out.cancels.push(id);
            }
        }
        if self.turns.remove(&id).is_some_and(|turn| turn.cancels) {
            self.cancel_before(id, now, out);
        }
        self.wait_in_store(id, out);
    }

    /// Ends what stands before a run in its line.
    fn cancel_before(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        self.gate.before(id).into_iter().for_each(|other| self.cancel(other, now, out));
    }

    fn wait_in_store(&mut self, id: Uuid, out: &mut Effects) {
        if self.gate.holds(id) {
            self.others.insert(id);
        }
        out.elsewhere.push(id);
        out.is_open = true;
    }

    pub(super) fn begin(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if self.is_held_up(id, now, out) {
            return;
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        let progress = run.begin(now.wall);
        self.follow(id, progress, now, out);
    }

    pub(super) fn claimed(&mut self, mut unfinished: Unfinished, now: Now, out: &mut Effects) {
        if self.runs.contains_key(&unfinished.id) {
            // The store hands out nothing that is this runner's: the life in hand is over there, and only its receipt is still on its way.
            // Its place in the line stays: who stands behind it must not begin before it.
            let cancels = self.turns.get(&unfinished.id).is_some_and(|turn| turn.cancels && !turn.kept);
            self.put_down(unfinished.id, now, out);
            if cancels {
                self.cancel_before(unfinished.id, now, out);
            }
        }
        self.others.remove(&unfinished.id);
        if let Some(schedule) = unfinished.schedule {
            let behind = std::mem::take(&mut unfinished.behind);
            self.wait_for_others(schedule, behind.clone());
            self.gate.hold(schedule, unfinished.context_hash, unfinished.id);
            if unfinished.is_again {
                // Fires may stand here that the store keeps after it.
                self.stand_behind(unfinished.id, &behind, now, out);
            }
        }
        if unfinished.is_held {
            return self.wait_in_store(unfinished.id, out);
        }
        let Some(workflow) = self.workflows.get(&*unfinished.workflow).cloned() else {
            let (id, cancelled) = (unfinished.id, unfinished.cancelled);
            self.waiting.entry(unfinished.workflow.clone()).or_default().push(unfinished);
            if cancelled {
                self.cancel(id, now, out);
            }
            return;
        };
        self.resume(unfinished, workflow, now, out);
    }

    pub(super) fn resume(
        &mut self,
        unfinished: Unfinished,
        workflow: Arc<Workflow>,
        now: Now,
        out: &mut Effects,
    ) {
        let id = unfinished.id;
        if *workflow.version != *unfinished.version {
            let is_done = |task: &&TaskRecord| task.status == TaskStatus::Completed;
            let is_gone = |name: &&str| workflow.tasks.iter().all(|task| *task.id != **name);
            let done = unfinished.tasks.iter().filter(is_done).map(|task| &*task.name);
            out.logs.push(Note::VersionDiffers {
                run: id,
                workflow: Arc::clone(&workflow.name),
                lost: done.filter(is_gone).map(str::to_owned).collect(),
            });
        }
        if self.tells_debug && !unfinished.is_new() {
            out.logs.push(Note::RunResumed { run: id, workflow: Arc::clone(&workflow.name) });
        }
        let is_held = unfinished.waits && !self.gate.is_first(id);
        let Settings { contexts, interruptions_max, .. } = self.settings;
        let (run, progress) = Run::resume(&unfinished, workflow, contexts, interruptions_max, now);
        let row = run.row;
        self.take_in_hand(run, out);
        if let Some(spent) = unfinished.spent {
            self.go_on_with_time(id, row, spent, now, out);
        }
        if is_held {
            self.turns.insert(id, Turn { kept: true, cancels: false, resumed: Some(progress) });
            self.recount(id, out);
        } else {
            self.follow(id, progress, now, out);
        }
        if unfinished.cancelled {
            self.cancel(id, now, out);
        }
    }

    /// Takes a run out of hand, and lets the one begin that waited for it.
    pub(super) fn drop_run(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        self.put_down(id, now, out);
        if let Some(next) = self.gate.release(id) {
            self.take_turn(next, now, out);
        }
    }

    /// Takes a run out of hand that keeps its place in the line.
    fn put_down(&mut self, id: Uuid, now: Now, out: &mut Effects) {
        if let Some(run) = self.runs.remove(&id) {
            self.uncount(&run, now, out);
            // What it leaves another one may take.
            out.is_open |= run.is_limited;
        }
        self.unseat_run(id, |_, _| false, now, out);
        self.delays.answered(id, false);
        self.turns.remove(&id);
        if let Some(timer) = self.run_timer.remove(&id) {
            self.disarm(timer);
        }
    }

    /// The store will not take what became of a run: it is left as it was kept last.
    pub(super) fn progress_refused(&mut self, run: Uuid, why: String, now: Now, out: &mut Effects) {
        self.left += 1;
        self.lose(run, &format!("cannot be kept: {why}"), now, out);
        out.logs.push(Note::ProgressRefused { run, why });
    }

    pub(super) fn lose(&mut self, id: Uuid, why: &str, now: Now, out: &mut Effects) {
        out.lost.push((id, why.to_owned()));
        self.drop_run(id, now, out);
    }
}

pub(super) fn by_hand(workflow: &Workflow, request: &Request, now: Wall) -> NewRun {
    let run = new_run(&workflow.name, &workflow.version, request, now);
    NewRun { priority: run.priority.or(Some(workflow.priority)), limits: workflow.limits.clone(), ..run }
}

pub(super) fn new_run(workflow: &Arc<str>, version: &Arc<str>, request: &Request, now: Wall) -> NewRun {
    NewRun {
        id: request.id,
        workflow: Arc::clone(workflow),
        version: Arc::clone(version),
        context: Arc::clone(&request.context),
        schedule: None,
        context_hash: None,
        unique_hash: false,
        run_key: request.run_key.clone().map(|(key, expires_at)| (key, Some(expires_at))),
        scheduled_at: None,
        waits: false,
        cursor: None,
        ends: None,
        parent: request.parent.clone(),
        priority: request.urgency.priority,
        due_at: request.urgency.due.map(|due| due.instant(now)),
        delay_us: request.urgency.due.and_then(Due::delay_us),
        limits: None,
        is_anyones: false,
        trace: request.trace.clone(),
        created_at: now,
    }
}
