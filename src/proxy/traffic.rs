//! Traffic rules while the node runs: which group a request is given to, and weights that an operator changes.

use super::answer::Answer;
use super::context::RequestContext;
use super::explain;
use super::mirror::Shadow;
use super::plane::RouteRule;
use crate::metrics::Metrics;
use crate::route::settings::SiteSettings;
use crate::route::traffic::{self, Action, Forward, GroupState, Parts, RuleState, Sticky, Subject, WeightsError};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::COOKIE;
use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::proxy::Session;
use prometheus::IntCounter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Tells what fetches slices, or validates in the background, which group the request that it is for was given to. A
/// client's own never counts and no origin gets it.
pub const GROUP_MARK: HeaderName = HeaderName::from_static("x-selvedge-group");

/// The rules of one site.
pub struct SiteTraffic {
    settings: Arc<SiteSettings>,
    plans: Vec<Plan>,
}

/// What a rule has besides its settings.
#[derive(Default)]
pub struct Plan {
    /// The groups, where it forwards.
    pub live: Option<Arc<Live>>,
    /// Where copies go.
    pub shadow: Option<Arc<Shadow>>,
}

/// The groups of one rule and their present weights. Outlives reloads that leave the groups as they are.
pub struct Live {
    site: Arc<str>,
    rule: Arc<str>,
    groups: Vec<LiveGroup>,
    ticket: AtomicU64,
    key: hmac::Key,
}

struct LiveGroup {
    name: Arc<str>,
    origin: Arc<str>,
    configured: u32,
    weight: AtomicU32,
    answered: IntCounter,
    failed: IntCounter,
}

/// The group that a request was given to.
pub struct Assigned {
    live: Arc<Live>,
    /// The rules of the route for each group.
    variants: Vec<Arc<RouteRule>>,
    group: usize,
    /// Groups that could not be reached for this request.
    given_up: Vec<usize>,
    sticky: Option<(Sticky, bool)>,
}

impl Live {
    /// The groups of a rule at their configured weights. `key` makes sticky cookies.
    pub fn new(site: &Arc<str>, rule: &Arc<str>, forward: &Forward, key: hmac::Key, metrics: &Metrics) -> Self {
        let group = |group: &traffic::Group| {
            let counter =
                |result| metrics.traffic_requests.with_label_values(&[&**site, &**rule, &*group.name, result]);
            LiveGroup {
                name: Arc::clone(&group.name),
                origin: Arc::clone(&group.origin),
                configured: group.weight,
                weight: AtomicU32::new(group.weight),
                answered: counter("answered"),
                failed: counter("failed"),
            }
        };
        let groups = forward.groups.iter().map(group).collect();
        Self { site: Arc::clone(site), rule: Arc::clone(rule), groups, ticket: AtomicU64::new(0), key }
    }

    /// Whether it was made of this: weights changed while running stay over a reload only if so.
    pub fn is_of(&self, forward: &Forward) -> bool {
        let own = self.groups.iter().map(|group| (&group.name, &group.origin, group.configured));
        own.eq(forward.groups.iter().map(|group| (&group.name, &group.origin, group.weight)))
    }

    /// Site and rule.
    pub fn name(&self) -> (&str, &str) {
        (&self.site, &self.rule)
    }

    /// Its groups as they are now.
    pub fn state(&self) -> RuleState {
        let group = |group: &LiveGroup| GroupState {
            name: group.name.to_string(),
            origin: group.origin.to_string(),
            weight: group.weight.load(Ordering::Relaxed),
            answered: group.answered.get(),
            failed: group.failed.get(),
        };
        let groups = self.groups.iter().map(group).collect();
        RuleState { site: self.site.to_string(), rule: self.rule.to_string(), groups }
    }

