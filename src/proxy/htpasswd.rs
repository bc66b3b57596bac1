//! Lists of users as Apache's `htpasswd` writes them, and whether a password is a user's.

use crate::route::settings::Users;
use crate::types::Secret;
use crate::watched::Watched;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use sha_crypt::{PasswordVerifier, ShaCrypt};
use std::collections::HashMap;
use std::sync::Arc;

/// A list of users, from a file that is read again when it changes, or from the configuration.
#[derive(Debug)]
pub struct Htpasswd(Source);

#[derive(Debug)]
enum Source {
    File(Watched<Table>),
    Inline(Result<Arc<Table>, String>),
}

type Table = HashMap<String, Hash>;

/// A password as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash {
    kind: Kind,
    text: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `$2a$`, `$2b$`, `$2y$`.
    Bcrypt,
    /// `$apr1$`, Apache's, and `$1$`, that of crypt.
    Md5(&'static str),
    /// `{SHA}`.
    Sha1,
    /// `$5$` and `$6$`.
    ShaCrypt,
}

impl Htpasswd {
    /// Nothing is read before it is asked for.
    pub fn new(users: &Users) -> Self {
        Self(match users {
            Users::File(path) => Source::File(Watched::new(vec![path.clone()], |contents| {
                parse(&String::from_utf8_lossy(contents.first().map_or(&[], Vec::as_slice)))
            })),
            Users::Inline(text) => Source::Inline(parse(text).map(Arc::new)),
        })
    }

    /// Whether the list can be read and understood.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        match &self.0 {
            Source::File(watched) => watched.read().map(|_| ()).map_err(|error| error.to_string()),
            Source::Inline(table) => table.as_ref().map(|_| ()).map_err(Clone::clone),
        }
    }

    /// How the user's password is kept; `None`: there is no such user.
    pub fn hash_of(&self, user: &str) -> Option<Hash> {
        match &self.0 {
            Source::File(watched) => watched.get()?.get(user).cloned(),
            Source::Inline(table) => table.as_ref().ok()?.get(user).cloned(),
        }
    }
}

/// Lines `name:hash`; empty ones and those that begin with `#` say nothing. What follows a further colon is a comment.
fn parse(text: &str) -> Result<Table, String> {
    let mut table = Table::new();
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, rest)) = line.split_once(':') else {
            return Err(format!("line {number} has no colon between name and hash"));
        };
        let text = rest.split(':').next().unwrap_or(rest);
        let Some(kind) = Kind::of(text) else {
            return Err(format!("line {number} has a hash of no kind that is known here"));
        };
        table.insert(name.to_owned(), Hash { kind, text: Secret::new(text) });
    }
    Ok(table)
}

impl Kind {
    fn of(hash: &str) -> Option<Self> {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| hash.starts_with(prefix));
        if starts(&["$2a$", "$2b$", "$2y$"]) {
            Some(Self::Bcrypt)
        } else if starts(&["$apr1$"]) {
            Some(Self::Md5("$apr1$"))
        } else if starts(&["$1$"]) {
            Some(Self::Md5("$1$"))
        } else if starts(&["{SHA}"]) {
            Some(Self::Sha1)
        } else if starts(&["$5$", "$6$"]) {
            Some(Self::ShaCrypt)
        } else {
            None
        }
    }
}

impl Hash {
    /// Whether it takes some milliseconds of a core to verify: such work is not for a thread that serves others.
    pub fn is_slow(&self) -> bool {
        !matches!(self.kind, Kind::Sha1)
    }

