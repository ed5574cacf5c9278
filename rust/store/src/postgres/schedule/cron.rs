//! Rows of crons. Invariant: a name of a cron that is declared or registered, and the workflow, expression and zone of one that was registered
//! without a name, stand in at most one row.

use crate::postgres::db::{Db, OptionalExtension as _, Row, named_params};
use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::past::{Passage, Past};
use cloaca_core::port::{CronMove, Moment, NewCron, Origin, Schedule, ScheduleKind, TriggerState};
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::postgres::fault::Failure;
use crate::postgres::schedule::version::{Version, Versions};
use crate::postgres::schedule::{Stand, columns, one, past, stand_of};
use crate::postgres::value::{failures_at, micros, wall_maybe_at};

/// Saves a cron's next and last moments, unless it was changed since they were decided.
pub fn move_cron(db: &Db, step: &CronMove) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET next_at = :next_at, last_at = coalesce(:last_at, last_at)
        WHERE row = :row AND kind = 'cron' AND updated_at = :seen";
    let params = named_params! {
        ":row": step.row.0,
        ":seen": step.seen.0,
        ":next_at": micros(step.next_at),
        ":last_at": micros(step.last_at),
    };
    let is_moved = db.prepare_cached(SQL)?.execute(params)? == 1;
    match step.decided.filter(|_| is_moved) {
        Some(passage) => past::pass(db, step.row, passage),
        None => Ok(()),
    }
}

/// Whose a moment of a cron is, and what the cron starts; it is the asker's as far as nobody else holds it.
pub fn moment(db: &Db, row: ScheduleKey, seen: Wall, moment: Wall) -> Result<(Moment, String), Failure> {
    // Primary key; index runs_slot.
    const SQL: &str = "
        SELECT row, enabled, cursor, last_fired_at, owner, workflow, next_at, next_at > :moment
            OR EXISTS (SELECT 1 FROM runs WHERE schedule = :row AND scheduled_at = :moment), cursor_set, failures
        FROM schedules WHERE row = :row AND kind = 'cron' AND enabled AND updated_at = :seen";
    let read = |row: &Row| {
        if row.get::<_, Option<bool>>(7)?.unwrap_or(false) {
            return Ok((Moment::Over { next_at: wall_maybe_at(row, 6)? }, String::new()));
        }
        let state = TriggerState {
            row: ScheduleKey(row.get(0)?),
            enabled: row.get(1)?,
            cursor: row.get(2)?,
            cursor_set: row.get(8)?,
            last_fired_at: wall_maybe_at(row, 3)?,
            owner: row.get::<_, Option<i64>>(4)?.map(Epoch),
            unfinished: Vec::new(),
            failures: failures_at(row, 9)?,
            grid: None,
            asked: None,
            has_died: false,
            is_outdated: false,
            is_awaited: false,
        };
        Ok((Moment::Yours(state), row.get(5)?))
    };
    let params = named_params! { ":row": row.0, ":seen": seen.0, ":moment": moment.0 };
    let found = db.prepare_cached(SQL)?.query_row(params, read).optional()?;
    Ok(found.unwrap_or((Moment::Changed, String::new())))
}

/// Notes who decides a cron's moment; nobody if none.
pub fn pass_moment(db: &Db, row: ScheduleKey, from: Option<Epoch>, to: Option<Epoch>) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET owner = :to WHERE row = :row AND kind = 'cron' AND owner IS NOT DISTINCT FROM :from";
    db.prepare_cached(SQL)?.execute(
        named_params! { ":row": row.0, ":from": from.map(|epoch| epoch.0), ":to": to.map(|epoch| epoch.0) },
    )?;
    Ok(())
}

