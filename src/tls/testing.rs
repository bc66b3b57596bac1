//! Clients and files for tests of TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion};

use super::{CertStore, MinVersion, Settings, self_signed, server_config};

/// Writes a fresh pair under `stem` and returns its certificate.
pub(crate) fn put(dir: &Path, stem: &str, host: &str) -> Vec<u8> {
    let (crt, key) = self_signed::generate(&[host.to_owned()]).unwrap();
    std::fs::write(dir.join(format!("{stem}.crt")), &crt).unwrap();
    std::fs::write(dir.join(format!("{stem}.key")), key).unwrap();
    CertificateDer::from_pem_slice(crt.as_bytes()).unwrap().to_vec()
}

/// The server's side for what lies in `dir`.
pub(crate) fn server(dir: &Path, min_version: MinVersion) -> (Arc<rustls::ServerConfig>, Arc<CertStore>) {
    let (store, _) = CertStore::open(dir).unwrap();
    let settings = Settings { certificates: dir.to_owned(), min_version };
    (server_config(&settings, store.clone()).unwrap(), store)
}

/// A client that takes any certificate which proves to have its key.
pub(crate) fn client(version: &'static SupportedProtocolVersion, alpn: &[&str]) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    config
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
