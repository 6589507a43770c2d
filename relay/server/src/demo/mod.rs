//! `millrace-relay demo`: the whole job on one machine, without server, network or configuration.
//!
//! A sample file, an origin that hands it out at a bounded rate, a relay that pulls it, and two clients that download it from the
//! relay meanwhile: one over HTTP in ranges, one over BitTorrent. Every byte is checked by SHA-256.

mod http;
mod leecher;
mod origin;
mod relay;
mod report;
mod sample;
mod sink;

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use http::Timing;
use origin::Origin;
use relay::Relay;
use report::Report;
use sample::Sample;
use sink::Sink;

/// Bytes of the sample.
const SAMPLE_BYTES: u64 = 256 << 20;

/// What the origin hands out, in bytes per second.
const ORIGIN_RATE: u64 = 64_000_000;

/// Connections of the HTTP client.
const HTTP_CONNECTIONS: usize = 4;

/// Runs the demo; an error means that something did not arrive as it should have.
///
/// # Errors
/// Whatever went wrong, in words for people.
pub fn run() -> anyhow::Result<()> {
    let folder = Folder::create()?;
    say("Making a sample file of 256 MiB and its torrent …");
    let sample =
        Sample::create(&folder.path.join("sample.bin"), SAMPLE_BYTES).context("making the sample")?;
    let torrent = folder.path.join("sample.torrent");
    std::fs::write(&torrent, sample.metainfo.to_bytes())?;

    let origin = Origin::start(File::open(folder.path.join("sample.bin"))?, ORIGIN_RATE)
        .context("starting the origin")?;
    say(&format!("An origin hands it out at 64 MB/s: {}", origin.url()));
    let relay = Relay::start(&folder.path)?;
    say(&format!("A relay serves it while it pulls: http://{}/", relay.http));
    let content = relay.add(&origin.url(), &torrent)?;
    let path = content.http_url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    let path = path.map(|(_, path)| format!("/{path}")).context("the relay named no URL for the sample")?;

    let downloads = Downloads {
        http: Sink::create(&folder.path.join("by-http.bin"))?,
        bittorrent: Sink::create(&folder.path.join("by-bittorrent.bin"))?,
    };
    let (by_http, by_bittorrent) = downloads.run(&relay, &path, &sample, &origin)?;
    for (sink, protocol) in [(&downloads.http, "HTTP"), (&downloads.bittorrent, "BitTorrent")] {
        if sink.sha256(sample.length)? != sample.sha256 {
            bail!("what arrived over {protocol} is not the sample: its SHA-256 differs");
        }
    }
    let status = relay.status()?;
    say(&Report {
        sample: &sample,
        by_http,
        by_bittorrent,
        origin_bytes: origin.sent_bytes(),
        status: &status,
    }
    .to_string());
    Ok(())
}

struct Downloads {
    http: Sink,
    bittorrent: Sink,
}

impl Downloads {
    /// Both at the same time, while progress is shown.
    fn run(
        &self,
        relay: &Relay,
        path: &str,
        sample: &Sample,
        origin: &Origin,
    ) -> anyhow::Result<(Timing, Timing)> {
        let bars = MultiProgress::new();
        let names = ["origin → relay", "relay → HTTP", "relay → BitTorrent"];
        let lanes = names.map(|name| bar(&bars, name, sample.length));
        let is_terminal = std::io::stderr().is_terminal();
        std::thread::scope(|scope| {
            let by_http =
                scope.spawn(|| http::download(relay.http, path, sample.length, HTTP_CONNECTIONS, &self.http));
            let by_bittorrent =
                scope.spawn(|| leecher::download(relay.bittorrent, &sample.metainfo, &self.bittorrent));
            let positions = || [origin.sent_bytes(), self.http.received(), self.bittorrent.received()];
            let show = || lanes.iter().zip(positions()).for_each(|(bar, bytes)| bar.set_position(bytes));
            let mut shown = Instant::now();
            while !by_http.is_finished() || !by_bittorrent.is_finished() {
                show();
                if !is_terminal && shown.elapsed() >= Duration::from_secs(1) {
                    shown = Instant::now();
                    let [pulled, http, bittorrent] = positions().map(|bytes| bytes * 100 / sample.length);
                    say(&format!("  pulled {pulled} %, HTTP {http} %, BitTorrent {bittorrent} %"));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            show();
            lanes.iter().for_each(ProgressBar::finish);
            let by_http = by_http.join().map_err(|_| anyhow::anyhow!("the HTTP client panicked"))?;
            let by_bittorrent =
                by_bittorrent.join().map_err(|_| anyhow::anyhow!("the BitTorrent client panicked"))?;
            Ok((
                by_http.context("downloading over HTTP")?,
                by_bittorrent.context("downloading over BitTorrent")?,
            ))
        })
    }
}

/// A progress bar; it draws nothing where there is no terminal.
fn bar(bars: &MultiProgress, name: &str, length: u64) -> ProgressBar {
    let template = "{prefix:<20} {bar:40} {bytes:>11} of {total_bytes}  {binary_bytes_per_sec}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bars.add(ProgressBar::new(length).with_style(style).with_prefix(name.to_owned()))
}

#[expect(clippy::print_stdout, reason = "what a command line program says to its user")]
fn say(text: &str) {
    println!("{text}");
}

/// A temporary folder that goes away with this value.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn create() -> anyhow::Result<Self> {
        // A short path: the admin socket lies in it.
        let path = std::env::temp_dir().join(format!("millrace-demo-{}", std::process::id()));
        create_private(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Folder { path })
    }
}

/// Others on the machine shall not put files where the demo puts its own.
fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in a temporary folder goes away sooner or later anyway.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
