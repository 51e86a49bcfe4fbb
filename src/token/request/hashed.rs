//! `Hashed`: a shared value that is hashed once, for keys that are looked up on every request.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash, Hasher},
    ops::Deref,
    sync::{Arc, OnceLock},
};

/// A shared text or list, hashed when it is made, so that a lookup hashes only eight bytes.
pub(super) struct Hashed<T: ?Sized> {
    value: Arc<T>,
    /// Computed with a per-process seed.
    hash: u64,
}

impl<T: ?Sized + Hash> Hashed<T> {
    pub(super) fn new(value: Arc<T>) -> Self {
        static SEED: OnceLock<RandomState> = OnceLock::new();
        let hash = SEED.get_or_init(RandomState::new).hash_one(&*value);
        Self { value, hash }
    }
}

impl<T: ?Sized> Deref for Hashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Clone for Hashed<T> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            hash: self.hash,
        }
    }
}

impl<T: ?Sized + PartialEq> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
            || (self.hash == other.hash && self.value == other.value)
    }
}

impl<T: ?Sized + Eq> Eq for Hashed<T> {}

impl<T: ?Sized> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
