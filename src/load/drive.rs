//! Drives the load: who sends when, and for how long.

use super::client::{Connection, Place, Protocol};
use super::measure::{Failure, Interval, Recorder, Sample, Tier};
use super::report::{Point, Report};
use super::workload::{Asked, Workload, chance};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Empty;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rustls::ClientConfig;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

/// How often what was counted is collected and shown.
pub const TICK: Duration = Duration::from_secs(1);
/// How late a timer may be by itself: tokio's has a grain of a millisecond. A request that is later than this is late because
/// no connection was free, and its waiting counts.
const TIMER_GRAIN: Duration = Duration::from_millis(2);
/// A year: what is due later is due never.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;
/// Objects whose validators are kept for conditional requests.
const MAX_VALIDATORS: usize = 1 << 20;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Model {
    /// Closed: each connection sends the next request when it has the answer to the last and has waited `think`.
    Closed {
        /// The pause.
        think: Duration,
    },
    /// Open: so many a second, come what may. A response time begins when its request was due, so that a server which stalls
    /// is charged for all who wait meanwhile (no coordinated omission).
    Open {
        /// Requests a second.
        rate: f64,
    },
    /// Open, at the times of a log.
    Replay,
}

/// A run.
pub struct Plan {
    /// What is asked for.
    pub workload: Workload,
    /// The nodes, for each URL: connections are dealt to them in turn.
    pub places: Vec<Vec<Place>>,
    /// For places with TLS; its ALPN names the protocol.
    pub tls: Arc<ClientConfig>,
    /// What is spoken.
    pub protocol: Protocol,
    /// When requests are sent.
    pub model: Model,
    /// Connections to each URL's nodes.
    pub connections: usize,
    /// Requests under way on each: 1 with HTTP/1.1.
    pub streams: usize,
    /// When it ends, at the latest; requests under way are waited for.
    pub duration: Option<Duration>,
    /// How many are sent, at most.
    pub requests: Option<u64>,
    /// In which load grows from nothing.
    pub ramp: Duration,
    /// How long nothing is counted.
    pub warm_up: Duration,
    /// How long a response may take.
    pub timeout: Duration,
    /// Fields of every request.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Which share of requests asks for a range, from 0 to 1.
    pub ranges: f64,
    /// How long a range is, in bytes.
    pub range_length: u64,
    /// Which share of requests is conditional, from 0 to 1.
    pub conditional: f64,
    /// Which share of the catalogue is replaced in a minute.
    pub shift: f64,
    /// The same makes the same choices.
    pub seed: u64,
    /// Of the process.
    pub threads: usize,
}

/// What all tasks share.
struct Run {
    plan: Plan,
    recorder: Recorder,
    /// By URL and connection.
    connections: Vec<Vec<Connection>>,
    begun: Instant,
    issued: AtomicU64,
    /// Of those which were late since all connections were busy.
    backlogged: AtomicU64,
    ended: AtomicBool,
    wake: Notify,
    validators: Mutex<HashMap<(usize, String), HeaderValue>>,
    /// What was said of the first failure of each kind.
    reasons: Mutex<BTreeMap<Failure, String>>,
}

