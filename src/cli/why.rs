//! `selvedge why`: asks a running edge for a URL and has it explain what it did.

use super::{Exit, say, trust};
use crate::config::{Problems, load_debug};
use crate::proxy::explain::{DEBUG_FIELD, Facts, WHY_FIELD};
use crate::types::{HostName, Secret};
use bytes::Bytes;
use clap::{Args, ValueHint};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// The variable that holds the token where no argument names another.
const TOKEN_VARIABLE: &str = "SELVEDGE_DEBUG_TOKEN";

/// The request to make, and where the edge is.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// The URL as a client would ask for it
    #[arg(value_name = "URL", value_parser = url)]
    url: Uri,
    /// A field to send, as `Name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: Method,
    /// The edge's listener, HOST:PORT [default: that of --config for the URL's scheme, else the URL's host and port]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    edge: Option<String>,
    /// The edge's configuration file, for listener and debug token
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The environment variable that holds the debug token [default: the token of --config, else SELVEDGE_DEBUG_TOKEN]
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Certificates to trust besides the system's, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "insecure")]
    cacert: Option<PathBuf>,
    /// Take any certificate
    #[arg(short = 'k', long)]
    insecure: bool,
    /// Print the explanation as the edge sent it, one line of JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Config(Problems),
    #[error("{path} has no listener for {scheme} with a fixed port; name one with --edge", path = .0.display(), scheme = .1)]
    NoListener(PathBuf, String),
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[error(
        "there is no debug token: set `token` in [debug] of the edge's configuration, and give that file with --config or \
         the token in {TOKEN_VARIABLE}"
    )]
    NoToken,
    #[error("the debug token is not visible ASCII")]
    BadToken,
    #[error(transparent)]
    Trust(#[from] trust::TrustError),
    #[error("the URL's host is no name that TLS can ask for")]
    ServerName,
    #[error("cannot connect to {0}: {1}; is selvedge running there? (--edge or --config names another address)")]
    Connect(String, io::Error),
    #[error("TLS with {0}: {1} (--cacert names a certificate to trust, --insecure trusts any)")]
    Tls(String, io::Error),
    #[error("{0} broke off: {1}")]
    Transport(String, String),
    #[error("{0} gave no answer within {seconds} s", seconds = ANSWER_WITHIN.as_secs())]
    TimedOut(String),
    #[error("{0} answered {1} without an explanation: it is no selvedge, or has no [debug] token or another one")]
    Unexplained(String, StatusCode),
    #[error("{0} explains in a form that this version does not read (--json prints it): {1}")]
    Unreadable(String, String),
    #[error("cannot start a runtime: {0}")]
    Runtime(io::Error),
}

impl Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::NoListener(..) | Self::NoVariable(_) | Self::NoToken | Self::BadToken => {
                Exit::Usage
            }
            Self::Trust(_) | Self::ServerName | Self::Unexplained(..) => Exit::Usage,
            Self::Connect(..) | Self::Tls(..) | Self::TimedOut(_) => Exit::Unavailable,
            Self::Transport(..) | Self::Unreadable(..) | Self::Runtime(_) => Exit::Internal,
        }
    }
}

/// Asks, and prints the explanation. `env` looks the token's variable up.
pub(super) fn run(args: &Why, env: &dyn Fn(&str) -> Option<String>, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    match explanation(args, env) {
        Ok(text) => {
            say(out, &text);
            Exit::Ok
        }
        Err(error) => {
            say(err, &format_args!("error: {error}\n"));
            error.exit()
        }
    }
}

fn explanation(args: &Why, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Error> {
    let (edge, token) = target(args, env)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = args.method.clone();
    *request.uri_mut() = args.url.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
    let host = args.url.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| Error::ServerName)?);
    for (name, value) in &args.headers {
        if *name == HOST {
            headers.insert(name, value.clone());
        } else {
            headers.append(name, value.clone());
        }
    }
    let mut token = HeaderValue::from_str(token.expose()).map_err(|_| Error::BadToken)?;
    token.set_sensitive(true);
    headers.insert(DEBUG_FIELD, token);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let (status, why) = runtime.block_on(exchange(args, &edge, request))?;
    let why = why.ok_or_else(|| Error::Unexplained(edge.clone(), status))?;
    if args.json {
        return Ok(why + "\n");
    }
    let facts: Facts = serde_json::from_str(&why).map_err(|error| Error::Unreadable(edge, error.to_string()))?;
    // What listens there may be anything: no control sequences for the terminal.
    Ok(facts.to_string().chars().filter(|c| *c == '\n' || !c.is_control()).collect())
}

