//! Decides whether a task runs, from the context that it would get and the fates of other tasks. Pure.
//! Invariant: a parsed rule nests at most [`DEPTH`] deep, so that asking it cannot exhaust the stack.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use crate::error::{Error, Kind, Result, excerpt};
use crate::port::TaskStatus;
use crate::room::with_room;

/// How deep conditions may nest, the outermost rule counted.
pub const DEPTH: usize = 100;

/// How a context's value is compared with the rule's.
#[derive(Debug, Clone, PartialEq)]
pub enum Operator {
    /// The same JSON value; numbers by their worth, so that 1 is 1.0, but not `true`.
    Equals,
    /// Not the same, or no such key.
    NotEquals,
    /// A larger number, or a string that sorts later by code point.
    GreaterThan,
    /// A smaller number, or a string that sorts earlier by code point.
    LessThan,
    /// A substring of a string, an element of an array or a key of an object.
    Contains,
    /// Not contained, or no such key.
    NotContains,
    /// There is such a key, be its value null.
    Exists,
    /// There is no such key.
    NotExists,
}

/// A condition on a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Holds.
    Always,
    /// This task completed.
    Success(String),
    /// This task failed.
    Failed(String),
    /// This task was skipped.
    Skipped(String),
    /// A comparison with one value of the context.
    Value {
        /// The key, at the top of the context.
        key: String,
        /// How to compare.
        operator: Operator,
        /// What to compare with; null where the operator needs nothing.
        value: Value,
    },
    /// Every one holds; so does the empty list.
    All(Vec<Rule>),
    /// At least one holds; the empty list doesn't.
    Any(Vec<Rule>),
    /// Not one holds; so does the empty list.
    None(Vec<Rule>),
}

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

    /// Whether the task may run. `status` knows the final tasks by their short ids; of the others it says nothing, and
    /// nothing holds of them.
    pub fn holds(&self, context: &Map<String, Value>, status: &dyn Fn(&str) -> Option<TaskStatus>) -> bool {
        let holds = |rule: &Self| rule.holds(context, status);
        match self {
            Self::Always => true,
            Self::Success(name) => status(short(name)) == Some(TaskStatus::Completed),
            Self::Failed(name) => status(short(name)) == Some(TaskStatus::Failed),
            Self::Skipped(name) => status(short(name)) == Some(TaskStatus::Skipped),
            Self::Value { key, operator, value } => operator.holds(context.get(key), value),
            Self::All(rules) => rules.iter().all(holds),
            Self::Any(rules) => rules.iter().any(holds),
            Self::None(rules) => !rules.iter().any(holds),
        }
    }

    /// What is left of it once the context is known: it holds wherever the whole does, of any context.
    pub fn resolved(&self, context: &Map<String, Value>) -> Self {
        let resolved = |rules: &[Self]| rules.iter().map(|rule| rule.resolved(context)).collect();
        match self {
            Self::Value { key, operator, value } => match operator.holds(context.get(key), value) {
                true => Self::Always,
                false => Self::Any(Vec::new()),
            },
            Self::All(rules) => Self::All(resolved(rules)),
            Self::Any(rules) => Self::Any(resolved(rules)),
            Self::None(rules) => Self::None(resolved(rules)),
            Self::Always | Self::Success(_) | Self::Failed(_) | Self::Skipped(_) => self.clone(),
        }
    }

    /// Whether the context can make a difference to it.
    pub fn reads_context(&self) -> bool {
        match self {
            Self::Always | Self::Success(_) | Self::Failed(_) | Self::Skipped(_) => false,
            Self::Value { .. } => true,
            Self::All(rules) | Self::Any(rules) | Self::None(rules) => rules.iter().any(Self::reads_context),
        }
    }

    /// Short ids of the tasks that it mentions, in its order; one mentioned twice comes twice.
    pub fn tasks(&self) -> Vec<&str> {
        match self {
            Self::Always | Self::Value { .. } => Vec::new(),
            Self::Success(name) | Self::Failed(name) | Self::Skipped(name) => vec![short(name)],
            Self::All(rules) | Self::Any(rules) | Self::None(rules) => {
                rules.iter().flat_map(Self::tasks).collect()
            }
        }
    }
}