    /// Whether this is the password.
    pub fn matches(&self, password: &[u8]) -> bool {
        let text = self.text.expose();
        match self.kind {
            Kind::Bcrypt => bcrypt::verify(password, text).unwrap_or(false),
            Kind::Md5(magic) => {
                let salt = text.strip_prefix(magic).and_then(|rest| rest.split('$').next()).unwrap_or_default();
                self.text.matches(md5_crypt(password, magic, salt).as_bytes())
            }
            Kind::Sha1 => {
                let hashed = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, password));
                self.text.matches(format!("{{SHA}}{hashed}").as_bytes())
            }
            Kind::ShaCrypt => ShaCrypt::default().verify_password(password, text).is_ok(),
        }
    }

    /// The hash itself, to tell one state of it from another.
    pub fn text(&self) -> &Secret {
        &self.text
    }
}

/// A thousand rounds of MD5 over password and salt: crypt's `$1$`, and with another magic Apache's `$apr1$`.
fn md5_crypt(password: &[u8], magic: &str, salt: &str) -> String {
    let salt = salt.get(..salt.len().min(8)).unwrap_or_default().as_bytes();
    let once = |parts: &[&[u8]]| {
        let mut md5 = Md5::new();
        parts.iter().for_each(|part| md5.update(part));
        md5.finalize()
    };
    let inner = once(&[password, salt, password]);
    let mut first = Md5::new();
    first.update(password);
    first.update(magic.as_bytes());
    first.update(salt);
    for start in (0..password.len()).step_by(16) {
        first.update(&inner[..(password.len() - start).min(16)]);
    }
    let mut bits = password.len();
    while bits != 0 {
        first.update(if bits & 1 == 1 { &[0] } else { password.get(..1).unwrap_or_default() });
        bits >>= 1;
    }
    let mut last = first.finalize();
    for round in 0..1000_u32 {
        let (odd, salted, keyed) = (round & 1 == 1, round % 3 != 0, round % 7 != 0);
        let mut md5 = Md5::new();
        md5.update(if odd { password } else { &last[..] });
        if salted {
            md5.update(salt);
        }
        if keyed {
            md5.update(password);
        }
        md5.update(if odd { &last[..] } else { password });
        last = md5.finalize();
    }
    let mut text = format!("{magic}{}$", String::from_utf8_lossy(salt));
    let mut push = |value: u32, digits: u32| {
        const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for digit in 0..digits {
            text.push(char::from(ALPHABET[(value >> (6 * digit) & 63) as usize]));
        }
    };
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        push(u32::from(last[a]) << 16 | u32::from(last[b]) << 8 | u32::from(last[c]), 4);
    }
    push(u32::from(last[11]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl passwd` and `htpasswd` write the password `secret`.
    const LIST: &str = "# users\n\
        apr:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n\
        one:$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1\n\
        five:$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA\n\
        six:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n\
        \n\
        sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=:a comment\n";

    #[test]
    fn every_kind_of_hash_knows_its_password() {
        let list = format!("{LIST}bc:{}\n", bcrypt::hash("secret", 4).unwrap());
        let users = Htpasswd::new(&Users::Inline(list.into()));
        users.check().unwrap();
        for user in ["apr", "one", "five", "six", "sha", "bc"] {
            let hash = users.hash_of(user).unwrap();
            assert!(hash.matches(b"secret"), "{user}");
            for wrong in [&b"Secret"[..], b"secret ", b"", b"\xff"] {
                assert!(!hash.matches(wrong), "{user} {wrong:?}");
            }
        }
        assert_eq!(users.hash_of("nobody"), None);
        assert_eq!(users.hash_of("# users"), None);
    }

    #[test]
    fn what_is_no_list_is_named_by_line() {
        for (text, says) in [
            ("a:$apr1$x$y\nnonsense", "line 2 has no colon"),
            ("a:plain", "line 1 has a hash of no kind"),
            ("a:rqXexS6ZhobKA", "line 1 has a hash of no kind"),
        ] {
            let error = Htpasswd::new(&Users::Inline(text.into())).check().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let missing = Htpasswd::new(&Users::File("/nonexistent/htpasswd".into()));
        assert!(missing.check().unwrap_err().contains("cannot be read"));
        assert_eq!(missing.hash_of("a"), None);
    }
}
