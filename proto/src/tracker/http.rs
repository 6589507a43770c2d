//! Announce and scrape requests over HTTP (BEP 3, 7, 23, 48): the query string, read by the built-in tracker and
//! written for trackers that we announce to.

use std::fmt::Write as _;

use super::AnnounceEvent;
use super::query::{decode_exactly, encode_onto, pairs};

/// The most infohashes one scrape may name, as many as fit a UDP scrape (BEP 15).
pub const SCRAPE_INFOHASHES_MAX: usize = 74;

/// Why a query is no announce or scrape. The text is fit for a `failure reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A parameter that must be there is not.
    #[error("missing parameter {0}")]
    Missing(&'static str),
    /// A parameter says nothing that it can say.
    #[error("malformed parameter {0}")]
    Malformed(&'static str),
    /// More than [`SCRAPE_INFOHASHES_MAX`] infohashes.
    #[error("too many infohashes in one scrape")]
    TooMany,
}

/// An announce.
///
/// An `ip` parameter is read past: the tracker believes the address the connection came from. So are `ipv4` and
/// `ipv6` (BEP 7), for the same reason: anybody could point a swarm at a victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnounceRequest<'a> {
    /// The v1 infohash, or the first 20 bytes of the v2 infohash.
    pub infohash: [u8; 20],
    /// The peer's name for itself.
    pub peer_id: [u8; 20],
    /// The port the peer listens on; 0 when it cannot be called.
    pub port: u16,
    /// Bytes sent since `started`.
    pub uploaded: u64,
    /// Bytes received since `started`.
    pub downloaded: u64,
    /// Bytes still to download; `u64::MAX` when the peer does not say or does not know yet.
    pub left: u64,
    /// What happened.
    pub event: AnnounceEvent,
    /// How many peers are wanted, when the asker says so.
    pub numwant: Option<u32>,
    /// `compact=0` was said. BEP 23 lets a tracker answer compactly all the same.
    pub compact_refused: bool,
    /// Proof of identity across changes of address, percent-encoded as it stood; compare, never interpret.
    pub key: &'a str,
    /// What an earlier answer gave as `tracker id`, percent-encoded as it stood.
    pub trackerid: &'a str,
}

impl<'a> AnnounceRequest<'a> {
    /// Reads what follows the `?`. Of a repeated parameter the last counts; unknown ones are ignored.
    ///
    /// # Errors
    /// [`QueryError`] for what the tracker cannot do without, or cannot read.
    pub fn parse(query: &'a str) -> Result<Self, QueryError> {
        let (mut infohash, mut peer_id, mut port) = (None, None, None);
        let (mut uploaded, mut downloaded, mut left) = (0, 0, u64::MAX);
        let (mut event, mut numwant, mut compact_refused) = (AnnounceEvent::Periodic, None, false);
        let (mut key, mut trackerid) = ("", "");
        for (name, value) in pairs(query) {
            match name {
                "info_hash" => {
                    infohash = Some(decode_exactly(value).ok_or(QueryError::Malformed("info_hash"))?);
                }
                "peer_id" => peer_id = Some(decode_exactly(value).ok_or(QueryError::Malformed("peer_id"))?),
                "port" => port = Some(value.parse().map_err(|_| QueryError::Malformed("port"))?),
                "uploaded" => uploaded = bytes(value, "uploaded")?,
                "downloaded" => downloaded = bytes(value, "downloaded")?,
                // Clients without metadata are known to send -1; WebTorrent 1.x, given a magnet, sends nothing after the `=`.
                "left" if !matches!(value, "-1" | "") => left = bytes(value, "left")?,
                "event" => event = event_from(value)?,
                // A negative number is how some clients ask for the default.
                "numwant" => numwant = value.parse().ok(),
                "compact" => compact_refused = value == "0",
                "key" => key = value,
                "trackerid" => trackerid = value,
                _ => {}
            }
        }
        Ok(Self {
            infohash: infohash.ok_or(QueryError::Missing("info_hash"))?,
            peer_id: peer_id.ok_or(QueryError::Missing("peer_id"))?,
            port: port.ok_or(QueryError::Missing("port"))?,
            uploaded,
            downloaded,
            left,
            event,
            numwant,
            compact_refused,
            key,
            trackerid,
        })
    }

