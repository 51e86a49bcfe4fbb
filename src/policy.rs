//! A layer's settings: what to ask for, and where the token may go. One decision per request.
//!
//! Immutable and shared by all clones of a service. Knows a request's headers and extensions; knows
//! nothing of services and futures.

use std::sync::Arc;

use http::{
    Extensions,
    header::{AUTHORIZATION, Entry, HeaderMap, HeaderValue, MaxSizeReached},
};

use crate::{
    destination::{Access, Destinations, OriginId},
    error::{AuthError, Kind},
    quota_project::QuotaProject,
    request::sealed::Outgoing,
    retry::SentAgain,
    token::{
        cache::TokenCache,
        current::Memo,
        request::{Audience, Scopes, TokenRequest},
        stamp::Imprint,
        supply::Supply,
    },
    watch::Watch,
};

/// The fields that every request reads come first, on one cache line.
#[repr(C, align(64))]
pub(crate) struct Policy {
    choice: Choice,
    destinations: Destinations,
    replace_authorization: bool,
    quota_project: Option<Box<QuotaProject>>,
    cache: TokenCache,
}

/// What to ask for if the request does not say.
enum Choice {
    /// Looked up once, so that the usual request needs no lookup.
    Fixed(Arc<Supply>),
    PerOrigin,
}

/// What to ask for on behalf of one request.
enum Wanted<'a> {
    /// The layer's choice.
    Usual(&'a Arc<Supply>),
    /// The request's own choice, or what its origin makes of the layer's choice.
    Other(TokenRequest),
}

/// What to do with one request.
pub(crate) enum Decision {
    /// Send it as it is, without our token.
    Pass,
    /// It is stamped. A 401 must be reported.
    Stamped(Watch),
    /// There is no token that could be sent at once.
    Wait(Wait),
    Refuse(AuthError),
}

/// What a request waits for, and on behalf of which origin.
pub(crate) struct Wait {
    pub(crate) supply: Arc<Supply>,
    pub(crate) origin: OriginId,
    /// The request was answered with 401 while carrying the token in service.
    pub(crate) rejected: bool,
}

impl Policy {
    pub(crate) fn new(
        cache: TokenCache,
        request: &TokenRequest,
        destinations: Destinations,
        replace_authorization: bool,
        quota_project: Option<QuotaProject>,
    ) -> Self {
        let choice = match request.check() {
            Ok(()) => Choice::Fixed(cache.supply(request)),
            Err(_) => Choice::PerOrigin,
        };
        Self {
            choice,
            destinations,
            replace_authorization,
            quota_project: quota_project.map(Box::new),
            cache,
        }
    }

    /// Handles the usual request completely: no header and no choice of its own, and a token that needs
    /// no decision. Any other request is left unchanged for [`decide`](Self::decide).
    #[inline]
    pub(crate) fn stamp<R: Outgoing>(&self, request: &mut R, memo: &mut Memo) -> Option<Watch> {
        let Choice::Fixed(supply) = &self.choice else {
            return None;
        };
        if request.extensions().is_some_and(has_wishes) {
            return None;
        }
        let origin = self.destinations.admitted(&request.target())?;
        let Imprint { header, serial } = supply.warm(memo)?;
        // Checking first whether there is a header would cost as much as inserting it.
        let headers = request.headers_mut();
        let previous = headers.try_insert(AUTHORIZATION, header);
        if !matches!(previous, Ok(None)) && !self.stays(headers, previous) {
            return None;
        }
        if let Some(project) = &self.quota_project
            && project.put(headers).is_err()
        {
            headers.remove(AUTHORIZATION);
            return None;
        }
        Some(Watch::new(serial, origin, &supply.fetcher().meters))
    }

