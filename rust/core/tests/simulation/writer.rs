//! Carries out what an engine decides: the part of runtime.rs around the engine's lock and the writer's queue.

use std::sync::Arc;

use cloaca_core::admit::Overlap;
use cloaca_core::engine::{Effects, Event, Rearm, Then};
use cloaca_core::port::{Admitted, Change, Receipt, RunChange, RunEnd, Store as _};
use uuid::Uuid;

use crate::family::Awaited;
use crate::process::{Batch, Stage, Worker};
use crate::world::World;

impl World {
    pub fn step(&mut self, p: usize, event: Event) {
        let now = self.now(p);
        let mut effects = Effects::default();
        self.processes[p].engine.step(event, now, &mut effects);
        self.carry_out(p, effects);
    }

    pub fn carry_out(&mut self, p: usize, effects: Effects) {
        for (change, then) in effects.commits {
            self.sent(p, &change);
            self.processes[p].queue.push_back((change, then));
        }
        let known = &mut self.processes[p].ends;
        *known = effects.ends.map_or(*known, |ends| ends.max(*known));
        for (job, note) in effects.told {
            self.note(|| format!("  {job:?} is told to end: {note:?}"));
            let now = self.now(p).mono;
            let workers = self.processes[p].workers.iter_mut();
            workers.filter(|worker| worker.job == job).for_each(|worker| worker.told_at = Some(now));
        }
        for job in effects.overdue {
            self.note(|| format!("  {job:?} is overdue"));
            self.witness.overdue += 1;
            let workers = self.processes[p].workers.iter_mut();
            let mut given_up = workers.filter(|worker| worker.job == job);
            let worker = given_up.next().unwrap_or_else(|| panic!("{job:?} is overdue and has no body"));
            assert!(worker.told_at.is_some(), "{job:?} is overdue, and nobody told its body");
            worker.is_given_up = true;
        }
        for job in effects.released {
            let given_up = self.processes[p].workers.iter().find(|worker| worker.job == job);
            if let Some(task) = given_up.map(|worker| Arc::clone(&worker.task)) {
                self.witness.seen(job.run).over.insert((task, job.attempt));
            }
            let workers = self.processes[p].workers.iter_mut();
            workers.filter(|worker| worker.job == job).for_each(|worker| worker.is_given_up = true);
        }
        self.processes[p].ready.extend(effects.jobs.into_iter().map(|ready| ready.job));
        self.processes[p].recorded.extend(effects.recorded.into_iter().map(|(_, job)| job));
        for (_, job) in effects.unseated {
            let waits = |worker: &Worker| worker.stage == Stage::Recording && worker.job == job;
            let workers = &mut self.processes[p].workers;
            let index = workers.iter().position(waits).expect("it waits with its permit");
            workers.swap_remove(index);
        }
        self.processes[p].seatless.extend(effects.seatless.into_iter().map(|job| (job, false)));
        for job in effects.reseated {
            self.processes[p].seatless.remove(&job);
        }
        effects.seats_of.into_iter().for_each(|epoch| self.store.wake(epoch));
        self.processes[p].looks.extend(effects.looks);
        effects.started.into_iter().for_each(|id| self.told_of_child(p, id, Some(Awaited::Kept(id))));
        effects.keyed.into_iter().for_each(|(id, of)| self.told_of_child(p, id, Some(Awaited::Known(of))));
        effects.ended.into_iter().for_each(|(id, _, end)| self.ended(p, id, &end));
        effects.lost.into_iter().for_each(|(id, why)| self.lost(p, id, &why));
        effects.rearm.into_iter().for_each(|rearm| self.rearm(p, rearm));
        self.processes[p].cancels.extend(effects.cancels);
        if effects.is_due {
            let recovery = &mut self.processes[p].recovery;
            (recovery.claims, recovery.is_vacancy) = (true, recovery.claims && recovery.is_vacancy);
        }
        if effects.tells {
            self.tell_others(p);
        }
        if effects.is_offered {
            self.store.wake_others(self.processes[p].epoch);
        }
        effects.logs.into_iter().for_each(|note| self.note(|| format!("  log: {note}")));
    }

