//! The wheel against an obvious model: what is armed, and which ticks each timer may come in.

use std::collections::{BTreeMap, HashMap};

use cloaca_core::time::Mono;
use cloaca_core::wheel::Wheel;
use proptest::prelude::*;

/// The worst number of calls without a timer in a row, while every armed timer fits in a few slots: two for each level.
const EMPTY_CALLS_MAX: usize = 32;

#[derive(Debug, Clone)]
enum Step {
    /// Arm a timer that long after now, or before it.
    Arm(u32, i128),
    /// Arm a timer for a time of its own.
    ArmAt(u32, u64),
    Cancel(u32),
    /// Pass that long and pop this many at most.
    Advance(u64, usize),
    /// Go to the moment that the wheel names and pop this many at most.
    Sleep(usize),
}

/// One armed timer as the model knows it. The tick it comes in is certain unless it was armed too late: then it may come in any
/// from its own to the latest that the wheel was asked for.
#[derive(Debug, Clone, Copy)]
struct Armed {
    due: u64,
    tick_min: u64,
    tick_max: u64,
    serial: u64,
}

struct Checked {
    wheel: Wheel,
    tick_ns: u64,
    now: u64,
    armed: HashMap<u32, Armed>,
    /// By the latest tick a timer may come in, then by the order armed.
    by_tick_max: BTreeMap<(u64, u64), u32>,
    serial: u64,
}

impl Checked {
    fn new(tick_ns: u64) -> Self {
        Self {
            wheel: Wheel::new(tick_ns),
            tick_ns,
            now: 0,
            armed: HashMap::new(),
            by_tick_max: BTreeMap::new(),
            serial: 0,
        }
    }

    fn passed(&self) -> u64 {
        if self.now == u64::MAX { self.now.div_ceil(self.tick_ns) } else { self.now / self.tick_ns }
    }

    fn arm(&mut self, id: u32, due: u64) {
        self.forget(id);
        self.wheel.arm(id, Mono(due));
        self.serial += 1;
        let tick_min = due.div_ceil(self.tick_ns);
        let armed = Armed { due, tick_min, tick_max: tick_min.max(self.passed()), serial: self.serial };
        self.armed.insert(id, armed);
        self.by_tick_max.insert((armed.tick_max, armed.serial), id);
        assert!(self.wheel.is_armed(id));
    }

    fn forget(&mut self, id: u32) -> Option<Armed> {
        let armed = self.armed.remove(&id)?;
        self.by_tick_max.remove(&(armed.tick_max, armed.serial));
        Some(armed)
    }

    fn cancel(&mut self, id: u32) {
        self.forget(id);
        self.wheel.cancel(id);
        assert!(!self.wheel.is_armed(id));
    }

    /// Pops until nothing more is due or `pops_max` timers came; returns how many.
    fn pop(&mut self, pops_max: usize) -> usize {
        for pops in 0..pops_max {
            if !self.pop_one() {
                return pops;
            }
            self.check_next_due();
        }
        pops_max
    }

    fn pop_one(&mut self) -> bool {
        let mut empty_calls = 0;
        loop {
            if let Some((id, due)) = self.wheel.pop(Mono(self.now)) {
                self.check_popped(id, due.0);
                return true;
            }
            // No more to move: what is left is due later.
            if self.wheel.next_due().is_none_or(|next| next.0 > self.now) {
                let first = self.by_tick_max.keys().next();
                assert!(first.is_none_or(|&(tick, _)| tick > self.passed()), "a timer is late: {first:?}");
                return false;
            }
            empty_calls += 1;
            assert!(empty_calls < EMPTY_CALLS_MAX, "pop never gets anywhere");
        }
    }

