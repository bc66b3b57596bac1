//! The origin server and the servers under measurement: their settings, started and ended together.

use crate::process::{Process, Tools, ticks_a_second};
use crate::{Doing, Failure, Kind, Options, Outcome, Protocol, Size, client};
use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything a run needs, in one temporary directory.
pub struct Lab<'a> {
    // Processes come first: they have to end before their directory goes.
    peers: Vec<Peer>,
    origin: Option<Process>,
    origin_address: SocketAddr,
    folder: tempfile::TempDir,
    pub tools: &'a Tools,
    /// Bytes of objects of each size, where it is not one object.
    set: Option<u64>,
    pub generator_cpu: u32,
    pub ticks_a_second: u64,
}

/// A running server.
pub struct Peer {
    pub kind: Kind,
    http: SocketAddr,
    https: SocketAddr,
    /// Without access logs there is one; varnish's log is written by a second.
    processes: Vec<Process>,
}

impl Peer {
    pub fn address(&self, protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::H1 => self.http,
            Protocol::Https | Protocol::H2 => self.https,
        }
    }

    /// CPU time of all its processes, in clock ticks.
    pub fn cpu_ticks(&self) -> Outcome<u64> {
        self.processes.iter().map(Process::cpu_ticks).sum()
    }

    pub fn failure(&self, problem: String) -> Failure {
        match self.processes.first() {
            Some(process) => process.failure(problem),
            None => Failure::Wrong(format!("{}: {problem}", self.kind.as_str())),
        }
    }
}

