use super::cases::{self, Case};
use super::{Facts, ProxySettings, Translator, translate};
use crate::discovery::{Container, Place, Snapshot};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

#[test]
fn containers_are_routed_as_the_table_says() {
    let cases = cases::all();
    let failures: Vec<String> = cases.iter().filter_map(failure).collect();
    assert!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() >= 120, "{} cases", cases.len());
}

fn failure(case: &Case) -> Option<String> {
    let lines = case.world.lines();
    let holds = |expected: &&&str| match expected.strip_prefix('!') {
        Some(absent) => !lines.iter().any(|line| line.contains(absent)),
        None => lines.iter().any(|line| line.contains(*expected)),
    };
    let broken: Vec<&str> = case.expect.iter().filter(|e| !holds(e)).copied().collect();
    (!broken.is_empty()).then(|| format!("{}\n  misses {broken:?} in\n    {}", case.name, lines.join("\n    ")))
}

#[test]
fn each_behaviour_has_a_name_of_its_own() {
    let mut seen = BTreeSet::new();
    for case in cases::all() {
        assert!(seen.insert(format!("{}: {}", case.area, case.name)), "{}: {}", case.area, case.name);
    }
}

/// `SELVEDGE_WRITE_COMPATIBILITY=1` writes the file.
#[test]
fn the_compatibility_table_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/COMPATIBILITY.md");
    let text = table();
    if std::env::var_os("SELVEDGE_WRITE_COMPATIBILITY").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "deploy/COMPATIBILITY.md is not what the cases say; run with SELVEDGE_WRITE_COMPATIBILITY=1"
    );
}

fn table() -> String {
    let cases = cases::all();
    let mut out = String::from(include_str!("compatibility_head.md"));
    let mut area = "";
    for case in &cases {
        if case.area != area {
            area = case.area;
            write!(out, "\n## {area}\n\n").unwrap();
        }
        writeln!(out, "- {}", case.name).unwrap();
    }
    out
}

#[test]
fn the_order_of_the_list_does_not_matter() {
    let container = |name: &str, created: &str, method: &str| Container {
        name: name.to_owned(),
        created: created.to_owned(),
        env: [("VIRTUAL_HOST", "a.b"), ("HTTPS_METHOD", method)].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Container::default()
    };
    let mut containers =
        vec![container("a", "2", "nohttp"), container("b", "1", "nohttps"), container("c", "2", "redirect")];
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        containers.rotate_left(1);
        let snapshot = Snapshot { containers: containers.clone(), place: Place::Host, ..Snapshot::default() };
        let facts = Facts { snapshot: Cow::Owned(snapshot), ..Facts::default() };
        seen.insert(format!("{:?}", translate(&facts)));
    }
    assert_eq!(seen.len(), 1);
}

#[test]
fn what_was_translated_before_leaves_no_trace() {
    let mut translator = Translator::default();
    let cases = cases::all();
    for case in cases.iter().chain(cases.iter().rev()) {
        let (facts, _) = case.world.facts();
        for _ in 0..2 {
            let (now, alone) = (translator.translate(&facts), translate(&facts));
            assert_eq!(format!("{now:?}"), format!("{alone:?}"), "{}", case.name);
        }
    }
}

#[test]
fn only_hosts_of_containers_that_change_are_made_anew() {
    let container = |name: &str, hosts: &str, port: &str| Container {
        id: name.to_owned(),
        name: name.to_owned(),
        env: [("VIRTUAL_HOST", hosts), ("VIRTUAL_PORT", port)].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Container::default()
    };
    let facts = |containers: Vec<Container>| Facts {
        snapshot: Cow::Owned(Snapshot { containers, place: Place::Host, ..Snapshot::default() }),
        ..Facts::default()
    };
    let mut translator = Translator::default();
    let mut last = translator.translate(&facts(vec![container("a", "a.b,c.d", "1"), container("b", "c.d,e.f", "1")]));
    for (containers, kept) in [
        (vec![container("b", "c.d,e.f", "1"), container("a", "a.b,c.d", "1")], vec!["a.b", "c.d", "e.f"]),
        (vec![container("a", "a.b,c.d", "2"), container("b", "c.d,e.f", "1")], vec!["e.f"]),
        (vec![container("a", "a.b,c.d", "2"), container("c", "c.d,e.f", "1")], vec!["a.b"]),
        (vec![container("a", "a.b,c.d", "2"), container("c", "e.f", "1")], vec!["a.b"]),
        (vec![container("a", "a.b,c.d", "2")], vec!["a.b", "c.d"]),
    ] {
        let now = translator.translate(&facts(containers));
        let same: Vec<&str> = now
            .sites
            .iter()
            .filter(|site| last.sites.iter().any(|before| std::sync::Arc::ptr_eq(site, before)))
            .map(|site| &*site.host)
            .collect();
        assert_eq!(same, kept);
        last = now;
    }
    let mut other = facts(vec![container("a", "a.b,c.d", "2")]);
    other.proxy.to_mut().non_get_redirect = 307;
    assert!(translator.translate(&other).sites.iter().all(|site| site.non_get_redirect == 307));
}

/// The same each time, unless PROPTEST_RNG_SEED says otherwise.
fn seed() -> RngSeed {
    match ProptestConfig::default().rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        fixed => fixed,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: seed(), ..ProptestConfig::with_cases(400) })]

    /// Whatever containers say, there is an answer, and it is the same each time.
    #[test]
    fn any_text_is_translated(
        values in prop::collection::vec(("[A-Z_]{4,20}|VIRTUAL_(HOST|PORT|PATH|DEST|PROTO|HOST_MULTIPORTS)", "[ -~\\n]{0,40}"), 0..8),
        vhost in "[ -~\\n]{0,80}",
    ) {
        let env = values.into_iter().collect();
        let container = Container { name: "c".to_owned(), env, ..Container::default() };
        let mut facts = Facts { snapshot: Cow::Owned(Snapshot { containers: vec![container], place: Place::Host, ..Snapshot::default() }), ..Facts::default() };
        facts.files.to_mut().vhost.insert("default".to_owned(), vhost);
        facts.proxy = Cow::Owned(ProxySettings::default());
        prop_assert_eq!(format!("{:?}", translate(&facts)), format!("{:?}", translate(&facts)));
    }
}
