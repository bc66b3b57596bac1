//! The load generators, wrk for HTTP/1.1 and h2load for HTTP/2, and what they report.

use crate::peers::{CIPHER, Lab, Peer};
use crate::process::waited_ticks;
use crate::{Doing, Failure, Outcome, Protocol, Size};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Requests in flight, whatever the protocol.
pub const IN_FLIGHT: u32 = 64;
/// Over HTTP/2: connections, and streams of each. More streams would leave more of the large answers half sent when time is up.
pub const H2_CONNECTIONS: u32 = 16;
pub const H2_STREAMS: u32 = IN_FLIGHT / H2_CONNECTIONS;

/// One measurement of one server.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Completed requests per second.
    pub rate: f64,
    /// The server's CPU microseconds for each completed request.
    pub cpu_us: f64,
    /// Median and 99th percentile of a request's duration, in microseconds.
    pub p50_us: u64,
    pub p99_us: u64,
    pub requests: u64,
    /// How much of its core the server used, and the generator of its own: 1 is all of it.
    pub server_busy: f64,
    pub generator_busy: f64,
}

/// Loads a warm server and fails unless every request was answered with 200 from its cache.
pub fn measure(lab: &Lab, peer: &Peer, protocol: Protocol, size: Size, seconds: u64) -> Outcome<Sample> {
    let origin_before = lab.origin_requests()?;
    let (server_before, generator_before, start) = (peer.cpu_ticks()?, waited_ticks(), Instant::now());
    let load = match protocol {
        Protocol::H1 | Protocol::Https => wrk(lab, peer, protocol, size, seconds),
        Protocol::H2 => h2load(lab, peer, size, seconds),
    };
    let elapsed = start.elapsed().as_secs_f64();
    let used = |ticks: u64| ticks as f64 / lab.ticks_a_second as f64;
    let server = used(peer.cpu_ticks()?.saturating_sub(server_before));
    let generator = used(waited_ticks().saturating_sub(generator_before));
    let load = load.map_err(|problem| {
        let (path, protocol) = (size.path(), protocol.as_str());
        peer.failure(format!("under load for {path} over {protocol}: {problem}"))
    })?;
    let fetched = lab.origin_requests()? - origin_before;
    if fetched > 0 {
        return Err(peer.failure(format!("asked the origin {fetched} times while it was measured")));
    }
    if load.requests == 0 || load.body_bytes < load.requests.saturating_mul(size.0) {
        let (requests, bytes) = (load.requests, load.body_bytes);
        return Err(peer.failure(format!("{requests} answers for {} had {bytes} bytes in all", size.path())));
    }
    Ok(Sample {
        rate: load.rate,
        cpu_us: server * 1e6 / load.requests as f64,
        p50_us: load.p50_us,
        p99_us: load.p99_us,
        requests: load.requests,
        server_busy: server / elapsed,
        generator_busy: generator / elapsed,
    })
}

/// What a generator reports of a run in which nothing went wrong.
#[derive(Debug, PartialEq)]
struct Load {
    requests: u64,
    rate: f64,
    /// At least so many bytes of bodies arrived (wrk counts heads too).
    body_bytes: u64,
    p50_us: u64,
    p99_us: u64,
}

fn wrk(lab: &Lab, peer: &Peer, protocol: Protocol, size: Size, seconds: u64) -> Result<Load, String> {
    let script = lab.path("report.lua");
    let requests = lab.objects_of(size).map(|count| requests(size, count, Order::Random)).unwrap_or_default();
    fs::write(&script, requests + WRK_REPORT).map_err(|e| format!("writing wrk's script: {e}"))?;
    let scheme = if protocol == Protocol::H1 { "http" } else { "https" };
    let mut command = lab.tools.on_cpu(lab.generator_cpu, "wrk");
    command.args(["--threads", "1", "--connections", &IN_FLIGHT.to_string(), "--duration", &format!("{seconds}s")]);
    command.args(["--timeout", "10s", "--script"]).arg(script);
    command.arg(format!("{scheme}://{}{}", peer.address(protocol), lab.path_of(size)));
    read_wrk(&run(lab, command, seconds)?)
}

/// In which order wrk asks for the objects of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Random,
    /// One after the other, from the first on.
    Rising,
}

