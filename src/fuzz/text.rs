//! Texts that operators write.

use crate::cache::purge::{Matcher, Scope};
use crate::config::Config;
use crate::types::{ByteSize, HostName};
use std::path::Path;

/// A configuration: whatever it is, it is understood or every problem has a place in it and a remedy.
pub(super) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A file that is named as a credential would be read.
    if text.contains("file") {
        return;
    }
    let env = |name: &str| (!name.is_empty()).then(|| "0123456789abcdef".to_owned());
    let Err(problems) = Config::parse(text, Path::new("/none/edge.toml"), &env) else { return };
    assert!(!problems.problems.is_empty());
    let lines = text.lines().count().max(1) + 1;
    for problem in &problems.problems {
        assert!(!problem.message.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
        let in_it =
            problem.position.is_none_or(|position| (1..=lines).contains(&position.line) && position.column >= 1);
        assert!(in_it, "{problem:?}");
    }
    assert!(!problems.to_string().is_empty());
}

/// Scopes of purges, host names and sizes.
pub(super) fn scope(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for scope in [Scope::Prefix(text.to_owned()), Scope::Host(text.to_owned()), Scope::Tag(text.to_owned())] {
        if let Err(reason) = Matcher::new(&scope) {
            assert!(!reason.is_empty());
        }
    }
    if let Ok((host, _)) = HostName::parse_with_port(text) {
        assert_eq!(host.as_str().parse().as_ref(), Ok(&host));
    }
    if let Ok(ByteSize(bytes)) = text.parse() {
        let written = ByteSize(bytes).to_string();
        let again = written.parse::<ByteSize>();
        assert!(again.is_ok_and(|again| again.0 == bytes) || written.contains('.'), "{written}");
    }
}
