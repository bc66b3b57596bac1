//! The tier as its users see it. What a crash or a damaged disk does to it is in `crash` and `model`.

mod crash;
mod faults;
mod model;
mod restart;
mod room;
mod send;

use std::path::Path;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;

use super::io::faults::{Machine, Plan};
use super::stepped::Stepped;
use super::*;
use crate::metrics::Metrics;

const MIB: u64 = 1 << 20;

pub(super) fn settings(path: &Path, segments: u64) -> Settings {
    let (path, sync, admission) = (path.to_owned(), SyncPolicy::Close, Rule::All);
    Settings { path, capacity: segments * MIB, segment_size: MIB, sync, admission }
}

pub(super) fn open(dir: &TempDir, segments: u64) -> Arc<DiskTier> {
    DiskTier::open(&settings(dir.path(), segments), Metrics::new().tier("disk")).unwrap()
}

pub(super) fn key(n: u64) -> Key {
    let mut primary = [0x5a; 16];
    primary[..8].copy_from_slice(&n.to_le_bytes());
    Key { primary, variant: None }
}

/// Bytes that tell their place and whose they are.
pub(super) fn body(seed: u64, len: usize) -> Bytes {
    let words = (0..len as u64).step_by(8).map(|at| (seed << 40 ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut out: BytesMut = words.flat_map(u64::to_le_bytes).collect();
    out.truncate(len);
    out.freeze()
}

impl DiskTier {
    /// Of something that is asked for now and has no scopes.
    pub(super) fn mark(&self) -> Mark {
        Mark { epoch: self.epochs().sequence(), scopes: Arc::default() }
    }
}

/// Stores an object, however long that takes: on a machine with much to do the disk may not keep up for a while.
pub(super) async fn put(tier: &Arc<DiskTier>, key: Key, meta: &[u8], body: &Bytes) {
    loop {
        match try_put(tier, key, meta, body).await {
            Err(WriteError::Busy) => {}
            done => return done.unwrap(),
        }
    }
}

async fn try_put(tier: &Arc<DiskTier>, key: Key, meta: &[u8], body: &Bytes) -> Result<(), WriteError> {
    let mut writer = tier.writer(key).ok_or(WriteError::Busy)?;
    for part in body.chunks(50_000) {
        writer.append(body.slice_ref(part)).await?;
    }
    assert_eq!(writer.written(), body.len() as u64);
    writer.commit(meta, &tier.mark()).await
}

pub(super) async fn read_all(object: &Object, max: usize) -> Result<Bytes, ReadError> {
    let mut out = BytesMut::new();
    while (out.len() as u64) < object.len() {
        let part = object.read(out.len() as u64, max).await?;
        assert!(!part.is_empty() && part.len() <= max);
        out.extend_from_slice(&part);
    }
    assert!(object.read(object.len(), max).await?.is_empty());
    Ok(out.freeze())
}

pub(super) async fn assert_holds(tier: &DiskTier, key: Key, meta: &[u8], body: &Bytes) {
    let object = tier.get(&key).await.expect("the object is stored");
    assert_eq!(object.meta(), meta);
    assert_eq!(object.len(), body.len() as u64);
    assert!(read_all(&object, 100_000).await.unwrap() == body, "another body");
}

#[tokio::test]
async fn what_is_stored_is_read_back_before_and_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let sizes = [0, 1, 100, 65_535, 65_536, 65_537, 200_000, 1 << 20, 3_000_000, 10 << 20];
    let tier = open(&dir, 48);
    for (n, size) in sizes.into_iter().enumerate() {
        put(&tier, key(n as u64), format!("meta {n}").as_bytes(), &body(n as u64, size)).await;
        assert_holds(&tier, key(n as u64), format!("meta {n}").as_bytes(), &body(n as u64, size)).await;
    }
    tier.close().await;
    drop(tier);
    let tier = open(&dir, 48);
    assert_eq!(tier.stats().objects, sizes.len() as u64);
    for (n, size) in sizes.into_iter().enumerate() {
        assert_holds(&tier, key(n as u64), format!("meta {n}").as_bytes(), &body(n as u64, size)).await;
    }
    assert!(tier.get(&key(99)).await.is_none());
}

#[tokio::test]
async fn a_large_object_in_default_segments_is_read_at_any_offset() {
    let dir = TempDir::new().unwrap();
    let size = Settings::DEFAULT_SEGMENT_SIZE;
    let settings =
        Settings { path: dir.path().to_owned(), capacity: 5 * size, segment_size: size, ..settings(dir.path(), 5) };
    let tier = DiskTier::open(&settings, Metrics::new().tier("disk")).unwrap();
    let whole = body(1, (10 << 20) + 12_345);
    put(&tier, key(1), b"m", &whole).await;
    let object = tier.get(&key(1)).await.unwrap();
    for offset in [0usize, 1, 65_535, 65_536, 1_048_575, 1_048_576, 5_000_001, whole.len() - 1] {
        for max in [1, 1000, 65_536, 1 << 20] {
            let part = object.read(offset as u64, max).await.unwrap();
            assert!(!part.is_empty() && part.len() <= max);
            assert!(part == whole[offset..offset + part.len()], "{offset} {max}");
        }
    }
    assert!(read_all(&object, 16_384).await.unwrap() == whole);
}

#[tokio::test]
async fn variants_are_apart_and_purged_together() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    let variant = |n: u8| Key { variant: Some([n; 16]), ..key(1) };
    for n in 0..5 {
        put(&tier, variant(n), &[n], &body(n.into(), 1000)).await;
    }
    put(&tier, key(1), b"none", &body(77, 1000)).await;
    put(&tier, key(2), b"other", &body(88, 1000)).await;
    for n in 0..5 {
        assert_holds(&tier, variant(n), &[n], &body(n.into(), 1000)).await;
    }
    assert!(tier.purge(&key(1).primary).await.unwrap());
    assert!(!tier.purge(&key(1).primary).await.unwrap());
    for n in 0..5 {
        assert!(tier.get(&variant(n)).await.is_none());
    }
    assert!(tier.get(&key(1)).await.is_none());
    assert_holds(&tier, key(2), b"other", &body(88, 1000)).await;
    assert_eq!(tier.stats().objects, 1);
}

