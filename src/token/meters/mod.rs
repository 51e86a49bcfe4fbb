//! What the numbers say: counters, gauges and one histogram through the `metrics` facade.
//!
//! One cache has one [`Meters`], one token request one [`TokenMeter`]. With the feature `metrics` they
//! are `on.rs`; without it they are `off.rs`, the same names with nothing in them, so that nobody who
//! calls them need know which. They hear of outcomes and durations, never of a token.

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{Meters, Rejections, TokenMeter, Waiting};
#[cfg(feature = "metrics")]
pub(crate) use self::on::{Meters, Rejections, TokenMeter, Waiting};
