//! What programs, users and the kernel do to the processes: start and kill them, declare, take over from the dead, start,
//! cancel and open runs again, switch triggers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cloaca_core::cadence;
use cloaca_core::engine::{Claims, Effects, Engine, Event, Job, Request};
use cloaca_core::key::ScheduleKey;
use cloaca_core::poll::RESOLUTION;
use cloaca_core::port::{
    Body, Change, Company, InFlight, Page, RunChange, RunStatus, Schedule, ScheduleFilter, Store as _,
    Stored, TaskStatus, Unfinished, Wished,
};
use cloaca_core::spread::wishes;
use cloaca_core::time::{Mono, Now};
use cloaca_core::urgency::{Due, Priority, Urgency};
use uuid::Uuid;

use crate::process::{Declaration, Grid, Place, Process, Stage, Worker};
use crate::scenario::Trigger;
use crate::world::World;

/// Everything there is.
const ALL: Page = Page { limit: 1000, offset: 0 };

impl World {
    /// A process starts that declares all that there is, or some of it.
    pub fn join(&mut self, declares_all: bool) {
        self.stumble();
        let Ok(epoch) = self.store.join(self.wall()) else { return };
        let engine = Engine::new(epoch, self.scenario.settings.clone(), self.random.next());
        let program = self.program(declares_all);
        self.note(|| format!("{epoch} joins, declares all: {declares_all}"));
        let ends = self.store.state().ends;
        self.processes.push(Process { ends, ..Process::new(epoch, self.time_ns, engine, program) });
    }

    /// A process starts that works on nothing.
    pub fn join_as_client(&mut self) {
        let before = self.processes.len();
        self.join(false);
        for process in &mut self.processes[before..] {
            process.is_client = true;
            process.program.clear();
        }
    }

    fn program(&mut self, declares_all: bool) -> VecDeque<Declaration> {
        let mut program = Vec::new();
        for number in 0..self.scenario.workflows.len() {
            if declares_all || self.random.percent(70) {
                program.push(Declaration::Workflow { number, version: self.versions[number] });
            }
        }
        let mut triggers = Vec::new();
        for source in self.scenario.sources.clone() {
            if declares_all || self.random.percent(70) {
                triggers.push(self.scenario.trigger(&mut self.random, &source));
            }
        }
        let chunk = self.random.between(1, 3) as usize;
        let place = if self.random.percent(20) { 0 } else { program.len() };
        for (index, triggers) in triggers.chunks(chunk).enumerate() {
            program.insert(place + index, Declaration::Triggers(triggers.to_vec()));
        }
        program.into()
    }

    /// A process dies at once: what it had not committed is gone.
    pub fn crash(&mut self, p: usize) {
        let process = self.processes.remove(p);
        self.note(|| format!("{} crashes", process.epoch));
        self.store.free_lock(process.epoch);
    }

    /// A process is taken for dead, but lives on.
    pub fn lose_lock(&mut self, p: usize) {
        let process = &mut self.processes[p];
        process.is_zombie = true;
        let epoch = process.epoch;
        self.note(|| format!("{epoch} loses its lock"));
        self.store.free_lock(epoch);
    }

