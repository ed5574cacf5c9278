//! Hands runs to an owner: those that a dead one left, and a final one that is to be driven again. Invariant: after it,
//! only that owner's changes are taken.
//! Longer than a room should be: all that hands out a run sets the same columns.

use std::cmp::Reverse;
use std::sync::Arc;

use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{ContextHash, Spent, Unfinished};
use cloaca_core::time::Wall;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, ToSql, named_params};
use uuid::Uuid;

use crate::sqlite::audit;
use crate::sqlite::end;
use crate::sqlite::fault::Failure;
use crate::sqlite::limits;
use crate::sqlite::owner::{self, owner_is_dead};
use crate::sqlite::run::{again, child, line, overdue, tasks, unguarded};
use crate::sqlite::seat;
use crate::sqlite::value::{count_at, hash_at, id_at, priority_at, signed, wall_at, wall_maybe_at};

/// What [`unfinished_of`] reads. A hash that does not guard is left out.
macro_rules! columns {
    () => {
        "row, id, workflow, version, schedule, CASE WHEN unique_hash THEN context_hash END, waits, created_at,
         interruptions, owner_before, context, cancelled, mixed, priority, due_at, parent_task IS NOT NULL,
         limited, timed_at, time_left, trace, turn IS NOT NULL"
    };
}

/// What becomes of a run that nobody drives when somebody asks for its end, at `:at`.
macro_rules! cancelled {
    () => {
        "status = 'Cancelled', error = 'cancelled', error_type = '', final_context = context, completed_at = :at"
    };
}

/// Which runs a claim hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// All.
    Any,
    /// Not those that have begun in a version that other living owners declare, and the claimer does not.
    Fitting,
    /// Only those that waited for their time and have not begun.
    Due,
}

/// In the order of its index.
const UNOWNED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM runs INDEXED BY runs_unowned
    WHERE completed_at IS NULL AND not_before IS NULL AND owner IS NULL AND workflow = :workflow
        AND (NOT :due OR due_at IS NOT NULL AND owner_before IS NULL AND started_at IS NULL)
        AND (NOT :paused OR started_at IS NOT NULL OR interruptions > 0 OR cancelled)
        AND (NOT :fitting OR NOT EXISTS (SELECT 1 FROM tasks WHERE run = runs.row)
            OR EXISTS (SELECT 1 FROM workflows AS own
                WHERE own.name = runs.workflow AND own.owner = :epoch AND own.version = runs.version)
            OR NOT EXISTS (SELECT 1 FROM workflows AS other JOIN owners ON epoch = other.owner AND left_at IS NULL
                WHERE other.name = runs.workflow AND other.owner <> :epoch AND other.version = runs.version))
    ORDER BY priority DESC, row LIMIT :limit"
);
/// Asked for while the clock was ahead: a wait of so long from then ends later than one of so long from now.
macro_rules! ahead {
    () => {
        "FROM runs INDEXED BY runs_spans
        WHERE completed_at IS NULL AND delay_us IS NOT NULL AND not_before < 9223372036854775807 AND not_before - delay_us > :at"
    };
}
const AHEAD: &str = concat!("SELECT row ", ahead!(), " LIMIT 1");
const CUT_AHEAD: &str = concat!(
    "UPDATE runs SET not_before = :at + delay_us, due_at = :at + delay_us WHERE row IN (SELECT row ",
    ahead!(),
    ")"
);
const DUE: &str = "
    SELECT row, limited FROM runs INDEXED BY runs_unfinished
    WHERE completed_at IS NULL AND not_before <= :at ORDER BY not_before LIMIT :limit";
const FREE: &str = "UPDATE runs SET not_before = NULL WHERE row = :row";
/// What limits hold waits until the end of time.
const NEXT_DUE: &str = "
    SELECT not_before FROM runs INDEXED BY runs_unfinished
    WHERE completed_at IS NULL AND not_before < 9223372036854775807 ORDER BY not_before LIMIT 1";

/// Statements with what their plan must name: each costs what it finds, however many runs there are beside.
#[cfg(test)]
pub const PLANS: [(&str, &str); 4] = [
    (AHEAD, "USING INDEX runs_spans (<expr>>?)"),
    (UNOWNED, "USING INDEX runs_unowned (workflow=?)"),
    (DUE, "USING INDEX runs_unfinished (not_before<?)"),
    (NEXT_DUE, "USING INDEX runs_unfinished (not_before<?)"),
];

/// So many runs are freed at once of those whose time has come: more than a claim takes, and few enough to hold nobody up.
const DUE_MAX: u64 = 1000;

