//! `Watch`: what is kept of a stamp after its request was sent, until the response arrives.

use http::header::{AUTHORIZATION, HeaderMap};

use crate::{
    asker::Asker,
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
    asker: Asker,
    rejections: Rejections,
}

impl Watch {
    /// A request is sent with the token of that serial.
    #[inline]
    pub(crate) fn new(serial: Serial, asker: Asker, meters: &Meters) -> Self {
        meters.stamped();
        let rejections = meters.rejections();
        Self {
            serial,
            asker,
            rejections,
        }
    }

    /// Leaves exactly one value in the header. An error if the request has no room for it.
    pub(crate) fn put(
        headers: &mut HeaderMap,
        imprint: Imprint,
        asker: Asker,
        meters: &Meters,
    ) -> Result<Self, AuthError> {
        let Imprint { header, serial } = imprint;
        match headers.try_insert(AUTHORIZATION, header) {
            Ok(_) => Ok(Self::new(serial, asker, meters)),
            Err(full) => Err(AuthError::too_many_headers(full)),
        }
    }

    /// The origin that the request went to.
    pub(crate) fn asker(&self) -> Asker {
        self.asker
    }

    /// The request was answered with 401.
    #[cold]
    pub(crate) fn rejected(&self) {
        rejection::report(self.serial, self.asker);
        self.rejections.note();
    }
}
