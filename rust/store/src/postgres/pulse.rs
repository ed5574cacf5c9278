//! The beats of this store's owners, and the news that others have for them: one thread, one connection. Invariant: a beat goes out each second as long as the
//! server can be reached, whatever else this process does; what a notice tells too late the next beat tells.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cloaca_core::key::Epoch;
use cloaca_core::port::Ear;
use futures_util::future::select;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client};

use crate::postgres::address::Address;
use crate::postgres::connect::{Connected, connect};
use crate::postgres::db::{Error, Param, Result, ToParam as _};
use crate::postgres::{inbox, open};

/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// What is missed on the way is not called silence for so long after the way was found again.
const GRACE: Duration = Duration::from_secs(10);
/// A notice takes a lock of the whole server at its commit: those of this time are one.
const COALESCED: Duration = Duration::from_millis(10);
/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who has not said for so long that it lives begins nothing: a second later others go on with what it has.
const SILENT: Duration = Duration::from_secs(3);
/// Between two attempts to reach the server, at most: a server that comes back has no thousand runners knock at once.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
const RECONNECT_LAST: Duration = Duration::from_secs(2);
/// And while nobody is silent yet: what was away for so long costs no body anything, however long before that the last beat was.
const RECONNECT_SOON: Duration = Duration::from_millis(400);
#[cfg(test)]
const SPARED: Duration = Duration::from_millis(1500);

/// The thread that keeps the owners of one store alive.
pub struct Pulse {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// What notices of this store are called.
    channel: String,
    state: Mutex<State>,
    heard: Condvar,
    stir: Notify,
    stop: Notify,
}

#[derive(Default)]
struct State {
    owners: HashMap<Epoch, Owner>,
    /// Whether something was seen to wait in the inbox.
    has_inbox: bool,
    /// Who is to be told of news.
    telling: BTreeSet<i64>,
    /// Who has some for everybody else.
    calling: BTreeSet<i64>,
    /// Since when the connection is there again, once it was lost.
    again_since: Option<Instant>,
    is_closed: bool,
}

impl State {
    /// Has whoever listens look, if something waits there.
    fn look_into_inbox(&mut self, has_inbox: bool) {
        if has_inbox {
            self.has_inbox = true;
            self.owners.values_mut().for_each(|owner| owner.calls += 1);
        }
    }
}

struct Owner {
    /// When it last said that it lives, and was heard.
    beaten: Instant,
    /// How often it was told of news, as far as this was seen.
    news: Option<i64>,
    is_woken: bool,
    /// How often it was woken, for who listens.
    calls: u64,
}

impl Owner {
    fn new() -> Self {
        Self { beaten: Instant::now(), news: None, is_woken: false, calls: 0 }
    }

    fn wake(&mut self) {
        self.is_woken = true;
        self.calls += 1;
    }
}

