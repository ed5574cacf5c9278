//! Turns records of the store into the dicts that the public API shows, and plain Python data into specifications.
//! Invariant: every time leaves as RFC 3339 in UTC, every id as a UUID string.
//! Longer than a room should be: one function for each record that Python sees, none of which knows another.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use cloaca_core::engine::{About, RunStanding};
use cloaca_core::error::Result;
use cloaca_core::graph::Graph;
use cloaca_core::limit::{Limits, Rate};
use cloaca_core::outlook::Outlook;
use cloaca_core::policy::{Backoff, Condition, RetryPolicy};
use cloaca_core::poll::Standing;
use cloaca_core::port::{
    self, Backlog, Begun, Call, Catchup, Cell, Child, Forgotten, ListedRun, Maker, Origin, Outcomes,
    OwnerRow, Renamed, RunStatus, Schedule, ScheduleKind, Stretch, TaskRecord, Try,
};
use cloaca_core::rule::Rule;
use cloaca_core::run::{Doing, TaskStanding};
use cloaca_core::seat::{Kind, Limit, ListedLimit, Pause, Terms, Until};
use cloaca_core::time::Wall;
use cloaca_core::urgency::Priority;
use cloaca_core::workflow::{Executor, OnInterrupt, Task, Workflow};

fn stamp(at: Option<Wall>) -> Option<String> {
    at.map(Wall::rfc3339)
}

/// A trigger as `list_trigger_schedules` shows it. `last_poll_at` is newer than the row's where polls were quiet.
pub fn trigger<'py>(
    py: Python<'py>,
    row: &Schedule,
    last_poll_at: Option<Wall>,
) -> PyResult<Bound<'py, PyDict>> {
    let ScheduleKind::Trigger { interval_us, allow_concurrent } = &row.kind else {
        unreachable!("a trigger's row is a trigger")
    };
    let dict = PyDict::new(py);
    dict.set_item("id", row.id.to_string())?;
    dict.set_item("trigger_name", &row.name)?;
    dict.set_item("workflow_name", &row.workflow)?;
    dict.set_item("poll_interval_ms", interval_us / 1000)?;
    dict.set_item("allow_concurrent", allow_concurrent)?;
    dict.set_item("enabled", row.enabled)?;
    dict.set_item("last_poll_at", stamp(last_poll_at.max(row.last_at)))?;
    dict.set_item("created_at", stamp(Some(row.created_at)))?;
    dict.set_item("updated_at", stamp(Some(row.updated_at)))?;
    dict.set_item("disabled_at", stamp(row.disabled_at))?;
    dict.set_item("on_run", row.on_run.as_ref().map(|on_run| &*on_run.workflow))?;
    let statuses = row.on_run.iter().flat_map(|on_run| on_run.outcomes.statuses()).map(RunStatus::name);
    dict.set_item("on_run_status", statuses.collect::<Vec<_>>())?;
    Ok(dict)
}

/// Where a trigger stands.
pub fn standing<'py>(
    py: Python<'py>,
    found: (Standing, Option<Wall>, Option<Wall>),
) -> PyResult<Bound<'py, PyDict>> {
    let (standing, due, polled_since) = found;
    let dict = PyDict::new(py);
    dict.set_item("in_body", standing.in_body)?;
    dict.set_item("waits_for_older", standing.waits_for_older)?;
    dict.set_item("failures", standing.failures)?;
    dict.set_item("next_poll_at", stamp(due))?;
    dict.set_item("backs_off", standing.backs_off)?;
    dict.set_item("goes_on", standing.goes_on)?;
    dict.set_item("elsewhere", standing.elsewhere)?;
    dict.set_item("polled_since", stamp(polled_since))?;
    dict.set_item("last_poll_at", stamp(standing.last_at))?;
    Ok(dict)
}

