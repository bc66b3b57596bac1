//! Purges by host, prefix, tag and everything, hard and soft.

use super::*;
use crate::cache::purge::{Failure, Order, Report, Scope};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

fn key_of(url: &str) -> Result<CacheKey, String> {
    let (host, path) = url.strip_prefix("https://").and_then(|url| url.split_once('/')).ok_or("no URL")?;
    Ok(key::target("https", host, 443, format!("/{path}").as_bytes()))
}

fn tag(name: &str) -> Scope {
    Scope::Tag(name.to_owned())
}

fn tagged(tags: &str, length: usize) -> CacheMeta {
    let mut head = ResponseHeader::build(200, None).unwrap();
    head.append_header("etag", "\"a\"").unwrap();
    head.append_header("content-length", length.to_string()).unwrap();
    head.append_header("surrogate-key", tags).unwrap();
    let now = SystemTime::now();
    CacheMeta::new(now + Duration::from_secs(600), now, 0, 0, head)
}

impl Bench {
    async fn purge(&self, scopes: Vec<Scope>, soft: bool) -> Report {
        self.cache.carry_out(&Order { scopes, soft }, key_of).await.unwrap()
    }

    async fn store(&self, url: &str, tags: &str, body: &Bytes) {
        self.store_as(key_of(url).unwrap(), tags, body).await;
    }

    async fn store_as(&self, mut key: CacheKey, tags: &str, body: &Bytes) {
        self.cache.stamp(&mut key);
        let mut miss = self.cache.get_miss_handler(&key, &tagged(tags, body.len()), &span()).await.unwrap();
        let own = self.cache.lookup_streaming_write(&key, miss.streaming_write_tag(), &span()).await;
        miss.write_body(body.clone(), true).await.unwrap();
        miss.finish().await.unwrap();
        drop(own);
    }

    /// How a look-up finds a URL: not, stale, or fresh.
    async fn state(&self, url: &str) -> Option<bool> {
        let found = self.find(&key_of(url).unwrap()).await;
        found.map(|(meta, _)| meta.is_fresh(self.clock.now()))
    }

    /// A restart over the same directory; without a disk tier nothing is left.
    async fn restarted(self) -> Self {
        self.cache.close().await;
        if let Some(disk) = &self.cache.disk {
            disk.unlock();
        }
        let disk = self.cache.disk.is_some().then(|| disk::Settings {
            path: self._dir.path().join("cache"),
            capacity: 64 * MIB,
            segment_size: MIB,
            sync: disk::SyncPolicy::Close,
            admission: admission::Rule::All,
        });
        let metrics: &'static Metrics = Box::leak(Box::new(Metrics::new()));
        let settings = Settings { memory_capacity: 32 * MIB, disk, max_object: None, slice_size: 64 << 10, grace: 0 };
        let cache = Cache::open(&settings, self.clock.clone(), metrics).unwrap();
        Self { cache, clock: self.clock, metrics, _dir: self._dir }
    }
}

const PAGES: [(&str, &str); 5] = [
    ("https://a.example/", "home"),
    ("https://a.example/blog", "blog"),
    ("https://a.example/blog/one?x=1", "blog news"),
    ("https://a.example/blogs", "other,news"),
    ("https://b.example/blog/one", "News"),
];