#[tokio::test]
async fn a_later_write_replaces_an_earlier_one() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 16);
    for n in 0..10 {
        put(&tier, key(1), &[n], &body(n.into(), 300_000)).await;
    }
    assert_holds(&tier, key(1), &[9], &body(9, 300_000)).await;
    drop(tier);
    let tier = open(&dir, 16);
    assert_holds(&tier, key(1), &[9], &body(9, 300_000)).await;
    assert_eq!(tier.stats().objects, 1);
}

#[tokio::test]
async fn metadata_changes_and_the_body_stays() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 16);
    for size in [0, 10, 500_000] {
        put(&tier, key(1), b"old", &body(1, size)).await;
        assert!(tier.update_meta(&key(1), b"newer and longer", &tier.mark()).await);
        assert_holds(&tier, key(1), b"newer and longer", &body(1, size)).await;
    }
    assert!(!tier.update_meta(&key(2), b"x", &tier.mark()).await);
    tier.purge(&key(1).primary).await.unwrap();
    assert!(!tier.update_meta(&key(1), b"x", &tier.mark()).await);
    drop(tier);
    assert!(open(&dir, 16).get(&key(1)).await.is_none());
}

#[tokio::test]
async fn an_aborted_write_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 16);
    let mut writer = tier.writer(key(1)).unwrap();
    let reader = writer.reader();
    writer.append(body(1, 500_000)).await.unwrap();
    assert!(!tier.contains(&key(1)));
    assert!(!reader.read(0, 10).await.unwrap().is_empty());
    drop(writer);
    assert_eq!(reader.read(0, 10).await, Err(ReadError::Aborted));
    assert!(tier.get(&key(1)).await.is_none());
    assert_eq!(tier.stats().bytes, 0);
}

