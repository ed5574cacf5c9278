//! A workflow's edges as they are kept beside its runs, for who has not got the program. Invariant: what a later release has written in another form
//! says nothing, and breaks nothing.

use std::collections::BTreeSet;

use serde_json::Value;

/// Of the tasks that completed, those that come after one that neither did nor was skipped, directly or not: what they were given is not what they would
/// be given. One that was skipped after such as stay is skipped once more.
/// `text` is a JSON array of tasks, each an array that begins with its id and the ids of those that it waits for, which stand before it.
pub fn undone(text: &str, completed: &BTreeSet<&str>, skipped: &BTreeSet<&str>) -> Vec<String> {
    let tasks: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let mut open: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    for task in &tasks {
        let Some(id) = task.get(0).and_then(Value::as_str) else { continue };
        let Some(befores) = task.get(1).and_then(Value::as_array) else { continue };
        let is_behind = befores.iter().filter_map(Value::as_str).any(|before| open.contains(before));
        let has_completed = completed.contains(id);
        if is_behind && has_completed {
            found.push(id.to_owned());
        }
        if is_behind || !has_completed && !skipped.contains(id) {
            open.insert(id);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::undone;

    fn of(text: &str, completed: &[&str]) -> Vec<String> {
        undone(text, &completed.iter().copied().collect(), &BTreeSet::new())
    }

    #[test]
    fn what_comes_after_what_did_not_complete_is_undone() {
        let text = r#"[["a",[],null],["b",["a"],null],["c",["b"],null],["d",[],null],["e",["c","d"],null],["f",["d"]]]"#;
        assert_eq!(of(text, &["c", "d", "e", "f"]), ["c", "e"]);
        assert_eq!(of(text, &["a", "c", "d"]), ["c"]);
        assert_eq!(of(text, &["a", "b", "d", "f"]), [""; 0]);
        assert_eq!(of(text, &["elsewhere"]), [""; 0]);
    }

    #[test]
    fn what_comes_after_what_was_skipped_stays_unless_that_is_decided_anew() {
        let text = r#"[["a",[],null],["cool",["a"],null],["heat",["a"],null],["pay",["cool","heat"],null],["mail",["pay"],null]]"#;
        let skipped = BTreeSet::from(["heat"]);
        assert_eq!(undone(text, &BTreeSet::from(["a", "cool", "pay"]), &skipped), [""; 0]);
        assert_eq!(undone(text, &BTreeSet::from(["cool", "pay", "mail"]), &skipped), ["cool", "pay", "mail"]);
    }

    #[test]
    fn what_is_in_no_form_that_is_known_undoes_nothing() {
        for text in ["", "{}", "tasks of v1", "[1,[2],[\"a\"],[\"a\",1],[\"a\",[1]]]", "null"] {
            assert_eq!(of(text, &["a"]), [""; 0], "{text}");
        }
    }
}
