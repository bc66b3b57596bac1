//! nginx's directives for choosing servers, as nginx-proxy's users write them in the label `loadbalance`.

use ::http::HeaderName;

use super::{Algorithm, HashKey};

/// A directive that has no counterpart here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no way to balance that is known here; known are `least_conn;`, `ip_hash;`, `random [two [least_conn]];` \
     and `hash KEY [consistent];` with one of $request_uri, $uri, $remote_addr, $http_NAME and $cookie_NAME"
)]
pub struct UnknownDirective(pub String);

impl Algorithm {
    /// The algorithm that one directive of nginx's upstream module stands for. `hash` is consistent here whether it says
    /// so or not, and has no bound.
    ///
    /// # Errors
    /// It stands for none of ours.
    pub fn from_nginx(directive: &str) -> Result<Self, UnknownDirective> {
        let text = directive.trim().trim_end_matches(';');
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let found = match words[..] {
            [] | ["round_robin"] => Some(Self::RoundRobin),
            ["least_conn"] => Some(Self::LeastConnections),
            ["ip_hash"] => Some(Self::ClientAddress),
            ["random"] | ["random", "two"] | ["random", "two", "least_conn"] => Some(Self::Random),
            ["hash", key] | ["hash", key, "consistent"] => hash_key(key).map(|key| Self::Hash { key, bound: None }),
            _ => None,
        };
        found.ok_or_else(|| UnknownDirective(directive.trim().to_owned()))
    }
}

fn hash_key(text: &str) -> Option<HashKey> {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).or_else(|| text.strip_prefix('$'))?;
    match name {
        "request_uri" => Some(HashKey::Uri),
        "uri" | "document_uri" => Some(HashKey::Path),
        "remote_addr" | "binary_remote_addr" => Some(HashKey::ClientAddress),
        _ => {
            if let Some(field) = name.strip_prefix("http_") {
                return field.replace('_', "-").parse::<HeaderName>().ok().map(HashKey::Header);
            }
            let cookie = name.strip_prefix("cookie_").filter(|cookie| !cookie.is_empty())?;
            Some(HashKey::Cookie(cookie.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_become_algorithms() {
        let hash = |key| Algorithm::Hash { key, bound: None };
        for (directive, expected) in [
            ("", Algorithm::RoundRobin),
            ("least_conn;", Algorithm::LeastConnections),
            (" ip_hash ; ", Algorithm::ClientAddress),
            ("random two;", Algorithm::Random),
            ("random two least_conn;", Algorithm::Random),
            ("hash $request_uri consistent;", hash(HashKey::Uri)),
            ("hash ${uri};", hash(HashKey::Path)),
            ("hash $remote_addr;", hash(HashKey::ClientAddress)),
            ("hash $http_x_user consistent;", hash(HashKey::Header(HeaderName::from_static("x-user")))),
            ("hash $cookie_sid;", hash(HashKey::Cookie("sid".to_owned()))),
        ] {
            assert_eq!(Algorithm::from_nginx(directive), Ok(expected), "{directive}");
        }
        for directive in ["least_time header;", "hash $request_id;", "hash consistent;", "hash $cookie_;", "zone x 1m;"]
        {
            assert!(Algorithm::from_nginx(directive).is_err(), "{directive}");
        }
    }
}
