//! Claims on what the tasks of one run are given: joined once for all that depend on the same, never quickly where that takes long, and
//! on any stack.

use std::sync::Arc;
use std::thread;

use cloaca_core::context::{Bounds, LIGHT_BYTES_MAX, Relay, hash_json, hash_text, join, parse};
use cloaca_core::graph::Graph;
use cloaca_core::policy::RetryPolicy;
use cloaca_core::urgency::Priority;
use cloaca_core::workflow::{Executor, OnInterrupt, Task, Workflow};
use serde_json::{Value, json};

/// A workflow of these tasks with their dependencies.
fn workflow(tasks: &[(String, Vec<String>)]) -> Arc<Workflow> {
    let ids: Vec<Arc<str>> = tasks.iter().map(|(id, _)| id.as_str().into()).collect();
    let dependencies: Vec<Vec<Arc<str>>> =
        tasks.iter().map(|(_, names)| names.iter().map(|name| name.as_str().into()).collect()).collect();
    let graph = Graph::check("w", &ids, &dependencies).unwrap();
    let tasks = ids.iter().zip(dependencies).map(|(id, dependencies)| Task {
        id: Arc::clone(id),
        dependencies,
        retry: RetryPolicy::default(),
        on_interrupt: OnInterrupt::Retry,
        limits: Vec::new(),
        timeout: None,
        rule: None,
        body: 0,
        executor: Executor::THREADS,
        has_failure_callback: false,
    });
    Arc::new(Workflow {
        name: "w".into(),
        version: "1".into(),
        tasks: tasks.collect(),
        graph,
        priority: Priority::default(),
        timeout: None,
        limits: None,
        graph_text: "".into(),
        tells: cloaca_core::port::Outcomes::default(),
        tie: None,
    })
}

fn diamond() -> Arc<Workflow> {
    let task = |id: &str, names: &[&str]| (id.to_owned(), names.iter().map(ToString::to_string).collect());
    workflow(&[task("a", &[]), task("b", &["a"]), task("c", &["a"]), task("d", &["b", "c"])])
}

/// `layers` layers of `width` tasks, each of which depends on the whole layer above.
fn lattice(layers: usize, width: usize) -> Arc<Workflow> {
    let id = |layer: usize, column: usize| format!("{layer}/{column}");
    let above = |layer: usize| match layer {
        0 => Vec::new(),
        _ => (0..width).map(|column| id(layer - 1, column)).collect(),
    };
    let tasks: Vec<(String, Vec<String>)> = (0..layers)
        .flat_map(|layer| (0..width).map(move |column| (id(layer, column), above(layer))))
        .collect();
    workflow(&tasks)
}

fn with(context: &str, key: &str, value: Value) -> Arc<str> {
    let mut entries = parse(context).unwrap();
    entries.insert(key.to_owned(), value);
    serde_json::to_string(&entries).unwrap().into()
}

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({}), |inside, _| json!({"k": inside}))
}

#[test]
fn the_tasks_of_a_layer_are_given_one_context_that_is_joined_once() {
    let (layers, width) = (30, 30);
    let workflow = lattice(layers, width);
    let relay = Relay::new(Arc::clone(&workflow), "{}".into(), Bounds::default());
    for layer in 0..layers {
        let first = relay.given(layer * width);
        for task in layer * width..(layer + 1) * width {
            assert!(Arc::ptr_eq(&relay.given(task), &first), "task {task}");
            relay.leave(task, Some(with(&first, &workflow.tasks[task].id, json!(layer))));
        }
    }
    assert_eq!(parse(&relay.last().unwrap()).unwrap().len(), layers * width);
}

#[test]
fn what_is_remembered_is_what_a_join_of_its_own_comes_to() {
    let workflow = lattice(4, 3);
    let relay = Relay::new(Arc::clone(&workflow), "{\"list\":[]}".into(), Bounds::default());
    let mut left: Vec<Arc<str>> = Vec::new();
    let initial: Arc<str> = "{\"list\":[]}".into();
    for task in 0..12 {
        let given = relay.given(task);
        let dependencies = workflow.graph.dependencies(task);
        assert_eq!(given, join(&workflow.graph, &|of| Arc::clone(&left[of]), &initial, dependencies));
        let output = with(&with(&given, "list", json!([task])), &format!("k{}", task % 4), json!(task));
        left.push(Arc::clone(&output));
        relay.leave(task, Some(output));
    }
}

#[test]
fn what_branches_left_as_it_was_is_the_same_text_and_never_read() {
    let relay = Relay::new(diamond(), "this is no JSON".into(), Bounds::default());
    let text: Arc<str> = "x".repeat(10 * LIGHT_BYTES_MAX).into();
    for task in 0..3 {
        relay.leave(task, Some(Arc::clone(&text)));
    }
    let given = relay.given_at_once(3).expect("nothing is to be read");
    assert!(Arc::ptr_eq(&given, &text));
}

