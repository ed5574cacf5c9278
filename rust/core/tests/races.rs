//! The runtime with all its threads, workers, pollers and users, over a store in memory, under a scheduler that plays many orders in
//! which they may go on. A wake-up that is lost is a deadlock here, because no long wait ever runs out.
//!
//! `make races` plays many schedules of each (SCHEDULES=20000), the tests of every change a few. A schedule that fails names the seed that
//! plays it again: `make races SEED=7`.

// Of the simulation's store only what a runtime asks for is used.
#[allow(dead_code)]
#[path = "simulation/seats.rs"]
mod seats;
#[allow(dead_code)]
#[path = "simulation/store.rs"]
mod store;

use std::collections::HashSet;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex as Unmodelled};
use std::time::Duration;

use cloaca_core::admit::Overlap;
use cloaca_core::context::Bounds;
use cloaca_core::engine::{Declared, Event, Job, Level, Settings};
use cloaca_core::graph::Graph;
use cloaca_core::key::Epoch;
use cloaca_core::policy::RetryPolicy;
use cloaca_core::poll::{Backoff, Plan};
use cloaca_core::port::{Failure, RunStatus, TriggerRow};
use cloaca_core::run::{Ended, Ruling};
use cloaca_core::runtime::{
    Answer, AskedFire, Carrier, Clock, Fetched, Heard, Kept, Order, Own, PollTurn, Report, Runtime, Services,
    Taken, Waited, Waker, Wanted, Watch, Work,
};
use cloaca_core::time::Wall;
use cloaca_core::urgency::{Priority, Urgency};
use cloaca_core::workflow::{Executor, OnInterrupt, Task, Workflow};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::{JoinHandle, spawn, yield_now};
use shuttle::{Config, Runner};
use store::MemoryStore;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

/// Schedules of one seed; the scheduler learns from the first how long they are.
const PER_SEED: usize = 20;

/// Of each model, unless `SCHEDULES` says otherwise.
const SCHEDULES: usize = 400;

fn number(name: &str) -> Option<usize> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Plays a model: every other seed leaves the order to chance, the others prefer some threads and change that a few times.
fn play(model: fn()) {
    let schedules = number("SCHEDULES").unwrap_or(SCHEDULES);
    let all = 0..schedules.div_ceil(PER_SEED).max(2);
    let seeds = number("SEED").map_or(all, |seed| seed..seed + 1);
    for seed in seeds {
        let played = catch_unwind(AssertUnwindSafe(|| play_seed(seed as u64, model)));
        if let Err(fault) = played {
            eprintln!("it was seed {seed}: make races SEED={seed}");
            resume_unwind(fault);
        }
    }
}

fn play_seed(seed: u64, model: fn()) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.silence_warnings = true;
    config.failure_persistence = shuttle::FailurePersistence::None;
    if seed.is_multiple_of(2) {
        Runner::new(RandomScheduler::new_from_seed(seed, PER_SEED), config).run(model);
    } else {
        Runner::new(PctScheduler::new_from_seed(seed, 3, PER_SEED), config).run(model);
    }
}

/// What the bodies of all attempts do, and what they saw.
#[derive(Default)]
struct Bodies {
    begun: Unmodelled<HashSet<Job>>,
    /// How many are in a body now.
    inside: Unmodelled<usize>,
}

/// A runner with a keeper that starts what it is asked for, as Python would.
struct House {
    runtime: Arc<Runtime>,
    store: Arc<MemoryStore>,
    keeper: JoinHandle<()>,
}

type Body = dyn Fn(&Runtime, &Work) + Send + Sync;

/// What the threads that the keeper starts do.
#[derive(Clone)]
struct Crew {
    work: Arc<Body>,
    poll: Arc<dyn Fn(u32) -> Answer + Send + Sync>,
    bodies: Arc<Bodies>,
    permits: usize,
    /// Whether it is a fault if the runtime logs one.
    is_sound: bool,
}

impl Crew {
    fn new(permits: usize, work: fn(&Runtime, &Work)) -> Self {
        let poll = Arc::new(|_| panic!("nothing is polled here"));
        Self { work: Arc::new(work), poll, bodies: Arc::default(), permits, is_sound: true }
    }

