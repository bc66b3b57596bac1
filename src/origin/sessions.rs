//! Which server has whose session, learned from the cookies that servers set themselves.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::{COOKIE, SET_COOKIE};
use moka::sync::Cache;

/// Sessions that are remembered; the least used go first.
const MOST: u64 = 100_000;
/// How long one is remembered after its last request.
const IDLE: Duration = Duration::from_secs(3600);

/// The sessions of one origin. Only hashes of cookies are kept, and nothing of it leaves the process.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    cookie: String,
    servers: Cache<u64, SocketAddr>,
    hasher: RandomState,
}

impl Sessions {
    /// None yet; `cookie` is the name that the servers give it.
    pub fn new(cookie: &str) -> Self {
        let servers = Cache::builder().max_capacity(MOST).time_to_idle(IDLE).build();
        Self { cookie: cookie.to_owned(), servers, hasher: RandomState::new() }
    }

    /// The cookie's name.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// The server that has the session of a request with these fields.
    pub fn server(&self, request: &HeaderMap) -> Option<SocketAddr> {
        let pairs = request.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
        pairs.filter_map(|pair| self.value(pair)).find_map(|value| self.servers.get(&self.hasher.hash_one(value)))
    }

    /// A server has answered with these fields: it has the session that it begins.
    pub fn learn(&self, response: &HeaderMap, server: SocketAddr) {
        for line in response.get_all(SET_COOKIE) {
            let pair = line.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
            if let Some(value) = self.value(pair) {
                self.servers.insert(self.hasher.hash_one(value), server);
            }
        }
    }

    /// The value of a pair if it is this cookie, and not its end.
    fn value<'a>(&self, pair: &'a [u8]) -> Option<&'a [u8]> {
        let value = pair.trim_ascii().strip_prefix(self.cookie.as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty() && value != b"\"\"").then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderName, HeaderValue};

    use super::*;

    fn fields(name: HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_session_is_known_by_the_cookie_that_its_server_set() {
        let sessions = Sessions::new("sid");
        let server = |n: u16| SocketAddr::from(([192, 0, 2, 1], n));
        sessions.learn(&fields(SET_COOKIE, &["theme=dark", "sid=abc; Path=/; HttpOnly"]), server(1));
        sessions.learn(&fields(SET_COOKIE, &["sid=; Max-Age=0", "xsid=q", "sidx=abc"]), server(2));
        for (cookies, expected) in [
            (&["sid=abc"][..], Some(1)),
            (&["a=b; sid=abc;c=d"], Some(1)),
            (&["a=b", "sid=abc"], Some(1)),
            (&["sid=old; sid=abc"], Some(1)),
            (&["sid=abcd"], None),
            (&["sid="], None),
            (&["xsid=q"], None),
            (&[], None),
        ] {
            assert_eq!(sessions.server(&fields(COOKIE, cookies)), expected.map(server), "{cookies:?}");
        }
    }
}
