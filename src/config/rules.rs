//! What sites and routes say of caching: `cache = true`, `cache = false`, or a table `cache` with rules.
//!
//! A site's keys are what its routes start from; a key of a route takes the place of the site's.

use super::reader::{Table, Value};
use super::sites::regex;
use super::{settings, transform};
use crate::cache::policy::SetCookieRule;
use crate::cache::rules::{
    Authorization, CacheRules, Cookies, Glob, KeyRules, PathMatch, Slicing, StatusMatch, Ttl, TtlRule,
};
use crate::proxy::{Compression, Cors, HeaderRules, Security};
use crate::route::settings::RouteSettings;
use http::HeaderName;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, RANGE, TRANSFER_ENCODING,
};

/// What a route has from its site unless it says otherwise.
#[derive(Clone, Debug)]
pub(super) struct Inherited {
    /// Whether responses are stored.
    pub cache: bool,
    /// How.
    pub rules: CacheRules,
    /// What is done to fields.
    pub headers: HeaderRules,
    /// The security fields.
    pub security: Option<Security>,
    /// Whose scripts may read responses.
    pub cors: Option<Cors>,
    /// How responses are compressed.
    pub compression: Option<Compression>,
    /// Access and limits.
    pub settings: RouteSettings,
    /// Largest request body in bytes.
    pub max_request_body: Option<u64>,
    /// What passwords are for, where the file does not say: the site's first host.
    pub realm: String,
}

impl Default for Inherited {
    fn default() -> Self {
        Self {
            cache: true,
            rules: CacheRules::default(),
            headers: HeaderRules::default(),
            security: None,
            cors: None,
            compression: None,
            settings: RouteSettings::default(),
            max_request_body: None,
            realm: String::new(),
        }
    }
}

impl Inherited {
    /// Reads the keys of a site or a route.
    pub fn read(table: &Table<'_>, base: &Self) -> Self {
        let mut own = base.clone();
        match table.get("cache") {
            Some(value) if value.is_table() => {
                value.table(|table| {
                    own.cache = table.get("enabled").and_then(|v| v.boolean()).unwrap_or(true);
                    cache(table, &mut own.rules);
                });
            }
            // In one word: a lifetime for what tells none.
            Some(value) if value.as_str().is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit())) => {
                own.cache = true;
                own.rules.lifetime = value.duration().map(Ttl::Default).or(own.rules.lifetime);
            }
            Some(value) => own.cache = value.boolean().unwrap_or(own.cache),
            None => {}
        }
        table.section("headers", |table| transform::headers(table, &mut own.headers));
        if let Some(security) = table.section("security", |table| transform::security(table, own.security.as_ref())) {
            own.security = security;
        }
        if let Some(cors) = table.section("cors", |table| transform::cors(table, own.cors.as_ref())) {
            own.cors = cors;
        }
        if let Some(compression) =
            table.section("compression", |table| transform::compression(table, own.compression.as_ref()))
        {
            own.compression = compression;
        }
        if let Some(bytes) = table.get("max_request_body").and_then(|v| v.size()) {
            own.max_request_body = Some(bytes);
        }
        own.settings = settings::route(table, &base.settings, &base.realm);
        own
    }
}

fn cache(table: &Table<'_>, rules: &mut CacheRules) {
    if let Some(value) = table.get("cookies") {
        rules.cookies = cookies(&value).unwrap_or_default();
    }
    if let Some(value) = table.get("authorization") {
        let choices =
            [("standard", Authorization::Standard), ("bypass", Authorization::Bypass), ("strip", Authorization::Strip)];
        rules.authorization = value.one_of(&choices).unwrap_or_default();
    }
    if let Some(value) = table.get("set_cookie") {
        let choices = [SetCookieRule::Never, SetCookieRule::Harmless, SetCookieRule::Explicit];
        rules.set_cookie = value.one_of(&choices.map(|rule| (rule.as_str(), rule))).unwrap_or_default();
    }
    bypass(table, rules);
    if let Some(force) = table.get("force").and_then(|v| v.boolean()) {
        rules.force = force;
    }
    if let Some(ttl) = lifetime(table) {
        rules.lifetime = Some(ttl);
    }
    if let Some(elements) = table.get("ttl").and_then(|v| v.tables()) {
        rules.ttl = elements.iter().filter_map(|element| element.table(ttl_rule).flatten()).collect();
    }
    if let Some(uses) = table.get("min_uses").and_then(|v| v.integer(1..=100)) {
        rules.min_uses = u8::try_from(uses).unwrap_or(u8::MAX);
    }
    if let Some(bytes) = table.get("max_object").and_then(|v| v.size()) {
        rules.max_object = Some(bytes);
    }
    if let Some(on) = table.get("slices").and_then(|v| v.boolean()) {
        rules.slices = if on { Slicing::On } else { Slicing::Off };
    }
    table.section("key", |table| key(table, &mut rules.key));
}

