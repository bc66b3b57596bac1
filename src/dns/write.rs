//! Writing answers into a buffer of fixed size.

use super::message::{HEADER, Header, Rcode, class, kind, option};
use super::zone::{RrSet, Template};
use std::net::IpAddr;

/// Bytes of an OPT record without options.
const OPT: usize = 11;

/// Whose a record is.
#[derive(Clone, Copy)]
pub(super) enum Owner<'z> {
    /// The name that was asked for.
    Question,
    /// A name of the zone.
    Name(&'z Template),
    /// The zone's apex.
    Apex,
    /// The end of the name that was asked for, after so many bytes.
    QuestionEnd(usize),
}

/// Which part of an answer a record is put into.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

/// The client's subnet as an answer repeats it (RFC 7871 section 7.2.1).
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub family: u16,
    pub address: IpAddr,
    pub source: u8,
    pub scope: u8,
}

/// The OPT record of an answer.
#[derive(Clone, Copy, Default)]
pub(super) struct Opt<'a> {
    pub payload: u16,
    pub dnssec_ok: bool,
    pub cookie: Option<[u8; 24]>,
    pub scope: Option<Scope>,
    pub identity: Option<&'a [u8]>,
    /// In units of 100 milliseconds (RFC 7828 section 3.1).
    pub keepalive: Option<u16>,
}

impl Opt<'_> {
    /// Its bytes in the message.
    pub fn length(&self) -> usize {
        let options = [
            self.cookie.map(|cookie| cookie.len()),
            self.scope.map(|scope| 4 + usize::from(scope.source).div_ceil(8)),
            self.identity.map(<[u8]>::len),
            self.keepalive.map(|_| 2),
        ];
        OPT + options.into_iter().flatten().map(|length| length + 4).sum::<usize>()
    }
}

/// A message that is being written; what does not fit is remembered and left out.
pub(super) struct Writer<'b> {
    buffer: &'b mut [u8],
    at: usize,
    limit: usize,
    /// Where the question ends.
    body: usize,
    /// Where the apex is, in the question.
    pub apex: usize,
    counts: [u16; 3],
    full: bool,
}

impl<'b> Writer<'b> {
    /// Begins a message with this question (none: empty) in at most `limit` bytes.
    pub fn new(buffer: &'b mut [u8], limit: usize, question: &[u8]) -> Self {
        let limit = limit.min(buffer.len());
        let mut this = Self { buffer, at: HEADER, limit, body: HEADER, apex: HEADER, counts: [0; 3], full: false };
        this.put(question);
        this.body = this.at;
        this
    }

    /// Keeps bytes for what is written last.
    pub fn reserve(&mut self, bytes: usize) {
        self.limit = self.limit.saturating_sub(bytes);
    }

    /// Whether something did not fit.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The bytes so far.
    pub fn length(&self) -> usize {
        self.at
    }

    /// Takes everything after the question back.
    pub fn truncate(&mut self) {
        (self.at, self.counts, self.full) = (self.body, [0; 3], false);
    }

    /// A whole set of records.
    pub fn set(&mut self, section: Section, owner: Owner<'_>, set: &RrSet) {
        for data in &set.data {
            self.record(section, owner, set.kind, set.ttl, data);
        }
    }

    /// One record.
    pub fn record(&mut self, section: Section, owner: Owner<'_>, kind: u16, ttl: u32, data: &Template) {
        self.head(owner, kind, ttl, data.bytes.len());
        self.template(data);
        self.counts[section as usize] += u16::from(!self.full);
    }

    /// One record with data as it is.
    pub fn plain(&mut self, section: Section, owner: Owner<'_>, kind: u16, ttl: u32, data: &[u8]) {
        self.head(owner, kind, ttl, data.len());
        self.put(data);
        self.counts[section as usize] += u16::from(!self.full);
    }

    /// One record of class CH.
    pub fn chaos_text(&mut self, text: &[u8]) {
        let text = text.get(..text.len().min(255)).unwrap_or_default();
        self.pointer(HEADER);
        self.put(&kind::TXT.to_be_bytes());
        self.put(&class::CH.to_be_bytes());
        self.put(&[0; 4]);
        self.put(&(text.len() as u16 + 1).to_be_bytes());
        self.put(&[text.len() as u8]);
        self.put(text);
        self.counts[0] += u16::from(!self.full);
    }

