use super::*;
use crate::route::HostPattern;
use http::{HeaderMap, HeaderName, Method};
use std::net::IpAddr;

/// A request with all that rules look at.
struct Request {
    host: &'static str,
    target: &'static str,
    method: Method,
    headers: HeaderMap,
    client: Option<IpAddr>,
}

fn request(target: &'static str, fields: &[(&str, &str)]) -> Request {
    let headers = fields.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect();
    Request { host: "www.a.example", target, method: Method::GET, headers, client: "192.0.2.7".parse().ok() }
}

impl Request {
    fn subject(&self) -> Subject<'_> {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        Subject { host: self.host, path, query, method: &self.method, headers: &self.headers, client: self.client }
    }
}

fn exact(text: &str) -> ValueMatch {
    ValueMatch::Exact(text.into())
}

fn regex(text: &str) -> ValueMatch {
    ValueMatch::Regex(Regex::new(text).unwrap())
}

#[test]
fn each_condition_has_to_hold() {
    let when = |change: fn(&mut Conditions)| {
        let mut conditions = Conditions::default();
        change(&mut conditions);
        conditions
    };
    let asked =
        request("/api/v1?beta=1&q=a%20b&flag", &[("x-user", "anna"), ("cookie", "a=1; group=beta"), ("cookie", "c=3")]);
    for (name, conditions, holds) in [
        ("nothing asked", when(|_| {}), true),
        ("exact host", when(|c| c.hosts = vec!["www.a.example".parse().unwrap()]), true),
        (
            "one host of two",
            when(|c| c.hosts = vec!["b.example".parse().unwrap(), "*.a.example".parse().unwrap()]),
            true,
        ),
        ("another host", when(|c| c.hosts = vec!["b.example".parse().unwrap()]), false),
        ("any host", when(|c| c.hosts = vec![HostPattern::Any]), true),
        ("prefix", when(|c| c.paths = vec![PathMatch::Prefix("/api/".into())]), true),
        ("exact path", when(|c| c.paths = vec![PathMatch::Exact("/api/v1".into())]), true),
        ("exact path that is only a prefix", when(|c| c.paths = vec![PathMatch::Exact("/api".into())]), false),
        ("path by regex", when(|c| c.paths = vec![PathMatch::Regex(Regex::new("v[0-9]$").unwrap())]), true),
        ("method", when(|c| c.methods = vec![Method::POST, Method::GET]), true),
        ("another method", when(|c| c.methods = vec![Method::POST]), false),
        ("field", when(|c| c.headers = vec![(HeaderName::from_static("x-user"), exact("anna"))]), true),
        ("field by regex", when(|c| c.headers = vec![(HeaderName::from_static("x-user"), regex("^an"))]), true),
        ("another value", when(|c| c.headers = vec![(HeaderName::from_static("x-user"), exact("Anna"))]), false),
        ("field there", when(|c| c.headers = vec![(HeaderName::from_static("x-user"), ValueMatch::Present)]), true),
        ("field not there", when(|c| c.headers = vec![(HeaderName::from_static("x-none"), ValueMatch::Absent)]), true),
        ("field missing", when(|c| c.headers = vec![(HeaderName::from_static("x-none"), ValueMatch::Present)]), false),
        ("parameter", when(|c| c.query = vec![("beta".into(), exact("1"))]), true),
        ("parameter decoded", when(|c| c.query = vec![("q".into(), exact("a b"))]), true),
        ("parameter without value", when(|c| c.query = vec![("flag".into(), ValueMatch::Present)]), true),
        ("parameter missing", when(|c| c.query = vec![("bet".into(), ValueMatch::Present)]), false),
        ("cookie", when(|c| c.cookies = vec![("group".into(), exact("beta"))]), true),
        ("cookie on a second line", when(|c| c.cookies = vec![("c".into(), exact("3"))]), true),
        ("cookie of another value", when(|c| c.cookies = vec![("group".into(), exact("bet"))]), false),
        ("source", when(|c| c.sources = vec!["192.0.2.0/24".parse().unwrap()]), true),
        ("another source", when(|c| c.sources = vec!["198.51.100.0/24".parse().unwrap()]), false),
        (
            "all together",
            when(|c| {
                c.paths = vec![PathMatch::Prefix("/api/".into())];
                c.methods = vec![Method::GET];
                c.cookies = vec![("group".into(), exact("beta"))];
            }),
            true,
        ),
        (
            "all but one",
            when(|c| {
                c.paths = vec![PathMatch::Prefix("/api/".into())];
                c.methods = vec![Method::PUT];
            }),
            false,
        ),
    ] {
        assert_eq!(conditions.hold(&asked.subject()), holds, "{name}");
    }
    let nameless = Request { client: None, ..request("/", &[]) };
    let inside = Conditions { sources: vec!["0.0.0.0/0".parse().unwrap()], ..Conditions::default() };
    assert!(!inside.hold(&nameless.subject()), "who is not known is in no network");
}

#[test]
fn only_what_the_key_has_lets_groups_share_it() {
    let base = Conditions::default;
    for (conditions, query_counts, in_key) in [
        (base(), true, true),
        (
            Conditions { paths: vec![PathMatch::Prefix("/a".into())], hosts: vec![HostPattern::Any], ..base() },
            false,
            true,
        ),
        (Conditions { query: vec![("a".into(), ValueMatch::Present)], ..base() }, true, true),
        (Conditions { query: vec![("a".into(), ValueMatch::Present)], ..base() }, false, false),
        (Conditions { cookies: vec![("a".into(), ValueMatch::Present)], ..base() }, true, false),
        (Conditions { sources: vec!["10.0.0.0/8".parse().unwrap()], ..base() }, true, false),
        (Conditions { headers: vec![(http::header::ACCEPT, ValueMatch::Present)], ..base() }, true, false),
        (Conditions { methods: vec![Method::GET], ..base() }, true, false),
        (Conditions { methods: vec![Method::GET, Method::HEAD], ..base() }, true, true),
        (Conditions { methods: vec![Method::POST], ..base() }, true, true),
    ] {
        assert_eq!(conditions.are_in_the_key(query_counts), in_key, "{conditions:?}");
    }
}

