//! Says what would become of the fires of a poll, for whoever only looks. Pure: changes nothing, and counts nothing.
//! Invariant: of a fire it says what its tick would find now, as far as this runner knows it.

use std::collections::HashSet;

use uuid::Uuid;

use crate::admit::{Admission, Gate, Overlap};
use crate::engine::stuck::reason_of;
use crate::engine::{Engine, Fire};
use crate::error::excerpt;
use crate::key::ScheduleKey;

/// What the gate would do with a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It would start a run, which begins at once.
    Run,
    /// It would start a run, which waits for its turn.
    Queue,
    /// An equal one is unfinished.
    Deduplicate,
    /// Its run key is used.
    RefuseKey,
    /// By its overlap policy.
    Drop,
    /// One of its row before it is dropped.
    HoldBack,
    /// Nobody declares its workflow.
    Fail,
}

/// A verdict, the run that is the cause of it, and the same in words; those are empty where a run would begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foretold {
    /// What would become of the fire.
    pub verdict: Verdict,
    /// The run that stands in the way, or before it.
    pub run: Option<Uuid>,
    /// Why.
    pub reason: String,
}

impl Foretold {
    fn new(verdict: Verdict, run: Option<Uuid>, reason: impl Into<String>) -> Self {
        Self { verdict, run, reason: reason.into() }
    }
}

const EQUAL_BEFORE: &str = "deduplicated: an equal fire of this poll comes before it";
const KEY_BEFORE: &str = "deduplicated: a fire of this poll with the same run key comes before it";

/// A trigger, as far as the fate of its fires depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Its row.
    pub schedule: ScheduleKey,
    /// Whether equal contexts may run side by side.
    pub allow_concurrent: bool,
    /// What a fire does while a run is unfinished.
    pub overlap: Overlap,
}

impl Engine {
    /// What would become of these fires of the trigger in that place; `holders` are the runs that have their run keys.
    pub fn foretell(
        &self,
        place: u32,
        schedule: ScheduleKey,
        fires: &[Fire],
        holders: &[Option<Uuid>],
    ) -> Vec<Foretold> {
        let Some(declared) = self.declared_in(place) else { return Vec::new() };
        if !self.workflows.contains_key(&declared.row.workflow) {
            let why = self.unknown_workflow(&declared.row.name, &declared.row.workflow).to_string();
            return fires.iter().map(|_| Foretold::new(Verdict::Fail, None, why.as_str())).collect();
        }
        let of =
            Asked { schedule, allow_concurrent: declared.row.allow_concurrent, overlap: declared.overlap };
        foretell(&self.gate, of, fires, holders)
    }
}

/// The same by a gate alone, of a trigger whose workflow is known.
pub fn foretell(gate: &Gate, of: Asked, fires: &[Fire], holders: &[Option<Uuid>]) -> Vec<Foretold> {
    let Asked { schedule, allow_concurrent, overlap } = of;
    let room = gate.room(schedule, overlap);
    let mut poll =
        Poll { placed: 0, in_row: 0, hashes: HashSet::new(), keys: HashSet::new(), is_stopped: false };
    let mut told = Vec::with_capacity(fires.len());
    for (fire, holder) in fires.iter().zip(holders) {
        let guard = (!allow_concurrent && fire.cursor.is_none()).then_some(fire.hash);
        let is_in_row = fire.cursor.is_some();
        let refused = match is_in_row {
            true if poll.is_stopped => {
                Some(Foretold::new(Verdict::HoldBack, None, "a fire of this poll before it is dropped"))
            }
            true => None,
            false => kept_out(gate, of, guard, &poll),
        };
        let refused = refused.or_else(|| key_refused(fire, *holder, &poll)).or_else(|| {
            let (room, placed) = (room?, if is_in_row { poll.in_row } else { poll.placed });
            let with =
                room.with.map_or("an earlier fire of this poll".to_owned(), |run| format!("run {run}"));
            (placed >= room.runs)
                .then(|| Foretold::new(Verdict::Drop, room.with, format!("overlap: {with} is unfinished")))
        });
        if let Some(refused) = refused {
            poll.is_stopped |= is_in_row && refused.verdict == Verdict::Drop;
            told.push(refused);
            continue;
        }
        let before = room.and_then(|room| room.with);
        let waits = overlap.waits() && (before.is_some() || poll.placed > 0);
        told.push(match (waits, before) {
            (false, _) => Foretold::new(Verdict::Run, None, ""),
            (true, Some(run)) => {
                Foretold::new(Verdict::Queue, before, format!("overlap: it waits behind run {run}"))
            }
            (true, None) => {
                Foretold::new(Verdict::Queue, None, "overlap: it waits behind a fire of this poll")
            }
        });
        poll.placed += 1;
        poll.in_row += u64::from(is_in_row);
        poll.hashes.extend(guard);
        poll.keys.extend(fire.run_key.as_ref().map(|(key, _)| key.clone()));
    }
    told
}

/// Why a fire without a cursor of its own goes no further than the gate.
fn kept_out(gate: &Gate, of: Asked, guard: Option<[u8; 16]>, poll: &Poll) -> Option<Foretold> {
    if guard.is_some_and(|hash| poll.hashes.contains(&hash)) {
        return Some(Foretold::new(Verdict::Deduplicate, None, EQUAL_BEFORE));
    }
    let admission = gate.admit(of.schedule, guard, of.overlap);
    let (verdict, run) = match admission {
        Admission::Run => return None,
        Admission::Duplicate { of } => (Verdict::Deduplicate, Some(of)),
        Admission::Overlaps { with } => (Verdict::Drop, Some(with)),
        Admission::QueueFull => (Verdict::Drop, None),
    };
    Some(Foretold::new(verdict, run, reason_of(admission).unwrap_or_default()))
}

/// What the fires of the poll so far would take.
struct Poll {
    placed: u64,
    in_row: u64,
    hashes: HashSet<[u8; 16]>,
    keys: HashSet<String>,
    is_stopped: bool,
}

fn key_refused(fire: &Fire, holder: Option<Uuid>, poll: &Poll) -> Option<Foretold> {
    let (key, _) = fire.run_key.as_ref()?;
    if let Some(of) = holder {
        let why = format!("deduplicated: run key '{}' started run {of}", excerpt(key));
        return Some(Foretold::new(Verdict::RefuseKey, holder, why));
    }
    poll.keys.contains(key).then(|| Foretold::new(Verdict::RefuseKey, None, KEY_BEFORE))
}
