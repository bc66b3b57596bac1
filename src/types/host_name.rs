use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A host as routing compares it: lower case, no trailing dot, no port. A DNS name, an IPv4 address, or an IPv6
/// address in brackets (RFC 3986 section 3.2.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Arc<str>);

/// Why a text is not a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host name: letters, digits, `-`, `_` and `.` in labels of 1 to 63 octets, 253 in all")]
pub struct HostNameError(String);

impl HostName {
    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Splits a `Host` field value or an authority into its host and, where one is given, its port.
    ///
    /// # Errors
    /// The host part is none, or the port is not a number from 0 to 65535 (RFC 9112 section 3.2 has such a request
    /// answered 400).
    pub fn parse_with_port(authority: &str) -> Result<(Self, Option<u16>), HostNameError> {
        let error = || HostNameError(authority.to_owned());
        let (host, port) = match authority.rfind(':') {
            Some(colon) if !authority[colon..].contains(']') => (&authority[..colon], Some(&authority[colon + 1..])),
            _ => (authority, None),
        };
        let port = match port {
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().map_err(|_| error())?),
            Some(_) => return Err(error()),
        };
        Ok((host.parse().map_err(|_| error())?, port))
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || HostNameError(text.to_owned());
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').ok_or_else(error)?;
            let address: std::net::Ipv6Addr = address.parse().map_err(|_| error())?;
            return Ok(Self(format!("[{address}]").into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let octet = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(octet);
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(error());
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_normalised() {
        for (text, host, port) in [
            ("WWW.Example.COM.", "www.example.com", None),
            ("a.b:8080", "a.b", Some(8080)),
            ("a.b:", "a.b", None),
            ("[::1]:443", "[::1]", Some(443)),
            ("[0:0::1]", "[::1]", None),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("my_app", "my_app", None),
        ] {
            let (got, got_port) = HostName::parse_with_port(text).expect(text);
            assert_eq!((got.as_str(), got_port), (host, port), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", ".", "a..b", "a b", "a/b", "x:80x", "x:99999", "user@host", "[::1", "::1", "é.example"] {
            assert!(HostName::parse_with_port(text).is_err(), "{text}");
        }
        assert!(format!("{}.com", "a".repeat(64)).parse::<HostName>().is_err());
    }
}
