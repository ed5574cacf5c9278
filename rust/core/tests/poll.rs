//! Who is polled when, on a clock that the tests move.

use std::sync::Arc;
use std::time::Duration;

use cloaca_core::grid;
use cloaca_core::history::ENDED_MAX;
use cloaca_core::key::{EndKey, Epoch, ScheduleKey};
use cloaca_core::poll::{Backoff, Finish, Plan, Poller, Ticket, Turn};
use cloaca_core::port::{Beginning, Ending, Outcome, RunStatus, Stretch, Told, TriggerState};
use cloaca_core::time::{Mono, Now, Wall};
use uuid::Uuid;

const MS: u64 = 1_000_000;

fn at_ms(ms: u64) -> Mono {
    Mono(ms * MS)
}

fn plan(interval_ms: u64) -> Plan {
    let second = Duration::from_secs(1);
    Plan {
        interval: Duration::from_millis(interval_ms),
        jitter: Duration::ZERO,
        timeout: None,
        backoff: Backoff { base: second, factor: 2.0, longest: 4 * second },
        failures_max: None,
        polls_at_start: false,
        by_calendar: false,
        by_ends: false,
    }
}

fn now(mono: Mono) -> Now {
    Now { mono, wall: Wall(0) }
}

fn row(number: i64) -> TriggerState {
    TriggerState {
        row: ScheduleKey(number),
        enabled: true,
        cursor: None,
        cursor_set: 0,
        last_fired_at: None,
        owner: Some(Epoch(1)),
        unfinished: Vec::new(),
        failures: 0,
        grid: None,
        asked: None,
        has_died: false,
        is_outdated: false,
        is_awaited: false,
    }
}

/// A poller with one trigger of each plan, in rows from 1.
fn poller(plans: Vec<Plan>) -> Poller {
    let mut poller = Poller::default();
    for (plan, number) in plans.into_iter().zip(1..) {
        let place = poller.declare("t".into(), plan.into(), Mono(0));
        poller.enable(place, &row(number), false, now(Mono(0)));
    }
    poller
}

fn finish(now: Mono) -> Finish {
    Finish { began: Wall((now.0 / 1000) as i64), took_us: 0, pause: None }
}

fn skip(poller: &mut Poller, ticket: Ticket, now: Mono) {
    poller.skipped(ticket, "", finish(now), now);
}

/// The ticket of the only trigger that is due.
fn due(poller: &mut Poller, now: Mono) -> Ticket {
    let turn = poller.next(now);
    let Turn::Poll(ticket) = turn else { panic!("{turn:?} at {now:?}") };
    ticket
}

#[test]
fn twenty_triggers_keep_their_beat_beside_one_that_hangs_and_one_that_fails() {
    let mut poller = poller((0..22).map(|_| plan(50)).collect());
    let (hanging, failing) = (20, 21);
    let mut polls = [0; 22];
    for tick in 1..=20_000 {
        let now = Mono(tick * 50_000);
        while let Turn::Poll(ticket) = poller.next(now) {
            polls[ticket.place as usize] += 1;
            match ticket.place {
                place if place == hanging => {}
                place if place == failing => {
                    poller.ended(ticket, true, finish(now), now).expect("its poll counts");
                    poller.rearm(place, None, None, now);
                }
                _ => skip(&mut poller, ticket, now),
            }
        }
    }
    for (place, &count) in polls.iter().enumerate().take(20) {
        assert!((19..=20).contains(&count), "trigger {place} was polled {count} times in a second");
    }
    assert_eq!(polls[hanging as usize], 1, "at most one poll of a trigger is in flight");
    assert_eq!(polls[failing as usize], 1, "it backs off for a second");
}

#[test]
fn a_lone_trigger_is_polled_on_its_beat_however_late_it_was_answered() {
    let mut poller = poller(vec![plan(100)]);
    assert_eq!(poller.next(at_ms(99)), Turn::Wait);
    let ticket = due(&mut poller, at_ms(100));
    assert_eq!(ticket.due, at_ms(100));
    skip(&mut poller, ticket, at_ms(170));
    let ticket = due(&mut poller, at_ms(200));
    skip(&mut poller, ticket, at_ms(455));
    assert_eq!(poller.next(at_ms(499)), Turn::Wait);
    assert_eq!(due(&mut poller, at_ms(500)).due, at_ms(500));
    assert_eq!(poller.counts().missed, 2, "the beats at 300 and 400 ms are skipped, not made up for");
}

#[test]
fn a_poll_that_timed_out_changes_nothing_when_it_comes_back() {
    let timed = Plan { timeout: Some(Duration::from_millis(30)), ..plan(100) };
    let mut poller = poller(vec![timed]);
    let ticket = due(&mut poller, at_ms(100));
    let turn = poller.next(at_ms(131));
    let Turn::TimedOut(overdue) = turn else { panic!("{turn:?}") };
    assert_eq!((overdue.place, overdue.ended.schedule), (0, ScheduleKey(1)));
    poller.rearm(0, None, None, at_ms(131));
    assert_eq!(poller.next(at_ms(5000)), Turn::Wait, "its body is still in flight");
    assert_eq!(poller.ended(ticket, false, finish(at_ms(5000)), at_ms(5000)), None);
    assert_eq!(poller.tick_state(0).failures, 1, "the late answer does not count as a success");
    assert_eq!(due(&mut poller, at_ms(5100)).due, at_ms(5100), "the wait of a second is long over");
}

#[test]
fn a_poll_that_is_answered_twice_counts_once_and_leaves_the_next_one_alone() {
    let mut poller = poller(vec![plan(100)]);
    let first = due(&mut poller, at_ms(100));
    assert!(poller.ended(first, false, finish(at_ms(101)), at_ms(101)).is_some());
    // While its fires are on their way to the store, and once they are kept.
    assert!(poller.ended(first, false, finish(at_ms(102)), at_ms(102)).is_none());
    poller.rearm(first.place, None, None, at_ms(103));
    assert!(poller.ended(first, true, finish(at_ms(104)), at_ms(104)).is_none());
    let second = due(&mut poller, at_ms(200));
    assert!(poller.ended(first, true, finish(at_ms(201)), at_ms(201)).is_none());
    assert!(poller.is_in_flight(second), "no other poll begins beside it");
    skip(&mut poller, second, at_ms(202));
    assert_eq!(due(&mut poller, at_ms(300)).place, second.place);
}

