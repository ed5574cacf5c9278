//! What asks the store about other owners and about what grows old: news, vacancies, recovery, cancels, pruning.
//! Invariant: it never runs on a thread that anything in this process waits for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use crate::engine::{Event, Note};
use crate::grid::CATCH_UP_US;
use crate::port::{Fault, Schedule, ScheduleFilter};
use crate::runtime::Shared;
use crate::runtime::clock::Clock;
use crate::runtime::forget::Forgetting;
use crate::runtime::keeper::Order;
use crate::runtime::park::{lock, sleep, wait_on};
use crate::time::Mono;

/// So many unfinished runs are taken over at once, so that the first can start early.
pub(super) const CLAIM_CHUNK: u64 = 200;

/// Between two attempts to read unfinished runs from a store that does not let itself be read.
pub(super) const RECOVERY_PAUSE: Duration = Duration::from_millis(10);

/// Of workflows that nobody declares so many are named.
const DESERTED_MAX: u64 = 20;

/// So many schedules are read at once.
const LIST_CHUNK: u64 = 1000;

/// So often at most a chunk of news is read again because something changed here meanwhile.
const NEWS_RETRIES: u32 = 50;
const NEWS_OVERTAKEN: &str = "schedules change while they are read";

/// Of runs that others drive so many are looked at together, whether they are over.
pub(super) const OTHERS_CHUNK: usize = 1000;

/// News from another process on the store is looked for so often while there is one.
const NEWS_EVERY: Duration = Duration::from_millis(50);

/// And so often while this runner is alone.
const NEWS_EVERY_ALONE: Duration = Duration::from_millis(500);

/// A wake-up is a hint that may be lost: what it would have told is looked for so often.
const NEWS_SLOWLY: Duration = Duration::from_secs(5);

/// Quiet history of all triggers reaches the store within so long.
const HISTORY_EVERY: Duration = Duration::from_secs(30);

/// Of so many triggers at once, so that no run waits for the history of all.
const HISTORY_CHUNK: u32 = 1000;

/// That this runner lives and polls is noted so often, but not before it has caught up with what was missed.
const SEEN_EVERY: Duration = Duration::from_secs(5);
const SEEN_FIRST: Duration = Duration::from_micros(CATCH_UP_US.unsigned_abs());

/// What the liaison has to do next, and what it knows of others.
struct Round {
    has_siblings: bool,
    /// Those that lived at the last look; none before the first that succeeded.
    known: Option<Vec<i64>>,
    has_news: bool,
    last_other: Uuid,
    is_troubled: bool,
    /// Whether the log has heard of runs that nobody goes on with.
    knows_deserted: bool,
    forgetting: Forgetting,
    news_due: Mono,
    seen_due: Mono,
    history_due: Mono,
    history_from: u32,
}

impl Shared {
    /// The liaison. Takes over unfinished runs first.
    pub(super) fn keep_touch(&self, recovery: bool) {
        if !self.wait_ready() {
            // Whoever never began leaves everything as it is.
            return;
        }
        let now = self.now().mono;
        // Whose time stands still is seen when it ends, and does not die.
        let is_manual = matches!(self.clock, Clock::Manual(_));
        let mut round = Round {
            has_siblings: false,
            known: None,
            has_news: false,
            last_other: Uuid::nil(),
            is_troubled: false,
            knows_deserted: !recovery,
            forgetting: Forgetting::new(now),
            news_due: now.after(NEWS_SLOWLY),
            seen_due: if is_manual { Mono(u64::MAX) } else { now.after(SEEN_FIRST) },
            history_due: now.after(HISTORY_EVERY),
            history_from: 0,
        };
        round.has_siblings = self.look_for_vacancy(recovery, false, &mut round.known);
        self.load_crons();
        let note = lock(&self.engine).ready_note();
        self.order(Order::Log(note));
        while !self.closing.load(Ordering::Acquire) {
            self.look_around(recovery, &mut round);
            let due =
                [round.history_due, round.news_due, round.seen_due, round.forgetting.due].into_iter().min();
            self.liaison_due_ns.store(due.map_or(0, |due| due.0), Ordering::Release);
            self.rest(if round.has_siblings { NEWS_EVERY } else { NEWS_EVERY_ALONE });
        }
    }

