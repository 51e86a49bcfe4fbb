//! `TokenRequest`: what is asked of a token source, and therefore what a token is cached under.
//!
//! Scopes and audiences are checked where they are given, so that nothing further down the road has
//! to. Knows the syntax of RFC 6749 scopes and how they are written into a query. Knows nothing of
//! sources, HTTP requests or time.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    ops::Deref,
    sync::{Arc, OnceLock},
};

use crate::{
    config_error::ConfigError,
    error::{AuthError, Kind},
};

/// A set of OAuth scopes (RFC 6749, section 3.3): order and repetition do not matter.
///
/// Empty ([`Scopes::default`]) means that the source decides: on Google Cloud that is
/// `cloud-platform` as a rule, or what the virtual machine was given.
///
/// ```
/// use tower_scoped_auth::Scopes;
///
/// let scopes = Scopes::new([
///     "https://www.googleapis.com/auth/drive",
///     "https://www.googleapis.com/auth/spreadsheets",
/// ])?;
/// assert_eq!(scopes.iter().count(), 2);
/// # Ok::<(), tower_scoped_auth::ConfigError>(())
/// ```
///
/// Clones share one allocation. Put one into a request's extensions to override the layer's choice.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Scopes {
    // `None` for no scopes: a default value allocates nothing.
    set: Option<Hashed<[Box<str>]>>,
}

/// The audience of an ID token: the URL or client ID of the service that will receive it.
///
/// Clones share one allocation. Put one into a request's extensions to override the layer's choice.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Audience {
    text: AudienceText,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum AudienceText {
    Fixed(Hashed<str>),
    PerOrigin,
}

/// What to ask a token source for; the key under which its token is cached.
///
/// Cheap to make, to clone, to compare and to hash: nothing is allocated.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    want: Want,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Want {
    Access(Scopes),
    Id(Audience),
}

/// A shared text or list, hashed when it was made: to look it up is to hash eight bytes.
struct Hashed<T: ?Sized> {
    value: Arc<T>,
    /// With a seed of this process.
    hash: u64,
}

/// Longest scope set and longest audience, in bytes: with its escapes it has to fit into the line of
/// one HTTP request, for which servers commonly allow 8 KiB.
const MOST_BYTES: usize = 8 * 1024;

/// The scope under which IAM alone decides what is allowed.
pub(crate) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

impl Scopes {
    /// Checks and collects scopes; none at all is [`Scopes::default`].
    ///
    /// # Errors
    ///
    /// A scope that is empty, or has a character that RFC 6749 does not allow in one (`scope-token`:
    /// visible ASCII without `"` and `\`), or has a comma, which separates scopes on the way to the
    /// metadata server; scopes of more than 8 KiB together.
    pub fn new<I>(scopes: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut set = Vec::new();
        let mut bytes = 0_usize;
        for scope in scopes {
            let scope = scope.as_ref();
            check_scope(scope)?;
            bytes = bytes.saturating_add(scope.len() + 1);
            if bytes > MOST_BYTES {
                return Err(ConfigError::new(
                    "scopes",
                    scope,
                    "all scopes together exceed 8 KiB",
                ));
            }
            set.push(Box::<str>::from(scope));
        }
        set.sort_unstable();
        set.dedup();
        Ok(Self {
            set: (!set.is_empty()).then(|| Hashed::new(set.into())),
        })
    }

    /// `https://www.googleapis.com/auth/cloud-platform`: whatever IAM allows.
    pub fn cloud_platform() -> Self {
        let set: [Box<str>; 1] = [CLOUD_PLATFORM.into()];
        Self {
            set: Some(Hashed::new(Arc::new(set))),
        }
    }

    /// The scopes, sorted, each once.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.set
            .iter()
            .flat_map(|set| set.iter())
            .map(|scope| &**scope)
    }

    /// True if the source decides.
    pub fn is_empty(&self) -> bool {
        self.set.is_none()
    }
}

fn check_scope(scope: &str) -> Result<(), ConfigError> {
    let fault = |at, reason| Err(ConfigError::new("scope", scope, reason).at(at));
    if scope.is_empty() {
        return Err(ConfigError::new("scope", scope, "it is empty"));
    }
    for (at, character) in scope.chars().enumerate() {
        match character {
            ',' => return fault(at, "a comma separates scopes: give each one on its own"),
            ' ' => return fault(at, "a space separates scopes: give each one on its own"),
            '!' | '#'..='[' | ']'..='~' => {}
            _ => {
                return fault(
                    at,
                    "only visible ASCII without '\"' and '\\' may stand in a scope",
                );
            }
        }
    }
    Ok(())
}

impl Audience {
    /// The audience to ask for, as the receiving service expects it: for Cloud Run its URL, for IAP
    /// a client ID.
    ///
    /// # Errors
    ///
    /// It is empty, longer than 8 KiB, or has a space or a control character.
    pub fn new(audience: impl AsRef<str>) -> Result<Self, ConfigError> {
        let audience = audience.as_ref();
        let fault = |reason| ConfigError::new("audience", audience, reason);
        if audience.is_empty() {
            return Err(fault("it is empty"));
        }
        if audience.len() > MOST_BYTES {
            return Err(fault("it is longer than 8 KiB"));
        }
        let odd = |character: char| character.is_whitespace() || character.is_control();
        if let Some(at) = audience.chars().position(odd) {
            return Err(fault("it must not have white space or control characters").at(at));
        }
        Ok(Self {
            text: AudienceText::Fixed(Hashed::new(audience.into())),
        })
    }

