//! Fixtures: an API on loopback that looks at tokens as Google's do, and a gRPC service.

pub mod api;
pub mod chat;
