//! `serve`: starts a relay, adds what was named, and waits for a signal or a drain. A service manager is told how it goes.

mod replaced;
mod signals;

use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use crate::access;
use crate::cli::ServeArgs;
use crate::config::{Config, Environment};
use crate::ingest::{AddError, NewPull};
use crate::logging;
use crate::relay::Relay;
use crate::run::Failure;
use crate::service::inherited::Inherited;
use crate::service::{Notify, Reload, State, Supervision, status, watchdog_interval};
use crate::start::{Beginning, Running};
use crate::terminal::Terminal;
use crate::tls::Loaded;
use crate::upgrade::Gate;
use crate::upgrade::predecessor::Predecessor;
use crate::upgrade::successor::this_program;

use replaced::{Ended, retire, upgrade, wish};
use signals::{Reloads, Signals};

pub(crate) fn run(args: &ServeArgs, environment: &Environment<'_>) -> Result<(), Failure> {
    if args.check_config {
        return check_config(args, environment);
    }
    let predecessor = Predecessor::from_environment(environment.variable)
        .context("nothing can be taken over from the program that started this one")?;
    let ended = run_after(predecessor.as_ref(), args, environment);
    if let (Err(failure), Some(predecessor)) = (&ended, &predecessor) {
        // Whoever wished for the upgrade is told by the program that goes on.
        predecessor.fail(&failure.to_string());
    }
    ended
}

fn check_config(args: &ServeArgs, environment: &Environment<'_>) -> Result<(), Failure> {
    let config = Config::load(args, environment)?;
    println(config.to_string().trim_end());
    access::gate(&config.access).map_err(|error| Failure::usage(error.to_string()))?;
    let now = jiff::Timestamp::now().as_second();
    if let Some(warning) = certificate(&config)?.and_then(|certificate| certificate.warning(now)) {
        eprintln!("millrace-relay: tls-certificate: {warning}");
    }
    Ok(())
}

/// The certificate of HTTPS, where that is served.
fn certificate(config: &Config) -> Result<Option<Loaded>, Failure> {
    let loaded = config.https.as_ref().map(|https| https.files.load()).transpose();
    loaded.map_err(|error| Failure::usage(error.to_string()))
}

