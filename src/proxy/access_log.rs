//! One event per request, written off the request path.

use std::path::PathBuf;

/// Where access events go and how they look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How an event is written.
    pub format: Format,
    /// Where to.
    pub output: Output,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// The NCSA combined format, with cache status, tier, times and request id appended.
    Combined,
    /// No access log.
    Off,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to, reopened on SIGHUP (log rotation).
    File(PathBuf),
}