#[tokio::test]
async fn readers_follow_a_writer() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 16);
    let whole = body(3, 1_000_000);
    let mut writer = tier.writer(key(1)).unwrap();
    let reader = writer.reader();
    for part in whole.chunks(33_333) {
        writer.append(whole.slice_ref(part)).await.unwrap();
        let written = writer.written();
        let mut at = written.saturating_sub(200_000);
        while at < written {
            let part = reader.read(at, 70_000).await.unwrap();
            assert!(!part.is_empty() && part == whole[at as usize..at as usize + part.len()]);
            at += part.len() as u64;
        }
        assert!(reader.read(written, 1).await.unwrap().is_empty());
    }
    writer.commit(b"m", &tier.mark()).await.unwrap();
    assert!(whole.starts_with(&reader.read(0, 10).await.unwrap()));
    let end = reader.read(999_990, 100).await.unwrap();
    assert!(whole.ends_with(&end) && end.len() == 10);
}

#[tokio::test]
async fn a_write_begun_before_a_purge_never_becomes_visible() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 16);
    for all in [false, true] {
        let mut writer = tier.writer(key(1)).unwrap();
        writer.append(body(1, 100_000)).await.unwrap();
        if all {
            tier.purge_all().await.unwrap();
        } else {
            assert!(tier.purge(&key(1).primary).await.unwrap());
        }
        assert_eq!(writer.append(body(1, 10)).await, Err(WriteError::Purged));
        assert_eq!(writer.commit(b"m", &tier.mark()).await, Err(WriteError::Purged));
        assert!(tier.get(&key(1)).await.is_none());
    }
    put(&tier, key(1), b"after", &body(2, 10)).await;
    drop(tier);
    assert_holds(&open(&dir, 16), key(1), b"after", &body(2, 10)).await;
}

#[tokio::test]
async fn a_purge_in_the_middle_of_a_commit_wins() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    let mut writer = tier.writer(key(1)).unwrap();
    writer.append(body(1, 1000)).await.unwrap();
    let queue = &tier.store.queue;
    let all = queue.acquire_many(queue.available_permits() as u32).await.unwrap();
    // The commit is polled first and waits for room in the queue.
    let mark = tier.mark();
    let (committed, ()) = tokio::join!(biased; writer.commit(b"m", &mark), async {
        assert!(tier.purge(&key(1).primary).await.unwrap());
        drop(all);
    });
    assert_eq!(committed, Err(WriteError::Purged));
    assert!(tier.get(&key(1)).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn purges_race_with_writers_and_win() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 8);
    // Each write bears a number; a purge returns after the counter was read, so no older number may be served then.
    let begun = std::sync::atomic::AtomicU64::new(0);
    let write = async {
        for n in 1..=600u64 {
            begun.store(n, std::sync::atomic::Ordering::SeqCst);
            let mut writer = tier.writer(key(1)).unwrap();
            writer.append(body(n, 2000)).await.unwrap_or_default();
            let _ = writer.commit(&n.to_le_bytes(), &tier.mark()).await;
            tokio::task::yield_now().await;
        }
    };
    let purge = async {
        let mut purged = 0;
        while purged < 600 {
            let before = begun.load(std::sync::atomic::Ordering::SeqCst);
            tier.purge(&key(1).primary).await.unwrap();
            if let Some(object) = tier.get(&key(1)).await {
                let n = u64::from_le_bytes(object.meta()[..].try_into().unwrap());
                assert!(n >= before, "{n} served after the purge at {before}");
                assert!(read_all(&object, 4096).await.unwrap() == body(n, 2000));
            }
            purged = before;
        }
    };
    tokio::join!(write, purge);
}

