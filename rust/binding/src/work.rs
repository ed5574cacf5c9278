//! The loop in which a Python thread polls: attached once, it calls one due body after another, and detaches only to wait.
//! Everything that is not the plain skip goes to Python's `slow`, which turns it into plain data.
//! Invariant: an exception of a body, of whatever kind, ends its poll and never the loop.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use uuid::Uuid;

use cloaca_core::context::LIGHT_BYTES_MAX;
use cloaca_core::poll::Ticket;
use cloaca_core::runtime::{Answer, AskedFire, PollTurn, Report, Runtime};
use cloaca_core::time::{Mono, Now, Wall};
use cloaca_core::urgency::{Due, Priority, Urgency};

use crate::call::{call, call0};
use crate::fork::is_forked;
use crate::gil::free;

/// A ticket and when its poll began, as Python carries it: `(place, serial, due, began_ns, began_us, ends)`.
pub type TicketParts = (u32, u32, u64, u64, i64, i64);

/// A ticket as plain numbers.
pub fn parts_of(ticket: Ticket, began: Now) -> TicketParts {
    (ticket.place, ticket.serial, ticket.due.0, began.mono.0, began.wall.0, ticket.ends)
}

/// The ticket and the time that plain numbers stand for.
pub fn ticket_of(parts: TicketParts) -> (Ticket, Now) {
    let (place, serial, due, mono, wall, ends) = parts;
    (
        Ticket { place, serial, due: Mono(due), ends, is_noted: false },
        Now { mono: Mono(mono), wall: Wall(wall) },
    )
}

thread_local! {
    /// The place of the trigger whose body this thread calls, or called last.
    static PLACE: Cell<Option<u32>> = const { Cell::new(None) };
    /// Where this thread sits: one that a fault or an exception from outside has thrown out of the loop comes again, and goes on there.
    static SEAT: Cell<Seat> = const { Cell::new(Seat::None) };
}

#[derive(Clone, Copy)]
enum Seat {
    None,
    Taken(u64),
    /// It was sent home.
    Left,
}

/// The place of the trigger whose body asks, on a thread that polls.
pub fn place_here() -> Option<u32> {
    PLACE.get()
}

/// Polls until the runtime sends the thread home. `rest` does nothing: out of it comes what was thrown into the thread from outside while it
/// waited, and is not to meet the next body.
pub fn poll_loop(
    py: Python<'_>,
    runtime: &Runtime,
    bodies: &Bound<'_, PyList>,
    skip: &Bound<'_, PyAny>,
    slow: &Bound<'_, PyAny>,
    rest: &Bound<'_, PyAny>,
    generation: u64,
) -> PyResult<()> {
    let seat = match SEAT.get() {
        Seat::None => runtime.poll_seat(),
        Seat::Taken(seat) => seat,
        Seat::Left => return Ok(()),
    };
    SEAT.set(Seat::Taken(seat));
    let mut turn = runtime.poll_turn(seat);
    loop {
        turn = match turn {
            PollTurn::Poll(ticket, began) => {
                PLACE.set(Some(ticket.place));
                if ticket.is_noted {
                    free(py, || runtime.begin_noted(ticket))?;
                }
                let answer = bodies.get_item(ticket.place as usize).and_then(|body| call0(&body));
                // A body that forks comes back twice. The child has this thread, and nothing else of the runner.
                if is_forked(generation) {
                    return Ok(());
                }
                match answer {
                    Ok(value) if value.is(skip) => runtime.poll_on(seat, ticket, began),
                    answer => {
                        finish(runtime, parts_of(ticket, began), answer, slow, generation)?;
                        if is_forked(generation) {
                            return Ok(());
                        }
                        runtime.poll_turn(seat)
                    }
                }
            }
            PollTurn::Wait => {
                py.check_signals()?;
                free(py, || runtime.poll_wait(seat))?;
                call0(rest)?;
                runtime.poll_turn(seat)
            }
            PollTurn::Leave => {
                SEAT.set(Seat::Left);
                return Ok(());
            }
        }
    }
}

/// Ends a poll with what `slow` makes of its answer.
pub fn finish(
    runtime: &Runtime,
    parts: TicketParts,
    answer: PyResult<Bound<'_, PyAny>>,
    slow: &Bound<'_, PyAny>,
    generation: u64,
) -> PyResult<()> {
    let (ticket, began) = ticket_of(parts);
    // Whatever went wrong with the answer, the poll is over: a trigger whose poll never ends is never polled again.
    let ruling =
        ruled(parts, answer, slow).unwrap_or_else(|error| Ruling::Tick(unreadable(slow.py(), &error)));
    // A generator's body is called by `slow`, and may have forked, too.
    if is_forked(generation) {
        return Ok(());
    }
    end(slow.py(), runtime, ticket, began, ruling)
}

/// Ends a poll with a ruling as `slow` says it, which is made already.
pub fn finish_with(runtime: &Runtime, ticket: Ticket, began: Now, ruling: &Bound<'_, PyAny>) -> PyResult<()> {
    end(ruling.py(), runtime, ticket, began, read(ruling)?)
}

