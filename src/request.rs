//! The sealed view of a request and a response: destination, headers, extensions.
//!
//! Thanks to these two traits, one `Service` impl serves every client. They say what can be read and
//! written, and decide nothing.

use http::{Extensions, HeaderMap, Request, Response, StatusCode};

use crate::destination::{OriginId, Target};

/// A request that [`ScopedAuth`](crate::ScopedAuth) can stamp: `http::Request<B>` with any body,
/// and `reqwest::Request` with feature `reqwest`.
///
/// Sealed: implemented by this crate only.
pub trait AuthRequest: sealed::Outgoing {}

/// A response whose status [`ScopedAuth`](crate::ScopedAuth) can see: `http::Response<B>` with any
/// body, and `reqwest::Response` with feature `reqwest`.
///
/// Sealed: implemented by this crate only.
pub trait AuthResponse: sealed::Incoming {}

pub(crate) mod sealed {
    use super::{Extensions, HeaderMap, OriginId, StatusCode, Target};

    pub trait Outgoing {
        fn target(&self) -> Target<'_>;
        fn headers(&self) -> &HeaderMap;
        fn headers_mut(&mut self) -> &mut HeaderMap;
        /// `None` if the client does not expose them.
        fn extensions(&self) -> Option<&Extensions>;
    }

    pub trait Incoming {
        fn status(&self) -> StatusCode;
        fn extensions_mut(&mut self) -> &mut Extensions;

        /// False if the response is known to come from another origin: a client that follows redirects
        /// may have gone there, without our token.
        fn answers(&self, _: OriginId) -> bool {
            true
        }
    }
}

impl<B> AuthRequest for Request<B> {}

impl<B> sealed::Outgoing for Request<B> {
    #[inline]
    fn target(&self) -> Target<'_> {
        Target::of(self.uri()).with_method(self.method())
    }

    #[inline]
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    #[inline]
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    #[inline]
    fn extensions(&self) -> Option<&Extensions> {
        Some(self.extensions())
    }
}

impl<B> AuthResponse for Response<B> {}

impl<B> sealed::Incoming for Response<B> {
    #[inline]
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

#[cfg(feature = "reqwest")]
mod reqwest_types {
    use reqwest::{Request, Response, Url};

    use super::{
        AuthRequest, AuthResponse, Extensions, HeaderMap, OriginId, StatusCode, Target, sealed,
    };
    use crate::destination::TargetKind;

    /// What reqwest (0.13) uses as the URL of a response that was constructed by hand.
    const NO_URL: &str = "no.url.provided.local";

    impl AuthRequest for Request {}

    impl sealed::Outgoing for Request {
        #[inline]
        fn target(&self) -> Target<'_> {
            target_of(self.url()).with_method(self.method())
        }

        fn headers(&self) -> &HeaderMap {
            self.headers()
        }

        fn headers_mut(&mut self) -> &mut HeaderMap {
            self.headers_mut()
        }

        fn extensions(&self) -> Option<&Extensions> {
            // reqwest (0.13) does not expose them.
            None
        }
    }

    #[inline]
    fn target_of(url: &Url) -> Target<'_> {
        let kind = match url.scheme() {
            "https" => TargetKind::Https,
            "http" => TargetKind::Http,
            _ => TargetKind::OtherScheme,
        };
        Target {
            kind,
            authority: url.authority(),
        }
    }

    impl AuthResponse for Response {}

    impl sealed::Incoming for Response {
        fn status(&self) -> StatusCode {
            self.status()
        }

        fn extensions_mut(&mut self) -> &mut Extensions {
            self.extensions_mut()
        }

        fn answers(&self, origin: OriginId) -> bool {
            let target = target_of(self.url());
            target.authority == NO_URL || target.origin_id() == origin
        }
    }
}
