//! Runs that come together: what stands in their way is looked up for all at once, and those that become runs are written at once, since each statement is a
//! way to the server and back on which everybody else waits. Invariant: each meets what it would meet if it came by itself after those before it.

use std::collections::HashMap;

use cloaca_core::fault_point::{Step, around};
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{Admitted, ContextHash, NewRun};
use cloaca_core::time::Wall;
use uuid::Uuid;

use crate::postgres::db::{self, Db, named_params};
use crate::postgres::fault::Failure;
use crate::postgres::limits::{self, Entrant, Judged, Terms};
use crate::postgres::run::{self, key_of};
use crate::postgres::schedule::twin::twins;
use crate::postgres::value::{id_at, micros};

/// Fewer are looked up as quickly one after another.
const FIRES_MIN: usize = 2;

/// The fires of one poll, on their way to becoming runs.
pub struct Fires<'f> {
    at: Wall,
    /// Who has used each run key.
    keys: HashMap<&'f str, Uuid>,
    /// The unfinished run with each hash; apart, because limits are asked between the two.
    unguarded: HashMap<ContextHash, Uuid>,
    guarded: HashMap<ContextHash, Uuid>,
    /// The last equal run that ended since the poll began.
    ended: HashMap<ContextHash, (Uuid, i64)>,
    /// Those that become runs and are not written yet, with their places in the poll, and what limits count them for.
    kept: Vec<(usize, &'f NewRun, Option<Entrant>)>,
}

impl<'f> Fires<'f> {
    /// None of those that are to come one after another: few, of a moment, or of more than one trigger.
    pub fn of(db: &Db, fires: &'f [NewRun], at: Wall) -> Result<Option<Self>, Failure> {
        let schedule = fires.first().and_then(|fire| fire.schedule);
        // In the store a key with a NUL is the same as another one without.
        let is_odd = |fire: &NewRun| {
            fire.schedule != schedule
                || fire.scheduled_at.is_some()
                || fire.run_key.as_ref().is_some_and(|(key, _)| key.contains('\0'))
        };
        let Some(schedule) = schedule.filter(|_| fires.len() >= FIRES_MIN && !fires.iter().any(is_odd))
        else {
            return Ok(None);
        };
        let (unguarded, guarded) = unfinished(db, schedule, fires)?;
        Ok(Some(Self {
            at,
            keys: key_holders(db, schedule, fires, at)?,
            unguarded,
            guarded,
            ended: ended_since(db, schedule, fires)?,
            kept: Vec::new(),
        }))
    }

    /// As [`run::taken`].
    pub fn taken(&self, fire: &NewRun) -> Option<Admitted> {
        if let Some(of) = self.key_holder(fire) {
            return Some(Admitted::DuplicateKey { of: Some(of) });
        }
        let hash = fire.context_hash.filter(|_| fire.unique_hash)?;
        self.guarded.get(&hash).map(|&of| Admitted::DuplicateHash { of })
    }

    /// The run that has used the key of a fire.
    fn key_holder(&self, fire: &NewRun) -> Option<Uuid> {
        self.keys.get(&*fire.run_key.as_ref()?.0).copied()
    }

