//! What one thread at a time uses, in the order in which they come. Invariant: who waits leaves the queue soon after his halt is asked for, and whoever has
//! just been inside stands behind those who wait.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use cloaca_core::port::Halt;

/// Between two looks of who waits at whether he is to go on with that.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Something behind a door.
pub struct Door<T> {
    kept: Mutex<T>,
    queue: Mutex<Queue>,
    moved: Condvar,
}

#[derive(Default)]
struct Queue {
    is_taken: bool,
    waiting: VecDeque<u64>,
    /// How many ever waited.
    numbers: u64,
    /// How often who was inside found that nobody answers.
    silences: u64,
}

/// Who is inside. Dropped first, what is kept is free before the next one hears of it.
pub struct Inside<'d, T> {
    kept: Option<MutexGuard<'d, T>>,
    door: &'d Door<T>,
    /// Since when he had waited for that, if he had.
    pub waited_since: Option<Instant>,
}

impl<T> Door<T> {
    /// Before that.
    pub fn new(kept: T) -> Self {
        Self { kept: Mutex::new(kept), queue: Mutex::default(), moved: Condvar::new() }
    }

    /// What is kept, once those who came before are through; none if this thread is to wait no more, or who was inside has found meanwhile that nobody answers.
    pub fn enter(&self) -> Option<Inside<'_, T>> {
        let mut queue = guarded(&self.queue);
        let mut waited_since = None;
        if queue.is_taken || !queue.waiting.is_empty() {
            let (halt, began, silences) = (Halt::current(), Instant::now(), queue.silences);
            let number = queue.numbers;
            queue.numbers += 1;
            queue.waiting.push_back(number);
            while queue.is_taken || queue.waiting.front() != Some(&number) {
                if halt.ends(began) || queue.silences != silences {
                    queue.waiting.retain(|waiting| *waiting != number);
                    self.moved.notify_all();
                    return None;
                }
                queue = self.moved.wait_timeout(queue, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            }
            queue.waiting.pop_front();
            waited_since = Some(began);
        }
        queue.is_taken = true;
        drop(queue);
        Some(Inside { kept: Some(guarded(&self.kept)), door: self, waited_since })
    }

    /// The same, without waiting for anybody.
    pub fn enter_now(&self) -> Option<Inside<'_, T>> {
        let mut queue = match self.queue.try_lock() {
            Ok(queue) => queue,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if queue.is_taken {
            return None;
        }
        queue.is_taken = true;
        drop(queue);
        Some(Inside { kept: Some(guarded(&self.kept)), door: self, waited_since: None })
    }

    /// Nobody answers: who waits for his turn to ask waits in vain.
    pub fn silence(&self) {
        guarded(&self.queue).silences += 1;
        self.moved.notify_all();
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.kept.as_ref().expect("it is kept until the drop")
    }
}

impl<T> DerefMut for Inside<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.kept.as_mut().expect("it is kept until the drop")
    }
}

impl<T> Drop for Inside<'_, T> {
    fn drop(&mut self) {
        self.kept = None;
        let mut queue = guarded(&self.door.queue);
        queue.is_taken = false;
        if !queue.waiting.is_empty() {
            self.door.moved.notify_all();
        }
    }
}

/// Who panics inside leaves nothing half done: transactions are rolled back.
fn guarded<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_waits_leaves_with_his_halt_and_holds_up_nobody() {
        let door = Door::new(1);
        let inside = door.enter().unwrap();
        assert!(Halt::within(Duration::ZERO).over(|| door.enter()).is_none());
        assert!(door.enter_now().is_none());
        drop(inside);
        assert_eq!(*door.enter().unwrap(), 1);
    }

    #[test]
    fn who_waits_in_vain_hears_of_it() {
        let door = Door::new(());
        let inside = door.enter().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| door.enter().is_none());
            while guarded(&door.queue).waiting.is_empty() {
                thread::yield_now();
            }
            door.silence();
            assert!(waiting.join().unwrap());
        });
        drop(inside);
    }

    #[test]
    fn who_was_inside_stands_behind_who_waits() {
        let door = Door::new(Vec::new());
        thread::scope(|scope| {
            let inside = door.enter().unwrap();
            scope.spawn(|| door.enter().unwrap().push("waited"));
            while guarded(&door.queue).waiting.is_empty() {
                thread::yield_now();
            }
            drop(inside);
            door.enter().unwrap().push("came again");
        });
        assert_eq!(*door.enter().unwrap(), ["waited", "came again"]);
    }
}
