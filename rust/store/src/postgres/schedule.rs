//! Rows of triggers, and what they have in common with those of crons. Invariant: a trigger's name stands in at most one row.
//! Longer than a room should be: each statement stands beside what runs it, as in its twin of the other store.

mod cron;
#[path = "../sql/schedule/cursor.rs"]
mod cursor;
#[path = "../sql/schedule/name.rs"]
mod name;
#[path = "../sql/schedule/past.rs"]
mod past;
mod spread;
#[path = "../sql/schedule/twin.rs"]
pub mod twin;
#[path = "../sql/schedule/version.rs"]
mod version;

use std::collections::HashMap;
use std::sync::Arc;

use crate::postgres::db::{self, Db, OptionalExtension as _, Params, Prepared, Row, named_params};
use cloaca_core::admit::Overlap;
use cloaca_core::grid;
use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::{
    Catchup, OnRun, Origin, Outcomes, Page, Schedule, ScheduleFilter, ScheduleKind, Terms, TickChange,
    TriggerRow, TriggerState,
};
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::postgres::end;
use crate::postgres::fault::Failure;
use crate::postgres::run::line::{self, Other};
use crate::postgres::schedule::twin::{Twin, twins};
use crate::postgres::schedule::version::{Version, Versions};
use crate::postgres::value::{failures_at, id_at, past_at, signed, wall_at, wall_maybe_at};

pub use cursor::{
    Advanced, ByHand, advance, ask_poll, begin_poll, end_calls, move_cursor, moved_on, set_cursor,
    would_set_cursor,
};
pub use name::{delete_cron, forget, rename};
pub use spread::{contested, crons_of_many, want, wished};
pub use twin::would_switch;

pub use cron::{cron, cron_named, moment, move_cron, pass_moment, put_cron, update_cron, withdraw};

const TRIGGER: &str = "trigger";
const CRON: &str = "cron";

/// What [`schedule_of`] reads.
macro_rules! columns {
    () => {
        "row, id, kind, name, workflow, interval_us, allow_concurrent, expression, timezone, next_at, enabled,
         disabled_cause, cursor, last_at, last_fired_at, created_at, updated_at, owner, declared_as IS NOT NULL,
         registered, context, overlap, catchup, digest, version,
          greatest(coalesce((
             SELECT max(other.version) FROM declared AS other JOIN owners ON epoch = other.owner AND left_at IS NULL
             WHERE other.name = schedules.name AND (schedules.kind = 'cron' OR schedules.owner IS DISTINCT FROM other.owner)), 0),
          CASE WHEN kind = 'cron' AND declared_as IS NOT NULL THEN coalesce((
             SELECT polled.version FROM schedules AS polled JOIN owners ON epoch = polled.owner AND left_at IS NULL
             WHERE polled.kind = 'trigger' AND polled.name = schedules.name), 0) ELSE 0 END), cursor_set, in_body_since,
         origin_at, heeded_until, last_at, not_before, wait_us, disabled_at,
         (SELECT workflow FROM listeners WHERE listener = schedules.row AND listener <> 0 AND wanted <> 0),
         (SELECT wanted FROM listeners WHERE listener = schedules.row AND listener <> 0 AND wanted <> 0),
         decided, failures, CASE WHEN asked > answered THEN asked END"
    };
}
use columns;

fn schedule_of(row: &Row) -> db::Result<Schedule> {
    Ok(Schedule {
        row: ScheduleKey(row.get(0)?),
        id: id_at(row, 1)?,
        name: row.get(3)?,
        workflow: row.get(4)?,
        kind: kind_of(row)?,
        enabled: row.get(10)?,
        disabled_cause: row.get(11)?,
        disabled_at: wall_maybe_at(row, 33)?,
        cursor: row.get(12)?,
        cursor_set: row.get(26)?,
        failures: failures_at(row, 37)?,
        last_at: wall_maybe_at(row, 13)?,
        last_fired_at: wall_maybe_at(row, 14)?,
        past: past_at(row, 36)?,
        created_at: wall_at(row, 15)?,
        updated_at: wall_at(row, 16)?,
        owner: row.get::<_, Option<i64>>(17)?.map(Epoch),
        origin: origin_of(row)?,
        digest: row.get(23)?,
        version: row.get(24)?,
        newest: row.get(25)?,
        in_body_since: wall_maybe_at(row, 27)?,
        grid: grid_of(row, 28)?,
        asked: row.get(38)?,
        on_run: on_run_of(row)?,
    })
}

