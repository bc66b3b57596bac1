//! `[origins]` and `[[sites]]`.

use super::Case;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    (
        r#"[origins.app]"#,
        "1:1: `origins.app` says nothing about how to reach it",
        "add `[origins.app.http]` with `servers`, or `[origins.app.s3]` with `endpoint` and `bucket`",
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:1"]
[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
unsigned = true"#,
        "3:1: `origins.app` is both an HTTP and an S3 origin",
        "keep one of them, or give each a name of its own",
    ),
    (
        r#"[origins.app.http]
tls = true"#,
        "1:1: `servers` is missing in [origins.app.http]",
        r#"add `servers = ["127.0.0.1:8080"]`"#,
    ),
    (
        r#"[origins.app.http]
servers = []"#,
        "2:11: `origins.app.http.servers` is empty",
        "name at least one server as host:port",
    ),
    (
        r#"[origins.app.http]
servers = ["http://127.0.0.1:9000/"]"#,
        r#"2:12: `origins.app.http.servers[0]` is "http://127.0.0.1:9000/", not a server's host and port"#,
        r#"write "127.0.0.1:9000""#,
    ),
    (
        r#"[origins.app.http]
servers = ["::1"]"#,
        r#"2:12: `origins.app.http.servers[0]` is "::1", not a server's host and port"#,
        r#"put an IPv6 address in brackets: "[::1]:80""#,
    ),
    (
        r#"[origins.app.http]
servers = ["127.0.0.1:0"]"#,
        r#"2:12: `origins.app.http.servers[0]` is "127.0.0.1:0", not a server's host and port"#,
        r#"write host:port, as in "10.0.0.5:8080" or "app.internal:8080""#,
    ),
    (
        r#"[origins.app.http]
servers = ["a:80", "b", "a"]"#,
        r#"2:25: `origins.app.http.servers[2]` is "a" once more"#,
        "list a server once",
    ),
    (
        r#"[origins.app.http]
servers = ["a"]
tls_verify = false"#,
        "3:14: `origins.app.http.tls_verify` has no effect without TLS",
        "add `tls = true`, or remove this key",
    ),
    (
        r#"[origins.app.http]
servers = ["a"]
version = "3""#,
        r#"3:11: `origins.app.http.version` is "3", expected one of "auto", "1.1", "2""#,
        r#"write one of "auto", "1.1", "2""#,
    ),
    (
        r#"[origins.app.http]
servers = ["a"]
version = 2"#,
        "3:11: `origins.app.http.version` is an integer, expected a string",
        r#"put it in quotes: `"2"`"#,
    ),
    (
        r#"[origins.app.http]
servers = ["a"]
host = "https://a""#,
        r#"3:8: `origins.app.http.host` is "https://a", not a host"#,
        "write the host, with a port if it is part of it, without scheme",
    ),
    (
        r#"[origins.app.http]
servers = ["a"]
connect_timeout = "0s""#,
        "3:19: `origins.app.http.connect_timeout` is zero, so nothing would ever be in time",
        r#"write a longer duration, as in "10s""#,
    ),
    (
        r#"[origins.app.s3]
bucket = "b"
unsigned = true"#,
        "1:1: `endpoint` is missing in [origins.app.s3]",
        r#"add `endpoint = "https://s3.eu-central-1.amazonaws.com"`"#,
    ),
    (
        r#"[origins.app.s3]
endpoint = "s3.example"
bucket = "b"
unsigned = true"#,
        r#"2:12: `origins.app.s3.endpoint` is "s3.example", not an endpoint"#,
        r#"start it with https:// or http://, as in "https://s3.eu-central-1.amazonaws.com""#,
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example/b"
bucket = "b"
unsigned = true"#,
        r#"2:12: `origins.app.s3.endpoint` is "https://s3.example/b", not an endpoint"#,
        "leave the path out: the bucket goes into `bucket`, a folder in it into `prefix`",
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b/site"
unsigned = true"#,
        r#"3:10: `origins.app.s3.bucket` is "b/site", not a bucket's name"#,
        "write the bucket's name alone: letters, digits, `-`, `.` and `_`",
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "My_Bucket"
style = "virtual-host"
unsigned = true"#,
        r#"3:10: `origins.app.s3.bucket` is "My_Bucket", not a bucket's name"#,
        r#"write a name that is a host name in lower case, or use `style = "path"`"#,
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b""#,
        "1:1: `origins.app.s3` has no credentials: neither keys nor `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` in the environment",
        "set the variables, add `access_key_id` and `secret_access_key`, or for a public bucket `unsigned = true`",
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
access_key_id = "k""#,
        "4:17: `origins.app.s3.access_key_id` stands without `secret_access_key`",
        r#"add `secret_access_key = { env = "NAME" }`"#,
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
session_token = "k""#,
        "4:17: `origins.app.s3.session_token` stands without `access_key_id`",
        r#"add `access_key_id = { env = "NAME" }`"#,
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
access_key_id = "k"
secret_access_key = "s"
unsigned = true"#,
        "6:12: `origins.app.s3.unsigned` is true, yet there is `access_key_id`, `secret_access_key`",
        "remove `unsigned` to sign requests, or the credentials to send them unsigned",
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
access_key_id = "k"
secret_access_key = { file = "/nonexistent/secret" }"#,
        "5:30: `/nonexistent/secret` for `origins.app.s3.secret_access_key` cannot be read: No such file or directory (os error 2)",
        "check the path (relative ones start at this file's folder) and its permissions",
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
unsigned = true
prefix = "/site/""#,
        r#"5:10: `origins.app.s3.prefix` is "/site/": object keys have no leading slash"#,
        r#"write "site/""#,
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
unsigned = true
strip_prefix = "static""#,
        r#"5:16: `origins.app.s3.strip_prefix` is "static", which no request path starts with"#,
        r#"write "/static""#,
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
unsigned = true
directory_redirect = true"#,
        "5:22: `origins.app.s3.directory_redirect` needs an index document",
        r#"add `index = "index.html"`"#,
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
unsigned = true
error_documents = { "200" = "ok.html" }"#,
        "5:29: `origins.app.s3.error_documents` is for `200`, not an error status",
        r#"write a status from 400 to 599, as in { "404" = "404.html" }"#,
    ),
    (
        r#"[origins.app.s3]
endpoint = "https://s3.example"
bucket = "b"
unsigned = true
allow_amz_headers = ["etag"]"#,
        r#"5:22: `origins.app.s3.allow_amz_headers[0]` is "etag", not an x-amz- field"#,
        r#"write names as in "x-amz-version-id"; other fields pass without being listed"#,
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]"#,
        "1:1: `sites[0]` has no routes",
        r#"add `[[sites.routes]]` with `path = "/"` and `origin` below it"#,
    ),
    (
        r#"[[sites]]
[[sites.routes]]
path = "/"
origin = "app""#,
        "1:1: `hosts` is missing in `sites[0]`",
        r#"add `hosts = ["www.example.com"]`"#,
    ),
    (
        r#"[[sites]]
hosts = []
[[sites.routes]]
path = "/"
origin = "app""#,
        "2:9: `sites[0].hosts` is empty",
        r#"name the hosts of this site, or `["*"]` for every host"#,
    ),
    (
        r#"[[sites]]
hosts = ["*", "a.example"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"2:10: `sites[0].hosts[0]` is "*", every host, beside others"#,
        r#"keep "*" alone; hosts that differ from it belong to a site of their own"#,
    ),
    (
        r#"[[sites]]
hosts = ["a.example:80"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"2:10: `sites[0].hosts[0]` is "a.example:80", not a host"#,
        r#"leave the port out: "a.example""#,
    ),
    (
        r#"[[sites]]
hosts = ["www.*.example"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"2:10: `sites[0].hosts[0]` is "www.*.example", not a host"#,
        r#"`*` stands for whole labels at one end: "*.example.com", "www.*", or "*""#,
    ),
    (
        r#"[[sites]]
hosts = ["bücher.example"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"2:10: `sites[0].hosts[0]` is "bücher.example", not a host"#,
        "write an international name in its ASCII form (xn--…)",
    ),
    (
        r#"[[sites]]
hosts = ["~(a"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"2:10: `sites[0].hosts[0]` is "~(a", a broken regular expression: unclosed group"#,
        "correct it; in TOML a regular expression is easiest between single quotes",
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
[[sites.routes]]
path = "/"
origin = "app"
[[sites]]
hosts = ["b.example", "A.Example."]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"7:23: `sites[1].hosts[1]` is "A.Example.", a host that line 2 takes already"#,
        "list a host in one site, and once",
    ),
    (
        r#"[[sites]]
name = "x"
hosts = ["a"]
[[sites.routes]]
path = "/"
origin = "app"
[[sites]]
name = "x"
hosts = ["b"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"8:8: `sites[1].name` is "x", the name of the site in line 2 too"#,
        "give each site a name of its own: logs and metrics tell them apart by it",
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
https_redirect = true
[[sites.routes]]
path = "/"
origin = "app""#,
        "3:18: `sites[0].https_redirect` is true, but nothing listens for HTTPS",
        r#"add `https = ["0.0.0.0:443"]` to [listen] and a [tls] table, or remove this key"#,
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
[[sites.routes]]
path = "/"
origin = "ap""#,
        r#"5:10: `sites[0].routes[0].origin` is "ap", an origin that is not declared"#,
        r#"did you mean "app"? The origins are `app`"#,
    ),
    (
        r#"[origins.one.http]
servers = ["a"]
[origins.two.http]
servers = ["b"]
[[sites]]
hosts = ["a.example"]
[[sites.routes]]
path = "/"
origin = "three""#,
        r#"9:10: `sites[0].routes[0].origin` is "three", an origin that is not declared"#,
        "write one of `one`, `two`, or declare it",
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
[[sites.routes]]
origin = "app""#,
        "3:1: `path` is missing in `sites[0].routes[0]`",
        r#"add `path = "/"`"#,
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
[[sites.routes]]
path = "static"
origin = "app""#,
        r#"4:8: `sites[0].routes[0].path` is "static", not a path"#,
        r#"write "/static", or "~static" if it is a regular expression"#,
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
[[sites.routes]]
path = "/static/*"
origin = "app""#,
        r#"4:8: `sites[0].routes[0].path` is "/static/*", not a path"#,
        r#"a path is a prefix, so leave the `*` out; for more write "~regex""#,
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
[[sites.routes]]
path = '~[z-a]'
origin = "app""#,
        r#"4:8: `sites[0].routes[0].path` is "~[z-a]", a broken regular expression: invalid character class range, the start must be <= the end"#,
        "correct it; in TOML a regular expression is easiest between single quotes",
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
[[sites.routes]]
path = "/"
origin = "app"
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"7:8: `sites[0].routes[1].path` is "/", the path of line 4 too"#,
        "keep one route for a path",
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
[[sites.routes]]
path = "/"
origin = "app"
max_request_body = "big""#,
        r#"6:20: `sites[0].routes[0].max_request_body` is "big", not a size"#,
        r#"write a number with a unit, as in "256 MiB" or "2 GB""#,
    ),
    (
        r#"[[sites]]
hosts = ["a.example"]
[sites.routes]
path = "/"
origin = "app""#,
        "3:1: `sites[0].routes` is a table, expected an array of tables",
        "write `[[sites.routes]]`, with two brackets",
    ),
    (
        r#"[sites]
hosts = ["a.example"]"#,
        "1:1: `sites` is a table, expected an array of tables",
        "write `[[sites]]`, with two brackets",
    ),
];
