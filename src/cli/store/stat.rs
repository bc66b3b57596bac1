//! `selvedge store stat`.

use super::{Common, Error, Opened, bar, moving};
use crate::cache::disk::inspect::{Overview, Visited};
use crate::cache::stored::Stored;
use crate::cli::Exit;
use crate::types::ByteSize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::SystemTime;

/// Upper bounds of the classes that objects are counted by, in bytes; there is one more above the last.
const CLASSES: [u64; 8] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20, 256 << 20];
/// Media types that the text names.
const TYPES_SHOWN: usize = 10;
/// Media types that are told apart; what origin servers make up beyond that is `other`.
const MAX_TYPES: usize = 1000;

/// How many objects, and their bytes of content.
#[derive(Clone, Copy, Default)]
struct Share {
    objects: u64,
    bytes: u64,
}

/// What the objects are.
#[derive(Default)]
struct Census {
    all: Share,
    on_disk: u64,
    oldest: Option<SystemTime>,
    newest: Option<SystemTime>,
    classes: [Share; CLASSES.len() + 1],
    types: BTreeMap<String, Share>,
    /// Objects whose metadata another program wrote.
    strange: u64,
}

/// Counts, and prints.
pub(super) fn run(args: &Common, now: SystemTime, out: &mut dyn Write) -> Result<Exit, Error> {
    let store = args.source.open()?;
    let overview = store.inspector.overview().map_err(Error::Read)?;
    let bar = bar("reading");
    let contents = store.inspector.contents(&mut moving(&bar)).map_err(Error::Read)?;
    let mut census = Census::default();
    let visited = contents.visit(&mut moving(&bar), &mut |object| {
        match Stored::read(&object, now) {
            Some(stored) => census.count(&stored),
            None => census.strange += 1,
        }
        Ok(())
    });
    let visited = visited.map_err(Error::Read)?;
    bar.finish_and_clear();
    let text = if args.json {
        format!("{:#}\n", as_json(&store, &overview, &census, &visited))
    } else {
        as_text(&store, &overview, &census, &visited)
    };
    out.write_all(text.as_bytes()).map_err(Error::Output)?;
    Ok(Exit::Ok)
}

impl Share {
    fn count(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

impl Census {
    fn count(&mut self, stored: &Stored) {
        self.all.count(stored.size);
        self.on_disk += stored.on_disk;
        self.oldest = Some(self.oldest.map_or(stored.stored, |oldest| oldest.min(stored.stored)));
        self.newest = self.newest.max(Some(stored.stored));
        self.classes[CLASSES.partition_point(|bound| *bound < stored.size)].count(stored.size);
        let mut media_type = stored.media_type();
        if media_type.is_empty() {
            media_type = "none".to_owned();
        }
        if self.types.len() >= MAX_TYPES && !self.types.contains_key(&media_type) {
            media_type = "other".to_owned();
        }
        self.types.entry(media_type).or_default().count(stored.size);
    }

    /// The media types, those with the most bytes first.
    fn types(&self) -> Vec<(&str, Share)> {
        let mut types: Vec<(&str, Share)> = self.types.iter().map(|(name, share)| (name.as_str(), *share)).collect();
        types.sort_by_key(|(_, share)| std::cmp::Reverse((share.bytes, share.objects)));
        types
    }
}

fn class_name(class: usize) -> String {
    match CLASSES.get(class) {
        Some(bound) => format!("up to {}", ByteSize(*bound)),
        None => format!("above {}", ByteSize(CLASSES[CLASSES.len() - 1])),
    }
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn as_text(store: &Opened, overview: &Overview, census: &Census, visited: &Visited) -> String {
    let mut lines = vec![("store".to_owned(), format!("{}, format {}", store.path.display(), overview.version))];
    let mut line = |name: &str, text: String| lines.push((name.to_owned(), text));
    let of = store.capacity.map(|capacity| format!(" of {}", ByteSize(capacity))).unwrap_or_default();
    line("size", format!("{}{of}, in segments of {}", ByteSize(overview.allocated), ByteSize(overview.segment_size)));
    line("segments", format!("{} sealed, {} open, {} free", overview.sealed, overview.open, overview.free));
    let (content, on_disk) = (ByteSize(census.all.bytes), ByteSize(census.on_disk));
    line("objects", format!("{}, {content} of content in {on_disk}", census.all.objects));
    if let (Some(oldest), Some(newest)) = (census.oldest, census.newest) {
        line("stored", format!("{} to {}", time(oldest), time(newest)));
    }
    let (keys, scopes, all) = (overview.key_purges, overview.scope_purges, overview.all_purges);
    let lost = if overview.is_log_lost { "; damaged or missing, and so everything counts as purged" } else { "" };
    line(
        "purge log",
        format!("{}, {keys} by URL, {scopes} by scope, {all} of all{lost}", ByteSize(overview.log_bytes)),
    );
    let Visited { objects: _, changed, damaged, incomplete, purged, skipped_segments } = visited;
    line(
        "left out",
        format!(
            "{purged} purged, {incomplete} incomplete, {damaged} damaged, {} unknown, {changed} objects and {skipped_segments} segments changed",
            census.strange
        ),
    );
    for (class, share) in census.classes.iter().enumerate().filter(|(_, share)| share.objects > 0) {
        line(&class_name(class), format!("{:>10}  {}", share.objects, ByteSize(share.bytes)));
    }
    for (name, share) in census.types().into_iter().take(TYPES_SHOWN) {
        line(name, format!("{:>10}  {}", share.objects, ByteSize(share.bytes)));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.into_iter().map(|(name, text)| format!("{name:<width$}  {text}\n")).collect()
}

fn as_json(store: &Opened, overview: &Overview, census: &Census, visited: &Visited) -> Value {
    let share = |share: &Share| json!({ "objects": share.objects, "bytes": share.bytes });
    let class = |(at, class): (usize, &Share)| json!({ "up_to": CLASSES.get(at), "objects": class.objects, "bytes": class.bytes });
    let types: serde_json::Map<String, Value> =
        census.types().into_iter().map(|(name, of)| (name.to_owned(), share(&of))).collect();
    json!({
        "path": store.path,
        "format": overview.version,
        "capacity": store.capacity,
        "allocated": overview.allocated,
        "segment_size": overview.segment_size,
        "segments": { "sealed": overview.sealed, "open": overview.open, "free": overview.free },
        "objects": census.all.objects,
        "bytes": census.all.bytes,
        "disk_bytes": census.on_disk,
        "oldest": census.oldest.map(time),
        "newest": census.newest.map(time),
        "purge_log": {
            "bytes": overview.log_bytes,
            "by_url": overview.key_purges,
            "by_scope": overview.scope_purges,
            "all": overview.all_purges,
            "lost": overview.is_log_lost,
        },
        "left_out": {
            "purged": visited.purged,
            "incomplete": visited.incomplete,
            "damaged": visited.damaged,
            "unknown": census.strange,
            "changed": visited.changed,
            "changed_segments": visited.skipped_segments,
        },
        "size_classes": census.classes.iter().enumerate().map(class).collect::<Vec<_>>(),
        "media_types": types,
    })
}
