//! Makes one context of those of several tasks, each merge against the state in which the branches parted.
//! Invariant: branches that changed nothing are told by their texts alone, without being read.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::context::{BASES_MAX, merge, parse};
use crate::graph::Graph;

/// The context at a place where the tasks `of` meet, as JSON text: their outputs, merged from left to right. Of no task it is
/// `initial`; of one, its output as it is.
///
/// Each merge takes for its base the state in which the branches parted: the join of the latest tasks that are, or come
/// before, both the next task and one of those merged already.
///
/// # Panics
/// If two outputs differ and one isn't the text of a JSON object: contexts are checked before they are kept.
pub fn join(graph: &Graph, output: &dyn Fn(usize) -> Arc<str>, initial: &Arc<str>, of: &[usize]) -> Arc<str> {
    match of {
        [] => Arc::clone(initial),
        [only] => output(*only),
        _ => Joiner::new(graph, output, initial).join(of).text(),
    }
}

/// A context as text, as entries, or both once both were asked for.
struct State {
    text: OnceCell<Arc<str>>,
    entries: OnceCell<Map<String, Value>>,
}

impl State {
    fn from_text(text: Arc<str>) -> Rc<Self> {
        Rc::new(Self { text: OnceCell::from(text), entries: OnceCell::new() })
    }

    fn from_entries(entries: Map<String, Value>) -> Rc<Self> {
        Rc::new(Self { text: OnceCell::new(), entries: OnceCell::from(entries) })
    }

    fn text(&self) -> Arc<str> {
        let write = || serde_json::to_string(self.entries()).expect("JSON values can be written").into();
        Arc::clone(self.text.get_or_init(write))
    }

    fn entries(&self) -> &Map<String, Value> {
        let read = || {
            let text = self.text.get().expect("a state has a text or entries");
            parse(text).expect("a context was checked before it was kept")
        };
        self.entries.get_or_init(read)
    }

    /// Whether they are equal as far as can be told without reading or writing.
    fn is_plainly(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.text.get().is_some_and(|text| Some(text) == other.text.get())
    }
}

/// A set of tasks, by their places in topological order, so that the highest bit is a task that no other in the set depends on.
#[derive(Clone)]
struct Places(Vec<u64>);

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

/// One call of [`join`], with what it has found out so far.
struct Joiner<'a> {
    graph: &'a Graph,
    output: &'a dyn Fn(usize) -> Arc<str>,
    initial: Rc<State>,
    place: Vec<usize>,
    outputs: HashMap<usize, Rc<State>>,
    pasts: HashMap<usize, Rc<Places>>,
    bases: HashMap<Vec<usize>, Rc<State>>,
    reconstructed: usize,
}

impl<'a> Joiner<'a> {
    fn new(graph: &'a Graph, output: &'a dyn Fn(usize) -> Arc<str>, initial: &Arc<str>) -> Self {
        let mut place = vec![0; graph.len()];
        for (at, &task) in graph.topological().iter().enumerate() {
            place[task] = at;
        }
        Self {
            graph,
            output,
            initial: State::from_text(Arc::clone(initial)),
            place,
            outputs: HashMap::new(),
            pasts: HashMap::new(),
            bases: HashMap::new(),
            reconstructed: 0,
        }
    }

    fn join(&mut self, of: &[usize]) -> Rc<State> {
        let mut joined = self.output(of[0]);
        let mut past = Places::none(self.graph.len());
        let mut merged = 0;
        for (at, &next) in of.iter().enumerate().skip(1) {
            let right = self.output(next);
            if joined.is_plainly(&right) {
                continue;
            }
            // Late, because branches that changed nothing are the rule.
            for &task in &of[merged..at] {
                past.add(&self.past(task));
            }
            merged = at;
            let base = self.base(&past, next);
            joined = unite(&base, joined, right);
        }
        joined
    }

    /// The state in which `next` and the tasks of `past` parted.
    fn base(&mut self, past: &Places, next: usize) -> Rc<State> {
        let mut common = past.clone();
        common.keep(&self.past(next));
        let mut latest = Vec::new();
        while let Some(place) = common.highest() {
            let task = self.graph.topological()[place];
            common.remove(&self.past(task));
            latest.push(task);
        }
        latest.reverse();
        match latest[..] {
            [] => Rc::clone(&self.initial),
            [only] => self.output(only),
            [.., last] => match self.bases.get(&latest) {
                Some(known) => Rc::clone(known),
                None if self.reconstructed >= BASES_MAX => self.output(last),
                None => self.reconstruct(latest),
            },
        }
    }

    fn reconstruct(&mut self, latest: Vec<usize>) -> Rc<State> {
        // Counted before the descent, or the bound would hold only at its bottom.
        self.reconstructed += 1;
        let state = self.join(&latest);
        self.bases.insert(latest, Rc::clone(&state));
        state
    }

    fn output(&mut self, task: usize) -> Rc<State> {
        let output = self.output;
        Rc::clone(self.outputs.entry(task).or_insert_with(|| State::from_text(output(task))))
    }

    /// A task and all that it depends on.
    fn past(&mut self, task: usize) -> Rc<Places> {
        if let Some(known) = self.pasts.get(&task) {
            return Rc::clone(known);
        }
        let mut past = Places::none(self.graph.len());
        let mut ahead = vec![task];
        while let Some(next) = ahead.pop() {
            if past.insert(self.place[next]) {
                ahead.extend(self.graph.dependencies(next));
            }
        }
        let past = Rc::new(past);
        self.pasts.insert(task, Rc::clone(&past));
        past
    }
}

fn unite(base: &Rc<State>, left: Rc<State>, right: Rc<State>) -> Rc<State> {
    if left.is_plainly(base) {
        return right;
    }
    if right.is_plainly(base) {
        return left;
    }
    State::from_entries(merge(base.entries(), left.entries(), right.entries()))
}
