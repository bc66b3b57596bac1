//! The command line: what the arguments say, and which exit status each outcome has.

mod check;
mod discover;
mod dns;
mod geo;
mod health;
mod load;
mod logging;
mod purge;
mod routes;
mod store;
mod traffic;
mod trust;
mod warm;
mod why;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// How a command ended, after BSD's `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was told to.
    Ok,
    /// Part of it did not succeed.
    Failed,
    /// The arguments or the configuration are wrong.
    Usage,
    /// A server that is needed does not answer.
    Unavailable,
    /// Anything else.
    Internal,
}

impl Exit {
    /// The process's exit status: 0, 1, 64, 69 or 70.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Internal => 70,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Runs the command that `args` name, the program's own name first. Results go to standard output, everything else to
/// standard error.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    dispatch(args, &mut std::io::stdout(), &mut std::io::stderr())
}

/// [`run`] with the two outputs given.
fn dispatch(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            say(err, &error);
            return Exit::Usage.into();
        }
        Err(help) => {
            say(out, &help);
            return Exit::Ok.into();
        }
    };
    match cli.command {
        Command::Serve(Serve { config }) => {
            logging::init();
            crate::app::serve(config)
        }
        Command::Check(ConfigFile { config }) => check::run(&config, out, err).into(),
        #[cfg(feature = "demo")]
        Command::Demo(args) => {
            logging::init();
            crate::demo::run(args.into())
        }
        Command::Purge(args) => purge::run(&args, &|name| std::env::var(name).ok(), out, err).into(),
        Command::Discover(args) => {
            logging::init();
            discover::run(&args, &|name| std::env::var(name).ok(), err).into()
        }
        Command::Dns(args) => dns::run(&args, &|name| std::env::var(name).ok(), out, err).into(),
        Command::Geo(args) => geo::run(&args, out, err).into(),
        Command::Health(args) => health::run(&args, &|name| std::env::var(name).ok(), out, err).into(),
        Command::Load(args) => load::run(&args, out, err).into(),
        Command::Routes(args) => routes::run(&args, &|name| std::env::var(name).ok(), out, err).into(),
        Command::Store(args) => store::run(&args, crate::clock::Clock::system().now(), out, err).into(),
        Command::Traffic(args) => traffic::run(&args, &|name| std::env::var(name).ok(), out, err).into(),
        Command::Warm(args) => warm::run(&args, out, err).into(),
        Command::Why(args) => why::run(&args, &|name| std::env::var(name).ok(), out, err).into(),
        Command::Cert(CertCommand { kind: CertKind::SelfSigned(args) }) => self_signed(&args, out, err).into(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "selvedge", &mut script);
            match out.write_all(&script) {
                Ok(()) => Exit::Ok.into(),
                Err(_) => Exit::Internal.into(),
            }
        }
    }
}

/// Writes a text; an output that nobody reads any more is no reason to fail.
fn say(stream: &mut dyn Write, text: &dyn std::fmt::Display) {
    let _ = write!(stream, "{text}");
}

fn self_signed(args: &SelfSigned, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    use crate::tls::self_signed::{Error, write};
    match write(&args.out, &args.hosts) {
        Ok(paths) => {
            paths.iter().for_each(|path| say(out, &format_args!("{}\n", path.display())));
            Exit::Ok
        }
        Err(error) => {
            say(err, &format_args!("error: {error}\n"));
            match error {
                Error::NoHost | Error::Host(_) | Error::Occupied(_) => Exit::Usage,
                _ => Exit::Internal,
            }
        }
    }
}

/// A caching CDN edge proxy in one binary.
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, about, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  selvedge check --config edge.toml      name every problem of a configuration
  selvedge serve --config edge.toml      serve in the foreground (SIGHUP reloads, SIGTERM drains)
  selvedge purge https://www.example.com/style.css
  selvedge why https://www.example.com/style.css

