//! The index beside a `HashMap`, and small segments that are scribbled over at every offset.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::crash::{intact, small_store};
use super::*;
use crate::cache::disk::format::{Id, Kind};
use crate::cache::disk::index::{Index, Location, Ticket};

#[derive(Clone, Debug)]
enum Op {
    /// Key, variant, place.
    Head(u8, u8, u32),
    /// Number, place.
    Chunk(u8, u32),
    Remove(u8, u8, bool),
    Purge(u8),
    Clear,
    Hit(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0u8..60, 0u8..5, 1u32..4000).prop_map(|(key, variant, at)| Op::Head(key, variant, at)),
        4 => (0u8..100, 1u32..4000).prop_map(|(number, at)| Op::Chunk(number, at)),
        3 => (0u8..60, 0u8..5, any::<bool>()).prop_map(|(key, variant, moved)| Op::Remove(key, variant, moved)),
        2 => (0u8..60).prop_map(Op::Purge),
        1 => Just(Op::Clear),
        2 => (0u8..60, 0u8..5).prop_map(|(key, variant)| Op::Hit(key, variant)),
    ]
}

/// Keys that share few shards and buckets, so that runs of slots meet.
fn head(key: u8, variant: u8) -> Id {
    Id { a: u64::from(key % 3) | u64::from(key / 6 + 12) << 6 | u64::from(key) << 40, b: u64::from(variant) }
}

fn chunk(number: u8) -> Id {
    Id { a: u64::from(number % 3) | u64::from(number / 5 + 10) << 6 | 1 << 60, b: u64::from(number) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_whole_index_behaves_as_a_map(ops in proptest::collection::vec(op(), 1..500)) {
        let index = Index::default();
        let mut model: HashMap<(u64, u64), Location> = HashMap::new();
        let pair = |id: Id| (id.a, id.b);
        for (n, op) in ops.into_iter().enumerate() {
            match op {
                Op::Head(key, variant, at) => {
                    let (id, location) = (head(key, variant), Location::new(Kind::Head, at % 7, at * 64, 128));
                    index.shard(id.a).insert(id, location);
                    model.insert(pair(id), location);
                }
                Op::Chunk(number, at) => {
                    let (id, location) = (chunk(number), Location::new(Kind::Chunk, at % 5, at * 64, 4096));
                    index.shard(id.a).insert(id, location);
                    model.insert(pair(id), location);
                }
                Op::Remove(key, variant, moved) => {
                    let id = head(key, variant);
                    let known = model.get(&pair(id)).copied();
                    // A record that was written again elsewhere meanwhile stays.
                    let asked = if moved { Location::new(Kind::Head, 9, 64, 64) } else { known.unwrap_or_default() };
                    let removed = index.shard(id.a).remove(id, asked);
                    prop_assert_eq!(removed, known.is_some() && !moved);
                    if removed {
                        model.remove(&pair(id));
                    }
                }
                Op::Purge(key) => {
                    let (id, before) = (head(key, 0), model.len());
                    let (a, ticket) = (id.a, Ticket::new(id, n as u64, writer::Origin::Fill));
                    index.shard(a).register(Arc::clone(&ticket));
                    model.retain(|(other, _), _| *other != a);
                    prop_assert_eq!(index.shard(a).purge(a), (before - model.len(), 1));
                    prop_assert!(ticket.is_purged() && !index.shard(a).is_writing(n as u64));
                    index.shard(a).unregister(n as u64);
                }
                Op::Clear => {
                    index.clear(|| ());
                    model.retain(|_, location| location.kind() == Kind::Chunk);
                }
                Op::Hit(key, variant) => {
                    let id = head(key, variant);
                    let before = index.shard(id.a).get(id).map_or(0, Location::hits);
                    let hit = index.shard(id.a).hit(id);
                    prop_assert_eq!(hit.map(Location::hits), model.get(&pair(id)).map(|_| (before + 1).min(3)));
                }
            }
        }
        let ids = (0..60).flat_map(|key| (0..5).map(move |variant| head(key, variant))).chain((0..100).map(chunk));
        for id in ids {
            let (found, expected) = (index.shard(id.a).get(id), model.get(&pair(id)).copied());
            prop_assert_eq!(found.is_some(), expected.is_some());
            prop_assert!(found.zip(expected).is_none_or(|(found, expected)| found.same(expected)));
        }
        for key in 0..60 {
            let a = head(key, 0).a;
            let mut found: Vec<_> = index.shard(a).heads(a).iter().map(|found| (found.segment(), found.offset())).collect();
            let of_key = model.iter().filter(|((other, _), _)| *other == a);
            let mut expected: Vec<_> = of_key.map(|(_, at)| (at.segment(), at.offset())).collect();
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
        let objects = model.values().filter(|location| location.is_head()).count() as u64;
        let bytes: u64 = model.values().map(|location| u64::from(location.len())).sum();
        prop_assert_eq!(index.totals(), (objects, bytes));
    }
}

#[tokio::test]
async fn no_scribbled_segment_serves_anything_wrong() {
    for seal in [true, false] {
        let dir = TempDir::new().unwrap();
        let kept = small_store(&dir, seal).await;
        let path = dir.path().join("segments");
        let before = std::fs::read(&path).unwrap();
        let end = before.len() as u64;
        // The records, and the footer with the table before it.
        for at in (0..1400u64).step_by(13).chain((end - 160..end).step_by(11)) {
            // Nothing, noise, and what stands elsewhere in the same segment: a write that went to the wrong place.
            let len = 1 + at as usize * 31 % 200;
            let noise: Vec<u8> = body(at, len).to_vec();
            let elsewhere = &before[64 * (1 + at as usize % 5)..][..len];
            for scribble in [&vec![0; len], &noise, elsewhere] {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&scribble[..len.min((end - at) as usize)], at).unwrap();
                intact(&dir, &kept, &format!("scribbled at {at}, sealed: {seal}")).await;
                file.set_len(end).unwrap();
                for (start, part) in [(0, &before[..8192]), (end - 8192, &before[before.len() - 8192..])] {
                    file.write_all_at(part, start).unwrap();
                }
            }
        }
        assert_eq!(intact(&dir, &kept, "restored").await, kept.len());
    }
}
