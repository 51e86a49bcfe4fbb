//! Which token is served now, and what became of earlier ones.
//!
//! Pure with respect to time: every call is given the current time. Knows lifetimes, the keys tokens
//! are cached under, and generations; knows nothing of HTTP, accounts or sockets, nor how an ID token
//! is made.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Scopes without an order: `?scopes=a,b` and `?scopes=b,a` share one cached token.
pub(super) type ScopeSet = BTreeSet<String>;

/// What a token is for, and therefore the key it is cached under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Want {
    Access(ScopeSet),
    Id {
        audience: String,
        /// `format=full`: with the e-mail address and the instance.
        full: bool,
        /// `licenses=TRUE`.
        licenses: bool,
    },
}

/// The maximum number of tokens remembered, so that a server left running does not grow without bound.
const REMEMBERED: usize = 10_000;

/// Random characters in a token, after the prefix.
const RANDOM: usize = 40;

/// Mints tokens and serves each one again until little of its life is left.
pub(super) struct Mint {
    lifetime: Duration,
    window: Duration,
    minted: u64,
    current: HashMap<Want, String>,
    known: HashMap<String, Known>,
    /// The secrets in `known`, oldest first.
    order: VecDeque<String>,
}

/// What is remembered about a minted token.
struct Known {
    generation: u64,
    minted_at: Instant,
    expired: bool,
    revoked: bool,
}

/// A token as it is served now.
pub(super) struct Served {
    pub(super) secret: String,
    pub(super) left: Duration,
}

