//! Writes the changes of which there are most, runs that begin and runs that go on, in one statement a kind for a whole batch. Invariant: what comes of it is what
//! would come of the changes one after another; a change of which that isn't plain is left to whoever applies them singly.

use std::collections::HashMap;

use cloaca_core::audit;
use cloaca_core::key::Epoch;
use cloaca_core::port::{Admitted, Change, NewRun, Receipt, RunChange, RunStatus, TaskRecord};

use crate::postgres::db::{self, Db, named_params};
use crate::postgres::fault::Failure;
use crate::postgres::limits::Terms;
use crate::postgres::run::{self, tries};
use crate::postgres::value::micros;

/// Fewer changes are written as quickly one after another.
const CHANGES_MIN: usize = 2;

/// A stretch of changes none of which waits for what comes of another one.
#[derive(Default)]
pub struct Stretch<'c> {
    starts: Vec<(usize, Option<Epoch>, &'c [NewRun])>,
    runs: Vec<(usize, &'c RunChange)>,
}

/// How a run stands before the changes of a batch.
struct Stand {
    owner: Option<i64>,
    guards_hash: bool,
    is_limited: bool,
    has_begun: bool,
}

/// What a batch makes of one run.
#[derive(Default)]
struct Course<'c> {
    /// Of its first record, if it begins with that.
    begins: Option<Option<i64>>,
    end: Option<&'c RunChange>,
    /// The last record of each task, in the order of the first ones.
    tasks: Vec<&'c TaskRecord>,
}

impl<'c> Stretch<'c> {
    /// Takes a change in, if it is of the kinds that are written together; what must stand alone is a barrier between two stretches.
    pub fn takes(&mut self, place: usize, change: &'c Change) -> bool {
        match change {
            Change::Start { epoch, runs, cron: None }
                if audit::current().is_none() && runs.iter().all(is_plain) =>
            {
                self.starts.push((place, Some(*epoch), runs));
            }
            Change::Offer { runs, .. } if runs.iter().all(is_plain) => self.starts.push((place, None, runs)),
            // A cancel asks for the ends of others.
            Change::Run(change)
                if change.end.as_ref().is_none_or(|end| end.status != RunStatus::Cancelled) =>
            {
                self.runs.push((place, change));
            }
            _ => return false,
        }
        true
    }

    /// Whether it is worth while to write them together.
    pub fn is_worth_while(&self) -> bool {
        self.starts.iter().map(|(.., runs)| runs.len()).sum::<usize>() + self.runs.len() >= CHANGES_MIN
    }

