//! `selvedge purge`: a client of a running server's admin listener.

use super::warm::reachable;
use super::{Exit, say};
use crate::admin::Address;
use crate::config::{Problems, load_admin};
use crate::types::{HostName, Secret};
use bytes::Bytes;
use clap::{Args, ValueHint};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// More than the answer to the largest purge that the server takes.
const MAX_ANSWER: usize = 16 << 20;

/// What to purge, and where the server is.
#[derive(Debug, Args)]
pub(super) struct Purge {
    /// URLs whose stored responses are removed, with scheme and host
    #[arg(
        value_name = "URL",
        required_unless_present_any = ["all", "prefix", "host", "tag"],
        conflicts_with = "all",
        value_parser = absolute_url
    )]
    urls: Vec<String>,
    /// Remove a path and all below it, as HOST/PATH or a URL; it ends where a path segment ends, so that /blog does not
    /// mean /blogs, and covers every scheme, port and query
    #[arg(long, value_name = "PREFIX", conflicts_with = "all")]
    prefix: Vec<String>,
    /// Remove everything of a host, whatever the scheme and port
    #[arg(long, value_name = "HOST", conflicts_with = "all")]
    host: Vec<String>,
    /// Remove everything that the origin gave this tag; case counts
    #[arg(long, value_name = "TAG", conflicts_with = "all")]
    tag: Vec<String>,
    /// Remove every stored response
    #[arg(long)]
    all: bool,
    /// Keep what is purged as stale: the next use validates it, and the rules of serving stale apply
    #[arg(long)]
    soft: bool,
    /// The admin listener, HOST:PORT or unix:PATH [default: that of --config, else 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    admin: Option<Endpoint>,
    /// The server's configuration file, for the admin listener's address and token
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The environment variable that holds the admin token [default: the token of --config]
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
}

/// Where an admin listener is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Host and port.
    Tcp(String),
    /// A socket's path.
    Unix(PathBuf),
}

/// Why nothing was purged, or nobody knows whether it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Config(Problems),
    #[error("{} has no admin listener; add `admin` to [listen], or name one with --admin", .0.display())]
    NoListener(PathBuf),
    #[error("the environment variable {0} that --token-env names is not set")]
    NoToken(String),
    #[error("the admin token is not visible ASCII")]
    BadToken,
    #[error(
        "cannot connect to {0}: {1}; is selvedge running with this admin listener? (--admin or --config names another)"
    )]
    Connect(Endpoint, io::Error),
    #[error("{0} did not answer as an admin listener does: {1}")]
    Transport(Endpoint, String),
    #[error("{0} gave no answer within {seconds} s; the purge may or may not have been carried out", seconds = ANSWER_WITHIN.as_secs())]
    TimedOut(Endpoint),
    #[error("{0} wants a token: name its environment variable with --token-env, or the server's file with --config")]
    TokenWanted(Endpoint),
    #[error("{0} refuses this token")]
    TokenRefused(Endpoint),
    #[error("{0} answered {1}: {2}")]
    Answered(Endpoint, StatusCode, String),
    #[error("cannot start a runtime: {0}")]
    Runtime(io::Error),
}

impl Error {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::NoListener(_) | Self::NoToken(_) | Self::BadToken => Exit::Usage,
            Self::TokenWanted(_) | Self::TokenRefused(_) => Exit::Usage,
            Self::Connect(..) | Self::TimedOut(_) => Exit::Unavailable,
            Self::Answered(_, StatusCode::SERVICE_UNAVAILABLE, _) => Exit::Unavailable,
            Self::Answered(_, status, _) if status.is_client_error() => Exit::Usage,
            Self::Transport(..) | Self::Answered(..) | Self::Runtime(_) => Exit::Internal,
        }
    }
}

/// The server's answer to a purge.
#[derive(Debug, Deserialize)]
struct Report {
    request_id: String,
    /// Absent where no number is known.
    purged: Option<u64>,
    results: Vec<ScopeResult>,
}

