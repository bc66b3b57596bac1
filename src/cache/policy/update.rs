//! What a validation changes in a stored head (RFC 9111 sections 3.2 and 4.3.4).

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{self, HeaderName};
use pingora::http::ResponseHeader;

use crate::field::{connection, date};

/// Fields that describe the stored content itself, or that select it, and stay as they were.
const KEPT: [HeaderName; 5] =
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_TYPE, header::CONTENT_RANGE, header::VARY];

/// Merges the fields of a 304 into the head it confirms: each field of the 304 replaces those of its name, but for the
/// hop-by-hop ones and those that describe the stored content. Its `Date`, or `now` for want of one, replaces the old
/// one, from which the age would otherwise be counted. The merged head is for [`super::admits_response`].
pub fn merge_validation(stored: &mut ResponseHeader, not_modified: &HeaderMap, now: SystemTime) {
    let dropped = connection::nominated(not_modified);
    stored.remove_header(&header::DATE);
    stored.remove_header(&header::AGE);
    for name in not_modified.keys() {
        if KEPT.contains(name) || dropped.contains(name) || name.as_str().starts_with("proxy-") {
            continue;
        }
        stored.remove_header(name);
        for value in not_modified.get_all(name) {
            // Names and values come from a parsed head, so that neither can be refused.
            let _ = stored.append_header(name.clone(), value.clone());
        }
    }
    if !stored.headers.contains_key(header::DATE) {
        let _ = stored.insert_header(header::DATE, date::format(now));
    }
}
