//! `[[sites]]` and `[[sites.routes]]`.

use super::problem::nearest;
use super::reader::{Table, Value, list, shown};
use super::{Route, Site};
use super::{rules, settings, traffic};
use crate::route::{HostPattern, PathPattern};
use crate::types::HostName;
use std::collections::HashMap;
use std::sync::Arc;

/// What sites refer to, and what those before took.
struct Surroundings<'a> {
    origins: &'a [&'a str],
    https: bool,
    /// Host patterns, normalised, and the line of the first site that has them.
    hosts: HashMap<String, usize>,
    /// Site names and their lines.
    names: HashMap<Arc<str>, usize>,
}

/// All sites. `origins` are the names that routes may lead to; `https` says whether there is an HTTPS listener, and
/// `discovers` whether sites come from elsewhere too.
pub(super) fn sites(root: &Table<'_>, origins: &[&str], https: bool, discovers: bool) -> Vec<Arc<Site>> {
    let mut surroundings = Surroundings { origins, https, hosts: HashMap::new(), names: HashMap::new() };
    let Some(value) = root.get("sites").filter(|v| !v.is_empty_array()) else {
        if discovers {
            return Vec::new();
        }
        root.absence(
            "there is no site, so every request would be answered 503",
            "add `[[sites]]` with `hosts` and `[[sites.routes]]`",
        );
        return Vec::new();
    };
    let elements = value.tables().unwrap_or_default();
    let read = |element: &Value<'_>| element.table(|table| site(table, &mut surroundings)).flatten();
    elements.iter().filter_map(read).map(Arc::new).collect()
}

fn site(table: &Table<'_>, surroundings: &mut Surroundings<'_>) -> Option<Site> {
    let name_value = table.get("name");
    let hosts_value = table.required("hosts", "[\"www.example.com\"]");
    let hosts = hosts_value.as_ref().map(|v| hosts(v, surroundings)).unwrap_or_default();
    let first_host = hosts_value.as_ref().and_then(Value::first_str);
    let name = match &name_value {
        Some(value) => value.text("\"www\""),
        None => first_host,
    };
    let name = name.map(Arc::<str>::from);
    if let (Some(value), Some(name)) = (&name_value, &name) {
        claim_name(value, name, surroundings);
    }
    let mut settings = settings::site(table, surroundings.https);
    settings.rules = traffic::rules(table, surroundings.origins);
    let server_timing = table.get("server_timing").and_then(|v| v.boolean());
    let base = rules::Inherited { realm: first_host.unwrap_or_default().to_owned(), ..rules::Inherited::default() };
    let inherited = rules::Inherited::read(table, &base);
    let routes = routes(table, surroundings, &inherited);
    Some(Site { name: name?, hosts, settings, server_timing, source: table.place().into(), discovered: false, routes })
}

fn claim_name(value: &Value<'_>, name: &Arc<str>, surroundings: &mut Surroundings<'_>) {
    let line = value.document.position(value.span.start).line;
    match surroundings.names.get(name) {
        Some(first) => value.problem(
            format!("`{}` is \"{}\", the name of the site in line {first} too", value.path, value.shown()),
            "give each site a name of its own: logs and metrics tell them apart by it",
        ),
        None => {
            surroundings.names.insert(name.clone(), line);
        }
    }
}

fn routes(table: &Table<'_>, surroundings: &Surroundings<'_>, inherited: &rules::Inherited) -> Vec<Route> {
    let Some(value) = table.get("routes") else {
        table.absence(
            format!("`{}` has no routes", table.path),
            "add `[[sites.routes]]` with `path = \"/\"` and `origin` below it",
        );
        return Vec::new();
    };
    let elements = value.tables().unwrap_or_default();
    let mut paths: HashMap<&str, usize> = HashMap::new();
    let mut routes = Vec::new();
    for element in &elements {
        let route = element.table(|table| {
            let path_value = table.required("path", "\"/\"");
            if let Some((value, text)) = path_value.as_ref().and_then(|v| Some((v, v.as_str()?))) {
                let line = value.document.position(value.span.start).line;
                if let Some(first) = paths.get(text) {
                    value.problem(
                        format!("`{}` is \"{}\", the path of line {first} too", value.path, value.shown()),
                        "keep one route for a path",
                    );
                } else {
                    paths.insert(text, line);
                }
            }
            route(table, path_value.as_ref(), surroundings, inherited)
        });
        routes.extend(route.flatten());
    }
    if value.is_empty_array() {
        value.problem(format!("`{}` is empty", value.path), "add `[[sites.routes]]` with `path = \"/\"` and `origin`");
    }
    routes
}

fn route(
    table: &Table<'_>,
    path: Option<&Value<'_>>,
    surroundings: &Surroundings<'_>,
    inherited: &rules::Inherited,
) -> Option<Route> {
    let path = path.and_then(path_pattern);
    let origin = table.required("origin", "\"app\"").and_then(|v| origin(&v, surroundings.origins));
    let rules::Inherited {
        cache,
        rules,
        headers,
        security,
        cors,
        compression,
        mut settings,
        max_request_body,
        realm: _,
    } = rules::Inherited::read(table, inherited);
    let by_regex = matches!(path, Some(PathPattern::Regex(_)));
    settings.replace_prefix = table.get("replace_prefix").and_then(|v| settings::replace_prefix(&v, by_regex));
    Some(Route {
        source: table.place().into(),
        path: path?,
        origin: origin?,
        cache,
        rules,
        headers,
        security,
        cors,
        compression,
        max_request_body,
        settings,
    })
}

