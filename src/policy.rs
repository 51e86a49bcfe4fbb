//! What a layer was told: whom to ask for what, and where it may go. One decision per request.
//!
//! Immutable and shared by all clones of a service. Knows headers and extensions of a request;
//! knows nothing of services and futures.

use std::sync::Arc;

use http::{
    Extensions,
    header::{AUTHORIZATION, Entry, HeaderMap, HeaderValue, MaxSizeReached},
};

use crate::{
    asker::Asker,
    destination::{self, Destinations, Verdict},
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

/// What every request reads stands first, on one line of the cache.
#[repr(C, align(64))]
pub(crate) struct Policy {
    choice: Choice,
    destinations: Destinations,
    replace_authorization: bool,
    quota_project: Option<Box<QuotaProject>>,
    cache: TokenCache,
}

/// What to ask for where the request does not say.
enum Choice {
    /// Found once, so that the usual request looks nothing up.
    Fixed(Arc<Supply>),
    PerOrigin,
}

/// What to ask for on behalf of one request.
enum Wanted<'a> {
    /// The layer's choice.
    Usual(&'a Arc<Supply>),
    /// Its own wish, or what its origin makes of the layer's choice.
    Other(TokenRequest),
}

/// What is to become of one request.
pub(crate) enum Decision {
    /// As it is: to be sent without our token.
    Pass,
    /// Stamped. A 401 is to be reported.
    Stamped(Watch),
    /// There is no token that could be sent at once.
    Wait(Wait),
    Refuse(AuthError),
}

/// Whom a request waits for, and as whom.
pub(crate) struct Wait {
    pub(crate) supply: Arc<Supply>,
    pub(crate) asker: Asker,
    /// It was answered 401 with the token in service.
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

    /// The usual request, to its end: no header of its own, no wishes of its own, and a token about
    /// which there is nothing to decide. Anything else is left to [`decide`](Self::decide), as it was.
    #[inline]
    pub(crate) fn stamp<R: Outgoing>(&self, request: &mut R, memo: &mut Memo) -> Option<Watch> {
        let Choice::Fixed(supply) = &self.choice else {
            return None;
        };
        if request.extensions().is_some_and(has_wishes) {
            return None;
        }
        let asker = self.destinations.admit(&request.target())?;
        let Imprint { header, serial } = supply.warm(memo)?;
        // Looking first whether there is a header would cost as much as putting it there.
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
        Some(Watch::new(serial, asker, &supply.fetcher().meters))
    }

    /// Whatever [`stamp`](Self::stamp) did not settle.
    #[inline(never)]
    pub(crate) fn decide<R: Outgoing>(&self, request: &mut R) -> Decision {
        let asker = match self.destinations.judge(&request.target()) {
            Verdict::Stamp(asker) => asker,
            Verdict::Pass => return Decision::Pass,
            Verdict::Refuse(error) => return Decision::Refuse(error),
        };
        if !self.replace_authorization && request.headers().contains_key(AUTHORIZATION) {
            // The caller's own stays, and nothing is fetched.
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
            // Answered 401 with the token in service: another one is worth waiting for.
            _ if rejected => None,
            Wanted::Usual(supply) => supply.stamp(supply.now(), Some(asker)),
            Wanted::Other(request) => self.cache.stamp(request, asker),
        };
        // A request that waits goes out with a token or not at all.
        if let Some(project) = &self.quota_project
            && let Err(full) = project.put(request.headers_mut())
        {
            return Decision::Refuse(AuthError::too_many_headers(full));
        }
        let meters = self.cache.meters();
        match imprint.map(|imprint| Watch::put(request.headers_mut(), imprint, asker, meters)) {
            Some(Ok(watch)) => Decision::Stamped(watch),
            Some(Err(full)) => Decision::Refuse(full),
            None => Decision::Wait(Wait {
                supply: match wanted {
                    Wanted::Usual(supply) => Arc::clone(supply),
                    Wanted::Other(request) => self.cache.supply(&request),
                },
                asker,
                rejected,
            }),
        }
    }

    /// True if our value stays, because it may replace the caller's own. If not, that value (the first of
    /// several) is back; where there was no room, nothing was changed.
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

    /// What to ask for on behalf of this request: its own wish, or the layer's choice.
    fn wanted<R: Outgoing>(&self, request: &R) -> Result<Wanted<'_>, AuthError> {
        let wish = request.extensions().and_then(wish);
        match (wish, &self.choice) {
            (None, Choice::Fixed(supply)) => Ok(Wanted::Usual(supply)),
            (Some(wish), _) if wish.check().is_ok() => Ok(Wanted::Other(wish)),
            (Some(_), _) | (None, Choice::PerOrigin) => {
                let origin = destination::audience_of(&request.target())?;
                let audience = Audience::new(&origin).map_err(|error| {
                    AuthError::caused(Kind::Request, "no audience for this origin", error)
                })?;
                Ok(Wanted::Other(TokenRequest::id_token(audience)))
            }
        }
    }
}

impl Drop for Policy {
    /// Requests do not note in the supply when they used it, and from here on it may be forgotten: the one
    /// that is idle for longest first.
    fn drop(&mut self) {
        if let Choice::Fixed(supply) = &self.choice {
            supply.touch(supply.now().mono);
        }
    }
}

/// True if a request asks for something other than the usual.
#[inline]
fn has_wishes(extensions: &Extensions) -> bool {
    !extensions.is_empty() && is_wish_among(extensions)
}

// Three look-ups in a map are as much code as all the rest of a warm request, which most requests jump
// over: kept out of its way.
#[inline(never)]
fn is_wish_among(extensions: &Extensions) -> bool {
    extensions.get::<Scopes>().is_some()
        || extensions.get::<Audience>().is_some()
        || extensions.get::<SentAgain>().is_some()
}

/// What a request asks for in place of the layer's choice. If it names both, the scopes count.
fn wish(extensions: &Extensions) -> Option<TokenRequest> {
    let scopes = extensions.get::<Scopes>().cloned();
    let audience = || extensions.get::<Audience>().cloned();
    scopes
        .map(TokenRequest::access_token)
        .or_else(|| audience().map(TokenRequest::id_token))
}

/// The caller's own value stays; of several, the first.
fn keep_one(headers: &mut HeaderMap) {
    if let Entry::Occupied(mut values) = headers.entry(AUTHORIZATION)
        && values.iter().nth(1).is_some()
    {
        let first = values.get().clone();
        values.insert(first);
    }
}
