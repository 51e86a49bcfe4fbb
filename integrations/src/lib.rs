//! Fixtures: an API on loopback that checks tokens as Google's do, and a gRPC service.

pub mod api;
pub mod chat;
