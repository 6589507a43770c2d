//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Keeps a Millrace relay in step with a controller.
#[derive(Debug, Parser)]
#[command(name = "millrace-agent", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep the relay in step, until told to stop.
    Run(RunArgs),
    /// Make this box known to a controller.
    ///
    /// Makes a key, which stays here, and has the controller accept it. Again with the same token after a failure, it goes on with the same key.
    Enroll(EnrollArgs),
    /// Test whether a controller speaks the protocol.
    ///
    /// Prints one line for each check; exit status 1 when one failed. With a token it enrols a box of its own making and connects as that.
    CheckController(CheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/millrace/agent.toml")]
    pub(crate) config: PathBuf,
    /// Check the configuration and end.
    #[arg(long)]
    pub(crate) check_config: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnrollArgs {
    /// Where the controller is: https://…
    pub(crate) url: String,
    /// What the controller gave out for this box; `-` reads it from standard input.
    pub(crate) token: String,
    /// What to call this box.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Configuration file, of which the folder of the state, proxy and certificates count [default: /etc/millrace/agent.toml, if there].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Where the controller is: https://…
    pub(crate) url: String,
    /// An enrolment token, which is used up. Without one only what needs no enrolment is checked.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Configuration file, of which proxy and certificates count [default: /etc/millrace/agent.toml, if there].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
