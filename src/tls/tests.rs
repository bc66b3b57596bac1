use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use tempfile::tempdir;

use super::testing::{client, put, server};
use super::{Cause, CertStore, Effect, MinVersion, Problem, self_signed};
use crate::clock::Clock;
use crate::types::HostName;

/// Runs a handshake in memory, and the tickets that follow it.
fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, host: &str) -> Result<ClientConnection, rustls::Error> {
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(client, host).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let mut failed = None;
    while client.wants_write() || server.wants_write() {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        let mut up = &up[..];
        while !up.is_empty() {
            server.read_tls(&mut up).unwrap();
            failed = failed.or(server.process_new_packets().err());
        }
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        let mut down = &down[..];
        while !down.is_empty() {
            client.read_tls(&mut down).unwrap();
            client.process_new_packets()?;
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(client),
    }
}

fn leaf(connection: &ClientConnection) -> Vec<u8> {
    connection.peer_certificates().unwrap()[0].to_vec()
}

fn host(text: &str) -> HostName {
    text.parse().unwrap()
}

/// Asks until the answer is yes, for a second at most, and returns how long it took.
fn within_a_second(mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(1), "not within a second");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

fn only(problems: &[Problem]) -> &Problem {
    assert_eq!(problems.len(), 1, "{problems:?}");
    &problems[0]
}

#[test]
fn the_certificate_is_the_hosts_own_then_its_parents_then_the_default() {
    let dir = tempdir().unwrap();
    let own = put(dir.path(), "www.example.com", "www.example.com");
    let parent = put(dir.path(), "example.com", "*.example.com");
    let default = put(dir.path(), "default", "default.test");
    let (config, _) = server(dir.path(), MinVersion::Tls12);
    for (version, number) in
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let client = Arc::new(client(version, &["h2", "http/1.1"]));
        for (asked, expected) in [
            ("www.example.com", &own),
            ("example.com", &parent),
            ("api.example.com", &parent),
            ("API.Example.COM", &parent),
            ("a.b.example.com", &default),
            ("com", &default),
            ("elsewhere.test", &default),
            ("127.0.0.1", &default),
        ] {
            let connection = shake(client.clone(), config.clone(), asked).unwrap();
            assert_eq!(leaf(&connection), *expected, "{asked}");
            assert_eq!(connection.protocol_version(), Some(number));
            assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        }
    }
}

#[test]
fn without_a_default_an_unknown_host_has_no_certificate() {
    let dir = tempdir().unwrap();
    put(dir.path(), "example.com", "example.com");
    put(dir.path(), "com", "com");
    let (config, store) = server(dir.path(), MinVersion::Tls12);
    let client = Arc::new(client(&rustls::version::TLS13, &[]));
    assert!(shake(client.clone(), config.clone(), "elsewhere.test").is_err());
    // A host of two labels does not fall back to its top-level domain.
    assert!(shake(client.clone(), config.clone(), "other.com").is_err());
    assert!(shake(client, config, "www.example.com").is_ok());
    assert!(!store.has_default());
    assert!(store.choose(None).is_none());
    assert!(store.choose(Some("127.0.0.1")).is_none());
    assert!(store.covers(&host("www.example.com")) && store.covers(&host("EXAMPLE.com.")));
    assert!(!store.covers(&host("a.www.example.com")) && !store.covers(&host("elsewhere.test")));
    assert_eq!(store.names(), ["com", "example.com"]);
}

#[test]
fn tls_1_2_is_refused_where_1_3_is_the_lowest() {
    let dir = tempdir().unwrap();
    put(dir.path(), "default", "a.test");
    let (config, _) = server(dir.path(), MinVersion::Tls13);
    assert!(shake(Arc::new(client(&rustls::version::TLS12, &[])), config.clone(), "a.test").is_err());
    assert!(shake(Arc::new(client(&rustls::version::TLS13, &[])), config, "a.test").is_ok());
}

