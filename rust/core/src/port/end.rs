//! Ends of runs that somebody is to be told of. Invariant: an end is written down with what ends the run, in one transaction, and stands
//! until whoever it is for has been told.

use std::sync::Arc;

use uuid::Uuid;

use crate::key::{EndKey, Epoch, ScheduleKey};
use crate::record::RunStatus;
use crate::time::Wall;

/// Of which ends somebody wants to hear, as a set of final states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Outcomes(u8);

impl Outcomes {
    /// The set that these bits stand for.
    pub fn from_bits(bits: i64) -> Self {
        Self(bits as u8 & 7)
    }

    /// The set as the store keeps it: 1 Completed, 2 Failed, 4 Cancelled.
    pub fn bits(self) -> i64 {
        i64::from(self.0)
    }

    /// The same and this one.
    #[must_use]
    pub fn with(self, status: RunStatus) -> Self {
        let bit = match status {
            RunStatus::Completed => 1,
            RunStatus::Failed => 2,
            RunStatus::Cancelled => 4,
            RunStatus::Pending | RunStatus::Running => 0,
        };
        Self(self.0 | bit)
    }

    /// The states in the set.
    pub fn statuses(self) -> impl Iterator<Item = RunStatus> {
        let all = [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled];
        all.into_iter().filter(move |&status| Self::default().with(status).0 & self.0 != 0)
    }

    /// The one state of a set of one.
    pub fn only(self) -> Option<RunStatus> {
        [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled]
            .into_iter()
            .find(|&status| Self::default().with(status) == self)
    }
}

/// An end that a runner is to tell its program of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The store's key.
    pub key: EndKey,
    /// The run that ended.
    pub run: Uuid,
    /// Its workflow.
    pub workflow: String,
    /// Which of its ends this is, from 1: a run that was opened again has several.
    pub number: u32,
    /// How it ended.
    pub status: RunStatus,
    /// When; none if it has been opened again since.
    pub ended_at: Option<Wall>,
    /// Which call this is, from 1.
    pub tries: u32,
}

/// Of which ends a trigger is to be told instead of being polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnRun {
    /// Of runs of this workflow.
    pub workflow: Arc<str>,
    /// In these states.
    pub outcomes: Outcomes,
}

/// How many ends may have led to one another, each by a run that a trigger fired for the one before.
pub const CHAIN_MAX: u32 = 100;

/// An end that a trigger is to be told of. There is one for each trigger that asked for it before the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The store's key; no other end ever has it.
    pub key: EndKey,
    /// The trigger's row.
    pub listener: ScheduleKey,
    /// The run that ended.
    pub run: Uuid,
    /// Which of its ends this is, from 1: a run that was opened again has several.
    pub number: u32,
    /// How it ended.
    pub status: RunStatus,
    /// When.
    pub ended_at: Wall,
    /// How many ends led to the run.
    pub depth: u32,
    /// What the run was when it ended, if it has been opened again since.
    pub kept: Option<AsItWas>,
}

impl Ending {
    /// What a tick says of it.
    pub fn told(&self) -> Told {
        Told { end: self.key, depth: self.depth.saturating_add(1) }
    }
}

/// Of a run that was opened again, how it had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsItWas {
    /// Its final context, as JSON text.
    pub context: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// The end that a tick is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The end, which its trigger is not told of again.
    pub end: EndKey,
    /// How many ends lead to the runs that it fires.
    pub depth: u32,
}

/// An end that its trigger is not told of any more, because somebody has said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The run that ended.
    pub run: Uuid,
    /// Which of its ends this is, from 1.
    pub number: u32,
    /// How it ended.
    pub status: RunStatus,
    /// The trigger's cursor, JSON text.
    pub cursor: Option<String>,
    /// How often somebody has moved the trigger on beside its polls. More than before if that end was its next one.
    pub cursor_set: i64,
}

/// Why nothing is to be called for an end any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Its callback was called, and came back.
    Called,
    /// It raised for a day, in its last call this; or its process died in each of so many calls.
    GivenUp(Option<String>),
    /// There is no such callback any more, or the run was opened again.
    Withdrawn,
}

