//! Ranges of what is not stored: what the origin server is asked for, what its 206 becomes, and how the missing slices
//! of a stored response are fetched (`cache::slices`).
//!
//! A request for one range of something unknown asks for the slice that has its first byte. What comes back decides:
//! the whole of it is stored like any 200; a slice of something larger with a strong validator begins a response in
//! slices; any other part answers if it has the range, and else the range is asked for as the client gave it. A 200 that
//! is too large to be stored whole is given up at its head and asked for in slices. Slices that are missing are fetched by subrequests, which go through the same phases with an [`Order`] in their context.

use super::context::RequestContext;
use super::sibling::Sibling;
use super::{Edge, forward, ranges, s3};
use crate::cache::policy::{self, ContentRange, RangeSpec, StrongValidator};
use crate::cache::rules::Slicing;
use crate::cache::slices::{self, Layout, Order, Readiness, SliceSource};
use crate::field::cache_status::Forward;
use crate::origin::Kind;
use crate::origin::s3::Attempt;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_RANGE, HeaderMap, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::{Method, StatusCode};
use pingora::cache::{CacheMeta, ForcedFreshness, HitHandler, RespCacheable};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::subrequest::server::{HttpSession as Template, SubrequestHandle};
use pingora::proxy::subrequest::Ctx;
use pingora::proxy::{RangeType, Session, SubrequestSpawner};
use pingora::{Error, ErrorType, Result};
use std::ops::Range;
use std::sync::Arc;

/// The range that the origin server was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The slice that has the first byte of the client's range.
    Slice {
        /// Its number.
        index: u64,
        /// Bytes of a slice.
        size: u64,
    },
    /// The client's own range.
    Own,
}

/// What is known of ranges on the way of one request.
#[derive(Default)]
pub struct Progress {
    /// The slice that this request is to fetch, if it is such a subrequest.
    pub order: Option<Box<Order>>,
    /// What the origin server was asked for.
    ask: Option<Ask>,
    /// A slice would not do: the client's own range is asked for.
    exact: bool,
    /// What it asks for is beyond the end, and that is not the first thing to say of it.
    beyond: bool,
    /// It has no range, but what it asks for is too large to be stored whole.
    large: bool,
    /// The decision about storing what the origin server sent, where it had to be made early.
    verdict: Option<RespCacheable>,
    source: Option<Arc<dyn SliceSource>>,
    /// Something of the stored response has to be fetched.
    pub partial: bool,
}

/// Fetches slices by subrequests like the request they are for.
struct Subrequests {
    spawner: SubrequestSpawner,
    template: ServerSession,
    /// Keeps the template's channels.
    _handle: SubrequestHandle,
}

impl SliceSource for Subrequests {
    fn fetch(&self, order: Order) -> SubrequestHandle {
        let ctx = Ctx::builder().user_ctx(Box::new(order)).build();
        let (subrequest, handle) = self.spawner.create_subrequest(&self.template, ctx);
        tokio::spawn(subrequest.run());
        handle
    }
}

/// Takes over what a subrequest is to fetch.
pub fn begin(session: &Session, ctx: &mut RequestContext) {
    let order = session.subrequest_ctx.as_ref().and_then(|sub| sub.user_ctx()?.downcast_ref::<Order>());
    ctx.ranges.order = order.cloned().map(Box::new);
}

/// Makes a client's request one for a slice: without its range and conditions, which are for the answer as a whole.
pub fn undress(request: &mut RequestHeader) {
    for name in [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
        request.remove_header(&name);
    }
    request.set_method(Method::GET);
}

/// Puts the range into the request to the origin server; `upstream` has none, and no conditions of the client.
///
/// # Errors
/// None: the values are digits or come from a parsed request.
pub fn ask(edge: &Edge, session: &Session, upstream: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    ctx.ranges.ask = None;
    if let Some(order) = &ctx.ranges.order {
        let (start, end) = order.layout.bounds(order.index);
        upstream.insert_header(RANGE, format!("bytes={start}-{}", end.saturating_sub(1)))?;
        // Some HTTP servers compare otherwise than they should; buckets do not.
        if let (StrongValidator::Tag(tag), Some(Kind::S3(_))) =
            (&order.validator, ctx.rule.as_ref().map(|r| r.origin.kind()))
        {
            upstream.insert_header(IF_MATCH, tag)?;
        }
        return Ok(());
    }
    let Some(ask) = plan(edge, session, ctx) else { return Ok(()) };
    let own = &session.req_header().headers;
    match ask {
        Ask::Slice { index, size } => {
            let start = index.saturating_mul(size);
            upstream.insert_header(RANGE, format!("bytes={start}-{}", start.saturating_add(size - 1)))?;
        }
        Ask::Own => {
            if let Some(range) = own.get(RANGE) {
                upstream.insert_header(RANGE, range)?;
            }
        }
    }
    if let Some(condition) = own.get(IF_RANGE) {
        upstream.insert_header(IF_RANGE, condition)?;
    }
    ctx.ranges.ask = Some(ask);
    Ok(())
}

