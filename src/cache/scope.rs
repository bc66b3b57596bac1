//! What stored responses are purged by besides their own URL: host, path prefixes and tags, each as a hash of 64 bits.
//!
//! Two scopes with one hash would be purged together, which costs a fetch and never serves anything wrong.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::xxh3_64;

use super::disk::Hash128;
use super::key;

/// Tags of one response that are told apart; one with more is purged by whatever tag is purged.
pub const MAX_TAGS: usize = 50;
/// Bytes of a tag; a response with a longer one is purged by whatever tag is purged.
pub const MAX_TAG: usize = 256;
/// Path segments of a prefix.
pub const MAX_DEPTH: usize = 32;
/// Scopes of one response at most: its host, the prefixes of its path, its tags, and [`LOOSE`].
pub(super) const MAX_SCOPES: usize = 2 + MAX_DEPTH + MAX_TAGS;

/// The fields that tags are taken from. They are for caches, and clients do not get to see them.
pub const TAG_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("x-amz-meta-cache-tag"),
];

/// What kind of scope a purge has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One cache key with all its variants.
    Key,
    /// A host, whatever the scheme and port.
    Host,
    /// A host and a path, with all that is below.
    Prefix,
    /// A tag.
    Tag,
    /// Everything.
    All,
}

impl Kind {
    pub const EVERY: [Self; 5] = [Self::Key, Self::Host, Self::Prefix, Self::Tag, Self::All];

    /// Its number in the purge log.
    pub fn code(self) -> u8 {
        match self {
            Self::Key => 1,
            Self::Host => 2,
            Self::Prefix => 3,
            Self::Tag => 4,
            Self::All => 5,
        }
    }
}

/// The scope of responses whose own scopes are not all known: every purge by host, prefix or tag takes them.
pub(super) const LOOSE: u64 = 1;
/// The scope that everything has.
pub(super) const EVERYTHING: u64 = 2;

/// One cache key with all its variants.
pub(super) fn of_key(primary: &Hash128) -> u64 {
    hash(Kind::Key, primary)
}

/// A host in the router's form.
pub(super) fn of_host(host: &str) -> u64 {
    hash(Kind::Host, host.as_bytes())
}

/// A host and a path; `None` if the path has more than [`MAX_DEPTH`] segments. A slash at the end makes no difference.
pub(super) fn of_prefix(host: &str, path: &str) -> Option<u64> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let deep = path.bytes().filter(|byte| *byte == b'/').count() > MAX_DEPTH;
    (!deep).then(|| prefix(host.as_bytes(), path.as_bytes()))
}

/// A tag, compared byte by byte; `None` if no response can have it.
pub(super) fn of_tag(tag: &str) -> Option<u64> {
    let is_one = !tag.is_empty() && tag.len() <= MAX_TAG && !tag.bytes().any(separates);
    is_one.then(|| hash(Kind::Tag, tag.as_bytes()))
}

/// The scopes of a response: of its whole key, as [`key::target`] made it, and of its tags.
pub(super) fn of_response(whole: &[u8], headers: &HeaderMap) -> Arc<[u64]> {
    let mut scopes = Vec::new();
    match key::location(whole) {
        Some((host, path)) => of_location(host, path, &mut scopes),
        None => scopes.push(LOOSE),
    }
    let mut count = 0;
    for tag in tags(headers) {
        count += 1;
        if count > MAX_TAGS || tag.len() > MAX_TAG {
            scopes.push(LOOSE);
            break;
        }
        scopes.push(hash(Kind::Tag, tag));
    }
    scopes.sort_unstable();
    scopes.dedup();
    scopes.into()
}

/// The tags that a response's fields name, repetitions included, in order.
pub fn tags(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = TAG_FIELDS.into_iter().flat_map(|name| headers.get_all(name));
    values.flat_map(|value| value.as_bytes().split(|byte| separates(*byte))).filter(|tag| !tag.is_empty())
}

/// The prefixes of a path, with or without a query, by which it can be purged, the shortest first: of `/a/b` these are the
/// root, which is empty, `/a` and `/a/b`.
pub fn prefixes(path_and_query: &[u8]) -> impl Iterator<Item = &[u8]> {
    let path = path_and_query.split(|byte| *byte == b'?').next().unwrap_or_default();
    let ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
    ends.take(MAX_DEPTH + 1).map(|end| &path[..end])
}

