//! What becomes of a poll's answer, whichever thread it comes from, and polls out of turn.
//! Invariant: a poll that began ends exactly once, as a skip, with more than that, or given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use crate::client::{Apart, rehearse_apart};
use crate::context::hash_text;
use crate::engine::{self, Event, Fire, Foreseen, Foretold, Note, Polled, Rehearsal, poll_timed_out};
use crate::key::ScheduleKey;
use crate::poll::{Died, Ended, Finish, Overdue, Poller, Standing, TickState, Ticket};
use crate::port::{ContextHash, Store, Stored};
use crate::runtime::Runtime;
use crate::runtime::keeper::Order;
use crate::runtime::park::{Builder, lock};
use crate::runtime::pollers::PollState;
use crate::time::{Mono, Now, Wall};
use crate::urgency::Urgency;

/// A wait from this on is written down. A shorter one is over before a runner that comes next has taken stock.
const WAIT_KEPT: Duration = Duration::from_secs(5);

/// What stands with a call about an end of a run that came to nothing as its process ended: it may be what ended that.
const CALL_DIED: &str = "the process that called it ended";

/// A fire as a poll answered it.
#[derive(Debug, Clone, PartialEq)]
pub struct AskedFire {
    /// JSON text.
    pub context: Arc<str>,
    /// With the time for which it holds.
    pub run_key: Option<(String, Option<Duration>)>,
    /// Its own cursor as JSON text.
    pub cursor: Option<String>,
    /// What makes it equal to others, instead of its context.
    pub dedup_key: Option<String>,
    /// When its run is to begin.
    pub urgency: Urgency,
    /// The run that it was said to come of.
    pub parent: Option<Uuid>,
    /// What the telemetry of whoever asked for it hands on to its bodies, as JSON text. It changes nothing.
    pub trace: Option<Arc<str>>,
}

/// What a poll that was more than a plain skip answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// In the order returned.
    pub fires: Vec<AskedFire>,
    /// The cursor as JSON text, if it was set.
    pub cursor: Option<String>,
    /// What it said about itself without firing, or what went wrong.
    pub reason: std::result::Result<String, String>,
    /// How long its function asked not to be called.
    pub pause: Option<Duration>,
    /// The limit under which no attempt is to begin for as long.
    pub limit: Option<Arc<str>>,
}

/// The same, ready for the engine.
struct Judged {
    fires: Vec<Fire>,
    cursor: Option<String>,
    reason: std::result::Result<String, String>,
    pause: Option<Duration>,
    limit: Option<Arc<str>>,
}

impl Runtime {
    /// A poll out of turn; none while another of the same trigger is in flight.
    pub fn poll_now(&self, schedule: ScheduleKey) -> Option<(Ticket, Now)> {
        self.shared.look_for_ending_of(schedule);
        let mut polls = lock(&self.shared.polls);
        let place = polls.poller.place_of(schedule)?;
        let now = self.now();
        let ticket = self.shared.noted(polls.poller.poll_now(place, now.mono)?);
        polls.flights.note(place, now);
        Some((ticket, now))
    }

    /// Wants a poll of the trigger in that place as soon as it may be. Never waits for one.
    pub fn poll_soon(&self, place: u32) {
        let now = self.now().mono;
        lock(&self.shared.polls).poller.poll_soon(place, now);
        self.shared.wake_pollers();
    }

    /// A poll's answer comes later.
    pub fn poll_pending(&self, ticket: Ticket, began: Now) {
        let mut polls = lock(&self.shared.polls);
        if polls.poller.is_in_flight(ticket) {
            polls.flights.note(ticket.place, began);
        }
    }

    /// Ends a poll of [`Runtime::poll_now`] without a trace.
    pub fn poll_looked(&self, ticket: Ticket) {
        {
            let mut polls = lock(&self.shared.polls);
            polls.flights.ended(ticket.place);
            self.look_again(&polls, ticket);
            polls.poller.looked(ticket, self.now().mono);
        }
        self.shared.wake_pollers();
        self.poll_is_home();
    }

