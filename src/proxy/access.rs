//! Who may ask what a route has, and how often: networks, rate, passwords.

use super::answer::Answer;
use super::htpasswd::Htpasswd;
use crate::route::settings::{BasicAuth, NetworkRule, RateLimit, RouteSettings};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use moka::sync::Cache;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a route's settings come to. What counts over time outlives a reload that does not change it (`kept`).
#[derive(Debug, Default)]
pub struct Access {
    networks: Vec<NetworkRule>,
    limiter: Option<Arc<Limiter>>,
    auth: Option<(BasicAuth, Arc<Passwords>)>,
}

impl Access {
    /// Of a route's settings, with what was kept for them.
    pub fn new(settings: &RouteSettings, limiter: Option<Arc<Limiter>>, passwords: Option<Arc<Passwords>>) -> Self {
        Self { networks: settings.networks.clone(), limiter, auth: settings.auth.clone().zip(passwords) }
    }

    /// Whether anyone may ask anything.
    pub fn is_open(&self) -> bool {
        let Self { networks, limiter, auth } = self;
        networks.is_empty() && limiter.is_none() && auth.is_none()
    }

    /// Whether this client may ask now.
    ///
    /// # Errors
    /// The answer to give instead: 403 or 429.
    pub fn admit_client(&self, client: Option<IpAddr>) -> Result<(), Answer> {
        if !NetworkRule::admit(&self.networks, client) {
            return Err(Answer::Forbidden);
        }
        match &self.limiter {
            Some(limiter) => limiter.take(client).map_err(Answer::TooMany),
            None => Ok(()),
        }
    }

    /// Whether the request brings a user's name and password (RFC 7617).
    ///
    /// # Errors
    /// The answer to give instead: 401.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let Some((wanted, passwords)) = &self.auth else { return Ok(()) };
        let known = match credentials(headers) {
            Some((user, password)) => passwords.know(user, password).await,
            None => false,
        };
        if known { Ok(()) } else { Err(Answer::Unauthorized(Arc::clone(&wanted.realm))) }
    }
}

/// Name and password, if there is one `Authorization` and it is of the `Basic` scheme.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = STANDARD.decode(token.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let password = decoded.split_off(colon + 1);
    decoded.pop();
    Some((String::from_utf8(decoded).ok()?, password))
}

/// Passwords verified at once: each takes a core for some milliseconds, and anyone can ask for one.
const VERIFIED_AT_ONCE: usize = 2;
/// How long a password that was right need not be hashed again.
const REMEMBERED: Duration = Duration::from_secs(300);

/// A list of users, and whose password was right lately.
pub struct Passwords {
    list: Htpasswd,
    /// By a keyed hash of user, password and the stored hash: a user whose password changes is asked again at once.
    right: Cache<[u8; 32], ()>,
    key: hmac::Key,
    turns: Semaphore,
}

impl Passwords {
    /// Nobody's password is known to be right yet.
    pub fn new(wanted: &BasicAuth) -> Self {
        Self {
            list: Htpasswd::new(&wanted.users),
            right: Cache::builder().max_capacity(4096).time_to_live(REMEMBERED).build(),
            key: random_key(),
            turns: Semaphore::new(VERIFIED_AT_ONCE),
        }
    }

    async fn know(&self, user: String, password: Vec<u8>) -> bool {
        // A name that is not in the list is told sooner than a wrong password: names are no secret here.
        let Some(hash) = self.list.hash_of(&user) else { return false };
        if !hash.is_slow() {
            return hash.matches(&password);
        }
        let mut tag = hmac::Context::with_key(&self.key);
        for part in [user.as_bytes(), &password, hash.text().expose().as_bytes()] {
            tag.update(&part.len().to_le_bytes());
            tag.update(part);
        }
        let mut seen = [0; 32];
        seen.copy_from_slice(tag.sign().as_ref());
        if self.right.contains_key(&seen) {
            return true;
        }
        // The semaphore is never closed.
        let Ok(_turn) = self.turns.acquire().await else { return false };
        let right = tokio::task::spawn_blocking(move || hash.matches(&password)).await.unwrap_or(false);
        if right {
            self.right.insert(seen, ());
        }
        right
    }
}

