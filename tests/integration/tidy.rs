//! The rules of this source tree that the compiler does not know. Each violation is named by file and line, with what
//! to do about it.

mod source;

use regex::Regex;
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The top-level modules and their layers. A module uses only modules of lower layers; those of one layer do not use
/// each other, except as [`EXCEPTIONS`] says.
const LAYERS: &[(&str, u8)] = &[
    ("types", 0),
    ("field", 0),
    ("clock", 0),
    ("metrics", 0),
    ("watched", 0),
    ("route", 1),
    ("tls", 1),
    ("cache", 1),
    ("geo", 1),
    ("origin", 1),
    ("discovery", 1),
    ("proxy", 2),
    ("admin", 2),
    ("load", 2),
    ("dns", 2),
    ("config", 3),
    ("app", 4),
    ("cli", 4),
    ("demo", 4),
    ("main", 4),
    ("fuzz", 5),
];

/// (user, used, reason).
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("discovery", "route", "what containers ask for is hosts, paths and the settings of sites"),
    ("main", "cli", "the binary hands its arguments over"),
    ("cli", "app", "`serve` composes and runs the process"),
    ("cli", "demo", "`demo` is one of the commands"),
    ("demo", "app", "the demo runs a whole edge before its origin"),
];

const MAX_LINES: usize = 600;
/// Letters that a written reason has at least.
const REASON_LENGTH: usize = 10;

#[test]
fn modules_use_only_lower_layers() {
    check(layering);
}

#[test]
fn every_module_has_a_layer() {
    let lib = read(Path::new("src/lib.rs"));
    let mut violations = Vec::new();
    unlayered(&lib, &mut violations);
    report(violations);
}

#[test]
fn files_are_short_enough_to_read() {
    check(|file, out| {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            let what = format!("{lines} lines; split the file by concern, at most {MAX_LINES} lines each");
            out.push(file.violation_at_line(MAX_LINES + 1, &what));
        }
    });
}

#[test]
fn unsafe_code_is_allowed_only_with_a_reason() {
    check(unexplained_unsafe);
}

#[test]
fn nothing_is_left_undone_or_ignored_in_silence() {
    let mut violations = Vec::new();
    for file in files("src").iter().chain(&files("tests")) {
        undone(file, &mut violations);
    }
    report(violations);
}

#[test]
fn the_clock_is_the_only_source_of_wall_clock_time() {
    check(|file, out| {
        if file.path != Path::new("src/clock.rs") {
            wall_clock(file, out);
        }
    });
}

#[test]
fn the_architecture_names_modules_that_exist() {
    let path = Path::new("src/ARCHITECTURE.md");
    let text = fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("src/ARCHITECTURE.md: {error}; write how the modules and layers are built"));
    let exists = |name: &str| root().join(name).exists();
    let mut violations = architecture(&text, &exists);
    for (module, _) in LAYERS.iter().filter(|(module, _)| *module != "main" && exists(&format!("src/{module}.rs"))) {
        if !text.contains(&format!("`{module}`")) {
            violations.push(format!("src/ARCHITECTURE.md:1: `{module}` is not named; say what the module does"));
        }
    }
    report(violations);
}

/// Uses of `crate::…` (in the binary `selvedge::…`) and of `super::…` that leaves the module.
fn layering(file: &Source, out: &mut Vec<String>) {
    let Some(user) = file.module().filter(|module| *module != "lib") else { return };
    let Some(own) = layer(user) else {
        return out
            .push(file.violation_at_line(1, &format!("module `{user}` has no layer; add it to LAYERS in tidy.rs")));
    };
    for (at, used) in file.uses() {
        if used == user {
            continue;
        }
        // A name that is no module is an item of the crate's root, of which there are none to worry about.
        let Some(other) = layer(&used) else { continue };
        let excepted = EXCEPTIONS.iter().any(|(from, to, _)| (*from, *to) == (user, used.as_str()));
        if other >= own && !excepted {
            let what = format!(
                "`{user}` (layer {own}) uses `{used}` (layer {other}); move what both need to a lower layer, or pass \
                 it in from a higher one"
            );
            out.push(file.violation_at(at, &what));
        }
    }
}

fn unlayered(lib: &Source, out: &mut Vec<String>) {
    for found in pattern(r"\bmod\s+([a-z_0-9]+)\s*;").captures_iter(&lib.code) {
        if let Some(name) = found.get(1).filter(|name| layer(name.as_str()).is_none()) {
            let what = format!("module `{}` has no layer; add it to LAYERS in tidy.rs", name.as_str());
            out.push(lib.violation_at(name.start(), &what));
        }
    }
}

