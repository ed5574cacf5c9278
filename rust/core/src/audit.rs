//! In whose name this thread changes something: a person at the page or at the command line, or nobody, which is the program itself.
//! Invariant: what is done in a name ends with the call; no name outlives it on its thread.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::seat::Kind;

/// Who is at work, and by which door they came.
#[derive(Debug, Default)]
pub struct By {
    /// Who, as far as the door knows.
    pub who: String,
    /// The door, such as `cli`.
    pub door: String,
    /// From where, if the door can tell.
    pub place: Option<String>,
    /// Whether a store has noted a change in that name.
    pub has_changed: AtomicBool,
}

thread_local! {
    static BY: RefCell<Option<Arc<By>>> = const { RefCell::new(None) };
}

/// In whose name this thread is at work.
pub fn current() -> Option<Arc<By>> {
    BY.with_borrow(Clone::clone)
}

/// From here on this thread is at work in that name; whether something was changed in the one before.
pub fn work_as(by: Option<Arc<By>>) -> bool {
    BY.replace(by).is_some_and(|before| before.has_changed.load(Ordering::Acquire))
}

/// Works in a name, and in what was this thread's before after that.
pub fn within<T>(by: Option<Arc<By>>, work: impl FnOnce() -> T) -> T {
    struct Restored(Option<Arc<By>>);
    impl Drop for Restored {
        fn drop(&mut self) {
            BY.set(self.0.take());
        }
    }
    let _restored = Restored(BY.replace(by));
    work()
}

/// What is held up or goes on, as the audit tells it.
pub fn of_pause(kind: Kind, name: &str, key: &str) -> String {
    if kind == Kind::Key { format!("{name}, key {key}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Option<Arc<By>> {
        Some(Arc::new(By { who: "ann".to_owned(), door: "cli".to_owned(), ..By::default() }))
    }

    #[test]
    fn a_name_ends_with_the_work_also_if_that_panics() {
        assert_eq!(within(ann(), current).expect("somebody").who, "ann");
        assert!(current().is_none());
        let _ = std::panic::catch_unwind(|| within(ann(), || panic!("no")));
        assert!(current().is_none());
    }

    #[test]
    fn a_name_tells_whether_something_was_changed_in_it() {
        for changes in [false, true] {
            assert!(!work_as(ann()));
            current().expect("ann").has_changed.store(changes, Ordering::Release);
            assert_eq!(work_as(None), changes);
        }
    }
}
