//! Applies a batch of changes inside one transaction. Invariant: a change is written whole or, if its epoch does not
//! hold what it writes to, not at all.

use std::collections::HashMap;

use cloaca_core::error::excerpt;
use cloaca_core::fault_point::{Step, around};
use cloaca_core::port::{
    Admitted, Change, CronMove, NewRun, Outcome, Receipt, RunChange, Stretch, TickChange, TriggerRow,
};
use cloaca_core::time::Wall;
use rusqlite::Connection;

use crate::sqlite::fault::Failure;
use crate::sqlite::schedule::Declaring;
use crate::sqlite::{history, owner, run, schedule};

/// A receipt for each change, in order.
pub fn apply(db: &Connection, changes: &[Change]) -> Result<Vec<Receipt>, Failure> {
    let mut batch = Batch { db, checked: HashMap::new(), declaring: None };
    changes.iter().map(|change| batch.apply(change)).collect()
}

struct Batch<'c> {
    db: &'c Connection,
    /// The owners that were looked up, and whether they live; they stay as they are within a transaction.
    checked: HashMap<i64, bool>,
    declaring: Option<Declaring<'c>>,
}

impl<'c> Batch<'c> {
    fn apply(&mut self, change: &Change) -> Result<Receipt, Failure> {
        match change {
            Change::Tick(tick) => self.tick(tick),
            Change::Start { epoch, runs, cron } => self.start(*epoch, runs, *cron),
            Change::Run(change) => self.run(change),
            Change::Declare { epoch, trigger, at } => self.declare(*epoch, trigger, *at),
            Change::History(stretches) => {
                around(Step::History, || history::append(self.db, stretches))?;
                for stretch in stretches {
                    schedule::polled(self.db, stretch.schedule, stretch.last_at)?;
                }
                Ok(Receipt::History)
            }
        }
    }

    fn declare(&mut self, epoch: i64, trigger: &TriggerRow, at: Wall) -> Result<Receipt, Failure> {
        if !self.is_living(epoch)? {
            return Ok(Receipt::Fenced);
        }
        let Self { db, checked, declaring } = self;
        let declaring = match declaring {
            Some(declaring) => declaring,
            None => declaring.insert(Declaring::new(db)?),
        };
        let state = around(Step::Declare, || {
            declaring.declare(epoch, trigger, at, |owner| is_living(db, checked, owner))
        })?;
        Ok(Receipt::Declared(state))
    }

    fn tick(&mut self, tick: &TickChange) -> Result<Receipt, Failure> {
        // A runner that was buried by mistake must not start what nobody would claim.
        if !self.is_living(tick.epoch)? || !around(Step::Cursor, || schedule::advance(self.db, tick))? {
            return Ok(Receipt::Fenced);
        }
        let fires = tick.fires.iter().map(|fire| self.admit(tick.epoch, fire, tick.at));
        let admitted = fires.collect::<Result<Vec<Admitted>, Failure>>()?;
        if admitted.iter().any(|fate| matches!(fate, Admitted::Started { .. })) {
            schedule::fired(self.db, tick.schedule, tick.at)?;
        }
        schedule::disable(self.db, tick)?;
        self.remember(tick, &admitted)?;
        Ok(Receipt::Tick(admitted))
    }

    /// Keeps a tick's history. A poll of which nothing came is no fire, whatever it wished.
    fn remember(&self, tick: &TickChange, admitted: &[Admitted]) -> Result<(), Failure> {
        let Some((last, before)) = tick.history.split_last() else { return Ok(()) };
        history::append(self.db, before)?;
        let reason = if last.outcome == Outcome::Fire { dropped(&tick.fires, admitted) } else { None };
        match reason {
            Some(reason) => {
                let skip = Stretch { outcome: Outcome::Skip, reason: reason.into(), ..last.clone() };
                history::append(self.db, &[skip])
            }
            None => history::append(self.db, std::slice::from_ref(last)),
        }
    }

    fn start(&mut self, epoch: i64, runs: &[NewRun], cron: Option<CronMove>) -> Result<Receipt, Failure> {
        if !self.is_living(epoch)? {
            return Ok(Receipt::Fenced);
        }
        let admitted = runs.iter().map(|new| self.admit(epoch, new, new.created_at));
        let admitted = admitted.collect::<Result<Vec<Admitted>, Failure>>()?;
        if let Some(step) = cron {
            schedule::move_cron(self.db, &step)?;
        }
        Ok(Receipt::Start(admitted))
    }

    fn admit(&self, epoch: i64, new: &NewRun, at: Wall) -> Result<Admitted, Failure> {
        around(Step::Admit, || run::admit(self.db, epoch, new, at))
    }

    fn run(&mut self, change: &RunChange) -> Result<Receipt, Failure> {
        match around(Step::Progress, || run::progress(self.db, change))? {
            true => Ok(Receipt::Run),
            false => Ok(Receipt::Fenced),
        }
    }

    fn is_living(&mut self, epoch: i64) -> Result<bool, Failure> {
        is_living(self.db, &mut self.checked, epoch)
    }
}

fn is_living(db: &Connection, checked: &mut HashMap<i64, bool>, epoch: i64) -> Result<bool, Failure> {
    if let Some(&is_living) = checked.get(&epoch) {
        return Ok(is_living);
    }
    let is_living = owner::is_living(db, epoch)?;
    checked.insert(epoch, is_living);
    Ok(is_living)
}

/// Why the last fire was dropped, if all were; in the engine's words for what it drops itself.
fn dropped(fires: &[NewRun], admitted: &[Admitted]) -> Option<String> {
    if admitted.iter().any(|fate| matches!(fate, Admitted::Started { .. })) {
        return None;
    }
    let (fire, fate) = fires.last().zip(admitted.last())?;
    let key = fire.run_key.as_ref().map_or("", |(key, _)| key);
    match fate {
        Admitted::Started { .. } => None,
        Admitted::DuplicateHash { of } => {
            Some(format!("deduplicated: run {of} with an equal context is unfinished"))
        }
        Admitted::DuplicateKey { of: Some(of) } => {
            Some(format!("deduplicated: run key '{}' started run {of}", excerpt(key)))
        }
        Admitted::DuplicateKey { of: None } => {
            Some(format!("deduplicated: run key '{}' was used before", excerpt(key)))
        }
    }
}