fn unexplained_unsafe(file: &Source, out: &mut Vec<String>) {
    for found in pattern(r"\b(?:allow|expect|warn)\s*\(([^()]*\bunsafe_code\b[^()]*)\)").captures_iter(&file.code) {
        let Some(arguments) = found.get(1) else { continue };
        let reason = pattern(r#"reason\s*=\s*"([^"]*)""#);
        let written = reason.captures(&file.text[arguments.range()]).map_or(0, |reason| reason[1].trim().len());
        if written < REASON_LENGTH {
            let what = "`unsafe_code` is allowed without a reason; write allow(unsafe_code, reason = \"…\")";
            out.push(file.violation_at(arguments.start(), what));
        }
    }
    for found in pattern(r"\bunsafe\s*(?:\{|impl\b)").find_iter(&file.code) {
        let line = file.line_of(found.start());
        let explained = file.text.lines().take(line).skip(line.saturating_sub(8)).any(|text| text.contains("SAFETY:"));
        if !explained {
            out.push(file.violation_at(
                found.start(),
                "`unsafe` without a `// SAFETY:` comment above it; write why it is sound",
            ));
        }
    }
}

fn undone(file: &Source, out: &mut Vec<String>) {
    for found in pattern(r"\b(todo|unimplemented)\s*!").find_iter(&file.code) {
        out.push(
            file.violation_at(found.start(), "unfinished code; write it, or return an error that says what is missing"),
        );
    }
    for found in pattern(r"#\[\s*ignore\s*(?:=\s*([^\]]*))?\]").captures_iter(&file.code) {
        let (Some(whole), argument) = (found.get(0), found.get(1)) else { continue };
        let reason = argument.map_or(0, |text| file.text[text.range()].trim().trim_matches('"').len());
        if reason < REASON_LENGTH {
            let what = "a test is ignored without a reason; write #[ignore = \"…\"], or have it run";
            out.push(file.violation_at(whole.start(), what));
        }
    }
}

fn wall_clock(file: &Source, out: &mut Vec<String>) {
    for found in pattern(r"\bSystemTime\s*::\s*now\b|\bUNIX_EPOCH\s*\.\s*elapsed\b").find_iter(&file.shipped) {
        let what = "wall-clock time from elsewhere than crate::clock; take a `Clock`, or `now` as an argument";
        out.push(file.violation_at(found.start(), what));
    }
}

/// Each `….rs` in backticks, and each module in the first cell of a table row, has to exist.
fn architecture(text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut violations = Vec::new();
    let quoted = pattern(r"`([A-Za-z0-9_./-]+)`");
    let mut complain = |line: usize, name: &str| {
        violations.push(format!(
            "src/ARCHITECTURE.md:{}: `{name}` does not exist; correct the name, or take it out until there is one",
            line + 1
        ));
    };
    for (line, content) in text.lines().enumerate() {
        for found in quoted.captures_iter(content).filter(|found| found[1].ends_with(".rs")) {
            let name = &found[1];
            if !["", "src/", "tests/", "tests/integration/"].iter().any(|base| exists(&format!("{base}{name}"))) {
                complain(line, name);
            }
        }
        let first_cell = content.trim_start().strip_prefix('|').and_then(|row| row.split('|').next()).unwrap_or("");
        for found in quoted.captures_iter(first_cell).filter(|found| !found[1].contains(['.', '-'])) {
            let name = found[1].trim_end_matches('/');
            if !exists(&format!("src/{name}.rs")) && !exists(&format!("src/{name}")) {
                complain(line, name);
            }
        }
    }
    violations
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect(text)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Source::new(path, text)
}

/// The Rust files below a folder of the package, those that only tests compile included.
fn files(folder: &str) -> Vec<Source> {
    let mut folders = vec![PathBuf::from(folder)];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of the package") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("its type").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path);
            }
        }
    }
    let mut sources: BTreeMap<PathBuf, Source> = found.iter().map(|path| (path.clone(), read(path))).collect();
    // What is declared under #[cfg(test)], and what that declares in turn, is test code to its last line.
    let mut tests: Vec<PathBuf> = sources.values().flat_map(Source::test_files).collect();
    while let Some(path) = tests.pop() {
        if let Some(source) = sources.get_mut(&path).filter(|source| !source.shipped.trim().is_empty()) {
            tests.extend(source.children(&source.code));
            source.shipped = source::blank(&source.shipped);
        }
    }
    sources.into_values().collect()
}

fn check(rule: impl Fn(&Source, &mut Vec<String>)) {
    let mut violations = Vec::new();
    for file in &files("src") {
        rule(file, &mut violations);
    }
    report(violations);
}

fn report(violations: Vec<String>) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

fn violations_in(path: &str, text: &str, rule: fn(&Source, &mut Vec<String>)) -> Vec<String> {
    let mut out = Vec::new();
    rule(&Source::new(Path::new(path), text.to_owned()), &mut out);
    out
}

