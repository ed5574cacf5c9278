//! Which of several runners polls a trigger that they all declare. Pure: reads no clock, asks nobody.
//! Invariant: all who know the same runners name the same one. One that joins takes triggers from others and moves none between them; those
//! of one that is gone are divided among the others, and no other trigger moves.

use std::sync::Arc;

use crate::key::{Epoch, ScheduleKey};

/// A trigger that this runner declares and another one polls, in the same version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contested {
    /// Its name.
    pub trigger: Arc<str>,
    /// The living runners that declare that version, whoever of them polls it.
    pub declared_by: Vec<Epoch>,
    /// Whether this runner has said that it is its own by right.
    pub is_wanted: bool,
}

/// Whose a trigger is by right, of those runners: the one that draws the highest number for it. None if there are none.
pub fn owner_of(trigger: &str, living: impl IntoIterator<Item = Epoch>) -> Option<Epoch> {
    let name = hash(trigger);
    living.into_iter().max_by_key(|&epoch| (draw(name, epoch), epoch))
}

/// Which of these crons, each with the living runners that may run it, others than `epoch` run by right.
pub fn of_others(epoch: Epoch, crons: &[(ScheduleKey, Vec<Epoch>)]) -> Vec<ScheduleKey> {
    let is_others = |(row, living): &&(ScheduleKey, Vec<Epoch>)| {
        let owner = owner_of(&format!("cron {row}"), living.iter().copied());
        living.contains(&epoch) && owner != Some(epoch)
    };
    crons.iter().filter(is_others).map(|(row, _)| *row).collect()
}

/// Of which of these triggers `epoch` is to say that it wants them, or does no more.
pub fn wishes(epoch: Epoch, contested: &[Contested]) -> Vec<(Arc<str>, bool)> {
    let wish = |contested: &Contested| {
        let is_ours = owner_of(&contested.trigger, contested.declared_by.iter().copied()) == Some(epoch);
        (is_ours != contested.is_wanted).then(|| (Arc::clone(&contested.trigger), is_ours))
    };
    contested.iter().filter_map(wish).collect()
}

/// FNV-1a. Every release has to name the same runner, so it is written out here.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// The finish of splitmix64: epochs that follow one another draw numbers that have nothing to do with each other.
fn draw(name: u64, epoch: Epoch) -> u64 {
    let mut mixed = name ^ epoch.0.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for _ in 0..2 {
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
    }
    mixed
}
