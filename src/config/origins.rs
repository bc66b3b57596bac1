//! `[origins.NAME.http]` and `[origins.NAME.s3]`.

mod balance;

use super::reader::{Table, Value, list, shown};
use crate::origin::{Settings, http, s3};
use crate::types::{HostName, Secret};
use http::{HttpVersion, ServerAddress, Timeouts};
use s3::{AddressingStyle, Credentials, Endpoint};
use std::time::Duration;

/// Every declared origin by name; `None` for one with a problem, so that routes to it are not reported too.
pub(super) fn origins<'a>(root: &Table<'a>) -> Vec<(&'a str, Option<Settings>)> {
    let read = |table: &Table<'a>| {
        let origin = |(name, value): (&'a str, Value<'a>)| (name, value.table(origin).flatten());
        table.named().into_iter().map(origin).collect()
    };
    root.section("origins", read).unwrap_or_default()
}

fn origin(table: &Table<'_>) -> Option<Settings> {
    let (http, s3) = (table.get("http"), table.get("s3"));
    match (&http, &s3) {
        (Some(_), Some(second)) => second.problem(
            format!("`{}` is both an HTTP and an S3 origin", table.path),
            "keep one of them, or give each a name of its own",
        ),
        (None, None) => table.absence(
            format!("`{}` says nothing about how to reach it", table.path),
            format!("add `[{0}.http]` with `servers`, or `[{0}.s3]` with `endpoint` and `bucket`", table.path),
        ),
        _ => {}
    }
    // Both are read even when one is too many, so that their own problems are named as well.
    let http = http.and_then(|v| v.table(http_origin)).flatten().map(Settings::Http);
    http.or(s3.and_then(|v| v.table(s3_origin)).flatten().map(Settings::S3))
}

fn http_origin(table: &Table<'_>) -> Option<http::Settings> {
    let tls = table.get("tls").and_then(|v| v.boolean()).unwrap_or(false);
    let servers = table.required("servers", "[\"127.0.0.1:8080\"]").and_then(|v| balance::servers(&v, tls));
    let tls_verify_value = table.get("tls_verify");
    let tls_verify = tls_verify_value.as_ref().and_then(Value::boolean).unwrap_or(true);
    let tls_server_name_value = table.get("tls_server_name");
    let tls_server_name = tls_server_name_value.as_ref().and_then(server_name);
    for value in [tls_verify_value, tls_server_name_value].into_iter().flatten().filter(|_| !tls) {
        value.problem(format!("`{}` has no effect without TLS", value.path), "add `tls = true`, or remove this key");
    }
    let versions = [("auto", HttpVersion::Auto), ("1.1", HttpVersion::Http1), ("2", HttpVersion::Http2)];
    let version = table.get("version").and_then(|v| v.one_of(&versions)).unwrap_or_default();
    let host = table.get("host").and_then(|v| host_field(&v));
    let timeouts = timeouts(table);
    let max_fails = table.get("max_fails").and_then(|v| v.integer(0..=1_000_000));
    let sticky_cookie = table.get("sticky_cookie").and_then(|value| {
        let name = value.text("\"JSESSIONID\"")?;
        // The names of cookies are tokens, as those of fields are (RFC 6265 section 4.1.1), but case counts.
        let usable = ::http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if !usable {
            value.problem(
                format!("`{}` is \"{}\", not a cookie's name", value.path, value.shown()),
                "write the name that the servers give it, as in \"JSESSIONID\"",
            );
        }
        usable.then(|| name.to_owned())
    });
    let max_idle = table.get("max_idle_connections").and_then(|v| v.integer(0..=1_000_000));
    let eject_for = table.get("eject_for").and_then(|v| v.timeout());
    let algorithm = balance::algorithm(table);
    let slow_start = table.get("slow_start").and_then(|v| v.duration());
    let health = table.section("health", balance::health).unwrap_or_default();
    let limits = table.section("limits", balance::limits).unwrap_or_default();
    let hedge_value = table.get("hedge");
    if let Some(value) = hedge_value.as_ref().filter(|_| version == HttpVersion::Http2) {
        value.problem(
            format!("`{}` has no effect with HTTP/2, whose requests share a connection", value.path),
            "remove it, or write `version = \"1.1\"`",
        );
    }
    let hedge = hedge_value.and_then(|v| v.table(balance::hedge)).flatten();
    Some(http::Settings {
        servers: servers?,
        tls,
        tls_verify,
        tls_server_name,
        version,
        host,
        timeouts,
        max_fails: max_fails.and_then(|n| u32::try_from(n).ok()).unwrap_or(3),
        eject_for: eject_for.unwrap_or(Duration::from_secs(10)),
        try_next: table.get("try_next").and_then(|v| v.boolean()).unwrap_or(false),
        hedge,
        balance: algorithm,
        slow_start: slow_start.unwrap_or_default(),
        health,
        limits,
        sticky_cookie,
        max_idle: max_idle.and_then(|n| u32::try_from(n).ok()),
    })
}

