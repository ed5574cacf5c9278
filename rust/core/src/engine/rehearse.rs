//! Rehearses a poll: its fires pass the gate as those of a real one do, and what is left goes to the store, which plays the very tick
//! and undoes it. Invariant: when it is over the gate is as it was, and nothing else was touched.

use std::sync::Arc;

use uuid::Uuid;

use crate::admit::{Admission, Gate};
use crate::engine::fires::{Looked, Refusal, Sent, let_through};
use crate::engine::hands::new_run;
use crate::engine::stuck::reason_of;
use crate::engine::{Declared, Engine, Fire, Request};
use crate::error::excerpt;
use crate::fate;
use crate::key::{Epoch, ScheduleKey};
use crate::limit::Limits;
use crate::port::{Admitted, Change, NewRun, Receipt, TickChange};
use crate::time::{Now, Wall};
use crate::urgency::{Priority, Urgency};
use crate::workflow::Workflow;

/// What the gate would do with a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It would start a run, which begins at once.
    Run,
    /// It would start a run, which waits for its turn.
    Queue,
    /// An equal one is unfinished, or ended after the poll began.
    Deduplicate,
    /// Its run key is used.
    RefuseKey,
    /// By its overlap policy, or by a limit.
    Drop,
    /// One of its row before it is dropped.
    HoldBack,
    /// Nobody declares its workflow, it has not the key of that one's limits, or its poll counts for nothing.
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

    /// Of a fire that fails.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, None, why)
    }
}

const EQUAL_BEFORE: &str = "deduplicated: an equal fire of this poll comes before it";
const KEY_BEFORE: &str = "deduplicated: a fire of this poll with the same run key comes before it";

/// A workflow, as far as the fate of its runs depends on it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its name.
    pub name: Arc<str>,
    /// Its content version.
    pub version: Arc<str>,
    /// How urgent its runs are, unless one says so.
    pub priority: Priority,
    /// What limits them where it is declared.
    pub limits: Option<Arc<Limits>>,
    /// Whether none of them begins for now.
    pub is_paused: bool,
}

/// A poll that is rehearsed.
#[derive(Debug, Clone)]
pub struct Poll {
    /// Its trigger's row.
    pub schedule: ScheduleKey,
    /// Who would keep its tick.
    pub epoch: Epoch,
    /// When it began.
    pub at: Wall,
    /// How often its cursor had been set when it looked at that.
    pub cursor_set: i64,
    /// How many ends of runs were known then.
    pub ends: Option<i64>,
    /// The cursor as JSON text, if it set that.
    pub cursor: Option<String>,
}

/// Fires that have passed the gate, as far as they did.
#[derive(Debug)]
pub struct Rehearsal {
    changes: Vec<Change>,
    early: Vec<Early>,
    /// The first unfinished run of the trigger.
    before: Option<Uuid>,
    workflow: Arc<str>,
    is_paused: bool,
}

#[derive(Debug)]
enum Early {
    Sent,
    Refused(Admission),
    HeldBack,
}

impl Engine {
    /// The fires of a poll of the trigger in that place, rehearsed up to the store; why they would fail instead, if its workflow is unknown or its
    /// limits refuse one.
    pub fn rehearse(
        &mut self,
        place: u32,
        poll: Poll,
        fires: Vec<Fire>,
        now: Now,
    ) -> Result<Rehearsal, Foretold> {
        let Some(declared) = self.declared_in(place).cloned() else {
            return Err(Foretold::failed("its trigger is declared no more"));
        };
        let Some(workflow) = self.workflows.get(&declared.row.workflow).cloned() else {
            let why = self.unknown_workflow(&declared.row.name, &declared.row.workflow);
            return Err(Foretold::failed(why.to_string()));
        };
        let ids: Vec<Uuid> = fires.iter().map(|_| self.new_id(now.wall)).collect();
        let (asked, fires) = (self.asked(&workflow), ids.into_iter().zip(fires).collect());
        rehearse(&mut self.gate, &declared, &asked, poll, fires, now.wall)
    }

    /// Runs of a workflow that are started by hand, one after another, rehearsed likewise.
    pub fn rehearse_starts(
        &mut self,
        workflow: &str,
        runs: Vec<(Arc<str>, Urgency)>,
        now: Now,
    ) -> Option<Rehearsal> {
        let workflow = self.workflows.get(workflow).cloned()?;
        let runs = runs.into_iter().map(|(context, urgency)| (self.new_id(now.wall), context, urgency));
        let runs = runs.collect();
        Some(starts(&self.asked(&workflow), self.epoch, runs, now.wall))
    }

    /// A workflow as it is declared here, if it is.
    pub fn asked_of(&self, workflow: &str) -> Option<Asked> {
        self.workflows.get(workflow).map(|workflow| self.asked(workflow))
    }

