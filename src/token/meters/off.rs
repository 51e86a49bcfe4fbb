//! The meters without the feature `metrics`: no size, no code.

use std::time::{Duration, SystemTime};

use crate::token::request::TokenRequest;

pub(crate) struct Meters;

pub(crate) struct TokenMeter;

#[derive(Clone, Copy)]
pub(crate) struct Rejections;

pub(crate) struct Waiting;

impl Meters {
    pub(crate) fn new(_source: &'static str) -> Self {
        Self
    }

    pub(crate) fn token(&self, _request: &TokenRequest) -> TokenMeter {
        TokenMeter
    }

    #[inline(always)]
    pub(crate) fn stamped(&self) {}

    #[inline(always)]
    pub(crate) fn refused(&self) {}

    #[inline(always)]
    pub(crate) fn starved(&self) {}

    #[inline(always)]
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting
    }

    #[inline(always)]
    pub(crate) fn rejections(&self) -> Rejections {
        Rejections
    }

    #[inline(always)]
    pub(crate) fn fetched(
        &self,
        _outcome: &'static str,
        _reason: &'static str,
        _took: Option<Duration>,
    ) {
    }
}

impl TokenMeter {
    #[inline(always)]
    pub(crate) fn left(&self, _left: Option<Duration>, _wall: SystemTime) {}
}

impl Rejections {
    #[inline(always)]
    pub(crate) fn note(self) {}
}
