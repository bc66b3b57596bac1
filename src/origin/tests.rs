use std::collections::HashMap;
use std::net::IpAddr;

use async_trait::async_trait;

use super::resolve::{Answer, Lookup, LookupError};
use super::*;

const EJECT_FOR: Duration = Duration::from_secs(10);

/// Names to the last octets of their addresses; others fail.
struct Names(HashMap<&'static str, Vec<u8>>);

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, host: &str) -> Result<Answer, LookupError> {
        let last = self.0.get(host).ok_or_else(|| LookupError::Failed("refused".to_owned()))?;
        let addresses = last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
        Ok(Answer { addresses, ttl: Duration::from_secs(3600) })
    }
}

struct Fixture {
    origin: Arc<Origin>,
    clock: Clock,
    metrics: Metrics,
}

fn http_settings(hosts: &[&str]) -> http::Settings {
    let servers = hosts.iter().map(|host| ServerAddress { host: (*host).into(), port: 80 }.into());
    http::Settings { max_fails: 1, eject_for: EJECT_FOR, ..http::Settings::of(servers) }
}

fn names() -> Names {
    Names(HashMap::from([("a", vec![1]), ("b", vec![2]), ("three", vec![3, 4, 5])]))
}

fn fixture(hosts: &[&str]) -> Fixture {
    fixture_of(http_settings(hosts))
}

fn fixture_of(settings: http::Settings) -> Fixture {
    let (clock, metrics) = (Clock::adjustable(), Metrics::new());
    let resolver = Resolver::with_lookup(names(), clock.clone());
    let origin = Origin::build("o", &Settings::Http(settings), resolver, clock.clone(), &metrics).unwrap();
    Fixture { origin, clock, metrics }
}

impl Fixture {
    async fn pick(&self, tried: &[ServerId]) -> Result<Picked, PickError> {
        self.origin.pick(&Ask { tried: tried.to_vec(), ..Ask::default() }).await
    }

    /// The same origin with other settings.
    fn reload(&mut self, settings: http::Settings) -> Arc<Origin> {
        let resolver = Resolver::with_lookup(names(), self.clock.clone());
        let parts = (resolver, self.clock.clone());
        let next =
            Origin::build_after(Some(&self.origin), "o", &Settings::Http(settings), parts, &self.metrics).unwrap();
        self.origin.retire(Some(&next));
        next.begin();
        std::mem::replace(&mut self.origin, next)
    }

    /// The last octets of the next `n` picks, one after the other.
    async fn next(&self, n: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..n {
            out.push(last(&self.pick(&[]).await.unwrap()));
        }
        out
    }

    /// The next picks until one of each of `of` is held.
    async fn hold(&self, of: u8) -> Picked {
        for _ in 0..20 {
            let picked = self.pick(&[]).await.unwrap();
            if last(&picked) == of {
                return picked;
            }
        }
        panic!("{of} is not picked");
    }

    async fn fail(&self, of: u8) {
        self.hold(of).await.lease.failed();
    }

    fn up(&self, server: &str) -> i64 {
        self.metrics.origin_server_up.with_label_values(&["o", server]).get()
    }

    fn states(&self) -> Vec<&'static str> {
        self.origin.status().servers.iter().map(|server| server.state.as_str()).collect()
    }
}

fn last(picked: &Picked) -> u8 {
    let IpAddr::V4(address) = picked.address.ip() else { panic!("not an IPv4 address") };
    address.octets()[3]
}

fn answered(picked: &Picked) {
    picked.lease.answered(200, Duration::from_millis(10));
}

#[tokio::test]
async fn servers_take_turns() {
    let fixture = fixture(&["a", "b", "192.0.2.9"]);
    assert_eq!(fixture.next(6).await, [1, 2, 9, 1, 2, 9]);
}

#[tokio::test]
async fn addresses_of_a_server_take_turns() {
    let fixture = fixture(&["three"]);
    assert_eq!(fixture.next(6).await, [3, 4, 5, 3, 4, 5]);
}

#[tokio::test]
async fn a_retry_goes_elsewhere_until_all_were_tried() {
    let fixture = fixture(&["a", "three"]);
    let mut tried = Vec::new();
    for _ in 0..4 {
        let picked = fixture.pick(&tried).await.unwrap();
        assert!(!tried.contains(&picked.server));
        assert_eq!(picked.peer._address.as_inet(), Some(&picked.address));
        tried.push(picked.server);
    }
    assert_eq!(fixture.pick(&tried).await.unwrap_err(), PickError::Exhausted);
}

