//! The bytes on the disk, as `FORMAT.md` describes them: pure encoding and decoding, no I/O.

mod record;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use super::{Hash128, Key};
use crate::cache::epochs;
use crate::cache::scope::Kind as Kinds;

pub(super) use record::{Draft, DraftFields, Record};

/// Version of the format; a store of another version is refused.
pub(super) const VERSION: u32 = 3;
/// Records begin at multiples of this many bytes.
pub(super) const ALIGN: u32 = 64;
/// Body bytes under one checksum.
pub(super) const BLOCK: u32 = 64 << 10;
/// Bytes of a segment's header and of the fixed part of its footer.
pub(super) const FRAME: u32 = 64;
/// Bytes of one footer entry.
pub(super) const ENTRY: u32 = 24;
/// Bytes of a record's fixed header.
pub(super) const RECORD_HEADER: usize = 96;
/// Bytes of one copy of the superblock and of one purge log record.
pub(super) const UNIT: usize = 64;

const SUPERBLOCK_MAGIC: &[u8; 8] = b"selvedge";
const SEGMENT_MAGIC: u32 = 0x4745_5331;
const FOOTER_MAGIC: u32 = 0x544f_4f31;
const LOG_MAGIC: u32 = 0x474f_4c31;
const PURGE_KEY_MAGIC: u32 = 0x5955_5031;
const PURGE_ALL_MAGIC: u32 = 0x4c4c_4131;
const PURGE_SCOPE_MAGIC: u32 = 0x5043_5331;
const PURGE_FLOOR_MAGIC: u32 = 0x4f4c_4631;
const PURGE_OBJECT_MAGIC: u32 = 0x4a42_4f31;
/// Marks a soft purge in a SCOPE record.
const SOFT: u32 = 1;

/// Sizes that follow from the settings and the superblock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub segment_size: u32,
    pub segments: u32,
    /// Seeds every checksum and hash, so that no stored body can imitate a record.
    pub seed: u64,
}

impl Geometry {
    /// Where a segment begins in the data file.
    pub fn start(&self, segment: u32) -> u64 {
        u64::from(segment) * u64::from(self.segment_size)
    }

    /// Body bytes of one record at most: a sixteenth of a segment, whole blocks.
    pub fn chunk(&self) -> u32 {
        (self.segment_size / 16).clamp(BLOCK, 1 << 20)
    }

    /// Largest metadata of one object.
    pub fn max_meta(&self) -> usize {
        (self.segment_size as usize / 4).min(256 << 10)
    }
}

/// Where a key or chunk is in the index: `a` picks shard and bucket, both are compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Id {
    pub a: u64,
    pub b: u64,
}

/// `Id::a` of all variants of a cache key.
pub(super) fn primary_hash(primary: &Hash128, seed: u64) -> u64 {
    xxh3_64_with_seed(primary, seed)
}

/// The index identity of an object.
pub(super) fn head_id(key: &Key, seed: u64) -> Id {
    let mut bytes = [0u8; 33];
    write_key(key, &mut bytes);
    Id { a: primary_hash(&key.primary, seed), b: xxh3_64_with_seed(&bytes, seed) }
}

/// The index identity of the chunk that begins with block `first` of the write `write`.
pub(super) fn chunk_id(key: &Key, write: u64, first: u32, seed: u64) -> Id {
    let mut bytes = [0u8; 45];
    write_key(key, &mut bytes[..33]);
    bytes[33..41].copy_from_slice(&write.to_le_bytes());
    bytes[41..].copy_from_slice(&first.to_le_bytes());
    let hash = xxh3_128_with_seed(&bytes, seed);
    Id { a: hash as u64, b: (hash >> 64) as u64 }
}

fn write_key(key: &Key, out: &mut [u8]) {
    out[..16].copy_from_slice(&key.primary);
    if let Some(variant) = &key.variant {
        out[16] = 1;
        out[17..33].copy_from_slice(variant);
    }
}

/// Checksum of one body block: the same function as everywhere, from a crate that uses what the processor has. The other one is
/// quicker with what is small, and uses what every processor has.
pub(super) fn block_sum(block: &[u8], seed: u64) -> u64 {
    twox_hash::XxHash3_64::oneshot_with_seed(seed, block)
}

/// What the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub segment_size: u32,
    pub seed: u64,
    pub store_id: u64,
}

/// What 64 bytes that should be a superblock are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SuperblockRead {
    Valid(Superblock),
    OtherVersion(u32),
    Damaged,
}

impl Superblock {
    pub fn encode(&self) -> [u8; UNIT] {
        let mut out = [0u8; UNIT];
        out[8..16].copy_from_slice(SUPERBLOCK_MAGIC);
        put32(&mut out, 16, VERSION);
        put32(&mut out, 20, self.segment_size);
        put64(&mut out, 24, self.seed);
        put64(&mut out, 32, self.store_id);
        seal(&mut out, 0);
        out
    }

