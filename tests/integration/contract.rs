//! The configuration files that outside tools drive selvedge with: they work as they are, in every version.

use crate::support::edge::BINARY;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_published_configurations_are_valid() {
    for file in ["proxy.toml", "bucket.toml", "selvedge.toml"] {
        let out = Command::new(BINARY)
            .args(["check", "--config", &format!("{ROOT}/config/{file}")])
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .output()
            .unwrap();
        assert!(out.status.success(), "{file}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

/// The file names fixed ports, so the whole scene plays in a network namespace of its own, which takes
/// no root where users may have namespaces.
#[test]
fn proxy_toml_serves_as_outside_tools_expect() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        r#"set -eu
        cd {dir}; ip link set lo up
        cp {ROOT}/config/proxy.toml .
        {BINARY} cert self-signed --out certs www.example.com
        test -f certs/www.example.com.crt; test -f certs/www.example.com.key
        mkdir www; echo -n hello > www/x.txt
        python3 -m http.server 19000 --bind 127.0.0.1 --directory www >/dev/null 2>&1 & origin=$!
        {BINARY} serve --config proxy.toml 2> log & edge=$!
        trap 'kill $origin $edge 2>/dev/null || true; cat log >&2' EXIT
        for try in $(seq 100); do curl -sf -o /dev/null http://127.0.0.1:18090/healthz && break; sleep 0.1; done
        for try in $(seq 100); do curl -sf -o /dev/null http://127.0.0.1:19000/ && break; sleep 0.1; done
        test "$(curl -sf http://127.0.0.1:18080/x.txt)" = hello
        test "$(curl -sf --cacert certs/www.example.com.crt --resolve www.example.com:18443:127.0.0.1 https://www.example.com:18443/x.txt)" = hello
        curl -sf http://127.0.0.1:18090/metrics | grep -q selvedge_requests_total
        kill -HUP $edge
        kill -TERM $edge; status=0; wait $edge || status=$?
        test $status = 0
        sed 's/servers/sevrers/' proxy.toml > bad.toml
        status=0; {BINARY} serve --config bad.toml 2> bad || status=$?
        test $status = 64; grep -q 'bad.toml:.*sevrers' bad
        trap - EXIT; kill $origin
        "#,
        dir = dir.path().display()
    );
    let out = Command::new("unshare").args(["--map-root-user", "--net", "bash", "-c", &script]).output().unwrap();
    assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}
