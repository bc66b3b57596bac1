//! What is sent to the bucket.

use std::time::SystemTime;

use http::header;
use pingora::http::{Method, RequestHeader, StatusCode};

use super::key::{self, KeyError, MAX_KEY_BYTES};
use super::sigv4::{self, EMPTY_PAYLOAD, Timestamp};
use super::{Attempt, S3Origin, without_slash};
use crate::types::Secret;

/// Fields of any attempt: who passed the request on (RFC 9110 section 7.6.3, RFC 8586).
const KEPT: &[&str] = &["via", "cdn-loop"];

/// Fields that select a part or a version of the requested object (RFC 9110 sections 13.1 and 14.2). Of another object
/// they would select something the client did not ask for.
const CONDITIONS: &[&str] =
    &["range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];

/// Why there is no request to send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The path names no object.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The attempt is of a kind that the settings do not have.
    #[error("the origin has no object for {0:?}")]
    NotConfigured(Attempt),
    /// A value does not fit in a field or the target.
    #[error("the request to the bucket could not be written: {0}")]
    Unwritable(String),
}

impl PrepareError {
    /// The answer to the client. 404 goes through [`S3Origin::judge`] as the bucket's 404 would.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Key(KeyError::MalformedEscape | KeyError::Nul | KeyError::NotUtf8) => StatusCode::BAD_REQUEST,
            Self::Key(KeyError::TooLong) => StatusCode::URI_TOO_LONG,
            Self::Key(KeyError::Empty) | Self::NotConfigured(_) => StatusCode::NOT_FOUND,
            Self::Unwritable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl S3Origin {
    /// Turns a client's request into the one for the bucket: target, `Host`, nothing but the fields S3 acts on, and the
    /// signature last. `path` is the client's path as it came, percent-encoded, without the query: S3 reads a query as
    /// commands, so none is sent. The request must go out without a body.
    ///
    /// # Errors
    /// See [`PrepareError`]; its `status` is the answer.
    pub fn prepare(
        &self,
        request: &mut RequestHeader,
        path: &str,
        attempt: &Attempt,
        now: SystemTime,
    ) -> Result<(), PrepareError> {
        let key = self.object_key(path, attempt)?;
        let mut target = self.base.clone();
        key::encode_path(&key, &mut target);

        let dropped: Vec<header::HeaderName> =
            request.headers.keys().filter(|name| !is_kept(name.as_str(), attempt)).cloned().collect();
        for name in &dropped {
            request.remove_header(name);
        }
        if *attempt == Attempt::DirectoryProbe {
            request.set_method(Method::HEAD);
        }
        request.set_raw_path(target.as_bytes()).map_err(unwritable)?;
        request.insert_header(header::HOST, self.host.as_str()).map_err(unwritable)?;
        self.sign(request, &target, now)
    }

    /// The key that `attempt` asks for.
    ///
    /// # Errors
    /// See [`KeyError`] and [`PrepareError::NotConfigured`].
    pub fn object_key(&self, path: &str, attempt: &Attempt) -> Result<String, PrepareError> {
        let missing = || PrepareError::NotConfigured(attempt.clone());
        let own = match attempt {
            Attempt::Requested => {
                let mut key = self.path_key(path)?;
                if key.is_empty() || key.ends_with('/') {
                    key.push_str(self.index.as_deref().unwrap_or_default());
                }
                key
            }
            Attempt::DirectoryProbe => {
                let index = self.index.as_deref().ok_or_else(missing)?;
                format!("{}/{index}", self.path_key(path)?)
            }
            Attempt::Fallback => self.spa_fallback.clone().ok_or_else(missing)?,
            Attempt::ErrorDocument { status } => self.error_document(*status).ok_or_else(missing)?.to_owned(),
        };
        let key = format!("{}{own}", self.prefix);
        match key.len() {
            // Both would list the bucket, or what is below the prefix, on some servers.
            0 => Err(KeyError::Empty.into()),
            _ if own.is_empty() => Err(KeyError::Empty.into()),
            length if length > MAX_KEY_BYTES => Err(KeyError::TooLong.into()),
            _ => Ok(key),
        }
    }

    pub(super) fn error_document(&self, status: u16) -> Option<&str> {
        self.error_documents.iter().find(|(of, _)| of.as_u16() == status).map(|(_, key)| key.as_str())
    }

    /// The key within the prefix; empty for the root.
    fn path_key(&self, path: &str) -> Result<String, KeyError> {
        let decoded = key::decode(without_slash(path))?;
        let below = decoded.strip_prefix(&self.strip_prefix).filter(|_| !self.strip_prefix.is_empty());
        Ok(match below {
            Some("") => String::new(),
            Some(rest) => rest.strip_prefix('/').unwrap_or(&decoded).to_owned(),
            None => decoded,
        })
    }

    fn sign(&self, request: &mut RequestHeader, target: &str, now: SystemTime) -> Result<(), PrepareError> {
        let Some(signer) = &self.signer else { return Ok(()) };
        let now = Timestamp::new(now);
        let mut signed = vec![("x-amz-content-sha256", EMPTY_PAYLOAD), ("x-amz-date", now.as_str())];
        if let Some(token) = self.session_token.as_ref().map(Secret::expose) {
            signed.push(("x-amz-security-token", token));
        }
        for &(name, value) in &signed {
            request.insert_header(name, value).map_err(unwritable)?;
        }
        // Nothing else is signed: a field that the connection adds or changes must not break the signature.
        signed.push(("host", &self.host));
        let parts = sigv4::Request {
            method: request.method.as_str(),
            path: target,
            query: "",
            headers: &signed,
            payload_hash: EMPTY_PAYLOAD,
        };
        let authorization = signer.sign(&parts, &now).authorization;
        request.insert_header(header::AUTHORIZATION, authorization).map_err(unwritable)?;
        Ok(())
    }
}

/// An allow-list: a field the bucket does not need could change its answer without being part of the cache key, or
/// give away what the client meant for the site (cookies, credentials, its address).
fn is_kept(name: &str, attempt: &Attempt) -> bool {
    KEPT.contains(&name) || (*attempt == Attempt::Requested && CONDITIONS.contains(&name))
}

fn unwritable(error: Box<pingora::Error>) -> PrepareError {
    PrepareError::Unwritable(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::super::tests::settings;
    use super::super::{AddressingStyle, Endpoint, Settings};
    use super::*;

    const NOW: SystemTime = UNIX_EPOCH;

    fn origin(change: impl FnOnce(&mut Settings)) -> S3Origin {
        let mut settings = settings();
        change(&mut settings);
        S3Origin::build(&settings).unwrap()
    }

    fn client(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/client?acl&versionId=1", None).unwrap();
        request.insert_header("Host", "www.example.com").unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn key(origin: &S3Origin, path: &str, attempt: &Attempt) -> Result<String, PrepareError> {
        origin.object_key(path, attempt)
    }

    #[test]
    fn the_key_requested_is_the_key_sent_byte_for_byte() {
        let origin = origin(|_| ());
        for (path, wire) in [
            ("/a=b", "/assets/a%3Db"),
            ("/me@example.com", "/assets/me%40example.com"),
            ("/it's(1)", "/assets/it%27s%281%29"),
            ("/a+b", "/assets/a%2Bb"),
            ("/100%25", "/assets/100%25"),
            ("/two%20words", "/assets/two%20words"),
            ("/%E6%9D%B1%E4%BA%AC.jpg", "/assets/%E6%9D%B1%E4%BA%AC.jpg"),
            ("/%d1%84%d0%b0", "/assets/%D1%84%D0%B0"),
            ("/%D7%A9%D7%9C", "/assets/%D7%A9%D7%9C"),
            ("/a//b", "/assets/a//b"),
            ("//b", "/assets//b"),
            ("/a/../../b", "/assets/a/../../b"),
            ("/..", "/assets/.."),
            ("/./a", "/assets/./a"),
            ("/~user", "/assets/~user"),
            ("/dot.", "/assets/dot."),
            ("/a%2Fb", "/assets/a/b"),
            ("/a%3Fb%23c", "/assets/a%3Fb%23c"),
            ("/http://x/y", "/assets/http%3A//x/y"),
        ] {
            let mut request = client(&[]);
            origin.prepare(&mut request, path, &Attempt::Requested, NOW).unwrap();
            assert_eq!(String::from_utf8_lossy(request.raw_path()), wire, "{path}");
            let sent = key::decode(&wire["/assets/".len()..]).unwrap();
            assert_eq!(key::decode(&path[1..]).unwrap(), sent, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_key_arrives_as_it_was_asked_for(key in "[^\0]{1,60}[^/\0]") {
            let origin = origin(|s| s.style = AddressingStyle::Path);
            let mut path = "/".to_owned();
            key::encode_path(&key, &mut path);
            let mut request = client(&[]);
            origin.prepare(&mut request, &path, &Attempt::Requested, NOW).unwrap();
            let wire = std::str::from_utf8(request.raw_path()).unwrap();
            prop_assert_eq!(key::decode(wire.strip_prefix("/assets/").unwrap()).unwrap(), key);
            prop_assert_eq!(request.uri.query(), None);
        }
    }

    #[test]
    fn a_folder_is_its_index_document() {
        let with = origin(|_| ());
        let without = origin(|s| s.index = None);
        for (path, index, none) in [
            ("/", Ok("index.html"), Err(KeyError::Empty)),
            ("", Ok("index.html"), Err(KeyError::Empty)),
            ("/docs/", Ok("docs/index.html"), Ok("docs/")),
            ("/docs%2f", Ok("docs/index.html"), Ok("docs/")),
            ("/docs", Ok("docs"), Ok("docs")),
        ] {
            let owned = |r: Result<&str, KeyError>| r.map(str::to_owned).map_err(PrepareError::Key);
            assert_eq!(key(&with, path, &Attempt::Requested), owned(index), "{path}");
            assert_eq!(key(&without, path, &Attempt::Requested), owned(none), "{path}");
        }
    }

    #[test]
    fn prefixes_are_taken_off_and_put_on() {
        let origin = origin(|s| {
            s.strip_prefix = "/static/".to_owned();
            s.prefix = "site/".to_owned();
            s.spa_fallback = Some("/app.html".to_owned());
            s.error_documents = vec![(404, "404.html".to_owned())];
        });
        for (path, attempt, expected) in [
            ("/static/a.js", Attempt::Requested, "site/a.js"),
            ("/static/", Attempt::Requested, "site/index.html"),
            ("/static", Attempt::Requested, "site/index.html"),
            ("/%73tatic/a.js", Attempt::Requested, "site/a.js"),
            ("/statics/a.js", Attempt::Requested, "site/statics/a.js"),
            ("/other", Attempt::Requested, "site/other"),
            ("/static/dir", Attempt::DirectoryProbe, "site/dir/index.html"),
            ("/static/x", Attempt::Fallback, "site/app.html"),
            ("/static/x", Attempt::ErrorDocument { status: 404 }, "site/404.html"),
        ] {
            assert_eq!(key(&origin, path, &attempt).as_deref(), Ok(expected), "{path} {attempt:?}");
        }
    }

    #[test]
    fn a_path_that_is_no_key_is_answered_by_us() {
        let origin = origin(|s| s.index = None);
        for (path, status) in [
            ("/%zz".to_owned(), 400),
            ("/a%00".to_owned(), 400),
            ("/%FF".to_owned(), 400),
            (format!("/{}", "a".repeat(1025)), 414),
            ("/".to_owned(), 404),
        ] {
            let error = origin.prepare(&mut client(&[]), &path, &Attempt::Requested, NOW).unwrap_err();
            assert_eq!(error.status().as_u16(), status, "{path}");
        }
        assert!(key(&origin, &format!("/{}", "a".repeat(1024)), &Attempt::Requested).is_ok());
        let missing = key(&origin, "/x", &Attempt::Fallback).unwrap_err();
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_prefix_alone_is_never_asked_for() {
        let origin = origin(|s| {
            s.index = None;
            s.prefix = "site/".to_owned();
        });
        assert_eq!(key(&origin, "/", &Attempt::Requested), Err(KeyError::Empty.into()));
    }

    #[test]
    fn the_bucket_sees_no_more_than_it_needs() {
        let mut request = client(&[
            ("Cookie", "session=1"),
            ("Authorization", "Bearer x"),
            ("X-Amz-Acl", "public-read"),
            ("x-amz-security-token", "stolen"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("Forwarded", "for=192.0.2.1"),
            ("Accept-Encoding", "gzip"),
            ("Content-Length", "5"),
            ("Range", "bytes=0-9"),
            ("If-None-Match", "\"x\""),
            ("Via", "1.1 edge"),
        ]);
        origin(|_| ()).prepare(&mut request, "/a", &Attempt::Requested, NOW).unwrap();
        let mut names: Vec<&str> = request.headers.keys().map(header::HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = ["authorization", "host", "if-none-match", "range", "via", "x-amz-content-sha256", "x-amz-date"];
        assert_eq!(names, expected);
        assert_eq!(request.headers["host"], "127.0.0.1:9000");
        assert!(request.headers["authorization"].to_str().unwrap().starts_with("AWS4-HMAC-SHA256 "));
        assert_eq!(request.raw_path(), b"/assets/a");
    }

    #[test]
    fn conditions_and_ranges_are_for_the_requested_object_alone() {
        let origin = origin(|s| {
            s.spa_fallback = Some("app.html".to_owned());
            s.error_documents = vec![(404, "404.html".to_owned())];
        });
        for attempt in [Attempt::Fallback, Attempt::ErrorDocument { status: 404 }, Attempt::DirectoryProbe] {
            let mut request = client(&[("Range", "bytes=0-9"), ("If-Match", "\"x\""), ("If-Range", "\"x\"")]);
            origin.prepare(&mut request, "/a", &attempt, NOW).unwrap();
            assert!(CONDITIONS.iter().all(|name| !request.headers.contains_key(*name)), "{attempt:?}");
            let method = if attempt == Attempt::DirectoryProbe { Method::HEAD } else { Method::GET };
            assert_eq!(request.method, method);
        }
    }

    #[test]
    fn the_published_example_is_signed_from_end_to_end() {
        // Without the range, which is not among the signed fields; signature from botocore for the same request.
        let origin = origin(|s| {
            s.endpoint = Endpoint { tls: true, host: "s3.amazonaws.com".to_owned(), port: 443 };
            s.style = AddressingStyle::VirtualHost;
            s.bucket = "examplebucket".to_owned();
            if let Some(credentials) = &mut s.credentials {
                credentials.access_key_id = "AKIAIOSFODNN7EXAMPLE".to_owned();
                credentials.secret_access_key = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
                credentials.session_token = Some(Secret::new("TOKEN"));
            }
        });
        let mut request = client(&[]);
        let now = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        origin.prepare(&mut request, "/it's a %E6%9D%B1//../+.txt", &Attempt::Requested, now).unwrap();
        assert_eq!(request.raw_path(), b"/it%27s%20a%20%E6%9D%B1//../%2B.txt");
        assert_eq!(request.headers["host"], "examplebucket.s3.amazonaws.com");
        assert_eq!(request.headers["x-amz-security-token"], "TOKEN");
        let authorization = request.headers["authorization"].to_str().unwrap();
        assert!(authorization.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"));
        assert!(
            authorization.ends_with("Signature=2261678faa041b9fe8aa9e1e9e262efc7cc515b66eeaa2fa065598ed33aa9295"),
            "{authorization}"
        );
    }

    #[test]
    fn a_public_bucket_is_asked_without_a_signature() {
        let mut request = client(&[("Authorization", "Basic x")]);
        origin(|s| s.credentials = None).prepare(&mut request, "/a", &Attempt::Requested, NOW).unwrap();
        let names: Vec<&str> = request.headers.keys().map(header::HeaderName::as_str).collect();
        assert_eq!(names, ["host"]);
    }
}
