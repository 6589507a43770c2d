//! `/v1/caps`: the layers of caps, read and changed over the admin socket.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use millrace_proto::admin::caps::{Caps, CapsError, Layer};
use serde::Deserialize;
use serde_json::Value;

use crate::caps::ChangeError;

use super::admin::Admin;
use super::problem::Refusal;

/// Longest document.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// `?layer=`
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    layer: Option<String>,
}

impl Asked {
    /// A layer that can be changed.
    fn layer(&self) -> Result<Layer, Refusal> {
        match self.layer.as_deref() {
            None | Some("local") => Ok(Layer::Local),
            Some("controller") => Ok(Layer::Controller),
            Some("effective") => Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "What is effective comes of both layers: change `?layer=local` or `?layer=controller`.",
            )),
            Some(other) => {
                Err(Refusal::bad_request(format!("There is no layer `{other}`: write local or controller.")))
            }
        }
    }
}

/// One layer, by default the operator's, or `effective`: what holds, whose it is, and until when.
pub(super) async fn show(
    State(admin): State<Admin>,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    if asked.layer.as_deref() == Some("effective") {
        return Ok(axum::Json(admin.questions.relay.caps.status()).into_response());
    }
    Ok(document(&admin, asked.layer()?))
}

fn document(admin: &Admin, layer: Layer) -> Response {
    let (caps, tag) = admin.questions.relay.caps.document(layer);
    let mut response = axum::Json(caps).into_response();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Replaces a layer.
pub(super) async fn replace(
    State(admin): State<Admin>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let layer = asked.layer()?;
    check_length(&body)?;
    let caps = Caps::from_json(&body).map_err(|error| refused(&error))?;
    change(admin, layer, &headers, move |_| Ok(caps)).await
}

/// Changes what is named (RFC 7396).
pub(super) async fn patch(
    State(admin): State<Admin>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let layer = asked.layer()?;
    check_length(&body)?;
    let patch: Value = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request(format!("The body is not understood: {error}")))?;
    change(admin, layer, &headers, move |caps| caps.patched(&patch)).await
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

fn check_length(body: &Bytes) -> Result<(), Refusal> {
    if body.len() <= DOCUMENT_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("A caps document has at most {DOCUMENT_BYTES_MAX} bytes.");
    Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
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
