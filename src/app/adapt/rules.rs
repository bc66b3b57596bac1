//! What `vhost.d` answers or rewrites, as traffic rules.

use super::Adapter;
use crate::discovery::nginx_proxy::{self, Answer, Directives, Level, PathRoute};
use crate::route::PathPattern;
use crate::route::traffic::{Action, Conditions, PathMatch, Redirect, Respond, Rewrite, Rule};
use http::{HeaderValue, StatusCode};
use std::sync::Arc;

impl Adapter<'_> {
    /// What `vhost.d` answers or rewrites itself, before any location.
    pub(super) fn rules(&mut self, site: &nginx_proxy::Site) -> Vec<Rule> {
        let mut rules = Vec::new();
        rules.extend(site.debug_endpoint.then(|| debug_endpoint(site)));
        self.rules_of(&site.host, &site.directives, None, &mut rules);
        for route in &site.paths {
            let path = match &route.pattern {
                PathPattern::Prefix(prefix) => PathMatch::Prefix(Arc::clone(prefix)),
                PathPattern::Regex(regex) => PathMatch::Regex(regex.clone()),
            };
            self.rules_of(&site.host, &route.directives, Some(path), &mut rules);
        }
        rules
    }

    fn rules_of(&mut self, host: &Arc<str>, from: &Directives, path: Option<PathMatch>, rules: &mut Vec<Rule>) {
        let source: Arc<str> = format!("vhost.d, for {host}").into();
        let mut add = |when: Conditions, rewrite: Option<Rewrite>, action: Option<Action>| {
            let name = format!("vhost.d-{}", rules.len() + 1).into();
            // As with nginx, whose `return` comes before `allow`, `deny` and `auth_basic`.
            rules.push(Rule {
                name,
                when,
                rewrite,
                mirror: None,
                action,
                before_access: true,
                source: Arc::clone(&source),
            });
        };
        let within = || Conditions { paths: path.iter().cloned().collect(), ..Conditions::default() };
        let mut odd = Vec::new();
        for rewrite in &from.rewrites {
            // Compiled when the file was read.
            let Ok(regex) = regex::Regex::new(&rewrite.regex) else { continue };
            match rewrite.redirect {
                None => {
                    // nginx replaces the whole path where the expression fits anywhere in it.
                    let whole = regex::Regex::new(&format!("^.*?(?:{}).*$", rewrite.regex)).unwrap_or(regex);
                    let to = braced(&rewrite.replacement).into();
                    add(within(), Some(Rewrite::Regex { from: whole, to }), None);
                }
                Some(status) if !rewrite.replacement.contains('$') => match redirect(status, &rewrite.replacement) {
                    Some(action) => {
                        let when = Conditions { paths: vec![PathMatch::Regex(regex)], ..Conditions::default() };
                        add(when, None, Some(action));
                    }
                    None => odd.push(format!("rewrite {} {}", rewrite.regex, rewrite.replacement)),
                },
                Some(_) => odd.push(format!("rewrite {} {} to another place", rewrite.regex, rewrite.replacement)),
            }
        }
        match &from.answer {
            None => {}
            Some(Answer::Close) => add(within(), None, Some(Action::Drop)),
            Some(Answer::Text(status, body)) => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::NOT_FOUND);
                let content_type = HeaderValue::from_static("text/plain");
                let respond = Respond { status, content_type, body: body.clone().into() };
                add(within(), None, Some(Action::Respond(respond)));
            }
            Some(Answer::Redirect(status, address)) => match redirect(*status, address) {
                Some(action) => add(within(), None, Some(action)),
                None => odd.push(format!("return {status} {address}")),
            },
        }
        for text in odd {
            self.note(Level::Problem, host, format!("vhost.d: `{text}` is not translated"));
        }
    }
}

/// nginx-proxy's view of how the host was resolved.
fn debug_endpoint(site: &nginx_proxy::Site) -> Rule {
    let path = |route: &PathRoute| {
        let servers = route.servers.iter().map(|s| serde_json::json!({ "container": &*s.container, "why": s.why }));
        serde_json::json!({
            "path": &*route.path,
            "dest": route.dest,
            "proto": route.proto.as_str(),
            "servers": servers.collect::<Vec<_>>(),
        })
    };
    let view = serde_json::json!({
        "host": &*site.host,
        "containers": site.containers.iter().map(|name| &**name).collect::<Vec<_>>(),
        "https_method": site.https.as_str(),
        "certificate": site.certificate.as_deref(),
        "hsts": site.hsts,
        "paths": site.paths.iter().map(path).collect::<Vec<_>>(),
    });
    let respond = Respond {
        status: StatusCode::OK,
        content_type: HeaderValue::from_static("application/json"),
        body: format!("{view}\n").into(),
    };
    Rule {
        name: "nginx-proxy-debug".into(),
        when: Conditions { paths: vec![PathMatch::Exact("/nginx-proxy-debug".into())], ..Conditions::default() },
        rewrite: None,
        mirror: None,
        action: Some(Action::Respond(respond)),
        before_access: true,
        source: "DEBUG_ENDPOINT".into(),
    }
}

fn redirect(status: u16, address: &str) -> Option<Action> {
    let status = StatusCode::from_u16(status).ok()?;
    Some(Action::Redirect(Redirect { status, location: location(address).parse().ok()? }))
}

/// nginx's variables as our placeholders.
pub(super) fn location(address: &str) -> String {
    [
        ("$http_host", "$host"),
        ("$is_args$args", "$query"),
        ("?$args", "$query"),
        ("?$query_string", "$query"),
        ("$uri", "$path"),
    ]
    .iter()
    .fold(address.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// `$1` as `${1}`, so that a letter after it does not become a part of the name.
fn braced(replacement: &str) -> String {
    let mut out = String::new();
    let mut chars = replacement.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(digit) if c == '$' && digit.is_ascii_digit() => {
                out.push_str(&format!("${{{digit}}}"));
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}
