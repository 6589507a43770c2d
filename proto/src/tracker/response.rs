//! The bencoded answers of HTTP trackers (BEP 3, 7, 23, 48): written for our own tracker, read from others.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use super::compact::{self, Family};
use super::{AnnounceAnswer, SwarmCounts};
use crate::bencode::{Decoder, Dict, Item, Limits, Value};

/// Longest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Most peers that are taken from one answer.
pub const ANSWER_PEERS_MAX: usize = 1000;

/// Longest text that is kept of a failure or a warning, in bytes.
const TEXT_BYTES_MAX: usize = 256;

const LIMITS: Limits = Limits { bytes: ANSWER_BYTES_MAX, depth: 8, items: 1 << 16 };

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The tracker says so, in its own words (cut to 256 bytes).
    #[error("the tracker refuses: {0}")]
    Failure(String),
    /// The body is no tracker answer.
    #[error("the tracker's answer is malformed")]
    Malformed,
}

/// An announce answer with what only HTTP trackers say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpAnnounceAnswer {
    /// What UDP trackers say too.
    pub answer: AnnounceAnswer,
    /// `tracker id`, to be percent-encoded and repeated in later announces.
    pub tracker_id: Option<Vec<u8>>,
    /// `warning message`, cut to 256 bytes.
    pub warning: Option<String>,
}

/// Writes an announce answer. Peers go out compactly whatever was asked for, as BEP 23 allows; IPv6 peers are in
/// `peers6` (BEP 7), which is left out when there are none.
pub fn write_announce(answer: &AnnounceAnswer, out: &mut Vec<u8>) {
    let mut entries = vec![
        ("complete", Item::Int(answer.complete.into())),
        ("incomplete", Item::Int(answer.incomplete.into())),
        ("interval", Item::Int(answer.interval_s.into())),
        ("peers", owned(compact::list(&answer.peers, Family::V4))),
    ];
    if let Some(min_interval_s) = answer.min_interval_s {
        entries.push(("min interval", Item::Int(min_interval_s.into())));
    }
    let peers6 = compact::list(&answer.peers, Family::V6);
    if !peers6.is_empty() {
        entries.push(("peers6", owned(peers6)));
    }
    Item::dict(entries).encode(out);
}

/// Writes a failure, of an announce or a scrape.
pub fn write_failure(reason: &str, out: &mut Vec<u8>) {
    Item::dict([("failure reason", Item::Bytes(Cow::Borrowed(reason.as_bytes())))]).encode(out);
}

/// Writes a scrape answer (BEP 48). Infohashes that are not tracked are left out by the caller.
pub fn write_scrape(swarms: impl IntoIterator<Item = ([u8; 20], SwarmCounts)>, out: &mut Vec<u8>) {
    let files = swarms.into_iter().map(|(infohash, counts)| {
        let counts = Item::dict([
            ("complete", Item::Int(counts.complete.into())),
            ("downloaded", Item::Int(counts.downloaded.into())),
            ("incomplete", Item::Int(counts.incomplete.into())),
        ]);
        (Cow::Owned(infohash.to_vec()), counts)
    });
    Item::dict([("files", Item::Dict(files.collect()))]).encode(out);
}

fn owned(bytes: Vec<u8>) -> Item<'static> {
    Item::Bytes(Cow::Owned(bytes))
}

/// Reads an announce answer with compact peers (BEP 23), or a list of dictionaries (BEP 3) whose `ip` is a numeric
/// address; names are passed over, since nothing here resolves them.
///
/// # Errors
/// [`ResponseError`].
pub fn parse_announce(body: &[u8]) -> Result<HttpAnnounceAnswer, ResponseError> {
    let value = Decoder::new(LIMITS).decode(body).map_err(|_| ResponseError::Malformed)?;
    let dict = answer_dict(&value)?;
    let mut peers = Vec::new();
    if let Some(list) = dict.get("peers").and_then(Value::as_list) {
        peers.extend(list.iter().filter_map(peer).take(ANSWER_PEERS_MAX));
    }
    for (key, family) in [("peers", Family::V4), ("peers6", Family::V6)] {
        let list = dict.get(key).and_then(Value::as_bytes).unwrap_or_default();
        let room = ANSWER_PEERS_MAX - peers.len();
        if !compact::read(list, family, room, &mut peers) {
            return Err(ResponseError::Malformed);
        }
    }
    Ok(HttpAnnounceAnswer {
        answer: AnnounceAnswer {
            interval_s: count(dict, "interval").ok_or(ResponseError::Malformed)?,
            min_interval_s: count(dict, "min interval"),
            complete: count(dict, "complete").unwrap_or(0),
            incomplete: count(dict, "incomplete").unwrap_or(0),
            peers,
        },
        tracker_id: dict.get("tracker id").and_then(Value::as_bytes).map(<[u8]>::to_vec),
        warning: dict.get("warning message").and_then(Value::as_bytes).map(text),
    })
}

