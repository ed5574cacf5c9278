//! Between the engine and a place that must never wait, an event loop: takes its attempts to it and their ends back, on a thread of its own.
//! Invariant: who fetches and who reports waits for the hand-over alone, never for the engine, a commit or the interpreter.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::Job;
use crate::poll::Ticket;
use crate::run::{Ended, Ruling};
use crate::runtime::jobs::{Taken, Work};
use crate::runtime::lanes::Waker;
use crate::runtime::park::{Condvar, Mutex, lock, wait_on};
use crate::runtime::{Answer, Runtime};
use crate::time::Now;
use crate::workflow::Executor;

/// So many attempts are taken ahead of the place: it has something to fetch while the next ones are taken, and none of them has begun long
/// before its body is called. Its time would run, and a first attempt would be put on record that ends before anybody reads that.
const AHEAD_MAX: usize = 128;

/// What a place gathers in one turn of its own is waited for no longer.
const GATHERED_WITHIN: Duration = Duration::from_millis(1);

/// What there is for the place.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched {
    /// Call this body, with this context.
    Begun(Work, Arc<str>),
    /// Stop this body: nobody waits for it any more.
    Stopped(Job),
    /// What the end of an attempt means, to whom asked.
    Ruled(Job, Ruling),
    /// An attempt that wanted its permit back has it, or needs none any more.
    Regained(Job),
    /// The runner begins to close.
    Closing,
}

/// What the place has to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// An attempt is over.
    Ended {
        /// Which.
        job: Job,
        /// How.
        ended: Ended,
        /// Whether a callback is to be told if that is final.
        has_callback: bool,
        /// Whether the ruling is wanted: it comes as [`Fetched::Ruled`].
        asks: bool,
    },
    /// The callback of a final attempt has been told.
    Settled(Job),
    /// A body went home without an end.
    Interrupted(Job),
    /// A body waits for its condition and gives its permit back.
    Yielded(Job),
    /// It wants one again.
    Wanted(Job),
    /// A poll was a plain skip.
    Skipped(Ticket, String, Now, Option<Duration>),
    /// Any other poll.
    Polled(Ticket, Now, Answer),
    /// A poll went home without an answer.
    CalledOff(Ticket),
}

#[derive(Default)]
struct Inbox {
    reports: Vec<Report>,
    is_called: bool,
    /// More is to come in this turn of the place.
    is_gathering: bool,
    /// Nobody carries anything any more.
    is_over: bool,
}

#[derive(Default)]
struct Outbox {
    items: VecDeque<Fetched>,
    /// More may be ready than was taken.
    is_held_back: bool,
    /// The place is gone: nobody fetches any more.
    is_lost: bool,
}

/// The hand-over to one place and from it.
pub struct Carrier {
    executor: Executor,
    inbox: Mutex<Inbox>,
    inbox_wake: Condvar,
    outbox: Mutex<Outbox>,
    /// Has the place fetch.
    place: Box<dyn Waker>,
}

impl Waker for Carrier {
    fn wake(&self) {
        lock(&self.inbox).is_called = true;
        self.inbox_wake.notify_one();
    }
}

impl Carrier {
    /// One for the place that fetches when `place` wakes it.
    pub fn new(executor: Executor, place: Box<dyn Waker>) -> Self {
        Self {
            executor,
            inbox: Mutex::new(Inbox::default()),
            inbox_wake: Condvar::new(),
            outbox: Mutex::new(Outbox::default()),
            place,
        }
    }

    /// The next of what there is, at most `max`, and whether there is more: then the place is woken no further time for that.
    pub fn fetch(&self, max: usize) -> (Vec<Fetched>, bool) {
        let mut outbox = lock(&self.outbox);
        let count = outbox.items.len().min(max);
        let found = outbox.items.drain(..count).collect();
        let has_more = !outbox.items.is_empty();
        let is_short = outbox.items.len() <= AHEAD_MAX / 2;
        let calls = is_short && std::mem::take(&mut outbox.is_held_back);
        drop(outbox);
        if calls {
            self.wake();
        }
        (found, has_more)
    }

    /// For how many attempts there is room ahead of the place. Without any, whoever fetches calls once there is.
    fn room(&self) -> usize {
        let mut outbox = lock(&self.outbox);
        let room = AHEAD_MAX.saturating_sub(outbox.items.len());
        outbox.is_held_back = room == 0;
        room
    }

