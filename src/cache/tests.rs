//! One battery for the storage, run over memory alone, over memory and disk, and over the disk alone.

mod fills;
mod lock;
mod proxy;
mod purge;

use super::*;
use bytes::Bytes;
use pingora::cache::storage::{HitHandler, MissHandler, PurgeOutcome, PurgeTarget, PurgeType};
use pingora::cache::trace::{Span, SpanHandle};
use pingora::cache::{CacheMeta, Storage};
use pingora::http::ResponseHeader;
use std::time::SystemTime;

const MIB: u64 = 1 << 20;

struct Bench {
    cache: &'static Cache,
    clock: Clock,
    metrics: &'static Metrics,
    _dir: tempfile::TempDir,
}

fn span() -> SpanHandle {
    Span::inactive().handle()
}

fn bench(memory_capacity: u64, disk: bool) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let (path, sync) = (dir.path().join("cache"), disk::SyncPolicy::Close);
    let admission = admission::Rule::All;
    let disk = disk.then_some(disk::Settings { path, capacity: 64 * MIB, segment_size: MIB, sync, admission });
    let (clock, metrics) = (Clock::adjustable(), Box::leak(Box::new(Metrics::new())));
    let settings = Settings { memory_capacity, disk, max_object: None, slice_size: 64 << 10, grace: 0 };
    let cache = Cache::open(&settings, clock.clone(), metrics).unwrap();
    Bench { cache, clock, metrics, _dir: dir }
}

fn key(path: &str) -> CacheKey {
    key::target("https", "example.com", 443, path.as_bytes())
}

fn variant(path: &str, variant: u8) -> CacheKey {
    let mut key = key(path);
    key.set_variance_key([variant; 16]);
    key
}

fn meta(length: Option<usize>) -> CacheMeta {
    let mut head = ResponseHeader::build(200, None).unwrap();
    head.append_header("etag", "\"a\"").unwrap();
    if let Some(length) = length {
        head.append_header("content-length", length.to_string()).unwrap();
    }
    let now = SystemTime::now();
    CacheMeta::new(now + Duration::from_secs(60), now, 0, 0, head)
}

/// Bytes that tell their offset.
fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect::<Vec<u8>>().into()
}

impl Bench {
    async fn begin(&self, key: &CacheKey, length: Option<usize>) -> (MissHandler, HitHandler) {
        let miss = self.cache.get_miss_handler(key, &meta(length), &span()).await.unwrap();
        let own = self.cache.lookup_streaming_write(key, miss.streaming_write_tag(), &span()).await;
        (miss, own.unwrap().unwrap().1)
    }

    async fn put(&self, key: &CacheKey, body: &Bytes) {
        let (mut miss, own) = self.begin(key, Some(body.len())).await;
        for chunk in body.chunks(50_000) {
            miss.write_body(body.slice_ref(chunk), false).await.unwrap();
        }
        miss.finish().await.unwrap();
        drop(own);
    }

    async fn find(&self, key: &CacheKey) -> Option<(CacheMeta, HitHandler)> {
        self.cache.lookup(key, &span()).await.unwrap()
    }

    async fn tier(&self, key: &CacheKey) -> Option<Tier> {
        self.find(key).await.map(|(_, hit)| tier_of(&hit))
    }

    /// Waits for the writes in the background.
    async fn landed(&self) {
        self.cache.writes.subscribe().wait_for(|count| *count == 0).await.unwrap();
    }
}

async fn read(hit: &mut HitHandler) -> pingora::Result<Bytes> {
    let mut all = Vec::new();
    while let Some(bytes) = hit.read_body().await? {
        assert!(!bytes.is_empty());
        all.extend_from_slice(&bytes);
    }
    Ok(all.into())
}

/// The tiers a property has to hold over.
fn every() -> [Bench; 3] {
    [bench(32 * MIB, false), bench(32 * MIB, true), bench(0, true)]
}

