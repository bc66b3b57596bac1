//! Names and paths that an operator describes by pattern.

use regex::Regex;

/// Text in which `*` stands for any characters, none included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// From its text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` matches. Linear in its length for each `*`, so that no text is expensive.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(first) = parts.next() else { return text.is_empty() };
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// A path by glob or by regular expression.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// The whole path matches.
    Glob(Glob),
    /// It is found anywhere in the path.
    Regex(Regex),
}

impl PathMatch {
    /// Whether `path`, without its query, is meant.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Glob(glob) => glob.matches(path),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (glob, text, matches) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("utm_*", "utm_source", true),
            ("utm_*", "utm", false),
            ("/img/*.png", "/img/a/b.png", true),
            ("/img/*.png", "/img/.pn", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbxxbxc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Glob::new(glob).matches(text), matches, "{glob} {text}");
        }
    }
}
