//! TCP (RFC 7766): queries may follow each other without waiting, and are answered in turn.

use super::answer::{Asked, Serving, Shared, answer};
use super::handles::Transport;
use super::log;
use super::settings::TcpSettings;
use arc_swap::ArcSwap;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes of answers that are held back while more queries are there.
const MOST_HELD: usize = 64 << 10;
/// After an error that may come again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections that are open, by client.
#[derive(Default)]
pub(super) struct Open {
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// A place among them, given up when dropped.
struct Held {
    open: Arc<Open>,
    client: IpAddr,
}

impl Open {
    fn hold(self: &Arc<Self>, client: IpAddr, limits: &TcpSettings) -> Option<Held> {
        let mut by_client = self.by_client.lock();
        if by_client.values().sum::<usize>() >= limits.connections {
            return None;
        }
        let count = by_client.entry(client).or_default();
        if *count >= limits.connections_per_client {
            return None;
        }
        *count += 1;
        Some(Held { open: Arc::clone(self), client })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut by_client = self.open.by_client.lock();
        if let Some(count) = by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

/// Answers on a listener's connections until `stop` turns true.
pub(super) async fn serve(
    listener: TcpListener,
    open: Arc<Open>,
    limits: TcpSettings,
    (serving, shared): (Arc<ArcSwap<Serving>>, Arc<Shared>),
    stop: watch::Receiver<bool>,
) {
    let mut stopping = stop.clone();
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a DNS connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Whoever comes when there is no room is told so at once.
        let Some(held) = open.hold(from.ip().to_canonical(), &limits) else { continue };
        let (serving, shared, mut stop) = (Arc::clone(&serving), Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            let connection = connection(stream, from, limits.idle_timeout, &serving, &shared);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                // A connection that breaks is the client's business.
                _ = connection => {}
            }
            drop(held);
        });
    }
}

async fn connection(
    mut stream: TcpStream,
    from: SocketAddr,
    idle: Duration,
    serving: &ArcSwap<Serving>,
    shared: &Shared,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(512);
    let mut scratch = vec![0; usize::from(u16::MAX)];
    let mut output = Vec::new();
    let mut deadline = Instant::now() + idle;
    loop {
        while let Some(message) = next_message(&input) {
            let (now, micros) = (log::seconds(), shared.micros());
            let asked = Asked { message, from: from.ip(), transport: Transport::Tcp, now, micros };
            let serving = serving.load();
            let reply = answer(&serving, shared, asked, &mut scratch).and_then(|length| scratch.get(..length));
            log::sampled(&serving, asked, reply);
            // What is no request at all is not worth a connection.
            let Some(reply) = reply else { return Ok(()) };
            output.extend(u16::try_from(reply.len()).unwrap_or(0).to_be_bytes());
            output.extend(reply);
            let taken = message.len() + 2;
            input.advance(taken);
            if output.len() >= MOST_HELD {
                break;
            }
        }
        if !output.is_empty() {
            timeout(idle, stream.write_all(&output)).await??;
            output.clear();
            // A query that comes byte by byte does not move the deadline; one that is whole does.
            deadline = Instant::now() + idle;
            if next_message(&input).is_some() {
                continue;
            }
        }
        if timeout_at(deadline, stream.read_buf(&mut input)).await?? == 0 {
            return Ok(());
        }
    }
}

/// The first whole message of what has come.
fn next_message(input: &[u8]) -> Option<&[u8]> {
    let (length, rest) = input.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}
