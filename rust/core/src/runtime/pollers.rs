//! The threads that poll: one leads, others follow and take over when a body keeps it.
//! Invariant: a body that does not come back holds up its own trigger and nobody else's.
//! Longer than a room should be: who leads and who follows is decided under one lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::{Effects, Event, MomentDue, Note, Rearm, is_told};
use crate::key::ScheduleKey;
use crate::poll::{Finish, Plan, Poller, Ticket, Turn};
use crate::port::{Stretch, TriggerState};
use crate::runtime::flights::Flights;
use crate::runtime::keeper::{FailedPoll, Order};
use crate::runtime::park::{MutexGuard, lock, wait_on};
use crate::runtime::{Runtime, Services, Shared};
use crate::time::{Mono, Now, Wall};

/// A body that takes longer than this no longer holds up the others: the next poller goes on.
/// More than two of the interpreter's switch intervals: a body that another thread has interrupted is not stuck.
pub(super) const BODY_GRACE: Duration = Duration::from_millis(12);

/// The grace while polls are late because a body took longer: where one hangs others often do, and to wait for each of them in
/// turn would make the last poll late by all of it.
pub(super) const HURRIED_GRACE: Duration = Duration::from_micros(200);

/// Of triggers that hold all pollers so many are named.
const NAMED_MAX: usize = 5;

/// So many pollers wait beside the one that polls; more of them go home.
pub(super) const SPARE_POLLERS_MAX: usize = 2;

/// Between two looks at whether a poll in flight has come back.
pub(super) const DRAIN_PAUSE: Duration = Duration::from_millis(2);

/// What a poller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollTurn {
    /// Call this trigger's body.
    Poll(Ticket, Now),
    /// Wait, detached, by [`Runtime::poll_wait`].
    Wait,
    /// Go home.
    Leave,
}

pub(super) struct PollState {
    pub(super) poller: Poller,
    pub(super) leader: Option<u64>,
    pub(super) body_since: Option<Mono>,
    /// The poll whose body the leader called last.
    body: Option<(Ticket, Now)>,
    /// When it was last told of a place that polls of it fail.
    pub(super) failures_told: HashMap<u32, Mono>,
    /// Places of triggers whose program wants to hear of failed polls.
    pub(super) heard: HashSet<u32>,
    /// Places of triggers whose bodies can be stopped.
    pub(super) stoppable: HashSet<u32>,
    /// What went wrong in the last poll of a place that failed; it counts while the place has failures.
    pub(super) errors: HashMap<u32, Arc<str>>,
    /// Polls that go on while others are begun.
    pub(super) flights: Flights,
    /// Whether polls are late because a body took longer than its grace.
    hurries: bool,
    /// Until when the leader sleeps, if it does, and the last follower that went to sleep.
    pub(super) leader_until: Option<Mono>,
    pub(super) followers_until: Option<Mono>,
    pub(super) followers: usize,
    pub(super) threads: usize,
    threads_max: usize,
    /// Threads that were asked for and have not come.
    starting: usize,
    /// Whether it has been told that no poller is left.
    is_full_told: bool,
    pub(super) seats: u64,
    pub(super) closed: bool,
    /// Since when nothing is polled any more.
    pub(super) closed_at: Option<Wall>,
}

impl PollState {
    /// Notes what went wrong in a poll that has just ended, and why its trigger is switched off, if it is; for the keeper, if the program
    /// wants to hear of it.
    pub(super) fn failed(&mut self, place: u32, error: &str, disabled: Option<&str>) -> Option<Order> {
        let error: Arc<str> = error.into();
        self.errors.insert(place, Arc::clone(&error));
        let (failures, disabled) = (self.poller.failing(place), disabled.map(Arc::from));
        let is_heard = self.heard.contains(&place);
        is_heard.then_some(Order::PollFailed(FailedPoll { place, error, failures, disabled }))
    }

    /// Whether that failure in a row of a place is to be told: each of them would fill the log.
    pub(super) fn is_failure_told(&mut self, place: u32, failures: u32, now: Now) -> bool {
        let told = self.failures_told.get(&place).map(|&at| now.mono.since(at));
        let is_told = is_told(failures, told);
        if is_told {
            self.failures_told.insert(place, now.mono);
        }
        is_told
    }

    /// Puts a trigger in the place that its body has, in which it may have been before, after what is in the place `before`. Returns what
    /// its polls there have left for the history.
    pub(super) fn put(
        &mut self,
        place: u32,
        before: Option<u32>,
        trigger: &Arc<str>,
        plan: Arc<Plan>,
        now: Mono,
    ) -> Vec<Stretch> {
        let history = if place < self.poller.places() {
            self.poller.declare_in(place, plan, now)
        } else {
            let given = self.poller.declare(Arc::clone(trigger), plan, now);
            assert_eq!(given, place, "trigger '{trigger}' is not where its body is");
            Vec::new()
        };
        if let Some(before) = before {
            self.poller.supersede(before, place);
        }
        history
    }

