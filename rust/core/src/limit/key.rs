//! For what a limit counts: a path into the context, or a format of such paths. Pure.
//! Invariant: of equal contexts every key has the same text, whoever reads it and in whatever language they were written.

use serde_json::{Map, Value};

use crate::context;
use crate::error::{Error, Kind, Result, excerpt};
use crate::room::with_room;

/// The longest text of a key, as it is declared and as it comes of a context.
pub const KEY_CHARS_MAX: usize = 1024;

/// What a key's text is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Path(Vec<String>),
}

/// A key as declared: `"order.tenant"` is a path, `"{tenant}:{region}"` a format of paths; `{{` and `}}` stand for braces.
///
/// A path goes through objects, by names that hold no dot and no brace. What stands at its end is a text, which counts as it is, an integer
/// by its digits, another number by its shortest decimal form (so `2.0` counts as `2`), or `true` or `false`. `null`, a list and an object
/// are no value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    text: String,
    parts: Vec<Part>,
}

impl Key {
    /// The key of that text.
    ///
    /// # Errors
    /// [`Kind::Workflow`] if it is none: empty, too long, a path with an empty name, or a format with a brace that has no other or without
    /// a path.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            let way = "give a path into the context such as \"order.tenant\", or a format such as \"{tenant}:{region}\"";
            Error::new(Kind::Workflow, format!("key is \"{}\", {why}; {way}", excerpt(text)))
        };
        if text.is_empty() || text.chars().count() > KEY_CHARS_MAX {
            return Err(refuse(&format!("which has not 1 to {KEY_CHARS_MAX} characters")));
        }
        let parts = match text.contains(['{', '}']) {
            true => format_of(text).map_err(refuse)?,
            false => vec![Part::Path(path_of(text).ok_or_else(|| refuse("with an empty name in its path"))?)],
        };
        if !parts.iter().any(|part| matches!(part, Part::Path(_))) {
            return Err(refuse("in which no path stands"));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// As it was declared.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its value in a context.
    ///
    /// # Errors
    /// [`Kind::Context`] if one of its paths leads to nothing, or to what is no value of a key, or the value is too long.
    pub fn of(&self, context: &Map<String, Value>) -> Result<String> {
        let mut value = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => value.push_str(text),
                Part::Path(path) => value.push_str(&self.scalar(context, path)?),
            }
        }
        if value.chars().count() > KEY_CHARS_MAX {
            let told = format!("has more than {KEY_CHARS_MAX} characters: {}", excerpt(&value));
            return Err(self.refused(&told));
        }
        Ok(value)
    }

    /// The same of a context's JSON text, on any stack.
    ///
    /// # Errors
    /// As [`Self::of`], and as [`context::parse`].
    pub fn of_text(&self, context: &str) -> Result<String> {
        with_parsed(context, |context| self.of(context))
    }

    fn scalar(&self, context: &Map<String, Value>, path: &[String]) -> Result<String> {
        let (last, through) = path.split_last().expect("a path has a name");
        let mut at = context;
        for (depth, name) in through.iter().enumerate() {
            let dotted = || path[..=depth].join(".");
            at = match at.get(name) {
                Some(Value::Object(entries)) => entries,
                Some(other) => {
                    return Err(self.refused(&format!(
                        "goes through {}, which is {}",
                        dotted(),
                        kind_of(other)
                    )));
                }
                None => return Err(self.refused(&format!("needs {}, which the context has not", dotted()))),
            };
        }
        match at.get(last) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Bool(value)) => Ok(value.to_string()),
            Some(Value::Number(number)) => Ok(number_text(number.as_str())),
            Some(other) => Err(self.refused(&format!("finds {} at {}", kind_of(other), path.join(".")))),
            None => Err(self.refused(&format!("needs {}, which the context has not", path.join(".")))),
        }
    }

    fn refused(&self, why: &str) -> Error {
        let way = "give a context with a text, a number or a bool there";
        Error::new(Kind::Context, format!("the key \"{}\" of a limit {why}; {way}", excerpt(&self.text)))
    }
}

