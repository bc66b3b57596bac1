//! Sources of sites beside the configuration file: who watches them, and what they add.

use super::adapt::{Adaptation, Discovered, Surroundings};
use crate::config::{Config, Discovery as Settings, DiscoverySource};
use crate::discovery::nginx_proxy::{Files, Level, Note};
use crate::discovery::{Feed, Report, Reports, docker, remote};
use crate::metrics::Metrics;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks at the folders beside the proxy.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a start waits for the first look at the containers.
const FIRST_WITHIN: Duration = Duration::from_secs(3);

/// A source that is watched.
pub struct Discovery {
    settings: Settings,
    reports: Reports,
    report: Report,
    files: Files,
    adaptation: Adaptation,
    look: tokio::time::Interval,
    told: BTreeSet<Note>,
    task: JoinHandle<()>,
}

impl Discovery {
    /// Begins to watch, and waits a moment for the first snapshot. Needs the runtime.
    pub async fn start(settings: &Settings) -> Self {
        let (feed, mut reports) = Feed::new();
        let task = match settings.source.clone() {
            DiscoverySource::Docker(settings) => tokio::spawn(docker::watch(settings, feed)),
            DiscoverySource::Remote(settings) => tokio::spawn(remote::watch(settings, feed)),
        };
        let first = reports.wait_for(|report| report.snapshot.is_some() || report.trouble.is_some());
        let _ = tokio::time::timeout(FIRST_WITHIN, first).await;
        let report = reports.borrow_and_update().clone();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let files = read_files(settings);
        let (settings, adaptation, told) = (settings.clone(), Adaptation::default(), BTreeSet::new());
        Self { settings, reports, report, files, adaptation, look, told, task }
    }

    /// Ends when there is something new; can be dropped and called again.
    pub async fn changed(&mut self) {
        loop {
            tokio::select! {
                changed = self.reports.changed() => match changed {
                    Ok(()) => {
                        self.report = self.reports.borrow_and_update().clone();
                        return;
                    }
                    // The watcher is gone, which only happens at the end of the process.
                    Err(_) => std::future::pending().await,
                },
                _ = self.look.tick() => {
                    let files = read_files(&self.settings);
                    if files != self.files {
                        self.files = files;
                        return;
                    }
                }
            }
        }
    }

    /// What the source adds to `config`.
    pub fn discovered(&mut self, config: &Config) -> Discovered {
        let Some(snapshot) = &self.report.snapshot else { return Discovered::default() };
        let taken = config.sites.iter().flat_map(|site| &site.hosts).map(ToString::to_string).collect();
        let ports =
            |addresses: &[std::net::SocketAddr]| addresses.iter().map(std::net::SocketAddr::port).collect::<Vec<_>>();
        let (http, https) = (ports(&config.listen.http), ports(&config.listen.https));
        let Settings { source: _, folders, proxy } = &self.settings;
        let around = Surroundings { proxy, folders, http: &http, https: &https, taken: &taken };
        self.adaptation.adapt(snapshot, &self.files, &around)
    }

    /// Logs what was not said before, and sets the gauges.
    pub fn tell(&mut self, discovered: &Discovered, metrics: &Metrics) {
        let notes: BTreeSet<Note> = discovered.translation.notes.iter().cloned().collect();
        for note in notes.difference(&self.told) {
            let (host, container) = (note.host.as_deref().unwrap_or(""), note.container.as_deref().unwrap_or(""));
            match note.level {
                Level::Problem => tracing::error!(host, container, "{}", note.text),
                Level::Warning => tracing::warn!(host, container, "{}", note.text),
                Level::Info => tracing::info!(host, container, "{}", note.text),
            }
        }
        for level in [Level::Problem, Level::Warning, Level::Info] {
            let count = notes.iter().filter(|note| note.level == level).count();
            metrics.discovery_notes.with_label_values(&[level.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let containers = self.report.snapshot.as_ref().map_or(0, |snapshot| snapshot.containers.len());
        metrics.discovery_containers.set(i64::try_from(containers).unwrap_or(i64::MAX));
        metrics.discovery_up.set(i64::from(self.report.trouble.is_none() && self.report.snapshot.is_some()));
        metrics.discovery_updates.inc();
        self.told = notes;
    }

    /// Why the source cannot be read now.
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.report.trouble.clone()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The configuration with what was discovered in it: sites and origins move there.
pub fn effective(config: &Config, discovered: &mut Discovered) -> Config {
    let mut effective = config.clone();
    effective.sites.append(&mut discovered.sites);
    effective.origins.append(&mut discovered.origins);
    let default_host = &discovered.translation.fallback.default_host;
    if effective.unknown_hosts.default_host.is_none() {
        effective.unknown_hosts.default_host.clone_from(default_host);
    }
    let Some(discovery) = &config.discovery else { return effective };
    let fallback = &discovered.translation.fallback;
    effective.unknown_hosts.page = fallback.error_page.clone();
    effective.unknown_hosts.challenges = discovery.folders.challenges().filter(|_| fallback.challenges);
    effective
}

/// Names, and for `vhost.d` contents. A folder that is not there is an empty one.
fn read_files(settings: &Settings) -> Files {
    let names = |folder: Option<&Path>| -> BTreeSet<String> {
        let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with('.')).collect()
    };
    let folders = &settings.folders;
    let vhost = names(folders.vhost.as_deref()).into_iter().filter_map(|name| {
        let path = folders.vhost.as_ref()?.join(&name);
        Some((name, std::fs::read_to_string(path).ok()?))
    });
    let error_page = folders.html.as_ref().map(|folder| folder.join("errors/50x.html"));
    Files {
        error_page: error_page.and_then(|path| std::fs::read_to_string(path).ok()),
        challenges: folders.challenges().is_some_and(|folder| folder.is_dir()),
        certificates: names(folders.certificates.as_deref()),
        htpasswd: names(folders.htpasswd.as_deref()),
        vhost: vhost.collect(),
    }
}
