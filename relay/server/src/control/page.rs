//! The pages for people: what is here, how far it is, where to get it. No external assets; without scripts they still work, with them
//! they follow along by themselves.

use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use data_encoding::BASE64;
use millrace_engine::event::Document;
use millrace_pagecache::content::Content;
use millrace_proto::admin::{ContentState, ContentStatus};
use millrace_proto::units::{Rate, Size};
use ring::digest::{SHA256, digest};

use super::describe::file_path;
use super::documents::document;
use super::index::{Entry, Filter};
use super::questions::{Questions, without_after};
use super::viewer::Viewer;

/// The icon of the page.
pub(super) const ICON: &str = include_str!("page/icon.svg");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/follow.js");

/// Files listed on the page of one content.
const FILES_MAX: usize = 2000;

/// The policy that goes with every page: nothing from elsewhere, and no script but ours, whatever a name smuggles in.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref());
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// Text that cannot leave its place in HTML, inside of quotes or outside.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// `/`: the contents that a filter lets through, of those that are there for who looks.
pub(super) fn index(questions: &Questions, filter: &Filter, query: &str, viewer: Viewer) -> Document {
    let found = questions.index.page(filter, viewer);
    let mut main = String::new();
    totals(&mut main, questions, viewer);
    search(&mut main, filter);
    if found.entries.is_empty() {
        main.push_str(if filter.text.is_some() || filter.state.is_some() {
            "<p class=empty>Nothing matches.</p>"
        } else {
            "<p class=empty>Nothing here yet. Add something with <code>millrace-relay add URL</code>.</p>"
        });
    }
    for entry in &found.entries {
        card(&mut main, questions, entry, "");
    }
    if found.more
        && let Some(last) = found.entries.last()
    {
        let kept = without_after(query).replace('&', "&amp;");
        let _ = write!(main, "<p class=more><a href=\"?{kept}after={}\">More</a></p>", last.content.id());
    }
    page(200, "Millrace", &main)
}

/// `/c/{id}`: one content with its files.
pub(super) fn content(questions: &Questions, entry: &Entry) -> Document {
    let mut main = String::from("<p><a href=\"../\">All contents</a></p>");
    card(&mut main, questions, entry, "../");
    main.push_str("<ul class=files>");
    let files = || entry.content.layout().files().iter().filter(|file| !file.padding);
    for file in files().take(FILES_MAX) {
        let _ = write!(
            main,
            "<li><a href=\"../{}\">{}</a> <span>{}</span></li>",
            file_path(&entry.content, file),
            Text(&file.path.join("/")),
            Size(file.length)
        );
    }
    main.push_str("</ul>");
    let left_out = files().count().saturating_sub(FILES_MAX);
    if left_out > 0 {
        let _ = write!(main, "<p>And {left_out} more, all in the torrent.</p>");
    }
    page(200, entry.content.name(), &main)
}

/// What is nowhere.
pub(super) fn not_found() -> Document {
    page(
        404,
        "Not found",
        "<h2>Not found</h2><p>There is nothing under this address. <a href=\"/\">What is here</a></p>",
    )
}

fn totals(main: &mut String, questions: &Questions, viewer: Viewer) {
    let (mut http, mut bittorrent) = (0, 0);
    for counters in &questions.relay.counters {
        http += counters.served_http_bytes.value();
        bittorrent += counters.served_bittorrent_bytes.value();
    }
    let rates = questions.index.rates();
    let state = if questions.relay.stop.is_wished() { "draining" } else { "serving" };
    let _ = write!(
        main,
        "<dl class=totals><div><dt>Contents</dt><dd>{}</dd></div><div><dt>Sending</dt><dd>{}</dd></div>\
         <div><dt>Served by HTTP</dt><dd>{}</dd></div><div><dt>Served by BitTorrent</dt><dd>{}</dd></div>\
         <div><dt>From origins</dt><dd>{}</dd></div><div><dt>State</dt><dd>{state}</dd></div></dl>",
        questions.index.count(viewer),
        Rate(rates.http + rates.bittorrent),
        Size(http),
        Size(bittorrent),
        Size(questions.relay.ingest.metrics().origin_bytes.value()),
    );
}

fn search(main: &mut String, filter: &Filter) {
    let text = filter.text.as_deref().unwrap_or_default();
    let _ = write!(
        main,
        "<form><input type=search name=q placeholder=\"Search by name\" aria-label=\"Search by name\" value=\"{}\">\
         <select name=state aria-label=State><option value=\"\">Any state</option>",
        Text(text)
    );
    let states = [
        ContentState::Queued,
        ContentState::Pulling,
        ContentState::Complete,
        ContentState::Paused,
        ContentState::Failed,
    ];
    for state in states {
        let selected = if filter.state == Some(state) { " selected" } else { "" };
        let _ = write!(main, "<option{selected}>{}</option>", word(state));
    }
    main.push_str("</select><button>Search</button></form>");
}