    fn work(&self, runtime: &Runtime) {
        runtime.worker_present(true);
        // Some go home as soon as there is nothing to do.
        let patience = if thread_rng().gen_bool(0.5) { HOUR } else { Duration::ZERO };
        while let Some(work) = take(runtime, patience) {
            {
                let mut inside = self.bodies.inside.lock().unwrap();
                *inside += 1;
                assert!(*inside <= self.permits, "{inside} attempts run at once");
                assert!(self.bodies.begun.lock().unwrap().insert(work.job), "{:?} was taken twice", work.job);
            }
            yield_now();
            *self.bodies.inside.lock().unwrap() -= 1;
            (self.work)(runtime, &work);
        }
        runtime.worker_present(false);
    }

    fn poll(&self, runtime: &Runtime) {
        let seat = runtime.poll_seat();
        loop {
            match runtime.poll_turn(seat) {
                PollTurn::Poll(ticket, began) => {
                    let answer = (self.poll)(ticket.place);
                    runtime.poll_ended(ticket, began, answer);
                }
                PollTurn::Wait => runtime.poll_wait(seat),
                PollTurn::Leave => return,
            }
        }
    }

    fn keep(&self, runtime: &Arc<Runtime>) {
        let mut threads = Vec::new();
        loop {
            let (crew, of) = (self.clone(), Arc::clone(runtime));
            match runtime.next_order(None).expect("it waits for one") {
                Order::Log(note) if self.is_sound && note.level() == Level::Error => panic!("{note}"),
                Order::Log(..) | Order::PollFailed(..) | Order::StopPoll { .. } | Order::Tell(..) => {}
                Order::SpawnWorker => threads.push(spawn(move || crew.work(&of))),
                Order::SpawnPoller => threads.push(spawn(move || crew.poll(&of))),
                Order::Close => break,
            }
        }
        threads.into_iter().for_each(join);
    }
}