Exit status: 0 done; 1 a part failed (warm), or damage (store); 64 wrong arguments or configuration; 69 no answer
from a server, or a port, folder or file is not to be had; 70 other.
SELVEDGE_LOG in the environment sets what is logged: debug, or info,selvedge::origin=debug.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve in the foreground
    ///
    /// Logs go to standard error. SIGHUP reads the configuration again, all of it or nothing; SIGTERM and SIGINT let
    /// the requests under way end and then exit 0. A bad configuration exits 64 with every problem named.
    ///
    /// Without a file it does as nginx-proxy's image does: it listens on ports 80 and 443 and routes by what containers
    /// say of themselves, with nginx-proxy's variables and folders.
    #[command(
        after_help = "Examples:\n  selvedge serve --config /etc/selvedge/edge.toml\n  DOCKER_HOST=unix:///var/run/docker.sock selvedge serve"
    )]
    Serve(Serve),

    /// Check a configuration and exit
    ///
    /// Prints a summary and exits 0, or names every problem with line, column and remedy on standard error and exits 64.
    #[command(after_help = "Example:\n  selvedge check --config edge.toml && systemctl reload selvedge")]
    Check(ConfigFile),

    /// Serve a sample site from a private bucket, to see it work
    ///
    /// Starts an S3-style server that accepts only signed requests, and an edge before it with a self-signed
    /// certificate, and prints commands to paste.
    #[cfg(feature = "demo")]
    #[command(after_help = "Example:\n  selvedge demo --http-port 0 --https-port 0 --admin-port 0 --origin-port 0")]
    Demo(Demo),

    /// Remove stored responses from a running server's cache
    ///
    /// By URL (with all its variants), by prefix of host and path, by host, by tag (of the response fields Cache-Tag,
    /// Surrogate-Key and x-amz-meta-cache-tag), or all of it. Asks the admin listener; when it returns, the purge is done
    /// and survives a restart.
    #[command(after_help = "\
Examples:
  selvedge purge https://www.example.com/style.css https://www.example.com/
  selvedge purge --tag news --tag front-page --soft
  selvedge purge --prefix www.example.com/blog --host old.example.com
  selvedge purge --config /etc/selvedge/edge.toml --all
  selvedge purge --admin 10.0.0.5:9090 --token-env ADMIN_TOKEN https://www.example.com/
  selvedge purge --admin unix:/run/selvedge/admin.sock --all")]
    Purge(purge::Purge),

    /// Show and change how traffic rules share requests out on a running server
    ///
    /// What is changed counts at once and until the next change, or a restart, or a reload that gives the rule other groups
    /// or weights. No request is dropped. `shift` exits 1 if it had to roll back.
    #[command(after_help = "\
Examples:
  selvedge traffic show --config edge.toml
  selvedge traffic set www canary old=90 new=10
  selvedge traffic shift www canary --to new --steps 10 --every 1m --max-errors 0.5")]
    Traffic(traffic::Traffic),

    /// Fetch URLs through a running server, so that its cache has them before clients ask
    ///
    /// Prints how many responses of each status came, and what the cache did. Exits 1 if any failed: could not be
    /// fetched, or answered 400 or above.
    #[command(after_help = "\
Examples:
  selvedge warm --config /etc/selvedge/edge.toml https://www.example.com/ https://www.example.com/style.css
  selvedge warm --edge 10.0.0.5:443 --sitemap https://www.example.com/sitemap.xml --concurrency 32
  selvedge warm --edge 127.0.0.1:8443 --insecure --list urls.txt -H 'Accept-Encoding: br'")]
    Warm(warm::Warm),

    /// Load an edge with requests, and say how it did
    ///
    /// As fast as answers come (a closed model: --connections, --think), or at a rate of its own (an open one: --rate, where
    /// the wait for a server that stalls counts). Objects of a catalogue, an access log or a trace; a line shows how it goes,
    /// then rate, hits by tier (Cache-Status), errors and response times. Addresses that are not private are refused
    /// unless --i-own-this-host is given.
    #[command(after_help = "\
Examples:
  selvedge load https://127.0.0.1:8443/ --insecure -d 30s
  selvedge load 'http://www.example.com/objects/{n}' --target 10.0.0.5:80 --target 10.0.0.6:80 \\
      --objects 100000 --popularity zipf:0.9 --shift 5% --rate 5000 --ramp 10s --html report.html
  selvedge load http://www.example.com --target 127.0.0.1:8080 --replay access.log --speed 2
  selvedge load http://127.0.0.1:8080/ --expect 'p99<20ms' --expect 'errors<0.1%' --json -

Exit status: 0 done; 1 a threshold was missed; 64 wrong arguments; 69 nothing was answered.")]
    Load(Box<load::Load>),

    /// Offer what an engine's containers ask for to edges that do not see its socket
    ///
    /// Watches the engine (DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH, DOCKER_CONTAINER_FILTERS) and hands on names,
    /// addresses and the variables that routing reads, nothing else. An edge asks with `[discovery.remote]`.
    #[command(after_help = "\
Examples:
  selvedge discover
  selvedge discover --listen 10.0.0.5:9443 --token-env DISCOVER_TOKEN --cert discover.crt --key discover.key")]
    Discover(discover::Discover),

    /// Show the routes of a running server, and where each came from
    ///
    /// Each host and path with its origin servers, the containers or the file it came from, why they were chosen, and
    /// what is to be said of them. Asks the admin listener.
    #[command(after_help = "\
Examples:
  selvedge routes
  selvedge routes www.example.com
  selvedge routes --config /etc/selvedge/edge.toml --json | jq '.notes'

