//! What an operator says of a route beyond RFC 9111: how its key is made, whose answers are kept, for how long.
//!
//! Pure functions of the rules, a request, a response and the time. [`CacheRules::bypasses`] before the look-up,
//! [`KeyRules::target`] and [`CacheRules::variance`] for the key, [`CacheRules::admit`] around
//! [`policy::admits_response`](super::policy::admits_response) for what comes back.

mod key;
mod pattern;
mod personal;
mod ttl;
mod uses;

pub use key::{Device, KeyRules};
pub use pattern::{Glob, PathMatch};
pub use personal::{Authorization, Cookies, cookie_values};
pub use ttl::{StatusMatch, Ttl, TtlRule};
pub use uses::UseCounter;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::request;
use pingora::cache::CacheMeta;
use pingora::http::ResponseHeader;

use super::policy::{NotStored, ResponseRules, SetCookieRule};

/// The rules of one route. The default ones change nothing that RFC 9111 says, but for what protects persons: a
/// response to a request with a cookie needs an express permission, and an HTML page never goes by an asset's name.
#[derive(Clone, Debug, Default)]
pub struct CacheRules {
    /// What tells requests apart.
    pub key: KeyRules,
    /// How `Cookie` and `Set-Cookie` are taken.
    pub cookies: Cookies,
    /// Which responses that set cookies are stored.
    pub set_cookie: SetCookieRule,
    /// How `Authorization` is taken.
    pub authorization: Authorization,
    /// Requests with a cookie of such a name are neither looked up nor stored.
    pub bypass_cookies: Vec<Glob>,
    /// Requests with such a field are neither looked up nor stored.
    pub bypass_headers: Vec<HeaderName>,
    /// Requests for such a path are neither looked up nor stored.
    pub bypass_paths: Vec<PathMatch>,
    /// The origin's `no-store`, `private` and `no-cache` are not heeded, and the guard against HTML under an asset's
    /// name is off. What a request has said of a person (`Cookie`, `Authorization`) and `Set-Cookie` still count.
    pub force: bool,
    /// The lifetime where no rule of `ttl` speaks; for statuses that are stored without being told.
    pub lifetime: Option<Ttl>,
    /// The first that matches decides on the lifetime.
    pub ttl: Vec<TtlRule>,
    /// A response is stored when its target has been asked for this many times; 0 and 1 store at once.
    pub min_uses: u8,
    /// Bytes of the largest content that is stored, where it is less than the cache's own limit.
    pub max_object: Option<u64>,
    /// Purge tags that every response has besides its own.
    pub tags: Vec<String>,
    /// Whether large responses are stored in slices.
    pub slices: Slicing,
}

/// Whether large responses are stored in slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slicing {
    /// Where the origin server answers ranges and names its representations by strong validators.
    #[default]
    On,
    /// Every response is fetched and stored whole.
    Off,
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstored {
    /// The policy's reason.
    Policy(NotStored),
    /// The request had a cookie, and the response does not say that it is for all.
    Cookie,
    /// The path names an asset, the content is a document.
    Disguised,
}

impl Unstored {
    /// A token for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy(reason) => reason.as_str(),
            Self::Cookie => "cookie",
            Self::Disguised => "content-type-mismatch",
        }
    }
}

impl CacheRules {
    /// Whether the rules keep this request away from the cache. `path` is the target's, still percent-encoded.
    pub fn bypasses(&self, request: &HeaderMap, path: &str) -> bool {
        if self.authorization == Authorization::Bypass && request.contains_key(AUTHORIZATION) {
            return true;
        }
        if self.bypass_headers.iter().any(|name| request.contains_key(name)) {
            return true;
        }
        if !self.bypass_cookies.is_empty()
            && personal::cookie_pairs(request).any(|(name, _)| self.bypass_cookies.iter().any(|g| g.matches(name)))
        {
            return true;
        }
        if self.bypass_paths.is_empty() {
            return false;
        }
        // An origin reads `/%61dmin` as `/admin`; the rule is to hold for both.
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        self.bypass_paths.iter().any(|p| p.matches(path) || p.matches(&decoded))
    }

