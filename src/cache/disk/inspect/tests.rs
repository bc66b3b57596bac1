use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::*;
use crate::cache::disk::tests::{body, key, open, put};
use crate::cache::disk::{DiskTier, OpenError};
use crate::cache::epochs::Mark;
use crate::cache::scope::Kind as ScopeKind;

const MIB: u32 = 1 << 20;

fn look(dir: &TempDir) -> Inspector {
    Inspector::open(dir.path()).unwrap()
}

/// Metadata, content and whether it is stale, by key and variant.
type Listed = BTreeMap<Vec<u8>, (Bytes, Vec<u8>, bool)>;

/// Every object.
fn listed(inspector: &Inspector) -> (Listed, Visited) {
    let contents = inspector.contents(&mut |_, _| {}).unwrap();
    let mut found = BTreeMap::new();
    let visited = contents.visit(&mut |passed, all| assert!(passed <= all), &mut |object| {
        let mut copied = Vec::new();
        contents.copy_body(&object, &mut copied).unwrap();
        assert_eq!(copied.len() as u64, object.len);
        assert!(object.stored > object.len);
        let key = [&object.key.primary[..], &object.key.variant.unwrap_or_default()].concat();
        let is_stale = object.stale_since.is_some();
        assert!(found.insert(key, (object.meta.clone(), copied, is_stale)).is_none(), "listed twice");
        Ok(())
    });
    (found, visited.unwrap())
}

fn verified(dir: &TempDir) -> (Verified, Vec<Problem>) {
    let mut problems = Vec::new();
    let verified = look(dir).verify(&mut |_, _| {}, &mut |problem| problems.push(problem)).unwrap();
    assert_eq!(verified.problems, problems.len() as u64);
    (verified, problems)
}

async fn put_with(tier: &Arc<DiskTier>, key: Key, meta: &[u8], scopes: &[u64]) {
    let mut writer = tier.writer(key).unwrap();
    writer.append(body(1, 500)).await.unwrap();
    writer.commit(meta, &Mark { epoch: tier.epochs().sequence(), scopes: scopes.into() }).await.unwrap();
}

#[tokio::test]
async fn a_look_finds_what_a_start_finds() {
    for seal in [false, true] {
        let dir = TempDir::new().unwrap();
        let tier = open(&dir, 24);
        for n in 0..40 {
            put(&tier, key(n), format!("first {n}").as_bytes(), &body(n, 5000)).await;
        }
        put(&tier, key(50), b"large", &body(50, 3_000_000)).await;
        put(&tier, key(51), b"empty", &body(51, 0)).await;
        for n in 0..10 {
            put(&tier, key(n), b"second", &body(n + 1000, 70_000)).await;
        }
        let variant = Key { variant: Some([3; 16]), ..key(11) };
        put(&tier, variant, b"variant", &body(77, 10)).await;
        assert!(tier.update_meta(&key(12), b"renewed", &tier.mark()).await);
        for n in [13, 14, 3] {
            assert!(tier.purge(&key(n).primary).await.unwrap());
        }
        put(&tier, key(14), b"again", &body(14, 10)).await;
        put_with(&tier, key(60), b"tagged", &[900]).await;
        put_with(&tier, key(61), b"other tag", &[901]).await;
        let purges = [
            tier.epochs().purge(ScopeKind::Tag, 900, None),
            tier.epochs().purge(ScopeKind::Tag, 901, Some(std::time::UNIX_EPOCH + Duration::from_secs(9))),
        ];
        tier.log(&purges).await.unwrap();
        if seal {
            tier.close().await;
        }
        drop(tier);
        let (found, visited) = listed(&look(&dir));
        let tier = open(&dir, 24);
        let mut expected = 0;
        for n in 0..70 {
            for key in [key(n), Key { variant: Some([3; 16]), ..key(n) }] {
                let name = [&key.primary[..], &key.variant.unwrap_or_default()].concat();
                let object = tier.get(&key).await;
                assert_eq!(object.is_some(), found.contains_key(&name), "{n}");
                let Some((object, (meta, content, is_stale))) = object.zip(found.get(&name)) else { continue };
                expected += 1;
                assert_eq!(object.meta(), meta, "{n}");
                assert_eq!(*is_stale, n == 61);
                assert!(crate::cache::disk::tests::read_all(&object, 100_000).await.unwrap() == *content, "{n}");
            }
        }
        assert_eq!((visited.objects, visited.purged, visited.damaged, visited.changed), (expected, 1, 0, 0));
        drop(tier);
        let (verified, problems) = verified(&dir);
        assert_eq!(problems, []);
        assert!(verified.segments >= 4 && verified.records >= 50 + 40 && verified.purges == 5, "{verified:?}");
        let overview = look(&dir).overview().unwrap();
        assert_eq!((overview.key_purges, overview.scope_purges, overview.all_purges), (3, 2, 0));
        assert_eq!(overview.sealed + overview.open, verified.segments as u32);
        assert!(overview.open == 0 && !overview.is_log_lost);
    }
}

