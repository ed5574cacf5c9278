//! What one seed plays: workflows in several versions, triggers, settings, and how rough the world is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cloaca_core::admit::Overlap;
use cloaca_core::context::{Bounds, LIGHT_BYTES_MAX};
use cloaca_core::engine::{Declared, Settings};
use cloaca_core::graph::Graph;
use cloaca_core::limit::Rate;
use cloaca_core::policy::{self, Condition, RetryPolicy};
use cloaca_core::poll::{self, Plan};
use cloaca_core::port::{ContextHash, TriggerRow};
use cloaca_core::rule::{Operator, Rule};
use cloaca_core::seat::{Limit, Terms};
use cloaca_core::time::Wall;
use cloaca_core::urgency::Priority;
use cloaca_core::workflow::{Executor, OnInterrupt, Task, Workflow};

use serde_json::Value;

use crate::random::Random;

/// Versions of one workflow; a program declares one of them, and may declare a later one.
const VERSIONS: usize = 3;

/// What a trigger watches, which stays the same however often the trigger is declared.
#[derive(Clone)]
pub struct Source {
    pub name: Arc<str>,
    pub workflow: Arc<str>,
    /// Items whose numbers are equal by this have equal contexts, as far as the gate is told.
    hashes: u64,
    /// So many neighbouring items share a run key; none has one if zero.
    items_per_key: u64,
    pub key_ttl: Option<Duration>,
    /// Whether it goes through its items by a cursor, or picks them at random.
    pub has_cursor: bool,
    /// Whether each of its fires carries its own cursor.
    pub has_row: bool,
    pub fires_max: u64,
    pub fire_percent: u64,
    pub error_percent: u64,
    number: u8,
}

impl Source {
    pub fn hash(&self, item: u64) -> ContextHash {
        let mut hash = [self.number; 16];
        hash[0] = (item % self.hashes) as u8;
        hash
    }

    pub fn key(&self, item: u64) -> Option<String> {
        item.checked_div(self.items_per_key).map(|key| format!("key-{key}"))
    }
}

/// One declaration of a trigger.
#[derive(Clone)]
pub struct Trigger {
    pub source: Arc<Source>,
    pub plan: Arc<Plan>,
    pub declared: Declared,
}

/// Actions of the world that are drawn at random, with how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Join,
    Crash,
    Leave,
    LoseLock,
    Declare,
    Look,
    Write,
    Deliver,
    Take,
    EndBody,
    StopBody,
    Context,
    Defer,
    Checkpoint,
    Settle,
    Poll,
    Answer,
    PollNow,
    Clock,
    Start,
    Cancel,
    Reopen,
    Redeclare,
    Call,
    Offer,
    Switch,
    News,
    Vacate,
    Gather,
    Noise,
    Pass,
}

pub struct Scenario {
    /// Of each workflow every version.
    pub workflows: Vec<Vec<Arc<Workflow>>>,
    /// Tasks, by workflow and id, of which each attempt begins with a call for that workflow.
    pub calls: HashMap<(Arc<str>, Arc<str>), Arc<str>>,
    pub sources: Vec<Arc<Source>>,
    pub settings: Settings,
    pub permits_max: usize,
    pub processes_max: usize,
    pub fault_percent: u64,
    pub body_failure_percent: u64,
    pub body_postpones_percent: u64,
    /// Of bodies whose place to run dies under them.
    pub body_lost_percent: u64,
    /// Of processes that work on nothing.
    pub client_percent: u64,
    /// A claim hands over so many runs at most.
    pub claim_chunk: u64,
    pub acts: Vec<(Act, u64)>,
}

impl Scenario {
    pub fn new(random: &mut Random) -> Self {
        let workflows: Vec<Vec<Arc<Workflow>>> =
            (0..random.between(1, 3)).map(|number| versions(random, &format!("w{number}"))).collect();
        let names: Vec<Arc<str>> = workflows.iter().map(|versions| Arc::clone(&versions[0].name)).collect();
        let sources = (0..random.between(0, 4)).map(|number| Arc::new(source(random, number as u8, &names)));
        let sources = sources.collect();
        let permits_max = random.between(1, 4) as usize;
        Self {
            calls: calls(random, &workflows),
            sources,
            workflows,
            settings: Settings {
                task_timeout: Duration::from_millis(random.pick(&[200, 2000, 20_000])),
                timeout_grace: Duration::from_millis(random.pick(&[0, 50, 1000, 20_000])),
                workflow_timeout: Duration::from_millis(random.pick(&[500, 5000, 50_000])),
                interruptions_max: random.pick(&[1, 3, 20]),
                crons_enabled: true,
                catchup_max: 3,
                // Contexts here are small: at zero nearly all are looked at outside of a step.
                contexts: Bounds { light_bytes_max: random.pick(&[0, LIGHT_BYTES_MAX]), ..Bounds::default() },
                permits: vec![permits_max],
                runs_in_hand: random.pick(&[None, None, Some(1), Some(3)]),
                shares: true,
            },
            permits_max,
            processes_max: random.pick(&[1, 1, 2, 3, 4]),
            fault_percent: random.pick(&[0, 10, 60]),
            body_failure_percent: random.pick(&[0, 20, 20, 70]),
            body_postpones_percent: random.pick(&[0, 0, 10, 30]),
            body_lost_percent: random.pick(&[0, 0, 5, 30]),
            client_percent: random.pick(&[0, 10, 30]),
            claim_chunk: random.pick(&[1, 2, 200]),
            acts: acts(random),
        }
    }

