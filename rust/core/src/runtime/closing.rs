//! How a runner ends: it drains, writes what is left, gives up what it doesn't execute, and leaves.
//! Invariant: a run or a trigger whose body still runs is nobody else's until that is home, or the process dead.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::engine::{Effects, Event, Note};
use crate::error::{Error, Kind};
use crate::key::Epoch;
use crate::port::{Body, Change, Halt, InFlight, RunChange};
use crate::runtime::keeper::Order;
use crate::runtime::park::{lock, sleep};
use crate::runtime::{Own, POLL_PATIENCE, Runtime, Shared, WRITER};

/// Between two looks at whether all runs in hand are over.
const DRAIN_PAUSE: Duration = Duration::from_millis(5);

/// Who closes has all his time for what bodies have come to, and no longer than this for anything else of a store that does not answer.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// And one that answers is waited for to the end of what there is to write, as long as none of that takes so long.
const ANSWER_SPARED: Duration = Duration::from_secs(3);
/// Unless somebody is in a hurry.
const HURRIED_SPARED: Duration = Duration::from_millis(500);
/// What comes home to a store that does not answer asks it again only after so long.
const SILENT_SPARED: Duration = Duration::from_secs(5);

/// Nobody has more time than this.
const SPAN_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

impl Runtime {
    /// Ends everything at once and tells whoever waits: nothing here can go on. What is logged of it is the caller's.
    pub fn give_up(&self) {
        self.shared.end_at_once(None);
    }

    /// Stops polling and hands out no further attempt. Never waits.
    pub fn begin_close(&self) {
        self.shared.begin_close();
    }

    /// Takes nothing more: no poll, no claim, no run but those that tasks call. What is in hand goes on to its end, and triggers are others'.
    pub fn begin_drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.give_away();
        self.shared.wake_liaison();
    }

    /// Triggers are others' from now on, and nothing is claimed any more.
    fn give_away(&self) {
        self.step(Event::Draining);
        let triggers = lock(&self.shared.engine).triggers_declared();
        triggers.iter().for_each(|trigger| self.withdraw(trigger));
    }

    /// Waits at most `span` for the ends of all runs in hand; true once they are there. Call detached.
    pub fn drain_runs(&self, span: Duration) -> bool {
        let deadline = Instant::now() + span;
        loop {
            if lock(&self.shared.engine).runs_unfinished() == 0 || self.shared.closing.load(Ordering::Acquire)
            {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            sleep(left.min(DRAIN_PAUSE));
        }
    }

    /// Waits at most `span` for what is in flight, but not for `own`, which asks; true once it is back. Call detached.
    pub fn drain(&self, span: Duration, own: Own) -> bool {
        let deadline = Instant::now() + span;
        self.leave_rest();
        self.drain_polls(deadline, own.polls)
            && self.drain_jobs(deadline, own.job)
            && self.drain_tellings(deadline, own.ends)
            && self.drain_looks(deadline)
            && self.drain_refused(deadline)
    }

    /// Waits for what the store has refused: it is tried again until there is no more time for that.
    fn drain_refused(&self, deadline: Instant) -> bool {
        let has_given_in = || self.shared.has_given_in.load(Ordering::Acquire);
        while !has_given_in() && lock(&self.shared.writer).refused.count() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            sleep(left.min(DRAIN_PAUSE));
        }
        true
    }

    /// While bodies are waited for, what waits for none of them is others': triggers, and runs that have not begun.
    fn leave_rest(&self) {
        let shared = &self.shared;
        // Also while there is nobody: who comes meanwhile is not to wait for bodies.
        if lock(&shared.jobs).in_flight().next().is_none() && lock(&shared.polls).poller.in_body() == 0 {
            return;
        }
        self.give_away();
        shared.let_go();
        let waiting = lock(&shared.jobs).take_last(0..usize::MAX, usize::MAX);
        if !waiting.is_empty() {
            self.step(Event::Excess(waiting));
        }
    }

    /// Writes what has gathered, ends the threads and leaves: what is unfinished is the next runner's. A second call finishes what the
    /// first one began. A store that takes nothing within `span` is given up: others find this runner dead. Call detached.
    pub fn finish_close(&self, span: Duration) {
        self.shared.halt.over(|| self.end(span));
    }

    /// What ends the wait of who closes for the store.
    pub fn halt(&self) -> &Halt {
        &self.shared.halt
    }

    /// Somebody ends the wait of who closes: a store that does not answer at once is waited for no more.
    pub fn hurry(&self) {
        self.shared.is_hurried.store(true, Ordering::Release);
        self.shared.halt.ask_at(Instant::now(), HURRIED_SPARED);
    }

    /// Whether the store has not answered for some time.
    pub fn is_silent(&self) -> bool {
        self.shared.store.is_silent(self.shared.epoch)
    }

    fn end(&self, span: Duration) {
        let shared = &self.shared;
        let until = Instant::now() + span.min(SPAN_MAX);
        shared.close_looks();
        let history = lock(&shared.polls).poller.take_history();
        self.step(Event::History(history));
        shared.send_logged();
        shared.give_time(until);
        shared.stop();
        for (place, thread) in lock(&self.threads).drain(..).enumerate() {
            // A thread that panicked has been reported by its own log line.
            let _ = thread.join();
            if place == WRITER {
                shared.give_time(until);
            }
        }
        let unfinished = {
            let engine = lock(&shared.engine);
            engine.runs_unfinished() + engine.runs_left()
        };
        shared.conclude();
        let closed_at = lock(&shared.polls).closed_at;
        if let Some(closed_at) = closed_at {
            let _ = shared.store.seen(shared.epoch, closed_at, &shared.last_sign());
        }
        shared.leave();
        shared.lose_all();
        if !shared.is_finished.swap(true, Ordering::AcqRel) {
            shared.order(Order::Log(Note::RunnerStopped { epoch: shared.epoch, unfinished }));
        }
        shared.close_when_left(*lock(&shared.stays));
        shared.call_all();
        shared.order(Order::Close);
    }

    /// Whether [`Runtime::finish_close`] has been here.
    pub fn is_finished(&self) -> bool {
        self.shared.is_finished.load(Ordering::Acquire)
    }

    /// Whether the store is closed, too: the last body is home.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed.load(Ordering::Acquire)
    }

    /// All of it, within `span`; true if nothing was still running.
    pub fn close(&self, span: Duration) -> bool {
        self.begin_close();
        self.drain_polls(Instant::now() + span.min(POLL_PATIENCE), 0);
        let until = Instant::now() + span.min(SPAN_MAX);
        let clean = self.drain(span, Own::default());
        self.finish_close(until.saturating_duration_since(Instant::now()));
        clean
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Never joins here: a drop may happen attached to the interpreter, where joining would deadlock.
        self.shared.stop();
        self.shared.order(Order::Close);
    }
}

