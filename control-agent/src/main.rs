//! `millrace-agent`: keeps one relay in step with a controller. It connects outwards only, takes signed documents of what the relay
//! should be, and reports what is.
#![forbid(unsafe_code)]

mod admin;
mod check;
mod cli;
mod config;
mod converge;
mod documents;
mod enroll;
mod folder;
mod health;
mod identity;
mod keeper;
mod link;
mod plan;
mod reach;
mod report;
mod run;
mod session;
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    run::run(std::env::args_os())
}