    /// A declaration of that trigger, each time another.
    pub fn trigger(&self, random: &mut Random, source: &Arc<Source>) -> Trigger {
        let interval = Duration::from_millis(random.pick(&[10, 50, 100, 100, 400, 3000, 30_000]));
        let millis = |random: &mut Random, choices: &[u64]| Duration::from_millis(random.pick(choices));
        let is_timed = random.percent(30);
        let overlap = random.pick(&[
            Overlap::Allow,
            Overlap::Allow,
            Overlap::Skip,
            Overlap::Queue,
            Overlap::BufferOne,
            Overlap::CancelRunning,
        ]);
        let plan = Plan {
            interval,
            jitter: if random.percent(20) { interval / 3 } else { Duration::ZERO },
            timeout: is_timed.then(|| millis(random, &[30, 300])),
            backoff: poll::Backoff {
                base: millis(random, &[10, 100, 500]),
                factor: 2.0,
                longest: Duration::from_secs(1),
            },
            failures_max: if random.percent(25) { Some(2) } else { None },
            polls_at_start: random.percent(20),
            by_calendar: false,
            by_ends: false,
        };
        let row = TriggerRow {
            name: Arc::clone(&source.name),
            workflow: Arc::clone(&source.workflow),
            interval_us: interval.as_micros() as i64,
            allow_concurrent: random.percent(30),
            on_run: None,
            digest: random.between(1, VERSIONS as u64) as i64,
            origin_at: Wall(0),
        };
        Trigger { source: Arc::clone(source), plan: Arc::new(plan), declared: Declared { row, overlap } }
    }

    /// The most attempts that any version of a workflow grants one of its tasks.
    pub fn attempts_max(&self, workflow: &str, task: &str) -> u32 {
        let versions = self.workflows.iter().flatten().filter(|version| &*version.name == workflow);
        let tasks = versions.flat_map(|version| &version.tasks).filter(|found| &*found.id == task);
        tasks.map(|found| found.retry.attempts_max).max().unwrap_or(0)
    }
}

fn versions(random: &mut Random, name: &str) -> Vec<Arc<Workflow>> {
    // The version of a workflow rarely changes its edges, but then everything may be different.
    let mut last = workflow(random, name, 0);
    let mut versions = vec![Arc::clone(&last)];
    for number in 1..VERSIONS {
        let is_new = random.percent(30);
        last = if is_new { workflow(random, name, number) } else { last };
        versions.push(Arc::clone(&last));
    }
    versions
}

/// A task calls for a later workflow only: what it starts has an end.
fn calls(random: &mut Random, workflows: &[Vec<Arc<Workflow>>]) -> HashMap<(Arc<str>, Arc<str>), Arc<str>> {
    let mut calls = HashMap::new();
    for (number, versions) in workflows.iter().enumerate() {
        for task in &versions[0].tasks {
            let later = &workflows[number + 1..];
            if !later.is_empty() && random.percent(30) {
                let called = Arc::clone(&random.pick(later)[0].name);
                calls.insert((Arc::clone(&versions[0].name), Arc::clone(&task.id)), called);
            }
        }
    }
    calls
}

fn workflow(random: &mut Random, name: &str, version: usize) -> Arc<Workflow> {
    let ids: Vec<Arc<str>> = (0..random.between(1, 6)).map(|task| Arc::from(format!("t{task}"))).collect();
    let tasks: Vec<Task> = (0..ids.len()).map(|place| task(random, &ids, place)).collect();
    let dependencies: Vec<Vec<Arc<str>>> = tasks.iter().map(|task| task.dependencies.clone()).collect();
    let edges: Vec<_> =
        ids.iter().zip(&dependencies).map(|(id, befores)| format!("[{id:?},{befores:?},null]")).collect();
    let graph = Graph::check(name, &ids, &dependencies).expect("dependencies come before");
    Arc::new(Workflow {
        name: name.into(),
        version: format!("v{version}").into(),
        tasks,
        graph,
        priority: Priority::default(),
        timeout: None,
        limits: None,
        graph_text: format!("[{}]", edges.join(",")).into(),
        tells: cloaca_core::port::Outcomes::default(),
        tie: None,
    })
}

