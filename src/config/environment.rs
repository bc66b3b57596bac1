//! A configuration without a file: what nginx-proxy's image does with nothing but an engine's socket mounted.

use super::{Config, DiscoverySource, Problems, whole_file};
use crate::discovery::docker;
use crate::discovery::nginx_proxy::ProxySettings;
use crate::proxy::access_log::{Escape, Format, Template};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// What stands for the file's name.
pub const ENVIRONMENT: &str = "environment";

/// Where nginx-proxy's image has its folders.
const CERTIFICATES: &str = "/etc/nginx/certs";
const HTPASSWD: &str = "/etc/nginx/htpasswd";
const VHOST: &str = "/etc/nginx/vhost.d";
const HTML: &str = "/usr/share/nginx/html";

impl Config {
    /// Reads the environment in place of a file: nginx-proxy's variables; those of Docker's client; and `SELVEDGE_HTTP`,
    /// `SELVEDGE_HTTPS` and `SELVEDGE_ADMIN` for addresses other than nginx-proxy's, `SELVEDGE_CERTS`,
    /// `SELVEDGE_HTPASSWD`, `SELVEDGE_VHOST` and `SELVEDGE_HTML` for other folders, `SELVEDGE_MEMORY`, `SELVEDGE_DISK` and
    /// `SELVEDGE_DISK_SIZE` for the cache. The second value is what is odd but no reason not to start.
    ///
    /// # Errors
    /// A variable that no address, folder or size can be made of.
    pub fn from_environment(env: &BTreeMap<String, String>) -> Result<(Self, Vec<String>), Problems> {
        let (proxy, mut odd) = ProxySettings::read(env);
        let look_up = |name: &str| env.get(name).cloned();
        let engine = docker::Settings::from_environment(&look_up, &|path| path.exists()).map_err(|error| {
            whole_file(Path::new(ENVIRONMENT), &error.to_string(), "correct the variable, or name a file with --config")
        })?;
        let mut config = Self::parse(&text(env, &proxy), Path::new(ENVIRONMENT), &look_up)?;
        config.downstream.trust_everyone = proxy.trust_downstream;
        if proxy.proxy_protocol {
            config.listen.proxy_protocol =
                crate::route::settings::NetworkRule::everyone_else(true).map(|rule| rule.network).into();
        }
        if let Some(discovery) = &mut config.discovery {
            discovery.proxy = proxy.clone();
            discovery.source = DiscoverySource::Docker(engine);
        }
        let format = config.access_log.format;
        if let Some(text) = proxy.log_format.as_deref().filter(|_| format == Format::Combined) {
            let escape = match env.get("LOG_FORMAT_ESCAPE").map(|text| text.trim()) {
                None | Some("" | "default") => Escape::Default,
                Some("json") => Escape::Json,
                Some("none") => Escape::None,
                Some(other) => {
                    odd.push(format!(
                        "LOG_FORMAT_ESCAPE is `{other}`, none of default, json and none; the default is used"
                    ));
                    Escape::Default
                }
            };
            let (template, unknown) = Template::parse(text, escape);
            odd.extend(
                unknown.iter().map(|name| format!("LOG_FORMAT has ${name}, which there is not: it is left empty")),
            );
            config.access_log.template = Some(Arc::new(template));
        }
        Ok((config, odd))
    }
}

