//! Who stands before whom among the unfinished runs of a schedule. Invariant: a run stands behind all that were unfinished when it came, or was
//! opened again, and is before all that come later, whoever has them: so no two wait for each other.

use std::collections::HashMap;

use cloaca_core::admit::Overlap;
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{Room, TickChange, Unfinished};
use uuid::Uuid;

use super::super::db::{self, Db, named_params};
use super::super::dialect::by_index;
use super::super::fault::Failure;
use super::super::owner::owner_is_dead;
use super::super::value::id_at;

/// Of those that were opened again as many may stand between two rows.
pub const BETWEEN: i64 = 1_048_576;

/// The place of a run that was not opened again, by its row.
macro_rules! row_place {
    ($row:literal) => {
        concat!($row, " * 1048576")
    };
}

/// Where a run stands. One that was opened again has a place of its own, between rows.
macro_rules! place {
    ($run:literal) => {
        concat!("coalesce(", $run, "turn, ", $run, "row * 1048576)")
    };
}
pub(crate) use place;

/// The place of a run that was not opened again.
pub fn place_of(row: RunRow) -> i64 {
    row.0.saturating_mul(BETWEEN)
}

/// Where any run stands.
pub fn stands(db: &Db, row: RunRow) -> Result<i64, Failure> {
    const SQL: &str = concat!("SELECT ", place!(""), " FROM runs WHERE row = :row");
    Ok(db.prepare_cached(SQL)?.query_row(named_params! { ":row": row.0 }, |row| row.get(0))?)
}

/// An unfinished run that a schedule fired.
pub struct Other {
    /// The public id.
    pub id: Uuid,
    place: i64,
    waits: bool,
    /// Whether it was opened again, and who asks has it.
    is_again: bool,
    is_own: bool,
    /// Its workflow, if no living owner drives it.
    lost: Option<String>,
}

impl Other {
    /// Whether somebody drives it, or may be about to: whoever declares `workflow` claims it. A run of a workflow that nobody declares any
    /// more holds up nothing.
    pub fn may_go_on(&self, workflow: &str) -> bool {
        self.lost.as_ref().is_none_or(|lost| lost == workflow)
    }
}

/// Of fires that wait for their time at most so many are kept in mind: whether an equal one is unfinished the index knows of all.
const DELAYED_FIRES_MAX: i64 = 100_000;

/// All unfinished runs that schedules fired, by schedule, in the order of their lines. Also those of `epoch`: what was claimed for it may not have been told it
/// yet, and would stand behind those that came after it.
pub fn others(db: &Db, epoch: Epoch) -> Result<HashMap<ScheduleKey, Vec<Other>>, Failure> {
    others_below(db, epoch, None)
}

