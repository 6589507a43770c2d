//! Leechers: peers that only download (BEP 3, 6, 10). Frames and the 13 bytes before each block are read and checked; the block behind
//! them is thrown away by the kernel, or compared with what it must be.

mod opening;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use millrace_proto::peer::extension::{self, ExtensionHandshake};
use millrace_proto::peer::frame::{Frame, FrameLimits, next_frame};
use millrace_proto::peer::message::{BLOCK_HEAD_BYTES, Block, Message, id};

use super::blocks::Blocks;
use super::body::Body;
use super::meter::Phase;
use super::runtime::{Socket, yield_now};
use super::{BittorrentLoad, CONNECT, Load, Worker};
use crate::payload::{Payload, mix};
use crate::server::Torrent;

/// Requests queued with a peer that does not say how many it takes (`reqq`): what BEP 10 calls the default.
const QUEUE_UNLESS_TOLD: usize = 250;

/// Bytes of a `request` frame.
const REQUEST_BYTES: usize = 17;

/// One peer, over however many connections.
pub(super) struct Leecher {
    torrent: Torrent,
    address: SocketAddr,
    peer_id: [u8; 20],
    blocks: Blocks,
    queue: usize,
    verify: Option<Payload>,
    session: Session,
}

/// What lasts as long as a connection.
#[derive(Default)]
struct Session {
    /// Received and not yet understood: less than a frame, and never any of a block.
    received: Vec<u8>,
    to_send: Vec<u8>,
    unchoked: bool,
    was_unchoked: bool,
    fast: bool,
    /// Requests the peer queues.
    queue_max: usize,
    asked: VecDeque<Asked>,
    body: Option<Arriving>,
    /// Bytes of whole blocks.
    whole_bytes: u64,
    /// When the first byte of a block came.
    first_byte: Option<Instant>,
}

/// A request without an answer.
#[derive(Debug, Clone, Copy)]
struct Asked {
    block: Block,
    at: Instant,
    measured: bool,
}

/// A block of which the head has arrived.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    asked: Asked,
    first_byte: Instant,
    body: Body,
}

impl Leecher {
    /// The leecher of this number among those of `bittorrent`.
    pub(super) fn new(load: &Load, bittorrent: &BittorrentLoad, number: usize) -> Self {
        let Torrent { piece_bytes, length, .. } = bittorrent.torrent;
        let mut peer_id = *b"-MP0001-............";
        // Servers tell peers apart by their ids, and drop one they know.
        let unique = mix(u64::from(std::process::id()) << 32 ^ number as u64);
        for (place, nibble) in peer_id[8..].iter_mut().zip(0..) {
            *place = b'a' + ((unique >> (nibble * 4)) & 15) as u8;
        }
        Leecher {
            torrent: bittorrent.torrent.clone(),
            address: bittorrent.torrent.address_for(number),
            peer_id,
            blocks: Blocks::new(piece_bytes, length, load.order, load.seed, number, bittorrent.connections),
            queue: bittorrent.queue.max(1),
            verify: load.verify,
            session: Session::default(),
        }
    }

    /// Connects and downloads until something fails, or until the load is over.
    pub(super) async fn run(&mut self, worker: &Worker) -> io::Error {
        match self.download(worker, None).await {
            Ok(_) => io::Error::other("there is nothing left to ask for"),
            Err(error) => error,
        }
    }

    /// Downloads everything once, or until `enough` bytes have come; when the first byte of a block did.
    pub(super) async fn run_once(mut self, worker: &Worker, enough: u64) -> io::Result<Instant> {
        self.blocks = self.blocks.once();
        let first_byte = self.download(worker, Some(self.torrent.length.min(enough))).await?;
        first_byte.ok_or_else(|| io::Error::other("the torrent is empty"))
    }

    /// Downloads until `enough` bytes have come, or for ever; when the first of them did.
    async fn download(&mut self, worker: &Worker, enough: Option<u64>) -> io::Result<Option<Instant>> {
        let socket = &mut worker.runtime.connect(self.address, CONNECT).await?;
        self.session = Session { queue_max: QUEUE_UNLESS_TOLD, ..Session::default() };
        self.blocks.reset();
        self.open(socket).await?;
        loop {
            // More is asked for when nothing is there or half the queue is answered, so that requests travel in batches.
            let drained = loop {
                if !self.receive(socket, worker)? {
                    break true;
                }
                if enough.is_some_and(|bytes| self.session.whole_bytes >= bytes) {
                    return Ok(self.session.first_byte);
                }
                if self.session.unchoked && self.session.asked.len() * 2 < self.queue_depth() {
                    break false;
                }
            };
            self.ask(worker)?;
            if !self.session.to_send.is_empty() {
                socket.write_all(&self.session.to_send).await?;
                self.session.to_send.clear();
            }
            if drained { socket.readable().await? } else { yield_now().await }
        }
    }

    fn send(&mut self, message: &Message<'_>) -> io::Result<()> {
        let at = self.session.to_send.len();
        self.session.to_send.resize(at + message.encoded_bytes(), 0);
        message.encode(&mut self.session.to_send[at..]).map_err(|_| io::Error::other("no room")).map(drop)
    }

