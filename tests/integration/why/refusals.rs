//! What the rules and the leak guard refuse, what a purge leaves, and siblings: golden outputs.

use super::{ROUTE, args, assert_text, origin, routes, run, why};
use crate::support::Edge;
use crate::support::edge::{BINARY, config};
use std::process::Command;
use std::sync::Arc;

/// A miss for `path` that is answered with `status` and not stored for this reason.
fn refused(path: &str, status: u16, reason: &str) -> String {
    format!(
        "request    GET http://www.example.com{path} (id ID)
         {ROUTE}
         look-up    made
         key        http://www.example.com:80{path}
         forward    uri-miss: nothing is stored for this key
         origin     SERVER: {status} after MS
         stored     no, {reason}
         answer     {status}, miss"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_to_store_is_explained() {
    let origin = origin(Arc::default()).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    for (path, more, status, reason) in [
        // What is, or may be, one person's.
        (
            "/fresh",
            &["-H", "Authorization: Basic dG9wc2VjcmV0"][..],
            200,
            "authorization: the request has Authorization, and the response has none of public, must-revalidate, s-maxage",
        ),
        (
            "/fresh",
            &["-H", "Cookie: session=oreo"],
            200,
            "cookie: the request has a cookie, and the response does not say that it is for all",
        ),
        ("/cookie", &[], 200, "set-cookie: the response sets a cookie"),
        (
            "/theme",
            &["-H", "Cookie: a=b"],
            200,
            "cookie: the request has a cookie, and the response does not say that it is for all",
        ),
        ("/account.php/x.css", &[], 200, "content-type-mismatch: the path names an asset, the content is a document"),
        ("/private", &[], 200, "private: the response is for one user (private)"),
        ("/no-store", &[], 200, "no-store: request or response says no-store"),
        // What may be another's doing, or is not whole.
        (
            "/missing",
            &["-H", "X-Rewrite-Url: /admin"],
            404,
            "unusual-request: it is an error, and the request may have provoked it",
        ),
        ("/part", &[], 206, "partial: the response is a part only"),
        ("/endless", &[], 200, "unknown-end: the response ends with the connection, so a broken one would look whole"),
        ("/huge", &[], 200, "too-large: the content is larger than what is stored"),
        // What could not be reused.
        ("/star", &[], 200, "vary-star: the response has Vary: *, or one that no key can be made of"),
        ("/demanding", &[], 428, "status: responses with this status are not stored"),
        ("/nothing", &[], 200, "no-lifetime: the response has neither a lifetime nor a validator"),
    ] {
        let text = why(&edge, &format!("http://www.example.com{path}"), more).await;
        assert_text(&text, &refused(path, status, reason));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_have_what_is_stored_is_explained() {
    let origin = origin(Arc::default()).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    let cookie = ["-H", "Cookie: session=oreo"];
    // Stored by its own word, and then for everybody.
    let url = "http://www.example.com/public";
    let stored = why(&edge, url, &cookie).await;
    let end = "stored     yes; lifetime 60 s, from Cache-Control: max-age\n\
               purged by  host www.example.com, prefix www.example.com/public and those above it, tag all\nanswer     200, miss\n";
    assert!(stored.ends_with(end), "{stored}");
    assert_text(
        &why(&edge, url, &cookie).await,
        &format!(
            "request    GET {url} (id ID)
             {ROUTE}
             look-up    made
             key        http://www.example.com:80/public
             found      in the memory tier, age N s, fresh for N s more
             lifetime   60 s, from Cache-Control: max-age
             verdict    used
             purged by  host www.example.com, prefix www.example.com/public and those above it, tag all
             answer     200, hit"
        ),
    );
    // What sets a harmless cookie is not for those who have cookies.
    let url = "http://www.example.com/theme";
    why(&edge, url, &[]).await;
    assert_text(
        &why(&edge, url, &cookie).await,
        &format!(
            "request    GET {url} (id ID)
             {ROUTE}
             look-up    made
             key        http://www.example.com:80/theme
             found      in the memory tier, age N s, fresh for N s more
             lifetime   60 s, from Cache-Control: max-age
             verdict    unusable: it is not for this request
             forward    request: the request refuses what is stored
             origin     SERVER: 200 after MS
             purged by  host www.example.com, prefix www.example.com/theme and those above it
             answer     200, miss"
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_purge_leaves_is_explained() {
    let origin = origin(Arc::default()).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    let purge = |args: &[&str]| {
        let done =
            Command::new(BINARY).args(["purge", "--admin", &edge.admin.to_string()]).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    let url = "http://www.example.com/shared";
    why(&edge, url, &[]).await;
    purge(&["--soft", "--tag", "news"]);
    assert_text(
        &why(&edge, url, &[]).await,
        &format!(
            "request    GET {url} (id ID)
             {ROUTE}
             look-up    made
             key        http://www.example.com:80/shared
             found      in the memory tier, age N s, stale for N s
             lifetime   N s, from a soft purge, which ended it
             verdict    stale: to be validated
             forward    stale: what is stored has to be validated
             origin     SERVER: 200 after MS
             validated  200: the stored response is replaced
             stored     yes; lifetime 30 s, from Cache-Control: s-maxage
             purged by  host www.example.com, prefix www.example.com/shared and those above it, tags blog news
             answer     200, miss"
        ),
    );
    for args in [&[url][..], &["--tag", "blog"], &["--host", "www.example.com"]] {
        assert!(why(&edge, url, &[]).await.ends_with("answer     200, hit\n"));
        purge(args);
        assert_text(
            &why(&edge, url, &[]).await,
            &format!(
                "request    GET {url} (id ID)
                 {ROUTE}
                 look-up    made
                 key        http://www.example.com:80/shared
                 forward    uri-miss: nothing is stored for this key
                 origin     SERVER: 200 after MS
                 stored     yes; lifetime 30 s, from Cache-Control: s-maxage
                 purged by  host www.example.com, prefix www.example.com/shared and those above it, tags blog news
                 answer     200, miss"
            ),
        );
    }
    let (_, json, _) = run(args(edge.http, url, &["--json"]), super::TOKEN).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let scopes =
        serde_json::json!({ "host": "www.example.com", "prefix": "www.example.com/shared", "tags": ["blog", "news"] });
    assert_eq!(json["scopes"], scopes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_that_are_too_few_and_siblings_are_explained() {
    let origin = origin(Arc::default()).await;
    let rules = "path = \"~^/img/\"\norigin = \"app\"\n[sites.routes.cache]\nmin_uses = 2\n[sites.routes.compression]\nprecompressed = [\"br\"]\n";
    let text = routes(origin.address).replace("path = \"~^/img/\"\norigin = \"app\"\ncache = false\n", rules);
    let text = text.replace("~^/img/", "~^/img/|js$");
    let edge = Edge::start(&config(&text));
    let url = "http://www.example.com/img/fresh";
    let route = ROUTE.replace("path /,", "path ~^/img/|js$,");
    assert_text(
        &why(&edge, url, &[]).await,
        &refused("/img/fresh", 200, "min-uses: it was not asked for often enough yet").replace(ROUTE, &route),
    );
    let second = why(&edge, url, &[]).await;
    assert!(second.contains("\nstored     yes; lifetime 60 s, from Cache-Control: max-age\n"), "{second}");

    let url = "http://www.example.com/app.js";
    why(&edge, url, &["-H", "Accept-Encoding: br"]).await;
    assert_text(
        &why(&edge, url, &["-H", "Accept-Encoding: br"]).await,
        &format!(
            "request    GET {url} (id ID)
             {route}
             look-up    made
             key        http://www.example.com:80/app.js
             vary       accept-encoding; this request's variant is HASH
             forward    uri-miss: nothing is stored for this key
             origin     SERVER: 200 after MS, asked for the br sibling
             stored     yes; lifetime 60 s, from Cache-Control: max-age
             purged by  host www.example.com, prefix www.example.com/app.js and those above it
             answer     200, miss"
        ),
    );
    let gone = why(&edge, "http://www.example.com/gone.js", &["-H", "Accept-Encoding: br"]).await;
    assert!(
        gone.contains("\norigin     SERVER: 404 after MS, asked for the br sibling\norigin     SERVER: 200 after MS\n"),
        "{gone}"
    );
}
