//! `verify`: hashes everything stored again and compares. Offline it opens the store itself; a store that a relay is running is
//! verified by that relay.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use millrace_pagecache::{StoreError, disk};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::VerifyArgs;
use crate::client::Client;
use crate::config::Environment;
use crate::run::Failure;
use crate::serve::println;

/// Damaged pieces that a report names; the rest is only counted.
const PIECES_NAMED_MAX: usize = 100;

/// What is said where the note of damage could not be written down.
pub(crate) const FORGETTABLE: &str = "a restart will not know of this damage";

/// What was found of one content, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Report {
    /// The content.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Pieces whose hashes match.
    pub good: u32,
    /// Pieces that the store vouched for and that are damaged.
    pub damaged: u32,
    /// The first of them.
    pub damaged_pieces: Vec<u32>,
    /// Pieces that nobody vouches for: not arrived, or no hash known.
    pub absent: u32,
}

impl Report {
    /// Whether anything is wrong.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged > 0
    }
}

impl From<disk::Report> for Report {
    fn from(report: disk::Report) -> Self {
        Report {
            id: report.id.to_string(),
            name: report.name,
            good: report.good,
            damaged: u32::try_from(report.bad.len()).unwrap_or(u32::MAX),
            damaged_pieces: report.bad.iter().take(PIECES_NAMED_MAX).map(|piece| piece.0).collect(),
            absent: report.absent,
        }
    }
}

/// The command.
pub(crate) fn run(args: &VerifyArgs, environment: &Environment<'_>) -> Result<(), Failure> {
    let folder = args.store.clone().unwrap_or_else(|| environment.default_store());
    // Who names a relay and no store means the store of that relay; so does who has no store here, and a relay.
    let names_relay = args.client.admin.is_some() || (environment.variable)("MILLRACE_ADMIN").is_some();
    if args.store.is_none()
        && (names_relay || !folder.is_dir())
        && let Ok(client) = Client::new(&args.client, environment)
    {
        return show(&by_relay(&client)?, args.client.json);
    }
    if !folder.is_dir() {
        return Err(anyhow!("{}: there is no store; name its folder with --store", folder.display()).into());
    }
    let reports = match offline(&folder) {
        Ok(reports) => reports,
        Err(StoreError::InUse(_)) => by_relay(&relay_of(args, environment, &folder)?)?,
        Err(error) => return Err(anyhow!(error).into()),
    };
    show(&reports, args.client.json)
}

fn offline(folder: &Path) -> Result<Vec<Report>, StoreError> {
    let bar = bar();
    let reports = disk::verify(folder, |content, done, all| {
        bar.set_length(u64::from(all));
        bar.set_position(u64::from(done));
        bar.set_message(content.name().replace(char::is_control, "?"));
    })?;
    bar.finish_and_clear();
    for report in &reports {
        if let Some(error) = &report.forgettable {
            eprintln!("millrace-relay: {}: {FORGETTABLE}: {error}", report.id);
        }
    }
    Ok(reports.into_iter().map(Report::from).collect())
}

/// Progress for who watches; elsewhere nothing.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    match ProgressStyle::with_template("{msg:30!} {bar:30} {pos} of {len} {eta}") {
        Ok(style) => bar.with_style(style),
        // The template is fixed, and a plain bar is a bar.
        Err(_) => bar,
    }
}

/// The relay that holds the store in `folder`.
fn relay_of(args: &VerifyArgs, environment: &Environment<'_>, folder: &Path) -> Result<Client, Failure> {
    let beside = folder.join("admin.sock");
    match &args.client.admin {
        None if beside.exists() => Client::at(beside),
        _ => Client::new(&args.client, environment),
    }
}

/// A running relay holds the store: it hashes, and also stops serving what is damaged.
fn by_relay(client: &Client) -> Result<Vec<Report>, Failure> {
    let contents = client.contents()?;
    let bar = bar();
    bar.set_length(u64::try_from(contents.len()).unwrap_or(u64::MAX));
    let mut reports = Vec::new();
    for listed in contents {
        let answer =
            client.ask(reqwest::Method::POST, &format!("/v1/contents/{}/verify", listed.id), None)?;
        bar.set_message(listed.name.replace(char::is_control, "?"));
        reports.push(serde_json::from_value(answer.body).context("the relay's answer is not understood")?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(reports)
}

fn show(reports: &[Report], json: bool) -> Result<(), Failure> {
    let damaged = reports.iter().filter(|report| report.is_damaged()).count();
    if json {
        println(&json!({ "contents": reports, "damaged": damaged }).to_string());
    } else {
        for report in reports {
            let what = if report.is_damaged() {
                let total = report.good + report.damaged;
                format!("DAMAGED: {} of {total} pieces, such as {:?}", report.damaged, report.damaged_pieces)
            } else {
                format!("good: {} pieces, {} not there", report.good, report.absent)
            };
            println(&format!("{}  {}  {what}", report.id, report.name.replace(char::is_control, "?")));
        }
        println(&format!("{} contents, {damaged} damaged", reports.len()));
    }
    if damaged > 0 { Err(Failure::Found) } else { Ok(()) }
}