    /// Ends the message: header and OPT record. Returns its length.
    pub fn finish(
        mut self,
        header: Header,
        rcode: Rcode,
        (authoritative, truncated): (bool, bool),
        opt: Option<&Opt<'_>>,
    ) -> usize {
        if let Some(opt) = opt {
            self.limit = self.limit.saturating_add(opt.length()).min(self.buffer.len());
            self.opt(opt, rcode);
        }
        let flags = 0x8000
            | u16::from(header.opcode) << 11
            | u16::from(authoritative) << 10
            | u16::from(truncated) << 9
            | u16::from(header.recursion_desired) << 8
            | u16::from(header.checking_disabled) << 4
            | rcode.code() & 0xf;
        let questions = u16::from(self.body > HEADER);
        let additional = self.counts[2] + u16::from(opt.is_some());
        let words = [header.id, flags, questions, self.counts[0], self.counts[1], additional];
        for (place, word) in self.buffer.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        self.at
    }

    fn opt(&mut self, opt: &Opt<'_>, rcode: Rcode) {
        self.put(&[0]);
        self.put(&kind::OPT.to_be_bytes());
        self.put(&opt.payload.to_be_bytes());
        self.put(&[(rcode.code() >> 4) as u8, 0, u8::from(opt.dnssec_ok) << 7, 0]);
        self.put(&((opt.length() - OPT) as u16).to_be_bytes());
        let mut option = |code: u16, parts: [&[u8]; 2]| {
            self.put(&code.to_be_bytes());
            self.put(&((parts[0].len() + parts[1].len()) as u16).to_be_bytes());
            parts.iter().for_each(|part| self.put(part));
        };
        if let Some(cookie) = &opt.cookie {
            option(option::COOKIE, [cookie, &[]]);
        }
        if let Some(Scope { family, address, source, scope }) = opt.scope {
            let family = family.to_be_bytes();
            let head = [family[0], family[1], source, scope];
            let bytes = usize::from(source).div_ceil(8);
            match address {
                IpAddr::V4(a) => option(option::SUBNET, [&head, a.octets().get(..bytes).unwrap_or_default()]),
                IpAddr::V6(a) => option(option::SUBNET, [&head, a.octets().get(..bytes).unwrap_or_default()]),
            }
        }
        if let Some(identity) = opt.identity {
            option(option::NSID, [identity, &[]]);
        }
        if let Some(time) = opt.keepalive {
            option(option::KEEPALIVE, [&time.to_be_bytes(), &[]]);
        }
    }

    fn head(&mut self, owner: Owner<'_>, kind: u16, ttl: u32, length: usize) {
        match owner {
            Owner::Question => self.pointer(HEADER),
            Owner::Name(name) => self.template(name),
            // The root is shorter than a pointer to it.
            Owner::Apex if self.buffer.get(self.apex) == Some(&0) => self.put(&[0]),
            Owner::Apex => self.pointer(self.apex),
            Owner::QuestionEnd(bytes) => self.pointer(HEADER + bytes),
        }
        let mut head = [0; 10];
        head[0..2].copy_from_slice(&kind.to_be_bytes());
        head[2..4].copy_from_slice(&class::IN.to_be_bytes());
        head[4..8].copy_from_slice(&ttl.to_be_bytes());
        head[8..10].copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        self.put(&head);
    }

    fn template(&mut self, template: &Template) {
        let start = self.at;
        self.put(&template.bytes);
        if self.full {
            return;
        }
        let pointer = (0xc000 | self.apex as u16).to_be_bytes();
        for at in &template.pointers {
            let at = start + usize::from(*at);
            if let Some(place) = self.buffer.get_mut(at..at + 2) {
                place.copy_from_slice(&pointer);
            }
        }
    }

    fn pointer(&mut self, to: usize) {
        self.put(&(0xc000 | to as u16).to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        match self.buffer.get_mut(self.at..end).filter(|_| end <= self.limit && !self.full) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.at = end;
            }
            None => self.full = true,
        }
    }
}