#[tokio::test]
async fn a_purge_of_everything_and_a_lost_log_leave_nothing() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    put(&tier, key(1), b"m", &body(1, 500)).await;
    tier.purge_all().await.unwrap();
    put(&tier, key(2), b"m", &body(1, 500)).await;
    drop(tier);
    assert_eq!(listed(&look(&dir)).1.objects, 1);
    fs::remove_file(dir.path().join("purge.log")).unwrap();
    assert_eq!(listed(&look(&dir)).1.objects, 0);
    assert!(look(&dir).overview().unwrap().is_log_lost);
    let (_, problems) = verified(&dir);
    assert_eq!(problems, [Problem { place: Place::PurgeLog(0), damage: Damage::NoLog }]);
}

#[tokio::test]
async fn a_purge_that_comes_during_the_look_counts() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    for n in 0..3 {
        put(&tier, key(n), b"m", &body(n, 500)).await;
    }
    tier.close().await;
    drop(tier);
    let tier = open(&dir, 4);
    let inspector = look(&dir);
    let log = inspector.load_log().unwrap();
    let mut later = log.records.clone();
    assert!(tier.purge(&key(1).primary).await.unwrap());
    put(&tier, key(2), b"newer", &body(2, 10)).await;
    let purges = inspector.load_log().unwrap().records;
    assert_eq!(purges.len(), 1);
    later.extend(purges.into_iter().map(as_scope));
    let Read { index, generations, order, skipped } = inspector.read_index(&log, &mut |_, _| {});
    let epochs = recovery::restored_epochs(0, &later);
    let contents = Contents { store: &inspector, index, generations, order, epochs, skipped };
    let visited = contents.visit(&mut |_, _| {}, &mut |object| {
        assert_ne!(object.key, key(1));
        Ok(())
    });
    assert_eq!(visited.unwrap().purged, 1);
    // What was asked for after the purge has an epoch above it.
    let epoch = tier.mark().epoch;
    assert_eq!(contents.epochs.standing(epoch, &key(1).primary, &[]), Standing::Valid);
}

/// Which damage a flipped byte is to be reported as.
struct Region {
    name: &'static str,
    bytes: std::ops::Range<u64>,
    expected: &'static [Damage],
}

/// The regions of a store of one sealed segment with two small objects, the second of two blocks.
fn regions(dir: &TempDir) -> Vec<Region> {
    let inspector = look(dir);
    let file = inspector.data.as_ref().unwrap();
    let content = segment::read(file, &inspector.geometry, 0).unwrap();
    assert!(content.is_sealed && content.entries.len() == 3);
    let mut regions = vec![Region { name: "segments", bytes: 8..64, expected: &[Damage::SegmentHeader] }];
    let mut push = |bytes: std::ops::Range<u64>, expected| regions.push(Region { name: "segments", bytes, expected });
    for entry in &content.entries {
        let mut bytes = vec![0; entry.len as usize];
        file.read_exact_at(&mut bytes, entry.offset.into()).unwrap();
        let record = Record::decode(&bytes, &inspector.geometry).unwrap();
        let (start, body) = (u64::from(entry.offset), u64::from(entry.offset) + record.prefix_len() as u64);
        let end = body + u64::from(record.body_len);
        push(start..start + 96, &[Damage::RecordHeader]);
        push(start + 96..body, &[Damage::Metadata]);
        push(body..end, &[Damage::Body]);
        push(end..start + u64::from(entry.len), &[Damage::Padding]);
    }
    let (table, end) = (u64::from(MIB) - 64 - 3 * 24, u64::from(MIB));
    push(table..end - 64, &[Damage::FooterTable]);
    push(end - 64..end, &[Damage::Footer]);
    for at in [0, 2048] {
        regions.push(Region { name: "superblock", bytes: at..at + 64, expected: &[Damage::Superblock] });
    }
    regions.push(Region { name: "purge.log", bytes: 0..128, expected: &[Damage::PurgeLog] });
    regions
}

