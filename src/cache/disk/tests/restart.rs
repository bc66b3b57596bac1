//! Serving while recovery goes on. A store of more segments than are entered at once is opened without the thread that
//! enters the others; each test does that thread's work when its time has come.

use super::*;

const SEGMENTS: u64 = 80;
/// Each fills a segment.
const LARGE: usize = 900_000;
const COUNT: u64 = 45;

/// Objects 1000 to 1009 in the oldest segment, then one in each, and in the newest 1000 and 1009 anew.
async fn filled() -> TempDir {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, SEGMENTS);
    for n in 1000..1010 {
        put(&tier, key(n), b"old", &body(n, 1000)).await;
    }
    for n in 0..COUNT {
        put(&tier, key(n), b"m", &body(n, LARGE)).await;
    }
    for n in [1000, 1009] {
        put(&tier, key(n), b"new", &body(n + 1, 1000)).await;
    }
    tier.close().await;
    dir
}

/// The tier as it is right after it was opened.
fn just_opened(dir: &TempDir, metrics: &Metrics, segments: u64) -> Arc<DiskTier> {
    let opened = recovery::open(&settings(dir.path(), segments), &io::Volume::new(dir.path())).unwrap();
    let store = Arc::new(Store::new(opened.found, Admission::new(Rule::All), metrics.tier("disk")));
    let (writes, purges) = (Arc::clone(&store), Arc::clone(&store));
    let (log, requests) = (opened.log, opened.requests);
    let threads = vec![
        std::thread::spawn(move || flush::run(&writes)),
        std::thread::spawn(move || purge_log::run(&purges, log, &requests)),
    ];
    assert!(store.index.is_recovering());
    Arc::new(DiskTier { store, threads: Mutex::new(threads), _lock: opened.lock })
}

fn errors(metrics: &Metrics) -> u64 {
    ["checksum", "read", "write"].into_iter().map(|kind| metrics.tier("disk").error(kind).get()).sum()
}

#[tokio::test]
async fn what_was_written_last_is_there_first_and_the_rest_later() {
    let (dir, metrics) = (filled().await, Metrics::new());
    let tier = just_opened(&dir, &metrics, SEGMENTS);
    assert_holds(&tier, key(1000), b"new", &body(1001, 1000)).await;
    assert_holds(&tier, key(COUNT - 1), b"m", &body(COUNT - 1, LARGE)).await;
    assert!(tier.get(&key(1005)).await.is_none() && tier.contains(&key(1005)), "not known yet");
    assert!(tier.is_live(&key(1005).primary).await);
    let mut steps = 0;
    while tier.store.recovery.advance(&tier.store) {
        steps += 1;
        assert_holds(&tier, key(1000), b"new", &body(1001, 1000)).await;
    }
    assert!(steps > 5, "{steps}");
    restore::run(&tier.store);
    tier.recovered().await;
    assert_eq!(tier.stats().objects, COUNT + 10);
    for n in 0..COUNT {
        assert_holds(&tier, key(n), b"m", &body(n, LARGE)).await;
    }
    for n in 1001..1009 {
        assert_holds(&tier, key(n), b"old", &body(n, 1000)).await;
    }
    assert!(!tier.contains(&key(5000)));
    assert_eq!(errors(&metrics), 0);
}

#[tokio::test]
async fn what_happens_during_recovery_is_newer_than_what_recovery_finds() {
    let (dir, metrics) = (filled().await, Metrics::new());
    let tier = just_opened(&dir, &metrics, SEGMENTS);
    let seed = tier.store.geometry.seed;
    assert!(tier.purge(&key(1001).primary).await.unwrap());
    put(&tier, key(1002), b"during", &body(7, 5000)).await;
    // An answer of the origin that cannot be stored.
    let writer = tier.writer(key(1003)).unwrap();
    assert_eq!(writer.commit(&vec![0; 300_000], &tier.mark()).await, Err(WriteError::TooLarge));
    // A write that broke off says nothing of what is stored.
    drop(tier.writer(key(1004)).unwrap());
    // Purged, then stored again.
    tier.purge(&key(1005).primary).await.unwrap();
    put(&tier, key(1005), b"again", &body(8, 10)).await;
    // Found damaged: the version before it is no better.
    let id = head_id(&key(1009), seed);
    let location = tier.store.index.shard(id.a).get(id).unwrap();
    assert!(tier.store.index.shard(id.a).remove(id, location));
    let check = async |tier: &Arc<DiskTier>| {
        assert_holds(tier, key(1000), b"new", &body(1001, 1000)).await;
        assert!(tier.get(&key(1001)).await.is_none());
        assert_holds(tier, key(1002), b"during", &body(7, 5000)).await;
        assert_holds(tier, key(1004), b"old", &body(1004, 1000)).await;
        assert_holds(tier, key(1005), b"again", &body(8, 10)).await;
    };
    restore::run(&tier.store);
    check(&tier).await;
    for n in [1003, 1009] {
        assert!(tier.get(&key(n)).await.is_none(), "{n}");
    }
    drop(tier);
    let tier = open(&dir, SEGMENTS);
    tier.recovered().await;
    check(&tier).await;
    assert_eq!(errors(&metrics), 0);
}

