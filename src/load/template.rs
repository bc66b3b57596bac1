//! URLs with places for what changes from request to request.

use http::Uri;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// A URL of one request or of many: `{n}` stands for the number of an object, `{key}` for its name in a trace, `{size}` for
/// its size in bytes. They may stand in path and query, not in the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Whether it is an https URL.
    pub tls: bool,
    /// Host and, if it is given, port, as they go into the field `Host`.
    pub authority: String,
    /// The host without its port and brackets.
    pub host: String,
    /// The port, by the scheme where none is given.
    pub port: u16,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Number,
    Key,
    Size,
}

/// Why a text is no URL to load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not absolute, or not of HTTP.
    #[error("write a whole URL, as in https://www.example.com/objects/{{n}}")]
    NotAbsolute,
    /// A place that there is not.
    #[error("`{{{0}}}` is unknown; there are {{n}}, {{key}} and {{size}}, in path and query")]
    Unknown(String),
    /// What is left of it when the places are filled is no URL.
    #[error("not a URL: {0}")]
    Malformed(String),
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or(TemplateError::NotAbsolute)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(TemplateError::NotAbsolute),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.is_empty() || authority.contains('@') {
            return Err(TemplateError::NotAbsolute);
        }
        let target = target.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let mut template =
            Self { tls, authority: authority.to_owned(), host: String::new(), port: 0, pieces: pieces(&target)? };
        let filled = format!("{scheme}://{authority}{}", template.target(0, "0", 0));
        let uri: Uri = filled.parse().map_err(|error| TemplateError::Malformed(format!("{error}")))?;
        let host = uri.host().unwrap_or_default();
        template.host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        template.port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(template)
    }
}

fn pieces(target: &str) -> Result<Vec<Piece>, TemplateError> {
    let (mut pieces, mut rest) = (Vec::new(), target);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(|| TemplateError::Unknown(after.to_owned()))?;
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(match name {
            "n" => Piece::Number,
            "key" => Piece::Key,
            "size" => Piece::Size,
            other => return Err(TemplateError::Unknown(other.to_owned())),
        });
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    Ok(pieces)
}

impl Template {
    /// Whether it stands for more than one URL.
    pub fn is_many(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Number | Piece::Key))
    }

    /// Path and query of one request.
    pub fn target(&self, number: u64, key: &str, size: u64) -> String {
        let mut target = String::with_capacity(64);
        for piece in &self.pieces {
            // Writing to a String cannot fail.
            let _ = match piece {
                Piece::Text(text) => target.write_str(text),
                Piece::Number => write!(target, "{number}"),
                Piece::Key => write!(target, "{}", Escaped(key)),
                Piece::Size => write!(target, "{size}"),
            };
        }
        target
    }
}

/// A trace's key as a segment of a path: what is not unreserved (RFC 3986 section 2.3) is percent-encoded.
struct Escaped<'k>(&'k str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
        const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        utf8_percent_encode(self.0, KEPT).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled() {
        let template: Template = "https://www.example.com:8443/of/{n}/{size}?k={key}".parse().unwrap();
        assert_eq!(template.target(7, "a/b c", 1024), "/of/7/1024?k=a%2Fb%20c");
        assert!(template.is_many() && template.tls);
        assert_eq!((template.host.as_str(), template.port), ("www.example.com", 8443));
        assert_eq!(template.authority, "www.example.com:8443");
    }

    #[test]
    fn a_plain_url_stands_for_itself() {
        let template: Template = "http://[::1]".parse().unwrap();
        assert_eq!((template.target(7, "k", 1).as_str(), template.is_many()), ("/", false));
        assert_eq!((template.host.as_str(), template.port), ("::1", 80));
        let query: Template = "http://h?q=1#fragment".parse().unwrap();
        assert_eq!(query.target(0, "", 0), "/?q=1");
    }

    #[test]
    fn what_is_no_url_is_refused_with_a_remedy() {
        for (text, says) in [
            ("www.example.com/", "whole URL"),
            ("ftp://h/", "whole URL"),
            ("http:///p", "whole URL"),
            ("http://user@h/", "whole URL"),
            ("http://h/{object}", "{object}"),
            ("http://h/{n", "{n}"),
            ("http://{n}/", "not a URL"),
            ("http://h/a b", "not a URL"),
        ] {
            let error = text.parse::<Template>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