#[tokio::test]
async fn every_flipped_byte_is_found_and_named() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    put(&tier, key(1), b"one", &body(1, 70)).await;
    put(&tier, Key { variant: Some([9; 16]), ..key(2) }, b"two", &body(2, 65_600)).await;
    tier.purge(&key(3).primary).await.unwrap();
    tier.close().await;
    drop(tier);
    let (sound, problems) = verified(&dir);
    assert_eq!(problems, []);
    assert_eq!((sound.segments, sound.records, sound.purges), (1, 3, 1));
    let mut seen = BTreeSet::new();
    for Region { name, bytes, expected } in regions(&dir) {
        let file = fs::OpenOptions::new().read(true).write(true).open(dir.path().join(name)).unwrap();
        // Of long regions the ends and some between.
        let step = (bytes.end - bytes.start).div_ceil(100).max(1) as usize;
        for at in bytes.clone().step_by(step).chain([bytes.end.saturating_sub(1)]) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x41], at).unwrap();
            let (_, problems) = verified(&dir);
            let found: Vec<Damage> = problems.iter().map(|problem| problem.damage).collect();
            assert_eq!(found, expected, "{name} {at}");
            let place = match problems[0].place {
                Place::Superblock(place) | Place::PurgeLog(place) => place,
                Place::Segment(segment, place) => u64::from(segment * MIB + place),
            };
            assert!(place <= at && at < place.max(bytes.start) + u64::from(BLOCK), "{name} {at}: {place}");
            assert!(!problems[0].damage.remedy().is_empty());
            seen.insert(problems[0].damage.as_str());
            file.write_all_at(&byte, at).unwrap();
        }
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
    assert_eq!(verified(&dir).1, []);
    // What nobody reads is not looked at.
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("segments")).unwrap();
    file.write_all_at(&[1; 64], 500_000).unwrap();
    assert_eq!(verified(&dir).1, []);
}

#[tokio::test]
async fn a_hole_in_an_unsealed_segment_and_a_cut_file_are_found() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    for n in 0..3 {
        put(&tier, key(n), b"m", &body(n, 1000)).await;
    }
    drop(tier);
    let damages = |problems: &[Problem]| problems.iter().map(|problem| problem.damage).collect::<Vec<_>>();
    assert_eq!(verified(&dir).1, []);
    assert_eq!(look(&dir).overview().unwrap().open, 1);
    let file = fs::OpenOptions::new().read(true).write(true).open(dir.path().join("segments")).unwrap();
    let mut before = vec![0; 8192];
    file.read_exact_at(&mut before, 0).unwrap();
    // The second record's header: the third is out of reach.
    let second = segment::read(&file.try_clone().unwrap().into(), &look(&dir).geometry, 0).unwrap().entries[1].offset;
    file.write_all_at(&[0; 64], second.into()).unwrap();
    let (_, problems) = verified(&dir);
    assert_eq!(problems, [Problem { place: Place::Segment(0, second), damage: Damage::OutOfReach }]);
    assert_eq!(listed(&look(&dir)).1.objects, 1);
    file.write_all_at(&before, 0).unwrap();
    file.set_len(u64::from(second) + 100).unwrap();
    let (_, problems) = verified(&dir);
    assert_eq!(damages(&problems), [Damage::Cut, Damage::Unreadable]);
}

