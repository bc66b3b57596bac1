//! The operator's own list of networks and where they are (a coverage-zone file).
//!
//! One network to a line: `network,place`, where the place is a country's code, a city, or `latitude,longitude`. Empty lines
//! and what follows `#` do not count.

use super::{Place, locate};
use ipnet::IpNet;
use std::net::IpAddr;

/// Reads such a list.
///
/// # Errors
/// The first line that cannot be understood, with its number and what to write.
pub fn parse(text: &str) -> Result<Vec<(IpNet, Place)>, String> {
    let mut networks = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        networks.push(entry(content).map_err(|reason| format!("line {}: {reason}", number + 1))?);
    }
    Ok(networks)
}

fn entry(line: &str) -> Result<(IpNet, Place), String> {
    let (network, place) = line
        .split_once([',', '\t', ' '])
        .ok_or_else(|| format!("{line:?} names no place; write it as in `192.0.2.0/24,DE`"))?;
    let place = place.trim();
    let found = locate(place).ok_or_else(|| {
        format!("{place:?} is no place; write a country's code, a city of the built-in table, or `50.11,8.68`")
    })?;
    Ok((network_of(network.trim())?, found))
}

/// A network or a single address.
///
/// # Errors
/// It is neither, or has bits beyond its length.
pub fn network_of(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    match parsed {
        Some(network) if network.addr() == network.network() => Ok(network),
        Some(network) => Err(format!("{text:?} has bits beyond its length; write `{}`", network.trunc())),
        None => Err(format!("{text:?} is no network; write it as in `192.0.2.0/24`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_a_bad_line_is_named() {
        let text = "# ours\n10.0.0.0/8,DE\n\n192.0.2.1, Singapore # one\n2001:db8::/32\t1.5, -2.5\n";
        let networks = parse(text).unwrap();
        assert_eq!(networks.len(), 3);
        assert_eq!(networks[1].0.to_string(), "192.0.2.1/32");
        assert_eq!(networks[2].1.point, super::super::Point::new(1.5, -2.5));
        for (text, part) in [
            ("10.0.0.0/8,DE\n10.0.0.1/8,DE", "line 2: \"10.0.0.1/8\" has bits"),
            ("10.0.0.0/8", "names no place"),
            ("10.0.0.0/8,Nowhere", "\"Nowhere\" is no place"),
            ("ten,DE", "\"ten\" is no network"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
