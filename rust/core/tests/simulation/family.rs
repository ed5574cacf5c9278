//! Runs that others ask for: the bodies of tasks, which start children and wait for them, and clients, which work on nothing and leave
//! their runs to whoever declares the workflow.

use std::sync::Arc;

use cloaca_core::engine::{Event, Request};
use cloaca_core::port::{Admitted, Fault, NewRun, Parent, Receipt, RunStatus};
use uuid::Uuid;

use crate::process::{Stage, Worker};
use crate::world::World;

/// How far a body has come with a child that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// Nobody has answered yet.
    Sent(Uuid),
    /// The same call has started this one before: it is opened again if it ended badly.
    Known(Uuid),
    /// It is kept.
    Kept(Uuid),
}

impl World {
    /// A body starts a child or hears of one.
    pub fn call(&mut self, p: usize) -> bool {
        self.hear(p) || (!self.is_calm && self.start_child(p))
    }

    fn start_child(&mut self, p: usize) -> bool {
        let calls = |worker: &Worker| matches!(worker.stage, Stage::Body | Stage::Callback);
        let workers = self.processes[p].workers.iter().enumerate();
        let callers: Vec<usize> =
            workers.filter(|(_, worker)| calls(worker)).map(|(index, _)| index).collect();
        let names = self.processes[p].engine.workflow_names();
        if names.is_empty() || callers.is_empty() || self.processes[p].is_leaving {
            return false;
        }
        let (index, name) = (self.random.pick(&callers), self.random.pick(&names));
        self.start_child_of(p, index, &name);
        true
    }

    /// A body begins: of some tasks each attempt begins with the same call.
    pub fn call_first(&mut self, p: usize) {
        let process = &self.processes[p];
        let Some(index) = process.workers.len().checked_sub(1) else { return };
        let worker = &process.workers[index];
        let Some(run) = process.engine.run(worker.job.run).filter(|_| worker.stage == Stage::Body) else {
            return;
        };
        let call = (Arc::clone(&run.workflow.name), Arc::clone(&worker.task));
        let Some(name) = self.scenario.calls.get(&call).cloned() else { return };
        if process.engine.workflow(&name).is_some() {
            self.start_child_of(p, index, &name);
        }
    }

    fn start_child_of(&mut self, p: usize, index: usize, name: &Arc<str>) {
        let workflow = Arc::clone(self.processes[p].engine.workflow(name).expect("it is declared"));
        let id = Uuid::from_u64_pair(self.random.next(), 0);
        let worker = &mut self.processes[p].workers[index];
        let job = worker.job;
        let is_body = worker.stage == Stage::Body;
        let number = worker.calls.entry(Arc::clone(name)).and_modify(|number| *number += 1).or_insert(1);
        let parent = match is_body {
            true => Parent {
                run: job.run,
                task: Some(Arc::clone(&worker.task)),
                call: Some(*number),
                again: false,
                given: false,
            },
            false => Parent { run: job.run, task: None, call: None, again: false, given: false },
        };
        let waits = is_body && self.random.percent(60);
        if waits {
            (worker.stage, worker.awaits) = (Stage::Deferred, Some(Awaited::Sent(id)));
        }
        self.note(|| format!("{p}: {job:?} calls {name} as {id}, {parent:?}, waits {waits}"));
        self.witness.called(id, name, parent.clone());
        let request = Request { parent: Some(Box::new(parent)), ..Request::of(id, "{\"by\":0}".into()) };
        self.step(p, Event::Start { workflow, requests: vec![request] });
        if waits {
            self.step(p, Event::Deferred(job, true));
        }
    }

    /// Bodies hear what became of their children; true if that changes anything.
    fn hear(&mut self, p: usize) -> bool {
        let mut has_moved = false;
        for index in 0..self.processes[p].workers.len() {
            let awaits = match self.processes[p].workers[index].awaits {
                Some(Awaited::Kept(id)) if !self.has_ended(id) => continue,
                Some(Awaited::Kept(_)) => None,
                // What was sent before should be kept.
                Some(Awaited::Known(id)) if self.processes[p].is_flushed() => self.call_again(p, id),
                _ => continue,
            };
            self.processes[p].workers[index].awaits = awaits;
            has_moved = true;
        }
        has_moved
    }

    fn has_ended(&self, id: Uuid) -> bool {
        self.store.state().run(id).is_some_and(|kept| kept.end.is_some())
    }

