//! The parts that a reload may replace: origins, certificates, routes.

use crate::clock::Clock;
use crate::config::{Config, Site};
use crate::dns;
use crate::metrics::Metrics;
use crate::origin::{self, Origin, Resolver};
use crate::proxy::Shadow;
use crate::proxy::listen::TlsSlot;
use crate::proxy::traffic::{Plan, SiteTraffic};
use crate::proxy::{Handshakes, Kept, NodeRules, Plane, RouteRule, SiteCertificates, SiteHandles, SiteNames};
use crate::route::settings::SiteSettings;
use crate::route::traffic::{Action, ForwardCache, Group, Rule};
use crate::route::{PreparedSite, RouteTable, SiteSpec};
use crate::tls::{self, CertStore};
use std::collections::{BTreeMap, HashMap, btree_map};
use std::iter::Peekable;
use std::sync::Arc;

/// Why the parts do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// An origin cannot be built.
    #[error("origin `{name}`: {source}")]
    Origin {
        /// Its name.
        name: Arc<str>,
        /// Why.
        source: origin::BuildError,
    },
    /// The resolver cannot be set up.
    #[error("name resolution: {0}")]
    Resolver(#[from] origin::resolve::ResolverError),
    /// The certificate folder cannot be read.
    #[error("{0}")]
    Certificates(#[from] tls::OpenError),
    /// The certificate folder cannot be watched.
    #[error("{0}")]
    Watch(#[from] tls::WatchError),
    /// rustls refuses the settings.
    #[error("{0}")]
    Tls(#[from] tls::ConfigError),
    /// Routes contradict each other.
    #[error("{}", .0.join("\n"))]
    Routes(Vec<String>),
    /// Settings that only a new process can take up.
    #[error("{} can only be changed by a restart; nothing of the new configuration was applied", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
}

/// Origins by name, certificates and resolver.
pub struct Parts {
    resolver: Arc<Resolver>,
    kept: Arc<Kept>,
    origins: BTreeMap<Arc<str>, Arc<Origin>>,
    tls: Option<Tls>,
    /// In the order of the configuration.
    sites: Vec<Arc<BuiltSite>>,
}

/// Origins asked for in the order of their names: one way through the map for all of them.
struct InOrder<'p>(Option<Peekable<btree_map::Iter<'p, Arc<str>, Arc<Origin>>>>);

impl<'p> InOrder<'p> {
    fn of(parts: Option<&'p Parts>) -> Self {
        Self(parts.map(|parts| parts.origins.iter().peekable()))
    }

    fn find(&mut self, name: &str) -> Option<&'p Arc<Origin>> {
        let known = self.0.as_mut()?;
        while known.next_if(|(known, _)| ***known < *name).is_some() {}
        known.next_if(|(known, _)| ***known == *name).map(|(_, origin)| origin)
    }
}

/// A site's routes, and everything that they were made from: while all of it stays, so do they.
struct BuiltSite {
    of: Arc<Site>,
    server_timing: bool,
    /// Those that its routes and rules name, as far as there are such.
    origins: Vec<(Arc<str>, Option<Arc<Origin>>)>,
    ready: Arc<PreparedSite<Arc<RouteRule>>>,
}

struct Tls {
    settings: tls::Settings,
    slot: Arc<TlsSlot>,
    handshakes: Arc<Handshakes>,
    certificates: Arc<SiteCertificates>,
    _watch: Arc<tls::Watch>,
}

impl Parts {
    /// Builds what `config` asks for. What is as it was in `before` is taken over: origins keep the health of their
    /// servers, the certificates stay loaded.
    ///
    /// # Errors
    /// Any part that cannot be built; `before` is untouched.
    pub fn build(
        config: &Config,
        before: Option<&Parts>,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Result<Self, PartsError> {
        let resolver = match before {
            Some(before) => Arc::clone(&before.resolver),
            None => Resolver::new(clock.clone())?,
        };
        let kept = before.map(|before| Arc::clone(&before.kept)).unwrap_or_default();
        let mut parts = Self { resolver, kept, origins: BTreeMap::new(), tls: None, sites: Vec::new() };
        let built = parts.fill(config, before, clock, metrics);
        if let (Err(_), Some(before)) = (&built, before) {
            parts.discard(before);
        }
        built.map(|()| parts)
    }

    fn fill(
        &mut self,
        config: &Config,
        before: Option<&Parts>,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Result<(), PartsError> {
        let mut built = Vec::with_capacity(config.origins.len());
        let mut known = InOrder::of(before);
        let outcome: Result<(), PartsError> = config.origins.iter().try_for_each(|(name, settings)| {
            let origin = match known.find(name) {
                Some(origin) if *origin.settings() == **settings => Arc::clone(origin),
                known => {
                    let known = known.map(|origin| &**origin);
                    let resolver = Arc::clone(&self.resolver);
                    Origin::build_after(known, name, settings, (resolver, clock.clone()), metrics)
                        .map_err(|source| PartsError::Origin { name: Arc::clone(name), source })?
                }
            };
            built.push((Arc::clone(name), origin));
            Ok(())
        });
        // Also if there is one that cannot be built: the others have metrics that have to go.
        self.origins = built.into_iter().collect();
        outcome?;
        self.tls = config.tls.as_ref().map(|s| Tls::build(s, before.and_then(|b| b.tls.as_ref()))).transpose()?;
        self.sites = self.sites(config, before, metrics);
        Ok(())
    }

    /// Forgets what was made for these parts, which do not come into force: the metrics of servers that those in force do
    /// not have.
    pub fn discard(&self, in_force: &Parts) {
        for (name, origin) in &self.origins {
            match in_force.origins.get(name) {
                Some(kept) if Arc::ptr_eq(kept, origin) => {}
                kept => {
                    origin.retire(kept.map(|kept| &**kept));
                    // What they tell of servers they share is as the one in force has it.
                    kept.into_iter().for_each(|kept| kept.show());
                }
            }
        }
    }

    /// The origins by name.
    pub fn origins(&self) -> Vec<Arc<Origin>> {
        self.origins.values().cloned().collect()
    }

    /// The routing table over these origins.
    ///
    /// # Errors
    /// Contradicting routes, all of them.
    pub fn plane(&self, config: &Config, metrics: &Metrics) -> Result<Plane, PartsError> {
        let table = RouteTable::of(self.sites.iter().map(|site| Arc::clone(&site.ready)).collect())
            .map_err(|problems| PartsError::Routes(problems.iter().map(ToString::to_string).collect()))?;
        let names = |certificates| {
            let settings = self.sites.iter().map(|site| &site.of.settings);
            let names = SiteNames::new(Arc::clone(table.hosts()), settings, &config.unknown_hosts);
            (certificates, Arc::new(names))
        };
        let node = NodeRules {
            downstream: config.downstream.clone(),
            unknown_hosts: config.unknown_hosts.clone(),
            tls: self.tls.as_ref().map(|tls| names(Arc::clone(&tls.certificates))),
        };
        Ok(Plane::new(table, metrics).with_node(node).with_debug_token(config.debug.token.clone()))
    }

    /// The slot that HTTPS listeners take their `ServerConfig` from.
    pub fn tls_slot(&self) -> Option<Arc<TlsSlot>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.slot))
    }

    /// Begins what goes on in the background: the checks of origin servers.
    pub fn begin(&self) {
        self.origins.values().for_each(|origin| origin.begin());
    }

    /// Puts the new TLS settings where the listeners of `before` look for them, and ends what `before` did in the
    /// background for origins that are no more.
    pub fn activate(&self, before: &Parts) {
        let mut now = InOrder::of(Some(self));
        for (name, old) in &before.origins {
            match now.find(name) {
                Some(new) if Arc::ptr_eq(new, old) => {}
                new => old.retire(new.map(|new| &**new)),
            }
        }
        // What stays has begun.
        let mut begun = InOrder::of(Some(before));
        for (name, new) in &self.origins {
            if !begun.find(name).is_some_and(|old| Arc::ptr_eq(old, new)) {
                new.begin();
            }
        }
        if let (Some(new), Some(old)) = (&self.tls, &before.tls)
            && !Arc::ptr_eq(&new.handshakes, &old.handshakes)
        {
            new.slot.store(Arc::clone(&new.handshakes));
        }
    }

    /// Every site's routes; those of `before` where nothing that they are made from has changed.
    fn sites(&self, config: &Config, before: Option<&Parts>, metrics: &Metrics) -> Vec<Arc<BuiltSite>> {
        // By address: each holds the site that it was made from.
        let known: HashMap<usize, &Arc<BuiltSite>> =
            before.into_iter().flat_map(|b| &b.sites).map(|built| (Arc::as_ptr(&built.of).addr(), built)).collect();
        let site = |site: &Arc<Site>| {
            let server_timing = site.server_timing.unwrap_or(config.debug.server_timing);
            match known.get(&Arc::as_ptr(site).addr()) {
                Some(built) if built.server_timing == server_timing && self.has(&built.origins) => Arc::clone(built),
                _ => Arc::new(self.site(site, server_timing, metrics)),
            }
        };
        config.sites.iter().map(site).collect()
    }

    /// Whether these names still lead to these origins.
    fn has(&self, origins: &[(Arc<str>, Option<Arc<Origin>>)]) -> bool {
        origins.iter().all(|(name, before)| match (self.origins.get(name), before) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (None, None) => true,
            _ => false,
        })
    }

    fn site(&self, site: &Arc<Site>, server_timing: bool, metrics: &Metrics) -> BuiltSite {
        let handles = Arc::new(SiteHandles::new(Arc::clone(&site.name), metrics));
        let settings = Arc::new(site.settings.clone());
        let traffic = self.traffic(site, &settings, metrics);
        let routes = site.routes.iter().filter_map(|route| {
            // Configuration has checked that the origin exists.
            let origin = self.origins.get(&route.origin)?;
            let access = Arc::new(self.kept.access(&site.name, &route.path.to_string(), &route.settings));
            let rule = |origin: &Arc<Origin>| RouteRule {
                site: Arc::clone(&handles),
                source: Arc::clone(&route.source),
                path: route.path.clone(),
                origin: Arc::clone(origin),
                cache: route.cache,
                rules: route.rules.clone(),
                headers: route.headers.clone(),
                security: route.security.clone(),
                cors: route.cors.clone(),
                compression: route.compression.clone(),
                site_settings: Arc::clone(&settings),
                settings: route.settings.clone(),
                access: Arc::clone(&access),
                traffic: traffic.clone(),
                variants: Vec::new(),
                key_tag: None,
                max_request_body: route.max_request_body,
                server_timing,
            };
            let variants = settings.rules.iter().map(|own| self.variants(own, &rule)).collect();
            Some((route.path.clone(), Arc::new(RouteRule { variants, ..rule(origin) })))
        });
        let spec = SiteSpec { hosts: site.hosts.clone(), routes: routes.collect() };
        let named = origins_of(site).map(|name| (Arc::clone(name), self.origins.get(name).cloned())).collect();
        BuiltSite { of: Arc::clone(site), server_timing, origins: named, ready: Arc::new(spec.into()) }
    }
}

