//! The form that a head has on the disk. It is read with every answer from there, so that reading it is cheap: times and
//! lengths at fixed places, and the field lines as HTTP/1 writes them, of which values are slices.
//!
//! | offset | |
//! |---|---|
//! | 0 | `SVM2` |
//! | 4 | status code u16 |
//! | 6 | u16: 1 if there is a variance, else 0 |
//! | 8 | length of the key u32 |
//! | 12 | stale-while-revalidate u32, stale-if-error u32, in seconds |
//! | 20 | fresh until, created, epoch: each seconds since 1970 u64 and nanoseconds u32 |
//! | 56 | variance (16) |
//! | 72 | length of the lines u32 |
//! | 76 | the key, then lines of name, `: `, value, CR LF |
//!
//! Numbers are little-endian. `SVM1`, the form before, had what pingora makes of a head, compressed; it is still read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes};
use http::HeaderValue;
use pingora::cache::CacheMeta;
use pingora::http::ResponseHeader;
use pingora::{ErrorType, OrErr};

const MAGIC: [u8; 4] = *b"SVM2";
const MAGIC_BEFORE: [u8; 4] = *b"SVM1";
const FIXED: usize = 76;

/// Writes a head that was stored at `created` under `key`.
///
/// # Errors
/// A time before 1970, or more than 4 GiB.
pub(super) fn encode(meta: &CacheMeta, created: SystemTime, key: &[u8]) -> pingora::Result<Vec<u8>> {
    let fields = meta.response_header();
    let variance = meta.variance();
    let length = |len: usize| u32::try_from(len).or_err(ErrorType::InternalError, "the length of a head");
    let mut lines = Vec::with_capacity(512);
    fields.header_to_h1_wire(&mut lines);
    let mut out = Vec::with_capacity(FIXED + key.len() + lines.len());
    out.extend_from_slice(&MAGIC);
    out.put_u16_le(fields.status.as_u16());
    out.put_u16_le(variance.is_some().into());
    out.put_u32_le(length(key.len())?);
    out.put_u32_le(meta.stale_while_revalidate_sec());
    out.put_u32_le(meta.stale_if_error_sec());
    for time in [meta.fresh_until(), created, meta.epoch()] {
        let since = time.duration_since(UNIX_EPOCH).or_err(ErrorType::InternalError, "the time of a head")?;
        out.put_u64_le(since.as_secs());
        out.put_u32_le(since.subsec_nanos());
    }
    out.extend_from_slice(&variance.unwrap_or_default());
    out.put_u32_le(length(lines.len())?);
    out.extend_from_slice(key);
    out.extend_from_slice(&lines);
    Ok(out)
}

/// The head and its key; values of the head are slices of `bytes`. `None` for what is neither form. Times of creation of the
/// form before are those that `created` chooses.
pub(super) fn decode(bytes: &Bytes, created: impl FnOnce(&CacheMeta) -> SystemTime) -> Option<(CacheMeta, Bytes)> {
    if bytes.starts_with(&MAGIC_BEFORE) {
        return decode_before(bytes, created);
    }
    let fixed: &[u8; FIXED] = bytes.first_chunk().filter(|fixed| fixed.starts_with(&MAGIC))?;
    let (status, varies, key_len) = (u16_at(fixed, 4), u16_at(fixed, 6), u32_at(fixed, 8));
    let key_end = FIXED.checked_add(usize::try_from(key_len).ok()?).filter(|end| *end <= bytes.len())?;
    if bytes.len() - key_end != usize::try_from(u32_at(fixed, 72)).ok()? {
        return None;
    }
    let fields = fields(status, &bytes.slice(key_end..))?;
    let mut meta =
        CacheMeta::new(time_at(fixed, 20)?, time_at(fixed, 32)?, u32_at(fixed, 12), u32_at(fixed, 16), fields);
    meta.set_epoch_override(time_at(fixed, 44)?);
    match varies {
        0 => {}
        1 => meta.set_variance(array_at(fixed, 56)),
        _ => return None,
    }
    Some((meta, bytes.slice(FIXED..key_end)))
}

/// Reads field lines.
fn fields(status: u16, lines: &Bytes) -> Option<ResponseHeader> {
    let count = memchr::memchr_iter(b'\n', lines).count();
    let mut fields = ResponseHeader::build(status, Some(count)).ok()?;
    let mut at = 0;
    while at < lines.len() {
        let name_end = at + memchr::memchr(b':', &lines[at..])?;
        let value_at = name_end + lines[name_end..].starts_with(b": ").then_some(2)?;
        let value_end = value_at + memchr::memchr(b'\r', &lines[value_at..])?;
        let value = HeaderValue::from_maybe_shared(lines.slice(value_at..value_end)).ok()?;
        fields.append_header(lines.slice(at..name_end), value).ok()?;
        at = value_end + lines[value_end..].starts_with(b"\r\n").then_some(2)?;
    }
    Some(fields)
}

fn decode_before(bytes: &Bytes, created: impl FnOnce(&CacheMeta) -> SystemTime) -> Option<(CacheMeta, Bytes)> {
    let (key_at, key_end) = part(bytes, MAGIC_BEFORE.len())?;
    let (internal_at, internal_end) = part(bytes, key_end)?;
    let read = CacheMeta::deserialize(&bytes[internal_at..internal_end], &bytes[internal_end..]).ok()?;
    let mut meta = CacheMeta::new(
        read.fresh_until(),
        created(&read),
        read.stale_while_revalidate_sec(),
        read.stale_if_error_sec(),
        read.response_header_copy(),
    );
    meta.set_epoch_override(read.epoch());
    if let Some(variance) = read.variance() {
        meta.set_variance(variance);
    }
    Some((meta, bytes.slice(key_at..key_end)))
}

/// Where a part begins and ends that has its length before it.
fn part(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (length, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len())?;
    Some((at + 4, at + 4 + length))
}

fn time_at(fixed: &[u8; FIXED], at: usize) -> Option<SystemTime> {
    let (seconds, nanoseconds) = (u64::from_le_bytes(array_at(fixed, at)), u32_at(fixed, at + 8));
    let since = (nanoseconds < 1_000_000_000).then(|| Duration::new(seconds, nanoseconds))?;
    UNIX_EPOCH.checked_add(since)
}

fn u16_at(fixed: &[u8; FIXED], at: usize) -> u16 {
    u16::from_le_bytes(array_at(fixed, at))
}

fn u32_at(fixed: &[u8; FIXED], at: usize) -> u32 {
    u32::from_le_bytes(array_at(fixed, at))
}

fn array_at<const N: usize>(fixed: &[u8; FIXED], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&fixed[at..at + N]);
    array
}

/// The form before, for tests of what reads it.
#[cfg(test)]
pub(super) fn encode_before(meta: &CacheMeta, key: &[u8]) -> Vec<u8> {
    let (internal, head) = meta.serialize().unwrap();
    let mut out = MAGIC_BEFORE.to_vec();
    for part in [key, &internal] {
        out.put_u32_le(part.len() as u32);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&head);
    out
}
