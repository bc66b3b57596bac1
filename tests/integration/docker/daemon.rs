//! Engines that are restarted, that are reached over TLS, and containers that say nonsense.

use super::engine::Engine;
use super::nested::Nested;
use super::{Load, PATIENCE, wait_for, who};
use crate::support::tools::wait_until;
use std::path::Path;
use std::process::Command;

/// Variables that no host, port or path can be made of.
const GARBAGE: [&str; 6] = [
    "VIRTUAL_HOST=bad.test,\u{1},-.-,a..b,~[,ex ample.test",
    "VIRTUAL_PORT=99999999999999999999",
    "VIRTUAL_DEST=nowhere",
    "HTTPS_METHOD=yes",
    "SELVEDGE_CACHE=a long while",
    "SELVEDGE_NONSENSE=1",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_stay_while_the_engine_is_restarted_and_containers_say_nonsense() {
    let engine = Engine::new();
    let nested = Nested::start(&engine, "engine", &["--live-restore"], None);
    nested.run("one", &["VIRTUAL_HOST=live.test"], &[]);
    nested.run("two", &["VIRTUAL_HOST=live.test"], &[]);
    let edge = nested.edge(&[]);
    wait_for(edge, "live.test", &["one", "two"]).await;
    let load = Load::start(edge, "live.test", "/", 3);
    for (how, name) in [("KILL", "three"), ("TERM", "four")] {
        nested.sh(&format!("touch /tmp/hold; kill -{how} $(cat /var/run/docker.pid)"));
        wait_until("the loss is noticed", PATIENCE, || nested.metric("selvedge_discovery_up") == 0.0);
        nested.sh("rm -f /var/run/docker.sock");
        load.wait_for(100);
        let text = nested.routes();
        assert!(text.contains("cannot be read") && text.contains("as last seen"), "{text}");
        assert!(nested.sh("cat /tmp/edge.log").contains("containers are routed as last seen"));
        wait_for(edge, "live.test", &["one", "two"]).await;
        nested.sh("rm /tmp/hold");
        nested.wait();
        wait_until("the engine is seen again", PATIENCE, || nested.metric("selvedge_discovery_up") == 1.0);
        nested.run(name, &[&format!("VIRTUAL_HOST={name}.test")], &[]);
        wait_for(edge, &format!("{name}.test"), &[name]).await;
    }
    nested.run("odd", &GARBAGE, &[]);
    nested.run("odd-path", &["VIRTUAL_HOST=path.test", "VIRTUAL_PATH=~(", "VIRTUAL_PROTO=\u{fffd}"], &[]);
    nested.run("odder", &["VIRTUAL_HOST_MULTIPORTS={{{{[", "VIRTUAL_HOST=odder.test"], &[]);
    nested.run("later", &["VIRTUAL_HOST=later.test"], &[]);
    wait_for(edge, "later.test", &["later"]).await;
    let problems = nested.metric("selvedge_discovery_notes{level=\"problem\"}");
    let text = nested.routes();
    let log = nested.sh("cat /tmp/edge.log");
    for part in [
        "VIRTUAL_HOST_MULTIPORTS cannot be used",
        "VIRTUAL_PORT is `99999999999999999999`, not a port",
        "`SELVEDGE_NONSENSE` is no setting",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
        assert!(log.contains(part), "{part}\n{log}");
    }
    assert!(problems >= 2.0, "{problems}");
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_reached_over_tls_by_those_whose_certificate_it_knows() {
    let engine = Engine::new();
    let files = tempfile::tempdir().unwrap();
    authority(files.path());
    let file = |name: &str| format!("/files/{name}.pem");
    let (ca, cert, key) = (file("ca"), file("server"), file("server-key"));
    let arguments =
        ["-H", "tcp://0.0.0.0:2376", "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    let nested = Nested::start(&engine, "engine", &arguments, Some(files.path()));
    nested.run("one", &["VIRTUAL_HOST=tls.test"], &[]);
    // Docker's own client is let in by the same files, and by no others.
    let client = |folder: &str| {
        nested.sh(&format!(
            "DOCKER_HOST=tcp://127.0.0.1:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=/files/{folder} docker ps -q | wc -l"
        ))
    };
    assert_eq!((client("known").as_str(), client("unknown").as_str()), ("1", "0"));
    let host = "DOCKER_HOST=tcp://127.0.0.1:2376";
    let edge = nested.edge(&[host, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=/files/known"]);
    wait_for(edge, "tls.test", &["one"]).await;
    nested.run("two", &["VIRTUAL_HOST=tls.test"], &[]);
    wait_for(edge, "tls.test", &["one", "two"]).await;
    // Services are asked for on a connection of their own.
    nested.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
    nested.sh("kill $(cat /var/run/docker.pid)");
    nested.wait();
    let create = ["service", "create", "-d", "--no-resolve-image", "--label", "selvedge.virtual-host=swarm.test"];
    nested.docker(&[&create[..], &["--name", "web", super::nested::APP]].concat());
    wait_until("the service is listed", PATIENCE, || nested.routes().contains("service web"));

    nested.sh("kill $(pidof selvedge); while pidof selvedge; do sleep 0.1; done");
    let refused = nested.edge(&[host, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=/files/unknown"]);
    assert_eq!(who(refused, "tls.test", "/").await, "503");
    assert_eq!(nested.metric("selvedge_discovery_up"), 0.0);
    assert!(nested.routes().contains("the engine at https://127.0.0.1:2376 cannot be read"), "{}", nested.routes());
}

/// An authority; a server and a client by it; and a client by another authority, with folders as Docker's client has them.
fn authority(dir: &Path) {
    let script = r#"
set -e
sign() { # name, purpose, authority
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -keyout $1-key.pem -out $1.csr
  printf "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=$2" >$1.ext
  openssl x509 -req -days 30 -in $1.csr -CA $3.pem -CAkey $3-key.pem -CAcreateserial -extfile $1.ext -out $1.pem
}
for ca in ca other; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=$ca" \
    -addext basicConstraints=critical,CA:TRUE -keyout $ca-key.pem -out $ca.pem
done
sign server serverAuth ca
sign known clientAuth ca
sign unknown clientAuth other
for client in known unknown; do
  mkdir $client
  cp ca.pem $client/ca.pem
  mv $client.pem $client/cert.pem
  mv $client-key.pem $client/key.pem
done
chmod -R a+rX ."#;
    let out = Command::new("bash").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
