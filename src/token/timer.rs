//! Tokio's timers, on whatever runtime there is.
//!
//! A runtime without them, or none at all, is an error here and not a panic (where panics unwind, that is:
//! with `panic = "abort"` nothing can be caught). Knows nothing of what is timed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::Handle;

use crate::error::AuthError;

/// What `make` makes, which has a timer of the current runtime in it.
pub(super) fn timed<T>(make: impl FnOnce() -> T) -> Result<T, AuthError> {
    if Handle::try_current().is_err() {
        return Err(AuthError::no_runtime());
    }
    // The only way to find out whether the runtime was built with `enable_time`.
    catch_unwind(AssertUnwindSafe(make)).map_err(|_| AuthError::no_runtime())
}
