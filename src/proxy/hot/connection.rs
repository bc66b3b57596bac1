//! The life of an HTTP/1 connection.

use super::decide::{Asked, Memo};
use super::reason::Reason;
use super::request::{self, End, MAX_FIELDS, Request, Slots};
use super::{Path, Settings, send};
use crate::field::date;
use crate::proxy::target::Scheme;
use crate::proxy::wire::ClientWire;
use crate::proxy::{CLIENT_WRITE_TIMEOUT, report};
use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, Sleep};

/// What is read at a time: most heads come in one.
const READ: usize = 4 << 10;
/// A buffer that grew beyond this is given back when the connection waits for its next request.
const KEPT: usize = 8 << 10;
/// Bytes of the longest head, as in the core, which refuses what is longer.
const MAX_HEAD: usize = 1 << 20;

/// Serves a connection until it ends: requests that can be answered here are, the others go through `proxy`.
pub async fn serve<P: HttpServerApp>(proxy: &Arc<P>, path: &Path, stream: Stream, shutdown: &ShutdownWatch) {
    let mut connection = Connection::new(path.settings, stream, shutdown);
    loop {
        match connection.read_head().await {
            Next::Request => {}
            Next::Slow => {
                connection.refuse(path).await;
                return connection.close().await;
            }
            Next::Stop => return connection.close().await,
            Next::Gone => return,
        }
        match connection.answer(path).await {
            Ok(true) => {}
            Ok(false) => return connection.close().await,
            Err(reason) => {
                path.count_left(reason);
                match connection.hand_over(proxy).await {
                    Some(taken_back) => connection = taken_back,
                    None => return,
                }
            }
        }
    }
}

/// A time by which something has to happen. It is set far more often than it passes, so that what wakes the task is moved
/// only when it would come too late, or came too early.
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    due: Instant,
}

impl Timer {
    fn new(after: Duration) -> Self {
        let due = Instant::now() + after;
        Self { sleep: Box::pin(tokio::time::sleep_until(due)), due }
    }

    /// It is due after this, whatever was set before.
    pub fn set(&mut self, after: Duration) {
        self.due = Instant::now() + after;
        if self.due < self.sleep.deadline() {
            self.sleep.as_mut().reset(self.due);
        }
    }

    /// Whether it is due; the task is woken when it is.
    pub fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        while self.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.due {
                return true;
            }
            self.sleep.as_mut().reset(self.due);
        }
        false
    }
}

/// What comes next on a connection.
enum Next {
    /// A request's head is in the buffer, or what can never be one.
    Request,
    /// The client took too long for a head.
    Slow,
    /// It is to be closed.
    Stop,
    /// The client has closed it, or it broke.
    Gone,
}

struct Connection {
    wire: Box<ClientWire>,
    /// What was read and not answered yet.
    buffer: Vec<u8>,
    out: Vec<u8>,
    memo: Memo,
    timer: Timer,
    settings: Settings,
    shutdown: ShutdownWatch,
    /// Ends when the process is to end.
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    scheme: Scheme,
    tls: Option<&'static str>,
    client: Option<SocketAddr>,
    /// Requests that may follow the next one.
    reuses: Option<u32>,
    /// Bytes of the request in the buffer, once it was read here: it has no content then.
    length: Option<usize>,
}

/// What of a request is told when it is answered: places in the buffer.
struct Told {
    length: usize,
    closes: bool,
    target: Range<usize>,
    user_agent: Option<Range<usize>>,
    referer: Option<Range<usize>>,
}

impl Connection {
    fn new(settings: Settings, stream: Stream, shutdown: &ShutdownWatch) -> Self {
        let tls = stream.get_ssl_digest().map(|digest| report::tls_version(&digest.version));
        let client = stream.get_socket_digest().and_then(|d| d.peer_addr()?.as_inet().copied());
        let mut stop = shutdown.clone();
        Self {
            wire: Box::new(ClientWire::new(stream)),
            buffer: Vec::new(),
            out: Vec::new(),
            memo: Memo::default(),
            // Its first byte is there, or about to be.
            timer: Timer::new(settings.keepalive_timeout),
            settings,
            shutdown: shutdown.clone(),
            stopping: Box::pin(async move {
                // Without a sender nobody could end this any more.
                let _ = stop.wait_for(|stop| *stop).await;
            }),
            scheme: if tls.is_some() { Scheme::Https } else { Scheme::Http },
            tls,
            client,
            reuses: settings.keepalive_requests.map(|requests| requests.saturating_sub(1)),
            length: None,
        }
    }

    /// Reads until a whole head is in the buffer.
    async fn read_head(&mut self) -> Next {
        let mut end = End::default();
        let mut begun = !self.buffer.is_empty();
        if begun {
            if end.is_found(&self.buffer) {
                // The requests of one read are answered one after the other: others are to have their turn between.
                tokio::task::consume_budget().await;
                return Next::Request;
            }
            self.timer.set(self.settings.head_timeout);
        } else {
            self.timer.set(self.settings.keepalive_timeout);
        }
        loop {
            match self.read(begun).await {
                Next::Request if end.is_found(&self.buffer) || self.buffer.len() >= MAX_HEAD => return Next::Request,
                Next::Request if !begun => {
                    begun = true;
                    self.timer.set(self.settings.head_timeout);
                }
                Next::Request => {}
                other => return other,
            }
        }
    }

