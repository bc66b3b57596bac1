use super::*;
use crate::field::date;

pub(super) const RULES: ResponseRules = ResponseRules {
    max_object: 1000,
    grace: 0,
    set_cookie: SetCookieRule::Harmless,
    cookie: CookieRule::Careful,
    delay: Duration::ZERO,
};

/// 2026-01-01.
pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

pub(super) fn request(fields: &[(&str, &str)]) -> request::Parts {
    let mut builder = http::Request::builder();
    for (name, value) in fields {
        builder = match *name {
            ":method" => builder.method(*value),
            _ => builder.header(*name, *value),
        };
    }
    builder.body(()).unwrap().into_parts().0
}

pub(super) fn response(status: u16, fields: &[(&str, &str)]) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).unwrap();
    for (name, value) in fields {
        head.append_header((*name).to_owned(), *value).unwrap();
    }
    if !fields.iter().any(|(name, _)| *name == "content-length" || *name == "transfer-encoding") {
        head.append_header("content-length", "5").unwrap();
    }
    head
}

pub(super) fn ago(seconds: u64) -> String {
    date::format(now() - Duration::from_secs(seconds))
}

pub(super) fn store(req: &[(&str, &str)], status: u16, res: &[(&str, &str)]) -> Result<CacheMeta, NotStored> {
    admits_response(&request(req), &response(status, res), now(), &RULES).map(|stored| stored.meta)
}

#[test]
fn only_get_and_head_without_content_are_looked_up() {
    use BypassReason::*;
    for (fields, reason) in [
        (vec![(":method", "POST")], Some(Method)),
        (vec![(":method", "OPTIONS")], Some(Method)),
        (vec![("cache-control", "no-store")], Some(NoStore)),
        (vec![("content-length", "3")], Some(Content)),
        (vec![("transfer-encoding", "chunked")], Some(Content)),
        (vec![("upgrade", "websocket")], Some(Upgrade)),
        (vec![("content-length", "0")], None),
        (vec![(":method", "HEAD"), ("range", "bytes=0-1"), ("authorization", "x")], None),
    ] {
        match admits_request(&request(&fields)) {
            RequestVerdict::Bypass(found) => assert_eq!(Some(found), reason, "{fields:?}"),
            RequestVerdict::Lookup(_) => assert_eq!(None, reason, "{fields:?}"),
        }
    }
}

