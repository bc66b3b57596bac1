//! What sites and routes say of the messages themselves: fields, security fields, CORS, compression.

use super::reader::{Table, Value, list, shown};
use super::rules::{field_name, field_names, names};
use crate::cache::rules::Glob;
use crate::proxy::{Coding, Compression, Cors, FieldRules, HeaderRules, Security, Template, TemplateError};
use http::header::{HOST, HeaderName};
use http::{HeaderValue, Method};
use std::time::Duration;

const CODINGS: [(&str, Coding); 3] = [("br", Coding::Brotli), ("zstd", Coding::Zstd), ("gzip", Coding::Gzip)];

/// `[sites.routes.headers]`.
pub(super) fn headers(table: &Table<'_>, rules: &mut HeaderRules) {
    fields(table, ["request_remove", "request_set", "request_add"], &mut rules.request);
    fields(table, ["response_remove", "response_set", "response_add"], &mut rules.response);
    let protected = rules.request.set.iter().chain(&rules.request.add).map(|(name, _)| name);
    if protected.chain(&rules.request.remove).any(|name| *name == HOST) {
        table.absence(
            format!("`{}` changes the Host of requests", table.path),
            "set `host` of the origin instead: `[origins.NAME.http]` with `host = \"app.internal\"`",
        );
    }
}

fn fields(table: &Table<'_>, [remove, set, add]: [&'static str; 3], rules: &mut FieldRules) {
    if let Some(value) = table.get(remove) {
        rules.remove = field_names(&value, "[\"X-Powered-By\"]");
    }
    if let Some(templates) = table.section(set, templates) {
        rules.set = templates;
    }
    if let Some(templates) = table.section(add, templates) {
        rules.add = templates;
    }
}

fn templates(table: &Table<'_>) -> Vec<(HeaderName, Template)> {
    let template = |(name, value): (&str, Value<'_>)| {
        let name = field_name(name, &value);
        let template = match value.string("\"value\"")?.parse() {
            Ok(template) => template,
            Err(error) => {
                let remedy = match &error {
                    TemplateError::UnknownVariable(_) => {
                        "the variables are `$host`, `$client_ip` and `$request_id`; write `$$` for a dollar"
                    }
                    TemplateError::Control => "write it on one line, without tabs and other control characters",
                };
                value.problem(format!("`{}` is \"{}\": {error}", value.path, value.shown()), remedy);
                return None;
            }
        };
        Some((name?, template))
    };
    table.named().into_iter().filter_map(template).collect()
}

/// `[sites.routes.security]`: the preset, of which each part can be changed; `None`: turned off.
pub(super) fn security(table: &Table<'_>, base: Option<&Security>) -> Option<Security> {
    let enabled = table.get("enabled").and_then(|v| v.boolean()).unwrap_or(true);
    let mut security = base.cloned().unwrap_or_else(|| Security {
        hsts: Some(HeaderValue::from_static("max-age=31536000")),
        nosniff: true,
        referrer_policy: Some(HeaderValue::from_static("strict-origin-when-cross-origin")),
        frame_options: Some(HeaderValue::from_static("SAMEORIGIN")),
    });
    let age = table.get("hsts").and_then(|v| v.duration());
    let subdomains = table.get("hsts_subdomains").and_then(|v| v.boolean()).unwrap_or(false);
    if age.is_some() || subdomains {
        let age = age.unwrap_or(Duration::from_secs(31_536_000)).as_secs();
        let text = format!("max-age={age}{}", if subdomains { "; includeSubDomains" } else { "" });
        security.hsts = HeaderValue::try_from(text).ok();
    }
    if let Some(nosniff) = table.get("nosniff").and_then(|v| v.boolean()) {
        security.nosniff = nosniff;
    }
    const POLICIES: [&str; 9] = [
        "no-referrer",
        "no-referrer-when-downgrade",
        "origin",
        "origin-when-cross-origin",
        "same-origin",
        "strict-origin",
        "strict-origin-when-cross-origin",
        "unsafe-url",
        "off",
    ];
    let word = |key, choices: &[&'static str]| {
        let choices: Vec<(&str, &'static str)> = choices.iter().map(|word| (*word, *word)).collect();
        let word = table.get(key)?.one_of(&choices)?;
        Some((word != "off").then(|| HeaderValue::from_static(word)))
    };
    if let Some(policy) = word("referrer_policy", &POLICIES) {
        security.referrer_policy = policy;
    }
    if let Some(options) = word("frame_options", &["SAMEORIGIN", "DENY", "off"]) {
        security.frame_options = options;
    }
    enabled.then_some(security)
}

/// `[sites.routes.cors]`; `None`: turned off.
pub(super) fn cors(table: &Table<'_>, base: Option<&Cors>) -> Option<Cors> {
    let enabled = table.get("enabled").and_then(|v| v.boolean()).unwrap_or(true);
    let mut cors = base.cloned().unwrap_or_else(|| Cors {
        origins: Some(Vec::new()),
        methods: vec![Method::GET, Method::HEAD, Method::POST],
        headers: Some(Vec::new()),
        expose: Vec::new(),
        credentials: false,
        max_age: Duration::from_secs(600),
    });
    let origins_value = match base {
        None if enabled => table.required("origins", "[\"https://app.example.com\"]"),
        _ => table.get("origins"),
    };
    if let Some(value) = origins_value {
        cors.origins = origins(&value);
    }
    if let Some(value) = table.get("methods") {
        cors.methods = methods(&value);
    }
    if let Some(value) = table.get("headers") {
        let any = value.array("").is_some_and(|a| a.len() == 1) && value.first_str() == Some("*");
        cors.headers = (!any).then(|| field_names(&value, "[\"Content-Type\"]"));
    }
    if let Some(value) = table.get("expose_headers") {
        cors.expose = field_names(&value, "[\"X-Total-Count\"]");
    }
    let credentials = table.get("credentials");
    if let Some(allowed) = credentials.as_ref().and_then(|v| v.boolean()) {
        cors.credentials = allowed;
    }
    if let (Some(value), true, None) = (&credentials, cors.credentials, &cors.origins) {
        value.problem(
            format!("`{}` is true while every site is allowed", value.path),
            "name the sites in `origins`: else each of them could read what is meant for the user alone",
        );
    }
    if let Some(age) = table.get("max_age").and_then(|v| v.duration()) {
        cors.max_age = age;
    }
    enabled.then_some(cors)
}

/// `None`: every site.
fn origins(value: &Value<'_>) -> Option<Vec<Glob>> {
    const EXAMPLE: &str = "[\"https://app.example.com\"]";
    let names = names(value, EXAMPLE);
    if let [("*", _)] = names[..] {
        return None;
    }
    let origin = |(text, element): &(&str, Value<'_>)| {
        let host = text.split_once("://").map(|(_, host)| host);
        let usable = host.is_some_and(|host| {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]*".contains(&b))
        });
        if !usable || text.starts_with('*') {
            let remedy = match *text {
                "*" => "keep \"*\" alone: it is every site".to_owned(),
                _ => "write scheme, host and port as browsers send them, as in \"https://app.example.com\"".to_owned(),
            };
            element.problem(format!("`{}` is \"{}\", not a site", element.path, shown(text)), remedy);
            return None;
        }
        Some(Glob::new(&text.to_ascii_lowercase()))
    };
    Some(names.iter().filter_map(origin).collect())
}

