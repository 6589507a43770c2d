//! From a request to what it asks for: bytes of a content, or a question for the control thread.

use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_pagecache::layout::FileIndex;
use millrace_proto::http::request::{Method, Request};
use millrace_proto::http::target::{Segments, Target};
use millrace_proto::id::ContentName;

use crate::op::Question;
use crate::session::{Context, End};

use super::answer::{self, Reply};

/// A file of a content.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) content: Arc<Content>,
    pub(super) file: FileIndex,
}

/// Answers a request, or says who will.
pub(super) fn answer(cx: &mut Context<'_>, request: &Request<'_>) -> Result<Reply, End> {
    match request.method {
        Method::Options => return Ok(answer::options(cx, request)),
        Method::Other => return Ok(answer::method_not_allowed(cx, request)),
        Method::Get | Method::Head => {}
    }
    let Target::Resource { path, query } = request.target else {
        return Ok(answer::problem(cx, request, 400, "`*` is a target of OPTIONS alone.", None));
    };
    let mut segments = path.segments();
    if segments.next().is_some_and(|first| first == "c") {
        match content(cx, &mut segments) {
            Asked::Place(place) => return answer::file(cx, request, place),
            Asked::Nothing => {
                return Ok(answer::problem(cx, request, 404, "No content of this name is here.", None));
            }
            Asked::Folder(content) => return Ok(answer::to_single_file(cx, request, &content)),
            Asked::Other => {}
        }
    }
    let question =
        Question { path: path.as_str().to_owned(), query: query.map(str::to_owned), peer: cx.peer.ip() };
    Ok(Reply::Ask(Box::new(question)))
}

enum Asked {
    Place(Place),
    /// The content itself, which has but one file.
    Folder(Arc<Content>),
    Nothing,
    /// A document about a content, or a page.
    Other,
}

/// What lies under `/c/`.
fn content(cx: &Context<'_>, segments: &mut Segments<'_>) -> Asked {
    let Some(name) = segments.next().and_then(|name| name.decode()) else { return Asked::Nothing };
    let Ok(name) = name.parse::<ContentName>() else {
        // `{id}.torrent` and its like.
        return Asked::Other;
    };
    let Some(content) = cx.shared.catalog.by_name(name) else { return Asked::Nothing };
    let mut rest = *segments;
    if rest.next().is_none_or(|next| next == "" && rest.next().is_none()) {
        let files = content.layout().files();
        let is_single = files.len() == 1 && files[0].path.len() == 1;
        return if is_single { Asked::Folder(Arc::clone(content)) } else { Asked::Other };
    }
    match content.layout().file_index_at_path(|path| segments.matches(path)) {
        Some(file) => Asked::Place(Place { content: Arc::clone(content), file }),
        None => Asked::Nothing,
    }
}
