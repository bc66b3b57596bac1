//! Fuzz targets: what is read back from a disk. Nearly nothing of it gets past a checksum, which tells a fuzzer nothing:
//! therefore each input is also read as if its checksums were right.

use std::fs::File;

use bytes::Bytes;

use super::format::{
    self, ENTRY, Entry, FRAME, Footer, Geometry, Kind, PurgeRecord, RECORD_HEADER, Record, Superblock, SuperblockRead,
    UNIT, block_sum,
};
use super::format::{Draft, DraftFields};
use super::index::Location;
use super::io::DiskFile;
use super::purge_log::LogFile;
use super::{Key, segment};
use crate::cache::epochs::Mark;

const GEOMETRY: Geometry = Geometry { segment_size: 1 << 20, segments: 2, seed: 7 };
const SEED: u64 = GEOMETRY.seed;

/// The first bytes with a right checksum over them.
fn sealed<const N: usize>(data: &[u8], seed: u64) -> Option<[u8; N]> {
    let mut bytes: [u8; N] = *data.first_chunk()?;
    format::seal(&mut bytes, seed);
    Some(bytes)
}

/// A record: its parts lie within it, and it has a place in the index.
pub(crate) fn record(data: &[u8]) {
    let _ = Record::decode(data, &GEOMETRY);
    if let Some(head) = sealed::<RECORD_HEADER>(data, SEED)
        && let Some(record) = Record::decode(&head, &GEOMETRY)
    {
        let (meta_at, body_at, len) = (record.meta_at(), record.prefix_len(), record.total_len());
        assert!(RECORD_HEADER <= meta_at && meta_at <= body_at && body_at as u32 + record.body_len <= len);
        assert!(Location::new(record.kind, 1, 64, len).len() == len, "{len} bytes are too many for the index");
        let _ = record.id(SEED);
        if let Some(rest) = data.get(RECORD_HEADER..body_at) {
            let _ = record.rest_is_valid(rest, SEED);
            let rest = Bytes::copy_from_slice(rest);
            let (sums, scopes, meta) = (record.sums(&rest), record.scopes(&rest), record.meta(&rest));
            let lens = (sums.len() as u32, scopes.len() as u32, meta.len() as u32);
            assert_eq!(lens, (record.blocks(), record.scopes, record.meta_len));
        }
    }
    let (draft, kind) = draft(data);
    let (id, len) = (draft.id, draft.len());
    let written = draft.finish(3, 9, SEED).concat();
    let record = Record::decode(&written, &GEOMETRY);
    let agrees = record.is_some_and(|record| {
        let rest = &written[RECORD_HEADER..record.prefix_len()];
        record.kind == kind && record.id(SEED) == id && record.total_len() == len && record.rest_is_valid(rest, SEED)
    });
    assert!(agrees && written.len() as u32 == len, "a record that was written is read");
}

/// A record made of the input: its first bytes say what of it is what.
fn draft(data: &[u8]) -> (Draft, Kind) {
    let byte = |at: usize| data.get(at).copied().unwrap_or_default();
    let kind = if byte(0) & 1 == 0 { Kind::Head } else { Kind::Chunk };
    let (meta, body) = data.split_at(usize::from(byte(1)).min(data.len()));
    let meta = if kind == Kind::Head { meta } else { &[] };
    let scopes: Vec<u64> = (0..u64::from(byte(2))).collect();
    let mark = if kind == Kind::Head { Mark { epoch: 5, scopes: scopes.into() } } else { Mark::default() };
    let variant = (byte(3) & 1 == 1).then_some([byte(3); 16]);
    let fields = DraftFields {
        kind,
        key: Key { primary: [byte(4); 16], variant },
        write: byte(5).into(),
        first: byte(6).into(),
        sums: if body.is_empty() { &[] } else { &[block_sum(body, SEED)] },
        mark: &mark,
        meta,
        body: vec![Bytes::copy_from_slice(body)],
    };
    let body_fits = body.len() <= GEOMETRY.chunk() as usize;
    let fields = if body_fits { fields } else { DraftFields { sums: &[], body: Vec::new(), ..fields } };
    (Draft::new(fields, SEED), kind)
}

