//! Who has a place in the poller: declared, declared again, switched, polled elsewhere.
//! Invariant: of one trigger at most one place is polled.

use std::sync::Arc;

use crate::cadence;
use crate::grid;
use crate::history::{Streak, Tally};
use crate::poll::slot::{Rest, Slot};
use crate::poll::{Plan, Poller};
use crate::port::TriggerState;
use crate::record::Stretch;
use crate::time::{Mono, Now, Wall};

impl Poller {
    /// Makes room for a trigger and returns its slot. It is polled once [`Poller::enable`] names its row. The first poll comes one
    /// interval after `now`, later by its phase if other triggers share the interval, and by what is missing to a whole step of the clock.
    pub fn declare(&mut self, name: Arc<str>, plan: Arc<Plan>, now: Mono) -> u32 {
        let (interval_ns, last_beat) = self.beats(&plan, now);
        let rest = Self::unknown(name, plan, last_beat);
        self.slots.push(Slot {
            serial: 0,
            in_body: false,
            in_commit: false,
            is_live: false,
            is_plain: rest.is_plain(),
            interval_ns,
            last_beat,
            quiet: Tally::default(),
        });
        self.rests.push(rest);
        u32::try_from(self.slots.len() - 1).expect("triggers are fewer than 2^32")
    }

    /// A place for the next declaration of that trigger, if one of its older ones is free: with nothing in flight, and not to be heard of
    /// again.
    pub fn free_place(&self, trigger: &str) -> Option<u32> {
        self.free.get(trigger)?.last().copied()
    }

    /// Lets go of the places of the trigger's older declarations. What was asked of the store is answered in its order, so that none of them
    /// is heard of again once a newer one has its row.
    fn free_older(&mut self, place: u32) {
        let mut newer = place;
        while let Some(older) = self.rests[newer as usize].older {
            let (state, rest) = (&self.slots[older as usize], &mut self.rests[older as usize]);
            let is_awaited = rest.successor.is_some() || rest.waits_for.is_some();
            if state.in_body || state.in_commit || is_awaited {
                newer = older;
                continue;
            }
            let next = rest.older.take();
            self.free.entry(Arc::clone(&rest.name)).or_default().push(older);
            self.rests[newer as usize].older = next;
        }
    }

    /// Declares a trigger once more, in one of its places that are free: see [`Poller::free_place`]. Returns what its polls there have left
    /// for the history.
    pub fn declare_in(&mut self, place: u32, plan: Arc<Plan>, now: Mono) -> Option<Stretch> {
        let free = self.free.get_mut(&self.rests[place as usize].name);
        free.expect("its trigger has free places").retain(|&free| free != place);
        let has_row = self.rests[place as usize].schedule.is_some();
        let history = has_row.then(|| self.take_quiet(place)).flatten();
        let (interval_ns, last_beat) = self.beats(&plan, now);
        let old = &mut self.rests[place as usize];
        *old = Self::unknown(Arc::clone(&old.name), plan, last_beat);
        let state = &mut self.slots[place as usize];
        (state.interval_ns, state.last_beat) = (interval_ns, last_beat);
        self.note(place);
        history
    }

