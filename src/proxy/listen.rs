//! The accept loops: from a kernel's queue to a connection that the application is given.

mod handshake;
pub mod proxy_protocol;
mod stream;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use pingora::apps::ServerApp;
use prometheus::{IntCounter, IntGauge};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use self::handshake::Tls;
pub(super) use self::stream::ClientStream;
use super::handshakes::Handshakes;
use crate::metrics::Metrics;

/// The addresses clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Plain HTTP (HTTP/1.1, and HTTP/2 by prior knowledge).
    pub http: Vec<SocketAddr>,
    /// HTTPS (HTTP/1.1 and HTTP/2 by ALPN).
    pub https: Vec<SocketAddr>,
    /// A TLS handshake must end within this.
    pub handshake_timeout: Duration,
    /// Open connections over all listeners; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Whose connections begin with a PROXY protocol header, versions 1 and 2; all others' never do.
    pub proxy_protocol: Vec<IpNet>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {remedy}", remedy = self.remedy())]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The system's reason.
    pub source: io::Error,
}

impl BindError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                "another listener has this port (`ss -ltnp` names its process): stop it, or choose another port"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE or a lower net.ipv4.ip_unprivileged_port_start"
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface has this address: see `ip address`, or use 0.0.0.0 or [::]"
            }
            _ => "check the address, and that its family (IPv4 or IPv6) is enabled",
        }
    }
}

/// Sockets that are bound and listening; clients queue in the kernel until [`serve`] takes them.
#[derive(Debug)]
pub struct Listeners {
    http: Vec<StdListener>,
    https: Vec<StdListener>,
    http_addrs: Vec<SocketAddr>,
    https_addrs: Vec<SocketAddr>,
    handshake_timeout: Duration,
    max_connections: usize,
    proxy_protocol: Vec<IpNet>,
}

impl Listeners {
    /// Binds every address, or none. `[::]` takes IPv4 clients too, unless `0.0.0.0` is listed with the same port.
    ///
    /// # Errors
    /// The first address that cannot be bound, and why.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        let Settings { http, https, handshake_timeout, max_connections, proxy_protocol } = settings;
        let all: Vec<_> = http.iter().chain(https).copied().collect();
        let bind = |addresses: &[SocketAddr]| -> Result<(Vec<StdListener>, Vec<SocketAddr>), BindError> {
            let bound = addresses.iter().map(|&address| bind_one(address, &all));
            Ok(bound.collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
        };
        let (http, http_addrs) = bind(http)?;
        let (https, https_addrs) = bind(https)?;
        let (handshake_timeout, max_connections) = (*handshake_timeout, *max_connections);
        let proxy_protocol = proxy_protocol.clone();
        Ok(Self { http, https, http_addrs, https_addrs, handshake_timeout, max_connections, proxy_protocol })
    }

    /// Where plain HTTP is listened on, with the ports the system chose for port 0.
    pub fn http_addrs(&self) -> &[SocketAddr] {
        &self.http_addrs
    }

    /// Where HTTPS is listened on, with the ports the system chose for port 0.
    pub fn https_addrs(&self) -> &[SocketAddr] {
        &self.https_addrs
    }
}

/// The TLS set-up that new handshakes use. A reload puts another in its place; connections keep the one they began with.
pub struct TlsSlot(ArcSwap<Handshakes>);

impl TlsSlot {
    /// A slot that holds `config`.
    pub fn new(config: Arc<rustls::ServerConfig>) -> Self {
        Self::of(Arc::new(Handshakes::single(config)))
    }

    /// A slot whose set-ups are chosen by name.
    pub fn of(handshakes: Arc<Handshakes>) -> Self {
        Self(ArcSwap::new(handshakes))
    }

    /// The set-ups in use.
    pub fn load(&self) -> Arc<Handshakes> {
        self.0.load_full()
    }