fn methods(value: &Value<'_>) -> Vec<Method> {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let method = |(text, element): &(&str, Value<'_>)| {
        if !known.contains(text) {
            element.problem(
                format!("`{}` is \"{}\", not a method", element.path, shown(text)),
                format!("write some of {}", list(known)),
            );
            return None;
        }
        Method::from_bytes(text.as_bytes()).ok()
    };
    names(value, "[\"GET\", \"POST\"]").iter().filter_map(method).collect()
}

/// `[sites.routes.compression]`; `None`: turned off.
pub(super) fn compression(table: &Table<'_>, base: Option<&Compression>) -> Option<Compression> {
    let enabled = table.get("enabled").and_then(|v| v.boolean()).unwrap_or(true);
    let mut compression = base.cloned().unwrap_or_default();
    if let Some(value) = table.get("codings") {
        let elements = value.array("[\"br\", \"zstd\", \"gzip\"]").unwrap_or_default();
        compression.codings = elements.iter().filter_map(|element| element.one_of(&CODINGS)).collect();
        if elements.is_empty() {
            value.problem(
                format!("`{}` is empty", value.path),
                "name at least one of \"br\", \"zstd\", \"gzip\", or write `enabled = false`",
            );
        }
    }
    precompressed(table, &mut compression);
    if let Some(bytes) = table.get("min_size").and_then(|v| v.size()) {
        compression.min_size = bytes;
    }
    if let Some(value) = table.get("types") {
        compression.types =
            names(&value, "[\"text/*\"]").iter().map(|(text, _)| Glob::new(&text.to_ascii_lowercase())).collect();
    }
    let level = |key, most| table.get(key).and_then(|v| v.integer(1..=most)).and_then(|n| u32::try_from(n).ok());
    if let Some(level) = level("gzip_level", 9) {
        compression.gzip_level = level;
    }
    if let Some(level) = level("brotli_level", 11) {
        compression.brotli_level = level;
    }
    if let Some(level) = level("zstd_level", 19) {
        compression.zstd_level = i32::try_from(level).unwrap_or(3);
    }
    enabled.then_some(compression)
}

/// The codings of files that the origin keeps beside their originals: some of those on offer.
fn precompressed(table: &Table<'_>, compression: &mut Compression) {
    let offered = compression.codings.clone();
    let Some(value) = table.get("precompressed") else {
        compression.precompressed.retain(|coding| offered.contains(coding));
        return;
    };
    let elements = value.array("[\"br\", \"gzip\"]").unwrap_or_default();
    let coding = |element: &Value<'_>| {
        let coding = element.one_of(&CODINGS)?;
        if !offered.contains(&coding) {
            element.problem(
                format!("`{}` is \"{}\", which `codings` leaves out", element.path, coding.as_str()),
                format!("add \"{0}\" to `codings`: nobody is offered {0} else", coding.as_str()),
            );
            return None;
        }
        Some(coding)
    };
    compression.precompressed = elements.iter().filter_map(coding).collect();
}
