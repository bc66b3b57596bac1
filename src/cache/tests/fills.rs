//! Fills that nothing can hold, that nobody reads, or that purges race with.

use super::*;

#[tokio::test]
async fn what_outgrows_every_tier_passes_through_to_its_readers() {
    let bench = bench(8 * MIB, false);
    let (key, body) = (key("/huge"), content(40 << 20));
    let (mut miss, mut own) = bench.begin(&key, None).await;
    let (_, mut other) = bench.find(&key).await.unwrap();
    let (_, mut stalled) = bench.find(&key).await.unwrap();
    let other = tokio::spawn(async move { read(&mut other).await });
    let mut seen = 0;
    for chunk in body.chunks(60_000) {
        if seen == 20 << 20 {
            assert!(bench.find(&key).await.is_none(), "it takes no further readers");
        }
        miss.write_body(body.slice_ref(chunk), false).await.unwrap();
        let next = own.read_body().await.unwrap().unwrap();
        assert!(body[seen..].starts_with(&next));
        seen += next.len();
        // The stalled one may hold it up a little, then is cut off.
        if let Some(writer) = bench.cache.find_fill_for_test(&own) {
            writer.lose_patience(Duration::from_millis(if seen < 4 << 20 { 50 } else { 5000 }));
        }
    }
    miss.finish().await.unwrap();
    assert!(other.await.unwrap().unwrap() == body);
    assert!(read(&mut stalled).await.is_err());
    assert!(bench.find(&key).await.is_none());
}

impl Cache {
    fn find_fill_for_test(&self, hit: &HitHandler) -> Option<Arc<fill::Fill>> {
        hit.as_any().downcast_ref::<hit::Hit>().and_then(hit::Hit::fill_for_test)
    }
}

#[tokio::test]
async fn a_fill_that_nobody_reads_and_nothing_stores_is_stopped() {
    let bench = bench(8 * MIB, false);
    let (mut miss, own) = bench.begin(&key("/huge"), Some(40 << 20)).await;
    assert!(!own.can_seek());
    miss.write_body(content(1000), false).await.unwrap();
    drop(own);
    assert!(miss.write_body(content(1000), false).await.is_err());

    let (mut miss, mut own) = bench.begin(&key("/huge"), None).await;
    let mut written = 0;
    while miss.write_body(content(1 << 20), false).await.is_ok() {
        written += 1;
        assert!(written < 20, "its own request has stopped reading");
    }
    assert!(read(&mut own).await.is_err());
}

#[tokio::test]
async fn a_fill_dropped_before_its_reader_was_taken_leaves_nothing() {
    let bench = bench(8 * MIB, false);
    let key = key("/a");
    let miss = bench.cache.get_miss_handler(&key, &meta(None), &span()).await.unwrap();
    let tag = miss.streaming_write_tag().unwrap().to_vec();
    drop(miss);
    assert!(bench.cache.lookup_streaming_write(&key, Some(&tag), &span()).await.is_err());
    assert!(bench.cache.lookup_streaming_write(&key, None, &span()).await.is_err());
    assert_eq!(bench.metrics.fills_in_flight.get(), 0);
}

#[tokio::test]
async fn a_closed_cache_has_written_everything() {
    let bench = bench(8 * MIB, true);
    for index in 0..20 {
        bench.put(&key(&format!("/{index}")), &content(1000)).await;
    }
    bench.cache.close().await;
    let disk = bench.cache.disk.as_ref().unwrap();
    assert!((0..20).all(|index| disk.contains(&key::tier_key(&key(&format!("/{index}"))))));
}

#[tokio::test]
async fn a_late_reader_of_what_outgrew_the_disk_still_gets_the_whole() {
    let bench = bench(8 * MIB, true);
    let (key, body) = (key("/huge"), content(14 << 20));
    assert_eq!(bench.cache.max_object(), 8 * MIB);
    let (mut miss, mut own) = bench.begin(&key, None).await;
    let (_, mut late) = bench.find(&key).await.unwrap();
    let mut seen = 0;
    let mut late = Some(tokio::spawn({
        let body = body.clone();
        async move {
            let first = late.read_body().await.unwrap().unwrap();
            // Long behind, in the part that only the disk has.
            tokio::task::yield_now().await;
            assert!(body.starts_with(&first));
            let rest = read(&mut late).await.unwrap();
            assert!(body.slice(first.len()..) == rest);
        }
    }));
    for chunk in body.chunks(60_000) {
        miss.write_body(body.slice_ref(chunk), false).await.unwrap();
        seen += own.read_body().await.unwrap().unwrap().len();
    }
    assert_eq!(seen, body.len());
    miss.finish().await.unwrap();
    late.take().unwrap().await.unwrap();
    bench.landed().await;
    assert!(bench.find(&key).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_purge_nothing_older_is_found_whatever_goes_on() {
    use std::sync::atomic::Ordering;
    for bench in every() {
        let version: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        let bench: &'static Bench = Box::leak(Box::new(bench));
        let found = move |key: CacheKey| async move {
            let (_, mut hit) = bench.find(&key).await?;
            let bytes = read(&mut hit).await.ok()?;
            Some(u64::from_be_bytes(bytes[..8].try_into().unwrap()))
        };
        let mut tasks = Vec::new();
        for worker in 0..3u8 {
            tasks.push(tokio::spawn(async move {
                for round in 0..400u32 {
                    let mut key = if worker == 0 { key("/a") } else { variant("/a", worker) };
                    bench.cache.stamp(&mut key);
                    let mut body = version.load(Ordering::SeqCst).to_be_bytes().to_vec();
                    body.resize(if round % 8 == 0 { 2 << 20 } else { 100 }, 0);
                    tokio::task::yield_now().await;
                    bench.put(&key, &body.into()).await;
                    found(key).await;
                }
            }));
        }
        tasks.push(tokio::spawn(async move {
            for round in 0..600u32 {
                let now = version.fetch_add(1, Ordering::SeqCst) + 1;
                if round % 7 == 0 {
                    bench.cache.purge_all().await.unwrap();
                } else {
                    bench.cache.purge(&key("/a")).await.unwrap();
                }
                for key in [key("/a"), variant("/a", 1), variant("/a", 2)] {
                    let found = found(key).await;
                    assert!(found.is_none_or(|found| found >= now), "{found:?} after {now}");
                }
            }
        }));
        for task in tasks {
            task.await.unwrap();
        }
        bench.cache.close().await;
        assert_eq!(bench.metrics.fills_in_flight.get(), 0);
    }
}
