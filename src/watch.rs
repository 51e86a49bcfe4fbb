//! `Watch`: what remains of a stamp when its request has gone out, until the response is there.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, MaxSizeReached};

use crate::{
    error::{AuthError, Kind},
    token::{
        lease::{Asker, Stamp},
        meters::{Meters, Rejections},
    },
};

/// The stamp a request carried, to be told of a 401.
pub(crate) struct Watch {
    stamp: Arc<Stamp>,
    asker: Asker,
    rejections: Rejections,
}

impl Watch {
    /// A request goes out with `stamp` on it.
    #[inline]
    pub(crate) fn new(stamp: Arc<Stamp>, asker: Asker, meters: &Meters) -> Self {
        meters.stamped();
        let rejections = meters.rejections();
        Self {
            stamp,
            asker,
            rejections,
        }
    }

    /// Exactly one value is there afterwards. An error if the request has no room for a header.
    pub(crate) fn put(
        headers: &mut HeaderMap,
        stamp: Arc<Stamp>,
        asker: Asker,
        meters: &Meters,
    ) -> Result<Self, AuthError> {
        match headers.try_insert(AUTHORIZATION, stamp.header()) {
            Ok(_) => Ok(Self::new(stamp, asker, meters)),
            Err(full) => Err(too_many_headers(full)),
        }
    }

    /// The request was answered 401.
    #[cold]
    pub(crate) fn rejected(&self) {
        self.stamp.reject(self.asker);
        self.rejections.note();
    }
}

pub(crate) fn too_many_headers(full: MaxSizeReached) -> AuthError {
    let reason = "the request has more headers than can be sent";
    AuthError::caused(Kind::Request, reason, full)
}
