//! Makes one context of two that began as a third. Pure, and never refuses: where both changed the same, the later side wins.
//! Invariant: what only one side changed is as that side left it.

use std::collections::HashSet;

use serde_json::{Map, Value};

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
