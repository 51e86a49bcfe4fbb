//! The token's road: source → cache → slot.
//!
//! # The life of a token
//!
//! ```text
//!  request sent                          225 s before (+ jitter)      10 s before     expiry
//!      │                                          │                        │             │
//!      │                 fresh                    │         stale          │    guard    │  expired
//!      │  stamped at once; nobody does anything   │  stamped at once; the  │  waits for  │  never
//!      │                                          │  first request begins  │  a refresh, │  stamped;
//!      │                                          │  a refresh, later ones │  at most 3 s│  requests
//!      │                                          │  begin the next one at │  then goes  │  wait, at
//!      │                                          │  the pace of the       │  with what  │  most 30 s
//!      │                                          │  schedule              │  there is   │
//! ```
//!
//! Life is counted from the moment the request for the token was *sent*, and ends at the earlier of
//! two clocks ([`clock`]).
//!
//! | module | knows | does not know |
//! | --- | --- | --- |
//! | [`value`], [`request`] | what a token is, as a header too; what can be asked for | clocks, sources |
//! | [`clock`], [`schedule`] | readings, edges, waits: pure | tokens in service, tasks |
//! | [`rate`] | when refreshes began, over all slots | whose they were |
//! | [`turns`] | how many fetches run, who is next in line | what is done with a turn |
//! | [`stamp`] | a token's name and header values, by thread | how long it lives |
//! | [`rejection`] | who answered 401 to which token | leases, slots |
//! | [`lease`] | a token in service, its stamps, its rejection | slots, fetches |
//! | [`current`] | the lease in service, and whether it has changed | why it changes |
//! | [`slot`], [`waiters`] | the state machine: who may fetch, who waits; handles to stop a fetch | clocks, sources; starts nothing |
//! | [`attempt`] | one call of a source: its time, its panics | what becomes of the answer |
//! | [`fetcher`] | the source, and the bounds over all slots | which slot asks, for whom |
//! | [`flight`] | how one attempt runs as a task | who asked, and why |
//! | [`supply`] | one request's slot, and what it needs from outside | HTTP |
//! | [`foreign`] | that a panic ends there | whose code it runs |
//! | [`timer`] | whether the runtime has timers | what is timed |
//! | [`wait`] | a waiting request's timer | what it is waiting for |
//! | [`cache`], [`cache_builder`], [`supplies`], [`keep_fresh`], [`status`] | one supply per request | HTTP requests, destinations |
//! | [`source`], [`from_service`] | the question a source answers | everything above |
//! | [`events`], [`meters`] | what the log and the metrics say | secrets |

pub(crate) mod attempt;
pub(crate) mod cache;
pub(crate) mod cache_builder;
pub(crate) mod clock;
pub(crate) mod current;
pub(crate) mod events;
mod fetcher;
mod flight;
mod foreign;
mod from_service;
mod keep_fresh;
pub(crate) mod lease;
pub(crate) mod meters;
mod rate;
pub(crate) mod rejection;
pub(crate) mod request;
mod schedule;
mod slot;
#[cfg(all(test, scoped_auth_loom))]
mod slot_model;
pub mod source;
pub(crate) mod stamp;
pub(crate) mod status;
#[cfg(feature = "serde")]
mod status_serde;
mod supplies;
pub(crate) mod supply;
mod sync;
mod timer;
mod turns;
pub(crate) mod value;
pub(crate) mod wait;
mod waiters;
