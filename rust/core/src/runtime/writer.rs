//! The thread that writes: it takes whatever has gathered since its last commit, so that a lone change never waits.
//! While a manual clock is being moved, whoever comes to rest writes in its stead: to wake it for each change would cost a test more than
//! the change. Invariant: the engine hears of a change only after its commit, one thread at a time writes, and of one run nothing is
//! written past what the store has refused.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::{Effects, Event, Note, Then};
use crate::fault_point::{Step, around};
use crate::port::{Change, Fault, Receipt};
use crate::runtime::keeper::Order;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::refused::{self, Broken, Refused};
use crate::runtime::{Runtime, Shared};

/// At most so many changes share one transaction.
pub(super) const BATCH_MAX: usize = 4096;

/// Nobody waits longer than this for the writer: it may be that the store takes nothing.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// And whoever closes a runner whose store takes nothing is heard within so long.
const CLOSING_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks of who waits for the writer at whether the runner closes.
pub(super) const FLUSH_PAUSE: Duration = Duration::from_millis(50);

/// A wait for the writer.
#[derive(Debug, Clone, Copy)]
pub struct Flush {
    number: u64,
    deadline: Instant,
    /// Whether it goes on beside a commit that does not come about.
    is_patient: bool,
}

#[derive(Default)]
pub(super) struct WriterState {
    pub(super) items: VecDeque<(Change, Then)>,
    /// Whether somebody writes now.
    pub(super) busy: bool,
    /// So many move a manual clock: what is sent is written by who comes to rest, and the writer sleeps.
    pub(super) lent: usize,
    /// How many changes were ever sent, and how many of them are kept or given up.
    pub(super) sent: u64,
    pub(super) kept: u64,
    /// So many wait until all is written.
    pub(super) flushing: usize,
    pub(super) closed: bool,
    /// Why the store takes nothing, while that is so.
    pub(super) refusal: Option<String>,
    /// What the store has refused, and is asked again.
    pub(super) refused: Refused,
    /// Since when a commit is tried that has not come about.
    tried_since: Option<Instant>,
    /// Whether somebody's work is in what is tried now.
    tries_work: bool,
}

/// Whether it says what bodies or users have done: lost, that is done again. Anything else is only told later, or not at all.
fn is_work(change: &Change) -> bool {
    match change {
        Change::Tick(_) | Change::Start { .. } | Change::Offer { .. } | Change::Run(_) | Change::Pause(_) => {
            true
        }
        Change::Release { .. }
        | Change::Declare { .. }
        | Change::LetGo { .. }
        | Change::TakeMoment { .. }
        | Change::LeaveMoment { .. }
        | Change::Timed { .. }
        | Change::Overdue(_)
        | Change::Returned(_)
        | Change::Ask(_)
        | Change::Unseat { .. }
        | Change::LookForSeats { .. }
        | Change::DeclareLimits { .. }
        | Change::Logged(_)
        | Change::History(_) => false,
    }
}

/// What is written at once.
struct Batch {
    items: Vec<(Change, Then)>,
    /// So much of what was sent is done with, once it is written or set aside.
    many: u64,
    /// Whether some of it was refused before.
    is_again: bool,
}

impl WriterState {
    /// When a wait is over: all that begin beside one commit that does not come about are together no longer than one.
    fn deadline(&self, flush: &Flush) -> Instant {
        match self.tried_since {
            Some(since) if !flush.is_patient => flush.deadline.min(since + FLUSH_PATIENCE),
            _ => flush.deadline,
        }
    }

    /// For how long a commit is tried that has not come about.
    pub(super) fn tries_for(&self) -> Option<Duration> {
        self.tried_since.map(|since| since.elapsed())
    }

    /// What is tried next, by whoever asks.
    fn take_batch(&mut self) -> Batch {
        let mut items = next_batch(&mut self.items);
        let (many, mut is_again) = (items.len() as u64, false);
        if !self.refused.is_empty() {
            // First what was refused: what was sent since is behind it.
            let mut again = self.refused.take(Instant::now(), self.closed && many == 0);
            is_again = !again.is_empty();
            again.extend(self.refused.hold_back(items));
            items = again;
        }
        self.busy = true;
        self.tries_work = items.iter().any(|(change, _)| is_work(change));
        Batch { items, many, is_again }
    }

    /// Whether there is nothing to write by now.
    fn is_at_rest(&self) -> bool {
        self.items.is_empty() && (self.closed || self.refused.due().is_none_or(|due| Instant::now() < due))
    }

    /// Whether work waits to be kept.
    pub(super) fn owes_work(&self) -> bool {
        self.busy && self.tries_work || self.items.iter().any(|(change, _)| is_work(change))
    }
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

impl Default for Flush {
    /// For nothing.
    fn default() -> Self {
        Self { number: 0, deadline: Instant::now() + FLUSH_PATIENCE, is_patient: false }
    }
}

impl Flush {
    /// The same, to be waited for as long as `patience` from now on, whatever became of waits before it.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        Self { deadline: Instant::now() + patience, is_patient: true, ..self }
    }
}

