//! What grows with what is kept: crons read anew, a look at the clock beside them, a look for what is too old.

use divan::Bencher;

fn main() {
    divan::main();
}

#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 5, sample_size = 1)]
fn load_crons(bencher: Bencher<'_, '_>, crons: usize) {
    let all = cloaca_benches::crons(crons);
    let mut load = cloaca_benches::load_crons();
    bencher.with_inputs(|| all.clone()).bench_local_values(|all| load(all));
}

#[divan::bench(args = [1_000, 10_000, 100_000])]
fn clock_beside_crons(bencher: Bencher<'_, '_>, crons: usize) {
    bencher.bench_local(cloaca_benches::clock_beside_crons(crons));
}

#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 30, sample_size = 1)]
fn prune_nothing(bencher: Bencher<'_, '_>, runs: usize) {
    let folder = tempfile::tempdir_in(if cfg!(unix) { "/var/tmp" } else { "." }).expect("a folder");
    let url = folder.path().join("runs.db").display().to_string();
    let store = cloaca_store::open(&url, Some("normal")).expect("the folder is there").store;
    bencher.bench_local(cloaca_benches::prune_nothing(store, runs));
}
