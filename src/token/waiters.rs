//! Who is to be woken: a list of wakers with constant-time insertion and removal.
//!
//! Plain data for the slot, which holds its lock around every call. Wakers are passed in already
//! cloned, and removed ones are handed back: none is cloned or dropped under that lock.

use std::{mem, task::Waker};

use crate::error::{AuthError, Kind};

/// The maximum number of requests that wait in one slot. Enough for a hundred thousand initial
/// requests; beyond that, waiting would only turn an outage of the token source into one of memory.
const MOST: usize = 131_072;

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    places: Vec<Option<Waker>>,
    free: Vec<u32>,
    /// Counts how often everyone was woken. A ticket of an earlier round is void.
    round: u64,
}

/// A place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    round: u64,
    place: u32,
}

impl Waiters {
    /// Inserts the waker, or puts it in place of the one registered under `ticket`. The waker is taken
    /// if there is room, and the replaced one is left in its place.
    pub(crate) fn register(
        &mut self,
        ticket: &mut Option<Ticket>,
        waker: &mut Option<Waker>,
    ) -> Result<(), AuthError> {
        if let Some(place) = self.place(*ticket) {
            mem::swap(place, waker);
            return Ok(());
        }
        if self.len() >= MOST {
            *ticket = None;
            let reason = format!("{MOST} requests are waiting for the same token already");
            return Err(AuthError::new(Kind::Overload, reason));
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.places.push(None);
                // MOST fits.
                u32::try_from(self.places.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
        };
        let entered = Ticket {
            round: self.round,
            place,
        };
        *ticket = Some(entered);
        if let Some(place) = self.place(Some(entered)) {
            *place = waker.take();
        }
        Ok(())
    }

    /// Removes the entry from the list, if it is still there.
    pub(crate) fn remove(&mut self, ticket: &mut Option<Ticket>) -> Option<Waker> {
        let ticket = ticket.take()?;
        let waker = self.place(Some(ticket))?.take();
        self.free.push(ticket.place);
        waker
    }

    /// Empties the list: every ticket becomes void.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Waker> + use<> {
        self.round = self.round.wrapping_add(1);
        self.free = Vec::new();
        mem::take(&mut self.places).into_iter().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len().saturating_sub(self.free.len())
    }

    fn place(&mut self, ticket: Option<Ticket>) -> Option<&mut Option<Waker>> {
        let ticket = ticket.filter(|ticket| ticket.round == self.round)?;
        self.places.get_mut(usize::try_from(ticket.place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_reused_and_old_tickets_are_void() {
        let waker = || Some(Waker::noop().clone());
        let mut waiters = Waiters::default();
        let (mut first, mut second) = (None, None);
        waiters.register(&mut first, &mut waker()).unwrap();
        waiters.register(&mut second, &mut waker()).unwrap();
        assert_eq!(waiters.len(), 2);

        let void = first;
        assert!(waiters.remove(&mut first).is_some());
        assert!(first.is_none());
        waiters.register(&mut first, &mut waker()).unwrap();
        assert_eq!(first, void, "the place is used again");
        assert_eq!(waiters.len(), 2);

        assert_eq!(waiters.drain().count(), 2);
        assert_eq!(waiters.len(), 0);
        assert!(
            waiters.remove(&mut second).is_none(),
            "a ticket of an earlier round"
        );
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn s175_the_number_of_waiters_is_bounded() {
        let mut waiters = Waiters::default();
        let mut enter = || waiters.register(&mut None, &mut Some(Waker::noop().clone()));
        for _ in 0..MOST {
            enter().unwrap();
        }
        assert!(enter().unwrap_err().is_overload());
    }
}
