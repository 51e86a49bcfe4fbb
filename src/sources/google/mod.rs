//! Google's own crate, `google-cloud-auth`, as a source: service account keys, workload identity
//! federation, impersonation. None of that is implemented here.
//!
//! | file | its job |
//! | --- | --- |
//! | `credentials.rs` | the crate's three kinds of credentials as token sources |
//! | `application_default.rs` | one credentials object per token request, rebuilt when it fails |
//! | `told.rs` | pure: the crate's error messages, without anything that could be a secret |
//!
//! # What is known of that crate (1.15 to 1.18, from its source)
//!
//! - A credentials object spawns a task when it is built, on the current runtime. The task fetches a
//!   token, then the next one 240 s before the first expires, or retries every 10 s if that fails.
//! - A failure that the crate considers permanent ends the task; the object then fails forever. If the
//!   task's runtime is shut down, or the task panics (no rustls crypto provider), the object panics in
//!   its caller.
//! - It returns a token only while that has not expired by the monotonic clock, and does not say when
//!   it will.
//! - Its errors may repeat the body of a server's response.

mod application_default;
mod credentials;
mod told;

pub use application_default::{ApplicationDefault, application_default};