    /// Several reports are about to come, until [`Carrier::gathered`]: whoever carries wakes for all of them and not for each.
    pub fn gather(&self) {
        lock(&self.inbox).is_gathering = true;
    }

    /// Those have come that are to come at once.
    pub fn gathered(&self) {
        let mut inbox = lock(&self.inbox);
        if std::mem::take(&mut inbox.is_gathering) && !inbox.reports.is_empty() {
            self.inbox_wake.notify_one();
        }
    }

    /// Takes a report to the engine, soon; gives it back if nobody does any more.
    pub fn report(&self, report: Report) -> Option<Report> {
        let mut inbox = lock(&self.inbox);
        if inbox.is_over {
            return Some(report);
        }
        inbox.reports.push(report);
        if inbox.reports.len() == 1 {
            self.inbox_wake.notify_one();
        }
        None
    }

    /// For the place. Those are given back that it will not get, because they have been stopped before it fetched them.
    #[must_use]
    fn send(&self, found: impl IntoIterator<Item = Fetched>) -> Vec<Job> {
        let mut unbegun = Vec::new();
        let mut outbox = lock(&self.outbox);
        let was_empty = outbox.items.is_empty();
        for item in found {
            match item {
                Fetched::Stopped(stopped) if take_out(&mut outbox.items, stopped) => unbegun.push(stopped),
                Fetched::Begun(work, _) if outbox.is_lost => unbegun.push(work.job),
                item => outbox.items.push_back(item),
            }
        }
        let is_news = was_empty && !outbox.items.is_empty();
        drop(outbox);
        if is_news {
            self.place.wake();
        }
        unbegun
    }

    /// Nothing is fetched any more: the attempts that were sent and are not begun.
    fn lose(&self) -> Vec<Job> {
        let begun = |item: Fetched| match item {
            Fetched::Begun(work, _) => Some(work.job),
            _ => None,
        };
        let mut outbox = lock(&self.outbox);
        outbox.is_lost = true;
        outbox.items.drain(..).filter_map(begun).collect()
    }
}

fn take_out(outbox: &mut VecDeque<Fetched>, stopped: Job) -> bool {
    let is_it = |item: &Fetched| matches!(item, Fetched::Begun(work, _) if work.job == stopped);
    outbox.iter().position(is_it).is_some_and(|place| outbox.remove(place).is_some())
}

impl Runtime {
    /// Carries to and fro until the runner has ended. Call detached, on a thread that does nothing else.
    pub fn carry(&self, carrier: &Arc<Carrier>) {
        self.set_waker(carrier.executor, Arc::clone(carrier) as Arc<dyn Waker>);
        let mut knows_closing = false;
        loop {
            let reports = {
                let mut inbox = lock(&carrier.inbox);
                while inbox.reports.is_empty() && !inbox.is_called {
                    drop(inbox);
                    self.shared.move_on();
                    inbox = lock(&carrier.inbox);
                    if inbox.reports.is_empty() && !inbox.is_called {
                        inbox = wait_on(&carrier.inbox_wake, inbox, None);
                    }
                }
                if inbox.is_gathering && !inbox.is_called {
                    inbox = wait_on(&carrier.inbox_wake, inbox, Some(GATHERED_WITHIN));
                    // The place may stand still for longer.
                    inbox.is_gathering = false;
                }
                inbox.is_called = false;
                std::mem::take(&mut inbox.reports)
            };
            for report in reports {
                let answer = self.heed(report);
                self.send_to(carrier, answer);
            }
            self.take_to(carrier);
            // Before the look at whether it closes: whoever finds it over finds that, too.
            let is_over = self.is_finished() || self.shared.has_given_in.load(Ordering::Acquire);
            if !knows_closing && self.shared.closing.load(Ordering::Acquire) {
                knows_closing = true;
                self.send_to(carrier, [Fetched::Closing]);
            }
            let mut inbox = lock(&carrier.inbox);
            if is_over && inbox.reports.is_empty() {
                inbox.is_over = true;
                return;
            }
        }
    }

    fn send_to(&self, carrier: &Carrier, found: impl IntoIterator<Item = Fetched>) {
        carrier.send(found).into_iter().for_each(|job| self.attempt_stopped(job));
    }

