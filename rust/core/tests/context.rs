//! Claims on the canonical form, on merging and on joining.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloaca_core::context::{Canon, DEPTH_MAX, hash_json, join, merge, parse};
use cloaca_core::graph::Graph;
use proptest::prelude::*;
use serde_json::{Map, Number, Value, json};

type Entries = Map<String, Value>;

fn entries(value: Value) -> Entries {
    match value {
        Value::Object(entries) => entries,
        other => panic!("{other} is no object"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The canonical form by the public pushes alone, as the binding makes it.
fn canonical(trigger: &str, context: &Entries) -> Canon {
    let mut canon = Canon::new();
    canon.reset(trigger);
    push_entries(&mut canon, context);
    canon
}

fn push_entries(canon: &mut Canon, context: &Entries) {
    let mut sorted: Vec<_> = context.iter().collect();
    sorted.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    canon.object(sorted.len());
    for (key, value) in sorted {
        canon.key(key);
        push(canon, value);
    }
}

fn push(canon: &mut Canon, value: &Value) {
    match value {
        Value::Null => canon.null(),
        Value::Bool(value) => canon.bool(*value),
        Value::Number(number) => match (number.as_str().parse::<i64>(), is_integer(number)) {
            (Ok(small), _) => canon.int_i64(small),
            (_, true) => canon.int_decimal(number.as_str()),
            (_, false) => canon.float(number.as_f64().unwrap()),
        },
        Value::String(text) => canon.str(text),
        Value::Array(items) => {
            canon.array(items.len());
            items.iter().for_each(|item| push(canon, item));
        }
        Value::Object(entries) => push_entries(canon, entries),
    }
}

fn is_integer(number: &Number) -> bool {
    !number.as_str().contains(['.', 'e', 'E'])
}

mod golden {
    use super::*;

    #[test]
    fn bytes_and_hashes_are_those_of_the_golden_vectors() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/context_hash.json");
        let text = std::fs::read_to_string(path).unwrap();
        let vectors: Vec<HashMap<String, String>> = serde_json::from_str(&text)
            .map(|vectors: Vec<Entries>| vectors.into_iter().map(strings).collect())
            .unwrap();
        assert!(vectors.len() >= 20);
        for vector in vectors {
            let context = parse(&vector["context"]).unwrap();
            let canon = canonical(&vector["trigger"], &context);
            assert_eq!(hex(canon.bytes()), vector["bytes"], "{}", vector["name"]);
            assert_eq!(hex(&canon.hash()), vector["hash"], "{}", vector["name"]);
            assert_eq!(hash_json(&vector["trigger"], &context), canon.hash(), "{}", vector["name"]);
        }
    }

    fn strings(vector: Entries) -> HashMap<String, String> {
        vector.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_owned())).collect()
    }
}

mod canon {
    use super::*;

    fn bytes(push: impl FnOnce(&mut Canon)) -> Vec<u8> {
        let mut canon = Canon::new();
        canon.reset("t");
        push(&mut canon);
        canon.bytes().to_owned()
    }

    #[test]
    fn a_reset_forgets_all() {
        let mut canon = Canon::new();
        canon.reset("other");
        canon.str("something");
        canon.reset("t");
        canon.null();
        assert_eq!(canon.bytes(), bytes(Canon::null));
    }

    #[test]
    fn leading_zeros_and_the_sign_of_zero_do_not_count() {
        for (text, value) in [("-0", 0), ("000", 0), ("-00", 0), ("007", 7), ("-0010", -10)] {
            assert_eq!(bytes(|c| c.int_decimal(text)), bytes(|c| c.int_i64(value)), "{text}");
        }
        assert_eq!(bytes(|c| c.int_decimal("-9223372036854775808")), bytes(|c| c.int_i64(i64::MIN)));
    }

    #[test]
    fn the_two_float_zeros_are_one() {
        assert_eq!(bytes(|c| c.float(-0.0)), bytes(|c| c.float(0.0)));
        assert_ne!(bytes(|c| c.float(-1.0)), bytes(|c| c.float(1.0)));
    }

