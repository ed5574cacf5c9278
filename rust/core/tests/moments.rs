//! When crons run whose clock was wrong for a while: what a clock ahead decided holds only until it is right again.

mod harness;

use std::collections::BTreeSet;

use cloaca_core::admit::Overlap;
use cloaca_core::engine::{Declared, Effects, Engine, Event, Polled, Then};
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::past::{PASSAGES_MAX, Passage, Past};
use cloaca_core::port::{
    Admitted, Change, CronMove, Moment, Origin, Receipt, Schedule, ScheduleKind, Terms, TriggerRow,
    TriggerState,
};
use cloaca_core::time::{Mono, Now, Wall};
use proptest::prelude::*;
use uuid::Uuid;

use crate::harness::{declared_mail, step};

const EPOCH: Epoch = Epoch(1);
const HOUR_US: i64 = 3_600_000_000;
const YEAR_US: i64 = 365 * 24 * HOUR_US;

/// `mono` hours after the start, on a wall clock that is off by `ahead_us`.
fn now(mono: i64, ahead_us: i64) -> Now {
    Now { mono: Mono(mono.unsigned_abs() * 3_600_000_000_000), wall: Wall(mono * HOUR_US + ahead_us) }
}

fn engine() -> Engine {
    let mut engine = harness::engine(EPOCH, true);
    step(&mut engine, declared_mail(), now(0, 0));
    engine
}

fn making_up(catchup_max: u64) -> Engine {
    let mut engine = harness::making_up(catchup_max, EPOCH, true);
    step(&mut engine, declared_mail(), now(0, 0));
    engine
}

fn hourly(row: ScheduleKey, next_at: Option<Wall>) -> Schedule {
    Schedule {
        row,
        id: Uuid::from_u128(row.0.unsigned_abs().into()),
        name: String::new(),
        workflow: "mail".into(),
        kind: ScheduleKind::Cron {
            expression: "0 * * * *".into(),
            timezone: "UTC".into(),
            next_at,
            terms: Terms::default(),
        },
        enabled: true,
        asked: None,
        disabled_cause: None,
        disabled_at: None,
        cursor: None,
        cursor_set: 0,
        failures: 0,
        last_at: None,
        last_fired_at: None,
        past: Past::default(),
        created_at: Wall(0),
        updated_at: Wall(0),
        owner: None,
        origin: Origin::Registered,
        digest: None,
        version: 0,
        newest: 0,
        in_body_since: None,
        on_run: None,
        grid: None,
    }
}

/// The moments of all runs that are started.
fn moments(effects: &Effects) -> Vec<Wall> {
    let runs = effects.commits.iter().flat_map(|(change, _)| match change {
        Change::Start { runs, .. } => runs.as_slice(),
        _ => &[],
    });
    runs.filter_map(|run| run.scheduled_at).collect()
}

/// What is kept of crons that start nothing.
fn corrections(effects: &Effects) -> Vec<CronMove> {
    let kept = effects.commits.iter().filter_map(|(change, _)| match change {
        Change::Start { runs, cron, .. } if runs.is_empty() => *cron,
        _ => None,
    });
    kept.collect()
}

#[test]
fn crons_go_on_once_a_clock_that_was_ahead_is_right_again() {
    let mut engine = engine();
    let crons = Event::Crons(vec![
        hourly(ScheduleKey(1), Some(Wall(HOUR_US))),
        hourly(ScheduleKey(2), Some(Wall(HOUR_US))),
    ]);
    step(&mut engine, crons, now(0, 0));
    // For a moment the clock shows next year: what was missed until then is made up for, one run each.
    assert_eq!(moments(&step(&mut engine, Event::Clock, now(1, YEAR_US))).len(), 2);
    let right = step(&mut engine, Event::Clock, Now { wall: Wall(HOUR_US + 1), ..now(1, 0) });
    assert!(right.is_due, "what was to wait so long is looked at, too");
    assert_eq!(right.logs.len(), 1, "one line for all: {:?}", right.logs);
    let kept: Vec<_> =
        corrections(&right).iter().map(|kept| (kept.row, kept.next_at, kept.last_at)).collect();
    let next = Some(Wall(2 * HOUR_US));
    assert_eq!(kept, [(ScheduleKey(1), next, None), (ScheduleKey(2), next, None)]);
    assert_eq!(moments(&step(&mut engine, Event::Clock, now(2, 0))), [Wall(2 * HOUR_US); 2]);
}

