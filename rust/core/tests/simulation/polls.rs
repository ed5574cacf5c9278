//! Polls triggers as the threads of runtime.rs do, and holds every poll against the grid, and every fire against a gate of the
//! plainest kind.

use std::time::Duration;

use cloaca_core::admit::Overlap;
use cloaca_core::engine::{Effects, Event, Fire, Foreseen, Polled};
use cloaca_core::key::ScheduleKey;
use cloaca_core::poll::{Ended, Finish, Overdue, Ticket, Turn};
use cloaca_core::port::{Change, NewRun};
use cloaca_core::time::{Mono, Now, Wall};
use cloaca_core::urgency::{Due, Priority, Urgency};
use uuid::Uuid;

use crate::process::{CATCH_UP, Grid, Moved, Polling};
use crate::scenario::{Source, Trigger};
use crate::witness::Wish;
use crate::world::World;

/// Waits are computed from floating seconds.
const ROUNDING_NS: u64 = 1_000;

/// A wait that a body asks for with a skip is kept if it is so long.
const KEPT_PAUSE: Duration = Duration::from_millis(950);

/// What a body answers.
enum Answer {
    Skip { reason: String, pause: Option<Duration> },
    Ended { items: Vec<u64>, cursor: Option<u64>, reason: Result<String, String> },
}

impl World {
    /// A poller takes its turn.
    pub fn poll(&mut self, p: usize) -> bool {
        if self.processes[p].is_leaving {
            return false;
        }
        let now = self.now(p);
        match self.processes[p].poller.next(now.mono) {
            Turn::Poll(ticket) => self.begin_poll(p, ticket, false),
            Turn::TimedOut(overdue) => self.poll_given_up(p, overdue),
            Turn::Died(died) => panic!("nobody here is told of ends of runs: {died:?}"),
            Turn::Again => {}
            Turn::Wait => return false,
        }
        true
    }

    /// A poll out of turn.
    pub fn poll_now(&mut self, p: usize, place: u32) -> bool {
        let now = self.now(p).mono;
        let Some(ticket) = self.processes[p].poller.poll_now(place, now) else { return false };
        self.begin_poll(p, ticket, true);
        true
    }

    fn begin_poll(&mut self, p: usize, ticket: Ticket, is_asked: bool) {
        let now = self.now(p);
        let ticket = Ticket { ends: self.processes[p].ends, ..ticket };
        self.note(|| format!("{p}: polls {ticket:?} at {now:?}"));
        let process = &mut self.processes[p];
        // Also under an older declaration, unless that did not come back in time.
        let name = |place: u32| &process.places[place as usize].trigger.source.name;
        let runs = |polling: &Polling| polling.ticket.place == ticket.place || !polling.is_given_up;
        let is_busy = process
            .polls
            .iter()
            .any(|polling| name(polling.ticket.place) == name(ticket.place) && runs(polling));
        assert!(!is_busy, "a trigger is polled while its body runs: {ticket:?}");
        let state = process.poller.tick_state(ticket.place);
        let places = 0..process.places.len() as u32;
        let is_again =
            places.into_iter().any(|other| other != ticket.place && name(other) == name(ticket.place));
        let place = &mut process.places[ticket.place as usize];
        assert!(!place.is_retired, "a retired trigger is polled: {ticket:?}");
        assert!(!place.is_elsewhere, "{} is polled, which another owner polls", place.trigger.source.name);
        assert_eq!(state.failures, place.failures, "failures in a row of {}", place.trigger.source.name);
        place.asked = if is_asked || place.make_up.is_some() { ticket.due } else { Mono(0) };
        if !is_asked && let Some(at) = place.make_up {
            assert!(
                now.mono >= ticket.due && ticket.due >= at,
                "{} makes up early",
                place.trigger.source.name
            );
            assert_eq!(state.due, ticket.due, "when making up was due");

            // One that was declared again waits until the last poll of the older declaration is over.
            let is_late = ticket.due > at.after(CATCH_UP);
            assert!(!is_late || is_again, "{} makes up late", place.trigger.source.name);
        } else if !is_asked {
            is_on_beat(&place.grid, &place.trigger, ticket, state.due, now.mono);
            assert!(state.due > place.last_beat, "{} is polled twice on one beat", place.trigger.source.name);
            assert!(
                ticket.due >= place.not_before.max(place.kept_wait),
                "{} is polled before its wait is over",
                place.trigger.source.name
            );
            place.last_beat = state.due;
        }
        let row = place.row.expect("a polled trigger has a row");
        let cursor = state.cursor.map(|text| text.parse().expect("cursors are numbers here"));
        let ends = self.store.state().ends;
        process.polls.push(Polling { ticket, began: now, cursor, is_given_up: false, ends });
        if self.processes[p].is_zombie {
            return;
        }
        let store = self.store.state();
        let schedule = store.schedule(row);
        let process = &self.processes[p];
        let others = self.processes.iter().filter(|other| other.epoch != process.epoch);
        for other in others.filter(|other| !other.is_zombie && !other.is_leaving) {
            let name = |polling: &Polling| &other.places[polling.ticket.place as usize].trigger.source.name;
            let polls = |polling: &Polling| **name(polling) == *schedule.name && !polling.is_given_up;
            assert!(!other.polls.iter().any(polls), "{} is polled in two processes at once", schedule.name);
        }
        assert_eq!(
            schedule.owner,
            Some(process.epoch),
            "{} is polled by another than its owner",
            schedule.name
        );
        if process.poller.place_of(row) != Some(ticket.place) {
            // It was declared again meanwhile.
            return;
        }
        assert_eq!(
            cursor,
            self.cursors.get(&row).copied(),
            "the cursor that {} is polled with",
            schedule.name
        );
        assert_eq!(state.fired_at, schedule.last_fired_at, "when {} fired last", schedule.name);
        // What another switched off is known after the next look at the news.
        let is_news = process.batch.is_some() || self.has_news.contains(&process.epoch);
        assert!(schedule.enabled || is_asked || is_news, "{} is polled, but disabled", schedule.name);
    }

