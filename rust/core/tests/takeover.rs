//! A trigger that another owner polls is asked for again once that owner is gone, however late the store's answer comes; and its
//! overlap policy holds beside runs that yet another owner took over.

mod harness;

use std::sync::Arc;

use cloaca_core::admit::Overlap;
use cloaca_core::engine::{Declared, Effects, Engine, Event, Fire, Polled, Request, Then};
use cloaca_core::graph::Graph;
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::policy::RetryPolicy;
use cloaca_core::port::{
    Admitted, Change, Receipt, RunStatus, TickChange, TriggerRow, TriggerState, Unfinished,
};
use cloaca_core::run::{Ended, Ruling};
use cloaca_core::time::{Mono, Now, Wall};
use cloaca_core::urgency::{Priority, Urgency};
use cloaca_core::workflow::{Task, Workflow};
use uuid::Uuid;

use crate::harness::declared_mail;

const MINE: Epoch = Epoch(2);
const DEAD: Epoch = Epoch(1);
const NOW: Now = Now { mono: Mono(0), wall: Wall(0) };

fn engine() -> Engine {
    harness::engine(MINE, false)
}

fn step(engine: &mut Engine, event: Event) -> Effects {
    harness::step(engine, event, NOW)
}

fn declaration() -> Event {
    declaration_with(Overlap::Allow)
}

fn declaration_with(overlap: Overlap) -> Event {
    let row = TriggerRow {
        name: "inbox".into(),
        workflow: "mail".into(),
        interval_us: 1000,
        allow_concurrent: false,
        on_run: None,
        digest: 1,
        origin_at: Wall(0),
    };
    Event::Triggers(vec![(0, Declared { row, overlap })])
}

fn held_by(owner: Epoch) -> Receipt {
    Receipt::Declared(TriggerState {
        row: ScheduleKey(7),
        enabled: true,
        cursor: None,
        cursor_set: 0,
        failures: 0,
        last_fired_at: None,
        owner: Some(owner),
        unfinished: Vec::new(),
        grid: None,
        asked: None,
        has_died: false,
        is_outdated: false,
        is_awaited: false,
    })
}

/// A run that another owner took over.
const THEIRS: Uuid = Uuid::from_u128(5);

/// An engine that polls the trigger and has been told of that run.
fn beside_theirs(overlap: Overlap) -> Engine {
    let mut engine = engine();
    step(&mut engine, declared_mail());
    step(&mut engine, Event::Vacancy);
    let then = asked(&mut step(&mut engine, declaration_with(overlap)));
    let Receipt::Declared(state) = held_by(MINE) else { unreachable!("it says so") };
    step(
        &mut engine,
        Event::Committed(then, Receipt::Declared(TriggerState { unfinished: vec![THEIRS], ..state })),
    );
    engine
}

/// The tick that a poll with one fire sends to the store.
fn fired(engine: &mut Engine, item: u8) -> (TickChange, Then) {
    let fire = Fire {
        trace: None,
        context: "{}".into(),
        hash: [item; 16],
        run_key: None,
        cursor: None,
        urgency: Urgency::default(),
        parent: None,
    };
    let polled = Polled {
        place: 0,
        schedule: ScheduleKey(7),
        at: Wall(0),
        cursor_set: 0,
        ends: 0,
        duration_us: 1,
        fires: vec![fire],
        cursor: None,
        reason: Ok(String::new()),
        history: Vec::new(),
        disable: None,
        wait: None,
        failures: 0,
        told: None,
        holds: None,
    };
    let (change, then) = step(engine, Event::Polled(polled)).commits.remove(0);
    let Change::Tick(tick) = change else { panic!("{change:?} is not a tick") };
    (tick, then)
}

fn kept(engine: &mut Engine, then: Then, row: RunRow) -> Effects {
    step(
        engine,
        Event::Committed(
            then,
            Receipt::Tick { fates: vec![Admitted::Started { row }], cursor: None, opened: Vec::new() },
        ),
    )
}

fn begun(effects: &Effects) -> Vec<Uuid> {
    effects.jobs.iter().map(|ready| ready.job.run).collect()
}

