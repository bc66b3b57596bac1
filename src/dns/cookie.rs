//! Server cookies (RFC 7873), in the form that servers of one address share (RFC 9018).

use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use std::net::IpAddr;

/// Bytes of the client's part.
pub const CLIENT: usize = 8;
/// Bytes of both parts.
pub const WHOLE: usize = 24;
/// Seconds for which one counts (RFC 9018 section 4.3).
const LIFETIME: u32 = 3600;
/// Seconds for which one may lie in the future.
const AHEAD: u32 = 300;
/// Version 1 and three reserved bytes.
const VERSION: [u8; 4] = [1, 0, 0, 0];

/// What signs cookies. Servers that answer for one address have the same.
#[derive(Clone)]
pub struct Key([u8; 16]);

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A key that nobody else has.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            // Without randomness cookies would prove nothing; a key of the standard library's is still not to be guessed.
            use std::hash::{BuildHasher, RandomState};
            let half = || RandomState::new().hash_one(0_u8).to_le_bytes();
            bytes = [half(), half()].concat().try_into().unwrap_or(bytes);
        }
        Self(bytes)
    }

    /// The cookie for a client's part, made `now` (seconds since 1970, modulo 2^32).
    pub fn make(&self, client: [u8; CLIENT], from: IpAddr, now: u32) -> [u8; WHOLE] {
        let mut cookie = [0; WHOLE];
        cookie[..8].copy_from_slice(&client);
        cookie[8..12].copy_from_slice(&VERSION);
        cookie[12..16].copy_from_slice(&now.to_be_bytes());
        let hash = self.hash(&cookie[..16], from);
        cookie[16..].copy_from_slice(&hash);
        cookie
    }

    /// Whether this server, or one with the same key, gave the cookie to this address not long ago.
    pub fn is_valid(&self, cookie: &[u8], from: IpAddr, now: u32) -> bool {
        let Ok(cookie) = <[u8; WHOLE]>::try_from(cookie) else { return false };
        let made = u32::from_be_bytes([cookie[12], cookie[13], cookie[14], cookie[15]]);
        // Serial number arithmetic (RFC 1982), since the number wraps in 2106.
        let age = now.wrapping_sub(made).cast_signed();
        let in_time = (-(AHEAD.cast_signed())..=LIFETIME.cast_signed()).contains(&age);
        let expected = self.hash(&cookie[..16], from);
        let equal = aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &cookie[16..]).is_ok();
        cookie[8] == VERSION[0] && in_time && equal
    }

    fn hash(&self, head: &[u8], from: IpAddr) -> [u8; 8] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(head);
        match from.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        hasher.finish().to_le_bytes()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// The example of RFC 9018 appendix A.1.
    #[test]
    fn cookies_are_those_of_the_standard() {
        let key: [u8; 16] = hex("e5e973e5a6b2a43f48e7dc849e37bfcf").try_into().unwrap();
        let cookie = hex("2464c4abcf10c957010000005cf79f111f8130c3eee29480");
        let (key, from, made) = (Key::new(key), "198.51.100.100".parse().unwrap(), 0x5cf7_9f11);
        assert_eq!(key.make(cookie[..8].try_into().unwrap(), from, made).to_vec(), cookie);
        assert!(key.is_valid(&cookie, from, made));
    }

    #[test]
    fn a_cookie_counts_for_an_hour_and_one_address() {
        let (key, from) = (Key::random(), "192.0.2.1".parse().unwrap());
        let now = u32::MAX - 10;
        let cookie = key.make(*b"12345678", from, now);
        for (seconds, valid) in [(0, true), (3600, true), (3601, false), (-300, true), (-301, false)] {
            assert_eq!(key.is_valid(&cookie, from, now.wrapping_add_signed(seconds)), valid, "{seconds}");
        }
        assert!(key.is_valid(&cookie, "::ffff:192.0.2.1".parse().unwrap(), now));
        assert!(!key.is_valid(&cookie, "192.0.2.2".parse().unwrap(), now));
        assert!(!Key::random().is_valid(&cookie, from, now));
        assert!(!key.is_valid(&cookie[..16], from, now));
        for at in 0..WHOLE {
            let mut changed = cookie;
            changed[at] ^= 1;
            // The reserved bytes and the time are signed with the rest.
            assert!(!key.is_valid(&changed, from, now), "byte {at}");
        }
    }
}
