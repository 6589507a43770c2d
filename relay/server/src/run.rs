//! From arguments to an exit status: 0 done, 1 failed, 2 wrong usage or configuration. Every error is one line on stderr.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::config::{ConfigError, Environment};
use crate::{access, client, demo, doctor, listen, machine, serve, top, verify};

/// What a command came to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Wrong usage or configuration.
    #[error(transparent)]
    Usage(#[from] ConfigError),
    /// It was tried, and failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// It was done and found something wrong, which is printed already.
    #[error("")]
    Found,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Usage(ConfigError(message.into()))
    }
}

/// Runs the program with these arguments, the first being its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Output to a pipe that is closed is no failure of ours.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprintln!("millrace-relay: name a command, such as serve, demo or doctor; see --help");
            return ExitCode::from(2);
        }
        Err(error) => {
            eprintln!("millrace-relay: {}", one_line(&error.render().to_string()));
            return ExitCode::from(2);
        }
    };
    match dispatch(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Found) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("millrace-relay: {}", failure.to_string().replace('\n', " "));
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// clap explains itself over several lines; the first says what is wrong, a tip what was meant.
fn one_line(rendered: &str) -> String {
    let mut lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    if first.ends_with(':') {
        // What is missing is listed below.
        let missing: Vec<_> = lines.take_while(|line| !line.starts_with("Usage")).collect();
        return format!("{first} {}; see --help", missing.join(" "));
    }
    // That a flag could be passed as a value helps nobody who mistyped one.
    match lines.find_map(|line| line.strip_prefix("tip: ")).filter(|tip| !tip.contains("as a value")) {
        Some(tip) => format!("{first}; {tip}"),
        None => format!("{first}; see --help"),
    }
}

fn dispatch(command: &Command) -> Result<(), Failure> {
    let environment = Environment {
        variable: &|name| std::env::var_os(name),
        cores_allowed: machine::cores_allowed(),
        has_ipv6: listen::has_ipv6(),
    };
    match command {
        Command::Serve(args) => serve::run(args, &environment),
        Command::Demo => Ok(demo::run()?),
        Command::Verify(args) => verify::run(args, &environment),
        Command::Doctor(args) => doctor::run(args),
        Command::Top(args) => top::run(args, &environment),
        Command::Sign(args) => access::sign(args),
        Command::Keys(args) => access::keys(args),
        other => client::run(other, &environment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], expected: &str) {
        let error = Cli::try_parse_from(arguments).expect_err("must be refused");
        let line = one_line(&error.render().to_string());
        assert!(line.contains(expected) && !line.contains('\n'), "{line}");
    }

    #[test]
    fn usage_errors_are_one_line() {
        check(&["x", "serve", "--stroe", "/tmp"], "--store");
        check(&["x", "remove"], "<ID>");
        check(&["x", "frobnicate"], "frobnicate");
        check(&["x", "caps", "set", "--bogus"], "'--bogus' found; see --help");
    }
}
