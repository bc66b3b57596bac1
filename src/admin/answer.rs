//! Responses: every one of them is built here.

use super::guard::Refusal;
use super::purge::BadPurge;
use super::{Failure, Readiness, Report};
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

pub(super) type Answer = Response<Full<Bytes>>;

/// The endpoints with their methods, as a 404 lists them.
const ENDPOINTS: [&str; 8] = [
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /routes",
    "GET /dns/why?name=…&subnet=…",
    "POST /purge",
    "GET /traffic",
    "PUT /traffic/<site>/<rule>",
];

pub(super) fn health() -> Answer {
    plain(StatusCode::OK, "ok\n".to_owned())
}

pub(super) fn readiness(readiness: Readiness) -> Answer {
    match readiness {
        Readiness::Ready => plain(StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

pub(super) fn metrics(text: Vec<u8>) -> Answer {
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into())
}

pub(super) fn routes(routes: &Value) -> Answer {
    json(StatusCode::OK, routes)
}

pub(super) fn dns_why(result: Result<Value, String>) -> Answer {
    match result {
        Ok(why) => json(StatusCode::OK, &why),
        Err(error) => json(StatusCode::BAD_REQUEST, &json!({ "error": error })),
    }
}

pub(super) fn purged(request_id: &str, soft: bool, report: &Report) -> Answer {
    json(StatusCode::OK, &report.to_json(request_id, soft))
}

pub(super) fn not_purged(request_id: &str, failure: &Failure) -> Answer {
    let status = match failure {
        Failure::Bad { .. } => StatusCode::BAD_REQUEST,
        Failure::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, &failure.to_json(request_id))
}

/// The backend failed in a way that it has no words for.
pub(super) fn broken(request_id: &str) -> Answer {
    let error = "the purge did not run to its end; look for this request_id in the log";
    json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "request_id": request_id, "error": error }))
}

pub(super) fn bad_purge(bad: &BadPurge) -> Answer {
    let status = match bad {
        BadPurge::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        BadPurge::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        BadPurge::Broken(_) | BadPurge::Malformed(_) | BadPurge::Nothing => StatusCode::BAD_REQUEST,
    };
    json(status, &json!({ "error": bad.to_string() }))
}

pub(super) fn refused(refusal: Refusal) -> Answer {
    let (status, challenge) = match refusal {
        Refusal::NoHost => (StatusCode::BAD_REQUEST, None),
        Refusal::CrossSite => (StatusCode::FORBIDDEN, None),
        Refusal::ForeignHost => (StatusCode::MISDIRECTED_REQUEST, None),
        // RFC 6750 section 3: no error code when no token was given.
        Refusal::NoToken => (StatusCode::UNAUTHORIZED, Some("Bearer realm=\"selvedge admin\"")),
        Refusal::WrongToken => {
            (StatusCode::UNAUTHORIZED, Some("Bearer realm=\"selvedge admin\", error=\"invalid_token\""))
        }
    };
    let mut response = json(status, &json!({ "error": refusal.to_string() }));
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

pub(super) fn no_endpoint() -> Answer {
    json(StatusCode::NOT_FOUND, &json!({ "error": "there is no such endpoint", "endpoints": ENDPOINTS }))
}

pub(super) fn wrong_method(allowed: &'static str) -> Answer {
    let error = format!("this endpoint takes {allowed}");
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": error }));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn plain(status: StatusCode, text: String) -> Answer {
    answer(status, "text/plain; charset=utf-8", text.into())
}

pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    answer(status, "application/json", format!("{value}\n").into())
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
