//! Requests as they come: header, one question, and the options of EDNS. Nothing here allocates.

use super::name;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a message's header.
pub const HEADER: usize = 12;
/// Bytes of a name and its type and class at most.
const RECORD_HEADER: usize = 10;

/// Numbers of record types that mean something here; all others are data.
pub mod kind {
    #![allow(missing_docs, reason = "the names of the registry")]
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const ANY: u16 = 255;
}

/// The classes that mean something here.
pub mod class {
    #![allow(missing_docs, reason = "the names of the registry")]
    pub const IN: u16 = 1;
    pub const CH: u16 = 3;
}

/// How a request went, with the number of RFC 1035 section 4.1.1 and RFC 6891 section 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// 0, NODATA and referrals included.
    NoError,
    /// 1
    FormErr,
    /// 3
    NxDomain,
    /// 4
    NotImp,
    /// 5
    Refused,
    /// 16
    BadVers,
}

impl Rcode {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::NoError, Self::FormErr, Self::NxDomain, Self::NotImp, Self::Refused, Self::BadVers];

    /// The number.
    pub fn code(self) -> u16 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
            Self::BadVers => 16,
        }
    }

    /// As dig writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::BadVers => "BADVERS",
        }
    }
}

/// The header's fields that an answer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by who asks.
    pub id: u16,
    /// 0 is QUERY.
    pub opcode: u8,
    /// RD.
    pub recursion_desired: bool,
    /// CD (RFC 4035 section 3.2.2).
    pub checking_disabled: bool,
}

/// A request that is understood.
#[derive(Clone, Debug)]
pub struct Query<'m> {
    /// Its header.
    pub header: Header,
    /// What is asked; `None`: nothing but for a cookie (RFC 7873 section 5.4).
    pub question: Option<Question<'m>>,
    /// Present if there is an OPT record.
    pub edns: Option<Edns<'m>>,
}

/// A name, its type and class.
#[derive(Clone, Copy, Debug)]
pub struct Question<'m> {
    /// The question's bytes as they came, the case of letters included.
    pub wire: &'m [u8],
    /// The name in wire format as it came.
    pub name: &'m [u8],
    /// QTYPE.
    pub kind: u16,
    /// QCLASS.
    pub class: u16,
}

/// What an OPT record says (RFC 6891).
#[derive(Clone, Copy, Debug, Default)]
pub struct Edns<'m> {
    /// 0 is the only one there is.
    pub version: u8,
    /// Bytes of UDP content that who asks can take.
    pub payload: u16,
    /// DO (RFC 3225).
    pub dnssec_ok: bool,
    /// COOKIE: 8 bytes of the client, and 8 to 32 of a server.
    pub cookie: Option<&'m [u8]>,
    /// Client Subnet.
    pub subnet: Option<Subnet>,
    /// NSID was asked for.
    pub wants_nsid: bool,
    /// TCP keepalive was asked for (RFC 7828).
    pub keepalive: bool,
}

/// A Client Subnet option of a query (RFC 7871 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The family as it came: 1, 2, or 0 with a length of 0.
    pub family: u16,
    /// SOURCE PREFIX-LENGTH.
    pub length: u8,
    /// The address, zeros after the prefix.
    pub address: IpAddr,
}

/// Options of EDNS by number.
pub mod option {
    #![allow(missing_docs, reason = "the names of the registry")]
    pub const NSID: u16 = 3;
    pub const SUBNET: u16 = 8;
    pub const COOKIE: u16 = 10;
    pub const KEEPALIVE: u16 = 11;
}

/// A request that has no answer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Too short to be answered, or an answer itself: nothing is sent.
    Ignored,
    /// Answered with this code and the header alone.
    Failed(Header, Rcode),
}

