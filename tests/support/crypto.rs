//! TLS with all features on.

use std::sync::Once;

use tokio_rustls::rustls::crypto::ring;

/// Google's crate (feature `google-cloud-auth`) makes reqwest one that speaks TLS and has no crypto provider of
/// its own: without one in the process, its clients panic where they are built.
pub fn crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| ring::default_provider().install_default().unwrap());
}
