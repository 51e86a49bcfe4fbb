//! `Destinations`: which origins may see the token.
//!
//! Pure: takes a list of patterns and the URI of a request, and returns a verdict. The URI decides,
//! never the `Host` header. Knows nothing of tokens, caches or services.
//!
//! | file | its job |
//! | --- | --- |
//! | `origin.rs` | a request's scheme and authority, taken apart once |
//! | `pattern.rs` | an origin pattern: parsed strictly, compared exactly |
//! | `shortcut.rs` | a fast path for the usual origin |

mod origin;
mod pattern;
mod shortcut;

use std::{fmt, sync::Arc};

pub(crate) use self::origin::{OriginId, Scheme, Target};
use self::{
    origin::{Fault, Origin},
    pattern::Pattern,
    shortcut::Shortcuts,
};
use crate::{
    config_error::ConfigError,
    error::{AuthError, Kind},
};

/// The origins that may receive the token.
///
/// The default is [`google_apis`](Self::google_apis). A request to any other origin is refused with an
/// [`AuthError`] that [names the host](AuthError::is_destination), before any token is fetched, or is
/// sent without a token if [`pass_others`](Self::pass_others) is set.
///
/// ```
/// use tower_scoped_auth::Destinations;
///
/// let run = Destinations::only(["https://*.run.app", "http://127.0.0.1:8080"])?;
/// # Ok::<(), tower_scoped_auth::ConfigError>(())
/// ```
///
/// # What is compared
///
/// The scheme, the host in ASCII lower case, and the port (by default 80 for http and 443 for https) of
/// the request's URI; the `Host` header plays no part. A URI with user information, with a host that
/// ends in a dot, or with a character that cannot occur in a DNS name is refused whatever the patterns
/// say. There is no IDNA processing: a look-alike is either refused or a different name (`xn--…`).
///
/// The metadata server itself is never a destination, except under [`trust_inner`](Self::trust_inner),
/// which performs no checks.
#[derive(Clone)]
pub struct Destinations {
    allowed: Allowed,
    pass_others: bool,
}

#[derive(Clone)]
enum Allowed {
    Origins(Arc<Origins>),
    Inner,
}

struct Origins {
    patterns: Box<[Pattern]>,
    /// Fast forms of those of the same patterns that have one.
    shortcuts: Shortcuts,
}

/// What to do with a request.
pub(crate) enum Verdict {
    /// It may carry the token; a 401 is attributed to this origin.
    Stamp(OriginId),
    /// It is sent without a token.
    Pass,
    /// It is not sent.
    Refuse(AuthError),
}

/// The domain of all Google APIs in the default universe.
const GOOGLE_APIS: &str = "googleapis.com";

impl Destinations {
    /// Allows `https` to `googleapis.com` and its subdomains. The default.
    pub fn google_apis() -> Self {
        Self::origins(Pattern::domain_and_subdomains(GOOGLE_APIS))
    }

    /// Allows `https` to the domain of another universe and its subdomains, instead of
    /// `googleapis.com`.
    ///
    /// Other universes are, for example, Google Distributed Cloud and sovereign clouds.
    ///
    /// # Errors
    ///
    /// The argument is not a domain name of at least two labels.
    pub fn universe(domain: impl AsRef<str>) -> Result<Self, ConfigError> {
        let domain = pattern::checked_domain("universe domain", domain.as_ref())?;
        Ok(Self::origins(Pattern::domain_and_subdomains(&domain)))
    }

    /// Allows exactly the origins that match one of these patterns: `scheme://host[:port]`.
    ///
    /// The scheme is `https`, or `http` if you want plaintext. The host is a DNS name, an IPv4 address,
    /// or an IPv6 address in brackets. A leading `*.` stands for one or more labels:
    /// `https://*.run.app` covers `a.run.app` and `a.b.run.app`, but not `run.app`; at least two labels
    /// must follow it.
    ///
    /// # Errors
    ///
    /// There are no patterns, or one is malformed; the message says what is wrong and at which
    /// position.
    pub fn only<I>(patterns: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let patterns = patterns
            .into_iter()
            .map(|pattern| Pattern::parse(pattern.as_ref()));
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        if patterns.is_empty() {
            return Err(ConfigError::new(
                "destinations",
                "",
                "expected at least one pattern",
            ));
        }
        Ok(Self::origins(patterns))
    }

