//! A machine whose disk fails as a test wants it: errors, short and torn writes, flipped bits, lost synchronisations, and
//! its death at any system call. After a power failure each sector written since the last synchronisation holds any
//! of its contents since then.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

const SECTOR: u64 = 512;

/// How often each thing goes wrong, of 1,000 calls, and when the machine dies.
#[derive(Clone, Copy, Default, Debug)]
pub struct Plan {
    pub seed: u64,
    pub write_fails: u64,
    pub disk_full: u64,
    pub short_write: u64,
    pub sync_fails: u64,
    pub directory_sync_fails: u64,
    pub read_fails: u64,
    pub short_read: u64,
    pub bit_flips: u64,
    /// The last of its calls; if it writes, a part of that arrives.
    pub dies_at: Option<u64>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    random: u64,
    calls: u64,
    is_dead: bool,
    /// By inode, so that a renamed file stays the same: sectors written since they were synchronised, and what they held.
    files: HashMap<u64, Unsynced>,
    /// Files that renames took away since the directory was synchronised.
    replaced: Vec<(PathBuf, Option<Vec<u8>>)>,
    /// Bytes of any file that cannot be read.
    unreadable: Vec<std::ops::Range<u64>>,
    unwritable: Vec<std::ops::Range<u64>>,
}

struct Unsynced {
    file: File,
    sectors: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Their synchronisation failed: another that succeeds says nothing of them.
    doubtful: BTreeMap<u64, Vec<Vec<u8>>>,
}

pub struct Machine(Mutex<State>);

/// What one open file is connected by.
pub struct Wire {
    machine: Arc<Machine>,
    inode: u64,
}

/// A sequence of numbers that a seed decides.
pub fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Machine {
    pub fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { plan, random: plan.seed, ..State::default() })))
    }

    /// From now on.
    pub fn change(&self, plan: Plan) {
        self.0.lock().plan = plan;
    }

    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    pub fn is_dead(&self) -> bool {
        self.0.lock().is_dead
    }

    /// `kill -9`: what was written stays.
    pub fn kill(&self) {
        self.0.lock().is_dead = true;
    }

    pub fn break_reads(&self, bytes: std::ops::Range<u64>) {
        self.0.lock().unreadable.push(bytes);
    }

    pub fn break_writes(&self, bytes: std::ops::Range<u64>) {
        self.0.lock().unwritable.push(bytes);
    }

    pub fn mend(&self) {
        let mut state = self.0.lock();
        state.unreadable.clear();
        state.unwritable.clear();
    }

    /// What was not synchronised is there or not, sector by sector. The process must have ended.
    pub fn lose_power(&self) {
        let mut state = self.0.lock();
        state.is_dead = true;
        let (files, replaced) = (std::mem::take(&mut state.files), std::mem::take(&mut state.replaced));
        for unsynced in files.into_values() {
            for (sector, before) in unsynced.sectors.into_iter().chain(unsynced.doubtful) {
                let chosen = (next(&mut state.random) % (before.len() as u64 + 1)) as usize;
                if let Some(bytes) = before.get(chosen) {
                    unsynced.file.write_all_at(bytes, sector * SECTOR).unwrap();
                }
            }
        }
        // The last first: what is there at the end is what was there at some moment.
        for (path, before) in replaced.into_iter().rev() {
            if next(&mut state.random).is_multiple_of(2) {
                break;
            }
            let _ = fs::remove_file(&path);
            if let Some(bytes) = before {
                fs::write(&path, bytes).unwrap();
            }
        }
    }

    pub(super) fn wire(self: &Arc<Self>, file: &File) -> Wire {
        let inode = file.metadata().unwrap().ino();
        let file = file.try_clone().unwrap();
        let unsynced = Unsynced { file, sectors: BTreeMap::new(), doubtful: BTreeMap::new() };
        self.0.lock().files.entry(inode).or_insert(unsynced);
        Wire { machine: Arc::clone(self), inode }
    }

    pub(super) fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call()?;
        if state.happens(|plan| plan.directory_sync_fails) {
            return Err(Errno::IO.into());
        }
        state.replaced.clear();
        Ok(())
    }
}

/// A call that writes nothing.
pub(super) fn check(machine: Option<&Arc<Machine>>) -> io::Result<()> {
    machine.map_or(Ok(()), |machine| machine.0.lock().call())
}

pub(super) fn rename(machine: Option<&Arc<Machine>>, to: &Path) -> io::Result<()> {
    let Some(machine) = machine else { return Ok(()) };
    let mut state = machine.0.lock();
    state.call()?;
    state.replaced.push((to.to_owned(), fs::read(to).ok()));
    Ok(())
}

