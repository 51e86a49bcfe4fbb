//! The slot's synchronisation primitives: the real ones, or a model checker's stand-ins.
//!
//! Under `--cfg scoped_auth_loom` the same slot is compiled against loom's lock and atomics, and
//! `slot_model.rs` has loom try every interleaving. Nothing else differs. What a 401 writes
//! (`rejection.rs`, `stamp.rs`) is not replaced, and is outside the model.

#[cfg(not(scoped_auth_loom))]
pub(super) use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI64, AtomicU64},
};

#[cfg(scoped_auth_loom)]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU64},
};
#[cfg(scoped_auth_loom)]
pub(super) use std::sync::PoisonError;

#[cfg(not(scoped_auth_loom))]
pub(super) type Swap<T> = arc_swap::ArcSwapOption<T>;

#[cfg(scoped_auth_loom)]
pub(super) use self::model::Swap;

#[cfg(scoped_auth_loom)]
mod model {
    use std::sync::{Arc, PoisonError};

    use loom::sync::Mutex;

    /// An arc-swap slot as its documentation specifies it: each operation is one atomic step.
    pub(in crate::token) struct Swap<T>(Mutex<Option<Arc<T>>>);

    impl<T> Swap<T> {
        pub(in crate::token) fn empty() -> Self {
            Self(Mutex::new(None))
        }

        pub(in crate::token) fn load(&self) -> Box<Option<Arc<T>>> {
            Box::new(self.load_full())
        }

        pub(in crate::token) fn load_full(&self) -> Option<Arc<T>> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        }

        pub(in crate::token) fn store(&self, value: Option<Arc<T>>) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
        }
    }
}