/// What to ask for; `None`: the whole.
fn plan(edge: &Edge, session: &Session, ctx: &RequestContext) -> Option<Ask> {
    let size = slice_size(edge, session, ctx)?;
    // RFC 9110 section 14.2: of GET alone.
    let request = session.req_header();
    match RangeSpec::of(&request.headers).filter(|_| request.method == Method::GET && !ctx.ranges.beyond) {
        Some(RangeSpec::From(first, _)) if !ctx.ranges.exact => Some(Ask::Slice { index: first / size, size }),
        Some(RangeSpec::From(..) | RangeSpec::Suffix(_)) => Some(Ask::Own),
        None => (ctx.ranges.large && !ctx.ranges.exact).then_some(Ask::Slice { index: 0, size }),
    }
}

/// Bytes of a slice of what this request is answered with; `None` where slices do not apply.
fn slice_size(edge: &Edge, session: &Session, ctx: &RequestContext) -> Option<u64> {
    let (cache, rule) = (edge.cache?, ctx.rule.as_ref()?);
    let known = session.cache.maybe_cache_meta().map(|meta| Layout::of(meta.headers()).is_some());
    let applies = session.cache.enabled()
        && rule.rules.slices == Slicing::On
        && ctx.attempt == Attempt::Requested
        // A compressed sibling is another representation, and asked for whole.
        && !matches!(ctx.sibling, Sibling::Asked(_))
        // What is stored whole is validated whole.
        && known != Some(false);
    cache.slice_size().filter(|_| applies)
}

/// Whether this 206 is what the order asked for.
fn fits(order: &Order, response: &ResponseHeader) -> bool {
    let (start, end) = order.layout.bounds(order.index);
    let wanted = ContentRange { first: start, last: end.saturating_sub(1), complete: Some(order.layout.complete) };
    response.status == StatusCode::PARTIAL_CONTENT
        && ContentRange::of(&response.headers) == Some(wanted)
        && has_length(&response.headers, wanted.length())
        && StrongValidator::of(&response.headers).as_ref() == Some(&order.validator)
}

/// Whether the declared length, if there is one, is this.
fn has_length(headers: &HeaderMap, length: u64) -> bool {
    policy::content_length(headers).is_ok_and(|declared| declared.is_none_or(|declared| declared == length))
}

impl Edge {
    /// Judges the answer to a subrequest for a slice, and makes it the head that the slice is stored with.
    ///
    /// # Errors
    /// It is no such slice. If it is of something else the head of the stored response is dropped.
    pub(super) async fn take_slice(&self, order: &Order, response: &mut ResponseHeader) -> Result<()> {
        if fits(order, response) {
            let meta = order.meta(self.clock.now())?;
            let version = response.version;
            *response = meta.response_header_copy();
            response.set_version(version);
            return Ok(());
        }
        let fault =
            response.status.is_server_error() || matches!(response.status.as_u16(), 401 | 403 | 407 | 408 | 425 | 429);
        if let Some(cache) = self.cache.filter(|_| !fault) {
            cache.forget(order).await;
        }
        let mut error =
            Error::explain(ErrorType::HTTPStatus(502), "the origin server did not give the slice asked for");
        error.set_retry(false);
        Err(error.into_up())
    }

