//! The limits of one workflow, as declared, and their form as JSON, which is what stands in a store and what comes from Python.
//! Invariant: what is written is read as the same again.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result};
use crate::limit::{Key, Rate};

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

impl Limits {
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
