//! TLS as libpq's `sslmode` asks for it.
//!
//! Here: the certificates a connection begins with, and the judgement of the server's. Elsewhere:
//! whether TLS is used at all (`connect`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, InconsistentKeys,
    RootCertStore, SignatureScheme,
};

use super::error::{ConnectError, io_words};
use crate::state::postgres::address::{Roots, SslMode, Tls};

/// What a TLS connection begins with. Reads the files that are named.
///
/// # Errors
/// A file that is named and cannot be used.
pub(super) fn config(tls: &Tls) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(ring::default_provider());
    let own = own(tls, &provider)?;
    let verifier = Verifier { check: check(tls)?, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites of each version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
    };
    if tls.direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}

/// Where the roots come from that judge the server's certificate; for messages.
pub(super) fn roots_of(tls: &Tls) -> String {
    match root_file(tls) {
        Some(path) => path.display().to_string(),
        None => "the system".to_owned(),
    }
}

#[derive(Debug)]
struct Verifier {
    check: Option<Check>,
    provider: Arc<CryptoProvider>,
}

/// What a server's certificate must be.
#[derive(Debug)]
struct Check {
    roots: RootCertStore,
    /// The roots themselves. A server may show one of them, made by itself for itself.
    pinned: Vec<CertificateDer<'static>>,
    /// Whether it must also be of the host that was asked for.
    name: bool,
}

fn check(tls: &Tls) -> Result<Option<Check>, ConnectError> {
    let name = match tls.mode {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer => return Ok(None),
        SslMode::Require if root_file(tls).is_none() => return Ok(None),
        SslMode::Require | SslMode::VerifyCa => false,
        SslMode::VerifyFull => true,
    };
    let mut roots = RootCertStore::empty();
    let pinned = match root_file(tls) {
        Some(path) => {
            let what = "the root certificate";
            let pinned = certificates(what, &path)?;
            for root in &pinned {
                roots.add(root.clone()).map_err(|error| file(what, &path, error.to_string()))?;
            }
            pinned
        }
        None => {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            Vec::new()
        }
    };
    Ok(Some(Check { roots, pinned, name }))
}

fn root_file(tls: &Tls) -> Option<PathBuf> {
    match &tls.roots {
        Roots::File(path) => Some(path.clone()),
        Roots::System => None,
        Roots::Default => {
            tls.folder.as_ref().map(|folder| folder.join("root.crt")).filter(|path| path.exists())
        }
    }
}

/// The client's certificate and key: those that are named, else libpq's own where they are there.
fn own(tls: &Tls, provider: &CryptoProvider) -> Result<Option<CertifiedKey>, ConnectError> {
    let usual = |name: &str| tls.folder.as_ref().map(|folder| folder.join(name));
    let certificate =
        tls.certificate.clone().or_else(|| usual("postgresql.crt").filter(|path| path.exists()));
    let Some(certificate) = certificate else { return Ok(None) };
    let Some(key) = tls.key.clone().or_else(|| usual("postgresql.key")) else { return Ok(None) };
    let chain = certificates("the client certificate", &certificate)?;
    let wrong = |why| file("the client key", &key, why);
    let meta = fs::metadata(&key).map_err(|error| wrong(io_words(&error)))?;
    // As libpq: a key that root owns may be shared with its group.
    let others = if meta.uid() == 0 { 0o037 } else { 0o077 };
    if meta.mode() & others != 0 {
        return Err(wrong("others may read it; run chmod 600 on it".to_owned()));
    }
    let read = PrivateKeyDer::from_pem_file(&key).map_err(|error| wrong(pem(error)))?;
    let loaded = provider.key_provider.load_private_key(read).map_err(|error| wrong(error.to_string()))?;
    let own = CertifiedKey::new(chain, loaded);
    // What else this finds, such as a certificate of an old kind, is the server's to judge.
    match own.keys_match() {
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(wrong(format!("it is not the key of {}", certificate.display())))
        }
        Ok(()) | Err(_) => Ok(Some(own)),
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let bytes = fs::read(path).map_err(|error| file(what, path, io_words(&error)))?;
    let read = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let certificates = read.map_err(|error| file(what, path, pem(error)))?;
    if certificates.is_empty() {
        return Err(file(what, path, "there is no certificate in it, as PEM writes one".to_owned()));
    }
    Ok(certificates)
}

// What else a reader of PEM has to say may quote the file.
fn pem(error: PemError) -> String {
    match error {
        PemError::Io(error) => io_words(&error),
        _ => "there is nothing in it that norn can read, as PEM writes it".to_owned(),
    }
}

fn file(what: &'static str, path: &Path, why: String) -> ConnectError {
    ConnectError::File { what, path: path.to_owned(), why }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(check) = &self.check else { return Ok(ServerCertVerified::assertion()) };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let chain = verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &check.roots,
            intermediates,
            now,
            algorithms,
        );
        match chain {
            Ok(()) => {}
            Err(error) if outdated(&error) => return Err(error),
            // Its own root needs no signature of another, and may be marked as an authority.
            Err(_) if check.pinned.iter().any(|root| root == end_entity) => {}
            Err(error) => return Err(error),
        }
        if check.name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        // Where anyone's certificate will do, its signature proves nothing; and old ones would not pass.
        if self.check.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        if self.check.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate is of another time.
fn outdated(error: &TlsError) -> bool {
    matches!(
        error,
        TlsError::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    )
}
