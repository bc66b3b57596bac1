//! Purging: what an order means under the routes in force, and the PURGE method.

use super::Scheme;
use super::answer::Answer;
use super::context::RequestContext;
use super::edge::{self, Edge};
use super::guard;
use super::respond;
use crate::cache::purge::{Failure, Order, Report, Scope, audit};
use crate::route::Match;
use crate::types::Secret;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, StatusCode};
use pingora::Result;
use pingora::cache::CacheKey;
use pingora::proxy::Session;
use std::sync::Arc;

/// A request with this field and the value `1` purges softly.
const SOFT_PURGE: HeaderName = HeaderName::from_static("soft-purge");

/// How purging shows on the clients' side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether the clients' listeners take the PURGE method; without it, PURGE is the origin's to answer.
    pub method: bool,
    /// What a PURGE request has to send as its bearer token (RFC 6750).
    pub token: Option<Secret>,
    /// Whether clients get to see the fields that tags come in.
    pub expose_tags: bool,
}

impl Edge {
    /// Carries out an order in a task of its own, so that one who hangs up does not leave half of it purged, and writes
    /// the audit line. `who` asked.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn purge(self: &Arc<Self>, order: Order, request_id: String, who: String) -> Result<Report, Failure> {
        let edge = Arc::clone(self);
        let carried_out = tokio::spawn(async move {
            let outcome = match edge.cache {
                Some(cache) => cache.carry_out(&order, |url| edge.key_of_url(url)).await,
                None => Err(Failure::Unavailable("caching is turned off".to_owned())),
            };
            audit(&request_id, &who, &order, &outcome);
            outcome
        });
        carried_out.await.unwrap_or_else(|error| Err(Failure::Unavailable(error.to_string())))
    }

    /// Answers a PURGE request where the method is on: true if it did.
    pub(super) async fn purge_method(
        self: &Arc<Self>,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<bool> {
        let settings = &self.purge;
        if !settings.method || session.req_header().method.as_str() != "PURGE" {
            return Ok(false);
        }
        let answer = match authorized(settings.token.as_ref(), &session.req_header().headers) {
            Err(refusal) => refusal,
            Ok(()) => self.purge_target(session, ctx).await,
        };
        respond::write(session, ctx, &answer).await?;
        Ok(true)
    }

    async fn purge_target(self: &Arc<Self>, session: &Session, ctx: &mut RequestContext) -> Answer {
        let tls = session.digest().is_some_and(|d| d.ssl_digest.is_some());
        let request = session.req_header();
        let target = match guard::target(request, if tls { Scheme::Https } else { Scheme::Http }) {
            Ok(target) => target,
            Err(refusal) => return Answer::Refused(refusal),
        };
        let url = format!("{}://{}{}", target.scheme.as_str(), target.authority(), target.path_and_query);
        ctx.target = Some(target);
        let soft = request.headers.get(SOFT_PURGE).is_some_and(|value| value == "1");
        let who = ctx.client.address.map(|address| address.to_string()).unwrap_or_default();
        let request_id = ctx.request_id.to_string();
        let order = Order { scopes: vec![Scope::Url(url)], soft };
        match self.purge(order, request_id.clone(), who).await {
            Ok(report) => Answer::Purge(StatusCode::OK, report.to_json(&request_id, soft).to_string()),
            Err(failure) => {
                let status = match failure {
                    Failure::Bad { .. } => StatusCode::BAD_REQUEST,
                    Failure::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                Answer::Purge(status, failure.to_json(&request_id).to_string())
            }
        }
    }

    /// The cache key of an absolute URL, by the same rules that requests go by.
    ///
    /// # Errors
    /// Why the URL has no key: not absolute, a malformed host, or a host and path that no route takes.
    pub fn key_of_url(&self, url: &str) -> Result<CacheKey, String> {
        let target = edge::target_of_url(url)?;
        match self.plane.load().find(target.host.as_str(), target.path()) {
            Match::Route(rule) => Ok(edge::cache_key(rule, &target)),
            Match::NoRoute => Err(format!("no route of {} takes the path", target.host)),
            Match::UnknownHost => Err(format!("no site has the host {}", target.host)),
        }
    }
}

/// RFC 6750 section 2.1, as on the admin listener. Configuration wants a token where others than this machine can send.
fn authorized(token: Option<&Secret>, headers: &HeaderMap) -> Result<(), Answer> {
    let Some(token) = token else {
        // A web page on this machine can be made to send anything to loopback; a browser says so.
        let by_page = headers.contains_key(http::header::ORIGIN) || headers.contains_key("sec-fetch-site");
        return if by_page { Err(Answer::PurgeRefused(StatusCode::FORBIDDEN)) } else { Ok(()) };
    };
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let given = match (values.next(), values.next()) {
        (Some(value), None) => value.as_bytes().split_at_checked(7),
        _ => None,
    };
    match given {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") && token.matches(given.trim_ascii()) => Ok(()),
        _ => Err(Answer::PurgeRefused(StatusCode::UNAUTHORIZED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &'static str, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_token_decides_who_may_use_the_method() {
        let token = Secret::new("hunter2");
        let status = |token: Option<&Secret>, headers: &HeaderMap| authorized(token, headers).err()?.status();
        for right in ["Bearer hunter2", "bearer  hunter2 "] {
            assert_eq!(status(Some(&token), &fields("authorization", &[right])), None, "{right}");
        }
        for wrong in [&[][..], &["hunter2"], &["Bearer hunter3"], &["Bearer x", "Bearer hunter2"], &["Basic hunter2"]] {
            assert_eq!(
                status(Some(&token), &fields("authorization", wrong)),
                Some(StatusCode::UNAUTHORIZED),
                "{wrong:?}"
            );
        }
        assert_eq!(status(None, &HeaderMap::new()), None);
        assert_eq!(status(None, &fields("origin", &["https://evil.example"])), Some(StatusCode::FORBIDDEN));
    }
}