#[test]
fn a_clock_that_goes_back_says_nothing_of_crons_that_it_does_not_hold_up() {
    let mut engine = engine();
    step(
        &mut engine,
        Event::Crons(vec![hourly(ScheduleKey(1), Some(Wall(2 * HOUR_US)))]),
        now(1, 1_800_000_000),
    );
    let back = step(&mut engine, Event::Clock, now(1, 1));
    assert!(back.logs.is_empty() && back.commits.is_empty(), "{back:?}");
    assert_eq!(moments(&step(&mut engine, Event::Clock, now(2, 0))), [Wall(2 * HOUR_US)]);
}

#[test]
fn a_next_time_that_a_clock_ahead_left_in_the_store_is_replaced() {
    for event in [Event::Cron, |cron| Event::Crons(vec![cron])] {
        let mut engine = engine();
        let read = step(&mut engine, event(hourly(ScheduleKey(1), Some(Wall(YEAR_US)))), now(1, 0));
        assert_eq!(read.logs.len(), 1);
        assert_eq!(corrections(&read)[0].next_at, Some(Wall(2 * HOUR_US)));
        assert_eq!(moments(&step(&mut engine, Event::Clock, now(2, 0))), [Wall(2 * HOUR_US)]);
    }
}

#[test]
fn a_clock_that_was_behind_makes_up_for_nothing_that_is_over() {
    let declared_at_5 =
        |next_at| Schedule { past: Past::declared(Wall(5 * HOUR_US)), ..hourly(ScheduleKey(1), next_at) };
    // Behind, nobody knows that: it goes on by the clock, as after one that was ahead.
    let mut engine = making_up(9);
    let read = step(&mut engine, Event::Cron(declared_at_5(Some(Wall(6 * HOUR_US)))), now(1, 0));
    assert_eq!(corrections(&read)[0].next_at, Some(Wall(2 * HOUR_US)));
    let live = step(&mut engine, Event::Clock, now(2, 0));
    assert_eq!(moments(&live), [Wall(2 * HOUR_US)]);
    // Once it is right, in this life or the next, only what is left comes.
    let right = step(&mut engine, Event::Clock, now(2, 5 * HOUR_US));
    assert_eq!(moments(&right), [6, 7].map(|hour| Wall(hour * HOUR_US)));
    let mut next_life = making_up(9);
    step(&mut next_life, Event::Cron(declared_at_5(Some(Wall(2 * HOUR_US)))), now(7, 0));
    assert_eq!(
        moments(&step(&mut next_life, Event::Clock, now(7, 0))),
        [6, 7].map(|hour| Wall(hour * HOUR_US))
    );
}

#[test]
fn a_moment_that_is_over_does_not_come_again_when_the_clock_falls_back_for_a_while() {
    let mut engine = making_up(9);
    step(&mut engine, Event::Cron(hourly(ScheduleKey(1), Some(Wall(2 * HOUR_US)))), now(1, 0));
    let ran = step(&mut engine, Event::Clock, now(3, 0));
    assert_eq!(moments(&ran), [2, 3].map(|hour| Wall(hour * HOUR_US)));
    let back = step(&mut engine, Event::Clock, Now { wall: Wall(HOUR_US + 1), ..now(3, 0) });
    assert_eq!(corrections(&back), [], "what comes next is as before");
    let right = step(&mut engine, Event::Clock, now(3, 1));
    assert!(moments(&right).is_empty(), "both ran: {:?}", moments(&right));
    assert_eq!(moments(&step(&mut engine, Event::Clock, now(4, 0))), [Wall(4 * HOUR_US)]);
}

