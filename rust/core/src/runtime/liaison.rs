//! What asks the store about other owners and about what grows old: news, vacancies, recovery, cancels, pruning.
//! Invariant: it never runs on a thread that anything in this process waits for.
//! Longer than a room should be: one thread's round, of which the order is what matters.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::engine::{Claims, Event, Note};
use crate::key::ScheduleKey;
use crate::port::{Company, Ear, Fault, Schedule, ScheduleFilter};
use crate::runtime::Shared;
use crate::runtime::clock::Clock;
use crate::runtime::forget::Forgetting;
use crate::runtime::keeper::Order;
use crate::runtime::park::{lock, sleep, wait_on};
use crate::runtime::signs::{SEEN_EVERY, Signs};
use crate::runtime::spread::Spreading;
use crate::time::{Mono, Now, Wall};

/// So many unfinished runs are taken over at once, so that the first can start early.
pub(super) const CLAIM_CHUNK: u64 = 200;

/// And for so long at a time: who waits for the liaison, as a trigger does that is declared, waits no longer.
const TAKE_SLICE: Duration = Duration::from_millis(100);

/// So many runs are left to others at once: few enough to hold nobody up.
const EXCESS_CHUNK: usize = 1000;

/// Between two attempts to read unfinished runs from a store that does not let itself be read.
pub(super) const RECOVERY_PAUSE: Duration = Duration::from_millis(10);

/// A run that has begun waits so long for a runner that declares its own version of its workflow, if there is one.
const PREFERS: Duration = Duration::from_secs(1);

/// Of workflows that nobody declares so many are named.
const DESERTED_MAX: u64 = 20;

/// So many schedules are read at once.
const LIST_CHUNK: u64 = 1000;

/// So often at most a chunk of news is read again because something changed here meanwhile.
const NEWS_RETRIES: u32 = 50;
const NEWS_OVERTAKEN: &str = "schedules change while they are read";

/// Of runs that others drive so many are looked at together, whether they are over.
const OTHERS_CHUNK: usize = 1000;

/// News from another process on the store is looked for so often while there is one.
const NEWS_EVERY: Duration = Duration::from_millis(50);

/// And so often while this runner is alone.
const NEWS_EVERY_ALONE: Duration = Duration::from_millis(500);

/// The ends of runs that others drive are looked for so often, and not oftener than so long for each of those that are looked at.
const ENDS_EVERY: Duration = Duration::from_millis(5);
const ENDS_EVERY_EACH: Duration = Duration::from_micros(50);

/// So many of them are looked at together: who claims must not wait for that.
pub(super) const ENDS_CHUNK: usize = 200;

/// To read it takes at most this part of the time, however often there is some: of a million triggers it takes a second.
const NEWS_SHARE: u32 = 10;

/// A wake-up is a hint that may be lost: what it would have told is looked for so often.
const NEWS_SLOWLY: Duration = Duration::from_secs(5);

/// Quiet history of all triggers reaches the store within so long.
const HISTORY_EVERY: Duration = Duration::from_secs(30);

/// Of so many triggers at once, so that no run waits for the history of all.
const HISTORY_CHUNK: u32 = 1000;

/// What the liaison has to do next, and what it knows of others.
struct Round {
    has_siblings: bool,
    /// Whether the store knows that this runner takes nothing more.
    drains: bool,
    /// None before the first look that succeeded.
    company: Option<Company>,
    has_news: bool,
    /// Runs of others that somebody waits for end one after another.
    ends_fast: bool,
    /// When it was last read, and how long that took.
    news_read: Option<(Instant, Duration)>,
    last_other: Uuid,
    /// Whether the log has heard of runs that nobody goes on with, and of crons.
    knows_deserted: bool,
    ready_at: Wall,
    forgetting: Forgetting,
    news_due: Mono,
    signs: Signs,
    spreading: Spreading,
    history_due: Mono,
    history_from: u32,
}

/// Which runs are claimed; what is more comprises what is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taking {
    /// Only those that waited for their time and have not begun.
    Due,
    /// All but those that have begun in a version that others declare.
    Fitting,
    /// Those, too.
    Any,
}

