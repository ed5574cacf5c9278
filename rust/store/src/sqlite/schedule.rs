//! Rows of triggers, and what they have in common with those of crons. Invariant: a trigger's name stands in at most one row.

mod cron;

use std::collections::HashMap;
use std::sync::Arc;

use cloaca_core::admit::Overlap;
use cloaca_core::grid;
use cloaca_core::port::{
    Catchup, Forgotten, Origin, Page, Schedule, ScheduleFilter, ScheduleKind, Terms, TickChange, TriggerRow,
    TriggerState,
};
use cloaca_core::time::Wall;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Params, Row, named_params};
use uuid::Uuid;

use crate::sqlite::fault::Failure;
use crate::sqlite::owner;
use crate::sqlite::run::{self, Other};
use crate::sqlite::value::{id_at, signed, wall_at, wall_maybe_at};

pub use cron::{cron, cron_named, delete_cron, moment, move_cron, pass_moment, put_cron, update_cron};

const TRIGGER: &str = "trigger";
const CRON: &str = "cron";

/// What [`schedule_of`] reads.
macro_rules! columns {
    () => {
        "row, id, kind, name, workflow, interval_us, allow_concurrent, expression, timezone, next_at, enabled,
         disabled_cause, cursor, last_at, last_fired_at, created_at, updated_at, owner, declared_as IS NOT NULL,
         registered, context, overlap, catchup"
    };
}
use columns;

fn schedule_of(row: &Row<'_>) -> rusqlite::Result<Schedule> {
    Ok(Schedule {
        row: row.get(0)?,
        id: id_at(row, 1)?,
        name: row.get(3)?,
        workflow: row.get(4)?,
        kind: kind_of(row)?,
        enabled: row.get(10)?,
        disabled_cause: row.get(11)?,
        cursor: row.get(12)?,
        last_at: wall_maybe_at(row, 13)?,
        last_fired_at: wall_maybe_at(row, 14)?,
        created_at: wall_at(row, 15)?,
        updated_at: wall_at(row, 16)?,
        owner: row.get(17)?,
        origin: origin_of(row)?,
    })
}

fn kind_of(row: &Row<'_>) -> rusqlite::Result<ScheduleKind> {
    let kind: String = row.get(2)?;
    if kind == TRIGGER {
        return Ok(ScheduleKind::Trigger { interval_us: row.get(5)?, allow_concurrent: row.get(6)? });
    }
    let (overlap, catchup): (Option<String>, Option<String>) = (row.get(21)?, row.get(22)?);
    let terms = Terms {
        context: row.get::<_, Option<String>>(20)?.map(Arc::from),
        overlap: overlap.and_then(|name| Overlap::from_name(&name)).unwrap_or_default(),
        catchup: catchup.and_then(|name| Catchup::from_name(&name)).unwrap_or_default(),
    };
    Ok(ScheduleKind::Cron {
        expression: row.get(7)?,
        timezone: row.get(8)?,
        next_at: wall_maybe_at(row, 9)?,
        terms,
    })
}

fn origin_of(row: &Row<'_>) -> rusqlite::Result<Origin> {
    let (kind, is_declared, is_registered): (String, bool, bool) = (row.get(2)?, row.get(18)?, row.get(19)?);
    Ok(match (is_registered, is_declared || kind == TRIGGER) {
        (true, _) => Origin::Registered,
        (false, true) => Origin::Declared,
        (false, false) => Origin::OldRelease,
    })
}

fn one(db: &Connection, sql: &str, params: impl Params) -> Result<Option<Schedule>, Failure> {
    Ok(db.prepare_cached(sql)?.query_row(params, schedule_of).optional()?)
}

/// What is known of a trigger that is declared again: whether that changes nothing, its state, when its owner took it over, and what it
/// had to catch up with then.
type Known = (bool, TriggerState, Option<(Wall, Wall)>);

