//! The pages for people on an address of their own, where they are not for everybody who downloads. Bytes stay where links say.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::serve::IncomingStream;
use millrace_engine::event::Document;
use millrace_engine::op::Question;
use tokio::net::TcpListener;

use super::documents::problem_document;
use super::parting::Parting;
use super::questions::Questions;

/// What is served on that address.
pub(super) fn router(questions: Arc<Questions>) -> Router {
    Router::new().fallback(answer).with_state(questions)
}

/// Where who asks is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker(SocketAddr);

impl Connected<IncomingStream<'_, Parting<TcpListener>>> for Asker {
    fn connect_info(stream: IncomingStream<'_, Parting<TcpListener>>) -> Self {
        Asker(*stream.remote_addr())
    }
}

async fn answer(
    State(questions): State<Arc<Questions>>,
    ConnectInfo(Asker(asker)): ConnectInfo<Asker>,
    method: Method,
    target: Uri,
) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = target.path();
    if is_of_the_data(path) {
        let link = target.path_and_query().map_or(path, |whole| whole.as_str());
        return Redirect::temporary(&questions.relay.link(link.trim_start_matches('/'))).into_response();
    }
    let question =
        Question { path: path.to_owned(), query: target.query().map(str::to_owned), peer: asker.ip() };
    response(match questions.answers(&question) {
        true => questions.document(&question),
        false => problem_document(403, "This relay does not serve your network."),
    })
}

/// Files, pull-through, and the tracker, which has to see who asks.
fn is_of_the_data(path: &str) -> bool {
    let file = path.strip_prefix("/c/").and_then(|rest| rest.split_once('/'));
    file.is_some_and(|(_, file)| !file.is_empty())
        || ["/pull/", "/announce", "/scrape"].iter().any(|data| path.starts_with(data))
}

fn response(document: Document) -> Response {
    let Document { status, content_type, fields, body } = document;
    let mut response = Response::new(Body::from(body.to_vec()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in fields {
        let name = header::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
            headers.append(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_not_pages() {
        for path in ["/c/x/file", "/c/x/folder/file", "/pull/o/f", "/announce", "/scrape"] {
            assert!(is_of_the_data(path), "{path}");
        }
        for path in ["/", "/index.json", "/c/x", "/c/x/", "/c/x.torrent", "/healthz"] {
            assert!(!is_of_the_data(path), "{path}");
        }
    }
}
