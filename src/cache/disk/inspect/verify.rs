//! Verifying a store: every checksum of every record, footers against records, the superblock and the purge log.

use std::io;

use super::{ATTEMPTS, Inspector, SETTLE};
use crate::cache::disk::format::{
    self, ALIGN, BLOCK, ENTRY, Entry, FRAME, Footer, Geometry, Kind, RECORD_HEADER, Record, Superblock, SuperblockRead,
    UNIT, block_sum,
};
use crate::cache::disk::io::DiskFile;
use crate::cache::disk::{recovery, segment};

/// Bytes that are read at a time; no record is longer.
const SPAN: u32 = 4 << 20;

/// Where a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the superblock's file, at this byte.
    Superblock(u64),
    /// In the purge log, at this byte.
    PurgeLog(u64),
    /// In a segment of the data file, at this byte of the segment.
    Segment(u32, u32),
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One copy of the superblock is not what was written.
    Superblock,
    /// There is no purge log.
    NoLog,
    /// The purge log's header or one of its records is not what was written.
    PurgeLog,
    /// The header of a segment is not what was written.
    SegmentHeader,
    /// The fixed part of a footer is not what was written.
    Footer,
    /// The table of a footer is not what was written.
    FooterTable,
    /// A footer's entry and the record it names disagree.
    Entry,
    /// The header of a record is not what was written.
    RecordHeader,
    /// The block checksums, scopes or metadata of a record are not what was written.
    Metadata,
    /// A block of a body is not what was written.
    Body,
    /// What fills a record up is not zero.
    Padding,
    /// A segment without a footer ends here for a start, but records follow.
    OutOfReach,
    /// The data file ends within a segment.
    Cut,
    /// The disk does not give the bytes.
    Unreadable,
}

/// One finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What.
    pub damage: Damage,
}

/// What was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments with records.
    pub segments: u64,
    /// Segments that were used anew while they were being read, and are left out.
    pub changed: u64,
    /// Records, stale ones included.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records of the purge log.
    pub purges: u64,
    /// Problems found.
    pub problems: u64,
}

impl Damage {
    /// What it is, in a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Superblock => "a copy of the superblock is damaged",
            Self::NoLog => "the purge log is missing",
            Self::PurgeLog => "a unit of the purge log is damaged",
            Self::SegmentHeader => "the segment's header is damaged",
            Self::Footer => "the segment's footer is damaged",
            Self::FooterTable => "the table in the segment's footer is damaged",
            Self::Entry => "the footer and the record disagree",
            Self::RecordHeader => "a record's header is damaged",
            Self::Metadata => "a record's checksums, scopes or metadata are damaged",
            Self::Body => "a block of a body is damaged",
            Self::Padding => "the bytes that fill a record up are not zero",
            Self::OutOfReach => "the records behind this one are out of reach",
            Self::Cut => "the data file ends within the segment",
            Self::Unreadable => "the disk does not give these bytes",
        }
    }

    /// What it means, and what can be done.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Superblock => "the other copy is in use; stop the server and copy it over this one, 64 bytes",
            Self::NoLog | Self::PurgeLog => {
                "purges may be lost: the next start takes everything stored as purged; to keep what is stored is not possible"
            }
            Self::SegmentHeader => "the footer is used in its place; nothing is to be done",
            Self::Footer | Self::FooterTable => {
                "the next start reads the records one by one and writes the footer anew; nothing is to be done"
            }
            Self::Entry | Self::RecordHeader | Self::Metadata | Self::Body => {
                "what it belongs to is a miss and is fetched again; if there is more of this, check the disk"
            }
            Self::Padding => "nobody reads these bytes; check the disk",
            Self::OutOfReach => "the next start gives them up, and what they held is fetched again",
            Self::Cut => "what lay behind the end is fetched again; find out who has shortened the file",
            Self::Unreadable => "look for errors of the disk in the system's log, and replace it",
        }
    }
}

