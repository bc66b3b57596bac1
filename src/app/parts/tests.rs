use super::*;
use crate::app::adapt::{Adaptation, Surroundings};
use crate::app::discovery::effective;
use crate::config::DiscoveryFolders;
use crate::discovery::nginx_proxy::{Files, ProxySettings};
use crate::discovery::{Container, Network, Place, Snapshot};
use crate::route::Match;
use std::path::Path;

/// A configuration with containers, built again and again as a process does it.
struct Node {
    adaptation: Adaptation,
    files: Files,
    containers: Vec<Container>,
    text: String,
    parts: Option<Parts>,
    metrics: Metrics,
}

impl Node {
    fn new(text: &str, containers: Vec<Container>) -> Self {
        let (adaptation, files, metrics) = (Adaptation::default(), Files::default(), Metrics::new());
        Self { adaptation, files, containers, text: text.to_owned(), parts: None, metrics }
    }

    fn config(&mut self) -> Config {
        let text = format!("[listen]\nhttp = [\"127.0.0.1:0\"]\n{}", self.text);
        let config = Config::parse(&text, Path::new("edge.toml"), &|_| None).unwrap();
        let taken = config.sites.iter().flat_map(|site| &site.hosts).map(ToString::to_string).collect();
        let (proxy, folders) = (ProxySettings::default(), DiscoveryFolders::default());
        let around = Surroundings { proxy: &proxy, folders: &folders, http: &[80], https: &[443], taken: &taken };
        let snapshot = Snapshot { containers: self.containers.clone(), place: Place::Host, ..Snapshot::default() };
        effective(&config, &mut self.adaptation.adapt(&snapshot, &self.files, &around))
    }

    /// The routes by what there is now.
    fn plane(&mut self) -> Plane {
        let config = self.config();
        self.plane_of(&config)
    }

    fn plane_of(&mut self, config: &Config) -> Plane {
        let parts = Parts::build(config, self.parts.as_ref(), &Clock::system(), &self.metrics).unwrap();
        let plane = parts.plane(config, &self.metrics).unwrap();
        self.parts = Some(parts);
        plane
    }

    fn origin(&self, name: &str) -> &Arc<Origin> {
        &self.parts.as_ref().unwrap().origins[name]
    }
}

fn container(host: &str, more: &[(&str, &str)]) -> Container {
    let env = [("VIRTUAL_HOST", host), ("VIRTUAL_PORT", "80")].into_iter().chain(more.iter().copied());
    Container {
        id: host.to_owned(),
        name: host.to_owned(),
        env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        networks: vec![Network { ipv4: Some([10, 0, 0, 1].into()), ..Network::default() }],
        ..Container::default()
    }
}

fn rule(plane: &Plane, host: &str) -> Arc<RouteRule> {
    match plane.find(host, "/") {
        Match::Route(rule) => Arc::clone(rule),
        _ => panic!("{host} has no route"),
    }
}

const HOSTS: [&str; 3] = ["a.test", "b.test", "c.test"];

/// The hosts whose rules are others after this change.
fn changed(node: &mut Node, change: impl FnOnce(&mut Node)) -> Vec<&'static str> {
    let before = node.plane();
    change(node);
    let after = node.plane();
    HOSTS.into_iter().filter(|host| !Arc::ptr_eq(&rule(&before, host), &rule(&after, host))).collect()
}

fn three() -> Node {
    Node::new("[discovery.docker]\n", HOSTS.map(|host| container(host, &[])).into())
}

#[tokio::test]
async fn a_container_that_changes_changes_its_own_site_alone() {
    let mut node = three();
    assert!(changed(&mut node, |_| {}).is_empty());
    assert!(changed(&mut node, |node| node.containers.reverse()).is_empty());
    let moved = |node: &mut Node| node.containers[1].networks[0].ipv4 = Some([10, 0, 0, 2].into());
    assert_eq!(changed(&mut node, moved), ["b.test"]);
    let plane = node.plane();
    let origin::Settings::Http(http) = rule(&plane, "b.test").origin.settings().clone() else { panic!("a bucket") };
    assert_eq!(&*http.servers[0].address.host, "10.0.0.2");
    let cached = |node: &mut Node| node.containers[1] = container("b.test", &[("SELVEDGE_CACHE", "on")]);
    assert_eq!(changed(&mut node, cached), ["b.test"]);
    assert!(rule(&node.plane(), "b.test").cache && !rule(&node.plane(), "a.test").cache);
    let another = |node: &mut Node| node.containers.push(container("d.test", &[]));
    assert!(changed(&mut node, another).is_empty());
    assert!(changed(&mut node, |node| drop(node.containers.pop())).is_empty());
    assert!(matches!(node.plane().find("d.test", "/"), Match::UnknownHost));
}

#[tokio::test]
async fn what_rules_depend_on_beside_their_site_makes_them_anew() {
    let mut node = three();
    let timed = |node: &mut Node| node.text = "[debug]\nserver_timing = true\n[discovery.docker]\n".to_owned();
    assert_eq!(changed(&mut node, timed), HOSTS);
    assert!(HOSTS.iter().all(|host| rule(&node.plane(), host).server_timing));
    let certified = |node: &mut Node| {
        node.files.certificates = ["b.test.crt", "b.test.key"].map(str::to_owned).into();
    };
    assert!(changed(&mut node, certified).contains(&"b.test"));
    assert_eq!(rule(&node.plane(), "b.test").site_settings.tls.certificate.as_deref(), Some("b.test"));
    let denied = |node: &mut Node| drop(node.files.vhost.insert("c.test".to_owned(), "deny all;".to_owned()));
    assert!(changed(&mut node, denied).contains(&"c.test"));
    assert!(!rule(&node.plane(), "c.test").access.is_open() && rule(&node.plane(), "a.test").access.is_open());
    node.text += "[origins.o.http]\nservers = [\"127.0.0.1:9\"]\n[[sites]]\nhosts = [\"a.test\"]\n\
                  [[sites.routes]]\npath = \"/\"\norigin = \"o\"\n";
    assert_eq!(rule(&node.plane(), "a.test").origin.name().as_ref(), "o", "the file's site answers");
}

/// The very same site, and an origin that it names behind a route, a group or a mirror is another.
#[tokio::test]
async fn no_rule_leads_to_an_origin_that_was_replaced() {
    let origins = ["o", "p", "q"].map(|name| format!("[origins.{name}.http]\nservers = [\"127.0.0.1:9\"]\n"));
    let site = "[[sites]]\nhosts = [\"a.test\"]\n[[sites.rules]]\nname = \"r\"\nmirror = { origin = \"q\" }\n\
                forward = { groups = [{ origin = \"p\" }] }\n[[sites.routes]]\npath = \"/\"\norigin = \"o\"\n";
    let mut node = Node::new(&format!("{}{site}", origins.concat()), Vec::new());
    let mut config = node.config();
    let mut last = rule(&node.plane_of(&config), "a.test");
    assert!(Arc::ptr_eq(&last, &rule(&node.plane_of(&config), "a.test")));
    for name in ["o", "p", "q"] {
        let mut settings = origin::Settings::clone(&config.origins[name]);
        let origin::Settings::Http(http) = &mut settings else { panic!("a bucket") };
        http.max_fails += 1;
        config.origins.insert(name.into(), Arc::new(settings));
        let now = rule(&node.plane_of(&config), "a.test");
        assert!(!Arc::ptr_eq(&last, &now), "{name}");
        assert!(Arc::ptr_eq(&now.origin, node.origin("o")));
        assert!(Arc::ptr_eq(&now.variants[0][0].origin, node.origin("p")));
        last = now;
    }
}
