//! What the user's log is told. The one place where it is worded and graded; who notes something only names it.
//! Invariant: a note names what it is about in fields, so that a count or a trace never has to read its text.

use std::fmt::{Display, Formatter, Result};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::port::BURIED;
use crate::time::Wall;

/// How grave a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Something was lost sight of or put off.
    Warning,
    /// Something that the user asked for did not happen.
    Error,
}

/// One line of the user's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A fire found no workflow of its name.
    UnknownWorkflow {
        /// The trigger or cron.
        by: Arc<str>,
        /// Empty if it names none.
        workflow: Arc<str>,
        /// Those that are declared.
        known: Vec<Arc<str>>,
    },
    /// Failed polls have switched a trigger off.
    TriggerDisabled {
        /// Its name.
        trigger: Arc<str>,
        /// Why.
        cause: Arc<str>,
    },
    /// A poll is not waited for any more.
    PollTimedOut {
        /// The trigger.
        trigger: Arc<str>,
        /// So long it was.
        timeout: Duration,
    },
    /// A poll holds a thread for much longer than its interval.
    PollTooLong {
        /// The trigger.
        trigger: Arc<str>,
        /// When it began.
        since: Wall,
        /// For so long.
        lasts: Duration,
    },
    /// No thread is left for another poll that hangs.
    LastPollerTaken {
        /// All of them.
        threads_max: usize,
        /// The triggers whose polls hold the others, in quotes.
        held_by: String,
    },
    /// Overlap dropped a fire of a poll that moved the trigger's cursor past it.
    EventLost {
        /// The trigger.
        trigger: Arc<str>,
    },
    /// A poll came to nothing, because the trigger belongs to another runner.
    TickDiscarded {
        /// The trigger.
        trigger: Arc<str>,
    },
    /// The store will never take a tick.
    TickRefused {
        /// The trigger.
        trigger: Arc<str>,
        /// In the store's words.
        why: String,
    },
    /// The store will never take a declaration.
    DeclarationRefused {
        /// The trigger.
        trigger: Arc<str>,
        /// In the store's words.
        why: String,
    },
    /// The store will never take what polls answered.
    HistoryRefused {
        /// In the store's words.
        why: String,
    },
    /// A cron cannot be read.
    CronLeftOut {
        /// The schedule.
        cron: Uuid,
        /// What is wrong with it.
        error: String,
    },
    /// A cron that a program of release 0.1.0 declared goes on, whoever declares it.
    CronOfOldRelease {
        /// The schedule.
        cron: Uuid,
        /// The trigger that it was.
        name: Arc<str>,
    },
    /// More moments of a cron were missed than are made up for.
    CronCatchUpBounded {
        /// The schedule.
        cron: Uuid,
        /// So many are.
        moments_max: usize,
    },
    /// Crons waited for moments that a clock named which was ahead.
    ClockWasAhead {
        /// So many of them.
        crons: usize,
        /// The last such moment.
        until: Wall,
    },
    /// A callback hangs.
    CallbackGivenUp {
        /// The run that it was told about.
        run: Uuid,
    },
    /// Another runner goes on with a run.
    RunTaken {
        /// Which.
        run: Uuid,
    },
    /// The store will never take what became of a run.
    ProgressRefused {
        /// Which.
        run: Uuid,
        /// In the store's words.
        why: String,
    },
    /// A run began under another version of its workflow.
    VersionDiffers {
        /// Which.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
    },
    /// A run stands still, because somebody spoilt a context of it in the store.
    ContextUnreadable {
        /// Which.
        run: Uuid,
    },
    /// Runs of runners that are gone stay where they are.
    ClaimRefused {
        /// In the store's words.
        why: String,
    },
    /// The store's own words about something that it cannot mend.
    StoreTroubled {
        /// What.
        trouble: String,
    },
    /// Writes wait until the store takes them.
    StoreRefusesWrites {
        /// In the store's words.
        why: String,
    },
    /// It takes them again.
    StoreTakesWrites,
    /// The store is gone for good, and the runner has stopped.
    StoreGone {
        /// In the store's words.
        why: String,
    },
    /// The store takes this runner for dead.
    Buried,
    /// A thread of the engine has panicked.
    EngineFault,
    /// The log came faster than it could be written.
    LinesDropped {
        /// So many lines.
        count: u64,
    },
}

