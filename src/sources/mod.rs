//! Ready-made token sources, one file or folder each.
//!
//! A source answers [`TokenSource::fetch`](crate::TokenSource::fetch) and keeps nothing: no cache,
//! no retries, no clock. It may know [`crate::token::request`] and [`crate::token::value`], and
//! nothing of slots, layers or HTTP requests on their way out.

#[cfg(any(feature = "metadata", feature = "token-file"))]
mod jwt;
#[cfg(feature = "metadata")]
mod jwt;
#[cfg(feature = "metadata")]
pub(crate) mod metadata;
