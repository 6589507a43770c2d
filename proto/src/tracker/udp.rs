//! The UDP tracker protocol (BEP 15), and the URL options behind an announce (BEP 41), from both sides.
//!
//! The connection id is an opaque number here; whoever answers derives it from the sender's address and checks it.
//! Every message is one datagram, written into the caller's buffer.

use std::net::SocketAddr;

use super::compact::{self, Family, write_entry};
use super::{AnnounceAnswer, AnnounceEvent, SwarmCounts};
use crate::octets::{NoRoom, Writer, take, take_u8, take_u16, take_u32, take_u64};

/// What a connect request carries in place of a connection id (BEP 15).
pub const PROTOCOL_ID: u64 = 0x0417_2710_1980;

/// The most infohashes a scrape can carry (BEP 15).
pub const SCRAPE_INFOHASHES_MAX: usize = 74;

/// Length of an announce without options.
pub const ANNOUNCE_BYTES: usize = 98;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// An announce. BEP 15's IP address field is written as 0 and never believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announce {
    /// The v1 infohash, or the first 20 bytes of the v2 infohash.
    pub infohash: [u8; 20],
    /// The peer's name for itself.
    pub peer_id: [u8; 20],
    /// Bytes received since `started`.
    pub downloaded: u64,
    /// Bytes still to download.
    pub left: u64,
    /// Bytes sent since `started`.
    pub uploaded: u64,
    /// What happened.
    pub event: AnnounceEvent,
    /// Proof of identity across changes of address.
    pub key: u32,
    /// How many peers are wanted; `None` (-1 on the wire) leaves it to the tracker.
    pub numwant: Option<u32>,
    /// The port the peer listens on; 0 when it cannot be called.
    pub port: u16,
}

/// What a request asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask<'a> {
    /// A connection id.
    Connect,
    /// Peers.
    Announce {
        /// As the earlier answer gave it.
        connection_id: u64,
        /// The announce.
        announce: Announce,
        /// Path and query of the tracker's URL (BEP 41), when the announce names them in one option.
        url_data: &'a [u8],
    },
    /// Counts of swarms.
    Scrape {
        /// As the earlier answer gave it.
        connection_id: u64,
        /// One to [`SCRAPE_INFOHASHES_MAX`] infohashes.
        infohashes: &'a [[u8; 20]],
    },
}

/// A datagram to a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Chosen by the asker, repeated by the answer.
    pub transaction_id: u32,
    /// What it asks.
    pub ask: Ask<'a>,
}

impl<'a> Request<'a> {
    /// Reads a datagram. `None` is no request; BEP 15 wants such packets ignored, since an answer to a forged sender
    /// would be an attack on it. Bytes behind a connect are ignored.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let mut rest = datagram;
        let connection_id = take_u64(&mut rest)?;
        let action = take_u32(&mut rest)?;
        let transaction_id = take_u32(&mut rest)?;
        let ask = match action {
            CONNECT if connection_id == PROTOCOL_ID => Ask::Connect,
            ANNOUNCE => {
                let announce = take_announce(&mut rest)?;
                Ask::Announce { connection_id, announce, url_data: url_data(rest) }
            }
            SCRAPE => {
                let (infohashes, _) = rest.as_chunks::<20>();
                let count = infohashes.len().min(SCRAPE_INFOHASHES_MAX);
                (count > 0).then_some(Ask::Scrape { connection_id, infohashes: &infohashes[..count] })?
            }
            _ => return None,
        };
        Some(Self { transaction_id, ask })
    }

    /// Writes the datagram to the front of `out` and returns its length.
    ///
    /// # Errors
    /// [`NoRoom`] when `out` is too short, or a scrape names more infohashes than a datagram may.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut to = Writer::new(out);
        let (connection_id, action) = match self.ask {
            Ask::Connect => (PROTOCOL_ID, CONNECT),
            Ask::Announce { connection_id, .. } => (connection_id, ANNOUNCE),
            Ask::Scrape { connection_id, .. } => (connection_id, SCRAPE),
        };
        to.u64(connection_id)?;
        to.u32(action)?;
        to.u32(self.transaction_id)?;
        match self.ask {
            Ask::Connect => {}
            Ask::Announce { announce, url_data, .. } => {
                put_announce(&mut to, &announce)?;
                put_url_data(&mut to, url_data)?;
            }
            Ask::Scrape { infohashes, .. } if infohashes.len() > SCRAPE_INFOHASHES_MAX => return Err(NoRoom),
            Ask::Scrape { infohashes, .. } => to.bytes(infohashes.as_flattened())?,
        }
        Ok(to.used())
    }
}

