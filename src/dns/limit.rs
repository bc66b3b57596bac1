//! Response rate limiting: who asks for the same again and again over UDP may not be who the packets say.
//!
//! Responses are counted by the network they go to and by what they say, in a table of fixed size that all threads share.
//! Each entry is one number: a tag, and the time up to which its allowance is used up (the generic cell rate algorithm).

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Entries; each is 8 bytes.
const ENTRIES: usize = 1 << 16;
/// Bits of an entry that are the time in microseconds: 203 days.
const TIME_BITS: u32 = 44;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// How many responses a network gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Like responses each second to one network (/24, /56), from 1; a second's worth may come at once.
    pub per_second: u32,
    /// Every so many of those above it are truncated instead of dropped, so that who really asks comes by TCP; 0: none.
    pub slip: u32,
}

/// What is to be done with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Send,
    /// Send the question back with TC.
    Truncate,
    /// Send nothing.
    Drop,
}

/// The table.
pub struct Limiter {
    entries: Box<[AtomicU64]>,
    hasher: RandomState,
    refused: AtomicU32,
}

impl Default for Limiter {
    fn default() -> Self {
        let entries = std::iter::repeat_with(AtomicU64::default).take(ENTRIES).collect();
        Self { entries, hasher: RandomState::new(), refused: AtomicU32::new(0) }
    }
}

impl Limiter {
    /// Counts a response to `to` that says `what`. `now` is in microseconds since any time before.
    pub fn judge(&self, limit: RateLimit, to: IpAddr, what: u64, now: u64) -> Verdict {
        let network = match to.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address) >> 8),
            IpAddr::V6(address) => (u128::from(address) >> 72) as u64 | 1 << 63,
        };
        let hash = self.hasher.hash_one((network, what));
        let tag = hash >> TIME_BITS;
        let interval = 1_000_000 / u64::from(limit.per_second.max(1));
        let now = now & TIME;
        let allowed = self.entry(hash, tag, now).is_none_or(|entry| {
            let taken = entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                // An entry whose time is over is anybody's.
                let until = if old >> TIME_BITS == tag && !is_over(old, now) { old & TIME } else { now };
                (until < now + 1_000_000).then_some(tag << TIME_BITS | (until + interval) & TIME)
            });
            taken.is_ok()
        });
        if allowed {
            return Verdict::Send;
        }
        let refused = self.refused.fetch_add(1, Ordering::Relaxed);
        if limit.slip > 0 && refused.is_multiple_of(limit.slip) { Verdict::Truncate } else { Verdict::Drop }
    }

    /// The entry of a tag: its own, or one that is free. `None`: the table is full of others here, and nothing is limited.
    fn entry(&self, hash: u64, tag: u64, now: u64) -> Option<&AtomicU64> {
        let places = [hash as usize % ENTRIES, (hash >> 16) as usize % ENTRIES];
        let read = |place: usize| self.entries[place].load(Ordering::Relaxed);
        let own = places.into_iter().find(|place| read(*place) >> TIME_BITS == tag);
        let place = own.or_else(|| places.into_iter().find(|place| is_over(read(*place), now)));
        place.map(|place| &self.entries[place])
    }
}

/// Whether the allowance is whole again. Nothing is used up for more than a second and an interval, so that what lies
/// further ahead is from before the time began anew.
fn is_over(entry: u64, now: u64) -> bool {
    !(now + 1..now + 3_000_000).contains(&(entry & TIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_gets_its_rate_and_others_theirs() {
        let (limiter, limit) = (Limiter::default(), RateLimit { per_second: 10, slip: 2 });
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "198.51.100.1".parse().unwrap());
        let count = |to: IpAddr, what: u64, now: u64, times: usize| {
            let verdicts: Vec<_> = (0..times).map(|_| limiter.judge(limit, to, what, now)).collect();
            [Verdict::Send, Verdict::Truncate, Verdict::Drop].map(|v| verdicts.iter().filter(|x| **x == v).count())
        };
        assert_eq!(count(one, 1, 5, 30), [10, 10, 10]);
        assert_eq!(count("192.0.2.200".parse().unwrap(), 1, 5, 2), [0, 1, 1]);
        assert_eq!(count(one, 2, 5, 10), [10, 0, 0]);
        assert_eq!(count(other, 1, 5, 10), [10, 0, 0]);
        assert_eq!(count(one, 1, 5 + 300_000, 5)[0], 3);
        assert_eq!(count(one, 1, 5 + 5_000_000, 30)[0], 10);
        let never = RateLimit { per_second: 1, slip: 0 };
        let verdicts: Vec<_> = (0..5).map(|_| limiter.judge(never, one, 3, 0)).collect();
        assert_eq!(verdicts[1..], [Verdict::Drop; 4]);
    }
}