    /// A process is shut down: it takes nothing new, ends what runs, and leaves when all is written.
    pub fn leave(&mut self, p: usize) -> bool {
        if !self.processes[p].is_leaving {
            self.tell_claimed(p);
            let history = self.processes[p].poller.take_history();
            self.processes[p].is_leaving = true;
            let (epoch, wall) = (self.processes[p].epoch, self.wall());
            let _ = self.store.seen(epoch, wall, &cloaca_core::port::Sign::default());
            self.processes[p].program.clear();
            self.step(p, Event::History(history));
            return true;
        }
        let is_patient = self.random.percent(80);
        let process = &self.processes[p];
        if !process.is_flushed() || (is_patient && !process.workers.is_empty()) {
            return false;
        }
        let mut process = self.processes.remove(p);
        self.note(|| format!("{} leaves", process.epoch));
        self.stumble();
        let now = Now { mono: Mono(self.time_ns - process.born_ns), wall: self.wall() };
        let mut open = Effects::default();
        if self.random.percent(50) {
            // Bodies that wait without a place hear of the end, and go home.
            let waits = |worker: &mut Worker| worker.stage == Stage::Deferred && !worker.is_given_up;
            for Worker { job, .. } in process.workers.extract_if(.., waits) {
                process.engine.step(Event::Interrupted(job), now, &mut open);
            }
        }
        let (ends, overdue) = (process.late_ends(), process.overdue_ends());
        let runs = ends.iter().chain(&overdue).map(|(job, _)| job.run).collect();
        let kept = InFlight { runs, triggers: process.poller.rows_in_body(), ends: Vec::new() };
        let in_flight = ends.iter().map(|(job, _)| *job).collect();
        process.engine.step(Event::Leaving(in_flight), now, &mut open);
        let changes: Vec<Change> = open.commits.into_iter().map(|(change, _)| change).collect();
        if self.store.commit(&changes).is_err() {
            self.store.free_lock(process.epoch);
            return true;
        }
        let Ok(remnant) = self.store.leave(process.epoch, &kept, now.wall) else {
            self.store.free_lock(process.epoch);
            return true;
        };
        let Some(remnant) = remnant else { return true };
        if self.random.percent(50) {
            // Its process ends, and its bodies with it.
            self.store.free_lock(remnant);
            return true;
        }
        // The bodies come home late: what they return is dropped, and the next attempts have their numbers.
        let mut late = Effects::default();
        ends.into_iter().chain(overdue).for_each(|(_, end)| process.engine.step(end, now, &mut late));
        let under_remnant = |(change, _)| match change {
            Change::Run(change) => Change::Run(RunChange { epoch: remnant, ..change }),
            Change::Returned(body) => Change::Returned(Body { epoch: remnant, ..body }),
            Change::Unseat { seat, at, .. } => Change::Unseat { seat, epoch: remnant, at },
            other => unreachable!("a body's end changes runs only, and not {other:?}"),
        };
        let changes: Vec<Change> = late.commits.into_iter().map(under_remnant).collect();
        if self.store.commit(&changes).is_err()
            || self.store.leave(remnant, &InFlight::default(), now.wall).is_err()
        {
            self.store.free_lock(remnant);
        }
        true
    }

    /// The program declares the next thing on its list.
    pub fn declare(&mut self, p: usize) -> bool {
        let Some(declaration) = self.processes[p].program.pop_front() else {
            return !std::mem::replace(&mut self.processes[p].recovery.is_ready, true);
        };
        match declaration {
            Declaration::Workflow { number, version } => {
                let workflow = Arc::clone(&self.scenario.workflows[number][version]);
                self.note(|| format!("{p}: declares {} {}", workflow.name, workflow.version));
                // What is claimed is resumed at once, or nearly so.
                self.tell_claimed(p);
                let process = &mut self.processes[p];
                process.recovery.workflow_is_new |= process.engine.workflow(&workflow.name).is_none();
                self.step(p, Event::Workflow(workflow));
            }
            Declaration::Triggers(triggers) => self.declare_triggers(p, triggers),
            Declaration::Gone(trigger) => self.withdraw(p, &trigger),
        }
        true
    }

    fn withdraw(&mut self, p: usize, trigger: &str) {
        let process = &mut self.processes[p];
        let Some(place) = process.engine.place_of(trigger) else { return };
        process.places[place as usize].is_retired = true;
        process.poller.withdraw(place);
        self.withdrawals += 1;
        self.note(|| format!("{p}: declares {trigger} no more"));
        self.step(p, Event::Withdrawn(place));
    }

    /// The liaison sees which triggers others may have.
    pub fn vacate(&mut self, p: usize) -> bool {
        let vacated = self.processes[p].poller.take_vacated();
        let has_moved = !vacated.is_empty();
        if has_moved {
            self.step(p, Event::Vacated(vacated));
        }
        has_moved
    }

    pub fn tell_others(&mut self, p: usize) {
        let epoch = self.processes[p].epoch;
        self.store.wake_others(epoch);
        let others = self.processes.iter().map(|process| process.epoch).filter(|&other| other != epoch);
        self.has_news.extend(others);
    }