/// A cron as `list_cron_schedules` shows it.
pub fn cron<'py>(py: Python<'py>, row: &Schedule) -> PyResult<Bound<'py, PyDict>> {
    let ScheduleKind::Cron { expression, timezone, next_at, terms } = &row.kind else {
        unreachable!("a cron's row is a cron")
    };
    let dict = PyDict::new(py);
    dict.set_item("id", row.id.to_string())?;
    dict.set_item("trigger_name", (!row.name.is_empty()).then_some(&row.name))?;
    dict.set_item("workflow_name", &row.workflow)?;
    dict.set_item("cron_expression", expression)?;
    dict.set_item("timezone", timezone)?;
    dict.set_item("enabled", row.enabled)?;
    let policy = match terms.catchup {
        Catchup::All => "run_all",
        Catchup::Last => "run_last",
        Catchup::Nothing => "skip",
    };
    dict.set_item("catchup_policy", policy)?;
    dict.set_item("next_run_at", stamp(*next_at))?;
    dict.set_item("last_run_at", stamp(row.last_at))?;
    dict.set_item("created_at", stamp(Some(row.created_at)))?;
    dict.set_item("updated_at", stamp(Some(row.updated_at)))?;
    dict.set_item("disabled_at", stamp(row.disabled_at))?;
    dict.set_item("registered", row.origin == Origin::Registered)?;
    dict.set_item("context", terms.context.as_deref())?;
    dict.set_item("overlap", terms.overlap.name())?;
    dict.set_item("catchup", terms.catchup.name())?;
    Ok(dict)
}

/// What is told of a schedule beside that to who only reads: `due` is when it is due next, if anybody is there for it.
pub fn schedule(dict: &Bound<'_, PyDict>, row: &Schedule, due: Option<Wall>) -> PyResult<()> {
    dict.set_item("row", row.row.0)?;
    dict.set_item("disabled_cause", &row.disabled_cause)?;
    dict.set_item("cursor", &row.cursor)?;
    dict.set_item("last_fired_at", stamp(row.last_fired_at))?;
    dict.set_item("owner", row.owner.map(|owner| owner.0))?;
    // Whoever declares the newest version puts it in force.
    dict.set_item("is_declared", row.origin != Origin::Declared || row.newest >= row.version)?;
    dict.set_item("version", row.version)?;
    dict.set_item("in_body_since", stamp(row.in_body_since))?;
    dict.set_item("due_at", stamp(due))
}

/// How a trigger stands, beside its row.
pub fn outlook(dict: &Bound<'_, PyDict>, outlook: &Outlook) -> PyResult<()> {
    dict.set_item("polled_by", outlook.polled_by.map(|owner| owner.0))?;
    dict.set_item("next_poll_at", stamp(outlook.next_at))?;
    dict.set_item("late_since", stamp(outlook.late_since))?;
    dict.set_item("in_body_since", stamp(outlook.in_body_since))
}

/// A runner.
pub fn owner<'py>(py: Python<'py>, row: &OwnerRow) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("number", row.epoch.0)?;
    dict.set_item("name", &row.name)?;
    dict.set_item("polls", row.polls)?;
    dict.set_item("joined_at", stamp(Some(row.joined_at)))?;
    dict.set_item("seen_at", stamp(row.seen_at))?;
    dict.set_item("left_at", stamp(row.left_at))?;
    dict.set_item("is_dead", row.is_dead)?;
    dict.set_item("works", row.works)?;
    dict.set_item("is_draining", row.is_draining)?;
    dict.set_item("is_paused", row.is_paused)?;
    dict.set_item("host", &row.host)?;
    dict.set_item("pid", row.pid)?;
    dict.set_item("version", &row.version)?;
    let counts = PyDict::new(py);
    counts.set_item("polls", row.counts.polls)?;
    counts.set_item("fires", row.counts.fires)?;
    counts.set_item("errors", row.counts.errors)?;
    counts.set_item("runs_started", row.counts.started)?;
    counts.set_item("runs_completed", row.counts.completed)?;
    counts.set_item("runs_failed", row.counts.failed)?;
    counts.set_item("runs_cancelled", row.counts.cancelled)?;
    dict.set_item("counts", counts)?;
    Ok(dict)
}

/// Runs that are not over.
pub fn backlog<'py>(py: Python<'py>, row: &Backlog) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("workflow", &row.workflow)?;
    dict.set_item("owner", row.owner.map(|owner| owner.0))?;
    let (pending, delayed) = if row.is_delayed { (0, row.pending) } else { (row.pending, 0) };
    dict.set_item("pending", pending)?;
    dict.set_item("delayed", delayed)?;
    dict.set_item("running", row.running)?;
    dict.set_item("oldest_at", stamp(Some(row.oldest_at)))?;
    dict.set_item("held", row.is_held)?;
    Ok(dict)
}

