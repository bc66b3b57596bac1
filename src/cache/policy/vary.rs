//! The secondary key that `Vary` asks for (RFC 9111 section 4.1).

use aws_lc_rs::digest;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, COOKIE, HeaderName, VARY};

use crate::cache::disk::Hash128;

/// Codings that most clients name. Others select as well, for an origin may know them.
const CODINGS: [&str; 5] = ["gzip", "br", "zstd", "identity", "deflate"];
/// Fields that the edge makes anew for each client or request: what the origin was sent is not what the key would have.
const OWN: [&str; 3] = ["x-forwarded-for", "x-real-ip", "x-request-id"];

/// The language that the responses of one target are told apart by: that of the one stored first. It has to be the same
/// for all of them, in look-up and store alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    language: Option<String>,
}

/// The family that a response found first, or stored first, begins: its `Content-Language`, if that is one language and
/// `Accept-Language` selects.
pub fn family(response: &HeaderMap) -> Family {
    let mut values = response.get_all(CONTENT_LANGUAGE).iter();
    let language = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(|tag| tag.trim().to_ascii_lowercase()),
        _ => None,
    };
    Family { language: language.filter(|tag| !tag.is_empty() && !tag.contains(',')) }
}

/// A hash of the request's fields that the response's `Vary` names; `None` without a `Vary`.
///
/// The same request and the same set of names give the same hash whatever their order and case, how a list is spread
/// over field lines, and how `Accept-Encoding` or `Accept-Language` is worded. Requests that like the family's language
/// best share a hash, whatever else they would put up with. The hash is cryptographic, for a client chooses what goes
/// into it.
pub fn variance(response: &HeaderMap, request: &HeaderMap, family: &Family) -> Option<Hash128> {
    let names = names(response);
    if names.is_empty() {
        return None;
    }
    let mut framed = Vec::with_capacity(64);
    for name in &names {
        push(&mut framed, name.as_bytes());
        match selecting(name, request, family) {
            Some(value) => {
                framed.push(1);
                push(&mut framed, &value);
            }
            None => framed.push(0),
        }
    }
    let mut hash = Hash128::default();
    hash.copy_from_slice(&digest::digest(&digest::SHA256, &framed).as_ref()[..16]);
    Some(hash)
}

/// Whether nothing stored can be reused, as `Vary` says that anything may select, names what the key cannot have, or is
/// written in a way that hides what it names.
pub(super) fn is_unkeyable(response: &HeaderMap) -> bool {
    members(response).filter(|name| !name.is_empty()).any(|name| match HeaderName::from_bytes(name) {
        Ok(name) => name == "*" || OWN.contains(&name.as_str()),
        Err(_) => true,
    })
}

/// Whether cookies are among what selects the response.
pub(super) fn names_cookie(response: &HeaderMap) -> bool {
    members(response).any(|name| name.eq_ignore_ascii_case(b"cookie"))
}

fn members(response: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    response.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// The fields that a response's `Vary` names: lower-cased, sorted, each once.
pub fn names(response: &HeaderMap) -> Vec<String> {
    let mut names: Vec<String> = members(response)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn selecting(name: &str, request: &HeaderMap, family: &Family) -> Option<Vec<u8>> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    if !request.contains_key(&name) {
        return None;
    }
    let lines = || request.get_all(&name).iter().map(|value| value.as_bytes());
    if name == ACCEPT_ENCODING {
        return Some(acceptable(lines()));
    }
    if name == COOKIE {
        // One field, though HTTP/2 may spread it over lines (RFC 9113 section 8.2.3), and not a list with commas.
        return Some(lines().collect::<Vec<_>>().join(&b"; "[..]));
    }
    if name == ACCEPT_LANGUAGE
        && let Some(value) = languages(lines(), family)
    {
        return Some(value);
    }
    let members: Vec<&[u8]> =
        lines().flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).collect();
    Some(members.join(&b","[..]))
}

