//! Processes of stores, and the folders they keep their objects in.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use rustix::fs::{Advice, fadvise};
use serde_json::Value;

use crate::{Kind, Options, Outcome, What};

/// Where everything of a run is.
pub struct Lab {
    folder: PathBuf,
    tasks: u64,
    foyer: Option<PathBuf>,
}

/// One store in its process, which is killed when this is dropped.
pub struct Child {
    pub kind: Kind,
    /// What it said when it had opened.
    pub hello: Value,
    folder: PathBuf,
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Lab {
    /// Builds foyer's program if it is to be measured.
    pub fn new(options: &Options, folder: &Path) -> Outcome<Self> {
        let wanted = options.only.contains(&What::Foyer) && !options.only.contains(&What::Recovery);
        let foyer = if wanted { Some(build_foyer()?) } else { None };
        Ok(Self { folder: folder.to_owned(), tasks: options.tasks, foyer })
    }

    /// Opens the store of a kind for so many objects; what it stored before is there.
    pub fn start(&self, kind: Kind, size: usize, count: u64) -> Outcome<Child> {
        // The bare disk is read where our objects are.
        let name = if let Kind::Raw | Kind::Direct = kind { Kind::Segments } else { kind };
        let folder = self.folder.join(size.to_string()).join(name.as_str());
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let each = if size == 0 { 12 << 10 } else { size as u64 };
        // foyer takes pages of 4 KiB and its blocks are not to be full.
        let capacity = ((each.next_multiple_of(4096) + 4096) * count * 5 / 4).max(256 << 20);
        let mut command = match (kind, &self.foyer) {
            (Kind::Foyer, Some(program)) => {
                let mut command = Command::new(program);
                command.arg(&folder).arg(capacity.to_string());
                command
            }
            _ => {
                let program = std::env::current_exe().map_err(|error| error.to_string())?;
                let mut command = Command::new(program);
                command.args(["--as", kind.as_str(), "--capacity", &capacity.to_string()]);
                command.arg("--tasks").arg(self.tasks.to_string()).arg("--folder").arg(&folder);
                command
            }
        };
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = spawned.map_err(|error| format!("starting {}: {error}", kind.as_str()))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("a process without its pipes".to_owned());
        };
        let output = BufReader::new(output);
        let mut child = Child { kind, hello: Value::Null, folder, process, input, output };
        child.hello = child.answer()?;
        Ok(child)
    }

    /// Writes back what a store has written and takes it out of the page cache.
    pub fn drop_cached(&self, child: &Child) -> Outcome<()> {
        each_file(&child.folder, &|path| {
            let file = File::open(path)?;
            file.sync_all()?;
            Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
        })
        .map_err(|error| format!("{}: {error}", child.folder.display()))
    }

    /// Removes what was stored of one size.
    pub fn clear(&self, size: usize) -> Outcome<()> {
        let folder = self.folder.join(size.to_string());
        std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))
    }
}

impl Child {
    /// Has a command done; what came of it.
    pub fn ask(&mut self, command: &Value) -> Outcome<Value> {
        writeln!(self.input, "{command}").map_err(|error| format!("{}: {error}", self.kind.as_str()))?;
        self.answer()
    }

    fn answer(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        read.ok()
            .and_then(|_| serde_json::from_str(&line).ok())
            .ok_or_else(|| format!("the process of {} ended or answered `{}`", self.kind.as_str(), line.trim()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program in `benches/foyer`, built in a target folder of its own.
fn build_foyer() -> Outcome<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/foyer/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join("foyer");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--manifest-path"]).arg(manifest);
    // What cargo has set for this bench is not for that package.
    command.arg("--target-dir").arg(&target).env_remove("CARGO_TARGET_DIR");
    let status = command.status().map_err(|error| format!("running cargo: {error}"))?;
    let program = target.join("release/store-foyer");
    if status.success() {
        Ok(program)
    } else {
        Err("benches/foyer does not build; leave it out with --only".to_owned())
    }
}

fn each_file(folder: &Path, act: &dyn Fn(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            each_file(&entry.path(), act)?;
        } else {
            act(&entry.path())?;
        }
    }
    Ok(())
}