#[tokio::test]
async fn what_is_stored_is_found_whole_and_in_ranges() {
    for bench in every() {
        for size in [0, 1, 70_000, 3 << 20] {
            let (key, body) = (key(&format!("/{size}")), content(size));
            assert!(bench.find(&key).await.is_none());
            bench.put(&key, &body).await;
            bench.landed().await;
            let (found, mut hit) = bench.find(&key).await.unwrap();
            assert_eq!(found.headers().get("etag").unwrap(), "\"a\"");
            assert!(read(&mut hit).await.unwrap() == body, "{size}");
            assert!(hit.can_seek() && hit.can_seek_multipart());
            if size > 1 {
                for (start, end) in [(size - 1, None), (size / 2, Some(size)), (0, Some(size + 9)), (1, Some(1))] {
                    hit.seek(start, end).unwrap();
                    let expected = body.slice(start..end.unwrap_or(size).min(size));
                    assert!(read(&mut hit).await.unwrap() == expected, "{size}: {start} {end:?}");
                }
            }
            assert!(hit.seek(size, None).is_err());
        }
    }
}

#[tokio::test]
async fn several_readers_follow_one_fill() {
    for bench in every() {
        for size in [40_000, 3 << 20] {
            let (key, body) = (key(&format!("/{size}")), content(size));
            let (mut miss, mut own) = bench.begin(&key, Some(size)).await;
            let mut readers = Vec::new();
            for _ in 0..8 {
                let (_, mut hit) = bench.find(&key).await.unwrap();
                assert_eq!(tier_of(&hit), Tier::Fill);
                readers.push(tokio::spawn(async move { read(&mut hit).await }));
            }
            for (index, chunk) in body.chunks(30_000).enumerate() {
                miss.write_body(body.slice_ref(chunk), false).await.unwrap();
                if index == 0 {
                    let first = own.read_body().await.unwrap().unwrap();
                    assert!(body.starts_with(&first));
                    let (_, mut tail) = bench.find(&key).await.unwrap();
                    tail.seek(size - 10, None).unwrap();
                    readers.push(tokio::spawn(async move { read(&mut tail).await }));
                }
            }
            miss.finish().await.unwrap();
            let tail = readers.pop().unwrap().await.unwrap().unwrap();
            assert!(tail == body.slice(size - 10..));
            for reader in readers {
                assert!(reader.await.unwrap().unwrap() == body);
            }
            assert_eq!(bench.metrics.fills_in_flight.get(), 0);
            assert_eq!(bench.metrics.collapsed.get(), if size > 40_000 { 18 } else { 9 });
        }
    }
}

#[tokio::test]
async fn a_fill_that_breaks_off_gives_its_readers_an_error() {
    for bench in every() {
        for length in [Some(100_000), None] {
            let key = key("/broken");
            let (mut miss, mut own) = bench.begin(&key, length).await;
            let (_, mut other) = bench.find(&key).await.unwrap();
            miss.write_body(content(1000), false).await.unwrap();
            drop(miss);
            assert!(read(&mut own).await.is_err());
            assert!(read(&mut other).await.is_err());
            assert!(bench.find(&key).await.is_none());
            assert_eq!(bench.metrics.fills_in_flight.get(), 0);
        }
    }
}

#[tokio::test]
async fn content_of_another_length_than_declared_is_not_stored() {
    for bench in every() {
        let key = key("/lies");
        let (mut miss, mut own) = bench.begin(&key, Some(10)).await;
        miss.write_body(content(9), true).await.unwrap();
        assert!(miss.finish().await.is_err());
        assert!(read(&mut own).await.is_err());
        assert!(bench.find(&key).await.is_none());

        let (mut miss, mut own) = bench.begin(&key, Some(10)).await;
        miss.write_body(content(9), false).await.unwrap();
        assert!(miss.write_body(content(2), true).await.is_err());
        assert!(read(&mut own).await.is_err());
        assert!(miss.finish().await.is_err());
        assert!(bench.find(&key).await.is_none());
    }
}