fn on_run_of(row: &Row) -> db::Result<Option<OnRun>> {
    let Some(workflow) = row.get::<_, Option<String>>(34)? else { return Ok(None) };
    Ok(Some(OnRun { workflow: workflow.into(), outcomes: Outcomes::from_bits(row.get(35)?) }))
}

fn kind_of(row: &Row) -> db::Result<ScheduleKind> {
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

fn origin_of(row: &Row) -> db::Result<Origin> {
    let (kind, is_declared, is_registered): (String, bool, bool) = (row.get(2)?, row.get(18)?, row.get(19)?);
    Ok(match (is_registered, is_declared || kind == TRIGGER) {
        (true, _) => Origin::Registered,
        (false, true) => Origin::Declared,
        (false, false) => Origin::OldRelease,
    })
}

fn one(db: &Db, sql: &str, params: impl Params) -> Result<Option<Schedule>, Failure> {
    Ok(db.prepare_cached(sql)?.query_row(params, schedule_of).optional()?)
}

/// Where a name has come to, that may be polled and be a cron's one after the other, and since when and why it is switched off.
#[derive(Default)]
struct Stand {
    cursor: Option<String>,
    last_fired_at: Option<Wall>,
    disabled_at: Option<Wall>,
    disabled_cause: Option<String>,
}

fn stand_of(row: &Row) -> db::Result<Stand> {
    Ok(Stand {
        cursor: row.get(0)?,
        last_fired_at: wall_maybe_at(row, 1)?,
        disabled_at: wall_maybe_at(row, 2)?,
        disabled_cause: row.get(3)?,
    })
}

/// What is known of a trigger that is declared again.
struct Known {
    /// Whether its settings stay as they are.
    is_same: bool,
    state: TriggerState,
    /// When its owner took it over, and what it had to catch up with then.
    tenure: Option<(Wall, Wall)>,
    /// The one that is in force.
    version: Version,
    /// Which owner calls it about an end of a run, or did as its process ended.
    called_by: Option<Epoch>,
}

/// Declares triggers within one transaction, with its statements at hand: a program may declare a million.
pub struct Declaring<'c> {
    db: &'c Db,
    known: Prepared<'c>,
    insert: Prepared<'c>,
    hand_over: Prepared<'c>,
    seen: Prepared<'c>,
    versions: Versions<'c>,
    /// When former owners were seen last.
    seen_at: HashMap<Epoch, Option<Wall>>,
    /// Unfinished runs of others, once a trigger is met that may have some.
    others: Option<HashMap<ScheduleKey, Vec<Other>>>,
    /// Whether there are crons with names, once that matters: of most programs no trigger was one.
    has_crons: Option<bool>,
    /// Whether any trigger is told of ends of runs, likewise.
    has_heard: Option<bool>,
    /// What tells the next id from others of its millisecond.
    serial: u128,
}

impl<'c> Declaring<'c> {
    /// Prepares what declaring needs.
    pub fn new(db: &'c Db) -> Result<Self, Failure> {
        // Index schedules_trigger.
        const KNOWN: &str = "
            SELECT row, enabled, cursor, last_fired_at, owner, workflow IS NOT DISTINCT FROM :workflow
                AND interval_us IS NOT DISTINCT FROM :interval_us AND allow_concurrent IS NOT DISTINCT FROM :allow_concurrent,
                origin_at, heeded_until, last_at, not_before, wait_us, taken_at, digest, version, cursor_set, failures,
                CASE WHEN asked > answered THEN asked END, called_by
            FROM schedules WHERE kind = 'trigger' AND name = :name";
        const INSERT: &str = "
            INSERT INTO schedules
                (id, kind, name, workflow, interval_us, allow_concurrent, enabled, owner, created_at, updated_at,
                 origin_at, heeded_until, taken_at, digest, version, cursor, last_fired_at, disabled_at, disabled_cause, stale)
            VALUES (:id, 'trigger', :name, :workflow, :interval_us, :allow_concurrent, :disabled_at::BIGINT IS NULL, :epoch, :at, :at,
                 :origin_at, :at, :at, :digest, :version, :cursor, :last_fired_at, :disabled_at, :disabled_cause, :stale)
            RETURNING row";
        const SEEN: &str = "SELECT seen_at FROM owners WHERE epoch = :epoch";
        const HAND_OVER: &str = "
            UPDATE schedules SET owner = :epoch, origin_at = coalesce(origin_at, :origin_at), heeded_until = :heeded_until,
                taken_at = :at, digest = :digest, version = :version, in_body_since = NULL, free_since = NULL
            WHERE row = :row";
        Ok(Self {
            db,
            known: db.prepare_cached(KNOWN)?,
            insert: db.prepare_cached(INSERT)?,
            hand_over: db.prepare_cached(HAND_OVER)?,
            seen: db.prepare_cached(SEEN)?,
            versions: Versions::new(db)?,
            seen_at: HashMap::new(),
            others: None,
            has_crons: None,
            has_heard: None,
            serial: cloaca_core::key::new_id().as_u128(),
        })
    }

