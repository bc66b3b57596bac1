//! Translating again and again: a host is looked at anew only when something that it is made from has changed.

use super::hosts::{self, Claim};
use super::keys::Settings;
use super::{Around, Claimed, Facts, Note, Notes, Site, Translation, fallback, host};
use crate::discovery::{Container, State};
use std::collections::HashMap;
use std::sync::Arc;

/// Remembers the last translation. What it gives is what [`super::translate`] gives; sites that are as they were are the
/// same ones.
#[derive(Default)]
pub struct Translator {
    /// What each of `hosts` was made from beside its containers.
    around: Around,
    /// By identifier.
    containers: HashMap<String, Arc<Known>>,
    hosts: HashMap<Box<str>, Remembered>,
}

/// A container, and what is made of it alone.
struct Known {
    container: Container,
    claims: Vec<Claim>,
    notes: Vec<Note>,
}

/// A host, and the containers that it was made from.
struct Remembered {
    asking: Vec<Arc<Known>>,
    site: Option<Arc<Site>>,
    notes: Vec<Note>,
}

impl Translator {
    /// Translates. The same facts give the same sites, whatever order the containers are listed in, and whatever was
    /// translated before.
    pub fn translate(&mut self, facts: &Facts<'_>) -> Translation {
        if !self.around.is_of(facts) {
            self.around = Around::of(facts);
            self.hosts.clear();
        }
        let mut notes = Notes::default();
        for remark in &facts.snapshot.remarks {
            match remark.problem {
                true => notes.problem(None, None, remark.text.clone()),
                false => notes.warn(None, None, remark.text.clone()),
            }
        }
        let known = self.known(facts);
        let mut asking: Vec<(&str, &Arc<Known>)> = Vec::with_capacity(known.len());
        for container in &known {
            notes.repeat(&container.notes);
            asking.extend(container.claims.iter().map(|claim| (claim.host.as_str(), container)));
        }
        // Stable: the containers of a host stay in their order, and each is there once.
        asking.sort_by_key(|(host, _)| *host);
        asking.dedup_by(|a, b| a.0 == b.0 && Arc::ptr_eq(a.1, b.1));
        let mut hosts = HashMap::with_capacity(self.hosts.len());
        let mut sites = Vec::with_capacity(self.hosts.len());
        for asking in asking.chunk_by(|a, b| a.0 == b.0) {
            let name = asking[0].0;
            let (name, host) = match self.hosts.remove_entry(name) {
                Some((name, host)) if host.is_of(asking) => (name, host),
                _ => (name.into(), Remembered::of(name, asking, &self.around)),
            };
            notes.repeat(&host.notes);
            sites.extend(host.site.clone());
            hosts.insert(name, host);
        }
        self.hosts = hosts;
        let fallback = fallback(facts, &sites, &mut notes);
        Translation { sites, fallback, notes: notes.into_sorted() }
    }

    /// The containers that count, the oldest first.
    fn known(&mut self, facts: &Facts<'_>) -> Vec<Arc<Known>> {
        let mut before = std::mem::take(&mut self.containers);
        self.containers.reserve(before.len());
        let mut all = Vec::with_capacity(facts.snapshot.containers.len());
        for container in facts.snapshot.containers.iter().filter(|c| c.state != State::Stopped) {
            let (id, known) = match before.remove_entry(&container.id) {
                Some((id, known)) if known.container == *container => (id, known),
                _ => (container.id.clone(), Arc::new(Known::of(container))),
            };
            all.push(Arc::clone(&known));
            self.containers.insert(id, known);
        }
        all.sort_by(|a, b| {
            let (a, b) = (&a.container, &b.container);
            (&a.created, &a.name, &a.id).cmp(&(&b.created, &b.name, &b.id))
        });
        all
    }
}

impl Known {
    fn of(container: &Container) -> Self {
        let mut notes = Notes::default();
        let settings = Settings::of(container);
        let name: Arc<str> = container.name.as_str().into();
        for unknown in &settings.unknown {
            notes.warn(None, Some(&name), format!("`{unknown}` is no setting that there is; look at its spelling"));
        }
        let claims = hosts::claims(&settings, &mut |text| notes.problem(None, Some(&name), text));
        Self { container: container.clone(), claims, notes: notes.into_sorted() }
    }
}

impl Remembered {
    fn of(name: &str, asking: &[(&str, &Arc<Known>)], around: &Around) -> Self {
        let settings: Vec<Settings<'_>> = asking.iter().map(|(_, known)| Settings::of(&known.container)).collect();
        let claims = asking.iter().zip(&settings).flat_map(|((_, known), settings)| {
            let own = known.claims.iter().filter(move |claim| claim.host == name);
            own.map(move |claim| Claimed { settings, claim: claim.clone() })
        });
        let mut notes = Notes::default();
        let site = host::site(name, &claims.collect::<Vec<_>>(), around, &mut notes);
        Self {
            asking: asking.iter().map(|(_, known)| Arc::clone(known)).collect(),
            site: site.map(Arc::new),
            notes: notes.into_sorted(),
        }
    }

    /// Whether these containers, in this order, are those that it was made from. One that has changed is another.
    fn is_of(&self, asking: &[(&str, &Arc<Known>)]) -> bool {
        self.asking.len() == asking.len() && self.asking.iter().zip(asking).all(|(own, (_, now))| Arc::ptr_eq(own, now))
    }
}
