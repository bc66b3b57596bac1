//! `selvedge store list` and `selvedge store dump`.

use super::{Common, Error, Source, bar, moving};
use crate::cache::disk::inspect::{Contents, CopyError, Missed, Object, Visited};
use crate::cache::key;
use crate::cache::purge::{Matcher, Scope};
use crate::cache::stored::Stored;
use crate::cli::purge::absolute_url;
use crate::cli::{Exit, say};
use crate::types::HostName;
use clap::Args;
use http::Uri;
use pingora::cache::CacheKey;
use serde_json::json;
use std::io::{self, BufWriter, Write};
use std::time::SystemTime;

/// Which objects to list.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    common: Common,
    /// Only a path and all below it, as HOST/PATH or a URL; it ends where a path segment ends
    #[arg(long, value_name = "PREFIX")]
    prefix: Vec<String>,
    /// Only what is of this host
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Only what the origin gave this tag
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
}

/// Which object to write.
#[derive(Debug, Args)]
pub(super) struct Dump {
    #[command(flatten)]
    source: Source,
    /// Its URL, as clients write it
    #[arg(value_name = "URL", value_parser = absolute_url)]
    url: String,
    /// List the variants that are stored instead
    #[arg(long, conflicts_with_all = ["variant", "head"])]
    variants: bool,
    /// The variant to write, as --variants lists it; its beginning is enough
    #[arg(long, value_name = "HEX")]
    variant: Option<String>,
    /// Write the head to standard output, and no content
    #[arg(long)]
    head: bool,
    /// With --variants: write JSON, one object on each line
    #[arg(long, requires = "variants")]
    json: bool,
}

/// Lists, each object as soon as it is read.
pub(super) fn list(args: &List, now: SystemTime, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let List { common, prefix, host, tag } = args;
    let scopes = prefix.iter().cloned().map(Scope::Prefix).chain(host.iter().cloned().map(Scope::Host));
    let scopes = scopes.chain(tag.iter().cloned().map(Scope::Tag));
    let matcher = |scope: Scope| Matcher::new(&scope).map_err(|reason| Error::Scope { scope, reason });
    let matchers = scopes.map(matcher).collect::<Result<Vec<_>, _>>()?;
    let store = common.source.open()?;
    let bar = bar("reading");
    let contents = store.inspector.contents(&mut moving(&bar)).map_err(Error::Read)?;
    bar.finish_and_clear();
    let mut out = BufWriter::new(out);
    let visited = contents.visit(&mut |_, _| {}, &mut |object| {
        if !matchers.is_empty() && !matchers.iter().any(|matcher| matcher.takes(&object.mark)) {
            return Ok(());
        }
        match Stored::read(&object, now) {
            Some(stored) => line(&stored, common.json, &mut out),
            None => Ok(()),
        }
    });
    let visited = visited.and_then(|visited| out.flush().map(|()| visited)).map_err(Error::Output)?;
    tell(&visited, err);
    Ok(Exit::Ok)
}

/// What else there is that the list has not.
fn tell(visited: &Visited, err: &mut dyn Write) {
    let Visited { damaged, changed, skipped_segments, .. } = visited;
    if *damaged > 0 {
        say(err, &format_args!("{damaged} objects are damaged and left out; `selvedge store verify` tells where\n"));
    }
    if changed + u64::from(*skipped_segments) > 0 {
        let what = format!("{changed} objects and {skipped_segments} segments");
        say(err, &format_args!("{what} changed while they were being read and are left out\n"));
    }
}

fn line(stored: &Stored, is_json: bool, out: &mut dyn Write) -> io::Result<()> {
    let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
    if is_json {
        let line = json!({
            "url": stored.url,
            "ruled": stored.is_ruled,
            "variant": stored.variant,
            "status": stored.status,
            "size": stored.size,
            "disk_bytes": stored.on_disk,
            "stored": time(stored.stored),
            "fresh_until": time(stored.fresh_until),
            "ttl": stored.ttl,
            "media_type": stored.media_type(),
            "tags": stored.tags(),
        });
        return writeln!(out, "{line}");
    }
    let variant = stored.variant.as_deref().map_or("-", |variant| variant.get(..8).unwrap_or(variant));
    let Stored { url, status, size, ttl, .. } = stored;
    write!(out, "{}  {status}  {size:>10}  {ttl:>7}  {variant:<8}  {url}", time(stored.stored))?;
    let tags = stored.tags();
    if !tags.is_empty() {
        write!(out, "  [{}]", tags.join(" "))?;
    }
    writeln!(out)
}