#[test]
fn the_next_moment_is_one_that_no_clock_ahead_has_decided() {
    let mut engine = making_up(9);
    step(&mut engine, Event::Cron(declared_at(50)), now(1, 49 * HOUR_US));
    let kept = |effects: &Effects| {
        let cron = effects.commits.iter().find_map(|(change, _)| match change {
            Change::Start { cron, .. } => cron.as_ref(),
            _ => None,
        });
        cron.and_then(|step| step.next_at).map(|at| at.0 / HOUR_US)
    };
    // All up to 55 are decided ahead of time; of those before 92 none is.
    let at = |hour: i64| now(1, (hour - 1) * HOUR_US + 1);
    step(&mut engine, Event::Clock, at(55));
    assert_eq!(kept(&step(&mut engine, Event::Clock, at(51))), None, "what it waits for is right");
    assert_eq!(moments(&step(&mut engine, Event::Clock, at(55))), []);
    step(&mut engine, Event::Clock, at(100));
    let right = step(&mut engine, Event::Clock, at(55));
    assert_eq!((kept(&right), right.logs.len()), (Some(56), 1), "it would have been silent until 101");
    assert_eq!(kept(&step(&mut engine, Event::Clock, at(91))), Some(101), "from 92 to 100 all is over");
}

#[test]
fn what_a_clock_ahead_has_decided_is_not_named_as_next_where_a_cron_is_switched_on() {
    let mut engine = making_up(9);
    let mut row = declared_at(50);
    row.past.pass(Passage { from: Wall(50 * HOUR_US), until: Wall(55 * HOUR_US) });
    let read = step(&mut engine, Event::Cron(row), now(1, 49 * HOUR_US));
    assert_eq!(corrections(&read)[0].next_at, Some(Wall(56 * HOUR_US)));
    assert_eq!(read.logs, [], "it would have waited for no longer");
}

/// Hours from 1970 at which runs start once the clock shows each of these, in one life.
fn over(engine: &mut Engine, hours: &[i64]) -> Vec<Vec<i64>> {
    let at = |&hour: &i64| now(1, (hour - 1) * HOUR_US + 1);
    let run = |at| moments(&step(engine, Event::Clock, at)).iter().map(|moment| moment.0 / HOUR_US).collect();
    hours.iter().map(at).map(run).collect()
}

fn declared_at(hour: i64) -> Schedule {
    let past = Past::declared(Wall(hour * HOUR_US));
    Schedule { past, ..hourly(ScheduleKey(1), Some(Wall((hour + 1) * HOUR_US))) }
}

#[test]
fn what_was_decided_before_a_clock_went_ahead_is_not_made_up_for_when_it_was_behind_after_that() {
    let mut engine = making_up(9);
    step(&mut engine, Event::Cron(declared_at(50)), now(1, 49 * HOUR_US));
    // Right, ahead, right, behind, right.
    let runs = over(&mut engine, &[51, 52, 152, 53, 20, 54]);
    assert_eq!(runs[..2], [vec![51], vec![52]]);
    assert_eq!(runs[2], (144..=152).collect::<Vec<_>>(), "ahead, the newest come");
    assert_eq!(
        runs[3..],
        [vec![], vec![], vec![53, 54]],
        "neither what ran nor what came before the declaration"
    );
    // Ahead once more: what was decided then does not come again, and what was not does.
    assert_eq!(over(&mut engine, &[100, 146]), [(92..=100).collect::<Vec<_>>(), vec![]]);
    assert_eq!(over(&mut engine, &[153, 154]), [vec![153], vec![154]]);
}

#[test]
fn what_came_before_the_declaration_is_not_made_up_for_by_a_clock_that_is_less_behind() {
    let mut engine = making_up(9);
    step(&mut engine, Event::Cron(declared_at(50)), now(1, 49 * HOUR_US));
    assert_eq!(over(&mut engine, &[51, 10, 11]), [vec![51], vec![], vec![11]], "it goes on by the clock");
    let later = |hour: i64| now(1, (hour - 1) * HOUR_US + 11 * SECOND_US);
    assert!(moments(&step(&mut engine, Event::Clock, later(30))).is_empty(), "nobody missed any of them");
    assert_eq!(over(&mut engine, &[31, 54]), [vec![31], vec![52, 53, 54]]);
}

