//! What is counted: requests by event and second, and how long processes had no token.

use std::time::Duration;

/// What happens to a fleet, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    ColdStart,
    Expiry,
    Restart,
    RateLimit,
    ColdStartUnderLimit,
}

impl Event {
    pub(crate) const ALL: [Self; 5] = [
        Self::ColdStart,
        Self::Expiry,
        Self::Restart,
        Self::RateLimit,
        Self::ColdStartUnderLimit,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ColdStart => "cold start",
            Self::Expiry => "synchronised expiry",
            Self::Restart => "restart of the server",
            Self::RateLimit => "expiry, rate limit",
            Self::ColdStartUnderLimit => "cold start, rate limit",
        }
    }
}

/// Seconds of an event that are kept one by one; anything later is counted only in the sums.
pub(crate) const SECONDS: usize = 900;

/// One event, over all nodes.
#[derive(Clone)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    /// Not answered, or answered 429.
    pub(crate) refused: u64,
    /// The most requests on one node in one second.
    pub(crate) peak: u32,
    /// The longest time that a process wanted a token and had none.
    pub(crate) without: Duration,
    /// By second since the event began: on the busiest node, and over all nodes.
    pub(crate) busiest: Vec<u32>,
    pub(crate) total: Vec<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            requests: 0,
            refused: 0,
            peak: 0,
            without: Duration::ZERO,
            busiest: vec![0; SECONDS],
            total: vec![0; SECONDS],
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Tallies([Tally; Event::ALL.len()]);

#[allow(clippy::indexing_slicing)] // a place for each event there is
impl Tallies {
    pub(crate) fn of(&self, event: Event) -> &Tally {
        &self.0[event as usize]
    }

    pub(crate) fn of_mut(&mut self, event: Event) -> &mut Tally {
        &mut self.0[event as usize]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            ours.requests += theirs.requests;
            ours.refused += theirs.refused;
            ours.peak = ours.peak.max(theirs.peak);
            ours.without = ours.without.max(theirs.without);
            for (ours, theirs) in ours.busiest.iter_mut().zip(&theirs.busiest) {
                *ours = (*ours).max(*theirs);
            }
            for (ours, theirs) in ours.total.iter_mut().zip(&theirs.total) {
                *ours += theirs;
            }
        }
    }
}

impl Tally {
    /// One node had this many requests in this second of the event.
    pub(crate) fn second(&mut self, second: usize, requests: u32) {
        self.peak = self.peak.max(requests);
        if let Some(busiest) = self.busiest.get_mut(second) {
            *busiest = (*busiest).max(requests);
        }
        if let Some(total) = self.total.get_mut(second) {
            *total += u64::from(requests);
        }
    }
}
