//! Says where a run stands, for who asks why it is not over. Pure: changes nothing, and guesses nothing about runs of others.
//! Invariant: what it says of a run in hand is what the next event finds.

use uuid::Uuid;

use crate::engine::Engine;
use crate::engine::timers::Timer;
use crate::key::ScheduleKey;
use crate::run::{Doing, TaskStanding};
use crate::time::{Mono, Now, Wall};

/// Where a run stands that this runner has taken.
#[derive(Debug, Clone, PartialEq)]
pub enum RunStanding {
    /// It begins when those of its trigger before it are over.
    Turn {
        /// The one whose end is next.
        behind: Uuid,
        /// So many are before it.
        ahead: usize,
    },
    /// It waits for its workflow to be declared here.
    Undeclared,
    /// It is driven here.
    InHand {
        /// Whether its end was asked for, or its time is up.
        is_halted: bool,
        /// Whether all its tasks are final.
        is_at_its_end: bool,
        /// When its time is up; none before its first task begins here.
        ends_by: Option<Wall>,
        /// Who gives it that time.
        setting: &'static str,
        /// What the end waits for.
        tasks: Vec<TaskStanding>,
    },
}

impl Engine {
    /// Where a run stands; none if this runner does not have it.
    pub fn run_standing(&self, id: Uuid, now: Now) -> Option<RunStanding> {
        let Some(run) = self.runs.get(&id) else {
            let waits = self.waiting.values().flatten().any(|unfinished| unfinished.id == id);
            return waits.then_some(RunStanding::Undeclared);
        };
        if self.turns.contains_key(&id) {
            let before = self.gate.before(id);
            if let Some(&behind) = before.first() {
                return Some(RunStanding::Turn { behind, ahead: before.len() });
            }
        }
        let mut tasks = run.standings();
        for TaskStanding { doing, number, limits, .. } in &mut tasks {
            if let Some(awaited) = self.seats.awaited_by(id, *number) {
                (*doing, *limits) = (Doing::Limited, awaited.to_vec());
            }
            if let Doing::Retry(at) | Doing::Postponed(at) = doing {
                // A monotonic moment in the words of the wall clock.
                let due = self.retry_due(id, *number, run.life);
                *at = due.map(|due| now.wall.after(due.since(now.mono)));
            }
        }
        let ends_by = self.run_timer.get(&id).and_then(|&timer| self.timers.due(timer));
        let ends_by = ends_by.map(|due| now.wall.after(due.since(now.mono)));
        let (is_halted, is_at_its_end) = (run.is_halted(), run.is_at_its_end());
        let setting = self.grantor_of_time(id);
        Some(RunStanding::InHand { is_halted, is_at_its_end, ends_by, setting, tasks })
    }

    /// How many runs of the trigger with that row are unfinished, whoever drives them.
    pub fn unfinished_of(&self, schedule: ScheduleKey) -> usize {
        self.gate.unfinished(schedule)
    }

    /// When a task's next attempt is due. It looks through all timers, for nobody asks often.
    fn retry_due(&self, id: Uuid, task: usize, life: u32) -> Option<Mono> {
        let is_it = |timer: &Option<Timer>| matches!(timer, Some(Timer::Retry(run, of, at)) if (*run, *of, *at) == (id, task, life));
        let timer = self.timer_of.iter().position(is_it)?;
        self.timers.due(u32::try_from(timer).expect("timers are fewer than 2^32"))
    }
}