    fn call_again(&mut self, p: usize, id: Uuid) -> Option<Awaited> {
        let status = self.store.state().run(id).expect("it was found").end.as_ref().map(|end| end.status);
        if status.is_none_or(|status| status == RunStatus::Completed) {
            return Some(Awaited::Kept(id));
        }
        match self.open_again(p, id) {
            Ok(true) => Some(Awaited::Kept(id)),
            // Somebody was faster, or the store is busy.
            Ok(false) | Err(Fault::Passing(_)) => Some(Awaited::Known(id)),
            // The body hears of that as an error.
            Err(Fault::Final(_)) => None,
        }
    }

    /// Whoever waits for a run that was asked for hears that it is kept, or that another stands for it, or that there will be none.
    pub fn told_of_child(&mut self, p: usize, id: Uuid, news: Option<Awaited>) {
        if let Some(Awaited::Kept(kept) | Awaited::Known(kept)) = news {
            assert!(self.store.state().run(kept).is_some(), "run {kept} is told to be kept, and is not");
        }
        let workers = self.processes[p].workers.iter_mut();
        workers
            .filter(|worker| worker.awaits == Some(Awaited::Sent(id)))
            .for_each(|worker| worker.awaits = news);
    }

    /// Whoever asked for these runs has heard what became of them.
    pub fn nobody_waits_for_an_answer(&self, p: usize, asked: &[Uuid]) {
        let workers = &self.processes[p].workers;
        let waits = |id: &&Uuid| workers.iter().any(|worker| worker.awaits == Some(Awaited::Sent(**id)));
        assert_eq!(asked.iter().find(waits), None, "who asked for that run is told nothing");
    }

    /// What became of runs that were asked for.
    pub fn asked_for(&mut self, p: usize, runs: &[NewRun], receipt: &Receipt) {
        match receipt {
            Receipt::Start(fates) => {
                for (new, fate) in runs.iter().zip(fates) {
                    match fate {
                        Admitted::Started { .. } => self.witness.asked_run_started(new),
                        Admitted::DuplicateKey { of: Some(of) } => self.witness.is_same_call(new.id, *of),
                        other => panic!("run {} was asked for by hand, and is {other:?}", new.id),
                    }
                }
            }
            Receipt::Refused(_) => self.witness.refused.extend(runs.iter().map(|new| new.id)),
            _ => assert!(self.processes[p].is_zombie, "{receipt:?} for runs that were asked for"),
        }
    }

    /// A run was cancelled: so are its children, as far as they go on here, and others hear of theirs.
    pub fn children_are_cancelled(&self, p: usize, children: &[Uuid]) {
        let process = &self.processes[p];
        for &child in children {
            if let Some(run) = process.engine.run(child) {
                let is_ending = run.is_halted() || process.concluded.contains(&run.row);
                assert!(is_ending, "run {child} goes on, whose parent is cancelled");
                continue;
            }
            let store = self.store.state();
            let Some(owner) = store.run(child).filter(|kept| kept.end.is_none()).map(|kept| kept.owner)
            else {
                continue;
            };
            let is_told = owner == process.epoch || !store.is_living(owner) || store.is_woken(owner);
            assert!(is_told, "owner {owner} does not hear that the parent of run {child} is cancelled");
        }
    }

    /// Somebody asked for the ends of these runs.
    pub fn ends_are_asked_for(&mut self, asked: &[Uuid]) {
        for &id in asked {
            let has_ended = self.has_ended(id);
            let seen = self.witness.seen(id);
            seen.is_cancelled = true;
            if has_ended {
                seen.ends.push(RunStatus::Cancelled);
            }
        }
    }

    /// A client leaves runs to whoever declares the workflow.
    pub fn offer(&mut self, p: usize) -> bool {
        if !self.processes[p].is_client || self.processes[p].is_leaving {
            return false;
        }
        let versions = self.random.pick(&self.scenario.workflows);
        let of = self.random.pick(&versions);
        let request = |id| Request::of(id, "{\"by\":0}".into());
        let requests: Vec<Request> = (0..self.random.between(1, 3))
            .map(|_| request(Uuid::from_u64_pair(self.random.next(), 0)))
            .collect();
        self.note(|| format!("{p}: offers {requests:?} of {} {}", of.name, of.version));
        self.witness.offers += requests.len() as u64;
        self.step(p, Event::Offer { workflow: of.name.clone(), version: of.version.clone(), requests });
        true
    }

    /// Offers, in a world that is at rest, that somebody has to hear of.
    pub fn offer_at_rest(&mut self) {
        self.join_as_client();
        let client = self.processes.len() - 1;
        // That somebody has joined is news, too.
        self.come_to_rest();
        assert!(self.offer(client), "nothing goes wrong any more");
    }
}