#[test]
fn a_poll_in_time_is_not_given_up_later() {
    let timed = Plan { timeout: Some(Duration::from_millis(30)), ..plan(100) };
    let mut poller = poller(vec![timed]);
    let ticket = due(&mut poller, at_ms(100));
    skip(&mut poller, ticket, at_ms(110));
    assert_eq!(poller.next(at_ms(150)), Turn::Wait);
    due(&mut poller, at_ms(200));
}

#[test]
fn a_disabled_trigger_is_not_polled_and_its_poll_in_flight_still_counts() {
    let mut poller = poller(vec![plan(100)]);
    let ticket = due(&mut poller, at_ms(100));
    assert!(poller.set_enabled(ScheduleKey(1), false, at_ms(110)));
    assert!(poller.ended(ticket, false, finish(at_ms(120)), at_ms(120)).is_some());
    poller.rearm(0, None, None, at_ms(121));
    assert_eq!(poller.next(at_ms(1000)), Turn::Wait);
    poller.set_enabled(ScheduleKey(1), true, at_ms(1010));
    assert_eq!(due(&mut poller, at_ms(1100)).due, at_ms(1100));
    assert!(!poller.set_enabled(ScheduleKey(99), true, at_ms(1200)), "there is no such row");
}

#[test]
fn a_time_out_holds_while_the_trigger_is_switched_off() {
    let mut poller = poller(vec![Plan { timeout: Some(Duration::from_millis(50)), ..plan(100) }]);
    due(&mut poller, at_ms(100));
    poller.set_enabled(ScheduleKey(1), false, at_ms(110));
    assert!(matches!(poller.next(at_ms(151)), Turn::TimedOut(_)));
}

#[test]
fn a_trigger_declared_again_waits_for_its_older_body_and_goes_on_with_what_that_left() {
    let mut poller = poller(vec![plan(100)]);
    let ticket = due(&mut poller, at_ms(100));
    for new in [1, 2] {
        assert_eq!(poller.declare("t".into(), Arc::new(plan(10)), at_ms(105)), new);
        poller.supersede(new - 1, new);
        poller.enable(new, &row(1), false, now(at_ms(106)));
    }
    assert_eq!(poller.next(at_ms(1000)), Turn::Wait, "two bodies of one trigger at once");
    assert!(
        poller.ended(ticket, false, finish(at_ms(1000)), at_ms(1000)).is_some(),
        "what was polled before counts"
    );
    assert_eq!(poller.next(at_ms(1100)), Turn::Wait, "its cursor is not kept yet");
    poller.rearm(0, Some("7".into()), None, at_ms(1100));
    assert_eq!(due(&mut poller, at_ms(1200)).place, 2);
    assert_eq!(poller.tick_state(2).cursor.as_deref(), Some("7"));
}

#[test]
fn a_trigger_declared_again_waits_no_longer_than_the_time_out_of_its_older_body() {
    let mut poller = poller(vec![Plan { timeout: Some(Duration::from_millis(50)), ..plan(100) }]);
    due(&mut poller, at_ms(100));
    poller.declare("t".into(), Arc::new(plan(10)), at_ms(105));
    poller.supersede(0, 1);
    poller.enable(1, &row(1), false, now(at_ms(106)));
    assert!(matches!(poller.next(at_ms(151)), Turn::TimedOut(_)));
    poller.rearm(0, None, None, at_ms(152));
    assert_eq!(due(&mut poller, at_ms(200)).place, 1);
}

#[test]
fn a_trigger_waits_longer_after_each_failure_and_not_at_all_after_a_success() {
    let mut poller = poller(vec![plan(100)]);
    let mut now = at_ms(100);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let ticket = due(&mut poller, now);
        poller.ended(ticket, true, finish(now), now).unwrap();
        poller.rearm(0, None, None, now);
        let next = poller.next_due().expect("it is armed");
        waits.push((next.0 - now.0) / MS);
        now = next;
    }
    assert_eq!(waits, [1000, 2000, 4000, 4000]);
    let ticket = due(&mut poller, now);
    skip(&mut poller, ticket, now);
    assert_eq!(poller.next_due(), Some(Mono(now.0 + 100 * MS)));
    assert_eq!(poller.counts().missed, 0, "beats left out on purpose are not missed");
}

#[test]
fn too_many_failures_in_a_row_ask_for_the_trigger_to_be_disabled() {
    let mut poller = poller(vec![Plan { failures_max: Some(2), ..plan(100) }]);
    let ticket = due(&mut poller, at_ms(100));
    assert_eq!(poller.ended(ticket, true, finish(at_ms(100)), at_ms(100)).unwrap().disable, None);
    poller.rearm(0, None, None, at_ms(100));
    let now = poller.next_due().unwrap();
    let ticket = due(&mut poller, now);
    let cause = poller.ended(ticket, true, finish(now), now).unwrap().disable.unwrap();
    assert!(cause.contains("2 polls in a row"), "{cause}");
}

#[test]
fn a_wish_to_pause_is_kept_once_and_is_no_failure() {
    let mut poller = poller(vec![plan(100)]);
    let ticket = due(&mut poller, at_ms(100));
    let wish = Finish { pause: Some(Duration::from_millis(950)), ..finish(at_ms(100)) };
    poller.skipped(ticket, "busy", wish, at_ms(100));
    assert_eq!(poller.next_due(), Some(at_ms(1100)));
    assert_eq!(poller.tick_state(0).failures, 0);
    let ticket = due(&mut poller, at_ms(1100));
    skip(&mut poller, ticket, at_ms(1100));
    assert_eq!(poller.next_due(), Some(at_ms(1200)));
}

#[test]
fn a_wait_counts_from_the_beat_and_not_from_a_late_beginning() {
    let mut poller = poller(vec![plan(100)]);
    let late = Mono(at_ms(100).0 + 96_000);
    let ticket = due(&mut poller, late);
    let wish = Finish { pause: Some(Duration::from_millis(200)), ..finish(late) };
    let ended = poller.ended(ticket, false, wish, late).unwrap();
    assert_eq!(ended.wait_after(late), Some(Duration::from_micros(199_904)));
    poller.rearm(0, None, None, late);
    assert_eq!(poller.next_due(), Some(at_ms(300)), "which is just then over");
    // One that was asked for lies beside the grid.
    let ticket = poller.poll_now(0, at_ms(130)).unwrap();
    let ended = poller.ended(ticket, false, wish, at_ms(130)).unwrap();
    assert_eq!(ended.wait_after(at_ms(130)), Some(Duration::from_millis(200)));
}

