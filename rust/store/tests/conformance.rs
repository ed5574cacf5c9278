//! What the trait `Store` promises, claim by claim, over memory and over a file.

#[path = "support/postgres.rs"]
mod server;
#[path = "support/records.rs"]
mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cloaca_core::admit::Overlap;
use cloaca_core::grid::{CATCH_UP_US, Kept, Wait};
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::limit::{Concurrency, Key, Limits, Overflow, Rate};
use cloaca_core::past::Passage;
use cloaca_core::port::{
    Admitted, AsItWas, BURIED, Beginning, Body, By, CallFate, Catchup, Cell, Change, Child, CronMove,
    CronStats, End, Fault, Forgotten, Halt, InFlight, LastCall, Line, Logged, MINUTES_KEPT_US, Maker, Minute,
    Moment, NewCron, NewRun, Old, OnRun, Origin, Outcome, Outcomes, Overdue, Page, Parent, Place,
    REDACTED_KEYS_MAX, Receipt, Redacted, Renamed, Room, RunChange, RunEnd, RunFilter, RunStatus, STAND_IN,
    Schedule, ScheduleFilter, ScheduleKind, Settled, Sign, Spared, Spent, Store, Stored, Stretch,
    TRIES_FIRST_MAX, TRIES_LAST_MAX, TaskRecord, TaskStatus, Terms, TickChange, TriggerRow, TriggerState,
    Try, TryOutcome, Unfinished, Unwanted, Wished, WorkflowRow,
};
use cloaca_core::seat::{self, Ask, Differs, Limit, ListedLimit, Pause, Seat, Until};
use cloaca_core::spread::owner_of;
use cloaca_core::time::Wall;
use cloaca_core::urgency::Priority;
use support::*;
use uuid::Uuid;