    fn look_around(&self, recovery: bool, round: &mut Round) {
        let now = self.now();
        if now.mono >= round.history_due {
            self.send_history(round, now.mono);
        }
        if now.mono >= round.seen_due {
            // What cannot be noted now can be in a moment; until then somebody may poll once more than needed.
            let _ = self.store.seen(self.epoch, now.wall);
            round.seen_due = now.mono.after(SEEN_EVERY);
        }
        let vacated = lock(&self.polls).poller.take_vacated();
        if !vacated.is_empty() {
            self.step(Event::Vacated(vacated));
        }
        self.forget(&mut round.forgetting, now);
        if self.workflow_is_new.swap(false, Ordering::AcqRel) && recovery {
            self.recover();
        }
        if let Some(trouble) = self.store.trouble().filter(|_| !round.is_troubled) {
            round.is_troubled = true;
            self.order(Order::Log(Note::StoreTroubled { trouble }));
        }
        let is_woken = self.store.woken(self.epoch);
        let is_time = now.mono >= round.news_due;
        if is_time {
            round.news_due = now.mono.after(NEWS_SLOWLY);
        }
        if is_woken || is_time || round.has_siblings || round.known.is_none() {
            let had_siblings = round.has_siblings;
            round.has_siblings = self.look_for_vacancy(recovery, is_woken || is_time, &mut round.known);
            round.has_news |= round.has_siblings && (is_time || !had_siblings);
        }
        // Not at once: a program may declare workflows after it has made its runner, and others claim what is theirs.
        if is_time && !round.knows_deserted {
            round.knows_deserted = self.tell_deserted().is_ok();
        }
        round.has_news |= is_woken | self.has_news.swap(false, Ordering::AcqRel);
        if round.has_news {
            round.has_news = self.read_news().is_err();
        }
        if self.cancels_due.swap(false, Ordering::AcqRel) && self.heed_cancels().is_err() {
            self.cancels_due.store(true, Ordering::Release);
        }
        self.ask_for_ends();
        round.last_other = self.look_at_others(round.last_other);
    }

    fn tell_deserted(&self) -> std::result::Result<(), Fault> {
        let mut workflows = self.store.deserted(self.epoch, DESERTED_MAX)?;
        let declared = lock(&self.engine).workflow_names();
        workflows.retain(|(name, _)| declared.iter().all(|known| **known != **name));
        if !workflows.is_empty() {
            self.order(Order::Log(Note::RunsDeserted { workflows }));
        }
        Ok(())
    }

    /// A chunk of quiet history, and when the next is due: all of them within [`HISTORY_EVERY`].
    fn send_history(&self, round: &mut Round, now: Mono) {
        let (history, next, places) = {
            let mut polls = lock(&self.polls);
            let (history, next) = polls.poller.take_history_from(round.history_from, HISTORY_CHUNK);
            (history, next, polls.poller.places())
        };
        round.history_from = next.unwrap_or(0);
        let chunks = places.div_ceil(HISTORY_CHUNK).max(1);
        round.history_due = now.after(HISTORY_EVERY / chunks);
        self.step(Event::History(history));
    }

    /// Sleeps until the program has declared what it had to declare: before, there is nothing to take over for it. False if the
    /// runner closes first.
    pub(super) fn wait_ready(&self) -> bool {
        let mut dirty = lock(&self.liaison_dirty);
        while !self.ready.load(Ordering::Acquire) && !self.closing.load(Ordering::Acquire) {
            // Whoever finds it set takes the liaison for awake and does not wake it.
            *dirty = false;
            dirty = wait_on(&self.liaison_wake, dirty, None);
        }
        self.ready.load(Ordering::Acquire)
    }

    /// Sleeps at most `span`; whoever has something for it wakes it.
    fn rest(&self, span: Duration) {
        let dirty = lock(&self.liaison_dirty);
        let nap = self.clock.nap(span);
        let mut dirty = if *dirty { dirty } else { wait_on(&self.liaison_wake, dirty, nap) };
        *dirty = false;
    }

    /// On a manual clock nothing else tells it that its time has come.
    pub(super) fn wake_liaison_if_due(&self) {
        if self.now().mono.0 >= self.liaison_due_ns.load(Ordering::Acquire) {
            self.wake_liaison();
        }
    }

    pub(super) fn wake_liaison(&self) {
        let mut dirty = lock(&self.liaison_dirty);
        if !*dirty {
            *dirty = true;
            self.liaison_wake.notify_one();
        }
    }

    /// Takes over what owners left that are gone; true if others live. `known` holds those that lived at the last look; none before the
    /// first that succeeded. Who joins and leaves between two looks is in none of them, but has told that there is news.
    pub(super) fn look_for_vacancy(
        &self,
        recovery: bool,
        has_news: bool,
        known: &mut Option<Vec<i64>>,
    ) -> bool {
        let Ok(siblings) = self.store.bury(self.epoch) else { return true };
        if siblings.is_buried {
            self.give_in(Note::Buried);
            return false;
        }
        let is_gone = |epoch: &i64| !siblings.living.contains(epoch);
        let is_vacant = siblings.buried > 0 || known.as_ref().is_none_or(|known| known.iter().any(is_gone));
        if recovery && (is_vacant || has_news) {
            self.recover();
        }
        if is_vacant {
            // Of runs that a dead owner ended, before its triggers are polled here.
            self.read_ends();
            self.step(Event::Vacancy);
        }
        let has_siblings = !siblings.living.is_empty();
        *known = Some(siblings.living);
        has_siblings
    }

