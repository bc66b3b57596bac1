//! What a route's rules do to the fields of requests and responses.

use super::context::RequestContext;
use super::plane::RouteRule;
use super::target::Scheme;
use crate::cache::rules::{Authorization, CacheRules, Cookies, Device};
use crate::field::connection;
use crate::types::variables;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, ORIGIN, REFERRER_POLICY, SET_COOKIE, STRICT_TRANSPORT_SECURITY, UPGRADE,
    USER_AGENT, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use std::net::IpAddr;

const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
/// The class of the client's device, where it is part of the key.
const X_DEVICE_CLASS: HeaderName = HeaderName::from_static("x-device-class");

/// What is taken off, set and added, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldRules {
    /// Names of fields that go.
    pub remove: Vec<HeaderName>,
    /// Fields in place of those of their name.
    pub set: Vec<(HeaderName, Template)>,
    /// Field lines beside those of their name.
    pub add: Vec<(HeaderName, Template)>,
}

/// What a route does to the fields of its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// On the way to HTTP origins; buckets get a request of their own.
    pub request: FieldRules,
    /// On the way to the client, of what came from the origin or the cache. What is stored stays as the origin sent it.
    pub response: FieldRules,
}

/// A field value with `$host`, `$client_ip` and `$request_id` in it; `$$` is a dollar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Host,
    ClientIp,
    RequestId,
}

/// Why a text is no [`Template`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A variable that there is not.
    #[error("there is no variable `${0}`")]
    UnknownVariable(String),
    /// Control characters, which no field value has.
    #[error("a field value has no control characters")]
    Control,
}

/// Fields by which browsers guard a site's users. Those that the origin sets itself stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// `Strict-Transport-Security`, on responses over TLS (RFC 6797 section 7.2).
    pub hsts: Option<HeaderValue>,
    /// `X-Content-Type-Options: nosniff`.
    pub nosniff: bool,
    /// `Referrer-Policy`.
    pub referrer_policy: Option<HeaderValue>,
    /// `X-Frame-Options`.
    pub frame_options: Option<HeaderValue>,
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Control);
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        for piece in variables::pieces(text) {
            let variable = match piece {
                variables::Piece::Text(text) => {
                    plain.push_str(text);
                    continue;
                }
                variables::Piece::Dollar => {
                    plain.push('$');
                    continue;
                }
                variables::Piece::Variable("host") => Piece::Host,
                variables::Piece::Variable("client_ip") => Piece::ClientIp,
                variables::Piece::Variable("request_id") => Piece::RequestId,
                variables::Piece::Variable(other) => return Err(TemplateError::UnknownVariable(other.to_owned())),
                variables::Piece::Braced(name) => return Err(TemplateError::UnknownVariable(format!("{{{name}}}"))),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(variable);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

impl FieldRules {
    /// Whether a field of this name is made of something that is not in the key.
    pub fn is_per_client(&self, name: &str) -> bool {
        let made = self.set.iter().chain(&self.add);
        made.filter(|(own, _)| own == name).any(|(_, template)| template.is_per_request())
    }
}

impl Template {
    /// Whether two requests for one target get different values.
    pub fn is_per_request(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::ClientIp | Piece::RequestId))
    }

    /// The value for one request.
    fn value(&self, ctx: &RequestContext, client: Option<IpAddr>) -> String {
        let mut value = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => value.push_str(text),
                Piece::Host => value.push_str(ctx.target.as_ref().map_or("", |t| t.host.as_str())),
                Piece::ClientIp => value.push_str(&client.map(|c| c.to_string()).unwrap_or_default()),
                Piece::RequestId => value.push_str(&ctx.request_id.to_string()),
            }
        }
        value
    }
}

impl Security {
    /// Puts the fields on a response that goes out by `scheme`.
    ///
    /// # Errors
    /// None: the values have been parsed.
    pub fn dress(&self, scheme: Scheme, response: &mut ResponseHeader) -> Result<()> {
        let nosniff = self.nosniff.then(|| HeaderValue::from_static("nosniff"));
        let hsts = self.hsts.clone().filter(|_| scheme == Scheme::Https);
        for (name, value) in [
            (STRICT_TRANSPORT_SECURITY, hsts),
            (X_CONTENT_TYPE_OPTIONS, nosniff),
            (REFERRER_POLICY, self.referrer_policy.clone()),
            (X_FRAME_OPTIONS, self.frame_options.clone()),
        ] {
            if let Some(value) = value
                && !response.headers.contains_key(&name)
            {
                response.insert_header(name, value)?;
            }
        }
        Ok(())
    }
}

/// Puts on a response what the route adds to each, the edge's own answers included.
///
/// # Errors
/// A value that no field can hold.
pub fn guard(ctx: &RequestContext, request: &HeaderMap, response: &mut ResponseHeader) -> Result<()> {
    if let Some(hsts) = &ctx.hsts {
        response.insert_header(STRICT_TRANSPORT_SECURITY, hsts)?;
    }
    let Some(rule) = &ctx.rule else { return Ok(()) };
    if let Some(security) = &rule.security {
        security.dress(ctx.target.as_ref().map_or(Scheme::Http, |t| t.scheme), response)?;
    }
    match &rule.cors {
        Some(cors) => cors.dress(request, response),
        None => Ok(()),
    }
}