/// Hands runs that are nobody's, and due at `at`, to `epoch`: the most urgent first, and of one priority the oldest.
pub fn claim(
    db: &Connection,
    epoch: Epoch,
    at: Wall,
    limit: u64,
    workflows: &[Arc<str>],
    taking: Taking,
) -> Result<Vec<Unfinished>, Failure> {
    free_due(db, epoch, at)?;
    let paused = seat::paused_workflows(db, at)?;
    let mut found = Vec::new();
    for workflow in workflows {
        let is_paused = paused.contains(workflow);
        found.extend(unowned(db, epoch, limit, workflow, taking, is_paused)?);
    }
    found.sort_by_key(|run| (Reverse(run.priority), run.row));
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    hand_out(db, epoch, &mut found, at)?;
    Ok(found)
}

/// A run that limits have held and let go now.
pub fn to_hand_out(db: &Connection, row: RunRow) -> Result<Unfinished, Failure> {
    const SELECT: &str = concat!("SELECT ", columns!(), " FROM runs WHERE row = :row");
    Ok(db.prepare_cached(SELECT)?.query_row(named_params! { ":row": row.0 }, unfinished_of)?)
}

/// From here on they are those of `epoch`, go on in the version that it declares, and wait for nothing. Those handed out say in which they were before.
pub fn hand_out(db: &Connection, epoch: Epoch, found: &mut [Unfinished], at: Wall) -> Result<(), Failure> {
    const VERSION: &str = "SELECT version FROM workflows WHERE name = :name AND owner = :epoch";
    const UPDATE: &str = "
        UPDATE runs
        SET owner = :epoch, owner_before = NULL, not_before = NULL,
            version = coalesce((SELECT version FROM workflows WHERE name = runs.workflow AND owner = :epoch), :version),
            mixed = mixed OR EXISTS (
                SELECT 1 FROM workflows WHERE name = runs.workflow AND owner = :epoch AND version <> :version)
        WHERE row = :row";
    let mut update = db.prepare_cached(UPDATE)?;
    for run in found.iter_mut() {
        run.tasks = tasks(db, run.row)?;
        if let Some(Spent { since, left_us, .. }) = run.spent {
            let seen_at = run.owner_before.map_or(Ok(None), |dead| owner::seen_at(db, dead))?;
            run.spent = Some(Spent::of(since, left_us, &run.tasks, tried_at(db, run.row)?, seen_at, at));
        }
        // Who died may have begun one that is not on record, under the version that it declared.
        if run.tasks.is_empty() && run.interruptions == 0 {
            let params = named_params! { ":name": run.workflow, ":epoch": epoch.0 };
            let declared = db.prepare_cached(VERSION)?.query_row(params, |row| row.get(0)).optional()?;
            run.version = declared.unwrap_or_else(|| std::mem::take(&mut run.version));
        }
        update.execute(named_params! { ":row": run.row.0, ":epoch": epoch.0, ":version": run.version })?;
    }
    line::stand_behind(db, epoch, found)
}

/// When the last attempt of a run ended that did not complete its task at once.
fn tried_at(db: &Connection, run: RunRow) -> Result<Option<Wall>, Failure> {
    // Index tries_task.
    const SQL: &str = "SELECT max(ended_at) FROM tries WHERE run = :run";
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":run": run.0 }, |row| wall_maybe_at(row, 0))?)
}

