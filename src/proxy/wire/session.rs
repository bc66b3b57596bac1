//! One HTTP/2 request and its response, as the core's proxy drives it.

use super::{Interim, has_no_content};
use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::body_buffer::FixedBuffer;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::v1::client::http_req_header_to_wire;
use pingora::protocols::http::v2;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, OrErr, Result};
use std::sync::Arc;
use std::time::Duration;

/// As much of a request's body as is kept for a second try, as the core keeps for its own sessions.
const RETRY_BUFFER: usize = 64 << 10;

/// Connection-specific fields, which HTTP/2 forbids (RFC 9113 section 8.2.2).
const FORBIDDEN: [HeaderName; 5] = [
    TRANSFER_ENCODING,
    CONNECTION,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What the core's own HTTP/2 session does, but for two things: a response keeps the `Date` it has, and interim
/// responses are sent.
pub struct H2Session {
    request: RequestHeader,
    request_body: RecvStream,
    /// The stream ended with the request's head. A reset does not make it one with content.
    bodiless: bool,
    respond: SendResponse<Bytes>,
    response_body: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    /// END_STREAM or RST_STREAM is out.
    ended: bool,
    received: usize,
    sent: usize,
    retry: Option<FixedBuffer>,
    digest: Arc<Digest>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

impl H2Session {
    /// For a stream whose request head has been read and checked.
    pub fn new(
        request: RequestHeader,
        request_body: RecvStream,
        respond: SendResponse<Bytes>,
        digest: Arc<Digest>,
    ) -> Self {
        Self {
            bodiless: request_body.is_end_stream(),
            request,
            request_body,
            respond,
            response_body: None,
            written: None,
            ended: false,
            received: 0,
            sent: 0,
            retry: None,
            digest,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        }
    }

    fn write_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.ended || self.written.is_some() {
            return Ok(());
        }
        let informational = head.status.is_informational();
        // The core writes a copy of its own too, sometimes: that one is dropped.
        if informational && head.extensions.get::<Interim>().is_none() {
            return Ok(());
        }
        for name in &FORBIDDEN {
            head.remove_header(name);
        }
        if informational {
            let response = Response::from_parts(head.as_owned_parts(), ());
            return self.respond.send_informational(response).or_err(ErrorType::WriteError, "writing an interim head");
        }
        if !head.headers.contains_key(DATE) {
            head.insert_header(DATE, get_cached_date())?;
        }
        // The core ends the stream when the fill ends, if there is one: nobody has to wait for that.
        let end = end || has_no_content(&self.request.method, &head);
        let response = Response::from_parts(head.as_owned_parts(), ());
        let body =
            self.respond.send_response(response, end).or_err(ErrorType::WriteError, "writing a response head")?;
        self.response_body = Some(body);
        self.written = Some(head);
        self.ended = end;
        Ok(())
    }

    async fn write_data(&mut self, data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(body) = self.response_body.as_mut() else {
            return Error::e_explain(ErrorType::H2Error, "a body before its head");
        };
        let length = data.len();
        v2::write_body(body, data, end, self.write_timeout).await.map_err(|e| e.into_down())?;
        self.sent += length;
        self.ended = end;
        Ok(())
    }

    fn write_trailer_section(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(body) = self.response_body.as_mut() else {
            return Error::e_explain(ErrorType::H2Error, "trailers before their head");
        };
        body.send_trailers(trailers).or_err(ErrorType::WriteError, "writing trailers")?;
        self.ended = true;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if !self.ended
            && let Some(body) = self.response_body.as_mut()
        {
            body.send_data(Bytes::new(), true).or_err(ErrorType::WriteError, "ending a response")?;
            self.ended = true;
        }
        Ok(())
    }

    fn reset(&mut self, reason: Reason) {
        if !self.ended {
            self.respond.send_reset(reason);
            self.ended = true;
        }
    }

    async fn write_task(&mut self, task: HttpTask) -> Result<bool> {
        match task {
            HttpTask::Header(head, end) => {
                self.write_head(head, end).map_err(|e| e.into_down())?;
                Ok(end)
            }
            HttpTask::Body(data, end) => {
                if let Some(data) = data.filter(|data| !data.is_empty()) {
                    self.write_data(data, end).await.map_err(|e| e.into_down())?;
                }
                Ok(end)
            }
            // The request was no HTTP/1.1 upgrade, so nothing can have been upgraded.
            HttpTask::UpgradedBody(..) => Error::e_explain(ErrorType::InternalError, "an upgraded body over HTTP/2"),
            HttpTask::Trailer(trailers) => {
                if let Some(trailers) = trailers {
                    self.write_trailer_section(*trailers)?;
                }
                Ok(true)
            }
            HttpTask::Done => Ok(true),
            HttpTask::Failed(error) => Err(error),
        }
    }

    async fn gone(&mut self) -> Result<Reason> {
        std::future::poll_fn(|cx| match self.response_body.as_mut() {
            Some(body) => body.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        })
        .await
        .or_err(ErrorType::H2Error, "waiting for the client to go")
    }
}

#[async_trait]
impl Session for H2Session {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let data = self.request_body.data().await.transpose().or_err(ErrorType::ReadError, "reading a request body")?;
        if let Some(data) = &data {
            self.received += data.len();
            if let Some(retry) = &mut self.retry {
                retry.write_to_buffer(data);
            }
            // Fails only for a stream that is gone, as the next read will find.
            let _ = self.request_body.flow_control().release_capacity(data.len());
        }
        Ok(data)
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        if self.is_body_done() {
            return Ok(());
        }
        let timeout = self.drain_timeout;
        let drain = async {
            while self.read_body_bytes().await?.is_some() {}
            Ok(())
        };
        match timeout {
            None => drain.await,
            Some(limit) => match tokio::time::timeout(limit, drain).await {
                Ok(done) => done,
                Err(_) => Error::e_explain(ErrorType::ReadTimedout, "draining a request body"),
            },
        }
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.write_head(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_head(Box::new(head.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.write_data(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.write_trailer_section(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut end = false;
        for task in tasks {
            end |= self.write_task(task).await?;
        }
        if end {
            self.end().map_err(|e| e.into_down())?;
        }
        Ok(end)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        let (method, uri) = (&self.request.method, &self.request.uri);
        let path = uri.path_and_query().map_or("", |p| p.as_str());
        format!("{method} {path}, Host: {}", uri.authority().map_or("", |a| a.as_str()))
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.reset(Reason::INTERNAL_ERROR);
    }

    fn is_body_done(&mut self) -> bool {
        self.is_body_empty() || self.request_body.is_end_stream()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        let announced_empty = self.request.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
        self.received == 0 && (self.bodiless || announced_empty || self.request_body.is_end_stream())
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected && !self.is_body_done() {
            return self.read_body_bytes().await;
        }
        let reason = self.gone().await?;
        Error::e_explain(ErrorType::H2Error, format!("the client closed the stream: {reason}"))
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.received
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    /// The request as the core's background refreshes read it again: with a parser for HTTP/1, which takes neither
    /// another version nor a request that names its host nowhere.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        let mut request = self.request.clone();
        request.set_version(Version::HTTP_11);
        if let Some(host) = self.request.uri.authority().and_then(|a| HeaderValue::try_from(a.as_str()).ok()) {
            let _ = request.insert_header(HOST, host);
        }
        // A target that cannot be written has been refused before.
        http_req_header_to_wire(&request).map(|wire| wire.freeze()).unwrap_or_default()
    }

    fn enable_retry_buffering(&mut self) {
        self.retry.get_or_insert_with(|| FixedBuffer::new(RETRY_BUFFER));
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.retry.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.retry.as_ref().filter(|retry| !retry.is_truncated())?.get_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
