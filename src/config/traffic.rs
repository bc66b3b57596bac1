//! `[[sites.rules]]`: conditions and what is done with requests that meet them.

use super::problem::nearest;
use super::reader::{Table, Value, list, shown};
use super::rules::{field_name, names};
use super::settings::{networks, status, status_of};
use super::sites::{host_pattern, regex};
use crate::route::traffic::{
    Action, Conditions, Forward, ForwardCache, Group, Location, LocationError, Mirror, PathMatch, Redirect, Respond,
    Rewrite, Rule, Sticky, ValueMatch,
};
use http::{HeaderName, HeaderValue, Method};
use std::collections::HashMap;
use std::sync::Arc;

/// The rules of a site, in order. `origins` are the names that they may forward to.
pub(super) fn rules(table: &Table<'_>, origins: &[&str]) -> Vec<Rule> {
    let Some(elements) = table.get("rules").and_then(|v| v.tables()) else { return Vec::new() };
    let mut taken: HashMap<Arc<str>, usize> = HashMap::new();
    let mut rules = Vec::new();
    for (place, element) in elements.iter().enumerate() {
        let rule = element.table(|table| rule(table, place, origins)).flatten();
        if let Some(rule) = &rule {
            let line = element.document.position(element.span.start).line;
            if let Some(first) = taken.insert(Arc::clone(&rule.name), line) {
                element.problem(
                    format!("`{}` is called \"{}\", as the rule of line {first} is", element.path, shown(&rule.name)),
                    "give each rule of a site a `name` of its own",
                );
            }
        }
        rules.extend(rule);
    }
    rules
}

fn rule(table: &Table<'_>, place: usize, origins: &[&str]) -> Option<Rule> {
    let name = table.get("name").and_then(|v| rule_name(&v));
    let when = table.section("match", conditions).unwrap_or_default();
    let forward = table.section("forward", |t| forward(t, origins)).flatten().map(Action::Forward);
    let redirect = table.section("redirect", redirect).flatten().map(Action::Redirect);
    let respond = table.section("respond", respond).flatten().map(Action::Respond);
    let drop = table.get("drop").and_then(|v| v.boolean()).unwrap_or(false).then_some(Action::Drop);
    let rewrite = table.section("rewrite", rewrite).flatten();
    let mirror = table.section("mirror", |t| mirror(t, origins)).flatten();
    let mut actions: Vec<Action> = [forward, redirect, respond, drop].into_iter().flatten().collect();
    if actions.len() > 1 {
        table.absence(
            format!("`{}` does more than one thing", table.path),
            "keep one of `forward`, `redirect`, `respond` and `drop`; put the others into rules of their own",
        );
    }
    let given =
        ["forward", "redirect", "respond", "drop", "rewrite", "mirror"].iter().any(|key| table.get(key).is_some());
    if !given {
        table.absence(
            format!("`{}` does nothing", table.path),
            "add one of `forward`, `redirect`, `respond`, `drop = true`, `rewrite` and `mirror`",
        );
    }
    let name = name.unwrap_or_else(|| format!("rule-{}", place + 1).into());
    let before_access = before_access(table, actions.first());
    Some(Rule { name, when, rewrite, mirror, action: actions.pop(), before_access, source: table.place().into() })
}

/// Whether the answer comes before the route's access checks.
fn before_access(table: &Table<'_>, action: Option<&Action>) -> bool {
    let Some(value) = table.get("before_access") else { return false };
    if !matches!(action, Some(Action::Redirect(_) | Action::Respond(_) | Action::Drop)) {
        value.problem(
            format!("`{}` has no effect on a rule that gives no answer", value.path),
            "remove it, or give the rule `redirect`, `respond` or `drop = true`; what goes to an origin is checked in any case",
        );
    }
    value.boolean().unwrap_or(false)
}

/// A name that stands in a path of the admin listener.
fn rule_name(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text("\"canary\"")?;
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        value.problem(
            format!("`{}` is \"{}\", not a name", value.path, value.shown()),
            "use letters, digits, `-`, `_` and `.`: it is part of a path on the admin listener",
        );
        return None;
    }
    Some(text.into())
}

fn conditions(table: &Table<'_>) -> Conditions {
    let hosts = table.get("hosts").map(|v| names(&v, "[\"www.example.com\"]")).unwrap_or_default();
    let paths = table.get("paths").map(|v| names(&v, "[\"/api/\"]")).unwrap_or_default();
    let methods = table.get("methods").map(|v| names(&v, "[\"POST\"]")).unwrap_or_default();
    Conditions {
        hosts: hosts.iter().filter_map(|(text, element)| host_pattern(text, element)).collect(),
        paths: paths.iter().filter_map(|(text, element)| path_match(text, element)).collect(),
        methods: methods.iter().filter_map(|(text, element)| method(text, element)).collect(),
        headers: table.section("headers", |t| values(t, field_name)).unwrap_or_default(),
        query: table.section("query", |t| values(t, |name, _| Some(Arc::from(name)))).unwrap_or_default(),
        cookies: table.section("cookies", |t| values(t, cookie_name)).unwrap_or_default(),
        sources: table.get("sources").map(|v| networks(&v)).unwrap_or_default(),
    }
}