fn has_begun(effects: &Effects) -> bool {
    !effects.jobs.is_empty()
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

#[test]
fn what_was_to_be_let_go_of_before_it_was_known_to_be_anothers_is_polled_once_it_is_ours() {
    let mut engine = engine();
    step(&mut engine, Event::Vacancy);
    let then = asked(&mut step(&mut engine, declaration()));
    // Somebody declares a newer version, and the answer is still on its way.
    let gives_way = step(&mut engine, Event::GiveWay(vec!["inbox".into()]));
    assert!(gives_way.rearm[0].gives_way);
    step(&mut engine, Event::Committed(then, held_by(DEAD)));
    assert!(
        step(&mut engine, Event::Vacated(vec![(0, false)])).commits.is_empty(),
        "there is nothing to let go of"
    );
    let again = asked(&mut step(&mut engine, Event::Vacancy));
    let effects = step(&mut engine, Event::Committed(again, held_by(MINE)));
    let armed: Vec<bool> = effects.rearm.iter().map(|rearm| rearm.elsewhere).collect();
    assert_eq!((armed, engine.has_parked()), (vec![false], false));
}

#[test]
fn a_fire_is_dropped_while_another_owner_drives_a_run_of_its_trigger() {
    let mut engine = beside_theirs(Overlap::Skip);
    let (tick, then) = fired(&mut engine, 1);
    assert_eq!(tick.fires, []);
    assert_eq!(&*tick.history[0].reason, format!("overlap: run {THEIRS} is unfinished"));
    step(
        &mut engine,
        Event::Committed(then, Receipt::Tick { fates: Vec::new(), cursor: None, opened: Vec::new() }),
    );
    step(&mut engine, Event::OthersEnded(vec![THEIRS]));
    assert_eq!(fired(&mut engine, 1).0.fires.len(), 1);
}

#[test]
fn a_fire_waits_for_the_run_that_another_owner_drives() {
    let mut engine = beside_theirs(Overlap::Queue);
    let (tick, then) = fired(&mut engine, 1);
    assert!(tick.fires[0].waits && !has_begun(&kept(&mut engine, then, RunRow(1))));
    assert_eq!(engine.others_after(Uuid::nil(), 10), [THEIRS]);
    assert!(has_begun(&step(&mut engine, Event::OthersEnded(vec![THEIRS]))));
    assert!(engine.others_after(Uuid::nil(), 10).is_empty());
}

#[test]
fn a_fire_that_cancels_asks_the_owner_of_the_run_before_it() {
    let mut engine = beside_theirs(Overlap::CancelRunning);
    let then = fired(&mut engine, 1).1;
    let effects = kept(&mut engine, then, RunRow(1));
    assert_eq!((effects.cancels.as_slice(), has_begun(&effects)), ([THEIRS].as_slice(), false));
    assert!(has_begun(&step(&mut engine, Event::OthersEnded(vec![THEIRS]))));
}

/// A run of a line that this owner took over.
fn claimed(number: u128, schedule: ScheduleKey, behind: Vec<Uuid>) -> Unfinished {
    Unfinished {
        trace: None,
        row: RunRow(number as i64),
        id: Uuid::from_u128(number),
        workflow: "mail".to_owned(),
        version: "1".to_owned(),
        context: "{}".to_owned(),
        schedule: Some(schedule),
        context_hash: None,
        waits: true,
        is_again: false,
        created_at: Wall(0),
        interruptions: 0,
        priority: Priority::default(),
        due_at: None,
        owner_before: None,
        cancelled: false,
        is_mixed: false,
        spent: None,
        is_child: false,
        is_limited: false,
        is_held: false,
        tasks: Vec::new(),
        behind,
    }
}

#[test]
fn a_run_that_was_claimed_before_the_line_was_told_keeps_its_place() {
    let mut engine = engine();
    step(&mut engine, declared_mail());
    step(&mut engine, Event::Vacancy);
    let then = asked(&mut step(&mut engine, declaration_with(Overlap::Queue)));
    let Receipt::Declared(state) = held_by(MINE) else { unreachable!("it says so") };
    // The store has handed over the first of the line; of that the engine hears later than of the line.
    let others = vec![Uuid::from_u128(1), Uuid::from_u128(2)];
    step(
        &mut engine,
        Event::Committed(then, Receipt::Declared(TriggerState { unfinished: others, ..state })),
    );
    assert!(
        !has_begun(&step(&mut engine, Event::Claimed(vec![claimed(2, ScheduleKey(7), vec![])]))),
        "it is the second"
    );
    assert!(has_begun(&step(&mut engine, Event::Claimed(vec![claimed(1, ScheduleKey(7), vec![])]))));
}

#[test]
fn a_run_that_is_opened_again_stands_behind_what_was_unfinished_and_before_what_is_fired_later() {
    let mut engine = beside_theirs(Overlap::Queue);
    let (tick, then) = fired(&mut engine, 1);
    let again = |number, behind| Unfinished { is_again: true, ..claimed(number, ScheduleKey(7), behind) };
    // It was opened before the fire was kept, and is heard of before that is.
    assert!(!has_begun(&step(&mut engine, Event::Claimed(vec![again(9, vec![THEIRS])]))));
    assert!(!has_begun(&kept(&mut engine, then, RunRow(6))));
    let effects = step(&mut engine, Event::OthersEnded(vec![THEIRS]));
    assert_eq!(begun(&effects), [Uuid::from_u128(9)], "not {}", tick.fires[0].id);
}

#[test]
fn a_fire_waits_for_what_was_opened_again_elsewhere() {
    let mut engine = beside_theirs(Overlap::Queue);
    assert!(!has_begun(&step(&mut engine, Event::OthersEnded(vec![THEIRS]))));
    let (tick, then) = fired(&mut engine, 1);
    let (_, next) = fired(&mut engine, 2);
    let fates = vec![Admitted::Started { row: RunRow(6) }];
    let opened = vec![Uuid::from_u128(9)];
    let receipt = Receipt::Tick { fates, cursor: None, opened: opened.clone() };
    assert!(!has_begun(&step(&mut engine, Event::Committed(then, receipt))));
    assert!(!has_begun(&kept(&mut engine, next, RunRow(7))));
    assert_eq!(engine.others_after(Uuid::nil(), 10), opened);
    assert_eq!(begun(&step(&mut engine, Event::OthersEnded(opened))), [tick.fires[0].id]);
}

#[test]
fn a_fire_waits_for_what_was_opened_again_elsewhere_and_was_heard_of_after_its_poll() {
    let mut engine = beside_theirs(Overlap::Queue);
    assert!(!has_begun(&step(&mut engine, Event::OthersEnded(vec![THEIRS]))));
    let (tick, then) = fired(&mut engine, 1);
    // The trigger is declared again before the fire is kept, and what is unfinished is told then.
    let again = asked(&mut step(&mut engine, declaration_with(Overlap::Queue)));
    let Receipt::Declared(state) = held_by(MINE) else { unreachable!("it says so") };
    let opened = vec![Uuid::from_u128(9)];
    let declared = Receipt::Declared(TriggerState { unfinished: opened.clone(), ..state });
    assert!(!has_begun(&step(&mut engine, Event::Committed(again, declared))));
    let fates = vec![Admitted::Started { row: RunRow(6) }];
    let receipt = Receipt::Tick { fates, cursor: None, opened: opened.clone() };
    assert!(!has_begun(&step(&mut engine, Event::Committed(then, receipt))));
    assert_eq!(begun(&step(&mut engine, Event::OthersEnded(opened))), [tick.fires[0].id]);
}

#[test]
fn a_claimed_run_that_was_cancelled_meanwhile_ends_at_once() {
    let mut engine = engine();
    step(&mut engine, declared_mail());
    step(&mut engine, Event::Vacancy);
    let cancelled = Unfinished { cancelled: true, ..claimed(1, ScheduleKey(7), vec![]) };
    let effects = step(&mut engine, Event::Claimed(vec![cancelled]));
    let ends: Vec<RunStatus> = effects
        .commits
        .iter()
        .filter_map(|(change, _)| match change {
            Change::Run(change) => change.end.as_ref().map(|end| end.status),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [RunStatus::Cancelled]);
}

#[test]
fn a_claimed_run_waits_for_earlier_ones_that_others_drive() {
    let mut engine = beside_theirs(Overlap::Queue);
    let claimed = |number, behind| claimed(number, ScheduleKey(8), behind);
    let earlier = Uuid::from_u128(1);
    assert!(!has_begun(&step(&mut engine, Event::Claimed(vec![claimed(2, vec![earlier])]))));
    // Their owner has died, too.
    assert!(has_begun(&step(&mut engine, Event::Claimed(vec![claimed(1, vec![])]))));
    assert_eq!(engine.others_after(Uuid::nil(), 10), [THEIRS]);
    assert!(!has_begun(&step(&mut engine, Event::OthersEnded(vec![earlier]))));
}

#[test]
fn runs_of_others_are_looked_at_in_turn() {
    let mut engine = beside_theirs(Overlap::Queue);
    let then = asked(&mut step(&mut engine, declaration_with(Overlap::Queue)));
    let Receipt::Declared(state) = held_by(MINE) else { unreachable!("it says so") };
    let more = vec![THEIRS, Uuid::from_u128(6), Uuid::from_u128(7)];
    step(
        &mut engine,
        Event::Committed(then, Receipt::Declared(TriggerState { unfinished: more.clone(), ..state })),
    );
    assert_eq!(engine.others_after(Uuid::nil(), 2), more[..2]);
    assert_eq!(engine.others_after(more[1], 2), [more[2], more[0]]);
}

/// What follows once all that is to be kept is.
fn all_kept(engine: &mut Engine, mut effects: Effects) -> Effects {
    while !effects.commits.is_empty() {
        for (_, then) in std::mem::take(&mut effects.commits) {
            engine.step(Event::Committed(then, Receipt::Run(None)), NOW, &mut effects);
        }
    }
    effects
}

/// The attempt at which a task begins that waits for another one, in a run whose owner has died and left nothing on record.
fn attempt_of_the_second_task(is_mixed: bool) -> u32 {
    let mut engine = engine();
    let mail = harness::mail(RetryPolicy::default());
    let ids: Vec<Arc<str>> = vec!["send".into(), "file".into()];
    let after = vec![Vec::new(), vec![Arc::clone(&ids[0])]];
    let graph = Graph::check("mail", &ids, &after).unwrap();
    let file = Task { id: Arc::clone(&ids[1]), dependencies: after[1].clone(), ..mail.tasks[0].clone() };
    let tasks = vec![mail.tasks[0].clone(), file];
    step(&mut engine, Event::Workflow(Arc::new(Workflow { tasks, graph, ..(*mail).clone() })));
    let left = Unfinished {
        interruptions: 1,
        owner_before: Some(DEAD),
        waits: false,
        is_again: false,
        schedule: None,
        is_mixed,
        ..claimed(1, ScheduleKey(7), vec![])
    };
    let effects = step(&mut engine, Event::Claimed(vec![left]));
    let first = all_kept(&mut engine, effects).jobs[0].job;
    let effects = step(&mut engine, Event::Taken(first));
    let recorded = all_kept(&mut engine, effects).recorded[0].1;
    step(&mut engine, Event::Taken(recorded));
    let mut effects = Effects::default();
    let ended = Ended::Success("{}".into());
    assert_eq!(engine.attempt_ended(recorded, ended, false, NOW, &mut effects), Ruling::Final);
    all_kept(&mut engine, effects).jobs[0].job.attempt
}

#[test]
fn what_a_dead_owner_of_another_version_may_have_begun_is_begun_anew() {
    assert_eq!(attempt_of_the_second_task(false), 1, "it waited for the first one");
    assert_eq!(attempt_of_the_second_task(true), 2, "under another version it may not have waited");
}

#[test]
fn others_hear_of_what_is_theirs() {
    let mut engine = engine();
    step(&mut engine, declared_mail());
    step(&mut engine, Event::Vacancy);
    let offered = Then::Offered(vec![THEIRS]);
    let admitted = Receipt::Start(vec![Admitted::Started { row: RunRow(1) }]);
    assert!(step(&mut engine, Event::Committed(offered, admitted)).tells, "a run that anybody may claim");

    let own = Unfinished { waits: false, schedule: None, ..claimed(1, ScheduleKey(7), vec![]) };
    step(&mut engine, Event::Claimed(vec![own]));
    let effects = step(&mut engine, Event::Cancel(Uuid::from_u128(1)));
    let [(_, then)] = <[_; 1]>::try_from(effects.commits).unwrap();
    let cancelled = Receipt::Cancelled { number: None, children: vec![THEIRS] };
    assert!(
        step(&mut engine, Event::Committed(then, cancelled)).tells,
        "a child of a run that was cancelled"
    );
}

#[test]
fn a_run_that_limits_let_begin_before_its_own_commit_was_heard_of_stays_in_hand() {
    let mut engine = engine();
    step(&mut engine, declared_mail());
    let id = Uuid::from_u128(1);
    let workflow = harness::mail(RetryPolicy::default());
    step(&mut engine, Event::Start { workflow, requests: vec![Request::of(id, "{}".into())] });
    let run = Unfinished { waits: false, schedule: None, ..claimed(1, ScheduleKey(7), vec![]) };
    let row = run.row;
    let effects = step(&mut engine, Event::Claimed(vec![run]));
    assert!(has_begun(&effects));
    let held = Receipt::Start(vec![Admitted::Held { row }]);
    step(&mut engine, Event::Committed(Then::Start(vec![id]), held));
    let job = effects.jobs[0].job;
    assert!(engine.expects(job), "it is this runner's, and nobody else would go on with it");
}

#[test]
fn a_run_of_a_line_that_is_claimed_before_its_own_commit_was_heard_of_keeps_its_place() {
    let mut engine = engine();
    step(&mut engine, declared_mail());
    step(&mut engine, Event::Vacancy);
    let then = asked(&mut step(&mut engine, declaration_with(Overlap::Queue)));
    step(&mut engine, Event::Committed(then, held_by(MINE)));
    let [(first, then), (second, _)] = [fired(&mut engine, 1), fired(&mut engine, 2)];
    let [first, second] = [first.fires[0].id, second.fires[0].id];
    let run = Unfinished { id: first, ..claimed(1, ScheduleKey(7), vec![]) };
    let row = run.row;
    let effects = step(&mut engine, Event::Claimed(vec![run]));
    let begun: Vec<Uuid> = effects.jobs.iter().map(|ready| ready.job.run).collect();
    assert_eq!(begun, [first], "what limits have let begin begins, and {second} waits for it");
    step(
        &mut engine,
        Event::Committed(
            then,
            Receipt::Tick { fates: vec![Admitted::Held { row }], cursor: None, opened: Vec::new() },
        ),
    );
    assert!(engine.expects(effects.jobs[0].job));
}

#[test]
fn a_run_that_cancels_does_so_also_when_it_is_claimed_before_its_own_commit_was_heard_of() {
    let mut engine = beside_theirs(Overlap::CancelRunning);
    let (tick, then) = fired(&mut engine, 1);
    let run = Unfinished { id: tick.fires[0].id, ..claimed(1, ScheduleKey(7), vec![]) };
    let row = run.row;
    let effects = step(&mut engine, Event::Claimed(vec![run]));
    assert_eq!((effects.cancels.as_slice(), has_begun(&effects)), ([THEIRS].as_slice(), false));
    let held = Receipt::Tick { fates: vec![Admitted::Held { row }], cursor: None, opened: Vec::new() };
    assert!(step(&mut engine, Event::Committed(then, held)).cancels.is_empty(), "once is enough");
    assert!(has_begun(&step(&mut engine, Event::OthersEnded(vec![THEIRS]))));
}

#[test]
fn what_waits_for_a_run_that_is_over_and_was_opened_again_goes_before_it() {
    let mut engine = beside_theirs(Overlap::Queue);
    let (tick, then) = fired(&mut engine, 1);
    let (mine, theirs) = (tick.fires[0].id, [THEIRS]);
    assert_eq!(engine.waited_for(&theirs), [], "it is not kept");
    assert!(!has_begun(&kept(&mut engine, then, RunRow(6))));
    let (tick, then) = fired(&mut engine, 2);
    let next = tick.fires[0].id;
    assert!(!has_begun(&kept(&mut engine, then, RunRow(7))));
    assert_eq!(engine.waited_for(&theirs), [(THEIRS, mine)]);
    // The one behind that came after it: it stays between the two.
    assert_eq!(begun(&step(&mut engine, Event::OthersMoved(vec![(THEIRS, mine)]))), [mine]);
    assert_eq!((engine.waited_for(&theirs), engine.others_after(Uuid::nil(), 9)), (vec![], vec![THEIRS]));
    // It comes here behind what waits, and lets that go first.
    let again = Unfinished { is_again: true, ..claimed(5, ScheduleKey(7), vec![mine, next]) };
    assert!(!has_begun(&step(&mut engine, Event::Claimed(vec![again]))));
}
