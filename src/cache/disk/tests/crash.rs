//! Restarts, crashes, damage, and directories that are not ours.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::*;

/// What a process that is killed now leaves behind.
fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    // The purge log last: a copy is not one moment, and a purge must not be newer than the data it is about.
    for name in ["superblock", "segments", "purge.log"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.path().join(name)).unwrap();
        }
    }
    to
}

#[tokio::test]
async fn what_was_written_outlasts_a_crash() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 8);
    for n in 0..50 {
        put(&tier, key(n), b"m", &body(n, 30_000)).await;
    }
    drop(tier);
    // Twice: the first start seals what the crash left open.
    for _ in 0..2 {
        let tier = open(&dir, 8);
        assert_eq!(tier.stats().objects, 50);
        for n in 0..50 {
            assert_holds(&tier, key(n), b"m", &body(n, 30_000)).await;
        }
    }
}

#[tokio::test]
async fn a_purge_outlasts_a_crash_and_what_came_later_stays() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 8);
    for n in 0..20 {
        put(&tier, key(n), b"m", &body(n, 10_000)).await;
    }
    for n in 0..10 {
        assert!(tier.purge(&key(n).primary).await.unwrap());
    }
    put(&tier, key(3), b"again", &body(33, 10_000)).await;
    // The copy has the purges, whatever of the data was written.
    let killed = copy(dir.path());
    drop(tier);
    for dir in [&dir, &killed] {
        for _ in 0..2 {
            let tier = open(dir, 8);
            for n in (0..10).filter(|n| *n != 3) {
                assert!(tier.get(&key(n)).await.is_none(), "{n} is back");
            }
            if let Some(object) = tier.get(&key(3)).await {
                assert_eq!(object.meta(), &b"again"[..]);
            }
        }
    }
    let tier = open(&dir, 8);
    assert_holds(&tier, key(3), b"again", &body(33, 10_000)).await;
    assert_holds(&tier, key(15), b"m", &body(15, 10_000)).await;
    tier.purge_all().await.unwrap();
    put(&tier, key(4), b"new", &body(4, 10)).await;
    drop(tier);
    let tier = open(&dir, 8);
    assert_eq!(tier.stats().objects, 1);
    assert_holds(&tier, key(4), b"new", &body(4, 10)).await;
}

#[tokio::test]
async fn a_long_purge_log_is_compacted_and_still_holds() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    for n in 0..50 {
        put(&tier, key(n), b"m", &body(n, 500)).await;
    }
    let keys: Vec<Key> = (0..25).map(key).collect();
    for _ in 0..3 {
        let purges = (0..6_000).map(|n| tier.purge(&keys[n % keys.len()].primary));
        for done in futures::future::join_all(purges).await {
            done.unwrap();
        }
    }
    drop(tier);
    // 18,000 records would be 1.1 MiB; a compacted log may have some zeros and later records.
    assert!(fs::metadata(dir.path().join("purge.log")).unwrap().len() < 900 << 10);
    let tier = open(&dir, 4);
    for n in 0..50 {
        assert_eq!(tier.get(&key(n)).await.is_some(), n >= 25, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_taken_under_load_serve_nothing_wrong() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 6);
    let purged = Arc::new(Mutex::new(std::collections::HashMap::<u64, u64>::new()));
    let (load, seen, path) = (Arc::clone(&tier), Arc::clone(&purged), dir.path().to_owned());
    let copies = tokio::task::spawn_blocking(move || {
        let take = |_| (seen.lock().clone(), copy(&path));
        (0..12).map(take).collect::<Vec<_>>()
    });
    let mut version = 0u64;
    while !copies.is_finished() {
        version += 1;
        let n = version.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        put(&load, key(n), &version.to_le_bytes(), &body(version, 1000 + (version as usize * 7919) % 150_000)).await;
        if version.is_multiple_of(5) {
            let n = version % 64;
            load.purge(&key(n).primary).await.unwrap();
            purged.lock().insert(n, version);
        }
        let _ = load.get(&key(version % 64)).await;
    }
    for (purged, copied) in copies.await.unwrap() {
        let tier = open(&copied, 6);
        for n in 0..64 {
            let Some(object) = tier.get(&key(n)).await else { continue };
            let version = u64::from_le_bytes(object.meta()[..].try_into().unwrap());
            assert!(purged.get(&n).is_none_or(|purge| version > *purge), "{n}: {version} is purged");
            if let Ok(bytes) = read_all(&object, 70_000).await {
                assert!(bytes == body(version, 1000 + (version as usize * 7919) % 150_000));
            }
        }
    }
}

