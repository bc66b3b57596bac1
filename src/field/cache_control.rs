//! Cache-Control (RFC 9111 section 5.2, RFC 5861, RFC 8246), in requests and responses.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, HeaderName, PRAGMA};

use crate::field::structured::{self, Bare};

/// The field by which an origin server speaks to this cache alone (RFC 9213 section 2).
pub const SELVEDGE_CACHE_CONTROL: HeaderName = HeaderName::from_static("selvedge-cache-control");
/// The field by which it speaks to every cache of its CDN (RFC 9213 section 3).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// The target list (RFC 9213 section 2.2): the first of these that is valid counts.
const TARGETS: [HeaderName; 2] = [SELVEDGE_CACHE_CONTROL, CDN_CACHE_CONTROL];

/// What a delta-seconds too large to hold becomes: 2^31 (RFC 9111 section 1.2.2).
pub const DELTA_SECONDS_MAX: u32 = 1 << 31;

/// The directives of one message. Unknown directives are left out; of a repeated one the most restrictive counts. A member
/// that breaks the grammar (`no-store; max-age=60`, `max-age = 0`) grants nothing, but what it would forbid is forbidden.
///
/// Durations are seconds. A `max-age` or `s-maxage` whose argument is missing or no number reads as 0, since a
/// lifetime that cannot be understood must not make a response fresh (RFC 9111 section 4.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `max-age`, of a request or a response.
    pub max_age: Option<u32>,
    /// `s-maxage`.
    pub s_maxage: Option<u32>,
    /// `stale-while-revalidate` (RFC 5861 section 3).
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<u32>,
    /// `min-fresh`, of a request.
    pub min_fresh: Option<u32>,
    /// `max-stale`, of a request; without an argument it is `u32::MAX`.
    pub max_stale: Option<u32>,
    /// `no-cache`; the form that names fields counts as the plain one, which asks for more.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `only-if-cached`, of a request.
    pub only_if_cached: bool,
    /// `private`; the form that names fields counts as the plain one.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// They come from a targeted field, so that `Cache-Control` and `Expires` say nothing to us.
    pub targeted: bool,
}

impl CacheControl {
    /// What a response says to this cache: the first valid targeted field, or else `Cache-Control` (RFC 9213
    /// section 2.2). A field that is empty or breaks the grammar, or whose directives have values of a wrong type, is
    /// as if it were missing.
    pub fn of_response(headers: &HeaderMap) -> Self {
        TARGETS.iter().find_map(|name| Self::of_targeted(headers, name)).unwrap_or_else(|| Self::of(headers))
    }

    fn of_targeted(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut this = Self { targeted: true, ..Self::default() };
        for (directive, value) in structured::dictionary(headers, name)? {
            match directive.as_str() {
                "max-age" => this.max_age = Some(seconds(&value)?),
                "s-maxage" => this.s_maxage = Some(seconds(&value)?),
                "stale-while-revalidate" => this.stale_while_revalidate = Some(seconds(&value)?),
                "stale-if-error" => this.stale_if_error = Some(seconds(&value)?),
                "no-cache" => this.no_cache = flag_or_fields(&value)?,
                "private" => this.private = flag_or_fields(&value)?,
                "no-store" => this.no_store = flag(&value)?,
                "no-transform" => this.no_transform = flag(&value)?,
                "public" => this.public = flag(&value)?,
                "must-revalidate" => this.must_revalidate = flag(&value)?,
                "proxy-revalidate" => this.proxy_revalidate = flag(&value)?,
                "must-understand" => this.must_understand = flag(&value)?,
                "immutable" => this.immutable = flag(&value)?,
                _ => {}
            }
        }
        Some(this)
    }

    /// Reads all `Cache-Control` lines of a message.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut this = Self::default();
        for value in headers.get_all(CACHE_CONTROL) {
            this.read(value.as_bytes());
        }
        this
    }

    /// Reads those of a request, where `Pragma: no-cache` stands in for a missing `Cache-Control` (RFC 9111
    /// section 5.4).
    pub fn of_request(headers: &HeaderMap) -> Self {
        let mut this = Self::of(headers);
        if !headers.contains_key(CACHE_CONTROL) {
            this.no_cache = headers
                .get_all(PRAGMA)
                .iter()
                .any(|value| Directives(value.as_bytes()).any(|(name, _)| name.eq_ignore_ascii_case(b"no-cache")));
        }
        this
    }

    /// Adds the directives of one field line.
    pub fn read(&mut self, line: &[u8]) {
        for (name, argument) in Directives(line) {
            if !is_well_formed(name, argument) {
                self.forbid(name);
                self.forbid(argument.unwrap_or_default());
            }
            let name = name.to_ascii_lowercase();
            match name.as_slice() {
                b"max-age" => lower(&mut self.max_age, delta_seconds(argument).unwrap_or(0)),
                b"s-maxage" => lower(&mut self.s_maxage, delta_seconds(argument).unwrap_or(0)),
                b"stale-while-revalidate" => {
                    lower(&mut self.stale_while_revalidate, delta_seconds(argument).unwrap_or(0));
                }
                b"stale-if-error" => lower(&mut self.stale_if_error, delta_seconds(argument).unwrap_or(0)),
                b"min-fresh" => {
                    let seconds = delta_seconds(argument).unwrap_or(DELTA_SECONDS_MAX);
                    self.min_fresh = Some(self.min_fresh.map_or(seconds, |have| have.max(seconds)));
                }
                b"max-stale" => {
                    let seconds = if argument.is_none() { u32::MAX } else { delta_seconds(argument).unwrap_or(0) };
                    lower(&mut self.max_stale, seconds);
                }
                b"no-cache" => self.no_cache = true,
                b"no-store" => self.no_store = true,
                b"no-transform" => self.no_transform = true,
                b"only-if-cached" => self.only_if_cached = true,
                b"private" => self.private = true,
                b"public" => self.public = true,
                b"must-revalidate" => self.must_revalidate = true,
                b"proxy-revalidate" => self.proxy_revalidate = true,
                b"must-understand" => self.must_understand = true,
                b"immutable" => self.immutable = true,
                _ => {}
            }
        }
    }
}