/// A take-over that is not at its end.
#[derive(Debug, Default)]
pub(super) struct TakeOver {
    goes_on: Option<Taking>,
    /// So many runs have come by it that others had left.
    resumed: usize,
}

impl Shared {
    /// The liaison. Takes over unfinished runs first.
    pub(super) fn keep_touch(&self) {
        if !self.wait_ready() {
            // Whoever never began leaves everything as it is.
            return;
        }
        let Now { mono: now, wall: ready_at } = self.now();
        let is_manual = matches!(self.clock, Clock::Manual(_));
        let mut round = Round {
            has_siblings: false,
            drains: false,
            company: None,
            has_news: false,
            ends_fast: false,
            news_read: None,
            last_other: Uuid::nil(),
            knows_deserted: !self.recovers,
            ready_at,
            forgetting: Forgetting::new(now),
            news_due: now.after(NEWS_SLOWLY),
            signs: Signs::new(now, is_manual),
            spreading: Spreading::new(now),
            history_due: now.after(HISTORY_EVERY),
            history_from: 0,
        };
        round.has_siblings = self.look_for_vacancy(false, &mut round.company);
        self.load_crons();
        let note = lock(&self.engine).ready_note();
        self.order(Order::Log(note));
        while !self.closing.load(Ordering::Acquire) {
            self.look_around(&mut round);
            let strangers_due = Mono(self.strangers_due_ns.load(Ordering::Acquire));
            let dues =
                [round.history_due, round.news_due, round.signs.due, round.forgetting.due, strangers_due];
            let due = dues.into_iter().min();
            self.liaison_due_ns.store(due.map_or(0, |due| due.0), Ordering::Release);
            if !round.ends_fast || self.awaited() == 0 {
                self.rest(self.pause(round.has_siblings));
            }
        }
        self.tell_drains(&mut round.drains);
    }

    /// Says once that this runner takes nothing more, if something holds it up: who looks would take it for one that does.
    fn tell_drains(&self, is_told: &mut bool) {
        if *is_told || self.is_stopped.load(Ordering::Acquire) {
            return;
        }
        let is_busy = match self.closing.load(Ordering::Acquire) {
            true => lock(&self.jobs).in_flight().next().is_some() || lock(&self.polls).poller.in_body() > 0,
            false => lock(&self.engine).runs_unfinished() > 0,
        };
        if is_busy {
            *is_told = self.store.drains(self.epoch).is_ok();
            // Its crons are theirs now.
            self.store.wake_others(self.epoch);
        }
    }

    /// Until the next look, if nothing comes up.
    fn pause(&self, has_siblings: bool) -> Duration {
        let pause = if has_siblings && self.works { NEWS_EVERY } else { NEWS_EVERY_ALONE };
        let pause = pause.min(self.endings.pause());
        match self.awaited() {
            0 => pause,
            many => pause.min(ENDS_EVERY.max(ENDS_EVERY_EACH * many.min(ENDS_CHUNK as u32))),
        }
    }