#[tokio::test]
async fn each_scope_takes_what_it_covers_and_nothing_else() {
    let prefix = |text: &str| Scope::Prefix(text.to_owned());
    for (scope, gone) in [
        (Scope::Url("https://a.example/blog".to_owned()), &[1][..]),
        (prefix("https://a.example/blog"), &[1, 2]),
        (prefix("A.example/"), &[0, 1, 2, 3]),
        (prefix("a.example/blog/one"), &[2]),
        (Scope::Host("A.example".to_owned()), &[0, 1, 2, 3]),
        (tag("news"), &[2, 3]),
        (tag("blog"), &[1, 2]),
        (tag("nothing"), &[]),
        (Scope::All, &[0, 1, 2, 3, 4]),
    ] {
        for (bench, soft) in every().into_iter().flat_map(|bench| [(bench, false)]).chain(every().map(|b| (b, true))) {
            for (url, tags) in PAGES {
                bench.store(url, tags, &content(100)).await;
            }
            bench.store("https://a.example/large", "large", &content(3 << 20)).await;
            bench.landed().await;
            let report = bench.purge(vec![scope.clone()], soft).await;
            assert_eq!(report.results[0].1, matches!(scope, Scope::Url(_)).then_some(true), "{scope:?}");
            for memory_too in [true, false] {
                if !memory_too && bench.cache.disk.is_some() {
                    bench.cache.memory.clear();
                }
                for (at, (url, _)) in PAGES.into_iter().enumerate() {
                    let expected = match (gone.contains(&at), soft) {
                        (true, false) => None,
                        (covered, _) => Some(!covered),
                    };
                    assert_eq!(bench.state(url).await, expected, "{scope:?} soft={soft} {url}");
                }
            }
            for (url, tags) in PAGES {
                bench.store(url, tags, &content(100)).await;
                assert_eq!(bench.state(url).await, Some(true), "what is stored later stays");
            }
            let bench = bench.restarted().await;
            if bench.cache.disk.is_some() {
                for (url, _) in PAGES {
                    assert_eq!(bench.state(url).await, Some(true), "{scope:?} {url}: newer than the purge");
                }
            }
        }
    }
}

#[tokio::test]
async fn purges_outlast_a_restart_and_the_time_of_soft_ones_too() {
    let bench = bench(32 * MIB, true);
    for (url, tags) in PAGES {
        bench.store(url, tags, &content(100)).await;
    }
    bench.store("https://c.example/large", "large", &content(3 << 20)).await;
    bench.landed().await;
    bench.purge(vec![tag("news"), Scope::Host("b.example".to_owned())], false).await;
    let report = bench.purge(vec![Scope::Url(PAGES[1].0.to_owned()), tag("large")], true).await;
    assert_eq!(report.results.iter().map(|(_, found)| *found).collect::<Vec<_>>(), [Some(true), None]);
    let (before, _) = bench.find(&key_of(PAGES[1].0).unwrap()).await.unwrap();
    bench.clock.advance(Duration::from_secs(100), true);
    let mut bench = bench;
    for _ in 0..2 {
        bench = bench.restarted().await;
        for (url, expected) in [
            (PAGES[0].0, Some(true)),
            (PAGES[1].0, Some(false)),
            (PAGES[2].0, None),
            (PAGES[3].0, None),
            (PAGES[4].0, None),
            ("https://c.example/large", Some(false)),
        ] {
            assert_eq!(bench.state(url).await, expected, "{url}");
        }
    }
    // What is stale for longer than a purge stays so: windows such as stale-if-error begin with the purge.
    let (after, _) = bench.find(&key_of(PAGES[1].0).unwrap()).await.unwrap();
    let apart = before.fresh_until().duration_since(after.fresh_until()).unwrap_or_default();
    assert!(apart < Duration::from_secs(3), "{apart:?}");
}

#[tokio::test]
async fn a_soft_purge_ends_with_a_validation_that_began_after_it() {
    for bench in every() {
        let url = PAGES[1].0;
        bench.store(url, "blog", &content(100)).await;
        bench.landed().await;
        let mut early = key_of(url).unwrap();
        bench.cache.stamp(&mut early);
        bench.purge(vec![tag("blog")], true).await;
        let (meta, _) = bench.find(&early).await.unwrap();
        let renewed = |tags| {
            let head = tagged(tags, 100);
            CacheMeta::new(head.fresh_until(), meta.created(), 0, 0, head.response_header_copy())
        };
        assert!(bench.cache.update_meta(&early, &renewed("blog"), &span()).await.unwrap());
        assert_eq!(bench.state(url).await, Some(false), "the origin answered that before the purge, perhaps");
        let mut late = key_of(url).unwrap();
        bench.cache.stamp(&mut late);
        assert!(bench.cache.update_meta(&late, &renewed("renamed"), &span()).await.unwrap());
        assert_eq!(bench.state(url).await, Some(true));
        bench.purge(vec![tag("blog")], false).await;
        assert_eq!(bench.state(url).await, Some(true), "the tags are those of the validation");
        bench.cache.memory.clear();
        if bench.cache.disk.is_some() {
            assert_eq!(bench.state(url).await, Some(true), "on the disk too");
        }
        bench.store(url, "renamed", &content(100)).await;
        bench.purge(vec![tag("renamed")], false).await;
        assert_eq!(bench.state(url).await, None);
        assert!(!bench.cache.update_meta(&late, &renewed("renamed"), &span()).await.unwrap());
    }
}

