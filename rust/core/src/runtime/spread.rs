//! Hands triggers from runner to runner, so that each is polled by whose it is by right: see [`crate::spread`].
//! Invariant: whoever is to have a trigger asks for it, and so lives; whoever has it goes on until it is asked.

use std::time::{Duration, Instant};

use crate::engine::Event;
use crate::key::Epoch;
use crate::port::{Company, Fault, Wished};
use crate::runtime::Shared;
use crate::runtime::park::lock;
use crate::spread::{of_others, wishes};
use crate::time::Mono;

/// Who comes and goes at once moves nothing: what is whose is looked at so long after the last change, but no later than so long after the
/// first.
const SETTLED: Duration = Duration::from_millis(500);
const SETTLED_MAX: Duration = Duration::from_secs(3);

/// It is looked at again so often, for what no change tells of, but for no more than this share of the time.
const AGAIN_EVERY: Duration = Duration::from_secs(5);
const SHARE_MAX: u32 = 50;

/// What is wanted is looked for so often where no news tells of it.
const WISHED_EVERY: Duration = Duration::from_secs(1);

/// So many triggers are looked at at once.
const CHUNK: u64 = 1000;

/// So many triggers are given away at once: until the next runner has them nobody polls them, and it may be stopped meanwhile.
const GIVEN_MAX: usize = 500;

/// Between whom triggers were spread last.
pub(super) struct Spreading {
    at_work: Vec<Epoch>,
    /// How many triggers others polled then.
    parked: usize,
    /// When the first change came since.
    changed_at: Option<Mono>,
    due: Mono,
    wished_due: Mono,
}

impl Spreading {
    pub(super) fn new(now: Mono) -> Self {
        Self { at_work: Vec::new(), parked: 0, changed_at: None, due: now.after(SETTLED), wished_due: now }
    }
}

impl Shared {
    /// Asks for triggers that are this runner's by right, takes those that it was given, and lets go of those that are others'.
    pub(super) fn spread(&self, spreading: &mut Spreading, company: &Company, has_news: bool) {
        if company.is_empty() && spreading.at_work.is_empty() {
            return;
        }
        let now = self.now().mono;
        let parked = lock(&self.engine).parked_count();
        let has_changed = company.at_work() != spreading.at_work;
        if has_changed {
            spreading.at_work = company.at_work().to_vec();
            // No hands are changed for this, so there is nothing to wait for.
            self.leave_crons(company);
        }
        if has_changed || parked > spreading.parked {
            let first = *spreading.changed_at.get_or_insert(now);
            spreading.due = now.after(SETTLED).min(first.after(SETTLED_MAX));
        }
        spreading.parked = parked;
        // Who polls nothing and waits for nothing has nothing that others want, and is given nothing.
        let may_move = parked > 0 || lock(&self.polls).poller.places() > 0;
        if may_move
            && (has_news || now >= spreading.wished_due)
            && let Ok(wished) = self.store.wished(self.epoch)
        {
            let is_more = self.heed_wishes(wished);
            spreading.wished_due = if is_more { now } else { now.after(WISHED_EVERY) };
        }
        if now >= spreading.due {
            let began = Instant::now();
            self.leave_crons(company);
            let looked = if parked > 0 { self.want_ours() } else { Ok(()) };
            let pause = AGAIN_EVERY.max(began.elapsed() * SHARE_MAX);
            spreading.changed_at = None;
            spreading.due = now.after(if looked.is_ok() { pause } else { SETTLED });
        }
    }

    /// Says which crons others run by right.
    fn leave_crons(&self, company: &Company) {
        let crons = if company.is_empty() { Ok(Vec::new()) } else { self.store.crons_of_many() };
        if let Ok(crons) = crons {
            self.step(Event::CronsElsewhere(of_others(self.epoch, &crons)));
        }
    }

    /// Reads crons again that others were to run.
    pub(super) fn read_doubtful(&self) {
        let doubtful = std::mem::take(&mut *lock(&self.doubtful));
        for id in doubtful {
            let version = self.schedules_version();
            match self.store.cron(id) {
                Ok(Some(cron)) if self.schedules_version() == version => self.step(Event::Cron(cron)),
                // It is due again in a moment.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// True if anything moves: there may be more.
    fn heed_wishes(&self, Wished { of_us, granted, untaken }: Wished) -> bool {
        let given = lock(&self.engine).polled_here(of_us, GIVEN_MAX.saturating_sub(untaken));
        let is_more = !given.is_empty() || !granted.is_empty();
        if !given.is_empty() {
            self.step(Event::GiveWay(given));
            self.let_go();
        }
        if !granted.is_empty() {
            self.step(Event::Free(granted));
        }
        is_more
    }

    /// Says of which triggers that others poll this runner wants which.
    fn want_ours(&self) -> std::result::Result<(), Fault> {
        let mut after = String::new();
        let mut has_asked = false;
        loop {
            let contested = self.store.contested(self.epoch, &after, CHUNK)?;
            let Some(last) = contested.last() else { break };
            after = last.trigger.to_string();
            let wishes = wishes(self.epoch, &contested);
            if !wishes.is_empty() {
                self.store.want(self.epoch, &wishes)?;
                has_asked = true;
            }
        }
        if has_asked {
            self.store.wake_others(self.epoch);
        }
        Ok(())
    }
}
