//! What a cron expression promises, at both changes of clocks and against a model that looks at every minute.

use cloaca_core::cron::{Cron, EXPRESSION_BYTES_MAX};
use cloaca_core::error::Kind;
use cloaca_core::time::Wall;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use proptest::prelude::*;

fn wall(stamp: &str) -> Wall {
    Wall(stamp.parse::<Timestamp>().unwrap().as_microsecond())
}

/// The first `count` due times after `after`, on the zone's own clock and with its offset.
fn runs(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cron = Cron::parse(expression, zone).unwrap();
    let zone = TimeZone::get(zone).unwrap();
    std::iter::successors(cron.next(wall(after)), |due| cron.next(*due))
        .take(count)
        .map(|due| {
            let stamp = Timestamp::from_microsecond(due.0).unwrap();
            format!("{}{}", zone.to_datetime(stamp), zone.to_offset(stamp))
        })
        .collect()
}

#[track_caller]
fn assert_runs(expression: &str, zone: &str, after: &str, expected: &[&str]) {
    assert_eq!(
        runs(expression, zone, after, expected.len()),
        expected,
        "{expression} in {zone} after {after}"
    );
}

#[track_caller]
fn refusal(expression: &str, zone: &str) -> String {
    let error = Cron::parse(expression, zone).expect_err(expression);
    assert_eq!(error.kind, Kind::Schedule);
    error.message
}

#[track_caller]
fn assert_same(expression: &str, plain: &str) {
    let after = "2026-01-05T07:03:11Z";
    assert_eq!(runs(expression, "UTC", after, 40), runs(plain, "UTC", after, 40), "{expression} is {plain}");
}

mod fields {
    use super::*;

    #[test]
    fn a_due_time_is_strictly_after_the_moment_given() {
        assert_runs("0 9 * * *", "UTC", "2026-03-02T08:59:59.999999Z", &["2026-03-02T09:00:00+00"]);
        assert_runs("0 9 * * *", "UTC", "2026-03-02T09:00:00Z", &["2026-03-03T09:00:00+00"]);
        assert_runs("0 9 * * *", "UTC", "2026-03-02T09:00:00.000001Z", &["2026-03-03T09:00:00+00"]);
    }

    #[test]
    fn times_before_1970_are_due_as_well() {
        assert_runs("0 9 * * *", "UTC", "1969-12-30T09:00:00.5Z", &["1969-12-31T09:00:00+00"]);
    }

    #[test]
    fn a_sixth_field_in_front_is_the_second() {
        let due = ["2026-03-02T09:00:20+00", "2026-03-02T09:00:40+00", "2026-03-02T09:01:00+00"];
        assert_runs("*/20 * * * * *", "UTC", "2026-03-02T09:00:00Z", &due);
        assert_runs("59 59 23 31 12 *", "UTC", "2026-03-02T09:00:00Z", &["2026-12-31T23:59:59+00"]);
    }

    #[test]
    fn lists_ranges_and_steps_combine() {
        let due = ["2026-03-02T09:00:00+00", "2026-03-02T09:10:00+00", "2026-03-02T09:12:00+00"];
        assert_runs("0,10-14/2,50 9 * * *", "UTC", "2026-03-02T00:00:00Z", &due);
    }

    #[test]
    fn names_stand_for_numbers_in_any_case() {
        assert_same("0 9 * jan,Jul MON-fri", "0 9 * 1,7 1-5");
        assert_same("0 9 * * sat-SUN", "0 9 * * 6,0");
        assert_same("0 9 * * SUN-TUE", "0 9 * * 0-2");
        assert_same("0 9 * * mon-fri/2", "0 9 * * 1,3,5");
    }

    #[test]
    fn seven_is_sunday() {
        assert_same("0 9 * * 7", "0 9 * * 0");
        assert_same("0 9 * * 5-7", "0 9 * * 5,6,0");
        assert_runs("0 9 * * 7", "UTC", "2026-03-02T00:00:00Z", &["2026-03-08T09:00:00+00"]);
    }

    #[test]
    fn a_question_mark_leaves_a_day_field_open() {
        assert_same("0 9 ? * MON", "0 9 * * MON");
        assert_same("0 9 15 * ?", "0 9 15 * *");
    }

    #[test]
    fn white_space_is_free() {
        assert_same("  0\t9  * *\n* ", "0 9 * * *");
    }

