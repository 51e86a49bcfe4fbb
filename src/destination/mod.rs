//! `Destinations`: which origins may see the token.
//!
//! Pure: a list of patterns and the URI of a request in, a verdict out. The URI decides, never the
//! `Host` header. Knows nothing of tokens, caches or services.
//!
//! | file | its job |
//! | --- | --- |
//! | `origin.rs` | a request's scheme and authority, taken apart once |
//! | `pattern.rs` | an origin pattern: parsed with care, compared exactly |
//! | `shortcut.rs` | the usual origin, recognised without any of that |

mod origin;
mod pattern;
mod shortcut;

use std::{fmt, sync::Arc};

pub(crate) use self::origin::{Scheme, Target};
use self::{
    origin::{Fault, Origin},
    pattern::Pattern,
    shortcut::Shortcuts,
};
use crate::{
    asker::Asker,
    config_error::ConfigError,
    error::{AuthError, Kind},
};

/// Which origins may see the token.
///
/// The default is [`google_apis`](Self::google_apis). A request to anywhere else is refused with an
/// [`AuthError`] that [names the host](AuthError::is_destination), before any token is fetched, or
/// goes on without a token under [`pass_others`](Self::pass_others).
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
/// The scheme, the host in ASCII lower case, and the port (80 for http and 443 for https, if none is
/// given) of the request's URI; the `Host` header plays no part. A URI with user information, with
/// a host that ends in a dot, or with a character that no DNS name has, is refused whatever the
/// patterns say. There is no IDNA: a look-alike is either refused or another name (`xn--…`).
///
/// The metadata server itself is never a destination, except under [`trust_inner`](Self::trust_inner),
/// which looks at nothing.
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
    /// Of the same patterns, for those that have one.
    shortcuts: Shortcuts,
}

/// What to do with a request.
pub(crate) enum Verdict {
    /// It may carry the token; a 401 to it is this asker's.
    Stamp(Asker),
    /// It goes on without.
    Pass,
    /// It goes nowhere.
    Refuse(AuthError),
}

/// Where all Google APIs are, in the default universe.
const GOOGLE_APIS: &str = "googleapis.com";

impl Destinations {
    /// `https` to `googleapis.com` and its subdomains. The default.
    pub fn google_apis() -> Self {
        Self::origins(Pattern::domain_and_subdomains(GOOGLE_APIS))
    }

    /// `https` to the domain of another universe and its subdomains, such as that of Google
    /// Distributed Cloud or a sovereign cloud, in place of `googleapis.com`.
    ///
    /// # Errors
    ///
    /// What is given is not a domain name of two labels or more.
    pub fn universe(domain: impl AsRef<str>) -> Result<Self, ConfigError> {
        let domain = pattern::checked_domain("universe domain", domain.as_ref())?;
        Ok(Self::origins(Pattern::domain_and_subdomains(&domain)))
    }

    /// Exactly the origins that match one of these patterns: `scheme://host[:port]`.
    ///
    /// The scheme is `https`, or `http` where plain text is what you want. The host is a DNS name, an
    /// IPv4 address, or an IPv6 address in brackets. A leading `*.` stands for one or more labels:
    /// `https://*.run.app` covers `a.run.app` and `a.b.run.app`, not `run.app`; at least two labels
    /// must follow it.
    ///
    /// # Errors
    ///
    /// No pattern at all, or a malformed one; the message says what is wrong, and where in it.
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

    /// Every request, whatever its URI says: for a service that is bound to one origin.
    ///
    /// A tonic `Channel` adds its origin inside, so the requests it is given have neither scheme nor
    /// host. Around a client that goes wherever a request's URI points, this gives the token to
    /// every host there is.
    pub fn trust_inner() -> Self {
        Self {
            allowed: Allowed::Inner,
            pass_others: false,
        }
    }

    /// Requests to other destinations go on without a token, where they would be refused.
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

    /// May a request to `target` carry the token? `None` says only that it takes a
    /// [judgement](Self::judge) to know.
    #[inline]
    pub(crate) fn admit(&self, target: &Target<'_>) -> Option<Asker> {
        match &self.allowed {
            Allowed::Origins(origins) => origins.shortcuts.admit(target),
            Allowed::Inner => Some(target.asker()),
        }
    }

    /// May a request to `target` carry the token?
    pub(crate) fn judge(&self, target: &Target<'_>) -> Verdict {
        match (self.admit(target), &self.allowed) {
            (Some(asker), _) => Verdict::Stamp(asker),
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
            Ok(origin) if allowed && !origin.is_metadata_server() => Verdict::Stamp(target.asker()),
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

/// Names scheme, host and port; the rest of a URI may hold secrets.
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
