//! Seats of limits: word of those that an attempt has given back is not taken for word of those that it asks for anew.

mod harness;

use std::collections::VecDeque;
use std::sync::Arc;

use cloaca_core::engine::{Effects, Engine, Event, Job, Ready, Request, Then};
use cloaca_core::key::{Epoch, RunRow};
use cloaca_core::policy::RetryPolicy;
use cloaca_core::port::{Admitted, Change, Receipt};
use cloaca_core::seat::{Limit, Pass, Seat, Terms};
use cloaca_core::time::{Mono, Now, Wall};
use cloaca_core::workflow::{Task, Workflow};
use uuid::Uuid;

const OWNER: Epoch = Epoch(2);

fn limited() -> Arc<Workflow> {
    let mail = harness::mail(RetryPolicy::default());
    let limit = Limit { name: "api".into(), terms: Terms { concurrency: Some(1), throttle: None } };
    let tasks = mail.tasks.iter().map(|task| Task { limits: vec![limit.clone()], ..task.clone() }).collect();
    Arc::new(Workflow { tasks, ..(*mail).clone() })
}

/// An engine whose store answers when the test says, in order.
struct World {
    engine: Engine,
    unanswered: VecDeque<(Change, Then)>,
}

impl World {
    fn step(&mut self, event: Event) -> Effects {
        let mut effects = harness::step(&mut self.engine, event, Now { mono: Mono(0), wall: Wall(0) });
        self.unanswered.extend(effects.commits.drain(..));
        effects
    }

    fn answer(&mut self, receipt: impl FnOnce(&Change) -> Receipt) -> Effects {
        let (change, then) = self.unanswered.pop_front().expect("something was asked");
        let receipt = receipt(&change);
        self.step(Event::Committed(then, receipt))
    }

    fn seats(&mut self, granted: &[&Seat]) -> Effects {
        let granted = granted.iter().map(|&seat| (OWNER, seat.clone())).collect();
        self.answer(|change| match change {
            Change::Ask(_) | Change::Unseat { .. } | Change::LookForSeats { .. } => {
                Receipt::Seats(Pass { granted, next: None })
            }
            other => panic!("{other:?}"),
        })
    }

    fn starts(&mut self, workflow: &Arc<Workflow>, number: i64) -> (Job, Seat) {
        let request = Request::of(Uuid::from_u128(number.unsigned_abs().into()), "{}".into());
        self.step(Event::Start { workflow: Arc::clone(workflow), requests: vec![request] });
        let row = RunRow(number);
        let started = self.answer(|_| Receipt::Start(vec![Admitted::Started { row }]));
        let [Ready { job, .. }] = started.jobs[..] else { panic!("{started:?}") };
        self.step(Event::Taken(job));
        (job, Seat { run: row, task: "send".into(), attempt: job.attempt })
    }
}

#[test]
fn what_is_told_of_seats_that_were_given_back_does_not_let_a_body_go_on() {
    let workflow = limited();
    let mut world = World { engine: harness::engine(OWNER, false), unanswered: VecDeque::new() };
    world.step(Event::Workflow(Arc::clone(&workflow)));
    world.answer(|_| Receipt::Limits(Vec::new()));
    let (first, its_seat) = world.starts(&workflow, 1);
    world.seats(&[&its_seat]);
    let (second, other_seat) = world.starts(&workflow, 2);
    world.seats(&[]);

    // Somebody else changed something, so that it looks; meanwhile the first one waits, and wants to go on at once.
    world.step(Event::SeatsMoved);
    assert_eq!(world.step(Event::Deferred(first, true)).seatless, [first]);
    world.step(Event::WantsSeats(first));
    let asked: Vec<&Change> = world.unanswered.iter().map(|(change, _)| change).collect();
    assert!(matches!(asked[..], [Change::LookForSeats { .. }, Change::Unseat { .. }, Change::Ask(_)]));
    assert_eq!(world.seats(&[&its_seat]).reseated, [], "it had those when the store looked");
    let freed = world.seats(&[&other_seat]);
    assert_eq!(freed.jobs.iter().map(|ready| ready.job).collect::<Vec<_>>(), [second]);
    assert_eq!(world.seats(&[]).reseated, [], "the only seat is taken");

    world.step(Event::Taken(second));
    world.step(Event::Deferred(second, true));
    assert_eq!(world.seats(&[&its_seat]).reseated, [first]);
}
