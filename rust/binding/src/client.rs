//! Changes to a store by somebody who runs nothing.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use uuid::Uuid;

use cloaca_core::admit::Overlap;
use cloaca_core::client::{self, Apart, Granted, Wish};
use cloaca_core::engine::{Asked, Declared};
use cloaca_core::error::{Error, Kind};
use cloaca_core::key::ScheduleKey;
use cloaca_core::limit::Limits;
use cloaca_core::port::{ContextHash, Halt, Stored, TriggerRow};
use cloaca_core::seat::Pause;
use cloaca_core::time::Wall;
use cloaca_core::urgency::{Priority, Urgency};

use crate::convert::{forgotten_of, kind_of, renamed_of, until_of};
use crate::error::{raise, raise_dropped};
use crate::handle::{parse_run_id, span_of};
use crate::poll_now::{ToldParts, shown};
use crate::runs::parse_run_ids;
use crate::wait::{CLOSE_PATIENCE, apart};
use crate::work::{UrgencyParts, urgency_of};
use crate::{error, fork, work};

/// A store that is changed without a runner.
#[pyclass(frozen, module = "cloaca._cloaca")]
pub struct Client {
    client: Arc<client::Client>,
    generation: u64,
}

#[pymethods]
impl Client {
    /// Opens the store that a URL names.
    #[staticmethod]
    fn open(py: Python<'_>, url: OsString) -> PyResult<Self> {
        let opened = apart(py, &Halt::default(), move || cloaca_store::open(&url, None))?;
        let opened = opened.map_err(|error| error::raise_open(py, error))?;
        Ok(Self { client: Arc::new(client::Client::new(opened.store)), generation: fork::generation() })
    }

    /// Closes it; twice is fine.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if fork::is_forked(self.generation) {
            return Ok(());
        }
        let client = Arc::clone(&self.client);
        apart(py, &Halt::within(CLOSE_PATIENCE), move || client.close())
    }

    /// Starts a run that a living runner claims; `key` is a run key, and for how many seconds it holds, `again` the run whose work it does again. The run's id, and whether it is a
    /// new one.
    #[pyo3(signature = (workflow, version, context, key=None, urgency=None, again=None))]
    #[allow(clippy::too_many_arguments, reason = "each is a word of the request")]
    fn submit(
        &self,
        py: Python<'_>,
        workflow: &str,
        version: &str,
        context: &str,
        key: Option<(String, f64)>,
        urgency: Option<UrgencyParts>,
        again: Option<&str>,
    ) -> PyResult<(Option<String>, bool)> {
        let now = now();
        let again = again.map(|id| parse_run_id(py, id)).transpose()?;
        let run_key = key.map(|(key, seconds)| (key, now.after(span_of(seconds))));
        let wish = Wish {
            trace: None,
            workflow: workflow.into(),
            version: version.into(),
            context: context.into(),
            run_key,
            urgency: urgency_of(urgency),
            again,
        };
        match self.changed(py, move |client, _| client.submit(&wish, now))? {
            Granted::Started(id) => Ok((Some(id.to_string()), true)),
            Granted::Known(of) => Ok((of.map(|of| of.to_string()), false)),
            Granted::Dropped(dropped) => {
                Err(raise_dropped(py, format!("not started, {}", dropped.why), &dropped))
            }
            Granted::Unkeyed(why) => Err(raise(py, Error::new(Kind::Context, why))),
        }
    }

    /// Opens runs that failed or were cancelled again; of each whether it was one, and why it is refused.
    fn retry_each(&self, py: Python<'_>, ids: Vec<String>) -> PyResult<Vec<(bool, Option<String>)>> {
        let ids = parse_run_ids(py, &ids)?;
        let told = self.changed(py, move |client, _| client.retry_each(&ids, now()))?;
        let shown = |told| match told {
            Ok(is_open) => (is_open, None),
            Err(why) => (false, Some(why)),
        };
        Ok(told.into_iter().map(shown).collect())
    }

    /// Asks for the ends of runs; of each whether it was there and not final.
    fn cancel_each(&self, py: Python<'_>, ids: Vec<String>) -> PyResult<Vec<bool>> {
        let ids = parse_run_ids(py, &ids)?;
        self.changed(py, move |client, _| client.cancel_each(&ids, now()))
    }

    /// Holds a limit or a workflow up, until a time in microseconds or until that is taken back.
    /// False if it is a key of a workflow that has none.
    fn pause(
        &self,
        py: Python<'_>,
        kind: &str,
        name: &str,
        key: Option<&str>,
        until_us: Option<i64>,
        by: &str,
    ) -> PyResult<bool> {
        let pause = Pause {
            kind: kind_of(kind, key),
            name: name.into(),
            key: key.unwrap_or_default().into(),
            until: until_of(until_us),
            since: now(),
            by: by.into(),
        };
        self.changed(py, move |client, _| client.pause(&pause))
    }

    /// Holds it up no longer; false if it was not.
    fn resume(&self, py: Python<'_>, kind: &str, name: &str, key: Option<String>) -> PyResult<bool> {
        let (kind, name) = (kind_of(kind, key.as_deref()), name.to_owned());
        let key = key.unwrap_or_default();
        self.changed(py, move |client, _| client.resume(kind, &name, &key, now()))
    }

    /// What would become of fires of a trigger, with the cursor that its poll set, as `(verdict, run, reason)`; `held` are its unfinished runs, each
    /// with the hash that it guards, and `cron` is its row if it is a cron that has one. Changes nothing.
    #[allow(clippy::too_many_arguments, reason = "each is a word of the question")]
    fn foretell(
        &self,
        py: Python<'_>,
        trigger: &str,
        gate: (bool, String),
        workflow: AskedWorkflow,
        fires: Vec<work::AskedParts>,
        cursor: Option<String>,
        held: Vec<HeldParts>,
        cron: Option<i64>,
    ) -> PyResult<Vec<ToldParts>> {
        let workflow = asked(py, workflow)?;
        let trigger = stood_in(trigger, &workflow.name, gate);
        let (held, cron) = (held_of(&held), cron.map(ScheduleKey));
        let fires = fires.into_iter().map(work::fire).collect();
        let told = self.changed(py, move |client, _| {
            let apart = Apart { trigger: &trigger, workflow, cron, held: &held };
            client.rehearse(apart, fires, cursor.as_deref(), now())
        })?;
        Ok(told.into_iter().map(shown).collect())
    }

    /// What would become of runs of a workflow that are started by hand, one after another, as `(verdict, run, reason)`. Changes nothing.
    fn foretell_starts(
        &self,
        py: Python<'_>,
        workflow: AskedWorkflow,
        runs: Vec<(String, Option<UrgencyParts>)>,
    ) -> PyResult<Vec<ToldParts>> {
        let workflow = asked(py, workflow)?;
        let runs = started(runs);
        let told = self.changed(py, move |client, _| client.rehearse_starts(workflow, runs, now()))?;
        Ok(told.into_iter().map(shown).collect())
    }

    /// Deletes what is kept of a name: whether there was anything, and whose number forbids it.
    fn forget(&self, py: Python<'_>, name: &str) -> PyResult<(bool, Option<i64>)> {
        let name = name.to_owned();
        Ok(forgotten_of(self.changed(py, move |client, _| client.forget(&name, now()))?))
    }

    /// Gives what is kept of a name another one: whether there was anything, whose number forbids it, and whether the other name is taken.
    fn rename(&self, py: Python<'_>, name: &str, new_name: &str) -> PyResult<(bool, Option<i64>, bool)> {
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        Ok(renamed_of(self.changed(py, move |client, _| client.rename(&name, &new_name, now()))?))
    }

    /// Deletes some of the runs that ended before a time in microseconds; how many are gone, none if none is left.
    fn prune(&self, py: Python<'_>, before_us: i64) -> PyResult<u64> {
        self.changed(py, move |client, halt| client.prune(Wall(before_us), now(), halt))
    }
}

