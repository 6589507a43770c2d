//! The commands that speak to a running relay: one request over its admin socket, and its answer for a person or as JSON.

mod access;
mod caps;
mod follow;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use millrace_proto::admin::{
    AddContent, Addresses, ContentState, ContentStatus, Index, Problem, RelayStatus, Upgraded,
};
use millrace_proto::units::{Rate, Size};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cli::{AddArgs, ClientArgs, Command, StatusArgs};
use crate::config::{Environment, check_socket_path};
use crate::run::Failure;
use crate::serve::{absolute, println};

pub(crate) use follow::Followed;

/// How often, and after which time, a relay is asked again that says that it cannot for the moment.
const RETRIES_MAX: u32 = 20;
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A running relay, behind its socket.
pub(crate) struct Client {
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    socket: PathBuf,
}

/// What the relay answered.
pub(crate) struct Answer {
    pub(crate) body: Value,
    next: Option<String>,
    etag: Option<String>,
}

impl Client {
    /// Finds the socket.
    pub(crate) fn new(args: &ClientArgs, environment: &Environment<'_>) -> Result<Self, Failure> {
        let candidates = environment.admin_candidates(args.admin.as_deref());
        for candidate in &candidates {
            check_socket_path(candidate)?;
        }
        let socket = candidates.iter().find(|candidate| candidate.exists()).ok_or_else(|| {
            let looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
            anyhow!("no relay is running here (looked for {}): start one with `serve`, or name its socket with --admin", looked.join(", "))
        })?;
        Self::at(socket.clone())
    }

    pub(crate) fn at(socket: PathBuf) -> Result<Self, Failure> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Nothing is trusted over a socket of this machine, and a system without certificates has no other way to say so.
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .unix_socket(socket.clone())
            .build()
            .context("no client for the admin socket")?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
        Ok(Client { http, runtime, socket })
    }

    /// One request; a problem document becomes the error.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        Ok(self.runtime.block_on(self.request(method, path, body, None))?)
    }

    /// As [`Client::ask`], if what is there still has this entity tag.
    fn ask_if(&self, method: Method, path: &str, body: &Value, tag: Option<&str>) -> Result<Answer, Failure> {
        Ok(self.runtime.block_on(self.request(method, path, Some(body), tag))?)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        tag: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let make = || {
            let mut request = self.http.request(method.clone(), format!("http://relay{path}"));
            if let Some(tag) = tag {
                request = request.header("If-Match", tag);
            }
            if let Some(body) = body {
                request = request.header("Content-Type", "application/json").body(body.to_string());
            }
            request
        };
        let silent = |error| self.silent(error);
        let mut response = make().send().await.map_err(silent)?;
        for _ in 0..RETRIES_MAX {
            // Another program takes the relay over, for a moment.
            let is_momentary = response.status() == StatusCode::SERVICE_UNAVAILABLE
                && response.headers().contains_key("retry-after");
            if !is_momentary {
                break;
            }
            tokio::time::sleep(RETRY_AFTER).await;
            response = make().send().await.map_err(silent)?;
        }
        let status = response.status();
        let field = |name: &str| response.headers().get(name).and_then(|field| field.to_str().ok());
        let (next, etag) = (field("link").and_then(next_page), field("etag").map(str::to_owned));
        let bytes = response.bytes().await.map_err(silent)?;
        if !status.is_success() {
            let problem = serde_json::from_slice::<Problem>(&bytes).ok().and_then(|problem| problem.detail);
            return Err(anyhow!("{}", problem.unwrap_or_else(|| format!("the relay answers {status}"))));
        }
        if status == StatusCode::NO_CONTENT {
            return Ok(Answer { body: Value::Null, next: None, etag });
        }
        Ok(Answer {
            body: serde_json::from_slice(&bytes).context("the relay's answer is no JSON")?,
            next,
            etag,
        })
    }

    /// What to say of a relay that does not answer.
    fn silent(&self, error: reqwest::Error) -> anyhow::Error {
        let error = anyhow::Error::new(error);
        anyhow!(
            "the relay behind {} does not answer ({}): is it running, and may you use its socket?",
            self.socket.display(),
            error.root_cause()
        )
    }

    /// Where the relay is.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// All contents, page by page.
    pub(crate) fn contents(&self) -> Result<Vec<ContentStatus>, Failure> {
        self.contents_of("/v1/contents", usize::MAX)
    }

    /// The contents of a list, from the page at `path` on, of so many pages at most.
    pub(crate) fn contents_of(&self, path: &str, pages_max: usize) -> Result<Vec<ContentStatus>, Failure> {
        let mut contents = Vec::new();
        let mut path = path.to_owned();
        for _ in 0..pages_max {
            let answer = self.ask(Method::GET, &path, None)?;
            let page: Index = read(answer.body)?;
            contents.extend(page.contents);
            match answer.next {
                Some(next) => path = next,
                None => break,
            }
        }
        Ok(contents)
    }
}

