//! Client certificates, certificates by name, and versions of TLS, by site.

use crate::support::Edge;
use crate::support::edge::config_tls;
use crate::support::faulty::Origin;
use crate::support::tools::certificate;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

fn openssl(dir: &Path, command: &str) {
    let out = Command::new("openssl").args(command.split(' ')).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "openssl {command}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An authority, a good and a revoked client of it, and a client of another authority.
fn authority(dir: &Path) {
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for ca in ["ca", "other"] {
        openssl(dir, &format!("req -x509 {curve} -keyout {ca}.key -out {ca}.crt -days 2 -subj /CN={ca}"));
    }
    std::fs::write(
        dir.join("ca.conf"),
        "[ca]\ndefault_ca = d\n[d]\ndatabase = index.txt\nnew_certs_dir = .\nserial = serial\ndefault_md = sha256\n\
         default_days = 2\ndefault_crl_days = 2\npolicy = p\ncrl_extensions = x\ncrlnumber = number\n[p]\nO = optional\nCN = supplied\n\
         [x]\nauthorityKeyIdentifier = keyid\n[v3]\nextendedKeyUsage = clientAuth\n",
    )
    .unwrap();
    for (file, text) in [("index.txt", ""), ("serial", "01\n"), ("number", "01\n")] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    for (ca, client) in [("ca", "anna"), ("ca", "gone"), ("other", "eve")] {
        openssl(dir, &format!("req -new {curve} -keyout {client}.key -out {client}.csr -subj /O=Ex,ample/CN={client}"));
        let sign = format!("-batch -cert {ca}.crt -keyfile {ca}.key -extensions v3 -in {client}.csr -out {client}.crt");
        openssl(dir, &format!("ca -config ca.conf {sign}"));
    }
    openssl(dir, "ca -config ca.conf -cert ca.crt -keyfile ca.key -revoke gone.crt");
    openssl(dir, "ca -config ca.conf -cert ca.crt -keyfile ca.key -gencrl -out ca.crl.pem");
}

fn visit(edge: &Edge, dir: &Path, host: &str, client: Option<&str>, more: &[&str]) -> (u16, String) {
    let port = edge.https.unwrap().port();
    let mut command = Command::new("curl");
    command.args(["-sk", "--max-time", "20", "-w", "\n%{http_code}", "-H", "X-Client-Subject: CN=root"]);
    command.args(["--resolve", &format!("{host}:{port}:127.0.0.1")]).args(more);
    if let Some(client) = client {
        command
            .arg("--cert")
            .arg(dir.join(format!("{client}.crt")))
            .arg("--key")
            .arg(dir.join(format!("{client}.key")));
    }
    let out = command.arg(format!("https://{host}:{port}/")).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    let subject =
        body.lines().find_map(|line| line.to_lowercase().starts_with("x-client-subject:").then(|| line[17..].trim()));
    (status.parse().unwrap_or(0), subject.unwrap_or_default().to_owned())
}

async fn echo() -> Origin {
    Origin::start(|mut stream, head| async move {
        let answer =
            format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
        Some(stream)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_gets_to_see_good_client_certificates_only() {
    let origin = echo().await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    authority(dir.path());
    for name in ["strict.example", "lax.example", "plain.example", "open.example"] {
        certificate(&dir.path().join("certs"), name, &[name]);
    }
    let wants = |optional: bool| {
        format!(
            "client_certificates = {{ authorities = \"ca.crt\", revoked = \"ca.crl.pem\", optional = {optional}, subject_field = \"X-Client-Subject\" }}"
        )
    };
    let mut text = format!("[origins.app.http]\nservers = [\"{}\"]\n", origin.address);
    let open = wants(false).replace(" }", ", plain_http = true }");
    for (host, keys) in [("strict", wants(false)), ("lax", wants(true)), ("plain", String::new()), ("open", open)] {
        text.push_str(&format!(
            "[[sites]]\nhosts = [\"{host}.example\"]\n{keys}\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n"
        ));
    }
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&text), &[]);
    let subject = "CN=anna,O=Ex\\,ample";
    for (host, client, status, told) in [
        ("strict.example", Some("anna"), 200, subject),
        ("strict.example", Some("gone"), 400, ""),
        ("strict.example", Some("eve"), 400, ""),
        ("strict.example", None, 400, ""),
        ("lax.example", Some("anna"), 200, subject),
        ("lax.example", Some("gone"), 400, ""),
        ("lax.example", None, 200, ""),
        ("plain.example", None, 200, "CN=root"),
    ] {
        assert_eq!(visit(&edge, dir.path(), host, client, &[]), (status, told.to_owned()), "{host} {client:?}");
        assert_eq!(
            visit(&edge, dir.path(), host, client, &["--tls-max", "1.2"]).0,
            status,
            "{host} {client:?} TLS 1.2"
        );
    }
    // A connection that was begun for another site does not open this one.
    let smuggled = visit(&edge, dir.path(), "plain.example", None, &["-H", "Host: strict.example"]);
    assert_eq!(smuggled.0, 421);
    // Nor does plain HTTP.
    let plain = crate::support::Client::new(edge.http, "strict.example").get("/").await;
    assert_eq!(plain.status, 400);
    // Unless the site says so, as those of containers do; the field for the subject is the edge's in any case.
    let open =
        crate::support::Client::new(edge.http, "open.example").get_with("/", &[("x-client-subject", "CN=root")]).await;
    assert_eq!(open.status, 200);
    assert!(!open.text().to_lowercase().contains("x-client-subject"), "{}", open.text());
    assert_eq!(visit(&edge, dir.path(), "open.example", None, &[]).0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_of_sites_with_hsts_take_the_short_way_while_there_is_a_certificate() {
    let origin = Origin::start(|mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok").await.ok()?;
        Some(stream)
    })
    .await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    certificate(&dir.path().join("certs"), "a.example", &["a.example"]);
    let text = format!(
        "[origins.app.http]\nservers = [\"{}\"]\n[[sites]]\nhosts = [\"a.example\"]\nhttps = \"redirect\"\nhsts = \"max-age=9\"\n\
         [[sites.routes]]\npath = \"/\"\norigin = \"app\"\n",
        origin.address
    );
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&text), &[]);
    let port = edge.https.unwrap().port();
    let url = format!("https://a.example:{port}/x");
    let ask = || {
        let resolve = format!("a.example:{port}:127.0.0.1");
        let args =
            ["-sk", "--http1.1", "-o", "/dev/null", "-D", "-", "--resolve", &resolve, &url, "-o", "/dev/null", &url];
        let out = Command::new("curl").args(args).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap().to_lowercase();
        text.lines().filter(|line| *line == "strict-transport-security: max-age=9").count()
    };
    let answered = || edge.metric("selvedge_hot_path_total{result=\"answered\"}");
    assert_eq!((ask(), origin.count()), (2, 1));
    assert_eq!((ask(), answered()), (2, 3.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_chooses_certificate_and_version() {
    let origin = echo().await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    certificate(&dir.path().join("certs"), "shared", &["a.example", "b.example"]);
    certificate(&dir.path().join("certs"), "b.example", &["b.example"]);
    let mut text = format!("[origins.app.http]\nservers = [\"{}\"]\n", origin.address);
    for (host, keys) in [
        ("a.example", "certificate = \"shared\"\ntls_min_version = \"1.3\""),
        ("b.example", "tls_policy = \"Mozilla-Intermediate\""),
    ] {
        text.push_str(&format!(
            "[[sites]]\nhosts = [\"{host}\"]\n{keys}\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n"
        ));
    }
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&text), &[]);
    let ca = dir.path().join("certs/shared.crt");
    for (host, more, status) in [
        ("a.example", &[][..], 200),
        ("a.example", &["--tls-max", "1.2"], 0),
        ("b.example", &["--tls-max", "1.2"], 200),
        ("c.example", &[], 0),
    ] {
        assert_eq!(visit(&edge, dir.path(), host, None, more).0, status, "{host} {more:?}");
    }
    let port = edge.https.unwrap().port();
    let verified = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", ca.to_str().unwrap()])
        .args(["--resolve", &format!("a.example:{port}:127.0.0.1"), &format!("https://a.example:{port}/")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&verified.stdout), "200", "the pair that the site names is served");
}
