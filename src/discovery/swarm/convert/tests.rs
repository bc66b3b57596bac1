use super::super::model;
use super::*;
use crate::discovery::nginx_proxy::{Facts, Translation, translate};
use crate::discovery::{Place, Snapshot};
use serde_json::{Value, json};
use std::borrow::Cow;

const OWN: &str = "node-a";

/// A service as `GET /services` tells it.
fn service(name: &str, labels: Value, env: &[&str]) -> Value {
    json!({
        "ID": format!("id-{name}"), "Version": {"Index": 19}, "CreatedAt": "2026-01-02T03:04:05.12Z",
        "Spec": {
            "Name": name, "Labels": labels, "Mode": {"Replicated": {"Replicas": 2}}, "EndpointSpec": {"Mode": "vip"},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "app:1@sha256:0123", "Labels": {"com.docker.stack.namespace": "s"}, "Env": env},
                "Networks": [{"Target": "id-front"}], "ForceUpdate": 0, "Runtime": "container"
            }
        },
        "Endpoint": {
            "Spec": {"Mode": "vip"}, "Ports": null,
            "VirtualIPs": [{"NetworkID": "id-ingress", "Addr": "10.255.0.3/16"}, {"NetworkID": "id-front", "Addr": "10.0.1.2/24"}]
        }
    })
}

/// One of its tasks as `GET /tasks` tells it.
fn task(service: &str, slot: u64, node: &str, state: &str, env: &[&str]) -> Value {
    let attached = |id: &str, name: &str, address: String| {
        json!({
            "Network": {"ID": id, "Spec": {"Name": name, "DriverConfiguration": {"Name": "overlay"}, "Scope": "swarm"},
                "DriverState": {"Name": "overlay", "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"}}},
            "Addresses": [address]
        })
    };
    json!({
        "ID": format!("t-{service}-{slot}-{node}"), "ServiceID": format!("id-{service}"), "Slot": slot, "NodeID": node,
        "Spec": {"ContainerSpec": {"Image": "app:1@sha256:0123", "Env": env}, "ForceUpdate": 0},
        "Status": {"Timestamp": "2026-01-02T03:04:06Z", "State": state, "Message": "started",
            "ContainerStatus": {"ContainerID": format!("c-{service}-{slot}"), "PID": 1, "ExitCode": 0}, "PortStatus": {}},
        "DesiredState": "running",
        "NetworksAttachments": [
            attached("id-ingress", "ingress", format!("10.255.0.{}/16", slot + 10)),
            attached("id-front", "front", format!("10.0.1.{}/24", slot + 10)),
        ]
    })
}

fn seen(services: Vec<Value>, tasks: Vec<Value>) -> Seen {
    let nodes = json!([
        {"ID": "node-a", "Spec": {"Role": "manager"}, "Description": {"Hostname": "alpha"}, "Status": {"State": "ready"}},
        {"ID": "node-b", "Spec": {"Role": "worker"}, "Description": {"Hostname": "beta"}, "Status": {"State": "ready"}}
    ]);
    let image = json!({"Id": "sha256:1", "Config": {"Env": ["PATH=/bin", "HSTS=off"], "ExposedPorts": {"8080/tcp": {}, "53/udp": {}}, "Labels": null}});
    let (services, odd) = model::list(services);
    assert_eq!(odd, 0);
    let (tasks, odd) = model::list(tasks);
    assert_eq!(odd, 0);
    let nodes: Vec<model::Node> = serde_json::from_value(nodes).unwrap();
    Seen {
        own_node: OWN.to_owned(),
        labels: Vec::new(),
        services,
        tasks,
        nodes: nodes.into_iter().map(|node| (node.id, node.description.hostname)).collect(),
        images: [("app:1@sha256:0123".to_owned(), serde_json::from_value(image).unwrap())].into(),
    }
}

fn front(address: [u8; 4]) -> Network {
    Network {
        id: "id-front".to_owned(),
        name: "front".to_owned(),
        ipv4: Some(address.into()),
        overlay: true,
        ..Network::default()
    }
}

/// What an edge in the network `front` makes of it.
fn routed(seen: &Seen, local: &[Container]) -> Translation {
    let (containers, remarks) = containers(seen, |id| local.iter().find(|container| container.id == id));
    let snapshot = Snapshot { containers, place: Place::Container(vec![front([10, 0, 1, 99])]), remarks };
    translate(&Facts { snapshot: Cow::Owned(snapshot), ..Facts::default() })
}

fn servers(translation: &Translation, host: &str) -> Vec<String> {
    let site = translation.sites.iter().find(|site| &*site.host == host);
    let routes = site.into_iter().flat_map(|site| &site.paths);
    routes.flat_map(|route| &route.servers).map(|s| format!("{}={}:{}", s.container, s.address, s.port)).collect()
}

