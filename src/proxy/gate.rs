//! What a request passes on its way to its route: who asks, which site, by which scheme and name, with which certificate.

use super::answer::Answer;
use super::challenge;
use super::context::RequestContext;
use super::cors;
use super::downstream;
use super::edge::{self, Edge};
use super::explain;
use super::guard::{self, Refusal};
use super::mirror;
use super::plane::{Plane, RouteRule, SitePolicy};
use super::respond;
use super::target::{Scheme, Target};
use super::traffic::{Directed, set_mark};
use crate::route::settings::{HttpsMethod, NoRoute, UnknownHost};
use crate::tls::client::{ClientRefusal, Shown};
use http::{Method, StatusCode};
use pingora::cache::NoCacheReason;
use pingora::proxy::Session;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where a request leads, if it is let in.
struct Routed {
    /// The route that its path leads to, which says who is let in.
    route: Option<Arc<RouteRule>>,
    client: Option<IpAddr>,
    /// How it goes on: by that route, or as a traffic rule has it.
    outcome: Result<Arc<RouteRule>, Answer>,
}

enum LetIn {
    Yes,
    No(Answer),
    /// It was a preflight.
    Answered,
}

impl Edge {
    /// Finds out who asks; to be called before all else of a request.
    pub(super) fn identify(&self, session: &Session, ctx: &mut RequestContext) {
        let peer = session.client_addr().and_then(|a| a.as_inet()).copied();
        let plane = self.plane.load();
        ctx.client = downstream::identify(peer, &session.req_header().headers, plane.downstream());
    }

    /// All that a request passes before it is looked up: `true` where that has answered it. In order: what it is for, what
    /// the site wants of everyone, answers of traffic rules that are for everyone, networks and rate limits, preflights,
    /// passwords, and what the traffic rules do to those who may come.
    ///
    /// # Errors
    /// The client has left.
    pub(super) async fn receive(&self, session: &mut Session, ctx: &mut RequestContext) -> pingora::Result<bool> {
        let answer = match self.guard_and_route(session, ctx) {
            Ok(routed) => match self.let_in(session, &routed).await? {
                LetIn::Answered => return Ok(true),
                LetIn::No(answer) => Some(answer),
                LetIn::Yes => match routed.outcome {
                    Ok(rule) => edge::dress(session, ctx, &rule)?,
                    Err(answer) => Some(answer),
                },
            },
            Err(answer) => Some(answer),
        };
        let Some(answer) = answer else {
            mirror::begin(self, session, ctx);
            return Ok(false);
        };
        if matches!(answer, Answer::Refused(_)) {
            // What follows on a connection whose request has no single reading has none either.
            session.set_keepalive(None);
        }
        respond::write(session, ctx, &answer).await?;
        Ok(true)
    }

    /// Whether the route lets the client in. What fetches a part of a response, or validates it, is for a request that has
    /// been let in.
    async fn let_in(&self, session: &mut Session, routed: &Routed) -> pingora::Result<LetIn> {
        let Some(rule) = &routed.route else { return Ok(LetIn::Yes) };
        if session.is_subrequest() {
            return Ok(LetIn::Yes);
        }
        if let Err(answer) = rule.access.admit_client(routed.client) {
            return Ok(LetIn::No(answer));
        }
        // Browsers send no passwords with it.
        if routed.outcome.is_ok()
            && let Some(cors) = rule.cors.as_ref().filter(|_| cors::is_preflight(session.req_header()))
        {
            respond::preflight(session, cors).await?;
            return Ok(LetIn::Answered);
        }
        let known = rule.access.authenticate(&session.req_header().headers).await;
        Ok(known.map_or_else(LetIn::No, |()| LetIn::Yes))
    }

