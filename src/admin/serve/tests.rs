//! The listener over real sockets.

use crate::admin::{Address, Admin, Backend, Readiness, Settings, bind};
use crate::cache::purge::{Failure, Order, Report, Scope};
use crate::types::Secret;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

#[derive(Default)]
struct Fake {
    not_ready: Mutex<Option<String>>,
    purges: Mutex<Vec<Order>>,
    begun: Notify,
    go_on: Notify,
}

#[async_trait]
impl Backend for Fake {
    fn ready(&self) -> Readiness {
        self.not_ready.lock().clone().map_or(Readiness::Ready, Readiness::NotReady)
    }

    fn metrics(&self) -> Vec<u8> {
        b"selvedge_purges_total 1\n".to_vec()
    }

    async fn purge(&self, order: Order, _: String, _: String) -> Result<Report, Failure> {
        match order.scopes[0].name() {
            "bad" => {
                let reason = "it has no scheme".to_owned();
                return Err(Failure::Bad { scope: order.scopes[0].clone(), reason });
            }
            "down" => return Err(Failure::Unavailable("the disk is full".to_owned())),
            "panic" => panic!("as asked"),
            "slow" => {
                self.begun.notify_one();
                self.go_on.notified().await;
            }
            _ => {}
        }
        let found = |scope: &Scope| matches!(scope, Scope::Url(_)).then(|| !scope.name().contains("none"));
        let results = order.scopes.iter().map(|scope| (scope.clone(), found(scope))).collect();
        self.purges.lock().push(order);
        Ok(Report { results })
    }
}

struct Running {
    address: String,
    fake: Arc<Fake>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn start(address: Address, token: Option<&str>) -> Running {
    let admin: Admin = bind(&Settings { address, token: token.map(Secret::new) }).unwrap();
    let (stop, shutdown) = watch::channel(false);
    let fake = Arc::new(Fake::default());
    let address = admin.address();
    let task = tokio::spawn(admin.serve(Arc::clone(&fake) as Arc<dyn Backend>, shutdown));
    Running { address, fake, stop, task }
}

fn loopback() -> Address {
    Address::Tcp("127.0.0.1:0".parse().unwrap())
}

impl Running {
    async fn send(&self, request: &str) -> String {
        exchange(TcpStream::connect(&self.address).await.unwrap(), request).await
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)).await
    }

    async fn post(&self, fields: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{fields}");
        self.send(&format!("{head}Connection: close\r\n\r\n{body}")).await
    }

    async fn end(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses a body it has not read may reset the connection after its answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn body(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect(answer);
    serde_json::from_str(body).expect(body)
}

#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let admin = start(loopback(), None);
    let answer = admin.get("/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert!(admin.get("/readyz").await.starts_with("HTTP/1.1 200 "));
    *admin.fake.not_ready.lock() = Some("draining".to_owned());
    let answer = admin.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("not ready: draining\n"), "{answer}");
    assert!(admin.get("/healthz").await.starts_with("HTTP/1.1 200 "), "health does not follow readiness");
    let answer = admin.get("/metrics").await;
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.ends_with("selvedge_purges_total 1\n"), "{answer}");
    let answer = admin.send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    admin.end().await;
}

#[tokio::test]
async fn a_purge_reports_what_it_found() {
    let admin = start(loopback(), None);
    let answer = admin.post("", "{\"urls\": [\"https://a/1\", \"https://a/none\"]}").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let value = body(&answer);
    assert_eq!(value["purged"], 1);
    assert_eq!(value["results"][0], serde_json::json!({ "url": "https://a/1", "found": true }));
    assert_eq!(value["results"][1]["found"], false);
    assert_eq!(value["request_id"].as_str().map(str::len), Some(32));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let again = body(&admin.post(form, "url=https%3A%2F%2Fa%2F2").await);
    assert_eq!(again["results"][0]["url"], "https://a/2");
    assert_ne!(again["request_id"], value["request_id"]);
    let all = body(&admin.post("", "{\"all\": true, \"soft\": true}").await);
    assert!(all["purged"].is_null() && all["soft"] == true, "{all}");
    assert_eq!(all["results"], serde_json::json!([{ "all": "*", "found": null }]));
    let purges = admin.fake.purges.lock().clone();
    assert_eq!(purges.iter().map(|order| order.scopes.len()).collect::<Vec<_>>(), [2, 1, 1]);
    admin.end().await;
}

