//! Where triggers are polled: declared, withdrawn, and given their places.
//! Invariant: a body stands at the place that the engine names for its trigger.

use std::sync::Arc;

use crate::engine::{Declared, Effects, Event};
use crate::poll::Plan;
use crate::runtime::Runtime;
use crate::runtime::park::lock;

impl Runtime {
    /// Declares triggers and returns the first one's place; the others follow it. They are polled once their rows are kept.
    ///
    /// # Panics
    /// If the places are not those that [`Runtime::reserve`] gave for these triggers just now.
    pub fn declare(&self, places: &[u32], triggers: Vec<(Arc<Plan>, Declared)>) {
        let now = self.now();
        let mut declared = Vec::with_capacity(triggers.len());
        let mut history = Vec::new();
        let mut effects = Effects::default();
        let mut engine = lock(&self.shared.engine);
        {
            let mut polls = lock(&self.shared.polls);
            if !triggers.is_empty() {
                self.shared.begin_polling(&mut polls);
            }
            for (&place, (plan, mut trigger)) in places.iter().zip(triggers) {
                let before = engine.place_of(&trigger.row.name);
                self.shared.listens(&plan);
                history.extend(polls.put(place, before, &trigger.row.name, plan, now.mono));
                trigger.row.origin_at = polls.poller.origin_at(place, now);
                declared.push((place, trigger));
            }
        }
        if !history.is_empty() {
            engine.step(Event::History(history), now, &mut effects);
        }
        engine.step(Event::Triggers(declared), now, &mut effects);
        self.shared.carry_out(engine, effects);
    }

    /// Polls the trigger of that name no more, if it is declared here.
    pub fn withdraw(&self, trigger: &str) {
        let mut effects = Effects::default();
        let mut engine = lock(&self.shared.engine);
        let Some(place) = engine.place_of(trigger) else { return };
        lock(&self.shared.polls).poller.withdraw(place);
        engine.step(Event::Withdrawn(place), self.now(), &mut effects);
        self.shared.carry_out(engine, effects);
        self.shared.wake_liaison();
    }

    /// The places for triggers of these names, all of them different, that are about to be declared, and by this thread alone: free ones of
    /// their own, or new ones.
    pub fn reserve(&self, triggers: &[String]) -> Vec<u32> {
        let polls = lock(&self.shared.polls);
        let mut new = polls.poller.places()..;
        let mut place = |name: &String| {
            let free = polls.poller.free_place(name);
            free.unwrap_or_else(|| new.next().expect("triggers are fewer than 2^32"))
        };
        triggers.iter().map(&mut place).collect()
    }

    /// The program wants to hear of failed polls of the triggers in these places, of which there need be none yet.
    pub fn hear(&self, places: impl IntoIterator<Item = u32>) {
        lock(&self.shared.polls).heard.extend(places);
    }

    /// Bodies of the triggers in these places, of which there need be none yet, can be stopped.
    pub fn stoppable(&self, places: impl IntoIterator<Item = u32>) {
        lock(&self.shared.polls).stoppable.extend(places);
    }
}
