//! Object keys: from a request path to the key's bytes, and back to the one form that is both signed and sent.

use std::fmt::Write;

/// The longest object key S3 takes, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;

/// Why a request path names no object key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A `%` that two hexadecimal digits do not follow (RFC 3986 section 2.1).
    #[error("the path has a malformed percent-encoding")]
    MalformedEscape,
    /// U+0000, which no store takes and C libraries end a name at.
    #[error("the path has a NUL")]
    Nul,
    /// Object keys are Unicode text.
    #[error("the path is not UTF-8 once decoded")]
    NotUtf8,
    /// More than [`MAX_KEY_BYTES`].
    #[error("the object key is longer than {MAX_KEY_BYTES} bytes")]
    TooLong,
    /// Nothing is left for a key: the request would list the bucket.
    #[error("the path names no object")]
    Empty,
}

/// Decodes percent-encoding; everything else, `+`, `//` and `..` included, stays as it is: keys are not file paths.
/// `%2F` and `/` are the same byte of a key, so both name the same object.
///
/// # Errors
/// [`KeyError::MalformedEscape`], [`KeyError::Nul`], [`KeyError::NotUtf8`].
pub fn decode(path: &str) -> Result<String, KeyError> {
    let mut bytes = path.bytes();
    let mut out = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => match (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(KeyError::MalformedEscape),
            },
            plain => plain,
        };
        if byte == 0 {
            return Err(KeyError::Nul);
        }
        out.push(byte);
    }
    String::from_utf8(out).map_err(|_| KeyError::NotUtf8)
}

/// Appends `key` as S3 encodes a path: all but unreserved characters (RFC 3986 section 2.3) and `/` become `%XX` with
/// upper-case digits, once. Signature Version 4 signs this form, so it has to be the form on the wire as well.
pub fn encode_path(key: &str, out: &mut String) {
    for byte in key.bytes() {
        encode_byte(byte, byte == b'/', out);
    }
}

/// Appends a query name or value as Signature Version 4 encodes it: as [`encode_path`], `/` included.
pub fn encode_query(text: &[u8], out: &mut String) {
    for &byte in text {
        encode_byte(byte, false, out);
    }
}

fn encode_byte(byte: u8, plain: bool, out: &mut String) {
    if plain || byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
        out.push(char::from(byte));
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(key: &str) -> String {
        let mut out = String::new();
        encode_path(key, &mut out);
        out
    }

    #[test]
    fn each_awkward_key_has_one_encoding() {
        for (key, wire) in [
            ("a=b", "a%3Db"),
            ("me@example.com", "me%40example.com"),
            ("it's (1)", "it%27s%20%281%29"),
            ("a+b", "a%2Bb"),
            ("100%", "100%25"),
            ("a%2Fb", "a%252Fb"),
            ("two words", "two%20words"),
            ("画像/東京.jpg", "%E7%94%BB%E5%83%8F/%E6%9D%B1%E4%BA%AC.jpg"),
            ("файл", "%D1%84%D0%B0%D0%B9%D0%BB"),
            ("שלום", "%D7%A9%D7%9C%D7%95%D7%9D"),
            ("a//b", "a//b"),
            ("a/../b/./c", "a/../b/./c"),
            ("~user", "~user"),
            ("trailing.", "trailing."),
            ("a?b#c&d;e:f,g!h*i$j", "a%3Fb%23c%26d%3Be%3Af%2Cg%21h%2Ai%24j"),
            ("line\nfeed\\\"", "line%0Afeed%5C%22"),
        ] {
            assert_eq!(encoded(key), wire, "{key}");
            assert_eq!(decode(wire).as_deref(), Ok(key), "{wire}");
        }
    }

    #[test]
    fn reserved_characters_may_come_encoded_or_not() {
        for path in ["a=b@c'(d)+e", "a%3Db%40c%27%28d%29%2Be", "a%3db%40c%27(d)%2be"] {
            assert_eq!(decode(path).as_deref(), Ok("a=b@c'(d)+e"));
        }
        assert_eq!(decode("a%2Fb"), decode("a/b"));
        assert_eq!(decode("東京").as_deref(), Ok("東京"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for path in ["%", "a%2", "a%zz", "%%41", "a%+1", "%é1"] {
            assert_eq!(decode(path), Err(KeyError::MalformedEscape), "{path}");
        }
        assert_eq!(decode("a%00b"), Err(KeyError::Nul));
        assert_eq!(decode("a\0b"), Err(KeyError::Nul));
        assert_eq!(decode("%FF%FE"), Err(KeyError::NotUtf8));
    }

    proptest! {
        #[test]
        fn a_key_survives_the_round_trip(key in "[^\0]{0,64}") {
            prop_assert_eq!(decode(&encoded(&key)), Ok(key));
        }

        #[test]
        fn decoding_never_panics(path in ".{0,64}") {
            let _ = decode(&path);
        }
    }
}