    /// Allows every request, whatever its URI says: for a service that is bound to one origin.
    ///
    /// A tonic `Channel` adds its origin internally, so the requests it is given have neither scheme
    /// nor host. Around a client that goes wherever a request's URI points, this gives the token to
    /// every host.
    pub fn trust_inner() -> Self {
        Self {
            allowed: Allowed::Inner,
            pass_others: false,
        }
    }

    /// Sends requests to other destinations without a token instead of refusing them.
    pub fn pass_others(mut self) -> Self {
        self.pass_others = true;
        self
    }

    fn origins(patterns: impl Into<Box<[Pattern]>>) -> Self {
        let patterns = patterns.into();
        let shortcuts = patterns.iter().filter_map(Pattern::shortcut).collect();
        Self {
            allowed: Allowed::Origins(Arc::new(Origins {
                patterns,
                shortcuts,
            })),
            pass_others: false,
        }
    }

    /// May a request to `target` carry the token? `None` means only that the shortcut cannot tell; use
    /// [`judge`](Self::judge).
    #[inline]
    pub(crate) fn admit(&self, target: &Target<'_>) -> Option<OriginId> {
        match &self.allowed {
            Allowed::Origins(origins) => origins.shortcuts.admit(target),
            Allowed::Inner => Some(target.origin()),
        }
    }

    /// May a request to `target` carry the token?
    pub(crate) fn judge(&self, target: &Target<'_>) -> Verdict {
        match (self.admit(target), &self.allowed) {
            (Some(origin), _) => Verdict::Stamp(origin),
            (None, Allowed::Origins(origins)) => self.judge_exactly(&origins.patterns, target),
            (None, Allowed::Inner) => self.judge_exactly(&[], target),
        }
    }

    fn judge_exactly(&self, patterns: &[Pattern], target: &Target<'_>) -> Verdict {
        let origin = Origin::of(target);
        let allowed = match &origin {
            Ok(origin) => patterns.iter().any(|pattern| pattern.matches(origin)),
            Err(_) => false,
        };
        match origin {
            Ok(origin) if allowed && !origin.is_metadata_server() => {
                Verdict::Stamp(target.origin())
            }
            _ if self.pass_others => Verdict::Pass,
            origin => Verdict::Refuse(refusal(patterns, target, origin.err())),
        }
    }
}

/// The origin of `target`, as an audience: `scheme://host[:port]`.
pub(crate) fn audience_of(target: &Target<'_>) -> Result<String, AuthError> {
    match Origin::of(target) {
        Ok(origin) => Ok(origin.to_string()),
        Err(fault) => Err(AuthError::new(
            Kind::Request,
            format!(
                "no audience can be derived from the request's origin: {}",
                fault.reason()
            ),
        )),
    }
}

/// Names scheme, host and port only; the rest of a URI may hold secrets.
#[cold]
fn refusal(patterns: &[Pattern], target: &Target<'_>, fault: Option<Fault>) -> AuthError {
    const NAMED: usize = 4;
    let place = match target.authority.rsplit('@').next() {
        Some(host) if !host.is_empty() => format!("{}://{}", target.scheme, host.escape_default()),
        _ => "a URI without a host".to_owned(),
    };
    if let Some(fault) = fault {
        let reason = fault.reason();
        return AuthError::new(Kind::Destination, format!("no token for {place}: {reason}"));
    }
    let mut allowed = String::new();
    for pattern in patterns.iter().take(NAMED) {
        let separator = if allowed.is_empty() { "" } else { ", " };
        allowed.push_str(&format!("{separator}{pattern}"));
    }
    if patterns.len() > NAMED {
        allowed.push_str(", …");
    }
    let message = format!(
        "no token for {place}: allowed are {allowed}; see ScopedAuthLayer::destinations to allow \
         more, or Destinations::pass_others to let other requests through without a token"
    );
    AuthError::new(Kind::Destination, message)
}

impl Default for Destinations {
    fn default() -> Self {
        Self::google_apis()
    }
}

impl fmt::Debug for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Destinations");
        match &self.allowed {
            Allowed::Origins(origins) => debug.field("only", &origins.patterns),
            Allowed::Inner => debug.field("trust_inner", &true),
        };
        debug.field("pass_others", &self.pass_others).finish()
    }
}

#[cfg(test)]
mod tests;
