//! [`Facts`] for people: one fact to a line, in the order of the request's life.

use super::facts::{Answered, Attempt, Facts, Found, Key, Request, Route, Scopes, Stored};
use std::fmt;

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |label: &str, text: String| writeln!(f, "{label:<11}{text}");
        let url = self.url.as_deref().unwrap_or("without a target that can be read");
        line("request", format!("{} {url} (id {})", self.method, self.id))?;
        match (&self.route, &self.url) {
            (Some(found), _) => {
                line("route", route(found))?;
                chosen(found, &mut line)?;
            }
            (None, Some(_)) => line("route", "none: no site has this host".to_owned())?,
            (None, None) => {}
        }
        if let Some(request) = &self.request {
            line("look-up", lookup(request))?;
        }
        if let Some(made) = &self.key {
            line("key", key(made))?;
        }
        if let Some(vary) = &self.vary {
            line("vary", format!("{}; this request's variant is {}", vary.fields.join(", "), vary.variant))?;
        }
        if let Some(response) = &self.found {
            line("found", found(response))?;
            line("lifetime", lifetime(response.lifetime, &response.lifetime_from))?;
            line("verdict", verdict(response))?;
        }
        if let Some(Answered { collapsed, forward: Some(forward), .. }) = &self.answer
            && !collapsed
        {
            line("forward", format!("{forward}: {}", forwarded(forward)))?;
        }
        for asked in &self.attempts {
            line("origin", attempt(asked))?;
        }
        if let (Some(validation), Some(found)) = (self.validation(), &self.found)
            && found.verdict != "unusable"
        {
            line("validated", validation)?;
        }
        if let Some(stale) = &self.stale {
            let cause = if stale.cause == "error" { "the origin failed" } else { "it is being validated meanwhile" };
            let outcome = if stale.served { "served" } else { "not served: nothing allows it" };
            line("stale", format!("{outcome}, {cause}"))?;
        }
        if let Some(judged) = &self.stored {
            line("stored", stored(judged))?;
        }
        if let Some(purged_by) = &self.scopes {
            line("purged by", scopes(purged_by))?;
        }
        match &self.answer {
            Some(answer) => line("answer", answered(answer)),
            None => Ok(()),
        }
    }
}

impl Facts {
    /// What became of the stored response when the origin was asked about it.
    fn validation(&self) -> Option<String> {
        let status = self.attempts.last()?.status?;
        let meaning = match status {
            304 => "the stored response is good again",
            500..=599 => "the origin failed",
            _ => "the stored response is replaced",
        };
        Some(format!("{status}: {meaning}"))
    }
}

fn route(route: &Route) -> String {
    let host = format!("host {}", route.host);
    match (&route.site, &route.path, &route.origin) {
        (Some(site), Some(path), Some(origin)) => {
            format!("site {site}, {host}, path {path}, origin {origin}")
        }
        _ => format!("{host}, but no route of its site takes the path"),
    }
}

/// Where the route is from, why it is that one, and what a traffic rule made of it.
fn chosen(route: &Route, line: &mut dyn FnMut(&str, String) -> fmt::Result) -> fmt::Result {
    if let Some(source) = &route.source {
        line("from", source.clone())?;
    }
    let because: Vec<&str> = route.because.iter().map(|reason| reason_text(reason)).collect();
    match (because.is_empty(), route.over.is_empty()) {
        (true, _) => {}
        (false, true) => line("because", because.join("; "))?,
        (false, false) => line("because", format!("{}; so not {}", because.join("; "), route.over.join(", ")))?,
    }
    let Some(rule) = &route.rule else { return Ok(()) };
    let group = rule.group.as_ref().map(|group| format!(", group {group}")).unwrap_or_default();
    line("rule", format!("{}: {}{group} ({})", rule.name, rule.action, rule.source))
}

fn reason_text(reason: &str) -> &str {
    match reason {
        "exact-host" => "an exact host goes before patterns",
        "longest-leading-wildcard" => "of wildcards the longest leading one goes first",
        "longest-trailing-wildcard" => {
            "no leading wildcard takes the host, and of trailing ones the longest goes first"
        }
        "first-host-regex" => "no name or wildcard takes the host, and of regular expressions the first counts",
        "any-host" => "nothing else takes the host",
        "default-host" => "no site has the host, and this is the default host's",
        "first-path-regex" => "of paths the first regular expression that fits goes before prefixes",
        "longest-prefix" => "no regular expression fits the path, and of prefixes the longest counts",
        other => other,
    }
}

fn lookup(request: &Request) -> String {
    match &request.reason {
        Some(reason) => format!("none, {}: {}", reason, bypass(reason)),
        None if request.demands.is_empty() => "made".to_owned(),
        None => format!("made; the request demands {}", request.demands.join(", ")),
    }
}

fn key(key: &Key) -> String {
    let host =
        if key.host.contains(':') && !key.host.starts_with('[') { format!("[{}]", key.host) } else { key.host.clone() };
    let mut text = format!("{}://{host}:{}{}", key.scheme, key.port, key.path);
    if key.query_left_out {
        text += "; the query is left out";
    }
    if key.more > 0 {
        text += &format!("; and {} more by the route's rules", key.more);
    }
    text
}

fn scopes(scopes: &Scopes) -> String {
    let mut text = format!("host {}, prefix {} and those above it", scopes.host, scopes.prefix);
    if !scopes.tags.is_empty() {
        text += &format!(", {} {}", if scopes.tags.len() == 1 { "tag" } else { "tags" }, scopes.tags.join(" "));
    }
    if scopes.loose {
        text += ", and by any tag: it has more, or longer ones, than are told apart";
    }
    text
}