#[test]
fn jitter_delays_within_its_bound_and_does_not_drift() {
    let mut poller = poller(vec![Plan { jitter: Duration::from_millis(40), ..plan(100) }]);
    for beat in 1..200 {
        let mut now = poller.next_due().unwrap();
        let late_ms = (now.0 - beat * 100 * MS) / MS;
        assert!(late_ms <= 40, "beat {beat} is {late_ms} ms late");
        // A jittered time lies between two ticks of the wheel.
        now = Mono(now.0 + 50_000);
        let ticket = due(&mut poller, now);
        skip(&mut poller, ticket, now);
    }
    assert_eq!(poller.counts().missed, 0);
}

#[test]
fn triggers_of_one_interval_are_spread_over_it() {
    let mut poller = poller((0..4).map(|_| plan(100)).collect());
    let mut first = Vec::new();
    for ms in 1..=200 {
        while let Turn::Poll(ticket) = poller.next(at_ms(ms)) {
            first.push((ticket.place, ms));
        }
    }
    assert_eq!(first, [(0, 100), (2, 125), (1, 150), (3, 175)]);
}

#[test]
fn a_poll_out_of_turn_moves_no_beat_and_never_doubles_one() {
    let mut poller = poller(vec![plan(100)]);
    let ticket = poller.poll_now(0, at_ms(30)).expect("none is in flight");
    assert_eq!(poller.poll_now(0, at_ms(31)), None);
    assert_eq!(poller.next(at_ms(100)), Turn::Wait);
    poller.looked(ticket, at_ms(110));
    assert_eq!(due(&mut poller, at_ms(200)).due, at_ms(200));
}

#[test]
fn a_trigger_polled_elsewhere_is_left_alone_until_it_is_given_back() {
    let mut poller = poller(vec![plan(100)]);
    poller.park(0, at_ms(100));
    assert_eq!(poller.next(at_ms(1000)), Turn::Wait);
    assert_eq!(poller.poll_now(0, at_ms(1000)), None);
    poller.enable(0, &row(1), false, now(at_ms(1010)));
    due(&mut poller, at_ms(1100));
}

#[test]
fn a_row_that_is_older_than_a_switch_does_not_undo_it_and_says_so() {
    let mut poller = poller(vec![plan(100)]);
    assert!(poller.set_enabled(ScheduleKey(1), false, at_ms(10)));
    assert!(poller.enable(0, &row(1), false, now(at_ms(20))), "the two disagree");
    assert_eq!(poller.next(at_ms(1000)), Turn::Wait);
    assert!(poller.set_enabled(ScheduleKey(1), true, at_ms(1010)), "somebody looked, and the row was newer");
    due(&mut poller, at_ms(1100));
    assert!(!poller.enable(0, &row(1), false, now(at_ms(1110))));
}

#[test]
fn a_poller_waits_only_when_nothing_is_due() {
    let mut poller = poller(vec![plan(100); 10_000]);
    let (mut polls, mut has_moved) = (0, false);
    for ms in 100..500 {
        let now = at_ms(ms);
        loop {
            match poller.next(now) {
                Turn::Poll(ticket) => {
                    skip(&mut poller, ticket, now);
                    polls += 1;
                }
                Turn::Again => has_moved = true,
                Turn::Wait => break,
                Turn::TimedOut(overdue) => panic!("{overdue:?}"),
                Turn::Died(died) => panic!("{died:?}"),
            }
        }
        assert!(poller.next_due().is_some_and(|due| due > now));
    }
    assert!(polls >= 30_000 && has_moved, "{polls} polls");
}

#[test]
fn a_poll_that_is_wanted_comes_at_once_and_leaves_the_grid_where_it_is() {
    let mut poller = poller(vec![plan(1000)]);
    let at = |millis: u64| Mono(millis * 1_000_000);
    poller.poll_soon(0, at(300));
    let ticket = due(&mut poller, at(301));
    // Wanted again while it is in flight, however often: one more follows.
    poller.poll_soon(0, at(302));
    poller.poll_soon(0, at(303));
    assert_eq!(poller.next(at(304)), Turn::Wait);
    skip(&mut poller, ticket, at(310));
    let ticket = due(&mut poller, at(311));
    skip(&mut poller, ticket, at(312));
    assert_eq!(poller.next(at(999)), Turn::Wait);
    let ticket = due(&mut poller, at(1001));
    assert_eq!(ticket.due, at(1000));
    assert_eq!(poller.counts().missed, 0);
}

#[test]
fn a_poll_that_is_wanted_waits_for_the_tick_in_commit_and_for_the_trigger_to_be_on() {
    let mut poller = poller(vec![plan(1000)]);
    let at = |millis: u64| Mono(millis * 1_000_000);
    let ticket = due(&mut poller, at(1001));
    poller.ended(ticket, true, finish(at(1001)), at(1001)).expect("its poll counts");
    poller.poll_soon(0, at(1002));
    assert_eq!(poller.next(at(1003)), Turn::Wait);
    poller.rearm(0, None, None, at(1004));
    // Also before its back-off is over.
    let ticket = due(&mut poller, at(1005));
    skip(&mut poller, ticket, at(1006));
    poller.set_enabled(ScheduleKey(1), false, at(1007));
    poller.poll_soon(0, at(1008));
    assert_eq!(poller.next(at(1009)), Turn::Wait);
    poller.set_enabled(ScheduleKey(1), true, at(1010));
    due(&mut poller, at(1011));
}

#[test]
fn a_poll_that_another_process_asked_for_comes_once_also_before_a_back_off_is_over() {
    let mut poller = poller(vec![plan(1000)]);
    let ticket = due(&mut poller, at_ms(1001));
    poller.ended(ticket, true, finish(at_ms(1001)), at_ms(1001)).expect("its poll counts");
    poller.rearm(0, None, None, at_ms(1002));
    poller.asked(ScheduleKey(1), 3, at_ms(1003));
    let ticket = due(&mut poller, at_ms(1003));
    skip(&mut poller, ticket, at_ms(1004));
    // The same news again, and what is nobody's here.
    for (row, times) in [(1, 3), (1, 2), (1, 3), (9, 1)] {
        poller.asked(ScheduleKey(row), times, at_ms(1005));
        assert_eq!(poller.next(at_ms(1006)), Turn::Wait);
    }
    poller.asked(ScheduleKey(1), 4, at_ms(1007));
    due(&mut poller, at_ms(1007));
}

