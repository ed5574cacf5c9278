//! Which triggers are declared, in which place, and which of them others poll.
//! Invariant: a trigger that this runner does not own is parked, and is asked for at each vacancy.

use std::sync::Arc;

use crate::engine::{Declared, Effects, Engine, Then};
use crate::port::Change;
use crate::time::Now;

impl Engine {
    pub(super) fn trigger(&mut self, slot: u32, declared: Declared, now: Now, out: &mut Effects) {
        let trigger = declared.row.clone();
        // What the old declaration still polls must not move the cursor behind the new one's back.
        if let Some(old) = self.slot_of.insert(Arc::clone(&trigger.name), slot) {
            // Its poll in flight still counts, for the workflow that it named.
            self.parked.remove(&old);
        }
        // It may have been another declaration's place.
        self.withdrawn.remove(&slot);
        self.by_calendar.remove(&slot);
        self.stuck.remove(&slot);
        let place = slot as usize;
        if place >= self.triggers.len() {
            self.triggers.resize(place + 1, None);
        }
        self.triggers[place] = Some(declared);
        let change = Change::Declare { epoch: self.epoch, trigger, at: now.wall };
        out.commits.push((change, Then::Declared { slot, vacancies: self.vacancies, news: self.news }));
    }

    /// What is in a place is not asked for any more. Its poll in flight still counts.
    pub(super) fn withdrawn(&mut self, slot: u32) {
        self.parked.remove(&slot);
        self.withdrawn.insert(slot);
    }

    /// The body of a cron is in that place.
    pub(super) fn embody(&mut self, slot: u32, declared: Declared) {
        if let Some(old) = self.slot_of.insert(Arc::clone(&declared.row.name), slot) {
            self.parked.remove(&old);
        }
        self.withdrawn.remove(&slot);
        self.stuck.remove(&slot);
        self.by_calendar.insert(slot);
        let place = slot as usize;
        if place >= self.triggers.len() {
            self.triggers.resize(place + 1, None);
        }
        self.triggers[place] = Some(declared);
    }

    /// Nothing of a withdrawn trigger is in flight here any more: whoever else declares it may poll it.
    pub(super) fn vacated(&mut self, slot: u32, now: Now, out: &mut Effects) {
        if self.by_calendar.contains(&slot) {
            return self.call_off(slot, out);
        }
        let Some(name) = self.declared_in(slot).map(|declared| Arc::clone(&declared.row.name)) else {
            return;
        };
        // It may be declared again by now.
        if self.withdrawn.contains(&slot) && self.place_of(&name) == Some(slot) {
            out.commits.push((Change::LetGo { epoch: self.epoch, trigger: name, at: now.wall }, Then::LetGo));
        }
    }

    /// Others have let go of these triggers.
    pub(super) fn ask_for_free(&mut self, triggers: &[Arc<str>], now: Now, out: &mut Effects) {
        let places = triggers.iter().filter_map(|name| self.place_of(name));
        places.filter(|slot| self.parked.contains(slot)).for_each(|slot| self.ask_for(slot, now, out));
    }

    /// The newest place of the trigger of that name.
    pub fn place_of(&self, trigger: &str) -> Option<u32> {
        self.slot_of.get(trigger).copied()
    }

    /// Whether a place holds its trigger's newest declaration.
    pub(super) fn is_newest(&self, slot: u32) -> bool {
        let is_of_place = |declared: &Declared| self.place_of(&declared.row.name) == Some(slot);
        !self.withdrawn.contains(&slot) && self.declared_in(slot).is_some_and(is_of_place)
    }

    /// The trigger polled in that place, as it was declared there.
    pub(super) fn declared_in(&self, slot: u32) -> Option<&Declared> {
        self.triggers.get(slot as usize)?.as_ref()
    }

    pub(super) fn ask_for_parked(&mut self, now: Now, out: &mut Effects) {
        self.parked.iter().for_each(|&slot| self.ask_for(slot, now, out));
    }

    pub(super) fn ask_for(&self, slot: u32, now: Now, out: &mut Effects) {
        let trigger = self.declared_in(slot).expect("a parked trigger is declared").row.clone();
        let change = Change::Declare { epoch: self.epoch, trigger, at: now.wall };
        out.commits.push((change, Then::Declared { slot, vacancies: self.vacancies, news: self.news }));
    }

    /// Whether a trigger of this program is polled by another owner.
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }
}