    /// Inserts a trigger or updates its settings, and hands it to `epoch` unless another living owner has it or declares a newer version.
    /// What stays as it is isn't written: a program that starts again declares what is there already.
    pub fn declare(
        &mut self,
        epoch: Epoch,
        trigger: &TriggerRow,
        at: Wall,
        mut is_living: impl FnMut(Epoch) -> Result<bool, Failure>,
    ) -> Result<TriggerState, Failure> {
        let others = self.versions.of_others(&trigger.name, epoch, &mut is_living)?;
        let cron = self.cron_of(&trigger.name)?;
        // What it decides just now is kept before it is polled.
        let decided_by = match cron.and_then(|cron| cron.owner).filter(|&owner| owner != epoch) {
            Some(owner) if is_living(owner)? => Some(owner),
            _ => None,
        };
        let Some(known) = self.known(trigger)? else {
            return self.insert(epoch, trigger, at, &others, cron, decided_by);
        };
        let Known { is_same, mut state, tenure, version, called_by } = known;
        let number = self.versions.number(&trigger.name, trigger.digest, version)?;
        let declared = Version { digest: Some(trigger.digest), number };
        state.is_outdated = others.iter().any(|&(_, other)| other > number);
        let owner = match state.owner {
            Some(owner) if owner == epoch || is_living(owner)? => Some(owner),
            _ => decided_by,
        };
        let is_anothers = owner.is_none()
            && !state.is_outdated
            && spread::is_left(self.db, state.row, &trigger.name, epoch, number, &others)?;
        if owner != Some(epoch) && (owner.is_some() || state.is_outdated || is_anothers) {
            // Whoever polls it, if anybody does, goes on with the settings that it declared.
            if version != declared {
                self.versions.keep(&trigger.name, declared)?;
            }
            let before = self.versions.of(&trigger.name, epoch)?;
            self.versions.declare(&trigger.name, epoch, number)?;
            state.owner = owner;
            // A cron of the name has its version in another row.
            let is_older = version.number < number || decided_by.is_some() && before != Some(number);
            let is_first = owner.is_some() && !state.is_outdated && is_older;
            state.is_awaited = is_first || before > Some(number);
            state.grid = state.grid.map(|grid| grid::Kept { heeded_until: None, ..grid });
            return Ok(state);
        }
        // What asked for a wait, or failed, is another function, which was called for something else.
        if version != declared && end::is_told(self.db, state.row)? != trigger.on_run.is_some() {
            forget_wait(self.db, state.row)?;
            state.failures = 0;
            state.grid = state.grid.map(|grid| grid::Kept { wait: None, ..grid });
        }
        self.listen(state.row, trigger, at)?;
        if !is_same {
            configure(self.db, state.row, trigger, at)?;
        }
        if version != declared {
            self.versions.keep(&trigger.name, version)?;
        }
        let heeded_until = match (owner, tenure) {
            (Some(_), _) => None,
            (None, Some((taken_at, heeded_until))) => {
                let seen_at = state.owner.map(|owner| self.seen_at(owner)).transpose()?.flatten();
                Some(grid::Tenure { taken_at, heeded_until, seen_at }.heeded_until(at))
            }
            (None, None) => Some(at),
        };
        match heeded_until {
            Some(heeded_until) => {
                self.hand_over.execute(named_params! {
                    ":row": state.row.0,
                    ":epoch": epoch.0,
                    ":origin_at": trigger.origin_at.0,
                    ":heeded_until": heeded_until.0,
                    ":at": at.0,
                    ":digest": trigger.digest,
                    ":version": number,
                })?;
                self.versions.withdraw(&trigger.name, epoch, None)?;
                self.versions.unwant(&trigger.name)?;
                state.owner = Some(epoch);
                if let Some(cron) = cron
                    && let Some((cursor, last_fired_at)) = twin::follow(self.db, state.row, cron)?
                {
                    (state.cursor, state.last_fired_at) = (cursor, last_fired_at);
                }
                state.is_awaited = others.iter().any(|&(_, other)| other < number);
            }
            None if version != declared => stamp(self.db, state.row, declared)?,
            None => {}
        }
        state.grid = state.grid.map(|grid| grid::Kept { heeded_until, ..grid });
        state.has_died = called_by.is_some_and(|former| former != epoch);
        state.unfinished = self.others_of(epoch, state.row, &trigger.workflow)?;
        Ok(state)
    }

