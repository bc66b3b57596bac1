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
    let port = port.to_be_bytes();
    let parts: [&[u8]; 5] = [scheme.as_bytes(), host.as_bytes(), &port, path_and_query, discriminator];
    let count = if discriminator.is_empty() { 4 } else { 5 };
    let mut framed = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in &parts[..count] {
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

    proptest! {
        #[test]
        fn a_key_tells_what_it_was_made_of(host in "[a-z.]{0,9}", port: u16, path in "[ -~]{0,20}") {
            let key = target("https", &host, port, path.as_bytes());
            let parts = [b"https".as_slice(), host.as_bytes(), &port.to_be_bytes(), path.as_bytes()];
            prop_assert_eq!(super::parts(&key), Some(parts.to_vec()));
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
