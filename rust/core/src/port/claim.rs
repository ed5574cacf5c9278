//! What passes from a runner to the next one: unfinished runs, and who else lives.

use std::time::Duration;

use uuid::Uuid;

use crate::key::{EndKey, Epoch, RunRow, ScheduleKey};
use crate::record::{ContextHash, TaskRecord};
use crate::time::Wall;
use crate::urgency::Priority;

/// An unfinished run with what is known of its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// The store's key.
    pub row: RunRow,
    /// The public id.
    pub id: Uuid,
    /// The workflow's name.
    pub workflow: String,
    /// The version under which it was started.
    pub version: String,
    /// The first context.
    pub context: String,
    /// The schedule that fired it, with its hash if that guards.
    pub schedule: Option<ScheduleKey>,
    /// Its context hash.
    pub context_hash: Option<ContextHash>,
    /// Held back while an earlier run of its schedule is unfinished.
    pub waits: bool,
    /// Whether it was final, and was opened again where runs wait for each other: then it stands behind all that was unfinished by then.
    pub is_again: bool,
    /// How urgent it is.
    pub priority: Priority,
    /// When it was to begin, if whoever asked for it had said so.
    pub due_at: Option<Wall>,
    /// When it was created.
    pub created_at: Wall,
    /// How often a runner took it over after another's end.
    pub interruptions: u32,
    /// Who had it before, unless that gave it up.
    pub owner_before: Option<Epoch>,
    /// Whether somebody asked for its end.
    pub cancelled: bool,
    /// Whether a runner has had it that declares another version.
    pub is_mixed: bool,
    /// Whether another run has called it.
    pub is_child: bool,
    /// What the telemetry of whoever asked for it hands on to its bodies, as JSON text. It changes nothing.
    pub trace: Option<String>,
    /// How much of its time had gone by; none of one that has not begun.
    pub spent: Option<Spent>,
    /// Whether limits of its workflow count it: its end may let another one begin.
    pub is_limited: bool,
    /// Whether it is nobody's, and waits until they let it begin.
    pub is_held: bool,
    /// Every task with a record.
    pub tasks: Vec<TaskRecord>,
    /// If it waits: earlier ones that do, in their order; all that are unfinished if it was opened again.
    pub behind: Vec<Uuid>,
}

impl Unfinished {
    /// Whether nobody can have begun it: it was offered, waited for its time, or was left before it began.
    pub fn is_new(&self) -> bool {
        self.owner_before.is_none() && self.interruptions == 0 && self.tasks.is_empty()
    }
}

/// How much of a run's time has gone by, as far as that is on record: it stands still while nobody has the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Since when it ran under its last owner.
    pub since: Wall,
    /// What was left of it then, in microseconds; none if that was all of it.
    pub left_us: Option<i64>,
    /// When the last thing was noted of the run.
    pub until: Wall,
}

impl Spent {
    /// What is on record at `at` of a run whose time ran since then: `tried_at` is when the last of its attempts ended that did not complete its
    /// task, and `seen_at` when its last owner was last seen alive, if that died with it: what waits for days puts nothing on record of itself.
    /// Until a retry, or a time that an attempt has named, it goes on.
    pub fn of(
        since: Wall,
        left_us: Option<i64>,
        tasks: &[TaskRecord],
        tried_at: Option<Wall>,
        seen_at: Option<Wall>,
        at: Wall,
    ) -> Self {
        let waits = tasks.iter().filter_map(|task| Some(task.wait?.not_before.min(at)));
        let noted = tasks.iter().flat_map(|task| [task.started_at, task.completed_at]).flatten();
        let seen = seen_at.map(|seen| seen.min(at));
        let last = noted.chain(waits).chain(tried_at).chain(seen).max().unwrap_or(since);
        Self { since, left_us, until: last.max(since) }
    }

    /// What is left of `timeout`, which is how long a run may take where it goes on.
    pub fn left(&self, timeout: Duration) -> Duration {
        let left = self.left_us.map_or(timeout, |left| micros(left).min(timeout));
        left.saturating_sub(micros(self.until.0.saturating_sub(self.since.0)))
    }
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// What may begin of what limits have held.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allowed {
    /// Handed out, in the order in which they are to begin.
    pub runs: Vec<Unfinished>,
    /// Whether more could begin now, for whoever has room for it.
    pub is_more: bool,
    /// When the next may begin, as far as that is a matter of time.
    pub next_at: Option<Wall>,
}

/// Who else serves a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Siblings {
    /// How many were found dead now.
    pub buried: u64,
    /// Other owners that live, by their epochs.
    pub living: Vec<Epoch>,
    /// Those of them that end what they have in hand and take nothing more.
    pub draining: Vec<Epoch>,
    /// The newest of those that have left or were found dead.
    pub departed: Option<Epoch>,
    /// Whether who asks was taken for dead itself: nothing that it writes counts any more.
    pub is_buried: bool,
}

/// Who was there at the last look. Epochs only grow: one that is gone by the next look, and had not joined before the last, shows by its number.
#[derive(Debug, Default)]
pub struct Company {
    living: Vec<Epoch>,
    /// Those of them that do not drain.
    at_work: Vec<Epoch>,
    newest: Epoch,
}

