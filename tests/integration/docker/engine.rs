//! The real Docker Engine, and everything a test makes in it, labelled and removed again.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// One test's network, images and containers. Dropping it removes them.
pub struct Engine {
    run: String,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Engine {
    /// Of an engine that has to be there.
    pub fn new() -> Self {
        let answers = Command::new("docker").args(["version", "-f", "{{.Server.Version}}"]).output();
        assert!(
            answers.is_ok_and(|out| out.status.success()),
            "no Docker Engine answers: install docker.io and start it"
        );
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let engine = Self { run: format!("selvedge-test-{}-{number}", std::process::id()) };
        engine.network(&engine.net());
        engine.image();
        engine
    }

    /// The label that everything carries; also a filter.
    pub fn label(&self) -> String {
        format!("selvedge-test={}", self.run)
    }

    /// The network that containers are in unless they say otherwise.
    pub fn net(&self) -> String {
        format!("{}-net", self.run)
    }

    /// A container's name in the engine.
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.run)
    }

    pub fn network(&self, name: &str) {
        docker(&["network", "create", "--label", &self.label(), name]);
    }

    /// Starts the test's server under this name with these variables; `more` goes to `docker run`.
    pub fn start(&self, short: &str, variables: &[&str], more: &[&str]) {
        self.run_image(&self.run, short, variables, more, &[]);
    }

    /// The same image with options of `docker run` and another command.
    pub fn start_with(&self, short: &str, more: &[&str], command: &[&str]) {
        self.run_image(&self.run, short, &[], more, command);
    }

    /// The same with a health check every second.
    pub fn start_checked(&self, short: &str, variables: &[&str]) {
        self.run_image(&format!("{}:checked", self.run), short, variables, &[], &[]);
    }

    /// Starts the image `:edge`, which reads the filters of this test.
    pub fn edge(&self, more: &[&str]) {
        let filters = format!("DOCKER_CONTAINER_FILTERS=label={}", self.label());
        let mut all = vec!["-e", filters.as_str()];
        all.extend(more);
        self.run_image(&format!("{}:edge", self.run), "edge", &[], &all, &[]);
    }

    fn run_image(&self, image: &str, short: &str, variables: &[&str], more: &[&str], command: &[&str]) {
        let (name, label, net) = (self.name(short), self.label(), self.net());
        let own = format!("NAME={short}");
        let mut args = vec!["run", "-d", "--name", &name, "--label", &label, "-e", &own];
        if !more.contains(&"--network") {
            args.extend(["--network", &net]);
        }
        for variable in variables {
            args.extend([if variable.starts_with("selvedge.") { "--label" } else { "-e" }, variable]);
        }
        args.extend(more);
        args.push(image);
        args.extend(command);
        docker(&args);
    }

    /// `docker COMMAND … CONTAINER`.
    pub fn tell(&self, command: &[&str], short: &str) {
        let name = self.name(short);
        let mut args = command.to_vec();
        args.push(&name);
        docker(&args);
    }

    /// Where a container's server is in the test's network.
    pub fn address(&self, short: &str) -> std::net::SocketAddr {
        let name = self.name(short);
        let ip = docker(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &name]);
        format!("{ip}:80").parse().unwrap()
    }

    /// Builds the server and imports it as an image of one file, with and without a health check.
    fn image(&self) {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/docker/app.c");
        let app = dir.path().join("app");
        let built = Command::new("cc").args(["-O1", "-static", "-o"]).arg(&app).arg(source).status().unwrap();
        assert!(built.success(), "the test's server cannot be compiled");
        let plain = ["CMD [\"/app\"]", "EXPOSE 80"];
        self.import(dir.path(), &["app"], &self.run, &plain);
        let check = "HEALTHCHECK --interval=1s --timeout=2s --retries=1 CMD [\"/app\", \"check\"]";
        self.import(dir.path(), &["app"], &format!("{}:checked", self.run), &[plain[0], plain[1], check]);
    }

    /// Makes an image of files in a folder.
    pub fn import(&self, dir: &Path, files: &[&str], tag: &str, changes: &[&str]) {
        let tar = Command::new("tar").arg("-C").arg(dir).arg("-ch").args(files).output().unwrap();
        assert!(tar.status.success(), "tar: {}", String::from_utf8_lossy(&tar.stderr));
        let label = self.label();
        let label = format!("LABEL {}", label.replacen('=', " ", 1));
        let mut import = Command::new("docker");
        import.arg("import");
        for change in changes.iter().chain([&label.as_str()]) {
            import.args(["--change", change]);
        }
        let mut child = import.args(["-", tag]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&tar.stdout).unwrap();
        assert!(child.wait().unwrap().success(), "docker import");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let filter = format!("label={}", self.label());
        let ids = |args: &[&str]| -> Vec<String> {
            let out = Command::new("docker").args(args).args(["--filter", &filter]).output();
            let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        };
        for (list, remove) in [
            (&["ps", "-aq"][..], &["rm", "-f", "-v"][..]),
            (&["network", "ls", "-q"], &["network", "rm"]),
            (&["image", "ls", "-q"], &["image", "rm", "-f"]),
        ] {
            let found = ids(list);
            if !found.is_empty() {
                let _ = Command::new("docker").args(remove).args(found).output();
            }
        }
    }
}

/// Runs the client; returns its standard output.
pub fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().unwrap();
    assert!(out.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}
