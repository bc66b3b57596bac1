//! What a stored object says of itself, for whoever looks into the disk tier from outside.

use std::time::SystemTime;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::disk::inspect::Object;
use super::entry::Head;
use super::policy::time_to_live;
use super::{key, scope};

/// The stored head of a response, and what was worked out when it was stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The target URI; the hash of the key, as `key:…`, where the key is of something else.
    pub url: String,
    /// Rules make more of the request count than the URL.
    pub is_ruled: bool,
    /// The hash of the request fields that select it, in hexadecimal; `None` without `Vary`.
    pub variant: Option<String>,
    /// Its status code.
    pub status: u16,
    /// Its fields.
    pub fields: HeaderMap,
    /// Bytes of its content.
    pub size: u64,
    /// Bytes it takes on the disk, framing included.
    pub on_disk: u64,
    /// When it was stored or last validated.
    pub stored: SystemTime,
    /// Until when it is fresh.
    pub fresh_until: SystemTime,
    /// Seconds of freshness left, negative when it is stale.
    pub ttl: i64,
    /// The content has not the length that the head declares.
    pub is_cut: bool,
}

impl Stored {
    /// Reads an object's metadata; `None` if that is none.
    pub fn read(object: &Object, now: SystemTime) -> Option<Self> {
        let head = Head::decode(&object.meta, object.key.variant.is_none(), &object.mark)?;
        let meta = match object.stale_since {
            Some(since) => head.to_stale_meta(since, now),
            None => head.to_meta(),
        };
        let named = key::url(head.key());
        let is_ruled = named.as_ref().is_some_and(|(_, is_ruled)| *is_ruled);
        Some(Self {
            url: named.map_or_else(|| format!("key:{}", hex(&object.key.primary)), |(url, _)| url),
            is_ruled,
            variant: object.key.variant.as_ref().map(|variant| hex(variant)),
            status: meta.response_header().status.as_u16(),
            fields: meta.headers().clone(),
            size: object.len,
            on_disk: object.stored,
            stored: meta.created(),
            fresh_until: meta.fresh_until(),
            ttl: time_to_live(&meta, now),
            is_cut: !head.declares(object.len),
        })
    }

    /// The media type without parameters, in lower case; empty if there is none.
    pub fn media_type(&self) -> String {
        let value = self.fields.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        key::visible(essence).to_ascii_lowercase()
    }

    /// The tags that the origin server gave it.
    pub fn tags(&self) -> Vec<String> {
        scope::tags(&self.fields).map(key::visible).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
