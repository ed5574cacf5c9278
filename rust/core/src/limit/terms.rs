//! The limits of one workflow, as declared, and their form as JSON, which is what stands in a store and what comes from Python.
//! Invariant: what is written is read as the same again.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result, excerpt};
use crate::limit::key::with_parsed;
use crate::limit::{Key, Rate};
use crate::time::Wall;

/// What becomes of a run beyond a workflow's concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// It waits.
    #[default]
    Wait,
    /// It does not become a run while as many are unfinished as may be at work.
    DropNew,
}

/// How many runs of a workflow may be between their first beginning and their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// So many, at least one.
    pub limit: u64,
    /// For each value of this; of all together if none.
    pub key: Option<Key>,
    /// What becomes of the next one.
    pub overflow: Overflow,
}

/// A rate for each value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paced {
    /// How many in which time.
    pub rate: Rate,
    /// For each value of this; for all together if none.
    pub key: Option<Key>,
}

/// What limits the runs of a workflow; no limit where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of runs that have begun and not ended.
    pub concurrency: Option<Concurrency>,
    /// Of starts: what is beyond it waits.
    pub throttle: Option<Paced>,
    /// Of admissions: what is beyond it is dropped.
    pub rate_limit: Option<Paced>,
}

/// By which limit something is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// As many runs are unfinished as may be at work.
    Concurrency,
    /// Admissions come too fast.
    RateLimit,
}

impl Rule {
    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::RateLimit => "rate_limit",
        }
    }
}

/// Why a run was dropped by a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// By which.
    pub rule: Rule,
    /// Of which value of its key, if it has one.
    pub key: Option<String>,
    /// In words.
    pub why: String,
}

/// The values of a workflow's keys for one run; empty where a limit has no key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// For its concurrency.
    pub concurrency: String,
    /// For its throttle.
    pub throttle: String,
    /// For its rate limit.
    pub rate_limit: String,
}
impl Limits {
    /// Whether runs wait in the store for their beginning.
    pub fn holds(&self) -> bool {
        let waits = self.concurrency.as_ref().is_some_and(|terms| terms.overflow == Overflow::Wait);
        waits || self.throttle.is_some()
    }

    /// Whether what they hold is told apart by keys.
    pub fn has_keys(&self) -> bool {
        let concurrency = self.concurrency.as_ref().is_some_and(|terms| terms.key.is_some());
        self.holds() && (concurrency || self.throttle.as_ref().is_some_and(|paced| paced.key.is_some()))
    }

    /// How many runs of a key may be unfinished, if what is beyond is dropped.
    pub fn unfinished_max(&self) -> Option<u64> {
        let terms = self.concurrency.as_ref().filter(|terms| terms.overflow == Overflow::DropNew)?;
        Some(terms.limit)
    }

    /// The values of its keys in a context, JSON text.
    ///
    /// # Errors
    /// [`Kind::Context`] as [`Key::of`].
    pub fn keys_of(&self, context: &str) -> Result<Keys> {
        let concurrency = self.concurrency.as_ref().and_then(|terms| terms.key.as_ref());
        let throttle = self.throttle.as_ref().and_then(|terms| terms.key.as_ref());
        let rate_limit = self.rate_limit.as_ref().and_then(|terms| terms.key.as_ref());
        if concurrency.or(throttle).or(rate_limit).is_none() {
            return Ok(Keys::default());
        }
        with_parsed(context, |context| {
            let value = |key: Option<&Key>| key.map_or(Ok(String::new()), |key| key.of(context));
            let (concurrency, throttle) = (value(concurrency)?, value(throttle)?);
            Ok(Keys { concurrency, throttle, rate_limit: value(rate_limit)? })
        })
    }

    /// That a run is dropped, because so many of its key are unfinished as may be.
    pub fn full(&self, keys: &Keys) -> Dropped {
        let terms = self.concurrency.as_ref().expect("who is full has a concurrency");
        let key = terms.key.as_ref().map(|_| keys.concurrency.clone());
        let (limit, of) = (terms.limit, of_key(key.as_deref()));
        let why = format!("concurrency: {limit} of at most {limit} runs{of} are unfinished");
        Dropped { rule: Rule::Concurrency, key, why }
    }

    /// That a run is dropped, because the next of its key passes at that time.
    pub fn too_fast(&self, keys: &Keys, at: Wall) -> Dropped {
        let terms = self.rate_limit.as_ref().expect("what is too fast has a rate limit");
        let key = terms.key.as_ref().map(|_| keys.rate_limit.clone());
        let Rate { limit, per, .. } = terms.rate;
        let (of, at) = (of_key(key.as_deref()), at.rfc3339());
        let why = format!("rate limit: {limit} in {}{of} have come; the next passes at {at}", span_text(per));
        Dropped { rule: Rule::RateLimit, key, why }
    }

