//! An attempt that its place has stopped before it began: its task has failed, and its callback's time begins when somebody tells it.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use cloaca_core::engine::{Effects, Engine, Event, Job, Ready, Request};
use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::policy::RetryPolicy;
use cloaca_core::port::{Admitted, Change, Receipt, RunStatus};
use cloaca_core::time::{Mono, Now, Wall};
use cloaca_core::workflow::{Task, Workflow};
use uuid::Uuid;

const RUN: Uuid = Uuid::from_u128(1);
const TWO_HOURS: Duration = Duration::from_secs(7200);

struct World {
    engine: Engine,
    now: Now,
}

impl World {
    fn step(&mut self, event: Event) -> Effects {
        let mut effects = harness::step(&mut self.engine, event, self.now);
        let mut kept = Effects::default();
        while !effects.commits.is_empty() {
            for (change, then) in std::mem::take(&mut effects.commits) {
                let receipt = match &change {
                    Change::Start { .. } => Receipt::Start(vec![Admitted::Started { row: RunRow(1) }]),
                    Change::Run(_) => Receipt::Run(None),
                    Change::Timed { .. } => Receipt::Noted,
                    other => panic!("{other:?}"),
                };
                self.engine.step(Event::Committed(then, receipt), self.now, &mut effects);
            }
        }
        kept.jobs = effects.jobs;
        kept.ended = effects.ended;
        kept
    }
}

fn with_callback() -> Arc<Workflow> {
    let mail = harness::mail(RetryPolicy::default());
    let tasks = mail.tasks.iter().map(|task| Task { has_failure_callback: true, ..task.clone() }).collect();
    Arc::new(Workflow { tasks, ..(*mail).clone() })
}

fn only(effects: &Effects) -> Job {
    let [Ready { job, .. }] = effects.jobs[..] else { panic!("{effects:?}") };
    job
}

#[test]
fn a_callback_that_nobody_has_begun_is_waited_for_however_long_that_takes() {
    let workflow = with_callback();
    let engine = harness::engine(Epoch(2), false);
    let mut world = World { engine, now: Now { mono: Mono(0), wall: Wall(0) } };
    world.step(Event::Workflow(Arc::clone(&workflow)));
    let request = Request::of(RUN, "{}".into());
    let job = only(&world.step(Event::Start { workflow, requests: vec![request] }));
    world.step(Event::Taken(job));
    world.step(Event::Cancel(RUN));

    let callback = only(&world.step(Event::Stopped(job)));
    assert!(callback.callback_only);
    // All workers are busy for longer than a callback may take.
    world.now.mono = world.now.mono.after(TWO_HOURS);
    let late = world.step(Event::Clock);
    assert_eq!(late.ended, [], "its end is not told yet");

    world.step(Event::Taken(callback));
    let ended = world.step(Event::Settled(callback)).ended;
    assert_eq!(
        ended.iter().map(|(id, _, end)| (*id, end.status)).collect::<Vec<_>>(),
        [(RUN, RunStatus::Cancelled)]
    );
}
