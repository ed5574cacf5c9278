//! Applies a batch of changes inside one transaction. Invariant: a change is written whole or, if its epoch does not
//! hold what it writes to, not at all.

use std::collections::HashMap;

use crate::postgres::db::Db;
use cloaca_core::fate::{self, Judge, Next};
use cloaca_core::fault_point::{Step, around};
use cloaca_core::key::{Epoch, RunRow, ScheduleKey};
use cloaca_core::port::{
    Admitted, Change, CronMove, Fault, Moment, NewRun, Outcome, Playing, Receipt, Room, RunChange, STAND_IN,
    Stored, TickChange, TriggerRow,
};
use cloaca_core::time::Wall;

use crate::postgres::fault::Failure;
use crate::postgres::limits::{self, Terms};
use crate::postgres::plan::Stretch;
use crate::postgres::run::{Fires, line};
use crate::postgres::schedule::{Advanced, ByHand, Declaring, twin};
use crate::postgres::{audit, bearer::Bearer, end, history, logged, owner, rehearse, run, schedule, seat};

/// A receipt for each change, in order.
pub fn apply(db: &Db, changes: &[Change]) -> Result<Vec<Receipt>, Failure> {
    let mut batch =
        Batch { db, checked: HashMap::new(), declaring: None, ends: None, terms: Terms::default() };
    let mut receipts: Vec<Option<Receipt>> = vec![None; changes.len()];
    let mut from = 0;
    while from < changes.len() {
        let mut stretch = Stretch::default();
        let taken =
            changes[from..].iter().zip(from..).take_while(|(change, place)| stretch.takes(*place, change));
        let until = from + taken.count();
        if stretch.is_worth_while() {
            let Batch { checked, terms, .. } = &mut batch;
            stretch.start(db, terms, |epoch| is_living(db, checked, epoch), changes, &mut receipts)?;
            around(Step::Progress, || stretch.go_on(db, &mut receipts))?;
        }
        // What was left over, and what stands alone.
        let end = (until + 1).min(changes.len());
        for (receipt, change) in receipts[from..end].iter_mut().zip(&changes[from..end]) {
            if receipt.is_none() {
                *receipt = Some(batch.apply(change)?);
            }
        }
        from = end;
    }
    Ok(receipts.into_iter().flatten().collect())
}

/// Plays changes one after another as `work` hands them over, for who undoes them all; see [`cloaca_core::port::Store::rehearse`].
pub fn rehearse(db: &Db, work: &mut Playing<'_>, fault: impl Fn(Failure) -> Fault) -> Stored<()> {
    let checked = HashMap::from([(STAND_IN, true)]);
    let mut batch = Batch { db, checked, declaring: None, ends: None, terms: Terms::default() };
    work(&mut |change| batch.play(change).map_err(&fault))
}

struct Batch<'c> {
    db: &'c Db,
    /// The owners that were looked up, and whether they live; they stay as they are within a transaction.
    checked: HashMap<Epoch, bool>,
    declaring: Option<Declaring<'c>>,
    /// The number of the ends in this transaction, once there is one that counts.
    ends: Option<i64>,
    /// What limits are in force.
    terms: Terms,
}

impl<'c> Batch<'c> {
    fn apply(&mut self, change: &Change) -> Result<Receipt, Failure> {
        match change {
            Change::Tick(tick) => self.tick(tick),
            Change::Start { epoch, runs, cron } => self.start(*epoch, runs, *cron),
            Change::Offer { epoch, runs } => self.offer(*epoch, runs),
            Change::Release { epoch, runs } => self.release(*epoch, runs),
            Change::Run(change) => self.run(change),
            Change::Declare { epoch, trigger, at } => self.declare(*epoch, trigger, *at),
            Change::LetGo { epoch, trigger, digest, at } => {
                schedule::let_go(self.db, *epoch, trigger, *digest, *at)?;
                Ok(Receipt::LetGo)
            }
            Change::TakeMoment { epoch, row, seen, moment } => self.take_moment(*epoch, *row, *seen, *moment),
            Change::LeaveMoment { epoch, row } => {
                schedule::pass_moment(self.db, *row, Some(*epoch), None)?;
                Ok(Receipt::LetGo)
            }
            Change::Overdue(body) => Ok(match run::overdue::put(self.db, body)? {
                true => Receipt::Noted,
                false => Receipt::Fenced,
            }),
            Change::Timed { run, epoch, left_us, at } => {
                run::timed(self.db, *run, *epoch, *left_us, *at)?;
                Ok(Receipt::Noted)
            }
            Change::Returned(body) => {
                run::overdue::ended(self.db, body)?;
                limits::over_if_final(self.db, body.run)?;
                Ok(Receipt::Noted)
            }
            Change::Ask(ask) => Ok(match seat::ask(self.db, ask)? {
                Some(pass) => Receipt::Seats(pass),
                None => Receipt::Fenced,
            }),
            Change::Unseat { seat, epoch, at } => {
                Ok(Receipt::Seats(seat::unseat(self.db, seat, *epoch, *at)?))
            }
            Change::LookForSeats { epoch, limits, at } => {
                Ok(Receipt::Seats(seat::look(self.db, *epoch, limits, *at)?))
            }
            Change::Pause(pause) => {
                seat::pause_at_least(self.db, pause)?;
                Ok(Receipt::Noted)
            }
            Change::DeclareLimits { epoch, limits } => Ok(match self.is_living(*epoch)? {
                true => Receipt::Limits(seat::declare(self.db, limits)?),
                false => Receipt::Fenced,
            }),
            Change::Logged(logged) => {
                logged::append(self.db, logged)?;
                Ok(Receipt::Logged)
            }
            Change::History(stretches) => {
                around(Step::History, || history::append(self.db, stretches))?;
                for stretch in stretches {
                    schedule::polled(self.db, stretch.schedule, stretch.last_at)?;
                }
                Ok(Receipt::History)
            }
        }
    }

