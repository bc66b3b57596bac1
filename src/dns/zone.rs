//! What a zone says, compiled to bytes that only have to be copied into answers.
//!
//! Names in a record's data that lie in the zone are kept relative to its apex:
//! the apex is the end of the name that was asked for, so that a pointer to it compresses them, whatever was asked.

use super::message::kind;
use super::name::{Name, suffixes};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A resource record of class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub owner: Name,
    /// Its type.
    pub kind: u16,
    /// Seconds.
    pub ttl: u32,
    /// Wire format without compression.
    pub data: Vec<u8>,
}

/// One zone as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneData {
    /// Its apex.
    pub apex: Name,
    /// All its records, the SOA among them.
    pub records: Vec<Record>,
    /// Names whose addresses a policy chooses, and the policy's number.
    pub steered: Vec<(Name, usize)>,
}

/// Bytes with names that go on at the apex: at each of `pointers` are two bytes to be filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// The bytes.
    pub bytes: Box<[u8]>,
    /// Where pointers to the apex are.
    pub pointers: Box<[u16]>,
}

/// The records of one name and type.
#[derive(Clone, Debug)]
pub struct RrSet {
    /// The type.
    pub kind: u16,
    /// Seconds.
    pub ttl: u32,
    /// The data of each record.
    pub data: Vec<Template>,
    /// Of a CNAME: where it leads.
    pub target: Option<Name>,
}

/// One name.
#[derive(Debug, Default)]
pub struct Entry {
    /// Its records by type. None: only names below it have some.
    pub sets: Vec<RrSet>,
    /// The policy that chooses its addresses.
    pub policy: Option<usize>,
    /// The entry of `*` below it.
    pub wildcard: Option<usize>,
    /// Another server is responsible for it and all below (RFC 1034 section 4.2.1); its servers' addresses are in `glue`.
    pub delegated: bool,
    /// Owner, type and data of addresses of name servers in this zone.
    pub glue: Vec<(Template, u32, u16, Box<[u8]>)>,
}

impl Entry {
    /// The records of a type.
    pub fn set(&self, kind: u16) -> Option<&RrSet> {
        self.sets.iter().find(|set| set.kind == kind)
    }
}

/// One zone.
#[derive(Debug)]
pub struct Zone {
    /// Its apex.
    pub apex: Name,
    /// The apex's own entry.
    pub entry: usize,
    /// For answers that say there is nothing: the SOA with the TTL of RFC 2308 section 5.
    pub negative: RrSet,
    /// Whether it has delegations.
    pub has_cuts: bool,
    /// Each name of the zone with its entry.
    names: HashMap<Name, usize>,
}

/// All zones.
#[derive(Debug, Default)]
pub struct Zones {
    zones: Vec<Zone>,
    by_apex: HashMap<Name, usize>,
    entries: Vec<Entry>,
}

