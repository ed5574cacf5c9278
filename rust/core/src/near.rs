//! Says of a name that nothing has which one was meant, and which there are. Pure.
//! Invariant: what it says is bounded, however many names there are and however long.

use std::fmt::Write;

use crate::error::excerpt;

/// Names are listed while they have so many bytes together; at least one is.
pub const LISTED_BYTES_MAX: usize = 500;
/// Among so many names the nearest is looked for.
pub const LOOKED_MAX: usize = 10_000;
/// Longer names are never near.
const CHARS_MAX: usize = 255;
/// More slips than so many are no slips.
const SLIPS_MAX: usize = 4;

/// What to say behind a name that none of the known ones is: the one that was probably meant, and which there are.
///
/// ```
/// # use cloaca_core::near::hint;
/// assert_eq!(hint("extrct", "tasks", &["extract", "load"]), "; did you mean 'extract'? known tasks: extract, load");
/// assert_eq!(hint::<&str>("x", "tasks", &[]), "; known tasks: none");
/// ```
pub fn hint<N: AsRef<str>>(name: &str, kind: &str, known: &[N]) -> String {
    let mut said = String::from(";");
    if let Some(near) = nearest(name, known.iter().map(AsRef::as_ref)) {
        write!(said, " did you mean '{}'?", excerpt(near)).expect("a string takes everything");
    }
    write!(said, " known {kind}: {}", listed(known)).expect("a string takes everything");
    said
}

fn listed<N: AsRef<str>>(known: &[N]) -> String {
    let mut listed = String::new();
    for (at, name) in known.iter().enumerate() {
        let name = excerpt(name.as_ref());
        if at > 0 && listed.len() + name.len() > LISTED_BYTES_MAX {
            return format!("{listed} and {} more", known.len() - at);
        }
        listed.push_str(if at > 0 { ", " } else { "" });
        listed.push_str(&name);
    }
    if listed.is_empty() { "none".to_owned() } else { listed }
}

/// The name that was probably meant: the one with the fewest slips, the first of several, if they are few for its length.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = plain(name)?;
    let mut best = None;
    let mut slips_allowed = (given.len() / 3).max(usize::from(given.len() > 1)).min(SLIPS_MAX);
    for candidate in known.into_iter().take(LOOKED_MAX) {
        let Some(letters) = plain(candidate).filter(|_| candidate != name) else { continue };
        if let Some(slips) = slips(&given, &letters, slips_allowed) {
            best = Some(candidate);
            match slips {
                0 => break,
                _ => slips_allowed = slips - 1,
            }
        }
    }
    best
}

/// The letters of a name that count: in lower case, without what joins words; none if there are too many, or none.
fn plain(name: &str) -> Option<Vec<char>> {
    if name.len() > 4 * CHARS_MAX {
        return None;
    }
    let joins = ['_', '-', '.', ' '];
    let letters: Vec<char> = name.to_lowercase().chars().filter(|letter| !joins.contains(letter)).collect();
    (1..=CHARS_MAX).contains(&letters.len()).then_some(letters)
}

