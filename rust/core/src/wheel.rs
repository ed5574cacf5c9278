//! Decides which timer is due next: a hierarchical timer wheel (Varghese and Lauck 1987, scheme 7). Reads no clock; never
//! hands out a timer early. Invariant: every armed timer is in exactly one slot, the one that its tick and the cursor name.
//!
//! Time is cut into ticks, and a timer belongs to the first tick boundary that isn't before its due time. A tick is a number of
//! six digits to the base of 2,048, so there are six levels of as many slots and no time is too far away: a timer lies on the
//! level of the highest digit in which its tick differs from the cursor's, in the slot that this digit names. Hence every slot
//! of a level comes before any of the levels above it, a slot of the lowest level is one tick, and the first occupied slot is
//! found in a bitmap, however large the gap. When the cursor reaches a slot of a higher level, its timers move down.
//!
//! While a slot moves down, what is armed for its range queues behind what still lies in it. So a move may stop half-way and
//! timers of one tick still come in the order they were armed.

use crate::time::Mono;

/// The bits of a tick that one level decides. Each move down is a cache miss when there are many timers, so the levels are wide:
/// with ticks of 50 µs a minute is two of them.
const LEVEL_BITS: u32 = 11;
/// Slots of one level, and the base of a digit.
const SLOTS: usize = 1 << LEVEL_BITS;
/// Enough levels for every tick there can be.
const LEVELS: usize = u64::BITS.div_ceil(LEVEL_BITS) as usize;
/// Words of one level's bitmap.
const WORDS: usize = SLOTS / u64::BITS as usize;
/// Timers that one [`Wheel::pop`] moves down at most, so that a slot with a million of them delays nobody for long.
const MOVES_MAX: usize = 256;
/// Timers that [`Wheel::next_due`] looks at to name the exact tick of a slot above the lowest level: few are worth it to save a
/// wake-up, many are going to need theirs anyway.
const LOOKS_MAX: usize = 16;
/// From here on a link names no timer but the place whose list ends there. So a timer needs 16 bytes, and four share a cache
/// line.
const END: u32 = 1 << 31;
/// The links of a timer that isn't armed.
const UNARMED: u32 = u32::MAX;

/// A set of timers by due time.
///
/// Timers are numbers chosen by the caller, small and dense because memory goes with the largest: 16 bytes each.
///
/// ```
/// use cloaca_core::{time::Mono, wheel::Wheel};
///
/// let mut wheel = Wheel::new(50_000);
/// wheel.arm(7, Mono(120_000));
/// assert_eq!(wheel.next_due(), Some(Mono(150_000)));
/// assert_eq!(wheel.pop(Mono(149_999)), None);
/// assert_eq!(wheel.pop(Mono(150_000)), Some((7, Mono(120_000))));
/// ```
#[derive(Debug)]
pub struct Wheel {
    tick_ns: u64,
    /// The tick that the wheel has reached. None armed is due before it, but for those armed too late.
    cursor: u64,
    /// The place that is half moved down; the cursor is at its first tick.
    moving: Option<u16>,
    len: usize,
    timers: Vec<Timer>,
    lists: Vec<List>,
    occupied: [[u64; WORDS]; LEVELS],
    /// One bit a level that has any timer.
    levels: u8,
}

#[derive(Debug, Clone, Copy)]
struct Timer {
    due: Mono,
    next: u32,
    prev: u32,
}

#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

impl Wheel {
    /// An empty wheel with ticks of `tick_ns` nanoseconds, which is also the most that a timer comes late.
    ///
    /// # Panics
    ///
    /// If `tick_ns` is 0.
    pub fn new(tick_ns: u64) -> Self {
        assert!(tick_ns > 0, "a tick has a length");
        Self {
            tick_ns,
            cursor: 0,
            moving: None,
            len: 0,
            timers: Vec::new(),
            lists: (END..END + (LEVELS * SLOTS) as u32).map(|end| List { head: end, tail: end }).collect(),
            occupied: [[0; WORDS]; LEVELS],
            levels: 0,
        }
    }