/// Loads as planned; `progress` is told each second's figures. Ends early once `stop` is done.
pub async fn run(plan: Plan, mut progress: impl FnMut(&Point, Duration), stop: impl Future<Output = ()>) -> Report {
    let tasks = plan.connections * plan.streams;
    let (threads, protocol) = (plan.threads, plan.protocol);
    let connection = |place: &Place| Connection::new(place.clone(), protocol, Arc::clone(&plan.tls));
    let dealt = |places: &Vec<Place>| places.iter().cycle().take(plan.connections).map(connection).collect();
    let connections = plan.places.iter().map(dealt).collect();
    let run = Arc::new(Run {
        recorder: Recorder::new(threads),
        connections,
        begun: Instant::now(),
        issued: AtomicU64::new(0),
        backlogged: AtomicU64::new(0),
        ended: AtomicBool::new(false),
        wake: Notify::new(),
        validators: Mutex::default(),
        reasons: Mutex::default(),
        plan,
    });
    let mut workers = JoinSet::new();
    for task in 0..tasks {
        workers.spawn(work(Arc::clone(&run), task, tasks));
    }
    let (mut total, mut points, mut second) = (Interval::default(), Vec::new(), Interval::default());
    let mut random = SmallRng::seed_from_u64(run.plan.seed ^ 1);
    let (mut ticks, mut due) = (tokio::time::interval(TICK), 0.0);
    ticks.tick().await;
    tokio::pin!(stop);
    let mut stopped = false;
    loop {
        tokio::select! {
            () = &mut stop, if !stopped => {
                stopped = true;
                run.end();
            }
            _ = ticks.tick() => {
                due += run.plan.shift / 60.0 * run.plan.workload.objects().unwrap_or(0) as f64 * TICK.as_secs_f64();
                run.plan.workload.shift(due as u64, &mut random);
                due = due.fract();
                points.extend(collect(&run, &mut second, &mut total, &mut progress));
            }
            joined = workers.join_next() => if joined.is_none() { break },
        }
    }
    points.extend(collect(&run, &mut second, &mut total, &mut progress));
    let measured = run.begun.elapsed().saturating_sub(run.plan.warm_up);
    let mut report = Report::of(total, measured);
    report.points = points;
    report.connections = run.connections.iter().flatten().map(Connection::made).sum();
    report.reasons = std::mem::take(&mut *run.reasons.lock());
    report.backlogged = run.backlogged.load(Ordering::Relaxed);
    report
}

/// The figures since the last time, if there are any.
fn collect(
    run: &Run,
    second: &mut Interval,
    total: &mut Interval,
    progress: &mut impl FnMut(&Point, Duration),
) -> Option<Point> {
    run.recorder.collect(second);
    let elapsed = run.begun.elapsed();
    let point = Point::of(second, elapsed.saturating_sub(run.plan.warm_up));
    progress(&point, elapsed);
    total.join(second);
    let counted = second.requests() > 0;
    second.clear();
    counted.then_some(point)
}

async fn work(run: Arc<Run>, task: usize, tasks: usize) {
    let plan = &run.plan;
    let mut random = SmallRng::seed_from_u64(plan.seed.wrapping_add(task as u64 + 2));
    if let Model::Closed { .. } = plan.model {
        run.until(run.begun + plan.ramp.mul_f64(task as f64 / tasks as f64)).await;
    }
    while let Some((asked, due)) = run.next(&mut random) {
        let mut from = Instant::now();
        if let Some(due) = due {
            if !run.until(due).await {
                break;
            }
            let now = Instant::now();
            if now.saturating_duration_since(due) > TIMER_GRAIN {
                run.backlogged.fetch_add(1, Ordering::Relaxed);
                from = due;
            } else {
                from = now;
            }
        }
        let sample = run.exchange(task, asked, from, &mut random).await;
        if from >= run.begun + plan.warm_up {
            run.recorder.add(task, &sample);
        }
        if sample.outcome == Err(Failure::Connect) {
            // A node that is gone refuses at once: asking again without end would only measure that.
            run.until(Instant::now() + Duration::from_millis(100)).await;
        }
        if let Model::Closed { think } = plan.model
            && !think.is_zero()
        {
            run.until(Instant::now() + think).await;
        }
    }
}

