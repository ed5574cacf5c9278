//! Decides whether a task runs, from the context that it would get and the fates of other tasks. Pure.
//! Invariant: a parsed rule nests at most [`DEPTH`] deep, so that asking it cannot exhaust the stack.

mod number;
mod operator;
mod parse;

use serde_json::{Map, Value};

use crate::port::TaskStatus;

pub use operator::Operator;
pub use parse::DEPTH;

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
        /// The key at the top of the context, or a path from there through objects, with dots between.
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
    /// Whether the task may run. `status` knows the final tasks by their short ids; of the others it says nothing, and
    /// nothing holds of them.
    pub fn holds(&self, context: &Map<String, Value>, status: &dyn Fn(&str) -> Option<TaskStatus>) -> bool {
        let holds = |rule: &Self| rule.holds(context, status);
        match self {
            Self::Always => true,
            Self::Success(name) => status(short(name)) == Some(TaskStatus::Completed),
            Self::Failed(name) => status(short(name)) == Some(TaskStatus::Failed),
            Self::Skipped(name) => status(short(name)) == Some(TaskStatus::Skipped),
            Self::Value { key, operator, value } => operator.holds(find(context, key), value),
            Self::All(rules) => rules.iter().all(holds),
            Self::Any(rules) => rules.iter().any(holds),
            Self::None(rules) => !rules.iter().any(holds),
        }
    }

    /// What is left of it once the context is known: it holds wherever the whole does, of any context.
    pub fn resolved(&self, context: &Map<String, Value>) -> Self {
        let resolved = |rules: &[Self]| rules.iter().map(|rule| rule.resolved(context)).collect();
        match self {
            Self::Value { key, operator, value } => match operator.holds(find(context, key), value) {
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

/// The value that a key stands for: the one of that very name, or else of what follows its first dot within what stands before it.
fn find<'c>(within: &'c Map<String, Value>, key: &str) -> Option<&'c Value> {
    if let Some(found) = within.get(key) {
        return Some(found);
    }
    let (first, rest) = key.split_once('.')?;
    find(within.get(first)?.as_object()?, rest)
}

/// The last segment of `tenant::package::workflow::task`.
fn short(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(rule: Value) -> bool {
        let status = |id: &str| match id {
            "done" => Some(TaskStatus::Completed),
            "broken" => Some(TaskStatus::Failed),
            "left" => Some(TaskStatus::Skipped),
            _ => None,
        };
        Rule::parse(&rule).unwrap().holds(&Map::new(), &status)
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
        assert_eq!(Rule::parse(&rule).unwrap().tasks(), ["done"]);
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
    fn a_key_is_looked_up_within_objects_unless_one_has_its_dots() {
        let context = json!({"a": {"b": {"c": 1}, "b.c": 2, "": {"": 3}}, "a.b": {"c": 4}, "d": [{"e": 5}]});
        let context = context.as_object().unwrap();
        for (key, found) in [
            ("a.b.c", Some(json!(2))),
            ("a.b", Some(json!({"c": 4}))),
            ("a..", Some(json!(3))),
            ("a.c", None),
            ("a.b.c.d", None),
            ("d.e", None),
            ("d.0.e", None),
            ("", None),
        ] {
            assert_eq!(find(context, key), found.as_ref(), "{key}");
        }
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
    fn of_a_missing_key_only_negations_hold() {
        for operator in [
            "Equals",
            "NotEquals",
            "GreaterThan",
            "LessThan",
            "GreaterOrEqual",
            "LessOrEqual",
            "Contains",
            "NotContains",
            "Exists",
            "NotExists",
        ] {
            let rule = json!({"type": "ContextValue", "key": "k", "operator": operator, "value": null});
            assert_eq!(holds(rule), operator.starts_with("Not"), "{operator}");
        }
    }
}
