//! Chance, from a seed, so that it can be replayed.
//! Invariant: the same seed and calls give the same bits.

use uuid::Uuid;

use crate::engine::Engine;
use crate::time::Wall;

impl Engine {
    pub(super) fn next_random(&mut self) -> f64 {
        (self.next_random_bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// xorshift64*: jitter needs no better, and a seed replays it.
    pub(super) fn next_random_bits(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn new_id(&mut self, now: Wall) -> Uuid {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.next_random_bits().to_le_bytes());
        random[8..].copy_from_slice(&self.next_random_bits().to_le_bytes()[..2]);
        let millis = u64::try_from(now.0 / 1000).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}