/// What is read out of a context's JSON text, on any stack.
pub(super) fn with_parsed<T: Send>(
    text: &str,
    read: impl Fn(&Map<String, Value>) -> Result<T> + Sync,
) -> Result<T> {
    match context::parse_shallow(text) {
        Some(context) => read(&context),
        None => with_room(&|| context::parse(text).and_then(|context| read(&context))),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Equal numbers have one text, however they were written.
fn number_text(text: &str) -> String {
    if text.contains(['.', 'e', 'E']) {
        // Adding 0.0 makes -0.0 the 0.0 that it equals.
        return text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| (number + 0.0).to_string());
    }
    match text.trim_start_matches('-').trim_start_matches('0') {
        "" => String::from("0"),
        _ => text.to_owned(),
    }
}

fn path_of(text: &str) -> Option<Vec<String>> {
    let names: Vec<String> = text.split('.').map(str::to_owned).collect();
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

fn format_of(text: &str) -> std::result::Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(brace) = rest.find(['{', '}']) {
        literal.push_str(&rest[..brace]);
        let behind = &rest[brace..];
        if let Some(after) = behind.strip_prefix("{{").or_else(|| behind.strip_prefix("}}")) {
            literal.push_str(&behind[..1]);
            rest = after;
            continue;
        }
        let inside = behind.strip_prefix('{').ok_or("with a } that closes nothing")?;
        let (path, after) = inside.split_once('}').ok_or("with a { that is not closed")?;
        if path.contains('{') {
            return Err("with a { that is not closed");
        }
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal)));
        }
        parts.push(Part::Path(path_of(path).ok_or("with an empty name in its path")?));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(key: &str, context: &str) -> std::result::Result<String, String> {
        Key::parse(key).unwrap().of_text(context).map_err(|refused| refused.message)
    }

    fn refusal(key: &str) -> String {
        Key::parse(key).unwrap_err().message
    }

    #[test]
    fn a_path_leads_through_objects_to_a_scalar() {
        let context = r#"{"order": {"tenant": "acme", "n": 7}, "is": true}"#;
        assert_eq!(value("order.tenant", context).unwrap(), "acme");
        assert_eq!(value("order.n", context).unwrap(), "7");
        assert_eq!(value("is", context).unwrap(), "true");
        assert_eq!(value("{order.tenant}:{order.n}", context).unwrap(), "acme:7");
        assert_eq!(value("{{{is}}}", context).unwrap(), "{true}");
    }

    #[test]
    fn equal_numbers_are_one_key() {
        for (text, key) in [
            ("1", "1"),
            ("1.0", "1"),
            ("1e0", "1"),
            ("-0.0", "0"),
            ("-0", "0"),
            ("0.5", "0.5"),
            ("-12", "-12"),
        ] {
            assert_eq!(value("n", &format!("{{\"n\": {text}}}")).unwrap(), key, "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_no_scalar_is_told_with_its_path() {
        let told = |key, context| value(key, context).unwrap_err();
        assert!(
            told("tenant", "{}")
                .contains("the key \"tenant\" of a limit needs tenant, which the context has not")
        );
        assert!(told("a.b", r#"{"a": {}}"#).contains("needs a.b, which the context has not"));
        assert!(told("a.b", r#"{"a": 1}"#).contains("goes through a, which is a number"));
        assert!(told("a", r#"{"a": null}"#).contains("finds null at a"));
        assert!(told("a", r#"{"a": [1]}"#).contains("finds a list at a"));
        assert!(told("{a}{a}", &format!("{{\"a\": \"{}\"}}", "x".repeat(600))).contains("more than 1024"));
    }

    #[test]
    fn a_key_that_is_none_is_refused_with_the_way_out() {
        for (key, why) in [
            ("", "has not 1 to 1024"),
            ("a..b", "an empty name"),
            (".a", "an empty name"),
            ("{}", "an empty name"),
            ("{a", "not closed"),
            ("{a{b}", "not closed"),
            ("a}", "closes nothing"),
            ("{{a}}", "no path"),
        ] {
            let told = refusal(key);
            assert!(told.contains(why) && told.contains("\"{tenant}:{region}\""), "{key}: {told}");
        }
    }

    #[test]
    fn a_context_that_nests_deep_is_read_on_a_small_stack() {
        let depth = context::DEPTH_MAX - 1;
        let text = format!("{{\"a\": {}1{}, \"b\": 2}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        let small = std::thread::Builder::new().stack_size(32 * 1024);
        let read = small.spawn(move || value("b", &text)).unwrap().join().unwrap();
        assert_eq!(read.unwrap(), "2");
    }

    proptest! {
        #[test]
        fn a_format_is_its_values_between_its_texts(names in proptest::collection::vec("[a-z]{1,4}", 1..5), values in proptest::collection::vec("[^\"\\\\\u{0}-\u{1f}]{0,6}", 5)) {
            let context: Map<String, Value> =
                names.iter().zip(&values).map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect();
            let format: String = names.iter().map(|name| format!("<{{{name}}}>")).collect();
            let plain: String = names.iter().map(|name| format!("<{}>", context[name].as_str().unwrap())).collect();
            prop_assert_eq!(Key::parse(&format).unwrap().of(&context).unwrap(), plain);
        }

        #[test]
        fn no_text_panics(text in "[a-z.{}]{0,12}", context in "[\\[\\]{}:,\"a-z0-9]{0,20}") {
            if let Ok(key) = Key::parse(&text) {
                let _ = key.of_text(&context);
            }
        }
    }
}