    /// Writes the starts; those that limits count are left over.
    pub fn start(
        &self,
        db: &Db,
        terms: &mut Terms,
        mut is_living: impl FnMut(Epoch) -> Result<bool, Failure>,
        changes: &[Change],
        receipts: &mut [Option<Receipt>],
    ) -> Result<(), Failure> {
        let mut kept: Vec<(Option<Epoch>, &NewRun)> = Vec::new();
        let mut places = Vec::new();
        for &(place, owner, runs) in &self.starts {
            let (Change::Start { epoch, .. } | Change::Offer { epoch, .. }) = &changes[place] else {
                continue;
            };
            if !is_living(*epoch)? {
                receipts[place] = Some(Receipt::Fenced);
                continue;
            }
            let mut are_limited = false;
            for new in runs {
                are_limited |= new.limits.is_some() || terms.of(db, new)?.is_some();
            }
            if !are_limited {
                places.push((place, runs));
                kept.extend(runs.iter().map(|new| (owner, new)));
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        let mut rows = run::insert_all(db, &kept)?;
        for (place, runs) in places {
            let admitted = runs.iter().map(|new| match rows.remove(&new.id) {
                Some(row) => Ok(Admitted::Started { row }),
                None => Err(Failure::Refused(format!("run {} is in the store already", new.id))),
            });
            receipts[place] = Some(Receipt::Start(admitted.collect::<Result<_, _>>()?));
        }
        Ok(())
    }

    /// Writes how far runs have come; those whose ends concern others are left over.
    pub fn go_on(&self, db: &Db, receipts: &mut [Option<Receipt>]) -> Result<(), Failure> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let stands = stands(db, self.runs.iter().map(|(_, change)| change.run.0))?;
        let mut courses: HashMap<i64, Course<'_>> = HashMap::with_capacity(self.runs.len());
        let mut order = Vec::with_capacity(self.runs.len());
        for &(place, change) in &self.runs {
            let row = change.run.0;
            let Some(stand) = stands.get(&row).filter(|stand| stand.owner == Some(change.epoch.0)) else {
                receipts[place] = Some(Receipt::Fenced);
                continue;
            };
            if stand.guards_hash || stand.is_limited {
                continue;
            }
            let course = courses.entry(row).or_insert_with(|| {
                order.push(row);
                Course::default()
            });
            if course.end.is_some() {
                receipts[place] = Some(Receipt::Fenced);
                continue;
            }
            match &change.end {
                Some(_) => course.end = Some(change),
                None if !stand.has_begun
                    && !change.tasks.is_empty()
                    && course.begins.is_none_or(|at| at.is_none()) =>
                {
                    course.begins = Some(started_at(change));
                }
                None => {}
            }
            for task in &change.tasks {
                match course.tasks.iter_mut().find(|known| known.name == task.name) {
                    Some(known) => *known = task,
                    None => course.tasks.push(task),
                }
                tries::put(db, change, task)?;
            }
            receipts[place] = Some(Receipt::Run(None));
        }
        let courses: Vec<(i64, Course<'_>)> =
            order.into_iter().filter_map(|row| Some((row, courses.remove(&row)?))).collect();
        move_on(db, &courses)?;
        put_tasks(db, &courses)
    }
}

/// Whether nothing can stand in the way of a new run but its own id.
fn is_plain(new: &NewRun) -> bool {
    new.schedule.is_none()
        && new.context_hash.is_none()
        && new.run_key.is_none()
        && new.scheduled_at.is_none()
        && new.ends.is_none()
        && new.parent.is_none()
}

/// How these runs stand, but for those that are final.
fn stands(db: &Db, rows: impl Iterator<Item = i64>) -> Result<HashMap<i64, Stand>, Failure> {
    const SQL: &str = "
        SELECT row, owner, unique_hash, limited, status <> 'Pending' AND started_at IS NOT NULL AND lay_since IS NULL
        FROM runs WHERE row = ANY(:rows::BIGINT[]) AND completed_at IS NULL";
    let rows: Vec<i64> = rows.collect();
    let mut statement = db.prepare_cached(SQL)?;
    let found = statement.query_map(named_params! { ":rows": rows }, |row| {
        let stand = Stand {
            owner: row.get(1)?,
            guards_hash: row.get(2)?,
            is_limited: row.get(3)?,
            has_begun: row.get(4)?,
        };
        Ok((row.get(0)?, stand))
    })?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// When the first of the tasks in `change` began; none if all of them were skipped.
fn started_at(change: &RunChange) -> Option<i64> {
    micros(change.tasks.iter().filter_map(|task| task.started_at).min())
}

/// Where runs stand now.
fn move_on(db: &Db, courses: &[(i64, Course<'_>)]) -> Result<(), Failure> {
    const BEGIN: &str = "
        UPDATE runs SET status = 'Running', started_at = coalesce(runs.started_at, begun.at), timed_at = begun.at,
            lain_us = lain_us
                + CASE WHEN runs.started_at IS NOT NULL AND begun.at > lay_since THEN begun.at - lay_since ELSE 0 END,
            lay_since = CASE WHEN begun.at IS NULL THEN lay_since END
        FROM unnest(:row::BIGINT[], :at::BIGINT[]) AS begun (row, at) WHERE runs.row = begun.row";
    const END: &str = "
        UPDATE runs SET
            status = ended.status,
            started_at = coalesce(runs.started_at, ended.started_at),
            timed_at = coalesce(ended.timed_at, runs.timed_at),
            lain_us = lain_us + CASE
                WHEN runs.started_at IS NOT NULL AND ended.started_at > lay_since THEN ended.started_at - lay_since ELSE 0 END,
            lay_since = CASE WHEN ended.started_at IS NULL THEN lay_since END,
            completed_at = ended.completed_at,
            final_context = ended.context,
            error = ended.error,
            error_type = ended.error_type,
            end_number = NULL
        FROM unnest(:row::BIGINT[], :status::TEXT[], :started_at::BIGINT[], :timed_at::BIGINT[], :completed_at::BIGINT[],
            :context::TEXT[], :error::TEXT[], :error_type::TEXT[])
            AS ended (row, status, started_at, timed_at, completed_at, context, error, error_type)
        WHERE runs.row = ended.row";
    let begun: Vec<&(i64, Course<'_>)> =
        courses.iter().filter(|(_, course)| course.end.is_none() && course.begins.is_some()).collect();
    if !begun.is_empty() {
        db.prepare_cached(BEGIN)?.execute(named_params! {
            ":row": begun.iter().map(|(row, _)| *row).collect::<Vec<_>>(),
            ":at": begun.iter().map(|(_, course)| course.begins.flatten()).collect::<Vec<_>>(),
        })?;
    }
    let ended: Vec<(i64, &Course<'_>, &RunChange)> =
        courses.iter().filter_map(|(row, course)| Some((*row, course, course.end?))).collect();
    if ended.is_empty() {
        return Ok(());
    }
    let ends: Vec<_> = ended.iter().filter_map(|(.., change)| change.end.as_ref()).collect();
    let error_types = ends.iter().map(|end| {
        (end.status != RunStatus::Completed).then(|| end.error_type.as_deref().unwrap_or_default())
    });
    db.prepare_cached(END)?.execute(named_params! {
        ":row": ended.iter().map(|(row, ..)| *row).collect::<Vec<_>>(),
        ":status": ends.iter().map(|end| end.status.name()).collect::<Vec<_>>(),
        ":started_at": ended.iter().map(|(_, course, change)| course.begins.flatten().or(started_at(change))).collect::<Vec<_>>(),
        ":timed_at": ended.iter().map(|(_, course, _)| course.begins.flatten()).collect::<Vec<_>>(),
        ":completed_at": ends.iter().map(|end| end.completed_at.0).collect::<Vec<_>>(),
        ":context": ends.iter().map(|end| &*end.context).collect::<Vec<_>>(),
        ":error": ends.iter().map(|end| end.error.as_deref()).collect::<Vec<_>>(),
        ":error_type": error_types.collect::<Vec<_>>(),
    })?;
    Ok(())
}

/// The records of their tasks, each in its place.
fn put_tasks(db: &Db, courses: &[(i64, Course<'_>)]) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO tasks (run, name, position, status, attempt, started_at, completed_at, error, context, interrupted, postponed,
            not_before, wait_us, checkpoint, rests_since)
        SELECT run, name, (SELECT coalesce(max(position) + 1, 0) FROM tasks WHERE tasks.run = put.run) + place, status, attempt,
            started_at, completed_at, error, context, interrupted, postponed, not_before, wait_us, checkpoint, rests_since
        FROM unnest(:run::BIGINT[], :name::TEXT[], :place::BIGINT[], :status::TEXT[], :attempt::BIGINT[], :started_at::BIGINT[],
            :completed_at::BIGINT[], :error::TEXT[], :context::TEXT[], :interrupted::BIGINT[], :postponed::BIGINT[],
            :not_before::BIGINT[], :wait_us::BIGINT[], :checkpoint::TEXT[], :rests_since::BIGINT[])
            AS put (run, name, place, status, attempt, started_at, completed_at, error, context, interrupted, postponed, not_before,
                wait_us, checkpoint, rests_since)
        ON CONFLICT (run, name) DO UPDATE SET
            status = excluded.status,
            attempt = excluded.attempt,
            interrupted = excluded.interrupted,
            started_at = excluded.started_at,
            completed_at = excluded.completed_at,
            error = excluded.error,
            context = excluded.context,
            postponed = excluded.postponed,
            not_before = excluded.not_before,
            wait_us = excluded.wait_us,
            checkpoint = excluded.checkpoint,
            rests_since = excluded.rests_since";
    let put: Vec<(i64, i64, &TaskRecord)> = courses
        .iter()
        .flat_map(|(row, course)| (0..).zip(&course.tasks).map(|(place, &task)| (*row, place, task)))
        .collect();
    if put.is_empty() {
        return Ok(());
    }
    db.prepare_cached(SQL)?.execute(named_params! {
        ":run": put.iter().map(|(row, ..)| *row).collect::<Vec<_>>(),
        ":name": put.iter().map(|(.., task)| &*task.name).collect::<Vec<_>>(),
        ":place": put.iter().map(|(_, place, _)| *place).collect::<Vec<_>>(),
        ":status": put.iter().map(|(.., task)| task.status.name()).collect::<Vec<_>>(),
        ":attempt": put.iter().map(|(.., task)| i64::from(task.attempt)).collect::<Vec<_>>(),
        ":started_at": put.iter().map(|(.., task)| micros(task.started_at)).collect::<Vec<_>>(),
        ":completed_at": put.iter().map(|(.., task)| micros(task.completed_at)).collect::<Vec<_>>(),
        ":error": put.iter().map(|(.., task)| task.error.as_deref()).collect::<Vec<_>>(),
        ":context": put.iter().map(|(.., task)| task.context.as_deref()).collect::<Vec<_>>(),
        ":interrupted": put.iter().map(|(.., task)| i64::from(task.interrupted)).collect::<Vec<_>>(),
        ":postponed": put.iter().map(|(.., task)| i64::from(task.postponed)).collect::<Vec<_>>(),
        ":not_before": put.iter().map(|(.., task)| micros(task.wait.map(|wait| wait.not_before))).collect::<Vec<_>>(),
        ":wait_us": put.iter().map(|(.., task)| task.wait.map(|wait| wait.span_us)).collect::<Vec<_>>(),
        ":checkpoint": put.iter().map(|(.., task)| task.checkpoint.as_deref()).collect::<Vec<_>>(),
        ":rests_since": put.iter().map(|(.., task)| micros(task.rests_since)).collect::<Vec<_>>(),
    })?;
    Ok(())
}
