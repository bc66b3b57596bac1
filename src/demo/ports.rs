//! Four loopback ports, all free at the same moment.

use super::{Error, Options};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// The option that sets a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    Http,
    Https,
    Admin,
    Origin,
}

impl Flag {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "--http-port",
            Self::Https => "--https-port",
            Self::Admin => "--admin-port",
            Self::Origin => "--origin-port",
        }
    }
}

/// The ports as chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) https: u16,
    pub(super) admin: u16,
    pub(super) origin: u16,
}

/// Ports held open, so that no two choices of "any free port" are the same.
pub(super) struct Reserved {
    ports: Ports,
    _held: [TcpListener; 4],
}

impl Ports {
    pub(super) fn reserve(options: &Options) -> Result<Reserved, Error> {
        let (http, http_held) = hold(options.http_port, Flag::Http)?;
        let (https, https_held) = hold(options.https_port, Flag::Https)?;
        let (admin, admin_held) = hold(options.admin_port, Flag::Admin)?;
        let (origin, origin_held) = hold(options.origin_port, Flag::Origin)?;
        let ports = Self { http, https, admin, origin };
        Ok(Reserved { ports, _held: [http_held, https_held, admin_held, origin_held] })
    }
}

impl Reserved {
    /// Lets go of the ports, for those who will listen on them.
    pub(super) fn release(self) -> Ports {
        self.ports
    }
}

fn hold(port: u16, flag: Flag) -> Result<(u16, TcpListener), Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let chosen = listener.and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
    chosen.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse { port, flag },
        _ => Error::Port { port, flag, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_cannot_serve_two_purposes() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let options = Options {
            http_port: free,
            https_port: free,
            admin_port: 0,
            origin_port: 0,
            dir: std::path::PathBuf::new(),
        };
        let error = Ports::reserve(&options).err().unwrap();
        assert!(matches!(error, Error::PortInUse { flag: Flag::Https, .. }), "{error}");
    }
}
