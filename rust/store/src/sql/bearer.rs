//! Which of the runs of one moment bears it. Invariant: a moment is run once, and one of its runs that is refused takes nothing away from the others.

use cloaca_core::port::{Admitted, NewRun};
use cloaca_core::time::Wall;
use uuid::Uuid;

use super::db::Db;
use super::fault::Failure;
use super::run;

/// Of several runs of one moment the first bears its scheduled time. Where that is used the moment has been run, and the others with it. One that is refused
/// for anything else, by its run key or a limit, leaves it to the next.
#[derive(Default)]
pub struct Bearer {
    /// The run that used it, where still kept.
    used_by: Option<Option<Uuid>>,
    /// The moment that the one before was to bear.
    left: Option<Wall>,
}

impl Bearer {
    /// What becomes of a run whose moment has been run.
    pub fn refuses(&self, new: &NewRun) -> Option<Admitted> {
        self.used_by.filter(|_| is_of_moment(new)).map(|of| Admitted::DuplicateKey { of })
    }

    /// The same run with the moment that it is to bear, if that is left to it.
    pub fn bearing(&self, new: &NewRun) -> Option<NewRun> {
        let left = self.left.filter(|_| is_of_moment(new));
        left.map(|moment| NewRun { scheduled_at: Some(moment), ..new.clone() })
    }

    /// Notes what became of one.
    pub fn note(&mut self, db: &Db, new: &NewRun, fate: &Admitted) -> Result<(), Failure> {
        if new.scheduled_at.is_none() {
            return Ok(());
        }
        (self.used_by, self.left) = match fate {
            Admitted::DuplicateKey { .. } => match run::moment_holder(db, new)? {
                Some(of) => (Some(Some(of)), None),
                None => (None, new.scheduled_at),
            },
            fate if fate.is_kept() => (None, None),
            _ => (None, new.scheduled_at),
        };
        Ok(())
    }
}

/// Whether a run is of a moment that another one bears.
fn is_of_moment(new: &NewRun) -> bool {
    new.schedule.is_some() && new.scheduled_at.is_none()
}
