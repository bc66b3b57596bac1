//! `selvedge check`.

use super::{Exit, say};
use crate::config::Config;
use crate::tls::CertStore;
use crate::types::ByteSize;
use std::io::Write;
use std::path::Path;

/// Loads a configuration; prints a line about it, or all its problems. Certificates that are not to be had are warned of.
pub(super) fn run(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    match Config::load(path) {
        Ok(config) => {
            warn_of_certificates(&config, err);
            say(out, &format_args!("ok: {}\n", summary(&config)));
            Exit::Ok
        }
        Err(problems) => {
            let count = counted(problems.problems.len(), "problem");
            say(err, &format_args!("{problems}\n{count}\n"));
            Exit::Usage
        }
    }
}

/// Only warns: a configuration may be checked where its certificates are not.
fn warn_of_certificates(config: &Config, err: &mut dyn Write) {
    let Some(tls) = &config.tls else { return };
    match CertStore::open(&tls.certificates) {
        Ok((_, problems)) => problems.iter().for_each(|problem| say(err, &format_args!("warning: {problem}\n"))),
        Err(error) => say(err, &format_args!("warning: {error}; `selvedge serve` does not start without it\n")),
    }
}

fn summary(config: &Config) -> String {
    let routes = config.sites.iter().map(|site| site.routes.len()).sum();
    let listeners = config.listen.http.len() + config.listen.https.len() + usize::from(config.admin.is_some());
    let mut parts = vec![
        counted(config.sites.len(), "site"),
        counted(routes, "route"),
        counted(config.origins.len(), "origin"),
        counted(listeners, "listener"),
    ];
    match &config.cache {
        None => parts.push("no cache".to_owned()),
        Some(cache) => {
            let memory = Some(cache.memory_capacity).filter(|bytes| *bytes > 0);
            parts.extend(memory.map(|bytes| format!("{} of memory cache", ByteSize(bytes))));
            parts.extend(cache.disk.as_ref().map(|disk| format!("{} of disk cache", ByteSize(disk.capacity))));
        }
    }
    parts.join(", ")
}

fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