#[test]
fn a_skip_that_another_process_asked_for_is_written_down_at_once_with_those_before_it() {
    for reason in ["", "nothing new"] {
        let mut poller = poller(vec![plan(10)]);
        let skipped = |poller: &mut Poller, ms| {
            let ticket = due(poller, at_ms(ms));
            let history = poller.skipped(ticket, reason, finish(at_ms(ms)), at_ms(ms));
            history
                .iter()
                .map(|stretch| (stretch.outcome, stretch.count, stretch.last_at))
                .collect::<Vec<_>>()
        };
        assert_eq!(skipped(&mut poller, 10), []);
        poller.asked(ScheduleKey(1), 1, at_ms(15));
        assert_eq!(skipped(&mut poller, 15), [(Outcome::Skip, 2, Wall(15_000))], "{reason}");
        assert_eq!(skipped(&mut poller, 20), [], "{reason}");
    }
}

#[test]
fn an_asked_for_poll_is_answered_as_it_begins_and_left_to_others_where_it_does_not() {
    let asked = |times| TriggerState { asked: Some(times), ..row(1) };
    let answers = |times| Some(Beginning { row: ScheduleKey(1), answers: Some(times), is_call: false });
    let mut poller = poller(vec![plan(60_000)]);
    let ticket = {
        poller.asked(ScheduleKey(1), 1, at_ms(10));
        due(&mut poller, at_ms(10))
    };
    assert_eq!((ticket.is_noted, poller.beginning(0)), (true, answers(1)));
    // In flight another one is asked for twice: one poll answers both.
    assert_eq!(poller.asked(ScheduleKey(1), 2, at_ms(11)), None);
    assert_eq!(poller.asked(ScheduleKey(1), 3, at_ms(12)), None);
    assert_eq!(poller.beginning(0), answers(1));
    skip(&mut poller, ticket, at_ms(13));
    let ticket = due(&mut poller, at_ms(13));
    assert_eq!(poller.beginning(0), answers(3));
    // The store has not heard of it.
    assert_eq!(poller.asked(ScheduleKey(1), 3, at_ms(14)), answers(3));
    // What has not begun goes with the trigger, and comes back with it.
    poller.asked(ScheduleKey(1), 4, at_ms(15));
    poller.hand_on(0);
    skip(&mut poller, ticket, at_ms(16));
    assert_eq!((poller.next(at_ms(17)), poller.next_due()), (Turn::Wait, None));
    poller.enable(0, &asked(4), true, now(at_ms(18)));
    assert_eq!((poller.next(at_ms(18)), poller.next_due()), (Turn::Wait, None), "it is polled elsewhere");
    poller.enable(0, &asked(4), false, now(at_ms(19)));
    // A look by hand is no answer.
    let ticket = poller.poll_now(0, at_ms(19)).expect("it is not busy");
    assert!(!ticket.is_noted);
    poller.looked(ticket, at_ms(20));
    let ticket = due(&mut poller, at_ms(20));
    assert_eq!(poller.beginning(0), answers(4));
    skip(&mut poller, ticket, at_ms(21));
    poller.enable(0, &asked(4), false, now(at_ms(22)));
    assert_eq!(poller.next(at_ms(23)), Turn::Wait, "it was answered here");
    // A beat is no answer, and takes nothing of it along.
    poller.set_enabled(ScheduleKey(1), false, at_ms(24));
    poller.asked(ScheduleKey(1), 5, at_ms(25));
    poller.set_enabled(ScheduleKey(1), true, at_ms(26));
    poller.set_enabled(ScheduleKey(1), false, at_ms(27));
    poller.set_enabled(ScheduleKey(1), true, at_ms(28));
    let ticket = due(&mut poller, at_ms(28));
    assert_eq!(poller.beginning(0), answers(5));
    skip(&mut poller, ticket, at_ms(29));
    assert!(!due(&mut poller, at_ms(120_000)).is_noted);
}

#[test]
fn a_call_that_ended_its_process_is_a_failed_one_of_who_has_the_trigger_next() {
    let mut poller = Poller::default();
    let second = Duration::from_secs(1);
    let place = poller.declare("t".into(), Plan { failures_max: Some(2), ..by_ends() }.into(), Mono(0));
    poller.enable(place, &died(), false, now(Mono(0)));
    poller.tell(ending(5, 1), at_ms(1));
    let Turn::Died(died) = poller.next(at_ms(1)) else { panic!("nobody has counted it") };
    assert_eq!((died.ended.failures, died.ended.wait, died.ended.told), (1, Some(second), None));
    assert_eq!(poller.next(at_ms(2)), Turn::Wait, "it is not kept yet");
    poller.rearm(0, None, None, at_ms(2));
    assert_eq!(poller.next(at_ms(1000)), Turn::Wait);
    // Each call is written down until one went well.
    for (at, failed) in [(1001, true), (3001, false)] {
        let ticket = due(&mut poller, at_ms(at));
        assert!(ticket.is_noted && poller.beginning(0).unwrap().is_call, "at {at}");
        let ended = poller.ended(ticket, failed, finish(at_ms(at)), at_ms(at)).unwrap();
        assert_eq!(ended.disable.is_some(), failed);
        if !failed {
            poller.heard(0);
        }
        poller.rearm(0, None, None, at_ms(at));
    }
    poller.tell(ending(6, 1), at_ms(4000));
    assert!(!due(&mut poller, at_ms(4000)).is_noted);
}

#[test]
fn a_call_that_ended_its_process_is_counted_at_once_also_while_its_trigger_backs_off() {
    let second = Duration::from_secs(1);
    let waits = |span_us: i64| grid::Wait { not_before: Wall(span_us), span_us };
    let kept = |wait| grid::Kept { origin_at: Wall(0), last_at: None, wait: Some(wait), heeded_until: None };
    let backing_off = |has_died, failures, span_us| TriggerState {
        has_died,
        failures,
        grid: Some(kept(waits(span_us))),
        ..row(1)
    };
    let mut poller = Poller::default();
    let place = poller.declare("t".into(), by_ends().into(), Mono(0));
    poller.enable(place, &backing_off(true, 2, 2_000_000), false, now(Mono(0)));
    poller.tell(ending(5, 1), at_ms(1));
    let Turn::Died(died) = poller.next(at_ms(1)) else { panic!("nobody has counted it") };
    assert_eq!((died.ended.failures, died.ended.wait), (3, Some(second * 4)));
    poller.rearm(0, None, None, at_ms(2));
    assert_eq!(poller.next(at_ms(4000)), Turn::Wait, "it grows from when that is counted");
    let ticket = due(&mut poller, at_ms(4001));
    poller.ended(ticket, false, finish(at_ms(4001)), at_ms(4001)).unwrap();

    // What it waits then is what is kept, also if it was to wait longer before.
    let mut poller = Poller::default();
    let place = poller.declare("t".into(), by_ends().into(), Mono(0));
    poller.enable(place, &backing_off(true, 0, 3_600_000_000), false, now(Mono(0)));
    poller.tell(ending(5, 1), at_ms(1));
    let Turn::Died(died) = poller.next(at_ms(1)) else { panic!("nobody has counted it") };
    assert_eq!((died.ended.failures, died.ended.wait), (1, Some(second)));
    poller.rearm(0, None, None, at_ms(2));
    due(&mut poller, at_ms(1001));
}