    /// What a trigger's function may know in this poll, when it was due, and what went wrong in the one before.
    pub fn tick_state(&self, place: u32) -> (TickState, Wall, Option<Arc<str>>) {
        let (state, error) = {
            let polls = lock(&self.shared.polls);
            let state = polls.poller.tick_state(place);
            let error = if state.failures > 0 { polls.errors.get(&place).cloned() } else { None };
            (state, error)
        };
        let now = self.now();
        let late_us = now.mono.since(state.due).as_micros() as u64;
        let due = Wall(now.wall.0.saturating_sub_unsigned(late_us));
        let due = state.moment.as_ref().map_or(due, |&(moment, _)| moment);
        (state, due, error)
    }

    /// How many runs of the trigger in that place are unfinished, whoever drives them.
    pub fn unfinished_of(&self, place: u32) -> usize {
        let named = lock(&self.shared.polls).poller.row_and_name(place);
        named.map_or(0, |(schedule, _)| lock(&self.shared.engine).unfinished_of(schedule))
    }

    /// What would become of these fires of a poll of [`Runtime::poll_now`], and of the cursor that it set, if it ended now. Changes nothing.
    ///
    /// # Errors
    /// The store's.
    pub fn rehearse(
        &self,
        ticket: Ticket,
        began: Now,
        fires: Vec<AskedFire>,
        cursor: Option<String>,
    ) -> Stored<Vec<Foretold>> {
        let (named, state) = {
            let polls = lock(&self.shared.polls);
            (polls.poller.row_and_name(ticket.place), polls.poller.tick_state(ticket.place))
        };
        let Some((schedule, _)) = named else { return Ok(Vec::new()) };
        let many = fires.len();
        let fires: Vec<Fire> = fires.into_iter().map(|fire| hashed(fire, began.wall)).collect();
        let (cursor_set, ends, now) = (state.cursor_set, Some(ticket.ends), self.now());
        let rehearsed = {
            let mut engine = lock(&self.shared.engine);
            let poll =
                engine::Poll { schedule, epoch: engine.epoch(), at: began.wall, cursor_set, ends, cursor };
            engine.rehearse(ticket.place, poll, fires, now)
        };
        match rehearsed {
            Ok(rehearsal) => play(&*self.shared.store, rehearsal),
            Err(told) => Ok(vec![told; many]),
        }
    }

    /// What would become of these fires of a moment of a cron, whose unfinished runs are those, if it was now; none if its workflow is not declared here.
    /// Changes nothing.
    ///
    /// # Errors
    /// The store's.
    pub fn rehearse_moment(
        &self,
        trigger: &engine::Declared,
        cron: ScheduleKey,
        held: &[(Uuid, Option<ContextHash>)],
        fires: Vec<AskedFire>,
    ) -> Stored<Option<Vec<Foretold>>> {
        let workflow = lock(&self.shared.engine).asked_of(&trigger.row.workflow);
        let Some(workflow) = workflow else { return Ok(None) };
        let apart = Apart { trigger, workflow, cron: Some(cron), held };
        rehearse_apart(&*self.shared.store, &apart, fires, None, self.now().wall).map(Some)
    }

    /// What would become of runs of a workflow that are started by hand now, one after another; none if it is not declared here. Changes nothing.
    ///
    /// # Errors
    /// The store's.
    pub fn rehearse_starts(
        &self,
        workflow: &str,
        runs: Vec<(Arc<str>, Urgency)>,
    ) -> Stored<Option<Vec<Foretold>>> {
        let rehearsal = lock(&self.shared.engine).rehearse_starts(workflow, runs, self.now());
        rehearsal.map(|rehearsal| play(&*self.shared.store, rehearsal)).transpose()
    }

