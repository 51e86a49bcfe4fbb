//! What a layer was told: whom to ask for what, and where it may go. One decision per request.
//!
//! Immutable and shared by all clones of a service. Knows headers and extensions of a request;
//! knows nothing of services and futures.

use std::sync::Arc;

use http::header::{AUTHORIZATION, Entry, HeaderMap};

use crate::{
    destination::{self, Destinations, Verdict},
    error::AuthError,
    request::sealed::Outgoing,
    token::{
        cache::TokenCache,
        lease::{Asker, Stamp},
        request::{Audience, Scopes, TokenRequest},
        supply::Supply,
    },
};

pub(crate) struct Policy {
    cache: TokenCache,
    destinations: Destinations,
    replace_authorization: bool,
    choice: Choice,
}

/// What to ask for where the request does not say.
enum Choice {
    /// Found once, so that the usual request looks nothing up.
    Fixed(Arc<Supply>),
    PerOrigin,
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
    pub(crate) refused: bool,
}

/// The stamp a request carried, to be told of a 401.
pub(crate) struct Watch {
    stamp: Arc<Stamp>,
    asker: Asker,
}

/// In a request's extensions: a request with the same content was answered 401 with the token that
/// was in service, so another one is worth waiting for.
#[derive(Clone, Copy)]
pub(crate) struct Refused;

impl Policy {
    pub(crate) fn new(
        cache: TokenCache,
        request: &TokenRequest,
        destinations: Destinations,
        replace_authorization: bool,
    ) -> Self {
        let choice = match request.check() {
            Ok(()) => Choice::Fixed(cache.supply(request)),
            Err(_) => Choice::PerOrigin,
        };
        Self {
            cache,
            destinations,
            replace_authorization,
            choice,
        }
    }

    #[inline]
    pub(crate) fn decide<R: Outgoing>(&self, request: &mut R) -> Decision {
        let asker = match self.destinations.judge(&request.target()) {
            Verdict::Stamp(asker) => asker,
            Verdict::Pass => return Decision::Pass,
            Verdict::Refuse(error) => return Decision::Refuse(error),
        };
        let extensions = request
            .extensions()
            .filter(|extensions| !extensions.is_empty());
        if let (Choice::Fixed(supply), None) = (&self.choice, extensions) {
            // The usual request: nothing to look up but the place of the header.
            return self.stamp(request, supply, asker, false);
        }
        if !self.replace_authorization && request.headers().contains_key(AUTHORIZATION) {
            // Kept, so nothing need be found out.
            return self.stamp_nothing(request);
        }
        let refused = extensions.is_some_and(|extensions| extensions.get::<Refused>().is_some());
        let own = extensions.and_then(|extensions| {
            let scopes = extensions
                .get::<Scopes>()
                .cloned()
                .map(TokenRequest::access_token);
            scopes.or_else(|| {
                extensions
                    .get::<Audience>()
                    .cloned()
                    .map(TokenRequest::id_token)
            })
        });
        match (&self.choice, own) {
            (Choice::Fixed(supply), None) => self.stamp(request, supply, asker, refused),
            (_, own) => match self.supply_for(request, own) {
                Ok(supply) => self.stamp(request, &supply, asker, refused),
                Err(error) => Decision::Refuse(error),
            },
        }
    }

    #[inline]
    fn stamp<R: Outgoing>(
        &self,
        request: &mut R,
        supply: &Arc<Supply>,
        asker: Asker,
        refused: bool,
    ) -> Decision {
        match request.headers_mut().entry(AUTHORIZATION) {
            Entry::Occupied(_) if !self.replace_authorization => self.stamp_nothing(request),
            place => match if refused {
                None
            } else {
                supply.stamp(Some(asker))
            } {
                Some(stamp) => {
                    match place {
                        Entry::Vacant(place) => {
                            place.insert(stamp.header());
                        }
                        // All values there are, in place of which one remains.
                        Entry::Occupied(mut values) => {
                            values.insert(stamp.header());
                        }
                    }
                    Decision::Stamped(Watch { stamp, asker })
                }
                None => Decision::Wait(Wait {
                    supply: Arc::clone(supply),
                    asker,
                    refused,
                }),
            },
        }
    }

    /// The caller's own header goes.
    #[cold]
    fn stamp_nothing<R: Outgoing>(&self, request: &mut R) -> Decision {
        keep_one(request.headers_mut());
        Decision::Pass
    }

    /// What this request wants instead of the layer's choice, or the layer's, if that depends on the
    /// request.
    fn supply_for<R: Outgoing>(
        &self,
        request: &R,
        own: Option<TokenRequest>,
    ) -> Result<Arc<Supply>, AuthError> {
        let wanted = match own {
            Some(wanted) if wanted.check().is_ok() => wanted,
            _ => {
                let audience = destination::audience_of(&request.target())?;
                let audience = Audience::new(&audience).map_err(|error| {
                    AuthError::caused(
                        crate::error::Kind::Request,
                        "no audience for this origin",
                        error,
                    )
                })?;
                TokenRequest::id_token(audience)
            }
        };
        Ok(self.cache.supply(&wanted))
    }
}

impl Watch {
    /// Exactly one value is there afterwards.
    #[inline]
    pub(crate) fn put(headers: &mut HeaderMap, stamp: Arc<Stamp>, asker: Asker) -> Self {
        headers.insert(AUTHORIZATION, stamp.header());
        Self { stamp, asker }
    }

    /// The request was answered 401.
    #[cold]
    pub(crate) fn refused(&self) {
        self.stamp.reject(self.asker);
    }
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
