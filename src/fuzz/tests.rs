use super::mutate::{Random, mutated};
use super::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Mutations for each target, where `SELVEDGE_FUZZ_MUTATIONS` does not ask for more.
const MUTATIONS: u64 = 2_000;

fn corpus_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = corpus_folder().join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Says which input it was if the target panics.
fn run(target: &Target, data: &[u8]) {
    struct Told<'a>(&'a str, &'a [u8]);
    impl Drop for Told<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input of {} was: {}", self.0, self.1.escape_ascii());
            }
        }
    }
    let told = Told(target.name, data);
    (target.run)(data);
    drop(told);
}

#[test]
fn no_input_and_no_mutation_of_it_breaks_a_parser() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let (mutations, seed) = (number("SELVEDGE_FUZZ_MUTATIONS").unwrap_or(MUTATIONS), number("SELVEDGE_FUZZ_SEED"));
    for target in TARGETS {
        let corpus = corpus(target.name);
        corpus.iter().for_each(|data| run(target, data));
        let mut random = Random::new(seed.unwrap_or(0x5e1f ^ target.name.len() as u64));
        for _ in 0..mutations {
            run(target, &mutated(&corpus, &mut random));
        }
    }
}

#[test]
fn each_target_has_a_corpus_and_a_binary() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let folders = std::fs::read_dir(corpus_folder()).unwrap();
    let folders: BTreeSet<String> =
        folders.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(names, folders);
    let manifest = include_str!("../../tests/fuzz/Cargo.toml");
    for name in &names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "tests/fuzz/Cargo.toml has no target {name}");
        assert!(!corpus(name).is_empty(), "{name} has no corpus");
        assert!(target(name).is_some());
    }
}
