//! The contexts of one run on their way: what its final tasks left, and what those after them are given. What a task is given is
//! joined when somebody looks at it, on that thread and under nobody's lock.
//! Invariant: what a final task left never changes, so whoever looks, and whenever, finds the same.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::context::join::Joining;
use crate::context::memo::Memo;
use crate::context::read::parse_within;
use crate::context::{Bounds, parse, too_large};
use crate::room::{SHALLOW_MAX, with_room};
use crate::workflow::Workflow;

/// What the tasks of one run hand on.
#[derive(Debug)]
pub struct Relay {
    workflow: Arc<Workflow>,
    initial: Arc<str>,
    /// Of each final task what it left; none inside stands for what it was given.
    left: Vec<OnceLock<Option<Arc<str>>>>,
    /// Whether any of them left what it was given.
    has_passed_on: AtomicBool,
    memo: Memo,
    bounds: Bounds,
    /// Why the run cannot end with what its last tasks left.
    refusal: OnceLock<String>,
}

/// Where what a task is given comes from.
enum Source<'a> {
    Known(Arc<str>),
    Joined(&'a [usize]),
}

impl Relay {
    /// Of a run that begins with this context.
    pub fn new(workflow: Arc<Workflow>, initial: Arc<str>, bounds: Bounds) -> Self {
        let left = (0..workflow.tasks.len()).map(|_| OnceLock::new()).collect();
        let (has_passed_on, memo) = (AtomicBool::new(false), Memo::default());
        Self { workflow, initial, left, has_passed_on, memo, bounds, refusal: OnceLock::new() }
    }

    /// A task is final and left this; without it, what it was given, so that every join has something to merge.
    ///
    /// # Panics
    /// If it was final before.
    pub fn leave(&self, task: usize, context: Option<Arc<str>>) {
        if context.is_none() {
            self.has_passed_on.store(true, Ordering::Release);
        }
        self.left[task].set(context).expect("a final task became final again");
    }

    /// What a task is given whose dependencies are final, as JSON text. May take long, and wait for another thread that is at the
    /// same: not under a lock.
    pub fn given(&self, task: usize) -> Arc<str> {
        self.meet(self.workflow.graph.dependencies(task))
    }

    /// The same if it is known or quickly found. Never waits.
    pub fn given_at_once(&self, task: usize) -> Option<Arc<str>> {
        self.meet_at_once(self.workflow.graph.dependencies(task))
    }

    /// What `look` finds in what a task is given, like [`Relay::given`].
    ///
    /// # Panics
    /// If that isn't the text of a JSON object: contexts are checked before they are kept.
    pub fn look<T: Send>(&self, task: usize, look: &(dyn Fn(&Map<String, Value>) -> T + Sync)) -> T {
        let text = self.given(task);
        match parse_within(&text, SHALLOW_MAX) {
            Ok(entries) => look(&entries),
            Err(_) => with_room(&|| look(&parse(&text).expect("a context was checked before it was kept"))),
        }
    }

    /// The same if it is quickly found. Never waits.
    pub fn look_at_once<T>(&self, task: usize, look: impl FnOnce(&Map<String, Value>) -> T) -> Option<T> {
        let text = self.given_at_once(task).filter(|text| text.len() <= self.bounds.light_bytes_max)?;
        parse_within(&text, SHALLOW_MAX).ok().map(|entries| look(&entries))
    }

    /// What the tasks left that nothing depends on, like [`Relay::given`]; why it is refused if it is too large.
    pub fn last(&self) -> Result<Arc<str>, String> {
        self.fitting(self.meet(self.workflow.graph.leaves()))
    }

    /// The same if it is known or quickly found. Never waits.
    pub fn last_at_once(&self) -> Option<Result<Arc<str>, String>> {
        let text = self.meet_at_once(self.workflow.graph.leaves())?;
        let is_quick = text.len() <= self.bounds.bytes_max
            || text.len() <= self.bounds.light_bytes_max
            || self.refusal.get().is_some();
        is_quick.then(|| self.fitting(text))
    }

