//! Whole files: what a valid one gives, that samples load, and that every problem is found at once.

mod broken;

use super::*;
use crate::origin::http::HttpVersion;
use crate::origin::s3::AddressingStyle;
use crate::types::Secret;
use proptest::prelude::*;

const SAMPLE: &str = include_str!("../../config/selvedge.toml");
const PROXY: &str = include_str!("../../config/proxy.toml");
const BUCKET: &str = include_str!("../../config/bucket.toml");
const FOLDER: &str = "/etc/selvedge";

/// Appends what a valid file needs and `text` leaves out, after it, so that its line numbers stay.
fn completed(text: &str) -> String {
    let mut whole = format!("{}\n", text.trim_end());
    for (header, addition) in [
        ("[listen", "[listen]\nhttp = [\"127.0.0.1:8000\"]\n"),
        ("[origins.", "[origins.app.http]\nservers = [\"127.0.0.1:9000\"]\n"),
        ("[sites]", "[[sites]]\nhosts = [\"*\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n"),
    ] {
        if !text.contains(header) {
            whole.push_str(addition);
        }
    }
    whole
}

fn parse_with(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    Config::parse(text, Path::new("/etc/selvedge/edge.toml"), env)
}

fn parse(text: &str) -> Result<Config, Problems> {
    parse_with(text, &|_| None)
}

fn amazon_keys(name: &str) -> Option<String> {
    matches!(name, "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY").then(|| format!("value-of-{name}"))
}

/// `line:column: message | remedy` of every problem.
fn found(text: &str) -> Vec<String> {
    let problems = parse(text).err().map(|p| p.problems).unwrap_or_default();
    let line = |p: &Problem| {
        let place = p.position.map(|at| format!("{}:{}", at.line, at.column)).unwrap_or_default();
        format!("{place}: {} | {}", p.message, p.remedy)
    };
    problems.iter().map(line).collect()
}

#[test]
fn the_proxy_sample_loads() {
    let config = parse(PROXY).unwrap();
    assert_eq!(config.runtime, Runtime { threads: 1, shutdown_grace: Duration::from_secs(30) });
    assert_eq!(config.listen.http, ["127.0.0.1:18080".parse().unwrap()]);
    assert_eq!(config.listen.https, ["127.0.0.1:18443".parse().unwrap()]);
    assert_eq!(config.listen.max_connections, 65_536);
    let address = admin::Address::Tcp("127.0.0.1:18090".parse().unwrap());
    assert_eq!(config.admin, Some(admin::Settings { address, token: None }));
    let tls = tls::Settings { certificates: Path::new(FOLDER).join("certs"), min_version: tls::MinVersion::Tls12 };
    assert_eq!(config.tls, Some(tls));
    let disk = cache::disk::Settings {
        path: Path::new(FOLDER).join("cache"),
        capacity: 2 << 30,
        segment_size: 16 << 20,
        sync: cache::disk::SyncPolicy::Close,
        admission: cache::admission::Rule::SecondUse,
    };
    let cache = cache::Settings {
        memory_capacity: 512 << 20,
        disk: Some(disk),
        max_object: None,
        slice_size: 1 << 20,
        grace: 86_400,
    };
    assert_eq!(config.cache, Some(cache));
    assert_eq!(config.access_log, server::default_access_log());
    let Some(origin::Settings::Http(app)) = config.origins.get("app").map(|o| &**o) else {
        panic!("no app: {:?}", config.origins)
    };
    assert_eq!(
        (&*app.servers[0].address.host, app.servers[0].address.port, app.servers.len()),
        ("127.0.0.1", 19_000, 1)
    );
    assert_eq!((app.tls, app.tls_verify, app.version, app.max_fails), (false, true, HttpVersion::Auto, 3));
    let [site] = &config.sites[..] else { panic!("{:?}", config.sites) };
    assert!(matches!(site.hosts[..], [HostPattern::Any]));
    assert_eq!((&*site.name, site.settings.https.method), ("*", crate::route::settings::HttpsMethod::NoRedirect));
    let [route] = &site.routes[..] else { panic!("{:?}", site.routes) };
    assert!(matches!(&route.path, PathPattern::Prefix(path) if &**path == "/"));
    assert_eq!((&*route.origin, route.cache, route.max_request_body), ("app", true, None));
}

