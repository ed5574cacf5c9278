//! Commits of so many changes at once to a file, `full`: what group commit saves. A run is two changes, its start and its end.

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::Divan::from_args().min_time(Duration::from_millis(300)).main();
}

/// The runs of one sample: started by one commit, ended by another.
#[divan::bench(args = [1, 100, 1_000], sample_count = 30, sample_size = 1)]
fn start_and_end(bencher: Bencher<'_, '_>, runs: usize) {
    let folder = tempfile::tempdir_in(if cfg!(unix) { "/var/tmp" } else { "." }).expect("a folder");
    let url = folder.path().join("runs.db").display().to_string();
    let store = cloaca_store::open(&url, Some("full")).expect("the folder is there").store;
    bencher.counter(ItemsCount::new(runs)).bench_local(cloaca_benches::start_and_end(store, runs));
}
