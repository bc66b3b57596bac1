//! Certificates that sign themselves, for a first start, the demo and tests.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::clock::Clock;
use crate::types::HostName;

/// Why no certificate was made or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No host was given.
    #[error("no host: name at least one, such as `www.example.com`, `*.example.com` or `127.0.0.1`")]
    NoHost,
    /// A host is neither a name, nor `*.` and a name, nor an address.
    #[error("`{0}` is not a host: give a name, `*.` before a name, or an IP address")]
    Host(String),
    /// The file is of a certificate that somebody else issued.
    #[error("{} holds a certificate that is not self-signed; move it away first or choose another folder", .0.display())]
    Occupied(PathBuf),
    /// The key or the certificate could not be made.
    #[error("the certificate for `{host}` could not be made: {source}")]
    Generate {
        /// The first host of the certificate.
        host: String,
        /// What the certificate library says.
        source: rcgen::Error,
    },
    /// A file or the folder could not be written.
    #[error("{} could not be written: {source}", .file.display())]
    Write {
        /// The file or folder.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// How long a certificate is valid.
const VALIDITY: Duration = Duration::from_secs(365 * 86_400);
/// How far back its validity begins, for clients whose clock is behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Writes a pair for each host into `out`, which is created if need be, under the names that
/// [`CertStore`](super::CertStore) looks for, and returns the files written. `*.x` goes, with `x` itself, into
/// `x.crt` and `x.key`. Keys are ECDSA P-256 and readable by their owner alone. Pairs that were made here before are
/// replaced; each file is written beside its place and renamed into it.
///
/// # Errors
/// See [`Error`]. Hosts are checked, and files of other issuers looked for, before anything is written.
pub fn write(out: &Path, hosts: &[String]) -> Result<Vec<PathBuf>, Error> {
    let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for host in hosts {
        let (stem, names) = names_of(host)?;
        let all = pairs.entry(stem).or_default();
        all.extend(names.into_iter().filter(|n| !all.contains(n)).collect::<Vec<_>>());
    }
    if pairs.is_empty() {
        return Err(Error::NoHost);
    }
    fs::create_dir_all(out).map_err(|source| Error::Write { file: out.to_owned(), source })?;
    for stem in pairs.keys() {
        refuse_foreign(&out.join(format!("{stem}.crt")), &out.join(format!("{stem}.key")))?;
    }
    let mut written = Vec::with_capacity(pairs.len() * 2);
    for (stem, names) in &pairs {
        let (crt, key) = generate(names)?;
        for (ending, text, mode) in [("key", key, 0o600), ("crt", crt, 0o644)] {
            let file = out.join(format!("{stem}.{ending}"));
            replace(&file, text.as_bytes(), mode).map_err(|source| Error::Write { file: file.clone(), source })?;
            written.push(file);
        }
    }
    Ok(written)
}

/// A certificate for all of `hosts` (names, `*.` and a name, or IP addresses; `*.x` brings `x` with it) and its key, both
/// in PEM form. Valid for 365 days; the subject's common name is the first host.
///
/// # Errors
/// A host is none, or key or certificate cannot be made.
pub fn generate(hosts: &[String]) -> Result<(String, String), Error> {
    let first = hosts.first().ok_or(Error::NoHost)?;
    let mut names: Vec<String> = Vec::with_capacity(hosts.len());
    for host in hosts {
        let (_, of_host) = names_of(host)?;
        names.extend(of_host.into_iter().filter(|n| !names.contains(n)).collect::<Vec<_>>());
    }
    let failed = |source| Error::Generate { host: first.clone(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(names).map_err(failed)?;
    let now = Clock::system().now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + VALIDITY).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    // A common name has 64 characters at most (RFC 5280 appendix A, ub-common-name); clients look at the other names.
    params.distinguished_name.push(DnType::CommonName, first.chars().take(64).collect::<String>());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// The stem of a host's files and the names its certificate holds.
fn names_of(host: &str) -> Result<(String, Vec<String>), Error> {
    let error = || Error::Host(host.to_owned());
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok((address.to_string(), vec![address.to_string()]));
    }
    match host.strip_prefix("*.") {
        Some(parent) => {
            let parent: HostName = parent.parse().map_err(|_| error())?;
            Ok((parent.to_string(), vec![parent.to_string(), format!("*.{parent}")]))
        }
        None => {
            let host: HostName = host.parse().map_err(|_| error())?;
            Ok((host.to_string(), vec![host.to_string()]))
        }
    }
}

/// Fails if the pair is one that a certificate authority may have issued: its loss could not be made good here.
fn refuse_foreign(crt: &Path, key: &Path) -> Result<(), Error> {
    let text = match fs::read(crt) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return if key.exists() { Err(Error::Occupied(key.to_owned())) } else { Ok(()) };
        }
        Err(source) => return Err(Error::Write { file: crt.to_owned(), source }),
    };
    let own = CertificateDer::pem_slice_iter(&text).flatten().next().is_some_and(|leaf| {
        x509_parser::parse_x509_certificate(&leaf).is_ok_and(|(_, leaf)| leaf.issuer() == leaf.subject())
    });
    if own { Ok(()) } else { Err(Error::Occupied(crt.to_owned())) }
}

fn replace(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = file.with_file_name(format!(".{name}.{}", std::process::id()));
    // One left by a process that was killed; its mode may be another's.
    let _ = fs::remove_file(&temporary);
    let result = write_new(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, file));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_new(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    file.write_all(bytes)?;
    // The process's mask may have taken bits away.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.sync_all()
}
