//! What the user's log is told. The one place where it is worded and graded; who notes something only names it.
//! Invariant: a note names what it is about in fields, so that a count or a trace never has to read its text.
//! Longer than a room should be: one closed list, each of whose lines stands once as a name, a level and a sentence.

use std::fmt::{Display, Formatter, Result};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::key::Epoch;
use crate::near::hint;
use crate::port::{BURIED, RunStatus};
use crate::seat::Differs;
use crate::time::Wall;

/// What goes on failing is told so often.
const TOLD_EVERY: Duration = Duration::from_secs(3600);

/// Of crons that start nothing so many are named.
const CRONS_SHOWN: usize = 10;

/// How grave a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Part of a healthy day; made only while somebody reads it, see [`Engine::tell_debug`](crate::engine::Engine::tell_debug).
    Debug,
    /// Worth knowing.
    Info,
    /// Something was lost sight of or put off.
    Warning,
    /// Something that the user asked for did not happen.
    Error,
}

/// What a line is about, for those who filter by it; none where it is about no such thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// A run.
    pub run: Option<Uuid>,
    /// A workflow's name.
    pub workflow: Option<Arc<str>>,
    /// A trigger's name.
    pub trigger: Option<Arc<str>>,
    /// A task's id in its workflow.
    pub task: Option<Arc<str>>,
    /// Which attempt of it.
    pub attempt: Option<u32>,
}

