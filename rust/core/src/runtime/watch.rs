//! Who waits for a run: its commit, or its end. Decides nothing.
//! Invariant: a run's end wakes only those who wait for that run.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::port::RunEnd;
use crate::runtime::park::{lock, wait_on};
use crate::runtime::{Runtime, Shared};
use crate::time::Wall;

/// How a run ended, with its beginning.
pub type Finished = (Wall, RunEnd);

/// What a thread that asked for a run knows of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum News {
    Sent,
    Started,
    Ended(Finished),
    Lost(String),
}

/// One for each watched run, so that its end wakes only those who wait for it.
pub(super) struct Watch {
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
}

impl Watch {
    pub(super) fn new(news: News) -> Arc<Self> {
        let state = WatchState { news, await_start: 0, await_end: 0 };
        Arc::new(Self { state: Mutex::new(state), wake: Condvar::new() })
    }

    pub(super) fn tell(&self, news: News) {
        let mut state = lock(&self.state);
        let is_awaited = state.await_start > 0 || state.await_end > 0 && news != News::Started;
        state.news = news;
        if is_awaited {
            self.wake.notify_all();
        }
    }

    /// Waits at most `span` for the run's commit, or its end; none if it did not come.
    pub(super) fn wait(&self, span: Duration, for_end: bool) -> Option<News> {
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

impl WatchState {
    pub(super) fn awaiting(&mut self, end: bool) -> &mut usize {
        if end { &mut self.await_end } else { &mut self.await_start }
    }
}

impl Runtime {
    /// Waits at most `span` for a watched run's commit; true once it is kept.
    ///
    /// # Errors
    /// [`Kind::Runner`] if the runner shuts down first or the store refuses the run.
    pub fn wait_started(&self, id: Uuid, span: Duration) -> Result<bool> {
        Ok(self.news_of(id, span, false)?.is_some())
    }

    /// Waits at most `span` for a watched run's end, which is then no longer watched.
    ///
    /// # Errors
    /// [`Kind::Runner`] if the runner shuts down first, or does not drive the run any more.
    pub fn wait(&self, id: Uuid, span: Duration) -> Result<Option<Finished>> {
        match self.news_of(id, span, true)? {
            Some(News::Ended(finished)) => {
                self.unwatch(id);
                Ok(Some(finished))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn news_of(&self, id: Uuid, span: Duration, for_end: bool) -> Result<Option<News>> {
        let watch = lock(&self.shared.watches).get(&id).cloned();
        let watch = watch.ok_or_else(|| Error::new(Kind::Runner, format!("run {id} is not watched")))?;
        match watch.wait(span, for_end) {
            Some(News::Lost(why)) => Err(Error::new(Kind::Runner, format!("run {id} {why}"))),
            news => Ok(news),
        }
    }

    /// Stops watching a run.
    pub fn unwatch(&self, id: Uuid) {
        lock(&self.shared.watches).remove(&id);
    }
}

impl Shared {
    pub(super) fn tell_watches(
        &self,
        ended: Vec<(Uuid, Wall, RunEnd)>,
        started: Vec<Uuid>,
        lost: Vec<(Uuid, String)>,
    ) {
        let watches = lock(&self.watches);
        let tell =
            |id: &Uuid, news: News| watches.get(id).into_iter().for_each(|watch| watch.tell(news.clone()));
        started.iter().for_each(|id| tell(id, News::Started));
        ended.into_iter().for_each(|(id, created_at, end)| tell(&id, News::Ended((created_at, end))));
        lost.into_iter().for_each(|(id, why)| tell(&id, News::Lost(why)));
    }

    /// Tells whoever still waits that no news will come.
    pub(super) fn lose_all(&self) {
        let watches: Vec<Arc<Watch>> = lock(&self.watches).values().cloned().collect();
        for watch in watches {
            if matches!(lock(&watch.state).news, News::Sent | News::Started) {
                watch.tell(News::Lost(
                    "had not ended when the runner shut down; the next runner resumes it".to_owned(),
                ));
            }
        }
    }
}