    pub(super) fn new(services: &Services) -> Self {
        let poller = Poller::new(services.resolution);
        let poller = if services.in_step { poller.in_step() } else { poller };
        Self {
            poller,
            leader: None,
            body_since: None,
            body: None,
            failures_told: HashMap::new(),
            heard: HashSet::new(),
            stoppable: HashSet::new(),
            errors: HashMap::new(),
            flights: Flights::default(),
            hurries: false,
            leader_until: None,
            followers_until: None,
            followers: 0,
            threads: 0,
            threads_max: services.pollers_max.max(1),
            starting: 0,
            is_full_told: false,
            seats: 0,
            closed: false,
            closed_at: None,
        }
    }

    /// How long the leader may stay in a body before another leads.
    fn grace(&self) -> Duration {
        if self.hurries { HURRIED_GRACE } else { BODY_GRACE }
    }

    /// Whether the leader has been in a body for too long.
    fn is_stuck(&self, now: Mono) -> bool {
        self.body_since.is_some_and(|since| now.since(since) >= self.grace())
    }

    /// The leader's body is left behind, and goes on.
    fn leave_behind(&mut self) {
        self.hurries = true;
        if let Some((ticket, began)) =
            self.body.take().filter(|&(ticket, _)| self.poller.is_in_flight(ticket))
        {
            self.flights.note(ticket.place, began);
        }
    }

    /// When the poll of a place that is in flight began.
    pub(super) fn began(&self, place: u32) -> Option<Now> {
        let of_leader =
            self.body.filter(|&(ticket, _)| ticket.place == place && self.poller.is_in_flight(ticket));
        self.flights.began(place).or(of_leader.map(|(_, began)| began))
    }

    /// Triggers whose polls are in flight, as a text.
    fn held_by(&self) -> String {
        let mut names: Vec<_> =
            self.flights.places().map(|place| format!("'{}'", self.poller.name(place))).collect();
        names.sort();
        let more = names.len().saturating_sub(NAMED_MAX);
        names.truncate(NAMED_MAX);
        let names = names.join(", ");
        if more == 0 { names } else { format!("{names} and {more} more") }
    }
}

/// Whether a follower has to look for itself: the leader is stuck, or gone, or everything ends.
pub(super) fn is_needed(polls: &PollState, now: Mono) -> bool {
    polls.closed || polls.is_stuck(now) || polls.leader.is_none()
}

impl Runtime {
    /// Switches a trigger's polling in memory.
    pub fn set_polled(&self, schedule: ScheduleKey, enabled: bool) {
        self.shared.switch([(schedule, enabled)]);
        self.shared.wake_pollers();
    }

    /// When each of the triggers with these rows was last polled here.
    pub fn last_polls(&self, schedules: impl IntoIterator<Item = ScheduleKey>) -> Vec<Option<Wall>> {
        let polls = lock(&self.shared.polls);
        schedules.into_iter().map(|schedule| polls.poller.last_poll_at(schedule)).collect()
    }

    /// A seat for a thread that polls.
    pub fn poll_seat(&self) -> u64 {
        let mut polls = lock(&self.shared.polls);
        polls.seats += 1;
        polls.starting = polls.starting.saturating_sub(1);
        polls.seats
    }

    /// What the poller in `seat` does next. Never waits.
    pub fn poll_turn(&self, seat: u64) -> PollTurn {
        let polls = lock(&self.shared.polls);
        let now = self.shared.clock.quick();
        self.next_turn(polls, seat, now)
    }

    /// Ends a poll that was a plain skip without a reason, and takes the next turn: what [`Runtime::poll_skipped`] and
    /// [`Runtime::poll_turn`] do, for one look at the lock and the clock.
    pub fn poll_on(&self, seat: u64, ticket: Ticket, began: Now) -> PollTurn {
        let mut polls = lock(&self.shared.polls);
        let now = self.shared.clock.quick();
        let finish = Finish { began: began.wall, took_us: now.mono.since_us(began.mono), pause: None };
        polls.flights.ended(ticket.place);
        let history = polls.poller.skipped(ticket, "", finish, now.mono);
        if history.is_empty() {
            return self.next_turn(polls, seat, now);
        }
        drop(polls);
        self.step(Event::History(history));
        self.poll_turn(seat)
    }