/// As the binding takes a job.
fn take(runtime: &Runtime, patience: Duration) -> Option<Work> {
    let mut was_woken = false;
    loop {
        let Some(job) = runtime.ready_job(was_woken) else {
            match runtime.wait_job(patience) {
                Waited::Ready => was_woken = true,
                Waited::Idle | Waited::Closed => return None,
            }
            continue;
        };
        was_woken = false;
        if let Some(work) = runtime.begin(job) {
            return Some(work);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    thread.join().expect("a thread of the model has ended well");
}

fn succeed(runtime: &Runtime, work: &Work) {
    runtime.attempt_ended(work.job, Ended::Success("{}".into()), false);
}

/// A body of `a` gives its place back until one of `b` of the same run has run.
fn waiting() -> impl Fn(&Runtime, &Work) + Send + Sync {
    let (done, wake) = (Mutex::new(HashSet::new()), Condvar::new());
    move |runtime, work| {
        if &*work.task == "a" {
            runtime.yield_permit(work.job);
            let mut guard = done.lock().unwrap();
            while !guard.contains(&work.job.run) {
                guard = wake.wait(guard).unwrap();
            }
            drop(guard);
            while !runtime.regain_permit(work.job, HOUR) {}
        } else {
            done.lock().unwrap().insert(work.job.run);
            wake.notify_all();
        }
        succeed(runtime, work);
    }
}

fn task(id: &str, after: &[&str]) -> Task {
    Task {
        id: id.into(),
        dependencies: after.iter().map(|&id| id.into()).collect(),
        retry: RetryPolicy { attempts_max: 1, ..RetryPolicy::default() },
        on_interrupt: OnInterrupt::Retry,
        limits: Vec::new(),
        timeout: None,
        rule: None,
        body: 1,
        executor: Executor::THREADS,
        has_failure_callback: false,
    }
}

/// Three tasks, two of them at once.
fn workflow() -> Event {
    workflow_of(vec![task("a", &[]), task("b", &[]), task("c", &["a", "b"])])
}

fn workflow_of(tasks: Vec<Task>) -> Event {
    let ids: Vec<Arc<str>> = tasks.iter().map(|task| Arc::clone(&task.id)).collect();
    let edges: Vec<Vec<Arc<str>>> = tasks.iter().map(|task| task.dependencies.clone()).collect();
    let graph = Graph::check("mail", &ids, &edges).expect("it has no cycle");
    Event::Workflow(Arc::new(Workflow {
        name: "mail".into(),
        version: "1".into(),
        tasks,
        graph,
        priority: Priority::default(),
        timeout: None,
        limits: None,
        graph_text: "".into(),
        tells: cloaca_core::port::Outcomes::default(),
        tie: None,
    }))
}

impl House {
    fn open(crew: Crew) -> Self {
        Self::over(Arc::default(), crew)
    }

    fn over(store: Arc<MemoryStore>, crew: Crew) -> Self {
        Self::at(store, crew, Clock::manual(Wall(1_700_000_000_000_000)))
    }

    fn at(store: Arc<MemoryStore>, crew: Crew, clock: Clock) -> Self {
        let settings = Settings {
            task_timeout: HOUR,
            timeout_grace: HOUR,
            workflow_timeout: HOUR,
            interruptions_max: 20,
            crons_enabled: false,
            catchup_max: 1,
            contexts: Bounds::default(),
            permits: vec![crew.permits, 1],
            runs_in_hand: None,
            shares: true,
        };
        let services = Services {
            overdue_max: usize::MAX,
            pollers_max: 4,
            recovery: true,
            name: None,
            works: true,
            kept: Kept { runs: None, ticks: HOUR * 24, ticks_max: 1000 },
            resolution: Duration::from_millis(1),
            in_step: false,
        };
        let of = Arc::clone(&store);
        let runtime = Arc::new(Runtime::start(of, settings, &services, clock).expect("the store is new"));
        runtime.step(workflow());
        runtime.ready();
        let kept = Arc::clone(&runtime);
        let keeper = spawn(move || crew.keep(&kept));
        Self { runtime, store, keeper }
    }

    fn submit(&self) -> Arc<Watch> {
        submit(&self.runtime)
    }

    /// Shuts down in good order.
    fn close(self) {
        assert!(self.runtime.close(HOUR), "nothing is left that runs");
        self.see_off();
    }

    /// Everybody goes home, and then the runner is gone.
    fn see_off(self) {
        join(self.keeper);
        assert!(self.runtime.is_closed(), "the last body is home, and the store is open");
        let state = self.store.state();
        let stays = state.owners.iter().find(|(_, owner)| !owner.has_left);
        assert!(stays.is_none(), "owner {:?} is still there", stays.map(|(epoch, _)| epoch));
    }
}

fn submit(runtime: &Runtime) -> Arc<Watch> {
    runtime.submit("mail", vec![wanted()]).expect("it is open").remove(0)
}

fn wanted() -> Wanted {
    Wanted { context: "{}".into(), ..Wanted::default() }
}

fn completes(watch: &Watch) {
    let (_, end) = watch.ended(HOUR).expect("it is driven").expect("an hour is enough");
    assert_eq!(end.status, RunStatus::Completed);
}

/// Two threads start runs while workers come and go: every run ends, no attempt is taken twice, and no place is given out twice.
fn work_with(crew: Crew) {
    let bodies = Arc::clone(&crew.bodies);
    let house = House::open(crew);
    let runtime = Arc::clone(&house.runtime);
    let other = spawn(move || completes(&submit(&runtime)));
    completes(&house.submit());
    join(other);
    assert_eq!(bodies.begun.lock().unwrap().len(), 6);
    house.close();
}

#[test]
fn every_run_ends_with_one_permit() {
    play(|| work_with(Crew::new(1, succeed)));
}

#[test]
fn every_run_ends_with_two_permits() {
    play(|| work_with(Crew::new(2, succeed)));
}

#[test]
fn an_attempt_that_gives_its_permit_back_gets_one_again() {
    play(|| work_with(Crew { work: Arc::new(waiting()), ..Crew::new(1, succeed) }));
}

/// What an executor beside the workers is called by.
#[derive(Default)]
struct Bell {
    is_rung: Mutex<bool>,
    wake: Condvar,
}

impl Waker for Bell {
    fn wake(&self) {
        *self.is_rung.lock().unwrap() = true;
        self.wake.notify_one();
    }
}

/// Takes what there is for an executor, with one permit, whenever it is called.
fn pump(runtime: &Runtime, bell: &Bell, bodies: &Bodies) {
    while !runtime.wait_closing(Duration::ZERO) {
        let mut is_rung = bell.is_rung.lock().unwrap();
        while !*is_rung {
            is_rung = bell.wake.wait(is_rung).unwrap();
        }
        *is_rung = false;
        drop(is_rung);
        let Taken { begun, stopped, .. } = runtime.take_jobs(Executor::LOOP, 8);
        assert!(begun.len() <= 1, "{} attempts have one permit", begun.len());
        assert!(stopped.is_empty(), "nobody wants one stopped");
        for work in begun {
            assert!(bodies.begun.lock().unwrap().insert(work.job), "{:?} was taken twice", work.job);
            yield_now();
            succeed(runtime, &work);
        }
    }
}

#[test]
fn an_executor_is_called_for_whatever_it_can_begin() {
    play(|| {
        let crew = Crew::new(1, succeed);
        let bodies = Arc::clone(&crew.bodies);
        let house = House::open(crew);
        let executor = Executor::LOOP;
        // The last one begins once that is on record.
        let last = Task { executor, on_interrupt: OnInterrupt::Fail, ..task("c", &["a", "b"]) };
        house.runtime.step(workflow_of(vec![task("a", &[]), Task { executor, ..task("b", &[]) }, last]));
        let bell = Arc::new(Bell::default());
        let (runtime, rung, seen) = (Arc::clone(&house.runtime), Arc::clone(&bell), Arc::clone(&bodies));
        let pump = spawn(move || pump(&runtime, &rung, &seen));
        let runtime = Arc::clone(&house.runtime);
        let other = spawn(move || completes(&submit(&runtime)));
        house.runtime.set_waker(executor, bell);
        completes(&house.submit());
        join(other);
        assert_eq!(bodies.begun.lock().unwrap().len(), 6);
        house.close();
        join(pump);
    });
}

/// An event loop with one permit: fetches when it is woken, calls bodies, and reports their ends, some of which it wants to be ruled.
fn turn(carrier: &Carrier, bell: &Bell, bodies: &Bodies) {
    let mut is_closing = false;
    while !is_closing {
        let mut is_rung = bell.is_rung.lock().unwrap();
        while !*is_rung {
            is_rung = bell.wake.wait(is_rung).unwrap();
        }
        *is_rung = false;
        drop(is_rung);
        loop {
            let (found, has_more) = carrier.fetch(1);
            carrier.gather();
            for item in found {
                match item {
                    Fetched::Begun(work, _) => {
                        assert!(
                            bodies.begun.lock().unwrap().insert(work.job),
                            "{:?} was taken twice",
                            work.job
                        );
                        let (job, asks) = (work.job, &*work.task == "a");
                        let ended = Ended::Success("{}".into());
                        let report = Report::Ended { job, ended, has_callback: asks, asks };
                        assert_eq!(carrier.report(report), None, "it is carried while the runner lives");
                    }
                    Fetched::Ruled(job, ruling) => {
                        assert_eq!(ruling, Ruling::Final);
                        assert_eq!(carrier.report(Report::Settled(job)), None);
                    }
                    Fetched::Closing => is_closing = true,
                    other => panic!("{other:?}"),
                }
            }
            if !has_more {
                // Whoever carries must not depend on it.
                if bodies.begun.lock().unwrap().len().is_multiple_of(2) {
                    carrier.gathered();
                }
                break;
            }
        }
    }
}

struct Ring(Arc<Bell>);

impl Waker for Ring {
    fn wake(&self) {
        self.0.wake();
    }
}

#[test]
fn an_event_loop_gets_what_it_can_begin_and_waits_for_nobody() {
    play(|| {
        let crew = Crew::new(1, succeed);
        let bodies = Arc::clone(&crew.bodies);
        let house = House::open(crew);
        let executor = Executor::LOOP;
        let on_loop = |id: &str, after: &[&str]| Task { executor, ..task(id, after) };
        house.runtime.step(workflow_of(vec![on_loop("a", &[]), task("b", &[]), on_loop("c", &["a", "b"])]));
        let bell = Arc::new(Bell::default());
        let carrier = Arc::new(Carrier::new(executor, Box::new(Ring(Arc::clone(&bell)))));
        let (runtime, carried) = (Arc::clone(&house.runtime), Arc::clone(&carrier));
        let carries = spawn(move || runtime.carry(&carried));
        let (fed, seen) = (Arc::clone(&carrier), Arc::clone(&bodies));
        let turns = spawn(move || turn(&fed, &bell, &seen));
        let runtime = Arc::clone(&house.runtime);
        let other = spawn(move || completes(&submit(&runtime)));
        completes(&house.submit());
        join(other);
        assert_eq!(bodies.begun.lock().unwrap().len(), 6);
        house.close();
        join(turns);
        join(carries);
        let late =
            Report::Settled(Job { run: Uuid::nil(), task: 0, attempt: 1, life: 0, callback_only: false });
        assert!(carrier.report(late).is_some(), "nobody carries it any more");
    });
}

#[test]
fn a_place_hears_that_the_runner_closes_before_nobody_carries_any_more() {
    play(|| {
        let crew = Crew::new(1, succeed);
        let bodies = Arc::clone(&crew.bodies);
        let house = House::open(crew);
        let bell = Arc::new(Bell::default());
        let carrier = Arc::new(Carrier::new(Executor::LOOP, Box::new(Ring(Arc::clone(&bell)))));
        let (runtime, carried) = (Arc::clone(&house.runtime), Arc::clone(&carrier));
        let carries = spawn(move || runtime.carry(&carried));
        let called = Arc::clone(&carrier);
        let turns = spawn(move || turn(&carrier, &bell, &bodies));
        let calls = spawn(move || called.wake());
        house.close();
        join(calls);
        join(turns);
        join(carries);
    });
}

#[test]
fn everybody_who_watches_a_run_is_told() {
    play(|| {
        let house = House::open(Crew::new(2, succeed));
        let watch = house.submit();
        let waiters: Vec<_> = (0..3)
            .map(|place| {
                let (watch, runtime) = (Arc::clone(&watch), Arc::clone(&house.runtime));
                spawn(move || match place {
                    0 => assert_eq!(watch.started(HOUR), Ok(true)),
                    1 => completes(&watch),
                    // Who asks late finds the same watch, or a run that is over.
                    _ => runtime.watch(watch.id).iter().for_each(|watch| completes(watch)),
                })
            })
            .collect();
        waiters.into_iter().for_each(join);
        completes(&watch);
        house.close();
    });
}

#[test]
fn what_was_flushed_is_kept() {
    play(|| {
        let house = House::open(Crew { is_sound: false, ..Crew::new(1, succeed) });
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (runtime, store) = (Arc::clone(&house.runtime), Arc::clone(&house.store));
                spawn(move || {
                    let watch = submit(&runtime);
                    store.fail_next();
                    assert!(runtime.flushed(&runtime.flushing(), HOUR), "it waits no longer than it must");
                    assert!(store.state().run(watch.id).is_some(), "a flush came back too early");
                    completes(&watch);
                })
            })
            .collect();
        threads.into_iter().for_each(join);
        house.close();
    });
}

