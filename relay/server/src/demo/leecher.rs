//! The demo's BitTorrent client: one connection to the relay, sixty-four requests in flight, pieces taken as they are announced.
//! It verifies each piece by SHA-1 before it counts (BEP 3, BEP 6).

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use millrace_proto::metainfo::Metainfo;
use millrace_proto::peer::frame::{Frame, FrameLimits, next_frame};
use millrace_proto::peer::handshake::{HANDSHAKE_BYTES, Handshake, Progress, Reserved};
use millrace_proto::peer::message::{BLOCK_BYTES, Block, Message};

use super::http::Timing;
use super::sink::Sink;

/// Requests in flight: 1 MiB, enough for a local line.
const REQUESTS_MAX: usize = 64;

/// Downloads the whole torrent from one peer.
pub(super) fn download(relay: SocketAddr, metainfo: &Metainfo, sink: &Sink) -> io::Result<Timing> {
    let mut leecher = Leecher::connect(relay, metainfo)?;
    leecher.run(sink)
}

struct Leecher<'a> {
    stream: TcpStream,
    received: Vec<u8>,
    metainfo: &'a Metainfo,
    /// Pieces that the relay has and we have not asked for.
    offered: BTreeSet<u32>,
    /// Blocks of pieces begun that are not asked for yet.
    wanted: VecDeque<Block>,
    in_flight: usize,
    pieces: Vec<Piece>,
    left: usize,
    unchoked: bool,
    started: Instant,
    first_byte: Option<Instant>,
}

/// A piece on its way.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    arrived: usize,
    asked: bool,
}

impl<'a> Leecher<'a> {
    fn connect(relay: SocketAddr, metainfo: &'a Metainfo) -> io::Result<Self> {
        let started = Instant::now();
        let mut stream = TcpStream::connect(relay)?;
        let infohash =
            metainfo.infohash_v1().ok_or_else(|| io::Error::other("the demo's torrent has a v1 half"))?;
        let ours = Handshake {
            reserved: Reserved::default().with_fast(),
            infohash: infohash.0,
            peer_id: *b"-MR0001-demo-leecher",
        };
        stream.write_all(&ours.encode())?;
        let mut theirs = [0; HANDSHAKE_BYTES];
        stream.read_exact(&mut theirs)?;
        match Handshake::parse(&theirs) {
            Progress::Whole(handshake) if handshake.infohash == ours.infohash => {}
            _ => return Err(io::Error::other("the relay's handshake names another torrent")),
        }
        let count = usize::try_from(metainfo.info.piece_count()).map_err(io::Error::other)?;
        let mut leecher = Leecher {
            stream,
            received: Vec::new(),
            metainfo,
            offered: BTreeSet::new(),
            wanted: VecDeque::new(),
            in_flight: 0,
            pieces: std::iter::repeat_with(Piece::default).take(count).collect(),
            left: count,
            unchoked: false,
            started,
            first_byte: None,
        };
        leecher.send(&Message::Interested)?;
        Ok(leecher)
    }

    fn run(&mut self, sink: &Sink) -> io::Result<Timing> {
        let mut buffer = vec![0; 256 * 1024];
        while self.left > 0 {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&buffer[..count]);
            self.take_frames(sink)?;
            self.ask()?;
        }
        let first_byte = self.first_byte.map_or(self.started.elapsed(), |at| at - self.started);
        Ok(Timing { first_byte, total: self.started.elapsed() })
    }

    fn take_frames(&mut self, sink: &Sink) -> io::Result<()> {
        let received = std::mem::take(&mut self.received);
        let mut at = 0;
        let bitfield_bytes = u32::try_from(self.pieces.len().div_ceil(8)).map_err(io::Error::other)?;
        let limits = FrameLimits::exchange(bitfield_bytes);
        loop {
            match next_frame(&received[at..], &limits) {
                Frame::NeedMore(_) => break,
                Frame::Invalid(reason) => return Err(io::Error::other(format!("a bad message: {reason:?}"))),
                Frame::Whole { consumed, message } => {
                    self.take_message(message, sink)?;
                    at += consumed;
                }
            }
        }
        self.received = received[at..].to_vec();
        Ok(())
    }

    fn take_message(&mut self, message: Message<'_>, sink: &Sink) -> io::Result<()> {
        let count = u32::try_from(self.pieces.len()).map_err(io::Error::other)?;
        match message {
            Message::Unchoke => self.unchoked = true,
            Message::HaveAll => self.offered.extend(0..count),
            Message::Have(index) if index < count => {
                self.offered.insert(index);
            }
            Message::Bitfield(bits) => {
                let has = |index: &u32| millrace_proto::peer::bitfield::contains(bits, *index);
                self.offered.extend((0..count).filter(has));
            }
            Message::Piece { index, begin, block } => self.take_block(index, begin, block, sink)?,
            Message::Reject(_) => {
                return Err(io::Error::other("the relay rejected a block that it had offered"));
            }
            _ => {}
        }
        Ok(())
    }

    fn take_block(&mut self, index: u32, begin: u32, block: &[u8], sink: &Sink) -> io::Result<()> {
        self.first_byte.get_or_insert_with(Instant::now);
        self.in_flight = self.in_flight.saturating_sub(1);
        let (index_in_list, begin) = (index as usize, begin as usize);
        let whole = self.piece_bytes(index) as usize;
        let piece = &mut self.pieces[index_in_list];
        piece.bytes.resize(whole, 0);
        piece.bytes[begin..begin + block.len()].copy_from_slice(block);
        piece.arrived += block.len();
        if piece.arrived < whole {
            return Ok(());
        }
        let expected = self.metainfo.info.v1_pieces.as_ref().map(|hashes| hashes[index_in_list]);
        let actual = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &piece.bytes);
        if expected.is_none_or(|expected| expected != actual.as_ref()) {
            return Err(io::Error::other(format!(
                "piece {index} does not have the hash that the torrent names"
            )));
        }
        let offset = u64::from(index) * u64::from(self.metainfo.info.piece_bytes);
        sink.write(offset, &std::mem::take(&mut piece.bytes))?;
        self.left -= 1;
        Ok(())
    }

    /// Keeps the pipeline full.
    fn ask(&mut self) -> io::Result<()> {
        while self.unchoked && self.in_flight < REQUESTS_MAX {
            let Some(block) = self.wanted.pop_front() else {
                let Some(index) = self.offered.pop_first() else { return Ok(()) };
                self.begin_piece(index);
                continue;
            };
            self.send(&Message::Request(block))?;
            self.in_flight += 1;
        }
        Ok(())
    }

    fn begin_piece(&mut self, index: u32) {
        if std::mem::replace(&mut self.pieces[index as usize].asked, true) {
            return;
        }
        let bytes = self.piece_bytes(index);
        for begin in (0..bytes).step_by(BLOCK_BYTES as usize) {
            self.wanted.push_back(Block { index, begin, length: BLOCK_BYTES.min(bytes - begin) });
        }
    }

    fn piece_bytes(&self, index: u32) -> u32 {
        let info = &self.metainfo.info;
        let start = u64::from(index) * u64::from(info.piece_bytes);
        u32::try_from(info.length.saturating_sub(start))
            .map_or(info.piece_bytes, |left| left.min(info.piece_bytes))
    }

    fn send(&mut self, message: &Message<'_>) -> io::Result<()> {
        let mut frame = [0; 64];
        let bytes =
            message.encode(&mut frame).map_err(|_| io::Error::other("a message longer than its buffer"))?;
        self.stream.write_all(&frame[..bytes])
    }
}
