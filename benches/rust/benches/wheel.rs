//! The timer wheel with so many timers.

use std::time::Duration;

use divan::Bencher;

fn main() {
    divan::Divan::from_args().min_time(Duration::from_millis(300)).main();
}

#[divan::bench(args = [1_000, 10_000, 100_000, 1_000_000])]
fn pop_and_arm(bencher: Bencher<'_, '_>, timers: u64) {
    bencher.bench_local(cloaca_benches::pop_and_arm(timers));
}

#[divan::bench(args = [10_000, 1_000_000])]
fn arm_anew(bencher: Bencher<'_, '_>, timers: u64) {
    bencher.bench_local(cloaca_benches::arm_anew(timers));
}
