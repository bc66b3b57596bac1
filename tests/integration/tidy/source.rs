//! A Rust file with everything blanked that is not code: offsets and lines stay what they are in the file.

use regex::Regex;
use std::path::{Path, PathBuf};

/// One file.
pub struct Source {
    /// From the package's folder.
    pub path: PathBuf,
    /// As it is.
    pub text: String,
    /// Without comments and the contents of literals.
    pub code: String,
    /// [`Source::code`] without what only tests compile.
    pub shipped: String,
}

impl Source {
    pub fn new(path: &Path, text: String) -> Self {
        let code = strip(&text);
        let shipped = without_tests(&code);
        Self { path: path.to_owned(), text, code, shipped }
    }

    /// The top-level module that the file belongs to.
    pub fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src").ok()?;
        below.components().next()?.as_os_str().to_str().map(|name| name.trim_end_matches(".rs"))
    }

    /// The top-level modules that shipped code names, each with the offset where it does.
    pub fn uses(&self) -> Vec<(usize, String)> {
        // How many `super` it takes from this file to the crate's root.
        let depth = self.path.components().count().saturating_sub(1);
        let head = if self.module() == Some("main") { r"(?:crate|selvedge)\s*::" } else { r"crate\s*::" };
        let chain = Regex::new(&format!(r"\b{head}\s*|\b(?:super\s*::\s*)+")).expect("a pattern");
        let mut uses = Vec::new();
        for found in chain.find_iter(&self.shipped) {
            let supers = found.as_str().matches("super").count();
            if supers == 0 || supers >= depth {
                heads(&self.shipped, found.end(), &mut uses);
            }
        }
        uses
    }

    /// The files of modules that are declared under `#[cfg(test)]`.
    pub fn test_files(&self) -> Vec<PathBuf> {
        let shipped = self.children(&self.shipped);
        self.children(&self.code).into_iter().filter(|child| !shipped.contains(child)).collect()
    }

    /// The files of the modules that `code`, this file's, declares; a `#[path]` is looked up in the text itself.
    pub fn children(&self, code: &str) -> Vec<PathBuf> {
        let declared = Regex::new(r"(#\[path\s*=\s*[^\]]*\]\s*)?(?:pub(?:\([a-z]+\))?\s+)?\bmod\s+([a-z_0-9]+)\s*;")
            .expect("a pattern");
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let own = match self.path.file_stem().and_then(|stem| stem.to_str()) {
            Some("lib" | "main") | None => folder.to_owned(),
            Some(stem) => folder.join(stem),
        };
        let child = |found: regex::Captures<'_>| match found.get(1) {
            Some(attribute) => {
                let text = &self.text[attribute.range()];
                folder.join(text.split('"').nth(1).unwrap_or_default())
            }
            None => own.join(format!("{}.rs", &found[2])),
        };
        declared.captures_iter(code).map(child).collect()
    }

    /// The line, from 1, of an offset.
    pub fn line_of(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    pub fn violation_at(&self, at: usize, what: &str) -> String {
        self.violation_at_line(self.line_of(at), what)
    }

    pub fn violation_at_line(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }
}

/// Spaces for everything but line ends, octet by octet.
pub fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// The first names of a path or of a `{…}` group of paths.
fn heads(code: &str, start: usize, uses: &mut Vec<(usize, String)>) {
    let bytes = code.as_bytes();
    let mut name = |from: usize| {
        let end = code[from..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(code.len(), |len| from + len);
        if end > from {
            uses.push((from, code[from..end].to_owned()));
        }
    };
    if bytes.get(start) != Some(&b'{') {
        return name(start);
    }
    let (mut depth, mut expected) = (0, true);
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return,
            b'}' => depth -= 1,
            b',' => expected = depth == 1,
            _ if byte.is_ascii_whitespace() => {}
            _ => {
                if depth == 1 && expected {
                    name(at);
                }
                expected = false;
            }
        }
    }
}