fn end(py: Python<'_>, runtime: &Runtime, ticket: Ticket, began: Now, ruling: Ruling) -> PyResult<()> {
    match ruling {
        Ruling::Skip(reason, pause) => runtime.poll_skipped(ticket, &reason, began, pause),
        Ruling::Tick(answer) => {
            let bytes: usize = answer.fires.iter().map(|fire| fire.context.len()).sum();
            match bytes > LIGHT_BYTES_MAX {
                // Each context is hashed.
                true => free(py, || runtime.poll_ended(ticket, began, answer))?,
                false => runtime.poll_ended(ticket, began, answer),
            }
        }
        Ruling::Pending => runtime.poll_pending(ticket, began),
    }
    Ok(())
}

/// What a ruling as `slow` says it has to tell the engine; none if it comes later.
pub fn report(ticket: Ticket, began: Now, ruling: &Bound<'_, PyAny>) -> PyResult<Option<Report>> {
    Ok(match read(ruling)? {
        Ruling::Skip(reason, pause) => Some(Report::Skipped(ticket, reason, began, pause)),
        Ruling::Tick(answer) => Some(Report::Polled(ticket, began, answer)),
        Ruling::Pending => None,
    })
}

enum Ruling {
    Skip(String, Option<Duration>),
    Tick(Answer),
    Pending,
}

/// A fire as Python carries it: `(json, run_key, run_key_ttl_us, cursor, dedup_key, urgency, parent, trace)`.
pub type AskedParts = (
    String,
    Option<String>,
    Option<u64>,
    Option<String>,
    Option<String>,
    Option<UrgencyParts>,
    Option<u128>,
    Option<String>,
);
/// A priority; an instant or a delay, in microseconds.
pub type UrgencyParts = (Option<i64>, Option<i64>, Option<u64>);
type Ticked = (Vec<AskedParts>, Option<String>, String, Option<String>, Option<u64>);

/// What `slow` says: `None` for an answer that comes later, a skip's reason, `(reason, pause_us)`, or
/// `(fires, cursor, reason, error, pause_us)`, or the same with a limit that is to be paused for as long behind it, with `fires` as `AskedParts`.
fn ruled(
    parts: TicketParts,
    answer: PyResult<Bound<'_, PyAny>>,
    slow: &Bound<'_, PyAny>,
) -> PyResult<Ruling> {
    let py = slow.py();
    let arguments = match answer {
        Ok(value) => (parts, value, py.None()).into_pyobject(py)?,
        Err(error) => (parts, py.None(), error.into_value(py)).into_pyobject(py)?,
    };
    read(&call(slow, arguments)?)
}

fn read(ruling: &Bound<'_, PyAny>) -> PyResult<Ruling> {
    if ruling.is_none() {
        return Ok(Ruling::Pending);
    }
    if let Ok(reason) = ruling.extract::<String>() {
        return Ok(Ruling::Skip(reason, None));
    }
    if ruling.cast::<PyTuple>()?.len() == 2 {
        let (reason, pause_us): (String, u64) = ruling.extract()?;
        return Ok(Ruling::Skip(reason, Some(Duration::from_micros(pause_us))));
    }
    let (limit, ruling) = match ruling.cast::<PyTuple>()?.get_item(5) {
        Ok(limit) => {
            (limit.extract::<Option<String>>()?, ruling.cast::<PyTuple>()?.get_slice(0, 5).into_any())
        }
        Err(_) => (None, ruling.clone()),
    };
    let (fires, cursor, reason, error, pause_us): Ticked = ruling.extract()?;
    let reason = error.map_or(Ok(reason), Err);
    let pause = pause_us.map(Duration::from_micros);
    let (fires, limit) = (fires.into_iter().map(fire).collect(), limit.map(Arc::from));
    Ok(Ruling::Tick(Answer { fires, cursor, reason, pause, limit }))
}

fn unreadable(py: Python<'_>, error: &PyErr) -> Answer {
    let kind = error.get_type(py).name().map_or_else(|_| "an exception".to_owned(), |name| name.to_string());
    let reason = Err(format!("its answer cannot be read: {kind}"));
    Answer { fires: Vec::new(), cursor: None, reason, pause: None, limit: None }
}

/// The same.
pub fn fire((json, key, ttl_us, cursor, dedup_key, urgency, parent, trace): AskedParts) -> AskedFire {
    let run_key = key.map(|key| (key, ttl_us.map(Duration::from_micros)));
    AskedFire {
        trace: trace.map(Arc::from),
        context: Arc::from(json),
        run_key,
        cursor,
        dedup_key,
        urgency: urgency_of(urgency),
        parent: parent.map(Uuid::from_u128),
    }
}

/// When a run is to begin, as Python has checked it.
pub fn urgency_of(parts: Option<UrgencyParts>) -> Urgency {
    let (priority, at_us, delay_us) = parts.unwrap_or_default();
    let at = at_us.map(|at| Due::At(Wall(at)));
    let after = delay_us.map(|span| Due::After(Duration::from_micros(span)));
    Urgency { priority: priority.and_then(Priority::new), due: at.or(after) }
}
