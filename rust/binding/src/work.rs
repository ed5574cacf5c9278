//! The loop in which a Python thread polls: attached once, it calls one due body after another, and detaches only to wait.
//! Everything that is not the plain skip goes to Python's `slow`, which turns it into plain data.
//! Invariant: an exception of a body, of whatever kind, ends its poll and never the loop.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use cloaca_core::context::hash_json;
use cloaca_core::engine::{Fire, Polled};
use cloaca_core::poll::Ticket;
use cloaca_core::runtime::{PollTurn, Runtime};
use cloaca_core::time::{Now, Wall};

/// Polls until the runtime sends the thread home.
pub fn poll_loop(
    py: Python<'_>,
    runtime: &Runtime,
    bodies: &Bound<'_, PyList>,
    skip: &Bound<'_, PyAny>,
    slow: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let seat = runtime.poll_seat();
    loop {
        match runtime.poll_turn(seat) {
            PollTurn::Poll(ticket, began) => poll(runtime, ticket, began, bodies, skip, slow)?,
            PollTurn::Wait(until) => {
                py.check_signals()?;
                py.detach(|| runtime.poll_wait(seat, until));
            }
            PollTurn::Leave => return Ok(()),
        }
    }
}

fn poll(
    runtime: &Runtime,
    ticket: Ticket,
    began: Now,
    bodies: &Bound<'_, PyList>,
    skip: &Bound<'_, PyAny>,
    slow: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let answer = bodies.get_item(ticket.slot as usize).and_then(|body| body.call0());
    if let Ok(value) = &answer
        && value.is(skip)
    {
        runtime.poll_skipped(ticket, "", began);
        return Ok(());
    }
    match ruled(ticket, began, answer, slow)? {
        Answer::Skip(reason) => runtime.poll_skipped(ticket, &reason, began),
        Answer::Tick(polled) => runtime.poll_ended(ticket, began, *polled),
    }
    Ok(())
}

enum Answer {
    Skip(String),
    Tick(Box<Polled>),
}

/// What `slow` makes of an answer: a skip's reason, or
/// `(trigger, workflow, allow_concurrent, fires, cursor, error)` with `fires` as `(json, run_key, run_key_ttl_us)`.
fn ruled(
    ticket: Ticket,
    began: Now,
    answer: PyResult<Bound<'_, PyAny>>,
    slow: &Bound<'_, PyAny>,
) -> PyResult<Answer> {
    let py = slow.py();
    let ruling = match answer {
        Ok(value) => slow.call1((ticket.slot, value, py.None()))?,
        Err(error) => slow.call1((ticket.slot, py.None(), error.into_value(py)))?,
    };
    if let Ok(reason) = ruling.extract::<String>() {
        return Ok(Answer::Skip(reason));
    }
    let ruling = ruling.cast::<PyTuple>()?;
    let trigger: String = ruling.get_item(0)?.extract()?;
    let fires: Vec<(String, Option<String>, Option<i64>)> = ruling.get_item(3)?.extract()?;
    Ok(Answer::Tick(Box::new(Polled {
        slot: ticket.slot,
        schedule: 0,
        workflow: ruling.get_item(1)?.extract::<String>()?.into(),
        allow_concurrent: ruling.get_item(2)?.extract()?,
        at: began.wall,
        duration_us: 0,
        fires: fires.into_iter().map(|parts| fire(&trigger, parts, began.wall)).collect(),
        cursor: ruling.get_item(4)?.extract()?,
        error: ruling.get_item(5)?.extract()?,
        history: Vec::new(),
        trigger: trigger.into(),
    })))
}

fn fire(trigger: &str, parts: (String, Option<String>, Option<i64>), now: Wall) -> Fire {
    let (json, key, ttl_us) = parts;
    let context = serde_json::from_str(&json).expect("the Python layer encodes contexts as JSON objects");
    let expires = ttl_us.map(|ttl| Wall(now.0.saturating_add(ttl)));
    Fire {
        hash: hash_json(trigger, &context),
        context: Arc::from(json),
        run_key: key.map(|key| (key, expires)),
    }
}
