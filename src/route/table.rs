//! The table that requests are looked up in.

use super::path::PathTable;
use super::{HostPattern, SiteSpec};
use regex::Regex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// Sites by host. Immutable: a change of configuration builds another one and swaps it in.
///
/// An exact host costs one hash; a wildcard one more per label; regexes are tried one after another, last. Nothing is
/// allocated unless a regex is tried.
#[derive(Debug)]
pub struct RouteTable<T> {
    sites: Vec<Arc<PreparedSite<T>>>,
    hosts: Arc<Hosts>,
}

/// The sites of a table by host. What else goes by host can share it.
#[derive(Debug, Default)]
pub struct Hosts {
    /// Every host pattern and its site; the maps below lead here.
    patterns: Vec<(Arc<str>, usize)>,
    exact: HashMap<Arc<str>, usize>,
    leading: Wildcards,
    trailing: Wildcards,
    /// In the order of the source.
    regexes: Vec<(Regex, usize)>,
    any: Option<usize>,
}

/// A site that is ready to stand in a table, or in several, one after another.
#[derive(Debug)]
pub struct PreparedSite<T> {
    /// As [`HostPattern`] writes them, and themselves.
    hosts: Vec<(Arc<str>, HostPattern)>,
    paths: PathTable<T>,
    /// Routes that repeat an earlier one's path: the two places, and the path.
    repeated: Vec<(usize, usize, String)>,
}

impl<T> From<SiteSpec<T>> for PreparedSite<T> {
    fn from(spec: SiteSpec<T>) -> Self {
        let mut repeated = Vec::new();
        let paths = PathTable::build(spec.routes, |first, second, path| repeated.push((first, second, path)));
        let hosts = spec.hosts.into_iter().map(|host| (host.to_string().into(), host)).collect();
        Self { hosts, paths, repeated }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match<'a, T> {
    /// To this route.
    Route(&'a T),
    /// The host is a site's, but no route of it takes the path: 404.
    NoRoute,
    /// No site answers for the host: 503, as nginx-proxy answers.
    UnknownHost,
}

/// What makes a list of sites ambiguous. Sites and routes are named by their places in what was given, from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildProblem {
    /// Two sites answer for the same host pattern.
    #[error("host `{pattern}` belongs to two sites; leave it in one of them")]
    DuplicateHost {
        /// As [`HostPattern`] writes it.
        pattern: String,
        /// The site that has it first.
        first: usize,
        /// The site that repeats it.
        second: usize,
    },
    /// Two routes of one site have the same path, so the second can never be reached.
    #[error("path `{pattern}` is given twice in one site; leave out one of the two routes")]
    DuplicatePath {
        /// The site.
        site: usize,
        /// As [`super::PathPattern`] writes it.
        pattern: String,
        /// The route that has it first.
        first: usize,
        /// The route that repeats it.
        second: usize,
    },
}

impl<T> Default for RouteTable<T> {
    /// Of no sites.
    fn default() -> Self {
        Self { sites: Vec::new(), hosts: Arc::default() }
    }
}

impl<T> RouteTable<T> {
    /// Builds the table. Regexes are tried in the order of `sites` and, within one, of its hosts; a source without an
    /// order of its own sorts them first.
    ///
    /// # Errors
    /// Every ambiguity at once. A site that repeats its own host is not one.
    pub fn build(sites: Vec<SiteSpec<T>>) -> Result<Self, Vec<BuildProblem>> {
        Self::of(sites.into_iter().map(|spec| Arc::new(spec.into())).collect())
    }

