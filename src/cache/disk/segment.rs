//! What one segment says of itself: its header, its footer, and the records that a walk finds where there is no footer.

use std::io;

use super::format::{self, ENTRY, Entry, FRAME, Footer, Geometry, Kind, RECORD_HEADER, Record};
use super::io::DiskFile;

/// The two ends of a segment.
pub(super) struct Ends {
    /// The generation in the header.
    pub opened: Option<u32>,
    /// The frame of the footer.
    pub footer: Option<Footer>,
    /// There is something at one end that is no header or footer: what it said is unknown.
    pub is_damaged: bool,
}

impl Ends {
    /// Reads header and footer frame.
    ///
    /// # Errors
    /// The disk does not give one of them. The other says nothing then: it may be of an earlier use.
    pub fn read(file: &DiskFile, geometry: &Geometry, segment: u32) -> io::Result<Self> {
        let (header, opened) =
            read_end(file, geometry.start(segment), |header| format::read_segment_header(header, geometry.seed))?;
        let (frame, footer) = read_footer(file, geometry, segment)?;
        let is_blank = |end: [u8; FRAME as usize]| end == [0; FRAME as usize];
        let is_damaged = opened.is_none() && !is_blank(header) || footer.is_none() && !is_blank(frame);
        Ok(Self { opened, footer, is_damaged })
    }

    /// The highest generation that either names: that of the present use.
    pub fn generation(&self) -> Option<u32> {
        self.opened.max(self.footer.as_ref().map(|footer| footer.generation))
    }

    /// The footer, unless the segment was begun anew since.
    pub fn sealed(&self) -> Option<&Footer> {
        self.footer.as_ref().filter(|footer| self.opened.is_none_or(|opened| opened <= footer.generation))
    }
}

/// What a segment holds.
pub(super) struct Content {
    pub generation: u32,
    pub entries: Vec<Entry>,
    /// Whether the footer of this use lists the entries; else a scan found them.
    pub is_sealed: bool,
}

/// All that a segment holds; `None` if that is nothing, or the disk does not give it.
pub(super) fn read(file: &DiskFile, geometry: &Geometry, segment: u32) -> Option<Content> {
    let ends = Ends::read(file, geometry, segment).ok()?;
    let generation = ends.generation()?;
    let listed = ends.sealed().and_then(|footer| read_table(file, geometry, segment, footer).ok().flatten());
    let is_sealed = listed.is_some();
    let entries = listed.unwrap_or_else(|| scan(file, geometry, segment, generation).entries);
    Some(Content { generation, entries, is_sealed })
}

/// The generation of a segment's present use; `None` for one that was never used.
pub(super) fn generation(file: &DiskFile, geometry: &Geometry, segment: u32) -> Option<u32> {
    Ends::read(file, geometry, segment).ok()?.generation()
}

/// The records of a segment as its footer lists them, or as a scan finds them if that use of it has no footer; and what
/// kept it from finding more.
pub(super) fn entries(
    file: &DiskFile,
    geometry: &Geometry,
    segment: u32,
    generation: u32,
) -> (Vec<Entry>, Option<io::Error>) {
    match listed(file, geometry, segment, generation) {
        Ok(Some(entries)) => (entries, None),
        Ok(None) => {
            let found = scan(file, geometry, segment, generation);
            (found.entries, found.error)
        }
        Err(error) => (Vec::new(), Some(error)),
    }
}

/// As [`entries`]; a footer that was damaged is written anew.
pub(super) fn entries_or_seal(file: &DiskFile, geometry: &Geometry, segment: u32, generation: u32) -> Vec<Entry> {
    match listed(file, geometry, segment, generation) {
        Ok(Some(entries)) => entries,
        Ok(None) => scan_and_seal(file, geometry, segment, generation).entries,
        Err(error) => {
            tracing::error!(%error, segment, "the table of a segment cannot be read");
            Vec::new()
        }
    }
}

