//! Decides the fate of each fire, by the table in memory. It refuses the cheap cases; the unique index inside the commit is the
//! truth, and its receipt corrects the table.
//! Invariant: the table holds exactly the unfinished runs of triggers that this runner polls or drives runs of, whoever drives them,
//! and every refusal names its cause, because `why` can only repeat what is said here.

use std::collections::BTreeMap;
use std::ops::Bound;

use uuid::Uuid;

use crate::key::{ById, ScheduleKey};
use crate::port::{ContextHash, Room};

/// At most so many runs of one trigger wait for their turn; further fires are dropped, and say so.
pub const QUEUE_MAX: usize = 100_000;

/// What a fire does while a run of its trigger is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// Starts beside it.
    #[default]
    Allow,
    /// Is dropped.
    Skip,
    /// Waits for its turn.
    Queue,
    /// Waits for its turn, if no other waits; otherwise it is dropped.
    BufferOne,
    /// Cancels it, and starts when that has ended.
    CancelRunning,
}

impl Overlap {
    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::BufferOne => "buffer_one",
            Self::CancelRunning => "cancel_running",
        }
    }

    /// The policy of that public name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Allow, Self::Skip, Self::Queue, Self::BufferOne, Self::CancelRunning];
        all.into_iter().find(|policy| policy.name() == name)
    }

    /// How many runs of a trigger may be unfinished at once, one at work and those that wait; any number if none.
    pub fn most(self) -> Option<usize> {
        match self {
            Self::Allow => None,
            Self::Skip => Some(1),
            Self::BufferOne => Some(2),
            Self::Queue | Self::CancelRunning => Some(QUEUE_MAX + 1),
        }
    }

    /// How a fire is refused where there is no room behind that unfinished run.
    pub fn refusal(self, with: Uuid) -> Admission {
        match self {
            Self::Queue | Self::CancelRunning => Admission::QueueFull,
            Self::Allow | Self::Skip | Self::BufferOne => Admission::Overlaps { with },
        }
    }

    /// Whether its runs go one after another.
    pub fn waits(self) -> bool {
        matches!(self, Self::Queue | Self::BufferOne | Self::CancelRunning)
    }
}

/// The fate of a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It becomes a run, unless the store knows better.
    Run,
    /// Dropped: this unfinished run of the same trigger has an equal context.
    Duplicate {
        /// The run that stands in the way.
        of: Uuid,
    },
    /// Dropped by its overlap policy, because this run is unfinished.
    Overlaps {
        /// The run that stands in the way.
        with: Uuid,
    },
    /// Dropped: as many runs wait as may.
    QueueFull,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    schedule: ScheduleKey,
    hash: Option<ContextHash>,
    order: i64,
}

/// The unfinished runs that triggers fired.
#[derive(Debug, Default)]
pub struct Gate {
    by_hash: ById<(ScheduleKey, ContextHash), Uuid>,
    by_run: ById<Uuid, Entry>,
    lines: ById<ScheduleKey, BTreeMap<i64, Uuid>>,
    /// Those whose hash another one guarded when they were noted, by that and by their places: one of two fires of a poll is not kept, as a rule.
    second: BTreeMap<(ScheduleKey, ContextHash, i64), Uuid>,
    /// The last place that was given at the end of a line.
    last: i64,
}

impl Gate {
    /// The fate of a fire of this trigger. `hash` is none if equal contexts may run side by side.
    pub fn admit(&self, schedule: ScheduleKey, hash: Option<ContextHash>, overlap: Overlap) -> Admission {
        if let Some(of) = hash.and_then(|hash| self.equal(schedule, hash)) {
            return Admission::Duplicate { of };
        }
        let full = self.room(schedule, overlap).filter(|room| room.runs == 0);
        full.and_then(|room| room.with).map_or(Admission::Run, |with| overlap.refusal(with))
    }

    /// The unfinished run of that trigger that guards that hash.
    pub fn equal(&self, schedule: ScheduleKey, hash: ContextHash) -> Option<Uuid> {
        self.by_hash.get(&(schedule, hash)).copied()
    }