    /// How long a tick is, in nanoseconds.
    pub fn tick_ns(&self) -> u64 {
        self.tick_ns
    }

    /// Arms timer `id` for `due`; if it is armed already, this is its new due time and place in the order. In constant time,
    /// and without allocation once a timer as large as `id` was armed.
    ///
    /// A timer armed for a tick that the wheel has passed is due at once, after those of the present tick.
    ///
    /// # Panics
    ///
    /// If `id` is 2^31 or more.
    pub fn arm(&mut self, id: u32, due: Mono) {
        assert!(id < END, "a timer's number is below 2^31");
        if id as usize >= self.timers.len() {
            let unarmed = Timer { due: Mono(0), next: UNARMED, prev: UNARMED };
            self.timers.resize(id as usize + 1, unarmed);
        }
        self.cancel(id);
        self.timers[id as usize].due = due;
        let place = self.place_of(due);
        // A level below the one on the move is inside the moving slot, and those who wait there came first.
        let place = self.moving.filter(|&moving| level_of(place) < level_of(moving)).unwrap_or(place);
        self.link(id, place);
        self.len += 1;
    }

    /// Disarms timer `id`. Nothing happens if it isn't armed.
    pub fn cancel(&mut self, id: u32) {
        if self.is_armed(id) {
            self.unlink(id);
            self.len -= 1;
        }
    }

    /// When timer `id` is due; none if it is not armed.
    pub fn due(&self, id: u32) -> Option<Mono> {
        self.is_armed(id).then(|| self.timers[id as usize].due)
    }