#[tokio::test]
async fn eviction_holds_the_capacity_and_keeps_what_was_hit() {
    let dir = TempDir::new().unwrap();
    let metrics = Metrics::new();
    let tier = DiskTier::open(&settings(dir.path(), 8), metrics.tier("disk")).unwrap();
    // A popular object in one record and one in several chunks.
    put(&tier, key(1), b"hot", &body(1, 20_000)).await;
    put(&tier, key(2), b"hot and large", &body(2, 200_000)).await;
    for n in 100..1_000 {
        put(&tier, key(n), b"cold", &body(n, 40_000)).await;
        if n % 10 == 0 {
            assert_holds(&tier, key(1), b"hot", &body(1, 20_000)).await;
            assert_holds(&tier, key(2), b"hot and large", &body(2, 200_000)).await;
        }
    }
    let stats = tier.stats();
    assert!(stats.bytes <= stats.capacity && stats.objects > 80, "{stats:?}");
    assert!(metrics.tier("disk").evictions.get() > 500);
    assert!(tier.get(&key(100)).await.is_none());
    assert_holds(&tier, key(999), b"cold", &body(999, 40_000)).await;
    tier.close().await;
    assert!(std::fs::metadata(dir.path().join("segments")).unwrap().len() <= 8 * MIB);
    let kept: Vec<u64> = (100..1_000).filter(|n| tier.contains(&key(*n))).collect();
    drop(tier);
    let tier = open(&dir, 8);
    assert_holds(&tier, key(1), b"hot", &body(1, 20_000)).await;
    assert_holds(&tier, key(2), b"hot and large", &body(2, 200_000)).await;
    for n in kept.into_iter().rev().take(60) {
        assert_holds(&tier, key(n), b"cold", &body(n, 40_000)).await;
    }
}

#[tokio::test]
async fn what_is_evicted_replaced_or_purged_while_it_is_read_is_read_to_its_end() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 8);
    let whole = body(1, 300_000);
    put(&tier, key(1), b"m", &whole).await;
    let object = tier.get(&key(1)).await.unwrap();
    let fresh = tier.get(&key(1)).await.unwrap();
    object.read(0, 1000).await.unwrap();
    tier.purge(&key(1).primary).await.unwrap();
    for n in 2..200 {
        put(&tier, key(n), b"m", &body(n, 100_000)).await;
    }
    assert!(read_all(&fresh, 10_000).await.unwrap() == whole);
    assert!(object.read(100_000, 1000).await.unwrap() == whole[100_000..101_000]);
    // Their segments are of use again once they are done.
    let held = || tier.store.appender.lock().held.len();
    assert!(held() > 0);
    drop((object, fresh));
    for n in 200..300 {
        put(&tier, key(n), b"m", &body(n, 100_000)).await;
    }
    assert_eq!(held(), 0);
}

#[tokio::test]
async fn a_quarter_of_the_segments_at_most_waits_for_readers() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 8);
    let mut objects = Vec::new();
    // Each holds a segment of its own, until so many are held that nothing is evicted any more.
    for n in 0..60 {
        if try_put(&tier, key(n), b"m", &body(n, 700_000)).await.is_err() {
            break;
        }
        objects.push((n, tier.get(&key(n)).await.unwrap()));
    }
    assert!((5..12).contains(&objects.len()), "{}", objects.len());
    assert_eq!(tier.store.appender.lock().held.len(), 2);
    for (n, object) in &objects {
        assert!(read_all(object, 1 << 20).await.unwrap() == body(*n, 700_000), "{n}");
    }
    drop(objects);
    put(&tier, key(99), b"m", &body(99, 700_000)).await;
    assert_holds(&tier, key(99), b"m", &body(99, 700_000)).await;
}

#[tokio::test]
async fn what_an_object_has_replaced_does_not_come_back_with_a_segment_that_was_held() {
    let dir = TempDir::new().unwrap();
    let tier = Stepped::open(dir.path(), 8, Rule::All);
    tier.write(key(1), b"old", body(1, 300_000)).await;
    let reader = tier.tier.get(&key(1)).await.unwrap();
    tier.write(key(1), b"new", body(2, 1000)).await;
    // The new one is evicted and written over, the old one is held.
    for n in 100..400 {
        tier.write(key(n), b"m", body(n, 60_000)).await;
    }
    assert!(read_all(&reader, 1 << 20).await.unwrap() == body(1, 300_000));
    assert!(tier.tier.get(&key(1)).await.is_none());
    tier.tier.unlock();
    let again = open(&dir, 8);
    assert!(again.get(&key(1)).await.is_none(), "the old one is back");
    assert!(again.stats().objects > 50);
}