/// One line of the user's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A runner polls, and runs what is asked for.
    RunnerReady {
        /// Under which it writes.
        epoch: Epoch,
        /// So many are declared.
        workflows: usize,
        /// So many are declared.
        triggers: usize,
        /// So many are kept in the store and switched on.
        crons: usize,
    },
    /// A runner has shut down.
    RunnerStopped {
        /// Under which it wrote.
        epoch: Epoch,
        /// Runs that it leaves to the next one.
        unfinished: usize,
    },
    /// Runs of runners that are gone go on here.
    RunsResumed {
        /// So many.
        count: usize,
    },
    /// One of these.
    RunResumed {
        /// Which.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
    },
    /// A run is over, and everything went well.
    RunCompleted {
        /// Which.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
        /// From its commit to its end.
        took: Duration,
    },
    /// A run is over, and a task failed or it took too long.
    RunFailed {
        /// Which.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
        /// Which task failed with what.
        error: String,
    },
    /// Callbacks of runs that waited are called no more.
    CallbacksDropped {
        /// Of this workflow.
        workflow: Arc<str>,
        /// So many.
        count: u64,
    },
    /// A run is over, because somebody wished so.
    RunCancelled {
        /// Which.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
    },
    /// An attempt has taken as long as it may, and its body is told to end.
    TaskTimedOut {
        /// The run.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
        /// The task.
        task: Arc<str>,
        /// Which attempt.
        attempt: u32,
        /// So long it could take.
        timeout: Duration,
        /// So long its body has to end.
        grace: Duration,
    },
    /// Nothing could be said to others for so long that bodies are told to end.
    CutOff {
        /// So many.
        bodies: usize,
    },
    /// A body was told to end, and did not: its task has failed.
    BodyOverdue {
        /// The run.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
        /// The task.
        task: Arc<str>,
        /// Which attempt.
        attempt: u32,
        /// So long it had to end.
        grace: Duration,
    },
    /// It has ended.
    BodyReturned {
        /// The run.
        run: Uuid,
        /// The task.
        task: Arc<str>,
        /// Which attempt.
        attempt: u32,
        /// Since when nobody waited for it.
        since: Wall,
    },
    /// So many bodies that nobody waits for still run that no other begins.
    BodiesOverdue {
        /// So many.
        count: usize,
    },
    /// A run took too long, and ends.
    RunTimedOut {
        /// Which.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
        /// So long it could take.
        timeout: Duration,
        /// Who says so.
        setting: &'static str,
    },
    /// A fire of a trigger is a run now.
    TriggerFired {
        /// Its name.
        trigger: Arc<str>,
        /// The run.
        run: Uuid,
    },
    /// It is known what became of the fires of a poll.
    FiresJudged {
        /// The trigger.
        trigger: Arc<str>,
        /// So many there were.
        fires: u64,
        /// So many are runs now.
        started: u64,
        /// Whether one of them could not be one.
        is_error: bool,
    },
    /// A fire found no workflow of its name.
    UnknownWorkflow {
        /// The trigger or cron.
        by: Arc<str>,
        /// Empty if it names none.
        workflow: Arc<str>,
        /// Those that are declared.
        known: Vec<Arc<str>>,
    },
    /// What a trigger fired is no run that the limits of its workflow could count.
    FireUnkeyed {
        /// Its name.
        trigger: Arc<str>,
        /// What it fires.
        workflow: Arc<str>,
        /// What its context lacks.
        why: Box<str>,
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
        /// So many polls in a row have failed with this one.
        failures: u32,
    },
    /// The process that called a trigger about an end of a run ended in the call.
    CallDied {
        /// The trigger.
        trigger: Arc<str>,
        /// The run that had ended.
        run: Uuid,
        /// So many calls in a row have failed with this one.
        failures: u32,
    },
    /// A poll went well, after others had failed.
    TriggerRecovered {
        /// The trigger.
        trigger: Arc<str>,
        /// So many had, in a row.
        failures: u32,
    },
    /// A poll holds a thread for much longer than its interval.
    PollTooLong {
        /// The trigger.
        trigger: Arc<str>,
        /// When it began.
        since: Wall,
        /// For so long.
        lasts: Duration,
        /// Whether it is of an earlier declaration, for whose end the one in force waits.
        is_older: bool,
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
    /// A poll came to nothing, because somebody has set the cursor since it looked at that.
    TickOvertaken {
        /// The trigger.
        trigger: Arc<str>,
    },
    /// A call about the end of a run came to nothing, because somebody has skipped that end.
    CallOvertaken {
        /// The trigger.
        trigger: Arc<str>,
    },
    /// The store does not take ticks.
    TickRefused {
        /// The trigger.
        trigger: Arc<str>,
        /// In the store's words.
        why: String,
        /// So many since this was told before.
        times: u64,
    },
    /// The store will never take a declaration.
    DeclarationRefused {
        /// The trigger.
        trigger: Arc<str>,
        /// In the store's words.
        why: String,
    },
    /// A body paused a limit that no task of its program names.
    LimitUnknown {
        /// The limit's name.
        name: Arc<str>,
        /// Whose body.
        by: Arc<str>,
    },
    /// A limit was set by hand, and a program declares another.
    LimitDiffers(Differs),
    /// The store will never take what polls answered.
    HistoryRefused {
        /// In the store's words.
        why: String,
    },
    /// A cron cannot be read.
    CronLeftOut {
        /// Its name, or its id.
        cron: Arc<str>,
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
        /// Its name, or its id.
        cron: Arc<str>,
        /// So many are.
        moments_max: usize,
    },
    /// A moment of a cron that its body could not decide is given up, as the next one is there.
    MomentGivenUp {
        /// The schedule.
        cron: Uuid,
        /// The trigger.
        name: Arc<str>,
        /// The moment.
        moment: Wall,
    },
    /// A run that nobody waits for, such as that of a cron's moment, was not started, because of a limit of its workflow.
    RunDropped {
        /// What limit, and why.
        why: String,
    },
    /// Crons waited for moments that a clock named which was ahead.
    ClockWasAhead {
        /// The one that would have waited the longest, by its name or its id.
        cron: Arc<str>,
        /// Until that moment.
        until: Wall,
        /// So many others waited, too.
        others: usize,
        /// What the clock says now.
        now: Wall,
    },
    /// A callback hangs.
    CallbackGivenUp {
        /// The run that it was told about.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
    },
    /// Another runner goes on with a run.
    RunTaken {
        /// Which.
        run: Uuid,
        /// Its workflow.
        workflow: Arc<str>,
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
        /// Its tasks that completed and are none of this version's.
        lost: Vec<String>,
    },
    /// A run stands still, because somebody spoilt a context of it in the store.
    ContextUnreadable {
        /// Which.
        run: Uuid,
    },
    /// Nobody goes on with runs, because nobody declares their workflows.
    RunsDeserted {
        /// Their names, with how many runs wait for each.
        workflows: Vec<(String, u64)>,
    },
    /// Moments of crons start nothing, because nobody declares their workflows.
    CronsDeserted {
        /// What they are known by, with their workflows.
        crons: Vec<(String, String)>,
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
    /// Some of what is written is refused, and tried again.
    ChangesRefused {
        /// Of what, and in the store's words why.
        what: String,
    },
    /// All of that is kept.
    ChangesTaken,
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
            Self::RunResumed { .. }
            | Self::RunCompleted { .. }
            | Self::TriggerFired { .. }
            | Self::FiresJudged { .. } => Level::Debug,
            Self::RunnerReady { .. }
            | Self::RunnerStopped { .. }
            | Self::RunsResumed { .. }
            | Self::RunFailed { .. }
            | Self::TickOvertaken { .. }
            | Self::CallOvertaken { .. }
            | Self::BodyReturned { .. }
            | Self::RunCancelled { .. } => Level::Info,
            Self::TaskTimedOut { .. }
            | Self::CutOff { .. }
            | Self::BodiesOverdue { .. }
            | Self::TriggerRecovered { .. }
            | Self::RunsDeserted { .. }
            | Self::CronsDeserted { .. }
            | Self::PollTooLong { .. }
            | Self::LastPollerTaken { .. }
            | Self::EventLost { .. }
            | Self::TickDiscarded { .. }
            | Self::CronOfOldRelease { .. }
            | Self::CronCatchUpBounded { .. }
            | Self::LimitDiffers(_)
            | Self::LimitUnknown { .. }
            | Self::MomentGivenUp { .. }
            | Self::RunDropped { .. }
            | Self::ClockWasAhead { .. }
            | Self::RunTaken { .. }
            | Self::VersionDiffers { .. }
            | Self::StoreTakesWrites
            | Self::ChangesTaken
            | Self::CallbacksDropped { .. }
            | Self::LinesDropped { .. } => Level::Warning,
            Self::BodyOverdue { .. }
            | Self::RunTimedOut { .. }
            | Self::UnknownWorkflow { .. }
            | Self::FireUnkeyed { .. }
            | Self::TriggerDisabled { .. }
            | Self::PollTimedOut { .. }
            | Self::CallDied { .. }
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
            | Self::ChangesRefused { .. }
            | Self::StoreGone { .. }
            | Self::Buried
            | Self::EngineFault => Level::Error,
        }
    }

    /// How a run has ended here, if it tells that.
    pub fn end(&self) -> Option<&'static str> {
        match self {
            Self::RunCompleted { .. } => Some(RunStatus::Completed.name()),
            Self::RunFailed { .. } => Some(RunStatus::Failed.name()),
            Self::RunCancelled { .. } => Some(RunStatus::Cancelled.name()),
            Self::RunTaken { .. } => Some("Taken"),
            _ => None,
        }
    }

    /// How many of a poll's fires are runs, and whether one of them could not be one, if it tells that.
    pub fn judged(&self) -> Option<(u64, bool)> {
        match *self {
            Self::FiresJudged { started, is_error, .. } => Some((started, is_error)),
            _ => None,
        }
    }

    /// What it is about.
    pub fn about(&self) -> About {
        match self {
            Self::CallbacksDropped { workflow, .. } => {
                About { workflow: Some(workflow.clone()), ..About::default() }
            }
            Self::TaskTimedOut { run, workflow, task, attempt, .. }
            | Self::BodyOverdue { run, workflow, task, attempt, .. } => About {
                task: Some(Arc::clone(task)),
                attempt: Some(*attempt),
                ..About::of_run(*run, Some(workflow))
            },
            Self::BodyReturned { run, task, attempt, .. } => {
                About { task: Some(Arc::clone(task)), attempt: Some(*attempt), ..About::of_run(*run, None) }
            }
            Self::RunResumed { run, workflow }
            | Self::RunCompleted { run, workflow, .. }
            | Self::RunFailed { run, workflow, .. }
            | Self::RunCancelled { run, workflow }
            | Self::RunTimedOut { run, workflow, .. }
            | Self::CallbackGivenUp { run, workflow }
            | Self::RunTaken { run, workflow }
            | Self::VersionDiffers { run, workflow, .. } => About::of_run(*run, Some(workflow)),
            Self::ProgressRefused { run, .. } | Self::ContextUnreadable { run } => About::of_run(*run, None),
            Self::TriggerFired { trigger, run } => {
                About { run: Some(*run), ..About::of_trigger(trigger, None) }
            }
            Self::UnknownWorkflow { by, workflow, .. } => About::of_trigger(by, Some(workflow)),
            Self::FireUnkeyed { trigger, workflow, .. } => About::of_trigger(trigger, Some(workflow)),
            Self::FiresJudged { trigger, .. }
            | Self::TriggerDisabled { trigger, .. }
            | Self::PollTimedOut { trigger, .. }
            | Self::CallDied { trigger, .. }
            | Self::TriggerRecovered { trigger, .. }
            | Self::PollTooLong { trigger, .. }
            | Self::EventLost { trigger }
            | Self::TickDiscarded { trigger }
            | Self::TickOvertaken { trigger }
            | Self::CallOvertaken { trigger }
            | Self::TickRefused { trigger, .. }
            | Self::DeclarationRefused { trigger, .. } => About::of_trigger(trigger, None),
            Self::CronOfOldRelease { name, .. } | Self::MomentGivenUp { name, .. } => {
                About::of_trigger(name, None)
            }
            Self::RunnerReady { .. }
            | Self::RunnerStopped { .. }
            | Self::RunsResumed { .. }
            | Self::RunsDeserted { .. }
            | Self::CronsDeserted { .. }
            | Self::LastPollerTaken { .. }
            | Self::LimitDiffers(_)
            | Self::LimitUnknown { .. }
            | Self::HistoryRefused { .. }
            | Self::CronLeftOut { .. }
            | Self::CronCatchUpBounded { .. }
            | Self::RunDropped { .. }
            | Self::ClockWasAhead { .. }
            | Self::ClaimRefused { .. }
            | Self::StoreTroubled { .. }
            | Self::StoreRefusesWrites { .. }
            | Self::StoreTakesWrites
            | Self::ChangesRefused { .. }
            | Self::ChangesTaken
            | Self::StoreGone { .. }
            | Self::Buried
            | Self::EngineFault
            | Self::LinesDropped { .. }
            | Self::CutOff { .. }
            | Self::BodiesOverdue { .. } => About::default(),
        }
    }
}

