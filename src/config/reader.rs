//! Takes keys out of a parsed TOML tree, table by table, and writes down every problem instead of stopping at the first.
//!
//! A reader that meets a problem gives `None` (or the caller a default) and goes on: whoever collects the values only
//! uses them when no problem was written down.

use super::problem::{Position, Problem, nearest};
use crate::types::{ByteSize, Secret};
use std::cell::{Cell, RefCell};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// Longest duration accepted: adding it to a present time cannot overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The text that is read, its surroundings, and what was found wrong so far.
pub(super) struct Document<'a> {
    /// The TOML text; offsets count its bytes.
    pub text: &'a str,
    /// Folder that relative paths start from.
    pub base: &'a Path,
    /// Looks an environment variable up.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// What is wrong.
    pub problems: RefCell<Vec<Problem>>,
    /// Set when the TOML is broken: what seems to be missing may be in the part that was not understood.
    pub incomplete: Cell<bool>,
}

impl Document<'_> {
    /// Writes a problem down.
    pub fn problem(&self, offset: usize, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let position = Some(self.position(offset));
        let problem = Problem { position, key: key.to_owned(), message: message.into(), remedy: remedy.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// Writes down that something is missing, unless the text is broken anyway.
    pub fn absence(&self, offset: usize, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        if !self.incomplete.get() {
            self.problem(offset, key, message, remedy);
        }
    }

    /// Line and column of a byte offset.
    pub fn position(&self, offset: usize) -> Position {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// A table whose keys are taken one after the other; those nobody asked for are unknown keys.
pub(super) struct Table<'a> {
    pub document: &'a Document<'a>,
    /// Its key path; empty for the whole file.
    pub path: String,
    /// Where its header, or its brace, is.
    pub span: Range<usize>,
    entries: &'a DeTable<'a>,
    asked: RefCell<Vec<&'static str>>,
    missing: RefCell<Vec<(&'static str, &'static str)>>,
}

impl<'a> Table<'a> {
    /// Reads a table with `read`, then reports the keys it did not ask for and the required ones that are not there.
    pub fn read<R>(
        document: &'a Document<'a>,
        path: String,
        span: Range<usize>,
        entries: &'a DeTable<'a>,
        read: impl FnOnce(&Self) -> R,
    ) -> R {
        let table = Self { document, path, span, entries, asked: RefCell::default(), missing: RefCell::default() };
        let result = read(&table);
        table.finish();
        result
    }

    /// The value of an optional key.
    pub fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().push(key);
        let (_, value) = self.entries.get_key_value(key)?;
        Some(self.value(key, value.get_ref(), value.span()))
    }

    /// The value of a key that has to be there; `example` is shown when it is not.
    pub fn required(&self, key: &'static str, example: &'static str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.missing.borrow_mut().push((key, example));
        }
        value
    }

    /// Reads the table under `key`, if there is one.
    pub fn section<R>(&self, key: &'static str, read: impl FnOnce(&Table<'a>) -> R) -> Option<R> {
        self.get(key)?.table(read)
    }

    /// All entries, for tables whose keys are names that the operator chose.
    pub fn named(&self) -> Vec<(&'a str, Value<'a>)> {
        let entry = |(key, value): (&'a toml::Spanned<toml::de::DeString<'a>>, &'a toml::Spanned<DeValue<'a>>)| {
            let name: &'a str = key.get_ref().as_ref();
            (name, self.value(name, value.get_ref(), value.span()))
        };
        self.entries.iter().map(entry).collect()
    }

    /// Writes a problem down at this table's header.
    pub fn absence(&self, message: impl Into<String>, remedy: impl Into<String>) {
        self.document.absence(self.span.start, &self.path, message, remedy);
    }

    fn value(&self, key: &str, value: &'a DeValue<'a>, span: Range<usize>) -> Value<'a> {
        Value { document: self.document, path: self.child(key), span, value }
    }

    fn child(&self, key: &str) -> String {
        let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if bare { key.to_owned() } else { format!("{key:?}") };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    fn finish(&self) {
        let asked = self.asked.borrow();
        let place = match self.path.as_str() {
            "" => "at the top level".to_owned(),
            path if path.contains('[') => format!("in `{path}`"),
            path => format!("in [{path}]"),
        };
        let mut meant = Vec::new();
        for (key, _) in self.entries.iter() {
            let name: &str = key.get_ref().as_ref();
            if asked.is_empty() || asked.contains(&name) {
                continue;
            }
            let free = asked.iter().copied().filter(|known| !self.entries.contains_key(*known));
            let remedy = match nearest(name, free) {
                Some(near) => {
                    meant.push(near);
                    format!("did you mean `{near}`?")
                }
                None => format!("remove it; the keys known here are {}", list(asked.iter().copied())),
            };
            self.document.problem(key.span().start, &self.child(name), format!("unknown key `{name}` {place}"), remedy);
        }
        for (key, example) in self.missing.borrow().iter().filter(|(key, _)| !meant.contains(key)) {
            let message = format!("`{key}` is missing {place}");
            let path = self.child(key);
            self.document.absence(self.span.start, &path, message, format!("add `{key} = {example}`"));
        }
    }
}

