//! Where a redirect leads, with placeholders for parts of the request.

use crate::types::variables;
use std::fmt;
use std::str::FromStr;

/// A URI or path with `$scheme`, `$host`, `$port`, `$path`, `$query` and `$request_uri` (path and query) in it; `$$` is a
/// dollar. `$query` comes with its `?`, so that a target without one leaves nothing behind, and `$port` with its `:`,
/// unless it is the scheme's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Scheme,
    Host,
    Port,
    Path,
    Query,
}

/// Why a text is no [`Location`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// A placeholder that there is not.
    #[error("there is no placeholder `${0}`")]
    Unknown(String),
    /// Neither a path nor an absolute URI.
    #[error("it begins neither with `/` nor with a scheme")]
    NoUri,
    /// Spaces, control or non-ASCII characters, which no URI has.
    #[error("it has characters that no URI has")]
    NotEncoded,
}

/// What the placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Without a port.
    pub host: &'a str,
    /// Unless it is the scheme's default.
    pub port: Option<u16>,
    /// Without the query.
    pub path: &'a str,
    /// Without its `?`; empty where there is none.
    pub query: &'a str,
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(LocationError::NotEncoded);
        }
        let starts_well = text.starts_with('/')
            || text.contains("://")
            || ["$path", "$request_uri", "${path}"].iter().any(|p| text.starts_with(p));
        if !starts_well {
            return Err(LocationError::NoUri);
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        for piece in variables::pieces(text) {
            let name = match piece {
                variables::Piece::Text(text) => {
                    plain.push_str(text);
                    continue;
                }
                variables::Piece::Dollar => {
                    plain.push('$');
                    continue;
                }
                variables::Piece::Variable(name) | variables::Piece::Braced(name) => name,
            };
            let found: &[Piece] = match name {
                "scheme" => &[Piece::Scheme],
                "host" => &[Piece::Host],
                "port" => &[Piece::Port],
                "path" | "uri" => &[Piece::Path],
                "query" => &[Piece::Query],
                "request_uri" => &[Piece::Path, Piece::Query],
                other => return Err(LocationError::Unknown(other.to_owned())),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.extend_from_slice(found);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

impl Location {
    /// The location for one request. A path of `//…` would be read as a host, so it loses the slashes that are too many
    /// where it begins the location.
    pub fn fill(&self, parts: &Parts<'_>) -> String {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Scheme => filled.push_str(parts.scheme),
                Piece::Host => filled.push_str(parts.host),
                Piece::Port => {
                    if let Some(port) = parts.port {
                        filled.push_str(&format!(":{port}"));
                    }
                }
                Piece::Path => filled.push_str(parts.path),
                Piece::Query if parts.query.is_empty() => {}
                // A location that has a query already gets the client's behind it.
                Piece::Query => {
                    filled.push(if filled.contains('?') { '&' } else { '?' });
                    filled.push_str(parts.query);
                }
            }
        }
        if filled.starts_with("//") && !matches!(self.0.first(), Some(Piece::Text(text)) if text.starts_with("//")) {
            filled = format!("/{}", filled.trim_start_matches('/'));
        }
        filled
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => f.write_str(&text.replace('$', "$$"))?,
                Piece::Scheme => f.write_str("${scheme}")?,
                Piece::Host => f.write_str("${host}")?,
                Piece::Port => f.write_str("${port}")?,
                Piece::Path => f.write_str("${path}")?,
                Piece::Query => f.write_str("${query}")?,
            }
        }
        Ok(())
    }
}
