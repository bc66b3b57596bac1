//! What a client's handshake gets by the name it asks for: certificate, versions, and whether it is asked for one.

use crate::route::Hosts;
use crate::route::settings::{HttpsMethod, SiteSettings, TlsVersion, UnknownHosts};
use crate::tls::{self, CertStore, ClientAuth, MinVersion};
use crate::types::HostName;
use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// What the handshakes of one site differ in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Manner {
    /// Whether the name is known by HTTPS at all.
    known: bool,
    min_version: Option<MinVersion>,
    client_auth: ClientAuth,
    certificate: Option<Arc<str>>,
}

/// Names to manners; immutable, and swapped together with the routes.
pub struct SiteNames {
    hosts: Arc<Hosts>,
    /// In the order of the sites.
    manners: Vec<Manner>,
    /// The manner, and the name where it is one, of the site that takes unknown hosts in.
    default: Option<(Manner, Option<Arc<str>>)>,
}

/// Certificates by what the sites say and, where they say nothing, by the name asked for.
pub struct SiteCertificates {
    store: Arc<CertStore>,
    names: ArcSwap<SiteNames>,
}

/// The set-ups that handshakes choose from. Shared by all sites: two versions, with and without asking.
pub struct Handshakes {
    base: Arc<rustls::ServerConfig>,
    sites: Option<Sites>,
}

struct Sites {
    certificates: Arc<SiteCertificates>,
    min_version: MinVersion,
    /// By lowest version, then by whether a certificate is asked for.
    configs: [[Arc<rustls::ServerConfig>; 2]; 2],
}

impl SiteNames {
    /// Of these sites, in the order in which `hosts` has them.
    pub fn new<'s>(
        hosts: Arc<Hosts>,
        sites: impl IntoIterator<Item = &'s SiteSettings>,
        unknown: &UnknownHosts,
    ) -> Self {
        let manners: Vec<Manner> = sites.into_iter().map(Manner::of).collect();
        let default = unknown.default_host.as_ref().and_then(|pattern| {
            let manner = manners.get(hosts.site_of_pattern(pattern)?)?.clone();
            let name = pattern.parse::<HostName>().ok().map(|_| Arc::clone(pattern));
            Some((manner, name))
        });
        Self { hosts, manners, default }
    }

    /// The manner for a name that a client asks for, and the name to find a certificate by.
    fn manner<'a>(&'a self, asked: &'a str) -> Option<(&'a Manner, &'a str)> {
        match self.hosts.site(asked).and_then(|site| self.manners.get(site)) {
            Some(manner) => Some((manner, asked)),
            None => self.default.as_ref().map(|(manner, name)| (manner, name.as_deref().unwrap_or(asked))),
        }
    }
}

impl Manner {
    fn of(settings: &SiteSettings) -> Self {
        let min_version = settings.tls.min_version.map(|version| match version {
            TlsVersion::Tls12 => MinVersion::Tls12,
            TlsVersion::Tls13 => MinVersion::Tls13,
        });
        Self {
            known: settings.https.method != HttpsMethod::NoHttps,
            min_version,
            client_auth: if settings.client_certificates.is_some() { ClientAuth::Ask } else { ClientAuth::None },
            certificate: settings.tls.certificate.clone(),
        }
    }
}

impl SiteCertificates {
    /// Over a folder of certificates, before any site is known.
    pub fn new(store: Arc<CertStore>) -> Arc<Self> {
        let names = SiteNames::new(Arc::default(), [], &UnknownHosts::default());
        Arc::new(Self { store, names: ArcSwap::from_pointee(names) })
    }

    /// Puts the sites in force into use for handshakes that begin from now on.
    pub fn swap(&self, names: Arc<SiteNames>) {
        self.names.store(names);
    }

    /// Whether a host of a site has a certificate: the one its site names, its own or its parent domain's, or, where that
    /// is trusted, `default`.
    pub fn has(&self, host: &HostName, settings: &SiteSettings) -> bool {
        let tls = &settings.tls;
        tls.certificate.as_ref().is_some_and(|name| self.store.pair(name).is_some())
            || self.store.covers(host)
            || tls.trust_default && self.store.has_default()
    }

    fn choose(&self, asked: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(asked) = asked.map(normal) else { return self.store.choose(None) };
        let names = self.names.load();
        match names.manner(&asked) {
            Some((Manner { known: false, .. }, _)) => self.store.choose(None),
            Some((Manner { certificate: Some(name), .. }, host)) => {
                self.store.pair(name).or_else(|| self.store.choose(Some(host)))
            }
            Some((_, host)) => self.store.choose(Some(host)),
            None => self.store.choose(Some(&asked)),
        }
    }
}

impl ResolvesServerCert for SiteCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

impl std::fmt::Debug for SiteCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteCertificates").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Handshakes {
    /// The same for every name.
    pub fn single(config: Arc<rustls::ServerConfig>) -> Self {
        Self { base: config, sites: None }
    }

    /// By what the sites say, `min_version` where they say nothing.
    ///
    /// # Errors
    /// See [`tls::ConfigError`].
    pub fn of_sites(min_version: MinVersion, certificates: Arc<SiteCertificates>) -> Result<Self, tls::ConfigError> {
        let config = |version, auth| tls::server_config_of(version, auth, Arc::clone(&certificates) as _);
        let both = |version| Ok([config(version, ClientAuth::None)?, config(version, ClientAuth::Ask)?]);
        let configs = [both(MinVersion::Tls12)?, both(MinVersion::Tls13)?];
        let base = Arc::clone(&configs[min_version as usize][ClientAuth::None as usize]);
        Ok(Self { base, sites: Some(Sites { certificates, min_version, configs }) })
    }

    /// The set-up for a client that asks for this name, or for none.
    pub fn config(&self, asked: Option<&str>) -> Arc<rustls::ServerConfig> {
        let (Some(sites), Some(asked)) = (&self.sites, asked.map(normal)) else { return Arc::clone(&self.base) };
        let names = sites.certificates.names.load();
        match names.manner(&asked) {
            Some((manner, _)) if manner.known => {
                let version = manner.min_version.unwrap_or(sites.min_version);
                Arc::clone(&sites.configs[version as usize][manner.client_auth as usize])
            }
            _ => Arc::clone(&self.base),
        }
    }
}

/// A name as the table has it; rustls has checked that it is one.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
