//! `kill -9` at any moment, again and again, under fills, reads, revalidations, replacements and purges of every kind:
//! whatever is served is whole, and no older than the last purge that was acknowledged.
//!
//! `SELVEDGE_KILL_ROUNDS` sets how often in all, `SELVEDGE_KILL_SEED` where the random numbers begin.

use crate::support::edge::{config, one_origin};
use crate::support::faulty::Origin;
use crate::support::{Answer, Client, Edge};
use bytes::Bytes;
use http::Method;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ROUNDS: u64 = 500;
const LANES: u64 = 4;
const KEYS: usize = 40;
const TAGS: usize = 4;
const CLIENTS: u64 = 3;

/// What the origin has and what was purged. Each response of the origin has a serial number of its own.
struct World {
    serial: AtomicU64,
    versions: Vec<AtomicU64>,
    /// Responses up to this serial number were purged, and that was acknowledged.
    purged: Vec<AtomicU64>,
    hits: AtomicU64,
    disk_hits: AtomicU64,
    revalidated: AtomicU64,
    purges: AtomicU64,
    reads: AtomicU64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % end
    }
}

/// The one content that a response with this serial number has: its numbers, then a part of a long text.
fn content(n: usize, version: u64, serial: u64) -> Vec<u8> {
    static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut random = Random(1);
        (0..250_000).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect()
    });
    let len = match n % 10 {
        0 => 700_000,
        1..4 => 60_000 + n * 1000,
        _ => 500 + n * 300,
    };
    let start = (serial * 7919 % 1_200_007) as usize;
    [format!("{n} {version} {serial}\n").as_bytes(), &TEXT[start..start + len]].concat()
}

impl World {
    fn new() -> Self {
        let numbers = || (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        let zero = || AtomicU64::new(0);
        Self {
            serial: zero(),
            versions: numbers(),
            purged: numbers(),
            hits: zero(),
            disk_hits: zero(),
            revalidated: zero(),
            purges: zero(),
            reads: zero(),
        }
    }

    async fn answer(&self, mut stream: TcpStream, head: String) -> Option<TcpStream> {
        let n: usize = head.split(['/', ' ']).nth(3)?.parse().ok()?;
        let version = self.versions[n].load(SeqCst);
        let lifetime = if n.is_multiple_of(2) { 3600 } else { 1 };
        let fields =
            format!("Cache-Control: max-age={lifetime}\r\nETag: \"{n}-{version}\"\r\nCache-Tag: t{}\r\n", n % TAGS);
        if head.starts_with("POST") {
            self.versions[n].fetch_add(1, SeqCst);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
            return Some(stream);
        }
        if head.to_lowercase().contains(&format!("if-none-match: \"{n}-{version}\"")) {
            self.revalidated.fetch_add(1, SeqCst);
            stream.write_all(format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n").as_bytes()).await.ok()?;
            return Some(stream);
        }
        let body = content(n, version, self.serial.fetch_add(1, SeqCst) + 1);
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&body).await.ok()?;
        Some(stream)
    }

    /// One GET: whole, of this key, and of no purged serial number.
    async fn read(&self, client: &mut Client, n: usize, what: &str) -> Result<(), String> {
        let purged = self.purged[n].load(SeqCst);
        let answer = client.send(Method::GET, &format!("/k/{n}"), &[], Bytes::new()).await?;
        let Answer { status, body, .. } = &answer;
        assert_eq!(*status, 200, "{what}: {answer:?}");
        let line = body.split(|byte| *byte == b'\n').next().unwrap();
        let numbers: Vec<u64> = String::from_utf8_lossy(line).split(' ').map(|word| word.parse().unwrap()).collect();
        let [key, version, serial] = numbers[..] else { panic!("{what}: {line:?}") };
        assert_eq!(key, n as u64, "{what}: another key's content");
        assert!(*body == content(n, version, serial), "{what}: /k/{n} is not what the origin sent");
        assert!(serial > purged, "{what}: /k/{n} has {serial}, and {purged} was purged: {}", answer.cache_status());
        self.hits.fetch_add(u64::from(answer.is_hit()), SeqCst);
        self.disk_hits.fetch_add(u64::from(answer.cache_status().contains("detail=disk")), SeqCst);
        Ok(())
    }

    /// One purge of some scope; what it covers counts as purged once it is acknowledged.
    async fn purge(&self, admin: SocketAddr, random: &mut Random) -> Result<(), String> {
        let n = random.below(KEYS as u64) as usize;
        let serial = self.serial.load(SeqCst);
        let (form, covers): (String, Box<dyn Fn(usize) -> bool + Send>) = match random.below(12) {
            0..7 => (format!("url=http://a.example/k/{n}"), Box::new(move |key| key == n)),
            7..10 => (format!("tag=t{}", n % TAGS), Box::new(move |key| key % TAGS == n % TAGS)),
            10 => (format!("prefix=a.example/k/{n}"), Box::new(move |key| key == n)),
            _ if random.below(6) == 0 => ("all=true".to_owned(), Box::new(|_| true)),
            _ => ("host=a.example".to_owned(), Box::new(|_| true)),
        };
        let mut stream = TcpStream::connect(admin).await.map_err(|error| error.to_string())?;
        let head = "POST /purge HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{form}", form.len());
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
        if answer.is_empty() {
            return Err("no answer".into());
        }
        assert!(answer.starts_with("HTTP/1.1 200 "), "{form}: {answer}");
        for key in (0..KEYS).filter(|key| covers(*key)) {
            self.purged[key].fetch_max(serial, SeqCst);
        }
        self.purges.fetch_add(1, SeqCst);
        Ok(())
    }

