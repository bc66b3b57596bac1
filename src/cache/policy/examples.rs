//! The examples that the RFCs give, and what attackers and careless origins send.

use super::tests::{RULES, ago, now, request, response, store};
use super::*;
use crate::field::date;

fn at(seconds: u64) -> SystemTime {
    now() + Duration::from_secs(seconds)
}

#[test]
fn the_examples_of_rfc_5861_hold() {
    // Section 3.1: fresh for 600 s, then for 30 s more while it is being validated.
    let updating = store(&[], 200, &[("cache-control", "max-age=600, stale-while-revalidate=30")]).unwrap();
    // Section 4.1: for 1200 s more after an error.
    let error = store(&[], 200, &[("cache-control", "max-age=600, stale-if-error=1200")]).unwrap();
    for (seconds, fresh, while_updating, after_error) in [
        (600, true, true, true),
        (601, false, true, true),
        (630, false, true, true),
        (631, false, false, true),
        (900, false, false, true),
        (1800, false, false, true),
        (1801, false, false, false),
    ] {
        let used = on_hit(&updating, &Demand::default(), at(seconds)) == HitVerdict::Use;
        assert_eq!(used, fresh, "after {seconds} s");
        assert_eq!(may_serve_stale(&updating, at(seconds), StaleCause::Updating), while_updating, "after {seconds} s");
        assert_eq!(may_serve_stale(&error, at(seconds), StaleCause::Error), after_error, "after {seconds} s");
    }
}

#[test]
fn the_examples_of_rfc_9213_hold() {
    // Section 2.2 and 3.1: the CDN's field rules here, the other elsewhere.
    for (fields, seconds) in [
        (vec![("cdn-cache-control", "max-age=60"), ("cache-control", "max-age=3600, no-store")], Some(60)),
        (vec![("cdn-cache-control", "max-age=600"), ("cache-control", "max-age=60, s-maxage=120")], Some(600)),
        (vec![("cdn-cache-control", "no-store"), ("cache-control", "max-age=3600")], None),
        (vec![("cdn-cache-control", "none"), ("cache-control", "max-age=5"), ("last-modified", &ago(100))], Some(10)),
    ] {
        let lifetime = store(&[], 200, &fields).ok().map(|meta| time_to_live(&meta, now()));
        assert_eq!(lifetime, seconds, "{fields:?}");
    }
}

#[test]
fn the_examples_of_rfc_9111_hold() {
    // Section 5.2.2: `community` means nothing here; `private` alone counts.
    assert_eq!(store(&[], 200, &[("cache-control", "private, community=\"UCI\"")]).err(), Some(NotStored::Private));
    // Section 5.2: both forms of an argument, names in any case.
    for cc in ["max-age=3600", "Max-Age=3600", "max-age=\"3600\""] {
        assert_eq!(time_to_live(&store(&[], 200, &[("cache-control", cc)]).unwrap(), now()), 3600, "{cc}");
    }
    // Section 5.3: an invalid date, `0` above all, is in the past.
    for expires in ["0", "-1", "Thu, 01 Dec 1994 16:00:00", "Thu, 01 Dec 1994 16:00:00 GMT"] {
        let meta = store(&[], 200, &[("expires", expires), ("etag", "\"a\"")]).unwrap();
        assert!(!meta.is_fresh(now()), "{expires}");
    }
    // Section 4.2.3: the greater of the apparent and the told age counts.
    let meta = store(&[], 200, &[("cache-control", "max-age=100"), ("date", &ago(20)), ("age", "30")]).unwrap();
    assert_eq!((current_age(&meta, at(5)), time_to_live(&meta, at(5))), (Duration::from_secs(35), 65));
    // Section 5.4: `Pragma: no-cache` stands in for the directive where `Cache-Control` is missing.
    let validates = |fields: &[(&str, &str)]| match admits_request(&request(fields)) {
        RequestVerdict::Lookup(demand) => demand.validate,
        RequestVerdict::Bypass(_) => false,
    };
    assert!(validates(&[("pragma", "no-cache")]));
    assert!(!validates(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]));
}

