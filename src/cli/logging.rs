//! Log lines on standard error.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

const VARIABLE: &str = "SELVEDGE_LOG";
/// Of the proxy core's own lines, those that each client who leaves and each failed request would write are left out: the
/// access log has them with all their fields. pingora-cache wants a dictionary for compressing heads and warns once that it
/// has none; none is needed here.
const DEFAULT: &str = "info,pingora_proxy::proxy_cache=off,pingora_cache::meta=error";

/// Sends log events to standard error as text, those that `SELVEDGE_LOG` names (tracing-subscriber's `EnvFilter`
/// syntax), by default nearly all from `info` up. Does nothing if a subscriber is there already.
pub(super) fn init() {
    let (filter, ignored) = filter(std::env::var(VARIABLE).ok());
    // `try_init` also takes in what crates below write through `log`.
    let installed = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish()
        .try_init();
    if installed.is_err() {
        return;
    }
    if let Some(error) = ignored {
        tracing::warn!(%error, default = DEFAULT, "{VARIABLE} is not a filter; using the default");
    }
}

/// The filter a text asks for, and the error where the default had to stand in for it.
fn filter(text: Option<String>) -> (EnvFilter, Option<String>) {
    let text = text.filter(|text| !text.trim().is_empty());
    match EnvFilter::try_new(text.as_deref().unwrap_or(DEFAULT)) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_filter_falls_back_to_the_default_and_is_reported() {
        for (text, stands_for, broken) in [
            (None, DEFAULT, false),
            (Some(" "), DEFAULT, false),
            (Some("debug"), "debug", false),
            (Some("selvedge=nonsense"), DEFAULT, true),
        ] {
            let (filter, error) = filter(text.map(str::to_owned));
            let expected = EnvFilter::new(stands_for);
            assert_eq!((filter.to_string(), error.is_some()), (expected.to_string(), broken), "{text:?}");
        }
    }
}
