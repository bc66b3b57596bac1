//! Picks up changes in a folder of certificates.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};

use super::pair::Problem;
use super::store::{CertStore, Reread};

/// Watches a folder for as long as it lives; dropping it ends the watching thread.
pub struct Watch {
    signals: Sender<Signal>,
    thread: Option<JoinHandle<()>>,
    // Dropped last: its thread sends to the one above.
    _events: Option<notify::RecommendedWatcher>,
}

/// Why a folder cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The system gives no thread.
    #[error("no thread to watch the certificate folder: {0}; raise the limit of processes and threads")]
    Thread(#[from] io::Error),
}

impl CertStore {
    /// Loads every change of the folder within a second, until the [`Watch`] is dropped. What the kernel reports is
    /// looked at once it has been quiet for 100 ms, so that a pair that is being written is not read in the middle;
    /// besides, files are compared every 500 ms, which finds what no event tells of: a change behind a symbolic link,
    /// on a network file system, or in a folder that was replaced. New problems are logged.
    ///
    /// # Errors
    /// See [`WatchError`]. Without kernel events (too many watches) a warning is logged and the comparison does alone.
    pub fn watch(self: &Arc<Self>) -> Result<Watch, WatchError> {
        let (signals, inbox) = mpsc::channel();
        let events = match subscribe(self.dir(), signals.clone()) {
            Ok(events) => Some(events),
            Err(error) => {
                tracing::warn!(%error, dir = %self.dir().display(), "no events for the certificate folder, comparing files");
                None
            }
        };
        let store = Arc::downgrade(self);
        // Where the watch begins is the state of now: what is wrong already has been reported by the one who opened.
        let known = self.refresh(Reread::Changed);
        let thread =
            std::thread::Builder::new().name("certificates".into()).spawn(move || run(&store, &inbox, known))?;
        Ok(Watch { signals, thread: Some(thread), _events: events })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread is gone already if this fails.
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Signal {
    Changed,
    Stop,
}

const POLL: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_millis(100);
/// A folder that is never quiet is looked at this often.
const LONGEST_WAIT: Duration = Duration::from_millis(400);

fn subscribe(dir: &Path, signals: Sender<Signal>) -> notify::Result<notify::RecommendedWatcher> {
    let mut events = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a certificate is an event too, and would wake the reader for ever.
        let is_change =
            event.is_ok_and(|e| !matches!(e.kind, EventKind::Access(k) if k != AccessKind::Close(AccessMode::Write)));
        if is_change {
            // Nobody listens any more while a watch is being dropped.
            let _ = signals.send(Signal::Changed);
        }
    })?;
    events.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(events)
}

fn run(store: &Weak<CertStore>, inbox: &Receiver<Signal>, mut known: Vec<Problem>) {
    let mut pause = POLL;
    loop {
        match inbox.recv_timeout(pause) {
            Ok(Signal::Changed) => {
                if settle(inbox).is_stop() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(store) = store.upgrade() else { return };
        let started = Instant::now();
        let problems = store.refresh(Reread::Changed);
        report(&problems, &known);
        known = problems;
        // Thousands of files take a while to look at: at most a twentieth of one core goes into it.
        pause = POLL.max(started.elapsed() * 20);
    }
}

/// Takes signals until none has come for [`QUIET`], at most for [`LONGEST_WAIT`].
fn settle(inbox: &Receiver<Signal>) -> Signal {
    let end = Instant::now() + LONGEST_WAIT;
    loop {
        let wait = QUIET.min(end.saturating_duration_since(Instant::now()));
        match inbox.recv_timeout(wait) {
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return Signal::Stop,
            Err(RecvTimeoutError::Timeout) => return Signal::Changed,
            Ok(Signal::Changed) if wait.is_zero() => return Signal::Changed,
            Ok(Signal::Changed) => {}
        }
    }
}

impl Signal {
    fn is_stop(&self) -> bool {
        matches!(self, Self::Stop)
    }
}

fn report(problems: &[Problem], known: &[Problem]) {
    for problem in problems.iter().filter(|p| !known.contains(p)) {
        tracing::warn!(
            file = %problem.file.display(),
            cause = %problem.cause,
            effect = problem.effect.as_str(),
            remedy = problem.remedy(),
            "certificate problem"
        );
    }
    for mended in known.iter().filter(|k| !problems.iter().any(|p| p.file == k.file)) {
        tracing::info!(file = %mended.file.display(), "certificate problem mended");
    }
}
