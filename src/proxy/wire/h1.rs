//! A client's HTTP/1 connection under the core's session.

use super::head::Redate;
use async_trait::async_trait;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream the core writes responses to. The phases reach it through the session, to say which `Date` the next final
/// head shall have, and to send interim heads past the core's writer.
///
/// The session owns the stream and lends it only to be read, so what changes is behind a lock. The core's own reading
/// and writing has the stream to itself and does not take it; bodies pass without a look or a copy.
pub struct ClientWire {
    id: UniqueIDType,
    io: Mutex<Io>,
}

struct Io {
    stream: Stream,
    /// Waiting for the next final head.
    redate: Option<Redate>,
    /// Heads that the stream has not taken yet; they go before all else.
    staged: Vec<u8>,
    feed: Option<Feed>,
}

/// What is read before the stream is, and a note of what was read beyond the request that the core is given: the core
/// keeps that to itself.
struct Feed {
    data: Vec<u8>,
    at: usize,
    /// Bytes of the request that have not been read; `None`: only the core can tell where it ends.
    own: Option<u64>,
    beyond: Vec<u8>,
}

impl Feed {
    fn read(&mut self, buf: &mut ReadBuf<'_>) {
        let mut left = &self.data[self.at..];
        // First the request alone, so that what follows need not go through the core.
        if let Some(own) = self.own.and_then(|own| usize::try_from(own).ok()).filter(|own| *own > 0) {
            left = &left[..left.len().min(own)];
        }
        let count = left.len().min(buf.remaining());
        buf.put_slice(&left[..count]);
        self.at += count;
    }

    fn note(&mut self, bytes: &[u8]) {
        let Some(own) = &mut self.own else { return };
        let of_it = usize::try_from(*own).unwrap_or(usize::MAX).min(bytes.len());
        *own -= of_it as u64;
        self.beyond.extend_from_slice(&bytes[of_it..]);
    }
}

impl ClientWire {
    /// Over the decrypted stream.
    pub fn new(stream: Stream) -> Self {
        Self { id: stream.id(), io: Mutex::new(Io { stream, redate: None, staged: Vec::new(), feed: None }) }
    }

    /// The stream itself: for use between the core's requests.
    pub fn stream_mut(&mut self) -> &mut Stream {
        &mut self.io.get_mut().stream
    }

    /// Has `data` read before the stream; it begins with a request of `own` bytes, where that is known.
    pub fn feed(&mut self, data: Vec<u8>, own: Option<u64>) {
        self.io.get_mut().feed = Some(Feed { data, at: 0, own, beyond: Vec::new() });
    }

    /// What was read, or is still to be read before the stream, beyond the request that was fed.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let Some(Feed { data, at, mut beyond, .. }) = self.io.get_mut().feed.take() else { return Vec::new() };
        beyond.extend_from_slice(&data[at..]);
        beyond
    }

    /// The next final head gets this `Date`; with `None` it keeps what the core writes.
    pub fn set_date(&self, date: Option<HeaderValue>) {
        let io = &mut *self.io.lock();
        if let Some(begun) = io.redate.take() {
            io.staged.append(&mut begun.into_rest());
        }
        io.redate = date.map(Redate::new);
    }

    /// Sends an interim head at once. To be called between heads only, while nobody else writes.
    ///
    /// # Errors
    /// The connection's.
    pub async fn send_interim(&self, head: &[u8]) -> io::Result<()> {
        self.io.lock().staged.extend_from_slice(head);
        std::future::poll_fn(|cx| {
            let io = &mut *self.io.lock();
            ready!(io.poll_drain(cx))?;
            Pin::new(&mut io.stream).poll_flush(cx)
        })
        .await
    }
}

impl Io {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.staged.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.staged))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.staged.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_head(&mut self, cx: &mut Context<'_>, mut redate: Redate, buf: &[u8]) -> Poll<io::Result<usize>> {
        let taken = redate.take(buf, &mut self.staged);
        if !taken.done {
            self.redate = Some(redate);
        }
        // What does not go out now goes before the next bytes or with the flush.
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken.bytes)),
        }
    }
}

impl AsyncRead for ClientWire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = self.io.get_mut();
        let before = buf.filled().len();
        match &mut io.feed {
            Some(feed) if feed.at < feed.data.len() => feed.read(buf),
            _ => ready!(Pin::new(&mut io.stream).poll_read(cx, buf))?,
        }
        if let Some(feed) = &mut io.feed {
            feed.note(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientWire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let io = self.io.get_mut();
        ready!(io.poll_drain(cx))?;
        match io.redate.take() {
            Some(redate) => io.poll_write_head(cx, redate, buf),
            None => Pin::new(&mut io.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.io.get_mut();
        ready!(io.poll_drain(cx))?;
        match io.redate.take() {
            Some(redate) => {
                let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
                io.poll_write_head(cx, redate, first)
            }
            None => Pin::new(&mut io.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.lock().stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.io.get_mut();
        ready!(io.poll_drain(cx))?;
        Pin::new(&mut io.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.io.get_mut();
        if let Some(redate) = io.redate.take() {
            io.staged.append(&mut redate.into_rest());
        }
        ready!(io.poll_drain(cx))?;
        Pin::new(&mut io.stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for ClientWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientWire").field("fd", &self.id).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for ClientWire {
    async fn shutdown(&mut self) {
        let io = self.io.get_mut();
        let _ = std::future::poll_fn(|cx| io.poll_drain(cx)).await;
        io.stream.shutdown().await;
    }
}

impl UniqueID for ClientWire {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl Ssl for ClientWire {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.io.lock().stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.io.lock().stream.selected_alpn_proto()
    }
}

/// The core looks ahead only before a connection comes here.
impl Peek for ClientWire {}

impl GetTimingDigest for ClientWire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.io.lock().stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.io.lock().stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.io.lock().stream.get_write_pending_time()
    }
}

impl GetProxyDigest for ClientWire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.io.lock().stream.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.io.get_mut().stream.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for ClientWire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.io.lock().stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.io.get_mut().stream.set_socket_digest(digest);
    }
}
