//! Slips in what sites are told of schemes, access and traffic.

use super::Case;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    (
        r#"[[sites]]
hosts = ["*"]
https = "redirct"
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"3:9: `sites[0].https` is "redirct", expected one of "redirect", "noredirect", "nohttp", "nohttps""#,
        r#"did you mean "redirect"?"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
https = "nohttp"
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"3:9: `sites[0].https` is "nohttp", but nothing listens for HTTPS"#,
        r#"add `https = ["0.0.0.0:443"]` to [listen] and a [tls] table, or remove this key"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
non_get_redirect = 302
[[sites.routes]]
path = "/"
origin = "app""#,
        "3:20: `sites[0].non_get_redirect` is 302, expected one of 301, 307, 308",
        "write one of 301, 307, 308",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
no_route = "teapot"
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"3:12: `sites[0].no_route` is "teapot", not an answer"#,
        r#"write a status as in 404, a redirect as in "301 https://www.example.com/", or "none""#,
    ),
    (
        r#"[proxies]
trusted = ["10.0.0.1/8"]"#,
        r#"2:12: `proxies.trusted[0]` is "10.0.0.1/8", whose address has bits beyond its length"#,
        r#"write "10.0.0.0/8""#,
    ),
    (
        r#"[unknown_hosts]
default_host = "www.example.com""#,
        r#"2:16: `unknown_hosts.default_host` is "www.example.com", a host of no site"#,
        "write one of the `hosts` of a site, just as it stands there",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[sites.auth]
users = ["anna:secret"]
[[sites.routes]]
path = "/"
origin = "app""#,
        "4:9: `sites[0].auth.users` is of no use: line 1 has a hash of no kind that is known here",
        "write lines of `name:hash` with hashes of bcrypt (`htpasswd -B`), apr1, SHA, or crypt's $5$ and $6$",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[[sites.routes]]
path = '~\.php$'
origin = "app"
replace_prefix = "/""#,
        "6:18: `sites[0].routes[0].replace_prefix` has no effect: the route's path is a regular expression",
        "give the route a prefix, or rewrite by a rule: `[sites.rules.rewrite]`",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[[sites.rules]]
forward = { groups = [{ origin = "ap" }] }
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:34: `sites[0].rules[0].forward.groups[0].origin` is "ap", an origin that is not declared"#,
        r#"did you mean "app"? The origins are `app`"#,
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[[sites.rules]]
redirect = { to = "https://$hosts/" }
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"4:19: `sites[0].rules[0].redirect.to` is "https://$hosts/": there is no placeholder `$hosts`"#,
        "there are `$scheme`, `$host`, `$port`, `$path`, `$query` and `$request_uri`; write `$$` for a dollar",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[[sites.rules]]
name = "idle"
[[sites.routes]]
path = "/"
origin = "app""#,
        "3:1: `sites[0].rules[0]` does nothing",
        "add one of `forward`, `redirect`, `respond`, `drop = true`, `rewrite` and `mirror`",
    ),
    (
        r#"[[sites]]
hosts = ["*"]
[[sites.rules]]
drop = true
match = { paths = ["api"] }
[[sites.routes]]
path = "/"
origin = "app""#,
        r#"5:20: `sites[0].rules[0].match.paths[0]` is "api", not a path"#,
        r#"write a prefix as "/api/", one path as "=/api", or a regular expression as "~^/api"; the query has its own key"#,
    ),
];