    #[test]
    fn true_one_and_one_point_zero_are_three_values() {
        let hash = |text| hash_json("t", &parse(text).unwrap());
        let hashes = [hash(r#"{"v":true}"#), hash(r#"{"v":1}"#), hash(r#"{"v":1.0}"#), hash(r#"{"v":"1"}"#)];
        let distinct: std::collections::HashSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
    }

    #[test]
    fn a_float_beyond_all_floats_is_hashed_without_a_panic() {
        assert_ne!(
            hash_json("t", &parse(r#"{"v":1e999}"#).unwrap()),
            hash_json("t", &parse(r#"{"v":-1e999}"#).unwrap())
        );
    }
}

mod parsing {
    use super::*;

    fn nested(depth: usize, open: &str, inside: &str, close: &str) -> String {
        format!("{}{inside}{}", open.repeat(depth), close.repeat(depth))
    }

    #[test]
    fn two_hundred_levels_are_read_and_one_more_is_refused() {
        let deep = |levels: usize| format!(r#"{{"k":{}}}"#, nested(levels - 1, "[", "", "]"));
        let context = parse(&deep(DEPTH_MAX)).unwrap();
        assert_eq!(serde_json::to_string(&context).unwrap(), deep(DEPTH_MAX));
        assert_eq!(merge(&Map::new(), &context, &context), context);
        assert!(parse(&deep(DEPTH_MAX + 1)).unwrap_err().message.contains("200"));
    }

    #[test]
    fn an_object_with_the_key_of_serde_jsons_numbers_stays_an_object() {
        let text = r#"{"a":{"$serde_json::private::Number":"1"}}"#;
        assert!(parse(text).unwrap()["a"].is_object());
        assert_eq!(serde_json::to_string(&parse(text).unwrap()).unwrap(), text);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        let wrong = [
            "",
            " ",
            "[]",
            "1",
            "{",
            "}",
            "{}x",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":01}"#,
            r#"{"a":1-2}"#,
            r#"{"a":"x}"#,
            r#"{"a":"\"}"#,
            r#"{"a":nul}"#,
            r#"{"a":NaN}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1 "b":2}"#,
        ];
        for text in wrong {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn white_space_is_skipped() {
        assert_eq!(
            parse(" { \"a\" :\t[ 1 , 2 ] , \"b\" : { } }\n").unwrap(),
            entries(json!({"a": [1, 2], "b": {}}))
        );
    }
}

mod merging {
    use super::*;

    fn merged(base: Value, left: Value, right: Value) -> Value {
        Value::Object(merge(&entries(base), &entries(left), &entries(right)))
    }

    #[test]
    fn a_change_wins_over_what_was_left_alone() {
        assert_eq!(merged(json!({"a": 1}), json!({"a": 2}), json!({"a": 1})), json!({"a": 2}));
        assert_eq!(merged(json!({"a": 1}), json!({"a": 1}), json!({"a": 2})), json!({"a": 2}));
    }

    #[test]
    fn the_later_of_two_changes_wins() {
        assert_eq!(merged(json!({"a": 1}), json!({"a": 2}), json!({"a": 3})), json!({"a": 3}));
        assert_eq!(merged(json!({}), json!({"a": [2]}), json!({"a": {"b": 3}})), json!({"a": {"b": 3}}));
    }

    #[test]
    fn a_deletion_is_a_change_but_loses_to_another() {
        assert_eq!(merged(json!({"a": 1}), json!({}), json!({"a": 1})), json!({}));
        assert_eq!(merged(json!({"a": 1}), json!({"a": 1}), json!({})), json!({}));
        assert_eq!(merged(json!({"a": 1}), json!({}), json!({"a": 2})), json!({"a": 2}));
        assert_eq!(merged(json!({"a": 1}), json!({"a": 2}), json!({})), json!({"a": 2}));
        assert_eq!(merged(json!({"a": 1}), json!({}), json!({})), json!({}));
    }

    #[test]
    fn null_is_a_value_and_no_deletion() {
        assert_eq!(merged(json!({"a": 1}), json!({"a": null}), json!({"a": 1})), json!({"a": null}));
    }

    #[test]
    fn objects_changed_in_both_merge_key_by_key() {
        let base = json!({"o": {"x": 1, "y": 1, "z": 1}});
        let left = json!({"o": {"x": 2, "y": 1, "z": 1}});
        let right = json!({"o": {"x": 1, "y": 3}});
        assert_eq!(merged(base, left, right), json!({"o": {"x": 2, "y": 3}}));
        assert_eq!(
            merged(json!({"o": 1}), json!({"o": {"a": 1}}), json!({"o": {"b": 2}})),
            json!({"o": {"a": 1, "b": 2}})
        );
    }

    #[test]
    fn arrays_changed_in_both_append_what_is_new() {
        let base = json!({"a": [1, 2]});
        assert_eq!(
            merged(base.clone(), json!({"a": [1, 2, 3]}), json!({"a": [1, 2, 4]})),
            json!({"a": [1, 2, 3, 4]})
        );
        assert_eq!(
            merged(base.clone(), json!({"a": [2, 3]}), json!({"a": [1, 2, 3]})),
            json!({"a": [2, 3]}),
            "left's deletion stands and what both appended comes once"
        );
        assert_eq!(
            merged(base, json!({"a": [1, 2, 3]}), json!({"a": [1, 5, 5]})),
            json!({"a": [1, 2, 3, 5, 5]}),
            "right's deletion doesn't, and what right has twice comes twice"
        );
    }

    #[test]
    fn keys_keep_the_order_of_base_then_left_then_right() {
        let result = merged(
            json!({"b": 0, "a": 0}),
            json!({"l": 1, "a": 0, "b": 0}),
            json!({"r": 1, "a": 0, "b": 2, "l": 2}),
        );
        assert_eq!(result.to_string(), r#"{"b":2,"a":0,"l":2,"r":1}"#);
    }

    #[test]
    fn long_arrays_take_no_quadratic_time() {
        let base: Vec<usize> = (0..100_000).collect();
        let left: Vec<usize> = (0..200_000).collect();
        let right: Vec<usize> = (0..100_000).chain(300_000..400_000).collect();
        let began = Instant::now();
        let result = merged(json!({"a": base}), json!({"a": left}), json!({"a": right}));
        assert_eq!(result["a"].as_array().unwrap().len(), 300_000);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}

mod joining {
    use super::*;

    /// Tasks with their dependencies and outputs; the initial context is `{}`.
    struct Flow {
        graph: Graph,
        outputs: Vec<Arc<str>>,
        ids: Vec<Arc<str>>,
    }

    impl Flow {
        fn new(tasks: &[(&str, &[&str], Value)]) -> Self {
            let ids: Vec<Arc<str>> = tasks.iter().map(|(id, ..)| Arc::from(*id)).collect();
            let befores = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
            let dependencies: Vec<Vec<Arc<str>>> = tasks.iter().map(|(_, names, _)| befores(names)).collect();
            let graph = Graph::check("w", &ids, &dependencies).unwrap();
            let outputs = tasks.iter().map(|(.., output)| output.to_string().into()).collect();
            Self { graph, outputs, ids }
        }

        fn joined(&self, of: &[&str]) -> String {
            let place = |id: &&str| self.ids.iter().position(|known| **known == **id).unwrap();
            let of: Vec<usize> = of.iter().map(place).collect();
            join(&self.graph, &|task| Arc::clone(&self.outputs[task]), &Arc::from("{}"), &of).to_string()
        }
    }

    #[test]
    fn of_none_is_the_initial_context_and_of_one_its_output() {
        let flow = Flow::new(&[("a", &[], json!({"a": 1}))]);
        assert_eq!(flow.joined(&[]), "{}");
        assert_eq!(flow.joined(&["a"]), r#"{"a":1}"#);
    }

    #[test]
    fn an_untouched_old_value_does_not_overwrite_a_changed_one() {
        let flow = Flow::new(&[
            ("root", &[], json!({"k": "old"})),
            ("changes", &["root"], json!({"k": "new"})),
            ("adds", &["root"], json!({"k": "old", "more": 1})),
        ]);
        assert_eq!(flow.joined(&["changes", "adds"]), r#"{"k":"new","more":1}"#);
        assert_eq!(flow.joined(&["adds", "changes"]), r#"{"k":"new","more":1}"#);
    }

    #[test]
    fn branches_without_a_common_task_parted_at_the_initial_context() {
        let flow = Flow::new(&[("a", &[], json!({"a": 1})), ("b", &[], json!({"b": 1}))]);
        assert_eq!(flow.joined(&["a", "b"]), r#"{"a":1,"b":1}"#);
    }

    #[test]
    fn a_task_joined_with_its_own_ancestor_adds_nothing_old() {
        let flow = Flow::new(&[("a", &[], json!({"k": 1, "x": 1})), ("b", &["a"], json!({"k": 2}))]);
        assert_eq!(flow.joined(&["a", "b"]), r#"{"k":2}"#);
        assert_eq!(flow.joined(&["b", "a"]), r#"{"k":2}"#);
    }

    #[test]
    fn branches_that_part_later_than_a_third_are_compared_with_where_they_parted() {
        // What `middle` set and `b` changed must not come back from `c`, although `a` knows nothing of `middle`.
        let flow = Flow::new(&[
            ("root", &[], json!({"k": 0})),
            ("middle", &["root"], json!({"k": 1})),
            ("a", &["root"], json!({"k": 0, "a": 1})),
            ("b", &["middle"], json!({"k": 2})),
            ("c", &["middle"], json!({"k": 1, "c": 1})),
        ]);
        assert_eq!(flow.joined(&["a", "b", "c"]), r#"{"k":2,"a":1,"c":1}"#);
    }

    #[test]
    fn crossing_branches_are_compared_with_the_join_of_what_they_share() {
        let flow = Flow::new(&[
            ("a", &[], json!({"x": 1, "list": ["a"]})),
            ("b", &[], json!({"y": 1, "list": ["b"]})),
            ("c", &["a", "b"], json!({"x": 2, "y": 1, "list": ["a", "b", "c"]})),
            ("d", &["a", "b"], json!({"x": 1, "y": 1, "list": ["a", "b", "d"]})),
        ]);
        let joined = parse(&flow.joined(&["c", "d"])).unwrap();
        assert_eq!(joined, entries(json!({"x": 2, "y": 1, "list": ["a", "b", "c", "d"]})));
    }

    #[test]
    fn a_fan_in_of_two_hundred_branches_keeps_every_change_and_is_quick() {
        let ids: Vec<String> = (0..200).map(|branch| format!("b{branch}")).collect();
        let mut tasks: Vec<(&str, &[&str], Value)> = vec![("root", &[], json!({"shared": 0}))];
        for id in &ids {
            tasks.push((id, &["root"], json!({"shared": 0, id: 1})));
        }
        let flow = Flow::new(&tasks);
        let of: Vec<&str> = ids.iter().map(String::as_str).collect();
        let began = Instant::now();
        let joined = parse(&flow.joined(&of)).unwrap();
        assert_eq!(joined.len(), 201);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }

    /// `layers` layers of `width` tasks, each of which depends on all or half of the layer above.
    fn lattice(layers: usize, width: usize, dense: bool) -> (Graph, Vec<Arc<str>>) {
        let id = |layer: usize, column: usize| Arc::<str>::from(format!("{layer}/{column}"));
        let (mut ids, mut dependencies, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for layer in 0..layers {
            for column in 0..width {
                let above = (0..width).filter(|other| dense || (other * 7 + column * 3 + layer) % 4 < 2);
                ids.push(id(layer, column));
                dependencies.push(match layer {
                    0 => Vec::new(),
                    _ => above.map(|other| id(layer - 1, other)).collect(),
                });
                outputs.push(json!({"layer": layer, format!("c{column}"): layer}).to_string().into());
            }
        }
        (Graph::check("w", &ids, &dependencies).unwrap(), outputs)
    }

    #[test]
    fn wide_and_deep_crossings_end_soon_and_always_alike() {
        for (layers, width, dense) in [(2_000, 2, true), (30, 12, true), (30, 12, false), (12, 30, false)] {
            let (graph, outputs) = lattice(layers, width, dense);
            let began = Instant::now();
            let once = || join(&graph, &|task| Arc::clone(&outputs[task]), &Arc::from("{}"), graph.leaves());
            assert_eq!(once(), once());
            assert!(began.elapsed() < Duration::from_secs(20), "{layers} {width}: {:?}", began.elapsed());
        }
    }
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-3_i64..4).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "-?[1-9][0-9]{18,60}".prop_map(|text| Value::Number(text.parse().unwrap())),
        prop_oneof![Just(0.0), Just(-0.0), Just(1.0), Just(1e300)].prop_map(Value::from),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        "[a-c1]{0,2}".prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-c]{0,1}|\\PC{0,3}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn context() -> impl Strategy<Value = Entries> {
    prop::collection::vec(("[a-d]", value()), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

/// Values so small that two of them are often equal, or nearly.
fn small() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(false)),
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(0.0)),
        Just(json!(-0.0)),
        Just(json!(1.0)),
        Just(json!("")),
        Just(json!("1")),
    ];
    leaf.prop_recursive(2, 5, 2, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[ab]", inner), 0..3)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// What the canonical form must tell apart, told without it.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (is_integer(left), is_integer(right)) {
            (true, true) => left == right,
            (false, false) => left.as_f64() == right.as_f64(),
            _ => false,
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let there =
                |(key, value): (&String, &Value)| right.get(key).is_some_and(|other| same(value, other));
            left.len() == right.len() && left.iter().all(there)
        }
        _ => left == right,
    }
}

fn shuffled(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(shuffled).collect(),
        Value::Object(entries) => {
            Value::Object(entries.iter().rev().map(|(key, value)| (key.clone(), shuffled(value))).collect())
        }
        other => other.clone(),
    }
}

fn wrapped(value: &Value) -> Entries {
    Map::from_iter([("v".to_owned(), value.clone())])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_side_that_changed_alone_wins(base in context(), other in context()) {
        prop_assert_eq!(&merge(&base, &base, &other), &other);
        prop_assert_eq!(&merge(&base, &other, &base), &other);
    }

    #[test]
    fn equal_sides_merge_to_themselves(base in context(), side in context()) {
        prop_assert_eq!(&merge(&base, &side, &side), &side);
    }

    #[test]
    fn a_merge_holds_every_key_that_is_in_both_and_invents_none(
        base in context(), left in context(), right in context()
    ) {
        let merged = merge(&base, &left, &right);
        prop_assert!(left.keys().filter(|key| right.contains_key(*key)).all(|key| merged.contains_key(key)));
        prop_assert!(merged.keys().all(|key| left.contains_key(key) || right.contains_key(key)));
    }

    #[test]
    fn different_small_values_have_different_bytes_and_equal_ones_equal(left in small(), right in small()) {
        let (one, other) = (canonical("t", &wrapped(&left)), canonical("t", &wrapped(&right)));
        prop_assert_eq!(same(&left, &right), one.bytes() == other.bytes());
        prop_assert_eq!(one.bytes() == other.bytes(), one.hash() == other.hash());
        prop_assert_eq!(hash_json("t", &wrapped(&left)), one.hash());
    }

    #[test]
    fn different_values_have_different_bytes_and_equal_ones_equal(left in value(), right in value()) {
        let (one, other) = (canonical("t", &wrapped(&left)), canonical("t", &wrapped(&right)));
        prop_assert_eq!(same(&left, &right), one.bytes() == other.bytes());
        prop_assert_eq!(one.bytes() == other.bytes(), one.hash() == other.hash());
    }

    #[test]
    fn triggers_do_not_share_hashes(left in "[a{]{0,3}", right in "[a{]{0,3}", context in context()) {
        prop_assert_eq!(left == right, hash_json(&left, &context) == hash_json(&right, &context));
    }

    #[test]
    fn the_order_of_keys_does_not_matter(value in value()) {
        prop_assert_eq!(hash_json("t", &wrapped(&value)), hash_json("t", &wrapped(&shuffled(&value))));
    }

    #[test]
    fn decimal_text_and_i64_agree(value in any::<i64>(), zeros in 0_usize..4) {
        let (mut number, mut text) = (Canon::new(), Canon::new());
        number.int_i64(value);
        let sign = if value < 0 { "-" } else { "" };
        text.int_decimal(&format!("{sign}{}{}", "0".repeat(zeros), value.unsigned_abs()));
        prop_assert_eq!(number.bytes(), text.bytes());
    }

    #[test]
    fn text_and_back_changes_no_hash(context in context()) {
        let text = serde_json::to_string(&context).unwrap();
        let back = parse(&text).unwrap();
        prop_assert_eq!(&back, &serde_json::from_str::<Entries>(&text).unwrap());
        prop_assert_eq!(&back, &context);
        prop_assert_eq!(hash_json("t", &back), hash_json("t", &context));
        prop_assert_eq!(hash_json("t", &context), canonical("t", &context).hash());
    }

    #[test]
    fn parsing_agrees_with_serde_json_on_any_text(text in "[{}\\[\\]\",:0-9a\\\\ .e-]{0,12}") {
        let text = format!("{{\"a\":{text}}}");
        prop_assert_eq!(parse(&text).ok(), serde_json::from_str::<Entries>(&text).ok(), "{}", text);
    }
}
