//! The tier's files: every read, write, synchronisation and rename of it goes through here, and nowhere else. Each
//! system call is one method, so that tests can let it fail, stop half-way or be the last of its machine; in other builds
//! these are the bare calls.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

#[cfg(test)]
pub(super) mod faults;

/// Mode of the tier's files: what a private origin answered is nobody else's to read.
pub(super) const PRIVATE: u32 = 0o600;
/// Below the kernel's limit of 1,024 pieces for one call.
const MAX_PIECES: usize = 512;

/// The tier's directory.
#[derive(Clone)]
pub(super) struct Volume {
    path: PathBuf,
    #[cfg(test)]
    machine: Option<std::sync::Arc<faults::Machine>>,
}

/// One of its files, open.
pub(super) struct DiskFile {
    file: File,
    #[cfg(test)]
    wire: Option<faults::Wire>,
}

/// One of them, read past the page cache.
pub(super) struct DirectFile(File);

/// How a file is opened; all but the first are written too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// It is there, and stays as it is.
    Read,
    /// It is there.
    Existing,
    /// Made if missing.
    Create,
    /// Made anew and empty.
    Anew,
}

impl Volume {
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            #[cfg(test)]
            machine: None,
        }
    }

    /// On a machine whose disk does what a test tells it.
    #[cfg(test)]
    pub fn on(machine: &std::sync::Arc<faults::Machine>, path: &Path) -> Self {
        Self { path: path.to_owned(), machine: Some(std::sync::Arc::clone(machine)) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn open(&self, name: &str, mode: Mode) -> io::Result<DiskFile> {
        #[cfg(test)]
        faults::check(self.machine.as_ref())?;
        let file = OpenOptions::new()
            .read(true)
            .write(mode != Mode::Read)
            .create(!matches!(mode, Mode::Read | Mode::Existing))
            .truncate(mode == Mode::Anew)
            .mode(PRIVATE)
            .open(self.path.join(name))?;
        Ok(DiskFile {
            #[cfg(test)]
            wire: self.machine.as_ref().map(|machine| machine.wire(&file)),
            file,
        })
    }

    /// A file that is there, to be read past the page cache; `None` where the file system cannot.
    pub fn open_direct(&self, name: &str) -> Option<DirectFile> {
        #[cfg(test)]
        if self.machine.is_some() {
            return None;
        }
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
        OpenOptions::new().read(true).custom_flags(flags).open(self.path.join(name)).ok().map(DirectFile)
    }

    /// All of a file; `None` if there is none.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        #[cfg(test)]
        faults::check(self.machine.as_ref())?;
        match std::fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts one file in the place of another; on the disk only after [`Volume::sync`].
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        #[cfg(test)]
        faults::rename(self.machine.as_ref(), &self.path.join(to))?;
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    /// Waits until the directory itself is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(machine) = &self.machine {
            return machine.sync_directory();
        }
        File::open(&self.path)?.sync_all()
    }
}

