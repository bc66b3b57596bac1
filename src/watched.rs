//! Small files that are read again when they change: lists of users, of authorities, of what is revoked.

use parking_lot::Mutex;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Files are looked at this often at most, and only when they are used.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// More than any list of this kind has.
const MOST: u64 = 16 << 20;

/// Why a file is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchedError {
    /// The system's reason.
    #[error("{} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What is in it.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What makes something of the files' contents, or says what is wrong with them.
type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// What is read from some files. A change that cannot be read leaves what was there, and is logged once.
pub struct Watched<T> {
    files: Vec<PathBuf>,
    parse: Parse<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Option<Arc<T>>,
    seen: Vec<Option<Stamp>>,
    looked: Option<Instant>,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T> Watched<T> {
    /// Watches `files`; `parse` gets their contents in that order. Nothing is read before it is asked for.
    pub fn new(files: Vec<PathBuf>, parse: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { value: None, seen: Vec::new(), looked: None });
        Self { files, parse: Box::new(parse), state }
    }

    /// Reads the files now.
    ///
    /// # Errors
    /// See [`WatchedError`].
    pub fn read(&self) -> Result<T, WatchedError> {
        let contents = self.files.iter().map(|file| content(file)).collect::<Result<Vec<_>, _>>()?;
        let path = self.files.first().cloned().unwrap_or_default();
        (self.parse)(&contents).map_err(|reason| WatchedError::Malformed { path, reason })
    }

    /// What the files say; `None` if they never said anything that could be understood. One `stat` a second and file, and
    /// a read of a small file after a change.
    pub fn get(&self) -> Option<Arc<T>> {
        let mut state = self.state.lock();
        if state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return state.value.clone();
        }
        state.looked = Some(Instant::now());
        let seen: Vec<_> = self.files.iter().map(|file| stamp(file)).collect();
        if seen != state.seen {
            match self.read() {
                Ok(value) => state.value = Some(Arc::new(value)),
                Err(error) => tracing::warn!(%error, "a changed file is of no use; what it said before counts"),
            }
            state.seen = seen;
        }
        state.value.clone()
    }
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("files", &self.files).finish_non_exhaustive()
    }
}

fn content(path: &Path) -> Result<Vec<u8>, WatchedError> {
    let unreadable = |reason: String| WatchedError::Unreadable { path: path.to_owned(), reason };
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > MOST {
        return Err(unreadable("it is no regular file of at most 16 MiB".to_owned()));
    }
    std::fs::read(path).map_err(|error| unreadable(error.to_string()))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let m = std::fs::metadata(path).ok()?;
    Some(Stamp {
        inode: m.ino(),
        length: m.len(),
        modified: (m.mtime(), m.mtime_nsec()),
        changed: (m.ctime(), m.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(path: &Path) -> Watched<u64> {
        Watched::new(vec![path.to_owned()], |contents| {
            String::from_utf8_lossy(&contents[0]).trim().parse().map_err(|_| "no number".to_owned())
        })
    }

    /// As if the last look had been long ago.
    fn forget<T>(watched: &Watched<T>) {
        watched.state.lock().looked = None;
    }

    #[test]
    fn a_change_is_seen_and_a_bad_one_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let watched = watch(&path);
        assert!(matches!(watched.read(), Err(WatchedError::Unreadable { .. })));
        assert_eq!(watched.get(), None);
        for (text, value) in [("1", 1), ("22", 22), ("no", 22), ("333", 333)] {
            std::fs::write(&path, text).unwrap();
            forget(&watched);
            assert_eq!(watched.get().as_deref(), Some(&value), "{text}");
        }
        std::fs::remove_file(&path).unwrap();
        forget(&watched);
        assert_eq!(watched.get().as_deref(), Some(&333));
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(watched.read(), Err(WatchedError::Unreadable { .. })));
    }
}
