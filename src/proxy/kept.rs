//! What outlives a reload: rate limits that are being counted and passwords that were right.

use super::access::random_key;
use super::access::{Access, Limiter, Passwords};
use super::traffic::Live;
use crate::metrics::Metrics;
use crate::route::settings::{BasicAuth, RouteSettings};
use crate::route::traffic::Forward;
use aws_lc_rs::hmac;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

/// By site and path. Entries that no route uses any more go with the next look.
#[derive(Default)]
pub struct Kept {
    limiters: Mutex<HashMap<(String, String), Weak<Limiter>>>,
    passwords: Mutex<Vec<(BasicAuth, Weak<Passwords>)>>,
    groups: Mutex<Vec<Weak<Live>>>,
    sticky: OnceLock<hmac::Key>,
}

impl Kept {
    /// The groups of a rule, at the weights they have now if the rule is as it was.
    pub fn groups(&self, site: &Arc<str>, rule: &Arc<str>, forward: &Forward, metrics: &Metrics) -> Arc<Live> {
        let mut groups = self.groups.lock();
        groups.retain(|kept| kept.strong_count() > 0);
        let same = |live: &Arc<Live>| live.name() == (&**site, &**rule) && live.is_of(forward);
        if let Some(known) = groups.iter().filter_map(Weak::upgrade).find(same) {
            return known;
        }
        let secret = forward.sticky.as_ref().and_then(|sticky| sticky.secret.as_ref());
        let key = match secret {
            Some(secret) => hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()),
            None => self.sticky.get_or_init(random_key).clone(),
        };
        let live = Arc::new(Live::new(site, rule, forward, key, metrics));
        groups.push(Arc::downgrade(&live));
        live
    }

    /// Access to a route, with what is kept for it. Another limit begins anew.
    pub fn access(&self, site: &str, path: &str, settings: &RouteSettings) -> Access {
        let limiter = settings.rate_limit.map(|limit| {
            let mut limiters = self.limiters.lock();
            limiters.retain(|_, kept| kept.strong_count() > 0);
            let key = (site.to_owned(), path.to_owned());
            let known = limiters.get(&key).and_then(Weak::upgrade).filter(|known| known.limit() == limit);
            known.unwrap_or_else(|| {
                let limiter = Arc::new(Limiter::new(limit));
                limiters.insert(key, Arc::downgrade(&limiter));
                limiter
            })
        });
        let passwords = settings.auth.as_ref().map(|wanted| {
            let mut passwords = self.passwords.lock();
            passwords.retain(|(_, kept)| kept.strong_count() > 0);
            let known =
                passwords.iter().find(|(own, _)| own.users == wanted.users).and_then(|(_, kept)| kept.upgrade());
            known.unwrap_or_else(|| {
                let list = Arc::new(Passwords::new(wanted));
                passwords.push((wanted.clone(), Arc::downgrade(&list)));
                list
            })
        });
        Access::new(settings, limiter, passwords)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::settings::RateLimit;
    use std::time::Duration;

    #[test]
    fn a_limit_counts_on_over_a_reload_unless_it_is_another() {
        let kept = Kept::default();
        let limit = |burst| RateLimit { requests: 1, period: Duration::from_secs(3600), burst };
        let settings = |burst| RouteSettings { rate_limit: Some(limit(burst)), ..RouteSettings::default() };
        let client = Some([192, 0, 2, 1].into());
        let first = kept.access("s", "/", &settings(1));
        assert!(first.admit_client(client).is_ok());
        let again = kept.access("s", "/", &settings(1));
        drop(first);
        assert!(again.admit_client(client).is_err());
        assert!(kept.access("s", "/other", &settings(1)).admit_client(client).is_ok());
        assert!(kept.access("s", "/", &settings(2)).admit_client(client).is_ok());
        drop(again);
    }
}