#[test]
fn replicas_are_the_servers_of_what_their_service_asks_for() {
    let labels = json!({"selvedge.VIRTUAL_HOST": "a.b", "unrelated": "x"});
    let env = ["HTTPS_METHOD=noredirect", "DATABASE_PASSWORD=secret"];
    let tasks = vec![
        task("web", 1, "node-b", "running", &env),
        task("web", 2, "node-b", "running", &env),
        task("web", 3, "node-b", "preparing", &env),
        task("web", 4, "node-b", "failed", &env),
        // Plain containers in attachable networks are tasks without a service.
        json!({"ID": "x", "Spec": {"NetworkAttachmentSpec": {"ContainerID": "c"}}, "NodeID": "node-a", "Status": {"State": "running"}, "DesiredState": "running"}),
    ];
    let seen = seen(vec![service("web", labels, &env)], tasks);
    let translation = routed(&seen, &[]);
    assert_eq!(servers(&translation, "a.b"), ["web.1=10.0.1.11:8080", "web.2=10.0.1.12:8080"]);
    let site = &translation.sites[0];
    assert_eq!((&*site.source, site.https.as_str()), ("service web (2 tasks)", "noredirect"));
    assert_eq!(site.paths[0].servers[0].why, "task on beta, network front, port 8080: the only exposed port");
    let (all, _) = containers(&seen, |_| None);
    assert!(!format!("{all:?}").contains("secret") && !format!("{all:?}").contains("unrelated"));
    assert!(!format!("{:?}{:?}", seen.services, seen.tasks).contains("secret"), "not even in memory");
}

#[test]
fn a_service_without_a_running_task_keeps_its_hosts_and_has_nobody_to_ask() {
    let seen = seen(vec![service("web", json!({"selvedge.virtual-host": "a.b"}), &[])], vec![]);
    let translation = routed(&seen, &[]);
    assert_eq!(translation.sites.len(), 1);
    assert_eq!(servers(&translation, "a.b"), Vec::<String>::new());
    assert_eq!(&*translation.sites[0].source, "service web");
    assert!(translation.notes.iter().any(|note| note.text == "no task of this service runs"));
}

#[test]
fn a_task_that_starts_gets_requests_only_while_no_other_runs() {
    let web = || service("web", json!({"selvedge.virtual-host": "a.b"}), &[]);
    let starting = || task("web", 2, "node-b", "starting", &[]);
    let alone = routed(&seen(vec![web()], vec![starting()]), &[]);
    assert_eq!(servers(&alone, "a.b"), ["web.2=10.0.1.12:8080"]);
    let both = routed(&seen(vec![web()], vec![starting(), task("web", 1, "node-b", "running", &[])]), &[]);
    assert_eq!(servers(&both, "a.b"), ["web.1=10.0.1.11:8080"]);
    assert_eq!(both.sites[0].paths[0].left_out[0].1, "starting: it has not passed its health check yet");
}

#[test]
fn a_task_that_is_to_end_is_left_out_at_once() {
    let mut ending = task("web", 1, "node-b", "running", &[]);
    ending["DesiredState"] = "shutdown".into();
    let tasks = vec![ending, task("web", 2, "node-b", "running", &[])];
    let seen = seen(vec![service("web", json!({"selvedge.virtual-host": "a.b"}), &[])], tasks);
    assert_eq!(servers(&routed(&seen, &[]), "a.b"), ["web.2=10.0.1.12:8080"]);
}

#[test]
fn of_tasks_on_this_machine_the_engine_has_the_last_word() {
    let tasks = (1..=3).map(|slot| task("web", slot, OWN, "running", &[])).collect();
    let labels = json!({"selvedge.virtual-host": "a.b", "selvedge.cache": "on"});
    let seen = seen(vec![service("web", labels, &[])], tasks);
    let local = |slot: u8, state: State, health: Health| Container {
        id: format!("c-web-{slot}"),
        name: format!("web.{slot}.xyz"),
        labels: [("selvedge.cache".to_owned(), "off".to_owned())].into(),
        exposed: [9000].into(),
        networks: vec![front([10, 0, 1, 10 + slot])],
        state,
        health,
        ..Container::default()
    };
    // The third has died: the engine does not list it.
    let known = [local(1, State::Running, Health::Healthy), local(2, State::Running, Health::Unhealthy)];
    let translation = routed(&seen, &known);
    assert_eq!(servers(&translation, "a.b"), ["web.1=10.0.1.11:9000"]);
    let site = &translation.sites[0];
    assert_eq!(site.paths[0].left_out, [("web.2".into(), "unhealthy")]);
    assert_eq!(format!("{:?}", site.cache), "On", "the service's label wins over its containers'");
    let known = [local(1, State::Stopping, Health::Healthy), local(2, State::Running, Health::Healthy)];
    assert_eq!(servers(&routed(&seen, &known), "a.b"), ["web.2=10.0.1.12:9000"]);
}