    /// What becomes of the fire at that place, by the order of [`run::admit`]; the row of one that becomes a run is known once all is [written](Self::write).
    pub fn admit(
        &mut self,
        db: &Db,
        terms: &mut Terms,
        owner: Epoch,
        (place, fire): (usize, &'f NewRun),
        fates: &mut [Admitted],
    ) -> Result<Admitted, Failure> {
        let hash = fire.context_hash;
        if fire.parent.is_none() {
            if let Some(of) = self.key_holder(fire) {
                return Ok(Admitted::DuplicateKey { of: Some(of) });
            }
            let unique = hash.filter(|_| fire.unique_hash);
            if let Some(&of) = unique.and_then(|hash| self.unguarded.get(&hash)) {
                return Ok(Admitted::DuplicateHash { of });
            }
            let since = fire.ends.zip(hash).and_then(|(_, hash)| self.ended.get(&hash));
            if let Some(&(of, number)) =
                since.filter(|(_, number)| fire.ends.is_some_and(|ends| *number > ends))
            {
                return Ok(Admitted::Ended { of, number });
            }
            let limits = terms.of(db, fire)?;
            if let Some(&of) = unique.and_then(|hash| self.guarded.get(&hash)) {
                return Ok(Admitted::DuplicateHash { of });
            }
            let entrant = match limits.as_ref().map(|limits| limits::judge_alone(limits, fire)) {
                Some(Judged::Refused(refused)) => return Ok(refused),
                Some(Judged::Entrant(entrant)) => Some(Some(entrant)),
                Some(Judged::ByItself) => None,
                None => Some(None),
            };
            if let Some(entrant) = entrant {
                self.note(fire);
                self.kept.push((place, fire, entrant));
                // Until it is written.
                return Ok(Admitted::Started { row: RunRow(0) });
            }
        }
        // What depends on those before it comes by itself, after them.
        self.write(db, owner, fates)?;
        let fate = around(Step::Admit, || run::admit(db, terms, Some(owner), fire, self.at))?;
        if fate.is_kept() {
            self.note(fire);
        }
        Ok(fate)
    }

    /// A fire is a run, and stands in the way of those after it.
    fn note(&mut self, fire: &'f NewRun) {
        if let Some(hash) = fire.context_hash {
            let unfinished = if fire.unique_hash { &mut self.guarded } else { &mut self.unguarded };
            unfinished.entry(hash).or_insert(fire.id);
        }
        if let Some((key, expires_at)) = &fire.run_key
            && expires_at.is_none_or(|expires_at| expires_at > self.at)
        {
            self.keys.insert(key, fire.id);
        }
    }

    /// Writes those that become runs, and puts their rows in their places.
    pub fn write(&mut self, db: &Db, owner: Epoch, fates: &mut [Admitted]) -> Result<(), Failure> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let kept: Vec<(Option<Epoch>, &NewRun)> =
            self.kept.iter().map(|(_, fire, _)| (Some(owner), *fire)).collect();
        let mut rows = around(Step::Admit, || insert_all(db, &kept))?;
        hold_keys(db, &kept)?;
        let mut counted = Vec::new();
        for (place, fire, entrant) in self.kept.drain(..) {
            let Some(row) = rows.remove(&fire.id) else {
                return Err(Failure::Refused(format!("run {} is in the store already", fire.id)));
            };
            let is_held = entrant.as_ref().is_some_and(|entrant| entrant.is_held(fire));
            fates[place] = if is_held { Admitted::Held { row } } else { Admitted::Started { row } };
            counted.extend(entrant.map(|entrant| (row, fire, entrant)));
        }
        limits::enter_all(db, counted)
    }
}

/// As [`run::key_holder`].
fn key_holders<'f>(
    db: &Db,
    schedule: ScheduleKey,
    fires: &'f [NewRun],
    at: Wall,
) -> Result<HashMap<&'f str, Uuid>, Failure> {
    const SQL: &str = concat!(
        "SELECT asked.place, run FROM unnest(:keys::TEXT[]) WITH ORDINALITY AS asked (key, place)
        JOIN run_keys ON run_keys.key = asked.key AND (expires_at IS NULL OR expires_at > :at)
            AND schedule IN (SELECT CAST(:row AS BIGINT) UNION ALL ",
        twins!(),
        ")"
    );
    let keys: Vec<&str> =
        fires.iter().filter_map(|fire| fire.run_key.as_ref()).map(|(key, _)| &**key).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement
        .query_map(named_params! { ":keys": keys, ":row": schedule.0, ":at": at.0 }, |row| {
            Ok((place_at(row)?, id_at(row, 1)?))
        })?;
    let mut holders = HashMap::new();
    for holder in found {
        let (place, run) = holder?;
        holders.entry(keys[place]).or_insert(run);
    }
    Ok(holders)
}

