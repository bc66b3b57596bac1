//! `[sites.cache]`, `[sites.routes.cache]` and what else a route says of requests and responses.

use super::Case;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    (
        r#"[[sites]]
hosts = ["*"]
cache = "on"
[[sites.routes]]
path = "/"
origin = "app""#,
        "3:9: `sites[0].cache` is a string, expected true or false",
        "write `cache = true` or `cache = false`, without quotes",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache]
cookie = "strip"
[[sites.routes]]
path = "/"
origin = "app""#,
        "4:1: unknown key `cookie` in `sites[0].cache`",
        "did you mean `cookies`?",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[[sites.routes]]
path = "/"
origin = "app"
[sites.routes.cache]
cookies = "key:a b""#,
        r#"7:11: `sites[0].routes[0].cache.cookies` is "key:a b", not a way to take cookies"#,
        r#"write "bypass", "strip" or "key:NAME" (more names with commas)"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache]
cookies = "strip"
bypass_cookies = ["session"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"5:18: `sites[0].cache.bypass_cookies` has no effect: `cookies` is "strip""#,
        r#"remove it, or write `cookies = "bypass"`"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache]
slices = "off"
[[sites.routes]]
path = "/"
origin = "app""#,
        "4:10: `sites[0].cache.slices` is a string, expected true or false",
        "write `slices = true` or `slices = false`, without quotes",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache]
authorization = "strips"
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:17: `sites[0].cache.authorization` is "strips", expected one of "standard", "bypass", "strip""#,
        r#"did you mean "strip"?"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache]
set_cookie = "public"
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:14: `sites[0].cache.set_cookie` is "public", expected one of "never", "harmless", "explicit""#,
        r#"write one of "never", "harmless", "explicit""#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache]
default_ttl = "1m"
override_ttl = "1m"
[[sites.routes]]
path = "/"
origin = "app""#,
        "5:16: `sites[0].cache.override_ttl` is given beside `default_ttl`",
        "keep one of them: `override_ttl` counts for every response, `default_ttl` for those that tell no lifetime",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[[sites.cache.ttl]]
status = [404]
[[sites.routes]]
path = "/"
origin = "app""#,
        "3:1: `sites[0].cache.ttl[0]` gives no lifetime",
        r#"add `default_ttl = "5m"` or `override_ttl = "5m"`"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[[sites.cache.ttl]]
status = ["6xx"]
default_ttl = "1m"
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:11: `sites[0].cache.ttl[0].status[0]` is "6xx", not a status"#,
        r#"write a status from 200 to 599, or a class as in "5xx""#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[[sites.cache.ttl]]
content_type = "png"
default_ttl = "1m"
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:16: `sites[0].cache.ttl[0].content_type` is "png", not a media type"#,
        r#"write it without parameters, as in "image/*" or "text/html""#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache]
bypass_paths = ["admin/*"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:17: `sites[0].cache.bypass_paths[0]` is "admin/*", not a path"#,
        r#"begin it with `/` or `*`, as in "/images/*" or "*.pdf", or with `~` for a regular expression"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache.key]
query = "none"
query_ignore = ["a"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"5:16: `sites[0].cache.key.query_ignore` has no effect: `query` is "none""#,
        r#"remove it, or write `query = "all"`"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache.key]
headers = ["Cookie"]
[[sites.routes]]
path = "/"
origin = "app""#,
        "4:11: `sites[0].cache.key.headers` names cookie, which cannot be part of the key",
        r#"name the cookies instead: `cookies = "key:NAME"` in the table above"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache.key]
headers = ["X Country"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:12: `sites[0].cache.key.headers[0]` is "X Country", not a field name"#,
        "use letters, digits and `-`, as in \"X-Request-Source\"",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cache]
bypass_headers = ["Connection"]
[[sites.routes]]
path = "/"
origin = "app""#,
        "4:19: `sites[0].cache.bypass_headers[0]` names connection, which belongs to the connection and not to the message",
        "leave it out: the framing of messages is not open to rules",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.headers]
response_set = { "X-A" = "$hostname" }
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:26: `sites[0].headers.response_set.X-A` is "$hostname": there is no variable `$hostname`"#,
        r#"the variables are `$host`, `$client_ip` and `$request_id`; write `$$` for a dollar"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.headers]
request_set = { "Host" = "x" }
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"3:1: `sites[0].headers` changes the Host of requests"#,
        r#"set `host` of the origin instead: `[origins.NAME.http]` with `host = "app.internal"`"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.headers]
response_remove = ["Transfer-Encoding"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:20: `sites[0].headers.response_remove[0]` names transfer-encoding, which belongs to the connection and not to the message"#,
        r#"leave it out: the framing of messages is not open to rules"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cors]
credentials = false
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"3:1: `origins` is missing in `sites[0].cors`"#,
        r#"add `origins = ["https://app.example.com"]`"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cors]
origins = ["*"]
credentials = true
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"5:15: `sites[0].cors.credentials` is true while every site is allowed"#,
        r#"name the sites in `origins`: else each of them could read what is meant for the user alone"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cors]
origins = ["app.example.com"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:12: `sites[0].cors.origins[0]` is "app.example.com", not a site"#,
        r#"write scheme, host and port as browsers send them, as in "https://app.example.com""#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.cors]
origins = ["*"]
methods = ["get"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"5:12: `sites[0].cors.methods[0]` is "get", not a method"#,
        r#"write some of `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS`"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.compression]
codings = []
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:11: `sites[0].compression.codings` is empty"#,
        r#"name at least one of "br", "zstd", "gzip", or write `enabled = false`"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.compression]
codings = ["br"]
precompressed = ["br", "gzip"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"5:24: `sites[0].compression.precompressed[1]` is "gzip", which `codings` leaves out"#,
        r#"add "gzip" to `codings`: nobody is offered gzip else"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.compression]
precompressed = [".br"]
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:18: `sites[0].compression.precompressed[0]` is ".br", expected one of "br", "zstd", "gzip""#,
        r#"did you mean "br"?"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.compression]
brotli_level = 12
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:16: `sites[0].compression.brotli_level` is 12, out of range"#,
        r#"write a number from 1 to 11, without quotes"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.security]
frame_options = "ALLOW"
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:17: `sites[0].security.frame_options` is "ALLOW", expected one of "SAMEORIGIN", "DENY", "off""#,
        r#"write one of "SAMEORIGIN", "DENY", "off""#,
    ),
];
