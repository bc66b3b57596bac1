//! What the hot path answers, by the same functions that decide in the phases.

use super::reason::Reason;
use super::request::Request;
use super::template::{self, Template};
use crate::cache::direct::{Held, OnDisk, Promoted};
use crate::cache::key::Framed;
use crate::cache::policy::{self, Demand, HitVerdict, Precondition, RequestVerdict};
use crate::cache::rules::{CacheRules, KeyRules};
use crate::cache::{Cache, Tier, disk};
use crate::field::date;
use crate::proxy::context::RequestContext;
use crate::proxy::headers::{FieldRules, HeaderRules};
use crate::proxy::plane::RouteRule;
use crate::proxy::target::{Scheme, Target};
use crate::proxy::{Edge, edge, guard, headers, ranges, report, respond};
use crate::types::HostName;
use http::header::{AGE, CONTENT_LENGTH, DATE};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::cache::CacheMeta;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::conditional_filter::to_304;
use pingora::proxy::RangeType;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// What one connection keeps from request to request, so that it need not be made again.
#[derive(Default)]
pub struct Memo {
    authority: Vec<u8>,
    host: Option<(HostName, Option<u16>)>,
    /// The key of the request that is being answered.
    framed: Vec<u8>,
    no_fields: HeaderMap,
}

/// A request that the hot path may answer, if what it asks for is there.
pub struct Asked {
    pub rule: Arc<RouteRule>,
    pub method: Method,
    pub scheme: Scheme,
    pub host: HostName,
    pub port: Option<u16>,
    /// Of the plane that the rule is of.
    generation: u64,
    hash: disk::Hash128,
    /// Its fields as the route's rules leave them, where they count or may select.
    header: Option<RequestHeader>,
    conditional: bool,
    ranged: bool,
    demand: Demand,
}

/// A stored response that may answer.
enum Stored {
    Memory(Held),
    Disk(Box<OnDisk>),
}

/// The content of an answer.
pub enum Content {
    /// None.
    Nothing,
    /// These positions of what is in memory.
    Memory(Held, Range<u64>),
    /// These positions of what is on the disk.
    Disk(disk::Object, Range<u64>),
}

/// What a request is answered with, its head aside.
pub struct Answer {
    pub status: StatusCode,
    pub tier: Tier,
    pub content: Content,
}

/// What is worked out once for a stored response in memory.
struct Dressed {
    /// It holds for the rules of this plane.
    generation: u64,
    /// Whether `Vary` names anything.
    varies: bool,
    /// `None`: the core has to write the head.
    whole: Option<Template>,
    not_modified: OnceLock<Option<Template>>,
}

impl Memo {
    fn host(&mut self, authority: &[u8]) -> Result<(HostName, Option<u16>), Reason> {
        if self.authority != authority || self.host.is_none() {
            let text = std::str::from_utf8(authority).map_err(|_| Reason::Target)?;
            self.host = Some(HostName::parse_with_port(text).map_err(|_| Reason::Target)?);
            authority.clone_into(&mut self.authority);
        }
        self.host.clone().ok_or(Reason::Target)
    }
}

impl Asked {
    /// Routes a request and applies the rules that need nothing stored.
    ///
    /// # Errors
    /// Why the core has to answer it.
    pub fn new(edge: &Edge, scheme: Scheme, request: &Request<'_, '_>, memo: &mut Memo) -> Result<Self, Reason> {
        let (host, port) = memo.host(request.host)?;
        let port = port.filter(|port| *port != scheme.default_port());
        let path = request.target.split_once('?').map_or(request.target, |(path, _)| path);
        let plane = edge.plane.load();
        let site = plane.site(host.as_str()).filter(|_| !plane.has_own_ports());
        let Some(rule) = site.and_then(|site| plane.find_in(site, path)) else { return Err(Reason::Route) };
        if request.forwarded && plane.downstream().listens() {
            return Err(Reason::Fields);
        }
        let selects = suits(rule, scheme, request)?;
        if rule.hsts(scheme).is_some() && !plane.certificates().is_some_and(|c| c.has(&host, &rule.site_settings)) {
            // Told only where there is a certificate at this moment, which what is worked out for the plane does not know.
            return Err(Reason::Rule);
        }
        let header = (request.counts || selects).then(|| request.to_header()).transpose()?;
        let header = header.map(|header| prepared(edge, rule, header)).transpose()?;
        let fields = header.as_ref().map_or(&memo.no_fields, |header| &header.headers);
        if rule.rules.bypasses(fields, path) {
            return Err(Reason::Bypass);
        }
        let demand = match header.as_ref().map(|header| policy::admits_request(header)) {
            None => Demand::default(),
            Some(RequestVerdict::Lookup(demand)) => demand,
            Some(RequestVerdict::Bypass(_)) => return Err(Reason::Bypass),
        };
        let hash = edge::frame_key(rule, scheme, &host, port, request.target, &mut memo.framed).hash;
        Ok(Self {
            rule: Arc::clone(rule),
            method: request.method.clone(),
            scheme,
            host,
            port,
            generation: plane.generation(),
            hash,
            header,
            conditional: request.conditional,
            ranged: request.ranged,
            demand,
        })
    }

