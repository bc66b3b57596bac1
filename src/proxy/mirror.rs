//! Copies of requests, sent to an origin whose answers nobody waits for. A copy never holds up the request it is of, and
//! what there is no room for is not copied.

use super::context::RequestContext;
use super::edge::Edge;
use super::forward;
use crate::field::connection;
use crate::metrics::Metrics;
use crate::origin::{Ask, Kind, Origin};
use crate::route::traffic::Mirror;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use pingora::Result;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use prometheus::IntCounter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Copies of one rule under way at once.
const AT_ONCE: usize = 64;
/// A copy's whole exchange.
const WITHIN: Duration = Duration::from_secs(30);
/// An idle connection is kept for the next copy for this long.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read so that its connection can be used again.
const MOST_READ: usize = 1 << 20;

/// Where the copies of one rule go.
pub struct Shadow {
    settings: Mirror,
    origin: Arc<Origin>,
    turns: Arc<Semaphore>,
    ticket: AtomicU64,
    sent: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
}

/// The content of a request that is to be copied, as far as it has come.
pub struct Copying {
    shadow: Arc<Shadow>,
    head: Box<RequestHeader>,
    content: Vec<u8>,
}

impl Shadow {
    /// Of a rule's settings.
    pub fn new(settings: &Mirror, origin: Arc<Origin>, site: &str, rule: &str, metrics: &Metrics) -> Self {
        let counter = |result| metrics.mirrored.with_label_values(&[site, rule, result]);
        Self {
            settings: settings.clone(),
            origin,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            ticket: AtomicU64::new(0),
            sent: counter("sent"),
            failed: counter("failed"),
            dropped: counter("dropped"),
        }
    }

    fn is_chosen(&self) -> bool {
        let per_mille = u32::from(self.settings.per_mille.min(1000));
        let weights = [per_mille, 1000 - per_mille];
        crate::route::traffic::choose(&weights, self.ticket.fetch_add(1, Ordering::Relaxed)) == Some(0)
    }

    /// Sends a copy in a task of its own, if there is a place for one more.
    fn send(self: Arc<Self>, connector: Arc<Connector>, head: Box<RequestHeader>, content: Bytes) {
        let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else {
            return self.dropped.inc();
        };
        tokio::spawn(async move {
            let _turn = turn;
            match tokio::time::timeout(WITHIN, exchange(&self.origin, &connector, head, content)).await {
                Ok(Ok(())) => self.sent.inc(),
                Ok(Err(error)) => {
                    self.failed.inc();
                    tracing::debug!(origin = %self.origin.name(), %error, "a copied request was not taken");
                }
                Err(_) => self.failed.inc(),
            }
        });
    }
}

/// Copies the request to every shadow that its rules named; one with content when that has come.
pub(super) fn begin(edge: &Edge, session: &mut Session, ctx: &mut RequestContext) {
    let shadows = std::mem::take(&mut ctx.shadows);
    if shadows.is_empty() || session.is_upgrade_req() {
        return;
    }
    let bodiless = session.as_downstream_mut().is_body_empty();
    for shadow in shadows.into_iter().filter(|shadow| shadow.is_chosen()) {
        let Ok(head) = head_of(edge, session.req_header(), ctx, &shadow) else { continue };
        if bodiless {
            shadow.send(Arc::clone(&edge.shadows), head, Bytes::new());
        } else {
            ctx.copying.push(Copying { shadow, head, content: Vec::new() });
        }
    }
}

/// Takes a piece of the request's content, and at its end sends what was to be copied.
pub(super) fn collect(edge: &Edge, ctx: &mut RequestContext, piece: Option<&Bytes>, end: bool) {
    if ctx.copying.is_empty() {
        return;
    }
    let more = piece.map_or(&[][..], |piece| piece);
    ctx.copying.retain_mut(|copying| {
        let fits = (copying.content.len() + more.len()) as u64 <= copying.shadow.settings.max_body;
        if fits {
            copying.content.extend_from_slice(more);
        } else {
            copying.shadow.dropped.inc();
        }
        fits
    });
    if end {
        for Copying { shadow, mut head, content } in ctx.copying.drain(..) {
            if head.insert_header(CONTENT_LENGTH, content.len()).is_ok() {
                shadow.send(Arc::clone(&edge.shadows), head, content.into());
            }
        }
    }
}

/// The head of the copy: what an origin would get, with HTTP/1.1's framing.
fn head_of(edge: &Edge, request: &RequestHeader, ctx: &RequestContext, shadow: &Shadow) -> Result<Box<RequestHeader>> {
    let path = ctx.target.as_ref().map_or("/", |target| &*target.path_and_query);
    let mut head = RequestHeader::build(request.method.clone(), path.as_bytes(), Some(request.headers.len() + 16))?;
    let nominated = connection::nominated(&request.headers);
    for (name, value) in &request.headers {
        let framing = [CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, EXPECT].contains(name);
        if !framing && !nominated.contains(name) && !connection::HOP_BY_HOP.contains(name) {
            head.append_header(name.clone(), value.clone())?;
        }
    }
    head.remove_header(&super::traffic::GROUP_MARK);
    let host = match shadow.origin.kind() {
        Kind::Http(origin) => origin.host(),
        Kind::S3(_) => None,
    };
    forward::request_to_origin(&mut head, request, ctx, host, edge.ids.node(), false)?;
    head.remove_header("te");
    Ok(Box::new(head))
}

async fn exchange(origin: &Origin, connector: &Connector, head: Box<RequestHeader>, content: Bytes) -> Result<()> {
    use pingora::{Error, ErrorType, OrErr};
    let unrepeatable = !(content.is_empty() && head.method.is_idempotent());
    let picked = origin
        .pick(&Ask { unrepeatable, ..Ask::default() })
        .await
        .or_err(ErrorType::ConnectError, "choosing a server")?;
    let asked = Instant::now();
    let (mut session, _) = connector.get_http_session(&picked.peer).await.inspect_err(|_| picked.lease.failed())?;
    session.set_read_timeout(picked.peer.options.read_timeout);
    session.write_request_header(head).await?;
    if !content.is_empty() {
        session.write_request_body(content, true).await?;
    }
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let status = session.response_header().map_or(0, |head| head.status.as_u16());
    picked.lease.answered(status, asked.elapsed());
    let mut read = 0;
    while let Some(piece) = session.read_response_body().await? {
        read += piece.len();
        if read > MOST_READ {
            return Error::e_explain(ErrorType::ReadError, "the answer is too long");
        }
    }
    connector.release_http_session(session, &picked.peer, Some(IDLE)).await;
    Ok(())
}
