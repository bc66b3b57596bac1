//! The files by which a client of ACME beside this node shows that it answers for a host (RFC 8555 section 8.3).

use super::answer::Answer;
use bytes::Bytes;
use http::Method;
use std::fs::{File, metadata};
use std::io::Read;
use std::path::Path;

/// Where authorities look.
const PREFIX: &str = "/.well-known/acme-challenge/";
/// Longer than any token; one has 128 bits and more, 22 characters.
const MAX_TOKEN: usize = 128;
/// More than a token with the thumbprint of a key has.
const MAX_FILE: u64 = 4096;

/// The answer from `folder`; `None` where something else is asked for. What is no token names no file.
pub(super) fn answer(folder: &Path, method: &Method, path: &str) -> Option<Answer> {
    let token = path.strip_prefix(PREFIX).filter(|_| matches!(*method, Method::GET | Method::HEAD))?;
    let base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let token = Some(token).filter(|t| (1..=MAX_TOKEN).contains(&t.len()) && t.bytes().all(base64url));
    Some(Answer::Challenge(token.and_then(|token| read(&folder.join(token)))))
}

/// A small file, of a folder that only the operator writes to.
fn read(path: &Path) -> Option<Bytes> {
    // Opening a pipe would wait for its other end.
    metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mut content = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut content).ok()?;
    Some(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_files_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a-B_9"), "a-B_9.print").unwrap();
        std::fs::write(dir.path().join("a.txt"), "secret").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let ask = |method: &Method, path: &str| match answer(dir.path(), method, path) {
            None => "passed on".to_owned(),
            Some(Answer::Challenge(None)) => "404".to_owned(),
            Some(Answer::Challenge(Some(content))) => String::from_utf8(content.to_vec()).unwrap(),
            Some(other) => panic!("{other:?}"),
        };
        assert_eq!(ask(&Method::GET, "/.well-known/acme-challenge/a-B_9"), "a-B_9.print");
        assert_eq!(ask(&Method::HEAD, "/.well-known/acme-challenge/a-B_9"), "a-B_9.print");
        for token in ["", "other", "a.txt", "folder", "../a.txt", "a-B_9/", "%61-B_9", &"a".repeat(129)] {
            assert_eq!(ask(&Method::GET, &format!("/.well-known/acme-challenge/{token}")), "404", "{token}");
        }
        assert_eq!(ask(&Method::POST, "/.well-known/acme-challenge/a-B_9"), "passed on");
        assert_eq!(ask(&Method::GET, "/.well-known/other"), "passed on");
    }
}
