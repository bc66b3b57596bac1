//! Accepting connections and answering requests.

use super::answer::{self, Answer};
use super::guard::Guard;
use super::socket::Socket;
use super::{Backend, Order, Readiness, purge, traffic};
use crate::types::Secret;
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// A request head must be there within this, an idle connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request head.
const HEAD_LIMIT: usize = 16 << 10;
/// How long requests under way may go on after the shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection shares.
struct Shared {
    guard: Guard,
    backend: Arc<dyn Backend>,
    shutdown: watch::Receiver<bool>,
}

/// Serves until the shutdown.
pub(super) async fn run(
    socket: Socket,
    token: Option<Secret>,
    backend: Arc<dyn Backend>,
    shutdown: watch::Receiver<bool>,
) {
    let address = socket.address();
    let guard = Guard::new(matches!(socket, Socket::Unix(..)), token);
    let shared = Arc::new(Shared { guard, backend, shutdown });
    let result = match socket {
        Socket::Tcp(listener, _) => match TcpListener::from_std(listener) {
            Ok(listener) => accept_all(&shared, || accept_tcp(&listener)).await,
            Err(error) => Err(error),
        },
        // `_file` is held to the end: dropping it removes the socket's file.
        Socket::Unix(listener, _file) => match UnixListener::from_std(listener) {
            Ok(listener) => accept_all(&shared, || accept_unix(&listener)).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = result {
        tracing::error!(address, %error, "admin listener could not be served");
    }
}

async fn accept_tcp(
    listener: &TcpListener,
) -> io::Result<(impl AsyncRead + AsyncWrite + Send + Unpin + use<>, String)> {
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer.to_string()))
}

async fn accept_unix(
    listener: &UnixListener,
) -> io::Result<(impl AsyncRead + AsyncWrite + Send + Unpin + use<>, String)> {
    let (stream, _) = listener.accept().await?;
    let who = match stream.peer_cred() {
        Ok(peer) => format!("unix uid={} pid={}", peer.uid(), peer.pid().unwrap_or(0)),
        Err(_) => "unix".to_owned(),
    };
    Ok((stream, who))
}

async fn accept_all<S, F>(shared: &Arc<Shared>, accept: impl Fn() -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<(S, String)>>,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stop = pin!(stopped(shared.shutdown.clone()));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            accept().await.map(|accepted| (accepted, slot))
        };
        tokio::select! {
            biased;
            () = &mut stop => break,
            // Ended connections are taken out, so that the set holds only open ones.
            Some(_) = connections.join_next() => {}
            accepted = next => match accepted {
                Ok(((stream, who), slot)) => {
                    let shared = Arc::clone(shared);
                    connections.spawn(async move {
                        serve_connection(shared, stream, who).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, all_ended).await.is_err() {
        tracing::warn!(open = connections.len(), "admin connections cut off at the end of the shutdown");
    }
    Ok(())
}

/// Ends once the shutdown is asked for; nobody left who could ask for it is the same.
async fn stopped(mut shutdown: watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn serve_connection<S>(shared: Arc<Shared>, stream: S, who: String)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let who: Arc<str> = who.into();
    let service = service_fn(|request| {
        let (shared, who) = (Arc::clone(&shared), Arc::clone(&who));
        async move { Ok::<_, Infallible>(respond(&shared, request, who).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(shared.shutdown.clone()) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%who, %error, "admin connection ended early");
    }
}

async fn respond(shared: &Shared, request: Request<Incoming>, who: Arc<str>) -> Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if let Err(refusal) = shared.guard.check(&head.method, path, head.version, &head.headers) {
        tracing::warn!(%who, method = %head.method, path, %refusal, "admin request refused");
        return answer::refused(refusal);
    }
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    match path {
        "/healthz" if reads => answer::health(),
        "/readyz" if reads => answer::readiness(readiness(shared)),
        "/metrics" if reads => answer::metrics(shared.backend.metrics()),
        "/routes" if reads => answer::routes(&shared.backend.routes()),
        "/dns/why" if reads => {
            let value = |name: &str| parameter(head.uri.query().unwrap_or_default(), name);
            answer::dns_why(shared.backend.dns_why(&value("name"), &value("subnet")))
        }
        "/purge" if head.method == Method::POST => match purge::read(body).await {
            Ok(order) => carry_out(Arc::clone(&shared.backend), order, who).await,
            Err(bad) => answer::bad_purge(&bad),
        },
        path if path == "/traffic" || path.starts_with("/traffic/") => {
            traffic::respond(&*shared.backend, &head.method, path, body, &who).await
        }
        "/healthz" | "/readyz" | "/metrics" | "/routes" | "/dns/why" => answer::wrong_method("GET, HEAD"),
        "/purge" => answer::wrong_method("POST"),
        _ => answer::no_endpoint(),
    }
}

/// A parameter of a query string, decoded; empty if there is none.
fn parameter(query: &str, name: &str) -> String {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back().unwrap_or_default();
    percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()
}

fn readiness(shared: &Shared) -> Readiness {
    if *shared.shutdown.borrow() { Readiness::NotReady("shutting down".to_owned()) } else { shared.backend.ready() }
}

/// Purges in a task of its own: a caller that hangs up must not leave half of its list purged.
async fn carry_out(backend: Arc<dyn Backend>, order: Order, who: Arc<str>) -> Answer {
    let request_id = request_id();
    let (id, soft) = (request_id.clone(), order.soft);
    let task = tokio::spawn(async move {
        match backend.purge(order, id.clone(), who.to_string()).await {
            Ok(report) => answer::purged(&id, soft, &report),
            Err(failure) => answer::not_purged(&id, &failure),
        }
    });
    task.await.unwrap_or_else(|error| {
        tracing::error!(request_id, %error, "purge did not run to its end");
        answer::broken(&request_id)
    })
}

/// 32 hexadecimal digits that no other request has. They name a request and guard nothing, so the standard library's
/// hash keys are random enough.
fn request_id() -> String {
    let random = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests;