    fn beats(&mut self, plan: &Plan, now: Mono) -> (u64, Mono) {
        let interval_ns = u64::try_from(plan.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let sharing = self.per_interval.entry(interval_ns).or_insert(0);
        let phase = cadence::phase(*sharing, interval_ns);
        *sharing += 1;
        (interval_ns, cadence::origin(now, phase, self.wheel.tick_ns()))
    }

    fn unknown(name: Arc<str>, plan: Arc<Plan>, last_beat: Mono) -> Rest {
        Rest {
            name,
            plan,
            schedule: None,
            enabled: true,
            elsewhere: false,
            retired: false,
            is_leaving: false,
            waits_for: None,
            successor: None,
            older: None,
            given_up: false,
            failures: 0,
            pause: None,
            next_beat: last_beat,
            first: None,
            make_up: None,
            asked_at: None,
            waits_from: None,
            is_wanted: false,
            fired_at: None,
            cursor: None,
            streak: Streak::default(),
            has_streak: false,
        }
    }

    /// Puts a new declaration of a trigger in the place of an older one. A poll of that one in flight still counts whole; the new one is
    /// not polled before it is over.
    pub fn supersede(&mut self, old: u32, new: u32) {
        let (state, rest) = (&self.slots[old as usize], &mut self.rests[old as usize]);
        let is_busy = state.in_body && !rest.given_up || state.in_commit;
        let first = rest.waits_for.take().or(is_busy.then_some(old));
        rest.retired = true;
        // Also one that was asked for, and has not begun.
        let is_wanted = std::mem::take(&mut rest.is_wanted) || rest.asked_at.is_some() && !state.in_body;
        if !state.in_body {
            rest.asked_at = None;
            self.wheel.cancel(old);
        }
        let rest = &mut self.rests[new as usize];
        rest.older = Some(old);
        rest.is_wanted = is_wanted;
        self.note(old);
        if let Some(first) = first {
            self.rests[first as usize].successor = Some(new);
            self.rests[new as usize].waits_for = Some(first);
        }
        self.note(new);
    }

    /// Stops polling what is declared no more. A poll in flight still counts.
    pub fn withdraw(&mut self, slot: u32) {
        let rest = &mut self.rests[slot as usize];
        rest.retired = true;
        rest.is_leaving = true;
        rest.make_up = None;
        // What it waits for is still in flight: the next declaration waits for that.
        let schedule = rest.schedule;
        if !self.slots[slot as usize].in_body {
            self.wheel.cancel(slot);
        }
        if let Some(schedule) = schedule.filter(|schedule| self.slot_of.get(schedule) == Some(&slot)) {
            self.slot_of.remove(&schedule);
        }
        self.note(slot);
        self.vacate(slot);
    }

    /// Notes that a withdrawn trigger may be polled by others, once that is so.
    fn vacate(&mut self, slot: u32) {
        let (state, rest) = (&self.slots[slot as usize], &mut self.rests[slot as usize]);
        let is_busy = state.in_body && !rest.given_up || state.in_commit || rest.waits_for.is_some();
        if rest.is_leaving && !is_busy {
            rest.is_leaving = false;
            self.vacated.push(slot);
        }
    }

    /// Places of triggers that were withdrawn, and may be polled by others now; each of them once.
    pub fn take_vacated(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.vacated)
    }

    /// Nothing of an older declaration is in flight any more: the one that waits for it is polled, with what that left.
    pub(super) fn make_room(&mut self, slot: u32, now: Mono) {
        self.vacate(slot);
        let rest = &mut self.rests[slot as usize];
        let Some(new) = rest.successor.take() else { return };
        let (cursor, fired_at) = (rest.cursor.clone(), rest.fired_at);
        let next = &mut self.rests[new as usize];
        next.waits_for = None;
        if next.schedule.is_some() {
            next.cursor = cursor;
            next.fired_at = fired_at.or(next.fired_at);
        }
        self.note(new);
        self.arm(new, now);
        self.vacate(new);
    }

    /// Brings the hot half of a slot in line with the other.
    pub(super) fn note(&mut self, slot: u32) {
        let rest = &self.rests[slot as usize];
        let state = &mut self.slots[slot as usize];
        state.is_live = rest.is_live();
        state.is_plain = rest.is_plain();
    }

    /// Gives a declared trigger its row and arms it if that says so, unless it is polled `elsewhere`. True if the row and what was
    /// switched here before disagree: then it is not polled until somebody has looked which of them is newer.
    pub fn enable(&mut self, slot: u32, row: &TriggerState, elsewhere: bool, now: Now) -> bool {
        if self.rests[slot as usize].retired {
            return false;
        }
        let before = self.slot_of.get(&row.row).copied();
        let was_polled = before.is_some_and(|before| self.slots[before as usize].quiet.last_at().is_some());
        let pending = before.and_then(|before| self.rests[before as usize].make_up);
        let before = before.map(|before| self.rests[before as usize].enabled);
        let enabled = row.enabled && before.unwrap_or(true);
        self.resume(slot, row.grid.as_ref(), was_polled, now);
        let now = now.mono;
        let rest = &mut self.rests[slot as usize];
        rest.make_up = rest.make_up.or(pending).filter(|_| !elsewhere);
        rest.schedule = Some(row.row);
        rest.enabled = enabled;
        rest.elsewhere = elsewhere;
        rest.cursor = row.cursor.as_deref().map(Arc::from);
        rest.fired_at = row.last_fired_at;
        self.slot_of.insert(row.row, slot);
        self.note(slot);
        self.free_older(slot);
        match self.slots[slot as usize].is_live {
            true => self.arm(slot, now),
            false if elsewhere => self.give_way(slot),
            // A poll in flight still counts; what is armed meanwhile is its time-out.
            false if self.slots[slot as usize].in_body => {}
            false => self.wheel.cancel(slot),
        }
        before.is_some_and(|before| before != row.enabled)
    }

