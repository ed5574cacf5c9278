//! Hands runs to an owner: those that a dead one left, and a final one that is to be driven again. Invariant: after it,
//! only that owner's changes are taken.
//! Longer than a room should be: all that hands out a run sets the same columns.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::postgres::db::{self, Db, OptionalExtension as _, Row, ToParam, named_params};
use cloaca_core::key::{EndKey, Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{ContextHash, Spent, Unfinished};
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::postgres::audit;
use crate::postgres::end;
use crate::postgres::fault::Failure;
use crate::postgres::limits;
use crate::postgres::owner::{self, owner_is_dead};
use crate::postgres::run::{again, child, guarded, line, overdue, tasks, tasks_of, unguarded};
use crate::postgres::seat;
use crate::postgres::value::{count_at, hash_at, id_at, priority_at, signed, wall_at, wall_maybe_at};

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
    /// Only those that waited for their time, or came without a version, and have not begun: nobody had them.
    Due,
}

/// In the order of its index.
const UNOWNED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM runs
    WHERE completed_at IS NULL AND not_before IS NULL AND owner IS NULL AND workflow = :workflow
        AND (NOT :due OR (due_at IS NOT NULL OR version = '') AND owner_before IS NULL AND started_at IS NULL)
        AND (NOT :paused OR started_at IS NOT NULL OR interruptions > 0 OR cancelled)
        AND (NOT :fitting OR NOT EXISTS (SELECT 1 FROM tasks WHERE run = runs.row)
            OR EXISTS (SELECT 1 FROM workflows AS own
                WHERE own.name = runs.workflow AND own.owner = :epoch AND own.version = runs.version)
            OR NOT EXISTS (SELECT 1 FROM workflows AS others JOIN owners ON epoch = others.owner AND left_at IS NULL
                WHERE others.name = runs.workflow AND others.owner <> :epoch AND others.version = runs.version))
    ORDER BY priority DESC, row LIMIT :limit"
);
/// A wait of so long from when it was asked for that ends later than so long from now was asked for while the clock was ahead, unless somebody who
/// lives has said later that he does: then it is this clock that is behind.
const CUT_AHEAD: &str = "
    UPDATE runs SET not_before = :at + delay_us, due_at = :at + delay_us
    WHERE completed_at IS NULL AND delay_us IS NOT NULL AND not_before < 9223372036854775807 AND not_before - delay_us > :at
        AND NOT EXISTS (SELECT 1 FROM owners WHERE left_at IS NULL AND epoch <> :epoch AND coalesce(seen_at, joined_at) > :at + 1000000)";
const DUE: &str = "
    SELECT row, limited FROM runs
    WHERE completed_at IS NULL AND not_before <= :at ORDER BY not_before LIMIT :limit";
const FREE: &str = "UPDATE runs SET not_before = NULL WHERE row = ANY(:rows::BIGINT[])";
/// What limits hold waits until the end of time.
const NEXT_DUE: &str = "
    SELECT not_before FROM runs
    WHERE completed_at IS NULL AND not_before < 9223372036854775807 ORDER BY not_before LIMIT 1";

/// So many runs are freed at once of those whose time has come: more than a claim takes, and few enough to hold nobody up.
const DUE_MAX: u64 = 1000;

