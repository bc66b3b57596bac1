//! The body of `POST /purge`.

use super::Order;
use crate::cache::purge::Scope;
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
const EXPECTED: &str = "send {\"urls\": [\"https://host/path\"]}, with prefixes, hosts or tags likewise, {\"all\": true}, or a form with url=https://host/path";

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
pub(super) async fn read<B>(body: B) -> Result<Order, BadPurge>
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
fn parse(body: &[u8]) -> Result<Order, BadPurge> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Err(BadPurge::Nothing);
    }
    let wanted = if body.starts_with(b"{") {
        serde_json::from_slice::<Wanted>(body).map_err(|error| BadPurge::Malformed(error.to_string()))?
    } else {
        parse_form(body)?
    };
    let Wanted { urls, prefixes, hosts, tags, all, soft } = wanted;
    let named = [
        (urls, Scope::Url as fn(String) -> Scope),
        (prefixes, Scope::Prefix),
        (hosts, Scope::Host),
        (tags, Scope::Tag),
    ];
    let scopes: Vec<Scope> = named.into_iter().flat_map(|(names, scope)| names.into_iter().map(scope)).collect();
    match (all, scopes.is_empty()) {
        (true, true) => Ok(Order { scopes: vec![Scope::All], soft }),
        (true, false) => Err(BadPurge::Malformed("it asks for everything and for single things at once".to_owned())),
        (false, true) => Err(BadPurge::Nothing),
        (false, false) => Ok(Order { scopes, soft }),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    urls: Vec<String>,
    prefixes: Vec<String>,
    hosts: Vec<String>,
    tags: Vec<String>,
    all: bool,
    soft: bool,
}

/// `application/x-www-form-urlencoded`: `url`, `prefix`, `host` and `tag` any number of times, or `all=true`.
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
            ("prefix", prefix) => wanted.prefixes.push(prefix.to_owned()),
            ("host", host) => wanted.hosts.push(host.to_owned()),
            ("tag", tag) => wanted.tags.push(tag.to_owned()),
            ("all", "true") => wanted.all = true,
            ("soft", "true") => wanted.soft = true,
            ("all" | "soft", _) => return Err(malformed("`all` and `soft` take only `true`")),
            _ => return Err(malformed("it has a field other than `url`, `prefix`, `host`, `tag`, `all` and `soft`")),
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
        let order = |scopes: Vec<Scope>, soft| Ok(Order { scopes, soft });
        let urls = |urls: &[&str]| order(urls.iter().map(|url| Scope::Url((*url).to_owned())).collect(), false);
        let mixed = || {
            let (prefix, host, tag) = (Scope::Prefix("a/b".into()), Scope::Host("c".into()), Scope::Tag("d".into()));
            order(vec![Scope::Url("https://a/".into()), prefix, host, tag], true)
        };
        for (body, expected) in [
            ("{\"urls\": [\"https://a/b\", \"https://a/c\"]}", urls(&["https://a/b", "https://a/c"])),
            (" {\"all\": true}\n", order(vec![Scope::All], false)),
            ("{\"all\": true, \"urls\": [], \"soft\": true}", order(vec![Scope::All], true)),
            (
                "{\"tags\": [\"d\"], \"hosts\": [\"c\"], \"prefixes\": [\"a/b\"], \"urls\": [\"https://a/\"], \"soft\": true}",
                mixed(),
            ),
            ("tag=d&host=c&prefix=a/b&soft=true&url=https://a/", mixed()),
            ("url=https://a/b", urls(&["https://a/b"])),
            ("url=https%3A%2F%2Fa%2Fb%3Fc%3Dd&url=https://a/x?y=z", urls(&["https://a/b?c=d", "https://a/x?y=z"])),
            ("url=https://a/b+c", urls(&["https://a/b c"])),
            ("all=true", order(vec![Scope::All], false)),
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
            ("soft=1&url=x", "only `true`"),
            ("soft=true", "names nothing"),
            ("{\"all\": true, \"tags\": [\"x\"]}", "at once"),
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
        assert!(matches!(read(Full::new(Bytes::from(body.clone()))).await, Ok(order) if order.scopes.len() == 1));
        body.push(b'a');
        assert_eq!(read(Full::new(Bytes::from(body))).await, Err(BadPurge::TooLarge(BODY_LIMIT)));
    }
}
