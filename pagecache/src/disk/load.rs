//! Reading the contents of a store at start: their states are believed, only what the journal names is hashed.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use millrace_proto::id::ContentId;
use millrace_proto::metainfo::Metainfo;

use super::creation::{self, DESCRIPTION, METAINFO};
use super::description::{DescribedShape, Description};
use super::durable::{self, Unreadable};
use super::error::StoreError;
use super::files::{FileSet, Place};
use super::room::EVICTED_NAME;
use super::share::SPARE_NAME;
use super::state_file::Saved;
use super::store::Problem;
use crate::content::{Content, Data, State};
use crate::hashes::Verdict;
use crate::layout::{FileIndex, Layout, PieceIndex};
use crate::new_content::{NewContent, Shape};
use crate::occupied::SharedFile;

/// What became of a folder.
#[derive(Debug)]
pub(super) enum Loaded {
    /// It is as it should be.
    Whole(Arc<Content>),
    /// Its creation was interrupted, and is finished now.
    Finished(Arc<Content>),
    /// Its creation was interrupted before it was known what it is to be.
    Removed,
}

/// Reads the content in `folder`, of which `visible` may be served beyond the pieces that are vouched for: another process has it open
/// and serves that.
///
/// # Errors
/// [`StoreError::Version`] for files of a later program; anything else concerns this content alone.
pub(super) fn load(folder: &Path, id: ContentId, visible: &[Range<u64>]) -> Result<Loaded, StoreError> {
    let error = |error| StoreError::unreadable(&folder.join(DESCRIPTION))(error);
    match durable::read_either(folder, DESCRIPTION, Description::decode) {
        Ok(described) => load_described(folder, id, described, visible).map(Loaded::Whole),
        Err(Unreadable::Torn(_)) if creation::is_interrupted(folder).map_err(StoreError::at(folder))? => {
            let Some(described) = creation::interrupted_description(folder).map_err(error)? else {
                durable::remove_folder(folder).map_err(StoreError::at(folder))?;
                return Ok(Loaded::Removed);
            };
            let content = load_described(folder, id, described, &[])?;
            creation::finish_interrupted(folder, &content)?;
            Ok(Loaded::Finished(content))
        }
        Err(torn) => Err(error(torn)),
    }
}

fn load_described(
    folder: &Path,
    id: ContentId,
    described: Description,
    visible: &[Range<u64>],
) -> Result<Arc<Content>, StoreError> {
    let (shape, layout, place) = shape(folder, &described.name, described.shape.clone())?;
    let growing = matches!(shape, Shape::Growing);
    let files = FileSet::new(folder, place, &layout, growing);
    if growing && visible.is_empty() {
        // Its origin tells no length and so cannot resume: what came is of no use. Unlinked, not cut.
        durable::remove(&folder.join("data").join(&described.name)).map_err(StoreError::at(folder))?;
    }
    // What a crash left in the middle of something: each is a name that nobody uses, of bytes that take room.
    let left = durable::remove(&folder.join(SPARE_NAME))
        .and_then(|()| durable::remove_folder(&folder.join(EVICTED_NAME)));
    left.map_err(StoreError::at(folder))?;
    let short = files.measure(&layout);
    if growing {
        let created = files.create(&layout).and_then(|()| files.sync_folders(&layout));
        created.map_err(StoreError::at(folder))?;
    }
    let (used, damage) = (described.used, described.damage.clone());
    let content = Content::assemble(new_content(id, described, shape), layout, Data::Files(Box::new(files)));
    let counters = content.counters();
    counters.served_http.store(used.served_http, Relaxed);
    counters.served_bittorrent.store(used.served_bittorrent, Relaxed);
    counters.origin_bytes.store(used.origin_bytes, Relaxed);
    counters.last_used.store(used.last_used, Relaxed);
    counters.uses.store(used.uses, Relaxed);
    if content.metainfo().is_none()
        && let Ok(metainfo) = read_metainfo(folder)
    {
        content.set_metainfo(Arc::new(metainfo));
    }
    restore(folder, &content, short)?;
    visible.iter().for_each(|run| content.follow(run.clone()));
    if let Some(why) = damage {
        content.mark_damaged(&why);
    }
    Ok(Arc::new(content))
}

