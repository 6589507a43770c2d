//! `compare`: our relay against other programs, side by side on this machine, one run of each after the other, over and over.

mod cold;
mod contest;
mod download;
mod hashing;
pub(crate) mod network;
mod outcome;
mod own;
mod page;
mod pulling;
mod residency;
mod row;
mod rows;
mod scale;
mod side;
mod starting;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use millrace_proto::units::Size;

use crate::cli::ReportArgs;
use crate::cores::{self, Split};
use crate::interrupt::Interrupt;
use crate::server::relay;
use crate::settings::Span;
use contest::Contest;
use outcome::Comparison;
use row::{Row, Who};

/// `compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// P1 to P4 with shorter runs: ten minutes at most, instead of 25
    #[arg(long)]
    pub(crate) quick: bool,
    /// Every row for a fraction of a second, on small files, once: shows that it runs, not how fast
    #[arg(long, conflicts_with = "quick")]
    pub(crate) tiny: bool,
    /// What to compare, such as P1,P3 [default: everything]
    #[arg(long, value_name = "LIST")]
    pub(crate) rows: Option<String>,
    /// Whom to compare with, such as nginx,libtorrent [default: everybody who is installed]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub(crate) against: Vec<String>,
    /// Runs of each server
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) repeats: usize,
    /// Time measured in each run [default: 4s, with --quick 2s]
    #[arg(long, value_name = "TIME")]
    pub(crate) duration: Option<Span>,
    /// Length of the test file
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub(crate) content_bytes: Size,
    /// Congestion control of every connection
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    pub(crate) congestion: String,
    /// The relay program to start [default: millrace-relay beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) relay: Option<PathBuf>,
    /// How the relay talks to the kernel: auto, uring or epoll [default: auto]
    #[arg(long, value_name = "KIND")]
    pub(crate) io: Option<String>,
    /// Cores for the server, such as 0 or 0-1 [default: the first]
    #[arg(long, alias = "server-cores", value_name = "LIST")]
    pub(crate) server_core: Option<String>,
    /// Cores for the load, a thread on each [default: all others]
    #[arg(long, value_name = "LIST")]
    pub(crate) load_cores: Option<String>,
    /// Folder for the test file, on the disk to be measured [default: where temporary files go]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// What `--quick` compares.
const QUICK: &str = "P1,P2,P3,P4";

/// Shortest test file: leechers ask for pieces of it at random, which shall not come from the processor's cache.
const CONTENT_BYTES_MIN: u64 = 16 << 20;

/// The same as a matter of seconds.
fn tiny(args: CompareArgs) -> CompareArgs {
    let duration = args.duration.or(Some(Span(Duration::from_millis(200))));
    CompareArgs { repeats: 1, duration, content_bytes: Size(CONTENT_BYTES_MIN), ..args }
}

/// What to compare, and on which cores.
///
/// # Errors
/// The first flag that cannot be.
fn check(args: &CompareArgs) -> anyhow::Result<(Vec<&'static Row>, Split)> {
    args.report.check()?;
    let rows = rows::choose(args.rows.as_deref().or(args.quick.then_some(QUICK)))?;
    if args.repeats == 0 {
        bail!("--repeats: at least 1");
    }
    if args.content_bytes.0 < CONTENT_BYTES_MIN {
        bail!("--content-bytes: at least {}", Size(CONTENT_BYTES_MIN));
    }
    if args.duration.is_some_and(|span| span.0.is_zero()) {
        bail!("--duration: more than 0");
    }
    crate::bounds::io(args.io.as_deref())?;
    crate::bounds::congestion(Some(&args.congestion))?;
    relay::find(args.relay.as_deref())?;
    if let Some(name) = args.against.iter().find(|name| !row::PEERS.contains(&name.as_str())) {
        bail!("--against {name}: there are {}", row::PEERS.join(", "));
    }
    let allowed = cores::allowed()?;
    let cores = Split::choose(args.server_core.as_deref(), args.load_cores.as_deref(), false, &allowed)?;
    Ok((rows, cores))
}

impl CompareArgs {
    /// Whether `--against` leaves it in.
    fn is_against(&self, who: Who) -> bool {
        let named = |peer| self.against.iter().any(|name| name == peer);
        self.against.is_empty() || who.peer().is_none_or(named)
    }
}

/// Compares.
///
/// # Errors
/// What keeps anything from being compared; a peer that is absent does not.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let args = &if args.tiny { tiny(args.clone()) } else { args.clone() };
    let (rows, cores) = match check(args) {
        Ok(checked) => checked,
        Err(error) => return Ok(crate::refuse(&error)),
    };
    let mut comparison = Comparison::new(args.repeats);
    // Before any thread is started: they stay where they were.
    let own_network = match network::enter(&args.congestion) {
        Ok(()) => true,
        Err(error) => {
            let system = network::of_accepted().unwrap_or_else(|_| "an unknown one".into());
            comparison.note(format!("no network of our own ({error:#}), so every server uses the system's congestion control, {system}"));
            false
        }
    };
    if cores.overlap() {
        comparison.note(
            "server and load share cores, and so take time from each other: give this two cores or more",
        );
    }
    let interrupt = Interrupt::watch()?;
    let duration = args.duration.map_or(Duration::from_secs(if args.quick { 2 } else { 4 }), |span| span.0);
    let contest = Contest { args, cores, duration, own_network, interrupt };
    contest.run(&rows, &mut comparison)?;
    comparison.write(&args.report)?;
    Ok(if comparison.owes_nothing() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
