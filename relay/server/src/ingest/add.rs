//! Making a content of a request: reading torrents and metalinks, asking an unknown URL, importing local files.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::Layout;
use millrace_pagecache::new_content::{NewContent, Shape};
use millrace_pagecache::{State, StoreError};
use millrace_proto::access::Access;
use millrace_proto::id::ContentId;
use millrace_proto::metainfo::choose_piece_bytes;

use super::answer::{Accepted, Body};
use super::balance::{Balance, Crowd, Fate};
use super::error::AddError;
use super::origin::{Origin, file_name};
use super::planner::RANGE_BYTES_MAX;
use super::pull::First;
use super::pulls::Pulls;
use super::request::NewPull;
use super::sources::{DocumentKind, Recipe, Source, Sources, TORRENT_BYTES_MAX};

impl Pulls {
    /// Adds what is not there yet. Answers when the content exists: of an unknown URL, when its origin has answered.
    pub(super) async fn add_new(
        self: &Rc<Self>,
        request: NewPull,
        supersedes: Option<ContentId>,
    ) -> Result<Arc<Content>, AddError> {
        let mut recipe = Recipe { name: request.name.clone(), sha256: request.sha256, ..Recipe::default() };
        recipe.sources.key = request.key();
        recipe.sources.mirrors.clone_from(&request.mirrors);
        // What was given beside a torrent comes before the seeds that the torrent names.
        for text in &request.sources {
            match Source::parse(text, &request.headers, request.operator_named)? {
                Source::File(origin) => recipe.add_origin(origin),
                Source::Path(path) if request.sources.len() == 1 && request.metainfo.is_none() => {
                    return self.import(&request, &path, &recipe.sources.key).await;
                }
                Source::Path(_) => return Err(AddError::Mixed),
                Source::Document(origin, kind) => {
                    self.context().check_grant(&origin)?;
                    let mut grant = self.context().request_soon().await?;
                    grant.ask_of(&origin.url);
                    let line = self.context().lines.lend(&origin).await;
                    let clients = &self.context().clients;
                    let document = clients.document(line.connection(), &origin, TORRENT_BYTES_MAX).await;
                    drop(line);
                    let document =
                        document.map_err(|error| AddError::Fetch { url: origin.shown(), error })?;
                    grant.pay(u64::try_from(document.len()).unwrap_or(u64::MAX)).await;
                    drop(grant);
                    read_document(&mut recipe, kind, &document)?;
                }
                Source::PathDocument(path, kind) => {
                    let document = std::fs::read(&path).map_err(|error| AddError::Unreadable {
                        path: path.display().to_string(),
                        error: error.to_string(),
                    })?;
                    read_document(&mut recipe, kind, &document)?;
                }
            }
        }
        if let Some(torrent) = &request.metainfo {
            recipe.add_torrent(torrent)?;
        }
        let named = self.context().config.origins.urls();
        for origin in &mut recipe.sources.origins {
            origin.trust_beneath(&named);
        }
        recipe.sources.sha256_wanted = recipe.sha256.map(|sha256| HEXLOWER.encode(&sha256));
        let request = NewPull { name: recipe.name.take(), sha256: recipe.sha256, ..request };
        match recipe.metainfo.take() {
            Some(metainfo) => {
                if recipe.sources.origins.is_empty() {
                    return Err(AddError::NoWebSeed);
                }
                let name = request.name.clone().unwrap_or_else(|| metainfo.info.name.clone());
                // So that no two requests find it missing.
                let _only = self.adding_torrent().lock().await;
                let hash =
                    metainfo.infohash_v1().or_else(|| metainfo.infohash_v2().map(|hash| hash.truncated()));
                if let Some(known) = hash.and_then(|hash| self.context().store.by_infohash(&hash)) {
                    if known.state() == State::Failed {
                        known.set_sources(recipe.sources.to_value());
                        self.note_key(&recipe.sources.key, known.id());
                    }
                    return Ok(self.revive(known));
                }
                let shape = Shape::Metainfo(metainfo);
                let content = self.create(&request, &name, shape, &recipe.sources, None, supersedes).await?;
                self.start(&content, None);
                Ok(content)
            }
            None if recipe.sources.origins.is_empty() => Err(AddError::NoSource),
            None => self.add_from_origins(request, recipe.sources, supersedes).await,
        }
    }

