//! The purge log: what was taken back, durable before the purge is acknowledged. One thread writes it; callers that
//! come together share one synchronisation.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::format::{PurgeRecord, PurgeScope, UNIT, log_header};
use super::io::{DiskFile, Mode, Volume};
use super::store::Store;
use super::{Hash128, Key, PurgeError};
use crate::cache::epochs::MAX_RECORDS;

/// The log's name in the tier's directory.
pub(super) const LOG_NAME: &str = "purge.log";
/// The name of its successor while that is written.
pub(super) const NEW_LOG_NAME: &str = "purge.log.new";
/// A log below this size is not worth compacting.
const COMPACT_AT: u64 = 1 << 20;
/// The log grows by so many zeros at a time: synchronising bytes that overwrite others needs no change of the file's
/// metadata, which is several times faster.
const GROW_BY: usize = 256 << 10;
/// Requests that share one synchronisation at most.
const MAX_GROUP: usize = 4096;
/// Records that could not be written are tried again this often, without waiting for the next purge.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };

/// One record to make durable, and who waits for it.
pub(super) struct Request {
    record: PurgeRecord,
    /// `None`: nobody does.
    reply: Option<oneshot::Sender<Result<(), io::ErrorKind>>>,
}

/// The callers' end.
pub(super) struct PurgeLog {
    requests: Mutex<Option<Sender<Request>>>,
}

impl PurgeLog {
    /// The callers' end and the thread's.
    pub fn new() -> (Self, Receiver<Request>) {
        let (sender, receiver) = channel();
        (Self { requests: Mutex::new(Some(sender)) }, receiver)
    }

    /// Returns once the record is on the disk.
    pub async fn append(&self, record: PurgeRecord) -> Result<(), PurgeError> {
        let (reply, done) = oneshot::channel();
        if !self.send(Request { record, reply: Some(reply) }) {
            return Err(PurgeError::Closed);
        }
        done.await.map_err(|_| PurgeError::Closed)?.map_err(PurgeError::Io)
    }

    /// Returns at once; the record is on the disk as soon as the thread comes to it, if the tier is not closed yet.
    pub fn append_later(&self, record: PurgeRecord) {
        self.send(Request { record, reply: None });
    }

    fn send(&self, request: Request) -> bool {
        self.requests.lock().as_ref().is_some_and(|requests| requests.send(request).is_ok())
    }

    /// Lets the thread end when it has done what was asked so far.
    pub fn close(&self) {
        self.requests.lock().take();
    }
}

/// The log's file, owned by the thread.
pub(super) struct LogFile {
    volume: Volume,
    file: DiskFile,
    /// Bytes up to the end of the last record.
    len: u64,
    /// Bytes of the file, zeros included.
    allocated: u64,
    seed: u64,
    store_id: u64,
    /// Records whose write failed; they go with the next group.
    owed: Vec<PurgeRecord>,
    /// A synchronisation failed: whether the disk has the file under its name, and all of it, is not known, and another
    /// synchronisation would not tell. Nothing is acknowledged before it is written anew.
    is_doubtful: bool,
    compact_from: u64,
    compact_at: u64,
}

/// What a log says.
pub(super) struct Loaded {
    pub records: Vec<PurgeRecord>,
    /// The log is missing or damaged: anything may have been purged.
    pub is_lost: bool,
    /// Where in the file a unit is neither zero nor valid.
    pub damaged: Vec<u64>,
    /// Bytes of the file.
    pub size: u64,
    /// Where the last record ends.
    len: u64,
}

impl Loaded {
    fn lost(damaged: Vec<u64>, size: u64) -> Self {
        Self { records: Vec::new(), is_lost: true, damaged, size, len: 0 }
    }
}

impl LogFile {
    /// Reads the log of a store.
    pub fn load(volume: &Volume, store_id: u64, seed: u64) -> io::Result<Loaded> {
        let Some(bytes) = volume.read(LOG_NAME)? else { return Ok(Loaded::lost(Vec::new(), 0)) };
        Ok(Self::parse(&bytes, store_id, seed))
    }