fn rule(name: &str, path: &str, action: Option<Action>) -> Rule {
    let when = Conditions { paths: vec![PathMatch::Prefix(path.into())], ..Conditions::default() };
    Rule { name: name.into(), when, rewrite: None, mirror: None, action, before_access: false, source: "test".into() }
}

#[test]
fn the_first_action_ends_the_list_and_what_comes_before_it_counts() {
    let rewrite = Rewrite::Prefix { from: "/a".into(), to: "/b".into() };
    let mirror = Mirror { origin: "shadow".into(), per_mille: 1000, max_body: 0 };
    let rules = [
        Rule { rewrite: Some(rewrite), ..rule("rewrites", "/a", None) },
        rule("elsewhere", "/x", Some(Action::Drop)),
        Rule { mirror: Some(mirror), ..rule("copies", "/", None) },
        rule("ends", "/a", Some(Action::Drop)),
        rule("unseen", "/a", Some(Action::Drop)),
    ];
    let asked = request("/a/1", &[]);
    let decision = decide(&rules, &asked.subject());
    assert_eq!((decision.rewrites.len(), decision.mirrors.len(), decision.action.map(|(at, _)| at)), (1, 1, Some(3)));
    let asked = request("/x", &[]);
    let decision = decide(&rules, &asked.subject());
    assert_eq!((decision.mirrors.len(), decision.action.map(|(at, _)| at)), (0, Some(1)));
    let asked = request("/z", &[]);
    let decision = decide(&rules, &asked.subject());
    assert!(decision.mirrors.len() == 1 && decision.action.is_none());
}

#[test]
fn paths_are_rewritten_as_text() {
    let prefix = |from: &str, to: &str| Rewrite::Prefix { from: from.into(), to: to.into() };
    let regex = |from: &str, to: &str| Rewrite::Regex { from: Regex::new(from).unwrap(), to: to.into() };
    for (rewrite, path, rewritten) in [
        (prefix("/app", ""), "/app/x", Some("/x")),
        (prefix("/app/", "/"), "/app/x", Some("/x")),
        (prefix("/app", "/new"), "/apple", Some("/newle")),
        (prefix("/app/", ""), "/app/x", Some("/x")),
        (prefix("/app", ""), "/app", Some("/")),
        (prefix("/app", "/"), "/other", None),
        (regex("^/v[0-9]+/(.*)$", "/$1"), "/v12/a/b", Some("/a/b")),
        (regex("^/u/(?P<id>[0-9]+)$", "/users/${id}.json"), "/u/7", Some("/users/7.json")),
        (regex("^/none", "/x"), "/a", None),
        (regex("^/+", ""), "/a", Some("/a")),
    ] {
        assert_eq!(rewrite.apply(path).as_deref(), rewritten, "{rewrite:?} {path}");
    }
}

#[test]
fn redirects_know_their_placeholders() {
    let parts = |path, query| Parts { scheme: "http", host: "a.example", port: Some(8080), path, query };
    for (template, path, query, filled) in [
        ("https://$host$request_uri", "/a", "b=c", "https://a.example/a?b=c"),
        ("https://$host$request_uri", "/a", "", "https://a.example/a"),
        ("$scheme://${host}$port/x$path$query", "/a", "", "http://a.example:8080/x/a"),
        ("https://b.example/?from=$host$query", "/", "b=c", "https://b.example/?from=a.example&b=c"),
        ("/new$path", "/a", "b", "/new/a"),
        ("$path/", "//evil.example", "", "/evil.example/"),
        ("/$$5", "/", "", "/$5"),
    ] {
        let location: Location = template.parse().expect(template);
        assert_eq!(location.fill(&parts(path, query)), filled, "{template}");
        assert_eq!(location.to_string().parse::<Location>().as_ref(), Ok(&location), "{template}");
    }
    for (template, error) in [
        ("https://$hosts/", LocationError::Unknown("hosts".to_owned())),
        ("www.example.com", LocationError::NoUri),
        ("/a b", LocationError::NotEncoded),
        ("/é", LocationError::NotEncoded),
    ] {
        assert_eq!(template.parse::<Location>(), Err(error), "{template}");
    }
}

#[test]
fn shares_are_kept_in_any_run_of_requests() {
    for weights in [&[1, 1][..], &[90, 10], &[1, 2, 3, 4], &[0, 5, 0], &[1000, 1]] {
        let total: u32 = weights.iter().sum();
        for start in [0, 1, 17, u64::MAX - 5, 1 << 40] {
            let run = 2000_u64;
            let mut got = vec![0_u64; weights.len()];
            for n in 0..run {
                got[choose(weights, start.wrapping_add(n)).unwrap()] += 1;
            }
            for (got, weight) in got.iter().zip(weights) {
                let share = run * u64::from(*weight) / u64::from(total);
                assert!(got.abs_diff(share) <= 3, "{weights:?} from {start}: {got} instead of {share}");
                assert!(*weight > 0 || *got == 0);
            }
        }
    }
    assert_eq!(choose(&[0, 0], 1), None);
    assert_eq!(choose(&[], 1), None);
}
