use super::*;
use clap::Parser;
use hyper::body::Incoming;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// What the server saw: path, Host, Authorization, body.
type Seen = (String, String, Option<String>, serde_json::Value);

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    purge: Purge,
}

fn parse(args: &[&str]) -> Result<Purge, clap::Error> {
    Line::try_parse_from(["purge"].iter().chain(args)).map(|line| line.purge)
}

/// Exit, standard output and standard error of a purge.
fn outcome(args: &[&str]) -> (Exit, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let env = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
    let exit = run(&parse(args).unwrap(), &env, &mut out, &mut err);
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Accepts one connection, answers one request on it, and tells what it was.
struct Server {
    address: String,
    seen: mpsc::Receiver<Seen>,
    thread: JoinHandle<()>,
}

impl Server {
    fn tcp(status: u16, answer: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::start(address, status, answer, async move {
            let (stream, _) = tokio::net::TcpListener::from_std(listener).unwrap().accept().await.unwrap();
            stream
        })
    }

    fn unix(path: &std::path::Path, answer: &'static str) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self::start(format!("unix:{}", path.display()), 200, answer, async move {
            let (stream, _) = tokio::net::UnixListener::from_std(listener).unwrap().accept().await.unwrap();
            stream
        })
    }

    fn start<S: AsyncRead + AsyncWrite + Unpin + 'static>(
        address: String,
        status: u16,
        answer: &'static str,
        accepted: impl Future<Output = S> + Send + 'static,
    ) -> Self {
        let (report, seen) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let respond = service_fn(|request| respond(request, status, answer, report.clone()));
                let stream = TokioIo::new(accepted.await);
                server::Builder::new().serve_connection(stream, respond).await.unwrap();
            });
        });
        Self { address, seen, thread }
    }

    /// The request it got, after it has ended.
    fn seen(self) -> Seen {
        self.thread.join().unwrap();
        self.seen.recv().unwrap()
    }
}