/// Whatever the answer is, there is one.
fn is_told(watch: &Watch) {
    if let Ok(end) = watch.ended(HOUR) {
        assert!(end.is_some(), "an hour is over");
    }
}

#[test]
fn whoever_waits_is_told_when_the_engine_gives_up() {
    play(|| {
        let house = House::open(Crew { is_sound: false, ..Crew::new(1, succeed) });
        let watch = house.submit();
        let waiters: [fn(&Runtime, &Watch); 4] = [
            |_, watch| is_told(watch),
            |runtime, watch| runtime.watch(watch.id).iter().for_each(|watch| is_told(watch)),
            |runtime, _| {
                runtime.submit("mail", vec![wanted()]).iter().flatten().for_each(|watch| is_told(watch))
            },
            |runtime, _| {
                let flush = runtime.flushing();
                assert!(runtime.flushed(&flush, HOUR), "it waits no longer than it must");
            },
        ];
        let waiters = waiters.map(|wait| {
            let (watch, runtime) = (Arc::clone(&watch), Arc::clone(&house.runtime));
            spawn(move || wait(&runtime, &watch))
        });
        yield_now();
        house.runtime.give_up();
        waiters.into_iter().for_each(join);
        house.runtime.finish_close(Duration::MAX);
        house.see_off();
    });
}

