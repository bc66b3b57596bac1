//! The thread that writes.

use super::format::Encode;
use super::{Message, OpenError, Orders, Output};
use prometheus::IntCounter;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// A full buffer is written.
const BUFFER: usize = 64 << 10;
/// A buffer that is not full is written at least this often.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// Pause between two looks at a queue that was not empty. A writer that waits has to be woken, which costs the request
/// a system call; one that pauses does not. The queue takes 800,000 events a second at this pace.
const PAUSE: Duration = Duration::from_millis(10);
/// Least time between two reports of a failing output.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// What lines are written to.
pub(super) trait Sink: Send {
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;

    /// Opens the same name again; on an error what was open stays in use.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn open(output: &Output) -> Result<Box<dyn Sink>, OpenError> {
    Ok(match output {
        Output::Stdout => Box::new(Standard::Out),
        Output::Stderr => Box::new(Standard::Error),
        Output::File(path) => {
            let file = append(path).map_err(|source| OpenError::File { path: path.clone(), source })?;
            Box::new(LogFile { path: path.clone(), file })
        }
    })
}

/// Formats and writes events until it is told to close.
pub(super) struct Writer {
    encode: Encode,
    sink: Box<dyn Sink>,
    orders: Arc<Orders>,
    dropped: IntCounter,
    buffer: Vec<u8>,
    /// Events in the buffer.
    buffered: u64,
    flushed: Instant,
    /// A write failed, perhaps within a line: the next one starts a new line.
    torn: bool,
    reported: Option<Instant>,
}

impl Writer {
    pub(super) fn new(encode: Encode, sink: Box<dyn Sink>, orders: Arc<Orders>, dropped: IntCounter) -> Self {
        let (buffer, flushed) = (Vec::with_capacity(BUFFER), Instant::now());
        Self { encode, sink, orders, dropped, buffer, buffered: 0, flushed, torn: false, reported: None }
    }

    pub(super) fn run(mut self, events: &Receiver<Message>) {
        loop {
            // Read before the queue is emptied: everything recorded before the order is then in this round.
            let closing = self.orders.close.load(Ordering::Acquire);
            let reopening = self.orders.reopen.swap(false, Ordering::AcqRel);
            let busy = self.drain(events);
            if reopening {
                self.reopen();
            }
            if closing {
                self.flush();
                return;
            }
            if busy {
                if self.flushed.elapsed() >= FLUSH_INTERVAL {
                    self.flush();
                }
                std::thread::sleep(PAUSE);
                continue;
            }
            self.flush();
            match events.recv() {
                Ok(Message::Event(event)) => self.add(&event),
                Ok(Message::Wake) => {}
                // Nobody is left who could record.
                Err(_) => return,
            }
        }
    }

    /// Takes what is queued now; whether there was anything. A wake-up counts: its order may have come after this round
    /// looked for one, and only another round finds it. At most one queue's length, so that however fast events come,
    /// orders are looked at in between.
    fn drain(&mut self, events: &Receiver<Message>) -> bool {
        let mut busy = false;
        for message in events.try_iter().take(super::QUEUE) {
            busy = true;
            if let Message::Event(event) = message {
                self.add(&event);
            }
        }
        busy
    }

    fn add(&mut self, event: &super::Event) {
        (self.encode)(event, &mut self.buffer);
        self.buffered += 1;
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.flushed = Instant::now();
        if self.buffer.is_empty() {
            return;
        }
        if self.torn {
            self.buffer.insert(0, b'\n');
        }
        let result = self.sink.write(&self.buffer);
        self.torn = result.is_err();
        if let Err(error) = result {
            self.dropped.inc_by(self.buffered);
            self.report(&error, "access log could not be written; events are lost");
        }
        self.buffer.clear();
        self.buffered = 0;
    }

    fn reopen(&mut self) {
        // What happened before the rotation belongs into the file that was rotated away.
        self.flush();
        match self.sink.reopen() {
            Ok(()) => self.torn = false,
            Err(error) => {
                tracing::error!(%error, "access log could not be reopened; the old file stays in use");
            }
        }
    }

    fn report(&mut self, error: &io::Error, what: &'static str) {
        if self.reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
            self.reported = Some(Instant::now());
            tracing::error!(%error, "{what}");
        }
    }
}

enum Standard {
    Out,
    Error,
}

impl Sink for Standard {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Out => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::Error => io::stderr().lock().write_all(lines),
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
}

impl Sink for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        Ok(())
    }
}

/// Access logs hold addresses of people: no access for others.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}
