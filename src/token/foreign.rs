//! Calls of foreign code, whose panics stay there: wakers and subscribers.
//!
//! Knows neither. A panic in one must not keep the others from being told, nor, while another panic
//! unwinds, abort the process.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `code`, and ends its panic, if any: the panic hook has reported it by then.
pub(in crate::token) fn contained(code: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(code));
}
