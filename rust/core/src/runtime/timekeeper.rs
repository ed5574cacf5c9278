//! The thread that moves the engine's clock: retries, time-outs and crons.

use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use crate::engine::{Event, Level};
use crate::runtime::Shared;
use crate::runtime::keeper::Order;
use crate::runtime::park::{lock, wait_on};

/// Quiet history reaches the store so often.
pub(super) const HISTORY_EVERY: Duration = Duration::from_secs(30);

/// News from another process on the store is looked for so often while there is one. Also a jump of the wall clock is noticed then.
pub(super) const NEWS_EVERY: Duration = Duration::from_millis(50);

/// And so often while this runner is alone.
pub(super) const NEWS_EVERY_ALONE: Duration = Duration::from_millis(500);

impl Shared {
    /// The timekeeper: retries, time-outs, crons, news from other processes, and quiet history now and then. Takes over
    /// unfinished runs first.
    pub(super) fn keep_time(&self, recovery: bool) {
        self.wait_ready();
        let mut known = None;
        let mut has_siblings = self.look_for_vacancy(recovery, &mut known);
        self.load_crons();
        let mut has_news = false;
        let mut last_other = Uuid::nil();
        let mut is_troubled = false;
        let mut prune_due = self.now().mono;
        let mut history_due = self.now().mono.after(HISTORY_EVERY);
        while !self.closing.load(Ordering::Acquire) {
            let now = self.now();
            if now.mono >= history_due {
                history_due = now.mono.after(HISTORY_EVERY);
                let history = lock(&self.polls).poller.take_history();
                self.step(Event::History(history));
            }
            if let Some(retention) = self.retention
                && now.mono >= prune_due
            {
                prune_due = now.mono.after(self.prune(retention, now.wall));
            }
            if self.workflow_is_new.swap(false, Ordering::AcqRel) && recovery {
                self.recover();
            }
            if let Some(trouble) = self.store.trouble().filter(|_| !is_troubled) {
                is_troubled = true;
                self.order(Order::Log(Level::Error, trouble));
            }
            let is_woken = self.store.woken(self.epoch);
            has_news |= is_woken | self.has_news.swap(false, Ordering::AcqRel);
            if has_news {
                has_news = self.read_news().is_err();
            }
            if is_woken || has_siblings || known.is_none() {
                has_siblings = self.look_for_vacancy(recovery, &mut known);
            }
            self.ask_for_ends();
            last_other = self.look_at_others(last_other);
            self.step(Event::Clock);
            self.sleep(if has_siblings { NEWS_EVERY } else { NEWS_EVERY_ALONE });
        }
    }

    /// Sleeps until the program has declared what it had to declare: before, there is nothing to take over for it.
    pub(super) fn wait_ready(&self) {
        let mut dirty = lock(&self.clock_dirty);
        while !self.ready.load(Ordering::Acquire) && !self.closing.load(Ordering::Acquire) {
            // Whoever finds it set takes the timekeeper for awake and does not wake it.
            *dirty = false;
            dirty = wait_on(&self.clock_wake, dirty, None);
        }
    }

    /// Sleeps until a timer is due, at most `span`; whoever arms a timer before that wakes the timekeeper.
    pub(super) fn sleep(&self, span: Duration) {
        let left = {
            let now = self.now();
            let engine = lock(&self.engine);
            let left = engine.next_wake(now).unwrap_or(span).min(span);
            self.clock_until_ns.store(now.mono.after(left).0, Ordering::Release);
            left
        };
        let dirty = lock(&self.clock_dirty);
        let nap = self.clock.nap(left);
        let mut dirty = if *dirty { dirty } else { wait_on(&self.clock_wake, dirty, nap) };
        *dirty = false;
    }

    pub(super) fn wake_clock(&self) {
        let mut dirty = lock(&self.clock_dirty);
        if !*dirty {
            *dirty = true;
            self.clock_wake.notify_one();
        }
    }
}