    /// Handles everything that [`stamp`](Self::stamp) did not settle.
    #[inline(never)]
    pub(crate) fn decide<R: Outgoing>(&self, request: &mut R) -> Decision {
        let origin = match self.destinations.access(&request.target()) {
            Access::Stamp(origin) => origin,
            Access::Pass => return Decision::Pass,
            Access::Refuse(error) => return Decision::Refuse(error),
        };
        if !self.replace_authorization && request.headers().contains_key(AUTHORIZATION) {
            // The caller's own header is kept, and nothing is fetched.
            keep_one(request.headers_mut());
            return Decision::Pass;
        }
        let extensions = request.extensions();
        let rejected = extensions.is_some_and(|extensions| extensions.get::<SentAgain>().is_some());
        let wanted = match self.wanted(request) {
            Ok(wanted) => wanted,
            Err(error) => return Decision::Refuse(error),
        };
        let imprint = match &wanted {
            // Answered with 401 while carrying the token in service: waiting for another one is
            // worthwhile.
            _ if rejected => None,
            Wanted::Usual(supply) => supply.stamp(supply.now(), Some(origin)),
            Wanted::Other(request) => self.cache.stamp(request, origin),
        };
        // A request that waits is sent with a token or not at all.
        if let Some(project) = &self.quota_project
            && let Err(full) = project.put(request.headers_mut())
        {
            return Decision::Refuse(AuthError::too_many_headers(full));
        }
        let meters = self.cache.meters();
        match imprint.map(|imprint| Watch::put(request.headers_mut(), imprint, origin, meters)) {
            Some(Ok(watch)) => Decision::Stamped(watch),
            Some(Err(full)) => Decision::Refuse(full),
            None => Decision::Wait(Wait {
                supply: match wanted {
                    Wanted::Usual(supply) => Arc::clone(supply),
                    Wanted::Other(request) => self.cache.supply(&request),
                },
                origin,
                rejected,
            }),
        }
    }

    /// True if our value stays, because it may replace the caller's own. If not, the caller's value
    /// (the first of several) is restored. If there was no room, nothing was changed.
    #[cold]
    fn stays(
        &self,
        headers: &mut HeaderMap,
        previous: Result<Option<HeaderValue>, MaxSizeReached>,
    ) -> bool {
        match previous {
            Ok(Some(own)) if !self.replace_authorization => {
                headers.insert(AUTHORIZATION, own);
                false
            }
            previous => previous.is_ok(),
        }
    }

    /// A request was refused.
    #[cold]
    pub(crate) fn note_refusal(&self) {
        self.cache.meters().refused();
    }

    /// What to ask for on behalf of this request: its own choice, or the layer's.
    fn wanted<R: Outgoing>(&self, request: &R) -> Result<Wanted<'_>, AuthError> {
        let wish = request.extensions().and_then(wish);
        match (wish, &self.choice) {
            (None, Choice::Fixed(supply)) => Ok(Wanted::Usual(supply)),
            (Some(wish), _) if wish.check().is_ok() => Ok(Wanted::Other(wish)),
            (Some(_), _) | (None, Choice::PerOrigin) => {
                let origin = self.destinations.audience(&request.target())?;
                let audience = Audience::new(&origin).map_err(|error| {
                    AuthError::caused(Kind::Request, "no audience for this origin", error)
                })?;
                Ok(Wanted::Other(TokenRequest::id_token(audience)))
            }
        }
    }
}

impl Drop for Policy {
    /// Requests do not record in the supply when they used it. From here on the cache may forget it,
    /// the one idle longest first.
    fn drop(&mut self) {
        if let Choice::Fixed(supply) = &self.choice {
            supply.touch(supply.now().mono);
        }
    }
}

/// True if a request asks for something other than the layer's choice.
#[inline]
fn has_wishes(extensions: &Extensions) -> bool {
    !extensions.is_empty() && is_wish_among(extensions)
}

// Three map lookups are as much code as the rest of a warm request, and most requests skip them. They
// are therefore kept out of line.
#[inline(never)]
fn is_wish_among(extensions: &Extensions) -> bool {
    extensions.get::<Scopes>().is_some()
        || extensions.get::<Audience>().is_some()
        || extensions.get::<SentAgain>().is_some()
}

/// What a request asks for instead of the layer's choice. If it names both, the scopes win.
fn wish(extensions: &Extensions) -> Option<TokenRequest> {
    let scopes = extensions.get::<Scopes>().cloned();
    let audience = || extensions.get::<Audience>().cloned();
    scopes
        .map(TokenRequest::access_token)
        .or_else(|| audience().map(TokenRequest::id_token))
}

/// Keeps the caller's own value; if there are several, the first.
fn keep_one(headers: &mut HeaderMap) {
    if let Entry::Occupied(mut values) = headers.entry(AUTHORIZATION)
        && values.iter().nth(1).is_some()
    {
        let first = values.get().clone();
        values.insert(first);
    }
}
