//! A disk that fails: crashes at any call, power failures, and errors that come and go.

use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::time::Duration;

use super::super::io::faults::next;
use super::*;
use crate::cache::scope::Kind;

const KEYS: u64 = 24;
const TAGS: u64 = 4;
/// Crashes of each of the stores that run side by side.
const CRASHES: u64 = 160;
const STORES: u64 = 4;

/// What may be served of each key. A later write has a higher version, whatever the key.
#[derive(Default)]
struct Model {
    version: u64,
    /// Versions up to here were purged, and that was acknowledged.
    purged: HashMap<u64, u64>,
    /// The lowest that this process may serve.
    least: HashMap<u64, u64>,
    served: u64,
}

impl Model {
    fn restart(&mut self) {
        self.least = self.purged.iter().map(|(n, version)| (*n, version + 1)).collect();
    }

    fn purge(&mut self, n: u64, is_durable: bool) {
        self.least.insert(n, self.version + 1);
        if is_durable {
            self.purged.insert(n, self.version);
        }
    }

    /// Looks the key up; what it finds must be allowed and whole.
    async fn check(&mut self, tier: &DiskTier, n: u64, what: &str) {
        let Some(object) = tier.get(&key(n)).await else { return };
        let version = u64::from_le_bytes(object.meta()[..8].try_into().unwrap());
        let least = self.least.get(&n).copied().unwrap_or(0);
        assert!(version >= least && version <= self.version, "{what}: {n} has {version}, not {least} or later");
        if let Ok(found) = read_all(&object, 100_000).await {
            assert!(found == content(version), "{what}: another body");
            self.served += 1;
        }
    }
}

/// The one body of a version: a part of a long random text, so that making it costs nothing.
fn content(version: u64) -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| body(1, 1 << 20));
    let size = match version % 8 {
        0 => 150_000 + (version % 97) as usize * 1000,
        n => n as usize * 4000 + (version % 89) as usize,
    };
    let start = version as usize * 1009 % 700_001;
    TEXT.slice(start..start + size)
}

fn start(machine: &Arc<Machine>, path: &Path, sync: SyncPolicy) -> Result<Arc<DiskTier>, OpenError> {
    let settings = Settings { sync, ..settings(path, 6) };
    let mut opened = recovery::open(&settings, &io::Volume::on(machine, path))?;
    opened.log.compact_from(1024);
    DiskTier::start(opened, &settings, Metrics::new().tier("disk"))
}

fn tagged(tier: &DiskTier, n: u64) -> Mark {
    Mark { epoch: tier.epochs().sequence(), scopes: [1000 + n % TAGS].into() }
}

async fn try_put(tier: &Arc<DiskTier>, n: u64, version: u64) -> bool {
    let mark = tagged(tier, n);
    let Some(mut writer) = tier.writer(key(n)) else { return false };
    let content = content(version);
    for part in content.chunks(40_000) {
        if writer.append(content.slice_ref(part)).await.is_err() {
            return false;
        }
    }
    writer.commit(&version.to_le_bytes(), &mark).await.is_ok()
}

async fn operate(tier: &Arc<DiskTier>, model: &mut Model, random: &mut u64, what: &str) {
    let n = next(random) % KEYS;
    match next(random) % 20 {
        0..9 => {
            model.version += 1;
            let version = model.version;
            try_put(tier, n, version).await;
            model.least.insert(n, version);
        }
        9..13 => {
            let done = tier.purge(&key(n).primary).await.is_ok();
            model.purge(n, done);
        }
        13 => {
            let record = tier.epochs().purge(Kind::Tag, 1000 + n % TAGS, None);
            let done = tier.log(&[record]).await.is_ok();
            (0..KEYS).filter(|other| other % TAGS == n % TAGS).for_each(|other| model.purge(other, done));
        }
        14 if next(random).is_multiple_of(8) => {
            let done = tier.purge_all().await.is_ok();
            (0..KEYS).for_each(|n| model.purge(n, done));
        }
        15 => {
            if let Some(object) = tier.get(&key(n)).await {
                let meta = [&object.meta()[..8], &[7; 100]].concat();
                tier.update_meta(&key(n), &meta, object.mark()).await;
            }
        }
        _ => model.check(tier, n, what).await,
    }
}

/// What goes wrong in the crash of this number, and whether the power fails with it.
fn plan(number: u64, random: &mut u64) -> (Plan, bool) {
    let common = Plan { seed: next(random), dies_at: Some(1 + next(random) % 250), ..Plan::default() };
    match number % 8 {
        0 => (common, false),
        1 => (common, true),
        2 => (Plan { write_fails: 30, ..common }, false),
        3 => (Plan { disk_full: 30, ..common }, true),
        4 => (Plan { short_write: 300, short_read: 300, ..common }, true),
        5 => (Plan { sync_fails: 200, directory_sync_fails: 200, ..common }, true),
        6 => (Plan { read_fails: 30, bit_flips: 30, ..common }, false),
        _ => (Plan { write_fails: 10, disk_full: 10, sync_fails: 50, read_fails: 10, ..common }, true),
    }
}