/// The same; or those of `epoch` only as far as they were opened again, and nothing that came after the run `below`.
fn others_below(
    db: &Db,
    epoch: Epoch,
    below: Option<RunRow>,
) -> Result<HashMap<ScheduleKey, Vec<Other>>, Failure> {
    // What waits for its time is nobody's, and a living owner's to come.
    const SQL: &str = concat!(
        "SELECT schedule, id, ",
        place!(""),
        " AS stands, waits, turn IS NOT NULL, coalesce(owner = :epoch, FALSE), CASE WHEN ",
        owner_is_dead!(),
        " THEN workflow END FROM runs",
        by_index!("runs_unfinished"),
        " WHERE completed_at IS NULL AND not_before IS NULL AND schedule IS NOT NULL
            AND row < :below AND (:all OR turn IS NOT NULL OR owner IS DISTINCT FROM :epoch)
        UNION ALL
        SELECT * FROM (SELECT schedule, id, ",
        place!(""),
        ", waits, turn IS NOT NULL, FALSE, workflow FROM runs",
        by_index!("runs_delayed_fires"),
        " WHERE completed_at IS NULL AND not_before IS NOT NULL AND schedule IS NOT NULL AND row < :below LIMIT :delayed_max) AS delayed
        ORDER BY stands"
    );
    let mut others: HashMap<ScheduleKey, Vec<Other>> = HashMap::new();
    let mut statement = db.prepare_cached(SQL)?;
    let params = named_params! {
        ":epoch": epoch.0,
        ":all": below.is_none(),
        ":below": below.map_or(i64::MAX, |below| below.0),
        ":delayed_max": DELAYED_FIRES_MAX,
    };
    let read = |row: &db::Row| {
        let other = Other {
            id: id_at(row, 1)?,
            place: row.get(2)?,
            waits: row.get(3)?,
            is_again: row.get(4)?,
            is_own: row.get(5)?,
            lost: row.get(6)?,
        };
        Ok((ScheduleKey(row.get(0)?), other))
    };
    for found in statement.query_map(params, read)? {
        let (schedule, other) = found?;
        others.entry(schedule).or_default().push(other);
    }
    Ok(others)
}

/// Tells runs that are handed out, one after another, which ones stand before them; what one of them is told those after it are not told again.
pub fn stand_behind<'r>(
    db: &Db,
    epoch: Epoch,
    handed: impl IntoIterator<Item = &'r mut Unfinished>,
) -> Result<(), Failure> {
    let handed: Vec<_> = handed.into_iter().filter(|run| run.waits || run.is_again).collect();
    // Mostly nothing waits, and nobody looks.
    let Some(last) = handed.iter().map(|run| run.row).max() else { return Ok(()) };
    let is_any_again = handed.iter().any(|run| run.is_again);
    let lines = others_below(db, epoch, (!is_any_again).then_some(last))?;
    // How far each line was told whole.
    let mut told: HashMap<ScheduleKey, usize> = HashMap::new();
    for run in handed {
        let Some(schedule) = run.schedule else { continue };
        let line = lines.get(&schedule).map_or(&[][..], Vec::as_slice);
        let known = told.entry(schedule).or_default();
        run.behind = match run.is_again {
            true => before_again(line, run, known),
            false => before(line, run, *known),
        };
    }
    Ok(())
}

/// What a run waits for, of which who has it may not know: of its own that is what was opened again, as far as it was not told with that.
fn before(line: &[Other], run: &Unfinished, known: usize) -> Vec<Uuid> {
    let place = place_of(run.row);
    let is_new = |(index, other): &(usize, &Other)| !other.is_own || (other.is_again && *index >= known);
    let before = line.iter().enumerate().take_while(|(_, other)| other.place < place).filter(is_new);
    let before = before.filter(|(_, other)| other.waits && other.may_go_on(&run.workflow));
    before.map(|(_, other)| other.id).collect()
}

/// All that a run which was opened again waits for, but for what another one was told of that was handed out before it.
fn before_again(line: &[Other], run: &Unfinished, known: &mut usize) -> Vec<Uuid> {
    // One of more runs that are not due yet than are kept in mind stands behind all.
    let ends = line.iter().position(|other| other.id == run.id).unwrap_or(line.len());
    let mut begins = std::mem::replace(known, ends.max(*known)).min(ends);
    let goes_on = |other: &&Other| other.may_go_on(&run.workflow);
    // By the one right before it it finds its place.
    while begins > 0 && !line[begins..ends].iter().any(|other| goes_on(&other)) {
        begins -= 1;
    }
    line[begins..ends].iter().filter(goes_on).map(|other| other.id).collect()
}

/// A final run is opened again, and stands at the end of the line of what fired it. It waits there if what that fires does not go beside what is unfinished.
/// Whether it waits, if it has a place now.
pub fn enter(db: &Db, run: RunRow, schedule: Option<ScheduleKey>) -> Result<Option<bool>, Failure> {
    // On a server this waits for what is being fired, and what is fired next waits for it.
    const FLAG: &str = "UPDATE schedules SET again = TRUE WHERE row = :schedule";
    // Primary keys; index runs_again.
    const PLACE: &str = concat!(
        "UPDATE runs SET
            waits = waits OR EXISTS (
                SELECT 1 FROM schedules WHERE schedules.row = :schedule AND coalesce(overlap, 'allow') <> 'allow'),
            turn = 1 + (SELECT max(last) FROM (
                SELECT ",
        row_place!("max(row)"),
        " AS last FROM runs
                UNION ALL SELECT max(turn) FROM runs
                WHERE schedule = :schedule AND turn IS NOT NULL AND completed_at IS NULL) AS places)
        WHERE row = :row RETURNING waits"
    );
    let Some(schedule) = schedule else { return Ok(None) };
    if db.prepare_cached(FLAG)?.execute(named_params! { ":schedule": schedule.0 })? == 0 {
        return Ok(None);
    }
    let params = named_params! { ":schedule": schedule.0, ":row": run.0 };
    Ok(Some(db.prepare_cached(PLACE)?.query_row(params, |row| row.get(0))?))
}

