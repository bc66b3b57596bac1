//! The purge log: what was taken back, durable before the purge is acknowledged. One thread writes it; callers that
//! come together share one synchronisation.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::format::{PurgeRecord, PurgeScope, UNIT, log_header};
use super::store::Store;
use super::{Hash128, PurgeError};
use crate::cache::epochs::MAX_RECORDS;

/// The log's name in the tier's directory.
pub(super) const LOG_NAME: &str = "purge.log";
/// The name of its successor while that is written.
pub(super) const NEW_LOG_NAME: &str = "purge.log.new";
/// Mode of the tier's files: what a private origin answered is nobody else's to read.
pub(super) const PRIVATE: u32 = 0o600;
/// A log below this size is not worth compacting.
const COMPACT_AT: u64 = 1 << 20;
/// The log grows by so many zeros at a time: synchronising bytes that overwrite others needs no change of the file's
/// metadata, which is several times faster.
const GROW_BY: usize = 256 << 10;
/// Requests that share one synchronisation at most.
const MAX_GROUP: usize = 4096;

/// One record to make durable, and who waits for it.
pub(super) struct Request {
    record: PurgeRecord,
    reply: oneshot::Sender<Result<(), io::ErrorKind>>,
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
        let sent =
            self.requests.lock().as_ref().is_some_and(|requests| requests.send(Request { record, reply }).is_ok());
        if !sent {
            return Err(PurgeError::Closed);
        }
        done.await.map_err(|_| PurgeError::Closed)?.map_err(PurgeError::Io)
    }

    /// Lets the thread end when it has done what was asked so far.
    pub fn close(&self) {
        self.requests.lock().take();
    }
}

/// The log's file, owned by the thread.
pub(super) struct LogFile {
    directory: PathBuf,
    file: File,
    /// Bytes up to the end of the last record.
    len: u64,
    /// Bytes of the file, zeros included.
    allocated: u64,
    seed: u64,
    store_id: u64,
    /// Records whose write failed; they go with the next group.
    owed: Vec<PurgeRecord>,
    compact_at: u64,
}

/// What a log says.
pub(super) struct Loaded {
    pub records: Vec<PurgeRecord>,
    /// The log is missing or damaged: anything may have been purged.
    pub is_lost: bool,
    /// Where the last record ends.
    len: u64,
}

impl LogFile {
    /// Reads the log of a store.
    pub fn load(directory: &Path, store_id: u64, seed: u64) -> io::Result<Loaded> {
        let lost = || Loaded { records: Vec::new(), is_lost: true, len: 0 };
        let mut bytes = Vec::new();
        match File::open(directory.join(LOG_NAME)) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(lost()),
            Err(error) => return Err(error),
        };
        let Some(units) = bytes.strip_prefix(&log_header(store_id, seed)) else { return Ok(lost()) };
        let mut loaded = Loaded { records: Vec::new(), is_lost: false, len: UNIT as u64 };
        for (n, unit) in units.chunks(UNIT).enumerate() {
            // A unit lies within one sector of the disk: it is there or it is zero, and anything else is damage.
            let record = <&[u8; UNIT]>::try_from(unit).ok().and_then(|unit| PurgeRecord::decode(unit, seed));
            match record {
                Some(record) => {
                    loaded.records.push(record);
                    loaded.len = (n as u64 + 2) * UNIT as u64;
                }
                None => loaded.is_lost |= *unit != [0; UNIT][..unit.len()],
            }
        }
        Ok(loaded)
    }

    /// Puts a log with these records in the place of whatever was there, durably.
    pub fn create(directory: &Path, store_id: u64, seed: u64, records: &[PurgeRecord]) -> io::Result<Self> {
        let mut bytes = log_header(store_id, seed).to_vec();
        records.iter().for_each(|record| bytes.extend_from_slice(&record.encode(seed)));
        let fresh = directory.join(NEW_LOG_NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(PRIVATE).open(&fresh)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(&fresh, directory.join(LOG_NAME))?;
        File::open(directory)?.sync_all()?;
        let len = bytes.len() as u64;
        let compact_at = COMPACT_AT.max(len * 2);
        let directory = directory.to_owned();
        Ok(Self { directory, file, len, allocated: len, seed, store_id, owed: Vec::new(), compact_at })
    }

    /// Continues the log that `load` read.
    pub fn resume(directory: &Path, store_id: u64, seed: u64, loaded: &Loaded) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(directory.join(LOG_NAME))?;
        let (len, allocated) = (loaded.len, file.metadata()?.len());
        let compact_at = COMPACT_AT.max(len);
        let directory = directory.to_owned();
        Ok(Self { directory, file, len, allocated, seed, store_id, owed: Vec::new(), compact_at })
    }

    fn write(&mut self, records: impl Iterator<Item = PurgeRecord>) -> io::Result<()> {
        self.owed.extend(records);
        let bytes: Vec<u8> = self.owed.iter().flat_map(|record| record.encode(self.seed)).collect();
        let end = self.len + bytes.len() as u64;
        if end > self.allocated {
            self.file.write_all_at(&vec![0; bytes.len() + GROW_BY], self.len)?;
            self.allocated = end + GROW_BY as u64;
        }
        self.file.write_all_at(&bytes, self.len)?;
        rustix::fs::fdatasync(&self.file)?;
        self.len = end;
        self.owed.clear();
        Ok(())
    }

    /// Leaves out what no record on the disk is old enough for.
    fn compact(&mut self, store: &Store) -> io::Result<()> {
        let oldest = Oldest { seq: store.oldest_seq(), epoch: store.oldest_epoch() };
        // The segments that held older records are overwritten on the disk too before their purges are forgotten.
        rustix::fs::fdatasync(&store.file)?;
        let loaded = Self::load(&self.directory, self.store_id, self.seed)?;
        if loaded.is_lost {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let kept = compacted(&loaded.records, oldest);
        tracing::debug!(before = loaded.records.len(), after = kept.len(), "purge log compacted");
        *self = Self::create(&self.directory, self.store_id, self.seed, &kept)?;
        Ok(())
    }
}