    fn poll_given_up(&mut self, p: usize, overdue: Overdue) {
        let now = self.now(p);
        let Overdue { place, timeout, ended, .. } = overdue;
        let polls = &mut self.processes[p].polls;
        let polling = polls.iter_mut().find(|polling| polling.ticket.place == place).expect("its body runs");
        assert!(!polling.is_given_up, "a poll timed out twice");
        polling.is_given_up = true;
        let waited = now.mono.since(polling.began.mono);
        assert!(waited >= timeout, "a poll timed out after {waited:?} of {timeout:?}");
        let (cursor, ticket) = (polling.cursor, polling.ticket);
        let began = Now {
            wall: Wall(now.wall.0 - timeout.as_micros() as i64),
            mono: Mono(now.mono.0.saturating_sub(timeout.as_nanos() as u64)),
        };
        let reason = Err("TimeoutError: timed out".to_owned());
        self.failed(p, place);
        let answer = Answer::Ended { items: Vec::new(), cursor: None, reason };
        self.polled(p, (ticket, 0), began, ended, cursor, answer);
    }

    /// The body of a poll returns.
    pub fn answer(&mut self, p: usize) -> bool {
        if self.processes[p].polls.is_empty() {
            return false;
        }
        let index = self.random.index(self.processes[p].polls.len());
        let polling = self.processes[p].polls.swap_remove(index);
        let answer = self.draw_answer(p, &polling);
        self.end_poll(p, polling, answer);
        true
    }

    /// Fires of contexts that were fired before, to see that nothing holds them up any more.
    pub fn probe(&mut self, p: usize, place: u32) {
        if !self.poll_now(p, place) {
            return;
        }
        let polling = self.processes[p].polls.pop().expect("it has just begun");
        let items = (1000..1003).map(|item| item + self.random.below(3)).collect();
        self.end_poll(p, polling, Answer::Ended { items, cursor: None, reason: Ok(String::new()) });
    }