impl Runtime {
    /// What was sent to the store before this call. Never what others send meanwhile.
    pub fn flushing(&self) -> Flush {
        self.shared.send_logged();
        Flush { number: lock(&self.shared.writer).sent, ..Flush::default() }
    }

    /// The same, with the quiet history of the trigger of that name, if it is polled here.
    pub fn flushing_trigger(&self, trigger: &str) -> Flush {
        let place = lock(&self.shared.engine).place_of(trigger);
        if let Some(place) = place {
            let history = lock(&self.shared.polls).poller.take_history_of(place);
            self.step(Event::History(history));
        }
        self.flushing()
    }

    /// The same, with the quiet history of all.
    pub fn flushing_all(&self) -> Flush {
        let history = lock(&self.shared.polls).poller.take_history();
        self.step(Event::History(history));
        self.flushing()
    }

    /// Waits at most `span` until that is kept; false if it is worth while to wait on. That is not so once its time is over, five
    /// seconds if nobody said more, or the runner closes. Of the time in which the store takes nothing no wait has more than the
    /// first five seconds.
    pub fn flushed(&self, flush: &Flush, span: Duration) -> bool {
        let until = Instant::now() + span;
        let mut writer = lock(&self.shared.writer);
        while writer.kept < flush.number && !writer.closed && !self.shared.closing.load(Ordering::Acquire) {
            let (now, deadline) = (Instant::now(), writer.deadline(flush));
            let left = deadline.min(until).saturating_duration_since(now);
            if left.is_zero() {
                return now >= deadline;
            }
            writer.flushing += 1;
            writer = wait_on(&self.shared.writer_idle, writer, Some(left.min(FLUSH_PAUSE)));
            writer.flushing -= 1;
        }
        true
    }
}

impl Runtime {
    /// Whether the store has taken that, or never will.
    pub fn is_kept(&self, flush: &Flush) -> bool {
        let writer = lock(&self.shared.writer);
        writer.kept >= flush.number || writer.closed || self.shared.closing.load(Ordering::Acquire)
    }
}

impl Shared {
    /// For the writer, in this order.
    pub(super) fn send(&self, items: impl IntoIterator<Item = (Change, Then)>) {
        let mut writer = lock(&self.writer);
        let wake = writer.items.is_empty() && !writer.busy && writer.lent == 0;
        let before = writer.items.len();
        writer.items.extend(items);
        writer.sent += (writer.items.len() - before) as u64;
        if wake {
            self.writer_wake.notify_one();
        }
    }

    /// The writer: takes whatever has gathered since its last commit, so that a lone change never waits.
    pub(super) fn write_all(&self) {
        loop {
            let batch = {
                let mut writer = lock(&self.writer);
                while writer.is_at_rest() || writer.busy || (writer.lent > 0 && !writer.closed) {
                    if writer.closed && !writer.busy {
                        if writer.refused.is_empty() {
                            return;
                        }
                        // For the last time.
                        break;
                    }
                    let waits = writer.busy || writer.lent > 0;
                    let due = writer.refused.due().filter(|_| !waits);
                    let left = due.map(|due| due.saturating_duration_since(Instant::now()));
                    writer = wait_on(&self.writer_wake, writer, left);
                }
                writer.take_batch()
            };
            self.write_whole(batch);
            self.move_on();
        }
    }

    /// Writes what has gathered, if that is lent and nobody else does; false if there is nothing to do.
    pub(super) fn write_lent(&self) -> bool {
        let batch = {
            let mut writer = lock(&self.writer);
            if writer.lent == 0 || writer.busy || writer.items.is_empty() {
                return false;
            }
            writer.take_batch()
        };
        self.write_whole(batch);
        true
    }

    /// Lends what the writer has to do to whoever comes to rest, or takes it back.
    pub(super) fn lend(&self, lends: bool) {
        let mut writer = lock(&self.writer);
        writer.lent = if lends { writer.lent + 1 } else { writer.lent - 1 };
        self.writer_wake.notify_one();
    }

    fn write_whole(&self, batch: Batch) {
        let many = batch.many;
        if !batch.items.is_empty() {
            self.write(batch);
        }
        let mut writer = lock(&self.writer);
        writer.busy = false;
        writer.kept += many;
        if writer.flushing > 0 {
            self.writer_idle.notify_all();
        }
        if writer.closed || (writer.lent == 0 && !writer.items.is_empty()) {
            self.writer_wake.notify_one();
        }
    }

    fn write(&self, batch: Batch) {
        let (mut changes, mut thens): (Vec<Change>, Vec<Then>) = batch.items.into_iter().unzip();
        let Some((mut receipts, is_whole)) = self.commit(&changes) else { return };
        // Mostly nothing is refused, and nothing was.
        if !is_whole || batch.is_again {
            (changes, thens, receipts) = self.set_aside(changes, thens, receipts);
        }
        self.ends_written(&changes);
        self.logged_written(&changes);
        let mut effects = Effects::default();
        let now = self.now();
        let mut engine = lock(&self.engine);
        around(Step::Receipts, || {
            for (then, receipt) in thens.into_iter().zip(receipts) {
                engine.step(Event::Committed(then, receipt), now, &mut effects);
            }
            self.carry_out(engine, effects);
        });
        if batch.is_again {
            self.tried_again();
        }
    }

