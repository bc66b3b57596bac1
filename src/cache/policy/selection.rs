//! What a `Range` selects from a representation of known length (RFC 9110 section 14).

use std::ops::RangeInclusive;

/// What of a representation a request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it: the field is of another unit, breaks the grammar, or asks for ranges that overlap, are out of order or
    /// too many, which section 14.2 lets a server pass over.
    Whole,
    /// These parts, by first and last position; at least one.
    Parts(Vec<RangeInclusive<u64>>),
    /// Nothing of what is asked for is there: 416.
    Unsatisfiable,
}

/// Reads a `Range` field for a representation of `length` bytes; with more than `most` ranges it selects the whole.
pub fn select(field: &[u8], length: u64, most: usize) -> Selection {
    let Some(specs) = specs(field) else { return Selection::Whole };
    let mut parts: Vec<RangeInclusive<u64>> = Vec::new();
    for (count, spec) in specs.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).enumerate() {
        if count >= most {
            return Selection::Whole;
        }
        // A list may have empty members (section 5.6.1.2).
        if spec.is_empty() {
            continue;
        }
        let Some((first, last)) = member(spec) else { return Selection::Whole };
        let part = match (first, last) {
            // A suffix of nothing, and any of an empty representation, can't be satisfied (section 14.1.2).
            (None, Some(suffix)) if suffix > 0 && length > 0 => length.saturating_sub(suffix)..=length - 1,
            (Some(first), last) if first < length => first..=last.unwrap_or(u64::MAX).min(length - 1),
            _ => continue,
        };
        if parts.last().is_some_and(|before| part.start() <= before.end()) {
            return Selection::Whole;
        }
        parts.push(part);
    }
    if parts.is_empty() { Selection::Unsatisfiable } else { Selection::Parts(parts) }
}

fn specs(field: &[u8]) -> Option<&[u8]> {
    let (unit, specs) = field.split_at_checked(b"bytes=".len())?;
    (unit.eq_ignore_ascii_case(b"bytes=") && specs.iter().any(u8::is_ascii_digit)).then_some(specs)
}

/// The first and the last position of a field that asks for one range, as [`member`] has them; `None` too where one is too
/// large to be a position.
pub(super) fn one(field: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = member(specs(field)?.trim_ascii())?;
    let held = |position: Option<u64>| position != Some(u64::MAX);
    (held(first) && held(last)).then_some((first, last))
}

/// Reads one range (section 14.1.1): the first position, missing in a suffix range, and the last, or the suffix's length.
fn member(spec: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let at = spec.iter().position(|byte| *byte == b'-')?;
    match (position(&spec[..at])?, position(&spec[at + 1..])?) {
        (None, None) => None,
        (Some(first), Some(last)) if last < first => None,
        positions => Some(positions),
    }
}

/// `Some(None)` where there is none; what is too large to hold is beyond every representation.
#[allow(clippy::option_option, reason = "the outer one says whether it is a position at all")]
fn position(digits: &[u8]) -> Option<Option<u64>> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some((!digits.is_empty()).then(|| {
        digits.iter().fold(0u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(parts: &[(u64, u64)]) -> Selection {
        Selection::Parts(parts.iter().map(|(first, last)| *first..=*last).collect())
    }

    #[test]
    fn the_examples_of_rfc_9110_section_14_1_2_hold() {
        for (field, selection) in [
            ("bytes=0-499", parts(&[(0, 499)])),
            ("bytes=500-999", parts(&[(500, 999)])),
            ("bytes=-500", parts(&[(9500, 9999)])),
            ("bytes=9500-", parts(&[(9500, 9999)])),
            ("bytes=0-0,-1", parts(&[(0, 0), (9999, 9999)])),
            ("bytes= 0-999, 4500-5499, -1000", parts(&[(0, 999), (4500, 5499), (9000, 9999)])),
            ("bytes=500-600,601-999", parts(&[(500, 600), (601, 999)])),
            // Overlapping: a server may pass it over.
            ("bytes=500-700,601-999", Selection::Whole),
        ] {
            assert_eq!(select(field.as_bytes(), 10_000, 200), selection, "{field}");
        }
    }

    #[test]
    fn odd_fields_select_nothing_wrong() {
        for (field, length, selection) in [
            ("bytes=-0", 10, Selection::Unsatisfiable),
            ("bytes=-5", 0, Selection::Unsatisfiable),
            ("bytes=0-", 0, Selection::Unsatisfiable),
            ("bytes=-0, 0-0", 10, parts(&[(0, 0)])),
            ("bytes=10-", 10, Selection::Unsatisfiable),
            ("bytes=9-10", 10, parts(&[(9, 9)])),
            ("bytes=0-99999999999999999999999", 10, parts(&[(0, 9)])),
            ("bytes=99999999999999999999999-", 10, Selection::Unsatisfiable),
            ("bytes=99999999999999999999999-5", 10, Selection::Whole),
            ("bytes=-99999999999999999999999", 10, parts(&[(0, 9)])),
            ("bytes=5-2", 10, Selection::Whole),
            ("bytes=-", 10, Selection::Whole),
            ("bytes=", 10, Selection::Whole),
            ("bytes=1", 10, Selection::Whole),
            ("bytes=1-2-3", 10, Selection::Whole),
            ("bytes=+1-2", 10, Selection::Whole),
            ("bytes=,1-2,,4-5,", 10, parts(&[(1, 2), (4, 5)])),
            ("BYTES=1-2", 10, parts(&[(1, 2)])),
            ("lines=1-2", 10, Selection::Whole),
            ("bytes", 10, Selection::Whole),
            ("", 10, Selection::Whole),
        ] {
            assert_eq!(select(field.as_bytes(), length, 200), selection, "{field}");
        }
        let many = format!("bytes={}", (0..201).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect::<Vec<_>>().join(","));
        assert_eq!(select(many.as_bytes(), 1000, 200), Selection::Whole);
        assert!(matches!(select(many.as_bytes(), 1000, 201), Selection::Parts(parts) if parts.len() == 201));
    }

    proptest! {
        #[test]
        fn what_is_selected_is_there_and_in_order(field in "bytes=[0-9, -]{0,40}", length in 0u64..200) {
            if let Selection::Parts(parts) = select(field.as_bytes(), length, 9) {
                prop_assert!(!parts.is_empty() && parts.len() <= 9);
                prop_assert!(parts.iter().all(|part| part.start() <= part.end() && *part.end() < length));
                prop_assert!(parts.windows(2).all(|pair| pair[0].end() < pair[1].start()));
            }
        }
    }
}
