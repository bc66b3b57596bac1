//! The stores of this package's side: our disk tier, a file per object, and the bare disk.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use selvedge::cache::Mark;
use selvedge::cache::admission::Rule;
use selvedge::cache::disk::{DiskTier, Key, Settings, SyncPolicy};
use selvedge::metrics::Metrics;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use crate::subject::{Expected, Subject, serve};
use crate::{Kind, Outcome, Worker};

/// Bytes asked of an object at a time.
const READ: usize = 1 << 20;
/// What O_DIRECT wants to be multiples of.
const PAGE: u64 = 4096;

/// Runs one store until its standard input ends.
pub fn run(worker: &Worker) -> Outcome<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Kind::Raw | Kind::Direct = worker.kind {
        runtime.worker_threads(worker.tasks);
    }
    let runtime = runtime.enable_all().build().map_err(|error| error.to_string())?;
    let _guard = runtime.enter();
    let start = Instant::now();
    let folder = worker.folder.as_path();
    match worker.kind {
        Kind::Segments => {
            let segments = Segments::open(folder, worker.capacity)?;
            let opened = start.elapsed().as_secs_f64();
            runtime.block_on(segments.tier.recovered());
            let recovered = start.elapsed().as_secs_f64();
            let objects = segments.tier.stats().objects;
            let hello = json!({ "open_seconds": opened, "recovered_seconds": recovered, "objects": objects });
            serve(&runtime, segments, hello)
        }
        Kind::Files => serve(&runtime, Files { folder: folder.to_owned(), next: AtomicU64::new(0) }, json!({})),
        Kind::Raw | Kind::Direct => serve(&runtime, Raw::open(folder, worker.kind)?, json!({})),
        Kind::Foyer => Err("foyer runs in a program of its own".to_owned()),
    }
}

/// Our disk tier as it ships.
struct Segments {
    tier: Arc<DiskTier>,
}

impl Segments {
    fn open(folder: &Path, capacity: u64) -> Outcome<Self> {
        let segment_size = Settings::DEFAULT_SEGMENT_SIZE;
        let sync = SyncPolicy::Close;
        let admission = Rule::All;
        let settings = Settings { path: folder.to_owned(), capacity, segment_size, sync, admission };
        let tier = DiskTier::open(&settings, Metrics::new().tier("disk")).map_err(|error| error.to_string())?;
        Ok(Self { tier })
    }
}

fn tier_key(key: u64) -> Key {
    Key { primary: xxh3_128(&key.to_le_bytes()).to_le_bytes(), variant: None }
}

impl Subject for Segments {
    async fn put(&self, key: u64, body: Bytes) -> Result<(), String> {
        // Behind the disk it refuses, as it should: here everything has to get in.
        loop {
            let Some(mut writer) = self.tier.writer(tier_key(key)) else {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            writer.append(body).await.map_err(|error| error.to_string())?;
            return writer.commit(&[], &Mark::default()).await.map_err(|error| error.to_string());
        }
    }

    async fn get(&self, expected: &mut Expected<'_>) -> Result<(), String> {
        let object = self.tier.get(&tier_key(expected.key)).await.ok_or("an object is missing")?;
        let mut at = 0;
        while at < object.len() {
            let piece = object.read(at, READ).await.map_err(|error| error.to_string())?;
            at += piece.len() as u64;
            expected.take(&piece)?;
        }
        Ok(())
    }

    async fn settle(&self) -> Result<(), String> {
        // Everything is written within 50 ms.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    async fn close(&self) {
        self.tier.close().await;
    }
}

/// A file per object through `tokio::fs`, in folders as nginx makes them with `levels=1:2`.
struct Files {
    folder: PathBuf,
    next: AtomicU64,
}

impl Files {
    /// nginx names files by the MD5 of the key; another hash of that size makes names that cost the same.
    fn path(&self, key: u64) -> (PathBuf, PathBuf) {
        let name = format!("{:032x}", xxh3_128(&key.to_le_bytes()));
        let folder = self.folder.join(&name[31..]).join(&name[29..31]);
        let path = folder.join(name);
        (folder, path)
    }
}

impl Subject for Files {
    async fn put(&self, key: u64, body: Bytes) -> Result<(), String> {
        let (folder, path) = self.path(key);
        let fresh = folder.join(format!("{:010}", self.next.fetch_add(1, Ordering::Relaxed)));
        if tokio::fs::write(&fresh, &body).await.is_err() {
            tokio::fs::create_dir_all(&folder).await.map_err(|error| error.to_string())?;
            tokio::fs::write(&fresh, &body).await.map_err(|error| error.to_string())?;
        }
        tokio::fs::rename(&fresh, &path).await.map_err(|error| error.to_string())
    }

    async fn get(&self, expected: &mut Expected<'_>) -> Result<(), String> {
        let body = tokio::fs::read(self.path(expected.key).1).await.map_err(|error| error.to_string())?;
        expected.take(&body)
    }

    async fn settle(&self) -> Result<(), String> {
        Ok(())
    }

    async fn close(&self) {}
}

/// Reads of so many bytes anywhere in our data file, each task on a thread of its own, with nothing in between: what
/// the disk gives. What they read is not looked at.
struct Raw {
    file: File,
    len: u64,
}

impl Raw {
    fn open(folder: &Path, kind: Kind) -> Outcome<Self> {
        let mut options = OpenOptions::new();
        options.read(true);
        if kind == Kind::Direct {
            options.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
        }
        let path = folder.join("segments");
        let file = options.open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        // Neither is to read more than it is asked for.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).map_err(|error| error.to_string())?;
        let len = file.metadata().map_err(|error| error.to_string())?.len();
        Ok(Self { file, len })
    }
}

impl Subject for Raw {
    async fn put(&self, _key: u64, _body: Bytes) -> Result<(), String> {
        Err("the bare disk stores nothing".to_owned())
    }

    async fn get(&self, expected: &mut Expected<'_>) -> Result<(), String> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let size = (expected.size as u64).next_multiple_of(PAGE);
        let at = (expected.key * size) % (self.len - size).max(1) / PAGE * PAGE;
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize((size + PAGE) as usize, 0);
            let skip = buffer.as_ptr().align_offset(PAGE as usize);
            self.file.read_exact_at(&mut buffer[skip..skip + size as usize], at).map_err(|error| error.to_string())
        })?;
        expected.skip();
        Ok(())
    }

    async fn settle(&self) -> Result<(), String> {
        Ok(())
    }

    async fn close(&self) {}
}