    /// Parses the target, refuses what has passed here before, and finds the rule.
    ///
    /// # Errors
    /// The answer to give instead, to everyone.
    fn guard_and_route(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<Routed, Answer> {
        let tls = session.digest().is_some_and(|d| d.ssl_digest.is_some());
        let scheme = if tls { Scheme::Https } else { Scheme::Http };
        let request = session.req_header();
        let mut target = guard::target(request, scheme).map_err(Answer::Refused)?;
        ctx.client.retarget(&mut target);
        if guard::loops(&request.headers, self.ids.node()) {
            return Err(Answer::Refused(Refusal::Loop));
        }
        let plane = self.plane.load();
        let local = session.server_addr().and_then(|a| a.as_inet()).map(SocketAddr::port);
        let site = plane.site(target.host.as_str()).filter(|site| plane.listens(*site, scheme, local));
        let policy = site.and_then(|site| plane.policy(site));
        let rule = site.and_then(|site| plane.find_in(site, target.path())).cloned();
        if let Some(rule) = &rule {
            ctx.site = Arc::clone(&rule.site);
            ctx.rule = Some(Arc::clone(rule));
        }
        ctx.origin_path = rule.as_ref().and_then(|rule| rule.path_for_origin(target.path()));
        ctx.policy = policy.cloned();
        let challenges = match policy {
            Some(policy) => policy.settings.challenges.as_deref(),
            None => plane.unknown_hosts().challenges.as_deref(),
        };
        let challenge = challenges
            .filter(|_| target.scheme == Scheme::Http && !session.is_subrequest())
            .and_then(|folder| challenge::answer(folder, &session.req_header().method, target.path()));
        let entered = match policy {
            _ if challenge.is_some() => challenge.map_or(Ok(()), Err),
            // What fetches a part of a response, or validates it, is for a request that has passed already.
            Some(_) if session.is_subrequest() => Ok(()),
            Some(policy) => self.enter(session, ctx, &plane, policy, &target, tls),
            None => Err(unknown_host(&plane)),
        };
        ctx.target = Some(target);
        explain::routed(ctx, &plane);
        entered?;
        let client = ctx.client.ip();
        let directed = match policy.and_then(|policy| policy.traffic.as_ref()) {
            Some(traffic) => traffic.direct(session, ctx, rule.clone()),
            None => Ok(rule.clone()),
        };
        let directed = match directed {
            Ok(directed) => directed,
            Err(Directed { answer, before_access: true }) => return Err(answer),
            Err(Directed { answer, before_access: false }) => {
                return Ok(Routed { route: rule, client, outcome: Err(answer) });
            }
        };
        let outcome = directed.ok_or_else(|| match policy.map(|policy| &policy.settings.no_route) {
            Some(NoRoute::Redirect(status, to)) => Answer::Redirect(*status, to.to_string()),
            Some(NoRoute::Status(status)) => Answer::NoRoute(*status),
            None => Answer::NoRoute(StatusCode::NOT_FOUND),
        });
        if let Ok(rule) = &outcome {
            ctx.rule = Some(Arc::clone(rule));
            explain::routed(ctx, &plane);
        }
        Ok(Routed { route: rule, client, outcome })
    }

    /// What a site wants of a request, whatever its path.
    fn enter(
        &self,
        session: &Session,
        ctx: &mut RequestContext,
        plane: &Plane,
        policy: &SitePolicy,
        target: &Target,
        tls: bool,
    ) -> Result<(), Answer> {
        let settings = &policy.settings;
        let method = by_scheme(ctx, plane, policy, target, tls)?;
        let secure = target.scheme == Scheme::Https || method == HttpsMethod::Redirect;
        let other = settings.canonical.and_then(|canonical| canonical.other(target.host.as_str()));
        if other.is_some() || secure != (target.scheme == Scheme::Https) {
            let host = other.as_deref().unwrap_or(target.host.as_str());
            return Err(moved(session.req_header().method.clone(), policy, target, host, secure));
        }
        let Some(authorities) = &policy.authorities else { return Ok(()) };
        let shown = session.digest().and_then(|d| d.ssl_digest.as_ref()?.extension.get::<Shown>());
        match authorities.verify(shown, self.clock.now()) {
            Ok(subject) => ctx.subject = Some(subject),
            Err(ClientRefusal::None) if policy.may_do_without(target.scheme) => {}
            // The client was not asked, since it began its connection in the name of another site (RFC 9110 section 15.5.20).
            Err(ClientRefusal::None) if shown.is_some_and(|s| s.asked.as_deref() != Some(target.host.as_str())) => {
                return Err(Answer::Misdirected);
            }
            Err(refusal) => return Err(Answer::NoCertificate(refusal)),
        }
        Ok(())
    }
}

/// Gives the request to another group of its traffic rule, where there is one left: true if so.
pub(super) fn give_up_group(session: &mut Session, ctx: &mut RequestContext) -> bool {
    let Some(next) = ctx.assigned.as_mut().and_then(|assigned| assigned.give_up()) else { return false };
    if next.key_tag.is_some() && session.cache.enabled() {
        // What comes now is another group's than the key says.
        session.cache.disable(NoCacheReason::Custom("group"));
    }
    ctx.ask.tried.clear();
    ctx.rule = Some(next);
    if let Some(group) = ctx.assigned.as_ref().map(|assigned| assigned.place()) {
        // The parts of its answer are fetched from where that is.
        set_mark(session, group);
    }
    explain::regrouped(ctx);
    true
}

fn unknown_host(plane: &Plane) -> Answer {
    match plane.unknown_hosts().answer {
        UnknownHost::Status(status) => Answer::UnknownHost(status, plane.unknown_hosts().page.clone()),
        UnknownHost::Drop => Answer::Dropped,
    }
}

/// Whether the site is served by the scheme, and which method is in force. Notes the HSTS of the answer, whatever it is.
fn by_scheme(
    ctx: &mut RequestContext,
    plane: &Plane,
    policy: &SitePolicy,
    target: &Target,
    tls: bool,
) -> Result<HttpsMethod, Answer> {
    let settings = &policy.settings;
    if settings.https.method == HttpsMethod::NoRedirect && settings.tls.trust_default {
        // What most sites are; nothing depends on certificates.
        return Ok(HttpsMethod::NoRedirect);
    }
    // Where a proxy before this node ends TLS, it has the certificate.
    let ended_before = target.scheme == Scheme::Https && !tls;
    let has_certificate = ended_before || plane.certificates().is_some_and(|c| c.has(&target.host, settings));
    let method = settings.https.effective(has_certificate);
    match (method, target.scheme) {
        (HttpsMethod::NoHttps, Scheme::Https) => return Err(unknown_host(plane)),
        (_, Scheme::Https) if !has_certificate && !settings.tls.trust_default => return Err(unknown_host(plane)),
        (HttpsMethod::NoHttp, Scheme::Http) => return Err(Answer::PlainHttpOff),
        _ => {}
    }
    if target.scheme == Scheme::Https && has_certificate && method != HttpsMethod::NoRedirect {
        ctx.hsts = settings.hsts.clone();
    }
    Ok(method)
}

/// The redirect to the right scheme and name, in one step.
fn moved(method: Method, policy: &SitePolicy, target: &Target, host: &str, secure: bool) -> Answer {
    let https = &policy.settings.https;
    // RFC 9110 section 15.4.9: 308 keeps the method, which 301 does not promise.
    let safe = matches!(method, Method::GET | Method::HEAD);
    let status = if safe { StatusCode::MOVED_PERMANENTLY } else { https.non_get_redirect };
    let (scheme, port) = match (secure, target.scheme) {
        (true, Scheme::Http) => ("https", Some(https.port)),
        (_, Scheme::Https) => ("https", target.port),
        (false, Scheme::Http) => ("http", target.port),
    };
    let port =
        port.filter(|port| !(scheme == "https" && *port == 443)).map(|port| format!(":{port}")).unwrap_or_default();
    let path = if *target.path_and_query == *"*" { "/" } else { &*target.path_and_query };
    Answer::Redirect(status, format!("{scheme}://{host}{port}{path}"))
}
