//! A socket between the edge and the engine that can be cut, or talk nonsense.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes on what is said, or does not.
pub struct Socket {
    pub path: PathBuf,
    mode: Arc<AtomicU8>,
    cut: watch::Sender<u32>,
    task: JoinHandle<()>,
}

const PASSES: u8 = 0;
const REFUSES: u8 = 1;
const BABBLES: u8 = 2;

impl Socket {
    pub fn new(dir: &Path) -> Self {
        let path = dir.join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mode = Arc::new(AtomicU8::new(PASSES));
        let (cut, cuts) = watch::channel(0);
        let task = tokio::spawn(accept(listener, Arc::clone(&mode), cuts));
        Self { path, mode, cut, task }
    }

    /// Ends all connections and every new one.
    pub fn refuse(&self) {
        self.turn(REFUSES);
    }

    /// Ends all connections and answers new ones with nonsense.
    pub fn babble(&self) {
        self.turn(BABBLES);
    }

    pub fn pass(&self) {
        self.turn(PASSES);
    }

    fn turn(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
        self.cut.send_modify(|n| *n += 1);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, mode: Arc<AtomicU8>, cuts: watch::Receiver<u32>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let (mode, mut cuts) = (mode.load(Ordering::SeqCst), cuts.clone());
        tokio::spawn(async move {
            match mode {
                PASSES => {
                    let Ok(mut engine) = UnixStream::connect("/var/run/docker.sock").await else { return };
                    cuts.borrow_and_update();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut engine) => {}
                        _ = cuts.changed() => {}
                    }
                }
                BABBLES => {
                    let answer =
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[{\"Id\":12";
                    let _ = client.write_all(answer).await;
                }
                _ => {}
            }
        });
    }
}
