//! The text forms of host and path patterns.

use super::{HostPattern, PathPattern};
use crate::types::HostName;
use regex::{Regex, RegexBuilder};
use std::fmt;
use std::str::FromStr;

/// The most a compiled pattern may take, so that one line of configuration cannot take the node's memory.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// Why a text is not a host pattern. Each message ends with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// Nothing there.
    #[error("a host is empty; write a name as \"www.example.com\", or \"*\" for every host")]
    Empty,
    /// A URL or a path where a host belongs.
    #[error("`{0}` is more than a host; leave out the scheme and the path, as in \"www.example.com\"")]
    NotJustAHost(String),
    /// `a.b:8080`.
    #[error("`{0}` has a port; leave it out: a host matches on every listener")]
    HasPort(String),
    /// A `*` that is neither the first nor the last label.
    #[error("`{0}` has a `*` in a place where it cannot match; write \"*.b\", \"a.*\", \"*\" alone, or a \"~regex\"")]
    MisplacedWildcard(String),
    /// nginx's shorthand `.b`.
    #[error("`{0}` starts with a dot; write two hosts, \"{bare}\" and \"*{0}\"", bare = .0.trim_start_matches('.'))]
    LeadingDot(String),
    /// An internationalised name in its Unicode form.
    #[error("`{0}` is not ASCII; write the name's punycode form, as in \"xn--bcher-kva.example\"")]
    NotAscii(String),
    /// Octets or lengths that no host has.
    #[error("`{0}` is not a host name; use letters, digits, `-`, `_` and `.` in labels of 1 to 63 octets, 253 in all")]
    Malformed(String),
    /// `~` and no regex, or one that does not compile.
    #[error("`{pattern}` is not a usable regex: {reason}; write it as in \"~^(www|img)[.]example[.]com$\"")]
    Regex {
        /// The pattern as written, `~` included.
        pattern: String,
        /// What the regex compiler says, in one line.
        reason: String,
    },
}

/// Why a text is not a path pattern. Each message ends with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// A prefix that no path starts with.
    #[error("`{0}` does not start with `/`; write \"/{0}\", or \"~{0}\" if it is a regex")]
    NoLeadingSlash(String),
    /// A query or fragment, which routing does not see.
    #[error("`{0}` holds `?` or `#`; leave the query out: only the path is matched")]
    NotJustAPath(String),
    /// Space, control or non-ASCII characters, which a request's path cannot hold.
    #[error("`{0}` holds characters that no request path has; percent-encode them, as in \"/caf%C3%A9\"")]
    NotEncoded(String),
    /// `~` and no regex, or one that does not compile.
    #[error("`{pattern}` is not a usable regex: {reason}; write it as in \"~[.](png|jpe?g)$\"")]
    Regex {
        /// The pattern as written, `~` included.
        pattern: String,
        /// What the regex compiler says, in one line.
        reason: String,
    },
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(source) = text.strip_prefix('~') {
            return match compile(source, true) {
                Ok(regex) => Ok(Self::Regex(regex)),
                Err(reason) => Err(HostPatternError::Regex { pattern: text.to_owned(), reason }),
            };
        }
        match text {
            "" => return Err(HostPatternError::Empty),
            "*" => return Ok(Self::Any),
            _ => {}
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return Ok(Self::LeadingWildcard(format!(".{}", wildcard_base(text, suffix)?).into()));
        }
        if let Some(prefix) = text.strip_suffix(".*") {
            return Ok(Self::TrailingWildcard(format!("{}.", wildcard_base(text, prefix)?).into()));
        }
        text.parse().map(Self::Exact).map_err(|_| why_no_host(text))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::LeadingWildcard(suffix) => write!(f, "*{suffix}"),
            Self::TrailingWildcard(prefix) => write!(f, "{prefix}*"),
            Self::Regex(regex) => write!(f, "~{regex}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl FromStr for PathPattern {
    type Err = PathPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(source) = text.strip_prefix('~') {
            // nginx's `~*`: no regex starts with `*`, so the two cannot be confused.
            let compiled = match source.strip_prefix('*') {
                Some(caseless) if !caseless.is_empty() => compile(&format!("(?i){caseless}"), false),
                _ => compile(source, false),
            };
            return match compiled {
                Ok(regex) => Ok(Self::Regex(regex)),
                Err(reason) => Err(PathPatternError::Regex { pattern: text.to_owned(), reason }),
            };
        }
        if !text.starts_with('/') {
            return Err(PathPatternError::NoLeadingSlash(text.to_owned()));
        }
        if text.contains(['?', '#']) {
            return Err(PathPatternError::NotJustAPath(text.to_owned()));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(PathPatternError::NotEncoded(text.to_owned()));
        }
        Ok(Self::Prefix(text.into()))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => f.write_str(prefix),
            Self::Regex(regex) => write!(f, "~{regex}"),
        }
    }
}

