//! What the store refused as never to be taken, and is asked again all the same: a right that is missing, or a trigger of the database's own,
//! may be there for seconds. Of what became of one run nothing goes before that; what others have sent waits for none of it.
//! Invariant: of one stream nothing is sent past what is set aside, and what is set aside is tried again until it is taken or the runner closes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::Then;
use crate::key::{RunRow, ScheduleKey};
use crate::port::{Change, RunChange, TickChange};

/// So many streams are set aside, and so many changes of each; what is more is given up, and said.
const STREAMS_MAX: usize = 100_000;
const STREAM_MAX: usize = 1_000;

/// So many streams are tried together: each that is refused still costs transactions that others wait for.
const TRIED_MAX: usize = 16;

/// Until it is tried again, at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The log hears of what is refused at most this often, and once more of what still is after so long.
const TOLD_EVERY: Duration = Duration::from_secs(60);
const TOLD_AGAIN: Duration = Duration::from_secs(600);

/// What is to be kept in the order in which it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stream {
    /// What becomes of a run.
    Run(RunRow),
    /// What becomes of a cron's moments.
    Cron(ScheduleKey),
    /// Where a trigger is polled.
    Trigger(Arc<str>),
    /// A change of its own, that waits for no other.
    Alone(u64),
}

impl Stream {
    /// That of a change that is tried again once it was refused; none if who asked for it is told, or comes again by itself.
    fn of(change: &Change, alone: &mut u64) -> Option<Self> {
        Self::in_order(change).or_else(|| {
            let is_alone = matches!(
                change,
                Change::Release { .. }
                    | Change::LookForSeats { .. }
                    | Change::DeclareLimits { .. }
                    | Change::Pause(_)
            );
            *alone += u64::from(is_alone);
            is_alone.then_some(Self::Alone(*alone))
        })
    }

    /// That of a change that has to wait for those before it.
    pub fn in_order(change: &Change) -> Option<Self> {
        match change {
            Change::Run(RunChange { run, .. }) | Change::Timed { run, .. } => Some(Self::Run(*run)),
            Change::Overdue(body) | Change::Returned(body) => Some(Self::Run(body.run)),
            Change::Ask(ask) => Some(Self::Run(ask.seat.run)),
            Change::Unseat { seat, .. } => Some(Self::Run(seat.run)),
            Change::Tick(TickChange { cron: Some(step), .. }) | Change::Start { cron: Some(step), .. } => {
                Some(Self::Cron(step.row))
            }
            Change::TakeMoment { row, .. } | Change::LeaveMoment { row, .. } => Some(Self::Cron(*row)),
            Change::Declare { trigger, .. } => Some(Self::Trigger(Arc::clone(&trigger.name))),
            Change::LetGo { trigger, .. } => Some(Self::Trigger(Arc::clone(trigger))),
            Change::Tick(_)
            | Change::Start { .. }
            | Change::Offer { .. }
            | Change::Release { .. }
            | Change::LookForSeats { .. }
            | Change::DeclareLimits { .. }
            | Change::Pause(_)
            | Change::Logged(_)
            | Change::History(_) => None,
        }
    }
}

#[derive(Debug)]
struct Aside {
    items: VecDeque<(Change, Then)>,
    why: String,
}

/// What is set aside, and when it is tried again.
#[derive(Debug, Default)]
pub struct Refused {
    streams: HashMap<Stream, Aside>,
    /// Who is tried next, first.
    order: VecDeque<Stream>,
    due: Option<Instant>,
    pause: Duration,
    alone: u64,
    /// What is tried now, and why it was refused before; and of how much of it something is taken.
    trying: HashMap<Stream, String>,
    refused_again: HashSet<Stream>,
    told: Option<Instant>,
}

impl Refused {
    /// Whether nothing is set aside.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// How many streams are, with those that are being tried.
    pub fn count(&self) -> usize {
        let is_tried = |stream: &&Stream| !self.streams.contains_key(stream);
        self.streams.len() + self.trying.keys().filter(is_tried).count()
    }