    fn end_poll(&mut self, p: usize, polling: Polling, answer: Answer) {
        let now = self.now(p);
        let Polling { ticket, began, cursor, is_given_up, ends } = polling;
        let place = ticket.place;
        let answer = self.foreseen(p, place, began.wall, answer);
        let mut finish = Finish { began: began.wall, took_us: now.mono.since_us(began.mono), pause: None };
        match answer {
            Answer::Skip { reason, pause: Some(pause) } if pause == KEPT_PAUSE => {
                finish.pause = Some(pause);
                let Some(ended) = self.processes[p].poller.waited(ticket, finish, now.mono) else { return };
                assert!(!is_given_up, "a poll that was given up counts");
                self.succeeded(p, place, Some(pause));
                let answer = Answer::Ended { items: Vec::new(), cursor: None, reason: Ok(reason) };
                self.polled(p, (ticket, ends), began, ended, cursor, answer);
            }
            Answer::Skip { ref reason, pause } => {
                finish.pause = pause;
                let before = self.processes[p].poller.counts().polls;
                let history = self.processes[p].poller.skipped(ticket, reason, finish, now.mono);
                let counts = self.processes[p].poller.counts().polls > before;
                assert!(!(counts && is_given_up), "a poll that was given up counts");
                if counts {
                    self.succeeded(p, place, pause);
                }
                if !history.is_empty() {
                    self.step(p, Event::History(history));
                }
            }
            Answer::Ended { ref reason, .. } => {
                let has_failed = reason.is_err();
                let ended = self.processes[p].poller.ended(ticket, has_failed, finish, now.mono);
                let Some(ended) = ended else { return };
                assert!(!is_given_up, "a poll that was given up counts");
                self.processes[p].places[place as usize].was_polled = true;
                match has_failed {
                    true => self.failed(p, place),
                    false => self.succeeded(p, place, None),
                }
                self.polled(p, (ticket, ends), began, ended, cursor, answer);
            }
        }
    }

    fn succeeded(&mut self, p: usize, place: u32, pause: Option<Duration>) {
        let state = &mut self.processes[p].places[place as usize];
        state.failures = 0;
        state.kept_wait = Mono(0);
        (state.make_up, state.was_polled) = (None, true);
        state.not_before = Mono(
            state.last_beat.max(state.asked).after(pause.unwrap_or_default()).0.saturating_sub(ROUNDING_NS),
        );
    }

    fn failed(&mut self, p: usize, place: u32) {
        let state = &mut self.processes[p].places[place as usize];
        state.failures += 1;
        state.make_up = None;
        let wait = state.trigger.plan.backoff.delay(state.failures);
        state.not_before = Mono(state.last_beat.max(state.asked).after(wait).0.saturating_sub(ROUNDING_NS));
    }

    fn draw_answer(&mut self, p: usize, polling: &Polling) -> Answer {
        let source = self.processes[p].places[polling.ticket.place as usize].trigger.source.clone();
        if self.is_calm {
            return Answer::Skip { reason: String::new(), pause: None };
        }
        if self.random.percent(source.error_percent) {
            return Answer::Ended {
                items: Vec::new(),
                cursor: None,
                reason: Err("ValueError: boom".to_owned()),
            };
        }
        if !self.random.percent(source.fire_percent) {
            let reason = self.random.pick(&["", "", "", "nothing new"]).to_owned();
            let pause =
                self.random.percent(10).then(|| Duration::from_millis(self.random.pick(&[1, 130, 950])));
            return Answer::Skip { reason, pause };
        }
        let from = polling.cursor.unwrap_or(0);
        let many = self.random.below(source.fires_max + 1);
        let (items, cursor) = match source.has_cursor {
            // Some set the cursor beside.
            true if source.has_row => {
                ((from..from + many).collect(), self.random.percent(30).then_some(from + many))
            }
            true => ((from..from + many).collect(), Some(from + many)),
            false => ((0..many).map(|_| self.random.below(8)).collect(), None),
        };
        Answer::Ended { items, cursor, reason: Ok(String::new()) }
    }