    fn sent(&mut self, p: usize, change: &Change) {
        let Change::Run(RunChange { run, end: Some(_), .. }) = change else { return };
        let is_first = self.processes[p].concluded.insert(*run);
        assert!(is_first, "run row {run} was concluded twice");
    }

    fn ended(&mut self, p: usize, id: Uuid, end: &RunEnd) {
        // The end may be of an earlier life: it was opened again elsewhere, and came back, before that was heard of.
        if self.processes[p].engine.run(id).is_none() {
            self.processes[p].held.remove(&id);
        }
        let kept = self.witness.seen(id).ends.contains(&end.status);
        assert!(kept, "run {id} was told to have ended as {:?}, which is not kept", end.status);
    }

    fn lost(&mut self, p: usize, id: Uuid, why: &str) {
        let process = &mut self.processes[p];
        process.held.remove(&id);
        process.halted.insert(id);
        let is_refused = self.witness.refused.contains(&id);
        assert!(process.is_zombie || is_refused, "run {id} {why}, but its owner lives");
        self.told_of_child(p, id, None);
    }

    fn rearm(&mut self, p: usize, rearm: Rearm) {
        let at = self.now(p);
        let now = at.mono;
        self.note(|| format!("{p}: {rearm:?}"));
        let process = &mut self.processes[p];
        let Rearm { place, row, cursor, is_cut, set, fired_at, .. } = rearm;
        let Rearm { disables, elsewhere, gives_way, is_stale, .. } = rearm;
        assert_eq!(set, None, "nobody sets cursors in this world");
        if gives_way {
            process.poller.hand_on(place);
            let is_busy = process.polls.iter().any(|polling| polling.ticket.place == place);
            let state = &mut process.places[place as usize];
            state.is_elsewhere = true;
            state.make_up = state.make_up.filter(|_| is_busy);
            return;
        }
        let was_elsewhere = process.places[place as usize].is_elsewhere;
        if row.is_some() || elsewhere {
            process.places[place as usize].is_elsewhere = elsewhere;
        }
        process.places[place as usize].in_commit &= row.is_some();
        match row {
            Some(mut kept) => {
                kept.enabled &= !is_stale;
                if !process.places[place as usize].is_retired {
                    // What was switched off here since the commit is not known to the row.
                    let before = process.poller.place_of(kept.row);
                    let found = before.map(|before| &process.places[before as usize]);
                    let pending = found.and_then(|before| before.make_up);
                    let was_polled = found.is_some_and(|before| before.was_polled);
                    let before = found.map(|before| before.is_enabled);
                    let is_busy = process.polls.iter().any(|polling| polling.ticket.place == place);
                    let state = &mut process.places[place as usize];
                    if !is_busy && !state.in_commit && (state.row.is_none() || was_elsewhere) {
                        state.failures = kept.failures;
                    }
                    state.row = Some(kept.row);
                    state.is_enabled = kept.enabled && before.unwrap_or(true);
                    if !is_busy && !state.in_commit {
                        state.resume(kept.grid.as_ref(), pending, was_polled, at);
                    }
                }
                if process.poller.enable(place, &kept, elsewhere, at) || is_stale {
                    let epoch = process.epoch;
                    self.has_news.insert(epoch);
                    self.store.wake(epoch);
                }
            }
            None if elsewhere => {
                process.places[place as usize].make_up = None;
                process.poller.park(place, now);
            }
            None => {
                if let Some(schedule) = disables {
                    if let Some(place) = process.poller.place_of(schedule) {
                        process.places[place as usize].switch(false, now);
                    }
                    process.poller.set_enabled(schedule, false, now);
                }
                if is_cut {
                    process.poller.cut_short(place);
                }
                process.poller.rearm(place, cursor.map(Into::into), fired_at, now);
            }
        }
    }