    /// A request that changes something: what was stored is invalid once it is answered.
    async fn post(&self, client: &mut Client, n: usize) -> Result<(), String> {
        let serial = self.serial.load(SeqCst);
        let answer = client.send(Method::POST, &format!("/k/{n}"), &[], Bytes::new()).await?;
        assert_eq!(answer.status, 204);
        self.purged[n].fetch_max(serial, SeqCst);
        Ok(())
    }

    /// Whatever comes until the edge is gone.
    async fn load(&self, http: SocketAddr, admin: SocketAddr, mut random: Random, stop: &AtomicBool, what: &str) {
        let mut client = Client::new(http, "a.example");
        while !stop.load(SeqCst) {
            let n = random.below(KEYS as u64) as usize;
            let done = match random.below(20) {
                0..3 => self.purge(admin, &mut random).await,
                3 => self.post(&mut client, n).await,
                4 => {
                    self.versions[n].fetch_add(1, SeqCst);
                    Ok(())
                }
                _ => self.read(&mut client, n, what).await,
            };
            if done.is_err() {
                return;
            }
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Some of the rounds, over one directory.
async fn lane(seed: u64, lane: u64, rounds: u64) -> Arc<World> {
    let world = Arc::new(World::new());
    let served = Arc::clone(&world);
    let origin = Origin::start(move |stream, head| {
        let world = Arc::clone(&served);
        async move { world.answer(stream, head).await }
    })
    .await;
    let memory = ["\"4 MiB\"", "0"][lane as usize % 2];
    let sync = ["close", "20ms", "always"][lane as usize % 3];
    // An address of its own: a client that still knows the port of an edge that was killed must not find another lane's.
    let address = format!("\"127.0.0.{}:0\"", 2 + lane);
    let text = config(&one_origin(origin.address))
        .replace("\"127.0.0.1:0\"", &address)
        .replace("capacity = \"64 MiB\"", &format!("capacity = {memory}"))
        .replace(
            "capacity = \"256 MiB\"",
            &format!("capacity = \"12 MiB\"\nsegment_size = \"1 MiB\"\nsync = \"{sync}\""),
        );
    let mut random = Random(seed ^ lane << 32);
    let mut edge = tokio::task::block_in_place(|| Edge::start(&text));
    for round in 0..rounds {
        let what = Arc::new(format!("seed {seed}, lane {lane}, round {round}"));
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (world, stop, what) = (Arc::clone(&world), Arc::clone(&stop), Arc::clone(&what));
                let (http, admin, random) = (edge.http, edge.admin, Random(random.below(u64::MAX)));
                tokio::spawn(async move { world.load(http, admin, random, &stop, &what).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_micros(5_000 + random.below(95_000))).await;
        edge = tokio::task::block_in_place(|| edge.crash_and_restart());
        stop.store(true, SeqCst);
        for client in clients {
            client.await.unwrap();
        }
        let mut client = Client::new(edge.http, "a.example");
        for n in 0..KEYS {
            world.reads.fetch_add(1, SeqCst);
            // What is evicted or replaced while it is read is read to its end.
            if let Err(error) = world.read(&mut client, n, &what).await {
                panic!("{what}: /k/{n}: {error}\n{}", edge.log());
            }
        }
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn whatever_is_served_after_kill_9_is_whole_and_not_purged() {
    let rounds = number("SELVEDGE_KILL_ROUNDS", ROUNDS);
    let seed = number("SELVEDGE_KILL_SEED", u64::from(std::process::id()) << 8);
    println!("SELVEDGE_KILL_SEED={seed} SELVEDGE_KILL_ROUNDS={rounds}");
    let lanes: Vec<_> = (0..LANES).map(|n| tokio::spawn(lane(seed, n, rounds.div_ceil(LANES)))).collect();
    for lane in lanes {
        let world = lane.await.unwrap();
        let count = |number: &AtomicU64| number.load(SeqCst);
        println!(
            "{} hits, {} from disk, {} revalidated, {} purges, {} responses of the origin",
            count(&world.hits),
            count(&world.disk_hits),
            count(&world.revalidated),
            count(&world.purges),
            count(&world.serial)
        );
        assert_eq!(count(&world.reads), rounds.div_ceil(LANES) * KEYS as u64);
        // With fewer of any of them it would tell little.
        let least = rounds / LANES / 4;
        let told = [&world.disk_hits, &world.purges, &world.revalidated].map(count);
        assert!(told.iter().all(|number| *number > least), "{told:?}");
    }
}