    /// The same of sites that are ready.
    ///
    /// # Errors
    /// See [`Self::build`].
    pub fn of(sites: Vec<Arc<PreparedSite<T>>>) -> Result<Self, Vec<BuildProblem>> {
        let mut problems = Vec::new();
        let mut owners: HashMap<&str, usize> = HashMap::with_capacity(sites.len());
        let mut hosts = Hosts { exact: HashMap::with_capacity(sites.len()), ..Hosts::default() };
        for (site, prepared) in sites.iter().enumerate() {
            for (text, host) in &prepared.hosts {
                match owners.entry(text) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(site);
                        hosts.add(text, host, site);
                    }
                    Entry::Occupied(first) if *first.get() == site => {}
                    Entry::Occupied(first) => problems.push(BuildProblem::DuplicateHost {
                        pattern: text.to_string(),
                        first: *first.get(),
                        second: site,
                    }),
                }
            }
            problems.extend(prepared.repeated.iter().map(|(first, second, pattern)| BuildProblem::DuplicatePath {
                site,
                pattern: pattern.clone(),
                first: *first,
                second: *second,
            }));
        }
        if problems.is_empty() { Ok(Self { sites, hosts: Arc::new(hosts) }) } else { Err(problems) }
    }

    /// The sites by host.
    pub fn hosts(&self) -> &Arc<Hosts> {
        &self.hosts
    }

    /// Finds the route of a request. `host` is as [`crate::types::HostName`] holds it: lower case, without a trailing
    /// dot or a port; `path` is the request's, without its query.
    pub fn find(&self, host: &str, path: &str) -> Match<'_, T> {
        match self.hosts.site(host) {
            None => Match::UnknownHost,
            Some(site) => self.sites[site].paths.find(path).map_or(Match::NoRoute, Match::Route),
        }
    }

    /// The route of a site for a request's path (without its query).
    pub fn find_in(&self, site: usize, path: &str) -> Option<&T> {
        self.sites.get(site)?.paths.find(path)
    }

    /// Every site's routes, in the order of the sites.
    pub fn routes(&self) -> impl Iterator<Item = impl Iterator<Item = &T>> {
        self.sites.iter().map(|site| site.paths.iter())
    }

    /// Every route of a site that takes the path; the first is the one that is found.
    pub fn all_in(&self, site: usize, path: &str) -> impl Iterator<Item = &T> {
        self.sites.get(site).into_iter().flat_map(move |site| site.paths.all(path))
    }
}

impl Hosts {
    /// The site that takes `host`: its place in what the table was built from.
    pub fn site(&self, host: &str) -> Option<usize> {
        self.host(host).map(|at| self.patterns[at].1)
    }

    /// The site that has this very pattern, as [`HostPattern`] writes it.
    pub fn site_of_pattern(&self, pattern: &str) -> Option<usize> {
        self.patterns.iter().find(|(own, _)| **own == *pattern).map(|(_, site)| *site)
    }

    /// The host pattern by which [`Self::site`] finds `host`, as [`HostPattern`] writes it.
    pub fn host_pattern(&self, host: &str) -> Option<&str> {
        self.host(host).map(|at| &*self.patterns[at].0)
    }

    /// Every host pattern that takes `host`, with its site; the first is the one that is found.
    pub fn patterns_of(&self, host: &str) -> Vec<(&str, usize)> {
        let suffixes = host.match_indices('.').map(|(dot, _)| dot).filter(|dot| *dot > 0).map(|dot| &host[dot..]);
        let prefixes = host.rmatch_indices('.').map(|(dot, _)| dot).filter(|dot| dot + 1 < host.len());
        let all = self
            .exact
            .get(host)
            .copied()
            .into_iter()
            .chain(suffixes.filter_map(|suffix| self.leading.get(suffix)))
            .chain(prefixes.map(|dot| &host[..=dot]).filter_map(|prefix| self.trailing.get(prefix)))
            .chain(self.regexes.iter().filter(|(regex, _)| regex.is_match(host)).map(|(_, at)| *at))
            .chain(self.any);
        all.filter_map(|at| self.patterns.get(at)).map(|(pattern, site)| (&**pattern, *site)).collect()
    }