#[test]
fn a_client_that_speaks_http_1_1_alone_gets_it() {
    let dir = tempdir().unwrap();
    put(dir.path(), "default", "a.test");
    let (config, _) = server(dir.path(), MinVersion::Tls12);
    let connection = shake(Arc::new(client(&rustls::version::TLS13, &["http/1.1"])), config, "a.test").unwrap();
    assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_second_handshake_resumes_by_ticket() {
    let dir = tempdir().unwrap();
    put(dir.path(), "default", "a.test");
    let (config, _) = server(dir.path(), MinVersion::Tls12);
    assert!(config.ticketer.enabled());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Arc::new(client(version, &[]));
        let first = shake(client.clone(), config.clone(), "a.test").unwrap();
        assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
        let second = shake(client, config.clone(), "a.test").unwrap();
        assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn a_changed_file_is_served_within_a_second() {
    let dir = tempdir().unwrap();
    let old = put(dir.path(), "a.test", "a.test");
    let (config, store) = server(dir.path(), MinVersion::Tls12);
    let watch = store.watch().unwrap();
    let client = Arc::new(client(&rustls::version::TLS13, &[]));
    assert_eq!(leaf(&shake(client.clone(), config.clone(), "a.test").unwrap()), old);
    let new = put(dir.path(), "a.test", "a.test");
    // A client with a ticket resumes and is shown no certificate, so the store is asked.
    within_a_second(|| store.choose(Some("a.test")).unwrap().cert[0].to_vec() == new);
    put(dir.path(), "b.test", "b.test");
    within_a_second(|| store.covers(&host("b.test")));
    fs::remove_file(dir.path().join("b.test.crt")).unwrap();
    fs::remove_file(dir.path().join("b.test.key")).unwrap();
    within_a_second(|| !store.covers(&host("b.test")));
    drop(watch);
    assert_eq!(Arc::strong_count(&store), 2, "the config's and this one: the watch is gone");
}

#[test]
fn a_change_behind_a_symbolic_link_is_found_by_comparing_files() {
    let dir = tempdir().unwrap();
    let live = dir.path().join("live");
    fs::create_dir(&live).unwrap();
    put(&live, "one", "a.test");
    for ending in ["crt", "key"] {
        let (target, link) = (format!("live/one.{ending}"), format!("a.test.{ending}"));
        std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
    }
    let (store, problems) = CertStore::open(dir.path()).unwrap();
    assert_eq!(problems, []);
    let _watch = store.watch().unwrap();
    let new = put(&live, "one", "a.test");
    within_a_second(|| store.choose(Some("a.test")).unwrap().cert[0].to_vec() == new);
}

#[test]
fn a_broken_pair_is_reported_and_its_last_good_state_stays() {
    let dir = tempdir().unwrap();
    let good = put(dir.path(), "a.test", "a.test");
    let (store, problems) = CertStore::open(dir.path()).unwrap();
    assert_eq!(problems, []);
    let crt = dir.path().join("a.test.crt");
    let text = fs::read_to_string(&crt).unwrap();
    fs::write(&crt, &text[..text.len() / 2]).unwrap();
    let problems = store.reload();
    assert_eq!(only(&problems).effect, Effect::LastGoodServed);
    assert!(matches!(only(&problems).cause, Cause::BadPem(_)), "{problems:?}");
    assert_eq!(store.choose(Some("a.test")).unwrap().cert[0].to_vec(), good);

    fs::remove_file(&crt).unwrap();
    assert_eq!((only(&store.reload()).cause.clone(), store.covers(&host("a.test"))), (Cause::Missing, true));
    fs::remove_file(dir.path().join("a.test.key")).unwrap();
    assert_eq!(store.reload(), []);
    assert!(!store.covers(&host("a.test")));
}

#[test]
fn a_folder_that_went_away_leaves_all_pairs_in_use() {
    let dir = tempdir().unwrap();
    let certs = dir.path().join("certs");
    fs::create_dir(&certs).unwrap();
    put(&certs, "a.test", "a.test");
    let (store, _) = CertStore::open(&certs).unwrap();
    fs::remove_dir_all(&certs).unwrap();
    let problems = store.reload();
    assert_eq!((&only(&problems).file, only(&problems).effect), (&certs, Effect::LastGoodServed));
    assert!(store.covers(&host("a.test")));
    let error = CertStore::open(&certs).unwrap_err().to_string();
    assert!(error.contains("certs") && error.contains("create it"), "{error}");
}

#[test]
fn each_fault_names_its_file_cause_and_remedy() {
    type Case = (&'static str, fn(&Path), fn(&Cause) -> bool);
    let cases: [Case; 9] = [
        ("a.test.key", |d| fs::write(d.join("a.test.key"), "").unwrap(), |c| *c == Cause::Empty),
        ("a.test.crt", |d| fs::write(d.join("a.test.crt"), [0xff; 99]).unwrap(), |c| *c == Cause::NoCertificate),
        ("a.test.key", |d| fs::write(d.join("a.test.key"), "garbage").unwrap(), |c| *c == Cause::NoKey),
        ("a.test.key", |d| fs::remove_file(d.join("a.test.key")).unwrap(), |c| *c == Cause::Missing),
        ("a.test.crt", |d| fs::write(d.join("a.test.crt"), vec![b'x'; 2 << 20]).unwrap(), |c| *c == Cause::TooLarge),
        (
            "a.test.key",
            |d| fs::write(d.join("a.test.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap(),
            |c| *c == Cause::EncryptedKey,
        ),
        (
            "a.test.key",
            |d| {
                put(d, "other", "a.test");
                fs::rename(d.join("other.key"), d.join("a.test.key")).unwrap();
                fs::remove_file(d.join("other.crt")).unwrap();
            },
            |c| *c == Cause::KeyMismatch,
        ),
        (
            "a.test.crt",
            |d| {
                let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
                fs::write(d.join("a.test.crt"), text).unwrap();
            },
            |c| matches!(c, Cause::BadCertificate(_)),
        ),
        (
            "a.test.key",
            |d| {
                fs::remove_file(d.join("a.test.key")).unwrap();
                fs::create_dir(d.join("a.test.key")).unwrap();
            },
            |c| *c == Cause::NotAFile,
        ),
    ];
    for (file, spoil, expected) in cases {
        let dir = tempdir().unwrap();
        put(dir.path(), "a.test", "a.test");
        put(dir.path(), "b.test", "b.test");
        spoil(dir.path());
        let (store, problems) = CertStore::open(dir.path()).unwrap();
        let problem = only(&problems);
        assert_eq!((&problem.file, problem.effect), (&dir.path().join(file), Effect::NotServed), "{problem}");
        assert!(expected(&problem.cause), "{problem}");
        assert!(problem.to_string().contains(problem.remedy()) && problem.to_string().contains(file), "{problem}");
        assert!(!store.covers(&host("a.test")) && store.covers(&host("b.test")), "{problem}");
    }
    assert_eq!(super::pair::unreadable(&std::io::ErrorKind::PermissionDenied.into()), Cause::Forbidden);
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let dir = tempdir().unwrap();
    put(dir.path(), "a.test", "a.test");
    let clock = Clock::adjustable();
    let (store, problems) = CertStore::open_at(dir.path(), clock.clone()).unwrap();
    assert_eq!(problems, []);
    clock.advance(Duration::from_secs(366 * 86_400), true);
    let problems = store.reload();
    assert_eq!((&only(&problems).cause, only(&problems).effect), (&Cause::Expired, Effect::Served));
    assert!(store.covers(&host("a.test")));
    clock.advance(Duration::from_secs(367 * 86_400), false);
    assert_eq!(only(&store.reload()).cause, Cause::NotYetValid);
}

#[test]
fn other_files_of_the_folder_are_left_alone() {
    let dir = tempdir().unwrap();
    put(dir.path(), "a.test", "a.test");
    for name in ["a.test.chain.pem", "a.test.dhparam.pem", "ca.crt", "a.test.ca.crt", ".hidden.crt", "README"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    fs::create_dir(dir.path().join("_accounts")).unwrap();
    let (store, problems) = CertStore::open(dir.path()).unwrap();
    assert_eq!((problems, store.names()), (vec![], vec!["a.test".to_owned()]));
    put(dir.path(), "not a host", "a.test");
    assert_eq!(only(&store.reload()).cause, Cause::BadName);
}

#[test]
fn self_signed_pairs_are_named_and_protected_as_the_store_expects() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("certs");
    let hosts = ["www.Example.com", "*.example.com", "example.com", "127.0.0.1", "[::1]"].map(str::to_owned);
    let files = self_signed::write(&out, &hosts).unwrap();
    assert_eq!(files.len(), 8);
    for file in &files {
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        let expected = if file.extension().unwrap() == "key" { 0o600 } else { 0o644 };
        assert_eq!(mode, expected, "{}", file.display());
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 8, "nothing temporary stays");
    let (store, problems) = CertStore::open(&out).unwrap();
    assert_eq!(problems, []);
    assert_eq!(store.names(), ["127.0.0.1", "[::1]", "example.com", "www.example.com"]);
    let wildcard = store.choose(Some("api.example.com")).unwrap();
    let (_, x509) = x509_parser::parse_x509_certificate(&wildcard.cert[0]).unwrap();
    let names = format!("{:?}", x509.subject_alternative_name().unwrap().unwrap().value.general_names);
    assert!(names.contains("\"example.com\"") && names.contains("\"*.example.com\""), "{names}");
    assert_eq!(x509.subject().iter_common_name().next().unwrap().as_str().unwrap(), "example.com");
    // A client that trusts the certificate takes it for its hosts: nothing about it is out of order.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(wildcard.cert[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let strict = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let strict = Arc::new(strict.with_root_certificates(roots).with_no_client_auth());
    let (config, _) = server(&out, MinVersion::Tls12);
    assert!(shake(strict.clone(), config.clone(), "api.example.com").is_ok());
    assert!(shake(strict, config, "www.example.com").is_err(), "that is another certificate");
    // Again: its own are replaced.
    assert!(self_signed::write(&out, &hosts).is_ok());
}

#[test]
fn self_signed_pairs_replace_nobody_elses() {
    let dir = tempdir().unwrap();
    let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), rcgen::KeyPair::generate().unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Someone");
    let crt = params.signed_by(&key, &issuer).unwrap().pem();
    fs::write(dir.path().join("a.test.crt"), &crt).unwrap();
    fs::write(dir.path().join("b.test.key"), "").unwrap();
    for host in ["a.test", "b.test"] {
        let error = self_signed::write(dir.path(), &["new.test".to_owned(), host.to_owned()]).unwrap_err();
        assert!(matches!(error, self_signed::Error::Occupied(_)), "{error}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("a.test.crt")).unwrap(), crt);
    assert!(!dir.path().join("new.test.crt").exists());
    for bad in ["../x", "", "a b", "*.*.x", "*"] {
        let error = self_signed::write(dir.path(), &[bad.to_owned()]).unwrap_err();
        assert!(matches!(error, self_signed::Error::Host(_)), "{bad}: {error}");
    }
    assert!(matches!(self_signed::write(dir.path(), &[]), Err(self_signed::Error::NoHost)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_content_of_a_file_and_no_name_asked_for_panics(crt: Vec<u8>, key: String, asked: String) {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("a.test.crt"), crt).unwrap();
        fs::write(dir.path().join("a.test.key"), key).unwrap();
        let (store, problems) = CertStore::open(dir.path()).unwrap();
        proptest::prop_assert_eq!(problems.len(), 1);
        proptest::prop_assert!(store.choose(Some(&asked)).is_none());
    }
}
