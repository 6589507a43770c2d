//! The admin API over the Unix socket (see the addresses in the README): JSON in, JSON out, problem documents for errors.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event as SentEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::Stream;
use millrace_engine::event::News;
use millrace_proto::admin::{AddContent, ContentStatus, Index as IndexDocument};
use millrace_proto::id::ContentName;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use crate::ingest::NewPull;
use crate::verify::{self, FORGETTABLE};

use super::caps;
use super::events::Events;
use super::index::{Entry, PAGE_ENTRIES_MAX};
use super::problem::Refusal;
use super::questions::{Questions, filter};
use super::{metrics, status};

/// Longest body: a .torrent of 64 MiB in base64, and the rest of its request.
const BODY_BYTES_MAX: usize = 96 << 20;

/// What every handler shares.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    pub(super) questions: Arc<Questions>,
    events: Events,
}

impl Admin {
    pub(super) fn new(questions: Arc<Questions>, events: Events) -> Self {
        Admin { questions, events }
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>, Refusal> {
        let parsed = name
            .parse::<ContentName>()
            .map_err(|error| Refusal::bad_request(format!("`{name}`: {error}")))?;
        self.questions.index.find(parsed).ok_or_else(|| Refusal::unknown_content(name))
    }

    fn status(&self, entry: &Entry) -> axum::Json<ContentStatus> {
        axum::Json(self.questions.links.content(entry, true))
    }
}

/// All addresses.
pub(super) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/status", get(relay_status))
        .route("/v1/contents", get(list).post(add))
        .route("/v1/contents/{id}", get(show).delete(remove))
        .route("/v1/contents/{id}/{action}", post(act))
        .route("/v1/caps", get(caps::show).put(caps::replace).patch(caps::patch))
        .route("/v1/drain", post(drain))
        .route("/v1/events", get(follow))
        .route("/readyz", get(ready))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "There is nothing under this address."))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "This address is not used that way.")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(admin.clone())
        .merge(metrics::router(admin.questions))
}

async fn relay_status(State(admin): State<Admin>) -> Response {
    axum::Json(status::relay(&admin.questions)).into_response()
}

/// As `/readyz` on the HTTP port, which a stuck shard may not answer.
async fn ready(State(admin): State<Admin>) -> Result<&'static str, Refusal> {
    match admin.questions.unready() {
        Some(why) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)),
        None => Ok("ready\n"),
    }
}

async fn list(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let filter =
        filter(query.as_deref().unwrap_or_default(), PAGE_ENTRIES_MAX).map_err(Refusal::bad_request)?;
    let page = admin.questions.index.page(&filter);
    let contents = page.entries.iter().map(|entry| admin.questions.links.content(entry, false)).collect();
    let mut response = axum::Json(IndexDocument { contents }).into_response();
    if let Some(last) = page.entries.last().filter(|_| page.more)
        && let Ok(next) =
            HeaderValue::from_str(&format!("</v1/contents?after={}>; rel=\"next\"", last.content.id()))
    {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

/// Reads a body, whatever its `Content-Type` says: `curl -d` names a form.
fn json<T: for<'de> Deserialize<'de>>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("The body is not understood: {error}")))
}

async fn add(State(admin): State<Admin>, body: Bytes) -> Result<Response, Refusal> {
    let request: AddContent = json(&body)?;
    let pull = NewPull::from_request(request).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let content = admin.questions.relay.ingest.add(pull).await.map_err(|error| add_refusal(&error))?;
    let id = content.id();
    // The news of it may still be on its way to this thread.
    let entry = match admin.questions.index.find(ContentName::Id(id)) {
        Some(entry) => entry,
        None => admin.questions.index.put(content),
    };
    let mut response = admin.status(&entry).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/contents/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn add_refusal(error: &crate::ingest::AddError) -> Refusal {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    Refusal::new(status, error.to_string())
}

async fn show(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(admin.status(&*admin.entry(&id)?).into_response())
}

async fn remove(State(admin): State<Admin>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let entry = admin.entry(&id)?;
    admin.questions.relay.ingest.remove(entry.content.id()).await.map_err(|error| failed(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

fn failed(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn act(
    State(admin): State<Admin>,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let entry = admin.entry(&id)?;
    let content = &entry.content;
    let relay = &admin.questions.relay;
    match action.as_str() {
        "pause" => relay.ingest.pause(content.id()).await.map_err(|error| failed(&error))?,
        "resume" => relay.ingest.resume(content.id()).await.map_err(|error| failed(&error))?,
        "pin" | "unpin" => {
            content.set_pinned(action == "pin");
            relay.store.save(content).map_err(|error| failed(&error))?;
        }
        "verify" => {
            let (hashed, store) = (Arc::clone(content), Arc::clone(&relay.store));
            let verified = tokio::task::spawn_blocking(move || store.verify_content(&hashed, |_, _| {}));
            let report = verified.await.map_err(|error| failed(&error))?;
            for stopped in &report.stopped {
                let id = stopped.id();
                tracing::error!(content = %id, name = stopped.name(), "{}", stopped.error().unwrap_or_default());
                relay.shards.broadcast(|| News::Changed(id));
            }
            if let Some(error) = &report.forgettable {
                tracing::error!(content = %report.id, "{FORGETTABLE}: {error}");
            }
            return Ok(axum::Json(verify::Report::from(report)).into_response());
        }
        _ => {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("`{action}` is nothing to be done with a content."),
            ));
        }
    }
    Ok(admin.status(&entry).into_response())
}

async fn drain(State(admin): State<Admin>) -> Response {
    admin.questions.relay.stop.wish();
    (StatusCode::ACCEPTED, axum::Json(status::relay(&admin.questions))).into_response()
}

async fn follow(State(admin): State<Admin>) -> Sse<impl Stream<Item = Result<SentEvent, Infallible>>> {
    let events = admin.events.subscribe();
    let stream = futures_util::stream::unfold(events, async |mut events| {
        loop {
            match events.recv().await {
                Ok(event) => match SentEvent::default().json_data(&*event) {
                    Ok(sent) => return Some((Ok(sent), events)),
                    Err(error) => tracing::debug!(%error, "an event cannot be written"),
                },
                // What was missed shows in the next state of the relay; the list tells the rest.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
