//! The UDP tracker on the BitTorrent port (BEP 15). Peers that try uTP there (BEP 29) are told at once that nobody speaks it, so
//! that they go on by TCP instead of waiting for a time-out.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use millrace_engine::ledger::gate::Barrier;
use millrace_proto::tracker::compact::Family;
use millrace_proto::tracker::udp::{
    Ask, Request, encode_announce, encode_connect, encode_error, encode_scrape,
};
use ring::rand::SystemRandom;
use ring::{error::Unspecified, hmac};
use tokio::net::UdpSocket;

use super::questions::Questions;
use super::tracker::Announce;

/// A datagram that passes every path without being cut (RFC 8200 §5), less the heads of IPv6 and UDP.
const ANSWER_BYTES_MAX: usize = 1232;
/// A connection id is good for one to two of these (BEP 15 asks for two minutes).
const SECRET_LIFE: Duration = Duration::from_secs(120);

/// Connection ids: a MAC over the asker's address, so that nothing has to be remembered and nobody can ask in another's name.
pub(crate) struct ConnectionIds {
    current: hmac::Key,
    previous: hmac::Key,
    rotate_at: Instant,
    random: SystemRandom,
}

impl ConnectionIds {
    pub(crate) fn new(now: Instant) -> Result<Self, Unspecified> {
        let random = SystemRandom::new();
        Ok(ConnectionIds {
            current: hmac::Key::generate(hmac::HMAC_SHA256, &random)?,
            previous: hmac::Key::generate(hmac::HMAC_SHA256, &random)?,
            rotate_at: now + SECRET_LIFE,
            random,
        })
    }

    pub(crate) fn issue(&mut self, address: SocketAddr, now: Instant) -> u64 {
        self.rotate(now);
        mac(&self.current, address)
    }

    pub(crate) fn accepts(&mut self, address: SocketAddr, id: u64, now: Instant) -> bool {
        self.rotate(now);
        id == mac(&self.current, address) || id == mac(&self.previous, address)
    }

    fn rotate(&mut self, now: Instant) {
        if now < self.rotate_at {
            return;
        }
        // Without randomness the old secret stays; it is still a secret.
        if let Ok(fresh) = hmac::Key::generate(hmac::HMAC_SHA256, &self.random) {
            let old = std::mem::replace(&mut self.current, fresh);
            if now < self.rotate_at + SECRET_LIFE {
                self.previous = old;
            } else if let Ok(fresh) = hmac::Key::generate(hmac::HMAC_SHA256, &self.random) {
                self.previous = fresh;
            }
            self.rotate_at = now + SECRET_LIFE;
        }
    }
}

fn mac(key: &hmac::Key, address: SocketAddr) -> u64 {
    let mut context = hmac::Context::with_key(key);
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => context.update(&v4.octets()),
        IpAddr::V6(v6) => context.update(&v6.octets()),
    }
    context.update(&address.port().to_be_bytes());
    let tag = context.sign();
    tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Answers datagrams until the socket breaks.
pub(crate) async fn run(socket: UdpSocket, questions: std::sync::Arc<Questions>) {
    let Ok(mut ids) = ConnectionIds::new(Instant::now()) else {
        tracing::error!("no randomness for the UDP tracker: it stays silent");
        return;
    };
    let mut datagram = [0; 2048];
    let mut answer = [0; ANSWER_BYTES_MAX];
    loop {
        let (bytes, from) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error about an earlier answer shows up here; it is no reason to stop.
                tracing::debug!(%error, "UDP tracker");
                tokio::task::yield_now().await;
                continue;
            }
        };
        if !questions.relay.ledger.gate().rules.allow(from.ip()) {
            questions.relay.ledger.turned_away.count(Barrier::Rules);
            continue;
        }
        let length = respond(&datagram[..bytes], from, &mut ids, &questions, &mut answer);
        if length > 0 {
            // What the socket does not take is lost, as datagrams are.
            let _ = socket.try_send_to(&answer[..length], from);
        }
    }
}