    /// How many more runs of this trigger may start or wait; any number if none. Until a tick is kept its fires stand in the line, too.
    pub fn room(&self, schedule: ScheduleKey, overlap: Overlap) -> Option<Room> {
        let most = overlap.most()?;
        let line = self.lines.get(&schedule);
        let many = line.map_or(0, BTreeMap::len);
        let with = line.and_then(|line| line.first_key_value()).map(|(_, &run)| run);
        Some(Room { runs: most.saturating_sub(many) as u64, with })
    }

    /// The run that stands first in the line of that trigger.
    pub fn first_of(&self, schedule: ScheduleKey) -> Option<Uuid> {
        self.lines.get(&schedule)?.first_key_value().map(|(_, &run)| run)
    }

    /// How many runs of that trigger are unfinished.
    pub fn unfinished(&self, schedule: ScheduleKey) -> usize {
        self.lines.get(&schedule).map_or(0, BTreeMap::len)
    }

    /// Notes an unfinished run, behind those noted before; its hash guards until it is released. One that was noted keeps its place.
    pub fn hold(&mut self, schedule: ScheduleKey, hash: Option<ContextHash>, run: Uuid) {
        self.last += 1;
        let order = self.by_run.get(&run).map_or(self.last, |entry| entry.order);
        self.stand(schedule, hash, run, order);
    }

    /// Notes unfinished runs that came right before one that is noted. Those that stand before it keep their places.
    pub fn hold_before(&mut self, run: Uuid, others: &[Uuid]) {
        let Some(entry) = self.by_run.get(&run).copied() else { return };
        let stands_before = |other: &Uuid| self.by_run.get(other).is_some_and(|it| it.order < entry.order);
        let others: Vec<Uuid> = others.iter().copied().filter(|other| !stands_before(other)).collect();
        for &other in &others {
            let hash = self.by_run.get(&other).and_then(|entry| entry.hash);
            self.hold(entry.schedule, hash, other);
        }
        self.move_behind(entry.schedule, Some(entry.order - 1), &others);
    }

    /// A run that is noted came right behind the last of those.
    pub fn stand_behind(&mut self, run: Uuid, before: &[Uuid]) {
        let Some(schedule) = self.by_run.get(&run).map(|entry| entry.schedule) else { return };
        let of = |other: &Uuid| self.by_run.get(other).filter(|entry| entry.schedule == schedule);
        let last = before.iter().filter_map(|other| Some(of(other)?.order)).max();
        self.move_behind(schedule, last, &[run]);
    }