/// The languages a client takes (RFC 9110 section 12.5.4), by falling weight and then by name; of those that like the
/// family's language best, that language alone. `None` for what is no such list.
fn languages<'a>(lines: impl Iterator<Item = &'a [u8]>, family: &Family) -> Option<Vec<u8>> {
    let mut ranges: Vec<(u16, String)> = Vec::new();
    for member in lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
        if member.is_empty() {
            continue;
        }
        let mut parts = std::str::from_utf8(member).ok()?.split(';').map(str::trim);
        let range = parts.next()?.to_ascii_lowercase();
        let valid = range.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || range == "*";
        let weight = match (parts.next(), parts.next()) {
            (None, _) => 1000,
            (Some(parameter), None) => weight(parameter)?,
            _ => return None,
        };
        if !valid || range.is_empty() {
            return None;
        }
        ranges.push((1000 - weight, range));
    }
    ranges.sort_unstable();
    ranges.dedup();
    let best = ranges.first()?.0;
    if let Some(language) = &family.language
        && best < 1000
        && ranges.iter().any(|(weight, range)| *weight == best && range == language)
    {
        return Some(format!("={language}").into_bytes());
    }
    let worded: Vec<String> = ranges.iter().map(|(weight, range)| format!("{range};{weight}")).collect();
    Some(worded.join(",").into_bytes())
}

/// The thousandths of a `q=` parameter (RFC 9110 section 12.4.2).
fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// The codings that the client takes (RFC 9110 section 12.5.3): one bit for each of the usual ones, then the others.
fn acceptable<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut named: [Option<bool>; CODINGS.len()] = [None; CODINGS.len()];
    let mut star = None;
    let mut others: Vec<Vec<u8>> = Vec::new();
    for member in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let taken = !parts.any(is_zero_weight);
        let coding = if coding == b"x-gzip" { b"gzip".to_vec() } else { coding };
        if coding == b"*" {
            star = Some(taken);
        } else if let Some(at) = CODINGS.iter().position(|known| known.as_bytes() == coding) {
            named[at] = Some(taken);
        } else if taken && !coding.is_empty() {
            others.push(coding);
        }
    }
    if star == Some(true) {
        others.push(b"*".to_vec());
    }
    others.sort_unstable();
    others.dedup();
    let bits = named.iter().zip(CODINGS).enumerate().fold(0u8, |bits, (at, (named, coding))| {
        // Identity is taken unless refused, by name or by `*`.
        let taken = named.or(star).unwrap_or(coding == "identity");
        bits | (u8::from(taken) << at)
    });
    [vec![bits], others.join(&b","[..])].concat()
}