/// Writes the answer to one datagram and tells its length; 0 is silence.
fn respond(
    datagram: &[u8],
    from: SocketAddr,
    ids: &mut ConnectionIds,
    questions: &Questions,
    answer: &mut [u8],
) -> usize {
    if let Some(length) = utp_reset(datagram, answer) {
        return length;
    }
    let Some(Request { transaction_id, ask }) = Request::parse(datagram) else { return 0 };
    let now = Instant::now();
    let written = match ask {
        Ask::Connect => encode_connect(answer, transaction_id, ids.issue(from, now)),
        Ask::Announce { connection_id, .. } | Ask::Scrape { connection_id, .. }
            if !ids.accepts(from, connection_id, now) =>
        {
            encode_error(answer, transaction_id, "connection id is not valid, connect again")
        }
        Ask::Announce { announce, .. } => {
            let announce = Announce {
                infohash: announce.infohash,
                peer_id: announce.peer_id,
                ip: from.ip(),
                port: announce.port,
                left: announce.left,
                event: announce.event,
                numwant: announce.numwant,
            };
            match questions.announce(&announce) {
                Ok(peers) => encode_announce(answer, transaction_id, Family::of(from.ip()), &peers),
                Err(error) => encode_error(answer, transaction_id, &error.to_string()),
            }
        }
        Ask::Scrape { infohashes, .. } => {
            let counts =
                infohashes.iter().map(|infohash| questions.scrape(infohash, from.ip()).unwrap_or_default());
            encode_scrape(answer, transaction_id, counts)
        }
    };
    written.unwrap_or(0)
}

/// The reset that answers a SYN of uTP; `None` for anything else.
///
/// No answer is longer than its question, so this cannot be used to amplify an attack.
fn utp_reset(datagram: &[u8], answer: &mut [u8]) -> Option<usize> {
    const HEAD_BYTES: usize = 20;
    const SYN_VERSION_1: u8 = 0x41;
    const RESET_VERSION_1: u8 = 0x31;
    let head: &[u8; HEAD_BYTES] = datagram.first_chunk()?;
    // The second byte is the first extension's number; real SYNs carry none, or a short list that follows the head.
    if head[0] != SYN_VERSION_1 || head[1] > 2 {
        return None;
    }
    let out: &mut [u8; HEAD_BYTES] = answer.first_chunk_mut()?;
    *out = [0; HEAD_BYTES];
    out[0] = RESET_VERSION_1;
    // The connection id that the SYN carries is the one its sender listens on; ack_nr is the SYN's sequence number.
    out[2..4].copy_from_slice(&head[2..4]);
    out[18..20].copy_from_slice(&head[16..18]);
    Some(HEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ids_belong_to_an_address_and_age() {
        let start = Instant::now();
        let mut ids = ConnectionIds::new(start).unwrap();
        let [a, b] =
            ["192.0.2.1:1000", "192.0.2.1:1001"].map(|address| address.parse::<SocketAddr>().unwrap());
        let id = ids.issue(a, start);
        assert!(ids.accepts(a, id, start));
        assert!(!ids.accepts(b, id, start));
        assert!(ids.accepts("[::ffff:192.0.2.1]:1000".parse().unwrap(), id, start));
        assert!(ids.accepts(a, id, start + SECRET_LIFE), "the previous secret still counts");
        assert!(!ids.accepts(a, id, start + 2 * SECRET_LIFE + Duration::from_secs(1)));
    }

    #[test]
    fn a_utp_syn_is_reset_and_nothing_else_is() {
        let mut syn = [0; 20];
        syn[0] = 0x41;
        syn[2..4].copy_from_slice(&[0xab, 0xcd]);
        syn[16..18].copy_from_slice(&[0, 9]);
        let mut answer = [0xff; 64];
        assert_eq!(utp_reset(&syn, &mut answer), Some(20));
        assert_eq!((answer[0], &answer[2..4], &answer[18..20]), (0x31, &[0xab, 0xcd][..], &[0, 9][..]));
        syn[0] = 0x01;
        assert_eq!(utp_reset(&syn, &mut answer), None);
        assert_eq!(utp_reset(&[0x41; 19], &mut answer), None);
    }
}
