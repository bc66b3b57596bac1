//! Where the engine is, and how to reach it.

use bollard::{API_DEFAULT_VERSION, Docker};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Seconds that the engine may take to begin an answer.
const ANSWER_WITHIN: u64 = 30;
/// Where nginx-proxy's image has the engine's socket mounted, and where the engine has it.
const SOCKETS: [&str; 2] = ["/tmp/docker.sock", "/var/run/docker.sock"];

/// Which engine to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Which containers count: name and values of the engine's own filters, as in `label` and `com.example.public`.
    pub filters: HashMap<String, Vec<String>>,
}

/// Where an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`; with a folder of `ca.pem`, `cert.pem` and `key.pem` over TLS.
    Tcp(String, Option<PathBuf>),
}

/// Why the engine cannot be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A scheme that there is not.
    #[error("DOCKER_HOST is `{0}`; write it as in `unix:///var/run/docker.sock` or `tcp://10.0.0.5:2376`")]
    Endpoint(String),
    /// TLS without certificates.
    #[error("DOCKER_TLS_VERIFY is set without DOCKER_CERT_PATH; name the folder of ca.pem, cert.pem and key.pem")]
    NoCertificates,
    /// Not `name=value`.
    #[error("DOCKER_CONTAINER_FILTERS has `{0}`; write it as in `label=com.example.public,status=running`")]
    Filter(String),
}

impl Settings {
    /// Reads `DOCKER_HOST`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`, `DOCKER_CONTAINER_FILTERS`. Without `DOCKER_HOST`
    /// it is the first of nginx-proxy's socket and the engine's own that there is.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn from_environment(
        env: &dyn Fn(&str) -> Option<String>,
        exists: &dyn Fn(&Path) -> bool,
    ) -> Result<Self, SettingsError> {
        let given = |name: &str| env(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let tls = given("DOCKER_TLS_VERIFY").is_some_and(|text| text != "0");
        let certificates = given("DOCKER_CERT_PATH").map(PathBuf::from).filter(|_| tls);
        let endpoint = match given("DOCKER_HOST") {
            Some(text) => Endpoint::parse(&text, certificates.clone())?,
            None => Endpoint::Unix(
                SOCKETS
                    .map(PathBuf::from)
                    .into_iter()
                    .find(|socket| exists(socket))
                    .unwrap_or_else(|| SOCKETS[1].into()),
            ),
        };
        if tls && certificates.is_none() && matches!(endpoint, Endpoint::Tcp(..)) {
            return Err(SettingsError::NoCertificates);
        }
        let filters = filters(given("DOCKER_CONTAINER_FILTERS").as_deref().unwrap_or_default())?;
        Ok(Self { endpoint, filters })
    }
}

impl Endpoint {
    /// Reads `unix:///path`, a path, `tcp://host:port`, `http://…` or `https://…`.
    ///
    /// # Errors
    /// None of these.
    pub fn parse(text: &str, certificates: Option<PathBuf>) -> Result<Self, SettingsError> {
        let error = || SettingsError::Endpoint(text.to_owned());
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            None if text.starts_with('/') => Ok(Self::Unix(text.into())),
            Some(("tcp" | "http" | "https", rest)) => {
                let authority = rest.trim_end_matches('/');
                let port = authority
                    .rsplit_once(':')
                    .and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
                port.map(|_| Self::Tcp(authority.to_owned(), certificates)).ok_or_else(error)
            }
            _ => Err(error()),
        }
    }

    /// A client; nothing is sent yet.
    pub(in crate::discovery) fn client(&self) -> Result<Docker, bollard::errors::Error> {
        match self {
            Self::Unix(path) => Docker::connect_with_unix(&path.to_string_lossy(), ANSWER_WITHIN, API_DEFAULT_VERSION),
            Self::Tcp(authority, None) => Docker::connect_with_http(authority, ANSWER_WITHIN, API_DEFAULT_VERSION),
            Self::Tcp(authority, Some(folder)) => {
                let [key, certificate, authorities] = ["key.pem", "cert.pem", "ca.pem"].map(|name| folder.join(name));
                Docker::connect_with_ssl(
                    authority,
                    &key,
                    &certificate,
                    &authorities,
                    ANSWER_WITHIN,
                    API_DEFAULT_VERSION,
                )
            }
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(authority, None) => write!(f, "tcp://{authority}"),
            Self::Tcp(authority, Some(_)) => write!(f, "https://{authority}"),
        }
    }
}

/// `name=value,name=value`.
///
/// # Errors
/// An item that is not of this form.
pub fn filters(text: &str) -> Result<HashMap<String, Vec<String>>, SettingsError> {
    let mut filters: HashMap<String, Vec<String>> = HashMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match item.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                filters.entry(name.to_owned()).or_default().push(value.to_owned());
            }
            _ => return Err(SettingsError::Filter(item.to_owned())),
        }
    }
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)], sockets: &[&str]) -> Result<Settings, SettingsError> {
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Settings::from_environment(&env, &|path| sockets.iter().any(|socket| Path::new(socket) == path))
    }

    #[test]
    fn the_engine_is_found_as_nginx_proxy_finds_it() {
        let both = ["/tmp/docker.sock", "/var/run/docker.sock"];
        for (env, sockets, expected) in [
            (&[][..], &both[..], "unix:///tmp/docker.sock"),
            (&[], &both[1..], "unix:///var/run/docker.sock"),
            (&[], &[], "unix:///var/run/docker.sock"),
            (&[("DOCKER_HOST", "unix:///x.sock")], &both, "unix:///x.sock"),
            (&[("DOCKER_HOST", "tcp://h:2375")], &both, "tcp://h:2375"),
            (
                &[("DOCKER_HOST", "tcp://h:2376"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/c")],
                &both,
                "https://h:2376",
            ),
            (&[("DOCKER_HOST", "tcp://h:2375"), ("DOCKER_TLS_VERIFY", "0")], &both, "tcp://h:2375"),
        ] {
            assert_eq!(read(env, sockets).unwrap().endpoint.to_string(), expected, "{env:?}");
        }
        for host in ["ssh://h", "tcp://h", "nonsense", "tcp://:1", "unix://relative"] {
            assert_eq!(read(&[("DOCKER_HOST", host)], &[]), Err(SettingsError::Endpoint(host.to_owned())));
        }
        let bare = [("DOCKER_HOST", "tcp://h:2376"), ("DOCKER_TLS_VERIFY", "1")];
        assert_eq!(read(&bare, &[]), Err(SettingsError::NoCertificates));
    }

    #[test]
    fn filters_are_read() {
        let read = read(&[("DOCKER_CONTAINER_FILTERS", "label=a=b, label=c ,status=running,")], &[]).unwrap();
        let expected = [("label", vec!["a=b", "c"]), ("status", vec!["running"])];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.into_iter().map(str::to_owned).collect()));
        assert_eq!(read.filters, expected.into());
        assert_eq!(filters("x"), Err(SettingsError::Filter("x".to_owned())));
    }
}
