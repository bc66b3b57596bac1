//! The commands to paste.

use super::ports::Ports;
use super::site::{BUCKET, DOWNLOAD};
use std::fmt;
use std::path::{Path, PathBuf};

/// Everything the commands depend on.
#[derive(Clone, Debug)]
pub(super) struct Guide {
    pub(super) ports: Ports,
    pub(super) folder: PathBuf,
    pub(super) program: PathBuf,
    pub(super) start: Start,
}

/// Whether an earlier run has left its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    First,
    Again,
}

impl Start {
    fn as_str(self) -> &'static str {
        match self {
            Self::First => "the first comes from the bucket, the second from memory",
            Self::Again => "kept from an earlier run, so both are hits: the first from disk, the second from memory",
        }
    }
}

/// Plain lines of shell and comments: the whole text after the first blank line may be pasted at once.
impl fmt::Display for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ports { http, https, admin, origin } = self.ports;
        let folder = self.folder.display();
        let program = quoted(&self.program);
        let certificate = quoted(&self.folder.join("certs/localhost.crt"));
        let curl = format!("curl -sSD- -o /dev/null --cacert {certificate}");
        let page = format!("https://localhost:{https}/");
        let credentials = self.folder.join("credentials");
        let access_key = quoted(&credentials.join("access_key_id"));
        let secret = quoted(&credentials.join("secret_access_key"));
        let first = self.start.as_str();
        write!(
            f,
            "\
selvedge demo is up; Ctrl-C stops it. State is kept in {folder}

# The site is at {page} (and http://localhost:{http}/), the private bucket behind it at http://127.0.0.1:{origin}/{BUCKET}.

# A page over HTTPS and HTTP/2, twice; see Cache-Status: {first}.
{curl} {page}
{curl} {page}

# One of the 64 MiB of a download: 206, and only that part is sent.
{curl} -r 1048576-2097151 {page}{DOWNLOAD}

# Purge the page: the next answer is a miss again.
{program} purge --admin 127.0.0.1:{admin} {page}
{curl} {page}

# What the edge counted.
curl -sS http://127.0.0.1:{admin}/metrics | grep '^selvedge_requests_total'

# The bucket itself refuses a request without a signature (403) and answers one that has it (200).
curl -sS -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1:{origin}/{BUCKET}/index.html
curl -sS -o /dev/null -w '%{{http_code}}\\n' --aws-sigv4 aws:amz:us-east-1:s3 -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
--user \"$(cat {access_key}):$(cat {secret})\" http://127.0.0.1:{origin}/{BUCKET}/index.html
"
        )
    }
}

/// A path as one word of a shell command.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ':' | '@' | '%' | ',');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_and_quotes_stays_one_word() {
        assert_eq!(quoted(Path::new("/a/b-1.crt")), "/a/b-1.crt");
        assert_eq!(quoted(Path::new("/my dir/it's")), r"'/my dir/it'\''s'");
    }

    #[test]
    fn every_line_below_the_first_is_shell() {
        let ports = Ports { http: 1, https: 2, admin: 3, origin: 4 };
        let guide = Guide { ports, folder: "/tmp/x y".into(), program: "/bin/selvedge".into(), start: Start::First };
        let text = guide.to_string();
        for line in text.lines().skip(1) {
            assert!(
                line.is_empty() || ["# ", "curl ", "/bin/selvedge purge "].iter().any(|start| line.starts_with(start)),
                "{line}"
            );
        }
        assert!(text.contains("--cacert '/tmp/x y/certs/localhost.crt' https://localhost:2/\n"), "{text}");
    }
}
