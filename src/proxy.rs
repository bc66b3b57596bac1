//! The HTTP plane: the life of a request.

pub mod access_log;
pub mod listen;
