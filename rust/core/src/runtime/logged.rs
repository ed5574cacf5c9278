//! What bodies log, gathered until something else is written anyway, there is much of it, or half a second is over: a line never waits for
//! the store, and costs no commit of its own. Invariant: what an attempt logged reaches the writer before the attempt's end does.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::engine::Then;
use crate::key::ById;
use crate::port::{Change, Line, Logged};
use crate::runtime::park::lock;
use crate::runtime::{Runtime, Shared};

/// So much is gathered at most before it is sent.
const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// So much waits at most for a store that takes nothing; lines that come then are only counted.
const UNKEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What waits to be sent.
#[derive(Default)]
pub(super) struct Gathered {
    runs: ById<Uuid, Logged>,
    bytes: usize,
    /// With what was sent and is not kept yet.
    unkept: usize,
}

impl Gathered {
    /// What waits of a run.
    fn of(&mut self, run: Uuid, bytes_max: u64) -> &mut Logged {
        self.runs.entry(run).or_insert_with(|| Logged { run, lines: Vec::new(), left_out: 0, bytes_max })
    }
}

impl Runtime {
    /// Keeps a line that a body of the run logged, soon; at most `bytes_max` of a run. Never waits for the store.
    pub fn log(&self, run: Uuid, bytes_max: u64, line: Line) {
        let shared = &self.shared;
        if shared.is_closed.load(Ordering::Acquire) {
            return;
        }
        let is_much = {
            let mut gathered = lock(&shared.logged);
            let bytes = line.bytes();
            let is_full = gathered.unkept + bytes > UNKEPT_BYTES_MAX;
            let logged = gathered.of(run, bytes_max);
            match is_full {
                true => logged.left_out += 1,
                false => logged.lines.push(line),
            }
            if !is_full {
                gathered.bytes += bytes;
                gathered.unkept += bytes;
            }
            shared.has_logged.store(true, Ordering::Release);
            !is_full && gathered.bytes >= GATHERED_BYTES_MAX
        };
        if is_much {
            shared.send_logged();
        }
    }

    /// Counts lines that a body of the run logged, and that were left out where it ran.
    pub fn left_out(&self, run: Uuid, bytes_max: u64, lines: u64) {
        let shared = &self.shared;
        if !shared.is_closed.load(Ordering::Acquire) {
            lock(&shared.logged).of(run, bytes_max).left_out += lines;
            shared.has_logged.store(true, Ordering::Release);
        }
    }
}

impl Shared {
    /// Sends what bodies have logged to the writer.
    pub(super) fn send_logged(&self) {
        if !self.has_logged.load(Ordering::Acquire) {
            return;
        }
        // Held until it is sent: of two who send, the later one's is the later.
        let mut gathered = lock(&self.logged);
        self.has_logged.store(false, Ordering::Release);
        gathered.bytes = 0;
        let found = std::mem::take(&mut gathered.runs);
        self.send(found.into_values().map(|logged| (Change::Logged(logged), Then::Nothing)));
    }

    /// These have been written, or never will be.
    pub(super) fn logged_written(&self, changes: &[Change]) {
        let bytes = |change: &Change| match change {
            Change::Logged(logged) => Some(logged.bytes()),
            _ => None,
        };
        let written: usize = changes.iter().filter_map(bytes).sum();
        if written > 0 {
            lock(&self.logged).unkept -= written;
        }
    }
}
