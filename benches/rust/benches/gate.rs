//! The gate with so many unfinished runs.

use std::time::Duration;

use divan::Bencher;

fn main() {
    divan::Divan::from_args().min_time(Duration::from_millis(300)).main();
}

#[divan::bench(args = [0, 1_000, 100_000])]
fn admit_hold_release(bencher: Bencher<'_, '_>, unfinished: u64) {
    bencher.bench_local(cloaca_benches::admit_hold_release(unfinished));
}

#[divan::bench(args = [1_000, 100_000])]
fn refuse_a_duplicate(bencher: Bencher<'_, '_>, unfinished: u64) {
    bencher.bench_local(cloaca_benches::refuse_a_duplicate(unfinished));
}
