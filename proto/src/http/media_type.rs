//! The media type of a file by its extension.
//!
//! Types that a browser would run as a page of this relay (HTML, SVG, XML) are left out on purpose: what a relay hands
//! out was written by somebody else, and must not act in the relay's name.

/// What is answered when the extension says nothing (RFC 2046 §4.5.1).
pub const OCTET_STREAM: &str = "application/octet-stream";

/// The media type of a file name, by what follows its last dot, whatever the case.
#[must_use]
pub fn of(name: &str) -> &'static str {
    let Some((_, extension)) = name.rsplit_once('.') else { return OCTET_STREAM };
    TABLE
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(extension))
        .map_or(OCTET_STREAM, |(_, media_type)| media_type)
}

const TABLE: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("avif", "image/avif"),
    ("bz2", "application/x-bzip2"),
    ("deb", "application/vnd.debian.binary-package"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("iso", "application/vnd.efi.iso"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("log", "text/plain; charset=utf-8"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("md", "text/markdown; charset=utf-8"),
    ("meta4", "application/metalink4+xml"),
    ("mkv", "video/matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("parquet", "application/vnd.apache.parquet"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("rpm", "application/x-rpm"),
    ("sha256", "text/plain; charset=utf-8"),
    ("tar", "application/x-tar"),
    ("tgz", "application/gzip"),
    ("torrent", "application/x-bittorrent"),
    ("ts", "video/mp2t"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("xz", "application/x-xz"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_decide_and_pages_are_not_run() {
        assert_eq!(of("a.b.MP4"), "video/mp4");
        assert_eq!(of("image"), OCTET_STREAM);
        for active in ["x.html", "x.svg", "x.xml", "x.js", "x."] {
            assert_eq!(of(active), OCTET_STREAM);
        }
    }
}