/// As an event loop's thread hears of all ends, until there is nothing more to hear.
fn hears(runtime: &Runtime, watch: &Watch) {
    let mut is_told = watch.hear(false, None);
    let mut knows_closing = false;
    loop {
        match runtime.hear_runs(knows_closing, HOUR) {
            Heard::Ended(runs) => is_told |= runs.contains(&watch.id),
            Heard::Closing => knows_closing = true,
            Heard::Nothing => {}
            Heard::Over => break,
        }
    }
    assert!(is_told, "it was over before the last news was told");
}

#[test]
fn who_hears_of_all_runs_is_told_when_the_engine_gives_up() {
    play(|| {
        let house = House::open(Crew { is_sound: false, ..Crew::new(1, succeed) });
        let watch = house.submit();
        let runtime = Arc::clone(&house.runtime);
        let hears = spawn(move || hears(&runtime, &watch));
        yield_now();
        house.runtime.give_up();
        join(hears);
        house.runtime.finish_close(Duration::MAX);
        house.see_off();
    });
}

#[test]
fn whoever_waits_is_told_when_the_writer_panics() {
    play(|| {
        let poll = Arc::new(|_| nothing());
        let house = House::open(Crew { is_sound: false, poll, ..Crew::new(1, succeed) });
        declare(&house, "inbox", HOUR);
        house.runtime.advance(Duration::from_secs(1), HOUR);
        let runtime = Arc::clone(&house.runtime);
        let submitter = spawn(move || {
            let watches = runtime.submit("mail", vec![wanted()]);
            let flush = runtime.flushing();
            assert!(runtime.flushed(&flush, HOUR), "it waits no longer than it must");
            watches.iter().flatten().for_each(|watch| is_told(watch));
        });
        house.store.break_next();
        let last = house.runtime.submit("mail", vec![wanted()]);
        last.iter().flatten().for_each(|watch| is_told(watch));
        join(submitter);
        house.runtime.finish_close(Duration::MAX);
        house.see_off();
    });
}