impl Mint {
    /// Creates a mint whose tokens live `lifetime`; one with `remint_at` or less left is no longer
    /// served.
    ///
    /// The window is at most half the lifetime. Otherwise a server with short-lived tokens would never
    /// serve one twice, and clients would not see the repeated tokens that they must cope with.
    pub(super) fn new(lifetime: Duration, remint_at: Duration) -> Self {
        Self {
            lifetime,
            window: remint_at.min(lifetime / 2),
            minted: 0,
            current: HashMap::new(),
            known: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// The access token for `scopes`: the cached one while it is valid, else a new one.
    pub(super) fn serve(&mut self, scopes: ScopeSet, now: Instant) -> Served {
        self.serve_made(Want::Access(scopes), now, |_, _| random())
    }

    /// The token for `want`. `make` builds a new one from its generation and lifetime.
    pub(super) fn serve_made(
        &mut self,
        want: Want,
        now: Instant,
        make: impl FnOnce(u64, Duration) -> String,
    ) -> Served {
        if let Some(secret) = self.current.get(&want) {
            let left = self.left(secret, now);
            if left > self.window {
                return Served {
                    secret: secret.clone(),
                    left,
                };
            }
        }
        self.minted += 1;
        let secret = make(self.minted, self.lifetime);
        self.remember(&secret, now);
        self.current.insert(want, secret.clone());
        Served {
            secret,
            left: self.lifetime,
        }
    }

    /// The sequence number of `secret`, counted from 1 over tokens of all kinds.
    pub(super) fn generation_of(&self, secret: &str) -> Option<u64> {
        self.known.get(secret).map(|known| known.generation)
    }

    pub(super) fn is_valid(&self, secret: &str, now: Instant) -> bool {
        let revoked = self.known.get(secret).is_none_or(|known| known.revoked);
        !revoked && !self.left(secret, now).is_zero()
    }

    /// Forgets the cached tokens; those already handed out keep their lifetimes.
    pub(super) fn rotate(&mut self) {
        self.current.clear();
    }

    /// Makes `secret` invalid but keeps serving it: the real server is not told of a revocation either.
    pub(super) fn revoke(&mut self, secret: &str) {
        if let Some(known) = self.known.get_mut(secret) {
            known.revoked = true;
        }
    }

    /// Expires every token minted so far.
    pub(super) fn expire_all(&mut self) {
        for known in self.known.values_mut() {
            known.expired = true;
        }
        self.current.clear();
    }

    fn remember(&mut self, secret: &str, now: Instant) {
        let known = Known {
            generation: self.minted,
            minted_at: now,
            expired: false,
            revoked: false,
        };
        self.known.insert(secret.to_owned(), known);
        self.order.push_back(secret.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.current.retain(|_, cached| *cached != oldest);
        }
    }

    /// How much lifetime `secret` has left; none if it was never minted here.
    fn left(&self, secret: &str, now: Instant) -> Duration {
        match self.known.get(secret) {
            Some(known) if !known.expired => self
                .lifetime
                .saturating_sub(now.saturating_duration_since(known.minted_at)),
            _ => Duration::ZERO,
        }
    }
}

/// A random access token: opaque, and of no use anywhere.
fn random() -> String {
    let random = std::iter::repeat_with(fastrand::alphanumeric).take(RANDOM);
    "ya29.emulated-".chars().chain(random).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn set(scopes: &[&str]) -> ScopeSet {
        scopes.iter().map(|scope| scope.to_string()).collect()
    }

    #[test]
    fn serves_the_same_token_until_the_window_and_counts_down() {
        let (mut mint, start) = (Mint::new(s(3600), s(300)), Instant::now());
        let first = mint.serve(set(&["a"]), start);
        assert_eq!(first.left, s(3600));
        assert!(first.secret.starts_with("ya29.emulated-"));
        assert!(first.secret.len() >= "ya29.emulated-".len() + 32);

        let later = mint.serve(set(&["a"]), start + s(3299));
        assert_eq!((later.secret == first.secret, later.left), (true, s(301)));

        let next = mint.serve(set(&["a"]), start + s(3300));
        assert_eq!((next.secret == first.secret, next.left), (false, s(3600)));
        assert_eq!(mint.generation_of(&first.secret), Some(1));
        assert_eq!(mint.generation_of(&next.secret), Some(2));
        assert_eq!(mint.generation_of("other"), None);

        assert!(mint.is_valid(&first.secret, start + s(3599)));
        assert!(!mint.is_valid(&first.secret, start + s(3600)));
        assert!(!mint.is_valid("other", start));
    }

    #[test]
    fn the_window_is_at_most_half_the_lifetime() {
        let (mut mint, start) = (Mint::new(s(60), s(300)), Instant::now());
        let first = mint.serve(set(&[]), start).secret;
        assert_eq!(mint.serve(set(&[]), start + s(29)).secret, first);
        assert_ne!(mint.serve(set(&[]), start + s(30)).secret, first);
    }

    #[test]
    fn one_token_per_scope_set() {
        let (mut mint, now) = (Mint::new(s(3600), s(300)), Instant::now());
        let ab = mint.serve(set(&["a", "b"]), now).secret;
        assert_eq!(mint.serve(set(&["b", "a"]), now).secret, ab);
        assert_ne!(mint.serve(set(&["a"]), now).secret, ab);
    }

    #[test]
    fn one_id_token_per_audience_and_format() {
        let (mut mint, now) = (Mint::new(s(3600), s(300)), Instant::now());
        let mut id = |audience: &str, full| {
            let want = Want::Id {
                audience: audience.to_owned(),
                full,
                licenses: false,
            };
            let made = |generation, life| format!("{generation} for {life:?}");
            mint.serve_made(want, now, made).secret
        };
        assert_eq!(id("a", true), "1 for 3600s");
        assert_eq!(id("a", false), "2 for 3600s");
        assert_eq!(id("b", true), "3 for 3600s");
        assert_eq!(id("a", true), "1 for 3600s");
        assert!(mint.is_valid("1 for 3600s", now));
        assert!(mint.serve(set(&[]), now).secret.starts_with("ya29."));
        assert_eq!(mint.generation_of("3 for 3600s"), Some(3));
    }

    #[test]
    fn rotate_revoke_and_expire() {
        let (mut mint, now) = (Mint::new(s(3600), s(300)), Instant::now());
        let first = mint.serve(set(&[]), now).secret;
        mint.rotate();
        let second = mint.serve(set(&[]), now).secret;
        assert_ne!(second, first);
        assert!(mint.is_valid(&first, now) && mint.is_valid(&second, now));

        mint.revoke(&second);
        assert!(!mint.is_valid(&second, now));
        assert_eq!(
            mint.serve(set(&[]), now).secret,
            second,
            "still served from the cache"
        );

        mint.expire_all();
        assert!(!mint.is_valid(&first, now));
        assert_ne!(mint.serve(set(&[]), now).secret, second);
        assert_eq!(mint.generation_of(&first), Some(1));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut mint, now) = (Mint::new(s(3600), s(300)), Instant::now());
        let first = mint.serve(set(&["kept"]), now).secret;
        for _ in 0..REMEMBERED {
            mint.current.remove(&Want::Access(set(&[])));
            mint.serve(set(&[]), now);
        }
        assert_eq!(
            (mint.known.len(), mint.order.len()),
            (REMEMBERED, REMEMBERED)
        );
        assert_eq!(mint.generation_of(&first), None);
        assert_ne!(mint.serve(set(&["kept"]), now).secret, first);
    }
}
