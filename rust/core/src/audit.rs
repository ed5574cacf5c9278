//! In whose name this thread changes something: a person at the page or at the command line, or nobody, which is the program itself.
//! Invariant: what is done in a name ends with the call; no name outlives it on its thread.

use std::cell::RefCell;
use std::sync::Arc;

use crate::seat::Kind;

/// Who is at work, and by which door they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who, as far as the door knows.
    pub who: String,
    /// The door, such as `cli`.
    pub door: String,
    /// From where, if the door can tell.
    pub place: Option<String>,
}

thread_local! {
    static BY: RefCell<Option<Arc<By>>> = const { RefCell::new(None) };
}

/// In whose name this thread is at work.
pub fn current() -> Option<Arc<By>> {
    BY.with_borrow(Clone::clone)
}

/// From here on this thread is at work in that name.
pub fn work_as(by: Option<Arc<By>>) {
    BY.set(by);
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
        Some(Arc::new(By { who: "ann".to_owned(), door: "cli".to_owned(), place: None }))
    }

    #[test]
    fn a_name_ends_with_the_work_also_if_that_panics() {
        assert_eq!(within(ann(), current), ann());
        assert_eq!(current(), None);
        let _ = std::panic::catch_unwind(|| within(ann(), || panic!("no")));
        assert_eq!(current(), None);
    }
}
