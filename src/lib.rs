//! A Tower layer that stamps outgoing HTTP requests with a bearer token.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config_error;
pub use config_error::ConfigError;
