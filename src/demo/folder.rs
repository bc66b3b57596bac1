//! The demo's folder: what is in it and who may read it.

use super::Error;
use super::ports::Ports;
use crate::clock::Clock;
use crate::types::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// An absolute path to a folder that exists.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Creates the folder, for its owner alone, or takes it as it is.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        path.canonicalize().map(Self).map_err(failed)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn bucket_root(&self) -> PathBuf {
        self.0.join("bucket")
    }

    /// Whether an earlier run left something in the disk tier.
    pub(super) fn has_cache(&self) -> bool {
        fs::read_dir(self.0.join("cache")).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The bucket's key pair, generated in the first run; two files with mode 0600.
    pub(super) fn credentials(&self) -> Result<(String, Secret), Error> {
        let folder = self.0.join("credentials");
        let failed = |source| Error::File { path: folder.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let access_key = kept(&folder.join("access_key_id"), || {
            let letters: String = random::<20>()?.iter().map(|byte| char::from(b'A' + byte % 26)).collect();
            Ok(format!("DEMO{}", &letters[4..]))
        })?;
        let secret = kept(&folder.join("secret_access_key"), || Ok(STANDARD_NO_PAD.encode(random::<30>()?)))?;
        Ok((access_key, Secret::new(secret)))
    }

    /// A self-signed pair for localhost, written anew when it is missing or about to expire.
    pub(super) fn certificate(&self) -> Result<(), Error> {
        const MARGIN: Duration = Duration::from_secs(24 * 3600);
        let folder = self.0.join("certs");
        let (certificate, key) = (folder.join("localhost.crt"), folder.join("localhost.key"));
        let good_until = not_after(&certificate);
        let now = Clock::system().now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if key.is_file() && good_until.is_some_and(|end| end > now + MARGIN) {
            return Ok(());
        }
        let failed = |source| Error::File { path: folder.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let hosts = ["localhost", "demo.localhost"];
        // Half a pair, of a run that was killed between the two files, is in the way of a new one: it might be an
        // operator's. Here everything is ours.
        for file in hosts.iter().flat_map(|host| [format!("{host}.crt"), format!("{host}.key")]) {
            match fs::remove_file(folder.join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        crate::tls::self_signed::write(&folder, &hosts.map(str::to_owned))?;
        Ok(())
    }

    /// Writes the edge's configuration and gives its path.
    pub(super) fn write_config(&self, template: &str, ports: &Ports) -> Result<PathBuf, Error> {
        let path = self.0.join("selvedge.toml");
        fs::write(&path, with_ports(template, ports)).map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(path)
    }
}

/// The template with its default ports replaced in one pass: a chosen port may equal another's default.
fn with_ports(template: &str, ports: &Ports) -> String {
    let mut parts = template.split("127.0.0.1:");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("127.0.0.1:");
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (default, rest) = part.split_at(digits);
        match default {
            "8080" => text.push_str(&ports.http.to_string()),
            "8443" => text.push_str(&ports.https.to_string()),
            "9090" => text.push_str(&ports.admin.to_string()),
            "9100" => text.push_str(&ports.origin.to_string()),
            other => text.push_str(other),
        }
        text.push_str(rest);
    }
    text
}

/// The text of the file, which is made by `generate` and given mode 0600 if there is none.
fn kept(path: &Path, generate: impl FnOnce() -> Result<String, Error>) -> Result<String, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        // A run that was killed right here leaves an empty file.
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let text = generate()?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
    Ok(text)
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// When the certificate in the file expires, since the epoch; `None` where there is no readable one.
fn not_after(path: &Path) -> Option<Duration> {
    let text = fs::read(path).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).ok()?;
    let end = pem.parse_x509().ok()?.validity().not_after.timestamp();
    u64::try_from(end).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn credentials_are_the_owners_alone_and_stay_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(&dir.path().join("a/b")).unwrap();
        let (access_key, secret) = folder.credentials().unwrap();
        assert_eq!((access_key.len(), secret.expose().len()), (20, 40));
        for (name, mode) in [
            ("", 0o700),
            ("credentials", 0o700),
            ("credentials/access_key_id", 0o600),
            ("credentials/secret_access_key", 0o600),
        ] {
            let found = fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{name}");
        }
        assert!(folder.credentials().unwrap() == (access_key, secret));
    }

    #[test]
    fn the_template_gets_every_port_even_where_they_trade_places() {
        let ports = Ports { http: 8443, https: 8080, admin: 9100, origin: 9090 };
        let text = with_ports(super::super::CONFIG_TEMPLATE, &ports);
        for line in [
            "http = [\"127.0.0.1:8443\"]",
            "https = [\"127.0.0.1:8080\"]",
            "admin = \"127.0.0.1:9100\"",
            "endpoint = \"http://127.0.0.1:9090\"",
            "\"demo.localhost\", \"127.0.0.1\"]",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert_eq!(text.len(), super::super::CONFIG_TEMPLATE.len());
    }

    #[test]
    fn a_certificate_is_written_once_and_again_when_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let path = folder.path().join("certs/localhost.crt");
        folder.certificate().unwrap();
        let first = fs::read(&path).unwrap();
        folder.certificate().unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        fs::remove_file(&path).unwrap();
        folder.certificate().unwrap();
        assert!(not_after(&path).is_some());
    }
}
