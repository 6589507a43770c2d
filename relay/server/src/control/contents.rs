//! `/v1/contents`: what the relay has, and what is to be done with it.

mod change;

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use millrace_engine::event::News;
use millrace_proto::admin::{AddContent, ContentState, ContentStatus, Index as IndexDocument, Priority};
use millrace_proto::id::ContentName;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ingest::{AddError, NewPull};
use crate::verify::{self, FORGETTABLE};

use super::admin::Admin;
use super::body::{Json, Nothing, Parameters};
use super::index::{Entry, Filter, PAGE_ENTRIES_MAX};
use super::problem::Refusal;
use super::questions::without_after;
use super::viewer::Viewer;

/// Longest request to add something: a .torrent of 64 MiB in base64, and the rest of it.
const ADDITION: usize = 96 << 20;

/// Longest text to search for, in characters.
const SEARCH_CHARS_MAX: usize = 255;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show, remove, change::change))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(pin))
        .routes(routes!(unpin))
        .routes(routes!(set_priority))
        .routes(routes!(verify))
}

/// The content that a path names.
#[derive(Debug)]
pub(super) struct Named(pub(super) Arc<Entry>);

impl FromRequestParts<Admin> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, admin).await;
        let Path(name) = path.map_err(|rejection| Refusal::bad_request(rejection.body_text()))?;
        let parsed = name
            .parse::<ContentName>()
            .map_err(|error| Refusal::bad_request(format!("`{name}`: {error}")))?;
        admin
            .questions
            .index
            .find(parsed, Viewer::Operator)
            .map(Named)
            .ok_or_else(|| Refusal::unknown_content(&name))
    }
}

impl Admin {
    /// A content as the operator sees it: with how its pull goes, and who may have it.
    fn describe(&self, entry: &Entry, with_files: bool) -> ContentStatus {
        ContentStatus {
            pull: self.questions.relay.ingest.pull_status(entry.content.id()),
            ..self.questions.links.content_of_operator(entry, with_files)
        }
    }

    fn shown(&self, entry: &Entry) -> axum::Json<ContentStatus> {
        axum::Json(self.describe(entry, true))
    }
}

/// Which contents are listed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    /// Part of the name, without regard to case.
    #[param(max_length = 255)]
    q: Option<String>,
    /// Their state.
    state: Option<ContentState>,
    /// Only those whose id is greater.
    #[param(pattern = "^[a-z2-7]{25}[aeimquy4]$")]
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only those whose bytes move.
    #[serde(default)]
    active: bool,
}

impl Listing {
    fn filter(self) -> Result<Filter, Refusal> {
        if self.q.as_ref().is_some_and(|text| text.chars().count() > SEARCH_CHARS_MAX) {
            return Err(Refusal::bad_request(format!("`q` is longer than {SEARCH_CHARS_MAX} characters.")));
        }
        if self.limit.is_some_and(|limit| limit == 0 || limit > PAGE_ENTRIES_MAX) {
            return Err(Refusal::bad_request(format!("`limit` is from 1 to {PAGE_ENTRIES_MAX}.")));
        }
        let after = self.after.map(|id| id.parse()).transpose();
        Ok(Filter {
            text: self.q,
            state: self.state,
            after: after.map_err(|_| Refusal::bad_request("`after` is no content id."))?,
            limit: self.limit,
            active: self.active,
        })
    }
}

/// List contents
///
/// By id, page by page: a `Link` field with `rel="next"` names the page that follows.
#[utoipa::path(
    get, path = "/v1/contents", tag = "contents", params(Listing),
    responses((status = 200, description = "One page.", body = IndexDocument, headers(("Link" = String, description = "The next page, if there is one.")))),
)]
async fn list(
    State(admin): State<Admin>,
    RawQuery(query): RawQuery,
    Parameters(listing): Parameters<Listing>,
) -> Result<Response, Refusal> {
    let page = admin.questions.index.page(&listing.filter()?, Viewer::Operator);
    let contents = page.entries.iter().map(|entry| admin.describe(entry, false)).collect();
    let mut response = axum::Json(IndexDocument { contents }).into_response();
    if let Some(last) = page.entries.last().filter(|_| page.more) {
        let kept = without_after(query.as_deref().unwrap_or_default());
        let next = format!("</v1/contents?{kept}after={}>; rel=\"next\"", last.content.id());
        if let Ok(next) = HeaderValue::from_str(&next) {
            response.headers_mut().insert(header::LINK, next);
        }
    }
    Ok(response)
}

/// Add a content
///
/// Answers when the content exists and outlives a power cut: of a URL of unknown hashes, after its origin has answered. The same
/// request again answers with the same content.
#[utoipa::path(
    post, path = "/v1/contents", tag = "contents", request_body = AddContent,
    responses(
        (status = 200, description = "The content.", body = ContentStatus, headers(("Location" = String, description = "Its address."))),
        (status = 409, description = "The source is here with another digest, or for others."),
        (status = 422, description = "The request is understood, and nothing can be pulled by it."),
        (status = 502, description = "No origin answers with the file."),
        (status = 507, description = "There is no room."),
    ),
)]
async fn add(
    State(admin): State<Admin>,
    Json(request): Json<AddContent, ADDITION>,
) -> Result<Response, Refusal> {
    let wanted = request.access.clone();
    let pull = NewPull::from_request(request).map_err(|error| refusal(&error))?;
    let content = admin.questions.relay.ingest.add(pull).await.map_err(|error| refusal(&error))?;
    let id = content.id();
    if wanted.is_some_and(|wanted| wanted != *content.access()) {
        // It would be there for others than the request says.
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!(
                "This is here already, as {id}, and its access is `{}`: change that with PATCH /v1/contents/{id}.",
                content.access()
            ),
        ));
    }
    // The news of it may still be on its way to this thread.
    let entry = match admin.questions.index.find(ContentName::Id(id), Viewer::Operator) {
        Some(entry) => entry,
        None => admin.questions.index.put(content),
    };
    let mut response = admin.shown(&entry).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/contents/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn refusal(error: &AddError) -> Refusal {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    Refusal::new(status, error.to_string())
}

