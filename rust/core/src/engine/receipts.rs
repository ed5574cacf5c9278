//! What follows from the store's answers.
//! Invariant: every answer is for one change, and tells what became of it.

use std::sync::Arc;

use uuid::Uuid;

use crate::engine::drive::Follows;
use crate::engine::{Effects, Engine, FireCounts, Job, Note, REFUSAL_TOLD_EVERY, Rearm, Then};
use crate::port::{Admitted, Receipt};
use crate::time::{Mono, Now};

impl Engine {
    pub(super) fn committed(&mut self, then: Then, receipt: Receipt, now: Now, out: &mut Effects) {
        let number = match &receipt {
            Receipt::Run(number) | Receipt::Cancelled { number, .. } => *number,
            // Of an end elsewhere this is the news.
            Receipt::Tick { fates, .. } => fates.iter().filter_map(number_of).max(),
            _ => None,
        };
        out.ends = out.ends.max(number);
        if let Then::Recorded { run, life, task, attempt, executor } = then {
            // Whatever became of it: who takes it finds out whether it may begin, and gives its permit back if not.
            let task = u32::try_from(task).expect("tasks are few");
            out.recorded.push((executor, Job { run, task, attempt, life, callback_only: false }));
        }
        if let Receipt::Cancelled { children, .. } = &receipt {
            // Those that others have stand in the store.
            out.tells = true;
            children.iter().for_each(|&child| self.cancel(child, now, out));
        }
        match (then, receipt) {
            (Then::Begun, _) => self.begun_unkept -= 1,
            (Then::Seated { job, executor, number }, receipt) => {
                self.seated(job, executor, number, receipt, now, out);
            }
            (then, Receipt::Refused(why)) => self.refused(then, &why, now, out),
            (Then::Start(ids), Receipt::Start(admitted)) => {
                tell_kept(&ids, &admitted, out);
                self.meter.fired(&"".into()).fires += ids.len() as u64;
                self.begin_all(None, ids, admitted, now, out);
            }
            (Then::Offered(ids), Receipt::Start(admitted)) => {
                tell_kept(&ids, &admitted, out);
                self.count_offered(&admitted);
                out.tells = true;
            }
            (Then::Start(ids) | Then::Offered(ids), _) => {
                out.is_buried = true;
                let why = "was not started: the store takes this runner for dead";
                ids.into_iter().for_each(|id| self.lose(id, why, now, out));
            }
            (
                Then::Tick { place, fires, passes, runs, at, disables, is_told },
                Receipt::Tick { fates: admitted, cursor, opened },
            ) => {
                let fired = admitted.iter().any(Admitted::is_kept);
                let unkeyed = admitted.iter().find_map(Admitted::unkeyed).filter(|_| is_told);
                let unkeyed = unkeyed.and_then(|why| Some(self.declared_in(place)?.unkeyed(why)));
                // Then the store has kept nothing of it, and the end is told again.
                let is_told = is_told && unkeyed.is_none();
                out.logs.extend(unkeyed);
                if is_told {
                    *self.meter.fired(&self.trigger_in(place)).ends.get_or_insert_default() += 1;
                }
                self.seen(place, &admitted);
                if passes && admitted.iter().any(|fate| matches!(fate, Admitted::Overlaps { .. })) {
                    self.warn_of_loss(&self.trigger_in(place), out);
                }
                if self.tells_debug && fired {
                    let started = runs.iter().zip(&admitted);
                    let started = started.filter(|(_, fate)| fate.is_kept());
                    let trigger = self.trigger_in(place);
                    let note = |(&run, _)| Note::TriggerFired { trigger: Arc::clone(&trigger), run };
                    out.logs.extend(started.map(note));
                }
                let started = admitted.iter().filter(|fate| fate.is_kept()).count() as u64;
                let is_cut = admitted.iter().any(Admitted::is_put_off);
                let is_error = admitted.iter().any(|fate| matches!(fate, Admitted::Unkeyed(_)));
                self.tell_judged(place, fires, started, is_error, out);
                self.wait_for_opened(runs.first().copied(), opened);
                self.begin_all(Some(place), runs, admitted, now, out);
                out.rearm.push(Rearm {
                    place,
                    row: None,
                    cursor,
                    is_cut,
                    fired_at: fired.then_some(at),
                    disables,
                    is_told,
                    ..Rearm::default()
                });
            }
            (Then::Tick { place, fires, runs, .. }, Receipt::Overtaken { cursor, cursor_set }) => {
                self.tell_judged(place, fires, 0, false, out);
                let trigger = self.trigger_in(place);
                let is_told = self.declared_in(place).is_some_and(|trigger| trigger.row.on_run.is_some());
                out.logs.push(match is_told {
                    true => Note::CallOvertaken { trigger },
                    false => Note::TickOvertaken { trigger },
                });
                runs.into_iter().for_each(|id| self.drop_run(id, now, out));
                out.rearm.push(Rearm { place, set: Some((cursor, cursor_set)), ..Rearm::default() });
            }
            (Then::Tick { place, fires, runs, .. }, Receipt::ToldBefore) => {
                self.tell_judged(place, fires, 0, false, out);
                runs.into_iter().for_each(|id| self.drop_run(id, now, out));
                out.rearm.push(Rearm { place, ..Rearm::default() });
            }
            (Then::Tick { place, fires, runs, .. }, _) => {
                self.tell_judged(place, fires, 0, false, out);
                out.logs.push(Note::TickDiscarded { trigger: self.trigger_in(place) });
                runs.into_iter().for_each(|id| self.drop_run(id, now, out));
                if self.is_newest(place) && !self.by_calendar.contains(&place) {
                    self.park(place);
                }
                out.rearm.push(Rearm { place, elsewhere: true, ..Rearm::default() });
            }
            (Then::Progress { run, life, end, .. }, _) if !self.is_life(run, life) => {
                // It was opened again elsewhere, and came back, before this was heard of; who waits for that end still gets it.
                if let (Some(end), Some(run)) = (end, self.runs.get(&run)) {
                    out.ended.push((run.id, run.created_at, end));
                }
            }
            (Then::Recorded { run, life, .. } | Then::Checkpointed { run, life, .. }, _)
                if !self.is_life(run, life) => {}
            (
                Then::Progress { run, .. } | Then::Recorded { run, .. } | Then::Checkpointed { run, .. },
                Receipt::Fenced,
            ) => {
                out.logs.push(Note::RunTaken { run, workflow: self.workflow_of(run) });
                out.lost.push((run, "was taken over by another runner".to_owned()));
                self.drop_run(run, now, out);
            }
            (Then::Progress { run, jobs, looks, delayed, end, .. }, _) => {
                self.kept(run, Follows { jobs, looks, delayed, end }, now, out);
            }
            (Then::Recorded { run, task, .. }, _) => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.recorded(task);
                }
            }
            (Then::Seats, Receipt::Seats(pass)) => self.passed(pass, None, out),
            (Then::Limits, Receipt::Limits(others)) => {
                out.logs.extend(others.into_iter().map(Note::LimitDiffers))
            }
            (Then::Seats | Then::Limits, _) => {}
            (Then::Checkpointed { run, task, number, .. }, _) => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.checkpoint_kept(task, number);
                }
            }
            (Then::Forgotten { run, created_at, end }, _) => {
                out.ended.push((run, created_at, end));
                self.drop_run(run, now, out);
            }
            (Then::Declared { place, vacancies, news }, Receipt::Declared(mut state)) => {
                // Whoever polled it in between may have used the key.
                self.stuck.remove(&place);
                self.wait_for_others(state.row, std::mem::take(&mut state.unfinished));
                let is_ours = state.owner == Some(self.epoch);
                let is_outdated = is_ours && state.is_outdated;
                out.tells |= state.is_awaited;
                if !is_ours && self.is_newest(place) {
                    self.park(place);
                    // The answer may be older than the vacancy, which found nothing parked.
                    if vacancies != self.vacancies {
                        self.ask_for(place, now, out);
                    }
                } else if !self.giving_way.contains(&place) {
                    self.parked.remove(&place);
                }
                // While it is let go, this answer is older than that.
                let elsewhere = !is_ours || is_outdated || self.giving_way.contains(&place);
                let is_stale = news != self.news;
                let rearm = Rearm { place, row: Some(state), elsewhere, is_stale, ..Rearm::default() };
                // Not before the gate knows the runs that a dead owner left unfinished.
                match self.is_recovered {
                    true => out.rearm.push(rearm),
                    false => self.undeclared.push((news, rearm)),
                }
                if is_outdated {
                    self.give_way(place, out);
                }
            }
            (Then::Declared { .. }, _) => out.is_buried = true,
            (Then::Moment { row, number }, receipt) => self.moment_answered(row, number, receipt, now, out),
            (Then::Decided(runs), Receipt::Tick { fates, opened, .. }) => {
                self.wait_for_opened(runs.first().copied(), opened);
                self.begin_all(None, runs, fates, now, out);
            }
            (Then::Decided(runs), _) => runs.into_iter().for_each(|id| self.drop_run(id, now, out)),
            (Then::LetGo(place), _) => {
                if let Some(place) = place {
                    self.giving_way.remove(&place);
                }
                out.tells = true;
            }
            (Then::Released(hands), _) => hands.into_iter().for_each(|hand| self.left_to_others(hand, out)),
            // A body has ended that was given up, it may be: then its run's seat is free.
            (Then::Nothing, Receipt::Noted) => out.is_open = true,
            (Then::Nothing, _) => {}
        }
    }

    /// What the store will never take is given up alone, and said.
    pub(super) fn refused(&mut self, then: Then, why: &str, now: Now, out: &mut Effects) {
        let words = why.to_owned();
        match then {
            Then::Start(ids) | Then::Offered(ids) => {
                let why = format!("was not started: {why}");
                ids.into_iter().for_each(|id| self.lose(id, &why, now, out));
            }
            Then::Tick { place, fires, runs, .. } => {
                self.tell_judged(place, fires, 0, true, out);
                if let Some(times) = self.refused_times(Some(place), now) {
                    out.logs.push(Note::TickRefused { trigger: self.trigger_in(place), why: words, times });
                }
                self.counts.errors += 1;
                self.meter.fired(&self.trigger_in(place)).errors += 1;
                runs.into_iter().for_each(|id| self.drop_run(id, now, out));
                out.rearm.push(Rearm { place, ..Rearm::default() });
            }
            Then::Progress { run, life, .. }
            | Then::Recorded { run, life, .. }
            | Then::Checkpointed { run, life, .. }
                if !self.is_life(run, life) => {}
            Then::Progress { run, .. }
            | Then::Recorded { run, .. }
            | Then::Checkpointed { run, .. }
            | Then::Forgotten { run, .. } => self.progress_refused(run, words, now, out),
            Then::Declared { place, .. } => {
                out.logs.push(Note::DeclarationRefused { trigger: self.trigger_in(place), why: words });
            }
            Then::Moment { row, .. } => {
                self.history_refused(words, now, out);
                self.moment_is_others(row, now);
            }
            Then::Decided(runs) => {
                let why = format!("was not started: {why}");
                runs.into_iter().for_each(|id| self.lose(id, &why, now, out));
            }
            Then::Seated { .. } => unreachable!("it is answered apart"),
            Then::Nothing | Then::Seats | Then::Limits | Then::Begun | Then::LetGo(_) | Then::Released(_) => {
                self.history_refused(words, now, out);
            }
        }
    }

    fn history_refused(&mut self, why: String, now: Now, out: &mut Effects) {
        out.logs.extend(self.refused_times(None, now).map(|_| Note::HistoryRefused { why }));
    }

    /// How many ticks of a place, or how much of what nobody asked for, was refused since the log heard of that; none while it is not to.
    fn refused_times(&mut self, place: Option<u32>, now: Now) -> Option<u64> {
        let (told, times) = self.refusals.entry(place).or_insert((Mono(0), 0));
        *times += 1;
        if *told > now.mono {
            return None;
        }
        *told = now.mono.after(REFUSAL_TOLD_EVERY);
        Some(std::mem::take(times))
    }

    /// Counts what became of runs that this owner has asked for, and that others drive.
    fn count_offered(&mut self, admitted: &[Admitted]) {
        let mut counts = FireCounts { fires: admitted.len() as u64, ..FireCounts::default() };
        for fate in admitted {
            match fate {
                fate if fate.is_kept() => self.counts.started += 1,
                Admitted::Limited(dropped) => {
                    counts.dropped += 1;
                    self.meter.limited(dropped.rule);
                }
                Admitted::Unkeyed(_) => counts.errors += 1,
                _ => counts.deduplicated += 1,
            }
        }
        self.counts.dropped += counts.dropped;
        self.counts.errors += counts.errors;
        self.counts.deduplicated += counts.deduplicated;
        let known = self.meter.fired(&"".into());
        known.fires += counts.fires;
        known.dropped += counts.dropped;
        known.errors += counts.errors;
        known.deduplicated += counts.deduplicated;
    }

    fn tell_judged(&self, place: u32, fires: u64, started: u64, is_error: bool, out: &mut Effects) {
        if self.tells_debug && fires > 0 {
            out.logs.push(Note::FiresJudged { trigger: self.trigger_in(place), fires, started, is_error });
        }
    }

    pub(super) fn trigger_in(&self, place: u32) -> Arc<str> {
        self.declared_in(place).map_or_else(|| "".into(), |trigger| Arc::clone(&trigger.row.name))
    }
}

/// Who asked for runs hears which are kept, and which stand for others.
fn tell_kept(ids: &[Uuid], admitted: &[Admitted], out: &mut Effects) {
    for (&id, fate) in ids.iter().zip(admitted) {
        match fate {
            Admitted::DuplicateKey { of: Some(of) } => out.keyed.push((id, *of)),
            Admitted::Limited(dropped) => out.dropped.push((id, (**dropped).clone())),
            Admitted::Unkeyed(why) => out.unkeyed.push((id, why.to_string())),
            _ => out.started.push(id),
        }
    }
}

/// The number of the end that stood in a fire's way.
fn number_of(fate: &Admitted) -> Option<i64> {
    match fate {
        Admitted::Ended { number, .. } => Some(*number),
        _ => None,
    }
}
