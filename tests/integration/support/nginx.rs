//! nginx as an origin server.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running nginx with a document root.
pub struct Nginx {
    child: Child,
    dir: TempDir,
    pub address: SocketAddr,
}

impl Nginx {
    /// Starts it with `server` inside the `server { }` block, `root` given.
    pub fn start(server: &str) -> Self {
        for _ in 0..5 {
            if let Some(nginx) = Self::try_start(server) {
                return nginx;
            }
        }
        panic!("nginx did not start; is nginx-light installed?");
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("www")
    }

    pub fn write(&self, path: &str, content: &[u8]) {
        let file = self.root().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }

    /// The paths it was asked for, from its access log. It writes a line when the answer has been sent, so that who has the
    /// answer may be ahead of it: the log is read until nothing more comes.
    pub fn requests(&self) -> Vec<String> {
        let read = || std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        let mut log = read();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let more = read();
            if more == log {
                return log.lines().map(str::to_owned).collect();
            }
            log = more;
        }
    }

    fn try_start(server: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = super::tools::free_port();
        std::fs::create_dir(dir.path().join("www")).unwrap();
        std::fs::write(dir.path().join("nginx.conf"), conf(dir.path(), port, server)).unwrap();
        let mut child = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        for _ in 0..200 {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            if std::net::TcpStream::connect(address).is_ok() {
                return Some(Self { child, dir, address });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master ends its worker.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn conf(dir: &Path, port: u16, server: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off; master_process on; worker_processes 1; user root; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ log_format short '$request_method $request_uri $status'; access_log {dir}/access.log short;\n\
         client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         types {{ text/html html; text/css css; application/javascript js; }} default_type application/octet-stream;\n\
         server {{ listen 127.0.0.1:{port}; root {dir}/www; client_max_body_size 0; {server} }} }}\n"
    )
}
