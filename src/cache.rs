//! The shared cache: RFC 9111 policy as pure functions, the key, and the tiers behind pingora-cache's `Storage`.

pub mod disk;

/// What the cache is set up from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the memory tier, metadata included; 0 turns the tier off.
    pub memory_capacity: u64,
    /// The disk tier, where there is one.
    pub disk: Option<disk::Settings>,
    /// Bytes of the largest response that is stored; `None`: what the largest tier can hold (an eighth of its capacity).
    pub max_object: Option<u64>,
}
