//! Answers on their way to the client.

use super::connection::Timer;
use super::decide::Content;
use crate::cache::direct::Held;
use crate::cache::disk::Object;
use crate::proxy::CLIENT_WRITE_TIMEOUT;
use crate::proxy::failure::Failure;
use crate::proxy::listen::ClientStream;
use pingora::protocols::Stream;
use rustix::net::SendFlags;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

/// Pieces of one write.
const MAX_SLICES: usize = 16;
/// Bytes that are read from the disk at a time: what stays in a core's own cache until it is sent.
const DISK_PIECE: usize = 128 << 10;

/// Bytes that are verified as a whole.
const DISK_BLOCK: u64 = 64 << 10;
/// Pieces of at least so many bytes are sent out of the page cache: for less, the calls cost what the copy costs.
const FROM_PAGES: usize = 32 << 10;
/// Bytes that are sent so at a time, once a connection takes them. No memory waits for a slow client.
const SENT_PIECE: usize = 512 << 10;

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
        Content::Disk(object, range) => match from_disk(stream, timer, head, object, range.clone(), &mut sent).await {
            Ok(done) => done,
            Err(failure) => return Sent { content: sent, failure: Some(failure) },
        },
    };
    let done = match done {
        Ok(()) => flush(stream, timer).await,
        Err(error) => Err(error),
    };
    Sent { content: sent, failure: done.err().map(|_| Failure::ClientGone) }
}

/// Writes a head and content that is on the disk, piece by piece. The inner result is the connection's.
async fn from_disk(
    stream: &mut Stream,
    timer: &mut Timer,
    mut head: &[u8],
    object: &Object,
    Range { start: mut at, end }: Range<u64>,
    sent: &mut u64,
) -> Result<io::Result<()>, Failure> {
    let mut piece = DISK_PIECE;
    loop {
        // Up to the end of a block: what is verified beyond would be kept for the next read.
        let max = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece - (at % DISK_BLOCK) as usize);
        let bytes = match object.read(at, max).await {
            Ok(bytes) if !bytes.is_empty() && bytes.len() <= max => bytes,
            Ok(_) | Err(_) => return Err(Failure::Internal),
        };
        piece = DISK_PIECE;
        if bytes.len() >= FROM_PAGES
            && let Some(of_head) = send_head(stream, head)
        {
            head = &head[of_head..];
            let taken = if head.is_empty() { send_pages(stream, object, at, bytes.len()) } else { None };
            if let Some(taken) = taken {
                *sent += taken as u64;
                at += taken as u64;
                if taken < bytes.len() {
                    // What the client does not take yet needs no memory: it is read anew.
                    drop(bytes);
                    if let Err(error) = within(timer, |cx| poll_writable(stream, cx)).await {
                        return Ok(Err(error));
                    }
                } else {
                    piece = SENT_PIECE;
                }
                if at >= end {
                    return Ok(Ok(()));
                }
                // Without a wait nobody else would have a turn.
                tokio::task::consume_budget().await;
                continue;
            }
        }
        let done = write(stream, timer, head, &Part::Bytes(&bytes), sent).await;
        at += bytes.len() as u64;
        head = &[];
        if done.is_err() || at >= end {
            return Ok(done);
        }
    }
}

/// The socket of a connection that takes bytes as they are, where nothing waits to go before.
fn socket(stream: &Stream) -> Option<&TcpStream> {
    (**stream).as_any().downcast_ref::<ClientStream>()?.socket()
}

/// Sends a head that content out of the page cache is to follow in the same packet; how much of it went, or `None` where
/// it is not to be sent like this.
fn send_head(stream: &Stream, head: &[u8]) -> Option<usize> {
    let socket = socket(stream)?;
    let together = SendFlags::MORE | SendFlags::NOSIGNAL;
    let send = || Ok(rustix::net::send(socket, head, together)?);
    Some(if head.is_empty() { 0 } else { socket.try_io(Interest::WRITABLE, send).unwrap_or(0) })
}

/// Sends content that was just read out of the page cache, as far as the socket takes it at once; `None` where that
/// cannot be. What else goes wrong comes up again when it is written.
fn send_pages(stream: &Stream, object: &Object, at: u64, len: usize) -> Option<usize> {
    let (socket, mut taken) = (socket(stream)?, 0);
    while taken < len {
        let placed = object.placed(at + taken as u64, len - taken);
        let send = || placed.and_then(|placed| placed.send_to(socket.as_fd())).unwrap_or(Ok(0));
        match socket.try_io(Interest::WRITABLE, send) {
            Ok(more @ 1..) => taken += more,
            // Until it is told that there is room again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(taken),
            Ok(0) | Err(_) => return (taken > 0).then_some(taken),
        }
    }
    Some(taken)
}

fn poll_writable(stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    socket(stream).map_or(Poll::Ready(Ok(())), |socket| socket.poll_write_ready(cx))
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
async fn within<T>(timer: &mut Timer, mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>) -> io::Result<T> {
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
