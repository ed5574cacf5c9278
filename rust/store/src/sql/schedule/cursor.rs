//! Cursors: moved by the ticks of polls, and set by whoever asks for it.
//! Invariant: a tick of a poll that began before somebody moved its trigger on leaves nothing, or of a cron not the cursor.

use cloaca_core::admit::Overlap;
use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::{Beginning, TickChange};

use super::super::db::{Db, OptionalExtension as _, named_params};
use super::super::dialect::advance;
use super::super::fault::Failure;
use super::twin::twins;

/// What became of a tick's step on its trigger.
pub enum Advanced {
    /// It is kept. Runs of its trigger may be unfinished that were opened again, where those wait for each other.
    Kept {
        /// Whether that is so.
        has_opened: bool,
    },
    /// The tick's epoch does not hold the trigger any more.
    Lost,
    /// Somebody has moved the trigger on meanwhile.
    Overtaken(ByHand),
}

/// Where a trigger stands that somebody has moved on beside its polls: its cursor, and how often that has been done.
pub struct ByHand {
    /// JSON text.
    pub cursor: Option<String>,
    pub cursor_set: i64,
}

/// Saves what a poll leaves on its trigger.
pub fn advance(db: &Db, change: &TickChange) -> Result<Advanced, Failure> {
    const ADVANCE: &str = advance!();
    const ADVANCE_IN_LINE: &str = concat!(advance!(), " RETURNING again");
    let overlap = (change.overlap != Overlap::Allow).then(|| change.overlap.name());
    let params = named_params! {
        ":row": change.schedule.0,
        ":epoch": change.epoch.0,
        // Where a row ends is known after its fires.
        ":cursor": change.cursor.as_ref().filter(|_| !change.has_row()),
        ":cursor_set": change.cursor_set,
        ":at": change.at.0,
        ":not_before": change.wait_us.map(|wait_us| change.at.0.saturating_add(wait_us)),
        ":wait_us": change.wait_us,
        ":failures": i64::from(change.failures),
        ":overlap": overlap,
    };
    let kept = match overlap {
        // What waits for nothing waits for nothing that was opened again either.
        None => (db.prepare_cached(ADVANCE)?.execute(params)? == 1).then_some(false),
        Some(_) => db.prepare_cached(ADVANCE_IN_LINE)?.query_row(params, |row| row.get(0)).optional()?,
    };
    if let Some(has_opened) = kept {
        return Ok(Advanced::Kept { has_opened });
    }
    Ok(moved_on(db, change)?.map_or(Advanced::Lost, Advanced::Overtaken))
}

/// How its trigger has been moved on since the poll of this tick began; none if it has not, or is another owner's.
pub fn moved_on(db: &Db, change: &TickChange) -> Result<Option<ByHand>, Failure> {
    const SQL: &str = "
        SELECT cursor, cursor_set FROM schedules WHERE row = :row AND owner = :epoch AND cursor_set <> :cursor_set";
    let params = named_params! {
        ":row": change.schedule.0, ":epoch": change.epoch.0, ":cursor_set": change.cursor_set
    };
    let found = db
        .prepare_cached(SQL)?
        .query_row(params, |row| Ok(ByHand { cursor: row.get(0)?, cursor_set: row.get(1)? }));
    Ok(found.optional()?)
}

/// Saves the cursor that a row of fires has left.
pub fn move_cursor(db: &Db, change: &TickChange, cursor: &str) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET cursor = :cursor WHERE row = :row AND cursor_set = :cursor_set";
    let params =
        named_params! { ":row": change.schedule.0, ":cursor": cursor, ":cursor_set": change.cursor_set };
    db.prepare_cached(SQL)?.execute(params)?;
    Ok(())
}

/// Asks for a poll of a trigger that is switched on; who has it and how often that has been done, or none if no living owner but `besides` has or
/// declares it.
pub fn ask_poll(
    db: &Db,
    row: ScheduleKey,
    besides: Option<Epoch>,
) -> Result<Option<(Option<Epoch>, i64)>, Failure> {
    // Primary keys.
    const SQL: &str = "
        UPDATE schedules SET asked = asked + 1
        WHERE row = :row AND kind = 'trigger' AND enabled AND EXISTS (
            SELECT 1 FROM owners WHERE left_at IS NULL AND epoch <> :besides AND (
                epoch = schedules.owner
                OR EXISTS (SELECT 1 FROM declared WHERE declared.name = schedules.name AND declared.owner = epoch)))
        RETURNING owner, asked";
    let params = named_params! { ":row": row.0, ":besides": besides.map_or(0, |epoch| epoch.0) };
    let asked = db
        .prepare_cached(SQL)?
        .query_row(params, |row| Ok((row.get::<_, Option<i64>>(0)?.map(Epoch), row.get(1)?)));
    Ok(asked.optional()?)
}

/// Notes that a poll of a trigger of `epoch` is about to begin, by which others are answered or which may end its process; false if it is not its.
pub fn begin_poll(db: &Db, epoch: Epoch, beginning: Beginning) -> Result<bool, Failure> {
    const SQL: &str = "
        UPDATE schedules SET answered = CASE WHEN answered < :answers THEN :answers ELSE answered END,
            called_by = CASE WHEN :is_call THEN owner ELSE called_by END
        WHERE row = :row AND owner = :epoch";
    let params = named_params! {
        ":row": beginning.row.0,
        ":epoch": epoch.0,
        ":answers": beginning.answers.unwrap_or(0),
        ":is_call": beginning.is_call,
    };
    Ok(db.prepare_cached(SQL)?.execute(params)? == 1)
}

/// No call of `epoch` about an end of a run is under way any more.
pub fn end_calls(db: &Db, epoch: Epoch) -> Result<(), Failure> {
    // Index schedules_called.
    const SQL: &str = "UPDATE schedules SET called_by = NULL WHERE called_by IS NOT NULL AND owner = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": epoch.0 })?;
    Ok(())
}

/// Whether a schedule, or what else its name is or was, has another cursor.
pub fn would_set_cursor(db: &Db, row: ScheduleKey, cursor: Option<&str>) -> Result<bool, Failure> {
    // Primary key; indices schedules_trigger, schedules_cron_name.
    const SQL: &str = concat!(
        "SELECT 1 FROM schedules WHERE cursor IS DISTINCT FROM :cursor AND (row = :row OR row IN (",
        twins!(),
        "))"
    );
    Ok(db.prepare_cached(SQL)?.exists(named_params! { ":row": row.0, ":cursor": cursor })?)
}

/// Sets a cursor, also for what else the name is or was; how often that has been done now, none if there is no such row.
pub fn set_cursor(db: &Db, row: ScheduleKey, cursor: Option<&str>) -> Result<Option<i64>, Failure> {
    const SQL: &str = "
        UPDATE schedules SET cursor = :cursor, cursor_set = cursor_set + 1 WHERE row = :row RETURNING cursor_set";
    // Primary key; indices schedules_trigger, schedules_cron_name.
    const TWIN: &str = concat!(
        "UPDATE schedules SET cursor = :cursor, cursor_set = cursor_set + 1 WHERE row IN (",
        twins!(),
        ")"
    );
    let params = named_params! { ":row": row.0, ":cursor": cursor };
    db.prepare_cached(TWIN)?.execute(params)?;
    Ok(db.prepare_cached(SQL)?.query_row(params, |row| row.get(0)).optional()?)
}
