//! A token in service: its edges, its stamps, and which destinations rejected it.
//!
//! A lease is immutable except for the rejection mark. It knows nothing of slots or fetches: a 401 is
//! reported by the serial of the request's stamp, so a late one for a replaced token cannot affect the
//! one in service.

use std::sync::Arc;

use super::{
    clock::Moment,
    rejection::Rejection,
    schedule::Edges,
    stamp::{Stamp, Stamps},
    value::Token,
};
use crate::destination::OriginId;

/// One token, for as long as it is in service.
///
/// The fields that a request reads come first: see [`Supply`](super::supply::Supply).
#[repr(C)]
pub(crate) struct Lease {
    edges: Edges,
    stamps: Stamps,
    rejection: Arc<Rejection>,
    token: Token,
    generation: u64,
}

impl Lease {
    /// `None` if the token cannot be written as a header value.
    pub(crate) fn new(token: Token, generation: u64, edges: Edges) -> Option<Self> {
        let stamps = Stamps::of(&token)?;
        Some(Self {
            edges,
            rejection: Rejection::of(stamps.clone()),
            stamps,
            token,
            generation,
        })
    }

    /// The same token with other edges; stamps, generation and rejection are kept.
    pub(crate) fn with_edges(&self, edges: Edges) -> Self {
        Self {
            edges,
            stamps: self.stamps.clone(),
            rejection: Arc::clone(&self.rejection),
            token: self.token.clone(),
            generation: self.generation,
        }
    }

    /// The stamp that this thread uses, if the token is fresh and nobody rejected it: no decision is
    /// needed.
    #[inline]
    pub(crate) fn unquestioned_stamp(&self, now: Moment) -> Option<&Arc<Stamp>> {
        let stamp = self.stamp();
        (now.is_before(self.edges.fresh_until) && !stamp.is_rejected()).then_some(stamp)
    }

    /// The stamp that this thread uses.
    #[inline]
    pub(crate) fn stamp(&self) -> &Arc<Stamp> {
        self.stamps.mine()
    }

    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn edges(&self) -> &Edges {
        &self.edges
    }

    /// Gives the same answer on every thread, as decisions about a lease require: the marks on its
    /// stamps are set one after the other.
    pub(crate) fn is_unquestioned(&self, now: Moment) -> bool {
        now.is_before(self.edges.fresh_until) && !self.is_rejected()
    }

    pub(crate) fn is_rejected(&self) -> bool {
        self.rejection.is_set()
    }

    pub(crate) fn is_rejected_by(&self, origin: Option<OriginId>) -> bool {
        origin.is_some_and(|origin| self.rejection.is_by(origin))
    }
}
