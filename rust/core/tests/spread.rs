//! Whose a trigger is by right: what each who knows the same runners has to find, whoever they are.

use std::collections::HashMap;
use std::sync::Arc;

use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::spread::{Contested, of_others, owner_of, wishes};

const TRIGGERS: usize = 10_000;

/// Names of many kinds, none of them alike in more than a few letters from the last.
fn names() -> impl Iterator<Item = String> {
    let kinds = ["watch_{}", "{}", "tenant-{}/inbox", "Überwachung {} der Quelle", "a{}a"];
    (0..TRIGGERS).map(move |number| kinds[number % kinds.len()].replace("{}", &number.to_string()))
}

/// Runners as they come and go: some that followed one another, some of which many lie between.
fn companies() -> Vec<Vec<Epoch>> {
    let of = |epochs: &[i64]| epochs.iter().copied().map(Epoch).collect::<Vec<_>>();
    let mut all: Vec<_> = (2..=9).map(|many| (1..=many).map(Epoch).collect()).collect();
    all.extend([of(&[7, 1_000_003]), of(&[41, 57, 58, 900]), of(&[i64::MAX, 1, 2, 1 << 40, 3])]);
    all
}

fn owners(living: &[Epoch]) -> Vec<Epoch> {
    names().map(|name| owner_of(&name, living.iter().copied()).expect("somebody lives")).collect()
}

#[test]
fn nobody_owns_what_nobody_declares() {
    assert_eq!(owner_of("inbox", []), None);
    assert_eq!(owner_of("inbox", [Epoch(3)]), Some(Epoch(3)));
}

#[test]
fn each_of_several_has_its_share_within_a_seventh() {
    for living in companies() {
        let mut shares: HashMap<Epoch, usize> = HashMap::new();
        owners(&living).into_iter().for_each(|owner| *shares.entry(owner).or_default() += 1);
        let share = TRIGGERS / living.len();
        for epoch in &living {
            let has = shares.get(epoch).copied().unwrap_or(0);
            assert!(has.abs_diff(share) * 100 <= share * 15, "{epoch} of {living:?} has {has} of {share}");
        }
    }
}

#[test]
fn it_does_not_matter_in_which_order_they_are_known() {
    for living in companies() {
        let backwards: Vec<Epoch> = living.iter().rev().copied().collect();
        let twice: Vec<Epoch> = living.iter().chain(&living).copied().collect();
        assert_eq!(owners(&living), owners(&backwards));
        assert_eq!(owners(&living), owners(&twice));
    }
}

#[test]
fn who_joins_takes_some_and_moves_no_others() {
    for living in companies() {
        let new = Epoch(77);
        let joined: Vec<Epoch> = living.iter().copied().chain([new]).collect();
        for (before, after) in owners(&living).into_iter().zip(owners(&joined)) {
            assert!(after == before || after == new, "{before} lost one to {after}");
        }
    }
}

#[test]
fn what_was_of_one_that_is_gone_is_divided_and_no_other_moves() {
    for living in companies() {
        let (gone, others) = (living[0], &living[1..]);
        let mut heirs: HashMap<Epoch, usize> = HashMap::new();
        for (before, after) in owners(&living).into_iter().zip(owners(others)) {
            if before == gone {
                *heirs.entry(after).or_default() += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert_eq!(heirs.len(), others.len(), "each of them inherits: {heirs:?}");
    }
}

#[test]
fn every_release_finds_the_same() {
    let found = |name| owner_of(name, (1..=100).map(Epoch)).map(|owner| owner.0);
    assert_eq!(["inbox", "", "Überwachung", "watch_17"].map(found), [33, 97, 68, 46].map(Some));
}

#[test]
fn one_wants_what_is_its_own_and_says_so_once() {
    let living = [Epoch(1), Epoch(2), Epoch(3)];
    let contested = |is_wanted| -> Vec<Contested> {
        let contested =
            |name: String| Contested { trigger: name.into(), declared_by: living.to_vec(), is_wanted };
        names().map(contested).collect()
    };
    let mine: Vec<Arc<str>> =
        names().filter(|name| owner_of(name, living) == Some(Epoch(2))).map(Arc::from).collect();
    let wanted: Vec<(Arc<str>, bool)> = mine.iter().map(|name| (Arc::clone(name), true)).collect();
    assert_eq!(wishes(Epoch(2), &contested(false)), wanted);
    let given_up = wishes(Epoch(2), &contested(true));
    assert_eq!(given_up.len(), TRIGGERS - mine.len());
    assert!(given_up.iter().all(|(name, is_wanted)| !is_wanted && !mine.contains(name)));
}

#[test]
fn each_cron_is_run_by_one_of_those_who_may_run_it_and_left_to_it_by_the_others() {
    let living = [Epoch(1), Epoch(2), Epoch(3)];
    let crons: Vec<_> = (1..=1000).map(|row| (ScheduleKey(row), living.to_vec())).collect();
    let left = living.map(|epoch| of_others(epoch, &crons));
    for row in (1..=1000).map(ScheduleKey) {
        let many = left.iter().filter(|left| left.contains(&row)).count();
        assert_eq!(many, 2, "cron {row} is left to one by two");
    }
    assert!(of_others(Epoch(9), &crons).is_empty(), "who may not run them leaves none to others");
}