    fn asked(&self, workflow: &Workflow) -> Asked {
        Asked {
            name: Arc::clone(&workflow.name),
            version: Arc::clone(&workflow.version),
            priority: workflow.priority,
            limits: workflow.limits.clone(),
            is_paused: self.pauses.holds(&workflow.name),
        }
    }

    /// Who keeps what is polled here.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// The fires of a poll, with the ids of their runs, by a gate alone; why all of them would fail instead, if the workflow's limits refuse one.
pub fn rehearse(
    gate: &mut Gate,
    declared: &Declared,
    workflow: &Asked,
    poll: Poll,
    fires: Vec<(Uuid, Fire)>,
    now: Wall,
) -> Result<Rehearsal, Foretold> {
    let refused = workflow
        .limits
        .as_ref()
        .and_then(|limits| declared.refused(limits, fires.iter().map(|(_, fire)| fire)));
    if let Some(why) = refused {
        return Err(Foretold::failed(why.to_string()));
    }
    let room = gate.room(poll.schedule, declared.overlap);
    let before = gate.first_of(poll.schedule);
    let mut sent = Sent::new(room, fires.len());
    let ends = poll.ends.filter(|_| poll.cursor.is_none());
    let looked = Looked { schedule: poll.schedule, ends };
    let mut early = Vec::with_capacity(fires.len());
    for (id, fire) in fires {
        if sent.holds_back(&fire) {
            early.push(Early::HeldBack);
            continue;
        }
        let make = |request: &Request| run_of(workflow, request, now);
        match let_through(gate, declared, looked, fire, id, &sent, make) {
            Ok(run) => {
                sent.note(run);
                early.push(Early::Sent);
            }
            Err(Refusal::Gate(admission)) => early.push(Early::Refused(admission)),
            Err(Refusal::Unknown(_)) => unreachable!("its workflow is at hand"),
        }
    }
    // The gate knows nothing of what was only rehearsed.
    for run in &sent.runs {
        gate.release(run.id);
    }
    let is_dropped = |early: &Early| matches!(early, Early::Refused(admission) if !matches!(admission, Admission::Duplicate { .. }));
    let is_row_cut = sent.has_row() && early.iter().any(is_dropped);
    let tick = TickChange {
        schedule: poll.schedule,
        epoch: poll.epoch,
        cursor: poll.cursor.filter(|_| !is_row_cut),
        cursor_set: poll.cursor_set,
        at: poll.at,
        overlap: declared.overlap,
        room: sent.room(),
        fires: sent.runs,
        dropped: 0,
        held_back: 0,
        history: Vec::new(),
        disable: None,
        wait_us: None,
        failures: 0,
        told: None,
        cron: None,
    };
    Ok(Rehearsal {
        changes: vec![Change::Tick(tick)],
        early,
        before,
        workflow: Arc::clone(&workflow.name),
        is_paused: workflow.is_paused,
    })
}

/// Runs that are started by hand, one after another.
pub fn starts(workflow: &Asked, epoch: Epoch, runs: Vec<(Uuid, Arc<str>, Urgency)>, now: Wall) -> Rehearsal {
    let early = runs.iter().map(|_| Early::Sent).collect();
    let start = |(id, context, urgency)| {
        let request = Request { urgency, ..Request::of(id, context) };
        Change::Start { epoch, runs: vec![run_of(workflow, &request, now)], cron: None }
    };
    let changes = runs.into_iter().map(start).collect();
    Rehearsal {
        changes,
        early,
        before: None,
        workflow: Arc::clone(&workflow.name),
        is_paused: workflow.is_paused,
    }
}

impl Rehearsal {
    /// What the store is to play.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What would become of each fire, by what the store has said to its changes.
    pub fn told(self, receipts: Vec<Receipt>) -> Vec<Foretold> {
        let mut fates: Vec<Result<Admitted, String>> = Vec::new();
        for receipt in receipts {
            match receipt {
                Receipt::Tick { fates: told, .. } | Receipt::Start(told) => {
                    fates.extend(told.into_iter().map(Ok));
                }
                Receipt::Overtaken { .. } => {
                    fates.extend(
                        self.runs().map(|_| Err("discarded: its cursor was set by a call meanwhile".into())),
                    );
                }
                Receipt::Refused(why) => fates.extend(self.runs().map(|_| Err(why.clone()))),
                _ => fates.extend(
                    self.runs().map(|_| Err("discarded: another runner polls its trigger by now".into())),
                ),
            }
        }
        let runs: Vec<&NewRun> = self.runs().collect();
        let own = |run: &Uuid| runs.iter().any(|new| new.id == *run);
        let mut placed = 0_u64;
        let mut sent = runs.iter().zip(fates);
        let mut told = Vec::with_capacity(self.early.len());
        for early in &self.early {
            told.push(match early {
                Early::HeldBack => held_back(),
                Early::Refused(admission) => refused(*admission, own),
                Early::Sent => {
                    let (new, fate) = sent.next().expect("each that was sent has a fate");
                    match fate {
                        Err(why) => Foretold::failed(why),
                        Ok(fate) if fate.is_kept() => {
                            let told = self.kept(new, &fate, placed);
                            placed += 1;
                            told
                        }
                        Ok(fate) => unkept(new, &fate, own),
                    }
                }
            });
        }
        told
    }

