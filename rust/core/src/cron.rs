//! When a cron expression is due in a time zone. Pure: reads no clock; the zone's rules are read once, at parse.
//! Invariant: [`Cron::next`] lies after its argument, and no moment between the two has another answer.
//!
//! `croner` reads the fields and matches days. The gaps and folds of daylight saving are decided here, as Vixie cron
//! does, because `croner` takes any list or range of times for an interval. A zone's history is walked as
//! `Stretch`es of one offset; within one, local time and elapsed time move together.

mod field;

use std::fmt;
use std::sync::Arc;

use croner::{CronPattern, Weekday};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

use crate::cron::field::{fields, pattern};
use crate::error::{Error, Kind, Result, excerpt};
use crate::time::Wall;

/// The longest expression accepted; one that lists each second and each minute by number is a third of it.
pub const EXPRESSION_BYTES_MAX: usize = 1024;

/// How far ahead a due time is looked for. The rarest day, a 29 February on one given weekday, comes within 40.
pub const HORIZON_YEARS: i16 = 100;

const DAY_SECONDS: i64 = 86_400;
const YEAR_SECONDS_MAX: i64 = 366 * DAY_SECONDS;
const SECOND_MICROS: i64 = 1_000_000;

/// More than any two offsets from UTC can differ: each is less than 26 hours.
const OFFSETS_APART_SECONDS: i64 = 3 * DAY_SECONDS;

/// A cron expression in a time zone.
///
/// Five fields (minute, hour, day of month, month, day of week), a sixth in front for seconds, or a nickname. If
/// neither day field starts with `*`, a day that matches either is due; otherwise it has to match both.
///
/// Daylight saving is handled by whether the time is fixed, that is, whether neither the minute nor the hour field
/// starts with `*`; seconds have no say. A fixed time that clocks skip is due once at the jump, together with all
/// others skipped there, and one that they repeat is due the first time only. Any other expression follows elapsed
/// time: what is skipped is not due, and what is repeated is due again.
///
/// ```
/// use cloaca_core::{cron::Cron, time::Wall};
///
/// let cron = Cron::parse("0 9 * * MON-FRI", "Europe/Berlin")?;
/// let due = cron.next(Wall(0)).expect("weekdays keep coming");
/// assert_eq!(due.rfc3339(), "1970-01-01T08:00:00.000000Z");
/// # Ok::<(), cloaca_core::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cron {
    days: Days,
    seconds: Values,
    minutes: Values,
    hours: Values,
    months: Values,
    pace: Pace,
    zone: TimeZone,
}

/// What a due time follows when clocks are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Neither the minute nor the hour field starts with `*`: what the clock on the wall shows, each time once.
    Fixed,
    /// One of them does: the time that passes.
    Elapsed,
}

impl Cron {
    /// The schedule that `expression` means in the IANA zone `timezone`.
    ///
    /// # Errors
    /// [`Kind::Schedule`] for an expression that is malformed or never due, and for an unknown zone.
    pub fn parse(expression: &str, timezone: &str) -> Result<Self> {
        let fields = fields(expression).map_err(|cause| refusal(expression, &cause))?;
        let pattern = pattern(&fields).map_err(|cause| refusal(expression, &cause))?;
        let [_, minute, hour, ..] = &fields;
        let fixed = !minute.starts_with('*') && !hour.starts_with('*');
        let cron = Self {
            seconds: Values::of(&pattern.seconds),
            minutes: Values::of(&pattern.minutes),
            hours: Values::of(&pattern.hours),
            months: Values::of(&pattern.months),
            days: Days(Arc::new(pattern)),
            pace: if fixed { Pace::Fixed } else { Pace::Elapsed },
            zone: zone(timezone)?,
        };
        // All fourteen kinds of year come within any hundred, so the year to start from makes no difference.
        if cron.local_from(0).is_none() {
            return Err(refusal(
                expression,
                "no calendar has such a day; give one that comes, as in '0 9 28 2 *'",
            ));
        }
        Ok(cron)
    }

    /// The first due time strictly after `after`, if one comes within [`HORIZON_YEARS`].
    pub fn next(&self, after: Wall) -> Option<Wall> {
        let mut from = after.0.div_euclid(SECOND_MICROS) + 1;
        let until = from + i64::from(HORIZON_YEARS) * YEAR_SECONDS_MAX;
        while from < until {
            let stretch = Stretch::around(&self.zone, from)?;
            let first = match self.pace {
                Pace::Fixed if from == stretch.start && self.is_due_in_gap(&stretch) => return wall(from),
                Pace::Fixed => from.max(stretch.start.saturating_add(stretch.repeated())),
                Pace::Elapsed => from,
            };
            let local = self.local_from(first + stretch.offset)?;
            if local - stretch.offset < stretch.end {
                return wall(local - stretch.offset);
            }
            from = stretch.end;
            // Far from its end, no later stretch can show a local time already searched, so none is due until
            // shortly before `local`. Close to it, clocks may go back behind `first`.
            if stretch.end - first > OFFSETS_APART_SECONDS {
                from = from.max(local - OFFSETS_APART_SECONDS);
            }
        }
        None
    }

    fn is_due_in_gap(&self, stretch: &Stretch) -> bool {
        let gap =
            stretch.start.saturating_add(stretch.offset_before)..stretch.start.saturating_add(stretch.offset);
        !gap.is_empty() && self.local_from(gap.start).is_some_and(|local| gap.contains(&local))
    }

