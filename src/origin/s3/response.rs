//! What becomes of the bucket's answer.

use http::header::{self, HeaderName};
use pingora::http::{ResponseHeader, StatusCode};

use super::{Attempt, S3Origin};

/// What to do with a response head, before any of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Give it to the client, after [`S3Origin::clean_response`].
    Serve,
    /// Drop it and make this attempt.
    Retry(Attempt),
    /// Drop it and answer 302 with this path; the client's query is the caller's to append.
    Redirect(String),
    /// Drop it and answer this status with a body of our own: the bucket's is XML about the bucket.
    Sanitise {
        /// The status.
        status: StatusCode,
    },
}

/// Response fields about the store and its front end, which say nothing about the object.
const STORE_FIELDS: &[HeaderName] = &[
    header::SERVER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::ALT_SVC,
    // What could vary the answer (`Origin`, `Accept-Encoding`) is never sent to the bucket.
    header::VARY,
];

/// Prefixes of the same, by vendor; `x-amz-` is apart, for it has exceptions.
const STORE_PREFIXES: &[&str] = &["x-minio-", "x-rgw-", "x-goog-", "x-ratelimit-"];

/// A bucket's way to give an object tags to be purged by.
const CACHE_TAG: &str = "x-amz-meta-cache-tag";

/// Fields that describe an error document as an object of its own; under another's URL they would be wrong.
const OBJECT_FIELDS: &[HeaderName] = &[
    header::ETAG,
    header::LAST_MODIFIED,
    header::ACCEPT_RANGES,
    header::CONTENT_RANGE,
    header::CACHE_CONTROL,
    header::EXPIRES,
];

impl S3Origin {
    /// Decides about the response to `attempt` for the client's `path`, as [`S3Origin::prepare`] got it.
    ///
    /// Statuses stay what the bucket says. The exceptions: a redirect (the bucket is elsewhere) and an authentication
    /// challenge are about this edge's settings and become 502. 412 and 416 keep their status, not their XML.
    pub fn judge(&self, status: StatusCode, path: &str, attempt: &Attempt) -> Verdict {
        match attempt {
            Attempt::Requested => self.judge_requested(status, path),
            Attempt::DirectoryProbe if status.is_success() => Verdict::Redirect(with_slash(path)),
            Attempt::DirectoryProbe if status.is_server_error() => self.failed(status),
            Attempt::DirectoryProbe => self.not_found_anywhere(),
            Attempt::Fallback if status.is_success() => Verdict::Serve,
            Attempt::Fallback if status.is_server_error() => self.failed(status),
            Attempt::Fallback => self.failed(StatusCode::NOT_FOUND),
            Attempt::ErrorDocument { .. } if status.is_success() => Verdict::Serve,
            Attempt::ErrorDocument { status } => {
                Verdict::Sanitise { status: StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY) }
            }
        }
    }

    /// Makes a response that is served the site's own: fields about the store are removed, and an error document gets
    /// the error's status. A fallback keeps its 200.
    pub fn clean_response(&self, response: &mut ResponseHeader, attempt: &Attempt) {
        let removed: Vec<HeaderName> =
            response.headers.keys().filter(|name| self.is_about_the_store(name)).cloned().collect();
        for name in &removed {
            response.remove_header(name);
        }
        if let Attempt::ErrorDocument { status } = attempt {
            for name in OBJECT_FIELDS {
                response.remove_header(name);
            }
            if let Ok(status) = StatusCode::from_u16(*status) {
                // Only a status that is none is refused.
                let _ = response.set_status(status);
                let _ = response.set_reason_phrase(None);
            }
        }
    }

    fn judge_requested(&self, status: StatusCode, path: &str) -> Verdict {
        match status {
            StatusCode::NOT_MODIFIED => Verdict::Serve,
            _ if status.is_success() => Verdict::Serve,
            StatusCode::NOT_FOUND => self.not_found(path),
            StatusCode::FORBIDDEN if self.forbidden_is_not_found => self.not_found(path),
            StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE => Verdict::Sanitise { status },
            StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                self.failed(StatusCode::BAD_GATEWAY)
            }
            _ if status.is_client_error() || status.is_server_error() => self.failed(status),
            _ => self.failed(StatusCode::BAD_GATEWAY),
        }
    }

    fn not_found(&self, path: &str) -> Verdict {
        let may_be_folder =
            self.directory_redirect && self.index.is_some() && !path.is_empty() && !names_a_folder(path);
        // A folder's key that is too long, or a path that is no key, has no index document either.
        if may_be_folder && self.object_key(path, &Attempt::DirectoryProbe).is_ok() {
            return Verdict::Retry(Attempt::DirectoryProbe);
        }
        self.not_found_anywhere()
    }

    fn not_found_anywhere(&self) -> Verdict {
        match self.spa_fallback {
            Some(_) => Verdict::Retry(Attempt::Fallback),
            None => self.failed(StatusCode::NOT_FOUND),
        }
    }

    fn failed(&self, status: StatusCode) -> Verdict {
        match self.error_document(status.as_u16()) {
            Some(_) => Verdict::Retry(Attempt::ErrorDocument { status: status.as_u16() }),
            None => Verdict::Sanitise { status },
        }
    }

    fn is_about_the_store(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        if text.starts_with("x-amz-") {
            // The cache wants it, and takes it off before clients see it.
            return text != CACHE_TAG && !self.allow_amz_headers.iter().any(|allowed| allowed == text);
        }
        STORE_FIELDS.contains(name) || STORE_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
    }
}