impl Client {
    fn changed<T: Send + 'static>(
        &self,
        py: Python<'_>,
        change: impl FnOnce(&client::Client, &Halt) -> Stored<T> + Send + 'static,
    ) -> PyResult<T> {
        if fork::is_forked(self.generation) {
            let text = "this client was made before a fork; make a new one in the child process";
            return Err(error::raise(py, Error::new(Kind::Runner, text)));
        }
        let halt = Halt::default();
        let asked = halt.clone();
        let client = Arc::clone(&self.client);
        let done = apart(py, &halt, move || change(&client, &asked))?;
        done.map_err(|fault| error::raise_fault(py, fault))
    }
}

/// An unfinished run, with the hash that it guards.
pub type HeldParts = (String, Option<[u8; 16]>);

/// Runs that hold up others.
pub fn held_of(held: &[HeldParts]) -> Vec<(Uuid, Option<ContextHash>)> {
    held.iter().filter_map(|(id, hash)| Some((Uuid::parse_str(id).ok()?, *hash))).collect()
}

/// A trigger as far as the fate of its fires depends on it, with whether equal ones may run beside each other and its overlap policy.
pub fn stood_in(name: &str, workflow: &Arc<str>, (allow_concurrent, overlap): (bool, String)) -> Declared {
    let row = TriggerRow {
        name: name.into(),
        workflow: Arc::clone(workflow),
        interval_us: 0,
        allow_concurrent,
        on_run: None,
        digest: 0,
        origin_at: now(),
    };
    Declared { row, overlap: Overlap::from_name(&overlap).unwrap_or_default() }
}

/// `(name, version, priority, limits)`, the last as JSON text.
type AskedWorkflow = (String, String, i64, Option<String>);

fn asked(py: Python<'_>, (name, version, priority, limits): AskedWorkflow) -> PyResult<Asked> {
    let limits = limits.as_deref().map(Limits::from_json).transpose().map_err(|e| raise(py, e))?;
    Ok(Asked {
        name: name.into(),
        version: version.into(),
        priority: Priority::new(priority).unwrap_or_default(),
        limits: limits.map(Arc::new),
        is_paused: false,
    })
}

/// Runs that are to be started by hand.
pub fn started(runs: Vec<(String, Option<UrgencyParts>)>) -> Vec<(Arc<str>, Urgency)> {
    runs.into_iter().map(|(context, urgency)| (context.into(), urgency_of(urgency))).collect()
}

/// This moment.
pub fn now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Drop for Client {
    fn drop(&mut self) {
        if fork::is_forked(self.generation) {
            // Its descriptors and locks are the parent's: leak them here.
            std::mem::forget(Arc::clone(&self.client));
        }
    }
}
