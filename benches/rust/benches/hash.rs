//! The digest of a context that dedup compares. The contexts are those of benches/python/hashes.py.

use std::time::Duration;

use cloaca_core::context::{hash_json, parse};
use divan::{Bencher, black_box};
use serde_json::{Map, Value, json};

const LARGE_BYTES: usize = 1_000_000;
const TRIGGER: &str = "inbox";

fn main() {
    divan::Divan::from_args().min_time(Duration::from_millis(300)).main();
}

fn mixed(count: usize) -> Map<String, Value> {
    let values = [json!("in/file.csv"), json!(12345), json!(true), json!(0.25), json!(null)];
    (0..count).map(|number| (format!("key{number:05}"), values[number % values.len()].clone())).collect()
}

fn large() -> Map<String, Value> {
    (0..LARGE_BYTES / 103).map(|number| (format!("key{number:05}"), json!("x".repeat(90)))).collect()
}

/// The walk over a parsed context and its digest.
mod hash {
    use super::*;

    #[divan::bench]
    fn keys_5(bencher: Bencher<'_, '_>) {
        hash(bencher, &mixed(5));
    }

    #[divan::bench]
    fn keys_100(bencher: Bencher<'_, '_>) {
        hash(bencher, &mixed(100));
    }

    #[divan::bench]
    fn megabyte(bencher: Bencher<'_, '_>) {
        hash(bencher, &large());
    }

    fn hash(bencher: Bencher<'_, '_>, context: &Map<String, Value>) {
        bencher.bench_local(|| hash_json(TRIGGER, black_box(context)));
    }
}

/// What a fire pays: its context arrives as text.
mod parse_and_hash {
    use super::*;

    #[divan::bench]
    fn keys_5(bencher: Bencher<'_, '_>) {
        parse_and_hash(bencher, mixed(5));
    }

    #[divan::bench]
    fn keys_100(bencher: Bencher<'_, '_>) {
        parse_and_hash(bencher, mixed(100));
    }

    #[divan::bench]
    fn megabyte(bencher: Bencher<'_, '_>) {
        parse_and_hash(bencher, large());
    }

    fn parse_and_hash(bencher: Bencher<'_, '_>, context: Map<String, Value>) {
        let text = Value::Object(context).to_string();
        bencher.bench_local(|| {
            let context = parse(black_box(&text)).expect("it is a JSON object");
            hash_json(TRIGGER, &context)
        });
    }
}
