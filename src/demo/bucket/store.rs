//! The objects: s3s-fs's, with the behaviour of a real bucket where it differs.
//!
//! Added here: conditional requests (RFC 9110 section 13), no object where a folder is, `NoSuchBucket`, and keys that
//! a file system would rewrite (`a//b`, `../x`, `dir/`) kept apart from those they would be rewritten to.

use super::Attributes;
use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadBucketInput,
    HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput,
    PutObjectOutput, StreamingBlob, Timestamp, TimestampFormat,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Objects in files. Clones share the files and the count.
#[derive(Clone, Debug)]
pub(super) struct Store {
    files: Arc<FileSystem>,
    root: Arc<Path>,
    answered: Arc<AtomicU64>,
}

impl Store {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let files = FileSystem::new(root).map_err(|error| io::Error::other(S3Error::from(error)))?;
        Ok(Self { files: Arc::new(files), root: root.into(), answered: Arc::default() })
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) async fn put<S>(&self, bucket: &str, key: &str, attributes: Attributes<'_>, body: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
    {
        let input = PutObjectInput {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            content_type: attributes.content_type.map(str::to_owned),
            cache_control: attributes.cache_control.map(str::to_owned),
            body: Some(StreamingBlob::wrap(body)),
            ..PutObjectInput::default()
        };
        std::fs::create_dir_all(self.root.join(bucket))?;
        self.put_object(internal(input)).await.map(|_| ()).map_err(io::Error::other)
    }

    /// The object's `Cache-Control`; `None` where there is no such object.
    pub(super) async fn cache_control(&self, bucket: &str, key: &str) -> Option<Option<String>> {
        let input = HeadObjectInput { bucket: bucket.to_owned(), key: key.to_owned(), ..HeadObjectInput::default() };
        self.find(&input.bucket, &input.key).ok()?;
        self.files.head_object(internal(input)).await.ok().map(|found| found.output.cache_control)
    }

    /// The key under which the files keep `key`, if there can be such an object.
    fn find(&self, bucket: &str, key: &str) -> S3Result<String> {
        self.require_bucket(bucket)?;
        let key = file_key(key);
        if self.path(bucket, &key).is_file() { Ok(key) } else { Err(s3_error!(NoSuchKey)) }
    }

    fn require_bucket(&self, bucket: &str) -> S3Result<()> {
        if self.root.join(bucket).is_dir() { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    fn path(&self, bucket: &str, file_key: &str) -> PathBuf {
        self.root.join(bucket).join(file_key)
    }
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn get_object(&self, mut request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let asked = Conditions {
            if_match: request.input.if_match.take(),
            if_none_match: request.input.if_none_match.take(),
            if_modified_since: request.input.if_modified_since.take(),
            if_unmodified_since: request.input.if_unmodified_since.take(),
        };
        request.input.key = self.find(&request.input.bucket, &request.input.key)?;
        // Preconditions come before the range, so that one out of bounds does not hide a 304 (RFC 9110 13.2.2).
        let range = request.input.range.take();
        let probe = request.clone().map_input(|input| HeadObjectInput {
            bucket: input.bucket,
            key: input.key,
            ..HeadObjectInput::default()
        });
        let head = self.files.head_object(probe).await?.output;
        match asked.evaluate(head.e_tag.as_ref(), head.last_modified.as_ref()) {
            Outcome::Proceed => {
                request.input.range = range;
                self.files.get_object(request).await
            }
            Outcome::Failed => Err(s3_error!(PreconditionFailed)),
            Outcome::NotModified => Err(not_modified(&head)),
        }
    }

    async fn head_object(&self, mut request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let asked = Conditions {
            if_match: request.input.if_match.take(),
            if_none_match: request.input.if_none_match.take(),
            if_modified_since: request.input.if_modified_since.take(),
            if_unmodified_since: request.input.if_unmodified_since.take(),
        };
        request.input.key = self.find(&request.input.bucket, &request.input.key)?;
        let response = self.files.head_object(request).await?;
        match asked.evaluate(response.output.e_tag.as_ref(), response.output.last_modified.as_ref()) {
            Outcome::Proceed => {}
            Outcome::Failed => return Err(s3_error!(PreconditionFailed)),
            Outcome::NotModified => return Err(not_modified(&response.output)),
        }
        Ok(response)
    }

    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.require_bucket(&request.input.bucket)?;
        request.input.key = file_key(&request.input.key);
        if self.path(&request.input.bucket, &request.input.key).is_dir() {
            return Err(s3_error!(InvalidRequest, "a folder of other objects has this key"));
        }
        self.files.put_object(request).await
    }

    async fn delete_object(
        &self,
        mut request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        match self.find(&request.input.bucket, &request.input.key) {
            Ok(key) => request.input.key = key,
            // Deleting what is not there succeeds.
            Err(error) if *error.code() == S3ErrorCode::NoSuchKey => {
                return Ok(S3Response::new(DeleteObjectOutput::default()));
            }
            Err(error) => return Err(error),
        }
        self.files.delete_object(request).await
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(request).await
    }
}

/// A request that did not come over the network.
fn internal<T>(input: T) -> S3Request<T> {
    S3Request {
        input,
        method: http::Method::GET,
        uri: http::Uri::default(),
        headers: http::HeaderMap::new(),
        extensions: http::Extensions::new(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    }
}

/// The file name for `key`: itself, unless joining it to a folder would name another file.
fn file_key(key: &str) -> String {
    let stays = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains('\0');
    if key.split('/').all(stays) {
        return key.to_owned();
    }
    format!(".key-{}", utf8_percent_encode(key, NON_ALPHANUMERIC))
}

/// The preconditions of a request, RFC 9110 section 13.1.
struct Conditions {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Proceed,
    NotModified,
    Failed,
}

impl Conditions {
    /// RFC 9110 section 13.2.2, for GET and HEAD of an object that exists.
    fn evaluate(&self, e_tag: Option<&ETag>, last_modified: Option<&Timestamp>) -> Outcome {
        let selects = |condition: &ETagCondition, same: fn(&ETag, &ETag) -> bool| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(wanted) => e_tag.is_some_and(|own| same(own, wanted)),
        };
        let modified = last_modified.and_then(whole_seconds);
        let newer_than = |date: &Timestamp| modified.zip(whole_seconds(date)).is_some_and(|(own, date)| own > date);
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(wanted), _) if !selects(wanted, ETag::strong_cmp) => return Outcome::Failed,
            (None, Some(date)) if newer_than(date) => return Outcome::Failed,
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(known), _) if selects(known, ETag::weak_cmp) => Outcome::NotModified,
            (None, Some(date)) if !newer_than(date) => Outcome::NotModified,
            _ => Outcome::Proceed,
        }
    }
}

