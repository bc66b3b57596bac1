//! `selvedge geo`: databases of where addresses are, made of public tables.

use super::{Exit, say};
use crate::clock::Clock;
use crate::geo::build::{Compiled, compile};
use crate::geo::write_database;
use clap::{Args, Subcommand, ValueHint};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct Geo {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Make a database in MaxMind's format of registries' statistics or CSV
    ///
    /// Reads what the regional internet registries publish (delegated-ripencc-latest and its like), CSV of networks
    /// (192.0.2.0/24,DE) and CSV of ranges (192.0.2.0,192.0.2.255,DE). Later files count where they say otherwise of the
    /// same network. A running server takes the new file up by itself.
    #[command(after_help = "\
Examples:
  selvedge geo build --out country.mmdb delegated-ripencc-latest delegated-arin-extended-latest
  selvedge geo build --out country.mmdb ranges.csv ours.csv")]
    Build(Build),
}

#[derive(Debug, Args)]
struct Build {
    /// The database; written aside and renamed, so that who reads it sees the old or the new one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: PathBuf,
    /// Tables to read
    #[arg(value_name = "TABLE", required = true, value_hint = ValueHint::FilePath)]
    tables: Vec<PathBuf>,
}

/// Exit status 64 if a table cannot be understood.
pub(super) fn run(args: &Geo, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let Geo { kind: Kind::Build(Build { out: database, tables }) } = args;
    let mut compiled = Compiled::default();
    for table in tables {
        let read = std::fs::read_to_string(table).map_err(|error| error.to_string());
        if let Err(error) = read.and_then(|text| compile(&text, &mut compiled)) {
            say(err, &format_args!("error: {}: {error}\n", table.display()));
            return Exit::Usage;
        }
    }
    if compiled.networks.is_empty() {
        say(
            err,
            &"error: the tables tell of no network; name statistics of a registry, or lines of `192.0.2.0/24,DE`\n",
        );
        return Exit::Usage;
    }
    let bytes = write_database(&compiled.networks, Clock::system().now());
    if let Err(error) = replace(database, &bytes) {
        say(err, &format_args!("error: {}: {error}\n", database.display()));
        return Exit::Internal;
    }
    let Compiled { networks, skipped } = compiled;
    let (networks, bytes) = (networks.len(), crate::types::ByteSize(bytes.len() as u64));
    say(out, &format_args!("{}: {networks} networks, {skipped} lines of other kinds, {bytes}\n", database.display()));
    Exit::Ok
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    std::fs::write(&aside, bytes)?;
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::{Place, database};

    #[test]
    fn tables_become_a_database_or_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (table, out) = (dir.path().join("t.csv"), dir.path().join("c.mmdb"));
        let build = |text: &str| {
            std::fs::write(&table, text).unwrap();
            let args = Geo { kind: Kind::Build(Build { out: out.clone(), tables: vec![table.clone()] }) };
            let (mut said, mut err) = (Vec::new(), Vec::new());
            let exit = run(&args, &mut said, &mut err);
            (exit, String::from_utf8(said).unwrap() + &String::from_utf8(err).unwrap())
        };
        let (exit, text) = build("192.0.2.0/24,DE\n198.51.100.0,198.51.100.255,US\n");
        assert_eq!(exit, Exit::Ok);
        assert!(text.contains("c.mmdb: 2 networks, 0 lines"), "{text}");
        let map = database::read(&out, Place::UNKNOWN).unwrap();
        assert_eq!(map.find("198.51.100.7".parse().unwrap()).0.country, "US".parse().ok());
        let (exit, text) = build("192.0.2.0/24,DE\n192.0.2.0/24,Nowhere\n");
        assert_eq!(exit, Exit::Usage);
        assert!(text.contains("t.csv: line 2"), "{text}");
        assert_eq!(build("").0, Exit::Usage);
    }
}