/// Where to send the request and with which token: what the arguments say goes before what the file says.
fn target(args: &Why, env: &dyn Fn(&str) -> Option<String>) -> Result<(String, Secret), Error> {
    let settings = args.config.as_deref().map(load_debug).transpose().map_err(Error::Config)?;
    let variable = |name: &str| env(name).filter(|token| !token.is_empty()).map(Secret::new);
    let token = match (&args.token_env, &settings) {
        (Some(name), _) => variable(name).ok_or_else(|| Error::NoVariable(name.clone()))?,
        (None, Some((_, debug))) if debug.token.is_some() => debug.token.clone().ok_or(Error::NoToken)?,
        (None, _) => variable(TOKEN_VARIABLE).ok_or(Error::NoToken)?,
    };
    let tls = args.url.scheme_str() == Some("https");
    let edge = match (&args.edge, &settings, &args.config) {
        (Some(edge), _, _) => edge.clone(),
        (None, Some((listen, _)), Some(path)) => {
            let listeners = if tls { &listen.https } else { &listen.http };
            let address = listeners.iter().find(|address| address.port() != 0).copied().map(reachable);
            let scheme = if tls { "https" } else { "http" };
            address.ok_or_else(|| Error::NoListener(path.clone(), scheme.to_owned()))?.to_string()
        }
        _ => {
            let port = args.url.port_u16().unwrap_or(if tls { 443 } else { 80 });
            format!("{}:{port}", args.url.host().unwrap_or_default())
        }
    };
    Ok((edge, token))
}

/// A listener on every address is reached over loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn exchange(
    args: &Why,
    edge: &str,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Option<String>), Error> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let connected = timeout(CONNECT_WITHIN, TcpStream::connect(edge)).await.map_err(late).and_then(|c| c);
    let stream = connected.map_err(|error| Error::Connect(edge.to_owned(), error))?;
    if args.url.scheme_str() != Some("https") {
        return talk(edge, stream, request).await;
    }
    let host = args.url.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::ServerName)?;
    let connector = TlsConnector::from(trust::client(args.cacert.as_deref(), args.insecure, b"http/1.1")?);
    let shaken = timeout(CONNECT_WITHIN, connector.connect(name, stream)).await.map_err(late).and_then(|s| s);
    talk(edge, shaken.map_err(|error| Error::Tls(edge.to_owned(), error))?, request).await
}

async fn talk(
    edge: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Option<String>), Error> {
    let broken = |error: hyper::Error| Error::Transport(edge.to_owned(), error.to_string());
    let conversation = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = tokio::spawn(connection);
        let (head, mut body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        // Read to its end, so that the edge does with it what it does for a client; a break says nothing against the head.
        while let Some(Ok(_)) = body.frame().await {}
        driver.abort();
        let why = head.headers.get(WHY_FIELD).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((head.status, why))
    };
    timeout(ANSWER_WITHIN, conversation).await.map_err(|_| Error::TimedOut(edge.to_owned()))?
}

fn url(text: &str) -> Result<Uri, String> {
    if !text.is_ascii() {
        return Err("write characters other than ASCII percent-encoded".to_owned());
    }
    let usable = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    let uri = text.parse::<Uri>().ok().filter(usable);
    uri.ok_or_else(|| "write a URL with scheme and host, as in https://www.example.com/style.css".to_owned())
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = text.split_once(':').and_then(|(name, value)| {
        Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    parsed.ok_or_else(|| "write a name, a colon and a value, as in 'Accept-Language: de'".to_owned())
}

fn address(text: &str) -> Result<String, String> {
    match HostName::parse_with_port(text) {
        Ok((host, Some(port @ 1..))) => Ok(format!("{host}:{port}")),
        _ => Err("write host and port, as in 127.0.0.1:443".to_owned()),
    }
}

#[cfg(test)]
mod tests;
