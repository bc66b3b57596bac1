//! The key of a stored response.

use pingora::cache::CacheKey;
use pingora::cache::key::CacheHashKey;
use xxhash_rust::xxh3::xxh3_128;

use crate::cache::disk;

/// The key of a target URI: every part with its length before it, so that no two targets share one.
///
/// `scheme` and `host` are lower-case as the router has them; `path_and_query` is taken byte for byte. The hash is
/// stable over restarts; it isn't cryptographic, and therefore the tiers compare the whole key on a hit.
pub fn target(scheme: &str, host: &str, port: u16, path_and_query: &[u8]) -> CacheKey {
    target_under(scheme, host, port, path_and_query, &[])
}

/// The same under rules that make more of a request count: `discriminator` names those parts
/// ([`super::rules::CacheRules::discriminator`]); the parts themselves are in the secondary key.
pub fn target_under(scheme: &str, host: &str, port: u16, path_and_query: &[u8], discriminator: &[u8]) -> CacheKey {
    let mut framed = Vec::with_capacity(64 + host.len() + path_and_query.len() + discriminator.len());
    let hash = frame(&mut framed, scheme, host, port, path_and_query, discriminator).hash;
    let mut key = CacheKey::new(framed, "");
    key.set_primary_bin_override(hash);
    key
}

/// A key before it is made one, in memory that is lent: for look-ups that come to nothing most often, or too often to
/// allocate.
#[derive(Clone, Copy, Debug)]
pub struct Framed<'f> {
    /// What the tiers know it by.
    pub hash: disk::Hash128,
    /// The whole of it.
    pub whole: &'f [u8],
}

/// The key that [`target_under`] makes, in `framed`, whose content is replaced.
pub fn frame<'f>(
    framed: &'f mut Vec<u8>,
    scheme: &str,
    host: &str,
    port: u16,
    path_and_query: &[u8],
    discriminator: &[u8],
) -> Framed<'f> {
    let port = port.to_be_bytes();
    let parts: [&[u8]; 5] = [scheme.as_bytes(), host.as_bytes(), &port, path_and_query, discriminator];
    let count = if discriminator.is_empty() { 4 } else { 5 };
    framed.clear();
    for part in &parts[..count] {
        framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
        framed.extend_from_slice(part);
    }
    Framed { hash: xxh3_128(framed).to_be_bytes(), whole: framed }
}

/// The key of one slice of what is stored in slices under `whole`, which [`target`] made: it begins with the same parts.
pub(super) fn slice(whole: &[u8], id: &[u8; 16], index: u64) -> CacheKey {
    let index = index.to_be_bytes();
    let parts: [&[u8]; 3] = [b"slice", id, &index];
    let mut framed = Vec::with_capacity(whole.len() + parts.iter().map(|part| part.len() + 8).sum::<usize>());
    framed.extend_from_slice(whole);
    for part in parts {
        framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
        framed.extend_from_slice(part);
    }
    let hash = xxh3_128(&framed).to_be_bytes();
    let mut key = CacheKey::new(framed, "");
    key.set_primary_bin_override(hash);
    key
}

/// The parts that a key was made of by [`target`], scheme first; `None` for a key that it did not make.
pub fn parts(key: &CacheKey) -> Option<Vec<&[u8]>> {
    let mut rest = key.primary_key();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (found, after) = part(rest)?;
        parts.push(found);
        rest = after;
    }
    Some(parts)
}

/// The URL that a whole key of [`target`] stands for, the scheme's own port left out, and whether rules made more of the
/// request count; `None` for any other key. Bytes that no URL has are percent-encoded.
pub fn url(whole: &[u8]) -> Option<(String, bool)> {
    let (scheme, rest) = part(whole)?;
    let (host, rest) = part(rest)?;
    let (port, rest) = part(rest)?;
    let (path, rest) = part(rest)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let own_port = if scheme == b"https" { 443 } else { 80 };
    let port = if port == own_port { String::new() } else { format!(":{port}") };
    Some((format!("{}://{}{port}{}", visible(scheme), visible(host), visible(path)), !rest.is_empty()))
}

