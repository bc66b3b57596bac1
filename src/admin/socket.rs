//! The listening socket, TCP or unix.

use super::Address;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

const BACKLOG: i32 = 128;

/// Why the admin listener cannot be opened. Each message ends with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The TCP address is taken or not allowed.
    #[error("the admin listener cannot use {address}: {source}; free the address or set another one")]
    Tcp {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another process answers on the unix socket.
    #[error("{} answers already, so another process serves it; stop that one or set another path", .0.display())]
    InUse(PathBuf),
    /// Something else than a socket is at the path.
    #[error("{} exists and is no socket; remove it or set another path", .0.display())]
    NotASocket(PathBuf),
    /// The unix socket cannot be made.
    #[error("the admin socket {} cannot be made: {source}; its folder has to exist and be writable", path.display())]
    Unix {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An open socket that does not block.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// A unix socket's file. It is removed when this is dropped, unless another process has put its own there since.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Socket {
    pub(super) fn bind(address: &Address) -> Result<Self, BindError> {
        match address {
            Address::Tcp(address) => bind_tcp(*address).map_err(|source| BindError::Tcp { address: *address, source }),
            Address::Unix(path) => {
                clear_stale(path)?;
                bind_unix(path).map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse => BindError::InUse(path.clone()),
                    _ => BindError::Unix { path: path.clone(), source },
                })
            }
        }
    }

    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => address.to_string(),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "admin socket could not be removed");
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    Ok(Socket::Tcp(listener, bound))
}

/// Removes a socket that a killed process left. Connecting is the only test: the file says nothing of its owner.
fn clear_stale(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before the bind, so that there is no moment at which others may connect: Linux gives the file the socket's mode.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let made = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: (made.dev(), made.ino()) };
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Socket::Unix(UnixListener::from(socket), file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn unix(path: &Path) -> Result<Socket, BindError> {
        Socket::bind(&Address::Unix(path.to_owned()))
    }

    #[test]
    fn a_unix_socket_is_private_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let socket = unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(socket.address(), format!("unix:{}", path.display()));
        assert!(matches!(unix(&path), Err(BindError::InUse(_))));
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_nobody_answers_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file");
        let socket = unix(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        // Another process's socket at the same path is not ours to remove.
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(other);
    }

    #[test]
    fn a_file_or_a_missing_folder_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(unix(&path).unwrap_err().to_string().contains("is no socket; remove it"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let error = unix(&dir.path().join("none/admin.sock")).unwrap_err();
        assert!(error.to_string().contains("its folder has to exist"), "{error}");
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = Socket::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let address: SocketAddr = first.address().parse().unwrap();
        assert_ne!(address.port(), 0);
        let error = Socket::bind(&Address::Tcp(address)).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("free the address"), "{error}");
    }
}