    /// The first local time that matches at or after `local`, both in seconds since 1970 on the local clock.
    fn local_from(&self, local: i64) -> Option<i64> {
        let midnight = local - local.rem_euclid(DAY_SECONDS);
        let date = Offset::UTC.to_datetime(Timestamp::from_second(midnight).ok()?).date();
        if self.is_due_on(date)
            && let Some(time) = self.time_from(local - midnight)
        {
            return Some(midnight + time);
        }
        let date = self.date_after(date)?;
        let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_second();
        Some(midnight + self.time_from(0)?)
    }

    /// The first matching second of a day at or after `second`.
    fn time_from(&self, second: i64) -> Option<i64> {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        if self.hours.has(hour) {
            if self.minutes.has(minute)
                && let Some(second) = self.seconds.from(second)
            {
                return Some(hour * 3600 + minute * 60 + second);
            }
            if let Some(minute) = self.minutes.from(minute + 1) {
                return Some(hour * 3600 + minute * 60 + self.seconds.from(0)?);
            }
        }
        let hour = self.hours.from(hour + 1)?;
        Some(hour * 3600 + self.minutes.from(0)? * 60 + self.seconds.from(0)?)
    }

    fn date_after(&self, date: Date) -> Option<Date> {
        let year_max = date.year() + HORIZON_YEARS;
        let mut date = date.tomorrow().ok()?;
        while date.year() <= year_max {
            if self.is_due_on(date) {
                return Some(date);
            }
            let month_is_due = self.months.has(date.month().into());
            date = if month_is_due { date } else { date.last_of_month() }.tomorrow().ok()?;
        }
        None
    }

    fn is_due_on(&self, date: Date) -> bool {
        self.months.has(date.month().into()) && self.days.have(date)
    }
}

/// The two day fields; shared, because `croner` keeps kilobytes of years beside them.
#[derive(Clone)]
struct Days(Arc<CronPattern>);

impl Days {
    fn have(&self, date: Date) -> bool {
        let weekday =
            Weekday::from_days_from_sunday(date.weekday().to_sunday_zero_offset().unsigned_abs().into());
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        self.0
            .day_match(date.year().into(), month.into(), day.into(), weekday)
            .expect("a date of the calendar is within its month")
    }
}

impl fmt::Debug for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Days").field(&self.0.as_str()).finish()
    }
}

/// The values that a field allows, as a set of bits: 0 to 59 at most.
#[derive(Debug, Clone, Copy)]
struct Values(u64);

impl Values {
    fn of(component: &croner::CronComponent) -> Self {
        Self(component.values().into_iter().fold(0, |bits, value| bits | 1 << value))
    }

    fn has(self, value: i64) -> bool {
        self.0 >> value & 1 == 1
    }

    /// The smallest value at or above `least`, which may be one more than a field has.
    fn from(self, least: i64) -> Option<i64> {
        let ahead = self.0 >> least;
        (ahead != 0).then(|| least + i64::from(ahead.trailing_zeros()))
    }
}

/// A time during which a zone's offset stays the same; all in seconds, moments since 1970 in UTC.
struct Stretch {
    /// Where it begins; [`i64::MIN`] if it always was.
    start: i64,
    /// Where the next begins; [`i64::MAX`] if it lasts.
    end: i64,
    offset: i64,
    offset_before: i64,
}

impl Stretch {
    fn around(zone: &TimeZone, second: i64) -> Option<Self> {
        let moment = Timestamp::from_second(second).ok()?;
        let offset_at = |moment| i64::from(zone.to_offset(moment).seconds());
        let offset = offset_at(moment);
        let end = zone.following(moment).next().map_or(i64::MAX, |change| change.timestamp().as_second());
        // `preceding` leaves out a change at the very moment it is given.
        let later = Timestamp::from_second(second + 1).ok()?;
        let Some(change) = zone.preceding(later).next() else {
            return Some(Self { start: i64::MIN, end, offset, offset_before: offset });
        };
        let start = change.timestamp().as_second();
        let offset_before = Timestamp::from_second(start - 1).map_or(offset, offset_at);
        Some(Self { start, end, offset, offset_before })
    }

    /// For how many seconds from its start local times are shown that were shown before.
    fn repeated(&self) -> i64 {
        (self.offset_before - self.offset).max(0)
    }
}

fn wall(second: i64) -> Option<Wall> {
    second.checked_mul(SECOND_MICROS).map(Wall)
}

fn zone(name: &str) -> Result<TimeZone> {
    let remedy = "give an IANA name, as in 'Europe/Berlin' or 'UTC'";
    let newer = "a new zone needs a newer tzdata package";
    if name.trim().is_empty() {
        return Err(Error::new(Kind::Schedule, format!("the time zone cannot be empty: {remedy}")));
    }
    // Slim images have no zone files, or few. Those of the system are kept up to date, those that are built in only with each release.
    match TimeZone::get(name).or_else(|_| TimeZoneDatabase::bundled().get(name)) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => {
            let text = format!("unknown time zone '{}': {remedy}; {newer}", excerpt(name));
            Err(Error::new(Kind::Schedule, text))
        }
    }
}

fn refusal(expression: &str, cause: &str) -> Error {
    Error::new(Kind::Schedule, format!("invalid cron expression '{}': {cause}", excerpt(expression)))
}