/// A key that nobody else knows.
pub(super) fn random_key() -> hmac::Key {
    use std::hash::{BuildHasher, RandomState};
    let mut random = std::array::from_fn::<u8, 32, _>(|_| RandomState::new().hash_one(0_u8).to_le_bytes()[0]);
    // Should the system's source fail, what the standard library has is not known to others either.
    let _ = aws_lc_rs::rand::fill(&mut random);
    hmac::Key::new(hmac::HMAC_SHA256, &random)
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").field("list", &self.list).finish_non_exhaustive()
    }
}

/// A client that asked too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// What is allowed.
    pub limit: RateLimit,
    /// Whole seconds after which one more request is allowed; at least 1.
    pub retry_after: u64,
}

/// Requests between two looks at how many clients are remembered.
const LOOK_EVERY: u32 = 1024;
/// Clients remembered before those are forgotten whose buckets are full again.
const MANY: usize = 10_000;

/// A bucket for each client.
pub struct Limiter {
    limit: RateLimit,
    buckets: DefaultKeyedRateLimiter<IpAddr>,
    taken: AtomicU32,
}

impl Limiter {
    /// All buckets are full.
    pub fn new(limit: RateLimit) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let each = (limit.period / limit.requests.max(1)).max(Duration::from_nanos(1));
        let quota = Quota::with_period(each).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let buckets = RateLimiter::keyed(quota.allow_burst(at_least_one(limit.burst)));
        Self { limit, buckets, taken: AtomicU32::new(0) }
    }

    /// What is allowed.
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes a token from the client's bucket. Clients without an address share one.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, client: Option<IpAddr>) -> Result<(), Exceeded> {
        let due = self.taken.fetch_add(1, Ordering::Relaxed) % LOOK_EVERY == LOOK_EVERY - 1;
        if due && self.buckets.len() > MANY {
            self.buckets.retain_recent();
        }
        let key = client.map_or(IpAddr::from([0, 0, 0, 0]), bucket_of);
        self.buckets.check_key(&key).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Exceeded { limit: self.limit, retry_after: seconds.max(1) }
        })
    }
}

/// A household or a company has a whole /64 of IPv6 addresses and takes another one at will.
fn bucket_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::settings::Users;

    fn header(value: &str) -> HeaderMap {
        [(AUTHORIZATION, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn credentials_are_one_field_of_the_basic_scheme() {
        let of = |value: &str| credentials(&header(value));
        assert_eq!(of("Basic YTpiOmM="), Some(("a".to_owned(), b"b:c".to_vec())));
        assert_eq!(of("basic  YTo="), Some(("a".to_owned(), Vec::new())));
        for bad in ["Basic", "Basic ", "Basic !!", "Basic YQ==", "Bearer YTpi", "Basic //8=6"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        let mut twice = header("Basic YTpi");
        twice.append(AUTHORIZATION, "Basic YTpi".parse().unwrap());
        assert_eq!(credentials(&twice), None);
    }

    #[tokio::test]
    async fn a_right_password_is_remembered_and_a_wrong_one_is_not() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = Users::Inline(format!("anna:{hash}\nbert:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=").into());
        let passwords = Passwords::new(&BasicAuth { realm: "r".into(), users });
        for (user, password, right) in [
            ("anna", "secret", true),
            ("anna", "secret", true),
            ("anna", "wrong", false),
            ("bert", "secret", true),
            ("carl", "secret", false),
        ] {
            assert_eq!(passwords.know(user.to_owned(), password.into()).await, right, "{user} {password}");
        }
        passwords.right.run_pending_tasks();
        assert_eq!(passwords.right.entry_count(), 1, "what is quick to verify need not be remembered");
    }

    #[test]
    fn a_bucket_is_for_one_client() {
        let limit = RateLimit { requests: 1, period: Duration::from_secs(3600), burst: 2 };
        let limiter = Limiter::new(limit);
        let client = |text: &str| text.parse::<IpAddr>().ok();
        for (address, allowed) in [
            ("192.0.2.1", true),
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2", true),
            ("2001:db8::3", false),
            ("2001:db8:0:1::1", true),
        ] {
            assert_eq!(limiter.take(client(address)).is_ok(), allowed, "{address}");
        }
        let exceeded = limiter.take(client("192.0.2.1")).unwrap_err();
        assert!((3598..=3600).contains(&exceeded.retry_after), "{exceeded:?}");
    }
}
