//! The model against the disk tier itself.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::cache::disk::stepped::Stepped;

/// Popular keys among many that come once or twice, of sizes from nothing to several chunks.
fn requests() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let one = (any::<u32>(), any::<u64>()).prop_map(|(skewed, key)| {
        let key = if skewed % 3 == 0 { key % 400 } else { 400 + key % (1 << (skewed % 12)) };
        let size = match key % 16 {
            0 => 0,
            1 => 65_536 * (key % 5),
            2..5 => 20_000 + key * 7919 % 150_000,
            _ => 100 + key * 104_729 % 30_000,
        };
        (key, size)
    });
    proptest::collection::vec(one, 1500..2000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn the_model_decides_as_the_disk_tier_does(requests in requests(), all in any::<bool>()) {
        let rule = if all { Rule::All } else { Rule::SecondUse };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = TempDir::new().unwrap();
        let tier = Stepped::open(dir.path(), 6, rule);
        let mut model = Disk::new(6 << 20, 1 << 20, rule, tier.seed());
        let metadata = [7; METADATA as usize];
        let (mut hits, mut stored) = (0, 0);
        for (n, (object, size)) in requests.into_iter().enumerate() {
            let key = key(object, 0);
            let (real, modelled) = (runtime.block_on(tier.read(&key)), model.get(&key));
            prop_assert_eq!(real, modelled, "request {}: is object {} stored?", n, object);
            hits += u32::from(real);
            if n % 7 == 0 {
                // As memory does with what was hit there.
                prop_assert_eq!(tier.tier.count_hit(&key), model.count_hit(&key));
            }
            if !real {
                let body = Bytes::from(vec![object as u8; size as usize]);
                let admitted = runtime.block_on(tier.write(key, &metadata, body));
                prop_assert_eq!(admitted, model.fill(key, size), "request {}: is object {} admitted?", n, object);
                stored += u32::from(admitted);
            }
            let totals = tier.tier.stats();
            prop_assert_eq!((totals.objects, totals.bytes), model.totals(), "after request {}", n);
        }
        prop_assert!(hits > 100 && stored > 150, "{} hits and {} stored say little", hits, stored);
    }
}

#[test]
fn what_was_hit_in_memory_moves_to_the_disk_and_what_was_not_is_forgotten() {
    let admission = Rule::SecondUse;
    let mut tiers = Tiers::new(&Settings { memory: 1 << 20, disk: 64 << 20, segment: 1 << 20, admission });
    // Full, so that nothing gets in at once.
    (0..2000).for_each(|n| assert_eq!(tiers.request(n, 60_000), 0));
    let before = tiers.written();
    for n in [5000, 5001, 5000] {
        tiers.request(n, 1000);
    }
    (6000..6100).for_each(|n| assert_eq!(tiers.request(n, 50_000), 0));
    assert!(tiers.disk.holds(&key(5000, 0)) && !tiers.disk.holds(&key(5001, 0)));
    // A few are taken for known.
    assert!(tiers.written() - before < 600_000, "{}", tiers.written() - before);
    // The second time it is admitted, the third time it is there.
    assert_eq!([tiers.request(5001, 1000), tiers.request(5001, 1000)], [0, 1000]);
    assert!(tiers.disk.holds(&key(5001, 0)));
}

#[test]
fn a_large_object_is_stored_by_slices() {
    let admission = Rule::All;
    let mut tiers = Tiers::new(&Settings { memory: 1 << 20, disk: 256 << 20, segment: 1 << 20, admission });
    let size = (10 << 20) + 17;
    assert_eq!([tiers.request(1, size), tiers.request(1, size)], [0, size]);
    // Larger than half the disk: not stored.
    assert_eq!([tiers.request(2, 200 << 20), tiers.request(2, 200 << 20)], [0, 0]);
    let _: Arc<InMemory> = tiers.memory.get(&key(1, 10)).unwrap();
}
