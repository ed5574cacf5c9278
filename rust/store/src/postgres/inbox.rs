//! Runs that programs ask for in transactions of their own, by the function `submit`, which stands with the tables. Invariant: what waits here stands in
//! nobody's way, whoever holds it; what is taken out becomes a run, or an alias of the run that has its key, in the same transaction, and nothing that
//! somebody may have written here can keep the rest from it.
//! Longer than a room should be: what is taken out, and all that may keep it from becoming a run.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::slice;

use cloaca_core::context;
use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::port::{
    Admitted, Backlog, By, Change, ListedRun, NewRun, Page, Place, Receipt, RunFilter, RunStatus, TaskRecord,
    Unfinished,
};
use cloaca_core::time::Wall;
use cloaca_core::urgency::Priority;
use uuid::Uuid;

use crate::postgres::batch;
use crate::postgres::db::{self, Db, OptionalExtension as _, Row, named_params};
use crate::postgres::fault::Failure;
use crate::postgres::run::{self, Depth};
use crate::postgres::value::{count_at, id_at, micros, priority_at, signed, wall_at, wall_maybe_at};
use crate::postgres::{audit, look, owner};

/// The one word that a notice of the function `submit` holds.
pub const NOTICE: &str = "inbox";

/// So many are taken in one transaction, and of so many bytes but for the last.
const TAKEN_MAX: u64 = 500;
const TAKEN_BYTES_MAX: i64 = 16 * 1024 * 1024;

/// What waits here is listed behind all runs that there can be: it is no run yet.
const ROW_FIRST: i64 = 1 << 62;

/// How long a key holds of which that isn't said.
const KEY_US: i64 = 30 * 24 * 60 * 60 * 1_000_000;

/// What is kept of a workflow's name that can be none.
const NAME_CHARS_MAX: usize = 255;

/// How runs end that never were to begin.
const DROPPED: (RunStatus, &str) = (RunStatus::Cancelled, "Dropped");
const UNFIT: (RunStatus, &str) = (RunStatus::Failed, "ContextError");
const UNKEPT: (RunStatus, &str) = (RunStatus::Failed, "StoreError");

/// What somebody asked for.
struct Wish {
    id: Uuid,
    workflow: String,
    run_key: Option<String>,
    key_us: Option<i64>,
    priority: Option<Priority>,
    due_at: Option<Wall>,
    created_at: Wall,
    context: String,
}

/// Whether anything waits.
pub fn is_any(db: &Db) -> Result<bool, Failure> {
    const SQL: &str = "SELECT 1 FROM inbox LIMIT 1";
    Ok(db.prepare_cached(SQL)?.exists([])?)
}

/// Makes runs of what waits, as nobody's, as far as the gate lets each: one that has a key of which there is a run is an alias of that from then on, and one
/// that is dropped a run that has ended.
pub fn admit(db: &Db, epoch: Epoch, at: Wall) -> Result<u64, Failure> {
    owner::must_live(db, epoch)?;
    let wishes = take(db)?;
    // All at once. If that fails for what one of them holds, each by itself, and that one becomes a run that tells why.
    if within(db, || admit_all(db, epoch, &wishes, at))?.is_err() {
        for wish in &wishes {
            if let Err(why) = within(db, || admit_all(db, epoch, slice::from_ref(wish), at))? {
                // Of one that has the id of another run nothing is left.
                let _ = within(db, || put_ended(db, &wish.bare(), UNKEPT, &why, at))?;
            }
        }
    }
    Ok(wishes.len() as u64)
}

/// Does `work`, and undoes it alone if the server or the store refuses it: then the inner value is the reason.
fn within(db: &Db, work: impl FnOnce() -> Result<(), Failure>) -> Result<Result<(), String>, Failure> {
    db.execute_batch("SAVEPOINT inbox")?;
    let done = match work() {
        Ok(()) => Ok(()),
        Err(failure) if failure.passes() => return Err(failure),
        Err(failure) => {
            db.execute_batch("ROLLBACK TO inbox")?;
            Err(failure.cause())
        }
    };
    db.execute_batch("RELEASE inbox")?;
    Ok(done)
}

