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
    let parts: [&[u8]; 4] = [scheme.as_bytes(), host.as_bytes(), &port.to_be_bytes(), path_and_query];
    let mut framed = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
        framed.extend_from_slice(part);
    }
    let hash = xxh3_128(&framed).to_be_bytes();
    let mut key = CacheKey::new(framed, "");
    key.set_primary_bin_override(hash);
    key
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

    proptest! {
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