fn run_after(
    predecessor: Option<&Predecessor>,
    args: &ServeArgs,
    environment: &Environment<'_>,
) -> Result<(), Failure> {
    let program = this_program();
    let config = Config::load(args, environment)?;
    let _ = certificate(&config)?;
    access::gate(&config.access).map_err(|error| Failure::usage(error.to_string()))?;
    let beginning = match predecessor {
        Some(predecessor) => {
            let taken = predecessor.take(&config.store).map_err(|error| anyhow!("{error}"))?;
            Beginning { taken: Some((taken, Gate::closed())), ..Beginning::default() }
        }
        None => {
            let inherited = Inherited::take(environment.variable).map_err(|error| anyhow!("{error}"))?;
            Beginning { inherited, ..Beginning::default() }
        }
    };
    let terminal = Terminal::new();
    let levels = logging::start(config.log_format, &config.log_level, terminal.log_writer());
    let mut reload = Reload::new(args, environment, levels, &config);
    let sources = config.sources.clone();
    if !config.store.exists() {
        check_local(&sources)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no descriptors for the main thread")?;
    // From here on a signal is a wish to drain: also before the first client is answered, and while an origin is asked.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let mut reloads = runtime.block_on(async { Reloads::new() })?;
    let gate = beginning.taken.as_ref().map(|(_, gate)| gate.clone());
    let mut running = Running::start_with(config, beginning).map_err(|error| anyhow!("{error}"))?;
    if let (Some(predecessor), Some(gate)) = (predecessor, gate) {
        let halvings = predecessor.ready().map_err(|error| anyhow!("{error}"))?;
        running.relay().caps.change_share(|share| share.before = halvings);
        running
            .serve_predecessor(predecessor)
            .context("the program before this one cannot be told anything")?;
        gate.let_pass();
        tracing::info!("upgrade: this program is the relay now");
    }
    let relay = Arc::clone(running.relay());
    terminal.announce(&relay);
    let notify = Arc::new(Notify::from_environment(environment.variable));
    let watchdog = watchdog_interval(environment.variable);
    let supervision = Supervision::start(Arc::clone(&notify), watchdog, Arc::clone(&relay))
        .context("no thread for the service manager's watchdog")?;
    notify.send(State::Ready(&status(&relay, &[])));
    let mut upgrades = running.upgrades();
    let ended = runtime.block_on(async {
        let mut serving = pin!(serve(&relay, &sources, &terminal));
        loop {
            let wish = tokio::select! {
                wished = &mut serving => return Ended::Stops(wished),
                () = signals.any() => return Ended::Stops(Ok(())),
                never = reloads.run(|| reload_now(&mut reload, &relay, &notify)) => match never {},
                wish = wish(&mut upgrades) => wish,
            };
            // Not interrupted by anything: it ends soon, one way or the other.
            let handover = running.handover(Arc::clone(&notify), program.clone());
            if let Some(successor) = upgrade(handover, &relay, wish).await {
                return Ended::Replaced(successor);
            }
        }
    });
    // Whoever still wishes for one hears that it will not be made here.
    drop(upgrades);
    let ended = match ended {
        Ended::Stops(ended) => ended,
        Ended::Replaced(successor) => {
            notify.leave();
            drop(supervision);
            terminal.clear();
            return retire(&runtime, running, successor, &mut signals);
        }
    };
    notify.send(State::Stopping);
    terminal.clear();
    if let Err(error) = ended {
        running.drain();
        return Err(error.into());
    }
    tracing::info!("draining: no new connections; a second signal ends at once");
    // The second signal is waited for on this thread's runtime while the drain blocks another.
    let drained = std::thread::spawn(move || running.drain());
    let done = runtime.block_on(async {
        let finished = tokio::task::spawn_blocking(move || drained.join());
        tokio::select! {
            _ = finished => true,
            () = signals.any() => false,
        }
    });
    if !done {
        tracing::warn!("a second signal: ending at once");
        std::process::exit(1);
    }
    terminal.summary(&relay);
    Ok(())
}

fn reload_now(reload: &mut Reload<'_>, relay: &Relay, notify: &Notify) {
    notify.send(State::Reloading);
    let outcome = reload.run(relay);
    notify.send(State::Ready(&outcome.err().unwrap_or_else(|| status(relay, &[]))));
}

/// Looks for local sources before a store is made for them: a mistyped name should leave nothing behind. In a store that is there
/// a source may be by now, wherever it was then.
fn check_local(sources: &[String]) -> anyhow::Result<()> {
    for source in sources.iter().map(|source| absolute(source)).filter(|source| source.starts_with('/')) {
        std::fs::metadata(&source).with_context(|| source.clone())?;
    }
    Ok(())
}

/// Adds the sources, then shows how it goes until a drain is asked for over the admin socket.
async fn serve(relay: &Relay, sources: &[String], terminal: &Terminal) -> anyhow::Result<()> {
    add(relay, sources).await?;
    let mut every = tokio::time::interval(terminal.interval());
    loop {
        tokio::select! {
            () = relay.stop.wished() => return Ok(()),
            _ = every.tick() => terminal.show(relay),
        }
    }
}

/// Adds the sources of the command line. One that cannot be had ends the relay: nobody would notice it missing.
async fn add(relay: &Relay, sources: &[String]) -> anyhow::Result<()> {
    for source in sources {
        let named = absolute(source);
        // Most errors name what they are about already.
        let failed = |error: AddError| match error.to_string() {
            text if text.starts_with(&named) => anyhow!("{text}"),
            text => anyhow!("{source}: {text}"),
        };
        let content = loop {
            let pull = NewPull::from_operator(&named).map_err(failed)?;
            match relay.ingest.add(pull).await {
                // It is no mistake of the source: what is here is served meanwhile.
                Err(AddError::Capped(_)) => {}
                added => break added.map_err(failed)?,
            }
        };
        tracing::info!(id = %content.id(), name = content.name(), %source, "serving");
    }
    Ok(())
}

/// What is no URL is a path, and means the same wherever the relay looks from.
pub(crate) fn absolute(source: &str) -> String {
    if source.contains("://") || source.starts_with("magnet:") {
        return source.to_owned();
    }
    std::path::absolute(Path::new(source))
        .map_or_else(|_| source.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// Prints a line of output that was asked for. Who reads may have seen enough (`status | head`): that is no failure of ours.
pub(crate) fn println(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
