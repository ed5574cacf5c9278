//! Numbered places at which a test build dies on demand, so that a test can kill it at each of them: a *fault point*, as the `fail`
//! crate has them. Without the feature `fault-points` nothing is left of them.

macro_rules! points {
    ($($(#[doc = $text:literal])+ $name:ident,)+) => {
        /// A step after which the program may die. Each is two fault points, one before it and one after it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step { $($(#[doc = $text])+ $name,)+ }

        /// The steps' names, in the order of their numbers; none in a build without them.
        pub const NAMES: &[&str] =
            if cfg!(feature = "fault-points") { &[$(stringify!($name)),+] } else { &[] };
    };
}

points! {
    /// Making or upgrading the tables.
    Migrate,
    /// A runner gets its epoch; like all that follow up to `Leave`, the commit of a transaction whose statements are done.
    Join,
    /// Owners that died are taken off the list.
    Bury,
    /// A batch of changes.
    Batch,
    /// Unfinished runs are taken over.
    Claim,
    /// A run's end is asked for.
    RequestCancel,
    /// A final run is opened again.
    Reopen,
    /// A cron schedule is stored.
    PutCron,
    /// A cron schedule is changed.
    UpdateCron,
    /// A schedule is deleted.
    DeleteCron,
    /// A schedule is switched on or off.
    SetEnabled,
    /// A cursor is set.
    SetCursor,
    /// Old rows are deleted.
    Prune,
    /// A runner notes that it lives.
    Seen,
    /// What is to be hidden is kept.
    Redact,
    /// Ends are handed out that callbacks are to be told of.
    TakeEnds,
    /// What came of that is kept.
    EndTold,
    /// A runner gives its epoch back.
    Leave,
    /// Its lock is released.
    Release,
    /// Within a batch: a tick moves its trigger's cursor.
    Cursor,
    /// Within a batch: a fire passes the gate and becomes a run.
    Admit,
    /// Within a batch: runs are left to others.
    GiveBack,
    /// Within a batch: a run makes a step.
    Progress,
    /// Within a batch: a trigger is declared.
    Declare,
    /// Within a batch: the history grows.
    History,
    /// The engine learns that a batch is kept.
    Receipts,
    /// A worker takes an attempt.
    Attempt,
    /// The end of an attempt reaches the engine.
    AttemptEnd,
    /// An outcome has been told by its callback.
    Settle,
}

/// Does `work`, which is `step`. Dies before or after it if the environment variable `CLOACA_FAULT` says so: as `N`, or `N/P` for the
/// P-th time that the point is passed. Point `2 * step` is the one before, `2 * step + 1` the one after.
#[cfg(feature = "fault-points")]
pub fn around<T>(step: Step, work: impl FnOnce() -> T) -> T {
    armed::pass(2 * step as u32);
    let done = work();
    armed::pass(2 * step as u32 + 1);
    done
}

/// Does `work`.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn around<T>(_: Step, work: impl FnOnce() -> T) -> T {
    work()
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Charge {
        point: u32,
        left: AtomicU32,
    }

    static CHARGE: LazyLock<Option<Charge>> = LazyLock::new(|| {
        let text = std::env::var("CLOACA_FAULT").ok()?;
        let (point, passage) = text.split_once('/').unwrap_or((&text, "1"));
        let number = |part: &str| part.parse::<u32>().expect("CLOACA_FAULT is a number, or two with a slash");
        Some(Charge { point: number(point), left: AtomicU32::new(number(passage)) })
    });

    pub fn pass(point: u32) {
        if let Some(charge) = &*CHARGE
            && charge.point == point
            && charge.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            // No destructor runs, no buffer is flushed: what SIGKILL does, at a chosen place.
            std::process::abort();
        }
    }
}