/// As [`run::unguarded`] and [`run::guarded`].
#[expect(clippy::type_complexity, reason = "the two are told apart by their names")]
fn unfinished(
    db: &Db,
    schedule: ScheduleKey,
    fires: &[NewRun],
) -> Result<(HashMap<ContextHash, Uuid>, HashMap<ContextHash, Uuid>), Failure> {
    // Indices runs_unguarded and runs_hash.
    const SQL: &str = "
        SELECT id, context_hash, unique_hash FROM (
            SELECT row, id, context_hash, unique_hash FROM runs
            WHERE schedule = :schedule AND context_hash = ANY(:hashes::BYTEA[]) AND NOT unique_hash AND completed_at IS NULL
            UNION ALL
            SELECT row, id, context_hash, unique_hash FROM runs
            WHERE schedule = :schedule AND context_hash = ANY(:hashes::BYTEA[]) AND unique_hash AND completed_at IS NULL
        ) AS unfinished ORDER BY row";
    let (mut unguarded, mut guarded) = (HashMap::new(), HashMap::new());
    let hashes: Vec<Option<&[u8]>> = fires
        .iter()
        .filter(|fire| fire.unique_hash)
        .filter_map(|fire| fire.context_hash.as_ref())
        .map(|hash| Some(&hash[..]))
        .collect();
    if hashes.is_empty() {
        return Ok((unguarded, guarded));
    }
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! { ":schedule": schedule.0, ":hashes": hashes };
    let found = statement.query_map(params, |row| Ok((id_at(row, 0)?, row.get(1)?, row.get(2)?)))?;
    for run in found {
        let (id, hash, unique): (Uuid, ContextHash, bool) = run?;
        let unfinished = if unique { &mut guarded } else { &mut unguarded };
        unfinished.entry(hash).or_insert(id);
    }
    Ok((unguarded, guarded))
}

/// The last run with each hash that has ended, of those that may have ended since a poll began.
fn ended_since(
    db: &Db,
    schedule: ScheduleKey,
    fires: &[NewRun],
) -> Result<HashMap<ContextHash, (Uuid, i64)>, Failure> {
    // By index runs_ended, for each.
    const SQL: &str = "
        SELECT asked.place, id, end_number
        FROM unnest(:hashes::BYTEA[], :ends::BIGINT[]) WITH ORDINALITY AS asked (hash, ends, place)
        CROSS JOIN LATERAL (
            SELECT id, end_number FROM runs
            WHERE schedule = :schedule AND context_hash = asked.hash AND end_number > asked.ends
            ORDER BY end_number DESC LIMIT 1) AS ended";
    let asked: Vec<(&ContextHash, i64)> =
        fires.iter().filter_map(|fire| fire.context_hash.as_ref().zip(fire.ends)).collect();
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! {
        ":hashes": asked.iter().map(|(hash, _)| Some(&hash[..])).collect::<Vec<_>>(),
        ":ends": asked.iter().map(|(_, ends)| *ends).collect::<Vec<_>>(),
        ":schedule": schedule.0,
    };
    let found = statement.query_map(params, |row| Ok((place_at(row)?, (id_at(row, 1)?, row.get(2)?))))?;
    found
        .map(|ended| ended.map(|(place, ended)| (*asked[place].0, ended)))
        .collect::<db::Result<_>>()
        .map_err(Into::into)
}

/// Which of those that were asked for a row is about.
fn place_at(row: &db::Row) -> db::Result<usize> {
    let number: i64 = row.get(0)?;
    usize::try_from(number - 1).map_err(|_| db::Error::Column(0, format!("{number} is no place")))
}

