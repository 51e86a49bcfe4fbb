//! `Watch`: what remains of a stamp when its request has gone out, until the response is there.

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

/// The token a request carried, by name, to be told of a 401.
pub(crate) struct Watch {
    serial: Serial,
    asker: Asker,
    rejections: Rejections,
}

impl Watch {
    /// A request goes out with the token of that name.
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

    /// Exactly one value is there afterwards. An error if the request has no room for a header.
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

    /// Whose request it was.
    pub(crate) fn asker(&self) -> Asker {
        self.asker
    }

    /// The request was answered 401.
    #[cold]
    pub(crate) fn rejected(&self) {
        rejection::report(self.serial, self.asker);
        self.rejections.note();
    }
}