/// Whether a parameter is `q=0`, `q=0.0` and so on.
fn is_zero_weight(parameter: &[u8]) -> bool {
    let Some(weight) = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q=")) else { return false };
    !weight.is_empty() && weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

fn push(framed: &mut Vec<u8>, part: &[u8]) {
    framed.extend_from_slice(&(part.len() as u64).to_le_bytes());
    framed.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn of(vary: &str, request: &[(&str, &str)]) -> Option<Hash128> {
        variance(&map(&[("vary", vary)]), &map(request), &Family::default())
    }

    #[test]
    fn without_vary_there_is_no_secondary_key() {
        assert_eq!(variance(&HeaderMap::new(), &map(&[("accept", "a")]), &Family::default()), None);
        assert_eq!(of(" , ", &[("accept", "a")]), None);
        assert!(is_unkeyable(&map(&[("vary", "accept, *")])));
        assert!(!is_unkeyable(&map(&[("vary", "accept")])));
    }

    #[test]
    fn order_case_and_lines_do_not_matter() {
        let request = [("accept", "a, b"), ("x-one", "1")];
        let key = of("Accept, X-One", &request);
        assert_eq!(key, of("x-one,  accept,accept", &request));
        assert_eq!(key, of("accept, x-one", &[("x-one", "1"), ("accept", "a"), ("accept", " b")]));
        assert_ne!(key, of("accept, x-one", &[("accept", "a, b")]));
        assert_ne!(of("x-one", &[("x-one", "")]), of("x-one", &[]), "empty is not missing");
    }

    #[test]
    fn cookies_are_one_field_however_they_are_sent() {
        let key = of("cookie", &[("cookie", "a=1; b=2")]);
        assert_eq!(key, of("Cookie", &[("cookie", "a=1"), ("cookie", "b=2")]));
        assert_ne!(key, of("cookie", &[("cookie", "a=1,b=2")]), "one cookie with a comma");
        assert_ne!(key, of("cookie", &[("cookie", "b=2; a=1")]));
    }

    #[test]
    fn accept_encoding_is_the_set_of_codings() {
        let of = |value: &str| of("accept-encoding", &[("accept-encoding", value)]);
        let all = of("gzip, deflate, br, zstd");
        assert_eq!(all, of("br;q=0.5, GZIP, Deflate, zstd , unheard-of;q=0"));
        assert_eq!(of("gzip"), of("x-gzip;q=1, br;q=0.000"));
        assert_eq!(of("dcb, gzip, exi"), of("exi, gzip, dcb, dcb"));
        for other in ["*", "br, gzip, zstd", "gzip, deflate, br, zstd, unheard-of", "gzip, br, zstd, unheard-of"] {
            assert_ne!(all, of(other), "{other}: an origin may send what the others do not take");
        }
        assert_ne!(of("gzip"), of("gzip, identity;q=0"));
        assert_ne!(of("gzip"), of("br"));
        assert_eq!(of(""), of("identity"));
    }

    #[test]
    fn accept_language_is_a_weighted_set() {
        let of = |value: &str, content: &[(&str, &str)]| {
            let response = map(&[("vary", "Accept-Language")]);
            variance(&response, &map(&[("accept-language", value)]), &family(&map(content)))
        };
        let plain = |value: &str| of(value, &[]);
        for same in ["de, en", "eN, De", " en ,   de", "en;q=1, de;q=1.000", "en,de,,en"] {
            assert_eq!(plain(same), plain("en, de"), "{same}");
        }
        for other in ["en", "en, de;q=0.9", "en, de, fr", "en-GB, de", "en, de;q=2", "en, de;x=1", "en, de;q=0"] {
            assert_ne!(plain(other), plain("en, de"), "{other}");
        }
        let german = [("content-language", "DE")];
        for same in ["en, de", "fr;q=0.5, de;q=1.0", "de"] {
            assert_eq!(of(same, &german), of("en, de", &german), "{same}");
        }
        for other in ["en, de;q=0.9", "de-AT", "en", "de;q=0", "*"] {
            assert_ne!(of(other, &german), of("de", &german), "{other}");
        }
        assert_eq!(family(&map(&[("content-language", "de, en")])), Family::default());
    }

    proptest! {
        #[test]
        fn look_up_and_store_agree_and_no_input_panics(
            vary in "[ -~]{0,40}", language in "[ -~]{0,10}", name in "[a-z-]{1,8}", value in "[ -~]{0,40}",
        ) {
            let request = map(&[(&name, &value), ("accept-encoding", &value), ("accept-language", &value)]);
            let response = map(&[("vary", &vary), ("vary", &name), ("content-language", &language)]);
            let key = variance(&response, &request, &family(&response));
            prop_assert!(key.is_some());
            prop_assert_eq!(key, variance(&response.clone(), &request.clone(), &family(&response)));
        }

        #[test]
        fn another_value_of_a_named_field_is_another_key(a in "[a-z]{0,8}", b in "[a-z]{0,8}") {
            prop_assume!(a != b);
            prop_assert_ne!(of("x-v", &[("x-v", &a)]), of("x-v", &[("x-v", &b)]));
        }
    }
}