/// The cron that a call registers or a program declares, made if there is none. Of one that is declared in a newer version by another
/// living owner nothing is changed.
pub fn put_cron(db: &Db, epoch: Epoch, cron: &NewCron<'_>) -> Result<Schedule, Failure> {
    let version = match cron.origin {
        Origin::Declared => declare(db, epoch, cron)?,
        Origin::Registered | Origin::OldRelease => Version::default(),
    };
    let known = match cron.name.is_empty() {
        true => same_cron(db, cron.workflow, cron.expression, cron.timezone)?.map(|same| same.row),
        false => named_cron(db, cron, version)?,
    };
    let Some(row) = known else { return insert_cron(db, cron, version) };
    let found = cron_in(db, row)?.expect("a row found in this transaction is there");
    // What is registered by a call stays as it is, whatever programs declare.
    let stays = found.origin == Origin::Registered || is_newer(&found, version);
    if stays && cron.origin != Origin::Registered {
        return Ok(found);
    }
    settle(db, row, cron, version)?;
    Ok(cron_in(db, row)?.expect("a row found in this transaction is there"))
}

/// Notes that `epoch` declares a cron, and returns which version that is.
fn declare(db: &Db, epoch: Epoch, cron: &NewCron<'_>) -> Result<Version, Failure> {
    const POLLED: &str = "SELECT digest, version FROM schedules WHERE kind = 'trigger' AND name = :name";
    const WITHDRAWN: &str = "
        UPDATE schedules SET digest = NULL, version = 0 WHERE kind = 'trigger' AND name = :name AND owner = :epoch";
    let read = |row: &Row| Ok(Version { digest: row.get(0)?, number: row.get(1)? });
    let polled =
        db.prepare_cached(POLLED)?.query_row(named_params! { ":name": cron.name }, read).optional()?;
    let polled = polled.unwrap_or_default();
    let mut versions = Versions::new(db)?;
    let number = versions.number(cron.name, cron.digest, polled)?;
    // What it polled under that name itself is declared no more, though a poll of that may be in flight.
    if db.prepare_cached(WITHDRAWN)?.execute(named_params! { ":name": cron.name, ":epoch": epoch.0 })? == 1 {
        versions.keep(cron.name, polled)?;
    }
    let version = Version { digest: Some(cron.digest), number };
    versions.keep(cron.name, version)?;
    versions.declare(cron.name, epoch, number)?;
    Ok(version)
}

/// Notes that `epoch` declares nothing under that name any more, or not the version of that digest.
pub fn withdraw(db: &Db, epoch: Epoch, name: &str, digest: Option<i64>) -> Result<(), Failure> {
    const SQL: &str = "
        DELETE FROM declared WHERE name = :name AND owner = :epoch AND (:digest::BIGINT IS NULL OR version IN (
            SELECT version FROM versions WHERE versions.name = :name AND versions.digest = :digest
            UNION ALL SELECT version FROM schedules WHERE kind = 'trigger' AND schedules.name = :name AND schedules.digest = :digest))";
    db.prepare_cached(SQL)?.execute(named_params! { ":name": name, ":epoch": epoch.0, ":digest": digest })?;
    Ok(())
}

/// Whether some living owner declares a newer version of a cron.
fn is_newer(found: &Schedule, version: Version) -> bool {
    found.newest > version.number
}

/// What was asked for by a name, for whoever asks for it again.
fn asked(cron: &NewCron<'_>) -> Option<String> {
    let asked = || format!("{}\n{}\n{}", cron.workflow, cron.expression, cron.timezone);
    (!cron.name.is_empty()).then(asked)
}