    pub fn decode(bytes: &[u8; UNIT]) -> SuperblockRead {
        if !sealed(bytes, 0) || &bytes[8..16] != SUPERBLOCK_MAGIC {
            return SuperblockRead::Damaged;
        }
        match get32(bytes, 16) {
            VERSION => SuperblockRead::Valid(Self {
                segment_size: get32(bytes, 20),
                seed: get64(bytes, 24),
                store_id: get64(bytes, 32),
            }),
            other => SuperblockRead::OtherVersion(other),
        }
    }
}

/// The first 64 bytes of a segment in use.
pub(super) fn segment_header(generation: u32, seed: u64) -> [u8; FRAME as usize] {
    let mut out = [0u8; FRAME as usize];
    put32(&mut out, 8, SEGMENT_MAGIC);
    put32(&mut out, 12, generation);
    seal(&mut out, seed);
    out
}

/// The generation in a segment's header, where it is valid.
pub(super) fn read_segment_header(bytes: &[u8; FRAME as usize], seed: u64) -> Option<u32> {
    (sealed(bytes, seed) && get32(bytes, 8) == SEGMENT_MAGIC).then(|| get32(bytes, 12))
}

/// The two kinds of record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// An object's metadata and the end of its body; makes the object visible.
    Head,
    /// Some whole blocks of a body.
    Chunk,
}

/// One record as the footer of its segment lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub id: Id,
    pub kind: Kind,
    pub offset: u32,
    pub len: u32,
    pub seq: u64,
}

/// The fixed part of a footer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Footer {
    pub generation: u32,
    pub count: u32,
    pub base_seq: u64,
    /// The lowest epoch of a HEAD record; `u64::MAX` if there is none.
    pub oldest: u64,
    end: u32,
    table_sum: u64,
}

/// A whole footer: the entries, then the fixed part. Belongs at the very end of the segment.
pub(super) fn encode_footer(
    generation: u32,
    base_seq: u64,
    oldest: u64,
    end: u32,
    entries: &[Entry],
    seed: u64,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY as usize + FRAME as usize);
    for entry in entries {
        let kind = if entry.kind == Kind::Chunk { 1u32 << 31 } else { 0 };
        out.extend_from_slice(&entry.id.a.to_le_bytes());
        out.extend_from_slice(&entry.id.b.to_le_bytes());
        out.extend_from_slice(&((entry.offset / ALIGN) | kind).to_le_bytes());
        out.extend_from_slice(&(entry.seq.saturating_sub(base_seq) as u32).to_le_bytes());
    }
    let mut frame = [0u8; FRAME as usize];
    put32(&mut frame, 8, FOOTER_MAGIC);
    put32(&mut frame, 12, generation);
    put32(&mut frame, 16, entries.len() as u32);
    put32(&mut frame, 20, end);
    put64(&mut frame, 24, base_seq);
    put64(&mut frame, 32, xxh3_64_with_seed(&out, seed));
    put64(&mut frame, 40, oldest);
    seal(&mut frame, seed);
    out.extend_from_slice(&frame);
    out
}

impl Footer {
    /// The fixed part, where it is valid and fits a segment.
    pub fn decode(bytes: &[u8; FRAME as usize], geometry: &Geometry) -> Option<Self> {
        if !sealed(bytes, geometry.seed) || get32(bytes, 8) != FOOTER_MAGIC {
            return None;
        }
        let footer = Self {
            generation: get32(bytes, 12),
            count: get32(bytes, 16),
            end: get32(bytes, 20),
            base_seq: get64(bytes, 24),
            table_sum: get64(bytes, 32),
            oldest: get64(bytes, 40),
        };
        let table = u64::from(footer.count) * u64::from(ENTRY);
        let fits = u64::from(footer.end) + table + u64::from(FRAME) <= u64::from(geometry.segment_size);
        fits.then_some(footer)
    }

    /// The entries; `None` if the table is not what was written.
    pub fn entries(&self, table: &[u8], geometry: &Geometry) -> Option<Vec<Entry>> {
        if table.len() != self.count as usize * ENTRY as usize
            || xxh3_64_with_seed(table, geometry.seed) != self.table_sum
        {
            return None;
        }
        let mut out: Vec<Entry> = Vec::with_capacity(self.count as usize);
        let mut end = self.end;
        for raw in table.rchunks_exact(ENTRY as usize) {
            let place = get32(raw, 16);
            let offset = (place & 0x00ff_ffff).checked_mul(ALIGN)?;
            let len = end.checked_sub(offset).filter(|len| *len > 0 && offset >= FRAME)?;
            end = offset;
            out.push(Entry {
                id: Id { a: get64(raw, 0), b: get64(raw, 8) },
                kind: if place >> 31 == 1 { Kind::Chunk } else { Kind::Head },
                offset,
                len,
                seq: self.base_seq.checked_add(u64::from(get32(raw, 20)))?,
            });
        }
        out.reverse();
        Some(out)
    }
}