impl Parts {
    /// What the site's rules have while the node runs; `None`: it has no rules.
    fn traffic(&self, site: &Site, settings: &Arc<SiteSettings>, metrics: &Metrics) -> Option<Arc<SiteTraffic>> {
        let plan = |rule: &Rule| {
            let live = match &rule.action {
                Some(Action::Forward(forward)) => Some(self.kept.groups(&site.name, &rule.name, forward, metrics)),
                _ => None,
            };
            let shadow = rule.mirror.as_ref().and_then(|mirror| {
                let origin = self.origins.get(&mirror.origin)?;
                Some(Arc::new(Shadow::new(mirror, Arc::clone(origin), &site.name, &rule.name, metrics)))
            });
            Plan { live, shadow }
        };
        let plans: Vec<Plan> = settings.rules.iter().map(plan).collect();
        (!plans.is_empty()).then(|| Arc::new(SiteTraffic::new(Arc::clone(settings), plans)))
    }

    /// The route before each group of a rule that forwards.
    fn variants(&self, own: &Rule, rule: &dyn Fn(&Arc<Origin>) -> RouteRule) -> Vec<Arc<RouteRule>> {
        let Some(Action::Forward(forward)) = &own.action else { return Vec::new() };
        let variant = |group: &Group| {
            let origin = self.origins.get(&group.origin)?;
            let mut variant = rule(origin);
            let in_key = own.when.are_in_the_key(variant.whole_query_counts());
            match forward.cache {
                ForwardCache::Auto if in_key => {}
                ForwardCache::Shared => {}
                ForwardCache::Group => variant.key_tag = Some(format!("{}/{}", own.name, group.name).into()),
                ForwardCache::Auto | ForwardCache::Off => variant.cache = false,
            }
            Some(Arc::new(variant))
        };
        forward.groups.iter().filter_map(variant).collect()
    }
}

