//! What of a request tells it apart from others.

use std::borrow::Cow;

use aws_lc_rs::digest;
use http::HeaderName;
use http::header::{HeaderMap, USER_AGENT};
use percent_encoding::percent_decode;

use super::pattern::Glob;
use super::personal::cookie_values;

/// Parameters by which advertisers and mailers follow their visitors. They say nothing of what is asked for.
const TRACKING: [&str; 35] = [
    "_branch_match_id",
    "_ga",
    "_gl",
    "_hsenc",
    "_hsmi",
    "_openstat",
    "dclid",
    "epik",
    "fb_action_ids",
    "fb_action_types",
    "fbclid",
    "gad_source",
    "gbraid",
    "gclid",
    "gclsrc",
    "igsh",
    "igshid",
    "li_fat_id",
    "mc_cid",
    "mc_eid",
    "mkt_tok",
    "ml_subscriber",
    "ml_subscriber_hash",
    "msclkid",
    "oly_anon_id",
    "oly_enc_id",
    "rb_clickid",
    "s_cid",
    "srsltid",
    "ttclid",
    "twclid",
    "vero_id",
    "wbraid",
    "wickedid",
    "yclid",
];
const TRACKING_PREFIX: &str = "utm_";

/// How the key of a request is made from it. By default: scheme, host, port, path and query, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRules {
    /// The whole query is left out.
    pub no_query: bool,
    /// Only parameters of these names count; `None`: all.
    pub only: Option<Vec<Glob>>,
    /// Parameters of these names do not count.
    pub ignore: Vec<Glob>,
    /// Nor do those of the built-in list of tracking parameters.
    pub ignore_tracking: bool,
    /// Parameters are put into the order of their names. Those of one name keep theirs: it has a meaning.
    pub sort: bool,
    /// Request fields whose lines count.
    pub headers: Vec<HeaderName>,
    /// The class of the client's device counts.
    pub device: bool,
}

/// What kind of screen a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A phone.
    Mobile,
    /// A tablet.
    Tablet,
    /// Anything else.
    Desktop,
}

impl Device {
    /// How the names of fields begin by which browsers describe themselves in parts.
    pub const HINTS: &'static str = "sec-ch-";

    /// `mobile`, `tablet` or `desktop`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Desktop => "desktop",
        }
    }

    /// A `User-Agent` that stands for the class, as browsers that tell no more than they must send it. The origin gets
    /// it in place of the client's, whose other parts are not in the key.
    pub fn user_agent(self) -> &'static str {
        match self {
            Self::Mobile => {
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36"
            }
            Self::Tablet => {
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
            }
            Self::Desktop => {
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
            }
        }
    }

    /// The class of a request's client, from the client hint where it is sent, else from `User-Agent`.
    pub fn of(request: &HeaderMap) -> Self {
        let agent = request.get(USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes()).to_ascii_lowercase());
        let agent = agent.as_deref().unwrap_or_default();
        let has = |word: &str| agent.contains(word);
        let tablet = has("ipad")
            || has("tablet")
            || has("kindle")
            || has("playbook")
            || (has("silk/") || has("android")) && !has("mobile");
        if tablet {
            return Self::Tablet;
        }
        match request.get("sec-ch-ua-mobile").map(|v| v.as_bytes().trim_ascii()) {
            Some(b"?1") => Self::Mobile,
            Some(b"?0") => Self::Desktop,
            _ if ["mobi", "iphone", "ipod", "opera mini", "windows phone", "blackberry"].iter().any(|w| has(w)) => {
                Self::Mobile
            }
            _ => Self::Desktop,
        }
    }
}