    /// Decides what a 206 is that the origin server was asked for.
    ///
    /// # Errors
    /// It has not the client's range, which is then asked for as the client gave it; or it is a 200 that is asked for
    /// again in slices.
    pub(super) async fn take_part(
        &self,
        session: &Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        if ctx.ranges.ask.is_none() && self.is_for_slices(session, response, ctx) {
            ctx.ranges.large = true;
            return Err(s3::ask_again("a response that is too large to be stored whole"));
        }
        let unsatisfied = response.status == StatusCode::RANGE_NOT_SATISFIABLE && ctx.ranges.ask.is_some();
        if unsatisfied && policy::is_conditional(&session.req_header().headers) {
            // Preconditions come first (RFC 9110 section 13.2.2), and they were not sent.
            ctx.ranges.beyond = true;
            return Err(s3::ask_again("the preconditions of a range beyond the end"));
        }
        let Some(ask) = ctx.ranges.ask.filter(|_| response.status == StatusCode::PARTIAL_CONTENT) else {
            return Ok(());
        };
        let part = ContentRange::of(&response.headers);
        if let Some(part) = part.filter(ContentRange::is_whole)
            && has_length(&response.headers, part.length())
        {
            ctx.ranges.ask = None;
            response.remove_header(&CONTENT_RANGE);
            response.set_reason_phrase(None)?;
            return response.set_status(StatusCode::OK);
        }
        if let (Ask::Slice { index, size }, Some(part)) = (ask, part)
            && let Some(sliced) = self.first_slice(session, response, (index, size), part, ctx).await?
        {
            *response = sliced;
            return Ok(());
        }
        let marked = policy::as_part(response);
        let request = &session.req_header().headers;
        let answers = |marked: &ResponseHeader| policy::part_answers(request, &marked.headers).is_some();
        if ask != Ask::Own && !marked.as_ref().is_some_and(answers) {
            ctx.ranges.exact = true;
            return Err(s3::ask_again("the range of a response that cannot be stored in slices"));
        }
        if let Some(marked) = marked {
            ctx.ranges.verdict = Some(self.judge(session, &marked, ctx));
            *response = marked;
        }
        Ok(())
    }

    /// Whether a 200 may be stored, but is too large for that unless it is in slices, which its origin server can give.
    fn is_for_slices(&self, session: &Session, response: &ResponseHeader, ctx: &mut RequestContext) -> bool {
        let (Some(cache), Some(rule)) = (self.cache, ctx.rule.clone()) else { return false };
        let Some(size) = slice_size(self, session, ctx).filter(|_| !ctx.ranges.large && !ctx.ranges.exact) else {
            return false;
        };
        let length = policy::content_length(&response.headers).ok().flatten();
        let Some(length) = length.filter(|length| *length > rule.rules.max_object(cache.max_object())) else {
            return false;
        };
        let by_ranges =
            response.headers.get(ACCEPT_RANGES).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"bytes"));
        let accepted = session.req_header().headers.get(ACCEPT_ENCODING);
        let as_is = rule.compression.is_none() || accepted.is_some_and(|coding| coding.as_bytes() == b"identity");
        if response.status != StatusCode::OK || !by_ranges || !as_is || StrongValidator::of(&response.headers).is_none()
        {
            return false;
        }
        let mut head = response.clone();
        Layout::new(size, length).is_some_and(|layout| layout.mark(&mut head, 0).is_ok())
            && matches!(self.judge(session, &head, ctx), RespCacheable::Cacheable(_))
    }

    /// The head of a response in slices, if the part is the slice asked for of something that may be stored.
    async fn first_slice(
        &self,
        session: &Session,
        response: &ResponseHeader,
        (index, size): (u64, u64),
        part: ContentRange,
        ctx: &mut RequestContext,
    ) -> Result<Option<ResponseHeader>> {
        let (Some(cache), Some(complete)) = (self.cache, part.complete) else { return Ok(None) };
        let Some(validator) = StrongValidator::of(&response.headers) else { return Ok(None) };
        let Some(layout) = cache.layout_for(session.cache.cache_key(), &validator, size, complete).await else {
            return Ok(None);
        };
        let (start, end) = layout.bounds(index);
        let exact = (part.first, part.last.saturating_add(1)) == (start, end);
        if !exact || !has_length(&response.headers, part.length()) {
            return Ok(None);
        }
        let mut head = response.clone();
        layout.mark(&mut head, index)?;
        if let Some(compression) = ctx.rule.as_ref().and_then(|rule| rule.compression.as_ref()) {
            // Parts are of the content as it is; others may get it compressed.
            compression.begin(&session.req_header().headers, false, &mut head)?;
        }
        match self.judge(session, &head, ctx) {
            verdict @ RespCacheable::Cacheable(_) => {
                ctx.ranges.verdict = Some(verdict);
                Ok(Some(head))
            }
            RespCacheable::Uncacheable(_) => Ok(None),
        }
    }

    /// The decision about storing, where it has been made.
    pub(super) fn early_verdict(&self, ctx: &mut RequestContext) -> Option<RespCacheable> {
        if let Some(order) = &ctx.ranges.order {
            return order.meta(self.clock.now()).ok().map(RespCacheable::Cacheable);
        }
        ctx.ranges.verdict.take()
    }

    /// Whether a stored response that was found has what this request wants of it: the range of a part, the first slice
    /// of what is in slices. `usable` says that nothing else speaks against it.
    pub(super) async fn prepare(
        &self,
        session: &mut Session,
        meta: &CacheMeta,
        hit: &mut HitHandler,
        usable: bool,
        ctx: &mut RequestContext,
    ) -> Option<ForcedFreshness> {
        if policy::part_of(meta.headers()).is_some() {
            // RFC 9110 section 14.2: a range is of GET alone, so that HEAD asks for what the part is of.
            let request = session.req_header();
            let answers =
                request.method == Method::GET && policy::part_answers(&request.headers, meta.headers()).is_some();
            ctx.forward = if answers { ctx.forward } else { Some(Forward::Partial) };
            return (!answers).then_some(ForcedFreshness::ForceMiss);
        }
        slices::layout_of(hit)?;
        let wanted = wanted(session.req_header(), meta);
        let (start, end) = (wanted.start as u64, wanted.end as u64);
        ctx.ranges.partial = false;
        if !usable || ctx.demand.only_if_cached {
            // Nothing is fetched for what may have changed.
            ctx.ranges.partial = slices::prepare(hit, start, end).await != Readiness::Stored;
        }
        if !ctx.demand.only_if_cached
            && let Some(source) = source(session, ctx).await
        {
            slices::attach(hit, source, meta.headers());
        }
        if !usable {
            return None;
        }
        let readiness = slices::prepare(hit, start, end).await;
        ctx.ranges.partial |= readiness != Readiness::Stored;
        let failed = readiness == Readiness::Failed || (ctx.ranges.partial && ctx.demand.only_if_cached);
        if failed {
            ctx.forward = Some(Forward::Partial);
        }
        failed.then_some(ForcedFreshness::ForceMiss)
    }

    /// Gives the reader of a response that is being stored in slices the source of those that do not come by themselves.
    pub(super) async fn follow_slices(&self, session: &mut Session, ctx: &mut RequestContext) {
        let fields = session.cache.maybe_cache_meta().map(CacheMeta::headers);
        let Some(fields) = fields.filter(|fields| fields.contains_key(policy::SLICES)).cloned() else { return };
        if session.cache.miss_body_reader().is_none() {
            return;
        }
        let Some(source) = source(session, ctx).await else { return };
        if let Some(own) = session.cache.miss_body_reader() {
            slices::attach(own, source, &fields);
        }
    }
}