#[test]
fn what_a_shared_cache_may_not_store_is_refused_with_its_reason() {
    use NotStored::*;
    let fresh = ("cache-control", "max-age=60");
    let auth = ("authorization", "Basic eDp5");
    for (req, status, res, reason) in [
        (vec![(":method", "POST")], 200, vec![fresh], Method),
        (vec![], 200, vec![("cache-control", "no-store, max-age=60")], NoStore),
        (vec![("cache-control", "no-store")], 200, vec![fresh], NoStore),
        (vec![], 200, vec![("cache-control", "private, max-age=60")], Private),
        (vec![], 200, vec![("cache-control", "private=\"x\", max-age=60")], Private),
        (vec![auth], 200, vec![fresh], Authorized),
        (vec![], 200, vec![fresh, ("set-cookie", "session=1")], SetCookie),
        (vec![], 200, vec![fresh, ("set-cookie", "a=b"), ("set-cookie", "x=0123456789abcdef")], SetCookie),
        (vec![("cookie", "x=1")], 200, vec![fresh, ("cache-control", "public"), ("set-cookie", "a=b")], SetCookie),
        (vec![auth], 200, vec![fresh, ("cache-control", "public"), ("set-cookie", "a=b")], SetCookie),
        (vec![], 200, vec![fresh, ("vary", "accept, *")], VaryStar),
        (vec![], 206, vec![fresh, ("content-range", "bytes 0-4/9")], Partial),
        (vec![], 200, vec![fresh, ("content-range", "bytes 0-4/9")], Partial),
        (vec![], 304, vec![fresh], Status),
        (vec![], 401, vec![fresh], Status),
        (vec![], 429, vec![fresh], Status),
        (vec![("x-method-override", "PUT")], 405, vec![fresh], UnusualRequest),
        (vec![("x-meta", "\u{e9}")], 400, vec![fresh], UnusualRequest),
        (vec![], 599, vec![("cache-control", "max-age=60, no-store, must-understand")], NoStore),
        (vec![], 599, vec![("cache-control", "max-age=60, must-understand")], Status),
        (vec![], 200, vec![fresh, ("cdn-cache-control", "no-store")], NoStore),
        (vec![], 200, vec![("cdn-cache-control", "max-age=60, private"), fresh], Private),
        (vec![], 431, vec![fresh], Status),
        (vec![], 200, vec![], NoLifetime),
        (vec![], 302, vec![("etag", "\"a\"")], NoLifetime),
        (vec![], 500, vec![("etag", "\"a\"")], NoLifetime),
        (vec![], 200, vec![fresh, ("content-length", "1001")], TooLarge),
        (vec![], 200, vec![fresh, ("content-length", "5"), ("content-length", "5")], BadLength),
        (vec![], 200, vec![fresh, ("content-length", "+5")], BadLength),
        (vec![], 200, vec![fresh, ("transfer-encoding", "gzip")], UnknownEnd),
    ] {
        assert_eq!(store(&req, status, &res).err(), Some(reason), "{req:?} {status} {res:?}");
    }
    let large = "x".repeat(MAX_HEAD);
    assert_eq!(store(&[], 200, &[fresh, ("x-large", &large)]).err(), Some(HeadTooLarge));
    let mut close_delimited = ResponseHeader::build(200, None).unwrap();
    close_delimited.append_header("cache-control", "max-age=60").unwrap();
    let verdict = |head: &ResponseHeader| admits_response(&request(&[]), head, now(), &RULES).map(|_| ());
    assert_eq!(verdict(&close_delimited), Err(UnknownEnd));
    close_delimited.set_version(http::Version::HTTP_2);
    assert_eq!(verdict(&close_delimited), Ok(()), "HTTP/2 tells the end");
}

#[test]
fn what_section_3_allows_is_stored() {
    let auth = ("authorization", "Basic eDp5");
    for (req, status, cc) in [
        (vec![auth], 200, "public, max-age=60"),
        (vec![auth], 200, "s-maxage=60"),
        (vec![auth], 200, "must-revalidate, max-age=60"),
        (vec![], 404, "max-age=60"),
        (vec![], 302, "max-age=60"),
        (vec![], 503, "max-age=60"),
        (vec![], 400, "max-age=60"),
        (vec![], 499, "max-age=60"),
        (vec![], 599, "max-age=60"),
        (vec![("x-method-override", "PUT")], 200, "max-age=60"),
        (vec![], 200, "must-understand, no-store, max-age=60"),
        (vec![], 200, "max-age=60, x-unknown=1"),
    ] {
        assert!(store(&req, status, &[("cache-control", cc)]).is_ok(), "{status} {cc}");
    }
    let fresh = ("cache-control", "max-age=60");
    for field in [
        ("transfer-encoding", "chunked"),
        ("set-cookie", "a=b"),
        ("set-cookie", "lang=en; Path=/"),
        ("content-range", "whatever"),
    ] {
        assert!(store(&[], 200, &[fresh, field]).is_ok(), "{field:?}");
    }
}