/// A task on record as begun.
pub fn begun<'py>(py: Python<'py>, row: &Begun) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("run", row.run.to_string())?;
    dict.set_item("workflow", &row.workflow)?;
    dict.set_item("task", &row.task)?;
    dict.set_item("attempt", row.attempt)?;
    dict.set_item("started_at", stamp(Some(row.started_at)))?;
    dict.set_item("owner", row.owner.map(|owner| owner.0))?;
    Ok(dict)
}

/// A run as `list_runs` shows it, with the columns that the histories need.
pub fn run<'py>(py: Python<'py>, row: &ListedRun) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let hash = row.context_hash.map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    dict.set_item("id", row.id.to_string())?;
    dict.set_item("workflow_name", &row.workflow)?;
    dict.set_item("status", row.status.name())?;
    dict.set_item("trigger_name", &row.trigger)?;
    dict.set_item("run_key", &row.run_key)?;
    dict.set_item("context", &row.context)?;
    dict.set_item("final_context", &row.final_context)?;
    dict.set_item("context_hash", hash)?;
    dict.set_item("scheduled_time", stamp(row.scheduled_at))?;
    dict.set_item("priority", row.priority.number())?;
    dict.set_item("due_at", stamp(row.due_at))?;
    dict.set_item("created_at", stamp(Some(row.created_at)))?;
    dict.set_item("started_at", stamp(row.started_at))?;
    dict.set_item("completed_at", stamp(row.completed_at))?;
    dict.set_item("took_seconds", row.took_us().map(seconds))?;
    dict.set_item("lain_seconds", seconds(row.lain_us))?;
    dict.set_item("error_message", &row.error)?;
    dict.set_item("error_type", &row.error_type)?;
    dict.set_item("cancel_requested", row.cancelled)?;
    dict.set_item("parent_run", row.parent.as_ref().map(|parent| parent.run.to_string()))?;
    dict.set_item("parent_task", row.parent.as_ref().and_then(|parent| parent.task.as_deref()))?;
    dict.set_item(
        "parent_kind",
        row.parent
            .as_ref()
            .map(|parent| kind(parent.task.is_some(), parent.again, parent.given, row.trigger.is_some())),
    )?;
    let at = port::Place { created_at: row.created_at, row: row.row, completed_at: row.completed_at };
    dict.set_item("place", place(at))?;
    Ok(dict)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Where a run stands in listings: when it was committed, its row, and when it ended.
pub type Place = (i64, i64, Option<i64>);

/// A place as Python has it.
pub fn place(place: port::Place) -> Place {
    (place.created_at.0, place.row.0, place.completed_at.map(|at| at.0))
}

/// How a run came of another one.
fn kind(is_called: bool, is_again: bool, is_given: bool, is_fired: bool) -> &'static str {
    match (is_called, is_again, is_given, is_fired) {
        (true, ..) => "task",
        (_, true, ..) => "again",
        (_, _, true, _) => "given",
        (.., true) => "end",
        _ => "callback",
    }
}

/// The runs that came of a run, as `get_run` shows them.
pub fn children<'py>(py: Python<'py>, row: &ListedRun) -> PyResult<Vec<Bound<'py, PyDict>>> {
    row.children.iter().map(|child| self::child(py, child)).collect()
}

fn child<'py>(py: Python<'py>, row: &Child) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", row.id.to_string())?;
    dict.set_item("workflow_name", &row.workflow)?;
    dict.set_item("status", row.status.name())?;
    dict.set_item("task", row.task.as_deref())?;
    dict.set_item("kind", kind(row.task.is_some(), row.again, row.given, row.trigger.is_some()))?;
    dict.set_item("trigger_name", row.trigger.as_deref())?;
    dict.set_item("created_at", stamp(Some(row.created_at)))?;
    dict.set_item("completed_at", stamp(row.completed_at))?;
    Ok(dict)
}