/// Where a name was found.
#[derive(Clone, Copy, Debug)]
pub enum Found<'z> {
    /// The name itself, or a wildcard that stands for it.
    Entry(&'z Entry),
    /// It belongs to another server: the entry of the delegation, and how many bytes of the name lie before it.
    Delegated(&'z Entry, usize),
    /// There is no such name.
    Nothing,
}

impl Zones {
    /// Compiles zones.
    ///
    /// # Errors
    /// Everything that contradicts itself, in words for who wrote it.
    pub fn build(zones: &[ZoneData]) -> Result<Self, Vec<String>> {
        let mut this = Self::default();
        let mut problems = Vec::new();
        for zone in zones {
            if this.by_apex.contains_key(&zone.apex) {
                problems.push(format!("zone {} is there twice", zone.apex));
                continue;
            }
            problems.extend(check(zone));
            this.add(zone, &mut problems);
        }
        if problems.is_empty() { Ok(this) } else { Err(problems) }
    }

    /// The zones.
    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter()
    }

    /// The zone that a name (in lower case) lies in, and its number: of several the deepest.
    pub fn zone_of(&self, name: &[u8]) -> Option<(usize, &Zone)> {
        let index = suffixes(name).find_map(|suffix| self.by_apex.get(suffix))?;
        Some((*index, self.zones.get(*index)?))
    }

    /// The entry of an apex.
    pub fn apex(&self, zone: &Zone) -> Option<&Entry> {
        self.entries.get(zone.entry)
    }

    /// Looks a name (in lower case) of this zone up. `at_parent`: what is asked is what only the parent's side of a
    /// delegation has.
    pub fn find(&self, zone: &Zone, name: &[u8], at_parent: bool) -> Found<'_> {
        let apex = zone.apex.as_wire().len();
        if zone.has_cuts {
            // The delegation nearest to the apex counts: below it nothing is ours.
            let cut = suffixes(name)
                .take_while(|suffix| suffix.len() > apex)
                .filter_map(|suffix| {
                    let entry = self.entry(zone, suffix).filter(|entry| entry.delegated)?;
                    Some((entry, name.len() - suffix.len()))
                })
                .last();
            if let Some((entry, before)) = cut.filter(|(_, before)| *before > 0 || !at_parent) {
                return Found::Delegated(entry, before);
            }
        }
        if let Some(entry) = self.entry(zone, name) {
            return Found::Entry(entry);
        }
        // The closest encloser is the longest ancestor that exists; a wildcard right below it stands for the name
        // (RFC 4592 section 3.3.1).
        let encloser =
            suffixes(name).skip(1).take_while(|s| s.len() >= apex).find_map(|suffix| self.entry(zone, suffix));
        match encloser.and_then(|entry| self.entries.get(entry.wildcard?)) {
            Some(entry) => Found::Entry(entry),
            None => Found::Nothing,
        }
    }

    fn entry(&self, zone: &Zone, name: &[u8]) -> Option<&Entry> {
        zone.names.get(name).and_then(|index| self.entries.get(*index))
    }

    fn add(&mut self, zone: &ZoneData, problems: &mut Vec<String>) {
        let mut entered = HashMap::new();
        let mut names: BTreeMap<&Name, Vec<&Record>> = BTreeMap::new();
        zone.records.iter().for_each(|record| names.entry(&record.owner).or_default().push(record));
        for (name, _) in &zone.steered {
            names.entry(name).or_default();
        }
        let number = self.zones.len();
        let apex_entry = self.enter(&mut entered, &zone.apex);
        let mut has_cuts = false;
        for (name, records) in &names {
            let index = self.enter(&mut entered, name);
            // Names between it and the apex exist as well (RFC 8020).
            for above in ancestors(name, &zone.apex) {
                self.enter(&mut entered, &above);
            }
            if let (true, Some(parent)) = (name.as_wire().starts_with(b"\x01*"), name.parent()) {
                let parent = self.enter(&mut entered, &parent);
                self.entries[parent].wildcard = Some(index);
            }
            let delegated = **name != zone.apex && records.iter().any(|record| record.kind == kind::NS);
            has_cuts |= delegated;
            let glue = if delegated { glue(records, &names, &zone.apex) } else { Vec::new() };
            let policy = zone.steered.iter().find(|(steered, _)| steered == *name).map(|(_, policy)| *policy);
            let entry = &mut self.entries[index];
            entry.sets = sets(records, &zone.apex);
            entry.policy = policy;
            entry.delegated = delegated;
            entry.glue = glue;
        }
        let Some(soa) = self.entries[apex_entry].set(kind::SOA) else {
            problems.push(format!("zone {} has no SOA record", zone.apex));
            return;
        };
        let minimum = soa.data.first().and_then(|data| data.bytes.last_chunk::<4>()).copied().unwrap_or_default();
        let mut negative = soa.clone();
        negative.ttl = negative.ttl.min(u32::from_be_bytes(minimum));
        self.zones.push(Zone { apex: zone.apex.clone(), entry: apex_entry, negative, has_cuts, names: entered });
        self.by_apex.insert(zone.apex.clone(), number);
    }

    fn enter(&mut self, names: &mut HashMap<Name, usize>, name: &Name) -> usize {
        let next = self.entries.len();
        let index = *names.entry(name.clone()).or_insert(next);
        if index == next {
            self.entries.push(Entry::default());
        }
        index
    }
}

fn ancestors(name: &Name, apex: &Name) -> Vec<Name> {
    let mut all = Vec::new();
    let mut above = name.parent();
    while let Some(name) = above.filter(|above| above.is_within(apex)) {
        above = name.parent();
        all.push(name);
    }
    all
}

