//! What is gathered for whoever watches from outside: how long things took, and by whose names.
//! Invariant: counts only grow, so that nothing is lost between two who ask, and those of several runners add up.

use std::collections::HashMap;
use std::hash::Hash;

/// So many names of a kind are told apart; all others are counted together.
pub const NAMES_MAX: usize = 100;

/// What the buckets end with, in microseconds; what takes longer than the last is told by the count alone.
pub const BOUNDS_US: [u64; 19] = [
    SHORT_US,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
];

/// What takes no longer is in the first bucket.
pub const SHORT_US: u64 = 100;

/// How long things took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    buckets: [u64; BOUNDS_US.len()],
    /// So many there were.
    pub count: u64,
    /// So long they took together, in microseconds.
    pub sum_us: u64,
}

impl Durations {
    /// Adds one.
    pub fn add(&mut self, us: u64) {
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        if let Some(bucket) = BOUNDS_US.iter().position(|&bound| us <= bound) {
            self.buckets[bucket] += 1;
        }
    }

    /// The same with all that were short enough for the first bucket, which who gathers often need not add: so many there were in all,
    /// and so long they took.
    pub fn with_short(&self, count: u64, sum_us: u64) -> Self {
        let mut whole = *self;
        whole.buckets[0] += count.saturating_sub(self.count);
        (whole.count, whole.sum_us) = (count, sum_us);
        whole
    }

    /// So many took no longer than each of [`BOUNDS_US`].
    pub fn cumulative(&self) -> impl Iterator<Item = u64> + '_ {
        self.buckets.iter().scan(0, |sum, many| {
            *sum += many;
            Some(*sum)
        })
    }
}

/// Values by the names of those that came first. A series never moves from one name to another, or it would seem to begin anew.
#[derive(Debug, Clone)]
pub struct Named<K, V> {
    places: HashMap<K, u32>,
    values: Vec<V>,
    names_max: usize,
    /// Of all others.
    pub other: V,
}

/// Where a name's value is; the same for as long as there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl<K: Eq + Hash + Clone, V: Default> Named<K, V> {
    /// Empty.
    pub fn new(names_max: usize) -> Self {
        Self { places: HashMap::new(), values: Vec::new(), names_max, other: V::default() }
    }

    /// Where a name's value is.
    pub fn place(&mut self, name: &K) -> Place {
        if let Some(&place) = self.places.get(name) {
            return Place(place);
        }
        let place = u32::try_from(self.values.len()).expect("names are bounded");
        if self.is_full() {
            return Place(place);
        }
        self.places.insert(name.clone(), place);
        self.values.push(V::default());
        Place(place)
    }

    /// What is there.
    pub fn at(&mut self, place: Place) -> &mut V {
        self.values.get_mut(place.0 as usize).unwrap_or(&mut self.other)
    }

    /// What is gathered of a name.
    pub fn of(&mut self, name: &K) -> &mut V {
        let place = self.place(name);
        self.at(place)
    }

    /// What is told apart.
    pub fn known(&self) -> impl Iterator<Item = (&K, &V)> {
        self.places.iter().map(|(name, &place)| (name, &self.values[place as usize]))
    }

    /// Whether anything more is counted together.
    pub fn is_full(&self) -> bool {
        self.values.len() >= self.names_max
    }
}

/// Where the counts of one declaration of a workflow are, looked up once: to find them by their names would cost each run more than to count.
#[derive(Debug)]
pub struct Slots {
    /// Of its runs.
    pub run: Place,
    /// Of its tasks, by their places in it.
    pub tasks: Box<[Place]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_first_bucket_that_holds_it_and_the_longest_in_none() {
        let mut took = Durations::default();
        [100, 101, 250, u64::MAX / 4].into_iter().for_each(|us| took.add(us));
        let told: Vec<u64> = took.cumulative().collect();
        assert_eq!((told[0], told[1], told[18]), (1, 3, 3));
        assert_eq!((took.count, took.sum_us), (4, 451 + u64::MAX / 4));
    }

    #[test]
    fn short_ones_that_were_only_counted_are_in_the_first_bucket() {
        let mut long = Durations::default();
        long.add(400);
        let whole = long.with_short(10, 900);
        let told: Vec<u64> = whole.cumulative().collect();
        assert_eq!((told[0], told[1], told[2], whole.count, whole.sum_us), (9, 9, 10, 10, 900));
    }

    #[test]
    fn names_beyond_the_bound_are_counted_together_and_none_moves() {
        let mut named: Named<usize, u64> = Named::new(3);
        for round in 1..=2 {
            (0..10).for_each(|name| *named.of(&name) += 1);
            assert_eq!(named.other, 7 * round);
        }
        let mut known: Vec<(usize, u64)> = named.known().map(|(&name, &many)| (name, many)).collect();
        known.sort_unstable();
        assert_eq!(known, [(0, 2), (1, 2), (2, 2)]);
    }
}
