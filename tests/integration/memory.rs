//! What the process takes of the machine's memory.

use crate::support::Edge;
use crate::support::client::Client;
use crate::support::edge::{config, one_origin};
use crate::support::faulty::Origin;
use tokio::io::AsyncWriteExt;

const MIB: u64 = 1 << 20;
const CLIENTS: u64 = 6;

/// From nothing to 200 KB, most of them small.
fn size(n: u64) -> usize {
    let most = if n.is_multiple_of(5) { 200_000 } else { 30_000 };
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_within_the_tier_the_index_and_a_fixed_part() {
    let origin = Origin::start(|mut stream, head| async move {
        let n: u64 = head.strip_prefix("GET /")?.split(' ').next()?.parse().ok()?;
        let fields = "Cache-Control: max-age=3600\r\nETag: \"x\"\r\nContent-Type: image/png";
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {}\r\n\r\n", size(n));
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&vec![n as u8; size(n)]).await.ok()?;
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let ask = |client: u64| {
        let address = edge.http;
        async move {
            let mut connection = Client::new(address, "example.com");
            for n in (client..9_000).step_by(CLIENTS as usize) {
                // Every other request is for something that was asked for before.
                for n in [n, n / 2] {
                    let answer = connection.get(&format!("/{n}")).await;
                    assert!(answer.body.len() == size(n) && answer.body.iter().all(|byte| *byte == n as u8), "{n}");
                }
            }
        }
    };
    futures::future::join_all((0..CLIENTS).map(ask)).await;
    let held = |tier: &str| edge.metric(&format!("selvedge_tier_bytes{{tier=\"{tier}\"}}")) as u64;
    let objects = edge.metric("selvedge_tier_objects{tier=\"disk\"}") as u64;
    assert!(held("memory") > 56 * MIB && held("memory") <= 65 * MIB, "{} MiB in memory", held("memory") >> 20);
    assert!(held("disk") > 200 * MIB && objects > 3000, "{} MiB in {objects} objects on the disk", held("disk") >> 20);
    let limit = 64 * MIB + 64 * objects + 100 * MIB;
    // Everything counts; of a build for debugging all but the program itself, whose code is many times what is shipped.
    let (peak, files) = (edge.peak_rss(), edge.rss_of_files());
    let program = if cfg!(debug_assertions) { files } else { 0 };
    println!("{} MiB at most, {} of them files; the limit is {}", peak >> 20, files >> 20, limit >> 20);
    assert!(peak - program <= limit, "{} MiB of {}, and {} of files", peak >> 20, limit >> 20, files >> 20);
}
