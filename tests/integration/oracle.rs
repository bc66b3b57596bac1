//! The edge against an origin that can be asked directly: whatever is asked, and however often, the answer is the one
//! that the origin gives at this moment.

use crate::support::Edge;
use crate::support::client::{Answer, Speaker};
use crate::support::edge::{config, one_origin};
use crate::support::oracle::{Held, Oracle, Reply, Resource, Tagged, Varies};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// An entity tag in a precondition, relative to what is there when it is sent.
#[derive(Clone, Copy, Debug)]
enum Tag {
    Present,
    PresentWeak,
    Other,
    Star,
    ListWithPresent,
    Nonsense,
}

/// A date in a precondition, likewise.
#[derive(Clone, Copy, Debug)]
enum When {
    Present,
    Before,
    After,
    Nonsense,
}

/// One request.
#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    range: Option<String>,
    if_range: Option<Result<Tag, When>>,
    if_match: Option<Tag>,
    if_none_match: Option<Tag>,
    if_modified_since: Option<When>,
    if_unmodified_since: Option<When>,
    /// The value of the field that the resource varies by.
    chooses: Option<&'static str>,
    cache_control: Option<&'static str>,
    /// The resource is changed before, past the edge; only where the edge has to notice.
    changed: bool,
    /// So many at a time.
    together: usize,
}

/// A resource, unknown to the edge, and what is asked of it.
#[derive(Clone, Debug)]
struct Scene {
    resource: Resource,
    h2: bool,
    asks: Vec<Ask>,
}

/// Directives under which the edge may answer without asking again, and those under which it may not.
const LASTING: [&str; 4] = ["max-age=3600", "public, s-maxage=3600", "", "max-age=3600, must-revalidate"];
const FLEETING: [&str; 5] = ["no-cache", "max-age=0, must-revalidate", "s-maxage=0", "no-store", "private, max-age=60"];

fn resources() -> impl Strategy<Value = Resource> {
    let size = prop_oneof![
        3 => 0usize..3,
        8 => 3usize..200,
        3 => 200usize..70_000,
        1 => select(vec![65_535usize, 65_536, 131_073, 1_048_575, 1_048_576, 1_048_577, 3_000_000]),
    ];
    let varies =
        select(vec![Varies::Never, Varies::Never, Varies::Flavour, Varies::Language, Varies::Coding, Varies::Cookie]);
    let tagged = select(vec![Tagged::Strong, Tagged::Strong, Tagged::Weak, Tagged::None]);
    let status = select(vec![200u16, 200, 200, 200, 200, 200, 200, 404, 203, 204, 301]);
    let cache_control = select([&LASTING[..], &LASTING[..], &FLEETING[..]].concat());
    (size, status, tagged, any::<bool>(), proptest::bool::weighted(0.2), varies, cache_control).prop_map(
        |(size, status, tagged, dated, chunked, varies, cache_control)| Resource {
            size,
            status,
            tagged,
            dated,
            chunked: chunked && status == 200,
            varies,
            cache_control,
        },
    )
}

/// Fields of one kind that the resource may vary by.
fn choices(varies: Varies) -> Vec<Option<&'static str>> {
    match varies {
        Varies::Never => vec![None],
        Varies::Flavour => vec![None, Some(""), Some("mild"), Some("hot")],
        Varies::Language => {
            vec![None, Some("de"), Some("DE, en;q=0.5"), Some("fr;q=0.9,en;q=0.2"), Some("it, de;q=0.1"), Some("it")]
        }
        Varies::Coding => {
            vec![None, Some("gzip"), Some("gzip, deflate"), Some("deflate"), Some("br"), Some("gzip, br")]
        }
        Varies::Cookie => vec![None, Some("a=1"), Some("a=1,b=2"), Some("a=1; b=2"), Some("b=2; a=1")],
    }
}

