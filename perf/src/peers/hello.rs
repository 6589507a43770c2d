//! Finding out whether a BitTorrent client seeds: it is asked as any peer would ask it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use millrace_proto::peer::bitfield;
use millrace_proto::peer::frame::{Frame, FrameLimits, next_frame};
use millrace_proto::peer::handshake::{HANDSHAKE_BYTES, Handshake, Progress, Reserved};
use millrace_proto::peer::message::Message;

use super::{Ground, Seed};
use crate::server::{PATIENCE, Process};

/// Bytes per second that hashing the file surely reaches.
const SLOWEST_HASHING: u64 = 20_000_000;

/// Time for an answer; between two attempts as well, since some clients shut out who comes back at once.
const PAUSE: Duration = Duration::from_millis(700);

/// Waits until the client at `address` says that it has every piece.
///
/// # Errors
/// It ends, or takes longer than hashing the file may take.
pub(super) fn wait_for_seed(
    process: &mut Process,
    address: SocketAddr,
    seed: &Seed,
    ground: &Ground<'_>,
) -> anyhow::Result<()> {
    let within = PATIENCE + Duration::from_secs(ground.length / SLOWEST_HASHING);
    let pieces = u32::try_from(ground.length.div_ceil(seed.piece_bytes.into()))?;
    process.wait_until("seed", within, ground.interrupt, || {
        if has_all(address, seed.infohash, pieces, PAUSE) {
            return Ok(Some(()));
        }
        std::thread::sleep(PAUSE);
        Ok(None)
    })
}

/// Whether a peer says so in time; one that cannot be reached does not.
fn has_all(address: SocketAddr, infohash: [u8; 20], pieces: u32, within: Duration) -> bool {
    ask(address, infohash, pieces, within).unwrap_or(false)
}

fn ask(address: SocketAddr, infohash: [u8; 20], pieces: u32, within: Duration) -> std::io::Result<bool> {
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    let reserved = Reserved::default().with_fast();
    stream.write_all(&Handshake { reserved, infohash, peer_id: *b"-MP0001-hello-hello-" }.encode())?;
    let limits = FrameLimits::exchange(bitfield::bytes(pieces));
    let (mut received, mut opened, mut had) = (Vec::new(), false, 0);
    while began.elapsed() < within {
        let mut bytes = [0; 4096];
        let taken = stream.read(&mut bytes)?;
        if taken == 0 {
            return Ok(false);
        }
        received.extend_from_slice(&bytes[..taken]);
        if !opened {
            match Handshake::parse(&received) {
                Progress::Whole(handshake) if handshake.infohash == infohash => {
                    received.drain(..HANDSHAKE_BYTES);
                    opened = true;
                }
                Progress::NeedMore(_) => continue,
                _ => return Ok(false),
            }
        }
        while let Frame::Whole { consumed, message } = next_frame(&received, &limits) {
            had += match message {
                Message::HaveAll => pieces,
                Message::Bitfield(bits) => {
                    (0..pieces).map(|piece| u32::from(bitfield::contains(bits, piece))).sum()
                }
                Message::Have(_) => 1,
                _ => 0,
            };
            received.drain(..consumed);
        }
        if had >= pieces {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one peer with a handshake and `frames`, and says whether it was taken for a seed of three pieces.
    #[track_caller]
    fn check(frames: &[Message<'_>], expected: bool) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let infohash = [7; 20];
        let mut answer =
            Handshake { reserved: Reserved::default(), infohash, peer_id: [1; 20] }.encode().to_vec();
        for frame in frames {
            let at = answer.len();
            answer.resize(at + frame.encoded_bytes(), 0);
            frame.encode(&mut answer[at..]).unwrap();
        }
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
            stream.write_all(&answer).unwrap();
        });
        assert_eq!(has_all(address, infohash, 3, PATIENCE), expected);
        peer.join().unwrap();
    }

    #[test]
    fn who_has_everything_is_a_seed_in_whatever_words() {
        check(&[Message::HaveAll], true);
        check(&[Message::Bitfield(&[0b1110_0000])], true);
        check(&[Message::Bitfield(&[0b1010_0000])], false);
        check(&[Message::Bitfield(&[0b1010_0000]), Message::Have(1)], true);
        check(&[], false);
    }

    #[test]
    fn who_is_not_there_is_none() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(!has_all(address, [7; 20], 3, PATIENCE));
    }
}
