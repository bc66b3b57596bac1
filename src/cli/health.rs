//! `selvedge health`: whether a server runs, for what watches containers and has no other client at hand.

use super::purge::{Endpoint, ask, target_of};
use super::{Exit, say};
use clap::{Args, ValueHint};
use hyper::Method;
use std::io::Write;
use std::path::PathBuf;

/// What to ask, and where the server is.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// Ask whether it takes new requests, which it does not while it drains
    #[arg(long)]
    ready: bool,
    /// The admin listener, HOST:PORT or unix:PATH [default: that of --config, else 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    admin: Option<Endpoint>,
    /// The server's configuration file, for the admin listener's address and token
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

/// Prints the answer; exit status 69 where there is none, or it is no.
pub(super) fn run(
    args: &Health,
    env: &dyn Fn(&str) -> Option<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    let Health { ready, admin, config } = args;
    let path = if *ready { "/readyz" } else { "/healthz" };
    let answer = target_of(admin.as_ref(), config.as_ref(), None, env)
        .and_then(|(endpoint, token)| ask(&endpoint, token.as_ref(), Method::GET, path, None));
    match answer {
        Ok(answer) => {
            say(out, &String::from_utf8_lossy(&answer));
            Exit::Ok
        }
        Err(error) => {
            say(err, &format_args!("error: {error}\n"));
            error.exit()
        }
    }
}
