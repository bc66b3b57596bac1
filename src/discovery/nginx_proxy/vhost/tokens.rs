//! nginx's configuration language, as far as words, quotes, comments and blocks.

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The line it begins in, from 1.
    pub line: usize,
    /// Its words, unquoted.
    pub words: Vec<String>,
    /// Whether a block follows, which is left out.
    pub block: bool,
}

/// Splits a text into statements.
///
/// # Errors
/// A quote or a block that does not end.
pub fn statements(text: &str) -> Result<Vec<Statement>, String> {
    let mut out = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let (mut line, mut start, mut depth) = (1, 1, 0_usize);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\n' {
            line += 1;
        }
        match c {
            '#' if word.is_none() => {
                while chars.peek().is_some_and(|next| *next != '\n') {
                    chars.next();
                }
            }
            '"' | '\'' if word.is_none() => {
                let quoted = quoted(&mut chars, c, &mut line)?;
                if words.is_empty() {
                    start = line;
                }
                words.push(quoted);
            }
            '\\' => {
                let escaped = chars
                    .next()
                    .map(|next| if "\"'{};\\ ".contains(next) { next.to_string() } else { format!("\\{next}") });
                word.get_or_insert_default().push_str(&escaped.unwrap_or_default());
            }
            // `${name}` is a part of its word.
            '{' if word.as_ref().is_some_and(|w| w.ends_with('$')) => {
                let word = word.get_or_insert_default();
                word.push('{');
                for next in chars.by_ref() {
                    word.push(next);
                    if next == '}' {
                        break;
                    }
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            ';' | '{' => {
                words.extend(word.take());
                let done = std::mem::take(&mut words);
                if depth == 0 && !done.is_empty() {
                    out.push(Statement { line: start, words: done, block: c == '{' });
                }
                depth += usize::from(c == '{');
            }
            '}' => {
                words.clear();
                word = None;
                depth = depth.checked_sub(1).ok_or_else(|| format!("line {line}: `}}` without `{{`"))?;
            }
            c => {
                if words.is_empty() && word.is_none() {
                    start = line;
                }
                word.get_or_insert_default().push(c);
            }
        }
    }
    words.extend(word);
    match (depth, words.is_empty()) {
        (0, true) => Ok(out),
        (0, false) => Err(format!("line {start}: `{}` has no `;` at its end", words.join(" "))),
        _ => Err(format!("line {line}: a block does not end")),
    }
}

fn quoted(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    quote: char,
    line: &mut usize,
) -> Result<String, String> {
    let first = *line;
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(out),
            '\\' if chars.peek().is_some_and(|next| *next == quote || *next == '\\') => out.extend(chars.next()),
            c => {
                *line += usize::from(c == '\n');
                out.push(c);
            }
        }
    }
    Err(format!("line {first}: a quote does not end"))
}
