//! Golden texts of single decisions; whole requests are in `tests/integration/why.rs`.

use super::*;
use crate::cache::policy::{ResponseRules, admits_response};
use crate::metrics::Metrics;
use crate::proxy::context::RequestContext;
use crate::proxy::plane::SiteHandles;
use crate::proxy::target::RequestId;
use http::request;
use std::sync::Arc;

const TOKEN: &str = "a-token-of-sixteen";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

fn explained() -> RequestContext {
    let site = Arc::new(SiteHandles::new("www".into(), &Metrics::new()));
    let mut ctx = RequestContext::new(site, RequestId([7; 16]), now());
    let facts = Facts { id: "7".to_owned(), method: "GET".to_owned(), ..Facts::default() };
    ctx.explanation = Some(Box::new(Explanation { token: Secret::new(TOKEN), facts }));
    ctx
}

fn facts(ctx: &RequestContext) -> &Facts {
    &ctx.explanation.as_ref().unwrap().facts
}

/// The line of the text that begins with `label`.
fn line(ctx: &RequestContext, label: &str) -> String {
    let text = facts(ctx).to_string();
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label} in\n{text}")).trim().to_owned()
}

fn request(fields: &[(&str, &str)]) -> request::Parts {
    let mut builder = http::Request::builder();
    for (name, value) in fields {
        builder = if *name == ":method" { builder.method(*value) } else { builder.header(*name, *value) };
    }
    builder.body(()).unwrap().into_parts().0
}

fn response(status: u16, fields: &[(&str, &str)]) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).unwrap();
    for (name, value) in fields {
        head.append_header((*name).to_owned(), *value).unwrap();
    }
    head
}

fn admitted(req: &[(&str, &str)], status: u16, res: &[(&str, &str)]) -> Result<policy::Stored, policy::NotStored> {
    admits_response(
        &request(req),
        &response(status, res),
        now(),
        &ResponseRules { max_object: 1000, ..ResponseRules::default() },
    )
}

#[test]
fn each_reason_not_to_store_has_its_words() {
    let (fresh, length) = (("cache-control", "max-age=60"), ("content-length", "5"));
    let long = "x".repeat(policy::MAX_HEAD);
    for (req, status, res, words) in [
        (vec![(":method", "POST")], 200, vec![fresh], "no, method: the request is neither GET nor HEAD"),
        (vec![], 200, vec![("cache-control", "no-store")], "no, no-store: request or response says no-store"),
        (vec![], 200, vec![("cache-control", "private")], "no, private: the response is for one user (private)"),
        (
            vec![("authorization", "Basic eDp5")],
            200,
            vec![fresh],
            "no, authorization: the request has Authorization, and the response has none of public, must-revalidate, s-maxage",
        ),
        (vec![], 200, vec![fresh, ("set-cookie", "session=oreo")], "no, set-cookie: the response sets a cookie"),
        (
            vec![],
            200,
            vec![fresh, ("vary", "*")],
            "no, vary-star: the response has Vary: *, or one that no key can be made of",
        ),
        (vec![], 428, vec![fresh], "no, status: responses with this status are not stored"),
        (vec![], 206, vec![fresh], "no, partial: the response is a part only"),
        (vec![], 200, vec![length], "no, no-lifetime: the response has neither a lifetime nor a validator"),
        (
            vec![],
            200,
            vec![("etag", "\"1\"")],
            "no, unknown-end: the response ends with the connection, so a broken one would look whole",
        ),
        (
            vec![],
            200,
            vec![fresh, ("content-length", "x")],
            "no, bad-length: the response's Content-Length is no single number",
        ),
        (
            vec![],
            200,
            vec![fresh, ("content-length", "1001")],
            "no, too-large: the content is larger than what is stored",
        ),
        (
            vec![],
            200,
            vec![fresh, length, ("x", long.as_str())],
            "no, head-too-large: the head is larger than what is stored",
        ),
    ] {
        let mut ctx = explained();
        let result = admitted(&req, status, &res);
        judged(&mut ctx, result.as_ref().map(|s| &s.meta).map_err(|reason| reason.as_str()));
        assert_eq!(line(&ctx, "stored"), words);
    }
    let mut ctx = explained();
    not_stored(&mut ctx, "replaced");
    assert_eq!(line(&ctx, "stored"), "no, replaced: the edge puts a page of its own in the place of the origin's");
}

#[test]
fn a_lifetime_names_the_field_it_comes_from() {
    let at = |seconds: i64| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600u64.saturating_add_signed(seconds));
        crate::field::date::format(time)
    };
    let (date, later, before) = (at(0), at(90), at(-1000));
    for (res, words) in [
        (vec![("cache-control", "max-age=60, s-maxage=30")], "30 s, from Cache-Control: s-maxage"),
        (vec![("cache-control", "max-age=60"), ("expires", &later)], "60 s, from Cache-Control: max-age"),
        (vec![("cache-control", "max-age=60"), ("age", "50")], "60 s, from Cache-Control: max-age"),
        (vec![("date", &date), ("expires", &later)], "90 s, from Expires"),
        (vec![("expires", "0")], "0 s, from Expires"),
        (
            vec![("date", date.as_str()), ("last-modified", &before)],
            "100 s, from a tenth of the time since Last-Modified, as nothing else tells",
        ),
        (
            vec![("cache-control", "no-cache, max-age=60")],
            "0 s, from Cache-Control: no-cache, each use is to be validated",
        ),
        (vec![("etag", "\"1\"")], "0 s, from nothing; kept for its validator"),
    ] {
        let mut ctx = explained();
        let stored = admitted(&[], 200, &[&res[..], &[("content-length", "5")]].concat()).unwrap();
        let found = found_in("memory", &stored.meta, &Demand::default(), HitVerdict::Use, now());
        judged(&mut ctx, Ok(&stored.meta));
        assert_eq!(line(&ctx, "stored"), format!("yes; lifetime {words}"));
        ctx.explanation.as_mut().unwrap().facts.found = Some(found);
        assert_eq!(line(&ctx, "lifetime"), words, "of what is stored as of what is being stored");
    }
    let mut stored = admitted(&[], 200, &[("cache-control", "max-age=60"), ("content-length", "5")]).unwrap();
    stored.meta.expire_at(now());
    let mut ctx = explained();
    judged(&mut ctx, Ok(&stored.meta));
    assert_eq!(line(&ctx, "stored"), "yes; lifetime 0 s, from a rule or an earlier expiry, not its own fields");
}

