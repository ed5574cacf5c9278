//! An engine by hand: made, told of one workflow, stepped at a time that the test says. Asserts nothing.

use std::sync::Arc;
use std::time::Duration;

use cloaca_core::context::Bounds;
use cloaca_core::engine::{Effects, Engine, Event, Settings};
use cloaca_core::graph::Graph;
use cloaca_core::policy::RetryPolicy;
use cloaca_core::time::Now;
use cloaca_core::workflow::{Task, Workflow};

/// The engine of an owner; every time-out is an hour.
pub fn engine(owner: i64, crons_enabled: bool) -> Engine {
    let hour = Duration::from_secs(3600);
    let settings = Settings {
        task_timeout: hour,
        workflow_timeout: hour,
        crons_enabled,
        catchup_max: 1,
        contexts: Bounds::default(),
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
pub fn declared_mail() -> Event {
    let id: Arc<str> = "send".into();
    let graph =
        Graph::check("mail", std::slice::from_ref(&id), &[Vec::new()]).expect("one task has no cycle");
    let task = Task {
        id,
        dependencies: Vec::new(),
        retry: RetryPolicy::default(),
        rule: None,
        body: 1,
        has_failure_callback: false,
    };
    let workflow = Workflow { name: "mail".into(), version: "1".into(), tasks: vec![task], graph };
    Event::Workflow(Arc::new(workflow))
}