/// The origins that a site's routes and rules name.
fn origins_of(site: &Site) -> impl Iterator<Item = &Arc<str>> {
    let groups = site.settings.rules.iter().filter_map(|rule| match &rule.action {
        Some(Action::Forward(forward)) => Some(forward.groups.iter().map(|group| &group.origin)),
        _ => None,
    });
    let mirrors = site.settings.rules.iter().filter_map(|rule| rule.mirror.as_ref()).map(|mirror| &mirror.origin);
    site.routes.iter().map(|route| &route.origin).chain(groups.flatten()).chain(mirrors)
}

impl Tls {
    fn build(settings: &tls::Settings, before: Option<&Tls>) -> Result<Self, PartsError> {
        if let Some(before) = before.filter(|b| b.settings == *settings) {
            return Ok(Self {
                settings: settings.clone(),
                slot: Arc::clone(&before.slot),
                handshakes: Arc::clone(&before.handshakes),
                certificates: Arc::clone(&before.certificates),
                _watch: Arc::clone(&before._watch),
            });
        }
        let (store, problems) = CertStore::open(&settings.certificates)?;
        for problem in problems {
            tracing::warn!("{problem}");
        }
        let watch = Arc::new(store.watch()?);
        let certificates = SiteCertificates::new(store);
        let handshakes = Arc::new(Handshakes::of_sites(settings.min_version, Arc::clone(&certificates))?);
        // The listeners know the first slot; a reload only changes what it holds.
        let slot = before.map_or_else(|| Arc::new(TlsSlot::of(Arc::clone(&handshakes))), |b| Arc::clone(&b.slot));
        Ok(Self { settings: settings.clone(), slot, handshakes, certificates, _watch: watch })
    }
}