    fn runs(&self) -> impl Iterator<Item = &NewRun> {
        self.changes.iter().flat_map(|change| match change {
            Change::Tick(tick) => tick.fires.as_slice(),
            Change::Start { runs, .. } => runs.as_slice(),
            _ => &[],
        })
    }

    /// What would become a run, behind so many of its poll.
    fn kept(&self, new: &NewRun, fate: &Admitted, placed: u64) -> Foretold {
        let queued = |run, reason: String| Foretold::new(Verdict::Queue, run, reason);
        if let Some(due) = new.due_at.filter(|_| new.is_delayed()) {
            return queued(None, format!("it is not due before {}", due.rfc3339()));
        }
        match self.before {
            Some(run) if new.waits => {
                return queued(Some(run), format!("overlap: it waits behind run {run}"));
            }
            None if new.waits && placed > 0 => {
                return queued(None, "overlap: it waits behind a fire of this poll".to_owned());
            }
            _ => {}
        }
        let workflow = excerpt(&self.workflow);
        match fate {
            _ if self.is_paused => queued(None, format!("workflow '{workflow}' is paused")),
            Admitted::Held { .. } => {
                queued(None, format!("it waits until the limits of workflow '{workflow}' let it begin"))
            }
            _ => Foretold::new(Verdict::Run, None, ""),
        }
    }
}

fn run_of(workflow: &Asked, request: &Request, now: Wall) -> NewRun {
    let run = new_run(&workflow.name, &workflow.version, request, now);
    NewRun { priority: run.priority.or(Some(workflow.priority)), limits: workflow.limits.clone(), ..run }
}

fn held_back() -> Foretold {
    Foretold::new(Verdict::HoldBack, None, "a fire of this poll before it is dropped")
}

/// By the gate alone; `own` are the runs of this poll, which are none yet.
fn refused(admission: Admission, own: impl Fn(&Uuid) -> bool) -> Foretold {
    let reason = reason_of(admission).unwrap_or_default();
    match admission {
        Admission::Duplicate { of } if own(&of) => Foretold::new(Verdict::Deduplicate, None, EQUAL_BEFORE),
        Admission::Duplicate { of } => Foretold::new(Verdict::Deduplicate, Some(of), reason),
        Admission::Overlaps { with } if own(&with) => overlaps_before(),
        Admission::Overlaps { with } => Foretold::new(Verdict::Drop, Some(with), reason),
        Admission::Run | Admission::QueueFull => Foretold::new(Verdict::Drop, None, reason),
    }
}

fn overlaps_before() -> Foretold {
    Foretold::new(Verdict::Drop, None, "overlap: an earlier fire of this poll is unfinished")
}

/// By the store.
fn unkept(new: &NewRun, fate: &Admitted, own: impl Fn(&Uuid) -> bool) -> Foretold {
    let reason = fate::dropped(new, fate).unwrap_or_default();
    match fate {
        Admitted::DuplicateHash { of } if own(of) => Foretold::new(Verdict::Deduplicate, None, EQUAL_BEFORE),
        Admitted::DuplicateHash { of } | Admitted::Ended { of, .. } => {
            Foretold::new(Verdict::Deduplicate, Some(*of), reason)
        }
        Admitted::DuplicateKey { of: Some(of) } if own(of) => {
            Foretold::new(Verdict::RefuseKey, None, KEY_BEFORE)
        }
        Admitted::DuplicateKey { of } => Foretold::new(Verdict::RefuseKey, *of, reason),
        Admitted::Overlaps { with } if own(with) => overlaps_before(),
        Admitted::Overlaps { with } => {
            Foretold::new(Verdict::Drop, Some(*with), format!("overlap: run {with} is unfinished"))
        }
        Admitted::HeldBack => held_back(),
        Admitted::Unkeyed(_) => Foretold::new(Verdict::Fail, None, reason),
        Admitted::Limited(_) | Admitted::Started { .. } | Admitted::Held { .. } => {
            Foretold::new(Verdict::Drop, None, reason)
        }
    }
}
