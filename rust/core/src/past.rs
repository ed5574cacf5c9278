//! Which moments of a cron are over, on a clock that may be wrong. Pure: reads no clock.
//! Invariants: what was decided is decided, however the clock moves: no moment of a [`Passage`] comes again. And as far as
//! the clock has come in one, nothing is missed: it has come or been passed over by then, or lies before the declaration.
//!
//! One last moment would not do. A clock that was ahead leaves one that lies ahead, and either it silences the cron until then, or it is left
//! out of account until then; so is all that was decided before the clock went ahead, and a clock that falls behind and is right again makes
//! up for that. Which of the clocks was right is never known: so each stretch of moments that was decided is kept by itself.

use crate::time::Wall;

/// So many are kept apart. What lies between two is lost of a cron that has more: it was passed over, or the clock was ahead of it.
pub const PASSAGES_MAX: usize = 16;

/// A clock by which so much has gone by, though it shows a time before the declaration, is right for all that anybody knows.
const LIVED_US: i64 = 24 * 60 * 60 * 1_000_000;

/// Moments that were decided one after another: all of a cron from the first to the last, both among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Passage {
    /// The first; or a moment before it that no other lies behind.
    pub from: Wall,
    /// The last, or when the clock had come past it.
    pub until: Wall,
}

impl Passage {
    /// Of a clock that had come so far, and of no moment.
    pub fn at(at: Wall) -> Self {
        Self { from: at, until: at }
    }
}

/// What is over of a cron.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// When it was declared, or changed last; none of one that release 0.1.0 left.
    since: Option<Wall>,
    /// What has gone by since then on clocks that showed less, in microseconds.
    lived_us: i64,
    /// Ascending, none touches another.
    passages: Vec<Passage>,
}

impl Past {
    /// Of a cron that is declared at that time: what came before is over.
    pub fn declared(at: Wall) -> Self {
        Self { since: Some(at), lived_us: 0, passages: vec![Passage::at(at)] }
    }

    /// Moments have been decided, or the clock has come past them.
    pub fn pass(&mut self, passage: Passage) {
        let Passage { mut from, mut until } = passage;
        let known_us = self.before_us();
        self.passages.retain(|other| {
            let is_apart = other.until < from || until < other.from;
            if !is_apart {
                (from, until) = (from.min(other.from), until.max(other.until));
            }
            is_apart
        });
        let place = self.passages.partition_point(|other| other.until < from);
        self.passages.insert(place, Passage { from, until });
        self.lived_us = self.lived_us.saturating_add(self.before_us() - known_us);
        if self.passages.len() > PASSAGES_MAX {
            // What the clock has passed lies behind; what lies ahead of it has to come yet, the furthest last.
            let kept = if place > 0 { 0 } else { self.passages.len() - 2 };
            self.passages[kept].until = self.passages[kept + 1].until;
            self.passages.remove(kept + 1);
        }
    }

    /// Another expression or zone holds from that time on: of its moments none has been decided, but what lies before is over.
    pub fn change(&mut self, at: Wall) {
        self.passages.iter_mut().for_each(|passage| passage.from = passage.until);
        self.pass(Passage::at(at));
        (self.since, self.lived_us) = (Some(at), 0);
    }

    /// How much of what lies before the declaration has been passed.
    fn before_us(&self) -> i64 {
        let Some(since) = self.since else { return 0 };
        let spans =
            self.passages.iter().map(|passage| passage.until.min(since).0.saturating_sub(passage.from.0));
        spans.filter(|span| *span > 0).fold(0, i64::saturating_add)
    }

    /// Whether a clock that shows `now` may be behind, so that nothing that it has gone past was missed.
    pub fn may_be_behind(&self, now: Wall) -> bool {
        self.since.is_some_and(|since| now < since) && self.lived_us < LIVED_US
    }

    /// Up to when all is over once the clock shows `now`.
    pub fn over_until(&self, now: Wall) -> Option<Wall> {
        let begun = self.passages.iter().rev().find(|passage| passage.from <= now)?;
        Some(begun.until.min(now))
    }

    /// Up to when all is over from a moment on that is over itself, whatever the clock shows by then; none of one that has to come yet.
    pub fn over_from(&self, moment: Wall) -> Option<Wall> {
        let holds = |passage: &&Passage| passage.from <= moment && moment <= passage.until;
        self.passages.iter().find(holds).map(|passage| passage.until)
    }

    /// As it is stored, in microseconds: when it was declared, what has gone by before that, and the pairs, ascending.
    pub fn text(&self) -> String {
        let pairs: Vec<String> =
            self.passages.iter().map(|Passage { from, until }| format!("[{},{}]", from.0, until.0)).collect();
        let since = self.since.map_or("null".to_owned(), |since| since.0.to_string());
        format!("[{since},{},[{}]]", self.lived_us, pairs.join(","))
    }

