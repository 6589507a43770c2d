//! `/v1/caps`: the layers of caps, read and changed over the admin socket.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use millrace_proto::admin::caps::{Caps, CapsError, Layer};
use serde::Deserialize;
use serde_json::Value;

use crate::caps::ChangeError;

use super::admin::Admin;
use super::body::{Json, JsonText, Parameters};
use super::problem::Refusal;

/// Longest document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// Which layer is shown.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Shown {
    /// The operator's.
    #[default]
    Local,
    /// The controller's.
    Controller,
    /// What holds, whose it is, and until when.
    Effective,
}

/// `?layer=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// `local` (the operator's, and the default), `controller`, or `effective`: what holds, whose it is, and until when.
    #[serde(default)]
    #[param(inline)]
    layer: Shown,
}

/// `?layer=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Changed {
    /// `local` (the operator's, and the default), or `controller`.
    #[serde(default = "local")]
    #[param(inline)]
    layer: Layer,
}

fn local() -> Layer {
    Layer::Local
}

/// Show the caps
///
/// One layer as it was set, by default the operator's; or what holds of both.
#[utoipa::path(
    get, path = "/v1/caps", tag = "caps", params(Asked),
    responses((status = 200, description = "The document.", body = Value, headers(("ETag" = String, description = "Of a layer: for `If-Match`.")))),
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    Parameters(asked): Parameters<Asked>,
) -> Result<Response, Refusal> {
    Ok(match asked.layer {
        Shown::Local => document(&admin, Layer::Local),
        Shown::Controller => document(&admin, Layer::Controller),
        Shown::Effective => axum::Json(admin.questions.relay.caps.status()).into_response(),
    })
}

fn document(admin: &Admin, layer: Layer) -> Response {
    let (caps, tag) = admin.questions.relay.caps.document(layer);
    let mut response = axum::Json(caps).into_response();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Replace the caps of a layer
///
/// In force within 100 ms, without a disconnect, and kept across restarts.
#[utoipa::path(
    put, path = "/v1/caps", tag = "caps", request_body = Caps,
    params(Changed, ("If-Match" = Option<String>, Header, description = "The `ETag` of what was read.")),
    responses(
        (status = 200, description = "The document.", body = Value, headers(("ETag" = String, description = "For `If-Match`."))),
        (status = 412, description = "Somebody else has changed the caps."),
    ),
)]
pub(super) async fn replace(
    State(admin): State<Admin>,
    Parameters(changed): Parameters<Changed>,
    headers: HeaderMap,
    JsonText(text): JsonText<DOCUMENT_BYTES_MAX>,
) -> Result<Response, Refusal> {
    let caps = Caps::from_json(&text).map_err(|error| refused(&error))?;
    change(admin, changed.layer, &headers, move |_| Ok(caps)).await
}

/// Change what is named of a layer (RFC 7396)
///
/// What is `null` becomes unlimited; what is not named stays.
#[utoipa::path(
    patch, path = "/v1/caps", tag = "caps", request_body = BTreeMap<String, Value>,
    params(Changed, ("If-Match" = Option<String>, Header, description = "The `ETag` of what was read.")),
    responses(
        (status = 200, description = "The document.", body = Value, headers(("ETag" = String, description = "For `If-Match`."))),
        (status = 412, description = "Somebody else has changed the caps."),
    ),
)]
pub(super) async fn patch(
    State(admin): State<Admin>,
    Parameters(changed): Parameters<Changed>,
    headers: HeaderMap,
    Json(patch): Json<Value, DOCUMENT_BYTES_MAX>,
) -> Result<Response, Refusal> {
    // Before anything is said of the tag: a body that is wrong is wrong whatever the caps are.
    if !patch.is_object() {
        return Err(Refusal::bad_request("The body is not understood: a patch is an object (RFC 7396)."));
    }
    change(admin, changed.layer, &headers, move |caps| caps.patched(&patch)).await
}

async fn change(
    admin: Admin,
    layer: Layer,
    headers: &HeaderMap,
    edit: impl FnOnce(&Caps) -> Result<Caps, CapsError> + Send + 'static,
) -> Result<Response, Refusal> {
    let expected = Expected::new(headers);
    let keeper = Arc::clone(&admin.questions.relay.caps);
    // It waits for the disk.
    let changed =
        tokio::task::spawn_blocking(move || keeper.change(layer, |tag| expected.matches(tag), edit));
    let internal = |error: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    match changed.await.map_err(|error| internal(error.to_string()))? {
        Ok(()) => Ok(document(&admin, layer)),
        Err(stale @ ChangeError::Stale) => {
            Err(Refusal::new(StatusCode::PRECONDITION_FAILED, stale.to_string()))
        }
        Err(ChangeError::Refused(error)) => Err(refused(&error)),
        Err(full @ ChangeError::Disk(_)) => Err(internal(full.to_string())),
    }
}

fn refused(error: &CapsError) -> Refusal {
    Refusal::bad_request(error.to_string())
}

/// `If-Match` (RFC 9110 §13.1.1): `None` where there is none, so that anything is as expected.
struct Expected(Option<Vec<String>>);

impl Expected {
    fn new(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(header::IF_MATCH).iter();
        // A field that is no text names no tag of ours.
        let tags = fields.flat_map(|field| field.to_str().unwrap_or_default().split(','));
        let tags: Vec<_> = tags.map(|tag| tag.trim().to_owned()).collect();
        Expected((!tags.is_empty()).then_some(tags))
    }

    fn matches(&self, present: &str) -> bool {
        self.0.as_ref().is_none_or(|tags| tags.iter().any(|tag| tag == "*" || tag == present))
    }
}