/// One of the names is there; `found` is known of URLs.
#[derive(Debug, Deserialize)]
struct ScopeResult {
    url: Option<String>,
    prefix: Option<String>,
    host: Option<String>,
    tag: Option<String>,
    found: Option<bool>,
}

/// Purges, and prints a line for each URL. `env` looks the token's variable up.
pub(super) fn run(
    args: &Purge,
    env: &dyn Fn(&str) -> Option<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    match target(args, env).and_then(|(endpoint, token)| request(args, &endpoint, token.as_ref())) {
        Ok(report) => {
            print(args, &report, out);
            Exit::Ok
        }
        Err(error) => {
            say(err, &format_args!("error: {error}\n"));
            error.exit()
        }
    }
}

fn print(args: &Purge, report: &Report, out: &mut dyn Write) {
    let id = &report.request_id;
    let done = if args.soft { "stale" } else { "purged" };
    if args.all {
        return say(out, &format_args!("every stored response is {done} (request {id})\n"));
    }
    for ScopeResult { url, prefix, host, tag, found } in &report.results {
        let outcome = if *found == Some(false) { "not stored" } else { done };
        let named = [("", url), ("prefix ", prefix), ("host ", host), ("tag ", tag)];
        let Some((kind, name)) = named.into_iter().find_map(|(kind, name)| Some((kind, name.as_ref()?))) else {
            continue;
        };
        say(out, &format_args!("{outcome:<10}  {kind}{name}\n"));
    }
    match report.purged {
        Some(purged) => say(out, &format_args!("{purged} of {} {done} (request {id})\n", report.results.len())),
        None => say(out, &format_args!("whatever these cover is {done} (request {id})\n")),
    }
}

/// The order as the admin listener takes it.
fn order(args: &Purge) -> serde_json::Value {
    let mut order = serde_json::Map::new();
    let Purge { urls, prefix, host, tag, all, soft, admin: _, config: _, token_env: _ } = args;
    for (key, names) in [("urls", urls), ("prefixes", prefix), ("hosts", host), ("tags", tag)] {
        if !names.is_empty() {
            order.insert(key.to_owned(), names.as_slice().into());
        }
    }
    for (key, on) in [("all", all), ("soft", soft)] {
        if *on {
            order.insert(key.to_owned(), true.into());
        }
    }
    order.into()
}

/// Where to send the request and with which token: what the arguments say goes before what the file says.
fn target(args: &Purge, env: &dyn Fn(&str) -> Option<String>) -> Result<(Endpoint, Option<Secret>), Error> {
    target_of(args.admin.as_ref(), args.config.as_ref(), args.token_env.as_ref(), env)
}

/// The same for any command with these arguments.
pub(super) fn target_of(
    admin: Option<&Endpoint>,
    config: Option<&PathBuf>,
    token_env: Option<&String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Endpoint, Option<Secret>), Error> {
    let settings = match config {
        Some(path) => load_admin(path).map_err(Error::Config)?,
        None => None,
    };
    let token = match token_env {
        Some(name) => {
            let token = env(name).filter(|token| !token.is_empty());
            Some(Secret::new(token.ok_or_else(|| Error::NoToken(name.clone()))?))
        }
        None => settings.as_ref().and_then(|s| s.token.clone()),
    };
    let endpoint = match (admin, config, settings) {
        (Some(endpoint), _, _) => endpoint.clone(),
        (None, _, Some(settings)) => Endpoint::from(settings.address),
        (None, Some(path), None) => return Err(Error::NoListener(path.clone())),
        (None, None, None) => Endpoint::Tcp("127.0.0.1:9090".to_owned()),
    };
    Ok((endpoint, token))
}

fn request(args: &Purge, endpoint: &Endpoint, token: Option<&Secret>) -> Result<Report, Error> {
    let answer = ask(endpoint, token, Method::POST, "/purge", Some(order(args)))?;
    serde_json::from_slice(&answer).map_err(|error| Error::Transport(endpoint.clone(), error.to_string()))
}