/// Of one workflow, as many as could be handed out.
fn unowned(
    db: &Connection,
    epoch: Epoch,
    limit: u64,
    workflow: &str,
    taking: Taking,
    is_paused: bool,
) -> Result<Vec<Unfinished>, Failure> {
    let mut select = db.prepare_cached(UNOWNED)?;
    let params = named_params! {
        ":epoch": epoch.0,
        ":workflow": workflow,
        ":limit": signed(limit),
        ":fitting": taking == Taking::Fitting,
        ":due": taking == Taking::Due,
        ":paused": is_paused,
    };
    let found = select.query_map(params, unfinished_of)?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// Of the runs whose time has come, those wait no longer that were due first. None waits for longer than it was to.
fn free_due(db: &Connection, epoch: Epoch, at: Wall) -> Result<(), Failure> {
    if db.prepare_cached(AHEAD)?.exists(named_params! { ":at": at.0 })? && !owner::is_behind(db, epoch, at)? {
        db.prepare_cached(CUT_AHEAD)?.execute(named_params! { ":at": at.0 })?;
    }
    let params = named_params! { ":at": at.0, ":limit": signed(DUE_MAX) };
    let mut due = db.prepare_cached(DUE)?;
    let rows = due.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows = rows.collect::<rusqlite::Result<Vec<(i64, bool)>>>()?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut free = db.prepare_cached(FREE)?;
    for (row, is_limited) in rows {
        if !is_limited || !limits::due(db, RunRow(row))? {
            free.execute(named_params! { ":row": row })?;
        }
    }
    Ok(())
}

/// When the next run is due that waits for its time.
pub fn next_due(db: &Connection) -> Result<Option<Wall>, Failure> {
    Ok(db.prepare_cached(NEXT_DUE)?.query_row([], |row| wall_at(row, 0)).optional()?)
}

/// Leaves runs of which nothing has begun to whoever claims them.
pub fn release(db: &Connection, epoch: Epoch, runs: &[RunRow]) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE runs SET owner = NULL WHERE row = :row AND owner = :epoch AND completed_at IS NULL";
    let mut update = db.prepare_cached(SQL)?;
    let is_limited = limits::is_any(db)?;
    for run in runs {
        if update.execute(named_params! { ":row": run.0, ":epoch": epoch.0 })? > 0 && is_limited {
            limits::unseat(db, *run)?;
        }
    }
    Ok(())
}

/// Leaves the unfinished runs of an owner that died to whoever claims them, each with one interruption more.
pub fn free(db: &Connection, dead: Epoch) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE runs INDEXED BY runs_unfinished
        SET owner = NULL, owner_before = :epoch, interruptions = interruptions + 1
        WHERE completed_at IS NULL AND not_before IS NULL AND owner = :epoch";
    let unbegun = limits::unbegun(db, dead.0)?;
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": dead.0 })?;
    unbegun.into_iter().try_for_each(|row| limits::unseat(db, row))
}

/// Whose runs nobody claims while no living owner declares them.
pub fn deserted(db: &Connection, limit: u64) -> Result<Vec<(String, u64)>, Failure> {
    // Of what may be claimed only the index is read.
    const SQL: &str = "
        SELECT workflow, count(*) FROM runs INDEXED BY runs_unowned
        WHERE completed_at IS NULL AND not_before IS NULL AND owner IS NULL
        GROUP BY workflow ORDER BY workflow LIMIT :limit";
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement
        .query_map(named_params! { ":limit": signed(limit) }, |row| Ok((row.get(0)?, count_at(row, 1)?)))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// Leaves the unfinished runs of `epoch` to whoever claims them, except those `kept`, which pass to `remnant`, and ends those that somebody
/// asked to end. Without an owner they count no interruption.
pub fn give_up(
    db: &Connection,
    epoch: Epoch,
    kept: &[Uuid],
    remnant: Option<Epoch>,
    at: Wall,
) -> Result<(), Failure> {
    const FREE: &str = "
        UPDATE runs INDEXED BY runs_unfinished
        SET owner = CASE WHEN id IN (SELECT value FROM json_each(:kept)) THEN :remnant END
        WHERE completed_at IS NULL AND not_before IS NULL AND owner = :epoch";
    const END: &str = concat!(
        "UPDATE runs INDEXED BY runs_unfinished SET ",
        cancelled!(),
        " WHERE completed_at IS NULL AND not_before IS NULL AND owner IS NULL AND cancelled RETURNING row"
    );
    const IS_FREE: &str = "SELECT 1 FROM runs WHERE row = :row AND owner IS NULL AND completed_at IS NULL";
    let unbegun = limits::unbegun(db, epoch.0)?;
    let kept: Vec<Arc<str>> = kept.iter().map(|id| id.to_string().into()).collect();
    let params = named_params! { ":epoch": epoch.0, ":kept": json_texts(&kept), ":remnant": remnant.map(|epoch| epoch.0) };
    db.prepare_cached(FREE)?.execute(params)?;
    end_all(db, END, named_params! { ":at": at.0 })?;
    for row in unbegun {
        if db.prepare_cached(IS_FREE)?.exists(named_params! { ":row": row.0 })? {
            limits::unseat(db, row)?;
        }
    }
    Ok(())
}

/// Ends runs by a statement that returns their rows.
fn end_all(db: &Connection, sql: &str, params: &[(&str, &dyn ToSql)]) -> Result<(), Failure> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params, |row| row.get(0).map(RunRow))?;
    let rows = rows.collect::<rusqlite::Result<Vec<RunRow>>>()?;
    rows.into_iter().try_for_each(|row| limits::over_if_final(db, row))
}