#[tokio::test]
async fn an_ejected_server_is_left_out_and_probed_when_its_time_is_over() {
    let fixture = fixture(&["a", "b"]);
    fixture.next(2).await;
    fixture.fail(1).await;
    assert_eq!((fixture.up("a:80"), fixture.up("b:80")), (0, 1));
    assert_eq!(fixture.next(4).await, [2, 2, 2, 2]);
    fixture.clock.advance(EJECT_FOR, true);
    let probe = fixture.hold(1).await;
    assert_eq!(fixture.next(4).await, [2, 2, 2, 2]);
    assert_eq!(fixture.up("a:80"), 0);
    assert_eq!(fixture.states(), ["probing", "up"]);
    answered(&probe);
    assert_eq!(fixture.up("a:80"), 1);
    let mut both = fixture.next(2).await;
    both.sort_unstable();
    assert_eq!(both, [1, 2]);
}

#[tokio::test]
async fn if_all_are_ejected_all_are_used() {
    let fixture = fixture(&["a", "b"]);
    fixture.fail(1).await;
    fixture.fail(2).await;
    let picks = fixture.next(4).await;
    assert!(picks.contains(&1) && picks.contains(&2), "{picks:?}");
    let first = fixture.pick(&[]).await.unwrap().server;
    let second = fixture.pick(&[first]).await.unwrap().server;
    assert_ne!(first, second);
    assert_eq!(fixture.pick(&[first, second]).await.unwrap_err(), PickError::Exhausted);
    // One that answers in spite of it is back, and then the other one is left out again.
    answered(&fixture.hold(1).await);
    assert_eq!(fixture.next(3).await, [1, 1, 1]);
}

#[tokio::test]
async fn with_a_panic_threshold_a_few_survivors_are_not_flooded() {
    let mut settings = http_settings(&["a", "b", "192.0.2.9"]);
    settings.health.panic = 50;
    let fixture = fixture_of(settings);
    fixture.fail(1).await;
    assert!(!fixture.next(6).await.contains(&1));
    fixture.fail(2).await;
    let picks = fixture.next(6).await;
    assert!([1, 2, 9].iter().all(|n| picks.contains(n)), "{picks:?}");
}

#[tokio::test]
async fn an_ejected_server_is_no_refuge_for_a_retry() {
    let fixture = fixture(&["a", "b"]);
    fixture.fail(1).await;
    let healthy = fixture.pick(&[]).await.unwrap().server;
    assert_eq!(fixture.pick(&[healthy]).await.unwrap_err(), PickError::Exhausted);
}

#[tokio::test]
async fn one_bad_address_does_not_take_its_server_down() {
    let fixture = fixture(&["three"]);
    fixture.fail(4).await;
    assert_eq!(fixture.up("three:80"), 1);
    assert!(!fixture.next(6).await.contains(&4));
    fixture.fail(3).await;
    fixture.fail(5).await;
    assert_eq!(fixture.up("three:80"), 0);
}

#[tokio::test]
async fn a_status_that_counts_as_failure_ejects() {
    let mut settings = http_settings(&["a", "b"]);
    settings.health.fail_statuses = vec![503];
    let fixture = fixture_of(settings);
    fixture.hold(1).await.lease.answered(500, Duration::ZERO);
    assert_eq!(fixture.states(), ["up", "up"]);
    fixture.hold(1).await.lease.answered(503, Duration::ZERO);
    assert_eq!(fixture.states(), ["ejected", "up"]);
}

#[tokio::test]
async fn weights_backups_and_draining_decide_together() {
    let mut settings = http_settings(&["a", "b", "three"]);
    settings.servers[0].weight = 3;
    settings.servers[2].backup = true;
    let mut fixture = fixture_of(settings.clone());
    let picks = fixture.next(8).await;
    assert_eq!(picks.iter().filter(|n| **n == 1).count(), 6, "{picks:?}");
    let first = fixture.hold(1).await.server;
    let second = fixture.hold(2).await.server;
    assert!(last(&fixture.pick(&[first, second]).await.unwrap()) >= 3);
    settings.servers[0].drain = true;
    fixture.reload(settings);
    assert_eq!(fixture.next(3).await, [2, 2, 2]);
    assert_eq!(fixture.states()[..2], ["draining", "up"]);
}