/// The part of wrk's script that makes the requests, all of them before it starts.
fn requests(size: Size, count: u64, order: Order) -> String {
    let next = match order {
        Order::Random => "math.random(count)",
        Order::Rising => "at % count + 1",
    };
    format!(
        "local count, at, all = {count}, -1, {{}}\n\
         function init()\n  for n = 1, count do all[n] = wrk.format(\"GET\", \"/of/\" .. n - 1 .. \"{}\") end\nend\n\
         function request()\n  at = at + 1\n  return all[{next}]\nend\n",
        size.path()
    )
}

/// Has a server fetch every object of a set, until none of them reaches the origin server any more.
pub fn fetch_all(lab: &Lab, peer: &Peer, size: Size, count: u64) -> Outcome<()> {
    const TURNS: usize = 100;
    let seconds = 3 + count / 20_000;
    let script = lab.path("fetch.lua");
    fs::write(&script, requests(size, count, Order::Rising) + WRK_REPORT).doing("writing wrk's script")?;
    for _ in 0..TURNS {
        let before = lab.origin_requests()?;
        let mut command = lab.tools.on_cpu(lab.generator_cpu, "wrk");
        command.args([
            "--threads",
            "1",
            "--connections",
            "16",
            "--duration",
            &format!("{seconds}s"),
            "--timeout",
            "10s",
        ]);
        command.arg("--script").arg(&script).arg(format!("http://{}/", peer.address(Protocol::H1)));
        let done = run(lab, command, seconds).and_then(|output| read_wrk(&output));
        let load = done.map_err(|problem| peer.failure(format!("fetching the set of {size}: {problem}")))?;
        if lab.origin_requests()? == before && load.requests >= count {
            return Ok(());
        }
    }
    Err(peer.failure(format!("does not keep the set of {size}, or does not get through it in {seconds} s")))
}

fn h2load(lab: &Lab, peer: &Peer, size: Size, seconds: u64) -> Result<Load, String> {
    let log = lab.path("h2load.log");
    // It appends.
    let _ = fs::remove_file(&log);
    let mut command = lab.tools.on_cpu(lab.generator_cpu, "h2load");
    command.args(["--threads=1", &format!("--clients={H2_CONNECTIONS}")]);
    command.args([format!("--max-concurrent-streams={H2_STREAMS}"), format!("--duration={seconds}")]);
    command.arg(format!("--tls13-ciphers={CIPHER}")).arg(format!("--log-file={}", log.display()));
    command.arg(format!("https://{}{}", peer.address(Protocol::H2), size.path()));
    let output = run(lab, command, seconds)?;
    let durations = read_h2load_log(&log).map_err(|e| e.to_string())?;
    read_h2load(&output, durations)
}

