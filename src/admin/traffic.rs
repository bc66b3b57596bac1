//! `GET /traffic`, `GET` and `PUT /traffic/<site>/<rule>`: the weights of traffic rules.

use super::Backend;
use super::answer::{self, Answer};
use crate::route::traffic::WeightsError;
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

const BODY_LIMIT: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const EXPECTED: &str = "send {\"weights\": {\"<group>\": 50}}; groups that are not named keep their weight";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    weights: BTreeMap<String, u32>,
}

/// Answers a request whose path is `/traffic` or begins with `/traffic/`.
pub(super) async fn respond(backend: &dyn Backend, method: &Method, path: &str, body: Incoming, who: &str) -> Answer {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let rest = path.strip_prefix("/traffic").unwrap_or_default().trim_start_matches('/');
    if rest.is_empty() {
        return match reads {
            true => answer::json(StatusCode::OK, &json!({ "rules": backend.traffic() })),
            false => answer::wrong_method("GET, HEAD"),
        };
    }
    let Some((site, rule)) = rest.split_once('/').map(|(site, rule)| (decoded(site), decoded(rule))) else {
        return answer::no_endpoint();
    };
    let found = backend.traffic().into_iter().find(|state| state.site == site && state.rule == rule);
    match (found, method) {
        (None, _) => refused(&WeightsError::NoRule),
        (Some(state), _) if reads => answer::json(StatusCode::OK, &json!(state)),
        (Some(_), &Method::PUT) => match read(body).await {
            Err(reason) => answer::json(StatusCode::BAD_REQUEST, &json!({ "error": format!("{reason}; {EXPECTED}") })),
            Ok(weights) => match backend.set_weights(&site, &rule, &weights) {
                Ok(state) => {
                    tracing::info!(who, site, rule, weights = ?state.groups.iter().map(|g| (&g.name, g.weight)).collect::<Vec<_>>(), "traffic weights changed");
                    answer::json(StatusCode::OK, &json!(state))
                }
                Err(error) => refused(&error),
            },
        },
        (Some(_), _) => answer::wrong_method("GET, HEAD, PUT"),
    }
}

fn refused(error: &WeightsError) -> Answer {
    let status = match error {
        WeightsError::NoRule => StatusCode::NOT_FOUND,
        WeightsError::NoGroup(_) | WeightsError::AllZero => StatusCode::BAD_REQUEST,
    };
    answer::json(status, &json!({ "error": error.to_string() }))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

async fn read(body: Incoming) -> Result<Vec<(String, u32)>, String> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect()).await;
    let bytes = collected.map_err(|_| "the body was not there in time".to_owned())?;
    let bytes: Bytes = bytes.map_err(|error| format!("the body could not be read: {error}"))?.to_bytes();
    let wanted: Wanted = serde_json::from_slice(&bytes).map_err(|error| format!("the body is no order: {error}"))?;
    Ok(wanted.weights.into_iter().collect())
}