Exit status: 0 done; 1 something is not served as it was asked for; 64 wrong arguments; 69 no answer.")]
    Routes(routes::Routes),

    /// Look into the DNS plane of a running server
    Dns(dns::Dns),

    /// Make databases of where addresses are
    Geo(geo::Geo),

    /// Say whether a running server serves
    ///
    /// For health checks of containers, whose images have no other client. Asks the admin listener.
    #[command(after_help = "\
Examples:
  selvedge health
  selvedge health --ready --config /etc/selvedge/selvedge.toml

Exit status: 0 it serves; 69 it does not, or does not answer; 64 wrong arguments.")]
    Health(health::Health),

    /// Look into the disk tier's directory: sum up, verify, list, dump
    ///
    /// Reads the directory itself, without a lock and without writing to it, so that it is safe while a server uses it.
    /// What a server has in its queue but not on the disk is not seen. What counts is what a start would find.
    #[command(after_help = "\
Examples:
  selvedge store stat --config edge.toml
  selvedge store verify --dir /var/cache/selvedge
  selvedge store list --config edge.toml --prefix https://www.example.com/blog --json
  selvedge store dump --config edge.toml https://www.example.com/style.css > style.css

Exit status: 0 done; 1 damage was found (verify), or the URL is not stored, or not whole (dump); 64 wrong
arguments or configuration; 69 the directory is no store or cannot be read; 70 the output cannot be written.")]
    Store(store::Store),
    /// Explain how a running server answers a URL, and why
    ///
    /// Asks for the URL with the debug token, and prints what the server decided, one fact to a line in the order of the
    /// request's life: route, cache key, what was found in which tier, freshness, variant, origin, what was stored or why
    /// not. The request is a real one: it is logged, and what it fetches is stored.
    #[command(after_help = "\
Examples:
  selvedge why --config /etc/selvedge/edge.toml https://www.example.com/style.css
  selvedge why https://www.example.com/ -H 'Accept-Language: de' -H 'Cookie: a=b'
  selvedge why --edge 10.0.0.5:443 --cacert ca.pem --token-env DEBUG_TOKEN --json https://www.example.com/")]
    Why(why::Why),

    /// Make certificates
    Cert(CertCommand),

    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  selvedge completions bash > /etc/bash_completion.d/selvedge
  selvedge completions zsh > ~/.zfunc/_selvedge
  selvedge completions fish > ~/.config/fish/completions/selvedge.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// The configuration file; relative paths in it start at its folder [default: none, but the environment]
    #[arg(short, long, value_name = "FILE", env = "SELVEDGE_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file; relative paths in it start at its folder
    #[arg(short, long, value_name = "FILE", env = "SELVEDGE_CONFIG", value_hint = ValueHint::FilePath)]
    config: PathBuf,
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
struct Demo {
    /// Port for HTTP; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
    /// Port for HTTPS; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https_port: u16,
    /// Port for health, metrics and purge; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 9090)]
    admin_port: u16,
    /// Port for the S3-style server; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 9100)]
    origin_port: u16,
    /// Folder for the bucket, the certificate and the cache, kept between runs [default: selvedge-demo in the user's
    /// cache folder]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

#[cfg(feature = "demo")]
impl From<Demo> for crate::demo::Options {
    fn from(args: Demo) -> Self {
        let Demo { http_port, https_port, admin_port, origin_port, dir } = args;
        let dir = dir.unwrap_or_else(|| demo_dir(&|name| std::env::var_os(name)));
        Self { http_port, https_port, admin_port, origin_port, dir }
    }
}

/// In the user's cache folder by the XDG base directory specification, which has relative paths ignored; without one,
/// in the working directory.
#[cfg(feature = "demo")]
fn demo_dir(env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let folder = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(|| PathBuf::from(".")).join("selvedge-demo")
}

#[derive(Debug, Args)]
struct CertCommand {
    #[command(subcommand)]
    kind: CertKind,
}

#[derive(Debug, Subcommand)]
enum CertKind {
    /// Write a self-signed certificate and its key for each host
    ///
    /// The files are <HOST>.crt and <HOST>.key, as [tls] certificates looks for them. Prints their paths.
    #[command(after_help = "\
Examples:
  selvedge cert self-signed --out certs localhost
  selvedge cert self-signed --out certs www.example.com '*.example.org' 192.0.2.1")]
    SelfSigned(SelfSigned),
}

#[derive(Debug, Args)]
struct SelfSigned {
    /// Folder to write to, created if missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Host names, *.names or IP addresses
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<String>,
}

/// A fuzz target: what a sitemap names is text without markup around it.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_sitemap(data: &[u8]) {
    warm::fuzz_sitemap(data);
}

#[cfg(test)]
mod tests;
