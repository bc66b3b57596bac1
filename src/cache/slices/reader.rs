//! The reading side: slice after slice, from the tiers or, where they have it not, from the source.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use pingora::cache::CacheKey;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::subrequest::server::SubrequestHandle;
use pingora::{Error, ErrorType};

use super::{Cache, Layout, Order, Readiness, SliceSource, slice_key};
use crate::cache::hit::Hit;
use crate::cache::key;
use crate::cache::policy::{self, StrongValidator};

/// Slices behind the one that is read which are asked for in advance.
const AHEAD: u64 = 3;
/// Slices that are looked for when a response has to say whether it is stored.
const LOOKED_FOR: u64 = 64;

/// One slice being read.
enum Current {
    /// From a tier or a fill.
    Stored(Box<Hit>),
    /// From the source.
    Fetched(Fetch),
}

/// A slice that comes from the source.
struct Fetch {
    handle: SubrequestHandle,
    /// The head has come, and is that of the slice.
    begun: bool,
    /// Where in the slice `bytes` begin.
    at: u64,
    /// What came last.
    bytes: Bytes,
}

/// The content of a sliced response.
pub(crate) struct Slices {
    cache: &'static Cache,
    head: CacheKey,
    layout: Layout,
    validator: Option<StrongValidator>,
    source: Option<Arc<dyn SliceSource>>,
    current: Option<(u64, Current)>,
    /// Fetches that were begun in advance, in order.
    ahead: VecDeque<(u64, Fetch)>,
}

impl Slices {
    pub(crate) fn new(cache: &'static Cache, head: CacheKey, layout: Layout) -> Self {
        Self { cache, head, layout, validator: None, source: None, current: None, ahead: VecDeque::new() }
    }

