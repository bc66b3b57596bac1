use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

/// Answers from a list, one per permit; the last answer is repeated.
struct Script {
    answers: Mutex<VecDeque<Result<Answer, LookupError>>>,
    asked: AtomicUsize,
    permits: Semaphore,
}

struct Scripted(Arc<Script>);

#[async_trait]
impl Lookup for Scripted {
    async fn lookup(&self, _: &str) -> Result<Answer, LookupError> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.0.permits.acquire().await.unwrap().forget();
        let mut answers = self.0.answers.lock();
        match answers.len() {
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        }
    }
}

fn scripted(
    permits: usize,
    answers: impl IntoIterator<Item = Result<Answer, LookupError>>,
) -> (Arc<Resolver>, Arc<Script>, Clock) {
    let script = Arc::new(Script {
        answers: Mutex::new(answers.into_iter().collect()),
        asked: AtomicUsize::new(0),
        permits: Semaphore::new(permits),
    });
    let clock = Clock::adjustable();
    (Resolver::with_lookup(Scripted(script.clone()), clock.clone()), script, clock)
}

fn answer(last: u8, ttl: u64) -> Result<Answer, LookupError> {
    Ok(Answer { addresses: vec![IpAddr::from([192, 0, 2, last])], ttl: Duration::from_secs(ttl) })
}

fn failed() -> Result<Answer, LookupError> {
    Err(LookupError::Failed("refused".to_owned()))
}

fn address(last: u8) -> Resolved {
    Ok(Arc::from([SocketAddr::from(([192, 0, 2, last], 80))]))
}

impl Script {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn an_address_needs_no_look_up() {
    let (resolver, script, _) = scripted(0, [failed()]);
    let v4 = resolver.resolve("192.0.2.7", 80).await;
    assert_eq!(v4, address(7));
    let v6 = resolver.resolve("2001:db8::1", 443).await.unwrap();
    assert_eq!(v6[0].to_string(), "[2001:db8::1]:443");
    assert_eq!(script.asked(), 0);
}

#[tokio::test]
async fn addresses_hold_for_their_ttl_and_a_second_at_least() {
    let (resolver, script, clock) = scripted(9, [answer(1, 30), answer(2, 0), answer(3, 30)]);
    for (advance, last, asked) in [(0, 1, 1), (29, 1, 1), (2, 2, 2), (0, 2, 2), (1, 3, 3)] {
        clock.advance(Duration::from_secs(advance), true);
        assert_eq!(resolver.resolve("a.example", 80).await, address(last));
        assert_eq!(script.asked(), asked);
    }
}

#[tokio::test]
async fn a_clock_set_back_does_not_pin_addresses() {
    let (resolver, _, clock) = scripted(9, [answer(1, 30), answer(2, 30)]);
    assert_eq!(resolver.resolve("a.example", 80).await, address(1));
    clock.advance(Duration::from_secs(7200), false);
    assert_eq!(resolver.resolve("a.example", 80).await, address(2));
}

#[tokio::test]
async fn many_who_ask_share_one_look_up() {
    let (resolver, script, _) = scripted(0, [answer(1, 30)]);
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolver.resolve("a.example", 80).await })
        })
        .collect();
    while script.asked() == 0 {
        tokio::task::yield_now().await;
    }
    script.permits.add_permits(9);
    for task in asking {
        assert_eq!(task.await.unwrap(), address(1));
    }
    assert_eq!(script.asked(), 1);
}

#[tokio::test]
async fn a_look_up_outlives_the_request_that_started_it() {
    let (resolver, script, _) = scripted(0, [answer(1, 30)]);
    let first = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.resolve("a.example", 80).await }
    });
    while script.asked() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    script.permits.add_permits(1);
    assert_eq!(resolver.resolve("a.example", 80).await, address(1));
    assert_eq!(script.asked(), 1);
}

#[tokio::test]
async fn old_addresses_serve_while_name_servers_fail() {
    let (resolver, script, clock) = scripted(9, [answer(1, 30), failed(), failed(), answer(2, 30)]);
    for (advance, last, asked) in [(0, 1, 1), (31, 1, 2), (4, 1, 2), (2, 1, 3), (6, 2, 4)] {
        clock.advance(Duration::from_secs(advance), true);
        assert_eq!(resolver.resolve("a.example", 80).await, address(last));
        assert_eq!(script.asked(), asked, "after {advance} s");
    }
}

#[tokio::test]
async fn old_addresses_are_not_used_for_ever() {
    let (resolver, _, clock) = scripted(9, [answer(1, 30), failed()]);
    assert_eq!(resolver.resolve("a.example", 80).await, address(1));
    clock.advance(STALE_LIMIT + Duration::from_secs(31), true);
    assert!(matches!(resolver.resolve("a.example", 80).await, Err(ResolveError::Failed(..))));
}

#[tokio::test(start_paused = true)]
async fn a_slow_name_server_delays_nobody_who_has_old_addresses() {
    let (resolver, script, clock) = scripted(1, [answer(1, 30), answer(2, 30)]);
    assert_eq!(resolver.resolve("a.example", 80).await, address(1));
    clock.advance(Duration::from_secs(31), true);
    let started = Instant::now();
    assert_eq!(resolver.resolve("a.example", 80).await, address(1));
    assert_eq!(resolver.resolve("a.example", 80).await, address(1));
    assert!(started.elapsed() <= STALE_WAIT + Duration::from_millis(10));
    assert_eq!(script.asked(), 2);
    let name = resolver.name("a.example", 80);
    let mut result = name.state.lock().flight.clone().unwrap().result;
    script.permits.add_permits(1);
    result.wait_for(Option::is_some).await.unwrap();
    assert_eq!(resolver.resolve("a.example", 80).await, address(2));
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_hangs_is_a_failure() {
    let (resolver, _, _) = scripted(0, [answer(1, 30)]);
    assert!(matches!(resolver.resolve("a.example", 80).await, Err(ResolveError::Failed(..))));
}

#[tokio::test]
async fn a_name_that_is_gone_has_no_old_addresses() {
    let none = Err(LookupError::NotFound(Duration::from_secs(3600)));
    let (resolver, script, clock) = scripted(9, [answer(1, 30), none, answer(2, 30)]);
    assert_eq!(resolver.resolve("a.example", 80).await, address(1));
    clock.advance(Duration::from_secs(31), true);
    for _ in 0..2 {
        let error = resolver.resolve("a.example", 80).await.unwrap_err();
        assert_eq!(error, ResolveError::NotFound("a.example".into()));
    }
    assert_eq!(script.asked(), 2);
    clock.advance(Duration::from_secs(5), true);
    assert_eq!(resolver.resolve("a.example", 80).await, address(2));
}

#[tokio::test]
async fn ports_of_one_host_are_apart() {
    let (resolver, _, _) = scripted(9, [answer(1, 30)]);
    assert_eq!(resolver.resolve("a.example", 80).await.unwrap()[0].port(), 80);
    assert_eq!(resolver.resolve("a.example", 81).await.unwrap()[0].port(), 81);
}

#[tokio::test]
async fn localhost_resolves_as_the_system_says() {
    let resolver = Resolver::new(Clock::system()).unwrap();
    let addresses = resolver.resolve("localhost", 8080).await.unwrap();
    assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 8080), "{addresses:?}");
    assert!(!addresses.is_empty());
}