fn found(found: &Found) -> String {
    let tier = match &*found.tier {
        "fill" => "while it was being stored".to_owned(),
        tier => format!("in the {tier} tier"),
    };
    let freshness = match found.ttl {
        left @ 1.. => format!("fresh for {left} s more"),
        0 => "at the end of its freshness".to_owned(),
        over => format!("stale for {} s", over.unsigned_abs()),
    };
    format!("{tier}, age {} s, {freshness}", found.age)
}

fn lifetime(seconds: u64, from: &str) -> String {
    let from = match from {
        "s-maxage" | "max-age" => format!("Cache-Control: {from}"),
        "expires" => "Expires".to_owned(),
        "heuristic" => "a tenth of the time since Last-Modified, as nothing else tells".to_owned(),
        "no-cache" => "Cache-Control: no-cache, each use is to be validated".to_owned(),
        "none" => "nothing; kept for its validator".to_owned(),
        "soft-purge" => "a soft purge, which ended it".to_owned(),
        "override" => "a rule or an earlier expiry, not its own fields".to_owned(),
        other => other.to_owned(),
    };
    format!("{seconds} s, from {from}")
}

fn verdict(found: &Found) -> String {
    match (&*found.verdict, &found.refused_by) {
        ("used", _) => "used".to_owned(),
        ("used-stale", _) => "used although stale: the request's max-stale allows it".to_owned(),
        ("stale", _) => "stale: to be validated".to_owned(),
        ("unusable", _) => "unusable: it is not for this request".to_owned(),
        ("refused", Some(directive)) => format!("refused by the request's {directive}"),
        ("refused", None) => "refused: the clock has been put back since it was stored".to_owned(),
        (other, _) => other.to_owned(),
    }
}

fn attempt(attempt: &Attempt) -> String {
    let outcome = match (attempt.status, attempt.milliseconds, &attempt.error) {
        (_, _, Some(error)) => error.to_string(),
        (Some(status), Some(took), None) => format!("{status} after {took:.1} ms"),
        _ => "no answer".to_owned(),
    };
    let outcome =
        if attempt.outpaced && attempt.error.is_none() { "another one answered first".to_owned() } else { outcome };
    let hedge = if attempt.hedge { " (hedge)" } else { "" };
    match &attempt.sibling {
        Some(coding) => format!("{}{hedge}: {outcome}, asked for the {coding} sibling", attempt.server),
        None => format!("{}{hedge}: {outcome}", attempt.server),
    }
}

fn stored(stored: &Stored) -> String {
    match (&stored.reason, stored.lifetime, &stored.lifetime_from) {
        (Some(reason), _, _) => format!("no, {reason}: {}", not_stored(reason)),
        (None, Some(seconds), Some(from)) => format!("yes; lifetime {}", lifetime(seconds, from)),
        _ => if stored.stored { "yes" } else { "no" }.to_owned(),
    }
}

fn answered(answer: &Answered) -> String {
    let mut text = answer.status.to_string();
    if let Some(cache) = &answer.cache {
        text += &format!(", {cache}");
    }
    if answer.collapsed {
        text += ": by the fetch of another request";
    }
    if let Some(reason) = &answer.reason {
        text += &format!(" by the edge itself: {reason}");
    }
    text
}

fn bypass(reason: &str) -> &'static str {
    match reason {
        "method" => "only GET and HEAD are looked up",
        "no-store" => "the request says no-store",
        "content" => "the request has content, which is no part of the key",
        "upgrade" => "the request asks for another protocol",
        "route" => "the route has `cache = false`",
        "rule" => "a rule of the route keeps the request from the cache",
        "off" => "the edge has no cache",
        _ => "the cache does not take part",
    }
}

fn forwarded(forward: &str) -> &'static str {
    match forward {
        "bypass" => "the cache does not take part",
        "method" => "this method is the origin's alone",
        "uri-miss" => "nothing is stored for this key",
        "vary-miss" => "what is stored for this key is another variant",
        "request" => "the request refuses what is stored",
        "stale" => "what is stored has to be validated",
        "partial" => "only a part of it is stored",
        _ => "nothing stored can answer",
    }
}

fn not_stored(reason: &str) -> &'static str {
    match reason {
        "method" => "the request is neither GET nor HEAD",
        "no-store" => "request or response says no-store",
        "private" => "the response is for one user (private)",
        "authorization" => {
            "the request has Authorization, and the response has none of public, must-revalidate, s-maxage"
        }
        "set-cookie" => "the response sets a cookie",
        "vary-star" => "the response has Vary: *, or one that no key can be made of",
        "vary-client" => "the response varies by a field that the edge makes for each client",
        "status" => "responses with this status are not stored",
        "partial" => "the response is a part only",
        "no-lifetime" => "the response has neither a lifetime nor a validator",
        "unknown-end" => "the response ends with the connection, so a broken one would look whole",
        "bad-length" => "the response's Content-Length is no single number",
        "too-large" => "the content is larger than what is stored",
        "head-too-large" => "the head is larger than what is stored",
        "unusual-request" => "it is an error, and the request may have provoked it",
        "cookie" => "the request has a cookie, and the response does not say that it is for all",
        "content-type-mismatch" => "the path names an asset, the content is a document",
        "min-uses" => "it was not asked for often enough yet",
        "replaced" => "the edge puts a page of its own in the place of the origin's",
        _ => "a rule forbids it",
    }
}