    /// When it is tried again.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.streams.is_empty())
    }

    /// Why what becomes of a run is not kept, if that is so.
    pub fn why(&self, run: RunRow) -> Option<&str> {
        self.why_of(&Stream::Run(run))
    }

    /// The same of a stream.
    pub fn why_of(&self, stream: &Stream) -> Option<&str> {
        let aside = self.streams.get(stream).map(|aside| &aside.why);
        aside.or_else(|| self.trying.get(stream)).map(String::as_str)
    }

    /// How many runs and how much else is set aside, and why the first of it is.
    pub fn all(&self) -> Option<(usize, usize, &str)> {
        let all = self.trying.keys().filter(|stream| !self.streams.contains_key(stream)).chain(&self.order);
        let runs = all.clone().filter(|stream| matches!(stream, Stream::Run(_))).count();
        let first = self.order.front().and_then(|stream| self.streams.get(stream));
        let why = first.map(|aside| &aside.why).or_else(|| self.trying.values().next())?;
        Some((runs, all.count() - runs, why))
    }

    /// The same without what is taken of it by now.
    pub fn still(&self) -> Option<(usize, usize, &str)> {
        if self.is_empty() { None } else { self.all() }
    }

    /// What is behind something that is set aside waits with it. The rest is to be sent.
    pub fn hold_back(&mut self, items: Vec<(Change, Then)>) -> Vec<(Change, Then)> {
        if self.streams.is_empty() {
            return items;
        }
        let mut sent = Vec::with_capacity(items.len());
        for (change, then) in items {
            let stream = Stream::in_order(&change);
            match stream.and_then(|stream| self.streams.get_mut(&stream)) {
                Some(aside) if aside.items.len() < STREAM_MAX => aside.items.push_back((change, then)),
                _ => sent.push((change, then)),
            }
        }
        sent
    }

    /// Sets aside what was refused; gives back what nobody tries again.
    pub fn put(&mut self, change: Change, then: Then, why: &str, now: Instant) -> Option<(Change, Then)> {
        let Some(stream) = Stream::of(&change, &mut self.alone) else { return Some((change, then)) };
        let is_known = self.streams.contains_key(&stream);
        let is_full = self.streams.get(&stream).is_some_and(|aside| aside.items.len() >= STREAM_MAX);
        if is_full || !is_known && self.streams.len() >= STREAMS_MAX {
            return Some((change, then));
        }
        if self.streams.is_empty() && self.trying.is_empty() {
            self.pause = PAUSE;
            self.due = Some(now + PAUSE);
        }
        // What stands alone is not known again.
        let is_again = self.trying.contains_key(&stream) || matches!(stream, Stream::Alone(_));
        if is_again && !self.trying.is_empty() {
            self.refused_again.insert(stream.clone());
        }
        if !is_known {
            self.order.push_back(stream.clone());
        }
        let aside = || Aside { items: VecDeque::new(), why: why.to_owned() };
        self.streams.entry(stream).or_insert_with(aside).items.push_back((change, then));
        None
    }

    /// What is to be tried again now, if its time has come; `at_once` everything.
    pub fn take(&mut self, now: Instant, at_once: bool) -> Vec<(Change, Then)> {
        if !at_once && self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        let many = if at_once { self.order.len() } else { self.order.len().min(TRIED_MAX) };
        let mut items = Vec::new();
        for stream in self.order.drain(..many) {
            let Some(aside) = self.streams.remove(&stream) else { continue };
            items.extend(aside.items);
            self.trying.insert(stream, aside.why);
        }
        items
    }

    /// What was tried is answered. True if with that all is taken that was refused before.
    pub fn tried(&mut self, now: Instant) -> bool {
        if self.trying.is_empty() {
            return false;
        }
        let is_none_taken = self.refused_again.len() >= self.trying.len();
        self.trying.clear();
        self.refused_again.clear();
        // Where some is taken, the rest of it may be, too.
        self.pause = if is_none_taken { (self.pause * 2).min(PAUSE_MAX) } else { PAUSE };
        self.due = Some(if is_none_taken { now + self.pause } else { now });
        let is_over = self.streams.is_empty();
        self.told = self.told.filter(|_| !is_over);
        is_over
    }

    /// Whether the log is to hear now that something is refused, of which some is `new`.
    pub fn tells(&mut self, is_new: bool, now: Instant) -> bool {
        let every = if is_new { TOLD_EVERY } else { TOLD_AGAIN };
        let tells = self.told.is_none_or(|told| now.saturating_duration_since(told) >= every);
        if tells {
            self.told = Some(now);
        }
        tells
    }
}

/// Of the changes of one batch, whose stream has been refused in it.
#[derive(Debug, Default)]
pub struct Broken(HashSet<Stream>);

impl Broken {
    /// From now on whatever comes behind this is refused with it.
    pub fn note(&mut self, change: &Change) {
        self.0.extend(Stream::in_order(change));
    }