    fn check_popped(&mut self, id: u32, due: u64) {
        let armed = self.forget(id).expect("only an armed timer is popped");
        assert!(!self.wheel.is_armed(id));
        assert_eq!(armed.due, due, "the due time is the one armed");
        assert!(due <= self.now, "{due} came early, at {}", self.now);
        let Some((&(tick, serial), _)) = self.by_tick_max.first_key_value() else { return };
        assert!(armed.tick_min <= tick, "tick {} came before tick {tick}", armed.tick_min);
        let is_certain = armed.tick_min == armed.tick_max;
        let rival = &self.armed[&self.by_tick_max[&(tick, serial)]];
        if is_certain && rival.tick_min == rival.tick_max && tick == armed.tick_min {
            assert!(armed.serial < serial, "two of tick {tick} came in the wrong order");
        }
    }

    fn check_next_due(&self) {
        assert_eq!(self.wheel.len(), self.armed.len());
        assert_eq!(self.wheel.is_empty(), self.armed.is_empty());
        let Some(next) = self.wheel.next_due() else {
            assert!(self.armed.is_empty(), "a wheel with timers names no time");
            return;
        };
        let (&(tick, _), _) = self.by_tick_max.first_key_value().expect("an empty wheel names no time");
        assert!(next.0 <= tick.saturating_mul(self.tick_ns), "sleeps past tick {tick}: until {}", next.0);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Arm(id, span) => {
                self.arm(id, (i128::from(self.now) + span).clamp(0, i128::from(u64::MAX)) as u64);
            }
            Step::ArmAt(id, due) => self.arm(id, due),
            Step::Cancel(id) => self.cancel(id),
            Step::Advance(span, pops_max) => {
                self.now = self.now.saturating_add(span);
                self.pop(pops_max);
            }
            Step::Sleep(pops_max) => {
                if let Some(next) = self.wheel.next_due() {
                    self.now = self.now.max(next.0);
                    self.pop(pops_max);
                }
            }
        }
        self.check_next_due();
    }

    /// Sleeps from one named moment to the next until all timers came, each in its own tick.
    fn drain(&mut self) {
        self.pop(usize::MAX);
        let mut empty_calls = 0;
        while let Some(next) = self.wheel.next_due() {
            assert!(next.0 > self.now, "the wheel names a moment that is over");
            self.now = next.0;
            let (&(tick, _), _) = self.by_tick_max.first_key_value().expect("an empty wheel names no time");
            let on_time = tick.saturating_mul(self.tick_ns);
            let pops = self.pop(usize::MAX);
            assert!(pops == 0 || self.now == on_time, "popped at {} what was due at {on_time}", self.now);
            empty_calls = if pops == 0 { empty_calls + 1 } else { 0 };
            assert!(empty_calls < EMPTY_CALLS_MAX, "a sleeper wakes for nothing, for ever");
        }
        assert!(self.armed.is_empty(), "lost: {:?}", self.armed);
    }
}

/// Spans of every size, also those next to a power of two, where the levels meet.
fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..1_000u64,
        4 => (0..64u32, any::<u64>()).prop_map(|(bits, random)| random >> bits),
        2 => (0..64u32, 0..3u64).prop_map(|(bits, more)| (1u64 << bits).saturating_add(more).saturating_sub(1)),
        1 => Just(u64::MAX),
    ]
}

fn tick_ns() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(7), Just(50_000), Just(1 << 20), 1..u64::MAX]
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..48u32;
    let few = prop_oneof![0..4usize, Just(usize::MAX)];
    prop_oneof![
        6 => (id.clone(), span()).prop_map(|(id, span)| Step::Arm(id, i128::from(span))),
        2 => (id.clone(), 0..40_000u64).prop_map(|(id, span)| Step::Arm(id, i128::from(span))),
        1 => (id.clone(), span()).prop_map(|(id, span)| Step::Arm(id, -i128::from(span))),
        1 => (id.clone(), any::<u64>()).prop_map(|(id, due)| Step::ArmAt(id, due)),
        2 => id.prop_map(Step::Cancel),
        3 => (0..5_000u64, few.clone()).prop_map(|(span, pops)| Step::Advance(span, pops)),
        2 => (0..60u32, any::<u64>(), few.clone()).prop_map(|(bits, random, pops)| Step::Advance(random >> 4 >> bits, pops)),
        3 => few.prop_map(Step::Sleep),
    ]
}

