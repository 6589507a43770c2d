//! From arguments to an exit status: 0 done, 1 failed, 2 wrong usage or configuration. Every error is one line on stderr.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::admin::Admin;
use crate::cli::{Cli, Command, RunArgs};
use crate::config::{Config, ConfigError};
use crate::documents::Documents;
use crate::folder::Folder;
use crate::identity::Identity;
use crate::keeper::Keeper;
use crate::session::Session;
use crate::{check, enroll};

/// What a command came to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Wrong usage or configuration.
    #[error("{0}")]
    Usage(String),
    /// It was tried, and failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// It was done and found something wrong, which is printed already.
    #[error("")]
    Found,
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Usage(error.to_string())
    }
}

/// Runs the program with these arguments, the first being its name.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Output to a pipe that is closed is no failure of ours.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprintln!("millrace-agent: name a command: run, enroll or check-controller; see --help");
            return ExitCode::from(2);
        }
        Err(error) => {
            let rendered = error.render().to_string();
            let lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
            let said: Vec<_> = lines.take_while(|line| !line.starts_with("Usage")).collect();
            let said = said.join(" ");
            eprintln!("millrace-agent: {}; see --help", said.trim_start_matches("error: "));
            return ExitCode::from(2);
        }
    };
    let done = match cli.command {
        Command::Run(args) => keep(&args),
        Command::Enroll(args) => enroll::enroll(args),
        Command::CheckController(args) => check::check(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Found) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("millrace-agent: {}", failure.to_string().replace('\n', " "));
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// One thread does everything.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}

/// `run`: until a signal says otherwise.
fn keep(args: &RunArgs) -> Result<(), Failure> {
    let config = Config::read(&args.config)?;
    if args.check_config {
        return Ok(());
    }
    log(&config.log_level);
    let folder = Folder::new(config.state.clone());
    let identity = Identity::load(&folder)?;
    let documents = Documents::open(&folder, &identity)?;
    let keeper = Keeper::open(&config, &folder, Admin::at(&config.admin)?, documents.held())?;
    let session = Session::new(&config, identity, documents, keeper.outcome())?;
    runtime()?.block_on(async {
        let stop = |kind| signal(kind).context("no signals can be waited for");
        let (mut term, mut interrupt) = (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?);
        tracing::info!(
            relay = session.relay(),
            controller = session.url(),
            "millrace-agent {} runs",
            env!("CARGO_PKG_VERSION")
        );
        tokio::select! {
            never = keeper.run() => match never {},
            never = session.run() => match never {},
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// `MILLRACE_LOG` chooses levels and modules, or else the configuration.
fn log(levels: &Targets) {
    let chosen = std::env::var("MILLRACE_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    // journald has the time already.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let layer: Box<dyn tracing_subscriber::Layer<_> + Send + Sync> =
        if is_journal { Box::new(layer.without_time()) } else { Box::new(layer) };
    let filter = chosen.unwrap_or_else(|| levels.clone());
    let _ =
        tracing_subscriber::registry().with(tracing_subscriber::Layer::with_filter(layer, filter)).try_init();
}

/// The configuration that a command takes proxy and certificates from: the named file, or the usual one if it is there.
pub(crate) fn configuration(named: Option<&Path>) -> Result<Config, Failure> {
    let usual = Path::new("/etc/millrace/agent.toml");
    Ok(match named.or_else(|| usual.exists().then_some(usual)) {
        Some(path) => Config::read(path)?,
        None => Config::check(Path::new("agent.toml"), "")?,
    })
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
