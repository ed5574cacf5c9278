//! Judges the fires of a poll.
//! Invariant: every fire becomes a run or a reason in the tick's history.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::admit::{Admission, Gate, Overlap};
use crate::engine::hands::by_hand;
use crate::engine::line::Turn;
use crate::engine::stuck::reason_of;
use crate::engine::{Declared, Effects, Engine, Fire, Note, Polled, Request, Then};
use crate::fate::left_out;
use crate::key::ScheduleKey;
use crate::port::{Change, ContextHash, NewRun, Outcome, Parent, Room, Stretch, TickChange};
use crate::seat::{Kind, Pause, Until};
use crate::time::Now;

impl Engine {
    pub(super) fn polled(&mut self, mut polled: Polled, now: Now, out: &mut Effects) {
        let Some(declared) = self.declared_in(polled.place).cloned() else { return };
        let moment = self.called_for(polled.schedule);
        let fires = std::mem::take(&mut polled.fires);
        let mut verdict = Verdict::of(&polled.reason);
        let asked = fires.len() as u64;
        self.counts.fires += asked;
        let trigger = Arc::clone(&declared.row.name);
        self.meter.fired(&trigger).fires += asked;
        self.ask_about(polled.place, &fires);
        let mut sent = Sent::new(self.gate.room(polled.schedule, declared.overlap), fires.len());
        // Who moves the cursor is not asked again for what is behind it.
        let ends = polled.cursor.is_none().then_some(polled.ends).filter(|_| moment.is_none());
        let looked = Looked { schedule: polled.schedule, ends };
        for fire in fires {
            if sent.holds_back(&fire) {
                sent.held_back += 1;
                continue;
            }
            match self.admit(&declared, looked, fire, &sent, now, out) {
                Ok(run) => sent.note(run),
                Err(refusal) => {
                    match &refusal {
                        Refusal::Gate(Admission::Duplicate { .. }) => {
                            self.counts.deduplicated += 1;
                            self.meter.fired(&trigger).deduplicated += 1;
                        }
                        Refusal::Gate(_) => sent.dropped += 1,
                        Refusal::Unknown(_) => (polled.cursor, polled.told) = (None, None),
                    }
                    verdict.take(refusal);
                }
            }
        }
        self.counts.dropped += sent.dropped;
        self.counts.held_back += sent.held_back;
        let counts = self.meter.fired(&trigger);
        counts.dropped += sent.dropped;
        counts.held_back += sent.held_back;
        if !sent.runs.is_empty() && verdict.outcome != Outcome::Error {
            let left = left_out(sent.dropped, sent.held_back);
            // Of a moment that goes on later the history says so.
            let is_put_off = moment.is_some() && polled.wait.is_some() && left.is_empty();
            let reason = if is_put_off { verdict.reason } else { left };
            verdict = Verdict { outcome: Outcome::Fire, reason, note: None };
        }
        if verdict.outcome == Outcome::Error {
            self.counts.errors += 1;
            self.meter.fired(&trigger).errors += 1;
            out.logs.extend(verdict.note.take());
        }
        if let Some(cause) = &polled.disable {
            out.logs.push(Note::TriggerDisabled { trigger, cause: cause.as_str().into() });
        }
        if sent.dropped > 0 && polled.cursor.is_some() {
            match sent.has_row {
                // What stands behind all of a row is not reached.
                true => polled.cursor = None,
                false => self.warn_of_loss(&declared.row.name, out),
            }
        }
        let (room, sent_row) = (sent.room(), sent.has_row);
        let Sent { mut runs, dropped, held_back, .. } = sent;
        if let Some((limit, span)) = polled.holds.take() {
            let (name, by) = (limit, format!("a poll of trigger '{}'", declared.row.name).into());
            let until = Until::At(now.wall.after(span));
            let pause = Pause { kind: Kind::Limit, name, key: "".into(), until, since: now.wall, by };
            self.hold_up(pause, out);
        }
        let cron = moment.map(|moment| {
            let step = self.moment_over(&polled, !runs.is_empty(), now, out);
            // What bears a moment says that it is over.
            if let Some(first) = runs.first_mut().filter(|_| step.decided.is_some()) {
                first.scheduled_at = Some(moment);
            }
            step
        });
        let change = TickChange {
            schedule: polled.schedule,
            epoch: self.epoch,
            cursor: polled.cursor.take(),
            cursor_set: polled.cursor_set,
            at: polled.at,
            overlap: declared.overlap,
            fires: runs,
            room,
            dropped,
            held_back,
            history: std::mem::take(&mut polled.history),
            disable: polled.disable.take(),
            wait_us: polled.wait.filter(|_| cron.is_none()).map(wait_us),
            failures: polled.failures,
            told: polled.told,
            cron,
        };
        let may_overlap = change.room.is_some() || change.overlap != Overlap::Allow;
        let passes = change.cursor.is_some() && may_overlap && !sent_row;
        self.send_tick(&polled, Asked { fires: asked, passes }, verdict, change, out);
        if moment.is_some() && self.crons.get(polled.schedule).is_none() {
            // Its name may be another's by now, who waits for this answer.
            self.leave_moment(polled.schedule, out);
        }
    }

