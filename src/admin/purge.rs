//! The body of `POST /purge`.

use super::Purge;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::time::Duration;

/// Bytes that the body of a purge may have.
const BODY_LIMIT: usize = 1 << 20;
/// The whole body must be there within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const EXPECTED: &str =
    "send {\"urls\": [\"https://host/path\"]}, {\"all\": true}, or a form with url=https://host/path";

/// Why a body is not a purge.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPurge {
    #[error("the body has more than {0} bytes; send several purges")]
    TooLarge(usize),
    #[error("the body was not there within {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error("the body could not be read: {0}")]
    Broken(String),
    #[error("the body cannot be read as a purge: {0}; {EXPECTED}")]
    Malformed(String),
    #[error("the body names nothing to purge; {EXPECTED}")]
    Nothing,
}

/// Reads and parses a request's body.
pub(super) async fn read<B>(body: B) -> Result<Purge, BadPurge>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // What announces itself as too large is refused before a byte of it is read.
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(BadPurge::TooLarge(BODY_LIMIT));
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect()).await {
        Err(_) => Err(BadPurge::TooSlow(BODY_TIMEOUT)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BadPurge::TooLarge(BODY_LIMIT)),
        Ok(Err(error)) => Err(BadPurge::Broken(error.to_string())),
        Ok(Ok(collected)) => parse(&collected.to_bytes()),
    }
}

/// A body that starts as a JSON object is one, whatever its Content-Type: `curl -d` calls everything a form.
fn parse(body: &[u8]) -> Result<Purge, BadPurge> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Err(BadPurge::Nothing);
    }
    let wanted = if body.starts_with(b"{") {
        serde_json::from_slice::<Wanted>(body).map_err(|error| BadPurge::Malformed(error.to_string()))?
    } else {
        parse_form(body)?
    };
    match wanted {
        Wanted { urls, all: true } if urls.is_empty() => Ok(Purge::All),
        Wanted { all: true, .. } => {
            Err(BadPurge::Malformed("it asks for everything and for single URLs at once".to_owned()))
        }
        Wanted { urls, .. } if urls.is_empty() => Err(BadPurge::Nothing),
        Wanted { urls, .. } => Ok(Purge::Urls(urls)),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    urls: Vec<String>,
    all: bool,
}

/// `application/x-www-form-urlencoded`: `url` any number of times, or `all=true`.
fn parse_form(body: &[u8]) -> Result<Wanted, BadPurge> {
    let malformed = |what: &str| BadPurge::Malformed(what.to_owned());
    let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
    let mut wanted = Wanted::default();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| malformed("it is neither a JSON object nor a form"))?;
        let spaced = value.replace('+', " ");
        let value = percent_decode_str(&spaced).decode_utf8().map_err(|_| malformed("a value is not UTF-8"))?;
        match (name, value.as_ref()) {
            ("url", url) => wanted.urls.push(url.to_owned()),
            ("all", "true") => wanted.all = true,
            ("all", _) => return Err(malformed("`all` takes only `true`")),
            _ => return Err(malformed("it has a field other than `url` and `all`")),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[test]
    fn purges_are_read_from_json_and_forms() {
        let urls = |urls: &[&str]| Ok(Purge::Urls(urls.iter().map(|url| (*url).to_owned()).collect()));
        for (body, expected) in [
            ("{\"urls\": [\"https://a/b\", \"https://a/c\"]}", urls(&["https://a/b", "https://a/c"])),
            (" {\"all\": true}\n", Ok(Purge::All)),
            ("{\"all\": true, \"urls\": []}", Ok(Purge::All)),
            ("url=https://a/b", urls(&["https://a/b"])),
            ("url=https%3A%2F%2Fa%2Fb%3Fc%3Dd&url=https://a/x?y=z", urls(&["https://a/b?c=d", "https://a/x?y=z"])),
            ("url=https://a/b+c", urls(&["https://a/b c"])),
            ("all=true", Ok(Purge::All)),
        ] {
            assert_eq!(parse(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_purge_names_what_is_expected() {
        for (body, says) in [
            ("", "names nothing"),
            ("{}", "names nothing"),
            ("{\"all\": false}", "names nothing"),
            ("{\"urls\": []}", "names nothing"),
            ("{\"urls\": \"https://a/b\"}", "invalid type"),
            ("{\"urls\": [1]}", "invalid type"),
            ("{\"url\": [\"https://a/b\"]}", "unknown field `url`"),
            ("{\"urls\": [\"https://a/b\"], \"all\": true}", "at once"),
            ("{\"urls\": [", "EOF"),
            ("{\"all\": true} x", "trailing"),
            ("[\"https://a/b\"]", "neither a JSON object nor a form"),
            ("https://a/b", "neither a JSON object nor a form"),
            ("all=yes", "only `true`"),
            ("uri=https://a/b", "other than `url`"),
            ("url=%FF", "not UTF-8"),
        ] {
            let message = parse(body.as_bytes()).expect_err(body).to_string();
            assert!(message.contains(says) && message.contains("{\"all\": true}"), "{body}: {message}");
        }
        assert!(parse(&[b'u', 0xff]).is_err());
    }

    #[tokio::test]
    async fn a_body_may_have_one_mebibyte() {
        let mut body = b"url=".to_vec();
        body.resize(BODY_LIMIT, b'a');
        assert!(matches!(read(Full::new(Bytes::from(body.clone()))).await, Ok(Purge::Urls(urls)) if urls.len() == 1));
        body.push(b'a');
        assert_eq!(read(Full::new(Bytes::from(body))).await, Err(BadPurge::TooLarge(BODY_LIMIT)));
    }
}