    fn fitting(&self, last: Arc<str>) -> Result<Arc<str>, String> {
        if last.len() <= self.bounds.bytes_max {
            return Ok(last);
        }
        let refuse = || too_large("what the last tasks left", &last, self.bounds.bytes_max);
        Err(self.refusal.get_or_init(|| refuse().unwrap_or_default()).clone())
    }

    /// What the run began with.
    pub fn initial(&self) -> &Arc<str> {
        &self.initial
    }

    fn meet(&self, of: &[usize]) -> Arc<str> {
        let of = match self.source(of) {
            Source::Known(text) => return text,
            Source::Joined(of) => of,
        };
        let make = |of| self.memo.get_or_make(of, || self.joining(|all| all.join(of)));
        self.unknown_before(of).into_iter().for_each(|behind| drop(make(behind)));
        make(of)
    }

    fn meet_at_once(&self, of: &[usize]) -> Option<Arc<str>> {
        let of = match self.source(of) {
            Source::Known(text) => return Some(text),
            Source::Joined(of) => of,
        };
        let make = |of| {
            let joined = self.joining(|all| all.join_lightly(of, self.bounds.light_bytes_max))?;
            self.memo.offer(of, &joined);
            Some(joined)
        };
        for behind in self.unknown_before(of) {
            make(behind)?;
        }
        make(of)
    }

    fn joining<T>(&self, join: impl FnOnce(&Joining<'_>) -> T) -> T {
        let output = |task| self.known(task);
        let Self { workflow, initial, memo, .. } = self;
        join(&Joining { graph: &workflow.graph, output: &output, initial, memo })
    }

    /// Follows tasks that only passed on what they were given, as far as that is one context. A loop, not recursion: a chain of skips may
    /// be as long as the workflow.
    fn source<'a>(&'a self, mut of: &'a [usize]) -> Source<'a> {
        loop {
            match of {
                [] => return Source::Known(Arc::clone(&self.initial)),
                [only] => match self.left[*only].get().expect("a dependency is final") {
                    Some(text) => return Source::Known(Arc::clone(text)),
                    None => of = self.workflow.graph.dependencies(*only),
                },
                _ => return self.memo.get(of).map_or(Source::Joined(of), Source::Known),
            }
        }
    }

    /// What a final task left, if the joins are made that it passed on.
    fn known(&self, task: usize) -> Arc<str> {
        match self.source(&[task]) {
            Source::Known(text) => text,
            Source::Joined(_) => unreachable!("what was passed on is joined before what comes after it"),
        }
    }

    /// Joins that have to be made before that of `of`, because tasks before it passed them on; each after those that it needs.
    fn unknown_before(&self, of: &[usize]) -> Vec<&[usize]> {
        if !self.has_passed_on.load(Ordering::Acquire) {
            return Vec::new();
        }
        let graph = &self.workflow.graph;
        let mut past = graph.no_past();
        of.iter().for_each(|&task| graph.add_past(&mut past, task));
        let passed_on = graph.in_order(&past).filter(|&task| matches!(self.left[task].get(), Some(None)));
        let source = |task| match self.source(graph.dependencies(task)) {
            Source::Known(_) => None,
            Source::Joined(of) => Some(of),
        };
        passed_on.filter_map(source).collect()
    }
}

/// What a task is given, for whoever runs it.
#[derive(Clone)]
pub struct Given {
    relay: Arc<Relay>,
    task: usize,
}

impl Given {
    /// What this task of a run is given.
    pub fn new(relay: Arc<Relay>, task: usize) -> Self {
        Self { relay, task }
    }

    /// As JSON text. May take long: not under a lock, and not with the interpreter in hand.
    pub fn text(&self) -> Arc<str> {
        self.relay.given(self.task)
    }

    /// The same if it is known or quickly found. Never waits.
    pub fn text_at_once(&self) -> Option<Arc<str>> {
        self.relay.given_at_once(self.task)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Given").field(&self.task).finish()
    }
}

impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.relay, &other.relay) && self.task == other.task
    }
}