/// The row of a name, which has the three now that were asked for, unless they were asked for before; all others of that name are gone.
fn named_cron(db: &Db, cron: &NewCron<'_>, version: Version) -> Result<Option<ScheduleKey>, Failure> {
    // Index schedules_cron_name. Release 0.1.0 left one for each expression that a name ever had.
    const NAMED: &str = "
        SELECT row, declared_as IS NOT DISTINCT FROM :asked OR (declared_as IS NULL AND workflow = :workflow
            AND expression = :expression AND timezone = :timezone), registered,
            expression = :expression AND timezone = :timezone
        FROM schedules WHERE kind = 'cron' AND name = :name AND name <> ''
        ORDER BY declared_as IS NULL, 2 DESC, row DESC LIMIT 1";
    const FORGET: &str =
        "DELETE FROM schedules WHERE kind = 'cron' AND name = :name AND name <> '' AND row <> :keep";
    const CHANGE: &str = "
        UPDATE schedules SET workflow = :workflow, expression = :expression, timezone = :timezone,
            next_at = CASE WHEN :keeps_times THEN next_at ELSE :next_at END, updated_at = greatest(:at, updated_at + 1)
        WHERE row = :row";
    let params = named_params! {
        ":name": cron.name,
        ":workflow": cron.workflow,
        ":expression": cron.expression,
        ":timezone": cron.timezone,
        ":asked": asked(cron),
    };
    let read = |row: &Row| {
        let flags: [bool; 3] = [row.get(1)?, row.get(2)?, row.get(3)?];
        Ok((ScheduleKey(row.get(0)?), flags))
    };
    let mut statement = db.prepare_cached(NAMED)?;
    let Some((row, [is_same, registered, keeps_times])) =
        statement.query_map(params, read)?.next().transpose()?
    else {
        return Ok(None);
    };
    db.prepare_cached(FORGET)?.execute(named_params! { ":name": cron.name, ":keep": row.0 })?;
    let is_outdated =
        cron.origin == Origin::Declared && cron_in(db, row)?.is_some_and(|found| is_newer(&found, version));
    if !is_same && !is_outdated && (!registered || cron.origin == Origin::Registered) {
        db.prepare_cached(CHANGE)?.execute(named_params! {
            ":row": row.0,
            ":workflow": cron.workflow,
            ":expression": cron.expression,
            ":timezone": cron.timezone,
            ":keeps_times": keeps_times,
            ":next_at": micros(cron.next_at),
            ":at": cron.at.0,
        })?;
        // Another workflow at the same times starts what was missed of those, too.
        if !keeps_times {
            past::change(db, row, cron.at)?;
        }
    }
    Ok(Some(row))
}

/// Notes whose a cron is and on which terms it runs. What is so already isn't written.
fn settle(db: &Db, row: ScheduleKey, cron: &NewCron<'_>, version: Version) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET declared_as = :asked, registered = :registered, context = :context, overlap = :overlap,
            catchup = :catchup, digest = :digest, version = :version
        WHERE row = :row AND (declared_as, registered, context, overlap, catchup, digest, version)
            IS DISTINCT FROM (:asked, :registered, :context, :overlap, :catchup, :digest, :version)";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":row": row.0,
        ":digest": version.digest,
        ":version": version.number,
        ":asked": asked(cron),
        ":registered": cron.origin == Origin::Registered,
        ":context": cron.context,
        ":overlap": cron.overlap.name(),
        ":catchup": cron.catchup.name(),
    })?;
    Ok(())
}

fn insert_cron(db: &Db, cron: &NewCron<'_>, version: Version) -> Result<Schedule, Failure> {
    const SQL: &str = "
        INSERT INTO schedules
            (id, kind, name, workflow, expression, timezone, next_at, enabled, created_at, updated_at, declared_as, registered,
             context, overlap, catchup, digest, version, cursor, last_fired_at, disabled_at, disabled_cause, decided, stale)
        VALUES (:id, 'cron', :name, :workflow, :expression, :timezone, :next_at, :disabled_at::BIGINT IS NULL, :at, :at, :asked, :registered,
             :context, :overlap, :catchup, :digest, :version, :cursor, :last_fired_at, :disabled_at, :disabled_cause, :decided, :stale)
        RETURNING row";
    // Index schedules_trigger. What was polled under the name goes on where that had come to.
    const POLLED: &str = "SELECT cursor, last_fired_at, disabled_at, disabled_cause FROM schedules WHERE kind = 'trigger' AND name = :name";
    let before = match cron.origin {
        Origin::Declared => {
            db.prepare_cached(POLLED)?.query_row(named_params! { ":name": cron.name }, stand_of).optional()?
        }
        Origin::Registered | Origin::OldRelease => None,
    };
    // What that still has in flight is to come.
    let is_stale = before.is_some();
    let Stand { cursor, last_fired_at, disabled_at, disabled_cause } = before.unwrap_or_default();
    let params = named_params! {
        ":id": cron.id,
        ":digest": version.digest,
        ":version": version.number,
        ":name": cron.name,
        ":workflow": cron.workflow,
        ":expression": cron.expression,
        ":timezone": cron.timezone,
        ":next_at": micros(cron.next_at),
        ":at": cron.at.0,
        ":asked": asked(cron),
        ":registered": cron.origin == Origin::Registered,
        ":context": cron.context,
        ":overlap": cron.overlap.name(),
        ":catchup": cron.catchup.name(),
        ":cursor": cursor,
        ":last_fired_at": micros(last_fired_at),
        ":disabled_at": micros(disabled_at),
        ":disabled_cause": disabled_cause,
        ":stale": is_stale,
        ":decided": Past::declared(cron.at).text(),
    };
    let row = db.prepare_cached(SQL)?.query_row(params, |row| row.get(0).map(ScheduleKey))?;
    Ok(cron_in(db, row)?.expect("a row inserted in this transaction is there"))
}