    /// Puts another set-up in use. Session tickets of the one before are no longer accepted: clients that come back
    /// with one get a full handshake.
    pub fn store(&self, handshakes: Arc<Handshakes>) {
        self.0.store(handshakes);
    }
}

/// Accepts connections and gives each to `app` until `shutdown` turns true (or its sender is gone). Then the listeners are
/// closed at once, connections that have sent nothing yet are closed, the application is told by `cleanup`, and the
/// call returns when the last connection has ended: how long to wait is the caller's decision, who may drop the future;
/// connections then go on until the runtime ends.
///
/// A connection is counted in the metrics from the time it has a place among the open ones until its task ends, however
/// that ends. Without `tls` no HTTPS listener is served.
pub async fn serve<A>(
    listeners: Listeners,
    app: Arc<A>,
    tls: Option<Arc<TlsSlot>>,
    metrics: Arc<Metrics>,
    mut shutdown: watch::Receiver<bool>,
) where
    A: ServerApp + Send + Sync + 'static,
{
    let Listeners { http, https, http_addrs: _, https_addrs: _, handshake_timeout, max_connections, proxy_protocol } =
        listeners;
    let proxy_protocol: Arc<[IpNet]> = proxy_protocol.into();
    let places = Arc::new(Semaphore::new(max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let (alive, mut all_gone) = mpsc::channel(1);
    let acceptor = |tls: Option<Arc<Tls>>, name: &'static str| Acceptor {
        app: app.clone(),
        tls,
        places: places.clone(),
        total: metrics.connections_total.with_label_values(&[name]),
        open: metrics.connections_open.with_label_values(&[name]),
        alive: alive.clone(),
        shutdown: shutdown.clone(),
        proxy_protocol: proxy_protocol.clone(),
    };
    let mut loops = JoinSet::new();
    let plain = Arc::new(acceptor(None, "http"));
    for listener in http {
        loops.spawn(plain.clone().accept_all(listener));
    }
    match tls {
        Some(slot) => {
            let secure = Arc::new(acceptor(Some(Arc::new(Tls::new(slot, handshake_timeout, &metrics))), "https"));
            for listener in https {
                loops.spawn(secure.clone().accept_all(listener));
            }
        }
        None if https.is_empty() => {}
        None => tracing::error!("HTTPS listeners are closed: there is no TLS set-up"),
    }
    drop(plain);
    drop(alive);

    // The caller may not hold the sender for ever; without one, nobody could end this any more.
    let _ = shutdown.wait_for(|stop| *stop).await;
    loops.join_all().await;
    app.cleanup().await;
    // Nothing is ever sent: this ends when the last connection has dropped its end.
    let _: Option<()> = all_gone.recv().await;
}

/// Clients beyond the accept queue are refused by the kernel; it may lower this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A client that has connected to a plain listener must begin within this; the reading of a request has limits of its own.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause after the system had no descriptor or memory for a connection; it doubles from the first to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

fn bind_one(address: SocketAddr, all: &[SocketAddr]) -> Result<(StdListener, SocketAddr), BindError> {
    let error = |source: io::Error| BindError { address, source };
    let open = || -> rustix::io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        // A restart need not wait for the old connections' TIME_WAIT.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            let has_v4 = all.iter().any(|a| a.is_ipv4() && a.port() == address.port() && a.port() != 0);
            sockopt::set_ipv6_v6only(&socket, has_v4)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    let listener = StdListener::from(open().map_err(|e| error(e.into()))?);
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

/// What the accept loops of one kind of listener share.
struct Acceptor<A> {
    app: Arc<A>,
    tls: Option<Arc<Tls>>,
    places: Arc<Semaphore>,
    total: IntCounter,
    open: IntGauge,
    alive: mpsc::Sender<()>,
    shutdown: watch::Receiver<bool>,
    proxy_protocol: Arc<[IpNet]>,
}

impl<A: ServerApp + Send + Sync + 'static> Acceptor<A> {
    /// Accepts until shutdown. One connection at most is held here without a place; the others wait in the kernel.
    async fn accept_all(self: Arc<Self>, listener: StdListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "listener cannot be registered"),
        };
        let mut shutdown = self.shutdown.clone();
        let accepting = async {
            let mut pause = BACK_OFF.0;
            loop {
                match listener.accept().await {
                    Ok((tcp, peer)) => {
                        pause = BACK_OFF.0;
                        // The semaphore is never closed.
                        let Ok(place) = self.places.clone().acquire_owned().await else { return };
                        self.start(tcp, peer, place);
                    }
                    Err(error) if is_of_the_client(&error) => {}
                    Err(error) => {
                        tracing::error!(%error, ?pause, "no connection can be accepted");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(BACK_OFF.1);
                    }
                }
            }
        };
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = accepting => {}
        }
    }

    fn start(self: &Arc<Self>, tcp: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        self.total.inc();
        let guard = Open::new(self.open.clone(), place, self.alive.clone());
        let this = self.clone();
        tokio::spawn(async move {
            let _guard = guard;
            let mut next = this.establish(tcp, peer).await;
            while let Some(stream) = next {
                next = this.app.process_new(stream, &this.shutdown).await;
            }
        });
    }

    /// Waits for the client's first byte and does what comes before HTTP.
    async fn establish(&self, mut tcp: TcpStream, peer: SocketAddr) -> Option<pingora::protocols::Stream> {
        // Fails only on a connection that is gone already, as the next read will find.
        let _ = tcp.set_nodelay(true);
        let (mut shutdown, mut byte) = (self.shutdown.clone(), [0]);
        let timeout = self.tls.as_ref().map_or(FIRST_BYTE_TIMEOUT, |tls| tls.timeout);
        let deadline = tokio::time::Instant::now() + timeout;
        tokio::select! {
            biased;
            // Readiness alone is not enough: a new socket may be reported ready with nothing to read.
            first = tcp.peek(&mut byte) => if !matches!(first, Ok(1..)) {
                return None;
            },
            _ = shutdown.wait_for(|stop| *stop) => return None,
            () = tokio::time::sleep_until(deadline) => {
                if let Some(tls) = &self.tls {
                    tls.timed_out();
                }
                return None;
            }
        }
        let (peer, begun) = match proxy_protocol::is_expected(&self.proxy_protocol, peer.ip()) {
            true => self.told(&mut tcp, peer, deadline).await?,
            false => (peer, Vec::new()),
        };
        let mut stream = ClientStream::new(tcp, peer);
        if !begun.is_empty() {
            stream.rewind(&begun);
        }
        match &self.tls {
            None => Some(Box::new(stream)),
            Some(tls) => tls.accept(stream, peer, deadline).await,
        }
    }
}

impl<A> Acceptor<A> {
    /// The client's address as the peer tells it, and what was read beyond that; nothing where it does not in time.
    async fn told(
        &self,
        tcp: &mut TcpStream,
        peer: SocketAddr,
        deadline: tokio::time::Instant,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        match tokio::time::timeout_at(deadline, proxy_protocol::read(tcp)).await {
            Ok(Ok((client, begun))) => Some((client.unwrap_or(peer), begun)),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "no PROXY header");
                None
            }
            Err(_) => None,
        }
    }
}

/// Errors of a connection that ended while it was queued (accept(2), "Error handling"): the next one may be well.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    let kinds = [K::ConnectionAborted, K::ConnectionReset, K::Interrupted, K::HostUnreachable, K::NetworkUnreachable];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(libc::EPROTO)
}

/// An open connection: it holds its place and is counted until this is dropped, by a panic's unwinding as well.
struct Open {
    gauge: IntGauge,
    _place: OwnedSemaphorePermit,
    _alive: mpsc::Sender<()>,
}

impl Open {
    fn new(gauge: IntGauge, place: OwnedSemaphorePermit, alive: mpsc::Sender<()>) -> Self {
        gauge.inc();
        Self { gauge, _place: place, _alive: alive }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests;