/// The oldest of what waits, but for what somebody else holds at the moment.
fn take(db: &Db) -> Result<Vec<Wish>, Failure> {
    const SQL: &str = "
        WITH next AS (
            SELECT ctid, number, pg_column_size(context) AS bytes FROM inbox
            ORDER BY number LIMIT :limit FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM inbox WHERE ctid = ANY(ARRAY(
                SELECT ctid FROM (
                    SELECT ctid, sum(bytes) OVER (ORDER BY number) - bytes AS before FROM next
                ) AS sized WHERE before < :bytes))
            RETURNING number, id, workflow, run_key, key_us, priority, due_at, created_at, context
        )
        SELECT id, workflow, run_key, key_us, priority, due_at, created_at, context FROM gone ORDER BY number";
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! { ":limit": signed(TAKEN_MAX), ":bytes": TAKEN_BYTES_MAX };
    let wishes = statement.query_map(params, |row| {
        Ok(Wish {
            id: id_at(row, 0)?,
            workflow: row.get(1)?,
            run_key: row.get(2)?,
            key_us: row.get(3)?,
            priority: row.get::<_, Option<i64>>(4)?.and_then(Priority::new),
            due_at: wall_maybe_at(row, 5)?,
            created_at: wall_at(row, 6)?,
            context: row.get(7)?,
        })
    })?;
    Ok(wishes.collect::<db::Result<_>>()?)
}

fn admit_all(db: &Db, epoch: Epoch, wishes: &[Wish], at: Wall) -> Result<(), Failure> {
    let mut offers = Vec::with_capacity(wishes.len());
    let mut offered = Vec::with_capacity(wishes.len());
    for wish in wishes {
        match wish.fitting() {
            Ok(context) => {
                offers.push(Change::Offer { epoch, runs: vec![wish.run(context, at)] });
                offered.push(wish);
            }
            Err(why) => put_ended(db, &wish.bare(), UNFIT, &why, at)?,
        }
    }
    for (wish, receipt) in offered.into_iter().zip(batch::apply(db, &offers)?) {
        let Receipt::Start(admitted) = receipt else { continue };
        match admitted.first() {
            Some(Admitted::DuplicateKey { of: Some(of) }) => put_alias(db, wish, *of, at)?,
            Some(Admitted::Limited(dropped)) => put_ended(db, wish, DROPPED, &dropped.why, at)?,
            Some(Admitted::Unkeyed(why)) => put_ended(db, wish, UNFIT, why, at)?,
            _ => {}
        }
    }
    Ok(())
}

impl Wish {
    /// Its context as it is kept of any run, or why it can be none.
    fn fitting(&self) -> Result<String, String> {
        if let Some(why) = context::too_large("the context", &self.context, context::CONTEXT_BYTES_MAX) {
            return Err(why);
        }
        context::taken_in(&self.context).map_err(|error| error.message)
    }

    /// As of any run, it was made when it came to be one: by then rules judge it.
    fn run(&self, context: String, at: Wall) -> NewRun {
        let expires_at = Wall(self.created_at.0.saturating_add(self.key_us.unwrap_or(KEY_US)));
        NewRun {
            id: self.id,
            workflow: self.workflow.as_str().into(),
            version: "".into(),
            context: context.into(),
            schedule: None,
            context_hash: None,
            unique_hash: false,
            run_key: self.run_key.clone().map(|key| (key, Some(expires_at))),
            scheduled_at: None,
            waits: false,
            cursor: None,
            ends: None,
            parent: None,
            priority: self.priority,
            due_at: self.due_at,
            // A delay was counted from the server's clock.
            delay_us: None,
            limits: None,
            is_anyones: true,
            trace: None,
            created_at: at,
        }
    }

