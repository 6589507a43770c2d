//! From a request to what it asks for: bytes of a content, or a question for the control thread.

use std::sync::Arc;

use millrace_pagecache::content::Content;
use millrace_pagecache::layout::FileIndex;
use millrace_proto::access::signature::Refusal;
use millrace_proto::http::request::{Method, Request};
use millrace_proto::http::target::{Path, Segments, Target};
use millrace_proto::id::ContentName;

use crate::access::Verdict;
use crate::op::Question;
use crate::session::{Context, End};

use super::answer::{self, Reply};

/// A file of a content.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) content: Arc<Content>,
    pub(super) file: FileIndex,
}

/// What is said of a content that is not here, or not for who asks: the two must not be told apart.
const UNKNOWN: &str = "No content of this name is here.";

/// What the control thread says of a file that its origin does not have.
const ABSENT: &str = "The origin has no such file.";

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
    // Probes come from anywhere, and are told nothing of contents.
    if !matches!(path.as_str(), "/healthz" | "/readyz") && !cx.is_answered() {
        return Ok(answer::problem(cx, request, 403, "This relay does not serve your network.", None));
    }
    let mut segments = path.segments();
    let first = segments.next();
    if first.is_some_and(|first| first == "c") {
        match content(cx, path, query, &mut segments) {
            Asked::Place(place) => return answer::file(cx, request, place),
            Asked::Nothing => return Ok(answer::problem(cx, request, 404, UNKNOWN, None)),
            Asked::Refused(why) => return Ok(answer::problem(cx, request, 403, &why.to_string(), None)),
            Asked::Folder { content, signed } => {
                let signed = query.filter(|_| signed);
                return Ok(answer::to_single_file(cx, request, &content, signed));
            }
            Asked::Other => {}
        }
    } else if first.is_some_and(|first| first == "pull") {
        let verdict = cx.judge_pull(path.as_str(), query);
        if let Some(refused) = refused(cx, request, verdict, UNKNOWN) {
            return Ok(refused);
        }
    }
    let question =
        Question { path: path.as_str().to_owned(), query: query.map(str::to_owned), peer: cx.peer.ip() };
    Ok(Reply::Ask(Box::new(question)))
}

/// Answers a request for what was pulled, which may have been here before, and not for everybody.
pub(super) fn pulled(cx: &mut Context<'_>, request: &Request<'_>, place: Place) -> Result<Reply, End> {
    let (path, query) = match request.target {
        Target::Resource { path, query } => (path.as_str(), query),
        Target::Server => ("", None),
    };
    let verdict = cx.judge(Some(&place.content), path, query);
    match refused(cx, request, verdict, ABSENT) {
        Some(refused) => Ok(refused),
        None => answer::file(cx, request, place),
    }
}

/// The answer to who may not have it.
fn refused(cx: &mut Context<'_>, request: &Request<'_>, verdict: Verdict, unknown: &str) -> Option<Reply> {
    match verdict {
        Verdict::Admitted | Verdict::BySignature => None,
        Verdict::Unknown => Some(answer::problem(cx, request, 404, unknown, None)),
        Verdict::Refused(why) => Some(answer::problem(cx, request, 403, &why.to_string(), None)),
    }
}

enum Asked {
    Place(Place),
    /// The content itself, which has but one file; by a signature or not.
    Folder {
        content: Arc<Content>,
        signed: bool,
    },
    Nothing,
    Refused(Refusal),
    /// A document about a content, or a page.
    Other,
}

/// What lies under `/c/`.
fn content(cx: &Context<'_>, path: Path<'_>, query: Option<&str>, segments: &mut Segments<'_>) -> Asked {
    let Some(name) = segments.next().and_then(|name| name.decode()) else { return Asked::Nothing };
    let Ok(name) = name.parse::<ContentName>() else {
        // `{id}.torrent` and its like.
        return Asked::Other;
    };
    let found = cx.shared.catalog.by_name(name, cx.peer.ip());
    let signed = match cx.judge(found.map(|content| &**content), path.as_str(), query) {
        Verdict::Admitted => false,
        Verdict::BySignature => true,
        Verdict::Unknown => return Asked::Nothing,
        Verdict::Refused(why) => return Asked::Refused(why),
    };
    let Some(content) = found else { return Asked::Nothing };
    let mut rest = *segments;
    if rest.next().is_none_or(|next| next == "" && rest.next().is_none()) {
        let files = content.layout().files();
        let is_single = files.len() == 1 && files[0].path.len() == 1;
        return match is_single {
            true => Asked::Folder { content: Arc::clone(content), signed },
            // Its page is not for who has no more than a signature, and the control thread takes none.
            false => Asked::Other,
        };
    }
    match content.layout().file_index_at_path(|path| segments.matches(path)) {
        Some(file) => Asked::Place(Place { content: Arc::clone(content), file }),
        None => Asked::Nothing,
    }
}
