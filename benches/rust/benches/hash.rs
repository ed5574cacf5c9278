//! The digest of a context that dedup compares. The contexts are those of benches/python/hashes.py.

use std::time::Duration;

use divan::Bencher;
use serde_json::{Map, Value, json};

const LARGE_BYTES: usize = 1_000_000;

fn main() {
    divan::Divan::from_args().min_time(Duration::from_millis(300)).main();
}

fn large() -> Map<String, Value> {
    (0..LARGE_BYTES / 103).map(|number| (format!("key{number:05}"), json!("x".repeat(90)))).collect()
}

/// The walk over a parsed context and its digest.
mod hash {
    use super::*;

    #[divan::bench]
    fn keys_5(bencher: Bencher<'_, '_>) {
        bencher.bench_local(cloaca_benches::digest(cloaca_benches::mixed(5)));
    }

    #[divan::bench]
    fn keys_100(bencher: Bencher<'_, '_>) {
        bencher.bench_local(cloaca_benches::digest(cloaca_benches::mixed(100)));
    }

    #[divan::bench]
    fn megabyte(bencher: Bencher<'_, '_>) {
        bencher.bench_local(cloaca_benches::digest(large()));
    }
}

/// What a fire pays: its context arrives as text.
mod parse_and_hash {
    use super::*;

    #[divan::bench]
    fn keys_5(bencher: Bencher<'_, '_>) {
        bencher.bench_local(cloaca_benches::parse_and_digest(cloaca_benches::mixed(5)));
    }

    #[divan::bench]
    fn keys_100(bencher: Bencher<'_, '_>) {
        bencher.bench_local(cloaca_benches::parse_and_digest(cloaca_benches::mixed(100)));
    }

    #[divan::bench]
    fn megabyte(bencher: Bencher<'_, '_>) {
        bencher.bench_local(cloaca_benches::parse_and_digest(large()));
    }
}