fn range(size: usize) -> impl Strategy<Value = String> {
    let at = move || prop_oneof![6 => 0..=size.saturating_add(2), 1 => Just(usize::MAX)];
    let one = prop_oneof![
        6 => (at(), at()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        2 => at().prop_map(|a| format!("{a}-")),
        2 => at().prop_map(|a| format!("-{a}")),
    ];
    let odd = select(vec!["-", "5-2", "0-0", "-0", "x-1", "99999999999999999999999-", "-99999999999999999999999"]);
    let one = prop_oneof![12 => one, 1 => odd.prop_map(str::to_owned)];
    let list = prop_oneof![
        4 => one.clone().prop_map(|one| vec![one]),
        1 => prop::collection::vec(one, 2..5),
        1 => prop::collection::vec(0..=size, 4..9).prop_map(|mut cuts| {
            cuts.sort_unstable();
            cuts.dedup();
            cuts.chunks_exact(2).map(|cut| format!("{}-{}", cut[0], cut[1] - 1)).collect()
        }),
    ];
    (select(vec!["bytes=", "bytes=", "bytes=", "bytes=", "bytes=", "lines="]), list)
        .prop_map(|(unit, list)| format!("{unit}{}", list.join(", ")))
}

fn asks(resource: &Resource) -> impl Strategy<Value = Vec<Ask>> + use<> {
    let tag = || {
        select(vec![
            Tag::Present,
            Tag::Present,
            Tag::PresentWeak,
            Tag::Other,
            Tag::Star,
            Tag::ListWithPresent,
            Tag::Nonsense,
        ])
    };
    let when = || select(vec![When::Present, When::Before, When::After, When::Nonsense]);
    let if_range = prop_oneof![
        select(vec![Tag::Present, Tag::Present, Tag::PresentWeak, Tag::Other]).prop_map(Ok),
        when().prop_map(Err)
    ];
    let rarely = |strategy| proptest::option::weighted(0.15, strategy);
    let conditions = (
        proptest::option::weighted(0.25, if_range),
        rarely(tag().boxed()),
        rarely(tag().boxed()),
        proptest::option::weighted(0.15, when()),
        proptest::option::weighted(0.1, when()),
    );
    let method = select(vec!["GET", "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "HEAD", "PUT"]);
    let cache_control =
        select(vec!["no-cache", "max-age=0", "no-store", "max-stale", "only-if-cached", "min-fresh=99999999"]);
    let fleeting = FLEETING.contains(&resource.cache_control);
    let one = (
        method,
        of(range(resource.size)),
        conditions,
        select(choices(resource.varies)),
        proptest::option::weighted(0.15, cache_control),
        proptest::bool::weighted(if fleeting { 0.2 } else { 0.0 }),
        prop_oneof![8 => Just(1usize), 1 => Just(3)],
    )
        .prop_map(|(method, range, conditions, chooses, cache_control, changed, together)| Ask {
            method,
            range,
            if_range: conditions.0,
            if_match: conditions.1,
            if_none_match: conditions.2,
            if_modified_since: conditions.3,
            if_unmodified_since: conditions.4,
            chooses,
            cache_control,
            changed,
            together: if method == "PUT" { 1 } else { together },
        });
    prop::collection::vec(one, 1..16)
}

fn scenes() -> impl Strategy<Value = Scene> {
    // Independent, so that the requests stay what they are while the resource is simplified.
    (resources(), proptest::bool::weighted(0.3))
        .prop_ind_flat_map2(|(resource, _)| asks(&resource))
        .prop_map(|((resource, h2), asks)| Scene { resource, h2, asks })
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} by {}", self.resource, if self.h2 { "HTTP/2" } else { "HTTP/1.1" })?;
        for (at, ask) in self.asks.iter().enumerate() {
            write!(f, "{at}: {}", ask.method)?;
            let mut told =
                |name: &str, value: Option<String>| value.map_or(Ok(()), |value| write!(f, ", {name} {value}"));
            told("choosing", ask.chooses.map(str::to_owned))?;
            told("Range", ask.range.clone())?;
            told(
                "If-Range",
                ask.if_range.map(|r| r.map_or_else(|when| format!("{when:?}"), |tag| format!("{tag:?}"))),
            )?;
            told("If-Match", ask.if_match.map(|tag| format!("{tag:?}")))?;
            told("If-None-Match", ask.if_none_match.map(|tag| format!("{tag:?}")))?;
            told("If-Modified-Since", ask.if_modified_since.map(|when| format!("{when:?}")))?;
            told("If-Unmodified-Since", ask.if_unmodified_since.map(|when| format!("{when:?}")))?;
            told("Cache-Control", ask.cache_control.map(str::to_owned))?;
            told("after a change", ask.changed.then(String::new))?;
            told("at a time:", (ask.together > 1).then(|| ask.together.to_string()))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Ask {
    /// The fields of the request, in their order.
    fn headers(&self, held: &Held) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: String| headers.append(name, HeaderValue::try_from(value).unwrap());
        let chooses = match held.resource.varies {
            Varies::Never => None,
            Varies::Flavour => Some(HeaderName::from_static("x-flavour")),
            Varies::Language => Some(ACCEPT_LANGUAGE),
            Varies::Coding => Some(ACCEPT_ENCODING),
            Varies::Cookie => Some(COOKIE),
        };
        if let (Some(name), Some(value)) = (chooses, self.chooses) {
            put(name, value.to_owned());
        }
        self.cache_control.map(|value| put(CACHE_CONTROL, value.to_owned()));
        self.range.clone().map(|range| put(RANGE, range));
        // What is there depends on what is chosen.
        let opaque = held.opaque(&headers);
        let tag = |tag: Tag| match tag {
            Tag::Present => format!("\"{opaque}\""),
            Tag::PresentWeak => format!("W/\"{opaque}\""),
            Tag::Other => "\"other\"".to_owned(),
            Tag::Star => "*".to_owned(),
            Tag::ListWithPresent => format!("\"x\", W/\"y\" , \"{opaque}\""),
            Tag::Nonsense => "other".to_owned(),
        };
        let when = |when: When| match when {
            When::Present => httpdate::fmt_http_date(held.modified()),
            When::Before => httpdate::fmt_http_date(held.modified() - Duration::from_secs(1)),
            When::After => httpdate::fmt_http_date(held.modified() + Duration::from_secs(1)),
            When::Nonsense => "yesterday".to_owned(),
        };
        let conditions = [
            (IF_MATCH, self.if_match.map(tag)),
            (IF_NONE_MATCH, self.if_none_match.map(tag)),
            (IF_MODIFIED_SINCE, self.if_modified_since.map(when)),
            (IF_UNMODIFIED_SINCE, self.if_unmodified_since.map(when)),
            (IF_RANGE, self.if_range.filter(|_| self.range.is_some()).map(|r| r.map_or_else(when, tag))),
        ];
        for (name, value) in conditions {
            if let Some(value) = value {
                headers.append(name, HeaderValue::try_from(value).unwrap());
            }
        }
        headers
    }
}

/// Fields of an answer that are the messages' own or the edge's; the length where it is not known beforehand.
fn end_to_end(headers: &HeaderMap, chunked: bool) -> BTreeMap<String, Vec<String>> {
    let own = |name: &str| {
        matches!(name, "age" | "date" | "via" | "cache-status" | "connection" | "transfer-encoding" | "keep-alive")
            || chunked && name == "content-length"
    };
    let names = headers.keys().map(HeaderName::as_str).filter(|name| !own(name));
    names
        .map(|name| (name.to_owned(), headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()))
        .collect()
}

/// `Content-Range` and content of each part of a multipart answer.
fn parts_of(answer: &Answer) -> Option<Vec<(String, Bytes)>> {
    let kind = answer.field("content-type");
    let boundary = format!("--{}", kind.strip_prefix("multipart/byteranges; boundary=")?);
    let (mut parts, mut at) = (Vec::new(), find(&answer.body, boundary.as_bytes())? + boundary.len());
    while !answer.body[at..].starts_with(b"--") {
        let head_end = at + find(&answer.body[at..], b"\r\n\r\n")?;
        let head = std::str::from_utf8(&answer.body[at..head_end]).ok()?;
        let field =
            |name: &str| head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        let (range, kind) = (field("content-range")?.1, field("content-type")?.1);
        let (first, rest) = range.strip_prefix("bytes ")?.split_once('-')?;
        let length = rest.split_once('/')?.0.parse::<usize>().ok()? + 1 - first.parse::<usize>().ok()?;
        let content = answer.body.slice(head_end + 4..head_end + 4 + length);
        let next = format!("\r\n{boundary}");
        if kind != "application/x-oracle" || !answer.body[head_end + 4 + length..].starts_with(next.as_bytes()) {
            return None;
        }
        parts.push((range.to_owned(), content));
        at = head_end + 4 + length + next.len();
    }
    Some(parts)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Says what is wrong with an answer.
fn compare(answer: &Answer, expected: &Reply, whole: &Reply, resource: &Resource, ask: &Ask) -> Result<(), String> {
    // RFC 9110 section 14.2: ranges of what has no known length yet may be passed over.
    let ranged = matches!(expected.status.as_u16(), 206 | 416);
    let expected = if ranged && resource.chunked && answer.status == 200 { whole } else { expected };
    if answer.status != expected.status {
        return Err(format!("{} for {}", answer.status, expected.status));
    }
    if answer.status == 416 || answer.status == 412 {
        let range = |headers: &HeaderMap| headers.get(CONTENT_RANGE).cloned();
        let same = range(&answer.headers) == range(&expected.headers);
        return if same && answer.body.is_empty() { Ok(()) } else { Err("another 416 or 412".to_owned()) };
    }
    let (mut has, mut wants) =
        (end_to_end(&answer.headers, resource.chunked), end_to_end(&expected.headers, resource.chunked));
    if !expected.parts.is_empty() {
        // The boundary is the sender's choice.
        let _ = [&mut has, &mut wants]
            .map(|fields| [CONTENT_TYPE, CONTENT_LENGTH].map(|name| fields.remove(name.as_str())));
    }
    if has != wants {
        let names: Vec<&String> = has.keys().chain(wants.keys()).filter(|n| has.get(*n) != wants.get(*n)).collect();
        return Err(names.iter().map(|n| format!("{n}: {:?} for {:?}; ", has.get(*n), wants.get(*n))).collect());
    }
    if !expected.parts.is_empty() {
        let length = expected.content.len();
        let wanted = expected.parts.iter().map(|part| {
            (format!("bytes {}-{}/{length}", part.start, part.end - 1), expected.content.slice(part.clone()))
        });
        return match parts_of(answer) {
            Some(parts) if parts == wanted.collect::<Vec<_>>() => Ok(()),
            found => {
                Err(format!("parts {:?}", found.map(|p| p.into_iter().map(|(range, _)| range).collect::<Vec<_>>())))
            }
        };
    }
    let content: &[u8] = if ask.method == "HEAD" { &[] } else { &expected.content };
    if answer.body != content {
        let differ = answer.body.iter().zip(content).position(|(a, b)| a != b);
        return Err(format!("{} bytes for {}, which differ at {differ:?}", answer.body.len(), content.len()));
    }
    Ok(())
}

/// Plays a scene; counts what the answers were.
async fn play(
    oracle: &Oracle,
    edge: &Edge,
    path: &str,
    scene: &Scene,
    seen: &mut BTreeMap<String, usize>,
) -> Result<(), String> {
    let held = oracle.hold(path, scene.resource.clone());
    let mut speaker = Speaker::new(edge.http, scene.h2).await;
    for (at, ask) in scene.asks.iter().enumerate() {
        if ask.changed && FLEETING.contains(&scene.resource.cache_control) {
            held.change();
        }
        let headers = ask.headers(&held);
        if ask.method == "PUT" {
            let answers = speaker.send("PUT", path, &HeaderMap::new(), 1).await?;
            assert_eq!(answers[0].status, 204);
            continue;
        }
        let method = Method::from_bytes(ask.method.as_bytes()).unwrap();
        let expected = held.reply(&method, &headers);
        let mut unranged = headers.clone();
        unranged.remove(RANGE);
        let whole = held.reply(&method, &unranged);
        let answers = speaker.send(ask.method, path, &headers, ask.together).await;
        for answer in answers.map_err(|error| format!("request {at} ({headers:?}): {error}"))? {
            if ask.cache_control == Some("only-if-cached") && answer.status == 504 {
                continue;
            }
            *seen.entry(answer.status.as_u16().to_string()).or_default() += 1;
            let kind = if answer.is_hit() { "hit" } else { "forwarded" };
            *seen.entry(format!("{kind}{}", if scene.h2 { " by h2" } else { "" })).or_default() += 1;
            if !expected.parts.is_empty() && answer.status == 206 {
                *seen.entry("multipart".to_owned()).or_default() += 1;
            }
            compare(&answer, &expected, &whole, &scene.resource, ask)
                .map_err(|wrong| format!("request {at} ({headers:?}), {}: {wrong}", answer.cache_status()))?;
        }
    }
    oracle.forget(path);
    Ok(())
}

/// The number of scenes; `PROPTEST_CASES` says another.
const SCENES: u32 = 200;

/// The scenes are the same in each run, so that what fails was changed; `PROPTEST_RNG_SEED` says others to look for more.
const SEED: u64 = 20;

#[test]
fn what_the_edge_answers_is_what_the_origin_would_have_sent() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let oracle = runtime.block_on(Oracle::start());
    // The access log of thousands of requests would hide what is found.
    let quiet = format!("[access_log]\nformat = \"off\"\n\n{}", one_origin(oracle.address));
    let edge = Edge::start(&config(&quiet));
    let seen = std::cell::RefCell::new(BTreeMap::new());
    let number = std::cell::Cell::new(0);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(SCENES);
    let seed = match ProptestConfig::default().rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => SEED,
    };
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 5000,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&scenes(), |scene| {
        number.set(number.get() + 1);
        let path = format!("/{}", number.get());
        let played = runtime.block_on(play(&oracle, &edge, &path, &scene, &mut seen.borrow_mut()));
        played.map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, scene)) => panic!("{reason}\nseed {seed}; the smallest such scene:\n{scene}"),
        Err(error) => panic!("{error}, seed {seed}"),
    }
    let seen = seen.into_inner();
    let kinds = ["hit", "hit by h2", "forwarded", "200", "206", "304", "404", "412", "416", "multipart"];
    for kind in kinds.into_iter().filter(|_| cases >= SCENES) {
        assert!(seen.get(kind).is_some_and(|count| *count >= 5), "{kind} was hardly tried: {seen:?}");
    }
    println!("{seen:?}");
}