/// Runs until the callers' end is closed.
pub(super) fn run(store: &Arc<Store>, mut log: LogFile, requests: &Receiver<Request>) {
    while let Ok(first) = requests.recv() {
        let mut group = vec![first];
        group.extend(requests.try_iter().take(MAX_GROUP - 1));
        let done = log.write(group.iter().map(|request| request.record));
        if let Err(error) = &done {
            tracing::error!(%error, "a purge could not be made durable");
            store.metrics.error("write").inc();
        }
        let done = done.map_err(|error| error.kind());
        for request in group {
            // A caller that is gone needs no answer.
            let _ = request.reply.send(done);
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

/// The newest record of each key and scope, if a stored record can be older than it.
fn compacted(records: &[PurgeRecord], oldest: Oldest) -> Vec<PurgeRecord> {
    let last = |scope: PurgeScope| records.iter().filter(|r| r.scope == scope).map(|r| r.seq).max();
    let all = last(PurgeScope::All);
    let floor = all.unwrap_or(0).max(oldest.seq);
    // What was asked for before a purge that is forgotten here, and arrives later, must not be taken for newer.
    let newest = records.iter().map(|record| record.seq).max().unwrap_or(0);
    let asked_floor = last(PurgeScope::Floor).unwrap_or(0).max(oldest.epoch.min(newest)).max(all.unwrap_or(0));
    let mut keys: HashMap<Hash128, u64> = HashMap::new();
    let mut scopes: HashMap<(u64, bool), PurgeRecord> = HashMap::new();
    for record in records {
        match record.scope {
            PurgeScope::Key(primary) if record.seq > floor => {
                let seq = keys.entry(primary).or_default();
                *seq = record.seq.max(*seq);
            }
            PurgeScope::Scope(scope) if record.seq > asked_floor => {
                let kept = scopes.entry((scope.scope, scope.soft_at.is_some())).or_insert(*record);
                if record.seq > kept.seq {
                    *kept = *record;
                }
            }
            PurgeScope::Key(_) | PurgeScope::All | PurgeScope::Scope(_) | PurgeScope::Floor => {}
        }
    }
    let asked_floor = bounded(&mut scopes, asked_floor);
    let all = all.filter(|seq| *seq > oldest.seq).map(|seq| PurgeRecord { scope: PurgeScope::All, seq });
    let floor = (asked_floor > 0).then_some(PurgeRecord { scope: PurgeScope::Floor, seq: asked_floor });
    let keys = keys.into_iter().map(|(primary, seq)| PurgeRecord { scope: PurgeScope::Key(primary), seq });
    all.into_iter().chain(floor).chain(keys).chain(scopes.into_values()).collect()
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
        assert_eq!(compacted(&[key(1, 5), key(1, 9), key(2, 3)], oldest(4, 0)), [key(1, 9)]);
        assert_eq!(compacted(&[key(1, 5), all(7), key(1, 9)], oldest(4, 0)), [all(7), floor(7), key(1, 9)]);
        assert_eq!(compacted(&[key(1, 5), all(7)], oldest(8, 0)), [floor(7)]);
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
        assert_eq!(sorted(compacted(&records, oldest(4))), [floor(4), tag(1, 8, Some(77)), tag(1, 9, None)]);
        assert_eq!(compacted(&records, oldest(u64::MAX)), [floor(9)], "no higher than what was forgotten");
        assert_eq!(compacted(&[floor(6), tag(1, 5, None)], oldest(0)), [floor(6)]);
        for record in records {
            assert_eq!(PurgeRecord::decode(&record.encode(3), 3), Some(record));
        }
    }

    #[test]
    fn a_log_of_another_store_or_with_a_damaged_record_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let records = [PurgeRecord { scope: PurgeScope::Key([7; 16]), seq: 3 }];
        LogFile::create(dir.path(), 1, 2, &records).unwrap();
        assert_eq!(LogFile::load(dir.path(), 1, 2).unwrap().records, records);
        assert!(LogFile::load(dir.path(), 9, 2).unwrap().is_lost);
        let path = dir.path().join(LOG_NAME);
        let intact = std::fs::read(&path).unwrap();
        for at in 0..intact.len() {
            let mut bytes = intact.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(LogFile::load(dir.path(), 1, 2).unwrap().is_lost, "{at}");
        }
        let appended = PurgeRecord { scope: PurgeScope::All, seq: 8 };
        std::fs::write(&path, &intact).unwrap();
        let loaded = LogFile::load(dir.path(), 1, 2).unwrap();
        LogFile::resume(dir.path(), 1, 2, &loaded).unwrap().write([appended].into_iter()).unwrap();
        let loaded = LogFile::load(dir.path(), 1, 2).unwrap();
        assert_eq!(loaded.records, [records[0], appended]);
        assert_eq!(loaded.len, 3 * UNIT as u64);
        // What was never written in full was never acknowledged, and zeros are what a lost sector reads as.
        std::fs::write(&path, [&intact[..], &[0; 100]].concat()).unwrap();
        let loaded = LogFile::load(dir.path(), 1, 2).unwrap();
        assert!(!loaded.is_lost && loaded.records == records);
    }
}