impl Shared {
    /// Nothing can be relied upon any more but what is in the store: everything ends, whoever waits is told, and others may go on with the
    /// runs. Never waits.
    pub(super) fn give_in(&self, why: Note) {
        self.end_at_once(Some(why));
    }

    /// Why nothing is taken any more.
    pub(super) fn refusal(&self) -> Error {
        let text = match self.has_given_in.load(Ordering::Acquire) {
            true => {
                "the runner has stopped by itself, and takes nothing any more; the log (logger 'cloaca', level ERROR) says why"
            }
            false if self.closing.load(Ordering::Acquire) => "the runner is shut down",
            false => "the runner shuts down once what it has in hand is over, and takes nothing more",
        };
        Error::new(Kind::Runner, text)
    }

    /// Until when the store is waited for: whoever closes has time until then.
    fn give_time(&self, until: Instant) {
        let owes_work = lock(&self.writer).owes_work();
        let soon = Instant::now() + STORE_PATIENCE;
        let spared = if self.is_hurried.load(Ordering::Acquire) { HURRIED_SPARED } else { ANSWER_SPARED };
        self.halt.ask_at(if owes_work { until } else { until.min(soon) }, spared);
    }

    fn end_at_once(&self, why: Option<Note>) {
        if self.has_given_in.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(why) = why {
            self.order(Order::Log(why));
        }
        self.stop();
        self.lose_all();
        self.leave();
        self.call_all();
        self.order(Order::Close);
    }

    fn begin_close(&self) {
        self.closing.store(true, Ordering::Release);
        {
            let mut polls = lock(&self.polls);
            polls.closed = true;
            polls.closed_at.get_or_insert(self.now().wall);
        }
        self.wake_pollers();
        lock(&self.jobs).closed = true;
        self.call_all();
        self.hearers.look();
        for wake in [&self.jobs_wake, &self.permits_wake, &self.closing_wake, &self.tellings_wake] {
            wake.notify_all();
        }
    }

