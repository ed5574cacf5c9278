//! Compares numbers by their worth, however they are spelt. Pure.
//! Invariant: two numbers are equal only if they are exactly so.

use std::cmp::Ordering;

use serde_json::Number;

/// Numbers by their worth. Never takes an integer for a float, because that would make 2^53 and 2^53 + 1 one.
pub(super) fn compare(left: &Number, right: &Number) -> Ordering {
    match (is_integer(left), is_integer(right)) {
        (true, true) => compare_integers(left.as_str(), right.as_str()),
        (true, false) => compare_integer_with_float(left.as_str(), float(right)),
        (false, true) => compare_integer_with_float(right.as_str(), float(left)).reverse(),
        (false, false) => float(left).partial_cmp(&float(right)).expect("JSON text has no NaN"),
    }
}

fn is_integer(number: &Number) -> bool {
    !number.as_str().contains(['.', 'e', 'E'])
}

fn float(number: &Number) -> f64 {
    number.as_str().parse().expect("a JSON number is a Rust float literal")
}

fn compare_integers(left: &str, right: &str) -> Ordering {
    let (left_negative, left) = sign_and_digits(left);
    let (right_negative, right) = sign_and_digits(right);
    let by_size = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
    match (left_negative, right_negative) {
        (false, false) => by_size,
        (true, true) => by_size.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

/// Zero has no digits and no sign.
fn sign_and_digits(text: &str) -> (bool, &str) {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = unsigned.trim_start_matches('0');
    (unsigned.len() < text.len() && !digits.is_empty(), digits)
}

fn compare_integer_with_float(integer: &str, float: f64) -> Ordering {
    if float.is_infinite() {
        return if float > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    // A whole float prints all of its digits, so that this is exact.
    let whole = format!("{:.0}", float.trunc());
    let fraction = 0.0_f64.partial_cmp(&float.fract()).expect("a finite float has a fraction");
    compare_integers(integer, &whole).then(fraction)
}
