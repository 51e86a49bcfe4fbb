//! TLS with all features on.

use std::sync::Once;

use tokio_rustls::rustls::crypto::ring;

/// Google's crate (feature `google-cloud-auth`) turns on TLS in reqwest without a crypto provider: if the
/// process has none, building a client panics.
pub fn crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| ring::default_provider().install_default().unwrap());
}