fn take_announce(rest: &mut &[u8]) -> Option<Announce> {
    let (infohash, peer_id) = (take(rest)?, take(rest)?);
    let (downloaded, left, uploaded) = (take_u64(rest)?, take_u64(rest)?, take_u64(rest)?);
    let event = match take_u32(rest)? {
        0 => AnnounceEvent::Periodic,
        1 => AnnounceEvent::Completed,
        2 => AnnounceEvent::Started,
        3 => AnnounceEvent::Stopped,
        _ => return None,
    };
    let _ip_never_believed = take_u32(rest)?;
    let key = take_u32(rest)?;
    // Signed on the wire: -1, and whatever else is negative, is the tracker's choice.
    let numwant = take_u32(rest).map(|wanted| i32::try_from(wanted).ok().map(i32::unsigned_abs))?;
    let port = take_u16(rest)?;
    Some(Announce { infohash, peer_id, downloaded, left, uploaded, event, key, numwant, port })
}

fn put_announce(to: &mut Writer<'_>, announce: &Announce) -> Result<(), NoRoom> {
    to.bytes(&announce.infohash)?;
    to.bytes(&announce.peer_id)?;
    to.u64(announce.downloaded)?;
    to.u64(announce.left)?;
    to.u64(announce.uploaded)?;
    to.u32(match announce.event {
        AnnounceEvent::Periodic => 0,
        AnnounceEvent::Completed => 1,
        AnnounceEvent::Started => 2,
        AnnounceEvent::Stopped => 3,
    })?;
    to.u32(0)?;
    to.u32(announce.key)?;
    to.u32(announce.numwant.unwrap_or(u32::MAX))?;
    to.u16(announce.port)
}

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_URL_DATA: u8 = 2;

/// The first URL data among the options of BEP 41; empty when there is none, or the options make no sense.
fn url_data(mut options: &[u8]) -> &[u8] {
    while let Some(kind) = take_u8(&mut options) {
        match kind {
            OPTION_END => break,
            OPTION_NOP => {}
            _ => {
                let Some(length) = take_u8(&mut options) else { break };
                let Some((data, rest)) = options.split_at_checked(usize::from(length)) else { break };
                if kind == OPTION_URL_DATA {
                    return data;
                }
                options = rest;
            }
        }
    }
    &[]
}

/// Longer data goes into several options (BEP 41: they are to be joined).
fn put_url_data(to: &mut Writer<'_>, data: &[u8]) -> Result<(), NoRoom> {
    for part in data.chunks(usize::from(u8::MAX)) {
        to.u8(OPTION_URL_DATA)?;
        to.u8(u8::try_from(part.len()).map_err(|_| NoRoom)?)?;
        to.bytes(part)?;
    }
    Ok(())
}

/// What an answer says. Announce and scrape answers point into the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The connection id to use for the next minute.
    Connect {
        /// Opaque.
        connection_id: u64,
    },
    /// The answer to an announce.
    Announce {
        /// Seconds until the next regular announce.
        interval_s: u32,
        /// Peers that still download.
        leechers: u32,
        /// Peers with everything.
        seeders: u32,
        /// Compact entries of the family over which the datagram came; see [`Answer::announce_answer`].
        peers: &'a [u8],
    },
    /// The answer to a scrape: 12 bytes an infohash, in the order of the request; see [`Answer::scrape_counts`].
    Scrape {
        /// Seeders, completed, leechers of each.
        counts: &'a [u8],
    },
    /// The request failed.
    Error {
        /// For a person to read; not necessarily UTF-8.
        message: &'a [u8],
    },
}