/// Runs of its schedule that were opened again stand before what a tick fires. None if there are none such, as it mostly is.
pub fn opened(db: &Db, tick: &TickChange, has_opened: bool) -> Result<Vec<Uuid>, Failure> {
    // Index runs_again.
    const OPENED: &str = concat!(
        "SELECT id FROM runs",
        by_index!("runs_again"),
        " WHERE schedule = :schedule AND turn IS NOT NULL AND completed_at IS NULL
            AND (workflow = (SELECT workflow FROM schedules WHERE schedules.row = :schedule) OR NOT ",
        owner_is_dead!(),
        ") ORDER BY turn"
    );
    const NONE: &str = "UPDATE schedules SET again = FALSE WHERE row = :schedule";
    if !has_opened || tick.fires.is_empty() {
        return Ok(Vec::new());
    }
    let params = named_params! { ":schedule": tick.schedule.0, ":epoch": tick.epoch.0 };
    let opened = db
        .prepare_cached(OPENED)?
        .query_map(params, |row| id_at(row, 0))?
        .collect::<db::Result<Vec<Uuid>>>()?;
    if opened.is_empty() {
        db.prepare_cached(NONE)?.execute(named_params! { ":schedule": tick.schedule.0 })?;
    }
    Ok(opened)
}

/// Those of these pairs of unfinished runs of a line of which the first was opened again, and stands behind the second.
pub fn moved(db: &Db, pairs: &[(Uuid, Uuid)]) -> Result<Vec<(Uuid, Uuid)>, Failure> {
    // Index runs_id.
    const SQL: &str = concat!(
        "SELECT 1 FROM runs AS run JOIN runs AS other ON other.id = :other
        WHERE run.id = :run AND run.completed_at IS NULL AND other.completed_at IS NULL AND run.turn > ",
        place!("other.")
    );
    let mut statement = db.prepare_cached(SQL)?;
    let mut moved = Vec::new();
    for &(run, other) in pairs {
        if statement.exists(named_params! { ":run": run.to_string(), ":other": other.to_string() })? {
            moved.push((run, other));
        }
    }
    Ok(moved)
}

/// How many runs a tick may start beside those that were opened again: who polls may not know of them.
pub fn room(db: &Db, tick: &TickChange, opened: &[Uuid]) -> Result<Option<Room>, Failure> {
    // Index runs_unfinished: few wait for the one that is opened again.
    const UNFINISHED: &str = concat!(
        "SELECT count(*) FROM (SELECT 1 FROM runs",
        by_index!("runs_unfinished"),
        " WHERE schedule = :schedule AND completed_at IS NULL LIMIT :most) AS few"
    );
    let (Some(most), Some(&with)) = (tick.overlap.most(), opened.first()) else { return Ok(tick.room) };
    if matches!(tick.overlap, Overlap::Queue | Overlap::CancelRunning) {
        return Ok(tick.room);
    }
    let most = most as u64;
    let many = match opened.len() as u64 {
        many if many >= most => many,
        _ => {
            let params = named_params! { ":schedule": tick.schedule.0, ":most": most as i64 };
            db.prepare_cached(UNFINISHED)?.query_row(params, |row| row.get::<_, i64>(0))? as u64
        }
    };
    let runs = most.saturating_sub(many);
    Ok(match tick.room {
        Some(room) if room.runs <= runs => Some(room),
        _ => Some(Room { runs, with: Some(with) }),
    })
}

/// Whatever a schedule has fired stands in its line under limits, also what was to wait for nothing: what is opened again waits for it.
pub fn line_up(db: &Db, schedule: i64) -> Result<(), Failure> {
    const SQL: &str = concat!(
        "UPDATE seats SET schedule = :schedule, place = ",
        row_place!("run"),
        " WHERE schedule IS NULL AND EXISTS (SELECT 1 FROM runs WHERE runs.row = seats.run AND runs.schedule = :schedule)"
    );
    db.prepare_cached(SQL)?.execute(named_params! { ":schedule": schedule })?;
    Ok(())
}