impl Company {
    /// Whether somebody else may have what that owner had; none has what was let go of.
    pub fn is_free(&self, owner: Option<Epoch>) -> bool {
        owner.is_none_or(|owner| !self.living.contains(&owner))
    }

    /// The others that lived and did not drain: what is left to others is theirs.
    pub fn at_work(&self) -> &[Epoch] {
        &self.at_work
    }

    /// Whether nobody else lived.
    pub fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// Whether anyone has gone since the last look, or nobody has looked before.
    pub fn has_shrunk(last: &mut Option<Self>, siblings: &Siblings) -> bool {
        let newest = siblings.living.iter().copied().chain(siblings.departed).max().unwrap_or_default();
        let drains = |epoch: &&Epoch| siblings.draining.contains(epoch);
        let at_work = siblings.living.iter().filter(|epoch| !drains(epoch)).copied().collect();
        let before = last.replace(Self { living: siblings.living.clone(), at_work, newest });
        let Some(before) = before else { return true };
        let is_gone = |epoch: &Epoch| !siblings.living.contains(epoch);
        siblings.buried > 0 || siblings.departed > Some(before.newest) || before.living.iter().any(is_gone)
    }
}

/// Why nothing is handed to a runner that was taken for dead.
pub const BURIED: &str = "the store takes this runner for dead; make a new one";

/// What a runner that leaves cannot give up yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InFlight {
    /// Runs with an attempt whose body still runs.
    pub runs: Vec<Uuid>,
    /// Rows of triggers whose polls have not come back.
    pub triggers: Vec<ScheduleKey>,
    /// Ends of which the program is being told.
    pub ends: Vec<EndKey>,
}

impl InFlight {
    /// Whether everything is home.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.triggers.is_empty() && self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Wait;
    use crate::record::TaskStatus;

    const SECOND: i64 = 1_000_000;
    const MINUTE: Duration = Duration::from_secs(60);

    fn task(started: i64, completed: Option<i64>, waits_until: Option<i64>) -> TaskRecord {
        let status = if completed.is_some() { TaskStatus::Completed } else { TaskStatus::Running };
        TaskRecord {
            name: "t".into(),
            status,
            attempt: 1,
            interrupted: 0,
            postponed: 0,
            wait: waits_until.map(|until| Wait { not_before: Wall(until * SECOND), span_us: SECOND }),
            rests_since: None,
            checkpoint: None,
            context: None,
            error: None,
            error_type: None,
            tries: Vec::new(),
            started_at: Some(Wall(started * SECOND)),
            completed_at: completed.map(|at| Wall(at * SECOND)),
        }
    }

    fn left(left: Option<i64>, tasks: &[TaskRecord], tried: Option<i64>, at: i64) -> u64 {
        left_of_seen(left, tasks, tried, None, at)
    }

    fn left_of_seen(
        left: Option<i64>,
        tasks: &[TaskRecord],
        tried: Option<i64>,
        seen: Option<i64>,
        at: i64,
    ) -> u64 {
        let wall = |seconds: i64| Wall(seconds * SECOND);
        let left_us = left.map(|left| left * SECOND);
        let spent = Spent::of(wall(100), left_us, tasks, tried.map(wall), seen.map(wall), wall(at));
        spent.left(MINUTE).as_secs()
    }

    #[test]
    fn what_is_left_is_what_was_less_what_is_on_record() {
        assert_eq!(left(None, &[task(100, None, None)], None, 9000), 60, "nothing was noted since it began");
        assert_eq!(left(None, &[task(100, Some(125), None), task(130, None, None)], None, 9000), 30);
        assert_eq!(left(None, &[task(100, None, None)], Some(150), 9000), 10, "an attempt has ended then");
        assert_eq!(left(None, &[task(100, Some(175), None)], None, 9000), 0);
        assert_eq!(left(Some(20), &[task(50, Some(105), None)], None, 9000), 15, "it was its second owner");
        assert_eq!(
            left(Some(600), &[task(100, None, None)], None, 9000),
            60,
            "no more than it may take here"
        );
    }

    #[test]
    fn it_goes_on_in_back_off_until_that_is_over() {
        let waits = [task(100, None, Some(140))];
        assert_eq!(left(None, &waits, Some(101), 9000), 20);
        assert_eq!(left(None, &waits, Some(101), 110), 50);
    }

    #[test]
    fn it_has_gone_on_for_as_long_as_its_owner_was_seen_alive() {
        let waits = [task(100, None, None)];
        assert_eq!(left_of_seen(None, &waits, None, Some(145), 9000), 15);
        assert_eq!(left_of_seen(Some(50), &waits, None, Some(145), 9000), 5);
        assert_eq!(left_of_seen(None, &waits, Some(150), Some(145), 9000), 10, "what came after counts");
        assert_eq!(left_of_seen(None, &waits, None, Some(90), 9000), 60, "not since it began");
        assert_eq!(left_of_seen(None, &waits, None, Some(9000), 110), 50, "nobody is seen in times to come");
    }

    #[test]
    fn times_that_a_wrong_clock_has_left_give_no_time_and_take_none_back() {
        assert_eq!(left(None, &[task(10, Some(20), None)], None, 9000), 60);
        assert_eq!(left(Some(-5), &[task(100, None, None)], None, 9000), 0);
    }
}
