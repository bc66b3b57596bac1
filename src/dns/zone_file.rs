//! Zone files (RFC 1035 section 5), entry by entry, so that whatever is wrong has a line.
//!
//! The entries are taken apart here; the data of records is read by hickory-proto, which knows the types.

use super::message::kind;
use super::name::Name;
use super::zone::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use hickory_proto::serialize::txt::Parser;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Files that include each other, one in another.
const MOST_INCLUDES: usize = 8;
/// Seconds that a TTL may have (RFC 2181 section 8).
const LONGEST_TTL: u32 = i32::MAX as u32;

/// What is wrong with a zone file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {reason}", path.display())]
pub struct FileProblem {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Reads a zone file and what it includes.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(path: &Path, apex: &Name, ttl: u32) -> Result<Vec<Record>, Vec<FileProblem>> {
    let mut reader = Reader { records: Vec::new(), problems: Vec::new(), ttl };
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![FileProblem { path: path.to_owned(), line: 1, reason: format!("the file cannot be read: {error}") }]
    })?;
    reader.file(&text, path, apex.clone(), 0);
    if reader.problems.is_empty() { Ok(reader.records) } else { Err(reader.problems) }
}

/// Reads one record as a line of a zone file has it: `www 300 A 192.0.2.1`.
///
/// # Errors
/// What is wrong with it.
pub fn record(line: &str, apex: &Name, ttl: u32) -> Result<Record, String> {
    let mut entries = entries(line)?;
    match (entries.pop(), entries.pop()) {
        (Some(entry), None) if !entry.continues => entry_record(&entry, None, apex, ttl),
        _ => Err("it is not one record; write it as in \"www A 192.0.2.1\"".to_owned()),
    }
}

struct Reader {
    records: Vec<Record>,
    problems: Vec<FileProblem>,
    ttl: u32,
}

impl Reader {
    fn file(&mut self, text: &str, path: &Path, mut origin: Name, depth: usize) {
        let (entries, end) = scan(text);
        let mut owner: Option<Name> = None;
        for entry in entries {
            let directive = entry.tokens.first().filter(|token| !token.quoted && token.text.starts_with('$'));
            let done = match directive.map(|token| token.text.to_ascii_uppercase()) {
                Some(directive) => self.directive(&directive, &entry, path, &mut origin, depth),
                None => entry_record(&entry, owner.as_ref(), &origin, self.ttl).map(|record| {
                    owner = Some(record.owner.clone());
                    self.records.push(record);
                }),
            };
            if let Err(reason) = done {
                self.problems.push(FileProblem { path: path.to_owned(), line: entry.line, reason });
            }
        }
        if let Some((line, reason)) = end {
            self.problems.push(FileProblem { path: path.to_owned(), line, reason });
        }
    }

    fn directive(
        &mut self,
        directive: &str,
        entry: &Entry,
        path: &Path,
        origin: &mut Name,
        depth: usize,
    ) -> Result<(), String> {
        let argument = entry.tokens.get(1).map(|token| token.text.as_str());
        let needed = argument.ok_or_else(|| format!("{directive} names nothing"));
        match directive {
            "$ORIGIN" => *origin = Name::parse(needed?, Some(origin))?,
            "$TTL" => self.ttl = seconds(needed?).ok_or("$TTL is no time; write seconds, or as in 1h30m")?,
            "$INCLUDE" => {
                let file = path.parent().unwrap_or(Path::new("")).join(needed?);
                let origin = match entry.tokens.get(2) {
                    Some(token) => Name::parse(&token.text, Some(origin))?,
                    None => origin.clone(),
                };
                if depth >= MOST_INCLUDES {
                    return Err(format!("more than {MOST_INCLUDES} files include each other"));
                }
                let text = std::fs::read_to_string(&file)
                    .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
                let ttl = self.ttl;
                self.file(&text, &file, origin, depth + 1);
                self.ttl = ttl;
            }
            other => return Err(format!("{other} is not understood; $ORIGIN, $TTL and $INCLUDE are")),
        }
        Ok(())
    }
}

/// A logical line.
struct Entry {
    /// Where it begins, from 1.
    line: usize,
    /// It begins with white space: the owner is that of the entry before.
    continues: bool,
    tokens: Vec<Token>,
}

struct Token {
    /// As written, escapes included, quotes not.
    text: String,
    quoted: bool,
}

fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let (entries, end) = scan(text);
    match end {
        Some((_, reason)) => Err(reason),
        None => Ok(entries),
    }
}

/// Logical lines: comments left out, parentheses joined. At last what is open at the end, if anything.
fn scan(text: &str) -> (Vec<Entry>, Option<(usize, String)>) {
    let mut scanner = Scanner::default();
    for (number, line) in text.lines().enumerate() {
        if let Err(reason) = scanner.line(line, number + 1) {
            return (scanner.entries, Some((number + 1, reason)));
        }
    }
    let open = scanner.open.then_some((scanner.begun, "a parenthesis is not closed".to_owned()));
    (scanner.entries, open)
}

#[derive(Default)]
struct Scanner {
    entries: Vec<Entry>,
    /// Within parentheses.
    open: bool,
    begun: usize,
}

impl Scanner {
    fn line(&mut self, line: &str, number: usize) -> Result<(), String> {
        let mut tokens = Vec::new();
        let mut entry = match self.open {
            true => self.entries.pop(),
            false => None,
        };
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                ';' => break,
                '(' if self.open => return Err("a parenthesis within parentheses".to_owned()),
                '(' => (self.open, self.begun) = (true, number),
                ')' if !self.open => return Err("a parenthesis is closed that was not opened".to_owned()),
                ')' => self.open = false,
                '"' => tokens.push(Token { text: quoted(&mut chars)?, quoted: true }),
                c if c.is_whitespace() => {}
                c => {
                    let mut text = String::from(c);
                    if c == '\\' {
                        text.extend(chars.next());
                    }
                    while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !";()\"".contains(*c)) {
                        text.push(c);
                        if c == '\\' {
                            text.extend(chars.next());
                        }
                    }
                    // `alpn="h2,h3"` is one field (RFC 9460 section 2.1).
                    if text.ends_with('=') && chars.next_if_eq(&'"').is_some() {
                        text.push_str(&quoted(&mut chars)?);
                    }
                    tokens.push(Token { text, quoted: false });
                }
            }
        }
        if let Some(entry) = &mut entry {
            entry.tokens.extend(tokens);
        } else if !tokens.is_empty() || self.open {
            let continues = line.starts_with(char::is_whitespace);
            entry = Some(Entry { line: number, continues, tokens });
        }
        self.entries.extend(entry);
        Ok(())
    }
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(text),
            '\\' => {
                text.push(c);
                text.extend(chars.next());
            }
            c => text.push(c),
        }
    }
    Err("a quoted text has no end on its line".to_owned())
}

fn entry_record(entry: &Entry, before: Option<&Name>, origin: &Name, ttl: u32) -> Result<Record, String> {
    let mut tokens = entry.tokens.iter();
    let owner = match (entry.continues, before) {
        (true, Some(before)) => before.clone(),
        (true, None) => return Err("there is no entry before whose name it could share".to_owned()),
        _ => Name::parse(tokens.next().map_or("", |token| &token.text), Some(origin))?,
    };
    let mut own_ttl = None;
    let kind = loop {
        let word = &tokens.next().ok_or("there is no record type; write it as in `www 300 A 192.0.2.1`")?.text;
        if word.eq_ignore_ascii_case("IN") {
            continue;
        }
        match seconds(word) {
            Some(seconds) if own_ttl.is_none() => own_ttl = Some(seconds),
            _ => break word.to_ascii_uppercase(),
        }
    };
    let data: Vec<&Token> = tokens.collect();
    let (kind, data) = record_data(&kind, &data, origin)?;
    Ok(Record { owner, kind, ttl: own_ttl.unwrap_or(ttl), data })
}

/// `300`, or `1h30m`.
fn seconds(text: &str) -> Option<u32> {
    let (mut total, mut number) = (0_u32, None::<u32>);
    for byte in text.bytes() {
        let unit = match byte.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u32::from(digit - b'0'))?);
                continue;
            }
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    let all = match number {
        Some(number) => total.checked_add(number)?,
        None if text.is_empty() => return None,
        None => total,
    };
    (all <= LONGEST_TTL).then_some(all)
}