    fn declare_triggers(&mut self, p: usize, triggers: Vec<Trigger>) {
        let at = self.now(p);
        let now = at.mono;
        let process = &mut self.processes[p];
        let (mut declared, mut history) = (Vec::new(), Vec::new());
        for trigger in triggers {
            let is_before =
                |place: &Place| !place.is_retired && place.trigger.source.name == trigger.source.name;
            if let Some(before) = process.places.iter().position(is_before) {
                process.places[before].is_retired = true;
            }
            // Also one that was withdrawn: a poll of it may be in flight.
            let superseded = process.engine.place_of(&trigger.source.name);
            let interval_ns = trigger.plan.interval.as_nanos() as u64;
            let sharing = process.sharing.entry(interval_ns).or_default();
            let origin =
                cadence::origin(now, cadence::phase(*sharing, interval_ns), RESOLUTION.as_nanos() as u64);
            *sharing += 1;
            let free = process.poller.free_place(&trigger.source.name);
            let place = match free {
                Some(free) => {
                    history.extend(process.poller.declare_in(free, Arc::clone(&trigger.plan), now));
                    free
                }
                None => {
                    process.poller.declare(Arc::clone(&trigger.source.name), Arc::clone(&trigger.plan), now)
                }
            };
            if let Some(before) = superseded {
                process.poller.supersede(before, place);
            }
            let mut row = trigger.declared.clone();
            row.row.origin_at = process.poller.origin_at(place, at);
            assert_eq!(row.row.origin_at, at.wall.after(origin.since(now)), "where its grid begins");
            declared.push((place, row));
            let was_polled = free.is_some_and(|free| process.places[free as usize].was_polled);
            let place = Place {
                trigger,
                grid: Grid::new(origin),
                make_up: None,
                was_polled,
                in_commit: false,
                row: None,
                is_retired: false,
                is_enabled: true,
                is_elsewhere: false,
                failures: 0,
                last_beat: origin,
                asked: Mono(0),
                not_before: Mono(0),
                kept_wait: Mono(0),
            };
            match free {
                Some(free) => process.places[free as usize] = place,
                None => process.places.push(place),
            }
            self.places_reused += u64::from(free.is_some());
        }
        self.note(|| format!("{p}: declares triggers {declared:?}"));
        if !history.is_empty() {
            self.step(p, Event::History(history));
        }
        self.step(p, Event::Triggers(declared));
    }

    /// The timekeeper looks for what the dead have left, and takes it over bit by bit.
    pub fn look(&mut self, p: usize) -> bool {
        let process = &mut self.processes[p];
        if process.is_leaving || !process.recovery.is_ready {
            return false;
        }
        if self.tell_claimed(p) {
            return true;
        }
        if self.processes[p].recovery.claims {
            self.claim(p);
            return true;
        }
        if self.look_at_others(p) || self.leave_excess(p) {
            return true;
        }
        let process = &mut self.processes[p];
        if std::mem::take(&mut process.recovery.workflow_is_new) {
            (process.recovery.claims, process.recovery.is_vacancy) = (true, false);
            return true;
        }
        if !process.recovery.is_due {
            return false;
        }
        let epoch = process.epoch;
        self.stumble();
        let Ok(siblings) = self.store.bury(epoch) else { return true };
        if siblings.is_buried {
            // It ends at once, and loudly.
            self.crash(p);
            return true;
        }
        let recovery = &mut self.processes[p].recovery;
        let has_news = std::mem::take(&mut recovery.has_news);
        if Company::has_shrunk(&mut recovery.company, &siblings) {
            (recovery.claims, recovery.is_vacancy) = (true, true);
        } else if has_news {
            (recovery.claims, recovery.is_vacancy) = (true, false);
        }
        recovery.is_due = false;
        true
    }