    /// Reads the bytes of a log.
    pub fn parse(bytes: &[u8], store_id: u64, seed: u64) -> Loaded {
        let size = bytes.len() as u64;
        let Some(units) = bytes.strip_prefix(&log_header(store_id, seed)) else { return Loaded::lost(vec![0], size) };
        let mut loaded = Loaded { records: Vec::new(), is_lost: false, damaged: Vec::new(), size, len: UNIT as u64 };
        for (n, unit) in units.chunks(UNIT).enumerate() {
            // A unit lies within one sector of the disk: it is there or it is zero, and anything else is damage.
            let record = <&[u8; UNIT]>::try_from(unit).ok().and_then(|unit| PurgeRecord::decode(unit, seed));
            match record {
                Some(record) => {
                    loaded.records.push(record);
                    loaded.len = (n as u64 + 2) * UNIT as u64;
                }
                None if *unit == [0; UNIT][..unit.len()] => {}
                None => loaded.damaged.push((n as u64 + 1) * UNIT as u64),
            }
        }
        loaded.is_lost = !loaded.damaged.is_empty();
        loaded
    }

    /// Puts a log with these records in the place of whatever was there, durably.
    pub fn create(volume: &Volume, store_id: u64, seed: u64, records: &[PurgeRecord]) -> io::Result<Self> {
        let log = Self::prepare(volume, store_id, seed, records)?;
        log.install()?;
        Ok(log)
    }

    /// A log that is on the disk, but not in force.
    fn prepare(volume: &Volume, store_id: u64, seed: u64, records: &[PurgeRecord]) -> io::Result<Self> {
        let mut bytes = log_header(store_id, seed).to_vec();
        records.iter().for_each(|record| bytes.extend_from_slice(&record.encode(seed)));
        let file = volume.open(NEW_LOG_NAME, Mode::Anew)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        let len = bytes.len() as u64;
        Ok(Self {
            volume: volume.clone(),
            file,
            len,
            allocated: len,
            seed,
            store_id,
            owed: Vec::new(),
            is_doubtful: false,
            compact_from: COMPACT_AT,
            compact_at: COMPACT_AT.max(len * 2),
        })
    }

    fn install(&self) -> io::Result<()> {
        self.volume.rename(NEW_LOG_NAME, LOG_NAME)?;
        self.volume.sync()
    }

    /// Continues the log that `load` read.
    pub fn resume(volume: &Volume, store_id: u64, seed: u64, loaded: &Loaded) -> io::Result<Self> {
        let file = volume.open(LOG_NAME, Mode::Existing)?;
        let (len, allocated) = (loaded.len, file.len()?);
        Ok(Self {
            volume: volume.clone(),
            file,
            len,
            allocated,
            seed,
            store_id,
            owed: Vec::new(),
            is_doubtful: false,
            compact_from: COMPACT_AT,
            compact_at: COMPACT_AT.max(len),
        })
    }

    /// Compacts a log of so many bytes already.
    #[cfg(test)]
    pub fn compact_from(&mut self, bytes: u64) {
        (self.compact_from, self.compact_at) = (bytes, bytes.max(self.len));
    }

    /// Makes the records durable, and those owed. On an error they are owed.
    fn write(&mut self, store: &Store, records: impl Iterator<Item = PurgeRecord>) -> io::Result<()> {
        self.owed.extend(records);
        if self.is_doubtful {
            return self.renew(store, <[PurgeRecord]>::to_vec);
        }
        let bytes: Vec<u8> = self.owed.iter().flat_map(|record| record.encode(self.seed)).collect();
        let end = self.len + bytes.len() as u64;
        if end > self.allocated {
            self.reserve(bytes.len());
        }
        self.file.write_all_at(&bytes, self.len)?;
        self.allocated = self.allocated.max(end);
        if let Err(error) = self.file.sync_data() {
            self.is_doubtful = true;
            return Err(error);
        }
        self.len = end;
        self.owed.clear();
        Ok(())
    }

    /// Lets the file grow ahead of need. A disk that is too full for it may still have room for a record.
    fn reserve(&mut self, needed: usize) {
        let zeros = vec![0; needed + GROW_BY];
        match self.file.write_all_at(&zeros, self.len) {
            Ok(()) => self.allocated = self.len + zeros.len() as u64,
            Err(error) => tracing::warn!(%error, "there is no room for the purge log to grow"),
        }
    }

    /// Puts a log of what `keep` makes of its records in its place, those owed included.
    fn renew(&mut self, store: &Store, keep: impl Fn(&[PurgeRecord]) -> Vec<PurgeRecord>) -> io::Result<()> {
        let mut loaded = Self::load(&self.volume, self.store_id, self.seed)?;
        if loaded.is_lost {
            tracing::warn!("the disk tier's purge log is damaged: everything stored counts as purged");
            let seq = store.index.clear(|| store.next_seq());
            loaded.records = vec![PurgeRecord { scope: PurgeScope::All, seq }];
        }
        loaded.records.append(&mut self.owed.clone());
        let kept = keep(&loaded.records);
        let mut fresh = Self::prepare(&self.volume, self.store_id, self.seed, &kept)?;
        (fresh.compact_from, fresh.compact_at) = (self.compact_from, self.compact_from.max(fresh.len * 2));
        // From the renaming on the old file is nobody's; it must not be written to should the rest fail.
        self.is_doubtful = true;
        fresh.install()?;
        *self = fresh;
        tracing::debug!(before = loaded.records.len(), after = kept.len(), "purge log written anew");
        Ok(())
    }

