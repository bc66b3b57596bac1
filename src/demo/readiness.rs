//! Waits until the edge answers and the bucket refuses strangers, then tells the user.

use super::guide::Guide;
use super::site::BUCKET;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A debug build on a busy machine needs seconds; more than this and something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Prints the guide and `ready`, or why not.
pub(super) fn announce(guide: &Guide, out: &mut dyn Write, errors: &mut dyn Write) {
    let asked = Instant::now();
    while !matches!(status_of(guide.ports.admin, "/healthz"), Ok(200)) {
        if asked.elapsed() > PATIENCE {
            let _ = writeln!(errors, "selvedge demo: the edge is not up after {} s", PATIENCE.as_secs());
            return;
        }
        sleep(PAUSE);
    }
    // The demo shows a private bucket: if anyone could read it, its commands would prove nothing.
    let unsigned = status_of(guide.ports.origin, &format!("/{BUCKET}/index.html"));
    if !matches!(unsigned, Ok(403)) {
        let _ = writeln!(errors, "selvedge demo: the bucket should refuse unsigned requests, and gave {unsigned:?}");
        return;
    }
    // Nobody may be reading any more; that is no reason to stop serving.
    let _ = write!(out, "{guide}\nready\n").and_then(|()| out.flush());
}

/// The status of a GET on loopback.
pub(super) fn status_of(port: u16, path: &str) -> io::Result<u16> {
    const LIMIT: Duration = Duration::from_secs(2);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut head)?;
    let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/1.1 response"))
}
