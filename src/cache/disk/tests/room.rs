//! Admission, and what eviction keeps to: the capacity, the pace of writes, the memory for each object.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::cache::disk::stepped::Stepped;

const SEGMENTS: u64 = 32;
/// Bytes that superblock and purge log take beside the segments.
const LOG: u64 = 300 << 10;

/// Bytes that the directory takes on the file system.
fn on_disk(dir: &TempDir) -> u64 {
    std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// Tiny, middling and large, in no order.
fn mixed(n: u64) -> usize {
    match n * 2_654_435_761 % 8 {
        0..4 => (n * 7919 % 900) as usize,
        4..7 => (2_000 + n * 104_729 % 60_000) as usize,
        _ => (100_000 + n * 7919 % 400_000) as usize,
    }
}

#[tokio::test]
async fn the_capacity_is_used_and_never_exceeded_whatever_the_sizes() {
    let dir = TempDir::new().unwrap();
    let tier = Stepped::open(dir.path(), SEGMENTS, Rule::All);
    let capacity = SEGMENTS * MIB;
    let (mut full, mut least) = (0, u64::MAX);
    for n in 0..1500 {
        tier.write(key(n), b"m", body(n, mixed(n))).await;
        if n % 3 == 0 {
            // Some are hit, so that segments get gaps where others were.
            tier.read(&key(n / 2)).await;
        }
        if n % 11 == 0 {
            // Some are replaced: what was stored before is dead space until its segment goes.
            tier.write(key(n / 3), b"m", body(n, mixed(n + 1))).await;
        }
        assert!(on_disk(&dir) <= capacity + LOG, "{} of {capacity}", on_disk(&dir));
        if tier.tier.store.appender.lock().free.len() <= tier.tier.store.free_target() {
            full += 1;
            let appender = tier.tier.store.appender.lock();
            assert!(appender.free.len() >= tier.tier.store.free_target(), "nothing is kept in reserve");
            // All but the reserve is written to.
            least = least.min(appender.sealed.len() as u64 + u64::from(appender.open.is_some()));
        }
    }
    assert!(full > 500 && least >= SEGMENTS - 2, "{full} {least}");
}

/// Large segments are filled to the last per cent with live records, what they take in the footer included. Those not
/// counted: the reserve of two, and the open one.
#[tokio::test]
async fn live_records_fill_the_disk_whatever_their_sizes() {
    let small = |n: u64| 200 + n as usize * 7919 % 1800;
    let large = |n: u64| 1_000_000 + n as usize * 104_729 % 2_000_000;
    let slices = |_: u64| 1 << 20;
    let middling = |n: u64| 100_000 + n as usize * 7919 % 400_000;
    let sizes: [(&str, &dyn Fn(u64) -> usize); 5] =
        [("mixed", &mixed), ("small", &small), ("large", &large), ("slices", &slices), ("middling", &middling)];
    for (name, size) in sizes {
        let dir = TempDir::new().unwrap();
        let (segment, segments) = (Settings::DEFAULT_SEGMENT_SIZE, 6);
        let tier = Stepped::open_with(Settings {
            capacity: segments * segment,
            segment_size: segment,
            ..settings(dir.path(), 6)
        });
        let store = &tier.tier.store;
        let mut least = f64::MAX;
        for n in 0.. {
            tier.write(key(n), &[7; 400], body(n, size(n))).await;
            assert!(data(&dir) <= segments * segment, "{name}: above the capacity");
            let (sealed, open) = {
                let appender = store.appender.lock();
                (appender.sealed.len() as u64, appender.open.as_ref().map_or(0, |open| u64::from(open.position)))
            };
            if store.metrics.evictions.get() > 20 {
                break;
            }
            // Later an object may be cut whose beginning was evicted: one, whatever the capacity.
            if sealed > 1 && store.metrics.evictions.get() == 0 {
                let entries = store.index.totals().0 * 24;
                let live = tier.tier.stats().bytes - open + entries;
                least = least.min(live as f64 / (sealed * segment) as f64);
            }
        }
        assert!(least >= 0.99, "{name}: {:.1} % used", least * 100.0);
        println!("{name}: {:.2} % used", least * 100.0);
    }
}

/// Bytes that the segments take on the file system.
fn data(dir: &TempDir) -> u64 {
    std::fs::metadata(dir.path().join("segments")).unwrap().blocks() * 512
}

#[tokio::test]
async fn writes_go_on_where_everything_is_hit() {
    let dir = TempDir::new().unwrap();
    let metrics = Metrics::new();
    let tier = DiskTier::open(&settings(dir.path(), 8), metrics.tier("disk")).unwrap();
    for n in 0..600 {
        // Fails if it finds no room for a second.
        put(&tier, key(n), b"m", &body(n, 40_000)).await;
        for earlier in n.saturating_sub(300)..=n {
            tier.count_hit(&key(earlier));
        }
    }
    assert!(tier.stats().bytes <= 8 * MIB && metrics.tier("disk").evictions.get() > 300);
    assert_holds(&tier, key(599), b"m", &body(599, 40_000)).await;
}

#[tokio::test]
async fn an_object_that_was_hit_once_goes_in_the_end() {
    let dir = TempDir::new().unwrap();
    let tier = Stepped::open(dir.path(), 8, Rule::All);
    tier.write(key(1), b"m", body(1, 10_000)).await;
    for _ in 0..10 {
        assert!(tier.read(&key(1)).await);
    }
    let mut turns = 0;
    for n in 100..2_000 {
        tier.write(key(n), b"m", body(n, 40_000)).await;
        turns = if tier.tier.contains(&key(1)) { n } else { turns };
    }
    // Through the segments once more, and out.
    assert!((250..600).contains(&turns), "{turns}");
}

#[test]
fn what_survives_is_hit_most_and_leaves_a_quarter() {
    assert_eq!(survivors(&[(1, 100), (0, 10), (3, 400), (2, 300), (1, 50)], 1000), [false, false, true, true, true]);
    assert_eq!(survivors(&[(1, 200); 5], 1000), [true, true, true, false, false]);
    assert_eq!(survivors(&[], 1000), [false; 0]);
}

/// Fills the segments, so that admission begins.
async fn full(tier: &Stepped) {
    for n in 1_000_000..1_000_300 {
        tier.write(key(n), b"m", body(n, 30_000)).await;
    }
}

#[tokio::test]
async fn a_full_disk_takes_what_is_fetched_twice_or_replaces_something() {
    let dir = TempDir::new().unwrap();
    let tier = Stepped::open(dir.path(), 8, Rule::SecondUse);
    full(&tier).await;
    assert!(!tier.write(key(1), b"m", body(1, 1000)).await);
    assert!(tier.write(key(1), b"m", body(1, 1000)).await);
    assert!(tier.tier.contains(&key(1)));
    // One that was stored while there was room is replaced at once.
    let stored = (1_000_000..1_000_300).rev().find(|n| tier.tier.contains(&key(*n))).unwrap();
    assert!(tier.write(key(stored), b"newer", body(3, 1000)).await);
    assert_holds(&tier.tier, key(stored), b"newer", &body(3, 1000)).await;
    // After a purge of everything there is room again.
    tier.tier.store.index.clear(|| ());
    tier.step();
    assert!(tier.write(key(77), b"m", body(1, 1000)).await);
}

#[tokio::test]
async fn what_comes_from_memory_takes_the_place_of_nothing_newer() {
    let dir = TempDir::new().unwrap();
    let tier = Stepped::open(dir.path(), 8, Rule::SecondUse);
    full(&tier).await;
    let demotion = || async {
        let mut writer = tier.tier.demotion(key(1)).unwrap();
        writer.append(body(1, 1000)).await.map(|()| writer)
    };
    let commit = |writer: Writer| async { writer.commit(b"old", &tier.tier.mark()).await };
    // A fetch begins that is not admitted.
    let writer = demotion().await.unwrap();
    assert!(tier.tier.writer(key(1)).is_none());
    assert_eq!(commit(writer).await, Err(WriteError::Purged));
    // One begins that is.
    let writer = demotion().await.unwrap();
    let fetch = tier.tier.writer(key(1)).unwrap();
    assert_eq!(commit(writer).await, Err(WriteError::Purged));
    drop(fetch);
    // One has ended.
    let mut fetch = tier.tier.writer(key(1)).unwrap();
    let writer = demotion().await.unwrap();
    fetch.append(body(2, 10)).await.unwrap();
    fetch.commit(b"new", &tier.tier.mark()).await.unwrap();
    assert_eq!(commit(writer).await, Err(WriteError::Superseded));
    assert_holds(&tier.tier, key(1), b"new", &body(2, 10)).await;
    // None does.
    tier.tier.outdate(&key(1));
    commit(demotion().await.unwrap()).await.unwrap();
    assert_holds(&tier.tier, key(1), b"old", &body(1, 1000)).await;
}

#[test]
fn index_and_admission_take_64_bytes_an_object_at_most() {
    let (index, admission) = (index::Index::default(), Admission::new(Rule::SecondUse));
    for n in 0..200_000u64 {
        let id = head_id(&key(n), 1);
        index.shard(id.a).insert(id, index::Location::new(format::Kind::Head, 1, 64, 64));
        admission.observe(n, 1, 1);
        // As many pass by that are not stored.
        for other in 0..5 {
            admission.admits((n * 5 + other, id.b), false);
        }
        if n >= 10_000 && n % 1000 == 0 {
            let ram = index.ram() + admission.ram();
            assert!(ram <= 64 * n, "{} bytes for each of {n}", ram / n);
        }
    }
}