    fn look_around(&self, round: &mut Round) {
        let now = self.now();
        if now.mono >= round.history_due {
            self.send_history(round, now.mono);
        }
        if self.draining.load(Ordering::Acquire) {
            self.tell_drains(&mut round.drains);
        }
        self.give_sign(&mut round.signs, now);
        self.let_go();
        if self.works {
            self.forget(&mut round.forgetting, now);
        }
        if self.workflow_is_new.swap(false, Ordering::AcqRel) {
            match self.recovers {
                true => self.recover(),
                false if self.works => {
                    self.tell_limits();
                    self.take_due();
                }
                false => {}
            }
        }
        let goes_on = lock(&self.take_over).goes_on.take();
        if let Some(taking) = goes_on {
            self.take_over(taking);
        }
        let asked = self.due_asked.load(Ordering::Acquire);
        if asked != self.due_done.load(Ordering::Acquire) {
            self.take_due();
            self.due_done.store(asked, Ordering::Release);
        }
        if self.works && self.store.has_inbox() {
            self.admit_inbox();
        }
        self.heed_limited();
        if self.recovers {
            self.take_strangers(now.mono, round.has_siblings);
        }
        // Who has nothing to write would never find out.
        if let Some(trouble) = self.store.trouble() {
            match self.store.commit(&[]) {
                Err(Fault::Passing(_)) => {}
                Err(Fault::Final(why)) => self.give_in(Note::StoreGone { why }),
                Ok(_) => self.give_in(Note::StoreTroubled { trouble }),
            }
        }
        // Who polls and runs nothing takes nothing over, and keeps nothing in memory that others change.
        let is_woken = self.works && self.store.woken(self.epoch);
        if is_woken {
            self.read_pauses();
            self.look_for_seats();
        }
        let is_time = now.mono >= round.news_due;
        if is_time {
            round.news_due = now.mono.after(NEWS_SLOWLY);
            self.read_pauses();
            self.look_for_seats();
        }
        if is_woken || is_time || round.has_siblings && self.works || round.company.is_none() {
            let had_siblings = round.has_siblings;
            round.has_siblings = self.look_for_vacancy(is_woken || is_time, &mut round.company);
            if self.recovers {
                self.leave_excess();
            }
            round.has_news |= round.has_siblings && self.works && (is_time || !had_siblings);
        }
        // Not at once: a program may declare workflows after it has made its runner, and others claim what is theirs.
        if is_time && !round.knows_deserted {
            round.knows_deserted = self.tell_deserted(round.ready_at).is_ok();
        }
        round.has_news |= is_woken | self.has_news.swap(false, Ordering::AcqRel);
        if self.works
            && let Some(company) = &round.company
        {
            self.spread(&mut round.spreading, company, is_woken || is_time);
        }
        if round.has_news && round.news_read.is_none_or(|(since, took)| since.elapsed() >= took * NEWS_SHARE)
        {
            let since = Instant::now();
            round.has_news = self.read_news(round.company.as_ref()).is_err();
            round.news_read = Some((since, since.elapsed()));
        }
        self.read_doubtful();
        if self.crons_due.swap(false, Ordering::AcqRel) && self.has_crons() {
            self.load_crons();
        }
        self.ask_for_ends();
        if self.cancels_due.swap(false, Ordering::AcqRel) && self.heed_cancels().is_err() {
            self.cancels_due.store(true, Ordering::Release);
        }
        self.look_for_endings();
        round.last_other = self.look_at_others(round.last_other);
        round.ends_fast = self.look_elsewhere(is_woken || is_time);
    }

    /// What is polled here no more may be polled by others.
    pub(super) fn let_go(&self) {
        let (vacated, history) = {
            let mut polls = lock(&self.polls);
            let vacated = polls.poller.take_vacated();
            let history =
                vacated.iter().flat_map(|&(place, _)| polls.poller.take_history_of(place)).collect();
            (vacated, history)
        };
        if !vacated.is_empty() {
            // What was polled here stands before what others write.
            self.step(Event::History(history));
            self.step(Event::Vacated(vacated));
        }
    }

