//! Dictionaries of structured fields (RFC 9651), strictly parsed: a field that breaks the grammar anywhere is no field.

use http::header::{HeaderMap, HeaderName};

/// A value without its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Bare {
    /// At most 15 digits (section 3.3.1).
    Integer(i64),
    /// At most 12 digits before the point and 3 behind it (section 3.3.2), in thousandths.
    Decimal(i64),
    /// Between quotes (section 3.3.3).
    String(String),
    /// A word (section 3.3.4).
    Token(String),
    /// Bytes in base64 (section 3.3.5), as they were written.
    Bytes(String),
    /// `?0` or `?1`, or a key alone (section 3.3.6).
    Boolean(bool),
    /// Seconds since 1970 (section 3.3.7).
    Date(i64),
    /// Unicode text (section 3.3.8).
    Display(String),
    /// Several values in parentheses (section 3.1.1).
    List(Vec<Bare>),
}

/// The members of a dictionary in their order, each key once; parameters are checked and left out.
///
/// `None` where the field is missing or empty, or breaks the grammar (section 4.2.2).
pub fn dictionary(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<(String, Bare)>> {
    let mut lines = headers.get_all(name).iter();
    let mut text = lines.next()?.as_bytes().to_vec();
    for line in lines {
        text.extend_from_slice(b", ");
        text.extend_from_slice(line.as_bytes());
    }
    Parser { rest: &text }.dictionary().filter(|members| !members.is_empty())
}

/// Deepest recursion is one: inner lists hold items only.
struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn dictionary(&mut self) -> Option<Vec<(String, Bare)>> {
        let mut members: Vec<(String, Bare)> = Vec::new();
        self.spaces();
        while !self.rest.is_empty() {
            let key = self.key()?;
            let value = if self.take(b'=') { self.item_or_list()? } else { Bare::Boolean(true) };
            self.parameters()?;
            // The last of several values takes the place of the first.
            match members.iter_mut().find(|(other, _)| *other == key) {
                Some((_, slot)) => *slot = value,
                None => members.push((key, value)),
            }
            self.optional_whitespace();
            if self.rest.is_empty() {
                break;
            }
            if !self.take(b',') {
                return None;
            }
            self.optional_whitespace();
            if self.rest.is_empty() {
                return None;
            }
        }
        Some(members)
    }

    fn item_or_list(&mut self) -> Option<Bare> {
        if !self.take(b'(') {
            return self.bare();
        }
        let mut items = Vec::new();
        loop {
            self.spaces();
            if self.take(b')') {
                return Some(Bare::List(items));
            }
            items.push(self.bare()?);
            self.parameters()?;
            if !matches!(self.rest.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.spaces();
            self.key()?;
            if self.take(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    fn key(&mut self) -> Option<String> {
        let first = *self.rest.first()?;
        if !first.is_ascii_lowercase() && first != b'*' {
            return None;
        }
        let more = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(byte);
        self.text(self.rest.iter().take_while(|byte| more(byte)).count())
    }

    fn bare(&mut self) -> Option<Bare> {
        match self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string().map(Bare::String),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                let more = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(byte);
                self.text(self.rest.iter().take_while(|byte| more(byte)).count()).map(Bare::Token)
            }
            b':' => self.bytes(),
            b'?' => {
                let value = match self.rest.get(1)? {
                    b'0' => false,
                    b'1' => true,
                    _ => return None,
                };
                self.rest = &self.rest[2..];
                Some(Bare::Boolean(value))
            }
            b'@' => {
                self.rest = &self.rest[1..];
                match self.number()? {
                    Bare::Integer(seconds) => Some(Bare::Date(seconds)),
                    _ => None,
                }
            }
            b'%' => self.display(),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Bare> {
        let negative = self.take(b'-');
        let (whole, whole_digits) = self.digits()?;
        let sign = if negative { -1 } else { 1 };
        if !self.take(b'.') {
            return (whole_digits <= 15).then_some(Bare::Integer(sign * whole));
        }
        let (fraction, digits) = self.digits()?;
        if whole_digits > 12 || digits > 3 {
            return None;
        }
        let thousandths = fraction * [0, 100, 10, 1][digits];
        Some(Bare::Decimal(sign * (whole * 1000 + thousandths)))
    }

    /// A run of 1 to 16 digits, and how many they are.
    fn digits(&mut self) -> Option<(i64, usize)> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count > 16 {
            return None;
        }
        let digits = self.text(count)?;
        Some((digits.parse().ok()?, count))
    }

    fn string(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix(b"\"")?;
        let mut text = String::new();
        loop {
            match self.next()? {
                b'\\' => match self.next()? {
                    escaped @ (b'"' | b'\\') => text.push(char::from(escaped)),
                    _ => return None,
                },
                b'"' => return Some(text),
                byte @ 0x20..=0x7e => text.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    fn bytes(&mut self) -> Option<Bare> {
        self.rest = self.rest.strip_prefix(b":")?;
        let end = self.rest.iter().position(|byte| *byte == b':')?;
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
        if !self.rest[..end].iter().all(allowed) {
            return None;
        }
        let text = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        self.rest = &self.rest[end + 1..];
        Some(Bare::Bytes(text))
    }

    fn display(&mut self) -> Option<Bare> {
        self.rest = self.rest.strip_prefix(b"%\"")?;
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'%' => {
                    let digit = |byte: u8| match byte {
                        b'0'..=b'9' => Some(byte - b'0'),
                        b'a'..=b'f' => Some(byte - b'a' + 10),
                        _ => None,
                    };
                    bytes.push(digit(self.next()?)? << 4 | digit(self.next()?)?);
                }
                b'"' => return String::from_utf8(bytes).ok().map(Bare::Display),
                byte @ 0x20..=0x7e => bytes.push(byte),
                _ => return None,
            }
        }
    }

    /// Takes `count` bytes, of which there has to be one at least.
    fn text(&mut self, count: usize) -> Option<String> {
        if count == 0 {
            return None;
        }
        let (text, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn spaces(&mut self) {
        while self.take(b' ') {}
    }

    fn optional_whitespace(&mut self) {
        while self.take(b' ') || self.take(b'\t') {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const NAME: HeaderName = HeaderName::from_static("cdn-cache-control");

    fn parse(lines: &[&str]) -> Option<Vec<(String, Bare)>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NAME, HeaderValue::from_str(line).unwrap());
        }
        dictionary(&headers, &NAME)
    }

    fn one(line: &str) -> Option<Bare> {
        let members = parse(&[line])?;
        assert_eq!(members.len(), 1, "{line}");
        Some(members[0].1.clone())
    }

    #[test]
    fn the_examples_of_rfc_9651_are_read() {
        let members = parse(&[r#"en="Applepie", da=:w4ZibGV0w6ZydGU=:"#]).unwrap();
        assert_eq!(members[0], ("en".into(), Bare::String("Applepie".into())));
        assert_eq!(members[1], ("da".into(), Bare::Bytes("w4ZibGV0w6ZydGU=".into())));
        let members = parse(&["a=?0, b, c; foo=bar"]).unwrap();
        let values: Vec<&Bare> = members.iter().map(|(_, value)| value).collect();
        assert_eq!(values, [&Bare::Boolean(false), &Bare::Boolean(true), &Bare::Boolean(true)]);
        assert_eq!(parse(&["a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid"]).unwrap().len(), 4);
        assert_eq!(parse(&["foo=1", "bar=2"]), parse(&["foo=1, bar=2"]));
        for (line, value) in [
            ("a=42", Bare::Integer(42)),
            ("a=-42", Bare::Integer(-42)),
            ("a=4.5", Bare::Decimal(4500)),
            (r#"a="hello \"world\"""#, Bare::String("hello \"world\"".into())),
            ("a=foo123/456", Bare::Token("foo123/456".into())),
            ("a=@1659578233", Bare::Date(1_659_578_233)),
            (r#"a=%"f%c3%bc""#, Bare::Display("fü".into())),
            ("a=1,a=2", Bare::Integer(2)),
            ("a=999999999999999", Bare::Integer(999_999_999_999_999)),
            ("  a=1\t ", Bare::Integer(1)),
        ] {
            assert_eq!(one(line), Some(value), "{line}");
        }
    }

    #[test]
    fn whatever_breaks_the_grammar_is_no_field() {
        for line in [
            "",
            "   ",
            "a,",
            "a,,b",
            ",a",
            "A=1",
            "a =1",
            "a= 1",
            "a=1 b=2",
            "a=1, &&&&&",
            "a=\"x",
            "a=\"\\x\"",
            "a=(1",
            "a=(1,2)",
            "a=1000000000000000",
            "a=1.",
            "a=1.2345",
            "a=-",
            "a=?2",
            "a=:*:",
            "a=@1.5",
            "a=%\"%C3\"",
            "a;=1",
            "a=",
            "a=é",
        ] {
            assert_eq!(parse(&[line]), None, "{line:?}");
        }
        assert_eq!(dictionary(&HeaderMap::new(), &NAME), None);
    }

    proptest! {
        #[test]
        fn no_input_panics(line in proptest::collection::vec(32u8..255, 0..60)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                headers.insert(NAME, value);
                let _ = dictionary(&headers, &NAME);
            }
        }

        #[test]
        fn any_integer_in_range_survives(number in -999_999_999_999_999i64..=999_999_999_999_999) {
            prop_assert_eq!(one(&format!("a={number}")), Some(Bare::Integer(number)));
        }
    }
}