/// The target of a `Link` with `rel="next"` (RFC 8288), as the relay writes it.
fn next_page(link: &str) -> Option<String> {
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    relation.contains("rel=\"next\"").then(|| target.to_owned())
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    Ok(serde_json::from_value(value)
        .context("the relay's answer is not understood: is it of another version?")?)
}

/// Runs a command that speaks to a relay.
pub(crate) fn run(command: &Command, environment: &Environment<'_>) -> Result<(), Failure> {
    let act = |args: &crate::cli::ContentArgs, action: &str| {
        let path = format!("/v1/contents/{}/{action}", segment(&args.id)?);
        let answer = Client::new(&args.client, environment)?.ask(Method::POST, &path, None)?;
        show_content(&args.client, answer.body)
    };
    match command {
        Command::Add(args) => add(args, environment),
        Command::Remove(args) => {
            let path = format!("/v1/contents/{}", segment(&args.id)?);
            Client::new(&args.client, environment)?.ask(Method::DELETE, &path, None)?;
            println(&if args.client.json {
                json!({"removed": args.id}).to_string()
            } else {
                format!("removed {}", args.id)
            });
            Ok(())
        }
        Command::Pause(args) => act(args, "pause"),
        Command::Resume(args) => act(args, "resume"),
        Command::Pin(args) => act(args, "pin"),
        Command::Unpin(args) => act(args, "unpin"),
        Command::Status(args) => status(args, environment),
        Command::Access(args) => access::run(args, environment),
        Command::Caps(args) => caps::run(args, environment),
        Command::Upgrade(args) => {
            let answer = Client::new(args, environment)?.ask(Method::POST, "/v1/upgrade", None)?;
            if args.json {
                println(&answer.body.to_string());
            } else {
                let Upgraded { version, process } = read(answer.body)?;
                println(&format!("upgraded: millrace-relay {version} is the relay now (process {process})"));
            }
            Ok(())
        }
        Command::Drain(args) => {
            let answer = Client::new(args, environment)?.ask(Method::POST, "/v1/drain", None)?;
            println(&if args.json { answer.body.to_string() } else { "draining".to_owned() });
            Ok(())
        }
        Command::Serve(_)
        | Command::Demo
        | Command::Sign(_)
        | Command::Keys(_)
        | Command::Verify(_)
        | Command::Doctor(_)
        | Command::Top(_) => {
            unreachable!("answered without a relay")
        }
    }
}

/// An id as part of a path: what is no name of a content is refused here, with the right exit status.
fn segment(id: &str) -> Result<&str, Failure> {
    match id.parse::<millrace_proto::id::ContentName>() {
        Ok(_) => Ok(id),
        Err(error) => Err(Failure::usage(format!("`{id}`: {error}; `status` lists the ids"))),
    }
}

fn add(args: &AddArgs, environment: &Environment<'_>) -> Result<(), Failure> {
    if let Some(sha256) = &args.sha256
        && (sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(Failure::usage(format!("--sha256: `{sha256}`: write 64 hexadecimal digits")));
    }
    let read_base64 = |path: &std::path::Path| {
        let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        anyhow::Ok(data_encoding::BASE64.encode(&bytes))
    };
    let mut request = AddContent {
        sources: vec![absolute(&args.source)],
        name: args.name.clone(),
        sha256: args.sha256.clone(),
        mirrors: args.mirrors.clone(),
        pin: args.pin,
        access: access::wanted(args)?,
        ..AddContent::default()
    };
    if let Some(metainfo) = &args.metainfo {
        request.metainfo = Some(read_base64(metainfo)?);
    } else if args.source.ends_with(".torrent") && !args.source.contains("://") {
        // The relay may not be allowed to read this file, or run elsewhere.
        request.metainfo = Some(read_base64(args.source.as_ref())?);
        request.sources.clear();
    }
    // A mirror is told to clients, and pulled from as well.
    request.sources.extend(args.mirrors.iter().cloned());
    let body = serde_json::to_value(&request).context("the request cannot be written")?;
    let answer = Client::new(&args.client, environment)?.ask(Method::POST, "/v1/contents", Some(&body))?;
    show_content(&args.client, answer.body)
}

