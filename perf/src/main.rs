//! `millrace-perf`: load over HTTP and BitTorrent, and what it costs the server.
#![forbid(unsafe_code)]

mod applies;
mod bare;
mod beside;
mod bounds;
mod cli;
mod cold;
mod compare;
mod cores;
mod faststart;
mod interrupt;
mod load;
mod made;
mod measure;
mod origin;
mod output;
mod payload;
mod peers;
mod plan;
mod progress;
mod report;
mod run;
mod scenario;
mod server;
mod settings;
mod stage;
mod subject;

use std::net::TcpListener;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use cli::{BareArgs, Cli, Command, LoadArgs, PayloadArgs, ReportArgs, RunArgs};
use interrupt::{Interrupt, Interrupted};
use plan::Plan;
use report::Report;
use settings::Kind;
use stage::Stage;
use subject::Subject;

/// Wrong usage or settings.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(130),
        Err(error) => {
            eprintln!("millrace-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Http(args) => run_load(Kind::Http, args),
        Command::Bt(args) => run_load(Kind::Bt, args),
        Command::Mixed(args) => run_load(Kind::Mixed, args),
        Command::Faststart(args) => run_load(Kind::Faststart, args),
        Command::Cold(args) => run_load(Kind::Cold, args),
        Command::Caps(args) => run_load(Kind::Caps, args),
        Command::Soak(args) => run_load(Kind::Soak, args),
        Command::Compare(args) => compare::compare(&args),
        Command::Run(args) => run_scenarios(args),
        Command::Payload(args) => write_payload(&args).map(|()| ExitCode::SUCCESS),
        Command::Bare(BareArgs { file, listen }) => {
            let listener = TcpListener::bind(listen).with_context(|| format!("listening at {listen}"))?;
            match bare::serve(&file, &listener)? {}
        }
    }
}

fn run_load(kind: Kind, args: LoadArgs) -> anyhow::Result<ExitCode> {
    let plan = || {
        let base = args.scenario.as_deref().map(|path| scenario::read_for(path, kind)).transpose()?;
        let settings = args.settings.over(base.unwrap_or_default());
        settings.check_for(kind)?;
        Plan::check_all(kind, &settings, &cores::allowed()?)
    };
    match plan() {
        Ok(plans) => run_plans(&plans, &args.report),
        Err(error) => Ok(refuse(&error)),
    }
}

fn run_scenarios(args: RunArgs) -> anyhow::Result<ExitCode> {
    let plan = |path: &std::path::PathBuf| {
        let file = scenario::read(path)?;
        let kind = file.kind.with_context(|| format!("{}: kind is missing", path.display()))?;
        // The flags are for those of the scenarios that heed them.
        file.check_for(kind).with_context(|| path.display().to_string())?;
        let settings = args.settings.clone().over(file);
        let settings = if args.tiny { scenario::tiny(settings) } else { settings };
        Plan::check_all(kind, &settings, &cores::allowed()?).with_context(|| path.display().to_string())
    };
    match args.scenarios.iter().map(plan).collect::<anyhow::Result<Vec<Vec<Plan>>>>() {
        Ok(plans) => run_plans(&plans.concat(), &args.report),
        Err(error) => Ok(refuse(&error)),
    }
}

/// Thousands of connections need as many descriptors; the relay inherits the limit.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it cannot be raised, the first connection beyond it says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The end of a command that was not what it should be.
fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("millrace-perf: {error:#}");
    ExitCode::from(USAGE)
}

/// Runs all plans, reports, and fails when a floor was missed or something went wrong.
fn run_plans(plans: &[Plan], to: &ReportArgs) -> anyhow::Result<ExitCode> {
    if let Err(error) = to.check() {
        return Ok(refuse(&error));
    }
    if to.svg.is_some() && plans.iter().filter(|plan| plan.swept).count() < report::sweep::POINTS_MIN {
        return Ok(refuse(&anyhow::anyhow!("--svg: sweep over three numbers of connections or more")));
    }
    let interrupt = Interrupt::watch()?;
    raise_descriptor_limit();
    let mut report = Report::new();
    let (runtime, reason) = load::runtime::choose();
    if let Some(reason) = reason {
        let text = format!("the load is driven by epoll, since io_uring cannot be used here: {reason}");
        eprintln!("millrace-perf: {text}");
        report.note(text);
    }
    for plan in plans {
        if !plan.about.is_empty() {
            eprintln!("{}", plan.about);
        }
        if let Subject::Own { congestion, .. } = &plan.subject {
            report.note(match congestion {
                Some(name) => format!("the relay sends with congestion control {name}"),
                None => {
                    "the relay sends with the system's congestion control: this user may not choose cubic"
                        .into()
                }
            });
        }
        let stage = Stage::set(plan, runtime, &interrupt)?;
        match plan.kind {
            Kind::Faststart => faststart::run(&stage, &mut report)?,
            Kind::Cold => cold::run(&stage, &mut report)?,
            Kind::Http | Kind::Bt | Kind::Mixed | Kind::Caps | Kind::Soak => run::run(&stage, &mut report)?,
        }
    }
    let picture = || report::sweep::picture(&report.measurements);
    to.write(&report, || report.to_string(), || report::html::page(&report), picture)?;
    Ok(if report.errors() > 0 || !report.missed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn write_payload(args: &PayloadArgs) -> anyhow::Result<()> {
    let path = args.file.display();
    let mut file = std::fs::File::create_new(&args.file).with_context(|| format!("creating {path}"))?;
    let payload = payload::Payload::new(args.seed);
    let written = payload.write(&mut file, 0..args.content_bytes.0, &Interrupt::watch()?);
    written.with_context(|| format!("writing {path}")).inspect_err(|_| {
        // What is there of it is no test file.
        let _ = std::fs::remove_file(&args.file);
    })
}