    /// Finds what answers, writes the head of the answer to `out`, and counts the look-up. Once it has found something
    /// to answer with, nothing goes back to the core.
    ///
    /// # Errors
    /// Why the core has to answer it.
    pub async fn answer(
        &self,
        edge: &Edge,
        cache: &'static Cache,
        memo: &Memo,
        again: impl Fn() -> Result<RequestHeader, Reason>,
        closes: bool,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Reason> {
        let now = edge.clock.now();
        let key = Framed { hash: self.hash, whole: &memo.framed };
        let primary = stored(cache, key, None, now).await?;
        let Some(variant) = self.variant(edge, &primary, again)? else {
            return self.answer_with(edge, cache, primary, None, now, closes, out).await;
        };
        if primary.meta().variance() == Some(variant) {
            return self.answer_with(edge, cache, primary, None, now, closes, out).await;
        }
        let secondary = stored(cache, key, Some(variant), now).await?;
        // The core's conditions for a variant beside the primary slot.
        let valid =
            secondary.meta().variance() == Some(variant) && secondary.meta().created() >= primary.meta().provenance();
        if !valid {
            return Err(Reason::Missing);
        }
        self.answer_with(edge, cache, secondary, Some(&primary), now, closes, out).await
    }

    /// The variant that the response in the primary slot leads to (RFC 9111 section 4.1).
    fn variant(
        &self,
        edge: &Edge,
        primary: &Stored,
        again: impl Fn() -> Result<RequestHeader, Reason>,
    ) -> Result<Option<disk::Hash128>, Reason> {
        let rules = &self.rule.rules;
        let select = |header: &RequestHeader| {
            edge::variance(rules, primary.meta(), &header.headers, &policy::family(primary.meta().headers()))
        };
        if let Some(header) = &self.header {
            return Ok(select(header));
        }
        let varies = match primary {
            Stored::Memory(held) => self.dressed(edge, held, |dressed| dressed.varies).unwrap_or(true),
            Stored::Disk(found) => varies(found.meta()),
        };
        if varies { Ok(select(&prepared(edge, &self.rule, again()?)?)) } else { Ok(None) }
    }

    #[allow(clippy::too_many_arguments, reason = "they are what one answer is made of")]
    async fn answer_with(
        &self,
        edge: &Edge,
        cache: &'static Cache,
        stored: Stored,
        primary: Option<&Stored>,
        now: SystemTime,
        closes: bool,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Reason> {
        let meta = stored.meta();
        if stored.is_partial() {
            return Err(Reason::Partial);
        }
        if policy::on_hit(meta, &self.demand, now) != HitVerdict::Use || !meta.is_fresh(now) {
            return Err(Reason::Refused);
        }
        let values = template::Values {
            age: policy::current_age(meta, now).as_secs(),
            ttl: policy::time_to_live(meta, now),
            closes,
        };
        let length = stored.len();
        let tier = stored.tier();
        let (status, range) = self.write_head(edge, &stored, length, values, out)?;
        for found in primary.into_iter().chain([&stored]) {
            match found {
                Stored::Memory(held) => cache.count_held(held),
                Stored::Disk(found) => cache.count_on_disk(found),
            }
        }
        let range = if self.method == Method::HEAD { 0..0 } else { range };
        let content = match stored {
            Stored::Memory(held) => Content::Memory(held, range),
            Stored::Disk(found) => match cache.promote(*found).await.ok_or(Reason::Missing)? {
                Promoted::Held(held) => Content::Memory(held, range),
                Promoted::Object(object) => Content::Disk(object, range),
            },
        };
        let content = if content.is_empty() { Content::Nothing } else { content };
        Ok(Answer { status, tier, content })
    }

    /// The status of the answer, and the positions it needs; its head goes to `out`.
    fn write_head(
        &self,
        edge: &Edge,
        stored: &Stored,
        length: u64,
        values: template::Values,
        out: &mut Vec<u8>,
    ) -> Result<(StatusCode, Range<u64>), Reason> {
        let meta = stored.meta();
        let condition = match &self.header {
            Some(header) if self.conditional => policy::precondition(header, meta.response_header()),
            _ => Precondition::Holds,
        };
        let ranged = self.ranged && condition == Precondition::Holds;
        if let Stored::Memory(held) = stored
            && !ranged
            && condition != Precondition::Failed
        {
            let modified = condition == Precondition::Holds;
            let status = if modified { meta.response_header().status } else { StatusCode::NOT_MODIFIED };
            let rendered = self.dressed(edge, held, |dressed| {
                let template = match modified {
                    true => dressed.whole.as_ref(),
                    false => {
                        let make = || self.template(edge, meta, Tier::Memory, Precondition::NotModified).ok();
                        dressed.not_modified.get_or_init(make).as_ref()
                    }
                };
                template.map(|template| template.render(values, out))
            });
            return rendered.flatten().map(|()| (status, 0..if modified { length } else { 0 })).ok_or(Reason::Stored);
        }
        let ranged = self.header.as_ref().filter(|_| ranged);
        let (head, range) = self.head(edge, meta, stored.tier(), condition, ranged, values)?;
        let range = match range {
            RangeType::Single(range) => range.start as u64..range.end as u64,
            RangeType::None if condition == Precondition::Holds => 0..length,
            RangeType::None | RangeType::Invalid => 0..0,
            RangeType::Multi(_) => return Err(Reason::Ranges),
        };
        let status = head.status;
        template::write(head, values.closes, out).ok_or(Reason::Stored)?;
        Ok((status, range))
    }

    /// Has `look` look at what is worked out for what is in memory; `None` only while the routes are being replaced.
    fn dressed<R>(&self, edge: &Edge, held: &Held, look: impl FnOnce(&Dressed) -> R) -> Option<R> {
        let mut look = Some(look);
        let mut attempt = || {
            held.worked_out().with(|dressed: &Dressed| {
                let current = dressed.generation == self.generation;
                look.take_if(|_| current).map(|look| look(dressed))
            })
        };
        if let Some(seen) = attempt() {
            return Some(seen);
        }
        held.worked_out().set(Dressed {
            generation: self.generation,
            varies: varies(held.meta()),
            whole: self.template(edge, held.meta(), Tier::Memory, Precondition::Holds).ok(),
            not_modified: OnceLock::new(),
        });
        attempt()
    }

    fn template(&self, edge: &Edge, meta: &CacheMeta, tier: Tier, condition: Precondition) -> Result<Template, Reason> {
        let (head, _) = self.head(edge, meta, tier, condition, None, template::Values::default())?;
        Template::new(head).ok_or(Reason::Stored)
    }

    /// The head as the core and the phases make it of a hit, in their order. `ranged` is the
    /// request, where its `Range` counts.
    fn head(
        &self,
        edge: &Edge,
        meta: &CacheMeta,
        tier: Tier,
        condition: Precondition,
        ranged: Option<&RequestHeader>,
        values: template::Values,
    ) -> Result<(ResponseHeader, RangeType), Reason> {
        let fields = meta.headers();
        let unframed = !fields.contains_key(CONTENT_LENGTH) && meta.response_header().status != StatusCode::NO_CONTENT;
        // Without one date of its own it would get the core's.
        if unframed || date::single(fields, &DATE).is_none() {
            return Err(Reason::Stored);
        }
        let mut head = meta.response_header_copy();
        let dress = || -> pingora::Result<(ResponseHeader, RangeType)> {
            head.insert_header(AGE, values.age)?;
            head.set_version(Version::HTTP_11);
            let none = RequestHeader::build(self.method.clone(), b"/", Some(1))?;
            let request = ranged.unwrap_or(&none);
            let range = match condition {
                Precondition::NotModified => {
                    to_304(&mut head);
                    ranges::apply(request, &mut head)
                }
                Precondition::Failed => {
                    respond::precondition_failed(&mut head);
                    RangeType::Invalid
                }
                Precondition::Holds => ranges::apply(request, &mut head),
            };
            if head.status == StatusCode::NOT_MODIFIED {
                head.remove_header(&http::header::CONTENT_RANGE);
            }
            let ctx = self.context(edge, tier);
            let status = report::hit_status(Some(values.ttl), Some(tier));
            respond::finish_head(&ctx, &none.headers, edge.purge.expose_tags, &status, None, &mut head)?;
            Ok((head, range))
        };
        dress().map_err(|_| Reason::Stored)
    }

    /// What the phases know of such a request when they write its head.
    fn context(&self, edge: &Edge, tier: Tier) -> RequestContext {
        let mut ctx = RequestContext::new(Arc::clone(&self.rule.site), edge.ids.next(), edge.clock.now());
        ctx.target =
            Some(Target { scheme: self.scheme, host: self.host.clone(), port: self.port, path_and_query: "/".into() });
        ctx.rule = Some(Arc::clone(&self.rule));
        ctx.hsts = self.rule.hsts(self.scheme).cloned();
        ctx.tier = Some(tier);
        ctx.outcome = crate::field::CacheOutcome::Hit;
        ctx
    }
}

impl Content {
    fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Memory(_, range) | Self::Disk(_, range) => range.is_empty(),
        }
    }
}