#[test]
fn the_bucket_sample_loads_with_keys_from_the_environment() {
    let config = parse_with(BUCKET, &amazon_keys).unwrap();
    let Some(origin::Settings::S3(assets)) = config.origins.get("assets").map(|o| &**o) else {
        panic!("{:?}", config.origins)
    };
    let endpoint = origin::s3::Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 19_100 };
    assert_eq!((&assets.endpoint, assets.style), (&endpoint, AddressingStyle::Path));
    assert_eq!((assets.bucket.as_str(), assets.region.as_str()), ("assets", "us-east-1"));
    assert_eq!(assets.index.as_deref(), Some("index.html"));
    let credentials = assets.credentials.clone().unwrap();
    assert_eq!(credentials.access_key_id, "value-of-AWS_ACCESS_KEY_ID");
    assert!(credentials.secret_access_key.matches(b"value-of-AWS_SECRET_ACCESS_KEY"));
    let hosts = &config.sites[0].hosts;
    assert!(matches!(&hosts[0], HostPattern::Exact(host) if host.as_str() == "assets.example.com"));
    assert!(matches!(&hosts[1], HostPattern::LeadingWildcard(suffix) if &**suffix == ".assets.example.com"));

    let problems = parse(BUCKET).unwrap_err().to_string();
    assert!(
        problems.starts_with("/etc/selvedge/edge.toml:22:25: environment variable `AWS_ACCESS_KEY_ID`"),
        "{problems}"
    );
    assert!(problems.contains(":23:29: environment variable `AWS_SECRET_ACCESS_KEY`"), "{problems}");
}

#[test]
fn the_purge_method_needs_a_token_unless_it_is_only_reached_from_this_machine() {
    let purge = |text: &str| parse(&completed(text)).unwrap().purge;
    assert_eq!(purge(""), proxy::purge::Settings::default());
    let set = purge("[purge]\nmethod = true\ntoken = \"t\"\nexpose_tags = true\n[listen]\nhttp = [\"0.0.0.0:80\"]\n");
    assert_eq!(set, proxy::purge::Settings { method: true, token: Some(Secret::new("t")), expose_tags: true });
    assert!(purge("[purge]\nmethod = true\n").method, "on loopback");
    let open = found(&completed("[purge]\nmethod = true\n[listen]\nhttp = [\"127.0.0.1:1\", \"[::]:80\"]\n"));
    assert!(open.len() == 1 && open[0].starts_with("2:10: `purge.method` lets every client purge"), "{open:?}");
    let idle = found(&completed("[purge]\ntoken = \"t\"\n"));
    assert!(idle.len() == 1 && idle[0].starts_with("2:9: `purge.token` has no effect"), "{idle:?}");
}

#[test]
fn the_commented_sample_loads_and_shows_every_key() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!((config.sites.len(), config.origins.len()), (2, 2));
    assert!(matches!(&config.sites[0].hosts[2], HostPattern::TrailingWildcard(prefix) if &**prefix == "shop."));
    assert!(matches!(&config.sites[0].hosts[3], HostPattern::Regex(regex) if regex.is_match("V12.Example.net")));

    // A key that nobody knows, in every table, has each of them name the keys it does know.
    let is_header = |line: &str| line.starts_with('[');
    let spoilt: String = SAMPLE
        .lines()
        .map(|line| format!("{line}\n{}", if is_header(line) { "qqqqqqqqqqqqqqqq = 1\n" } else { "" }))
        .collect();
    let problems = parse(&spoilt).unwrap_err().problems;
    assert_eq!(problems.len(), SAMPLE.lines().filter(|line| is_header(line)).count());
    for problem in problems {
        let keys = problem.remedy.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        assert!(!keys.is_empty(), "{problem:?}");
        for key in keys {
            let shown = |line: &str| {
                line.trim_start_matches("# ").starts_with(&format!("{key} ="))
                    || is_header(line) && line.contains(&format!("{key}]"))
            };
            assert!(SAMPLE.lines().any(shown), "`{key}` is not in the sample");
        }
    }
}

#[test]
fn the_debug_table_gives_token_and_timings_and_a_site_may_differ() {
    assert_eq!(parse(&completed("")).unwrap().debug, proxy::explain::Settings::default());
    let sites = "[[sites]]\nhosts = [\"*\"]\nserver_timing = false\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n\
                 [[sites]]\nhosts = [\"a\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n";
    let text = completed(&format!("[debug]\ntoken = {{ env = \"T\" }}\nserver_timing = true\n{sites}"));
    let config = parse_with(&text, &|_| Some("0123456789abcdef".to_owned())).unwrap();
    assert!(config.debug.server_timing && config.debug.token.unwrap().matches(b"0123456789abcdef"));
    assert_eq!([config.sites[0].server_timing, config.sites[1].server_timing], [Some(false), None]);
    assert_eq!(
        found(&completed("[debug]\ntoken = \"0123456789abcde\"\n")),
        ["2:9: `debug.token` has less than 16 characters | take a random one, as `openssl rand -hex 16` gives"]
    );
}