/// What became of an end that a callback was to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFate {
    /// It was told.
    Told,
    /// It raised too often.
    GivenUp,
    /// Somebody has said that it is not to be told.
    Skipped,
    /// Nobody declares such a callback any more.
    Dropped,
}

impl CallFate {
    const NAMES: [(Self, &'static str); 4] = [
        (Self::Told, "told"),
        (Self::GivenUp, "given_up"),
        (Self::Skipped, "skipped"),
        (Self::Dropped, "dropped"),
    ];

    /// As the store keeps it, and listings show it.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(fate, _)| *fate == self).map_or("", |(_, name)| name)
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(fate, _)| *fate)
    }
}

impl Settled {
    /// What is kept of it; nothing of what was withdrawn.
    pub fn fate(&self) -> Option<CallFate> {
        match self {
            Self::Called => Some(CallFate::Told),
            Self::GivenUp(_) => Some(CallFate::GivenUp),
            Self::Withdrawn => None,
        }
    }

    /// What its last call raised, where that is what settled it.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::GivenUp(error) => error.as_deref(),
            Self::Called | Self::Withdrawn => None,
        }
    }
}

/// A workflow of which ends wait for callbacks that nobody declares any more, though somebody declares the workflow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unwanted {
    /// Its name.
    pub workflow: String,
    /// Since when, by the clock of who noticed. Once somebody has begun anew to declare the workflow this is another time.
    pub since: Wall,
}

/// The last end of a run of which a callback is not to be told any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCall {
    /// How the run had ended.
    pub status: RunStatus,
    /// What became of it.
    pub fate: CallFate,
    /// So many calls were begun.
    pub tries: u32,
    /// When that was settled.
    pub at: Wall,
    /// What the last of those calls that failed raised; none if the last one came back, or none was begun.
    pub error: Option<String>,
}

/// An end of which a run's callback is still to be told, as who looks at the run sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// How the run had ended.
    pub status: RunStatus,
    /// So many calls have begun.
    pub tries: u32,
    /// When the next one is due.
    pub due_at: Wall,
    /// What the last one raised.
    pub error: Option<String>,
    /// Who is calling, and since when.
    pub begun: Option<(Epoch, Wall)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_outcomes_is_kept_as_the_states_that_are_in_it() {
        let both = Outcomes::default().with(RunStatus::Failed).with(RunStatus::Cancelled);
        assert_eq!(both.bits(), 6);
        assert_eq!(Outcomes::from_bits(6 | 8), both, "what is no state is in no set");
        assert_eq!(both.statuses().collect::<Vec<_>>(), [RunStatus::Failed, RunStatus::Cancelled]);
        assert_eq!(both.only(), None);
        assert_eq!(Outcomes::from_bits(2).only(), Some(RunStatus::Failed));
        assert_eq!(Outcomes::default().with(RunStatus::Running), Outcomes::default());
    }

    #[test]
    fn what_became_of_an_end_is_known_by_its_name() {
        for fate in [CallFate::Told, CallFate::GivenUp, CallFate::Skipped, CallFate::Dropped] {
            assert_eq!(CallFate::from_name(fate.name()), Some(fate));
        }
        assert_eq!(CallFate::from_name(""), None);
        assert_eq!(Settled::Withdrawn.fate(), None);
        assert_eq!(Settled::Called.fate().map(CallFate::name), Some("told"));
        assert_eq!(Settled::GivenUp(None).fate().map(CallFate::name), Some("given_up"));
    }

    #[test]
    fn what_an_end_leads_to_stands_one_deeper() {
        let ended_at = Wall(1);
        let end = |depth| Ending {
            key: EndKey(1),
            listener: ScheduleKey(1),
            run: Uuid::nil(),
            number: 1,
            status: RunStatus::Failed,
            ended_at,
            depth,
            kept: None,
        };
        assert_eq!([0, 99, u32::MAX].map(|depth| end(depth).told().depth), [1, 100, u32::MAX]);
    }
}