    /// The URL to ask: the tracker's own, its query (a passkey, mostly) kept, with this announce appended.
    ///
    /// `key` and `trackerid` go out as they are, so they must already be percent-encoded. A fragment is cut off.
    #[must_use]
    pub fn url(&self, tracker: &str) -> String {
        let mut url = open_query(tracker);
        url.push_str("info_hash=");
        encode_onto(&mut url, &self.infohash);
        url.push_str("&peer_id=");
        encode_onto(&mut url, &self.peer_id);
        // Writing to a String cannot fail.
        let _ = write!(url, "&port={}&uploaded={}&downloaded={}", self.port, self.uploaded, self.downloaded);
        if self.left != u64::MAX {
            let _ = write!(url, "&left={}", self.left);
        }
        let _ = write!(url, "&compact={}", u8::from(!self.compact_refused));
        if let Some(name) = event_name(self.event) {
            let _ = write!(url, "&event={name}");
        }
        if let Some(numwant) = self.numwant {
            let _ = write!(url, "&numwant={numwant}");
        }
        for (name, value) in [("key", self.key), ("trackerid", self.trackerid)] {
            if !value.is_empty() {
                let _ = write!(url, "&{name}={value}");
            }
        }
        url
    }
}

fn bytes(value: &str, name: &'static str) -> Result<u64, QueryError> {
    value.parse().map_err(|_| QueryError::Malformed(name))
}

fn event_from(value: &str) -> Result<AnnounceEvent, QueryError> {
    match value {
        // `paused` (BEP 21) is a peer that stays and downloads nothing: no event of ours.
        "" | "empty" | "paused" => Ok(AnnounceEvent::Periodic),
        "started" => Ok(AnnounceEvent::Started),
        "completed" => Ok(AnnounceEvent::Completed),
        "stopped" => Ok(AnnounceEvent::Stopped),
        _ => Err(QueryError::Malformed("event")),
    }
}

fn event_name(event: AnnounceEvent) -> Option<&'static str> {
    match event {
        AnnounceEvent::Periodic => None,
        AnnounceEvent::Started => Some("started"),
        AnnounceEvent::Completed => Some("completed"),
        AnnounceEvent::Stopped => Some("stopped"),
    }
}

fn open_query(tracker: &str) -> String {
    let tracker = tracker.split('#').next().unwrap_or_default();
    let joint = match tracker.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    [tracker, joint].concat()
}

/// A scrape, borrowed from its query string (BEP 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrapeRequest<'a> {
    query: &'a str,
}

impl<'a> ScrapeRequest<'a> {
    /// Reads what follows the `?`. A scrape without an infohash, which asks about everything, is refused.
    ///
    /// # Errors
    /// [`QueryError`] when an infohash is malformed, or there are none or too many.
    pub fn parse(query: &'a str) -> Result<Self, QueryError> {
        let mut count = 0;
        for (name, value) in pairs(query) {
            if name == "info_hash" {
                decode_exactly::<20>(value).ok_or(QueryError::Malformed("info_hash"))?;
                count += 1;
            }
        }
        match count {
            0 => Err(QueryError::Missing("info_hash")),
            1..=SCRAPE_INFOHASHES_MAX => Ok(Self { query }),
            _ => Err(QueryError::TooMany),
        }
    }

    /// The infohashes in the order of the query.
    pub fn infohashes(&self) -> impl Iterator<Item = [u8; 20]> + use<'a> {
        pairs(self.query)
            .filter(|(name, _)| *name == "info_hash")
            .filter_map(|(_, value)| decode_exactly(value))
    }
}

