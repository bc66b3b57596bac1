//! Ranges and partial content (RFC 9110 section 14): what a request asks for, what a 206 carries, and which part of a
//! stored part answers.

use std::ops::Range;

use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use pingora::http::ResponseHeader;

use super::selection;
use crate::field::date;
use crate::field::etag::EntityTag;

/// Set in the stored head of a response that is one part of a representation; never sent. Its value is the range that
/// the part was declared to be, which need not agree with its length.
pub(super) const PART: HeaderName = HeaderName::from_static("selvedge-part");

/// One range as a request asks for it (RFC 9110 section 14.1.2), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// From a first position to a last one, or to the end.
    From(u64, Option<u64>),
    /// The last so many.
    Suffix(u64),
}

impl RangeSpec {
    /// The one range that a request asks for; `None` where it asks for none, for several, or in a way that is none.
    pub fn of(request: &HeaderMap) -> Option<Self> {
        let mut lines = request.get_all(RANGE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        match selection::one(line.as_bytes())? {
            (None, Some(suffix)) => Some(Self::Suffix(suffix)),
            (Some(first), last) => Some(Self::From(first, last)),
            (None, None) => None,
        }
    }
}

/// What `Content-Range` says of a 206 (RFC 9110 section 14.4): positions of the first and the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Of the first byte.
    pub first: u64,
    /// Of the last byte.
    pub last: u64,
    /// Bytes of the whole representation, where that is known.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// Reads the field; `None` if it is missing, repeated, or makes no sense.
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(CONTENT_RANGE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        Self::parse(line)
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let (unit, rest) = value.to_str().ok()?.trim().split_once(' ')?;
        let (range, complete) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let complete = if complete == "*" { None } else { Some(number(complete)?) };
        let sound = first <= last && complete.is_none_or(|complete| last < complete);
        (sound && unit.eq_ignore_ascii_case("bytes")).then_some(Self { first, last, complete })
    }

