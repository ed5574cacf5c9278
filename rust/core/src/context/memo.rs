//! What the joins of one run have come to, by the lists of tasks that were joined: the tasks of a layer share theirs, and the layer
//! after it parted there.
//! Invariant: what is remembered is what a join would come to again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::context::{BASES_MAX, REMEMBERED_BYTES_MAX};

/// Joined contexts as JSON text.
#[derive(Debug, Default)]
pub(super) struct Memo {
    joined: Mutex<Joined>,
    reconstructed: AtomicUsize,
}

type Cell = Arc<OnceLock<Arc<str>>>;

#[derive(Debug, Default)]
struct Joined {
    by_tasks: HashMap<Box<[usize]>, Cell>,
    /// Of states that no task was given.
    bytes: usize,
}

impl Memo {
    /// What these tasks came to, if that is known.
    pub(super) fn get(&self, of: &[usize]) -> Option<Arc<str>> {
        self.joined().by_tasks.get(of)?.get().cloned()
    }

    /// What these tasks come to. Of several threads that ask at once only one works it out, and the others wait.
    pub(super) fn get_or_make(&self, of: &[usize], make: impl FnOnce() -> Arc<str>) -> Arc<str> {
        let cell = {
            let mut joined = self.joined();
            match joined.by_tasks.get(of) {
                Some(cell) => Arc::clone(cell),
                None => Arc::clone(joined.by_tasks.entry(of.into()).or_default()),
            }
        };
        Arc::clone(cell.get_or_init(make))
    }

    /// Remembers what these tasks came to. Never waits: who is at the same comes to the same.
    pub(super) fn offer(&self, of: &[usize], text: &Arc<str>) {
        self.joined().by_tasks.entry(of.into()).or_insert_with(|| Arc::new(OnceLock::from(Arc::clone(text))));
    }

    /// Remembers the state of a parting, while there is room for it.
    pub(super) fn keep(&self, of: &[usize], text: impl FnOnce() -> Arc<str>) {
        if self.joined().bytes > REMEMBERED_BYTES_MAX {
            return;
        }
        let text = text();
        self.joined().bytes += text.len();
        self.offer(of, &text);
    }

    /// Whether one more state may be reconstructed.
    pub(super) fn may_reconstruct(&self) -> bool {
        self.reconstructed.fetch_add(1, Ordering::Relaxed) < BASES_MAX
    }

    fn joined(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
