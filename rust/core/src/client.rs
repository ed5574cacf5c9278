//! Changes by somebody who runs nothing, such as a command: what is started or opened again is nobody's, and a living runner claims it.
//! Invariant: whoever dies amidst a change leaves what any runner that dies leaves, and no more.
//!
//! A run needs an owner at its beginning, so that none is taken twice. Hence a client joins for the moment of a change, and gives up at once
//! what that gave it, which wakes the others. Nothing of that counts as an interruption.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::admit::Gate;
use crate::engine::{self, Asked, Declared, Fire, Foretold, Poll};
use crate::key::{Epoch, ScheduleKey};
use crate::limit::Dropped;
use crate::port::{
    Admitted, Change, ContextHash, Fault, Forgotten, Found, Halt, InFlight, NewRun, Old, Parent, Receipt,
    Renamed, STAND_IN, Store, Stored,
};
use crate::runtime::{AskedFire, hashed, play};
use crate::seat::{Kind, Pause};
use crate::time::Wall;
use crate::urgency::{Due, Urgency};

/// So many runs are looked for at once when old ones are deleted.
const FOUND_MAX: u64 = 10_000;
/// So many go in one transaction: others wait for it, and so does a signal.
const PRUNED_MAX: usize = 200;

/// Changes to a store without a runtime.
pub struct Client {
    store: Arc<dyn Store>,
    /// What the last look for runs older than that has found and is not deleted yet.
    found: Mutex<(Wall, Found)>,
}

/// What is rehearsed beside whoever serves it.
#[derive(Debug)]
pub struct Apart<'a> {
    /// The trigger.
    pub trigger: &'a Declared,
    /// What it starts.
    pub workflow: Asked,
    /// Its row if it is a cron that has one.
    pub cron: Option<ScheduleKey>,
    /// Its unfinished runs, each with the hash that it guards.
    pub held: &'a [(Uuid, Option<ContextHash>)],
}

/// A run that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// The workflow's content version, as far as that is known.
    pub version: Arc<str>,
    /// The first context, as JSON text.
    pub context: Arc<str>,
    /// A run key, and until when it holds.
    pub run_key: Option<(String, Wall)>,
    /// When it is to begin.
    pub urgency: Urgency,
    /// The run whose work it does again.
    pub again: Option<Uuid>,
    /// What the telemetry of whoever asked for it hands on to its bodies, as JSON text. It changes nothing.
    pub trace: Option<Arc<str>>,
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    /// A run of this id is kept.
    Started(Uuid),
    /// The run of this id has the key.
    Known(Option<Uuid>),
    /// A limit has dropped it.
    Dropped(Dropped),
    /// Its context has not the key by which its workflow is limited, as this says.
    Unkeyed(String),
}