async fn respond(
    request: Request<Incoming>,
    status: u16,
    answer: &'static str,
    report: mpsc::Sender<Seen>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let field = |name| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let target = format!("{} {}", request.method(), request.uri());
    let (host, authorization) = (field(header::HOST).unwrap(), field(header::AUTHORIZATION));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    report.send((target, host, authorization, serde_json::from_slice(&body).unwrap())).unwrap();
    let mut response = Response::new(Full::new(Bytes::from_static(answer.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}

const TWO: &str = r#"{"request_id":"r1","purged":1,"results":[{"url":"https://a/1","found":true},{"url":"https://a/2","found":false}]}"#;

#[test]
fn urls_are_purged_and_each_is_told_of() {
    let server = Server::tcp(200, TWO);
    let address = server.address.clone();
    let (exit, out, err) = outcome(&["--admin", &address, "--token-env", "TOKEN", "https://a/1", "https://a/2"]);
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    assert_eq!(out, "purged      https://a/1\nnot stored  https://a/2\n1 of 2 purged (request r1)\n");
    let urls = serde_json::json!({ "urls": ["https://a/1", "https://a/2"] });
    assert_eq!(server.seen(), ("POST /purge".to_owned(), address, Some("Bearer s3cret".to_owned()), urls));
}

#[test]
fn everything_is_purged_over_the_unix_socket_that_the_file_names() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("edge.toml");
    std::fs::write(&config, "[listen]\nadmin = \"unix:admin.sock\"\n[admin]\ntoken = \"from-file\"\n").unwrap();
    let server = Server::unix(&folder.path().join("admin.sock"), r#"{"request_id":"r2","purged":7,"results":[]}"#);
    let (exit, out, err) = outcome(&["--config", config.to_str().unwrap(), "--all"]);
    assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Ok, "every stored response is purged (request r2)\n", ""));
    let (_, _, authorization, body) = server.seen();
    assert_eq!((authorization.as_deref(), body), (Some("Bearer from-file"), serde_json::json!({ "all": true })));
}

#[test]
fn every_scope_is_named_and_kept_softly_if_asked() {
    let answer = r#"{"request_id":"r3","soft":true,"purged":null,"results":[{"url":"https://a/1","found":false},
        {"prefix":"a/b","found":null},{"host":"c","found":null},{"tag":"d","found":null}]}"#;
    let server = Server::tcp(200, answer);
    let address = server.address.clone();
    let args = ["--admin", &address, "--soft", "--tag", "d", "--host", "c", "--prefix", "a/b", "https://a/1"];
    let (exit, out, err) = outcome(&args);
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    let lines = "not stored  https://a/1\nstale       prefix a/b\nstale       host c\nstale       tag d\n";
    assert_eq!(out, format!("{lines}whatever these cover is stale (request r3)\n"));
    let sent = serde_json::json!(
        { "urls": ["https://a/1"], "prefixes": ["a/b"], "hosts": ["c"], "tags": ["d"], "soft": true }
    );
    assert_eq!(server.seen().3, sent);
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    // Taken and given back, so that nothing listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("no.sock").display());
    for address in [free, socket] {
        let (exit, out, err) = outcome(&["--admin", &address, "--all"]);
        assert_eq!((exit, out.as_str()), (Exit::Unavailable, ""));
        assert!(err.starts_with(&format!("error: cannot connect to {address}: ")), "{err}");
        assert!(err.contains("is selvedge running"), "{err}");
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    for (status, answer, token, exit, said) in [
        (401, "", false, Exit::Usage, "wants a token"),
        (401, "", true, Exit::Usage, "refuses this token"),
        (403, "no\x1b[31m", true, Exit::Usage, "answered 403 Forbidden: no[31m"),
        (
            400,
            r#"{"error":"`https://a/1` cannot be purged: too long","url":"https://a/1","reason":"too long"}"#,
            true,
            Exit::Usage,
            "answered 400 Bad Request: `https://a/1` cannot be purged: too long\n",
        ),
        (503, r#"{"error":"the disk is out of service"}"#, true, Exit::Unavailable, "the disk is out of service"),
        (500, "", true, Exit::Internal, "answered 500"),
        (200, "<html>", true, Exit::Internal, "did not answer as an admin listener does"),
    ] {
        let server = Server::tcp(status, answer);
        let address = server.address.clone();
        let mut args = vec!["--admin", &address, "https://a/1"];
        args.extend(token.then_some(["--token-env", "TOKEN"]).into_iter().flatten());
        let (got, _, err) = outcome(&args);
        assert_eq!(got, exit, "{status} {answer}: {err}");
        assert!(err.contains(said), "{status}: {err}");
        assert!(!err.contains("s3cret"), "{err}");
        server.seen();
    }
}

#[test]
fn a_missing_token_or_listener_is_found_before_anything_is_sent() {
    let (exit, _, err) = outcome(&["--all", "--token-env", "UNSET"]);
    assert_eq!(
        (exit, err.as_str()),
        (Exit::Usage, "error: the environment variable UNSET that --token-env names is not set\n")
    );
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("edge.toml");
    std::fs::write(&config, "[listen]\nhttp = [\"127.0.0.1:80\"]\n").unwrap();
    let (exit, _, err) = outcome(&["--all", "--config", config.to_str().unwrap()]);
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("has no admin listener"), "{err}");
}

#[test]
fn what_to_purge_and_where_is_checked() {
    for wrong in [
        &[][..],
        &["--all", "https://a/"],
        &["--all", "--tag", "x"],
        &["--soft"],
        &["/style.css"],
        &["www.example.com/style.css"],
        &["ftp://a/b"],
        &["https://"],
        &["https://a/ü"],
        &["https://a/ b"],
        &["--all", "--admin", "127.0.0.1"],
        &["--all", "--admin", "127.0.0.1:0"],
        &["--all", "--admin", "unix:"],
        &["--all", "--admin", "a b:1"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    for (text, shown) in
        [("localhost:9090", "localhost:9090"), ("[::1]:9090", "[::1]:9090"), ("unix:a.sock", "unix:a.sock")]
    {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
    }
}

#[test]
fn a_listener_on_every_address_is_reached_over_loopback() {
    for (listens, reached) in
        [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.5:1", "10.0.0.5:1"), ("[::1]:1", "[::1]:1")]
    {
        let endpoint = Endpoint::from(Address::Tcp(listens.parse().unwrap()));
        assert_eq!(endpoint, Endpoint::Tcp(reached.to_owned()));
    }
}
