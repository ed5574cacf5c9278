//! A trigger that another owner polls is asked for again once that owner is gone, however late the store's answer comes.

use std::time::Duration;

use cloaca_core::admit::Overlap;
use cloaca_core::engine::{Declared, Effects, Engine, Event, Settings, Then};
use cloaca_core::port::{Change, Receipt, TriggerRow, TriggerState};
use cloaca_core::time::{Mono, Now, Wall};

const MINE: i64 = 2;
const DEAD: i64 = 1;
const NOW: Now = Now { mono: Mono(0), wall: Wall(0) };

fn engine() -> Engine {
    let hour = Duration::from_secs(3600);
    let settings =
        Settings { task_timeout: hour, workflow_timeout: hour, crons_enabled: false, catchup_max: 1 };
    Engine::new(MINE, settings, 1)
}

fn step(engine: &mut Engine, event: Event) -> Effects {
    let mut effects = Effects::default();
    engine.step(event, NOW, &mut effects);
    effects
}

fn declaration() -> Event {
    let row = TriggerRow {
        name: "inbox".into(),
        workflow: "mail".into(),
        interval_us: 1000,
        allow_concurrent: false,
    };
    Event::Triggers(vec![(0, Declared { row, overlap: Overlap::Allow })])
}

fn held_by(owner: i64) -> Receipt {
    Receipt::Declared(TriggerState {
        row: 7,
        enabled: true,
        cursor: None,
        last_fired_at: None,
        owner: Some(owner),
    })
}

/// The one declaration among what an engine sends to the store.
fn asked(effects: &mut Effects) -> Then {
    let (change, then) = effects.commits.pop().expect("it asks for the trigger");
    assert!(matches!(change, Change::Declare { epoch: MINE, .. }) && effects.commits.is_empty());
    then
}

#[test]
fn an_answer_from_before_the_owner_was_buried_is_asked_for_again() {
    let mut engine = engine();
    let then = asked(&mut step(&mut engine, declaration()));
    // The store has answered, but the engine hears of the burial first.
    assert!(step(&mut engine, Event::Vacancy).commits.is_empty());
    let again = asked(&mut step(&mut engine, Event::Committed(then, held_by(DEAD))));
    let effects = step(&mut engine, Event::Committed(again, held_by(MINE)));
    let armed: Vec<bool> = effects.rearm.iter().map(|rearm| rearm.elsewhere).collect();
    assert_eq!((armed, engine.has_parked()), (vec![false], false));
}

#[test]
fn a_trigger_of_a_living_owner_is_left_to_it() {
    let mut engine = engine();
    step(&mut engine, Event::Vacancy);
    let then = asked(&mut step(&mut engine, declaration()));
    assert!(step(&mut engine, Event::Committed(then, held_by(DEAD))).commits.is_empty());
    assert!(engine.has_parked());
    asked(&mut step(&mut engine, Event::Vacancy));
}
