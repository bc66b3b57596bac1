//! selvedge: a caching CDN edge proxy.
//!
//! Start with `ARCHITECTURE.md` beside this file; the life of a request is in [`proxy`]. Modules form layers and a
//! module uses only those of a lower layer; `tests/integration/tidy.rs` enforces it.

// Layer 0: no I/O but the clock's.
pub mod clock;
pub mod field;
pub mod metrics;
pub mod types;
pub mod watched;

// Layer 1: one concern each.
pub mod cache;
pub mod geo;
pub mod origin;
pub mod route;
pub mod tls;

// Layer 1b: over the route table's types.
pub mod discovery;

// Layer 2: the planes, and the load tester.
pub mod admin;
pub mod dns;
pub mod load;
pub mod proxy;

// Layer 3: from files and environment to settings.
pub mod config;

// Layer 4: composition.
pub mod app;
pub mod cli;
#[cfg(feature = "demo")]
pub mod demo;

// What tests and fuzzers feed to all of it.
#[cfg(any(test, fuzzing))]
pub mod fuzz;