    /// Leaves out what no record on the disk is old enough for.
    fn compact(&mut self, store: &Store) -> io::Result<()> {
        let oldest = Oldest { seq: store.oldest_seq(), epoch: store.oldest_epoch() };
        self.renew(store, |records| compacted(records, oldest))
    }
}

/// Runs until the callers' end is closed.
pub(super) fn run(store: &Arc<Store>, mut log: LogFile, requests: &Receiver<Request>) {
    if log.allocated == log.len {
        log.reserve(0);
    }
    loop {
        let first = match log.owed.is_empty() {
            true => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => requests.recv_timeout(RETRY),
        };
        let mut group: Vec<Request> = match first {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        group.extend(requests.try_iter().take(MAX_GROUP - group.len()));
        let done = log.write(store, group.iter().map(|request| request.record));
        if let Err(error) = &done {
            tracing::error!(%error, owed = log.owed.len(), "purges could not be made durable");
            store.metrics.error("write").inc();
        }
        let done = done.map_err(|error| error.kind());
        for reply in group.into_iter().filter_map(|request| request.reply) {
            // A caller that is gone needs no answer.
            let _ = reply.send(done);
        }
        if log.len >= log.compact_at
            && let Err(error) = log.compact(store)
        {
            tracing::warn!(%error, "the purge log could not be compacted");
            log.compact_at = log.len * 2;
        }
    }
}

/// The lowest sequence and the lowest epoch of what is on the disk, stale records included.
#[derive(Clone, Copy)]
struct Oldest {
    seq: u64,
    epoch: u64,
}

/// The newest record of each key and scope, if a stored record can be older than it. What is forgotten is not just left
/// out: an ALL record up to there takes back all that was older. Nothing that counts is; but old records in segments that
/// were given up lie on the disk until others are written over them, and must not come back when the header that
/// hides them is damaged.
fn compacted(records: &[PurgeRecord], oldest: Oldest) -> Vec<PurgeRecord> {
    let last = |scope: PurgeScope| records.iter().filter(|r| r.scope == scope).map(|r| r.seq).max().unwrap_or(0);
    // What was asked for before a purge that is forgotten here, and arrives later, must not be taken for newer.
    let newest = records.iter().map(|record| record.seq).max().unwrap_or(0);
    // No stored record has a lower sequence, and no object a lower epoch.
    let floor = last(PurgeScope::All).max(oldest.seq.min(oldest.epoch).min(newest));
    let asked_floor = last(PurgeScope::Floor).max(oldest.epoch.min(newest)).max(floor);
    let mut keys: HashMap<Hash128, u64> = HashMap::new();
    let mut objects: HashMap<Key, u64> = HashMap::new();
    let mut scopes: HashMap<(u64, bool), PurgeRecord> = HashMap::new();
    for record in records {
        match record.scope {
            PurgeScope::Key(primary) if record.seq > floor => {
                let seq = keys.entry(primary).or_default();
                *seq = record.seq.max(*seq);
            }
            PurgeScope::Object(key) if record.seq > floor => {
                let seq = objects.entry(key).or_default();
                *seq = record.seq.max(*seq);
            }
            PurgeScope::Scope(scope) if record.seq > asked_floor => {
                let kept = scopes.entry((scope.scope, scope.soft_at.is_some())).or_insert(*record);
                if record.seq > kept.seq {
                    *kept = *record;
                }
            }
            PurgeScope::Key(_) | PurgeScope::Object(_) | PurgeScope::All | PurgeScope::Scope(_) | PurgeScope::Floor => {
            }
        }
    }
    let asked_floor = bounded(&mut scopes, asked_floor);
    let all = (floor > 0).then_some(PurgeRecord { scope: PurgeScope::All, seq: floor });
    let floor = (asked_floor > floor).then_some(PurgeRecord { scope: PurgeScope::Floor, seq: asked_floor });
    let keys = keys.into_iter().map(|(primary, seq)| PurgeRecord { scope: PurgeScope::Key(primary), seq });
    let objects = objects.into_iter().map(|(key, seq)| PurgeRecord { scope: PurgeScope::Object(key), seq });
    all.into_iter().chain(floor).chain(keys).chain(objects).chain(scopes.into_values()).collect()
}

/// Forgets the older half of too many; the floor.
fn bounded(scopes: &mut HashMap<(u64, bool), PurgeRecord>, floor: u64) -> u64 {
    if scopes.len() <= MAX_RECORDS {
        return floor;
    }
    let mut all: Vec<u64> = scopes.values().map(|record| record.seq).collect();
    let middle = all.len() / 2;
    let floor = floor.max(*all.select_nth_unstable(middle).1);
    scopes.retain(|_, record| record.seq > floor);
    floor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::epochs::Record;
    use crate::cache::scope::Kind;

    #[test]
    fn compaction_keeps_the_newest_purge_that_still_matters() {
        let key = |n, seq| PurgeRecord { scope: PurgeScope::Key([n; 16]), seq };
        let all = |seq| PurgeRecord { scope: PurgeScope::All, seq };
        let oldest = |seq, epoch| Oldest { seq, epoch };
        assert_eq!(compacted(&[key(1, 5), key(1, 9), key(2, 3)], oldest(4, 4)), [all(4), key(1, 9)]);
        assert_eq!(compacted(&[key(1, 5), key(1, 9)], oldest(10, 7)), [all(7), key(1, 9)], "an object has epoch 7");
        assert_eq!(compacted(&[key(1, 5), all(7), key(1, 9)], oldest(4, 0)), [all(7), key(1, 9)]);
        assert_eq!(compacted(&[key(1, 5), all(7)], oldest(8, 8)), [all(7)], "no higher than what was forgotten");
        assert_eq!(compacted(&[key(1, 5)], oldest(u64::MAX, u64::MAX)), [all(5)]);
        for variant in [None, Some([3; 16])] {
            let object = |seq| PurgeRecord { scope: PurgeScope::Object(Key { primary: [1; 16], variant }), seq };
            assert_eq!(compacted(&[object(5), object(9), object(3)], oldest(4, 4)), [all(4), object(9)]);
            assert_eq!(PurgeRecord::decode(&object(5).encode(3), 3), Some(object(5)));
        }
    }

    fn floor(seq: u64) -> PurgeRecord {
        PurgeRecord { scope: PurgeScope::Floor, seq }
    }

    #[test]
    fn compaction_keeps_the_newest_purge_of_each_scope_and_says_what_it_forgot() {
        let tag = |scope, seq, soft_at| PurgeRecord::from(Record { kind: Kind::Tag, scope, seq, soft_at });
        let oldest = |epoch| Oldest { seq: 100, epoch };
        let records = [tag(1, 5, None), tag(1, 9, None), tag(1, 8, Some(77)), tag(2, 3, None)];
        let sorted = |mut records: Vec<PurgeRecord>| {
            records.sort_by_key(|record| record.seq);
            records
        };
        // The sequences of records say nothing of epochs.
        assert_eq!(sorted(compacted(&records, oldest(0))), [tag(2, 3, None), tag(1, 8, Some(77)), tag(1, 9, None)]);
        let all = |seq| PurgeRecord { scope: PurgeScope::All, seq };
        assert_eq!(sorted(compacted(&records, oldest(4))), [all(4), tag(1, 8, Some(77)), tag(1, 9, None)]);
        assert_eq!(compacted(&records, oldest(u64::MAX)), [all(9)], "no higher than what was forgotten");
        assert_eq!(compacted(&[floor(6), tag(1, 5, None)], oldest(0)), [floor(6)]);
        for record in records {
            assert_eq!(PurgeRecord::decode(&record.encode(3), 3), Some(record));
        }
    }

    #[test]
    fn a_log_of_another_store_or_with_a_damaged_record_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::new(dir.path());
        let records = [PurgeRecord { scope: PurgeScope::Key([7; 16]), seq: 3 }];
        LogFile::create(&volume, 1, 2, &records).unwrap();
        assert_eq!(LogFile::load(&volume, 1, 2).unwrap().records, records);
        assert!(LogFile::load(&volume, 9, 2).unwrap().is_lost);
        let path = dir.path().join(LOG_NAME);
        let intact = std::fs::read(&path).unwrap();
        for at in 0..intact.len() {
            let mut bytes = intact.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(LogFile::load(&volume, 1, 2).unwrap().is_lost, "{at}");
        }
        // What was never written in full was never acknowledged, and zeros are what a lost sector reads as.
        std::fs::write(&path, [&intact[..], &[0; 100]].concat()).unwrap();
        let loaded = LogFile::load(&volume, 1, 2).unwrap();
        assert!(!loaded.is_lost && loaded.records == records);
    }
}