/// The scrape URL that belongs to an announce URL: `announce` at the start of the last path segment becomes
/// `scrape` (BEP 48). `None` when there is no such segment, which means that the tracker cannot be scraped.
#[must_use]
pub fn scrape_url(announce: &str, infohashes: &[[u8; 20]]) -> Option<String> {
    let path_end = announce.find(['?', '#']).unwrap_or(announce.len());
    let (path, query) = announce.split_at(path_end);
    let (folder, segment) = path.rsplit_once('/')?;
    let suffix = segment.strip_prefix("announce")?;
    let mut url = open_query(&[folder, "/scrape", suffix, query].concat());
    for (at, infohash) in infohashes.iter().enumerate() {
        url.push_str(if at == 0 { "info_hash=" } else { "&info_hash=" });
        encode_onto(&mut url, infohash);
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "info_hash=%002345678901234567890&peer_id=-MR0100-%ffbcdefghijkl&port=6881";

    #[track_caller]
    fn check(query: &str, expected: Result<(), QueryError>) {
        assert_eq!(AnnounceRequest::parse(query).map(|_| ()), expected);
    }

    #[test]
    fn an_announce_says_what_it_says() {
        let query = format!(
            "{LEAST}&uploaded=1&downloaded=2&left=3&event=started&numwant=50&compact=0&key=%41b&ip=10.0.0.1&x"
        );
        let announce = AnnounceRequest::parse(&query).unwrap();
        assert_eq!(&announce.infohash, b"\x002345678901234567890");
        assert_eq!(announce.peer_id[8], 0xff);
        assert_eq!((announce.port, announce.uploaded, announce.downloaded, announce.left), (6881, 1, 2, 3));
        assert_eq!((announce.event, announce.numwant), (AnnounceEvent::Started, Some(50)));
        assert!(announce.compact_refused && announce.key == "%41b");
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        check(LEAST, Ok(()));
        check(&format!("{LEAST}&numwant=-1"), Ok(()));
        check("", Err(QueryError::Missing("info_hash")));
        check("info_hash=short", Err(QueryError::Malformed("info_hash")));
        check(&LEAST.replace("%ff", "%f"), Err(QueryError::Malformed("peer_id")));
        check(&LEAST.replace("6881", "65536"), Err(QueryError::Malformed("port")));
        check(&format!("{LEAST}&event=begun"), Err(QueryError::Malformed("event")));
        check(&format!("{LEAST}&left=x"), Err(QueryError::Malformed("left")));
    }

    #[test]
    fn a_peer_without_metadata_cannot_say_what_is_left() {
        for left in ["", "&left=-1", "&left="] {
            let query = format!("{LEAST}{left}");
            assert_eq!(AnnounceRequest::parse(&query).map(|announce| announce.left), Ok(u64::MAX), "{query}");
        }
    }

    #[test]
    fn urls_keep_the_query_of_the_tracker() {
        let announce = AnnounceRequest::parse(LEAST).unwrap();
        let tail = "info_hash=%002345678901234567890&peer_id=-MR0100-%FFbcdefghijkl\
                    &port=6881&uploaded=0&downloaded=0&compact=1";
        assert_eq!(announce.url("http://t/announce"), format!("http://t/announce?{tail}"));
        assert_eq!(announce.url("http://t/a?pass=1#x"), format!("http://t/a?pass=1&{tail}"));
        assert_eq!(announce.url("http://t/a?"), format!("http://t/a?{tail}"));
    }

    #[test]
    fn scrapes_name_several_infohashes_and_not_too_many() {
        let query = "info_hash=aaaaaaaaaaaaaaaaaaaa&info_hash=%62bbbbbbbbbbbbbbbbbbb";
        let scrape = ScrapeRequest::parse(query).unwrap();
        assert!(scrape.infohashes().eq([[b'a'; 20], [b'b'; 20]]));
        assert_eq!(ScrapeRequest::parse(""), Err(QueryError::Missing("info_hash")));
        let many = "&info_hash=aaaaaaaaaaaaaaaaaaaa".repeat(SCRAPE_INFOHASHES_MAX + 1);
        assert_eq!(ScrapeRequest::parse(&many), Err(QueryError::TooMany));
        assert!(ScrapeRequest::parse(&many["&info_hash=aaaaaaaaaaaaaaaaaaaa".len()..]).is_ok());
    }

    #[test]
    fn the_scrape_url_follows_bep_48() {
        let of = |announce| scrape_url(announce, &[[b'a'; 20]]);
        let hash = "info_hash=aaaaaaaaaaaaaaaaaaaa";
        assert_eq!(of("http://t/announce"), Some(format!("http://t/scrape?{hash}")));
        assert_eq!(of("http://t/x/announce.php?p=/1"), Some(format!("http://t/x/scrape.php?p=/1&{hash}")));
        assert_eq!(of("http://t/a"), None);
        assert_eq!(of("http://t/announce/x"), None);
    }
}
