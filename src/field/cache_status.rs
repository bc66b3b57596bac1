//! Cache-Status (RFC 9211): what this cache did, told to the client.

use std::fmt;

/// The name under which this cache appears in the field.
pub const CACHE_NAME: &str = "selvedge";

/// Why a request went forward to the origin server (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The cache was told not to handle this request.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// No stored response has this target URI.
    UriMiss,
    /// Stored responses have this target URI, but their `Vary` selects none.
    VaryMiss,
    /// Nothing stored could answer it, and which of the two misses it was isn't known.
    Miss,
    /// A fresh stored response was there, but the request's directives refused it.
    Request,
    /// The stored response was stale.
    Stale,
    /// Only parts of the response were stored.
    Partial,
}

impl Forward {
    /// The token of the `fwd` parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One member of the Cache-Status list; its `Display` is the field value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Why the request went forward; `None`: it was a hit.
    pub forward: Option<Forward>,
    /// The status the origin server answered with; give it only where it is not the status sent.
    pub forward_status: Option<u16>,
    /// The response is being stored.
    pub stored: bool,
    /// The request was collapsed with another.
    pub collapsed: bool,
    /// Seconds of freshness left; negative when stale.
    pub ttl: Option<i64>,
    /// More to tell: an RFC 9651 token, such as the storage tier. What is no token is left out.
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    /// A hit with `ttl` seconds left, answered by the tier `detail`.
    pub fn hit(ttl: i64, detail: &'static str) -> Self {
        Self { ttl: Some(ttl), detail: Some(detail), ..Self::default() }
    }

    /// A request that went forward.
    pub fn forwarded(forward: Forward) -> Self {
        Self { forward: Some(forward), ..Self::default() }
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CACHE_NAME)?;
        match self.forward {
            None => f.write_str("; hit")?,
            Some(forward) => write!(f, "; fwd={forward}")?,
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        if let Some(status) = self.forward_status {
            write!(f, "; fwd-status={status}")?;
        }
        if let Some(ttl) = self.ttl {
            // The integers of RFC 9651 have at most 15 digits.
            write!(f, "; ttl={}", ttl.clamp(-999_999_999_999_999, 999_999_999_999_999))?;
        }
        match self.detail {
            Some(detail) if is_token(detail) => write!(f, "; detail={detail}"),
            _ => Ok(()),
        }
    }
}

/// Whether `text` is a token of RFC 9651 section 3.3.4.
fn is_token(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    match text.as_bytes() {
        [first, others @ ..] => {
            (first.is_ascii_alphabetic() || *first == b'*') && others.iter().all(|byte| rest(*byte))
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_value() {
        let stored = CacheStatus { stored: true, ..CacheStatus::forwarded(Forward::UriMiss) };
        for (status, text) in [
            (CacheStatus::hit(123, "memory"), "selvedge; hit; ttl=123; detail=memory"),
            (CacheStatus::hit(-5, "no token"), "selvedge; hit; ttl=-5"),
            (stored.clone(), "selvedge; fwd=uri-miss; stored"),
            (
                CacheStatus { collapsed: true, forward_status: Some(200), ..stored },
                "selvedge; fwd=uri-miss; stored; collapsed; fwd-status=200",
            ),
            (CacheStatus::forwarded(Forward::VaryMiss), "selvedge; fwd=vary-miss"),
            (CacheStatus::forwarded(Forward::Stale), "selvedge; fwd=stale"),
            (CacheStatus::forwarded(Forward::Bypass), "selvedge; fwd=bypass"),
            (CacheStatus::forwarded(Forward::Method), "selvedge; fwd=method"),
            (CacheStatus::forwarded(Forward::Request), "selvedge; fwd=request"),
        ] {
            assert_eq!(status.to_string(), text);
        }
    }
}
