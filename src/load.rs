//! `selvedge load`: loads a deployed edge and says how it did.
//!
//! A [`Workload`] makes requests (a catalogue with popularity and sizes, an access log, a trace), [`drive`] sends them over
//! a fixed number of connections, as fast as answers come or at a rate of their own, and a [`Report`] tells rate, hits by
//! tier, errors and response times.

mod client;
mod drive;
mod measure;
mod popularity;
mod replay;
mod report;
mod sizes;
mod template;
mod threshold;
mod workload;

pub use client::{Place, Protocol};
pub use drive::{Model, Plan, run};
pub use popularity::Popularity;
pub use replay::{Kind, ReplayError, read as read_log};
pub use report::{Point, Report, html};
pub use sizes::Sizes;
pub use template::{Template, TemplateError};
pub use threshold::Threshold;
pub use workload::Workload;

use std::net::IpAddr;

/// Whether an address is this machine's or of a private network (RFC 1918, RFC 4193, RFC 3927, RFC 4291 section 2.5.6), so
/// that loading it concerns nobody else.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known() {
        for private in
            ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.1.1", "::1", "fd00::1", "fe80::1"]
        {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.64.0.1", "2001:db8::1", "::ffff:8.8.8.8", "0.0.0.0"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
        assert!(is_private("::ffff:127.0.0.1".parse().unwrap()));
    }
}
