//! The certificates of one folder.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::pair::{Cause, Effect, Pair, Problem, unreadable};
use crate::clock::Clock;
use crate::types::HostName;

/// Why a folder of certificates cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("the certificate folder {} cannot be read: {source}; create it and let selvedge's user read it", .dir.display())]
pub struct OpenError {
    /// The folder.
    pub dir: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// The certificates of one folder, chosen by SNI. A handshake reads an immutable snapshot; loading builds the next.
pub struct CertStore {
    dir: PathBuf,
    clock: Clock,
    serving: ArcSwap<Serving>,
    files: Mutex<BTreeMap<String, Entry>>,
}

impl CertStore {
    /// Reads all pairs of `dir`. Pairs that cannot be served are among the problems, and the others are served.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(dir: &Path) -> Result<(Arc<Self>, Vec<Problem>), OpenError> {
        Self::open_at(dir, Clock::system())
    }

    /// [`CertStore::open`] with a clock, which says what has expired.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open_at(dir: &Path, clock: Clock) -> Result<(Arc<Self>, Vec<Problem>), OpenError> {
        scan(dir).map_err(|source| OpenError { dir: dir.to_owned(), source })?;
        let store = Arc::new(Self {
            dir: dir.to_owned(),
            clock,
            serving: ArcSwap::from_pointee(Serving::default()),
            files: Mutex::new(BTreeMap::new()),
        });
        let problems = store.reload();
        Ok((store, problems))
    }

    /// Reads all pairs again and tells what is wrong with the folder now. A pair that became unusable keeps its last
    /// good state; a pair of which both files are gone is served no longer. Blocks on the file system.
    pub fn reload(&self) -> Vec<Problem> {
        self.refresh(Reread::All)
    }

    /// Whether the host has a certificate of its own or of its parent domain; `default` does not count.
    pub fn covers(&self, host: &HostName) -> bool {
        self.serving.load().named(host.as_str()).is_some()
    }

    /// Whether there is a certificate for clients that ask for an unknown host, or for none.
    pub fn has_default(&self) -> bool {
        self.serving.load().pairs.contains_key(DEFAULT)
    }

    /// The names served, `default` included, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.serving.load().pairs.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The certificate for a client that asks for `host`, or for no host.
    pub fn choose(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let serving = self.serving.load();
        host.and_then(|host| serving.named(host)).or_else(|| serving.pairs.get(DEFAULT)).cloned()
    }

    /// The pair of this name, whatever host it is for.
    pub fn pair(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.serving.load().pairs.get(name).cloned()
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Loads what changed (or everything), publishes the result and returns the problems of the whole folder.
    pub(super) fn refresh(&self, reread: Reread) -> Vec<Problem> {
        let mut files = self.files.lock();
        let found = match scan(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                let effect = if files.is_empty() { Effect::NotServed } else { Effect::LastGoodServed };
                return vec![Problem { file: self.dir.clone(), cause: unreadable(&error), effect }];
            }
        };
        let now = self.clock.now();
        let before = files.len();
        files.retain(|name, _| found.contains_key(name));
        let mut changed = files.len() != before;
        for (name, stem) in found {
            let prints = stem.prints(&self.dir);
            match files.get_mut(&name) {
                Some(entry) if matches!(reread, Reread::Changed) && entry.is_current(&prints) => {}
                Some(entry) => changed |= entry.load(&self.dir, &stem, prints, now),
                None => {
                    let mut entry = Entry::default();
                    changed |= entry.load(&self.dir, &stem, prints, now);
                    files.insert(name, entry);
                }
            }
        }
        if changed {
            let served = |(name, e): (&String, &Entry)| Some((name.clone(), e.pair.as_ref()?.key.clone()));
            self.serving.store(Arc::new(Serving { pairs: files.iter().filter_map(served).collect() }));
        }
        files.values().filter_map(|e| e.problem(&self.dir, now)).collect()
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

impl fmt::Debug for CertStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertStore").field("dir", &self.dir).field("names", &self.names()).finish_non_exhaustive()
    }
}

/// What a refresh reads.
#[derive(Clone, Copy)]
pub(super) enum Reread {
    /// Every pair.
    All,
    /// The pairs whose files look different from when they were read.
    Changed,
}

/// The name of the pair for unknown hosts.
const DEFAULT: &str = "default";

#[derive(Default)]
struct Serving {
    pairs: HashMap<String, Arc<CertifiedKey>>,
}