/// What a run's callbacks are still to be told, as `get_run` shows it.
pub fn calls<'py>(py: Python<'py>, row: &ListedRun) -> PyResult<Vec<Bound<'py, PyDict>>> {
    row.calls.iter().map(|call| self::call(py, call)).collect()
}

fn call<'py>(py: Python<'py>, row: &Call) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("status", row.status.name())?;
    dict.set_item("attempts", row.tries)?;
    dict.set_item("due_at", stamp(Some(row.due_at)))?;
    dict.set_item("error", &row.error)?;
    dict.set_item("begun_at", stamp(row.begun.map(|(_, at)| at)))?;
    dict.set_item("runner", row.begun.map(|(owner, _)| owner.0))?;
    Ok(dict)
}

/// What became of the last of them that was settled.
pub fn last_call<'py>(py: Python<'py>, row: &ListedRun) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(last) = &row.last_call else { return Ok(None) };
    let dict = PyDict::new(py);
    dict.set_item("status", last.status.name())?;
    dict.set_item("outcome", last.fate.name())?;
    dict.set_item("attempts", last.tries)?;
    dict.set_item("at", stamp(Some(last.at)))?;
    dict.set_item("error", &last.error)?;
    Ok(Some(dict))
}

/// A task as `get_run` shows it, with its tries if they were read.
pub fn task<'py>(
    py: Python<'py>,
    run: &ListedRun,
    row: &TaskRecord,
    has_tries: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", &*row.name)?;
    dict.set_item("status", row.status.name())?;
    dict.set_item("attempts", row.attempt)?;
    dict.set_item("error", &row.error)?;
    dict.set_item("error_type", row.error_type.as_deref())?;
    dict.set_item("started_at", stamp(row.started_at))?;
    dict.set_item("completed_at", stamp(row.completed_at))?;
    dict.set_item("waits_until", stamp(row.wait.map(|wait| wait.not_before)))?;
    dict.set_item("waits_since", stamp(row.rests_since))?;
    let body = run.overdue.iter().find(|body| body.task == row.name);
    dict.set_item("overdue_since", stamp(body.map(|body| body.since)))?;
    if has_tries {
        let only = row.only_try();
        let tries = row.tries.iter().chain(&only).map(|known| attempt(py, known));
        dict.set_item("tries", tries.collect::<PyResult<Vec<_>>>()?)?;
        dict.set_item("tries_left_out", left_out(run, &row.name))?;
    }
    Ok(dict)
}

/// Attempts of tasks that are on no record.
pub fn former<'py>(py: Python<'py>, run: &ListedRun) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let tasks = run.former.iter().map(|(task, tries)| {
        let dict = PyDict::new(py);
        dict.set_item("id", &**task)?;
        let tries = tries.iter().map(|known| attempt(py, known));
        dict.set_item("tries", tries.collect::<PyResult<Vec<_>>>()?)?;
        dict.set_item("tries_left_out", left_out(run, task))?;
        Ok(dict)
    });
    tasks.collect()
}

fn left_out(run: &ListedRun, task: &str) -> u64 {
    run.tries_left_out.iter().find(|(name, _)| **name == *task).map_or(0, |(_, count)| *count)
}

/// An attempt that is over.
fn attempt<'py>(py: Python<'py>, row: &Try) -> PyResult<Bound<'py, PyDict>> {
    let runner = match row.maker {
        Maker::Owner(owner) => Some(owner),
        Maker::Writer | Maker::Unknown => None,
    };
    let dict = PyDict::new(py);
    dict.set_item("number", row.attempt)?;
    dict.set_item("outcome", row.outcome.name())?;
    dict.set_item("started_at", stamp(row.started_at))?;
    dict.set_item("ended_at", stamp(Some(row.ended_at)))?;
    dict.set_item("error_type", row.error_type.as_deref())?;
    dict.set_item("error", &row.error)?;
    dict.set_item("traceback", &row.traceback)?;
    dict.set_item("runner", runner.map(|epoch| epoch.0))?;
    Ok(dict)
}

