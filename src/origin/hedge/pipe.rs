//! The end of the pipe that the core has for a connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Why the other end broke off; unset where it came to its end.
pub(super) type Fault = Arc<OnceLock<io::ErrorKind>>;

/// The core's end.
#[derive(Debug)]
pub(super) struct Pipe {
    stream: DuplexStream,
    fault: Fault,
}

impl Pipe {
    /// Over one end of a duplex stream. An end of the other one after `fault` was set is that error: an answer whose length
    /// nothing tells would be taken for a whole one otherwise.
    pub fn new(stream: DuplexStream, fault: Fault) -> Self {
        Self { stream, fault }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        match self.fault.get() {
            Some(kind) if room && buf.filled().len() == before => Poll::Ready(Err((*kind).into())),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl VirtualSocket for Pipe {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        // The connections to servers have their own.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_broke_off_does_not_look_whole() {
        for fault in [None, Some(io::ErrorKind::ConnectionReset)] {
            let (ours, cores) = tokio::io::duplex(16);
            let told = Fault::default();
            let mut pipe = Pipe::new(cores, Arc::clone(&told));
            let mut ours = ours;
            ours.write_all(b"part").await.unwrap();
            fault.map(|kind| told.set(kind));
            drop(ours);
            let mut read = Vec::new();
            let end = pipe.read_to_end(&mut read).await.map_err(|error| error.kind());
            assert_eq!((read.as_slice(), end.err()), (&b"part"[..], fault));
        }
    }
}