/// A few small objects, one of them purged; and what each may be read as.
pub(super) async fn small_store(dir: &TempDir, seal: bool) -> Vec<(Key, &'static [u8], Bytes)> {
    let tier = open(dir, 4);
    let variant = Key { variant: Some([9; 16]), ..key(2) };
    let kept = vec![(key(1), &b"one"[..], body(1, 70)), (variant, &b"two"[..], body(2, 300))];
    put(&tier, key(3), b"purged", &body(3, 40)).await;
    for (key, meta, body) in &kept {
        put(&tier, *key, meta, body).await;
    }
    tier.purge(&key(3).primary).await.unwrap();
    if seal {
        tier.close().await;
    }
    kept
}

/// Opens the store if it can be opened; how many of the objects are there, all of them right.
pub(super) async fn intact(dir: &TempDir, kept: &[(Key, &'static [u8], Bytes)], what: &str) -> usize {
    let Ok(tier) = DiskTier::open(&settings(dir.path(), 4), Metrics::new().tier("disk")) else { return 0 };
    assert!(tier.get(&key(3)).await.is_none(), "{what}: purged and back");
    let mut found = 0;
    for (key, meta, body) in kept {
        if let Some(object) = tier.get(key).await {
            assert_eq!(object.meta(), meta, "{what}");
            assert!(read_all(&object, 1000).await.unwrap() == body, "{what}");
            found += 1;
        }
    }
    found
}

#[tokio::test]
async fn no_flipped_byte_is_served() {
    for seal in [true, false] {
        let dir = TempDir::new().unwrap();
        let kept = small_store(&dir, seal).await;
        for (name, ranges) in [
            ("segments", vec![0..1400, MIB as usize - 200..MIB as usize]),
            // Each of its bytes is tried where it is read; here it costs synchronisations.
            ("purge.log", (3..128).step_by(13).map(|at| at..at + 1).collect()),
            ("superblock", vec![0..64, 2048..2112]),
        ] {
            let path = dir.path().join(name);
            let before = fs::read(&path).unwrap();
            let mut whole = 0;
            for at in ranges.into_iter().flatten() {
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&[before[at] ^ 0x41], at as u64).unwrap();
                whole += usize::from(intact(&dir, &kept, &format!("{name} {at}")).await == kept.len());
                // Opening may have sealed or replaced the file.
                let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(before.len() as u64).unwrap();
                for (start, end) in [(0, 8192), (MIB as usize - 8192, MIB as usize)] {
                    let part = before.get(start..end.min(before.len())).unwrap_or_default();
                    file.seek(SeekFrom::Start(start as u64)).unwrap();
                    file.write_all(part).unwrap();
                }
            }
            // One copy of the superblock is enough, and damage to the log drops everything.
            match name {
                "superblock" => assert_eq!(whole, 128),
                "purge.log" => assert_eq!(whole, 0),
                _ => assert!(whole > 100),
            }
            assert_eq!(intact(&dir, &kept, "restored").await, kept.len());
        }
    }
}

#[tokio::test]
async fn a_file_cut_anywhere_serves_nothing_wrong() {
    for seal in [true, false] {
        let dir = TempDir::new().unwrap();
        let kept = small_store(&dir, seal).await;
        let path = dir.path().join("segments");
        let before = fs::read(&path).unwrap();
        let near_the_end = before.len() - 200..before.len();
        for at in (0..1400).chain(near_the_end.step_by(7)).chain([100_000]) {
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(at as u64).unwrap();
            let found = intact(&dir, &kept, &format!("cut at {at}")).await;
            assert!(at < 1400 || found == kept.len(), "cut at {at}: {found}");
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(before.len() as u64).unwrap();
            file.write_all_at(&before[..8192], 0).unwrap();
            file.write_all_at(&before[before.len() - 8192..], before.len() as u64 - 8192).unwrap();
        }
    }
}

#[tokio::test]
async fn damage_in_a_large_body_is_an_error_and_then_a_miss() {
    let dir = TempDir::new().unwrap();
    let metrics = Metrics::new();
    let whole = body(1, 400_000);
    put(&open(&dir, 8), key(1), b"m", &whole).await;
    let path = dir.path().join("segments");
    let at = 250_000u64;
    let mut byte = [0];
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let tier = DiskTier::open(&settings(dir.path(), 8), metrics.tier("disk")).unwrap();
    let object = tier.get(&key(1)).await.unwrap();
    assert_eq!(read_all(&object, 10_000).await, Err(ReadError::Checksum));
    assert!(object.read(0, 100).await.unwrap() == whole[..100], "the other blocks are sound");
    assert!(tier.get(&key(1)).await.is_none());
    assert_eq!(metrics.tier("disk").error("checksum").get(), 1);
}

#[tokio::test]
async fn a_lost_purge_log_drops_everything() {
    let dir = TempDir::new().unwrap();
    let kept = small_store(&dir, true).await;
    fs::remove_file(dir.path().join("purge.log")).unwrap();
    assert_eq!(intact(&dir, &kept, "no log").await, 0);
    assert_eq!(intact(&dir, &kept, "and it stays so").await, 0);
}

#[tokio::test]
async fn a_directory_has_one_user() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    let second = DiskTier::open(&settings(dir.path(), 4), Metrics::new().tier("disk"));
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    drop(tier);
    open(&dir, 4);
}