    /// What can be kept of one that nothing else can be kept of.
    fn bare(&self) -> Self {
        Self {
            workflow: self.workflow.chars().take(NAME_CHARS_MAX).collect(),
            run_key: None,
            context: "{}".to_owned(),
            ..*self
        }
    }
}

/// The key's run stands for it, if that is still kept; otherwise it has ended by that.
fn put_alias(db: &Db, wish: &Wish, of: Uuid, at: Wall) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO aliases (id, run) SELECT :id, id FROM runs WHERE id = :of AND id <> :id";
    if db.prepare_cached(SQL)?.execute(named_params! { ":id": wish.id, ":of": of })? > 0 {
        return Ok(());
    }
    let why = format!("its run key was used by run {of}, which is not kept any more");
    put_ended(db, wish, DROPPED, &why, at)
}

/// A run that ends as it begins.
fn put_ended(
    db: &Db,
    wish: &Wish,
    (status, error_type): (RunStatus, &str),
    why: &str,
    at: Wall,
) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO runs (id, workflow, version, status, unique_hash, run_key, waits, created_at, error_type, error,
            priority, due_at, context, final_context)
        VALUES (:id, :workflow, '', :status, FALSE, :run_key, FALSE, :at, :error_type, :error, :priority, :due_at,
            :context, :context)";
    // By itself: of ends that are written so callbacks are told.
    const END: &str = "UPDATE runs SET completed_at = :at WHERE id = :id";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":id": wish.id,
        ":workflow": wish.workflow,
        ":status": status.name(),
        ":run_key": wish.run_key,
        ":at": at.0,
        ":error_type": error_type,
        ":error": why,
        ":priority": wish.priority.unwrap_or_default().number(),
        ":due_at": micros(wish.due_at),
        ":context": wish.context,
    })?;
    db.prepare_cached(END)?.execute(named_params! { ":id": wish.id, ":at": at.0 })?;
    Ok(())
}

/// Runs, newest first, and before them what waits here.
pub fn list(db: &Db, filter: &RunFilter, page: Page) -> Result<Vec<ListedRun>, Failure> {
    // First: what becomes a run between the two looks is found twice, and not never.
    let most = page.limit.saturating_add(page.offset);
    let waiting = waiting(db, filter, most)?;
    if waiting.is_empty() {
        return run::list(db, filter, page);
    }
    let mut runs = run::list(db, filter, Page { limit: most, offset: 0 })?;
    let known: HashSet<Uuid> = runs.iter().map(|run| run.id).collect();
    runs.extend(waiting.into_iter().filter(|run| !known.contains(&run.id)));
    match run::is_unfinished(filter) {
        true => runs.sort_by_key(|run| Reverse(run.row)),
        false => runs.sort_by_key(|run| Reverse((run.created_at, run.row))),
    }
    let skipped = runs.into_iter().skip(usize::try_from(page.offset).unwrap_or(usize::MAX));
    Ok(skipped.take(usize::try_from(page.limit).unwrap_or(usize::MAX)).collect())
}

/// What [`listed`] reads.
macro_rules! columns {
    () => {
        "number + 4611686018427387904, id, workflow, run_key, coalesce(priority, 5), due_at, created_at, CASE WHEN :contexts THEN context END"
    };
}

fn waiting(db: &Db, filter: &RunFilter, most: u64) -> Result<Vec<ListedRun>, Failure> {
    // It is short, or soon will be.
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM inbox
        WHERE (:workflow::TEXT IS NULL OR workflow = :workflow) AND (:key::TEXT IS NULL OR run_key = :key)
            AND created_at >= :since AND created_at < :until
            AND CASE WHEN :by_row THEN number + 4611686018427387904 < :row ELSE (created_at, number + 4611686018427387904) < (:at, :row) END
        ORDER BY CASE WHEN :by_row THEN number ELSE created_at END DESC, number DESC LIMIT :most"
    );
    let is_other = filter.by == By::End
        || filter.untold
        || filter.trigger.is_some()
        || filter.schedule.is_some()
        || filter.parent.is_some()
        || filter.error_type.is_some()
        || filter.status.is_some_and(|status| status != RunStatus::Pending);
    if is_other {
        return Ok(Vec::new());
    }
    let (at, row) = filter.after.map_or((i64::MAX, i64::MAX), |place| (place.created_at.0, place.row.0));
    let params = named_params! {
        ":contexts": filter.contexts,
        ":workflow": filter.workflow,
        ":key": filter.run_key,
        ":since": filter.since.map_or(i64::MIN, |at| at.0),
        ":until": filter.until.map_or(i64::MAX, |at| at.0),
        ":by_row": run::is_unfinished(filter),
        ":at": at,
        ":row": row,
        ":most": signed(most),
    };
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement.query_map(params, listed)?;
    Ok(found.collect::<db::Result<_>>()?)
}

