//! AWS Signature Version 4 in the `Authorization` field, as S3 wants it: the path is encoded once and never
//! normalised. Follows "Authenticating Requests: Using the Authorization Header" of the S3 API reference. Pure: the time
//! is an argument.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use aws_lc_rs::{digest, hmac};
use percent_encoding::percent_decode_str;

use super::key;
use crate::types::Secret;

/// The SHA-256 of an empty payload.
pub const EMPTY_PAYLOAD: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What of a request is signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The path exactly as it is sent, percent-encoded as [`key::encode_path`] does.
    pub path: &'a str,
    /// The query as it is sent, without `?`; may be empty. Its parameters are sorted and encoded anew.
    pub query: &'a str,
    /// The fields to sign, `host` among them, in any order and any case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The payload's SHA-256 in lower-case hexadecimal, or `UNSIGNED-PAYLOAD`.
    pub payload_hash: &'a str,
}

/// A signed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The value of the `Authorization` field.
    pub authorization: String,
    /// The signature in it, lower-case hexadecimal.
    pub signature: String,
    /// What was hashed: a server that refuses a signature says what it expected here.
    pub canonical_request: String,
}

/// A moment in the form signatures use, `YYYYMMDDTHHMMSSZ`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp(String);

impl Timestamp {
    /// Moments before 1970 or after 9999 become the epoch: no server accepts them anyway.
    pub fn new(now: SystemTime) -> Self {
        let mut text = String::with_capacity(20);
        if write!(text, "{}", humantime::format_rfc3339_seconds(now.max(UNIX_EPOCH))).is_err() {
            text = "1970-01-01T00:00:00Z".to_owned();
        }
        text.retain(|c| c != '-' && c != ':');
        Self(text)
    }

    /// The value of `x-amz-date`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The day, `YYYYMMDD`.
    pub fn date(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

/// Signs with one key pair for one region and service. The day's key is derived once.
pub struct Signer {
    access_key_id: String,
    secret: Secret,
    region: String,
    service: &'static str,
    day: ArcSwapOption<DayKey>,
}

struct DayKey {
    date: String,
    key: hmac::Key,
}

impl Signer {
    /// A signer; `service` is `s3` outside tests.
    pub fn new(access_key_id: &str, secret: &Secret, region: &str, service: &'static str) -> Self {
        Self {
            access_key_id: access_key_id.to_owned(),
            secret: secret.clone(),
            region: region.to_owned(),
            service,
            day: ArcSwapOption::empty(),
        }
    }

    /// Signs `request` at `now`, which the request has to carry in its `x-amz-date` field among the signed ones.
    pub fn sign(&self, request: &Request<'_>, now: &Timestamp) -> Signed {
        let (canonical_request, signed_headers) = canonical_request(request);
        let scope = format!("{}/{}/{}/aws4_request", now.date(), self.region, self.service);
        let digest = digest::digest(&digest::SHA256, canonical_request.as_bytes());
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{}", now.as_str(), Hex(digest.as_ref()));
        let signature = Hex(hmac::sign(&self.day_key(now.date()).key, to_sign.as_bytes()).as_ref()).to_string();
        let authorization = format!(
            "{ALGORITHM} Credential={}/{scope},SignedHeaders={signed_headers},Signature={signature}",
            self.access_key_id
        );
        Signed { authorization, signature, canonical_request }
    }

    fn day_key(&self, date: &str) -> Arc<DayKey> {
        if let Some(day) = self.day.load_full().filter(|day| day.date == date) {
            return day;
        }
        let secret = format!("AWS4{}", self.secret.expose());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        for part in [date, &self.region, self.service, "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        let day = Arc::new(DayKey { date: date.to_owned(), key });
        self.day.store(Some(day.clone()));
        day
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("access_key_id", &self.access_key_id).field("region", &self.region).finish()
    }
}

/// The canonical request and the list of signed fields in it.
pub fn canonical_request(request: &Request<'_>) -> (String, String) {
    let mut headers: Vec<(String, String)> =
        request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), collapse(value))).collect();
    // Stable, so that several values of one field keep their order.
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1.push(',');
            kept.1.push_str(&later.1);
        }
        same
    });
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let signed_headers = names.join(";");

    let mut out = String::with_capacity(512);
    let path = if request.path.is_empty() { "/" } else { request.path };
    for line in [request.method, path, &canonical_query(request.query)] {
        out.push_str(line);
        out.push('\n');
    }
    for (name, value) in &headers {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}:{value}");
    }
    let _ = write!(out, "\n{signed_headers}\n{}", request.payload_hash);
    (out, signed_headers)
}

