//! Reads a response, a file or a program's output. Pure: text in, a value or a reason out.
//!
//! Reasons name rules and members, never what was read: text that is wrong in one place may hold a
//! good token in another.

pub(super) mod jwt;
pub(super) mod members;
pub(super) mod plain;
pub(super) mod seconds;

/// Real access tokens have about 1,000 characters, real ID tokens up to 2,000; servers limit headers to
/// 8 KiB or little more.
pub(super) const LONGEST_TOKEN: usize = 8_192;
