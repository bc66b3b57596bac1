//! How the servers of an origin share its requests.

use super::Case;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    (
        r#"[origins.app.http]
servers = [{ address = "127.0.0.1:1", weigth = 2 }]"#,
        "2:39: unknown key `weigth` in `origins.app.http.servers[0]`",
        "did you mean `weight`?",
    ),
    (
        r#"[origins.app.http]
servers = [{ address = "127.0.0.1:1", weight = 0 }]"#,
        "2:48: `origins.app.http.servers[0].weight` is 0, out of range",
        "write a number from 1 to 65535, without quotes",
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1", { address = "127.0.0.1:1", backup = true }]"#,
        r#"2:27: `origins.app.http.servers[1]` is "127.0.0.1:1" once more"#,
        "list a server once",
    ),
    (
        r#"[origins.app.http]
servers = [{ address = "127.0.0.1:1", drain = true }]"#,
        "2:11: every server of `origins.app.http.servers` drains, so that nobody would answer",
        "take `drain = true` off at least one of them",
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
balance = "least-conn""#,
        r#"3:11: `origins.app.http.balance` is "least-conn", expected one of "round-robin", "least-connections", "random", "peak-ewma", "client-address", "hash""#,
        r#"write one of "round-robin", "least-connections", "random", "peak-ewma", "client-address", "hash""#,
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
hash_key = "path""#,
        "3:12: `origins.app.http.hash_key` has no effect without hashing",
        r#"add `balance = "hash"`, or remove this key"#,
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
balance = "hash"
hash_key = "query:x""#,
        r#"4:12: `origins.app.http.hash_key` is "query:x", nothing to hash"#,
        r#"write "path", "uri", "client-address", "header:NAME" or "cookie:NAME""#,
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
balance = "hash"
hash_bound = 50"#,
        "4:14: `origins.app.http.hash_bound` is 50 percent: nobody could take all of its share",
        "write 100 or more, as in 150, or 0 for no bound",
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
[origins.app.http.health]
interval = "1s""#,
        "4:12: `origins.app.http.health.interval` has no effect without `check = \"http\"`, \"tcp\" or \"grpc\"",
        "add `check = \"http\"`, \"tcp\" or \"grpc\", or remove this key",
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
[origins.app.http.health]
check = "tcp"
path = "/""#,
        r#"5:8: `origins.app.http.health.path` has no effect without `check = "http"`"#,
        r#"add `check = "http"`, or remove this key"#,
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
[origins.app.http.health]
check = "http"
status = "2xx""#,
        r#"5:10: `origins.app.http.health.status` is "2xx", not a status or range of them"#,
        r#"write it as in "200" or "200-399""#,
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
[origins.app.http.health]
check = "http"
path = "healthz""#,
        r#"5:8: `origins.app.http.health.path` is "healthz", not a path"#,
        r#"write path and query as they are sent, as in "/healthz""#,
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
[origins.app.http.limits]
queue_timeout = "0s""#,
        "4:17: `origins.app.http.limits.queue_timeout` is zero, so nothing would ever be in time",
        r#"write a longer duration, as in "10s""#,
    ),
];
