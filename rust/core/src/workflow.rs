//! What a workflow is: tasks, edges, rules and policies, with a content version. Knows no Python: a task's body is an id
//! that the binding understands. Invariant: a `Workflow` that exists has passed every check of [`crate::graph`].

use std::sync::Arc;

use crate::graph::Graph;
use crate::policy::RetryPolicy;
use crate::rule::Rule;

/// One task as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Unique in its workflow.
    pub id: Arc<str>,
    /// Ids of the tasks that must be final before it is decided, in the order declared.
    pub dependencies: Vec<Arc<str>>,
    /// When failed attempts are tried again.
    pub retry: RetryPolicy,
    /// Decides whether it runs; without one, the fate of its dependencies does.
    pub rule: Option<Rule>,
    /// Names the Python function in the binding's table.
    pub body: u64,
    /// Whether `on_success` or `on_failure` is set, so that an outcome must be told to Python before it is committed.
    pub has_failure_callback: bool,
}

/// A checked workflow.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// What runs and triggers call it by.
    pub name: Arc<str>,
    /// Hex digest of everything that decides its behaviour.
    pub version: Arc<str>,
    /// In the order declared; edges refer to positions here.
    pub tasks: Vec<Task>,
    /// The edges, checked.
    pub graph: Graph,
}