/// Takes over what the state and the journal say, except of pieces that lie in the `short` files.
fn restore(folder: &Path, content: &Content, short: Vec<FileIndex>) -> Result<(), StoreError> {
    if content.is_imported() && !short.is_empty() {
        content.quarantine("a file was changed, cut or removed since it was imported: import it again");
        return Ok(());
    }
    let state = folder.join("state");
    let fits = |saved: &Saved| {
        let pieces = usize::try_from(content.layout().piece_count());
        saved.id == content.id()
            && saved.piece_bytes == content.layout().piece_bytes()
            && saved.length == content.layout().length()
            && pieces == Ok(saved.good.len())
    };
    let mut saved = match durable::read_either(folder, "state", Saved::decode) {
        Ok(saved) => Some(saved).filter(|saved| fits(saved) && !content.is_growing()),
        // Nothing is vouched for then, and nothing worse: the journal may still name pieces.
        Err(Unreadable::Torn(_)) => None,
        Err(other) => return Err(StoreError::unreadable(&state)(other)),
    };
    let lost = lost_files(content, short, saved.as_ref());
    let is_lost = |piece: PieceIndex| {
        let range = content.layout().piece_range(piece);
        let mut files = lost.iter().filter_map(|&file| content.layout().file(file));
        files.any(|file| file.offset < range.end && range.start < file.end())
    };
    let indexed = |at: usize| u32::try_from(at).ok().map(PieceIndex);
    begin_anew(folder, content, &lost, saved.as_mut()).map_err(StoreError::at(folder))?;
    if let Some(saved) = saved {
        let learned = saved.learned.iter().enumerate();
        for (piece, hash) in learned.filter_map(|(at, hash)| Some((indexed(at)?, (*hash)?))) {
            content.record_hash(piece, hash);
        }
        saved.good.iter_ones().filter_map(indexed).for_each(|piece| content.restore_piece(piece));
    }
    rehash(folder, content, is_lost)?;
    if content.is_complete() && !content.is_growing() {
        content.set_state(State::Complete);
    }
    Ok(())
}

/// The files of which nothing counts any more: the `short` ones, and those with a piece missing that have a second name.
/// In another content the bytes that would be written there may be visible.
fn lost_files(content: &Content, short: Vec<FileIndex>, saved: Option<&Saved>) -> Vec<FileIndex> {
    let Data::Files(files) = &content.data else { return short };
    let is_good = |piece: PieceIndex| {
        usize::try_from(piece.0).ok().and_then(|at| saved?.good.get(at)).is_some_and(|good| *good)
    };
    let is_whole = |file: &SharedFile| content.layout().pieces_of_file(file.file).all(is_good);
    let mut lost = short;
    if !content.is_imported() {
        let occupied = files.occupied();
        lost.extend(occupied.shared.iter().filter(|file| !is_whole(file)).map(|file| file.file));
    }
    lost
}

/// Makes the lost files anew, empty and with no name but their own, after nothing vouches for them any more.
fn begin_anew(
    folder: &Path,
    content: &Content,
    lost: &[FileIndex],
    saved: Option<&mut Saved>,
) -> std::io::Result<()> {
    let Data::Files(files) = &content.data else { return Ok(()) };
    if lost.is_empty() {
        return Ok(());
    }
    if let Some(saved) = saved {
        for piece in lost.iter().flat_map(|&file| content.layout().pieces_of_file(file)) {
            if let Some(mut good) = usize::try_from(piece.0).ok().and_then(|at| saved.good.get_mut(at)) {
                good.set(false);
            }
        }
        durable::replace_for_good(folder, "state", &saved.encode())?;
    }
    files.unlink_shared(content.layout(), lost)?;
    files.create(content.layout())?;
    files.sync_folders(content.layout())?;
    files.measure(content.layout());
    Ok(())
}