/// Where a run stands that this runner has.
pub fn run_standing<'py>(
    py: Python<'py>,
    standing: &RunStanding,
    is_permit_free: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    match standing {
        RunStanding::Turn { behind, ahead } => {
            dict.set_item("is", "turn")?;
            dict.set_item("behind", behind.to_string())?;
            dict.set_item("ahead", ahead)?;
        }
        RunStanding::Undeclared => dict.set_item("is", "undeclared")?,
        RunStanding::InHand { is_halted, is_at_its_end, ends_by, setting, tasks } => {
            let tasks = tasks.iter().map(|task| task_standing(py, task)).collect::<PyResult<Vec<_>>>()?;
            dict.set_item("is", "in_hand")?;
            dict.set_item("is_halted", is_halted)?;
            dict.set_item("is_at_its_end", is_at_its_end)?;
            dict.set_item("ends_by", stamp(*ends_by))?;
            dict.set_item("setting", setting)?;
            dict.set_item("is_permit_free", is_permit_free)?;
            dict.set_item("tasks", tasks)?;
        }
    }
    Ok(dict)
}

fn task_standing<'py>(py: Python<'py>, standing: &TaskStanding) -> PyResult<Bound<'py, PyDict>> {
    let (doing, due) = match standing.doing {
        Doing::Looked => ("looked", None),
        Doing::Queued => ("queued", None),
        Doing::Limited => ("limited", None),
        Doing::InBody => ("in_body", None),
        Doing::Told => ("told", None),
        Doing::Deferred => ("deferred", None),
        Doing::Retry(due) => ("retry", due),
        Doing::Postponed(due) => ("postponed", due),
        Doing::Settling => ("settling", None),
    };
    let dict = PyDict::new(py);
    dict.set_item("id", &*standing.task)?;
    dict.set_item("doing", doing)?;
    dict.set_item("due", stamp(due))?;
    dict.set_item("limits", standing.limits.iter().map(|name| &**name).collect::<Vec<_>>())?;
    dict.set_item("executor", standing.executor.0)?;
    dict.set_item("attempt", standing.attempt)?;
    dict.set_item("started_at", stamp(standing.started_at))?;
    dict.set_item("error", &standing.error)?;
    Ok(dict)
}

/// What a log line is about, by the names under which a record carries it.
pub fn about<'py>(py: Python<'py>, about: &About) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("cloaca_run", about.run.map(|run| run.to_string()))?;
    dict.set_item("cloaca_workflow", about.workflow.as_deref())?;
    dict.set_item("cloaca_trigger", about.trigger.as_deref())?;
    dict.set_item("cloaca_task", about.task.as_deref())?;
    dict.set_item("cloaca_attempt", about.attempt)?;
    Ok(dict)
}

/// A stretch of equal polls.
pub fn stretch<'py>(py: Python<'py>, row: &Stretch) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("outcome", row.outcome.name())?;
    dict.set_item("reason", (!row.reason.is_empty()).then_some(&*row.reason))?;
    dict.set_item("count", row.count)?;
    dict.set_item("first_at", stamp(Some(row.first_at)))?;
    dict.set_item("last_at", stamp(Some(row.last_at)))?;
    dict.set_item("min_us", row.min_us)?;
    dict.set_item("mean_us", row.sum_us / row.count.max(1))?;
    dict.set_item("max_us", row.max_us)?;
    Ok(dict)
}

/// A row of `query`, by column name.
pub fn row<'py>(py: Python<'py>, columns: &[String], cells: Vec<Cell>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (column, cell) in columns.iter().zip(cells) {
        match cell {
            Cell::Null => dict.set_item(column, py.None())?,
            Cell::Int(value) => dict.set_item(column, value)?,
            Cell::Real(value) => dict.set_item(column, value)?,
            Cell::Text(value) => dict.set_item(column, value)?,
            Cell::Blob(value) => dict.set_item(column, PyBytes::new(py, &value))?,
        }
    }
    Ok(dict)
}

/// A parameter of `query`.
pub fn cell(value: &Bound<'_, PyAny>) -> PyResult<Cell> {
    if value.is_none() {
        Ok(Cell::Null)
    } else if let Ok(number) = value.extract::<i64>() {
        Ok(Cell::Int(number))
    } else if let Ok(number) = value.extract::<f64>() {
        Ok(Cell::Real(number))
    } else if let Ok(text) = value.extract::<String>() {
        Ok(Cell::Text(text))
    } else {
        Ok(Cell::Blob(value.extract::<Vec<u8>>()?))
    }
}