/// The rows of those that are new, by their ids. Nothing may stand in their way but their ids, and nothing is noted beside them.
pub fn insert_all(db: &Db, kept: &[(Option<Epoch>, &NewRun)]) -> Result<HashMap<Uuid, RunRow>, Failure> {
    // Numbered in their order.
    const SQL: &str = "
        INSERT INTO runs (id, workflow, version, status, schedule, context_hash, unique_hash, run_key, waits, owner, created_at,
            context, priority, due_at, delay_us, not_before, trace)
        SELECT id, workflow, version, 'Pending', schedule, context_hash, unique_hash, run_key, waits, owner, created_at, context,
            coalesce(priority, (SELECT priority FROM workflows WHERE name = new.workflow ORDER BY owner DESC LIMIT 1), 5),
            due_at, delay_us, not_before, trace
        FROM unnest(:id::UUID[], :workflow::TEXT[], :version::TEXT[], :schedule::BIGINT[], :context_hash::BYTEA[],
            :unique_hash::BOOLEAN[], :run_key::TEXT[], :waits::BOOLEAN[], :owner::BIGINT[], :created_at::BIGINT[], :context::TEXT[],
            :priority::BIGINT[], :due_at::BIGINT[], :delay_us::BIGINT[], :not_before::BIGINT[], :trace::TEXT[])
            WITH ORDINALITY AS new (id, workflow, version, schedule, context_hash, unique_hash, run_key, waits, owner, created_at,
                context, priority, due_at, delay_us, not_before, trace, place)
        ORDER BY place
        ON CONFLICT DO NOTHING RETURNING id, row";
    let column =
        |of: &dyn Fn(&NewRun) -> Option<i64>| kept.iter().map(|(_, new)| of(new)).collect::<Vec<_>>();
    let owner = |(by, new): &(Option<Epoch>, &NewRun)| by.and_then(|by| new.owner(by)).map(|epoch| epoch.0);
    let hashes = kept.iter().map(|(_, new)| new.context_hash.as_ref().map(|hash| &hash[..]));
    let keys = kept.iter().map(|(_, new)| new.run_key.as_ref().map(|(key, _)| &**key));
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(
        named_params! {
            ":id": kept.iter().map(|(_, new)| new.id).collect::<Vec<_>>(),
            ":workflow": kept.iter().map(|(_, new)| &*new.workflow).collect::<Vec<_>>(),
            ":version": kept.iter().map(|(_, new)| &*new.version).collect::<Vec<_>>(),
            ":schedule": column(&|new| new.schedule.map(|schedule| schedule.0)),
            ":context_hash": hashes.collect::<Vec<_>>(),
            ":unique_hash": kept.iter().map(|(_, new)| new.unique_hash).collect::<Vec<_>>(),
            ":run_key": keys.collect::<Vec<_>>(),
            ":waits": kept.iter().map(|(_, new)| new.waits).collect::<Vec<_>>(),
            ":owner": kept.iter().map(owner).collect::<Vec<_>>(),
            ":created_at": kept.iter().map(|(_, new)| new.created_at.0).collect::<Vec<_>>(),
            ":context": kept.iter().map(|(_, new)| &*new.context).collect::<Vec<_>>(),
            ":priority": column(&|new| new.priority.map(|priority| i64::from(priority.number()))),
            ":due_at": column(&|new| micros(new.due_at)),
            ":delay_us": column(&|new| new.delay_us),
            ":not_before": column(&|new| micros(new.due_at.filter(|_| new.is_delayed()))),
            ":trace": kept.iter().map(|(_, new)| new.trace.as_deref()).collect::<Vec<_>>(),
        },
        |row| Ok((row.get(0)?, row.get(1).map(RunRow)?)),
    )?;
    Ok(rows.collect::<db::Result<_>>()?)
}

/// As [`run::hold_key`], for those that have one.
fn hold_keys(db: &Db, kept: &[(Option<Epoch>, &NewRun)]) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO run_keys (schedule, key, run, expires_at)
        SELECT DISTINCT ON (schedule, key) schedule, key, run, expires_at
        FROM unnest(:schedule::BIGINT[], :key::TEXT[], :run::UUID[], :expires_at::BIGINT[])
            WITH ORDINALITY AS held (schedule, key, run, expires_at, place)
        ORDER BY schedule, key, place DESC
        ON CONFLICT (schedule, key) DO UPDATE SET run = excluded.run, expires_at = excluded.expires_at";
    let held: Vec<_> = kept
        .iter()
        .filter_map(|(_, new)| {
            let (key, expires_at) = new.run_key.as_ref()?;
            let (schedule, key) = key_of(new, key);
            Some((schedule, key, new.id, micros(*expires_at)))
        })
        .collect();
    if held.is_empty() {
        return Ok(());
    }
    db.prepare_cached(SQL)?.execute(named_params! {
        ":schedule": held.iter().map(|(schedule, ..)| *schedule).collect::<Vec<_>>(),
        ":key": held.iter().map(|(_, key, ..)| &**key).collect::<Vec<&str>>(),
        ":run": held.iter().map(|(.., run, _)| *run).collect::<Vec<_>>(),
        ":expires_at": held.iter().map(|(.., expires_at)| *expires_at).collect::<Vec<_>>(),
    })?;
    Ok(())
}