    /// Whether there is nothing that limits.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        let mut limits = Map::new();
        if let Some(concurrency) = &self.concurrency {
            let overflow = match concurrency.overflow {
                Overflow::Wait => "wait",
                Overflow::DropNew => "drop_new",
            };
            let terms =
                json!({"limit": concurrency.limit, "key": text(&concurrency.key), "overflow": overflow});
            limits.insert(String::from("concurrency"), terms);
        }
        for (name, paced) in [("throttle", &self.throttle), ("rate_limit", &self.rate_limit)] {
            if let Some(Paced { rate, key }) = paced {
                let per_us = u64::try_from(rate.per.as_micros()).unwrap_or(u64::MAX);
                let terms =
                    json!({"limit": rate.limit, "per_us": per_us, "burst": rate.burst, "key": text(key)});
                limits.insert(String::from(name), terms);
            }
        }
        Value::Object(limits).to_string()
    }

    /// Of their JSON. What a later version may have written beside is passed over.
    ///
    /// # Errors
    /// [`Kind::Workflow`] if it is none of theirs.
    pub fn from_json(json: &str) -> Result<Self> {
        let found: Value = serde_json::from_str(json).map_err(|_| unknown(json))?;
        let limits = found.as_object().ok_or_else(|| unknown(json))?;
        let number =
            |terms: &Value, name: &str| terms.get(name).and_then(Value::as_u64).filter(|&number| number > 0);
        let key = |terms: &Value| terms.get("key").and_then(Value::as_str).map(Key::parse).transpose();
        let paced = |name: &str| {
            let Some(terms) = limits.get(name) else { return Ok(None) };
            let numbers = (number(terms, "limit"), number(terms, "per_us"), number(terms, "burst"));
            let (Some(limit), Some(per_us), Some(burst)) = numbers else { return Err(unknown(json)) };
            let rate = Rate { limit, per: Duration::from_micros(per_us), burst };
            Ok(Some(Paced { rate, key: key(terms)? }))
        };
        let concurrency = match limits.get("concurrency") {
            None => None,
            Some(terms) => {
                let overflow = match terms.get("overflow").and_then(Value::as_str) {
                    Some("wait") => Overflow::Wait,
                    Some("drop_new") => Overflow::DropNew,
                    _ => return Err(unknown(json)),
                };
                let limit = number(terms, "limit").ok_or_else(|| unknown(json))?;
                Some(Concurrency { limit, key: key(terms)?, overflow })
            }
        };
        Ok(Self { concurrency, throttle: paced("throttle")?, rate_limit: paced("rate_limit")? })
    }
}

/// Of which key, in a message; nothing for none.
fn of_key(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!(" of key \"{}\"", excerpt(key)))
}

fn span_text(span: Duration) -> String {
    let us = span.as_micros();
    let units =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
    match units.into_iter().find(|(unit, _)| us >= *unit && us.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", us / unit),
        None => format!("{}s", span.as_secs_f64()),
    }
}

fn text(key: &Option<Key>) -> Option<&str> {
    key.as_ref().map(Key::text)
}

fn unknown(json: &str) -> Error {
    Error::new(
        Kind::Workflow,
        format!("the limits of a workflow are {json}, which this version does not know"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_again() {
        let key = |text: &str| Some(Key::parse(text).unwrap());
        let rate = Rate { limit: 100, per: Duration::from_secs(3600), burst: 7 };
        let concurrency = Concurrency { limit: 2, key: key("order.tenant"), overflow: Overflow::DropNew };
        let whole = Limits {
            concurrency: Some(concurrency.clone()),
            throttle: Some(Paced { rate, key: None }),
            rate_limit: Some(Paced { rate: Rate { burst: 1, ..rate }, key: key("{a}:{b}") }),
        };
        let waits = Limits {
            concurrency: Some(Concurrency { overflow: Overflow::Wait, ..concurrency }),
            ..Limits::default()
        };
        for limits in [whole, waits, Limits::default()] {
            assert_eq!(Limits::from_json(&limits.to_json()).unwrap(), limits);
        }
    }

    #[test]
    fn what_is_none_of_it_is_refused() {
        for json in [
            "",
            "[]",
            r#"{"throttle": {"limit": 0, "per_us": 1, "burst": 1}}"#,
            r#"{"concurrency": {"limit": 1}}"#,
        ] {
            assert!(Limits::from_json(json).is_err(), "{json}");
        }
    }
}