#[test]
fn a_use_of_a_higher_or_equal_layer_is_found_wherever_it_hides() {
    for (path, text, used) in [
        ("src/route.rs", "use crate::proxy::listen;", "proxy"),
        ("src/route/table.rs", "use crate::{types::HostName,\n    tls};", "tls"),
        ("src/cache/disk.rs", "use crate::{\n  clock::{Clock, x},\n  origin::{http, s3}};", "origin"),
        ("src/route.rs", "fn f() -> crate :: config::Config {}", "config"),
        ("src/route.rs", "use super::tls::Settings;", "tls"),
        ("src/route/table.rs", "fn f() { super::super::admin::bind() }", "admin"),
        ("src/proxy/access_log.rs", "pub(crate) use crate::admin;", "admin"),
        ("src/types/secret.rs", "use crate::field as f;", "field"),
        ("src/app.rs", "use crate::cli;", "cli"),
        ("src/main.rs", "fn main() { selvedge::app::run() }", "app"),
        ("src/tls.rs", "#[cfg(not(test))]\nuse crate::cache;", "cache"),
        ("src/tls.rs", "#[cfg(test)]\nmod tests { }\nuse crate::cache;", "cache"),
    ] {
        let found = violations_in(path, text, layering);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
        assert!(found[0].contains(&format!("uses `{used}`")) && found[0].starts_with(path), "{found:?}");
    }
    let found = violations_in("src/route.rs", "use std::fmt;\n\nuse crate::tls;", layering);
    assert!(found[0].starts_with("src/route.rs:3: "), "{found:?}");
    assert!(violations_in("src/nowhere.rs", "", layering)[0].contains("has no layer"));
    assert!(
        violations_in("src/lib.rs", "pub mod route;\npub mod nowhere;", unlayered)[0].starts_with("src/lib.rs:2: ")
    );
}

#[test]
fn what_is_allowed_or_no_code_is_no_violation() {
    for (path, text) in [
        ("src/route.rs", "use crate::types::HostName;\nuse crate::route::Match;"),
        ("src/route/table.rs", "use super::path::PathTable;\nuse super::super::types::HostName;"),
        ("src/proxy.rs", "//! [`crate::config`]\n/* crate::app /* crate::cli */ */ const A: &str = \"crate::app\";"),
        ("src/proxy.rs", "const A: &str = r#\"\"crate::app\"#; const B: char = '\"'; fn f<'a>() {} // crate::app"),
        ("src/proxy.rs", "#[cfg(test)]\nmod tests { use crate::config; fn f() { if true { } } }"),
        ("src/proxy.rs", "#[cfg(all(test, unix))]\n#[allow(dead_code)]\nuse crate::config::{a, b};"),
        ("src/main.rs", "fn main() { selvedge::cli::run(std::env::args_os()) }"),
        ("src/demo/seed.rs", "use crate::app::App;"),
        ("src/lib.rs", "pub use crate::app::App;"),
    ] {
        assert_eq!(violations_in(path, text, layering), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn unsafe_code_needs_a_reason_and_a_safety_comment() {
    for text in [
        "#![allow(unsafe_code)]",
        "#![allow(unsafe_code, reason = \"\")]",
        "#[expect(dead_code, unsafe_code, reason = \"why\")]",
        "fn f() { unsafe { g() } }",
    ] {
        assert_eq!(violations_in("src/a.rs", text, unexplained_unsafe).len(), 1, "{text}");
    }
    for text in [
        "#![allow(unsafe_code, reason = \"a system call that no crate wraps\")]",
        "// SAFETY: the buffer lives longer.\nunsafe { g() }",
        "#![deny(unsafe_code)]\n// unsafe { }",
    ] {
        assert_eq!(violations_in("src/a.rs", text, unexplained_unsafe), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn undone_work_and_stray_clocks_are_found() {
    for text in ["fn f() { todo!() }", "fn f() { unimplemented ! () }", "#[ignore]", "#[ignore = \"\"]"] {
        assert_eq!(violations_in("src/a.rs", text, undone).len(), 1, "{text}");
    }
    for text in ["// todo!()", "#[ignore = \"takes ten minutes: run with --ignored\"]", "let todo = 1;"] {
        assert_eq!(violations_in("src/a.rs", text, undone), Vec::<String>::new(), "{text}");
    }
    for text in ["let t = SystemTime::now();", "std::time::SystemTime::now", "UNIX_EPOCH.elapsed()"] {
        assert_eq!(violations_in("src/a.rs", text, wall_clock).len(), 1, "{text}");
    }
    assert!(violations_in("src/a.rs", "#[cfg(test)] mod tests { f(SystemTime::now()) }", wall_clock).is_empty());
}

#[test]
fn the_architecture_is_held_to_the_tree() {
    let exists = |name: &str| matches!(name, "src/route.rs" | "src/cache" | "src/tls/store.rs" | "tests/run.rs");
    let text =
        "| layer · module | x |\n|---|---|\n| 1 `route` | `anything` |\n| `cache/` | y |\n`tls/store.rs`, `run.rs`\n";
    assert_eq!(architecture(text, &exists), Vec::<String>::new());
    let found = architecture("text\n| 1 `geo` | x |\nsee `tls/gone.rs`", &exists);
    assert_eq!(found.len(), 2);
    assert!(
        found[0].starts_with("src/ARCHITECTURE.md:2: `geo`") && found[1].contains(":3: `tls/gone.rs`"),
        "{found:?}"
    );
}