    #[test]
    fn nicknames_stand_for_expressions() {
        assert_same("@yearly", "0 0 1 1 *");
        assert_same("@annually", "0 0 1 1 *");
        assert_same("@monthly", "0 0 1 * *");
        assert_same("@weekly", "0 0 * * 0");
        assert_same("@daily", "0 0 * * *");
        assert_same(" @Midnight ", "0 0 * * *");
        assert_same("@hourly", "0 * * * *");
    }

    #[test]
    fn last_days_nearest_weekdays_and_numbered_weekdays_are_known() {
        let after = "2026-01-15T00:00:00Z";
        assert_runs("0 0 L * *", "UTC", after, &["2026-01-31T00:00:00+00", "2026-02-28T00:00:00+00"]);
        assert_runs("0 0 LW * *", "UTC", after, &["2026-01-30T00:00:00+00", "2026-02-27T00:00:00+00"]);
        assert_runs("0 0 1W * *", "UTC", after, &["2026-02-02T00:00:00+00", "2026-03-02T00:00:00+00"]);
        assert_runs("0 0 * * MON#2", "UTC", after, &["2026-02-09T00:00:00+00", "2026-03-09T00:00:00+00"]);
        assert_runs("0 0 * * friL", "UTC", after, &["2026-01-30T00:00:00+00", "2026-02-27T00:00:00+00"]);
        assert_same("0 0 * * 5L", "0 0 * * FRI#L");
        assert_runs("0 0 * * 7#1", "UTC", after, &["2026-02-01T00:00:00+00", "2026-03-01T00:00:00+00"]);
    }
}

mod days {
    use super::*;

    #[test]
    fn two_restricted_day_fields_match_either() {
        let due = ["2026-03-06T00:00:00+00", "2026-03-13T00:00:00+00", "2026-03-15T00:00:00+00"];
        assert_runs("0 0 15 * FRI", "UTC", "2026-03-01T00:00:00Z", &due);
    }

    #[test]
    fn a_day_field_of_all_numbers_is_restricted() {
        let due = ["2026-03-02T00:00:00+00", "2026-03-03T00:00:00+00"];
        assert_runs("0 0 1-31 * FRI", "UTC", "2026-03-01T00:00:00Z", &due);
    }

    #[test]
    fn a_stepped_star_in_a_day_field_demands_both() {
        let odd_fridays = ["2026-03-13T00:00:00+00", "2026-03-27T00:00:00+00", "2026-04-03T00:00:00+00"];
        assert_runs("0 0 */2 * FRI", "UTC", "2026-03-01T00:00:00Z", &odd_fridays);
        // Sundays, Wednesdays and Saturdays of the first six days.
        let due = ["2026-03-01T00:00:00+00", "2026-03-04T00:00:00+00", "2026-04-01T00:00:00+00"];
        assert_runs("0 0 1-6 * */3", "UTC", "2026-02-28T12:00:00Z", &due);
    }

    #[test]
    fn a_leap_day_is_found_across_a_century() {
        assert_runs("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", &["2104-02-29T00:00:00+00"]);
    }

    #[test]
    fn a_leap_day_on_one_weekday_is_found() {
        // `*/7` is Sunday; as it starts with a star, both have to match.
        let due = ["2032-02-29T00:00:00+00", "2060-02-29T00:00:00+00", "2088-02-29T00:00:00+00"];
        assert_runs("0 0 29 2 */7", "UTC", "2026-03-01T00:00:00Z", &due);
        assert_runs("0 0 29 2 */7", "UTC", "2088-03-01T00:00:00Z", &["2128-02-29T00:00:00+00"]);
        assert_runs("0 0 29 2 */7", "Europe/Berlin", "2088-03-01T00:00:00Z", &["2128-02-29T00:00:00+01"]);
    }

    #[test]
    fn nothing_is_due_after_the_last_year_of_the_calendar() {
        let cron = Cron::parse("0 0 * * *", "Europe/Berlin").unwrap();
        assert_eq!(cron.next(wall("9999-12-30T22:00:00Z")), None);
        assert_eq!(cron.next(Wall(i64::MAX)), None);
        assert_eq!(cron.next(Wall(i64::MIN)), None);
    }
}

/// Each zone: a fixed time in the gap, an interval across it, then the same at the fold.
mod daylight_saving {
    use super::*;