    /// Changes weights; groups that are not named keep theirs. Requests under way stay where they are.
    ///
    /// # Errors
    /// See [`WeightsError`]; nothing is changed then.
    pub fn set(&self, weights: &[(String, u32)]) -> Result<(), WeightsError> {
        if let Some((name, _)) = weights.iter().find(|(name, _)| !self.groups.iter().any(|g| *g.name == **name)) {
            return Err(WeightsError::NoGroup(name.clone()));
        }
        let given =
            |group: &LiveGroup| weights.iter().find(|(name, _)| **name == *group.name).map(|(_, weight)| *weight);
        let next: Vec<u32> =
            self.groups.iter().map(|g| given(g).unwrap_or_else(|| g.weight.load(Ordering::Relaxed))).collect();
        if next.iter().all(|weight| *weight == 0) {
            return Err(WeightsError::AllZero);
        }
        // Those that grow first: at no time is there nobody to ask.
        let mut order: Vec<(&LiveGroup, u32)> = self.groups.iter().zip(next).collect();
        order.sort_by_key(|(group, weight)| *weight < group.weight.load(Ordering::Relaxed));
        order.iter().for_each(|(group, weight)| group.weight.store(*weight, Ordering::Relaxed));
        Ok(())
    }

    fn weights(&self) -> Vec<u32> {
        self.groups.iter().map(|group| group.weight.load(Ordering::Relaxed)).collect()
    }

    fn choose(&self) -> Option<usize> {
        traffic::choose(&self.weights(), self.ticket.fetch_add(1, Ordering::Relaxed))
    }

    /// What a sticky cookie says for a group: known to this node alone, unless it has been given a secret.
    fn token(&self, group: usize) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        let name = self.groups.get(group).map_or("", |group| &*group.name);
        for part in [&*self.site, &*self.rule, name] {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(&context.sign().as_ref()[..16])
    }

    /// The group that a cookie names, if it still gets requests.
    fn group_of(&self, token: &str) -> Option<usize> {
        let named = (0..self.groups.len()).find(|group| self.token(*group) == token)?;
        (self.groups.get(named)?.weight.load(Ordering::Relaxed) > 0).then_some(named)
    }
}

impl SiteTraffic {
    /// `plans` are one for each rule.
    pub fn new(settings: Arc<SiteSettings>, plans: Vec<Plan>) -> Self {
        Self { settings, plans }
    }

