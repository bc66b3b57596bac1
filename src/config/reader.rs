//! Takes keys out of a parsed TOML tree, table by table, and writes down every problem instead of stopping at the first.
//!
//! A reader that meets a problem gives `None` (or the caller a default) and goes on: whoever collects the values only
//! uses them when no problem was written down.

mod value;

pub(super) use value::Value;

use super::problem::{Position, Problem, nearest};
use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// Longest duration accepted: adding it to a present time cannot overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The text that is read, its surroundings, and what was found wrong so far.
pub(super) struct Document<'a> {
    /// The TOML text; offsets count its bytes.
    pub text: &'a str,
    /// Where its lines begin, once somebody has asked.
    pub lines: OnceCell<Vec<usize>>,
    /// Where the text is from.
    pub source: &'a Path,
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

    /// Whether anything was written down yet.
    pub fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// Line and column of a byte offset.
    pub fn position(&self, offset: usize) -> Position {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let lines = self.lines.get_or_init(|| {
            let after = self.text.match_indices('\n').map(|(newline, _)| newline + 1);
            std::iter::once(0).chain(after).collect()
        });
        let line = lines.partition_point(|start| *start <= end);
        let line_start = line.checked_sub(1).and_then(|line| lines.get(line)).copied().unwrap_or_default();
        Position { line, column: self.text[line_start..end].chars().count() + 1 }
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

    /// File and line of its header, for listings.
    pub fn place(&self) -> String {
        format!("{}:{}", self.document.source.display(), self.document.position(self.span.start).line)
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
            lines: OnceCell::new(),
            source: Path::new(""),
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