fn origin(value: &Value<'_>, known: &[&str]) -> Option<Arc<str>> {
    let name = value.text("\"app\"")?;
    if known.contains(&name) {
        return Some(name.into());
    }
    let remedy = match (nearest(name, known.iter().copied()), known.is_empty()) {
        (Some(near), _) => format!("did you mean \"{near}\"? The origins are {}", list(known.iter().copied())),
        (None, false) => format!("write one of {}, or declare it", list(known.iter().copied())),
        (None, true) => format!("declare it: `[origins.{}.http]` with `servers`", shown(name)),
    };
    let message = format!("`{}` is \"{}\", an origin that is not declared", value.path, value.shown());
    value.document.absence(value.span.start, &value.path, message, remedy);
    None
}

fn hosts(value: &Value<'_>, surroundings: &mut Surroundings<'_>) -> Vec<HostPattern> {
    const EXAMPLE: &str = "[\"www.example.com\"]";
    let Some(elements) = value.array(EXAMPLE) else { return Vec::new() };
    if elements.is_empty() {
        value.problem(format!("`{}` is empty", value.path), "name the hosts of this site, or `[\"*\"]` for every host");
    }
    let mut patterns = Vec::new();
    for element in &elements {
        let Some(pattern) = element.string(EXAMPLE).and_then(|text| host_pattern(text, element)) else { continue };
        if matches!(pattern, HostPattern::Any) && elements.len() > 1 {
            element.problem(
                format!("`{}` is \"*\", every host, beside others", element.path),
                "keep \"*\" alone; hosts that differ from it belong to a site of their own",
            );
        }
        let line = element.document.position(element.span.start).line;
        match surroundings.hosts.insert(normal(&pattern), line) {
            Some(first) => element.problem(
                format!("`{}` is \"{}\", a host that line {first} takes already", element.path, element.shown()),
                "list a host in one site, and once",
            ),
            None => patterns.push(pattern),
        }
    }
    patterns
}

/// Equal for two patterns that match the same hosts as written.
fn normal(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.as_str().to_owned(),
        HostPattern::LeadingWildcard(suffix) => format!("*{suffix}"),
        HostPattern::TrailingWildcard(prefix) => format!("{prefix}*"),
        HostPattern::Regex(regex) => format!("~{}", regex.as_str()),
        HostPattern::Any => "*".to_owned(),
    }
}

pub(super) fn host_pattern(text: &str, value: &Value<'_>) -> Option<HostPattern> {
    if text == "*" {
        return Some(HostPattern::Any);
    }
    if let Some(pattern) = text.strip_prefix('~') {
        return regex(pattern, value, true).map(HostPattern::Regex);
    }
    let part = |part: &str| part.parse::<HostName>().ok();
    let pattern = if let Some(suffix) = text.strip_prefix("*.") {
        part(suffix).map(|host| HostPattern::LeadingWildcard(format!(".{host}").into()))
    } else if let Some(prefix) = text.strip_suffix(".*") {
        part(prefix).map(|host| HostPattern::TrailingWildcard(format!("{host}.").into()))
    } else {
        part(text).map(HostPattern::Exact)
    };
    if pattern.is_none() {
        let remedy = match HostName::parse_with_port(text) {
            Ok((host, Some(_))) => format!("leave the port out: \"{host}\""),
            _ if text.contains("://") => "leave the scheme and the path out".to_owned(),
            _ if text.contains('*') => {
                "`*` stands for whole labels at one end: \"*.example.com\", \"www.*\", or \"*\"".to_owned()
            }
            _ if !text.is_ascii() => "write an international name in its ASCII form (xn--…)".to_owned(),
            _ => "write a host name, \"*.example.com\", \"www.*\", \"~regex\" or \"*\"".to_owned(),
        };
        value.problem(format!("`{}` is \"{}\", not a host", value.path, value.shown()), remedy);
    }
    pattern
}

fn path_pattern(value: &Value<'_>) -> Option<PathPattern> {
    let text = value.text("\"/\"")?;
    if let Some(pattern) = text.strip_prefix('~') {
        return regex(pattern, value, false).map(PathPattern::Regex);
    }
    let remedy = if !text.starts_with('/') {
        format!("write \"/{0}\", or \"~{0}\" if it is a regular expression", value.shown())
    } else if text.contains(['?', '#']) {
        "leave the query out: routes look at the path alone".to_owned()
    } else if text.contains('*') {
        "a path is a prefix, so leave the `*` out; for more write \"~regex\"".to_owned()
    } else {
        return Some(PathPattern::Prefix(text.into()));
    };
    value.problem(format!("`{}` is \"{}\", not a path", value.path, value.shown()), remedy);
    None
}

pub(super) fn regex(pattern: &str, value: &Value<'_>, ignore_case: bool) -> Option<regex::Regex> {
    match regex::RegexBuilder::new(pattern).case_insensitive(ignore_case).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            value.problem(
                format!("`{}` is \"{}\", a broken regular expression: {}", value.path, value.shown(), reason(&error)),
                "correct it; in TOML a regular expression is easiest between single quotes",
            );
            None
        }
    }
}

/// The last line of the error: what is wrong, without the drawing that points at it.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
