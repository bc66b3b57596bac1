//! Validated newtypes that every layer shares: text is parsed into them once and needs no check afterwards.

mod byte_size;
mod host_name;
mod secret;
pub mod variables;

pub use byte_size::{ByteSize, ByteSizeError};
pub use host_name::{HostName, HostNameError};
pub use secret::Secret;
