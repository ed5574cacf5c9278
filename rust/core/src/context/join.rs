//! Makes one context of those of several tasks, each merge against the state in which the branches parted.
//! Invariant: branches that changed nothing are told by their texts alone, without being read.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::context::DEPTH_MAX;
use crate::context::memo::Memo;
use crate::context::merge;
use crate::context::read::{Refusal, parse_within};
use crate::graph::{Graph, Places};
use crate::room::{SHALLOW_MAX, with_room};

/// What a task left, by its position, as JSON text.
pub(super) type Output<'a> = &'a (dyn Fn(usize) -> Arc<str> + Sync);

/// The context at a place where the tasks `of` meet, as JSON text: their outputs, merged from left to right. Of no task it is
/// `initial`; of one, its output as it is.
///
/// Each merge takes for its base the state in which the branches parted: the join of the latest tasks that are, or come
/// before, both the next task and one of those merged already.
///
/// # Panics
/// If two outputs differ and one isn't the text of a JSON object: contexts are checked before they are kept.
pub fn join(
    graph: &Graph,
    output: &(dyn Fn(usize) -> Arc<str> + Sync),
    initial: &Arc<str>,
    of: &[usize],
) -> Arc<str> {
    Joining { graph, output, initial, memo: &Memo::default() }.join(of)
}

/// What each task of a run was given, as JSON text, by what those before it left; who left nothing passed on what it was given.
///
/// # Panics
/// As [`join`].
pub fn given(graph: &Graph, initial: &Arc<str>, left: &[Option<Arc<str>>]) -> Vec<Arc<str>> {
    let (found, memo) = (vec![OnceLock::<Arc<str>>::new(); graph.len()], Memo::default());
    let output = |task: usize| {
        let passed_on =
            || Arc::clone(found[task].get().expect("what comes before a task has its place first"));
        left[task].clone().unwrap_or_else(passed_on)
    };
    let joining = Joining { graph, output: &output, initial, memo: &memo };
    for &task in graph.topological() {
        let of = graph.dependencies(task);
        found[task].get_or_init(|| match of {
            [] | [_] => joining.join(of),
            _ => memo.get_or_make(of, || joining.join(of)),
        });
    }
    found.into_iter().map(|cell| cell.into_inner().expect("each task has a place in the order")).collect()
}

/// Of what a join is made.
pub(super) struct Joining<'a> {
    pub(super) graph: &'a Graph,
    pub(super) output: Output<'a>,
    pub(super) initial: &'a Arc<str>,
    /// States that earlier joins of the same run came to.
    pub(super) memo: &'a Memo,
}

impl Joining<'_> {
    /// The join, however long it takes.
    pub(super) fn join(&self, of: &[usize]) -> Arc<str> {
        let shallow = Pains { bytes_max: usize::MAX, depth_max: SHALLOW_MAX };
        self.join_within(of, shallow).unwrap_or_else(|_| {
            let deep = Pains { depth_max: DEPTH_MAX, ..shallow };
            with_room(&|| self.join_within(of, deep)).unwrap_or_else(|_| unreachable!("nothing is too much"))
        })
    }

    /// The join, if it is quickly made.
    pub(super) fn join_lightly(&self, of: &[usize], bytes_max: usize) -> Option<Arc<str>> {
        self.join_within(of, Pains { bytes_max, depth_max: SHALLOW_MAX }).ok()
    }

    fn join_within(&self, of: &[usize], pains: Pains) -> Result<Arc<str>, TooMuch> {
        match of {
            [] => Ok(Arc::clone(self.initial)),
            [only] => Ok((self.output)(*only)),
            _ => Ok(Joiner::new(self, pains).join(of)?.text()),
        }
    }
}

/// How far a join may go.
#[derive(Debug, Clone, Copy)]
struct Pains {
    /// So many bytes of JSON may be read, compared and merged.
    bytes_max: usize,
    /// So deep may nest what is read: the stack may be small.
    depth_max: usize,
}

/// A join gave up at the limit of its pains.
#[derive(Debug)]
struct TooMuch;

/// A context as text, as entries, or both once both were asked for.
struct State {
    text: OnceCell<Arc<str>>,
    entries: OnceCell<Map<String, Value>>,
    /// About how many bytes its text has.
    bytes: usize,
}

impl State {
    fn from_text(text: Arc<str>) -> Rc<Self> {
        let bytes = text.len();
        Rc::new(Self { text: OnceCell::from(text), entries: OnceCell::new(), bytes })
    }

    fn from_entries(entries: Map<String, Value>, bytes: usize) -> Rc<Self> {
        Rc::new(Self { text: OnceCell::new(), entries: OnceCell::from(entries), bytes })
    }

    fn text(&self) -> Arc<str> {
        let write = || {
            let entries = self.entries.get().expect("a state has a text or entries");
            serde_json::to_string(entries).expect("JSON values can be written").into()
        };
        Arc::clone(self.text.get_or_init(write))
    }

    fn entries(&self, depth_max: usize) -> Result<&Map<String, Value>, TooMuch> {
        if let Some(entries) = self.entries.get() {
            return Ok(entries);
        }
        let text = self.text.get().expect("a state has a text or entries");
        match parse_within(text, depth_max) {
            Ok(entries) => Ok(self.entries.get_or_init(|| entries)),
            Err(Refusal::Deep) if depth_max < DEPTH_MAX => Err(TooMuch),
            Err(refusal) => panic!("a context was checked before it was kept: {}", refusal.told(text)),
        }
    }
}