/// Steps over more timers than one call moves, so that slots are found half moved.
fn crowd_step() -> impl Strategy<Value = Step> {
    let id = 0..2_000u32;
    prop_oneof![
        6 => (id.clone(), 0..3_000u64).prop_map(|(id, span)| Step::Arm(id, i128::from(span))),
        2 => (id.clone(), 0..600u64).prop_map(|(id, span)| Step::Arm(id, -i128::from(span))),
        2 => id.prop_map(Step::Cancel),
        4 => (0..200u64, 0..4usize).prop_map(|(span, pops)| Step::Advance(span, pops)),
        1 => Just(Step::Sleep(2)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn timers_come_once_in_order_and_on_time(tick_ns in tick_ns(), steps in prop::collection::vec(step(), 1..200)) {
        let mut checked = Checked::new(tick_ns);
        for step in &steps {
            checked.step(step);
        }
        checked.drain();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slot_found_half_moved_keeps_the_order(
        dues in prop::collection::vec(8_192..10_240u64, 2_000),
        steps in prop::collection::vec((crowd_step(), any::<bool>()), 1..400),
    ) {
        let mut checked = Checked::new(1);
        for (id, due) in dues.into_iter().enumerate() {
            checked.arm(id as u32, due);
        }
        checked.now = 8_300;
        for (step, look_once) in &steps {
            if *look_once && let Some((id, due)) = checked.wheel.pop(Mono(checked.now)) {
                checked.check_popped(id, due.0);
            }
            checked.step(step);
        }
        checked.drain();
    }
}

/// Pops all that is due.
fn due_now(wheel: &mut Wheel, now: u64) -> Vec<(u32, u64)> {
    let mut popped = Vec::new();
    loop {
        match wheel.pop(Mono(now)) {
            Some((id, due)) => popped.push((id, due.0)),
            None if wheel.next_due().is_some_and(|next| next.0 <= now) => {}
            None => return popped,
        }
    }
}

#[test]
fn an_empty_wheel_has_nothing_due() {
    let mut wheel = Wheel::new(50_000);
    assert_eq!(wheel.pop(Mono(u64::MAX)), None);
    assert_eq!(wheel.next_due(), None);
    assert!(wheel.is_empty());
    wheel.cancel(3);
    assert!(!wheel.is_armed(3));
}

#[test]
fn a_timer_comes_at_the_end_of_its_tick_and_says_its_exact_due_time() {
    let mut wheel = Wheel::new(100);
    wheel.arm(0, Mono(1_001));
    wheel.arm(1, Mono(1_000));
    assert_eq!(due_now(&mut wheel, 999), []);
    assert_eq!(due_now(&mut wheel, 1_000), [(1, 1_000)]);
    assert_eq!(due_now(&mut wheel, 1_099), []);
    assert_eq!(wheel.next_due(), Some(Mono(1_100)));
    assert_eq!(due_now(&mut wheel, 1_100), [(0, 1_001)]);
}

#[test]
fn a_lone_timer_costs_one_wake_up_however_far_it_is() {
    for bits in 0..64 {
        let mut wheel = Wheel::new(1);
        wheel.arm(0, Mono(1 << bits | 1));
        let next = wheel.next_due().unwrap();
        assert_eq!(next, Mono(1 << bits | 1));
        assert_eq!(wheel.pop(next), Some((0, next)));
    }
}

#[test]
fn arming_again_replaces_the_due_time_and_cancelling_forgets_it() {
    let mut wheel = Wheel::new(10);
    wheel.arm(0, Mono(100));
    wheel.arm(0, Mono(5_000_000));
    wheel.arm(1, Mono(100));
    wheel.cancel(1);
    assert_eq!(wheel.len(), 1);
    assert_eq!(due_now(&mut wheel, 4_999_999), []);
    assert_eq!(due_now(&mut wheel, 5_000_000), [(0, 5_000_000)]);
    assert_eq!(due_now(&mut wheel, u64::MAX), []);
}

#[test]
fn the_end_of_time_is_reached_whatever_the_tick() {
    for tick_ns in [1, 2, 50_000, u64::MAX - 1, u64::MAX] {
        let mut wheel = Wheel::new(tick_ns);
        wheel.arm(0, Mono(u64::MAX));
        assert_eq!(due_now(&mut wheel, u64::MAX - 1), []);
        assert_eq!(wheel.next_due(), Some(Mono(u64::MAX)));
        assert_eq!(due_now(&mut wheel, u64::MAX), [(0, u64::MAX)]);
    }
}

#[test]
fn a_timer_armed_too_late_waits_its_turn_in_the_present_tick() {
    let mut wheel = Wheel::new(10);
    assert_eq!(wheel.pop(Mono(1_000)), None);
    wheel.arm(0, Mono(1_000));
    wheel.arm(1, Mono(10));
    assert_eq!(due_now(&mut wheel, 1_000), [(0, 1_000), (1, 10)]);
}

#[test]
fn a_clock_read_out_of_turn_pops_nothing_and_loses_nothing() {
    let mut wheel = Wheel::new(1);
    assert_eq!(wheel.pop(Mono(50_000)), None);
    wheel.arm(0, Mono(50_100));
    assert_eq!(wheel.pop(Mono(100)), None);
    assert_eq!(wheel.next_due(), Some(Mono(50_100)));
    assert_eq!(due_now(&mut wheel, 50_099), []);
    assert_eq!(due_now(&mut wheel, 50_100), [(0, 50_100)]);
}

#[test]
fn one_call_moves_only_so_many_timers_and_says_that_there_are_more() {
    let mut wheel = Wheel::new(1);
    for id in 0..10_000 {
        wheel.arm(id, Mono(70_000 + u64::from(id) % 1_000));
    }
    let now = Mono(70_500);
    assert_eq!(wheel.pop(now), None);
    assert!(wheel.next_due().unwrap() <= now);
    wheel.arm(10_000, Mono(70_000));
    let popped = due_now(&mut wheel, now.0);
    assert_eq!(popped.len(), 10_000 / 1_000 * 501 + 1);
    let first: Vec<u32> = popped.iter().take(11).map(|&(id, _)| id).collect();
    assert_eq!(first, [0, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000, 9_000, 10_000]);
}

#[test]
fn a_million_timers_come_once_each_and_in_order() {
    const TIMERS: u32 = 1_000_000;
    const TICK_NS: u64 = 50_000;
    const INTERVAL_NS: u64 = 60_000_000_000;
    let mut wheel = Wheel::new(TICK_NS);
    for id in 0..TIMERS {
        // Scattered over most of the interval, so that neighbours in time are no neighbours in memory.
        let phase = u64::from(id.wrapping_mul(0x9E37_79B9)) * 13;
        wheel.arm(id, Mono(INTERVAL_NS + phase));
    }
    assert_eq!(wheel.len(), TIMERS as usize);
    let mut seen = vec![false; TIMERS as usize];
    let mut last_tick = 0;
    let mut now = 0;
    while let Some(next) = wheel.next_due() {
        now = next.0.max(now);
        while let Some((id, due)) = wheel.pop(Mono(now)) {
            let tick = due.0.div_ceil(TICK_NS);
            assert!(due.0 <= now && now - due.0 < TICK_NS && tick >= last_tick);
            assert!(!std::mem::replace(&mut seen[id as usize], true));
            last_tick = tick;
        }
    }
    assert!(seen.into_iter().all(|seen| seen));
}
