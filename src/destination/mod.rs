//! `Destinations`: which origins may see the token.
//!
//! One check per request, of the URI alone: the `Host` header plays no part.
//!
//! | file | its job |
//! | --- | --- |
//! | `origin.rs` | an origin, read from an authority by the one parser |
//! | `pattern.rs` | an origin pattern |
//! | `admitted.rs` | the check's answers, remembered |

mod admitted;
mod origin;
mod pattern;

use std::{fmt, sync::Arc};

use http::Uri;

pub(crate) use self::origin::{OriginId, Scheme, Target};
use self::{
    admitted::AdmittedOrigins,
    origin::{Fault, Origin},
    pattern::Pattern,
};
use crate::{
    config_error::ConfigError,
    error::{AuthError, Kind},
    text,
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
/// let both = Destinations::google_apis().and(["https://*.run.app"])?;
/// # Ok::<(), tower_scoped_auth::ConfigError>(())
/// ```
///
/// # What is compared
///
/// The scheme, the host in ASCII lower case, and the port (by default 80 for http and 443 for https) of
/// the request's URI; the `Host` header plays no part. There is no IDNA processing: a look-alike is
/// either refused or a different name (`xn--…`).
///
/// # What is always refused
///
/// The token must go where the client connects to. So a URI that two clients could read differently is
/// refused, whatever the patterns say, and the error says what is odd and at which byte:
///
/// - an `@` in the authority: there is no user information in an origin;
/// - brackets that do not hold an IPv6 address as [`Ipv6Addr`](std::net::Ipv6Addr) parses it, which has no zone;
/// - a host that is neither a DNS name nor an IPv4 address of four decimal numbers (`127.1` is
///   neither), or that ends in a dot;
/// - a port that is not a number from 1 to 65535, or that starts with a zero.
///
/// The metadata server itself is never a destination either. Nor is whoever answers a `CONNECT` request:
/// that is a proxy, which would read the token. Only
/// [`danger_trust_inner`](Self::danger_trust_inner) skips all but the last of these checks.
#[derive(Clone)]
pub struct Destinations {
    check: Arc<Check>,
    pass_others: bool,
}

/// What every request of every clone is checked with.
struct Check {
    admitted: AdmittedOrigins,
    allowed: Allowed,
}

#[derive(Clone)]
enum Allowed {
    Patterns(Box<[Pattern]>),
    /// One origin, which the inner service adds to a request that names none.
    Inner(Origin<'static>),
    /// Whatever the inner service does with a request.
    AnyInner,
}

/// What to do with a request.
pub(crate) enum Access {
    /// It may carry the token; a 401 is attributed to this origin.
    Stamp(OriginId),
    /// It is sent without a token.
    Pass,
    /// It is not sent.
    Refuse(AuthError),
}

/// The domain of all Google APIs in the default universe.
const GOOGLE_APIS: &str = "googleapis.com";

/// The most characters of a host that an error repeats.
const SHOWN: usize = 256;

impl Destinations {
    /// Allows `https` to `googleapis.com` and its subdomains. The default.
    pub fn google_apis() -> Self {
        Self::new(Allowed::Patterns(Box::new(Pattern::domain_and_subdomains(
            GOOGLE_APIS,
        ))))
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
        let domain = pattern::parse_domain("universe domain", domain.as_ref())?;
        Ok(Self::new(Allowed::Patterns(Box::new(
            Pattern::domain_and_subdomains(&domain),
        ))))
    }

    /// Allows exactly the origins that match one of these patterns: `scheme://host[:port]`, with or
    /// without a slash at the end.
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
        Self::new(Allowed::Patterns(Box::default())).and(patterns)
    }

    /// Allows the origins that match one of these patterns as well. They are written as in
    /// [`only`](Self::only).
    ///
    /// # Errors
    ///
    /// As for [`only`](Self::only). Also after [`inner_origin`](Self::inner_origin), because a service
    /// that goes to one origin goes to no other, and after
    /// [`danger_trust_inner`](Self::danger_trust_inner), which allows everything.
    pub fn and<I>(self, patterns: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let wrong = |reason| ConfigError::new("destinations", "", reason);
        let Allowed::Patterns(earlier) = &self.check.allowed else {
            return Err(wrong(
                "nothing can be added to inner_origin or danger_trust_inner: \
                 the inner service decides where requests go",
            ));
        };
        let added = patterns
            .into_iter()
            .map(|pattern| Pattern::parse(pattern.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        if added.is_empty() {
            return Err(wrong("expected at least one pattern"));
        }
        let all = [&**earlier, &added].concat();
        Ok(Self {
            pass_others: self.pass_others,
            ..Self::new(Allowed::Patterns(all.into()))
        })
    }

    /// Allows one origin, for a service that adds it to requests itself.
    ///
    /// A tonic `Channel` adds its origin internally, so the requests it is given have neither scheme
    /// nor host. Here such a request counts as one to `origin`, which is also the audience of
    /// [`Audience::per_origin`](crate::Audience::per_origin). A request that names another origin is
    /// refused. A pattern as in [`only`](Self::only), without a wildcard.
    ///
    /// The layer cannot see where the service really connects to: name the origin that it was built for.
    ///
    /// ```
    /// use tower_scoped_auth::Destinations;
    ///
    /// let pubsub = Destinations::inner_origin("https://pubsub.googleapis.com")?;
    /// # Ok::<(), tower_scoped_auth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The origin is malformed, or has a wildcard; the message says what is wrong and at which position.
    pub fn inner_origin(origin: impl AsRef<str>) -> Result<Self, ConfigError> {
        Ok(Self::new(Allowed::Inner(Pattern::parse_origin(
            origin.as_ref(),
        )?)))
    }

    /// Allows every request, whatever its URI says, and whatever the inner service does with it.
    ///
    /// Around a client that goes wherever a request's URI points, this gives the token to every host. For
    /// a service that is bound to one origin, name that with [`inner_origin`](Self::inner_origin)
    /// instead. A `CONNECT` request has no token even so.
    pub fn danger_trust_inner() -> Self {
        Self::new(Allowed::AnyInner)
    }

    /// Sends requests to other destinations without a token instead of refusing them.
    pub fn pass_others(mut self) -> Self {
        self.pass_others = true;
        self
    }

    /// Checks a URI as the layer checks that of a request, for clients that no layer can be put around.
    ///
    /// The check is all there is to it: nothing is fetched, and no runtime is needed. Send the token with
    /// a request to this URI only if the answer is `Ok`, and have the client follow no redirects. The
    /// method is not looked at: never send a token with `CONNECT`.
    ///
    /// ```
    /// use tower_scoped_auth::Destinations;
    ///
    /// let destinations = Destinations::google_apis();
    /// destinations.check(&"https://storage.googleapis.com/bucket".parse()?)?;
    /// let error = destinations.check(&"https://[x.googleapis.com]/".parse()?).unwrap_err();
    /// assert!(error.is_destination());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The token may not go there. This is the layer's own error, [`AuthError::is_destination`]. It is
    /// the same with [`pass_others`](Self::pass_others), under which the layer would send the request,
    /// but without the token.
    pub fn check(&self, uri: &Uri) -> Result<(), AuthError> {
        let target = Target::of(uri);
        if self.admitted(&target).is_some() {
            return Ok(());
        }
        let admitted = self.admit(&target).map(drop);
        admitted.map_err(|fault| self.refusal(&target, fault))
    }

    fn new(allowed: Allowed) -> Self {
        let admitted = AdmittedOrigins::default();
        Self {
            check: Arc::new(Check { admitted, allowed }),
            pass_others: false,
        }
    }

    /// The origin of `target`, if the check admitted it earlier; what it did not admit has to be checked.
    #[inline]
    pub(crate) fn admitted(&self, target: &Target<'_>) -> Option<OriginId> {
        self.check.admitted.find(target)
    }

    /// May a request to `target` carry the token?
    #[inline]
    pub(crate) fn access(&self, target: &Target<'_>) -> Access {
        if let Some(origin) = self.admitted(target) {
            return Access::Stamp(origin);
        }
        match self.admit(target) {
            Ok(origin) => Access::Stamp(origin),
            Err(_) if self.pass_others => Access::Pass,
            Err(fault) => Access::Refuse(self.refusal(target, fault)),
        }
    }

    /// The origin of `target`, as an audience: `scheme://host[:port]`.
    pub(crate) fn audience(&self, target: &Target<'_>) -> Result<String, AuthError> {
        let origin = self.check.allowed.origin(target).map_err(|fault| {
            AuthError::new(
                Kind::Request,
                format!("no audience can be derived from the request's origin: {fault}"),
            )
        })?;
        Ok(origin.to_string())
    }

    /// The origin that the token may be sent to with a request to `target`, remembered from here on. If
    /// there is none: what is odd about the URI, if anything is.
    fn admit(&self, target: &Target<'_>) -> Result<OriginId, Option<Fault>> {
        let origin = self.check.allowed.check(target)?;
        self.check.admitted.insert(target, origin);
        Ok(origin)
    }

    /// Names scheme, host and port only; the rest of a URI may hold secrets.
    #[cold]
    fn refusal(&self, target: &Target<'_>, fault: Option<Fault>) -> AuthError {
        let place = place(target);
        let reason = match fault {
            Some(fault) => fault.to_string(),
            None => format!(
                "allowed {}; see ScopedAuthLayer::destinations to allow more, or \
                 Destinations::pass_others to let other requests through without a token",
                self.check.allowed
            ),
        };
        AuthError::new(Kind::Destination, format!("no token for {place}: {reason}"))
    }
}

impl Allowed {
    /// The one reading of where a request goes: what the check, an audience and a 401 are about.
    fn origin<'a>(&'a self, target: &Target<'a>) -> Result<Origin<'a>, Fault> {
        match self {
            Self::Inner(origin) if target.is_without_origin() => Ok(origin.clone()),
            _ => Origin::of(target),
        }
    }

    /// The check itself.
    fn check(&self, target: &Target<'_>) -> Result<OriginId, Option<Fault>> {
        if let Self::AnyInner = self
            && target.scheme != Scheme::Tunnel
        {
            return Ok(target.origin_id());
        }
        let origin = self.origin(target).map_err(Some)?;
        let is_allowed = match self {
            Self::Patterns(patterns) => {
                patterns.iter().any(|pattern| pattern.matches(&origin))
                    && !origin.is_metadata_server()
            }
            Self::Inner(inner) => origin == *inner,
            Self::AnyInner => false,
        };
        is_allowed.then(|| origin.id()).ok_or(None)
    }
}

/// Where a refused request was to go, without what comes before an `@`, which may be a password.
fn place(target: &Target<'_>) -> String {
    let (hidden, host) = match target.authority.rsplit_once('@') {
        Some((_, host)) => ("…@", host),
        None => ("", target.authority),
    };
    let host = text::on_one_line(host, SHOWN);
    match target.scheme {
        _ if target.authority.is_empty() => "a URI without a host".to_owned(),
        Scheme::Https => format!("https://{hidden}{host}"),
        Scheme::Http => format!("http://{hidden}{host}"),
        Scheme::Other | Scheme::Missing | Scheme::Tunnel => format!("{hidden}{host}"),
    }
}

impl Default for Destinations {
    fn default() -> Self {
        Self::google_apis()
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED: usize = 4;
        match self {
            Self::Patterns(patterns) => {
                f.write_str("are ")?;
                for (number, pattern) in patterns.iter().take(NAMED).enumerate() {
                    let separator = if number == 0 { "" } else { ", " };
                    write!(f, "{separator}{pattern}")?;
                }
                f.write_str(if patterns.len() > NAMED { ", …" } else { "" })
            }
            Self::Inner(origin) => write!(f, "is {origin} alone, the inner service's own"),
            Self::AnyInner => f.write_str("is whatever the inner service does"),
        }
    }
}

impl fmt::Debug for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Destinations");
        match &self.check.allowed {
            Allowed::Patterns(patterns) => {
                let patterns = patterns
                    .iter()
                    .map(|pattern| format_args!("{pattern}").to_string());
                debug.field("only", &patterns.collect::<Vec<_>>())
            }
            Allowed::Inner(origin) => debug.field("inner_origin", &origin.to_string()),
            Allowed::AnyInner => debug.field("danger_trust_inner", &true),
        };
        debug.field("pass_others", &self.pass_others).finish()
    }
}

#[cfg(test)]
mod tests;