/// Every claim, once over each kind of store.
macro_rules! claims {
    ($($claim:ident)*) => {
        mod memory {
            $(#[test] fn $claim() { super::$claim(&*crate::support::memory()); })*
        }
        mod file {
            $(#[test] fn $claim() {
                let folder = crate::support::Folder::new();
                super::$claim(&*folder.open("runs.db"));
            })*
        }
        mod postgres {
            $(#[test] fn $claim() { super::on_a_server(super::$claim); })*
        }
    };
}

fn on_a_server(claim: fn(&dyn Store)) {
    if let Some(database) = server::Database::new() {
        claim(&*cloaca_store::open(database.url(), None).unwrap().store);
    }
}

/// Claims about SQL of one kind of store.
mod sqlite {

    macro_rules! claims {
        ($($claim:ident)*) => {
            mod memory {
                $(#[test] fn $claim() { super::super::$claim(&*crate::support::memory()); })*
            }
            mod file {
                $(#[test] fn $claim() {
                    let folder = crate::support::Folder::new();
                    super::super::$claim(&*folder.open("runs.db"));
                })*
            }
        };
    }

    claims! {
        a_query_returns_every_type
        a_query_that_writes_is_refused
        an_export_holds_everything
        an_export_never_overwrites
        an_export_into_no_folder_is_refused
    }
}

claims! {
    every_epoch_is_larger_than_those_before
    who_leaves_gives_up_its_runs_without_an_interruption
    who_leaves_keeps_what_still_has_a_body
    unfinished_runs_without_a_living_owner_are_counted_by_workflow
    who_was_taken_for_dead_is_told_and_gets_nothing
    who_leaves_keeps_a_trigger_whose_poll_is_in_flight
    of_those_that_left_a_hundred_of_each_kind_are_kept
    a_batch_has_a_receipt_for_each_change_in_order
    a_batch_that_fails_leaves_nothing_behind
    a_declared_trigger_keeps_its_switch_and_cursor
    a_declaration_without_a_change_is_no_update
    the_grid_of_a_trigger_outlives_its_owner
    a_trigger_that_is_let_go_is_free_for_others
    a_trigger_that_is_let_go_is_left_to_whose_it_is_by_right
    what_is_wanted_is_told_to_who_has_it_and_what_is_granted_to_who_wanted_it
    only_who_declares_the_version_that_is_polled_contests_a_trigger
    who_is_let_begin_later_is_told_of_until_then
    crons_are_told_with_all_who_may_run_them
    what_an_owner_heeded_is_told_to_the_next
    of_two_versions_the_one_declared_last_for_the_first_time_is_polled
    who_declares_an_older_version_again_tells_whoever_stood_behind_it
    a_trigger_and_a_cron_of_one_name_are_versions_of_it
    of_a_cron_the_version_declared_last_for_the_first_time_is_in_force
    a_cron_stays_in_its_version_while_its_owner_decides_a_moment
    who_waits_for_what_an_older_cron_decides_says_so_once
    of_many_versions_the_last_are_remembered
    a_wait_is_kept_until_the_next_tick_or_switch
    failures_are_kept_until_a_poll_goes_well_or_a_switch
    an_owner_who_left_declares_and_starts_nothing
    a_tick_keeps_cursor_runs_and_history_together
    a_tick_without_a_new_cursor_keeps_the_old_one
    a_rehearsal_says_what_the_tick_does_and_leaves_nothing
    a_rehearsed_moment_of_a_cron_says_what_it_comes_to_and_leaves_nothing
    a_stand_in_rehearses_what_another_polls_or_nobody_has_declared
    a_rehearsal_that_fails_leaves_the_store_usable
    a_tick_under_an_old_epoch_changes_nothing
    an_equal_run_that_ended_since_stands_in_the_way
    fires_of_one_tick_meet_what_they_would_meet_one_after_another
    ends_of_one_transaction_share_a_number
    the_cursor_of_a_row_stops_at_what_was_dropped
    a_used_key_passes_where_there_is_no_room
    what_is_refused_takes_no_place_from_what_comes_behind_it
    another_kind_of_trigger_waits_for_nothing_that_the_one_before_asked_for
    a_tick_of_an_unknown_trigger_is_fenced
    two_unfinished_runs_of_a_trigger_never_share_a_hash
    one_tick_does_not_fire_the_same_hash_twice
    a_hash_is_free_again_once_its_run_is_final
    runs_that_are_not_unique_share_a_hash
    a_hash_that_guards_is_not_free_while_a_run_from_before_has_it
    another_trigger_may_use_the_same_hash
    eight_threads_with_one_hash_start_one_run
    a_run_key_starts_one_run_even_after_its_end
    a_run_key_is_free_at_the_moment_it_expires
    a_fire_refused_by_its_hash_does_not_use_its_run_key
    the_run_key_is_asked_before_the_hash
    a_fire_notes_when_a_run_was_last_fired
    a_tick_of_which_nothing_came_is_kept_as_a_skip
    a_tick_may_disable_its_trigger
    a_moment_of_a_cron_starts_one_run
    a_start_moves_the_cron
    a_moment_is_decided_by_one_owner_at_a_time
    a_moment_that_is_over_is_not_decided_again
    who_decides_a_moment_is_told_of_all_its_unfinished_runs
    a_run_id_is_used_once
    a_run_begins_with_its_first_task
    a_task_record_is_replaced_in_its_place
    what_a_task_waits_for_and_has_left_is_kept_while_it_is_open
    a_final_run_takes_no_more_changes
    a_run_of_another_owner_takes_no_changes
    a_runs_end_is_kept_whole
    how_attempts_ended_is_kept_with_who_made_them
    of_many_attempts_the_first_and_the_last_are_kept
    attempts_outlive_a_takeover_and_being_opened_again
    a_run_of_which_a_body_still_runs_is_not_opened_again
    a_body_that_still_runs_stays_with_what_its_owner_leaves
    who_drives_no_run_writes_none_of_its_attempts
    a_seat_goes_to_who_asked_first_and_to_the_next_when_it_is_free
    a_seat_is_asked_for_by_who_drives_the_run
    a_throttle_says_when_the_next_attempt_may_begin
    seats_of_the_dead_are_free_and_those_of_bodies_in_flight_pass_on
    a_limit_that_was_set_holds_until_that_is_taken_back
    what_is_paused_begins_when_that_is_over_or_taken_back
    who_gave_a_run_up_is_not_told_of_as_who_had_it
    what_workflows_were_is_kept_as_long_as_runs_refer_to_it
    an_end_is_told_once_to_who_declares_the_callback
    ends_of_workflows_that_are_left_out_are_not_handed_out
    an_end_without_a_callback_is_told_nobody
    an_end_by_a_strangers_cancel_is_told_too
    an_end_whose_callback_only_they_had_who_are_gone_waits_no_more
    a_trigger_is_told_each_end_once
    a_trigger_is_told_no_end_that_came_before_it_or_that_it_does_not_want
    a_tick_about_an_end_that_has_been_told_leaves_nothing
    an_end_that_is_skipped_is_not_told_and_what_failed_at_it_is_forgotten
    of_a_run_that_ended_twice_the_first_end_is_skipped
    a_tick_about_an_end_that_limits_cannot_count_leaves_the_end
    a_poll_that_is_asked_for_stands_until_one_begins_whoever_has_the_trigger
    a_call_about_an_end_that_ended_its_process_is_the_next_owners_to_count
    a_trigger_is_told_of_a_run_that_was_opened_again_as_it_was
    a_trigger_that_is_off_or_anothers_is_told_nothing
    what_a_trigger_wants_no_more_it_is_told_once_it_wants_that_again
    what_a_trigger_has_not_wanted_for_long_is_forgotten
    a_run_is_kept_for_a_trigger_that_somebody_serves
    what_one_has_in_hand_is_nobody_elses_until_it_is_gone
    what_its_process_ended_with_is_told_one_at_a_time
    who_has_no_callback_for_an_end_is_not_told_of_it
    of_each_workflow_one_is_told_again_that_its_process_ended_with_and_what_that_did_twice_alone
    a_call_that_failed_waits_for_its_own_time
    a_call_that_waits_since_the_clock_was_ahead_waits_no_longer_than_it_was_to
    a_pause_counts_by_the_clock_of_who_began_it_while_that_one_may_tell
    an_end_from_a_clock_that_was_ahead_is_told_at_once
    to_open_a_run_again_withdraws_calls_that_have_not_begun
    a_call_that_came_to_nothing_is_not_made_again_for_a_run_that_was_opened_meanwhile
    a_callback_that_nobody_declares_for_a_while_misses_nothing
    what_nobody_has_declared_for_long_is_told_to_nobody
    a_callback_is_not_dropped_for_a_time_in_which_nobody_declared_its_workflow
    what_became_of_a_callback_stays_with_its_run
    an_end_that_is_given_back_is_told_by_whoever_declares_its_callback
    a_callback_that_waits_is_due_at_once_if_that_is_asked_for
    a_callback_that_waits_is_called_no_more_if_that_is_asked_for
    runs_are_listed_whose_callbacks_wait
    a_run_is_kept_until_its_end_is_told
    a_run_is_not_kept_for_a_callback_that_nobody_has_declared_for_long
    what_was_asked_for_in_a_version_that_nobody_declares_any_more_keeps_it
    a_run_is_of_the_version_with_which_it_went_on_last
    how_much_of_its_time_a_run_has_spent_is_told_to_who_claims_it
    an_empty_progress_only_asks_who_drives
    history_of_equal_outcomes_is_one_row
    history_of_different_outcomes_is_newest_first
    history_alone_notes_the_last_poll
    a_living_owner_keeps_its_runs_and_triggers
    a_wish_to_cancel_is_kept_until_the_run_is_final
    a_run_that_nobody_drives_ends_when_it_is_cancelled
    a_call_starts_one_run_of_its_workflow
    who_is_over_or_is_to_end_calls_nothing
    a_run_is_shown_with_what_it_started
    what_belongs_to_a_run_by_name_is_shown_with_it_and_ends_with_it
    children_are_to_end_with_the_run_that_called_them
    a_run_that_ends_as_cancelled_takes_its_children_along
    a_child_stays_as_long_as_its_parent_and_a_parent_as_long_as_a_child_goes_on
    what_a_run_started_stays_with_it_while_its_run_key_is_in_use
    an_offered_run_is_claimed_by_who_comes
    a_claim_leaves_runs_of_other_workflows_alone
    what_telemetry_hands_on_with_a_run_comes_to_who_claims_it
    a_run_that_has_begun_is_left_to_who_declares_its_version
    a_run_that_has_not_begun_is_of_its_claimers_version
    what_is_old_and_final_can_be_forgotten
    what_bodies_logged_stands_in_its_order_and_goes_with_its_run
    of_what_bodies_logged_the_newest_lines_are_kept_and_the_others_counted
    what_is_opened_again_after_it_was_found_stays
    of_each_triggers_history_the_newest_stay
    a_store_knows_of_its_last_sign_of_life_and_until_when_it_is_spared
    a_run_key_is_forgotten_only_after_its_time
    a_claim_hands_over_what_others_left_unfinished
    a_claim_goes_from_the_oldest_in_steps
    a_claim_takes_what_is_most_urgent_first_whatever_its_workflow
    a_run_without_a_priority_has_the_one_that_its_workflow_was_declared_with
    a_delayed_run_is_nobodys_until_it_is_due
    what_was_to_wait_so_long_waits_no_longer_once_a_clock_that_was_ahead_is_right
    what_was_left_to_others_is_claimed_by_whoever_has_room
    what_is_given_back_is_anyones
    only_what_was_delayed_and_has_not_begun_is_claimed_by_who_takes_nothing_over
    a_delayed_run_holds_its_hash_and_key_and_is_told_as_unfinished
    a_delayed_run_ends_at_once_when_it_is_cancelled_and_is_listed_with_the_others
    a_claim_carries_tasks_in_order_and_the_hash_that_guards
    a_claim_tells_who_waits_for_a_turn
    a_wait_is_cut_short_by_nobody_whose_clock_is_behind
    a_claim_tells_which_earlier_ones_wait_elsewhere
    a_run_that_is_opened_again_stands_behind_what_is_unfinished_whatever_that_waits_for
    of_several_that_are_opened_again_each_finds_its_place
    a_run_that_is_over_and_opened_again_has_moved_behind_what_came_meanwhile
    a_tick_is_told_what_was_opened_again_before_its_fires
    a_fire_is_dropped_beside_a_run_that_was_opened_again
    a_trigger_comes_with_its_unfinished_runs_in_their_order
    runs_that_are_final_or_unknown_have_ended
    a_failed_run_is_opened_again_without_what_failed
    what_comes_after_what_is_undecided_is_undecided_too
    a_task_after_a_reopening_stands_behind_those_that_stayed
    of_several_runs_one_that_is_refused_keeps_none_of_the_others
    a_tick_of_a_poll_that_looked_at_an_older_cursor_is_refused_whole
    only_a_final_run_that_did_not_complete_is_opened_again
    a_run_is_not_opened_again_beside_an_equal_one
    there_is_one_cron_with_a_workflow_expression_and_zone
    a_cron_is_changed_in_place
    a_cron_cannot_become_a_copy_of_another
    what_is_forgotten_leaves_nothing_but_its_runs
    a_trigger_that_another_polls_is_not_forgotten
    a_cron_that_another_declares_is_not_forgotten
    a_trigger_that_another_stands_by_for_is_not_forgotten
    what_is_renamed_takes_along_all_that_hangs_on_it
    a_name_that_is_served_or_taken_is_not_given_away
    a_deleted_cron_leaves_its_runs
    a_cron_that_a_living_owner_declares_is_not_deleted
    a_new_cron_does_not_inherit_a_deleted_ones_runs
    a_declared_cron_is_the_one_of_its_name
    what_was_registered_without_a_name_is_no_declarations
    what_was_registered_by_a_name_is_the_one_of_it
    what_is_declared_and_registered_by_one_name_is_data
    a_schedule_is_switched_with_a_cause
    a_sign_of_life_says_what_was_done_and_is_forgotten_after_a_week
    a_sign_of_life_says_which_polls_do_not_come_back
    what_is_to_be_hidden_adds_up_until_it_is_taken_back
    contexts_of_a_run_and_of_a_trigger_are_found
    schedules_are_listed_in_the_order_of_registration
    schedules_are_walked_by_their_rows
    runs_are_listed_newest_first_and_filtered
    runs_are_found_by_key_time_and_kind_of_error
    pages_that_follow_a_place_show_each_run_once
    runs_are_listed_by_their_ends
    an_unknown_run_trigger_or_cron_is_none
    cron_stats_count_moments_of_all_crons
    what_was_polled_and_is_a_cron_now_goes_on_where_it_was
    a_name_that_becomes_a_cron_or_polled_is_the_others_while_its_body_is_in_flight
    what_was_a_cron_and_is_polled_now_goes_on_where_it_was
    what_is_off_stays_off_when_it_becomes_a_cron_or_is_polled_and_one_switch_serves_both
    since_when_something_is_off_no_edit_moves
    what_is_over_of_a_cron_only_grows
    a_moment_is_borne_by_the_first_that_its_run_key_does_not_refuse
    a_query_with_the_wrong_number_of_parameters_is_refused
    a_query_with_a_typing_error_says_so
    the_store_still_writes_after_a_refused_query
    an_endless_query_ends_when_it_is_told_to
    what_is_asked_after_the_close_is_refused
}

fn every_epoch_is_larger_than_those_before(store: &dyn Store) {
    let first = store.join(Wall(1)).unwrap();
    store.leave(first, &InFlight::default(), Wall(50)).unwrap();
    let second = store.join(Wall(2)).unwrap();
    assert!(second > first && first > Epoch(0));
}

fn who_leaves_gives_up_its_runs_without_an_interruption(store: &dyn Store) {
    let first = store.join(Wall(1)).unwrap();
    started(store, first, new_run(1));
    store.leave(first, &InFlight::default(), Wall(50)).unwrap();
    let second = store.join(Wall(2)).unwrap();
    let claimed = store.claim_runs(second, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!((claimed[0].id, claimed[0].interruptions), (id(1), 0));
}

fn unfinished_runs_without_a_living_owner_are_counted_by_workflow(store: &dyn Store) {
    let (first, second) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    for n in 1..=2 {
        started(store, first, new_run(n));
    }
    started(store, first, NewRun { workflow: "feeds".into(), ..new_run(3) });
    let row = started(store, first, NewRun { workflow: "over".into(), ..new_run(4) });
    commit(store, ended(row, first, RunStatus::Completed));
    started(store, second, NewRun { workflow: "mine".into(), ..new_run(5) });
    assert_eq!(store.deserted(second, 10), Ok(Vec::new()), "their owner lives");
    store.leave(first, &InFlight::default(), Wall(50)).unwrap();
    let deserted = [("feeds".to_owned(), 1), ("mail".to_owned(), 2)];
    assert_eq!(store.deserted(second, 10).unwrap(), deserted);
    assert_eq!(store.deserted(second, 1).unwrap(), deserted[..1]);
}

fn who_leaves_keeps_what_still_has_a_body(store: &dyn Store) {
    let (first, second) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let row = started(store, first, new_run(1));
    started(store, first, new_run(2));
    let remnant = store
        .leave(first, &InFlight { runs: vec![id(1)], triggers: vec![], ends: vec![] }, Wall(50))
        .unwrap()
        .expect("something is kept");
    let claimed = |epoch| {
        let runs = store.claim_runs(epoch, LATE, 10, &["mail".into()]).unwrap();
        runs.into_iter().map(|run| (run.id, run.interruptions)).collect::<Vec<_>>()
    };
    assert_eq!(claimed(second), [(id(2), 0)]);
    assert_eq!(commit(store, ended(row, first, RunStatus::Completed)), Receipt::Fenced);
    assert_eq!(store.leave(remnant, &InFlight::default(), Wall(51)), Ok(None));
    assert_eq!(claimed(second), [(id(1), 0)]);
    assert_eq!(commit(store, ended(row, remnant, RunStatus::Completed)), Receipt::Fenced);
}

fn who_leaves_keeps_a_trigger_whose_poll_is_in_flight(store: &dyn Store) {
    let (first, second) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let inbox = declared(store, first, "inbox");
    declared(store, first, "outbox");
    let kept = InFlight { runs: vec![], triggers: vec![inbox.row], ends: vec![] };
    let remnant = store.leave(first, &kept, Wall(50)).unwrap().expect("something is kept");
    assert_eq!(declared(store, second, "outbox").owner, Some(second));
    assert_eq!(declared(store, second, "inbox").owner, Some(remnant));
    assert_eq!(store.leave(remnant, &InFlight::default(), Wall(51)), Ok(None));
    assert_eq!(declared(store, second, "inbox").owner, Some(second));
    // Another one's it does not hand on.
    let third = store.join(Wall(52)).unwrap();
    store.leave(third, &kept, Wall(53)).unwrap();
    assert_eq!(declared(store, second, "inbox").owner, Some(second));
}

fn of_those_that_left_a_hundred_of_each_kind_are_kept(store: &dyn Store) {
    let comes_and_goes = |works: bool| {
        let epoch = store.join(Wall(1)).unwrap();
        if !works {
            store.stand_by(epoch).unwrap();
        }
        store.leave(epoch, &InFlight::default(), Wall(2)).unwrap();
        epoch
    };
    let worked = comes_and_goes(true);
    let early = comes_and_goes(false);
    for _ in 0..103 {
        let _ = comes_and_goes(false);
    }
    let kept = || store.owners(1000, Wall(0)).unwrap();
    let counts = |works: bool| kept().iter().filter(|owner| owner.works == works).count();
    assert!(kept().iter().any(|owner| owner.epoch == worked), "clients push out no runner");
    assert!(kept().iter().all(|owner| owner.epoch != early));
    assert_eq!((counts(true), counts(false)), (1, 100));
    for _ in 0..103 {
        let _ = comes_and_goes(true);
    }
    assert!(kept().iter().all(|owner| owner.epoch != worked));
    assert_eq!(counts(true), 100);
}

fn who_was_taken_for_dead_is_told_and_gets_nothing(store: &dyn Store) {
    let (first, second) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    started(store, first, new_run(1));
    let ended_run = started(store, first, new_run(2));
    commit(store, ended(ended_run, first, RunStatus::Failed));
    assert!(!store.bury(second).unwrap().is_buried);
    // Whoever took it for dead left in its name.
    store.leave(second, &InFlight::default(), Wall(50)).unwrap();
    assert!(store.bury(second).unwrap().is_buried);
    store.leave(first, &InFlight::default(), Wall(50)).unwrap();
    assert_eq!(store.claim_runs(second, LATE, 10, &["mail".into()]), Err(Fault::Final(BURIED.to_owned())));
    assert_eq!(store.reopen(second, id(2)), Err(Fault::Final(BURIED.to_owned())));
    let third = store.join(Wall(3)).unwrap();
    assert_eq!(store.claim_runs(third, LATE, 10, &["mail".into()]).unwrap().len(), 1);
}

fn a_batch_has_a_receipt_for_each_change_in_order(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let run = new_run(1);
    let receipts = store
        .commit(&[
            Change::History(vec![stretch(trigger.row, Outcome::Skip, "quiet", 1)]),
            Change::Start { epoch, runs: vec![run, new_run(2)], cron: None },
            Change::Tick(tick(&trigger, epoch, vec![])),
            Change::Run(RunChange { run: RunRow(999), epoch, tasks: vec![], end: None }),
        ])
        .unwrap();
    assert_eq!(receipts[0], Receipt::History);
    assert!(matches!(&receipts[1], Receipt::Start(admitted) if admitted.len() == 2));
    assert_eq!(
        receipts[2..],
        [Receipt::Tick { fates: vec![], cursor: None, opened: vec![] }, Receipt::Fenced]
    );
    assert_eq!(store.commit(&[]).unwrap(), []);
}

fn a_batch_that_fails_leaves_nothing_behind(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    started(store, epoch, new_run(1));
    let batch = [start(epoch, new_run(2)), start(epoch, new_run(1))];
    assert!(matches!(store.commit(&batch), Err(Fault::Final(_))));
    assert_eq!(ids(store, &RunFilter::default()), [id(1)]);
    started(store, epoch, new_run(2));
}

fn a_declared_trigger_keeps_its_switch_and_cursor(store: &dyn Store) {
    let first = store.join(Wall(1)).unwrap();
    let trigger = declared(store, first, "inbox");
    assert!(trigger.enabled && trigger.cursor.is_none() && trigger.created_at == Wall(10));
    commit(store, Change::Tick(TickChange { cursor: Some("7".to_owned()), ..tick(&trigger, first, vec![]) }));
    store.set_enabled(trigger.row, false, Some("too many errors"), Wall(15)).unwrap();

    let second = successor(store, first);
    let mut changed = trigger_row("inbox");
    changed.interval_us = 9;
    let again = declare(store, second, changed, Wall(20));
    assert_eq!((again.row, again.id, again.created_at), (trigger.row, trigger.id, Wall(10)));
    assert_eq!(again.kind, ScheduleKind::Trigger { interval_us: 9, allow_concurrent: false });
    assert_eq!((again.enabled, again.cursor.as_deref(), again.updated_at), (false, Some("7"), Wall(20)));
    assert_eq!(again.disabled_cause.as_deref(), Some("too many errors"));
    assert_eq!(commit(store, Change::Tick(tick(&trigger, first, vec![]))), Receipt::Fenced);
}

fn a_declaration_without_a_change_is_no_update(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let first = declare(store, epoch, trigger_row("inbox"), Wall(10));
    let again = declare(store, epoch, trigger_row("inbox"), Wall(20));
    assert_eq!(first, again);
    assert_eq!(store.trigger("inbox").unwrap(), Some(first));
}

/// What is kept of when "inbox" is due, as `epoch` hears of it that declares it at `at`.
fn grid(store: &dyn Store, epoch: Epoch, at: i64) -> Option<Kept> {
    let trigger = TriggerRow { origin_at: Wall(at + 500), ..trigger_row("inbox") };
    match commit(store, Change::Declare { epoch, trigger, at: Wall(at) }) {
        Receipt::Declared(state) => state.grid,
        other => panic!("{other:?} declares nothing"),
    }
}

fn the_grid_of_a_trigger_outlives_its_owner(store: &dyn Store) {
    let first = store.join(Wall(1)).unwrap();
    assert_eq!(grid(store, first, 10), None, "it begins now");
    let kept = Kept { origin_at: Wall(510), heeded_until: None, last_at: None, wait: None };
    assert_eq!(grid(store, first, 20), Some(kept), "who has it missed nothing");
    let second = store.join(Wall(30)).unwrap();
    assert_eq!(grid(store, second, 40).map(|kept| kept.origin_at), Some(Wall(510)));
    store.leave(first, &InFlight::default(), Wall(50)).unwrap();
    let handed_over = Kept { heeded_until: Some(Wall(10)), ..kept };
    assert_eq!(grid(store, second, 60), Some(handed_over), "the first was never seen");
}

fn a_trigger_that_is_let_go_is_free_for_others(store: &dyn Store) {
    let first = store.join(Wall(1)).unwrap();
    declared(store, first, "inbox");
    let second = store.join(Wall(2)).unwrap();
    let let_go = |epoch, at| {
        commit(store, Change::LetGo { epoch, trigger: "inbox".into(), digest: 1, at: Some(Wall(at)) })
    };
    let owner = || store.trigger("inbox").unwrap().unwrap().owner;
    assert_eq!(
        (let_go(second, 20), owner()),
        (Receipt::LetGo, Some(first)),
        "it is not the second's to let go"
    );
    assert_eq!((let_go(first, 30), owner()), (Receipt::LetGo, None));
    let heeded = grid(store, second, 60).and_then(|kept| kept.heeded_until);
    assert_eq!((heeded, owner()), (Some(Wall(30)), Some(second)), "until then it was polled");
    assert_eq!(let_go(first, 70), Receipt::LetGo);
    assert_eq!(owner(), Some(second));
}

fn asked(store: &dyn Store, epoch: Epoch, digest: i64) -> TriggerState {
    asked_for(store, epoch, "inbox", digest)
}

fn asked_for(store: &dyn Store, epoch: Epoch, name: &str, digest: i64) -> TriggerState {
    let trigger = TriggerRow { digest, interval_us: 1_000 * digest, ..trigger_row(name) };
    match commit(store, Change::Declare { epoch, trigger, at: Wall(9) }) {
        Receipt::Declared(state) => state,
        other => panic!("{other:?} declares nothing"),
    }
}

/// Who has it, whether another declares a newer version, and whether others have to hear of this one.
fn standing(state: TriggerState) -> (Option<Epoch>, bool, bool) {
    (state.owner, state.is_outdated, state.is_awaited)
}

fn let_go(store: &dyn Store, epoch: Epoch, digest: i64) {
    let change = Change::LetGo { epoch, trigger: "inbox".into(), digest, at: Some(Wall(30)) };
    assert_eq!(commit(store, change), Receipt::LetGo);
}

fn of_two_versions_the_one_declared_last_for_the_first_time_is_polled(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let ask = |epoch, digest| standing(asked(store, epoch, digest));
    let row = || store.trigger("inbox").unwrap().unwrap();
    let interval = || match row().kind {
        ScheduleKind::Trigger { interval_us, .. } => interval_us,
        other => panic!("{other:?}"),
    };
    assert_eq!(ask(old, 7), (Some(old), false, false));
    assert_eq!(ask(new, 5), (Some(old), false, true), "the old one has to let it go first");
    assert!(row().is_outdated());
    assert_eq!(interval(), 7_000, "whoever polls it does so as it declared");
    assert_eq!(ask(old, 7), (Some(old), true, false), "declared again it is no newer");
    let_go(store, old, 7);
    assert_eq!(ask(old, 7), (None, true, false), "nobody's, until the new one asks");
    assert_eq!(ask(new, 5), (Some(new), false, true));
    assert_eq!((interval(), row().is_outdated()), (5_000, false));
    // The old one is started again.
    store.leave(old, &InFlight::default(), Wall(50)).unwrap();
    let old = store.join(Wall(3)).unwrap();
    assert_eq!(ask(old, 7), (Some(new), false, false), "its version is no newer for that");
    assert!(!row().is_outdated());
    let third = store.join(Wall(4)).unwrap();
    assert_eq!(ask(third, 5), (Some(new), false, false));
    store.leave(new, &InFlight::default(), Wall(60)).unwrap();
    assert_eq!(ask(old, 7), (None, true, false), "a living one declares the newer version");
    assert_eq!(ask(third, 5).0, Some(third));
    store.leave(third, &InFlight::default(), Wall(70)).unwrap();
    assert_eq!(ask(old, 7).0, Some(old), "nobody declares it any more");
    let new = store.join(Wall(5)).unwrap();
    assert_eq!(ask(new, 5), (Some(old), false, true));
    let_go(store, new, 5);
    assert!(!row().is_outdated(), "it is declared no more");
    assert_eq!(ask(old, 7), (Some(old), false, false));
}

/// Names that are that owner's by right, of those.
fn names_of(epoch: Epoch, living: &[Epoch]) -> impl Iterator<Item = String> {
    let names = (0..).map(|number| format!("inbox {number:03}"));
    names.filter(move |name| owner_of(name, living.iter().copied()) == Some(epoch))
}

fn a_trigger_that_is_let_go_is_left_to_whose_it_is_by_right(store: &dyn Store) {
    let living = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    let [first, second, third] = living;
    let name = names_of(third, &living).next().unwrap();
    let ask = |epoch| asked_for(store, epoch, &name, 7).owner;
    let owner = || store.trigger(&name).unwrap().unwrap().owner;
    assert_eq!([first, second, third].map(ask), [Some(first); 3], "who has it goes on");
    let change = Change::LetGo { epoch: first, trigger: name.as_str().into(), digest: 7, at: Some(Wall(30)) };
    assert_eq!(commit(store, change), Receipt::LetGo);
    assert_eq!([second, first].map(ask), [None; 2], "it is left to the third");
    assert_eq!(ask(third), Some(third));
    store.leave(third, &InFlight::default(), Wall(50)).unwrap();
    let [heir, other] = match owner_of(&name, [first, second]) {
        Some(heir) if heir == first => [first, second],
        _ => [second, first],
    };
    assert_ne!(ask(other), Some(other), "of those who are left it is the other's");
    assert_eq!((ask(heir), ask(other), owner()), (Some(heir), Some(heir), Some(heir)));
}

fn what_is_wanted_is_told_to_who_has_it_and_what_is_granted_to_who_wanted_it(store: &dyn Store) {
    let living = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    let [first, second, third] = living;
    let names: Vec<String> = names_of(second, &living).take(3).collect();
    for name in &names {
        living.iter().for_each(|&epoch| drop(asked_for(store, epoch, name, 7)));
    }
    let wished = |epoch| store.wished(epoch).unwrap();
    assert_eq!(
        living.map(wished),
        [const { Wished { of_us: Vec::new(), granted: Vec::new(), untaken: 0 } }; 3]
    );
    let contested = store.contested(second, "", 2).unwrap();
    let found: Vec<&str> = contested.iter().map(|contested| &*contested.trigger).collect();
    assert_eq!(found, names[..2], "by their names");
    assert!(contested.iter().all(|contested| contested.declared_by.len() == 3 && !contested.is_wanted));
    assert_eq!(store.contested(second, found[1], 9).unwrap().len(), 1);
    assert!(store.contested(first, "", 9).unwrap().is_empty(), "it polls them");
    let wishes: Vec<_> = names.iter().map(|name| (name.as_str().into(), true)).collect();
    store.want(second, &wishes).unwrap();
    store.want(second, &[(names[2].as_str().into(), false)]).unwrap();
    assert!(store.contested(second, "", 1).unwrap()[0].is_wanted);
    let of_us = |epoch| wished(epoch).of_us.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!((of_us(first), of_us(second), of_us(third)), (names[..2].to_vec(), vec![], vec![]));
    let trigger = names[0].as_str().into();
    commit(store, Change::LetGo { epoch: first, trigger, digest: 7, at: Some(Wall(30)) });
    assert_eq!(of_us(first), names[1..2]);
    let granted: Vec<String> = wished(second).granted.iter().map(|name| name.to_string()).collect();
    assert_eq!(granted, names[..1]);
    assert!(wished(third).granted.is_empty());
    assert_eq!([first, second, third].map(|epoch| wished(epoch).untaken), [1, 0, 1]);
    assert_eq!(asked_for(store, second, &names[0], 7).owner, Some(second));
    assert!(wished(second).granted.is_empty(), "it has it");
    store.leave(second, &InFlight::default(), Wall(50)).unwrap();
    assert!(of_us(first).is_empty(), "who is gone wants nothing");
    assert!(store.want(second, &wishes).is_err());
}

fn only_who_declares_the_version_that_is_polled_contests_a_trigger(store: &dyn Store) {
    let [first, second, third] = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    asked(store, first, 7);
    asked(store, second, 7);
    asked(store, third, 5);
    let contested = store.contested(second, "", 9).unwrap();
    assert_eq!(contested[0].declared_by.iter().max(), Some(&second), "not who declares another version");
    assert!(store.contested(third, "", 9).unwrap().is_empty());
    let_go(store, second, 7);
    assert!(store.contested(second, "", 9).unwrap().is_empty(), "it is declared no more");
}

fn who_is_let_begin_later_is_told_of_until_then(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let told = || {
        let owners = store.owners(9, Wall(0)).unwrap();
        let row = owners.into_iter().find(|row| row.epoch == epoch).unwrap();
        (row.is_paused, row.seen_at)
    };
    assert_eq!(told(), (false, None));
    store.waits(epoch, Some(Wall(5))).unwrap();
    assert_eq!(told(), (true, Some(Wall(5))));
    store.waits(epoch, None).unwrap();
    assert_eq!(told(), (false, Some(Wall(5))), "it lives as before");
    store.waits(epoch, Some(Wall(7))).unwrap();
    store.seen(epoch, Wall(9), &Sign::default()).unwrap();
    assert_eq!(told(), (false, Some(Wall(9))), "what could not be noted as it began");
    store.leave(epoch, &InFlight::default(), Wall(10)).unwrap();
    store.waits(epoch, Some(Wall(11))).unwrap();
    assert_eq!(told(), (false, Some(Wall(9))), "who has left says nothing");
}

fn crons_are_told_with_all_who_may_run_them(store: &dyn Store) {
    let [first, second, third, client] = [1, 2, 3, 4].map(|at| store.join(Wall(at)).unwrap());
    store.stand_by(client).unwrap();
    let of_many = || store.crons_of_many().unwrap();
    let registered = store.put_cron(first, &new_cron(50, "0 2 * * *")).unwrap();
    assert!(of_many().is_empty(), "nobody declares its workflow");
    for epoch in [first, second, third, client] {
        store.declare_workflows(epoch, &[declares(&registered.workflow, "v1")], Wall(5)).unwrap();
    }
    assert_eq!(of_many(), [(registered.row, vec![first, second, third])]);
    store.without_crons(third).unwrap();
    assert_eq!(of_many(), [(registered.row, vec![first, second])]);
    store.set_enabled(registered.row, false, None, Wall(9)).unwrap();
    assert!(of_many().is_empty());
    let daily = NewCron { name: "daily", origin: Origin::Declared, digest: 7, ..new_cron(51, "0 3 * * *") };
    let declared = store.put_cron(first, &daily).unwrap();
    assert!(of_many().is_empty(), "the second does not declare it");
    store.put_cron(second, &daily).unwrap();
    assert_eq!(of_many(), [(declared.row, vec![first, second])]);
    store.drains(second).unwrap();
    assert!(of_many().is_empty(), "who drains runs none");
    store.leave(second, &InFlight::default(), Wall(50)).unwrap();
    assert!(of_many().is_empty(), "one is left");
}

fn how_much_of_its_time_a_run_has_spent_is_told_to_who_claims_it(store: &dyn Store) {
    let mail = ["mail".into()];
    let joined = |at| {
        let epoch = store.join(Wall(at)).unwrap();
        store.declare_workflows(epoch, &[declares("mail", "v1")], Wall(5)).unwrap();
        epoch
    };
    let first = joined(1);
    commit(store, Change::Start { epoch: first, runs: vec![new_run(1), new_run(2)], cron: None });
    let row = RunRow(1);
    let began = TaskRecord { started_at: Some(Wall(100)), ..task("fetch", TaskStatus::Running, 1) };
    let over = TaskRecord {
        started_at: Some(Wall(100)),
        completed_at: Some(Wall(160)),
        ..task("fetch", TaskStatus::Completed, 1)
    };
    for tasks in [vec![began], vec![over]] {
        commit(store, Change::Run(RunChange { run: row, epoch: first, tasks, end: None }));
    }
    let spent = |claimed: &[Unfinished]| -> Vec<Option<Spent>> {
        claimed.iter().map(|unfinished| unfinished.spent).collect()
    };
    store.leave(first, &InFlight::default(), Wall(170)).unwrap();
    let second = joined(180);
    let claimed = store.claim_runs(second, Wall(9000), 9, &mail).unwrap();
    let expected = Spent { since: Wall(100), left_us: None, until: Wall(160) };
    assert_eq!(spent(&claimed), [Some(expected), None], "of one that has not begun it stands still");
    commit(store, Change::Timed { run: row, epoch: first, left_us: 1, at: Wall(9000) });
    commit(store, Change::Timed { run: row, epoch: second, left_us: 40, at: Wall(9000) });
    store.leave(second, &InFlight::default(), Wall(9001)).unwrap();
    let third = joined(9002);
    let claimed = store.claim_runs(third, Wall(99_000), 9, &mail).unwrap();
    let expected = Spent { since: Wall(9000), left_us: Some(40), until: Wall(9000) };
    assert_eq!(spent(&claimed)[0], Some(expected), "only who has it says what is left");
    commit(store, ended(row, third, RunStatus::Failed));
    assert_eq!(store.reopen(third, id(1)).unwrap().unwrap().spent, None, "it has all of its time again");
}

fn who_declares_an_older_version_again_tells_whoever_stood_behind_it(store: &dyn Store) {
    let [first, second, third] = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    let ask = |epoch, digest| standing(asked(store, epoch, digest));
    assert_eq!(ask(first, 7), (Some(first), false, false));
    assert_eq!(ask(second, 5), (Some(first), false, true));
    assert_eq!(ask(third, 3), (Some(first), false, true));
    let_go(store, first, 7);
    assert_eq!(ask(second, 5), (None, true, false), "the third declares the newest");
    assert_eq!(ask(third, 7), (None, true, true), "it no longer does, and the second has to hear of it");
    assert_eq!(ask(third, 7), (None, true, false), "once");
    assert_eq!(ask(second, 5), (Some(second), false, true));
}

fn a_trigger_and_a_cron_of_one_name_are_versions_of_it(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    asked(store, old, 7);
    let cron = NewCron { digest: 5, ..declared_cron(50, "inbox", "0 2 * * *") };
    let cron = store.put_cron(new, &cron).unwrap();
    assert!(!cron.is_outdated());
    assert!(store.trigger("inbox").unwrap().unwrap().is_outdated());
    let_go(store, old, 7);
    assert_eq!(standing(asked(store, old, 7)), (None, true, false));
    store.withdraw_cron(new, "inbox").unwrap();
    assert_eq!(standing(asked(store, old, 7)), (Some(old), false, false));
    assert_eq!(standing(asked(store, old, 9)), (Some(old), false, false));
    assert!(store.cron(cron.id).unwrap().unwrap().is_outdated(), "a newer one is polled");
}

fn of_a_cron_the_version_declared_last_for_the_first_time_is_in_force(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let first = NewCron { digest: 7, ..declared_cron(50, "nightly", "0 2 * * *") };
    let second = NewCron { digest: 5, ..declared_cron(51, "nightly", "0 3 * * *") };
    let put = |epoch, cron| {
        let put = store.put_cron(epoch, cron).unwrap();
        let ScheduleKind::Cron { expression, .. } = put.kind else { panic!("{put:?}") };
        (expression, put.digest)
    };
    let [two, three] = [("0 2 * * *".to_owned(), Some(7)), ("0 3 * * *".to_owned(), Some(5))];
    assert_eq!(put(old, &first), two);
    assert_eq!(put(new, &second), three);
    assert_eq!(put(old, &first), three, "declared again it is no newer");
    store.leave(old, &InFlight::default(), Wall(50)).unwrap();
    let old = store.join(Wall(3)).unwrap();
    assert_eq!(put(old, &first), three, "nor by a process that was started again");
    store.leave(new, &InFlight::default(), Wall(60)).unwrap();
    let found = store.cron_named("nightly").unwrap().unwrap();
    assert!(found.newest < found.version, "nobody declares what is in force");
    assert_eq!(put(old, &first), two, "until nobody declares the newer one");
}

fn a_cron_stays_in_its_version_while_its_owner_decides_a_moment(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let first = NewCron { digest: 7, ..declared_cron(50, "nightly", "0 2 * * *") };
    let second = NewCron { digest: 5, overlap: Overlap::Queue, ..declared_cron(51, "nightly", "0 2 * * *") };
    store.put_cron(old, &first).unwrap();
    let cron = store.put_cron(new, &second).unwrap();
    let change = Change::TakeMoment { epoch: new, row: cron.row, seen: cron.updated_at, moment: Wall(100) };
    assert!(matches!(commit(store, change), Receipt::Moment(Moment::Yours(_))));
    let found = store.cron(cron.id).unwrap().unwrap();
    assert_eq!(
        (found.owner, found.newest, found.version),
        (Some(new), 2, 2),
        "it is declared by whose it is"
    );
    let again = store.put_cron(old, &first).unwrap();
    assert_eq!((again.digest, again.version), (Some(5), 2), "an older one takes nothing back meanwhile");
}

fn who_waits_for_what_an_older_cron_decides_says_so_once(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let first = NewCron { digest: 7, ..declared_cron(50, "inbox", "0 2 * * *") };
    store.put_cron(old, &first).unwrap();
    assert_eq!(standing(asked(store, new, 9)), (Some(new), false, true));
    store.leave(new, &InFlight::default(), Wall(50)).unwrap();
    let cron = store.put_cron(old, &first).unwrap();
    taken(store, old, &cron, 100);
    let new = store.join(Wall(3)).unwrap();
    assert_eq!(standing(asked(store, new, 9)), (Some(old), false, true), "its name is to be let go");
    assert_eq!(standing(asked(store, new, 9)), (Some(old), false, false));
}

fn of_many_versions_the_last_are_remembered(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    (1..=40).for_each(|digest| drop(asked(store, epoch, digest)));
    let (_, rows) = query(store, "SELECT count(*), max(version) FROM versions", &[]).unwrap();
    let Cell::Int(kept) = rows[0][0] else { panic!("{rows:?}") };
    assert!((10..20).contains(&kept) && rows[0][1] == Cell::Int(39), "{rows:?}");
    assert_eq!(store.forget(epoch, "inbox").unwrap(), Forgotten::Gone(vec![ScheduleKey(1)]));
    assert_eq!(query(store, "SELECT count(*) FROM versions", &[]).unwrap().1, [vec![Cell::Int(0)]]);
}

fn what_an_owner_heeded_is_told_to_the_next(store: &dyn Store) {
    let heeded = |epoch, at| grid(store, epoch, at).and_then(|kept| kept.heeded_until);
    let gone = |epoch| store.leave(epoch, &InFlight::default(), Wall(50)).unwrap();
    let first = store.join(Wall(1)).unwrap();
    grid(store, first, 10);
    store.seen(first, Wall(CATCH_UP_US + 10), &Sign::default()).unwrap();
    gone(first);
    store.seen(first, Wall(CATCH_UP_US + 9000), &Sign::default()).unwrap();
    let second = store.join(Wall(1)).unwrap();
    let now = 3 * CATCH_UP_US;
    assert_eq!(heeded(second, now), Some(Wall(CATCH_UP_US + 10)), "who has left is not seen");
    gone(second);
    let third = store.join(Wall(1)).unwrap();
    assert_eq!(heeded(third, now), Some(Wall(CATCH_UP_US + 10)), "the second was never seen");
    store.seen(third, Wall(now + CATCH_UP_US - 1), &Sign::default()).unwrap();
    gone(third);
    let fourth = store.join(Wall(1)).unwrap();
    assert_eq!(heeded(fourth, 2 * now), Some(Wall(CATCH_UP_US + 10)), "the third had no time to catch up");
    store.seen(fourth, Wall(9 * now), &Sign::default()).unwrap();
    gone(fourth);
    let paused = store.join(Wall(1)).unwrap();
    store.waits(paused, Some(Wall(3 * now - 1))).unwrap();
    store.waits(paused, None).unwrap();
    assert_eq!(heeded(paused, 3 * now), Some(Wall(3 * now)), "what the fourth said");
    gone(paused);
    let fifth = store.join(Wall(1)).unwrap();
    assert_eq!(heeded(fifth, 3 * now), Some(Wall(3 * now)), "what lies ahead counts as now");
}

fn a_wait_is_kept_until_the_next_tick_or_switch(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let inbox = declared(store, epoch, "inbox");
    let waits = |wait_us| {
        commit(store, Change::Tick(TickChange { wait_us, at: Wall(77), ..tick(&inbox, epoch, vec![]) }));
    };
    let kept = || grid(store, epoch, 80).and_then(|kept| kept.wait);
    let wait = Wait { not_before: Wall(377), span_us: 300 };
    waits(Some(300));
    assert_eq!(kept(), Some(wait));
    waits(None);
    assert_eq!(kept(), None);
    waits(Some(300));
    store.set_enabled(inbox.row, false, None, Wall(90)).unwrap();
    assert_eq!(kept(), Some(wait));
    store.set_enabled(inbox.row, true, None, Wall(91)).unwrap();
    assert_eq!(kept(), None, "who switches it on forgives it");
}

fn failures_are_kept_until_a_poll_goes_well_or_a_switch(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let inbox = declared(store, epoch, "inbox");
    let fails = |failures, at| {
        commit(store, Change::Tick(TickChange { failures, at: Wall(at), ..tick(&inbox, epoch, vec![]) }));
    };
    let kept = || asked(store, epoch, 0).failures;
    let polled = |at| commit(store, Change::History(vec![stretch(inbox.row, Outcome::Skip, "", at)]));
    fails(3, 77);
    assert_eq!(kept(), 3);
    polled(76);
    assert_eq!(kept(), 3, "what was polled before says nothing");
    polled(78);
    assert_eq!(kept(), 0);
    fails(1, 79);
    fails(0, 80);
    assert_eq!(kept(), 0);
    fails(2, 81);
    store.set_enabled(inbox.row, false, None, Wall(90)).unwrap();
    assert_eq!(kept(), 2);
    store.set_enabled(inbox.row, true, None, Wall(91)).unwrap();
    assert_eq!(kept(), 0, "who switches it on forgives it");
}

fn an_owner_who_left_declares_and_starts_nothing(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let mine = declared(store, epoch, "outbox");
    store.leave(epoch, &InFlight::default(), Wall(50)).unwrap();
    let declaration = Change::Declare { epoch, trigger: trigger_row("inbox"), at: Wall(1) };
    assert_eq!(commit(store, declaration), Receipt::Fenced);
    assert_eq!(commit(store, start(epoch, new_run(1))), Receipt::Fenced);
    assert_eq!(commit(store, start(Epoch(epoch.0 + 1), new_run(1))), Receipt::Fenced);
    assert_eq!(commit(store, Change::Tick(tick(&mine, epoch, vec![]))), Receipt::Fenced);
    assert_eq!(ids(store, &RunFilter::default()), NONE);
    assert_eq!(store.trigger("inbox").unwrap(), None);
}

fn a_tick_keeps_cursor_runs_and_history_together(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let change = TickChange {
        cursor: Some("{\"seen\":7}".to_owned()),
        at: Wall(77),
        history: vec![stretch(trigger.row, Outcome::Fire, "", 77)],
        ..tick(&trigger, epoch, vec![new_run(1), new_run(2)])
    };
    let admitted = admitted(commit(store, Change::Tick(change)));
    assert!(admitted.iter().all(|fate| matches!(fate, Admitted::Started { .. })));
    let kept = store.trigger("inbox").unwrap().unwrap();
    assert_eq!((kept.cursor.as_deref(), kept.last_at), (Some("{\"seen\":7}"), Some(Wall(77))));
    assert_eq!(ids(store, &RunFilter { trigger: Some("inbox".to_owned()), ..any() }), NONE);
    assert_eq!(ids(store, &any()), [id(2), id(1)]);
    assert_eq!(store.history(trigger.row, ALL).unwrap().len(), 1);
}

fn a_tick_without_a_new_cursor_keeps_the_old_one(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    commit(store, Change::Tick(TickChange { cursor: Some("1".to_owned()), ..tick(&trigger, epoch, vec![]) }));
    commit(store, Change::Tick(tick(&trigger, epoch, vec![])));
    assert_eq!(store.trigger("inbox").unwrap().unwrap().cursor.as_deref(), Some("1"));
}

fn rehearsed(store: &dyn Store, changes: &[Change]) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    store
        .rehearse(&mut |play| {
            receipts = changes.iter().map(&mut *play).collect::<Result<_, _>>()?;
            Ok(())
        })
        .unwrap();
    receipts
}

fn a_rehearsal_says_what_the_tick_does_and_leaves_nothing(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    fire(store, &trigger, epoch, vec![keyed(&trigger, 1, "a", None), unique(&trigger, 2, 5)]);
    let before = store.trigger("inbox").unwrap();
    let change = Change::Tick(TickChange {
        cursor: Some("9".to_owned()),
        ..tick(
            &trigger,
            epoch,
            vec![keyed(&trigger, 3, "a", None), unique(&trigger, 4, 5), unique(&trigger, 5, 6)],
        )
    });
    let fates = admitted(rehearsed(store, std::slice::from_ref(&change)).remove(0));
    assert_eq!(fates[0], Admitted::DuplicateKey { of: Some(id(1)) });
    assert_eq!(fates[1], Admitted::DuplicateHash { of: id(2) });
    assert!(matches!(fates[2], Admitted::Started { .. }));
    assert_eq!(ids(store, &any()), [id(2), id(1)]);
    assert_eq!(store.trigger("inbox").unwrap(), before);
    let real = admitted(commit(store, change));
    assert_eq!(real[..2], fates[..2]);
    assert!(real[2].is_kept());
}

fn a_rehearsed_moment_of_a_cron_says_what_it_comes_to_and_leaves_nothing(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let cron = store.put_cron(Epoch(1), &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    let (row, seen) = (cron.row, cron.updated_at);
    let of_moment = |new, at| NewRun { scheduled_at: Some(Wall(at)), ..new };
    let earlier = vec![of_moment(keyed(&cron, 1, "a", None), 100), unique(&cron, 2, 5)];
    taken(store, first, &cron, 100);
    admitted(commit(store, decided(&cron, first, earlier, 200)));
    let before = store.cron(cron.id).unwrap();
    let kept = store.history(cron.row, ALL).unwrap();
    let fires = vec![
        of_moment(keyed(&cron, 3, "a", None), 200),
        unique(&cron, 4, 5),
        keyed(&cron, 5, "b", None),
        keyed(&cron, 6, "c", None),
    ];
    let Change::Tick(tick) = decided(&cron, first, fires, 300) else { unreachable!() };
    let history = vec![stretch(cron.row, Outcome::Fire, "", 101)];
    let moment_of = |epoch| {
        Change::Tick(TickChange {
            epoch,
            cursor: Some("8".to_owned()),
            history: history.clone(),
            ..tick.clone()
        })
    };
    let changes = [Change::TakeMoment { epoch: first, row, seen, moment: Wall(200) }, moment_of(first)];
    let mut told = rehearsed(store, &changes);
    let fates = admitted(told.remove(1));
    assert!(matches!(told[..], [Receipt::Moment(Moment::Yours(_))]), "{told:?}");
    assert_eq!(fates[0], Admitted::DuplicateKey { of: Some(id(1)) });
    assert_eq!(fates[1], Admitted::DuplicateHash { of: id(2) });
    assert!(fates[2..].iter().all(Admitted::is_kept), "{fates:?}");
    assert_eq!(store.cron(cron.id).unwrap(), before, "neither its calendar nor its cursor has moved");
    assert_eq!(store.history(cron.row, ALL).unwrap(), kept);
    assert_eq!(ids(store, &any()), [id(2), id(1)]);
    // Nobody has the moment: another one may decide it, and its run keys are free.
    taken(store, second, &cron, 200);
    let real = admitted(commit(store, moment_of(second)));
    assert_eq!(real[..2], fates[..2]);
    assert!(real[2..].iter().all(Admitted::is_kept), "{real:?}");
    assert_eq!(ids(store, &any()), [id(6), id(5), id(2), id(1)]);
}

fn a_stand_in_rehearses_what_another_polls_or_nobody_has_declared(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    fire(store, &trigger, epoch, vec![keyed(&trigger, 1, "a", None)]);
    for (name, used) in [("inbox", true), ("outbox", false)] {
        let mut told = Vec::new();
        let playing = store.rehearse(&mut |play| {
            let row = trigger_row(name);
            let Receipt::Declared(state) =
                play(&Change::Declare { epoch: STAND_IN, trigger: row, at: Wall(9) })?
            else {
                panic!("{name} is not declared")
            };
            assert_eq!((state.owner, state.unfinished.len()), (Some(STAND_IN), usize::from(used)));
            let of = Schedule { row: state.row, ..trigger.clone() };
            told = admitted(play(&Change::Tick(tick(&of, STAND_IN, vec![keyed(&of, 2, "a", None)])))?);
            Ok(())
        });
        playing.unwrap();
        assert_eq!(!told[0].is_kept(), used, "{name}");
    }
    assert_eq!(store.trigger("inbox").unwrap().unwrap().owner, Some(epoch));
    assert_eq!(store.trigger("outbox").unwrap(), None);
    assert_eq!(commit(store, Change::Tick(tick(&trigger, STAND_IN, vec![]))), Receipt::Fenced);
}

fn a_rehearsal_that_fails_leaves_the_store_usable(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let gone = store.rehearse(&mut |play| {
        play(&Change::Tick(tick(&trigger, epoch, vec![new_run(1)])))?;
        Err(Fault::Passing("enough".to_owned()))
    });
    assert_eq!(gone, Err(Fault::Passing("enough".to_owned())));
    assert_eq!(ids(store, &any()), NONE);
    assert!(fire(store, &trigger, epoch, vec![new_run(1)])[0].is_kept());
}

/// A tick of fires with these run keys, each with its number as its cursor, of which so many may start.
fn row_of(trigger: &Schedule, epoch: Epoch, runs: u64, fires: &[(u128, &str)]) -> Change {
    let of = |&(number, key): &(u128, &str)| NewRun {
        cursor: Some(number.to_string()),
        ..keyed(trigger, number, key, None)
    };
    Change::Tick(TickChange {
        cursor: Some("99".to_owned()),
        room: Some(Room { runs, with: Some(id(77)) }),
        history: vec![stretch(trigger.row, Outcome::Fire, "", 50)],
        ..tick(trigger, epoch, fires.iter().map(of).collect())
    })
}

fn the_cursor_of_a_row_stops_at_what_was_dropped(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let cursor = || store.trigger("inbox").unwrap().unwrap().cursor;
    let all = [(1, "a"), (2, "b"), (3, "c"), (4, "d")];
    let told = |receipt| match receipt {
        Receipt::Tick { fates, cursor, .. } => (fates, cursor),
        other => panic!("{other:?}"),
    };
    let (fates, left) = told(commit(store, row_of(&trigger, epoch, 2, &all)));
    assert!(matches!(fates[..2], [Admitted::Started { .. }, Admitted::Started { .. }]));
    assert_eq!(fates[2..], [Admitted::Overlaps { with: id(77) }, Admitted::HeldBack]);
    assert_eq!((left.as_deref(), cursor().as_deref()), (Some("2"), Some("2")));
    let kept = store.history(trigger.row, ALL).unwrap();
    assert_eq!(&*kept[0].reason, "overlap dropped 1 fire and held 1 back");

    let (fates, left) = told(commit(store, row_of(&trigger, epoch, 0, &[(3, "c"), (4, "d")])));
    assert_eq!(fates, [Admitted::Overlaps { with: id(77) }, Admitted::HeldBack]);
    assert_eq!((left, cursor().as_deref()), (None, Some("2")));
    let kept = store.history(trigger.row, ALL).unwrap();
    assert_eq!((kept[0].outcome, kept[0].reason.contains("the cursor waits")), (Outcome::Skip, true));

    let (_, left) = told(commit(store, row_of(&trigger, epoch, 9, &[(3, "c"), (4, "d")])));
    assert_eq!((left.as_deref(), cursor().as_deref()), (Some("99"), Some("99")));
}

fn a_used_key_passes_where_there_is_no_room(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    commit(store, row_of(&trigger, epoch, 9, &[(1, "a")]));
    let Receipt::Tick { fates, cursor, .. } =
        commit(store, row_of(&trigger, epoch, 0, &[(2, "a"), (3, "b")]))
    else {
        panic!("it is kept")
    };
    assert_eq!(fates, [Admitted::DuplicateKey { of: Some(id(1)) }, Admitted::Overlaps { with: id(77) }]);
    assert_eq!(cursor.as_deref(), Some("2"));
}

fn what_is_refused_takes_no_place_from_what_comes_behind_it(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let polled = |fires: &[(u128, &str)], with: Option<Uuid>| {
        let of = |&(number, key): &(u128, &str)| NewRun {
            context_hash: Some([7; 16]),
            unique_hash: true,
            ..keyed(&trigger, number, key, None)
        };
        let room = Some(Room { runs: 1, with });
        let history = vec![stretch(trigger.row, Outcome::Fire, "", 50)];
        let tick = TickChange { room, history, ..tick(&trigger, epoch, fires.iter().map(of).collect()) };
        match commit(store, Change::Tick(tick)) {
            Receipt::Tick { fates, .. } => fates,
            other => panic!("{other:?}"),
        }
    };
    let [Admitted::Started { row }] = polled(&[(1, "a")], None)[..] else { panic!("it starts") };
    commit(store, ended(row, epoch, RunStatus::Completed));
    // All have equal contexts.
    for number in [2, 3] {
        let fates = polled(
            &[(10 * number, "a"), (10 * number + 1, "b"), (10 * number + 2, "a"), (10 * number + 3, "c")],
            None,
        );
        let used = |of| Admitted::DuplicateKey { of: Some(of) };
        match number {
            2 => {
                assert!(matches!(fates[1], Admitted::Started { .. }), "{fates:?}");
                assert_eq!([&fates[0], &fates[2]], [&used(id(1)); 2]);
                assert_eq!(fates[3], Admitted::DuplicateHash { of: id(21) });
            }
            _ => assert_eq!(fates[..3], [used(id(1)), used(id(21)), used(id(1))]),
        }
    }
    let other = NewRun { context_hash: Some([8; 16]), unique_hash: true, ..keyed(&trigger, 40, "d", None) };
    let full =
        TickChange { room: Some(Room { runs: 0, with: Some(id(21)) }), ..tick(&trigger, epoch, vec![other]) };
    assert_eq!(admitted(commit(store, Change::Tick(full))), [Admitted::Overlaps { with: id(21) }]);
}

fn another_kind_of_trigger_waits_for_nothing_that_the_one_before_asked_for(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let polled = |digest| declare(store, epoch, TriggerRow { digest, ..trigger_row("inbox") }, Wall(10));
    let waits = |trigger: Schedule| {
        let failed = TickChange { failures: 3, wait_us: Some(1000), ..tick(&trigger, epoch, vec![]) };
        commit(store, Change::Tick(failed));
    };
    let stands = || {
        let kept = store.trigger("inbox").unwrap().unwrap();
        (kept.failures, kept.grid.unwrap().wait.is_some())
    };
    waits(polled(1));
    // The same kind goes on waiting, whatever else of it has changed.
    polled(2);
    assert_eq!(stands(), (3, true));
    let heard = hears(store, epoch, "inbox", "mail", &[RunStatus::Failed]);
    assert_eq!(stands(), (0, false));
    waits(heard);
    hears(store, epoch, "inbox", "mail", &[RunStatus::Failed, RunStatus::Cancelled]);
    assert_eq!(stands(), (3, true));
    polled(4);
    assert_eq!(stands(), (0, false));
}

fn an_equal_run_that_ended_since_stands_in_the_way(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let (trigger, other) = (declared(store, epoch, "inbox"), declared(store, epoch, "outbox"));
    let before = store.ends().unwrap();
    let Admitted::Started { row } = fire(store, &trigger, epoch, vec![unique(&trigger, 1, 5)])[0] else {
        panic!("it starts")
    };
    let number = before + 1;
    let end = ended(row, epoch, RunStatus::Completed);
    assert_eq!(commit(store, end), Receipt::Run(Some(number)));
    assert_eq!(store.ends(), Ok(number));
    let since = |trigger: &Schedule, number, hash, ends| {
        let new = NewRun { ends, ..unique(trigger, number, hash) };
        fire(store, trigger, epoch, vec![new]).remove(0)
    };
    assert_eq!(since(&trigger, 2, 5, Some(before)), Admitted::Ended { of: id(1), number });
    let kept = store.history(trigger.row, ALL).unwrap();
    assert!(kept.is_empty(), "a tick without history leaves none");
    // Another context, another trigger, and a poll that began after it.
    assert!(matches!(since(&trigger, 3, 6, Some(before)), Admitted::Started { .. }));
    assert!(matches!(since(&other, 4, 5, Some(before)), Admitted::Started { .. }));
    assert!(matches!(since(&trigger, 5, 5, Some(number)), Admitted::Started { .. }));
}

/// A fire of one of two triggers that are to fare alike.
fn alike(trigger: &Schedule, number: u128, draw: &mut impl FnMut(u64) -> u64, before: i64) -> NewRun {
    let keyed = |draw: u64| match draw {
        0..3 => None,
        3 => Some(("a".to_owned(), Some(Wall(40)))),
        4 => Some(("b".to_owned(), Some(Wall(90)))),
        other => Some((format!("c{other}"), None)),
    };
    let limits = Limits {
        concurrency: Some(Concurrency { limit: 3, key: None, overflow: Overflow::DropNew }),
        ..Limits::default()
    };
    let is_limited = draw(4) == 0;
    let workflow = if is_limited { format!("few of {}", trigger.name) } else { "mail".to_owned() };
    let unhashed = draw(8) == 0;
    let new = unique(trigger, number, u8::try_from(draw(6)).unwrap());
    NewRun {
        workflow: workflow.into(),
        limits: is_limited.then(|| Arc::new(limits)),
        context_hash: new.context_hash.filter(|_| !unhashed),
        unique_hash: !unhashed && draw(4) > 0,
        run_key: keyed(draw(8)),
        ends: (draw(2) > 0).then_some(before),
        cursor: (draw(5) == 0).then(|| number.to_string()),
        priority: priority(i64::try_from(draw(9) + 1).unwrap()).filter(|_| number.is_multiple_of(2)),
        ..new
    }
}

fn fires_of_one_tick_meet_what_they_would_meet_one_after_another(store: &dyn Store) {
    const APART: u128 = 1_000_000;
    let epoch = store.join(Wall(1)).unwrap();
    for seed in 1..=25_u64 {
        let mut state = seed;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let name = |kind: &str| format!("{kind} {seed}");
        let triggers = [declared(store, epoch, &name("at once")), declared(store, epoch, &name("singly"))];
        let mut unfinished: Vec<[RunRow; 2]> = Vec::new();
        let mut number = u128::from(seed) * 1_000;
        for round in 0..4 {
            let before = store.ends().unwrap();
            if round > 0 {
                let ends = unfinished.split_off(unfinished.len() / 2);
                let ends = ends.iter().flatten().map(|row| ended(*row, epoch, RunStatus::Completed));
                store.commit(&ends.collect::<Vec<_>>()).unwrap();
            }
            let many = 1 + draw(12);
            let drawn = draw(u64::MAX);
            let [at_once, singly] = [0, 1].map(|which| {
                let mut state = drawn;
                let mut draw = |below: u64| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 33) % below
                };
                let first = number + if which == 0 { 0 } else { APART };
                let fires = (first..).take(many as usize);
                fires.map(|number| alike(&triggers[which], number, &mut draw, before)).collect::<Vec<_>>()
            });
            number += u128::from(many);
            let story = format!("seed {seed}, round {round}: {at_once:?}");
            let mut has_stopped = false;
            let mut apart = |new: NewRun| {
                let in_row = new.cursor.is_some();
                if in_row && has_stopped {
                    return Admitted::HeldBack;
                }
                let fate = fire(store, &triggers[1], epoch, vec![new]).remove(0);
                has_stopped |= in_row && !fate.is_kept() && !matches!(fate, Admitted::DuplicateKey { .. });
                fate
            };
            let singly: Vec<Admitted> = singly.into_iter().map(&mut apart).collect();
            let at_once = fire(store, &triggers[0], epoch, at_once);
            assert_eq!(at_once.len(), singly.len(), "{story}");
            for (together, alone) in at_once.iter().zip(&singly) {
                let here = |of: Uuid| id(of.as_u128() % APART);
                let same = match (together, alone) {
                    (Admitted::Started { row }, Admitted::Started { row: other })
                    | (Admitted::Held { row }, Admitted::Held { row: other }) => {
                        unfinished.push([*row, *other]);
                        true
                    }
                    (Admitted::DuplicateHash { of }, Admitted::DuplicateHash { of: other }) => {
                        *of == here(*other)
                    }
                    (Admitted::DuplicateKey { of }, Admitted::DuplicateKey { of: other }) => {
                        *of == other.map(here)
                    }
                    (Admitted::Ended { of, number }, Admitted::Ended { of: other, number: last }) => {
                        *of == here(*other) && number == last
                    }
                    (Admitted::Limited(_), Admitted::Limited(_)) => true,
                    (Admitted::HeldBack, Admitted::HeldBack) => true,
                    _ => false,
                };
                assert!(same, "{together:?} and {alone:?} in {story}");
            }
            let rows: Vec<i64> = at_once.iter().filter_map(Admitted::row).map(|row| row.0).collect();
            assert!(rows.is_sorted(), "they are numbered in their order: {rows:?}");
        }
        let kept = |which: usize| {
            let filter = RunFilter { trigger: Some(triggers[which].name.clone()), ..any() };
            let mut runs = store.runs(&filter, ALL).unwrap();
            runs.sort_by_key(|run| run.id.as_u128() % APART);
            let told = |run: &cloaca_core::port::ListedRun| {
                (run.id.as_u128() % APART, run.run_key.clone(), run.context_hash, run.priority, run.status)
            };
            runs.iter().map(told).collect::<Vec<_>>()
        };
        assert_eq!(kept(0), kept(1), "seed {seed}");
    }
}

fn ends_of_one_transaction_share_a_number(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let fires = vec![unique(&trigger, 1, 1), unique(&trigger, 2, 2)];
    let rows: Vec<RunRow> = fire(store, &trigger, epoch, fires)
        .into_iter()
        .map(|fate| match fate {
            Admitted::Started { row } => row,
            other => panic!("{other:?}"),
        })
        .collect();
    let lone = started(store, epoch, new_run(3));
    let before = store.ends().unwrap();
    let batch: Vec<Change> =
        [lone, rows[0], rows[1]].map(|row| ended(row, epoch, RunStatus::Completed)).to_vec();
    let number = Some(before + 1);
    let receipts = store.commit(&batch).unwrap();
    assert_eq!(receipts, [Receipt::Run(None), Receipt::Run(number), Receipt::Run(number)]);
    assert_eq!(store.ends(), Ok(before + 1));
}

