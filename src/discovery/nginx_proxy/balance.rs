//! nginx's directives on balancing, from the label `loadbalance`.

use super::site::Balance;

/// Reads one directive, as in `least_conn;` or `hash $request_uri consistent;`.
///
/// # Errors
/// What cannot be translated, for a warning.
pub(super) fn parse(text: &str) -> Result<Balance, String> {
    let mut directives = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    let directive = directives.next().unwrap_or_default();
    if let Some(second) = directives.next() {
        return Err(format!("`{second}` comes after another directive; one alone decides"));
    }
    let words: Vec<&str> = directive.split_whitespace().collect();
    match words.as_slice() {
        [] | ["round_robin"] => Ok(Balance::RoundRobin),
        ["least_conn"] => Ok(Balance::LeastConnections),
        ["ip_hash"] => Ok(Balance::IpHash),
        ["hash", "$remote_addr" | "$binary_remote_addr"] => Ok(Balance::IpHash),
        ["hash", key] => Ok(Balance::Hash { key: (*key).to_owned(), consistent: false }),
        ["hash", key, "consistent"] => Ok(Balance::Hash { key: (*key).to_owned(), consistent: true }),
        ["random"] => Ok(Balance::Random { two: false }),
        ["random", "two"] | ["random", "two", "least_conn"] => Ok(Balance::Random { two: true }),
        _ => Err(format!("`{directive}` is no balancing that there is here")),
    }
}