/// Reads a scrape answer: the infohashes it names, in ascending order. Entries that are none are passed over.
///
/// # Errors
/// [`ResponseError`].
pub fn parse_scrape(body: &[u8]) -> Result<Vec<([u8; 20], SwarmCounts)>, ResponseError> {
    let value = Decoder::new(LIMITS).decode(body).map_err(|_| ResponseError::Malformed)?;
    let files = answer_dict(&value)?.get("files").and_then(Value::as_dict).ok_or(ResponseError::Malformed)?;
    let swarm = |(infohash, counts): &(&[u8], Value<'_>)| {
        let counts = counts.as_dict()?;
        let number = |key| count(counts, key).unwrap_or(0);
        Some((
            <[u8; 20]>::try_from(*infohash).ok()?,
            SwarmCounts {
                complete: number("complete"),
                incomplete: number("incomplete"),
                downloaded: number("downloaded"),
            },
        ))
    };
    Ok(files.entries().iter().filter_map(swarm).collect())
}

fn answer_dict<'v, 'a>(value: &'v Value<'a>) -> Result<&'v Dict<'a>, ResponseError> {
    let dict = value.as_dict().ok_or(ResponseError::Malformed)?;
    match dict.get("failure reason").and_then(Value::as_bytes) {
        Some(reason) => Err(ResponseError::Failure(text(reason))),
        None => Ok(dict),
    }
}

fn peer(entry: &Value<'_>) -> Option<SocketAddr> {
    let entry = entry.as_dict()?;
    let address: IpAddr = entry.get("ip")?.as_str()?.parse().ok()?;
    let port = u16::try_from(entry.get("port")?.as_int()?).ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(address, port))
}

fn count(dict: &Dict<'_>, key: &str) -> Option<u32> {
    dict.get(key).and_then(Value::as_int).and_then(|int| u32::try_from(int).ok())
}

/// A stranger's words, made fit for a log.
fn text(bytes: &[u8]) -> String {
    let kept = bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes);
    String::from_utf8_lossy(kept).replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &[u8], expected: Result<&[&str], ResponseError>) {
        let peers: Result<Vec<String>, _> =
            parse_announce(body).map(|got| got.answer.peers.iter().map(ToString::to_string).collect());
        assert_eq!(peers, expected.map(|peers| peers.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn what_is_written_reads_back() {
        let answer = AnnounceAnswer {
            interval_s: 1800,
            min_interval_s: Some(60),
            complete: 1,
            incomplete: 2,
            peers: ["192.0.2.1:1", "[2001:db8::1]:2"].map(|p| p.parse().unwrap()).into(),
        };
        let mut out = Vec::new();
        write_announce(&answer, &mut out);
        assert!(
            out.starts_with(b"d8:completei1e10:incompletei2e8:intervali1800e12:min intervali60e5:peers6:")
        );
        assert_eq!(parse_announce(&out).map(|got| got.answer), Ok(answer));

        let counts = SwarmCounts { complete: 1, incomplete: 2, downloaded: 3 };
        let mut out = Vec::new();
        write_scrape([([b'a'; 20], counts)], &mut out);
        let expected =
            b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei1e10:downloadedi3e10:incompletei2eeee".as_slice();
        assert_eq!(out, expected);
        assert_eq!(parse_scrape(&out), Ok(vec![([b'a'; 20], counts)]));
    }

    #[test]
    fn both_models_of_peers_are_read() {
        check(b"d8:intervali9ee", Ok(&[]));
        check(b"d8:intervali9e5:peers6:\x01\x01\x01\x01\x00\x50e", Ok(&["1.1.1.1:80"]));
        check(
            b"d8:intervali9e5:peersld2:ip3:::14:porti80eed2:ip4:host4:porti80eed4:porti1eei7eee",
            Ok(&["[::1]:80"]),
        );
        check(b"d8:intervali9e5:peersld2:ip7:1.1.1.14:porti65536eeee", Ok(&[]));
    }

    #[test]
    fn failures_and_nonsense_are_told_apart() {
        check(b"d14:failure reason4:no\n!e", Err(ResponseError::Failure("no !".into())));
        check(b"d8:intervali9e5:peers5:12345e", Err(ResponseError::Malformed));
        check(b"de", Err(ResponseError::Malformed));
        check(b"<html>", Err(ResponseError::Malformed));
        let mut out = Vec::new();
        write_failure("unknown torrent", &mut out);
        assert_eq!(parse_scrape(&out), Err(ResponseError::Failure("unknown torrent".into())));
    }

    #[test]
    fn peers_are_bounded() {
        let list = [1_u8; 6 * (ANSWER_PEERS_MAX + 1)];
        let body = [b"d8:intervali9e5:peers6006:".as_slice(), &list, b"e"].concat();
        assert_eq!(parse_announce(&body).unwrap().answer.peers.len(), ANSWER_PEERS_MAX);
    }
}