fn fail(runtime: &Runtime, work: &Work) {
    runtime.attempt_ended(
        work.job,
        Ended::Failure(Failure::raised("Error", "it says so".to_owned(), None)),
        false,
    );
}

#[test]
fn who_opens_a_run_again_is_told_when_the_engine_gives_up() {
    play(|| {
        let house = House::open(Crew { is_sound: false, ..Crew::new(2, fail) });
        let watch = house.submit();
        is_told(&watch);
        let runtime = Arc::clone(&house.runtime);
        let again = spawn(move || {
            if let Ok(Some(watch)) = runtime.retry(watch.id) {
                is_told(&watch);
            }
        });
        yield_now();
        house.runtime.give_up();
        join(again);
        house.runtime.finish_close(Duration::MAX);
        house.see_off();
    });
}

/// A body that asserts that no other one is at the same task, and that its run belongs to somebody who lives.
fn alone(store: &Arc<MemoryStore>) -> impl Fn(&Runtime, &Work) + Send + Sync + use<> {
    let inside: Unmodelled<HashSet<(Uuid, u32)>> = Unmodelled::default();
    let store = Arc::clone(store);
    move |runtime, work| {
        let place = (work.job.run, work.job.task);
        assert!(inside.lock().unwrap().insert(place), "a second body of {place:?} runs beside the first");
        let is_away = thread_rng().gen_bool(0.5);
        if is_away {
            runtime.yield_permit(work.job);
        }
        for _ in 0..4 {
            yield_now();
            let state = store.state();
            let owner = state.run(work.job.run).expect("it is kept").owner;
            assert!(state.is_living(Epoch(owner.0)), "its run was given up while its body is out");
        }
        if is_away {
            while !runtime.regain_permit(work.job, HOUR) {}
        }
        inside.lock().unwrap().remove(&place);
        succeed(runtime, work);
    }
}

