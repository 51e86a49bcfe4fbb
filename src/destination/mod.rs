//! `Destinations`: which origins may see the token.
//!
//! The check looks at the request's URI, and at whether the method is one that can carry a token. The `Host`
//! header plays no part.
//! Origins that it has admitted are remembered.
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

pub(crate) use self::origin::{OriginId, Target, TargetKind};
use self::{
    admitted::AdmittedOrigins,
    origin::{Origin, OriginError},
    pattern::Pattern,
};
use crate::{
    config_error::ConfigError,
    error::{AuthError, Kind},
    text,
};

/// The origins that may receive the token.
///
/// The default is [`google_apis`](Self::google_apis). A request to any other origin is refused, before any
/// token is fetched, with an error that names the host ([`AuthError::is_destination`]). If
/// [`pass_others`](Self::pass_others) is set, it is sent without a token instead.
///
/// ```
/// use tower_scoped_auth::Destinations;
///
/// let mine = Destinations::only(["https://my-service-abc.a.run.app", "http://127.0.0.1:8080"])?;
/// let both = Destinations::google_apis().and(["https://*.internal.example"])?;
/// # Ok::<(), tower_scoped_auth::ConfigError>(())
/// ```
///
/// # What is compared
///
/// The scheme, the host and the port of the request's URI. The `Host` header plays no part. Host names
/// are compared in ASCII lower case, addresses by value (`[0:0::1]` is `[::1]`). The default port is 80
/// for http and 443 for https. There is no IDNA processing: a look-alike is a different name (`xn--…`),
/// or is refused.
///
/// # What no pattern allows
///
/// The token must go where the client connects to. So a URI whose origin two parsers could read
/// differently is refused. The error says what is odd and at which byte of the authority:
///
/// - an `@`: there is no user information in an origin;
/// - brackets that do not hold an IPv6 address as [`Ipv6Addr`](std::net::Ipv6Addr) parses it, which
///   takes no zone;
/// - a host of other characters than ASCII letters, digits, `-`, `_` and single dots, or with a dot at
///   its end;
/// - a host that ends in a number, but is not an IPv4 address of four decimal numbers (`127.1`);
/// - a port that is not a number from 1 to 65535, or that starts with a zero.
///
/// A path must begin with a slash, and not with two where the host is missing. (`http` builds other URIs
/// from parts. Written out and read again, they go to another host.)
///
/// The metadata server, by its usual names and addresses, is no destination either. `CONNECT` and `TRACE`
/// requests never get a token: a proxy would read it, or the answer repeat it.
///
/// [`danger_trust_inner`](Self::danger_trust_inner) allows all of these except the two methods.
#[derive(Clone)]
pub struct Destinations {
    shared: Arc<Shared>,
    pass_others: bool,
}

/// What all clones share.
struct Shared {
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

/// Why a request may not carry the token.
enum Reason {
    Unreadable(OriginError),
    MetadataServer,
    NotAllowed,
}

const METADATA_SERVER: &str = "the metadata server is never a destination";

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
    /// without a slash at the end. Google APIs are then allowed only if a pattern names them; to add to
    /// them, use [`and`](Self::and).
    ///
    /// The scheme is `https`, or `http` if you want plaintext. The host is a DNS name, an IPv4 address,
    /// or an IPv6 address in brackets. A leading `*.` stands for one or more labels:
    /// `https://*.run.app` covers `a.run.app` and `a.b.run.app`, but not `run.app`; at least two labels
    /// must follow it.
    ///
    /// A wildcard covers every host below the domain, whoever runs it. `https://*.run.app` is every Cloud
    /// Run service, also those of strangers: use it only for ID tokens with
    /// [`Audience::per_origin`](crate::Audience::per_origin), which are of no use to another service.
    ///
    /// A token for an `http` origin can be read on the way, also by a proxy that the client uses. reqwest
    /// takes one from the environment unless it is built with `no_proxy`.
    ///
    /// # Errors
    ///
    /// There are no patterns, or one is malformed, longer than a DNS name can be, or names the metadata
    /// server. The message says what is wrong and at which character.
    pub fn only<I>(patterns: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::new(Allowed::Patterns(Box::default())).and(patterns)
    }

