//! Fields of HTTP.

use crate::cache::policy::{Precondition, precondition, range_applies};
use crate::field::cache_control::{CacheControl, DELTA_SECONDS_MAX};
use crate::field::etag::{Comparison, EntityTag, matches};
use crate::field::{date, structured};
use ::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, Request, Response};
use std::time::{Duration, SystemTime};

/// Field lines of the input: one on each of its lines, if it is a value that HTTP can carry.
fn lines(name: &HeaderName, data: &[u8]) -> HeaderMap {
    let values = data.split(|byte| *byte == b'\n').take(16).filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (name.clone(), value)).collect()
}

/// `Name: value` on each line.
fn fields(data: &[u8]) -> HeaderMap {
    let split = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    };
    data.split(|byte| *byte == b'\n').take(32).filter_map(split).collect()
}

/// `Cache-Control` and the targeted fields. More of it never allows more.
pub(super) fn cache_control(data: &[u8]) {
    let headers = lines(&CACHE_CONTROL, data);
    let found = CacheControl::of(&headers);
    for seconds in [found.max_age, found.s_maxage, found.stale_while_revalidate, found.stale_if_error, found.min_fresh]
    {
        assert!(seconds.is_none_or(|seconds| seconds <= DELTA_SECONDS_MAX), "{found:?}");
    }
    let mut stricter = found.clone();
    stricter.read(b"max-age=0, no-store, private");
    assert!(stricter.no_store && stricter.private && stricter.max_age == Some(0), "{stricter:?}");
    assert_eq!(stricter.s_maxage, found.s_maxage);
    let mut twice = headers.clone();
    for value in headers.get_all(CACHE_CONTROL) {
        twice.append(CACHE_CONTROL, value.clone());
    }
    assert_eq!(CacheControl::of(&twice), found, "to repeat it changes nothing");
    assert_eq!(CacheControl::of_request(&headers).no_cache, found.no_cache);
    for name in ["selvedge-cache-control", "cdn-cache-control"] {
        let targeted = CacheControl::of_response(&lines(&HeaderName::from_static(name), data));
        assert!(targeted.targeted || targeted == CacheControl::default());
    }
}

/// Dictionaries: what is found has keys of the grammar, each once.
pub(super) fn structured(data: &[u8]) {
    let name = HeaderName::from_static("x");
    let Some(members) = structured::dictionary(&lines(&name, data), &name) else { return };
    let is_key = |key: &str| {
        key.starts_with(|first: char| first.is_ascii_lowercase() || first == '*')
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte))
    };
    let keys: std::collections::HashSet<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
    assert!(!members.is_empty() && keys.len() == members.len() && keys.iter().all(|key| is_key(key)), "{members:?}");
}

/// Preconditions, `If-Range` and entity tags: the part before an empty line is the request's, the rest the response's.
pub(super) fn conditions(data: &[u8]) {
    let split = data.windows(2).position(|pair| pair == b"\n\n").map_or((data, &data[..0]), |at| data.split_at(at));
    let (mut request, mut response) = (Request::new(()).into_parts().0, Response::new(()).into_parts().0);
    (request.headers, response.headers) = (fields(split.0), fields(split.1));
    let found = precondition(&request, &response);
    assert_eq!(found, precondition(&request, &response));
    let _ = range_applies(&request.headers, &response.headers);
    request.method = Method::POST;
    assert_eq!(precondition(&request, &response), Precondition::Holds);
    if let Some(tag) = EntityTag::parse(data) {
        assert!(tag.weak_eq(&tag) && tag.strong_eq(&tag) != tag.weak);
        assert!(!tag.opaque.contains(&b'"'));
        assert!(matches(data, Some(tag), Comparison::Weak));
    }
}

/// Dates: what is read is written in a form that is read as the same, and the reference parser agrees with it.
pub(super) fn date(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let found = date::parse(&value);
    if let Some(time) = found {
        let written = date::format(time);
        let again = HeaderValue::from_str(&written).ok().and_then(|value| date::parse(&value));
        assert_eq!(again, Some(time), "{written}");
    }
    // A few bytes as a moment: what is written is read.
    if let Some(seconds) = data.first_chunk::<5>() {
        let seconds = seconds.iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte)) % 253_402_300_800;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let value = HeaderValue::from_str(&date::format(time)).ok();
        assert_eq!(value.as_ref().and_then(date::parse), Some(time));
    }
}