impl<'a> Lab<'a> {
    /// Writes the files and the certificate.
    pub fn set_up(options: &Options, tools: &'a Tools) -> Outcome<Lab<'a>> {
        let folder =
            tempfile::Builder::new().prefix("selvedge-peers-").tempdir().doing("making a temporary directory")?;
        let [origin_address] = free_addresses()?;
        let lab = Lab {
            peers: Vec::new(),
            origin: None,
            origin_address,
            folder,
            tools,
            set: options.disk.map(|mib| mib << 20),
            generator_cpu: options.generator_cpu,
            ticks_a_second: ticks_a_second(tools)?,
        };
        write(&lab.openssl_config(), OPENSSL_CONFIG)?;
        make_certificate(tools, &lab.path("certs"))?;
        let files = lab.path("origin/files");
        fs::create_dir_all(&files).doing("making the origin's files")?;
        for size in &options.sizes {
            write(&files.join(size.path().trim_start_matches('/')), contents(*size))?;
        }
        Ok(lab)
    }

    /// Starts the origin server, then the servers under measurement, and waits for each to answer.
    pub fn start(&mut self, options: &Options) -> Outcome<()> {
        self.origin = Some(self.start_origin()?);
        for kind in [Kind::Selvedge, Kind::Nginx, Kind::Varnish].into_iter().filter(|k| options.only.contains(k)) {
            let peer = match kind {
                Kind::Selvedge => self.start_selvedge(options)?,
                Kind::Nginx => self.start_nginx(options)?,
                Kind::Varnish => self.start_varnish(options)?,
            };
            self.peers.push(peer);
        }
        Ok(())
    }

    /// How many objects there are of a size, if it is a set.
    pub fn objects_of(&self, size: Size) -> Option<u64> {
        self.set.map(|bytes| (bytes / size.0).max(1))
    }

    /// The path of an object of this size.
    pub fn path_of(&self, size: Size) -> String {
        if self.set.is_some() { format!("/of/0{}", size.path()) } else { size.path() }
    }

    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// Requests that have reached the origin server so far.
    pub fn origin_requests(&self) -> Outcome<usize> {
        let log = fs::read(self.path("origin/access.log")).doing("reading the origin's access log")?;
        Ok(log.iter().filter(|byte| **byte == b'\n').count())
    }

    /// What is wrong with a body that should be the file of this size.
    pub fn check_body(&self, size: Size, body: &[u8]) -> Result<(), String> {
        if body == contents(size) {
            return Ok(());
        }
        Err(format!("the body for {} ({} bytes received) is not the origin's file", size.path(), body.len()))
    }

    /// Settings for the programs that use OpenSSL as a client.
    pub fn openssl_config(&self) -> PathBuf {
        self.path("openssl.cnf")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves the temporary directory, with the logs, when the run is over.
    pub fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    fn start_origin(&self) -> Outcome<Process> {
        let folder = self.path("origin");
        let address = self.origin_address;
        let config = format!(
            "{}  access_log access.log combined;\n  server {{\n    listen {address};\n    root files;\n    \
             default_type application/octet-stream;\n    add_header Cache-Control max-age=36000;\n    \
             rewrite ^/of/[0-9]+(/.*)$ $1 break;\n  }}\n}}\n",
            nginx_head()
        );
        let mut process = self.nginx(&folder, self.generator_cpu, &config)?;
        process.wait_until(|| client::connects(address))?;
        Ok(process)
    }

    fn start_nginx(&self, options: &Options) -> Outcome<Peer> {
        let [http, https] = free_addresses()?;
        let log = if options.access_logs { "access.log combined buffer=64k flush=1s" } else { "off" };
        let config = format!(
            "{head}  access_log {log};\n  open_file_cache max=1000 inactive=1h;\n  \
             proxy_cache_path cache levels=1:2 keys_zone=cache:128m inactive=10h use_temp_path=off;\n  \
             ssl_certificate ../certs/default.crt;\n  ssl_certificate_key ../certs/default.key;\n  \
             ssl_protocols TLSv1.2 TLSv1.3;\n  server {{\n    listen {http};\n    listen {https} ssl http2;\n    \
             location / {{\n      proxy_cache cache;\n      proxy_pass http://{origin};\n    }}\n  }}\n}}\n",
            head = nginx_head(),
            origin = self.origin_address,
        );
        let mut process = self.nginx(&self.path("nginx"), options.server_cpu, &config)?;
        process.wait_until(|| client::connects(http))?;
        Ok(Peer { kind: Kind::Nginx, http, https, processes: vec![process] })
    }

    fn start_varnish(&self, options: &Options) -> Outcome<Peer> {
        let [http] = free_addresses()?;
        let folder = self.path("varnish");
        fs::create_dir_all(&folder).doing("making varnish's folder")?;
        let (host, port) = (self.origin_address.ip(), self.origin_address.port());
        let backend = format!("vcl 4.1;\nbackend origin {{\n  .host = \"{host}\";\n  .port = \"{port}\";\n}}\n");
        write(&folder.join("peers.vcl"), backend)?;
        let vcl = folder.join("peers.vcl").into_os_string();
        let state = folder.join("state").into_os_string();
        let listen = format!("{http},HTTP");
        let mut arguments: Vec<&OsStr> = ["-F", "-j", "none", "-T", "none", "-a", &listen].map(OsStr::new).to_vec();
        arguments.extend([OsStr::new("-f"), &vcl, OsStr::new("-n"), &state]);
        // A pool has enough threads from the start, so that a run does not begin with making them.
        let settings = "-s malloc,512m -p thread_pools=1 -p thread_pool_min=200 -p thread_pool_max=1000";
        arguments.extend(settings.split(' ').map(OsStr::new));
        let log = folder.join("varnishd.log");
        let mut process = Process::start(self.tools, options.server_cpu, "varnishd", &arguments, &folder, log)?;
        process.wait_until(|| client::connects(http))?;
        let mut processes = vec![process];
        if options.access_logs {
            let arguments: Vec<&OsStr> = vec![OsStr::new("-n"), &state, OsStr::new("-w"), OsStr::new("access.log")];
            let log = folder.join("varnishncsa.log");
            processes.push(Process::start(self.tools, options.server_cpu, "varnishncsa", &arguments, &folder, log)?);
        }
        Ok(Peer { kind: Kind::Varnish, http, https: http, processes })
    }

    fn start_selvedge(&self, options: &Options) -> Outcome<Peer> {
        let [http, https, admin] = free_addresses()?;
        let folder = self.path("selvedge");
        fs::create_dir_all(&folder).doing("making selvedge's folder")?;
        let log = if options.access_logs { "combined" } else { "off" };
        let cache = match self.set {
            None => "[cache.memory]\ncapacity = \"512 MiB\"\n\n".to_owned(),
            Some(set) => {
                let all = set * options.sizes.len() as u64;
                let capacity = (all + all / 4 + (512 << 20)) >> 20;
                format!(
                    "[cache.memory]\ncapacity = \"32 MiB\"\n\n[cache.disk]\npath = \"tier\"\ncapacity = \"{capacity} MiB\"\n\n"
                )
            }
        };
        let config = format!(
            "[runtime]\nthreads = 1\n\n[listen]\nhttp = [\"{http}\"]\nhttps = [\"{https}\"]\nadmin = \"{admin}\"\n\n\
             [tls]\ncertificates = \"../certs\"\n\n{cache}\
             [access_log]\nformat = \"{log}\"\noutput = \"./access.log\"\n\n\
             [origins.files.http]\nservers = [\"{origin}\"]\n\n[[sites]]\nhosts = [\"*\"]\n\n\
             [[sites.routes]]\npath = \"/\"\norigin = \"files\"\n",
            origin = self.origin_address,
        );
        write(&folder.join("selvedge.toml"), config)?;
        let arguments = ["serve", "--config", "selvedge.toml"].map(OsStr::new);
        let log = folder.join("selvedge.log");
        let mut process = Process::start(self.tools, options.server_cpu, "selvedge", &arguments, &folder, log)?;
        process.wait_until(|| client::get(admin, "/healthz").is_ok())?;
        Ok(Peer { kind: Kind::Selvedge, http, https, processes: vec![process] })
    }

    fn nginx(&self, folder: &Path, cpu: u32, config: &str) -> Outcome<Process> {
        fs::create_dir_all(folder).doing("making nginx's folder")?;
        write(&folder.join("nginx.conf"), config)?;
        let mut arguments: Vec<&OsStr> = vec![OsStr::new("-p"), folder.as_os_str()];
        // Before it has read its settings it would write to the system's log.
        arguments.extend(["-c", "nginx.conf", "-e", "error.log"].map(OsStr::new));
        Process::start(self.tools, cpu, "nginx", &arguments, folder, folder.join("error.log"))
    }
}

/// The only TLS that the generators offer, so that every server encrypts the same way. h2load sets its own list of ciphers after
/// reading this and gets the cipher again on its command line.
pub const CIPHER: &str = "TLS_AES_256_GCM_SHA384";
const OPENSSL_CONFIG: &str = "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = client\n[client]\n\
                              MinProtocol = TLSv1.3\nCiphersuites = TLS_AES_256_GCM_SHA384\nGroups = X25519\n";

fn nginx_head() -> String {
    // Started by root, the worker would become a user who may not enter the temporary directory.
    let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
    format!(
        "{user}worker_processes 1;\ndaemon off;\npid nginx.pid;\nerror_log error.log warn;\n\
         events {{ worker_connections 4096; }}\nhttp {{\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  \
         sendfile on;\n  tcp_nopush off;\n  tcp_nodelay on;\n  keepalive_timeout 1h;\n  keepalive_requests 1000000000;\n"
    )
}

/// Addresses on loopback whose ports were free a moment ago.
fn free_addresses<const N: usize>() -> Outcome<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    let mut held = Vec::new();
    for address in &mut addresses {
        let listener = TcpListener::bind(*address).doing("looking for a free port")?;
        *address = listener.local_addr().doing("looking for a free port")?;
        // Held until all are found, so that none comes twice.
        held.push(listener);
    }
    Ok(addresses)
}

fn make_certificate(tools: &Tools, folder: &Path) -> Outcome<()> {
    fs::create_dir_all(folder).doing("making the certificate's folder")?;
    let mut command = Command::new(tools.path("openssl"));
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
    ]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    command.args(["-keyout", "default.key", "-out", "default.crt"]).current_dir(folder);
    let output = command.output().doing("running openssl")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Wrong(format!("openssl made no certificate: {}", String::from_utf8_lossy(&output.stderr))))
}

/// The file of this size: the same bytes in every run, and nothing that a compressor could shorten (xorshift64).
fn contents(size: Size) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size.0;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size.0 as usize).collect()
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Outcome<()> {
    fs::write(path, bytes).doing(format!("writing {}", path.display()))
}
