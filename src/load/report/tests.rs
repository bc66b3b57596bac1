use super::*;
use crate::load::measure::Sample;

fn report() -> Report {
    let mut counts = Interval::default();
    for n in 1..=1000_u64 {
        let tier = if n % 4 == 0 { Tier::Origin } else { Tier::Memory };
        counts.add(&Sample { latency: Duration::from_micros(n * 10), bytes: 2048, tier, outcome: Ok(200) });
    }
    let failed = Err(Failure::Timeout);
    counts.add(&Sample { latency: Duration::from_secs(1), bytes: 0, tier: Tier::Unknown, outcome: failed });
    let mut report = Report::of(counts.clone(), Duration::from_secs(2));
    report.points = vec![Point::of(&counts, Duration::from_secs(1)), Point::of(&counts, Duration::from_secs(2))];
    report
}

#[test]
fn people_are_told_rate_hits_and_times() {
    let text = report().text();
    for line in [
        "requests  1001 in 2.0 s, 500/s answered",
        "errors    1 (0.100 %)",
        "timeout: 1",
        "status    200: 1000",
        "hits      75.00 % of answers, 75.00 % of bytes",
        "memory       75.00 %  750 (1.46 MiB)",
        "p50 5.00 ms, p90 9.01 ms",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn scripts_are_told_the_same() {
    let json = report().json();
    assert_eq!((json["requests"].as_u64(), json["errors"].as_u64()), (Some(1001), Some(1)));
    assert_eq!(
        (json["tiers"]["memory"]["requests"].as_u64(), json["statuses"]["200"].as_u64()),
        (Some(750), Some(1000))
    );
    assert!(json["latency_us"]["p99"].as_u64().is_some_and(|us| (9_850..=9_950).contains(&us)), "{json}");
    assert_eq!(json["points"].as_array().map(Vec::len), Some(2));
}

#[test]
fn the_page_is_whole_and_escapes_what_it_is_given() {
    let thresholds = [("p99<1ms".to_owned(), Some("p99<1ms: it is 9.91 ms".to_owned())), ("rate>1".to_owned(), None)];
    let page = html(&report(), "selvedge load 'http://h/?<script>'", &thresholds);
    for part in ["<!doctype html>", "&lt;script&gt;", "it is 9.91 ms", ">kept<", "99.9 %", "</html>"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script") && !page.contains("NaN") && page.matches("<svg").count() == 4);
}

#[test]
fn a_run_without_a_request_is_told_as_well() {
    let report = Report::of(Interval::default(), Duration::ZERO);
    assert!(report.text().contains("status    none"));
    assert!(!html(&report, "", &[]).contains("NaN"));
}