impl Pulse {
    /// For the store at `address` with that number.
    pub fn start(address: &Address, store: i64) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            channel: format!("cloaca_{store:x}"),
            state: Mutex::default(),
            heard: Condvar::new(),
            stir: Notify::new(),
            stop: Notify::new(),
        });
        let (beating, address) = (Arc::clone(&shared), address.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("cloaca-pulse".to_owned()).spawn(move || {
            runtime.block_on(async {
                // What is asked when the store closes is of no interest any more.
                let stopped = std::pin::pin!(beating.stop.notified());
                let living = std::pin::pin!(beating.live(&address));
                select(living, stopped).await;
            });
            // The name of a host may still be looked up.
            runtime.shutdown_background();
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// An owner of this store.
    pub fn add(&self, epoch: Epoch) {
        self.shared.state().owners.insert(epoch, Owner::new());
    }

    /// It has left.
    pub fn remove(&self, epoch: Epoch) {
        self.shared.state().owners.remove(&epoch);
        self.shared.heard.notify_all();
    }

    /// Ends all of it; the owners that have not left.
    pub fn stop(&self) -> Vec<Epoch> {
        let owners = {
            let mut state = self.shared.state();
            state.is_closed = true;
            state.owners.drain().map(|(epoch, _)| epoch).collect()
        };
        self.shared.heard.notify_all();
        self.shared.stir.notify_one();
        self.shared.stop.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // One that has panicked has said so.
            let _ = thread.join();
        }
        owners
    }

    /// How long it is until others may soon take an owner for dead; none for what is no owner of this store's.
    pub fn silent_in(&self, epoch: Epoch) -> Option<Duration> {
        let state = self.shared.state();
        state.owners.get(&epoch).map(|owner| SILENT.saturating_sub(owner.beaten.elapsed()))
    }

    /// Whether the way to the server was found again only just now.
    pub fn is_fresh(&self) -> bool {
        self.shared.state().again_since.is_some_and(|since| since.elapsed() < GRACE)
    }

    /// Tells these owners, of whichever store, that there are news for them.
    pub fn wake(&self, epochs: &[Epoch]) {
        if epochs.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        for epoch in epochs {
            if let Some(owner) = state.owners.get_mut(epoch) {
                owner.wake();
            } else {
                state.telling.insert(epoch.0);
            }
        }
        drop(state);
        self.shared.heard.notify_all();
        self.shared.stir.notify_one();
    }

    /// Tells everybody else at work that `epoch` has news for them. Asks nothing of the server on this thread: whoever calls may be in a hurry.
    pub fn wake_others(&self, epoch: Epoch) {
        self.shared.state().calling.insert(epoch.0);
        self.shared.stir.notify_one();
    }

    /// Whether there has been news for `epoch` since this was last asked.
    pub fn is_woken(&self, epoch: Epoch) -> bool {
        self.shared.state().owners.get_mut(&epoch).is_some_and(|owner| std::mem::take(&mut owner.is_woken))
    }

    /// Whether something was seen to wait in the inbox since this was last asked.
    pub fn takes_inbox(&self) -> bool {
        std::mem::take(&mut self.shared.state().has_inbox)
    }

    /// Hears of news for `epoch` at once.
    pub fn ear(&self, epoch: Epoch) -> Option<Arc<dyn Ear>> {
        let calls = self.shared.state().owners.get(&epoch)?.calls;
        Some(Arc::new(Listening {
            shared: Arc::clone(&self.shared),
            epoch,
            heard: Mutex::new((calls, false)),
        }))
    }
}

/// Hears of news for one owner.
struct Listening {
    shared: Arc<Shared>,
    epoch: Epoch,
    /// The calls that were heard, and whether it is closed. Never locked while the state is.
    heard: Mutex<(u64, bool)>,
}

impl Ear for Listening {
    fn hear(&self) -> bool {
        let heard = || self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.shared.state();
        loop {
            let calls = state.owners.get(&self.epoch).map(|owner| owner.calls);
            let (before, is_closed) = *heard();
            match calls {
                None => return false,
                _ if is_closed || state.is_closed => return false,
                Some(calls) if calls != before => {
                    heard().0 = calls;
                    return true;
                }
                Some(_) => state = self.shared.heard.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn close(&self) {
        // Under the lock of the state: who is about to wait has looked before, or looks after.
        let state = self.shared.state();
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        drop(state);
        self.shared.heard.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn live(&self, address: &Address) {
        let mut pause = RECONNECT_FIRST;
        let mut lost_at: Option<Instant> = None;
        while !self.state().is_closed {
            if let Ok((client, connected)) = connect(address).await {
                if lost_at.take().is_some() {
                    self.state().again_since = Some(Instant::now());
                }
                pause = RECONNECT_FIRST;
                // What it ended with shows in the next attempt.
                let _ = self.beat(address, client, connected).await;
            }
            let lost_at = *lost_at.get_or_insert_with(Instant::now);
            if !self.state().is_closed {
                let random = RandomState::new().build_hasher().finish();
                let _ = timeout(jittered(pause, random), self.stir.notified()).await;
                pause = next_pause(pause, lost_at.elapsed());
            }
        }
    }

    /// Until the connection is lost or the store is closed.
    async fn beat(&self, address: &Address, client: Client, mut connected: Connected) -> Result<()> {
        let mut messages = stream::poll_fn(move |context| connected.poll_message(context));
        let hearing = async {
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(notice) = message {
                    self.note(notice.payload());
                }
            }
            Err(Error::Silent)
        };
        let beating = async {
            let listen = format!("{}; LISTEN {}", open::settings(address, open::Use::Beating), self.channel);
            answered(client.batch_execute(&listen)).await?;
            let schema = open::quoted(&address.schema);
            let beat = format!(
                "UPDATE {schema}.beats SET at = {schema}.now_us() WHERE epoch = ANY($1)
                RETURNING epoch, news, (SELECT EXISTS (SELECT 1 FROM {schema}.inbox))"
            );
            let beat = answered(client.prepare(&beat)).await?;
            let tell = format!(
                "WITH told AS (UPDATE {schema}.beats SET news = news + 1 WHERE epoch = ANY($1) RETURNING epoch)
                SELECT pg_notify('{}', string_agg(epoch::TEXT, ' ')) FROM told",
                self.channel
            );
            let tell = answered(client.prepare(&tell)).await?;
            // Of several who call each is one of the others.
            let others = format!(
                "SELECT epoch FROM {schema}.owners WHERE left_at IS NULL AND works
                    AND (cardinality($1::BIGINT[]) > 1 OR epoch <> ALL($1))"
            );
            let others = answered(client.prepare(&others)).await?;
            let mut next = Instant::now();
            loop {
                let (owners, mut telling, calling) = {
                    let mut state = self.state();
                    if state.is_closed {
                        return Ok(());
                    }
                    let owners: Vec<i64> = state.owners.keys().map(|epoch| epoch.0).collect();
                    (owners, std::mem::take(&mut state.telling), std::mem::take(&mut state.calling))
                };
                if !calling.is_empty() {
                    let calling: Vec<i64> = calling.into_iter().collect();
                    for row in answered(client.query(&others, &[&Param::Ints(&calling)])).await? {
                        telling.insert(row.try_get(0)?);
                    }
                }
                if !telling.is_empty() {
                    let telling: Vec<i64> = telling.into_iter().collect();
                    answered(client.execute(&tell, &[&telling.param()])).await?;
                }
                if Instant::now() >= next {
                    let sent = Instant::now();
                    next = sent + BEAT;
                    for row in answered(client.query(&beat, &[&Param::Ints(&owners)])).await? {
                        self.seen(Epoch(row.try_get(0)?), row.try_get(1)?, row.try_get(2)?, sent);
                    }
                }
                sleep(COALESCED).await;
                let left = next.saturating_duration_since(Instant::now());
                let _ = timeout(left, self.stir.notified()).await;
            }
        };
        futures_util::pin_mut!(hearing, beating);
        select(hearing, beating).await.factor_first().0
    }

    /// A notice names those that it concerns, or the inbox.
    fn note(&self, payload: &str) {
        let mut state = self.state();
        state.look_into_inbox(payload == inbox::NOTICE);
        for epoch in payload.split(' ').filter_map(|epoch| epoch.parse().ok()) {
            if let Some(owner) = state.owners.get_mut(&Epoch(epoch)) {
                owner.wake();
            }
        }
        drop(state);
        self.heard.notify_all();
    }

    /// What a beat has read: it tells what a notice has not.
    fn seen(&self, epoch: Epoch, news: i64, has_inbox: bool, sent: Instant) {
        let mut state = self.state();
        state.look_into_inbox(has_inbox);
        if let Some(owner) = state.owners.get_mut(&epoch) {
            owner.beaten = sent;
            if owner.news.replace(news).unwrap_or(0) != news {
                owner.wake();
            }
        }
        drop(state);
        self.heard.notify_all();
    }
}

/// The pause after this one, of a way that was lost so long ago.
fn next_pause(pause: Duration, lost_for: Duration) -> Duration {
    (pause * 2).min(if lost_for < SILENT { RECONNECT_SOON } else { RECONNECT_LAST })
}

/// From half a pause to all of it.
fn jittered(pause: Duration, random: u64) -> Duration {
    pause.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
}

async fn answered<T>(
    answer: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    Ok(timeout(PATIENCE, answer).await.map_err(|_| Error::Silent)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_lost_their_ways_at_once_come_back_one_after_another() {
        let half = RECONNECT_LAST / 2;
        assert_eq!(jittered(RECONNECT_LAST, 0), half);
        assert_eq!(jittered(RECONNECT_LAST, u64::MAX), RECONNECT_LAST);
        assert_eq!(jittered(RECONNECT_LAST, 1 << 63), half * 3 / 2);
        // As long as the way is there, nobody is silent for that.
        assert!(BEAT + RECONNECT_LAST <= SILENT);
    }

    #[test]
    fn a_server_that_restarts_soon_is_found_before_anybody_is_silent() {
        assert!(BEAT + SPARED + RECONNECT_SOON < SILENT);
        assert_eq!(next_pause(RECONNECT_FIRST, Duration::ZERO), RECONNECT_SOON);
        assert_eq!(next_pause(RECONNECT_SOON, SPARED), RECONNECT_SOON);
        assert_eq!(next_pause(RECONNECT_SOON, SILENT), RECONNECT_SOON * 2);
        assert_eq!(next_pause(RECONNECT_LAST, SILENT), RECONNECT_LAST);
    }
}
