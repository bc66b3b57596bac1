//! `selvedge demo`: a private bucket with a small site in it, an edge before it, and commands to paste.
//!
//! The bucket is [`bucket`], a server in this process that refuses what is not signed; the edge is the one that
//! `selvedge serve` runs, on a configuration written here. Everything lives in one folder and is kept between runs.

pub mod bucket;
mod folder;
mod guide;
mod ports;
mod readiness;
mod site;

use crate::types::Secret;
use bucket::Bucket;
use folder::Folder;
use guide::{Guide, Start};
use ports::{Flag, Ports};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// The configuration the demo starts from, valid as it stands.
const CONFIG_TEMPLATE: &str = include_str!("../config/demo/selvedge.toml");

/// `EX_SOFTWARE` of BSD's `sysexits.h`, as for every command's "anything else".
const SETUP_FAILED: u8 = 70;

/// What `selvedge demo` may be told. All listeners are on loopback; port 0 takes any free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The edge's plain HTTP port.
    pub http_port: u16,
    /// The edge's HTTPS port.
    pub https_port: u16,
    /// The edge's admin port.
    pub admin_port: u16,
    /// The bucket's port.
    pub origin_port: u16,
    /// Holds bucket, certificates, credentials, cache and configuration; created if missing.
    pub dir: PathBuf,
}

/// Why the demo cannot start.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("port {port} is in use; choose another with `{} PORT` (0 takes any free one)", flag.as_str())]
    PortInUse { port: u16, flag: Flag },
    #[error("cannot listen on port {port}: {source}; choose another with `{} PORT`", flag.as_str())]
    Port { port: u16, flag: Flag, source: io::Error },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("no random bytes for the bucket's credentials")]
    Random,
    #[error("cannot write a certificate for localhost: {0}")]
    Certificate(#[from] crate::tls::self_signed::Error),
    #[error("the bucket cannot start: {0}")]
    Bucket(#[source] io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    #[error("cannot tell where this program is: {0}")]
    Program(#[source] io::Error),
}

/// Sets everything up, serves until the edge is told to stop, and gives its exit status.
///
/// Once everything answers, the commands to paste and at last a line `ready` go to standard output. What keeps the
/// demo from starting goes to standard error, with status 70.
pub fn run(options: Options) -> ExitCode {
    match Demo::prepare(&options) {
        Ok(demo) => demo.serve(),
        Err(error) => {
            eprintln!("selvedge demo: {error}");
            ExitCode::from(SETUP_FAILED)
        }
    }
}

/// A running bucket and all that the edge before it needs.
struct Demo {
    config: PathBuf,
    guide: Guide,
    origin: Origin,
}

impl Demo {
    fn prepare(options: &Options) -> Result<Self, Error> {
        let reserved = Ports::reserve(options)?;
        let folder = Folder::open(&options.dir)?;
        let start = if folder.has_cache() { Start::Again } else { Start::First };
        let (access_key, secret) = folder.credentials()?;
        folder.certificate()?;
        let ports = reserved.release();
        let origin = Origin::start(folder.bucket_root(), ports.origin, access_key, secret)?;
        let config = folder.write_config(CONFIG_TEMPLATE, &ports)?;
        let program = std::env::current_exe().map_err(Error::Program)?;
        let guide = Guide { ports, folder: folder.path().to_owned(), program, start };
        Ok(Self { config, guide, origin })
    }

    fn serve(self) -> ExitCode {
        let Self { config, guide, origin } = self;
        // It ends on its own or with the process: the edge itself reports why it could not start.
        let announcer = std::thread::Builder::new()
            .name("demo-ready".to_owned())
            .spawn(move || readiness::announce(&guide, &mut io::stdout(), &mut io::stderr()));
        if let Err(error) = announcer.map_err(Error::Thread) {
            eprintln!("selvedge demo: {error}");
            return ExitCode::from(SETUP_FAILED);
        }
        let code = crate::app::serve(Some(config));
        origin.stop();
        code
    }
}

/// The bucket on a thread and runtime of its own, as if it were another machine: it outlives the edge's.
struct Origin {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Origin {
    /// Starts the server, fills it with what is missing and returns once it is filled.
    fn start(root: PathBuf, port: u16, access_key: String, secret: Secret) -> Result<Self, Error> {
        let (stop, stopped) = oneshot::channel();
        let (started, filled) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("demo-bucket".to_owned())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error))),
                };
                runtime.block_on(async move {
                    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    match start_and_fill(&root, address, &access_key, &secret).await {
                        Ok(bucket) => {
                            let _ = started.send(Ok(()));
                            let _ = stopped.await;
                            bucket.stop().await;
                        }
                        Err(error) => drop(started.send(Err(error))),
                    }
                });
            })
            .map_err(Error::Thread)?;
        let outcome = filled.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
        outcome.map_err(Error::Bucket)?;
        Ok(Self { stop, thread })
    }

    fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

async fn start_and_fill(
    root: &std::path::Path,
    address: SocketAddr,
    access_key: &str,
    secret: &Secret,
) -> io::Result<Bucket> {
    let bucket = Bucket::start(root, address, access_key, secret).await?;
    site::fill(&bucket).await?;
    Ok(bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_ports(dir: &std::path::Path) -> Options {
        Options { http_port: 0, https_port: 0, admin_port: 0, origin_port: 0, dir: dir.to_owned() }
    }

    fn get(port: u16, path: &str) -> u16 {
        readiness::status_of(port, path).unwrap()
    }

    #[test]
    fn everything_is_prepared_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        let demo = Demo::prepare(&free_ports(&root)).unwrap();
        assert_eq!(demo.guide.start, Start::First);
        assert_eq!(get(demo.guide.ports.origin, "/site/index.html"), 403);
        demo.origin.stop();
        let kept = ["certs/localhost.crt", "credentials/secret_access_key", "bucket/site/index.html"];
        let read = || kept.map(|name| std::fs::read(root.join(name)).unwrap());
        let modified = || std::fs::metadata(root.join("bucket/site/downloads/64MiB.bin")).unwrap().modified().unwrap();
        assert_eq!(std::fs::metadata(root.join("bucket/site/downloads/64MiB.bin")).unwrap().len(), 64 << 20);
        let (before, written) = (read(), modified());
        std::fs::create_dir_all(root.join("cache")).unwrap();
        std::fs::write(root.join("cache/segment"), "x").unwrap();

        let again = Demo::prepare(&free_ports(&root)).unwrap();
        assert_eq!(again.guide.start, Start::Again);
        assert_eq!((read(), modified()), (before, written));
        again.origin.stop();
    }

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let options = Options { admin_port: port, ..free_ports(dir.path()) };
        let message = Demo::prepare(&options).err().unwrap().to_string();
        assert_eq!(
            message,
            format!("port {port} is in use; choose another with `--admin-port PORT` (0 takes any free one)")
        );
    }
}
