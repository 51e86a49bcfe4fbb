//! Ready-made token sources, one file or folder each.
//!
//! A source answers [`TokenSource::fetch`](crate::TokenSource::fetch) and keeps nothing: no cache,
//! no retries, no clock. It may know [`crate::token::request`] and [`crate::token::value`], and
//! nothing of slots, layers or HTTP requests on their way out.

#[cfg(feature = "gcloud")]
mod gcloud;
#[cfg(any(feature = "metadata", feature = "token-file", feature = "gcloud"))]
mod jwt;
#[cfg(feature = "metadata")]
mod jwt;
#[cfg(feature = "metadata")]
pub(crate) mod metadata;
#[cfg(any(feature = "metadata", feature = "token-file", feature = "gcloud"))]
mod plain;

#[cfg(feature = "gcloud")]
pub use gcloud::{GcloudCli, GcloudCliBuilder};
#[cfg(feature = "metadata")]
pub use metadata::{MetadataServer, MetadataServerBuilder};