#[test]
fn eight_problems_are_reported_at_once_in_the_files_order() {
    let text = r#"
[runtime]
threads = "all"

[listen]
http = [":80"]
https = ["0.0.0.0:443"]

[cache.disk]
path = "cache"
capacity = "1 MiB"
segmentsize = "1 MiB"

[origins.app.http]
servers = ["app"]
conect_timeout = "5s"

[origins.files.s3]
endpoint = "s3.example.com"
bucket = "b"
unsigned = true

[[sites]]
hosts = ["~("]
[[sites.routes]]
path = "/"
origin = "apps"
"#;
    let starts = [
        "3:11: `runtime.threads` is a string, expected a whole number | ",
        "6:9: `listen.http[0]` is \":80\", not an address and port | ",
        "7:9: `listen.https` has addresses, but there is no [tls] | ",
        "11:12: `cache.disk.capacity` is 1 MiB, less than four segments | ",
        "12:1: unknown key `segmentsize` in [cache.disk] | did you mean `segment_size`?",
        "16:1: unknown key `conect_timeout` in [origins.app.http] | did you mean `connect_timeout`?",
        "19:12: `origins.files.s3.endpoint` is \"s3.example.com\", not an endpoint | ",
        "24:10: `sites[0].hosts[0]` is \"~(\", a broken regular expression: unclosed group | ",
        "27:10: `sites[0].routes[0].origin` is \"apps\", an origin that is not declared | did you mean \"app\"?",
    ];
    let found = found(text);
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn an_empty_file_says_what_it_lacks() {
    let found = found("");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("1:1: there is no address to listen on"), "{found:#?}");
    assert!(found[1].starts_with("1:1: there is no site"), "{found:#?}");
}

#[test]
fn broken_toml_is_reported_beside_wrong_values_but_nothing_seems_missing() {
    let found = found("[cache.memory]\ncapacity = 1 GiB\n[runtime]\nthreads = 0\n[listen\n");
    let places: Vec<&str> = found.iter().map(|f| f.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["2:12", "4:11", "5:8"], "{found:#?}");
}

#[test]
fn without_a_cache_table_there_is_a_memory_tier_and_it_can_be_turned_off() {
    let cache = |text: &str| parse(&completed(text)).unwrap().cache;
    let memory = |memory_capacity| {
        Some(cache::Settings { memory_capacity, disk: None, max_object: None, slice_size: 1 << 20, grace: 86_400 })
    };
    assert_eq!(cache(""), memory(256 << 20));
    assert_eq!(
        cache("[cache]\nmax_object = 1000"),
        Some(cache::Settings { max_object: Some(1000), ..memory(256 << 20).unwrap() })
    );
    assert_eq!(
        cache("[cache]\nslice_size = \"4 MiB\""),
        Some(cache::Settings { slice_size: 4 << 20, ..memory(256 << 20).unwrap() })
    );
    assert_eq!(cache("[cache]\nenabled = false\n[cache.memory]\ncapacity = \"1 GiB\""), None);
    let disk = cache("[cache.memory]\ncapacity = 0\n[cache.disk]\npath = \"/d\"\ncapacity = \"64 MiB\"").unwrap();
    assert_eq!((disk.memory_capacity, disk.disk.unwrap().path), (0, PathBuf::from("/d")));
}

#[test]
fn the_disk_tier_is_synchronised_on_closing_always_or_every_so_often() {
    use cache::disk::SyncPolicy;
    for (text, expected) in [
        ("", SyncPolicy::Close),
        ("sync = \"close\"", SyncPolicy::Close),
        ("sync = \"always\"", SyncPolicy::Always),
        ("sync = \"500ms\"", SyncPolicy::Every(Duration::from_millis(500))),
    ] {
        let text = format!("[cache.disk]\npath = \"/d\"\ncapacity = \"1 GiB\"\n{text}");
        let cache = parse(&completed(&text)).unwrap().cache.unwrap();
        assert_eq!(cache.disk.unwrap().sync, expected);
    }
}