    fn take_to(&self, carrier: &Carrier) {
        loop {
            let room = carrier.room();
            let Taken { begun, regained, stopped } = self.take_jobs(carrier.executor, room);
            let is_all = room == 0 || begun.len() < room;
            let begun = begun.into_iter().map(|work| {
                let context = work.context.text();
                Fetched::Begun(work, context)
            });
            let begun: Vec<Fetched> = begun.chain(regained.into_iter().map(Fetched::Regained)).collect();
            self.send_to(carrier, begun.into_iter().chain(stopped.into_iter().map(Fetched::Stopped)));
            if is_all {
                return;
            }
        }
    }

    /// What a report says, to the engine; the answer for whom wants one that is known at once. It waits for the engine's lock.
    pub fn heed(&self, report: Report) -> Option<Fetched> {
        match report {
            Report::Ended { job, ended, has_callback, asks } => {
                let ruling = self.attempt_ended(job, ended, has_callback);
                return asks.then_some(Fetched::Ruled(job, ruling));
            }
            Report::Settled(job) => self.settled(job),
            Report::Interrupted(job) => self.attempt_interrupted(job),
            Report::Yielded(job) => self.yield_permit(job),
            Report::Wanted(job) => return (!self.want_permit(job)).then_some(Fetched::Regained(job)),
            Report::Skipped(ticket, reason, began, pause) => self.poll_skipped(ticket, &reason, began, pause),
            Report::Polled(ticket, began, answer) => self.poll_ended(ticket, began, answer),
            Report::CalledOff(ticket) => self.poll_looked(ticket),
        }
        None
    }

    /// The place is gone: nothing more is taken to it, and what it has not fetched goes home.
    pub fn lose_place(&self, carrier: &Carrier) {
        lock(&self.shared.jobs).lane(carrier.executor).close();
        carrier.lose().into_iter().for_each(|job| self.attempt_interrupted(job));
    }

    /// Has the bodies stopped that are in flight on an event loop, but not the one of `own`, which asks: the runner waits for them no longer.
    pub fn stop_bodies(&self, own: Option<Job>) {
        let mut jobs = lock(&self.shared.jobs);
        let in_flight: Vec<(Job, Executor)> =
            jobs.running.iter().chain(&jobs.away).map(|(&job, &executor)| (job, executor)).collect();
        for (job, executor) in in_flight.into_iter().filter(|&(job, _)| Some(job) != own) {
            if executor == Executor::LOOP {
                jobs.lane(executor).stopped.push(job);
            }
        }
        let calls = self.shared.call(&mut jobs);
        drop(jobs);
        calls.iter().for_each(|waker| waker.wake());
    }

    /// Whether there is one.
    pub fn has_stoppable(&self, own: Option<Job>) -> bool {
        let jobs = lock(&self.shared.jobs);
        let mut in_flight = jobs.running.iter().chain(&jobs.away);
        in_flight.any(|(&job, &executor)| Some(job) != own && executor == Executor::LOOP)
    }
}

#[cfg(all(test, not(feature = "races")))]
mod tests {
    use uuid::Uuid;

    use super::*;

    struct Deaf;

    impl Waker for Deaf {
        fn wake(&self) {}
    }

    fn called(carrier: &Carrier) -> bool {
        std::mem::take(&mut lock(&carrier.inbox).is_called)
    }

    #[test]
    fn what_is_held_back_is_called_for_once_half_of_what_lies_ahead_is_fetched() {
        let carrier = Carrier::new(Executor::LOOP, Box::new(Deaf));
        let job = Job { run: Uuid::nil(), task: 0, attempt: 1, life: 0, callback_only: false };
        assert_eq!(carrier.room(), AHEAD_MAX);
        assert_eq!(carrier.send((0..AHEAD_MAX).map(|_| Fetched::Regained(job))), []);
        carrier.fetch(AHEAD_MAX / 2);
        assert!(!called(&carrier), "nothing is held back");
        assert_eq!(carrier.send((0..AHEAD_MAX / 2).map(|_| Fetched::Regained(job))), []);
        assert_eq!(carrier.room(), 0);
        carrier.fetch(AHEAD_MAX / 2 - 1);
        assert!(!called(&carrier), "there is enough to fetch");
        carrier.fetch(1);
        assert!(called(&carrier));
        carrier.fetch(1);
        assert!(!called(&carrier), "once is enough");
    }
}
