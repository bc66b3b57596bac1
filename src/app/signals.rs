//! What makes a running process reload or stop: signals and changes of the configuration file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The reason given for a reload on SIGHUP.
pub const HANGUP: &str = "SIGHUP";
const FILE_CHANGED: &str = "the file changed";

/// Between two looks at the file. A look is one `stat`, which also sees what file events miss: renames over the file,
/// swapped symbolic links, network file systems.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Something to act on.
#[derive(Debug)]
pub enum Event {
    /// Read the configuration again.
    Reload(&'static str),
    /// Drain and exit.
    Stop(&'static str),
}

/// The source of [`Event`]s.
pub struct Events {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    look: Interval,
    file: PathBuf,
    seen: Stamp,
    changing: Option<Stamp>,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Events {
    /// Starts to listen; must run inside the runtime.
    ///
    /// # Errors
    /// A signal handler cannot be installed.
    pub fn new(file: &Path) -> std::io::Result<Self> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            look,
            file: file.to_owned(),
            seen: stamp(file),
            changing: None,
        })
    }

    /// The next event.
    pub async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    self.seen = stamp(&self.file);
                    return Event::Reload(HANGUP);
                }
                _ = self.terminate.recv() => return Event::Stop("SIGTERM"),
                _ = self.interrupt.recv() => return Event::Stop("SIGINT"),
                _ = self.look.tick() => {
                    if self.has_settled() {
                        return Event::Reload(FILE_CHANGED);
                    }
                }
            }
        }
    }

    /// The next SIGTERM or SIGINT: the operator does not want to wait for the drain.
    pub async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// True once per change, and only when two looks in a row saw the same new state: an editor may still be writing.
    fn has_settled(&mut self) -> bool {
        let now = stamp(&self.file);
        if now == self.seen {
            self.changing = None;
            return false;
        }
        if self.changing.replace(now) != Some(now) {
            return false;
        }
        self.seen = now;
        self.changing = None;
        true
    }
}

/// A file that is gone for a moment (being replaced) has a stamp of its own.
fn stamp(file: &Path) -> Stamp {
    match std::fs::metadata(file) {
        Ok(m) => Stamp { inode: m.ino(), length: m.len(), modified: (m.mtime(), m.mtime_nsec()) },
        Err(_) => Stamp { inode: 0, length: 0, modified: (0, 0) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_reported_once_and_only_when_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("selvedge.toml");
        std::fs::write(&file, "a").unwrap();
        let mut events = Events::new(&file).unwrap();
        assert!(!events.has_settled());
        std::fs::write(&file, "ab").unwrap();
        assert!(!events.has_settled(), "seen for the first time");
        std::fs::write(&file, "abc").unwrap();
        assert!(!events.has_settled(), "still changing");
        assert!(events.has_settled());
        assert!(!events.has_settled(), "reported already");
    }
}
