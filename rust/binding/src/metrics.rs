//! What a runner counts, as Python data. Translation only: which series there are, and what they are called, is said in Python.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use cloaca_core::engine::{CallCounts, Counted, FireCounts, RunCounts, TaskCounts};
use cloaca_core::meter::{BOUNDS_US, Durations, Named};
use cloaca_core::poll::PollTally;
use cloaca_core::port::TryOutcome;
use cloaca_core::runtime::Metered;

/// So many were no longer than each bound, how many there were, and the seconds that they took together.
type Shown = (Vec<u64>, u64, f64);

fn durations(found: &Durations) -> Shown {
    (found.cumulative().collect(), found.count, found.sum_us as f64 / 1e6)
}

/// All that was counted: totals by their names, and lists of what is told apart, each with what is left for all others.
pub fn metered<'py>(py: Python<'py>, found: &Metered) -> PyResult<Bound<'py, PyDict>> {
    let Metered { polls, poll_meter, counts, counted, calls, doings, in_hand, overdue } = found;
    let dict = PyDict::new(py);
    let numbers = [
        ("polls", polls.polls),
        ("skips", polls.skips),
        ("missed", polls.missed),
        ("started", counts.started),
        ("changes", doings.changes),
        ("refusals", doings.refusals),
        ("taken_over", doings.taken_over),
        ("in_hand", *in_hand as u64),
        ("overdue", *overdue as u64),
    ];
    numbers.into_iter().try_for_each(|(name, number)| dict.set_item(name, number))?;
    dict.set_item("bounds", BOUNDS_US.map(|us| us as f64 / 1e6))?;
    dict.set_item("late", durations(&poll_meter.late))?;
    dict.set_item("took", durations(&poll_meter.took))?;
    dict.set_item("commits", durations(&doings.commits))?;
    dict.set_item("limited", counted.limited.iter().map(|(&rule, &many)| (rule, many)).collect::<Vec<_>>())?;
    dict.set_item("triggers", triggers(&poll_meter.triggers))?;
    dict.set_item("fires", fires(py, counted)?)?;
    dict.set_item("calls", called(py, calls)?)?;
    dict.set_item("runs", runs(py, counted)?)?;
    dict.set_item("tasks", tasks(py, counted)?)?;
    Ok(dict)
}

fn triggers(found: &[(Arc<str>, PollTally)]) -> Vec<(&str, u64, u64)> {
    found.iter().map(|(name, tally)| (&**name, tally.polls, tally.skips)).collect()
}

fn fires<'py>(py: Python<'py>, counted: &Counted) -> PyResult<Bound<'py, PyList>> {
    let shown = |name: Option<&str>, counts: &FireCounts| {
        let FireCounts { fires, deduplicated, dropped, held_back, errors, ends } = *counts;
        (name.map(str::to_owned), [fires, deduplicated, dropped, held_back, errors], ends)
    };
    let known = counted.fires.known().map(|(name, counts)| shown(Some(name), counts));
    let other = counted.fires.is_full().then(|| shown(None, &counted.fires.other));
    PyList::new(py, known.chain(other).collect::<Vec<_>>())
}

fn called<'py>(py: Python<'py>, calls: &Named<Arc<str>, CallCounts>) -> PyResult<Bound<'py, PyList>> {
    let shown = |name: Option<&str>, counts: &CallCounts| {
        let CallCounts { called, failed, given_up } = *counts;
        (name.map(str::to_owned), [called, failed, given_up])
    };
    let known = calls.known().map(|(name, counts)| shown(Some(name), counts));
    let other = calls.is_full().then(|| shown(None, &calls.other));
    PyList::new(py, known.chain(other).collect::<Vec<_>>())
}

fn runs<'py>(py: Python<'py>, counted: &Counted) -> PyResult<Bound<'py, PyList>> {
    let shown = |name: Option<&str>, counts: &RunCounts| {
        let RunCounts { completed, failed, cancelled, wait } = counts;
        (name.map(str::to_owned), [completed, failed, cancelled, wait].map(durations))
    };
    let known = counted.runs.known().map(|(name, counts)| shown(Some(name), counts));
    let other = counted.runs.is_full().then(|| shown(None, &counted.runs.other));
    PyList::new(py, known.chain(other).collect::<Vec<_>>())
}

fn tasks<'py>(py: Python<'py>, counted: &Counted) -> PyResult<Bound<'py, PyList>> {
    let shown = |name: Option<(&str, &str)>, counts: &TaskCounts| {
        let outcomes: Vec<(&str, u64)> = TryOutcome::ALL
            .iter()
            .map(|outcome| (outcome.name(), counts.outcomes[*outcome as usize]))
            .collect();
        let (attempts, tasks) = (durations(&counts.attempts), durations(&counts.tasks));
        let name = name.map(|(workflow, task)| (workflow.to_owned(), task.to_owned()));
        (name, outcomes, counts.retries, attempts, tasks)
    };
    let known = counted.tasks.known().map(|((workflow, task), counts)| shown(Some((workflow, task)), counts));
    let other = counted.tasks.is_full().then(|| shown(None, &counted.tasks.other));
    PyList::new(py, known.chain(other).collect::<Vec<_>>())
}