    /// Asks for the ends of runs of others, and lets go on who waited for such that are over; true if anything came of it.
    fn look_at_others(&mut self, p: usize) -> bool {
        if let Some(id) = self.processes[p].cancels.pop() {
            match self.request_cancel(p, id) {
                Ok(asked) => {
                    asked.iter().skip(1).for_each(|&child| self.cancel_here(p, child));
                    if !asked.is_empty() {
                        self.heed_cancels(p);
                    }
                    self.store.wake_others(self.processes[p].epoch);
                }
                Err(_) => self.processes[p].cancels.push(id),
            }
            return true;
        }
        let others = self.processes[p].engine.others_after(Uuid::nil(), usize::MAX);
        self.stumble();
        let Ok(ended) = self.store.ended(&others) else { return true };
        let waited_for = self.processes[p].engine.waited_for(&others);
        let Ok(moved) = self.store.moved(&waited_for) else { return true };
        if ended.is_empty() && moved.is_empty() {
            return false;
        }
        if !moved.is_empty() {
            self.note(|| format!("{p}: others have moved: {moved:?}"));
            for (id, behind) in &moved {
                self.processes[p].stand_behind(*id, &[*behind]);
            }
            self.step(p, Event::OthersMoved(moved));
        }
        self.note(|| format!("{p}: others have ended: {ended:?}"));
        for id in &ended {
            self.processes[p].held.remove(id);
        }
        self.processes[p].ends = self.store.state().ends;
        self.step(p, Event::OthersEnded(ended));
        true
    }

    /// The run and its children whose ends are asked for now; none if it is final.
    fn request_cancel(&mut self, p: usize, id: Uuid) -> Stored<Vec<Uuid>> {
        self.stumble();
        let asked = self.store.request_cancel(self.processes[p].epoch, id, self.wall())?;
        self.ends_are_asked_for(&asked);
        Ok(asked)
    }

    fn claim(&mut self, p: usize) {
        let epoch = self.processes[p].epoch;
        self.stumble();
        if self.tell_workflows(p).is_err() {
            return;
        }
        self.stumble();
        let Ok(others) = self.store.workflows_of_others(epoch) else { return };
        self.step(p, Event::WorkflowsElsewhere(others));
        let now = self.now(p);
        let claims = self.processes[p].engine.claims(self.scenario.claim_chunk, now);
        let has_room = !claims.is_empty();
        for Claims { workflows, limit, hand } in claims {
            self.stumble();
            let Ok(runs) = self.store.claim_runs(epoch, now.wall, limit, &workflows) else { return };
            self.note(|| format!("{p}: claims {runs:?} of at most {limit}"));
            let share = hand.map(|hand| (hand, (runs.len() as u64) < limit));
            if !runs.is_empty() {
                let recovery = &mut self.processes[p].recovery;
                (recovery.claimed, recovery.share) = (Some(runs), share);
                return;
            }
            share.into_iter().for_each(|(hand, is_all)| self.step(p, Event::Claims { hand, is_all }));
        }
        if has_room {
            self.stumble();
            let Ok(due) = self.store.next_due() else { return };
            self.step(p, Event::NextDue(due));
        }
        self.processes[p].recovery.claims = false;
        if self.processes[p].recovery.is_vacancy {
            self.processes[p].ends = self.store.state().ends;
            self.step(p, Event::Vacancy);
            self.look_for_seats(p);
        }
    }

    /// What is too much here is left to others, the last of it first.
    fn leave_excess(&mut self, p: usize) -> bool {
        let now = self.now(p);
        let excess = self.processes[p].engine.excess(now);
        let many: usize = excess.into_iter().map(|(_, many)| many).sum();
        let ready = &mut self.processes[p].ready;
        let last: Vec<Job> = std::iter::from_fn(|| ready.pop_back()).take(many).collect();
        let before = last.len();
        if before > 0 {
            self.note(|| format!("{p}: has too much by {many}: {last:?}"));
            self.step(p, Event::Excess(last));
        }
        self.processes[p].ready.len() < before
    }

    /// The engine hears of what was claimed, and of who has asked for its end meanwhile.
    fn tell_claimed(&mut self, p: usize) -> bool {
        let Some(runs) = self.processes[p].recovery.claimed.take() else { return false };
        self.take_over(p, runs);
        let share = self.processes[p].recovery.share.take();
        share.into_iter().for_each(|(hand, is_all)| self.step(p, Event::Claims { hand, is_all }));
        self.heed_cancels(p);
        true
    }

