//! One certificate with its key, read from two files, and what can be wrong with them.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Something an operator should mend in the folder of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file concerned.
    pub file: PathBuf,
    /// What is wrong with it.
    pub cause: Cause,
    /// What it means for clients.
    pub effect: Effect,
}

impl Problem {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        self.cause.remedy()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}); {}", self.file.display(), self.cause, self.effect.as_str(), self.remedy())
    }
}

/// What a problem means for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The pair is not used.
    NotServed,
    /// The pair as it was before stays in use.
    LastGoodServed,
    /// The pair is used as it is.
    Served,
}

impl Effect {
    /// The effect in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotServed => "not served",
            Self::LastGoodServed => "the last good pair is still served",
            Self::Served => "served all the same",
        }
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The folder or the file cannot be read, with the system's reason.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The process may not read it.
    #[error("cannot be read: permission denied")]
    Forbidden,
    /// It is a folder, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// It has no byte.
    #[error("is empty")]
    Empty,
    /// It is larger than a certificate chain can sensibly be.
    #[error("is larger than 1 MiB")]
    TooLarge,
    /// The other file of the pair is there and this one is not.
    #[error("is missing")]
    Missing,
    /// The part before the ending is no host name.
    #[error("is not named after a host")]
    BadName,
    /// The PEM text is damaged.
    #[error("is not valid PEM: {0}")]
    BadPem(String),
    /// There is no `CERTIFICATE` section.
    #[error("holds no certificate")]
    NoCertificate,
    /// There is no private key section.
    #[error("holds no private key")]
    NoKey,
    /// The key asks for a pass phrase.
    #[error("holds an encrypted private key")]
    EncryptedKey,
    /// The key's type is unknown or its bytes are damaged.
    #[error("holds a private key that cannot be used: {0}")]
    BadKey(String),
    /// The certificate's bytes are damaged.
    #[error("holds a certificate that cannot be used: {0}")]
    BadCertificate(String),
    /// Key and certificate are of two pairs.
    #[error("does not belong to the first certificate of the .crt file")]
    KeyMismatch,
    /// The certificate's time is over.
    #[error("holds a certificate that has expired")]
    Expired,
    /// The certificate's time is to come.
    #[error("holds a certificate that is not valid yet")]
    NotYetValid,
}

impl Cause {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "check the path and the disk, and that links lead to a file",
            Self::Forbidden => "let the user that selvedge runs as read the file and enter its folder",
            Self::NotAFile => "put a PEM file in its place",
            Self::Empty => "write the PEM text to it, or remove the pair",
            Self::TooLarge => "keep the leaf certificate and its intermediates alone",
            Self::Missing => "add the file, or remove the other one of the pair",
            Self::BadName => "name the pair after a host (`*.example.com` is `example.com`) or `default`",
            Self::BadPem(_) => "copy the file again, from `-----BEGIN` to the end of the last `-----END` line",
            Self::NoCertificate => "put the leaf certificate in PEM form first in the file, then its intermediates",
            Self::NoKey => "put the private key in PEM form (PKCS #8, SEC1 or PKCS #1) in the file",
            Self::EncryptedKey => "write it without a pass phrase: `openssl pkey -in FILE -out FILE.plain`",
            Self::BadKey(_) => "use an ECDSA P-256 or P-384, an Ed25519, or an RSA key of 2048 bits or more",
            Self::BadCertificate(_) => "use an X.509 version 3 certificate in PEM form",
            Self::KeyMismatch => "put in the key that the certificate was issued for, and the leaf certificate first",
            Self::Expired => "renew the certificate",
            Self::NotYetValid => "check the machine's clock, or wait until the certificate is valid",
        }
    }
}

/// A pair that can be served.
pub(super) struct Pair {
    pub key: Arc<CertifiedKey>,
    /// Seconds since 1970; `None` for a certificate that only rustls could read.
    validity: Option<(i64, i64)>,
}

impl Pair {
    /// Reads and checks both files.
    pub fn load(crt: &Path, key: &Path) -> Result<Self, (PathBuf, Cause)> {
        let at = |file: &Path| {
            let file = file.to_owned();
            move |cause| (file, cause)
        };
        let chain = certificates(&read(crt).map_err(at(crt))?).map_err(at(crt))?;
        let private = private_key(&read(key).map_err(at(key))?).map_err(at(key))?;
        let validity = chain.first().and_then(|leaf| {
            let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
            Some((leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp()))
        });
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let pair = CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => (key.to_owned(), Cause::KeyMismatch),
            rustls::Error::InvalidCertificate(e) => (crt.to_owned(), Cause::BadCertificate(format!("{e:?}"))),
            other => (key.to_owned(), Cause::BadKey(other.to_string())),
        })?;
        Ok(Self { key: Arc::new(pair), validity })
    }

    /// What is wrong with a pair that is served all the same.
    pub fn warning(&self, now: SystemTime) -> Option<Cause> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        match self.validity {
            Some((from, _)) if now < from => Some(Cause::NotYetValid),
            Some((_, to)) if now > to => Some(Cause::Expired),
            _ => None,
        }
    }
}

/// Far above any chain; what is larger is a file put there by mistake.
const MAX_FILE: u64 = 1 << 20;

fn read(file: &Path) -> Result<Vec<u8>, Cause> {
    // Opening a pipe would wait for its writer, so the kind is looked at first.
    let kind = fs::metadata(file).map_err(|e| unreadable(&e))?;
    if !kind.is_file() {
        return Err(Cause::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(file).map_err(|e| unreadable(&e))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
    match bytes.len() as u64 {
        0 => Err(Cause::Empty),
        n if n > MAX_FILE => Err(Cause::TooLarge),
        _ => Ok(bytes),
    }
}

pub(super) fn unreadable(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::NotFound => Cause::Missing,
        io::ErrorKind::PermissionDenied => Cause::Forbidden,
        _ => Cause::Unreadable(error.to_string()),
    }
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|e| bad_pem(&e))?;
    if chain.is_empty() { Err(Cause::NoCertificate) } else { Ok(chain) }
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Cause> {
    // Both forms of encryption: PKCS #8 (RFC 7468 section 11) and the older header (RFC 1421 section 4.6.1.1).
    let holds = |needle: &[u8]| text.windows(needle.len()).any(|w| w == needle);
    if holds(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(Cause::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => Cause::NoKey,
        other => bad_pem(&other),
    })
}

/// The parser's message without bytes of the file, which may be those of a key.
fn bad_pem(error: &pem::Error) -> Cause {
    let text = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no `-----END` line",
        pem::Error::IllegalSectionStart { .. } => "a `-----BEGIN` line is damaged",
        pem::Error::Base64Decode(_) => "the text between the lines is not base64",
        _ => "a section cannot be read",
    };
    Cause::BadPem(text.to_owned())
}
