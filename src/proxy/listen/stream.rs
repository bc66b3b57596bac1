//! A client's connection as pingora takes it.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// pingora's own TCP stream behind a write buffer of our own: pingora sets buffers only for connections that its own
/// listeners accept, and leaves others without, at a system call for every part of a response. What does not fit goes
/// out together with what waits, in one vectored write and without a copy.
pub(super) struct ClientStream {
    l4: L4Stream,
    /// Grows with the first response, so that connections that only handshake or wait cost nothing.
    pending: Vec<u8>,
}

/// A response head and a body of a few KiB in one write: as much as one TLS record holds.
const WRITE_BUFFER: usize = 16 << 10;

/// What a client that begins HTTP/2 without TLS sends first (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client that began what could be the preface must end it within this.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

impl ClientStream {
    /// Takes over an accepted socket; `peer` is its client as the kernel told it.
    pub(super) fn new(tcp: TcpStream, peer: SocketAddr) -> Self {
        let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
        // An IPv4 client on an IPv6 socket is the same client as on an IPv4 socket.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // The cell is new, so it takes the value.
        let _ = digest.peer_addr.set(Some(peer.into()));
        let mut l4 = L4Stream::from(tcp);
        l4.set_socket_digest(digest);
        Self { l4, pending: Vec::new() }
    }

    /// Puts bytes that were read back before those to come.
    pub(super) fn rewind(&mut self, bytes: &[u8]) {
        self.l4.rewind(bytes);
    }

    /// Writes all that waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.l4).poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").field("fd", &self.id()).finish_non_exhaustive()
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.l4).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if this.pending.len() + buf.len() <= WRITE_BUFFER {
                this.pending.extend_from_slice(buf);
                return Poll::Ready(Ok(buf.len()));
            }
            if this.pending.is_empty() {
                return Pin::new(&mut this.l4).poll_write(cx, buf);
            }
            let both = [IoSlice::new(&this.pending), IoSlice::new(buf)];
            let written = ready!(Pin::new(&mut this.l4).poll_write_vectored(cx, &both))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let waited = this.pending.len();
            if written > waited {
                this.pending.clear();
                return Poll::Ready(Ok(written - waited));
            }
            this.pending.drain(..written);
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let total = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if this.pending.len() + total <= WRITE_BUFFER {
            bufs.iter().for_each(|buf| this.pending.extend_from_slice(buf));
            return Poll::Ready(Ok(total));
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.l4).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.l4).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.l4).poll_shutdown(cx)
    }
}

impl Drop for ClientStream {
    /// Sends what was written and not flushed, if the socket takes it at once, as pingora's stream does with its buffer.
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            let _ = self.flush().now_or_never();
        }
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        if let Err(error) = AsyncWriteExt::shutdown(self).await {
            tracing::debug!(%error, "connection could not be shut down");
        }
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.l4.id()
    }
}

impl Ssl for ClientStream {}

#[async_trait]
impl Peek for ClientStream {
    /// Fills `buf` with the first bytes and puts them back; it is for pingora's look at the HTTP/2 preface. Reading ends
    /// with the first byte that cannot be of the preface, and the rest of `buf` stays as it was: a whole HTTP/1.0
    /// request may be shorter than the preface, and its client would wait for an answer for ever.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let l4 = &mut self.l4;
        let mut filled = 0;
        let read = async {
            while filled < buf.len() && H2_PREFACE.starts_with(&buf[..filled]) {
                match l4.read(&mut buf[filled..]).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => filled += n,
                }
            }
            Ok(())
        };
        let done = tokio::time::timeout(PREFACE_TIMEOUT, read).await;
        self.rewind(&buf[..filled]);
        match done {
            Ok(result) => result.map(|()| true),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.l4.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.l4.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.l4.get_write_pending_time()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.l4.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.l4.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.l4.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.l4.set_socket_digest(digest);
    }
}
