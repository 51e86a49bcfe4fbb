//! `Asker`: whose request it is, as far as a 401 to it is concerned.
//!
//! A number and nothing else: both the request's road, which makes it of an origin, and the token's road,
//! which remembers it, know this.

use std::num::NonZeroU64;

/// A hash of the origin that a request goes to.
pub(crate) type Asker = NonZeroU64;
