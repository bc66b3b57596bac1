//! Answers on their way to the client.

use super::connection::Timer;
use super::decide::Content;
use crate::cache::direct::Held;
use crate::cache::disk::Placed;
use crate::proxy::CLIENT_WRITE_TIMEOUT;
use crate::proxy::failure::Failure;
use crate::proxy::listen::ClientStream;
use pingora::protocols::Stream;
use rustix::net::SendFlags;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncWrite, Interest};

/// Pieces of one write.
const MAX_SLICES: usize = 16;
/// Bytes that are read from the disk at a time: what stays in a core's own cache until it is sent.
const DISK_PIECE: usize = 128 << 10;

/// Pieces of at least so many bytes are sent out of the page cache: for less, the calls cost what the copy costs.
const FROM_PAGES: usize = 32 << 10;

/// How far an answer came.
pub struct Sent {
    /// Bytes of content that the connection took.
    pub content: u64,
    /// Why it ended early.
    pub failure: Option<Failure>,
}

/// What follows a head, or goes on with what was begun.
enum Part<'p> {
    Nothing,
    /// From and to these positions.
    Held(&'p Held, u64, u64),
    Bytes(&'p [u8]),
}

impl Part<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Held(_, start, end) => end - start,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// Writes a head and the content behind it, all of it or as far as the client takes it: one that takes no byte for
/// [`CLIENT_WRITE_TIMEOUT`] is gone.
pub async fn answer(stream: &mut Stream, timer: &mut Timer, head: &[u8], content: Content) -> Sent {
    let mut sent = 0;
    let done = match &content {
        Content::Nothing => write(stream, timer, head, &Part::Nothing, &mut sent).await,
        Content::Memory(held, range) => {
            write(stream, timer, head, &Part::Held(held, range.start, range.end), &mut sent).await
        }
        Content::Disk(object, range) => {
            let (mut at, mut head) = (range.start, head);
            loop {
                let max = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(DISK_PIECE);
                let bytes = match object.read(at, max).await {
                    Ok(bytes) if !bytes.is_empty() && bytes.len() <= max => bytes,
                    Ok(_) | Err(_) => return Sent { content: sent, failure: Some(Failure::Internal) },
                };
                let (of_head, of_bytes) = match bytes.len() {
                    FROM_PAGES.. => from_pages(stream, head, object.placed(at, bytes.len())),
                    _ => (0, 0),
                };
                sent += of_bytes as u64;
                // What the socket did not take is here, verified.
                let rest = Part::Bytes(&bytes[of_bytes..]);
                let done = write(stream, timer, &head[of_head..], &rest, &mut sent).await;
                at += bytes.len() as u64;
                head = &[];
                if done.is_err() || at >= range.end {
                    break done;
                }
                // Without a wait nobody else would have a turn.
                tokio::task::consume_budget().await;
            }
        }
    };
    let done = match done {
        Ok(()) => flush(stream, timer).await,
        Err(error) => Err(error),
    };
    Sent { content: sent, failure: done.err().map(|_| Failure::ClientGone) }
}

/// Sends a head and content that lies in the page cache, over a connection that takes bytes as they are, as far as it
/// takes them at once; how many bytes of both it took. What went wrong comes up again with the rest.
fn from_pages(stream: &Stream, head: &[u8], placed: Option<Placed>) -> (usize, usize) {
    let socket = (**stream).as_any().downcast_ref::<ClientStream>().and_then(ClientStream::socket);
    let (Some(socket), Some(placed)) = (socket, placed) else { return (0, 0) };
    let together = SendFlags::MORE | SendFlags::NOSIGNAL;
    let send = || if head.is_empty() { Ok(0) } else { Ok(rustix::net::send(socket, head, together)?) };
    let of_head = socket.try_io(Interest::WRITABLE, send).unwrap_or(0);
    if of_head < head.len() {
        return (of_head, 0);
    }
    let sent = socket.try_io(Interest::WRITABLE, || placed.send_to(socket.as_fd()).unwrap_or(Ok(0)));
    (of_head, sent.unwrap_or(0))
}

async fn write(stream: &mut Stream, timer: &mut Timer, head: &[u8], part: &Part<'_>, sent: &mut u64) -> io::Result<()> {
    let (mut head, mut at) = (head, 0);
    while !head.is_empty() || at < part.len() {
        let written = within(timer, |cx| {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            slices[0] = IoSlice::new(head);
            let first = usize::from(!head.is_empty());
            let used = first
                + match part {
                    Part::Nothing => 0,
                    Part::Held(held, start, end) => fill(&mut slices[first..], held.slices(start + at, *end)),
                    // What was taken is less than what there is.
                    Part::Bytes(bytes) => fill(&mut slices[first..], bytes.get(at as usize..).into_iter()),
                };
            Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..used])
        })
        .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_head = written.min(head.len());
        head = &head[of_head..];
        at += (written - of_head) as u64;
        *sent += (written - of_head) as u64;
    }
    Ok(())
}

fn fill<'s>(slices: &mut [IoSlice<'s>], pieces: impl Iterator<Item = &'s [u8]>) -> usize {
    let mut used = 0;
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
        used += 1;
    }
    used
}

/// Sends what the connection's layers hold.
pub async fn flush(stream: &mut Stream, timer: &mut Timer) -> io::Result<()> {
    within(timer, |cx| Pin::new(&mut *stream).poll_flush(cx)).await
}

/// Polls until it is done; the time that a client has to take something begins when it has to be waited for.
async fn within<T>(
    timer: &mut Timer,
    mut poll: impl FnMut(&mut std::task::Context<'_>) -> Poll<io::Result<T>>,
) -> io::Result<T> {
    let mut waits = false;
    poll_fn(|cx| match poll(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => {
            if !std::mem::replace(&mut waits, true) {
                timer.set(CLIENT_WRITE_TIMEOUT);
            }
            if timer.is_due(cx) { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
        }
    })
    .await
}
