//! What the programs in `src/bin/` share: one token server for all, the inner service, and each peer
//! wrapped around it as its own documentation shows.

#![allow(clippy::expect_used, clippy::panic)]

pub mod by_hand;
pub mod sink;
pub mod stacks;
pub mod token_server;

/// As long as a real token.
pub fn secret() -> String {
    "x".repeat(1024)
}