    /// Where a trigger stands, when it is polled next, and since when a poll of it is in flight; none if it is not declared here.
    pub fn standing(&self, schedule: ScheduleKey) -> Option<(Standing, Option<Wall>, Option<Wall>)> {
        let (standing, began) = {
            let polls = lock(&self.shared.polls);
            let standing = polls.poller.standing(schedule)?;
            let place = polls.poller.place_of(schedule).map(|place| polls.poller.place_of_body(place));
            (standing, place.and_then(|place| polls.began(place)))
        };
        let now = self.now();
        let due = standing.due.map(|due| now.wall.after(due.since(now.mono)));
        Some((standing, due, began.filter(|_| standing.in_body).map(|began| began.wall)))
    }

    /// Ends a poll that was a plain skip. A long wait by its own wish is written down, so that it outlives this process.
    pub fn poll_skipped(&self, ticket: Ticket, reason: &str, began: Now, pause: Option<Duration>) {
        let decides = {
            let polls = lock(&self.shared.polls);
            polls.poller.is_by_calendar(ticket.place) || polls.poller.is_told(ticket.place)
        };
        if decides || pause.is_some_and(|pause| pause >= WAIT_KEPT) {
            let reason = Ok(reason.to_owned());
            let judged = Judged { fires: Vec::new(), cursor: None, reason, pause, limit: None };
            return self.end_poll(ticket, began, judged, true);
        }
        let now = self.now();
        let finish = Finish { began: began.wall, took_us: now.mono.since_us(began.mono), pause };
        let (history, recovered) = {
            let mut polls = lock(&self.shared.polls);
            polls.flights.ended(ticket.place);
            let recovered = recovered(&polls.poller, ticket);
            self.look_again(&polls, ticket);
            (polls.poller.skipped(ticket, reason, finish, now.mono), recovered)
        };
        self.tell_recovered(recovered);
        // The answer may come from a thread that does not poll.
        self.shared.wake_pollers();
        self.poll_is_home();
        if !history.is_empty() {
            self.step(Event::History(history));
        }
    }

    /// Ends any other poll.
    pub fn poll_ended(&self, ticket: Ticket, began: Now, answer: Answer) {
        let Answer { fires, mut cursor, mut reason, pause, limit } = answer;
        let named = lock(&self.shared.polls).poller.row_and_name(ticket.place);
        let Some((schedule, trigger)) = named else { return };
        let mut fires: Vec<Fire> = fires.into_iter().map(|fire| hashed(fire, began.wall)).collect();
        if reason.is_ok() {
            let place = ticket.place;
            let counted = lock(&self.shared.engine).counted_by(place);
            // Contexts are read without the lock.
            let refused = counted.and_then(|(trigger, limits)| trigger.refused(&limits, &fires));
            let foresee = || lock(&self.shared.engine).foresee(place, schedule, &fires, cursor.as_deref());
            match refused.map_or_else(foresee, Foreseen::Failed) {
                Foreseen::Open => {}
                Foreseen::Dropped(_) if limit.is_some() => {}
                Foreseen::Dropped(reason) => {
                    self.tell_none_started(trigger, fires.len(), false);
                    return self.poll_skipped(ticket, &reason, began, pause);
                }
                Foreseen::Failed(note) => {
                    self.tell_none_started(trigger, fires.len(), true);
                    (fires, cursor, reason) = (Vec::new(), None, Err(note.to_string()));
                    if self.is_next_failure_told(place) {
                        self.shared.order(Order::Log(note));
                    }
                }
            }
        }
        // Who has failed backs off, whatever it wished before.
        let pause = pause.filter(|_| reason.is_ok());
        self.end_poll(ticket, began, Judged { fires, cursor, reason, pause, limit }, false);
    }

    fn tell_none_started(&self, trigger: Arc<str>, fires: usize, is_error: bool) {
        if self.shared.tells_debug.load(Ordering::Acquire) {
            let fires = fires as u64;
            self.shared.order(Order::Log(Note::FiresJudged { trigger, fires, started: 0, is_error }));
        }
    }