    /// Notes of which ends of runs it is to be told.
    fn listen(&mut self, row: ScheduleKey, trigger: &TriggerRow, at: Wall) -> Result<(), Failure> {
        let has_heard = match self.has_heard {
            Some(known) => known,
            None => end::is_any_heard(self.db)?,
        };
        self.has_heard = Some(has_heard || trigger.on_run.is_some());
        match has_heard || trigger.on_run.is_some() {
            true => end::listen(self.db, row, trigger.on_run.as_ref(), at),
            false => Ok(()),
        }
    }

    /// When an owner was seen last, if it lived long enough for that and is remembered.
    fn seen_at(&mut self, epoch: Epoch) -> Result<Option<Wall>, Failure> {
        if let Some(&known) = self.seen_at.get(&epoch) {
            return Ok(known);
        }
        let found = self.seen.query_row(named_params! { ":epoch": epoch.0 }, |row| wall_maybe_at(row, 0));
        let found = found.optional()?.flatten();
        self.seen_at.insert(epoch, found);
        Ok(found)
    }

    /// Unfinished runs of a trigger, oldest first.
    fn others_of(
        &mut self,
        epoch: Epoch,
        schedule: ScheduleKey,
        workflow: &str,
    ) -> Result<Vec<Uuid>, Failure> {
        let others = match &mut self.others {
            Some(others) => others,
            // Also what was claimed for this owner and may not have been told it yet: or it would stand behind those that came after it.
            None => self.others.insert(line::others(self.db, epoch)?),
        };
        let line = others.get(&schedule).into_iter().flatten();
        Ok(line.filter(|other| other.may_go_on(workflow)).map(|other| other.id).collect())
    }

    /// Where the trigger of that name stands.
    fn known(&mut self, trigger: &TriggerRow) -> Result<Option<Known>, Failure> {
        let params = named_params! {
            ":name": trigger.name,
            ":workflow": trigger.workflow,
            ":interval_us": trigger.interval_us,
            ":allow_concurrent": trigger.allow_concurrent,
        };
        let read = |row: &Row| {
            let state = TriggerState {
                row: ScheduleKey(row.get(0)?),
                enabled: row.get(1)?,
                cursor: row.get(2)?,
                cursor_set: row.get(14)?,
                last_fired_at: wall_maybe_at(row, 3)?,
                owner: row.get::<_, Option<i64>>(4)?.map(Epoch),
                unfinished: Vec::new(),
                failures: failures_at(row, 15)?,
                grid: grid_of(row, 6)?,
                asked: row.get(16)?,
                has_died: false,
                is_outdated: false,
                is_awaited: false,
            };
            let tenure = wall_maybe_at(row, 11)?.zip(state.grid.and_then(|grid| grid.heeded_until));
            let version = Version { digest: row.get(12)?, number: row.get(13)? };
            let called_by = row.get::<_, Option<i64>>(17)?.map(Epoch);
            Ok(Known { is_same: row.get(5)?, state, tenure, version, called_by })
        };
        Ok(self.known.query_row(params, read).optional()?)
    }

    /// The cron that is, or was, declared under that name.
    fn cron_of(&mut self, name: &str) -> Result<Option<Twin>, Failure> {
        // Index schedules_cron_name.
        const ANY: &str = "SELECT EXISTS (SELECT 1 FROM schedules WHERE kind = 'cron' AND name <> '')";
        let has_crons = match self.has_crons {
            Some(known) => known,
            None => *self.has_crons.insert(self.db.prepare_cached(ANY)?.query_row([], |row| row.get(0))?),
        };
        if has_crons { twin::cron(self.db, name) } else { Ok(None) }
    }

    /// Where a cron has come to.
    fn stand_of_cron(&self, cron: Twin) -> Result<Stand, Failure> {
        const SQL: &str =
            "SELECT cursor, last_fired_at, disabled_at, disabled_cause FROM schedules WHERE row = :row";
        Ok(self.db.prepare_cached(SQL)?.query_row(named_params! { ":row": cron.row.0 }, stand_of)?)
    }