fn timeouts(table: &Table<'_>) -> Timeouts {
    let default = Timeouts::default();
    let read = |key, default| table.get(key).and_then(|v| v.timeout()).unwrap_or(default);
    Timeouts {
        connect: read("connect_timeout", default.connect),
        read: read("read_timeout", default.read),
        write: read("write_timeout", default.write),
        idle: read("idle_timeout", default.idle),
    }
}

fn server(text: &str, value: &Value<'_>, tls: bool) -> Option<ServerAddress> {
    if let Some((host, port)) = authority(text, tls) {
        return Some(ServerAddress { host: host.into(), port });
    }
    let remedy = if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or(rest);
        let tls = if scheme == "https" { " and add `tls = true`" } else { "" };
        format!("write \"{}\"{tls}", shown(rest))
    } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("put an IPv6 address in brackets: \"[{text}]:80\"")
    } else {
        "write host:port, as in \"10.0.0.5:8080\" or \"app.internal:8080\"".to_owned()
    };
    value.problem(format!("`{}` is \"{}\", not a server's host and port", value.path, value.shown()), remedy);
    None
}

/// Host (IPv6 without brackets) and port, by default that of the scheme.
fn authority(text: &str, tls: bool) -> Option<(String, u16)> {
    let (host, port) = HostName::parse_with_port(text).ok()?;
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    let host = host.as_str().trim_start_matches('[').trim_end_matches(']').to_owned();
    (port != 0).then_some((host, port))
}

fn server_name(value: &Value<'_>) -> Option<String> {
    let text = value.text("\"origin.example.com\"")?;
    let name = text.parse::<HostName>().ok();
    if name.is_none() {
        value.problem(
            format!("`{}` is \"{}\", not a host name", value.path, value.shown()),
            "write the name in the server's certificate, without scheme and port",
        );
    }
    name.map(|name| name.as_str().to_owned())
}

fn host_field(value: &Value<'_>) -> Option<String> {
    let text = value.text("\"app.example.com\"")?;
    if HostName::parse_with_port(text).is_err() {
        value.problem(
            format!("`{}` is \"{}\", not a host", value.path, value.shown()),
            "write the host, with a port if it is part of it, without scheme",
        );
        return None;
    }
    Some(text.to_owned())
}

fn s3_origin(table: &Table<'_>) -> Option<s3::Settings> {
    let styles = [("path", AddressingStyle::Path), ("virtual-host", AddressingStyle::VirtualHost)];
    let style = table.get("style").and_then(|v| v.one_of(&styles)).unwrap_or_default();
    let endpoint = table.required("endpoint", "\"https://s3.eu-central-1.amazonaws.com\"").and_then(|v| endpoint(&v));
    let bucket = table.required("bucket", "\"assets\"").and_then(|v| bucket(&v, style));
    let region = table.get("region").and_then(|v| region(&v));
    let credentials = credentials(table);
    let prefix = table.get("prefix").and_then(|v| relative(&v, "\"site/\"")).unwrap_or_default();
    let strip_prefix = table.get("strip_prefix").and_then(|v| strip_prefix(&v)).unwrap_or_default();
    let index_value = table.get("index");
    let index = index_value.as_ref().and_then(index_document);
    let redirect_value = table.get("directory_redirect");
    let directory_redirect = redirect_value.as_ref().and_then(Value::boolean).unwrap_or(false);
    if let (Some(value), true, None) = (&redirect_value, directory_redirect, &index_value) {
        let message = format!("`{}` needs an index document", value.path);
        value.document.absence(value.span.start, &value.path, message, "add `index = \"index.html\"`");
    }
    let spa_fallback = table.get("spa_fallback").and_then(|v| object(&v, "\"index.html\""));
    let error_documents = table.section("error_documents", error_documents).unwrap_or_default();
    let allow_amz_headers = table.get("allow_amz_headers").map(|v| amz_headers(&v)).unwrap_or_default();
    let forbidden_is_not_found = table.get("forbidden_is_not_found").and_then(|v| v.boolean()).unwrap_or(false);
    let timeouts = timeouts(table);
    Some(s3::Settings {
        endpoint: endpoint?,
        bucket: bucket?,
        region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        style,
        credentials,
        prefix,
        strip_prefix,
        index,
        directory_redirect,
        spa_fallback,
        error_documents,
        allow_amz_headers,
        timeouts,
        forbidden_is_not_found,
    })
}

