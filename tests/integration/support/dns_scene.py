"""Asks a selvedge that serves example.com what DNS servers are asked, and compares with the standards.

Arguments: port. The EDNS part has the queries of the ednscomp compliance set (RFC 8906 section 8).
"""
import socket
import struct
import sys

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype

PORT = int(sys.argv[1])
HOST = "127.0.0.1"


def udp(query, **more):
    return dns.query.udp(query, HOST, port=PORT, timeout=10, **more)


def tcp(query):
    return dns.query.tcp(query, HOST, port=PORT, timeout=10)


def expect(what, condition, reply=None):
    if not condition:
        sys.exit(f"{what}\n{reply}")


def edns_compliance():
    soa = dns.rdatatype.SOA

    def good(reply, what, options=0):
        expect(what, reply.rcode() == dns.rcode.NOERROR, reply)
        expect(what, reply.flags & dns.flags.AA and len(reply.answer) == 1, reply)
        expect(what, reply.edns == 0 and reply.ednsflags & 0x7FFF == 0, reply)
        expect(what, len(reply.options) == options, reply)

    plain = udp(dns.message.make_query("example.com", soa, use_edns=False))
    expect("dns", plain.rcode() == 0 and plain.edns == -1 and len(plain.answer) == 1, plain)
    expect("dns: no recursion", not plain.flags & (dns.flags.RA | dns.flags.AD), plain)
    good(udp(dns.message.make_query("example.com", soa, use_edns=0)), "edns")
    unknown = dns.edns.GenericOption(100, b"")
    good(udp(dns.message.make_query("example.com", soa, use_edns=0, options=[unknown])), "ednsopt")
    good(udp(dns.message.make_query("example.com", soa, use_edns=0, ednsflags=0x80)), "ednsflags")
    do = udp(dns.message.make_query("example.com", soa, use_edns=0, want_dnssec=True))
    good(do, "do")
    expect("do is repeated", do.ednsflags & dns.flags.DO, do)
    good(tcp(dns.message.make_query("example.com", soa, use_edns=0, payload=512)), "edns512tcp")
    for name, options in [("edns1", []), ("edns1opt", [unknown])]:
        reply = udp(dns.message.make_query("example.com", soa, use_edns=1, options=options))
        expect(name, reply.rcode() == dns.rcode.BADVERS and not reply.answer and reply.edns == 0, reply)
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    reply = udp(dns.message.make_query("example.com", soa, use_edns=0, options=[cookie]))
    good(reply, "docookie", options=1)
    given = reply.options[0].to_wire() if hasattr(reply.options[0], "to_wire") else b""
    expect("docookie", len(given) == 24 and given.startswith(b"12345678"), reply)
    subnet = dns.edns.ECSOption("203.0.113.0", 24)
    every = [unknown, cookie, subnet, dns.edns.GenericOption(3, b"")]
    reply = udp(dns.message.make_query("example.com", soa, use_edns=0, options=every))
    good(reply, "all options", options=3)
    for flags, what in [(0, "norec"), (dns.flags.AD, "ad"), (dns.flags.CD, "cd"), (0x40, "zflag"), (dns.flags.RD, "rd")]:
        query = dns.message.make_query("example.com", soa, use_edns=False)
        query.flags = flags
        reply = udp(query)
        expect(what, reply.rcode() == 0 and len(reply.answer) == 1, reply)
        expect(what, not reply.flags & (dns.flags.AD | dns.flags.RA | 0x40), reply)
    kind = udp(dns.message.make_query("example.com", 1000, use_edns=0))
    expect("unknown type", kind.rcode() == 0 and not kind.answer and len(kind.authority) == 1, kind)
    for opcode in (1, 2, 4, 5, 15):
        header = struct.pack(">HHHHHH", 7, opcode << 11, 0, 0, 0, 0)
        expect(f"opcode {opcode}", exchange(header) == struct.pack(">HHHHHH", 7, 0x8000 | opcode << 11 | 4, 0, 0, 0, 0))


def exchange(data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.sendto(data, (HOST, PORT))
        return asking.recv(4096)


def pipelining():
    names = ["example.com", "ns1.example.com", "nope.example.com", "www.example.com"] * 50
    queries = [dns.message.make_query(name, "A", id=n) for n, name in enumerate(names)]
    data = b"".join(struct.pack(">H", len(wire)) + wire for wire in (query.to_wire() for query in queries))
    with socket.create_connection((HOST, PORT), timeout=10) as connection:
        # In pieces that end wherever they end.
        for at in range(0, len(data), 777):
            connection.sendall(data[at : at + 777])
        received = b""
        for query in queries:
            while len(received) < 2 or len(received) < 2 + struct.unpack(">H", received[:2])[0]:
                more = connection.recv(65536)
                expect("pipelining: the connection ended early", more)
                received += more
            length = struct.unpack(">H", received[:2])[0]
            reply = dns.message.from_wire(received[2 : 2 + length])
            received = received[2 + length :]
            expect("pipelining", query.is_response(reply), reply)


def subnets():
    """Every answer's scope is at most what was asked, and within one scope the answer is one."""
    seen = {}
    for third in range(0, 256):
        prefix = f"203.0.{third}.0"
        option = dns.edns.ECSOption(prefix, 24)
        reply = udp(dns.message.make_query("www.example.com", "A", use_edns=0, options=[option]))
        scope = reply.options[0].scopelen
        expect("scope", 0 < scope <= 24, reply)
        address = reply.answer[-1][0].address
        covered = [a for a, other in seen.items() if (a ^ third) >> max(0, 24 - min(24, scope)) == 0 and other != address]
        expect(f"{prefix}/{scope} is {address}, others in it are not", not covered, reply)
        seen[third] = address
    expect("two nodes", len(set(seen.values())) == 2, seen)


edns_compliance()
pipelining()
subnets()
print("ok")