/// The range of an answer that is a part already.
pub fn of_part(request: &RequestHeader, response: &mut ResponseHeader, ctx: &RequestContext) -> RangeType {
    // The origin server has cut it.
    if ctx.ranges.ask == Some(Ask::Own) {
        return RangeType::None;
    }
    match policy::part_answers(&request.headers, &response.headers) {
        Some((Range { start, end }, answer)) => {
            policy::cut_part(response, &answer);
            match (usize::try_from(start), usize::try_from(end)) {
                (Ok(start), Ok(end)) => RangeType::Single(start..end),
                _ => RangeType::None,
            }
        }
        None => RangeType::None,
    }
}

/// Positions of a stored 200 that the answer to this request needs.
fn wanted(request: &RequestHeader, meta: &CacheMeta) -> Range<usize> {
    let mut head = meta.response_header_copy();
    let complete = Layout::of(&head.headers).map_or(0, |layout| usize::try_from(layout.complete).unwrap_or(usize::MAX));
    if request.method == Method::HEAD || policy::precondition(request, &head) != policy::Precondition::Holds {
        return 0..0;
    }
    match ranges::apply(request, &mut head) {
        RangeType::None => 0..complete,
        RangeType::Invalid => 0..0,
        RangeType::Single(range) => range,
        RangeType::Multi(several) => {
            several.ranges.first().map_or(0, |range| range.start)..several.ranges.last().map_or(0, |range| range.end)
        }
    }
}

/// The source of slices for this request; made once.
async fn source(session: &mut Session, ctx: &mut RequestContext) -> Option<Arc<dyn SliceSource>> {
    if let Some(source) = &ctx.ranges.source {
        return Some(Arc::clone(source));
    }
    let spawner = session.subrequest_spawner.take()?;
    forward::as_http1(session.req_header_mut(), ctx);
    let (template, handle) = Template::new_from_session(session.as_downstream());
    let mut template = ServerSession::new_subrequest(template);
    template.read_request().await.ok().filter(|read| *read)?;
    let source: Arc<dyn SliceSource> = Arc::new(Subrequests { spawner, template, _handle: handle });
    ctx.ranges.source = Some(Arc::clone(&source));
    Some(source)
}