#[tokio::test]
async fn a_purge_that_cannot_be_carried_out_says_why() {
    let admin = start(loopback(), None);
    for (sent, status, says) in [
        ("url=bad", "400", "it has no scheme"),
        ("url=down", "503", "the disk is full"),
        ("url=panic", "500", "look for this request_id"),
        ("nonsense", "400", "{\"all\": true}"),
        ("", "400", "names nothing"),
    ] {
        let answer = admin.post("", sent).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sent}: {answer}");
        assert!(body(&answer)["error"].as_str().unwrap().contains(says), "{sent}: {answer}");
    }
    assert!(admin.fake.purges.lock().is_empty());
    let head = "POST /purge HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let answer = admin.send(&format!("{head}Content-Length: 1048577\r\n\r\nurl=")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let chunk = "url=a&".repeat(20_000);
    let chunks = format!("{:x}\r\n{chunk}\r\n", chunk.len()).repeat(9);
    let answer = admin.send(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    admin.end().await;
}

#[tokio::test]
async fn a_purge_goes_on_when_its_caller_hangs_up() {
    let admin = start(loopback(), None);
    let mut stream = TcpStream::connect(&admin.address).await.unwrap();
    let request = "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nurl=slow";
    stream.write_all(request.as_bytes()).await.unwrap();
    admin.fake.begun.notified().await;
    drop(stream);
    // The listener has seen the hang-up once it answers another connection and ends; the purge is still under way.
    let fake = Arc::clone(&admin.fake);
    admin.end().await;
    fake.go_on.notify_one();
    let done = async {
        while fake.purges.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), done).await.expect("the purge ends");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_with_what_there_is() {
    let admin = start(loopback(), None);
    let answer = admin.get("/nope").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let endpoints = body(&answer)["endpoints"].to_string();
    assert!(["POST /purge", "GET /dns/why", "GET /routes"].iter().all(|one| endpoints.contains(one)), "{endpoints}");
    let answer = admin.get("/purge").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: POST\r\n"), "{answer}");
    let answer = admin.send("DELETE /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    admin.end().await;
}

#[tokio::test]
async fn a_web_page_cannot_purge_through_loopback() {
    let admin = start(loopback(), None);
    let answer = admin.post("Origin: https://evil.example\r\n", "all=true").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let rebound =
        "POST /purge HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 8\r\nConnection: close\r\n\r\nall=true";
    assert!(admin.send(rebound).await.starts_with("HTTP/1.1 421 "));
    assert!(admin.fake.purges.lock().is_empty());
    admin.end().await;
}

#[tokio::test]
async fn a_token_is_asked_for_and_a_wrong_one_refused() {
    let admin = start(loopback(), Some("hunter2"));
    let answer = admin.get("/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("www-authenticate: Bearer realm=\"selvedge admin\"\r\n"), "{answer}");
    let answer = admin.post("Authorization: Bearer hunter3\r\n", "all=true").await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("error=\"invalid_token\""), "{answer}");
    assert!(!answer.contains("hunter"), "{answer}");
    let answer = admin.post("Authorization: Bearer hunter2\r\nOrigin: https://dash.example\r\n", "all=true").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(admin.get("/healthz").await.starts_with("HTTP/1.1 200 "));
    admin.end().await;
}

#[tokio::test]
async fn a_unix_socket_is_served_and_removed_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let admin = start(Address::Unix(path.clone()), None);
    assert_eq!(admin.address, format!("unix:{}", path.display()));
    let stream = UnixStream::connect(&path).await.unwrap();
    let answer = exchange(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    admin.end().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_shutdown() {
    let admin = start(loopback(), None);
    let mut idle = TcpStream::connect(&admin.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let begun = std::time::Instant::now();
    admin.end().await;
    assert!(begun.elapsed() < super::SHUTDOWN_GRACE);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
}
