//! The engine in a world that goes wrong: thousands of seeds, each a few processes on one store with slow commits, passing faults,
//! crashes between any two steps, hanging bodies, late answers and impatient users; and the promises that must hold all the same.
//!
//! `cargo test -p cloaca-core --test simulation` plays 2,000 seeds, `make simulate SEEDS=100000` as many as it is told. A seed that
//! fails prints the command that plays it again and tells what happens. `make mutants` breaks the engine in one place after
//! another, as listed in `tests/mutants.txt`, and sees that the simulation notices.

#[path = "simulation/family.rs"]
mod family;
#[path = "simulation/polls.rs"]
mod polls;
#[path = "simulation/process.rs"]
mod process;
#[path = "simulation/program.rs"]
mod program;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/scenario.rs"]
mod scenario;
#[path = "simulation/seats.rs"]
mod seats;
#[path = "simulation/store.rs"]
mod store;
#[path = "simulation/witness.rs"]
mod witness;
#[path = "simulation/work.rs"]
mod work;
#[path = "simulation/world.rs"]
mod world;
#[path = "simulation/writer.rs"]
mod writer;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use world::World;

const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Bodies that began, bodies that ran on although they were given up, runs that were fired, places of triggers that were used again, triggers
/// that were withdrawn, children, calls of children that an earlier attempt had made, offers, new runs that were left to whoever has room, and runs that were given back.
fn play(seed: u64, tells: bool) -> [u64; 10] {
    let mut world = World::new(seed, tells);
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    if let Err(panic) = played {
        eprintln!(
            "seed {seed} fails; SEED={seed} cargo test -p cloaca-core --test simulation plays it again"
        );
        resume_unwind(panic);
    }
    let (witness, store) = (&world.witness, world.store.state());
    [
        witness.bodies,
        witness.overdue,
        witness.fires,
        world.places_reused,
        world.withdrawals,
        witness.children,
        witness.called_again,
        witness.offers,
        store.left_to_others,
        store.given_back,
    ]
}

#[test]
fn the_promises_hold_whatever_goes_wrong() {
    if let Some(seed) = number("SEED") {
        play(seed, true);
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let has_failed = AtomicBool::new(false);
    let counts = [const { AtomicU64::new(0) }; 10];
    let play_on = || {
        while !has_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let played = catch_unwind(|| play(seed, false));
            let seen = played.unwrap_or_else(|panic| {
                has_failed.store(true, Ordering::Relaxed);
                resume_unwind(panic)
            });
            for (count, seen) in counts.iter().zip(seen) {
                count.fetch_add(seen, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(seeds as usize);
        for _ in 0..threads {
            scope.spawn(play_on);
        }
    });
    let [bodies, overdue, fires, reused, withdrawn, children, again, offers, left, given_back] =
        counts.map(AtomicU64::into_inner);
    println!(
        "{seeds} seeds, {fires} fired runs, {bodies} bodies, {overdue} of them overdue, {reused} places used again, {withdrawn} triggers withdrawn, {children} children, {again} of them called again, {offers} offers, {left} left to others, {given_back} given back"
    );
    assert!(
        bodies > seeds
            && overdue * 10 > seeds
            && fires > seeds
            && reused * 10 > seeds
            && withdrawn * 10 > seeds
            && children > seeds
            && again * 10 > seeds
            && offers > seeds
            && left > seeds
            && given_back * 10 > seeds,
        "a world in which nothing happens proves nothing"
    );
}
