//! The report as a page: one file, nothing fetched, nothing run.

use super::chart::{Axis, Series, chart, escape};
use super::{QUANTILES, Report, share, short};
use indicatif::HumanBytes;
use std::fmt::Write as _;
use std::time::Duration;

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1b1f24;--soft:#667;--line:#d7dbe0;--back:#fff}\
@media(prefers-color-scheme:dark){:root{--text:#e6e8eb;--soft:#99a;--line:#3a3f46;--back:#16181c}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:900px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
td,th{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;font-variant-numeric:tabular-nums}\
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto;margin:.6rem 0}\
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg .title{font-weight:600;fill:var(--text)}\
svg .grid{stroke:var(--line)}.bad{color:#c62828}.good{color:#2e7d32}code{font-size:.9em;overflow-wrap:anywhere}\
.bar{display:flex;height:18px;border-radius:4px;overflow:hidden;margin:.6rem 0}";
/// Of tiers, in their order.
const COLOURS: [&str; 6] = ["#2e7d32", "#1565c0", "#00838f", "#f9a825", "#c62828", "#757575"];

/// A page about a run: what was asked for in `command`, and what became of the thresholds (text, and what it was if it
/// was missed).
pub fn html(report: &Report, command: &str, thresholds: &[(String, Option<String>)]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>selvedge load</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\
         <h1>Load test</h1><p><code>{}</code></p>",
        escape(command)
    );
    figures(report, &mut page);
    if !thresholds.is_empty() {
        page.push_str("<h2>Thresholds</h2><table>");
        for (text, missed) in thresholds {
            let (class, outcome) = match missed {
                Some(missed) => ("bad", format!("missed: {missed}")),
                None => ("good", "kept".to_owned()),
            };
            let _ = write!(page, "<tr><td>{}</td><td class=\"{class}\">{}</td></tr>", escape(text), escape(&outcome));
        }
        page.push_str("</table>");
    }
    tiers(report, &mut page);
    over_time(report, &mut page);
    times(report, &mut page);
    page.push_str("</body></html>\n");
    page
}

fn figures(report: &Report, page: &mut String) {
    let counts = &report.counts;
    let seconds = report.elapsed.as_secs_f64().max(1e-9);
    let statuses: Vec<_> = counts.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    let failures: Vec<_> = counts.failures.iter().map(|(kind, count)| format!("{}: {count}", kind.as_str())).collect();
    let rows = [
        ("Requests", format!("{} in {seconds:.1} s", report.requests())),
        ("Answers a second", format!("{:.0}", report.rate())),
        ("Content a second", HumanBytes((counts.bytes as f64 / seconds) as u64).to_string()),
        ("Errors", format!("{} ({:.3} %)", counts.errors(), report.error_ratio() * 100.0)),
        ("Without an answer", if failures.is_empty() { "0".to_owned() } else { failures.join(", ") }),
        ("Status", statuses.join(", ")),
        ("Connections made", report.connections.to_string()),
        ("Waited for a free connection", report.backlogged.to_string()),
    ];
    page.push_str("<table>");
    for (name, value) in rows {
        let _ = write!(page, "<tr><td>{name}</td><td>{}</td></tr>", escape(&value));
    }
    page.push_str("</table>");
}

fn tiers(report: &Report, page: &mut String) {
    let (hits, bytes) = (report.hit_ratio() * 100.0, report.byte_hit_ratio() * 100.0);
    let _ = write!(page, "<h2>Who answered</h2><p>{hits:.2} % of answers and {bytes:.2} % of bytes are hits.</p>");
    page.push_str("<div class=\"bar\">");
    for (tier, count, _) in report.tiers() {
        let (part, colour) = (share(count, report.answered()) * 100.0, COLOURS[tier as usize]);
        let _ = write!(page, "<div style=\"width:{part:.3}%;background:{colour}\" title=\"{}\"></div>", tier.as_str());
    }
    page.push_str("</div><table><tr><th>Tier</th><th>Answers</th><th>Share</th><th>Content</th></tr>");
    for (tier, count, bytes) in report.tiers() {
        let (part, bytes, colour) =
            (share(count, report.answered()) * 100.0, HumanBytes(bytes), COLOURS[tier as usize]);
        let _ = write!(
            page,
            "<tr><td><span style=\"color:{colour}\">■</span> {}</td><td>{count}</td><td>{part:.2} %</td><td>{bytes}</td></tr>",
            tier.as_str()
        );
    }
    page.push_str("</table>");
}

fn over_time(report: &Report, page: &mut String) {
    let line = |name, colour, of: &dyn Fn(&super::Point) -> f64| Series {
        name,
        colour,
        points: report.points.iter().map(|point| (point.at, of(point))).collect(),
    };
    let whole = |value: f64| if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    let time = |us: f64| short(Duration::from_secs_f64(us / 1e6));
    let percent = |value: f64| format!("{value:.0} %");
    let x = Axis { title: "seconds", show: &whole, log: false };
    page.push_str("<h2>Over time</h2>");
    page.push_str(&chart(
        &x,
        &Axis { title: "requests and errors, each second", show: &whole, log: false },
        &[
            line("requests", "#1565c0", &|point| point.requests as f64),
            line("errors", "#c62828", &|point| point.errors as f64),
        ],
    ));
    page.push_str(&chart(
        &x,
        &Axis { title: "response time", show: &time, log: true },
        &[
            line("p99", "#ef6c00", &|point| point.p99_us.max(1) as f64),
            line("p50", "#2e7d32", &|point| point.p50_us.max(1) as f64),
        ],
    ));
    page.push_str(&chart(
        &x,
        &Axis { title: "hits, of all requests", show: &percent, log: false },
        &[line("hits", "#2e7d32", &|point| share(point.hits, point.requests) * 100.0)],
    ));
}

fn times(report: &Report, page: &mut String) {
    page.push_str("<h2>Response times</h2><table><tr><th>Within</th><th>Time</th></tr>");
    let _ = write!(page, "<tr><td>mean</td><td>{}</td></tr>", short(report.latency.mean()));
    for (name, quantile) in QUANTILES {
        let _ = write!(page, "<tr><td>{name}</td><td>{}</td></tr>", short(report.latency.quantile(quantile)));
    }
    page.push_str("</table>");
    // The nearer to all, the wider: 1 / (1 - share) rises by decades.
    let points = report.latency.curve().into_iter().filter(|(share, _)| *share < 1.0);
    let points = points.map(|(share, time)| (1.0 / (1.0 - share), time.as_secs_f64() * 1e6)).collect();
    let share = |odds: f64| if odds <= 1.0 { "0 %".to_owned() } else { format!("{} %", 100.0 - 100.0 / odds) };
    let time = |us: f64| short(Duration::from_secs_f64(us / 1e6));
    page.push_str(&chart(
        &Axis { title: "share of requests", show: &share, log: true },
        &Axis { title: "answered within", show: &time, log: true },
        &[Series { name: "time", colour: "#1565c0", points }],
    ));
}