    fn play(&mut self, change: &Change) -> Result<Receipt, Failure> {
        rehearse::vacate(self.db, change)?;
        let receipt = self.apply(change)?;
        rehearse::begun(self.db, change, receipt)
    }

    fn declare(&mut self, epoch: Epoch, trigger: &TriggerRow, at: Wall) -> Result<Receipt, Failure> {
        if !self.is_living(epoch)? {
            return Ok(Receipt::Fenced);
        }
        let Self { db, checked, declaring, .. } = self;
        let declaring = match declaring {
            Some(declaring) => declaring,
            None => declaring.insert(Declaring::new(db)?),
        };
        let state = around(Step::Declare, || {
            declaring.declare(epoch, trigger, at, |owner| is_living(db, checked, owner))
        })?;
        Ok(Receipt::Declared(state))
    }

    fn take_moment(
        &mut self,
        epoch: Epoch,
        row: ScheduleKey,
        seen: Wall,
        moment: Wall,
    ) -> Result<Receipt, Failure> {
        if !self.is_living(epoch)? {
            return Ok(Receipt::Fenced);
        }
        let (mut state, workflow) = match schedule::moment(self.db, row, seen, moment)? {
            (Moment::Yours(state), workflow) => (state, workflow),
            (other, _) => return Ok(Receipt::Moment(other)),
        };
        if let Some(owner) = state.owner.filter(|&owner| owner != epoch)
            && self.is_living(owner)?
        {
            return Ok(Receipt::Moment(Moment::Others));
        }
        if let Some(twin) = twin::polled(self.db, row)? {
            if let Some(owner) = twin.owner.filter(|&owner| owner != epoch)
                && self.is_living(owner)?
            {
                return Ok(Receipt::Moment(Moment::Others));
            }
            if let Some((cursor, last_fired_at)) = twin::follow(self.db, row, twin)? {
                (state.cursor, state.last_fired_at) = (cursor, last_fired_at);
            }
        }
        schedule::pass_moment(self.db, row, state.owner, Some(epoch))?;
        state.owner = Some(epoch);
        // Also its own: one that was claimed for it and not told it yet is no less unfinished.
        let unfinished = line::others(self.db, epoch)?.remove(&row).unwrap_or_default();
        let unfinished = unfinished.into_iter().filter(|run| run.may_go_on(&workflow));
        state.unfinished = unfinished.map(|run| run.id).collect();
        Ok(Receipt::Moment(Moment::Yours(state)))
    }