/// Declares triggers within one transaction, with its statements at hand: a program may declare a million.
pub struct Declaring<'c> {
    db: &'c Connection,
    known: CachedStatement<'c>,
    insert: CachedStatement<'c>,
    hand_over: CachedStatement<'c>,
    seen: CachedStatement<'c>,
    /// When former owners were seen last.
    seen_at: HashMap<i64, Option<Wall>>,
    /// Unfinished runs of others, once a trigger is met that may have some.
    others: Option<HashMap<i64, Vec<Other>>>,
    /// What tells the next id from others of its millisecond.
    serial: u128,
}

impl<'c> Declaring<'c> {
    /// Prepares what declaring needs.
    pub fn new(db: &'c Connection) -> Result<Self, Failure> {
        // Index schedules_trigger.
        const KNOWN: &str = "
            SELECT row, enabled, cursor, last_fired_at, owner, workflow IS :workflow
                AND interval_us IS :interval_us AND allow_concurrent IS :allow_concurrent,
                origin_at, heeded_until, last_at, not_before, wait_us, taken_at
            FROM schedules WHERE kind = 'trigger' AND name = :name";
        const INSERT: &str = "
            INSERT INTO schedules
                (id, kind, name, workflow, interval_us, allow_concurrent, enabled, owner, created_at, updated_at,
                 origin_at, heeded_until, taken_at)
            VALUES (:id, 'trigger', :name, :workflow, :interval_us, :allow_concurrent, 1, :epoch, :at, :at,
                 :origin_at, :at, :at)";
        const SEEN: &str = "SELECT seen_at FROM owners WHERE epoch = :epoch";
        const HAND_OVER: &str = "
            UPDATE schedules SET owner = :epoch, origin_at = coalesce(origin_at, :origin_at), heeded_until = :heeded_until,
                taken_at = :at
            WHERE row = :row";
        Ok(Self {
            db,
            known: db.prepare_cached(KNOWN)?,
            insert: db.prepare_cached(INSERT)?,
            hand_over: db.prepare_cached(HAND_OVER)?,
            seen: db.prepare_cached(SEEN)?,
            seen_at: HashMap::new(),
            others: None,
            serial: Uuid::now_v7().as_u128(),
        })
    }

    /// Inserts a trigger or updates its settings, and hands it to `epoch` unless another living owner has it. What stays
    /// as it is isn't written: a program that starts again declares what is there already.
    pub fn declare(
        &mut self,
        epoch: i64,
        trigger: &TriggerRow,
        at: Wall,
        is_living: impl FnOnce(i64) -> Result<bool, Failure>,
    ) -> Result<TriggerState, Failure> {
        let Some((is_same, mut state, tenure)) = self.known(trigger)? else {
            return self.insert(epoch, trigger, at);
        };
        if !is_same {
            configure(self.db, state.row, trigger, at)?;
        }
        let stays = match state.owner {
            Some(owner) => owner == epoch || is_living(owner)?,
            None => false,
        };
        if !stays {
            let heeded_until = match tenure {
                Some((taken_at, heeded_until)) => {
                    let seen_at = state.owner.map(|owner| self.seen_at(owner)).transpose()?.flatten();
                    grid::Tenure { taken_at, heeded_until, seen_at }.heeded_until(at)
                }
                None => at,
            };
            self.hand_over.execute(named_params! {
                ":row": state.row,
                ":epoch": epoch,
                ":origin_at": trigger.origin_at.0,
                ":heeded_until": heeded_until.0,
                ":at": at.0,
            })?;
            state.owner = Some(epoch);
            state.grid = state.grid.map(|grid| grid::Kept { heeded_until: Some(heeded_until), ..grid });
        } else {
            state.grid = state.grid.map(|grid| grid::Kept { heeded_until: None, ..grid });
        }
        if state.owner == Some(epoch) {
            state.others = self.others_of(epoch, state.row, &trigger.workflow)?;
        }
        Ok(state)
    }

