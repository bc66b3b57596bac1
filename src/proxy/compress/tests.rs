use super::*;
use proptest::prelude::*;
use std::io::Read;

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn response(fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(200, None).unwrap();
    for (name, value) in fields {
        response.append_header(*name, *value).unwrap();
    }
    response
}

fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
    };
    out
}

const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

#[test]
fn the_coding_of_the_greatest_weight_is_chosen() {
    let compression = Compression::default();
    for (accepted, coding) in [
        ("gzip, deflate, br, zstd", Some(Coding::Brotli)),
        ("gzip;q=1.0, br;q=0.5", Some(Coding::Gzip)),
        ("zstd, gzip", Some(Coding::Zstd)),
        ("GZIP", Some(Coding::Gzip)),
        ("x-gzip ; Q=0.3", Some(Coding::Gzip)),
        ("*", Some(Coding::Brotli)),
        ("br;q=0, *;q=0.1", Some(Coding::Zstd)),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0.5, identity;q=0.5", Some(Coding::Gzip)),
        ("gzip;q=0", None),
        ("deflate", None),
        ("gzip;q=nan", Some(Coding::Gzip)),
        ("", None),
    ] {
        assert_eq!(compression.choose(&map(&[("accept-encoding", accepted)])), coding, "{accepted}");
    }
    assert_eq!(compression.choose(&HeaderMap::new()), None);
    let only_gzip = Compression { codings: vec![Coding::Gzip], ..Compression::default() };
    assert_eq!(only_gzip.choose(&map(&[("accept-encoding", "br, gzip;q=0.1")])), Some(Coding::Gzip));

    for (fields, left) in [
        (&[("accept-encoding", "gzip, br")][..], "br"),
        (&[("accept-encoding", "gzip, br"), ("range", "bytes=0-1")], "identity"),
        (&[], "identity"),
    ] {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        fields.iter().for_each(|(n, v)| request.insert_header(*n, *v).unwrap());
        compression.negotiate(&mut request).unwrap();
        assert_eq!(request.headers[ACCEPT_ENCODING], left);
        compression.negotiate(&mut request).unwrap();
        assert_eq!(request.headers[ACCEPT_ENCODING], left, "again, as for a refresh in the background");
    }
}

#[test]
fn only_what_gains_by_it_is_compressed() {
    let compression = Compression::default();
    let text = ("content-type", "text/html; charset=utf-8");
    let long = ("content-length", "1024");
    for (fields, compressed, varies) in [
        (&[text, long][..], true, true),
        (&[text, ("transfer-encoding", "chunked")], true, true),
        (&[("content-type", "application/JSON"), long], true, true),
        (&[text, ("content-length", "1023")], false, false),
        (&[text], false, false),
        (&[("content-type", "image/png"), long], false, false),
        (&[("content-type", "text/event-stream"), long], false, false),
        (&[long], false, false),
        (&[text, long, ("content-encoding", "gzip")], false, false),
        (&[text, long, ("content-encoding", "identity")], true, true),
        (&[text, long, ("cache-control", "no-transform")], false, false),
        (&[text, long, ("cdn-cache-control", "no-transform, max-age=5")], false, false),
        (&[text, long, ("cdn-cache-control", "max-age=5"), ("cache-control", "no-transform")], false, false),
        (&[text, long, ("content-range", "bytes 0-1023/2000")], false, false),
        (&[text, ("content-length", "9"), ("content-length", "9999")], false, false),
    ] {
        let mut head = response(fields);
        let encoder = compression.begin(&map(&[("accept-encoding", "br")]), true, &mut head).unwrap();
        assert_eq!((encoder.is_some(), head.headers.contains_key("vary")), (compressed, varies), "{fields:?}");
        let mut plain = response(fields);
        assert!(compression.begin(&map(&[("accept-encoding", "identity")]), true, &mut plain).unwrap().is_none());
        assert_eq!(plain.headers.contains_key("vary"), varies, "{fields:?}");
    }
    let mut part = response(&[text, long]);
    part.set_status(StatusCode::PARTIAL_CONTENT).unwrap();
    assert!(compression.begin(&map(&[("accept-encoding", "br")]), true, &mut part).unwrap().is_none());
}

#[test]
fn the_head_tells_what_was_done() {
    let mut head = response(&[
        ("content-type", "text/css"),
        ("content-length", "5000"),
        ("etag", "\"abc\""),
        ("accept-ranges", "bytes"),
        ("content-md5", "x"),
        ("vary", "Origin"),
    ]);
    Compression::default().begin(&map(&[("accept-encoding", "zstd")]), true, &mut head).unwrap().unwrap();
    assert_eq!(head.headers[CONTENT_ENCODING], "zstd");
    assert_eq!(head.headers[ETAG], "W/\"abc\"");
    assert_eq!(head.headers[TRANSFER_ENCODING], "chunked");
    let vary: Vec<_> = head.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Origin", "accept-encoding"]);
    for gone in ["content-length", "accept-ranges", "content-md5"] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn a_confirmation_leaves_the_marks_of_compression() {
    let stored = map(&[("etag", "W/\"a\""), ("content-encoding", "br")]);
    let mut fields = map(&[("etag", "\"a\""), ("accept-ranges", "bytes"), ("expires", "x")]);
    confirm(&stored, &mut fields);
    assert_eq!(fields, map(&[("expires", "x")]));
    let mut other = map(&[("etag", "\"b\"")]);
    confirm(&stored, &mut other);
    assert_eq!(other, map(&[("etag", "\"b\"")]));
}

#[test]
fn content_that_breaks_off_is_an_error() {
    for coding in ALL {
        let mut encoder = Compression::default().encoder(coding, Some(10)).unwrap();
        encoder.encode(Some(Bytes::from_static(b"12345")), false).unwrap();
        assert!(encoder.encode(None, true).is_err());
    }
}

#[test]
fn what_is_of_unknown_length_comes_out_as_it_goes_in() {
    for coding in ALL {
        let mut encoder = Compression::default().encoder(coding, None).unwrap();
        let mut out = Vec::new();
        for _ in 0..3 {
            let piece = encoder.encode(Some(Bytes::from_static(b"a line of text\n")), false).unwrap();
            assert!(!piece.is_empty(), "{coding:?}");
            out.extend(piece);
        }
        out.extend(encoder.encode(None, true).unwrap());
        assert_eq!(decoded(coding, &out), b"a line of text\n".repeat(3));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn content_comes_back_as_it_was(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..6), coding in 0..3usize, known: bool, trailing: bool,
    ) {
        let whole = pieces.concat();
        let length = known.then_some(whole.len() as u64);
        let mut encoder = Compression::default().encoder(ALL[coding], length).unwrap();
        let mut out = Vec::new();
        for (n, piece) in pieces.iter().enumerate() {
            let end = !trailing && n + 1 == pieces.len();
            out.extend(encoder.encode(Some(Bytes::copy_from_slice(piece)), end).unwrap());
        }
        if trailing || pieces.is_empty() {
            out.extend(encoder.encode(None, true).unwrap());
        }
        prop_assert_eq!(decoded(ALL[coding], &out), whole);
    }
}
