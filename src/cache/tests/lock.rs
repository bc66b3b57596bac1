//! Who may fetch: between a look-up and the lock, others may have brought the object.

use super::*;
use pingora::cache::lock::{LockStatus, Locked};

/// Takes the lock as pingora does after a miss; `true` if this request has to fetch.
fn has_to_fetch(bench: &Bench, key: &CacheKey) -> bool {
    match bench.cache.lock().lock(key, false) {
        Locked::Write(permit) => {
            bench.cache.lock().release(key, permit, LockStatus::TransientError);
            true
        }
        Locked::Read(lock) => {
            assert!(!lock.locked(), "there is nobody who would free it");
            assert_eq!(lock.lock_status(), LockStatus::Done);
            false
        }
    }
}

#[tokio::test]
async fn who_gets_the_lock_after_anothers_fetch_looks_again_instead_of_fetching() {
    for bench in every() {
        let key = key("/x");
        assert!(bench.find(&key).await.is_none());
        assert!(has_to_fetch(&bench, &key), "nobody has it");
        // The other's fetch has begun and its lock is free again, as at the response head.
        let (mut miss, own) = bench.begin(&key, Some(5)).await;
        assert!(!has_to_fetch(&bench, &key), "it can be followed");
        miss.write_body(content(5), true).await.unwrap();
        miss.finish().await.unwrap();
        drop(own);
        assert!(!has_to_fetch(&bench, &key), "it has just been stored");
        bench.cache.purge(&key).await.unwrap();
        assert!(has_to_fetch(&bench, &key), "it is purged");
    }
}

#[tokio::test]
async fn a_fetch_that_failed_and_an_object_that_was_passed_over_have_to_be_fetched() {
    for bench in every() {
        let key = key("/x");
        let (miss, own) = bench.begin(&key, Some(5)).await;
        drop((miss, own));
        assert!(has_to_fetch(&bench, &key), "the fetch failed");
        bench.put(&key, &content(5)).await;
        bench.landed().await;
        bench.clock.advance(Duration::from_secs(10), true);
        assert!(has_to_fetch(&bench, &key), "the look-up saw it and did not want it");
    }
}