/// The last segment of `tenant::package::workflow::task`.
fn short(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
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

fn refusal(message: String) -> Error {
    Error::new(Kind::Workflow, message)
}

impl Operator {
    /// The operator of that spelling, in any case, underscores ignored.
    fn parse(spelling: &str) -> Result<Self> {
        let plain: String = spelling.chars().filter(|&letter| letter != '_').collect();
        match plain.to_ascii_lowercase().as_str() {
            "equals" | "eq" | "==" => Ok(Self::Equals),
            "notequals" | "ne" | "!=" => Ok(Self::NotEquals),
            "greaterthan" | "gt" | ">" => Ok(Self::GreaterThan),
            "lessthan" | "lt" | "<" => Ok(Self::LessThan),
            "contains" => Ok(Self::Contains),
            "notcontains" => Ok(Self::NotContains),
            "exists" => Ok(Self::Exists),
            "notexists" => Ok(Self::NotExists),
            _ => Err(refusal(format!(
                "trigger rule operator '{}' is unknown; one of Equals (== eq), NotEquals (!= ne), GreaterThan (> gt), \
                 LessThan (< lt), Contains, NotContains, Exists, NotExists",
                excerpt(spelling)
            ))),
        }
    }

    fn holds(&self, found: Option<&Value>, wanted: &Value) -> bool {
        match self {
            Self::Equals => found.is_some_and(|found| equal(found, wanted)),
            Self::NotEquals => !found.is_some_and(|found| equal(found, wanted)),
            Self::GreaterThan => found.is_some_and(|found| order(found, wanted) == Some(Ordering::Greater)),
            Self::LessThan => found.is_some_and(|found| order(found, wanted) == Some(Ordering::Less)),
            Self::Contains => found.is_some_and(|found| contains(found, wanted)),
            Self::NotContains => !found.is_some_and(|found| contains(found, wanted)),
            Self::Exists => found.is_some(),
            Self::NotExists => found.is_none(),
        }
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right) == Ordering::Equal,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same =
                |(key, left): (&String, &Value)| right.get(key).is_some_and(|right| equal(left, right));
            left.len() == right.len() && left.iter().all(same)
        }
        _ => left == right,
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => Some(compare(left, right)),
        // UTF-8 sorts as code points do.
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
        (Value::Array(items), part) => items.iter().any(|item| equal(item, part)),
        (Value::Object(entries), Value::String(key)) => entries.contains_key(key),
        _ => false,
    }
}

/// Numbers by their worth. Never takes an integer for a float, because that would make 2^53 and 2^53 + 1 one.
fn compare(left: &Number, right: &Number) -> Ordering {
    match (is_integer(left), is_integer(right)) {
        (true, true) => compare_integers(left.as_str(), right.as_str()),
        (true, false) => compare_integer_with_float(left.as_str(), float(right)),
        (false, true) => compare_integer_with_float(right.as_str(), float(left)).reverse(),
        (false, false) => float(left).partial_cmp(&float(right)).expect("JSON text has no NaN"),
    }
}

fn is_integer(number: &Number) -> bool {
    !number.as_str().contains(['.', 'e', 'E'])
}

fn float(number: &Number) -> f64 {
    number.as_str().parse().expect("a JSON number is a Rust float literal")
}