    fn tick(&mut self, tick: &TickChange) -> Result<Receipt, Failure> {
        // A runner that was buried by mistake must not start what nobody would claim.
        if !self.is_living(tick.epoch)? {
            return Ok(Receipt::Fenced);
        }
        if let Some(told) = tick.told
            && !end::is_untold(self.db, tick.schedule, told.end)?
        {
            return match schedule::moved_on(self.db, tick)? {
                Some(by_hand) => self.overtaken(tick, by_hand),
                None => Ok(Receipt::ToldBefore),
            };
        }
        let has_opened = match around(Step::Cursor, || schedule::advance(self.db, tick))? {
            Advanced::Kept { has_opened } => has_opened,
            Advanced::Lost => return Ok(Receipt::Fenced),
            Advanced::Overtaken(by_hand) => return self.overtaken(tick, by_hand),
        };
        let opened = line::opened(self.db, tick, has_opened)?;
        let room = line::room(self.db, tick, &opened)?;
        let fates = match tick.told.is_some() && self.is_limited(&tick.fires)? {
            // What cannot be counted would use up the end: it is told again, and nothing is kept twice.
            true => self.together(|batch| batch.fates(tick, room), |fate| fate.unkeyed().is_some())?,
            false => self.fates(tick, room)?,
        };
        let told = tick.told.filter(|_| fates.iter().all(|fate| fate.unkeyed().is_none()));
        let cursor = fate::cursor_of(tick, &fates);
        if let Some(cursor) = cursor.filter(|_| tick.has_row()) {
            schedule::move_cursor(self.db, tick, cursor)?;
        }
        let has_fired = fates.iter().any(Admitted::is_kept);
        if has_fired {
            schedule::fired(self.db, tick.schedule, tick.at)?;
        }
        if let Some(told) = told {
            around(Step::EndTold, || end::heard(self.db, told, fates.iter().filter_map(Admitted::row)))?;
        }
        schedule::disable(self.db, tick)?;
        if let Some(step) = &tick.cron {
            // A moment of which nothing came has not run.
            let last_at = step.last_at.filter(|_| has_fired);
            schedule::move_cron(self.db, &CronMove { last_at, ..*step })?;
            schedule::pass_moment(self.db, step.row, Some(tick.epoch), None)?;
        }
        self.remember(tick, &fates)?;
        let cursor = cursor.map(str::to_owned);
        Ok(Receipt::Tick { fates, cursor, opened })
    }

    /// What becomes of the fires of a tick.
    fn fates(&mut self, tick: &TickChange, room: Option<Room>) -> Result<Vec<Admitted>, Failure> {
        let mut judge = Judge::new(room);
        let mut fates = Vec::with_capacity(tick.fires.len());
        let mut moment = Bearer::default();
        let mut together = Fires::of(self.db, &tick.fires, tick.at)?;
        for (place, fire) in tick.fires.iter().enumerate() {
            let bearing = moment.bearing(fire);
            let fate = match (moment.refuses(fire), &mut together) {
                (Some(fate), _) => fate,
                (None, Some(fires)) => self.judged_of(fires, &judge, tick, (place, fire), &mut fates)?,
                (None, None) => self.judged(&judge, tick, bearing.as_ref().unwrap_or(fire))?,
            };
            moment.note(self.db, bearing.as_ref().unwrap_or(fire), &fate)?;
            judge.note(fire, &fate);
            fates.push(fate);
        }
        if let Some(mut fires) = together {
            fires.write(self.db, tick.epoch, &mut fates)?;
        }
        Ok(fates)
    }

    /// Nothing of a tick counts, since somebody has moved its trigger on.
    fn overtaken(&self, tick: &TickChange, by_hand: ByHand) -> Result<Receipt, Failure> {
        let is_told = end::is_told(self.db, tick.schedule)?;
        history::append(self.db, &fate::overtaken(tick, is_told))?;
        Ok(Receipt::Overtaken { cursor: by_hand.cursor, cursor_set: by_hand.cursor_set })
    }

    fn judged(&mut self, judge: &Judge, tick: &TickChange, fire: &NewRun) -> Result<Admitted, Failure> {
        match judge.next(fire.cursor.is_some()) {
            Next::Try => self.admit(Some(tick.epoch), fire, tick.at),
            Next::HoldBack => Ok(Admitted::HeldBack),
            Next::Full(room) => {
                let taken = run::taken(self.db, fire, tick.at)?;
                Ok(taken.unwrap_or(Admitted::Overlaps { with: room.with.unwrap_or(fire.id) }))
            }
        }
    }

    /// The same of one of many.
    fn judged_of<'f>(
        &mut self,
        fires: &mut Fires<'f>,
        judge: &Judge,
        tick: &TickChange,
        (place, fire): (usize, &'f NewRun),
        fates: &mut [Admitted],
    ) -> Result<Admitted, Failure> {
        match judge.next(fire.cursor.is_some()) {
            Next::Try => fires.admit(self.db, &mut self.terms, tick.epoch, (place, fire), fates),
            Next::HoldBack => Ok(Admitted::HeldBack),
            Next::Full(room) => {
                Ok(fires.taken(fire).unwrap_or(Admitted::Overlaps { with: room.with.unwrap_or(fire.id) }))
            }
        }
    }

    /// Keeps a tick's history, with what only the fates of its fires tell.
    fn remember(&self, tick: &TickChange, fates: &[Admitted]) -> Result<(), Failure> {
        let Some((last, before)) = tick.history.split_last() else { return Ok(()) };
        history::append(self.db, before)?;
        if last.outcome != Outcome::Fire {
            return history::append(self.db, std::slice::from_ref(last));
        }
        let (outcome, reason) = fate::story(tick, fates);
        history::append(
            self.db,
            &[cloaca_core::port::Stretch { outcome, reason: reason.into(), ..last.clone() }],
        )
    }

