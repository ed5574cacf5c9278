//! An engine by hand: made, told of one workflow, stepped at a time that the test says. Asserts nothing.

use std::sync::Arc;
use std::time::Duration;

use cloaca_core::context::Bounds;
use cloaca_core::engine::{Effects, Engine, Event, Settings};
use cloaca_core::graph::Graph;
use cloaca_core::key::Epoch;
use cloaca_core::policy::RetryPolicy;
use cloaca_core::time::Now;
use cloaca_core::urgency::Priority;
use cloaca_core::workflow::{Executor, OnInterrupt, Task, Workflow};

/// The engine of an owner; every time-out is an hour.
pub fn engine(owner: Epoch, crons_enabled: bool) -> Engine {
    making_up(1, owner, crons_enabled)
}

/// The same; it makes up for so many moments of a cron.
#[allow(dead_code, reason = "not every test is about crons")]
pub fn making_up(catchup_max: u64, owner: Epoch, crons_enabled: bool) -> Engine {
    let hour = Duration::from_secs(3600);
    let settings = Settings {
        task_timeout: hour,
        timeout_grace: hour,
        workflow_timeout: hour,
        interruptions_max: 20,
        crons_enabled,
        catchup_max,
        contexts: Bounds::default(),
        permits: vec![4, 1],
        runs_in_hand: None,
        shares: true,
    };
    Engine::new(owner, settings, 1)
}

/// What follows from an event.
pub fn step(engine: &mut Engine, event: Event, now: Now) -> Effects {
    let mut effects = Effects::default();
    engine.step(event, now, &mut effects);
    effects
}

/// The program declares `mail`, a workflow of one task.
#[allow(dead_code, reason = "not every test is content with its policy")]
pub fn declared_mail() -> Event {
    Event::Workflow(mail(RetryPolicy::default()))
}

/// That workflow, whose task is attempted so often.
pub fn mail(retry: RetryPolicy) -> Arc<Workflow> {
    let id: Arc<str> = "send".into();
    let graph =
        Graph::check("mail", std::slice::from_ref(&id), &[Vec::new()]).expect("one task has no cycle");
    let task = Task {
        id,
        dependencies: Vec::new(),
        retry,
        on_interrupt: OnInterrupt::Retry,
        limits: Vec::new(),
        timeout: None,
        rule: None,
        body: 1,
        executor: Executor::THREADS,
        has_failure_callback: false,
    };
    Arc::new(Workflow {
        name: "mail".into(),
        version: "1".into(),
        tasks: vec![task],
        graph,
        priority: Priority::default(),
        timeout: None,
        limits: None,
        graph_text: "".into(),
        tells: cloaca_core::port::Outcomes::default(),
        tie: None,
    })
}