#[test]
fn the_lifetime_follows_the_precedence_of_section_4_2_1() {
    let (date, modified) = (ago(0), ago(1000));
    let (in_an_hour, past) = (date::format(now() + Duration::from_secs(3600)), ago(10));
    for (fields, seconds) in [
        (vec![("cache-control", "max-age=10, s-maxage=20"), ("expires", in_an_hour.as_str())], 20),
        (vec![("cache-control", "max-age=10"), ("expires", &in_an_hour)], 10),
        (vec![("expires", &in_an_hour), ("date", &date)], 3600),
        (vec![("expires", &past), ("etag", "\"a\"")], 0),
        (vec![("expires", "0"), ("last-modified", &modified)], 0),
        (vec![("last-modified", &modified), ("date", &date)], 100),
        (vec![("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], 24 * 3600),
        (vec![("cache-control", "no-cache, max-age=60")], 0),
        (vec![("cache-control", "no-cache")], 0),
        (vec![("cdn-cache-control", "max-age=30"), ("expires", &in_an_hour), ("cache-control", "no-store")], 30),
        (vec![("selvedge-cache-control", "max-age=5"), ("cdn-cache-control", "max-age=30")], 5),
        (vec![("cdn-cache-control", "max-age=30, &&"), ("cache-control", "max-age=9")], 9),
        (vec![("cdn-cache-control", "x"), ("expires", &in_an_hour), ("last-modified", &modified)], 100),
        (vec![("cdn-cache-control", "max-age=0"), ("expires", &in_an_hour)], 0),
        (vec![("etag", "\"a\"")], 0),
    ] {
        let meta = store(&[], 200, &fields).unwrap();
        assert_eq!(meta.fresh_sec(), seconds, "{fields:?}");
        assert_eq!(meta.is_fresh(now()), seconds > 0, "{fields:?}");
    }
}

#[test]
fn an_age_of_many_decades_is_one_that_the_tiers_can_hold() {
    let meta = store(&[], 200, &[("cache-control", "max-age=60"), ("age", "2147483648"), ("etag", "\"a\"")]).unwrap();
    assert!(meta.serialize().is_ok());
    assert!(!meta.is_fresh(now()) && current_age(&meta, now()) > Duration::from_secs(50 * 365 * 86_400));
}

#[test]
fn the_age_a_response_arrives_with_counts() {
    let (date, fresh) = (ago(30), ("cache-control", "max-age=100"));
    for (fields, age) in [
        (vec![fresh, ("age", "40"), ("date", &date)], 40),
        (vec![fresh, ("age", "20"), ("date", &date)], 30),
        (vec![fresh, ("age", "7, 99")], 7),
        (vec![fresh, ("age", "-7")], 0),
        (vec![fresh], 0),
    ] {
        let meta = store(&[], 200, &fields).unwrap();
        assert_eq!(current_age(&meta, now()), Duration::from_secs(age), "{fields:?}");
        assert_eq!(time_to_live(&meta, now()), 100 - i64::try_from(age).unwrap());
        assert!(!meta.headers().contains_key("age"));
    }
    assert!(!store(&[], 200, &[fresh, ("age", "99999999999999999999999")]).unwrap().is_fresh(now()));
}

#[test]
fn stale_answers_follow_rfc_5861_unless_forbidden() {
    let at = |seconds| now() + Duration::from_secs(seconds);
    let windows = "max-age=10, stale-while-revalidate=20, stale-if-error=40";
    let meta = store(&[], 200, &[("cache-control", windows)]).unwrap();
    assert!(may_serve_stale(&meta, at(29), StaleCause::Updating));
    assert!(!may_serve_stale(&meta, at(31), StaleCause::Updating));
    assert!(may_serve_stale(&meta, at(49), StaleCause::Error));
    assert!(!may_serve_stale(&meta, at(51), StaleCause::Error));
    for forbidding in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"] {
        let meta = store(&[], 200, &[("cache-control", windows), ("cache-control", forbidding)]).unwrap();
        for cause in [StaleCause::Updating, StaleCause::Error] {
            assert!(!may_serve_stale(&meta, at(11), cause), "{forbidding}");
        }
    }
}

#[test]
fn a_request_s_directives_bound_what_answers_it() {
    use HitVerdict::*;
    let at = |seconds| now() + Duration::from_secs(seconds);
    let verdict = |cc: &str, stored: &str, seconds| {
        let meta = store(&[], 200, &[("cache-control", stored)]).unwrap();
        let RequestVerdict::Lookup(demand) = admits_request(&request(&[("cache-control", cc)])) else {
            panic!("{cc} is looked up")
        };
        on_hit(&meta, &demand, at(seconds))
    };
    for (cc, stored, seconds, expected) in [
        ("", "max-age=100", 50, Use),
        ("", "max-age=100", 101, Stale),
        ("no-cache", "max-age=100", 50, Refused),
        ("max-age=0", "max-age=100", 0, Refused),
        ("max-age=49", "max-age=100", 50, Refused),
        ("max-age=50", "max-age=100", 50, Use),
        ("min-fresh=51", "max-age=100", 50, Refused),
        ("min-fresh=50", "max-age=100", 50, Use),
        ("max-stale", "max-age=100", 1000, Use),
        ("max-stale=5", "max-age=100", 105, Use),
        ("max-stale=5", "max-age=100", 106, Stale),
        ("max-stale", "max-age=100, must-revalidate", 101, Stale),
        ("max-stale, max-age=100", "max-age=100", 101, Stale),
        ("max-age=0", "max-age=100, immutable", 50, Use),
        ("no-cache", "max-age=100, immutable", 50, Refused),
        ("", "max-age=100, immutable", 101, Stale),
    ] {
        assert_eq!(verdict(cc, stored, seconds), expected, "{cc} on {stored} after {seconds}");
    }
    let demand = admits_request(&request(&[("pragma", "no-cache"), ("range", "bytes=0-")]));
    assert!(matches!(demand, RequestVerdict::Lookup(Demand { validate: true, .. })));
}

#[test]
fn what_concerns_one_connection_is_not_stored() {
    let meta = store(
        &[],
        200,
        &[
            ("cache-control", "max-age=60"),
            ("connection", "x-hop, keep-alive"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("via", "1.1 a"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ],
    )
    .unwrap();
    let mut names: Vec<&str> = meta.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["cache-control", "x-kept"]);
}

#[test]
fn a_validation_renews_the_stored_head() {
    let (old, new) = (ago(1000), ago(0));
    let mut head = response(
        200,
        &[("date", &old), ("cache-control", "max-age=60"), ("etag", "\"a\""), ("x-both", "1"), ("x-old", "1")],
    );
    let not_modified = response(
        304,
        &[
            ("date", &new),
            ("cache-control", "max-age=90"),
            ("x-both", "2"),
            ("x-both", "3"),
            ("content-length", "0"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
        ],
    );
    merge_validation(&mut head, &not_modified.headers, now());
    let all = |name: &str| head.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("x-both"), ["2", "3"]);
    assert_eq!((all("x-old"), all("content-length"), all("x-hop")), (vec!["1"], vec!["5"], vec![]));
    let meta = admits_response(&request(&[]), &head, now(), &RULES).unwrap().meta;
    assert_eq!((meta.fresh_sec(), current_age(&meta, now())), (90, Duration::ZERO));

    merge_validation(&mut head, &HeaderMap::new(), now() + Duration::from_secs(50));
    assert_eq!(date::single(&head.headers, &header::DATE), Some(now() + Duration::from_secs(50)));
}

#[test]
fn a_failing_origin_is_covered_by_the_grace_unless_the_response_forbids_it() {
    let at = |seconds| now() + Duration::from_secs(seconds);
    let rules = ResponseRules { grace: 50, ..RULES };
    let verdict = |status, cc: &str, seconds| {
        let head = response(status, &[("cache-control", cc)]);
        let meta = admits_response(&request(&[]), &head, now(), &rules).unwrap().meta;
        may_serve_stale(&meta, at(seconds), StaleCause::Error)
    };
    for (status, cc, seconds, allowed) in [
        (200, "max-age=10", 59, true),
        (200, "max-age=10", 61, false),
        (200, "max-age=10, stale-if-error=5", 20, false),
        (200, "max-age=10, stale-if-error=0", 11, false),
        (200, "max-age=10, stale-if-error=90", 99, true),
        (200, "max-age=10, must-revalidate", 11, false),
        (200, "s-maxage=10", 11, false),
        (404, "max-age=10", 20, true),
        (503, "max-age=10", 11, false),
    ] {
        assert_eq!(verdict(status, cc, seconds), allowed, "{status} {cc} after {seconds}");
    }
}

#[test]
fn a_response_that_sets_cookies_answers_only_anonymous_requests() {
    let meta = store(&[], 200, &[("cache-control", "max-age=60"), ("set-cookie", "a=b")]).unwrap();
    for (fields, expected) in [
        (vec![], HitVerdict::Use),
        (vec![("cookie", "a=c")], HitVerdict::Unusable),
        (vec![("authorization", "Basic eDp5")], HitVerdict::Unusable),
    ] {
        let RequestVerdict::Lookup(demand) = admits_request(&request(&fields)) else { panic!("{fields:?}") };
        assert_eq!(on_hit(&meta, &demand, now()), expected, "{fields:?}");
    }
    let rule = |set_cookie, cc: &str| {
        let head = response(200, &[("cache-control", cc), ("set-cookie", "session=0123456789abcdef")]);
        admits_response(&request(&[]), &head, now(), &ResponseRules { set_cookie, ..RULES }).is_ok()
    };
    for (set_cookie, cc, stored) in [
        (SetCookieRule::Never, "public, max-age=60", false),
        (SetCookieRule::Harmless, "public, max-age=60", false),
        (SetCookieRule::Explicit, "public, max-age=60", true),
        (SetCookieRule::Explicit, "s-maxage=60", true),
        (SetCookieRule::Explicit, "max-age=60", false),
    ] {
        assert_eq!(rule(set_cookie, cc), stored, "{set_cookie:?} {cc}");
    }
}

#[test]
fn what_ends_with_its_connection_is_stored_for_a_minute_and_never_validated() {
    let odd = ("transfer-encoding", "unheard-of");
    let meta =
        store(&[], 200, &[odd, ("cache-control", "max-age=3600, stale-if-error=60"), ("etag", "\"a\"")]).unwrap();
    assert_eq!(time_to_live(&meta, now()), 60);
    assert!(!meta.headers().contains_key("transfer-encoding"));
    let later = now() + Duration::from_secs(61);
    assert_eq!(on_hit(&meta, &Demand::default(), later), HitVerdict::Unusable);
    assert!(!may_serve_stale(&meta, later, StaleCause::Error));
    assert_eq!(store(&[], 200, &[odd, ("etag", "\"a\"")]).err(), Some(NotStored::UnknownEnd));
    for coding in ["gzip", "unheard-of, gzip", "gzip, unheard-of", "chunked, unheard-of"] {
        let fields = [("transfer-encoding", coding), ("cache-control", "max-age=60")];
        assert_eq!(store(&[], 200, &fields).err(), Some(NotStored::UnknownEnd), "{coding}");
    }
    let mark = [("selvedge-until-close", "1"), ("cache-control", "max-age=60")];
    assert!(!store(&[], 200, &mark).unwrap().headers().contains_key("selvedge-until-close"), "an origin cannot set it");
}

#[test]
fn the_response_to_a_request_with_cookies_is_stored_only_where_it_is_for_everybody() {
    let (page, asset) = (("content-type", "text/html; charset=utf-8"), ("content-type", "image/png"));
    let fresh = ("cache-control", "max-age=60");
    for (rule, fields, stored) in [
        (CookieRule::Careful, vec![fresh, page], false),
        (CookieRule::Careful, vec![fresh], false),
        (CookieRule::Careful, vec![fresh, ("content-type", "application/json")], false),
        (CookieRule::Careful, vec![fresh, asset], true),
        (CookieRule::Careful, vec![fresh, ("content-type", "Text/CSS;charset=utf-8")], true),
        (CookieRule::Careful, vec![fresh, asset, page], false),
        (CookieRule::Careful, vec![asset, ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], false),
        (CookieRule::Careful, vec![("cache-control", "public, max-age=60"), page], true),
        (CookieRule::Careful, vec![("cache-control", "s-maxage=60"), page], true),
        (CookieRule::Careful, vec![("cdn-cache-control", "max-age=60"), page], true),
        (CookieRule::Careful, vec![fresh, page, ("vary", "Accept, Cookie")], true),
        (CookieRule::Never, vec![("cache-control", "public, max-age=60"), asset], false),
        (CookieRule::Ignore, vec![fresh, page], true),
    ] {
        let rules = ResponseRules { cookie: rule, ..RULES };
        let verdict = admits_response(&request(&[("cookie", "a=b")]), &response(200, &fields), now(), &rules);
        assert_eq!(verdict.err(), (!stored).then_some(NotStored::Cookie), "{rule:?} {fields:?}");
        assert!(admits_response(&request(&[]), &response(200, &fields), now(), &rules).is_ok(), "without cookies");
    }
}