/// A list of tasks that is being joined, up to `at`.
struct Frame {
    of: Vec<usize>,
    at: usize,
    joined: Rc<State>,
    past: Places,
    /// So many of `of` are in `past`.
    merged: usize,
}

/// What one frame is waiting for.
enum Step {
    Done(Rc<State>),
    Needs(Vec<usize>),
}

/// One join, with what it has found out so far.
struct Joiner<'a> {
    joining: &'a Joining<'a>,
    initial: Rc<State>,
    outputs: HashMap<usize, Rc<State>>,
    bases: HashMap<Vec<usize>, Rc<State>>,
    pains: Pains,
    bytes: usize,
}

impl<'a> Joiner<'a> {
    fn new(joining: &'a Joining<'a>, pains: Pains) -> Self {
        let initial = State::from_text(Arc::clone(joining.initial));
        Self { joining, initial, outputs: HashMap::new(), bases: HashMap::new(), pains, bytes: 0 }
    }

    /// A list of frames, not recursion: states before partings may lie as deep as the workflow.
    fn join(&mut self, of: &[usize]) -> Result<Rc<State>, TooMuch> {
        let mut frames = vec![self.frame(of.to_vec())];
        loop {
            let frame = frames.last_mut().expect("the first frame stays until it is done");
            match self.advance(frame)? {
                Step::Needs(latest) => frames.push(self.frame(latest)),
                Step::Done(state) => {
                    let Frame { of, .. } = frames.pop().expect("it was just advanced");
                    if frames.is_empty() {
                        return Ok(state);
                    }
                    self.joining.memo.keep(&of, || state.text());
                    self.bases.insert(of, state);
                }
            }
        }
    }

    fn frame(&mut self, of: Vec<usize>) -> Frame {
        let joined = self.output(of[0]);
        Frame { of, at: 1, joined, past: self.joining.graph.no_past(), merged: 0 }
    }

    fn advance(&mut self, frame: &mut Frame) -> Result<Step, TooMuch> {
        let graph = self.joining.graph;
        while let Some(&next) = frame.of.get(frame.at) {
            let right = self.output(next);
            if !self.is_plainly(&frame.joined, &right)? {
                // Late, because branches that changed nothing are the rule.
                for &task in &frame.of[frame.merged..frame.at] {
                    graph.add_past(&mut frame.past, task);
                }
                frame.merged = frame.at;
                let base = match self.base(graph.parting(&frame.past, next))? {
                    Ok(base) => base,
                    Err(latest) => return Ok(Step::Needs(latest)),
                };
                frame.joined = self.unite(&base, Rc::clone(&frame.joined), right)?;
            }
            frame.at += 1;
        }
        Ok(Step::Done(Rc::clone(&frame.joined)))
    }

    /// The state of the tasks `latest`, or those tasks if it is to be made first.
    fn base(&mut self, latest: Vec<usize>) -> Result<Result<Rc<State>, Vec<usize>>, TooMuch> {
        let last = match latest[..] {
            [] => return Ok(Ok(Rc::clone(&self.initial))),
            [only] => return Ok(Ok(self.output(only))),
            [.., last] => last,
        };
        if let Some(known) = self.bases.get(&latest) {
            return Ok(Ok(Rc::clone(known)));
        }
        if let Some(text) = self.joining.memo.get(&latest) {
            let known = State::from_text(text);
            self.bases.insert(latest, Rc::clone(&known));
            return Ok(Ok(known));
        }
        if self.pains.bytes_max < usize::MAX {
            return Err(TooMuch);
        }
        // Counted before the descent, or the bound would hold only at its bottom.
        match self.joining.memo.may_reconstruct() {
            true => Ok(Err(latest)),
            false => Ok(Ok(self.output(last))),
        }
    }

    fn output(&mut self, task: usize) -> Rc<State> {
        let output = self.joining.output;
        Rc::clone(self.outputs.entry(task).or_insert_with(|| State::from_text(output(task))))
    }

    fn unite(&mut self, base: &Rc<State>, left: Rc<State>, right: Rc<State>) -> Result<Rc<State>, TooMuch> {
        if self.is_plainly(&left, base)? {
            return Ok(right);
        }
        if self.is_plainly(&right, base)? {
            return Ok(left);
        }
        self.spend(base.bytes + left.bytes + right.bytes)?;
        let depth_max = self.pains.depth_max;
        let merged = merge(base.entries(depth_max)?, left.entries(depth_max)?, right.entries(depth_max)?);
        Ok(State::from_entries(merged, left.bytes.max(right.bytes)))
    }

    /// Whether they are equal as far as can be told without reading or writing.
    fn is_plainly(&mut self, one: &State, other: &State) -> Result<bool, TooMuch> {
        if std::ptr::eq(one, other) {
            return Ok(true);
        }
        let (Some(one), Some(other)) = (one.text.get(), other.text.get()) else { return Ok(false) };
        if Arc::ptr_eq(one, other) || one.len() != other.len() {
            return Ok(Arc::ptr_eq(one, other));
        }
        self.spend(one.len())?;
        Ok(one == other)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.pains.bytes_max { Err(TooMuch) } else { Ok(()) }
    }
}
