//! Who shuts down while the store takes nothing: what bodies have come to is tried again until his time is over, and no longer.

// Of the simulation's store only what a runtime asks for is used.
#[allow(dead_code)]
#[path = "simulation/seats.rs"]
mod seats;
#[allow(dead_code)]
#[path = "simulation/store.rs"]
mod store;

#[allow(dead_code)]
mod harness;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cloaca_core::context::Bounds;
use cloaca_core::engine::{Event, Settings};
use cloaca_core::policy::RetryPolicy;
use cloaca_core::port::RunStatus;
use cloaca_core::run::Ended;
use cloaca_core::runtime::{Clock, Kept, Own, Runtime, Services, Waited, Wanted, Work};
use cloaca_core::time::Wall;
use store::MemoryStore;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);
/// More than a runner tries that gives up at the first.
const SOME: u32 = 6;
const ALL: u32 = u32::MAX;

/// A runner whose one run is in its body.
struct House {
    runtime: Arc<Runtime>,
    store: Arc<MemoryStore>,
    run: Uuid,
    work: Work,
}

fn begun(runtime: &Runtime) -> Work {
    loop {
        if let Some(job) = runtime.ready_job(false)
            && let Some(work) = runtime.begin(job)
        {
            return work;
        }
        assert!(matches!(runtime.wait_job(HOUR), Waited::Ready), "there is a run");
    }
}

impl House {
    fn open() -> Self {
        let store: Arc<MemoryStore> = Arc::default();
        let settings = Settings {
            task_timeout: HOUR,
            timeout_grace: HOUR,
            workflow_timeout: HOUR,
            interruptions_max: 20,
            crons_enabled: false,
            catchup_max: 1,
            contexts: Bounds::default(),
            permits: vec![1, 1],
            runs_in_hand: None,
            shares: true,
        };
        let services = Services {
            overdue_max: usize::MAX,
            pollers_max: 1,
            recovery: true,
            name: None,
            works: true,
            kept: Kept { runs: None, ticks: HOUR, ticks_max: 1000 },
            resolution: Duration::from_millis(1),
            in_step: false,
        };
        let of = Arc::clone(&store);
        let runtime = Arc::new(
            Runtime::start(of, settings, &services, Clock::manual(Wall(0))).expect("the store is new"),
        );
        runtime
            .step(Event::Workflow(harness::mail(RetryPolicy { attempts_max: 1, ..RetryPolicy::default() })));
        runtime.ready();
        let wanted = Wanted { context: "{}".into(), ..Wanted::default() };
        let run = runtime.submit("mail", vec![wanted]).expect("it is open").remove(0).id;
        let work = begun(&runtime);
        Self { runtime, store, run, work }
    }

    /// Its body returns after the store has begun to refuse, and while the runner drains.
    fn returns(&self, refusals: u32) {
        let flush = self.runtime.flushing();
        assert!(self.runtime.flushed(&flush, HOUR));
        self.runtime.begin_close();
        self.store.refuse(refusals);
        self.runtime.attempt_ended(self.work.job, Ended::Success("{}".into()), false);
        assert!(self.runtime.drain(HOUR, Own::default()));
    }

    /// Somebody who closes it, and has begun to wait.
    fn closing(&self) -> thread::JoinHandle<()> {
        let runtime = Arc::clone(&self.runtime);
        let closing = thread::spawn(move || runtime.finish_close(HOUR));
        while !self.runtime.halt().has_time() {
            thread::yield_now();
        }
        closing
    }

    fn status(&self) -> Option<RunStatus> {
        let state = self.store.state();
        state.run(self.run).expect("it is kept").end.as_ref().map(|end| end.status)
    }

    fn has_left(&self) -> bool {
        self.store.state().owners.values().all(|owner| owner.has_left)
    }
}

#[test]
fn what_bodies_have_come_to_is_tried_again_while_there_is_time() {
    let house = House::open();
    house.returns(SOME);
    house.runtime.finish_close(HOUR);
    assert_eq!(house.status(), Some(RunStatus::Completed));
    assert!(house.has_left());
}

#[test]
fn who_has_no_time_tries_once() {
    let house = House::open();
    house.returns(ALL);
    house.runtime.finish_close(Duration::ZERO);
    assert_eq!(house.status(), None);
}

#[test]
fn who_asks_for_the_end_is_heard_at_once() {
    let house = House::open();
    house.returns(ALL);
    let closing = house.closing();
    house.runtime.halt().ask();
    closing.join().expect("it ends");
    assert_eq!(house.status(), None);
}

#[test]
fn a_runner_that_has_given_in_tries_nothing_more() {
    let house = House::open();
    house.returns(ALL);
    let closing = house.closing();
    house.runtime.give_up();
    closing.join().expect("it ends");
    assert_eq!(house.status(), None);
}