fn endpoint(value: &Value<'_>) -> Option<Endpoint> {
    const EXAMPLE: &str = "\"https://s3.eu-central-1.amazonaws.com\"";
    let text = value.text(EXAMPLE)?;
    let parsed = match text.split_once("://") {
        Some(("http", rest)) => Some((false, rest)),
        Some(("https", rest)) => Some((true, rest)),
        _ => None,
    };
    let endpoint = parsed.and_then(|(tls, rest)| {
        let (host, port) = authority(rest.strip_suffix('/').unwrap_or(rest), tls)?;
        Some(Endpoint { tls, host, port })
    });
    if endpoint.is_none() {
        let remedy = match parsed {
            None => format!("start it with https:// or http://, as in {EXAMPLE}"),
            Some((_, rest)) if rest.contains('/') => {
                "leave the path out: the bucket goes into `bucket`, a folder in it into `prefix`".to_owned()
            }
            Some(_) => format!("write scheme, host and port alone, as in {EXAMPLE}"),
        };
        value.problem(format!("`{}` is \"{}\", not an endpoint", value.path, value.shown()), remedy);
    }
    endpoint
}

fn bucket(value: &Value<'_>, style: AddressingStyle) -> Option<String> {
    let text = value.text("\"assets\"")?;
    let octets = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let fits = octets && text.len() <= 255 && !text.starts_with('.');
    // In a host name upper case would be lost, and with it the signature.
    let fits = fits
        && (style == AddressingStyle::Path
            || (text.parse::<HostName>().is_ok() && !text.bytes().any(|b| b.is_ascii_uppercase())));
    if !fits {
        let remedy = match style {
            AddressingStyle::Path => "write the bucket's name alone: letters, digits, `-`, `.` and `_`",
            AddressingStyle::VirtualHost => "write a name that is a host name in lower case, or use `style = \"path\"`",
        };
        value.problem(format!("`{}` is \"{}\", not a bucket's name", value.path, value.shown()), remedy);
    }
    fits.then(|| text.to_owned())
}

fn region(value: &Value<'_>) -> Option<String> {
    let text = value.text("\"us-east-1\"")?;
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !fits {
        value.problem(
            format!("`{}` is \"{}\", not a region", value.path, value.shown()),
            "write it as in \"eu-central-1\"; most S3-compatible servers take \"us-east-1\"",
        );
    }
    fits.then(|| text.to_owned())
}

/// The keys of the file; without any, and without `unsigned = true`, the usual environment variables.
fn credentials(table: &Table<'_>) -> Option<Credentials> {
    let unsigned_value = table.get("unsigned");
    let unsigned = unsigned_value.as_ref().and_then(Value::boolean).unwrap_or(false);
    let (id, secret) = (table.get("access_key_id"), table.get("secret_access_key"));
    let token = table.get("session_token");
    let keys = [("access_key_id", &id), ("secret_access_key", &secret), ("session_token", &token)];
    if let (Some(value), true) = (&unsigned_value, unsigned) {
        let present = keys.iter().filter(|(_, v)| v.is_some()).map(|(key, _)| *key);
        let present = list(present);
        if !present.is_empty() {
            value.problem(
                format!("`{}` is true, yet there is {present}", value.path),
                "remove `unsigned` to sign requests, or the credentials to send them unsigned",
            );
        }
    }
    let half = match (&id, &secret, &token) {
        (Some(id), None, _) => Some((id, "secret_access_key")),
        (None, Some(secret), _) => Some((secret, "access_key_id")),
        (None, None, Some(token)) => Some((token, "access_key_id")),
        _ => None,
    };
    if let Some((value, other)) = half {
        let message = format!("`{}` stands without `{other}`", value.path);
        let remedy = format!("add `{other} = {{ env = \"NAME\" }}`");
        value.document.absence(value.span.start, &value.path, message, remedy);
    }
    let declared = id.is_some() || secret.is_some() || token.is_some();
    let (id, secret) = (id.and_then(|v| v.secret()), secret.and_then(|v| v.secret()));
    let session_token = token.and_then(|v| v.secret());
    match declared {
        true => Some(Credentials { access_key_id: id?.expose().to_owned(), secret_access_key: secret?, session_token }),
        false if unsigned => None,
        false => environment(table),
    }
}