#[tokio::test]
async fn a_fill_that_a_purge_by_scope_overtakes_is_not_stored() {
    for bench in every() {
        for (size, soft) in [(1000, false), (3 << 20, false), (1000, true), (3 << 20, true)] {
            let (url, body) = (format!("https://a.example/{size}/{soft}"), content(size));
            let mut key = key_of(&url).unwrap();
            bench.cache.stamp(&mut key);
            let mut miss = bench.cache.get_miss_handler(&key, &tagged("t", size), &span()).await.unwrap();
            let own = bench.cache.lookup_streaming_write(&key, miss.streaming_write_tag(), &span()).await;
            miss.write_body(body.slice(..500), false).await.unwrap();
            assert_eq!(bench.tier(&key).await, Some(Tier::Fill));
            bench.purge(vec![tag("t")], soft).await;
            assert!(bench.find(&key).await.is_none(), "no longer found");
            bench.store(&url, "t", &body).await;
            bench.landed().await;
            miss.write_body(body.slice(500..), true).await.unwrap();
            miss.finish().await.unwrap();
            assert!(read(&mut own.unwrap().unwrap().1).await.unwrap() == body);
            bench.landed().await;
            assert_eq!(bench.state(&url).await, Some(true), "what came after the purge is not replaced");
        }
    }
}

#[tokio::test]
async fn a_purged_url_is_reported_as_stored_only_if_it_was() {
    for bench in every() {
        let url = || Scope::Url("https://a.example/x".to_owned());
        let mut variant = key_of("https://a.example/x").unwrap();
        variant.set_variance_key([3; 16]);
        for soft in [false, true] {
            assert_eq!(bench.purge(vec![url()], soft).await.purged(), Some(0));
            bench.store_as(variant.clone(), "t", &content(10)).await;
            bench.landed().await;
            assert_eq!(bench.purge(vec![url()], soft).await.purged(), Some(1));
            bench.purge(vec![tag("t")], false).await;
            bench.cache.memory.clear();
            assert_eq!(bench.purge(vec![url()], soft).await.purged(), Some(0), "the tag had taken it");
        }
    }
}

#[tokio::test]
async fn nothing_is_purged_when_a_scope_is_not_understood() {
    let bench = bench(32 * MIB, false);
    bench.store(PAGES[0].0, "t", &content(10)).await;
    for bad in [
        tag(""),
        tag("a b"),
        Scope::Host("a b".to_owned()),
        Scope::Prefix("a.example/x?y".to_owned()),
        Scope::Prefix(format!("a.example{}", "/x".repeat(MAX_DEPTH + 1))),
        Scope::Url("nonsense".to_owned()),
    ] {
        let order = Order { scopes: vec![tag("t"), bad.clone()], soft: false };
        let error = bench.cache.carry_out(&order, key_of).await.unwrap_err();
        assert!(matches!(&error, Failure::Bad { scope, .. } if *scope == bad), "{error}");
    }
    assert_eq!(bench.state(PAGES[0].0).await, Some(true));
}

#[tokio::test]
async fn old_purges_are_forgotten_and_nothing_comes_back() {
    for bench in every() {
        for n in 0..20 {
            bench.store(&format!("https://a.example/{n}"), &format!("t{n}"), &content(10)).await;
        }
        bench.landed().await;
        for n in 0..10 {
            bench.purge(vec![tag(&format!("t{n}"))], n % 2 == 1).await;
        }
        for n in 100..6_000 {
            bench.cache.enter(scope::Kind::Tag, n, false);
        }
        assert!(bench.cache.epochs.is_crowded());
        bench.cache.sweep();
        bench.cache.sweep();
        let kept = bench.cache.epochs.records();
        // Those that made responses in memory stale are still needed; so is all that the disk may be older than.
        assert!(if bench.cache.disk.is_some() { kept > 5_000 } else { kept < 5_950 }, "{kept}");
        for n in 0..20 {
            let expected = if n >= 10 { Some(true) } else { (n % 2 == 1).then_some(false) };
            assert_eq!(bench.state(&format!("https://a.example/{n}")).await, expected, "{n}");
        }
    }
    let bench = bench(32 * MIB, false);
    bench.store("https://a.example/", "kept", &content(10)).await;
    for n in 100..6_000 {
        bench.cache.enter(scope::Kind::Tag, n, false);
    }
    bench.cache.sweep();
    bench.cache.sweep();
    assert_eq!(bench.cache.epochs.records(), 0);
    assert_eq!(bench.state("https://a.example/").await, Some(true));
}

