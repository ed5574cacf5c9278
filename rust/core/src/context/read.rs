//! Reads the JSON text of a context, however deep it nests.
//! Invariant: every context that was ever kept is read, and what is read nests at most [`DEPTH_MAX`] deep.

use serde_json::{Map, Number, Value};

use crate::context::DEPTH_MAX;
use crate::error::{Error, Kind, Result, excerpt};
use crate::room::SHALLOW_MAX;

/// The entries of a context's JSON text. Unlike `serde_json::from_str` it reads every context that was ever kept: that one
/// gives up below 128 levels, and takes an object with the key `$serde_json::private::Number` for a number.
///
/// # Errors
/// [`Kind::Context`] if it isn't the text of a JSON object, or nests deeper than [`DEPTH_MAX`].
pub fn parse(text: &str) -> Result<Map<String, Value>> {
    parse_within(text, DEPTH_MAX).map_err(|refusal| refusal.told(text))
}

/// The same, if it nests so little that it can be read, worked on and forgotten on any stack.
pub(crate) fn parse_shallow(text: &str) -> Option<Map<String, Value>> {
    parse_within(text, SHALLOW_MAX).ok()
}

/// Any JSON value, if the text is one that nests at most [`DEPTH_MAX`] deep.
pub(super) fn parse_any(text: &str) -> Option<Value> {
    let mut reader = Reader { text, at: 0, depth_max: DEPTH_MAX, is_deep: false };
    reader.value(1).filter(|_| reader.peek().is_none())
}

/// Why a text was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It nests deeper than was asked for.
    Deep,
    /// It isn't the text of a JSON object; this byte is the first that doesn't fit.
    Bad(usize),
}

impl Refusal {
    pub(super) fn told(self, text: &str) -> Error {
        let place = match self {
            Self::Deep => String::new(),
            Self::Bad(place) => format!(" (byte {place})"),
        };
        let text = format!("context is not a JSON object of depth {DEPTH_MAX}{place}: {}", excerpt(text));
        Error::new(Kind::Context, text)
    }
}

/// Like [`parse`], if it nests at most `depth_max` deep.
pub(super) fn parse_within(text: &str, depth_max: usize) -> std::result::Result<Map<String, Value>, Refusal> {
    let mut reader = Reader { text, at: 0, depth_max, is_deep: false };
    match reader.value(1).filter(|_| reader.peek().is_none()) {
        Some(Value::Object(entries)) => Ok(entries),
        _ if reader.is_deep => Err(Refusal::Deep),
        _ => Err(Refusal::Bad(reader.at)),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth_max: usize,
    is_deep: bool,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        match self.peek()? {
            b'{' | b'[' if depth > self.depth_max => {
                self.is_deep = true;
                None
            }
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
