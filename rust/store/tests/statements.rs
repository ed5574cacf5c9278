//! What a poll costs a server: while its fires are judged nobody else writes, so that must not take longer with each of them.

#[path = "support/postgres.rs"]
mod server;
#[path = "support/records.rs"]
mod support;
#[path = "support/way.rs"]
mod way;

use std::sync::Arc;

use cloaca_core::limit::{Concurrency, Key, Limits, Overflow, Paced, Rate};
use cloaca_core::port::{Admitted, NewRun, RunStatus, Schedule};
use cloaca_core::time::Wall;
use server::Database;
use support::*;
use way::Way;

/// Enough that a statement a fire would show.
const MANY: u128 = 300;
/// As many as two fires take, and nothing for each further one.
const STATEMENTS_MAX: usize = 16;
/// The same where limits count each of them.
const LIMITED_MAX: usize = 28;

fn event(trigger: &Schedule, number: u128, event: u128) -> NewRun {
    let mut hash = [0; 16];
    hash.copy_from_slice(&event.to_be_bytes());
    NewRun { context_hash: Some(hash), ..unique(trigger, number, 0) }
}

#[test]
fn fires_of_one_poll_take_no_more_statements_the_more_they_are() {
    let Some(database) = Database::new() else { return };
    let way = Way::to(database.socket());
    let store = cloaca_store::open(database.url_by(way.port()), None).unwrap().store;
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(&*store, epoch, "inbox");
    let before = store.ends().unwrap();
    let poll = |first: u128, with: fn(NewRun, u128, i64) -> NewRun| {
        let fires = (0..MANY).map(|place| with(event(&trigger, first + place, place), place, before));
        way.statements_max();
        let fates = fire(&*store, &trigger, epoch, fires.collect());
        assert_eq!(fates.len() as u128, MANY);
        let statements = way.statements_max();
        assert!(statements <= STATEMENTS_MAX, "{statements} statements: {:?} and others", fates[0]);
        fates
    };
    let started = poll(1_000, |new, _, ends| NewRun { ends: Some(ends), ..new });
    let rows: Vec<_> = started.iter().filter_map(Admitted::row).collect();
    assert_eq!(rows.len() as u128, MANY);
    let fates = poll(2_000, |new, _, ends| NewRun { ends: Some(ends), ..new });
    for (fate, number) in fates.iter().zip(1_000..) {
        assert_eq!(*fate, Admitted::DuplicateHash { of: id(number) });
    }
    let ends: Vec<_> = rows.iter().map(|row| ended(*row, epoch, RunStatus::Completed)).collect();
    store.commit(&ends).unwrap();
    let fates = poll(3_000, |new, _, ends| NewRun { ends: Some(ends), ..new });
    for (fate, number) in fates.iter().zip(1_000..) {
        assert!(matches!(fate, Admitted::Ended { of, .. } if *of == id(number)), "{fate:?}");
    }
    let keyed = |new, place, _| NewRun { run_key: Some((format!("key {place}"), None)), ..new };
    assert!(poll(4_000, keyed).iter().all(Admitted::is_kept));
    let fates = poll(5_000, keyed);
    for (fate, number) in fates.iter().zip(4_000..) {
        assert_eq!(*fate, Admitted::DuplicateKey { of: Some(id(number)) });
    }
    let in_a_row = |new: NewRun, place: u128, _| NewRun {
        cursor: Some(place.to_string()),
        unique_hash: false,
        context_hash: None,
        ..new
    };
    assert!(poll(6_000, in_a_row).iter().all(Admitted::is_kept));
    store.close();
}

#[test]
fn fires_that_limits_count_take_no_more_statements_the_more_they_are() {
    let Some(database) = Database::new() else { return };
    let way = Way::to(database.socket());
    let store = cloaca_store::open(database.url_by(way.port()), None).unwrap().store;
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(&*store, epoch, "inbox");
    let limit = |key: Option<&str>| Concurrency {
        limit: 3,
        key: key.map(|key| Key::parse(key).unwrap()),
        overflow: Overflow::Wait,
    };
    let one = Limits { concurrency: Some(limit(None)), ..Limits::default() };
    let rate = Rate { limit: 1, per: std::time::Duration::from_secs(1), burst: 1 };
    let each = Limits {
        concurrency: Some(limit(Some("tenant"))),
        throttle: Some(Paced { rate, key: Some(Key::parse("tenant").unwrap()) }),
        ..Limits::default()
    };
    let polls = [("mail", one, false), ("post", each.clone(), false), ("line", each, true)];
    for (first, (workflow, limits, waits)) in (1_000..).step_by(1_000).zip(polls) {
        let limits = Arc::new(limits);
        let fires = (0..MANY).map(|place| NewRun {
            workflow: workflow.into(),
            limits: Some(Arc::clone(&limits)),
            context: format!("{{\"tenant\":{place}}}").into(),
            waits,
            ..event(&trigger, first + place, first + place)
        });
        way.statements_max();
        let fates = fire(&*store, &trigger, epoch, fires.collect());
        let statements = way.statements_max();
        assert!(fates.iter().all(|fate| matches!(fate, Admitted::Held { .. })), "{fates:?}");
        assert!(statements <= LIMITED_MAX, "{workflow}: {statements} statements");
    }
    store.close();
}