/// Takes a request apart.
///
/// # Errors
/// See [`Unusable`].
pub fn parse(message: &[u8]) -> Result<Query<'_>, Unusable> {
    let Some((head, _)) = message.split_first_chunk::<HEADER>() else { return Err(Unusable::Ignored) };
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let flags = word(2);
    if flags & 0x8000 != 0 {
        return Err(Unusable::Ignored);
    }
    let header = Header {
        id: word(0),
        opcode: (flags >> 11 & 0xf) as u8,
        recursion_desired: flags & 0x0100 != 0,
        checking_disabled: flags & 0x0010 != 0,
    };
    if header.opcode != 0 {
        return Err(Unusable::Failed(header, Rcode::NotImp));
    }
    let malformed = Unusable::Failed(header, Rcode::FormErr);
    let [questions, answers, authorities, additional] = [4, 6, 8, 10].map(word);
    let mut at = HEADER;
    let question = match questions {
        0 => None,
        1 => Some(question(message, &mut at).ok_or(malformed)?),
        _ => return Err(malformed),
    };
    for _ in 0..u32::from(answers) + u32::from(authorities) {
        let (owner, kind, ..) = record(message, &mut at).ok_or(malformed)?;
        if kind == kind::OPT || owner.is_empty() {
            return Err(malformed);
        }
    }
    let mut edns = None;
    for _ in 0..additional {
        let (owner, kind, class, ttl, data) = record(message, &mut at).ok_or(malformed)?;
        if kind != kind::OPT {
            continue;
        }
        if edns.is_some() || owner != [0] {
            return Err(malformed);
        }
        edns = Some(options(class, ttl, data).ok_or(malformed)?);
    }
    let asks_for_cookie = edns.is_some_and(|edns| edns.cookie.is_some());
    if at != message.len() || (question.is_none() && !asks_for_cookie) {
        return Err(malformed);
    }
    Ok(Query { header, question, edns })
}

fn question<'m>(message: &'m [u8], at: &mut usize) -> Option<Question<'m>> {
    let start = *at;
    let name = plain_name(message, at)?;
    let [a, b, c, d] = *message.get(*at..*at + 4)? else { return None };
    *at += 4;
    let wire = message.get(start..*at)?;
    Some(Question { wire, name, kind: u16::from_be_bytes([a, b]), class: u16::from_be_bytes([c, d]) })
}

/// A name without compression: there is nothing before a question that a pointer could mean.
fn plain_name<'m>(message: &'m [u8], at: &mut usize) -> Option<&'m [u8]> {
    let start = *at;
    loop {
        let length = usize::from(*message.get(*at)?);
        *at += 1;
        match length {
            0 => break,
            1..64 => *at += length,
            _ => return None,
        }
    }
    message.get(start..*at).filter(|name| name.len() <= name::MOST)
}

/// Owner (up to a pointer), type, class, TTL and data of a record.
type RecordParts<'m> = (&'m [u8], u16, u16, u32, &'m [u8]);

fn record<'m>(message: &'m [u8], at: &mut usize) -> Option<RecordParts<'m>> {
    let start = *at;
    loop {
        let length = usize::from(*message.get(*at)?);
        *at += 1;
        match length {
            0 => break,
            1..64 => *at += length,
            192.. => {
                // Where it points to is nobody's concern here, but for that it points back.
                let low = *message.get(*at)?;
                let target = (length & 0x3f) << 8 | usize::from(low);
                *at += 1;
                if target >= start {
                    return None;
                }
                break;
            }
            _ => return None,
        }
    }
    let owner = message.get(start..*at).filter(|name| name.len() <= name::MOST)?;
    let fixed = message.get(*at..)?.first_chunk::<RECORD_HEADER>()?;
    *at += RECORD_HEADER;
    let [kind, class] = [0, 2].map(|at| u16::from_be_bytes([fixed[at], fixed[at + 1]]));
    let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let data = message.get(*at..*at + length)?;
    *at += length;
    Some((owner, kind, class, ttl, data))
}

fn options(class: u16, ttl: u32, mut data: &[u8]) -> Option<Edns<'_>> {
    let [_, version, flags, _] = ttl.to_be_bytes();
    let mut edns = Edns { version, payload: class, dnssec_ok: flags & 0x80 != 0, ..Edns::default() };
    while !data.is_empty() {
        let (head, rest) = data.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, rest) = rest.split_at_checked(length)?;
        data = rest;
        // What another version means by its options is not known.
        if version != 0 {
            continue;
        }
        match u16::from_be_bytes([head[0], head[1]]) {
            // RFC 7873 section 5.2.2; of several only the first counts (section 5.2).
            option::COOKIE if !matches!(length, 8 | 16..=40) => return None,
            option::COOKIE => edns.cookie = edns.cookie.or(Some(value)),
            option::SUBNET => edns.subnet = Some(subnet(value)?),
            option::NSID => edns.wants_nsid = true,
            option::KEEPALIVE => edns.keepalive = true,
            _ => {}
        }
    }
    Some(edns)
}

