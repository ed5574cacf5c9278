//! What should happen: the decisions of cloaca, without Python and without SQL.
//!
//! Reading order, each knowing only what stands before it:
//!
//! - words: [`error`], [`near`] (which name was meant), [`time`], [`policy`], [`grid`] (when a trigger is due across restarts), [`record`] (what is kept of
//!   runs), [`tries`] (and of attempts), [`port`] (what is asked of a store), [`workflow`], [`audit`] (in whose name a change is made),
//!   [`fault_point`];
//! - mechanisms: [`wheel`], [`cadence`], [`cron`], [`graph`], [`rule`], [`context`], [`history`], [`version`], [`meter`] (what is counted), [`pace`] (how many ended of late), [`spread`] (who polls what), [`layout`] (of a picture),
//!   the room on the stack that nested values need, and [`limit`] (how many at once, how fast);
//! - judges: [`admit`] (one fire), [`seat`] (which attempts begin under limits with names), [`fate`] (the fires of one tick), [`run`] (one run), [`poll`] (who is polled next), [`outlook`] (how a trigger stands, seen
//!   from outside);
//! - [`engine`]: `step(event, now) -> effects`, which ties the judges together and does nothing itself;
//! - the world: [`runtime`], with threads, parking, the job queue and the writer; [`client`], who changes something without one.
#![forbid(unsafe_code)]

pub mod admit;
pub mod audit;
pub mod cadence;
pub mod client;
pub mod context;
pub mod cron;
pub mod engine;
pub mod error;
pub mod fate;
pub mod fault_point;
pub mod graph;
pub mod grid;
pub mod history;
pub mod key;
pub mod layout;
pub mod limit;
pub mod meter;
pub mod near;
pub mod outlook;
pub mod pace;
pub mod past;
pub mod policy;
pub mod poll;
pub mod port;
pub mod record;
mod room;
pub mod rule;
pub mod run;
pub mod runtime;
pub mod seat;
pub mod spread;
pub mod time;
pub mod tries;
pub mod urgency;
pub mod version;
pub mod wheel;
pub mod workflow;