impl About {
    fn of_run(run: Uuid, workflow: Option<&Arc<str>>) -> Self {
        Self { run: Some(run), workflow: workflow.cloned(), ..Self::default() }
    }

    fn of_trigger(trigger: &Arc<str>, workflow: Option<&Arc<str>>) -> Self {
        let workflow = workflow.filter(|name| !name.is_empty()).cloned();
        Self { trigger: Some(Arc::clone(trigger)), workflow, ..Self::default() }
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::RunnerReady { epoch, workflows, triggers, crons } => write!(
                f,
                "runner {epoch} is ready: {}, {} and {}",
                counted(*workflows, "workflow"),
                counted(*triggers, "trigger"),
                counted(*crons, "cron")
            ),
            Self::RunnerStopped { epoch, unfinished } => {
                write!(f, "runner {epoch} has stopped; it leaves {} unfinished", counted(*unfinished, "run"))
            }
            Self::RunsResumed { count } => {
                write!(f, "{} that nobody was at work on resumed here", counted(*count, "unfinished run"))
            }
            Self::RunResumed { run, workflow } => write!(f, "run {run} of workflow '{workflow}' is resumed"),
            Self::RunCompleted { run, workflow, took } => {
                write!(f, "run {run} of workflow '{workflow}' completed after {took:?}")
            }
            Self::RunFailed { run, workflow, error } => {
                write!(f, "run {run} of workflow '{workflow}' failed: {error}")
            }
            Self::RunCancelled { run, workflow } => {
                write!(f, "run {run} of workflow '{workflow}' was cancelled")
            }
            Self::TaskTimedOut { run, workflow, task, attempt, timeout, grace } => {
                write!(
                    f,
                    "task '{task}' of workflow '{workflow}', run {run}, timed out in attempt {attempt} "
                )?;
                write!(f, "after {timeout:?}; its body is told to end within {grace:?}")
            }
            Self::CutOff { bodies } => {
                let are_told =
                    if *bodies == 1 { "1 body is".to_owned() } else { format!("{bodies} bodies are") };
                write!(
                    f,
                    "the store was out of reach for so long that others may take this runner for dead: "
                )?;
                write!(f, "{are_told} told to end, and no task begins until it answers")
            }
            Self::BodyOverdue { run, workflow, task, attempt, grace } => {
                write!(f, "task '{task}' of workflow '{workflow}', run {run}, has failed: ")?;
                write!(f, "the body of attempt {attempt} still runs {grace:?} after it was told to end, ")?;
                f.write_str("and is not attempted again beside that")
            }
            Self::BodyReturned { run, task, attempt, since } => {
                write!(f, "the body of task '{task}' of run {run}, attempt {attempt}, has ended; ")?;
                write!(f, "nobody had waited for it since {}", since.rfc3339())
            }
            Self::BodiesOverdue { count } => {
                write!(f, "{count} bodies that were told to end still run: no other task begins ")?;
                f.write_str("until one of them has ended (overdue_max)")
            }
            Self::RunTimedOut { run, workflow, timeout, setting } => {
                write!(f, "run {run} of workflow '{workflow}' timed out after {timeout:?} ({setting})")
            }
            Self::TriggerFired { trigger, run } => write!(f, "trigger '{trigger}' fired run {run}"),
            Self::FiresJudged { trigger, fires, started, .. } => {
                let (fires, runs) = (counted_u64(*fires, "run"), counted_u64(*started, "run"));
                write!(f, "trigger '{trigger}' asked for {fires}; {runs} started")
            }
            Self::UnknownWorkflow { by, workflow, known } => {
                match workflow.is_empty() {
                    true => write!(
                        f,
                        "trigger '{by}' fired, but names no workflow; write @trigger(workflow=...)"
                    )?,
                    false => write!(f, "trigger '{by}' fired unknown workflow '{workflow}'")?,
                }
                f.write_str(&hint(workflow, "workflows", known))
            }
            Self::FireUnkeyed { trigger, workflow, why } => {
                write!(f, "trigger '{trigger}' fired a run of '{workflow}' that its limits refuse: {why}")
            }
            Self::TriggerDisabled { trigger, cause } => write!(f, "trigger '{trigger}' is disabled: {cause}"),
            Self::PollTimedOut { trigger, timeout, failures } => {
                write!(f, "trigger '{trigger}' {}", poll_timed_out(*timeout))?;
                if *failures > 1 {
                    write!(f, "; {failures} failed polls in a row")?;
                }
                Ok(())
            }
            Self::CallDied { trigger, run, failures } => {
                write!(
                    f,
                    "trigger '{trigger}': the process that called it about the end of run {run} ended in that call"
                )?;
                if *failures > 1 {
                    write!(f, "; {failures} failed calls in a row")?;
                }
                Ok(())
            }
            Self::TriggerRecovered { trigger, failures } => {
                write!(
                    f,
                    "trigger '{trigger}' has recovered, after {} in a row",
                    counted(*failures as usize, "failed poll")
                )
            }
            Self::PollTooLong { trigger, since, lasts, is_older } => {
                let (since, seconds) = (since.rfc3339(), lasts.as_secs());
                let of = if *is_older { "its earlier declaration's" } else { "its" };
                write!(f, "trigger '{trigger}': {of} poll is in flight since {since}, for {seconds} s")?;
                let waits = if *is_older { "the trigger, declared again," } else { "it" };
                write!(f, "; that holds a thread, and {waits} is not polled until it comes back")
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
                write!(
                    f,
                    "trigger '{trigger}': its last poll was discarded: another runner polls it now, or it was forgotten"
                )
            }
            Self::TickOvertaken { trigger } => {
                write!(
                    f,
                    "trigger '{trigger}': its last poll was discarded: its cursor was set by a call meanwhile"
                )
            }
            Self::CallOvertaken { trigger } => {
                write!(
                    f,
                    "trigger '{trigger}': its last call was discarded: that end of a run was skipped by a call meanwhile"
                )
            }
            Self::TickRefused { trigger, why, times: 0 | 1 } => {
                write!(f, "the tick of trigger '{trigger}' cannot be kept: {why}")
            }
            Self::TickRefused { trigger, why, times } => {
                write!(f, "{times} more ticks of trigger '{trigger}' could not be kept: {why}")
            }
            Self::DeclarationRefused { trigger, why } => {
                write!(f, "the declaration of trigger '{trigger}' cannot be kept: {why}")
            }
            Self::LimitUnknown { name, by } => {
                write!(f, "{by} pauses limit '{name}', which no task of this program is under")
            }
            Self::LimitDiffers(Differs { name, declared, set }) => {
                write!(
                    f,
                    "limit '{name}' was set by hand, to {set}, and that holds; what this program declares, "
                )?;
                write!(f, "{declared}, holds once reset_limit('{name}') takes that back")
            }
            Self::HistoryRefused { why } => write!(f, "history of polls cannot be kept: {why}"),
            Self::CronLeftOut { cron, error } => write!(f, "cron '{cron}' is left out: {error}"),
            Self::CronOfOldRelease { cron, name } => {
                write!(f, "cron schedule {cron} of trigger '{name}' goes on, which release 0.1.0 left: ")?;
                write!(f, "declare a trigger of that name again, or end it by forget('{name}')")
            }
            Self::CronCatchUpBounded { cron, moments_max } => {
                write!(f, "cron '{cron}': of the moments that were missed ")?;
                write!(f, "only the newest {moments_max} are made up for")
            }
            Self::MomentGivenUp { name, moment, .. } => {
                write!(
                    f,
                    "trigger '{name}': its moment {} failed until the next one was there, ",
                    moment.rfc3339()
                )?;
                write!(f, "and is given up")
            }
            Self::CallbacksDropped { workflow, count } => {
                let runs = if *count == 1 { "run is" } else { "runs are" };
                write!(
                    f,
                    "workflow '{workflow}': {count} ended {runs} not told to a callback any more, since no runner has declared that one for an hour, while others serve the workflow"
                )
            }
            Self::RunDropped { why } => write!(f, "a run was not started: {why}"),
            Self::ClockWasAhead { cron, until, others, now } => {
                let (until, now) = (until.rfc3339(), now.rfc3339());
                write!(f, "the clock was ahead, this machine's or another runner's: cron '{cron}'")?;
                match others {
                    0 => write!(
                        f,
                        " would have waited until {until}; here it is {now}, and it goes on from now"
                    ),
                    _ => {
                        write!(f, " and {others} more would have waited until {until} at the latest; ")?;
                        write!(f, "here it is {now}, and they go on from now")
                    }
                }
            }
            Self::CallbackGivenUp { run, workflow } => {
                write!(
                    f,
                    "a callback of run {run} of workflow '{workflow}' does not come back; the run goes on without it"
                )
            }
            Self::RunTaken { run, workflow } => {
                write!(f, "run {run} of workflow '{workflow}' was taken over by another runner")
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
            Self::ProgressRefused { run, why } => {
                write!(
                    f,
                    "the progress of run {run} cannot be kept; it is left to the next runner as it was kept last, and what ended since is done again: {why}"
                )
            }
            Self::VersionDiffers { run, workflow, lost } => {
                write!(f, "run {run} of workflow '{workflow}' goes on under a version ")?;
                f.write_str("that differs from the one it began with")?;
                let Some(first) = lost.first() else { return Ok(()) };
                let more =
                    if lost.len() > 1 { format!(" (and {} more)", lost.len() - 1) } else { String::new() };
                write!(
                    f,
                    "; task '{first}'{more} completed and is not in it: if that has another name now, its work is done again"
                )?;
                f.write_str(", unless the task keeps its name by @task(id=...)")
            }
            Self::ContextUnreadable { run } => {
                write!(f, "run {run} does not go on: a context of it in the store cannot be read")
            }
            Self::RunsDeserted { workflows } => {
                let shown = |(name, count): &(String, u64)| {
                    let plural = if *count == 1 { "" } else { "s" };
                    format!("'{name}' ({count} run{plural})")
                };
                let shown: Vec<String> = workflows.iter().map(shown).collect();
                write!(
                    f,
                    "unfinished runs wait for workflows that no living runner declares: {}",
                    shown.join(", ")
                )?;
                f.write_str("; declare them again, or cancel the runs")
            }
            Self::CronsDeserted { crons } => {
                let shown = |(cron, workflow): &(String, String)| format!("'{cron}' (workflow '{workflow}')");
                let shown: Vec<String> = crons.iter().take(CRONS_SHOWN).map(shown).collect();
                write!(f, "crons start workflows that no living runner declares: {}", shown.join(", "))?;
                if let Some(more @ 1..) = crons.len().checked_sub(CRONS_SHOWN) {
                    write!(f, " and {more} more")?;
                }
                f.write_str("; declare these workflows, or delete the crons")
            }
            Self::ClaimRefused { why } => write!(f, "runs that are nobody's cannot be taken: {why}"),
            Self::StoreTroubled { trouble } => f.write_str(trouble),
            Self::StoreRefusesWrites { why } => {
                write!(f, "the store refuses writes, which are kept and tried again: {why}")
            }
            Self::StoreTakesWrites => f.write_str("the store takes writes again"),
            Self::ChangesRefused { what } => f.write_str(what),
            Self::ChangesTaken => f.write_str("the store has taken what it refused"),
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

fn counted(count: usize, noun: &str) -> String {
    counted_u64(count as u64, noun)
}

fn counted_u64(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What goes on failing is told at the first, second, tenth, hundredth, … time, and when it was last `told` an hour ago.
pub fn is_told(failures: u32, told: Option<Duration>) -> bool {
    let is_rung = failures <= 2 || 10_u32.checked_pow(failures.ilog10()) == Some(failures);
    is_rung || told.is_none_or(|since| since >= TOLD_EVERY)
}

/// What the history says of such a poll, too.
pub fn poll_timed_out(timeout: Duration) -> String {
    format!("timed out after {timeout:?}; it is polled again when its body returns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_failing_is_told_ever_more_rarely_and_each_hour() {
        let told: Vec<u32> =
            (0..=10_001).filter(|&failures| is_told(failures, Some(Duration::ZERO))).collect();
        assert_eq!(told, [0, 1, 2, 10, 100, 1000, 10_000]);
        assert!(is_told(7, None));
        assert!(!is_told(7, Some(Duration::from_secs(3599))));
        assert!(is_told(7, Some(Duration::from_secs(3600))));
        assert!(!is_told(u32::MAX, Some(Duration::ZERO)));
    }

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
                is_older: false,
            },
            Note::PollTooLong {
                trigger: "inbox".into(),
                since: Wall(0),
                lasts: Duration::from_millis(61_900),
                is_older: true,
            },
            Note::LastPollerTaken { threads_max: 4, held_by: "'a', 'b'".to_owned() },
            Note::CronOfOldRelease { cron: Uuid::nil(), name: "nightly".into() },
            Note::CronsDeserted { crons: vec![("nightly".into(), "mail".into()); CRONS_SHOWN + 2] },
            Note::CronCatchUpBounded { cron: "nightly".into(), moments_max: 3 },
            Note::VersionDiffers { run: Uuid::nil(), workflow: "mail".into(), lost: Vec::new() },
            Note::VersionDiffers {
                run: Uuid::nil(),
                workflow: "mail".into(),
                lost: vec!["book".into(), "bill".into()],
            },
        ]
        .map(|note| note.to_string());
        let nil = Uuid::nil();
        assert_eq!(texts, [
            "trigger 'inbox' fired, but names no workflow; write @trigger(workflow=...); known workflows: none".to_owned(),
            "trigger 'inbox' fired unknown workflow 'mail'; known workflows: a, b".to_owned(),
            format!("trigger 'inbox': its poll is in flight since {}, for 61 s; that holds a thread, and it is not polled until it comes back", Wall(0).rfc3339()),
            format!("trigger 'inbox': its earlier declaration's poll is in flight since {}, for 61 s; that holds a thread, and the trigger, declared again, is not polled until it comes back", Wall(0).rfc3339()),
            "the last of 4 pollers is taken: the polls of 'a', 'b' have not come back; one more that hangs stops every trigger. Give bodies a time-out of their own, or raise max_pollers".to_owned(),
            format!("cron schedule {nil} of trigger 'nightly' goes on, which release 0.1.0 left: declare a trigger of that name again, or end it by forget('nightly')"),
            format!(
                "crons start workflows that no living runner declares: {} and 2 more; declare these workflows, or delete the crons",
                ["'nightly' (workflow 'mail')"; CRONS_SHOWN].join(", "),
            ),
            "cron 'nightly': of the moments that were missed only the newest 3 are made up for".to_owned(),
            format!("run {nil} of workflow 'mail' goes on under a version that differs from the one it began with"),
            format!(
                "run {nil} of workflow 'mail' goes on under a version that differs from the one it began with; task 'book' (and 1 more) completed and is \
                 not in it: if that has another name now, its work is done again, unless the task keeps its name by @task(id=...)"
            ),
        ]);
    }
}