    /// The cursor of this tick moves past a fire that overlap has dropped.
    pub(super) fn warn_of_loss(&mut self, trigger: &Arc<str>, out: &mut Effects) {
        if self.warned.insert(Arc::clone(trigger)) {
            out.logs.push(Note::EventLost { trigger: Arc::clone(trigger) });
        }
    }

    fn admit(
        &mut self,
        trigger: &Declared,
        looked: Looked,
        fire: Fire,
        sent: &Sent,
        now: Now,
        out: &mut Effects,
    ) -> Result<NewRun, Refusal> {
        let Declared { row, overlap } = trigger;
        let Some(workflow) = self.workflows.get(&row.workflow).cloned() else {
            return Err(Refusal::Unknown(self.unknown_workflow(&row.name, &row.workflow)));
        };
        let id = self.new_id(now.wall);
        let make = |request: &Request| by_hand(&workflow, request, now.wall);
        let run = let_through(&mut self.gate, trigger, looked, fire, id, sent, make)?;
        if run.waits {
            let cancels = *overlap == Overlap::CancelRunning;
            self.turns.insert(id, Turn { kept: false, cancels, resumed: None });
        }
        Ok(self.take_or_send(run, &workflow, now, out))
    }

    fn send_tick(
        &self,
        polled: &Polled,
        asked: Asked,
        verdict: Verdict,
        mut change: TickChange,
        out: &mut Effects,
    ) {
        let &Polled { place, schedule, at, duration_us, .. } = polled;
        change.history.push(Stretch {
            schedule,
            outcome: verdict.outcome,
            reason: verdict.reason.into(),
            count: 1,
            first_at: at,
            last_at: at,
            min_us: duration_us,
            max_us: duration_us,
            sum_us: duration_us,
        });
        let runs = change.fires.iter().map(|run| run.id).collect();
        let is_told = change.told.is_some();
        let disables = change.disable.is_some().then_some(schedule);
        let Asked { fires, passes } = asked;
        out.commits
            .push((Change::Tick(change), Then::Tick { place, fires, passes, runs, at, disables, is_told }));
    }

    pub(super) fn unknown_workflow(&self, by: &str, workflow: &str) -> Note {
        Note::UnknownWorkflow { by: by.into(), workflow: workflow.into(), known: self.workflow_names() }
    }
}

/// Of a poll what the fate of its fires depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    /// Its trigger's row.
    pub schedule: ScheduleKey,
    /// How many ends of runs were known when it began, if that tells a ghost.
    pub ends: Option<i64>,
}

/// A fire passes the gate, which holds it from then on under that id, or is refused. What is started of it `make` makes.
pub(super) fn let_through(
    gate: &mut Gate,
    trigger: &Declared,
    looked: Looked,
    fire: Fire,
    id: Uuid,
    sent: &Sent,
    make: impl FnOnce(&Request) -> NewRun,
) -> Result<NewRun, Refusal> {
    let Declared { row, overlap } = trigger;
    let Looked { schedule, ends } = looked;
    let in_row = fire.cursor.is_some();
    let guard = (!row.allow_concurrent && !in_row).then_some(fire.hash);
    if !in_row && let Some(refused) = sent.refuses(gate, schedule, guard, *overlap) {
        return Err(Refusal::Gate(refused));
    }
    gate.hold(schedule, guard, id);
    let parent = fire.parent.map(|run| Box::new(Parent::given(run)));
    let Fire { urgency, trace, context, .. } = fire;
    let run = make(&Request { urgency, trace, parent, ..Request::of(id, context) });
    // What waits for its time stands in no line: who declares it is told so before.
    let waits = overlap.waits() && !run.is_delayed();
    Ok(NewRun {
        schedule: Some(schedule),
        context_hash: Some(fire.hash),
        unique_hash: guard.is_some(),
        ends: ends.filter(|_| guard.is_some() && fire.run_key.is_none()),
        run_key: fire.run_key,
        waits,
        cursor: fire.cursor,
        ..run
    })
}

fn wait_us(wait: Duration) -> i64 {
    i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)
}

