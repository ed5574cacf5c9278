//! How long a task is tried: the machine's clock may be set meanwhile, and has no say in that while the process lives.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use cloaca_core::engine::{Effects, Engine, Event, Job, Ready, Request};
use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::policy::{Backoff, RetryPolicy};
use cloaca_core::port::{Admitted, Change, Failure, Receipt, TaskRecord, TaskStatus, Unfinished};
use cloaca_core::run::{Ended, Ruling};
use cloaca_core::time::{Mono, Now, Wall};
use cloaca_core::urgency::Priority;
use uuid::Uuid;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const DAY_US: i64 = 24 * 60 * MINUTE_US;
const NOON: Wall = Wall(20_000 * DAY_US + DAY_US / 2);
const RUN: Uuid = Uuid::from_u128(1);

/// What somebody does to the machine's clock while the task is tried.
const SHIFTS_US: [i64; 4] = [0, -DAY_US, 365 * DAY_US, 90 * SECOND_US];

/// An attempt a minute, for ten minutes.
fn for_ten_minutes() -> RetryPolicy {
    RetryPolicy {
        attempts_max: u32::MAX,
        time_max: Some(Duration::from_secs(600)),
        first_delay: Duration::from_secs(60),
        backoff: Backoff::Fixed,
        jitter: false,
        ..RetryPolicy::default()
    }
}

/// An engine whose clocks the test moves, and which keeps whatever is to be kept.
struct World {
    engine: Engine,
    now: Now,
}

impl World {
    fn new() -> (Self, Arc<cloaca_core::workflow::Workflow>) {
        let workflow = harness::mail(for_ten_minutes());
        let mut world =
            Self { engine: harness::engine(Epoch(2), false), now: Now { mono: Mono(0), wall: NOON } };
        world.step(Event::Workflow(Arc::clone(&workflow)));
        (world, workflow)
    }

    fn pass(&mut self, seconds: u64) -> Effects {
        let span = Duration::from_secs(seconds);
        self.now = Now { mono: self.now.mono.after(span), wall: self.now.wall.after(span) };
        self.step(Event::Clock)
    }

    fn step(&mut self, event: Event) -> Effects {
        let effects = harness::step(&mut self.engine, event, self.now);
        self.keep(effects)
    }

    /// What follows once all that is to be kept is.
    fn keep(&mut self, mut effects: Effects) -> Effects {
        let mut kept = Effects::default();
        while let Some((change, then)) = effects.commits.pop() {
            let receipt = match (&change, &then) {
                (Change::Start { .. }, _) => Receipt::Start(vec![Admitted::Started { row: RunRow(1) }]),
                (Change::Run(_), _) => Receipt::Run(None),
                (Change::Timed { .. }, _) => Receipt::Noted,
                (change, then) => panic!("{change:?} {then:?}"),
            };
            let more = harness::step(&mut self.engine, Event::Committed(then, receipt), self.now);
            effects.commits.extend(more.commits);
            kept.jobs.extend(more.jobs);
            kept.recorded.extend(more.recorded);
        }
        kept.jobs.extend(effects.jobs);
        kept.recorded.extend(effects.recorded);
        kept
    }

    /// Makes attempts, each of which fails at once, until none follows; after the first one the machine's clock is set.
    fn tried(&mut self, begun: Effects, shift_us: i64) -> u32 {
        let mut job = only(&begun);
        let mut attempts = 0;
        loop {
            if let [recorded] = self.step(Event::Taken(job)).recorded[..] {
                self.step(Event::Taken(recorded.1));
            }
            attempts += 1;
            if attempts == 1 {
                self.now.wall = Wall(self.now.wall.0 + shift_us);
            }
            let mut out = Effects::default();
            let failure = Failure::raised("OSError", "OSError: no".to_owned(), None);
            let ruling = self.engine.attempt_ended(job, Ended::Failure(failure), false, self.now, &mut out);
            self.keep(out);
            if ruling == Ruling::Final {
                return attempts;
            }
            assert_eq!(ruling, Ruling::Retry);
            job = only(&self.pass(60));
        }
    }
}

fn only(effects: &Effects) -> Job {
    let [Ready { job, .. }] = effects.jobs[..] else { panic!("{effects:?}") };
    job
}

#[test]
fn a_clock_that_is_set_while_a_task_is_tried_neither_ends_nor_prolongs_that() {
    for shift_us in SHIFTS_US {
        let (mut world, workflow) = World::new();
        let request = Request::of(RUN, "{}".into());
        let begun = world.step(Event::Start { workflow, requests: vec![request] });
        assert_eq!(world.tried(begun, shift_us), 10, "the clock was set by {shift_us} us");
    }
}

/// The run, whose task has been tried by a process that is gone since then, as the calendar says.
fn left_behind(began_at: Wall) -> Event {
    let record = TaskRecord {
        name: "send".into(),
        status: TaskStatus::Running,
        attempt: 1,
        interrupted: 0,
        postponed: 0,
        wait: None,
        rests_since: None,
        checkpoint: None,
        context: None,
        error: None,
        error_type: None,
        tries: Vec::new(),
        started_at: Some(began_at),
        completed_at: None,
    };
    Event::Claimed(vec![Unfinished {
        trace: None,
        row: RunRow(1),
        id: RUN,
        workflow: "mail".to_owned(),
        version: "1".to_owned(),
        context: "{}".to_owned(),
        schedule: None,
        context_hash: None,
        waits: false,
        is_again: false,
        created_at: began_at,
        interruptions: 1,
        priority: Priority::default(),
        due_at: None,
        owner_before: Some(Epoch(1)),
        cancelled: false,
        is_mixed: false,
        spent: None,
        is_child: false,
        is_limited: false,
        is_held: false,
        tasks: vec![record],
        behind: Vec::new(),
    }])
}

#[test]
fn what_a_task_was_tried_by_a_process_before_counts_as_the_calendar_says_it() {
    // Four minutes are gone; so are none if the clock was ahead when it began.
    for (began_at, attempts) in [(-4 * MINUTE_US, 6), (DAY_US, 10)] {
        for shift_us in SHIFTS_US {
            let (mut world, _) = World::new();
            let begun = world.step(left_behind(Wall(NOON.0 + began_at)));
            let tried = world.tried(begun, shift_us);
            assert_eq!(tried, attempts, "begun at {began_at} us, the clock was set by {shift_us} us");
        }
    }
}