impl CacheControl {
    /// Heeds the prohibitions among the words of a member that breaks the grammar.
    fn forbid(&mut self, words: &[u8]) {
        for word in words.split(|byte| !is_token(*byte) || *byte == b'\'') {
            match word.to_ascii_lowercase().as_slice() {
                b"no-cache" => self.no_cache = true,
                b"no-store" => self.no_store = true,
                b"private" => self.private = true,
                b"no-transform" => self.no_transform = true,
                b"must-revalidate" => self.must_revalidate = true,
                b"proxy-revalidate" => self.proxy_revalidate = true,
                // A lifetime was meant, but which?
                b"max-age" => self.max_age = Some(0),
                b"s-maxage" => self.s_maxage = Some(0),
                _ => {}
            }
        }
    }
}

/// Whether a member is a token, alone or with a token or a quoted string behind `=`.
fn is_well_formed(name: &[u8], argument: Option<&[u8]>) -> bool {
    let argued = match argument {
        None => true,
        Some([b'"', quoted @ .., b'"']) => !ends_early(quoted),
        Some(token) => token.iter().copied().all(is_token),
    };
    !name.is_empty() && name.iter().copied().all(is_token) && argued
}

/// Whether an unescaped quote stands within what should be one quoted string.
fn ends_early(quoted: &[u8]) -> bool {
    let mut escaped = false;
    quoted.iter().any(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

/// A character of a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A delta-seconds in a targeted field: an Integer that is not negative.
fn seconds(value: &Bare) -> Option<u32> {
    match value {
        Bare::Integer(seconds @ 0..) => {
            Some(u32::try_from(*seconds).unwrap_or(DELTA_SECONDS_MAX).min(DELTA_SECONDS_MAX))
        }
        _ => None,
    }
}

fn flag(value: &Bare) -> Option<bool> {
    match value {
        Bare::Boolean(value) => Some(*value),
        _ => None,
    }
}

/// `no-cache` and `private` may name fields, which counts as the plain form.
fn flag_or_fields(value: &Bare) -> Option<bool> {
    match value {
        Bare::String(_) => Some(true),
        other => flag(other),
    }
}

fn lower(slot: &mut Option<u32>, seconds: u32) {
    *slot = Some(slot.map_or(seconds, |have| have.min(seconds)));
}

/// Digits only, as a token or a quoted string; what overflows is 2^31.
fn delta_seconds(argument: Option<&[u8]>) -> Option<u32> {
    let text = argument?;
    let digits = match text {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut seconds: u32 = 0;
    for digit in digits {
        seconds = seconds.saturating_mul(10).saturating_add(u32::from(digit - b'0')).min(DELTA_SECONDS_MAX);
    }
    Some(seconds)
}

/// The `name[=argument]` members of a comma-separated list; commas within quoted strings do not separate.
struct Directives<'a>(&'a [u8]);

impl<'a> Iterator for Directives<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let (member, rest) = split_member(self.0);
            self.0 = rest;
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            return Some(match member.iter().position(|byte| *byte == b'=') {
                Some(at) => (&member[..at], Some(&member[at + 1..])),
                None => (member, None),
            });
        }
        None
    }
}