async fn crash_often(seed: u64) -> Model {
    let dir = TempDir::new().unwrap();
    let mut model = Model::default();
    let mut random = seed;
    for number in 0..CRASHES {
        let what = format!("seed {seed}, crash {number}");
        let (plan, loses_power) = plan(number, &mut random);
        let machine = Machine::new(plan);
        let sync = [SyncPolicy::Close, SyncPolicy::Always, SyncPolicy::Every(Duration::from_millis(10))]
            [(next(&mut random) % 3) as usize];
        model.restart();
        if let Ok(tier) = start(&machine, dir.path(), sync) {
            for _ in 0..10 + next(&mut random) % 90 {
                operate(&tier, &mut model, &mut random, &what).await;
                if machine.is_dead() {
                    break;
                }
            }
            match next(&mut random) % 3 {
                0 => machine.kill(),
                1 => tier.close().await,
                _ => {}
            }
        }
        // A machine that never got so far dies now.
        machine.kill();
        if loses_power {
            machine.lose_power();
        }
        model.restart();
        let sound = Machine::new(Plan::default());
        let tier = start(&sound, dir.path(), SyncPolicy::Close).unwrap();
        for n in 0..KEYS {
            model.check(&tier, n, &what).await;
        }
        drop(tier);
    }
    model
}

#[test]
fn after_640_crashes_nothing_wrong_and_nothing_purged_was_served() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(crash_often(seed))
    };
    let threads: Vec<_> = (1..=STORES).map(|seed| std::thread::spawn(move || run(seed))).collect();
    for thread in threads {
        let model = thread.join().unwrap();
        assert!(model.served > CRASHES, "too little outlasts a crash for this to tell anything: {}", model.served);
    }
}

fn location(tier: &DiskTier, key: &Key) -> index::Location {
    let id = head_id(key, tier.store.geometry.seed);
    tier.store.index.shard(id.a).get(id).unwrap()
}