/// What a purge log record takes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PurgeScope {
    /// All variants of one cache key.
    Key(Hash128),
    /// One stored response: it was replaced by one that is not stored.
    Object(Key),
    /// Everything.
    All,
    /// What has this scope and an epoch below the record's sequence.
    Scope(epochs::Record),
    /// Purges of lower sequence are forgotten: what has a lower epoch counts as purged.
    Floor,
}

/// Everything in `scope` that was written before `seq` is gone; of a SCOPE or FLOOR record, that was asked for before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PurgeRecord {
    pub scope: PurgeScope,
    pub seq: u64,
}

impl From<epochs::Record> for PurgeRecord {
    fn from(record: epochs::Record) -> Self {
        Self { scope: PurgeScope::Scope(record), seq: record.seq }
    }
}

impl PurgeRecord {
    pub fn encode(&self, seed: u64) -> [u8; UNIT] {
        let mut out = [0u8; UNIT];
        put64(&mut out, 16, self.seq);
        match &self.scope {
            PurgeScope::All => put32(&mut out, 8, PURGE_ALL_MAGIC),
            PurgeScope::Key(primary) => {
                put32(&mut out, 8, PURGE_KEY_MAGIC);
                out[24..40].copy_from_slice(primary);
            }
            PurgeScope::Object(key) => {
                put32(&mut out, 8, PURGE_OBJECT_MAGIC);
                put32(&mut out, 12, u32::from(key.variant.is_some()));
                out[24..40].copy_from_slice(&key.primary);
                out[40..56].copy_from_slice(&key.variant.unwrap_or_default());
            }
            PurgeScope::Scope(record) => {
                put32(&mut out, 8, PURGE_SCOPE_MAGIC);
                let soft = if record.soft_at.is_some() { SOFT } else { 0 };
                put32(&mut out, 12, u32::from(record.kind.code()) << 8 | soft);
                put64(&mut out, 24, record.scope);
                put64(&mut out, 32, record.soft_at.unwrap_or(0));
            }
            PurgeScope::Floor => put32(&mut out, 8, PURGE_FLOOR_MAGIC),
        }
        seal(&mut out, seed);
        out
    }

    pub fn decode(bytes: &[u8; UNIT], seed: u64) -> Option<Self> {
        let scope = match get32(bytes, 8) {
            PURGE_ALL_MAGIC => PurgeScope::All,
            PURGE_KEY_MAGIC => PurgeScope::Key(get_hash(bytes, 24)),
            PURGE_FLOOR_MAGIC => PurgeScope::Floor,
            PURGE_OBJECT_MAGIC => {
                let variant = match get32(bytes, 12) {
                    0 => None,
                    1 => Some(get_hash(bytes, 40)),
                    _ => return None,
                };
                PurgeScope::Object(Key { primary: get_hash(bytes, 24), variant })
            }
            PURGE_SCOPE_MAGIC => {
                let flags = get32(bytes, 12);
                let kind = Kinds::EVERY.into_iter().find(|kind| u32::from(kind.code()) == flags >> 8)?;
                let soft_at = (flags & SOFT != 0).then(|| get64(bytes, 32));
                PurgeScope::Scope(epochs::Record { kind, scope: get64(bytes, 24), seq: get64(bytes, 16), soft_at })
            }
            _ => return None,
        };
        sealed(bytes, seed).then(|| Self { scope, seq: get64(bytes, 16) })
    }
}

/// The first record of a purge log, tying it to its store.
pub(super) fn log_header(store_id: u64, seed: u64) -> [u8; UNIT] {
    let mut out = [0u8; UNIT];
    put32(&mut out, 8, LOG_MAGIC);
    put32(&mut out, 12, VERSION);
    put64(&mut out, 16, store_id);
    seal(&mut out, seed);
    out
}

/// The first eight bytes of a sealed structure are the checksum of the others.
pub(super) fn seal(bytes: &mut [u8], seed: u64) {
    let sum = xxh3_64_with_seed(&bytes[8..], seed);
    put64(bytes, 0, sum);
}

fn sealed(bytes: &[u8], seed: u64) -> bool {
    xxh3_64_with_seed(&bytes[8..], seed) == get64(bytes, 0)
}

fn put32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get32(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn get64(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

fn get_hash(bytes: &[u8], at: usize) -> Hash128 {
    let mut raw = [0; 16];
    raw.copy_from_slice(&bytes[at..at + 16]);
    raw
}