fn compare_integers(left: &str, right: &str) -> Ordering {
    let (left_negative, left) = sign_and_digits(left);
    let (right_negative, right) = sign_and_digits(right);
    let by_size = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
    match (left_negative, right_negative) {
        (false, false) => by_size,
        (true, true) => by_size.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

/// Zero has no digits and no sign.
fn sign_and_digits(text: &str) -> (bool, &str) {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = unsigned.trim_start_matches('0');
    (unsigned.len() < text.len() && !digits.is_empty(), digits)
}

fn compare_integer_with_float(integer: &str, float: f64) -> Ordering {
    if float.is_infinite() {
        return if float > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    // A whole float prints all of its digits, so that this is exact.
    let whole = format!("{:.0}", float.trunc());
    let fraction = 0.0_f64.partial_cmp(&float.fract()).expect("a finite float has a fraction");
    compare_integers(integer, &whole).then(fraction)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(rule: Value) -> Rule {
        Rule::parse(&rule).unwrap()
    }

    fn refused(rule: Value) -> String {
        let error = Rule::parse(&rule).unwrap_err();
        assert_eq!(error.kind, Kind::Workflow);
        error.message
    }

    /// Whether `operator` with `value` holds of `{"k": found}`.
    fn compares(found: Value, operator: &str, value: Value) -> bool {
        let rule = json!({"type": "ContextValue", "key": "k", "operator": operator, "value": value});
        parsed(rule).holds(&Map::from_iter([("k".to_owned(), found)]), &|_| None)
    }

    /// A number from its text, so that it may be as large as it likes.
    fn big(text: &str) -> Value {
        Value::Number(text.parse().unwrap())
    }

    fn holds(rule: Value) -> bool {
        let status = |id: &str| match id {
            "done" => Some(TaskStatus::Completed),
            "broken" => Some(TaskStatus::Failed),
            "left" => Some(TaskStatus::Skipped),
            _ => None,
        };
        parsed(rule).holds(&Map::new(), &status)
    }

    #[test]
    fn tasks_are_asked_by_their_fate() {
        for (kind, task) in [("TaskSuccess", "done"), ("TaskFailed", "broken"), ("TaskSkipped", "left")] {
            for name in ["done", "broken", "left", "unknown"] {
                assert_eq!(holds(json!({"type": kind, "task_name": name})), name == task, "{kind} {name}");
            }
        }
    }

    #[test]
    fn a_task_may_be_named_in_full() {
        let rule = json!({"type": "TaskSuccess", "task_name": "public::embedded::flow::done"});
        assert_eq!(parsed(rule.clone()).tasks(), ["done"]);
        assert!(holds(rule));
        let full = Rule::Failed("t::p::w::broken".to_owned());
        assert_eq!(full.tasks(), ["broken"]);
        assert!(full.holds(&Map::new(), &|id| (id == "broken").then_some(TaskStatus::Failed)));
    }

    #[test]
    fn combinations_of_nothing_have_their_meaning() {
        assert!(holds(json!({"type": "Always"})));
        assert!(holds(json!({"type": "All", "conditions": []})));
        assert!(!holds(json!({"type": "Any", "conditions": []})));
        assert!(holds(json!({"type": "None", "conditions": []})));
    }

    #[test]
    fn combinations_nest() {
        let yes = json!({"type": "Always"});
        let no = json!({"type": "TaskFailed", "task_name": "done"});
        let of = |kind: &str, rules: [&Value; 2]| json!({"type": kind, "conditions": rules});
        assert!(holds(of("All", [&yes, &yes])) && !holds(of("All", [&yes, &no])));
        assert!(holds(of("Any", [&no, &yes])) && !holds(of("Any", [&no, &no])));
        assert!(holds(of("None", [&no, &no])) && !holds(of("None", [&no, &yes])));
        assert!(holds(of("All", [&of("None", [&no, &no]), &of("Any", [&no, &yes])])));
    }

    #[test]
    fn every_task_of_a_rule_is_listed() {
        let rule = Rule::All(vec![
            Rule::Success("a".into()),
            Rule::Any(vec![Rule::Failed("b".into()), Rule::Always]),
            Rule::None(vec![Rule::Skipped("a".into())]),
        ]);
        assert_eq!(rule.tasks(), ["a", "b", "a"]);
    }

    #[test]
    fn equality_is_that_of_numbers_not_of_their_text() {
        assert!(compares(json!(1), "Equals", json!(1.0)));
        assert!(compares(json!(0), "Equals", json!(-0.0)));
        assert!(compares(big("1e2"), "Equals", json!(100)));
        assert!(compares(json!([1, {"a": 2.0}]), "Equals", json!([1.0, {"a": 2}])));
        assert!(!compares(json!([1, 2]), "Equals", json!([1])));
        assert!(!compares(json!({"a": 1}), "Equals", json!({"b": 1})));
    }

    #[test]
    fn true_is_not_one_and_null_is_only_null() {
        assert!(!compares(json!(true), "Equals", json!(1)));
        assert!(compares(json!(true), "NotEquals", json!(1)));
        assert!(!compares(json!(null), "Equals", json!(false)));
        assert!(compares(json!(null), "Equals", json!(null)));
    }

    #[test]
    fn large_integers_are_compared_exactly() {
        let (smaller, larger) = (big("9007199254740992"), big("9007199254740993"));
        assert!(compares(smaller.clone(), "NotEquals", larger.clone()));
        assert!(compares(larger.clone(), "GreaterThan", smaller.clone()));
        assert!(compares(big("9007199254740992.0"), "Equals", smaller));
        assert!(compares(big("9007199254740992.0"), "LessThan", larger));
        assert!(compares(big("-100000000000000000000001"), "LessThan", big("-100000000000000000000000")));
        assert!(compares(big("1e22"), "Equals", big("10000000000000000000000")));
    }

    #[test]
    fn numbers_are_ordered_by_worth() {
        let ascending =
            ["-1e999", "-10", "-9.5", "-9", "-0.5", "0", "0.5", "1", "1.5", "2", "10", "1e30", "1e999"];
        for (at, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                assert_eq!(compares(big(left), "<", big(right)), at < other, "{left} {right}");
                assert_eq!(compares(big(left), ">", big(right)), at > other, "{left} {right}");
                assert_eq!(compares(big(left), "==", big(right)), at == other, "{left} {right}");
            }
        }
    }

    #[test]
    fn strings_are_ordered_by_code_point_and_other_things_not_at_all() {
        assert!(compares(json!("b"), "GreaterThan", json!("a")));
        assert!(compares(json!("Z"), "LessThan", json!("a")));
        assert!(compares(json!("\u{ffff}"), "LessThan", json!("\u{1f600}")));
        for (left, right) in [(json!("2"), json!(1)), (json!(true), json!(false)), (json!([2]), json!([1]))] {
            assert!(!compares(left.clone(), "GreaterThan", right.clone()));
            assert!(!compares(left, "LessThan", right));
        }
    }

    #[test]
    fn strings_arrays_and_objects_contain() {
        assert!(compares(json!("report.csv"), "Contains", json!(".csv")));
        assert!(!compares(json!("12"), "Contains", json!(1)));
        assert!(compares(json!([1, "a"]), "Contains", json!(1.0)));
        assert!(!compares(json!(["abc"]), "Contains", json!("b")));
        assert!(compares(json!({"a": 1}), "Contains", json!("a")));
        assert!(!compares(json!({"a": 1}), "Contains", json!(1)));
        assert!(!compares(json!(5), "Contains", json!(5)));
        assert!(compares(json!(5), "NotContains", json!(5)));
        assert!(!compares(json!([5]), "NotContains", json!(5)));
    }

    #[test]
    fn of_a_missing_key_only_negations_hold() {
        for operator in [
            "Equals",
            "NotEquals",
            "GreaterThan",
            "LessThan",
            "Contains",
            "NotContains",
            "Exists",
            "NotExists",
        ] {
            let rule = json!({"type": "ContextValue", "key": "k", "operator": operator, "value": null});
            assert_eq!(holds(rule), operator.starts_with("Not"), "{operator}");
        }
    }

    #[test]
    fn a_key_whose_value_is_null_exists() {
        assert!(compares(json!(null), "Exists", json!(null)));
        assert!(!compares(json!(null), "NotExists", json!(null)));
        let bare = json!({"type": "ContextValue", "key": "k", "operator": "not_exists"});
        assert!(holds(bare));
    }

    #[test]
    fn operators_have_many_spellings() {
        let spellings = [
            (Operator::Equals, "Equals equals EQUALS == eq EQ"),
            (Operator::NotEquals, "NotEquals not_equals NOT_EQUALS != ne"),
            (Operator::GreaterThan, "GreaterThan greater_than > gt"),
            (Operator::LessThan, "LessThan _less__than_ < Lt"),
            (Operator::Contains, "Contains contains"),
            (Operator::NotContains, "NotContains not_contains"),
            (Operator::Exists, "Exists exists"),
            (Operator::NotExists, "NotExists not_exists"),
        ];
        for (operator, texts) in spellings {
            for text in texts.split(' ') {
                assert_eq!(Operator::parse(text).unwrap(), operator, "{text}");
            }
        }
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
        assert!(refused(value(">=")).contains("'>='"));
        assert!(refused(value("Equals")).contains("needs a 'value'"));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| {
            (1..depth).fold(json!({"type": "Always"}), |rule, _| json!({"type": "All", "conditions": [rule]}))
        };
        assert!(holds(nested(DEPTH)));
        assert!(refused(nested(DEPTH + 1)).contains("100"));
    }
}