fn bypass(table: &Table<'_>, rules: &mut CacheRules) {
    if let Some(value) = table.get("bypass_cookies") {
        rules.bypass_cookies = names(&value, "[\"session\"]").iter().map(|(text, _)| Glob::new(text)).collect();
        if rules.cookies == Cookies::Strip && !rules.bypass_cookies.is_empty() {
            value.problem(
                format!("`{}` has no effect: `cookies` is \"strip\"", value.path),
                "remove it, or write `cookies = \"bypass\"`",
            );
        }
    }
    if let Some(value) = table.get("bypass_headers") {
        rules.bypass_headers = field_names(&value, "[\"X-Preview\"]");
    }
    if let Some(value) = table.get("bypass_paths") {
        let elements = value.array("[\"/admin/*\"]").unwrap_or_default();
        rules.bypass_paths = elements.iter().filter_map(path_match).collect();
    }
}

/// `default_ttl` or `override_ttl`.
fn lifetime(table: &Table<'_>) -> Option<Ttl> {
    let default = table.get("default_ttl");
    let over = table.get("override_ttl");
    if let (Some(_), Some(value)) = (&default, &over) {
        value.problem(
            format!("`{}` is given beside `default_ttl`", value.path),
            "keep one of them: `override_ttl` counts for every response, `default_ttl` for those that tell no lifetime",
        );
    }
    let over = over.and_then(|v| v.duration()).map(Ttl::Override);
    over.or_else(|| default.and_then(|v| v.duration()).map(Ttl::Default))
}

fn ttl_rule(table: &Table<'_>) -> Option<TtlRule> {
    let statuses = table.get("status").map(|v| statuses(&v)).unwrap_or_default();
    let path = table.get("path").and_then(|v| path_match(&v));
    let content_type = table.get("content_type").and_then(|v| media_type(&v));
    let ttl = lifetime(table);
    if ttl.is_none() {
        table.absence(
            format!("`{}` gives no lifetime", table.path),
            "add `default_ttl = \"5m\"` or `override_ttl = \"5m\"`",
        );
    }
    Some(TtlRule { statuses, path, content_type, ttl: ttl? })
}

fn statuses(value: &Value<'_>) -> Vec<StatusMatch> {
    const REMEDY: &str = "write a status from 200 to 599, or a class as in \"5xx\"";
    let elements = value.array("[404, \"5xx\"]").unwrap_or_default();
    let status = |element: &Value<'_>| {
        if element.is_integer() {
            let status = u16::try_from(element.integer(200..=599)?).ok()?;
            return Some(StatusMatch(status..=status));
        }
        let first = match element.string("[404, \"5xx\"]")? {
            "2xx" => 200,
            "3xx" => 300,
            "4xx" => 400,
            "5xx" => 500,
            _ => {
                element.problem(format!("`{}` is \"{}\", not a status", element.path, element.shown()), REMEDY);
                return None;
            }
        };
        Some(StatusMatch(first..=first + 99))
    };
    elements.iter().filter_map(status).collect()
}

fn media_type(value: &Value<'_>) -> Option<Glob> {
    let text = value.text("\"image/*\"")?;
    if !text.contains('/') || text.contains([';', ' ']) {
        value.problem(
            format!("`{}` is \"{}\", not a media type", value.path, value.shown()),
            "write it without parameters, as in \"image/*\" or \"text/html\"",
        );
        return None;
    }
    Some(Glob::new(&text.to_ascii_lowercase()))
}