#[tokio::test]
async fn requests_are_counted_as_long_as_they_are_held_and_over_a_reload() {
    let mut settings = http_settings(&["a", "192.0.2.9"]);
    settings.balance = Algorithm::LeastConnections;
    let mut fixture = fixture_of(settings.clone());
    let in_flight = |fixture: &Fixture| -> Vec<usize> {
        fixture.origin.status().servers.iter().map(|server| server.in_flight).collect()
    };
    let held = fixture.hold(1).await;
    assert_eq!(fixture.next(3).await, [9, 9, 9]);
    settings.slow_start = Duration::from_secs(10);
    settings.servers.push(ServerAddress { host: "b".into(), port: 80 }.into());
    fixture.fail(9).await;
    let old = fixture.reload(settings);
    fixture.next(1).await;
    assert_eq!(in_flight(&fixture), [1, 0, 0]);
    assert_eq!(fixture.states(), ["up", "ejected", "starting"]);
    let gauge = fixture.metrics.origin_server_in_flight.with_label_values(&["o", "a:80"]);
    assert_eq!(gauge.get(), 1);
    drop((held, old));
    assert_eq!((in_flight(&fixture), gauge.get()), (vec![0, 0, 0], 0));
    fixture.clock.advance(Duration::from_secs(9), true);
    fixture.clock.advance(Duration::from_secs(2), true);
    assert_eq!(fixture.states()[2], "up");
}

#[tokio::test]
async fn what_a_removed_server_counted_is_told_no_more() {
    let mut fixture = fixture(&["a", "b"]);
    fixture.reload(http_settings(&["b"]));
    let text = String::from_utf8(fixture.metrics.render()).unwrap();
    assert!(!text.contains("a:80") && text.contains("b:80"), "{text}");
}

fn limited(most: u32, queue: u32) -> http::Settings {
    let mut settings = http_settings(&["a", "b"]);
    (settings.limits.max_connections, settings.limits.queue) = (most, queue);
    settings
}

#[tokio::test]
async fn who_finds_no_room_waits_in_turn() {
    let fixture = fixture_of(limited(1, 2));
    let held = [fixture.pick(&[]).await.unwrap(), fixture.pick(&[]).await.unwrap()];
    let ask = Ask::default();
    let (mut first, mut second) = (Box::pin(fixture.origin.pick(&ask)), Box::pin(fixture.origin.pick(&ask)));
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    assert_eq!(fixture.pick(&[]).await.unwrap_err(), PickError::QueueFull);
    assert_eq!(fixture.origin.status().waiting, 2);
    let [one, two] = held;
    let freed = one.server;
    drop(one);
    assert!(futures::poll!(&mut second).is_pending());
    let granted = first.await.unwrap();
    assert_eq!(granted.server, freed);
    // Who gives up leaves the place to others.
    drop(second);
    assert_eq!(fixture.origin.status().waiting, 0);
    let freed = two.server;
    drop(two);
    assert_eq!(fixture.pick(&[]).await.unwrap().server, freed);
    drop(granted);
    assert_eq!(fixture.origin.status().servers.iter().map(|s| s.in_flight).sum::<usize>(), 0);
}

#[tokio::test]
async fn a_grant_to_someone_who_has_left_goes_to_the_next() {
    let fixture = fixture_of(limited(1, 9));
    let held = [fixture.pick(&[]).await.unwrap(), fixture.pick(&[]).await.unwrap()];
    let ask = Ask::default();
    let (mut first, mut second) = (Box::pin(fixture.origin.pick(&ask)), Box::pin(fixture.origin.pick(&ask)));
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    let [one, _two] = held;
    drop(one);
    // It was granted its place, and never looked.
    drop(first);
    second.await.unwrap();
}