    /// The writer takes what has gathered, or tries again what was refused.
    pub fn write(&mut self, p: usize) -> bool {
        let process = &mut self.processes[p];
        if process.batch.is_none() {
            if process.queue.is_empty() {
                return false;
            }
            let size = self.random.between(1, process.queue.len() as u64) as usize;
            let (changes, thens) = process.queue.drain(..size).unzip();
            process.batch = Some(Batch { changes, thens, receipts: None });
        }
        let batch = process.batch.as_ref().expect("there is one now");
        if batch.receipts.is_some() {
            return false;
        }
        let changes = batch.changes.clone();
        self.stumble();
        match self.store.commit(&changes) {
            Ok(receipts) => self.committed(p, &changes, receipts),
            Err(fault) => self.note(|| format!("{p}: commit refused: {fault:?}")),
        }
        true
    }

    fn committed(&mut self, p: usize, changes: &[Change], receipts: Vec<Receipt>) {
        self.note(|| format!("{p}: committed {changes:?}\n     {receipts:?}"));
        for (change, receipt) in changes.iter().zip(&receipts) {
            if *receipt == Receipt::Fenced {
                assert!(self.processes[p].is_zombie, "a living owner was fenced: {change:?}");
            }
            self.look_at(p, change, receipt);
        }
        self.processes[p].batch.as_mut().expect("it was just written").receipts = Some(receipts);
    }

    fn look_at(&mut self, p: usize, change: &Change, receipt: &Receipt) {
        match (change, receipt) {
            (Change::Tick(tick), receipt) => {
                let moved = self.processes[p].moves.pop_front().expect("every tick was noted");
                let Receipt::Tick { fates, cursor, opened } = receipt else { return };
                let to = moved.after(tick, fates);
                assert_eq!(*cursor, to.map(|to| to.to_string()), "the cursor after {fates:?} of {tick:?}");
                if let Some(to) = to {
                    let before = self.cursors.insert(tick.schedule, to);
                    assert_eq!(before, moved.from, "the tick moved the cursor from where it was");
                }
                let is_free = opened.is_empty() && tick.room.is_some_and(|room| room.runs > 0);
                let is_dropped = fates.iter().any(|fate| matches!(fate, Admitted::Overlaps { .. }));
                let is_lost = is_free && is_dropped && !fates.iter().any(Admitted::is_kept);
                assert!(!is_lost, "what has started nothing took a place: {fates:?} of {tick:?}");
                let store = self.store.state();
                for (new, fate) in tick.fires.iter().zip(fates) {
                    if matches!(fate, Admitted::Started { .. }) {
                        moved.is_no_ghost(new, &store);
                        self.witness.run_started(new, tick.at, &store);
                    }
                }
                self.processes[p].polls_kept += tick.history.iter().map(|stretch| stretch.count).sum::<u64>();
            }
            (Change::Start { runs, .. } | Change::Offer { runs, .. }, receipt) => {
                self.asked_for(p, runs, receipt);
            }
            (Change::Run(change), Receipt::Run(_)) => self.progressed(p, change),
            (Change::Run(change), Receipt::Cancelled { children, .. }) => {
                self.progressed(p, change);
                self.ends_are_asked_for(children);
            }
            (Change::History(history), Receipt::History) => {
                self.processes[p].polls_kept += history.iter().map(|stretch| stretch.count).sum::<u64>();
            }
            _ => {}
        }
    }

    fn progressed(&mut self, p: usize, change: &RunChange) {
        let store = self.store.state();
        let kept = &store.runs[change.run.0 as usize - 1];
        let id = kept.new.id;
        let Some(run) = self.processes[p].engine.run(id) else {
            let end = change.end.as_ref().expect("only a run that waits for its workflow ends like this");
            self.witness.seen(id).ends.push(end.status);
            return;
        };
        self.witness.seen(id).is_changed |= *kept.version != *run.workflow.version;
        for record in &change.tasks {
            let most = self.scenario.attempts_max(&run.workflow.name, &record.name)
                + record.interrupted
                + record.postponed;
            assert!(record.attempt <= most, "{record:?} is beyond {most} attempts of run {id}");
            self.witness.task_kept(id, record, &run.workflow, kept.interruptions);
            self.witness.tries_kept(kept, record);
        }
        if let Some(end) = &change.end {
            self.witness.run_kept(id, end, &run.workflow, kept);
        }
    }

