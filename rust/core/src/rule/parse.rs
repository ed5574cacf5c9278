//! Reads rules from the plain data in which they are declared. Pure.
//! Invariant: what is read nests at most [`DEPTH`] deep.

use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result, excerpt};
use crate::room::with_room;
use crate::rule::{Operator, Rule, short};

/// How deep conditions may nest, the outermost rule counted.
pub const DEPTH: usize = 100;

impl Rule {
    /// The rule that such a dictionary, as made by `all_of` and its siblings, stands for.
    ///
    /// # Errors
    /// [`Kind::Workflow`] for an unknown type or operator, a missing or mistyped entry, or nesting deeper than [`DEPTH`].
    pub fn parse(value: &Value) -> Result<Self> {
        parse_at(value, 1)
    }

    /// The same of its JSON text, on any stack.
    ///
    /// # Errors
    /// As [`Rule::parse`], and for what is no JSON.
    pub fn read(text: &str) -> Result<Self> {
        with_room(&|| {
            let value = serde_json::from_str(text)
                .map_err(|error| refusal(format!("trigger rule is not JSON: {error}")))?;
            Self::parse(&value)
        })
    }
}

fn parse_at(value: &Value, depth: usize) -> Result<Rule> {
    if depth > DEPTH {
        return Err(refusal(format!("trigger rule nests deeper than {DEPTH} conditions; flatten it")));
    }
    let Value::Object(entries) = value else {
        let text = format!(
            "trigger rule {} is not a dict; build it with always(), all_of(...) and the like",
            show(value)
        );
        return Err(refusal(text));
    };
    match text(entries, "type")? {
        "Always" => Ok(Rule::Always),
        "TaskSuccess" => Ok(Rule::Success(task_name(entries)?)),
        "TaskFailed" => Ok(Rule::Failed(task_name(entries)?)),
        "TaskSkipped" => Ok(Rule::Skipped(task_name(entries)?)),
        "ContextValue" => comparison(entries),
        "All" => Ok(Rule::All(conditions(entries, depth)?)),
        "Any" => Ok(Rule::Any(conditions(entries, depth)?)),
        "None" => Ok(Rule::None(conditions(entries, depth)?)),
        other => Err(refusal(format!(
            "trigger rule type '{}' is unknown; one of Always, TaskSuccess, TaskFailed, TaskSkipped, ContextValue, \
             All, Any, None",
            excerpt(other)
        ))),
    }
}

fn conditions(entries: &Map<String, Value>, depth: usize) -> Result<Vec<Rule>> {
    match entries.get("conditions") {
        Some(Value::Array(rules)) => rules.iter().map(|rule| parse_at(rule, depth + 1)).collect(),
        Some(other) => {
            Err(refusal(format!("trigger rule: 'conditions' is {}, not a list of rules", show(other))))
        }
        None => Err(refusal(format!("trigger rule '{}' has no 'conditions'", text(entries, "type")?))),
    }
}

fn comparison(entries: &Map<String, Value>) -> Result<Rule> {
    let key = text(entries, "key")?.to_owned();
    let operator = Operator::parse(text(entries, "operator")?)?;
    let value = match entries.get("value") {
        Some(value) => value.clone(),
        None if matches!(operator, Operator::Exists | Operator::NotExists) => Value::Null,
        None => {
            let text = format!("trigger rule on key '{}': {operator:?} needs a 'value'", excerpt(&key));
            return Err(refusal(text));
        }
    };
    if operator == Operator::In && !value.is_array() {
        let text = format!("trigger rule on key '{}': In needs a list, not {}", excerpt(&key), show(&value));
        return Err(refusal(text));
    }
    Ok(Rule::Value { key, operator, value })
}

fn task_name(entries: &Map<String, Value>) -> Result<String> {
    let name = text(entries, "task_name")?;
    match short(name) {
        "" => Err(refusal(format!("trigger rule: 'task_name' '{}' names no task", excerpt(name)))),
        short => Ok(short.to_owned()),
    }
}

fn text<'a>(entries: &'a Map<String, Value>, name: &str) -> Result<&'a str> {
    match entries.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(refusal(format!("trigger rule: '{name}' is {}, not a string", show(other)))),
        None => Err(refusal(format!("trigger rule has no '{name}'"))),
    }
}

fn show(value: &Value) -> String {
    excerpt(&value.to_string())
}

pub(super) fn refusal(message: String) -> Error {
    Error::new(Kind::Workflow, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(rule: Value) -> String {
        let error = Rule::parse(&rule).unwrap_err();
        assert_eq!(error.kind, Kind::Workflow);
        error.message
    }

    #[test]
    fn a_bad_rule_is_refused_by_name() {
        assert!(refused(json!("Always")).contains("not a dict"));
        assert!(refused(json!({})).contains("'type'"));
        assert!(refused(json!({"type": 1})).contains("not a string"));
        assert!(refused(json!({"type": "Sometimes"})).contains("'Sometimes'"));
        assert!(refused(json!({"type": "TaskSuccess"})).contains("'task_name'"));
        assert!(refused(json!({"type": "TaskSuccess", "task_name": "w::"})).contains("names no task"));
        assert!(refused(json!({"type": "All"})).contains("'All' has no 'conditions'"));
        assert!(refused(json!({"type": "Any", "conditions": {}})).contains("not a list"));
        assert!(refused(json!({"type": "None", "conditions": [1]})).contains("not a dict"));
        let value = |operator: &str| json!({"type": "ContextValue", "key": "k", "operator": operator});
        assert!(refused(value("=>")).contains("'=>'"));
        let within = json!({"type": "ContextValue", "key": "k", "operator": "In", "value": "abc"});
        assert!(refused(within).contains("In needs a list"));
        assert!(refused(value("Equals")).contains("needs a 'value'"));
    }

    /// Only declarations are refused for their keys: what an older version took is still read.
    #[test]
    fn a_key_of_any_form_is_read() {
        for key in ["", ".", "a..b", "items[0]", "*", "a.b"] {
            let rule = json!({"type": "ContextValue", "key": key, "operator": "Equals", "value": 1});
            let read = Rule::parse(&rule).unwrap();
            let context = json!({key: 1});
            assert!(read.holds(context.as_object().unwrap(), &|_| None), "{key}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| {
            (1..depth).fold(json!({"type": "Always"}), |rule, _| json!({"type": "All", "conditions": [rule]}))
        };
        assert!(Rule::parse(&nested(DEPTH)).is_ok());
        assert!(refused(nested(DEPTH + 1)).contains("100"));
    }
}