fn word(state: ContentState) -> &'static str {
    match state {
        ContentState::Queued => "queued",
        ContentState::Pulling => "pulling",
        ContentState::Complete => "complete",
        ContentState::Paused => "paused",
        ContentState::Failed => "failed",
    }
}

/// One content. Links are relative, so that they work under whatever name the page was opened; `up` leads to the root.
fn card(main: &mut String, questions: &Questions, entry: &Entry, up: &str) {
    let status = questions.links.content(entry, false);
    let state = word(status.state);
    let _ = write!(
        main,
        "<article class={state}><h2><a href=\"{up}{}\">{}</a></h2><p class=state>{state}{}</p>",
        place(&entry.content),
        Text(&status.name),
        Progress(&status),
    );
    match status.length {
        Some(length) if length > 0 => {
            let _ = write!(
                main,
                "<progress max=\"{length}\" value=\"{}\"></progress>",
                status.have_bytes.min(length)
            );
        }
        _ => {}
    }
    if let Some(error) = &status.error {
        let _ = write!(main, "<p class=error>{}</p>", Text(error));
    }
    main.push_str("<p class=links>");
    // A folder is no download of its own: its link leads to the page of its files.
    let single = super::describe::single_file(&entry.content).is_some();
    let label = if single { "Download" } else { "Files" };
    let _ = write!(main, "<a href=\"{up}{}\">{label}</a>", place(&entry.content));
    let id = &status.id;
    if status.torrent_url.is_some() {
        let _ = write!(main, "<a href=\"{up}c/{id}.torrent\">Torrent</a>");
    }
    if entry.content.v1_half().is_some() {
        let title = "For clients that cannot read the hybrid one, such as Transmission before 4.0";
        let _ = write!(main, "<a href=\"{up}c/{id}.v1.torrent\" title=\"{title}\">Torrent (v1)</a>");
    }
    if let Some(magnet) = &status.magnet {
        let _ = write!(main, "<a href=\"{}\">Magnet</a>", Text(magnet));
    }
    let _ = write!(main, "<a href=\"{up}c/{id}.meta4\">Metalink</a><a href=\"{up}c/{id}.json\">JSON</a></p>");
    if let Some(sha256) = &status.sha256 {
        let _ = write!(main, "<p class=hash>SHA-256 <code>{sha256}</code></p>");
    }
    main.push_str("</article>");
}

fn place(content: &Content) -> String {
    match super::describe::single_file(content) {
        Some(file) => file_path(content, file),
        None => format!("c/{}", content.id()),
    }
}

/// How far a content is and how fast it moves.
struct Progress<'a>(&'a ContentStatus);

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ContentStatus { length, have_bytes, rates, state, served, .. } = self.0;
        match length {
            Some(length) if *state == ContentState::Complete => write!(f, " · {}", Size(*length))?,
            Some(length) => write!(f, " · {} of {}", Size(*have_bytes), Size(*length))?,
            None => write!(f, " · {} so far", Size(*have_bytes))?,
        }
        if rates.pull > 0 {
            write!(f, " · pulling at {}", Rate(rates.pull))?;
        }
        if rates.http + rates.bittorrent > 0 {
            write!(f, " · sending at {}", Rate(rates.http + rates.bittorrent))?;
        }
        if served.http + served.bittorrent > 0 {
            write!(f, " · served {} by HTTP, {} by BitTorrent", Size(served.http), Size(served.bittorrent))?;
        }
        Ok(())
    }
}

fn page(status: u16, title: &str, main: &str) -> Document {
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta name=color-scheme content=\"light dark\"><title>{}</title><link rel=icon href=\"/favicon.svg\" type=\"image/svg+xml\">\
         <style>{STYLE}</style><header><h1><a href=\"/\">Millrace</a></h1></header><main>{main}</main><script>{SCRIPT}</script></html>\n",
        Text(title)
    );
    let mut document = document(status, "text/html; charset=utf-8", html.into_bytes());
    document.fields.push(("Content-Security-Policy", POLICY.clone()));
    document.fields.push(("Referrer-Policy", "no-referrer".to_owned()));
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        let hostile = "<script>alert('1')</script>\" onload=\"x&amp;";
        let shown = Text(hostile).to_string();
        assert!(!shown.contains(['<', '>', '"', '\'']), "{shown}");
        assert!(shown.contains("&amp;amp;"));
    }

    #[test]
    fn inlined_parts_cannot_end_their_elements() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</"));
    }
}