impl KeyRules {
    /// The path and query that count. The origin is asked for this target and no other, so that nothing that was left
    /// out can change what is stored.
    pub fn target<'t>(&self, path_and_query: &'t str) -> Cow<'t, str> {
        let Some((path, query)) = path_and_query.split_once('?') else { return Cow::Borrowed(path_and_query) };
        if self.no_query {
            return Cow::Borrowed(path);
        }
        if self.only.is_none() && self.ignore.is_empty() && !self.ignore_tracking && !self.sort {
            return Cow::Borrowed(path_and_query);
        }
        let mut kept: Vec<(Cow<'_, str>, &str)> =
            query.split('&').map(|part| (name(part), part)).filter(|(name, _)| self.counts(name)).collect();
        if self.sort {
            kept.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let query = kept.iter().map(|(_, part)| *part).collect::<Vec<_>>().join("&");
        Cow::Owned(if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") })
    }

    fn counts(&self, name: &str) -> bool {
        let listed = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name));
        let tracking = || name.starts_with(TRACKING_PREFIX) || TRACKING.binary_search(&name).is_ok();
        self.only.as_deref().is_none_or(listed) && !listed(&self.ignore) && !(self.ignore_tracking && tracking())
    }

    pub(super) fn variance(
        &self,
        cookies: &[Box<str>],
        vary: Option<[u8; 16]>,
        request: &HeaderMap,
    ) -> Option<[u8; 16]> {
        if self.headers.is_empty() && cookies.is_empty() && !self.device {
            return vary;
        }
        let mut framed = Vec::with_capacity(128);
        push_list(&mut framed, vary.iter().map(<[u8; 16]>::as_slice));
        for name in &self.headers {
            push_list(&mut framed, request.get_all(name).iter().map(|value| value.as_bytes()));
        }
        for name in cookies {
            push_list(&mut framed, cookie_values(request, name));
        }
        if self.device {
            push(&mut framed, Device::of(request).as_str().as_bytes());
        }
        let mut hash = [0; 16];
        // Cryptographic, for a client chooses what goes into it and the tiers compare no more than the hash.
        hash.copy_from_slice(&digest::digest(&digest::SHA256, &framed).as_ref()[..16]);
        Some(hash)
    }

    pub(super) fn discriminator(&self, cookies: &[Box<str>]) -> Vec<u8> {
        let mut framed = Vec::new();
        if !self.headers.is_empty() || !cookies.is_empty() || self.device {
            push_list(&mut framed, self.headers.iter().map(|name| name.as_str().as_bytes()));
            push_list(&mut framed, cookies.iter().map(|name| name.as_bytes()));
            framed.push(self.device.into());
        }
        framed
    }
}

/// The decoded name of a query's part. An origin would decode it as well, so that an encoded name is the same name.
fn name(part: &str) -> Cow<'_, str> {
    let raw = part.split_once('=').map_or(part, |(name, _)| name);
    if !raw.contains(['%', '+']) {
        return Cow::Borrowed(raw);
    }
    let spaced = raw.replace('+', " ");
    Cow::Owned(percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned())
}

fn push_list<'p>(framed: &mut Vec<u8>, parts: impl Iterator<Item = &'p [u8]>) {
    let at = framed.len();
    framed.extend_from_slice(&[0; 8]);
    let mut count = 0u64;
    for part in parts {
        count += 1;
        push(framed, part);
    }
    framed[at..at + 8].copy_from_slice(&count.to_be_bytes());
}

