//! An S3-style server in this process that answers signed requests only: the private bucket of the demo and of the
//! integration tests.
//!
//! Signatures (SigV4 in the header or in a presigned URL) and the protocol are s3s's, files are s3s-fs's, and
//! [`store`] adds what a real bucket does and s3s-fs leaves out.

mod store;

use crate::types::Secret;
use bytes::Bytes;
use futures::Stream;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::host::{S3Host, VirtualHost};
use s3s::service::{S3Service, S3ServiceBuilder};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use store::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

/// A running server. Dropping it stops it as well, without waiting.
#[derive(Debug)]
pub struct Bucket {
    address: SocketAddr,
    store: Store,
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

/// What is stored beside an object's bytes and comes back as response fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Cache-Control`.
    pub cache_control: Option<&'a str>,
}

impl Bucket {
    /// Serves the folders of `root` (created if missing) as buckets on `bind`; port 0 takes any free one. An object is
    /// the file `root/<bucket>/<key>`, so a test may write one by hand; keys that no file can be named after are kept
    /// under an encoded name, reachable by `PUT` and [`Bucket::put`]. The region in a signature may be any.
    ///
    /// Needs a tokio runtime. Fails where `root` cannot be created or `bind` cannot be listened on.
    pub async fn start(root: &Path, bind: SocketAddr, access_key: &str, secret: &Secret) -> io::Result<Self> {
        let store = Store::open(root)?;
        let mut service = S3ServiceBuilder::new(store.clone());
        service.set_auth(SimpleAuth::from_single(access_key, secret.expose()));
        service.set_host(BucketInHost);
        let listener = TcpListener::bind(bind).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, service.build(), stopped));
        Ok(Self { address, store, stop, accepting })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many GET and HEAD requests for objects were answered, whatever the status; refused signatures don't count.
    pub fn requests(&self) -> u64 {
        self.store.answered()
    }

    /// Stores an object without going over the network; the bucket is created if missing.
    pub async fn put<S>(&self, bucket: &str, key: &str, attributes: Attributes<'_>, body: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
    {
        self.store.put(bucket, key, attributes, body).await
    }

    /// Whether the object is there, whole, with the `Cache-Control` of `attributes`.
    pub async fn holds(&self, bucket: &str, key: &str, attributes: Attributes<'_>) -> bool {
        self.store.cache_control(bucket, key).await.is_some_and(|found| found.as_deref() == attributes.cache_control)
    }

    /// Stops listening and closes every connection.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.accepting.await;
    }
}

/// Takes connections until `stopped` resolves, which it also does when its sender is dropped.
async fn accept(listener: TcpListener, service: S3Service, mut stopped: oneshot::Receiver<()>) {
    // A full descriptor table makes accept fail at once and for as long as it lasts.
    const AFTER_ERROR: Duration = Duration::from_millis(50);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, service.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the embedded bucket cannot accept a connection");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, service: S3Service) {
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // s3s logs each refused signature as an error of its own; here that is what the bucket is for.
    let connection = connection.with_subscriber(NoSubscriber::default());
    // A client that goes away in mid-transfer is no news.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection to the embedded bucket ended");
    }
}

/// `<bucket>.localhost` and `<bucket>.s3.test` name a bucket (virtual-host style); under any other host the path does.
struct BucketInHost;

impl S3Host for BucketInHost {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> s3s::S3Result<VirtualHost<'a>> {
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        let bucket = [".localhost", ".s3.test"].iter().find_map(|domain| name.strip_suffix(domain));
        Ok(match bucket {
            Some(bucket) => VirtualHost::new(host).with_bucket(bucket),
            None => VirtualHost::new(host),
        })
    }
}

#[cfg(test)]
mod tests;