    /// Whether timer `id` is armed.
    pub fn is_armed(&self, id: u32) -> bool {
        self.timers.get(id as usize).is_some_and(|timer| timer.next != UNARMED)
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Disarms a timer that is due at `now` and returns it with the due time it was armed for. Timers come in the order of
    /// their ticks, those of one tick in the order they were armed; never early, and at most a tick late if asked in time.
    ///
    /// None if no timer is due, or if this call has moved so many that it stops half-way. Then [`Wheel::next_due`] isn't after
    /// `now`, so that one who sleeps until then calls again at once.
    pub fn pop(&mut self, now: Mono) -> Option<(u32, Mono)> {
        let now_tick = self.ticks_passed(now);
        let mut moves = 0;
        while let Some((place, tick)) = self.first().filter(|&(_, tick)| tick <= now_tick) {
            self.cursor = tick;
            if level_of(place) == 0 {
                let id = self.lists[usize::from(place)].head;
                self.cancel(id);
                return Some((id, self.timers[id as usize].due));
            }
            if moves == MOVES_MAX {
                return None;
            }
            moves += self.move_down(place, MOVES_MAX - moves);
        }
        // No occupied slot begins up to now, so that every timer keeps its place.
        self.cursor = self.cursor.max(now_tick);
        None
    }

    /// When to call [`Wheel::pop`] again; none if no timer is armed. It is never later than the end of the earliest timer's tick,
    /// and it is exactly that if few timers lie near it. Else it may be earlier: `pop` then finds none but comes nearer, so
    /// that a sleeper wakes a few times for nothing and never for ever.
    pub fn next_due(&self) -> Option<Mono> {
        let (place, start) = self.first()?;
        let is_whole = level_of(place) == 0 || self.moving.is_some();
        let tick = if is_whole { start } else { self.earliest_in(place).unwrap_or(start) };
        // The end of time ends the last tick, too.
        Some(Mono(tick.saturating_mul(self.tick_ns)))
    }

    /// The first occupied place and its first tick.
    fn first(&self) -> Option<(u16, u64)> {
        if let Some(place) = self.moving {
            return Some((place, self.cursor));
        }
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let shift = level * LEVEL_BITS;
        let reached = (self.cursor >> shift) as usize % SLOTS / u64::BITS as usize;
        let words = &self.occupied[level as usize];
        let word =
            (reached..WORDS).find(|&word| words[word] != 0).expect("no slot before the cursor has a timer");
        let slot = word as u32 * u64::BITS + words[word].trailing_zeros();
        let above = self.cursor >> shift >> LEVEL_BITS << LEVEL_BITS;
        Some(((level << LEVEL_BITS | slot) as u16, (above | u64::from(slot)) << shift))
    }

    /// The earliest tick in that place; none if it holds too many to look.
    fn earliest_in(&self, place: u16) -> Option<u64> {
        let mut earliest = u64::MAX;
        let mut id = self.lists[usize::from(place)].head;
        for _ in 0..LOOKS_MAX {
            let timer = &self.timers[id as usize];
            earliest = earliest.min(self.tick_of(timer.due));
            id = timer.next;
            if id >= END {
                return Some(earliest);
            }
        }
        None
    }

    /// Moves up to `moves_max` timers from there to the levels below, and returns how many.
    fn move_down(&mut self, place: u16, moves_max: usize) -> usize {
        self.moving = Some(place);
        let mut moves = 0;
        while self.moving.is_some() && moves < moves_max {
            let id = self.lists[usize::from(place)].head;
            self.unlink(id);
            self.link(id, self.place_of(self.timers[id as usize].due));
            moves += 1;
        }
        moves
    }

    /// The place that belongs to `due`, seen from the cursor.
    fn place_of(&self, due: Mono) -> u16 {
        let tick = self.tick_of(due).max(self.cursor);
        let differing = u64::BITS - (tick ^ self.cursor).leading_zeros();
        let level = differing.saturating_sub(1) / LEVEL_BITS;
        let slot = (tick >> (level * LEVEL_BITS)) as u32 % SLOTS as u32;
        (level << LEVEL_BITS | slot) as u16
    }

    /// Round up: a timer that came early would poll before its source may have changed.
    fn tick_of(&self, due: Mono) -> u64 {
        due.0.div_ceil(self.tick_ns)
    }

    /// How many ticks have passed at `now`. The end of time counts for the end of a tick, or the last timers would never come.
    fn ticks_passed(&self, now: Mono) -> u64 {
        if now.0 == u64::MAX { self.tick_of(now) } else { now.0 / self.tick_ns }
    }

    /// Appends an unlinked timer to that place.
    fn link(&mut self, id: u32, place: u16) {
        let list = &mut self.lists[usize::from(place)];
        let prev = list.tail;
        list.tail = id;
        if prev < END {
            self.timers[prev as usize].next = id;
        } else {
            list.head = id;
            let (level, word, bit) = bit_of(place);
            self.occupied[level][word] |= bit;
            self.levels |= 1 << level;
        }
        let timer = &mut self.timers[id as usize];
        (timer.prev, timer.next) = (prev, END + u32::from(place));
    }

    /// Takes a linked timer out of its place.
    fn unlink(&mut self, id: u32) {
        let timer = &mut self.timers[id as usize];
        let (prev, next) = (timer.prev, timer.next);
        (timer.prev, timer.next) = (UNARMED, UNARMED);
        if prev < END {
            self.timers[prev as usize].next = next;
        } else {
            self.lists[(prev - END) as usize].head = next;
        }
        if next < END {
            self.timers[next as usize].prev = prev;
        } else {
            self.lists[(next - END) as usize].tail = prev;
        }
        if prev >= END && next >= END {
            self.vacate((next - END) as u16);
        }
    }

    /// Notes that the last timer has left that place.
    fn vacate(&mut self, place: u16) {
        let (level, word, bit) = bit_of(place);
        self.occupied[level][word] &= !bit;
        if self.occupied[level] == [0; WORDS] {
            self.levels &= !(1 << level);
        }
        if self.moving == Some(place) {
            self.moving = None;
        }
    }
}

/// The level of a place.
fn level_of(place: u16) -> usize {
    usize::from(place) / SLOTS
}

/// Where a place has its bit: its level, the word there, and the bit in it.
fn bit_of(place: u16) -> (usize, usize, u64) {
    let slot = usize::from(place) % SLOTS;
    (level_of(place), slot / u64::BITS as usize, 1 << (slot % u64::BITS as usize))
}
