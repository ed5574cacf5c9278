//! The thread that writes: it takes whatever has gathered since its last commit, so that a lone change never waits.
//! Invariant: the engine hears of a change only after its commit.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::{Effects, Event, Level, Then};
use crate::fault_point::{Step, around};
use crate::port::{Change, Fault, Receipt};
use crate::runtime::keeper::Order;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::{Runtime, Shared};

/// At most so many changes share one transaction.
pub(super) const BATCH_MAX: usize = 4096;

/// Between two looks of who waits for the writer at whether the runner closes.
pub(super) const FLUSH_PAUSE: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(super) struct WriterState {
    pub(super) items: VecDeque<(Change, Then)>,
    pub(super) busy: bool,
    /// So many wait until all is written.
    pub(super) flushing: usize,
    pub(super) closed: bool,
}

/// Up to [`BATCH_MAX`] changes from the front. What a burst has made room for is given back as it drains.
pub(super) fn next_batch(items: &mut VecDeque<(Change, Then)>) -> Vec<(Change, Then)> {
    if items.len() <= BATCH_MAX {
        return std::mem::take(items).into();
    }
    let batch = items.drain(..BATCH_MAX).collect();
    if items.len() < items.capacity() / 4 {
        items.shrink_to_fit();
    }
    batch
}

impl Runtime {
    /// Waits until everything sent to the store so far is kept, quiet history included.
    pub fn flush(&self) {
        let history = lock(&self.shared.polls).poller.take_history();
        self.step(Event::History(history));
        let mut writer = lock(&self.shared.writer);
        while (writer.busy || !writer.items.is_empty()) && !writer.closed {
            writer.flushing += 1;
            writer = wait_on(&self.shared.writer_idle, writer, Some(FLUSH_PAUSE));
            writer.flushing -= 1;
            if self.shared.closing.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

impl Shared {
    /// The writer: takes whatever has gathered since its last commit, so that a lone change never waits.
    pub(super) fn write_all(&self) {
        loop {
            let batch = {
                let mut writer = lock(&self.writer);
                writer.busy = false;
                if writer.flushing > 0 {
                    self.writer_idle.notify_all();
                }
                while writer.items.is_empty() {
                    if writer.closed {
                        return;
                    }
                    writer = wait_on(&self.writer_wake, writer, None);
                }
                writer.busy = true;
                next_batch(&mut writer.items)
            };
            self.write(batch);
        }
    }

    pub(super) fn write(&self, batch: Vec<(Change, Then)>) {
        let (changes, thens): (Vec<Change>, Vec<Then>) = batch.into_iter().unzip();
        let Some(receipts) = self.commit(&changes) else { return };
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&self.engine);
        around(Step::Receipts, || {
            for (then, receipt) in thens.into_iter().zip(receipts) {
                engine.step(Event::Committed(then, receipt), now, &mut effects);
            }
            self.carry_out(engine, effects);
        });
    }

    /// Commits until it succeeds; gives up only when the runner closes meanwhile, and then recovery has the last committed state.
    pub(super) fn commit(&self, changes: &[Change]) -> Option<Vec<Receipt>> {
        let mut pause = Duration::from_millis(5);
        let mut reported = false;
        loop {
            let fault = match self.store.commit(changes) {
                Ok(receipts) => {
                    if reported {
                        self.order(Order::Log(Level::Warning, "the store takes writes again".to_owned()));
                    }
                    return Some(receipts);
                }
                Err(fault) => fault,
            };
            let (Fault::Passing(text) | Fault::Final(text)) = &fault;
            if !reported {
                reported = true;
                let text = format!("the store refuses writes, which are kept and tried again: {text}");
                self.order(Order::Log(Level::Error, text));
            }
            let writer = lock(&self.writer);
            if writer.closed {
                return None;
            }
            drop(wait_on(&self.writer_wake, writer, Some(pause)));
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}
