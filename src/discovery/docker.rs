//! Watches a Docker Engine: its containers, then its events, then its containers again.
//!
//! The events are subscribed from before the list is read, so that nothing falls between the two; an event only says
//! whom to look at again, but for those that tell of an end, which count at once. A lost connection is made again with
//! growing pauses, and what was last seen holds meanwhile. Where the engine manages a swarm, its services are watched
//! beside the containers (`swarm.rs`).

mod connect;
pub(super) mod convert;
pub(super) mod raw;

pub use connect::{Endpoint, Settings, SettingsError, filters};

use super::feed::Feed;
use super::swarm::Swarm;
use super::{Container, Place, Snapshot, State};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::{EventsOptions, InspectContainerOptions, ListContainersOptions};
use convert::{Inspected, StopSignal};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// After an event, until the containers concerned are looked at: what comes together is one change.
const SETTLE: Duration = Duration::from_millis(10);
/// A steady stream of events is acted on this often.
const SETTLE_AT_MOST: Duration = Duration::from_millis(50);
/// A look at everything, for events that were lost on the way.
const RESYNC: Duration = Duration::from_secs(60);
/// Containers that are looked at together.
const INSPECTIONS: usize = 16;
/// Pauses before another try to connect.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);
/// A container that was told to stop and runs on is taken for running again after this, or after the time that it has
/// for its end if that is longer.
const STOPPING_FOR: Duration = Duration::from_secs(15);
/// An engine that begins no answer within this is lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Watches until nobody reads `feed` any more.
pub async fn watch(settings: Settings, feed: Feed) {
    let own = own_container();
    let place = if own.is_some() { Place::Elsewhere } else { Place::Host };
    let swarm = Swarm::new(raw::Raw::new(settings.endpoint.clone()), &settings.filters);
    let mut watcher = Watcher { settings, own, known: HashMap::new(), place, swarm, last: None };
    let mut pause = *PAUSES.start();
    while !feed.is_closed() {
        let begun = Instant::now();
        let Err(error) = watcher.connection(&feed).await;
        let reason = format!("the engine at {} cannot be read: {error}", watcher.settings.endpoint);
        tracing::warn!(%reason, "containers are routed as last seen");
        feed.lost(&reason);
        if begun.elapsed() > *PAUSES.end() {
            pause = *PAUSES.start();
        }
        sleep(pause).await;
        pause = (pause * 2).min(*PAUSES.end());
    }
}

