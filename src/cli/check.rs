//! `selvedge check`.

use super::{Exit, say};
use crate::config::Config;
use crate::types::ByteSize;
use std::io::Write;
use std::path::Path;

/// Loads a configuration; prints a line about it, or all its problems.
pub(super) fn run(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    match Config::load(path) {
        Ok(config) => {
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