impl<'a> Answer<'a> {
    /// Reads a datagram into transaction id and answer; `None` is no answer.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Option<(u32, Self)> {
        let mut rest = datagram;
        let action = take_u32(&mut rest)?;
        let transaction_id = take_u32(&mut rest)?;
        let answer = match action {
            CONNECT => Self::Connect { connection_id: take_u64(&mut rest)? },
            ANNOUNCE => Self::Announce {
                interval_s: take_u32(&mut rest)?,
                leechers: take_u32(&mut rest)?,
                seeders: take_u32(&mut rest)?,
                peers: rest,
            },
            SCRAPE => Self::Scrape { counts: rest },
            ERROR => Self::Error { message: rest },
            _ => return None,
        };
        Some((transaction_id, answer))
    }

    /// The announce answer as HTTP trackers give it too, at most `peers_max` peers; bytes behind the last whole entry
    /// are ignored. `None` when this answers something else.
    #[must_use]
    pub fn announce_answer(&self, family: Family, peers_max: usize) -> Option<AnnounceAnswer> {
        let Self::Announce { interval_s, leechers, seeders, peers: list } = *self else { return None };
        let mut peers = Vec::new();
        let whole = list.len() - list.len() % family.entry_bytes();
        compact::read(&list[..whole], family, peers_max, &mut peers);
        Some(AnnounceAnswer {
            interval_s,
            min_interval_s: None,
            complete: seeders,
            incomplete: leechers,
            peers,
        })
    }

    /// The counts of a scrape, in the order of the request; empty when this answers something else.
    pub fn scrape_counts(&self) -> impl Iterator<Item = SwarmCounts> + use<'a> {
        let counts: &'a [u8] = if let Self::Scrape { counts } = *self { counts } else { &[] };
        counts.chunks_exact(12).filter_map(|mut entry| {
            let (complete, downloaded) = (take_u32(&mut entry)?, take_u32(&mut entry)?);
            Some(SwarmCounts { complete, downloaded, incomplete: take_u32(&mut entry)? })
        })
    }
}

/// Writes the answer to a connect: 16 bytes.
///
/// # Errors
/// [`NoRoom`] when `out` is shorter.
pub fn encode_connect(out: &mut [u8], transaction_id: u32, connection_id: u64) -> Result<usize, NoRoom> {
    let mut to = head(out, CONNECT, transaction_id)?;
    to.u64(connection_id)?;
    Ok(to.used())
}

/// Writes the answer to an announce: 20 bytes, and an entry for each peer of `family` that still fits `out`.
///
/// A datagram that is larger than the path carries is worse than a shorter list, so `out` decides how many go.
///
/// # Errors
/// [`NoRoom`] when `out` has no room for the fixed part.
pub fn encode_announce(
    out: &mut [u8],
    transaction_id: u32,
    family: Family,
    answer: &AnnounceAnswer,
) -> Result<usize, NoRoom> {
    let room = out.len();
    let mut to = head(out, ANNOUNCE, transaction_id)?;
    to.u32(answer.interval_s)?;
    to.u32(answer.incomplete)?;
    to.u32(answer.complete)?;
    for peer in answer.peers.iter().filter(|peer: &&SocketAddr| Family::of(peer.ip()) == family) {
        if to.used() + family.entry_bytes() > room {
            break;
        }
        write_entry(&mut to, peer)?;
    }
    Ok(to.used())
}

/// Writes the answer to a scrape: 8 bytes, and 12 for each of `counts`.
///
/// # Errors
/// [`NoRoom`] when `out` is shorter.
pub fn encode_scrape(
    out: &mut [u8],
    transaction_id: u32,
    counts: impl IntoIterator<Item = SwarmCounts>,
) -> Result<usize, NoRoom> {
    let mut to = head(out, SCRAPE, transaction_id)?;
    for swarm in counts {
        to.u32(swarm.complete)?;
        to.u32(swarm.downloaded)?;
        to.u32(swarm.incomplete)?;
    }
    Ok(to.used())
}

/// Writes an error: 8 bytes and the message.
///
/// # Errors
/// [`NoRoom`] when `out` is shorter.
pub fn encode_error(out: &mut [u8], transaction_id: u32, message: &str) -> Result<usize, NoRoom> {
    let mut to = head(out, ERROR, transaction_id)?;
    to.bytes(message.as_bytes())?;
    Ok(to.used())
}

