//! Who waits for a run: its commit, or its end. Decides nothing.
//! Invariant: a run's end wakes only those who wait for that run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::engine::Job;
use crate::error::{Error, Kind, Result};
use crate::limit::Dropped;
use crate::port::RunEnd;
use crate::runtime::hear::{Hearer, Listening};
use crate::runtime::park::{Condvar, Mutex, lock, wait_on};
use crate::runtime::{Runtime, Shared};
use crate::time::Wall;

/// How a run ended, with its beginning.
pub type Finished = (Wall, RunEnd);

/// What a thread that asked for a run knows of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum News {
    Sent,
    Started,
    /// Not started: that run has its run key.
    Keyed(Uuid),
    /// Not started: a limit has dropped it.
    Dropped(Dropped),
    /// Not started: its context has not the key of a limit.
    Unkeyed(String),
    Ended(Finished),
    /// Why no end will be told.
    Lost(String),
    /// The run is not kept any more.
    Forgotten,
}

impl News {
    pub(super) fn is_last(&self) -> bool {
        !matches!(self, Self::Sent | Self::Started)
    }
}

/// What is known of one run's way to its end. Any number of threads may wait, and a final answer stays.
pub struct Watch {
    /// The run.
    pub id: Uuid,
    pub(super) state: Mutex<WatchState>,
    pub(super) wake: Condvar,
}

/// A wake-up costs a call of the kernel even if nobody waits, and more if it wakes one who goes on waiting.
pub(super) struct WatchState {
    pub(super) news: News,
    /// So many wait for the commit.
    pub(super) await_start: usize,
    /// So many wait for the end.
    pub(super) await_end: usize,
    /// Who of [`Hearers`](super::hear::Hearers) is to be told of the commit, too, and who of the last news.
    start_hearers: Listening,
    end_hearers: Listening,
    /// Attempts that go on after the end.
    pub(super) go_on: Vec<Job>,
}

impl Watch {
    pub(super) fn new(id: Uuid, news: News) -> Arc<Self> {
        let (start_hearers, end_hearers) = (Listening::default(), Listening::default());
        let state =
            WatchState { news, await_start: 0, await_end: 0, start_hearers, end_hearers, go_on: Vec::new() };
        Arc::new(Self { id, state: Mutex::new(state), wake: Condvar::new() })
    }

    /// Has the hearer, or [`Runtime::hear_runs`], tell of the run's last news, or of its commit; true if that has come already, and is not
    /// told.
    pub fn hear(&self, of_start: bool, hearer: Option<&Arc<Hearer>>) -> bool {
        let mut state = lock(&self.state);
        let has_come = state.news.is_last() || of_start && !matches!(state.news, News::Sent);
        if !has_come {
            let hearers = if of_start { &mut state.start_hearers } else { &mut state.end_hearers };
            hearers.add(hearer);
        }
        has_come
    }

    /// A final answer stays: a commit that was on its way when everything ended is told too late. Those who hear of this are to be told.
    pub(super) fn tell(&self, news: News) -> [Listening; 2] {
        let mut state = lock(&self.state);
        if state.news.is_last() {
            return Default::default();
        }
        let is_awaited = state.await_start > 0 || state.await_end > 0 && news != News::Started;
        state.news = news;
        if is_awaited {
            self.wake.notify_all();
        }
        let of_start = std::mem::take(&mut state.start_hearers);
        let is_last = state.news.is_last();
        [of_start, if is_last { std::mem::take(&mut state.end_hearers) } else { Listening::default() }]
    }

    /// Waits at most `span` for the run's commit; true once it is kept. Call detached.
    ///
    /// # Errors
    /// [`Kind::Runner`] if the runner shuts down first or the store refuses the run.
    pub fn started(&self, span: Duration) -> Result<bool> {
        Ok(self.news(span, false)?.is_some())
    }

    /// The run that has the run key of this one, which was therefore not started. To be asked once [`Watch::started`] says so.
    pub fn stands_for(&self) -> Option<Uuid> {
        match lock(&self.state).news {
            News::Keyed(of) => Some(of),
            _ => None,
        }
    }

    /// By which limit this one was dropped, which [`Watch::started`] refuses.
    pub fn dropped(&self) -> Option<Dropped> {
        match &lock(&self.state).news {
            News::Dropped(dropped) => Some(dropped.clone()),
            _ => None,
        }
    }

