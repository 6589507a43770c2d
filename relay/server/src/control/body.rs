//! What a request to the admin API may bring: a JSON document of a known shape, parameters, or nothing. Whatever else it brings is
//! refused before anything is changed, in words that name what is wrong.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::problem::Refusal;

/// Time that a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// Most of a refused body that is read and thrown away, so that who sends it gets to read why. Who sends more loses the connection.
const DISCARDED_BYTES_MAX: usize = 1 << 30;

/// Longest body of everything but an addition, in bytes.
pub(super) const SMALL: usize = 1 << 20;

/// A JSON document of at most `BYTES_MAX` bytes.
#[derive(Debug)]
pub(super) struct Json<T, const BYTES_MAX: usize = SMALL>(pub(super) T);

impl<S: Sync, T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<S> for Json<T, BYTES_MAX> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let JsonText::<BYTES_MAX>(text) = JsonText::from_request(request, state).await?;
        parse(&text).map(Json)
    }
}

/// The text of a JSON document of at most `BYTES_MAX` bytes, for who reads it in a way of its own.
#[derive(Debug)]
pub(super) struct JsonText<const BYTES_MAX: usize = SMALL>(pub(super) Vec<u8>);

impl<S: Sync, const BYTES_MAX: usize> FromRequest<S> for JsonText<BYTES_MAX> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        if !is_json(request.headers()) {
            discard(request).await;
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "This address takes JSON: send `Content-Type: application/json`.",
            ));
        }
        read(request, BYTES_MAX).await.map(JsonText)
    }
}

/// No body.
#[derive(Debug)]
pub(super) struct Nothing;

impl<S: Sync> FromRequest<S> for Nothing {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        match read(request, SMALL).await?.is_empty() {
            true => Ok(Nothing),
            false => Err(Refusal::bad_request("This address takes no body: send the request without one.")),
        }
    }
}

/// Parameters of the query.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Parameters(parameters)),
            Err(rejection) => Err(Refusal::bad_request(rejection.body_text())),
        }
    }
}

/// A body without a type is taken for JSON (RFC 9110 §8.3); `application/merge-patch+json` is JSON as well.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let subtype = subtype.to_ascii_lowercase();
    kind.eq_ignore_ascii_case("application") && (subtype == "json" || subtype.ends_with("+json"))
}

/// Reads a document; the refusal names the key that is wrong, and its path.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    // serde takes a list for the fields of a struct in their order; nobody means that.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Refusal::bad_request(
            "The body is not understood: it is a list, and should be an object.",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let refused = |path: Option<String>, error: &serde_json::Error| {
        let path = path.filter(|path| path != ".").map(|path| format!("`{path}`: ")).unwrap_or_default();
        let detail = format!("The body is not understood: {path}{error}");
        // serde_json has no kind of error for a document that is nested deeper than it goes.
        match error.to_string().starts_with("recursion limit") {
            true => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            false => Refusal::bad_request(detail),
        }
    };
    let document = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| refused(Some(error.path().to_string()), error.inner()))?;
    json.end().map_err(|error| refused(None, &error))?;
    Ok(document)
}

async fn read(request: Request, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is longer than the {bytes_max} bytes that this address takes."),
        )
    };
    if request.body().size_hint().lower() > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
        discard(request).await;
        return Err(too_large());
    }
    let mut chunks = request.into_body().into_data_stream();
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk =
                chunk.map_err(|error| Refusal::bad_request(format!("The body broke off: {error}")))?;
            if bytes.len() + chunk.len() > bytes_max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    let late = || Refusal::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time.");
    let bytes = tokio::time::timeout(BODY_PATIENCE, reading).await.unwrap_or_else(|_| Err(late()));
    if bytes.is_err() {
        throw_away(Body::from_stream(chunks)).await;
    }
    bytes
}

/// Lets who sends a refused body finish. One that asks first (RFC 9110 §10.1.1) is told at once.
async fn discard(request: Request) {
    if !request.headers().contains_key(header::EXPECT) {
        throw_away(request.into_body()).await;
    }
}

async fn throw_away(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut discarded = 0;
    let discarding = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            discarded += chunk.len();
            if discarded > DISCARDED_BYTES_MAX {
                return;
            }
        }
    };
    // Who is still sending by then has had its time.
    let _ = tokio::time::timeout(BODY_PATIENCE, discarding).await;
}

#[cfg(test)]
mod tests {
    use millrace_proto::admin::AddContent;

    use super::*;

    #[track_caller]
    fn check(body: &str, status: u16, said: &str) {
        let refusal = parse::<AddContent>(body.as_bytes()).expect_err("must be refused");
        assert_eq!(refusal.status(), status, "{body}: {refusal:?}");
        assert!(format!("{refusal:?}").contains(said), "{body}: {refusal:?} lacks {said}");
    }

    #[test]
    fn a_document_that_is_wrong_is_refused_by_what_is_wrong_with_it() {
        check("", 400, "EOF");
        check("{", 400, "EOF");
        check("[]", 400, "not understood");
        check(r#" [["http://x/"]]"#, 400, "a list");
        check("{} {}", 400, "`sources`");
        check(r#"{"sources": []} x"#, 400, "trailing");
        check(r#"{"sources": [], "sha_256": ""}"#, 400, "`sha_256`");
        check(r#"{"sources": [], "sources": []}"#, 400, "`sources`");
        check(r#"{"sources": ["a", 5]}"#, 400, "`sources[1]`");
        check(r#"{"sources": [], "priority": 256}"#, 400, "`priority`");
        check(r#"{"sources": [], "pin": "yes"}"#, 400, "`pin`");
        check(r#"{"sources": [], "name": "\ud800"}"#, 400, "`name`");
        let deep = format!("{{\"sources\": {}", "[".repeat(100_000));
        check(&deep, 400, "`sources[0]`");
        let deep = "{\"a\":".repeat(100_000);
        let refusal = parse::<serde_json::Value>(deep.as_bytes()).expect_err("must be refused");
        assert_eq!(refusal.status(), 413);
    }

    #[test]
    fn json_goes_by_several_names() {
        let is =
            |value: &str| is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]));
        assert!(is("application/json") && is("Application/JSON; charset=utf-8"));
        assert!(is("application/merge-patch+json") && is_json(&HeaderMap::new()));
        assert!(!is("text/json") && !is("application/x-www-form-urlencoded") && !is("json") && !is(""));
    }
}