fn task(random: &mut Random, ids: &[Arc<str>], place: usize) -> Task {
    let density = random.pick(&[20, 50, 80]);
    let before = &ids[..place];
    let dependencies: Vec<Arc<str>> = before.iter().filter(|_| random.percent(density)).cloned().collect();
    let rule = random.percent(30).then(|| rule(random, &dependencies));
    Task {
        id: Arc::clone(&ids[place]),
        rule,
        on_interrupt: if random.percent(25) { OnInterrupt::Fail } else { OnInterrupt::Retry },
        dependencies,
        retry: RetryPolicy {
            attempts_max: random.pick(&[1, 1, 2, 3]),
            time_max: random.pick(&[None, None, None, Some(Duration::from_millis(1500))]),
            first_delay: Duration::from_millis(random.pick(&[0, 1, 50, 900])),
            delay_max: Duration::from_secs(2),
            backoff: policy::Backoff::Exponential { base: 2.0, multiplier: 1.0 },
            conditions: vec![Condition::All],
            jitter: random.percent(50),
        },
        timeout: if random.percent(20) { Some(Duration::from_millis(random.pick(&[50, 700]))) } else { None },
        body: 0,
        executor: Executor::THREADS,
        has_failure_callback: random.percent(40),
        limits: limits(random),
    }
}

/// Those that the attempts of a task share with those of others, by name in order.
fn limits(random: &mut Random) -> Vec<Limit> {
    let rate = Rate { limit: 1, per: Duration::from_millis(10), burst: 2 };
    let narrow = Terms { concurrency: Some(1), throttle: None };
    let paced = Terms { concurrency: Some(2), throttle: Some(rate) };
    let limit = |name: &str, terms| Limit { name: name.into(), terms };
    match random.below(25) {
        0 => vec![limit("narrow", narrow)],
        1 => vec![limit("paced", paced)],
        2 => vec![limit("narrow", narrow), limit("paced", paced)],
        _ => Vec::new(),
    }
}

fn rule(random: &mut Random, dependencies: &[Arc<str>]) -> Rule {
    if dependencies.is_empty() {
        return random.pick(&[Rule::Always, Rule::Always, Rule::Any(Vec::new())]);
    }
    let on = random.pick(dependencies).to_string();
    let leaves = |operator| Rule::Value { key: on.clone(), operator, value: Value::Null };
    let plain = [
        Rule::Success(on.clone()),
        Rule::Failed(on.clone()),
        Rule::Skipped(on.clone()),
        Rule::Always,
        leaves(Operator::Exists),
        leaves(Operator::NotExists),
    ];
    let rules = vec![random.pick(&plain), random.pick(&plain)];
    random.pick(&[
        plain[0].clone(),
        plain[1].clone(),
        plain[4].clone(),
        Rule::Always,
        Rule::Any(rules.clone()),
        Rule::None(rules),
    ])
}

fn source(random: &mut Random, number: u8, workflows: &[Arc<str>]) -> Source {
    let has_cursor = random.percent(60);
    Source {
        name: format!("trigger-{number}").into(),
        workflow: random.pick(workflows),
        hashes: random.pick(&[1, 2, 3, 200]),
        items_per_key: random.pick(&[0, 0, 1, 2]),
        key_ttl: random.pick(&[None, None, Some(Duration::from_millis(500))]),
        has_cursor,
        has_row: has_cursor && random.percent(60),
        fires_max: random.pick(&[1, 1, 2, 4]),
        fire_percent: random.pick(&[10, 40, 80]),
        error_percent: random.pick(&[0, 5, 40]),
        number,
    }
}

/// Every seed draws its own frequencies: some worlds crash all the time, in some the store is slow, in some nothing goes wrong.
fn acts(random: &mut Random) -> Vec<(Act, u64)> {
    let steady = [
        (Act::Declare, 20),
        (Act::Look, 20),
        (Act::Deliver, 30),
        (Act::Settle, 20),
        (Act::Poll, 30),
        (Act::Clock, 30),
        (Act::News, 10),
    ];
    let varied: [(Act, [u64; 3]); 10] = [
        (Act::Write, [3, 15, 40]),
        (Act::Take, [10, 30, 30]),
        (Act::EndBody, [3, 20, 20]),
        (Act::Context, [2, 10, 30]),
        (Act::Answer, [5, 20, 40]),
        (Act::Pass, [10, 20, 60]),
        (Act::Join, [2, 5, 20]),
        (Act::Start, [0, 3, 10]),
        (Act::Gather, [1, 1, 5]),
        (Act::Vacate, [1, 2, 5]),
    ];
    let rare: [(Act, [u64; 3]); 14] = [
        (Act::StopBody, [0, 2, 10]),
        (Act::Call, [0, 1, 5]),
        (Act::Offer, [0, 1, 4]),
        (Act::Crash, [0, 1, 5]),
        (Act::Leave, [0, 0, 2]),
        (Act::LoseLock, [0, 0, 1]),
        (Act::Defer, [0, 1, 5]),
        (Act::Checkpoint, [0, 2, 10]),
        (Act::PollNow, [0, 1, 3]),
        (Act::Cancel, [0, 2, 8]),
        (Act::Reopen, [0, 2, 5]),
        (Act::Redeclare, [0, 1, 4]),
        (Act::Switch, [0, 1, 3]),
        (Act::Noise, [0, 3, 5]),
    ];
    let drawn = varied.iter().chain(&rare).map(|&(act, weights)| (act, random.pick(&weights)));
    steady.into_iter().chain(drawn).filter(|(_, weight)| *weight > 0).collect()
}