/// How many letters were left out, added, changed or swapped with their neighbour, unless more than allowed. Only what lies so near
/// the diagonal is looked at: names may be long, and many.
fn slips(left: &[char], right: &[char], allowed: usize) -> Option<usize> {
    if left.len().abs_diff(right.len()) > allowed {
        return None;
    }
    let far = allowed + 1;
    let mut before = vec![far; right.len() + 1];
    let mut above: Vec<usize> = (0..=right.len()).map(|slips| slips.min(far)).collect();
    let mut row = before.clone();
    for i in 1..=left.len() {
        let (first, last) = (i.saturating_sub(allowed), right.len().min(i + allowed));
        // Of what is left in this row from before, only its neighbours are ever read.
        for at in [first.wrapping_sub(1), last + 1] {
            if let Some(slips) = row.get_mut(at) {
                *slips = far;
            }
        }
        for j in first..=last {
            if j == 0 {
                row[0] = i;
                continue;
            }
            let changed = above[j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut fewest = changed.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                fewest = fewest.min(before[j - 2] + 1);
            }
            row[j] = fewest.min(far);
        }
        // A swap looks two rows back, so that one row alone doesn't decide.
        let mut near = row[first..=last].iter().chain(&above[first.saturating_sub(1)..=last]);
        if near.all(|&slips| slips == far) {
            return None;
        }
        std::mem::swap(&mut before, &mut above);
        std::mem::swap(&mut above, &mut row);
    }
    above.last().copied().filter(|&slips| slips < far)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, known: &[&'static str]) -> Option<&'static str> {
        nearest(name, known.iter().copied())
    }

    #[test]
    fn a_slip_is_found_and_another_word_is_not() {
        let known = ["extract", "transform", "load"];
        for (name, meant) in [
            ("extrct", Some("extract")),
            ("Extract", Some("extract")),
            ("extarct", Some("extract")),
            ("ex_tract", Some("extract")),
            ("trasnfrom", Some("transform")),
            ("lod", Some("load")),
            ("loda", Some("load")),
            ("publish", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(of(name, &known), meant, "{name}");
        }
    }

    #[test]
    fn of_several_the_nearest_is_meant_and_else_the_first() {
        assert_eq!(of("task_3", &["task_12", "task_2", "task_30", "task_4"]), Some("task_2"));
        assert_eq!(of("report", &["reports", "report_"]), Some("report_"));
    }

    /// The same, of all letters with all, as it is defined.
    fn slips_of_all(left: &[char], right: &[char]) -> usize {
        let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
        for i in 1..=left.len() {
            let mut row = vec![i];
            for j in 1..=right.len() {
                let changed = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
                let mut fewest = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
                if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                    fewest = fewest.min(rows[i - 2][j - 2] + 1);
                }
                row.push(fewest);
            }
            rows.push(row);
        }
        rows[left.len()][right.len()]
    }

    #[test]
    fn what_lies_near_the_diagonal_decides() {
        let letters = ['a', 'b', 'c'];
        let words: Vec<Vec<char>> = (0..600usize)
            .map(|number| {
                (0..number % 7).map(|place| letters[((number / 7) >> place) * 31 % 97 % 3]).collect()
            })
            .collect();
        for left in words.iter().step_by(3) {
            for right in words.iter().step_by(5) {
                let all = slips_of_all(left, right);
                for allowed in 0..=SLIPS_MAX {
                    let found = slips(left, right, allowed);
                    assert_eq!(found, (all <= allowed).then_some(all), "{left:?} {right:?} {allowed}");
                }
            }
        }
    }

    #[test]
    fn long_names_that_differ_at_their_end_are_soon_compared() {
        let known: Vec<String> =
            (0..LOOKED_MAX).map(|number| format!("{:a>250}", number % 7 + 10_000)).collect();
        let meant = "a".repeat(247);
        assert!(nearest(&meant, known.iter().map(String::as_str)).is_none());
    }

    #[test]
    fn nothing_is_meant_by_itself() {
        assert_eq!(of("report", &["report"]), None);
    }

    #[test]
    fn in_short_names_one_letter_may_be_wrong_and_a_single_one_must_be_right() {
        assert_eq!(of("ww", &["cd", "w"]), Some("w"));
        assert_eq!(of("ab", &["cd"]), None);
        assert_eq!(of("a", &["b"]), None);
        assert_eq!(of("AB", &["ab"]), Some("ab"));
    }

    #[test]
    fn nothing_is_too_long_or_too_many() {
        let long = "x".repeat(1_000_000);
        let known: Vec<String> = (0..100_000).map(|number| format!("{long:.300}{number}")).collect();
        let said = hint(&long, "triggers", &known);
        assert!(said.len() < 2_000, "{}", said.len());
        assert!(said.ends_with(" more"), "{said}");
        assert_eq!(hint("x", "triggers", &["abc"; 200]).matches("abc").count(), 100);
    }
}
