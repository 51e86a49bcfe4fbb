//! Who rejected a token, and how a 401 finds it.
//!
//! A request that was sent carries a number, its token's [`Serial`], and no count of anything: to hold the
//! token itself until the response is there would be two atomic exchanges more for each request, for the
//! sake of the few that are answered 401. Those few look the number up here, among all tokens in service in
//! this process. A token that is not there any more has nobody to be told of it.
//!
//! Knows stamps, which it marks. Knows neither leases nor slots.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use super::stamp::Stamps;

/// Who asks, as far as a rejection cares: a hash of the request's origin.
pub(crate) type Asker = NonZeroU64;

/// The name of a token in service, never used again in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serial(NonZeroU64);

/// The origins that answered 401 to one token.
pub(super) struct Rejection {
    serial: Serial,
    stamps: Stamps,
    /// In the order in which they first did; 0 is a free place.
    by: [AtomicU64; ORIGINS],
}

/// Origins told apart. A token that was rejected by more is taken to be rejected by all.
const ORIGINS: usize = 4;

/// In the last place: there were more.
const ALL: u64 = u64::MAX;

/// Written to when a token comes into service and when it is gone, and read after a 401.
static IN_SERVICE: Mutex<BTreeMap<Serial, Weak<Rejection>>> = Mutex::new(BTreeMap::new());

/// `asker` was answered 401 to a request with the token of that name.
pub(crate) fn report(serial: Serial, asker: Asker) {
    if let Some(rejection) = find(serial) {
        rejection.add(asker);
    }
}

/// Gives the lock back first: who drops the last of what was found takes it again.
fn find(serial: Serial) -> Option<Arc<Rejection>> {
    in_service().get(&serial).and_then(Weak::upgrade)
}

fn in_service() -> MutexGuard<'static, BTreeMap<Serial, Weak<Rejection>>> {
    // Nothing under this lock can leave the map half changed.
    IN_SERVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Serial {
    pub(super) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);

        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // At a million tokens per second it is there again after half a million years.
        Self(NonZeroU64::new(next).unwrap_or(NonZeroU64::MIN))
    }
}

impl Rejection {
    /// Of a token that comes into service with `stamps`.
    pub(super) fn of(serial: Serial, stamps: Stamps) -> Arc<Self> {
        let rejection = Arc::new(Self {
            serial,
            stamps,
            by: Default::default(),
        });
        in_service().insert(serial, Arc::downgrade(&rejection));
        rejection
    }

    pub(super) fn is_by(&self, asker: Asker) -> bool {
        let by = |place: &AtomicU64| place.load(Ordering::Relaxed);
        self.by
            .iter()
            .map(by)
            .any(|by| by == asker.get() || by == ALL)
    }

    fn add(&self, asker: Asker) {
        // Flags that later requests may see a little later; they order nothing.
        let is_taken = |place: &AtomicU64| {
            let free = place.compare_exchange(0, asker.get(), Ordering::Relaxed, Ordering::Relaxed);
            free.is_err_and(|by| by != asker.get())
        };
        let [.., last] = &self.by;
        if self.by.iter().all(is_taken) {
            last.store(ALL, Ordering::Relaxed);
        }
        self.stamps.mark_rejected();
    }
}

impl Drop for Rejection {
    fn drop(&mut self) {
        in_service().remove(&self.serial);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::token::value::Token;

    const ASKER: Asker = NonZeroU64::MIN;

    fn token_in_service() -> (Stamps, Arc<Rejection>) {
        let serial = Serial::next();
        let token = Token::new("secret", Duration::from_secs(3600));
        let stamps = Stamps::of(&token, serial).unwrap();
        (stamps.clone(), Rejection::of(serial, stamps))
    }

    #[test]
    fn a_401_finds_its_token_and_no_other() {
        let (stamps, rejection) = token_in_service();
        let (others, other) = token_in_service();
        assert_ne!(rejection.serial, other.serial);
        report(rejection.serial, ASKER);
        assert!(stamps.all().all(|stamp| stamp.is_rejected()));
        assert!(rejection.is_by(ASKER));
        assert!(others.all().all(|stamp| !stamp.is_rejected()));
        assert!(!other.is_by(ASKER));
    }

    #[test]
    fn a_token_that_is_gone_is_told_nothing_and_leaves_nothing() {
        let (stamps, rejection) = token_in_service();
        let serial = rejection.serial;
        // Somebody looks at it while it goes, and is the last who does.
        let found = find(serial);
        drop(rejection);
        assert!(in_service().contains_key(&serial));
        drop(found);
        assert!(!in_service().contains_key(&serial));
        report(serial, ASKER);
        assert!(stamps.all().all(|stamp| !stamp.is_rejected()));
    }
}
