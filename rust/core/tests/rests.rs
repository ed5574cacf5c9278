//! A body that waits without a permit: that is on record, and the deaths of its process are none of its fault.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use cloaca_core::engine::{Effects, Engine, Event, Job, Ready, Request};
use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::policy::RetryPolicy;
use cloaca_core::port::{Admitted, Change, Receipt, TaskRecord, TaskStatus, Unfinished};
use cloaca_core::time::{Mono, Now, Wall};
use cloaca_core::urgency::Priority;
use cloaca_core::workflow::Workflow;
use uuid::Uuid;

const RUN: Uuid = Uuid::from_u128(1);
const NOON: Wall = Wall(1_000_000_000_000);
/// As many deaths as a task may see, and more.
const LIVES: u32 = 30;

/// One process after another, and what the store has of the run's only task.
struct World {
    engine: Engine,
    workflow: Arc<Workflow>,
    now: Now,
    record: Option<TaskRecord>,
}

impl World {
    fn new() -> Self {
        let workflow = harness::mail(RetryPolicy::default());
        let (engine, now) = (harness::engine(Epoch(1), false), Now { mono: Mono(0), wall: NOON });
        let mut world = Self { engine, workflow, now, record: None };
        world.step(Event::Workflow(Arc::clone(&world.workflow)));
        world
    }

    /// The process dies, and the next one takes the run over.
    fn dies(&mut self, interruptions: u32) -> Effects {
        self.engine = harness::engine(Epoch(i64::from(interruptions) + 1), false);
        self.step(Event::Workflow(Arc::clone(&self.workflow)));
        let tasks = self.record.iter().cloned().collect();
        self.step(Event::Claimed(vec![Unfinished {
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
            created_at: NOON,
            interruptions,
            priority: Priority::default(),
            due_at: None,
            owner_before: Some(Epoch(i64::from(interruptions))),
            cancelled: false,
            is_mixed: false,
            spent: None,
            is_child: false,
            is_limited: false,
            is_held: false,
            tasks,
            behind: Vec::new(),
        }]))
    }

    /// A body begins.
    fn begins(&mut self, effects: &Effects) -> Job {
        let [Ready { job, .. }] = effects.jobs[..] else { panic!("{effects:?}") };
        match self.step(Event::Taken(job)).recorded[..] {
            [(_, recorded)] => {
                self.step(Event::Taken(recorded));
                recorded
            }
            _ => job,
        }
    }

    fn pass(&mut self, seconds: u64) {
        let span = Duration::from_secs(seconds);
        self.now = Now { mono: self.now.mono.after(span), wall: self.now.wall.after(span) };
        self.step(Event::Clock);
    }

    fn step(&mut self, event: Event) -> Effects {
        let mut effects = harness::step(&mut self.engine, event, self.now);
        let mut kept = Effects::default();
        while !effects.commits.is_empty() {
            let (change, then) = effects.commits.remove(0);
            let receipt = match change {
                Change::Start { .. } => Receipt::Start(vec![Admitted::Started { row: RunRow(1) }]),
                Change::Run(run) => {
                    self.record = run.tasks.into_iter().last().or(self.record.take());
                    Receipt::Run(None)
                }
                _ => Receipt::Noted,
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

    fn started(&mut self) -> Job {
        let requests = vec![Request::of(RUN, "{}".into())];
        let begun = self.step(Event::Start { workflow: Arc::clone(&self.workflow), requests });
        self.begins(&begun)
    }

    fn counts(&self) -> (TaskStatus, u32, u32, Option<Wall>) {
        let record = self.record.as_ref().expect("it is on record");
        (record.status, record.attempt, record.interrupted, record.rests_since)
    }
}

#[test]
fn a_wait_is_on_record_once_it_has_lasted_and_until_it_is_over() {
    let mut world = World::new();
    let job = world.started();
    world.step(Event::Deferred(job, true));
    world.pass(4);
    assert_eq!(world.record.as_ref().and_then(|record| record.rests_since), None);
    world.pass(1);
    assert_eq!(world.counts(), (TaskStatus::Running, 1, 0, Some(NOON)));
    world.step(Event::Deferred(job, false));
    assert_eq!(world.counts(), (TaskStatus::Running, 1, 0, None));
    world.step(Event::Deferred(job, true));
    world.step(Event::Deferred(job, false));
    world.pass(60);
    assert_eq!(world.counts(), (TaskStatus::Running, 1, 0, None), "it was over before it was on record");
}

#[test]
fn a_wait_outlives_any_number_of_deaths() {
    let mut world = World::new();
    let mut job = world.started();
    for life in 1..=LIVES {
        world.step(Event::Deferred(job, true));
        world.pass(5);
        assert_eq!(world.counts().1, life, "each is another attempt");
        let taken = world.dies(life);
        job = world.begins(&taken);
    }
    assert_eq!(world.counts(), (TaskStatus::Running, LIVES + 1, 0, None));
}

#[test]
fn what_dies_in_its_body_is_given_up_however_long_it_waited_before() {
    let mut world = World::new();
    let mut job = world.started();
    for life in 1..=20 {
        world.step(Event::Deferred(job, true));
        world.pass(5);
        world.step(Event::Deferred(job, false));
        let taken = world.dies(life);
        job = world.begins(&taken);
    }
    assert_eq!(world.counts().2, 20);
    world.dies(21);
    assert_eq!(world.counts().0, TaskStatus::Failed);
}