/// The labels beside a wildcard, in lower case. An address in brackets has no labels and so no wildcard.
fn wildcard_base(whole: &str, base: &str) -> Result<HostName, HostPatternError> {
    if base.starts_with('[') {
        return Err(HostPatternError::MisplacedWildcard(whole.to_owned()));
    }
    base.parse().map_err(|_| why_no_host(whole))
}

fn why_no_host(text: &str) -> HostPatternError {
    let own = text.to_owned();
    if text.contains(['/', '@', '?', '#']) {
        HostPatternError::NotJustAHost(own)
    } else if !text.is_ascii() {
        HostPatternError::NotAscii(own)
    } else if text.trim_start_matches("*.").trim_end_matches(".*").contains('*') {
        HostPatternError::MisplacedWildcard(own)
    } else if text.starts_with('.') && text[1..].parse::<HostName>().is_ok() {
        HostPatternError::LeadingDot(own)
    } else if matches!(HostName::parse_with_port(text), Ok((_, Some(_)))) {
        HostPatternError::HasPort(own)
    } else {
        HostPatternError::Malformed(own)
    }
}

/// Compiles one regex; an error is one line.
fn compile(source: &str, case_insensitive: bool) -> Result<Regex, String> {
    if source.is_empty() {
        return Err("it is empty and would match everything".to_owned());
    }
    RegexBuilder::new(source).case_insensitive(case_insensitive).size_limit(REGEX_SIZE_LIMIT).build().map_err(|error| {
        match error {
            regex::Error::CompiledTooBig(limit) => format!("it compiles to more than {limit} bytes"),
            // The compiler draws the pattern with a caret under it and ends with `error: <what>`.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.strip_prefix("error: ").unwrap_or(last).to_owned()
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns_are_read_and_written_back() {
        for (text, kind, written) in [
            ("WWW.Example.com.", "exact", "www.example.com"),
            ("[0:0::1]", "exact", "[::1]"),
            ("10.0.0.1", "exact", "10.0.0.1"),
            ("*.Example.COM", "leading", "*.example.com"),
            ("*.com", "leading", "*.com"),
            ("Mail.*", "trailing", "mail.*"),
            ("~^a[0-9]+[.]b$", "regex", "~^a[0-9]+[.]b$"),
            ("*", "any", "*"),
        ] {
            let pattern: HostPattern = text.parse().expect(text);
            let got = match &pattern {
                HostPattern::Exact(_) => "exact",
                HostPattern::LeadingWildcard(suffix) => {
                    assert!(suffix.starts_with('.'), "{text}");
                    "leading"
                }
                HostPattern::TrailingWildcard(prefix) => {
                    assert!(prefix.ends_with('.'), "{text}");
                    "trailing"
                }
                HostPattern::Regex(_) => "regex",
                HostPattern::Any => "any",
            };
            assert_eq!((got, pattern.to_string().as_str()), (kind, written), "{text}");
            assert_eq!(written.parse::<HostPattern>().expect(written).to_string(), written);
        }
    }

    #[test]
    fn what_is_no_host_pattern_says_what_to_write() {
        use HostPatternError as E;
        for (text, is, remedy) in [
            ("", (|e| matches!(e, E::Empty)) as fn(&E) -> bool, "\"*\" for every host"),
            ("https://a.b/", |e| matches!(e, E::NotJustAHost(_)), "leave out the scheme"),
            ("a.b/c", |e| matches!(e, E::NotJustAHost(_)), "and the path"),
            ("a.b:80", |e| matches!(e, E::HasPort(_)), "leave it out"),
            ("a.*.b", |e| matches!(e, E::MisplacedWildcard(_)), "\"*.b\""),
            ("*.a.*", |e| matches!(e, E::Malformed(_) | E::MisplacedWildcard(_)), "`*.a.*`"),
            ("*foo.b", |e| matches!(e, E::MisplacedWildcard(_)), "~regex"),
            ("[::1].*", |e| matches!(e, E::MisplacedWildcard(_)), "~regex"),
            (".b.c", |e| matches!(e, E::LeadingDot(_)), "\"b.c\" and \"*.b.c\""),
            ("bücher.example", |e| matches!(e, E::NotAscii(_)), "punycode"),
            ("a..b", |e| matches!(e, E::Malformed(_)), "labels of 1 to 63"),
            ("a b", |e| matches!(e, E::Malformed(_)), "letters, digits"),
            ("*.", |e| matches!(e, E::Malformed(_)), "labels"),
            ("~", |e| matches!(e, E::Regex { .. }), "it is empty"),
            ("~(a", |e| matches!(e, E::Regex { .. }), "unclosed group"),
            ("~(a{900}){900}", |e| matches!(e, E::Regex { .. }), "compiles to more than"),
        ] {
            let error = text.parse::<HostPattern>().expect_err(text);
            assert!(is(&error), "{text}: {error:?}");
            let message = error.to_string();
            assert!(message.contains(remedy) && !message.contains('\n'), "{text}: {message}");
        }
    }

    #[test]
    fn host_regexes_ignore_case() {
        let HostPattern::Regex(regex) = "~^WWW[.]".parse().unwrap() else { panic!("not a regex") };
        assert!(regex.is_match("www.example.com"));
    }

    #[test]
    fn path_patterns_are_read_and_written_back() {
        for (text, written) in
            [("/", "/"), ("/a/b%20c", "/a/b%20c"), ("~[.]png$", "~[.]png$"), ("~*[.]png$", "~(?i)[.]png$")]
        {
            let pattern: PathPattern = text.parse().expect(text);
            assert_eq!(pattern.to_string(), written);
            assert_eq!(written.parse::<PathPattern>().expect(written).to_string(), written);
        }
        let PathPattern::Regex(caseless) = "~*a|b$".parse().unwrap() else { panic!("not a regex") };
        assert!(caseless.is_match("/A") && caseless.is_match("/B"));
        let PathPattern::Regex(cased) = "~a".parse().unwrap() else { panic!("not a regex") };
        assert!(!cased.is_match("/A"));
    }

    #[test]
    fn what_is_no_path_pattern_says_what_to_write() {
        for (text, remedy) in [
            ("", "does not start with `/`"),
            ("api", "write \"/api\""),
            ("/a?b=c", "leave the query out"),
            ("/a b", "percent-encode"),
            ("/é", "percent-encode"),
            ("/a\n", "percent-encode"),
            ("~", "it is empty"),
            ("~*", "repetition operator"),
            ("~[", "unclosed character class"),
        ] {
            let message = text.parse::<PathPattern>().expect_err(text).to_string();
            assert!(message.contains(remedy), "{text}: {message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "[~*.\\[\\]:/a-zé?(]{0,12}") {
            if let Ok(pattern) = text.parse::<HostPattern>() {
                let written = pattern.to_string();
                assert_eq!(written.parse::<HostPattern>().expect(&written).to_string(), written);
            }
            let _ = text.parse::<PathPattern>();
        }
    }
}