impl Note {
    /// How grave it is.
    pub fn level(&self) -> Level {
        match self {
            Self::PollTooLong { .. }
            | Self::LastPollerTaken { .. }
            | Self::EventLost { .. }
            | Self::TickDiscarded { .. }
            | Self::CronOfOldRelease { .. }
            | Self::CronCatchUpBounded { .. }
            | Self::ClockWasAhead { .. }
            | Self::RunTaken { .. }
            | Self::VersionDiffers { .. }
            | Self::StoreTakesWrites
            | Self::LinesDropped { .. } => Level::Warning,
            Self::UnknownWorkflow { .. }
            | Self::TriggerDisabled { .. }
            | Self::PollTimedOut { .. }
            | Self::TickRefused { .. }
            | Self::DeclarationRefused { .. }
            | Self::HistoryRefused { .. }
            | Self::CronLeftOut { .. }
            | Self::CallbackGivenUp { .. }
            | Self::ProgressRefused { .. }
            | Self::ContextUnreadable { .. }
            | Self::ClaimRefused { .. }
            | Self::StoreTroubled { .. }
            | Self::StoreRefusesWrites { .. }
            | Self::StoreGone { .. }
            | Self::Buried
            | Self::EngineFault => Level::Error,
        }
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::UnknownWorkflow { by, workflow, known } => {
                match workflow.is_empty() {
                    true => write!(f, "trigger '{by}' fired, but names no workflow")?,
                    false => write!(f, "trigger '{by}' fired unknown workflow '{workflow}'")?,
                }
                match known.is_empty() {
                    true => f.write_str("; known workflows: there are none yet"),
                    false => write!(f, "; known workflows: {}", known.join(", ")),
                }
            }
            Self::TriggerDisabled { trigger, cause } => write!(f, "trigger '{trigger}' is disabled: {cause}"),
            Self::PollTimedOut { trigger, timeout } => {
                write!(f, "trigger '{trigger}' {}", poll_timed_out(*timeout))
            }
            Self::PollTooLong { trigger, since, lasts } => {
                let (since, seconds) = (since.rfc3339(), lasts.as_secs());
                write!(f, "trigger '{trigger}': its poll is in flight since {since}, for {seconds} s")?;
                f.write_str("; it holds a thread, and is not polled until that comes back")
            }
            Self::LastPollerTaken { threads_max, held_by } => {
                write!(f, "the last of {threads_max} pollers is taken: ")?;
                write!(
                    f,
                    "the polls of {held_by} have not come back; one more that hangs stops every trigger"
                )?;
                f.write_str(". Give bodies a time-out of their own, or raise max_pollers")
            }
            Self::TickDiscarded { trigger } => {
                write!(f, "trigger '{trigger}': another runner polls it now; its last poll was discarded")
            }
            Self::TickRefused { trigger, why } => {
                write!(f, "the tick of trigger '{trigger}' cannot be kept: {why}")
            }
            Self::DeclarationRefused { trigger, why } => {
                write!(f, "the declaration of trigger '{trigger}' cannot be kept: {why}")
            }
            Self::HistoryRefused { why } => write!(f, "history of polls cannot be kept: {why}"),
            Self::CronLeftOut { cron, error } => write!(f, "cron schedule {cron} is left out: {error}"),
            Self::CronOfOldRelease { cron, name } => {
                write!(f, "cron schedule {cron} of trigger '{name}' goes on, which release 0.1.0 left: ")?;
                write!(f, "declare a trigger of that name again, or end it by delete_cron_schedule('{cron}')")
            }
            Self::CronCatchUpBounded { cron, moments_max } => {
                write!(f, "cron schedule {cron}: of the slots that were missed ")?;
                write!(f, "only the newest {moments_max} are made up for")
            }
            Self::ClockWasAhead { crons, until } => {
                write!(f, "the clock was ahead: {crons} cron schedule(s) would have waited until ")?;
                write!(f, "{} at the latest; they go on from now", until.rfc3339())
            }
            Self::CallbackGivenUp { run } => {
                write!(f, "a callback of run {run} does not come back; the run goes on without it")
            }
            Self::EventLost { trigger } => {
                write!(
                    f,
                    "trigger '{trigger}': overlap dropped a fire of a poll that moved tick.cursor past it: that event is lost. "
                )?;
                write!(
                    f,
                    "Give each fire its own, TriggerResult.fire(context, cursor=...): that moves only past what was taken"
                )
            }
            Self::RunTaken { run } => write!(f, "run {run} was taken over by another runner"),
            Self::ProgressRefused { run, why } => {
                write!(f, "the progress of run {run} cannot be kept: {why}")
            }
            Self::VersionDiffers { run, workflow } => {
                write!(f, "run {run} of workflow '{workflow}' goes on under a version ")?;
                f.write_str("that differs from the one it began with")
            }
            Self::ContextUnreadable { run } => {
                write!(f, "run {run} does not go on: a context of it in the store cannot be read")
            }
            Self::ClaimRefused { why } => write!(f, "unfinished runs cannot be resumed: {why}"),
            Self::StoreTroubled { trouble } => f.write_str(trouble),
            Self::StoreRefusesWrites { why } => {
                write!(f, "the store refuses writes, which are kept and tried again: {why}")
            }
            Self::StoreTakesWrites => f.write_str("the store takes writes again"),
            Self::StoreGone { why } => {
                write!(f, "the store takes nothing any more, and the runner has stopped: {why}")
            }
            Self::Buried => f.write_str(BURIED),
            Self::EngineFault => f.write_str(
                "the engine met a fault and has stopped, please report it; the next runner resumes its runs",
            ),
            Self::LinesDropped { count } => write!(f, "{count} log lines were dropped"),
        }
    }
}

