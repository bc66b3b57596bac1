//! Second opinions: botocore on our signatures, moto (in IAM mode, where it verifies them) on our requests.

use crate::support::edge::config;
use crate::support::tools::{free_port, http_get, wait_until};
use crate::support::{Client, Edge};
use http::StatusCode;
use pingora::http::RequestHeader;
use selvedge::origin::http::Timeouts;
use selvedge::origin::s3::{AddressingStyle, Attempt, Credentials, Endpoint, S3Origin, Settings};
use selvedge::types::Secret;
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn python() -> Command {
    Command::new(format!("{ROOT}/target/test-tools/bin/python3"))
}

fn origin(style: AddressingStyle) -> S3Origin {
    S3Origin::build(&Settings {
        endpoint: Endpoint { tls: false, host: "s3.example.com".into(), port: 9000 },
        bucket: "assets".into(),
        region: "eu-central-1".into(),
        style,
        credentials: Some(Credentials {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: Secret::new(SECRET),
            session_token: Some(Secret::new("a+session/token=")),
        }),
        prefix: String::new(),
        strip_prefix: String::new(),
        index: Some("index.html".into()),
        directory_redirect: false,
        spa_fallback: None,
        error_documents: Vec::new(),
        allow_amz_headers: Vec::new(),
        timeouts: Timeouts::default(),
        forbidden_is_not_found: false,
    })
    .unwrap()
}

/// Keys that have gone wrong somewhere: reserved characters, every script, dots and slashes.
fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/",
        "/a=b",
        "/user@host",
        "/it's%20(1)",
        "/one+one",
        "/one%2Bone",
        "/100%25",
        "/a%20b",
        "/%E6%BC%A2",
        "/%D7%A9",
        "/tilde~x",
        "/tilde%7Ex",
        "/trailing.",
        "/double//slash",
        "/up/../down",
        "/./x",
        "/a!b*c",
        "/semi;colon,comma:x",
        "/q%3Fq",
        "/hash%23h",
        "/amp&eq=1",
        "/%F0%9F%A6%80",
        "/dollar$",
        "/bar%7Cbar",
        "/caret%5E",
        "/quote%22",
        "/dir/",
    ]
    .map(str::to_owned)
    .to_vec();
    paths.extend((0x21..0x7fu8).map(|byte| format!("/x%{byte:02X}y")));
    paths
}

#[test]
fn botocore_computes_the_same_signatures() {
    for style in [AddressingStyle::Path, AddressingStyle::VirtualHost] {
        let origin = origin(style);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let (mut ours, mut asked) = (Vec::new(), Vec::new());
        for path in paths() {
            let mut request = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
            request.insert_header("range", "bytes=0-9").unwrap();
            origin.prepare(&mut request, &path, &Attempt::Requested, now).unwrap();
            let field = |name: &str| request.headers[name].to_str().unwrap().to_owned();
            let authorization = field("authorization");
            let part = |key: &str| authorization.split(key).nth(1).unwrap().split(',').next().unwrap().to_owned();
            let headers: Vec<Value> =
                part("SignedHeaders=").split(';').map(|name| json!([name, field(name)])).collect();
            let target = std::str::from_utf8(request.raw_path()).unwrap();
            asked.push(json!({
                "method": "GET",
                "url": format!("http://{}{target}", field("host")),
                "timestamp": field("x-amz-date"),
                "headers": headers,
            }));
            ours.push((path, part("Signature=")));
        }
        let question = json!({
            "access_key": "AKIDEXAMPLE", "secret": SECRET, "region": "eu-central-1", "requests": asked,
        });
        let mut oracle = python()
            .arg(format!("{ROOT}/tests/integration/support/botocore_sign.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/run installs botocore into target/test-tools");
        oracle.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
        let out = oracle.wait_with_output().unwrap();
        let theirs: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(theirs.len(), ours.len());
        for ((path, signature), theirs) in ours.iter().zip(&theirs) {
            assert_eq!(theirs["signature"], *signature, "{path}: botocore signs {}", theirs["canonical_request"]);
        }
    }
}

/// A moto server that checks signatures, its bucket filled.
struct Moto {
    child: Child,
    address: SocketAddr,
    access_key: String,
    secret: String,
}

impl Moto {
    fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let child = Command::new(format!("{ROOT}/target/test-tools/bin/moto_server"))
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "3")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tests/run installs moto into target/test-tools");
        let mut moto = Self { child, address, access_key: String::new(), secret: String::new() };
        wait_until("moto listens", Duration::from_secs(60), || {
            http_get(address, "/moto-api/").is_some_and(|(status, _)| status < 500)
        });
        let scene = format!("{ROOT}/tests/integration/support/moto_scene.py");
        let out = python().arg(scene).arg(format!("http://{address}")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let made: Value = serde_json::from_slice(&out.stdout).unwrap();
        moto.access_key = made["access_key"].as_str().unwrap().to_owned();
        moto.secret = made["secret"].as_str().unwrap().to_owned();
        moto
    }

    fn edge(&self, route: &str) -> Edge {
        let text = format!(
            "[origins.assets.s3]\nendpoint = \"http://{}\"\nbucket = \"assets\"\nregion = \"us-east-1\"\n\
             access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n\n[[sites]]\nhosts = [\"*\"]\n[[sites.routes]]\n\
             path = \"/\"\norigin = \"assets\"\n{route}\n",
            self.address, self.access_key, self.secret
        );
        Edge::start_in(Arc::new(tempfile::tempdir().unwrap()), &config(&text), &[])
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_reach_the_bucket_and_its_answers_come_back() {
    let moto = Moto::start();
    let unsigned = Client::new(moto.address, "x").get("/assets/page.html").await;
    assert_eq!(unsigned.status, StatusCode::FORBIDDEN, "moto must verify for this test to mean anything");

    // Stored, and validated on each use, for its metadata says no-cache.
    let edge = moto.edge("");
    let mut client = Client::new(edge.http, "a");
    let first = client.get("/page.html").await;
    assert_eq!((first.status, first.text().as_str()), (StatusCode::OK, "hello"));
    let second = client.get("/page.html").await;
    assert!(
        second.cache_status().contains("fwd=stale") && second.cache_status().contains("fwd-status=304"),
        "{}",
        second.cache_status()
    );
    assert_eq!(second.text(), "hello");
    let meta = client.get("/meta.txt").await;
    assert!(!meta.headers.contains_key("x-amz-meta-owner"), "{:?}", meta.headers);
    assert!(client.get("/meta.txt").await.is_hit());

    // Past the cache, the bucket's own 304 and 412.
    let passing = moto.edge("cache = false");
    let mut client = Client::new(passing.http, "a");
    let etag = client.get("/page.html").await.field("etag");
    let unchanged = client.get_with("/page.html", &[("if-none-match", &etag)]).await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    let mismatch = client.get_with("/page.html", &[("if-match", "\"other\"")]).await;
    assert_eq!(mismatch.status, StatusCode::PRECONDITION_FAILED);
    assert!(!mismatch.text().contains('<'), "{}", mismatch.text());
    let range = client.get_with("/page.html", &[("range", "bytes=1-3")]).await;
    assert_eq!((range.status, range.text().as_str()), (StatusCode::PARTIAL_CONTENT, "ell"));
}