    /// The rules that forward.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Live>> {
        self.plans.iter().filter_map(|plan| plan.live.as_ref())
    }

    /// Applies the rules to a request: the route that it goes on by, another origin in it where a rule forwards.
    ///
    /// # Errors
    /// The answer that a rule gives instead, and whether it is for those as well whom the route keeps out.
    pub(super) fn direct(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        route: Option<Arc<RouteRule>>,
    ) -> Result<Option<Arc<RouteRule>>, Directed> {
        let mark = take_mark(session);
        let Some(target) = ctx.target.clone() else { return Ok(route) };
        let (path, query) = target.path_and_query.split_once('?').unwrap_or((&target.path_and_query, ""));
        let request = session.req_header();
        let subject = Subject {
            host: target.host.as_str(),
            path,
            query,
            method: &request.method,
            headers: &request.headers,
            client: ctx.client.ip(),
        };
        let decision = traffic::decide(&self.settings.rules, &subject);
        let query_counts = route.as_ref().is_none_or(|route| route.whole_query_counts());
        for (place, rewrite) in &decision.rewrites {
            if let Some(rewritten) = rewrite.apply(ctx.path_for_origin().unwrap_or(path)) {
                ctx.origin_path = Some(rewritten.into());
            }
            // A rewrite that others with the same key do not get must not fill the cache for them, nor be answered by it.
            let when = self.settings.rules.get(*place).map(|rule| &rule.when);
            ctx.off_key |= when.is_some_and(|when| !when.are_in_the_key(query_counts));
        }
        if !session.is_subrequest() {
            let shadows = decision.mirrors.iter().filter_map(|(place, _)| self.plans.get(*place)?.shadow.clone());
            ctx.shadows.extend(shadows);
        }
        if let Some((place, action)) = decision.action
            && let Some(rule) = self.settings.rules.get(place)
        {
            explain::ruled(ctx, rule, action);
        }
        let directed = |place: usize, answer| {
            let before_access = self.settings.rules.get(place).is_some_and(|rule| rule.before_access);
            Err(Directed { answer, before_access })
        };
        let parts = || Parts { scheme: target.scheme.as_str(), host: subject.host, port: target.port, path, query };
        match decision.action {
            None => Ok(route),
            // What a part of a response is fetched by has passed here before.
            Some((_, Action::Redirect(_) | Action::Respond(_) | Action::Drop)) if session.is_subrequest() => Ok(route),
            Some((place, Action::Redirect(redirect))) => {
                directed(place, Answer::Redirect(redirect.status, redirect.location.fill(&parts())))
            }
            Some((place, Action::Respond(respond))) => directed(place, Answer::Fixed(Box::new(respond.clone()))),
            Some((place, Action::Drop)) => directed(place, Answer::Dropped),
            Some((place, Action::Forward(forward))) => Ok(self.forward(session, ctx, route, place, forward, mark)),
        }
    }

    fn forward(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        route: Option<Arc<RouteRule>>,
        place: usize,
        forward: &Forward,
        mark: Option<usize>,
    ) -> Option<Arc<RouteRule>> {
        let route = route?;
        let (Some(live), Some(variants)) =
            (self.plans.get(place).and_then(|plan| plan.live.as_ref()), route.variants.get(place))
        else {
            return Some(route);
        };
        let cookie = forward.sticky.as_ref().and_then(|sticky| take_cookie(session, &sticky.cookie));
        let stuck = cookie.and_then(|token| live.group_of(&token));
        let group = mark.or(stuck).or_else(|| live.choose()).filter(|group| *group < variants.len());
        let Some(variant) = group.and_then(|group| variants.get(group)) else { return Some(route) };
        let group = group.unwrap_or_default();
        set_mark(session, group);
        ctx.assigned = Some(Box::new(Assigned {
            live: Arc::clone(live),
            variants: variants.clone(),
            group,
            given_up: Vec::new(),
            sticky: forward.sticky.clone().map(|sticky| (sticky, stuck == Some(group))),
        }));
        Some(Arc::clone(variant))
    }
}

/// A rule answers by itself.
pub(super) struct Directed {
    /// With this.
    pub answer: Answer,
    /// Before it is seen whether the route lets the client in.
    pub before_access: bool,
}

impl Assigned {
    /// Its place among the rule's groups.
    pub fn place(&self) -> usize {
        self.group
    }

    /// The rule for another group that still gets requests, or gets none but is the last hope; the present one is given up.
    pub fn give_up(&mut self) -> Option<Arc<RouteRule>> {
        let given_up = self.given_up.iter().chain([&self.group]).copied().collect::<Vec<_>>();
        let mut weights = self.live.weights();
        given_up.iter().for_each(|group| {
            if let Some(weight) = weights.get_mut(*group) {
                *weight = 0;
            }
        });
        let next = traffic::choose(&weights, self.live.ticket.fetch_add(1, Ordering::Relaxed));
        let next = next.or_else(|| (0..self.variants.len()).find(|group| !given_up.contains(group)))?;
        self.count(false);
        (self.group, self.given_up) = (next, given_up);
        if let Some((_, stuck)) = &mut self.sticky {
            *stuck = false;
        }
        self.variants.get(next).cloned()
    }

    /// Counts an answer of the group's origin, or that there was none.
    pub fn count(&self, answered: bool) {
        let Some(group) = self.live.groups.get(self.group) else { return };
        if answered { group.answered.inc() } else { group.failed.inc() }
    }

    /// The cookie that keeps the client with the group, unless it has it already (RFC 6265 section 4.1). It is put on when
    /// the answer leaves, so that nothing stored has it.
    pub fn cookie(&self, secure: bool) -> Option<String> {
        let (sticky, _) = self.sticky.as_ref().filter(|(_, stuck)| !stuck)?;
        let lifetime = sticky.lifetime.map(|time| format!("; Max-Age={}", time.as_secs())).unwrap_or_default();
        let secure = if secure { "; Secure" } else { "" };
        let token = self.live.token(self.group);
        Some(format!("{}={token}; Path=/{lifetime}; HttpOnly; SameSite=Lax{secure}", sticky.cookie))
    }

