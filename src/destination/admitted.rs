//! Origins that the check has admitted, as they were written.
//!
//! A request that is written like an earlier one needs no check. What is compared is plain: the scheme
//! and the whole authority, as text. The check itself decides what comes in.

use std::sync::OnceLock;

use arc_swap::ArcSwap;

use super::origin::{OriginId, Target, TargetKind};

/// The answers of the check for up to sixteen authorities.
///
/// The first eight are kept for good, because what never changes is the cheapest to read. If somebody else
/// chooses the hosts of requests, those may fill all eight places. The program's own hosts are then kept
/// in `recent`, and are added again after they were displaced.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct AdmittedOrigins {
    /// Filled from the front.
    first: [OnceLock<Admitted>; FIRST],
    recent: ArcSwap<Vec<Admitted>>,
}

#[derive(Clone, Debug)]
struct Admitted {
    kind: TargetKind,
    authority: Box<str>,
    origin: OriginId,
}

const FIRST: usize = 8;
const RECENT: usize = 8;

/// When `recent` is full, one in 16 new authorities replaces the oldest. So hosts that are used once rarely
/// displace those that are used often, and a client of many hosts does not replace the list with every
/// request.
const ONE_IN: usize = 16;

/// Longer than a DNS name with a port. A longer authority cannot be looked up.
const LONGEST: usize = 264;

impl AdmittedOrigins {
    /// The origin of `target`, if the check has admitted it as it is written.
    #[inline]
    pub(super) fn find(&self, target: &Target<'_>) -> Option<OriginId> {
        let [only, others @ ..] = &self.first;
        match only.get() {
            Some(admitted) if admitted.is(target) => Some(admitted.origin),
            Some(_) => self.find_among(others, target),
            None => None,
        }
    }

    // Kept out of line: most programs have one origin.
    #[inline(never)]
    fn find_among(&self, first: &[OnceLock<Admitted>], target: &Target<'_>) -> Option<OriginId> {
        for place in first {
            let admitted = place.get()?;
            if admitted.is(target) {
                return Some(admitted.origin);
            }
        }
        let recent = self.recent.load();
        let found = recent.iter().find(|admitted| admitted.is(target));
        found.map(|admitted| admitted.origin)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let first = self.first.iter().filter(|place| place.get().is_some());
        first.count() + self.recent.load().len()
    }

    /// The check has admitted `target`.
    #[cold]
    pub(super) fn insert(&self, target: &Target<'_>, origin: OriginId) {
        if target.authority.len() > LONGEST {
            return;
        }
        let mut admitted = Admitted {
            kind: target.kind,
            authority: target.authority.into(),
            origin,
        };
        for place in &self.first {
            match place.set(admitted) {
                Ok(()) => return,
                // Another thread may have added the same authority since it was not found.
                Err(_) if place.get().is_some_and(|kept| kept.is(target)) => return,
                Err(back) => admitted = back,
            }
        }
        if self.recent.load().len() == RECENT && fastrand::usize(..ONE_IN) != 0 {
            return;
        }
        self.recent.rcu(|recent| {
            let mut recent = Vec::clone(recent);
            recent.retain(|kept| !kept.is(target));
            if recent.len() == RECENT {
                recent.remove(0);
            }
            recent.push(admitted.clone());
            recent
        });
    }
}

impl Admitted {
    #[inline]
    fn is(&self, target: &Target<'_>) -> bool {
        self.kind == target.kind && *self.authority == *target.authority
    }
}