fn cron_in(db: &Db, row: ScheduleKey) -> Result<Option<Schedule>, Failure> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM schedules WHERE row = :row");
    one(db, SQL, named_params! { ":row": row.0 })
}

/// The one that was registered without a name: others are known by theirs, whatever they start and when.
fn same_cron(db: &Db, workflow: &str, expression: &str, timezone: &str) -> Result<Option<Schedule>, Failure> {
    // Index schedules_cron.
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM schedules
        WHERE kind = 'cron' AND name = '' AND workflow = :workflow AND expression = :expression AND timezone = :timezone"
    );
    let params = named_params! { ":workflow": workflow, ":expression": expression, ":timezone": timezone };
    one(db, SQL, params)
}

/// Replaces a cron's expression and zone; false if there is no such cron.
pub fn update_cron(
    db: &Db,
    id: Uuid,
    expression: &str,
    timezone: &str,
    next_at: Option<Wall>,
    at: Wall,
) -> Result<bool, Failure> {
    const SQL: &str = "
        UPDATE schedules
        SET expression = :expression, timezone = :timezone, next_at = :next_at, updated_at = greatest(:at, updated_at + 1)
        WHERE id = :id AND kind = 'cron'";
    let Some(schedule) = cron(db, id)? else { return Ok(false) };
    if schedule.name.is_empty()
        && let Some(other) =
            same_cron(db, &schedule.workflow, expression, timezone)?.filter(|other| other.id != id)
    {
        return Err(Failure::Refused(format!(
            "workflow '{}' already has a cron '{expression}' in '{timezone}': {}; change or delete that one",
            schedule.workflow, other.id
        )));
    }
    let changed = db.prepare_cached(SQL)?.execute(named_params! {
        ":id": id,
        ":expression": expression,
        ":timezone": timezone,
        ":next_at": micros(next_at),
        ":at": at.0,
    })?;
    let is_same = matches!(&schedule.kind, ScheduleKind::Cron { expression: old, timezone: zone, .. }
        if old == expression && zone == timezone);
    match is_same {
        true => past::pass(db, schedule.row, Passage::at(at))?,
        false => past::change(db, schedule.row, at)?,
    }
    Ok(changed == 1)
}

/// The cron with that id.
pub fn cron(db: &Db, id: Uuid) -> Result<Option<Schedule>, Failure> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM schedules WHERE kind = 'cron' AND id = :id");
    one(db, SQL, named_params! { ":id": id })
}

/// The cron of that name; of those that release 0.1.0 left the oldest.
pub fn cron_named(db: &Db, name: &str) -> Result<Option<Schedule>, Failure> {
    // Index schedules_cron_name.
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM schedules WHERE kind = 'cron' AND name = :name AND name <> ''
        ORDER BY declared_as IS NULL, row LIMIT 1"
    );
    one(db, SQL, named_params! { ":name": name })
}
