//! How words of the core look in columns. Invariant: what one function writes, its partner reads back.

use cloaca_core::grid::Wait;
use cloaca_core::past::Past;
use cloaca_core::port::{ContextHash, Outcome, RunStatus, TaskStatus, TryOutcome};
use cloaca_core::time::Wall;
use cloaca_core::urgency::Priority;
use uuid::Uuid;

use crate::postgres::db::{Error, Result, Row};

/// A count or a bound as a signed integer; beyond its end there is nothing to count.
pub fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A time's column.
pub fn micros(at: Option<Wall>) -> Option<i64> {
    at.map(|at| at.0)
}

pub fn is_null_at(row: &Row, column: usize) -> Result<bool> {
    row.is_null(column)
}

pub fn count_at(row: &Row, column: usize) -> Result<u64> {
    let count: i64 = row.get(column)?;
    u64::try_from(count).map_err(|_| Error::Column(column, format!("{count} is no count")))
}

/// How many polls in a row have failed.
/// What is over of a cron; nothing of a trigger.
pub fn past_at(row: &Row, column: usize) -> Result<Past> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|text| Past::read(&text)).unwrap_or_default())
}

pub fn failures_at(row: &Row, column: usize) -> Result<u32> {
    Ok(u32::try_from(count_at(row, column)?).unwrap_or(u32::MAX))
}

pub fn wall_at(row: &Row, column: usize) -> Result<Wall> {
    row.get(column).map(Wall)
}

pub fn wall_maybe_at(row: &Row, column: usize) -> Result<Option<Wall>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Wall))
}

/// A wait, whose two columns stand side by side.
pub fn wait_at(row: &Row, column: usize) -> Result<Option<Wait>> {
    let (end, span_us): (Option<i64>, Option<i64>) = (row.get(column)?, row.get(column + 1)?);
    Ok(end.zip(span_us).map(|(end, span_us)| Wait { not_before: Wall(end), span_us }))
}

pub fn priority_at(row: &Row, column: usize) -> Result<Priority> {
    let number: i64 = row.get(column)?;
    Priority::new(number).ok_or_else(|| Error::Column(column, format!("{number} is no priority")))
}

pub fn id_at(row: &Row, column: usize) -> Result<Uuid> {
    row.get(column)
}

pub fn hash_at(row: &Row, column: usize) -> Result<Option<ContextHash>> {
    row.get(column)
}

pub fn run_status_at(row: &Row, column: usize) -> Result<RunStatus> {
    word_at(row, column, RunStatus::from_name)
}

pub fn task_status_at(row: &Row, column: usize) -> Result<TaskStatus> {
    word_at(row, column, TaskStatus::from_name)
}

pub fn outcome_at(row: &Row, column: usize) -> Result<Outcome> {
    word_at(row, column, Outcome::from_name)
}

pub fn try_outcome_at(row: &Row, column: usize) -> Result<TryOutcome> {
    word_at(row, column, TryOutcome::from_name)
}

fn word_at<T>(row: &Row, column: usize, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    let text: String = row.get(column)?;
    parse(&text)
        .ok_or_else(|| Error::Column(column, format!("'{text}' is a word that this cloaca does not know")))
}