    /// When an owner was seen last, if it lived long enough for that and is remembered.
    fn seen_at(&mut self, epoch: i64) -> Result<Option<Wall>, Failure> {
        if let Some(&known) = self.seen_at.get(&epoch) {
            return Ok(known);
        }
        let found = self.seen.query_row(named_params! { ":epoch": epoch }, |row| wall_maybe_at(row, 0));
        let found = found.optional()?.flatten();
        self.seen_at.insert(epoch, found);
        Ok(found)
    }

    /// Unfinished runs of a trigger, oldest first.
    fn others_of(&mut self, epoch: i64, schedule: i64, workflow: &str) -> Result<Vec<Uuid>, Failure> {
        let others = match &mut self.others {
            Some(others) => others,
            // Also what was claimed for this owner and may not have been told it yet: or it would stand behind those that came after it.
            None => self.others.insert(run::others(self.db, epoch, i64::MAX, true)?),
        };
        let line = others.get(&schedule).into_iter().flatten();
        Ok(line.filter(|other| other.may_go_on(workflow)).map(|other| other.id).collect())
    }

    /// Where the trigger of that name stands, whether its settings are the same, and since when its owner has it.
    fn known(&mut self, trigger: &TriggerRow) -> Result<Option<Known>, Failure> {
        let params = named_params! {
            ":name": trigger.name,
            ":workflow": trigger.workflow,
            ":interval_us": trigger.interval_us,
            ":allow_concurrent": trigger.allow_concurrent,
        };
        let read = |row: &Row<'_>| {
            let state = TriggerState {
                row: row.get(0)?,
                enabled: row.get(1)?,
                cursor: row.get(2)?,
                last_fired_at: wall_maybe_at(row, 3)?,
                owner: row.get(4)?,
                others: Vec::new(),
                grid: grid_of(row, 6)?,
            };
            let tenure = wall_maybe_at(row, 11)?.zip(state.grid.and_then(|grid| grid.heeded_until));
            Ok((row.get(5)?, state, tenure))
        };
        Ok(self.known.query_row(params, read).optional()?)
    }

    fn insert(&mut self, epoch: i64, trigger: &TriggerRow, at: Wall) -> Result<TriggerState, Failure> {
        let mut buffer = Uuid::encode_buffer();
        let id = self.next_id(at);
        self.insert.execute(named_params! {
            ":id": &*id.hyphenated().encode_lower(&mut buffer),
            ":name": trigger.name,
            ":workflow": trigger.workflow,
            ":interval_us": trigger.interval_us,
            ":allow_concurrent": trigger.allow_concurrent,
            ":epoch": epoch,
            ":at": at.0,
            ":origin_at": trigger.origin_at.0,
        })?;
        let row = self.db.last_insert_rowid();
        let (owner, others) = (Some(epoch), Vec::new());
        Ok(TriggerState { row, enabled: true, cursor: None, last_fired_at: None, owner, others, grid: None })
    }

    /// Ids of one millisecond ascend: random ones would be scattered over their index, which costs as much again as the rest.
    fn next_id(&mut self, at: Wall) -> Uuid {
        self.serial = self.serial.wrapping_add(1);
        let [_, _, _, _, _, _, serial @ ..] = self.serial.to_be_bytes();
        let millis = u64::try_from(at.0 / 1_000).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &serial).into_uuid()
    }
}

/// What is kept of when a trigger is due, if it is; five columns from `first` on.
fn grid_of(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<grid::Kept>> {
    let Some(origin_at) = wall_maybe_at(row, first)? else { return Ok(None) };
    let not_before = wall_maybe_at(row, first + 3)?;
    let span_us: Option<i64> = row.get(first + 4)?;
    let wait = not_before.zip(span_us).map(|(not_before, span_us)| grid::Wait { not_before, span_us });
    let (heeded_until, last_at) = (wall_maybe_at(row, first + 1)?, wall_maybe_at(row, first + 2)?);
    Ok(Some(grid::Kept { origin_at, heeded_until, last_at, wait }))
}

fn configure(db: &Connection, row: i64, trigger: &TriggerRow, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET workflow = :workflow, interval_us = :interval_us,
            allow_concurrent = :allow_concurrent, updated_at = :at
        WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":row": row,
        ":workflow": trigger.workflow,
        ":interval_us": trigger.interval_us,
        ":allow_concurrent": trigger.allow_concurrent,
        ":at": at.0,
    })?;
    Ok(())
}

