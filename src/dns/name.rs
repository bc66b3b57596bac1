//! Domain names in wire format (RFC 1035 section 3.1).

use std::borrow::Borrow;
use std::fmt;

/// Bytes that a name has at most, the root's length byte included.
pub const MOST: usize = 255;
/// Bytes that a label has at most.
const MOST_LABEL: usize = 63;

/// An absolute domain name: labels with their lengths, in lower case, and the root's zero.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// From wire format without compression, in any case.
    pub fn from_wire(wire: &[u8]) -> Self {
        Self(wire.to_ascii_lowercase().into())
    }

    /// A name as zone files write it: `www` below `origin`, `www.example.com.` by itself, `@` for the origin. A backslash
    /// takes the next character, or a byte's three decimal digits, as it is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, origin: Option<&Self>) -> Result<Self, String> {
        match (text, origin) {
            ("@", Some(origin)) => return Ok(origin.clone()),
            (".", _) => return Ok(Self(Box::new([0]))),
            ("", _) => return Err("a name is empty".to_owned()),
            _ => {}
        }
        let mut wire = vec![0];
        let mut length_at = 0;
        let mut absolute = false;
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'.' => {
                    if wire.len() == length_at + 1 {
                        return Err(format!("{text:?} has an empty label"));
                    }
                    length_at = wire.len();
                    wire.push(0);
                    absolute = true;
                    continue;
                }
                b'\\' => escaped(&mut bytes).ok_or_else(|| format!("{text:?} has a backslash before nothing"))?,
                byte => byte,
            };
            absolute = false;
            wire.push(byte.to_ascii_lowercase());
            let length = wire.len() - length_at - 1;
            if length > MOST_LABEL {
                return Err(format!("{text:?} has a label of more than 63 bytes"));
            }
            wire[length_at] = length as u8;
        }
        if !absolute {
            match origin {
                Some(origin) => wire.extend(&*origin.0),
                None => wire.push(0),
            }
        }
        if wire.len() > MOST {
            return Err(format!("{text:?} is longer than 255 bytes"));
        }
        Ok(Self(wire.into()))
    }

    /// The wire format.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is `zone` or below.
    pub fn is_within(&self, zone: &Self) -> bool {
        suffixes(&self.0).any(|suffix| suffix == &*zone.0)
    }

    /// Without the first label; `None` of the root.
    pub fn parent(&self) -> Option<Self> {
        suffixes(&self.0).nth(1).map(|wire| Self(wire.into()))
    }

    /// The name `label.self`.
    pub fn child(&self, label: &[u8]) -> Option<Self> {
        let mut wire = Vec::with_capacity(self.0.len() + label.len() + 1);
        wire.push(u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?);
        wire.extend(label.to_ascii_lowercase());
        wire.extend(&*self.0);
        (wire.len() <= MOST).then(|| Self(wire.into()))
    }
}

fn escaped(bytes: &mut std::str::Bytes<'_>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let mut number = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit)?;
        number = number * 10 + u16::from(digit - b'0');
    }
    u8::try_from(number).ok()
}

/// A name in wire format, its parent, and so on to the root. What is no name ends early.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire).filter(|wire| !wire.is_empty()), |wire| {
        let length = usize::from(*wire.first()?);
        (length > 0).then(|| wire.get(length + 1..)).flatten().filter(|rest| !rest.is_empty())
    })
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Without the final dot, but for the root.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

/// A name in wire format as people write it, without the final dot but for the root.
pub fn shown(wire: &[u8]) -> String {
    let mut text = String::new();
    for suffix in suffixes(wire) {
        let Some((length, rest)) = suffix.split_first().filter(|(length, _)| **length > 0) else { break };
        if !text.is_empty() {
            text.push('.');
        }
        for byte in rest.iter().take((*length).into()) {
            match byte {
                b'.' | b'\\' | b'"' | b';' | b'@' | b'$' | b'(' | b')' => text.extend(['\\', char::from(*byte)]),
                byte if byte.is_ascii_graphic() => text.push(char::from(*byte)),
                byte => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let origin = Name::parse("Example.COM.", None).unwrap();
        assert_eq!(origin.as_wire(), b"\x07example\x03com\x00");
        for (text, shown) in [
            ("@", "example.com"),
            ("www", "www.example.com"),
            ("a.B", "a.b.example.com"),
            ("other.net.", "other.net"),
            ("*", "*.example.com"),
            ("x\\.y", "x\\.y.example.com"),
            ("\\255", "\\255.example.com"),
            (".", "."),
        ] {
            let name = Name::parse(text, Some(&origin)).unwrap();
            assert_eq!(name.to_string(), shown);
            assert_eq!(
                Name::parse(&format!("{}.", name.to_string().trim_end_matches('.')), None).unwrap_or(name.clone()),
                name
            );
        }
        let (long, many) = ("x".repeat(64), "abcdefg.".repeat(32));
        for bad in ["", "a..b", ".a", "\\", "\\25", "\\256", long.as_str(), many.as_str()] {
            assert!(Name::parse(bad, Some(&origin)).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_lie_in_each_other() {
        let name = |text: &str| Name::parse(text, None).unwrap();
        assert!(name("a.b.c").is_within(&name("b.c")) && name("b.c").is_within(&name("b.c")));
        assert!(name("b.c").is_within(&name(".")) && !name("ab.c").is_within(&name("b.c")));
        assert_eq!(name("a.b").parent(), Some(name("b")));
        assert_eq!(name("b").parent().and_then(|root| root.parent()), None);
        assert_eq!(name("b").child(b"*"), Some(name("*.b")));
        assert_eq!(suffixes(name("a.b").as_wire()).count(), 3);
    }
}