    /// Of what a trigger was to be told meanwhile it has not heard.
    fn look_again(&self, polls: &PollState, ticket: Ticket) {
        if polls.poller.is_by_ends(ticket.place) {
            self.shared.endings_came();
        }
    }

    fn end_poll(&self, ticket: Ticket, began: Now, judged: Judged, is_skip: bool) {
        let Judged { fires, cursor, reason, pause, limit } = judged;
        let now = self.now();
        let finish = Finish { began: began.wall, took_us: now.mono.since_us(began.mono), pause };
        let (ended, recovered, failed) = {
            let mut polls = lock(&self.shared.polls);
            polls.flights.ended(ticket.place);
            let recovered = reason.is_ok().then(|| recovered(&polls.poller, ticket)).flatten();
            let ended = match is_skip {
                true => polls.poller.waited(ticket, finish, now.mono),
                false => polls.poller.ended(ticket, reason.is_err(), finish, now.mono),
            };
            let failed = match (&ended, &reason) {
                (Some(ended), Err(error)) => polls.failed(ticket.place, error, ended.disable.as_deref()),
                _ => None,
            };
            (ended, recovered, failed)
        };
        let holds = limit.zip(pause);
        failed.into_iter().for_each(|order| self.shared.order(order));
        self.tell_recovered(recovered);
        let Some(ended) = ended else {
            self.look_again(&lock(&self.shared.polls), ticket);
            return self.shared.wake_pollers();
        };
        let wait = ended.wait_after(began.mono);
        self.step(Event::Polled(Polled {
            place: ticket.place,
            schedule: ended.schedule,
            cursor_set: ended.cursor_set,
            at: began.wall,
            ends: ticket.ends,
            duration_us: finish.took_us,
            fires,
            cursor,
            reason,
            history: ended.history,
            disable: ended.disable,
            wait,
            failures: ended.failures,
            told: ended.told,
            holds,
        }));
        self.poll_is_home();
    }

    pub(super) fn poll_given_up(&self, overdue: Overdue, now: Now) {
        let Overdue { place, serial, timeout, ended } = overdue;
        let duration_us = timeout.as_micros() as u64;
        if let Some(note) = self.timed_out(place, timeout, now) {
            self.shared.order(Order::Log(note));
        }
        let error = format!("TimeoutError: {}", poll_timed_out(timeout));
        let (failed, is_stoppable) = {
            let mut polls = lock(&self.shared.polls);
            (polls.failed(place, &error, ended.disable.as_deref()), polls.stoppable.contains(&place))
        };
        let stop = is_stoppable.then_some(Order::StopPoll { place, serial });
        stop.into_iter().chain(failed).for_each(|order| self.shared.order(order));
        let began = Now {
            mono: Mono(now.mono.0.saturating_sub(timeout.as_nanos() as u64)),
            wall: Wall(now.wall.0.saturating_sub_unsigned(duration_us)),
        };
        let ended = Ended { wait: ended.wait_after(began.mono), ..ended };
        self.failed_unanswered(place, ended, began.wall, duration_us, error);
    }

    /// A poll has failed whose body has not answered.
    fn failed_unanswered(&self, place: u32, ended: Ended, at: Wall, duration_us: u64, error: String) {
        self.step(Event::Polled(Polled {
            place,
            schedule: ended.schedule,
            cursor_set: ended.cursor_set,
            at,
            ends: 0,
            duration_us,
            fires: Vec::new(),
            cursor: None,
            reason: Err(error),
            history: ended.history,
            disable: ended.disable,
            wait: ended.wait,
            failures: ended.failures,
            told: None,
            holds: None,
        }));
    }

