//! One request at a time, to check what a server answers before it is measured.

use crate::Protocol;
use crate::peers::{Lab, Peer};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(15);

/// The body of a 200 answer to GET; else what is wrong.
pub fn fetch(lab: &Lab, peer: &Peer, protocol: Protocol, path: &str) -> Result<Vec<u8>, String> {
    let address = peer.address(protocol);
    let answer = match protocol {
        Protocol::H1 => get(address, path),
        Protocol::Https => get_over_tls(lab, address, path),
        Protocol::H2 => get_over_h2(lab, address, path),
    };
    answer.map_err(|problem| format!("GET {path} over {}: {problem}", protocol.as_str()))
}

/// [`fetch`] over plain HTTP/1.1 from any address.
pub fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(|e| e.to_string())?;
    stream.write_all(request(address, path).as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|e| e.to_string())?;
    body(&answer)
}

/// Whether anything listens there.
pub fn connects(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, TIMEOUT).is_ok()
}

fn get_over_tls(lab: &Lab, address: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    let mut command = Command::new(lab.tools.path("openssl"));
    command.args(["s_client", "-quiet", "-noservername", "-connect", &address.to_string()]);
    let answer = output(lab, command, request(address, path).as_bytes())?;
    body(&answer)
}

fn get_over_h2(lab: &Lab, address: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    // It prints the body whatever the status is: the caller compares it with the file, and h2load counts statuses.
    let mut command = Command::new(lab.tools.path("nghttp"));
    command.args(["--no-verify-peer", &format!("https://{address}{path}")]);
    output(lab, command, b"")
}

fn output(lab: &Lab, mut command: Command, input: &[u8]) -> Result<Vec<u8>, String> {
    command.env("OPENSSL_CONF", lab.openssl_config());
    let name = command.get_program().to_string_lossy().into_owned();
    let mut limited = lab.tools.limited(TIMEOUT.as_secs(), &command);
    limited.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = limited.spawn().map_err(|e| format!("{name}: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it ended early, its message says more than the broken pipe.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() && !output.stdout.is_empty() {
        return Ok(output.stdout);
    }
    Err(format!("{name}: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

fn request(address: SocketAddr, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
}

fn body(answer: &[u8]) -> Result<Vec<u8>, String> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no end of the header section")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("the answer is `{status}`"));
    }
    if head.to_ascii_lowercase().contains("\r\ntransfer-encoding:") {
        return Err("the answer has a transfer coding, its peers' have a Content-Length".to_owned());
    }
    Ok(answer[end + 4..].to_vec())
}