#[test]
fn what_takes_long_is_not_done_at_once() {
    let relay = Relay::new(diamond(), "{}".into(), Bounds::default());
    let long = "x".repeat(LIGHT_BYTES_MAX);
    relay.leave(0, Some("{}".into()));
    relay.leave(1, Some(with("{}", "b", json!(long))));
    relay.leave(2, Some(with("{}", "c", json!(long))));
    assert_eq!(relay.given_at_once(3), None);
    let given = relay.given(3);
    assert_eq!(parse(&given).unwrap().len(), 2);
    assert!(Arc::ptr_eq(&relay.given_at_once(3).expect("it is known now"), &given));
}

#[test]
fn small_contexts_are_joined_at_once() {
    let relay = Relay::new(diamond(), "{}".into(), Bounds::default());
    relay.leave(0, Some("{}".into()));
    relay.leave(1, Some("{\"b\":1}".into()));
    relay.leave(2, Some("{\"c\":2}".into()));
    assert_eq!(relay.given_at_once(3).as_deref(), Some("{\"b\":1,\"c\":2}"));
}

#[test]
fn a_task_that_passed_on_what_it_was_given_left_the_join_of_what_came_before() {
    let task = |id: &str, names: &[&str]| (id.to_owned(), names.iter().map(ToString::to_string).collect());
    let workflow = workflow(&[
        task("a", &[]),
        task("b", &[]),
        task("skipped", &["a", "b"]),
        task("again", &["skipped"]),
        task("c", &["again", "a"]),
        task("d", &["again", "c"]),
    ]);
    for at_once in [false, true] {
        let relay = Relay::new(Arc::clone(&workflow), "{\"i\":0}".into(), Bounds::default());
        relay.leave(0, Some("{\"i\":0,\"a\":1}".into()));
        relay.leave(1, Some("{\"i\":0,\"b\":1}".into()));
        relay.leave(2, None);
        relay.leave(3, None);
        let given = |task| if at_once { relay.given_at_once(task).unwrap() } else { relay.given(task) };
        assert_eq!(&*given(4), "{\"i\":0,\"a\":1,\"b\":1}");
        relay.leave(4, Some("{\"i\":0,\"a\":2,\"b\":1}".into()));
        assert_eq!(&*given(5), "{\"i\":0,\"a\":2,\"b\":1}");
    }
}

#[test]
fn a_chain_of_skips_may_be_as_long_as_the_workflow() {
    let before = |task: usize| if task == 0 { Vec::new() } else { vec![format!("t{}", task - 1)] };
    let tasks: Vec<(String, Vec<String>)> =
        (0..20_000).map(|task| (format!("t{task}"), before(task))).collect();
    let relay = Relay::new(workflow(&tasks), "{\"i\":0}".into(), Bounds::default());
    (0..20_000).for_each(|task| relay.leave(task, None));
    assert_eq!(&*relay.last_at_once().unwrap().unwrap(), "{\"i\":0}");
}

#[test]
fn threads_that_ask_at_once_are_given_one_context() {
    let relay = Relay::new(diamond(), "{}".into(), Bounds::default());
    let long = "x".repeat(1_000_000);
    relay.leave(0, Some("{}".into()));
    relay.leave(1, Some(with("{}", "b", json!(long))));
    relay.leave(2, Some(with("{}", "c", json!(long))));
    let given: Vec<Arc<str>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| relay.given(3))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(given.iter().all(|text| Arc::ptr_eq(text, &given[0])));
}

#[test]
fn the_deepest_contexts_are_joined_and_hashed_on_a_small_stack() {
    let deep = |key: &str| -> Arc<str> { with("{}", key, nested(199)) };
    // Built where there is room, worked on where there is none.
    let texts: Vec<Arc<str>> = ["i", "b", "c"].map(deep).to_vec();
    let work = move || {
        let relay = Relay::new(diamond(), Arc::clone(&texts[0]), Bounds::default());
        (0..3).for_each(|task| relay.leave(task, Some(Arc::clone(&texts[task]))));
        (relay.given_at_once(3), relay.given(3), hash_text("t", &relay.given(3)).unwrap())
    };
    let (at_once, given, hash) = small_stack(work);
    assert_eq!(at_once, None);
    assert_eq!(parse(&given).unwrap().keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(hash, hash_json("t", &parse(&given).unwrap()));
}

/// Runs `work` on the smallest stack that Python gives a thread, or the system does.
fn small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::Builder::new().stack_size(32 * 1024).spawn(work).unwrap().join().unwrap()
}
