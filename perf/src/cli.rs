//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use millrace_proto::units::Size;

use crate::settings::Settings;

/// Puts load on a Millrace relay over HTTP and BitTorrent, and says what it delivered and what that cost.
///
/// It changes no setting of the system, drops no cache, and cleans up on Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "millrace-perf", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask for ranges over HTTP
    Http(LoadArgs),
    /// Download blocks over BitTorrent
    Bt(LoadArgs),
    /// Both at the same time, with so many connections of each
    Mixed(LoadArgs),
    /// Download what the relay is still pulling from an origin of bounded rate: first byte, rate, and what the origin sent
    Faststart(LoadArgs),
    /// Ask for ranges that are not in memory, each once a pass; the page cache is emptied of the test file alone
    Cold(LoadArgs),
    /// Both protocols under caps that are halved, doubled, paused, lifted and narrowed: whether they hold, and how soon
    Caps(LoadArgs),
    /// Both protocols for a long time: whether memory grows and errors come
    Soak(LoadArgs),
    /// Measure our relay and other servers that are installed here side by side: nginx, libtorrent, Transmission, rqbit; and ourselves against
    /// every other target
    Compare(crate::compare::CompareArgs),
    /// Run scenario files, one after another
    Run(RunArgs),
    /// Write the test file, for a relay on another box: only such a file can be checked by --verify
    Payload(PayloadArgs),
    /// Serve ranges of a file by a loop that does nothing else: what `compare` takes for the kernel's part
    #[command(hide = true)]
    Bare(BareArgs),
}

/// A load by flags.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Scenario file (TOML): its keys are these flags, which win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// Scenarios by file.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Scenario files (TOML)
    #[arg(value_name = "FILE", required = true)]
    pub(crate) scenarios: Vec<PathBuf>,
    /// Run each for a fraction of a second, on a small file, with few connections and every byte checked: shows that it runs, not how fast
    #[arg(long)]
    pub(crate) tiny: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// The test file.
#[derive(Debug, Args)]
pub(crate) struct PayloadArgs {
    /// File to write; it must not be there yet
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its length
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(crate) content_bytes: Size,
    /// What its bytes follow from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What is served.
#[derive(Debug, Args)]
pub(crate) struct BareArgs {
    /// File to serve
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: std::net::SocketAddr,
}

/// Where results go, besides the table.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ReportArgs {
    /// Write results as JSON; `-` is standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write results as a page with plots, one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write CPU time per GB as a picture (SVG), for a document: with --sweep against the number of connections, with compare of every server
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_flag_has_help() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        Cli::command().debug_assert();
        check(&Cli::command());
    }

    #[test]
    fn the_commands_of_the_readme_are_accepted() {
        let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let readme = std::fs::read_to_string(readme).unwrap();
        let lines = readme.lines().filter(|line| line.starts_with("    millrace-perf "));
        let mut count = 0;
        for line in lines {
            let words = line.split('#').next().unwrap().split_whitespace();
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
            count += 1;
        }
        assert!(count >= 6, "only {count} commands were found");
    }
}