    fn tell_deserted(&self, ready_at: Wall) -> std::result::Result<(), Fault> {
        let crons = lock(&self.engine).crons_deserted(ready_at);
        if !crons.is_empty() {
            self.order(Order::Log(Note::CronsDeserted { crons }));
        }
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
            let is_paused = self.is_paused.load(Ordering::Acquire);
            let nap = if is_paused { self.clock.nap(SEEN_EVERY) } else { None };
            dirty = wait_on(&self.liaison_wake, dirty, nap);
            if is_paused && self.is_paused.load(Ordering::Acquire) {
                drop(dirty);
                // Who has begun meanwhile says so in the next sign of life.
                let _ = self.store.waits(self.epoch, Some(self.now().wall));
                dirty = lock(&self.liaison_dirty);
            }
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

    /// Wakes the liaison as soon as there is news, until nothing more can be heard.
    pub(super) fn listen(&self, ear: &dyn Ear) {
        while ear.hear() {
            self.wake_liaison();
        }
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

    /// Takes over what owners left that are gone; true if others live.
    pub(super) fn look_for_vacancy(&self, has_news: bool, company: &mut Option<Company>) -> bool {
        let Ok(siblings) = self.store.bury(self.epoch) else { return true };
        if siblings.is_buried {
            self.give_in(Note::Buried);
            return false;
        }
        let is_first = company.is_none();
        let is_vacant = Company::has_shrunk(company, &siblings);
        if self.recovers && (is_vacant || has_news) {
            self.recover();
        } else if self.works && (is_vacant || has_news) {
            self.take_due();
        }
        if siblings.buried > 0 {
            let _ = self.store.end_deserted(self.epoch, self.now().wall);
            self.ends_came();
        }
        if is_vacant {
            // Of runs that a dead owner ended, before its triggers are polled here.
            self.read_ends();
            self.step(Event::Vacancy);
            self.look_for_seats();
            // Crons may have been declared in a newer version there.
            self.crons_due.store(!is_first, Ordering::Release);
        }
        !siblings.living.is_empty()
    }

    /// Asks other owners for the ends of runs that a trigger of this one wants to be over.
    pub(super) fn ask_for_ends(&self) {
        let runs = std::mem::take(&mut *lock(&self.cancels));
        if runs.is_empty() {
            return;
        }
        for id in runs {
            let at = self.now().wall;
            match self.store.request_cancel(self.epoch, id, at) {
                Ok(asked) => {
                    self.count_cancelled(&asked, at);
                    self.ends_came();
                    self.cancel_children(id, &asked);
                    // It may have been claimed here since it was noted as another's, as what limits have held is.
                    self.cancels_due.fetch_or(!asked.is_empty(), Ordering::AcqRel);
                }
                Err(_) => lock(&self.cancels).push(id),
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
        let waited_for = lock(&self.engine).waited_for(&others);
        if !waited_for.is_empty()
            && let Ok(moved) = self.store.moved(&waited_for)
            && !moved.is_empty()
        {
            self.step(Event::OthersMoved(moved));
        }
        others.last().copied().unwrap_or(last)
    }

    /// Another process changed something that is kept in memory here.
    ///
    /// # Errors
    /// Also if too much changes here meanwhile: then it is read again later, after what else there is to do. Who looks after the dead must
    /// not wait for a program that switches its triggers all the time.
    pub(super) fn read_news(&self, company: Option<&Company>) -> std::result::Result<(), Fault> {
        self.read_triggers(company)?;
        self.wake_pollers();
        let version = self.schedules_version();
        let crons = self.all_crons()?;
        if !self.replace_crons(version, crons) {
            return Err(Fault::Passing(NEWS_OVERTAKEN.to_owned()));
        }
        self.heed_cancels()
    }

    /// Chunk by chunk, each read again if something changed here while it was read.
    fn read_triggers(&self, company: Option<&Company>) -> std::result::Result<(), Fault> {
        let has_parked = lock(&self.engine).has_parked();
        let (mut after, mut left) = (ScheduleKey(0), NEWS_RETRIES);
        while !self.closing.load(Ordering::Acquire) {
            let version = self.schedules_version();
            let triggers = self.store.schedules_after(ScheduleFilter::Triggers, after, LIST_CHUNK)?;
            let Some(last) = triggers.last() else { break };
            if !self.switch_as_read(version, &triggers) {
                left -= 1;
                if left == 0 {
                    return Err(Fault::Passing(NEWS_OVERTAKEN.to_owned()));
                }
                continue;
            }
            after = last.row;
            let is_lost = |trigger: &&Schedule| trigger.owner == Some(self.epoch) && trigger.is_outdated();
            let outdated: Vec<Arc<str>> =
                triggers.iter().filter(is_lost).map(|trigger| trigger.name.as_str().into()).collect();
            if !outdated.is_empty() {
                self.step(Event::GiveWay(outdated));
                self.let_go();
            }
            if has_parked {
                // Who died had it, and who stood before this runner has withdrawn it since.
                let is_free = |owner| company.is_none_or(|company| company.is_free(owner));
                let free = triggers.iter().filter(|trigger| is_free(trigger.owner));
                self.step(Event::Free(free.map(|trigger| trigger.name.as_str().into()).collect()));
            }
        }
        Ok(())
    }

    /// Ends those of them that this runner drives whose ends were asked for with that of `parent`.
    pub(super) fn cancel_children(&self, parent: Uuid, asked: &[Uuid]) {
        asked.iter().filter(|&&id| id != parent).for_each(|&id| self.step(Event::Cancel(id)));
    }

    /// Ends runs of this runner that somebody asked to end. Also one who asked here, while the store had handed the run over already and the
    /// engine did not know of it yet.
    fn heed_cancels(&self) -> std::result::Result<(), Fault> {
        let cancelled = self.store.cancel_requests(self.epoch)?;
        cancelled.into_iter().for_each(|id| self.step(Event::Cancel(id)));
        Ok(())
    }

    pub(super) fn recover(&self) {
        self.tell_workflows();
        self.take_over(Taking::Fitting);
        let due = self.now().mono.after(PREFERS);
        let _ = self.strangers_due_ns.fetch_min(due.0, Ordering::AcqRel);
    }

    /// Who takes nothing over from others says what it declares all the same, if limits hang on it.
    pub(super) fn tell_limits(&self) {
        if lock(&self.engine).workflow_rows().iter().any(|workflow| workflow.limits.is_some()) {
            self.tell_workflows();
        }
    }

    /// Says which workflows are declared here, if that has changed, and hears of those of others.
    fn tell_workflows(&self) {
        self.say_workflows();
        if let Ok(names) = self.store.workflows_of_others(self.epoch) {
            self.step(Event::WorkflowsElsewhere(names));
        }
    }

    /// The first half of that. What fails is said again by the liaison.
    pub(super) fn say_workflows(&self) {
        let mut told = lock(&self.workflows_told);
        // Under the lock: of two who say it, the later knows more.
        let declared = lock(&self.engine).workflow_rows();
        if *told != declared && self.store.declare_workflows(self.epoch, &declared, self.now().wall).is_ok() {
            *told = declared;
            self.store.wake_others(self.epoch);
            drop(told);
            // Some of their runs may have ended while nobody was there to tell.
            self.ends_came();
        }
    }

    /// Runs that have begun in a version that others declare, and did not go on with.
    fn take_strangers(&self, now: Mono, has_siblings: bool) {
        if now.0 < self.strangers_due_ns.load(Ordering::Acquire) {
            return;
        }
        self.strangers_due_ns.store(u64::MAX, Ordering::Release);
        let is_left = |found: Vec<(String, u64)>| !found.is_empty();
        if has_siblings && self.store.deserted(self.epoch, 1).is_ok_and(is_left) {
            self.take_over(Taking::Any);
        }
    }

    /// Runs whose time has come, wherever they were asked for. Who takes nothing over from others takes these all the same: nobody had them.
    fn take_due(&self) {
        self.take_over(if self.recovers { Taking::Fitting } else { Taking::Due });
    }

    /// What other programs have asked for in their own transactions becomes runs, whoever declares their workflows. What fails now is seen again.
    fn admit_inbox(&self) {
        while !self.closing.load(Ordering::Acquire) {
            match self.store.admit_inbox(self.epoch, self.now().wall) {
                Ok(0) | Err(Fault::Passing(_)) => return,
                Ok(_) => {
                    self.store.wake_others(self.epoch);
                    self.take_due();
                }
                Err(Fault::Final(why)) => return self.order(Order::Log(Note::ClaimRefused { why })),
            }
        }
    }

    fn take_over(&self, taking: Taking) {
        let (resumed, came, is_all) = self.claim_slice(taking);
        let came = came + self.claim_limited();
        lock(&self.doings).taken_over += resumed as u64;
        let count = {
            let mut take_over = lock(&self.take_over);
            take_over.resumed += resumed;
            match is_all {
                true => std::mem::take(&mut take_over.resumed),
                false => {
                    take_over.goes_on = take_over.goes_on.max(Some(taking));
                    0
                }
            }
        };
        if count > 0 {
            self.order(Order::Log(Note::RunsResumed { count }));
        }
        if !is_all {
            self.wake_liaison();
        }
        if came > 0 {
            self.cancels_due.store(true, Ordering::Release);
        }
    }

    /// Claims for a while. Returns how many runs came that others had left or offered, and how many at all, and whether that was everything.
    fn claim_slice(&self, taking: Taking) -> (usize, usize, bool) {
        let (mut resumed, mut came) = (0, 0);
        let (mut is_all, mut has_looked) = (false, false);
        let began = Instant::now();
        // Whoever moves a clock by hand waits until nothing is left to do, and takes a look that is over for that.
        let is_over = || !matches!(self.clock, Clock::Manual(_)) && began.elapsed() >= TAKE_SLICE;
        while !is_all && !is_over() && !self.closing.load(Ordering::Acquire) {
            is_all = true;
            let now = self.now();
            let claims = lock(&self.engine).claims(CLAIM_CHUNK, now);
            for Claims { workflows, limit, hand } in claims {
                let claimed = match taking {
                    Taking::Fitting => self.store.claim_fitting(self.epoch, now.wall, limit, &workflows),
                    Taking::Any => self.store.claim_runs(self.epoch, now.wall, limit, &workflows),
                    Taking::Due => self.store.claim_due(self.epoch, now.wall, limit, &workflows),
                };
                match claimed {
                    Ok(runs) => {
                        has_looked = true;
                        came += runs.len();
                        resumed += runs.iter().filter(|run| !run.is_new()).count();
                        let is_full = runs.len() as u64 >= limit;
                        is_all &= !is_full;
                        if !runs.is_empty() {
                            self.step(Event::Claimed(runs));
                        }
                        if let Some(hand) = hand {
                            self.step(Event::Claims { hand, is_all: !is_full });
                        }
                    }
                    Err(Fault::Passing(_)) => {
                        is_all = false;
                        sleep(RECOVERY_PAUSE);
                    }
                    Err(Fault::Final(why)) => {
                        self.order(Order::Log(Note::ClaimRefused { why }));
                        return (resumed, came, true);
                    }
                }
            }
        }
        // Who has not looked has left what was due, and does so again as soon as there is room.
        if has_looked && let Ok(due) = self.store.next_due() {
            self.step(Event::NextDue(due));
        }
        (resumed, came, is_all || self.closing.load(Ordering::Acquire))
    }

    /// Leaves to others what is too much here, the last of it first.
    fn leave_excess(&self) {
        let excess = lock(&self.engine).excess(self.now());
        for (executors, many) in excess {
            let jobs = lock(&self.jobs).take_last(executors, many.min(EXCESS_CHUNK));
            if !jobs.is_empty() {
                self.step(Event::Excess(jobs));
            }
        }
    }

    pub(super) fn load_crons(&self) {
        loop {
            let version = self.schedules_version();
            let crons = self.all_crons().unwrap_or_default();
            if self.replace_crons(version, crons) || self.closing.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn all_crons(&self) -> std::result::Result<Vec<Schedule>, Fault> {
        let crons = self.all_schedules(ScheduleFilter::Crons)?;
        match self.renew_crons(&crons)? {
            true => self.all_schedules(ScheduleFilter::Crons),
            false => Ok(crons),
        }
    }

    pub(super) fn all_schedules(&self, filter: ScheduleFilter) -> std::result::Result<Vec<Schedule>, Fault> {
        let mut all: Vec<Schedule> = Vec::new();
        loop {
            let after = all.last().map_or(ScheduleKey(0), |last| last.row);
            let found = self.store.schedules_after(filter, after, LIST_CHUNK)?;
            if found.is_empty() {
                return Ok(all);
            }
            all.extend(found);
        }
    }
}
