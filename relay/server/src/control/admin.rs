//! The admin API over the Unix socket (see the addresses in the README): JSON in, JSON out, problem documents for errors. Each handler
//! is annotated with what the OpenAPI document says of it; router and document are made of the same list.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use millrace_proto::admin::{RelayStatus, Upgraded};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{self, Access, Peer};
use super::body::Nothing;
use super::events::{self, Events};
use super::problem::Refusal;
use super::questions::Questions;
use super::{caps, contents, metrics, openapi, status};
use crate::relay::Relay;

/// What every handler shares.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    pub(super) questions: Arc<Questions>,
    pub(super) events: Events,
    /// The OpenAPI document, as JSON.
    document: Arc<str>,
}

/// Everything but `/metrics`, which has a state of its own.
fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(relay_status))
        .merge(contents::routes())
        .routes(routes!(caps::show, caps::replace, caps::patch))
        .routes(routes!(drain))
        .routes(routes!(upgrade))
        .routes(routes!(events::follow))
        .routes(routes!(openapi_document))
        .routes(routes!(alive))
        .routes(routes!(ready))
}

/// What the API is, as it is checked in.
#[must_use]
pub fn document() -> OpenApi {
    openapi::complete(routes().into_openapi().merge_from(metrics::routes().into_openapi()))
}

/// Who may come in, and what is there.
pub(super) fn service(
    questions: Arc<Questions>,
    events: Events,
    socket: &Path,
) -> axum::extract::connect_info::IntoMakeServiceWithConnectInfo<axum::Router, Peer> {
    let (access, relay) = (Arc::new(Access::to(socket)), Arc::clone(&questions.relay));
    // What serde cannot write of it would be a mistake of the annotations, which the test of the document finds.
    let document = document().to_pretty_json().unwrap_or_default().into();
    let admin = Admin { questions: Arc::clone(&questions), events, document };
    axum::Router::from(routes())
        .with_state(admin)
        .merge(metrics::router(questions))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "There is nothing under this address."))
        .method_not_allowed_fallback(async || {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "This address is not used that way: `Allow` names the methods that it takes.",
            )
        })
        .layer(axum::middleware::from_fn_with_state(relay, hold_changes))
        .layer(axum::middleware::from_fn_with_state(access, access::guard))
        .into_make_service_with_connect_info::<Peer>()
}

/// Show the relay in one document
#[utoipa::path(
    get, path = "/v1/status", tag = "relay",
    responses((status = 200, description = "The relay.", body = RelayStatus)),
)]
async fn relay_status(State(admin): State<Admin>) -> axum::Json<RelayStatus> {
    axum::Json(status::relay(&admin.questions))
}

/// This document
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "relay",
    responses((status = 200, description = "OpenAPI 3.1.", body = Value)),
)]
async fn openapi_document(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], admin.document.to_string()).into_response()
}

/// Whether the process answers
#[utoipa::path(
    get, path = "/healthz", tag = "relay",
    responses((status = 200, description = "It does.", body = String)),
)]
async fn alive() -> &'static str {
    "ok\n"
}

/// Whether the relay is of use
///
/// As `/readyz` on the HTTP port, which a stuck shard may not answer.
#[utoipa::path(
    get, path = "/readyz", tag = "relay",
    responses(
        (status = 200, description = "The store is open, every shard turns, and the relay is not draining.", body = String),
        (status = 503, description = "It drains, or a shard is stuck."),
    ),
)]
async fn ready(State(admin): State<Admin>) -> Result<&'static str, Refusal> {
    match admin.questions.unready() {
        Some(why) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)),
        None => Ok("ready\n"),
    }
}

/// Take no new connections, finish running answers, then stop
#[utoipa::path(
    post, path = "/v1/drain", tag = "relay",
    responses((status = 202, description = "The relay, which drains from now on.", body = RelayStatus)),
)]
async fn drain(State(admin): State<Admin>, _: Nothing) -> Response {
    admin.questions.relay.stop.wish();
    (StatusCode::ACCEPTED, axum::Json(status::relay(&admin.questions))).into_response()
}

/// Have the program that is on the disk now take over
///
/// Started with the same arguments, it is given the sockets, the store and the pulls; this one only finishes what it is sending. Whatever
/// stands in the way, everything goes on as before. Other changes are refused (503) while it goes on.
#[utoipa::path(
    post, path = "/v1/upgrade", tag = "relay",
    responses(
        (status = 200, description = "The program that is the relay now. This connection ends.", body = Upgraded),
        (status = 409, description = "The new program did not take over, and why."),
        (status = 503, description = "Another upgrade was first, or the relay stops: try again in a moment."),
    ),
)]
async fn upgrade(State(admin): State<Admin>, _: Nothing) -> Response {
    let (wish, outcome) = tokio::sync::oneshot::channel();
    let wished = admin.questions.relay.upgrades.send(wish);
    match (wished, outcome.await) {
        (Ok(()), Ok(Ok((version, process)))) => axum::Json(Upgraded { version, process }).into_response(),
        (Ok(()), Ok(Err(why))) => Refusal::new(StatusCode::CONFLICT, why).into_response(),
        // Somebody else's wish was first, and nobody here fulfils another one.
        _ => later(),
    }
}

/// Refuses what the program that takes over can do, or the one that has taken over: on another connection.
fn later() -> Response {
    let detail = "Another program is taking this relay over, or it stops: try again in a moment.";
    let mut refused = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    let fields = refused.headers_mut();
    fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    refused
}

/// Refuses changes while another program takes over: it would not know of them.
async fn hold_changes(State(relay): State<Arc<Relay>>, request: Request, next: Next) -> Response {
    let changes =
        !matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().path() != "/v1/upgrade";
    let held = if changes { Arc::clone(&relay.changes).try_read_owned().map(Some) } else { Ok(None) };
    match held {
        Ok(_held) => next.run(request).await,
        Err(_) => later(),
    }
}