    /// Waits at most `span` for the run's end. Call detached.
    ///
    /// # Errors
    /// [`Kind::Runner`] if the runner shuts down first, or does not drive the run any more.
    pub fn ended(&self, span: Duration) -> Result<Option<Finished>> {
        match self.news(span, true)? {
            Some(News::Ended(finished)) => Ok(Some(finished)),
            _ => Ok(None),
        }
    }

    fn news(&self, span: Duration, for_end: bool) -> Result<Option<News>> {
        match self.wait(span, for_end) {
            Some(News::Lost(why)) => Err(Error::new(Kind::Runner, format!("run {} {why}", self.id))),
            Some(News::Dropped(dropped)) => {
                Err(Error::new(Kind::Runner, format!("not started, {}", dropped.why)))
            }
            Some(News::Unkeyed(why)) => Err(Error::new(Kind::Context, why)),
            Some(News::Forgotten) => Err(Error::new(Kind::Workflow, format!("run {} {FORGOTTEN}", self.id))),
            news => Ok(news),
        }
    }

    /// Waits at most `span` for the run's commit, or its end; none if it did not come.
    fn wait(&self, span: Duration, for_end: bool) -> Option<News> {
        let deadline = Instant::now() + span;
        let mut state = lock(&self.state);
        loop {
            match state.news {
                News::Sent => {}
                News::Started if for_end => {}
                _ => return Some(state.news.clone()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            *state.awaiting(for_end) += 1;
            state = wait_on(&self.wake, state, Some(left));
            *state.awaiting(for_end) -= 1;
        }
    }
}

/// What who waits for a run is told when its runner is gone.
const UNENDED: &str = "had not ended when the runner shut down; the next runner resumes it";
const UNENDED_ELSEWHERE: &str = "had not ended when the runner shut down; it goes on where it is";
/// The same when the run is gone.
const FORGOTTEN: &str = "is not kept any more; list_runs() shows those that are";
const UNKEPT: &str = "was not known to be kept when the runner shut down: it may never have been started; submit it again, or look for it";

impl WatchState {
    pub(super) fn awaiting(&mut self, end: bool) -> &mut usize {
        if end { &mut self.await_end } else { &mut self.await_start }
    }
}

impl Runtime {
    /// A watch on a run in hand; none if this runner does not drive it.
    pub fn watch(&self, id: Uuid) -> Option<Arc<Watch>> {
        // Under the engine's lock: the end of a run that is in hand here has not been told yet.
        let engine = lock(&self.shared.engine);
        engine.run(id)?;
        let watch = {
            let mut watches = lock(&self.shared.watches);
            Arc::clone(watches.entry(id).or_insert_with(|| Watch::new(id, News::Started)))
        };
        drop(engine);
        self.shared.lose_late();
        Some(watch)
    }
}

impl Shared {
    /// Tells those who wait of commits, and of last news.
    pub(super) fn tell_watches(&self, started: Vec<Uuid>, last: impl IntoIterator<Item = (Uuid, News)>) {
        let mut watches = lock(&self.watches);
        for watch in started.iter().filter_map(|id| watches.get(id)) {
            self.hearers.tell(watch.id, watch.tell(News::Started));
        }
        for (id, news) in last {
            let Some(watch) = watches.remove(&id) else { continue };
            self.hearers.tell(id, watch.tell(news));
            self.go_on_after(&watch);
        }
    }

    /// Tells whoever still waits that no news will come.
    pub(super) fn lose_all(&self) {
        self.has_lost.store(true, Ordering::Release);
        let watches: Vec<Arc<Watch>> = lock(&self.watches).values().cloned().collect();
        for watch in watches {
            // Apart, or its lock would be held while it is told.
            let is_kept = !matches!(lock(&watch.state).news, News::Sent);
            let is_elsewhere = lock(&self.elsewhere).contains(&watch.id);
            let why = match is_kept {
                false => UNKEPT,
                true if is_elsewhere => UNENDED_ELSEWHERE,
                true => UNENDED,
            };
            self.hearers.tell(watch.id, watch.tell(News::Lost(why.to_owned())));
        }
        // Who hears goes by this: told of the end before the others are, they would wait on, and nobody tell them.
        self.is_lost_told.store(true, Ordering::Release);
        self.hearers.look();
    }

    /// To be called with a watch that is new: those who waited when everything ended were told then, but not this one.
    pub(super) fn lose_late(&self) {
        if self.has_lost.load(Ordering::Acquire) {
            self.lose_all();
        }
    }
}