fn server(dns: &Option<dns::settings::Settings>) -> Option<&dns::settings::ServerSettings> {
    dns.as_ref().map(|dns| &dns.server)
}

/// Checks that `new` needs no new process.
///
/// # Errors
/// The names of all settings that do.
pub fn same_process(old: &Config, new: &Config) -> Result<(), PartsError> {
    // Destructured, so that a new key has to be placed on one side or the other.
    let Config {
        source: _,
        runtime,
        listen,
        connections,
        admin,
        tls,
        cache,
        purge,
        access_log,
        debug: _,
        origins: _,
        sites: _,
        downstream: _,
        unknown_hosts: _,
        discovery,
        dns,
    } = new;
    let changed: Vec<&'static str> = [
        ("[runtime]", *runtime != old.runtime),
        ("[listen]", *listen != old.listen || *connections != old.connections || tls.is_some() != old.tls.is_some()),
        ("listen.admin or [admin]", *admin != old.admin),
        ("[cache]", *cache != old.cache),
        ("[purge]", *purge != old.purge),
        ("[access_log]", *access_log != old.access_log),
        ("[discovery]", *discovery != old.discovery),
        ("dns.listen, dns.threads, dns.cookie_secret or [dns.tcp]", server(dns) != server(&old.dns)),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect();
    if changed.is_empty() { Ok(()) } else { Err(PartsError::NeedsRestart(changed)) }
}

#[cfg(test)]
mod tests;
