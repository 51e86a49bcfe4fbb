//! The slot: the token in service, at most one fetch in flight, and everyone who waits for it.
//!
//! This is where requests and tokens meet. Requests read the lease without a lock, and take the state's
//! mutex only when there is something to decide. The slot decides and remembers. It starts nothing: a
//! fetch is launched by whoever received a [`Launch`] (see [`crate::token::supply`]), and timers belong
//! to the waiters (see [`crate::token::wait`]). Of a fetch it keeps only a handle to stop it, and its
//! turn. It never reads a clock, and knows no source and no HTTP.
//!
//! # States
//!
//! ```text
//!                begin (due, nothing in flight)
//!        ┌────────────────────────────────────────────┐
//!        │                                            v
//!     RESTING                                     IN FLIGHT(id)
//!        ^   finish(id): publish or note the failure, │  │
//!        │   wake everyone                            │  │ takeover (no verdict by ATTEMPT + 1 s):
//!        ├────────────────────────────────────────────┤  │ abort the task, begin id + 1
//!        │   abandon(id): its task was dropped,       │  └──> IN FLIGHT(id + 1)
//!        │   wake everyone, one of them begins anew   │
//!        └────────────────────────────────────────────┘
//! ```
//!
//! The following holds in every state, and is checked by loom (`slot_model.rs`):
//!
//! - At most one flight has the current ID. A verdict with an older ID (a superseded flight that
//!   returned after all) may still publish a better token, and changes nothing else.
//! - A lease is published before anyone is woken, and a waiter looks and registers in one critical
//!   section: a wake-up can be neither lost nor early.
//! - Foreign code runs outside the lock: wakers are cloned, called and dropped there, and so is a
//!   source's error dropped. A poisoned mutex says nothing about the data, so it is used anyway.
//!
//! | file | its job |
//! | --- | --- |
//! | `state.rs` | what the mutex guards |
//! | `ask.rs` | a request that looks: use the token, wait, or fail |
//! | `drive.rs` | whether a fetch may start now, and who starts it |
//! | `landing.rs` | an attempt that ended, or was abandoned |

mod ask;
mod drive;
mod landing;
mod state;

use std::{sync::atomic::Ordering, time::Duration};

use tokio::task::AbortHandle;

use self::{
    ask::Need,
    state::{Refused, State},
};
pub(crate) use self::{
    ask::{Ask, Step},
    drive::{Allowance, Launch, Missed},
    landing::{Outcome, Verdict},
    state::Glance,
};
use super::{
    clock::Moment,
    current::{Current, Memo},
    stamp::Imprint,
    sync::{AtomicI64, Mutex, MutexGuard, PoisonError},
    value::Token,
};
use crate::destination::OriginId;

/// The durations a slot uses; validated by the cache's builder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) lead: Duration,
    /// One attempt, from connecting to the last byte.
    pub(crate) attempt: Duration,
    /// The longest a request waits when there is no usable token.
    pub(crate) max_wait: Duration,
}

#[repr(C)]
pub(crate) struct Slot {
    current: Current,
    /// Until then (monotonic nanoseconds) a request with a live token need not take the lock, because
    /// there is nothing to start. A hint; the state decides.
    quiet_until: AtomicI64,
    state: Mutex<State>,
    limits: Limits,
}

