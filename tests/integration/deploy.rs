//! What `deploy` has for others to run: held against the tools and schemas of those who read it.

mod compose;

use crate::support::edge::BINARY;
use crate::support::tools;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a command in the project's root; what it printed, if it succeeds.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.current_dir(ROOT).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

fn python(script: &str, file: &str) -> String {
    run(Command::new("target/test-tools/bin/python3").args(["-c", script, file]))
}

#[test]
fn compose_and_stack_are_read_by_docker_compose() {
    for file in ["deploy/compose.yaml", "deploy/stack.yaml"] {
        let services = run(Command::new("docker-compose").args(["-f", file, "config", "--services"]));
        let mut services: Vec<&str> = services.lines().collect();
        services.sort_unstable();
        assert_eq!(services, ["api", "db", "edge", "web"], "{file}");
    }
}

#[test]
fn kubernetes_manifests_fit_its_schemas_and_their_configuration_is_sound() {
    const FILE: &str = "deploy/kubernetes/selvedge.yaml";
    run(Command::new("target/test-tools/bin/kubernetes-validate").args(["--strict", FILE]));
    let settings = python(
        "import sys, yaml; print([d for d in yaml.safe_load_all(open(sys.argv[1])) if d['kind'] == 'ConfigMap'][0]['data']['selvedge.toml'])",
        FILE,
    );
    let dir = tempfile::tempdir().unwrap();
    tools::certificate(&dir.path().join("certs"), "default", &["www.example.com"]);
    let local = settings.replace("/etc/selvedge/certs", "certs").replace("/var/cache/selvedge", "cache");
    check(dir.path(), &local);
}

fn check(dir: &Path, settings: &str) {
    let file = dir.join("selvedge.toml");
    std::fs::write(&file, settings).unwrap();
    run(Command::new(BINARY).arg("check").arg("--config").arg(file));
}

#[test]
fn the_ecs_task_is_one_that_the_service_would_register() {
    let report = python(
        "import botocore.session, botocore.validate, json, sys\n\
         shape = botocore.session.get_session().get_service_model('ecs').operation_model('RegisterTaskDefinition').input_shape\n\
         task = json.load(open(sys.argv[1]))\n\
         print(botocore.validate.ParamValidator().validate(task, shape).generate_report())",
        "deploy/ecs/task-definition.json",
    );
    assert_eq!(report.trim(), "");
    // What the validator does not look at: Fargate's pairs of CPU and memory, and who may stop how late.
    let text = std::fs::read_to_string(Path::new(ROOT).join("deploy/ecs/task-definition.json")).unwrap();
    let task: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((task["cpu"].as_str(), task["memory"].as_str()), (Some("1024"), Some("2048")));
    assert!(task["containerDefinitions"][0]["stopTimeout"].as_u64().is_some_and(|seconds| seconds <= 120));
}

#[test]
fn the_systemd_unit_is_sound_and_shut_tight() {
    let unit = std::fs::read_to_string(Path::new(ROOT).join("deploy/selvedge.service")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // systemd looks for the program itself.
    let file = dir.path().join("selvedge.service");
    std::fs::write(&file, unit.replace("/usr/local/bin/selvedge", BINARY)).unwrap();
    run(Command::new("systemd-analyze").arg("verify").arg(&file));
    run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&file));
}
