//! HTTP field codecs: pure functions from field values to types and back.

pub mod cache_control;
pub mod cache_status;
pub mod connection;
pub mod date;
pub mod etag;
pub mod structured;

use std::fmt;

/// What the cache did for one request, as the metric label and the access log name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheOutcome {
    /// Answered by a fresh stored response.
    Hit,
    /// Answered by a stale stored response, as RFC 5861 allows.
    Stale,
    /// Answered by a stored response that the origin server confirmed.
    Revalidated,
    /// Fetched from the origin server.
    Miss,
    /// Answered by the fetch of another request.
    Collapsed,
    /// The cache was neither asked nor filled.
    Bypass,
    /// The request never came as far as the cache.
    #[default]
    None,
}

impl CacheOutcome {
    /// Every outcome, in the order of declaration.
    pub const ALL: [Self; 7] =
        [Self::Hit, Self::Stale, Self::Revalidated, Self::Miss, Self::Collapsed, Self::Bypass, Self::None];

    /// The token of metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Bypass => "bypass",
            Self::None => "none",
        }
    }
}

impl fmt::Display for CacheOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