#[test]
fn an_age_counts_from_the_request_on() {
    let rules = ResponseRules { delay: Duration::from_millis(5900), ..RULES };
    for (fields, age) in [
        (vec![("cache-control", "max-age=100"), ("age", "10")], 15),
        (vec![("cache-control", "max-age=100"), ("age", "0")], 5),
        // Without one the origin has only been slow.
        (vec![("cache-control", "max-age=100")], 0),
    ] {
        let meta = admits_response(&request(&[]), &response(200, &fields), now(), &rules).unwrap().meta;
        assert_eq!(current_age(&meta, now()), Duration::from_secs(age), "{fields:?}");
    }
}

#[test]
fn the_clock_may_be_put_back_and_forth() {
    let meta =
        store(&[], 200, &[("cache-control", "max-age=60, stale-while-revalidate=60, stale-if-error=60")]).unwrap();
    let demand = Demand { max_stale: Some(u32::MAX), ..Demand::default() };
    for (moment, used) in [
        (now() - Duration::from_secs(1), true),
        (now() - Duration::from_secs(3600), false),
        (SystemTime::UNIX_EPOCH, false),
        (at(60), true),
        (now() + Duration::from_secs(1 << 40), true),
    ] {
        assert_eq!(on_hit(&meta, &demand, moment) == HitVerdict::Use, used, "{moment:?}");
    }
    for cause in [StaleCause::Updating, StaleCause::Error] {
        assert!(!may_serve_stale(&meta, now() - Duration::from_secs(3600), cause), "{cause:?}");
    }
    // A clock that begins at 1970, or far beyond, neither panics nor keeps anything fresh.
    for moment in [SystemTime::UNIX_EPOCH, now() + Duration::from_secs(1 << 40)] {
        for fields in
            [[("cache-control", "max-age=4294967295"), ("age", "4294967295")], [("expires", &ago(0)), ("date", "x")]]
        {
            let head = response(200, &fields);
            if let Ok(stored) = admits_response(&request(&[]), &head, moment, &RULES) {
                assert!(!stored.meta.is_fresh(moment + Duration::from_secs(1 << 32)), "{fields:?} at {moment:?}");
            }
        }
    }
}

#[test]
fn directives_that_are_misspelt_still_forbid() {
    let modified = ago(1_000_000);
    let verdict = |cc: &str| {
        let stored = store(&[], 200, &[("cache-control", cc), ("last-modified", &modified)]);
        stored.map(|meta| on_hit(&meta, &Demand::default(), now()) == HitVerdict::Use)
    };
    for (cc, expected) in [
        ("no-store; max-age=60", Err(NotStored::NoStore)),
        ("max-age=60; no-store", Err(NotStored::NoStore)),
        ("private; max-age=60", Err(NotStored::Private)),
        ("max-age=60 private", Err(NotStored::Private)),
        ("no-cache; must-revalidate", Ok(false)),
        ("max-age = 0", Ok(false)),
        ("max-age=0;", Ok(false)),
        ("ext=\"no-store; private\"", Ok(true)),
        ("ext=\"a\\\", no-store\", x=1", Ok(true)),
        ("no-store-at-all, max-age=60", Ok(true)),
    ] {
        assert_eq!(verdict(cc), expected, "{cc}");
    }
}

#[test]
fn a_vary_that_cannot_be_told_apart_keeps_a_response_out() {
    let fresh = ("cache-control", "max-age=60");
    for (vary, stored) in [
        ("Accept", true),
        ("accept, , x-a", true),
        ("accept cookie", false),
        ("accept; cookie", false),
        ("\"cookie\"", false),
        // The origin sees the edge's own here, each client's another one.
        ("X-Forwarded-For", false),
        ("accept, x-real-ip", false),
        ("X-Request-Id", false),
    ] {
        assert_eq!(store(&[], 200, &[fresh, ("vary", vary)]).is_ok(), stored, "{vary}");
    }
}