/// How many fields the data of a type has, where that is fixed, and how they are named.
fn fields_of(kind: &str) -> Option<(usize, &'static str)> {
    Some(match kind {
        "A" => (1, "an IPv4 address"),
        "AAAA" => (1, "an IPv6 address"),
        "NS" | "CNAME" | "PTR" => (1, "a name"),
        "MX" => (2, "a preference and a name"),
        "SRV" => (4, "priority, weight, port and a name"),
        "CAA" => (3, "flags, a tag and a value"),
        "SOA" => (7, "two names and five numbers"),
        _ => return None,
    })
}

fn record_data(kind: &str, tokens: &[&Token], origin: &Name) -> Result<(u16, Vec<u8>), String> {
    if let [marker, length, hex @ ..] = tokens
        && marker.text == "\\#"
    {
        return opaque(kind, &length.text, hex);
    }
    if let Some((count, what)) = fields_of(kind).filter(|(count, _)| *count != tokens.len()) {
        return Err(format!("{kind} needs {what} ({count} fields), not {}", tokens.len()));
    }
    let number = RecordType::from_str(kind).map_err(|_| format!("{kind} is no record type that is known here"))?;
    let number = u16::from(number);
    if matches!(number, kind::DNAME | kind::OPT | kind::DS | 128..=255) || matches!(number, 43..=51) {
        return Err(format!("{kind} records cannot be served"));
    }
    let mut text = format!("x. 1 IN {kind}");
    for (at, token) in tokens.iter().enumerate() {
        text.push(' ');
        match (token.quoted, &*token.text) {
            (true, quoted) => text.push_str(&format!("\"{quoted}\"")),
            (false, "@") => text.push_str(&absolute(origin)),
            (false, time) if number == kind::SOA && at >= 3 => {
                let seconds =
                    seconds(time).ok_or_else(|| format!("{time:?} is no time; write seconds, or as in 1h30m"))?;
                text.push_str(&seconds.to_string());
            }
            (false, plain) => text.push_str(plain),
        }
    }
    text.push('\n');
    let name = hickory_proto::rr::Name::from_str(&absolute(origin)).map_err(|error| error.to_string())?;
    let unreadable = |error: &dyn std::fmt::Display| {
        let (given, what) =
            (text.splitn(5, ' ').nth(4).unwrap_or("").trim(), fields_of(kind).map_or("", |(_, what)| what));
        let expected = if what.is_empty() { String::new() } else { format!(", expected {what}") };
        format!("{given:?} is no data of type {kind}{expected} ({error})")
    };
    let (_, sets) = Parser::new(text.as_str(), None, Some(name)).parse().map_err(|error| unreadable(&error))?;
    let record = sets.values().flat_map(|set| set.records_without_rrsigs()).next();
    let record = record.ok_or_else(|| unreadable(&"nothing was read"))?;
    let mut wire = Vec::new();
    let mut encoder = BinEncoder::new(&mut wire);
    // The canonical form has no compression.
    encoder.set_canonical_form(true);
    record.data.emit(&mut encoder).map_err(|error| unreadable(&error))?;
    Ok((number, wire))
}

/// Data of any type in hexadecimal digits (RFC 3597 section 5).
fn opaque(kind: &str, length: &str, hex: &[&Token]) -> Result<(u16, Vec<u8>), String> {
    let number = kind.strip_prefix("TYPE").and_then(|number| number.parse().ok());
    let number = number.or_else(|| RecordType::from_str(kind).ok().map(u16::from).filter(|number| *number != 0));
    let number = number.ok_or_else(|| format!("{kind} is no record type"))?;
    let digits: String = hex.iter().map(|token| token.text.as_str()).collect();
    let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let data: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    // Names in data of types with names would not be looked into.
    let opaque = number >= 256 || matches!(number, 52 | 61 | 64 | 65);
    match data.filter(|data| length.parse() == Ok(data.len())) {
        Some(data) if opaque => Ok((number, data)),
        Some(_) => Err(format!("write the data of {kind} records in its own form")),
        None => Err("the data is not as many hexadecimal bytes as it says".to_owned()),
    }
}

