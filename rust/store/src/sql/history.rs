//! What polls decided, as rows of equal outcomes. Invariant: two neighbouring rows of a trigger differ in outcome or reason.

use cloaca_core::key::ScheduleKey;
use cloaca_core::port::{Page, Stretch};

use super::db::{self, Db, OptionalExtension as _, Row, named_params};
use super::dialect::EXTEND;
use super::fault::Failure;
use super::value::{count_at, outcome_at, signed, wall_at};

/// Appends stretches, each to its trigger's last row where that is equal.
pub fn append(db: &Db, stretches: &[Stretch]) -> Result<(), Failure> {
    for stretch in stretches {
        match equal_last(db, stretch)? {
            Some(row) => extend(db, row, stretch)?,
            None => insert(db, stretch)?,
        }
    }
    Ok(())
}

/// A trigger's stretches, newest first.
pub fn list(db: &Db, schedule: ScheduleKey, page: Page) -> Result<Vec<Stretch>, Failure> {
    // Index ticks_schedule.
    const SQL: &str = "
        SELECT schedule, outcome, reason, count, first_at, last_at, min_us, max_us, sum_us
        FROM ticks WHERE schedule = :schedule ORDER BY row DESC LIMIT :limit OFFSET :offset";
    let (limit, offset) = (signed(page.limit), signed(page.offset));
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! { ":schedule": schedule.0, ":limit": limit, ":offset": offset };
    let rows = statement.query_map(params, stretch_of)?;
    Ok(rows.collect::<db::Result<_>>()?)
}

fn stretch_of(row: &Row) -> db::Result<Stretch> {
    Ok(Stretch {
        schedule: ScheduleKey(row.get(0)?),
        outcome: outcome_at(row, 1)?,
        reason: row.get(2)?,
        count: count_at(row, 3)?,
        first_at: wall_at(row, 4)?,
        last_at: wall_at(row, 5)?,
        min_us: count_at(row, 6)?,
        max_us: count_at(row, 7)?,
        sum_us: count_at(row, 8)?,
    })
}

/// The trigger's newest row, if its outcome and reason are those of `stretch`.
fn equal_last(db: &Db, stretch: &Stretch) -> Result<Option<i64>, Failure> {
    // Index ticks_schedule, from its end.
    const SQL: &str = "
        SELECT row, outcome = :outcome AND reason = :reason
        FROM ticks WHERE schedule = :schedule ORDER BY row DESC LIMIT 1";
    let params = named_params! {
        ":schedule": stretch.schedule.0,
        ":outcome": stretch.outcome.name(),
        ":reason": stretch.reason,
    };
    let last: Option<(i64, bool)> =
        db.prepare_cached(SQL)?.query_row(params, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(last.and_then(|(row, is_equal)| is_equal.then_some(row)))
}

fn extend(db: &Db, row: i64, stretch: &Stretch) -> Result<(), Failure> {
    db.prepare_cached(EXTEND)?.execute(named_params! {
        ":row": row,
        ":count": signed(stretch.count),
        ":last_at": stretch.last_at.0,
        ":min_us": signed(stretch.min_us),
        ":max_us": signed(stretch.max_us),
        ":sum_us": signed(stretch.sum_us),
    })?;
    Ok(())
}

fn insert(db: &Db, stretch: &Stretch) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO ticks (schedule, outcome, reason, count, first_at, last_at, min_us, max_us, sum_us)
        VALUES (:schedule, :outcome, :reason, :count, :first_at, :last_at, :min_us, :max_us, :sum_us)";
    db.prepare_cached(SQL)?.execute(named_params! {
        ":schedule": stretch.schedule.0,
        ":outcome": stretch.outcome.name(),
        ":reason": stretch.reason,
        ":count": signed(stretch.count),
        ":first_at": stretch.first_at.0,
        ":last_at": stretch.last_at.0,
        ":min_us": signed(stretch.min_us),
        ":max_us": signed(stretch.max_us),
        ":sum_us": signed(stretch.sum_us),
    })?;
    Ok(())
}
