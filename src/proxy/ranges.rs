//! The parts of a response that a request gets, in the form of the proxy core.

use crate::cache::policy::{self, Selection};
use http::header::RANGE;
use http::{Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{RangeType, range_header_filter};

/// Ranges of one request that are answered; with more it gets the whole.
const MAX_RANGES: usize = 200;

/// Makes a 200 the 206 or 416 that the request asks for (RFC 9110 section 14.2: of GET alone).
///
/// The core reads some fields otherwise than section 14.1 has it: it takes suffixes of nothing for parts, and numbers that
/// it cannot hold for missing ones. It gets to see what has been selected, in a request that has no other field.
pub fn apply(request: &RequestHeader, response: &mut ResponseHeader) -> RangeType {
    let Some(range) = request.headers.get(RANGE) else { return filter(request, response) };
    let Ok(mut selected) = RequestHeader::build(Method::GET, b"/", Some(1)) else { return RangeType::None };
    if request.method == Method::GET
        && response.status == StatusCode::OK
        && policy::range_applies(&request.headers, &response.headers)
        && let Ok(Some(length)) = policy::content_length(&response.headers)
        && let Some(value) = canonical(range.as_bytes(), length)
        && selected.insert_header(RANGE, value).is_err()
    {
        return RangeType::None;
    }
    filter(&selected, response)
}

/// The field that says the same in a form that has one reading; `None` where the whole is meant.
fn canonical(range: &[u8], length: u64) -> Option<String> {
    Some(match policy::select(range, length, MAX_RANGES) {
        Selection::Whole => return None,
        Selection::Unsatisfiable => format!("bytes={length}-"),
        Selection::Parts(parts) => {
            let parts: Vec<String> = parts.iter().map(|part| format!("{}-{}", part.start(), part.end())).collect();
            format!("bytes={}", parts.join(","))
        }
    })
}

fn filter(request: &RequestHeader, response: &mut ResponseHeader) -> RangeType {
    // The core's limit is the first number that is too many.
    range_header_filter(request, response, Some(MAX_RANGES + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_core_misreads_is_read_by_the_book() {
        for (method, range, length, status, content_range) in [
            ("GET", "bytes=1-2", "10", 206, "bytes 1-2/10"),
            ("GET", "bytes=-0", "10", 416, "bytes */10"),
            ("GET", "bytes=-5", "0", 416, "bytes */0"),
            ("GET", "bytes=-99999999999999999999999", "10", 206, "bytes 0-9/10"),
            ("GET", "bytes=99999999999999999999999-5", "10", 200, ""),
            ("HEAD", "bytes=1-2", "10", 200, ""),
            ("GET", "bytes=1-2", "+10", 200, ""),
        ] {
            let mut request = RequestHeader::build(method, b"/", None).unwrap();
            request.insert_header(RANGE, range).unwrap();
            let mut response = ResponseHeader::build(200, None).unwrap();
            response.insert_header("content-length", length).unwrap();
            apply(&request, &mut response);
            let told = response.headers.get("content-range").map_or("", |value| value.to_str().unwrap());
            assert_eq!((response.status.as_u16(), told), (status, content_range), "{method} {range} of {length}");
        }
    }
}