/// The same as a file would say it.
fn text(env: &BTreeMap<String, String>, proxy: &ProxySettings) -> String {
    let given = |name: &str| env.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let addresses = |name: &str, port: u16| {
        let list: Vec<String> = match given(name) {
            Some(list) => list.split(',').map(|address| quoted(address.trim())).collect(),
            None => {
                let mut all = vec![quoted(&format!("0.0.0.0:{port}"))];
                all.extend(proxy.ipv6.then(|| quoted(&format!("[::]:{port}"))));
                all
            }
        };
        format!("[{}]", list.join(", "))
    };
    let certificates = given("SELVEDGE_CERTS").unwrap_or(CERTIFICATES);
    let mut out = String::from("[listen]\n");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(out, "{key} = {value}");
    };
    line("http", &addresses("SELVEDGE_HTTP", proxy.http_port));
    line("https", &addresses("SELVEDGE_HTTPS", proxy.https_port));
    line("admin", &quoted(given("SELVEDGE_ADMIN").unwrap_or("127.0.0.1:9090")));
    line("[tls]\ncertificates", &quoted(certificates));
    line(
        "[access_log]\nformat",
        match (proxy.access_log, proxy.log_json) {
            (false, _) => "\"off\"",
            (true, true) => "\"json\"",
            (true, false) => "\"combined\"",
        },
    );
    line("output", "\"stdout\"");
    line("[cache.memory]\ncapacity", &quoted(given("SELVEDGE_MEMORY").unwrap_or("256 MiB")));
    if let Some(folder) = given("SELVEDGE_DISK") {
        line("[cache.disk]\npath", &quoted(folder));
        line("capacity", &quoted(given("SELVEDGE_DISK_SIZE").unwrap_or("10 GiB")));
    }
    line("[discovery.docker]\nhtpasswd", &quoted(given("SELVEDGE_HTPASSWD").unwrap_or(HTPASSWD)));
    line("vhost", &quoted(given("SELVEDGE_VHOST").unwrap_or(VHOST)));
    line("html", &quoted(given("SELVEDGE_HTML").unwrap_or(HTML)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> (Config, Vec<String>) {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::from_environment(&env).unwrap()
    }

    #[test]
    fn without_a_variable_it_is_nginx_proxys_image() {
        let (config, odd) = read(&[]);
        assert_eq!(odd, Vec::<String>::new());
        assert_eq!(config.listen.http, ["0.0.0.0:80".parse().unwrap()]);
        assert_eq!(config.listen.https, ["0.0.0.0:443".parse().unwrap()]);
        assert_eq!(config.tls.unwrap().certificates, Path::new("/etc/nginx/certs"));
        let discovery = config.discovery.unwrap();
        assert_eq!(discovery.folders.vhost.as_deref(), Some(Path::new("/etc/nginx/vhost.d")));
        assert_eq!(discovery.folders.certificates.as_deref(), Some(Path::new("/etc/nginx/certs")));
        assert!(config.downstream.trust_everyone);
        assert!(config.cache.is_some() && config.sites.is_empty());
    }

    #[test]
    fn variables_change_it() {
        let (config, odd) = read(&[
            ("HTTP_PORT", "8080"),
            ("ENABLE_IPV6", "true"),
            ("SELVEDGE_HTTPS", "127.0.0.1:0, [::1]:8443"),
            ("HTTPS_METHOD", "nohttp"),
            ("TRUST_DOWNSTREAM_PROXY", "false"),
            ("DISABLE_ACCESS_LOGS", "true"),
            ("DHPARAM_SKIP", "true"),
            ("DOCKER_HOST", "tcp://10.0.0.5:2375"),
        ]);
        assert_eq!(odd.len(), 1, "{odd:?}");
        assert_eq!(config.listen.http, ["0.0.0.0:8080", "[::]:8080"].map(|a| a.parse().unwrap()));
        assert_eq!(config.listen.https, ["127.0.0.1:0", "[::1]:8443"].map(|a| a.parse().unwrap()));
        assert!(!config.downstream.trust_everyone);
        let discovery = config.discovery.unwrap();
        assert_eq!(discovery.proxy.https.as_str(), "nohttp");
        let DiscoverySource::Docker(engine) = discovery.source else { panic!("another source") };
        assert_eq!(engine.endpoint.to_string(), "tcp://10.0.0.5:2375");
    }

    #[test]
    fn nginxs_log_format_is_taken_over_and_what_is_unknown_is_named() {
        let (config, odd) = read(&[("LOG_FORMAT", "$host $gzip_ratio"), ("LOG_FORMAT_ESCAPE", "xml")]);
        assert_eq!(
            config.access_log.template.as_deref(),
            Some(&Template::parse("$host $gzip_ratio", Escape::Default).0)
        );
        assert_eq!(odd.len(), 2, "{odd:?}");
        assert!(odd[1].contains("$gzip_ratio"), "{odd:?}");
        assert_eq!(read(&[("LOG_FORMAT", "$host"), ("LOG_JSON", "true")]).0.access_log.template, None);
        let file = |text: &str| Config::parse(text, Path::new("x.toml"), &|_| None);
        let text = "[listen]\nhttp = [\"127.0.0.1:0\"]\n[access_log]\ntemplate = \"$host $nothing\"\n";
        assert!(file(text).unwrap_err().to_string().contains("$nothing, which there is not"));
        assert!(file(&text.replace("template", "escape")).is_err());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (name, value) in [("SELVEDGE_HTTP", "here"), ("DOCKER_HOST", "ssh://x"), ("SELVEDGE_MEMORY", "much")] {
            let env = [(name.to_owned(), value.to_owned())].into();
            assert!(Config::from_environment(&env).is_err(), "{name}");
        }
    }
}
