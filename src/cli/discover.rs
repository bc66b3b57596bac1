//! `selvedge discover`: watches the engine's socket and offers what routing needs to edges that need not see it.

use super::{Exit, say};
use crate::discovery::remote::{Offer, offer};
use crate::discovery::{Feed, docker};
use crate::types::Secret;
use clap::{Args, ValueHint};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which engine, and where to offer.
#[derive(Debug, Args)]
pub(super) struct Discover {
    /// Where to offer: unix:PATH, or HOST:PORT over TLS
    #[arg(long, value_name = "ADDR", default_value = "unix:/run/selvedge/discover.sock")]
    listen: String,
    /// The environment variable that holds the token edges have to know; needed for HOST:PORT
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// The certificate for HOST:PORT, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
}

/// Why nothing is offered.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Engine(#[from] docker::SettingsError),
    #[error("`{0}` is neither unix:PATH nor an address with a port")]
    Listen(String),
    #[error("an address of the network wants --token-env, --cert and --key: who asks learns what runs here")]
    Open,
    #[error("the environment variable {0} that --token-env names is not set")]
    NoToken(String),
    #[error("{path}: {1}", path = .0.display())]
    Pair(PathBuf, String),
    #[error("{0}")]
    Offer(#[from] crate::discovery::remote::OfferError),
    #[error("cannot start a runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Offers until it is ended.
pub(super) fn run(args: &Discover, env: &dyn Fn(&str) -> Option<String>, err: &mut dyn Write) -> Exit {
    match try_run(args, env) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            say(err, &format_args!("error: {error}\n"));
            match error {
                Error::Offer(_) => Exit::Unavailable,
                Error::Runtime(_) => Exit::Internal,
                _ => Exit::Usage,
            }
        }
    }
}

fn try_run(args: &Discover, env: &dyn Fn(&str) -> Option<String>) -> Result<(), Error> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = docker::Settings::from_environment(env, &|path| path.exists())?;
    let wanted = listener(args, env)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let offered = offer(wanted).await?;
        tracing::info!(listen = %offered.address, engine = %settings.endpoint, "offering containers");
        let (feed, reports) = Feed::new();
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            () = docker::watch(settings, feed) => {}
            () = offered.serve(reports) => {}
            _ = terminate.recv() => tracing::info!("ended by SIGTERM"),
            _ = tokio::signal::ctrl_c() => tracing::info!("ended by SIGINT"),
        }
        Ok(())
    })
}

fn listener(args: &Discover, env: &dyn Fn(&str) -> Option<String>) -> Result<Offer, Error> {
    let Discover { listen, token_env, cert, key } = args;
    let token = match token_env {
        Some(name) => {
            let token = env(name).filter(|token| !token.is_empty());
            Some(Secret::new(token.ok_or_else(|| Error::NoToken(name.clone()))?))
        }
        None => None,
    };
    if let Some(path) = listen.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Offer::Unix(path.into(), token));
    }
    let address: SocketAddr = listen.parse().map_err(|_| Error::Listen(listen.clone()))?;
    match (token, cert, key) {
        (Some(token), Some(cert), Some(key)) => Ok(Offer::Https(address, server(cert, key)?, token)),
        _ => Err(Error::Open),
    }
}

fn server(cert: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, Error> {
    let unusable = |path: &Path, reason: &dyn std::fmt::Display| Error::Pair(path.to_owned(), reason.to_string());
    let chain = CertificateDer::pem_file_iter(cert).map_err(|error| unusable(cert, &error))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| unusable(cert, &error))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| unusable(cert, &error))?.with_no_client_auth();
    Ok(Arc::new(builder.with_single_cert(chain, key_der).map_err(|error| unusable(cert, &error))?))
}
