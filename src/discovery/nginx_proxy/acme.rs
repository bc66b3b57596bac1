//! acme-companion's variables.

use super::hosts::host_list;
use super::keys::{Settings, boolean};
use super::site::Acme;

/// What the container asks for; `None` if it asks for no certificate.
pub(super) fn read(settings: &Settings<'_>, warn: &mut dyn FnMut(String)) -> Option<Acme> {
    let first = |keys: &[&'static str]| keys.iter().find_map(|key| settings.get(key)).map(str::to_owned);
    let hosts = host_list(&first(&["ACME_HOST", "LETSENCRYPT_HOST"])?);
    let flag = |key| settings.get(key).and_then(boolean).unwrap_or(false);
    let challenge = first(&["ACME_CHALLENGE"]).map(|text| text.to_ascii_uppercase());
    if let Some(other) = challenge.as_ref().filter(|c| !["HTTP-01", "DNS-01"].contains(&c.as_str())) {
        warn(format!("ACME_CHALLENGE is `{other}`; write HTTP-01 or DNS-01"));
    }
    let renew_after = first(&["ACME_RENEW_AFTER"]).and_then(|text| {
        let days = text.parse::<u16>().ok().filter(|days| *days > 0);
        if days.is_none() {
            warn(format!("ACME_RENEW_AFTER is `{text}`; write a number of days"));
        }
        days
    });
    Some(Acme {
        hosts,
        single_domain: flag("ACME_SINGLE_DOMAIN_CERTS"),
        email: first(&["ACME_EMAIL", "LETSENCRYPT_EMAIL"]),
        ca: first(&["ACME_CA_URI"]),
        challenge,
        key: first(&["ACME_KEYSIZE"]),
        profile: first(&["ACME_CERT_PROFILE"]),
        renew_after,
        staging: flag("LETSENCRYPT_TEST"),
    })
}
