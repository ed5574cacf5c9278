//! What stands around a change that is only played, for who undoes it.
//! Invariant: who plays on behalf of a program that is not there has what that program would have, and nothing else.

use std::sync::Arc;

use cloaca_core::key::Epoch;
use cloaca_core::port::{Admitted, Change, NewRun, REHEARSED_MAX, Receipt, STAND_IN};
use cloaca_core::time::Wall;

use super::db::{Db, named_params};
use super::fault::Failure;
use super::limits;

/// Before a trigger is declared on behalf of a program: its name is nobody's, and nobody declares it. Before a tick of a cron: who plays it decides that
/// one's moments.
pub fn vacate(db: &Db, change: &Change) -> Result<(), Failure> {
    // Primary key of declared; indices schedules_trigger, schedules_cron_name.
    const DECLARED: &str = "DELETE FROM declared WHERE name = :name";
    const POLLED: &str = "UPDATE schedules SET owner = NULL WHERE kind = 'trigger' AND name = :name";
    const DECIDED: &str =
        "UPDATE schedules SET owner = NULL WHERE kind = 'cron' AND name = :name AND name <> ''";
    const DECIDES: &str =
        "UPDATE schedules SET owner = :epoch, cursor_set = :cursor_set WHERE row = :row AND kind = 'cron'";
    if let Change::Tick(tick) = change {
        let params = named_params! {
            ":row": tick.schedule.0, ":epoch": tick.epoch.0, ":cursor_set": tick.cursor_set
        };
        db.prepare_cached(DECIDES)?.execute(params)?;
    }
    let Change::Declare { epoch: STAND_IN, trigger, .. } = change else { return Ok(()) };
    for sql in [DECLARED, POLLED, DECIDED] {
        db.prepare_cached(sql)?.execute(named_params! { ":name": trigger.name })?;
    }
    Ok(())
}

/// What a change came to, where what limits hold and would let begin at once has started.
pub fn begun(db: &Db, change: &Change, receipt: Receipt) -> Result<Receipt, Failure> {
    match (change, receipt) {
        (Change::Tick(tick), Receipt::Tick { fates, cursor, opened }) => {
            let fates = let_begin(db, tick.epoch, tick.at, &tick.fires, fates)?;
            Ok(Receipt::Tick { fates, cursor, opened })
        }
        (Change::Start { epoch, runs, .. }, Receipt::Start(fates)) => {
            let at = runs.first().map_or(Wall(0), |new| new.created_at);
            Ok(Receipt::Start(let_begin(db, *epoch, at, runs, fates)?))
        }
        (_, receipt) => Ok(receipt),
    }
}

fn let_begin(
    db: &Db,
    epoch: Epoch,
    at: Wall,
    runs: &[NewRun],
    mut fates: Vec<Admitted>,
) -> Result<Vec<Admitted>, Failure> {
    let is_held = |fate: &Admitted| matches!(fate, Admitted::Held { .. });
    let held = runs.iter().zip(&fates).find(|(_, fate)| is_held(fate));
    let Some((held, _)) = held else { return Ok(fates) };
    // The fires of one poll are all of one workflow.
    let workflows = [Arc::clone(&held.workflow)];
    let begun = limits::claim(db, epoch, at, REHEARSED_MAX, &workflows)?.runs;
    for fate in fates.iter_mut().filter(|fate| is_held(fate)) {
        if let Some(run) = begun.iter().find(|run| fate.row() == Some(run.row)) {
            *fate = Admitted::Started { row: run.row };
        }
    }
    Ok(fates)
}