    /// What the engine knows of an answer before it judges it.
    fn foreseen(&mut self, p: usize, place: u32, began: Wall, answer: Answer) -> Answer {
        let Answer::Ended { items, cursor, reason: Ok(reason) } = answer else { return answer };
        let source = self.processes[p].places[place as usize].trigger.source.clone();
        let schedule = self.processes[p].places[place as usize].row.expect("a polled trigger has a row");
        let waits = self.processes[p].places[place as usize].trigger.declared.overlap.waits();
        let fires = fires(&source, &items, began, waits);
        let text = cursor.map(|cursor| cursor.to_string());
        match self.processes[p].engine.foresee(place, schedule, &fires, text.as_deref()) {
            Foreseen::Open => Answer::Ended { items, cursor, reason: Ok(reason) },
            Foreseen::Failed(error) => {
                assert!(!items.is_empty(), "a poll without fires fails: {error}");
                Answer::Ended { items: Vec::new(), cursor: None, reason: Err(error.to_string()) }
            }
            Foreseen::Dropped(reason) => {
                let has_row = fires.iter().any(|fire| fire.cursor.is_some());
                assert!(has_row || cursor.is_none(), "a cursor that moves is kept");
                let store = self.store.state();
                let is_used = |fire: &Fire| {
                    let used = fire.run_key.as_ref().map(|(key, _)| store.uses(schedule, key, began));
                    used.unwrap_or(false)
                };
                // Whoever takes it for living still may have used a key since.
                let is_lost = has_row && is_used(&fires[0]) && !self.processes[p].is_zombie;
                assert!(!is_lost, "a fire whose key is used holds up its row: {fires:?}");
                drop(store);
                let (wishes, line) = self.admit(p, place, schedule, &items, &fires);
                let may = wishes.len() - usize::from(has_row && !wishes.is_empty());
                assert!(has_row || may == 0, "{items:?} of {} start nothing beside {line:?}", source.name);
                assert!(!line.is_empty(), "{items:?} of {} are dropped beside nothing", source.name);
                Answer::Skip { reason, pause: None }
            }
        }
    }

    /// Sends a poll's answer through the engine and looks at the tick that comes of it.
    fn polled(
        &mut self,
        p: usize,
        (ticket, ends): (Ticket, i64),
        began: Now,
        ended: Ended,
        from: Option<u64>,
        answer: Answer,
    ) {
        let place = ticket.place;
        let Answer::Ended { items, cursor, reason } = answer else { return };
        let now = self.now(p);
        let source = self.processes[p].places[place as usize].trigger.source.clone();
        let schedule = ended.schedule;
        let waits = self.processes[p].places[place as usize].trigger.declared.overlap.waits();
        let fires = fires(&source, &items, began.wall, waits);
        let row = if fires.iter().any(|fire| fire.cursor.is_some()) { items.clone() } else { Vec::new() };
        let (wishes, line) = self.admit(p, place, schedule, &items, &fires);
        let wait = ended.wait_after(began.mono);
        let polled = Polled {
            place,
            schedule,
            at: began.wall,
            cursor_set: ended.cursor_set,
            ends: ticket.ends,
            duration_us: 1,
            fires,
            cursor: cursor.map(|cursor| cursor.to_string()),
            reason,
            history: ended.history,
            disable: ended.disable,
            wait,
            failures: ended.failures,
            told: None,
            holds: None,
        };
        let mut effects = Effects::default();
        self.processes[p].places[place as usize].in_commit = true;
        self.processes[p].engine.step(Event::Polled(polled), now, &mut effects);
        // A step at which the clock has been set asks for seats, too, and notes what is left of runs' times, whatever it is about.
        let is_asked =
            |change: &&Change| matches!(change, Change::LookForSeats { .. } | Change::Timed { .. });
        let changes = effects.commits.iter().map(|(change, _)| change);
        let ticks: Vec<&Change> = changes.filter(|change| !is_asked(change)).collect();
        match ticks[..] {
            [Change::Tick(tick)] => {
                assert_eq!(tick.cursor, cursor.map(|cursor| cursor.to_string()), "a tick has its cursor");
                let sent: Vec<(u64, &NewRun)> = tick.fires.iter().map(|new| (item_of(new), new)).collect();
                let wished: Vec<u64> = wishes.iter().map(|wish| wish.item).collect();
                let found: Vec<u64> = sent.iter().map(|(item, _)| *item).collect();
                assert_eq!(found, wished, "fires of {} beside {line:?}", source.name);
                let process = &mut self.processes[p];
                process.moves.push_back(Moved { from, to: cursor, row, ends });
                for (wish, (_, new)) in wishes.into_iter().zip(sent) {
                    assert_eq!(new.unique_hash, wish.guard.is_some(), "its hash guards run {}", new.id);
                    process.hold(new.id, schedule, wish.guard);
                    self.witness.seen(new.id).wish = Some(wish);
                }
            }
            // The trigger was declared again meanwhile: this poll changes nothing.
            [] => self.processes[p].has_lost_polls = true,
            ref others => panic!("{others:?} is not one tick"),
        }
        self.carry_out(p, effects);
    }

