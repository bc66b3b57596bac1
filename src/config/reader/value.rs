//! One value of the tree, read as what a key wants.

use super::{Document, LONGEST, Table, nearest, shown};
use crate::types::{ByteSize, Secret};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// One value and where it is.
pub struct Value<'a> {
    pub document: &'a Document<'a>,
    /// Its key path.
    pub path: String,
    /// Where it is.
    pub span: Range<usize>,
    pub(super) value: &'a DeValue<'a>,
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