    /// Each request's own origin (`https://host[:port]`) is its audience: one client for many Cloud
    /// Run services, with one cached ID token each.
    ///
    /// This is a layer's or a request's choice. Outside of one there is no origin to take, so a
    /// [`TokenRequest`] made of it directly is an error where it is used.
    pub fn per_origin() -> Self {
        Self {
            text: AudienceText::PerOrigin,
        }
    }

    /// The audience's text; `None` for [`Audience::per_origin`].
    pub fn as_str(&self) -> Option<&str> {
        match &self.text {
            AudienceText::Fixed(text) => Some(text),
            AudienceText::PerOrigin => None,
        }
    }
}

impl TokenRequest {
    /// An OAuth access token.
    pub fn access_token(scopes: Scopes) -> Self {
        Self {
            want: Want::Access(scopes),
        }
    }

    /// An OpenID Connect ID token.
    pub fn id_token(audience: Audience) -> Self {
        Self {
            want: Want::Id(audience),
        }
    }

    /// The scopes of an access token; `None` if an ID token is asked for.
    pub fn scopes(&self) -> Option<&Scopes> {
        match &self.want {
            Want::Access(scopes) => Some(scopes),
            Want::Id(_) => None,
        }
    }

    /// The audience of an ID token; `None` if an access token is asked for.
    pub fn audience(&self) -> Option<&Audience> {
        match &self.want {
            Want::Access(_) => None,
            Want::Id(audience) => Some(audience),
        }
    }

    /// An error if this cannot be asked of any source.
    pub(crate) fn check(&self) -> Result<(), AuthError> {
        match self.audience() {
            Some(audience) if audience.as_str().is_none() => Err(AuthError::new(
                Kind::Request,
                "Audience::per_origin() needs a request to take the origin from: \
                 use it in a layer or in a request's extensions",
            )),
            _ => Ok(()),
        }
    }
}

impl<T: ?Sized + Hash> Hashed<T> {
    fn new(value: Arc<T>) -> Self {
        static SEED: OnceLock<RandomState> = OnceLock::new();
        let hash = SEED.get_or_init(RandomState::new).hash_one(&*value);
        Self { value, hash }
    }
}

impl<T: ?Sized> Deref for Hashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Clone for Hashed<T> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            hash: self.hash,
        }
    }
}

impl<T: ?Sized + PartialEq> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
            || (self.hash == other.hash && self.value == other.value)
    }
}

impl<T: ?Sized + Eq> Eq for Hashed<T> {}

impl<T: ?Sized> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Display for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.want {
            Want::Access(scopes) if scopes.is_empty() => f.write_str("access token"),
            Want::Access(scopes) => write!(f, "access token for {scopes:?}"),
            Want::Id(audience) => write!(f, "ID token for {audience:?}"),
        }
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenRequest({self})")
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => fmt::Debug::fmt(text, f),
            None => f.write_str("(the request's origin)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s160_order_and_repetition_do_not_matter() {
        let one = TokenRequest::access_token(Scopes::new(["a", "b"]).unwrap());
        for other in [vec!["b", "a"], vec!["a", "b", "a"]] {
            let other = TokenRequest::access_token(Scopes::new(other).unwrap());
            assert_eq!(one, other);
            let seed = RandomState::new();
            assert_eq!(seed.hash_one(&one), seed.hash_one(&other));
        }
        assert_ne!(one, TokenRequest::access_token(Scopes::default()));
        assert_ne!(one, TokenRequest::id_token(Audience::new("a").unwrap()));
    }

    #[test]
    fn s163_hostile_scopes_are_refused_where_they_stand() {
        let long = "x".repeat(100 * 1024);
        for (scope, at) in [
            ("", None),
            ("a b", Some(1)),
            ("a,b", Some(1)),
            ("a\r\n", Some(1)),
            ("é", Some(0)),
            ("a\"", Some(1)),
            ("a\\b", Some(1)),
            ("abc\u{7f}", Some(3)),
            (&long, None),
        ] {
            let error = Scopes::new([scope]).unwrap_err();
            assert_eq!(error.position(), at, "{error}");
            assert!(error.to_string().len() < 600, "a short message");
        }
    }

    #[test]
    fn an_audience_is_checked() {
        for (audience, at) in [
            ("", None),
            ("a b", Some(1)),
            ("a\n", Some(1)),
            ("\u{85}", Some(0)),
        ] {
            assert_eq!(Audience::new(audience).unwrap_err().position(), at);
        }
        assert!(Audience::new("x".repeat(MOST_BYTES + 1)).is_err());
        let per_origin = TokenRequest::id_token(Audience::per_origin());
        assert!(
            per_origin
                .check()
                .unwrap_err()
                .to_string()
                .contains("per_origin")
        );
    }
}