/// Show a content
#[utoipa::path(
    get, path = "/v1/contents/{id}", tag = "contents",
    responses((status = 200, description = "The content and its files.", body = ContentStatus)),
)]
async fn show(State(admin): State<Admin>, Named(entry): Named) -> axum::Json<ContentStatus> {
    admin.shown(&entry)
}

/// Remove a content and its files
#[utoipa::path(
    delete, path = "/v1/contents/{id}", tag = "contents",
    responses((status = 204, description = "It is gone.")),
)]
async fn remove(State(admin): State<Admin>, Named(entry): Named, _: Nothing) -> Result<StatusCode, Refusal> {
    let id = entry.content.id();
    admin.questions.relay.ingest.remove(id).await.map_err(|error| refusal(&error))?;
    admin.questions.index.gone(id).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Stop pulling and serving a content
///
/// What is there is kept.
#[utoipa::path(
    post, path = "/v1/contents/{id}/pause", tag = "contents",
    responses((status = 200, description = "The content.", body = ContentStatus)),
)]
async fn pause(
    State(admin): State<Admin>,
    Named(entry): Named,
    _: Nothing,
) -> Result<axum::Json<ContentStatus>, Refusal> {
    admin.questions.relay.ingest.pause(entry.content.id()).await.map_err(|error| refusal(&error))?;
    Ok(admin.shown(&entry))
}

/// Go on with a content that was paused or failed
#[utoipa::path(
    post, path = "/v1/contents/{id}/resume", tag = "contents",
    responses((status = 200, description = "The content.", body = ContentStatus)),
)]
async fn resume(
    State(admin): State<Admin>,
    Named(entry): Named,
    _: Nothing,
) -> Result<axum::Json<ContentStatus>, Refusal> {
    admin.questions.relay.ingest.resume(entry.content.id()).await.map_err(|error| refusal(&error))?;
    Ok(admin.shown(&entry))
}

/// Keep a content whatever the capacity
#[utoipa::path(
    post, path = "/v1/contents/{id}/pin", tag = "contents",
    responses((status = 200, description = "The content.", body = ContentStatus)),
)]
async fn pin(
    State(admin): State<Admin>,
    Named(entry): Named,
    _: Nothing,
) -> Result<axum::Json<ContentStatus>, Refusal> {
    entry.content.set_pinned(true);
    saved(&admin, &entry)
}

/// Let a content go when room is needed
#[utoipa::path(
    post, path = "/v1/contents/{id}/unpin", tag = "contents",
    responses((status = 200, description = "The content.", body = ContentStatus)),
)]
async fn unpin(
    State(admin): State<Admin>,
    Named(entry): Named,
    _: Nothing,
) -> Result<axum::Json<ContentStatus>, Refusal> {
    entry.content.set_pinned(false);
    saved(&admin, &entry)
}

/// Pull a content earlier or later than others
///
/// It counts when pulls are begun: for one that runs already, from the next start of the relay on.
#[utoipa::path(
    post, path = "/v1/contents/{id}/priority", tag = "contents", request_body = Priority,
    responses((status = 200, description = "The content.", body = ContentStatus)),
)]
async fn set_priority(
    State(admin): State<Admin>,
    Named(entry): Named,
    Json(Priority { priority }): Json<Priority>,
) -> Result<axum::Json<ContentStatus>, Refusal> {
    entry.content.set_priority(priority);
    saved(&admin, &entry)
}

fn saved(admin: &Admin, entry: &Entry) -> Result<axum::Json<ContentStatus>, Refusal> {
    admin.questions.relay.store.save(&entry.content).map_err(|error| Refusal::failed(&error))?;
    Ok(admin.shown(entry))
}

/// Hash a content again
///
/// Answers when every piece that is here was read. What is damaged is not served any more.
#[utoipa::path(
    post, path = "/v1/contents/{id}/verify", tag = "contents",
    responses((status = 200, description = "What was found.", body = verify::Report)),
)]
async fn verify(
    State(admin): State<Admin>,
    Named(entry): Named,
    _: Nothing,
) -> Result<axum::Json<verify::Report>, Refusal> {
    let relay = &admin.questions.relay;
    let (hashed, store) = (Arc::clone(&entry.content), Arc::clone(&relay.store));
    let verified = tokio::task::spawn_blocking(move || store.verify_content(&hashed, |_, _| {}));
    let report = verified.await.map_err(|error| Refusal::failed(&error))?;
    for stopped in &report.stopped {
        let id = stopped.id();
        tracing::error!(content = %id, name = stopped.name(), "{}", stopped.error().unwrap_or_default());
        relay.shards.broadcast(|| News::Changed(id));
    }
    if let Some(error) = &report.forgettable {
        tracing::error!(content = %report.id, "{FORGETTABLE}: {error}");
    }
    Ok(axum::Json(verify::Report::from(report)))
}