/// Shuts down at once, whatever is in flight.
fn leave(house: House) {
    house.runtime.begin_close();
    house.runtime.drain(Duration::ZERO, Own::default());
    house.runtime.finish_close(Duration::MAX);
    join(house.keeper);
    assert!(house.runtime.is_closed(), "the last body is home, and the store is open");
}

#[test]
fn nobody_goes_on_with_a_run_while_its_body_is_out() {
    play(|| {
        let store: Arc<MemoryStore> = Arc::default();
        let crew = Crew { work: Arc::new(alone(&store)), ..Crew::new(2, succeed) };
        let (of, heirs) = (Arc::clone(&store), Crew { bodies: Arc::default(), ..crew.clone() });
        let first = House::over(Arc::clone(&store), crew);
        let watch = first.submit();
        let heir = spawn(move || {
            let second = House::over(of, heirs);
            second.runtime.advance(Duration::from_secs(6), HOUR);
            leave(second);
        });
        let _ = watch.started(HOUR);
        leave(first);
        join(heir);
        // It has ended here, or the other one had it last.
        let _ = watch.ended(HOUR).map(|end| assert!(end.is_some()));
        let state = store.state();
        assert!(state.owners.values().all(|owner| owner.has_left), "an owner is still there");
    });
}

#[test]
fn who_finds_a_run_of_before_is_told_when_the_engine_gives_up() {
    play(|| {
        let store: Arc<MemoryStore> = Arc::default();
        let first = House::over(Arc::clone(&store), Crew::new(1, succeed));
        let id = first.submit().id;
        leave(first);
        let house = House::over(store, Crew { is_sound: false, ..Crew::new(1, succeed) });
        let runtime = Arc::clone(&house.runtime);
        let waiter = spawn(move || runtime.watch(id).iter().for_each(|watch| is_told(watch)));
        yield_now();
        house.runtime.give_up();
        join(waiter);
        house.runtime.finish_close(Duration::MAX);
        house.see_off();
    });
}

fn declare(house: &House, name: &str, interval: Duration) -> u32 {
    let second = Duration::from_secs(1);
    let plan = Plan {
        interval,
        jitter: Duration::ZERO,
        timeout: None,
        backoff: Backoff { base: second, factor: 2.0, longest: second },
        failures_max: None,
        polls_at_start: false,
        by_calendar: false,
        by_ends: false,
    };
    let row = TriggerRow {
        name: name.into(),
        workflow: "mail".into(),
        interval_us: interval.as_micros() as i64,
        allow_concurrent: false,
        on_run: None,
        digest: 1,
        origin_at: Wall(0),
    };
    let places = house.runtime.reserve(&[row.name.to_string()]);
    house.runtime.declare(&places, vec![(Arc::new(plan), Declared { row, overlap: Overlap::Allow })]);
    places[0]
}

fn nothing() -> Answer {
    Answer { fires: Vec::new(), cursor: None, reason: Ok("nothing new".to_owned()), pause: None, limit: None }
}