/// What contradicts itself in a zone.
fn check(zone: &ZoneData) -> Vec<String> {
    let mut problems = Vec::new();
    let mut kinds: BTreeMap<&Name, BTreeSet<u16>> = BTreeMap::new();
    let mut aliases: BTreeMap<&Name, usize> = BTreeMap::new();
    for record in &zone.records {
        if !record.owner.is_within(&zone.apex) {
            problems.push(format!("{} lies outside of the zone {}", record.owner, zone.apex));
        }
        kinds.entry(&record.owner).or_default().insert(record.kind);
        *aliases.entry(&record.owner).or_default() += usize::from(record.kind == kind::CNAME);
    }
    let soas = zone.records.iter().filter(|record| record.kind == kind::SOA).count();
    if soas > 1 {
        problems.push(format!("zone {} has {soas} SOA records; leave one", zone.apex));
    }
    if !kinds.get(&zone.apex).is_some_and(|kinds| kinds.contains(&kind::NS)) {
        problems.push(format!("zone {} names no name server; add an NS record at its apex", zone.apex));
    }
    for (name, kinds) in &kinds {
        if kinds.contains(&kind::CNAME) && (kinds.len() > 1 || aliases.get(name).is_some_and(|count| *count > 1)) {
            problems.push(format!("{name} is an alias (CNAME), so it can have no other records beside that one"));
        }
        if kinds.contains(&kind::SOA) && **name != zone.apex {
            problems.push(format!("{name} has an SOA record, which only the apex {} has", zone.apex));
        }
    }
    for (name, _) in &zone.steered {
        let taken = [kind::A, kind::AAAA, kind::CNAME].map(|kind| kinds.get(name).is_some_and(|k| k.contains(&kind)));
        if taken.contains(&true) {
            problems.push(format!("{name} has a policy, so it can have no A, AAAA or CNAME records"));
        }
        if kinds.get(name).is_some_and(|kinds| *name != zone.apex && kinds.contains(&kind::NS)) {
            problems.push(format!("{name} is delegated by its NS records, so it can have no policy"));
        }
        if !name.is_within(&zone.apex) {
            problems.push(format!("{name} lies outside of the zone {}", zone.apex));
        }
    }
    problems
}

fn sets(records: &[&Record], apex: &Name) -> Vec<RrSet> {
    let mut sets: Vec<RrSet> = Vec::new();
    for record in records {
        let data = template(record.kind, &record.data, apex);
        match sets.iter_mut().find(|set| set.kind == record.kind) {
            Some(set) => {
                // The TTL of a set is one (RFC 2181 section 5.2), and a record is in it once.
                set.ttl = set.ttl.min(record.ttl);
                if !set.data.contains(&data) {
                    set.data.push(data);
                }
            }
            None => {
                let target = (record.kind == kind::CNAME).then(|| Name::from_wire(&record.data));
                sets.push(RrSet { kind: record.kind, ttl: record.ttl, data: vec![data], target });
            }
        }
    }
    sets
}

fn glue(
    records: &[&Record],
    names: &BTreeMap<&Name, Vec<&Record>>,
    apex: &Name,
) -> Vec<(Template, u32, u16, Box<[u8]>)> {
    let servers = records.iter().filter(|record| record.kind == kind::NS).map(|record| Name::from_wire(&record.data));
    let mut glue = Vec::new();
    for server in servers {
        for address in names.get(&server).into_iter().flatten() {
            if matches!(address.kind, kind::A | kind::AAAA) {
                let owner = relative(server.as_wire(), apex);
                glue.push((owner, address.ttl, address.kind, address.data.clone().into()));
            }
        }
    }
    glue
}

/// The data of a record, its names shortened where RFC 3597 section 4 lets them be.
fn template(kind: u16, data: &[u8], apex: &Name) -> Template {
    let (before, names) = match kind {
        kind::NS | kind::CNAME | kind::PTR => (0, 1),
        kind::MX => (2, 1),
        kind::SOA => (0, 2),
        _ => (data.len(), 0),
    };
    let mut bytes = data.get(..before).unwrap_or_default().to_vec();
    let mut pointers = Vec::new();
    let mut rest = data.get(before..).unwrap_or_default();
    for _ in 0..names {
        let (name, after) = rest.split_at(name_length(rest).unwrap_or(rest.len()));
        let name = relative(name, apex);
        pointers.extend(name.pointers.iter().map(|at| at + bytes.len() as u16));
        bytes.extend(&*name.bytes);
        rest = after;
    }
    bytes.extend(rest);
    Template { bytes: bytes.into(), pointers: pointers.into() }
}

fn name_length(wire: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *wire.get(at)? {
            0 => return Some(at + 1).filter(|end| *end <= wire.len()),
            length => at += usize::from(length) + 1,
        }
    }
}

/// A name as labels and a pointer to the apex, or as it is where it lies elsewhere.
pub fn relative(name: &[u8], apex: &Name) -> Template {
    let lower = name.to_ascii_lowercase();
    let at = suffixes(&lower).find(|suffix| *suffix == apex.as_wire()).map(|suffix| lower.len() - suffix.len());
    match at {
        // A pointer to the root would be longer than the root.
        Some(at) if apex.as_wire().len() > 1 => {
            let mut bytes = name.get(..at).unwrap_or_default().to_vec();
            bytes.extend([0, 0]);
            Template { bytes: bytes.into(), pointers: Box::new([at as u16]) }
        }
        _ => Template { bytes: name.into(), pointers: Box::default() },
    }
}

#[cfg(test)]
mod tests;