    fn heed_cancels(&mut self, p: usize) {
        let cancelled = self.store.cancel_requests(self.processes[p].epoch).expect("no fault is due");
        cancelled.into_iter().for_each(|id| self.cancel_here(p, id));
    }

    fn take_over(&mut self, p: usize, runs: Vec<Unfinished>) {
        let process = &mut self.processes[p];
        for run in &runs {
            let declared = process.engine.workflow(&run.workflow);
            if run.is_mixed || declared.is_some_and(|declared| *declared.version != *run.version) {
                self.witness.seen(run.id).is_changed = true;
            }
            process.concluded.remove(&run.row);
            process.halted.remove(&run.id);
            process.retry_due.retain(|(id, _), _| *id != run.id);
            if let Some(schedule) = run.schedule {
                process.hold_others(&run.behind, schedule);
                process.hold(run.id, schedule, run.context_hash);
                if run.is_again {
                    process.stand_behind(run.id, &run.behind);
                }
            }
        }
        self.step(p, Event::Claimed(runs));
    }

    /// A user starts runs.
    pub fn start(&mut self, p: usize) -> bool {
        let names = self.processes[p].engine.workflow_names();
        if names.is_empty() || self.processes[p].is_leaving {
            return false;
        }
        let name = self.random.pick(&names);
        let workflow = Arc::clone(self.processes[p].engine.workflow(&name).expect("it was just listed"));
        let wall = self.wall();
        let requests = (0..self.random.between(1, 3)).map(|_| {
            let id = Uuid::from_u64_pair(self.random.next(), 0);
            let priority = Priority::new(self.random.index(10) as i64).filter(|_| self.random.percent(30));
            let span = Duration::from_millis(self.random.between(0, 5_000));
            let due = match self.random.index(5) {
                0 => Some(Due::After(span)),
                1 => Some(Due::At(wall.after(span))),
                _ => None,
            };
            Request { urgency: Urgency { priority, due }, ..Request::of(id, "{\"by\":0}".into()) }
        });
        let requests = requests.collect();
        self.step(p, Event::Start { workflow, requests });
        true
    }

    /// A user asks for a run's end, whoever drives it, and perhaps before it is kept.
    pub fn cancel(&mut self, p: usize) -> bool {
        let mut ids: Vec<Uuid> = self.processes[p].held.keys().copied().collect();
        let store = self.store.state();
        ids.extend(store.unfinished.iter().map(|&row| store.runs[row.0 as usize - 1].new.id));
        drop(store);
        if ids.is_empty() || self.processes[p].is_zombie || self.processes[p].is_leaving {
            return false;
        }
        let id = self.random.pick(&ids);
        let mut asked = Vec::new();
        if self.processes[p].is_flushed() {
            let Ok(found) = self.request_cancel(p, id) else { return true };
            for &id in &found {
                let is_in_time = self.can_halt(p, id) && self.has_open_tasks(p, id);
                self.witness.seen(id).must_not_complete |= is_in_time;
            }
            asked = found;
        }
        self.note(|| format!("{p}: user cancels {id} and with it {asked:?}"));
        self.cancel_here(p, id);
        asked.into_iter().skip(1).for_each(|child| self.cancel_here(p, child));
        self.store.wake_others(self.processes[p].epoch);
        true
    }

    /// Whether that run is in hand and not concluded.
    fn can_halt(&self, p: usize, id: Uuid) -> bool {
        let process = &self.processes[p];
        process.engine.run(id).is_some_and(|run| !process.concluded.contains(&run.row))
    }

    fn has_open_tasks(&self, p: usize, id: Uuid) -> bool {
        let store = self.store.state();
        let kept = store.run(id).expect("it was found");
        let is_final = |name: &Arc<str>| {
            kept.tasks.iter().any(|record| record.name == *name && record.status != TaskStatus::Running)
        };
        let run = self.processes[p].engine.run(id);
        run.is_some_and(|run| !run.workflow.tasks.iter().all(|task| is_final(&task.id)))
    }

