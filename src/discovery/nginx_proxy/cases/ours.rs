//! What nginx-proxy does not have.

use super::{Case, case, world};

const AREA: &str = "Beyond nginx-proxy";

pub(super) fn cases() -> Vec<Case> {
    let web = |setting: &str| world().container("web", &["VIRTUAL_HOST=a.b", setting]);
    vec![
        case(AREA, "Nothing is cached by default", world().container("web", &["VIRTUAL_HOST=a.b"]), ["a.b cache Off"]),
        case(AREA, "SELVEDGE_CACHE=on caches what RFC 9111 allows", web("SELVEDGE_CACHE=on"), ["a.b cache On"]),
        case(AREA, "SELVEDGE_CACHE=off", web("SELVEDGE_CACHE=off"), ["a.b cache Off"]),
        case(
            AREA,
            "SELVEDGE_CACHE=10m gives a lifetime to what tells none",
            web("SELVEDGE_CACHE=10m"),
            ["a.b cache Default(600s)"],
        ),
        case(AREA, "Label selvedge.cache", web("selvedge.cache=on"), ["a.b cache On"]),
        case(
            AREA,
            "A SELVEDGE_CACHE that is neither is told",
            web("SELVEDGE_CACHE=much"),
            ["a.b cache Off", "warning a.b -: SELVEDGE_CACHE is `much`"],
        ),
        case(
            AREA,
            "SELVEDGE_TAGS tags all responses of the host for purges",
            web("SELVEDGE_TAGS=shop, front"),
            ["a.b tags [\"shop\", \"front\"]"],
        ),
        case(AREA, "SELVEDGE_MAX_BODY", web("SELVEDGE_MAX_BODY=20 MiB"), ["max_body: Some(20971520)"]),
        case(AREA, "SELVEDGE_MAX_BODY takes nginx's sizes", web("SELVEDGE_MAX_BODY=20m"), ["max_body: Some(20971520)"]),
        case(
            AREA,
            "SELVEDGE_MAX_BODY wins over vhost.d",
            web("SELVEDGE_MAX_BODY=5").vhost("a.b", "client_max_body_size 9;"),
            ["a.b directives Directives { max_body: Some(5)"],
        ),
        case(
            AREA,
            "A SELVEDGE_MAX_BODY that is no size is told",
            web("SELVEDGE_MAX_BODY=big"),
            ["warning a.b -: SELVEDGE_MAX_BODY is `big`"],
        ),
        case(
            AREA,
            "SELVEDGE_READ_TIMEOUT and SELVEDGE_CONNECT_TIMEOUT",
            world().container("web", &["VIRTUAL_HOST=a.b", "SELVEDGE_READ_TIMEOUT=5m", "SELVEDGE_CONNECT_TIMEOUT=2s"]),
            ["connect_timeout: Some(2s), read_timeout: Some(300s)"],
        ),
        case(
            AREA,
            "A timeout that is none is told",
            web("SELVEDGE_READ_TIMEOUT=0"),
            ["warning a.b -: SELVEDGE_READ_TIMEOUT is `0`"],
        ),
        case(
            AREA,
            "SELVEDGE_REQUEST_HEADERS sets and removes fields",
            web("SELVEDGE_REQUEST_HEADERS=X-A: b||-X-C"),
            ["request_set: [(\"x-a\", \"b\")], request_remove: [\"x-c\"]"],
        ),
        case(
            AREA,
            "SELVEDGE_RESPONSE_HEADERS, one to a line",
            web("SELVEDGE_RESPONSE_HEADERS=X-A: b\n-Server\n"),
            ["response_set: [(\"x-a\", \"b\")], response_remove: [\"server\"]"],
        ),
        case(
            AREA,
            "A line that is no field is told",
            web("SELVEDGE_RESPONSE_HEADERS=nonsense"),
            ["warning a.b -: `nonsense` is no field"],
        ),
        case(AREA, "SELVEDGE_COMPRESS", web("SELVEDGE_COMPRESS=on"), ["a.b compress true"]),
        case(AREA, "SELVEDGE_WWW=add redirects the bare name", web("SELVEDGE_WWW=add"), ["a.b www Some(Add)"]),
        case(AREA, "SELVEDGE_WWW=strip redirects www.", web("SELVEDGE_WWW=strip"), ["a.b www Some(Strip)"]),
        case(
            AREA,
            "SELVEDGE_RATE_LIMIT",
            web("SELVEDGE_RATE_LIMIT=600/m burst=50"),
            ["a.b rate Some(RateLimit { requests: 600, per: 60s, burst: 50 })"],
        ),
        case(
            AREA,
            "SELVEDGE_RATE_LIMIT without a burst allows as many as the rate",
            web("SELVEDGE_RATE_LIMIT=100/s"),
            ["RateLimit { requests: 100, per: 1s, burst: 100 }"],
        ),
        case(
            AREA,
            "A SELVEDGE_RATE_LIMIT that is none is told",
            web("SELVEDGE_RATE_LIMIT=fast"),
            ["a.b rate None", "warning a.b -: SELVEDGE_RATE_LIMIT is `fast`"],
        ),
        case(
            AREA,
            "SELVEDGE_BASIC_AUTH holds lines of an htpasswd file",
            web("SELVEDGE_BASIC_AUTH=ann:$apr1$x,bob:$2y$z"),
            ["a.b users Some(\"ann:$apr1$x\\nbob:$2y$z\")"],
        ),
        case(
            AREA,
            "SELVEDGE_ALLOW lets these addresses in",
            web("SELVEDGE_ALLOW=10.0.0.0/8, 192.0.2.1"),
            ["a.b allow [10.0.0.0/8, 192.0.2.1/32]"],
        ),
        case(
            AREA,
            "A SELVEDGE_ALLOW with something else than addresses is told",
            web("SELVEDGE_ALLOW=home"),
            ["warning a.b -: SELVEDGE_ALLOW has `home`"],
        ),
        case(
            AREA,
            "Conflicting SELVEDGE_ values: the oldest container's wins, and the other is told",
            web("SELVEDGE_CACHE=on").container("b", &["VIRTUAL_HOST=a.b", "SELVEDGE_CACHE=off"]),
            ["a.b cache On", "warning a.b b: SELVEDGE_CACHE is `off` here"],
        ),
    ]
}
