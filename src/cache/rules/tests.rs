use super::*;
use crate::cache::policy;
use http::{HeaderValue, Method, StatusCode};

fn limits() -> ResponseRules {
    ResponseRules { max_object: 1000, ..ResponseRules::default() }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn request(fields: &[(&'static str, &str)]) -> request::Parts {
    let mut request = http::Request::builder().method(Method::GET).body(()).unwrap().into_parts().0;
    for (name, value) in fields {
        request.headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    request
}

fn response(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(status, None).unwrap();
    response.insert_header("content-length", "3").unwrap();
    for (name, value) in fields {
        response.append_header(*name, *value).unwrap();
    }
    response
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Seconds of freshness, negative when stale from the start.
fn lifetime(rules: &CacheRules, path: &str, response: &ResponseHeader) -> Result<i64, Unstored> {
    let meta = rules.admit(&request(&[]), path, response, false, now(), &limits())?;
    assert_eq!(meta.headers().get("cache-control"), response.headers.get("cache-control"), "the origin's own is kept");
    Ok(policy::time_to_live(&meta, now()))
}

#[test]
fn a_response_to_a_cookie_is_stored_only_where_it_is_for_all_or_confirmed() {
    let rules = CacheRules::default();
    let with_cookie = request(&[("cookie", "session=1")]);
    let admit = |rules: &CacheRules, cc: &str, validated| {
        let response = response(200, &[("cache-control", cc)]);
        rules.admit(&with_cookie, "/", &response, validated, now(), &limits()).map(|_| ())
    };
    assert_eq!(admit(&rules, "max-age=60", false), Err(Unstored::Cookie));
    assert_eq!(admit(&rules, "max-age=60, must-revalidate", false), Err(Unstored::Cookie));
    assert_eq!(admit(&rules, "max-age=60", true), Ok(()));
    assert_eq!(admit(&rules, "public, max-age=60", false), Ok(()));
    assert_eq!(admit(&rules, "s-maxage=60", false), Ok(()));
    let forced = CacheRules { force: true, lifetime: Some(Ttl::Override(seconds(9))), ..CacheRules::default() };
    assert_eq!(admit(&forced, "max-age=60", false), Err(Unstored::Cookie), "force says nothing of persons");
    let keyed = CacheRules { cookies: Cookies::Key(vec!["session".into()]), ..CacheRules::default() };
    assert_eq!(admit(&keyed, "max-age=60", false), Ok(()));
}

#[test]
fn set_cookie_keeps_a_response_out_even_by_force() {
    let setting = response(200, &[("cache-control", "public, max-age=60"), ("set-cookie", "session=1")]);
    let force = CacheRules { force: true, ..CacheRules::default() };
    for rules in [CacheRules::default(), force] {
        let result = rules.admit(&request(&[]), "/", &setting, false, now(), &limits());
        assert_eq!(result.map(|_| ()), Err(Unstored::Policy(NotStored::SetCookie)));
    }
}

#[test]
fn which_cookies_a_stored_response_may_set_is_the_route_s() {
    let harmless = response(200, &[("cache-control", "max-age=60"), ("set-cookie", "lang=en")]);
    let public = response(200, &[("cache-control", "public, max-age=60"), ("set-cookie", "session=12345")]);
    for (set_cookie, stored) in [
        (SetCookieRule::Never, [false, false]),
        (SetCookieRule::Harmless, [true, false]),
        (SetCookieRule::Explicit, [false, true]),
    ] {
        let rules = CacheRules { set_cookie, ..CacheRules::default() };
        let admitted = |head| rules.admit(&request(&[]), "/", head, false, now(), &limits()).is_ok();
        assert_eq!([admitted(&harmless), admitted(&public)], stored, "{}", set_cookie.as_str());
    }
}

#[test]
fn a_disguised_document_is_stored_only_by_force() {
    let page = response(200, &[("cache-control", "public, max-age=60"), ("content-type", "text/html")]);
    let rules = CacheRules { lifetime: Some(Ttl::Default(seconds(60))), ..CacheRules::default() };
    assert_eq!(lifetime(&rules, "/account.php/x.css", &page), Err(Unstored::Disguised));
    assert_eq!(lifetime(&rules, "/account.php", &page), Ok(60));
    let forced = CacheRules { force: true, ..CacheRules::default() };
    assert_eq!(lifetime(&forced, "/account.php/x.css", &page), Ok(60));
}

#[test]
fn a_default_lifetime_fills_in_and_an_override_replaces() {
    let default = CacheRules { lifetime: Some(Ttl::Default(seconds(100))), ..CacheRules::default() };
    let over = CacheRules { lifetime: Some(Ttl::Override(seconds(200))), ..CacheRules::default() };
    for (fields, by_default, by_override) in [
        (&[][..], Ok(100), Ok(200)),
        (&[("cache-control", "max-age=5")], Ok(5), Ok(200)),
        (&[("expires", "Thu, 01 Jan 1970 00:00:00 GMT"), ("etag", "\"a\"")], Ok(-1), Ok(200)),
        (&[("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")], Ok(100), Ok(200)),
        (&[("age", "30")], Ok(70), Ok(200)),
        (&[("cache-control", "no-cache"), ("etag", "\"a\"")], Ok(-1), Ok(-1)),
        (&[("cache-control", "no-store")], Err(NotStored::NoStore), Err(NotStored::NoStore)),
        (&[("cache-control", "private, max-age=9")], Err(NotStored::Private), Err(NotStored::Private)),
    ] {
        let response = response(200, fields);
        assert_eq!(lifetime(&default, "/", &response), by_default.map_err(Unstored::Policy), "{fields:?}");
        assert_eq!(lifetime(&over, "/", &response), by_override.map_err(Unstored::Policy), "{fields:?}");
    }
    for status in [302, 404, 500] {
        let answer = lifetime(&over, "/", &response(status, &[]));
        assert_eq!(answer, Err(Unstored::Policy(NotStored::NoLifetime)), "{status} has to be named");
    }
    let never = CacheRules { lifetime: Some(Ttl::Override(seconds(0))), ..CacheRules::default() };
    assert!(lifetime(&never, "/", &response(200, &[("cache-control", "max-age=60")])).unwrap() < 0);
}

#[test]
fn no_rule_keeps_what_may_be_a_fragment_for_longer_than_a_minute() {
    let mut odd = response(200, &[("transfer-encoding", "unheard-of"), ("cache-control", "max-age=9000")]);
    odd.remove_header("content-length");
    for ttl in [Ttl::Override(seconds(3600)), Ttl::Default(seconds(3600))] {
        let rules = CacheRules { lifetime: Some(ttl), ..CacheRules::default() };
        assert_eq!(lifetime(&rules, "/", &odd), Ok(60));
    }
    let short = CacheRules { lifetime: Some(Ttl::Override(seconds(5))), ..CacheRules::default() };
    assert_eq!(lifetime(&short, "/", &odd), Ok(5));
}

#[test]
fn force_passes_over_the_origins_prohibitions_but_not_over_its_lifetime() {
    let rules = CacheRules { force: true, lifetime: Some(Ttl::Default(seconds(100))), ..CacheRules::default() };
    for (cc, ttl) in [
        ("no-store", 100),
        ("private, max-age=7", 7),
        ("private=\"a, max-age=3\", no-cache, max-age=8", 8),
        ("no-cache", 100),
    ] {
        assert_eq!(lifetime(&rules, "/", &response(200, &[("cache-control", cc)])), Ok(ttl), "{cc}");
    }
    let authorized = request(&[("authorization", "Basic x")]);
    let result = rules.admit(&authorized, "/", &response(200, &[]), false, now(), &limits());
    assert_eq!(result.map(|_| ()), Err(Unstored::Policy(NotStored::Authorized)));
}

#[test]
fn the_first_lifetime_rule_that_matches_decides() {
    let glob = |text: &str| Some(PathMatch::Glob(Glob::new(text)));
    let rule = TtlRule { statuses: Vec::new(), path: None, content_type: None, ttl: Ttl::Override(seconds(1)) };
    let rules = CacheRules {
        ttl: vec![
            TtlRule { statuses: vec![StatusMatch(404..=404), StatusMatch(500..=599)], ..rule.clone() },
            TtlRule { path: glob("/img/*"), ttl: Ttl::Override(seconds(2)), ..rule.clone() },
            TtlRule { content_type: Some(Glob::new("font/*")), ttl: Ttl::Override(seconds(3)), ..rule },
        ],
        lifetime: Some(Ttl::Default(seconds(4))),
        ..CacheRules::default()
    };
    let of = |path: &str, status: u16, kind: &str| lifetime(&rules, path, &response(status, &[("content-type", kind)]));
    assert_eq!(of("/img/a", 404, "text/html"), Ok(1));
    assert_eq!(of("/x", 503, "text/html"), Ok(1));
    assert_eq!(of("/im%67/a", 200, "image/png"), Ok(2));
    assert_eq!(of("/f", 200, "Font/woff2; x=y"), Ok(3));
    assert_eq!(of("/f", 200, "text/plain"), Ok(4));
    assert_eq!(of("/img/a", 302, "text/html"), Err(Unstored::Policy(NotStored::NoLifetime)));
    assert_eq!(StatusCode::OK, 200);
}

#[test]
fn some_requests_are_kept_away() {
    let rules = CacheRules {
        authorization: Authorization::Bypass,
        bypass_cookies: vec![Glob::new("wp_logged_in*")],
        bypass_headers: vec![HeaderName::from_static("x-preview")],
        bypass_paths: vec![PathMatch::Glob(Glob::new("/admin/*"))],
        ..CacheRules::default()
    };
    for (fields, path, bypasses) in [
        (&[][..], "/", false),
        (&[("cookie", "a=b")], "/", false),
        (&[("cookie", "a=b; wp_logged_in_77=x")], "/", true),
        (&[("x-preview", "")], "/", true),
        (&[("authorization", "Basic x")], "/", true),
        (&[], "/admin/a", true),
        (&[], "/%61dmin/a", true),
        (&[], "/a/admin/a", false),
    ] {
        assert_eq!(rules.bypasses(&request(fields).headers, path), bypasses, "{fields:?} {path}");
    }
    assert!(
        !CacheRules::default().bypasses(&request(&[("authorization", "x"), ("cookie", "a=b")]).headers, "/admin/a")
    );
}

#[test]
fn rules_with_other_parts_make_other_primary_keys() {
    let of = |key: KeyRules, cookies: Cookies| CacheRules { key, cookies, ..CacheRules::default() }.discriminator();
    let headers = |names: &[&'static str]| KeyRules {
        headers: names.iter().map(|n| HeaderName::from_static(n)).collect(),
        ..KeyRules::default()
    };
    let plain = of(KeyRules::default(), Cookies::Bypass);
    assert!(plain.is_empty());
    assert_eq!(plain, of(KeyRules { sort: true, ..KeyRules::default() }, Cookies::Strip));
    let all = [
        plain,
        of(headers(&["a"]), Cookies::Bypass),
        of(headers(&["a", "b"]), Cookies::Bypass),
        of(headers(&["ab"]), Cookies::Bypass),
        of(headers(&[]), Cookies::Key(vec!["a".into()])),
        of(KeyRules { device: true, ..KeyRules::default() }, Cookies::Bypass),
    ];
    for (n, one) in all.iter().enumerate() {
        assert!(!all[..n].contains(one), "{n}");
    }
}

#[test]
fn vary_selects_by_what_the_origin_sees() {
    let rules = CacheRules {
        key: KeyRules { device: true, ..KeyRules::default() },
        cookies: Cookies::Key(vec!["lang".into()]),
        ..CacheRules::default()
    };
    let varying = response(200, &[("vary", "cookie, user-agent, sec-ch-ua")]);
    let key = |rules: &CacheRules, fields: &[(&'static str, &str)]| {
        let request = request(fields).headers;
        rules.variance(
            policy::variance(&varying.headers, &rules.seen_by_origin(&request), &policy::family(&varying.headers)),
            &request,
        )
    };
    let one = [("cookie", "a=1; lang=de"), ("user-agent", "curl/8"), ("sec-ch-ua", "x")];
    let other = [("cookie", "lang=de"), ("user-agent", "curl/7")];
    assert_eq!(key(&rules, &one), key(&rules, &other));
    assert_ne!(key(&rules, &one), key(&rules, &[("cookie", "lang=fr"), ("user-agent", "curl/7")]));
    assert_ne!(key(&CacheRules::default(), &one), key(&CacheRules::default(), &other));
}
