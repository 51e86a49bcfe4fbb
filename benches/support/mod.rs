//! What the benches share: the service they call, how samples become figures, where figures go.
//!
//! Knows nothing about what is measured.

#![allow(dead_code, unreachable_pub)]

pub mod heap;
pub mod results;
pub mod samples;
pub mod warm;