#[tokio::test]
async fn those_who_wait_get_what_the_requests_before_a_reload_give_back() {
    let mut fixture = fixture_of(limited(1, 9));
    let held = [fixture.pick(&[]).await.unwrap(), fixture.pick(&[]).await.unwrap()];
    let old = fixture.reload(limited(1, 8));
    let ask = Ask::default();
    let mut waiting = Box::pin(fixture.origin.pick(&ask));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(held);
    waiting.await.unwrap();
    drop(old);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let fixture = fixture_of(limited(1, 9));
    let _held = [fixture.pick(&[]).await.unwrap(), fixture.pick(&[]).await.unwrap()];
    assert_eq!(fixture.pick(&[]).await.unwrap_err(), PickError::QueueTimeout);
    let text = String::from_utf8(fixture.metrics.render()).unwrap();
    assert!(text.contains(r#"selvedge_origin_queue_rejected_total{origin="o",reason="timeout"} 1"#), "{text}");
    assert!(text.contains(r#"selvedge_origin_queued{origin="o"} 0"#), "{text}");
}

#[tokio::test]
async fn retries_end_with_their_budget() {
    let mut settings = http_settings(&["a"]);
    (settings.limits.retry_percent, settings.limits.retry_per_second) = (50, 0);
    let fixture = fixture_of(settings);
    assert!(!fixture.origin.may_retry());
    fixture.next(4).await;
    assert_eq!([(); 4].map(|()| fixture.origin.may_retry()), [true, true, false, false]);
}

#[tokio::test]
async fn a_server_that_does_not_resolve_is_passed_over() {
    assert_eq!(fixture(&["gone", "a"]).next(3).await, [1, 1, 1]);
    let error = fixture(&["gone"]).pick(&[]).await.unwrap_err();
    assert_eq!(error.as_str(), "dns_error");
}

#[tokio::test]
async fn errors_and_latency_are_counted_under_the_origins_name() {
    let fixture = fixture(&["a"]);
    fixture.origin.count_error("connection_refused");
    fixture.origin.observe_head(Duration::from_millis(20));
    let text = String::from_utf8(fixture.metrics.render()).unwrap();
    assert!(text.contains(r#"selvedge_origin_errors_total{kind="connection_refused",origin="o"} 1"#), "{text}");
    assert!(text.contains(r#"selvedge_origin_seconds_count{origin="o"} 1"#), "{text}");
    assert!(text.contains(r#"selvedge_origin_server_up{origin="o",server="a:80"} 1"#), "{text}");
}

#[tokio::test]
async fn an_origin_may_be_without_servers_for_a_while() {
    assert_eq!(fixture(&[]).pick(&[]).await.unwrap_err(), PickError::Exhausted);
}

#[tokio::test]
async fn what_cannot_be_reached_or_verified_is_refused() {
    let build = |settings: http::Settings| {
        let resolver = Resolver::with_lookup(Names(HashMap::new()), Clock::system());
        Origin::build("o", &Settings::Http(settings), resolver, Clock::system(), &Metrics::new()).unwrap_err()
    };
    assert_eq!(build(http_settings(&["a b"])), BuildError::Server("a b".to_owned()));
    let unnamed = http::Settings { tls: true, tls_server_name: Some(String::new()), ..http_settings(&["a"]) };
    assert_eq!(build(unnamed), BuildError::Server(String::new()));
    let host = http::Settings { host: Some("a\r\nb".to_owned()), ..http_settings(&["a"]) };
    assert_eq!(build(host), BuildError::Host("a\r\nb".to_owned()));
}

#[tokio::test]
async fn checks_end_when_the_origin_is_retired_and_hold_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let host = address.ip().to_string().as_str().into();
    let mut settings = http::Settings::of([ServerAddress { host, port: address.port() }.into()]);
    settings.health.check = Some(Check {
        probe: check::Probe::Tcp,
        interval: Duration::from_millis(1),
        timeout: Duration::from_secs(5),
        rise: 1,
        fall: 1,
        jitter: 100,
    });
    let fixture = fixture_of(settings);
    fixture.origin.begin();
    fixture.origin.begin();
    for _ in 0..3 {
        listener.accept().await.unwrap();
    }
    fixture.origin.retire(None);
    while Arc::strong_count(&fixture.origin.pool) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_cannot_be_repeated_does_not_find_out_whether_a_server_is_back() {
    let fixture = fixture(&["a", "b"]);
    fixture.fail(1).await;
    fixture.clock.advance(EJECT_FOR, true);
    let unrepeatable = Ask { unrepeatable: true, ..Ask::default() };
    for _ in 0..4 {
        assert_eq!(last(&fixture.origin.pick(&unrepeatable).await.unwrap()), 2);
    }
    // Where there is nobody else, it is asked all the same.
    let held = fixture.hold(2).await;
    held.lease.failed();
    fixture.clock.advance(EJECT_FOR, true);
    fixture.origin.pick(&unrepeatable).await.unwrap();
    let probes: Vec<u8> =
        [fixture.pick(&[]).await.unwrap(), fixture.pick(&[]).await.unwrap()].iter().map(last).collect();
    assert!(probes.contains(&1) && probes.contains(&2), "{probes:?}");
}

#[tokio::test]
async fn no_more_connections_are_kept_than_are_wanted() {
    let fixture = fixture_of(http::Settings { max_idle: Some(2), ..http_settings(&["a"]) });
    let picked = [fixture.pick(&[]).await, fixture.pick(&[]).await, fixture.pick(&[]).await].map(Result::unwrap);
    let kept = |picked: &Picked| picked.peer.options.idle_timeout != Some(NOT_AT_ALL);
    assert_eq!(picked.each_ref().map(kept), [true, true, false]);
    drop(picked);
    assert!(kept(&fixture.pick(&[]).await.unwrap()));
}
