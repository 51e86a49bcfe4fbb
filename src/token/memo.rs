//! What a thread remembers of the stamps it used last.
//!
//! Reading an arc-swap slot is cheap, but it is two atomic exchanges, and the lease behind it is several
//! lines of the cache. A thread that has read a slot before need only find out that nothing has changed
//! since: that is one comparison of a number. A thread remembers, not a service, for a service that is
//! cloned for each request would have nothing to remember, and a memory that clones shared would be
//! written to by all of them.
//!
//! Knows numbers, deadlines and stamps. Does not know slots, nor when a number changes ([`super::current`]).

use std::{
    cell::Cell,
    sync::{Arc, Weak},
};

use super::{clock::Moment, lease::Stamp};

/// The number of a lease, unlike that of any other in the process.
pub(super) type Epoch = u64;

/// No lease's number.
pub(super) const NONE: Epoch = 0;

/// Slots that a thread can use by turns and remember all of them; more push each other out, which costs
/// another reading of the slot.
const PLACES: usize = 4;

/// Two places to a line of the cache.
#[repr(align(64))]
pub(super) struct Memory([Memo; PLACES]);

struct Memo {
    epoch: Cell<Epoch>,
    /// How long there is nothing to decide about the stamp.
    fresh_until: Cell<Moment>,
    /// Not kept alive: a thread that stamps nothing any more would keep a token's bytes for ever.
    stamp: Cell<Weak<Stamp>>,
}

impl Memory {
    pub(super) const fn new() -> Self {
        Self([const { Memo::nothing() }; PLACES])
    }

    /// The stamp of the lease with this number, if it is remembered and there is nothing to decide about
    /// it.
    #[inline(always)]
    pub(super) fn recall(&self, epoch: Epoch, now: Moment) -> Option<Arc<Stamp>> {
        let memo = self.place(epoch);
        if memo.epoch.get() != epoch || !now.is_before(memo.fresh_until.get()) {
            return None;
        }
        let remembered = memo.stamp.take();
        let stamp = remembered.upgrade();
        memo.stamp.set(remembered);
        stamp.filter(|stamp| !stamp.is_rejected())
    }

    pub(super) fn remember(&self, epoch: Epoch, fresh_until: Moment, stamp: &Arc<Stamp>) {
        let memo = self.place(epoch);
        memo.epoch.set(epoch);
        memo.fresh_until.set(fresh_until);
        memo.stamp.set(Arc::downgrade(stamp));
    }

    /// Numbers are given out one after the other, so slots that are filled at one time have neighbours.
    #[inline]
    fn place(&self, epoch: Epoch) -> &Memo {
        const LAST: Epoch = PLACES as Epoch - 1;
        let [first, ..] = &self.0;
        let place = usize::try_from(epoch & LAST).unwrap_or_default();
        self.0.get(place).unwrap_or(first)
    }
}

impl Memo {
    const fn nothing() -> Self {
        Self {
            epoch: Cell::new(NONE),
            fresh_until: Cell::new(Moment::PAST),
            stamp: Cell::new(Weak::new()),
        }
    }
}
