//! Passwords and the choice of `vhost.d` files.

use super::{Case, case, world};

const AREA: &str = "Files of a host";

/// SHA-1 of `/` and of `/api`, as `sha1sum` prints them.
const ROOT: &str = "42099b4af021e53fd8fd4e056c2568d7c2e3ffa8";

pub(super) fn cases() -> Vec<Case> {
    let web = || world().container("web", &["VIRTUAL_HOST=a.b"]);
    let of = |name: &str| web().vhost(name, "client_max_body_size 7;");
    vec![
        case(
            AREA,
            "htpasswd/<host> protects the host",
            web().htpasswd("a.b"),
            ["a.b / auth Some(BasicAuth { file: \"a.b\", realm: \"Restricted a.b\" })"],
        ),
        case(
            AREA,
            "htpasswd/<host>_<sha1 of the path> protects one path, and wins",
            web().htpasswd("a.b").htpasswd(&format!("a.b_{ROOT}")),
            ["realm: \"Restricted a.b/\""],
        ),
        case(AREA, "Without a file there is no password", web(), ["a.b / auth None"]),
        case(
            AREA,
            "A regex host's files are named by its SHA-1",
            world().container("web", &["VIRTUAL_HOST=~^x"]).htpasswd("fcbd445ee5f0c44b6ea66a8ef5d9af3c69f1d923"),
            ["file: \"fcbd445ee5f0c44b6ea66a8ef5d9af3c69f1d923\", realm: \"Restricted ~^x\""],
        ),
        case(AREA, "vhost.d/<host> counts for the host", of("a.b"), ["a.b directives Directives { max_body: Some(7)"]),
        case(
            AREA,
            "vhost.d/default counts where the host has none",
            of("default"),
            ["a.b directives Directives { max_body: Some(7)"],
        ),
        case(
            AREA,
            "vhost.d/<host> wins over default",
            of("default").vhost("a.b", "client_max_body_size 9;"),
            ["a.b directives Directives { max_body: Some(9)"],
        ),
        case(
            AREA,
            "vhost.d/<host>_location counts for its locations",
            of("a.b_location"),
            ["a.b / directives Directives { max_body: Some(7)", "a.b directives Directives { max_body: None"],
        ),
        case(
            AREA,
            "vhost.d/default_location counts where the host has none",
            of("default_location"),
            ["a.b / directives Directives { max_body: Some(7)"],
        ),
        case(
            AREA,
            "vhost.d/<host>_<sha1>_location wins over <host>_location",
            of("a.b_location").vhost(&format!("a.b_{ROOT}_location"), "client_max_body_size 8;"),
            ["a.b / directives Directives { max_body: Some(8)"],
        ),
        case(
            AREA,
            "A …_location_override is not translated, loudly",
            web().vhost("a.b_location_override", "return 404;"),
            ["problem a.b -: vhost.d/a.b_location_override replaces a whole location"],
        ),
        case(
            AREA,
            "Files of other hosts concern this one not",
            of("c.d"),
            ["a.b directives Directives { max_body: None"],
        ),
    ]
}