fn separates(byte: u8) -> bool {
    byte == b',' || byte.is_ascii_whitespace()
}

fn of_location(host: &[u8], path_and_query: &[u8], scopes: &mut Vec<u64>) {
    scopes.push(hash(Kind::Host, host));
    scopes.extend(prefixes(path_and_query).map(|path| prefix(host, path)));
}

fn prefix(host: &[u8], path: &[u8]) -> u64 {
    // A host has no slash, so that the two cannot be taken for others.
    hash(Kind::Prefix, &[host, b"/", path].concat())
}

fn hash(kind: Kind, text: &[u8]) -> u64 {
    xxh3_64(&[&[kind.code()], text].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        lines.iter().map(line).collect()
    }

    fn whole(host: &str, path: &str) -> Vec<u8> {
        key::target("https", host, 443, path.as_bytes()).primary_key().to_vec()
    }

    #[test]
    fn tags_come_from_three_fields_and_two_separators() {
        let headers = fields(&[
            ("cache-tag", "one,Two, three"),
            ("cache-tag", " , four"),
            ("surrogate-key", "five six"),
            ("x-amz-meta-cache-tag", "seven"),
            ("x-tag", "no"),
        ]);
        let found: Vec<&[u8]> = tags(&headers).collect();
        let expected: [&[u8]; 7] = [b"one", b"Two", b"three", b"four", b"five", b"six", b"seven"];
        assert_eq!(found, expected);
        assert_ne!(of_tag("Two"), of_tag("two"), "case counts");
        for none in ["", "a b", "a,b", "a\tb", &"x".repeat(MAX_TAG + 1)] {
            assert_eq!(of_tag(none), None, "{none:?}");
        }
    }

    #[test]
    fn too_many_or_too_long_tags_make_a_response_loose() {
        let key = whole("a.example", "/");
        let many = |count: usize| (0..count).map(|n| format!("tag-{n}")).collect::<Vec<_>>().join(" ");
        for (value, loose) in [
            (many(50), false),
            (many(51), true),
            ("x".repeat(256), false),
            ("x".repeat(257), true),
            (String::new(), false),
        ] {
            let scopes = of_response(&key, &fields(&[("surrogate-key", &value)]));
            assert_eq!(scopes.contains(&LOOSE), loose, "{} bytes", value.len());
            assert!(scopes.len() <= MAX_SCOPES);
        }
        assert!(of_response(b"no key", &HeaderMap::new()).contains(&LOOSE));
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        for (prefix, path, covered) in [
            ("/", "/", true),
            ("", "/a", true),
            ("/a", "/a", true),
            ("/a/", "/a", true),
            ("/a", "/a?x=/b", true),
            ("/a", "/a/", true),
            ("/a", "/a/b.css", true),
            ("/a/b", "/a/b/c/d?e", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
            ("/x", "/a?/x", false),
            ("/a//", "/a/b", false),
            ("/a//", "/a//b", true),
        ] {
            let scopes = of_response(&whole("a.example", path), &HeaderMap::new());
            assert_eq!(scopes.contains(&of_prefix("a.example", prefix).unwrap()), covered, "{prefix} {path}");
            assert!(!scopes.contains(&of_prefix("b.example", prefix).unwrap()), "another host");
            assert!(scopes.contains(&of_host("a.example")) && !scopes.contains(&of_host("b.example")));
        }
        let deep = "/x".repeat(MAX_DEPTH);
        let scopes = of_response(&whole("a.example", &format!("{deep}/y/z")), &HeaderMap::new());
        assert!(scopes.contains(&of_prefix("a.example", &deep).unwrap()));
        assert_eq!(of_prefix("a.example", &format!("{deep}/y")), None);
        assert!(scopes.len() <= MAX_SCOPES);
    }

    proptest! {
        #[test]
        fn a_prefix_covers_what_the_rule_says(prefix in "(/[ab]{0,2}){0,4}", path in "(/[ab]{0,2}){1,5}(\\?[ab/]{0,3})?") {
            let scopes = of_response(&whole("a", &path), &HeaderMap::new());
            let bare = prefix.strip_suffix('/').unwrap_or(&prefix);
            let own = path.split('?').next().unwrap();
            let covered = own == bare || own.strip_prefix(bare).is_some_and(|rest| rest.starts_with('/'));
            prop_assert_eq!(scopes.contains(&of_prefix("a", &prefix).unwrap()), covered);
        }
    }
}