fn run(lab: &Lab, mut command: Command, seconds: u64) -> Result<String, String> {
    command.env("OPENSSL_CONF", lab.openssl_config());
    let output = lab.tools.limited(seconds + 30, &command).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("the generator's {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Runs once, after wrk's last request, so it costs the measurement nothing.
const WRK_REPORT: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '@{"requests":%d,"duration_us":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"#;

#[derive(Deserialize)]
struct WrkReport {
    requests: u64,
    duration_us: u64,
    bytes: u64,
    connect: u64,
    read: u64,
    write: u64,
    status: u64,
    timeout: u64,
    p50_us: u64,
    p99_us: u64,
}

fn read_wrk(output: &str) -> Result<Load, String> {
    let line = output.lines().find_map(|line| line.strip_prefix('@'));
    let line = line.ok_or_else(|| format!("wrk wrote no summary:\n{output}"))?;
    let report: WrkReport = serde_json::from_str(line).map_err(|e| format!("wrk's summary: {e}: {line}"))?;
    let errors = report.connect + report.read + report.write + report.status + report.timeout;
    if errors > 0 || report.duration_us == 0 {
        return Err(format!("wrk counted {errors} errors: {line}"));
    }
    Ok(Load {
        requests: report.requests,
        rate: report.requests as f64 * 1e6 / report.duration_us as f64,
        body_bytes: report.bytes,
        p50_us: report.p50_us,
        p99_us: report.p99_us,
    })
}

fn read_h2load(output: &str, mut durations: Vec<u32>) -> Result<Load, String> {
    let line = |start: &str| output.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_default();
    let requests = line("requests: ");
    let statuses = line("status codes: ");
    let clean = ["failed", "errored", "timeout"].iter().all(|name| counted(requests, name) == Some(0))
        && ["3xx", "4xx", "5xx"].iter().all(|name| counted(statuses, name) == Some(0));
    if !clean || line("Application protocol: ") != "h2" || line("Cipher: ") != CIPHER {
        return Err(format!("h2load reports errors, or another protocol or cipher:\n{output}"));
    }
    let data = line("traffic: ").split(", ").find(|part| part.ends_with(" data"));
    let bytes = data.and_then(|part| part.split(['(', ')']).nth(1)).and_then(|n| n.parse().ok());
    let rate = line("finished in ").split(", ").find_map(|part| part.strip_suffix(" req/s")?.parse().ok());
    let (Some(done), Some(body_bytes), Some(rate)) = (counted(requests, "succeeded"), bytes, rate) else {
        return Err(format!("h2load's summary has changed:\n{output}"));
    };
    if durations.is_empty() {
        return Err("h2load logged no request that was answered with 200".to_owned());
    }
    let (p50, p99) = (percentile(&mut durations, 50), percentile(&mut durations, 99));
    Ok(Load { requests: done, rate, body_bytes, p50_us: p50.into(), p99_us: p99.into() })
}

/// The number before `name` in "12 total, 10 done, 0 failed".
fn counted(line: &str, name: &str) -> Option<u64> {
    line.split(", ").find_map(|part| part.strip_suffix(name)?.trim_end().parse().ok())
}

fn read_h2load_log(path: &Path) -> Outcome<Vec<u32>> {
    let reader = BufReader::with_capacity(1 << 18, File::open(path).doing("opening h2load's log")?);
    let mut durations = Vec::new();
    for line in reader.lines() {
        let line = line.doing("reading h2load's log")?;
        let (status, duration) = log_row(&line).ok_or_else(|| Failure::Wrong(format!("h2load's log has `{line}`")))?;
        if status != 200 {
            return Err(Failure::Wrong(format!("h2load's log has an answer with status {status}")));
        }
        durations.push(duration);
    }
    Ok(durations)
}

/// Status and microseconds of a row: start, status and duration with tabs between them.
fn log_row(line: &str) -> Option<(i32, u32)> {
    let mut fields = line.split('\t').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The smallest value that at least `percent` of all do not exceed; 0 of nothing.
fn percentile(values: &mut [u32], percent: usize) -> u32 {
    let rank = (values.len() * percent).div_ceil(100).max(1) - 1;
    if values.is_empty() { 0 } else { *values.select_nth_unstable(rank).1 }
}

pub fn self_test() {
    let summary = r#"@{"requests":40000,"duration_us":2000000,"bytes":52000000,"connect":0,"read":0,"write":0,"status":0,"timeout":0,"p50_us":128,"p99_us":1785}"#;
    let load = Load { requests: 40000, rate: 20000.0, body_bytes: 52_000_000, p50_us: 128, p99_us: 1785 };
    assert_eq!(read_wrk(&format!("Running 1s test\n{summary}\n")), Ok(load));
    let refused = summary.replace("\"status\":0", "\"status\":3");
    assert!(read_wrk(&refused).is_err_and(|problem| problem.contains("3 errors")));
    assert!(read_wrk("unable to connect").is_err());

    let output = "TLS Protocol: TLSv1.3\nCipher: TLS_AES_256_GCM_SHA384\nApplication protocol: h2\n\n\
        finished in 2.02s, 34120.00 req/s, 38.43MB/s\n\
        requests: 68240 total, 68880 started, 68240 done, 68240 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 68240 2xx, 0 3xx, 0 4xx, 0 5xx\n\
        traffic: 76.86MB (80594576) total, 9.05MB (9485360) headers (space savings 31.86%), 66.64MB (69877760) data\n";
    let load = Load { requests: 68240, rate: 34120.0, body_bytes: 69_877_760, p50_us: 50, p99_us: 99 };
    assert_eq!(read_h2load(output, (1..=100).rev().collect()), Ok(load));
    assert!(read_h2load(output, Vec::new()).is_err());
    assert!(read_h2load(&output.replace("0 failed", "1 failed"), vec![1]).is_err());
    assert!(read_h2load(&output.replace("0 5xx", "2 5xx"), vec![1]).is_err());
    assert!(read_h2load(&output.replace("protocol: h2", "protocol: http/1.1"), vec![1]).is_err());
    assert!(read_h2load("", vec![1]).is_err());

    assert_eq!(log_row("1795269006125569\t200\t11295"), Some((200, 11295)));
    assert_eq!(log_row("1795269006125569\t-1\t11295"), Some((-1, 11295)));
    assert_eq!(log_row("cut\t200"), None);
    assert_eq!(percentile(&mut [7], 99), 7);
    assert_eq!(percentile(&mut [4, 1, 3, 2], 50), 2);
    assert_eq!(percentile(&mut [], 50), 0);
}
