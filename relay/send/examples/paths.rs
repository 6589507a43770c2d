//! What each way of sending costs here: sender CPU-seconds per GB over loopback, hot file, the ways interleaved, medians of five.
//!
//!     cargo run --release -p millrace-send --example paths
//!
//! The sender runs on CPU 0, the receiver on CPU 1 and discards with `MSG_TRUNC`, which stands for a card that takes the data by DMA.
//! Congestion control is cubic on both ends. Take the ratios, not the absolute numbers.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use millrace_engine::counters::Counters;
use millrace_engine::event::Sent;
use millrace_engine::ids::ConnId;
use millrace_engine::output::Output;
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{Layout, PieceIndex};
use millrace_pagecache::new_content::{NewContent, Shape};
use millrace_pagecache::{Options, Store};
use millrace_proto::id::ContentId;
use millrace_send::{HeaderTables, Outcome, Residency, SendPath, Sender, clock};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::time::{ClockId, clock_gettime};

const FILE_BYTES: u64 = 64 << 20;
const PIECE_BYTES: u32 = 1 << 20;
const BLOCK_BYTES: u32 = 16 << 10;
/// Bytes sent for one measurement.
const RUN_BYTES: u64 = 2 << 30;
const REPEATS: usize = 5;

/// One way to fill an output.
struct Workload {
    name: &'static str,
    fill: fn(&mut Output, u64),
    /// Bytes that one fill sends of the file.
    bytes: u64,
}

const WORKLOADS: [Workload; 3] = [
    Workload { name: "HTTP, head + 16 KiB", fill: |output, at| http(output, at, 16 << 10), bytes: 16 << 10 },
    Workload { name: "HTTP, head + 1 MiB", fill: |output, at| http(output, at, 1 << 20), bytes: 1 << 20 },
    Workload { name: "BitTorrent, 50 blocks", fill: blocks, bytes: 50 * BLOCK_BYTES as u64 },
];

fn http(output: &mut Output, at: u64, bytes: u64) {
    output.push_bytes(&[b'h'; 400]);
    output.push_extent(at % (FILE_BYTES - bytes), bytes);
}

fn blocks(output: &mut Output, at: u64) {
    for number in 0..50 {
        let offset = (at + number * u64::from(BLOCK_BYTES)) % FILE_BYTES;
        let (index, begin) = (offset / u64::from(PIECE_BYTES), offset % u64::from(PIECE_BYTES));
        let (index, begin) = (u32::try_from(index).unwrap_or(0), u32::try_from(begin).unwrap_or(0));
        output.push_block(index, begin, BLOCK_BYTES, offset);
    }
}

fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("millrace-paths-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let result = measure(&folder);
    std::fs::remove_dir_all(&folder)?;
    result
}

fn measure(folder: &std::path::Path) -> anyhow::Result<()> {
    let store = Store::open(folder, Options::default())?;
    let layout = Layout::single("file", FILE_BYTES, PIECE_BYTES)?;
    let content = store.add(NewContent::new(ContentId([7; 16]), "file", Shape::Layout(layout), "\"1\""))?;
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        content.write(at, &[0x5a; 1 << 20])?;
    }
    (0..content.layout().piece_count()).for_each(|piece| content.mark_verified(PieceIndex(piece)));
    let headers = Arc::new(HeaderTables::default());
    headers.cover(PIECE_BYTES, content.layout().piece_count())?;
    clock::pin(0)?;
    println!(
        "{:<24} {:>22} {:>22}  ratio",
        "sender CPU-s per GB", "reference (min–max)", "sendfile (min–max)"
    );
    for workload in &WORKLOADS {
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..REPEATS {
            for (path, costs) in [SendPath::Reference, SendPath::Sendfile].into_iter().zip(&mut costs) {
                costs.push(run(path, workload, &content, &headers)?);
            }
        }
        let [reference, sendfile] = costs.map(Spread::of);
        println!("{:<24} {reference} {sendfile}  {:.2}", workload.name, reference.median / sendfile.median);
    }
    Ok(())
}

/// CPU-seconds per GB of one run.
fn run(
    path: SendPath,
    workload: &Workload,
    content: &Arc<Content>,
    headers: &Arc<HeaderTables>,
) -> anyhow::Result<f64> {
    let (socket, reader) = connection()?;
    let receiver = std::thread::spawn(move || discard(&reader));
    let mut sender = Sender::new(path, Arc::new(Counters::default()), Arc::clone(headers))?;
    let mut output = Output::default();
    output.lease(content);
    let started = cpu_seconds()?;
    let mut sent = 0;
    while sent < RUN_BYTES {
        (workload.fill)(&mut output, sent);
        let mut residency = Residency::Ask;
        while !output.is_empty() {
            match sender.send(ConnId::new(0, 0), socket.as_fd(), &output, u64::MAX, residency) {
                // The host may take pages away behind our back; a run with many of these shows in its spread.
                Outcome::Absent(_) => residency = Residency::Assume,
                Outcome::Lent | Outcome::Postponed => {
                    bail!("the send is of a buffer, though nothing was read into a buffer")
                }
                Outcome::Sent(Sent::Bytes { bytes, blocked }) => {
                    output.consume(bytes);
                    if blocked {
                        poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                    }
                }
                Outcome::Sent(other) => bail!("the send ended with {other:?}"),
            }
        }
        sent += workload.bytes;
    }
    let spent = cpu_seconds()? - started;
    drop(socket);
    receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
    Ok(spent / (sent as f64 / 1e9))
}

fn connection() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = millrace_send::socket::make_listener(([127, 0, 0, 1], 0).into(), false, Some("cubic"))?;
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(false)?;
    let reader = TcpStream::connect(listener.local_addr()?)?;
    let (socket, _) = listener.accept()?;
    millrace_send::socket::tune_accepted(&socket)?;
    Ok((socket, reader))
}

fn discard(reader: &TcpStream) -> anyhow::Result<()> {
    use std::os::fd::AsRawFd as _;
    clock::pin(1).context("this measurement needs two CPUs")?;
    // Only the length counts: nothing is copied into it.
    let mut buffer = vec![0; 1 << 20];
    while recv(reader.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)? > 0 {}
    Ok(())
}

fn cpu_seconds() -> nix::Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// Median, least and most of several measurements.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Spread { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:>8.3} ({:.3}–{:.3})", self.median, self.min, self.max))
    }
}