    pub(super) fn begin_with(&mut self, index: u64, hit: Hit) {
        self.current = Some((index, Current::Stored(Box::new(hit))));
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// What is fetched from now on comes from `source` and has to have `validator`.
    pub(super) fn attach(&mut self, source: Arc<dyn SliceSource>, validator: Option<StrongValidator>) {
        (self.source, self.validator) = (Some(source), validator);
    }

    /// Bytes of the whole.
    pub(crate) fn len(&self) -> u64 {
        self.layout.complete
    }

    /// The next content at `at`, up to `end`.
    ///
    /// # Errors
    /// A slice cannot be had; nothing of another representation is ever given in its place.
    pub(crate) async fn read(&mut self, at: u64, end: u64) -> pingora::Result<Bytes> {
        let index = self.layout.index(at);
        let (start, slice_end) = self.layout.bounds(index);
        loop {
            if self.current.as_ref().is_none_or(|(open, _)| *open != index) {
                self.open(index).await?;
                self.read_ahead(index, end);
            }
            let Some((_, current)) = &mut self.current else { continue };
            let read = match current {
                Current::Stored(hit) => hit.read_at(at - start, end.min(slice_end) - start).await,
                Current::Fetched(fetch) => fetch.read(at - start, self.layout.length(index)).await,
            };
            match read {
                Ok(bytes) if !bytes.is_empty() => {
                    let most = usize::try_from(end.min(slice_end) - at).unwrap_or(usize::MAX);
                    return Ok(bytes.slice(..bytes.len().min(most)));
                }
                // Evicted while it was read, or the fill it was broke off.
                _ if matches!(current, Current::Stored(_)) => {
                    let fetch = self.fetch(index);
                    let Some(fetch) = fetch else { return missing(index) };
                    self.current = Some((index, Current::Fetched(fetch)));
                }
                Ok(_) => return missing(index),
                Err(error) => {
                    self.current = None;
                    return Err(error);
                }
            }
        }
    }

    /// See [`super::prepare`].
    pub(super) async fn prepare(&mut self, start: u64, end: u64) -> Readiness {
        let (start, end) = (start.min(self.len()), end.min(self.len()));
        if start >= end {
            return Readiness::Stored;
        }
        let (first, last) = (self.layout.index(start), self.layout.index(end - 1));
        if self.open(first).await.is_err() {
            return Readiness::Failed;
        }
        let Some((_, Current::Stored(_))) = &self.current else {
            if let Some((_, Current::Fetched(fetch))) = &mut self.current
                && fetch.begin(self.layout.length(first)).await.is_err()
            {
                self.current = None;
                return Readiness::Failed;
            }
            self.read_ahead(first, end);
            return Readiness::Fetching;
        };
        let last = last.min(first + LOOKED_FOR);
        if (first + 1..=last).all(|index| self.has(index)) { Readiness::Stored } else { Readiness::Fetching }
    }

    /// Gets a slice ready to be read.
    async fn open(&mut self, index: u64) -> pingora::Result<()> {
        if self.current.as_ref().is_some_and(|(open, _)| *open == index) {
            return Ok(());
        }
        // Without the head its slices are lost: it stays in memory for as long as they are read.
        let _ = self.cache.memory.get(&key::tier_key(&self.head));
        let key = slice_key(self.head.primary_key(), &self.layout, index);
        let found = Box::pin(self.cache.find(&key)).await.map(|(_, hit)| hit);
        while self.ahead.front().is_some_and(|(ahead, _)| *ahead < index) {
            self.ahead.pop_front();
        }
        let ahead = match self.ahead.front() {
            Some((ahead, _)) if *ahead == index => self.ahead.pop_front().map(|(_, fetch)| fetch),
            _ => None,
        };
        let current = match found.filter(|hit| hit.seekable_len() == Some(self.layout.length(index))) {
            Some(hit) => Current::Stored(Box::new(hit.uncounted())),
            None => match ahead.or_else(|| self.fetch(index)) {
                Some(fetch) => Current::Fetched(fetch),
                None => return missing(index),
            },
        };
        self.current = Some((index, current));
        Ok(())
    }

    /// Asks for the slices that will be read next, up to the position `end`.
    fn read_ahead(&mut self, index: u64, end: u64) {
        let begun = self.ahead.back().map_or(index, |(ahead, _)| *ahead);
        for next in index + 1..=index + AHEAD {
            if next <= begun || self.layout.bounds(next).0 >= end.min(self.layout.complete) || self.has(next) {
                continue;
            }
            if let Some(fetch) = self.fetch(next) {
                self.ahead.push_back((next, fetch));
            }
        }
    }

    fn has(&self, index: u64) -> bool {
        self.cache.has_slice(&slice_key(self.head.primary_key(), &self.layout, index))
    }

    fn fetch(&self, index: u64) -> Option<Fetch> {
        let (source, validator) = (self.source.as_ref()?, self.validator.clone()?);
        let order = Order { head: self.head.clone(), layout: self.layout, index, validator };
        Some(Fetch { handle: source.fetch(order), begun: false, at: 0, bytes: Bytes::new() })
    }
}

fn missing<T>(index: u64) -> pingora::Result<T> {
    Error::e_explain(ErrorType::ReadError, format!("slice {index} of a stored response is not to be had"))
}

impl Fetch {
    /// Waits for the head.
    async fn begin(&mut self, length: u64) -> pingora::Result<()> {
        while !self.begun {
            match self.handle.rx.recv().await {
                Some(HttpTask::Header(head, _)) if head.status.is_informational() => {}
                Some(HttpTask::Header(head, _)) => {
                    let whole = policy::content_length(&head.headers).ok().flatten() == Some(length);
                    if head.status != http::StatusCode::OK || !whole {
                        return Error::e_explain(ErrorType::ReadError, "the origin server did not give a slice");
                    }
                    self.begun = true;
                }
                Some(HttpTask::Failed(error)) => return Err(error),
                Some(_) => {}
                None => return Error::e_explain(ErrorType::ReadError, "a slice was not fetched"),
            }
        }
        Ok(())
    }

    /// The next bytes at `offset` of the slice.
    async fn read(&mut self, offset: u64, length: u64) -> pingora::Result<Bytes> {
        self.begin(length).await?;
        loop {
            if offset < self.at {
                return Error::e_explain(ErrorType::ReadError, "a slice on its way is read in order only");
            }
            // What lies before `offset` was not asked for, or was read from elsewhere.
            let skip = usize::try_from(offset - self.at).unwrap_or(usize::MAX);
            if skip < self.bytes.len() {
                return Ok(self.bytes.slice(skip..));
            }
            let next = self.at + self.bytes.len() as u64;
            match self.handle.rx.recv().await {
                Some(HttpTask::Body(Some(bytes), _)) if next + bytes.len() as u64 <= length => {
                    (self.at, self.bytes) = (next, bytes);
                }
                Some(HttpTask::Body(None, false)) => {}
                Some(HttpTask::Failed(error)) => return Err(error),
                _ => return Error::e_explain(ErrorType::ReadError, "a slice broke off"),
            }
        }
    }
}