impl Run {
    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.wake.notify_waiters();
    }

    fn has_ended(&self) -> bool {
        let over = self.plan.duration.is_some_and(|duration| self.begun.elapsed() >= duration);
        over || self.ended.load(Ordering::Relaxed)
    }

    /// Waits; `false` if the run ends before that.
    async fn until(&self, moment: Instant) -> bool {
        let woken = self.wake.notified();
        if self.ended.load(Ordering::Relaxed) {
            return false;
        }
        let last = self.plan.duration.map(|duration| self.begun + duration);
        if last.is_some_and(|last| moment >= last) {
            return false;
        }
        tokio::select! {
            () = sleep_until(moment.into()) => true,
            () = woken => false,
        }
    }

    /// The next request and when it is due.
    fn next(&self, random: &mut SmallRng) -> Option<(Asked, Option<Instant>)> {
        if self.has_ended() {
            return None;
        }
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        if self.plan.requests.is_some_and(|requests| number >= requests) {
            return None;
        }
        let asked = self.plan.workload.next(random)?;
        let due = match self.plan.model {
            Model::Closed { .. } => None,
            Model::Open { rate } => Some(self.begun + due_after(number, rate, self.plan.ramp)),
            Model::Replay => asked.at.map(|at| self.begun + at),
        };
        Some((asked, due))
    }

    async fn exchange(&self, task: usize, asked: Asked, from: Instant, random: &mut SmallRng) -> Sample {
        let connections = &self.connections[asked.template];
        let connection = &connections[task % connections.len()];
        let is_conditional = chance(self.plan.conditional, random);
        let answer = match self.request(&asked, is_conditional, random) {
            Ok(request) => match timeout(self.plan.timeout, connection.exchange(request)).await {
                Ok(answer) => answer,
                Err(_) => Err((Failure::Timeout, format!("no whole response within {:?}", self.plan.timeout))),
            },
            // A log may tell of hosts that are none.
            Err(error) => Err((Failure::Broken, format!("{}: {error}", asked.target))),
        };
        let latency = from.elapsed();
        match answer {
            Ok(answer) => {
                if self.plan.conditional > 0.0
                    && let Some(etag) = answer.etag
                {
                    let mut validators = self.validators.lock();
                    if validators.len() < MAX_VALIDATORS {
                        validators.insert((asked.template, asked.target), etag);
                    }
                }
                Sample { latency, bytes: answer.bytes, tier: answer.tier, outcome: Ok(answer.status) }
            }
            Err((failure, why)) => {
                self.reasons.lock().entry(failure).or_insert(why);
                Sample { latency, bytes: 0, tier: Tier::Unknown, outcome: Err(failure) }
            }
        }
    }

    fn request(&self, asked: &Asked, conditional: bool, random: &mut SmallRng) -> http::Result<Request<Empty<Bytes>>> {
        let template = &self.plan.workload.templates()[asked.template];
        let host = asked.host.as_deref().unwrap_or(&template.authority);
        let method = if asked.head { Method::HEAD } else { Method::GET };
        let mut request = Request::builder().method(method);
        request = match self.plan.protocol {
            Protocol::Http1 => request.uri(&asked.target).header(header::HOST, host),
            Protocol::Http2 => {
                let scheme = if template.tls { "https" } else { "http" };
                request.uri(format!("{scheme}://{host}{}", asked.target))
            }
        };
        if !self.plan.fields.iter().any(|(name, _)| name == header::USER_AGENT) {
            request = request.header(header::USER_AGENT, concat!("selvedge-load/", env!("CARGO_PKG_VERSION")));
        }
        for (name, value) in &self.plan.fields {
            request = request.header(name, value);
        }
        if conditional && let Some(etag) = self.validators.lock().get(&(asked.template, asked.target.clone())) {
            request = request.header(header::IF_NONE_MATCH, etag);
        } else if chance(self.plan.ranges, random) {
            let length = self.plan.range_length.max(1);
            let room = asked.size.map_or(0, |size| size.saturating_sub(length));
            let first = random.random_range(0..=room);
            request = request.header(header::RANGE, format!("bytes={first}-{}", first + length - 1));
        }
        request.body(Empty::new())
    }
}

/// When the request of this number is due: while load grows, the rate rises in proportion to time.
fn due_after(number: u64, rate: f64, ramp: Duration) -> Duration {
    let (number, ramp) = (number as f64, ramp.as_secs_f64());
    // So many come while it grows: the area of a triangle.
    let growing = rate * ramp / 2.0;
    let seconds = if number < growing { (2.0 * ramp * number / rate).sqrt() } else { ramp + (number - growing) / rate };
    Duration::from_secs_f64(seconds.min(MAX_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_rate_is_constant() {
        assert_eq!(due_after(0, 100.0, Duration::ZERO), Duration::ZERO);
        assert_eq!(due_after(250, 100.0, Duration::ZERO), Duration::from_millis(2500));
    }

    #[test]
    fn half_as_many_come_while_the_rate_grows() {
        let ramp = Duration::from_secs(10);
        // 500 of the 1000 that full load would bring; a quarter of them in the first half.
        assert_eq!(due_after(500, 100.0, ramp), ramp);
        assert_eq!(due_after(125, 100.0, ramp), Duration::from_secs(5));
        assert_eq!(due_after(600, 100.0, ramp), Duration::from_secs(11));
    }
}