    /// Asks the origins for the beginning of an unknown file. The answer says what it is, and its body is the first range.
    pub(super) async fn add_from_origins(
        self: &Rc<Self>,
        request: NewPull,
        mut sources: Sources,
        supersedes: Option<ContentId>,
    ) -> Result<Arc<Content>, AddError> {
        let first = self.ask_first(&sources.origins).await?;
        let Accepted { body, validators } = &first.accepted;
        sources.origins[first.origin].validators.insert(0, validators.clone());
        let name = request.name.clone().unwrap_or_else(|| file_name(&sources.origins[first.origin].url));
        let length = match body {
            Body::Empty => Some(0),
            Body::Part(_) | Body::Whole(_) => validators.length,
        };
        let shape = match length {
            Some(length) => {
                let layout = Layout::single(&name, length, choose_piece_bytes(length));
                Shape::Layout(layout.map_err(|error| AddError::Store(error.to_string()))?)
            }
            None => Shape::Growing,
        };
        let date = validators.last_modified.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
        let modified = date
            .and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok())
            .map(|since| since.as_secs());
        let content = self.create(&request, &name, shape, &sources, modified, supersedes).await?;
        self.start(&content, Some(first));
        Ok(content)
    }

    /// Asks one origin after the other until one answers; a few rounds, with rests.
    async fn ask_first(&self, origins: &[Origin]) -> Result<First, AddError> {
        let context = self.context();
        let mut balance = Balance::new(origins.len(), 1, Crowd::ONE, context.config.add_patience);
        let began = std::time::Instant::now();
        let mut last = None;
        loop {
            let now_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let is_granted = |origin: usize| context.budget.is_granted(&origins[origin].url);
            let Some(index) = balance.choose_among(now_ms, 0, is_granted) else {
                if let Some(index) = balance.choose(now_ms, 0) {
                    context.check_grant(&origins[index])?;
                }
                let Some(at) = balance.rested_at_ms(now_ms).filter(|_| !balance.is_given_up()) else {
                    return Err(last.unwrap_or(AddError::NoSource));
                };
                tokio::time::sleep(Duration::from_millis(at - now_ms)).await;
                continue;
            };
            let origin = &origins[index];
            let mut grant = context.request_soon().await?;
            grant.ask_of(&origin.url);
            let range = 0..grant.reserve(RANGE_BYTES_MAX).max(1);
            let line = context.lines.lend(origin).await;
            let asked_at = std::time::Instant::now();
            let asked =
                context.clients.fetch(line.connection(), origin, &origin.url, &range, None, false).await;
            match asked {
                Ok((response, accepted)) => {
                    let answered_in = asked_at.elapsed();
                    return Ok(First {
                        origin: index,
                        line,
                        response,
                        accepted,
                        grant,
                        asked_at,
                        answered_in,
                    });
                }
                Err(error) => {
                    let fate = error.fate();
                    if matches!(fate, Fate::Rest(_)) {
                        context.metrics.retries.increment();
                    }
                    tracing::warn!(origin = %origin.shown(), "{error}");
                    last = Some(AddError::Fetch { url: origin.shown(), error });
                    balance.failed(index, now_ms, fate, context.dice(), String::new());
                }
            }
        }
    }

    /// Puts a content into the store. One of unknown hashes has bytes on their way that somebody may be waiting for: it is made durable
    /// beside its pull.
    async fn create(
        &self,
        request: &NewPull,
        name: &str,
        shape: Shape,
        sources: &Sources,
        last_modified: Option<u64>,
        supersedes: Option<ContentId>,
    ) -> Result<Arc<Content>, AddError> {
        let context = self.context();
        let id = request.id.unwrap_or_else(draw_id);
        let new = NewContent {
            last_modified,
            added: context.unix_now(),
            pinned: request.pin,
            priority: request.priority,
            access: self.access_of(request),
            sources: sources.to_value(),
            supersedes,
            sha256: request.sha256,
            ..NewContent::new(id, name, shape, &entity_tag(id, request.sha256.as_ref()))
        };
        let created = match new.shape {
            Shape::Layout(_) | Shape::Growing => context.store.begin(new),
            _ => {
                let store = Arc::clone(&context.store);
                let added = context.blocking(move || store.add(new)).await;
                added.map_err(|error| AddError::Store(error.to_string()))?
            }
        };
        let content = created.map_err(|error| store_error(context, &error))?;
        content.counters().touch(context.unix_now());
        self.note_key(&sources.key, id);
        context.put(&content);
        Ok(content)
    }

    /// Who may have what is asked for.
    fn access_of(&self, request: &NewPull) -> Access {
        let stated = request.access.clone();
        stated.unwrap_or_else(|| self.context().config.ledger.gate().default.clone())
    }

    /// Takes a local file or folder over; it is served at once and hashed in the background.
    async fn import(
        self: &Rc<Self>,
        request: &NewPull,
        path: &Path,
        key: &str,
    ) -> Result<Arc<Content>, AddError> {
        let context = self.context();
        let unreadable = |error: String| AddError::Unreadable { path: path.display().to_string(), error };
        let full = std::fs::canonicalize(path).map_err(|error| unreadable(error.to_string()))?;
        let own_name = full
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| unreadable("it has no name in UTF-8".into()))?;
        let name = request.name.clone().unwrap_or_else(|| own_name.to_owned());
        let id = request.id.unwrap_or_else(draw_id);
        let etag = entity_tag(id, request.sha256.as_ref());
        let (store, access) = (Arc::clone(&context.store), self.access_of(request));
        let imported = context.blocking(move || store.import(id, &full, &name, &etag, access)).await;
        let imported = imported.map_err(|error| AddError::Store(error.to_string()))?;
        let imported = imported.map_err(|error| store_error(context, &error))?;
        for skipped in &imported.skipped {
            tracing::warn!(path = %skipped.display(), "left out: neither a file nor a folder (symbolic links are not followed)");
        }
        let content = imported.content;
        let sha256_wanted = request.sha256.map(|sha256| HEXLOWER.encode(&sha256));
        let sources = Sources {
            key: key.to_owned(),
            mirrors: request.mirrors.clone(),
            sha256_wanted,
            ..Sources::default()
        };
        if let Some(sha256) = request.sha256 {
            content.set_sha256(sha256);
        }
        content.set_sources(sources.to_value());
        content.set_pinned(request.pin);
        content.set_priority(request.priority);
        content.set_state(State::Complete);
        context.store.save(&content).map_err(|error| store_error(context, &error))?;
        self.note_key(key, id);
        context.put(&content);
        self.start(&content, None);
        Ok(content)
    }
}

fn read_document(recipe: &mut Recipe, kind: DocumentKind, document: &[u8]) -> Result<(), AddError> {
    match kind {
        DocumentKind::Torrent => recipe.add_torrent(document),
        DocumentKind::Metalink => recipe.add_metalink(document),
    }
}

pub(super) fn store_error(context: &super::context::Context, error: &StoreError) -> AddError {
    let text = error.to_string();
    match context.disk_error(&text) {
        full if full != text => AddError::NoRoom(full),
        text => AddError::Store(text),
    }
}

/// 128 random bits.
fn draw_id() -> ContentId {
    let mut bytes = [0; 16];
    let drawn = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    // Without randomness there are no ids, and nothing else of this program would work either.
    assert!(drawn.is_ok(), "the system gives no randomness");
    ContentId(bytes)
}

/// Fixed before the first byte: from the digest where somebody gave it, else from the id.
fn entity_tag(id: ContentId, sha256: Option<&[u8; 32]>) -> String {
    match sha256 {
        Some(sha256) => format!("\"{}\"", HEXLOWER.encode(sha256)),
        None => format!("\"{id}\""),
    }
}
