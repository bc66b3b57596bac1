//! Preconditions of a request, evaluated on a stored response (RFC 9110 section 13, RFC 9111 section 4.3.2).

use http::header::{
    DATE, ETAG, HeaderMap, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
};
use http::{Method, StatusCode, request, response};

use crate::field::date;
use crate::field::etag::{self, Comparison, EntityTag};

/// What the preconditions make of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// It is sent.
    Holds,
    /// The client has it already: 304.
    NotModified,
    /// It is not what the client wanted it to be: 412.
    Failed,
}

/// Whether a request has preconditions, `If-Range` aside.
pub fn is_conditional(request: &HeaderMap) -> bool {
    [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE].iter().any(|name| request.contains_key(name))
}

/// Evaluates all preconditions but `If-Range`, in the order of RFC 9110 section 13.2.2.
///
/// Only a 200, or the 206 that a part is stored as, can fail them. A response without `Last-Modified` counts as modified at its `Date` where
/// `If-Modified-Since` asks (RFC 9111 section 4.3.2); for `If-Unmodified-Since` it has no such date.
pub fn precondition(request: &request::Parts, response: &response::Parts) -> Precondition {
    let (wanted, has) = (&request.headers, &response.headers);
    let successful = matches!(response.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    if !successful || (request.method != Method::GET && request.method != Method::HEAD) {
        return Precondition::Holds;
    }
    if wanted.contains_key(IF_MATCH) {
        if !listed(wanted, &IF_MATCH, has, Comparison::Strong) {
            return Precondition::Failed;
        }
    } else if let Some(since) = date::single(wanted, &IF_UNMODIFIED_SINCE)
        && date::single(has, &LAST_MODIFIED).is_some_and(|modified| modified > since)
    {
        return Precondition::Failed;
    }
    if wanted.contains_key(IF_NONE_MATCH) {
        let same = listed(wanted, &IF_NONE_MATCH, has, Comparison::Weak);
        return if same { Precondition::NotModified } else { Precondition::Holds };
    }
    let modified = || match has.contains_key(LAST_MODIFIED) {
        true => date::single(has, &LAST_MODIFIED),
        false => date::single(has, &DATE),
    };
    match date::single(wanted, &IF_MODIFIED_SINCE) {
        Some(since) if modified().is_some_and(|modified| modified <= since) => Precondition::NotModified,
        _ => Precondition::Holds,
    }
}

/// Whether a `Range` of the request selects from this response (RFC 9110 section 13.1.5): no `If-Range`, or a strong
/// validator that is the response's own. A date is strong if it is a second or more before the response's `Date`
/// (section 8.8.2.2) and has to match exactly.
pub fn range_applies(request: &HeaderMap, response: &HeaderMap) -> bool {
    let Some(condition) = request.get(IF_RANGE) else { return true };
    if let Some(wanted) = EntityTag::parse(condition.as_bytes()) {
        return own_tag(response).is_some_and(|own| own.strong_eq(&wanted));
    }
    let Some(wanted) = date::single(request, &IF_RANGE) else { return false };
    let modified = date::single(response, &LAST_MODIFIED);
    // Without a clock to compare with, the date is taken as sent long after the last change.
    let strong = date::single(response, &DATE).is_none_or(|date| date > wanted);
    modified == Some(wanted) && strong
}

fn listed(wanted: &HeaderMap, name: &http::HeaderName, has: &HeaderMap, comparison: Comparison) -> bool {
    wanted.get_all(name).iter().any(|line| etag::matches(line.as_bytes(), own_tag(has), comparison))
}

fn own_tag(headers: &HeaderMap) -> Option<EntityTag<'_>> {
    EntityTag::parse(headers.get(ETAG)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Precondition::*;

    const OLD: &str = "Sat, 29 Oct 1994 19:43:31 GMT";
    const NEW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn request(fields: &[(&str, &str)]) -> request::Parts {
        let mut builder = http::Request::builder();
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn response(status: u16, fields: &[(&str, &str)]) -> response::Parts {
        let mut builder = http::Response::builder().status(status);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn preconditions_are_evaluated_in_the_order_of_rfc_9110() {
        let (strong, weak) = (("etag", "\"a\""), ("etag", "W/\"a\""));
        let (old, new) = (("last-modified", OLD), ("last-modified", NEW));
        for (wanted, has, expected) in [
            (vec![], vec![strong], Holds),
            (vec![("if-match", "\"a\"")], vec![strong], Holds),
            (vec![("if-match", "*")], vec![], Holds),
            (vec![("if-match", "\"b\", \"a\"")], vec![strong], Holds),
            (vec![("if-match", "\"b\"")], vec![strong], Failed),
            (vec![("if-match", "W/\"a\"")], vec![weak], Failed),
            (vec![("if-match", "\"a\"")], vec![], Failed),
            (vec![("if-match", "\"a\""), ("if-unmodified-since", OLD)], vec![strong, new], Holds),
            (vec![("if-match", "\"a\""), ("if-none-match", "\"a\"")], vec![strong], NotModified),
            (vec![("if-unmodified-since", OLD)], vec![new], Failed),
            (vec![("if-unmodified-since", NEW)], vec![new], Holds),
            (vec![("if-unmodified-since", OLD)], vec![], Holds),
            (vec![("if-unmodified-since", "yesterday")], vec![new], Holds),
            (vec![("if-none-match", "W/\"a\"")], vec![strong], NotModified),
            (vec![("if-none-match", "\"x\""), ("if-none-match", "\"a\"")], vec![weak], NotModified),
            (vec![("if-none-match", "*")], vec![], NotModified),
            (vec![("if-none-match", "\"b\""), ("if-modified-since", NEW)], vec![strong, old], Holds),
            (vec![("if-modified-since", NEW)], vec![new], NotModified),
            (vec![("if-modified-since", NEW)], vec![old], NotModified),
            (vec![("if-modified-since", OLD)], vec![new], Holds),
            (vec![("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], vec![new], NotModified),
            (vec![("if-modified-since", NEW)], vec![("date", OLD)], NotModified),
            (vec![("if-modified-since", OLD)], vec![("date", NEW)], Holds),
            (vec![("if-modified-since", NEW)], vec![], Holds),
        ] {
            assert_eq!(precondition(&request(&wanted), &response(200, &has)), expected, "{wanted:?} {has:?}");
        }
        let wanted = request(&[("if-match", "\"b\""), ("if-none-match", "\"a\"")]);
        assert_eq!(precondition(&wanted, &response(404, &[strong])), Holds, "only a 200 can fail them");
    }

    #[test]
    fn a_range_needs_a_strong_validator() {
        let has = [("etag", "\"a\""), ("last-modified", OLD), ("date", NEW)];
        for (condition, applies) in
            [("\"a\"", true), ("W/\"a\"", false), ("\"b\"", false), (OLD, true), (NEW, false), ("a", false)]
        {
            let (wanted, has) = (request(&[("if-range", condition)]), response(200, &has));
            assert_eq!(range_applies(&wanted.headers, &has.headers), applies, "{condition}");
        }
        let weak = response(200, &[("etag", "W/\"a\""), ("last-modified", NEW), ("date", NEW)]);
        for condition in ["W/\"a\"", "\"a\"", NEW] {
            let wanted = request(&[("if-range", condition)]);
            assert!(!range_applies(&wanted.headers, &weak.headers), "{condition}");
        }
        assert!(range_applies(&HeaderMap::new(), &weak.headers));
    }
}