fn key(table: &Table<'_>, key: &mut KeyRules) {
    let query = table.get("query");
    if let Some(all) = query.as_ref().and_then(|v| v.one_of(&[("all", true), ("none", false)])) {
        key.no_query = !all;
    }
    let mut parameters = Vec::new();
    if let Some(value) = table.get("query_only") {
        key.only = Some(globs(&value, "[\"page\"]"));
        parameters.push(value);
    }
    if let Some(value) = table.get("query_ignore") {
        key.ignore = globs(&value, "[\"ref\", \"x_*\"]");
        parameters.push(value);
    }
    if let Some(value) = parameters.iter().find(|_| key.no_query) {
        let remedy = "remove it, or write `query = \"all\"`";
        value.problem(format!("`{}` has no effect: `query` is \"none\"", value.path), remedy);
    }
    if let Some(ignore) = table.get("ignore_tracking").and_then(|v| v.boolean()) {
        key.ignore_tracking = ignore;
    }
    if let Some(sort) = table.get("sort_query").and_then(|v| v.boolean()) {
        key.sort = sort;
    }
    if let Some(value) = table.get("headers") {
        key.headers = field_names(&value, "[\"X-Country\"]");
        for (name, remedy) in [
            (COOKIE, "name the cookies instead: `cookies = \"key:NAME\"` in the table above"),
            (AUTHORIZATION, "leave it out: what a request has with it is stored only where the response allows it"),
            (ACCEPT_ENCODING, "leave it out: `Vary: Accept-Encoding` is heeded as it is"),
            (HOST, "leave it out: the host is always part of the key"),
            (RANGE, "leave it out: ranges are cut from the whole that is stored"),
        ] {
            if key.headers.contains(&name) {
                value.problem(format!("`{}` names {name}, which cannot be part of the key", value.path), remedy);
            }
        }
    }
    if let Some(device) = table.get("device").and_then(|v| v.boolean()) {
        key.device = device;
    }
}

/// `"bypass"`, `"strip"`, or `"key:NAME,NAME"`.
fn cookies(value: &Value<'_>) -> Option<Cookies> {
    const REMEDY: &str = "write \"bypass\", \"strip\" or \"key:NAME\" (more names with commas)";
    let text = value.string("\"bypass\"")?;
    let known = match text {
        "bypass" => Some(Cookies::Bypass),
        "strip" => Some(Cookies::Strip),
        _ => text.strip_prefix("key:").and_then(|names| {
            let names: Vec<Box<str>> = names.split(',').map(|name| name.trim().into()).collect();
            // The octets of an RFC 6265 cookie-name: a token.
            let usable = names.iter().all(|name| HeaderName::from_bytes(name.as_bytes()).is_ok());
            usable.then_some(Cookies::Key(names))
        }),
    };
    if known.is_none() {
        value.problem(format!("`{}` is \"{}\", not a way to take cookies", value.path, value.shown()), REMEDY);
    }
    known
}

fn globs(value: &Value<'_>, example: &str) -> Vec<Glob> {
    names(value, example).iter().map(|(text, _)| Glob::new(text)).collect()
}

/// The texts of an array, none of them empty.
pub(super) fn names<'a>(value: &Value<'a>, example: &str) -> Vec<(&'a str, Value<'a>)> {
    let elements = value.array(example).unwrap_or_default();
    elements.into_iter().filter_map(|element| Some((element.text(example)?, element))).collect()
}

/// The field names of an array; none of those that frame a message.
pub(super) fn field_names(value: &Value<'_>, example: &str) -> Vec<HeaderName> {
    names(value, example).iter().filter_map(|(text, element)| field_name(text, element)).collect()
}

/// A field name that may be set, removed or looked at.
pub(super) fn field_name(text: &str, value: &Value<'_>) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        value.problem(
            format!("`{}` is \"{}\", not a field name", value.path, super::reader::shown(text)),
            "use letters, digits and `-`, as in \"X-Request-Source\"",
        );
    }
    let name = name?;
    let framing = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name)
        || ["keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings"].contains(&name.as_str());
    if framing {
        value.problem(
            format!("`{}` names {name}, which belongs to the connection and not to the message", value.path),
            "leave it out: the framing of messages is not open to rules",
        );
        return None;
    }
    Some(name)
}

/// A path by glob or, with `~` before it, by regular expression.
fn path_match(value: &Value<'_>) -> Option<PathMatch> {
    let text = value.text("\"/images/*\"")?;
    if let Some(pattern) = text.strip_prefix('~') {
        return regex(pattern, value, false).map(PathMatch::Regex);
    }
    if !text.starts_with(['/', '*']) {
        value.problem(
            format!("`{}` is \"{}\", not a path", value.path, value.shown()),
            "begin it with `/` or `*`, as in \"/images/*\" or \"*.pdf\", or with `~` for a regular expression",
        );
        return None;
    }
    Some(PathMatch::Glob(Glob::new(text)))
}
