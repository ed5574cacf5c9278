//! Finds where branches parted: the latest tasks that are, or come before, both of two sides. Knows edges only.
//! Invariant: what is found of a graph depends on nothing else, so that it is found once for all of its runs.

use std::sync::{Arc, OnceLock};

use crate::graph::Graph;

/// Graphs up to this size remember what comes before each task: at most 32 MiB.
const REMEMBERED_MAX: usize = 16_384;

/// A set of tasks, by their places in topological order, so that the highest bit is a task that no other in the set depends on.
#[derive(Debug, Clone)]
pub struct Places(Vec<u64>);

impl Places {
    fn none(tasks: usize) -> Self {
        Self(vec![0; tasks.div_ceil(64)])
    }

    /// Whether it was not yet there.
    fn insert(&mut self, place: usize) -> bool {
        let word = &mut self.0[place / 64];
        let before = *word;
        *word |= 1 << (place % 64);
        *word != before
    }

    fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    fn keep(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    fn remove(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    fn highest(&self) -> Option<usize> {
        let word = self.0.iter().rposition(|&word| word != 0)?;
        Some(word * 64 + 63 - self.0[word].leading_zeros() as usize)
    }
}

/// What a graph remembers of its tasks' pasts; empty for one that is too large.
#[derive(Debug, Clone)]
pub(super) struct Pasts(Vec<OnceLock<Arc<Places>>>);

impl Pasts {
    pub(super) fn new(tasks: usize) -> Self {
        let remembered = if tasks <= REMEMBERED_MAX { tasks } else { 0 };
        Self((0..remembered).map(|_| OnceLock::new()).collect())
    }

    fn known(&self, task: usize) -> Option<&Arc<Places>> {
        self.0.get(task)?.get()
    }
}

impl Graph {
    /// No task yet: where the past of a branch is gathered.
    pub fn no_past(&self) -> Places {
        Places::none(self.len())
    }

    /// Adds a task and all that it depends on.
    pub fn add_past(&self, past: &mut Places, task: usize) {
        past.add(&self.past(task));
    }

    /// The latest tasks that are in `past`, and are `next` or come before it; in topological order. None of them depends on another.
    pub fn parting(&self, past: &Places, next: usize) -> Vec<usize> {
        let mut common = past.clone();
        common.keep(&self.past(next));
        let mut latest = Vec::new();
        while let Some(place) = common.highest() {
            let task = self.topological[place];
            common.remove(&self.past(task));
            latest.push(task);
        }
        latest.reverse();
        latest
    }

    /// The tasks of `past`, each after its dependencies.
    pub fn in_order(&self, past: &Places) -> impl Iterator<Item = usize> {
        self.topological.iter().enumerate().filter(|&(place, _)| past.has(place)).map(|(_, &task)| task)
    }

    /// A task and all that it depends on.
    fn past(&self, task: usize) -> Arc<Places> {
        match self.pasts.0.get(task) {
            Some(known) => Arc::clone(known.get_or_init(|| self.find_past(task))),
            None => self.find_past(task),
        }
    }

    fn find_past(&self, task: usize) -> Arc<Places> {
        let mut past = Places::none(self.len());
        let mut ahead = vec![task];
        while let Some(next) = ahead.pop() {
            if !past.insert(self.place[next]) {
                continue;
            }
            match self.pasts.known(next) {
                Some(known) => past.add(known),
                None => ahead.extend(&self.dependencies[next]),
            }
        }
        Arc::new(past)
    }
}
