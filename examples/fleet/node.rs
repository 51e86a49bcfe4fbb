//! One node's metadata server: one token for all its processes, like the real one.
//!
//! It mints a token for an hour, hands it out until 300 s of it are left, and goes through the events:
//! each of its tokens but the last causes one as it nears its expiry.

use std::time::Duration;

use crate::{
    args::Args,
    tally::{Event, Tallies},
};

/// A new token's `expires_in` on GCE, and what is left of it when the next is minted.
const LIFE: Duration = Duration::from_secs(3599);
const REMINT_AT: Duration = Duration::from_secs(300);

/// Events around an expiry begin this long before it: just before the crate's own lead.
pub(crate) const EVENT_BEFORE_EXPIRY: Duration = Duration::from_secs(230);

/// When all processes are restarted, and when the simulation ends. By then the third token has been
/// replaced, whatever the draws were.
pub(crate) const ALL_AGAIN: Duration = Duration::from_secs(11_000);
pub(crate) const END: Duration = Duration::from_secs(11_400);

pub(crate) struct Node {
    rate_limit: u32,
    down_for: Duration,
    minted: u32,
    expires: Duration,
    event: Event,
    event_began: Duration,
    /// The second of the event that is being counted, and the requests that came in it.
    second: u64,
    in_second: u32,
    tallies: Tallies,
}

/// What became of one request.
pub(crate) enum Answer {
    Token { number: u32, left: Duration },
    Refused(&'static str),
}

impl Node {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            rate_limit: args.rate_limit,
            down_for: args.down_for,
            minted: 0,
            expires: Duration::ZERO,
            event: Event::ColdStart,
            event_began: Duration::ZERO,
            second: 0,
            in_second: 0,
            tallies: Tallies::default(),
        }
    }

    /// Answers a request at `now`, counted from the beginning.
    pub(crate) fn answer(&mut self, now: Duration) -> Answer {
        self.follow(now);
        self.in_second += 1;
        let answer = self.judge(now);
        let tally = self.tallies.of_mut(self.event);
        tally.requests += 1;
        if matches!(answer, Answer::Refused(_)) {
            tally.refused += 1;
        }
        answer
    }

    /// A process got a token after wanting one for this long.
    pub(crate) fn served(&mut self, without: Duration) {
        let tally = self.tallies.of_mut(self.event);
        tally.without = tally.without.max(without);
    }

    pub(crate) fn into_tallies(mut self) -> Tallies {
        self.flush();
        self.tallies
    }

    fn judge(&mut self, now: Duration) -> Answer {
        let limited = matches!(self.event, Event::RateLimit | Event::ColdStartUnderLimit);
        if self.event == Event::Restart && now < self.event_began + self.down_for {
            return Answer::Refused("connection refused");
        }
        if limited && self.in_second > self.rate_limit {
            return Answer::Refused("429 Too Many Requests");
        }
        if self.expires < now + REMINT_AT {
            self.minted += 1;
            self.expires = now + LIFE;
        }
        let left = self.expires - now;
        Answer::Token {
            number: self.minted,
            left,
        }
    }

    /// Moves on to the event and the second that `now` falls in.
    fn follow(&mut self, now: Duration) {
        let near_expiry = self.minted > 0 && now + EVENT_BEFORE_EXPIRY >= self.expires;
        let event = match self.minted {
            _ if now >= ALL_AGAIN => Event::ColdStartUnderLimit,
            1 if near_expiry => Event::Expiry,
            2 if near_expiry => Event::Restart,
            3 if near_expiry => Event::RateLimit,
            _ => self.event,
        };
        if event != self.event {
            self.flush();
            self.event = event;
            self.event_began = match event {
                Event::ColdStartUnderLimit => ALL_AGAIN,
                _ => self.expires - EVENT_BEFORE_EXPIRY,
            };
        }
        let second = (now - self.event_began).as_secs();
        if second != self.second {
            self.flush();
            self.second = second;
        }
    }

    fn flush(&mut self) {
        let second = usize::try_from(self.second).unwrap_or(usize::MAX);
        let tally = self.tallies.of_mut(self.event);
        tally.second(second, std::mem::take(&mut self.in_second));
        self.second = 0;
    }
}
