//! Takes in a context that another program has written as JSON, which Python's side has not looked at.
//! Invariant: what is let in is what a Python program might have handed in, in the same form.

use serde_json::{Map, Number, Value};

use crate::context::parse;
use crate::error::{Error, Kind, Result, excerpt};
use crate::room::with_room;

/// Python reads no integer of more digits.
const DIGITS_MAX: usize = 4300;

/// The text under which such a context is kept.
///
/// ```
/// use cloaca_core::context::taken_in;
///
/// assert_eq!(taken_in("{ \"b\": 1.50, \"a\": [null] }").unwrap(), r#"{"b":1.50,"a":[null]}"#);
/// assert!(taken_in("[1]").is_err());
/// assert!(taken_in(r#"{"n":1e999}"#).is_err());
/// ```
///
/// # Errors
/// [`Kind::Context`] if it isn't the text of a JSON object, nests too deep, or holds a number that no program of ours could have kept.
pub fn taken_in(text: &str) -> Result<String> {
    with_room(&|| {
        let entries = parse(text)?;
        if let Some(number) = unfit_among(&entries) {
            let text =
                format!("context holds the number {}, which is out of range", excerpt(number.as_str()));
            return Err(Error::new(Kind::Context, text));
        }
        Ok(serde_json::to_string(&entries).expect("JSON values can be written"))
    })
}

fn unfit_among(entries: &Map<String, Value>) -> Option<&Number> {
    entries.values().find_map(unfit)
}

fn unfit(value: &Value) -> Option<&Number> {
    match value {
        Value::Number(number) if !is_fit(number.as_str()) => Some(number),
        Value::Array(items) => items.iter().find_map(unfit),
        Value::Object(entries) => unfit_among(entries),
        _ => None,
    }
}

fn is_fit(number: &str) -> bool {
    match number.contains(['.', 'e', 'E']) {
        true => number.parse::<f64>().is_ok_and(f64::is_finite),
        false => number.trim_start_matches('-').len() <= DIGITS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::hash_text;

    #[test]
    fn what_another_program_wrote_has_the_hash_of_what_python_writes_for_it() {
        let (spaced, usual) = (r#" { "b" : 1.50, "a":"\u00e9\u0000" } "#, r#"{"a":"\u00e9\u0000","b":1.5}"#);
        let kept = taken_in(spaced).unwrap();
        assert_eq!(hash_text("", &kept), hash_text("", usual));
        assert_eq!(kept.find("\"b\""), Some(1), "keys keep their order");
    }

    #[test]
    fn what_no_program_of_ours_could_read_is_refused_by_its_name() {
        let refused = |text: &str| taken_in(text).unwrap_err().message;
        assert!(refused(r#"{"a":[{"n":1e999}]}"#).contains("1e+999, which is out of range"));
        assert!(refused(&format!(r#"{{"n":-{}}}"#, "9".repeat(4301))).contains("out of range"));
        assert!(refused(&format!(r#"{{"n":{}}}"#, "[".repeat(300))).contains("depth 200"));
        assert!(refused(r#"{"s":"\ud800"}"#).contains("not a JSON object"));
        assert!(taken_in(&format!(r#"{{"n":-{}}}"#, "9".repeat(4300))).is_ok());
    }
}
