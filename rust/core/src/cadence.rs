//! Decides when a trigger is due next. Invariant: due times lie on `origin + n * interval` with n ≥ 1, so that no poll's
//! lateness moves the next; what was missed is counted and skipped, never made up for in a burst.

use crate::time::Mono;

/// The first beat after `now` of a trigger whose last one was at `last`, and how many were missed between.
pub fn next_beat(last: Mono, interval_ns: u64, now: Mono) -> (Mono, u64) {
    let next = last.0.saturating_add(interval_ns);
    if next > now.0 {
        return (Mono(next), 0);
    }
    let missed = (now.0 - next) / interval_ns + 1;
    (Mono(next.saturating_add(interval_ns.saturating_mul(missed))), missed)
}

/// So many triggers of one interval are spread each on its own.
const SINGLES: u64 = 256;
/// Beyond that, so many neighbours share a phase: what lies close together in memory is polled together, and fewer phases are fewer
/// wake-ups. The last of them begins a few microseconds later for it.
const NEIGHBOURS: u64 = 16;

/// The `k`-th trigger's share of an interval: van der Corput's sequence, which spreads evenly whatever the number of triggers.
pub fn phase(k: u64, interval_ns: u64) -> u64 {
    let place = if k < SINGLES { k } else { k / NEIGHBOURS + SINGLES - SINGLES / NEIGHBOURS };
    ((u128::from(place.reverse_bits()) * u128::from(interval_ns)) >> 64) as u64
}

/// Where a trigger's grid begins that was declared at `now`: a whole number of the clock's steps, so that its polls, if its interval is
/// one, too, fall on moments at which the clock looks.
pub fn origin(now: Mono, phase: u64, step_ns: u64) -> Mono {
    let at = now.0.saturating_add(phase);
    Mono(at.checked_next_multiple_of(step_ns).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_poll_comes_one_interval_after_the_start() {
        assert_eq!(next_beat(Mono(1005), 100, Mono(1005)), (Mono(1105), 0));
    }

    #[test]
    fn lateness_does_not_move_the_next_poll() {
        assert_eq!(next_beat(Mono(1105), 100, Mono(1190)), (Mono(1205), 0));
    }

    #[test]
    fn missed_beats_are_counted_and_skipped() {
        assert_eq!(next_beat(Mono(1105), 100, Mono(1450)), (Mono(1505), 3));
        assert_eq!(next_beat(Mono(1105), 100, Mono(1505)), (Mono(1605), 4));
    }

    #[test]
    fn a_grid_begins_with_a_step_of_the_clock() {
        assert_eq!(origin(Mono(1000), 0, 50), Mono(1000));
        assert_eq!(origin(Mono(1001), 20, 50), Mono(1050));
        assert_eq!(origin(Mono(u64::MAX), 1, 50), Mono(u64::MAX));
    }

    #[test]
    fn phases_spread_over_the_interval_from_zero() {
        assert_eq!([0, 1, 2, 3].map(|k| phase(k, 100)), [0, 50, 25, 75]);
        let mut phases: Vec<u64> = (0..65_536).map(|k| phase(k, 1 << 20)).collect();
        phases.sort_unstable();
        let widest = phases.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest <= Some(512), "no part of the interval is left empty: {widest:?}");
    }
}
