//! What the integration tests share: a running edge, clients, and origin servers.

pub mod client;
pub mod edge;
pub mod faulty;
pub mod nginx;
pub mod oracle;
pub mod tools;

pub use client::{Answer, Client};
pub use edge::Edge;