    /// The engine hears of what was committed.
    pub fn deliver(&mut self, p: usize) -> bool {
        let is_committed = self.processes[p].batch.as_ref().is_some_and(|batch| batch.receipts.is_some());
        if !is_committed {
            return false;
        }
        let batch = self.processes[p].batch.take().expect("it was just looked at");
        let now = self.now(p);
        let mut effects = Effects::default();
        let (mut all_begun, mut cancelled, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        for (then, receipt) in batch.thens.into_iter().zip(batch.receipts.expect("committed")) {
            let dropped = dropped(&then, &receipt);
            if let Then::Start(ids) = &then {
                asked.extend(ids.iter().copied());
            }
            all_begun.extend(begun(&then, &receipt));
            if let Receipt::Cancelled { children, .. } = &receipt {
                self.processes[p].halted.extend(children);
                cancelled.extend(children.iter().copied());
            }
            if let Receipt::Declared(state) = &receipt {
                self.processes[p].hold_others(&state.unfinished, state.row);
            }
            if let (Then::Tick { runs, .. }, Receipt::Tick { opened, .. }) = (&then, &receipt)
                && let Some(&fire) = runs.first()
            {
                self.processes[p].hold_before(fire, opened);
            }
            self.processes[p].engine.step(Event::Committed(then, receipt), now, &mut effects);
            for id in dropped {
                self.processes[p].held.remove(&id);
            }
        }
        self.carry_out(p, effects);
        self.nobody_waits_for_an_answer(p, &asked);
        self.children_are_cancelled(p, &cancelled);
        all_begun.into_iter().for_each(|id| self.earlier_ones_are_cancelled(p, id));
        true
    }

    /// The run of a trigger that cancels what runs is kept: nothing before it may go on.
    fn earlier_ones_are_cancelled(&mut self, p: usize, id: Uuid) {
        let cancels =
            self.witness.seen(id).wish.as_ref().is_some_and(|wish| wish.overlap == Overlap::CancelRunning);
        let process = &self.processes[p];
        let is_cancelled = process.halted.contains(&id);
        let Some(held) = process.held.get(&id).filter(|_| cancels && !is_cancelled) else { return };
        let before: Vec<Uuid> =
            process.line(held.schedule).into_iter().take_while(|&other| other != id).collect();
        for other in before {
            if let Some(run) = self.processes[p].engine.run(other) {
                let row = run.row;
                let is_ending = run.is_halted() || self.processes[p].concluded.contains(&row);
                assert!(is_ending, "run {id} cancels run {other}, which goes on");
            }
            self.witness.seen(other).is_cancelled = true;
            self.processes[p].halted.insert(other);
        }
    }
}

/// Runs that the store refused.
fn dropped(then: &Then, receipt: &Receipt) -> Vec<Uuid> {
    match (then, receipt) {
        (
            Then::Tick { runs, .. } | Then::Start(runs),
            Receipt::Tick { fates: admitted, .. } | Receipt::Start(admitted),
        ) => {
            let is_dropped = |fate: &Admitted| !matches!(fate, Admitted::Started { .. });
            runs.iter().zip(admitted).filter(|(_, fate)| is_dropped(fate)).map(|(&id, _)| id).collect()
        }
        (Then::Tick { runs, .. }, _) => runs.clone(),
        _ => Vec::new(),
    }
}

/// Fired runs that the store has kept.
fn begun(then: &Then, receipt: &Receipt) -> Vec<Uuid> {
    match (then, receipt) {
        (Then::Tick { runs, .. }, Receipt::Tick { fates: admitted, .. }) => {
            let is_kept = |fate: &Admitted| matches!(fate, Admitted::Started { .. });
            runs.iter().zip(admitted).filter(|(_, fate)| is_kept(fate)).map(|(&id, _)| id).collect()
        }
        _ => Vec::new(),
    }
}
