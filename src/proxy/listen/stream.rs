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
use bytes::Bytes;
use futures::FutureExt;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// A TCP stream behind a write buffer: the core writes a response in parts, which would be a system call each. What does
/// not fit goes out together with what waits, in one vectored write and without a copy. pingora's own stream would measure
/// the time that each read and write waits, for which there is no use here.
pub(in crate::proxy) struct ClientStream {
    tcp: TcpStream,
    digest: Option<Arc<SocketDigest>>,
    /// What is read before the socket is.
    ahead: Bytes,
    /// Grows with the first response, so that connections that only handshake or wait cost nothing.
    pending: Vec<u8>,
    /// Bytes up to which vectored writes are gathered. Plain HTTP has none gathered: who writes so writes all there is.
    /// TLS writes its records so, whether or not more are to come.
    gathers: usize,
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
        Self { tcp, digest: Some(Arc::new(digest)), ahead: Bytes::new(), pending: Vec::new(), gathers: 0 }
    }

    /// The socket, for who sends from a file; `None` while something waits that has to go before.
    pub(in crate::proxy) fn socket(&self) -> Option<&TcpStream> {
        self.pending.is_empty().then_some(&self.tcp)
    }

    /// Has small vectored writes gathered as well.
    pub(super) fn gather(&mut self) {
        self.gathers = WRITE_BUFFER;
    }

    /// Puts bytes that were read back before those to come.
    pub(super) fn rewind(&mut self, bytes: &[u8]) {
        self.ahead =
            if self.ahead.is_empty() { Bytes::copy_from_slice(bytes) } else { [bytes, &self.ahead].concat().into() };
    }

    /// Writes all that waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.pending))?;
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
        if self.ahead.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let count = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(count));
        Poll::Ready(Ok(()))
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
                return Pin::new(&mut this.tcp).poll_write(cx, buf);
            }
            let both = [IoSlice::new(&this.pending), IoSlice::new(buf)];
            let written = ready!(Pin::new(&mut this.tcp).poll_write_vectored(cx, &both))?;
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
        if this.pending.len() + total <= this.gathers {
            bufs.iter().for_each(|buf| this.pending.extend_from_slice(buf));
            return Poll::Ready(Ok(total));
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
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
        self.tcp.as_raw_fd()
    }
}

impl Ssl for ClientStream {}

#[async_trait]
impl Peek for ClientStream {
    /// Fills `buf` with the first bytes and puts them back; it is for pingora's look at the HTTP/2 preface. Reading ends
    /// with the first byte that cannot be of the preface, and the rest of `buf` stays as it was: a whole HTTP/1.0
    /// request may be shorter than the preface, and its client would wait for an answer for ever.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        let read = async {
            while filled < buf.len() && H2_PREFACE.starts_with(&buf[..filled]) {
                match self.read(&mut buf[filled..]).await? {
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
        Vec::new()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.digest.clone()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.digest = Some(Arc::new(digest));
    }
}
