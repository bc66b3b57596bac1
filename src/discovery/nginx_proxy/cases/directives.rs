//! nginx's directives in `vhost.d`.

use super::{Case, World, case, world};

const AREA: &str = "Directives in vhost.d";

pub(super) fn cases() -> Vec<Case> {
    let with = |text: &str| -> World { world().container("web", &["VIRTUAL_HOST=a.b"]).vhost("a.b", text) };
    vec![
        case(
            AREA,
            "client_max_body_size, in bytes or with k, m, g",
            with("client_max_body_size 20m;"),
            ["max_body: Some(20971520)"],
        ),
        case(AREA, "client_max_body_size 0 is no limit", with("client_max_body_size 0;"), ["max_body: Some(0)"]),
        case(AREA, "proxy_read_timeout", with("proxy_read_timeout 300;"), ["read_timeout: Some(300s)"]),
        case(AREA, "proxy_connect_timeout", with("proxy_connect_timeout 1m;"), ["connect_timeout: Some(60s)"]),
        case(AREA, "proxy_send_timeout", with("proxy_send_timeout 90s;"), ["send_timeout: Some(90s)"]),
        case(
            AREA,
            "add_header, `always` or not",
            with("add_header X-A \"b c\" always; add_header X-D e;"),
            ["response_add: [(\"x-a\", \"b c\"), (\"x-d\", \"e\")]"],
        ),
        case(
            AREA,
            "add_header with $host, $remote_addr and $request_id",
            with("add_header X-A $host-${remote_addr}-$request_id;"),
            ["(\"x-a\", \"$host-$client_ip-$request_id\")"],
        ),
        case(
            AREA,
            "add_header with another variable is named as not translated",
            with("add_header X-A $upstream_addr;"),
            [
                "response_add: []",
                "problem a.b -: vhost.d/a.b line 1: `add_header X-A $upstream_addr` has the variable `$upstream_addr`",
            ],
        ),
        case(AREA, "proxy_set_header", with("proxy_set_header X-A b;"), ["request_set: [(\"x-a\", \"b\")]"]),
        case(
            AREA,
            "proxy_set_header with an empty value removes the field",
            with("proxy_set_header X-A \"\";"),
            ["request_remove: [\"x-a\"]"],
        ),
        case(
            AREA,
            "proxy_hide_header",
            with("proxy_hide_header X-Powered-By;"),
            ["response_remove: [\"x-powered-by\"]"],
        ),
        case(AREA, "return with a status", with("return 410;"), ["answer: Some(Text(410, \"\"))"]),
        case(
            AREA,
            "return with a status and a text",
            with("return 200 'User-agent: *';"),
            ["answer: Some(Text(200, \"User-agent: *\"))"],
        ),
        case(
            AREA,
            "return with a redirect",
            with("return 301 https://x.y$request_uri;"),
            ["answer: Some(Redirect(301, \"https://x.y$request_uri\"))"],
        ),
        case(
            AREA,
            "return with an address alone is 302",
            with("return https://x.y/;"),
            ["answer: Some(Redirect(302, \"https://x.y/\"))"],
        ),
        case(AREA, "return 444 closes the connection", with("return 444;"), ["answer: Some(Close)"]),
        case(
            AREA,
            "rewrite of the path",
            with("rewrite ^/old/(.*)$ /new/$1 last;"),
            ["rewrites: [Rewrite { regex: \"^/old/(.*)$\", replacement: \"/new/$1\", redirect: None }]"],
        ),
        case(
            AREA,
            "rewrite permanent and redirect",
            with("rewrite ^/a$ /b permanent; rewrite ^/c$ /d redirect;"),
            ["redirect: Some(301)", "redirect: Some(302)"],
        ),
        case(
            AREA,
            "rewrite with an expression that cannot be used is named",
            with("rewrite ^/(?!x) /b last;"),
            ["rewrites: []", "line 1: `rewrite ^/(?!x) /b last` has an expression"],
        ),
        case(
            AREA,
            "allow and deny, in order",
            with("allow 10.0.0.0/8; allow 192.0.2.1; deny all;"),
            [
                "access: [AccessRule { allow: true, net: Some(10.0.0.0/8) }, AccessRule { allow: true, net: Some(192.0.2.1/32) }, AccessRule { allow: false, net: None }]",
            ],
        ),
        case(
            AREA,
            "allow with something else than an address is named",
            with("allow unix:;"),
            ["access: []", "line 1: `allow unix:` has `unix:`, not an address"],
        ),
        case(
            AREA,
            "gzip, gzip_types, gzip_min_length",
            with("gzip on; gzip_types text/css text/plain; gzip_min_length 1k;"),
            ["a.b compress true", "gzip_types: [\"text/css\", \"text/plain\"], gzip_min_length: Some(1024)"],
        ),
        case(
            AREA,
            "Directives with nothing to do here are passed over",
            with("proxy_buffering off; proxy_http_version 1.1; client_body_buffer_size 1m;"),
            ["!problem"],
        ),
        case(
            AREA,
            "Any other directive is named with file and line",
            with("client_max_body_size 1m;\n\nauth_request /auth;"),
            ["max_body: Some(1048576)", "problem a.b -: vhost.d/a.b line 3: `auth_request /auth` is not translated"],
        ),
        case(
            AREA,
            "A block is named and left out whole",
            with("location /x {\n  return 404;\n}\nproxy_read_timeout 5s;"),
            [
                "problem a.b -: vhost.d/a.b line 1: `location /x` { … }: blocks are not translated",
                "answer: None",
                "read_timeout: Some(5s)",
            ],
        ),
        case(
            AREA,
            "Comments are left out",
            with("# return 404;\nproxy_read_timeout 5s; # soon"),
            ["answer: None", "read_timeout: Some(5s)", "!problem"],
        ),
        case(
            AREA,
            "A directive without its semicolon is named",
            with("return 404"),
            ["problem a.b -: vhost.d/a.b line 1: `return 404` has no `;`"],
        ),
        case(
            AREA,
            "A quote that does not end is named",
            with("add_header X \"y;"),
            ["problem a.b -: vhost.d/a.b line 1: a quote does not end"],
        ),
        case(
            AREA,
            "A brace too many is named",
            with("return 404; }"),
            ["problem a.b -: vhost.d/a.b line 1: `}` without `{`"],
        ),
        case(
            AREA,
            "A size or a time that is none is named",
            with("client_max_body_size much; proxy_read_timeout long;"),
            ["`client_max_body_size much` has `much`, not a size", "`proxy_read_timeout long` has `long`, not a time"],
        ),
    ]
}