#[test]
fn what_was_declared_by_a_clock_that_was_ahead_is_made_up_for_once_another_has_held_for_a_day() {
    let mut engine = making_up(9);
    step(&mut engine, Event::Cron(declared_at(5_000)), now(1, 4_999 * HOUR_US));
    let lived: Vec<i64> = (101..=124).collect();
    let each: Vec<Vec<i64>> = lived.iter().map(|&hour| vec![hour]).collect();
    assert!(over(&mut engine, &[100])[0].is_empty());
    assert_eq!(over(&mut engine, &lived), each);
    assert_eq!(over(&mut engine, &[127]), [vec![127]], "until then it may be behind");
    assert_eq!(over(&mut engine, &[128, 129]), [vec![128], vec![129]]);
    assert_eq!(over(&mut engine, &[133]), [vec![130, 131, 132, 133]]);
}

#[derive(Debug, Clone)]
enum Turn {
    /// Hours that pass while it runs.
    Live(u8),
    /// The clock shows so many hours more, or less.
    Jump(i16),
    /// Nobody runs it for so many hours, and the clock jumps meanwhile.
    Down(u8, i16),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        3 => (1..6_u8).prop_map(Turn::Live),
        2 => (-40..40_i16).prop_map(Turn::Jump),
        1 => (0..6_u8, prop_oneof![Just(0), -40..40_i16]).prop_map(|(span, jump)| Turn::Down(span, jump)),
    ];
    proptest::collection::vec(turn, 1..24)
}

/// A cron whose runs are forgotten as soon as they are over, so that nothing but the cron itself knows of them.
struct Forgetful {
    engine: Engine,
    row: Schedule,
    at: Now,
    ran: BTreeSet<i64>,
    /// What was decided since the last look.
    new: Vec<i64>,
}

