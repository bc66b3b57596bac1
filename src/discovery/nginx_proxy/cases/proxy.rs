//! The proxy's own variables.

use super::{Case, case, world};

const AREA: &str = "The proxy's variables";

pub(super) fn cases() -> Vec<Case> {
    let with = |name: &str, value: &str| world().container("web", &["VIRTUAL_HOST=a.b"]).proxy(name, value);
    vec![
        case(AREA, "HTTP_PORT and HTTPS_PORT are 80 and 443", world(), ["http_port: 80, https_port: 443"]),
        case(AREA, "HTTP_PORT", with("HTTP_PORT", "8080"), ["http_port: 8080"]),
        case(AREA, "HTTPS_PORT", with("HTTPS_PORT", "8443"), ["https_port: 8443"]),
        case(
            AREA,
            "A port that is none is told, and the default counts",
            with("HTTP_PORT", "0"),
            ["proxy: HTTP_PORT is `0`, not a port", "http_port: 80"],
        ),
        case(
            AREA,
            "DEFAULT_HOST answers for unknown hosts",
            with("DEFAULT_HOST", "A.b"),
            ["fallback Fallback { default_host: Some(\"a.b\")"],
        ),
        case(
            AREA,
            "A DEFAULT_HOST that no container has is told, and none is used",
            with("DEFAULT_HOST", "x.y"),
            ["default_host: None", "warning x.y -: DEFAULT_HOST is `x.y`"],
        ),
        case(AREA, "DEFAULT_ROOT is 404", with("X", "y"), ["default_root: Status(404)"]),
        case(AREA, "DEFAULT_ROOT another status", with("DEFAULT_ROOT", "418"), ["default_root: Status(418)"]),
        case(
            AREA,
            "DEFAULT_ROOT a redirect",
            with("DEFAULT_ROOT", "301 https://a.b/start"),
            ["default_root: Redirect(301, \"https://a.b/start\")"],
        ),
        case(AREA, "DEFAULT_ROOT none", with("DEFAULT_ROOT", "none"), ["default_root: None"]),
        case(
            AREA,
            "A DEFAULT_ROOT that is neither is told",
            with("DEFAULT_ROOT", "go away now"),
            ["proxy: DEFAULT_ROOT is `go away now`", "default_root: Status(404)"],
        ),
        case(AREA, "TRUST_DOWNSTREAM_PROXY is true", world(), ["trust_downstream: true"]),
        case(
            AREA,
            "TRUST_DOWNSTREAM_PROXY=false",
            with("TRUST_DOWNSTREAM_PROXY", "false"),
            ["trust_downstream: false"],
        ),
        case(AREA, "ENABLE_IPV6", with("ENABLE_IPV6", "true"), ["ipv6: true"]),
        case(AREA, "ENABLE_HTTP2 is true", world(), ["http2: true"]),
        case(
            AREA,
            "ENABLE_HTTP2=false is told: HTTP/2 stays",
            with("ENABLE_HTTP2", "false"),
            ["proxy: ENABLE_HTTP2 is false, but HTTP/2 stays"],
        ),
        case(
            AREA,
            "ENABLE_HTTP3=true is told: HTTP/3 is not spoken",
            with("ENABLE_HTTP3", "true"),
            ["proxy: ENABLE_HTTP3 is true"],
        ),
        case(AREA, "ENABLE_PROXY_PROTOCOL", with("ENABLE_PROXY_PROTOCOL", "true"), ["proxy_protocol: true"]),
        case(
            AREA,
            "RESOLVERS is read, and it says that names are looked up as the system says",
            with("RESOLVERS", "127.0.0.11 [fd00::1]"),
            ["resolvers: [127.0.0.11, fd00::1]", "proxy: RESOLVERS has no effect"],
        ),
        case(
            AREA,
            "A boolean that is none is told, and the default counts",
            with("ENABLE_HTTP2", "maybe"),
            ["proxy: ENABLE_HTTP2 is `maybe`, neither true nor false", "http2: true"],
        ),
        case(
            AREA,
            "LOG_JSON and DISABLE_ACCESS_LOGS",
            with("LOG_JSON", "true").proxy("DISABLE_ACCESS_LOGS", "1"),
            ["log_json: true", "access_log: false"],
        ),
        case(
            AREA,
            "LOG_FORMAT is nginx's, with its variables; one that is not known is told",
            with("LOG_FORMAT", "$host [$time_local]"),
            ["log_format: Some(\"$host [$time_local]\")"],
        ),
        case(
            AREA,
            "DHPARAM_BITS is told: there is nothing to do",
            with("DHPARAM_BITS", "2048"),
            ["proxy: DHPARAM_BITS has no effect"],
        ),
        case(AREA, "DEBUG_ENDPOINT of the proxy", with("DEBUG_ENDPOINT", "true"), ["a.b debug true"]),
        case(
            AREA,
            "Label debug-endpoint of one host",
            world().container("web", &["VIRTUAL_HOST=a.b", "com.github.nginx-proxy.nginx-proxy.debug-endpoint=true"]),
            ["a.b debug true"],
        ),
        case(
            AREA,
            "SERVER_TOKENS has nothing to do",
            world().container("web", &["VIRTUAL_HOST=a.b", "SERVER_TOKENS=off"]),
            ["info a.b -: SERVER_TOKENS has nothing to do"],
        ),
        case(AREA, "NETWORK_ACCESS is external", with("X", "y"), ["a.b access External"]),
        case(
            AREA,
            "NETWORK_ACCESS=internal",
            world().container("web", &["VIRTUAL_HOST=a.b", "NETWORK_ACCESS=internal"]),
            ["a.b access Internal"],
        ),
        case(
            AREA,
            "A NETWORK_ACCESS that is neither is told",
            world().container("web", &["VIRTUAL_HOST=a.b", "NETWORK_ACCESS=lan"]),
            ["a.b access External", "warning a.b -: NETWORK_ACCESS is `lan`"],
        ),
        case(
            AREA,
            "ACME_HTTP_CHALLENGE_ACCEPT_UNKNOWN_HOST answers challenges for hosts that nobody has",
            with("ACME_HTTP_CHALLENGE_ACCEPT_UNKNOWN_HOST", "true").challenges(),
            ["challenges: true"],
        ),
        case(
            AREA,
            "Challenges for hosts that nobody has are not answered unless told to",
            world().challenges(),
            ["challenges: false"],
        ),
        case(
            AREA,
            "errors/50x.html is the page of hosts that nobody has",
            world().error_page("<p>closed"),
            ["error_page: Some(\"<p>closed\")"],
        ),
    ]
}