/// What of a workflow is no part of its version: its priority, its time in microseconds, its limits, and of which ends it is told.
pub type WorkflowTerms = (i64, Option<u64>, Option<String>, i64);

/// A workflow from the plain data that `Workflow._spec` gives.
pub fn workflow(
    name: &str,
    version: &str,
    (priority, timeout_us, limits, tells): &WorkflowTerms,
    graph_text: &str,
    tasks: &Bound<'_, PyList>,
) -> PyResult<Result<Workflow>> {
    let tasks = tasks.iter().map(|spec| task_spec(&spec)).collect::<PyResult<Vec<Task>>>()?;
    let ids: Vec<Arc<str>> = tasks.iter().map(|task| Arc::clone(&task.id)).collect();
    let dependencies: Vec<Vec<Arc<str>>> = tasks.iter().map(|task| task.dependencies.clone()).collect();
    let limits = match limits.as_deref().map(Limits::from_json).transpose() {
        Ok(limits) => limits.map(Arc::new),
        Err(refused) => return Ok(Err(refused)),
    };
    Ok(Graph::check(name, &ids, &dependencies).map(|graph| Workflow {
        name: name.into(),
        version: version.into(),
        priority: Priority::new(*priority).unwrap_or_default(),
        timeout: timeout_us.map(Duration::from_micros),
        limits,
        tells: Outcomes::from_bits(*tells),
        tasks,
        graph,
        graph_text: graph_text.into(),
        tie: None,
    }))
}

fn task_spec(spec: &Bound<'_, PyAny>) -> PyResult<Task> {
    let rule: Option<String> = spec.get_item("rule")?.extract()?;
    let dependencies: Vec<String> = spec.get_item("dependencies")?.extract()?;
    Ok(Task {
        id: spec.get_item("id")?.extract::<String>()?.into(),
        dependencies: dependencies.into_iter().map(Arc::from).collect(),
        retry: retry(&spec.get_item("retry")?)?,
        rule: rule
            .map(|text| Rule::read(&text))
            .transpose()
            .map_err(|e| crate::error::raise(spec.py(), e))?,
        on_interrupt: match spec.get_item("fails_on_interrupt")?.extract()? {
            true => OnInterrupt::Fail,
            false => OnInterrupt::Retry,
        },
        limits: spec
            .get_item("limits")?
            .try_iter()?
            .map(|limit| named_limit(&limit?))
            .collect::<PyResult<_>>()?,
        timeout: spec.get_item("timeout_us")?.extract::<Option<u64>>()?.map(Duration::from_micros),
        body: spec.get_item("body")?.extract()?,
        executor: Executor(spec.get_item("executor")?.extract()?),
        has_failure_callback: spec.get_item("failure_callback")?.extract()?,
    })
}

/// Whether anything was forgotten, and whose number forbids it.
pub fn forgotten_of(forgotten: Forgotten) -> (bool, Option<i64>) {
    match forgotten {
        Forgotten::Gone(rows) => (!rows.is_empty(), None),
        Forgotten::Polled { by } => (false, Some(by.0)),
    }
}

/// Whether anything was renamed, whose number forbids it, and whether the other name is taken.
pub fn renamed_of(renamed: Renamed) -> (bool, Option<i64>, bool) {
    match renamed {
        Renamed::Done(rows) => (!rows.is_empty(), None, false),
        Renamed::Polled { by } => (false, Some(by.0), false),
        Renamed::Taken => (false, None, true),
    }
}

/// What Python calls a limit or a workflow that is held up, perhaps by a value of its key; it knows no other kind.
pub fn kind_of(name: &str, key: Option<&str>) -> Kind {
    if key.is_some() { Kind::Key } else { Kind::from_name(name).unwrap_or(Kind::Limit) }
}

/// Until a time in microseconds, or until somebody takes it back.
pub fn until_of(until_us: Option<i64>) -> Until {
    until_us.map_or(Until::Resumed, |until| Until::At(Wall(until)))
}