#[test]
fn a_trigger_is_polled_again_and_again_and_never_twice_at_once() {
    play(|| {
        let polls = Arc::new(Unmodelled::new([0, 0]));
        let inside: Unmodelled<HashSet<u32>> = Unmodelled::default();
        let counted = Arc::clone(&polls);
        let poll = move |place: u32| {
            assert!(inside.lock().unwrap().insert(place), "trigger {place} is polled twice at once");
            yield_now();
            inside.lock().unwrap().remove(&place);
            let number = &mut counted.lock().unwrap()[place as usize];
            *number += 1;
            let context = format!("{{\"place\": {place}, \"number\": {number}}}");
            Answer {
                fires: vec![AskedFire {
                    trace: None,
                    context: context.into(),
                    run_key: None,
                    cursor: None,
                    dedup_key: None,
                    urgency: Urgency::default(),
                    parent: None,
                }],
                ..nothing()
            }
        };
        let house = House::open(Crew { poll: Arc::new(poll), ..Crew::new(2, succeed) });
        declare(&house, "inbox", Duration::from_secs(1));
        declare(&house, "outbox", Duration::from_secs(2));
        while polls.lock().unwrap().iter().any(|&number| number < 2) {
            assert!(house.runtime.advance(Duration::from_secs(1), HOUR), "it comes to rest");
        }
        let store = Arc::clone(&house.store);
        house.close();
        assert_eq!(store.state().runs.len(), polls.lock().unwrap().iter().sum::<usize>());
    });
}

#[test]
fn a_clock_that_is_moved_far_stops_at_every_poll() {
    play(|| {
        let polls = Arc::new(Unmodelled::new([0, 0]));
        let counted = Arc::clone(&polls);
        let poll = move |place: u32| {
            yield_now();
            counted.lock().unwrap()[place as usize] += 1;
            let fire = AskedFire {
                trace: None,
                context: "{}".into(),
                run_key: None,
                cursor: None,
                dedup_key: None,
                urgency: Urgency::default(),
                parent: None,
            };
            // One keeps each tick, the other now and then starts a run.
            let fires = if place == 0 { Vec::new() } else { vec![fire] };
            Answer { fires, cursor: (place == 0).then(|| "1".to_owned()), ..nothing() }
        };
        let house = House::open(Crew { poll: Arc::new(poll), ..Crew::new(1, succeed) });
        let began = house.runtime.now();
        declare(&house, "inbox", Duration::from_secs(1));
        declare(&house, "outbox", Duration::from_secs(2));
        let runtime = Arc::clone(&house.runtime);
        let other = spawn(move || assert!(runtime.advance(Duration::from_secs(2), HOUR), "it comes to rest"));
        assert!(house.runtime.advance(Duration::from_secs(4), HOUR), "it comes to rest");
        join(other);
        let now = house.runtime.now();
        let moved = now.mono.since(began.mono);
        assert!(moved >= Duration::from_secs(4), "it was moved by {moved:?}");
        assert_eq!(now.wall, began.wall.after(moved), "both clocks move alike");
        let (polled, ..) = house.runtime.counts();
        assert_eq!(polled.missed, 0, "a poll was passed over");
        let seconds = moved.as_secs() as usize;
        let found = *polls.lock().unwrap();
        assert!(found[0] >= seconds && found[1] >= seconds / 2, "{found:?} polls in {seconds} s");
        house.close();
    });
}

#[test]
fn a_body_that_hangs_holds_up_no_other_trigger() {
    play(|| {
        // Until the other trigger was polled, and the model has seen it.
        let polled = Arc::new((Mutex::new([false, false]), Condvar::new()));
        let of = Arc::clone(&polled);
        let poll = move |place: u32| {
            let (polled, wake) = &*of;
            let mut guard = polled.lock().unwrap();
            guard[place as usize] = true;
            wake.notify_all();
            while place == 0 && !guard[1] {
                guard = wake.wait(guard).unwrap();
            }
            nothing()
        };
        let crew = Crew { poll: Arc::new(poll), ..Crew::new(1, succeed) };
        let house = House::at(Arc::default(), crew, Clock::system());
        declare(&house, "hangs", Duration::from_millis(1));
        declare(&house, "goes on", Duration::from_millis(1));
        let (polled, wake) = &*polled;
        let mut guard = polled.lock().unwrap();
        while !guard.iter().all(|&is_polled| is_polled) {
            guard = wake.wait(guard).unwrap();
        }
        drop(guard);
        house.close();
    });
}
