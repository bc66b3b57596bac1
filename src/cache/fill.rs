//! A response being stored, and those who read it meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::disk::{self, Key};
use super::entry::{Body, Head};
use super::window::Window;

/// Bytes of a fill kept in memory where the whole is not.
pub(super) const WINDOW: u64 = 1 << 20;
/// How far a fill that isn't stored may run ahead of the reader of its own request. That reader is polled by the task
/// that writes, so waiting for it would be waiting for oneself; its own pace holds the two together, and only a
/// request that reads nothing any more comes this far behind.
const OWN_LAG: u64 = 8 << 20;
/// For how long, all told, one other reader may hold up a fill that isn't stored.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes read from the disk at a time.
pub(super) const DISK_READ: u64 = 256 << 10;

/// Why the content of a fill ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FillError {
    /// The origin server's response broke off, was not as long as declared, or nobody was left to read it.
    #[error("the response being stored broke off")]
    Aborted,
    /// What this reader wants next is gone from memory and not on the disk.
    #[error("reader too far behind a response that is not stored")]
    TooSlow,
    /// The disk tier could not give back what it took.
    #[error("the part on the disk cannot be read")]
    Disk,
}

pub(super) struct Fill {
    pub(super) id: u64,
    pub(super) key: Key,
    pub(super) head: Head,
    /// The length that the response declares.
    pub(super) declared: Option<u64>,
    /// Readers may begin anywhere, since all of the content stays readable.
    pub(super) seekable: bool,
    state: Mutex<State>,
    data: Notify,
    room: Notify,
}

struct State {
    window: Window,
    phase: Phase,
    /// New readers may come.
    attachable: bool,
    readers: HashMap<u64, Progress>,
    next_reader: u64,
    disk: Option<disk::PartialReader>,
    /// The offset up to which `disk` has the content.
    on_disk: u64,
    /// Kept alive for readers that still need its part; dropped with the fill.
    parked: Option<disk::Writer>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Filling,
    Complete,
    Failed,
}

struct Progress {
    at: u64,
    own: bool,
    patience: Duration,
}

impl Fill {
    /// A fill that has nothing yet, and the reader for its own request.
    pub(super) fn begin(
        id: u64,
        key: Key,
        head: Head,
        declared: Option<u64>,
        attachable: bool,
        disk: Option<disk::PartialReader>,
    ) -> (Arc<Self>, FillReader) {
        let state = State {
            window: Window::default(),
            phase: Phase::Filling,
            attachable,
            readers: HashMap::new(),
            next_reader: 0,
            disk,
            on_disk: 0,
            parked: None,
        };
        let seekable = attachable && declared.is_some();
        let state = Mutex::new(state);
        let fill = Self { id, key, head, declared, seekable, state, data: Notify::new(), room: Notify::new() };
        let fill = Arc::new(fill);
        let own = fill.reader(true);
        (fill, own)
    }

    /// Whether it takes a further reader.
    pub(super) fn is_attachable(&self) -> bool {
        let state = self.state.lock();
        state.attachable && state.phase != Phase::Failed
    }

    /// A further reader, from the first byte; `None` when the fill takes none any more.
    pub(super) fn attach(self: &Arc<Self>) -> Option<FillReader> {
        self.is_attachable().then(|| self.reader(false))
    }