/// A footer: its entries lie within the segment, one after the other.
pub(crate) fn footer(data: &[u8]) {
    let Some(raw) = data.first_chunk::<{ FRAME as usize }>() else { return };
    let _ = Footer::decode(raw, &GEOMETRY);
    let table = &data[FRAME as usize..];
    let table = &table[..table.len() - table.len() % ENTRY as usize];
    let mut frame = *raw;
    frame[8..12].copy_from_slice(&0x544f_4f31u32.to_le_bytes());
    frame[16..20].copy_from_slice(&((table.len() / ENTRY as usize) as u32).to_le_bytes());
    frame[32..40].copy_from_slice(&block_sum(table, SEED).to_le_bytes());
    format::seal(&mut frame, SEED);
    let Some(footer) = Footer::decode(&frame, &GEOMETRY) else { return };
    let Some(entries) = footer.entries(table, &GEOMETRY) else { return };
    let Some(last) = entries.last() else { return };
    let end = last.offset + last.len;
    assert!(entries[0].offset >= FRAME && end + FRAME + table.len() as u32 <= GEOMETRY.segment_size);
    assert!(entries.windows(2).all(|pair| pair[0].offset + pair[0].len == pair[1].offset && pair[0].len > 0));
    let again = format::encode_footer(footer.generation, footer.base_seq, footer.oldest, end, &entries, SEED);
    let (table, frame) = again.split_at(again.len() - FRAME as usize);
    let footer = frame.first_chunk().and_then(|frame| Footer::decode(frame, &GEOMETRY));
    assert_eq!(footer.and_then(|footer| footer.entries(table, &GEOMETRY)), Some(entries));
}

/// A superblock: what is valid is written as the same.
pub(crate) fn superblock(data: &[u8]) {
    if let Some(raw) = data.first_chunk::<UNIT>() {
        let _ = Superblock::decode(raw);
    }
    let Some(bytes) = sealed::<UNIT>(data, 0) else { return };
    if let SuperblockRead::Valid(found) = Superblock::decode(&bytes) {
        assert_eq!(Superblock::decode(&found.encode()), SuperblockRead::Valid(found));
    }
}

/// A purge log, and its units.
pub(crate) fn purge_log(data: &[u8]) {
    let mut log = format::log_header(1, SEED).to_vec();
    let (mut valid, mut blank, mut units) = (0, 0, 0);
    for unit in data.chunks(UNIT) {
        let Some(bytes) = sealed::<UNIT>(unit, SEED) else { break };
        let bytes = if unit == [0; UNIT] { [0; UNIT] } else { bytes };
        units += 1;
        blank += usize::from(bytes == [0; UNIT]);
        if let Some(record) = PurgeRecord::decode(&bytes, SEED) {
            valid += 1;
            assert_eq!(PurgeRecord::decode(&record.encode(SEED), SEED), Some(record));
        }
        log.extend_from_slice(&bytes);
    }
    let loaded = LogFile::parse(&log, 1, SEED);
    assert_eq!((loaded.records.len(), loaded.is_lost), (valid, valid + blank < units));
    let loaded = LogFile::parse(data, 1, SEED);
    assert!(loaded.is_lost || data.starts_with(&format::log_header(1, SEED)));
}

/// A segment that is written, damaged and found again. The input is a list of orders.
pub(crate) fn segment(data: &[u8]) {
    let Ok(file) = rustix::fs::memfd_create("segment", rustix::fs::MemfdFlags::CLOEXEC)
        .map(|file| DiskFile::from(File::from(file)))
    else {
        return;
    };
    let mut written: Vec<Entry> = Vec::new();
    let (mut at, mut damaged) = (FRAME, false);
    let write = |bytes: &[u8], at: u32| file.write_all_at(bytes, at.into()).is_ok();
    if file.set_len(GEOMETRY.segment_size.into()).is_err() || !write(&format::segment_header(4, SEED), 0) {
        return;
    }
    for (n, order) in data.chunks(24).take(64).enumerate() {
        let place = u32::from(u16::from_le_bytes([order[0], order.get(1).copied().unwrap_or_default()]));
        match order.last().map_or(0, |last| last % 8) {
            0 => {
                damaged = true;
                write(order, place);
            }
            1 => {
                damaged = true;
                write(order, GEOMETRY.segment_size - 64 - place % 512);
            }
            2 => {
                let footer = format::encode_footer(place % 8, 1, 0, at, &written, SEED);
                write(&footer, GEOMETRY.segment_size - footer.len() as u32);
                damaged |= place % 8 != 4;
            }
            _ => {
                let (draft, kind) = draft(order);
                let (id, len, seq) = (draft.id, draft.len(), n as u64 + 1);
                write(&draft.finish(4, seq, SEED).concat(), at);
                written.push(Entry { id, kind, offset: at, len, seq });
                at += len;
            }
        }
    }
    let Some(found) = segment::read(&file, &GEOMETRY, 0) else {
        assert!(damaged);
        return;
    };
    let in_order = |pair: &[Entry]| pair[0].offset + pair[0].len == pair[1].offset;
    assert!(found.entries.windows(2).all(in_order));
    assert!(found.entries.last().is_none_or(|last| last.offset + last.len <= GEOMETRY.segment_size - FRAME));
    if !damaged && !found.is_sealed {
        assert_eq!(found.entries, written);
    }
    if !damaged {
        assert!(written.starts_with(&found.entries));
    }
}