/// Frees a trigger that `epoch` polls no more; until now it was polled.
pub fn let_go(db: &Connection, epoch: i64, trigger: &str, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET owner = NULL, heeded_until = :at WHERE kind = 'trigger' AND name = :name AND owner = :epoch";
    db.prepare_cached(SQL)?.execute(named_params! { ":name": trigger, ":epoch": epoch, ":at": at.0 })?;
    Ok(())
}

/// Passes triggers of `epoch` to `remnant`: nobody may poll them while a poll is in flight. The others are free once their owner has left.
pub fn hand_on(db: &Connection, epoch: i64, rows: &[i64], remnant: Option<i64>) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET owner = :remnant WHERE row = :row AND owner = :epoch";
    let mut statement = db.prepare_cached(SQL)?;
    for row in rows {
        statement.execute(named_params! { ":row": row, ":epoch": epoch, ":remnant": remnant })?;
    }
    Ok(())
}

/// Saves what a poll leaves on its trigger; false if `change`'s epoch does not hold the trigger any more.
pub fn advance(db: &Connection, change: &TickChange) -> Result<bool, Failure> {
    const SQL: &str = "
        UPDATE schedules SET cursor = coalesce(:cursor, cursor), last_at = iif(kind = 'cron', last_at, :at), not_before = :not_before, wait_us = :wait_us
        WHERE row = :row AND owner = :epoch";
    let changed = db.prepare_cached(SQL)?.execute(named_params! {
        ":row": change.schedule,
        ":epoch": change.epoch,
        // Where a row ends is known after its fires.
        ":cursor": change.cursor.as_ref().filter(|_| !change.has_row()),
        ":at": change.at.0,
        ":not_before": change.wait_us.map(|wait_us| change.at.0.saturating_add(wait_us)),
        ":wait_us": change.wait_us,
    })?;
    Ok(changed == 1)
}

/// Saves the cursor that a row of fires has left.
pub fn move_cursor(db: &Connection, row: i64, cursor: &str) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET cursor = :cursor WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": row, ":cursor": cursor })?;
    Ok(())
}

/// Disables the trigger that a poll has just used up.
pub fn disable(db: &Connection, change: &TickChange) -> Result<(), Failure> {
    let Some(cause) = &change.disable else { return Ok(()) };
    set_enabled(db, change.schedule, false, Some(cause), change.at).map(drop)
}

/// Notes that a trigger's poll at `at` has started a run.
pub fn fired(db: &Connection, row: i64, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET last_fired_at = :at WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": row, ":at": at.0 })?;
    Ok(())
}

/// Notes that a trigger was polled at `at`, or later.
pub fn polled(db: &Connection, row: i64, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET last_at = :at
        WHERE row = :row AND kind = 'trigger' AND coalesce(last_at < :at, 1)";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": row, ":at": at.0 })?;
    Ok(())
}

