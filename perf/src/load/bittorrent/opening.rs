//! How a leecher opens a connection: handshakes (BEP 3), extensions (BEP 10), and that it has nothing and wants something (BEP 6).

use std::io;

use millrace_proto::peer::extension::{self, ExtensionHandshake, ExtensionIds};
use millrace_proto::peer::handshake::{HANDSHAKE_BYTES, Handshake, Progress, Reserved};
use millrace_proto::peer::message::Message;

use super::Leecher;
use crate::load::runtime::Socket;

impl Leecher {
    /// Exchanges handshakes, and says what we have (nothing) and want.
    pub(super) async fn open(&mut self, socket: &mut Socket) -> io::Result<()> {
        let reserved = Reserved::default().with_fast().with_extension_protocol();
        let ours = Handshake { reserved, infohash: self.torrent.infohash, peer_id: self.peer_id };
        socket.write_all(&ours.encode()).await?;
        let theirs = self.read_handshake(socket).await?;
        if theirs.infohash != ours.infohash {
            return Err(io::Error::other("the handshake names another torrent"));
        }
        self.session.fast = theirs.reserved.fast();
        if theirs.reserved.extension_protocol() {
            let hello = ExtensionHandshake {
                ids: ExtensionIds::default(),
                client: concat!("millrace-perf ", env!("CARGO_PKG_VERSION")).as_bytes(),
                ..ExtensionHandshake::default()
            };
            let mut payload = [0; 512];
            let bytes = hello.encode(&mut payload).map_err(|_| io::Error::other("no room"))?;
            self.send(&Message::Extended { id: extension::HANDSHAKE_ID, payload: &payload[..bytes] })?;
        }
        if self.session.fast {
            self.send(&Message::HaveNone)?;
        }
        self.send(&Message::Interested)
    }

    async fn read_handshake(&mut self, socket: &Socket) -> io::Result<Handshake> {
        loop {
            match Handshake::parse(&self.session.received) {
                Progress::Whole(handshake) => {
                    self.session.received.drain(..HANDSHAKE_BYTES);
                    return Ok(handshake);
                }
                Progress::NotBitTorrent => {
                    return Err(io::Error::other("the peer does not speak BitTorrent"));
                }
                Progress::NeedMore(bytes) => {
                    if !self.session.read(socket, bytes)? {
                        socket.readable().await?;
                    }
                }
            }
        }
    }
}
