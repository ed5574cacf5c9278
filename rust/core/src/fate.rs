//! Decides what becomes of the fires of one tick, and where the cursor stands after them. Pure: the store looks up what it
//! knows of a fire, and asks here. Invariant: the cursor moves only past what was taken, or is refused for good by its run key.

use uuid::Uuid;

use crate::error::excerpt;
use crate::key::ScheduleKey;
use crate::port::{Admitted, NewRun, Outcome, Room, Stretch, TickChange};
use crate::time::Wall;

/// What is to be done with the next fire of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It becomes a run, unless its run key, its hash or its moment is taken.
    Try,
    /// Unless its run key or its hash is taken, it is dropped, because of what stands in [`Room::with`].
    Full(Room),
    /// It is not tried: one of the row before it was dropped.
    HoldBack,
}

/// The fires of one tick, one after another: those that are refused take no room. Those that carry a cursor are a row, which ends at the first that is
/// dropped.
#[derive(Debug)]
pub struct Judge {
    room: Option<Room>,
    has_stopped: bool,
}

impl Judge {
    /// Before the first fire of a tick that may start so many runs; any number if `room` is none.
    pub fn new(room: Option<Room>) -> Self {
        Self { room, has_stopped: false }
    }

    /// What to do with a fire that carries a cursor, or does not.
    pub fn next(&self, in_row: bool) -> Next {
        match self.room {
            _ if in_row && self.has_stopped => Next::HoldBack,
            Some(room) if room.runs == 0 => Next::Full(room),
            _ => Next::Try,
        }
    }

    /// Notes what became of that fire.
    pub fn note(&mut self, fire: &NewRun, fate: &Admitted) {
        self.has_stopped |= fire.cursor.is_some() && !is_behind(fate);
        if let Some(room) = self.room.as_mut().filter(|_| fate.is_kept()) {
            *room = Room { runs: room.runs.saturating_sub(1), with: room.with.or(Some(fire.id)) };
        }
    }
}

/// Whether a fire's event needs no further poll.
fn is_behind(fate: &Admitted) -> bool {
    match fate {
        Admitted::Started { .. } | Admitted::Held { .. } | Admitted::DuplicateKey { .. } => true,
        Admitted::DuplicateHash { .. }
        | Admitted::Limited(_)
        | Admitted::Unkeyed(_)
        | Admitted::Ended { .. }
        | Admitted::Overlaps { .. }
        | Admitted::HeldBack => false,
    }
}

/// The cursor that a tick leaves, if it moves: that of the last fire of the row that was taken or used up, or `set`, which stands
/// behind them all, if neither one of the row was dropped nor overlap dropped one beside it.
pub fn cursor_after<'t>(
    row: impl IntoIterator<Item = (Option<&'t str>, &'t Admitted)>,
    set: Option<&'t str>,
) -> Option<&'t str> {
    let (mut last, mut is_cut) = (None, false);
    for (cursor, fate) in row {
        match cursor {
            None => is_cut |= matches!(fate, Admitted::Overlaps { .. }),
            Some(_) if !is_behind(fate) => return last,
            Some(cursor) => last = Some(cursor),
        }
    }
    // Without a row it is the poll's own, which stands where the poll has set it.
    set.filter(|_| last.is_none() || !is_cut).or(last)
}

/// The same of a tick whose fires have met these fates.
pub fn cursor_of<'t>(tick: &'t TickChange, fates: &'t [Admitted]) -> Option<&'t str> {
    let row = tick.fires.iter().map(|fire| fire.cursor.as_deref()).zip(fates);
    cursor_after(row, tick.cursor.as_deref())
}

/// What the history says of a poll that wished to fire, now that the fates of its fires are known. A poll of which nothing came is no
/// fire, whatever it wished.
pub fn story(tick: &TickChange, fates: &[Admitted]) -> (Outcome, String) {
    let fires = || tick.fires.iter().zip(fates);
    if let Some(why) = fates.iter().find_map(Admitted::unkeyed) {
        return (Outcome::Error, why.to_owned());
    }
    if fates.iter().any(Admitted::is_kept) {
        let many = |is_it: fn(&Admitted) -> bool| fates.iter().filter(|fate| is_it(fate)).count() as u64;
        let overlaps = many(|fate| matches!(fate, Admitted::Overlaps { .. }));
        let held_back = many(|fate| matches!(fate, Admitted::HeldBack));
        let left = left_out(tick.dropped + overlaps, tick.held_back + held_back);
        let left = with_limited(left, fates);
        // What it said of itself: that its moment goes on later.
        let said = || tick.history.last().map_or_else(String::new, |last| last.reason.to_string());
        return (Outcome::Fire, if left.is_empty() { said() } else { left });
    }
    // What stopped the row says more than those that came after it.
    let stop = fires().find(|(_, fate)| matches!(fate, Admitted::Overlaps { .. } | Admitted::Limited(_)));
    let is_refused = stop.is_none();
    let others = tick.fires.len().saturating_sub(1);
    match stop.or_else(|| fires().next_back()).and_then(|(fire, fate)| dropped(fire, fate)) {
        Some(reason) if is_refused && others > 0 => {
            (Outcome::Skip, format!("{reason}, and {}", more(others)))
        }
        Some(reason) => (Outcome::Skip, reason),
        None => (Outcome::Fire, String::new()),
    }
}