#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_alone() {
    let refused = |dir: &TempDir| DiskTier::open(&settings(dir.path(), 4), Metrics::new().tier("disk")).err().unwrap();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
    let error = refused(&dir);
    assert!(matches!(&error, OpenError::Foreign { name, .. } if name == "thesis.txt"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let dir = TempDir::new().unwrap();
    small_store(&dir, true).await;
    let larger = Settings { segment_size: 2 * MIB, ..settings(dir.path(), 8) };
    let error = DiskTier::open(&larger, Metrics::new().tier("disk")).err().unwrap();
    assert!(matches!(error, OpenError::SegmentSize { .. }), "{error}");
    fs::write(dir.path().join("superblock"), "something else").unwrap();
    assert!(matches!(refused(&dir), OpenError::Damaged { .. }));
    fs::remove_file(dir.path().join("superblock")).unwrap();
    assert!(matches!(refused(&dir), OpenError::Foreign { .. }));

    let dir = TempDir::new().unwrap();
    let tiny = Settings { capacity: 3 * MIB, ..settings(dir.path(), 4) };
    assert!(matches!(DiskTier::open(&tiny, Metrics::new().tier("disk")), Err(OpenError::Sizes { .. })));
}

#[tokio::test]
async fn a_store_of_another_version_is_refused() {
    let dir = TempDir::new().unwrap();
    small_store(&dir, true).await;
    let path = dir.path().join("superblock");
    let mut bytes = fs::read(&path).unwrap();
    for at in [0, 2048] {
        bytes[at + 16] = 2;
        let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&bytes[at + 8..at + 64], 0);
        bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(&path, &bytes).unwrap();
    let error = DiskTier::open(&settings(dir.path(), 4), Metrics::new().tier("disk")).err().unwrap();
    assert!(matches!(error, OpenError::Version { found: 2, expected: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_smaller_capacity_keeps_what_fits() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 10);
    for n in 0..100 {
        put(&tier, key(n), b"m", &body(n, 60_000)).await;
    }
    tier.close().await;
    drop(tier);
    let tier = open(&dir, 5);
    assert!(fs::metadata(dir.path().join("segments")).unwrap().len() <= 5 * MIB);
    put(&tier, key(500), b"m", &body(500, 60_000)).await;
    assert_holds(&tier, key(500), b"m", &body(500, 60_000)).await;
    for n in 0..100 {
        if let Some(object) = tier.get(&key(n)).await {
            assert!(read_all(&object, 100_000).await.unwrap() == body(n, 60_000));
        }
    }
}
