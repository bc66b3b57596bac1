//! A swarm's services beside the containers of one machine: what a manager knows of them, asked through its engine.
//!
//! Only managers list services and tasks. Events tell when a service or a node changes, but nothing of a task on another
//! node: so tasks are asked for once a second, ten times a second while something changes, and never for more than a
//! twentieth of the time. Of tasks on this machine the engine's own events say more, and sooner; these count.

mod convert;
mod model;

use super::docker::raw::{Raw, RawError};
use super::{Container, Remark};
use convert::Seen;
use model::{Image, Info, Node, Service, Task};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

pub(super) use convert::is_task;

/// Between two looks at the tasks while nothing seems to happen.
const POLL: Duration = Duration::from_secs(1);
/// The same for [`STIRRED_FOR`] after something happened.
const POLL_STIRRED: Duration = Duration::from_millis(100);
const STIRRED_FOR: Duration = Duration::from_secs(10);
/// A look is followed by a pause of so many times the time it took.
const PAUSE_TIMES: u32 = 20;
/// What events announce together is looked at together.
const SETTLE: Duration = Duration::from_millis(10);

/// What this engine is in a swarm, and what it knows of it.
pub(super) struct Swarm {
    raw: Raw,
    role: Role,
    seen: Seen,
    /// Why services cannot be read now; what was seen last holds.
    trouble: Option<String>,
    /// Services or tasks that are not understood.
    odd: usize,
    stirred: Instant,
    /// When the tasks are looked at again.
    tasks_due: Instant,
    /// When services and nodes are, because an event told of them or the last look failed.
    services_due: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// No member.
    Alone,
    /// A member that may not list services.
    Worker,
    Manager,
}

impl Swarm {
    /// Of the engine that `raw` asks; `labels` are the filters that services have to pass as well.
    pub(super) fn new(raw: Raw, filters: &HashMap<String, Vec<String>>) -> Self {
        let now = Instant::now();
        Self {
            raw,
            role: Role::Alone,
            seen: Seen { labels: filters.get("label").cloned().unwrap_or_default(), ..Seen::default() },
            trouble: None,
            odd: 0,
            stirred: now,
            tasks_due: now,
            services_due: None,
        }
    }

    /// Whether services are listed here.
    pub(super) fn is_manager(&self) -> bool {
        self.role == Role::Manager
    }

    /// When [`refresh`](Self::refresh) is wanted next.
    pub(super) fn due(&self) -> Option<Instant> {
        let tasks = self.is_manager().then_some(self.tasks_due);
        [tasks, self.services_due].into_iter().flatten().min()
    }

    /// A task of this machine has changed: others may as well.
    pub(super) fn stir(&mut self) {
        if self.is_manager() {
            let now = Instant::now();
            self.stirred = now;
            self.tasks_due = self.tasks_due.min(now + SETTLE);
        }
    }

    /// A service or a node has changed.
    pub(super) fn services_changed(&mut self) {
        self.stir();
        self.services_due.get_or_insert(Instant::now() + SETTLE);
    }

    /// Looks at everything. What cannot be read stays as it was seen last, and is told.
    pub(super) async fn look(&mut self) {
        let begun = Instant::now();
        self.services_due = None;
        match self.try_look().await {
            Ok(()) => self.trouble = None,
            Err(error) => {
                self.trouble = Some(error.to_string());
                self.services_due = Some(Instant::now() + POLL);
            }
        }
        self.plan(begun);
    }

    /// Looks at what is due.
    pub(super) async fn refresh(&mut self) {
        if self.services_due.is_some_and(|due| due <= Instant::now()) {
            return self.look().await;
        }
        let begun = Instant::now();
        if let Err(error) = self.look_at_tasks().await {
            self.trouble = Some(error.to_string());
            self.services_due = Some(Instant::now() + POLL);
        }
        self.plan(begun);
    }

    fn plan(&mut self, begun: Instant) {
        let now = Instant::now();
        let pause = if now.duration_since(self.stirred) < STIRRED_FOR { POLL_STIRRED } else { POLL };
        self.tasks_due = now + pause.max(now.duration_since(begun) * PAUSE_TIMES);
    }