/// Text of visible ASCII: all other bytes are percent-encoded, so that a terminal obeys none of them.
pub fn visible(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, byte| {
        if byte.is_ascii_graphic() {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

/// Host and path with query of a whole key, as [`target`] framed them; `None` for anything else.
pub(super) fn location(whole: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_scheme, rest) = part(whole)?;
    let (host, rest) = part(rest)?;
    let (_port, rest) = part(rest)?;
    let (path_and_query, _) = part(rest)?;
    Some((host, path_and_query))
}

fn part(framed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = framed.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)
}

/// What the disk tier knows the variants of a key by.
pub fn hash(key: &CacheKey) -> disk::Hash128 {
    key.primary_bin()
}

/// The tiers' form of a key.
pub(super) fn tier_key(key: &CacheKey) -> disk::Key {
    disk::Key { primary: key.primary_bin(), variant: key.variance_bin() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_the_same_in_every_process() {
        let key = target("https", "example.com", 443, b"/a?b=c");
        assert_eq!(key.primary(), "37e4cf7efecd14c8866ee09b6358421f");
    }

    #[test]
    fn a_discriminator_makes_another_key() {
        let key = |discriminator: &[u8]| target_under("https", "example.com", 443, b"/a?b=c", discriminator);
        assert_eq!(key(b"").primary_key(), target("https", "example.com", 443, b"/a?b=c").primary_key());
        assert_ne!(key(b"").primary_key(), key(b"x").primary_key());
        assert_ne!(tier_key(&key(b"y")), tier_key(&key(b"x")));
    }

    #[test]
    fn host_and_path_can_be_read_back() {
        let key = target("https", "example.com", 443, b"/a/b?c=d");
        assert_eq!(location(key.primary_key()), Some((&b"example.com"[..], &b"/a/b?c=d"[..])));
        for length in 0..key.primary_key().len() {
            assert_eq!(location(&key.primary_key()[..length]), None);
        }
    }

    #[test]
    fn a_key_is_shown_as_the_url_it_stands_for() {
        for (scheme, port, path, url) in [
            ("https", 443, "/a?b", "https://a.example/a?b"),
            ("http", 80, "/", "http://a.example/"),
            ("http", 8080, "/x y", "http://a.example:8080/x%20y"),
            ("https", 80, "/\u{1b}[2J", "https://a.example:80/%1B[2J"),
        ] {
            let plain = target(scheme, "a.example", port, path.as_bytes());
            assert_eq!(super::url(plain.primary_key()), Some((url.to_owned(), false)));
            let ruled = target_under(scheme, "a.example", port, path.as_bytes(), b"x");
            assert_eq!(super::url(ruled.primary_key()), Some((url.to_owned(), true)));
        }
        assert_eq!(super::url(b"something else"), None);
    }

    proptest! {
        #[test]
        fn a_key_tells_what_it_was_made_of(host in "[a-z.]{0,9}", port: u16, path in "[ -~]{0,20}") {
            let key = target("https", &host, port, path.as_bytes());
            let parts = [b"https".as_slice(), host.as_bytes(), &port.to_be_bytes(), path.as_bytes()];
            prop_assert_eq!(super::parts(&key), Some(parts.to_vec()));
        }

        #[test]
        fn a_slice_has_a_key_of_its_own_under_its_target(id: [u8; 16], other: [u8; 16], index: u64) {
            let whole = target("https", "example.com", 443, b"/a?b=c");
            let slice = super::slice(whole.primary_key(), &id, index);
            prop_assert_eq!(location(slice.primary_key()), location(whole.primary_key()));
            prop_assert!(tier_key(&slice) != tier_key(&whole));
            let next = super::slice(whole.primary_key(), &id, index.wrapping_add(1));
            prop_assert!(tier_key(&slice) != tier_key(&next));
            let others = super::slice(whole.primary_key(), &other, index);
            prop_assert_eq!(id == other, tier_key(&slice) == tier_key(&others));
        }

        #[test]
        fn different_targets_have_different_keys(
            a in ("https?", "[a-z/.]{0,6}", 0u16..3, "[a-z/.]{0,6}"),
            b in ("https?", "[a-z/.]{0,6}", 0u16..3, "[a-z/.]{0,6}"),
        ) {
            let key = |t: &(String, String, u16, String)| target(&t.0, &t.1, t.2, t.3.as_bytes());
            let (key_a, key_b) = (key(&a), key(&b));
            prop_assert_eq!(a == b, key_a.primary_key() == key_b.primary_key());
            prop_assert_eq!(a == b, tier_key(&key_a) == tier_key(&key_b));
        }
    }
}