    /// Allows the origins that match one of these patterns as well. They are written as in
    /// [`only`](Self::only). [`pass_others`](Self::pass_others) stays as it is.
    ///
    /// # Errors
    ///
    /// As for [`only`](Self::only): no patterns are an error here too. Also after [`inner_origin`](Self::inner_origin), because a service
    /// that goes to one origin goes to no other, and after
    /// [`danger_trust_inner`](Self::danger_trust_inner), which allows everything.
    pub fn and<I>(self, patterns: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let wrong = |reason| ConfigError::new("destinations", "", reason);
        let Allowed::Patterns(earlier) = &self.shared.allowed else {
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
    /// refused. Write the origin as in [`only`](Self::only), without a wildcard.
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
    /// instead.
    ///
    /// `CONNECT` and `TRACE` requests get no token here either. With
    /// [`Audience::per_origin`](crate::Audience::per_origin), a request whose origin cannot be read fails,
    /// because it has no audience.
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
    /// Fetches nothing, and needs no runtime. `Ok` means that a request to this URI may carry the token.
    /// Give the client the URI that was checked, `uri.to_string()`, not a text that it was parsed from,
    /// which the client might read differently. Let the client follow no redirects. The method is not
    /// checked: never send a token with `CONNECT` or `TRACE`.
    ///
    /// As in the layer, a URI without a host is that of [`inner_origin`](Self::inner_origin), and
    /// [`danger_trust_inner`](Self::danger_trust_inner) allows every URI. Refusals are not counted in the
    /// metrics.
    ///
    /// ```
    /// use http::Uri;
    /// use tower_scoped_auth::{Destinations, Scopes, TokenCache, TokenRequest};
    ///
    /// # async fn example(cache: TokenCache, uri: Uri) -> Result<(), tower_scoped_auth::AuthError> {
    /// Destinations::google_apis().check(&uri)?;
    /// let token = cache.token(&TokenRequest::access_token(Scopes::default())).await?;
    /// // Send `token.expose_secret()` with a request to `uri.to_string()`.
    /// # Ok(())
    /// # }
    /// let odd = Uri::from_static("https://[x.googleapis.com]/");
    /// assert!(Destinations::google_apis().check(&odd).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// The token may not go there. This is the layer's own error, [`AuthError::is_destination`]. With
    /// [`pass_others`](Self::pass_others), it is the same: the layer would send the request, but without
    /// the token.
    pub fn check(&self, uri: &Uri) -> Result<(), AuthError> {
        let target = Target::of(uri);
        let origin = self.origin_for_token(&target);
        origin
            .map(drop)
            .map_err(|reason| self.refusal(&target, &reason))
    }

    fn new(allowed: Allowed) -> Self {
        let admitted = AdmittedOrigins::default();
        Self {
            shared: Arc::new(Shared { admitted, allowed }),
            pass_others: false,
        }
    }

    /// The origin of `target`, if the check admitted the same target earlier.
    #[inline]
    pub(crate) fn admitted(&self, target: &Target<'_>) -> Option<OriginId> {
        self.shared.admitted.find(target)
    }

    /// May a request to `target` carry the token?
    #[inline]
    pub(crate) fn access(&self, target: &Target<'_>) -> Access {
        match self.origin_for_token(target) {
            Ok(origin) => Access::Stamp(origin),
            Err(_) if self.pass_others => Access::Pass,
            Err(reason) => Access::Refuse(self.refusal(target, &reason)),
        }
    }

    /// The origin of `target`, as an audience: `scheme://host[:port]`.
    pub(crate) fn audience(&self, target: &Target<'_>) -> Result<String, AuthError> {
        let origin = self.shared.allowed.origin(target).map_err(|error| {
            AuthError::new(
                Kind::Request,
                format!("no audience can be derived from the request's origin: {error}"),
            )
        })?;
        Ok(origin.to_string())
    }

    /// The origin that a request to `target` may carry the token to.
    #[inline]
    fn origin_for_token(&self, target: &Target<'_>) -> Result<OriginId, Reason> {
        match self.admitted(target) {
            Some(origin) => Ok(origin),
            None => self.check_and_remember(target),
        }
    }

    fn check_and_remember(&self, target: &Target<'_>) -> Result<OriginId, Reason> {
        let Shared { admitted, allowed } = &*self.shared;
        let checked = allowed.check(target);
        if let Ok(origin) = checked {
            admitted.insert(target, origin);
        }
        checked
    }

    /// Names scheme, host and port only; the rest of a URI may hold secrets.
    #[cold]
    fn refusal(&self, target: &Target<'_>, reason: &Reason) -> AuthError {
        let reason = match (reason, &self.shared.allowed) {
            (Reason::Unreadable(error), _) => error.to_string(),
            (Reason::MetadataServer, _) => METADATA_SERVER.to_owned(),
            (Reason::NotAllowed, Allowed::Inner(origin)) => {
                format!("allowed is {origin} alone; see Destinations::inner_origin")
            }
            (Reason::NotAllowed, Allowed::AnyInner) => "it is not allowed".to_owned(),
            (Reason::NotAllowed, Allowed::Patterns(patterns)) => format!(
                "allowed are {}; see ScopedAuthLayer::destinations to allow more, or \
                 Destinations::pass_others to let other requests through without a token",
                first_of(patterns)
            ),
        };
        let place = place(target);
        AuthError::new(Kind::Destination, format!("no token for {place}: {reason}"))
    }
}

impl Allowed {
    /// Where a request goes: what the check and an audience are about.
    fn origin<'a>(&'a self, target: &Target<'a>) -> Result<Origin<'a>, OriginError> {
        match self {
            Self::Inner(origin) if target.is_without_origin() => Ok(origin.clone()),
            _ => Origin::of(target),
        }
    }

    /// The check itself.
    fn check(&self, target: &Target<'_>) -> Result<OriginId, Reason> {
        if matches!(self, Self::AnyInner) && target.kind != TargetKind::UnfitMethod {
            return Ok(target.origin_id());
        }
        let origin = self.origin(target).map_err(Reason::Unreadable)?;
        let is_allowed = match self {
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.matches(&origin)),
            Self::Inner(inner) => origin == *inner,
            Self::AnyInner => false,
        };
        match is_allowed {
            true if origin.is_metadata_server() => Err(Reason::MetadataServer),
            true => Ok(origin.id()),
            false => Err(Reason::NotAllowed),
        }
    }
}

/// Where a refused request was to go, without what comes before an `@`, which may be a password.
fn place(target: &Target<'_>) -> String {
    let (hidden, host) = match target.authority.rsplit_once('@') {
        Some((_, host)) => ("…@", host),
        None => ("", target.authority),
    };
    // What looks like a port may be a password that ended at a slash.
    let host = match host.rsplit_once(':') {
        Some((host, port))
            if !port.ends_with(']') && !port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            format!("{host}:…")
        }
        _ => host.to_owned(),
    };
    let host = text::on_one_line(&host, SHOWN);
    match target.kind {
        _ if target.authority.is_empty() => "a URI without a host".to_owned(),
        TargetKind::Https => format!("https://{hidden}{host}"),
        TargetKind::Http => format!("http://{hidden}{host}"),
        _ => format!("{hidden}{host}"),
    }
}

/// The first few patterns, separated by commas.
fn first_of(patterns: &[Pattern]) -> String {
    const NAMED: usize = 4;
    let named: Vec<_> = patterns
        .iter()
        .take(NAMED)
        .map(Pattern::to_string)
        .collect();
    let more = if patterns.len() > NAMED { ", …" } else { "" };
    named.join(", ") + more
}

impl Default for Destinations {
    fn default() -> Self {
        Self::google_apis()
    }
}

impl fmt::Debug for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Destinations");
        match &self.shared.allowed {
            Allowed::Patterns(patterns) => {
                let patterns: Vec<_> = patterns.iter().map(Pattern::to_string).collect();
                debug.field("only", &patterns)
            }
            Allowed::Inner(origin) => debug.field("inner_origin", &origin.to_string()),
            Allowed::AnyInner => debug.field("danger_trust_inner", &true),
        };
        debug.field("pass_others", &self.pass_others).finish()
    }
}

#[cfg(test)]
mod tests;
