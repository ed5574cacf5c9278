//! What a context is worth: its canonical bytes, its hash, and how the contexts of several tasks become one.
//! Never refuses a value; whoever takes it from Python does. The encoding is specified in docs/context-hash.md.
//! Invariant: two contexts have the same canonical bytes exactly if they are equal, whatever the order of their keys.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use crate::error::{Error, Kind, Result, excerpt};
use crate::graph::Graph;
use crate::port::ContextHash;

/// How deep a context may nest, itself counted.
pub const DEPTH_MAX: usize = 200;

/// How long a context's JSON text may be.
pub const CONTEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many states before a parting of branches one join reconstructs; past it the latest common task's output stands for
/// the state. Only crossing branches, many wide and many deep, come near it.
pub const BASES_MAX: usize = 1_000;

/// The first canonical byte. A hash lives in the store, so a change of the encoding is a new version.
const VERSION: u8 = 1;

const NULL: u8 = b'n';
const FALSE: u8 = b'f';
const TRUE: u8 = b't';
const INT: u8 = b'i';
const FLOAT: u8 = b'd';
const STR: u8 = b's';
const ARRAY: u8 = b'[';
const OBJECT: u8 = b'{';

/// Writes the canonical form, piece by piece, into one buffer that is used again and again.
///
/// ```
/// use cloaca_core::context::Canon;
///
/// let mut canon = Canon::new();
/// canon.reset("inbox");
/// canon.object(1);
/// canon.key("n");
/// canon.int_i64(-7);
/// assert_eq!(canon.bytes(), b"\x01\x05inbox{\x01\x01ni\x02-7");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Canon {
    bytes: Vec<u8>,
}

impl Canon {
    /// An empty encoder; [`Canon::reset`] comes first.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all and begins a context of this trigger.
    pub fn reset(&mut self, trigger: &str) {
        self.bytes.clear();
        self.bytes.push(VERSION);
        self.key(trigger);
    }

    /// `null`.
    pub fn null(&mut self) {
        self.bytes.push(NULL);
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) {
        self.bytes.push(if value { TRUE } else { FALSE });
    }

