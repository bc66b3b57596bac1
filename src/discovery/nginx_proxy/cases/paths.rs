//! Paths, destinations, protocols, several ports.

use super::{Case, World, case, world};

const AREA: &str = "Paths and protocols";
const MULTI: &str = "Several ports of one container";

pub(super) fn cases() -> Vec<Case> {
    let web = |settings: &[&str]| {
        let mut all = vec!["VIRTUAL_HOST=a.b"];
        all.extend(settings);
        world().container("web", &all)
    };
    let multi = |text: &str| -> World { world().container("web", &[&format!("VIRTUAL_HOST_MULTIPORTS={text}")]) };
    vec![
        case(AREA, "VIRTUAL_PATH is / by default", web(&[]), ["a.b / -> http web="]),
        case(
            AREA,
            "VIRTUAL_PATH gives a container one path of its host",
            web(&["VIRTUAL_PATH=/api"]).container("root", &["VIRTUAL_HOST=a.b"]),
            ["a.b /api -> http web=10.0.1.2:80.", "a.b / -> http root=10.0.1.3:80."],
        ),
        case(
            AREA,
            "VIRTUAL_PATH ~regex beats prefixes",
            web(&["VIRTUAL_PATH=~^/(app|alt)/"]),
            ["a.b ~^/(app|alt)/ -> http web="],
        ),
        case(AREA, "VIRTUAL_PATH takes nginx's `= /exact`", web(&["VIRTUAL_PATH== /x"]), ["a.b = /x -> http web="]),
        case(AREA, "VIRTUAL_PATH takes nginx's `^~ /prefix`", web(&["VIRTUAL_PATH=^~ /x"]), ["a.b ^~ /x -> http web="]),
        case(
            AREA,
            "VIRTUAL_PATH takes a regex that ignores case",
            web(&["VIRTUAL_PATH=~* \\.png$"]),
            ["a.b ~* \\.png$ -> http web="],
        ),
        case(
            AREA,
            "A VIRTUAL_PATH without a leading slash is a problem of that path alone",
            web(&["VIRTUAL_PATH=api"]).container("root", &["VIRTUAL_HOST=a.b"]),
            ["problem a.b -: VIRTUAL_PATH: `api` does not start with `/`", "a.b / -> http root="],
        ),
        case(
            AREA,
            "Without VIRTUAL_DEST the path stays as it is",
            web(&["VIRTUAL_PATH=/api/"]),
            ["a.b /api/ dest None"],
        ),
        case(
            AREA,
            "An empty VIRTUAL_DEST leaves the path as it is",
            web(&["VIRTUAL_PATH=/api/", "VIRTUAL_DEST="]),
            ["a.b /api/ dest None", "!warning"],
        ),
        case(
            AREA,
            "VIRTUAL_DEST replaces the matched prefix as text",
            web(&["VIRTUAL_PATH=/api/", "VIRTUAL_DEST=/"]),
            ["a.b /api/ dest Some(\"/\")"],
        ),
        case(
            AREA,
            "VIRTUAL_DEST is left out with a regex, loudly",
            web(&["VIRTUAL_PATH=~^/x", "VIRTUAL_DEST=/"]),
            ["a.b ~^/x dest None", "warning a.b -: VIRTUAL_DEST `/` is left out"],
        ),
        case(
            AREA,
            "A VIRTUAL_DEST that is no path is left out, loudly",
            web(&["VIRTUAL_PATH=/x", "VIRTUAL_DEST=x"]),
            ["a.b /x dest None", "warning a.b -: VIRTUAL_DEST `x` is left out"],
        ),
        case(AREA, "VIRTUAL_PROTO is http by default", web(&[]), ["a.b / -> http web="]),
        case(
            AREA,
            "VIRTUAL_PROTO https",
            web(&["VIRTUAL_PROTO=https", "VIRTUAL_PORT=443"]),
            ["a.b / -> https web=10.0.1.2:443."],
        ),
        case(AREA, "VIRTUAL_PROTO grpc", web(&["VIRTUAL_PROTO=grpc"]), ["a.b / -> grpc web="]),
        case(AREA, "VIRTUAL_PROTO grpcs", web(&["VIRTUAL_PROTO=grpcs"]), ["a.b / -> grpcs web="]),
        case(AREA, "VIRTUAL_PROTO in capitals is the same", web(&["VIRTUAL_PROTO=HTTPS"]), ["a.b / -> https web="]),
        case(
            AREA,
            "VIRTUAL_PROTO uwsgi: 503 for the host, loudly",
            web(&["VIRTUAL_PROTO=uwsgi"]),
            ["a.b refused true", "problem a.b -: VIRTUAL_PROTO uwsgi is not spoken here"],
        ),
        case(
            AREA,
            "VIRTUAL_PROTO fastcgi: 503 for the host, loudly",
            web(&["VIRTUAL_PROTO=fastcgi", "VIRTUAL_ROOT=/srv"]),
            ["a.b refused true", "problem a.b -: VIRTUAL_PROTO fastcgi is not spoken here", "info a.b -: VIRTUAL_ROOT"],
        ),
        case(
            AREA,
            "A VIRTUAL_PROTO that nobody knows: 503 for the host, loudly",
            web(&["VIRTUAL_PROTO=gopher"]),
            ["a.b refused true", "problem a.b -: VIRTUAL_PROTO is `gopher`"],
        ),
        case(
            AREA,
            "uwsgi of one host leaves the other hosts alone",
            web(&["VIRTUAL_PROTO=uwsgi"]).container("c", &["VIRTUAL_HOST=c.d"]),
            ["a.b refused true", "c.d refused false", "c.d / -> http c="],
        ),
        case(
            AREA,
            "Conflicting protocols of one path: the oldest container's wins, and the other is told",
            web(&["VIRTUAL_PROTO=https"]).container("b", &["VIRTUAL_HOST=a.b", "VIRTUAL_PROTO=http"]),
            ["a.b / -> https web=10.0.1.2:80 b=", "warning a.b b: VIRTUAL_PROTO is `http` here"],
        ),
        case(
            MULTI,
            "VIRTUAL_HOST_MULTIPORTS in YAML",
            multi("www.a.b:\napi.a.b:\n  \"/\":\n    port: 8000\n  \"/v2\":\n    port: 9000\n    dest: \"/\"\n"),
            [
                "www.a.b / -> http web=10.0.1.2:80.",
                "api.a.b / -> http web=10.0.1.2:8000.",
                "api.a.b /v2 -> http web=10.0.1.2:9000.",
                "api.a.b /v2 dest Some(\"/\")",
            ],
        ),
        case(
            MULTI,
            "VIRTUAL_HOST_MULTIPORTS in JSON",
            multi("{\"a.b\": {\"/\": {\"port\": 8000, \"proto\": \"https\"}}}"),
            ["a.b / -> https web=10.0.1.2:8000."],
        ),
        case(
            MULTI,
            "A host without a table has path / and the default port",
            multi("a.b: {}").exposing(&[3000]),
            ["a.b / -> http web=10.0.1.2:3000."],
        ),
        case(
            MULTI,
            "A path without a table has the default port",
            multi("a.b:\n  /x:\n"),
            ["a.b /x -> http web=10.0.1.2:80.", "!a.b / ->"],
        ),
        case(
            MULTI,
            "`port: default` is the default port",
            multi("a.b: {/: {port: default}}").exposing(&[5000]),
            ["web=10.0.1.2:5000."],
        ),
        case(MULTI, "A port as text is a port", multi("a.b: {/: {port: \"81\"}}"), ["web=10.0.1.2:81."]),
        case(
            MULTI,
            "It overrides the container's other VIRTUAL_ variables",
            world().container(
                "web",
                &[
                    "VIRTUAL_HOST=x.y",
                    "VIRTUAL_PORT=1",
                    "VIRTUAL_PATH=/p",
                    "VIRTUAL_PROTO=https",
                    "VIRTUAL_HOST_MULTIPORTS=a.b: {/: {port: 8000}}",
                ],
            ),
            ["a.b / -> http web=10.0.1.2:8000.", "!x.y"],
        ),
        case(
            MULTI,
            "It joins other containers of the host",
            multi("a.b: {/: {port: 8000}}").container("b", &["VIRTUAL_HOST=a.b"]),
            ["a.b / -> http web=10.0.1.2:8000 b=10.0.1.3:80."],
        ),
        case(
            MULTI,
            "Bad YAML: none of its hosts is served, loudly; others are",
            multi("a.b: {").container("b", &["VIRTUAL_HOST=c.d"]),
            ["problem - web: VIRTUAL_HOST_MULTIPORTS cannot be used", "c.d / -> http b=", "!a.b / ->"],
        ),
        case(
            MULTI,
            "Duplicate keys: none of its hosts is served, loudly",
            multi("a.b:\n  /x: {port: 1}\n  /x: {port: 2}\n"),
            ["problem - web: VIRTUAL_HOST_MULTIPORTS cannot be used", "!a.b /x ->"],
        ),
        case(
            MULTI,
            "A text that is no table: loudly",
            multi("just words"),
            ["problem - web: VIRTUAL_HOST_MULTIPORTS cannot be used, so none of its hosts is served: it is no table"],
        ),
        case(
            MULTI,
            "Keys without a leading slash are skipped, loudly",
            multi("a.b: {x: {port: 1}, /y: {port: 2}}"),
            ["a.b /y -> http web=10.0.1.2:2.", "problem - web: VIRTUAL_HOST_MULTIPORTS: `x` of `a.b` is skipped"],
        ),
        case(
            MULTI,
            "A host with nothing but skipped keys has path /",
            multi("a.b: {x: {port: 1}}"),
            ["a.b / -> http web=10.0.1.2:80."],
        ),
        case(
            MULTI,
            "A port that is none leaves out that path's server, loudly",
            multi("a.b: {/: {port: 0}, /x: {port: 5}}"),
            ["a.b / -> http.", "a.b /x -> http web=10.0.1.2:5.", "problem a.b web: port is `0`"],
        ),
        case(
            MULTI,
            "EXTERNAL_HTTP_PORT gives the host a listener of its own",
            web(&["EXTERNAL_HTTP_PORT=8080"]),
            ["a.b ports Ports { http: Some(8080), https: None }"],
        ),
        case(
            MULTI,
            "EXTERNAL_HTTPS_PORT gives the host a listener of its own",
            web(&["EXTERNAL_HTTPS_PORT=8443"]),
            ["a.b ports Ports { http: None, https: Some(8443) }"],
        ),
        case(
            MULTI,
            "An external port that is the proxy's own changes nothing",
            web(&["EXTERNAL_HTTP_PORT=80"]),
            ["a.b ports Ports { http: None, https: None }"],
        ),
        case(
            MULTI,
            "A multiports external port wins for the whole host",
            web(&["EXTERNAL_HTTP_PORT=8080"])
                .container("m", &["VIRTUAL_HOST_MULTIPORTS=a.b: {external_http_port: 9090, /x: {}}"]),
            ["a.b ports Ports { http: Some(9090), https: None }"],
        ),
        case(
            MULTI,
            "An external port that is none is told",
            web(&["EXTERNAL_HTTP_PORT=x"]),
            ["warning a.b web: EXTERNAL_HTTP_PORT is `x`", "ports Ports { http: None"],
        ),
        case(
            MULTI,
            "A number where a host belongs is skipped, loudly",
            multi("1: {}\na.b: {}"),
            ["problem - web: VIRTUAL_HOST_MULTIPORTS has `1` where a host belongs", "a.b / -> http"],
        ),
    ]
}