    /// What the store refuses and nobody would ask for again is tried again later; what is left is answered.
    fn set_aside(
        &self,
        changes: Vec<Change>,
        thens: Vec<Then>,
        receipts: Vec<Receipt>,
    ) -> (Vec<Change>, Vec<Then>, Vec<Receipt>) {
        let mut writer = lock(&self.writer);
        let (now, before) = (Instant::now(), writer.refused.count());
        let mut left = (Vec::new(), Vec::new(), Vec::new());
        for ((change, then), receipt) in changes.into_iter().zip(thens).zip(receipts) {
            let (then, change) = match &receipt {
                // Who closes tries nothing again: whoever goes on with the run does.
                Receipt::Refused(why) if !writer.closed => match writer.refused.put(change, then, why, now) {
                    None => continue,
                    Some((change, then)) => (then, change),
                },
                _ => (then, change),
            };
            left.0.push(change);
            left.1.push(then);
            left.2.push(receipt);
        }
        let is_new = writer.refused.count() > before;
        let told = writer.refused.still().map(|(runs, others, why)| refused::told(runs, others, why));
        let told = told.filter(|_| writer.refused.tells(is_new, now));
        drop(writer);
        if let Some(what) = told {
            self.order(Order::Log(Note::ChangesRefused { what }));
        }
        left
    }

    /// What was tried again has been answered, and the engine has heard of it.
    fn tried_again(&self) {
        let is_over = {
            let mut writer = lock(&self.writer);
            // Who closes has given up what was refused for the last time.
            writer.refused.tried(Instant::now()) && !writer.closed
        };
        if is_over {
            self.order(Order::Log(Note::ChangesTaken));
        }
    }

    /// Commits. A change that the store will never take is refused alone, so that it takes no other one with it. None if the runner's
    /// time to close is over or the store takes nothing at all any more, and then recovery has the last committed state. Whether all were
    /// taken at once, too.
    fn commit(&self, changes: &[Change]) -> Option<(Vec<Receipt>, bool)> {
        let why = match self.commit_passing(changes)? {
            Ok(receipts) => return Some((receipts, true)),
            Err(why) => why,
        };
        if let Err(gone) = self.commit_passing(&[])? {
            self.give_in(Note::StoreGone { why: gone });
            return None;
        }
        let receipts = self.commit_halves(changes, why, &mut Broken::default())?;
        self.takes_writes();
        Some((receipts, false))
    }

    /// The store has answered: what it refused before is over.
    fn takes_writes(&self) {
        let refusal = {
            let mut writer = lock(&self.writer);
            writer.tried_since = None;
            writer.refusal.take()
        };
        if refusal.is_some() {
            self.order(Order::Log(Note::StoreTakesWrites));
        }
    }

    /// What comes behind what is refused is not tried: of a run's progress none may be left out.
    fn commit_halves(&self, changes: &[Change], why: String, broken: &mut Broken) -> Option<Vec<Receipt>> {
        if let [change] = changes {
            broken.note(change);
            return Some(vec![Receipt::Refused(why)]);
        }
        let (first, second) = changes.split_at(changes.len() / 2);
        let mut receipts = Vec::with_capacity(changes.len());
        for half in [first, second] {
            let answer = match half.iter().any(|change| broken.has(change)) {
                true => Err(why.clone()),
                false => self.commit_passing(half)?,
            };
            receipts.extend(match answer {
                Ok(receipts) => receipts,
                Err(why) => self.commit_halves(half, why, broken)?,
            });
        }
        Some(receipts)
    }

    /// Commits, or tries again while what hinders may pass; the text of what does not pass; none once the runner closes and has no more time
    /// for that.
    fn commit_passing(&self, changes: &[Change]) -> Option<std::result::Result<Vec<Receipt>, String>> {
        let mut pause = Duration::from_millis(5);
        loop {
            let began = Instant::now();
            lock(&self.writer).tried_since.get_or_insert(began);
            let why = match self.store.commit(changes) {
                Ok(receipts) => {
                    if !changes.is_empty() {
                        let mut doings = lock(&self.doings);
                        doings.commits.add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                        doings.changes += changes.len() as u64;
                    }
                    self.takes_writes();
                    return Some(Ok(receipts));
                }
                Err(Fault::Final(text)) => {
                    lock(&self.writer).tried_since = None;
                    return Some(Err(text));
                }
                Err(Fault::Passing(why)) => why,
            };
            lock(&self.doings).refusals += 1;
            let mut writer = lock(&self.writer);
            if writer.refusal.is_none() {
                writer.refusal = Some(why.clone());
                drop(writer);
                self.order(Order::Log(Note::StoreRefusesWrites { why }));
                writer = lock(&self.writer);
            }
            if writer.closed {
                if self.has_given_in.load(Ordering::Acquire) || !self.halt.has_time() {
                    return None;
                }
                pause = pause.min(CLOSING_PAUSE);
            }
            drop(wait_on(&self.writer_wake, writer, Some(pause)));
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}