/// Walks the records, and writes the footer that a crash prevented. Without it the next start scans again.
pub(super) fn scan_and_seal(file: &DiskFile, geometry: &Geometry, segment: u32, generation: u32) -> Scanned {
    let found = scan(file, geometry, segment, generation);
    if let Some(error) = &found.error {
        tracing::error!(%error, segment, "the rest of a segment cannot be read");
        return found;
    }
    let (Some(first), Some(last)) = (found.entries.first(), found.entries.last()) else { return found };
    let end = last.offset + last.len;
    let footer = format::encode_footer(generation, first.seq, found.oldest, end, &found.entries, geometry.seed);
    if let Err(error) = file.write_all_at(&footer, geometry.start(segment + 1) - footer.len() as u64) {
        tracing::warn!(%error, segment, "a recovered segment could not be sealed");
    }
    found
}

/// What a walk along the records found.
pub(super) struct Scanned {
    pub entries: Vec<Entry>,
    /// The lowest epoch of a HEAD.
    pub oldest: u64,
    /// Why it ended, if the disk was the reason.
    pub error: Option<io::Error>,
}

/// Walks the records from the start to the first that is not one. It never looks for a later one: what lies there may
/// be a body that imitates records.
fn scan(file: &DiskFile, geometry: &Geometry, segment: u32, generation: u32) -> Scanned {
    let start = geometry.start(segment);
    let mut header = [0; RECORD_HEADER];
    let mut found = Scanned { entries: Vec::new(), oldest: u64::MAX, error: None };
    let mut offset = FRAME;
    loop {
        let table = (found.entries.len() as u32 + 1) * ENTRY + FRAME;
        match read_written(file, &mut header, start + u64::from(offset)) {
            Ok(true) => {}
            Ok(false) => return found,
            Err(error) => {
                found.error = Some(error);
                return found;
            }
        }
        let Some(record) = Record::decode(&header, geometry) else { return found };
        let len = record.total_len();
        let fits = u64::from(offset) + u64::from(len) + u64::from(table) <= u64::from(geometry.segment_size);
        let follows = found.entries.last().is_none_or(|last| last.seq < record.seq);
        if !fits || !follows || record.generation != generation {
            return found;
        }
        if record.kind == Kind::Head {
            found.oldest = found.oldest.min(record.epoch);
        }
        found.entries.push(Entry { id: record.id(geometry.seed), kind: record.kind, offset, len, seq: record.seq });
        offset += len;
    }
}

fn listed(file: &DiskFile, geometry: &Geometry, segment: u32, generation: u32) -> io::Result<Option<Vec<Entry>>> {
    match read_footer(file, geometry, segment)?.1.filter(|footer| footer.generation == generation) {
        Some(footer) => read_table(file, geometry, segment, &footer),
        None => Ok(None),
    }
}

/// One end of a segment and what it says; zeros and nothing where the file ends before.
fn read_end<T>(
    file: &DiskFile,
    at: u64,
    decode: impl FnOnce(&[u8; FRAME as usize]) -> Option<T>,
) -> io::Result<([u8; FRAME as usize], Option<T>)> {
    let mut end = [0; FRAME as usize];
    let is_there = read_written(file, &mut end, at)?;
    let said = is_there.then(|| decode(&end)).flatten();
    Ok((end, said))
}

fn read_footer(
    file: &DiskFile,
    geometry: &Geometry,
    segment: u32,
) -> io::Result<([u8; FRAME as usize], Option<Footer>)> {
    read_end(file, geometry.start(segment + 1) - u64::from(FRAME), |frame| Footer::decode(frame, geometry))
}

/// Where the table of a footer lies, and its length, in bytes.
pub(super) fn table_of(geometry: &Geometry, segment: u32, footer: &Footer) -> (u64, u64) {
    let len = u64::from(footer.count) * u64::from(ENTRY);
    (geometry.start(segment + 1) - u64::from(FRAME) - len, len)
}

fn read_table(file: &DiskFile, geometry: &Geometry, segment: u32, footer: &Footer) -> io::Result<Option<Vec<Entry>>> {
    let (at, len) = table_of(geometry, segment, footer);
    let mut table = vec![0; len as usize];
    let is_there = read_written(file, &mut table, at)?;
    Ok(is_there.then(|| footer.entries(&table, geometry)).flatten())
}

/// False: the file ends before.
fn read_written(file: &DiskFile, buffer: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