    fn cancel_here(&mut self, p: usize, id: Uuid) {
        if self.can_halt(p, id) {
            self.witness.seen(id).is_cancelled = true;
            self.processes[p].halted.insert(id);
        }
        self.step(p, Event::Cancel(id));
    }

    /// A user opens a run again that failed or was cancelled.
    pub fn reopen(&mut self, p: usize) -> bool {
        let process = &self.processes[p];
        if !process.is_flushed() || process.is_leaving {
            return false;
        }
        let is_open_to_it = |kept: &crate::store::Kept| {
            let has_failed = kept.end.as_ref().is_some_and(|end| end.status != RunStatus::Completed);
            has_failed && process.engine.workflow(&kept.new.workflow).is_some()
        };
        let store = self.store.state();
        let ids: Vec<Uuid> =
            store.runs.iter().filter(|kept| is_open_to_it(kept)).map(|kept| kept.new.id).collect();
        drop(store);
        if ids.is_empty() {
            return false;
        }
        let id = self.random.pick(&ids);
        let _ = self.open_again(p, id);
        true
    }

    /// Opens a final run again; false if there is none such that has not completed.
    pub fn open_again(&mut self, p: usize, id: Uuid) -> Stored<bool> {
        self.tell_workflows(p)?;
        self.stumble();
        let before = self.store.state().run(id).map(|kept| kept.tasks.clone()).unwrap_or_default();
        let reopened = self.store.reopen(self.processes[p].epoch, id);
        self.note(|| format!("{p}: opens {id} again: {reopened:?}"));
        let Some(run) = reopened? else { return Ok(false) };
        let workflow = self.processes[p].engine.workflow(&run.workflow).cloned();
        let workflow = workflow.filter(|workflow| *workflow.version == *run.version);
        self.witness.reopened(id, &before, &run.tasks, workflow.as_deref());
        self.take_over(p, vec![run]);
        Ok(true)
    }

    /// The store knows in which versions a process declares its workflows.
    fn tell_workflows(&mut self, p: usize) -> Stored<()> {
        let process = &self.processes[p];
        self.store.declare_workflows(
            process.epoch,
            &process.engine.workflow_rows(),
            cloaca_core::time::Wall(5),
        )
    }

    /// A program declares a workflow or a trigger again.
    pub fn redeclare(&mut self, p: usize) -> bool {
        if self.processes[p].is_leaving || self.processes[p].is_client {
            return false;
        }
        let declaration = match self.random.percent(50) || self.scenario.sources.is_empty() {
            true => {
                let number = self.random.index(self.scenario.workflows.len());
                let last = self.scenario.workflows[number].len() - 1;
                self.versions[number] = (self.versions[number] + 1).min(last);
                Declaration::Workflow { number, version: self.versions[number] }
            }
            false if self.random.percent(25) => {
                Declaration::Gone(Arc::clone(&self.random.pick(&self.scenario.sources).name))
            }
            false => {
                let source = self.random.pick(&self.scenario.sources);
                Declaration::Triggers(vec![self.scenario.trigger(&mut self.random, &source)])
            }
        };
        self.processes[p].program.push_back(declaration);
        true
    }

    /// A user switches a trigger on or off.
    pub fn switch(&mut self, p: usize) -> bool {
        let rows = self.store.state().schedules.len() as u64;
        let process = &self.processes[p];
        if rows == 0 || !process.is_flushed() || process.is_zombie || process.is_leaving {
            return false;
        }
        let row = ScheduleKey(self.random.between(1, rows) as i64);
        let is_enabled = self.random.percent(60);
        self.stumble();
        if self.store.set_enabled(row, is_enabled, None, self.wall()).is_err() {
            return true;
        }
        self.switch_here(p, row, is_enabled);
        self.tell_others(p);
        true
    }

    fn switch_here(&mut self, p: usize, row: ScheduleKey, is_enabled: bool) {
        let now = self.now(p).mono;
        self.note(|| format!("{p}: switches {row} to {is_enabled}"));
        self.step(p, Event::News);
        let process = &mut self.processes[p];
        if let Some(place) = process.poller.place_of(row) {
            process.places[place as usize].switch(is_enabled, now);
        }
        process.poller.set_enabled(row, is_enabled, now);
    }

