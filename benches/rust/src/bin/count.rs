//! `count PATH N` goes through a hot path N times, for whoever counts its instructions: benches/guard.py.

use cloaca_benches as paths;
use std::hint::black_box;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("which path");
    let times: u64 = arguments.next().and_then(|text| text.parse().ok()).expect("how often");
    match &*path {
        "wheel" => repeat(times, paths::pop_and_arm(10_000)),
        "wheel-anew" => repeat(times, paths::arm_anew(10_000)),
        "quiet-poll" => repeat(times, paths::quiet_poll(10_000)),
        "gate" => repeat(times, paths::admit_hold_release(1_000)),
        "gate-duplicate" => repeat(times, paths::refuse_a_duplicate(1_000)),
        "digest-5-keys" => repeat(times, paths::parse_and_digest(paths::mixed(5))),
        "digest-100-keys" => repeat(times, paths::parse_and_digest(paths::mixed(100))),
        "engine-run" => repeat(times, paths::engine_run()),
        "store-run" => {
            let store = cloaca_store::open(":memory:", None).expect("memory is there").store;
            repeat(times, paths::start_and_end(store, 1));
        }
        "store-fire" => {
            let store = cloaca_store::open(":memory:", None).expect("memory is there").store;
            repeat(times, paths::fire_and_end(store));
        }
        other => panic!("no path {other}"),
    }
}

fn repeat<T>(times: u64, mut once: impl FnMut() -> T) {
    for _ in 0..times {
        black_box(once());
    }
}