#[test]
fn secrets_come_from_the_text_the_environment_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "from-file\n").unwrap();
    let token = |source: &str| {
        let text =
            completed(&format!("[listen]\nhttp = [\"127.0.0.1:0\"]\nadmin = \"[::]:0\"\n[admin]\ntoken = {source}"));
        let env = |name: &str| (name == "TOKEN").then(|| "from-env".to_owned());
        let config = Config::parse(&text, &folder.path().join("edge.toml"), &env).unwrap();
        config.admin.and_then(|admin| admin.token)
    };
    assert_eq!(token("\"in-text\""), Some(Secret::new("in-text")));
    assert_eq!(token("{ env = \"TOKEN\" }"), Some(Secret::new("from-env")));
    assert_eq!(token("{ file = \"token\" }"), Some(Secret::new("from-file")));
}

#[test]
fn a_secret_is_in_no_message() {
    let text = "[listen]\nhttp = [\"127.0.0.1:80\"]\nadmin = \"0.0.0.0:81\"\n[admin]\ntoken = \"hush hush\"\n";
    let problems = parse(&completed(text)).unwrap_err();
    assert!(!format!("{problems} {problems:?}").contains("hush"), "{problems}");
}

#[test]
fn a_bucket_without_keys_takes_those_of_the_environment_unless_unsigned() {
    let origin = |rest: &str| {
        let text = completed(&format!("[origins.app.s3]\nendpoint = \"https://[::1]\"\nbucket = \"b\"\n{rest}"));
        match parse_with(&text, &amazon_keys).unwrap().origins.remove("app").map(std::sync::Arc::unwrap_or_clone) {
            Some(origin::Settings::S3(settings)) => settings,
            other => panic!("{other:?}"),
        }
    };
    let settings = origin("");
    assert_eq!(settings.credentials.unwrap().access_key_id, "value-of-AWS_ACCESS_KEY_ID");
    assert_eq!((settings.endpoint.host.as_str(), settings.endpoint.port, settings.endpoint.tls), ("::1", 443, true));
    assert_eq!(origin("unsigned = true").credentials, None);
    let documents = origin("error_documents = { 404 = \"404.html\", \"503\" = \"down.html\" }").error_documents;
    assert_eq!(documents, [(404, "404.html".to_owned()), (503, "down.html".to_owned())]);
    assert_eq!(origin("allow_amz_headers = [\"X-Amz-Version-Id\"]").allow_amz_headers, ["x-amz-version-id"]);
}

#[test]
fn ports_of_servers_follow_the_scheme() {
    let ports = |rest: &str| {
        let text =
            completed(&format!("[origins.app.http]\nservers = [\"App.Internal\", \"[2001:db8::1]:81\"]\n{rest}"));
        match parse(&text).unwrap().origins.remove("app").map(std::sync::Arc::unwrap_or_clone) {
            Some(origin::Settings::Http(s)) => {
                s.servers.iter().map(|s| format!("{}|{}", s.address.host, s.address.port)).collect()
            }
            other => panic!("{other:?}"),
        }
    };
    let (plain, tls): (Vec<String>, Vec<String>) = (ports(""), ports("tls = true"));
    assert_eq!((&*plain[0], &*plain[1]), ("app.internal|80", "2001:db8::1|81"));
    assert_eq!((&*tls[0], &*tls[1]), ("app.internal|443", "2001:db8::1|81"));
}

#[test]
fn how_servers_share_requests_is_read_from_the_sample_that_explains_every_key() {
    use crate::origin::balance::{Algorithm, HashKey};
    use crate::origin::check::Probe;
    let config = parse(SAMPLE).unwrap();
    let Some(origin::Settings::Http(app)) = config.origins.get("app").map(|o| &**o) else {
        panic!("{:?}", config.origins)
    };
    let servers = app.servers.iter().map(|s| (s.weight, s.backup, s.drain, s.max_connections));
    assert_eq!(
        servers.collect::<Vec<_>>(),
        [(1, false, false, None), (2, false, false, Some(100)), (1, true, false, None), (1, false, true, None)]
    );
    assert_eq!(app.balance, Algorithm::Hash { key: HashKey::Cookie("session".to_owned()), bound: Some(150) });
    let check = app.health.check.as_ref().unwrap();
    let Probe::Http { path, statuses, host, body, .. } = &check.probe else { panic!("{check:?}") };
    assert_eq!(
        (&**path, *statuses, host.as_deref(), body.as_deref()),
        ("/healthz", (200, 399), Some("app.internal"), Some("ok"))
    );
    assert_eq!((check.rise, check.fall, check.jitter), (2, 3, 10));
    assert_eq!(app.limits, origin::http::Limits::default());
    assert_eq!((app.health.error_rate, &app.health.fail_statuses[..]), (50, &[502, 503][..]));
}