#[test]
fn what_others_have_asked_for_ends_a_wait_that_was_taken_over() {
    let mut poller = Poller::default();
    let place = poller.declare("t".into(), by_ends().into(), Mono(0));
    let wait = grid::Wait { not_before: Wall(3_600_000_000), span_us: 3_600_000_000 };
    let kept = grid::Kept { origin_at: Wall(0), last_at: None, wait: Some(wait), heeded_until: None };
    poller.enable(place, &TriggerState { failures: 5, grid: Some(kept), ..row(1) }, false, now(Mono(0)));
    poller.tell(ending(5, 1), at_ms(1));
    assert_eq!(poller.next(at_ms(1)), Turn::Wait);
    poller.asked(ScheduleKey(1), 1, at_ms(2));
    let ticket = due(&mut poller, at_ms(2));
    poller.ended(ticket, false, finish(at_ms(3)), at_ms(3)).unwrap();
    poller.heard(0);
    poller.rearm(0, None, None, at_ms(3));
    poller.tell(ending(6, 1), at_ms(4));
    due(&mut poller, at_ms(4));
}

fn died() -> TriggerState {
    TriggerState { has_died: true, ..row(1) }
}

/// One that is to be told of the end of a run, after its process ended in a call about one.
fn after_a_death() -> Poller {
    let mut poller = Poller::default();
    let place = poller.declare("t".into(), by_ends().into(), Mono(0));
    poller.enable(place, &died(), false, now(Mono(0)));
    poller.tell(ending(5, 1), at_ms(1));
    poller
}

#[test]
fn a_call_by_hand_stands_above_the_one_that_ended_its_process_before() {
    let mut poller = after_a_death();
    let ticket = poller.poll_now(0, at_ms(1)).expect("it is not busy");
    poller.ended(ticket, false, finish(at_ms(2)), at_ms(2)).unwrap();
    poller.heard(0);
    poller.rearm(0, None, None, at_ms(2));
    // The end behind it is not charged with that.
    poller.tell(ending(6, 1), at_ms(3));
    due(&mut poller, at_ms(3));
}

#[test]
fn an_end_is_not_charged_with_the_call_about_another_one_that_was_skipped() {
    let mut poller = after_a_death();
    poller.set_cursor(ScheduleKey(1), None, 1);
    poller.tell(ending(6, 1), at_ms(2));
    let ticket = due(&mut poller, at_ms(2));
    let ended = poller.ended(ticket, false, finish(at_ms(3)), at_ms(3)).unwrap();
    assert_eq!(ended.failures, 0);
    poller.heard(0);
    poller.rearm(0, None, None, at_ms(3));
    // Nor if the row was read before that.
    poller.enable(0, &died(), false, now(Mono(4)));
    poller.tell(ending(7, 1), at_ms(5));
    due(&mut poller, at_ms(5));
}

#[test]
fn what_is_told_of_ends_is_told_at_once_if_that_is_asked_for_and_of_none_if_none_waits() {
    let mut poller = poller(vec![by_ends()]);
    poller.asked(ScheduleKey(1), 1, at_ms(0));
    assert_eq!((poller.next(at_ms(1)), poller.next_due()), (Turn::Wait, None));
    poller.tell(ending(5, 1), at_ms(2));
    let Turn::Poll(ticket) = poller.next(at_ms(2)) else { panic!("it is told") };
    poller.ended(ticket, true, finish(at_ms(3)), at_ms(3)).expect("its poll counts");
    poller.rearm(0, None, None, at_ms(4));
    assert_eq!(poller.next(at_ms(5)), Turn::Wait);
    poller.asked(ScheduleKey(1), 2, at_ms(6));
    assert!(matches!(poller.next(at_ms(6)), Turn::Poll(_)), "it does not wait for its back-off");
}

#[test]
fn the_wish_of_a_poll_that_was_asked_for_counts_from_that_poll() {
    let mut poller = poller(vec![plan(100)]);
    let wishing =
        |millis: u64, wish: u64| Finish { pause: Some(Duration::from_millis(wish)), ..finish(at_ms(millis)) };
    // Shorter than what was wished for before, longer, and a failure in a tick by hand: the newest counts.
    let ticket = due(&mut poller, at_ms(100));
    poller.skipped(ticket, "", wishing(100, 1000), at_ms(100));
    poller.poll_soon(0, at_ms(750));
    let ticket = due(&mut poller, at_ms(750));
    poller.skipped(ticket, "", wishing(750, 1000), at_ms(751));
    assert_eq!(poller.next(at_ms(1749)), Turn::Wait, "the wish of the first poll would be over");
    let ticket = due(&mut poller, at_ms(1800));
    poller.skipped(ticket, "", wishing(1800, 3000), at_ms(1800));
    let ticket = poller.poll_now(0, at_ms(2010)).expect("it is not busy");
    poller.skipped(ticket, "", wishing(2010, 200), at_ms(2011));
    assert_eq!(due(&mut poller, at_ms(2300)).due, at_ms(2300), "the first beat after 2,210");
}

#[test]
fn a_poll_that_is_wanted_is_not_lost_when_the_trigger_is_declared_again() {
    for is_in_flight in [true, false] {
        let mut poller = poller(vec![plan(1000)]);
        let ticket = is_in_flight.then(|| due(&mut poller, at_ms(1000)));
        poller.poll_soon(0, at_ms(1100));
        poller.declare("t".into(), Arc::new(plan(1000)), at_ms(1200));
        poller.supersede(0, 1);
        poller.enable(1, &row(1), false, now(at_ms(1201)));
        if let Some(ticket) = ticket {
            skip(&mut poller, ticket, at_ms(1300));
        }
        assert_eq!(due(&mut poller, at_ms(1310)).place, 1);
    }
}

