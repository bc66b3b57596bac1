//! The disk tier without its threads: what the writer thread does is done after each write, so that tests see one order
//! of things.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::tests::settings;
use super::*;

pub(in crate::cache) struct Stepped {
    pub tier: Arc<DiskTier>,
}

impl Stepped {
    /// A tier of so many segments of 1 MiB.
    pub fn open(path: &Path, segments: u64, rule: Rule) -> Self {
        Self::open_with(Settings { admission: rule, ..settings(path, segments) })
    }

    pub fn open_with(settings: Settings) -> Self {
        let opened = recovery::open(&settings, &io::Volume::new(&settings.path)).unwrap();
        let admission = Admission::new(settings.admission);
        let store = Arc::new(Store::new(opened.found, admission, crate::metrics::Metrics::new().tier("disk")));
        Self { tier: Arc::new(DiskTier { store, threads: Mutex::default(), _lock: opened.lock }) }
    }

    pub fn seed(&self) -> u64 {
        self.tier.store.geometry.seed
    }

    /// Whether it is stored; all of it is read.
    pub async fn read(&self, key: &Key) -> bool {
        let Some(object) = self.tier.get(key).await else { return false };
        let mut at = 0;
        while at < object.len() {
            at += object.read(at, 1 << 20).await.unwrap().len() as u64;
        }
        true
    }

    /// Whether it was admitted.
    pub async fn write(&self, key: Key, meta: &[u8], body: Bytes) -> bool {
        let Some(mut writer) = self.tier.writer(key) else { return false };
        writer.append(body).await.unwrap();
        writer.commit(meta, &self.tier.mark()).await.unwrap();
        self.step();
        true
    }

    /// Writes and evicts what is due.
    pub fn step(&self) {
        flush::flush_all(&self.tier.store).unwrap();
        self.tier.store.make_room().unwrap();
        self.tier.store.publish();
    }
}