/// Where a limit stands.
pub fn limit<'py>(py: Python<'py>, row: &ListedLimit) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("name", &row.name)?;
    dict.set_item("terms", terms(py, &row.terms)?)?;
    dict.set_item("declared", terms(py, &row.declared)?)?;
    dict.set_item("is_set", row.is_set)?;
    dict.set_item("taken", row.taken)?;
    dict.set_item("waiting", row.waiting)?;
    dict.set_item("waits_since", stamp(row.waits_since))?;
    dict.set_item("next_at", stamp(row.next_at))?;
    dict.set_item("pause", row.pause.as_ref().map(|row| pause(py, row)).transpose()?)?;
    Ok(dict)
}

fn terms<'py>(py: Python<'py>, terms: &Terms) -> PyResult<Bound<'py, PyDict>> {
    let rate = |rate: Rate| (rate.limit, u64::try_from(rate.per.as_micros()).unwrap_or(u64::MAX), rate.burst);
    let dict = PyDict::new(py);
    dict.set_item("concurrency", terms.concurrency)?;
    dict.set_item("throttle", terms.throttle.map(rate))?;
    Ok(dict)
}

/// What is held up.
pub fn pause<'py>(py: Python<'py>, row: &Pause) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let is_key = row.kind == Kind::Key;
    dict.set_item("kind", if is_key { Kind::Workflow } else { row.kind }.name())?;
    dict.set_item("name", &*row.name)?;
    dict.set_item("key", is_key.then_some(&*row.key))?;
    dict.set_item("until", stamp(row.until.instant()))?;
    dict.set_item("since", row.since.rfc3339())?;
    dict.set_item("by", &*row.by)?;
    Ok(dict)
}

/// A limit as `Limit._spec` tells it.
fn named_limit(spec: &Bound<'_, PyAny>) -> PyResult<Limit> {
    let throttle = spec.get_item("throttle")?;
    let throttle = if throttle.is_none() { None } else { Some(rate(&throttle)?) };
    let terms = Terms { concurrency: spec.get_item("concurrency")?.extract()?, throttle };
    Ok(Limit { name: spec.get_item("name")?.extract::<String>()?.into(), terms })
}

/// A throttle as `Throttle._spec` tells it.
pub fn rate(spec: &Bound<'_, PyAny>) -> PyResult<Rate> {
    Ok(Rate {
        limit: spec.get_item("limit")?.extract()?,
        per: Duration::from_micros(spec.get_item("per_us")?.extract()?),
        burst: spec.get_item("burst")?.extract()?,
    })
}

fn retry(spec: &Bound<'_, PyAny>) -> PyResult<RetryPolicy> {
    let micros =
        |name: &str| -> PyResult<Duration> { Ok(Duration::from_micros(spec.get_item(name)?.extract()?)) };
    let conditions = spec.get_item("conditions")?;
    let conditions = conditions.try_iter()?.map(|each| condition(&each?)).collect::<PyResult<_>>()?;
    let time_max =
        spec.cast::<PyDict>()?.get_item("time_max_us")?.map(|span| span.extract::<u64>()).transpose()?;
    Ok(RetryPolicy {
        attempts_max: spec.get_item("attempts")?.extract()?,
        time_max: time_max.map(Duration::from_micros),
        first_delay: micros("first_delay_us")?,
        delay_max: micros("delay_max_us")?,
        backoff: backoff(&spec.get_item("backoff")?)?,
        conditions,
        jitter: spec.get_item("jitter")?.extract()?,
    })
}

fn backoff(spec: &Bound<'_, PyAny>) -> PyResult<Backoff> {
    let number = |at: usize| -> PyResult<f64> { spec.get_item(at)?.extract() };
    Ok(match spec.get_item(0)?.extract::<String>()?.as_str() {
        "fixed" => Backoff::Fixed,
        "linear" => Backoff::Linear { multiplier: number(1)? },
        _ => Backoff::Exponential { base: number(1)?, multiplier: number(2)? },
    })
}

fn condition(spec: &Bound<'_, PyAny>) -> PyResult<Condition> {
    Ok(match spec.get_item(0)?.extract::<String>()?.as_str() {
        "never" => Condition::Never,
        "transient" => Condition::Transient,
        "pattern" => Condition::Pattern(spec.get_item(1)?.extract()?),
        _ => Condition::All,
    })
}
