//! `top`: a live view of a running relay, made of nothing but what its admin socket tells: rates, connections, caps, shards, pulls and
//! what happens. A thread asks once a second, another one follows the events, a third one reads keys; this one draws.

mod frame;
mod gather;
mod journal;
#[cfg(test)]
mod shown;
mod view;

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use anyhow::{Context, anyhow};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::TopArgs;
use crate::client::Client;
use crate::config::Environment;
use crate::run::Failure;

use gather::Sample;
use view::{Action, View};

/// Time from one sample to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// A frame that is printed has so many columns, where the terminal does not say otherwise, and so many lines.
const PLAIN: (u16, u16) = (120, 40);

/// What the drawing thread hears.
enum Message {
    /// How the relay is, or why that is not known.
    Sample(Result<Box<Sample>, String>),
    /// Something happened.
    Event(journal::Line),
    Key(KeyEvent),
    /// The size of the terminal changed.
    Resized,
    Quit,
}

pub(crate) fn run(args: &TopArgs, environment: &Environment<'_>) -> Result<(), Failure> {
    let client = Client::new(&args.client, environment)?;
    if args.client.json {
        return lines(&client, args.once);
    }
    if args.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return once(&client);
    }
    Ok(live(&client)?)
}

/// One sample a second as a line of JSON, until nobody reads any more.
fn lines(client: &Client, once: bool) -> Result<(), Failure> {
    loop {
        let sample = gather::sample(client)?;
        let line = serde_json::to_string(&sample).context("a sample cannot be written")?;
        if writeln!(std::io::stdout(), "{line}").is_err() || once {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

/// One frame as text, after the second that the rates of shards take.
fn once(client: &Client) -> Result<(), Failure> {
    let mut view = View::default();
    view.note(gather::sample(client)?);
    std::thread::sleep(INTERVAL);
    view.note(gather::sample(client)?);
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let area = Rect::new(0, 0, columns.unwrap_or(PLAIN.0).clamp(40, 400), PLAIN.1);
    crate::serve::println(&text(&view, area));
    Ok(())
}

/// A frame without colours, and without what would be empty lines at its end.
fn text(view: &View, area: Rect) -> String {
    let mut buffer = Buffer::empty(area);
    frame::draw(view, area, &mut buffer);
    let rows = buffer.content().chunks(usize::from(area.width));
    let lines: Vec<String> = rows
        .map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned())
        .collect();
    lines.join("\n").trim_end().to_owned()
}

fn live(client: &Client) -> anyhow::Result<()> {
    let (sender, messages) = mpsc::channel();
    let socket = client.socket().to_owned();
    spawn("samples", &sender, {
        let socket = socket.clone();
        move |sender| gather::samples(socket, &sender)
    })?;
    spawn("events", &sender, move |sender| journal::follow(socket, &sender))?;
    spawn("signals", &sender, |sender| signals(&sender))?;
    // From here on a panic and every way out put the terminal back as it was.
    let mut terminal = ratatui::try_init()
        .map_err(|error| anyhow!("the terminal cannot be drawn on: {error}; try --once"))?;
    let drawn = spawn("keys", &sender, |sender| keys(&sender)).and_then(|()| draw(&mut terminal, &messages));
    ratatui::restore();
    drawn
}

fn spawn(
    name: &str,
    sender: &Sender<Message>,
    work: impl FnOnce(Sender<Message>) + Send + 'static,
) -> anyhow::Result<()> {
    let sender = sender.clone();
    std::thread::Builder::new().name(name.into()).spawn(move || work(sender)).context("no thread")?;
    Ok(())
}

/// Draws after each message, until told to stop.
fn draw(terminal: &mut ratatui::DefaultTerminal, messages: &Receiver<Message>) -> anyhow::Result<()> {
    let mut view = View::default();
    loop {
        terminal
            .draw(|frame| frame::draw(&view, frame.area(), frame.buffer_mut()))
            .context("the terminal is gone")?;
        match messages.recv() {
            Ok(Message::Sample(Ok(sample))) => view.note(*sample),
            Ok(Message::Sample(Err(error))) => view.lost(error),
            Ok(Message::Event(line)) => view.happened(line),
            Ok(Message::Resized) => {}
            Ok(Message::Key(key)) => match action(key) {
                Some(Action::Quit) => return Ok(()),
                Some(action) => view.act(action),
                None => {}
            },
            Ok(Message::Quit) | Err(_) => return Ok(()),
        }
    }
}

fn keys(sender: &Sender<Message>) {
    loop {
        let message = match event::read() {
            Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => Message::Key(key),
            Ok(Input::Resize(..)) => Message::Resized,
            Ok(_) => continue,
            Err(_) => Message::Quit,
        };
        let ends = matches!(message, Message::Quit);
        if sender.send(message).is_err() || ends {
            return;
        }
    }
}

/// A signal ends it as `q` does: the terminal is put back.
fn signals(sender: &Sender<Message>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = kinds.map(signal) else { return };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    });
    let _ = sender.send(Message::Quit);
}

fn action(key: KeyEvent) -> Option<Action> {
    Some(match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Action::Quit,
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Action::Help,
        KeyCode::Esc => Action::Close,
        KeyCode::Char('s') => Action::Sort,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Up | KeyCode::Char('k') => Action::Scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => Action::Scroll(1),
        KeyCode::PageUp => Action::Scroll(-10),
        KeyCode::PageDown => Action::Scroll(10),
        KeyCode::Home | KeyCode::Char('g') => Action::Scroll(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => Action::Scroll(isize::MAX),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let check = |code, modifiers| action(KeyEvent::new(code, modifiers));
        assert_eq!(check(KeyCode::Char('q'), KeyModifiers::NONE), Some(Action::Quit));
        assert_eq!(check(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(check(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(check(KeyCode::Char('s'), KeyModifiers::NONE), Some(Action::Sort));
        assert_eq!(check(KeyCode::Char('p'), KeyModifiers::NONE), Some(Action::Pause));
        assert_eq!(check(KeyCode::Char('?'), KeyModifiers::SHIFT), Some(Action::Help));
    }
}