    /// Bytes of the part.
    pub fn length(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether the part is all there is.
    pub fn is_whole(&self) -> bool {
        self.first == 0 && self.complete == Some(self.length())
    }

    /// The field's value.
    pub fn value(&self) -> String {
        let Self { first, last, complete } = self;
        match complete {
            Some(complete) => format!("bytes {first}-{last}/{complete}"),
            None => format!("bytes {first}-{last}/*"),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    // `parse` would take a plus sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What tells that two parts are of one representation, byte for byte (RFC 9110 section 8.8.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrongValidator {
    /// A strong entity tag, as it stands in its field.
    Tag(HeaderValue),
    /// A `Last-Modified` that is a minute or more before `Date`.
    Modified(HeaderValue),
}

impl StrongValidator {
    /// The validator of a response; `None` where it has none that is strong. A date counts only where there is no entity
    /// tag, and only by RFC 9110 section 8.8.2.2.
    pub fn of(response: &HeaderMap) -> Option<Self> {
        if let Some(tag) = response.get(ETAG) {
            let strong = EntityTag::parse(tag.as_bytes()).is_some_and(|tag| !tag.weak);
            return strong.then(|| Self::Tag(tag.clone()));
        }
        let (modified, sent) = (date::single(response, &LAST_MODIFIED)?, date::single(response, &DATE)?);
        let settled = sent.duration_since(modified).is_ok_and(|since| since.as_secs() >= 60);
        settled.then(|| response.get(LAST_MODIFIED).cloned().map(Self::Modified)).flatten()
    }
}

/// The range that a stored part was declared to be; `None` for a response that is no part.
pub fn part_of(stored: &HeaderMap) -> Option<ContentRange> {
    ContentRange::parse(stored.get(PART)?)
}

/// Whether a part's content has not the length that its `Content-Range` says, as far as that is known.
pub(super) fn is_odd(part: &ContentRange, headers: &HeaderMap) -> bool {
    super::content_length(headers).ok().flatten() != Some(part.length())
}

/// Marks a 206 as one part of a representation, so that it can be stored as that; `None` if it is not a single part.
pub fn as_part(response: &ResponseHeader) -> Option<ResponseHeader> {
    let part = ContentRange::of(&response.headers)?;
    let mut marked = response.clone();
    // A static name and a value of digits cannot be refused.
    marked.insert_header(PART, part.value()).ok()?;
    Some(marked)
}

/// Where in a part of `length` bytes, declared to be `part`, the answer to a range is, and the `Content-Range` of that
/// answer; `None` where the part does not have it.
///
/// A range that begins in the part and asks for all that follows gets what is there of it, if that is the end of the
/// representation. Where a part is shorter than declared, a first position counts from the part's first, and a suffix
/// from its end.
pub fn within_part(part: &ContentRange, length: u64, spec: RangeSpec) -> Option<(Range<u64>, ContentRange)> {
    let to_the_end = part.complete.is_some_and(|complete| part.last + 1 == complete);
    let length = length.min(part.length());
    let (at, first, last) = match spec {
        RangeSpec::From(first, last) => {
            let begin = first.checked_sub(part.first).filter(|begin| *begin < length)?;
            let there = part.first + length - 1;
            let last = match last {
                Some(last) if last <= there => last,
                _ if to_the_end => there,
                _ => return None,
            };
            (begin, first, last)
        }
        RangeSpec::Suffix(suffix) => {
            let complete = part.complete.filter(|_| to_the_end)?;
            let begin = length.checked_sub(suffix).filter(|_| suffix > 0)?;
            (begin, complete - suffix, complete - 1)
        }
    };
    let answer = ContentRange { first, last, complete: part.complete };
    Some((at..at + answer.length(), answer))
}

/// The same for a request, its `If-Range` included, and the head of a part: stored, or as the origin server sent it.
pub fn part_answers(request: &HeaderMap, stored: &HeaderMap) -> Option<(Range<u64>, ContentRange)> {
    let part = part_of(stored)?;
    let length = super::content_length(stored).ok().flatten()?;
    if request.contains_key(IF_RANGE) && !super::range_applies(request, stored) {
        return None;
    }
    within_part(&part, length, RangeSpec::of(request)?)
}

/// Makes the head of a part that of the answer [`part_answers`] found in it.
pub fn cut_part(head: &mut ResponseHeader, answer: &ContentRange) {
    // Digits cannot be refused.
    let _ = head.insert_header(CONTENT_RANGE, answer.value());
    let _ = head.insert_header(CONTENT_LENGTH, answer.length());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn one_range_is_read_and_others_are_not() {
        use RangeSpec::{From, Suffix};
        for (value, expected) in [
            ("bytes=0-0", Some(From(0, Some(0)))),
            ("Bytes=5-9", Some(From(5, Some(9)))),
            ("bytes = 5-9", None),
            ("bytes=7-", Some(From(7, None))),
            ("bytes=-5", Some(Suffix(5))),
            ("bytes=9-5", None),
            ("bytes=-", None),
            ("bytes=0-1,4-5", None),
            ("bytes=+1-5", None),
            ("bytes=1-99999999999999999999", None),
            ("items=0-1", None),
            ("bytes 0-1", None),
        ] {
            assert_eq!(RangeSpec::of(&fields(&[(RANGE, value)])), expected, "{value}");
        }
        assert_eq!(RangeSpec::of(&fields(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=0-1")])), None);
    }

    #[test]
    fn content_ranges_are_read_only_where_they_make_sense() {
        let range = |first, last, complete| Some(ContentRange { first, last, complete });
        for (value, expected) in [
            ("bytes 0-4/10", range(0, 4, Some(10))),
            ("BYTES 4-9/*", range(4, 9, None)),
            ("bytes 4-9/9", None),
            ("bytes 5-4/10", None),
            ("bytes */10", None),
            ("bytes 0-4", None),
            ("bytes=0-4/10", None),
            ("items 0-4/10", None),
            ("bytes 0-+4/10", None),
        ] {
            let read = ContentRange::of(&fields(&[(CONTENT_RANGE, value)]));
            assert_eq!(read, expected, "{value}");
            if let Some(read) = read {
                assert!(read.value().eq_ignore_ascii_case(value));
            }
        }
        let twice = [(CONTENT_RANGE, "bytes 0-4/10"), (CONTENT_RANGE, "bytes 0-4/10")];
        assert_eq!(ContentRange::of(&fields(&twice)), None);
    }

    #[test]
    fn a_weak_validator_does_not_combine() {
        let (old, new) = ("Sat, 29 Oct 1994 19:43:31 GMT", "Sat, 29 Oct 1994 19:44:31 GMT");
        for (lines, strong) in [
            (vec![(ETAG, "\"a\"")], true),
            (vec![(ETAG, "W/\"a\"")], false),
            (vec![(ETAG, "a")], false),
            (vec![(LAST_MODIFIED, old), (DATE, new)], true),
            (vec![(LAST_MODIFIED, old), (DATE, old)], false),
            (vec![(LAST_MODIFIED, old)], false),
            (vec![(ETAG, "W/\"a\""), (LAST_MODIFIED, old), (DATE, new)], false),
            (vec![], false),
        ] {
            assert_eq!(StrongValidator::of(&fields(&lines)).is_some(), strong, "{lines:?}");
        }
    }

    #[test]
    fn a_part_that_is_shorter_than_declared_is_anchored_at_the_nearer_end() {
        use RangeSpec::{From, Suffix};
        let end = ContentRange { first: 4, last: 9, complete: Some(10) };
        let middle = ContentRange { first: 4, last: 8, complete: Some(10) };
        for (part, spec, expected) in [
            (end, Suffix(5), Some((0..5, 5, 9))),
            (end, Suffix(1), Some((4..5, 9, 9))),
            (end, Suffix(6), None),
            (end, Suffix(0), None),
            (end, From(6, Some(8)), Some((2..5, 6, 8))),
            (end, From(6, None), Some((2..5, 6, 8))),
            (end, From(6, Some(99)), Some((2..5, 6, 8))),
            (end, From(3, Some(5)), None),
            (end, From(9, None), None),
            (middle, From(4, Some(8)), Some((0..5, 4, 8))),
            (middle, From(6, None), None),
            (middle, From(6, Some(9)), None),
            (middle, Suffix(1), None),
        ] {
            let found = within_part(&part, 5, spec).map(|(at, range)| (at, range.first, range.last));
            assert_eq!(found, expected, "{part:?} {spec:?}");
        }
    }

    proptest! {
        #[test]
        fn what_a_part_answers_is_what_the_whole_would(
            complete in 1u64..60, first in 0u64..60, length in 1u64..60, from in 0u64..70, last in proptest::option::of(0u64..70),
        ) {
            prop_assume!(first < complete);
            let part = ContentRange { first, last: (first + length).min(complete) - 1, complete: Some(complete) };
            for spec in [RangeSpec::From(from, last.map(|last| last.max(from))), RangeSpec::Suffix(from)] {
                let whole = ContentRange { first: 0, last: complete - 1, complete: Some(complete) };
                let Some((at, answer)) = within_part(&part, part.length(), spec) else { continue };
                prop_assert_eq!(at.end - at.start, answer.length());
                prop_assert_eq!(at.start + part.first, answer.first);
                prop_assert_eq!(within_part(&whole, complete, spec).map(|(_, range)| range), Some(answer));
            }
        }
    }
}