impl Client {
    /// For a store that is open.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, found: Mutex::new((Wall(i64::MIN), Found::default())) }
    }

    /// Closes the store.
    pub fn close(&self) {
        self.store.close();
    }

    /// Starts a run that any runner may claim.
    ///
    /// # Errors
    /// As all of these: the store's.
    pub fn submit(&self, wish: &Wish, now: Wall) -> Stored<Granted> {
        let id = crate::key::new_id();
        // Of a wait the store's clock says when it is over, if it has one.
        let ahead_us = match wish.urgency.due {
            Some(Due::After(_)) => self.store.clock_ahead_us()?.unwrap_or(0),
            _ => 0,
        };
        let now = Wall(now.0.saturating_add(ahead_us));
        self.joined(now, |epoch| {
            let run = NewRun {
                id,
                workflow: Arc::clone(&wish.workflow),
                version: Arc::clone(&wish.version),
                context: Arc::clone(&wish.context),
                schedule: None,
                context_hash: None,
                unique_hash: false,
                run_key: wish.run_key.clone().map(|(key, expires_at)| (key, Some(expires_at))),
                scheduled_at: None,
                waits: false,
                cursor: None,
                ends: None,
                parent: wish
                    .again
                    .map(|run| Box::new(Parent { run, task: None, call: None, again: true, given: false })),
                priority: wish.urgency.priority,
                due_at: wish.urgency.due.map(|due| due.instant(now)),
                delay_us: wish.urgency.due.and_then(Due::delay_us),
                limits: None,
                is_anyones: false,
                trace: wish.trace.clone(),
                created_at: now,
            };
            let receipts = self.store.commit(&[Change::Start { epoch, runs: vec![run], cron: None }])?;
            match receipts.into_iter().next() {
                Some(Receipt::Start(admitted)) => match admitted.first() {
                    Some(Admitted::DuplicateKey { of }) => Ok(Granted::Known(*of)),
                    Some(Admitted::Limited(dropped)) => Ok(Granted::Dropped((**dropped).clone())),
                    Some(Admitted::Unkeyed(why)) => Ok(Granted::Unkeyed(why.to_string())),
                    _ => Ok(Granted::Started(id)),
                },
                other => Err(Fault::Final(format!("the run was not taken: {other:?}"))),
            }
        })
    }

    /// Opens runs that failed or were cancelled again, for any runner; of each whether it was one, or why it is refused.
    pub fn retry_each(&self, ids: &[Uuid], now: Wall) -> Stored<Vec<Result<bool, String>>> {
        self.joined(now, |epoch| {
            let opened = self.store.reopen_each(epoch, ids)?;
            Ok(opened.into_iter().map(|run| run.map(|run| run.is_some())).collect())
        })
    }

    /// Asks for the ends of runs; of each whether it was there and not final.
    pub fn cancel_each(&self, ids: &[Uuid], now: Wall) -> Stored<Vec<bool>> {
        self.joined(now, |epoch| {
            // What a dead one left ends at once.
            self.store.bury(epoch)?;
            Ok(self.store.request_cancels(epoch, ids, now)?.iter().map(|asked| !asked.is_empty()).collect())
        })
    }

    /// Holds something up: no attempt under a limit begins, or no run of a workflow or of one of its keys.
    /// False if the workflow has no keys.
    pub fn pause(&self, pause: &Pause) -> Stored<bool> {
        self.joined(pause.since, |_| self.store.pause(pause))
    }

    /// Holds it up no longer; false if it was not.
    pub fn resume(&self, kind: Kind, name: &str, key: &str, now: Wall) -> Stored<bool> {
        self.joined(now, |_| self.store.resume(kind, name, key, now))
    }

    /// Deletes what is kept of a name, unless a living owner polls it.
    pub fn forget(&self, name: &str, now: Wall) -> Stored<Forgotten> {
        self.joined(now, |epoch| {
            self.store.bury(epoch)?;
            self.store.forget(epoch, name)
        })
    }

    /// Gives what is kept of a name another one, unless a living owner polls it.
    pub fn rename(&self, from: &str, to: &str, now: Wall) -> Stored<Renamed> {
        self.joined(now, |epoch| {
            self.store.bury(epoch)?;
            self.store.rename(epoch, from, to)
        })
    }

    /// Deletes some hundreds at most of the runs that ended before a time, with their tasks; how many are gone. None means that none is left.
    pub fn prune(&self, before: Wall, now: Wall, halt: &Halt) -> Stored<u64> {
        let old =
            Old { now, runs_before: Some(before), ticks_before: Wall(i64::MIN), ticks_max: i64::MAX as u64 };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.0 != before {
            *found = (before, Found::default());
        }
        let mut has_looked = false;
        while !halt.is_asked() {
            if found.1.is_empty() {
                if has_looked {
                    break;
                }
                has_looked = true;
                found.1 = Found { keys: Vec::new(), ..self.store.find_old(&old, FOUND_MAX, halt)? };
            } else {
                // None of them may go any more if all have been opened again meanwhile.
                let gone = self.store.prune(&old, &found.1.take(PRUNED_MAX))?;
                if gone > 0 {
                    return Ok(gone);
                }
            }
        }
        Ok(0)
    }

    /// What would become of these fires of a poll of a trigger that its runner had polled just now, or of a moment of a cron, and of the cursor that it
    /// set. Changes nothing.
    pub fn rehearse(
        &self,
        apart: Apart<'_>,
        fires: Vec<AskedFire>,
        cursor: Option<&str>,
        now: Wall,
    ) -> Stored<Vec<Foretold>> {
        let workflow = self.asked(apart.workflow, now)?;
        rehearse_apart(&*self.store, &Apart { workflow, ..apart }, fires, cursor, now)
    }

    /// What would become of runs of a workflow that are started by hand now, one after another. Changes nothing.
    pub fn rehearse_starts(
        &self,
        workflow: Asked,
        runs: Vec<(Arc<str>, Urgency)>,
        now: Wall,
    ) -> Stored<Vec<Foretold>> {
        let runs =
            runs.into_iter().map(|(context, urgency)| (crate::key::new_id(), context, urgency)).collect();
        play(&*self.store, engine::starts(&self.asked(workflow, now)?, STAND_IN, runs, now))
    }

    fn asked(&self, workflow: Asked, now: Wall) -> Stored<Asked> {
        let holds = |pause: &Pause| pause.kind == Kind::Workflow && pause.name == workflow.name;
        let is_paused = self.store.pauses(now)?.iter().any(holds);
        Ok(Asked { is_paused, ..workflow })
    }

    fn joined<T>(&self, now: Wall, change: impl FnOnce(Epoch) -> Stored<T>) -> Stored<T> {
        let epoch = self.store.join(now)?;
        // It is none that serves the store, for whoever looks.
        let done = self.store.stand_by(epoch).and_then(|()| change(epoch));
        let left = self.store.leave(epoch, &InFlight::default(), now);
        let done = done?;
        left.map(|_| done)
    }
}