/// RFC 7871 section 6: as many bytes as the length needs, zeros after it, and a scope of 0.
fn subnet(value: &[u8]) -> Option<Subnet> {
    let (head, prefix) = value.split_first_chunk::<4>()?;
    let family = u16::from_be_bytes([head[0], head[1]]);
    let [length, scope] = [head[2], head[3]];
    if scope != 0 || prefix.len() != usize::from(length).div_ceil(8) {
        return None;
    }
    let spare = (8 - length % 8) % 8;
    if prefix.last().is_some_and(|last| last.trailing_zeros() < u32::from(spare)) {
        return None;
    }
    let address = match family {
        0 if length == 0 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        1 if length <= 32 => {
            let mut octets = [0; 4];
            octets.get_mut(..prefix.len())?.copy_from_slice(prefix);
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        2 if length <= 128 => {
            let mut octets = [0; 16];
            octets.get_mut(..prefix.len())?.copy_from_slice(prefix);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(Subnet { family, length, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\x01";
    const QUESTION: &[u8] = b"\x03wWw\x07example\x03com\0\0\x01\0\x01";

    fn message(options: &[u8]) -> Vec<u8> {
        let length = (options.len() as u16).to_be_bytes();
        [HEAD, QUESTION, b"\0\0\x29\x04\xd0\0\0\x80\0", &length, options].concat()
    }

    #[test]
    fn a_query_is_taken_apart() {
        let bytes = message(b"\0\x0a\0\x0812345678\0\x08\0\x07\0\x01\x18\0\xc0\0\x02\0\x03\0\0\xff\xfe\0\x02xx");
        let query = parse(&bytes).unwrap();
        assert_eq!(query.header, Header { id: 0x1234, opcode: 0, recursion_desired: true, checking_disabled: false });
        let question = query.question.unwrap();
        assert_eq!((question.name, question.kind, question.class), (&b"\x03wWw\x07example\x03com\0"[..], 1, 1));
        assert_eq!(question.wire, QUESTION);
        let edns = query.edns.unwrap();
        assert_eq!((edns.version, edns.payload, edns.dnssec_ok, edns.wants_nsid), (0, 1232, true, true));
        assert_eq!(edns.cookie, Some(&b"12345678"[..]));
        let expected = Subnet { family: 1, length: 24, address: "192.0.2.0".parse().unwrap() };
        assert_eq!(edns.subnet, Some(expected));
    }

    #[test]
    fn malformed_options_are_form_errors() {
        for options in [
            &b"\0\x0a\0\x07\x31\x32\x33\x34\x35\x36\x37"[..],
            b"\0\x0a\0\x09123456789",
            b"\0\x0a\0\x08123",
            b"\0\x08\0\x07\0\x01\x18\x01\xc0\0\x02",
            b"\0\x08\0\x07\0\x01\x17\0\xc0\0\x03",
            b"\0\x08\0\x08\0\x01\x18\0\xc0\0\x02\0",
            b"\0\x08\0\x09\0\x01\x21\0\xc0\0\x02\0\0",
            b"\0\x08\0\x07\0\x03\x18\0\xc0\0\x02",
            b"\0\x08\0\x03\0\x01\0",
            b"\0",
        ] {
            let bytes = message(options);
            assert!(matches!(parse(&bytes), Err(Unusable::Failed(_, Rcode::FormErr))), "{}", options.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_request_is_ignored_and_other_kinds_are_refused() {
        let good = message(b"");
        assert!(parse(&good).is_ok());
        for length in 0..HEADER {
            assert_eq!(parse(&good[..length]).unwrap_err(), Unusable::Ignored);
        }
        for length in HEADER..good.len() {
            assert!(matches!(parse(&good[..length]), Err(Unusable::Failed(_, Rcode::FormErr))), "{length}");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            parse(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(2, 0x81), Unusable::Ignored);
        for opcode in 1..16 {
            assert!(matches!(with(2, opcode << 3), Unusable::Failed(_, Rcode::NotImp)));
        }
        // Two questions; two OPT records promised; a pointer in the question; an OPT record that is nobody's.
        for (at, byte) in [(5, 2), (11, 2), (12, 0xc0), (29 + 4, 1)] {
            assert!(matches!(with(at, byte), Unusable::Failed(_, Rcode::FormErr)), "{at}");
        }
        assert!(matches!(parse(&[&good[..], b"x"].concat()), Err(Unusable::Failed(_, Rcode::FormErr))));
    }

    #[test]
    fn a_cookie_may_be_asked_for_without_a_question() {
        let head = b"\x12\x34\0\0\0\0\0\0\0\0\0\x01";
        let with = [&head[..], b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x0812345678"].concat();
        assert!(parse(&with).unwrap().question.is_none());
        let without = [&head[..], b"\0\0\x29\x04\xd0\0\0\0\0\0\0"].concat();
        assert!(matches!(parse(&without), Err(Unusable::Failed(_, Rcode::FormErr))));
    }
}
