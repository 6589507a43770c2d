//! `serve`: starts a relay, adds what was named, and waits for a signal or a drain.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ServeArgs;
use crate::config::{Config, Environment};
use crate::ingest::{AddError, NewPull};
use crate::logging;
use crate::relay::Relay;
use crate::run::Failure;
use crate::start::Running;
use crate::terminal::Terminal;

pub(crate) fn run(args: &ServeArgs, environment: &Environment<'_>) -> Result<(), Failure> {
    let config = Config::load(args, environment)?;
    if args.check_config {
        println(&format!("{config:#?}"));
        return Ok(());
    }
    let terminal = Terminal::new();
    logging::start(config.log_format, terminal.log_writer());
    let sources = config.sources.clone();
    let running = Running::start(config).map_err(|error| anyhow!("{error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no descriptors for the main thread")?;
    let relay = Arc::clone(running.relay());
    let ended = runtime.block_on(async {
        terminal.announce(&relay);
        add(&relay, &sources).await?;
        wait(&relay, &terminal).await
    });
    terminal.clear();
    if let Err(error) = ended {
        running.drain();
        return Err(error.into());
    }
    tracing::info!("draining: no new connections; a second signal ends at once");
    // The second signal is waited for on this thread's runtime while the drain blocks another.
    let drained = std::thread::spawn(move || running.drain());
    let done = runtime.block_on(async {
        let second = second_signal();
        let finished = tokio::task::spawn_blocking(move || drained.join());
        tokio::select! {
            _ = finished => true,
            () = second => false,
        }
    });
    if !done {
        tracing::warn!("a second signal: ending at once");
        std::process::exit(1);
    }
    terminal.summary(&relay);
    Ok(())
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
        let pull = NewPull::from_operator(&named).map_err(failed)?;
        let content = relay.ingest.add(pull).await.map_err(failed)?;
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

/// Until a signal, or a drain asked for over the admin socket.
async fn wait(relay: &Relay, terminal: &Terminal) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;
    let mut every = tokio::time::interval(terminal.interval());
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = relay.stop.wished() => return Ok(()),
            _ = every.tick() => terminal.show(relay),
        }
    }
}

async fn second_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Prints a line of output that was asked for. Who reads may have seen enough (`status | head`): that is no failure of ours.
pub(crate) fn println(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