#[test]
fn a_refusal_names_the_directive_and_a_stale_answer_who_allows_it() {
    let stored = admitted(&[], 200, &[("cache-control", "max-age=60"), ("content-length", "5")]).unwrap();
    for (value, after, found, verdict) in [
        ("", 10, "in the disk tier, age 10 s, fresh for 50 s more", "used"),
        ("no-cache", 10, "in the disk tier, age 10 s, fresh for 50 s more", "refused by the request's no-cache"),
        ("max-age=0", 0, "in the disk tier, age 0 s, fresh for 60 s more", "refused by the request's max-age=0"),
        ("max-age=5", 10, "in the disk tier, age 10 s, fresh for 50 s more", "refused by the request's max-age"),
        ("min-fresh=51", 10, "in the disk tier, age 10 s, fresh for 50 s more", "refused by the request's min-fresh"),
        ("", 70, "in the disk tier, age 70 s, stale for 10 s", "stale: to be validated"),
        (
            "max-stale",
            70,
            "in the disk tier, age 70 s, stale for 10 s",
            "used although stale: the request's max-stale allows it",
        ),
    ] {
        let policy::RequestVerdict::Lookup(demand) = policy::admits_request(&request(&[("cache-control", value)]))
        else {
            panic!("{value}")
        };
        let then = now() + Duration::from_secs(after);
        let judged = policy::on_hit(&stored.meta, &demand, then);
        let mut ctx = explained();
        looked_up(&mut ctx, &demand);
        ctx.explanation.as_mut().unwrap().facts.found = Some(found_in("disk", &stored.meta, &demand, judged, then));
        assert_eq!((line(&ctx, "found"), line(&ctx, "verdict")), (found.to_owned(), verdict.to_owned()), "{value}");
        let demands = if value.is_empty() { String::new() } else { format!("; the request demands {value}") };
        assert_eq!(line(&ctx, "look-up"), format!("made{demands}"));
    }
}

#[test]
fn a_key_is_told_from_itself_and_further_parts_are_only_counted() {
    let mut ctx = explained();
    ctx.explanation.as_mut().unwrap().facts.url = Some("https://a.example/x?y".to_owned());
    keyed(&mut ctx, &key::target("https", "a.example", 443, b"/x"));
    assert_eq!(line(&ctx, "key"), "https://a.example:443/x; the query is left out");
    let mut framed = key::target("https", "a.example", 443, b"/x?y").primary_key().to_vec();
    framed.extend_from_slice(&6u64.to_be_bytes());
    framed.extend_from_slice(b"secret");
    keyed(&mut ctx, &CacheKey::new(framed, ""));
    assert_eq!(line(&ctx, "key"), "https://a.example:443/x?y; and 1 more by the route's rules");
    keyed(&mut ctx, &CacheKey::new(b"no frames".to_vec(), ""));
    assert_eq!(facts(&ctx).key, Some(Key { query_left_out: true, ..Key::default() }));
}

#[test]
fn a_value_is_one_line_of_ascii_without_the_token() {
    let mut ctx = explained();
    let explanation = ctx.explanation.as_mut().unwrap();
    explanation.facts.url = Some(format!("http://a/\u{e9}\u{1f980}\r\n\u{7f}\"{TOKEN}?{TOKEN}"));
    let value = explanation.value().unwrap();
    let text = value.to_str().unwrap();
    assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
    assert!(!text.contains(TOKEN), "{text}");
    let back: Facts = serde_json::from_str(text).unwrap();
    assert_eq!(back.url.unwrap(), "http://a/\u{e9}\u{1f980}\r\n\u{7f}\"***?***");
    let own = own_answer(&ctx, StatusCode::NOT_FOUND, TOKEN).unwrap();
    assert!(own.to_str().unwrap().contains(r#""answer":{"status":404,"reason":"***"}"#), "{own:?}");
}

#[test]
fn what_nobody_asked_to_be_explained_costs_nothing() {
    let mut ctx = explained();
    ctx.explanation = None;
    judged(&mut ctx, Err("private"));
    bypassed(&mut ctx, "route");
    attempt_failed(&mut ctx, Failure::Dns);
    assert!(ctx.explanation.is_none() && own_answer(&ctx, StatusCode::OK, "").is_none());
    let mut head = response(200, &[]);
    answering(&mut ctx, &head, &CacheStatus::default(), CacheOutcome::Hit);
    tell(&ctx, &mut head).unwrap();
    assert!(head.headers.is_empty());
}

#[test]
fn timings_have_the_syntax_of_server_timing() {
    assert_eq!(server_timing(CacheOutcome::Hit, None), "cache;desc=hit");
    let took = Duration::from_micros(12_345);
    assert_eq!(server_timing(CacheOutcome::Miss, Some(took)), "cache;desc=miss, origin;dur=12.3");
    assert_eq!(server_timing(CacheOutcome::Miss, Some(Duration::from_secs(2))), "cache;desc=miss, origin;dur=2000.0");
}