fn show_content(args: &ClientArgs, body: Value) -> Result<(), Failure> {
    if args.json {
        println(&body.to_string());
        return Ok(());
    }
    let content: ContentStatus = read(body)?;
    println(&line(&content));
    println(&format!("  {}", content.http_url));
    for url in [&content.torrent_url, &content.magnet].into_iter().flatten() {
        println(&format!("  {url}"));
    }
    Ok(())
}

/// As the API writes it.
pub(crate) fn state_name(state: ContentState) -> &'static str {
    match state {
        ContentState::Queued => "queued",
        ContentState::Pulling => "pulling",
        ContentState::Complete => "complete",
        ContentState::Paused => "paused",
        ContentState::Failed => "failed",
    }
}

fn line(content: &ContentStatus) -> String {
    let state = state_name(content.state);
    let size = match content.length {
        Some(length) if content.have_bytes < length => {
            format!("{} of {}", Size(content.have_bytes), Size(length))
        }
        Some(length) => Size(length).to_string(),
        None => format!("{} so far", Size(content.have_bytes)),
    };
    let pinned = if content.pinned { "  pinned" } else { "" };
    let access = content.access.as_ref().filter(|access| !access.is_public());
    let access = access.map(|access| format!("  access {access}")).unwrap_or_default();
    // A name is a stranger's word: nothing in it may speak to the terminal.
    let name: String = content.name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let error = content
        .error
        .as_ref()
        .map(|error| format!("  {}", error.replace(char::is_control, " ")))
        .unwrap_or_default();
    format!("{}  {state:8}  {size:>22}  {name}{pinned}{access}{error}", content.id)
}

fn status(args: &StatusArgs, environment: &Environment<'_>) -> Result<(), Failure> {
    let path = args.id.as_deref().map(|id| segment(id).map(|id| format!("/v1/contents/{id}"))).transpose()?;
    let client = Client::new(&args.client, environment)?;
    if let Some(path) = path {
        let answer = client.ask(Method::GET, &path, None)?;
        return show_content(&args.client, answer.body);
    }
    let relay = client.ask(Method::GET, "/v1/status", None)?.body;
    let contents = client.contents()?;
    if args.client.json {
        println(&json!({"relay": relay, "contents": contents}).to_string());
        return Ok(());
    }
    let relay: RelayStatus = read(relay)?;
    println(&format!(
        "millrace-relay {}  {}  {} shards over {}, sending by {}, pulls written by {}",
        relay.version,
        format!("{:?}", relay.state).to_lowercase(),
        relay.shards,
        relay.backend.name,
        relay.send_path.name,
        relay.ingest_io.name
    ));
    let Addresses { http, https, bittorrent, pages, metrics } = relay.addresses;
    let pages = pages.map(|address| format!(", pages on {address}")).unwrap_or_default();
    let https = https.map(|address| format!(", HTTPS on {address}")).unwrap_or_default();
    let metrics = metrics.map_or_else(|| "off".to_owned(), |address| address.to_string());
    println(&format!("HTTP on {http}{https}, BitTorrent on {bittorrent}{pages}, metrics on {metrics}"));
    if relay.backend.name == "epoll" {
        println(&format!("over epoll because: {}", relay.backend.reason));
    }
    println(&format!(
        "served {} by HTTP, {} by BitTorrent; {} from origins; sending at {}, cap {}",
        Size(relay.totals.served.http),
        Size(relay.totals.served.bittorrent),
        Size(relay.totals.origin_bytes),
        Rate(relay.rates.http + relay.rates.bittorrent),
        cap(relay.egress_cap),
    ));
    if let Some(status) = &relay.caps {
        caps::lines(status)
            .iter()
            .filter(|line| !line.ends_with(caps::UNLIMITED))
            .for_each(|line| println(line));
    }
    contents.iter().for_each(|content| println(&line(content)));
    Ok(())
}

fn cap(rate: Option<u64>) -> String {
    match rate {
        None => "none".to_owned(),
        Some(0) => "0 (paused)".to_owned(),
        Some(rate) => Rate(rate).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        assert_eq!(
            next_page("</v1/contents?after=x>; rel=\"next\"").as_deref(),
            Some("/v1/contents?after=x")
        );
        assert_eq!(next_page("</v1/contents>; rel=\"prev\""), None);
    }
}
