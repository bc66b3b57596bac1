//! What the demo's bucket holds: the site in `config/demo/site` and a generated download.

use super::bucket::{Attributes, Bucket};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use std::io;

/// The bucket's name.
pub(super) const BUCKET: &str = "site";
/// The object key of the generated file.
pub(super) const DOWNLOAD: &str = "downloads/64MiB.bin";

const DOWNLOAD_SIZE: u64 = 64 << 20;
const CHUNK: u64 = 1 << 20;

/// Pages change more often than what they link to.
const PAGE: &str = "public, max-age=3600";
const ASSET: &str = "public, max-age=86400";

macro_rules! embedded {
    ($($key:literal: $content_type:literal, $cache_control:expr;)*) => {
        &[$(Embedded {
            key: $key,
            content_type: $content_type,
            cache_control: $cache_control,
            bytes: include_bytes!(concat!("../../config/demo/site/", $key)),
        }),*]
    };
}

struct Embedded {
    key: &'static str,
    content_type: &'static str,
    cache_control: &'static str,
    bytes: &'static [u8],
}

const FILES: &[Embedded] = embedded! {
    "index.html": "text/html; charset=utf-8", PAGE;
    "about/index.html": "text/html; charset=utf-8", PAGE;
    "404.html": "text/html; charset=utf-8", PAGE;
    "css/site.css": "text/css; charset=utf-8", ASSET;
    "js/site.js": "text/javascript; charset=utf-8", ASSET;
    "images/weave.svg": "image/svg+xml", ASSET;
    "images/threads.png": "image/png", ASSET;
    "favicon.ico": "image/x-icon", ASSET;
};

/// Puts into the bucket what it does not hold yet; what was changed by hand stays as it is.
pub(super) async fn fill(bucket: &Bucket) -> io::Result<()> {
    for file in FILES {
        let attributes = Attributes { content_type: Some(file.content_type), cache_control: Some(file.cache_control) };
        if !bucket.holds(BUCKET, file.key, attributes).await {
            let body = futures::stream::iter([Ok(Bytes::from_static(file.bytes))]);
            bucket.put(BUCKET, file.key, attributes, body).await?;
        }
    }
    let attributes = Attributes { content_type: Some("application/octet-stream"), cache_control: Some(ASSET) };
    if !bucket.holds(BUCKET, DOWNLOAD, attributes).await {
        // Drawn on standard error, and only where that is a terminal.
        let progress = ProgressBar::new(DOWNLOAD_SIZE).with_message(DOWNLOAD).with_style(style());
        let drawn = progress.clone();
        let body = futures::stream::iter((0..DOWNLOAD_SIZE / CHUNK).map(move |number| {
            drawn.inc(CHUNK);
            Ok(chunk(number))
        }));
        bucket.put(BUCKET, DOWNLOAD, attributes, body).await?;
        progress.finish_and_clear();
    }
    Ok(())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("generating {msg} {wide_bar} {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One chunk of the download: SplitMix64 from a seed of its own, so that the file is the same everywhere and cannot be
/// compressed.
fn chunk(number: u64) -> Bytes {
    let mut state = number.wrapping_mul(0xA076_1D64_78BD_642F);
    let mut bytes = Vec::with_capacity(usize::try_from(CHUNK).unwrap_or_default());
    for _ in 0..CHUNK / 8 {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn files_under(folder: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files_under(&path, root, found),
                false => drop(found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned())),
            }
        }
    }

    #[test]
    fn every_file_of_the_site_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/site");
        let mut found = BTreeSet::new();
        files_under(&root, &root, &mut found);
        assert_eq!(found, FILES.iter().map(|file| file.key.to_owned()).collect());
    }

    #[test]
    fn every_link_within_the_site_leads_somewhere() {
        for page in FILES.iter().filter(|file| file.key.ends_with(".html")) {
            let text = std::str::from_utf8(page.bytes).unwrap();
            let links = text.split(['"']).filter(|part| part.starts_with('/') && *part != "/no/such/page");
            for link in links {
                let key = link.trim_start_matches('/');
                let key =
                    if key.is_empty() || key.ends_with('/') { format!("{key}index.html") } else { key.to_owned() };
                assert!(key == DOWNLOAD || FILES.iter().any(|file| file.key == key), "{}: {link}", page.key);
            }
        }
    }

    #[test]
    fn the_download_is_the_same_everywhere_and_chunks_differ() {
        assert_eq!(chunk(3), chunk(3));
        assert_ne!(chunk(3), chunk(4));
        assert_eq!(u64::try_from(chunk(0).len()).unwrap(), CHUNK);
        assert_eq!(xxhash_rust::xxh3::xxh3_64(&chunk(1)), 15_866_301_869_971_421_524, "fixed once, so that it stays");
    }
}