fn split_member(list: &[u8]) -> (&[u8], &[u8]) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return (&list[..at], &list[at + 1..]),
            _ => {}
        }
    }
    (list, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn read(line: &str) -> CacheControl {
        let mut cc = CacheControl::default();
        cc.read(line.as_bytes());
        cc
    }

    #[test]
    fn directives_are_read_in_any_case_and_spacing() {
        let cc = read("  Public ,,max-age=60,\tS-MAXAGE=\"120\", must-revalidate , unknown=7, immutable");
        assert_eq!(
            cc,
            CacheControl {
                public: true,
                max_age: Some(60),
                s_maxage: Some(120),
                must_revalidate: true,
                immutable: true,
                ..CacheControl::default()
            }
        );
    }

    #[test]
    fn a_comma_in_a_quoted_string_does_not_separate() {
        let cc = read(r#"ext="max-age=1, no-store, \", private", max-age=9"#);
        assert_eq!(cc, CacheControl { max_age: Some(9), ..CacheControl::default() });
        assert!(read(r#"private="set-cookie, x""#).private);
        assert!(read(r#"no-cache="set-cookie"#).no_cache, "an open quote takes the rest");
    }

    #[test]
    fn a_lifetime_that_is_no_number_is_zero() {
        for line in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age='60'", "max-age=\"", "max-age=6x"] {
            assert_eq!(read(line).max_age, Some(0), "{line}");
        }
        assert_eq!(read("max-age=99999999999999999999").max_age, Some(DELTA_SECONDS_MAX));
        assert_eq!(read("max-age=4294967296").max_age, Some(DELTA_SECONDS_MAX));
    }

    #[test]
    fn of_a_repeated_directive_the_most_restrictive_counts() {
        assert_eq!(read("max-age=100, max-age=1").max_age, Some(1));
        assert_eq!(read("max-age=1, max-age=100").max_age, Some(1));
        assert_eq!(read("min-fresh=1, min-fresh=5").min_fresh, Some(5));
        assert_eq!(read("max-stale").max_stale, Some(u32::MAX));
        assert_eq!(read("max-stale=5").max_stale, Some(5));
    }

    #[test]
    fn what_breaks_the_grammar_forbids_but_grants_nothing() {
        let read = |line| read(line);
        for line in
            ["no-store; max-age=60", "max-age=60; no-store", "public no-store", "x=\"a\" no-store", "no-store ="]
        {
            assert!(read(line).no_store, "{line}");
        }
        assert_eq!(read("max-age = 60").max_age, Some(0));
        assert_eq!(read("max-age=60; private").max_age, Some(0));
        assert!(!read("x; public").public);
        for line in ["x=\"a; no-store\"", "x=\"\\\", no-store\"", "no-storex", "x=no-store", "x-no-store"] {
            assert_eq!(read(line), CacheControl::default(), "{line}");
        }
    }

    #[test]
    fn pragma_counts_only_where_there_is_no_cache_control() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, HeaderValue::from_static("foo"));
        assert!(!CacheControl::of_request(&headers).no_cache);
        headers.append(PRAGMA, HeaderValue::from_static("x, No-Cache"));
        assert!(CacheControl::of_request(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
        assert!(!CacheControl::of_request(&headers).no_cache);
    }

    fn response(fields: &[(&'static str, &'static str)]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        CacheControl::of_response(&headers)
    }

    #[test]
    fn the_first_valid_targeted_field_takes_the_place_of_cache_control() {
        let targeted = CacheControl { targeted: true, ..CacheControl::default() };
        let (own, cdn, cc) = ("selvedge-cache-control", "cdn-cache-control", "cache-control");
        let age = |seconds| CacheControl { max_age: Some(seconds), ..targeted.clone() };
        let plain = CacheControl { no_store: true, ..CacheControl::default() };
        for (fields, expected) in [
            (vec![(cdn, "max-age=60"), (cc, "no-store")], age(60)),
            (vec![(own, "max-age=5"), (cdn, "max-age=60"), (cc, "no-store")], age(5)),
            (vec![(own, ""), (cdn, "max-age=60")], age(60)),
            (vec![(own, "max-age=x y"), (cdn, "max-age=60")], age(60)),
            (vec![(cdn, "max-age=99999999999")], age(DELTA_SECONDS_MAX)),
            (vec![(cdn, "foobar, max-age=3600;x=1")], age(3600)),
            (vec![(cdn, "max-age=60"), (cdn, "no-store")], CacheControl { no_store: true, ..age(60) }),
            (vec![(cdn, "no-store=?0, private=\"x\"")], CacheControl { private: true, ..targeted.clone() }),
            (vec![(cdn, "max-age=10000, &&&&&"), (cc, "no-store")], plain.clone()),
            (vec![(cdn, "max-age=\"10000\""), (cc, "no-store")], plain.clone()),
            (vec![(cdn, "max-age=-1"), (cc, "no-store")], plain.clone()),
            (vec![(cdn, "max-age=1.5"), (cc, "no-store")], plain.clone()),
            (vec![(cdn, "MAX-AGE=60"), (cc, "no-store")], plain.clone()),
            (vec![(cdn, "no-store=1"), (cc, "no-store")], plain),
        ] {
            assert_eq!(response(&fields), expected, "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut cc = CacheControl::default();
            cc.read(&line);
            prop_assert!(cc.max_age.is_none_or(|s| s <= DELTA_SECONDS_MAX));
        }
    }
}