/// What would become of these fires, on behalf of a runner that is not there.
pub(crate) fn rehearse_apart(
    store: &dyn Store,
    apart: &Apart<'_>,
    fires: Vec<AskedFire>,
    cursor: Option<&str>,
    now: Wall,
) -> Stored<Vec<Foretold>> {
    let hashed = |fire| (crate::key::new_id(), hashed(fire, now));
    let fires: Vec<(Uuid, Fire)> = fires.into_iter().map(hashed).collect();
    let hashes: HashMap<Uuid, Option<ContextHash>> = apart.held.iter().copied().collect();
    let mut told = Vec::new();
    store.rehearse(&mut |play| {
        let (schedule, cursor_set, unfinished) = match apart.cron {
            Some(row) => (row, 0, apart.held.iter().map(|(run, _)| *run).collect()),
            None => {
                let trigger = apart.trigger.row.clone();
                let declared = Change::Declare { epoch: STAND_IN, trigger, at: now };
                let Receipt::Declared(state) = play(&declared)? else {
                    return Err(Fault::Final("the trigger was not taken".to_owned()));
                };
                (state.row, state.cursor_set, state.unfinished)
            }
        };
        let mut gate = Gate::default();
        for run in unfinished {
            gate.hold(schedule, hashes.get(&run).copied().flatten(), run);
        }
        let cursor = cursor.map(str::to_owned);
        let poll = Poll { schedule, epoch: STAND_IN, at: now, cursor_set, ends: None, cursor };
        told = match engine::rehearse(&mut gate, apart.trigger, &apart.workflow, poll, fires.clone(), now) {
            Ok(rehearsal) => {
                let receipts = rehearsal.changes().iter().map(&mut *play).collect::<Stored<_>>()?;
                rehearsal.told(receipts)
            }
            Err(why) => vec![why; fires.len()],
        };
        Ok(())
    })?;
    Ok(told)
}