    /// The items whose fires become runs, and the runs that stood in line before them.
    fn admit(
        &mut self,
        p: usize,
        place: u32,
        schedule: ScheduleKey,
        items: &[u64],
        fires: &[Fire],
    ) -> (Vec<Wish>, Vec<Uuid>) {
        let process = &self.processes[p];
        let declared = &process.places[place as usize].trigger.declared;
        let line = process.line(schedule);
        // With whether it is certain that they are unfinished.
        let mut hashes: Vec<_> =
            line.iter().filter_map(|id| process.held[id].hash).map(|hash| (hash, true)).collect();
        let mut admitted = Vec::new();
        let (mut certain, mut in_row, mut has_ended) = (0, 0, false);
        let before = line.len();
        let most = match declared.overlap {
            Overlap::Skip => 1,
            Overlap::BufferOne => 2,
            Overlap::Allow | Overlap::Queue | Overlap::CancelRunning => usize::MAX,
        };
        if process.engine.workflow(&declared.row.workflow).is_none() {
            return (admitted, line);
        }
        for (&item, fire) in items.iter().zip(fires) {
            if fire.cursor.is_some() {
                // All that may be used up, until one that takes a place finds none.
                if !has_ended {
                    let key = fire.run_key.clone();
                    has_ended = key.is_none() && before + certain + in_row >= most;
                    in_row += usize::from(key.is_none());
                    admitted.push(Wish { item, guard: None, key, overlap: declared.overlap });
                }
                continue;
            }
            let guard = (!declared.row.allow_concurrent).then_some(fire.hash);
            let equal = guard.and_then(|guard| hashes.iter().find(|(hash, _)| *hash == guard));
            // One that its run key may refuse stands in no other's way before that is known.
            if before + certain >= most || equal.is_some_and(|(_, is_certain)| *is_certain) {
                continue;
            }
            let is_certain = fire.run_key.is_none();
            certain += usize::from(is_certain);
            hashes.extend(guard.map(|guard| (guard, is_certain)));
            admitted.push(Wish { item, guard, key: fire.run_key.clone(), overlap: declared.overlap });
        }
        (admitted, line)
    }
}

/// What the gate is told of these items.
fn fires(source: &Source, items: &[u64], began: Wall, waits: bool) -> Vec<Fire> {
    let fire = |&item: &u64| Fire {
        trace: None,
        context: format!("{{\"item\":{item}}}").into(),
        hash: source.hash(item),
        run_key: source.key(item).map(|key| (key, source.key_ttl.map(|ttl| began.after(ttl)))),
        cursor: source.has_row.then(|| (item + 1).to_string()),
        // Some of them, always the same ones.
        urgency: Urgency { priority: Priority::new((item % 7) as i64), due: delay(item).filter(|_| !waits) },
        parent: None,
    };
    items.iter().map(fire).collect()
}

fn delay(item: u64) -> Option<Due> {
    (item % 5 == 3).then(|| Due::After(Duration::from_millis(item % 4 * 700)))
}

fn is_on_beat(grid: &Grid, trigger: &Trigger, ticket: Ticket, beat: Mono, now: Mono) {
    let (name, plan) = (&trigger.source.name, &trigger.plan);
    let interval_ns = plan.interval.as_nanos() as u64;
    assert!(grid.has(beat, interval_ns), "{name} is polled at {beat:?}, off its beat");
    let most = beat.after(plan.jitter);
    assert!(
        ticket.due >= beat && ticket.due <= most,
        "{name} is due at {:?}, not from {beat:?} to {most:?}",
        ticket.due
    );
    assert!(now >= ticket.due, "{name} is polled early");
}

fn item_of(new: &NewRun) -> u64 {
    let digits: String = new.context.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a fire's context holds its item")
}
