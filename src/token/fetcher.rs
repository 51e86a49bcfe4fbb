//! `Fetcher`: what all slots of a cache fetch with, and how many fetches run at once.
//!
//! Knows the source, the clock and the bounds across all slots; does not know which slot asks, or for
//! whom.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use super::{
    attempt::attempt,
    clock::{Clock, Moment},
    events,
    flight::Queued,
    meters::Meters,
    rate::Rate,
    request::TokenRequest,
    slot::{Allowance, Limits},
    source::DynSource,
    turns::Turns,
    value::Token,
};
use crate::error::AuthError;

pub(crate) struct Fetcher {
    /// A panic in it is caught and becomes a failed attempt, so nothing of ours is left half done.
    pub(crate) source: AssertUnwindSafe<Arc<dyn DynSource>>,
    pub(crate) source_name: &'static str,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    /// Fetches that run at once, across all slots, and those queued for a turn.
    pub(crate) turns: Turns<Queued>,
    /// Refreshes ahead of time, across all slots.
    pub(crate) refreshes: Rate,
    pub(crate) log: events::Limiter,
    pub(crate) meters: Meters,
}

impl Fetcher {
    pub(crate) fn allowance(&self, has_runtime: bool, now: Moment) -> Allowance {
        if !has_runtime {
            Allowance::Nothing
        } else if self.turns.are_taken(now.mono) {
            // A refresh that queued would delay those that cannot wait.
            Allowance::Queued
        } else if self.refreshes.has_room(now.mono) {
            Allowance::Anything
        } else {
            Allowance::Needed
        }
    }

    pub(crate) async fn attempt(&self, request: TokenRequest) -> Result<Token, AuthError> {
        attempt(&**self.source, request, self.limits.attempt, |panic| {
            events::panicked(self, &self.clock, panic_message(panic));
        })
        .await
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    match (
        panic.downcast_ref::<&'static str>(),
        panic.downcast_ref::<String>(),
    ) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "(no message)",
    }
}