#[test]
fn what_may_be_a_fragment_is_never_validated() {
    let odd = [("transfer-encoding", "unheard-of"), ("cache-control", "max-age=3600"), ("etag", "\"a\"")];
    let meta = store(&[], 200, &odd).unwrap();
    let demand = Demand { validate: true, ..Demand::default() };
    assert_eq!(on_hit(&meta, &demand, at(1)), HitVerdict::Unusable);
    assert_eq!(on_hit(&meta, &Demand::default(), at(1)), HitVerdict::Use);
}

#[test]
fn an_error_to_one_with_credentials_does_not_answer_others() {
    let (auth, cc) = (("authorization", "Basic eDp5"), ("cache-control", "public, max-age=60"));
    assert_eq!(store(&[auth], 403, &[cc]).err(), Some(NotStored::UnusualRequest));
    assert!(store(&[auth], 200, &[cc]).is_ok());
    assert!(store(&[], 403, &[cc]).is_ok());
}

#[test]
fn only_the_answer_to_a_harmless_post_is_stored_for_get() {
    let host = crate::types::HostName::parse_with_port("example.com").unwrap().0;
    let target = Resource { scheme: "https", host: &host, port: 443, path_and_query: "/a" };
    let (fresh, own) = (("cache-control", "max-age=60"), ("content-location", "/a"));
    for (asked, status, given, expected) in [
        (vec![(":method", "POST")], 200, vec![fresh, own], None),
        (vec![(":method", "PUT")], 200, vec![fresh, own], Some(NotStored::Method)),
        (vec![(":method", "POST")], 201, vec![fresh, own], Some(NotStored::Method)),
        (vec![(":method", "POST")], 200, vec![fresh, ("content-location", "/b")], Some(NotStored::Method)),
        (vec![(":method", "POST")], 200, vec![own], Some(NotStored::NoLifetime)),
        (vec![(":method", "POST"), ("cookie", "a=b")], 200, vec![fresh, own], Some(NotStored::Authorized)),
        (vec![(":method", "POST")], 200, vec![fresh, own, ("set-cookie", "a=b")], Some(NotStored::SetCookie)),
        (vec![(":method", "POST")], 200, vec![fresh, own, ("vary", "accept")], Some(NotStored::VaryStar)),
        (
            vec![(":method", "POST")],
            200,
            vec![("cache-control", "no-cache, max-age=60"), own],
            Some(NotStored::NoLifetime),
        ),
    ] {
        let verdict = admits_post(&request(&asked), &response(status, &given), &target, now(), &RULES);
        assert_eq!(verdict.err(), expected, "{asked:?} {status} {given:?}");
    }
}

#[test]
fn where_a_stored_lifetime_comes_from_is_told() {
    let (hour, modified) = (date::format(at(3600)), ago(1000));
    for (fields, seconds, source) in [
        (vec![("cache-control", "s-maxage=20, max-age=10")], 20, LifetimeSource::SMaxage),
        (vec![("cache-control", "max-age=10")], 10, LifetimeSource::MaxAge),
        (vec![("expires", hour.as_str())], 3600, LifetimeSource::Expires),
        (vec![("last-modified", modified.as_str())], 100, LifetimeSource::Heuristic),
        (vec![("cache-control", "no-cache, max-age=9")], 0, LifetimeSource::NoCache),
        (vec![("etag", "\"a\"")], 0, LifetimeSource::Nothing),
    ] {
        let mut meta = store(&[], 200, &fields).unwrap();
        assert_eq!(stored_lifetime(&meta), (Duration::from_secs(seconds), source), "{fields:?}");
        meta.update_freshness(at(50_000), 0, 0);
        assert_eq!(stored_lifetime(&meta), (Duration::from_secs(50_000), LifetimeSource::Override), "{fields:?}");
    }
}