#[test]
fn a_service_can_ask_for_its_virtual_address() {
    let labels = |how: &str| json!({"selvedge.virtual-host": "a.b", "selvedge.swarm": how});
    let tasks = || vec![task("web", 1, "node-b", "running", &[]), task("web", 2, "node-b", "running", &[])];
    let translation = routed(&seen(vec![service("web", labels("vip"), &[])], tasks()), &[]);
    assert_eq!(servers(&translation, "a.b"), ["web=10.0.1.2:8080"]);
    let why = &translation.sites[0].paths[0].servers[0].why;
    assert_eq!(why, "the service's virtual address, network front, port 8080: the only exposed port");
    let mut bare = service("web", labels("vip"), &[]);
    bare["Endpoint"] = json!({"Spec": {"Mode": "dnsrr"}});
    let translation = routed(&seen(vec![bare], tasks()), &[]);
    assert_eq!(servers(&translation, "a.b").len(), 2);
    assert!(translation.notes.iter().any(|note| note.text.contains("asks for its VIP and has none")));
    let translation = routed(&seen(vec![service("web", labels("dns"), &[])], tasks()), &[]);
    assert_eq!(servers(&translation, "a.b").len(), 2);
    assert!(translation.notes.iter().any(|note| note.text.contains("SELVEDGE_SWARM is `dns`; write tasks")));
}

#[test]
fn ports_that_a_service_publishes_are_exposed() {
    let mut web = service("web", json!({"selvedge.virtual-host": "a.b"}), &[]);
    web["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = "elsewhere:1".into();
    web["Endpoint"]["Ports"] = json!([
        {"Protocol": "tcp", "TargetPort": 3000, "PublishedPort": 80, "PublishMode": "ingress"},
        {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "host"}
    ]);
    let mut running = task("web", 1, "node-b", "running", &[]);
    running["Spec"]["ContainerSpec"]["Image"] = "elsewhere:1".into();
    assert_eq!(servers(&routed(&seen(vec![web], vec![running]), &[]), "a.b"), ["web.1=10.0.1.11:3000"]);
}

#[test]
fn variables_are_filled_in_as_an_engine_does_it() {
    let env = [
        "VIRTUAL_HOST={{.Service.Name}}.{{ .Node.Hostname }}.test",
        "CERT_NAME={{.Task.Name}}-{{.Task.Slot}}",
        "HSTS={{.Unknown}} {{",
    ];
    let seen = seen(vec![service("web", json!({}), &env)], vec![task("web", 7, "node-b", "running", &env)]);
    let (all, _) = containers(&seen, |_| None);
    let env = &all[0].env;
    assert_eq!(env["VIRTUAL_HOST"], "web.beta.test");
    assert_eq!(env["CERT_NAME"], "web.7.t-web-7-node-b-7");
    assert_eq!(env["HSTS"], "{{.Unknown}} {{", "its own variable wins over the image's, and what is not known stays");
}

#[test]
fn labels_filter_services() {
    let passes = |wanted: &[&str]| {
        let seen = Seen { labels: wanted.iter().map(|l| (*l).to_owned()).collect(), ..Seen::default() };
        let service: Service = serde_json::from_value(service("web", json!({"stage": "live"}), &[])).unwrap();
        seen.passes(&service)
    };
    assert!(passes(&[]) && passes(&["stage"]) && passes(&["stage=live", "com.docker.stack.namespace=s"]));
    assert!(!passes(&["stage=test"]) && !passes(&["stage", "other"]));
}

#[test]
fn an_edge_on_the_host_is_told_that_it_reaches_no_overlay_network() {
    let seen = seen(
        vec![service("web", json!({"selvedge.virtual-host": "a.b"}), &[])],
        vec![task("web", 1, "node-b", "running", &[])],
    );
    let (containers, _) = containers(&seen, |_| None);
    let snapshot = Snapshot { containers, ..Snapshot::default() };
    let translation = translate(&Facts { snapshot: Cow::Owned(snapshot), ..Facts::default() });
    assert_eq!(servers(&translation, "a.b"), Vec::<String>::new());
    assert!(translation.notes.iter().any(|note| note.text.contains("attach the edge's container to one")));
}

#[test]
fn what_is_odd_hides_nothing_else() {
    let odd = vec![json!({"ID": 7}), service("web", json!(null), &[]), json!("text")];
    let (services, left_out) = model::list::<Service>(odd);
    assert_eq!((services.len(), left_out), (1, 2));
    let bare = json!({"ID": "x", "Spec": {"TaskTemplate": {"ContainerSpec": null}}, "Endpoint": null});
    assert_eq!(model::list::<Service>(vec![bare]).1, 0);
}