    /// Asks other owners for the ends of runs that a trigger of this one wants to be over.
    pub(super) fn ask_for_ends(&self) {
        let runs = std::mem::take(&mut *lock(&self.cancels));
        if runs.is_empty() {
            return;
        }
        for id in runs {
            if self.store.request_cancel(self.epoch, id, self.now().wall).is_err() {
                lock(&self.cancels).push(id);
            }
        }
        self.store.wake_others(self.epoch);
    }

    /// Lets those go on who wait for runs of others that are over by now; returns the last that was looked at.
    pub(super) fn look_at_others(&self, last: Uuid) -> Uuid {
        let others = lock(&self.engine).others_after(last, OTHERS_CHUNK);
        if others.is_empty() {
            return last;
        }
        if let Ok(ended) = self.store.ended(&others)
            && !ended.is_empty()
        {
            self.read_ends();
            self.step(Event::OthersEnded(ended));
        }
        others.last().copied().unwrap_or(last)
    }

    /// Another process changed something that is kept in memory here.
    ///
    /// # Errors
    /// Also if too much changes here meanwhile: then it is read again later, after what else there is to do. Who looks after the dead must
    /// not wait for a program that switches its triggers all the time.
    pub(super) fn read_news(&self) -> std::result::Result<(), Fault> {
        self.read_triggers()?;
        self.wake_pollers();
        let version = self.schedules_version();
        let crons = self.all_schedules(ScheduleFilter::Crons)?;
        if !self.replace_crons(version, crons) {
            return Err(Fault::Passing(NEWS_OVERTAKEN.to_owned()));
        }
        self.heed_cancels()
    }

    /// Chunk by chunk, each read again if something changed here while it was read.
    fn read_triggers(&self) -> std::result::Result<(), Fault> {
        let has_parked = lock(&self.engine).has_parked();
        let (mut after, mut left) = (0, NEWS_RETRIES);
        while !self.closing.load(Ordering::Acquire) {
            let version = self.schedules_version();
            let triggers = self.store.schedules_after(ScheduleFilter::Triggers, after, LIST_CHUNK)?;
            let Some(last) = triggers.last() else { break };
            if !self.switch_as_read(version, triggers.iter().map(|trigger| (trigger.row, trigger.enabled))) {
                left -= 1;
                if left == 0 {
                    return Err(Fault::Passing(NEWS_OVERTAKEN.to_owned()));
                }
                continue;
            }
            after = last.row;
            if has_parked {
                let free = triggers.iter().filter(|trigger| trigger.owner.is_none());
                self.step(Event::Free(free.map(|trigger| trigger.name.as_str().into()).collect()));
            }
        }
        Ok(())
    }

    /// Ends runs of this runner that somebody asked to end. Also one who asked here, while the store had handed the run over already and the
    /// engine did not know of it yet.
    fn heed_cancels(&self) -> std::result::Result<(), Fault> {
        let cancelled = self.store.cancel_requests(self.epoch)?;
        cancelled.into_iter().for_each(|id| self.step(Event::Cancel(id)));
        Ok(())
    }

    pub(super) fn recover(&self) {
        let count = self.claim_all();
        if count > 0 {
            self.order(Order::Log(Note::RunsResumed { count }));
            self.cancels_due.store(true, Ordering::Release);
        }
    }

    /// Returns how many runs came.
    fn claim_all(&self) -> usize {
        let (mut after, mut claimed) = (0, 0);
        while !self.closing.load(Ordering::Acquire) {
            let workflows = lock(&self.engine).workflow_names();
            match self.store.claim_runs(self.epoch, after, CLAIM_CHUNK, &workflows) {
                Ok(runs) => {
                    let Some(last) = runs.last() else { break };
                    after = last.row;
                    claimed += runs.len();
                    self.step(Event::Claimed(runs));
                }
                Err(Fault::Passing(_)) => sleep(RECOVERY_PAUSE),
                Err(Fault::Final(why)) => {
                    self.order(Order::Log(Note::ClaimRefused { why }));
                    break;
                }
            }
        }
        claimed
    }

    pub(super) fn load_crons(&self) {
        loop {
            let version = self.schedules_version();
            let crons = self.all_schedules(ScheduleFilter::Crons).unwrap_or_default();
            if self.replace_crons(version, crons) || self.closing.load(Ordering::Acquire) {
                return;
            }
        }
    }

    pub(super) fn all_schedules(&self, filter: ScheduleFilter) -> std::result::Result<Vec<Schedule>, Fault> {
        let mut all: Vec<Schedule> = Vec::new();
        loop {
            let after = all.last().map_or(0, |last| last.row);
            let found = self.store.schedules_after(filter, after, LIST_CHUNK)?;
            if found.is_empty() {
                return Ok(all);
            }
            all.extend(found);
        }
    }
}
