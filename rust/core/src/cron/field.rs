//! The fields of a cron expression: which words each may hold, and how they are spelled for `croner`.
//! Invariant: what is refused here is refused by naming the field and a way out.

use croner::CronPattern;
use croner::parser::{CronParser, Seconds, Year};

use crate::cron::EXPRESSION_BYTES_MAX;
use crate::error::excerpt;

/// What one position of an expression is called and may hold.
struct Field {
    name: &'static str,
    /// How many values it has, and so the widest step that means anything.
    count: u16,
    /// For the message when it is refused.
    remedy: &'static str,
    letters: Letters,
}

/// Which words a field knows besides numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Letters {
    None,
    Days,
    Months,
    Weekdays,
}

const FIELDS: [Field; 6] = [
    Field {
        name: "second",
        count: 60,
        remedy: "0-59, as in '0', '0,30', '10-20' or '*/15'",
        letters: Letters::None,
    },
    Field {
        name: "minute",
        count: 60,
        remedy: "0-59, as in '0', '0,30', '10-20' or '*/15'",
        letters: Letters::None,
    },
    Field {
        name: "hour",
        count: 24,
        remedy: "0-23, as in '9', '9,18', '9-17' or '*/6'",
        letters: Letters::None,
    },
    Field {
        name: "day of month",
        count: 31,
        remedy: "1-31, as in '1', '1,15', '1-7', '*/2', 'L' or '15W'",
        letters: Letters::Days,
    },
    Field {
        name: "month",
        count: 12,
        remedy: "1-12 or JAN-DEC, as in '1', 'JAN,JUL', '6-8' or '*/3'",
        letters: Letters::Months,
    },
    Field {
        name: "day of week",
        count: 7,
        remedy: "0-7 or SUN-SAT, where 0 and 7 are Sunday, as in 'MON', 'MON-FRI', '0,6', 'MON#1' or 'FRIL'",
        letters: Letters::Weekdays,
    },
];

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// The six fields of `expression` in digits, as `croner` is to read them.
pub(super) fn fields(expression: &str) -> std::result::Result<[String; 6], String> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("it has {} bytes; {EXPRESSION_BYTES_MAX} are allowed", expression.len()));
    }
    let plain = if expression.trim().starts_with('@') { nickname(expression.trim())? } else { expression };
    let mut words: Vec<&str> = plain.split_whitespace().collect();
    match words.len() {
        5 => words.insert(0, "0"),
        6 => {}
        7 => return Err("it has 7 fields; leave out the year, which is not supported".to_owned()),
        count => {
            let counted = if count == 1 { "1 field".to_owned() } else { format!("{count} fields") };
            return Err(format!(
                "it has {counted}; give 5 (minute, hour, day of month, month, day of week), as in '0 9 * * MON-FRI', or 6 with seconds in front"
            ));
        }
    }
    let mut spelled: [String; 6] = Default::default();
    for (position, word) in words.into_iter().enumerate() {
        let field = &FIELDS[position];
        let digits = spell(field, &word.to_ascii_uppercase()).filter(|digits| is_readable(position, digits));
        spelled[position] = digits.ok_or_else(|| field.refusal(word))?;
    }
    Ok(spelled)
}

fn nickname(name: &str) -> std::result::Result<&'static str, String> {
    match name.to_ascii_uppercase().as_str() {
        "@YEARLY" | "@ANNUALLY" => Ok("0 0 1 1 *"),
        "@MONTHLY" => Ok("0 0 1 * *"),
        "@WEEKLY" => Ok("0 0 * * 0"),
        "@DAILY" | "@MIDNIGHT" => Ok("0 0 * * *"),
        "@HOURLY" => Ok("0 * * * *"),
        "@REBOOT" => Err("'@reboot' is not a time; start the workflow when the program starts".to_owned()),
        _ => Err(
            "it is no known nickname; use @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly \
                  or five fields"
                .to_owned(),
        ),
    }
}