    /// Puts a trigger on the grid that was kept of it. One that was never polled may want that at once.
    fn resume(&mut self, slot: u32, kept: Option<&grid::Kept>, was_polled: bool, now: Now) {
        let (state, rest) = (&self.slots[slot as usize], &mut self.rests[slot as usize]);
        if state.in_body || state.in_commit {
            return;
        }
        let moment = |at: Wall| {
            let left_us = u64::try_from(at.0.saturating_sub(now.wall.0)).unwrap_or(0);
            Mono(now.mono.0.saturating_add(left_us.saturating_mul(1000)))
        };
        if let Some(kept) = kept {
            let interval_us = i64::try_from(state.interval_ns / 1000).unwrap_or(i64::MAX);
            let grid::Resumption { first, make_up } = kept.resume(interval_us, now.wall);
            rest.first = Some(cadence::origin(moment(first), 0, self.wheel.tick_ns()));
            rest.make_up = make_up.map(moment);
        }
        let is_new = !was_polled && kept.is_none_or(|kept| kept.last_at.is_none());
        if is_new && rest.plan.polls_at_start {
            rest.make_up = Some(now.mono);
        }
    }

    /// Where the grid of a trigger begins that was declared at `now`, if it has none yet.
    pub fn origin_at(&self, slot: u32, now: Now) -> Wall {
        now.wall.after(self.slots[slot as usize].last_beat.since(now.mono))
    }

    /// Switches the trigger with that row; false if there is none here. A poll in flight still counts: it stops the next one.
    pub fn set_enabled(&mut self, schedule: i64, enabled: bool, now: Mono) -> bool {
        let Some(&slot) = self.slot_of.get(&schedule) else {
            return false;
        };
        let rest = &mut self.rests[slot as usize];
        if rest.enabled == enabled {
            return true;
        }
        rest.enabled = enabled;
        if enabled {
            rest.failures = 0;
            rest.pause = None;
            // What came while it was off is not made up for.
            let is_late = |at: &Mono| now.since_us(*at) > grid::CATCH_UP_US.unsigned_abs();
            rest.make_up = rest.make_up.filter(|at| !is_late(at));
            // Neither does a wait go on that it had before this process began.
            let interval_ns = self.slots[slot as usize].interval_ns;
            let beats = |first: Mono| first.0.saturating_sub(now.0).saturating_sub(1) / interval_ns;
            rest.first = rest.first.map(|first| Mono(first.0 - interval_ns * beats(first)));
        }
        self.note(slot);
        match enabled {
            true => self.arm(slot, now),
            // While its body runs, what is armed is its time-out.
            false if self.slots[slot as usize].in_body => {}
            false => self.wheel.cancel(slot),
        }
        true
    }

    /// Makes a poll in flight void, and arms no other.
    fn give_way(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        state.serial = state.serial.wrapping_add(1);
        self.wheel.cancel(slot);
    }

    /// Stops polling a trigger that another owner polls now; [`Poller::enable`] takes it back.
    pub fn park(&mut self, slot: u32, now: Mono) {
        self.rests[slot as usize].elsewhere = true;
        self.rests[slot as usize].make_up = None;
        self.slots[slot as usize].in_commit = false;
        self.note(slot);
        self.wheel.cancel(slot);
        // Who polls it elsewhere has its cursor; the successor asks for it anew. Where it was forgotten, the successor has a row of its own.
        if !self.slots[slot as usize].in_body
            && let Some(new) = self.rests[slot as usize].successor.take()
        {
            self.rests[new as usize].waits_for = None;
            self.note(new);
            self.arm(new, now);
            self.vacate(new);
        }
    }
}
