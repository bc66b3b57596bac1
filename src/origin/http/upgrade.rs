//! The connection that carries an upgrade.
//!
//! pingora-proxy 0.9.1 sends the request head, then reads the response and forwards the request's (empty) content side by
//! side, in no fixed order. Where the 101 is already there when it looks, it may see that first and take the end of the
//! empty content, which it finds next, for the end of the tunnel: it then closes a WebSocket that has just been opened.
//! So the socket of an upgrade lets one look pass in vain after each write; by the next one the content has been dealt
//! with.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Told apart from the group keys of ordinary connections, whose sockets must not come out of the pool for an upgrade.
const GROUP: u64 = 1 << 32;

/// Makes `peer` fit for an upgrade: HTTP/1.1 (RFC 9110 section 7.8 has none in HTTP/2) on a socket of this kind.
pub(in crate::origin) fn prepare(peer: &mut HttpPeer) {
    peer.options.set_http_version(1, 1);
    peer.group_key |= GROUP;
    let limit = peer.options.connection_timeout;
    peer.options.custom_l4 = Some(Arc::new(Connector { limit }));
}

#[derive(Debug)]
struct Connector {
    limit: Option<Duration>,
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "an upgrade goes to an IP address");
        };
        let connecting = TcpStream::connect(address);
        let connected = match self.limit {
            Some(limit) => timeout(limit, connecting)
                .await
                .map_err(|late| Error::because(ErrorType::ConnectTimedout, "connecting for an upgrade", late))?,
            None => connecting.await,
        };
        let tcp = connected.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, "connecting for an upgrade", error)
        })?;
        Ok(VirtualSocketStream::new(Box::new(Patient { tcp, wrote: false })).into())
    }
}

#[derive(Debug)]
struct Patient {
    tcp: TcpStream,
    wrote: bool,
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl VirtualSocket for Patient {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            // An idle tunnel ends by the read timeout.
            _ => Ok(()),
        }
    }
}