#[tokio::test]
async fn what_eviction_writes_again_lets_old_purges_be_forgotten() {
    let bench = bench(0, true);
    for n in 0..20 {
        bench.store(&format!("https://a.example/{n}"), if n < 10 { "gone" } else { "kept" }, &content(1000)).await;
    }
    bench.landed().await;
    let disk = bench.cache.disk.as_ref().unwrap();
    let before = disk.oldest_epoch();
    bench.purge(vec![tag("gone")], false).await;
    for n in 0..1500 {
        for hot in 0..20 {
            if n % 50 == 0 {
                let _ = bench.state(&format!("https://a.example/{hot}")).await;
            }
        }
        bench.store(&format!("https://b.example/{n}"), "", &content(60_000)).await;
        bench.landed().await;
    }
    assert!(disk.oldest_epoch() > before + 100, "{} {before}", disk.oldest_epoch());
    bench.cache.sweep();
    bench.cache.sweep();
    assert_eq!(bench.cache.epochs.records(), 0);
    let bench = bench.restarted().await;
    for n in 0..20 {
        assert_eq!(bench.state(&format!("https://a.example/{n}")).await, (n >= 10).then_some(true), "{n}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Store(usize, Vec<usize>),
    Purge(Scope, bool),
    Look(usize),
    ForgetMemory,
    Sweep,
    Restart,
}

const HOSTS: [&str; 2] = ["a.example", "b.example"];
const PATHS: [&str; 4] = ["/", "/x", "/x/y", "/xy"];

fn url(at: usize) -> String {
    format!("https://{}{}", HOSTS[at % 2], PATHS[at / 2 % 4])
}

fn step() -> impl Strategy<Value = Step> {
    let scope = prop_oneof![
        (0usize..8).prop_map(|at| Scope::Url(url(at))),
        (0usize..8).prop_map(|at| Scope::Prefix(url(at))),
        (0usize..2).prop_map(|at| Scope::Host(HOSTS[at].to_owned())),
        (0usize..3).prop_map(|at| tag(&format!("t{at}"))),
        Just(Scope::All),
    ];
    prop_oneof![
        8 => (0usize..8, proptest::collection::vec(0usize..3, 0..3)).prop_map(|(at, tags)| Step::Store(at, tags)),
        4 => (scope, any::<bool>()).prop_map(|(scope, soft)| Step::Purge(scope, soft)),
        4 => (0usize..8).prop_map(Step::Look),
        1 => Just(Step::ForgetMemory),
        1 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

/// Whether a naive reading of the rules has the scope cover the response.
fn covers(scope: &Scope, at: usize, tags: &[usize]) -> bool {
    match scope {
        Scope::All => true,
        Scope::Url(other) => *other == url(at),
        Scope::Host(host) => HOSTS[at % 2] == host,
        Scope::Tag(tag) => tags.iter().any(|t| format!("t{t}") == *tag),
        Scope::Prefix(prefix) => {
            let bare = prefix.strip_suffix('/').unwrap_or(prefix);
            url(at).strip_prefix(bare).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

async fn agrees_with_the_model(steps: Vec<Step>, disk: bool) -> Result<(), TestCaseError> {
    let mut bench = bench(32 * MIB, disk);
    // Tags and freshness by URL.
    let mut model: HashMap<usize, (Vec<usize>, bool)> = HashMap::new();
    for step in steps {
        match step {
            Step::Store(at, tags) => {
                let names: Vec<String> = tags.iter().map(|tag| format!("t{tag}")).collect();
                bench.store(&url(at), &names.join(" "), &content(20)).await;
                bench.landed().await;
                model.insert(at, (tags, true));
            }
            Step::Purge(scope, soft) => {
                bench.purge(vec![scope.clone()], soft).await;
                for (_, (_, fresh)) in model.iter_mut().filter(|(at, (tags, _))| covers(&scope, **at, tags)) {
                    *fresh = false;
                }
                if !soft {
                    model.retain(|at, (tags, _)| !covers(&scope, *at, tags));
                }
            }
            Step::Look(at) => {
                let expected = model.get(&at).map(|(_, fresh)| *fresh);
                prop_assert_eq!(bench.state(&url(at)).await, expected, "{}", url(at));
            }
            Step::ForgetMemory if disk => bench.cache.memory.clear(),
            Step::ForgetMemory => {}
            Step::Sweep => bench.cache.sweep(),
            Step::Restart if disk => bench = bench.restarted().await,
            Step::Restart => {}
        }
    }
    for at in 0..8 {
        prop_assert_eq!(bench.state(&url(at)).await, model.get(&at).map(|(_, fresh)| *fresh), "{}", url(at));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_order_of_stores_purges_and_restarts_agrees_with_a_naive_model(
        steps in proptest::collection::vec(step(), 1..60), disk in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(agrees_with_the_model(steps, disk))?;
    }
}

const MILLION: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purging_a_tag_of_a_million_objects_is_one_operation_and_no_look_up_sees_them_afterwards() {
    let bench = bench(8 << 30, false);
    let cache = bench.cache;
    // One head for all, so that they are quick to make: every tenth has the tag.
    let meta = CacheMeta::new(SystemTime::now() + Duration::from_secs(600), SystemTime::now(), 0, 0, {
        ResponseHeader::build(200, None).unwrap()
    });
    let hashed = |n: u64| xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()).to_be_bytes();
    let whole = key_of("https://a.example/").unwrap().primary_key().to_vec();
    let head = entry::Head::new(&meta, &whole, true, cache.shards.sequence()).unwrap();
    let (tagged, untagged): (Arc<[u64]>, _) = ([scope::of_tag("t").unwrap()].into(), head.mark.scopes.clone());
    let fill = &|from: u64| {
        for n in (from..MILLION).step_by(2) {
            let mut head = head.clone();
            head.mark.scopes = if n % 10 == 0 { Arc::clone(&tagged) } else { Arc::clone(&untagged) };
            let entry = Arc::new(memory::Entry::new(head, entry::Body::default(), 1));
            let key = disk::Key { primary: hashed(n), variant: None };
            assert!(cache.shards.with(&key.primary, |shard| cache.insert(shard, key, entry, cache.shards.sequence())));
        }
    };
    std::thread::scope(|scope| [0, 1].map(|from| scope.spawn(move || fill(from))).map(|done| done.join().unwrap()));
    let find = move |n: u64| async move {
        let mut key = key_of("https://a.example/").unwrap();
        key.set_primary_bin_override(hashed(n));
        cache.lookup(&key, &span()).await.unwrap().is_some()
    };
    assert!(find(0).await && find(1).await);

    let purged = Arc::new(AtomicBool::new(false));
    let mut load = tokio::task::JoinSet::new();
    for reader in 0..4u64 {
        let purged = Arc::clone(&purged);
        load.spawn(async move {
            let (mut seen, mut missed) = (0, 0);
            for round in 0..10_000u64 {
                let n = (round * 7919 + reader * 10_007) % (MILLION / 10) * 10;
                let after = purged.load(Ordering::SeqCst);
                let found = find(n).await;
                assert!(!(after && found), "{n} was found after its purge");
                assert!(find(n + 1).await, "{} has another tag", n + 1);
                (seen, missed) = if found { (seen + 1, missed) } else { (seen, missed + 1) };
                if round % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            (seen, missed)
        });
    }
    let looked = bench.metrics.tier("memory").objects.get();
    let operations = cache.epochs.operations.load(Ordering::Relaxed);
    bench.purge(vec![tag("t")], false).await;
    purged.store(true, Ordering::SeqCst);
    assert_eq!(cache.epochs.operations.load(Ordering::Relaxed) - operations, 1, "whatever the number of objects");
    assert_eq!(cache.epochs.records(), 2, "the tag's, and that of what has unknown tags");
    let mut missed = 0;
    while let Some(done) = load.join_next().await {
        missed += done.unwrap().1;
    }
    assert!(missed > 0, "the load went on after the purge");
    assert!(looked > 900_000, "{looked} objects");
    assert!(!find(0).await && find(1).await);
}