fn listed(row: &Row) -> db::Result<ListedRun> {
    Ok(ListedRun {
        row: RunRow(row.get(0)?),
        id: id_at(row, 1)?,
        workflow: row.get(2)?,
        status: RunStatus::Pending,
        trigger: None,
        run_key: row.get(3)?,
        context: row.get(7)?,
        final_context: None,
        trace: None,
        context_hash: None,
        scheduled_at: None,
        priority: priority_at(row, 4)?,
        due_at: wall_maybe_at(row, 5)?,
        created_at: wall_at(row, 6)?,
        started_at: None,
        completed_at: None,
        lay_since: None,
        lain_us: 0,
        cancelled: false,
        error: None,
        error_type: None,
        parent: None,
        graph: None,
        children: Vec::new(),
        overdue: Vec::new(),
        calls: Vec::new(),
        former: Vec::new(),
        tries_left_out: Vec::new(),
        last_call: None,
    })
}

/// One run with its tasks, or what waits here under that id, or the run that it is an alias of.
pub fn one(db: &Db, id: Uuid, depth: Depth) -> Result<Option<(ListedRun, Vec<TaskRecord>)>, Failure> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM inbox WHERE id = :id");
    if let Some(found) = run::one(db, id, depth)? {
        return Ok(Some(found));
    }
    let params = named_params! { ":contexts": true, ":id": id };
    if let Some(waiting) = db.prepare_cached(SQL)?.query_row(params, listed).optional()? {
        return Ok(Some((waiting, Vec::new())));
    }
    // What has just left this is there now.
    run::one(db, stands_for(db, id)?.unwrap_or(id), depth)
}

/// The run of which this is an alias.
pub fn stands_for(db: &Db, id: Uuid) -> Result<Option<Uuid>, Failure> {
    const SQL: &str = "SELECT run FROM aliases WHERE id = :id";
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":id": id }, |row| id_at(row, 0)).optional()?)
}

/// Where a run stands in listings, or what waits here.
pub fn place(db: &Db, id: Uuid) -> Result<Option<Place>, Failure> {
    const SQL: &str = "SELECT created_at, number FROM inbox WHERE id = :id";
    if let Some(place) = run::place(db, id)? {
        return Ok(Some(place));
    }
    let place = |row: &Row| {
        let row_of = ROW_FIRST + row.get::<_, i64>(1)?;
        Ok(Place { created_at: wall_at(row, 0)?, row: RunRow(row_of), completed_at: None })
    };
    if let Some(place) = db.prepare_cached(SQL)?.query_row(named_params! { ":id": id }, place).optional()? {
        return Ok(Some(place));
    }
    run::place(db, stands_for(db, id)?.unwrap_or(id))
}

