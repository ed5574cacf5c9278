//! Who has a place in the poller: declared, declared again, switched, polled elsewhere.
//! Invariant: of one trigger at most one place is polled.
//! Longer than a room should be: each way into a place and out of it keeps what the others keep.

use std::sync::Arc;
use std::time::Duration;

use crate::cadence;
use crate::grid;
use crate::history::{Streak, Tally};
use crate::key::ScheduleKey;
use crate::poll::hot::{Hot, Rest};
use crate::poll::{Plan, Poller};
use crate::port::{Ending, TriggerState};
use crate::record::Stretch;
use crate::time::{Mono, Now, Wall};

impl Poller {
    /// Makes room for a trigger and returns its place. It is polled once [`Poller::enable`] names its row. The first poll comes one
    /// interval after `now`, later by its phase if other triggers share the interval, and by what is missing to a whole step of the clock.
    pub fn declare(&mut self, name: Arc<str>, plan: Arc<Plan>, now: Mono) -> u32 {
        let (interval_ns, last_beat) = self.beats(&plan, now);
        let rest = Self::unknown(name, plan, last_beat);
        self.hot.push(Hot {
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
        u32::try_from(self.hot.len() - 1).expect("triggers are fewer than 2^32")
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
            let (state, rest) = (&self.hot[older as usize], &mut self.rests[older as usize]);
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
    pub fn declare_in(&mut self, place: u32, plan: Arc<Plan>, now: Mono) -> Vec<Stretch> {
        let free = self.free.get_mut(&self.rests[place as usize].name);
        free.expect("its trigger has free places").retain(|&free| free != place);
        let mut history = Vec::new();
        self.take_quiet(place, &mut history);
        let (interval_ns, last_beat) = self.beats(&plan, now);
        self.unvacate(place);
        let old = &mut self.rests[place as usize];
        *old = Self::unknown(Arc::clone(&old.name), plan, last_beat);
        let state = &mut self.hot[place as usize];
        (state.interval_ns, state.last_beat) = (interval_ns, last_beat);
        self.note(place);
        history
    }

    fn beats(&mut self, plan: &Plan, now: Mono) -> (u64, Mono) {
        let interval_ns = u64::try_from(plan.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let sharing = self.per_interval.entry(interval_ns).or_insert(0);
        let phase = if self.is_in_step { 0 } else { cadence::phase(*sharing, interval_ns) };
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
            is_vacated: false,
            owes: false,
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
            moment: None,
            ending: None,
            shown: None,
            told: None,
            waits_from: None,
            is_wanted: false,
            asked: None,
            is_proven: false,
            has_died: false,
            beginning: None,
            is_answer: false,
            fired_at: None,
            cursor: None,
            cursor_set: 0,
            cursor_sent: 0,
            cursor_seen: None,
            streak: Streak::default(),
            has_streak: false,
        }
    }

    /// Puts a new declaration of a trigger in the place of an older one. A poll of that one in flight still counts whole; the new one is
    /// not polled before it is over.
    pub fn supersede(&mut self, old: u32, new: u32) {
        let (state, rest) = (&self.hot[old as usize], &mut self.rests[old as usize]);
        let is_busy = state.in_body && !rest.given_up || state.in_commit;
        let first = rest.waits_for.take().or(is_busy.then_some(old));
        rest.retired = true;
        // Also one that was asked for, and has not begun.
        let is_wanted = std::mem::take(&mut rest.is_wanted) || rest.asked_at.is_some() && !state.in_body;
        let asked = rest.asked.take();
        if !state.in_body {
            rest.asked_at = None;
            self.wheel.cancel(old);
        }
        // Which moment of a cron is decided, and where, its engine says anew.
        let by_calendar = [old, new].map(|place| self.rests[place as usize].plan.by_calendar);
        let rest = &mut self.rests[new as usize];
        rest.older = Some(old);
        rest.is_wanted = is_wanted && by_calendar == [false, false];
        rest.asked = asked;
        self.note(old);
        if let Some(first) = first {
            self.rests[first as usize].successor = Some(new);
            self.rests[new as usize].waits_for = Some(first);
        }
        self.note(new);
    }

    /// Stops polling what is declared no more. A poll in flight still counts.
    pub fn withdraw(&mut self, place: u32) {
        let rest = &mut self.rests[place as usize];
        rest.retired = true;
        // What it waits for is still in flight: the next declaration waits for that.
        let schedule = rest.schedule;
        if !self.hot[place as usize].in_body {
            self.wheel.cancel(place);
        }
        self.leave_asked(place);
        if let Some(schedule) = schedule.filter(|schedule| self.placed.get(schedule) == Some(&place)) {
            self.placed.remove(&schedule);
        }
        self.begin_leaving(place);
    }

    /// Stops polling a trigger that is to be another owner's, until [`Poller::enable`] takes it back. A poll in flight still counts.
    pub fn hand_on(&mut self, place: u32) {
        if self.rests[place as usize].retired {
            return;
        }
        self.rests[place as usize].elsewhere = true;
        if !self.hot[place as usize].in_body {
            self.wheel.cancel(place);
        }
        self.leave_asked(place);
        self.begin_leaving(place);
    }

    /// A poll that others have asked for and that has not begun is left to whoever polls the trigger next.
    fn leave_asked(&mut self, place: u32) {
        let rest = &mut self.rests[place as usize];
        rest.is_proven = false;
        if rest.asked.take().is_some() {
            rest.is_wanted = false;
            rest.asked_at = rest.asked_at.filter(|_| self.hot[place as usize].in_body);
        }
    }

    fn begin_leaving(&mut self, place: u32) {
        self.unvacate(place);
        let rest = &mut self.rests[place as usize];
        rest.is_leaving = true;
        if !self.hot[place as usize].in_body {
            rest.owes |= rest.make_up.take().is_some();
        }
        self.note(place);
        self.vacate(place);
    }

    /// What nobody has heard of yet is of before a place was taken again.
    fn unvacate(&mut self, place: u32) {
        if std::mem::take(&mut self.rests[place as usize].is_vacated) {
            self.vacated.retain(|&(vacated, _)| vacated != place);
        }
    }

    /// Notes that a withdrawn trigger may be polled by others, once that is so.
    fn vacate(&mut self, place: u32) {
        let (state, rest) = (&self.hot[place as usize], &mut self.rests[place as usize]);
        let is_busy = state.in_body && !rest.given_up || state.in_commit || rest.waits_for.is_some();
        if rest.is_leaving && !is_busy {
            (rest.is_leaving, rest.is_vacated) = (false, true);
            let owes = std::mem::take(&mut rest.owes);
            self.vacated.push((place, owes));
        }
    }

    /// Places of triggers that were withdrawn or handed on, and may be polled by others now; each of them once, with whether it owes a poll
    /// for what was missed.
    pub fn take_vacated(&mut self) -> Vec<(u32, bool)> {
        let vacated = std::mem::take(&mut self.vacated);
        vacated.iter().for_each(|&(place, _)| self.rests[place as usize].is_vacated = false);
        vacated
    }

    /// Nothing of an older declaration is in flight any more: the one that waits for it is polled, with what that left.
    pub(super) fn make_room(&mut self, place: u32, now: Mono) {
        self.vacate(place);
        let rest = &mut self.rests[place as usize];
        let Some(new) = rest.successor.take() else { return };
        let (cursor, cursor_set, fired_at) = (rest.cursor.clone(), rest.cursor_set, rest.fired_at);
        let next = &mut self.rests[new as usize];
        next.waits_for = None;
        if next.schedule.is_some() {
            if cursor_set >= next.cursor_set {
                (next.cursor, next.cursor_set) = (cursor, cursor_set);
            }
            next.fired_at = fired_at.or(next.fired_at);
        }
        self.note(new);
        self.arm(new, now);
        self.vacate(new);
    }

    /// Brings the hot half of a place in line with the other.
    pub(super) fn note(&mut self, place: u32) {
        let rest = &self.rests[place as usize];
        let state = &mut self.hot[place as usize];
        state.is_live = rest.is_live();
        state.is_plain = rest.is_plain();
    }

    /// Gives a declared trigger its row and arms it if that says so, unless it is polled `elsewhere`. True if the row and what was
    /// switched here before disagree: then it is not polled until somebody has looked which of them is newer.
    pub fn enable(&mut self, place: u32, row: &TriggerState, elsewhere: bool, now: Now) -> bool {
        if self.rests[place as usize].retired {
            return false;
        }
        let before = self.placed.get(&row.row).copied();
        let was_polled = before.is_some_and(|before| self.hot[before as usize].quiet.last_at().is_some());
        let pending = before.and_then(|before| self.rests[before as usize].make_up);
        let before = before.map(|before| self.rests[before as usize].enabled);
        let enabled = row.enabled && before.unwrap_or(true);
        self.resume(place, row.grid.as_ref(), was_polled, now);
        self.fail_on(place, row, now.wall);
        let now = now.mono;
        let rest = &mut self.rests[place as usize];
        rest.make_up = rest.make_up.or(pending).filter(|_| !elsewhere);
        // What is read of a row may be older than what is known of it.
        let is_older = rest.schedule == Some(row.row) && row.cursor_set < rest.cursor_set;
        let is_set = rest.schedule == Some(row.row) && row.cursor_set > rest.cursor_set;
        rest.schedule = Some(row.row);
        rest.enabled = enabled;
        rest.elsewhere = elsewhere;
        let answered = self.answered.get(&row.row).copied().unwrap_or(0);
        if let Some(times) = row.asked.filter(|&times| times > answered && !elsewhere) {
            rest.asked = Some(times);
            rest.is_wanted = true;
        }
        if is_set && !rest.plan.by_calendar && self.hot[place as usize].in_body {
            rest.cursor_seen.get_or_insert(rest.cursor_set);
        }
        if !is_older {
            (rest.cursor, rest.cursor_set) = (row.cursor.as_deref().map(Arc::from), row.cursor_set);
        }
        if is_set {
            self.begin_anew(place);
        }
        let rest = &mut self.rests[place as usize];
        rest.has_died = row.has_died && rest.plan.by_ends && !elsewhere && !is_older;
        rest.fired_at = row.last_fired_at;
        self.placed.insert(row.row, place);
        self.note(place);
        self.free_older(place);
        match self.hot[place as usize].is_live {
            true => self.arm(place, now),
            false if elsewhere => self.give_way(place),
            // A poll in flight still counts; what is armed meanwhile is its time-out.
            false if self.hot[place as usize].in_body => {}
            false => self.wheel.cancel(place),
        }
        before.is_some_and(|before| before != row.enabled)
    }

    /// A trigger that failed before it came here goes on failing, and waits for what was left of that. What is known of one that was polled
    /// here all along is newer.
    fn fail_on(&mut self, place: u32, row: &TriggerState, now: Wall) {
        let (state, rest) = (&self.hot[place as usize], &mut self.rests[place as usize]);
        if state.in_body || state.in_commit || !(rest.schedule.is_none() || rest.elsewhere) {
            return;
        }
        rest.failures = row.failures;
        rest.pause = None;
        if row.failures > 0 {
            let wait = row.grid.as_ref().and_then(|grid| grid.wait);
            rest.pause = Some(wait.map_or(Duration::ZERO, |wait| wait.left(now)));
        }
    }

    /// Puts a trigger on the grid that was kept of it. One that was never polled may want that at once.
    fn resume(&mut self, place: u32, kept: Option<&grid::Kept>, was_polled: bool, now: Now) {
        let (state, rest) = (&self.hot[place as usize], &mut self.rests[place as usize]);
        if state.in_body || state.in_commit {
            return;
        }
        let moment = |at: Wall| {
            let left_us = u64::try_from(at.0.saturating_sub(now.wall.0)).unwrap_or(0);
            Mono(now.mono.0.saturating_add(left_us.saturating_mul(1000)))
        };
        if rest.plan.by_ends {
            // Nothing beats, so that nothing was missed; but who was to wait goes on to.
            let wait = kept.and_then(|kept| kept.wait);
            rest.first = wait.map(|wait| moment(wait.end(now.wall))).filter(|&at| at > now.mono);
            return;
        }
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
    pub fn origin_at(&self, place: u32, now: Now) -> Wall {
        now.wall.after(self.hot[place as usize].last_beat.since(now.mono))
    }

    /// Switches the trigger with that row; false if there is none here. A poll in flight still counts: it stops the next one.
    pub fn set_enabled(&mut self, schedule: ScheduleKey, enabled: bool, now: Mono) -> bool {
        let Some(&place) = self.placed.get(&schedule) else {
            return false;
        };
        let rest = &mut self.rests[place as usize];
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
            // Neither does a wait go on that it had before.
            self.end_kept_wait(place, now);
        }
        self.note(place);
        match enabled {
            true => self.arm(place, now),
            // While its body runs, what is armed is its time-out.
            false if self.hot[place as usize].in_body => {}
            false => self.wheel.cancel(place),
        }
        true
    }

    /// Ends a wait that a trigger had before this process began: it goes on with the next beat of its grid. False if there is none.
    pub(super) fn end_kept_wait(&mut self, place: u32, now: Mono) -> bool {
        let interval_ns = self.hot[place as usize].interval_ns;
        let rest = &mut self.rests[place as usize];
        let beats = |first: Mono| first.0.saturating_sub(now.0).saturating_sub(1) / interval_ns;
        let next = rest.first.map(|first| Mono(first.0 - interval_ns * beats(first)));
        std::mem::replace(&mut rest.first, next) != next
    }

    /// Switches a trigger as was read of its row, with how often it had failed and how long it waits, unless that was read while it was another
    /// owner's. One that comes on goes on with that: who switched it on has ended it in the store, and where it only was not known here whether it
    /// is on, as it changed hands, nobody has.
    pub fn switch(
        &mut self,
        schedule: ScheduleKey,
        enabled: bool,
        kept: Option<(u32, Option<grid::Wait>)>,
        now: Now,
    ) {
        let Some(&place) = self.placed.get(&schedule) else { return };
        let rest = &self.rests[place as usize];
        let comes_on = enabled && !rest.enabled;
        let (failures, pause, first) = (rest.failures, rest.pause, rest.first);
        self.set_enabled(schedule, enabled, now.mono);
        let (state, rest) = (&self.hot[place as usize], &mut self.rests[place as usize]);
        if !comes_on || rest.elsewhere || state.in_body || state.in_commit {
            return;
        }
        match kept {
            None => (rest.failures, rest.pause, rest.first) = (failures, pause, first),
            Some((kept, wait)) => {
                let left = wait.map_or(Duration::ZERO, |wait| wait.left(now.wall));
                rest.failures = kept;
                // What was kept from here goes on as it began, and what is known of another's from now on.
                rest.pause = match kept {
                    0 => pause.filter(|_| !left.is_zero()),
                    _ if kept == failures => pause,
                    _ => {
                        rest.waits_from = Some(now.mono);
                        Some(left)
                    }
                };
                rest.first = if left.is_zero() { rest.first } else { first };
            }
        }
        self.note(place);
        self.arm(place, now.mono);
    }

    /// Takes over a cursor that somebody has set, unless that is known. The store refuses a poll in flight that looked at the old one. That of a cron is
    /// read with each moment.
    pub fn set_cursor(&mut self, schedule: ScheduleKey, cursor: Option<&str>, cursor_set: i64) {
        if let Some(&place) = self.placed.get(&schedule) {
            self.take_cursor(place, cursor, cursor_set);
        }
    }

    /// The same of the trigger in that place.
    pub fn take_cursor(&mut self, place: u32, cursor: Option<&str>, cursor_set: i64) {
        let rest = &mut self.rests[place as usize];
        if cursor_set <= rest.cursor_set || rest.plan.by_calendar {
            return;
        }
        if self.hot[place as usize].in_body {
            rest.cursor_seen.get_or_insert(rest.cursor_set);
        }
        (rest.cursor, rest.cursor_set) = (cursor.map(Arc::from), cursor_set);
        self.begin_anew(place);
        self.note(place);
    }

    /// Somebody has moved on what is told of ends of runs: what it failed at so far is gone, it may be, and it waits for nothing but the next one.
    fn begin_anew(&mut self, place: u32) {
        let rest = &mut self.rests[place as usize];
        if !rest.plan.by_ends {
            return;
        }
        (rest.failures, rest.pause, rest.first) = (0, None, None);
        rest.has_died = false;
        if !self.hot[place as usize].in_body {
            self.forget_ends(place);
            self.wheel.cancel(place);
        }
    }

    /// Makes a poll in flight void, and arms no other.
    fn give_way(&mut self, place: u32) {
        let state = &mut self.hot[place as usize];
        state.serial = state.serial.wrapping_add(1);
        self.wheel.cancel(place);
    }

    /// Tells a trigger of an end of a run as soon as it may be, if it is to be told of ends and knows of none. One that it has been told of is
    /// not news.
    pub fn tell(&mut self, ending: Ending, now: Mono) {
        let Some(&place) = self.placed.get(&ending.listener) else { return };
        let (state, rest) = (&self.hot[place as usize], &mut self.rests[place as usize]);
        let is_busy = state.in_body || state.in_commit;
        let is_known = rest.ending.as_ref().is_some_and(|known| known.key == ending.key);
        if is_busy || is_known || !rest.plan.by_ends || rest.told == Some(ending.key) {
            return;
        }
        rest.ending = Some(Arc::new(ending));
        self.arm(place, now);
    }

    /// Whether the poll in flight in that place is about an end of a run.
    pub fn is_told(&self, place: u32) -> bool {
        self.is_by_ends(place) && self.rests[place as usize].shown.is_some()
    }

    /// Whether what is in that place is told of ends of runs, and not polled.
    pub fn is_by_ends(&self, place: u32) -> bool {
        !self.hot[place as usize].is_plain && self.rests[place as usize].plan.by_ends
    }

    /// Stops polling a trigger that another owner polls now; [`Poller::enable`] takes it back.
    pub fn park(&mut self, place: u32, now: Mono) {
        self.rests[place as usize].elsewhere = true;
        self.rests[place as usize].make_up = None;
        self.forget_ends(place);
        self.leave_asked(place);
        self.hot[place as usize].in_commit = false;
        self.note(place);
        self.wheel.cancel(place);
        // Who polls it elsewhere has its cursor; the successor asks for it anew. Where it was forgotten, the successor has a row of its own.
        if !self.hot[place as usize].in_body
            && let Some(new) = self.rests[place as usize].successor.take()
        {
            self.rests[new as usize].waits_for = None;
            self.note(new);
            self.arm(new, now);
            self.vacate(new);
        }
    }
}
