//! aria2, as a client: a program that people download with, and what a server's work comes to for it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::interrupt::Interrupt;
use crate::measure::cpu;
use crate::measure::latency::Latencies;
use crate::report::{Cost, Measurement, Percentiles};
use crate::server::{HttpFile, PATIENCE, Process, Server};

/// What it is called, and how one comes by it.
pub(crate) const PROGRAM: &str = "aria2c";
pub(crate) const REMEDY: &str = "apt install aria2";

/// Connections that it may open to a server, the most it takes.
pub(crate) const CONNECTIONS: usize = 16;

/// Bytes per second that a download surely reaches.
const SLOWEST: u64 = 5_000_000;

/// What is downloaded, and how.
pub(crate) struct Order<'a> {
    pub(crate) program: &'a Path,
    /// By this torrent, or by HTTP.
    pub(crate) torrent: Option<&'a Path>,
    pub(crate) length: u64,
    pub(crate) cores: &'a [usize],
    /// Where the file goes; in memory, if nothing but the network is to be seen.
    pub(crate) folder: &'a Path,
}

/// Downloads the file of `server` once. CPU time of the load is aria2's.
///
/// # Errors
/// It does not start, fails, or leaves less than the file.
pub(crate) fn download(
    order: &Order<'_>,
    server: &Server,
    interrupt: &Interrupt,
) -> anyhow::Result<Measurement> {
    let mut command = Command::new(order.program);
    command.args([
        "--quiet",
        "--no-conf",
        "--file-allocation=none",
        "--allow-overwrite=true",
        "--max-tries=1",
    ]);
    command.arg("--dir").arg(order.folder);
    let mut tracker = None;
    if let Some(torrent) = order.torrent {
        let peer = server.bittorrent.as_ref().context("no BitTorrent address")?.address_for(0);
        let told = tracker.insert(Tracker::start(peer)?).address;
        command.args([
            "--seed-time=0",
            "--enable-dht=false",
            "--enable-peer-exchange=false",
            "--bt-enable-lpd=false",
        ]);
        command.arg(format!("--bt-tracker=http://{told}/announce")).arg(torrent);
    } else {
        let HttpFile { address, path, .. } = server.http.as_ref().context("no HTTP address")?;
        let connections = CONNECTIONS.to_string();
        command.args(["-x", &connections, "-s", &connections, "--min-split-size=1M", "--out=file"]);
        command.arg(format!("http://{address}{path}"));
    }
    let cpu_of = |pid: Option<u32>| pid.and_then(cpu::of_tree);
    let (server_before, load_before) = (cpu_of(server.pid), cpu::of_ended_children());
    let began = Instant::now();
    let mut process = Process::start(command, order.cores, order.folder.join("aria2.log"))?;
    process.wait_for_end(PATIENCE + Duration::from_secs(order.length / SLOWEST), interrupt)?;
    let seconds = began.elapsed();
    let spent = server_before.zip(cpu_of(server.pid)).map(|(before, after)| after.saturating_sub(before));
    let load = cpu::of_ended_children().saturating_sub(load_before);
    drop(tracker);
    let bytes: u64 =
        crate::measure::disk::files_below(order.folder, order.length)?.len() as u64 * order.length;
    if bytes != order.length {
        bail!("aria2 ended without the file");
    }
    let (http_bytes, bittorrent_bytes) = if order.torrent.is_some() { (0, bytes) } else { (bytes, 0) };
    // The one answer is the file.
    let mut latencies = Latencies::default();
    latencies.record(seconds, seconds);
    Ok(Measurement {
        requests: 1,
        http: Percentiles::of(&latencies),
        server: server.name.clone(),
        version: server.version.clone(),
        seconds: seconds.as_secs_f64(),
        http_bytes,
        bittorrent_bytes,
        server_cpu: spent.map(|cpu| Cost::of(cpu, bytes)),
        load_cpu: Cost::of(load, bytes),
        ..Measurement::default()
    })
}

/// A tracker that names one peer to whoever asks (BEP 3, BEP 23).
struct Tracker {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tracker {
    fn start(peer: SocketAddr) -> anyhow::Result<Self> {
        let SocketAddr::V4(peer) = peer else { bail!("a peer with an IPv6 address") };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a tracker")?;
        let (address, over) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let body =
            [b"d8:intervali60e5:peers6:", &peer.ip().octets()[..], &peer.port().to_be_bytes(), b"e"].concat();
        let told = over.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                // A client that goes away asks again, or has no use for the answer.
                let _ = answer(&stream, &body);
            }
        });
        Ok(Tracker { address, over, thread: Some(thread) })
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It wakes from this and sees that it is over. It cannot panic.
        let _ = TcpStream::connect(self.address);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Answers one announce, whatever it says.
fn answer(mut stream: &TcpStream, body: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    stream.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::fetch;

    #[test]
    fn the_tracker_names_its_peer_to_everybody() {
        let tracker = Tracker::start("198.18.0.1:6881".parse().unwrap()).unwrap();
        for _ in 0..2 {
            let body = fetch::get_ok(tracker.address, "tracker", "/announce?compact=1").unwrap();
            assert_eq!(body, b"d8:intervali60e5:peers6:\xc6\x12\x00\x01\x1a\xe1e");
        }
    }
}