#[tokio::test]
async fn a_length_learnt_at_the_end_makes_ranges_possible() {
    for bench in every() {
        for size in [5000, 5 << 20] {
            let (key, body) = (key(&format!("/{size}")), content(size));
            let (mut miss, own) = bench.begin(&key, None).await;
            assert!(!own.can_seek());
            let follower = tokio::spawn({
                let (_, mut hit) = bench.find(&key).await.unwrap();
                async move { read(&mut hit).await }
            });
            for chunk in body.chunks(60_000) {
                miss.write_body(body.slice_ref(chunk), false).await.unwrap();
                tokio::task::yield_now().await;
            }
            miss.finish().await.unwrap();
            bench.landed().await;
            assert!(follower.await.unwrap().unwrap() == body);
            if bench.cache.max_object() >= size as u64 {
                let (found, mut hit) = bench.find(&key).await.unwrap();
                assert_eq!(found.headers().get("content-length").unwrap(), &size.to_string());
                assert!(hit.can_seek() && read(&mut hit).await.unwrap() == body);
            } else {
                assert!(bench.find(&key).await.is_none());
            }
        }
    }
}

#[tokio::test]
async fn a_purge_takes_all_variants_and_nothing_else() {
    for bench in every() {
        let body = content(100);
        let keys = [key("/a"), variant("/a", 1), variant("/a", 2)];
        for key in keys.iter().chain([&key("/b")]) {
            bench.put(key, &body).await;
        }
        bench.landed().await;
        assert!(bench.cache.purge(&keys[1]).await.unwrap());
        for key in &keys {
            assert!(bench.find(key).await.is_none());
        }
        assert!(bench.find(&key("/b")).await.is_some());
        assert!(!bench.cache.purge(&keys[0]).await.unwrap());

        let compact = key("/b").to_compact();
        let purge = || bench.cache.purge_target(&compact);
        assert_eq!(purge().await, PurgeOutcome::Purged(None));
        assert_eq!(purge().await, PurgeOutcome::NotFound);
        bench.put(&keys[1], &body).await;
        assert!(bench.find(&keys[1]).await.is_some(), "storing again works");
        bench.cache.purge_all().await.unwrap();
        assert!(bench.find(&keys[1]).await.is_none());
    }
}

impl Cache {
    async fn purge_target(&'static self, key: &pingora::cache::key::CompactCacheKey) -> PurgeOutcome {
        Storage::purge(self, PurgeTarget::Active(key), PurgeType::Invalidation, &span()).await.unwrap()
    }
}

#[tokio::test]
async fn a_fill_that_a_purge_overtakes_is_finished_but_not_stored() {
    for bench in every() {
        for (size, all) in [(1000, false), (3 << 20, false), (1000, true)] {
            let (key, body) = (key(&format!("/{size}")), content(size));
            let (mut miss, mut own) = bench.begin(&key, Some(size)).await;
            miss.write_body(body.slice(..500), false).await.unwrap();
            if all {
                bench.cache.purge_all().await.unwrap();
            } else {
                bench.cache.purge(&key).await.unwrap();
            }
            assert!(bench.find(&key).await.is_none(), "no longer found");
            miss.write_body(body.slice(500..), false).await.unwrap();
            miss.finish().await.unwrap();
            bench.landed().await;
            assert!(read(&mut own).await.unwrap() == body);
            assert!(bench.find(&key).await.is_none(), "nor stored");
        }
    }
}

#[tokio::test]
async fn a_response_asked_for_before_a_purge_is_not_stored_after_it() {
    for bench in every() {
        let mut key = key("/a");
        bench.cache.stamp(&mut key);
        bench.cache.purge(&key).await.unwrap();
        let (mut miss, mut own) = bench.begin(&key, Some(3)).await;
        assert!(bench.find(&key).await.is_none());
        miss.write_body(content(3), true).await.unwrap();
        miss.finish().await.unwrap();
        assert!(read(&mut own).await.unwrap() == content(3));
        bench.landed().await;
        assert!(bench.find(&key).await.is_none());
        bench.cache.stamp(&mut key);
        bench.put(&key, &content(3)).await;
        assert!(bench.find(&key).await.is_some());
    }
}

