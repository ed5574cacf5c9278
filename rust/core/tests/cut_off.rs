//! An attempt whose runner was cut off: that it failed counts for nothing, and it is made again as one more of as many as before.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use cloaca_core::engine::{Effects, Engine, Event, Job, Note, Ready, Request};
use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::policy::RetryPolicy;
use cloaca_core::port::{Admitted, Change, Failure, Receipt, RunStatus, TryOutcome};
use cloaca_core::run::{Ended, Ruling};
use cloaca_core::time::{Mono, Now, Wall};
use cloaca_core::workflow::{OnInterrupt, Task, Workflow};
use uuid::Uuid;

const RUN: Uuid = Uuid::from_u128(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A run of one task that is attempted once, and is in its body.
struct World {
    engine: Engine,
    now: Now,
    job: Job,
    /// How its attempts ended, as they were kept.
    tries: Vec<(u32, TryOutcome)>,
}

impl World {
    fn new(on_interrupt: OnInterrupt) -> Self {
        let mail = harness::mail(RetryPolicy { attempts_max: 1, ..RetryPolicy::default() });
        let tasks = mail.tasks.iter().map(|task| Task { on_interrupt, ..task.clone() }).collect();
        let workflow = Arc::new(Workflow { tasks, ..(*mail).clone() });
        let engine = harness::engine(Epoch(2), false);
        let job = Job { run: RUN, task: 0, attempt: 1, life: 0, callback_only: false };
        let now = Now { mono: Mono(0), wall: Wall(0) };
        let mut world = World { engine, now, job, tries: Vec::new() };
        world.step(Event::Workflow(Arc::clone(&workflow)));
        let request = Request::of(RUN, "{}".into());
        let begun = world.step(Event::Start { workflow, requests: vec![request] });
        world.take(&begun);
        world
    }

    fn step(&mut self, event: Event) -> Effects {
        let effects = harness::step(&mut self.engine, event, self.now);
        self.keep(effects)
    }

    fn end(&mut self, ended: Ended) -> (Ruling, Effects) {
        let mut effects = Effects::default();
        let ruling = self.engine.attempt_ended(self.job, ended, false, self.now, &mut effects);
        (ruling, self.keep(effects))
    }

    fn fail(&mut self) -> (Ruling, Effects) {
        let failure = Failure {
            outcome: TryOutcome::Failed,
            error_type: "CancelledError".into(),
            error: "CancelledError".to_owned(),
            traceback: None,
        };
        self.end(Ended::Failure(failure))
    }

    /// What waits for the store follows.
    fn keep(&mut self, mut effects: Effects) -> Effects {
        while !effects.commits.is_empty() {
            for (change, then) in std::mem::take(&mut effects.commits) {
                let receipt = match &change {
                    Change::Start { .. } => Receipt::Start(vec![Admitted::Started { row: RunRow(1) }]),
                    Change::Run(change) => {
                        let tries = change.tasks.iter().flat_map(|task| &task.tries);
                        self.tries.extend(tries.map(|each| (each.attempt, each.outcome)));
                        Receipt::Run(None)
                    }
                    Change::Timed { .. } | Change::Overdue(_) => Receipt::Noted,
                    other => panic!("{other:?}"),
                };
                self.engine.step(Event::Committed(then, receipt), self.now, &mut effects);
            }
        }
        effects
    }

    fn take(&mut self, effects: &Effects) {
        let [Ready { job, .. }] = effects.jobs[..] else { panic!("{effects:?}") };
        self.job = job;
        let taken = self.step(Event::Taken(job));
        if !taken.recorded.is_empty() {
            self.step(Event::Taken(job));
        }
    }

    fn cut_off(&mut self) -> Effects {
        self.step(Event::CutOff(vec![self.job]))
    }
}

fn statuses(effects: &Effects) -> Vec<RunStatus> {
    effects.ended.iter().map(|(_, _, end)| end.status).collect()
}

#[test]
fn its_body_is_told_once_and_its_failure_uses_up_nothing() {
    let mut world = World::new(OnInterrupt::Retry);
    let told = world.cut_off();
    assert_eq!(told.told, [(world.job, None)]);
    assert_eq!(told.logs, [Note::CutOff { bodies: 1 }]);
    let again = world.cut_off();
    assert_eq!((again.told, again.logs), (vec![], vec![]));

    assert_eq!(world.fail().0, Ruling::Retry);
    assert_eq!(world.tries, [(1, TryOutcome::Interrupted)]);
    let due = world.step(Event::Clock);
    world.take(&due);
    assert_eq!(world.job.attempt, 2);
    // Of that one it counts.
    let (ruling, effects) = world.fail();
    assert_eq!((ruling, statuses(&effects)), (Ruling::Final, vec![RunStatus::Failed]));
}

#[test]
fn a_place_that_was_stopped_for_it_uses_up_nothing() {
    let mut world = World::new(OnInterrupt::Retry);
    world.cut_off();
    world.step(Event::Stopped(world.job));
    assert_eq!(world.tries, [(1, TryOutcome::Interrupted)]);
    let due = world.step(Event::Clock);
    world.take(&due);
    world.cut_off();
    let (ruling, _) = world.end(Ended::Lost { text: "it was stopped".to_owned(), deaths_max: 0 });
    assert_eq!(ruling, Ruling::Retry);
    assert_eq!(world.tries, [(1, TryOutcome::Interrupted), (2, TryOutcome::Interrupted)]);
}

#[test]
fn one_that_is_cancelled_meanwhile_ends_as_that() {
    let stopped = |world: &mut World| {
        world.end(Ended::Lost { text: "it was stopped".to_owned(), deaths_max: 0 });
    };
    let fails = |world: &mut World| drop(world.fail());
    let ends: [fn(&mut World); 2] = [stopped, fails];
    for end in ends {
        let mut world = World::new(OnInterrupt::Retry);
        world.cut_off();
        world.step(Event::Cancel(RUN));
        end(&mut world);
        assert_eq!(world.tries, [(1, TryOutcome::Cancelled)]);
    }
}

#[test]
fn what_it_comes_to_counts() {
    let mut world = World::new(OnInterrupt::Retry);
    world.cut_off();
    let (ruling, effects) = world.end(Ended::Success("{}".into()));
    assert_eq!((ruling, statuses(&effects)), (Ruling::Final, vec![RunStatus::Completed]));
}

#[test]
fn one_that_may_not_be_made_again_fails() {
    let mut world = World::new(OnInterrupt::Fail);
    world.cut_off();
    let (ruling, effects) = world.fail();
    assert_eq!((ruling, statuses(&effects)), (Ruling::Final, vec![RunStatus::Failed]));
    let error = effects.ended[0].2.error.as_deref().unwrap_or_default();
    assert!(error.contains("on_interrupt is \"fail\": the store was out of reach"), "{error}");
}

#[test]
fn its_time_goes_on_and_a_cancel_is_told_once_more() {
    for event in [Event::Clock, Event::Cancel(RUN)] {
        let mut world = World::new(OnInterrupt::Retry);
        world.cut_off();
        world.now.mono = world.now.mono.after(HOUR);
        let told = world.step(event).told;
        assert_eq!(told.iter().map(|(job, _)| *job).collect::<Vec<_>>(), [world.job]);
        // Its grace.
        world.now.mono = world.now.mono.after(HOUR);
        assert_eq!(world.step(Event::Clock).overdue, [world.job]);
    }
}