/// What the history says of such a poll, too.
pub fn poll_timed_out(timeout: Duration) -> String {
    format!("timed out after {timeout:?}; it is polled again when its body returns")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some are put together from parts, at which a space or a word is easily lost.
    #[test]
    fn a_note_reads_as_one_sentence() {
        let known = vec!["a".into(), "b".into()];
        let texts = [
            Note::UnknownWorkflow { by: "inbox".into(), workflow: "".into(), known: Vec::new() },
            Note::UnknownWorkflow { by: "inbox".into(), workflow: "mail".into(), known },
            Note::PollTooLong {
                trigger: "inbox".into(),
                since: Wall(0),
                lasts: Duration::from_millis(61_900),
            },
            Note::LastPollerTaken { threads_max: 4, held_by: "'a', 'b'".to_owned() },
            Note::CronOfOldRelease { cron: Uuid::nil(), name: "nightly".into() },
            Note::CronCatchUpBounded { cron: Uuid::nil(), moments_max: 3 },
            Note::VersionDiffers { run: Uuid::nil(), workflow: "mail".into() },
        ]
        .map(|note| note.to_string());
        let nil = Uuid::nil();
        assert_eq!(texts, [
            "trigger 'inbox' fired, but names no workflow; known workflows: there are none yet".to_owned(),
            "trigger 'inbox' fired unknown workflow 'mail'; known workflows: a, b".to_owned(),
            format!("trigger 'inbox': its poll is in flight since {}, for 61 s; it holds a thread, and is not polled until that comes back", Wall(0).rfc3339()),
            "the last of 4 pollers is taken: the polls of 'a', 'b' have not come back; one more that hangs stops every trigger. Give bodies a time-out of their own, or raise max_pollers".to_owned(),
            format!("cron schedule {nil} of trigger 'nightly' goes on, which release 0.1.0 left: declare a trigger of that name again, or end it by delete_cron_schedule('{nil}')"),
            format!("cron schedule {nil}: of the slots that were missed only the newest 3 are made up for"),
            format!("run {nil} of workflow 'mail' goes on under a version that differs from the one it began with"),
        ]);
    }
}
