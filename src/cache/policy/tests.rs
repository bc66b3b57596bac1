use super::*;
use crate::field::date;

const RULES: ResponseRules =
    ResponseRules { max_object: 1000, grace: 0, set_cookie: SetCookieRule::Harmless, cookie: CookieRule::Careful };

/// 2026-01-01.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

fn request(fields: &[(&str, &str)]) -> request::Parts {
    let mut builder = http::Request::builder();
    for (name, value) in fields {
        builder = match *name {
            ":method" => builder.method(*value),
            _ => builder.header(*name, *value),
        };
    }
    builder.body(()).unwrap().into_parts().0
}

fn response(status: u16, fields: &[(&str, &str)]) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).unwrap();
    for (name, value) in fields {
        head.append_header((*name).to_owned(), *value).unwrap();
    }
    if !fields.iter().any(|(name, _)| *name == "content-length" || *name == "transfer-encoding") {
        head.append_header("content-length", "5").unwrap();
    }
    head
}

fn ago(seconds: u64) -> String {
    date::format(now() - Duration::from_secs(seconds))
}

fn store(req: &[(&str, &str)], status: u16, res: &[(&str, &str)]) -> Result<CacheMeta, NotStored> {
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

/// A response and a request in numbers, from which the test works out what is allowed by itself.
#[derive(Clone, Debug)]
struct Scene {
    max_age: Option<u32>,
    s_maxage: Option<u32>,
    targeted: Option<u32>,
    expires: Option<i64>,
    modified: Option<u64>,
    age: Option<u64>,
    skew: i64,
    forbidding: usize,
    updating: Option<u32>,
    error: Option<u32>,
    grace: u32,
    wanted_age: Option<u32>,
    wanted_fresh: Option<u32>,
    wanted_stale: Option<u32>,
    elapsed: u64,
}

const FORBIDDING: [&str; 5] = ["", "must-revalidate", "proxy-revalidate", "no-cache", "x-unknown"];

impl Scene {
    fn date(&self, offset: i64) -> String {
        let base = i64::try_from(now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap();
        date::format(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(base + offset).unwrap()))
    }

    fn response(&self) -> ResponseHeader {
        let directive = |name: &str, value: Option<u32>| value.map(|value| format!("{name}={value}"));
        let cc: Vec<String> = [
            directive("max-age", self.max_age),
            directive("s-maxage", self.s_maxage),
            directive("stale-while-revalidate", self.updating),
            directive("stale-if-error", self.error),
            Some(FORBIDDING[self.forbidding].to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut fields = vec![("cache-control", cc.join(", ")), ("etag", "\"a\"".to_owned())];
        fields.push(("date", self.date(self.skew)));
        fields.extend(self.targeted.map(|age| ("cdn-cache-control", format!("max-age={age}"))));
        fields.extend(self.expires.map(|offset| ("expires", self.date(self.skew + offset))));
        fields.extend(self.modified.map(|ago| ("last-modified", self.date(self.skew - ago as i64))));
        fields.extend(self.age.map(|age| ("age", age.to_string())));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        response(200, &fields)
    }

    fn lifetime(&self) -> i64 {
        if let Some(seconds) = self.targeted {
            return seconds.into();
        }
        if FORBIDDING[self.forbidding] == "no-cache" {
            return 0;
        }
        let told = self.s_maxage.or(self.max_age).map(i64::from).or(self.expires.map(|offset| offset.max(0)));
        told.unwrap_or_else(|| self.modified.map_or(0, |ago| (ago as i64 / 10).min(86_400)))
    }

    fn age(&self) -> i64 {
        let at_arrival = (-self.skew).max(0).max(self.age.unwrap_or(0) as i64);
        at_arrival + self.elapsed as i64
    }

    fn stale_forbidden(&self) -> bool {
        self.targeted.is_none() && (self.s_maxage.is_some() || (1..=3).contains(&self.forbidding))
    }
}

fn scenes() -> impl proptest::strategy::Strategy<Value = Scene> {
    use proptest::option::of;
    use proptest::strategy::Strategy;
    let told = (of(0u32..200), of(0u32..200), of(0u32..200), of(-100i64..300), of((0u64..500).prop_map(|n| n * 10)));
    let windows = (of(0u32..300), of(0u32..300), 0u32..300, 0usize..FORBIDDING.len());
    let wanted = (of(0u32..300), of(0u32..100), of(0u32..300));
    (told, windows, wanted, of(0u64..100), -60i64..60, 0u64..800).prop_map(
        |(told, windows, wanted, age, skew, elapsed)| Scene {
            max_age: told.0,
            s_maxage: told.1,
            targeted: told.2,
            expires: told.3,
            modified: told.4,
            age,
            skew,
            updating: windows.0,
            error: windows.1,
            grace: windows.2,
            forbidding: windows.3,
            wanted_age: wanted.0,
            wanted_fresh: wanted.1,
            wanted_stale: wanted.2,
            elapsed,
        },
    )
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4000))]
    #[test]
    fn nothing_is_served_stale_beyond_its_allowance(scene in scenes()) {
        let rules = ResponseRules { grace: scene.grace, ..RULES };
        let Ok(stored) = admits_response(&request(&[]), &scene.response(), now(), &rules) else { return Ok(()) };
        let at = now() + Duration::from_secs(scene.elapsed);
        let demand = Demand {
            max_age: scene.wanted_age,
            min_fresh: scene.wanted_fresh,
            max_stale: scene.wanted_stale,
            ..Demand::default()
        };
        let (age, lifetime) = (scene.age(), scene.lifetime());
        let over = age - lifetime;
        let fresh = lifetime > 0 && over <= 0;
        if on_hit(&stored.meta, &demand, at) == HitVerdict::Use {
            let agreed = scene.wanted_stale.is_some_and(|most| over <= most.into()) && !scene.stale_forbidden();
            proptest::prop_assert!(fresh || agreed, "age {age} of {lifetime}");
            proptest::prop_assert!(scene.wanted_age.is_none_or(|most| age <= most.into()));
            proptest::prop_assert!(!fresh || scene.wanted_fresh.is_none_or(|least| -over >= least.into()));
        } else if fresh {
            let asks = scene.wanted_age.is_some() || scene.wanted_fresh.is_some();
            proptest::prop_assert!(asks, "fresh and asked for nothing, yet refused: age {age} of {lifetime}");
        }
        let directives = |value: Option<u32>| value.filter(|_| scene.targeted.is_none());
        for (cause, allowance) in [
            (StaleCause::Updating, directives(scene.updating).unwrap_or(0)),
            (StaleCause::Error, directives(scene.error).unwrap_or(scene.grace)),
        ] {
            if may_serve_stale(&stored.meta, at, cause) {
                proptest::prop_assert!(!scene.stale_forbidden(), "{cause:?}");
                proptest::prop_assert!(over <= allowance.into(), "{cause:?}: {over} over, {allowance} allowed");
            }
        }
    }
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
