//! Metrics: counters, gauges and one histogram through the `metrics` facade.
//!
//! Each cache has one [`Meters`], each token request one [`TokenMeter`]. With the feature `metrics`
//! they are defined in `on.rs`. Without it they are in `off.rs`, under the same names and with nothing
//! in them, so that callers need not know which. They receive outcomes and durations, never a token.

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{Meters, Rejections, TokenMeter, Waiting};
#[cfg(feature = "metrics")]
pub(crate) use self::on::{Meters, Rejections, TokenMeter, Waiting};