/// Those of these runs that are final, or forgotten, and neither wait here nor are aliases of one that isn't final.
pub fn ended(db: &Db, runs: &[Uuid]) -> Result<Vec<Uuid>, Failure> {
    // By primary keys and index runs_id, in one look.
    const SQL: &str = "
        SELECT asked.id FROM unnest(:ids::UUID[]) WITH ORDINALITY AS asked (id, place)
        WHERE NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.id = asked.id)
            AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = asked.id AND completed_at IS NULL)
            AND NOT EXISTS (
                SELECT 1 FROM aliases JOIN runs ON runs.id = aliases.run AND completed_at IS NULL WHERE aliases.id = asked.id)
        ORDER BY place";
    let found = run::ended(db, runs)?;
    if found.is_empty() {
        return Ok(found);
    }
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement.query_map(named_params! { ":ids": found }, |row| id_at(row, 0))?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// As of any run; what waits here is deleted.
pub fn request_cancel(db: &Db, epoch: Epoch, id: Uuid, at: Wall) -> Result<Vec<Uuid>, Failure> {
    const SQL: &str = "
        DELETE FROM inbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM inbox WHERE id = :id FOR UPDATE SKIP LOCKED))";
    let asked = run::request_cancel(db, epoch, id, at)?;
    if !asked.is_empty() {
        return Ok(asked);
    }
    if db.prepare_cached(SQL)?.execute(named_params! { ":id": id })? > 0 {
        audit::note(db, "cancel", &id.to_string())?;
        return Ok(vec![id]);
    }
    match stands_for(db, id)? {
        Some(of) => run::request_cancel(db, epoch, of, at),
        None => Ok(asked),
    }
}

/// As of any run; by an alias the run that it stands for is opened again.
pub fn reopen(
    db: &Db,
    epoch: Epoch,
    id: Uuid,
    is_dead: impl Fn(Epoch) -> bool,
) -> Result<Option<Unfinished>, Failure> {
    match run::reopen(db, epoch, id, &is_dead)? {
        Some(run) => Ok(Some(run)),
        None => match stands_for(db, id)? {
            Some(of) => run::reopen(db, epoch, of, is_dead),
            None => Ok(None),
        },
    }
}

/// What is not over, of the oldest `limit` such runs, with what waits here: that has no owner.
pub fn backlog(db: &Db, limit: u64, at: Wall) -> Result<Vec<Backlog>, Failure> {
    const SQL: &str = "
        SELECT workflow, count(*), min(created_at) FROM (
            SELECT workflow, created_at FROM inbox ORDER BY number LIMIT :limit
        ) AS waiting GROUP BY workflow ORDER BY workflow";
    let mut statement = db.prepare_cached(SQL)?;
    let waiting = statement.query_map(named_params! { ":limit": signed(limit) }, |row| {
        Ok(Backlog {
            workflow: row.get(0)?,
            owner: None,
            pending: count_at(row, 1)?,
            running: 0,
            oldest_at: wall_at(row, 2)?,
            is_held: false,
            is_delayed: false,
        })
    })?;
    let waiting: Vec<Backlog> = waiting.collect::<db::Result<_>>()?;
    // Looked at first: what becomes a run between the two is counted twice, and not never.
    let mut backlog = look::backlog(db, limit, at)?;
    for waits in waiting {
        let is_same = |known: &&mut Backlog| {
            known.workflow == waits.workflow && known.owner.is_none() && !known.is_held && !known.is_delayed
        };
        match backlog.iter_mut().find(is_same) {
            Some(known) => {
                known.pending += waits.pending;
                known.oldest_at = known.oldest_at.min(waits.oldest_at);
            }
            None => backlog.push(waits),
        }
    }
    Ok(backlog)
}

/// At most `limit` ids that begin like this, of runs, of what waits here, and of aliases.
pub fn ids(db: &Db, first: Uuid, last: Uuid, limit: u64) -> Result<Vec<Uuid>, Failure> {
    const SQL: &str = "
        (SELECT id FROM inbox WHERE id BETWEEN :first AND :last ORDER BY id LIMIT :limit)
        UNION ALL (SELECT id FROM aliases WHERE id BETWEEN :first AND :last ORDER BY id LIMIT :limit)";
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! { ":first": first, ":last": last, ":limit": signed(limit) };
    let found = statement.query_map(params, |row| id_at(row, 0))?;
    Ok(found.collect::<db::Result<_>>()?)
}