#[tokio::test]
async fn a_purge_of_everything_during_recovery_leaves_what_comes_later() {
    let (dir, metrics) = (filled().await, Metrics::new());
    let tier = just_opened(&dir, &metrics, SEGMENTS);
    tier.purge_all().await.unwrap();
    put(&tier, key(1), b"later", &body(1, 100)).await;
    restore::run(&tier.store);
    assert_eq!(tier.stats().objects, 1);
    drop(tier);
    let tier = open(&dir, SEGMENTS);
    tier.recovered().await;
    assert_eq!(tier.stats().objects, 1);
    assert_holds(&tier, key(1), b"later", &body(1, 100)).await;
}

#[tokio::test]
async fn segments_that_are_evicted_during_recovery_do_not_come_back() {
    let (dir, metrics) = (filled().await, Metrics::new());
    // Hardly more than what is used, so that the oldest segments go first of all.
    let tier = just_opened(&dir, &metrics, COUNT + 4);
    for n in 100..110 {
        put(&tier, key(n), b"m", &body(n, LARGE)).await;
    }
    restore::run(&tier.store);
    assert!(tier.get(&key(1005)).await.is_none() && tier.get(&key(0)).await.is_none(), "evicted");
    let mut held = 0;
    for n in (0..COUNT).chain(100..110) {
        // An object that reached into a segment that went is gone as well.
        if let Some(object) = tier.get(&key(n)).await {
            assert!(read_all(&object, 100_000).await.unwrap() == body(n, LARGE), "{n}");
            held += 1;
        }
    }
    assert!((COUNT..COUNT + 10).contains(&held), "{held}");
    assert_eq!(errors(&metrics), 0);
}

#[tokio::test]
async fn closing_does_not_wait_for_recovery_and_loses_nothing() {
    let (dir, metrics) = (filled().await, Metrics::new());
    let tier = just_opened(&dir, &metrics, SEGMENTS);
    put(&tier, key(2000), b"m", &body(2000, 100)).await;
    tier.close().await;
    restore::run(&tier.store);
    assert!(tier.get(&key(1005)).await.is_none());
    drop(tier);
    let tier = open(&dir, SEGMENTS);
    tier.recovered().await;
    assert_eq!(tier.stats().objects, COUNT + 11);
    assert_holds(&tier, key(1005), b"old", &body(1005, 1000)).await;
    assert_holds(&tier, key(2000), b"m", &body(2000, 100)).await;
}

#[tokio::test]
async fn what_is_not_in_the_page_cache_is_read_as_well() {
    let dir = TempDir::new().unwrap();
    let size = Settings::DEFAULT_SEGMENT_SIZE;
    let settings = Settings { capacity: 5 * size, segment_size: size, ..settings(dir.path(), 5) };
    let tier = DiskTier::open(&settings, Metrics::new().tier("disk")).unwrap();
    let sizes = [1_000, 100_000, 1_000_000, 5_000_000];
    for size in sizes {
        put(&tier, key(size), b"m", &body(size, size as usize)).await;
    }
    tier.close().await;
    drop(tier);
    let tier = DiskTier::open(&settings, Metrics::new().tier("disk")).unwrap();
    for size in sizes {
        let file = File::open(dir.path().join("segments")).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert_holds(&tier, key(size), b"m", &body(size, size as usize)).await;
    }
}