#[test]
fn the_admin_part_loads_without_the_rest_being_usable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.toml");
    let unset = "{ env = \"SELVEDGE_TEST_VARIABLE_THAT_IS_NOT_SET\" }";
    std::fs::write(
        &path,
        format!(
            "[listen]\nadmin = \"unix:admin.sock\"\n[admin]\ntoken = \"t\"\n\
         [origins.a.s3]\naccess_key_id = {unset}\n"
        ),
    )
    .unwrap();
    let admin = load_admin(&path).unwrap().unwrap();
    let address = admin::Address::Unix(folder.path().join("admin.sock"));
    assert_eq!(admin, admin::Settings { address, token: Some(Secret::new("t")) });
    std::fs::write(&path, format!("[listen]\nadmin = \"127.0.0.1:1\"\n[admin]\ntoken = {unset}\n")).unwrap();
    assert_eq!(load_admin(&path).unwrap_err().problems.len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.toml");
    let missing = Config::load(&path).unwrap_err();
    assert_eq!((missing.problems.len(), missing.problems[0].position), (1, None));
    assert!(missing.to_string().contains("edge.toml: cannot be read: "), "{missing}");
    std::fs::write(&path, b"a = 1\nb = \"\xff\"\n").unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("is not UTF-8 (line 2)"));
    std::fs::write(&path, PROXY).unwrap();
    assert_eq!(Config::load(&path).unwrap().tls.unwrap().certificates, folder.path().join("certs"));
}

#[test]
fn numbers_may_be_written_in_every_toml_way() {
    let threads = |number: &str| parse(&completed(&format!("[runtime]\nthreads = {number}"))).unwrap().runtime.threads;
    for (number, value) in [("1_0", 10), ("+7", 7), ("0x1F", 31), ("0b101", 5), ("0o17", 15)] {
        assert_eq!(threads(number), value, "{number}");
    }
    let sizes = "[cache]\nmax_object = -1\n[cache.memory]\ncapacity = 99999999999999999999";
    assert_eq!(found(&completed(sizes)).len(), 2);
}

proptest! {
    #[test]
    fn no_text_is_too_strange_to_be_read(text in "(\\PC|[\\[\\]\"'=\n#{},.\\\\]){0,200}") {
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.problems.is_empty());
        }
    }

    #[test]
    fn a_sample_with_something_cut_out_or_put_in_loads_or_says_why(
        start in 0..SAMPLE.len(),
        length in 0_usize..60,
        inserted in "[\\[\\]\"'=\n#{},.a1é-]{0,4}",
    ) {
        let cut = |n: usize| SAMPLE.floor_char_boundary(n.min(SAMPLE.len()));
        let text = format!("{}{inserted}{}", &SAMPLE[..cut(start)], &SAMPLE[cut(start + length)..]);
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.problems.is_empty());
            let lines = text.lines().count() + 1;
            prop_assert!(problems.problems.iter().all(|p| p.position.is_some_and(|at| at.line <= lines)));
        }
    }
}

#[test]
fn routes_start_from_the_cache_rules_of_their_site() {
    use crate::cache::rules::{Cookies, Ttl};
    let text = completed(
        r#"[[sites]]
hosts = ["*"]
[sites.cache]
default_ttl = "1m"
cookies = "key:lang, theme"
[sites.cache.key]
ignore_tracking = true
[[sites.routes]]
path = "/"
origin = "app"
[[sites.routes]]
path = "/off"
origin = "app"
cache = false
[[sites.routes]]
path = "/own"
origin = "app"
[sites.routes.cache]
override_ttl = "2m"
cookies = "strip"
[sites.routes.cache.key]
sort_query = true
"#,
    );
    let site = parse(&text).unwrap().sites.remove(0);
    let [plain, off, own] = &site.routes[..] else { panic!("{:?}", site.routes) };
    assert_eq!(plain.rules.cookies, Cookies::Key(vec!["lang".into(), "theme".into()]));
    assert_eq!((plain.cache, off.cache, own.cache), (true, false, true));
    assert_eq!(plain.rules.lifetime, Some(Ttl::Default(Duration::from_secs(60))));
    assert_eq!(own.rules.lifetime, Some(Ttl::Override(Duration::from_secs(120))));
    assert_eq!(own.rules.cookies, Cookies::Strip);
    assert!(own.rules.key.sort && own.rules.key.ignore_tracking && !plain.rules.key.sort);
}