fn head(out: &mut [u8], action: u32, transaction_id: u32) -> Result<Writer<'_>, NoRoom> {
    let mut to = Writer::new(out);
    to.u32(action)?;
    to.u32(transaction_id)?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce() -> Announce {
        Announce {
            infohash: [1; 20],
            peer_id: [2; 20],
            downloaded: 3,
            left: 4,
            uploaded: 5,
            event: AnnounceEvent::Started,
            key: 6,
            numwant: None,
            port: 6881,
        }
    }

    #[track_caller]
    fn check(ask: Ask<'_>, length: usize) {
        let mut out = [0; 2048];
        let request = Request { transaction_id: 7, ask };
        assert_eq!(request.encode(&mut out), Ok(length));
        assert_eq!(Request::parse(&out[..length]), Some(request));
        assert_eq!(request.encode(&mut out[..length - 1]), Err(NoRoom));
    }

    #[test]
    fn requests_have_the_lengths_of_bep_15() {
        check(Ask::Connect, 16);
        check(Ask::Announce { connection_id: 9, announce: announce(), url_data: b"" }, ANNOUNCE_BYTES);
        check(
            Ask::Announce { connection_id: 9, announce: announce(), url_data: b"/a?b" },
            ANNOUNCE_BYTES + 6,
        );
        check(Ask::Scrape { connection_id: 9, infohashes: &[[1; 20], [2; 20]] }, 56);
    }

    #[test]
    fn fields_sit_where_bep_15_puts_them() {
        let mut out = [0; ANNOUNCE_BYTES];
        let ask = Ask::Announce { connection_id: 9, announce: announce(), url_data: b"" };
        Request { transaction_id: 7, ask }.encode(&mut out).unwrap();
        assert_eq!((out[7], out[11], out[15], out[16], out[36]), (9, 1, 7, 1, 2));
        assert_eq!((out[63], out[71], out[79], out[83]), (3, 4, 5, 2));
        assert_eq!(
            (&out[84..88], out[91], &out[92..]),
            (&[0; 4][..], 6, &[255, 255, 255, 255, 0x1a, 0xe1][..])
        );
        out[84] = 10;
        assert_eq!(
            Request::parse(&out),
            Some(Request { transaction_id: 7, ask }),
            "an address changes nothing"
        );
    }

    #[test]
    fn no_request_is_no_request() {
        let mut out = [0; ANNOUNCE_BYTES];
        Request { transaction_id: 7, ask: Ask::Connect }.encode(&mut out).unwrap();
        assert_eq!(Request::parse(&out[..15]), None);
        out[0] = 1;
        assert_eq!(Request::parse(&out), None, "another protocol id");
        let ask = Ask::Announce { connection_id: 9, announce: announce(), url_data: b"" };
        Request { transaction_id: 7, ask }.encode(&mut out).unwrap();
        assert_eq!(Request::parse(&out[..97]), None);
        out[83] = 4;
        assert_eq!(Request::parse(&out), None, "no such event");
    }

    #[test]
    fn options_that_make_no_sense_are_ignored() {
        assert_eq!(url_data(&[1, 1, 9, 1, 0, 2, 2, b'/', b'a', 0]), b"/a");
        for bad in [&[2][..], &[2, 5, 1], &[0, 2, 1, b'/'], &[9], &[9, 200]] {
            assert_eq!(url_data(bad), b"", "{bad:?}");
        }
    }

    #[test]
    fn announce_answers_fit_the_buffer_and_the_family() {
        let answer = AnnounceAnswer {
            interval_s: 1800,
            min_interval_s: None,
            complete: 2,
            incomplete: 1,
            peers: ["192.0.2.1:1", "[2001:db8::1]:2", "192.0.2.3:3"].map(|p| p.parse().unwrap()).into(),
        };
        let mut out = [0; 64];
        for (family, room, length, expected) in [
            (Family::V4, 64, 32, vec![answer.peers[0], answer.peers[2]]),
            (Family::V4, 31, 26, vec![answer.peers[0]]),
            (Family::V6, 64, 38, vec![answer.peers[1]]),
        ] {
            assert_eq!(encode_announce(&mut out[..room], 7, family, &answer), Ok(length));
            let (transaction_id, back) = Answer::parse(&out[..length]).unwrap();
            assert_eq!(transaction_id, 7);
            let expected = AnnounceAnswer { peers: expected, ..answer.clone() };
            assert_eq!(back.announce_answer(family, 50), Some(expected));
        }
        assert_eq!(encode_announce(&mut out[..19], 7, Family::V4, &answer), Err(NoRoom));
    }

    #[test]
    fn the_other_answers_are_read_back() {
        let mut out = [0; 64];
        let counts = SwarmCounts { complete: 1, incomplete: 2, downloaded: 3 };
        let length = encode_scrape(&mut out, 8, [counts, SwarmCounts::default()]).unwrap();
        assert_eq!(&out[8..20], [0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 2]);
        let (_, answer) = Answer::parse(&out[..length]).unwrap();
        assert!(answer.scrape_counts().eq([counts, SwarmCounts::default()]));
        let length = encode_connect(&mut out, 8, 99).unwrap();
        assert_eq!(Answer::parse(&out[..length]), Some((8, Answer::Connect { connection_id: 99 })));
        let length = encode_error(&mut out, 8, "no").unwrap();
        assert_eq!(Answer::parse(&out[..length]), Some((8, Answer::Error { message: b"no" })));
    }
}