    /// The fields of a request as the origin gets to see them, so that `Vary` selects by those and no others.
    pub fn seen_by_origin<'r>(&self, request: &'r HeaderMap) -> Cow<'r, HeaderMap> {
        let cookies = !self.cookies.keyed().is_empty() && request.contains_key(COOKIE);
        if !cookies && !self.key.device {
            return Cow::Borrowed(request);
        }
        let mut seen = request.clone();
        if cookies {
            match self.cookies.for_origin(request) {
                Some(kept) => seen.insert(COOKIE, kept),
                None => seen.remove(COOKIE),
            };
        }
        if self.key.device {
            let device = Device::of(request);
            for name in request.keys().filter(|name| name.as_str().starts_with(Device::HINTS)) {
                seen.remove(name);
            }
            seen.insert(USER_AGENT, HeaderValue::from_static(device.user_agent()));
        }
        Cow::Owned(seen)
    }

    /// The secondary key: what `Vary` selects by, and the fields, cookies and device class that the rules name. They are
    /// not in the primary key, so that a purge of the target takes all of them.
    pub fn variance(&self, vary: Option<[u8; 16]>, request: &HeaderMap) -> Option<[u8; 16]> {
        self.key.variance(self.cookies.keyed(), vary, request)
    }

    /// What the primary key has beside the target: the names that make the secondary key. Other rules after a reload
    /// then find nothing that was stored by these.
    pub fn discriminator(&self) -> Vec<u8> {
        self.key.discriminator(self.cookies.keyed())
    }

    /// Decides on storing a response to the client's `request` for `path`. `validated` says that a 304 confirmed it and
    /// `response` is the merged head. `now` is when the response head arrived.
    ///
    /// # Errors
    /// Why it is not stored.
    pub fn admit(
        &self,
        request: &request::Parts,
        path: &str,
        response: &ResponseHeader,
        validated: bool,
        now: SystemTime,
        limits: &ResponseRules,
    ) -> Result<CacheMeta, Unstored> {
        // A confirmation adds no content: what was fit for all stays so.
        if !validated && self.cookies.may_differ() && request.headers.contains_key(COOKIE) {
            personal::for_all(&response.headers).then_some(()).ok_or(Unstored::Cookie)?;
        }
        if !self.force && personal::disguised(path, response) {
            return Err(Unstored::Disguised);
        }
        let ttl = self.ttl_of(path, response);
        let limits = &ResponseRules { set_cookie: self.set_cookie, ..*limits };
        ttl::admit(self.force, ttl, request, response, now, limits).map_err(Unstored::Policy)
    }

    /// Whether the answer to a POST may be kept for GET, as far as the route's rules go.
    pub fn keeps_posted(&self, request: &HeaderMap, path: &str, response: &ResponseHeader) -> bool {
        !self.bypasses(request, path) && self.min_uses <= 1 && (self.force || !personal::disguised(path, response))
    }

    /// The content's limit under a cache that stores up to `cache` bytes.
    pub fn max_object(&self, cache: u64) -> u64 {
        self.max_object.map_or(cache, |own| own.min(cache))
    }

    fn ttl_of(&self, path: &str, response: &ResponseHeader) -> Option<Ttl> {
        if self.ttl.is_empty() {
            return self.lifetime.filter(|_| ttl::by_default(response.status));
        }
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        match self.ttl.iter().find(|rule| rule.matches(&path, response)) {
            Some(rule) => Some(rule.ttl),
            None => self.lifetime.filter(|_| ttl::by_default(response.status)),
        }
    }
}

impl Ttl {
    /// Seconds in the form of a duration, whichever kind it is.
    pub fn duration(self) -> Duration {
        match self {
            Self::Default(duration) | Self::Override(duration) => duration,
        }
    }
}

#[cfg(test)]
mod tests;