async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let wait = async {
        while !ready() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

async fn until_written(tier: &DiskTier) {
    until("all is written", || {
        tier.store.appender.lock().pending.is_empty()
            && tier.store.unsynced.load(std::sync::atomic::Ordering::Acquire) == 0
    })
    .await;
}

#[tokio::test]
async fn what_was_synchronised_outlasts_a_power_failure() {
    for sync in [SyncPolicy::Always, SyncPolicy::Every(Duration::from_millis(10)), SyncPolicy::Close] {
        let dir = TempDir::new().unwrap();
        let machine = Machine::new(Plan { seed: 5, ..Plan::default() });
        let tier = start(&machine, dir.path(), sync).unwrap();
        for n in 0..KEYS {
            assert!(try_put(&tier, n, n).await);
        }
        match sync {
            SyncPolicy::Close => tier.close().await,
            SyncPolicy::Always | SyncPolicy::Every(_) => until_written(&tier).await,
        }
        machine.kill();
        drop(tier);
        machine.lose_power();
        let tier = start(&Machine::new(Plan::default()), dir.path(), sync).unwrap();
        for n in 0..KEYS {
            assert_holds(&tier, key(n), &n.to_le_bytes(), &content(n)).await;
        }
    }
}

#[tokio::test]
async fn what_a_compacted_log_forgot_stays_away_when_the_header_that_hides_it_is_damaged() {
    let dir = TempDir::new().unwrap();
    let tier = start(&Machine::new(Plan::default()), dir.path(), SyncPolicy::Close).unwrap();
    for n in 100..113 {
        put(&tier, key(n), b"m", &body(n, 70_000)).await;
    }
    put(&tier, key(1), b"purged", &body(1, 20_000)).await;
    let location = location(&tier, &key(1));
    assert!((location.segment(), location.offset() > 900_000) == (0, true));
    tier.purge(&key(1).primary).await.unwrap();
    let first = tier.store.generation(0);
    // Until the segment has been begun anew; what lies at its end is still that of its first use.
    for n in 200.. {
        put(&tier, key(n), b"m", &body(n, 30_000)).await;
        if tier.store.generation(0) != first {
            break;
        }
    }
    until("all is written", || tier.store.appender.lock().pending.is_empty()).await;
    for n in 0..40 {
        tier.purge(&key(5000 + n).primary).await.unwrap();
    }
    drop(tier);
    let log = std::fs::read(dir.path().join("purge.log")).unwrap();
    assert!(!log.windows(16).any(|bytes| bytes == key(1).primary), "the log has forgotten the purge");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(dir.path().join("segments")).unwrap();
    file.write_all_at(&[0xff], 9).unwrap();
    let tier = open(&dir, 6);
    assert!(tier.get(&key(1)).await.is_none(), "purged and back");
    assert!(tier.stats().objects > 10);
}

#[tokio::test]
async fn a_rewrite_that_is_no_longer_wanted_gives_its_room_back() {
    let dir = TempDir::new().unwrap();
    let tier = open(&dir, 4);
    put(&tier, key(1), b"m", &body(1, 30_000)).await;
    until("it is written", || tier.store.appender.lock().pending.is_empty()).await;
    let queue = &tier.store.queue;
    let free = queue.available_permits();
    let all = queue.acquire_many(free as u32).await.unwrap();
    // The rewrite is polled first and waits for room.
    let mark = tier.mark();
    let key = key(1);
    let (updated, ()) = tokio::join!(biased; tier.update_meta(&key, b"n", &mark), async {
        until("the stored record has been looked up", || location(&tier, &key).hits() > 0).await;
        tier.purge(&key.primary).await.unwrap();
        drop(all);
    });
    assert!(!updated);
    assert_eq!(queue.available_permits(), free);
}

#[tokio::test]
async fn a_segment_that_cannot_be_read_is_retired_and_comes_back_when_it_is_sound() {
    let dir = TempDir::new().unwrap();
    let machine = Machine::new(Plan::default());
    let metrics = Metrics::new();
    let volume = io::Volume::on(&machine, dir.path());
    let tier = DiskTier::open_on(&volume, &settings(dir.path(), 6), metrics.tier("disk")).unwrap();
    for n in 0..40 {
        put(&tier, key(n), b"m", &body(n, 50_000)).await;
    }
    until("all is written", || tier.store.appender.lock().pending.is_empty()).await;
    machine.break_reads(4096..MIB - 4096);
    let mut held = Vec::new();
    for n in 0..40 {
        if let Some(object) = tier.get(&key(n)).await {
            held.push(n);
            assert!(read_all(&object, 100_000).await.unwrap() == body(n, 50_000));
        }
    }
    assert!((20..38).contains(&held.len()), "{held:?}");
    until("the segment is retired", || metrics.tier("disk").error("segment").get() == 1).await;
    until("its objects are gone", || tier.stats().objects == held.len() as u64).await;
    assert_eq!(*tier.store.appender.lock().retired.make_contiguous(), [0]);
    // It is not used again as long as it is bad.
    for n in 100..300 {
        put(&tier, key(n), b"m", &body(n, 50_000)).await;
    }
    assert!(!tier.store.try_retired());
    assert_eq!(tier.store.generation(0), 0);
    machine.mend();
    assert!(tier.store.try_retired());
    for n in 300..500 {
        put(&tier, key(n), b"m", &body(n, 50_000)).await;
    }
    until("the segment is used", || tier.store.generation(0) > 0).await;
    assert_holds(&tier, key(499), b"m", &body(499, 50_000)).await;
    tier.close().await;
    drop(tier);
    // A header that cannot be read leaves its segment out; the others are served.
    let machine = Machine::new(Plan::default());
    machine.break_reads(MIB..MIB + 1);
    let volume = io::Volume::on(&machine, dir.path());
    let tier = DiskTier::open_on(&volume, &settings(dir.path(), 6), metrics.tier("disk")).unwrap();
    assert_eq!(*tier.store.appender.lock().retired.make_contiguous(), [1]);
    assert!(tier.stats().objects > 40);
}

async fn comes_back_after(range: Range<u64>, break_it: impl Fn(&Machine), mend: bool) {
    let dir = TempDir::new().unwrap();
    let machine = Machine::new(Plan::default());
    let metrics = Metrics::new();
    let volume = io::Volume::on(&machine, dir.path());
    let tier = DiskTier::open_on(&volume, &settings(dir.path(), 6), metrics.tier("disk")).unwrap();
    put(&tier, key(1), b"m", &body(1, 1000)).await;
    until("it is written", || tier.store.appender.lock().pending.is_empty()).await;
    break_it(&machine);
    let mut n = 100;
    while metrics.tier("disk").error("write").get() + metrics.tier("disk").error("full").get() == 0 {
        n += 1;
        try_put(&tier, n, n).await;
        tokio::task::yield_now().await;
    }
    if mend {
        // Reads go on.
        assert_holds(&tier, key(1), b"m", &body(1, 1000)).await;
        machine.change(Plan::default());
        machine.mend();
    }
    until("the tier takes writes", || tier.store.service() == store::Service::Open).await;
    until("an object is stored", || metrics.tier("disk").error("segment").get() == u64::from(!mend)).await;
    put(&tier, key(2), b"m", &body(2, 100_000)).await;
    until("it is written", || tier.store.appender.lock().pending.is_empty()).await;
    assert_holds(&tier, key(2), b"m", &body(2, 100_000)).await;
    let location = location(&tier, &key(2));
    let at = tier.store.geometry.start(location.segment()) + u64::from(location.offset());
    assert!(mend || !range.contains(&at), "{at}");
}

#[tokio::test]
async fn a_tier_that_cannot_write_comes_back_by_itself() {
    comes_back_after(0..0, |machine| machine.change(Plan { write_fails: 1000, ..Plan::default() }), true).await;
    comes_back_after(0..0, |machine| machine.change(Plan { disk_full: 1000, ..Plan::default() }), true).await;
}

#[tokio::test]
async fn a_segment_that_cannot_be_written_is_retired_and_the_others_go_on() {
    comes_back_after(0..MIB, |machine| machine.break_writes(2000..MIB), false).await;
    comes_back_after(MIB..2 * MIB, |machine| machine.break_writes(MIB..2 * MIB), false).await;
}

#[tokio::test]
async fn a_purge_that_failed_is_made_durable_later_without_being_asked() {
    // With the calls that mending takes: one write, or all of a new log.
    for (breaks, is_log_renamed, steps) in [
        (Plan { sync_fails: 1000, ..Plan::default() }, false, 6),
        (Plan { write_fails: 1000, ..Plan::default() }, false, 2),
        (Plan { directory_sync_fails: 1000, ..Plan::default() }, true, 6),
    ] {
        let dir = TempDir::new().unwrap();
        let machine = Machine::new(Plan { seed: 9, ..Plan::default() });
        let tier = start(&machine, dir.path(), SyncPolicy::Always).unwrap();
        for n in 0..KEYS {
            assert!(try_put(&tier, n, n).await);
        }
        until_written(&tier).await;
        machine.change(breaks);
        if is_log_renamed {
            // Compacting it puts a log in place that the disk may not know by that name.
            for n in 0..16 {
                let _ = tier.purge(&key(9000 + n).primary).await;
            }
        }
        assert!(tier.purge(&key(1).primary).await.is_err(), "{breaks:?}");
        assert!(tier.get(&key(1)).await.is_none());
        let seed = tier.store.geometry.seed;
        let unit = |unit: &[u8]| PurgeRecord::decode(unit.try_into().unwrap(), seed);
        machine.change(Plan::default());
        let calls = machine.calls();
        until("the log is written", || {
            let log = std::fs::read(dir.path().join("purge.log")).unwrap();
            let is_there = |bytes| unit(bytes).is_some_and(|r| r.scope == PurgeScope::Key(key(1).primary));
            log.chunks(64).any(is_there) && machine.calls() >= calls + steps
        })
        .await;
        // The next purge shares its fate with what was owed.
        tier.purge(&key(2).primary).await.unwrap();
        machine.kill();
        drop(tier);
        machine.lose_power();
        let tier = open(&dir, 6);
        for n in [1, 2] {
            assert!(tier.get(&key(n)).await.is_none(), "{n} is back: {breaks:?}");
        }
        assert_holds(&tier, key(3), &3u64.to_le_bytes(), &content(3)).await;
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_writing_the_log_anew_forgets_no_purge() {
    for step in 0..24 {
        for power in [false, true] {
            let dir = TempDir::new().unwrap();
            let machine = Machine::new(Plan { seed: step, ..Plan::default() });
            let tier = start(&machine, dir.path(), SyncPolicy::Close).unwrap();
            for n in 0..KEYS {
                assert!(try_put(&tier, n, 8 * n + 1).await);
            }
            until("all is written", || tier.store.appender.lock().pending.is_empty()).await;
            for n in 0..12 {
                tier.purge(&key(n).primary).await.unwrap();
            }
            machine.change(Plan { dies_at: Some(machine.calls() + step), ..Plan::default() });
            let mut purged: Vec<u64> = (0..12).collect();
            for n in 12..18 {
                if tier.purge(&key(n).primary).await.is_ok() {
                    purged.push(n);
                }
            }
            machine.kill();
            drop(tier);
            if power {
                machine.lose_power();
            }
            let tier = open(&dir, 6);
            for n in purged {
                assert!(tier.get(&key(n)).await.is_none(), "step {step}: {n} is back");
            }
            // Without a power failure nothing else is lost.
            for n in (18..KEYS).filter(|_| !power) {
                assert!(tier.contains(&key(n)), "step {step}: {n} is lost");
            }
        }
    }
}
