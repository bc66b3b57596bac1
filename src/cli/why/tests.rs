use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    why: Why,
}

fn parse(args: &[&str]) -> Result<Why, clap::Error> {
    Line::try_parse_from(["why"].iter().chain(args)).map(|line| line.why)
}

const TOKEN: &str = "0123456789abcdef";

fn env(name: &str) -> Option<String> {
    matches!(name, "TOKEN" | "SELVEDGE_DEBUG_TOKEN").then(|| format!("{TOKEN}-{name}"))
}

/// Address and token, or the error's text.
fn aimed(args: &[&str], env: &dyn Fn(&str) -> Option<String>) -> Result<(String, String), String> {
    let (edge, token) = target(&parse(args).unwrap(), env).map_err(|error| error.to_string())?;
    Ok((edge, token.expose().to_owned()))
}

#[test]
fn arguments_go_before_the_file_and_the_file_before_the_url() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.toml");
    // Nothing but the listeners and [debug] has to be right.
    let text = "[listen]\nhttp = [\"0.0.0.0:8080\"]\nhttps = [\"[::]:8443\"]\n[debug]\ntoken = \"token-of-the-file\"\n[origins.x]\n";
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    let ok = |edge: &str, token: &str| Ok((edge.to_owned(), token.to_owned()));
    let of_url = format!("{TOKEN}-SELVEDGE_DEBUG_TOKEN");
    assert_eq!(aimed(&["http://a.example/"], &env), ok("a.example:80", &of_url));
    assert_eq!(aimed(&["https://a.example/"], &env), ok("a.example:443", &of_url));
    assert_eq!(aimed(&["https://[::1]:8/"], &env), ok("[::1]:8", &of_url));
    assert_eq!(aimed(&["http://a/", "-c", file], &env), ok("127.0.0.1:8080", "token-of-the-file"));
    assert_eq!(aimed(&["https://a/", "-c", file], &env), ok("[::1]:8443", "token-of-the-file"));
    let all = ["http://a/", "-c", file, "--edge", "10.0.0.1:80", "--token-env", "TOKEN"];
    assert_eq!(aimed(&all, &env), ok("10.0.0.1:80", &format!("{TOKEN}-TOKEN")));
    std::fs::write(&path, "[listen]\nhttp = [\"127.0.0.1:0\"]\n").unwrap();
    assert!(aimed(&["http://a/", "-c", file], &env).unwrap_err().contains("--edge"));
    assert!(aimed(&["https://a/", "-c", file], &env).unwrap_err().contains("no listener for https"));
    assert!(aimed(&["http://a/", "-c", file], &|_| None).unwrap_err().contains("no debug token"));
    assert!(aimed(&["http://a/", "--token-env", "X"], &env).unwrap_err().contains("X is not set"));
}

#[test]
fn what_is_no_url_field_or_address_is_refused() {
    for args in [
        &["/path"][..],
        &["ftp://a/"],
        &["http://ä.example/"],
        &["http://a/", "-H", "no colon"],
        &["http://a/", "-H", "bad name: x"],
        &["http://a/", "--edge", "10.0.0.1"],
        &["http://a/", "--cacert", "x", "--insecure"],
    ] {
        assert!(parse(args).is_err(), "{args:?}");
    }
    let given = parse(&["http://a/", "-H", "Accept-Language: de", "-H", "x:y", "-X", "HEAD"]).unwrap();
    assert_eq!((given.headers.len(), given.headers[0].1.as_bytes(), given.method), (2, &b"de"[..], Method::HEAD));
}

#[test]
fn an_edge_that_is_not_there_is_unavailable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(&parse(&[&format!("http://127.0.0.1:{port}/")]).unwrap(), &env, &mut out, &mut err);
    let err = String::from_utf8(err).unwrap();
    assert_eq!((exit, out.len()), (Exit::Unavailable, 0), "{err}");
    assert!(err.contains("cannot connect") && !err.contains(TOKEN), "{err}");
}