/// A 304 with the fields that RFC 9110 section 15.4.5 asks for. s3s takes a status of ours from errors alone.
fn not_modified(head: &HeadObjectOutput) -> S3Error {
    let mut date = Vec::new();
    if let Some(modified) = &head.last_modified {
        let _ = modified.format(TimestampFormat::HttpDate, &mut date);
    }
    let e_tag = head.e_tag.as_ref().and_then(|tag| tag.to_http_header().ok());
    let cache_control = head.cache_control.as_ref().and_then(|value| value.parse().ok());
    let fields = [
        (header::ETAG, e_tag),
        (header::CACHE_CONTROL, cache_control),
        (header::LAST_MODIFIED, HeaderValue::from_bytes(&date).ok().filter(|value| !value.is_empty())),
    ];
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    error.set_headers(fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect());
    error
}

/// Files have finer times than HTTP dates; comparing needs the same grain.
fn whole_seconds(timestamp: &Timestamp) -> Option<SystemTime> {
    let mut text = Vec::new();
    timestamp.format(TimestampFormat::HttpDate, &mut text).ok()?;
    httpdate::parse_http_date(std::str::from_utf8(&text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_a_folder_would_rewrite_gets_a_name_of_its_own() {
        for same in ["a", "a/b.html", "a b/ü", "...", "a.", ".a"] {
            assert_eq!(file_key(same), same);
        }
        for (key, name) in [
            ("/a", ".key-%2Fa"),
            ("a//b", ".key-a%2F%2Fb"),
            ("a/", ".key-a%2F"),
            ("../a", ".key-%2E%2E%2Fa"),
            ("a/./b", ".key-a%2F%2E%2Fb"),
        ] {
            assert_eq!(file_key(key), name);
        }
    }

    #[test]
    fn preconditions_follow_their_order() {
        let at = |seconds: u64| Timestamp::from(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        let own = ETag::Strong("a".to_owned());
        let tag = |text: &str| Some(ETagCondition::ETag(ETag::Strong(text.to_owned())));
        let none =
            || Conditions { if_match: None, if_none_match: None, if_modified_since: None, if_unmodified_since: None };
        let modified = Timestamp::from(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(100_700));
        let cases = [
            (none(), Outcome::Proceed),
            (Conditions { if_match: tag("b"), ..none() }, Outcome::Failed),
            (Conditions { if_match: tag("a"), if_unmodified_since: Some(at(1)), ..none() }, Outcome::Proceed),
            (Conditions { if_unmodified_since: Some(at(1)), ..none() }, Outcome::Failed),
            (Conditions { if_none_match: tag("a"), ..none() }, Outcome::NotModified),
            (Conditions { if_none_match: Some(ETagCondition::Any), ..none() }, Outcome::NotModified),
            (Conditions { if_none_match: tag("b"), if_modified_since: Some(at(200)), ..none() }, Outcome::Proceed),
            (Conditions { if_modified_since: Some(at(100)), ..none() }, Outcome::NotModified),
            (Conditions { if_modified_since: Some(at(99)), ..none() }, Outcome::Proceed),
        ];
        for (number, (conditions, outcome)) in cases.into_iter().enumerate() {
            assert_eq!(conditions.evaluate(Some(&own), Some(&modified)), outcome, "case {number}");
        }
    }
}