fn canonical_query(query: &str) -> String {
    let mut parameters: Vec<(String, String)> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (recode(name), recode(value))
        })
        .collect();
    parameters.sort();
    let pairs: Vec<String> = parameters.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn recode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    key::encode_query(&percent_decode_str(text).collect::<Vec<u8>>(), &mut out);
    out
}

/// Trims, and makes every run of white space one space.
fn collapse(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 2013-05-24T00:00:00Z, the moment of the examples in the S3 API reference.
    const S3_EXAMPLES: Duration = Duration::from_secs(1_369_353_600);
    /// 2015-08-30T12:36:00Z, the moment of AWS's signing test-suite.
    const SUITE: Duration = Duration::from_secs(1_440_938_160);

    fn sign(signer: &Signer, at: Duration, request: &Request<'_>) -> Signed {
        signer.sign(request, &Timestamp::new(UNIX_EPOCH + at))
    }

    #[test]
    fn a_moment_is_written_without_separators() {
        let moment = Timestamp::new(UNIX_EPOCH + SUITE);
        assert_eq!((moment.as_str(), moment.date()), ("20150830T123600Z", "20150830"));
        let leap_day = Timestamp::new(UNIX_EPOCH + Duration::from_secs(1_709_251_199));
        assert_eq!(leap_day.as_str(), "20240229T235959Z");
    }

    #[test]
    fn a_moment_out_of_range_does_not_panic() {
        for moment in [UNIX_EPOCH - Duration::from_secs(1), UNIX_EPOCH + Duration::from_secs(400_000_000_000)] {
            assert_eq!(Timestamp::new(moment).as_str(), "19700101T000000Z");
        }
    }

    #[test]
    fn the_examples_of_the_s3_api_reference_are_reproduced() {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let signer = Signer::new("AKIAIOSFODNN7EXAMPLE", &secret, "us-east-1", "s3");
        let host = ("Host", "examplebucket.s3.amazonaws.com");
        let date = ("x-amz-date", "20130524T000000Z");
        let hash = ("x-amz-content-sha256", EMPTY_PAYLOAD);
        let put = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let put_headers = [
            host,
            date,
            ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", put),
        ];
        for (method, path, query, headers, payload_hash, signature) in [
            (
                "GET",
                "/test.txt",
                "",
                &[host, ("Range", "bytes=0-9"), hash, date][..],
                EMPTY_PAYLOAD,
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "PUT",
                "/test%24file.text",
                "",
                &put_headers[..],
                put,
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                "GET",
                "/",
                "lifecycle",
                &[host, hash, date][..],
                EMPTY_PAYLOAD,
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "GET",
                "/",
                "prefix=J&max-keys=2",
                &[host, hash, date][..],
                EMPTY_PAYLOAD,
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let request = Request { method, path, query, headers, payload_hash };
            let signed = sign(&signer, S3_EXAMPLES, &request);
            assert_eq!(signed.signature, signature, "{method} {path}?{query}\n{}", signed.canonical_request);
            let fields = if method == "GET" && path != "/" {
                "host;range;x-amz-content-sha256;x-amz-date"
            } else if method == "PUT" {
                "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class"
            } else {
                "host;x-amz-content-sha256;x-amz-date"
            };
            let scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
            let authorization =
                format!("AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={fields},Signature={signature}");
            assert_eq!(signed.authorization, authorization);
        }
    }

    fn suite_signer() -> Signer {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        Signer::new("AKIDEXAMPLE", &secret, "us-east-1", "service")
    }

    /// Method, decoded path, query, extra fields and signature of the cases that neither normalise nor encode twice.
    type Case = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

    const UNRESERVED: &str = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        ("GET", "/", "", &[], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "/", "", &[], "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("GET", "/", "", &[("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")],
         "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"),
        ("GET", "/", "", &[("My-Header1", "value1\n  value2\n     value3")],
         "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd"),
        ("GET", "/", "", &[("My-Header1", "value4"), ("My-Header1", "value1"), ("My-Header1", "value3"), ("My-Header1", "value2")],
         "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"),
        ("GET", "/", "", &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
         "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"),
        ("GET", "/example1/example2/../..", "", &[], "dc33e0856fd4baca4d7aa2146c38958283844764f38c74252a333df5e613003b"),
        ("GET", "/example/..", "", &[], "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282"),
        ("GET", "/./", "", &[], "68714168e6557f8f2de0ef956fc24dc2593a4bd2961f8df51898d8a134695145"),
        ("GET", "/./example", "", &[], "beb03f223f7deae4146464f06e29eebbee9c8afbe15c290cf07aa8b119e14cff"),
        ("GET", "//", "", &[], "c88bcd3d312d75078c0cd961d6deae3f4c754924b01669efcfcb439fd5e5b76e"),
        ("GET", "//example//", "", &[], "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5"),
        ("GET", "/example space/", "", &[], "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"),
        ("GET", "/ሴ", "", &[], "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        ("GET", "/", "Param1=value1", &[], "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"),
        ("GET", "/", "Param-3=Value3&Param=Value2&%E1%88%B4=Value1", &[],
         "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"),
        ("GET", "/", "Param2=value2&Param1=value1", &[], "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
        ("GET", "/", "ሴ=bar", &[], "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
        ("POST", "/", "", &[("My-Header1", "value1")], "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"),
        ("POST", "/", "", &[("My-Header1", "VALUE1")], "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"),
        ("POST", "/", "Param1=value1", &[], "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"),
        ("GET", "/", "", &[("X-Amz-Security-Token", "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267")],
         "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"),
    ];

    #[test]
    fn the_cases_of_awss_signing_suite_are_reproduced() {
        let signer = suite_signer();
        let unreserved_path = format!("/{UNRESERVED}");
        let unreserved_query = format!("{UNRESERVED}={UNRESERVED}");
        let unreserved = [
            (
                "GET",
                unreserved_path.as_str(),
                "",
                &[][..],
                "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
            ),
            (
                "GET",
                "/",
                unreserved_query.as_str(),
                &[][..],
                "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
            ),
        ];
        for &(method, path, query, extra, signature) in CASES.iter().chain(&unreserved) {
            let mut headers = vec![("X-Amz-Date", "20150830T123600Z"), ("Host", "example.amazonaws.com")];
            headers.extend_from_slice(extra);
            let mut wire = String::new();
            key::encode_path(path, &mut wire);
            let request = Request { method, path: &wire, query, headers: &headers, payload_hash: EMPTY_PAYLOAD };
            let signed = sign(&signer, SUITE, &request);
            assert_eq!(signed.signature, signature, "{method} {path}?{query}\n{}", signed.canonical_request);
        }
    }

    #[test]
    fn a_body_is_signed_by_its_hash() {
        let hash = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Host", "example.amazonaws.com"),
            ("Content-Length", "13"),
            ("X-Amz-Date", "20150830T123600Z"),
            ("X-Amz-Content-Sha256", hash),
        ];
        let request = Request { method: "POST", path: "/", query: "", headers: &headers, payload_hash: hash };
        let signed = sign(&suite_signer(), SUITE, &request);
        assert_eq!(signed.signature, "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b");
    }

    #[test]
    fn the_derived_key_follows_the_day() {
        let kept = suite_signer();
        let headers = [("host", "h")];
        let request = Request { method: "GET", path: "/", query: "", headers: &headers, payload_hash: EMPTY_PAYLOAD };
        for day in [0, 1, 1, 0, 2] {
            let at = SUITE + Duration::from_secs(86_400 * day);
            assert_eq!(sign(&kept, at, &request), sign(&suite_signer(), at, &request));
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let signer = Signer::new("id", &Secret::new("hunter2"), "r", "s3");
        assert!(!format!("{signer:?}").contains("hunter2"));
    }
}
