use super::*;
use crate::field::date;

const RULES: ResponseRules = ResponseRules { max_object: 1000 };

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
        (vec![], 200, vec![fresh, ("set-cookie", "a=b")], SetCookie),
        (vec![], 200, vec![fresh, ("vary", "accept, *")], VaryStar),
        (vec![], 206, vec![fresh, ("content-range", "bytes 0-4/9")], Partial),
        (vec![], 200, vec![fresh, ("content-range", "bytes 0-4/9")], Partial),
        (vec![], 304, vec![fresh], Status),
        (vec![], 400, vec![fresh], Status),
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
        (vec![], 200, "must-understand, no-store, max-age=60"),
        (vec![], 200, "max-age=60, x-unknown=1"),
    ] {
        assert!(store(&req, status, &[("cache-control", cc)]).is_ok(), "{status} {cc}");
    }
    assert!(store(&[], 200, &[("cache-control", "max-age=60"), ("transfer-encoding", "chunked")]).is_ok());
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