/// Writes one stored response.
pub(super) fn dump(args: &Dump, now: SystemTime, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let wanted = key_of(&args.url).map_err(Error::Choice)?;
    let store = args.source.open()?;
    let bar = bar("reading");
    let contents = store.inspector.contents(&mut moving(&bar)).map_err(Error::Read)?;
    let found = find(&contents, &wanted, now, &mut moving(&bar))?;
    bar.finish_and_clear();
    if found.is_empty() {
        let hint = if args.url.contains('?') { "; what is of a bucket is stored without a query" } else { "" };
        return Err(Error::NotStored(format!("nothing is stored under {}{hint}", args.url)));
    }
    if args.variants {
        let lines = found.iter().try_for_each(|(_, stored)| line(stored, args.json, out));
        return lines.map_err(Error::Output).map(|()| Exit::Ok);
    }
    let (object, stored) = chosen(args, &found)?;
    let head = head_text(stored);
    if args.head {
        return out.write_all(&head).map_err(Error::Output).map(|()| Exit::Ok);
    }
    // Nobody may be there to see it.
    let _ = err.write_all(&head);
    match contents.copy_body(object, out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) if stored.is_cut => {
            say(err, &format_args!("warning: the content has not the length that the head declares\n"));
            Ok(Exit::Failed)
        }
        Ok(()) => Ok(Exit::Ok),
        Err(CopyError::Output(error)) => Err(Error::Output(error)),
        Err(CopyError::Store(missed)) => Err(Error::NotStored(unfinished(missed))),
    }
}

fn unfinished(missed: Missed) -> String {
    let remedy = match missed {
        Missed::Changed => "run it again",
        Missed::Damaged | Missed::Incomplete | Missed::Purged => "the server fetches it again when it is asked for",
    };
    format!("the content is not complete: {missed}; {remedy}")
}

/// The objects of a URL. Those of its plain key are found at once; where rules or the kind of origin have made another
/// key of it, only a look at all objects finds them.
fn find(
    contents: &Contents<'_>,
    wanted: &CacheKey,
    now: SystemTime,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<(Object, Stored)>, Error> {
    let Some((url, _)) = key::url(wanted.primary_key()) else { return Ok(Vec::new()) };
    let read = |object: Object| {
        let stored = Stored::read(&object, now)?;
        (stored.url == url).then_some((object, stored))
    };
    let mut found: Vec<_> = contents.variants(&key::hash(wanted)).into_iter().filter_map(read).collect();
    if found.is_empty() {
        let visit = &mut |object: Object| {
            found.extend(read(object));
            Ok(())
        };
        contents.visit(progress, visit).map_err(Error::Read)?;
    }
    found.sort_by(|(_, a), (_, b)| (&a.variant, a.stored).cmp(&(&b.variant, b.stored)));
    Ok(found)
}

fn chosen<'a>(args: &Dump, found: &'a [(Object, Stored)]) -> Result<&'a (Object, Stored), Error> {
    let prefix = args.variant.as_deref().unwrap_or_default();
    let is_asked_for = |stored: &Stored| {
        args.variant.is_none() || stored.variant.as_deref().is_some_and(|variant| variant.starts_with(prefix))
    };
    let mut matching = found.iter().filter(|(_, stored)| is_asked_for(stored));
    match (matching.next(), matching.count()) {
        (Some(one), 0) => Ok(one),
        (None, _) => Err(Error::NotStored(format!("no variant of it begins with {prefix}; --variants lists them"))),
        (Some(_), more) => {
            let count = more + 1;
            Err(Error::Choice(format!("{count} variants of it are stored; choose one of --variants with --variant")))
        }
    }
}

fn head_text(stored: &Stored) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(stored.status).ok().and_then(|status| status.canonical_reason());
    let mut text = format!("HTTP/1.1 {} {}\r\n", stored.status, reason.unwrap_or_default()).into_bytes();
    for (name, value) in &stored.fields {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// The key of a URL where no rules concern it.
fn key_of(url: &str) -> Result<CacheKey, String> {
    let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (host, port) = HostName::parse_with_port(authority).map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
    Ok(key::target(scheme, host.as_str(), port, path.as_bytes()))
}