    fn insert(
        &mut self,
        epoch: Epoch,
        trigger: &TriggerRow,
        at: Wall,
        others: &[(Epoch, i64)],
        cron: Option<Twin>,
        decided_by: Option<Epoch>,
    ) -> Result<TriggerState, Failure> {
        let id = self.next_id(at);
        let number = self.versions.number(&trigger.name, trigger.digest, Version::default())?;
        // Under its name something else may be declared.
        let is_outdated = others.iter().any(|&(_, other)| other > number);
        let is_ours = !is_outdated && decided_by.is_none();
        let owner = is_ours.then_some(epoch);
        let stand = cron.map(|cron| self.stand_of_cron(cron)).transpose()?.unwrap_or_default();
        let Stand { cursor, last_fired_at, disabled_at, disabled_cause } = stand;
        let params = named_params! {
            ":id": id,
            ":name": trigger.name,
            ":workflow": trigger.workflow,
            ":interval_us": trigger.interval_us,
            ":allow_concurrent": trigger.allow_concurrent,
            ":epoch": owner.map(|owner| owner.0),
            ":at": at.0,
            ":origin_at": trigger.origin_at.0,
            ":digest": trigger.digest,
            ":version": number,
            ":cursor": cursor,
            ":last_fired_at": last_fired_at.map(|at| at.0),
            ":disabled_at": disabled_at.map(|at| at.0),
            ":disabled_cause": disabled_cause,
            ":stale": cron.is_some() && !is_ours,
        };
        let row = self.insert.query_row(params, |row| row.get(0).map(ScheduleKey))?;
        match is_ours {
            true => {
                self.listen(row, trigger, at)?;
                // It may have declared a cron before.
                self.versions.withdraw(&trigger.name, epoch, None)?;
                if let Some(cron) = cron {
                    twin::grow_stale(self.db, cron.row)?;
                }
            }
            false => self.versions.declare(&trigger.name, epoch, number)?,
        }
        Ok(TriggerState {
            row,
            enabled: disabled_at.is_none(),
            cursor,
            cursor_set: 0,
            last_fired_at,
            owner: owner.or(decided_by),
            unfinished: Vec::new(),
            failures: 0,
            grid: None,
            asked: None,
            has_died: false,
            is_outdated,
            is_awaited: !is_outdated && !others.is_empty(),
        })
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
fn grid_of(row: &Row, first: usize) -> db::Result<Option<grid::Kept>> {
    let Some(origin_at) = wall_maybe_at(row, first)? else { return Ok(None) };
    let not_before = wall_maybe_at(row, first + 3)?;
    let span_us: Option<i64> = row.get(first + 4)?;
    let wait = not_before.zip(span_us).map(|(not_before, span_us)| grid::Wait { not_before, span_us });
    let (heeded_until, last_at) = (wall_maybe_at(row, first + 1)?, wall_maybe_at(row, first + 2)?);
    Ok(Some(grid::Kept { origin_at, heeded_until, last_at, wait }))
}

fn configure(db: &Db, row: ScheduleKey, trigger: &TriggerRow, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET workflow = :workflow, interval_us = :interval_us,
            allow_concurrent = :allow_concurrent, updated_at = :at
        WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":row": row.0,
        ":workflow": trigger.workflow,
        ":interval_us": trigger.interval_us,
        ":allow_concurrent": trigger.allow_concurrent,
        ":at": at.0,
    })?;
    Ok(())
}

/// Notes which version is in force.
fn stamp(db: &Db, row: ScheduleKey, version: Version) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET digest = :digest, version = :version WHERE row = :row";
    let params = named_params! { ":row": row.0, ":digest": version.digest, ":version": version.number };
    db.prepare_cached(SQL)?.execute(params)?;
    Ok(())
}

/// A trigger waits no longer, whatever for.
fn forget_wait(db: &Db, row: ScheduleKey) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET failures = 0, not_before = NULL, wait_us = NULL WHERE row = :row
            AND (failures <> 0 OR wait_us IS NOT NULL)";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": row.0 })?;
    Ok(())
}

/// Frees a trigger that `epoch` polls no more; until `at` it was polled, or as long as is kept already.
pub fn let_go(db: &Db, epoch: Epoch, trigger: &str, digest: i64, at: Option<Wall>) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET owner = NULL, heeded_until = coalesce(:at, heeded_until),
            free_since = now_us()
        WHERE kind = 'trigger' AND name = :name AND owner = :epoch";
    db.prepare_cached(SQL)?
        .execute(named_params! { ":name": trigger, ":epoch": epoch.0, ":at": at.map(|at| at.0) })?;
    withdraw(db, epoch, trigger, Some(digest))
}