/// Hashes the pieces that the journal names and keeps those that are as it says.
fn rehash(folder: &Path, content: &Content, lost: impl Fn(PieceIndex) -> bool) -> Result<(), StoreError> {
    let Data::Files(files) = &content.data else { return Ok(()) };
    let path = folder.join("arrived");
    let records = files.journal.read().map_err(StoreError::unreadable(&path))?;
    // What is still worth remembering is written again by `mark_verified`.
    files.journal.retain(|_| false).map_err(StoreError::at(&path))?;
    if content.is_growing() {
        return Ok(());
    }
    for (piece, hash) in records {
        if piece.0 >= content.layout().piece_count() || content.has_piece(piece) || lost(piece) {
            continue;
        }
        if let Some(hash) = hash {
            content.record_hash(piece, hash);
        }
        if matches!(content.verify_piece(piece), Ok(Verdict::Good)) {
            // Read from memory, maybe: that does not say that the disk has them.
            files.mark_unsynced(content.layout(), piece).map_err(StoreError::at(&path))?;
            content.mark_verified(piece);
        }
    }
    Ok(())
}

fn shape(folder: &Path, name: &str, described: DescribedShape) -> Result<(Shape, Layout, Place), StoreError> {
    let json = folder.join(DESCRIPTION);
    let stored = Place::Stored(folder.join("data"));
    Ok(match described {
        DescribedShape::Metainfo => {
            let metainfo = Arc::new(read_metainfo(folder)?);
            let layout = Layout::from_info(&metainfo.info)?;
            (Shape::Metainfo(metainfo), layout, stored)
        }
        DescribedShape::Layout(layout) => {
            let layout = layout.layout().map_err(StoreError::unreadable(&json))?;
            (Shape::Layout(layout.clone()), layout, stored)
        }
        DescribedShape::Imported(layout) => {
            let layout = layout.layout().map_err(StoreError::unreadable(&json))?;
            (Shape::Imported(layout.clone()), layout, stored)
        }
        DescribedShape::Growing => (Shape::Growing, Layout::growing(name), stored),
        DescribedShape::InPlace { layout, files } => {
            let layout = layout.layout().map_err(StoreError::unreadable(&json))?;
            let paths = files.iter().map(|file| file.as_ref().map(|file| file.0.clone()).unwrap_or_default());
            (Shape::InPlace { layout: layout.clone(), paths: paths.collect() }, layout, Place::InPlace(files))
        }
    })
}

fn new_content(id: ContentId, described: Description, shape: Shape) -> NewContent {
    NewContent {
        id,
        supersedes: described.supersedes(),
        sha256: described.sha256(),
        name: described.name,
        shape,
        etag: described.etag,
        last_modified: described.last_modified,
        added: described.added,
        pinned: described.pinned,
        priority: described.priority,
        paused: described.paused,
        refetchable: described.refetchable,
        access: described.access,
        sources: described.sources,
    }
}

fn read_metainfo(folder: &Path) -> Result<Metainfo, StoreError> {
    let path = folder.join(METAINFO);
    let bytes = fs::read(&path).map_err(StoreError::at(&path))?;
    Metainfo::parse(&bytes).map_err(|error| StoreError::Damaged { path, why: error.to_string() })
}

/// The folders of contents below `contents`, after removing what an interrupted removal left, or an addition by an earlier program.
pub(super) fn folders(
    contents: &Path,
    problems: &mut Vec<Problem>,
) -> Result<Vec<(PathBuf, ContentId)>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(contents).map_err(StoreError::at(contents))? {
        let path = entry.map_err(StoreError::at(contents))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Ok(id) = name.parse() {
            found.push((path, id));
        } else if name.starts_with(".new-") || name.starts_with(".removed-") {
            let removed = fs::remove_dir_all(&path).map_err(StoreError::at(&path));
            problems.extend(removed.err().map(|error| Problem { folder: path, error }));
        }
    }
    Ok(found)
}