    /// Takes one step of what has arrived; `false` when there is nothing.
    fn receive(&mut self, socket: &Socket, worker: &Worker) -> io::Result<bool> {
        if let Some(arriving) = &mut self.session.body {
            let taken = arriving.body.receive(socket, &mut worker.buffer.borrow_mut(), self.verify)?;
            worker.meter().add_bittorrent(taken.unwrap_or(0));
            if arriving.body.left == 0 {
                self.finish_block(worker);
            }
            return Ok(taken.is_some());
        }
        let Session { received, .. } = &self.session;
        let missing = BLOCK_HEAD_BYTES.saturating_sub(received.len());
        if received.get(4) == Some(&id::PIECE) {
            if missing == 0 {
                self.begin_block(worker)?;
                return Ok(true);
            }
            return self.session.read(socket, missing);
        }
        match next_frame(received, &FrameLimits::exchange(self.blocks.bitfield_bytes())) {
            Frame::Whole { consumed, .. } => {
                let frame: Vec<u8> = self.session.received.drain(..consumed).collect();
                self.take_message(&frame, worker)?;
                Ok(true)
            }
            // Never more than the head of a block, unless a longer message is known to come.
            Frame::NeedMore(bytes) => self.session.read(socket, bytes.max(missing)),
            Frame::Invalid(reason) => Err(io::Error::other(reason)),
        }
    }

    fn begin_block(&mut self, worker: &Worker) -> io::Result<()> {
        let session = &mut self.session;
        let head = session.received.get(..BLOCK_HEAD_BYTES).ok_or(io::ErrorKind::UnexpectedEof)?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let block = Block { index: word(5), begin: word(9), length: word(0).saturating_sub(9) };
        // Peers answer in order, nearly always.
        let found = session.asked.iter().position(|asked| asked.block == block);
        let asked = found
            .and_then(|at| session.asked.remove(at))
            .ok_or_else(|| io::Error::other(format!("a block that was not asked for: {block:?}")))?;
        session.received.drain(..BLOCK_HEAD_BYTES);
        let left = usize::try_from(block.length).map_err(io::Error::other)?;
        let mut body = Body { position: self.blocks.position(block), left };
        let here = session.received.len().min(left);
        body.take(&session.received[..here], self.verify)?;
        session.received.drain(..here);
        worker.meter().add_bittorrent(here);
        let first_byte = Instant::now();
        session.first_byte.get_or_insert(first_byte);
        session.body = Some(Arriving { asked, first_byte, body });
        if body.left == 0 {
            self.finish_block(worker);
        }
        Ok(())
    }

    fn finish_block(&mut self, worker: &Worker) {
        if let Some(Arriving { asked, first_byte, .. }) = self.session.body.take() {
            worker.meter().add_block();
            self.session.whole_bytes += u64::from(asked.block.length);
            if asked.measured && worker.board.phase() == Phase::Measured {
                let latencies = &mut worker.recorded.borrow_mut().bittorrent;
                latencies.record(first_byte.duration_since(asked.at), asked.at.elapsed());
            }
        }
    }

    fn take_message(&mut self, frame: &[u8], worker: &Worker) -> io::Result<()> {
        let message = Message::decode(frame.get(4..).unwrap_or_default()).map_err(io::Error::other)?;
        let sensible = match message {
            Message::Choke => {
                self.session.unchoked = false;
                // Without the fast extension a choke drops what was asked (BEP 6).
                if !self.session.fast {
                    self.session.asked.drain(..).for_each(|asked| self.blocks.refuse(asked.block));
                }
                true
            }
            Message::Unchoke => {
                self.session.unchoked = true;
                if !std::mem::replace(&mut self.session.was_unchoked, true) {
                    worker.meter().add_connection();
                }
                true
            }
            Message::Have(piece) => self.blocks.offer(piece),
            Message::HaveAll => {
                self.blocks.offer_all();
                true
            }
            Message::Bitfield(bits) => self.blocks.offer_bits(bits),
            Message::Reject(block) => {
                let found = self.session.asked.iter().position(|asked| asked.block == block);
                if found.and_then(|at| self.session.asked.remove(at)).is_some() {
                    self.blocks.refuse(block);
                }
                !self.session.unchoked
            }
            Message::Extended { id: extension::HANDSHAKE_ID, payload } => {
                let hello = ExtensionHandshake::parse(payload).map_err(|_| io::ErrorKind::InvalidData)?;
                if let Some(requests) = hello.reqq {
                    self.session.queue_max = usize::try_from(requests).unwrap_or(usize::MAX).max(1);
                }
                true
            }
            _ => true,
        };
        if sensible {
            Ok(())
        } else {
            Err(io::Error::other(format!("a message that makes no sense: {message:?}")))
        }
    }

    /// Requests to keep with the peer.
    fn queue_depth(&self) -> usize {
        self.queue.min(self.session.queue_max)
    }

    /// Tops the queue up.
    fn ask(&mut self, worker: &Worker) -> io::Result<()> {
        let most = self.queue_depth();
        if !self.session.unchoked || self.session.asked.len() >= most {
            return Ok(());
        }
        let (at, measured) = (Instant::now(), worker.board.phase() == Phase::Measured);
        self.session.to_send.reserve((most - self.session.asked.len()) * REQUEST_BYTES);
        while self.session.asked.len() < most {
            let Some(block) = self.blocks.next() else { break };
            self.send(&Message::Request(block))?;
            self.session.asked.push_back(Asked { block, at, measured });
        }
        Ok(())
    }
}

impl Session {
    /// Reads at most so many bytes behind what was received; `false` when nothing is there.
    fn read(&mut self, socket: &Socket, bytes: usize) -> io::Result<bool> {
        let at = self.received.len();
        self.received.resize(at + bytes, 0);
        let taken = socket.try_read(&mut self.received[at..]);
        self.received.truncate(at + taken.as_ref().ok().copied().flatten().unwrap_or(0));
        match taken? {
            Some(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the peer")),
            taken => Ok(taken.is_some()),
        }
    }
}