    #[test]
    fn in_berlin() {
        let (spring, autumn) = ("2026-03-27T23:30:00Z", "2026-10-24T00:00:00Z");
        let due = ["2026-03-28T02:30:00+01", "2026-03-29T03:00:00+02", "2026-03-30T02:30:00+02"];
        assert_runs("30 2 * * *", "Europe/Berlin", spring, &due);
        let due = ["2026-03-29T01:30:00+01", "2026-03-29T03:00:00+02", "2026-03-29T03:30:00+02"];
        assert_runs("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", &due);
        let due = ["2026-10-24T02:30:00+02", "2026-10-25T02:30:00+02", "2026-10-26T02:30:00+01"];
        assert_runs("30 2 * * *", "Europe/Berlin", autumn, &due);
        let due = [
            "2026-10-25T02:00:00+02",
            "2026-10-25T02:30:00+02",
            "2026-10-25T02:00:00+01",
            "2026-10-25T02:30:00+01",
            "2026-10-25T03:00:00+01",
        ];
        assert_runs("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", &due);
    }

    #[test]
    fn in_new_york() {
        let due = ["2026-03-08T03:00:00-04", "2026-03-09T02:15:00-04"];
        assert_runs("15 2 * * *", "America/New_York", "2026-03-08T00:00:00Z", &due);
        let due = ["2026-03-08T01:00:00-05", "2026-03-08T03:00:00-04", "2026-03-08T04:00:00-04"];
        assert_runs("0 * * * *", "America/New_York", "2026-03-08T05:00:00Z", &due);
        let due = ["2026-11-01T01:15:00-04", "2026-11-02T01:15:00-05"];
        assert_runs("15 1 * * *", "America/New_York", "2026-11-01T00:00:00-04:00", &due);
        let due = ["2026-11-01T01:00:00-04", "2026-11-01T01:00:00-05", "2026-11-01T02:00:00-05"];
        assert_runs("0 * * * *", "America/New_York", "2026-11-01T00:00:00-04:00", &due);
    }

    #[test]
    fn on_lord_howe_by_half_an_hour() {
        let zone = "Australia/Lord_Howe";
        let due = ["2026-10-04T02:30:00+11", "2026-10-05T02:15:00+11"];
        assert_runs("15 2 * * *", zone, "2026-10-03T12:00:00Z", &due);
        let due = ["2026-10-04T01:45:00+10:30", "2026-10-04T02:30:00+11", "2026-10-04T02:45:00+11"];
        assert_runs("*/15 * * * *", zone, "2026-10-04T01:30:00+10:30", &due);
        let due = ["2026-04-05T01:45:00+11", "2026-04-06T01:45:00+10:30"];
        assert_runs("45 1 * * *", zone, "2026-04-04T12:00:00Z", &due);
        let due = ["2026-04-05T01:45:00+11", "2026-04-05T01:30:00+10:30", "2026-04-05T01:45:00+10:30"];
        assert_runs("*/15 * * * *", zone, "2026-04-05T01:30:00+11:00", &due);
        // Only half of the hour is repeated.
        assert_runs("15 1 * * *", zone, "2026-04-04T12:00:00Z", &["2026-04-05T01:15:00+11"]);
    }

    #[test]
    fn in_sydney() {
        let due = ["2026-10-04T03:00:00+11", "2026-10-05T02:30:00+11"];
        assert_runs("30 2 * * *", "Australia/Sydney", "2026-10-03T12:00:00Z", &due);
        let due = ["2026-10-04T01:40:00+10", "2026-10-04T03:00:00+11", "2026-10-04T03:20:00+11"];
        assert_runs("*/20 * * * *", "Australia/Sydney", "2026-10-04T01:20:00+10:00", &due);
        let due = ["2026-04-05T02:30:00+11", "2026-04-06T02:30:00+10"];
        assert_runs("30 2 * * *", "Australia/Sydney", "2026-04-04T12:00:00Z", &due);
        let due = ["2026-04-05T02:40:00+11", "2026-04-05T02:00:00+10", "2026-04-05T02:20:00+10"];
        assert_runs("*/20 * * * *", "Australia/Sydney", "2026-04-05T02:20:00+11:00", &due);
    }