    /// An integer, as [`Canon::int_decimal`] would write it.
    pub fn int_i64(&mut self, value: i64) {
        let mut text = [0; 20];
        let mut start = text.len();
        let mut rest = value.unsigned_abs();
        loop {
            start -= 1;
            text[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            start -= 1;
            text[start] = b'-';
        }
        self.tagged(INT, &text[start..]);
    }

    /// An integer of any size, as decimal digits with or without a `-` in front. Leading zeros and the sign of zero go.
    pub fn int_decimal(&mut self, text: &str) {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        debug_assert!(!unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
        let digits = unsigned.trim_start_matches('0');
        match (digits.is_empty(), unsigned.len() < text.len()) {
            (true, _) => self.tagged(INT, b"0"),
            (false, false) => self.tagged(INT, digits.as_bytes()),
            (false, true) => {
                self.bytes.push(INT);
                self.length(digits.len() + 1);
                self.bytes.push(b'-');
                self.bytes.extend_from_slice(digits.as_bytes());
            }
        }
    }

    /// A finite float; -0.0 is 0.0.
    pub fn float(&mut self, value: f64) {
        debug_assert!(value.is_finite(), "a context's float is checked before it comes here");
        self.bits(value);
    }

    /// A string.
    pub fn str(&mut self, text: &str) {
        self.tagged(STR, text.as_bytes());
    }

    /// Begins an array; so many values follow.
    pub fn array(&mut self, len: usize) {
        self.bytes.push(ARRAY);
        self.length(len);
    }

    /// Begins an object; so many times a key and a value follow, sorted by the keys' UTF-8 bytes.
    pub fn object(&mut self, len: usize) {
        self.bytes.push(OBJECT);
        self.length(len);
    }

    /// An object's next key.
    pub fn key(&mut self, key: &str) {
        self.length(key.len());
        self.bytes.extend_from_slice(key.as_bytes());
    }

    /// What has been written since [`Canon::reset`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The first 16 bytes of the BLAKE3 digest of what has been written.
    pub fn hash(&self) -> ContextHash {
        let digest = blake3::hash(&self.bytes);
        *digest.as_bytes().first_chunk().expect("a BLAKE3 digest has 32 bytes")
    }

    fn bits(&mut self, value: f64) {
        self.bytes.push(FLOAT);
        // 0.0 + -0.0 is 0.0, and adding 0.0 changes no other number.
        self.bytes.extend_from_slice(&(value + 0.0).to_bits().to_be_bytes());
    }

    fn tagged(&mut self, tag: u8, payload: &[u8]) {
        self.bytes.push(tag);
        self.length(payload.len());
        self.bytes.extend_from_slice(payload);
    }

    /// LEB128: seven bits a byte, the lowest first, the top bit set on all but the last.
    fn length(&mut self, len: usize) {
        let mut rest = len;
        while rest >= 0x80 {
            self.bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.null(),
            Value::Bool(value) => self.bool(*value),
            Value::Number(number) => self.number(number.as_str()),
            Value::String(text) => self.str(text),
            Value::Array(items) => {
                self.array(items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(entries) => self.entries(entries),
        }
    }

    fn entries(&mut self, entries: &Map<String, Value>) {
        let mut sorted: Vec<(&String, &Value)> = entries.iter().collect();
        sorted.sort_unstable_by_key(|&(key, _)| key);
        self.object(sorted.len());
        for (key, value) in sorted {
            self.key(key);
            self.value(value);
        }
    }

    fn number(&mut self, text: &str) {
        if text.contains(['.', 'e', 'E']) {
            // Text such as 1e999, which no check lets through, counts as infinity rather than stopping the engine.
            self.bits(text.parse().expect("a JSON number is a Rust float literal"));
        } else {
            self.int_decimal(text);
        }
    }
}

/// The hash under which a trigger's fires with equal contexts are one. Numbers written without `.`, `e` and `E` are integers
/// of any size; all others are floats.
pub fn hash_json(trigger: &str, context: &Map<String, Value>) -> ContextHash {
    let mut canon = Canon::new();
    canon.reset(trigger);
    canon.entries(context);
    canon.hash()
}

/// What `left` and `right` become together, where both began as `base`: what one changed wins over what the other left
/// alone. Changed in both, objects merge key by key, arrays gain what is new, and otherwise `right` wins.
///
/// A deletion is a change, but loses to another value. Of two arrays, the result is all of `left`'s and then those elements
/// of `right`'s that are neither in `base`'s nor in `left`'s, in order and as often as they are there. Keys keep `base`'s
/// order; then come new ones in `left`'s order, then in `right`'s.
pub fn merge(
    base: &Map<String, Value>,
    left: &Map<String, Value>,
    right: &Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = Map::with_capacity(left.len().max(right.len()));
    let in_base = base.keys();
    let new_in_left = left.keys().filter(|key| !base.contains_key(*key));
    let new_in_right = right.keys().filter(|key| !base.contains_key(*key) && !left.contains_key(*key));
    for key in in_base.chain(new_in_left).chain(new_in_right) {
        if let Some(value) = resolve(base.get(key), left.get(key), right.get(key)) {
            merged.insert(key.clone(), value);
        }
    }
    merged
}

fn resolve(base: Option<&Value>, left: Option<&Value>, right: Option<&Value>) -> Option<Value> {
    if right == base || left == right {
        return left.cloned();
    }
    if left == base {
        return right.cloned();
    }
    match (left, right) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let empty = Map::new();
            let base = base.and_then(Value::as_object).unwrap_or(&empty);
            Some(Value::Object(merge(base, left, right)))
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            let base = base.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            Some(Value::Array(append(base, left, right)))
        }
        (_, Some(right)) => Some(right.clone()),
        (left, None) => left.cloned(),
    }
}

fn append(base: &[Value], left: &[Value], right: &[Value]) -> Vec<Value> {
    let known: HashSet<&Value> = base.iter().chain(left).collect();
    let new = right.iter().filter(|item| !known.contains(item));
    left.iter().chain(new).cloned().collect()
}

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

/// The entries of a context's JSON text. Unlike `serde_json::from_str` it reads every context that was ever kept: that one
/// gives up below 128 levels, and takes an object with the key `$serde_json::private::Number` for a number.
///
/// # Errors
/// [`Kind::Context`] if it isn't the text of a JSON object, or nests deeper than [`DEPTH_MAX`].
pub fn parse(text: &str) -> Result<Map<String, Value>> {
    let mut reader = Reader { text, at: 0 };
    let read = reader.value(1).filter(|_| reader.peek().is_none());
    match read {
        Some(Value::Object(entries)) => Ok(entries),
        _ => {
            let place = reader.at;
            let text = format!(
                "context is not a JSON object of depth {DEPTH_MAX} (byte {place}): {}",
                excerpt(text)
            );
            Err(Error::new(Kind::Context, text))
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        match self.peek()? {
            b'{' | b'[' if depth > DEPTH_MAX => None,
            b'{' => self.object(depth).map(Value::Object),
            b'[' => self.array(depth).map(Value::Array),
            b'"' => self.string().map(Value::String),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => self.number().map(Value::Number),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Map<String, Value>> {
        let mut entries = Map::new();
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(entries);
        }
        loop {
            self.peek()?;
            let key = self.string()?;
            self.take(b':')?;
            entries.insert(key, self.value(depth + 1)?);
            if self.take(b',').is_none() {
                return self.take(b'}').map(|()| entries);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        self.take(b'[')?;
        if self.take(b']').is_some() {
            return Some(items);
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b',').is_none() {
                return self.take(b']').map(|()| items);
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let rest = &self.text[self.at..];
        let inside = rest.strip_prefix('"')?;
        let mut escaped = false;
        let end = inside.bytes().position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        let quoted = &rest[..end + 2];
        let text = serde_json::from_str(quoted).ok()?;
        self.at += quoted.len();
        Some(text)
    }

    fn number(&mut self) -> Option<Number> {
        let rest = &self.text[self.at..];
        let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        let len = rest.bytes().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let number = rest[..len].parse().ok()?;
        self.at += len;
        Some(number)
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            value
        })
    }

    /// The next byte that isn't white space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }
}
