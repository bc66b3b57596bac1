//! One event per request, written off the request path.
//!
//! [`AccessLog::record`] puts an event into a bounded queue and returns; a thread of its own formats and writes. Memory
//! is bounded: the queue holds [`QUEUE`] events, each client-given text at most [`FIELD_LIMIT`] bytes. When the writer
//! cannot keep up, events are dropped and counted, and requests go on.

mod date;
mod format;
mod template;
mod writer;

pub use template::{Escape, Template};

use crate::metrics::Metrics;
use parking_lot::Mutex;
use prometheus::IntCounter;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

/// Events that wait for the writer before further ones are dropped.
pub const QUEUE: usize = 8192;
/// Bytes kept of a text that a client chose; what is cut off is marked by `…`.
pub const FIELD_LIMIT: usize = 2048;
/// How long [`AccessLog::close`] waits for an output that takes nothing.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Where access events go and how they look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How an event is written.
    pub format: Format,
    /// In place of the format's own lines, unless that is [`Format::Off`].
    pub template: Option<Arc<Template>>,
    /// Where to.
    pub output: Output,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// The NCSA combined format, with cache status, tier, times and request id appended.
    Combined,
    /// No access log.
    Off,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to, reopened on SIGHUP (log rotation).
    File(PathBuf),
}

/// What happened to one request.
#[derive(Clone, Debug)]
pub struct Event {
    /// When the request head had been read.
    pub time: SystemTime,
    /// Written as 32 hexadecimal digits, as in the response's field.
    pub request_id: [u8; 16],
    /// The peer; `None` where the connection has no address.
    pub client: Option<SocketAddr>,
    /// The site's name, or a fixed word for a request that no site took.
    pub site: Arc<str>,
    /// The request's method.
    pub method: http::Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host as the client gave it.
    pub host: String,
    /// Path and query as the client gave them.
    pub target: String,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: &'static str,
    /// The status sent; 0 when the client was gone before one was.
    pub status: u16,
    /// Body bytes received from the client.
    pub request_bytes: u64,
    /// Body bytes sent to the client.
    pub response_bytes: u64,
    /// From the request head read to the last byte written.
    pub duration: Duration,
    /// From the request sent to the origin to its response head; `None` when no origin was asked.
    pub origin_duration: Option<Duration>,
    /// The cache outcome as a `Cache-Status` token: `hit`, `uri-miss`, `stale`, `bypass`, …
    pub cache: &'static str,
    /// The tier that answered: `memory` or `disk`.
    pub tier: Option<&'static str>,
    /// The origin server that was asked last.
    pub upstream: Option<SocketAddr>,
    /// The origin's name.
    pub origin: Option<Arc<str>>,
    /// The `User-Agent` field.
    pub user_agent: Option<String>,
    /// The `Referer` field.
    pub referer: Option<String>,
    /// The TLS version: `TLSv1.2` or `TLSv1.3`.
    pub tls: Option<&'static str>,
    /// What went wrong: an RFC 9209 error type and, where there is more to say, its details.
    pub error: Option<String>,
}

/// Why the access log cannot be started. Each message ends with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened for appending.
    #[error("access log {} cannot be opened: {source}; its folder has to exist and the file be writable", path.display())]
    File {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The writer's thread cannot be started.
    #[error("the access log's thread cannot be started: {0}; allow this process more threads")]
    Thread(std::io::Error),
}

/// A running access log. Dropping it closes it.
pub struct AccessLog {
    running: Option<Running>,
}

struct Running {
    queue: SyncSender<Message>,
    orders: Arc<Orders>,
    /// Hears from the writer when it has ended.
    ended: Mutex<Option<Receiver<()>>>,
    dropped: IntCounter,
}

/// What goes through the queue. Boxed, so that an empty queue of [`QUEUE`] places is small.
enum Message {
    Event(Box<Event>),
    /// Look at the [`Orders`].
    Wake,
}

/// Orders to the writer: beside the queue, so that they get through when it is full.
#[derive(Default)]
struct Orders {
    reopen: AtomicBool,
    close: AtomicBool,
}

impl AccessLog {
    /// Opens the output and starts the writer; [`Format::Off`] does neither.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread started.
    pub fn start(settings: &Settings, metrics: &Metrics) -> Result<Self, OpenError> {
        let encode: format::Encode = match (settings.format, settings.template.clone()) {
            (Format::Off, _) => return Ok(Self { running: None }),
            (_, Some(template)) => Box::new(move |event, out| template.write(event, out)),
            (Format::Json, None) => Box::new(format::json),
            (Format::Combined, None) => Box::new(format::combined),
        };
        let sink = writer::open(&settings.output)?;
        Self::spawn(encode, sink, metrics.access_log_dropped.clone())
    }

    fn spawn(encode: format::Encode, sink: Box<dyn writer::Sink>, dropped: IntCounter) -> Result<Self, OpenError> {
        let (queue, events) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let orders = Arc::new(Orders::default());
        let writer = writer::Writer::new(encode, sink, Arc::clone(&orders), dropped.clone());
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                writer.run(&events);
                // Nobody listens when closing took too long.
                let _ = end.send(());
            })
            .map_err(OpenError::Thread)?;
        Ok(Self { running: Some(Running { queue, orders, ended: Mutex::new(Some(ended)), dropped }) })
    }

    /// Whether events are written at all: if not, there is no need to gather them.
    pub fn enabled(&self) -> bool {
        self.running.is_some()
    }

    /// Hands an event to the writer. Never blocks: with a full queue, or after [`AccessLog::close`], the event is
    /// dropped and counted in `selvedge_access_log_dropped_total`.
    pub fn record(&self, mut event: Event) {
        let Some(running) = &self.running else { return };
        clip(&mut event.host);
        clip(&mut event.target);
        for text in [&mut event.user_agent, &mut event.referer, &mut event.error].into_iter().flatten() {
            clip(text);
        }
        let closed = running.orders.close.load(Ordering::Acquire);
        if closed || running.queue.try_send(Message::Event(Box::new(event))).is_err() {
            running.dropped.inc();
        }
    }

    /// Has the writer open its file again by name, after a log rotation moved the old one away. Returns at once; when
    /// the file cannot be opened, the old one stays in use and the problem is reported.
    pub fn reopen(&self) {
        if let Some(running) = &self.running {
            running.orders.reopen.store(true, Ordering::Release);
            running.wake();
        }
    }

    /// Writes what is queued and ends the writer. Blocks until that is done, at most five seconds; a second call does
    /// nothing.
    pub fn close(&self) {
        let Some(running) = &self.running else { return };
        let Some(ended) = running.ended.lock().take() else { return };
        running.orders.close.store(true, Ordering::Release);
        running.wake();
        if ended.recv_timeout(CLOSE_LIMIT).is_err() {
            tracing::warn!("the access log's output takes nothing; events are lost");
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Running {
    fn wake(&self) {
        // A full queue means a writer that is awake, and it looks at the orders before it sleeps.
        match self.queue.try_send(Message::Wake) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// A field's value as text for an [`Event`]: what is not UTF-8 is replaced, what exceeds [`FIELD_LIMIT`] is cut before
/// it is copied.
pub fn field_text(value: &[u8]) -> String {
    let kept = value.get(..=FIELD_LIMIT).unwrap_or(value);
    let mut text = String::from_utf8_lossy(kept).into_owned();
    clip(&mut text);
    text
}

fn clip(text: &mut String) {
    if text.len() > FIELD_LIMIT {
        text.truncate(text.floor_char_boundary(FIELD_LIMIT));
        text.push('…');
        // The cut-off part would otherwise be held as long as the event waits.
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests;