impl Inspector {
    /// Reads everything there is, in bounded memory, and passes on each problem. `progress` is told the bytes of the data
    /// file that were passed, and all of them. A segment that changes while it is read is read again, and left out if
    /// that goes on.
    ///
    /// # Errors
    /// The superblock or the purge log cannot be read at all.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64), report: &mut dyn FnMut(Problem)) -> io::Result<Verified> {
        let mut verified = Verified::default();
        let mut problems = self.superblock_problems()?;
        let log = self.load_log()?;
        verified.purges = log.records.len() as u64;
        problems.extend(log.damaged.iter().map(|at| Problem { place: Place::PurgeLog(*at), damage: Damage::PurgeLog }));
        if log.is_lost && log.damaged.is_empty() {
            problems.push(Problem { place: Place::PurgeLog(0), damage: Damage::NoLog });
        }
        verified.report(&problems, report);
        let Some(file) = &self.data else { return Ok(verified) };
        for segment in 0..self.geometry.segments {
            let start = self.geometry.start(segment);
            let mut read = |at: u32| progress(start + u64::from(at), self.geometry.start(self.geometry.segments));
            match steady(file, &self.geometry, segment, &mut read) {
                Some(found) => {
                    verified.segments += u64::from(found.records > 0);
                    verified.records += found.records;
                    verified.bytes += found.bytes;
                    verified.report(&found.problems, report);
                }
                None => verified.changed += 1,
            }
            read(self.geometry.segment_size);
        }
        Ok(verified)
    }

    fn superblock_problems(&self) -> io::Result<Vec<Problem>> {
        let bytes = self.volume.read(recovery::SUPERBLOCK_NAME)?.unwrap_or_default();
        let is_valid = |at: usize| {
            let copy = bytes.get(at..at + UNIT).and_then(|copy| <&[u8; UNIT]>::try_from(copy).ok());
            copy.is_some_and(|copy| matches!(Superblock::decode(copy), SuperblockRead::Valid(_)))
        };
        let damaged = recovery::COPIES_AT.into_iter().filter(|at| !is_valid(*at));
        Ok(damaged.map(|at| Problem { place: Place::Superblock(at as u64), damage: Damage::Superblock }).collect())
    }
}

impl Verified {
    fn report(&mut self, problems: &[Problem], report: &mut dyn FnMut(Problem)) {
        self.problems += problems.len() as u64;
        problems.iter().for_each(|problem| report(*problem));
    }
}

/// What is found of one segment.
#[derive(Default)]
struct Found {
    records: u64,
    bytes: u64,
    problems: Vec<Problem>,
}

/// A look at a segment that did not change meanwhile. Problems count if two looks agree on them: a record that is being
/// written is for a moment what a damaged one is.
fn steady(file: &DiskFile, geometry: &Geometry, segment: u32, progress: &mut dyn FnMut(u32)) -> Option<Found> {
    let mut before: Option<(Option<u32>, Vec<Problem>)> = None;
    for _ in 0..ATTEMPTS {
        let generation = segment::generation(file, geometry, segment);
        let found = Look { file, geometry, segment, found: Found::default(), progress }.run();
        let is_steady = segment::generation(file, geometry, segment) == generation;
        if is_steady && found.problems.is_empty() {
            return Some(found);
        }
        if let Some((earlier, problems)) = &before
            && is_steady
            && *earlier == generation
        {
            let agreed = found.problems.iter().filter(|problem| problems.contains(problem)).copied().collect();
            return Some(Found { problems: agreed, ..found });
        }
        before = is_steady.then_some((generation, found.problems));
        std::thread::sleep(SETTLE);
    }
    None
}

/// One pass over one segment.
struct Look<'a> {
    file: &'a DiskFile,
    geometry: &'a Geometry,
    segment: u32,
    found: Found,
    progress: &'a mut dyn FnMut(u32),
}