    fn reader(self: &Arc<Self>, own: bool) -> FillReader {
        let mut state = self.state.lock();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, Progress { at: 0, own, patience: PATIENCE });
        FillReader { fill: Arc::clone(self), id, at: 0 }
    }

    pub(super) fn written(&self) -> u64 {
        self.state.lock().window.end()
    }

    pub(super) fn push(&self, data: Bytes) {
        self.state.lock().window.push(data);
        self.data.notify_waiters();
    }

    /// The disk has the content up to `offset`; with `keep` bytes behind it, the rest may leave memory.
    pub(super) fn reached_disk(&self, offset: u64, keep: Option<u64>) {
        let mut state = self.state.lock();
        state.on_disk = offset;
        if let Some(keep) = keep {
            let end = state.window.end();
            state.window.trim_to(offset.min(end.saturating_sub(keep)));
        }
    }

    /// The disk tier gave up: what it had is gone.
    pub(super) fn lost_disk(&self) {
        let mut state = self.state.lock();
        state.disk = None;
        state.on_disk = 0;
    }

    /// Takes no further readers from now on; the part on the disk stays readable to those there are.
    pub(super) fn detach(&self, writer: Option<disk::Writer>) {
        let mut state = self.state.lock();
        state.attachable = false;
        if writer.is_some() {
            state.parked = writer;
        }
    }

    /// Keeps the part on the disk readable after its writer would be dropped.
    pub(super) fn park(&self, writer: disk::Writer) {
        self.state.lock().parked = Some(writer);
    }

    /// All content is there.
    pub(super) fn complete(&self) {
        self.end(Phase::Complete);
    }

    /// Every reader gets an error, at once.
    pub(super) fn fail(&self) {
        self.end(Phase::Failed);
    }

    fn end(&self, phase: Phase) {
        self.state.lock().phase = phase;
        self.data.notify_waiters();
    }

    /// The content, of a fill that was kept in memory as a whole.
    pub(super) fn body(&self) -> Body {
        self.state.lock().window.take_body()
    }

    /// For a fill that isn't stored: waits until the readers leave room in the window. A reader that has used up its
    /// patience is cut off. `Err` when nobody is left to read.
    pub(super) async fn make_room(&self) -> Result<(), FillError> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let wait = {
                let mut state = self.state.lock();
                let (end, before) = (state.window.end(), state.readers.len());
                state.readers.retain(|_, reader| {
                    let cut = if reader.own { end - reader.at > OWN_LAG } else { reader.patience.is_zero() };
                    !cut
                });
                if state.readers.len() < before {
                    self.data.notify_waiters();
                }
                let Some(slowest) = state.readers.values().map(|reader| reader.at).min() else {
                    return Err(FillError::Aborted);
                };
                let wait = lagging(&mut state).map(|reader| reader.patience).min();
                if wait.is_none() {
                    state.window.trim_to(slowest);
                }
                wait
            };
            let Some(wait) = wait else { return Ok(()) };
            let since = Instant::now();
            let _ = timeout(wait, room).await;
            let waited = since.elapsed();
            let mut state = self.state.lock();
            lagging(&mut state).for_each(|reader| reader.patience = reader.patience.saturating_sub(waited));
        }
    }

    #[cfg(test)]
    pub(super) fn lose_patience(&self, patience: Duration) {
        self.state.lock().readers.values_mut().for_each(|reader| reader.patience = patience);
    }
}

/// The readers that a fill which isn't stored has to wait for.
fn lagging(state: &mut State) -> impl Iterator<Item = &mut Progress> {
    let end = state.window.end();
    state.readers.values_mut().filter(move |reader| !reader.own && end - reader.at > WINDOW)
}

/// What a reader can do next.
enum Step {
    Give(Bytes),
    FromDisk(disk::PartialReader, u64),
    End,
    Wait,
}

/// One reader of a fill.
pub(super) struct FillReader {
    fill: Arc<Fill>,
    id: u64,
    at: u64,
}

impl FillReader {
    pub(super) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// The next content before offset `limit`, waiting for it if need be; `None` at `limit` or the end.
    pub(super) async fn read(&mut self, limit: u64) -> Result<Option<Bytes>, FillError> {
        let fill = Arc::clone(&self.fill);
        loop {
            let data = fill.data.notified();
            tokio::pin!(data);
            data.as_mut().enable();
            match self.step(limit)? {
                Step::Give(bytes) => return Ok(Some(bytes)),
                Step::End => return Ok(None),
                Step::Wait => data.await,
                Step::FromDisk(disk, length) => {
                    let max = usize::try_from(length.min(DISK_READ)).unwrap_or(usize::MAX);
                    let bytes = disk.read(self.at, max).await.map_err(|_| FillError::Disk)?;
                    if bytes.is_empty() || bytes.len() > max {
                        return Err(FillError::Disk);
                    }
                    self.advance(&mut fill.state.lock(), bytes.len());
                    return Ok(Some(bytes));
                }
            }
        }
    }

    /// Goes on from another offset.
    pub(super) fn seek(&mut self, offset: u64) {
        let fill = Arc::clone(&self.fill);
        self.at = offset;
        self.advance(&mut fill.state.lock(), 0);
    }

    fn step(&mut self, limit: u64) -> Result<Step, FillError> {
        let fill = Arc::clone(&self.fill);
        let mut state = fill.state.lock();
        // Who has all it asked for is not concerned by what comes after.
        if self.at >= limit {
            return Ok(Step::End);
        }
        if state.phase == Phase::Failed {
            return Err(FillError::Aborted);
        }
        if !state.readers.contains_key(&self.id) {
            return Err(FillError::TooSlow);
        }
        if let Some(bytes) = state.window.read(self.at, limit - self.at) {
            self.advance(&mut state, bytes.len());
            return Ok(Step::Give(bytes));
        }
        if self.at < state.on_disk
            && let Some(disk) = &state.disk
        {
            return Ok(Step::FromDisk(disk.clone(), limit.min(state.on_disk) - self.at));
        }
        if self.at < state.window.base() {
            return Err(FillError::TooSlow);
        }
        Ok(if state.phase == Phase::Complete { Step::End } else { Step::Wait })
    }

    fn advance(&mut self, state: &mut State, length: usize) {
        self.at += length as u64;
        if let Some(progress) = state.readers.get_mut(&self.id) {
            progress.at = self.at;
        }
        self.fill.room.notify_waiters();
    }
}

impl Drop for FillReader {
    fn drop(&mut self) {
        self.fill.state.lock().readers.remove(&self.id);
        self.fill.room.notify_waiters();
    }
}