/// Deletes the trigger and the crons of a name with what hangs on them, but for their runs, unless a living owner other than `epoch` polls it.
pub fn forget(db: &Connection, epoch: i64, name: &str) -> Result<Forgotten, Failure> {
    // Indices schedules_trigger, schedules_cron_name.
    const FOUND: &str = "
        SELECT row, owner FROM schedules WHERE kind = 'trigger' AND name = :name
        UNION ALL SELECT row, NULL FROM schedules WHERE kind = 'cron' AND name = :name AND name <> '' AND NOT registered";
    // Index ticks_schedule, and primary keys.
    const GONE: [&str; 3] = [
        "DELETE FROM ticks WHERE schedule = :row",
        "DELETE FROM run_keys WHERE schedule = :row",
        "DELETE FROM schedules WHERE row = :row",
    ];
    let mut statement = db.prepare_cached(FOUND)?;
    let found = statement.query_map(named_params! { ":name": name }, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(i64, Option<i64>)> = found.collect::<rusqlite::Result<_>>()?;
    for by in found.iter().filter_map(|&(_, owner)| owner).filter(|&owner| owner != epoch) {
        if owner::is_living(db, by)? {
            return Ok(Forgotten::Polled { by });
        }
    }
    let rows: Vec<i64> = found.into_iter().map(|(row, _)| row).collect();
    for row in &rows {
        for sql in GONE {
            db.prepare_cached(sql)?.execute(named_params! { ":row": row })?;
        }
    }
    Ok(Forgotten::Gone(rows))
}

/// Switches a schedule; false if there is no such row.
pub fn set_enabled(
    db: &Connection,
    row: i64,
    enabled: bool,
    cause: Option<&str>,
    at: Wall,
) -> Result<bool, Failure> {
    const SQL: &str = "
        UPDATE schedules SET enabled = :enabled, disabled_cause = :cause, updated_at = max(:at, updated_at + 1),
            not_before = iif(:enabled, NULL, not_before)
        WHERE row = :row";
    let cause = cause.filter(|_| !enabled);
    let params = named_params! { ":row": row, ":enabled": enabled, ":cause": cause, ":at": at.0 };
    Ok(db.prepare_cached(SQL)?.execute(params)? == 1)
}

const TRIGGERS_AFTER: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM schedules WHERE kind = 'trigger' AND row > :after ORDER BY row LIMIT :limit"
);
const CRONS_AFTER: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM schedules WHERE kind = 'cron' AND row > :after ORDER BY row LIMIT :limit"
);

/// Statements with what their plan must name. Triggers are most of what there is.
#[cfg(test)]
pub const PLANS: [(&str, &str); 2] = [
    (TRIGGERS_AFTER, "SEARCH schedules USING INTEGER PRIMARY KEY (rowid>?)"),
    (CRONS_AFTER, "USING INDEX schedules_crons (row>?)"),
];

/// At most `limit` schedules of a kind with a row larger than `after`, by their rows.
pub fn list_after(
    db: &Connection,
    filter: ScheduleFilter,
    after: i64,
    limit: u64,
) -> Result<Vec<Schedule>, Failure> {
    let mut statement = db.prepare_cached(match filter {
        ScheduleFilter::Triggers => TRIGGERS_AFTER,
        ScheduleFilter::Crons => CRONS_AFTER,
    })?;
    let rows =
        statement.query_map(named_params! { ":after": after, ":limit": signed(limit) }, schedule_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Schedules of a kind in the order of their registration.
pub fn list(
    db: &Connection,
    filter: ScheduleFilter,
    enabled_only: bool,
    page: Page,
) -> Result<Vec<Schedule>, Failure> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM schedules WHERE kind = :kind AND (enabled OR NOT :enabled_only)
        ORDER BY row LIMIT :limit OFFSET :offset"
    );
    let kind = match filter {
        ScheduleFilter::Triggers => TRIGGER,
        ScheduleFilter::Crons => CRON,
    };
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! {
        ":kind": kind,
        ":enabled_only": enabled_only,
        ":limit": signed(page.limit),
        ":offset": signed(page.offset),
    };
    let rows = statement.query_map(params, schedule_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The trigger of that name.
pub fn trigger(db: &Connection, name: &str) -> Result<Option<Schedule>, Failure> {
    // Index schedules_trigger.
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM schedules WHERE kind = 'trigger' AND name = :name");
    one(db, SQL, named_params! { ":name": name })
}