    /// The group's name, for the log and explanations.
    pub fn group(&self) -> (&str, &str) {
        (&self.live.rule, self.live.groups.get(self.group).map_or("", |group| &*group.name))
    }
}

/// Has the subrequests of a request go to its group.
pub(super) fn set_mark(session: &mut Session, group: usize) {
    if let Ok(value) = HeaderValue::try_from(group.to_string()) {
        let _ = session.req_header_mut().insert_header(GROUP_MARK, value);
    }
}

/// The group that a subrequest is marked with. A client's mark goes, and says nothing.
fn take_mark(session: &mut Session) -> Option<usize> {
    let mark = session.req_header_mut().remove_header(&GROUP_MARK)?;
    if !session.is_subrequest() {
        return None;
    }
    mark.to_str().ok()?.parse().ok()
}

/// Takes a cookie off the request: it is this node's, and neither the origin nor the cache's rules are to see it.
fn take_cookie(session: &mut Session, name: &str) -> Option<String> {
    // Bytes, since other cookies may hold any.
    let lines: Vec<HeaderValue> = session.req_header().headers.get_all(COOKIE).iter().cloned().collect();
    let pairs = || lines.iter().flat_map(|line| line.as_bytes().split(|b| *b == b';')).map(<[u8]>::trim_ascii);
    let own = |pair: &&[u8]| pair.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
    let value = pairs().find(own)?.get(name.len() + 1..).map(|value| String::from_utf8_lossy(value).into_owned());
    let rest: Vec<&[u8]> = pairs().filter(|pair| !own(pair)).collect();
    let head = session.req_header_mut();
    head.remove_header(&COOKIE);
    if !rest.is_empty()
        && let Ok(rest) = HeaderValue::from_bytes(&rest.join(&b"; "[..]))
    {
        // It was a field's value before, and has become shorter.
        let _ = head.insert_header(COOKIE, rest);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::traffic::{ForwardCache, Group};

    fn forward(weights: &[u32]) -> Forward {
        let group =
            |(n, weight): (usize, &u32)| Group { name: format!("v{n}").into(), origin: "o".into(), weight: *weight };
        let groups = weights.iter().enumerate().map(group).collect();
        Forward { groups, sticky: None, cache: ForwardCache::Auto }
    }

    fn live(weights: &[u32]) -> Live {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"k");
        Live::new(&"s".into(), &"r".into(), &forward(weights), key, &Metrics::new())
    }

    #[test]
    fn weights_change_as_a_whole_or_not_at_all() {
        let live = live(&[100, 0]);
        let set = |pairs: &[(&str, u32)]| {
            live.set(&pairs.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect::<Vec<_>>())
        };
        assert_eq!(set(&[("v0", 50), ("v1", 50)]), Ok(()));
        assert_eq!(live.weights(), [50, 50]);
        assert_eq!(set(&[("v0", 1), ("v2", 1)]), Err(WeightsError::NoGroup("v2".to_owned())));
        assert_eq!(set(&[("v0", 0), ("v1", 0)]), Err(WeightsError::AllZero));
        assert_eq!(live.weights(), [50, 50]);
        assert_eq!(set(&[("v0", 0)]), Ok(()));
        assert_eq!((live.weights(), live.choose()), (vec![0, 50], Some(1)));
        assert!(live.is_of(&forward(&[100, 0])) && !live.is_of(&forward(&[0, 50])));
    }

    #[test]
    fn a_cookie_names_a_group_only_while_it_gets_requests() {
        let live = live(&[1, 1]);
        let token = live.token(1);
        assert_eq!((live.group_of(&token), live.group_of("made-up"), live.group_of("v1")), (Some(1), None, None));
        live.set(&[("v1".to_owned(), 0)]).unwrap();
        assert_eq!(live.group_of(&token), None);
    }
}
