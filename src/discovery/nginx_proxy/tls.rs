//! Certificates of a host, by the names of files alone.

use super::site::{ClientAuth, TlsFloor};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The pair that serves a host: `cert_name` and no other where it is given; else the host's own, its parent domain's, or
/// the default one where that is trusted. `file_name` is the host, or for a regex its SHA-1.
pub(super) fn certificate(
    files: &BTreeSet<String>,
    host: &str,
    file_name: &str,
    cert_name: Option<&str>,
    trust_default: bool,
) -> Result<Option<Arc<str>>, String> {
    let pair = |name: &str| files.contains(&format!("{name}.crt")) && files.contains(&format!("{name}.key"));
    if let Some(name) = cert_name {
        return match pair(name) {
            true => Ok(Some(name.into())),
            false => {
                Err(format!("CERT_NAME is `{name}`, but there is no {name}.crt with {name}.key: the host has no TLS"))
            }
        };
    }
    if pair(file_name) {
        return Ok(Some(file_name.into()));
    }
    let parent = host.split_once('.').map(|(_, parent)| parent);
    let address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    if let Some(parent) = parent.filter(|p| p.contains('.') && !host.starts_with('~') && !address && pair(p)) {
        return Ok(Some(parent.into()));
    }
    Ok((trust_default && pair("default")).then(|| "default".into()))
}

/// The authorities of client certificates for a host, if there is a file of them.
pub(super) fn client_auth(files: &BTreeSet<String>, file_name: &str, verify: Option<&str>) -> Option<ClientAuth> {
    let first = |ending: &str| {
        let own = format!("{file_name}.{ending}");
        [own, ending.to_owned()].into_iter().find(|name| files.contains(name))
    };
    if verify.is_some_and(|verify| verify.eq_ignore_ascii_case("off")) {
        return None;
    }
    let optional = verify.is_some_and(|verify| verify.eq_ignore_ascii_case("optional"));
    Some(ClientAuth { ca: first("ca.crt")?, crl: first("ca.crl.pem"), optional })
}

/// What an `SSL_POLICY` becomes; the text says what is different from what it asks for.
pub(super) fn policy(name: &str) -> (TlsFloor, Option<String>) {
    let old =
        || Some(format!("SSL_POLICY {name} allows TLS 1.0 or 1.1, which is not spoken here: TLS 1.2 and 1.3 are"));
    match name {
        "Mozilla-Intermediate" => (TlsFloor::Tls12, None),
        "Mozilla-Modern" | "AWS-TLS13-1-3-2021-06" | "AWS-TLS13-1-3-FIPS-2023-04" => (TlsFloor::Tls13, None),
        "Mozilla-Old" => (TlsFloor::Tls12, old()),
        _ if name.starts_with("AWS-TLS13-1-2") || name.starts_with("AWS-TLS-1-2") || name.starts_with("AWS-FS-1-2") => {
            (TlsFloor::Tls12, None)
        }
        _ if name.starts_with("AWS-") => (TlsFloor::Tls12, old()),
        _ => (TlsFloor::Tls12, Some(format!("SSL_POLICY `{name}` is unknown: TLS 1.2 and 1.3 are spoken"))),
    }
}