/// `/prefix`, `=/exact`, `~regex` or `~*regex`.
fn path_match(text: &str, value: &Value<'_>) -> Option<PathMatch> {
    if let Some(pattern) = text.strip_prefix("~*") {
        return regex(pattern, value, true).map(PathMatch::Regex);
    }
    if let Some(pattern) = text.strip_prefix('~') {
        return regex(pattern, value, false).map(PathMatch::Regex);
    }
    let (exact, path) = text.strip_prefix('=').map_or((false, text), |path| (true, path));
    if !path.starts_with('/') || path.contains(['?', '#']) || !path.bytes().all(|b| b.is_ascii_graphic()) {
        value.problem(
            format!("`{}` is \"{}\", not a path", value.path, value.shown()),
            "write a prefix as \"/api/\", one path as \"=/api\", or a regular expression as \"~^/api\"; the query has its own key",
        );
        return None;
    }
    Some(if exact { PathMatch::Exact(path.into()) } else { PathMatch::Prefix(path.into()) })
}

fn method(text: &str, value: &Value<'_>) -> Option<Method> {
    let parsed = Method::from_bytes(text.as_bytes()).ok().filter(|_| !text.bytes().any(|b| b.is_ascii_lowercase()));
    if parsed.is_none() {
        value.problem(
            format!("`{}` is \"{}\", not a method", value.path, value.shown()),
            "write it in capitals, as in \"POST\"",
        );
    }
    parsed
}

fn cookie_name(name: &str, value: &Value<'_>) -> Option<Arc<str>> {
    // The octets of an RFC 6265 cookie-name: a token.
    let usable = HeaderName::from_bytes(name.as_bytes()).is_ok();
    if !usable {
        value.problem(format!("`{}` names no cookie", value.path), "use letters, digits, `-` and `_`");
    }
    usable.then(|| name.into())
}

/// Names with what their values have to be: a text, `"~regex"`, `true` (there) or `false` (not there).
fn values<N>(table: &Table<'_>, name: impl Fn(&str, &Value<'_>) -> Option<N>) -> Vec<(N, ValueMatch)> {
    let one = |(own, value): (&str, Value<'_>)| {
        let name = name(own, &value);
        let matches = match value.as_str() {
            Some(text) => match text.strip_prefix('~') {
                Some(pattern) => ValueMatch::Regex(regex(pattern, &value, false)?),
                None => ValueMatch::Exact(text.into()),
            },
            None if value.boolean()? => ValueMatch::Present,
            None => ValueMatch::Absent,
        };
        Some((name?, matches))
    };
    table.named().into_iter().filter_map(one).collect()
}

fn forward(table: &Table<'_>, origins: &[&str]) -> Option<Forward> {
    let elements = table.required("groups", "[{ origin = \"v1\", weight = 90 }, { origin = \"v2\", weight = 10 }]");
    let elements = elements.and_then(|v| v.array("[{ origin = \"v1\", weight = 90 }]")).unwrap_or_default();
    let mut groups: Vec<Group> = Vec::new();
    for element in &elements {
        let Some(group) = element.table(|table| group(table, origins)).flatten() else { continue };
        if groups.iter().any(|other| other.name == group.name) {
            element.problem(
                format!("`{}` is called \"{}\" like another group", element.path, shown(&group.name)),
                "give one of them another `name`",
            );
        }
        groups.push(group);
    }
    if !elements.is_empty() && !groups.is_empty() && groups.iter().all(|group| group.weight == 0) {
        table.absence(
            format!("`{}` gives nobody any request: all weights are 0", table.path),
            "give one of the groups a weight",
        );
    }
    let modes = [
        ("auto", ForwardCache::Auto),
        ("shared", ForwardCache::Shared),
        ("group", ForwardCache::Group),
        ("off", ForwardCache::Off),
    ];
    let cache = table.get("cache").and_then(|v| v.one_of(&modes)).unwrap_or_default();
    let sticky = table.section("sticky", sticky).flatten();
    (!groups.is_empty()).then_some(Forward { groups, sticky, cache })
}

fn group(table: &Table<'_>, origins: &[&str]) -> Option<Group> {
    let origin = table.required("origin", "\"v1\"").and_then(|v| origin(&v, origins));
    let name = table.get("name").and_then(|v| rule_name(&v));
    let weight = table.get("weight").and_then(|v| v.integer(0..=1_000_000)).and_then(|n| u32::try_from(n).ok());
    let origin = origin?;
    Some(Group { name: name.unwrap_or_else(|| Arc::clone(&origin)), origin, weight: weight.unwrap_or(1) })
}

fn origin(value: &Value<'_>, known: &[&str]) -> Option<Arc<str>> {
    let name = value.text("\"v1\"")?;
    if known.contains(&name) {
        return Some(name.into());
    }
    let known_list = list(known.iter().copied());
    let remedy = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? The origins are {known_list}"),
        None => format!("write one of {known_list}, or declare it"),
    };
    let message = format!("`{}` is \"{}\", an origin that is not declared", value.path, value.shown());
    value.document.absence(value.span.start, &value.path, message, remedy);
    None
}

