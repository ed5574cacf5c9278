//! One fire admitted, held and released, with so many unfinished runs beside it.

use std::time::Duration;

use cloaca_core::admit::{Admission, Gate, Overlap};
use cloaca_core::port::ContextHash;
use divan::Bencher;
use uuid::Uuid;

const SCHEDULE: i64 = 1;

fn main() {
    divan::Divan::from_args().min_time(Duration::from_millis(300)).main();
}

fn hash(number: u64) -> ContextHash {
    // As of a digest: every byte differs from one to the next.
    (u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_le_bytes()
}

fn run(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn gate(unfinished: u64) -> Gate {
    let mut gate = Gate::default();
    for number in 0..unfinished {
        gate.hold(SCHEDULE, Some(hash(number)), run(number));
    }
    gate
}

#[divan::bench(args = [0, 1_000, 100_000])]
fn admit_hold_release(bencher: Bencher<'_, '_>, unfinished: u64) {
    let mut gate = gate(unfinished);
    let mut number = unfinished;
    bencher.bench_local(|| {
        number += 1;
        let admission = gate.admit(SCHEDULE, Some(hash(number)), Overlap::Allow);
        assert_eq!(admission, Admission::Run, "its context is new");
        gate.hold(SCHEDULE, Some(hash(number)), run(number));
        gate.release(run(number))
    });
}

#[divan::bench(args = [1_000, 100_000])]
fn refuse_a_duplicate(bencher: Bencher<'_, '_>, unfinished: u64) {
    let gate = gate(unfinished);
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 7919) % unfinished;
        gate.admit(SCHEDULE, Some(hash(number)), Overlap::Allow)
    });
}