#[tokio::test]
async fn what_was_replaced_by_something_that_is_not_stored_stays_away() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 8);
    let variant = Key { variant: Some([7; 16]), ..key(1) };
    for key in [key(1), key(2), key(3), variant] {
        put(&tier, key, b"old", &body(1, 1000)).await;
    }
    // One that cannot be stored, one that is not begun, and one that is stored later.
    let writer = tier.writer(key(1)).unwrap();
    assert_eq!(writer.commit(&vec![0; 300_000], &tier.mark()).await, Err(WriteError::TooLarge));
    tier.outdate(&key(2));
    tier.outdate(&key(3));
    put(&tier, key(3), b"new", &body(3, 500)).await;
    drop(tier);
    // Twice: the first start may have left something for the second.
    for _ in 0..2 {
        let tier = open(&dir, 8);
        assert!(tier.get(&key(1)).await.is_none() && tier.get(&key(2)).await.is_none(), "the old one is back");
        assert_holds(&tier, key(3), b"new", &body(3, 500)).await;
        assert_holds(&tier, variant, b"old", &body(1, 1000)).await;
        assert_eq!(tier.stats().objects, 2);
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    put(&tier, key(1), b"old", &body(1, 10)).await;
    let writer = tier.writer(key(1)).unwrap();
    assert_eq!(writer.commit(&vec![0; 300_000], &tier.mark()).await, Err(WriteError::TooLarge));
    assert!(!tier.contains(&key(1)), "the one it was to replace is out of date");
    let mut writer = tier.writer(key(1)).unwrap();
    let mut outcome = Ok(());
    for _ in 0..30 {
        outcome = outcome.and(writer.append(body(1, 100_000)).await);
    }
    assert_eq!(outcome, Err(WriteError::TooLarge));
    drop(writer);
    tier.close().await;
    assert!(tier.writer(key(1)).is_none());
    assert_eq!(tier.purge(&key(1).primary).await, Err(PurgeError::Closed));
}

#[tokio::test]
async fn a_disk_that_fails_takes_the_tier_out_of_service_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let metrics = Metrics::new();
    let tier = DiskTier::open(&settings(dir.path(), 4), metrics.tier("disk")).unwrap();
    put(&tier, key(1), b"kept", &body(1, 1000)).await;
    tier.close().await;
    drop(tier);
    let machine = Machine::new(Plan { write_fails: 1000, ..Plan::default() });
    let settings = settings(dir.path(), 4);
    let tier = DiskTier::open_on(&io::Volume::on(&machine, dir.path()), &settings, metrics.tier("disk")).unwrap();
    let mut writer = tier.writer(key(2)).unwrap();
    writer.append(body(2, 1000)).await.unwrap();
    writer.commit(b"lost", &tier.mark()).await.unwrap();
    let failed = async {
        while metrics.tier("disk").error("write").get() == 0 || tier.contains(&key(2)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), failed).await.unwrap();
    assert!(tier.writer(key(3)).is_none());
    assert!(tier.get(&key(2)).await.is_none());
    assert_holds(&tier, key(1), b"kept", &body(1, 1000)).await;
}

#[test]
fn checksums_of_blocks_are_those_of_the_format_whatever_computes_them() {
    let bytes = body(9, 70_000);
    for len in [0, 1, 3, 8, 16, 17, 128, 129, 240, 241, 1000, 1024, 1025, 4096, 65_535, 65_536] {
        for seed in [0, 1, 0x9e37_79b9_7f4a_7c15] {
            let other = xxhash_rust::xxh3::xxh3_64_with_seed(&bytes[..len], seed);
            assert_eq!(format::block_sum(&bytes[..len], seed), other, "{len} bytes, seed {seed}");
        }
    }
}
