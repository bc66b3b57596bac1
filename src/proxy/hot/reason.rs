//! Why a request goes to the proxy core.

/// Why the hot path leaves a request to the proxy core: the label of `selvedge_hot_path_total`, beside `answered`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The hot path is turned off, or there is no cache.
    Off,
    /// Not HTTP/1.1, or a head with more fields than are read here, or one that cannot be read.
    Head,
    /// Neither GET nor HEAD.
    Method,
    /// A target that is not plainly a path, or a host that is not plainly one.
    Target,
    /// Fields that announce content, ask for another protocol, explain themselves or concern the connection in an unusual
    /// way.
    Fields,
    /// No site or route takes it.
    Route,
    /// The route redirects it, does not cache, or makes something of each client.
    Rule,
    /// The rules on requests keep it from the cache.
    Bypass,
    /// Nothing that could answer is in memory or on the disk.
    Missing,
    /// What is stored is stale, or the request refuses it.
    Refused,
    /// What is stored is a part, or in slices.
    Partial,
    /// The stored head has something that the core puts right.
    Stored,
    /// Several ranges are asked for.
    Ranges,
}

impl Reason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 13] = [
        Self::Off,
        Self::Head,
        Self::Method,
        Self::Target,
        Self::Fields,
        Self::Route,
        Self::Rule,
        Self::Bypass,
        Self::Missing,
        Self::Refused,
        Self::Partial,
        Self::Stored,
        Self::Ranges,
    ];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Head => "head",
            Self::Method => "method",
            Self::Target => "target",
            Self::Fields => "fields",
            Self::Route => "route",
            Self::Rule => "rule",
            Self::Bypass => "bypass",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Partial => "partial",
            Self::Stored => "stored",
            Self::Ranges => "ranges",
        }
    }
}
