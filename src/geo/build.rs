//! Networks with their places from what registries and others publish as text.
//!
//! | form | a line |
//! |---|---|
//! | statistics of the regional internet registries (`delegated-…`) | `ripencc\|DE\|ipv4\|192.0.2.0\|256\|20100101\|allocated` |
//! | ranges | `192.0.2.0,192.0.2.255,DE` |
//! | networks | `192.0.2.0/24,DE` |
//!
//! A place is what [`locate`] understands. Lines of other kinds (headings, autonomous systems, unassigned space) are counted.

use super::networks::network_of;
use super::{Country, Place, locate};
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What was found in a text.
#[derive(Debug, Default)]
pub struct Compiled {
    /// Networks in the order of the lines.
    pub networks: Vec<(IpNet, Place)>,
    /// Lines that tell of no network's place.
    pub skipped: usize,
}

/// Reads a text of either form; each line is judged by itself.
///
/// # Errors
/// The first line that looks like one of these and is none, with its number.
pub fn compile(text: &str, into: &mut Compiled) -> Result<(), String> {
    for (number, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches('\u{feff}');
        let before = into.networks.len();
        if !line.is_empty() && !line.starts_with('#') {
            let read = if line.contains('|') { delegation(line, into) } else { comma_separated(line, into, number) };
            read.map_err(|reason| format!("line {}: {reason}", number + 1))?;
        }
        into.skipped += usize::from(into.networks.len() == before);
    }
    Ok(())
}

fn delegation(line: &str, into: &mut Compiled) -> Result<(), String> {
    let fields: Vec<&str> = line.split('|').collect();
    let [_, country, kind, start, size, _, status, ..] = *fields else { return Ok(()) };
    if !matches!(kind, "ipv4" | "ipv6") || !matches!(status, "allocated" | "assigned") {
        return Ok(());
    }
    let Ok(country) = country.parse::<Country>() else { return Ok(()) };
    if !country.is_known() {
        return Ok(());
    }
    let malformed = || format!("{start}|{size} is no {kind} range");
    let place = Place::of_country(country);
    if kind == "ipv6" {
        let network = format!("{start}/{size}").parse::<IpNet>().map_err(|_| malformed())?;
        into.networks.push((network.trunc(), place));
        return Ok(());
    }
    let first: Ipv4Addr = start.parse().map_err(|_| malformed())?;
    // The number of addresses need not be a power of two.
    let count: u32 = size.parse().ok().filter(|count| *count > 0).ok_or_else(malformed)?;
    let last = u32::from(first).checked_add(count - 1).ok_or_else(malformed)?;
    into.networks.extend(Ipv4Subnets::new(first, last.into(), 0).map(|net| (net.into(), place.clone())));
    Ok(())
}

fn comma_separated(line: &str, into: &mut Compiled, number: usize) -> Result<(), String> {
    let fields: Vec<&str> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
    let heading = number == 0 && fields.first().is_some_and(|field| !field.contains(['.', ':']));
    if heading {
        return Ok(());
    }
    let place = |text: &str| locate(text).ok_or_else(|| format!("{text:?} is no place"));
    let range = fields.first().and_then(|first| first.parse::<IpAddr>().ok());
    let range = range.zip(fields.get(1).and_then(|last| last.parse::<IpAddr>().ok()));
    if let Some((first, last)) = range {
        let code = fields.get(2).copied().unwrap_or_default();
        // Space that belongs to no country is often given as ZZ.
        let Some(place) = locate(code) else { return Ok(()) };
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                into.networks.extend(Ipv4Subnets::new(first, last, 0).map(|net| (net.into(), place.clone())));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                into.networks.extend(v6_subnets(first, last).map(|net| (net.into(), place.clone())));
            }
            _ => return Err(format!("{first} to {last} is no range")),
        }
        return Ok(());
    }
    let [network, rest @ ..] = &*fields else { return Ok(()) };
    let network = network_of(network)?;
    into.networks.push((network, place(&rest.join(","))?));
    Ok(())
}

fn v6_subnets(first: Ipv6Addr, last: Ipv6Addr) -> Ipv6Subnets {
    Ipv6Subnets::new(first, last, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Compiled, String> {
        let mut compiled = Compiled::default();
        compile(text, &mut compiled)?;
        Ok(compiled)
    }

    #[test]
    fn registries_statistics_become_networks() {
        let text = "2|ripencc|1700000000|4|19830705|20231114|+0100\nripencc|*|ipv4|*|2|summary\n\
                    ripencc|DE|ipv4|192.0.2.0|768|20100101|allocated\nripencc|FR|ipv6|2001:db8::|32|20100101|assigned\n\
                    ripencc|DE|asn|64496|1|20100101|allocated\nripencc||ipv4|198.51.100.0|256||available\n";
        let compiled = read(text).unwrap();
        let shown: Vec<String> =
            compiled.networks.iter().map(|(net, place)| format!("{net} {}", place.country.unwrap())).collect();
        assert_eq!(shown, ["192.0.2.0/23 DE", "192.0.4.0/24 DE", "2001:db8::/32 FR"]);
        assert_eq!(compiled.skipped, 4);
        for bad in ["ripencc|DE|ipv4|192.0.2.0|x|20100101|allocated", "ripencc|DE|ipv6|x|32|20100101|allocated"] {
            assert!(read(bad).unwrap_err().starts_with("line 1: "), "{bad}");
        }
    }

    #[test]
    fn networks_and_ranges_are_read() {
        let text = "network,place\n192.0.2.0/24,Singapore\n198.51.100.0,198.51.100.255,AU\n2001:db8::,2001:db8::ffff,JP\n\
                    203.0.113.0,203.0.113.255,ZZ\n\"10.0.0.0/8\",\"50.1,8.7\"\n";
        let compiled = read(text).unwrap();
        let shown: Vec<String> = compiled.networks.iter().map(|(net, _)| net.to_string()).collect();
        assert_eq!(shown, ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/112", "10.0.0.0/8"]);
        assert_eq!(compiled.skipped, 2);
        assert!(read("192.0.2.0/24,DE\n192.0.2.0/24,Nowhere").unwrap_err().contains("line 2: \"Nowhere\""));
        assert!(read("192.0.2.9,192.0.2.1,DE").unwrap_err().contains("no range"));
    }
}
