use super::*;

/// Exit status, standard output and standard error of a command line.
fn outcome(args: &[&str]) -> (ExitCode, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["selvedge"].iter().chain(args).map(OsString::from);
    let code = dispatch(args, &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn parsed(args: &[&str]) -> Command {
    Cli::try_parse_from(["selvedge"].iter().chain(args)).unwrap().command
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn outcomes_have_the_documented_statuses() {
    let codes = [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Unavailable, Exit::Internal].map(Exit::code);
    assert_eq!(codes, [0, 1, 64, 69, 70]);
}

#[test]
fn wrong_arguments_exit_64_and_say_why_on_standard_error() {
    for args in [
        &[][..],
        &["serv"],
        &["serve", "--confg", "x"],
        &["check", "--config"],
        &["cert"],
        &["cert", "self-signed", "localhost"],
        &["cert", "self-signed", "--out", "certs"],
        &["completions", "tcsh"],
        &["purge"],
        &["why"],
        &["why", "style.css"],
        &["store"],
        &["store", "stat"],
        &["store", "list", "--dir", "a", "--config", "b"],
        &["store", "dump", "--dir", "a"],
    ] {
        let (code, out, err) = outcome(args);
        assert_eq!((code, out.as_str()), (ExitCode::from(64), ""), "{args:?}");
        assert!(!err.is_empty(), "{args:?}");
    }
    assert_eq!(run(["selvedge", "--nonsense"].map(OsString::from)), ExitCode::from(64));
}

#[test]
fn help_and_version_go_to_standard_output() {
    let (code, out, err) = outcome(&["--version"]);
    assert_eq!(
        (code, out, err),
        (ExitCode::SUCCESS, format!("selvedge {}\n", env!("CARGO_PKG_VERSION")), String::new())
    );
    for command in [
        &[][..],
        &["serve"],
        &["check"],
        &["purge"],
        &["warm"],
        &["why"],
        &["store"],
        &["store", "stat"],
        &["store", "verify"],
        &["store", "list"],
        &["store", "dump"],
        &["cert", "self-signed"],
        &["completions"],
    ] {
        let (code, out, err) = outcome(&[command, &["--help"]].concat());
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""), "{command:?}");
        assert!(out.contains("Example"), "{command:?} has no example:\n{out}");
    }
}

#[test]
fn check_sums_a_good_file_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.toml");
    std::fs::write(&path, include_str!("../../config/proxy.toml")).unwrap();
    let summary = "ok: 1 site, 1 route, 1 origin, 3 listeners, 512 MiB of memory cache, 2 GiB of disk cache\n";
    let (code, out, err) = outcome(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (ExitCode::SUCCESS, summary));
    assert!(err.starts_with("warning: the certificate folder ") && err.lines().count() == 1, "{err}");

    std::fs::create_dir(folder.path().join("certs")).unwrap();
    let (code, out, err) = outcome(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!((code, out.as_str(), err.as_str()), (ExitCode::SUCCESS, summary, ""));
}

#[test]
fn check_names_every_problem_of_a_bad_file_and_exits_64() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.toml");
    std::fs::write(&path, "[runtime]\nthreads = 0\n[listen]\nhttp = [\"80\"]\n").unwrap();
    let (code, out, err) = outcome(&["check", "-c", path.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (ExitCode::from(64), ""));
    for part in ["edge.toml:2:11: ", "edge.toml:4:9: ", "edge.toml:1:1: there is no site", "\n3 problems\n"] {
        assert!(err.contains(part), "no {part:?} in {err}");
    }
    assert_eq!(err.matches("\n  remedy: ").count(), 3, "{err}");

    let missing = folder.path().join("none.toml");
    let (code, _, err) = outcome(&["check", "--config", missing.to_str().unwrap()]);
    assert_eq!(code, ExitCode::from(64));
    assert!(err.contains("cannot be read") && err.ends_with("\n1 problem\n"), "{err}");
}

#[test]
fn completions_name_the_commands_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = outcome(&["completions", shell]);
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""), "{shell}");
        assert!(
            ["serve", "purge", "self-signed", "token-env"].iter().all(|word| out.contains(word)),
            "{shell}:\n{out}"
        );
    }
}

#[test]
fn self_signed_prints_the_files_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let out_folder = folder.path().to_str().unwrap();
    let (code, out, err) = outcome(&["cert", "self-signed", "--out", out_folder, "localhost"]);
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, [format!("{out_folder}/localhost.crt"), format!("{out_folder}/localhost.key")]);

    let (code, out, err) = outcome(&["cert", "self-signed", "--out", out_folder, "a/b"]);
    assert_eq!((code, out.as_str()), (ExitCode::from(64), ""));
    assert!(err.starts_with("error: ") && err.contains("a/b"), "{err}");
}

#[cfg(feature = "demo")]
#[test]
fn the_demo_has_default_ports_and_a_folder_in_the_users_cache() {
    let options = |args: &[&str]| match parsed(&[&["demo"], args].concat()) {
        Command::Demo(demo) => crate::demo::Options::from(demo),
        other => panic!("{other:?}"),
    };
    let given =
        options(&["--http-port", "0", "--https-port", "1", "--admin-port", "2", "--origin-port", "3", "--dir", "d"]);
    let ports = |o: &crate::demo::Options| [o.http_port, o.https_port, o.admin_port, o.origin_port];
    assert_eq!((ports(&given), given.dir), ([0, 1, 2, 3], PathBuf::from("d")));
    let default = options(&[]);
    assert_eq!(ports(&default), [8080, 8443, 9090, 9100]);
    assert!(default.dir.ends_with("selvedge-demo"), "{:?}", default.dir);

    for (cache, home, folder) in [
        (Some("/c"), Some("/h"), "/c/selvedge-demo"),
        (Some("relative"), Some("/h"), "/h/.cache/selvedge-demo"),
        (None, Some("/h"), "/h/.cache/selvedge-demo"),
        (None, None, "./selvedge-demo"),
    ] {
        let env = |name: &str| if name == "HOME" { home } else { cache }.map(OsString::from);
        assert_eq!(demo_dir(&env), PathBuf::from(folder));
    }
}

#[test]
fn serve_takes_its_file() {
    let Command::Serve(file) = parsed(&["serve", "--config", "edge.toml"]) else { panic!("not serve") };
    assert_eq!(file.config, Some(PathBuf::from("edge.toml")));
}