/// Hands runs that are nobody's, and due at `at`, to `epoch`: the most urgent first, and of one priority the oldest.
pub fn claim(
    db: &Db,
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
pub fn to_hand_out(db: &Db, row: RunRow) -> Result<Unfinished, Failure> {
    const SELECT: &str = concat!("SELECT ", columns!(), " FROM runs WHERE row = :row");
    Ok(db.prepare_cached(SELECT)?.query_row(named_params! { ":row": row.0 }, unfinished_of)?)
}

/// From here on they are those of `epoch`, and wait for nothing.
pub fn hand_out(db: &Db, epoch: Epoch, found: &mut [Unfinished], at: Wall) -> Result<(), Failure> {
    const UPDATE: &str = "
        UPDATE runs
        SET owner = :epoch, owner_before = NULL, not_before = NULL,
            version = coalesce(
                (SELECT workflows.version FROM workflows WHERE name = runs.workflow AND workflows.owner = :epoch), handed.version),
            mixed = mixed OR EXISTS (
                SELECT 1 FROM workflows WHERE name = runs.workflow AND workflows.owner = :epoch AND workflows.version <> handed.version)
        FROM unnest(:rows::BIGINT[], :versions::TEXT[]) AS handed (row, version) WHERE runs.row = handed.row";
    if found.is_empty() {
        return Ok(());
    }
    let rows: Vec<i64> = found.iter().map(|run| run.row.0).collect();
    let (mut tasks, tried, declared) = (tasks_of(db, &rows)?, tried_at(db, &rows)?, declared_by(db, epoch)?);
    let seen = owner::seen_at(db, found.iter().filter_map(|run| run.owner_before))?;
    for run in found.iter_mut() {
        run.tasks = tasks.remove(&run.row.0).unwrap_or_default();
        if let Some(Spent { since, left_us, .. }) = run.spent {
            let seen_at = run.owner_before.and_then(|dead| seen.get(&dead).copied());
            let tried_at = tried.get(&run.row.0).copied();
            run.spent = Some(Spent::of(since, left_us, &run.tasks, tried_at, seen_at, at));
        }
        // Who died may have begun one that is not on record, under the version that it declared.
        if run.tasks.is_empty()
            && run.interruptions == 0
            && let Some(version) = declared.get(&run.workflow)
        {
            run.version.clone_from(version);
        }
    }
    let versions: Vec<&str> = found.iter().map(|run| &*run.version).collect();
    let params = named_params! { ":epoch": epoch.0, ":rows": rows, ":versions": versions };
    db.prepare_cached(UPDATE)?.execute(params)?;
    line::stand_behind(db, epoch, found)
}

/// The versions of the workflows that an owner declares.
fn declared_by(db: &Db, epoch: Epoch) -> Result<HashMap<String, String>, Failure> {
    const SQL: &str = "SELECT name, version FROM workflows WHERE owner = :epoch";
    let mut statement = db.prepare_cached(SQL)?;
    let found =
        statement.query_map(named_params! { ":epoch": epoch.0 }, |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// When the last attempts of runs ended that did not complete their tasks at once.
fn tried_at(db: &Db, runs: &[i64]) -> Result<HashMap<i64, Wall>, Failure> {
    // Index tries_task.
    const SQL: &str = "SELECT run, max(ended_at) FROM tries WHERE run = ANY(:runs::BIGINT[]) GROUP BY run";
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement
        .query_map(named_params! { ":runs": runs.to_vec() }, |row| Ok((row.get(0)?, wall_at(row, 1)?)))?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// Of one workflow, as many as could be handed out.
fn unowned(
    db: &Db,
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
    Ok(found.collect::<db::Result<_>>()?)
}

/// Of the runs whose time has come, those wait no longer that were due first. None waits for longer than it was to.
fn free_due(db: &Db, epoch: Epoch, at: Wall) -> Result<(), Failure> {
    db.prepare_cached(CUT_AHEAD)?.execute(named_params! { ":epoch": epoch.0, ":at": at.0 })?;
    let params = named_params! { ":at": at.0, ":limit": signed(DUE_MAX) };
    let mut due = db.prepare_cached(DUE)?;
    let rows = due.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows = rows.collect::<db::Result<Vec<(i64, bool)>>>()?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut free = Vec::with_capacity(rows.len());
    for (row, is_limited) in rows {
        if !is_limited || !limits::due(db, RunRow(row))? {
            free.push(row);
        }
    }
    db.prepare_cached(FREE)?.execute(named_params! { ":rows": free })?;
    Ok(())
}

/// When the next run is due that waits for its time.
pub fn next_due(db: &Db) -> Result<Option<Wall>, Failure> {
    Ok(db.prepare_cached(NEXT_DUE)?.query_row([], |row| wall_at(row, 0)).optional()?)
}

/// Leaves runs of which nothing has begun to whoever claims them.
pub fn release(db: &Db, epoch: Epoch, runs: &[RunRow]) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE runs SET owner = NULL WHERE row = ANY(:rows::BIGINT[]) AND owner = :epoch AND completed_at IS NULL RETURNING row";
    let rows: Vec<i64> = runs.iter().map(|run| run.0).collect();
    let mut statement = db.prepare_cached(SQL)?;
    let freed = statement
        .query_map(named_params! { ":rows": rows, ":epoch": epoch.0 }, |row| row.get(0).map(RunRow))?;
    let freed = freed.collect::<db::Result<Vec<RunRow>>>()?;
    match limits::is_any(db)? {
        true => freed.into_iter().try_for_each(|run| limits::unseat(db, run)),
        false => Ok(()),
    }
}

/// The same of ends, which count no call.
pub fn release_ends(db: &Db, epoch: Epoch, ends: &[EndKey]) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE ends SET owner = NULL, begun_at = NULL, tries = tries - 1
        WHERE row = ANY(:rows::BIGINT[]) AND owner = :epoch";
    let rows: Vec<i64> = ends.iter().map(|end| end.0).collect();
    db.prepare_cached(SQL)?.execute(named_params! { ":rows": rows, ":epoch": epoch.0 })?;
    Ok(())
}

/// Leaves the unfinished runs of an owner that died to whoever claims them, each with one interruption more.
pub fn free(db: &Db, dead: Epoch) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE runs
        SET owner = NULL, owner_before = :epoch, interruptions = interruptions + 1
        WHERE completed_at IS NULL AND not_before IS NULL AND owner = :epoch";
    let unbegun = limits::unbegun(db, dead.0)?;
    db.prepare_cached(SQL)?.execute(named_params! { ":epoch": dead.0 })?;
    unbegun.into_iter().try_for_each(|row| limits::unseat(db, row))
}

/// Whose runs nobody claims while no living owner declares them.
pub fn deserted(db: &Db, limit: u64) -> Result<Vec<(String, u64)>, Failure> {
    // Of what may be claimed only the index is read.
    const SQL: &str = "
        SELECT workflow, count(*) FROM runs
        WHERE completed_at IS NULL AND not_before IS NULL AND owner IS NULL
        GROUP BY workflow ORDER BY workflow LIMIT :limit";
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement
        .query_map(named_params! { ":limit": signed(limit) }, |row| Ok((row.get(0)?, count_at(row, 1)?)))?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// Leaves the unfinished runs of `epoch` to whoever claims them, except those `kept`, which pass to `remnant`, and ends those that somebody
/// asked to end. Without an owner they count no interruption.
pub fn give_up(
    db: &Db,
    epoch: Epoch,
    kept: &[Uuid],
    remnant: Option<Epoch>,
    at: Wall,
) -> Result<(), Failure> {
    const FREE: &str = "
        UPDATE runs
        SET owner = CASE WHEN id = ANY(:kept) THEN :remnant::BIGINT END
        WHERE completed_at IS NULL AND not_before IS NULL AND owner = :epoch";
    const END: &str = concat!(
        "UPDATE runs SET ",
        cancelled!(),
        " WHERE completed_at IS NULL AND not_before IS NULL AND owner IS NULL AND cancelled RETURNING row"
    );
    const IS_FREE: &str = "SELECT 1 FROM runs WHERE row = :row AND owner IS NULL AND completed_at IS NULL";
    let unbegun = limits::unbegun(db, epoch.0)?;
    let params =
        named_params! { ":epoch": epoch.0, ":kept": kept.to_vec(), ":remnant": remnant.map(|epoch| epoch.0) };
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
fn end_all(db: &Db, sql: &str, params: &[(&str, &dyn ToParam)]) -> Result<(), Failure> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params, |row| row.get(0).map(RunRow))?;
    let rows = rows.collect::<db::Result<Vec<RunRow>>>()?;
    rows.into_iter().try_for_each(|row| limits::over_if_final(db, row))
}

/// Those of these runs that are final, or forgotten.
pub fn ended(db: &Db, runs: &[Uuid]) -> Result<Vec<Uuid>, Failure> {
    // Index runs_id.
    const SQL: &str = "
        SELECT asked.id FROM unnest(:ids::UUID[]) WITH ORDINALITY AS asked (id, place)
        LEFT JOIN runs ON runs.id = asked.id AND completed_at IS NULL
        WHERE runs.row IS NULL ORDER BY place";
    let found =
        db.prepare_cached(SQL)?.query_map(named_params! { ":ids": runs.to_vec() }, |row| id_at(row, 0))?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// Opens a final run that did not complete again, for `epoch`; none if there is no such run. Before whom it has to wait [`line::stand_behind`] tells.
pub fn reopen(
    db: &Db,
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
pub fn request_cancel(db: &Db, epoch: Epoch, id: Uuid, at: Wall) -> Result<Vec<Uuid>, Failure> {
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
fn would_ask(db: &Db, id: &str) -> Result<bool, Failure> {
    const SQL: &str = "SELECT 1 FROM runs WHERE id = :id AND completed_at IS NULL AND NOT cancelled";
    Ok(db.prepare_cached(SQL)?.exists(named_params! { ":id": id })?)
}

/// Notes that somebody asked for a run's end; false if it is unknown or final.
pub(super) fn ask(db: &Db, id: &str) -> Result<bool, Failure> {
    const SQL: &str = "UPDATE runs SET cancelled = TRUE WHERE id = :id AND completed_at IS NULL";
    Ok(db.prepare_cached(SQL)?.execute(named_params! { ":id": id })? > 0)
}

/// Ends a run that nobody drives.
pub(super) fn end_if_free(db: &Db, epoch: Epoch, id: &str, at: Wall) -> Result<(), Failure> {
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
pub fn end_deserted(db: &Db, epoch: Epoch, at: Wall) -> Result<(), Failure> {
    const SQL: &str = concat!(
        "UPDATE runs SET ",
        cancelled!(),
        " WHERE completed_at IS NULL AND not_before IS NULL AND cancelled AND ",
        owner_is_dead!(),
        " AND workflow NOT IN (SELECT name FROM workflows JOIN owners ON epoch = owner WHERE left_at IS NULL)
        RETURNING row"
    );
    end_all(db, SQL, named_params! { ":epoch": epoch.0, ":at": at.0 })
}

/// Unfinished runs of `epoch` whose end somebody asked for.
pub fn cancel_requests(db: &Db, epoch: Epoch) -> Result<Vec<Uuid>, Failure> {
    // Index runs_cancelled: of those that only wait there may be very many.
    const SQL: &str = "
        SELECT id FROM runs
        WHERE completed_at IS NULL AND not_before IS NULL AND cancelled AND owner = :epoch ORDER BY row";
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(named_params! { ":epoch": epoch.0 }, |row| id_at(row, 0))?;
    Ok(rows.collect::<db::Result<_>>()?)
}

/// The hash under which no equal run may be unfinished beside one that is opened again: it was guarded, or its trigger is since.
fn guard(db: &Db, row: RunRow) -> Result<Option<ContextHash>, Failure> {
    const SQL: &str = "
        SELECT CASE WHEN unique_hash OR NOT schedules.allow_concurrent THEN context_hash END
        FROM runs LEFT JOIN schedules ON schedules.row = runs.schedule WHERE runs.row = :row";
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":row": row.0 }, |row| hash_at(row, 0))?)
}

/// Nothing of it is in flight, in whatever version.
fn open_again(db: &Db, epoch: Epoch, run: &Unfinished) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE runs
        SET status = 'Pending', owner = :epoch, owner_before = NULL, not_before = NULL, cancelled = FALSE, interruptions = 0, reopened = reopened + 1, completed_at = NULL,
            lay_since = coalesce(lay_since, completed_at),
            final_context = NULL, error = NULL, error_type = NULL, timed_at = NULL, time_left = NULL, unique_hash = :unique_hash,
            end_number = NULL, mixed = FALSE, version = coalesce(
                (SELECT workflows.version FROM workflows WHERE name = runs.workflow AND workflows.owner = :epoch), version)
        WHERE row = :row";
    let refusal = || {
        Failure::Refused(format!(
            "run {} cannot be opened again while an equal run of its trigger is unfinished; \
             wait for that one or cancel it",
            run.id
        ))
    };
    // Looked for before: what a unique index refuses takes the whole transaction with it.
    if let Some(hash) = run.context_hash
        && (guarded(db, run.schedule, hash)?.is_some() || unguarded(db, run.schedule, hash)?.is_some())
    {
        return Err(refusal());
    }
    let is_guarded = run.context_hash.is_some();
    let params = named_params! { ":row": run.row.0, ":epoch": epoch.0, ":unique_hash": is_guarded };
    db.prepare_cached(SQL)?.execute(params)?;
    Ok(())
}

fn unfinished_of(row: &Row) -> db::Result<Unfinished> {
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
        spent: wall_maybe_at(row, 17)?.map(|since| Spent {
            since,
            left_us: row.get(18).ok().flatten(),
            until: since,
        }),
        context: row.get(10)?,
        trace: row.get(19)?,
        tasks: Vec::new(),
        behind: Vec::new(),
    })
}