    /// What was stored, if it can be read.
    pub fn read(text: &str) -> Option<Self> {
        let (since, lived_us, pairs): (Option<i64>, i64, Vec<(i64, i64)>) =
            serde_json::from_str(text).ok()?;
        let mut past = Self::default();
        pairs
            .into_iter()
            .for_each(|(from, until)| past.pass(Passage { from: Wall(from), until: Wall(until) }));
        Some(Self { since: since.map(Wall), lived_us, ..past })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(pairs: &[(i64, i64)]) -> Past {
        let mut past = Past::default();
        pairs.iter().for_each(|&(from, until)| past.pass(Passage { from: Wall(from), until: Wall(until) }));
        past
    }

    #[test]
    fn what_touches_is_one() {
        assert_eq!(past(&[(5, 5), (8, 9), (1, 2), (5, 8)]).text(), "[null,0,[[1,2],[5,9]]]");
        assert_eq!(past(&[(1, 2), (3, 4), (0, 9)]).text(), "[null,0,[[0,9]]]");
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let known = past(&[(1, 2), (5, 9)]);
        assert_eq!(Past::read(&known.text()), Some(known));
        assert_eq!(Past::read("[null,0,[]]"), Some(Past::default()));
        let mut declared = Past::declared(Wall(7));
        declared.pass(Passage { from: Wall(1), until: Wall(3) });
        assert_eq!(declared.text(), "[7,2,[[1,3],[7,7]]]");
        assert_eq!(Past::read(&declared.text()), Some(declared));
        assert_eq!([Past::read(""), Past::read("7")], [None, None]);
    }

    #[test]
    fn up_to_where_a_clock_has_been_all_is_over() {
        let known = past(&[(1, 2), (5, 9)]);
        assert_eq!(
            [0, 1, 2, 4, 5, 8, 10].map(|now| known.over_until(Wall(now)).map(|until| until.0)),
            [None, Some(1), Some(2), Some(2), Some(5), Some(8), Some(9)]
        );
    }

    #[test]
    fn a_moment_is_over_whatever_the_clock_shows_if_it_was_decided() {
        let known = past(&[(1, 2), (5, 9)]);
        let over = [0, 1, 2, 3, 5, 8, 9, 10].map(|at| known.over_from(Wall(at)).map(|until| until.0));
        assert_eq!(over, [None, Some(2), Some(2), None, Some(9), Some(9), Some(9), None]);
    }

    #[test]
    fn another_expression_has_decided_nothing_and_makes_up_for_nothing() {
        let mut known = past(&[(1, 2), (5, 9)]);
        known.change(Wall(7));
        assert_eq!(known.text(), "[7,0,[[2,2],[7,7],[9,9]]]");
    }

    #[test]
    fn a_clock_before_the_declaration_is_behind_until_a_day_has_gone_by() {
        let mut known = Past::declared(Wall(9 * LIVED_US));
        let mut go = |from: i64, until: i64| {
            known.pass(Passage { from: Wall(from), until: Wall(until) });
            known.may_be_behind(Wall(8 * LIVED_US))
        };
        assert!(go(LIVED_US, LIVED_US + 9));
        assert!(go(10 * LIVED_US, 12 * LIVED_US), "what lies behind it says nothing");
        assert!(go(LIVED_US + 9, LIVED_US + 20) && go(LIVED_US, LIVED_US + 20), "each counts once");
        assert!(go(0, LIVED_US - 21));
        assert!(!go(7 * LIVED_US, 7 * LIVED_US + 1));
        assert!(!known.may_be_behind(Wall(9 * LIVED_US)));
        known.change(Wall(20 * LIVED_US));
        assert!(known.may_be_behind(Wall(9 * LIVED_US)) && !known.may_be_behind(Wall(20 * LIVED_US)));
        assert!(!Past::default().may_be_behind(Wall(0)));
    }

    #[test]
    fn of_too_many_the_oldest_are_one_and_else_those_that_are_furthest_ahead() {
        let many = i64::try_from(PASSAGES_MAX).unwrap();
        let mut pairs: Vec<(i64, i64)> = (1..=many).map(|at| (10 * at, 10 * at + 1)).collect();
        pairs.push((1000, 1000));
        let known = past(&pairs);
        assert_eq!(known.passages.len(), PASSAGES_MAX);
        assert_eq!((known.passages[0].from, known.passages[0].until), (Wall(10), Wall(21)));
        pairs[PASSAGES_MAX] = (1, 1);
        let known = past(&pairs);
        assert_eq!(known.passages[0], Passage::at(Wall(1)));
        assert_eq!(known.passages[PASSAGES_MAX - 1].from, Wall(10 * (many - 1)));
    }
}