    fn host(&self, host: &str) -> Option<usize> {
        // Each label that a wildcard's text can end at is tried, the longest text first. An empty label stands for
        // nothing: `*.b` takes neither `b` nor `.b`.
        let leading = || {
            let dots = host.match_indices('.').map(|(dot, _)| dot).filter(|dot| *dot > 0);
            dots.map(|dot| &host[dot..]).find_map(|suffix| self.leading.get(suffix))
        };
        let trailing = || {
            let dots = host.rmatch_indices('.').map(|(dot, _)| dot).filter(|dot| dot + 1 < host.len());
            dots.map(|dot| &host[..=dot]).find_map(|prefix| self.trailing.get(prefix))
        };
        let regex = || self.regexes.iter().find(|(regex, _)| regex.is_match(host)).map(|(_, at)| *at);
        self.exact.get(host).copied().or_else(leading).or_else(trailing).or_else(regex).or(self.any)
    }

    fn add(&mut self, text: &Arc<str>, host: &HostPattern, site: usize) {
        let at = self.patterns.len();
        self.patterns.push((Arc::clone(text), site));
        match host {
            HostPattern::Exact(_) => drop(self.exact.insert(Arc::clone(text), at)),
            HostPattern::LeadingWildcard(suffix) => self.leading.insert(suffix, at),
            HostPattern::TrailingWildcard(prefix) => self.trailing.insert(prefix, at),
            HostPattern::Regex(regex) => self.regexes.push((regex.clone(), at)),
            HostPattern::Any => self.any = Some(at),
        }
    }
}

/// The texts of one kind of wildcard, dot included.
#[derive(Debug, Default)]
struct Wildcards {
    hosts: HashMap<Box<str>, usize>,
    /// Length of the longest text: a longer part of a host need not be hashed, and a table without wildcards hashes
    /// nothing.
    longest: usize,
}

impl Wildcards {
    fn insert(&mut self, text: &str, at: usize) {
        self.longest = self.longest.max(text.len());
        self.hosts.insert(text.into(), at);
    }

