//! Tokio's timers, on whatever runtime there is.
//!
//! A runtime without timers, or no runtime at all, is an error here and not a panic. (This requires
//! that panics unwind: with `panic = "abort"` nothing can be caught.) Knows nothing of what is timed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::Handle;

use crate::error::AuthError;

/// Returns what `make` creates, which contains a timer of the current runtime.
pub(super) fn timed<T>(make: impl FnOnce() -> T) -> Result<T, AuthError> {
    if Handle::try_current().is_err() {
        return Err(AuthError::no_runtime());
    }
    // The only way to find out whether the runtime was built with `enable_time`.
    catch_unwind(AssertUnwindSafe(make)).map_err(|_| AuthError::no_runtime())
}
