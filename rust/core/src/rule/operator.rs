//! Compares a context's value with a rule's. Pure.
//! Invariant: of a key that isn't there only negations hold.

use std::cmp::Ordering;

use serde_json::Value;

use crate::error::{Result, excerpt};
use crate::rule::number::compare;
use crate::rule::parse::refusal;

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
    /// Equal or greater, as those compare.
    GreaterOrEqual,
    /// Equal or less, as those compare.
    LessOrEqual,
    /// An element of the rule's array.
    In,
    /// A substring of a string, an element of an array or a key of an object.
    Contains,
    /// Not contained, or no such key.
    NotContains,
    /// There is such a key, be its value null.
    Exists,
    /// There is no such key.
    NotExists,
}

impl Operator {
    /// The operator of that spelling, in any case, underscores ignored.
    pub(super) fn parse(spelling: &str) -> Result<Self> {
        let plain: String = spelling.chars().filter(|&letter| letter != '_').collect();
        match plain.to_ascii_lowercase().as_str() {
            "equals" | "eq" | "==" => Ok(Self::Equals),
            "notequals" | "ne" | "!=" => Ok(Self::NotEquals),
            "greaterthan" | "gt" | ">" => Ok(Self::GreaterThan),
            "lessthan" | "lt" | "<" => Ok(Self::LessThan),
            "greaterorequal" | "ge" | "gte" | ">=" => Ok(Self::GreaterOrEqual),
            "lessorequal" | "le" | "lte" | "<=" => Ok(Self::LessOrEqual),
            "in" => Ok(Self::In),
            "contains" => Ok(Self::Contains),
            "notcontains" => Ok(Self::NotContains),
            "exists" => Ok(Self::Exists),
            "notexists" => Ok(Self::NotExists),
            _ => Err(refusal(format!(
                "trigger rule operator '{}' is unknown; one of Equals (== eq), NotEquals (!= ne), GreaterThan (> gt), \
                 LessThan (< lt), GreaterOrEqual (>= ge gte), LessOrEqual (<= le lte), In, Contains, NotContains, Exists, NotExists",
                excerpt(spelling)
            ))),
        }
    }

    pub(super) fn holds(&self, found: Option<&Value>, wanted: &Value) -> bool {
        match self {
            Self::Equals => found.is_some_and(|found| equal(found, wanted)),
            Self::NotEquals => !found.is_some_and(|found| equal(found, wanted)),
            Self::GreaterThan => ordered(found, wanted, Ordering::is_gt),
            Self::LessThan => ordered(found, wanted, Ordering::is_lt),
            Self::GreaterOrEqual => ordered(found, wanted, Ordering::is_ge),
            Self::LessOrEqual => ordered(found, wanted, Ordering::is_le),
            Self::In => found.is_some_and(|found| wanted.is_array() && contains(wanted, found)),
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

fn ordered(found: Option<&Value>, wanted: &Value, is: fn(Ordering) -> bool) -> bool {
    found.and_then(|found| order(found, wanted)).is_some_and(is)
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

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::rule::Rule;

    /// Whether `operator` with `value` holds of `{"k": found}`.
    fn compares(found: Value, operator: &str, value: Value) -> bool {
        let rule = json!({"type": "ContextValue", "key": "k", "operator": operator, "value": value});
        Rule::parse(&rule).unwrap().holds(&Map::from_iter([("k".to_owned(), found)]), &|_| None)
    }

    /// A number from its text, so that it may be as large as it likes.
    fn big(text: &str) -> Value {
        Value::Number(text.parse().unwrap())
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
                assert_eq!(compares(big(left), ">=", big(right)), at >= other, "{left} {right}");
                assert_eq!(compares(big(left), "<=", big(right)), at <= other, "{left} {right}");
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
            assert!(!compares(left.clone(), "LessThan", right.clone()));
            assert!(!compares(left.clone(), "GreaterOrEqual", right.clone()));
            assert!(!compares(left, "LessOrEqual", right));
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
    fn a_key_whose_value_is_null_exists() {
        assert!(compares(json!(null), "Exists", json!(null)));
        assert!(!compares(json!(null), "NotExists", json!(null)));
        let bare = json!({"type": "ContextValue", "key": "k", "operator": "not_exists"});
        assert!(Rule::parse(&bare).unwrap().holds(&Map::new(), &|_| None));
    }

    #[test]
    fn an_element_is_in_a_list_and_nothing_is_in_anything_else() {
        assert!(compares(json!(1), "In", json!(["a", 1.0])));
        assert!(compares(json!([1]), "In", json!([[1.0]])));
        assert!(!compares(json!("a"), "In", json!(["ab"])));
        assert!(!compares(json!(1), "In", json!([true, "1"])));
        let rule = Operator::In;
        assert!(
            !rule.holds(Some(&json!("a")), &json!("abc")) && !rule.holds(Some(&json!("a")), &json!({"a": 1}))
        );
        assert!(!rule.holds(None, &json!([null])));
    }

    #[test]
    fn operators_have_many_spellings() {
        let spellings = [
            (Operator::Equals, "Equals equals EQUALS == eq EQ"),
            (Operator::NotEquals, "NotEquals not_equals NOT_EQUALS != ne"),
            (Operator::GreaterThan, "GreaterThan greater_than > gt"),
            (Operator::LessThan, "LessThan _less__than_ < Lt"),
            (Operator::GreaterOrEqual, "GreaterOrEqual greater_or_equal >= ge gte"),
            (Operator::LessOrEqual, "LessOrEqual LESS_OR_EQUAL <= le LTE"),
            (Operator::In, "In in IN"),
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
}
