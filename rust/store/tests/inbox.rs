//! What other programs ask for in transactions of their own, over a server: it waits in nobody's way, and becomes runs by the gate.

#[path = "support/postgres.rs"]
mod server;
#[path = "support/records.rs"]
mod support;

use std::sync::Arc;

use cloaca_core::port::{Page, RunFilter, RunStatus, Store};
use cloaca_core::time::Wall;
use server::Database;
use support::*;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

const EVERYTHING: Page = Page { limit: 1000, offset: 0 };

/// A connection of another program's.
struct Other {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Other {
    fn of(database: &Database) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connected) = tokio_postgres::connect(database.url(), NoTls).await.unwrap();
            tokio::spawn(connected);
            client
        });
        Self { client, runtime }
    }

    fn tell(&self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap();
    }

    fn submit(&self, arguments: &str) -> Uuid {
        let sql = format!("SELECT cloaca.submit({arguments})::TEXT");
        let row = self.runtime.block_on(self.client.query_one(&sql, &[])).unwrap();
        Uuid::parse_str(row.get(0)).unwrap()
    }
}

fn opened() -> Option<(Database, Arc<dyn Store>, Other)> {
    let database = Database::new()?;
    let store = cloaca_store::open(database.url(), None).unwrap().store;
    let other = Other::of(&database);
    Some((database, store, other))
}

#[test]
fn what_is_committed_is_admitted_once_and_what_is_not_is_in_nobodys_way() {
    let Some((database, store, other)) = opened() else { return };
    let epoch = store.join(Wall(1)).unwrap();
    assert_eq!(store.admit_inbox(epoch, Wall(2)), Ok(0));
    let open = Other::of(&database);
    open.tell("BEGIN");
    let held = open.submit("'w', run_key => 'k'");
    let first = other.submit("'w', '{\"b\": 1, \"a\": 2}', priority => 7");
    let second = other.submit("'w'");
    assert_eq!(store.admit_inbox(epoch, Wall(2)), Ok(2));
    assert_eq!(store.admit_inbox(epoch, Wall(2)), Ok(0));
    let (run, _) = store.run(first).unwrap().unwrap();
    assert_eq!((run.status, run.context.as_deref()), (RunStatus::Pending, Some("{\"b\":1,\"a\":2}")));
    assert_eq!(run.priority.number(), 7);
    let claimed = store.claim_runs(epoch, Wall(3), 10, &["w".into()]).unwrap();
    assert_eq!(claimed.iter().map(|run| run.id).collect::<Vec<_>>(), [first, second]);
    open.tell("COMMIT");
    assert_eq!(store.admit_inbox(epoch, Wall(4)), Ok(1));
    assert!(store.run(held).unwrap().is_some());
}

#[test]
fn it_is_heard_of_at_the_commit_and_at_the_latest_with_the_next_beat() {
    let Some((_database, store, other)) = opened() else { return };
    let epoch = store.join(Wall(1)).unwrap();
    assert!(!store.has_inbox());
    let ear = store.ear(epoch).unwrap();
    for arguments in ["'w'", "'w', notify => false"] {
        other.submit(arguments);
        while !store.has_inbox() {
            assert!(ear.hear());
        }
        assert_eq!(store.admit_inbox(epoch, Wall(2)), Ok(1));
    }
}

#[test]
fn what_waits_is_listed_before_all_runs_page_by_page() {
    let Some((_database, store, other)) = opened() else { return };
    let epoch = store.join(Wall(1)).unwrap();
    store.commit(&[start(epoch, new_run(1))]).unwrap();
    let waiting = [other.submit("'w'"), other.submit("'w'"), other.submit("'v'")];
    let listed = |filter: &RunFilter, page: Page| {
        let runs = store.runs(filter, page).unwrap();
        runs.into_iter().map(|run| run.id).collect::<Vec<_>>()
    };
    for status in [None, Some(RunStatus::Pending)] {
        let mut filter = RunFilter { status, ..RunFilter::default() };
        let all = listed(&filter, EVERYTHING);
        assert_eq!(all[..3], [waiting[2], waiting[1], waiting[0]]);
        assert_eq!(all.len(), 4);
        for (offset, id) in all.iter().enumerate() {
            assert_eq!(listed(&filter, Page { limit: 1, offset: offset as u64 }), [*id]);
        }
        let mut walked = Vec::new();
        while let [id] = listed(&filter, Page { limit: 1, offset: 0 })[..] {
            walked.push(id);
            filter.after = store.place(id).unwrap();
        }
        assert_eq!(walked, all);
    }
    let running = RunFilter { status: Some(RunStatus::Running), ..RunFilter::default() };
    assert!(listed(&running, EVERYTHING).is_empty());
    let counts = |workflow: &str| {
        let backlog = store.backlog(10, Wall(0)).unwrap().into_iter();
        backlog
            .filter(|kept| kept.workflow == workflow)
            .map(|kept| (kept.owner, kept.pending))
            .collect::<Vec<_>>()
    };
    assert_eq!((counts("w"), counts("v")), (vec![(None, 2)], vec![(None, 1)]));
    assert_eq!(store.ended(&waiting), Ok(Vec::new()));
    assert_eq!(store.request_cancel(epoch, waiting[0], Wall(5)), Ok(vec![waiting[0]]));
    assert_eq!(store.ended(&waiting), Ok(vec![waiting[0]]));
    assert_eq!(store.admit_inbox(epoch, Wall(6)), Ok(2));
}

#[test]
fn an_alias_goes_with_the_run_that_it_stands_for() {
    let Some((_database, store, other)) = opened() else { return };
    let epoch = store.join(Wall(1)).unwrap();
    let first = other.submit("'w', run_key => 'k'");
    assert_eq!(store.admit_inbox(epoch, Wall(2)), Ok(1));
    let alias = other.submit("'w', run_key => 'k'");
    assert_eq!(store.admit_inbox(epoch, Wall(2)), Ok(1));
    assert_eq!(store.run(alias).unwrap().unwrap().0.id, first);
    assert_eq!(store.ended(&[alias, first]), Ok(Vec::new()));
    assert_eq!(store.request_cancel(epoch, alias, Wall(3)), Ok(vec![first]));
    assert_eq!(store.ended(&[alias, first]), Ok(vec![alias, first]));
    assert_eq!(store.reopen(epoch, alias).unwrap().unwrap().id, first);
    store.request_cancel(epoch, first, Wall(4)).unwrap();
}
