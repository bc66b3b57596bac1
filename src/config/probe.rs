//! What health checks of servers and of nodes are written with alike.

use super::reader::Value;
use std::ops::RangeInclusive;

/// Path and query that are asked for.
pub(super) fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text("\"/healthz\"")?;
    let fits = text.starts_with('/') && !text.contains('#') && text.parse::<http::uri::PathAndQuery>().is_ok();
    if !fits {
        value.problem(
            format!("`{}` is \"{}\", not a path", value.path, value.shown()),
            "write path and query as they are sent, as in \"/healthz\"",
        );
    }
    fits.then(|| text.to_owned())
}

/// `"200"` or `"200-399"`, of the statuses in `known`.
pub(super) fn statuses(value: &Value<'_>, known: RangeInclusive<u16>) -> Option<(u16, u16)> {
    let text = value.text("\"200-399\"")?;
    let (lowest, highest) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| known.contains(status));
    let range = status(lowest).zip(status(highest)).filter(|(lowest, highest)| lowest <= highest);
    if range.is_none() {
        value.problem(
            format!("`{}` is \"{}\", not a status or range of them", value.path, value.shown()),
            "write it as in \"200\" or \"200-399\"",
        );
    }
    range
}
