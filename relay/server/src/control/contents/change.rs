//! `PATCH /v1/contents/{id}`: who may have a content, changed while it is served.

use axum::extract::State;
use millrace_engine::event::News;
use millrace_proto::access::Access;
use millrace_proto::admin::{ChangeContent, ContentStatus};

use super::Named;
use crate::control::admin::Admin;
use crate::control::body::Json;
use crate::control::problem::Refusal;

/// Change who may have a content
///
/// It holds for every request from now on, and is kept. Peers who may not have it any more are told goodbye; HTTP answers that have
/// begun are finished.
#[utoipa::path(
    patch, path = "/v1/contents/{id}", tag = "contents", request_body = ChangeContent,
    responses((status = 200, description = "The content.", body = ContentStatus)),
)]
pub(in crate::control) async fn change(
    State(admin): State<Admin>,
    Named(entry): Named,
    Json(ChangeContent { access }): Json<ChangeContent>,
) -> Result<axum::Json<ContentStatus>, Refusal> {
    let content = &entry.content;
    let Some(access) = access else { return Ok(admin.shown(&entry)) };
    let before = Access::clone(&content.access());
    content.set_access(access);
    let kept = admin.questions.relay.store.save_for_good(content);
    kept.map_err(|error| {
        // What would be otherwise after a restart is not to hold until then.
        content.set_access(before);
        Refusal::failed(&error)
    })?;
    let id = content.id();
    tracing::info!(content = %id, access = %content.access(), "access changed");
    admin.questions.relay.shards.broadcast(|| News::Changed(id));
    Ok(admin.shown(&entry))
}
