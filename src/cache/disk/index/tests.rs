//! A shard beside a `HashMap`, and locations.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, u8, u32),
    Remove(u8, u8),
    Purge(u8),
    Hit(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    // Few primaries, so that runs of slots overlap and wrap around.
    prop_oneof![
        4 => (0u8..40, 0u8..6, 1u32..1000).prop_map(|(p, v, o)| Op::Insert(p, v, o)),
        2 => (0u8..40, 0u8..6).prop_map(|(p, v)| Op::Remove(p, v)),
        1 => (0u8..40).prop_map(Op::Purge),
        1 => (0u8..40, 0u8..6).prop_map(|(p, v)| Op::Hit(p, v)),
    ]
}

fn id(p: u8, v: u8) -> Id {
    // Neighbouring buckets in one shard.
    Id { a: (u64::from(p) / 3 + 250) << SHARD_BITS | u64::from(p % 3) << 40, b: u64::from(v) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_index_behaves_as_a_map(ops in proptest::collection::vec(op(), 1..400)) {
        let mut shard = Shard::default();
        let mut model: HashMap<(u8, u8), Location> = HashMap::new();
        for op in ops {
            match op {
                Op::Insert(p, v, o) => {
                    let location = Location::new(Kind::Head, 7, o * 64, 128);
                    shard.insert(id(p, v), location);
                    model.insert((p, v), location);
                }
                Op::Remove(p, v) => {
                    let location = model.remove(&(p, v));
                    prop_assert_eq!(shard.remove(id(p, v), location.unwrap_or_default()), location.is_some());
                }
                Op::Purge(p) => {
                    let before = model.len();
                    model.retain(|(other, _), _| *other != p);
                    prop_assert_eq!(shard.purge(id(p, 0).a), (before - model.len(), 0));
                }
                Op::Hit(p, v) => {
                    let hit = shard.hit(id(p, v));
                    prop_assert_eq!(hit.is_some(), model.contains_key(&(p, v)));
                }
            }
            for p in 0..40 {
                for v in 0..6 {
                    let (found, expected) = (shard.get(id(p, v)), model.get(&(p, v)).copied());
                    prop_assert_eq!(found.is_some(), expected.is_some());
                    prop_assert!(found.zip(expected).is_none_or(|(found, expected)| found.same(expected)));
                }
            }
            prop_assert_eq!(shard.objects, model.len() as u64);
            prop_assert_eq!(shard.bytes, 128 * model.len() as u64);
        }
    }

    #[test]
    fn a_location_keeps_its_parts(segment in 0u32..1 << 20, offset in 0u32..1 << 24, len in 1u32..0x8000) {
        for kind in [Kind::Head, Kind::Chunk] {
            let mut location = Location::new(kind, segment, offset * 64, len * 64);
            for hits in 0..6 {
                prop_assert_eq!(location.hits(), hits.min(3));
                prop_assert_eq!(location.segment(), segment);
                prop_assert_eq!(location.offset(), offset * 64);
                prop_assert_eq!(location.len(), len * 64);
                prop_assert_eq!(location.kind(), kind);
                location.hit();
            }
        }
    }
}

#[test]
fn variants_of_one_key_are_bounded() {
    let mut shard = Shard::default();
    for b in 0..10_000 {
        shard.insert(Id { a: 64, b }, Location::new(Kind::Head, 0, 64, 64));
        assert!(shard.get(Id { a: 64, b }).is_some());
    }
    assert_eq!(shard.objects, MAX_VARIANTS as u64);
}
