//! What fuzzers feed: every parser that bytes from outside reach, as a function of bytes that returns or panics. Nothing of
//! it is in an ordinary build.
//!
//! `tests/fuzz` has a target of libFuzzer for each and a corpus; the tests here run every target over its corpus and over
//! mutations of it, the same ones each time.

mod http;
mod text;

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod tests;

/// A parser and the properties that it keeps to, whatever the bytes.
pub struct Target {
    /// The name of its folder in `tests/fuzz/corpus`.
    pub name: &'static str,
    /// Panics if a property does not hold.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "record", run: crate::cache::disk::fuzz::record },
    Target { name: "footer", run: crate::cache::disk::fuzz::footer },
    Target { name: "superblock", run: crate::cache::disk::fuzz::superblock },
    Target { name: "purge_log", run: crate::cache::disk::fuzz::purge_log },
    Target { name: "segment", run: crate::cache::disk::fuzz::segment },
    Target { name: "stored_head", run: crate::cache::fuzz::stored_head },
    Target { name: "cache_control", run: http::cache_control },
    Target { name: "structured", run: http::structured },
    Target { name: "conditions", run: http::conditions },
    Target { name: "date", run: http::date },
    Target { name: "target", run: crate::proxy::fuzz_target },
    Target { name: "config", run: text::config },
    Target { name: "scope", run: text::scope },
    Target { name: "dns", run: crate::dns::fuzz::request },
    Target { name: "sitemap", run: crate::cli::fuzz_sitemap },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