/// Sends one request to an admin listener: the content of its 200.
pub(super) fn ask(
    endpoint: &Endpoint,
    token: Option<&Secret>,
    method: Method,
    path: &str,
    body: Option<serde_json::Value>,
) -> Result<Bytes, Error> {
    let host = match endpoint {
        Endpoint::Tcp(authority) => authority.as_str(),
        Endpoint::Unix(_) => "localhost",
    };
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(token) = token {
        let value = header::HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let mut value = value.map_err(|_| Error::BadToken)?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default())))
        .map_err(|error| Error::Transport(endpoint.clone(), error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let (status, answer) = runtime.block_on(exchange(endpoint, request))?;
    understood(endpoint, token.is_some(), status, answer)
}

async fn exchange(endpoint: &Endpoint, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Error> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let failed = |error: io::Error| Error::Connect(endpoint.clone(), error);
    match endpoint {
        Endpoint::Tcp(authority) => {
            let connected = timeout(CONNECT_WITHIN, TcpStream::connect(authority)).await;
            talk(endpoint, connected.map_err(late).and_then(|c| c).map_err(failed)?, request).await
        }
        Endpoint::Unix(path) => {
            let connected = timeout(CONNECT_WITHIN, UnixStream::connect(path)).await;
            talk(endpoint, connected.map_err(late).and_then(|c| c).map_err(failed)?, request).await
        }
    }
}

async fn talk(
    endpoint: &Endpoint,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Error> {
    let broken = |reason: &dyn fmt::Display| Error::Transport(endpoint.clone(), reason.to_string());
    let conversation = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        let driver = tokio::spawn(connection);
        let response: Response<_> = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| broken(&e))?;
        driver.abort();
        Ok((head.status, body.to_bytes()))
    };
    timeout(ANSWER_WITHIN, conversation).await.map_err(|_| Error::TimedOut(endpoint.clone()))?
}

fn understood(endpoint: &Endpoint, had_token: bool, status: StatusCode, answer: Bytes) -> Result<Bytes, Error> {
    match (status, had_token) {
        (StatusCode::OK, _) => Ok(answer),
        (StatusCode::UNAUTHORIZED, false) => Err(Error::TokenWanted(endpoint.clone())),
        (StatusCode::UNAUTHORIZED, true) => Err(Error::TokenRefused(endpoint.clone())),
        _ => Err(Error::Answered(endpoint.clone(), status, complaint(&answer))),
    }
}

/// What an error answer says: its JSON's `error`, which names the URL too, or the start of its text.
fn complaint(answer: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(answer).ok();
    let error = json.as_ref().and_then(|json| json.get("error")?.as_str());
    let text = error.map_or_else(|| String::from_utf8_lossy(answer).into_owned(), str::to_owned);
    // The answer may come from anything that listens there: one short line, without a terminal's control sequences.
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        match address {
            Address::Unix(path) => Self::Unix(path),
            Address::Tcp(address) => Self::Tcp(reachable(address).to_string()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => return Err("name the socket, as in unix:/run/selvedge/admin.sock".to_owned()),
            Some(path) => return Ok(Self::Unix(path.into())),
            None => {}
        }
        match HostName::parse_with_port(text) {
            Ok((host, Some(port @ 1..))) => Ok(Self::Tcp(format!("{host}:{port}"))),
            _ => Err("write host and port, as in 127.0.0.1:9090, or unix:PATH".to_owned()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) fn absolute_url(text: &str) -> Result<String, String> {
    let with_host = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    match text.parse::<Uri>() {
        Ok(uri) if text.is_ascii() && with_host(&uri) => Ok(text.to_owned()),
        _ if !text.is_ascii() => Err("write characters other than ASCII percent-encoded".to_owned()),
        _ => Err("write a URL with scheme and host, as in https://www.example.com/style.css".to_owned()),
    }
}

#[cfg(test)]
mod tests;