fn absolute(name: &Name) -> String {
    let shown = name.to_string();
    if shown == "." { shown } else { format!("{shown}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apex() -> Name {
        Name::parse("example.com.", None).unwrap()
    }

    fn read_text(text: &str) -> Result<Vec<Record>, Vec<FileProblem>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("z");
        std::fs::write(dir.path().join("more"), "more A 192.0.2.77\n").unwrap();
        std::fs::write(&path, text).unwrap();
        read(&path, &apex(), 60)
    }

    #[test]
    fn a_zone_file_is_read() {
        let records = read_text(
            "$TTL 1h\n@ IN SOA ns1 host\\.master ( 7 ; serial\n  2h 30m 2w\n  5m )\n  NS ns1\n  300 NS ns2.example.net.\n\
             ns1 A 192.0.2.1\n    IN 1m AAAA 2001:db8::1\n$ORIGIN sub\na CNAME @\n*.b TXT \"one; two\" three \"q\\\"q\"\n\
             $INCLUDE more\n$INCLUDE more other.example.com.\nx HTTPS 1 . alpn=\"h2,h3\" ipv4hint=192.0.2.9\ny TYPE65280 \\# 3 010203\n\
             z CAA 0 issue \"letsencrypt.org\"\nw MX 10 mail\n",
        )
        .unwrap();
        let shown: Vec<String> =
            records.iter().map(|r| format!("{} {} {} {}", r.owner, r.ttl, r.kind, r.data.escape_ascii())).collect();
        let at = |n: usize| shown[n].as_str();
        assert!(
            at(0).starts_with("example.com 3600 6 \\x03ns1\\x07example\\x03com\\x00\\x0bhost.master\\x07"),
            "{}",
            at(0)
        );
        assert!(
            at(0).ends_with("\\x00\\x00\\x00\\x07\\x00\\x00\\x1c \\x00\\x00\\x07\\x08\\x00\\x12u\\x00\\x00\\x00\\x01,"),
            "{}",
            at(0)
        );
        assert_eq!(at(2), "example.com 300 2 \\x03ns2\\x07example\\x03net\\x00");
        assert_eq!(at(3), "ns1.example.com 3600 1 \\xc0\\x00\\x02\\x01");
        assert!(at(4).starts_with("ns1.example.com 60 28 "));
        assert_eq!(at(5), "a.sub.example.com 3600 5 \\x03sub\\x07example\\x03com\\x00");
        assert_eq!(at(6), "*.b.sub.example.com 3600 16 \\x08one; two\\x05three\\x03q\\\"q");
        assert!(at(7).starts_with("more.sub.example.com 3600 1") && at(8).starts_with("more.other.example.com 3600 1"));
        assert!(at(9).starts_with("x.sub.example.com 3600 65 \\x00\\x01\\x00"), "{}", at(9));
        assert_eq!(at(10), "y.sub.example.com 3600 65280 \\x01\\x02\\x03");
        assert_eq!(at(11), "z.sub.example.com 3600 257 \\x00\\x05issueletsencrypt.org");
        assert_eq!(at(12), "w.sub.example.com 3600 15 \\x00\\n\\x04mail\\x03sub\\x07example\\x03com\\x00");
    }

    #[test]
    fn each_problem_has_its_line() {
        let problems = read_text(
            "  A 192.0.2.1\nwww A 192.0.2.300\nwww A\nwww 300\n$GENERATE 1-2 a A 1\nwww NONSENSE x\na..b A 192.0.2.1\n\
             $TTL soon\n$INCLUDE nowhere\nwww A 192.0.2.1 192.0.2.2\nwww DS 1 2 3 4\nwww MX x mail\nwww TXT \"open\n",
        )
        .unwrap_err();
        let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, (1..=13).collect::<Vec<_>>(), "{problems:#?}");
        assert!(
            problems[1].to_string().ends_with("(network address parse error: invalid IPv4 address syntax)"),
            "{}",
            problems[1]
        );
        assert!(problems[12].reason.contains("no end"));
        assert_eq!(read_text("www A (\n192.0.2.1\n").unwrap_err()[0].line, 1);
        assert_eq!(record("www A 192.0.2.1\nx A 192.0.2.1", &apex(), 5).map(|r| r.ttl).ok(), None);
        assert_eq!(record("www A 192.0.2.1", &apex(), 5).map(|r| r.ttl), Ok(5));
    }

    #[test]
    fn times_have_units() {
        for (text, time) in
            [("0", Some(0)), ("1h30m", Some(5400)), ("1W", Some(604_800)), ("90", Some(90)), ("1m5", Some(65))]
        {
            assert_eq!(seconds(text), time, "{text}");
        }
        for text in ["", "h", "1x", "99999999999", "2147483648", "A"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