    #[test]
    fn in_cairo_at_midnight() {
        let due = ["2026-04-23T00:00:00+02", "2026-04-24T01:00:00+03", "2026-04-25T00:00:00+03"];
        assert_runs("@daily", "Africa/Cairo", "2026-04-22T12:00:00Z", &due);
        let due = ["2026-04-23T23:00:00+02", "2026-04-24T01:00:00+03", "2026-04-24T02:00:00+03"];
        assert_runs("@hourly", "Africa/Cairo", "2026-04-23T22:00:00+02:00", &due);
        let due = ["2026-10-29T23:30:00+03", "2026-10-30T23:30:00+02"];
        assert_runs("30 23 * * *", "Africa/Cairo", "2026-10-29T12:00:00Z", &due);
        let due = ["2026-10-29T00:00:00+03", "2026-10-30T00:00:00+02", "2026-10-31T00:00:00+02"];
        assert_runs("@daily", "Africa/Cairo", "2026-10-28T12:00:00Z", &due);
        let due = ["2026-10-29T23:00:00+03", "2026-10-29T23:00:00+02", "2026-10-30T00:00:00+02"];
        assert_runs("@hourly", "Africa/Cairo", "2026-10-29T22:00:00+03:00", &due);
    }

    #[test]
    fn in_beirut_and_sao_paulo_at_midnight() {
        assert_runs("@daily", "Asia/Beirut", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00+03"]);
        assert_runs("@daily", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-04T01:00:00-02"]);
        let due = ["2018-02-17T23:30:00-02", "2018-02-18T23:30:00-03"];
        assert_runs("30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00:00Z", &due);
    }

    #[test]
    fn in_apia_by_an_hour_and_by_a_whole_day() {
        let due = ["2011-12-29T09:00:00-10", "2011-12-31T00:00:00+14", "2011-12-31T09:00:00+14"];
        assert_runs("0 9 * * *", "Pacific/Apia", "2011-12-29T00:00:00-10:00", &due);
        assert_runs("0 9 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["2011-12-31T00:00:00+14"]);
        let due = ["2011-12-29T23:00:00-10", "2011-12-31T00:00:00+14", "2011-12-31T01:00:00+14"];
        assert_runs("0 * * * *", "Pacific/Apia", "2011-12-29T22:00:00-10:00", &due);
        assert_runs("0 * 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["2012-12-30T00:00:00+14"]);
        let due = ["2012-04-01T03:30:00+14", "2012-04-02T03:30:00+13"];
        assert_runs("30 3 * * *", "Pacific/Apia", "2012-03-31T12:00:00Z", &due);
        let due = ["2012-09-30T04:00:00+14", "2012-10-01T03:30:00+14"];
        assert_runs("30 3 * * *", "Pacific/Apia", "2012-09-29T12:00:00Z", &due);
    }

    #[test]
    fn never_in_kolkata() {
        let due = ["2026-03-29T02:30:00+05:30", "2026-03-30T02:30:00+05:30"];
        assert_runs("30 2 * * *", "Asia/Kolkata", "2026-03-28T23:00:00+05:30", &due);
    }

    #[test]
    fn beyond_the_years_that_zone_files_spell_out() {
        let due = ["2060-03-28T03:00:00+02", "2060-03-29T02:30:00+02"];
        assert_runs("30 2 * * *", "Europe/Berlin", "2060-03-27T12:00:00Z", &due);
        let due = ["2060-10-31T02:30:00+02", "2060-11-01T02:30:00+01"];
        assert_runs("30 2 * * *", "Europe/Berlin", "2060-10-30T12:00:00Z", &due);
    }

    #[test]
    fn several_fixed_times_in_one_gap_run_once() {
        let due = ["2026-03-29T01:45:00+01", "2026-03-29T03:00:00+02", "2026-03-29T03:15:00+02"];
        assert_runs("15,45 1-3 * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", &due);
    }

    #[test]
    fn a_skipped_time_and_one_due_at_the_jump_run_once() {
        let due = ["2026-03-29T03:00:00+02", "2026-03-30T02:00:00+02"];
        assert_runs("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", &due);
    }

    #[test]
    fn a_list_or_range_of_hours_is_fixed() {
        let due = ["2026-10-25T02:30:00+02", "2026-10-25T14:30:00+01", "2026-10-26T02:30:00+01"];
        assert_runs("30 2,14 * * *", "Europe/Berlin", "2026-10-24T13:00:00Z", &due);
        let due = ["2026-10-25T02:00:00+02", "2026-10-25T03:00:00+01"];
        assert_runs("0 0-23 * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", &due);
    }

    #[test]
    fn a_star_in_either_the_minute_or_the_hour_makes_an_interval() {
        assert_runs("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", &["2026-03-30T02:00:00+02"]);
        let due = ["2026-10-25T02:30:00+02", "2026-10-25T02:30:00+01", "2026-10-25T04:30:00+01"];
        assert_runs("30 */2 * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", &due);
    }

    #[test]
    fn a_rare_interval_is_due_again_when_its_hour_is_repeated() {
        let due = ["2026-10-25T02:00:00+01", "2026-10-25T02:50:00+01", "2027-10-25T02:00:00+02"];
        assert_runs("*/50 2 25 10 *", "Europe/Berlin", "2026-10-25T00:55:00Z", &due);
    }

    #[test]
    fn a_star_for_seconds_leaves_a_time_fixed() {
        let due = ["2026-03-29T03:00:00+02", "2026-03-30T02:30:00+02", "2026-03-30T02:30:30+02"];
        assert_runs("*/30 30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", &due);
        let due = ["2026-10-25T02:30:30+02", "2026-10-26T02:30:00+01"];
        assert_runs("*/30 30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", &due);
        let due = ["2026-10-25T02:59:30+02", "2026-10-25T02:00:00+01", "2026-10-25T02:00:30+01"];
        assert_runs("*/30 * * * * *", "Europe/Berlin", "2026-10-25T00:59:00Z", &due);
    }

    #[test]
    fn an_interval_that_only_ever_falls_into_a_gap_is_never_due() {
        let cron = Cron::parse("*/30 2 * 3 SUNL", "Europe/Berlin").unwrap();
        assert_eq!(cron.next(wall("2026-01-01T00:00:00Z")), None);
    }
}

mod refusals {
    use super::*;

    #[test]
    fn name_the_field_the_value_and_what_would_be_right() {
        assert_eq!(
            refusal("61 * * * *", "UTC"),
            "invalid cron expression '61 * * * *': '61' is no minute field; use 0-59, as in '0', '0,30', \
             '10-20' or '*/15'"
        );
        for (expression, part) in [
            ("60 * * * * *", "'60' is no second field"),
            ("0 24 * * *", "'24' is no hour field"),
            ("0 0 0 * *", "'0' is no day of month field"),
            ("0 0 1 13 *", "'13' is no month field"),
            ("0 0 * * 8", "'8' is no day of week field"),
            ("0 0 * * fri-mon", "'fri-mon' is no day of week field"),
            ("0 22-6 * * *", "a range goes upwards"),
            ("5/15 * * * *", "a step follows '*' or a range"),
        ] {
            let message = refusal(expression, "UTC");
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn malformed_fields() {
        for field in [
            "*/0",
            "*/",
            "/5",
            "*/61",
            "*/1/2",
            "5-",
            "-5",
            "1-2-3",
            "1,,2",
            ",",
            "1,",
            "MON",
            "a",
            "1.5",
            "+1",
            "**",
            "*5",
            "?",
            "é",
            "99999999999",
            "*/99999999999",
            "@daily",
            "1#2",
        ] {
            refusal(&format!("{field} * * * *"), "UTC");
        }
        for field in ["32", "JAN", "L-3", "W", "0W", "15W3", "15WW", "5L", "L,LW", "??", "?/2", "1?", "LL"] {
            refusal(&format!("0 0 {field} * *"), "UTC");
        }
        for field in [
            "MONDAY", "1MON", "SUNMON", "JAN", "L", "MON,L", "MON#0", "MON#6", "MON#", "#1", "1#2L", "1W",
            "+MON", "MON#MON", "5L-6", "1-5/9",
        ] {
            refusal(&format!("0 0 * * {field}"), "UTC");
        }
        for field in ["MON", "JANFEB", "1JAN", "JANL", "0", "DEC-JAN", "L"] {
            refusal(&format!("0 0 1 {field} *"), "UTC");
        }
    }

    #[test]
    fn too_few_fields_too_many_and_a_year() {
        assert!(refusal("", "UTC").contains("0 fields; give 5"));
        assert!(refusal("every day", "UTC").contains("2 fields; give 5"));
        assert!(refusal("* * * *", "UTC").contains("4 fields; give 5"));
        assert!(refusal("0 0 9 * * * 2026", "UTC").contains("leave out the year"));
        assert!(refusal("0 0 9 * * * * *", "UTC").contains("8 fields"));
    }

    #[test]
    fn nicknames_that_are_not_times() {
        assert!(refusal("@reboot", "UTC").contains("'@reboot' is not a time"));
        assert!(refusal("@fortnightly", "UTC").contains("use @yearly"));
        assert!(refusal("@daily *", "UTC").contains("use @yearly"));
    }

    #[test]
    fn days_that_never_come() {
        for expression in ["30 2 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31W 2 *", "0 0 30 2 */2"] {
            assert!(refusal(expression, "UTC").contains("no calendar has such a day"), "{expression}");
        }
        // Either may match, so the impossible day does not stop the Mondays.
        assert_runs("0 0 30 2 MON", "UTC", "2026-01-01T00:00:00Z", &["2026-02-02T00:00:00+00"]);
    }

    #[test]
    fn time_zones_unknown_or_empty() {
        let message = refusal("0 9 * * *", "Europe/Atlantis");
        assert_eq!(
            message,
            "unknown time zone 'Europe/Atlantis': give an IANA name, as in 'Europe/Berlin' or 'UTC'; \
             a new zone needs a newer tzdata package"
        );
        assert!(refusal("0 9 * * *", "").contains("cannot be empty"));
        assert!(refusal("0 9 * * *", "  ").contains("cannot be empty"));
        for zone in ["Etc/Unknown", "local", "../../etc/passwd", "+02:00", "Europe/Berlin\0"] {
            assert!(refusal("0 9 * * *", zone).contains("unknown time zone"), "{zone}");
        }
    }

    #[test]
    fn long_values_are_shortened() {
        let long = "1".repeat(EXPRESSION_BYTES_MAX + 1);
        assert!(refusal(&long, "UTC").contains("1025 bytes"));
        assert!(refusal(&long, "UTC").chars().count() < 200);
        assert!(refusal("0 9 * * *", &long).chars().count() < 200);
        let every_value = |count: u32| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let longest = format!("{} {} {} * * *", every_value(60), every_value(60), every_value(24));
        assert_same(&longest, "0-59 0-59 0-23 * * *");
    }
}

/// The promise again, without any cleverness: looks at every step of real time in turn.
mod model {
    use super::*;

    #[derive(Debug, Clone)]
    pub struct Field {
        pub text: String,
        values: Vec<i64>,
    }

    impl Field {
        fn is_starred(&self) -> bool {
            self.text.starts_with('*')
        }
    }

    /// One way to write a field, with the values it means counted out.
    fn part(min: i64, max: i64) -> impl Strategy<Value = Field> {
        prop_oneof![
            3 => Just(Field { text: "*".into(), values: (min..=max).collect() }),
            2 => (1..=(max - min + 1) / 2).prop_map(move |step| Field {
                text: format!("*/{step}"),
                values: (min..=max).step_by(step as usize).collect(),
            }),
            2 => (min..=max, min..=max, 1..4_i64).prop_map(|(a, b, step)| {
                let (least, most) = (a.min(b), a.max(b));
                Field {
                    text: format!("{least}-{most}/{step}"),
                    values: (least..=most).step_by(step as usize).collect(),
                }
            }),
            4 => proptest::collection::vec(min..=max, 1..4).prop_map(|values| Field {
                text: values.iter().map(|value| value.to_string()).collect::<Vec<_>>().join(","),
                values,
            }),
        ]
    }

    #[derive(Debug, Clone)]
    pub struct Expression {
        second: Field,
        minute: Field,
        hour: Field,
        day: Field,
        month: Field,
        weekday: Field,
    }

    /// Expressions that are often due between midnight and five, where clocks change.
    pub fn expression(second: impl Strategy<Value = Field>) -> impl Strategy<Value = Expression> {
        let open = |text: &str, max| Field { text: text.into(), values: (0..=max).collect() };
        let hour = prop_oneof![part(0, 23), part(0, 4)];
        let day = prop_oneof![3 => Just(open("*", 31)), 2 => part(1, 31)];
        let month = prop_oneof![3 => Just(open("*", 12)), 1 => part(1, 12)];
        let weekday = prop_oneof![3 => Just(open("*", 7)), 2 => part(0, 6)];
        (second, part(0, 59), hour, day, month, weekday).prop_map(
            |(second, minute, hour, day, month, weekday)| {
                let (mut hour, mut weekday) = (hour, weekday);
                if hour.is_starred() {
                    let step = hour.text.strip_prefix("*/").map_or(1, |step| step.parse().unwrap());
                    hour.values = (0..24).step_by(step).collect();
                }
                // In a stepped star the weekday field runs to 7, which is Sunday again.
                if let Some(step) = weekday.text.strip_prefix("*/") {
                    weekday.values = (0..=7).step_by(step.parse().unwrap()).map(|day| day % 7).collect();
                }
                Expression { second, minute, hour, day, month, weekday }
            },
        )
    }

    pub fn on_the_minute() -> impl Strategy<Value = Field> {
        Just(Field { text: String::new(), values: vec![0] })
    }

    pub fn any_second() -> impl Strategy<Value = Field> {
        part(0, 59)
    }

    impl Expression {
        pub fn text(&self) -> String {
            let fields = [&self.second, &self.minute, &self.hour, &self.day, &self.month, &self.weekday];
            fields.map(|field| field.text.as_str()).join(" ").trim_start().to_owned()
        }

        fn is_fixed(&self) -> bool {
            !self.minute.is_starred() && !self.hour.is_starred()
        }

        /// Whether the clock on the wall shows a matching time, `local` seconds after it showed 1970.
        fn matches(&self, local: i64) -> bool {
            let shown = Offset::UTC.to_datetime(Timestamp::from_second(local).unwrap());
            let day = self.day.values.contains(&shown.day().into());
            let weekday = shown.date().weekday().to_sunday_zero_offset().into();
            let weekday = self.weekday.values.contains(&weekday);
            let either = !self.day.is_starred() && !self.weekday.is_starred();
            self.second.values.contains(&shown.second().into())
                && self.minute.values.contains(&shown.minute().into())
                && self.hour.values.contains(&shown.hour().into())
                && self.month.values.contains(&shown.month().into())
                && if either { day || weekday } else { day && weekday }
        }

        /// All due times in `after..=until`, both in seconds and multiples of `step`.
        pub fn due(&self, zone: &TimeZone, after: i64, until: i64, step: i64) -> Vec<i64> {
            let longest_fold = 3 * 3600;
            let begin = after - longest_fold;
            let local = |moment: i64| {
                let stamp = Timestamp::from_second(moment).unwrap();
                moment + i64::from(zone.to_offset(stamp).seconds())
            };
            let shown: Vec<i64> = (begin..=until).step_by(step as usize).map(local).collect();
            let mut due = Vec::new();
            for index in (longest_fold / step) as usize + 1..shown.len() {
                let (before, now) = (shown[index - 1], shown[index]);
                let back = index - (longest_fold / step) as usize;
                let is_first = || !shown[back..index].contains(&now);
                let mut skipped = (before + step..now).step_by(step as usize);
                let is_due = match self.is_fixed() {
                    true => self.matches(now) && is_first() || skipped.any(|local| self.matches(local)),
                    false => self.matches(now),
                };
                if is_due {
                    due.push(begin + index as i64 * step);
                }
            }
            due
        }
    }

    /// Zones with the moments at which their clocks change.
    pub const CHANGES: [(&str, &str); 26] = [
        ("Europe/Berlin", "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", "2026-10-25T01:00:00Z"),
        ("Europe/Berlin", "2060-03-28T01:00:00Z"),
        ("Europe/Berlin", "2060-10-31T01:00:00Z"),
        ("Europe/Dublin", "2026-10-25T01:00:00Z"),
        ("America/New_York", "2026-03-08T07:00:00Z"),
        ("America/New_York", "2026-11-01T06:00:00Z"),
        ("America/Sao_Paulo", "2018-02-18T02:00:00Z"),
        ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
        ("Australia/Sydney", "2026-04-04T16:00:00Z"),
        ("Australia/Sydney", "2026-10-03T16:00:00Z"),
        ("Africa/Cairo", "2026-04-23T22:00:00Z"),
        ("Africa/Cairo", "2026-10-29T21:00:00Z"),
        ("Africa/Casablanca", "2026-02-15T02:00:00Z"),
        ("Africa/Casablanca", "2026-03-22T02:00:00Z"),
        ("Asia/Beirut", "2026-03-28T22:00:00Z"),
        ("Asia/Beirut", "2026-10-24T21:00:00Z"),
        ("Pacific/Apia", "2011-12-30T10:00:00Z"),
        ("Pacific/Apia", "2012-03-31T14:00:00Z"),
        ("Pacific/Apia", "2012-09-29T14:00:00Z"),
        ("Antarctica/Troll", "2026-03-29T01:00:00Z"),
        ("Antarctica/Troll", "2026-10-25T01:00:00Z"),
        ("Asia/Kolkata", "2026-03-29T00:00:00Z"),
        ("UTC", "2024-02-29T00:00:00Z"),
    ];

    #[test]
    fn every_listed_moment_is_a_change_but_the_last_two() {
        for (name, moment) in &CHANGES[..CHANGES.len() - 2] {
            let zone = TimeZone::get(name).unwrap();
            let moment: Timestamp = moment.parse().unwrap();
            let before = Timestamp::from_second(moment.as_second() - 1).unwrap();
            assert_ne!(zone.to_offset(before), zone.to_offset(moment), "{name} {moment}");
        }
    }
}

/// Follows `next` from `after` to `until` and compares each answer with the model's list.
fn assert_follows(
    expression: &model::Expression,
    zone: &str,
    after: i64,
    until: i64,
    step: i64,
    between: f64,
) {
    let Ok(cron) = Cron::parse(&expression.text(), zone) else {
        return; // Such as 30 February; what is refused has its own tests.
    };
    let rules = TimeZone::get(zone).unwrap();
    let mut at = Wall(after * 1_000_000);
    for due in expression.due(&rules, after, until, step) {
        let next = cron.next(at).expect("the model found one");
        assert_eq!(
            next.rfc3339(),
            Wall(due * 1_000_000).rfc3339(),
            "{} after {}",
            expression.text(),
            at.rfc3339()
        );
        let midway = Wall(at.0 + ((next.0 - at.0 - 1) as f64 * between) as i64);
        assert_eq!(cron.next(midway), Some(next), "{} after {}", expression.text(), midway.rfc3339());
        assert_eq!(cron.next(Wall(next.0 - 1)), Some(next));
        at = next;
    }
    if let Some(next) = cron.next(at) {
        assert!(next.0 > until * 1_000_000, "{} is not due at {}", expression.text(), next.rfc3339());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn minutes_agree_with_the_model(
        expression in model::expression(model::on_the_minute()),
        change in 0..model::CHANGES.len(),
        ahead in 0..36 * 60_i64,
        between in 0.0..1.0,
    ) {
        let (zone, moment) = model::CHANGES[change];
        let moment = moment.parse::<Timestamp>().unwrap().as_second();
        let after = moment - ahead * 60;
        assert_follows(&expression, zone, after, after + 3 * 86_400, 60, between);
    }

    #[test]
    fn seconds_agree_with_the_model(
        expression in model::expression(model::any_second()),
        change in 0..model::CHANGES.len(),
        ahead in 0..3600_i64,
        between in 0.0..1.0,
    ) {
        let (zone, moment) = model::CHANGES[change];
        let moment = moment.parse::<Timestamp>().unwrap().as_second();
        assert_follows(&expression, zone, moment - ahead, moment + 3600, 1, between);
    }

    #[test]
    fn next_always_moves_ahead(
        expression in model::expression(model::any_second()),
        change in 0..model::CHANGES.len(),
        second in -2_000_000_000..5_000_000_000_i64,
        micros in 0..1_000_000_i64,
    ) {
        let zone = model::CHANGES[change].0;
        if let Ok(cron) = Cron::parse(&expression.text(), zone) {
            let mut at = Wall(second * 1_000_000 + micros);
            for _ in 0..20 {
                let next = cron.next(at).expect("an expression that parses is due again");
                prop_assert!(next > at);
                prop_assert_eq!(cron.next(Wall(next.0 - 1)), Some(next));
                at = next;
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(expression in "[-0-9*/,?#LWa-zé@ ]{0,20}|([0-9*/,?#LW-]{1,4} ){4,6}", zone in ".{0,12}") {
        let _ = Cron::parse(&expression, &zone);
        if let Ok(cron) = Cron::parse(&expression, "Europe/Berlin") {
            cron.next(Wall(0));
        }
    }
}