/// The container that this process runs in, if it does.
pub(super) fn own_container() -> Option<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    convert::own_id(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

struct Watcher {
    settings: Settings,
    own: Option<String>,
    known: HashMap<String, Known>,
    place: Place,
    swarm: Swarm,
    /// The time of the last event, in the engine's own nanoseconds.
    last: Option<i64>,
}

struct Known {
    container: Container,
    signal: StopSignal,
    /// Its service is listed in its place where there is a list of them.
    task: bool,
    /// It was told to stop; until then that is believed.
    stopping: Option<Instant>,
}

/// Whom an event concerns, and what it says of them.
struct Change {
    id: String,
    end: Option<State>,
    signal: Option<String>,
    begins: bool,
    /// It concerns a task of a swarm.
    task: bool,
}

/// What the events ask for.
enum Due {
    /// To look at the containers touched.
    Touched,
    /// To look at the services of the swarm.
    Services,
    /// To look at everything, as is done now and then.
    Everything,
}

impl Watcher {
    /// One connection, to its end.
    async fn connection(&mut self, feed: &Feed) -> Result<std::convert::Infallible, Error> {
        let docker = self.settings.endpoint.client()?;
        let docker = within(docker.negotiate_version()).await?;
        let since = self.last.map(|nanos| format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000));
        let mut events = docker.events(Some(EventsOptions { since, ..EventsOptions::default() })).boxed();
        // The request for events goes out with the first poll, before the list is asked for.
        let mut early = Vec::new();
        {
            let mut looked = std::pin::pin!(self.everything(&docker));
            loop {
                tokio::select! {
                    biased;
                    event = events.next() => early.push(event.ok_or_else(ended)??),
                    looked = &mut looked => break looked?,
                }
            }
        }
        let mut touched: BTreeSet<String> = early.iter().filter_map(change).map(|change| change.id).collect();
        if touched.is_empty() {
            self.emit(feed);
        }
        tracing::info!(endpoint = %self.settings.endpoint, containers = self.known.len(), "watching containers");
        // The engine may have read the list before it took note of the request for events: once more, soon.
        let mut resync = Instant::now() + Duration::from_secs(1);
        loop {
            match self.collect(&mut events, &mut touched, resync, feed).await? {
                Due::Touched => {
                    self.inspect(&docker, &touched).await?;
                    touched.clear();
                }
                Due::Services => self.swarm.refresh().await,
                Due::Everything => {
                    self.everything(&docker).await?;
                    resync = Instant::now() + RESYNC;
                }
            }
            self.emit(feed);
        }
    }

    async fn everything(&mut self, docker: &Docker) -> Result<(), Error> {
        self.swarm.look().await;
        self.known = self.list(docker).await?;
        self.locate(docker).await
    }

    /// Reads events until something has to be looked at.
    async fn collect<S>(
        &mut self,
        events: &mut S,
        touched: &mut BTreeSet<String>,
        resync: Instant,
        feed: &Feed,
    ) -> Result<Due, Error>
    where
        S: stream::Stream<Item = Result<EventMessage, Error>> + Unpin,
    {
        let mut latest = (!touched.is_empty()).then(Instant::now);
        let mut quiet = Instant::now();
        loop {
            let settles = latest.map_or(resync, |latest: Instant| latest.min(quiet));
            let recheck = self.known.values().filter_map(|known| known.stopping).min().unwrap_or(resync);
            let services = self.swarm.due();
            tokio::select! {
                event = events.next() => {
                    let event = event.ok_or_else(ended)??;
                    self.last = event.time_nano.or(self.last);
                    if matches!(event.typ, Some(EventMessageTypeEnum::SERVICE | EventMessageTypeEnum::NODE)) {
                        self.swarm.services_changed();
                    }
                    let Some(change) = change(&event) else { continue };
                    if self.note(&change) {
                        self.emit(feed);
                    }
                    if change.task {
                        self.swarm.stir();
                    }
                    touched.insert(change.id);
                    quiet = Instant::now() + SETTLE;
                    latest.get_or_insert(Instant::now() + SETTLE_AT_MOST);
                }
                () = sleep_until(settles.min(recheck).min(services.unwrap_or(resync))) => {
                    let now = Instant::now();
                    if services.is_some_and(|due| due <= now) && settles > now {
                        return Ok(Due::Services);
                    }
                    for (id, known) in &mut self.known {
                        if known.stopping.is_some_and(|until| until <= now) {
                            known.stopping = None;
                            touched.insert(id.clone());
                        }
                    }
                    return Ok(if touched.is_empty() { Due::Everything } else { Due::Touched });
                }
            }
        }
    }

    /// Takes an event's word for an end: requests stop going there before the engine is asked. True if that is news.
    fn note(&mut self, change: &Change) -> bool {
        let Some(known) = self.known.get_mut(&change.id) else { return false };
        if change.begins {
            known.stopping = None;
        }
        let told = change.signal.as_ref().is_some_and(|signal| known.signal.ends_by(signal));
        if told {
            known.stopping = Some(Instant::now() + known.signal.grace().max(STOPPING_FOR));
        }
        let end = change.end.or(told.then_some(State::Stopping));
        let news = end.filter(|end| *end != known.container.state && known.container.state != State::Stopped);
        if let Some(end) = news {
            known.container.state = end;
        }
        news.is_some()
    }

    fn emit(&self, feed: &Feed) {
        let (mut containers, remarks) = self.swarm.containers(|id| self.known.get(id).map(|known| &known.container));
        // What runs for a service is among the replicas, or left out there for a reason.
        let own = self.known.values().filter(|known| !(known.task && self.swarm.is_manager()));
        containers.extend(own.map(|known| known.container.clone()));
        self.swarm.mark_overlays(&mut containers);
        containers.sort_by(|a, b| a.id.cmp(&b.id));
        feed.snapshot(Snapshot { containers, place: self.place.clone(), remarks });
    }

    /// All containers that pass the filters.
    async fn list(&self, docker: &Docker) -> Result<HashMap<String, Known>, Error> {
        let ids = self.passing(docker, None).await?;
        self.look(docker, ids).await
    }

    /// Looks again at those named.
    async fn inspect(&mut self, docker: &Docker, ids: &BTreeSet<String>) -> Result<(), Error> {
        let passing = self.passing(docker, Some(ids)).await?;
        let seen = self.look(docker, passing).await?;
        ids.iter().for_each(|id| drop(self.known.remove(id)));
        self.known.extend(seen);
        if self.own.as_ref().is_some_and(|own| ids.contains(own)) {
            self.locate(docker).await?;
        }
        Ok(())
    }

    /// Those that pass the filters, and on a manager whatever runs for a service: there the services pass or do not.
    async fn passing(&self, docker: &Docker, among: Option<&BTreeSet<String>>) -> Result<Vec<String>, Error> {
        let tasks = [("label".to_owned(), vec!["com.docker.swarm.task.id".to_owned()])].into();
        let mut wanted = vec![self.settings.filters.clone()];
        wanted.extend(self.swarm.is_manager().then_some(tasks));
        let mut passing = BTreeSet::new();
        for mut filters in wanted {
            if let Some(ids) = among {
                filters.insert("id".to_owned(), ids.iter().cloned().collect());
            }
            let options = ListContainersOptions { filters: Some(filters), ..ListContainersOptions::default() };
            let listed = within(docker.list_containers(Some(options))).await?;
            passing.extend(listed.into_iter().filter_map(|summary| summary.id));
        }
        Ok(passing.into_iter().collect())
    }

    async fn look(&self, docker: &Docker, ids: Vec<String>) -> Result<HashMap<String, Known>, Error> {
        let look = |id: String| async move {
            match within(docker.inspect_container(&id, None::<InspectContainerOptions>)).await {
                Ok(told) => Ok(convert::container(told)),
                // Gone between the two questions.
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let seen: Vec<_> = stream::iter(ids).map(look).buffer_unordered(INSPECTIONS).try_collect().await?;
        let known = seen.into_iter().flatten().map(|Inspected { mut container, signal, task }| {
            let stopping = self.known.get(&container.id).and_then(|known| known.stopping);
            if stopping.is_some() && container.state == State::Running {
                container.state = State::Stopping;
            }
            (container.id.clone(), Known { container, signal, task, stopping })
        });
        Ok(known.collect())
    }

    /// Finds out where this process stands among the networks.
    async fn locate(&mut self, docker: &Docker) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        let told = match within(docker.inspect_container(own, None::<InspectContainerOptions>)).await {
            Ok(told) => told,
            // Another engine's container: every address that can be reached is taken for one.
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
                self.place = Place::Elsewhere;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.place = match convert::container(told) {
            Some(Inspected { container, .. }) if !container.host_network => Place::Container(container.networks),
            _ => Place::Host,
        };
        Ok(())
    }
}

fn ended() -> Error {
    Error::IOError { err: std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the stream of events ended") }
}

/// An answer that begins in time.
pub(super) async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(ANSWER_WITHIN, answer).await.unwrap_or(Err(Error::RequestTimeoutError))
}

/// What of an event concerns routing.
fn change(event: &EventMessage) -> Option<Change> {
    let actor = event.actor.as_ref()?;
    let attribute = |name: &str| actor.attributes.as_ref().and_then(|all| all.get(name)).cloned();
    let action = event.action.as_deref()?;
    match event.typ {
        Some(EventMessageTypeEnum::CONTAINER) => {
            let end = match action {
                "die" | "stop" | "destroy" => Some(State::Stopped),
                "pause" => Some(State::Paused),
                _ => None,
            };
            let concerns = end.is_some()
                || matches!(action, "start" | "restart" | "unpause" | "kill" | "rename" | "update")
                || action.starts_with("health_status");
            let signal = if action == "kill" { attribute("signal") } else { None };
            let begins = matches!(action, "start" | "restart");
            let task = attribute("com.docker.swarm.task.id").is_some();
            concerns.then(|| Some(Change { id: actor.id.clone()?, end, signal, begins, task })).flatten()
        }
        Some(EventMessageTypeEnum::NETWORK) if matches!(action, "connect" | "disconnect") => {
            Some(Change { id: attribute("container")?, end: None, signal: None, begins: false, task: false })
        }
        _ => None,
    }
}
