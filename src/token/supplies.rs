//! The supplies a cache remembers, by token request, and which of them are forgotten.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{clock::nanos, request::TokenRequest, supply::Supply};

pub(super) type Supplies = HashMap<TokenRequest, Arc<Supply>, BuildHasherDefault<PassThrough>>;

/// Uses the hash that a request carries, which is already seeded.
#[derive(Default)]
pub(super) struct PassThrough(u64);

impl Hasher for PassThrough {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    // The discriminants in front of the hash.
    fn write_isize(&mut self, kind: isize) {
        self.write_u64(kind.cast_unsigned() as u64);
    }

    fn write_u64(&mut self, part: u64) {
        self.0 = self.0.rotate_left(5) ^ part;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Two lifetimes of a typical token.
const IDLE: Duration = Duration::from_secs(2 * 3600);

/// Forgets the supplies idle for too long, then those idle longest until one more fits.
pub(super) fn make_room(supplies: &mut Supplies, max_tokens: usize, now: i64) {
    let used = |supply: &Arc<Supply>| supply.used.load(Ordering::Relaxed);
    // One reference is held by the map that is being replaced, the other by this copy.
    let idle = |supply: &Arc<Supply>| Arc::strong_count(supply) <= 2;
    supplies.retain(|_, supply| !idle(supply) || now.saturating_sub(used(supply)) < nanos(IDLE));
    while supplies.len() >= max_tokens {
        let oldest = supplies
            .iter()
            .filter(|(_, supply)| idle(supply))
            .min_by_key(|(_, s)| used(s));
        let Some(oldest) = oldest.map(|(request, _)| request.clone()) else {
            return;
        };
        supplies.remove(&oldest);
    }
}