/// What a poll has asked for.
struct Asked {
    fires: u64,
    /// Its cursor moves past them all, also past what the store drops.
    passes: bool,
}

/// What a tick's row in the history says.
pub(super) struct Verdict {
    pub outcome: Outcome,
    pub reason: String,
    /// Who called the body has logged what it raised, with its traceback; what the engine refused is logged here.
    pub note: Option<Note>,
}

impl Verdict {
    fn of(reason: &Result<String, String>) -> Self {
        match reason {
            Ok(reason) => Self { outcome: Outcome::Skip, reason: reason.clone(), note: None },
            Err(error) => Self::error(error.clone()),
        }
    }

    fn error(reason: String) -> Self {
        Self { outcome: Outcome::Error, reason, note: None }
    }

    fn refused(note: Note) -> Self {
        Self { outcome: Outcome::Error, reason: note.to_string(), note: Some(note) }
    }

    /// A fire was refused.
    fn take(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Unknown(note) => *self = Self::refused(note),
            Refusal::Gate(admission) if self.outcome != Outcome::Error => {
                self.reason = reason_of(admission).unwrap_or_default();
            }
            Refusal::Gate(_) => {}
        }
    }
}

/// Why a fire is no run.
pub(super) enum Refusal {
    /// Nobody declares its workflow.
    Unknown(Note),
    /// An equal one is unfinished, or its overlap policy drops it.
    Gate(Admission),
}

/// The fires of a poll that are sent to the store. One that the store may refuse, by its run key or by a limit, takes no place for certain: how many of
/// those behind it start is decided there. Those that carry cursors are a row.
pub(super) struct Sent {
    pub runs: Vec<NewRun>,
    room: Option<Room>,
    /// So many of them take a place for certain.
    certain: u64,
    /// The first of those.
    first: Option<Uuid>,
    /// One of them may be refused, or carries a cursor.
    is_open: bool,
    has_row: bool,
    /// So many of the row take a place, or end it.
    in_row: u64,
    /// One of the row was sent that is dropped for certain, or stands behind one that is.
    has_ended: bool,
    /// Fires that carry no cursor, and were dropped.
    dropped: u64,
    held_back: u64,
}

impl Sent {
    /// None so far, of so many at most, where there is that room.
    pub(super) fn new(room: Option<Room>, most: usize) -> Self {
        Self {
            runs: Vec::with_capacity(most),
            room,
            certain: 0,
            first: None,
            is_open: false,
            has_row: false,
            in_row: 0,
            has_ended: false,
            dropped: 0,
            held_back: 0,
        }
    }

    /// Whether some carry cursors.
    pub(super) fn has_row(&self) -> bool {
        self.has_row
    }

    /// The room by which the store is to judge them, if it has to.
    pub(super) fn room(&self) -> Option<Room> {
        self.room.filter(|_| self.is_open)
    }

    /// Whether the next fire of the poll is held back for certain.
    pub(super) fn holds_back(&mut self, fire: &Fire) -> bool {
        if fire.cursor.is_none() || self.has_ended {
            return fire.cursor.is_some();
        }
        self.has_row = true;
        if fire.run_key.is_none() {
            self.has_ended = self.room.is_some_and(|room| self.certain + self.in_row >= room.runs);
            self.in_row += 1;
        }
        false
    }

    /// Why a fire without a cursor is dropped for certain, if it is.
    fn refuses(
        &self,
        gate: &Gate,
        schedule: ScheduleKey,
        guard: Option<ContextHash>,
        overlap: Overlap,
    ) -> Option<Admission> {
        let equal = guard.and_then(|hash| gate.equal(schedule, hash));
        let may_be_refused = |of: &Uuid| self.runs.iter().any(|run| run.id == *of && may_be_refused(run));
        if let Some(of) = equal.filter(|of| !may_be_refused(of)) {
            return Some(Admission::Duplicate { of });
        }
        let room = self.room.filter(|room| room.runs <= self.certain)?;
        Some(overlap.refusal(room.with.or(self.first)?))
    }

    /// Notes one that is sent.
    pub(super) fn note(&mut self, run: NewRun) {
        let in_row = run.cursor.is_some();
        match may_be_refused(&run) {
            true => self.is_open = true,
            false if !in_row => {
                self.certain += 1;
                self.first = self.first.or(Some(run.id));
            }
            false => {}
        }
        self.is_open |= in_row;
        self.runs.push(run);
    }
}

/// Whether the store may refuse a run for what only it knows.
fn may_be_refused(run: &NewRun) -> bool {
    run.run_key.is_some() || run.limits.is_some()
}
