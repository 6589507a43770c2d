//! Reading a Metalink 4 document, one event at a time.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::*;

/// Parses a document of at most [`DOCUMENT_BYTES_MAX`].
///
/// # Errors
/// What [`MetalinkError`] names; nothing of a document with an error is returned.
pub fn parse(document: &str) -> Result<Metalink, MetalinkError> {
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(MetalinkError::TooMany("bytes"));
    }
    let mut reader = Reader::from_str(document);
    let mut state = State::default();
    loop {
        match reader.read_event().map_err(|error| MetalinkError::Xml(error.to_string()))? {
            Event::Start(start) => {
                state.open(&start)?;
                state.depth += 1;
            }
            Event::Empty(start) => {
                state.open(&start)?;
                state.close(start.local_name().as_ref())?;
            }
            Event::End(end) => {
                state.depth = state.depth.saturating_sub(1);
                state.close(end.local_name().as_ref())?;
            }
            Event::Text(text) => state.text.push_str(&text.xml10_content()),
            Event::CData(text) => state.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let unescaped =
                    quick_xml::escape::unescape(&format!("&{};", &*reference)).map(|text| text.into_owned());
                state.text += &unescaped.map_err(|error| MetalinkError::Xml(error.to_string()))?;
            }
            Event::DocType(_) => return Err(MetalinkError::Xml("DTDs are not read".to_owned())),
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
    if state.depth != 0 || !state.is_metalink {
        return Err(MetalinkError::Invalid("no complete metalink element"));
    }
    if state.metalink.files.is_empty() {
        return Err(MetalinkError::Invalid("no file"));
    }
    Ok(state.metalink)
}

/// The attributes of the innermost element that has text we want.
#[derive(Default)]
struct State {
    metalink: Metalink,
    is_metalink: bool,
    depth: usize,
    file: Option<File>,
    pieces: Option<Pieces>,
    in_pieces: bool,
    text: String,
    kind: Option<String>,
    priority: Option<u32>,
}

impl State {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), MetalinkError> {
        self.text.clear();
        let name = start.local_name();
        let name: &str = name.as_ref();
        if self.depth == 0 {
            let namespace = attribute(start, "xmlns")?;
            self.is_metalink =
                name == "metalink" && namespace.as_deref() == Some("urn:ietf:params:xml:ns:metalink");
            return if self.is_metalink {
                Ok(())
            } else {
                Err(MetalinkError::Invalid("not a Metalink 4 document"))
            };
        }
        match name {
            "origin" => self.metalink.dynamic = attribute(start, "dynamic")?.as_deref() == Some("true"),
            "file" if self.depth == 1 => {
                let name = attribute(start, "name")?.ok_or(MetalinkError::Invalid("file without a name"))?;
                if !is_safe_name(&name) {
                    return Err(MetalinkError::HostileName);
                }
                self.file = Some(File { name, ..File::default() });
            }
            "pieces" => self.open_pieces(start)?,
            "hash" => self.kind = attribute(start, "type")?,
            "url" | "metaurl" => {
                self.kind = attribute(start, "mediatype")?;
                let priority = attribute(start, "priority")?;
                self.priority =
                    priority.and_then(|text| text.parse().ok()).filter(|p| (1..=999_999).contains(p));
            }
            _ => {}
        }
        Ok(())
    }

    fn open_pieces(&mut self, start: &BytesStart<'_>) -> Result<(), MetalinkError> {
        self.in_pieces = true;
        let length =
            attribute(start, "length")?.and_then(|text| text.parse().ok()).filter(|length| *length > 0);
        let length = length.ok_or(MetalinkError::Invalid("pieces without a length"))?;
        self.pieces = match attribute(start, "type")?.as_deref() {
            Some("sha-1") => Some(Pieces { length, hashes: PieceHashes::Sha1(Vec::new()) }),
            Some("sha-256") => Some(Pieces { length, hashes: PieceHashes::Sha256(Vec::new()) }),
            _ => None,
        };
        Ok(())
    }

    fn close(&mut self, name: &str) -> Result<(), MetalinkError> {
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        let Some(file) = &mut self.file else {
            if name == "origin" {
                self.metalink.origin = Some(text.to_owned());
            }
            return Ok(());
        };
        match name {
            "size" => file.size = Some(text.parse().map_err(|_| MetalinkError::Invalid("size"))?),
            "hash" if self.in_pieces => match self.pieces.as_mut().map(|pieces| &mut pieces.hashes) {
                Some(PieceHashes::Sha1(hashes)) => push(hashes, hash(text)?, PIECES_MAX, "pieces")?,
                Some(PieceHashes::Sha256(hashes)) => push(hashes, hash(text)?, PIECES_MAX, "pieces")?,
                None => {}
            },
            "hash" if self.kind.as_deref() == Some("sha-256") => file.sha256 = Some(hash(text)?),
            "pieces" => {
                self.in_pieces = false;
                // Of several sets the SHA-256 one is kept: it is the one that proves something.
                let pieces = self.pieces.take();
                let is_better = matches!(&pieces, Some(Pieces { hashes: PieceHashes::Sha256(_), .. }));
                if file.pieces.is_none() || is_better {
                    file.pieces = pieces;
                }
            }
            "url" | "metaurl" => {
                let url = Url { url: text.to_owned(), priority: self.priority.take() };
                match (name, self.kind.take().as_deref()) {
                    ("url", _) => push(&mut file.urls, url, URLS_MAX, "URLs")?,
                    (_, Some("torrent")) => push(&mut file.torrents, url, URLS_MAX, "URLs")?,
                    _ => {}
                }
            }
            "file" => {
                if let Some(file) = self.file.take() {
                    push(&mut self.metalink.files, file, FILES_MAX, "files")?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn push<T>(list: &mut Vec<T>, item: T, count_max: usize, what: &'static str) -> Result<(), MetalinkError> {
    if list.len() >= count_max {
        return Err(MetalinkError::TooMany(what));
    }
    list.push(item);
    Ok(())
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, MetalinkError> {
    let xml = |error: String| MetalinkError::Xml(error);
    let Some(attribute) = start.try_get_attribute(name).map_err(|error| xml(error.to_string()))? else {
        return Ok(None);
    };
    attribute
        .normalized_value(XmlVersion::Explicit1_0)
        .map(|value| Some(value.into_owned()))
        .map_err(|error| xml(error.to_string()))
}