/// Those of these runs that are final, or forgotten.
pub fn ended(db: &Connection, runs: &[Uuid]) -> Result<Vec<Uuid>, Failure> {
    // Index runs_id.
    const SQL: &str = "SELECT 1 FROM runs WHERE id = :id AND completed_at IS NULL";
    let mut statement = db.prepare_cached(SQL)?;
    let mut ended = Vec::new();
    for run in runs {
        let mut buffer = Uuid::encode_buffer();
        let id = &*run.hyphenated().encode_lower(&mut buffer);
        if !statement.exists(named_params! { ":id": id })? {
            ended.push(*run);
        }
    }
    Ok(ended)
}

/// Opens a final run that did not complete again, for `epoch`; none if there is no such run. Before whom it has to wait [`line::stand_behind`] tells.
pub fn reopen(
    db: &Connection,
    epoch: Epoch,
    id: Uuid,
    is_dead: impl Fn(Epoch) -> bool,
) -> Result<Option<Unfinished>, Failure> {
    const SELECT: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM runs WHERE id = :id AND completed_at IS NOT NULL AND status <> 'Completed'"
    );
    let params = named_params! { ":id": id.to_string() };
    let found = db.prepare_cached(SELECT)?.query_row(params, unfinished_of).optional()?;
    let Some(mut run) = found else { return Ok(None) };
    // An owner whose lock is free is dead, whether or not it is buried.
    overdue::refuse(db, run.row, |owner| owner != epoch && is_dead(owner))?;
    run.context_hash = guard(db, run.row)?;
    end::keep(db, run.row)?;
    open_again(db, epoch, &run)?;
    let waits = line::enter(db, run.row, run.schedule)?;
    (run.is_again, run.waits) = (waits.is_some(), waits.unwrap_or(run.waits));
    end::withdraw(db, run.row)?;
    if run.is_limited || limits::is_any(db)? {
        run.is_held = limits::reenter(db, &run)?;
        run.is_limited = true;
    }
    run.cancelled = false;
    (run.interruptions, run.spent) = (0, None);
    run.tasks = again::undecide(db, run.row, tasks(db, run.row)?)?;
    audit::note(db, "retry", &id.to_string())?;
    Ok(Some(run))
}

/// Notes that somebody asked for the ends of a run and of its unfinished children, and theirs, and ends those that nobody drives. All of
/// them, the run itself first; none if it is unknown or final.
pub fn request_cancel(db: &Connection, epoch: Epoch, id: Uuid, at: Wall) -> Result<Vec<Uuid>, Failure> {
    let text = id.to_string();
    let mut is_new = would_ask(db, &text)?;
    if !ask(db, &text)? {
        return Ok(Vec::new());
    }
    let mut asked = vec![id];
    // Before it ends itself, so that there is one moment at which all of them are asked.
    for child in child::family(db, &text)? {
        let child_text = child.to_string();
        is_new |= would_ask(db, &child_text)?;
        ask(db, &child_text)?;
        end_if_free(db, epoch, &child_text, at)?;
        asked.push(child);
    }
    end_if_free(db, epoch, &text, at)?;
    if is_new {
        audit::note(db, "cancel", &text)?;
    }
    Ok(asked)
}

/// Whether nobody has asked for the end of that run, which is not final.
fn would_ask(db: &Connection, id: &str) -> Result<bool, Failure> {
    const SQL: &str = "SELECT 1 FROM runs WHERE id = :id AND completed_at IS NULL AND NOT cancelled";
    Ok(db.prepare_cached(SQL)?.exists(named_params! { ":id": id })?)
}

/// Notes that somebody asked for a run's end; false if it is unknown or final.
pub(super) fn ask(db: &Connection, id: &str) -> Result<bool, Failure> {
    const SQL: &str = "UPDATE runs SET cancelled = 1 WHERE id = :id AND completed_at IS NULL";
    Ok(db.prepare_cached(SQL)?.execute(named_params! { ":id": id })? > 0)
}

/// Ends a run that nobody drives.
pub(super) fn end_if_free(db: &Connection, epoch: Epoch, id: &str, at: Wall) -> Result<(), Failure> {
    const SQL: &str = concat!(
        "UPDATE runs SET ",
        cancelled!(),
        " WHERE id = :id AND completed_at IS NULL AND ",
        owner_is_dead!(),
        " RETURNING row"
    );
    end_all(db, SQL, named_params! { ":id": id, ":epoch": epoch.0, ":at": at.0 })
}

