//! The fires of one tick against the plainest model: the cursor moves past nothing that was not taken, and nothing behind what was
//! dropped is tried.

use cloaca_core::fate::{Judge, Next, cursor_after};
use cloaca_core::key::{RunRow, ScheduleKey};
use cloaca_core::port::{Admitted, NewRun, Room};
use cloaca_core::time::Wall;
use proptest::prelude::*;
use uuid::Uuid;

/// A fire as its source sees it: whether it carries a cursor, and whether its run key was used before.
type Wish = (bool, bool);

fn fire(number: usize, has_cursor: bool) -> NewRun {
    NewRun {
        trace: None,
        id: Uuid::from_u128(number as u128 + 1),
        workflow: "mail".into(),
        version: "v1".into(),
        context: "{}".into(),
        schedule: Some(ScheduleKey(1)),
        context_hash: None,
        unique_hash: false,
        run_key: None,
        scheduled_at: None,
        waits: false,
        cursor: has_cursor.then(|| number.to_string()),
        ends: None,
        parent: None,
        priority: None,
        due_at: None,
        delay_us: None,
        limits: None,
        is_anyones: false,
        created_at: Wall(0),
    }
}

fn fates(wishes: &[Wish], room: Option<Room>) -> Vec<Admitted> {
    let mut judge = Judge::new(room);
    let mut fates = Vec::new();
    for (number, &(has_cursor, is_used)) in wishes.iter().enumerate() {
        let used = Admitted::DuplicateKey { of: None };
        let fate = match judge.next(has_cursor) {
            Next::HoldBack => Admitted::HeldBack,
            Next::Try | Next::Full(_) if is_used => used,
            Next::Try => Admitted::Started { row: RunRow(number as i64) },
            Next::Full(room) => Admitted::Overlaps { with: room.with.expect("something fills the room") },
        };
        judge.note(&fire(number, has_cursor), &fate);
        fates.push(fate);
    }
    fates
}

fn is_behind(fate: &Admitted) -> bool {
    matches!(fate, Admitted::Started { .. } | Admitted::DuplicateKey { .. })
}

fn cursors(wishes: &[Wish]) -> Vec<Option<String>> {
    wishes.iter().enumerate().map(|(number, &(has, _))| has.then(|| number.to_string())).collect()
}

proptest! {
    #[test]
    fn the_cursor_moves_past_all_that_was_taken_and_nothing_else(
        wishes in prop::collection::vec(any::<Wish>(), 0..12),
        runs in prop::option::of(0_u64..4),
        is_set in any::<bool>(),
    ) {
        let room = runs.map(|runs| Room { runs, with: Some(Uuid::from_u128(99)) });
        let fates = fates(&wishes, room);
        let cursors = cursors(&wishes);
        let row = cursors.iter().map(Option::as_deref).zip(&fates);
        let found = cursor_after(row, is_set.then_some("set"));

        let row: Vec<usize> = (0..wishes.len()).filter(|&place| wishes[place].0).collect();
        let taken = row.iter().take_while(|&&place| is_behind(&fates[place])).count();
        let is_beside = |place: &usize| !wishes[*place].0;
        let mut beside = (0..wishes.len()).filter(is_beside);
        let is_cut = !row.is_empty() && beside.any(|place| matches!(fates[place], Admitted::Overlaps { .. }));
        let expected = match is_set && taken == row.len() && !is_cut {
            true => Some("set".to_owned()),
            false => row[..taken].last().map(usize::to_string),
        };
        prop_assert_eq!(found.map(str::to_owned), expected);
        for (place, &fire) in row.iter().enumerate() {
            let is_overlapped = matches!(fates[fire], Admitted::Overlaps { .. });
            prop_assert_eq!(is_overlapped, place == taken);
            prop_assert_eq!(fates[fire] == Admitted::HeldBack, place > taken);
        }
    }

    #[test]
    fn as_many_start_as_there_is_room_for_whatever_is_refused_before_them(
        has_cursor in any::<bool>(),
        used in prop::collection::vec(any::<bool>(), 0..12),
        runs in 0_u64..4,
    ) {
        let wishes: Vec<Wish> = used.into_iter().map(|is_used| (has_cursor, is_used)).collect();
        let fates = fates(&wishes, Some(Room { runs, with: Some(Uuid::nil()) }));
        let free = wishes.iter().filter(|(_, is_used)| !is_used).count() as u64;
        let started = fates.iter().filter(|fate| matches!(fate, Admitted::Started { .. })).count() as u64;
        prop_assert_eq!(started, free.min(runs));
    }
}

#[test]
fn who_fills_the_room_is_named() {
    let room = |with| Some(Room { runs: 1, with });
    let fates_of = |with| fates(&[(true, false), (true, false)], room(with));
    assert_eq!(fates_of(None)[1], Admitted::Overlaps { with: Uuid::from_u128(1) });
    assert_eq!(fates_of(Some(Uuid::from_u128(7)))[1], Admitted::Overlaps { with: Uuid::from_u128(7) });
}