/// Blanks items under `#[cfg(test)]` and its like: to the item's closing brace or its semicolon.
fn without_tests(code: &str) -> String {
    let attribute = Regex::new(r"#\[\s*cfg\s*\(\s*(?:test\b|all\s*\([^\]]*\btest\b)[^\]]*\]").expect("a pattern");
    let mut out = code.to_owned();
    for found in attribute.find_iter(code).filter(|found| !found.as_str().contains("not")) {
        let end = item_end(code, found.end());
        out.replace_range(found.start()..end, &blank(&code[found.start()..end]));
    }
    out
}

fn item_end(code: &str, start: usize) -> usize {
    // Braces of a `use a::{b, c};` are the item's too, so a semicolon may follow them; it does no harm if it stays.
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others = others.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces <= 1 => return at + 1,
            b'}' => braces -= 1,
            b';' if braces == 0 && others == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Blanks comments and the contents of literals; the quotes stay.
fn strip(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let before = at.checked_sub(1).map_or(b' ', |last| bytes[last]);
        let in_word = before.is_ascii_alphanumeric() || before == b'_';
        let (skipped, quotes) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), 0)
        } else if rest.starts_with("/*") {
            (block_comment(rest), 0)
        } else if let Some(length) = raw_string(rest).filter(|_| !in_word) {
            (length, 0)
        } else if rest.starts_with('"') {
            (quoted(rest, b'"'), 1)
        } else if rest.starts_with('\'') && is_char(rest) {
            (quoted(rest, b'\''), 1)
        } else {
            let c = rest.chars().next().unwrap_or(' ');
            // One octet each, so that offsets stay: code beyond ASCII is not what the rules look for.
            if c.is_ascii() {
                out.push(c)
            } else {
                out.push_str(&blank(&rest[..c.len_utf8()]))
            }
            at += c.len_utf8();
            continue;
        };
        let skipped = skipped.max(1);
        if quotes == 1 && skipped >= 2 {
            out.push_str(&rest[..1]);
            out.push_str(&blank(&rest[1..skipped - 1]));
            out.push_str(&blank(&rest[skipped - 1..skipped]).replace(' ', &rest[..1]));
        } else {
            out.push_str(&blank(&rest[..skipped]));
        }
        at += skipped;
    }
    out
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => {
                (at, depth) = (at + 2, depth - 1);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, and with `b` or `c` before.
fn raw_string(rest: &str) -> Option<usize> {
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c']).len();
    let after = rest.get(prefix..)?.strip_prefix('r').filter(|_| prefix <= 1)?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(rest.len(), |end| prefix + 1 + hashes + 1 + end + close.len());
    Some(end)
}

fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Tells `'a'` and `'\n'` from a lifetime.
fn is_char(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

#[test]
fn what_is_no_code_is_blanked_in_place() {
    let text = "let a = \"x\\\"y\"; // é c\nlet b = r##\"q\"# \"##; /* /* n */ */ let c = ['\\'', 'é', b'\"']; fn f<'a>(_: &'a str) {}";
    let code = strip(text);
    assert_eq!(code.len(), text.len());
    for gone in ["x\\", "é", " c\n", "q", " n "] {
        assert!(!code.contains(gone), "{gone:?} in {code:?}");
    }
    for kept in ["let a = \"    \";", "let b = ", "let c = ['", "fn f<'a>(_: &'a str) {}"] {
        assert!(code.contains(kept), "{kept:?} in {code:?}");
    }
}

#[test]
fn files_of_test_modules_are_known() {
    let text = "mod a;\n#[cfg(test)]\n#[path = \"x/other.rs\"]\nmod tests;\n#[cfg(test)]\nmod more;\n";
    let source = Source::new(Path::new("src/route.rs"), text.to_owned());
    assert_eq!(source.test_files(), [PathBuf::from("src/x/other.rs"), PathBuf::from("src/route/more.rs")]);
    assert_eq!(source.children(&source.shipped), [PathBuf::from("src/route/a.rs")]);
}