    /// Whether this comes behind something that was refused.
    pub fn has(&self, change: &Change) -> bool {
        !self.0.is_empty() && Stream::in_order(change).is_some_and(|stream| self.0.contains(&stream))
    }
}

/// What is told of all that is refused.
pub fn told(runs: usize, others: usize, why: &str) -> String {
    let runs = match runs {
        0 => None,
        1 => Some("what became of 1 run".to_owned()),
        _ => Some(format!("what became of {runs} runs")),
    };
    let others = match (others, runs.is_some()) {
        (0, _) => None,
        (_, true) => Some(format!("{others} more changes")),
        (1, false) => Some("a change of this runner's".to_owned()),
        (_, false) => Some(format!("{others} changes of this runner's")),
    };
    let what: Vec<String> = [runs, others].into_iter().flatten().collect();
    format!("the store refuses {}, which is tried again until it takes that: {why}", what.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Epoch;

    fn of_run(row: i64) -> (Change, Then) {
        let run = RunRow(row);
        (Change::Run(RunChange { run, epoch: Epoch(1), tasks: Vec::new(), end: None }), Then::Begun)
    }

    fn released(row: i64) -> (Change, Then) {
        (Change::Release { epoch: Epoch(1), runs: vec![RunRow(row)] }, Then::Nothing)
    }

    fn rows(items: &[(Change, Then)]) -> Vec<i64> {
        let row = |(change, _): &(Change, Then)| match change {
            Change::Run(change) => change.run.0,
            other => panic!("{other:?}"),
        };
        items.iter().map(row).collect()
    }

    fn put(refused: &mut Refused, (change, then): (Change, Then), now: Instant) {
        assert_eq!(refused.put(change, then, "no", now), None);
    }

    #[test]
    fn what_comes_behind_what_is_refused_waits_with_it_and_nothing_else_does() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        put(&mut refused, of_run(1), now);
        assert_eq!(rows(&refused.hold_back(vec![of_run(1), of_run(2), of_run(1)])), [2]);
        assert_eq!(refused.take(now, false), [], "not at once");
        assert_eq!(rows(&refused.take(now + PAUSE, false)), [1, 1, 1]);
        assert_eq!(refused.why(RunRow(1)), Some("no"), "until it is answered");
        assert!(refused.tried(now + PAUSE), "all of it is taken");
        assert_eq!((refused.why(RunRow(1)), refused.due()), (None, None));
    }

    #[test]
    fn what_is_refused_again_and_again_is_tried_at_growing_pauses() {
        let (mut refused, mut now) = (Refused::default(), Instant::now());
        put(&mut refused, released(1), now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let due = refused.due().expect("it is tried again");
            pauses.push(due.duration_since(now).as_millis());
            now = due;
            let [again] = refused.take(now, false).try_into().expect("there is one");
            put(&mut refused, again, now);
            assert!(!refused.tried(now));
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn all_have_their_turn_and_what_is_taken_calls_the_rest_at_once() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        let many = TRIED_MAX as i64 + 2;
        (1..=many).for_each(|row| put(&mut refused, of_run(row), now));
        let now = now + PAUSE;
        for again in refused.take(now, false) {
            put(&mut refused, again, now);
        }
        refused.tried(now);
        assert_eq!(refused.due(), Some(now + 2 * PAUSE));
        let now = now + 2 * PAUSE;
        let second = refused.take(now, false);
        assert_eq!(rows(&second)[..3], [many - 1, many, 1], "first who was not tried yet");
        assert!(!refused.tried(now));
        assert_eq!(refused.due(), Some(now), "what was refused for all may be over for all");
    }

    #[test]
    fn who_asked_for_it_is_told_of_what_is_not_tried_again() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        let history = (Change::History(Vec::new()), Then::Nothing);
        assert_eq!(refused.put(history.0.clone(), history.1.clone(), "no", now), Some(history));
        assert!(refused.is_empty());
    }

    #[test]
    fn the_log_hears_of_it_once_and_again_after_long() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        assert!(refused.tells(true, now));
        assert!(!refused.tells(true, now + TOLD_EVERY / 2));
        assert!(!refused.tells(false, now + TOLD_EVERY));
        assert!(refused.tells(true, now + TOLD_EVERY));
        assert!(refused.tells(false, now + TOLD_EVERY + TOLD_AGAIN));
    }
}
