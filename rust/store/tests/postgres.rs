//! The server that the claims over PostgreSQL are tested with.

#[path = "support/postgres.rs"]
mod support;

use support::Database;

#[test]
fn two_tests_have_two_databases() {
    let (Some(first), Some(second)) = (Database::new(), Database::new()) else { return };
    assert_ne!(first.url(), second.url());
}
