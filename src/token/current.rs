//! The lease in service, and what a service remembers of it.
//!
//! Reading an arc-swap slot is cheap, but takes two atomic exchanges. A service that has read it before
//! only needs to know whether anything has changed since, which is a single load of a number, the
//! epoch. It is even while the lease is stable, and odd while it is being exchanged; a lease that was
//! read in between is used but not remembered. So a thread that has seen a new lease, through any
//! service, never goes back to an old one (`slot_model.rs` checks this with loom).
//!
//! Knows leases and their edges. Does not know why a lease is exchanged, nor by whom: the slot's lock
//! is held around every [`store`](Current::store).

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

use super::{
    clock::Moment,
    lease::Lease,
    stamp::{Imprint, Stamp},
    sync::{AtomicU64, Swap},
};

pub(super) struct Current {
    lease: Swap<Lease>,
    epoch: AtomicU64,
}

/// What one service remembers: the stamp it used last, and until when it needs no decision.
///
/// It keeps the token's bytes alive until the service asks again, as the slot itself does. A clone
/// starts empty, because copying the stamp would write to a count that all clones share. A service does
/// not remember a stamp on its first use either, because many clones are made for one request only;
/// that would be two more writes to the stamp's count.
pub(crate) struct Memo {
    epoch: u64,
    fresh_until: Moment,
    stamp: Option<Arc<Stamp>>,
    asked: bool,
}

/// Not the epoch of any lease: those are even.
const NEVER: u64 = u64::MAX;

impl Current {
    pub(super) fn empty() -> Self {
        Self {
            lease: Swap::empty(),
            epoch: AtomicU64::new(0),
        }
    }

    pub(super) fn load(&self) -> impl std::ops::Deref<Target = Option<Arc<Lease>>> {
        self.lease.load()
    }

    pub(super) fn load_full(&self) -> Option<Arc<Lease>> {
        self.lease.load_full()
    }

    /// Exchanges the lease. Never called concurrently.
    pub(super) fn store(&self, lease: Option<Arc<Lease>>) {
        // Odd before the new lease becomes visible, even afterwards: whoever sees the new lease no
        // longer finds the epoch under which the old one was remembered.
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.lease.store(lease);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// An imprint of the remembered stamp, if it still needs no decision.
    #[inline]
    pub(super) fn recall(&self, memo: &Memo, now: Moment) -> Option<Imprint> {
        if memo.epoch == self.epoch.load(Ordering::Acquire)
            && now.is_before(memo.fresh_until)
            && let Some(stamp) = &memo.stamp
            && !stamp.is_rejected()
        {
            return Some(stamp.imprint());
        }
        None
    }

    /// An imprint of the stamp of a lease that needs no decision.
    // Always inlined: as a call it takes 16 more instructions (`benches/instructions`).
    #[inline(always)]
    pub(super) fn peek(&self, now: Moment) -> Option<Imprint> {
        let lease = self.lease.load();
        let stamp = (*lease).as_ref()?.unquestioned_stamp(now)?;
        Some(stamp.imprint())
    }

    /// The same, for a service that may ask again.
    #[inline]
    pub(super) fn look(&self, memo: &mut Memo, now: Moment) -> Option<Imprint> {
        if mem::replace(&mut memo.asked, true) {
            self.remember(memo, now)
        } else {
            self.peek(now)
        }
    }

    // Kept out of line, because a clone that is made for one request does not run it.
    #[inline(never)]
    fn remember(&self, memo: &mut Memo, now: Moment) -> Option<Imprint> {
        // Read before the lease: a lease newer than its epoch is merely looked up again.
        let epoch = self.epoch.load(Ordering::Acquire);
        let lease = self.lease.load();
        let unquestioned = (*lease)
            .as_ref()
            .and_then(|lease| Some((lease.edges().fresh_until, lease.unquestioned_stamp(now)?)));
        *memo = match unquestioned {
            // An odd epoch belongs to no lease: this one may have been exchanged since.
            Some((fresh_until, stamp)) if epoch.is_multiple_of(2) => Memo {
                epoch,
                fresh_until,
                stamp: Some(Arc::clone(stamp)),
                asked: true,
            },
            _ => Memo {
                asked: true,
                ..Memo::default()
            },
        };
        unquestioned.map(|(_, stamp)| stamp.imprint())
    }
}

impl Default for Memo {
    fn default() -> Self {
        Self {
            epoch: NEVER,
            fresh_until: Moment::PAST,
            stamp: None,
            asked: false,
        }
    }
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(all(test, not(scoped_auth_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::token::{schedule::Edges, value::Token};

    #[test]
    fn what_is_asked_for_again_is_remembered() {
        const HOUR: Duration = Duration::from_secs(3600);
        let now = Moment { mono: 0, wall: 0 };
        let token = Token::new("secret", HOUR);
        let edges = Edges::of(&token, now, HOUR, 0.0);
        let current = Current::empty();
        current.store(Lease::new(token, 1, edges).map(Arc::new));

        let mut memo = Memo::default();
        assert!(current.look(&mut memo, now).is_some());
        assert!(memo.stamp.is_none(), "a clone made for one request");
        assert!(current.recall(&memo, now).is_none());
        let read = current.look(&mut memo, now).unwrap();
        assert!(memo.stamp.is_some());
        assert_eq!(memo.epoch, 2);
        let recalled = current.recall(&memo, now).unwrap();
        assert_eq!(recalled.header, read.header);
        assert_eq!(recalled.serial, read.serial);
        assert!(memo.clone().stamp.is_none());
        // A service that looked and found nothing remembers from its next look on.
        current.store(None);
        assert!(current.recall(&memo, now).is_none());
        assert!(current.look(&mut memo, now).is_none());
        assert!(memo.stamp.is_none());
    }
}