/// One value and where it is.
pub(super) struct Value<'a> {
    pub document: &'a Document<'a>,
    /// Its key path.
    pub path: String,
    /// Where it is.
    pub span: Range<usize>,
    value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    /// Writes a problem down here.
    pub fn problem(&self, message: impl Into<String>, remedy: impl Into<String>) {
        self.document.problem(self.span.start, &self.path, message, remedy);
    }

    /// The last part of the key path, without index.
    pub fn key(&self) -> &str {
        let last = self.path.rsplit('.').next().unwrap_or(&self.path);
        last.split('[').next().unwrap_or(last)
    }

    /// The text, without reporting when it is none.
    pub fn as_str(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// A text; `example` is shown to who wrote something else.
    pub fn string(&self, example: &str) -> Option<&'a str> {
        let text = self.as_str();
        if text.is_none() {
            let remedy = match self.value {
                DeValue::Integer(n) => format!("put it in quotes: `\"{}\"`", n.as_str()),
                DeValue::Float(n) => format!("put it in quotes: `\"{}\"`", n.as_str()),
                _ => format!("write it as in `{} = {example}`", self.key()),
            };
            self.wrong_type("a string", remedy);
        }
        text
    }

    /// A text of at least one character.
    pub fn text(&self, example: &str) -> Option<&'a str> {
        let text = self.string(example)?;
        if text.trim().is_empty() {
            self.problem(format!("`{}` is empty", self.path), format!("write it as in `{} = {example}`", self.key()));
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.wrong_type(
                "true or false",
                format!("write `{0} = true` or `{0} = false`, without quotes", self.key()),
            );
        }
        value
    }

    /// A whole number within `range`.
    pub fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let remedy = format!("write a number from {} to {}, without quotes", range.start(), range.end());
        let DeValue::Integer(number) = self.value else {
            self.wrong_type("a whole number", remedy);
            return None;
        };
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n));
        if value.is_none() {
            self.problem(format!("`{}` is {number}, out of range", self.path), remedy);
        }
        value
    }

    /// A number of bytes: `"256 MiB"` or a plain number.
    pub fn size(&self) -> Option<u64> {
        let remedy = "write a number with a unit, as in \"256 MiB\" or \"2 GB\"";
        let parsed = match self.value {
            DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
                Ok(bytes) => return Some(bytes),
                Err(_) => {
                    self.problem(format!("`{}` is {number}, not a number of bytes", self.path), remedy);
                    return None;
                }
            },
            DeValue::String(text) => text.parse::<ByteSize>(),
            _ => {
                self.wrong_type("a size", remedy);
                return None;
            }
        };
        match parsed {
            Ok(ByteSize(bytes)) => Some(bytes),
            Err(_) => {
                self.problem(format!("`{}` is \"{}\", not a size", self.path, self.shown()), remedy);
                None
            }
        }
    }

    /// A duration such as `"30s"`, longer than nothing.
    pub fn timeout(&self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration.is_zero() {
            self.problem(
                format!("`{}` is zero, so nothing would ever be in time", self.path),
                "write a longer duration, as in \"10s\"",
            );
            return None;
        }
        Some(duration)
    }

    /// A duration such as `"30s"`, `"500ms"` or `"1h 30m"`; up to a year.
    pub fn duration(&self) -> Option<Duration> {
        const REMEDY: &str = "write a number with a unit, as in \"500ms\", \"30s\" or \"2m\"";
        let text = match self.value {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) => {
                self.wrong_type("a duration", format!("if seconds are meant, write \"{}s\"", number.as_str()));
                return None;
            }
            _ => {
                self.wrong_type("a duration", REMEDY);
                return None;
            }
        };
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= LONGEST => Some(duration),
            Ok(_) => {
                self.problem(
                    format!("`{}` is \"{}\", out of range", self.path, self.shown()),
                    "write at most \"366days\"",
                );
                None
            }
            Err(_) => {
                self.problem(format!("`{}` is \"{}\", not a duration", self.path, self.shown()), REMEDY);
                None
            }
        }
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let quoted = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>();
        let known = quoted.join(", ");
        let given = self.string(quoted.first().map_or("\"\"", |first| first))?;
        let found = choices.iter().find(|(word, _)| *word == given);
        if found.is_none() {
            let remedy = match nearest(given, choices.iter().map(|(word, _)| *word)) {
                // Numbers are near to each other without being slips of each other.
                Some(near) if given.contains(char::is_alphabetic) => format!("did you mean \"{near}\"?"),
                _ => format!("write one of {known}"),
            };
            self.problem(format!("`{}` is \"{}\", expected one of {known}", self.path, self.shown()), remedy);
        }
        found.map(|(_, choice)| *choice)
    }

    /// A path; a relative one starts at the configuration file's folder.
    pub fn path(&self, example: &str) -> Option<PathBuf> {
        self.text(example).map(|text| self.document.base.join(text))
    }

    /// The elements of an array.
    pub fn array(&self, example: &str) -> Option<Vec<Value<'a>>> {
        let Some(array) = self.value.as_array() else {
            let remedy = match self.value {
                DeValue::String(_) => format!("write `{} = [\"{}\"]`", self.key(), self.shown()),
                _ => format!("write it as in `{} = {example}`", self.key()),
            };
            self.wrong_type("an array", remedy);
            return None;
        };
        let element = |(n, element): (usize, &'a toml::Spanned<DeValue<'a>>)| Value {
            document: self.document,
            path: format!("{}[{n}]", self.path),
            span: element.span(),
            value: element.get_ref(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// The text of an array's first element, without reporting when there is none.
    pub fn first_str(&self) -> Option<&'a str> {
        self.value.as_array()?.iter().next()?.get_ref().as_str()
    }

    /// Whether it is `[]`.
    pub fn is_empty_array(&self) -> bool {
        self.value.as_array().is_some_and(|array| array.is_empty())
    }

    /// The tables of an array of tables (`[[header]]`).
    pub fn tables(&self) -> Option<Vec<Value<'a>>> {
        if self.value.is_table() {
            let header = self.header();
            self.wrong_type("an array of tables", format!("write `[[{header}]]`, with two brackets"));
            return None;
        }
        let example = format!("[[{}]]", self.header());
        if !self.value.is_array() {
            self.wrong_type("an array of tables", format!("start each one with a line `{example}`"));
            return None;
        }
        self.array(&example)
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Whether it is a number.
    pub fn is_integer(&self) -> bool {
        matches!(self.value, DeValue::Integer(_))
    }

    /// Reads a table.
    pub fn table<R>(&self, read: impl FnOnce(&Table<'a>) -> R) -> Option<R> {
        let Some(entries) = self.value.as_table() else {
            let remedy = if self.value.is_array() && !self.path.contains('[') {
                format!("write `[{}]`, once and with single brackets", self.header())
            } else {
                format!("write its keys below a line `[{}]`", self.header())
            };
            self.wrong_type("a table", remedy);
            return None;
        };
        Some(Table::read(self.document, self.path.clone(), self.span.clone(), entries, read))
    }

    /// A credential: a text, `{ env = "NAME" }` or `{ file = "path" }`. It is never part of a message.
    pub fn secret(&self) -> Option<Secret> {
        let example = format!("{} = {{ env = \"NAME\" }}", self.key());
        let text = match self.value {
            DeValue::String(text) => text.to_string(),
            DeValue::Table(_) => self.table(|table| self.secret_from(table))??,
            _ => {
                self.wrong_type("a string, { env = \"NAME\" } or { file = \"path\" }", format!("write `{example}`"));
                return None;
            }
        };
        let usable = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !usable {
            let message = match text.is_empty() {
                true => format!("`{}` is empty", self.path),
                false => format!("`{}` has characters other than visible ASCII", self.path),
            };
            self.problem(message, format!("give the credential itself, or name its variable: `{example}`"));
        }
        usable.then(|| Secret::new(text))
    }

    /// The key path without indices, as a table's header has it.
    fn header(&self) -> String {
        let mut parts = self.path.split('[');
        let mut header = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            header.push_str(part.split_once(']').map_or(part, |(_, rest)| rest));
        }
        header
    }

    fn secret_from(&self, table: &Table<'a>) -> Option<String> {
        let variable = table.get("env").map(|v| (v.text("\"NAME\""), v));
        let file = table.get("file").map(|v| (v.path("\"secret\""), v));
        match (variable, file) {
            (Some((name, value)), None) => {
                let name = name?;
                let text = (self.document.env)(name);
                if text.is_none() {
                    value.problem(
                        format!("environment variable `{name}` for `{}` is not set", self.path),
                        format!("set it before the start, as in `export {name}=…`"),
                    );
                }
                text
            }
            (None, Some((path, value))) => {
                let path = path?;
                match std::fs::read_to_string(&path) {
                    Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
                    Err(error) => {
                        value.problem(
                            format!("`{}` for `{}` cannot be read: {error}", path.display(), self.path),
                            "check the path (relative ones start at this file's folder) and its permissions",
                        );
                        None
                    }
                }
            }
            _ => {
                table.absence(
                    format!("`{}` needs either `env` or `file`", self.path),
                    format!("write `{} = {{ env = \"NAME\" }}`", self.key()),
                );
                None
            }
        }
    }

    fn wrong_type(&self, expected: &str, remedy: impl Into<String>) {
        let article = if matches!(self.value, DeValue::Array(_) | DeValue::Integer(_)) { "an" } else { "a" };
        let kind = self.value.type_str();
        self.problem(format!("`{}` is {article} {kind}, expected {expected}", self.path), remedy);
    }

    /// The text as a message shows it: one line, cut where it gets long.
    pub fn shown(&self) -> String {
        shown(self.as_str().unwrap_or_default())
    }
}

/// A text as a message shows it: one line, cut where it gets long.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let cut: String = text.chars().take(MOST).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", cut.escape_debug()).replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\")
}

/// `` `a`, `b`, `c` ``.
pub(super) fn list<'t>(names: impl IntoIterator<Item = &'t str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let document = Document {
            text: "aé = 1\nxy",
            base: Path::new(""),
            env: &|_| None,
            problems: RefCell::default(),
            incomplete: Cell::new(false),
        };
        for (offset, line, column) in [(0, 1, 1), (2, 1, 2), (3, 1, 3), (8, 2, 1), (10, 2, 3), (999, 2, 3)] {
            assert_eq!(document.position(offset), Position { line, column }, "{offset}");
        }
    }

    #[test]
    fn long_and_multi_line_texts_are_shown_on_one_short_line() {
        assert_eq!(shown("a\nb \\d \"q\""), "a\\nb \\d \"q\"");
        assert_eq!(shown(&"é".repeat(200)).chars().count(), 81);
    }
}
