//! foyer's hybrid cache as one of the stores that `cargo bench --bench store` measures: its block engine on files of
//! the folder given, reads through the page cache, a memory part so small that reads come from the disk.

#[path = "../../store/subject.rs"]
mod subject;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, HybridCachePolicy, LruConfig,
};
use serde_json::json;
use subject::{Expected, Subject, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MEMORY: usize = 4 << 20;
/// foyer drops what is put while too much waits: more buffers than it has by default, and a wait long before they are full.
const BUFFERS: usize = 64 << 20;
const QUEUE: usize = 4 << 20;

struct Foyer {
    cache: HybridCache<u64, Bytes>,
    waiting: AtomicUsize,
    missing: AtomicUsize,
}

impl Subject for Foyer {
    async fn put(&self, key: u64, body: Bytes) -> Result<(), String> {
        let len = body.len() + 4096;
        self.cache.insert(key, body);
        if self.waiting.fetch_add(len, Ordering::Relaxed) + len >= QUEUE {
            self.settle().await?;
        }
        Ok(())
    }

    async fn get(&self, expected: &mut Expected<'_>) -> Result<(), String> {
        match self.cache.get(&expected.key).await.map_err(|error| error.to_string())? {
            Some(entry) => expected.take(entry.value()),
            // It is a cache: after a restart a few are not there.
            None => {
                if self.missing.fetch_add(1, Ordering::Relaxed) == 0 {
                    eprintln!("foyer: object {} is missing, and perhaps others", expected.key);
                }
                expected.skip();
                Ok(())
            }
        }
    }

    async fn settle(&self) -> Result<(), String> {
        self.waiting.store(0, Ordering::Relaxed);
        self.cache.storage().wait().await;
        Ok(())
    }

    async fn close(&self) {
        let _ = self.cache.close().await;
    }
}

async fn open(folder: &str, capacity: usize) -> Result<Foyer, foyer::Error> {
    let device = FsDeviceBuilder::new(folder).with_capacity(capacity).build()?;
    let cache = HybridCacheBuilder::new()
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(MEMORY)
        .with_eviction_config(LruConfig::default())
        .with_weighter(|_, body: &Bytes| body.len())
        .storage()
        .with_engine_config(
            BlockEngineConfig::new(device).with_buffer_pool_size(BUFFERS).with_submit_queue_size_threshold(BUFFERS),
        )
        .build()
        .await?;
    Ok(Foyer { cache, waiting: AtomicUsize::new(0), missing: AtomicUsize::new(0) })
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, capacity] = &arguments[..] else { return Err("usage: store-foyer FOLDER CAPACITY".to_owned()) };
    let capacity = capacity.parse().map_err(|error| format!("{capacity}: {error}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    let start = Instant::now();
    let foyer = runtime.block_on(open(folder, capacity)).map_err(|error| error.to_string())?;
    serve(&runtime, foyer, json!({ "open_seconds": start.elapsed().as_secs_f64() }))
}