impl State {
    /// An error if the machine is dead, or dies now.
    fn call(&mut self) -> io::Result<()> {
        if self.dies() { Err(Errno::IO.into()) } else { Ok(()) }
    }

    fn dies(&mut self) -> bool {
        self.calls += 1;
        self.is_dead |= self.plan.dies_at.is_some_and(|last| self.calls >= last);
        self.is_dead
    }

    fn happens(&mut self, what: impl Fn(&Plan) -> u64) -> bool {
        let of_thousand = what(&self.plan);
        of_thousand > 0 && next(&mut self.random) % 1000 < of_thousand
    }

    /// Writes as the disk would, remembering what was there.
    fn put(&mut self, inode: u64, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let unsynced = self.files.get_mut(&inode).unwrap();
        let (first, last) = (at / SECTOR, (at + bytes.len() as u64).div_ceil(SECTOR));
        let mut before = vec![0; ((last - first) * SECTOR) as usize];
        let mut len = 0;
        while let read @ 1.. = file.read_at(&mut before[len..], first * SECTOR + len as u64)? {
            len += read;
        }
        for (sector, before) in (first..last).zip(before.chunks(SECTOR as usize)) {
            let versions = unsynced.sectors.entry(sector).or_default();
            versions.append(&mut unsynced.doubtful.remove(&sector).unwrap_or_default());
            versions.push(before.to_vec());
        }
        file.write_all_at(bytes, at)
    }
}

impl Wire {
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    pub fn read(&self, file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.machine.0.lock();
        state.call()?;
        let wanted = at..at + buffer.len() as u64;
        let broken = state.unreadable.iter().any(|part| part.start < wanted.end && wanted.start < part.end);
        if broken || state.happens(|plan| plan.read_fails) {
            return Err(Errno::IO.into());
        }
        let len = buffer.len();
        let short = state.happens(|plan| plan.short_read).then(|| next(&mut state.random) as usize % len + 1);
        let read = file.read_at(&mut buffer[..short.unwrap_or(len)], at)?;
        if read > 0 && state.happens(|plan| plan.bit_flips) {
            let bit = next(&mut state.random) as usize % (read * 8);
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(read)
    }

    pub fn write(&self, file: &File, slices: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let bytes = slices.iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
        let mut state = self.machine.0.lock();
        if state.is_dead {
            return Err(Errno::IO.into());
        }
        let part = next(&mut state.random) as usize % (bytes.len() + 1);
        // Errors and crashes end at the edge of a sector; only a short write may end anywhere.
        let whole = part.saturating_sub((at + part as u64) as usize % SECTOR as usize);
        if state.dies() {
            if state.happens(|_| 500) {
                state.put(self.inode, file, &bytes[..whole], at)?;
                return Err(Errno::IO.into());
            }
            // Torn: some of its sectors, in no order.
            let mut done = 0;
            while done < bytes.len() {
                let end = bytes.len().min(done + (SECTOR - (at + done as u64) % SECTOR) as usize);
                if state.happens(|_| 500) {
                    state.put(self.inode, file, &bytes[done..end], at + done as u64)?;
                }
                done = end;
            }
            return Err(Errno::IO.into());
        }
        let wanted = at..at + bytes.len() as u64;
        let broken = state.unwritable.iter().any(|bad| bad.start < wanted.end && wanted.start < bad.end);
        for (fails, error) in [
            (broken || state.happens(|plan| plan.write_fails), Errno::IO),
            (state.happens(|plan| plan.disk_full), Errno::NOSPC),
        ] {
            if fails {
                state.put(self.inode, file, &bytes[..whole], at)?;
                return Err(error.into());
            }
        }
        let short = state.happens(|plan| plan.short_write) && part > 0;
        let len = if short { part } else { bytes.len() };
        state.put(self.inode, file, &bytes[..len], at)?;
        Ok(len)
    }

    /// No real synchronisation: the machine is a model, and the real one stays up.
    pub fn sync(&self, _: &File) -> io::Result<()> {
        let mut state = self.machine.0.lock();
        state.call()?;
        let fails = state.happens(|plan| plan.sync_fails);
        let unsynced = state.files.get_mut(&self.inode).unwrap();
        let mut sectors = std::mem::take(&mut unsynced.sectors);
        if fails {
            unsynced.doubtful.append(&mut sectors);
            return Err(Errno::IO.into());
        }
        Ok(())
    }

    pub fn allocate(&self) -> io::Result<()> {
        let mut state = self.machine.0.lock();
        state.call()?;
        if state.happens(|plan| plan.disk_full) { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }
}