pub(super) fn pattern(fields: &[String; 6]) -> std::result::Result<CronPattern, String> {
    // `croner` takes only a bare `*` for a field that does not restrict; to Vixie cron `*/2` is one as well.
    let both = fields[3].starts_with('*') || fields[5].starts_with('*');
    let parser =
        CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).dom_and_dow(both).build();
    parser.parse(&fields.join(" ")).map(|cron| cron.pattern).map_err(|error| error.to_string())
}

/// Whether `croner` accepts these digits among five fields that allow everything; so a refusal can name the field.
fn is_readable(position: usize, digits: &str) -> bool {
    let mut fields = ["*"; 6].map(str::to_owned);
    digits.clone_into(&mut fields[position]);
    pattern(&fields).is_ok()
}

impl Field {
    fn refusal(&self, text: &str) -> String {
        let rule = if text.contains('/') {
            "; a step follows '*' or a range, and is no wider than the field"
        } else if text.contains('-') {
            "; a range goes upwards"
        } else {
            ""
        };
        format!("'{}' is no {} field; use {}{rule}", excerpt(text), self.name, self.remedy)
    }
}

/// `text` with names as numbers, or none where `croner` would read something into it that isn't there: it skips
/// empty items, replaces names within words, and ignores what follows a `W` and a weekday's lone `L`.
fn spell(field: &Field, text: &str) -> Option<String> {
    if text == "?" && matches!(field.letters, Letters::Days | Letters::Weekdays) {
        return Some("*".to_owned());
    }
    let items: Option<Vec<String>> = text.split(',').map(|item| spell_item(field, item)).collect();
    let items = items?;
    let last_days = items.iter().filter(|item| matches!(item.as_str(), "L" | "LW")).count();
    (last_days <= 1).then(|| items.join(","))
}

fn spell_item(field: &Field, item: &str) -> Option<String> {
    let (values, step) = match item.split_once('/') {
        Some((values, step)) => (values, Some(step)),
        None => (item, None),
    };
    // An empty item would be split into no words at all.
    if values.is_empty()
        || step.is_some_and(|step| !step.parse().is_ok_and(|step: u16| (1..=field.count).contains(&step)))
    {
        return None;
    }
    let mut spelled = String::with_capacity(item.len());
    let mut before = None;
    for word in values.split_inclusive(['-', '#']) {
        let (word, after) = match word.strip_suffix(['-', '#']) {
            Some(bare) => (bare, word.chars().next_back()),
            None => (word, None),
        };
        spelled.push_str(&spell_word(field, word, before)?);
        spelled.extend(after);
        before = after;
    }
    if let Some(step) = step {
        spelled.push('/');
        spelled.push_str(step);
    }
    Some(spelled)
}

/// `word` in digits; `before` is the `-` or `#` in front of it.
fn spell_word(field: &Field, word: &str, before: Option<char>) -> Option<String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(word) || word == "*" {
        return Some(word.to_owned());
    }
    match field.letters {
        Letters::None => None,
        Letters::Days => {
            let known = matches!(word, "L" | "LW") || word.strip_suffix('W').is_some_and(is_number);
            known.then(|| word.to_owned())
        }
        Letters::Months => position(&MONTHS, word).map(|month| (month + 1).to_string()),
        Letters::Weekdays if before == Some('#') => (word == "L").then(|| word.to_owned()),
        Letters::Weekdays => {
            let (name, last) = word.strip_suffix('L').map_or((word, ""), |name| (name, "L"));
            let number = match position(&WEEKDAYS, name) {
                Some(0) if before == Some('-') => "7".to_owned(),
                Some(weekday) => weekday.to_string(),
                None if is_number(name) => name.to_owned(),
                None => return None,
            };
            Some(number + last)
        }
    }
}

fn position(names: &[&str], name: &str) -> Option<usize> {
    names.iter().position(|known| *known == name)
}