fn push(framed: &mut Vec<u8>, part: &[u8]) {
    framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
    framed.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn rules() -> KeyRules {
        KeyRules { ignore_tracking: true, ignore: vec![Glob::new("x*")], ..KeyRules::default() }
    }

    #[test]
    fn tracking_parameters_are_sorted_for_the_search() {
        assert!(TRACKING.is_sorted());
    }

    #[test]
    fn parameters_are_left_out_kept_and_sorted_by_their_decoded_names() {
        let all = KeyRules::default();
        let sorted = KeyRules { sort: true, ..rules() };
        let only = KeyRules { only: Some(vec![Glob::new("id")]), ..KeyRules::default() };
        let none = KeyRules { no_query: true, ..KeyRules::default() };
        for (rules, target, kept) in [
            (&all, "/a?utm_source=b&c", "/a?utm_source=b&c"),
            (&all, "/a?", "/a?"),
            (&rules(), "/a?utm_source=b&c=1&gclid=2&xy", "/a?c=1"),
            (&rules(), "/a?%75tm_source=b&fbclid", "/a"),
            (&rules(), "/a?utm_content=1;c=evil", "/a"),
            (&rules(), "/a?b=utm_source&UTM_x=1", "/a?b=utm_source&UTM_x=1"),
            (&rules(), "/a", "/a"),
            (&sorted, "/a?b=2&a=1&%61=0&b=1", "/a?a=1&%61=0&b=2&b=1"),
            (&only, "/a?id=1&callback=x&id=2", "/a?id=1&id=2"),
            (&none, "/a?b", "/a"),
        ] {
            assert_eq!(rules.target(target), kept, "{target}");
            assert_eq!(rules.target(kept), kept, "what is asked of the origin has the same key");
        }
    }

    #[test]
    fn devices_are_told_apart() {
        let of = |agent: &str, hint: Option<&str>| {
            let mut map = HeaderMap::new();
            map.insert(USER_AGENT, HeaderValue::from_str(agent).unwrap());
            if let Some(hint) = hint {
                map.insert("sec-ch-ua-mobile", HeaderValue::from_str(hint).unwrap());
            }
            Device::of(&map)
        };
        for (agent, hint, device) in [
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148", None, Device::Mobile),
            ("Mozilla/5.0 (iPad; CPU OS 12_2 like Mac OS X) Mobile/15E148", None, Device::Tablet),
            ("Mozilla/5.0 (Linux; Android 14; SM-X710) Safari/537.36", None, Device::Tablet),
            ("Mozilla/5.0 (Linux; Android 14; K) Chrome/1 Mobile Safari/537.36", None, Device::Mobile),
            ("Mozilla/5.0 (Windows NT 10.0) Chrome/1", None, Device::Desktop),
            ("anything", Some("?1"), Device::Mobile),
            ("curl/8", Some("?0"), Device::Desktop),
            ("", None, Device::Desktop),
        ] {
            assert_eq!(of(agent, hint), device, "{agent}");
        }
        for device in [Device::Mobile, Device::Tablet, Device::Desktop] {
            assert_eq!(of(device.user_agent(), None), device, "the origin comes to the same class");
        }
    }

    /// What a request is by the rules' definition, worked out another way.
    type Meaning = (String, Vec<(String, String)>, Option<BTreeMap<String, Vec<String>>>);

    fn meaning(rules: &KeyRules, path: &str, query: &[(String, String)]) -> Meaning {
        let kept: Vec<(String, String)> = query
            .iter()
            .filter(|(n, _)| !(n.starts_with('x') || rules.ignore_tracking && n == "gclid"))
            .cloned()
            .collect();
        if !rules.sort {
            return (path.to_owned(), kept, None);
        }
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        kept.into_iter().for_each(|(n, v)| by_name.entry(n).or_default().push(v));
        (path.to_owned(), Vec::new(), Some(by_name))
    }

    fn parameters() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::vec(("(a|b|gclid|x1)", "[0-2]{0,2}"), 0..5)
    }

    fn text(path: &str, query: &[(String, String)]) -> String {
        let parts: Vec<String> = query.iter().map(|(n, v)| format!("{n}={v}")).collect();
        if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
    }

    fn map(fields: &[(&'static str, String)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        fields.iter().for_each(|(n, v)| {
            map.append(*n, HeaderValue::from_str(v).unwrap());
        });
        map
    }

    fn fields() -> impl Strategy<Value = Vec<(&'static str, String)>> {
        let name = prop::sample::select(vec!["x-a", "x-b", "x-unkeyed"]);
        prop::collection::vec((name, "[ab,]{0,2}"), 0..4)
    }

    proptest! {
        #[test]
        fn requests_share_a_target_exactly_when_the_rules_say_so(
            path_a in "/[ab]?", path_b in "/[ab]?", a in parameters(), b in parameters(), sort: bool, ignore_tracking: bool,
        ) {
            let rules = KeyRules { sort, ignore_tracking, ..rules() };
            let same = meaning(&rules, &path_a, &a) == meaning(&rules, &path_b, &b);
            let (a, b) = (text(&path_a, &a), text(&path_b, &b));
            prop_assert_eq!(rules.target(&a) == rules.target(&b), same, "{} {}", a, b);
        }

        #[test]
        fn requests_share_a_variant_exactly_when_the_named_fields_and_cookies_agree(
            a in fields(), b in fields(), cookie_a in "(k=[01]|o=[01])(; (k=[01]|o=[01])){0,2}", cookie_b in "(k=[01]|o=[01])?",
        ) {
            let rules = KeyRules { headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")], ..KeyRules::default() };
            let cookies: [Box<str>; 1] = ["k".into()];
            let with = |fields: &[(&'static str, String)], cookie: &str| {
                let mut fields = fields.to_vec();
                fields.push(("cookie", cookie.to_owned()));
                map(&fields)
            };
            let defined = |fields: &[(&'static str, String)], cookie: &str| {
                let lines = |name: &str| fields.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
                let values = cookie.split("; ").filter(|c| c.starts_with("k=")).map(str::to_owned).collect::<Vec<_>>();
                (lines("x-a"), lines("x-b"), values)
            };
            let same = defined(&a, &cookie_a) == defined(&b, &cookie_b);
            let keys = [with(&a, &cookie_a), with(&b, &cookie_b)].map(|m| rules.variance(&cookies, None, &m));
            prop_assert_eq!(keys[0] == keys[1], same);
            prop_assert_ne!(keys[0], rules.variance(&cookies, Some([0; 16]), &with(&a, &cookie_a)));
        }
    }
}