impl Forgetful {
    fn step(&mut self, event: Event) {
        let mut effects = step(&mut self.engine, event, self.at);
        self.new.extend(moments(&effects).iter().map(|moment| moment.0 / HOUR_US));
        for (change, _) in effects.commits.drain(..) {
            if let Change::Start { cron: Some(CronMove { next_at, decided, .. }), .. } = change {
                let ScheduleKind::Cron { next_at: kept, .. } = &mut self.row.kind else { unreachable!() };
                *kept = next_at;
                decided.into_iter().for_each(|passage| self.row.past.pass(passage));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_moment_is_decided_twice_or_before_the_declaration_and_none_is_passed_in_silence(turns in turns(), catchup_max in 1..12_u64) {
        let hour = |hour: i64| hour * HOUR_US;
        let declared = 100;
        let start = Now { mono: Mono(0), wall: Wall(hour(declared)) };
        let (engine, row) = (making_up(catchup_max), declared_at(declared));
        let mut cron = Forgetful { engine, row, at: start, ran: BTreeSet::from([declared]), new: Vec::new() };
        cron.step(Event::Cron(cron.row.clone()));
        // So many hours the clock has stood before the declaration, at most: then it may have been ahead at that.
        let (mut before, mut steps, mut is_full) = (0, 0, false);
        for turn in turns {
            let (spans, jump, is_down) = match &turn {
                Turn::Live(hours) => (i64::from(*hours), 0, false),
                Turn::Jump(hours) => (0, i64::from(*hours), false),
                Turn::Down(hours, jump) => (0, i64::from(*hours) + i64::from(*jump), true),
            };
            for _ in 0..spans {
                cron.at = Now { mono: Mono(cron.at.mono.0 + 3_600_000_000_000), wall: Wall(cron.at.wall.0 + HOUR_US) };
                cron.step(Event::Clock);
                before += i64::from(cron.at.wall.0 <= hour(declared));
                let moment = cron.at.wall.0 / HOUR_US;
                let known = cron.ran.contains(&moment);
                // Of many stretches some are taken for one, with what lies between.
                is_full |= cron.row.past.text().matches("],[").count() + 1 >= PASSAGES_MAX;
                prop_assert!(cron.new.contains(&moment) != known || is_full, "{} comes once", moment);
                for moment in cron.new.drain(..) {
                    prop_assert!(cron.ran.insert(moment), "{} again", moment);
                }
            }
            cron.at.wall = Wall(cron.at.wall.0 + hour(jump));
            if is_down {
                cron.engine = making_up(catchup_max);
                cron.step(Event::Cron(cron.row.clone()));
            }
            cron.step(Event::Clock);
            let is_step = jump != 0 && !matches!(turn, Turn::Down(_, 0));
            before += i64::from(jump != 0 || is_down);
            steps += i64::from(is_step);
            let missed = cron.at.wall.0 / HOUR_US - jump + 1..=cron.at.wall.0 / HOUR_US;
            if is_down && !is_step && steps < 4 && !missed.clone().any(|moment| moment <= declared || cron.ran.contains(&moment)) {
                let newest = missed.rev().take(usize::try_from(catchup_max).unwrap());
                prop_assert!(newest.clone().all(|moment| cron.new.contains(&moment)), "{:?} of {:?}", cron.new, newest);
            }
            for moment in std::mem::take(&mut cron.new) {
                let is_now = moment == cron.at.wall.0 / HOUR_US;
                prop_assert!(moment > declared || is_now || before > 24, "{} before the declaration", moment);
                prop_assert!(cron.ran.insert(moment), "{} again", moment);
            }
            let ScheduleKind::Cron { next_at: Some(next), .. } = cron.row.kind else { unreachable!() };
            prop_assert!(is_full || !cron.ran.contains(&(next.0 / HOUR_US)), "{:?} is named as next, and over", next);
        }
    }
}

#[test]
fn a_cron_that_is_registered_while_the_clock_is_ahead_goes_on_too() {
    let mut engine = engine();
    step(&mut engine, Event::Clock, now(1, 0));
    step(
        &mut engine,
        Event::Cron(hourly(ScheduleKey(1), Some(Wall(YEAR_US + 2 * HOUR_US)))),
        now(1, YEAR_US),
    );
    step(&mut engine, Event::Clock, now(1, 0));
    assert_eq!(moments(&step(&mut engine, Event::Clock, now(2, 0))), [Wall(2 * HOUR_US)]);
}

#[test]
fn a_moment_missed_while_nobody_ran_is_not_put_off() {
    let mut engine = engine();
    let read = step(&mut engine, Event::Crons(vec![hourly(ScheduleKey(1), Some(Wall(HOUR_US)))]), now(3, 1));
    assert!(read.logs.is_empty() && read.commits.is_empty(), "{read:?}");
    assert_eq!(moments(&step(&mut engine, Event::Clock, now(3, 2))), [Wall(3 * HOUR_US)]);
}

/// A cron whose runs must not overlap.
fn alone(next_at: Wall) -> Schedule {
    let terms = Terms { overlap: Overlap::Queue, ..Terms::default() };
    let (expression, timezone) = ("0 * * * *".to_owned(), "UTC".to_owned());
    let kind = ScheduleKind::Cron { expression, timezone, next_at: Some(next_at), terms };
    Schedule { kind, ..hourly(ScheduleKey(1), None) }
}

/// The moment that the engine wants to decide, and what it does with the answer.
fn asked(effects: &mut Effects) -> (Wall, Then) {
    assert_eq!(effects.commits.len(), 1, "{effects:?}");
    match effects.commits.remove(0) {
        (Change::TakeMoment { row: ScheduleKey(1), moment, .. }, then) => (moment, then),
        other => panic!("{other:?}"),
    }
}

fn yours() -> Receipt {
    let (cursor, last_fired_at, owner, unfinished) = (None, None, Some(EPOCH), Vec::new());
    let state = TriggerState {
        row: ScheduleKey(1),
        enabled: true,
        cursor,
        cursor_set: 0,
        failures: 0,
        last_fired_at,
        owner,
        unfinished,
        grid: None,
        asked: None,
        has_died: false,
        is_outdated: false,
        is_awaited: false,
    };
    Receipt::Moment(Moment::Yours(state))
}

#[test]
fn what_was_read_before_a_moment_was_decided_puts_off_none_that_follows() {
    let mut engine = making_up(10);
    let at = now(3, 1);
    let [first, second] = [HOUR_US, 2 * HOUR_US].map(Wall);
    step(&mut engine, Event::Crons(vec![alone(first)]), at);
    let (moment, then) = asked(&mut step(&mut engine, Event::Clock, at));
    assert_eq!(moment, first);
    let decided = step(&mut engine, Event::Committed(then, yours()), at);
    let [(Change::Tick(tick), _)] = &decided.commits[..] else { panic!("{decided:?}") };
    assert_eq!(tick.cron.map(|step| step.next_at), Some(Some(second)));
    assert_eq!(tick.fires[0].scheduled_at, Some(first));
    // Older than the tick.
    step(&mut engine, Event::Crons(vec![alone(first)]), at);
    let (again, then) = asked(&mut step(&mut engine, Event::Clock, at));
    assert_eq!(again, first);
    let over = Receipt::Moment(Moment::Over { next_at: Some(second) });
    step(&mut engine, Event::Committed(then, over), at);
    assert_eq!(asked(&mut step(&mut engine, Event::Clock, at)).0, second);
}

#[test]
fn a_moment_that_another_decides_is_asked_for_again_once_somebody_is_gone() {
    let mut engine = making_up(10);
    let at = now(3, 1);
    step(&mut engine, Event::Crons(vec![alone(Wall(2 * HOUR_US))]), at);
    let (moment, then) = asked(&mut step(&mut engine, Event::Clock, at));
    step(&mut engine, Event::Committed(then, Receipt::Moment(Moment::Others)), at);
    assert!(step(&mut engine, Event::Clock, at).commits.is_empty(), "others see to it");
    step(&mut engine, Event::Vacancy, at);
    let (again, then) = asked(&mut step(&mut engine, Event::Clock, at));
    assert_eq!((moment, again), (Wall(2 * HOUR_US), moment));
    let decided = step(&mut engine, Event::Committed(then, yours()), at);
    assert_eq!(decided.commits.len(), 1);
    assert_eq!(asked(&mut step(&mut engine, Event::Clock, at)).0, Wall(3 * HOUR_US));
}

#[test]
fn a_moment_that_another_decides_is_asked_for_again_though_that_one_lives_on() {
    let mut engine = making_up(10);
    let at = now(3, 1);
    step(&mut engine, Event::Crons(vec![alone(Wall(2 * HOUR_US))]), at);
    let (moment, then) = asked(&mut step(&mut engine, Event::Clock, at));
    let others = step(&mut engine, Event::Committed(then, Receipt::Moment(Moment::Others)), at);
    assert!(others.commits.is_empty());
    let later = now(3, 2 * SECOND_US + 1);
    assert!(step(&mut engine, Event::Clock, now(3, 2 * SECOND_US)).commits.is_empty(), "that one decides it");
    let (again, then) = asked(&mut step(&mut engine, Event::Clock, later));
    assert_eq!((moment, again), (Wall(2 * HOUR_US), moment), "it may have gone to a newer version since");
    let over = Receipt::Moment(Moment::Over { next_at: Some(Wall(3 * HOUR_US)) });
    step(&mut engine, Event::Committed(then, over), later);
    assert_eq!(asked(&mut step(&mut engine, Event::Clock, later)).0, Wall(3 * HOUR_US));
}

#[test]
fn what_is_left_of_a_runs_time_is_noted_anew_when_the_clock_jumps() {
    let mut engine = engine();
    let begun = now(0, 1);
    step(&mut engine, Event::Crons(vec![hourly(ScheduleKey(1), Some(Wall(1)))]), begun);
    let noted = |effects: &Effects| {
        effects.commits.iter().filter(|(change, _)| matches!(change, Change::Timed { .. })).count()
    };
    let started = step(&mut engine, Event::Clock, begun);
    let (_, then) = started.commits.into_iter().next().expect("the moment starts a run");
    let receipt = Receipt::Start(vec![Admitted::Started { row: RunRow(1) }]);
    let job = step(&mut engine, Event::Committed(then, receipt), begun).jobs[0].job;
    step(&mut engine, Event::Taken(job), begun);
    assert_eq!(noted(&step(&mut engine, Event::Clock, now(0, 500_000))), 0, "it runs on");
    assert_eq!(noted(&step(&mut engine, Event::Clock, now(0, 2 * HOUR_US))), 1, "put forward");
    assert_eq!(noted(&step(&mut engine, Event::Clock, now(0, 2 * HOUR_US + 1))), 0);
    assert_eq!(noted(&step(&mut engine, Event::Clock, now(0, 1))), 1, "put back");
}

#[test]
fn a_right_that_comes_too_late_is_given_back() {
    let mut engine = engine();
    let at = now(3, 1);
    step(&mut engine, Event::Crons(vec![alone(Wall(3 * HOUR_US))]), at);
    let (_, then) = asked(&mut step(&mut engine, Event::Clock, at));
    step(&mut engine, Event::CronGone(ScheduleKey(1)), at);
    let late = step(&mut engine, Event::Committed(then, yours()), at);
    assert!(
        matches!(late.commits[..], [(Change::LeaveMoment { epoch: EPOCH, row: ScheduleKey(1) }, _)]),
        "{late:?}"
    );
}

fn at_hour(hour: i64, after_us: i64) -> Now {
    let mono = u64::try_from(hour * HOUR_US + after_us).unwrap();
    Now { mono: Mono(mono * 1000), wall: Wall(hour * HOUR_US + after_us) }
}

const SECOND_US: i64 = 1_000_000;

#[test]
fn a_moment_is_left_to_whose_it_is_and_read_again_before_it_is_run_after_all() {
    let mut engine = engine();
    step(&mut engine, Event::Crons(vec![hourly(ScheduleKey(1), Some(Wall(HOUR_US)))]), at_hour(0, 1));
    step(&mut engine, Event::CronsElsewhere(vec![ScheduleKey(1)]), at_hour(0, 2));
    let due = step(&mut engine, Event::Clock, at_hour(1, 0));
    assert!(due.commits.is_empty() && due.doubtful.is_empty(), "{due:?}");
    assert_eq!(engine.next_wake(at_hour(1, 0)), Some(std::time::Duration::from_secs(2)));
    let over = step(&mut engine, Event::Clock, at_hour(1, 2 * SECOND_US));
    assert_eq!((over.commits.len(), over.doubtful.len()), (0, 1));
    // It has run there.
    let read = hourly(ScheduleKey(1), Some(Wall(2 * HOUR_US)));
    step(&mut engine, Event::Cron(read), at_hour(1, 2 * SECOND_US + 5));
    assert!(moments(&step(&mut engine, Event::Clock, at_hour(1, 30 * SECOND_US))).is_empty());
    step(&mut engine, Event::Clock, at_hour(2, 0));
    let over = step(&mut engine, Event::Clock, at_hour(2, 2 * SECOND_US));
    assert_eq!((over.commits.len(), over.doubtful.len()), (0, 1));
    // It has not.
    let read = hourly(ScheduleKey(1), Some(Wall(2 * HOUR_US)));
    step(&mut engine, Event::Cron(read), at_hour(2, 2 * SECOND_US + 5));
    let run = step(&mut engine, Event::Clock, at_hour(2, 2 * SECOND_US + 6));
    assert_eq!(moments(&run), [Wall(2 * HOUR_US)]);
}

#[test]
fn what_could_not_be_read_is_asked_for_again() {
    let mut engine = engine();
    step(&mut engine, Event::Crons(vec![hourly(ScheduleKey(1), Some(Wall(HOUR_US)))]), at_hour(0, 1));
    step(&mut engine, Event::CronsElsewhere(vec![ScheduleKey(1)]), at_hour(0, 2));
    step(&mut engine, Event::Clock, at_hour(1, 0));
    for seconds in [2, 4, 6] {
        let over = step(&mut engine, Event::Clock, at_hour(1, seconds * SECOND_US));
        assert_eq!((over.commits.len(), over.doubtful.len()), (0, 1), "after {seconds} seconds");
    }
}

#[test]
fn a_moment_that_was_left_to_who_is_gone_is_run_at_once() {
    let mut engine = engine();
    step(&mut engine, Event::Crons(vec![hourly(ScheduleKey(1), Some(Wall(HOUR_US)))]), at_hour(0, 1));
    step(&mut engine, Event::CronsElsewhere(vec![ScheduleKey(1)]), at_hour(0, 2));
    assert!(moments(&step(&mut engine, Event::Clock, at_hour(1, 0))).is_empty());
    step(&mut engine, Event::CronsElsewhere(Vec::new()), at_hour(1, 100));
    assert_eq!(moments(&step(&mut engine, Event::Clock, at_hour(1, 101))), [Wall(HOUR_US)]);
}

#[test]
fn a_moment_that_another_is_to_decide_is_left_to_that_one_too() {
    let mut engine = engine();
    step(&mut engine, Event::Crons(vec![alone(Wall(HOUR_US))]), at_hour(0, 1));
    step(&mut engine, Event::CronsElsewhere(vec![ScheduleKey(1)]), at_hour(0, 2));
    assert!(step(&mut engine, Event::Clock, at_hour(1, 0)).commits.is_empty());
    step(&mut engine, Event::CronsElsewhere(Vec::new()), at_hour(1, 1));
    assert_eq!(asked(&mut step(&mut engine, Event::Clock, at_hour(1, 2))).0, Wall(HOUR_US));
}

/// That cron, whose moments a body decides, as this program declares it in its first version.
fn with_body(newest: i64) -> Schedule {
    let schedule = hourly(ScheduleKey(1), Some(Wall(HOUR_US)));
    Schedule {
        name: "daily".into(),
        origin: Origin::Declared,
        digest: Some(7),
        version: 1,
        newest,
        ..schedule
    }
}

/// An engine whose body is called for a moment.
fn called() -> Engine {
    let mut engine = engine();
    let row = TriggerRow {
        name: "daily".into(),
        workflow: "mail".into(),
        interval_us: 1000,
        allow_concurrent: true,
        on_run: None,
        digest: 7,
        origin_at: Wall(0),
    };
    let body = Some((0, Declared { row, overlap: Overlap::Allow }));
    step(&mut engine, Event::CronDeclared(with_body(1), 7, body), now(0, 0));
    let (_, then) = asked(&mut step(&mut engine, Event::Clock, now(1, 1)));
    let effects = step(&mut engine, Event::Committed(then, yours()), now(1, 1));
    assert_eq!(effects.moments.len(), 1);
    engine
}

/// What follows once the store has kept what the body decided.
fn answered(engine: &mut Engine) -> Effects {
    let polled = Polled {
        place: 0,
        schedule: ScheduleKey(1),
        at: Wall(HOUR_US),
        cursor_set: 0,
        ends: 0,
        duration_us: 1,
        fires: Vec::new(),
        cursor: None,
        reason: Ok(String::new()),
        history: Vec::new(),
        disable: None,
        wait: None,
        failures: 0,
        told: None,
        holds: None,
    };
    let mut follows = Effects::default();
    for (change, then) in step(engine, Event::Polled(polled), now(1, 2)).commits {
        let receipt = match change {
            Change::Tick(_) => Receipt::Tick { fates: Vec::new(), cursor: None, opened: Vec::new() },
            _ => Receipt::Noted,
        };
        engine.step(Event::Committed(then, receipt), now(1, 2), &mut follows);
    }
    follows
}

#[test]
fn who_declares_a_newer_version_is_told_when_the_body_of_the_older_one_has_answered() {
    let mut engine = called();
    assert!(!answered(&mut engine).tells, "nobody waits for it");
    let mut engine = called();
    step(&mut engine, Event::Crons(vec![with_body(2)]), now(1, 1));
    assert!(answered(&mut engine).tells);
}

#[test]
fn who_declares_a_newer_version_is_told_also_when_that_is_heard_of_after_the_answer() {
    let mut engine = called();
    assert!(!answered(&mut engine).tells);
    assert!(!step(&mut engine, Event::Crons(vec![with_body(1)]), now(1, 3)).tells, "it goes on here");
    assert!(step(&mut engine, Event::Crons(vec![with_body(2)]), now(1, 4)).tells);
    assert!(!step(&mut engine, Event::Crons(vec![with_body(2)]), now(1, 5)).tells, "once");
}
