//! Client certificates. The handshake takes any of which the client has the key; whether it is good for a site is found
//! out when a request names the site, since a client may ask for several over one connection, and since HTTP has words
//! for a refusal where TLS has an alert that browsers hide.

use crate::watched::{Watched, WatchedError};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a client showed in its handshake: its certificate, leaf first, of which it proved to have the key, and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Empty where the client showed none.
    pub chain: Vec<CertificateDer<'static>>,
    /// The name the client asked for (RFC 6066 section 3).
    pub asked: Option<String>,
}

/// Why a client's certificate is not good for a site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientRefusal {
    /// None was shown.
    #[error("no certificate was shown")]
    None,
    /// The authorities' file says nothing.
    #[error("the authorities cannot be read")]
    NoAuthorities,
    /// It is of another authority, expired, revoked or otherwise bad.
    #[error("{0}")]
    Bad(String),
}

/// The authorities of one site, and what they revoked.
#[derive(Debug)]
pub struct Authorities(Watched<Arc<dyn ClientCertVerifier>>);

impl Authorities {
    /// From PEM files, which are read again when they change.
    pub fn new(authorities: PathBuf, revoked: Option<PathBuf>) -> Self {
        let files = std::iter::once(authorities).chain(revoked).collect();
        Self(Watched::new(files, |contents| {
            let [authorities, revoked @ ..] = contents else { return Err("there is no file".to_owned()) };
            verifier(authorities, revoked.first().map(Vec::as_slice))
        }))
    }

    /// Whether the files can be used.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), WatchedError> {
        self.0.read().map(|_| ())
    }

    /// Whether what a client showed is good at `now`, and if so its subject as RFC 4514 writes it.
    ///
    /// # Errors
    /// See [`ClientRefusal`].
    pub fn verify(&self, shown: Option<&Shown>, now: SystemTime) -> Result<String, ClientRefusal> {
        let Some((leaf, chain)) = shown.and_then(|shown| shown.chain.split_first()) else {
            return Err(ClientRefusal::None);
        };
        let verifier = self.0.get().ok_or(ClientRefusal::NoAuthorities)?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
        verifier.verify_client_cert(leaf, chain, now).map_err(|error| ClientRefusal::Bad(error.to_string()))?;
        Ok(subject(leaf))
    }
}

fn verifier(authorities: &[u8], revoked: Option<&[u8]>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("not an authority's certificate: {error}"))?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(revoked) = revoked {
        let lists = CertificateRevocationListDer::pem_slice_iter(revoked).collect::<Result<Vec<_>, _>>();
        let lists = lists.map_err(|error| format!("the list of what is revoked is not PEM: {error}"))?;
        if lists.is_empty() {
            return Err("there is no list of what is revoked in the file for it".to_owned());
        }
        builder = builder.with_crls(lists);
    }
    builder.build().map_err(|error| error.to_string())
}

/// The subject, most specific part first; what a field value cannot hold is left out.
fn subject(leaf: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else { return String::new() };
    let subject = parsed.subject();
    let mut names: Vec<String> = Vec::new();
    for set in subject.iter() {
        let parts: Vec<String> = set.iter().map(part).collect();
        names.push(parts.join("+"));
    }
    names.reverse();
    names.join(",")
}

/// `CN=value`, with what RFC 4514 section 2.4 has escaped, and everything outside of ASCII by its bytes.
fn part(attribute: &x509_parser::x509::AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type();
    let name = x509_parser::objects::oid2abbrev(oid, x509_parser::objects::oid_registry())
        .map_or_else(|_| oid.to_id_string(), str::to_owned);
    let value = attribute.as_str().unwrap_or_default();
    let mut escaped = String::new();
    for (at, byte) in value.bytes().enumerate() {
        let edge = at == 0 || at + 1 == value.len();
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                escaped.push('\\');
                escaped.push(char::from(byte));
            }
            b' ' if edge => escaped.push_str("\\ "),
            b'#' if at == 0 => escaped.push_str("\\#"),
            b' '..=b'~' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("\\{other:02X}")),
        }
    }
    format!("{name}={escaped}")
}

/// Asks for a certificate, does not insist, and takes any of which the client has the key.
#[derive(Debug)]
pub(super) struct AskOnly(WebPkiSupportedAlgorithms);

impl AskOnly {
    pub(super) fn new() -> Self {
        Self(rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms)
    }
}

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
