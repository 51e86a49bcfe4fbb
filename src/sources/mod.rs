//! Ready-made token sources, one file or folder each.
//!
//! | source | for | feature |
//! | --- | --- | --- |
//! | `MetadataServer` | Cloud Run, Functions, App Engine, GKE, GCE | `metadata` (default) |
//! | `TokenFile` | tokens that somebody else writes, such as Kubernetes | `token-file` (default) |
//! | `GcloudCli` | a laptop | `gcloud` |
//! | `application_default`, and Google's own credentials as they are | key files, federation, impersonation | `google-cloud-auth` |
//! | [`Fixed`] | tests, static keys | |
//! | [`FirstOf`] | one program for several places | |
//!
//! A source answers [`TokenSource::fetch`](crate::TokenSource::fetch) and keeps nothing: no cache,
//! no retries, no schedule. It may know what is asked for and what a token is, and nothing of slots,
//! layers or HTTP requests on their way out.

mod first_of;
mod fixed;
#[cfg(feature = "gcloud")]
mod gcloud;
#[cfg(feature = "google-cloud-auth")]
mod google;
#[cfg(feature = "metadata")]
pub(crate) mod metadata;
#[cfg(any(
    feature = "metadata",
    feature = "token-file",
    feature = "gcloud",
    feature = "google-cloud-auth"
))]
mod reading;
mod remark;
#[cfg(feature = "token-file")]
mod token_file;

pub use first_of::FirstOf;
pub use fixed::Fixed;
#[cfg(feature = "gcloud")]
pub use gcloud::{GcloudCli, GcloudCliBuilder};
#[cfg(feature = "google-cloud-auth")]
pub use google::{ApplicationDefault, application_default};
#[cfg(feature = "metadata")]
pub use metadata::{MetadataServer, MetadataServerBuilder};
#[cfg(feature = "token-file")]
pub use token_file::{TokenFile, TokenFileBuilder};
