//! What attempts leave for the next ones of their tasks, and the wait until it is kept.
//! Invariant: a checkpoint counts as kept only by the store's receipt.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::{Effects, Job};
use crate::runtime::Runtime;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::writer::FLUSH_PAUSE;

/// A checkpoint on its way to the store.
#[derive(Debug, Clone, Copy)]
pub struct Checkpointing {
    job: Job,
    number: u64,
    sent: u64,
}

impl Runtime {
    /// Sends an attempt's checkpoint to the store; none if nobody waits for that attempt, or nothing can be kept any more.
    pub fn checkpoint(&self, job: Job, value: Arc<str>) -> Option<Checkpointing> {
        let mut effects = Effects::default();
        let mut engine = lock(&self.shared.engine);
        if self.shared.is_over.load(Ordering::Acquire) {
            return None;
        }
        let number = engine.checkpoint(job, value, &mut effects)?;
        self.shared.carry_out(engine, effects);
        let sent = lock(&self.shared.writer).sent;
        Some(Checkpointing { job, number, sent })
    }

    /// Waits at most `span` until it is kept; false if that cannot be said of it any more; none if it is worth while to wait on. Call
    /// detached.
    pub fn checkpoint_kept(&self, checkpoint: &Checkpointing, span: Duration) -> Option<bool> {
        let until = Instant::now() + span;
        let mut writer = lock(&self.shared.writer);
        while writer.kept < checkpoint.sent && !writer.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            writer.flushing += 1;
            writer = wait_on(&self.shared.writer_idle, writer, Some(left.min(FLUSH_PAUSE)));
            writer.flushing -= 1;
        }
        drop(writer);
        let row = lock(&self.shared.engine).run(checkpoint.job.run).map(|run| run.row);
        // First: what is refused no more has its receipt by then.
        let is_refused = row.is_some_and(|row| lock(&self.shared.writer).refused.why(row).is_some());
        let engine = lock(&self.shared.engine);
        let is_kept = engine.is_checkpoint_kept(checkpoint.job, checkpoint.number);
        let is_waited_for = is_refused && engine.expects(checkpoint.job);
        drop(engine);
        let mut writer = lock(&self.shared.writer);
        if is_kept || !is_waited_for || writer.closed {
            return Some(is_kept);
        }
        // It is tried again.
        writer.flushing += 1;
        writer = wait_on(&self.shared.writer_idle, writer, Some(span.min(FLUSH_PAUSE)));
        writer.flushing -= 1;
        None
    }
}
