//! The integration tests: one binary, so that linking is paid for once. They talk to the real selvedge binary, nginx, a
//! bucket server that verifies signatures, curl and openssl; a part that is missing fails them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod support;

mod balance;
mod bucket;
mod collapse;
mod connections;
mod contract;
mod demo;
mod deploy;
mod disk;
mod dns;
mod docker;
mod durability;
mod faults;
mod hedge;
mod hot;
mod http_origin;
mod interim;
mod kill;
mod load;
mod memory;
mod oracle;
mod policy;
mod protocols;
mod purge;
mod reload;
mod rules;
mod siblings;
mod signatures;
mod sites;
mod sites_tls;
mod sites_traffic;
mod slices;
mod store;
mod stream;
mod tidy;
mod why;