fn environment(table: &Table<'_>) -> Option<Credentials> {
    let variable = |name| (table.document.env)(name).filter(|text| !text.is_empty());
    let (id, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    let missing = [("AWS_ACCESS_KEY_ID", &id), ("AWS_SECRET_ACCESS_KEY", &secret)];
    let missing = list(missing.iter().filter(|(_, v)| v.is_none()).map(|(name, _)| *name));
    if !missing.is_empty() {
        table.absence(
            format!("`{}` has no credentials: neither keys nor {missing} in the environment", table.path),
            "set the variables, add `access_key_id` and `secret_access_key`, or for a public bucket `unsigned = true`",
        );
    }
    let session_token = variable("AWS_SESSION_TOKEN").map(Secret::new);
    Some(Credentials { access_key_id: id?, secret_access_key: Secret::new(secret?), session_token })
}

/// A text that becomes part of an object key, which has no leading slash.
fn relative(value: &Value<'_>, example: &str) -> Option<String> {
    let text = value.string(example)?;
    if text.starts_with('/') {
        value.problem(
            format!("`{}` is \"{}\": object keys have no leading slash", value.path, value.shown()),
            format!("write \"{}\"", shown(text.trim_start_matches('/'))),
        );
    }
    Some(text.to_owned())
}

fn object(value: &Value<'_>, example: &str) -> Option<String> {
    value.text(example).and_then(|_| relative(value, example))
}

fn strip_prefix(value: &Value<'_>) -> Option<String> {
    let text = value.string("\"/assets\"")?;
    if !text.is_empty() && !text.starts_with('/') {
        value.problem(
            format!("`{}` is \"{}\", which no request path starts with", value.path, value.shown()),
            format!("write \"/{}\"", value.shown()),
        );
    }
    Some(text.to_owned())
}

fn index_document(value: &Value<'_>) -> Option<String> {
    let text = value.text("\"index.html\"")?;
    if text.contains('/') {
        value.problem(
            format!("`{}` is \"{}\", more than a file name", value.path, value.shown()),
            "write a name without slashes, as in \"index.html\"",
        );
    }
    Some(text.to_owned())
}

fn error_documents(table: &Table<'_>) -> Vec<(u16, String)> {
    let mut documents = Vec::new();
    for (status, value) in table.named() {
        let key = object(&value, "\"404.html\"");
        match status.parse::<u16>() {
            Ok(status @ 400..=599) if key.is_some() => documents.extend(key.map(|key| (status, key))),
            Ok(400..=599) => {}
            _ => value.problem(
                format!("`{}` is for `{}`, not an error status", table.path, shown(status)),
                "write a status from 400 to 599, as in { \"404\" = \"404.html\" }",
            ),
        }
    }
    documents
}

fn amz_headers(value: &Value<'_>) -> Vec<String> {
    const EXAMPLE: &str = "[\"x-amz-version-id\"]";
    let mut names: Vec<String> = Vec::new();
    for element in value.array(EXAMPLE).unwrap_or_default() {
        let Some(text) = element.string(EXAMPLE) else { continue };
        let name = text.to_ascii_lowercase();
        let token = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if token && name.strip_prefix("x-amz-").is_some_and(|rest| !rest.is_empty()) {
            names.push(name);
        } else {
            element.problem(
                format!("`{}` is \"{}\", not an x-amz- field", element.path, element.shown()),
                "write names as in \"x-amz-version-id\"; other fields pass without being listed",
            );
        }
    }
    names
}