fn sticky(table: &Table<'_>) -> Option<Sticky> {
    let cookie = table.required("cookie", "\"group\"").and_then(|v| cookie_name(v.text("\"group\"")?, &v));
    let lifetime = table.get("lifetime").and_then(|v| v.timeout());
    let secret = table.get("secret").and_then(|v| v.secret());
    Some(Sticky { cookie: cookie?, lifetime, secret })
}

fn redirect(table: &Table<'_>) -> Option<Redirect> {
    let status = table.get("status").map_or(Some(http::StatusCode::FOUND), |v| status(&v, &[301, 302, 303, 307, 308]));
    let location = table.required("to", "\"https://$host$request_uri\"").and_then(|value| {
        match value.text("\"https://$host$request_uri\"")?.parse::<Location>() {
            Ok(location) => Some(location),
            Err(error) => {
                let remedy = match &error {
                    LocationError::Unknown(_) => {
                        "there are `$scheme`, `$host`, `$port`, `$path`, `$query` and `$request_uri`; write `$$` for a dollar"
                    }
                    LocationError::NoUri => "begin it with `/`, or with a scheme as in \"https://\"",
                    LocationError::NotEncoded => "percent-encode it",
                };
                value.problem(format!("`{}` is \"{}\": {error}", value.path, value.shown()), remedy);
                None
            }
        }
    });
    Some(Redirect { status: status?, location: location? })
}

fn respond(table: &Table<'_>) -> Option<Respond> {
    let status_value = table.get("status");
    let status = status_value.as_ref().map_or(Some(200), |v| v.integer(200..=599)).and_then(status_of);
    let content_type = table.get("content_type").and_then(|value| {
        let parsed = HeaderValue::from_str(value.text("\"text/html\"")?).ok();
        if parsed.is_none() {
            value.problem(
                format!("`{}` is not a media type", value.path),
                "write it as in \"text/html; charset=utf-8\"",
            );
        }
        parsed
    });
    let body = table.get("body").and_then(|v| v.string("\"Back soon\"").map(str::to_owned)).unwrap_or_default();
    let bodiless = status.is_some_and(|status| [204, 205, 304].contains(&status.as_u16()));
    if let (Some(value), true) = (&status_value, bodiless && (!body.is_empty() || status.is_some_and(|s| s == 304))) {
        value.problem(
            format!("`{}` is a status that has no content here", value.path),
            "remove `body`, or write another status as in 200 or 503",
        );
    }
    Some(Respond {
        status: status?,
        content_type: content_type.unwrap_or_else(|| HeaderValue::from_static("text/plain; charset=utf-8")),
        body: body.into(),
    })
}

/// `prefix` or `regex`, and `to`.
fn rewrite(table: &Table<'_>) -> Option<Rewrite> {
    let (prefix, pattern) = (table.get("prefix"), table.get("regex"));
    let to_value = table.required("to", "\"/\"");
    let to: Option<Arc<str>> = to_value.as_ref().and_then(|v| v.string("\"/\"")).map(Arc::from);
    if let (Some(value), Some(text)) = (&to_value, &to)
        && (text.contains(['?', '#']) || !text.bytes().all(|b| b.is_ascii_graphic()))
    {
        value.problem(
            format!("`{}` is \"{}\", not a part of a path", value.path, value.shown()),
            "percent-encode it, and leave the query out",
        );
    }
    match (prefix, pattern) {
        (Some(value), None) => {
            let from = value.text("\"/app\"")?;
            if !from.starts_with('/') {
                let message = format!("`{}` is \"{}\", which no path begins with", value.path, value.shown());
                value.problem(message, format!("write \"/{}\"", value.shown()));
            }
            Some(Rewrite::Prefix { from: from.into(), to: to? })
        }
        (None, Some(value)) => {
            let from = regex(value.text("\"^/v[0-9]+/(.*)$\"")?, &value, false);
            Some(Rewrite::Regex { from: from?, to: to? })
        }
        _ => {
            table.absence(
                format!("`{}` needs either `prefix` or `regex`", table.path),
                "write `prefix = \"/app\"` with `to = \"\"`, or `regex = \"^/v[0-9]+/(.*)$\"` with `to = \"/$1\"`",
            );
            None
        }
    }
}

fn mirror(table: &Table<'_>, origins: &[&str]) -> Option<Mirror> {
    let origin = table.required("origin", "\"shadow\"").and_then(|v| origin(&v, origins));
    let per_mille = table.get("per_mille").and_then(|v| v.integer(0..=1000)).and_then(|n| u16::try_from(n).ok());
    let max_body = table.get("max_body").and_then(|value| {
        let size = value.size()?;
        if size > 16 << 20 {
            value.problem(
                format!("`{}` is {}, out of range", value.path, crate::types::ByteSize(size)),
                "write at most \"16 MiB\": each copy holds its content in memory",
            );
        }
        Some(size)
    });
    Some(Mirror { origin: origin?, per_mille: per_mille.unwrap_or(1000), max_body: max_body.unwrap_or(64 << 10) })
}