    pub(super) fn next_turn<'a>(
        &'a self,
        mut polls: MutexGuard<'a, PollState>,
        seat: u64,
        now: Now,
    ) -> PollTurn {
        if polls.closed {
            polls.threads -= 1;
            drop(polls);
            self.poll_is_home();
            return PollTurn::Leave;
        }
        if polls.leader != Some(seat) {
            let is_stuck = polls.is_stuck(now.mono);
            if polls.leader.is_some() && !is_stuck {
                return self.follow(&mut polls);
            }
            if is_stuck {
                polls.leave_behind();
            }
            self.lead(&mut polls, seat);
        }
        loop {
            match polls.poller.next(now.mono) {
                Turn::Poll(ticket) => {
                    let ticket = self.shared.noted(ticket);
                    polls.body_since = Some(now.mono);
                    polls.body = Some((ticket, now));
                    if polls.hurries {
                        // Who follows sleeps for a longer grace.
                        self.shared.follower_wake.notify_one();
                    }
                    return PollTurn::Poll(ticket, now);
                }
                Turn::TimedOut(overdue) => {
                    drop(polls);
                    self.poll_given_up(overdue, self.now());
                    polls = lock(&self.shared.polls);
                    polls.body_since = None;
                }
                Turn::Died(died) => {
                    drop(polls);
                    self.call_died(died, self.now());
                    polls = lock(&self.shared.polls);
                    polls.body_since = None;
                }
                // To wait would give the interpreter away, and cost a busy one's switch interval.
                Turn::Again => {
                    drop(polls);
                    polls = lock(&self.shared.polls);
                }
                Turn::Wait => {
                    polls.body_since = None;
                    polls.hurries = false;
                    return PollTurn::Wait;
                }
            }
        }
    }

    pub(super) fn lead(&self, polls: &mut PollState, seat: u64) {
        polls.leader = Some(seat);
        polls.body_since = None;
        let spare = if polls.hurries { SPARE_POLLERS_MAX } else { 1 };
        while polls.followers + polls.starting < spare && polls.threads < polls.threads_max {
            polls.threads += 1;
            polls.starting += 1;
            self.shared.order(Order::SpawnPoller);
        }
        let is_last = polls.hurries && polls.followers + polls.starting == 0;
        if is_last && !std::mem::replace(&mut polls.is_full_told, true) {
            let note = Note::LastPollerTaken { threads_max: polls.threads_max, held_by: polls.held_by() };
            self.shared.order(Order::Log(note));
        }
    }

    pub(super) fn follow(&self, polls: &mut PollState) -> PollTurn {
        polls.is_full_told = false;
        // A body that took long comes back on a thread that no longer leads, and has just armed its trigger.
        let due = polls.poller.next_due().unwrap_or(Mono(u64::MAX));
        if polls.leader_until.is_some_and(|until| due < until) {
            self.shared.leader_wake.notify_all();
        }
        if polls.followers >= SPARE_POLLERS_MAX {
            polls.threads -= 1;
            return PollTurn::Leave;
        }
        PollTurn::Wait
    }

    /// Parks the poller in `seat` until there is something to do for it. Call detached: a follower that finds the leader at work goes on
    /// waiting without a turn for the interpreter.
    pub fn poll_wait(&self, seat: u64) {
        while !self.shared.move_on() && !self.poll_waited(seat) {}
    }

    /// Waits once; true if the poller is to take its turn.
    pub(super) fn poll_waited(&self, seat: u64) -> bool {
        let mut polls = lock(&self.shared.polls);
        if polls.closed {
            return true;
        }
        // Until when is found out here, under the lock of the wait: what changed since the turn would be slept through.
        let now = self.now().mono;
        let due = polls.poller.next_due();
        let is_leader = polls.leader == Some(seat);
        let until = match polls.body_since.filter(|_| !is_leader) {
            Some(since) => Some(since.after(polls.grace())),
            None if is_leader => due,
            // The leader is asleep; if it is not back soon after the next poll was due, it is stuck in that.
            None => due.map(|due| due.max(now).after(BODY_GRACE)),
        };
        let left = until.map(|until| until.since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return true;
        }
        let left = left.and_then(|left| self.shared.clock.nap(left));
        if is_leader {
            polls.leader_until = until.or(Some(Mono(u64::MAX)));
            let mut polls = wait_on(&self.shared.leader_wake, polls, left);
            polls.leader_until = None;
            return true;
        }
        polls.followers += 1;
        polls.followers_until = until.or(Some(Mono(u64::MAX)));
        let mut polls = wait_on(&self.shared.follower_wake, polls, left);
        polls.followers -= 1;
        is_needed(&polls, self.now().mono)
    }

    /// Waits until no more than `own` bodies are in flight.
    pub(super) fn drain_polls(&self, deadline: Instant, own: usize) -> bool {
        while lock(&self.shared.polls).poller.in_body() > own {
            if Instant::now() >= deadline {
                return false;
            }
            let jobs = lock(&self.shared.jobs);
            drop(wait_on(&self.shared.closing_wake, jobs, Some(DRAIN_PAUSE)));
        }
        true
    }
}

