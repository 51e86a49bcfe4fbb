//! What the programs in `src/bin/` share: a token server for everyone, the service inside, and each
//! peer wrapped around it as its own documentation has it.

#![allow(clippy::expect_used, clippy::panic)]

pub mod by_hand;
pub mod sink;
pub mod stacks;
pub mod token_server;

/// As long as a real one.
pub fn secret() -> String {
    "x".repeat(1024)
}