    async fn try_look(&mut self) -> Result<(), RawError> {
        let info: Info = match self.raw.get("/info").await {
            // Someone in between lets only some questions through: containers are what is left.
            Err(RawError::Refused(..)) => Info::default(),
            told => told?,
        };
        let role = match (info.swarm.local_node_state.as_str(), info.swarm.control_available) {
            ("active", true) => Role::Manager,
            ("active" | "pending" | "locked" | "error", _) => Role::Worker,
            _ => Role::Alone,
        };
        if role != Role::Manager {
            self.turn(role);
            self.seen = Seen { labels: std::mem::take(&mut self.seen.labels), ..Seen::default() };
            return Ok(());
        }
        let (services, odd) = model::list::<Service>(self.raw.get("/services").await?);
        let (nodes, _) = model::list::<Node>(self.raw.get("/nodes").await?);
        let services = services.into_iter().filter(|service| self.seen.passes(service)).collect::<Vec<_>>();
        let images = self.images(&services).await?;
        self.odd = odd;
        self.seen.own_node = info.swarm.node;
        self.seen.nodes = nodes.into_iter().map(|node| (node.id, node.description.hostname)).collect();
        self.seen.images = images;
        self.seen.services = services;
        self.look_at_tasks().await?;
        // Not before all of it is known: the containers of tasks are left to the list of tasks from now on.
        self.turn(role);
        Ok(())
    }

    fn turn(&mut self, role: Role) {
        if role != self.role {
            tracing::info!(?role, "the engine's place in a swarm");
        }
        self.role = role;
    }

    /// Those that are to run. One that is to end is left alone from that moment, before its process hears of it.
    async fn look_at_tasks(&mut self) -> Result<(), RawError> {
        // {"desired-state":["running"]}, percent-encoded.
        let values: Vec<Value> = self.raw.get("/tasks?filters=%7B%22desired-state%22%3A%5B%22running%22%5D%7D").await?;
        let (tasks, odd) = model::list::<Task>(values);
        if odd > 0 {
            tracing::debug!(odd, "tasks that are not understood");
        }
        if tasks != self.seen.tasks {
            self.stirred = Instant::now();
            self.seen.tasks = tasks;
        }
        Ok(())
    }

    /// What the images of services bring along, where this machine has them. One that is named by its digest is always
    /// the same.
    async fn images(&mut self, services: &[Service]) -> Result<HashMap<String, Image>, RawError> {
        let names: BTreeSet<&str> =
            services.iter().map(|service| service.spec.task_template.container_spec.image.as_str()).collect();
        let mut images = HashMap::new();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
        for name in names.into_iter().filter(|name| !name.is_empty() && name.bytes().all(plain)) {
            if let Some(image) = self.seen.images.get(name).filter(|_| name.contains('@')) {
                images.insert(name.to_owned(), image.clone());
                continue;
            }
            match self.raw.get::<Image>(&format!("/images/{name}/json")).await {
                Ok(image) => drop(images.insert(name.to_owned(), image)),
                // Another machine has it, or nobody may ask.
                Err(RawError::Refused(..) | RawError::Nonsense(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(images)
    }

    /// The tasks that run as containers; `local` knows the containers of this machine by identifier.
    pub(super) fn containers<'a>(
        &self,
        local: impl Fn(&str) -> Option<&'a Container>,
    ) -> (Vec<Container>, Vec<Remark>) {
        let (containers, mut remarks) = match self.role {
            Role::Manager => convert::containers(&self.seen, local),
            Role::Alone | Role::Worker => (Vec::new(), Vec::new()),
        };
        if let Some(trouble) = &self.trouble {
            let text = format!("the swarm's services cannot be read and are routed as last seen: {trouble}");
            remarks.push(Remark { problem: true, text });
        }
        if self.odd > 0 {
            let text = format!("{} of the swarm's services are not understood and left out", self.odd);
            remarks.push(Remark { problem: true, text });
        }
        if self.role == Role::Worker {
            let text =
                "the engine is a worker of a swarm, and only managers list services: what runs on this machine is \
                        routed, by the containers' own variables and labels; let discovery ask a manager"
                    .to_owned();
            remarks.push(Remark { problem: false, text });
        }
        (containers, remarks)
    }

    /// Marks the networks that span the swarm.
    pub(super) fn mark_overlays(&self, containers: &mut [Container]) {
        let overlays = self.seen.overlays();
        let networks = containers.iter_mut().flat_map(|container| &mut container.networks);
        networks.filter(|network| overlays.contains(network.id.as_str())).for_each(|network| network.overlay = true);
    }
}
