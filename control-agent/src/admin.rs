//! The relay, through its admin socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use millrace_proto::access::Access;
use millrace_proto::admin::caps::Caps;
use millrace_proto::admin::{
    AddContent, ChangeContent, ContentStatus, Event, Index, Priority, Problem, RelayStatus,
};
use millrace_proto::id::ContentId;
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::tls::causes;

/// Time for an answer from memory.
const PROMPT: Duration = Duration::from_secs(30);

/// Time for an addition, which may wait for an origin.
const ADDITION: Duration = Duration::from_secs(150);

/// Contents on one page of a list.
const PAGE: usize = 1000;

/// Longest event, in bytes.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// Why the relay did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdminError {
    /// It cannot be spoken to.
    #[error("the relay does not answer on its admin socket: {0}")]
    Away(String),
    /// It refuses.
    #[error("{detail}")]
    Refused {
        /// The status.
        status: u16,
        /// Its word.
        detail: String,
    },
}

impl AdminError {
    /// Whether there is no such thing.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, AdminError::Refused { status: 404, .. })
    }
}

/// A client of the socket.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Admin {
    pub(crate) fn at(socket: &Path) -> anyhow::Result<Admin> {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        // There is no TLS on a socket of this machine, and nothing that would be trusted.
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS cannot be set up")?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().unix_socket(socket);
        Ok(Admin { http: http.build().context("no client for the admin socket")?, socket: socket.to_owned() })
    }

    pub(crate) async fn status(&self) -> Result<RelayStatus, AdminError> {
        self.read(self.request(Method::GET, "/v1/status")).await
    }

    /// All contents, by id.
    pub(crate) async fn contents(&self) -> Result<Vec<ContentStatus>, AdminError> {
        let mut contents: Vec<ContentStatus> = Vec::new();
        loop {
            let after = contents.last().map(|last| format!("&after={}", last.id)).unwrap_or_default();
            let page = format!("/v1/contents?limit={PAGE}{after}");
            let Index { contents: page } = self.read(self.request(Method::GET, &page)).await?;
            let is_last = page.len() < PAGE;
            contents.extend(page);
            if is_last {
                return Ok(contents);
            }
        }
    }

    /// Adds a content; the one that came of it.
    pub(crate) async fn add(&self, content: &AddContent) -> Result<ContentStatus, AdminError> {
        let request = self.with_json(Method::POST, "/v1/contents", content)?.timeout(ADDITION);
        self.read(request).await
    }

    pub(crate) async fn remove(&self, id: ContentId) -> Result<(), AdminError> {
        self.ask(self.request(Method::DELETE, &format!("/v1/contents/{id}"))).await.map(drop)
    }

    /// `pin`, `unpin` or `resume`.
    pub(crate) async fn order(&self, id: ContentId, order: &str) -> Result<(), AdminError> {
        self.ask(self.request(Method::POST, &format!("/v1/contents/{id}/{order}"))).await.map(drop)
    }

    pub(crate) async fn prioritise(&self, id: ContentId, priority: u8) -> Result<(), AdminError> {
        let path = format!("/v1/contents/{id}/priority");
        self.ask(self.with_json(Method::POST, &path, &Priority { priority })?).await.map(drop)
    }

    /// Says who may have a content.
    pub(crate) async fn admit(&self, id: ContentId, access: Access) -> Result<(), AdminError> {
        let change = ChangeContent { access: Some(access) };
        self.ask(self.with_json(Method::PATCH, &format!("/v1/contents/{id}"), &change)?).await.map(drop)
    }

    /// The controller's layer of caps.
    pub(crate) async fn caps(&self) -> Result<Caps, AdminError> {
        self.read(self.request(Method::GET, "/v1/caps?layer=controller")).await
    }

    /// Replaces the controller's layer of caps.
    pub(crate) async fn set_caps(&self, caps: &Caps) -> Result<(), AdminError> {
        self.ask(self.with_json(Method::PUT, "/v1/caps?layer=controller", caps)?).await.map(drop)
    }

    /// The relay's events from now on.
    pub(crate) async fn events(&self) -> Result<Events, AdminError> {
        // The stream has no end, so only its head has a time.
        let request = self.http.get("http://relay/v1/events");
        let sent = tokio::time::timeout(PROMPT, request.send()).await;
        let response =
            sent.map_err(|_| self.away("no answer"))?.map_err(|error| self.away(&causes(&error)))?;
        Ok(Events { response: self.checked(response).await?, heard: Vec::new() })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://relay{path}")).timeout(PROMPT)
    }

    fn with_json(
        &self,
        method: Method,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<RequestBuilder, AdminError> {
        let body = serde_json::to_vec(body).map_err(|error| self.away(&error.to_string()))?;
        Ok(self.request(method, path).header("Content-Type", "application/json").body(body))
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, AdminError> {
        let body = self.ask(request).await?;
        serde_json::from_slice(&body).map_err(|error| {
            self.away(&format!("its answer is not understood ({error}): is it of another version?"))
        })
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Vec<u8>, AdminError> {
        let away = |error: reqwest::Error| match error.is_timeout() {
            // One request that takes too long is no sign that the others would.
            true => {
                AdminError::Refused { status: 504, detail: "the relay takes too long to answer".to_owned() }
            }
            false => self.away(&causes(&error)),
        };
        let response = self.checked(request.send().await.map_err(away)?).await?;
        Ok(response.bytes().await.map_err(away)?.to_vec())
    }

    async fn checked(&self, response: Response) -> Result<Response, AdminError> {
        let status = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        let problem = serde_json::from_slice::<Problem>(&body).ok().and_then(|problem| problem.detail);
        let detail = problem.unwrap_or_else(|| format!("the relay answers {status}"));
        Err(AdminError::Refused { status, detail })
    }

    fn away(&self, why: &str) -> AdminError {
        AdminError::Away(format!("{}: {why}", self.socket.display()))
    }
}

/// Events as they come: lines of `name: value`, an empty one behind each event.
#[derive(Debug)]
pub(crate) struct Events {
    response: Response,
    heard: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the relay is gone. Nothing is lost when it is dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.heard.windows(2).position(|pair| pair == b"\n\n") {
                let text: Vec<u8> = self.heard.drain(..end + 2).collect();
                if let Some(event) = parse(&text) {
                    return Some(event);
                }
            }
            if self.heard.len() > EVENT_BYTES_MAX {
                return None;
            }
            let chunk = self.response.chunk().await.ok().flatten()?;
            self.heard.extend_from_slice(&chunk);
        }
    }
}

/// An event, if it is one that is known.
fn parse(text: &[u8]) -> Option<Event> {
    let text = std::str::from_utf8(text).ok()?;
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let data: Vec<&str> = data.map(|data| data.strip_prefix(' ').unwrap_or(data)).collect();
    serde_json::from_str(&data.join("\n")).ok()
}