    /// Reads once, until the time is over, or, before a request has begun, until the process is to end.
    async fn read(&mut self, begun: bool) -> Next {
        let Self { wire, buffer, timer, stopping, .. } = self;
        if buffer.capacity() - buffer.len() < READ / 4 {
            buffer.reserve(READ);
        }
        poll_fn(|cx| {
            // What was sent before the end is still read.
            if let Poll::Ready(read) = pin!(wire.stream_mut().read_buf(buffer)).poll(cx) {
                return Poll::Ready(if matches!(read, Ok(1..)) { Next::Request } else { Next::Gone });
            }
            if !begun && stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Stop);
            }
            match timer.is_due(cx) {
                true if begun => Poll::Ready(Next::Slow),
                true => Poll::Ready(Next::Stop),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Answers the request in the buffer; whether the connection takes another one.
    async fn answer(&mut self, path: &Path) -> Result<bool, Reason> {
        self.length = None;
        let edge = &*path.edge;
        let Some(cache) = edge.cache.filter(|_| self.settings.enabled) else { return Err(Reason::Off) };
        let started = std::time::Instant::now();
        let (asked, told) = {
            let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
            let request = Request::parse(&self.buffer, &mut slots)?;
            self.length = Some(request.length);
            (Asked::new(edge, self.scheme, &request, &mut self.memo)?, told(&request, &self.buffer))
        };
        let closes = told.closes || self.reuses == Some(0) || *self.shutdown.borrow();
        self.out.clear();
        let buffer = &self.buffer;
        let again = || {
            let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
            Request::parse(buffer, &mut slots)?.to_header()
        };
        let answer = asked.answer(edge, cache, &self.memo, again, closes, &mut self.out).await?;
        let sent = send::answer(self.wire.stream_mut(), &mut self.timer, &self.out, answer.content).await;
        let at = |range: &Range<usize>| &self.buffer[range.clone()];
        path.answered.inc();
        report::finish_hit(
            edge,
            &report::Hit {
                rule: &asked.rule,
                method: &asked.method,
                scheme: self.scheme,
                host: &asked.host,
                port: asked.port,
                // It is of ASCII.
                target: std::str::from_utf8(at(&told.target)).unwrap_or_default(),
                user_agent: told.user_agent.as_ref().map(at),
                referer: told.referer.as_ref().map(at),
                client: self.client,
                tls: self.tls,
                status: answer.status,
                tier: answer.tier,
                response_bytes: sent.content,
                started,
                failure: sent.failure,
            },
        );
        self.buffer.drain(..told.length);
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        self.reuses = self.reuses.map(|reuses| reuses.saturating_sub(1));
        Ok(!closes && sent.failure.is_none())
    }

    /// Has the core answer the request in the buffer; the connection afterwards, if it takes another one.
    async fn hand_over<P: HttpServerApp>(self, proxy: &Arc<P>) -> Option<Self> {
        let Self {
            mut wire,
            mut buffer,
            out,
            memo,
            timer,
            settings,
            shutdown,
            stopping,
            scheme,
            tls,
            client,
            reuses,
            length,
        } = self;
        let own = length.map(|length| length as u64).or_else(|| request::length(&buffer));
        wire.feed(std::mem::take(&mut buffer), own);
        let mut session = ServerSession::new_http1(wire);
        session.set_keepalive((!*shutdown.borrow()).then_some(settings.keepalive_timeout.as_secs().max(1)));
        session.set_keepalive_reuses_remaining(reuses);
        loop {
            let (stream, kept) = proxy.process_new_http(session, &shutdown).await?.consume();
            if own.is_some() {
                // What the core has read beyond the request has been noted.
                let mut wire = stream.into_any().downcast::<ClientWire>().ok()?;
                let buffer = wire.take_rest();
                let reuses = reuses.map(|reuses| reuses.saturating_sub(1));
                return Some(Self {
                    wire,
                    buffer,
                    out,
                    memo,
                    timer,
                    settings,
                    shutdown,
                    stopping,
                    scheme,
                    tls,
                    client,
                    reuses,
                    length: None,
                });
            }
            // Only the core knows where such a request ends, and what it has read of the next.
            session = ServerSession::new_http1(stream);
            if let Some(kept) = kept {
                kept.apply_to_session(&mut session);
            }
        }
    }

    /// Answers 408 to a client that takes too long for a head (RFC 9110 section 15.5.9).
    async fn refuse(&mut self, path: &Path) {
        let date = date::format(path.edge.clock.now());
        let head =
            format!("HTTP/1.1 408 Request Timeout\r\nDate: {date}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        send::answer(self.wire.stream_mut(), &mut self.timer, head.as_bytes(), super::decide::Content::Nothing).await;
    }

    async fn close(mut self) {
        let stream = self.wire.stream_mut();
        // A client that does not take the end of its connection is not waited for longer than for any other byte.
        let _ = tokio::time::timeout(CLIENT_WRITE_TIMEOUT, stream.shutdown()).await;
    }
}

fn told(request: &Request<'_, '_>, buffer: &[u8]) -> Told {
    let base = buffer.as_ptr() as usize;
    let place = |part: &[u8]| {
        let start = (part.as_ptr() as usize).saturating_sub(base);
        start..start + part.len()
    };
    Told {
        length: request.length,
        closes: request.closes,
        target: place(request.target.as_bytes()),
        user_agent: request.user_agent.map(place),
        referer: request.referer.map(place),
    }
}