#[tokio::test]
async fn the_memory_tier_keeps_to_its_bytes_and_drops_the_least_recently_used() {
    let bench = bench(8 * MIB, false);
    let body = content(100_000);
    for index in 0..200 {
        bench.put(&key(&format!("/{index}")), &body).await;
        assert!(bench.find(&key("/0")).await.is_some(), "always in use, {index}");
        bench.cache.memory.settle();
    }
    let held = bench.cache.memory.settle();
    assert!(held <= 8 * MIB && held > 7 * MIB, "{held}");
    assert!(bench.find(&key("/1")).await.is_none());
    assert!(bench.find(&key("/199")).await.is_some());
    let tier = bench.metrics.tier("memory");
    assert!((tier.bytes.get() - i64::try_from(held).unwrap()).abs() < 64 * 200, "{} {held}", tier.bytes.get());
    assert_eq!(u64::try_from(tier.objects.get()).unwrap() + tier.evictions.get(), 200);
}

#[tokio::test]
async fn an_object_moves_up_from_the_disk_unless_it_is_large() {
    let bench = bench(32 * MIB, true);
    for (size, second) in [(100, Tier::Memory), (3 << 20, Tier::Disk)] {
        let (key, body) = (key(&format!("/{size}")), content(size));
        bench.put(&key, &body).await;
        bench.landed().await;
        bench.cache.memory.clear();
        let (_, mut hit) = bench.find(&key).await.unwrap();
        assert_eq!(tier_of(&hit), Tier::Disk);
        assert!(read(&mut hit).await.unwrap() == body);
        assert_eq!(bench.tier(&key).await, Some(second));
    }
}

#[tokio::test]
async fn from_a_full_memory_tier_only_what_is_used_again_pushes_others_out() {
    let bench = bench(8 * MIB, true);
    let body = content(100_000);
    for index in 0..200 {
        bench.put(&key(&format!("/{index}")), &body).await;
    }
    bench.landed().await;
    bench.cache.memory.settle();
    let first = key("/0");
    for tier in [Tier::Disk, Tier::Disk, Tier::Memory] {
        let (_, mut hit) = bench.find(&first).await.unwrap();
        assert_eq!(tier_of(&hit), tier);
        assert!(read(&mut hit).await.unwrap() == body);
        bench.cache.memory.settle();
    }
}

#[tokio::test]
async fn a_fresh_fetch_is_preferred_over_a_stale_object() {
    // What is on the disk alone is not even looked at while there is a fetch to follow.
    for bench in [bench(32 * MIB, false), bench(32 * MIB, true)] {
        let key = key("/a");
        bench.put(&key, &content(10)).await;
        bench.landed().await;
        let (miss, _own) = bench.begin(&key, Some(10)).await;
        assert_eq!(bench.tier(&key).await, Some(Tier::Memory));
        bench.clock.advance(Duration::from_secs(100), true);
        assert_eq!(bench.tier(&key).await, Some(Tier::Fill));
        drop(miss);
        assert_eq!(bench.tier(&key).await, Some(Tier::Memory));
    }
}

#[tokio::test]
async fn a_validation_renews_the_head_in_every_tier() {
    for bench in every() {
        let (key, body) = (key("/a"), content(10));
        bench.put(&key, &body).await;
        bench.landed().await;
        let (old, _) = bench.find(&key).await.unwrap();
        let renewed = |created| {
            let mut head = old.response_header_copy();
            head.insert_header("x-new", "1").unwrap();
            CacheMeta::new(SystemTime::now() + Duration::from_secs(600), created, 0, 0, head)
        };
        let update = |meta: CacheMeta| async move { bench_update(bench.cache, "/a", &meta).await };
        assert!(!update(renewed(SystemTime::now() + Duration::from_secs(5))).await, "of another object");
        assert!(update(renewed(old.created())).await);
        for forget in [false, true] {
            if forget {
                bench.cache.memory.clear();
            }
            if bench.cache.disk.is_some() || !forget {
                let (meta, mut hit) = bench.find(&key).await.unwrap();
                assert_eq!(meta.headers().get("x-new").unwrap(), "1");
                assert!(read(&mut hit).await.unwrap() == body);
            }
        }
        bench.cache.purge(&key).await.unwrap();
        assert!(!bench_update(bench.cache, "/a", &renewed(old.created())).await);
    }
}