#[tokio::test]
async fn damage_is_told_from_change() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    for n in 0..3 {
        put(&tier, key(n), b"m", &body(n, 1000)).await;
    }
    tier.close().await;
    drop(tier);
    let inspector = look(&dir);
    let contents = inspector.contents(&mut |_, _| {}).unwrap();
    let count = || contents.visit(&mut |_, _| {}, &mut |_| Ok(())).unwrap();
    assert_eq!(count().objects, 3);
    let file = fs::OpenOptions::new().read(true).write(true).open(dir.path().join("segments")).unwrap();
    file.write_all_at(&[0xff; 8], 64 + 96).unwrap();
    assert_eq!((count().objects, count().damaged, count().changed), (2, 1, 0));
    // The segment is used anew.
    let generation = contents.generations[0] + 1;
    file.write_all_at(&format::segment_header(generation, inspector.geometry.seed), 0).unwrap();
    file.write_all_at(&[0; 8192], 64).unwrap();
    assert_eq!((count().objects, count().damaged, count().changed), (0, 0, 3));
    let objects = contents.variants(&key(1).primary);
    assert_eq!(objects.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_store_has_no_damage_and_nothing_wrong_is_read() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 6);
    let size = |version: u64| 1000 + (version as usize * 7919) % 150_000;
    put(&tier, key(0), &0u64.to_le_bytes(), &body(0, size(0))).await;
    let path = dir.path().to_owned();
    let written = Arc::new(AtomicU64::new(0));
    let begun = Arc::clone(&written);
    let looks = tokio::task::spawn_blocking(move || {
        let (mut objects, mut records, mut round) = (0, 0, 0);
        // Six segments hold some eighty of them.
        while round < 20 || begun.load(Ordering::Relaxed) < 300 {
            round += 1;
            let inspector = Inspector::open(&path).unwrap();
            let mut problems = Vec::new();
            let verified = inspector.verify(&mut |_, _| {}, &mut |problem| problems.push(problem)).unwrap();
            assert_eq!(problems, [], "round {round}: {verified:?}");
            let contents = inspector.contents(&mut |_, _| {}).unwrap();
            let visited = contents.visit(&mut |_, _| {}, &mut |object| {
                let version = u64::from_le_bytes(object.meta[..].try_into().unwrap());
                let mut copied = Vec::new();
                match contents.copy_body(&object, &mut copied) {
                    Ok(()) => assert!(body(version, size(version)) == copied, "{version}"),
                    Err(CopyError::Store(Missed::Changed | Missed::Incomplete)) => {}
                    Err(error) => panic!("{error}"),
                }
                Ok(())
            });
            let visited = visited.unwrap();
            assert_eq!(visited.damaged, 0, "round {round}");
            objects += visited.objects;
            records += verified.records;
        }
        (objects, records)
    });
    let mut version = 0u64;
    while !looks.is_finished() {
        version += 1;
        written.store(version, Ordering::Relaxed);
        let n = version.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        put(&tier, key(n), &version.to_le_bytes(), &body(version, size(version))).await;
        if version.is_multiple_of(7) {
            tier.purge(&key(version % 64).primary).await.unwrap();
        }
        let _ = tier.get(&key(version % 64)).await;
    }
    let (objects, records) = looks.await.unwrap();
    assert!(objects > 100 && records > 100, "{version} {objects} {records}");
}

#[tokio::test]
async fn a_directory_that_is_no_store_is_told() {
    let dir = TempDir::new().unwrap();
    let error = |dir: &TempDir| Inspector::open(dir.path()).err().unwrap();
    assert!(matches!(error(&dir), OpenError::NoStore { .. }), "{}", error(&dir));
    fs::write(dir.path().join("superblock"), "something else").unwrap();
    assert!(matches!(error(&dir), OpenError::Damaged { .. }));
    let missing = Inspector::open(&dir.path().join("none")).err().unwrap();
    assert!(matches!(missing, OpenError::Io { .. }));
    let dir = TempDir::new().unwrap();
    drop(open(&dir, 4));
    let before: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed(&look(&dir)).1, Visited::default());
    assert_eq!(verified(&dir).1, []);
    let after: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(before, after, "nothing is created");
}