#[test]
fn a_wait_that_an_earlier_process_began_is_told_of() {
    let mut poller = poller(vec![plan(100)]);
    poller.declare("u".into(), Arc::new(plan(100)), at_ms(10));
    let wait = grid::Wait { not_before: Wall(5_000_000), span_us: 5_000_000 };
    let kept = grid::Kept {
        origin_at: Wall(0),
        heeded_until: Some(Wall(0)),
        last_at: Some(Wall(0)),
        wait: Some(wait),
    };
    poller.enable(1, &TriggerState { grid: Some(kept), ..row(2) }, false, now(at_ms(20)));
    let standing = poller.standing(ScheduleKey(2)).expect("it is declared");
    assert!(standing.backs_off && standing.goes_on && standing.due >= Some(at_ms(5000)), "{standing:?}");
    assert!(!poller.standing(ScheduleKey(1)).expect("it is declared").backs_off);
}

#[test]
fn failures_go_on_where_they_were_kept_and_a_recovery_is_kept_at_once() {
    let mut poller = poller(vec![plan(1000), plan(1000)]);
    let wait = grid::Wait { not_before: Wall(5_000_000), span_us: 5_000_000 };
    let kept = grid::Kept { origin_at: Wall(0), heeded_until: None, last_at: None, wait: Some(wait) };
    let row = TriggerState { failures: 7, grid: Some(kept), ..row(2) };
    // What is known of one that has been polled here is newer.
    poller.enable(1, &row, false, now(at_ms(10)));
    assert_eq!(poller.failing(1), 0);
    poller.park(1, at_ms(15));
    poller.enable(1, &row, false, now(at_ms(20)));
    let standing = poller.standing(ScheduleKey(2)).expect("it is declared");
    assert!(standing.backs_off && !standing.goes_on && standing.failures == 7, "{standing:?}");
    assert!(standing.due >= Some(at_ms(5000)) && standing.due <= Some(at_ms(5100)), "{standing:?}");
    poller.set_enabled(ScheduleKey(1), false, at_ms(20));
    let ticket = due(&mut poller, at_ms(5100));
    assert_eq!(poller.tick_state(ticket.place).failures, 7);
    let ended = poller.ended(ticket, true, finish(at_ms(5100)), at_ms(5100)).expect("it counts");
    assert_eq!(ended.failures, 8);
    poller.rearm(1, None, None, at_ms(5100));
    let again = poller.standing(ScheduleKey(2)).and_then(|standing| standing.due).expect("it is armed");
    let ticket = due(&mut poller, again);
    let written = poller.skipped(ticket, "", finish(again), again);
    let [written] = &*written else { panic!("it goes well again: {written:?}") };
    assert_eq!((written.schedule, written.count, poller.failing(1)), (ScheduleKey(2), 1, 0));
}

#[test]
fn a_wait_lasts_as_long_where_it_is_heard_late_that_the_trigger_is_on() {
    let failed = |row: &TriggerState| TriggerState { enabled: false, ..row.clone() };
    for (failures, waits_until_ms) in [(1, 1_100), (2, 1_350)] {
        let mut poller = Poller::default();
        let place = poller.declare("t".into(), plan(100).into(), Mono(0));
        poller.enable(place, &row(1), false, now(at_ms(0)));
        let ticket = due(&mut poller, at_ms(100));
        poller.ended(ticket, true, finish(at_ms(150)), at_ms(150)).expect("it counts");
        // It was declared again before its tick is kept; what was read of its row then may be old.
        poller.enable(place, &failed(&row(1)), false, now(at_ms(200)));
        poller.rearm(place, None, None, at_ms(250));
        // How often it had failed, and until when it waits: as is known here, and as another owner has left it meanwhile.
        let wait = grid::Wait { not_before: Wall(waits_until_ms * 1_000), span_us: 2_000_000 };
        let read = Now { mono: at_ms(350), wall: Wall(350_000) };
        poller.switch(ScheduleKey(1), true, Some((failures, Some(wait))), read);
        assert_eq!(poller.failing(place), failures);
        let due = poller.next_due().expect("it is on");
        let until = at_ms(waits_until_ms.unsigned_abs());
        assert!(due >= until && due <= until.after(Duration::from_millis(100)), "{due:?} after {failures}");
    }
}

#[test]
fn what_is_known_to_be_on_only_after_it_changed_hands_goes_on_failing_and_waiting() {
    let wait = grid::Wait { not_before: Wall(5_000_000), span_us: 5_000_000 };
    let kept =
        grid::Kept { origin_at: Wall(0), heeded_until: None, last_at: Some(Wall(0)), wait: Some(wait) };
    let is_off = TriggerState { enabled: false, grid: Some(kept), ..row(1) };
    let switch = |poller: &mut Poller, failures| {
        let now = Now { mono: at_ms(20), wall: Wall(20_000) };
        poller.switch(ScheduleKey(1), true, failures, now);
    };
    for plan in [plan(100), by_ends()] {
        // As it was read since, and as it was taken over where what was read is older than that; also what waits by its own wish.
        for (failures, read) in [(3, Some((3, Some(wait)))), (3, None), (0, Some((0, Some(wait)))), (0, None)]
        {
            let mut poller = Poller::default();
            let place = poller.declare("t".into(), plan.clone().into(), Mono(0));
            poller.enable(place, &TriggerState { failures, ..is_off.clone() }, false, now(at_ms(10)));
            poller.tell(ending(5, 1), at_ms(11));
            switch(&mut poller, read);
            assert_eq!(poller.failing(place), failures);
            let due = poller.next_due().expect("it is on");
            assert!(due >= at_ms(4_990) && due <= at_ms(5_200), "{due:?} after {failures}, {read:?}");
        }
        // Somebody has switched it on meanwhile.
        let mut poller = Poller::default();
        let place = poller.declare("t".into(), plan.into(), Mono(0));
        poller.enable(place, &TriggerState { failures: 3, ..is_off.clone() }, false, now(at_ms(10)));
        poller.tell(ending(5, 1), at_ms(11));
        switch(&mut poller, Some((0, None)));
        assert_eq!(poller.failing(place), 0);
        assert!(poller.next_due() <= Some(at_ms(1_100)), "{:?}", poller.next_due());
        switch(&mut poller, Some((3, Some(wait))));
        assert_eq!(poller.failing(place), 0, "what is known of one that is on is newer");
    }
}

