//! Who rejected a token, and how a 401 is matched to it.
//!
//! A request that was sent carries a number, its token's [`Serial`], and no reference count: holding
//! the token itself until the response arrives would increment and decrement a count for every request,
//! for the sake of the few that are answered with 401. Those few look the number up here, among all
//! tokens in service in this process. If a token is no longer there, the 401 concerns nobody.
//!
//! Knows stamps, which it marks. Knows neither leases nor slots.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use super::stamp::{Serial, Stamps};
use crate::destination::OriginId;

/// The origins that answered a token with 401.
pub(super) struct Rejection {
    stamps: Stamps,
    /// In the order in which they first did so; 0 is a free place.
    by: [AtomicU64; ORIGINS],
}

/// The number of origins told apart. A token rejected by more counts as rejected by all.
const ORIGINS: usize = 4;

/// Stored in the last place if there were more.
const ALL: u64 = u64::MAX;

type ByName = BTreeMap<Serial, Weak<Rejection>>;

/// Locked when a token comes into service, when it is dropped, and after a 401. While it is held,
/// nothing else is locked, waited for or dropped. It has a cache line of its own, to avoid false
/// sharing.
#[repr(align(128))]
struct InService(Mutex<ByName>);

static IN_SERVICE: InService = InService(Mutex::new(BTreeMap::new()));

/// A request with the token of that serial was answered with 401 by the origin `origin`.
pub(crate) fn report(serial: Serial, origin: OriginId) {
    if let Some(rejection) = find(serial) {
        rejection.add(origin);
    }
}

/// Releases the lock before it returns: dropping the last reference to the result takes the lock again.
fn find(serial: Serial) -> Option<Arc<Rejection>> {
    in_service().get(&serial).and_then(Weak::upgrade)
}

fn in_service() -> MutexGuard<'static, ByName> {
    // Nothing under this lock can leave the map half changed.
    IN_SERVICE.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rejection {
    /// The rejection of a token that comes into service with `stamps`. Created once per serial.
    pub(super) fn of(stamps: Stamps) -> Arc<Self> {
        let serial = stamps.serial();
        let rejection = Arc::new(Self {
            stamps,
            by: Default::default(),
        });
        in_service().insert(serial, Arc::downgrade(&rejection));
        rejection
    }

    /// True if any origin rejected the token.
    pub(super) fn is_set(&self) -> bool {
        let [first, ..] = &self.by;
        first.load(Ordering::Relaxed) != 0
    }

    pub(super) fn is_by(&self, origin: OriginId) -> bool {
        let by = |place: &AtomicU64| place.load(Ordering::Relaxed);
        self.by
            .iter()
            .map(by)
            .any(|by| by == origin.get() || by == ALL)
    }

    fn add(&self, origin: OriginId) {
        // Flags that later requests may see with a delay; they order nothing.
        let is_taken = |place: &AtomicU64| {
            let free =
                place.compare_exchange(0, origin.get(), Ordering::Relaxed, Ordering::Relaxed);
            free.is_err_and(|by| by != origin.get())
        };
        let [.., last] = &self.by;
        if !self.is_by(origin) && self.by.iter().all(is_taken) {
            last.store(ALL, Ordering::Relaxed);
        }
        self.stamps.mark_rejected();
    }
}

impl Drop for Rejection {
    fn drop(&mut self) {
        in_service().remove(&self.stamps.serial());
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::token::value::Token;

    const ORIGIN: OriginId = OriginId::MIN;

    fn token_in_service() -> (Stamps, Arc<Rejection>) {
        let token = Token::new("secret", Duration::from_secs(3600));
        let stamps = Stamps::of(&token).unwrap();
        (stamps.clone(), Rejection::of(stamps))
    }

    #[test]
    fn a_401_finds_its_token_and_no_other() {
        let (stamps, rejection) = token_in_service();
        let (others, other) = token_in_service();
        assert_ne!(stamps.serial(), others.serial());
        report(stamps.serial(), ORIGIN);
        assert!(stamps.all().all(|stamp| stamp.is_rejected()));
        assert!(rejection.is_by(ORIGIN));
        assert!(others.all().all(|stamp| !stamp.is_rejected()));
        assert!(!other.is_by(ORIGIN));
    }

    #[test]
    fn a_token_that_is_gone_is_told_nothing_and_leaves_nothing() {
        let (stamps, rejection) = token_in_service();
        let serial = stamps.serial();
        // Another thread looks at it while it is being dropped, and is the last to do so.
        let found = find(serial);
        drop(rejection);
        assert!(in_service().contains_key(&serial));
        drop(found);
        assert!(!in_service().contains_key(&serial));
        report(serial, ORIGIN);
        assert!(stamps.all().all(|stamp| !stamp.is_rejected()));
    }

    #[test]
    fn a_token_may_go_while_401s_come_in() {
        let (stamps, rejection) = token_in_service();
        let serial = stamps.serial();
        thread::scope(|scope| {
            for origin in 1..=2 {
                scope.spawn(move || {
                    for _ in 0..50 {
                        report(serial, ORIGIN.saturating_add(origin));
                    }
                });
            }
            scope.spawn(move || drop(rejection));
        });
        assert!(!in_service().contains_key(&serial));
    }
}