/// The operator's changes to a response from the origin or the cache; the last that is done to it.
///
/// # Errors
/// A value that no field can hold.
pub fn to_client(ctx: &RequestContext, response: &mut ResponseHeader) -> Result<()> {
    let (Some(rule), client) = (&ctx.rule, ctx.client.ip()) else { return Ok(()) };
    let fields = &rule.headers.response;
    for name in &fields.remove {
        response.remove_header(name);
    }
    for (name, template) in &fields.set {
        response.insert_header(name, template.value(ctx, client))?;
    }
    for (name, template) in &fields.add {
        response.append_header(name, template.value(ctx, client))?;
    }
    let secure = ctx.target.as_ref().is_some_and(|target| target.scheme == Scheme::Https);
    if let Some(cookie) = ctx.assigned.as_ref().and_then(|assigned| assigned.cookie(secure)) {
        response.append_header(SET_COOKIE, cookie)?;
    }
    Ok(())
}

/// Takes off a client's request what the route has nobody see, and what `Connection` names: the origin never gets that, so
/// that the key must not have it either. All before anything is decided by it.
pub fn strip(request: &mut RequestHeader, rules: &CacheRules) {
    if request.headers.contains_key(CONNECTION) && !request.headers.contains_key(UPGRADE) {
        // Framing and the connection's own fields are the core's concern.
        for name in connection::nominated(&request.headers) {
            if name != HOST && !connection::HOP_BY_HOP.contains(&name) {
                request.remove_header(&name);
            }
        }
    }
    if rules.cookies == Cookies::Strip {
        request.remove_header(&COOKIE);
    }
    if rules.authorization == Authorization::Strip {
        request.remove_header(&AUTHORIZATION);
    }
}

/// Leaves of a request whose answer may be stored what the key has of it, and makes the operator's changes.
///
/// # Errors
/// A value that no field can hold; the request is then answered 500.
pub fn to_origin(upstream: &mut RequestHeader, ctx: &RequestContext, rule: &RouteRule, stored: bool) -> Result<()> {
    let (rules, client) = (&rule.rules, ctx.client.ip());
    if let Some(name) = rule.site_settings.client_certificates.as_ref().and_then(|c| c.subject_field.as_ref()) {
        // The client's own says nothing.
        upstream.remove_header(name);
        if let Some(subject) = &ctx.subject {
            upstream.insert_header(name, subject.as_str())?;
        }
    }
    if stored {
        if let Some(counted) = &ctx.counted {
            upstream.set_raw_path(ctx.for_origin(counted).as_bytes())?;
            upstream.insert_header(X_ORIGINAL_URI, &**counted)?;
        }
        if let Cookies::Key(_) = rules.cookies {
            match rules.cookies.for_origin(&upstream.headers) {
                Some(kept) => upstream.insert_header(COOKIE, kept)?,
                None => {
                    upstream.remove_header(&COOKIE);
                }
            }
        }
        if rules.key.device {
            let device = Device::of(&upstream.headers);
            let hints: Vec<HeaderName> =
                upstream.headers.keys().filter(|name| name.as_str().starts_with(Device::HINTS)).cloned().collect();
            for name in &hints {
                upstream.remove_header(name);
            }
            upstream.insert_header(USER_AGENT, device.user_agent())?;
            upstream.insert_header(X_DEVICE_CLASS, device.as_str())?;
        }
        if rule.cors.is_some() {
            upstream.remove_header(&ORIGIN);
        }
    }
    let fields = &rule.headers.request;
    for name in &fields.remove {
        upstream.remove_header(name);
    }
    for (name, template) in &fields.set {
        upstream.insert_header(name, template.value(ctx, client))?;
    }
    for (name, template) in &fields.add {
        upstream.append_header(name, template.value(ctx, client))?;
    }
    Ok(())
}

/// Takes off an origin's response what the route lets nobody have, before anything is stored of it.
pub fn from_origin(response: &mut ResponseHeader, rules: &CacheRules) {
    if rules.cookies == Cookies::Strip {
        response.remove_header(&SET_COOKIE);
    }
    if !rules.tags.is_empty()
        && let Err(error) = response.append_header(CACHE_TAG, rules.tags.join(" "))
    {
        tracing::debug!(%error, "the route's tags are no field value");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_know_their_variables() {
        let template: Template = "a $host, $$5-$request_id$client_ip".parse().unwrap();
        let text = |t: &str| Piece::Text(t.to_owned());
        assert_eq!(template.0, [text("a "), Piece::Host, text(", $5-"), Piece::RequestId, Piece::ClientIp]);
        assert_eq!("$hosts".parse::<Template>(), Err(TemplateError::UnknownVariable("hosts".to_owned())));
        assert_eq!("a\nb".parse::<Template>(), Err(TemplateError::Control));
        assert_eq!("".parse::<Template>(), Ok(Template(Vec::new())));
    }

    #[test]
    fn security_fields_leave_the_origins_own_and_need_tls_for_hsts() {
        let security = Security {
            hsts: Some(HeaderValue::from_static("max-age=1")),
            nosniff: true,
            referrer_policy: Some(HeaderValue::from_static("no-referrer")),
            frame_options: Some(HeaderValue::from_static("DENY")),
        };
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.insert_header(X_FRAME_OPTIONS, "SAMEORIGIN").unwrap();
        security.dress(Scheme::Http, &mut response).unwrap();
        assert!(!response.headers.contains_key(STRICT_TRANSPORT_SECURITY));
        assert_eq!(response.headers[X_FRAME_OPTIONS], "SAMEORIGIN");
        assert_eq!(response.headers[REFERRER_POLICY], "no-referrer");
        assert_eq!(response.headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        security.dress(Scheme::Https, &mut response).unwrap();
        assert_eq!(response.headers[STRICT_TRANSPORT_SECURITY], "max-age=1");
    }
}