#[test]
fn a_poll_at_the_start_is_written_down_at_once() {
    let mut poller = poller(vec![Plan { polls_at_start: true, ..plan(1000) }, plan(10)]);
    let ticket = due(&mut poller, at_ms(0));
    let written = poller.skipped(ticket, "", finish(at_ms(1)), at_ms(1));
    let [written] = &*written else { panic!("it is the first: {written:?}") };
    assert_eq!((written.schedule, written.count), (ScheduleKey(1), 1));
    let ticket = due(&mut poller, at_ms(20));
    assert_eq!((ticket.place, poller.skipped(ticket, "", finish(at_ms(20)), at_ms(20))), (1, Vec::new()));
}

#[test]
fn a_poll_in_flight_counts_though_its_row_may_be_older_than_news() {
    let mut poller = poller(vec![plan(100)]);
    let ticket = due(&mut poller, at_ms(100));
    // Off until it is known which of them is newer, as a second answer of the store may say.
    poller.enable(0, &TriggerState { enabled: false, ..row(1) }, false, now(at_ms(110)));
    assert!(poller.ended(ticket, false, finish(at_ms(120)), at_ms(120)).is_some());
    assert_eq!(poller.next(at_ms(1000)), Turn::Wait, "it is off");
}

#[test]
fn what_was_noted_of_a_place_before_it_was_taken_back_is_not_told() {
    let mut poller = poller(vec![plan(100), plan(100)]);
    poller.hand_on(0);
    poller.hand_on(1);
    poller.enable(0, &row(1), false, now(Mono(0)));
    let ticket = due(&mut poller, at_ms(100));
    assert_eq!(ticket.place, 0);
    poller.hand_on(0);
    assert_eq!(poller.take_vacated(), [(1, false)], "its body runs");
    skip(&mut poller, ticket, at_ms(110));
    assert_eq!(poller.take_vacated(), [(0, false)]);
}

fn ending(key: i64, listener: i64) -> Ending {
    Ending {
        key: EndKey(key),
        listener: ScheduleKey(listener),
        run: Uuid::nil(),
        number: 1,
        status: RunStatus::Failed,
        ended_at: Wall(0),
        depth: 3,
        kept: None,
    }
}

fn by_ends() -> Plan {
    Plan { by_ends: true, ..plan(1000) }
}

#[test]
fn what_is_told_of_ends_is_polled_for_each_of_them_and_not_otherwise() {
    let mut poller = poller(vec![by_ends()]);
    assert_eq!((poller.next(at_ms(60_000)), poller.next_due()), (Turn::Wait, None));
    poller.tell(ending(5, 1), at_ms(60_000));
    let Turn::Poll(ticket) = poller.next(at_ms(60_000)) else { panic!("there is an end to tell") };
    assert_eq!(poller.tick_state(0).ending.map(|ending| ending.key), Some(EndKey(5)));
    // Another one waits.
    poller.tell(ending(6, 1), at_ms(60_000));
    let ended = poller.ended(ticket, false, finish(at_ms(60_001)), at_ms(60_001)).unwrap();
    assert_eq!(ended.told, Some(Told { end: EndKey(5), depth: 4 }));
    poller.heard(0);
    poller.rearm(0, None, None, at_ms(60_002));
    assert_eq!(poller.next_due(), None);
    // What was read before that was kept is not told again.
    poller.tell(ending(5, 1), at_ms(60_003));
    assert_eq!(poller.next_due(), None);
    poller.tell(ending(6, 1), at_ms(60_003));
    assert!(matches!(poller.next(at_ms(60_003)), Turn::Poll(_)));
}

#[test]
fn what_failed_for_an_end_is_told_of_it_again_after_its_back_off() {
    let mut poller = poller(vec![by_ends()]);
    poller.tell(ending(5, 1), at_ms(0));
    for (from, wait) in [(0, 1000), (1000, 2000), (3000, 4000)] {
        let Turn::Poll(ticket) = poller.next(at_ms(from)) else { panic!("it is told at {from}") };
        assert_eq!(poller.ended(ticket, true, finish(at_ms(from)), at_ms(from)).unwrap().told, None);
        poller.rearm(0, None, None, at_ms(from));
        assert_eq!(poller.next(at_ms(from + wait - 1)), Turn::Wait);
    }
}

/// Fails for the end 5 until it waits for long.
fn failing() -> Poller {
    let mut poller = poller(vec![Plan { failures_max: Some(3), ..by_ends() }]);
    poller.tell(ending(5, 1), at_ms(0));
    for from in [0, 1000] {
        let Turn::Poll(ticket) = poller.next(at_ms(from)) else { panic!("it is told at {from}") };
        poller.ended(ticket, true, finish(at_ms(from)), at_ms(from)).unwrap();
        poller.rearm(0, None, None, at_ms(from));
    }
    poller
}

#[test]
fn what_is_moved_past_an_end_that_it_failed_at_waits_for_nothing_but_the_next_one() {
    let mut poller = failing();
    poller.set_cursor(ScheduleKey(1), None, 1);
    assert_eq!((poller.next_due(), poller.failing(0)), (None, 0));
    poller.tell(ending(6, 1), at_ms(1100));
    assert!(matches!(poller.next(at_ms(1100)), Turn::Poll(_)));
    // What is known counts once.
    let mut poller = failing();
    poller.set_cursor(ScheduleKey(1), None, 1);
    poller.set_cursor(ScheduleKey(1), None, 1);
    poller.tell(ending(6, 1), at_ms(1100));
    poller.set_cursor(ScheduleKey(1), None, 1);
    assert_eq!(poller.next_due(), Some(at_ms(1100)));
    // What is polled waits on.
    let mut polled = self::poller(vec![plan(1000)]);
    let Turn::Poll(ticket) = polled.next(at_ms(1000)) else { panic!("it is due") };
    polled.ended(ticket, true, finish(at_ms(1000)), at_ms(1000)).unwrap();
    polled.rearm(0, None, None, at_ms(1000));
    polled.set_cursor(ScheduleKey(1), None, 1);
    assert_eq!((polled.failing(0), polled.next_due().is_some()), (1, true));
}

#[test]
fn a_call_about_an_end_that_is_skipped_meanwhile_is_no_failure_and_wishes_for_nothing() {
    for (failed, is_known) in [(true, true), (true, false), (false, true)] {
        let mut poller = failing();
        let Turn::Poll(ticket) = poller.next(at_ms(3000)) else { panic!("it is told again") };
        if is_known {
            poller.set_cursor(ScheduleKey(1), None, 1);
        }
        let asked =
            Finish { pause: Some(Duration::from_secs(60)).filter(|_| !failed), ..finish(at_ms(3000)) };
        let ended = poller.ended(ticket, failed, asked, at_ms(3000)).unwrap();
        assert_eq!(ended.disable.is_some(), !is_known, "who does not know yet counts it");
        assert_eq!((ended.cursor_set, ended.wait.is_none()), (0, is_known));
        // As the store answers.
        poller.set_cursor(ScheduleKey(1), None, 1);
        poller.rearm(0, None, None, at_ms(3001));
        poller.tell(ending(6, 1), at_ms(3001));
        assert_eq!((poller.failing(0), poller.next_due()), (0, Some(at_ms(3001))));
    }
}