    fn start(&mut self, epoch: Epoch, runs: &[NewRun], cron: Option<CronMove>) -> Result<Receipt, Failure> {
        if !self.is_living(epoch)? {
            return Ok(Receipt::Fenced);
        }
        let admitted = self.all_or_none(runs, |batch| {
            let mut moment = Bearer::default();
            let mut admitted = Vec::with_capacity(runs.len());
            for new in runs {
                let bearing = moment.bearing(new);
                let new = bearing.as_ref().unwrap_or(new);
                let fate = match moment.refuses(new) {
                    Some(fate) => fate,
                    None => batch.admit(Some(epoch), new, new.created_at)?,
                };
                moment.note(batch.db, new, &fate)?;
                if fate.is_kept() {
                    audit::note(batch.db, "submit", &new.id.to_string())?;
                }
                admitted.push(fate);
            }
            Ok(admitted)
        })?;
        if let Some(step) = cron {
            schedule::move_cron(self.db, &step)?;
        }
        Ok(Receipt::Start(admitted))
    }

    fn offer(&mut self, epoch: Epoch, runs: &[NewRun]) -> Result<Receipt, Failure> {
        if !self.is_living(epoch)? {
            return Ok(Receipt::Fenced);
        }
        let admitted = self.all_or_none(runs, |batch| {
            runs.iter().map(|new| batch.admit(None, new, new.created_at)).collect()
        })?;
        Ok(Receipt::Start(admitted))
    }

    /// Of runs that are asked for together none is kept if limits refuse one of them, and each is told why. Moments of a cron stand alone.
    fn all_or_none(
        &mut self,
        runs: &[NewRun],
        admit: impl FnOnce(&mut Self) -> Result<Vec<Admitted>, Failure>,
    ) -> Result<Vec<Admitted>, Failure> {
        let is_apart = runs.len() < 2 || runs.iter().any(|new| new.schedule.is_some());
        if is_apart || !self.is_limited(runs)? {
            return admit(self);
        }
        self.together(admit, |fate| matches!(fate, Admitted::Limited(_) | Admitted::Unkeyed(_)))
    }

    /// Whether a limit may refuse one of these runs.
    fn is_limited(&mut self, runs: &[NewRun]) -> Result<bool, Failure> {
        Ok(!runs.is_empty() && (self.terms.is_any(self.db)? || runs.iter().any(|new| new.limits.is_some())))
    }

    /// Admits runs of which none is kept if one is refused: then that is the fate of each.
    fn together(
        &mut self,
        admit: impl FnOnce(&mut Self) -> Result<Vec<Admitted>, Failure>,
        is_refusal: fn(&Admitted) -> bool,
    ) -> Result<Vec<Admitted>, Failure> {
        self.db.execute_batch("SAVEPOINT together")?;
        let mut admitted = admit(self)?;
        if let Some(refusal) = admitted.iter().find(|fate| is_refusal(fate)).cloned() {
            self.db.execute_batch("ROLLBACK TO together")?;
            // What was declared by the way is undone, too.
            self.terms = Terms::default();
            admitted.fill(refusal);
        }
        self.db.execute_batch("RELEASE together")?;
        Ok(admitted)
    }

    fn release(&mut self, epoch: Epoch, runs: &[RunRow]) -> Result<Receipt, Failure> {
        around(Step::GiveBack, || run::release(self.db, epoch, runs))?;
        Ok(Receipt::Released)
    }

    fn admit(&mut self, owner: Option<Epoch>, new: &NewRun, at: Wall) -> Result<Admitted, Failure> {
        around(Step::Admit, || run::admit(self.db, &mut self.terms, owner, new, at))
    }

    fn run(&mut self, change: &RunChange) -> Result<Receipt, Failure> {
        let kept = around(Step::Progress, || run::progress(self.db, change, self.ends))?;
        let Some(run::Kept { number, cancelled: children }) = kept else { return Ok(Receipt::Fenced) };
        if self.ends.is_none()
            && let Some(number) = number
        {
            run::count_ends(self.db, number)?;
        }
        self.ends = self.ends.or(number);
        Ok(match children.is_empty() {
            true => Receipt::Run(number),
            false => Receipt::Cancelled { number, children },
        })
    }

    fn is_living(&mut self, epoch: Epoch) -> Result<bool, Failure> {
        is_living(self.db, &mut self.checked, epoch)
    }
}

fn is_living(db: &Db, checked: &mut HashMap<Epoch, bool>, epoch: Epoch) -> Result<bool, Failure> {
    if let Some(&is_living) = checked.get(&epoch) {
        return Ok(is_living);
    }
    let is_living = owner::is_living(db, epoch)?;
    checked.insert(epoch, is_living);
    Ok(is_living)
}
