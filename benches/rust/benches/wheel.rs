//! One timer that comes due and is armed again, with so many beside it: what polling pays for its order.

use std::time::Duration;

use cloaca_core::time::Mono;
use cloaca_core::wheel::Wheel;
use divan::Bencher;

const TICK_NS: u64 = 50_000;
const INTERVAL_NS: u64 = 100_000_000;

fn main() {
    divan::Divan::from_args().min_time(Duration::from_millis(300)).main();
}

/// Triggers of one interval, spread over it: the clock goes from one due time to the next.
#[divan::bench(args = [1_000, 10_000, 100_000, 1_000_000])]
fn pop_and_arm(bencher: Bencher<'_, '_>, timers: u64) {
    let mut wheel = Wheel::new(TICK_NS);
    for id in 0..timers {
        wheel.arm(id as u32, Mono(INTERVAL_NS + id * INTERVAL_NS / timers));
    }
    let mut now = Mono(INTERVAL_NS);
    bencher.bench_local(|| {
        loop {
            if let Some((id, due)) = wheel.pop(now) {
                wheel.arm(id, Mono(due.0 + INTERVAL_NS));
                return id;
            }
            now = wheel.next_due().expect("timers are armed").max(now);
        }
    });
}

/// A timer that is moved before it is due, as a time-out mostly is.
#[divan::bench(args = [10_000, 1_000_000])]
fn arm_anew(bencher: Bencher<'_, '_>, timers: u64) {
    let mut wheel = Wheel::new(TICK_NS);
    for id in 0..timers {
        wheel.arm(id as u32, Mono(INTERVAL_NS + id));
    }
    let mut id = 0;
    bencher.bench_local(|| {
        id = (id + 7919) % timers;
        wheel.arm(id as u32, Mono(INTERVAL_NS + id * 13));
    });
}
