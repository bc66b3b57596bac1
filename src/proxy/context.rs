//! What one request accumulates on its way through the phases.

use super::answer::Answer;
use super::compress::Encoder;
use super::downstream::Client;
use super::explain::Explanation;
use super::failure::Failure;
use super::mirror::{Copying, Shadow};
use super::plane::{RouteRule, SiteHandles, SitePolicy};
use super::sibling::Sibling;
use super::slices::Progress;
use super::target::{RequestId, Target};
use super::traffic::Assigned;
use crate::cache::Tier;
use crate::cache::policy::{Demand, Family};
use crate::field::CacheOutcome;
use crate::field::cache_status::Forward;
use crate::origin::s3::Attempt;
use crate::origin::{Ask, Lease, Race, ServerId};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use pingora::cache::{CacheKey, CacheMeta};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// An attempt to reach one server of the origin.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// For reporting its health.
    pub id: ServerId,
    /// Where it is.
    pub address: SocketAddr,
}

/// The answer to a POST that is to be kept for GET.
pub struct Posted {
    /// Stamped after the purge that the POST brought about.
    pub key: CacheKey,
    /// Its head and times.
    pub meta: CacheMeta,
    /// What has come of it.
    pub content: Vec<u8>,
}

/// One request's state between the phases.
pub struct RequestContext {
    /// When its head had been read.
    pub started: Instant,
    /// The same as wall-clock time.
    pub started_at: SystemTime,
    /// In the access log, in `X-Request-Id` to the origin and in error bodies.
    pub request_id: RequestId,
    /// Who asks.
    pub client: Client,
    /// The subject of the certificate that the client showed, where the site wants one and it is good.
    pub subject: Option<String>,
    /// Once it is parsed.
    pub target: Option<Target>,
    /// Once it is routed.
    pub rule: Option<Arc<RouteRule>>,
    /// The site, or the handles of unrouted requests.
    pub site: Arc<SiteHandles>,
    /// What the site wants of its requests, once the host is known.
    pub policy: Option<Arc<SitePolicy>>,
    /// The group that a traffic rule gave it to.
    pub assigned: Option<Box<Assigned>>,
    /// A rule that looks at more than the key has changes the request: the cache takes no part.
    pub off_key: bool,
    /// Where copies of it are to go.
    pub shadows: Vec<Arc<Shadow>>,
    /// Copies that wait for its content.
    pub copying: Vec<Copying>,
    /// `Strict-Transport-Security` of the answer, whatever it is.
    pub hsts: Option<HeaderValue>,
    /// The path (without query) that the origin gets instead of the target's.
    pub origin_path: Option<Box<str>>,
    /// The path and query that the route's rules let count, where that is not the whole target. An origin whose answer
    /// may be stored sees no other.
    pub counted: Option<Box<str>>,
    /// What the request's directives ask of a stored response.
    pub demand: Demand,
    /// Whether a compressed sibling is asked for.
    pub sibling: Sibling,
    /// Which object of a bucket is asked for.
    pub attempt: Attempt,
    /// The server asked now.
    pub server: Option<Server>,
    /// Its place on that server.
    pub lease: Option<Lease>,
    /// The hedge of the attempt under way.
    pub race: Option<Arc<Race>>,
    /// What decides which server is next.
    pub ask: Ask,
    /// When the request was on its way to the origin.
    pub asked: Option<Instant>,
    /// How long the origin took to answer with a response head.
    pub origin_time: Option<Duration>,
    /// Why the request went forward (RFC 9211 section 2.2), where that is known before the response.
    pub forward: Option<Forward>,
    /// The tier a stored response came from.
    pub tier: Option<Tier>,
    /// The fields of a 304 that confirms the stored response, until they are merged into it.
    pub confirmation: Option<HeaderMap>,
    /// The primary look-up found a response whose `Vary` selects another.
    pub varied: bool,
    /// The cache's purge sequence when the request began.
    pub sequence: u64,
    /// The answer to a POST, while it is collected.
    pub posted: Option<Posted>,
    /// What is known of the range it asks for, and of slices.
    pub ranges: Progress,
    /// How the responses of the target are told apart.
    pub family: Option<Family>,
    /// What the cache did, for log and metrics.
    pub outcome: CacheOutcome,
    /// Compresses the origin's body.
    pub encoder: Option<Encoder>,
    /// Takes the place of the origin's body.
    pub replacement: Option<Bytes>,
    /// The origin's body is to be dropped.
    pub replaced: bool,
    /// The client's preconditions make it an answer without content.
    pub bodiless: bool,
    /// Interim responses that were passed on.
    pub interim: usize,
    /// Body bytes received.
    pub request_bytes: u64,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// What to answer instead of going on to the origin.
    pub answer: Option<Answer>,
    /// What was decided so far, for requests that carry the debug token.
    pub explanation: Option<Box<Explanation>>,
}

impl RequestContext {
    /// The path that the origin gets, without the query; `None` before the target is known.
    pub fn path_for_origin(&self) -> Option<&str> {
        self.origin_path.as_deref().or_else(|| self.target.as_ref().map(Target::path))
    }

    /// A path and query of the client's with the path that the origin gets in its place.
    pub fn for_origin<'a>(&'a self, path_and_query: &'a str) -> Cow<'a, str> {
        match (&self.origin_path, path_and_query.split_once('?')) {
            (None, _) => path_and_query.into(),
            (Some(path), None) => (&**path).into(),
            (Some(path), Some((_, query))) => format!("{path}?{query}").into(),
        }
    }

    /// For a request whose head has just been read.
    pub fn new(site: Arc<SiteHandles>, request_id: RequestId, now: SystemTime) -> Self {
        Self {
            started: Instant::now(),
            started_at: now,
            request_id,
            client: Client::default(),
            subject: None,
            target: None,
            rule: None,
            site,
            policy: None,
            assigned: None,
            off_key: false,
            shadows: Vec::new(),
            copying: Vec::new(),
            hsts: None,
            origin_path: None,
            counted: None,
            demand: Demand::default(),
            sibling: Sibling::default(),
            attempt: Attempt::Requested,
            server: None,
            lease: None,
            race: None,
            ask: Ask::default(),
            asked: None,
            origin_time: None,
            forward: None,
            tier: None,
            confirmation: None,
            varied: false,
            sequence: 0,
            posted: None,
            ranges: Progress::default(),
            family: None,
            outcome: CacheOutcome::None,
            encoder: None,
            replacement: None,
            replaced: false,
            bodiless: false,
            interim: 0,
            request_bytes: 0,
            failure: None,
            answer: None,
            explanation: None,
        }
    }
}
