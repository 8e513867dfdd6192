//! TLS that trusts whom the system trusts.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// What a client of an HTTP API is built with. `SSL_CERT_FILE` names other authorities.
pub fn trusting_the_system() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites of each version")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