    /// The same as was read of a trigger's row.
    fn switch_as_read(&mut self, p: usize, trigger: &Schedule) {
        let now = self.now(p);
        self.note(|| format!("{p}: reads {} as {}", trigger.row, trigger.enabled));
        self.step(p, Event::News);
        let process = &mut self.processes[p];
        let is_ours = trigger.owner == Some(process.epoch);
        let kept = is_ours.then_some((trigger.failures, trigger.grid.and_then(|grid| grid.wait)));
        if let Some(place) = process.poller.place_of(trigger.row) {
            let is_busy = process.polls.iter().any(|polling| polling.ticket.place == place);
            let place = &mut process.places[place as usize];
            place.switch_as_read(trigger.enabled, kept, is_busy || place.in_commit, now);
        }
        process.poller.switch(trigger.row, trigger.enabled, kept, now);
    }

    /// Others may have given seats to attempts here, or set some free.
    pub fn look_for_seats(&mut self, p: usize) {
        if self.processes[p].engine.waits_for_seats() {
            self.step(p, Event::SeatsMoved);
        }
    }

    /// The timekeeper notices that another process changed something.
    pub fn read_news(&mut self, p: usize) -> bool {
        let epoch = self.processes[p].epoch;
        let recovery = &self.processes[p].recovery;
        let is_claiming = recovery.claimed.is_some() || !recovery.is_ready;
        if self.processes[p].is_leaving || is_claiming || !self.store.woken(epoch) {
            return false;
        }
        self.has_news.remove(&epoch);
        self.look_for_seats(p);
        (self.processes[p].recovery.is_due, self.processes[p].recovery.has_news) = (true, true);
        let triggers = self.store.schedules(ScheduleFilter::Triggers, false, ALL).expect("no fault is due");
        for trigger in &triggers {
            self.switch_as_read(p, trigger);
        }
        let is_lost = |trigger: &&Schedule| trigger.owner == Some(epoch) && trigger.is_outdated();
        let outdated = triggers.iter().filter(is_lost).map(|trigger| trigger.name.as_str().into());
        let outdated: Vec<Arc<str>> = outdated.collect();
        if !outdated.is_empty() {
            self.step(p, Event::GiveWay(outdated));
        }
        let company = self.processes[p].recovery.company.as_ref();
        let is_free = |owner| company.is_none_or(|company| company.is_free(owner));
        let free = triggers.iter().filter(|trigger| is_free(trigger.owner));
        let free = free.map(|trigger| trigger.name.as_str().into()).collect();
        self.step(p, Event::Free(free));
        self.heed_cancels(p);
        if self.random.percent(30) {
            self.spread(p);
        }
        true
    }

    /// The liaison asks for triggers that are its own by right, and gives those away that others have asked for; true if anything moves.
    pub fn spread(&mut self, p: usize) -> bool {
        let epoch = self.processes[p].epoch;
        if self.processes[p].is_leaving || !self.store.state().is_living(epoch) {
            return false;
        }
        let contested = self.store.contested(epoch, "", u64::MAX).expect("no fault is due");
        let wishes = wishes(epoch, &contested);
        if !wishes.is_empty() {
            self.note(|| format!("{p}: wants {wishes:?}"));
            self.store.want(epoch, &wishes).expect("no fault is due");
            self.tell_others(p);
        }
        let Wished { of_us, granted, .. } = self.store.wished(epoch).expect("no fault is due");
        let has_moved = !(wishes.is_empty() && of_us.is_empty() && granted.is_empty());
        if !of_us.is_empty() {
            self.note(|| format!("{p}: gives way with {of_us:?}"));
            self.step(p, Event::GiveWay(of_us));
        }
        if !granted.is_empty() {
            self.step(p, Event::Free(granted));
        }
        has_moved
    }

    /// Quiet history goes to the store.
    pub fn gather(&mut self, p: usize) -> bool {
        let history = self.processes[p].poller.take_history();
        self.step(p, Event::History(history));
        true
    }
}