impl Stored {
    fn meta(&self) -> &CacheMeta {
        match self {
            Self::Memory(held) => held.meta(),
            Self::Disk(found) => found.meta(),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Memory(held) => held.len(),
            Self::Disk(found) => found.len(),
        }
    }

    fn is_partial(&self) -> bool {
        match self {
            Self::Memory(held) => held.is_partial(),
            Self::Disk(found) => found.is_partial(),
        }
    }

    fn tier(&self) -> Tier {
        match self {
            Self::Memory(_) => Tier::Memory,
            Self::Disk(_) => Tier::Disk,
        }
    }
}

async fn stored(
    cache: &'static Cache,
    key: Framed<'_>,
    variant: Option<disk::Hash128>,
    now: SystemTime,
) -> Result<Stored, Reason> {
    if let Some(held) = cache.held(key, variant, now) {
        return Ok(Stored::Memory(held));
    }
    let found = cache.held_on_disk(key, variant, now).await;
    found.map(|found| Stored::Disk(Box::new(found))).ok_or(Reason::Missing)
}

fn varies(meta: &CacheMeta) -> bool {
    !policy::vary_names(meta.headers()).is_empty()
}

/// Whether the route leaves its answers to what can be decided here; then, whether the key is made of fields of the
/// request. Everything that a rule can have is named, so that what is new has to be placed.
fn suits(rule: &RouteRule, scheme: Scheme, request: &Request<'_, '_>) -> Result<bool, Reason> {
    let RouteRule {
        site: _,
        source: _,
        path: _,
        origin,
        cache,
        rules,
        headers,
        security: _,
        cors,
        compression: _,
        // See `needs_phases`.
        site_settings: _,
        settings: _,
        access: _,
        traffic: _,
        variants: _,
        key_tag: _,
        max_request_body: _,
        server_timing: _,
    } = rule;
    let CacheRules {
        key,
        cookies,
        set_cookie: _,
        authorization: _,
        bypass_cookies: _,
        bypass_headers,
        bypass_paths: _,
        force: _,
        lifetime: _,
        ttl: _,
        min_uses: _,
        max_object: _,
        slices: _,
        tags: _,
    } = rules;
    let KeyRules { no_query: _, only: _, ignore: _, ignore_tracking: _, sort: _, headers: keyed, device } = key;
    let HeaderRules { request: _, response } = headers;
    let FieldRules { remove, set, add } = response;
    let made = set.iter().chain(add);
    let owned = made.clone().map(|(name, _)| name).chain(remove).any(|name| template::OWN.contains(name));
    let per_client = made.clone().any(|(_, value)| value.is_per_request());
    let allowed = match origin.kind() {
        crate::origin::Kind::S3(bucket) => bucket.allows(&request.method),
        crate::origin::Kind::Http(_) => true,
    };
    let by_site = cors.is_some() && request.cross_origin;
    if !cache || rule.needs_phases(scheme) || by_site || owned || per_client || !allowed {
        return Err(Reason::Rule);
    }
    Ok(!keyed.is_empty() || *device || !cookies.keyed().is_empty() || !bypass_headers.is_empty())
}

/// The request's fields as they are when the cache is asked.
fn prepared(edge: &Edge, rule: &RouteRule, mut header: RequestHeader) -> Result<RequestHeader, Reason> {
    if guard::loops(&header.headers, edge.ids.node()) {
        return Err(Reason::Fields);
    }
    headers::strip(&mut header, &rule.rules);
    if let Some(compression) = &rule.compression {
        compression.negotiate(&mut header).map_err(|_| Reason::Fields)?;
    }
    Ok(header)
}