impl Look<'_> {
    fn run(mut self) -> Found {
        let (header, frame) = (self.frame(0), self.frame(self.geometry.segment_size - FRAME));
        let (Ok(header), Ok(frame)) = (header, frame) else {
            return self.found;
        };
        let opened = header.as_ref().and_then(|bytes| format::read_segment_header(bytes, self.geometry.seed));
        let footer = frame.as_ref().and_then(|bytes| Footer::decode(bytes, self.geometry));
        let is_blank = |bytes: &Option<[u8; FRAME as usize]>| bytes.is_none_or(|bytes| bytes == [0; FRAME as usize]);
        match (opened, footer) {
            // The header is older than the footer, or none.
            (opened, Some(footer)) if opened.is_none_or(|generation| generation < footer.generation) => {
                self.problem(0, Damage::SegmentHeader);
                self.sealed(&footer);
            }
            (Some(generation), Some(footer)) if generation == footer.generation => {
                if !self.sealed(&footer) {
                    self.unsealed(generation);
                }
            }
            (Some(generation), footer) => {
                if footer.is_none() && !is_blank(&frame) {
                    self.problem(self.geometry.segment_size - FRAME, Damage::Footer);
                }
                self.unsealed(generation);
            }
            (None, _) => {
                if !is_blank(&header) {
                    self.problem(0, Damage::SegmentHeader);
                }
                if !is_blank(&frame) {
                    self.problem(self.geometry.segment_size - FRAME, Damage::Footer);
                }
            }
        }
        self.found
    }

    fn problem(&mut self, offset: u32, damage: Damage) {
        self.found.problems.push(Problem { place: Place::Segment(self.segment, offset), damage });
    }

    /// The 64 bytes at an offset; `Ok(None)` where the file ends.
    fn frame(&mut self, offset: u32) -> Result<Option<[u8; FRAME as usize]>, ()> {
        let mut bytes = [0; FRAME as usize];
        match self.file.read_exact_at(&mut bytes, self.geometry.start(self.segment) + u64::from(offset)) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.problem(offset, Damage::Cut);
                Ok(None)
            }
            Err(_) => {
                self.problem(offset, Damage::Unreadable);
                Err(())
            }
        }
    }

    /// The records that a footer lists; false if its table cannot be used.
    fn sealed(&mut self, footer: &Footer) -> bool {
        let at = self.geometry.segment_size - FRAME - footer.count * ENTRY;
        let mut table = vec![0; footer.count as usize * ENTRY as usize];
        let read = self.file.read_exact_at(&mut table, self.geometry.start(self.segment) + u64::from(at));
        let Some(entries) = read.ok().and_then(|()| footer.entries(&table, self.geometry)) else {
            self.problem(at, Damage::FooterTable);
            return false;
        };
        let mut span = Span::new(self.file, self.geometry, self.segment);
        let mut oldest = u64::MAX;
        for entry in &entries {
            (self.progress)(entry.offset);
            match span.get(entry.offset, entry.len) {
                Err(_) => self.problem(entry.offset, Damage::Unreadable),
                Ok(bytes) => {
                    if let Some(record) = self.record(footer.generation, entry, bytes)
                        && record.kind == Kind::Head
                    {
                        oldest = oldest.min(record.epoch);
                    }
                }
            }
        }
        if footer.oldest > oldest || entries.first().is_some_and(|first| first.offset != FRAME) {
            self.problem(self.geometry.segment_size - FRAME, Damage::Entry);
        }
        true
    }

    /// The records from the start to the first that is not one.
    fn unsealed(&mut self, generation: u32) {
        let mut span = Span::new(self.file, self.geometry, self.segment);
        let (mut offset, mut last) = (FRAME, 0);
        loop {
            (self.progress)(offset);
            let head = span.get(offset, RECORD_HEADER as u32).ok();
            let record = head.and_then(|bytes| Record::decode(bytes, self.geometry));
            let room = self.geometry.segment_size - FRAME - offset;
            let Some(record) = record
                .filter(|record| record.generation == generation && record.seq > last && record.total_len() <= room)
            else {
                return self.beyond(&mut span, generation, offset, last);
            };
            let (len, id) = (record.total_len(), record.id(self.geometry.seed));
            let entry = Entry { id, kind: record.kind, offset, len, seq: record.seq };
            match span.get(offset, len) {
                Err(_) => self.problem(offset, Damage::Unreadable),
                Ok(bytes) => drop(self.record(generation, &entry, bytes)),
            }
            (offset, last) = (offset + len, record.seq);
        }
    }

    /// Looks for records behind the end of an unsealed segment. Nobody else does: what is found is not to be trusted, but
    /// it tells that the end is a hole.
    fn beyond(&mut self, span: &mut Span<'_>, generation: u32, end: u32, last: u64) {
        let mut offset = end;
        while let Some(next) =
            offset.checked_add(ALIGN).filter(|next| next + FRAME + ALIGN < self.geometry.segment_size)
        {
            offset = next;
            let Ok(bytes) = span.get(offset, RECORD_HEADER as u32) else { return };
            if bytes[8..16] == [0; 8] {
                continue;
            }
            let record = Record::decode(bytes, self.geometry);
            if record.is_some_and(|record| record.generation == generation && record.seq > last) {
                return self.problem(end, Damage::OutOfReach);
            }
        }
    }

    /// One record with all that has a checksum.
    fn record(&mut self, generation: u32, entry: &Entry, bytes: &[u8]) -> Option<Record> {
        self.found.records += 1;
        self.found.bytes += bytes.len() as u64;
        let (geometry, seed) = (self.geometry, self.geometry.seed);
        let Some(record) = Record::decode(bytes, geometry) else {
            self.problem(entry.offset, Damage::RecordHeader);
            return None;
        };
        let agrees = record.generation == generation
            && record.kind == entry.kind
            && record.seq == entry.seq
            && record.total_len() == entry.len
            && record.id(seed) == entry.id;
        if !agrees {
            self.problem(entry.offset, Damage::Entry);
            return None;
        }
        let (body_at, end) = (record.prefix_len(), record.prefix_len() + record.body_len as usize);
        let rest = &bytes[RECORD_HEADER..body_at];
        if !record.rest_is_valid(rest, seed) {
            self.problem(entry.offset + RECORD_HEADER as u32, Damage::Metadata);
            return Some(record);
        }
        let (blocks, sums) = (bytes[body_at..end].chunks(BLOCK as usize), rest.chunks_exact(8));
        for (n, (block, sum)) in blocks.zip(sums).enumerate() {
            if block_sum(block, seed).to_le_bytes() != *sum {
                self.problem(entry.offset + body_at as u32 + n as u32 * BLOCK, Damage::Body);
            }
        }
        if bytes[end..].iter().any(|byte| *byte != 0) {
            self.problem(entry.offset + end as u32, Damage::Padding);
        }
        Some(record)
    }
}

/// A part of a segment in memory, for reading it from its start to its end.
struct Span<'a> {
    file: &'a DiskFile,
    geometry: &'a Geometry,
    segment: u32,
    start: u32,
    bytes: Vec<u8>,
}

impl<'a> Span<'a> {
    fn new(file: &'a DiskFile, geometry: &'a Geometry, segment: u32) -> Self {
        Self { file, geometry, segment, start: 0, bytes: Vec::new() }
    }

    fn get(&mut self, offset: u32, len: u32) -> io::Result<&[u8]> {
        let held = self.start + self.bytes.len() as u32;
        if offset < self.start || offset + len > held {
            let want = len.max(SPAN).min(self.geometry.segment_size.saturating_sub(offset));
            self.bytes.resize(want as usize, 0);
            self.start = offset;
            let at = self.geometry.start(self.segment) + u64::from(offset);
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, at) {
                // A bad sector further on is not to hide what is before it.
                self.bytes.resize(len as usize, 0);
                let read = self.file.read_exact_at(&mut self.bytes, at);
                if read.is_err() {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        let skip = (offset - self.start) as usize;
        self.bytes.get(skip..skip + len as usize).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