    /// What a call came to that ended its process is found, and counted, by whoever comes next.
    pub(super) fn call_died(&self, died: Died, now: Now) {
        let Died { place, run, ended } = died;
        let failed = {
            let mut polls = lock(&self.shared.polls);
            let (trigger, failures) = (polls.poller.name(place), polls.poller.failing(place));
            if polls.is_failure_told(place, failures, now) {
                self.shared.order(Order::Log(Note::CallDied { trigger, run, failures }));
            }
            polls.failed(place, CALL_DIED, ended.disable.as_deref())
        };
        failed.into_iter().for_each(|order| self.shared.order(order));
        self.failed_unanswered(place, ended, now.wall, 0, CALL_DIED.to_owned());
    }

    /// Writes down that a poll begins, where that outlives this process: see [`Ticket::is_noted`]. What the store does not take holds up no poll.
    pub fn begin_noted(&self, ticket: Ticket) {
        let beginning = lock(&self.shared.polls).poller.beginning(ticket.place);
        if let Some(beginning) = beginning {
            let _ = self.shared.store.begin_poll(self.shared.epoch, beginning);
        }
    }

    /// Each time would fill the log: see [`is_told`].
    fn timed_out(&self, place: u32, timeout: Duration, now: Now) -> Option<Note> {
        let mut polls = lock(&self.shared.polls);
        let (trigger, failures) = (polls.poller.name(place), polls.poller.failing(place));
        polls.is_failure_told(place, failures, now).then_some(Note::PollTimedOut {
            trigger,
            timeout,
            failures,
        })
    }

    fn is_next_failure_told(&self, place: u32) -> bool {
        let mut polls = lock(&self.shared.polls);
        let failures = polls.poller.failing(place) + 1;
        polls.is_failure_told(place, failures, self.now())
    }

    fn tell_recovered(&self, recovered: Option<(Arc<str>, u32)>) {
        if let Some((trigger, failures)) = recovered {
            self.shared.order(Order::Log(Note::TriggerRecovered { trigger, failures }));
        }
    }

    /// A runner that leaves gives up a trigger once its poll has come back. On a thread of its own, as this one may have the interpreter
    /// in hand.
    pub(super) fn poll_is_home(&self) {
        if !self.shared.closing.load(Ordering::Acquire) || !lock(&self.shared.jobs).is_leaving {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Without a thread the end of the process is the end of this owner.
        let _ = Builder::new().name("cloaca-leave".to_owned()).spawn(move || shared.leave_late(true));
    }
}

/// The trigger of a poll that went well, with how many before it failed; none if none did, or if the poll was given up.
fn recovered(poller: &Poller, ticket: Ticket) -> Option<(Arc<str>, u32)> {
    let failures = poller.failing(ticket.place);
    (failures > 0 && poller.is_in_flight(ticket)).then(|| (poller.name(ticket.place), failures))
}

/// What the store says to a rehearsal.
pub(crate) fn play(store: &dyn Store, rehearsal: Rehearsal) -> Stored<Vec<Foretold>> {
    let mut receipts = Vec::new();
    store.rehearse(&mut |play| {
        receipts = rehearsal.changes().iter().map(&mut *play).collect::<Stored<_>>()?;
        Ok(())
    })?;
    Ok(rehearsal.told(receipts))
}

/// Hashes are told apart by the schedule whose runs they guard: of its name they know nothing, since that may become another.
pub(crate) fn hashed(fire: AskedFire, at: Wall) -> Fire {
    let AskedFire { context, run_key, cursor, dedup_key, urgency, parent, trace } = fire;
    let hash = match dedup_key {
        // By another salt, so that no context is equal to a key.
        Some(key) => hash_text("\0key", &serde_json::json!({ "key": key }).to_string()),
        None => hash_text("", &context),
    };
    let hash = hash.expect("the Python layer encodes contexts as JSON objects");
    let run_key = run_key.map(|(key, ttl)| (key, ttl.map(|ttl| at.after(ttl))));
    Fire { hash, context, run_key, cursor, urgency, parent, trace }
}
