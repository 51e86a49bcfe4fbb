//! `Asker`: which origin a 401 is attributed to.
//!
//! Just a number, known to both sides: the request side computes it from an origin, and the token side
//! remembers it.

use std::num::NonZeroU64;

/// A hash of the origin that a request goes to.
pub(crate) type Asker = NonZeroU64;