    /// Lets noted runs stand right behind that place, and what stood there behind them.
    fn move_behind(&mut self, schedule: ScheduleKey, place: Option<i64>, runs: &[Uuid]) {
        let Some(line) = self.lines.get(&schedule) else { return };
        // It is the end of a line that moves, and mostly a short one.
        let behind = line.range((place.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let mut behind = behind.map(|(_, &run)| run).peekable();
        if behind.peek() == runs.first() && runs.len() == 1 {
            return;
        }
        let rest: Vec<Uuid> = behind.filter(|run| !runs.contains(run)).collect();
        for run in runs.iter().copied().chain(rest) {
            let entry = self.by_run[&run];
            self.lines.entry(schedule).or_default().remove(&entry.order);
            entry.hash.inspect(|&hash| self.unguard(&entry, hash, run));
            self.last += 1;
            self.stand(schedule, entry.hash, run, self.last);
        }
    }

    fn stand(&mut self, schedule: ScheduleKey, hash: Option<ContextHash>, run: Uuid, order: i64) {
        self.by_run.insert(run, Entry { schedule, hash, order });
        self.lines.entry(schedule).or_default().insert(order, run);
        if let Some(hash) = hash {
            let first = *self.by_hash.entry((schedule, hash)).or_insert(run);
            if first != run {
                self.second.insert((schedule, hash, order), run);
            }
        }
    }

    /// Whether a run stands in a line.
    pub fn holds(&self, run: Uuid) -> bool {
        self.by_run.contains_key(&run)
    }

    /// Whether no earlier run of the same trigger is unfinished.
    pub fn is_first(&self, run: Uuid) -> bool {
        let Some(entry) = self.by_run.get(&run) else { return true };
        let line = &self.lines[&entry.schedule];
        line.first_key_value().is_none_or(|(&first, _)| first == entry.order)
    }

    /// The run that stands first in the line of that one.
    pub fn first_beside(&self, run: Uuid) -> Option<Uuid> {
        let line = self.lines.get(&self.by_run.get(&run)?.schedule)?;
        line.first_key_value().map(|(_, &first)| first)
    }

    /// Unfinished runs of the same trigger that came before.
    pub fn before(&self, run: Uuid) -> Vec<Uuid> {
        let Some(entry) = self.by_run.get(&run) else { return Vec::new() };
        self.lines[&entry.schedule].range(..entry.order).map(|(_, &run)| run).collect()
    }

    /// Unfinished runs of the same trigger that came after.
    pub fn behind(&self, run: Uuid) -> impl Iterator<Item = Uuid> {
        let entry = self.by_run.get(&run);
        let line = entry.and_then(|entry| Some((self.lines.get(&entry.schedule)?, entry.order)));
        line.into_iter().flat_map(|(line, order)| line.range(order + 1..).map(|(_, &run)| run))
    }

    /// Takes a run out and returns the one whose turn it is then.
    pub fn release(&mut self, run: Uuid) -> Option<Uuid> {
        let entry = self.by_run.remove(&run)?;
        if let Some(hash) = entry.hash {
            self.unguard(&entry, hash, run);
        }
        let line = self.lines.get_mut(&entry.schedule).expect("a held run stands in a line");
        line.remove(&entry.order);
        let next = line.first_key_value().map(|(_, &run)| run);
        if next.is_none() {
            self.lines.remove(&entry.schedule);
        }
        next
    }

    fn unguard(&mut self, entry: &Entry, hash: ContextHash, run: Uuid) {
        let Entry { schedule, order, .. } = *entry;
        if self.by_hash.get(&(schedule, hash)) != Some(&run) {
            self.second.remove(&(schedule, hash, order));
            return;
        }
        let mut others = self.second.range((schedule, hash, i64::MIN)..=(schedule, hash, i64::MAX));
        match others.next().map(|(&place, &other)| (place, other)) {
            Some((place, other)) => {
                self.second.remove(&place);
                self.by_hash.insert((schedule, hash), other);
            }
            None => drop(self.by_hash.remove(&(schedule, hash))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: Option<ContextHash> = Some([7; 16]);

    fn run(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn a_held_hash_refuses_only_its_own_trigger() {
        let mut gate = Gate::default();
        gate.hold(ScheduleKey(1), HASH, run(1));
        assert_eq!(gate.admit(ScheduleKey(1), HASH, Overlap::Allow), Admission::Duplicate { of: run(1) });
        assert_eq!(gate.admit(ScheduleKey(2), HASH, Overlap::Allow), Admission::Run);
        assert_eq!(gate.admit(ScheduleKey(1), None, Overlap::Allow), Admission::Run);
        assert_eq!(gate.release(run(1)), None);
        assert_eq!(gate.admit(ScheduleKey(1), HASH, Overlap::Allow), Admission::Run);
    }

    #[test]
    fn each_overlap_policy_has_its_answer_while_a_run_is_unfinished() {
        let mut gate = Gate::default();
        gate.hold(ScheduleKey(1), None, run(1));
        let overlaps = Admission::Overlaps { with: run(1) };
        assert_eq!(gate.admit(ScheduleKey(1), HASH, Overlap::Skip), overlaps);
        for policy in [Overlap::Allow, Overlap::Queue, Overlap::BufferOne, Overlap::CancelRunning] {
            assert_eq!(gate.admit(ScheduleKey(1), HASH, policy), Admission::Run);
        }
        gate.hold(ScheduleKey(1), None, run(2));
        assert_eq!(gate.admit(ScheduleKey(1), HASH, Overlap::BufferOne), overlaps);
        assert_eq!(gate.admit(ScheduleKey(1), HASH, Overlap::Queue), Admission::Run);
    }

    #[test]
    fn a_run_can_be_noted_among_others() {
        let mut gate = Gate::default();
        for number in 1..=3 {
            gate.hold(ScheduleKey(1), None, run(number));
        }
        gate.hold(ScheduleKey(1), HASH, run(4));
        // Between the first and the second one.
        gate.stand_behind(run(4), &[run(1)]);
        assert_eq!(gate.before(run(3)), [run(1), run(4), run(2)]);
        // Before the third one, which guards no less.
        gate.hold_before(run(3), &[run(6), run(5)]);
        assert_eq!(gate.before(run(3)), [run(1), run(4), run(2), run(6), run(5)]);
        assert_eq!(gate.equal(ScheduleKey(1), [7; 16]), Some(run(4)));
        // The first one stands before the fourth, the third was noted behind it.
        gate.hold_before(run(4), &[run(1), run(3)]);
        assert_eq!(gate.before(run(2)), [run(1), run(3), run(4)]);
        // Of what is unknown here nothing is before it.
        gate.stand_behind(run(5), &[run(7)]);
        assert_eq!(
            [5, 1, 4, 2, 6, 3].map(|number| gate.release(run(number))),
            [Some(run(1)), Some(run(3)), Some(run(3)), Some(run(3)), Some(run(3)), None]
        );
    }

    #[test]
    fn a_run_that_is_noted_again_keeps_its_place_and_gets_its_hash() {
        let mut gate = Gate::default();
        gate.hold(ScheduleKey(1), None, run(1));
        gate.hold(ScheduleKey(1), None, run(2));
        gate.hold(ScheduleKey(1), HASH, run(1));
        assert_eq!(gate.before(run(2)), [run(1)]);
        assert_eq!(gate.admit(ScheduleKey(1), HASH, Overlap::Allow), Admission::Duplicate { of: run(1) });
        assert_eq!(gate.release(run(1)), Some(run(2)));
        assert_eq!(gate.release(run(2)), None);
    }

    #[test]
    fn what_guards_a_hash_besides_its_first_run_guards_on_when_that_is_gone() {
        for order in [[1, 2, 3], [2, 1, 3], [3, 2, 1], [1, 3, 2]] {
            let mut gate = Gate::default();
            for number in 1..=3 {
                gate.hold(ScheduleKey(1), HASH, run(number));
            }
            gate.stand_behind(run(3), &[]);
            let mut left = vec![1, 2, 3];
            for number in order {
                let of = gate.equal(ScheduleKey(1), [7; 16]).expect("one is unfinished");
                assert!(left.iter().any(|&number| run(number) == of), "{of} guards, of {left:?}");
                gate.release(run(number));
                left.retain(|&other| other != number);
            }
            assert_eq!(gate.equal(ScheduleKey(1), [7; 16]), None);
            assert!(gate.second.is_empty());
        }
    }

    #[test]
    fn a_long_line_is_not_walked_to_tell_who_stands_first() {
        let mut gate = Gate::default();
        (1..=100_000).for_each(|number| gate.hold(ScheduleKey(1), None, run(number)));
        let began = std::time::Instant::now();
        let first = (1..=100_000).filter(|&number| {
            // Far more than it takes, and far less than to walk the line for each of its runs.
            assert!(began.elapsed().as_secs() < 4, "{number} runs were looked at in four seconds");
            gate.is_first(run(number))
        });
        assert_eq!(first.collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn runs_of_one_trigger_take_turns_in_the_order_of_their_fires() {
        let mut gate = Gate::default();
        for number in [1, 2, 3] {
            gate.hold(ScheduleKey(1), None, run(number));
        }
        assert!(gate.is_first(run(1)) && !gate.is_first(run(2)));
        assert_eq!(gate.before(run(3)), [run(1), run(2)]);
        assert_eq!(gate.release(run(2)), Some(run(1)));
        assert_eq!(gate.release(run(1)), Some(run(3)));
    }
}
