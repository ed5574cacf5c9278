//! How large a context may be, and what to say of one that is larger.
//! Invariant: the measure is bytes of the JSON text, wherever a context comes from.

use std::io::{self, Write};

use serde_json::Value;

use crate::context::read::parse_any;
use crate::error::excerpt;
use crate::room::with_room;

/// What to say of a context or cursor that is larger than `bytes_max`: where its largest value is, too. None if it fits.
///
/// ```
/// use cloaca_core::context::too_large;
///
/// let said = too_large("the context", "{\"a\":1,\"rows\":[[1,2,3],4]}", 20).unwrap();
/// assert!(said.contains("26 bytes") && said.contains("rows[0] with 7"), "{said}");
/// assert_eq!(too_large("the context", "{}", 20), None);
/// ```
pub fn too_large(what: &str, text: &str, bytes_max: usize) -> Option<String> {
    if text.len() <= bytes_max {
        return None;
    }
    let place = match with_room(&|| parse_any(text).map(|value| largest(&value))) {
        Some((path, bytes)) if !path.is_empty() => {
            format!("; its largest value is at {} with {bytes}", excerpt(&path))
        }
        _ => String::new(),
    };
    Some(format!(
        "{what} has {} bytes of JSON, and at most {bytes_max} fit{place}. Hand on a path instead of the data, or raise \
         context_bytes_max",
        text.len()
    ))
}

/// The path to the value that most of the bytes are in, and its size: a large value that consists of many small ones is named itself.
fn largest(context: &Value) -> (String, usize) {
    let (mut path, mut value, mut bytes) = (String::new(), context, usize::MAX);
    while let Some((step, child)) = largest_child(value) {
        let size = size_of(child);
        if !path.is_empty() && size < bytes / 2 {
            break;
        }
        path.push_str(&match step {
            Step::Key(key) if path.is_empty() => key.to_owned(),
            Step::Key(key) => format!(".{key}"),
            Step::Index(index) => format!("[{index}]"),
        });
        (value, bytes) = (child, size);
    }
    (path, if bytes == usize::MAX { size_of(context) } else { bytes })
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn largest_child(value: &Value) -> Option<(Step<'_>, &Value)> {
    match value {
        Value::Object(entries) => {
            let child = entries.iter().max_by_key(|(_, child)| size_of(child));
            child.map(|(key, child)| (Step::Key(key), child))
        }
        Value::Array(items) => {
            let child = items.iter().enumerate().max_by_key(|(_, child)| size_of(child));
            child.map(|(index, child)| (Step::Index(index), child))
        }
        _ => None,
    }
}

fn size_of(value: &Value) -> usize {
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).expect("JSON values can be written");
    counter.0
}

/// Counts what is written.
struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