async fn bench_update(cache: &'static Cache, path: &str, meta: &CacheMeta) -> bool {
    cache.update_meta(&key(path), meta, &span()).await.unwrap()
}

#[tokio::test]
async fn two_targets_with_one_hash_are_told_apart() {
    for bench in every() {
        let (a, mut b) = (key("/a"), key("/b"));
        b.set_primary_bin_override(tier_hash(&a));
        bench.put(&a, &content(10)).await;
        bench.landed().await;
        assert!(bench.find(&b).await.is_none());
        bench.cache.memory.clear();
        assert!(bench.find(&b).await.is_none());
        let (_miss, _own) = bench.begin(&a, Some(10)).await;
        assert!(bench.find(&b).await.is_none());
    }
}

fn tier_hash(key: &CacheKey) -> disk::Hash128 {
    key::tier_key(key).primary
}

#[tokio::test]
async fn an_object_of_use_that_the_disk_lacks_is_written_to_it_on_eviction() {
    let bench = bench(8 * MIB, true);
    let [used, unused] = ["/used", "/unused"].map(|path| key::tier_key(&key(path)));
    for (path, tier_key) in [("/used", used), ("/unused", unused)] {
        let asked = bench.cache.shards.sequence();
        let head =
            entry::Head::new(&meta(Some(10)), key(path).primary_key(), true, bench.cache.shards.sequence()).unwrap();
        let mut body = entry::Body::default();
        body.push(content(10));
        let entry = Arc::new(memory::Entry::new(head, body, asked));
        bench.cache.shards.with(&tier_key.primary, |shard| bench.cache.insert(shard, tier_key, entry, asked));
    }
    assert_eq!(bench.tier(&key("/used")).await, Some(Tier::Memory));
    for index in 0..40 {
        bench.put(&key(&format!("/{index}")), &content(500_000)).await;
        bench.cache.memory.settle();
    }
    bench.landed().await;
    let disk = bench.cache.disk.as_ref().unwrap();
    assert!(disk.contains(&used) && !disk.contains(&unused));
    let (_, mut hit) = bench.find(&key("/used")).await.unwrap();
    assert!(tier_of(&hit) == Tier::Disk && read(&mut hit).await.unwrap() == content(10));
}

#[test]
fn many_variants_cost_no_more_than_those_in_memory() {
    let bench = bench(MIB, false);
    let asked = bench.cache.shards.sequence();
    let primary = tier_hash(&key("/a"));
    for index in 0..20_000u32 {
        let mut hash = [0; 16];
        hash[..4].copy_from_slice(&index.to_be_bytes());
        let tier_key = disk::Key { primary, variant: Some(hash) };
        let head =
            entry::Head::new(&meta(Some(0)), key("/a").primary_key(), false, bench.cache.shards.sequence()).unwrap();
        let entry = Arc::new(memory::Entry::new(head, entry::Body::default(), asked));
        bench.cache.shards.with(&primary, |shard| bench.cache.insert(shard, tier_key, entry, asked));
    }
    bench.cache.memory.settle();
    let noted = bench.cache.shards.with(&primary, |shard| shard.noted_variants(&primary));
    assert!(noted < 8000, "{noted}");
}

#[tokio::test]
async fn a_large_object_takes_the_place_of_a_small_one_and_the_other_way_round() {
    let bench = bench(32 * MIB, true);
    let key = key("/a");
    for size in [10, 3 << 20, 20, 2 << 20] {
        let body = content(size);
        bench.put(&key, &body).await;
        bench.landed().await;
        for _ in 0..2 {
            let (_, mut hit) = bench.find(&key).await.unwrap();
            assert!(read(&mut hit).await.unwrap() == body, "{size}");
            bench.cache.memory.clear();
        }
    }
}