fn names_a_folder(path: &str) -> bool {
    path.ends_with('/') || path.get(path.len().saturating_sub(3)..).is_some_and(|end| end.eq_ignore_ascii_case("%2f"))
}

/// `path/` as a `Location` that stays on this host: `//x/` would name another one, and browsers read `\` as `/`.
fn with_slash(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 3);
    if path.starts_with("//") {
        out.push_str("/.");
    }
    for byte in path.bytes() {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'@'..=b'Z' | b'_' | b'a'..=b'z' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out.push('/');
    out
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::tests::settings;
    use super::*;

    fn origin(change: impl FnOnce(&mut Settings)) -> S3Origin {
        let mut settings = settings();
        change(&mut settings);
        S3Origin::build(&settings).unwrap()
    }

    fn judge(origin: &S3Origin, status: u16, path: &str, attempt: &Attempt) -> Verdict {
        origin.judge(StatusCode::from_u16(status).unwrap(), path, attempt)
    }

    fn sanitise(status: u16) -> Verdict {
        Verdict::Sanitise { status: StatusCode::from_u16(status).unwrap() }
    }

    fn document(status: u16) -> Verdict {
        Verdict::Retry(Attempt::ErrorDocument { status })
    }

    #[test]
    fn statuses_stay_distinct_and_bucket_xml_stays_away() {
        let plain = origin(|_| ());
        for (status, verdict) in [
            (200, Verdict::Serve),
            (206, Verdict::Serve),
            (304, Verdict::Serve),
            (301, sanitise(502)),
            (307, sanitise(502)),
            (400, sanitise(400)),
            (401, sanitise(502)),
            (403, sanitise(403)),
            (404, sanitise(404)),
            (412, sanitise(412)),
            (416, sanitise(416)),
            (500, sanitise(500)),
            (503, sanitise(503)),
        ] {
            assert_eq!(judge(&plain, status, "/a", &Attempt::Requested), verdict, "{status}");
        }
    }

    #[test]
    fn a_missing_object_is_looked_for_in_order() {
        let all = origin(|s| {
            s.directory_redirect = true;
            s.spa_fallback = Some("app.html".to_owned());
            s.error_documents = vec![(404, "404.html".to_owned()), (503, "busy.html".to_owned())];
        });
        let probe = Verdict::Retry(Attempt::DirectoryProbe);
        let fallback = Verdict::Retry(Attempt::Fallback);
        for (status, path, attempt, verdict) in [
            (404, "/dir", Attempt::Requested, probe),
            (404, "/dir/", Attempt::Requested, fallback.clone()),
            (404, "/dir%2F", Attempt::Requested, fallback.clone()),
            (404, "/", Attempt::Requested, fallback.clone()),
            (200, "/dir", Attempt::DirectoryProbe, Verdict::Redirect("/dir/".to_owned())),
            (404, "/dir", Attempt::DirectoryProbe, fallback.clone()),
            (403, "/dir", Attempt::DirectoryProbe, fallback),
            (503, "/dir", Attempt::DirectoryProbe, document(503)),
            (500, "/dir", Attempt::DirectoryProbe, sanitise(500)),
            (200, "/dir", Attempt::Fallback, Verdict::Serve),
            (404, "/dir", Attempt::Fallback, document(404)),
            (403, "/dir", Attempt::Fallback, document(404)),
            (503, "/dir", Attempt::Fallback, document(503)),
            (200, "/dir", Attempt::ErrorDocument { status: 404 }, Verdict::Serve),
            (404, "/dir", Attempt::ErrorDocument { status: 404 }, sanitise(404)),
            (500, "/dir", Attempt::ErrorDocument { status: 403 }, sanitise(403)),
            (503, "/dir", Attempt::Requested, document(503)),
            (403, "/dir", Attempt::Requested, sanitise(403)),
        ] {
            assert_eq!(judge(&all, status, path, &attempt), verdict, "{status} {path} {attempt:?}");
        }
    }

    #[test]
    fn every_chain_of_attempts_ends() {
        let all = origin(|s| {
            s.directory_redirect = true;
            s.forbidden_is_not_found = true;
            s.spa_fallback = Some("app.html".to_owned());
            s.error_documents = (400..600).map(|status| (status, "error.html".to_owned())).collect();
        });
        for status in 100..600 {
            let mut attempt = Attempt::Requested;
            let mut tries = 1;
            while let Verdict::Retry(next) = judge(&all, status, "/x", &attempt) {
                attempt = next;
                tries += 1;
            }
            assert!(tries <= 4, "{status} took {tries} attempts");
        }
    }

    #[test]
    fn a_403_means_not_found_only_where_it_is_said_to() {
        let mapped = origin(|s| {
            s.forbidden_is_not_found = true;
            s.error_documents = vec![(404, "404.html".to_owned()), (403, "403.html".to_owned())];
        });
        assert_eq!(judge(&mapped, 403, "/a", &Attempt::Requested), document(404));
        let honest = origin(|s| s.error_documents = vec![(404, "404.html".to_owned()), (403, "403.html".to_owned())]);
        assert_eq!(judge(&honest, 403, "/a", &Attempt::Requested), document(403));
    }

    #[test]
    fn a_redirect_never_leaves_the_host() {
        for (path, location) in [
            ("/docs", "/docs/"),
            ("/a%20b", "/a%20b/"),
            ("//evil.example", "/.//evil.example/"),
            ("/\\evil.example", "/%5Cevil.example/"),
            ("/é\r\n<", "/%C3%A9%0D%0A%3C/"),
            ("/a?b#c", "/a%3Fb%23c/"),
        ] {
            assert_eq!(with_slash(path), location);
        }
    }

    fn bucket_response() -> ResponseHeader {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("Content-Type", "text/html"),
            ("Content-Length", "5"),
            ("ETag", "\"x\""),
            ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
            ("Cache-Control", "max-age=31536000"),
            ("Server", "AmazonS3"),
            ("Vary", "Origin"),
            ("x-amz-request-id", "1"),
            ("x-amz-id-2", "2"),
            ("x-amz-version-id", "3"),
            ("x-amz-meta-owner", "me"),
            ("x-amz-meta-cache-tag", "for the cache"),
            ("x-minio-deployment-id", "4"),
        ] {
            response.append_header(name, value).unwrap();
        }
        response
    }

    fn names(response: &ResponseHeader) -> Vec<&str> {
        let mut names: Vec<&str> = response.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_store_is_not_seen_in_a_response() {
        let origin = origin(|s| s.allow_amz_headers = vec!["x-amz-version-id".to_owned()]);
        let mut response = bucket_response();
        origin.clean_response(&mut response, &Attempt::Requested);
        let expected = [
            "cache-control",
            "content-length",
            "content-type",
            "etag",
            "last-modified",
            "x-amz-meta-cache-tag",
            "x-amz-version-id",
        ];
        assert_eq!(names(&response), expected);
        assert_eq!(response.status, StatusCode::OK);
    }

    #[test]
    fn an_error_document_has_the_errors_status_and_no_validator() {
        let origin = origin(|_| ());
        let mut response = bucket_response();
        origin.clean_response(&mut response, &Attempt::ErrorDocument { status: 404 });
        assert_eq!(response.status, StatusCode::NOT_FOUND);
        assert_eq!(names(&response), ["content-length", "content-type", "x-amz-meta-cache-tag"]);
        let mut fallback = bucket_response();
        origin.clean_response(&mut fallback, &Attempt::Fallback);
        assert_eq!(fallback.status, StatusCode::OK);
        assert!(fallback.headers.contains_key("etag"));
    }
}