impl Shared {
    /// A poll that begins now, after the ends that are known now.
    pub(super) fn noted(&self, ticket: Ticket) -> Ticket {
        Ticket { ends: self.ends.load(Ordering::Acquire), ..ticket }
    }

    /// Reads how many ends there are: of those of other runners nobody else tells.
    pub(super) fn read_ends(&self) {
        if let Ok(ends) = self.store.ends() {
            self.ends.fetch_max(ends, Ordering::AcqRel);
        }
    }

    /// Tells of polls that have become too long.
    pub(super) fn look_at_flights(&self) {
        let now = self.now().mono;
        let long = {
            let mut polls = lock(&self.polls);
            let PollState { flights, poller, .. } = &mut *polls;
            let found = flights.too_long(now, |place| poller.interval(place));
            let told = |(place, began)| (poller.name(place), poller.is_waited_for(place), began);
            found.into_iter().map(told).collect::<Vec<_>>()
        };
        for (trigger, is_older, began) in long {
            let lasts = now.since(began.mono);
            let note = Note::PollTooLong { trigger, since: began.wall, lasts, is_older };
            self.order(Order::Log(note));
        }
    }

    pub(super) fn rearm(&self, rearm: Vec<Rearm>) {
        let now = self.now();
        let mut is_disputed = false;
        let mut polls = lock(&self.polls);
        for news in rearm {
            let Rearm { place, row, cursor, is_cut, set, fired_at, .. } = news;
            let Rearm { disables, is_told, elsewhere, gives_way, is_stale, .. } = news;
            // Before it is seen that nothing of it is in flight: there may be more to tell.
            if polls.poller.is_by_ends(place) {
                self.endings_came();
            }
            is_disputed |= is_stale;
            match row {
                _ if gives_way => polls.poller.hand_on(place),
                // Not polled until news has been read again.
                Some(row) if is_stale => {
                    let row = TriggerState { enabled: false, ..row };
                    polls.poller.enable(place, &row, elsewhere, now);
                }
                Some(row) => is_disputed |= polls.poller.enable(place, &row, elsewhere, now),
                None if elsewhere => polls.poller.park(place, now.mono),
                None => {
                    if let Some(schedule) = disables {
                        polls.poller.set_enabled(schedule, false, now.mono);
                    }
                    if is_told {
                        polls.poller.heard(place);
                    }
                    if let Some((cursor, cursor_set)) = set {
                        polls.poller.take_cursor(place, cursor.as_deref(), cursor_set);
                    }
                    if is_cut {
                        polls.poller.cut_short(place);
                    }
                    polls.poller.rearm(place, cursor.map(Arc::from), fired_at, now.mono);
                }
            }
        }
        if is_disputed {
            self.has_news.store(true, Ordering::Release);
            self.wake_liaison();
        }
    }

    /// Has the first poller come, if there is none yet.
    pub(super) fn begin_polling(&self, polls: &mut PollState) {
        if polls.threads == 0 {
            polls.threads = 1;
            polls.starting = 1;
            self.order(Order::SpawnPoller);
        }
    }

    /// Has the bodies of crons called that are to decide moments.
    pub(super) fn ask(&self, moments: Vec<MomentDue>) {
        let now = self.now();
        let poller = &mut lock(&self.polls).poller;
        for MomentDue { place, row, moment, context } in moments {
            poller.enable(place, &row, false, now);
            poller.ask(place, moment, context, now.mono);
        }
    }

    /// What is due when has changed: whoever sleeps longer than that has to look again.
    pub(super) fn wake_pollers(&self) {
        let polls = lock(&self.polls);
        let due = polls.poller.next_due().unwrap_or(Mono(u64::MAX));
        if polls.closed || polls.leader_until.is_some_and(|until| due < until) {
            self.leader_wake.notify_all();
        }
        if polls.closed || polls.followers_until.is_some_and(|until| due.after(polls.grace()) < until) {
            self.follower_wake.notify_all();
        }
    }

    /// Switches triggers as the store has them. Under the engine's lock: a row that arrives later must know that it may be older.
    pub(super) fn switch(&self, triggers: impl IntoIterator<Item = (ScheduleKey, bool)>) {
        let now = self.now();
        self.endings_came();
        let mut engine = lock(&self.engine);
        engine.step(Event::News, now, &mut Effects::default());
        let poller = &mut lock(&self.polls).poller;
        for (row, enabled) in triggers {
            poller.set_enabled(row, enabled, now.mono);
        }
    }
}