impl DiskFile {
    /// Fills the buffer from `at`.
    ///
    /// # Errors
    /// `UnexpectedEof` where the file ends before.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_some(buffer, at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_some(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(wire) = &self.wire {
            return wire.read(&self.file, buffer, at);
        }
        self.file.read_at(buffer, at)
    }

    /// Reads what of it is in the page cache, without waiting for the disk.
    ///
    /// # Errors
    /// `WOULDBLOCK` where nothing is; `OPNOTSUPP`, `NOSYS` or `INVAL` where the system cannot tell.
    pub fn read_cached(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        #[cfg(test)]
        if self.wire.is_some() {
            return Err(Errno::WOULDBLOCK);
        }
        rustix::io::preadv2(&self.file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT)
    }

    /// Writes all of `bytes` at `at`.
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_slices(&mut [IoSlice::new(bytes)], at)
    }

    /// Writes the parts, one behind the other, at `at`.
    pub fn write_parts_at(&self, parts: &[Bytes], mut at: u64) -> io::Result<()> {
        for parts in parts.chunks(MAX_PIECES) {
            let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            self.write_slices(&mut slices, at)?;
            at += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    fn write_slices(&self, mut slices: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
        // Empty ones are nothing to write, not the end of the disk.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.write_some(slices, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_some(&self, slices: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(wire) = &self.wire {
            return wire.write(&self.file, slices, at);
        }
        Ok(rustix::io::pwritev(&self.file, slices, at)?)
    }

    /// `fdatasync`: waits until what was written is on the disk. After an error it is not known what is.
    pub fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(wire) = &self.wire {
            return wire.sync(&self.file);
        }
        Ok(retry_on_intr(|| rustix::fs::fdatasync(&self.file))?)
    }

    /// `fsync`: as [`Self::sync_data`], with all metadata.
    pub fn sync_all(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(wire) = &self.wire {
            return wire.sync(&self.file);
        }
        self.file.sync_all()
    }

    /// Gives `len` bytes from `start` their blocks, so that a disk that is full says so early. Where the file system
    /// cannot, the file only grows.
    pub fn allocate(&self, start: u64, len: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(wire) = &self.wire {
            wire.allocate()?;
        }
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), start, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(start + len),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether pages can be taken off the file; see [`Self::detach`].
    pub fn can_detach(&self) -> bool {
        #[cfg(test)]
        if self.wire.is_some() {
            return false;
        }
        // There is nothing behind the end, so that this tells without doing anything.
        self.len().is_ok_and(|end| self.punch(end, DirectFile::PAGE).is_ok())
    }

    /// Takes the pages of `len` bytes from `start` off the file, and gives it new blocks there, which read as zeros. Who
    /// has the old pages keeps them as they are, whatever is written then.
    pub fn detach(&self, start: u64, len: u64) -> io::Result<()> {
        self.punch(start, len)?;
        self.allocate(start, len)
    }

    fn punch(&self, start: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, start, len))?)
    }

    /// Sends what of `len` bytes from `at` a socket takes, out of the page cache and without a copy. The pages must not be
    /// written to from then on: see [`Self::detach`].
    pub fn send(&self, socket: BorrowedFd<'_>, mut at: u64, len: usize) -> io::Result<usize> {
        #[cfg(test)]
        if self.wire.is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(rustix::fs::sendfile(socket, &self.file, Some(&mut at), len)?)
    }

    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        faults::check(self.wire.as_ref().map(faults::Wire::machine))?;
        self.file.set_len(len)
    }

    /// Says that a part will be read, so that the kernel may read it now.
    pub fn will_read(&self, start: u64, len: u64) {
        self.advise(start, len, Advice::WillNeed);
    }

    /// Says that each read asks for all that is wanted: what the kernel would read beyond is of something else.
    pub fn read_at_random(&self) {
        self.advise(0, 0, Advice::Random);
    }

    /// Takes a part that was synchronised out of the page cache, so that the next read asks the disk. A hint: the system
    /// need not follow it.
    pub fn forget_cached(&self, start: u64, len: u64) {
        self.advise(start, len, Advice::DontNeed);
    }

    /// `len` 0: to the end of the file.
    fn advise(&self, start: u64, len: u64, advice: Advice) {
        if let Err(error) = rustix::fs::fadvise(&self.file, start, std::num::NonZeroU64::new(len), advice) {
            tracing::debug!(%error, ?advice, "the system does not take advice on the disk tier's file");
        }
    }
}

impl DirectFile {
    /// What buffers, offsets and lengths are to be multiples of.
    pub const PAGE: u64 = 4096;

    /// Fills the buffer from `at`.
    ///
    /// # Errors
    /// `InvalidInput` where the file system wants larger multiples or cannot at all; `UnexpectedEof` where the file ends
    /// before.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, at)
    }
}

impl From<File> for DiskFile {
    fn from(file: File) -> Self {
        Self {
            file,
            #[cfg(test)]
            wire: None,
        }
    }
}
