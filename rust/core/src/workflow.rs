//! What a workflow is: tasks, edges, rules and policies, with a content version. Knows no Python: a task's body is an id
//! that the binding understands. Invariant: a `Workflow` that exists has passed every check of [`crate::graph`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::graph::Graph;
use crate::limit::Limits;
use crate::policy::RetryPolicy;
use crate::port::Outcomes;
use crate::rule::Rule;
use crate::seat::Limit;
use crate::urgency::Priority;

/// What becomes of a task whose attempt was cut off, by the death of its process or by a shutdown that did not wait for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnInterrupt {
    /// It is attempted again, which uses up no attempt.
    #[default]
    Retry,
    /// It fails. Each attempt is on record before its body is called, so that of one without a record nothing was done.
    Fail,
}

/// Where bodies run: one of a runner's places to run, by its number. What it stands for is the binding's affair, and how many attempts
/// it runs at once the runtime's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Executor(pub u32);

impl Executor {
    /// The workers' threads, which come for their jobs and wait for them.
    pub const THREADS: Self = Self(0);
    /// An event loop.
    pub const LOOP: Self = Self(1);
}

/// One task as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Unique in its workflow.
    pub id: Arc<str>,
    /// Ids of the tasks that must be final before it is decided, in the order declared.
    pub dependencies: Vec<Arc<str>>,
    /// When failed attempts are tried again.
    pub retry: RetryPolicy,
    /// What becomes of it when an attempt is cut off.
    pub on_interrupt: OnInterrupt,
    /// Its attempts begin only under these, by name in order and each once.
    pub limits: Vec<Limit>,
    /// An attempt that takes longer fails; none for what the runner grants.
    pub timeout: Option<Duration>,
    /// Decides whether it runs; without one, the fate of its dependencies does.
    pub rule: Option<Rule>,
    /// Names the Python function in the binding's table.
    pub body: u64,
    /// Where that is called.
    pub executor: Executor,
    /// Whether `on_success` or `on_failure` is set, so that an outcome must be told to Python before it is committed.
    pub has_failure_callback: bool,
}

/// What is dropped with a workflow, once no run follows it any more and nobody is about to call a body of it. It may be dropped under any
/// lock: it waits for nothing, and calls nobody.
pub trait Tie: Debug + Send + Sync {}

/// A checked workflow.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// What runs and triggers call it by.
    pub name: Arc<str>,
    /// Hex digest of everything that decides its behaviour.
    pub version: Arc<str>,
    /// How urgent its runs are, unless whoever asks for one says so. No part of the version.
    pub priority: Priority,
    /// A run of it that takes longer fails; none for what the runner grants. No part of the version.
    pub timeout: Option<Duration>,
    /// What limits its runs, if anything does. No part of the version.
    pub limits: Option<Arc<Limits>>,
    /// Of which ends of its runs its callbacks are to be told. No part of the version.
    pub tells: Outcomes,
    /// In the order declared; edges refer to positions here.
    pub tasks: Vec<Task>,
    /// The edges, checked.
    pub graph: Graph,
    /// What who looks at its runs without the program sees of it, as [`crate::graph::undone`] reads it; more than that is the binding's affair. Empty for
    /// nothing.
    pub graph_text: Arc<str>,
    /// By this its declarer hears that nobody has it any more.
    pub tie: Option<Arc<dyn Tie>>,
}
