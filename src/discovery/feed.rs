//! How a provider hands over what it sees.

use super::Snapshot;
use std::sync::Arc;
use tokio::sync::watch;

/// What is known of a source now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The last good snapshot; it stays while the source is out of reach. `None`: there was none yet.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Why the source cannot be read now.
    pub trouble: Option<Arc<str>>,
}

/// The provider's end.
#[derive(Debug)]
pub struct Feed(watch::Sender<Report>);

/// The reader's end.
pub type Reports = watch::Receiver<Report>;

impl Feed {
    /// A feed and its reader.
    pub fn new() -> (Self, Reports) {
        let (sender, receiver) = watch::channel(Report::default());
        (Self(sender), receiver)
    }

    /// Hands over what the source holds now. One that equals the last wakes nobody.
    pub fn snapshot(&self, snapshot: Snapshot) {
        self.0.send_if_modified(|report| {
            let same = report.snapshot.as_deref() == Some(&snapshot);
            let recovered = report.trouble.take().is_some();
            if !same {
                report.snapshot = Some(Arc::new(snapshot));
            }
            recovered || !same
        });
    }

    /// The source cannot be read; what was read before still holds.
    pub fn lost(&self, reason: &str) {
        self.0.send_if_modified(|report| {
            let news = report.trouble.as_deref() != Some(reason);
            report.trouble = Some(reason.into());
            news
        });
    }

    /// Nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_snapshot_stays_while_the_source_is_lost() {
        let (feed, mut reports) = Feed::new();
        let snapshot = Snapshot::default();
        feed.snapshot(snapshot.clone());
        assert!(reports.has_changed().unwrap());
        reports.borrow_and_update();
        feed.snapshot(snapshot.clone());
        assert!(!reports.has_changed().unwrap(), "nothing new");
        feed.lost("gone");
        let report = reports.borrow_and_update().clone();
        assert_eq!((report.snapshot.as_deref(), report.trouble.as_deref()), (Some(&snapshot), Some("gone")));
        feed.snapshot(snapshot);
        assert!(reports.has_changed().unwrap());
        assert_eq!(reports.borrow_and_update().trouble, None);
    }
}