    /// Every executor is to look how the runner stands.
    fn call_all(&self) {
        let calls: Vec<_> = lock(&self.jobs).lanes.iter().filter_map(|lane| lane.waker.clone()).collect();
        calls.iter().for_each(|waker| waker.wake());
    }

    /// Tells every thread to end.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.begin_close();
        self.close_looks();
        self.close_questions();
        lock(&self.writer).closed = true;
        self.writer_wake.notify_all();
        self.writer_idle.notify_all();
        self.wake_clock();
        self.wake_liaison();
        if let Some(ear) = lock(&self.ear).take() {
            ear.close();
        }
    }

    /// The threads have ended: what was sent behind the writer's back is written, and no attempt ends from now on.
    pub(super) fn conclude(&self) {
        let mut effects = Effects::default();
        let now = self.now();
        let in_flight = lock(&self.jobs).in_flight().copied().collect();
        let mut engine = lock(&self.engine);
        self.is_over.store(true, Ordering::Release);
        engine.step(Event::Leaving(in_flight), now, &mut effects);
        self.carry_out(engine, effects);
    }

    /// Leaves, and gives up the runs without a body in flight, so that others go on with them at once. A run whose body still runs stays here
    /// until that is home: another runner would begin the same attempt beside it. If it never comes, the end of the process is the end of
    /// this owner. False if the store does not take it.
    pub(super) fn leave(&self) -> bool {
        let mut left = lock(&self.stays);
        let Some(epoch) = *left else { return true };
        let mut jobs = lock(&self.jobs);
        jobs.is_leaving = true;
        let runs: BTreeSet<Uuid> = jobs.in_flight().chain(jobs.overdue.keys()).map(|job| job.run).collect();
        drop(jobs);
        let triggers = lock(&self.polls).poller.rows_in_body();
        let mut kept = InFlight { runs: runs.into_iter().collect(), triggers, ends: Vec::new() };
        self.ends_in_hand(&mut kept);
        let has_left = self.write_late(epoch).then(|| self.store.leave(epoch, &kept, self.now().wall));
        // What fails here is buried by the next owner, as if this process had died: at once, unless a body still runs.
        let is_taken = matches!(has_left, Some(Ok(_)));
        *left = match has_left {
            Some(Ok(left)) => left,
            _ => Some(epoch).filter(|_| !kept.is_empty()),
        };
        self.close_when_left(*left);
        is_taken
    }

    /// The same once a body is home that was not waited for. Many may come at once, and whoever ends has no time for each of them where the
    /// store did not answer before.
    pub(super) fn leave_late(&self, is_last: bool) {
        if !self.halt.is_asked() && !self.is_hurried.load(Ordering::Acquire) {
            self.leave();
            return;
        }
        let mut silent_until = lock(&self.silent_until);
        if !is_last && silent_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let is_taken = Halt::within(HURRIED_SPARED).over(|| self.leave());
        *silent_until = (!is_taken).then(|| Instant::now() + SILENT_SPARED);
    }

    /// Closes the store of a runner that was shut down and has nothing more to write. Not with the last reference to it, which may live
    /// on for as long as the program.
    pub(super) fn close_when_left(&self, stays: Option<Epoch>) {
        if stays.is_none() && self.is_finished.load(Ordering::Acquire) {
            self.store.close();
            self.is_closed.store(true, Ordering::Release);
        }
    }

    /// Writes what ended behind the writer's back; false if that fails: given up, its attempts would begin again under the same numbers.
    pub(super) fn write_late(&self, epoch: Epoch) -> bool {
        if !self.is_over.load(Ordering::Acquire) {
            return true;
        }
        self.send_logged();
        let of_run = |(change, _): &(Change, _)| match change.clone() {
            Change::Run(change) => Some(Change::Run(RunChange { epoch, ..change })),
            Change::Returned(body) => Some(Change::Returned(Body { epoch, ..body })),
            Change::Unseat { seat, at, .. } => Some(Change::Unseat { seat, epoch, at }),
            Change::Logged(logged) => Some(Change::Logged(logged)),
            _ => None,
        };
        let (late, many) = {
            let writer = lock(&self.writer);
            (writer.items.iter().filter_map(of_run).collect::<Vec<Change>>(), writer.items.len())
        };
        let is_written = late.is_empty() || self.store.commit(&late).is_ok();
        if is_written {
            lock(&self.writer).items.drain(..many);
        }
        is_written
    }
}