#[test]
fn what_timed_out_over_an_end_that_is_skipped_meanwhile_is_not_told_of_it_as_its_body_returns() {
    for is_known in [true, false] {
        let mut poller = poller(vec![Plan { timeout: Some(Duration::from_secs(1)), ..by_ends() }]);
        poller.tell(ending(5, 1), at_ms(0));
        let Turn::Poll(ticket) = poller.next(at_ms(0)) else { panic!("there is an end to tell") };
        if is_known {
            poller.set_cursor(ScheduleKey(1), None, 1);
        }
        assert!(matches!(poller.next(at_ms(1000)), Turn::TimedOut(_)));
        poller.set_cursor(ScheduleKey(1), None, 1);
        poller.rearm(0, None, None, at_ms(1001));
        poller.tell(ending(6, 1), at_ms(1001));
        assert_eq!(poller.ended(ticket, false, finish(at_ms(9000)), at_ms(9000)), None);
        assert_eq!((poller.failing(0), poller.next_due()), (0, None));
        poller.tell(ending(6, 1), at_ms(9001));
        assert_eq!(poller.next_due(), Some(at_ms(9001)));
    }
}

#[test]
fn what_only_looked_at_an_end_leaves_it() {
    let mut poller = poller(vec![by_ends()]);
    poller.set_enabled(ScheduleKey(1), false, at_ms(0));
    poller.tell(ending(5, 1), at_ms(0));
    let ticket = poller.poll_now(0, at_ms(1)).unwrap();
    assert!(poller.is_told(0));
    poller.looked(ticket, at_ms(2));
    assert_eq!(poller.next(at_ms(10_000)), Turn::Wait);
    poller.set_enabled(ScheduleKey(1), true, at_ms(10_000));
    assert!(matches!(poller.next(at_ms(10_000)), Turn::Poll(_)));
}

#[test]
fn what_waited_in_the_process_before_goes_on_to() {
    let mut poller = Poller::default();
    let place = poller.declare("t".into(), by_ends().into(), Mono(0));
    let wait = Some(grid::Wait { not_before: Wall(2_000_000), span_us: 5_000_000 });
    let kept = grid::Kept { origin_at: Wall(0), heeded_until: None, last_at: Some(Wall(0)), wait };
    poller.enable(place, &TriggerState { grid: Some(kept), ..row(1) }, false, now(Mono(0)));
    assert_eq!(poller.next_due(), None);
    poller.tell(ending(5, 1), at_ms(0));
    assert_eq!(poller.next(at_ms(1_999)), Turn::Wait);
    assert!(matches!(poller.next(at_ms(2_001)), Turn::Poll(_)));
}

#[test]
fn of_a_wait_that_a_clock_ahead_began_there_is_no_more_left_than_it_was_to_be() {
    let mut poller = Poller::default();
    let place = poller.declare("t".into(), by_ends().into(), Mono(0));
    let wait = Some(grid::Wait { not_before: Wall(86_400_000_000), span_us: 5_000_000 });
    let kept = grid::Kept { origin_at: Wall(0), heeded_until: None, last_at: None, wait };
    poller.enable(place, &TriggerState { grid: Some(kept), ..row(1) }, false, now(Mono(0)));
    poller.tell(ending(5, 1), at_ms(0));
    assert_eq!(poller.next(at_ms(4_999)), Turn::Wait);
    assert!(matches!(poller.next(at_ms(5_001)), Turn::Poll(_)));
}

#[test]
fn skips_of_many_reasons_leave_together_and_in_their_order() {
    let mut poller = poller(vec![plan(10)]);
    let told = |history: &[Stretch]| -> Vec<_> {
        history.iter().map(|stretch| (stretch.reason.to_string(), stretch.count)).collect()
    };
    let skips = |poller: &mut Poller, times: std::ops::Range<u64>| -> Vec<Stretch> {
        let mut left = Vec::new();
        for time in times {
            let at = at_ms(10 * (time + 1));
            let ticket = due(poller, at);
            // Each third has none.
            let reason = if time % 3 == 0 { String::new() } else { time.to_string() };
            left.extend(poller.skipped(ticket, &reason, finish(at), at));
        }
        left
    };
    let expected = |times: std::ops::Range<u64>| -> Vec<_> {
        times.map(|time| (if time % 3 == 0 { String::new() } else { time.to_string() }, 1)).collect()
    };
    let most = ENDED_MAX as u64;
    assert_eq!(skips(&mut poller, 0..most), []);
    assert_eq!(told(&skips(&mut poller, most..most + 1)), expected(0..most));
    assert_eq!(skips(&mut poller, most + 1..most + 7), []);
    assert_eq!(poller.meter().triggers[0].1.skips, most + 7);
    assert_eq!(told(&poller.take_history()), expected(most..most + 7));
    assert_eq!(poller.meter().triggers[0].1.skips, most + 7);
    // What is more than a skip takes along what was before it.
    assert_eq!(skips(&mut poller, most + 7..most + 10), []);
    let at = at_ms(10 * (most + 11));
    let ticket = due(&mut poller, at);
    let ended = poller.ended(ticket, true, finish(at), at).expect("it counts");
    assert_eq!(told(&ended.history), expected(most + 7..most + 10));
}

#[test]
fn a_wait_that_was_kept_from_here_goes_on_where_the_trigger_comes_on_as_it_was_read() {
    let mut poller = poller(vec![plan(100)]);
    let at = at_ms(100);
    let ticket = due(&mut poller, at);
    poller.set_enabled(ScheduleKey(1), false, at);
    let wish = Finish { pause: Some(Duration::from_millis(950)), ..finish(at) };
    poller.waited(ticket, wish, at).expect("it counts");
    poller.rearm(ticket.place, None, None, at);
    let kept = grid::Wait { not_before: Wall(1_050_000), span_us: 950_000 };
    let now = Now { mono: at_ms(120), wall: Wall(120_000) };
    poller.switch(ScheduleKey(1), true, Some((0, Some(kept))), now);
    let due = poller.next_due().expect("it is on");
    assert!(due >= at_ms(1_049), "{due:?}");
}
