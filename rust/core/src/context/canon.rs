//! Writes the canonical form of a context, which is specified in docs/context-hash.md, and hashes it.
//! Invariant: two contexts have the same canonical bytes exactly if they are equal, whatever the order of their keys.

use serde_json::{Map, Value};

use crate::context::parse;
use crate::context::read::parse_within;
use crate::error::Result;
use crate::port::ContextHash;
use crate::room::{SHALLOW_MAX, with_room};

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

/// The same of a context's JSON text, on any stack.
///
/// # Errors
/// [`crate::error::Kind::Context`] if it isn't the text of a JSON object, or nests deeper than [`crate::context::DEPTH_MAX`].
pub fn hash_text(trigger: &str, context: &str) -> Result<ContextHash> {
    match parse_within(context, SHALLOW_MAX) {
        Ok(entries) => Ok(hash_json(trigger, &entries)),
        Err(_) => with_room(&|| parse(context).map(|entries| hash_json(trigger, &entries))),
    }
}