fn a_tick_under_an_old_epoch_changes_nothing(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let trigger = declared(store, old, "inbox");
    let new = successor(store, old);
    let before = declared(store, new, "inbox");
    let change = TickChange {
        cursor: Some("1".to_owned()),
        history: vec![stretch(trigger.row, Outcome::Fire, "", 1)],
        ..tick(&trigger, old, vec![new_run(1)])
    };
    assert_eq!(commit(store, Change::Tick(change)), Receipt::Fenced);
    assert_eq!(store.trigger("inbox").unwrap(), Some(before));
    assert_eq!(ids(store, &any()), NONE);
    assert_eq!(store.history(trigger.row, ALL).unwrap(), []);
}

fn a_tick_of_an_unknown_trigger_is_fenced(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let unknown = Schedule { row: ScheduleKey(trigger.row.0 + 1), ..trigger };
    assert_eq!(commit(store, Change::Tick(tick(&unknown, epoch, vec![]))), Receipt::Fenced);
}

fn two_unfinished_runs_of_a_trigger_never_share_a_hash(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let fates = fire(store, &trigger, epoch, vec![unique(&trigger, 1, 5), unique(&trigger, 2, 6)]);
    assert!(fates.iter().all(|fate| matches!(fate, Admitted::Started { .. })));
    let fates = fire(store, &trigger, epoch, vec![unique(&trigger, 3, 5), unique(&trigger, 4, 7)]);
    assert_eq!(fates[0], Admitted::DuplicateHash { of: id(1) });
    assert!(matches!(fates[1], Admitted::Started { .. }));
    assert_eq!(ids(store, &any()), [id(4), id(2), id(1)]);
}

fn one_tick_does_not_fire_the_same_hash_twice(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let fates = fire(store, &trigger, epoch, vec![unique(&trigger, 1, 5), unique(&trigger, 2, 5)]);
    assert_eq!(fates[1], Admitted::DuplicateHash { of: id(1) });
}

fn a_hash_is_free_again_once_its_run_is_final(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    for (number, status) in [(1, RunStatus::Completed), (2, RunStatus::Failed), (3, RunStatus::Cancelled)] {
        let fates = fire(store, &trigger, epoch, vec![unique(&trigger, number, 5)]);
        let Admitted::Started { row } = fates[0] else { panic!("run {number} met {:?}", fates[0]) };
        assert!(matches!(commit(store, ended(row, epoch, status)), Receipt::Run(Some(_))));
    }
}

fn runs_that_are_not_unique_share_a_hash(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let loose = |number| NewRun { unique_hash: false, ..unique(&trigger, number, 5) };
    let fates = fire(store, &trigger, epoch, vec![loose(1), loose(2)]);
    assert!(fates.iter().all(|fate| matches!(fate, Admitted::Started { .. })));
}

fn a_hash_that_guards_is_not_free_while_a_run_from_before_has_it(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let loose = |number| NewRun { unique_hash: false, ..unique(&trigger, number, 5) };
    let fates = fire(store, &trigger, epoch, vec![loose(1), loose(2), loose(9)]);
    let rows: Vec<RunRow> = fates
        .iter()
        .map(|fate| match fate {
            Admitted::Started { row } => *row,
            other => panic!("{other:?}"),
        })
        .collect();
    let next = |number| fire(store, &trigger, epoch, vec![unique(&trigger, number, 5)]).remove(0);
    assert_eq!(next(3), Admitted::DuplicateHash { of: id(1) });
    commit(store, ended(rows[0], epoch, RunStatus::Failed));
    assert_eq!(next(4), Admitted::DuplicateHash { of: id(2) });
    // The trigger of these tests is declared without equal runs: who opens one again is asked the same.
    let refused = store.reopen(epoch, id(1));
    assert!(matches!(&refused, Err(Fault::Final(text)) if text.contains("equal run")), "{refused:?}");
    for row in &rows[1..] {
        commit(store, ended(*row, epoch, RunStatus::Completed));
    }
    assert!(matches!(next(5), Admitted::Started { .. }));
    assert!(matches!(next(6), Admitted::DuplicateHash { .. }));
}

fn another_trigger_may_use_the_same_hash(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let (inbox, outbox) = (declared(store, epoch, "inbox"), declared(store, epoch, "outbox"));
    fire(store, &inbox, epoch, vec![unique(&inbox, 1, 5)]);
    let fates = fire(store, &outbox, epoch, vec![unique(&outbox, 2, 5)]);
    assert!(matches!(fates[0], Admitted::Started { .. }));
}

