//! Google's own crate, `google-cloud-auth`, as a source: service account keys, workload identity
//! federation, impersonation. None of that is done here.
//!
//! | file | its job |
//! | --- | --- |
//! | `credentials.rs` | its three kinds of credentials are token sources |
//! | `application_default.rs` | one object of them per token request, built anew when it fails |
//! | `told.rs` | pure: what it says went wrong, without what could be a secret |
//!
//! # What is known of that crate (1.15 to 1.18, read)
//!
//! - An object of credentials spawns a task when it is built, on the runtime of that moment. The
//!   task fetches a token, and the next one 240 s before its end, or every 10 s if that fails.
//! - A failure that it takes for permanent ends the task; the object then fails for ever. If the
//!   task's runtime is shut down, or the task panics (no rustls crypto provider), the object
//!   panics in its caller.
//! - It hands out a token only while that has not expired by the monotonic clock, and does not say
//!   when it will.
//! - Its errors may repeat the body of a server's answer.

mod application_default;
mod credentials;
mod told;

pub use application_default::{ApplicationDefault, application_default};