/// Passes triggers of `epoch` to `remnant`: nobody may poll them while a poll is in flight. The others are free once their owner has left.
pub fn hand_on(db: &Db, epoch: Epoch, rows: &[ScheduleKey], remnant: Option<Epoch>) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET owner = :remnant WHERE row = :row AND owner = :epoch";
    let mut statement = db.prepare_cached(SQL)?;
    for row in rows {
        statement.execute(
            named_params! { ":row": row.0, ":epoch": epoch.0, ":remnant": remnant.map(|epoch| epoch.0) },
        )?;
    }
    Ok(())
}

/// Disables the trigger that a poll has just used up.
pub fn disable(db: &Db, change: &TickChange) -> Result<(), Failure> {
    let Some(cause) = &change.disable else { return Ok(()) };
    set_enabled(db, change.schedule, false, Some(cause), change.at).map(drop)
}

/// Notes that a trigger's poll at `at` has started a run.
pub fn fired(db: &Db, row: ScheduleKey, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "UPDATE schedules SET last_fired_at = :at WHERE row = :row";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": row.0, ":at": at.0 })?;
    Ok(())
}

/// Notes that a trigger was polled at `at`, or later, by a poll that neither failed nor asked for a wait: one that does is a tick.
pub fn polled(db: &Db, row: ScheduleKey, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE schedules SET last_at = :at, failures = 0, not_before = NULL, wait_us = NULL
        WHERE row = :row AND kind = 'trigger' AND coalesce(last_at < :at, TRUE)";
    db.prepare_cached(SQL)?.execute(named_params! { ":row": row.0, ":at": at.0 })?;
    Ok(())
}

/// Switches a schedule, and with it what its name was while it was a cron, or polled; false if there is no such row. What is off already is
/// so since then.
pub fn set_enabled(
    db: &Db,
    row: ScheduleKey,
    enabled: bool,
    cause: Option<&str>,
    at: Wall,
) -> Result<bool, Failure> {
    let cause = cause.filter(|_| !enabled);
    let params = named_params! { ":row": row.0, ":enabled": enabled, ":cause": cause, ":at": at.0 };
    Ok(db.prepare_cached(SWITCH)?.execute(params)? > 0)
}

// Primary key; indices schedules_trigger, schedules_cron_name.
const SWITCH: &str = concat!(
    "
    UPDATE schedules SET enabled = :enabled, disabled_cause = :cause, updated_at = greatest(:at, updated_at + 1),
        disabled_at = CASE WHEN :enabled THEN NULL ELSE coalesce(disabled_at, :at) END, not_before = CASE WHEN :enabled THEN NULL ELSE not_before END,
        failures = CASE WHEN :enabled THEN 0 ELSE failures END
    WHERE row = :row OR enabled <> :enabled AND row IN (",
    twins!(),
    ")"
);

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

/// At most `limit` schedules of a kind with a row larger than `after`, by their rows.
pub fn list_after(
    db: &Db,
    filter: ScheduleFilter,
    after: ScheduleKey,
    limit: u64,
) -> Result<Vec<Schedule>, Failure> {
    let mut statement = db.prepare_cached(match filter {
        ScheduleFilter::Triggers => TRIGGERS_AFTER,
        ScheduleFilter::Crons => CRONS_AFTER,
    })?;
    let rows =
        statement.query_map(named_params! { ":after": after.0, ":limit": signed(limit) }, schedule_of)?;
    Ok(rows.collect::<db::Result<_>>()?)
}

/// Those of these rows that are kept, by their rows.
pub fn of_rows(db: &Db, rows: &[i64]) -> Result<Vec<Schedule>, Failure> {
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM schedules WHERE row = ANY(:rows::BIGINT[]) ORDER BY row");
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement.query_map(named_params! { ":rows": rows.to_vec() }, schedule_of)?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// Schedules of a kind in the order of their registration.
pub fn list(
    db: &Db,
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
    Ok(rows.collect::<db::Result<_>>()?)
}

/// The trigger of that name.
pub fn trigger(db: &Db, name: &str) -> Result<Option<Schedule>, Failure> {
    // Index schedules_trigger.
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM schedules WHERE kind = 'trigger' AND name = :name");
    one(db, SQL, named_params! { ":name": name })
}
