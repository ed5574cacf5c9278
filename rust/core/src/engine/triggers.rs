//! Which triggers are declared, in which place, and which of them others poll.
//! Invariant: a trigger that this runner does not own is parked, and is asked for at each vacancy. One that another runner declares in a
//! newer version, or is to poll by right, is let go once nothing of it is in flight here.

use std::sync::Arc;

use crate::engine::{Declared, Effects, Engine, Rearm, Then};
use crate::port::Change;
use crate::time::Now;

impl Engine {
    pub(super) fn trigger(&mut self, place: u32, declared: Declared, now: Now, out: &mut Effects) {
        let trigger = declared.row.clone();
        // What the old declaration still polls must not move the cursor behind the new one's back.
        if let Some(old) = self.places.insert(Arc::clone(&trigger.name), place) {
            // Its poll in flight still counts, for the workflow that it named.
            self.parked.remove(&old);
            self.giving_way.remove(&old);
        }
        self.giving_way.remove(&place);
        // It may have been another declaration's place.
        self.withdrawn.remove(&place);
        self.by_calendar.remove(&place);
        self.stuck.remove(&place);
        self.put(place, declared);
        let change = Change::Declare { epoch: self.epoch, trigger, at: now.wall };
        out.commits.push((change, Then::Declared { place, vacancies: self.vacancies, news: self.news }));
    }

    /// What is in a place is not asked for any more. Its poll in flight still counts.
    pub(super) fn withdrawn(&mut self, place: u32) {
        self.parked.remove(&place);
        self.withdrawn.insert(place);
    }

    /// The body of a cron is in that place.
    pub(super) fn embody(&mut self, place: u32, declared: Declared) {
        if let Some(old) = self.places.insert(Arc::clone(&declared.row.name), place) {
            self.parked.remove(&old);
        }
        self.withdrawn.remove(&place);
        self.stuck.remove(&place);
        self.by_calendar.insert(place);
        self.put(place, declared);
    }

    fn put(&mut self, place: u32, declared: Declared) {
        let place = place as usize;
        if place >= self.triggers.len() {
            self.triggers.resize(place + 1, None);
        }
        // It is told of from here on: who watches would lose the first of what appears only with it.
        let counts = self.meter.fired(&declared.row.name);
        if declared.row.on_run.is_some() {
            counts.ends.get_or_insert_default();
        }
        self.triggers[place] = Some(declared);
    }

    /// Nothing of a withdrawn trigger is in flight here any more, or of one that gives way: whoever else declares it may poll it. Unless it
    /// owes a poll for what was missed, it has been polled until now.
    pub(super) fn vacated(&mut self, place: u32, owes: bool, now: Now, out: &mut Effects) {
        if self.by_calendar.contains(&place) {
            return self.call_off(place, out);
        }
        let Some(Declared { row, .. }) = self.declared_in(place) else { return };
        let (trigger, digest) = (Arc::clone(&row.name), row.digest);
        let is_withdrawn = self.withdrawn.contains(&place);
        let gives_way = !is_withdrawn && self.giving_way.contains(&place) && !self.parked.contains(&place);
        // It may be declared again by now.
        if self.place_of(&trigger) != Some(place) || !(is_withdrawn || gives_way) {
            return;
        }
        let at = (!owes).then_some(now.wall);
        let change = Change::LetGo { epoch: self.epoch, trigger, digest, at };
        out.commits.push((change, Then::LetGo(Some(place))));
        if gives_way {
            // Who is to have it may be gone by then.
            self.parked.insert(place);
            self.ask_for(place, now, out);
        }
    }

    /// Other runners are to poll these triggers.
    pub(super) fn give_way_to_others(&mut self, triggers: &[Arc<str>], out: &mut Effects) {
        let places: Vec<u32> = triggers.iter().filter_map(|name| self.place_of(name)).collect();
        places.into_iter().for_each(|place| self.give_way(place, out));
    }

    /// At most `many` of these triggers, none of which is given way with already.
    pub fn polled_here(&self, triggers: Vec<Arc<str>>, many: usize) -> Vec<Arc<str>> {
        let is_polled = |name: &Arc<str>| {
            let place = self.place_of(name);
            place.is_some_and(|place| !self.giving_way.contains(&place) && !self.parked.contains(&place))
        };
        triggers.into_iter().filter(is_polled).take(many).collect()
    }

    /// Lets go of what is polled in a place, once nothing of it is in flight.
    pub(super) fn give_way(&mut self, place: u32, out: &mut Effects) {
        let is_polled =
            self.is_newest(place) && !self.parked.contains(&place) && !self.by_calendar.contains(&place);
        if is_polled && self.giving_way.insert(place) {
            out.rearm.push(Rearm { place, gives_way: true, ..Rearm::default() });
        }
    }

    /// What is in a place turned out to be another's. Unless that is of before its letting go, there is nothing to let go of.
    pub(super) fn park(&mut self, place: u32) {
        if self.parked.insert(place) {
            self.giving_way.remove(&place);
        }
    }

    /// Others have let go of these triggers.
    pub(super) fn ask_for_free(&mut self, triggers: &[Arc<str>], now: Now, out: &mut Effects) {
        let places = triggers.iter().filter_map(|name| self.place_of(name));
        places.filter(|place| self.parked.contains(place)).for_each(|place| self.ask_for(place, now, out));
    }

    /// The newest place of the trigger of that name.
    pub fn place_of(&self, trigger: &str) -> Option<u32> {
        self.places.get(trigger).copied()
    }

    /// Whether a place holds its trigger's newest declaration.
    pub(super) fn is_newest(&self, place: u32) -> bool {
        let is_of_place = |declared: &Declared| self.place_of(&declared.row.name) == Some(place);
        !self.withdrawn.contains(&place) && self.declared_in(place).is_some_and(is_of_place)
    }

    /// The trigger polled in that place, as it was declared there.
    pub(super) fn declared_in(&self, place: u32) -> Option<&Declared> {
        self.triggers.get(place as usize)?.as_ref()
    }

    pub(super) fn ask_for_parked(&mut self, now: Now, out: &mut Effects) {
        self.parked.iter().for_each(|&place| self.ask_for(place, now, out));
    }

    pub(super) fn ask_for(&self, place: u32, now: Now, out: &mut Effects) {
        let trigger = self.declared_in(place).expect("a parked trigger is declared").row.clone();
        let change = Change::Declare { epoch: self.epoch, trigger, at: now.wall };
        out.commits.push((change, Then::Declared { place, vacancies: self.vacancies, news: self.news }));
    }

    /// Whether a trigger of this program is polled by another owner.
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// How many triggers of this program are polled by other owners.
    pub fn parked_count(&self) -> usize {
        self.parked.len()
    }
}