/// Ends what was to end and what nobody goes on with.
pub fn end_deserted(db: &Connection, epoch: Epoch, at: Wall) -> Result<(), Failure> {
    const SQL: &str = concat!(
        "UPDATE runs INDEXED BY runs_unfinished SET ",
        cancelled!(),
        " WHERE completed_at IS NULL AND not_before IS NULL AND cancelled AND ",
        owner_is_dead!(),
        " AND workflow NOT IN (SELECT name FROM workflows JOIN owners ON epoch = owner WHERE left_at IS NULL)
        RETURNING row"
    );
    end_all(db, SQL, named_params! { ":epoch": epoch.0, ":at": at.0 })
}

/// Names as a JSON array, which SQLite takes as one parameter.
fn json_texts(texts: &[Arc<str>]) -> String {
    let mut json = String::from("[");
    for (place, text) in texts.iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        json.push('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => json.extend(['\\', character]),
                control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
                other => json.push(other),
            }
        }
        json.push('"');
    }
    json.push(']');
    json
}

/// Unfinished runs of `epoch` whose end somebody asked for.
pub fn cancel_requests(db: &Connection, epoch: Epoch) -> Result<Vec<Uuid>, Failure> {
    // Index runs_unfinished holds the few runs that are not final.
    const SQL: &str = "
        SELECT id FROM runs INDEXED BY runs_unfinished
        WHERE completed_at IS NULL AND not_before IS NULL AND cancelled AND owner = :epoch ORDER BY row";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":epoch": epoch.0 }, |row| id_at(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The hash under which no equal run may be unfinished beside one that is opened again: it was guarded, or its trigger is since.
fn guard(db: &Connection, row: RunRow) -> Result<Option<ContextHash>, Failure> {
    const SQL: &str = "
        SELECT CASE WHEN unique_hash OR schedules.allow_concurrent = 0 THEN context_hash END
        FROM runs LEFT JOIN schedules ON schedules.row = runs.schedule WHERE runs.row = :row";
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":row": row.0 }, |row| hash_at(row, 0))?)
}

/// Nothing of it is in flight, in whatever version.
fn open_again(db: &Connection, epoch: Epoch, run: &Unfinished) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE runs
        SET status = 'Pending', owner = :epoch, owner_before = NULL, not_before = NULL, cancelled = 0, interruptions = 0, reopened = reopened + 1, completed_at = NULL,
            lay_since = coalesce(lay_since, completed_at),
            final_context = NULL, error = NULL, error_type = NULL, timed_at = NULL, time_left = NULL, unique_hash = :unique_hash,
            end_number = NULL, mixed = 0,
            version = coalesce((SELECT version FROM workflows WHERE name = runs.workflow AND owner = :epoch), version)
        WHERE row = :row";
    let refusal = || {
        Failure::Refused(format!(
            "run {} cannot be opened again while an equal run of its trigger is unfinished; \
             wait for that one or cancel it",
            run.id
        ))
    };
    if let Some(hash) = run.context_hash
        && unguarded(db, run.schedule, hash)?.is_some()
    {
        return Err(refusal());
    }
    let is_guarded = run.context_hash.is_some();
    let params = named_params! { ":row": run.row.0, ":epoch": epoch.0, ":unique_hash": is_guarded };
    match db.prepare_cached(SQL)?.execute(params) {
        Ok(_) => Ok(()),
        // Index runs_hash is the only unique one that covers what changes here.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Err(refusal()),
        Err(error) => Err(error.into()),
    }
}

fn unfinished_of(row: &Row<'_>) -> rusqlite::Result<Unfinished> {
    Ok(Unfinished {
        row: RunRow(row.get(0)?),
        id: id_at(row, 1)?,
        workflow: row.get(2)?,
        version: row.get(3)?,
        schedule: row.get::<_, Option<i64>>(4)?.map(ScheduleKey),
        context_hash: hash_at(row, 5)?,
        waits: row.get(6)?,
        is_again: row.get(20)?,
        created_at: wall_at(row, 7)?,
        interruptions: row.get(8)?,
        owner_before: row.get::<_, Option<i64>>(9)?.map(Epoch),
        cancelled: row.get(11)?,
        is_mixed: row.get(12)?,
        priority: priority_at(row, 13)?,
        due_at: wall_maybe_at(row, 14)?,
        is_child: row.get(15)?,
        is_limited: row.get(16)?,
        is_held: false,
        trace: row.get(19)?,
        spent: wall_maybe_at(row, 17)?.map(|since| Spent {
            since,
            left_us: row.get(18).ok().flatten(),
            until: since,
        }),
        context: row.get(10)?,
        tasks: Vec::new(),
        behind: Vec::new(),
    })
}