impl Slot {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            current: Current::empty(),
            quiet_until: AtomicI64::new(i64::MIN),
            state: Mutex::new(State::new()),
            limits,
        }
    }

    /// An imprint of the stamp of a token that needs no decision: it is fresh, or it is due and a
    /// refresh is already taken care of. No lock, no allocation.
    #[inline]
    pub(crate) fn warm(&self, memo: &mut Memo, now: Moment) -> Option<Imprint> {
        // Written as `or_else` it takes 19 more instructions (`benches/instructions`): the imprint is
        // moved once more.
        match self.current.recall(memo, now) {
            Some(imprint) => Some(imprint),
            None => self.look_again(memo, now),
        }
    }

    /// The same, for callers that remember nothing.
    pub(crate) fn peek(&self, now: Moment) -> Option<Imprint> {
        self.current.peek(now).or_else(|| self.seen_to(now))
    }

    #[inline(never)]
    fn look_again(&self, memo: &mut Memo, now: Moment) -> Option<Imprint> {
        let unquestioned = self.current.look(memo, now);
        unquestioned.or_else(|| self.seen_to(now))
    }

    /// The same for a token that is due for a refresh and valid for everyone, if there is nothing to
    /// start: a refresh is under way, or it is too early for the next one. Meanwhile requests are sent
    /// as they are when no refresh is due.
    fn seen_to(&self, now: Moment) -> Option<Imprint> {
        if !self.is_quiet(now) {
            return None;
        }
        let lease = self.current.load();
        let need = Ask::new(None, false).need(lease.as_deref(), now);
        let held = lease.as_ref().filter(|_| need == Need::Refresh)?;
        Some(held.stamp().imprint())
    }

    /// The token, if it needs no decision.
    pub(crate) fn warm_token(&self, now: Moment) -> Option<Token> {
        let lease = self.current.load();
        lease
            .as_ref()
            .filter(|lease| lease.is_unquestioned(now))
            .map(|lease| lease.token().clone())
    }

    /// An imprint of the stamp of a token that is due for a refresh but may still be sent, and the
    /// refresh to launch if it is up to this caller.
    pub(crate) fn stale(
        &self,
        now: Moment,
        origin: Option<OriginId>,
        allowance: Allowance,
    ) -> Option<(Imprint, Option<Launch>)> {
        let lease = self.current.load();
        let held = lease.as_ref()?;
        let need = Ask::new(origin, false).need(Some(held), now);
        if matches!(need, Need::Better | Need::Token) {
            return None;
        }
        let imprint = held.stamp().imprint();
        if self.is_quiet(now) || !allowance.covers(need) {
            return Some((imprint, None));
        }
        Some((imprint, self.tend(now, allowance)))
    }

    /// Starts a refresh if one is due and none is in flight: for callers that do not wait for it.
    pub(crate) fn tend(&self, now: Moment, allowance: Allowance) -> Option<Launch> {
        let mut state = self.lock();
        let lease = self.current.load();
        let need = Ask::new(None, false).need(lease.as_deref(), now);
        self.drive(&mut state, lease.as_deref(), now, need, allowance)
            .begun()
    }

    /// Takes `token` out of service if it is still the one in service.
    pub(crate) fn invalidate(&self, token: &Token) -> bool {
        let mut state = self.lock();
        let held = self.current.load();
        if !held
            .as_ref()
            .is_some_and(|lease| lease.token().same_secret(token))
        {
            return false;
        }
        state.invalidated = true;
        self.current.store(None);
        if state.flight.is_some() {
            state.refused = Some(Refused {
                token: token.clone(),
                until: state.flights,
            });
        }
        true
    }

    pub(crate) fn glance(&self) -> Glance {
        let state = self.lock();
        Glance {
            lease: self.current.load_full(),
            trouble: state.trouble.clone(),
            in_flight: state.flight.is_some(),
            waiting: state.waiters.len(),
        }
    }

    /// The earliest time (monotonic nanoseconds) at which this slot must be checked again in order to
    /// keep its token fresh.
    pub(crate) fn next_due(&self, now: Moment) -> i64 {
        let state = self.lock();
        let lease = self.current.load();
        let next = match &state.flight {
            Some(flight) => self.overdue_at(flight),
            None => state.next(lease.as_deref(), now),
        };
        match lease.as_ref().filter(|lease| lease.is_unquestioned(now)) {
            Some(lease) => next.max(
                now.mono
                    .saturating_add(now.until(lease.edges().fresh_until)),
            ),
            None => next,
        }
    }

    /// Registers `abort`, which can stop the task of flight `id`.
    pub(crate) fn attach(&self, id: u64, abort: AbortHandle) {
        let mut state = self.lock();
        // Otherwise it returned its verdict, or was taken over, before it could be attached.
        if let Some(flight) = state.flight.as_mut().filter(|flight| flight.id == id) {
            flight.abort = Some(abort);
        }
    }

    /// Nobody who could want the token is left: returns the handle to stop the task in flight, if any.
    pub(crate) fn close(&mut self) -> Option<AbortHandle> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.flight.take().and_then(|flight| flight.abort)
    }

    /// True if there is nothing to start.
    fn is_quiet(&self, now: Moment) -> bool {
        now.mono < self.quiet_until.load(Ordering::Relaxed)
    }

    fn is_unquestioned(&self, now: Moment) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|lease| lease.is_unquestioned(now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(scoped_auth_loom)))]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::token::rejection;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: Limits = Limits {
        lead: Duration::from_secs(600),
        attempt: SECOND,
        max_wait: Duration::from_secs(30),
    };

    #[test]
    fn a_401_counts_for_a_token_that_lives_longer_meanwhile() {
        let start = Moment { mono: 0, wall: 0 };
        let slot = Slot::new(LIMITS);
        let id = slot.tend(start, Allowance::Anything).unwrap().id;
        let land = |life| {
            let token = Token::new("same", life);
            slot.finish(id, Ok((token, start)), start, 0.0)
        };
        let _ = land(3600 * SECOND);
        let sent_before = slot.peek(start).unwrap();
        let _ = land(7200 * SECOND);
        assert_eq!(slot.glance().left(start), Some(7200 * SECOND));

        rejection::report(sent_before.serial, NonZeroU64::MIN);
        assert!(slot.peek(start).is_none());
    }

    #[test]
    fn an_attempt_that_never_began_is_none_even_if_it_was_taken_over() {
        let at = |seconds: u32| Moment { mono: 0, wall: 0 }.plus(seconds * SECOND);
        let begin = |slot: &Slot, now| slot.tend(now, Allowance::Anything).unwrap().id;
        for taken_over in [false, true] {
            let slot = Slot::new(LIMITS);
            let token = Token::new("tok", 3600 * SECOND);
            let _ = slot.finish(begin(&slot, at(0)), Ok((token, at(0))), at(0), 0.0);
            for when in [3500, 3520, 3540, 3560, 3580, 3598] {
                let error = crate::error::AuthError::new(crate::error::Kind::Source, "busy");
                let _ = slot.finish(begin(&slot, at(when)), Err(error), at(when), 1.0);
            }
            // The expiry is worth an attempt of its own. It has its turn, on a runtime that is not running.
            let mut id = begin(&slot, at(3600));
            assert!(slot.clear(id, at(3600), None));
            if taken_over {
                id = begin(&slot, at(3602));
            }
            slot.abandon(id, at(3602), 1.0);
            let due = slot.next_due(at(3602)) <= at(3602).mono;
            assert!(due, "taken over: {taken_over}");
        }
    }

    #[test]
    fn what_was_asked_for_before_an_invalidation_does_not_undo_it() {
        let at = |seconds: u32| Moment { mono: 0, wall: 0 }.plus(seconds * SECOND);
        let token = |name| Token::new(name, 3600 * SECOND);
        let begin = |slot: &Slot, now| slot.tend(now, Allowance::Anything).unwrap().id;
        for superseded in [false, true] {
            let slot = Slot::new(LIMITS);
            let _ = slot.finish(begin(&slot, at(0)), Ok((token("bad"), at(0))), at(0), 0.0);
            let before = begin(&slot, at(3400));
            assert!(slot.invalidate(&token("bad")));
            let next = superseded.then(|| begin(&slot, at(3403)));
            let late = Ok((token("bad"), at(3400)));
            let _ = slot.finish(before, late, at(3404), 0.0);
            assert!(slot.warm_token(at(3404)).is_none(), "{superseded}");
            // The response to a fetch that began afterwards counts.
            let next = next.unwrap_or_else(|| begin(&slot, at(3410)));
            let _ = slot.finish(next, Ok((token("bad"), at(3410))), at(3410), 0.0);
            assert!(slot.warm_token(at(3410)).is_some(), "{superseded}");
        }
    }

    #[test]
    fn while_a_refresh_is_under_way_requests_go_as_if_none_were() {
        let start = Moment { mono: 0, wall: 0 };
        let slot = Slot::new(LIMITS);
        let warm = |now| slot.peek(now);
        let begin = |now| slot.tend(now, Allowance::Anything).unwrap().id;

        let token = Token::new("old", 3600 * SECOND);
        let _ = slot.finish(begin(start), Ok((token, start)), start, 0.0);
        assert!(warm(start).is_some(), "fresh");

        let stale = start.plus(3400 * SECOND);
        assert!(warm(stale).is_none(), "somebody is to begin");
        let id = begin(stale);
        let imprint = warm(stale).expect("it has begun");
        assert!(warm(stale.plus(SECOND)).is_some());
        let overdue = stale.plus(2 * SECOND);
        assert!(warm(overdue).is_none(), "nothing was heard of it");

        // It fails: until its pace allows another, there is nothing to start.
        let error = crate::error::AuthError::new(crate::error::Kind::Source, "broken");
        let _ = slot.finish(id, Err(error), stale, 0.0);
        assert!(warm(stale).is_some());
        assert!(warm(stale.plus(60 * SECOND)).is_none(), "and now there is");

        let guard = start.plus(3595 * SECOND);
        let _ = begin(guard);
        assert!(warm(guard).is_none(), "a better one is worth a wait");
        let expired = Moment {
            wall: start.plus(3600 * SECOND).wall,
            ..guard
        };
        assert!(warm(expired).is_none(), "by the wall clock alone");
        assert!(warm(stale).is_some());
        rejection::report(imprint.serial, NonZeroU64::MIN);
        assert!(warm(stale).is_none(), "who asks is to be known");
        assert!(slot.invalidate(&Token::new("old", SECOND)));
        assert!(warm(stale).is_none(), "there is none");
    }
}
