//! `Watch`: what is kept of a stamp after its request was sent, until the response arrives.

use http::header::{AUTHORIZATION, HeaderMap};

use crate::{
    destination::OriginId,
    error::AuthError,
    token::{
        meters::{Meters, Rejections},
        rejection,
        stamp::{Imprint, Serial},
    },
};

/// Identifies the token that a request carried, in order to report a 401.
pub(crate) struct Watch {
    serial: Serial,
    origin: OriginId,
    rejections: Rejections,
}

impl Watch {
    /// A request is sent with the token of that serial.
    #[inline]
    pub(crate) fn new(serial: Serial, origin: OriginId, meters: &Meters) -> Self {
        meters.stamped();
        let rejections = meters.rejections();
        Self {
            serial,
            origin,
            rejections,
        }
    }

    /// Leaves exactly one value in the header. An error if the request has no room for it.
    pub(crate) fn put(
        headers: &mut HeaderMap,
        imprint: Imprint,
        origin: OriginId,
        meters: &Meters,
    ) -> Result<Self, AuthError> {
        let Imprint { header, serial } = imprint;
        match headers.try_insert(AUTHORIZATION, header) {
            Ok(_) => Ok(Self::new(serial, origin, meters)),
            Err(full) => Err(AuthError::too_many_headers(full)),
        }
    }

    /// The origin that the request went to.
    pub(crate) fn origin(&self) -> OriginId {
        self.origin
    }

    /// The request was answered with 401.
    #[cold]
    pub(crate) fn rejected(&self) {
        rejection::report(self.serial, self.origin);
        self.rejections.note();
    }
}
