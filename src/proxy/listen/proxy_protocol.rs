//! The PROXY protocol, versions 1 and 2 (haproxy.org, "The PROXY protocol", 2020/03/05): what a proxy in front says of the
//! client whose connection it passes on, before the first byte of that.

use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Version 1: one line of at most this many bytes, CRLF included.
const V1_LONGEST: usize = 107;
const V1_BEGIN: &[u8] = b"PROXY ";
const V2_BEGIN: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_HEAD: usize = 16;
/// What version 2 has behind its addresses is of no use here; more than this of it nobody sends.
const V2_LONGEST: usize = V2_HEAD + 4096;

/// Why a connection does not begin with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It begins with something else.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// It begins as a header and does not go on as one.
    #[error("the PROXY header is malformed")]
    Malformed,
}

/// A header that has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes; what follows is the client's.
    pub length: usize,
    /// The client's address; `None` where the proxy speaks for itself (`LOCAL`, `UNKNOWN`), as health checks do, or for a
    /// client without an IP address.
    pub client: Option<SocketAddr>,
}

/// Reads a header off the beginning of `bytes`; `None`: there has to be more.
///
/// # Errors
/// See [`HeaderError`].
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let begins = |text: &[u8]| bytes.starts_with(text) || text.starts_with(bytes);
    if begins(V2_BEGIN) {
        parse_v2(bytes)
    } else if begins(V1_BEGIN) {
        parse_v1(bytes)
    } else {
        Err(HeaderError::Missing)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let line = &bytes[..bytes.len().min(V1_LONGEST)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < V1_LONGEST { Ok(None) } else { Err(HeaderError::Malformed) };
    };
    let text = std::str::from_utf8(&line[..end]).map_err(|_| HeaderError::Malformed)?;
    let words: Vec<&str> = text.split(' ').collect();
    let client = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", source, target, from, to] => {
            let (source, _) = (ip::<Ipv4Addr>(source)?, ip::<Ipv4Addr>(target)?);
            port(to)?;
            Some(SocketAddr::new(source.into(), port(from)?))
        }
        ["PROXY", "TCP6", source, target, from, to] => {
            let (source, _) = (ip::<Ipv6Addr>(source)?, ip::<Ipv6Addr>(target)?);
            port(to)?;
            Some(SocketAddr::new(IpAddr::from(source).to_canonical(), port(from)?))
        }
        _ => return Err(HeaderError::Malformed),
    };
    Ok(Some(Header { length: end + 2, client }))
}

fn ip<A: std::str::FromStr>(text: &str) -> Result<A, HeaderError> {
    text.parse().map_err(|_| HeaderError::Malformed)
}

/// Digits without a sign or leading zeros.
fn port(text: &str) -> Result<u16, HeaderError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(HeaderError::Malformed)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD>() else { return Ok(None) };
    let [.., version_command, family, high, low] = *head;
    let announced = usize::from(u16::from_be_bytes([high, low]));
    let length = V2_HEAD + announced;
    if version_command >> 4 != 2 || version_command & 0xf > 1 || length > V2_LONGEST {
        return Err(HeaderError::Malformed);
    }
    let Some(block) = rest.get(..announced) else { return Ok(None) };
    let local = version_command & 0xf == 0;
    let client = match family >> 4 {
        _ if local => None,
        1 => {
            let (address, ports) = addresses::<4>(block)?;
            Some(SocketAddr::new(Ipv4Addr::from(address).into(), ports))
        }
        2 => {
            let (address, ports) = addresses::<16>(block)?;
            Some(SocketAddr::new(IpAddr::from(Ipv6Addr::from(address)).to_canonical(), ports))
        }
        // Unspecified and UNIX: a proxy that does not know the client, or one whose client has no IP address.
        0 | 3 => None,
        _ => return Err(HeaderError::Malformed),
    };
    Ok(Some(Header { length, client }))
}

/// The source's address and port of a block that has both ends' addresses and then both ports.
fn addresses<const N: usize>(block: &[u8]) -> Result<([u8; N], u16), HeaderError> {
    let source = block.first_chunk::<N>().ok_or(HeaderError::Malformed)?;
    let port = block.get(2 * N..2 * N + 4).ok_or(HeaderError::Malformed)?;
    Ok((*source, u16::from_be_bytes([port[0], port[1]])))
}

/// Whether connections from this peer begin with a header.
pub fn is_expected(from: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    from.iter().any(|network| network.contains(&peer))
}

/// Reads the header of a connection: the client's address, and what was read beyond the header.
///
/// # Errors
/// The connection broke or begins otherwise ([`HeaderError`] as `InvalidData`).
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Option<SocketAddr>, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(&bytes) {
            Ok(Some(header)) => return Ok((header.client, bytes.split_off(header.length))),
            Ok(None) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&V2_BEGIN[..], &[command, family], &length, block].concat()
    }

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn headers_of_both_versions_name_the_client() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x10, 0x00, 0x01, 0xbb];
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 7, 0, 8]].concat();
        let with_more = [&v4[..], &[4, 0, 1, 0]].concat();
        for (bytes, expected) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4096 443\r\n".to_vec(), client("192.0.2.1:4096")),
            (b"PROXY TCP6 2001:db8::1 ::1 7 8\r\n".to_vec(), client("[2001:db8::1]:7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), client("192.0.2.1:4096")),
            (v2(0x21, 0x11, &with_more), client("192.0.2.1:4096")),
            (v2(0x21, 0x21, &v6), client("[::1]:7")),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let parsed = parse(&bytes).unwrap().unwrap();
            assert_eq!(parsed, Header { length: bytes.len(), client: expected }, "{bytes:?}");
            let longer = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&longer).unwrap(), Some(parsed), "what follows is the client's");
            for end in 1..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{end} bytes of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_told_apart_from_one_that_is_broken() {
        for (bytes, error) in [
            (&b"GET / HTTP/1.1\r\n"[..], HeaderError::Missing),
            (b"\x16\x03\x01", HeaderError::Missing),
            (b"PROXIES", HeaderError::Missing),
            (b"PROXY TCP4 192.0.2.1\r\n", HeaderError::Malformed),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", HeaderError::Malformed),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n", HeaderError::Malformed),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 +1 443\r\n", HeaderError::Malformed),
            (b"PROXY TCP4 192.0.2.1  10.0.0.1 1 443\r\n", HeaderError::Malformed),
            (b"PROXY SCTP 192.0.2.1 10.0.0.1 1 443\r\n", HeaderError::Malformed),
            (&[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(), HeaderError::Malformed),
            (&v2(0x31, 0x11, &[0; 12]), HeaderError::Malformed),
            (&v2(0x22, 0x11, &[0; 12]), HeaderError::Malformed),
            (&v2(0x21, 0x11, &[0; 11]), HeaderError::Malformed),
            (&v2(0x21, 0x41, &[0; 12]), HeaderError::Malformed),
            (&v2(0x21, 0x11, &[0; 5000]), HeaderError::Malformed),
        ] {
            assert_eq!(parse(bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]
        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300), v2 in any::<bool>()) {
            let begin: &[u8] = if v2 { V2_BEGIN } else { V1_BEGIN };
            let bytes = [begin, &bytes].concat();
            if let Ok(Some(header)) = parse(&bytes) {
                prop_assert!(header.length <= bytes.len());
            }
        }
    }
}
