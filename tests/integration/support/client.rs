//! An HTTP/1.1 client that keeps its connection, for tests that look at single fields.

use bytes::Bytes;
use http::header::COOKIE;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// A field's value; all lines joined.
    pub fn field(&self, name: &str) -> String {
        self.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join(", ")
    }

    pub fn cache_status(&self) -> String {
        self.field("cache-status")
    }

    pub fn is_hit(&self) -> bool {
        self.cache_status().starts_with("selvedge; hit")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client of one edge and one host.
pub struct Client {
    address: SocketAddr,
    host: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self { address, host: host.to_owned(), connection: None }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Bytes::new()).await.unwrap()
    }

    pub async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, Bytes::new()).await.unwrap()
    }

    /// Any request; an error where the connection breaks or the body is cut short.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", &self.host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.connection = Some(self.connect().await?);
        }
        let connection = self.connection.as_mut().unwrap();
        let response = connection.send_request(request).await.map_err(|e| e.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|e| format!("body after {}: {e}", head.status))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// A client of one edge by either protocol, in the name of `a.example`.
pub enum Speaker {
    H1(Vec<Client>),
    H2(h2::client::SendRequest<Bytes>),
}

impl Speaker {
    pub async fn new(address: SocketAddr, h2: bool) -> Self {
        if !h2 {
            return Self::H1((0..3).map(|_| Client::new(address, "a.example")).collect());
        }
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self::H2(client)
    }

    /// The same request so many times at once.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &HeaderMap,
        together: usize,
    ) -> Result<Vec<Answer>, String> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match self {
            Self::H1(clients) => {
                let fields: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
                let sent =
                    clients.iter_mut().take(together).map(|c| c.send(method.clone(), path, &fields, Bytes::new()));
                futures::future::join_all(sent).await.into_iter().collect()
            }
            Self::H2(client) => {
                let sent = (0..together).map(|_| h2_send(client.clone(), &method, path, headers));
                futures::future::join_all(sent).await.into_iter().collect()
            }
        }
    }
}

/// Cookies go in crumbs, as browsers send them (RFC 9113 section 8.2.3).
async fn h2_send(
    client: h2::client::SendRequest<Bytes>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Answer, String> {
    let failed = |error: h2::Error| error.to_string();
    let mut request = Request::builder().method(method).uri(format!("http://a.example{path}"));
    for (name, value) in headers {
        let whole = value.to_str().unwrap();
        let crumbs: Vec<&str> = if name == COOKIE { whole.split("; ").collect() } else { vec![whole] };
        for crumb in crumbs {
            request = request.header(name, crumb);
        }
    }
    let mut client = client.ready().await.map_err(failed)?;
    let (response, _) = client.send_request(request.body(()).unwrap(), true).map_err(failed)?;
    let (head, mut stream) = response.await.map_err(failed)?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.map_err(failed)?;
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    Ok(Answer { status: head.status, headers: head.headers, body: body.into() })
}