/// What the history says of a poll that counts for nothing, because a call has set the cursor since it looked at that; or has skipped the end of a run,
/// where `is_told` says that it is told of those: then not even that it failed.
pub fn overtaken(tick: &TickChange, is_told: bool) -> Vec<Stretch> {
    let mut history = tick.history.clone();
    if let Some(last) = history.last_mut().filter(|last| is_told || last.outcome != Outcome::Error) {
        last.outcome = Outcome::Skip;
        let what = if is_told { "that end of a run was skipped" } else { "its cursor was set" };
        last.reason = format!("discarded: {what} by a call meanwhile").into();
    }
    history
}

/// What the history says of an end of which a trigger is not told, because a call has skipped it.
pub fn skipped(schedule: ScheduleKey, run: Uuid, at: Wall) -> Stretch {
    Stretch {
        schedule,
        outcome: Outcome::Skip,
        reason: format!("the end of run {run} was skipped by a call").into(),
        count: 1,
        first_at: at,
        last_at: at,
        min_us: 0,
        max_us: 0,
        sum_us: 0,
    }
}

/// What the history says of so many ends that a trigger is told no more, as their runs are deleted: it was off, or nobody's, for too long.
pub fn gone(schedule: ScheduleKey, count: u64, at: Wall) -> Stretch {
    Stretch { reason: GONE.into(), count, ..skipped(schedule, Uuid::nil(), at) }
}

/// In one row, however many these are.
const GONE: &str = "the end of a run was never told: that run was deleted, as old as it was";

/// With what limits dropped of a poll that started others.
fn with_limited(left: String, fates: &[Admitted]) -> String {
    let limited = |fate: &Admitted| match fate {
        Admitted::Limited(dropped) => Some(dropped.why.clone()),
        _ => None,
    };
    let mut whys = fates.iter().filter_map(limited);
    let Some(first) = whys.next() else { return left };
    let first = match whys.count() {
        0 => format!("1 fire was dropped by {first}"),
        more => format!("{} fires were dropped by {first}", more + 1),
    };
    if left.is_empty() { first } else { format!("{left}; {first}") }
}

fn more(refused: usize) -> String {
    if refused == 1 {
        "1 more fire was refused".to_owned()
    } else {
        format!("{refused} more fires were refused")
    }
}

/// That fires were left out of a poll that started others.
pub fn left_out(dropped: u64, held_back: u64) -> String {
    let fires = |many| if many == 1 { "1 fire".to_owned() } else { format!("{many} fires") };
    match (dropped, held_back) {
        (0, 0) => String::new(),
        (dropped, 0) => format!("overlap dropped {}", fires(dropped)),
        (dropped, held_back) => format!("overlap dropped {} and held {held_back} back", fires(dropped)),
    }
}

/// Why a fire was dropped; in the engine's words for what it drops itself.
pub fn dropped(fire: &NewRun, fate: &Admitted) -> Option<String> {
    let key = || {
        let key = fire.run_key.as_ref().map(|(key, _)| format!("run key '{}'", excerpt(key)));
        key.unwrap_or_else(|| "its moment".to_owned())
    };
    match fate {
        Admitted::Started { .. } | Admitted::Held { .. } | Admitted::HeldBack => None,
        Admitted::Limited(limited) => {
            let waits = if fire.cursor.is_some() { "; the cursor waits" } else { "" };
            Some(format!("{}{waits}", limited.why))
        }
        Admitted::Unkeyed(why) => Some(why.to_string()),
        Admitted::Overlaps { with } => {
            let waits = if fire.cursor.is_some() { "; the cursor waits" } else { "" };
            Some(format!("overlap: run {with} is unfinished{waits}"))
        }
        Admitted::DuplicateHash { of } => {
            Some(format!("deduplicated: run {of} with an equal context is unfinished"))
        }
        Admitted::Ended { of, .. } => {
            Some(format!("deduplicated: run {of} with an equal context ended after this poll began"))
        }
        Admitted::DuplicateKey { of: Some(of) } => Some(format!("deduplicated: {} started run {of}", key())),
        Admitted::DuplicateKey { of: None } => Some(format!("deduplicated: {} was used before", key())),
    }
}