impl Serving {
    /// The host's own pair, else its parent domain's.
    fn named(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = match host.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let parent = || {
            let (_, parent) = host.split_once('.')?;
            // The parent of a host of two labels is a top-level domain. An address has no parent.
            let is_domain = parent.contains('.') && host.parse::<std::net::IpAddr>().is_err();
            is_domain.then(|| self.pairs.get(parent)).flatten()
        };
        self.pairs.get(&*host).or_else(parent)
    }
}

/// A pair as it was last read.
#[derive(Default)]
struct Entry {
    prints: Prints,
    /// Whether the files had been still for long enough when they were read that a later write shows in their times.
    settled: bool,
    pair: Option<Pair>,
    fault: Option<(PathBuf, Cause)>,
    crt: PathBuf,
}

impl Entry {
    fn is_current(&self, prints: &Prints) -> bool {
        self.settled && self.prints == *prints
    }

    /// Reads the pair; a fault leaves the last good pair in place. Tells whether what is served may have changed.
    fn load(&mut self, dir: &Path, stem: &Stem, prints: Prints, now: SystemTime) -> bool {
        let loaded = stem.load(dir);
        // Prints are of before the read: a write in between makes them differ next time.
        self.settled = prints.iter().flatten().all(|p| p.is_settled(now));
        self.prints = prints;
        self.crt = dir.join(stem.crt());
        match loaded {
            Ok(pair) => {
                self.pair = Some(pair);
                self.fault = None;
                true
            }
            Err(fault) => {
                self.fault = Some(fault);
                false
            }
        }
    }

    fn problem(&self, dir: &Path, now: SystemTime) -> Option<Problem> {
        let effect = if self.pair.is_some() { Effect::LastGoodServed } else { Effect::NotServed };
        match (&self.fault, &self.pair) {
            (Some((file, cause)), _) => Some(Problem { file: dir.join(file), cause: cause.clone(), effect }),
            (None, Some(pair)) => {
                let cause = pair.warning(now)?;
                Some(Problem { file: self.crt.clone(), cause, effect: Effect::Served })
            }
            (None, None) => None,
        }
    }
}

/// What a file looks like from outside; a write or a replacement changes it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Of the certificate and of the key; `None` where the file cannot be looked at.
type Prints = [Option<Print>; 2];

/// Two writes within one tick of the file system's clock leave the same times; a tick is at most 10 ms, and some
/// network file systems keep whole seconds.
const SETTLE: Duration = Duration::from_secs(2);

impl Print {
    fn of(file: &Path) -> Option<Self> {
        let m = fs::metadata(file).ok()?;
        Some(Self {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        })
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let changed = UNIX_EPOCH + Duration::from_secs(self.changed.0.max(0).unsigned_abs());
        now.duration_since(changed).is_ok_and(|age| age > SETTLE)
    }
}

/// The files of one name: what stands before `.crt` and `.key`.
struct Stem {
    text: String,
    named_well: bool,
}

impl Stem {
    fn crt(&self) -> String {
        format!("{}.crt", self.text)
    }

    fn key(&self) -> String {
        format!("{}.key", self.text)
    }

    fn prints(&self, dir: &Path) -> Prints {
        [Print::of(&dir.join(self.crt())), Print::of(&dir.join(self.key()))]
    }

    fn load(&self, dir: &Path) -> Result<Pair, (PathBuf, Cause)> {
        if !self.named_well {
            return Err((dir.join(self.crt()), Cause::BadName));
        }
        Pair::load(&dir.join(self.crt()), &dir.join(self.key()))
    }
}

/// The pairs of a folder, complete or not, by the host they are for.
fn scan(dir: &Path) -> io::Result<BTreeMap<String, Stem>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        // A name that is not UTF-8 is no host's.
        let Some(name) = name.to_str() else { continue };
        let Some(text) = name.strip_suffix(".crt").or_else(|| name.strip_suffix(".key")) else { continue };
        let for_client_certificates = text == "ca" || text.ends_with(".ca");
        if name.starts_with('.') || (for_client_certificates && !dir.join(format!("{text}.key")).exists()) {
            continue;
        }
        let host = host_of(text);
        let stem = Stem { text: text.to_owned(), named_well: host.is_some() };
        // `A.crt` beside `a.crt`: the one spelled as hosts are wins, whatever order the folder is read in.
        let host = host.unwrap_or_else(|| text.to_owned());
        if !found.contains_key(&host) || stem.text == host {
            found.insert(host, stem);
        }
    }
    Ok(found)
}

/// A stem as clients would ask for it: lower case, an IPv6 address in brackets.
fn host_of(stem: &str) -> Option<String> {
    let host = match stem.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => stem.to_owned(),
    };
    host.parse::<HostName>().ok().map(|host| host.as_str().to_owned())
}
