//! `TokenStatus` for serde (feature `serde`): the shape that the type's documentation shows.
//!
//! Serialises only: a status is observed, never read back.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_core::ser::{Serialize, SerializeStruct, Serializer};

use super::status::{TokenState, TokenStatus};
use crate::error::AuthError;

impl Serialize for TokenStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let expires_in = self.expires_in().map(|left| left.as_secs());
        // For a clock that is set before 1970 there is no better answer.
        let unix = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut fields = serializer.serialize_struct("TokenStatus", 8)?;
        fields.serialize_field("state", &self.state())?;
        fields.serialize_field("expires_in_seconds", &expires_in)?;
        fields.serialize_field("generation", &self.generation())?;
        fields.serialize_field("refreshing", &self.is_refreshing())?;
        fields.serialize_field("waiting", &self.waiting())?;
        fields.serialize_field("last_error", &self.last_error().map(AuthError::on_one_line))?;
        fields.serialize_field("failing_since", &self.failing_since().map(unix))?;
        fields.serialize_field("source", self.source())?;
        fields.end()
    }
}

impl Serialize for TokenState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
        })
    }
}
