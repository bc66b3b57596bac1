//! UDP: a thread for each core and address, each with a socket of its own (SO_REUSEPORT), which takes and sends datagrams in
//! batches.
//!
//! nix receives and rustix sends: each wraps its half without `unsafe` here.

use super::answer::{Asked, Serving, Shared, answer};
use super::handles::Transport;
use super::log;
use arc_swap::ArcSwap;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmsg, setsockopt,
    sockopt,
};
use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketFlags, SocketType,
    addr::SocketAddrArg, sendmmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Datagrams taken and sent at a time.
const BATCH: usize = 32;
/// Bytes of a request; longer ones are cut, and malformed then.
const REQUEST: usize = 2048;
/// Bytes of an answer at most: what configuration allows.
const ANSWER: usize = 4096;
/// How often a thread that has nothing to do looks whether it shall end.
const LOOK: Duration = Duration::from_millis(200);
/// After an error that may come again at once.
const PAUSE: Duration = Duration::from_millis(10);

/// Sockets for one address that share its datagrams.
///
/// # Errors
/// The address is not to be had.
pub(super) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    (0..count.max(1)).map(|_| socket(address)).collect()
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // The answer has to come from the address that was asked, which only the packet tells.
    match address.ip() {
        ip if !ip.is_unspecified() => {}
        IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    rustix::net::bind(&socket, &address)?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

/// Which of this machine's addresses a datagram was sent to.
#[derive(Clone, Copy)]
enum Local {
    Bound,
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

#[derive(Clone, Copy)]
struct Received {
    from: SocketAddr,
    local: Local,
    length: usize,
}

/// Answers what comes on a socket until `stop` is true.
pub(super) fn serve(socket: &UdpSocket, serving: &ArcSwap<Serving>, shared: &Shared, stop: &AtomicBool) {
    let wildcard = socket.local_addr().is_ok_and(|address| address.ip().is_unspecified());
    let control = wildcard.then(|| nix::cmsg_space!(libc::in6_pktinfo));
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, control);
    let mut requests = Box::new([[0; REQUEST]; BATCH]);
    let mut answers = Box::new([[0; ANSWER]; BATCH]);
    while !stop.load(Ordering::Relaxed) {
        let mut received = [const { None }; BATCH];
        if let Err(error) = receive(socket, &mut headers, &mut requests, &mut received) {
            match error {
                nix::Error::EAGAIN | nix::Error::EINTR => {}
                error => {
                    tracing::warn!(%error, "datagrams cannot be received");
                    std::thread::sleep(PAUSE);
                }
            }
            continue;
        }
        let serving = serving.load();
        let now = log::seconds();
        let micros = shared.micros();
        let mut replies = [None; BATCH];
        let parts = received.iter().zip(requests.iter()).zip(answers.iter_mut()).zip(&mut replies);
        for (((received, request), out), reply) in parts {
            let Some(Received { from, length, .. }) = *received else { break };
            let message = request.get(..length).unwrap_or_default();
            let asked = Asked { message, from: from.ip(), transport: Transport::Udp, now, micros };
            // Nobody has port 0: an answer could only fail.
            let written = if from.port() == 0 { None } else { answer(&serving, shared, asked, out) };
            log::sampled(&serving, asked, written.and_then(|length| out.get(..length)));
            *reply = received.zip(written).map(|(received, length)| Received { length, ..received });
        }
        if wildcard {
            send_each(socket, &replies, &answers);
        } else {
            send(socket, &replies, &answers);
        }
    }
}

fn receive(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrStorage>,
    requests: &mut [[u8; REQUEST]; BATCH],
    received: &mut [Option<Received>; BATCH],
) -> nix::Result<()> {
    let mut buffers = requests.each_mut().map(|request| [IoSliceMut::new(request)]);
    let messages = recvmmsg(socket.as_raw_fd(), headers, buffers.iter_mut(), MsgFlags::MSG_WAITFORONE, None)?;
    for (place, message) in received.iter_mut().zip(messages) {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let from = message.address.as_ref().and_then(socket_address).unwrap_or(nobody);
        let mut local = Local::Bound;
        if let Ok(controls) = message.cmsgs() {
            for control in controls {
                match control {
                    ControlMessageOwned::Ipv4PacketInfo(info) => local = Local::V4(info),
                    ControlMessageOwned::Ipv6PacketInfo(info) => local = Local::V6(info),
                    _ => {}
                }
            }
        }
        *place = Some(Received { from, local, length: message.bytes });
    }
    Ok(())
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || address.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    let v6 = || address.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)));
    v4().or_else(v6)
}

/// All answers of a batch with one system call, as long as none fails.
fn send(socket: &UdpSocket, replies: &[Option<Received>; BATCH], answers: &[[u8; ANSWER]; BATCH]) {
    let nobody = SocketAddr::from(([0, 0, 0, 0], 0)).as_any();
    let mut to: [SocketAddrAny; BATCH] = std::array::from_fn(|_| nobody.clone());
    let mut contents: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|_| [IoSlice::new(&[])]);
    let mut count = 0;
    for (reply, answer) in replies.iter().zip(answers) {
        let Some(Received { from, length, .. }) = reply else { continue };
        to[count] = from.as_any();
        contents[count] = [IoSlice::new(answer.get(..*length).unwrap_or_default())];
        count += 1;
    }
    let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] =
        std::array::from_fn(|_| SendAncillaryBuffer::default());
    // Those behind the last answer are never looked at.
    let mut parts = to.iter().zip(&contents);
    let mut messages = controls.each_mut().map(|control| match parts.next() {
        Some((to, content)) => MMsgHdr::new_with_addr(to, content, control),
        None => MMsgHdr::new(&[], control),
    });
    let mut rest = messages.get_mut(..count).unwrap_or_default();
    while !rest.is_empty() {
        let done = match sendmmsg(socket, rest, SendFlags::empty()) {
            Ok(sent) => sent.max(1),
            Err(rustix::io::Errno::INTR) => 0,
            // It is the first of them that failed: a destination that cannot be reached, most often.
            Err(error) => {
                tracing::debug!(%error, "an answer cannot be sent");
                1
            }
        };
        rest = rest.get_mut(done..).unwrap_or_default();
    }
}

/// Answers one by one, each from the address that was asked.
fn send_each(socket: &UdpSocket, replies: &[Option<Received>; BATCH], answers: &[[u8; ANSWER]; BATCH]) {
    for (reply, answer) in replies.iter().zip(answers) {
        let Some(Received { from, local, length }) = reply else { continue };
        let content = [IoSlice::new(answer.get(..*length).unwrap_or_default())];
        let to = SockaddrStorage::from(*from);
        let fd = socket.as_raw_fd();
        let flags = MsgFlags::empty();
        let sent = match local {
            Local::Bound => sendmsg(fd, &content, &[], flags, Some(&to)),
            Local::V4(info) => {
                let info = libc::in_pktinfo { ipi_ifindex: 0, ..*info };
                sendmsg(fd, &content, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
            }
            Local::V6(info) => {
                // Only an address of one link says which link it is on.
                let linked = matches!(info.ipi6_addr.s6_addr, [0xfe, 0x80..=0xbf, ..]);
                let info = libc::in6_pktinfo { ipi6_ifindex: if linked { info.ipi6_ifindex } else { 0 }, ..*info };
                sendmsg(fd, &content, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "an answer cannot be sent");
        }
    }
}
