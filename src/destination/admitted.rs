//! Origins that the check has admitted, as they were written.
//!
//! A request that is written like an earlier one needs no check. What is compared is plain: the scheme
//! and the whole authority. The check itself decides what comes in.

use std::sync::OnceLock;

use arc_swap::ArcSwap;

use super::origin::{OriginId, Scheme, Target};

/// The answers of the check for up to sixteen authorities.
///
/// The first eight are kept for good, because what never changes is the cheapest to read. Whoever chooses
/// the hosts of requests may fill them all. The program's own hosts then come into `recent`, where they
/// can be pushed out, but come in again.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct AdmittedOrigins {
    /// Filled from the front.
    first: [OnceLock<Admitted>; FIRST],
    recent: ArcSwap<Vec<Admitted>>,
}

#[derive(Clone, Debug)]
struct Admitted {
    scheme: Scheme,
    authority: Box<str>,
    origin: OriginId,
}

const FIRST: usize = 8;
const RECENT: usize = 8;

/// One in so many of those that find `recent` full comes in. Otherwise hosts that come once would push
/// out those that come often, and a client of many hosts would exchange the list with every request.
const ONE_IN: usize = 16;

/// Longer than a DNS name with a port. Only an authority that nobody could read is longer.
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

    /// The check has admitted `target`.
    #[cold]
    pub(super) fn insert(&self, target: &Target<'_>, origin: OriginId) {
        if target.authority.len() > LONGEST {
            return;
        }
        let mut admitted = Admitted {
            scheme: target.scheme,
            authority: target.authority.into(),
            origin,
        };
        for place in &self.first {
            match place.set(admitted) {
                Ok(()) => return,
                Err(back) => admitted = back,
            }
        }
        if self.recent.load().len() == RECENT && fastrand::usize(..ONE_IN) != 0 {
            return;
        }
        self.recent.rcu(|recent| {
            let mut recent = Vec::clone(recent);
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
        self.scheme == target.scheme && *self.authority == *target.authority
    }
}
