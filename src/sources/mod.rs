//! Ready-made token sources, one file or folder each.
//!
//! | source | for | feature |
//! | --- | --- | --- |
//! | `MetadataServer` | Cloud Run, Functions, App Engine, GKE, GCE | `metadata` (default) |
//! | `TokenFile` | tokens that another program writes, such as Kubernetes | `token-file` (default) |
//! | `GcloudCli` | a laptop | `gcloud` |
//! | `application_default`, and Google's own credentials directly | key files, federation, impersonation | `google-cloud-auth` |
//! | [`Fixed`] | tests, static keys | |
//! | [`FirstOf`] | one program that runs in several environments | |
//!
//! A source implements [`TokenSource::fetch`](crate::TokenSource::fetch) and keeps nothing: no cache,
//! no retries, no schedule. It may know what is asked for and what a token is, but nothing of slots,
//! layers or outgoing HTTP requests.

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