fn eight_threads_with_one_hash_start_one_run(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let fates: Vec<Admitted> = thread::scope(|scope| {
        let fire_one = |number| fire(store, &trigger, epoch, vec![unique(&trigger, number, 5)]).remove(0);
        let threads: Vec<_> = (1..=8).map(|number| scope.spawn(move || fire_one(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winner = ids(store, &any());
    assert_eq!(winner.len(), 1);
    let refused = Admitted::DuplicateHash { of: winner[0] };
    assert_eq!(fates.iter().filter(|fate| **fate == refused).count(), 7);
}

fn a_run_key_starts_one_run_even_after_its_end(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let fates = fire(store, &trigger, epoch, vec![keyed(&trigger, 1, "mail-1", None)]);
    let Admitted::Started { row } = fates[0] else { panic!("{fates:?}") };
    commit(store, ended(row, epoch, RunStatus::Completed));
    let late =
        TickChange { at: Wall(i64::MAX), ..tick(&trigger, epoch, vec![keyed(&trigger, 2, "mail-1", None)]) };
    assert_eq!(admitted(commit(store, Change::Tick(late))), [Admitted::DuplicateKey { of: Some(id(1)) }]);
    let other = declared(store, epoch, "outbox");
    let fates = fire(store, &other, epoch, vec![keyed(&other, 3, "mail-1", None)]);
    assert!(matches!(fates[0], Admitted::Started { .. }), "keys belong to their trigger");
    assert_eq!(store.run(id(1)).unwrap().unwrap().0.run_key.as_deref(), Some("mail-1"));
}

fn a_run_key_is_free_at_the_moment_it_expires(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let at = |at, number, expires| {
        let fires = vec![keyed(&trigger, number, "mail-1", Some(Wall(expires)))];
        let change = TickChange { at: Wall(at), ..tick(&trigger, epoch, fires) };
        admitted(commit(store, Change::Tick(change))).remove(0)
    };
    assert!(matches!(at(100, 1, 200), Admitted::Started { .. }));
    assert_eq!(at(199, 2, 900), Admitted::DuplicateKey { of: Some(id(1)) });
    assert!(matches!(at(200, 3, 300), Admitted::Started { .. }));
    assert_eq!(at(299, 4, 900), Admitted::DuplicateKey { of: Some(id(3)) });
}

fn a_fire_refused_by_its_hash_does_not_use_its_run_key(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let both =
        |number, key: &str| NewRun { run_key: Some((key.to_owned(), None)), ..unique(&trigger, number, 5) };
    let fates = fire(store, &trigger, epoch, vec![both(1, "a"), both(2, "b")]);
    assert_eq!(fates[1], Admitted::DuplicateHash { of: id(1) });
    let Admitted::Started { row } = fates[0] else { panic!("{fates:?}") };
    commit(store, ended(row, epoch, RunStatus::Completed));
    assert!(matches!(fire(store, &trigger, epoch, vec![both(3, "b")])[0], Admitted::Started { .. }));
}

fn the_run_key_is_asked_before_the_hash(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let run = |number| NewRun { run_key: Some(("a".to_owned(), None)), ..unique(&trigger, number, 5) };
    let fates = fire(store, &trigger, epoch, vec![run(1), run(2)]);
    assert_eq!(fates[1], Admitted::DuplicateKey { of: Some(id(1)) });
}

fn a_fire_notes_when_a_run_was_last_fired(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let at =
        |at, fires| commit(store, Change::Tick(TickChange { at: Wall(at), ..tick(&trigger, epoch, fires) }));
    let last_fired_at = || store.trigger("inbox").unwrap().unwrap().last_fired_at;
    at(100, vec![]);
    assert_eq!(last_fired_at(), None);
    at(200, vec![unique(&trigger, 1, 5)]);
    at(300, vec![unique(&trigger, 2, 5)]);
    assert_eq!(last_fired_at(), Some(Wall(200)), "a dropped fire is none");
    assert_eq!(store.trigger("inbox").unwrap().unwrap().last_at, Some(Wall(300)));
}

fn a_tick_of_which_nothing_came_is_kept_as_a_skip(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let fire_kept = |fires, outcome, reason: &str| {
        let history = vec![stretch(trigger.row, outcome, reason, 50)];
        commit(store, Change::Tick(TickChange { history, ..tick(&trigger, epoch, fires) }));
        let last = store.history(trigger.row, Page { limit: 1, offset: 0 }).unwrap().remove(0);
        (last.outcome, last.reason.to_string())
    };
    let keyed_hash = NewRun { run_key: Some(("mail-1".to_owned(), None)), ..unique(&trigger, 1, 5) };
    assert_eq!(fire_kept(vec![keyed_hash], Outcome::Fire, ""), (Outcome::Fire, String::new()));
    let (outcome, reason) = fire_kept(vec![unique(&trigger, 2, 5)], Outcome::Fire, "");
    assert!(outcome == Outcome::Skip && reason.contains(&id(1).to_string()), "{reason}");
    let (outcome, reason) = fire_kept(vec![keyed(&trigger, 3, "mail-1", None)], Outcome::Fire, "");
    assert!(outcome == Outcome::Skip && reason.contains("'mail-1'"), "{reason}");
    let both = vec![unique(&trigger, 4, 6), unique(&trigger, 5, 5)];
    assert_eq!(fire_kept(both, Outcome::Fire, "").0, Outcome::Fire, "one of them started");
    let error = (Outcome::Error, "ValueError".to_owned());
    assert_eq!(fire_kept(vec![unique(&trigger, 6, 5)], Outcome::Error, "ValueError"), error);
}

fn a_tick_may_disable_its_trigger(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let disable = Some("10 polls in a row failed".to_owned());
    commit(store, Change::Tick(TickChange { disable: disable.clone(), ..tick(&trigger, epoch, vec![]) }));
    let kept = store.trigger("inbox").unwrap().unwrap();
    assert_eq!((kept.enabled, kept.disabled_cause), (false, disable));
}

fn a_moment_of_a_cron_starts_one_run(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let cron = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    let runs = vec![moment(&cron, 1, 100), moment(&cron, 2, 200), moment(&cron, 3, 100)];
    let fates = admitted(commit(store, Change::Start { epoch, runs, cron: None }));
    assert!(matches!(fates[..2], [Admitted::Started { .. }, Admitted::Started { .. }]));
    assert_eq!(fates[2], Admitted::DuplicateKey { of: Some(id(1)) });
    let Admitted::Started { row } = fates[0] else { panic!("{fates:?}") };
    commit(store, ended(row, epoch, RunStatus::Completed));
    let fates = admitted(commit(store, start(epoch, moment(&cron, 4, 100))));
    assert_eq!(fates, [Admitted::DuplicateKey { of: Some(id(1)) }]);
}

fn a_start_moves_the_cron(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let cron = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    assert_eq!(next_at(&cron), Some(Wall(100)));
    let step = |next_at, last_at| CronMove {
        row: cron.row,
        seen: cron.updated_at,
        next_at,
        last_at: Some(Wall(last_at)),
        decided: None,
    };
    let moved = Some(step(Some(Wall(200)), 101));
    commit(store, Change::Start { epoch, runs: vec![moment(&cron, 1, 100)], cron: moved });
    let now = store.cron(cron.id).unwrap().unwrap();
    assert_eq!((next_at(&now), now.last_at), (Some(Wall(200)), Some(Wall(101))));
    let put_right = CronMove { last_at: None, ..step(Some(Wall(150)), 0) };
    commit(store, Change::Start { epoch, runs: vec![], cron: Some(put_right) });
    let now = store.cron(cron.id).unwrap().unwrap();
    assert_eq!((next_at(&now), now.last_at), (Some(Wall(150)), Some(Wall(101))), "it did not run");
    let over = Some(step(None, 201));
    commit(store, Change::Start { epoch, runs: vec![], cron: over });
    assert_eq!(next_at(&store.cron(cron.id).unwrap().unwrap()), None);
    assert!(store.update_cron(cron.id, "0 3 * * *", "UTC", Some(Wall(300)), Wall(1)).unwrap());
    commit(store, Change::Start { epoch, runs: vec![], cron: moved });
    let cron = store.cron(cron.id).unwrap().unwrap();
    assert_eq!(next_at(&cron), Some(Wall(300)), "a step decided before the change does not undo it");
}

fn take_moment(store: &dyn Store, epoch: Epoch, cron: &Schedule, moment: i64) -> Moment {
    let (row, seen) = (cron.row, cron.updated_at);
    match commit(store, Change::TakeMoment { epoch, row, seen, moment: Wall(moment) }) {
        Receipt::Moment(moment) => moment,
        other => panic!("{other:?}"),
    }
}

fn taken(store: &dyn Store, epoch: Epoch, cron: &Schedule, moment: i64) -> TriggerState {
    match take_moment(store, epoch, cron, moment) {
        Moment::Yours(state) => state,
        other => panic!("{other:?}"),
    }
}

/// What a moment leaves that was decided by a body.
fn decided(cron: &Schedule, epoch: Epoch, fires: Vec<NewRun>, next_at: i64) -> Change {
    let (row, seen) = (cron.row, cron.updated_at);
    let (next_at, last_at) = (Some(Wall(next_at)), Some(Wall(101)));
    let step = CronMove { row, seen, next_at, last_at, decided: None };
    Change::Tick(TickChange { cursor: Some("7".to_owned()), cron: Some(step), ..tick(cron, epoch, fires) })
}

fn a_moment_is_decided_by_one_owner_at_a_time(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let cron = store.put_cron(Epoch(1), &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    let state = taken(store, first, &cron, 100);
    assert_eq!((state.row, state.cursor, state.owner), (cron.row, None, Some(first)));
    assert_eq!(take_moment(store, second, &cron, 100), Moment::Others);
    taken(store, first, &cron, 100);
    let leave = |epoch| commit(store, Change::LeaveMoment { epoch, row: cron.row });
    leave(second);
    assert_eq!(take_moment(store, second, &cron, 100), Moment::Others);
    leave(first);
    taken(store, second, &cron, 100);
    store.leave(second, &InFlight::default(), Wall(3)).unwrap();
    taken(store, first, &cron, 100);
    let late = decided(&cron, second, vec![], 200);
    assert_eq!(commit(store, late), Receipt::Fenced);
}

fn a_moment_that_is_over_is_not_decided_again(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let cron = store.put_cron(Epoch(1), &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    taken(store, first, &cron, 100);
    let Receipt::Tick { fates, .. } = commit(store, decided(&cron, first, vec![moment(&cron, 1, 100)], 200))
    else {
        panic!("the tick is kept")
    };
    assert!(matches!(fates[..], [Admitted::Started { .. }]));
    let now = store.cron(cron.id).unwrap().unwrap();
    assert_eq!((next_at(&now), now.last_at, now.owner), (Some(Wall(200)), Some(Wall(101)), None));
    let over = |next| Moment::Over { next_at: Some(Wall(next)) };
    assert_eq!(take_moment(store, second, &now, 100), over(200), "it lies behind");
    let next = taken(store, second, &now, 200);
    assert_eq!(next.cursor.as_deref(), Some("7"));
    // A clock that was put back.
    commit(store, decided(&now, second, vec![], 50));
    let now = store.cron(cron.id).unwrap().unwrap();
    taken(store, first, &now, 99);
    assert_eq!(take_moment(store, first, &now, 100), over(50), "it has a run");
    assert!(store.update_cron(cron.id, "0 3 * * *", "UTC", Some(Wall(300)), Wall(20)).unwrap());
    assert_eq!(take_moment(store, first, &now, 300), Moment::Changed, "it is another cron now");
    let now = store.cron(cron.id).unwrap().unwrap();
    assert!(store.set_enabled(cron.row, false, None, Wall(21)).unwrap());
    let off = store.cron(cron.id).unwrap().unwrap();
    for was in [now, off] {
        assert_eq!(take_moment(store, first, &was, 300), Moment::Changed);
    }
}

fn who_decides_a_moment_is_told_of_all_its_unfinished_runs(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let cron = store.put_cron(Epoch(1), &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    started(store, first, moment(&cron, 1, 90));
    started(store, second, moment(&cron, 2, 95));
    assert_eq!(taken(store, first, &cron, 100).unfinished, [id(1), id(2)]);
}

fn a_run_id_is_used_once(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    started(store, epoch, new_run(1));
    let Err(Fault::Final(message)) = store.commit(&[start(epoch, new_run(1))]) else { panic!("taken twice") };
    assert!(message.contains(&id(1).to_string()));
}

fn a_run_begins_with_its_first_task(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    assert_eq!(store.run(id(1)).unwrap().unwrap().0.status, RunStatus::Pending);
    let change = RunChange { run: row, epoch, tasks: vec![task("fetch", TaskStatus::Running, 1)], end: None };
    assert_eq!(commit(store, Change::Run(change.clone())), Receipt::Run(None));
    let (run, tasks) = store.run(id(1)).unwrap().unwrap();
    assert_eq!((run.status, tasks), (RunStatus::Running, change.tasks));
    assert_eq!(started_at(store, 1), Cell::Int(30));
    let mut later = task("parse", TaskStatus::Running, 1);
    later.started_at = Some(Wall(99));
    commit(store, Change::Run(RunChange { run: row, epoch, tasks: vec![later], end: None }));
    assert_eq!(started_at(store, 1), Cell::Int(30));
}

fn a_task_record_is_replaced_in_its_place(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    let first = ["z", "a", "m"].map(|name| task(name, TaskStatus::Running, 1));
    commit(store, Change::Run(RunChange { run: row, epoch, tasks: first.to_vec(), end: None }));
    let mut done = task("z", TaskStatus::Failed, 3);
    done.error = Some("ValueError: no".to_owned());
    done.completed_at = Some(Wall(60));
    let mut skipped = task("b", TaskStatus::Skipped, 0);
    skipped.started_at = None;
    let tasks = vec![skipped.clone(), done.clone()];
    commit(store, Change::Run(RunChange { run: row, epoch, tasks, end: None }));
    let (_, tasks) = store.run(id(1)).unwrap().unwrap();
    assert_eq!(tasks, [done, first[1].clone(), first[2].clone(), skipped]);
}

fn what_a_task_waits_for_and_has_left_is_kept_while_it_is_open(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    let wait = Some(Wait { not_before: Wall(90), span_us: 40 });
    let waiting = TaskRecord { postponed: 1, wait, ..task("fetch", TaskStatus::Running, 2) };
    let begun = TaskRecord { wait: None, checkpoint: Some("[1]".into()), ..waiting.clone() };
    let rests = TaskRecord { checkpoint: None, rests_since: Some(Wall(70)), ..begun.clone() };
    let over = TaskRecord { status: TaskStatus::Completed, checkpoint: None, ..begun.clone() };
    let retried = TaskRecord { postponed: 0, ..waiting.clone() };
    let again = task("fetch", TaskStatus::Running, 2);
    for record in [retried, again, waiting, begun, rests, over] {
        let tasks = vec![record.clone()];
        commit(store, Change::Run(RunChange { run: row, epoch, tasks, end: None }));
        assert_eq!(store.run(id(1)).unwrap().unwrap().1, [record]);
    }
}

fn a_final_run_takes_no_more_changes(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    assert_eq!(commit(store, ended(row, epoch, RunStatus::Completed)), Receipt::Run(None));
    let before = store.run(id(1)).unwrap();
    let tasks = vec![task("late", TaskStatus::Running, 1)];
    let late = RunChange { run: row, epoch, tasks, end: None };
    assert_eq!(commit(store, Change::Run(late)), Receipt::Fenced);
    assert_eq!(commit(store, ended(row, epoch, RunStatus::Failed)), Receipt::Fenced);
    assert_eq!(store.run(id(1)).unwrap(), before);
}

fn a_run_of_another_owner_takes_no_changes(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let row = started(store, old, new_run(1));
    let new = successor(store, old);
    assert_eq!(store.claim_runs(new, LATE, 10, &["mail".into()]).unwrap().len(), 1);
    let tasks = vec![task("stale", TaskStatus::Running, 1)];
    assert_eq!(
        commit(store, Change::Run(RunChange { run: row, epoch: old, tasks, end: None })),
        Receipt::Fenced
    );
    assert_eq!(store.run(id(1)).unwrap().unwrap().1, []);
    assert_eq!(commit(store, ended(row, new, RunStatus::Completed)), Receipt::Run(None));
}

fn a_runs_end_is_kept_whole(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    let end = RunEnd {
        status: RunStatus::Failed,
        context: "{\"b\":2}".into(),
        error: Some("task 'fetch': OSError".to_owned()),
        error_type: Some("OSError".into()),
        completed_at: Wall(60),
    };
    let tasks = vec![task("fetch", TaskStatus::Failed, 1)];
    commit(store, Change::Run(RunChange { run: row, epoch, tasks, end: Some(end.clone()) }));
    let (run, tasks) = store.run(id(1)).unwrap().unwrap();
    assert_eq!((run.status, run.completed_at, run.error), (end.status, Some(Wall(60)), end.error));
    assert_eq!(run.error_type.as_deref(), end.error_type.as_deref());
    assert_eq!(run.context.as_deref(), Some("{\"a\":1}"));
    assert_eq!(run.final_context.as_deref(), Some("{\"b\":2}"));
    let contexts = |contexts| {
        let row = store.runs(&RunFilter { contexts, ..any() }, ALL).unwrap().remove(0);
        (row.context, row.final_context)
    };
    assert_eq!(contexts(true), (run.context, None));
    assert_eq!(contexts(false), (None, None));
    assert_eq!((tasks.len(), started_at(store, 1)), (1, Cell::Int(30)));
}

fn overdue(run: RunRow, epoch: Epoch) -> Body {
    Body { run, epoch, task: "fetch".into(), attempt: 2, at: Wall(40) }
}

/// How many bodies of the first run are told to run still.
fn bodies(store: &dyn Store) -> usize {
    store.run(id(1)).unwrap().unwrap().0.overdue.len()
}

fn a_run_of_which_a_body_still_runs_is_not_opened_again(store: &dyn Store) {
    let (epoch, other) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let row = started(store, epoch, new_run(1));
    assert_eq!(commit(store, Change::Overdue(overdue(row, other))), Receipt::Fenced, "who does not drive it");
    assert_eq!(commit(store, Change::Overdue(overdue(row, epoch))), Receipt::Noted);
    commit(store, ended(row, epoch, RunStatus::Failed));
    let told = Overdue { task: "fetch".into(), attempt: 2, owner: epoch, since: Wall(40) };
    assert_eq!(store.run(id(1)).unwrap().unwrap().0.overdue, [told]);
    for asker in [epoch, other] {
        let refused = store.reopen(asker, id(1));
        assert!(matches!(&refused, Err(Fault::Final(why)) if why.contains("still runs")), "{refused:?}");
    }
    assert_eq!(forget(store, old(5000)), 0, "nor is it forgotten");
    let another = Body { attempt: 1, ..overdue(row, epoch) };
    assert_eq!(commit(store, Change::Returned(another)), Receipt::Noted);
    assert_eq!(bodies(store), 1, "another attempt's end is none of its own");
    assert_eq!(commit(store, Change::Returned(overdue(row, epoch))), Receipt::Noted);
    assert_eq!(bodies(store), 0);
    assert!(store.reopen(other, id(1)).unwrap().is_some());
}

fn a_body_that_still_runs_stays_with_what_its_owner_leaves(store: &dyn Store) {
    let (epoch, other) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let row = started(store, epoch, new_run(1));
    commit(store, Change::Overdue(overdue(row, epoch)));
    commit(store, ended(row, epoch, RunStatus::Failed));
    let kept = InFlight { runs: vec![id(1)], triggers: vec![], ends: vec![] };
    let remnant = store.leave(epoch, &kept, Wall(50)).unwrap().expect("something is kept");
    assert!(store.reopen(other, id(1)).is_err());
    assert_eq!(commit(store, Change::Returned(overdue(row, epoch))), Receipt::Noted);
    assert_eq!(bodies(store), 1, "that owner has none any more");
    assert_eq!(store.leave(remnant, &InFlight::default(), Wall(51)), Ok(None));
    assert_eq!(bodies(store), 0, "who leaves with nothing kept has no body left");
    assert!(store.reopen(other, id(1)).unwrap().is_some());
}

fn seat(run: RunRow) -> Seat {
    Seat { run, task: "call".into(), attempt: 1 }
}

fn ask(run: RunRow, epoch: Epoch, priority: i64, at: i64) -> Change {
    let priority = Priority::new(priority).unwrap();
    Change::Ask(Ask { seat: seat(run), epoch, limits: ["api".into()].into(), priority, at: Wall(at) })
}

fn unseat(run: RunRow, epoch: Epoch, at: i64) -> Change {
    Change::Unseat { seat: seat(run), epoch, at: Wall(at) }
}

fn look(epoch: Epoch, at: i64) -> Change {
    Change::LookForSeats { epoch, limits: vec!["api".into()], at: Wall(at) }
}

/// Whose attempts have their seats, by the rows of their runs; and when the next may have some.
type Granted = (Vec<(Epoch, RunRow)>, Option<(Wall, Epoch)>);

fn granted(store: &dyn Store, change: Change) -> Granted {
    let Receipt::Seats(pass) = commit(store, change) else { panic!("it is about seats") };
    (pass.granted.into_iter().map(|(epoch, seat)| (epoch, seat.run)).collect(), pass.next)
}

fn declare_limit(store: &dyn Store, epoch: Epoch, terms: seat::Terms) -> Receipt {
    commit(store, Change::DeclareLimits { epoch, limits: vec![Limit { name: "api".into(), terms }] })
}

fn at_once(concurrency: u64) -> seat::Terms {
    seat::Terms { concurrency: Some(concurrency), throttle: None }
}

fn limit_of(store: &dyn Store, at: i64) -> ListedLimit {
    store.limits(Wall(at)).unwrap().remove(0)
}

fn a_seat_goes_to_who_asked_first_and_to_the_next_when_it_is_free(store: &dyn Store) {
    let (epoch, other) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let rows = [1, 2, 3].map(|number| started(store, epoch, new_run(number)));
    let foreign = started(store, other, new_run(4));
    assert_eq!(declare_limit(store, epoch, at_once(1)), Receipt::Limits(Vec::new()));
    assert_eq!(granted(store, ask(rows[0], epoch, 5, 10)).0, [(epoch, rows[0])]);
    assert_eq!(granted(store, ask(rows[1], epoch, 5, 11)), (Vec::new(), None));
    assert_eq!(granted(store, ask(foreign, other, 9, 12)).0, []);
    assert_eq!(granted(store, ask(rows[2], epoch, 5, 13)).0, []);
    let limit = limit_of(store, 14);
    assert_eq!((limit.taken, limit.waiting, limit.waits_since), (1, 3, Some(Wall(11))));
    assert_eq!(granted(store, unseat(rows[0], other, 15)).0, [], "it is another owner's");
    assert_eq!(granted(store, unseat(rows[0], epoch, 15)).0, [(other, foreign)], "the most urgent");
    assert_eq!(granted(store, look(other, 16)).0, [(other, foreign)], "who did not hear it is told");
    assert_eq!(granted(store, unseat(rows[1], epoch, 17)).0, [], "who waits no longer leaves the line");
    assert_eq!(granted(store, unseat(foreign, other, 18)).0, [(epoch, rows[2])]);
    assert_eq!(granted(store, unseat(rows[2], epoch, 19)).0, []);
    assert_eq!((limit_of(store, 20).taken, limit_of(store, 20).waiting), (0, 0));
}

fn a_seat_is_asked_for_by_who_drives_the_run(store: &dyn Store) {
    let (epoch, other) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let row = started(store, epoch, new_run(1));
    declare_limit(store, epoch, at_once(1));
    assert_eq!(commit(store, ask(row, other, 5, 10)), Receipt::Fenced);
    commit(store, ended(row, epoch, RunStatus::Failed));
    assert_eq!(commit(store, ask(row, epoch, 5, 11)), Receipt::Fenced, "nor for one that is over");
    assert_eq!((limit_of(store, 12).taken, limit_of(store, 12).waiting), (0, 0));
}

fn a_throttle_says_when_the_next_attempt_may_begin(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let rows = [1, 2, 3].map(|number| started(store, epoch, new_run(number)));
    let throttle = Some(Rate { limit: 1, per: Duration::from_micros(100), burst: 1 });
    declare_limit(store, epoch, seat::Terms { concurrency: None, throttle });
    assert_eq!(granted(store, ask(rows[0], epoch, 5, 1000)).0, [(epoch, rows[0])]);
    assert_eq!(limit_of(store, 1000).next_at, Some(Wall(1100)));
    assert_eq!(granted(store, ask(rows[1], epoch, 5, 1001)), (Vec::new(), Some((Wall(1100), epoch))));
    assert_eq!(granted(store, ask(rows[2], epoch, 5, 1002)).1, Some((Wall(1100), epoch)));
    assert_eq!(granted(store, unseat(rows[0], epoch, 1099)).0, [], "its end does not give its start back");
    let (seats, next) = granted(store, look(epoch, 1100));
    assert_eq!((seats, next), (vec![(epoch, rows[1])], Some((Wall(1200), epoch))));
}

fn seats_of_the_dead_are_free_and_those_of_bodies_in_flight_pass_on(store: &dyn Store) {
    let (epoch, other) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let (mine, waits) = (started(store, epoch, new_run(1)), started(store, epoch, new_run(2)));
    let foreign = started(store, other, new_run(3));
    declare_limit(store, epoch, at_once(1));
    granted(store, ask(mine, epoch, 5, 10));
    granted(store, ask(waits, epoch, 9, 11));
    granted(store, ask(foreign, other, 5, 12));
    let kept = InFlight { runs: vec![id(1)], triggers: vec![], ends: vec![] };
    let remnant = store.leave(epoch, &kept, Wall(20)).unwrap().expect("something is kept");
    assert_eq!(granted(store, look(other, 21)).0, [], "that body still runs");
    assert_eq!((limit_of(store, 22).taken, limit_of(store, 22).waiting), (1, 1));
    assert_eq!(granted(store, unseat(mine, remnant, 23)).0, [(other, foreign)]);
    assert_eq!(store.leave(remnant, &InFlight::default(), Wall(24)), Ok(None));
    assert_eq!(store.leave(other, &InFlight::default(), Wall(25)), Ok(None));
    assert_eq!((limit_of(store, 26).taken, limit_of(store, 26).waiting), (0, 0));
}

fn a_limit_that_was_set_holds_until_that_is_taken_back(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    assert_eq!(store.set_limit("api", Some(at_once(2))), Ok(false), "nobody declared it");
    declare_limit(store, epoch, at_once(1));
    assert_eq!(store.set_limit("api", Some(at_once(2))), Ok(true));
    let limit = limit_of(store, 10);
    assert_eq!((limit.terms, limit.declared, limit.is_set), (at_once(2), at_once(1), true));
    let differs = Differs { name: "api".into(), declared: at_once(3), set: at_once(2) };
    assert_eq!(declare_limit(store, epoch, at_once(3)), Receipt::Limits(vec![differs]));
    assert_eq!(limit_of(store, 11).terms, at_once(2));
    assert_eq!(store.set_limit("api", None), Ok(true));
    assert_eq!((limit_of(store, 12).terms, limit_of(store, 12).is_set), (at_once(3), false));
}

fn what_is_paused_begins_when_that_is_over_or_taken_back(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    declare_limit(store, epoch, at_once(1));
    let by = |until, since| Pause {
        kind: seat::Kind::Limit,
        key: "".into(),
        name: "api".into(),
        until,
        since: Wall(since),
        by: "ada".into(),
    };
    store.pause(&by(Until::At(Wall(100)), 10)).unwrap();
    assert_eq!(store.pauses(Wall(99)).unwrap(), [by(Until::At(Wall(100)), 10)]);
    assert_eq!(granted(store, ask(row, epoch, 5, 11)), (Vec::new(), Some((Wall(100), epoch))));
    commit(store, Change::Pause(by(Until::At(Wall(50)), 12)));
    assert_eq!(granted(store, look(epoch, 60)).0, [], "the longer pause holds");
    commit(store, Change::Pause(by(Until::At(Wall(200)), 61)));
    assert_eq!(granted(store, look(epoch, 150)), (Vec::new(), Some((Wall(200), epoch))));
    store.pause(&by(Until::Resumed, 151)).unwrap();
    assert_eq!(granted(store, look(epoch, 300)), (Vec::new(), None));
    commit(store, Change::Pause(by(Until::At(Wall(400)), 301)));
    assert_eq!(limit_of(store, 500).pause, Some(by(Until::Resumed, 151)));
    assert_eq!(store.resume(seat::Kind::Limit, "api", "", Wall(500)), Ok(true));
    assert_eq!(store.resume(seat::Kind::Limit, "api", "", Wall(501)), Ok(false));
    assert_eq!(store.pauses(Wall(501)).unwrap(), []);
    assert_eq!(granted(store, look(epoch, 502)).0, [(epoch, row)]);
}

fn failed_try(attempt: u32) -> Try {
    Try {
        attempt,
        started_at: Some(Wall(30)),
        ended_at: Wall(40),
        outcome: TryOutcome::Failed,
        error_type: Some("OSError".into()),
        error: Some("OSError: gone".to_owned()),
        traceback: Some("Traceback: here".to_owned()),
        maker: Maker::Writer,
    }
}

/// A task that goes on, or has failed, after one more attempt.
fn tried(store: &dyn Store, run: RunRow, epoch: Epoch, status: TaskStatus, known: Try) -> Receipt {
    let tasks = vec![TaskRecord { tries: vec![known.clone()], ..task("fetch", status, known.attempt) }];
    commit(store, Change::Run(RunChange { run, epoch, tasks, end: None }))
}

fn tries(store: &dyn Store, number: u128) -> Vec<Try> {
    let (_, tasks) = store.run_with_tries(id(number)).unwrap().unwrap();
    tasks.into_iter().flat_map(|task| task.tries).collect()
}

fn how_attempts_ended_is_kept_with_who_made_them(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    let lost =
        Try { outcome: TryOutcome::Interrupted, maker: Maker::Unknown, started_at: None, ..failed_try(2) };
    let other = Try { outcome: TryOutcome::TimedOut, maker: Maker::Owner(Epoch(77)), ..failed_try(3) };
    for known in [failed_try(1), lost.clone(), other.clone()] {
        let status = if known.attempt == 3 { TaskStatus::Failed } else { TaskStatus::Running };
        assert_eq!(tried(store, row, epoch, status, known), Receipt::Run(None));
    }
    let own = Try { maker: Maker::Owner(epoch), ..failed_try(1) };
    assert_eq!(tries(store, 1), [own, lost, other]);
    let (_, tasks) = store.run(id(1)).unwrap().unwrap();
    assert_eq!((tasks[0].error_type.as_deref(), tasks[0].tries.len()), (Some("OSError"), 0));
}

fn of_many_attempts_the_first_and_the_last_are_kept(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    for attempt in 1..=100 {
        tried(store, row, epoch, TaskStatus::Running, failed_try(attempt));
    }
    let kept: Vec<u32> = tries(store, 1).iter().map(|known| known.attempt).collect();
    let expected: Vec<u32> = (1..=TRIES_FIRST_MAX as u32).chain(101 - TRIES_LAST_MAX as u32..=100).collect();
    assert_eq!(kept, expected);
    let left_out = |number| store.run_with_tries(id(number)).unwrap().unwrap().0.tries_left_out;
    assert_eq!(left_out(1), [("fetch".into(), 100 - (TRIES_FIRST_MAX + TRIES_LAST_MAX) as u64)]);
    let other = started(store, epoch, new_run(2));
    tried(store, other, epoch, TaskStatus::Running, failed_try(1));
    assert_eq!(left_out(2), []);
}

fn attempts_outlive_a_takeover_and_being_opened_again(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let row = started(store, old, new_run(1));
    tried(store, row, old, TaskStatus::Failed, failed_try(1));
    let new = successor(store, old);
    let claimed = store.claim_runs(new, LATE, 10, &["mail".into()]).unwrap().remove(0);
    assert_eq!(claimed.tasks[0].error_type.as_deref(), Some("OSError"));
    commit(store, ended(row, new, RunStatus::Failed));
    store.reopen(new, id(1)).unwrap().unwrap();
    assert_eq!(store.run(id(1)).unwrap().unwrap().0.error_type, None);
    let former = || store.run_with_tries(id(1)).unwrap().unwrap().0.former;
    assert_eq!(former(), [("fetch".into(), vec![Try { maker: Maker::Owner(old), ..failed_try(1) }])]);
    tried(store, row, new, TaskStatus::Running, failed_try(1));
    let makers: Vec<Maker> = tries(store, 1).iter().map(|known| known.maker).collect();
    assert_eq!(makers, [Maker::Owner(old), Maker::Owner(new)]);
    assert_eq!(former(), [], "its task is on record again");
}

fn who_drives_no_run_writes_none_of_its_attempts(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    assert_eq!(tried(store, row, Epoch(epoch.0 + 1), TaskStatus::Running, failed_try(1)), Receipt::Fenced);
    tried(store, row, epoch, TaskStatus::Running, failed_try(1));
    assert_eq!(tries(store, 1).len(), 1);
}

fn who_gave_a_run_up_is_not_told_of_as_who_had_it(store: &dyn Store) {
    let first = store.join(Wall(1)).unwrap();
    started(store, first, new_run(1));
    let claim = |epoch| store.claim_runs(epoch, LATE, 10, &["mail".into()]).unwrap().remove(0).owner_before;
    store.leave(first, &InFlight::default(), Wall(2)).unwrap();
    let second = store.join(Wall(3)).unwrap();
    assert_eq!(claim(second), None);
}

fn an_empty_progress_only_asks_who_drives(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    let empty = |epoch| Change::Run(RunChange { run: row, epoch, tasks: vec![], end: None });
    assert_eq!(commit(store, empty(epoch)), Receipt::Run(None));
    assert_eq!(commit(store, empty(Epoch(epoch.0 + 1))), Receipt::Fenced);
    assert_eq!(store.run(id(1)).unwrap().unwrap().0.status, RunStatus::Pending);
}

fn history_of_equal_outcomes_is_one_row(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let (inbox, outbox) = (declared(store, epoch, "inbox"), declared(store, epoch, "outbox"));
    let piece = |row, at, count, min_us, max_us, sum_us| Stretch {
        count,
        min_us,
        max_us,
        sum_us,
        last_at: Wall(at + 5),
        ..stretch(row, Outcome::Skip, "quiet", at)
    };
    let pieces = vec![piece(inbox.row, 100, 3, 4, 9, 20), piece(outbox.row, 100, 1, 1, 1, 1)];
    commit(store, Change::History(pieces));
    let history = vec![piece(inbox.row, 200, 2, 2, 7, 9)];
    commit(store, Change::Tick(TickChange { history, ..tick(&inbox, epoch, vec![]) }));
    let whole = Stretch { last_at: Wall(205), ..piece(inbox.row, 100, 5, 2, 9, 29) };
    assert_eq!(store.history(inbox.row, ALL).unwrap(), [whole]);
    assert_eq!(store.history(outbox.row, ALL).unwrap().len(), 1);
}

fn history_of_different_outcomes_is_newest_first(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = declared(store, epoch, "inbox").row;
    let pieces = vec![
        stretch(row, Outcome::Skip, "quiet", 1),
        stretch(row, Outcome::Skip, "night", 2),
        stretch(row, Outcome::Error, "night", 3),
        stretch(row, Outcome::Skip, "quiet", 4),
    ];
    commit(store, Change::History(pieces.clone()));
    let newest: Vec<Stretch> = pieces.into_iter().rev().collect();
    assert_eq!(store.history(row, ALL).unwrap(), newest);
    assert_eq!(store.history(row, Page { limit: 2, offset: 1 }).unwrap(), newest[1..3]);
}

fn history_alone_notes_the_last_poll(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    assert_eq!(trigger.last_at, None);
    for at in [90, 80] {
        commit(store, Change::History(vec![stretch(trigger.row, Outcome::Skip, "quiet", at)]));
        assert_eq!(store.trigger("inbox").unwrap().unwrap().last_at, Some(Wall(90)));
    }
}

/// With callbacks for those ends.
fn tells(outcomes: &[RunStatus]) -> WorkflowRow {
    let tells = outcomes.iter().fold(Outcomes::default(), |set, &status| set.with(status));
    WorkflowRow { tells, ..declares("mail", "v1") }
}

fn has_ended(store: &dyn Store, epoch: Epoch, number: u128, status: RunStatus) {
    let run = NewRun { run_key: None, ..new_run(number) };
    commit(store, Change::Start { epoch, runs: vec![run], cron: None });
    end_of(store, epoch, number, status);
}

fn end_of(store: &dyn Store, epoch: Epoch, number: u128, status: RunStatus) {
    let row = store.run(id(number)).unwrap().unwrap().0.row;
    let end = RunEnd { status, completed_at: Wall(100), context: "{}".into(), error: None, error_type: None };
    let change = RunChange { epoch, run: row, tasks: vec![], end: Some(end) };
    assert!(matches!(commit(store, Change::Run(change)), Receipt::Run(_)));
}

fn handed(store: &dyn Store, epoch: Epoch, at: i64) -> Vec<End> {
    store.take_ends(epoch, Wall(at), 10, &[]).unwrap()
}

/// Drops the callbacks that nobody has declared since `before`.
fn dropped(store: &dyn Store, before: Wall, at: Wall) -> Stored<Vec<(String, u64)>> {
    let mut unwanted = store.unwanted_callbacks()?;
    unwanted.retain(|each| each.since < before);
    store.drop_callbacks(&unwanted, at)
}

fn ends_of_workflows_that_are_left_out_are_not_handed_out(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let each = tells(&[RunStatus::Failed]);
    let quoted = WorkflowRow { name: "it's \"w\"".into(), ..each.clone() };
    store.declare_workflows(epoch, &[each, quoted], Wall(5)).unwrap();
    has_ended(store, epoch, 1, RunStatus::Failed);
    let (its, other) = ("mail".to_owned(), "it's \"w\"".to_owned());
    for full in [vec![its.clone()], vec![other.clone(), its]] {
        assert_eq!(store.next_end(epoch, LATE, &full), Ok(None));
        assert_eq!(store.take_ends(epoch, LATE, 10, &full).unwrap().len(), 0);
    }
    let full = [other];
    assert_eq!(store.next_end(epoch, LATE, &full), Ok(Some(Wall(100))));
    assert_eq!(store.take_ends(epoch, LATE, 10, &full).unwrap().len(), 1);
}

fn an_end_is_told_once_to_who_declares_the_callback(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.declare_workflows(first, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    assert_eq!(store.next_end(first, LATE, &[]), Ok(None));
    has_ended(store, second, 1, RunStatus::Failed);
    has_ended(store, second, 2, RunStatus::Completed);
    assert_eq!(store.next_end(first, LATE, &[]), Ok(Some(Wall(100))));
    assert_eq!(store.next_end(second, LATE, &[]), Ok(None));
    assert_eq!(handed(store, second, 100), []);
    let [end] = &handed(store, first, 100)[..] else { panic!("there is one end") };
    assert_eq!((end.run, &*end.workflow, end.number, end.status), (id(1), "mail", 1, RunStatus::Failed));
    assert_eq!((end.tries, end.ended_at), (1, Some(Wall(100))));
    assert_eq!((store.next_end(first, LATE, &[]), handed(store, first, 200)), (Ok(None), vec![]));
    store.end_told(first, end.key, &Settled::Called, Wall(700)).unwrap();
    assert_eq!((store.next_end(first, LATE, &[]), handed(store, first, 200)), (Ok(None), vec![]));
}

fn who_has_no_callback_for_an_end_is_not_told_of_it(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.declare_workflows(first, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    store.declare_workflows(second, &[tells(&[RunStatus::Completed])], Wall(5)).unwrap();
    has_ended(store, second, 1, RunStatus::Failed);
    assert_eq!((store.next_end(second, LATE, &[]), handed(store, second, 100)), (Ok(None), vec![]));
    assert_eq!(handed(store, first, 100).len(), 1);
}

fn an_end_without_a_callback_is_told_nobody(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    store.declare_workflows(epoch, &[declares("mail", "v1")], Wall(5)).unwrap();
    has_ended(store, epoch, 1, RunStatus::Failed);
    store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    assert_eq!(store.next_end(epoch, LATE, &[]), Ok(None));
}

fn an_end_whose_callback_only_they_had_who_are_gone_waits_no_more(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.declare_workflows(old, &[tells(&[RunStatus::Failed, RunStatus::Completed])], Wall(5)).unwrap();
    store.declare_workflows(new, &[tells(&[RunStatus::Completed])], Wall(5)).unwrap();
    has_ended(store, old, 1, RunStatus::Failed);
    has_ended(store, old, 2, RunStatus::Failed);
    has_ended(store, old, 3, RunStatus::Completed);
    let waiting = || [1, 2, 3].map(|number| store.run(id(number)).unwrap().unwrap().0.calls.len());
    assert_eq!(store.take_ends(old, Wall(100), 1, &[]).unwrap().len(), 1);
    assert_eq!(waiting(), [1, 1, 1], "the old version may still call them");
    store.leave(old, &InFlight::default(), Wall(200)).unwrap();
    assert_eq!(waiting(), [1, 1, 1], "it may come back");
    assert_eq!(dropped(store, Wall(201), Wall(250)), Ok(vec![("mail".to_owned(), 2)]));
    assert_eq!(waiting(), [0, 0, 1]);
    store.leave(new, &InFlight::default(), Wall(300)).unwrap();
    assert_eq!(waiting(), [0, 0, 1], "while nobody declares it, it stays as it was");
}

fn an_end_by_a_strangers_cancel_is_told_too(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.declare_workflows(first, &[tells(&[RunStatus::Cancelled])], Wall(5)).unwrap();
    let run = NewRun { is_anyones: true, ..new_run(1) };
    commit(store, Change::Start { epoch: first, runs: vec![run], cron: None });
    store.request_cancel(second, id(1), Wall(50)).unwrap();
    let [end] = &handed(store, first, 100)[..] else { panic!("there is one end") };
    assert_eq!((end.run, end.status), (id(1), RunStatus::Cancelled));
}

fn what_one_has_in_hand_is_nobody_elses_until_it_is_gone(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    for epoch in [first, second] {
        store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    }
    has_ended(store, second, 1, RunStatus::Failed);
    has_ended(store, second, 2, RunStatus::Failed);
    let held = handed(store, first, 100);
    assert_eq!((held.len(), handed(store, second, 200)), (2, vec![]));
    let kept = InFlight { runs: vec![], triggers: vec![], ends: vec![held[0].key] };
    let remnant = store.leave(first, &kept, Wall(300)).unwrap().unwrap();
    // Who leaves can say nothing of what it gave up.
    store.end_told(first, held[1].key, &Settled::Called, Wall(700)).unwrap();
    let again = handed(store, second, 400);
    assert_eq!(again.iter().map(|end| (end.run, end.tries)).collect::<Vec<_>>(), [(id(2), 2)]);
    store.end_told(remnant, held[0].key, &Settled::Called, Wall(700)).unwrap();
    store.leave(remnant, &InFlight::default(), Wall(500)).unwrap();
    assert_eq!(store.next_end(second, LATE, &[]), Ok(None));
}

/// One of them may have ended the process, and would take the others along each time.
fn what_its_process_ended_with_is_told_one_at_a_time(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    for epoch in [first, second] {
        store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    }
    (1..=3).for_each(|number| has_ended(store, second, number, RunStatus::Failed));
    assert_eq!(handed(store, first, 100).len(), 3);
    store.leave(first, &InFlight::default(), Wall(200)).unwrap();
    let call = store.run(id(3)).unwrap().unwrap().0.calls.remove(0);
    assert_eq!(call.error.as_deref(), Some("the process that called it ended"));
    has_ended(store, second, 4, RunStatus::Failed);
    let runs = |at| handed(store, second, at).iter().map(|end| end.run).collect::<Vec<_>>();
    let held = handed(store, second, 300);
    assert_eq!(held.iter().map(|end| end.run).collect::<Vec<_>>(), [id(1), id(4)], "what is new beside one");
    assert_eq!((store.next_end(second, Wall(300), &[]), runs(300)), (Ok(None), vec![]));
    store.end_told(second, held[0].key, &Settled::Called, Wall(700)).unwrap();
    assert_eq!((store.next_end(second, Wall(300), &[]), runs(300)), (Ok(Some(Wall(100))), vec![id(2)]));
    assert_eq!(runs(60_000_299), Vec::<Uuid>::new());
    assert_eq!(runs(60_000_300), [id(3)], "one that hangs holds up none for ever");
    // Of a second call the pause counts from when that began.
    store.end_told(second, held[1].key, &Settled::Called, Wall(700)).unwrap();
    store.leave(second, &InFlight::default(), Wall(60_000_400)).unwrap();
    let third = store.join(Wall(60_000_400)).unwrap();
    store.declare_workflows(third, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    assert_eq!(store.next_end(third, Wall(60_000_400), &[]), Ok(Some(Wall(1_000_300))));
}

/// One that hangs holds up those of no other workflow, and one that ends its process twice takes no other along from then on.
fn of_each_workflow_one_is_told_again_that_its_process_ended_with_and_what_that_did_twice_alone(
    store: &dyn Store,
) {
    let [first, second, third] = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    let each = tells(&[RunStatus::Failed]);
    let other = WorkflowRow { name: "other".into(), ..each.clone() };
    for epoch in [first, second, third] {
        store.declare_workflows(epoch, &[each.clone(), other.clone()], Wall(5)).unwrap();
    }
    for (number, workflow) in [(1, "mail"), (2, "mail"), (3, "other"), (4, "other")] {
        let run = NewRun { run_key: None, workflow: workflow.into(), ..new_run(number) };
        commit(store, Change::Start { epoch: first, runs: vec![run], cron: None });
        end_of(store, first, number, RunStatus::Failed);
    }
    let runs = |ends: &[End]| ends.iter().map(|end| end.run).collect::<Vec<_>>();
    assert_eq!(handed(store, first, 100).len(), 4);
    store.leave(first, &InFlight::default(), Wall(200)).unwrap();
    assert_eq!(runs(&handed(store, second, 300)), [id(1)]);
    assert_eq!(store.next_end(second, Wall(300), &[]), Ok(Some(Wall(100))));
    assert_eq!(runs(&handed(store, second, 300)), [id(3)]);
    assert_eq!((store.next_end(second, Wall(300), &[]), handed(store, second, 300)), (Ok(None), vec![]));
    store.leave(second, &InFlight::default(), Wall(400)).unwrap();
    // The two that were being called are due again after a second.
    let again = handed(store, third, 500).remove(0);
    assert_eq!(again.run, id(2));
    let late = 1_000_300;
    assert_eq!(
        runs(&store.take_ends(third, Wall(late), 10, &["other".to_owned()]).unwrap()),
        Vec::<Uuid>::new()
    );
    store.end_told(third, again.key, &Settled::Called, Wall(700)).unwrap();
    let again = store.take_ends(third, Wall(late), 10, &["other".to_owned()]).unwrap().remove(0);
    assert_eq!(again.run, id(1));
    assert_eq!((store.next_end(third, Wall(late), &[]), handed(store, third, late)), (Ok(None), vec![]));
    store.end_told(third, again.key, &Settled::Called, Wall(700)).unwrap();
    assert_eq!(runs(&handed(store, third, late)), [id(4)]);
    assert_eq!((store.next_end(third, Wall(late), &[]), handed(store, third, late)), (Ok(None), vec![]));
}

fn a_call_that_failed_waits_for_its_own_time(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    has_ended(store, epoch, 1, RunStatus::Failed);
    let end = handed(store, epoch, 100).remove(0);
    store.put_end_off(epoch, end.key, put_off(200, 500), "ValueError: no").unwrap();
    has_ended(store, epoch, 2, RunStatus::Failed);
    let [other] = &handed(store, epoch, 200)[..] else { panic!("the other is due") };
    assert_eq!(other.run, id(2));
    let call = store.run(id(1)).unwrap().unwrap().0.calls.remove(0);
    assert_eq!((call.status, call.tries, call.due_at), (RunStatus::Failed, 1, Wall(500)));
    assert_eq!((call.error.as_deref(), call.begun), (Some("ValueError: no"), None));
    assert_eq!(store.next_end(epoch, LATE, &[]), Ok(Some(Wall(500))));
    let again = handed(store, epoch, 500).remove(0);
    assert_eq!((again.run, again.tries), (id(1), 2));
}

/// A call that was to be made again at `until`, said at `at`.
fn put_off(at: i64, until: i64) -> Wait {
    Wait { not_before: Wall(until), span_us: until - at }
}

fn a_call_that_waits_since_the_clock_was_ahead_waits_no_longer_than_it_was_to(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    for epoch in [first, second] {
        store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    }
    let next = |at| store.next_end(first, Wall(at), &[]).unwrap();
    for number in [1, 2, 3] {
        has_ended(store, first, number, RunStatus::Failed);
    }
    let held = handed(store, first, 9000);
    store.put_end_off(first, held[0].key, put_off(9000, 9500), "ValueError: no").unwrap();
    assert_eq!(next(9100), Some(Wall(9500)));
    // It is put right again.
    assert_eq!((next(300), handed(store, first, 300), next(300)), (Some(Wall(300)), vec![], Some(Wall(800))));
    assert_eq!((next(700), handed(store, first, 700)), (Some(Wall(800)), vec![]));
    store.put_end_off(first, held[1].key, put_off(9000, 9500), "ValueError: no").unwrap();
    let again = handed(store, first, 800);
    assert_eq!(again.iter().map(|end| end.run).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(next(800), Some(Wall(1300)), "the other from when that was seen");
    // Whose process dies in its second call, then in its third, with a clock that is ahead.
    store.end_told(first, held[2].key, &Settled::Called, Wall(700)).unwrap();
    store.leave(first, &InFlight::default(), Wall(900)).unwrap();
    let second_call = handed(store, second, 9_000_000_000);
    assert_eq!(second_call.len(), 2);
    store.leave(second, &InFlight::default(), Wall(950)).unwrap();
    let third = store.join(Wall(1000)).unwrap();
    store.declare_workflows(third, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    assert_eq!(handed(store, third, 1000), []);
    assert_eq!(store.next_end(third, Wall(1000), &[]), Ok(Some(Wall(1_001_000))));
}

/// Each of the two would cut the waits of the other, so that one which always fails had none.
fn a_pause_counts_by_the_clock_of_who_began_it_while_that_one_may_tell(store: &dyn Store) {
    let [behind, ahead] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    for epoch in [behind, ahead] {
        store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    }
    let next = |epoch, at| store.next_end(epoch, Wall(at), &[]).unwrap();
    has_ended(store, ahead, 1, RunStatus::Failed);
    let end = handed(store, ahead, 9000).remove(0);
    store.put_end_off(ahead, end.key, put_off(9000, 9500), "ValueError: no").unwrap();
    assert_eq!((next(behind, 300), handed(store, behind, 300)), (Some(Wall(9500)), vec![]));
    assert_eq!((next(ahead, 9100), handed(store, ahead, 9100)), (Some(Wall(9500)), vec![]));
    let end = handed(store, ahead, 9500).remove(0);
    store.put_end_off(ahead, end.key, put_off(9500, 9700), "ValueError: no").unwrap();
    // That has no callback any more.
    store.declare_workflows(ahead, &[tells(&[RunStatus::Completed])], Wall(9600)).unwrap();
    assert_eq!((next(behind, 400), handed(store, behind, 400)), (Some(Wall(400)), vec![]));
    assert_eq!(next(behind, 400), Some(Wall(600)));
    let end = handed(store, behind, 600).remove(0);
    store.declare_workflows(ahead, &[tells(&[RunStatus::Failed])], Wall(9700)).unwrap();
    store.put_end_off(behind, end.key, put_off(600, 700), "ValueError: no").unwrap();
    let end = handed(store, ahead, 9800).remove(0);
    store.put_end_off(ahead, end.key, put_off(9800, 9900), "ValueError: no").unwrap();
    store.leave(ahead, &InFlight::default(), Wall(9850)).unwrap();
    assert_eq!((next(behind, 800), handed(store, behind, 800)), (Some(Wall(800)), vec![]));
    assert_eq!(next(behind, 800), Some(Wall(900)));
    // Of who asks that it be soon the clock may be ahead, too.
    assert_eq!(store.call_soon(id(1), Wall(9900)), Ok(true));
    assert_eq!((next(behind, 850), handed(store, behind, 850).len()), (Some(Wall(850)), 1));
}

/// The clock was ahead when the run ended.
fn an_end_from_a_clock_that_was_ahead_is_told_at_once(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    has_ended(store, epoch, 1, RunStatus::Failed);
    assert_eq!(store.next_end(epoch, Wall(50), &[]), Ok(Some(Wall(50))));
    let [end] = &handed(store, epoch, 50)[..] else { panic!("it is due") };
    assert_eq!((end.run, end.ended_at), (id(1), Some(Wall(100))));
}

fn to_open_a_run_again_withdraws_calls_that_have_not_begun(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    has_ended(store, epoch, 1, RunStatus::Failed);
    assert!(store.reopen(epoch, id(1)).unwrap().is_some());
    assert_eq!(store.next_end(epoch, LATE, &[]), Ok(None));
    end_of(store, epoch, 1, RunStatus::Failed);
    let end = handed(store, epoch, 100).remove(0);
    assert_eq!((end.run, end.number), (id(1), 2));
    // What has begun goes on.
    assert!(store.reopen(epoch, id(1)).unwrap().is_some());
    assert_eq!(store.run(id(1)).unwrap().unwrap().0.calls.len(), 1);
}

/// It would be told the end that came after its own.
fn a_call_that_came_to_nothing_is_not_made_again_for_a_run_that_was_opened_meanwhile(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    for epoch in [first, second] {
        store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    }
    for number in [1, 2] {
        has_ended(store, second, number, RunStatus::Failed);
    }
    let held = handed(store, first, 100);
    for number in [1, 2] {
        assert!(store.reopen(second, id(number)).unwrap().is_some());
        end_of(store, second, number, RunStatus::Failed);
    }
    store.put_end_off(first, held[0].key, put_off(150, 200), "ValueError: no").unwrap();
    store.leave(first, &InFlight::default(), Wall(300)).unwrap();
    let told = handed(store, second, 400);
    assert_eq!(told.iter().map(|end| (end.run, end.number)).collect::<Vec<_>>(), [(id(1), 2), (id(2), 2)]);
}

fn a_callback_that_nobody_declares_for_a_while_misses_nothing(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.declare_workflows(old, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    // Another program serves the workflow, and knows no callbacks.
    store.declare_workflows(new, &[declares("mail", "v2")], Wall(5)).unwrap();
    has_ended(store, new, 1, RunStatus::Failed);
    assert_eq!(store.next_end(old, LATE, &[]), Ok(Some(Wall(100))));
    store.leave(old, &InFlight::default(), Wall(200)).unwrap();
    has_ended(store, new, 2, RunStatus::Failed);
    store.declare_workflows(new, &[declares("mail", "v2")], Wall(250)).unwrap();
    assert_eq!(dropped(store, Wall(200), Wall(300)), Ok(vec![]));
    let back = store.join(Wall(3)).unwrap();
    store.declare_workflows(back, &[tells(&[RunStatus::Failed])], Wall(300)).unwrap();
    assert_eq!(dropped(store, LATE, LATE), Ok(vec![]));
    assert_eq!(handed(store, back, 400).iter().map(|end| end.run).collect::<Vec<_>>(), [id(1), id(2)]);
}

fn what_nobody_has_declared_for_long_is_told_to_nobody(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.declare_workflows(old, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    store.declare_workflows(new, &[declares("mail", "v2")], Wall(5)).unwrap();
    (1..=3).for_each(|number| has_ended(store, old, number, RunStatus::Failed));
    let end = handed(store, old, 100).remove(0);
    store.end_told(old, end.key, &Settled::Called, Wall(150)).unwrap();
    store.leave(old, &InFlight::default(), Wall(200)).unwrap();
    assert_eq!(dropped(store, Wall(201), Wall(600)), Ok(vec![("mail".to_owned(), 2)]));
    assert_eq!(last_call(store, 2), Some((RunStatus::Failed, CallFate::Dropped, 1, Wall(600))));
    assert_eq!(dropped(store, LATE, LATE), Ok(vec![]));
    has_ended(store, new, 4, RunStatus::Failed);
    store.declare_workflows(new, &[tells(&[RunStatus::Failed])], Wall(700)).unwrap();
    assert_eq!(store.next_end(new, LATE, &[]), Ok(None));
}

/// Who declares its workflow without may be who starts first in the morning.
fn a_callback_is_not_dropped_for_a_time_in_which_nobody_declared_its_workflow(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.declare_workflows(old, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    store.declare_workflows(new, &[declares("mail", "v2")], Wall(5)).unwrap();
    has_ended(store, old, 1, RunStatus::Failed);
    store.leave(old, &InFlight::default(), Wall(200)).unwrap();
    store.leave(new, &InFlight::default(), Wall(300)).unwrap();
    assert_eq!(dropped(store, LATE, LATE), Ok(vec![]));
    let next = store.join(Wall(3)).unwrap();
    store.declare_workflows(next, &[declares("mail", "v2")], Wall(9000)).unwrap();
    assert_eq!(dropped(store, Wall(9000), Wall(9500)), Ok(vec![]));
    // Nor if it starts again, though nobody has seen it go.
    let again = store.join(Wall(4)).unwrap();
    store.declare_workflows(again, &[declares("mail", "v2")], Wall(9550)).unwrap();
    assert_eq!(dropped(store, Wall(9550), Wall(9560)), Ok(vec![]));
    store.leave(again, &InFlight::default(), Wall(9570)).unwrap();
    assert_eq!(dropped(store, Wall(9550), Wall(9580)), Ok(vec![]));
    // Nor where it declares others alone.
    store.declare_workflows(next, &[], Wall(9600)).unwrap();
    assert_eq!(dropped(store, LATE, LATE), Ok(vec![]));
    store.declare_workflows(next, &[declares("mail", "v2")], Wall(9700)).unwrap();
    assert_eq!(dropped(store, Wall(9700), LATE), Ok(vec![]));
    let before = store.unwanted_callbacks().unwrap();
    assert_eq!(before, [Unwanted { workflow: "mail".to_owned(), since: Wall(9700) }]);
    store.declare_workflows(next, &[declares("mail", "v2")], Wall(9800)).unwrap();
    assert_eq!(store.drop_callbacks(&before, LATE), Ok(vec![]), "somebody has begun anew to declare it");
    assert_eq!(dropped(store, Wall(9801), LATE), Ok(vec![("mail".to_owned(), 1)]));
}

fn last_call(store: &dyn Store, number: u128) -> Option<(RunStatus, CallFate, u32, Wall)> {
    let (run, _) = store.run(id(number)).unwrap().unwrap();
    run.last_call.map(|LastCall { status, fate, tries, at, .. }| (status, fate, tries, at))
}

fn last_error(store: &dyn Store, number: u128) -> Option<String> {
    store.run(id(number)).unwrap().unwrap().0.last_call.and_then(|last| last.error)
}

fn what_became_of_a_callback_stays_with_its_run(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    store.declare_workflows(epoch, &[tells(&[RunStatus::Failed, RunStatus::Cancelled])], Wall(5)).unwrap();
    (1..=3).for_each(|number| has_ended(store, epoch, number, RunStatus::Failed));
    assert_eq!(last_call(store, 1), None);
    let first = handed(store, epoch, 100);
    store.put_end_off(epoch, first[0].key, put_off(100, 200), "ValueError: no").unwrap();
    assert_eq!(last_call(store, 1), None);
    let again = handed(store, epoch, 200).remove(0);
    store.end_told(epoch, again.key, &Settled::Called, Wall(700)).unwrap();
    store
        .end_told(epoch, first[1].key, &Settled::GivenUp(Some("the last one".to_owned())), Wall(800))
        .unwrap();
    store.end_told(epoch, first[2].key, &Settled::Withdrawn, Wall(900)).unwrap();
    assert_eq!(last_call(store, 1), Some((RunStatus::Failed, CallFate::Told, 2, Wall(700))));
    assert_eq!(last_call(store, 2), Some((RunStatus::Failed, CallFate::GivenUp, 1, Wall(800))));
    assert_eq!([last_error(store, 1), last_error(store, 2)], [None, Some("the last one".to_owned())]);
    assert_eq!(last_call(store, 3), None);
}

fn an_end_that_is_given_back_is_told_by_whoever_declares_its_callback(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.declare_workflows(first, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    store.declare_workflows(second, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    has_ended(store, second, 1, RunStatus::Failed);
    let end = handed(store, first, 100).remove(0);
    store.declare_workflows(first, &[], Wall(5)).unwrap();
    store.give_end_back(first, end.key, put_off(110, 150)).unwrap();
    assert_eq!(handed(store, first, 200), []);
    let again = handed(store, second, 200).remove(0);
    assert_eq!((again.key, again.tries), (end.key, 1), "no call was made");
    store.give_end_back(first, end.key, put_off(210, 250)).unwrap();
    assert_eq!(store.next_end(second, LATE, &[]), Ok(None), "it is the other's");
    store.give_end_back(second, end.key, put_off(210, 250)).unwrap();
    // Nobody declares the workflow: it waits, and so it does while somebody has declared it without the callback for a short time.
    store.declare_workflows(second, &[], Wall(5)).unwrap();
    store.declare_workflows(first, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    let end = handed(store, first, 300).remove(0);
    store.declare_workflows(first, &[declares("mail", "v2")], Wall(305)).unwrap();
    store.give_end_back(first, end.key, put_off(310, 350)).unwrap();
    assert_eq!(dropped(store, Wall(305), Wall(360)), Ok(vec![]));
    assert_eq!(last_call(store, 1), None);
    assert_eq!(dropped(store, Wall(306), Wall(370)), Ok(vec![("mail".to_owned(), 1)]));
    assert_eq!(last_call(store, 1).map(|(_, fate, ..)| fate), Some(CallFate::Dropped));
}

fn a_callback_that_waits_is_due_at_once_if_that_is_asked_for(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.declare_workflows(first, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    assert_eq!(store.call_soon(id(1), Wall(50)), Ok(false), "there is no such run");
    has_ended(store, second, 1, RunStatus::Failed);
    let end = handed(store, first, 100).remove(0);
    assert_eq!(store.call_soon(id(1), Wall(150)), Ok(false), "it is being called");
    store.put_end_off(first, end.key, put_off(200, 9000), "ValueError: no").unwrap();
    assert_eq!(store.next_end(first, Wall(300), &[]), Ok(Some(Wall(9000))));
    assert_eq!(store.call_soon(id(1), Wall(300)), Ok(true));
    assert_eq!(store.next_end(first, Wall(300), &[]), Ok(Some(Wall(300))));
    let end = handed(store, first, 300).remove(0);
    assert_eq!(end.tries, 2);
    store.end_told(first, end.key, &Settled::Called, Wall(400)).unwrap();
    assert_eq!(store.call_soon(id(1), Wall(500)), Ok(false), "it was told");
}

fn a_callback_that_waits_is_called_no_more_if_that_is_asked_for(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    has_ended(store, epoch, 1, RunStatus::Failed);
    let end = handed(store, epoch, 100).remove(0);
    assert_eq!(store.skip_call(id(1), Wall(150)), Ok(false), "it is being called");
    store.put_end_off(epoch, end.key, put_off(100, 200), "ValueError: no").unwrap();
    assert_eq!(store.skip_call(id(1), Wall(160)), Ok(true));
    assert_eq!(store.skip_call(id(1), Wall(170)), Ok(false));
    assert_eq!((store.next_end(epoch, LATE, &[]), handed(store, epoch, 300)), (Ok(None), vec![]));
    assert_eq!(last_call(store, 1), Some((RunStatus::Failed, CallFate::Skipped, 1, Wall(160))));
}

fn runs_are_listed_whose_callbacks_wait(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    (1..=4).for_each(|number| has_ended(store, epoch, number, RunStatus::Failed));
    has_ended(store, epoch, 5, RunStatus::Completed);
    hears(store, epoch, "inbox", "mail", &[RunStatus::Failed]);
    has_ended(store, epoch, 6, RunStatus::Completed);
    let ends = store.take_ends(epoch, Wall(100), 2, &[]).unwrap();
    store.end_told(epoch, ends[0].key, &Settled::Called, Wall(150)).unwrap();
    let told = ends[0].run;
    for by in [By::Creation, By::End] {
        let listed = |filter: RunFilter, page: Page| -> Vec<Uuid> {
            let filter = RunFilter { untold: true, by, ..filter };
            store.runs(&filter, page).unwrap().iter().map(|run| run.id).collect()
        };
        let all = listed(RunFilter::default(), ALL);
        let waiting: Vec<Uuid> = [4, 3, 2, 1].map(id).into_iter().filter(|&id| id != told).collect();
        let mut sorted = all.clone();
        sorted.sort_by_key(|&id| std::cmp::Reverse(id));
        assert_eq!(sorted, waiting);
        assert_eq!(listed(RunFilter::default(), Page { limit: 1, offset: 1 }), all[1..2]);
        let after = store.place(all[0]).unwrap();
        assert_eq!(listed(RunFilter { after, ..RunFilter::default() }, ALL), all[1..]);
        let other = RunFilter { workflow: Some("other".to_owned()), ..RunFilter::default() };
        assert!(listed(other, ALL).is_empty());
        let completed = RunFilter { status: Some(RunStatus::Completed), ..RunFilter::default() };
        assert!(listed(completed, ALL).is_empty());
        let failed = RunFilter { status: Some(RunStatus::Failed), ..RunFilter::default() };
        assert_eq!(listed(failed, ALL), all);
    }
}

fn a_run_is_kept_until_its_end_is_told(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    store.declare_workflows(epoch, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    has_ended(store, epoch, 1, RunStatus::Failed);
    let old = Old { now: Wall(900), runs_before: Some(Wall(800)), ticks_before: Wall(0), ticks_max: 10 };
    assert!(store.find_old(&old, 10, &Halt::default()).unwrap().runs.is_empty());
    let end = handed(store, epoch, 100).remove(0);
    store.end_told(epoch, end.key, &Settled::Called, Wall(700)).unwrap();
    assert_eq!(store.find_old(&old, 10, &Halt::default()).unwrap().runs.len(), 1);
}

fn a_run_is_not_kept_for_a_callback_that_nobody_has_declared_for_long(store: &dyn Store) {
    let first = store.join(Wall(1)).unwrap();
    store.declare_workflows(first, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    has_ended(store, first, 1, RunStatus::Failed);
    let end = handed(store, first, 100).remove(0);
    let wait = Wait { not_before: Wall(500), span_us: 400 };
    store.put_end_off(first, end.key, wait, "ValueError").unwrap();
    let second = store.join(Wall(2)).unwrap();
    store.leave(first, &InFlight::default(), Wall(50)).unwrap();
    let old = |before| Old {
        now: Wall(900),
        runs_before: Some(Wall(before)),
        ticks_before: Wall(0),
        ticks_max: 10,
    };
    let found = |before| store.find_old(&old(before), 10, &Halt::default()).unwrap();
    assert!(found(500).runs.is_empty(), "who declares it may be back in a moment");
    let runs = found(501);
    assert_eq!(runs.runs.len(), 1);
    store.declare_workflows(second, &[tells(&[RunStatus::Failed])], Wall(5)).unwrap();
    assert!(found(501).runs.is_empty());
    store.prune(&old(501), &runs).unwrap();
    assert!(store.run(id(1)).unwrap().is_some(), "it is declared since");
    store.declare_workflows(second, &[], Wall(5)).unwrap();
    assert_eq!(found(501).runs.len(), usize::from(handed(store, second, 900).is_empty()));
}

/// Declares a trigger that is told of these ends.
fn hears(store: &dyn Store, epoch: Epoch, name: &str, workflow: &str, outcomes: &[RunStatus]) -> Schedule {
    let outcomes = outcomes.iter().fold(Outcomes::default(), |set, &status| set.with(status));
    let on_run = Some(OnRun { workflow: workflow.into(), outcomes });
    // Each is another version of it.
    let digest = outcomes.bits() + i64::try_from(workflow.len()).unwrap() * 10;
    declare(store, epoch, TriggerRow { on_run, digest, ..trigger_row(name) }, Wall(10))
}

/// What a tick of the first trigger says that is to be told of an end.
fn telling(store: &dyn Store, epoch: Epoch, fires: Vec<NewRun>) -> Receipt {
    let ending = store.endings(epoch).unwrap().remove(0);
    let trigger = store.trigger("inbox").unwrap().unwrap();
    commit(store, Change::Tick(TickChange { told: Some(ending.told()), ..tick(&trigger, epoch, fires) }))
}

fn told_of(store: &dyn Store, epoch: Epoch) -> Vec<(Uuid, u32, RunStatus)> {
    let endings = store.endings(epoch).unwrap();
    endings.iter().map(|ending| (ending.run, ending.number, ending.status)).collect()
}

fn a_tick_about_an_end_that_limits_cannot_count_leaves_the_end(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    hears(store, epoch, "inbox", "mail", &[RunStatus::Failed]);
    has_ended(store, epoch, 1, RunStatus::Failed);
    let key = Some(Key::parse("tenant").unwrap());
    let limits = Limits {
        concurrency: Some(Concurrency { limit: 1, key, overflow: Overflow::Wait }),
        ..Limits::default()
    };
    let limits = Some(Arc::new(limits));
    let limited = |number, context: &str| NewRun {
        workflow: "keyed".into(),
        context: context.into(),
        limits: limits.clone(),
        ..new_run(number)
    };
    let fires = vec![limited(2, r#"{"tenant":"a"}"#), limited(3, "{}")];
    let Receipt::Tick { fates, .. } = telling(store, epoch, fires) else { panic!("it was not kept") };
    assert!(fates.iter().all(|fate| matches!(fate, Admitted::Unkeyed(_))), "{fates:?}");
    assert!(store.run(id(2)).unwrap().is_none(), "it would be fired once more");
    assert_eq!(told_of(store, epoch), [(id(1), 1, RunStatus::Failed)]);
    telling(store, epoch, vec![limited(4, r#"{"tenant":"a"}"#)]);
    assert!(store.run(id(4)).unwrap().is_some());
    assert_eq!(told_of(store, epoch), []);
}

fn a_trigger_is_told_each_end_once(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let state = hears(store, epoch, "inbox", "mail", &[RunStatus::Failed, RunStatus::Completed]);
    assert_eq!(told_of(store, epoch), []);
    has_ended(store, epoch, 1, RunStatus::Failed);
    has_ended(store, epoch, 2, RunStatus::Cancelled);
    has_ended(store, epoch, 3, RunStatus::Completed);
    assert_eq!(told_of(store, epoch), [(id(1), 1, RunStatus::Failed)]);
    let [ending] = &store.endings(epoch).unwrap()[..] else { panic!("there is one") };
    assert_eq!((ending.listener, ending.ended_at, ending.depth), (state.row, Wall(100), 0));
    assert_eq!(ending.kept, None);
    assert_eq!(store.ending_of(state.row), Ok(Some(ending.clone())));
    assert_eq!(store.ending(ending.key), Ok(Some(ending.clone())));
    assert!(matches!(
        telling(store, epoch, vec![NewRun { schedule: Some(state.row), ..new_run(7) }]),
        Receipt::Tick { .. }
    ));
    assert_eq!(
        (store.ending(ending.key), told_of(store, epoch)),
        (Ok(None), vec![(id(3), 1, RunStatus::Completed)])
    );
    // It came of that end.
    let (ended, _) = store.run(id(1)).unwrap().unwrap();
    assert_eq!(
        ended.children.iter().map(|child| (child.id, child.trigger.as_deref())).collect::<Vec<_>>(),
        [(id(7), Some("inbox"))]
    );
    let of = Parent { run: id(1), task: None, call: None, again: false, given: false };
    assert_eq!(store.run(id(7)).unwrap().unwrap().0.parent, Some(of));
    // What it fired is one deeper.
    end_of(store, epoch, 7, RunStatus::Failed);
    telling(store, epoch, vec![]);
    assert_eq!(store.endings(epoch).unwrap()[0].depth, 1);
    telling(store, epoch, vec![]);
    assert_eq!(told_of(store, epoch), []);
}

fn a_trigger_is_told_no_end_that_came_before_it_or_that_it_does_not_want(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    has_ended(store, epoch, 1, RunStatus::Failed);
    hears(store, epoch, "inbox", "mail", &[RunStatus::Failed]);
    hears(store, epoch, "outbox", "other", &[RunStatus::Completed]);
    has_ended(store, epoch, 2, RunStatus::Completed);
    assert_eq!(told_of(store, epoch), []);
    let on_run = |name: &str| store.trigger(name).unwrap().unwrap().on_run.unwrap();
    assert_eq!(&*on_run("outbox").workflow, "other");
    assert_eq!(on_run("inbox").outcomes.statuses().collect::<Vec<_>>(), [RunStatus::Failed]);
}

fn a_tick_about_an_end_that_has_been_told_leaves_nothing(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    hears(store, epoch, "inbox", "mail", &[RunStatus::Failed]);
    has_ended(store, epoch, 1, RunStatus::Failed);
    let told = Some(store.endings(epoch).unwrap()[0].told());
    let trigger = store.trigger("inbox").unwrap().unwrap();
    let about = |number, cursor: &str| {
        let cursor = Some(cursor.to_owned());
        Change::Tick(TickChange { told, cursor, ..tick(&trigger, epoch, vec![new_run(number)]) })
    };
    assert!(matches!(commit(store, about(2, "1")), Receipt::Tick { .. }));
    assert_eq!(commit(store, about(3, "2")), Receipt::ToldBefore);
    assert!(store.run(id(2)).unwrap().is_some() && store.run(id(3)).unwrap().is_none());
    assert_eq!(store.trigger("inbox").unwrap().unwrap().cursor.as_deref(), Some("1"));
}

fn an_end_that_is_skipped_is_not_told_and_what_failed_at_it_is_forgotten(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let state = hears(store, epoch, "inbox", "mail", &[RunStatus::Failed]);
    assert_eq!(store.skip_end(state.row, None, Wall(300)), Ok(None), "none waits");
    (1..=4).for_each(|number| has_ended(store, epoch, number, RunStatus::Failed));
    let failed = TickChange { failures: 3, wait_us: Some(1000), ..tick(&state, epoch, vec![]) };
    commit(store, Change::Tick(failed.clone()));
    let skip = |run: Option<Uuid>| {
        let skipped = store.skip_end(state.row, run, Wall(300)).unwrap();
        skipped.map(|end| (end.run, end.number, end.status, end.cursor_set))
    };
    // What is not next goes, and no more.
    assert_eq!(skip(Some(id(3))), Some((id(3), 1, RunStatus::Failed, 0)));
    assert_eq!((skip(Some(id(3))), skip(Some(id(9)))), (None, None));
    let kept = store.trigger("inbox").unwrap().unwrap();
    assert_eq!((kept.failures, kept.grid.unwrap().wait.is_some()), (3, true));
    assert_eq!(store.history(state.row, ALL).unwrap().len(), 0);
    assert_eq!(told_of(store, epoch), [(id(1), 1, RunStatus::Failed)]);
    // The next one: it begins anew, with what comes after it.
    let ending = store.endings(epoch).unwrap().remove(0);
    assert_eq!(skip(None), Some((id(1), 1, RunStatus::Failed, 1)));
    let kept = store.trigger("inbox").unwrap().unwrap();
    assert_eq!((kept.failures, kept.grid.unwrap().wait, kept.cursor_set), (0, None, 1));
    let told = store.history(state.row, ALL).unwrap();
    let words = format!("the end of run {} was skipped by a call", id(1));
    assert_eq!((told[0].outcome, &*told[0].reason, told[0].last_at), (Outcome::Skip, &*words, Wall(300)));
    assert_eq!(told_of(store, epoch), [(id(2), 1, RunStatus::Failed)]);
    // What was decided about it, or failed, counts for nothing.
    let refused = Receipt::Overtaken { cursor: None, cursor_set: 1 };
    let history = vec![stretch(state.row, Outcome::Fire, "", 350)];
    let fired = TickChange { history, told: Some(ending.told()), ..tick(&state, epoch, vec![new_run(7)]) };
    assert_eq!(commit(store, Change::Tick(fired)), refused);
    let history = vec![stretch(state.row, Outcome::Error, "no", 360)];
    let disable = Some("3 polls in a row failed".to_owned());
    assert_eq!(commit(store, Change::Tick(TickChange { history, disable, ..failed })), refused);
    let kept = store.trigger("inbox").unwrap().unwrap();
    assert_eq!((kept.failures, kept.enabled, store.run(id(7)).unwrap()), (0, true, None));
    let told = store.history(state.row, ALL).unwrap();
    let words = "discarded: that end of a run was skipped by a call meanwhile";
    assert_eq!((told[0].outcome, &*told[0].reason, told[0].count), (Outcome::Skip, words, 2));
    // By its run, which is next now.
    assert_eq!(skip(Some(id(2))), Some((id(2), 1, RunStatus::Failed, 2)));
    assert_eq!(told_of(store, epoch), [(id(4), 1, RunStatus::Failed)]);
    let now = store.trigger("inbox").unwrap().unwrap();
    let told = Some(store.endings(epoch).unwrap()[0].told());
    let next = TickChange { told, ..tick(&now, epoch, vec![new_run(8)]) };
    assert!(matches!(commit(store, Change::Tick(next)), Receipt::Tick { .. }));
    assert_eq!((skip(None), told_of(store, epoch)), (None, vec![]));
}

fn a_poll_that_is_asked_for_stands_until_one_begins_whoever_has_the_trigger(store: &dyn Store) {
    let [epoch, other] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let row = declare(store, epoch, trigger_row("inbox"), Wall(10)).row;
    let asked = || store.trigger("inbox").unwrap().unwrap().asked;
    let begins = |epoch, answers| store.begin_poll(epoch, Beginning { row, answers, is_call: false });
    assert_eq!(asked(), None);
    assert_eq!(store.ask_poll(row, None), Ok(Some((Some(epoch), 1))));
    assert_eq!(asked(), Some(1));
    assert_eq!(store.ask_poll(row, Some(other)), Ok(Some((Some(epoch), 2))));
    assert_eq!(asked(), Some(2));
    // What was heard before the second time answers the first only; and nobody but the owner answers.
    assert_eq!((begins(epoch, Some(1)), asked()), (Ok(true), Some(2)));
    assert_eq!((begins(other, Some(2)), asked()), (Ok(false), Some(2)));
    assert_eq!((begins(epoch, None), asked()), (Ok(true), Some(2)));
    // One that is off, or none at all: nothing is written.
    store.set_enabled(row, false, None, Wall(20)).unwrap();
    assert_eq!(store.ask_poll(row, None), Ok(None));
    store.set_enabled(row, true, None, Wall(30)).unwrap();
    assert_eq!(store.ask_poll(ScheduleKey(row.0 + 100), None), Ok(None));
    // Who is left out of account polls it no more, it may be.
    assert_eq!(store.ask_poll(row, Some(epoch)), Ok(None));
    // While it changes hands there is somebody who declares it.
    assert_eq!(declare(store, other, trigger_row("inbox"), Wall(31)).asked, Some(2));
    store.leave(epoch, &InFlight::default(), Wall(40)).unwrap();
    assert_eq!(store.ask_poll(row, None), Ok(Some((Some(epoch), 3))));
    assert_eq!(declare(store, other, trigger_row("inbox"), Wall(41)).asked, Some(3));
    assert_eq!((begins(other, Some(3)), asked()), (Ok(true), None));
    assert_eq!((begins(other, Some(2)), asked()), (Ok(true), None));
    assert_eq!(declare(store, other, trigger_row("inbox"), Wall(42)).asked, None);
    store.leave(other, &InFlight::default(), Wall(50)).unwrap();
    assert_eq!((store.ask_poll(row, None), asked()), (Ok(None), None));
}

fn a_call_about_an_end_that_ended_its_process_is_the_next_owners_to_count(store: &dyn Store) {
    let [epoch, other] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let row = declare(store, epoch, trigger_row("inbox"), Wall(10)).row;
    let calls = |epoch| store.begin_poll(epoch, Beginning { row, answers: None, is_call: true }).unwrap();
    let died = |epoch| asked_for(store, epoch, "inbox", 1).has_died;
    assert!(calls(epoch));
    assert!(!died(epoch), "it goes on here");
    assert!(!died(other), "it goes on elsewhere");
    // What is over by then, whatever it came to, died of nothing.
    let kept = || store.trigger("inbox").unwrap().unwrap();
    commit(store, Change::Tick(tick(&kept(), epoch, vec![])));
    let left = InFlight { triggers: vec![row], ..InFlight::default() };
    let remnant = store.leave(epoch, &left, Wall(20)).unwrap().unwrap();
    store.leave(remnant, &InFlight::default(), Wall(21)).unwrap();
    assert!(!died(other));
    // Nor has what was called off by who has left since.
    assert!(calls(other));
    store.leave(other, &InFlight::default(), Wall(30)).unwrap();
    let third = store.join(Wall(31)).unwrap();
    assert!(!died(third));
    // What was in flight as its owner left is what the process ended in, unless it came home.
    assert!(calls(third));
    let remnant = store.leave(third, &left, Wall(40)).unwrap().unwrap();
    let fourth = store.join(Wall(41)).unwrap();
    assert!(!died(fourth));
    assert_eq!(kept().owner, Some(remnant));
    store.leave(remnant, &InFlight::default(), Wall(50)).unwrap();
    assert!(!died(fourth));
}

fn of_a_run_that_ended_twice_the_first_end_is_skipped(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let inbox = hears(store, epoch, "inbox", "mail", &[RunStatus::Failed]);
    let other = hears(store, epoch, "other", "mail", &[RunStatus::Failed]);
    has_ended(store, epoch, 1, RunStatus::Failed);
    assert!(store.reopen(epoch, id(1)).unwrap().is_some());
    end_of(store, epoch, 1, RunStatus::Failed);
    store.set_enabled(inbox.row, false, None, Wall(20)).unwrap();
    let numbers = [Some(id(1)), None, None].map(|run| {
        let skipped = store.skip_end(inbox.row, run, Wall(300)).unwrap();
        skipped.map(|end| end.number)
    });
    assert_eq!(numbers, [Some(1), Some(2), None], "also of one that is off");
    assert_eq!(store.ending_of(other.row).unwrap().map(|end| end.number), Some(1), "it is another's");
}

fn a_trigger_is_told_of_a_run_that_was_opened_again_as_it_was(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    hears(store, epoch, "inbox", "mail", &[RunStatus::Failed]);
    has_ended(store, epoch, 1, RunStatus::Failed);
    assert!(store.reopen(epoch, id(1)).unwrap().is_some());
    let first = store.endings(epoch).unwrap().remove(0);
    assert_eq!(first.kept, Some(AsItWas { context: Some("{}".to_owned()), error: None }));
    end_of(store, epoch, 1, RunStatus::Failed);
    assert_eq!(store.endings(epoch).unwrap(), [first]);
    telling(store, epoch, vec![]);
    assert_eq!(told_of(store, epoch), [(id(1), 2, RunStatus::Failed)]);
    assert_eq!(store.endings(epoch).unwrap()[0].kept, None);
}

fn a_trigger_that_is_off_or_anothers_is_told_nothing(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let state = hears(store, first, "inbox", "mail", &[RunStatus::Failed]);
    store.set_enabled(state.row, false, None, Wall(20)).unwrap();
    has_ended(store, second, 1, RunStatus::Failed);
    assert_eq!((told_of(store, first), told_of(store, second)), (vec![], vec![]));
    assert_eq!(store.ending_of(state.row).unwrap().unwrap().run, id(1));
    store.set_enabled(state.row, true, None, Wall(30)).unwrap();
    assert_eq!((told_of(store, first).len(), told_of(store, second)), (1, vec![]));
    // Who comes after it is told.
    store.leave(first, &InFlight::default(), Wall(200)).unwrap();
    hears(store, second, "inbox", "mail", &[RunStatus::Failed]);
    assert_eq!(told_of(store, second), [(id(1), 1, RunStatus::Failed)]);
}

fn what_a_trigger_wants_no_more_it_is_told_once_it_wants_that_again(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let any = [RunStatus::Failed, RunStatus::Completed];
    let wants = |workflow: &str, outcomes: &[RunStatus]| hears(store, epoch, "inbox", workflow, outcomes).row;
    let told = || {
        let runs = told_of(store, epoch).into_iter().map(|(run, ..)| run).collect::<Vec<_>>();
        let row = store.trigger("inbox").unwrap().unwrap().row;
        let next = store.ending_of(row).unwrap();
        assert_eq!(next.as_ref().map(|next| next.run), runs.first().copied());
        assert!(next.is_none_or(|next| store.ending(next.key) == Ok(Some(next.clone()))));
        runs
    };
    wants("mail", &any);
    has_ended(store, epoch, 1, RunStatus::Completed);
    has_ended(store, epoch, 2, RunStatus::Failed);
    let first = store.endings(epoch).unwrap().remove(0);
    wants("mail", &[RunStatus::Failed]);
    assert_eq!((told(), store.ending(first.key)), (vec![id(2)], Ok(None)));
    has_ended(store, epoch, 3, RunStatus::Completed);
    // One that is polled, and one that asks for another workflow, is told nothing of these.
    declared(store, epoch, "inbox");
    assert_eq!((told(), store.trigger("inbox").unwrap().unwrap().on_run), (vec![], None));
    has_ended(store, epoch, 4, RunStatus::Failed);
    wants("post", &any);
    assert!(told().is_empty());
    has_ended(store, epoch, 5, RunStatus::Failed);
    let run = NewRun { run_key: None, workflow: "post".into(), ..new_run(6) };
    commit(store, Change::Start { epoch, runs: vec![run], cron: None });
    end_of(store, epoch, 6, RunStatus::Failed);
    assert_eq!(told(), [id(6)]);
    // And as it was, of all of them, one after the other.
    wants("mail", &any);
    assert_eq!(&*store.trigger("inbox").unwrap().unwrap().on_run.unwrap().workflow, "mail");
    for number in 1..=5 {
        assert_eq!(told(), [id(number)]);
        telling(store, epoch, vec![]);
    }
    assert!(told().is_empty());
    has_ended(store, epoch, 7, RunStatus::Failed);
    assert!(matches!(store.forget(epoch, "inbox").unwrap(), Forgotten::Gone(_)));
    has_ended(store, epoch, 8, RunStatus::Failed);
    wants("mail", &any);
    assert!(told().is_empty());
    wants("post", &any);
    assert!(told().is_empty());
}

fn what_a_trigger_has_not_wanted_for_long_is_forgotten(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let wants = |outcomes: &[RunStatus]| drop(hears(store, epoch, "inbox", "mail", outcomes));
    let written = || query(store, "SELECT run FROM ends ORDER BY run", &[]).unwrap().1.len();
    wants(&[RunStatus::Failed, RunStatus::Completed]);
    has_ended(store, epoch, 1, RunStatus::Failed);
    declare(store, epoch, trigger_row("inbox"), Wall(500));
    let old = |before| Old {
        now: Wall(900),
        runs_before: Some(Wall(before)),
        ticks_before: Wall(0),
        ticks_max: 10,
    };
    let pruned = |before| {
        let found = store.find_old(&old(before), 10, &Halt::default()).unwrap();
        store.prune(&old(before), &found).unwrap();
        found.runs.len()
    };
    assert_eq!(pruned(500), 0, "it may be wanted again");
    has_ended(store, epoch, 2, RunStatus::Failed);
    assert_eq!((written(), pruned(501), written()), (2, 2, 0));
    has_ended(store, epoch, 3, RunStatus::Failed);
    assert_eq!(written(), 0);
    // Of a declaration that asks for less, only the rest.
    wants(&[RunStatus::Failed, RunStatus::Completed]);
    wants(&[RunStatus::Failed]);
    has_ended(store, epoch, 4, RunStatus::Completed);
    has_ended(store, epoch, 5, RunStatus::Failed);
    assert_eq!((written(), pruned(501)), (2, 2), "the third, and the fourth");
    has_ended(store, epoch, 6, RunStatus::Completed);
    has_ended(store, epoch, 7, RunStatus::Failed);
    assert_eq!((written(), told_of(store, epoch)[0].0), (2, id(5)));
}

fn a_run_is_kept_for_a_trigger_that_somebody_serves(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let state = hears(store, first, "inbox", "mail", &[RunStatus::Failed]);
    has_ended(store, second, 1, RunStatus::Failed);
    let old = |before| Old {
        now: Wall(900),
        runs_before: Some(Wall(before)),
        ticks_before: Wall(0),
        ticks_max: 10,
    };
    let found = |before| store.find_old(&old(before), 10, &Halt::default()).unwrap().runs.len();
    assert_eq!(found(800), 0);
    store.set_enabled(state.row, false, None, Wall(500)).unwrap();
    assert_eq!([found(500), found(501)], [0, 1]);
    store.set_enabled(state.row, true, None, Wall(600)).unwrap();
    store.leave(first, &InFlight::default(), Wall(700)).unwrap();
    assert_eq!([found(701), found(i64::MAX)], [0, 1]);
    let gone = store.find_old(&old(i64::MAX), 10, &Halt::default()).unwrap();
    store.prune(&old(i64::MAX), &gone).unwrap();
    assert_eq!(store.ending_of(state.row), Ok(None));
    let told = store.history(state.row, ALL).unwrap();
    let words = "the end of a run was never told: that run was deleted, as old as it was";
    assert_eq!([(told[0].outcome, &*told[0].reason, told[0].count)], [(Outcome::Skip, words, 1)]);
}

fn what_workflows_were_is_kept_as_long_as_runs_refer_to_it(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let drawn = |version: &str| WorkflowRow {
        graph: format!("tasks of {version}").into(),
        ..declares("mail", version)
    };
    let of = |number: u128, version: &str| NewRun { version: version.into(), ..new_run(number) };
    let graph = |number: u128| store.run(id(number)).unwrap().unwrap().0.graph;
    let [one, two] = ["tasks of v1", "tasks of v2"].map(|text| Some(text.to_owned()));
    store.declare_workflows(first, &[drawn("v1"), declares("post", "v1")], Wall(5)).unwrap();
    store.declare_workflows(second, &[drawn("v2")], Wall(5)).unwrap();
    let old_run = started(store, second, of(1, "v1"));
    let new_run = started(store, second, of(2, "v2"));
    let other = NewRun { workflow: "post".into(), ..of(3, "v1") };
    commit(store, ended(started(store, second, other), second, RunStatus::Completed));
    assert_eq!((graph(1), graph(2), graph(3)), (one.clone(), two.clone(), None));
    assert_eq!(store.run_with_tries(id(1)).unwrap().unwrap().0.graph, one);
    assert!(store.runs(&any(), ALL).unwrap().iter().all(|run| run.graph.is_none()), "in no listing");

    store.leave(first, &InFlight::default(), Wall(30)).unwrap();
    commit(store, ended(new_run, second, RunStatus::Completed));
    assert_eq!(forget(store, old(5000)), 2);
    assert_eq!(graph(1), one, "nobody declares it, and one run is left of its time");
    commit(store, ended(old_run, second, RunStatus::Completed));
    assert_eq!(forget(store, old(5000)), 1);
    started(store, second, of(4, "v1"));
    assert_eq!(graph(4), None, "it went with its last run");
    started(store, second, of(5, "v2"));
    assert_eq!(graph(5), two, "this one is declared still");

    store.declare_workflows(second, &[drawn("v1")], Wall(5)).unwrap();
    assert_eq!(graph(4), one, "and this one again");
    store.declare_workflows(second, &[drawn("v2")], Wall(5)).unwrap();
    store.declare_workflows(second, &[], Wall(5)).unwrap();
    store.declare_workflows(second, &[drawn("v2")], Wall(5)).unwrap();
    assert_eq!((graph(4), graph(5)), (one, two));
}

fn a_run_is_of_the_version_with_which_it_went_on_last(store: &dyn Store) {
    let [first, second, third] = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    for (owner, version) in [(first, "v1"), (second, "v2"), (third, "v3")] {
        let row = WorkflowRow { graph: format!("tasks of {version}").into(), ..declares("mail", version) };
        store.declare_workflows(owner, &[row], Wall(5)).unwrap();
    }
    let graph = || store.run(id(1)).unwrap().unwrap().0.graph.unwrap();
    let row = started(store, first, NewRun { version: "v1".into(), ..new_run(1) });
    tried(store, row, first, TaskStatus::Running, failed_try(1));
    assert_eq!(graph(), "tasks of v1");
    store.leave(first, &InFlight::default(), Wall(30)).unwrap();
    let claimed = store.claim_runs(second, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!((claimed[0].version.as_str(), graph().as_str()), ("v1", "tasks of v2"));
    commit(store, ended(row, second, RunStatus::Failed));
    let opened = store.reopen(third, id(1)).unwrap().unwrap();
    assert_eq!((opened.version.as_str(), graph().as_str()), ("v2", "tasks of v3"));
    commit(store, ended(row, third, RunStatus::Failed));
    let client = store.join(Wall(4)).unwrap();
    store.reopen(client, id(1)).unwrap().unwrap();
    assert_eq!(graph(), "tasks of v3", "who declares nothing changes nothing");
}

fn what_was_asked_for_in_a_version_that_nobody_declares_any_more_keeps_it(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let row = WorkflowRow { graph: "tasks".into(), ..declares("mail", "v1") };
    store.declare_workflows(first, &[row], Wall(5)).unwrap();
    let executed = started(store, first, new_run(1));
    commit(store, ended(executed, first, RunStatus::Completed));
    store.leave(first, &InFlight::default(), Wall(30)).unwrap();
    // Much later, by a client, in the version of the newest run.
    started(store, second, NewRun { created_at: Wall(i64::MAX / 2), ..new_run(2) });
    assert_eq!(forget(store, old(5000)), 1);
    assert_eq!(store.run(id(2)).unwrap().unwrap().0.graph.as_deref(), Some("tasks"));
}

fn old(before: i64) -> Old {
    Old { now: Wall(before), runs_before: Some(Wall(before)), ticks_before: Wall(before), ticks_max: 100 }
}

fn forget(store: &dyn Store, old: Old) -> u64 {
    let found = store.find_old(&old, 10, &Halt::default()).unwrap();
    store.prune(&old, &found).unwrap()
}

fn what_is_opened_again_after_it_was_found_stays(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    commit(store, ended(row, epoch, RunStatus::Failed));
    let found = store.find_old(&old(5000), 10, &Halt::default()).unwrap();
    assert_eq!(found.runs, [row]);
    store.reopen(epoch, id(1)).unwrap().unwrap();
    assert_eq!(store.prune(&old(5000), &found), Ok(0));
    assert_eq!(ids(store, &any()), [id(1)]);
}

fn of_each_triggers_history_the_newest_stay(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let rows = ["inbox", "outbox"].map(|name| declared(store, epoch, name).row);
    for (row, stretches) in rows.into_iter().zip([5, 2]) {
        let reasons = (0..stretches).map(|n| stretch(row, Outcome::Skip, &format!("depth {n}"), 10 + n));
        commit(store, Change::History(reasons.collect()));
    }
    let most = Old { ticks_max: 2, ticks_before: Wall(1), ..old(1) };
    assert_eq!(forget(store, most), 3);
    let left =
        |row| store.history(row, ALL).unwrap().iter().map(|s| s.reason.to_string()).collect::<Vec<_>>();
    assert_eq!(left(rows[0]), ["depth 4", "depth 3"]);
    assert_eq!(left(rows[1]).len(), 2);
}

fn a_store_knows_of_its_last_sign_of_life_and_until_when_it_is_spared(store: &dyn Store) {
    let first = store.join(Wall(5)).unwrap();
    assert_eq!(store.spared(first).unwrap(), Spared::default());
    started(store, first, new_run(1));
    let second = store.join(Wall(1000)).unwrap();
    assert!(store.spared(second).unwrap().last_sign.unwrap() >= Wall(5));
    for until in [50, 70] {
        store.spare(Wall(until)).unwrap();
        assert_eq!(store.spared(second).unwrap().until, Some(Wall(until)));
    }
}

fn what_is_old_and_final_can_be_forgotten(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let row = started(store, epoch, new_run(1));
    let tasks = vec![task("a", TaskStatus::Completed, 1)];
    commit(store, Change::Run(RunChange { run: row, epoch, tasks, end: None }));
    commit(store, ended(row, epoch, RunStatus::Completed));
    started(store, epoch, new_run(2));
    commit(store, Change::History(vec![stretch(trigger.row, Outcome::Skip, "old", 90)]));
    commit(store, Change::History(vec![stretch(trigger.row, Outcome::Skip, "new", 9000)]));
    assert_eq!(forget(store, old(1)), 0);
    let kept = Old { runs_before: None, ticks_before: Wall(1), ..old(5000) };
    assert_eq!(forget(store, kept), 0, "what is to be kept for ever");
    assert_eq!(forget(store, old(5000)), 2, "a run and a stretch");
    assert_eq!(ids(store, &any()), [id(2)], "an unfinished run stays, however old");
    assert_eq!(store.history(trigger.row, ALL).unwrap().len(), 1);
    assert_eq!(query(store, "SELECT count(*) FROM tasks", &[]).unwrap().1, [vec![Cell::Int(0)]]);
}

fn line(text: &str) -> Line {
    Line {
        task: Some("fetch".into()),
        attempt: Some(2),
        callback: None,
        at: Wall(70),
        level: 30,
        logger: "mail".into(),
        text: text.into(),
        error: None,
    }
}

fn logged(run: u128, lines: Vec<Line>) -> Change {
    Change::Logged(Logged { run: id(run), lines, left_out: 0, bytes_max: 1000 })
}

fn texts(store: &dyn Store, run: RunRow) -> Vec<Vec<Cell>> {
    query(store, "SELECT text FROM logs WHERE run = ?1 ORDER BY row", &[Cell::Int(run.0)]).unwrap().1
}

fn what_bodies_logged_stands_in_its_order_and_goes_with_its_run(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let (row, other) = (started(store, epoch, new_run(1)), started(store, epoch, new_run(2)));
    let (callback, error) = (Some("on_failure".into()), Some("ValueError: boom".into()));
    let of_run = Line { task: None, attempt: None, callback, error, ..line("b") };
    assert_eq!(commit(store, logged(1, vec![line("a"), of_run])), Receipt::Logged);
    commit(store, logged(2, vec![line("other")]));
    commit(store, ended(row, epoch, RunStatus::Failed));
    commit(store, logged(1, vec![line("c")]));
    assert_eq!(commit(store, logged(9, vec![line("of no run")])), Receipt::Logged);
    let columns = "SELECT task, attempt, callback, at, level, logger, text, error FROM logs WHERE run = ?1 ORDER BY row";
    let text = |text: &str| Cell::Text(text.into());
    let head = [text("fetch"), Cell::Int(2), Cell::Null, Cell::Int(70), Cell::Int(30), text("mail")];
    let with_task = |last: &str| [&head[..], &[text(last), Cell::Null]].concat();
    let without = vec![
        Cell::Null,
        Cell::Null,
        text("on_failure"),
        Cell::Int(70),
        Cell::Int(30),
        text("mail"),
        text("b"),
        text("ValueError: boom"),
    ];
    let found = query(store, columns, &[Cell::Int(row.0)]).unwrap().1;
    assert_eq!(found, [with_task("a"), without, with_task("c")]);
    assert_eq!(forget(store, old(5000)), 1);
    assert_eq!(texts(store, row), Vec::<Vec<Cell>>::new());
    assert_eq!(texts(store, other), [[text("other")]]);
    assert_eq!(query(store, "SELECT count(*) FROM logged", &[]).unwrap().1, [[Cell::Int(1)]]);
}

fn of_what_bodies_logged_the_newest_lines_are_kept_and_the_others_counted(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    let bytes = line("0").bytes();
    let fit = 1000 / bytes;
    let numbers =
        |range: std::ops::Range<usize>| range.map(|number| line(&(number % 10).to_string())).collect();
    commit(store, logged(1, numbers(0..fit)));
    assert_eq!(texts(store, row).len(), fit, "as many as fit");
    commit(store, logged(1, numbers(fit..fit + 1)));
    let (kept, left_out) = (875 / bytes, fit + 1 - 875 / bytes);
    let digit = |number: usize| vec![Cell::Text((number % 10).to_string())];
    let newest: Vec<_> = (left_out..fit + 1).map(digit).collect();
    assert_eq!(texts(store, row), newest, "the oldest went, an eighth of them at once");
    let counts = || query(store, "SELECT bytes, left_out FROM logged", &[]).unwrap().1;
    let told = |bytes: usize, left_out: usize| [[Cell::Int(bytes as i64), Cell::Int(left_out as i64)]];
    assert_eq!(counts(), told(kept * bytes, left_out));
    let long = Line { text: "x".repeat(5000), ..line("") };
    let Change::Logged(unkept) = logged(1, vec![long.clone()]) else { unreachable!("it is") };
    commit(store, Change::Logged(Logged { left_out: 7, ..unkept }));
    assert_eq!(texts(store, row), [[Cell::Text(long.text.clone())]], "the newest stays, however long");
    assert_eq!(counts(), told(long.bytes(), fit + 1 + 7));
}

fn a_run_key_is_forgotten_only_after_its_time(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let keys = [("for ever", None), ("long", Some(Wall(9000))), ("short", Some(Wall(200)))];
    let fires = |first| -> Vec<NewRun> {
        (first..).zip(keys).map(|(number, (key, expires))| keyed(&trigger, number, key, expires)).collect()
    };
    fire(store, &trigger, epoch, fires(1));
    let keys_alone = Old { runs_before: None, ticks_before: Wall(1), ..old(5000) };
    assert_eq!(forget(store, keys_alone), 1);
    let fates = fire(store, &trigger, epoch, fires(4));
    assert_eq!(fates[..2], [1, 2].map(|number| Admitted::DuplicateKey { of: Some(id(number)) }));
    assert!(matches!(fates[2], Admitted::Started { .. }));
}

/// The owner that comes after `old` has left.
fn successor(store: &dyn Store, old: Epoch) -> Epoch {
    store.leave(old, &InFlight::default(), Wall(50)).unwrap();
    store.join(Wall(2)).unwrap()
}

fn a_living_owner_keeps_its_runs_and_triggers(store: &dyn Store) {
    let first = store.join(Wall(1)).unwrap();
    started(store, first, new_run(1));
    let trigger = declared(store, first, "inbox");
    let second = store.join(Wall(2)).unwrap();
    assert_eq!(store.claim_runs(second, LATE, 10, &["mail".into()]).unwrap(), []);
    assert_eq!(declared(store, second, "inbox").owner, Some(first));
    assert_eq!(commit(store, Change::Tick(tick(&trigger, second, vec![]))), Receipt::Fenced);
    store.leave(first, &InFlight::default(), Wall(50)).unwrap();
    assert_eq!(store.claim_runs(second, LATE, 10, &["mail".into()]).unwrap().len(), 1);
    assert_eq!(declared(store, second, "inbox").owner, Some(second));
}

fn a_wish_to_cancel_is_kept_until_the_run_is_final(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let row = started(store, old, new_run(1));
    assert_eq!(store.cancel_requests(old), Ok(vec![]));
    assert_eq!(store.request_cancel(old, id(1), Wall(5)), Ok(vec![id(1)]));
    assert_eq!(store.cancel_requests(old), Ok(vec![id(1)]));
    let new = successor(store, old);
    assert_eq!(
        store.claim_runs(new, LATE, 10, &["mail".into()]),
        Ok(vec![]),
        "who leaves ends what was to end"
    );
    let (run, _) = store.run(id(1)).unwrap().unwrap();
    assert_eq!((run.status, run.completed_at), (RunStatus::Cancelled, Some(Wall(50))));
    assert_eq!(commit(store, ended(row, new, RunStatus::Cancelled)), Receipt::Fenced);
    assert_eq!(store.cancel_requests(new), Ok(vec![]));
    assert_eq!(store.request_cancel(old, id(1), Wall(5)), Ok(vec![]));
}

fn a_run_that_nobody_drives_ends_when_it_is_cancelled(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    started(store, old, new_run(1));
    let new = successor(store, old);
    assert_eq!(store.request_cancel(new, id(1), Wall(70)), Ok(vec![id(1)]));
    let (run, _) = store.run(id(1)).unwrap().unwrap();
    assert_eq!((run.status, run.completed_at), (RunStatus::Cancelled, Some(Wall(70))));
    assert_eq!(store.claim_runs(new, LATE, 10, &["mail".into()]).unwrap(), []);
}

/// A run that the task "load" of another one starts.
fn called(number: u128, by: u128, call: Option<u32>) -> NewRun {
    let parent = Parent { run: id(by), task: Some("load".into()), call, again: false, given: false };
    NewRun { parent: Some(Box::new(parent)), created_at: Wall(20 + number as i64), ..new_run(number) }
}

/// The same, by a callback.
fn told(number: u128, by: u128) -> NewRun {
    let parent = Parent { run: id(by), task: None, call: None, again: false, given: false };
    NewRun { parent: Some(Box::new(parent)), created_at: Wall(20 + number as i64), ..new_run(number) }
}

/// The same, by whoever named it as the parent.
fn named(number: u128, by: u128) -> NewRun {
    let parent = Some(Box::new(Parent::given(id(by))));
    NewRun { parent, created_at: Wall(20 + number as i64), ..new_run(number) }
}

fn what_belongs_to_a_run_by_name_is_shown_with_it_and_ends_with_it(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let over = started(store, epoch, new_run(1));
    // However that one stands, also if it is unknown.
    commit(store, ended(over, epoch, RunStatus::Completed));
    started(store, epoch, named(2, 1));
    started(store, epoch, named(3, 99));
    let parent = started(store, epoch, new_run(4));
    started(store, epoch, named(5, 4));
    started(store, epoch, named(6, 5));
    started(store, epoch, called(7, 6, Some(1)));
    started(store, epoch, told(8, 4));
    let (shown, _) = store.run(id(4)).unwrap().unwrap();
    let given: Vec<_> = shown.children.iter().map(|child| (child.id, child.given)).collect();
    assert_eq!(given, [(id(5), true), (id(8), false)]);
    let (shown, _) = store.run(id(3)).unwrap().unwrap();
    assert_eq!(shown.parent, Some(Parent::given(id(99))));
    match commit(store, ended(parent, epoch, RunStatus::Cancelled)) {
        Receipt::Cancelled { number: None, children } => {
            assert_eq!(children.into_iter().collect::<HashSet<_>>(), [5, 6, 7].map(id).into());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.request_cancel(epoch, id(1), Wall(70)), Ok(Vec::new()));
}

fn a_call_starts_one_run_of_its_workflow(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    started(store, epoch, new_run(1));
    let child = started(store, epoch, called(2, 1, Some(1)));
    let again = |new: NewRun| admitted(commit(store, start(epoch, new)));
    assert_eq!(again(called(3, 1, Some(1))), [Admitted::DuplicateKey { of: Some(id(2)) }]);
    commit(store, ended(child, epoch, RunStatus::Failed));
    assert_eq!(again(called(3, 1, Some(1))), [Admitted::DuplicateKey { of: Some(id(2)) }]);
    started(store, epoch, called(3, 1, Some(2)));
    started(store, epoch, NewRun { workflow: "other".into(), ..called(4, 1, Some(1)) });
    started(store, epoch, new_run(5));
    started(store, epoch, called(6, 5, Some(1)));
    // Those without a number are all different.
    started(store, epoch, called(7, 1, None));
    started(store, epoch, called(8, 1, None));
}

fn who_is_over_or_is_to_end_calls_nothing(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let over = started(store, epoch, new_run(1));
    started(store, epoch, new_run(2));
    started(store, epoch, called(3, 1, Some(1)));
    commit(store, ended(over, epoch, RunStatus::Failed));
    store.request_cancel(epoch, id(2), Wall(30)).unwrap();
    for by in [1, 2, 99] {
        match store.commit(&[start(epoch, called(4, by, Some(2)))]) {
            Err(Fault::Final(why)) => assert!(why.contains("start nothing more"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        admitted(commit(store, start(epoch, called(4, 1, Some(1))))),
        [Admitted::DuplicateKey { of: Some(id(3)) }]
    );
    started(store, epoch, told(4, 1));
    started(store, epoch, told(5, 2));
}

fn a_run_is_shown_with_what_it_started(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    started(store, epoch, new_run(1));
    started(store, epoch, called(2, 1, Some(1)));
    started(store, epoch, told(3, 1));
    started(store, epoch, called(4, 2, None));
    let once_more = Parent { run: id(1), task: None, call: None, again: true, given: false };
    started(
        store,
        epoch,
        NewRun { parent: Some(Box::new(once_more.clone())), created_at: Wall(25), ..new_run(5) },
    );
    let (parent, _) = store.run(id(1)).unwrap().unwrap();
    let child = |number: u128, task: Option<&str>| Child {
        given: false,
        id: id(number),
        workflow: "mail".into(),
        status: RunStatus::Pending,
        task: task.map(Into::into),
        trigger: None,
        again: number == 5,
        created_at: Wall(20 + number as i64),
        completed_at: None,
    };
    assert_eq!(
        (parent.parent, parent.children),
        (None, vec![child(2, Some("load")), child(3, None), child(5, None)])
    );
    let (run, _) = store.run(id(2)).unwrap().unwrap();
    assert_eq!(run.parent, called(2, 1, Some(1)).parent.map(|parent| *parent));
    assert_eq!(run.children, [child(4, Some("load"))]);
    assert_eq!(ids(store, &RunFilter { parent: Some(id(1)), ..any() }), [id(5), id(3), id(2)]);
    let of = |parent, status| RunFilter { parent: Some(id(parent)), status, ..any() };
    assert_eq!(ids(store, &of(2, Some(RunStatus::Pending))), [id(4)]);
    assert_eq!(ids(store, &of(2, Some(RunStatus::Failed))), NONE);
    assert_eq!(ids(store, &of(9, None)), NONE);
    let listed = store.runs(&of(1, None), ALL).unwrap();
    assert_eq!(listed[0].parent, Some(once_more));
    assert_eq!(listed[1].parent, told(3, 1).parent.map(|parent| *parent));
}

fn children_are_to_end_with_the_run_that_called_them(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let other = store.join(Wall(2)).unwrap();
    started(store, old, new_run(1));
    started(store, old, called(2, 1, Some(1)));
    started(store, other, called(3, 2, Some(1)));
    started(store, old, called(4, 1, None));
    let over = started(store, old, called(5, 1, Some(2)));
    started(store, old, called(6, 5, Some(1)));
    commit(store, ended(over, old, RunStatus::Completed));
    started(store, old, told(7, 1));
    started(store, old, new_run(8));
    let asked = store.request_cancel(other, id(1), Wall(70)).unwrap();
    assert_eq!(asked[0], id(1));
    assert_eq!(asked.iter().copied().collect::<HashSet<_>>(), [1, 2, 3, 4].map(id).into());
    assert_eq!(store.cancel_requests(old).unwrap(), [1, 2, 4].map(id));
    assert_eq!(store.cancel_requests(other).unwrap(), [id(3)]);
    // Those that nobody drives any more end with who leaves, or at once.
    store.leave(old, &InFlight::default(), Wall(80)).unwrap();
    let status = |number| store.run(id(number)).unwrap().unwrap().0.status;
    assert_eq!([1, 2, 4].map(status), [RunStatus::Cancelled; 3]);
    assert_eq!([3, 6, 7, 8].map(status), [RunStatus::Pending; 4]);
    assert_eq!(store.request_cancel(other, id(6), Wall(90)), Ok(vec![id(6)]));
    assert_eq!(status(6), RunStatus::Cancelled);
    // What has ended with being asked to, and not what had ended before, or only is to end.
    let all = [1, 3, 6, 9].map(id);
    let created_at = store.run(id(6)).unwrap().unwrap().0.created_at;
    assert_eq!(store.cancelled_at(&all, Wall(90)), Ok(vec![("mail".to_owned(), created_at)]));
}

fn a_run_that_ends_as_cancelled_takes_its_children_along(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let left = started(store, old, new_run(9));
    let epoch = store.join(Wall(2)).unwrap();
    let parent = started(store, epoch, new_run(1));
    let child = started(store, epoch, called(2, 1, Some(1)));
    started(store, epoch, called(3, 2, Some(1)));
    started(store, old, called(4, 1, Some(2)));
    started(store, epoch, told(5, 1));
    store.leave(old, &InFlight::default(), Wall(50)).unwrap();
    let failed = started(store, epoch, new_run(6));
    started(store, epoch, called(7, 6, Some(1)));
    assert_eq!(commit(store, ended(failed, epoch, RunStatus::Failed)), Receipt::Run(None));
    match commit(store, ended(parent, epoch, RunStatus::Cancelled)) {
        Receipt::Cancelled { number: None, children } => {
            assert_eq!(children.into_iter().collect::<HashSet<_>>(), [2, 3, 4].map(id).into());
        }
        other => panic!("{other:?}"),
    }
    let status = |number| store.run(id(number)).unwrap().unwrap().0.status;
    assert_eq!(status(4), RunStatus::Cancelled, "nobody drives it");
    assert_eq!([2, 3, 5, 7, 9].map(status), [RunStatus::Pending; 5]);
    assert_eq!(store.cancel_requests(epoch).unwrap(), [2, 3].map(id));
    // They are asked once.
    assert_eq!(commit(store, ended(child, epoch, RunStatus::Cancelled)), Receipt::Run(None));
    assert_eq!(commit(store, ended(left, epoch, RunStatus::Cancelled)), Receipt::Fenced);
}

fn a_child_stays_as_long_as_its_parent_and_a_parent_as_long_as_a_child_goes_on(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let parent = started(store, epoch, new_run(1));
    let child = started(store, epoch, called(2, 1, Some(1)));
    let grandchild = started(store, epoch, called(3, 2, Some(1)));
    commit(store, ended(grandchild, epoch, RunStatus::Completed));
    assert_eq!(forget(store, old(5000)), 0, "its parent goes on");
    commit(store, ended(child, epoch, RunStatus::Completed));
    assert_eq!(forget(store, old(5000)), 0, "with the parent stay its child and that one's");
    commit(store, ended(parent, epoch, RunStatus::Completed));
    started(store, epoch, told(4, 1));
    assert_eq!(forget(store, old(5000)), 0, "what it started goes on");
    let child = started(store, epoch, told(5, 4));
    commit(store, ended(child, epoch, RunStatus::Completed));
    store.request_cancel(epoch, id(4), Wall(70)).unwrap();
    store.leave(epoch, &InFlight::default(), Wall(70)).unwrap();
    assert_eq!(forget(store, old(65)), 3, "but for what is not old, and its child");
    assert_eq!(forget(store, old(5000)), 2);
}

fn what_a_run_started_stays_with_it_while_its_run_key_is_in_use(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let run_key = Some(("order 7".to_owned(), Some(Wall(900))));
    let parent = started(store, epoch, NewRun { run_key, ..new_run(1) });
    let child = started(store, epoch, called(2, 1, Some(1)));
    let grandchild = started(store, epoch, called(3, 2, Some(1)));
    for run in [grandchild, child] {
        commit(store, ended(run, epoch, RunStatus::Completed));
    }
    commit(store, ended(parent, epoch, RunStatus::Failed));
    assert_eq!(
        forget(store, Old { now: Wall(500), ..old(500) }),
        0,
        "an attempt after a retry asks for them"
    );
    assert_eq!(forget(store, Old { now: Wall(900), ..old(500) }), 4, "and the key");
}

fn an_offered_run_is_claimed_by_who_comes(store: &dyn Store) {
    let [client, worker] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    store.stand_by(client).unwrap();
    assert_eq!(
        store.owners(9, Wall(0)).unwrap().iter().map(|owner| owner.works).collect::<Vec<_>>(),
        [true, false]
    );
    store.woken(client);
    store.wake_others(worker);
    assert!(!store.woken(client), "who stands by is told nothing");
    let offer = |run| Change::Offer { epoch: client, runs: vec![run] };
    let keyed = |number| NewRun { run_key: Some(("k".to_owned(), None)), ..new_run(number) };
    assert!(matches!(admitted(commit(store, offer(keyed(1))))[..], [Admitted::Started { .. }]));
    assert_eq!(admitted(commit(store, offer(keyed(2)))), [Admitted::DuplicateKey { of: Some(id(1)) }]);
    let [run] = &store.claim_runs(worker, LATE, 10, &["mail".into()]).unwrap()[..] else { panic!() };
    assert_eq!((run.id, run.interruptions, run.owner_before), (id(1), 0, None));
    store.leave(client, &InFlight::default(), Wall(3)).unwrap();
    assert_eq!(commit(store, offer(new_run(3))), Receipt::Fenced);
}

fn what_telemetry_hands_on_with_a_run_comes_to_who_claims_it(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let trace = Some("{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}");
    started(store, old, NewRun { trace: trace.map(Into::into), ..new_run(1) });
    started(store, old, new_run(2));
    let found = store.claim_runs(successor(store, old), LATE, 10, &["mail".into()]).unwrap();
    let told: Vec<Option<&str>> = found.iter().map(|run| run.trace.as_deref()).collect();
    assert_eq!(told, [trace, None]);
}

fn a_claim_leaves_runs_of_other_workflows_alone(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    started(store, old, new_run(1));
    let new = successor(store, old);
    assert_eq!(store.claim_runs(new, LATE, 10, &[]).unwrap(), []);
    assert_eq!(store.claim_runs(new, LATE, 10, &["a \"quoted\" one".into()]).unwrap(), []);
    let claimed = store.claim_runs(new, LATE, 10, &["other".into(), "mail".into()]).unwrap();
    assert_eq!(claimed.len(), 1);
}

fn versions_of(claimed: Vec<Unfinished>) -> Vec<(Uuid, String)> {
    claimed.into_iter().map(|run| (run.id, run.version)).collect()
}

fn a_run_that_has_begun_is_left_to_who_declares_its_version(store: &dyn Store) {
    let [old, like, new] = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    let declare = |epoch, version: &str| {
        store.declare_workflows(epoch, &[declares("mail", version)], Wall(5)).unwrap();
    };
    let fitting = |epoch| versions_of(store.claim_fitting(epoch, LATE, 10, &["mail".into()]).unwrap());
    let as_it_was = vec![(id(1), "v1".to_owned())];
    declare(old, "v1");
    let row = started(store, old, new_run(1));
    let begun =
        RunChange { run: row, epoch: old, tasks: vec![task("fetch", TaskStatus::Running, 1)], end: None };
    commit(store, Change::Run(begun));
    store.leave(old, &InFlight::default(), Wall(50)).unwrap();
    declare(new, "v2");
    assert_eq!(store.workflows_of_others(like).unwrap(), ["mail".into()]);
    declare(like, "v1");
    assert_eq!(fitting(new), [], "another living one declares its version");
    assert_eq!(fitting(like), as_it_was);
    store.leave(like, &InFlight::default(), Wall(60)).unwrap();
    assert_eq!(fitting(new), as_it_was, "nobody else does");
    let like = store.join(Wall(4)).unwrap();
    declare(like, "v1");
    store.leave(new, &InFlight::default(), Wall(70)).unwrap();
    let new = store.join(Wall(5)).unwrap();
    declare(new, "v2");
    let any = store.claim_runs(new, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!(
        versions_of(any),
        [(id(1), "v2".to_owned())],
        "it went on in that one, and whoever waits for nobody takes it"
    );
}

fn a_run_that_has_not_begun_is_of_its_claimers_version(store: &dyn Store) {
    let [old, like, new] = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    started(store, old, new_run(1));
    store.leave(old, &InFlight::default(), Wall(50)).unwrap();
    store.declare_workflows(like, &[declares("mail", "v1")], Wall(5)).unwrap();
    store.declare_workflows(new, &[declares("mail", "v2")], Wall(5)).unwrap();
    let claimed = store.claim_fitting(new, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!(versions_of(claimed), [(id(1), "v2".to_owned())]);
    store.leave(new, &InFlight::default(), Wall(60)).unwrap();
    let claimed = store.claim_fitting(like, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!(versions_of(claimed), [(id(1), "v1".to_owned())], "that is kept");
}

fn a_claim_hands_over_what_others_left_unfinished(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let first = started(store, old, new_run(1));
    let done = started(store, old, new_run(2));
    commit(store, ended(done, old, RunStatus::Completed));
    let new = successor(store, old);
    let own = started(store, new, new_run(3));

    let claimed = store.claim_runs(new, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!(claimed.len(), 1, "neither final runs nor its own");
    let run = &claimed[0];
    assert_eq!((run.row, run.id, run.interruptions), (first, id(1), 0));
    assert_eq!((&*run.workflow, &*run.version, &*run.context), ("mail", "v1", "{\"a\":1}"));
    assert_eq!((run.created_at, run.schedule, run.context_hash), (Wall(20), None, None));
    assert_eq!(store.claim_runs(new, LATE, 10, &["mail".into()]).unwrap(), []);
    let third = successor(store, new);
    let again = store.claim_runs(third, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!(
        again.iter().map(|run| (run.row, run.interruptions)).collect::<Vec<_>>(),
        [(first, 0), (own, 0)]
    );
}

fn a_claim_goes_from_the_oldest_in_steps(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let rows: Vec<RunRow> = (1..=5).map(|number| started(store, old, new_run(number))).collect();
    let new = successor(store, old);
    let step = |limit| -> Vec<RunRow> {
        store.claim_runs(new, LATE, limit, &["mail".into()]).unwrap().iter().map(|run| run.row).collect()
    };
    assert_eq!(step(2), rows[..2]);
    assert_eq!(step(10), rows[2..]);
    assert_eq!(step(10), []);
}

fn claimed_rows(store: &dyn Store, epoch: Epoch, at: Wall, limit: u64) -> Vec<RunRow> {
    let workflows = ["mail".into(), "feeds".into()];
    store.claim_runs(epoch, at, limit, &workflows).unwrap().iter().map(|run| run.row).collect()
}

fn a_claim_takes_what_is_most_urgent_first_whatever_its_workflow(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let start = |number, name: &str, urgent| {
        started(store, old, NewRun { workflow: name.into(), priority: priority(urgent), ..new_run(number) })
    };
    let low = start(1, "mail", 0);
    let plain = start(2, "mail", 5);
    let first = start(3, "feeds", 9);
    let like = started(store, old, NewRun { workflow: "feeds".into(), ..new_run(4) });
    let second = start(5, "mail", 9);
    let new = successor(store, old);
    assert_eq!(claimed_rows(store, new, LATE, 1), [first]);
    assert_eq!(claimed_rows(store, new, LATE, 10), [second, plain, like, low]);
}

fn a_run_without_a_priority_has_the_one_that_its_workflow_was_declared_with(store: &dyn Store) {
    let (old, new) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let with = |number: i64| WorkflowRow { priority: priority(number).unwrap(), ..declares("mail", "v1") };
    store.declare_workflows(old, &[with(2)], Wall(5)).unwrap();
    store.declare_workflows(new, &[with(7)], Wall(5)).unwrap();
    commit(
        store,
        Change::Offer { epoch: old, runs: vec![new_run(1), NewRun { priority: priority(3), ..new_run(2) }] },
    );
    let shown = |number| store.run(id(number)).unwrap().unwrap().0.priority.number();
    assert_eq!((shown(1), shown(2)), (7, 3));
}

fn delayed(number: u128, due: i64) -> NewRun {
    NewRun { due_at: Some(Wall(due)), ..new_run(number) }
}

fn a_delayed_run_is_nobodys_until_it_is_due(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let late = started(store, epoch, delayed(1, 100));
    let soon = started(store, epoch, delayed(2, 50));
    let past = started(store, epoch, delayed(3, 20));
    assert_eq!(store.next_due().unwrap(), Some(Wall(50)));
    assert_eq!(
        claimed_rows(store, epoch, Wall(49), 10),
        [],
        "the one that was due is its owner's from the start"
    );
    assert_eq!(claimed_rows(store, epoch, Wall(50), 10), [soon]);
    assert_eq!(store.next_due().unwrap(), Some(Wall(100)));
    let shown = store.run(id(1)).unwrap().unwrap().0;
    assert_eq!((shown.status, shown.due_at), (RunStatus::Pending, Some(Wall(100))));
    // A claim that is not for it lets it wait no longer all the same.
    store.claim_runs(epoch, Wall(100), 10, &["feeds".into()]).unwrap();
    assert_eq!(store.next_due().unwrap(), None);
    let new = successor(store, epoch);
    assert_eq!(
        claimed_rows(store, new, Wall(30), 10),
        [late, soon, past],
        "due is due, whatever the clock says then"
    );
}

fn what_was_to_wait_so_long_waits_no_longer_once_a_clock_that_was_ahead_is_right(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let ahead = |number, due_at| NewRun { created_at: Wall(1000), ..delayed(number, due_at) };
    let spanned = started(store, epoch, NewRun { delay_us: Some(30), ..ahead(1, 1030) });
    let pointed = started(store, epoch, ahead(2, 1030));
    let right = NewRun { delay_us: Some(30), created_at: Wall(80), ..delayed(3, 110) };
    let right = started(store, epoch, right);
    started(store, epoch, NewRun { delay_us: Some(i64::MAX), ..ahead(4, i64::MAX) });
    let due = |number| store.run(id(number)).unwrap().unwrap().0.due_at;
    assert_eq!(claimed_rows(store, epoch, Wall(1000), 10), [right], "the clock is ahead still");

    // From when the clock is right it waits as long as it was to.
    assert_eq!(claimed_rows(store, epoch, Wall(100), 10), []);
    assert_eq!(
        (store.next_due().unwrap(), due(1), due(2)),
        (Some(Wall(130)), Some(Wall(130)), Some(Wall(1030)))
    );
    assert_eq!(claimed_rows(store, epoch, Wall(110), 10), []);
    assert_eq!(store.next_due().unwrap(), Some(Wall(130)), "no look puts it off");
    assert_eq!(claimed_rows(store, epoch, Wall(130), 10), [spanned]);
    assert_eq!(store.next_due().unwrap(), Some(Wall(1030)));
    assert_eq!(claimed_rows(store, epoch, Wall(1030), 10), [pointed]);
}

fn what_was_left_to_others_is_claimed_by_whoever_has_room(store: &dyn Store) {
    let (here, there) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let mine = started(store, here, new_run(1));
    let left = started(store, here, NewRun { is_anyones: true, ..new_run(2) });
    let trigger = declared(store, here, "inbox");
    let fired = NewRun { is_anyones: true, ..unique(&trigger, 3, 5) };
    let fates = fire(store, &trigger, here, vec![fired]);
    assert!(matches!(fates[..], [Admitted::Started { .. }]));
    assert_eq!(claimed_rows(store, there, LATE, 1), [left]);
    let equal = NewRun { is_anyones: true, ..unique(&trigger, 4, 5) };
    assert_eq!(fire(store, &trigger, here, vec![equal]), [Admitted::DuplicateHash { of: id(3) }]);
    assert_eq!(claimed_rows(store, here, LATE, 9).len(), 1, "who has left it may have it, too");
    assert_eq!(claimed_rows(store, successor(store, here), LATE, 9)[0], mine);
}

fn what_is_given_back_is_anyones(store: &dyn Store) {
    let (here, there) = (store.join(Wall(1)).unwrap(), store.join(Wall(2)).unwrap());
    let [first, second] = [1, 2].map(|number| started(store, here, new_run(number)));
    let of_others = started(store, there, new_run(3));
    let release = |epoch, runs| commit(store, Change::Release { epoch, runs });
    assert_eq!(release(here, vec![second, of_others]), Receipt::Released);
    assert_eq!(claimed_rows(store, there, LATE, 9), [second], "what is another's stays so");
    assert_eq!(release(there, vec![first]), Receipt::Released);
    assert_eq!(claimed_rows(store, there, LATE, 9), [], "who has it not cannot give it back");
    let Receipt::Run(_) = commit(store, ended(second, there, RunStatus::Completed)) else { panic!() };
    assert_eq!(release(there, vec![second]), Receipt::Released);
    assert_eq!(claimed_rows(store, here, LATE, 9), [], "what is over is nobody's");
}

fn only_what_was_delayed_and_has_not_begun_is_claimed_by_who_takes_nothing_over(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    started(store, old, new_run(1));
    started(store, old, delayed(2, 50));
    let begun = started(store, old, delayed(3, 50));
    let new = store.join(Wall(2)).unwrap();
    let due = |epoch| -> Vec<Uuid> {
        store.claim_due(epoch, LATE, 10, &["mail".into()]).unwrap().iter().map(|run| run.id).collect()
    };
    assert_eq!(claimed_rows(store, old, Wall(60), 1).len(), 1);
    assert_eq!(claimed_rows(store, old, Wall(60), 1), [begun]);
    let tasks = vec![task("fetch", TaskStatus::Running, 1)];
    commit(store, Change::Run(RunChange { run: begun, epoch: old, tasks, end: None }));
    let third = successor(store, old);
    let fourth = NewRun { due_at: Some(Wall(70)), ..new_run(4) };
    started(store, third, fourth);
    assert_eq!(due(new), [id(2), id(4)]);
}

fn a_delayed_run_holds_its_hash_and_key_and_is_told_as_unfinished(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let first =
        NewRun { due_at: Some(Wall(100)), run_key: Some(("k".to_owned(), None)), ..unique(&trigger, 1, 5) };
    assert!(matches!(fire(store, &trigger, epoch, vec![first])[..], [Admitted::Started { .. }]));
    let again = vec![unique(&trigger, 2, 5), keyed(&trigger, 3, "k", None)];
    let refused = [Admitted::DuplicateHash { of: id(1) }, Admitted::DuplicateKey { of: Some(id(1)) }];
    assert_eq!(fire(store, &trigger, epoch, again), refused);
    store.leave(epoch, &InFlight::default(), Wall(50)).unwrap();
    let next = store.join(Wall(2)).unwrap();
    let change = Change::Declare { epoch: next, trigger: trigger_row("inbox"), at: Wall(60) };
    let Receipt::Declared(state) = commit(store, change) else { panic!("it declares nothing") };
    assert_eq!(state.unfinished, [id(1)]);
}

fn a_delayed_run_ends_at_once_when_it_is_cancelled_and_is_listed_with_the_others(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    started(store, epoch, new_run(1));
    started(store, epoch, delayed(2, 100));
    started(store, epoch, new_run(3));
    let pending = RunFilter { status: Some(RunStatus::Pending), ..any() };
    assert_eq!(ids(store, &pending), [id(3), id(2), id(1)]);
    assert_eq!(store.request_cancel(epoch, id(2), Wall(60)).unwrap(), [id(2)]);
    assert_eq!(store.run(id(2)).unwrap().unwrap().0.status, RunStatus::Cancelled);
    assert_eq!((store.next_due().unwrap(), ids(store, &pending)), (None, vec![id(3), id(1)]));
    // Opened again by hand it does not wait.
    let opened = store.reopen(epoch, id(2)).unwrap().unwrap();
    assert_eq!((opened.due_at, store.next_due().unwrap()), (Some(Wall(100)), None));
}

fn a_claim_carries_tasks_in_order_and_the_hash_that_guards(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let trigger = declared(store, old, "inbox");
    let loose = NewRun { unique_hash: false, ..unique(&trigger, 2, 6) };
    let fates = fire(store, &trigger, old, vec![unique(&trigger, 1, 5), loose]);
    let Admitted::Started { row } = fates[0] else { panic!("{fates:?}") };
    let mut tasks = vec![task("z", TaskStatus::Completed, 2), task("a", TaskStatus::Running, 1)];
    tasks[0].context = Some("{\"z\":1}".into());
    commit(store, Change::Run(RunChange { run: row, epoch: old, tasks: tasks.clone(), end: None }));

    let new = successor(store, old);
    let claimed = store.claim_runs(new, LATE, 10, &["mail".into()]).unwrap();
    assert_eq!((claimed[0].schedule, claimed[0].context_hash), (Some(trigger.row), Some([5; 16])));
    assert_eq!(claimed[0].tasks, tasks);
    assert_eq!((claimed[1].schedule, claimed[1].context_hash), (Some(trigger.row), None));
}

fn a_claim_tells_who_waits_for_a_turn(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    started(store, old, NewRun { waits: true, ..new_run(1) });
    started(store, old, new_run(2));
    let new = successor(store, old);
    let waits: Vec<bool> =
        store.claim_runs(new, LATE, 10, &["mail".into()]).unwrap().iter().map(|run| run.waits).collect();
    assert_eq!(waits, [true, false]);
}

/// A run of that trigger that waits for its turn.
fn in_line(trigger: &Schedule, number: u128) -> NewRun {
    NewRun { schedule: Some(trigger.row), waits: true, ..new_run(number) }
}

fn a_claim_tells_which_earlier_ones_wait_elsewhere(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let (inbox, outbox) = (declared(store, old, "inbox"), declared(store, old, "outbox"));
    let again = failed_run(store, old, in_line(&inbox, 1));
    fire(store, &inbox, old, vec![in_line(&inbox, 2), in_line(&inbox, 3)]);
    fire(store, &outbox, old, vec![in_line(&outbox, 4)]);
    let beside = NewRun { waits: false, ..in_line(&inbox, 5) };
    let last = NewRun { workflow: "other".into(), ..in_line(&inbox, 6) };
    fire(store, &inbox, old, vec![beside, last, in_line(&inbox, 7)]);
    let (second, third) = (store.join(Wall(2)).unwrap(), successor(store, old));
    // One that is opened again stands at the end: nobody who was there before waits for it.
    assert_eq!(store.reopen(second, id(1)).unwrap().unwrap().row, again);
    store.claim_runs(second, LATE, 1, &["mail".into()]).unwrap();
    let claimed = store.claim_runs(third, LATE, 10, &["mail".into()]).unwrap();
    let behind: Vec<(Uuid, Vec<Uuid>)> = claimed.into_iter().map(|run| (run.id, run.behind)).collect();
    let alone = |number| (id(number), vec![]);
    assert_eq!(behind, [(id(3), vec![id(2)]), alone(4), alone(5), (id(7), vec![id(2)])]);
    let claimed = store.claim_runs(second, LATE, 10, &["other".into()]).unwrap();
    assert_eq!(claimed[0].behind, [id(3)]);
}

/// Two owners of which the first polls a trigger, with a run of that which has failed and was fired with that policy.
fn polled_beside_another(store: &dyn Store, overlap: Overlap) -> ([Epoch; 2], Schedule) {
    let owners = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    for owner in owners {
        store.declare_workflows(owner, &[declares("mail", "v1")], Wall(5)).unwrap();
    }
    let trigger = declared(store, owners[0], "inbox");
    let Receipt::Tick { fates, .. } = fire_in_line(store, &trigger, owners[0], overlap, 1) else {
        panic!("it was not kept")
    };
    commit(store, ended(fates[0].row().unwrap(), owners[0], RunStatus::Failed));
    (owners, trigger)
}

fn fire_in_line(
    store: &dyn Store,
    trigger: &Schedule,
    epoch: Epoch,
    overlap: Overlap,
    number: u128,
) -> Receipt {
    let fire = NewRun { waits: overlap.waits(), ..in_line(trigger, number) };
    commit(store, Change::Tick(TickChange { overlap, ..tick(trigger, epoch, vec![fire]) }))
}

fn a_run_that_is_opened_again_stands_behind_what_is_unfinished_whatever_that_waits_for(store: &dyn Store) {
    let ([polls, other], trigger) = polled_beside_another(store, Overlap::Skip);
    for (overlap, number) in [(Overlap::Allow, 2), (Overlap::Queue, 3)] {
        fire_in_line(store, &trigger, polls, overlap, number);
    }
    let told = |run: Unfinished| (run.id, run.waits, run.is_again, run.behind);
    let opened = store.reopen(other, id(1)).unwrap().unwrap();
    assert_eq!(told(opened), (id(1), true, true, vec![id(2), id(3)]));
    // Whoever claims it later is told the same, and of what comes later each is told of it.
    fire_in_line(store, &trigger, polls, Overlap::Queue, 4);
    for owner in [other, polls] {
        store.leave(owner, &InFlight::default(), Wall(60)).unwrap();
    }
    let third = store.join(Wall(61)).unwrap();
    let claimed = store.claim_runs(third, LATE, 10, &["mail".into()]).unwrap();
    let claimed: Vec<_> = claimed.into_iter().map(told).collect();
    assert_eq!(claimed[0], (id(1), true, true, vec![id(2), id(3)]));
    assert_eq!(claimed[2], (id(3), true, false, vec![]));
    // That which was opened again is its own, too, and may not have been told it yet.
    assert_eq!(claimed[3], (id(4), true, false, vec![id(1)]));
}

fn of_several_that_are_opened_again_each_finds_its_place(store: &dyn Store) {
    let ([polls, other], trigger) = polled_beside_another(store, Overlap::Queue);
    let Receipt::Tick { fates, .. } = fire_in_line(store, &trigger, polls, Overlap::Queue, 2) else {
        panic!("it was not kept")
    };
    commit(store, ended(fates[0].row().unwrap(), polls, RunStatus::Failed));
    fire_in_line(store, &trigger, polls, Overlap::Queue, 3);
    let opened = store.reopen_each(other, &[id(2), id(1)]).unwrap();
    let opened: Vec<_> = opened.into_iter().map(|run| run.unwrap().unwrap().behind).collect();
    assert_eq!(opened, [vec![id(3)], vec![id(2)]], "the second is told what the first was not");
    store.leave(other, &InFlight::default(), Wall(60)).unwrap();
    let claimed = store.claim_runs(polls, LATE, 10, &["mail".into()]).unwrap();
    let claimed: Vec<_> = claimed.into_iter().map(|run| (run.id, run.behind)).collect();
    assert_eq!(claimed, [(id(1), vec![id(3), id(2)]), (id(2), vec![id(3)])]);
}

fn a_run_that_is_over_and_opened_again_has_moved_behind_what_came_meanwhile(store: &dyn Store) {
    let ([polls, other], trigger) = polled_beside_another(store, Overlap::Queue);
    store.reopen(other, id(1)).unwrap().unwrap();
    fire_in_line(store, &trigger, polls, Overlap::Queue, 2);
    let pairs = [(id(1), id(2)), (id(2), id(1)), (id(1), id(9))];
    assert_eq!(store.moved(&pairs).unwrap(), []);
    commit(store, ended(RunRow(1), other, RunStatus::Failed));
    assert_eq!(store.moved(&pairs).unwrap(), []);
    store.reopen(other, id(1)).unwrap().unwrap();
    assert_eq!(store.moved(&pairs).unwrap(), [(id(1), id(2))]);
}

fn a_tick_is_told_what_was_opened_again_before_its_fires(store: &dyn Store) {
    let ([polls, other], trigger) = polled_beside_another(store, Overlap::Queue);
    let opened = |overlap, number| match fire_in_line(store, &trigger, polls, overlap, number) {
        Receipt::Tick { fates, opened, .. } if fates[0].is_kept() => opened,
        receipt => panic!("it was not kept: {receipt:?}"),
    };
    assert_eq!(opened(Overlap::Queue, 2), NONE);
    store.reopen(other, id(1)).unwrap().unwrap();
    assert_eq!(opened(Overlap::Queue, 3), [id(1)]);
    assert_eq!(opened(Overlap::CancelRunning, 4), [id(1)]);
    assert_eq!(opened(Overlap::Allow, 5), NONE, "it waits for nothing");
    commit(store, ended(RunRow(1), other, RunStatus::Failed));
    assert_eq!(opened(Overlap::Queue, 6), NONE);
    // And again, also by itself.
    store.reopen(polls, id(1)).unwrap().unwrap();
    assert_eq!(opened(Overlap::Queue, 7), [id(1)]);
}

fn a_fire_is_dropped_beside_a_run_that_was_opened_again(store: &dyn Store) {
    let ([polls, other], trigger) = polled_beside_another(store, Overlap::Skip);
    let fate = |overlap, number| match fire_in_line(store, &trigger, polls, overlap, number) {
        Receipt::Tick { mut fates, .. } => fates.remove(0),
        receipt => panic!("it was not kept: {receipt:?}"),
    };
    store.reopen(other, id(1)).unwrap().unwrap();
    let overlaps = Admitted::Overlaps { with: id(1) };
    assert_eq!(fate(Overlap::Skip, 2), overlaps);
    assert!(fate(Overlap::BufferOne, 3).is_kept(), "one may wait");
    assert_eq!(fate(Overlap::BufferOne, 4), overlaps);
    assert_eq!(fate(Overlap::Skip, 5), overlaps);
    assert!(fate(Overlap::Queue, 6).is_kept());
    assert_eq!(store.request_cancel(other, id(1), Wall(70)).unwrap(), [id(1)]);
    commit(store, ended(RunRow(1), other, RunStatus::Cancelled));
    // Once it is over, only the table in memory decides.
    assert!(fate(Overlap::Skip, 7).is_kept());
}

fn a_wait_is_cut_short_by_nobody_whose_clock_is_behind(store: &dyn Store) {
    let hour = 3_600_000_000;
    let (right, behind) = (store.join(Wall(2 * hour)).unwrap(), store.join(Wall(hour)).unwrap());
    let [half, due_at] = [hour / 2, 2 * hour + hour / 2];
    let waits =
        NewRun { due_at: Some(Wall(due_at)), delay_us: Some(half), created_at: Wall(2 * hour), ..new_run(1) };
    started(store, right, waits);
    let next_due_after_a_look = |owner, at| {
        assert!(store.claim_runs(owner, Wall(at), 10, &["mail".into()]).unwrap().is_empty());
        store.next_due()
    };
    assert_eq!(next_due_after_a_look(behind, hour + 1), Ok(Some(Wall(due_at))));
    // Once all say that it is earlier, a clock was set back.
    store.seen(right, Wall(hour + 2), &Sign::default()).unwrap();
    assert_eq!(next_due_after_a_look(behind, hour + 2), Ok(Some(Wall(hour + 2 + half))));
}

fn a_trigger_comes_with_its_unfinished_runs_in_their_order(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let trigger = declared(store, old, "inbox");
    let lost = NewRun { workflow: "other".into(), ..in_line(&trigger, 3) };
    fire(store, &trigger, old, vec![in_line(&trigger, 1), unique(&trigger, 2, 5), lost]);
    started(store, old, new_run(4));
    let (second, third) = (store.join(Wall(2)).unwrap(), store.join(Wall(3)).unwrap());
    let others =
        |epoch| match commit(store, Change::Declare { epoch, trigger: trigger_row("inbox"), at: Wall(9) }) {
            Receipt::Declared(state) => (state.owner, state.unfinished),
            other => panic!("{other:?} declares nothing"),
        };
    assert_eq!(others(second), (Some(old), vec![]));
    store.leave(old, &InFlight::default(), Wall(50)).unwrap();
    // Whoever declares their workflow is about to claim them; a run of a workflow that nobody declares holds up nothing.
    assert_eq!(others(third), (Some(third), vec![id(1), id(2)]));
    store.claim_runs(second, LATE, 10, &["mail".into(), "other".into()]).unwrap();
    assert_eq!(others(third), (Some(third), vec![id(1), id(2), id(3)]));
    store.leave(second, &InFlight::default(), Wall(50)).unwrap();
    // What was claimed for it too: it may not have been told of that yet, and is to know the order.
    store.claim_runs(third, LATE, 10, &["mail".into(), "other".into()]).unwrap();
    assert_eq!(others(third), (Some(third), vec![id(1), id(2), id(3)]));
}

fn runs_that_are_final_or_unknown_have_ended(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    started(store, epoch, new_run(2));
    assert_eq!(store.ended(&[id(1), id(2), id(3)]).unwrap(), [id(3)]);
    commit(store, ended(row, epoch, RunStatus::Failed));
    assert_eq!(store.ended(&[id(2), id(1)]).unwrap(), [id(1)]);
    assert_eq!(store.ended(&[]).unwrap(), NONE);
}

/// A run of three tasks, of which the middle one failed.
fn failed_run(store: &dyn Store, epoch: Epoch, run: NewRun) -> RunRow {
    let row = started(store, epoch, run);
    let states = [("a", TaskStatus::Completed), ("b", TaskStatus::Failed), ("c", TaskStatus::Completed)];
    let mut tasks: Vec<_> = states.map(|(name, status)| task(name, status, 1)).into();
    tasks.push(task("d", TaskStatus::Skipped, 0));
    commit(store, Change::Run(RunChange { run: row, epoch, tasks, end: None }));
    commit(store, ended(row, epoch, RunStatus::Failed));
    row
}

fn a_failed_run_is_opened_again_without_what_failed(store: &dyn Store) {
    let old = store.join(Wall(1)).unwrap();
    let row = failed_run(store, old, new_run(1));
    let new = store.join(Wall(2)).unwrap();
    let opened = store.reopen(new, id(1)).unwrap().unwrap();
    assert_eq!((opened.row, opened.id, opened.interruptions), (row, id(1), 0));
    assert_eq!(opened.tasks.iter().map(|task| &*task.name).collect::<Vec<_>>(), ["a", "c"]);
    let (run, tasks) = store.run(id(1)).unwrap().unwrap();
    assert_eq!((run.status, run.completed_at, run.final_context), (RunStatus::Pending, None, None));
    assert_eq!(tasks, opened.tasks);
    assert_eq!(commit(store, ended(row, old, RunStatus::Failed)), Receipt::Fenced);
    assert_eq!(commit(store, ended(row, new, RunStatus::Completed)), Receipt::Run(None));
}

fn what_comes_after_what_is_undecided_is_undecided_too(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let graph = r#"[["a",[],null],["b",["a"],null],["c",["b"],{"type":"Always"}],["d",["c"],null]]"#;
    let row = WorkflowRow { graph: graph.into(), ..declares("mail", "v1") };
    store.declare_workflows(epoch, &[row], Wall(5)).unwrap();
    failed_run(store, epoch, new_run(1));
    let opened = store.reopen(epoch, id(1)).unwrap().unwrap();
    assert_eq!(opened.tasks.iter().map(|task| &*task.name).collect::<Vec<_>>(), ["a"]);
    assert_eq!(store.run(id(1)).unwrap().unwrap().1, opened.tasks);
}

fn a_task_after_a_reopening_stands_behind_those_that_stayed(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = failed_run(store, epoch, new_run(1));
    store.reopen(epoch, id(1)).unwrap();
    for name in ["b", "d"] {
        let tasks = vec![task(name, TaskStatus::Running, 1)];
        commit(store, Change::Run(RunChange { run: row, epoch, tasks, end: None }));
    }
    let (run, tasks) = store.run(id(1)).unwrap().unwrap();
    assert_eq!(tasks.iter().map(|task| &*task.name).collect::<Vec<_>>(), ["a", "c", "b", "d"]);
    assert_eq!(run.status, RunStatus::Running);
}

fn only_a_final_run_that_did_not_complete_is_opened_again(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let row = started(store, epoch, new_run(1));
    assert_eq!(store.reopen(epoch, id(1)).unwrap(), None, "it is unfinished");
    commit(store, ended(row, epoch, RunStatus::Completed));
    assert_eq!(store.reopen(epoch, id(1)).unwrap(), None, "it completed");
    assert_eq!(store.reopen(epoch, id(2)).unwrap(), None, "there is none");
    let cancelled = started(store, epoch, new_run(3));
    commit(store, ended(cancelled, epoch, RunStatus::Cancelled));
    assert!(store.reopen(epoch, id(3)).unwrap().is_some());
}

fn a_run_is_not_opened_again_beside_an_equal_one(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    failed_run(store, epoch, unique(&trigger, 1, 5));
    started(store, epoch, unique(&trigger, 2, 5));
    let before = store.run(id(1)).unwrap();
    let Err(Fault::Final(message)) = store.reopen(epoch, id(1)) else {
        panic!("two equal runs are unfinished")
    };
    assert!(message.contains("equal run"), "{message}");
    assert_eq!(store.run(id(1)).unwrap(), before);
}

fn a_tick_of_a_poll_that_looked_at_an_older_cursor_is_refused_whole(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    commit(store, Change::Tick(TickChange { cursor: Some("7".to_owned()), ..tick(&trigger, epoch, vec![]) }));
    assert_eq!(store.set_cursor(trigger.row, Some("3")), Ok(Some(1)));
    let late = TickChange {
        cursor: Some("8".to_owned()),
        history: vec![stretch(trigger.row, Outcome::Fire, "", 50)],
        ..tick(&trigger, epoch, vec![new_run(1)])
    };
    let refused = Receipt::Overtaken { cursor: Some("3".to_owned()), cursor_set: 1 };
    assert_eq!(commit(store, Change::Tick(late)), refused);
    let told = store.history(trigger.row, ALL).unwrap();
    assert_eq!(
        (told[0].outcome, &*told[0].reason),
        (Outcome::Skip, "discarded: its cursor was set by a call meanwhile")
    );
    let kept = store.trigger("inbox").unwrap().unwrap();
    assert_eq!((kept.cursor.as_deref(), kept.cursor_set), (Some("3"), 1));
    assert_eq!(store.run(id(1)).unwrap(), None);
    let next = TickChange { cursor: Some("4".to_owned()), ..tick(&kept, epoch, vec![new_run(1)]) };
    assert!(matches!(commit(store, Change::Tick(next)), Receipt::Tick { .. }));
    assert_eq!(store.set_cursor(trigger.row, None), Ok(Some(2)));
    let state = store.trigger("inbox").unwrap().unwrap();
    assert_eq!((state.cursor, state.cursor_set), (None, 2));
    assert_eq!(store.set_cursor(ScheduleKey(trigger.row.0 + 1), None), Ok(None));
    let other = Change::Tick(TickChange { epoch: Epoch(epoch.0 + 1), ..tick(&trigger, epoch, vec![]) });
    assert_eq!(commit(store, other), Receipt::Fenced);
}

fn of_several_runs_one_that_is_refused_keeps_none_of_the_others(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    failed_run(store, epoch, unique(&trigger, 1, 5));
    failed_run(store, epoch, unique(&trigger, 2, 6));
    started(store, epoch, unique(&trigger, 3, 5));
    let reopened = store.reopen_each(epoch, &[id(1), id(2), id(9)]).unwrap();
    assert!(matches!(&reopened[0], Err(why) if why.contains("equal run")), "{:?}", reopened[0]);
    assert!(matches!(&reopened[1], Ok(Some(run)) if run.id == id(2)), "{:?}", reopened[1]);
    assert_eq!(reopened[2], Ok(None));
    assert_eq!(
        store.request_cancels(epoch, &[id(9), id(2), id(1)], Wall(9)),
        Ok(vec![vec![], vec![id(2)], vec![]])
    );
    assert_eq!(store.cancel_requests(epoch).unwrap(), [id(2)]);
}

fn there_is_one_cron_with_a_workflow_expression_and_zone(store: &dyn Store) {
    let first = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    assert_eq!((first.id, &*first.workflow, &*first.name), (id(50), "mail", ""));
    assert!(first.enabled && first.created_at == Wall(10) && first.updated_at == Wall(10));
    let same = NewCron { at: Wall(99), next_at: None, ..new_cron(51, "0 2 * * *") };
    assert_eq!(store.put_cron(Epoch(1), &same).unwrap(), first);
    let variants = [
        new_cron(52, "0 3 * * *"),
        NewCron { timezone: "Europe/Berlin", ..new_cron(53, "0 2 * * *") },
        NewCron { workflow: "other", ..new_cron(54, "0 2 * * *") },
    ];
    for (variant, number) in variants.iter().zip(52..) {
        assert_eq!(store.put_cron(Epoch(1), variant).unwrap().id, id(number));
    }
    assert_eq!(store.cron(id(50)).unwrap(), Some(first));
}

fn a_cron_is_changed_in_place(store: &dyn Store) {
    let cron = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    assert!(store.update_cron(cron.id, "0 3 * * *", "Asia/Tokyo", Some(Wall(300)), Wall(20)).unwrap());
    assert!(store.update_cron(cron.id, "0 3 * * *", "Asia/Tokyo", Some(Wall(300)), Wall(20)).unwrap());
    let expected = Schedule {
        kind: ScheduleKind::Cron {
            expression: "0 3 * * *".to_owned(),
            timezone: "Asia/Tokyo".to_owned(),
            next_at: Some(Wall(300)),
            terms: Terms::default(),
        },
        // Each change moves it, also two at one moment: a step of the cron is kept only under the one it was decided by.
        updated_at: Wall(21),
        // What follows is by the new expression: nothing before the change is made up for by it.
        past: {
            let mut past = cron.past.clone();
            past.change(Wall(20));
            past
        },
        ..cron
    };
    assert_eq!(store.cron(id(50)).unwrap(), Some(expected));
    assert!(!store.update_cron(id(51), "0 3 * * *", "UTC", None, Wall(20)).unwrap());
}

fn a_cron_cannot_become_a_copy_of_another(store: &dyn Store) {
    store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    let other = store.put_cron(Epoch(1), &new_cron(51, "0 3 * * *")).unwrap();
    let Err(Fault::Final(message)) = store.update_cron(id(51), "0 2 * * *", "UTC", None, Wall(20)) else {
        panic!("two crons are the same")
    };
    assert!(message.contains("'0 2 * * *'") && message.contains(&id(50).to_string()), "{message}");
    assert_eq!(store.cron(id(51)).unwrap(), Some(other));
}

fn what_is_forgotten_leaves_nothing_but_its_runs(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let named = |id: u128, name| declared_cron(id, name, "0 2 * * *");
    let cron = store.put_cron(Epoch(1), &named(50, "inbox")).unwrap();
    let other = store.put_cron(Epoch(1), &named(51, "outbox")).unwrap();
    let by_hand = store.put_cron(Epoch(1), &new_cron(52, "0 3 * * *")).unwrap();
    started(store, epoch, moment(&cron, 1, 100));
    assert_eq!(store.forget(epoch, "").unwrap(), Forgotten::Gone(Vec::new()), "what is by hand has no name");
    assert_eq!(store.forget(epoch, "inbox").unwrap(), Forgotten::Gone(vec![trigger.row, cron.row]));
    assert_eq!(store.forget(epoch, "inbox").unwrap(), Forgotten::Gone(Vec::new()));
    assert_eq!(store.trigger("inbox").unwrap(), None);
    assert_eq!(store.cron(cron.id).unwrap(), None);
    assert_eq!(store.cron(other.id).unwrap(), Some(other));
    assert_eq!(store.cron(by_hand.id).unwrap(), Some(by_hand));
    assert_eq!(ids(store, &RunFilter { schedule: Some(cron.row), ..any() }), [id(1)]);
    let again = declared(store, epoch, "inbox");
    assert!(again.row > trigger.row, "runs that are left must not pass to it");
}

fn a_trigger_that_another_polls_is_not_forgotten(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let other = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    assert_eq!(store.forget(other, "inbox").unwrap(), Forgotten::Polled { by: epoch });
    store.leave(epoch, &InFlight::default(), Wall(2)).unwrap();
    assert_eq!(store.forget(other, "inbox").unwrap(), Forgotten::Gone(vec![trigger.row]));
}

fn a_cron_that_another_declares_is_not_forgotten(store: &dyn Store) {
    let [epoch, other] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let cron = store.put_cron(epoch, &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    assert_eq!(store.forget(other, "nightly").unwrap(), Forgotten::Polled { by: epoch });
    assert_eq!(store.cron_named("nightly").unwrap().map(|found| found.row), Some(cron.row));
    store.leave(epoch, &InFlight::default(), Wall(3)).unwrap();
    assert_eq!(store.forget(other, "nightly").unwrap(), Forgotten::Gone(vec![cron.row]));
}

fn a_trigger_that_another_stands_by_for_is_not_forgotten(store: &dyn Store) {
    let [first, second, other] = [1, 2, 3].map(|at| store.join(Wall(at)).unwrap());
    asked(store, first, 7);
    asked(store, second, 7);
    store.leave(first, &InFlight::default(), Wall(4)).unwrap();
    assert_eq!(store.forget(other, "inbox").unwrap(), Forgotten::Polled { by: second });
}

fn what_is_renamed_takes_along_all_that_hangs_on_it(store: &dyn Store) {
    let before = store.join(Wall(1)).unwrap();
    let trigger = declared(store, before, "inbox");
    let cron = store.put_cron(Epoch(1), &declared_cron(50, "inbox", "0 2 * * *")).unwrap();
    let by_hand = store.put_cron(Epoch(1), &new_cron(51, "0 3 * * *")).unwrap();
    store.set_cursor(trigger.row, Some("7")).unwrap();
    started(store, before, moment(&cron, 1, 100));
    store.leave(before, &InFlight::default(), Wall(2)).unwrap();
    let epoch = store.join(Wall(3)).unwrap();
    assert_eq!(store.rename(epoch, "", "outbox").unwrap(), Renamed::Done(Vec::new()), "that has no name");
    assert_eq!(store.rename(epoch, "inbox", "outbox").unwrap(), Renamed::Done(vec![trigger.row, cron.row]));
    assert_eq!(store.rename(epoch, "inbox", "outbox").unwrap(), Renamed::Done(Vec::new()));
    assert_eq!(store.trigger("inbox").unwrap(), None);
    let renamed = store.trigger("outbox").unwrap().unwrap();
    assert_eq!((renamed.row, renamed.cursor.as_deref()), (trigger.row, Some("7")));
    assert_eq!(store.cron(cron.id).unwrap().unwrap().name, "outbox");
    assert_eq!(store.cron(by_hand.id).unwrap(), Some(by_hand));
    assert_eq!(ids(store, &RunFilter { schedule: Some(cron.row), ..any() }), [id(1)]);
    assert_eq!(declared(store, epoch, "outbox").row, trigger.row, "it goes on under its new name");
    assert!(declared(store, epoch, "inbox").row > cron.row, "the old one begins anew");
}

fn a_name_that_is_served_or_taken_is_not_given_away(store: &dyn Store) {
    let [epoch, other] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let trigger = declared(store, epoch, "inbox");
    assert_eq!(store.rename(other, "inbox", "outbox").unwrap(), Renamed::Polled { by: epoch });
    store.leave(epoch, &InFlight::default(), Wall(3)).unwrap();
    declared(store, other, "outbox");
    assert_eq!(store.rename(other, "inbox", "outbox").unwrap(), Renamed::Taken);
    store.put_cron(other, &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    assert_eq!(store.rename(other, "inbox", "nightly").unwrap(), Renamed::Taken);
    assert_eq!(store.rename(other, "inbox", "third").unwrap(), Renamed::Done(vec![trigger.row]));
    let [first, second] = [4, 5].map(|at| store.join(Wall(at)).unwrap());
    asked(store, first, 7);
    asked(store, second, 7);
    store.leave(first, &InFlight::default(), Wall(6)).unwrap();
    assert_eq!(store.rename(other, "inbox", "fourth").unwrap(), Renamed::Polled { by: second });
}

fn a_deleted_cron_leaves_its_runs(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let cron = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    started(store, epoch, moment(&cron, 1, 100));
    assert_eq!(store.delete_cron(cron.id).unwrap(), Forgotten::Gone(vec![cron.row]));
    assert_eq!(store.delete_cron(cron.id).unwrap(), Forgotten::Gone(Vec::new()));
    assert_eq!(store.cron(cron.id).unwrap(), None);
    assert_eq!(ids(store, &RunFilter { schedule: Some(cron.row), ..any() }), [id(1)]);
}

fn a_cron_that_a_living_owner_declares_is_not_deleted(store: &dyn Store) {
    let [first, second] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let cron = store.put_cron(first, &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    store.put_cron(second, &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    store.leave(first, &InFlight::default(), Wall(3)).unwrap();
    assert_eq!(store.delete_cron(cron.id).unwrap(), Forgotten::Polled { by: second });
    assert_eq!(store.cron(cron.id).unwrap(), Some(cron.clone()));
    store.withdraw_cron(second, "nightly").unwrap();
    assert_eq!(store.delete_cron(cron.id).unwrap(), Forgotten::Gone(vec![cron.row]));
}

fn a_declared_cron_is_the_one_of_its_name(store: &dyn Store) {
    let declare = |number, name, expression| {
        store.put_cron(Epoch(1), &declared_cron(number, name, expression)).unwrap()
    };
    let first = declare(50, "nightly", "0 2 * * *");
    assert_eq!(first.origin, Origin::Declared);
    assert_eq!(declare(51, "nightly", "0 2 * * *"), first, "the same again changes nothing");
    let edited = declare(52, "nightly", "0 3 * * *");
    assert_eq!((edited.row, edited.id), (first.row, first.id));
    assert!(edited.updated_at > first.updated_at, "what was decided before it does not count");
    let same = declare(53, "other", "0 3 * * *");
    assert_ne!(same.row, first.row, "two names are two crons, whatever they start and when");
    assert!(store.update_cron(first.id, "0 4 * * *", "UTC", None, Wall(99)).unwrap());
    let updated = store.cron(first.id).unwrap().unwrap();
    assert_eq!(
        declare(54, "nightly", "0 3 * * *"),
        updated,
        "an update holds while the declaration is the same"
    );
    assert_ne!(declare(55, "nightly", "0 5 * * *"), updated);
    assert!(store.update_cron(same.id, "0 5 * * *", "UTC", None, Wall(99)).unwrap(), "as the other has it");
    assert_eq!(store.schedules(ScheduleFilter::Crons, false, ALL).unwrap().len(), 2);
    assert_eq!(store.cron_named("other").unwrap().unwrap().row, same.row);
    assert_eq!((store.cron_named("").unwrap(), store.cron_named("unknown").unwrap()), (None, None));
}

fn what_was_registered_without_a_name_is_no_declarations(store: &dyn Store) {
    let by_hand = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    assert_eq!(by_hand.origin, Origin::Registered);
    let declared = store.put_cron(Epoch(1), &declared_cron(60, "nightly", "0 2 * * *")).unwrap();
    assert_ne!(declared.row, by_hand.row);
    assert_eq!(store.put_cron(Epoch(1), &new_cron(61, "0 2 * * *")).unwrap(), by_hand);
    assert_eq!(store.delete_cron(by_hand.id).unwrap(), Forgotten::Gone(vec![by_hand.row]));
    assert_eq!(store.cron(declared.id).unwrap(), Some(declared), "nobody has asked for its end");
}

fn what_was_registered_by_a_name_is_the_one_of_it(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let named = |number, name, expression| NewCron { name, ..new_cron(number, expression) };
    let first = store.put_cron(Epoch(1), &named(50, "berlin", "0 2 * * *")).unwrap();
    assert_eq!((first.origin, &*first.name), (Origin::Registered, "berlin"));
    let second = store.put_cron(Epoch(1), &named(51, "tokyo", "0 2 * * *")).unwrap();
    assert_ne!(second.row, first.row);
    assert_eq!(store.put_cron(Epoch(1), &named(52, "berlin", "0 2 * * *")).unwrap(), first);
    let edited = store.put_cron(Epoch(1), &named(53, "berlin", "0 3 * * *")).unwrap();
    assert_eq!((edited.row, edited.id), (first.row, first.id));
    assert!(edited.updated_at > first.updated_at);
    let terms = NewCron {
        context: Some(r#"{"region":"eu"}"#),
        overlap: Overlap::Skip,
        catchup: Catchup::Last,
        ..named(54, "berlin", "0 3 * * *")
    };
    let kept = store.put_cron(Epoch(1), &terms).unwrap();
    let ScheduleKind::Cron { terms, .. } = &kept.kind else { panic!("it is a cron") };
    assert_eq!(terms.context.as_deref(), Some(r#"{"region":"eu"}"#));
    assert_eq!((terms.overlap, terms.catchup), (Overlap::Skip, Catchup::Last));
    assert_eq!(kept.updated_at, edited.updated_at, "its moments are the same");
    assert_eq!(store.forget(epoch, "tokyo").unwrap(), Forgotten::Gone(Vec::new()), "what is data stays");
}

fn what_is_declared_and_registered_by_one_name_is_data(store: &dyn Store) {
    let registered = NewCron { name: "nightly", ..new_cron(50, "0 3 * * *") };
    let declared = store.put_cron(Epoch(1), &declared_cron(51, "nightly", "0 2 * * *")).unwrap();
    let data = store.put_cron(Epoch(1), &registered).unwrap();
    assert_eq!((data.row, data.origin), (declared.row, Origin::Registered));
    assert_eq!(store.put_cron(Epoch(1), &declared_cron(52, "nightly", "0 2 * * *")).unwrap(), data);
    assert_eq!(store.put_cron(Epoch(1), &registered).unwrap(), data);
}

fn a_new_cron_does_not_inherit_a_deleted_ones_runs(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let cron = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    started(store, epoch, moment(&cron, 1, 100));
    store.delete_cron(cron.id).unwrap();
    let next = store.put_cron(Epoch(1), &new_cron(51, "0 2 * * *")).unwrap();
    assert_eq!(ids(store, &RunFilter { schedule: Some(next.row), ..any() }), NONE);
    started(store, epoch, moment(&next, 2, 100));
}

fn a_schedule_is_switched_with_a_cause(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    assert!(store.set_enabled(trigger.row, false, Some("ten errors"), Wall(30)).unwrap());
    let off = store.trigger("inbox").unwrap().unwrap();
    assert_eq!((off.enabled, off.disabled_cause.as_deref()), (false, Some("ten errors")));
    assert!(store.set_enabled(trigger.row, true, None, Wall(40)).unwrap());
    let on = store.trigger("inbox").unwrap().unwrap();
    assert_eq!((on.enabled, on.disabled_cause, on.updated_at), (true, None, Wall(40)));
    assert!(!store.set_enabled(ScheduleKey(trigger.row.0 + 1), true, None, Wall(40)).unwrap());
}

fn a_sign_of_life_says_what_was_done_and_is_forgotten_after_a_week(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let sign = |polls| Sign { minute: Some(Minute { polls, failed: 1, ..Minute::default() }), long: None };
    let counts = |since| store.owners(10, Wall(since)).unwrap()[0].counts;
    for (minute, polls) in [(1, 10), (2, 20), (3, 30)] {
        store.seen(epoch, Wall(minute), &sign(polls)).unwrap();
    }
    assert_eq!(counts(0), Minute { polls: 60, failed: 3, ..Minute::default() });
    assert_eq!(counts(2), Minute { polls: 50, failed: 2, ..Minute::default() });
    assert_eq!(counts(4), Minute::default());
    store.seen(epoch, Wall(MINUTES_KEPT_US + 2), &Sign::default()).unwrap();
    assert_eq!(counts(0).polls, 60, "who says nothing forgets nothing");
    store.seen(epoch, Wall(MINUTES_KEPT_US + 2), &sign(5)).unwrap();
    assert_eq!(counts(0).polls, 55);
    store.seen(epoch, Wall(4), &sign(1)).unwrap();
    assert_eq!(counts(0).polls, 51, "what a clock wrote that was ahead is not kept until then");
    let owner = &store.owners(10, Wall(0)).unwrap()[0];
    assert_eq!((owner.epoch, owner.is_dead), (epoch, false));
    assert_eq!(owner.pid, Some(i64::from(std::process::id())));
    assert_eq!(owner.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
}

fn a_sign_of_life_says_which_polls_do_not_come_back(store: &dyn Store) {
    let first = store.join(Wall(1)).unwrap();
    let second = store.join(Wall(1)).unwrap();
    let trigger = declared(store, first, "inbox");
    let other = declared(store, second, "outbox");
    let since = |name| store.trigger(name).unwrap().unwrap().in_body_since;
    let long = |long: &[(ScheduleKey, Wall)]| Sign { minute: None, long: Some(long.to_vec()) };
    let both = [(trigger.row, Wall(5)), (other.row, Wall(6))];
    store.seen(first, Wall(70), &long(&both)).unwrap();
    assert_eq!([since("inbox"), since("outbox")], [Some(Wall(5)), None], "that is another's");
    store.seen(second, Wall(70), &long(&both[1..])).unwrap();
    store.seen(first, Wall(75), &Sign::default()).unwrap();
    assert_eq!([since("inbox"), since("outbox")], [Some(Wall(5)), Some(Wall(6))]);
    store.seen(first, Wall(80), &long(&[])).unwrap();
    assert_eq!([since("inbox"), since("outbox")], [None, Some(Wall(6))]);
    store.leave(second, &InFlight::default(), Wall(90)).unwrap();
    declared(store, first, "outbox");
    assert_eq!(since("outbox"), None, "who has it now knows better");
}

fn what_is_to_be_hidden_adds_up_until_it_is_taken_back(store: &dyn Store) {
    let hidden = |keys: &[&str], by_function| Redacted {
        keys: keys.iter().map(ToString::to_string).collect(),
        by_function,
    };
    assert_eq!(store.redacted().unwrap(), Redacted::default());
    store.redact(&hidden(&["token", "a'b"], false)).unwrap();
    store.redact(&hidden(&["token", ""], true)).unwrap();
    assert_eq!(store.redacted().unwrap(), hidden(&["", "a'b", "token"], true));
    assert_eq!(store.unredact(Some("a'b")), Ok(1));
    assert_eq!(store.unredact(Some("a'b")), Ok(0));
    let many: Vec<String> = (0..REDACTED_KEYS_MAX).map(|number| number.to_string()).collect();
    assert!(matches!(store.redact(&Redacted { keys: many, by_function: false }), Err(Fault::Final(_))));
    assert_eq!(store.redacted().unwrap(), hidden(&["", "token"], true), "none of them is kept");
    assert_eq!(store.unredact(None), Ok(3));
    assert_eq!(store.redacted().unwrap(), Redacted::default());
}

fn contexts_of_a_run_and_of_a_trigger_are_found(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    assert_eq!(store.contexts_of_trigger("inbox"), Ok(Vec::new()));
    fire(store, &trigger, epoch, vec![unique(&trigger, 1, 1)]);
    let given = store.run(id(1)).unwrap().unwrap().0.context.unwrap();
    assert_eq!(store.contexts_of_run(id(1)), Ok(vec![given.clone()]));
    assert_eq!(store.contexts_of_trigger("inbox"), Ok(vec![given]));
    assert_eq!(store.contexts_of_run(id(2)), Ok(Vec::new()));
    assert_eq!(store.contexts_of_trigger("outbox"), Ok(Vec::new()));
}

fn schedules_are_listed_in_the_order_of_registration(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let zeta = declared(store, epoch, "zeta");
    store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    declared(store, epoch, "alpha");
    declared(store, epoch, "mid");
    declared(store, epoch, "zeta");
    let names = |enabled_only, page| -> Vec<String> {
        let listed = store.schedules(ScheduleFilter::Triggers, enabled_only, page).unwrap();
        listed.into_iter().map(|schedule| schedule.name).collect()
    };
    assert_eq!(names(false, ALL), ["zeta", "alpha", "mid"]);
    // Each with what is kept of when it is due, so that nobody has to ask for that one by one.
    let listed = store.schedules(ScheduleFilter::Triggers, false, ALL).unwrap();
    assert!(listed.iter().all(|trigger| trigger.grid.is_some_and(|grid| grid.heeded_until.is_some())));
    assert_eq!(names(false, Page { limit: 1, offset: 1 }), ["alpha"]);
    store.set_enabled(zeta.row, false, None, Wall(30)).unwrap();
    assert_eq!(names(true, ALL), ["alpha", "mid"]);
    assert_eq!(names(false, ALL).len(), 3);
    let crons = store.schedules(ScheduleFilter::Crons, false, ALL).unwrap();
    assert_eq!(crons.iter().map(|cron| (cron.id, cron.grid)).collect::<Vec<_>>(), [(id(50), None)]);
}

fn schedules_are_walked_by_their_rows(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let zeta = declared(store, epoch, "zeta").row;
    let cron = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap().row;
    let alpha = declared(store, epoch, "alpha").row;
    let walked = |filter, after, limit| -> Vec<ScheduleKey> {
        store.schedules_after(filter, after, limit).unwrap().iter().map(|schedule| schedule.row).collect()
    };
    assert_eq!(walked(ScheduleFilter::Triggers, ScheduleKey(0), 10), [zeta, alpha]);
    assert_eq!(walked(ScheduleFilter::Triggers, ScheduleKey(0), 1), [zeta]);
    assert_eq!(walked(ScheduleFilter::Triggers, zeta, 1), [alpha]);
    assert_eq!(walked(ScheduleFilter::Triggers, alpha, 10), []);
    assert_eq!(walked(ScheduleFilter::Crons, ScheduleKey(0), 10), [cron]);
}

fn runs_are_listed_newest_first_and_filtered(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    let fired = |number| NewRun { schedule: Some(trigger.row), ..new_run(number) };
    let fates = fire(store, &trigger, epoch, vec![fired(1), fired(2)]);
    let Admitted::Started { row } = fates[0] else { panic!("{fates:?}") };
    commit(store, ended(row, epoch, RunStatus::Failed));
    started(store, epoch, NewRun { workflow: "other".into(), ..new_run(3) });
    let (mail, failed) = (Some("mail".to_owned()), Some(RunStatus::Failed));
    let (inbox, pending) = (Some("inbox".to_owned()), Some(RunStatus::Pending));

    assert_eq!(ids(store, &any()), [id(3), id(2), id(1)]);
    assert_eq!(ids(store, &RunFilter { workflow: mail.clone(), ..any() }), [id(2), id(1)]);
    assert_eq!(ids(store, &RunFilter { status: failed, ..any() }), [id(1)]);
    assert_eq!(ids(store, &RunFilter { status: pending, ..any() }), [id(3), id(2)]);
    assert_eq!(ids(store, &RunFilter { trigger: inbox.clone(), ..any() }), [id(2), id(1)]);
    assert_eq!(ids(store, &RunFilter { trigger: inbox.clone(), status: pending, ..any() }), [id(2)]);
    assert_eq!(
        ids(store, &RunFilter { schedule: Some(trigger.row), workflow: mail, ..any() }),
        [id(2), id(1)]
    );
    assert_eq!(ids(store, &RunFilter { trigger: Some("none".to_owned()), ..any() }), NONE);
    assert_eq!(
        ids(store, &RunFilter { trigger: inbox, schedule: Some(ScheduleKey(trigger.row.0 + 1)), ..any() }),
        NONE
    );
    let page = store.runs(&any(), Page { limit: 1, offset: 1 }).unwrap();
    assert_eq!((page.len(), page[0].id, page[0].trigger.as_deref()), (1, id(2), Some("inbox")));
}

fn runs_are_found_by_key_time_and_kind_of_error(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let rows: Vec<RunRow> = (1..=5)
        .map(|number| {
            let run_key = (number % 2 == 1).then(|| (format!("key {number}"), None));
            let created_at = Wall(10 * number as i64);
            started(store, epoch, NewRun { run_key, created_at, ..new_run(number) })
        })
        .collect();
    let end = |status, error_type: Option<&str>| RunEnd {
        status,
        context: "{}".into(),
        error: None,
        error_type: error_type.map(Into::into),
        completed_at: Wall(99),
    };
    let ends = [
        end(RunStatus::Failed, Some("OSError")),
        end(RunStatus::Failed, Some("KeyError")),
        end(RunStatus::Cancelled, None),
        end(RunStatus::Completed, None),
    ];
    for (&run, end) in rows.iter().zip(ends) {
        commit(store, Change::Run(RunChange { run, epoch, tasks: vec![], end: Some(end) }));
    }
    let with = |change: fn(&mut RunFilter)| {
        let mut filter = any();
        change(&mut filter);
        ids(store, &filter)
    };
    assert_eq!(with(|filter| filter.run_key = Some("key 3".to_owned())), [id(3)]);
    assert_eq!(with(|filter| filter.run_key = Some("key 2".to_owned())), NONE);
    assert_eq!(with(|filter| filter.error_type = Some("OSError".to_owned())), [id(1)]);
    assert_eq!(with(|filter| filter.since = Some(Wall(30))), [id(5), id(4), id(3)]);
    assert_eq!(with(|filter| filter.until = Some(Wall(30))), [id(2), id(1)]);
    assert_eq!(with(|filter| filter.status = Some(RunStatus::Cancelled)), [id(3)]);
    assert_eq!(with(|filter| filter.status = Some(RunStatus::Completed)), [id(4)]);
    let failed = |filter: &mut RunFilter| filter.status = Some(RunStatus::Failed);
    assert_eq!(with(failed), [id(2), id(1)]);
    assert_eq!(
        with(|filter| {
            (filter.status, filter.since) = (Some(RunStatus::Failed), Some(Wall(20)));
            filter.workflow = Some("mail".to_owned());
        }),
        [id(2)]
    );
    let pending = |since, until| {
        let status = Some(RunStatus::Pending);
        ids(store, &RunFilter { status, since: Some(Wall(since)), until: Some(Wall(until)), ..any() })
    };
    assert_eq!((pending(50, 51), pending(51, 90), pending(10, 50)), (vec![id(5)], vec![], vec![]));
}

fn pages_that_follow_a_place_show_each_run_once(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    // A clock that was set back, and several at one moment.
    let times = [50, 50, 50, 20, 60, 20, 50];
    for (number, at) in (1..).zip(times) {
        started(store, epoch, NewRun { created_at: Wall(at), ..new_run(number) });
    }
    let pages = |filter: &RunFilter| -> Vec<Uuid> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = Page { limit: 2, offset: 0 };
            let rows = store.runs(&RunFilter { after, ..filter.clone() }, page).unwrap();
            let Some(last) = rows.last() else { return found };
            after =
                Some(Place { created_at: last.created_at, row: last.row, completed_at: last.completed_at });
            assert_eq!(store.place(last.id).unwrap(), after);
            found.extend(rows.iter().map(|run| run.id));
        }
    };
    let newest = [5, 7, 3, 2, 1, 6, 4].map(id);
    assert_eq!(ids(store, &any()), newest);
    assert_eq!(pages(&any()), newest);
    assert_eq!(pages(&RunFilter { until: Some(Wall(60)), ..any() }), newest[1..]);
    let pending = RunFilter { status: Some(RunStatus::Pending), ..any() };
    assert_eq!(pages(&pending), ids(store, &pending));
    assert_eq!(store.place(id(99)).unwrap(), None);
}

fn runs_are_listed_by_their_ends(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    // The last one is not over.
    let ends = [(90, RunStatus::Failed), (70, RunStatus::Completed), (80, RunStatus::Failed)];
    for (number, (at, status)) in (1..).zip(ends) {
        let run = started(store, epoch, NewRun { created_at: Wall(50), ..new_run(number) });
        let Change::Run(RunChange { end: Some(end), .. }) = ended(run, epoch, status) else { panic!() };
        let error_type = (status == RunStatus::Failed).then(|| "ValueError".into());
        let end = RunEnd { completed_at: Wall(at), error_type, ..end };
        commit(store, Change::Run(RunChange { run, epoch, tasks: vec![], end: Some(end) }));
    }
    started(store, epoch, NewRun { created_at: Wall(50), ..new_run(4) });
    let by_end = || RunFilter { by: By::End, ..any() };
    let failed = || RunFilter { status: Some(RunStatus::Failed), ..by_end() };

    assert_eq!(ids(store, &by_end()), [1, 3, 2].map(id));
    assert_eq!(ids(store, &failed()), [1, 3].map(id));
    assert_eq!(
        ids(store, &RunFilter { error_type: Some("ValueError".to_owned()), ..by_end() }),
        [1, 3].map(id)
    );
    assert_eq!(ids(store, &RunFilter { since: Some(Wall(81)), ..failed() }), [id(1)]);
    assert_eq!(ids(store, &RunFilter { until: Some(Wall(90)), ..failed() }), [id(3)]);
    assert_eq!(ids(store, &RunFilter { since: Some(Wall(80)), until: Some(Wall(90)), ..by_end() }), [id(3)]);
    assert_eq!(ids(store, &RunFilter { status: Some(RunStatus::Pending), ..by_end() }), NONE);
    let place = |number| store.place(id(number)).unwrap();
    assert_eq!(ids(store, &RunFilter { after: place(1), ..by_end() }), [3, 2].map(id));
    assert_eq!(ids(store, &RunFilter { after: place(1), ..failed() }), [id(3)]);
    assert_eq!(place(4).unwrap().completed_at, None);
}

fn an_unknown_run_trigger_or_cron_is_none(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let trigger = declared(store, epoch, "inbox");
    assert_eq!(store.run(id(1)).unwrap(), None);
    assert_eq!(store.trigger("outbox").unwrap(), None);
    assert_eq!(store.cron(trigger.id).unwrap(), None, "a trigger is no cron");
    assert_eq!(store.delete_cron(trigger.id).unwrap(), Forgotten::Gone(Vec::new()));
}

fn what_was_polled_and_is_a_cron_now_goes_on_where_it_was(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let polled = declared(store, epoch, "inbox");
    fire(store, &polled, epoch, vec![new_run(1)]);
    store.set_cursor(polled.row, Some("3")).unwrap();
    let fired_at = store.trigger("inbox").unwrap().unwrap().last_fired_at;
    assert!(fired_at.is_some());
    let cron = store.put_cron(epoch, &declared_cron(50, "inbox", "0 2 * * *")).unwrap();
    assert_eq!((cron.cursor.as_deref(), cron.last_fired_at, cron.last_at), (Some("3"), fired_at, None));

    // A name has one cursor, whatever it is.
    store.set_cursor(polled.row, Some("4")).unwrap();
    store.set_cursor(cron.row, Some("7")).unwrap();
    let again = store.put_cron(epoch, &declared_cron(51, "inbox", "0 2 * * *")).unwrap();
    assert_eq!((again.row, again.cursor.as_deref()), (cron.row, Some("7")));
    assert_eq!(store.trigger("inbox").unwrap().unwrap().cursor.as_deref(), Some("7"));

    // Of another name, or by a call, there was nothing before.
    let other = store.put_cron(epoch, &declared_cron(52, "outbox", "0 2 * * *")).unwrap();
    let registered = NewCron { name: "rare", ..new_cron(53, "0 2 * * *") };
    let rare = declared(store, epoch, "rare");
    store.set_cursor(rare.row, Some("5")).unwrap();
    let registered = store.put_cron(epoch, &registered).unwrap();
    assert_eq!((other.cursor, registered.cursor), (None, None));
}

fn what_was_a_cron_and_is_polled_now_goes_on_where_it_was(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let cron = store.put_cron(epoch, &declared_cron(50, "inbox", "0 2 * * *")).unwrap();
    store.set_cursor(cron.row, Some("3")).unwrap();
    let registered = store.put_cron(epoch, &NewCron { name: "rare", ..new_cron(51, "0 3 * * *") }).unwrap();
    store.set_cursor(registered.row, Some("9")).unwrap();
    store.withdraw_cron(epoch, "inbox").unwrap();
    let state =
        |name: &str| match commit(store, Change::Declare { epoch, trigger: trigger_row(name), at: Wall(20) })
        {
            Receipt::Declared(state) => state,
            other => panic!("{other:?} declares nothing"),
        };
    assert_eq!(
        (state("inbox").cursor.as_deref(), state("rare").cursor, state("new").cursor),
        (Some("3"), None, None)
    );
    assert_eq!(store.trigger("inbox").unwrap().unwrap().cursor.as_deref(), Some("3"));
}

fn a_name_that_becomes_a_cron_or_polled_is_the_others_while_its_body_is_in_flight(store: &dyn Store) {
    let [old, new] = [1, 2].map(|at| store.join(Wall(at)).unwrap());
    let polled = declared(store, old, "inbox");
    let cron = NewCron { digest: 2, ..declared_cron(50, "inbox", "0 2 * * *") };
    let cron = store.put_cron(new, &cron).unwrap();
    let tick = |schedule: &Schedule, epoch, cursor: &str, fires, cron| {
        let cursor = Some(Some(cursor.to_owned()));
        Change::Tick(TickChange { cursor: cursor.flatten(), cron, ..tick(schedule, epoch, fires) })
    };
    assert_eq!(take_moment(store, new, &cron, 100), Moment::Others, "a poll may be in flight");
    let key = |schedule: &Schedule, number| keyed(schedule, number, "event 1", None);
    admitted(commit(store, tick(&polled, old, "1", vec![key(&polled, 1)], None)));
    let_go(store, old, 1);
    let fired_at = Some(Wall(50));
    let state = taken(store, new, &cron, 100);
    assert_eq!((state.cursor.as_deref(), state.last_fired_at), (Some("1"), fired_at));

    // Back again: the version that polls it comes as a third one.
    let third = store.join(Wall(3)).unwrap();
    let owner = |digest| {
        let state = asked(store, third, digest);
        (state.owner, state.cursor)
    };
    assert_eq!(owner(3).0, Some(new), "it decides a moment");
    let step = CronMove {
        row: cron.row,
        seen: cron.updated_at,
        next_at: Some(Wall(200)),
        last_at: None,
        decided: None,
    };
    let fates = admitted(commit(store, tick(&cron, new, "2", vec![key(&cron, 2)], Some(step))));
    assert_eq!(fates, [Admitted::DuplicateKey { of: Some(id(1)) }], "keys are a name's");
    assert_eq!(owner(3), (Some(third), Some("2".to_owned())));

    // And a cron once more, when whoever polled it is dead.
    let fourth = store.join(Wall(4)).unwrap();
    let newest = NewCron { digest: 4, ..declared_cron(51, "inbox", "0 2 * * *") };
    let newest = store.put_cron(fourth, &newest).unwrap();
    assert_eq!(newest.row, cron.row);
    let polled = store.trigger("inbox").unwrap().unwrap();
    commit(store, tick(&polled, third, "3", vec![], None));
    assert_eq!(take_moment(store, fourth, &newest, 200), Moment::Others);
    store.leave(third, &InFlight::default(), Wall(60)).unwrap();
    assert_eq!(taken(store, fourth, &newest, 200).cursor.as_deref(), Some("3"));
}

fn what_is_off_stays_off_when_it_becomes_a_cron_or_is_polled_and_one_switch_serves_both(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let state = |name: &str| {
        let polled = store.trigger(name).unwrap().unwrap();
        let cron = store.cron_named(name).unwrap().unwrap();
        let of = |row: Schedule| (row.enabled, row.disabled_at, row.disabled_cause);
        (of(polled), of(cron))
    };
    let off = |at, cause: Option<&str>| (false, Some(Wall(at)), cause.map(str::to_owned));
    let on = || (true, None, None);

    let polled = declared(store, epoch, "inbox");
    store.set_enabled(polled.row, false, Some("ten errors"), Wall(15)).unwrap();
    let cron = store.put_cron(epoch, &declared_cron(50, "inbox", "0 2 * * *")).unwrap();
    assert_eq!(state("inbox"), (off(15, Some("ten errors")), off(15, Some("ten errors"))));
    store.set_enabled(cron.row, true, None, Wall(16)).unwrap();
    assert_eq!(state("inbox"), (on(), on()));
    store.set_enabled(polled.row, false, None, Wall(17)).unwrap();
    assert_eq!(state("inbox"), (off(17, None), off(17, None)));

    let cron = store.put_cron(epoch, &declared_cron(51, "outbox", "0 2 * * *")).unwrap();
    store.set_enabled(cron.row, false, None, Wall(18)).unwrap();
    store.withdraw_cron(epoch, "outbox").unwrap();
    let change = Change::Declare { epoch, trigger: trigger_row("outbox"), at: Wall(20) };
    let Receipt::Declared(told) = commit(store, change) else { panic!("it declares nothing") };
    assert!(!told.enabled);
    assert_eq!(state("outbox"), (off(18, None), off(18, None)));

    // What a call registered has a switch of its own, and so has what has another name or none.
    let rare = declared(store, epoch, "rare");
    let registered = store.put_cron(epoch, &NewCron { name: "rare", ..new_cron(53, "0 2 * * *") }).unwrap();
    let nameless = store.put_cron(epoch, &new_cron(54, "0 2 * * *")).unwrap();
    store.set_enabled(rare.row, false, None, Wall(21)).unwrap();
    assert_eq!(state("rare"), (off(21, None), on()));
    store.set_enabled(registered.row, false, None, Wall(22)).unwrap();
    store.set_enabled(rare.row, true, None, Wall(23)).unwrap();
    assert_eq!(state("rare"), (on(), off(22, None)));
    assert!(store.cron(nameless.id).unwrap().unwrap().enabled);
}

fn since_when_something_is_off_no_edit_moves(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let polled = declared(store, epoch, "inbox");
    let cron = store.put_cron(epoch, &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    for row in [polled.row, cron.row] {
        store.set_enabled(row, false, None, Wall(15)).unwrap();
        store.set_enabled(row, false, None, Wall(16)).unwrap();
    }
    let epoch = successor(store, epoch);
    let declared = declare(store, epoch, TriggerRow { interval_us: 9, ..trigger_row("inbox") }, Wall(30));
    assert_eq!((declared.updated_at, declared.disabled_at), (Wall(30), Some(Wall(15))));
    let anew = NewCron { at: Wall(30), ..declared_cron(51, "nightly", "0 3 * * *") };
    let edited = store.put_cron(epoch, &anew).unwrap();
    assert_eq!((edited.updated_at, edited.disabled_at), (Wall(30), Some(Wall(15))));
    assert!(store.update_cron(edited.id, "0 4 * * *", "UTC", None, Wall(40)).unwrap());
    let edited = store.cron(edited.id).unwrap().unwrap();
    assert_eq!((edited.updated_at, edited.disabled_at), (Wall(40), Some(Wall(15))));
}

fn what_is_over_of_a_cron_only_grows(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let declared_at = |at, expression| {
        let new = NewCron { at: Wall(at), ..declared_cron(50, "nightly", expression) };
        store.put_cron(epoch, &new).unwrap()
    };
    let cron = declared_at(10, "0 2 * * *");
    let past = || store.cron(cron.id).unwrap().unwrap().past.text();
    assert_eq!(past(), "[10,0,[[10,10]]]", "what came before it was declared");
    let decided = |from: i64, until: i64| {
        let seen = store.cron(cron.id).unwrap().unwrap().updated_at;
        let decided = Some(Passage { from: Wall(from), until: Wall(until) });
        let step = CronMove { row: cron.row, seen, next_at: Some(Wall(1)), last_at: None, decided };
        let put_right = CronMove { decided: None, ..step };
        let too_old = CronMove { seen: Wall(seen.0 - 1), decided: Some(Passage::at(Wall(7))), ..step };
        for step in [step, put_right, too_old] {
            commit(store, Change::Start { epoch, runs: vec![], cron: Some(step) });
        }
        past()
    };
    assert_eq!(decided(10, 20), "[10,0,[[10,20]]]");
    assert_eq!(decided(200, 300), "[10,0,[[10,20],[200,300]]]", "by a clock that was ahead");
    assert_eq!(decided(5, 6), "[10,1,[[5,6],[10,20],[200,300]]]", "or is behind");
    declared_at(150, "0 3 * * *");
    assert_eq!(
        past(),
        "[150,0,[[6,6],[20,20],[150,150],[300,300]]]",
        "what another expression would have had before"
    );
    assert_eq!(decided(300, 310), "[150,0,[[6,6],[20,20],[150,150],[300,310]]]");
    store.update_cron(cron.id, "0 5 * * *", "UTC", None, Wall(340)).unwrap();
    assert_eq!(past(), "[340,0,[[6,6],[20,20],[150,150],[310,310],[340,340]]]");
    assert_eq!(decided(340, 350), "[340,0,[[6,6],[20,20],[150,150],[310,310],[340,350]]]");
    store.update_cron(cron.id, "0 5 * * *", "UTC", None, Wall(400)).unwrap();
    assert_eq!(
        past(),
        "[340,0,[[6,6],[20,20],[150,150],[310,310],[340,350],[400,400]]]",
        "the same: it was off, say"
    );
}

fn a_moment_is_borne_by_the_first_that_its_run_key_does_not_refuse(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let cron = store.put_cron(epoch, &declared_cron(50, "nightly", "0 2 * * *")).unwrap();
    let used = keyed(&cron, 1, "k", None);
    started(store, epoch, used.clone());
    let decided = |first: u128, at: i64| {
        let bearer = NewRun { scheduled_at: Some(Wall(at)), ..keyed(&cron, first, "k", None) };
        let beside = [first + 1, first + 2, first + 3];
        let beside = beside.map(|number| NewRun { schedule: Some(cron.row), ..new_run(number) });
        let [second, third, fourth] = beside;
        let again = NewRun { run_key: used.run_key.clone(), ..second };
        let runs = vec![bearer, again, third, fourth];
        admitted(commit(store, Change::Start { epoch, runs, cron: None }))
    };
    let refused = Admitted::DuplicateKey { of: Some(id(1)) };
    for (first, at) in [(10, 100), (20, 200)] {
        let fates = decided(first, at);
        assert_eq!(fates[..2], [refused.clone(), refused.clone()]);
        assert!(fates[2].is_kept() && fates[3].is_kept(), "{fates:?}");
    }
    let borne = Admitted::DuplicateKey { of: Some(id(22)) };
    assert_eq!(decided(30, 200), [refused, borne.clone(), borne.clone(), borne], "it has run");
}

fn cron_stats_count_moments_of_all_crons(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    let cron = store.put_cron(Epoch(1), &new_cron(50, "0 2 * * *")).unwrap();
    started(store, epoch, NewRun { created_at: Wall(5), ..moment(&cron, 1, 1) });
    let completed = started(store, epoch, moment(&cron, 2, 2));
    let failed = started(store, epoch, moment(&cron, 3, 3));
    let never = started(store, epoch, moment(&cron, 4, 4));
    started(store, epoch, moment(&cron, 5, 5));
    started(store, epoch, new_run(6));
    commit(store, ended(completed, epoch, RunStatus::Completed));
    let tasks = vec![task("fetch", TaskStatus::Failed, 1)];
    commit(store, Change::Run(RunChange { run: failed, epoch, tasks, end: None }));
    commit(store, ended(failed, epoch, RunStatus::Failed));
    commit(store, ended(never, epoch, RunStatus::Cancelled));
    store.delete_cron(cron.id).unwrap();
    assert_eq!(store.cron_stats(Wall(20)).unwrap(), CronStats { total: 4, successful: 1, lost: 1 });
    assert_eq!(store.cron_stats(Wall(21)).unwrap(), CronStats::default());
}

fn a_query_returns_every_type(store: &dyn Store) {
    let sql =
        "SELECT NULL AS n, ?1 AS i, ?2 AS r, ?3 AS t, x'ff00' AS b, CAST(x'61ff' AS TEXT) AS lossy, ?4, ?5";
    let blob = Cell::Blob(vec![1, 2]);
    let params = [Cell::Int(i64::MIN), Cell::Real(0.5), Cell::Text("é".to_owned()), blob.clone(), Cell::Null];
    let (columns, rows) = query(store, sql, &params).unwrap();
    assert_eq!(columns[..6], ["n", "i", "r", "t", "b", "lossy"]);
    let [int, real, text, ..] = params;
    let lossy = Cell::Text("a\u{fffd}".to_owned());
    assert_eq!(rows, [vec![Cell::Null, int, real, text, Cell::Blob(vec![255, 0]), lossy, blob, Cell::Null]]);
    assert_eq!(query(store, "SELECT * FROM runs WHERE 0", &[]).unwrap().1.len(), 0);
}

fn a_query_that_writes_is_refused(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    started(store, epoch, new_run(1));
    for sql in [
        "DELETE FROM runs",
        "UPDATE runs SET status = 'Completed'",
        "INSERT INTO owners (joined_at) VALUES (1) RETURNING epoch",
        "WITH a AS (SELECT 1) DELETE FROM runs",
        "CREATE TABLE x (a)",
        "DROP TABLE runs",
        "ATTACH ':memory:' AS other",
        "BEGIN",
        "COMMIT",
        "VACUUM",
        "PRAGMA user_version = 9",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = 0",
        "SELECT 1; DELETE FROM runs",
        "",
        "-- nothing",
    ] {
        assert!(matches!(query(store, sql, &[]), Err(Fault::Final(_))), "{sql}");
    }
    assert_eq!(ids(store, &any()), [id(1)]);
    assert_eq!(query(store, "PRAGMA user_version", &[]).unwrap().1, [vec![Cell::Int(2)]]);
}

fn a_query_with_the_wrong_number_of_parameters_is_refused(store: &dyn Store) {
    for params in [vec![], vec![Cell::Int(1), Cell::Int(2)]] {
        let Err(Fault::Final(message)) = query(store, "SELECT ?", &params) else { panic!("it ran") };
        assert!(message.contains("1 parameter") && message.contains(&params.len().to_string()), "{message}");
    }
}

fn a_query_with_a_typing_error_says_so(store: &dyn Store) {
    let expect = [("SELECT * FROM nothing", "nothing"), ("SELEC 1", "SELEC"), ("SELECT ';", "';")];
    for (sql, word) in expect {
        let Err(Fault::Final(message)) = query(store, sql, &[]) else { panic!("{sql} ran") };
        assert!(message.contains(word), "{message}");
    }
}

fn the_store_still_writes_after_a_refused_query(store: &dyn Store) {
    let _ = query(store, "DELETE FROM runs", &[]);
    let _ = query(store, "SELECT ?", &[]);
    let _ = query(store, "SELECT abs(-9223372036854775808)", &[]);
    let epoch = store.join(Wall(1)).unwrap();
    started(store, epoch, new_run(1));
}

fn an_endless_query_ends_when_it_is_told_to(store: &dyn Store) {
    let halt = Halt::default();
    thread::scope(|scope| {
        let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c";
        let asked = scope.spawn(|| store.query(endless, &[], &halt));
        assert!(!asked.is_finished());
        halt.ask();
        assert!(asked.join().unwrap().is_err());
    });
    assert_eq!(query(store, "SELECT 1", &[]).unwrap().1, [vec![Cell::Int(1)]]);
    assert!(store.join(Wall(1)).is_ok());
}

fn what_is_asked_after_the_close_is_refused(store: &dyn Store) {
    let epoch = store.join(Wall(1)).unwrap();
    store.close();
    store.close();
    assert!(matches!(store.commit(&[]), Err(Fault::Final(_))));
    assert!(matches!(store.runs(&any(), ALL), Err(Fault::Final(_))));
    assert!(matches!(query(store, "SELECT 1", &[]), Err(Fault::Final(_))));
    assert!(store.leave(epoch, &InFlight::default(), Wall(2)).is_err());
    store.wake_others(epoch);
    assert!(!store.woken(epoch));
}

fn an_export_holds_everything(store: &dyn Store) {
    let folder = Folder::new();
    let epoch = store.join(Wall(1)).unwrap();
    started(store, epoch, new_run(1));
    let path = folder.path("copy.db");
    store.export(&path, &Halt::default()).unwrap();
    started(store, epoch, new_run(2));
    let copy = folder.open("copy.db");
    assert_eq!(ids(&*copy, &any()), [id(1)]);
    assert_eq!(query(&*copy, "PRAGMA integrity_check", &[]).unwrap().1, [vec![Cell::Text("ok".to_owned())]]);
    assert!(copy.join(Wall(2)).unwrap() > epoch);
}

fn an_export_never_overwrites(store: &dyn Store) {
    let folder = Folder::new();
    let path = folder.path("copy.db");
    for content in ["precious", ""] {
        std::fs::write(&path, content).unwrap();
        let Err(Fault::Final(message)) = store.export(&path, &Halt::default()) else { panic!("overwritten") };
        assert!(message.contains("copy.db") && message.contains("exists"), "{message}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
}

fn an_export_into_no_folder_is_refused(store: &dyn Store) {
    let folder = Folder::new();
    let path = folder.path("missing").join("copy.db");
    let Err(Fault::Final(message)) = store.export(&path, &Halt::default()) else { panic!("made a folder") };
    assert!(message.contains("missing") && message.contains("does not exist"), "{message}");
}

#[test]
fn a_query_of_a_server_returns_every_type() {
    on_a_server(|store| {
        let sql = "SELECT NULL AS n, $1::BIGINT AS i, $2::FLOAT8 AS r, ? AS t, '\\xff00'::BYTEA AS b, TRUE AS f, '1.50'::NUMERIC, sum(2::BIGINT),
                ARRAY[1, 2], '2026-01-02'::DATE, 7::SMALLINT, $3";
        let params = [Cell::Int(i64::MIN), Cell::Real(0.5), Cell::Text("é".to_owned())];
        let (columns, rows) = query(store, &sql.replace('?', "$3"), &params).unwrap();
        assert_eq!(columns[..6], ["n", "i", "r", "t", "b", "f"]);
        let text = |text: &str| Cell::Text(text.to_owned());
        let rest = [
            Cell::Int(1),
            Cell::Real(1.5),
            Cell::Int(2),
            text("{1,2}"),
            text("2026-01-02"),
            Cell::Int(7),
            text("é"),
        ];
        let first = [Cell::Null, Cell::Int(i64::MIN), Cell::Real(0.5), text("é"), Cell::Blob(vec![255, 0])];
        assert_eq!(rows, [[&first[..], &rest[..]].concat()]);
        let (_, rows) = query(
            store,
            "SELECT count(*), ?::TEXT || '?' FROM runs WHERE workflow = ?",
            &[text("a"), text("b")],
        )
        .unwrap();
        assert_eq!(rows, [[Cell::Int(0), text("a?")]]);
        assert_eq!(query(store, "EXPLAIN SELECT 1", &[]).unwrap().0, ["QUERY PLAN"]);
    });
}

#[test]
fn a_server_is_exported_by_its_own_tools() {
    on_a_server(|store| {
        let folder = Folder::new();
        let Err(Fault::Final(message)) = store.export(&folder.path("copy.db"), &Halt::default()) else {
            panic!("it wrote")
        };
        assert!(message.ends_with("pg_dump --schema=cloaca"), "{message}");
    });
    let Some(database) = server::Database::new() else { return };
    for (schema, told) in [("odd", "--schema=odd"), ("Odd%20one%27s", r#"--schema='"Odd one'\''s"'"#)] {
        let joint = if database.url().contains('?') { '&' } else { '?' };
        let store =
            cloaca_store::open(format!("{}{joint}schema={schema}", database.url()), None).unwrap().store;
        let Err(Fault::Final(message)) = store.export(&Folder::new().path("copy.db"), &Halt::default())
        else {
            panic!("it wrote")
        };
        assert!(message.ends_with(told), "{message}");
    }
}

#[test]
fn a_query_of_a_server_that_writes_is_refused() {
    on_a_server(|store| {
        let epoch = store.join(Wall(1)).unwrap();
        started(store, epoch, new_run(1));
        for sql in [
            "DELETE FROM runs",
            "WITH a AS (DELETE FROM runs RETURNING 1) SELECT * FROM a",
            "SELECT set_config('transaction_read_only', 'off', true)",
            "SELECT nextval(pg_get_serial_sequence('runs', 'row'))",
            "EXPLAIN ANALYZE DELETE FROM runs",
            "SELECT * INTO copy FROM runs",
            "SELECT 1 FROM runs FOR UPDATE",
            "COPY runs TO STDOUT",
            "SET default_transaction_read_only TO off",
            "BEGIN",
            "COMMIT",
            "VACUUM",
            "SELECT 1; DELETE FROM runs",
            "",
            "-- nothing",
        ] {
            assert!(matches!(query(store, sql, &[]), Err(Fault::Final(_))), "{sql}");
        }
        assert_eq!(ids(store, &any()), [id(1)]);
    });
}

#[test]
fn ids_of_the_tests_are_distinct() {
    let all: HashSet<Uuid> = (1..=100).map(id).collect();
    assert_eq!(all.len(), 100);
}