    fn get(&self, text: &str) -> Option<usize> {
        if text.len() > self.longest { None } else { self.hosts.get(text).copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::PathPattern;
    use proptest::prelude::*;

    fn spec<T>(hosts: &[&str], routes: Vec<(&str, T)>) -> SiteSpec<T> {
        SiteSpec {
            hosts: hosts.iter().map(|host| host.parse().expect(host)).collect(),
            routes: routes.into_iter().map(|(path, route)| (path.parse().expect(path), route)).collect(),
        }
    }

    fn site(hosts: &[&str], name: &'static str) -> SiteSpec<&'static str> {
        spec(hosts, vec![("/", name)])
    }

    #[test]
    fn hosts_are_found_by_nginx_precedence() {
        let table = RouteTable::build(vec![
            site(&["*"], "any"),
            site(&["~^img[0-9]+[.]", "~second"], "first regex"),
            site(&["~^img", "~second"], "second regex"),
            site(&["www.*"], "trailing"),
            site(&["www.example.*"], "longer trailing"),
            site(&["*.example.com"], "leading"),
            site(&["*.eu.example.com"], "longer leading"),
            site(&["www.example.com", "[::1]"], "exact"),
        ]);
        // `~second` stands in two sites.
        assert!(matches!(table, Err(ref problems) if problems.len() == 1), "{table:?}");
        let table = RouteTable::build(vec![
            site(&["*"], "any"),
            site(&["~^img[0-9]+[.]"], "first regex"),
            site(&["~^img"], "second regex"),
            site(&["www.*"], "trailing"),
            site(&["www.example.*"], "longer trailing"),
            site(&["*.example.com"], "leading"),
            site(&["*.eu.example.com"], "longer leading"),
            site(&["www.example.com", "[::1]", "www.example.com"], "exact"),
        ])
        .unwrap();
        for (host, expected) in [
            ("www.example.com", "exact"),
            ("[::1]", "exact"),
            ("a.example.com", "leading"),
            ("img1.example.com", "leading"),
            ("a.b.example.com", "leading"),
            ("eu.example.com", "leading"),
            ("a.eu.example.com", "longer leading"),
            ("www.eu.example.com", "longer leading"),
            ("www.example.org", "longer trailing"),
            ("www.example.co.uk", "longer trailing"),
            ("www.other.org", "trailing"),
            ("www", "any"),
            ("www.", "any"),
            ("img1.org", "first regex"),
            ("imgx.org", "second regex"),
            ("example.com", "any"),
            (".example.com", "any"),
            ("xexample.com", "any"),
            ("", "any"),
        ] {
            assert_eq!(table.find(host, "/x"), Match::Route(&expected), "{host}");
            assert_eq!(
                table.hosts().patterns_of(host).first().map(|(pattern, _)| *pattern),
                table.hosts().host_pattern(host),
                "{host}"
            );
        }
        let all: Vec<&str> =
            table.hosts().patterns_of("a.eu.example.com").into_iter().map(|(pattern, _)| pattern).collect();
        assert_eq!(all, ["*.eu.example.com", "*.example.com", "*"]);
        for (host, pattern) in
            [("a.b.example.com", Some("*.example.com")), ("imgx.org", Some("~^img")), ("", Some("*"))]
        {
            assert_eq!(table.hosts().host_pattern(host), pattern, "{host}");
        }
    }

    #[test]
    fn an_unknown_host_and_an_unknown_path_are_told_apart() {
        let table = RouteTable::build(vec![spec(&["a.b"], vec![("/api", 1)])]).unwrap();
        assert_eq!(table.find("a.b", "/api"), Match::Route(&1));
        assert_eq!(table.find("a.b", "/apix"), Match::Route(&1));
        assert_eq!(table.find("a.b", "/ap"), Match::NoRoute);
        assert_eq!(table.find("a.c", "/api"), Match::UnknownHost);
        assert_eq!(RouteTable::<()>::build(vec![]).unwrap().find("a.b", "/"), Match::UnknownHost);
    }

    #[test]
    fn a_path_regex_beats_a_prefix_and_the_longest_prefix_wins() {
        let routes = vec![("/", 0), ("/a/b", 1), ("/a", 2), ("~[.]png$", 3), ("~^/a/", 4), ("/a/bc/d", 5), ("/b/", 6)];
        let table = RouteTable::build(vec![spec(&["h"], routes)]).unwrap();
        for (path, expected) in [
            ("/", 0),
            ("/zz", 0),
            ("/a", 2),
            ("/abc", 2),
            ("/a/b/c.png", 3),
            ("/a/b", 4),
            ("/a/", 4),
            ("/b", 0),
            ("/b/x", 6),
            ("/é", 0),
        ] {
            assert_eq!(table.find("h", path), Match::Route(&expected), "{path}");
            assert_eq!(table.all_in(0, path).next(), Some(&expected), "{path}");
        }
        assert_eq!(table.all_in(0, "/a/b/c.png").collect::<Vec<_>>(), [&3, &4, &1, &2, &0]);
    }

    #[test]
    fn every_ambiguity_is_reported() {
        let problems = RouteTable::build(vec![
            site(&["a.b", "*.c", "d.*", "*"], "one"),
            spec(&["A.B.", "e.f"], vec![("/x", "two"), ("~y", "two"), ("/x", "three"), ("~y", "four")]),
            site(&["*.c", "d.*", "*"], "three"),
        ])
        .unwrap_err();
        let host =
            |pattern: &str, second| BuildProblem::DuplicateHost { pattern: pattern.to_owned(), first: 0, second };
        let path = |pattern: &str, first, second| BuildProblem::DuplicatePath {
            site: 1,
            pattern: pattern.to_owned(),
            first,
            second,
        };
        let expected =
            [host("a.b", 1), path("/x", 0, 2), path("~y", 1, 3), host("*.c", 2), host("d.*", 2), host("*", 2)];
        assert_eq!(problems, expected);
        assert!(problems[0].to_string().contains("leave it in one of them"));
    }

    #[test]
    fn ten_thousand_hosts_are_each_found() {
        let names: Vec<String> = (0..10_000).map(|n| format!("host-{n}.example.com")).collect();
        let wild: Vec<String> = (0..1_000).map(|n| format!("*.zone-{n}.example.net")).collect();
        let mut sites: Vec<_> = names.iter().map(|name| spec(&[name], vec![("/", name.clone())])).collect();
        sites.extend(wild.iter().map(|name| spec(&[name], vec![("/", name.clone())])));
        let table = RouteTable::build(sites).unwrap();
        for name in &names {
            assert_eq!(table.find(name, "/"), Match::Route(name));
        }
        for name in &wild {
            assert_eq!(table.find(&name.replace('*', "a.b"), "/"), Match::Route(name));
        }
        assert_eq!(table.find("host-10000.example.com", "/"), Match::UnknownHost);
    }

    /// The precedence, spelled out over the whole list of patterns.
    fn naive<'a>(sites: &'a [SiteSpec<usize>], host: &str, path: &str) -> Match<'a, usize> {
        let mut best: Option<((u8, usize, usize), usize)> = None;
        let mut order = 0;
        for (site, spec) in sites.iter().enumerate() {
            for pattern in &spec.hosts {
                order += 1;
                let rank = match pattern {
                    HostPattern::Exact(name) if name.as_str() == host => (5, 0, 0),
                    HostPattern::LeadingWildcard(text) if host.len() > text.len() && host.ends_with(&**text) => {
                        (4, text.len(), 0)
                    }
                    HostPattern::TrailingWildcard(text) if host.len() > text.len() && host.starts_with(&**text) => {
                        (3, text.len(), 0)
                    }
                    HostPattern::Regex(regex) if regex.is_match(host) => (2, 0, usize::MAX - order),
                    HostPattern::Any => (1, 0, 0),
                    _ => continue,
                };
                if best.is_none_or(|(so_far, _)| rank > so_far) {
                    best = Some((rank, site));
                }
            }
        }
        let Some((_, site)) = best else { return Match::UnknownHost };
        let routes = &sites[site].routes;
        let regex = routes.iter().find(|(p, _)| matches!(p, PathPattern::Regex(regex) if regex.is_match(path)));
        let prefix = routes
            .iter()
            .filter_map(|(pattern, route)| match pattern {
                PathPattern::Prefix(text) if path.starts_with(&**text) => Some((text.len(), route)),
                _ => None,
            })
            .max_by_key(|(len, _)| *len);
        regex.map(|(_, route)| route).or(prefix.map(|(_, route)| route)).map_or(Match::NoRoute, Match::Route)
    }

    fn a_host() -> impl Strategy<Value = String> {
        "[ab]{1,2}([.][ab]{1,2}){0,3}"
    }

    fn a_host_pattern() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => a_host(),
            3 => a_host().prop_map(|host| format!("*.{host}")),
            3 => a_host().prop_map(|host| format!("{host}.*")),
            2 => a_host().prop_map(|host| format!("~^{host}")),
            1 => Just("*".to_owned()),
        ]
    }

    fn a_path_pattern() -> impl Strategy<Value = String> {
        prop_oneof![4 => "/[ab/]{0,4}", 1 => "[ab/]{1,3}".prop_map(|end| format!("~{end}$"))]
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_naive_search(
            sites in prop::collection::vec(
                (prop::collection::vec(a_host_pattern(), 1..5), prop::collection::vec(a_path_pattern(), 0..7)),
                0..6,
            ),
            requests in prop::collection::vec((a_host(), "/[abé/]{0,6}"), 1..40),
        ) {
            let mut route = 0;
            let mut hosts_seen = std::collections::HashSet::new();
            let specs: Vec<SiteSpec<usize>> = sites.iter().map(|(hosts, paths)| {
                let mut paths_seen = std::collections::HashSet::new();
                SiteSpec {
                    hosts: hosts.iter().filter(|h| hosts_seen.insert(h.as_str())).map(|h| h.parse().unwrap()).collect(),
                    routes: paths.iter().filter(|p| paths_seen.insert(p.as_str())).map(|p| {
                        route += 1;
                        (p.parse().unwrap(), route)
                    }).collect(),
                }
            }).collect();
            let table = RouteTable::build(specs.clone()).unwrap();
            for (host, path) in &requests {
                prop_assert_eq!(table.find(host, path), naive(&specs, host, path), "{} {}", host, path);
            }
        }
    }
}
