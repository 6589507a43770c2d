//! The extension protocol (BEP 10): our handshake, metadata for peers who came by a magnet link (BEP 9), partial seeds (BEP 21) and
//! pieces that went away (BEP 54).

use millrace_proto::peer::extension::{
    ExtensionHandshake, ExtensionIds, HANDSHAKE_ID, lt_donthave, parse_lt_donthave, parse_upload_only,
};
use millrace_proto::peer::message::Message;
use millrace_proto::peer::metadata::{METADATA_PIECE_BYTES, MetadataMessage, piece_range};

use super::peer::Peer;
use super::serve::Ask;
use crate::counters::Reason;
use crate::session::{Context, End, Step};

/// What we take part in. Peer exchange is not offered: nothing here knows other peers' addresses.
const OFFERED: ExtensionIds = ExtensionIds { ut_pex: None, ..ExtensionIds::OURS };

/// A metadata piece and the dictionary before it.
const METADATA_BYTES_MAX: usize = METADATA_PIECE_BYTES as usize + 64;

/// Queues our extension handshake.
///
/// We never download from peers, yet call ourselves `upload_only` (BEP 21) with the last piece only: libtorrent leaves an upload-only
/// peer as soon as it has all of that peer's pieces, and stays away for a minute while new ones arrive here.
pub(super) fn greet(peer: &mut Peer, cx: &mut Context<'_>) {
    let identity = &cx.shared.identity;
    let metainfo = peer.metainfo.as_ref();
    let handshake = ExtensionHandshake {
        ids: OFFERED,
        client: identity.agent.as_bytes(),
        reqq: u32::try_from(cx.shared.limits.peer_requests_max).ok(),
        metadata_size: metainfo.and_then(|metainfo| u32::try_from(metainfo.info_bytes.len()).ok()),
        upload_only: peer.content.is_complete().then_some(true),
        port: Some(identity.port),
        your_ip: Some(cx.peer.ip()),
    };
    let mut payload = [0; 512];
    if let Ok(bytes) = handshake.encode(&mut payload) {
        push(peer, cx, HANDSHAKE_ID, &payload[..bytes]);
    }
}

/// Handles an extension message. What has a number that we did not give out is passed over.
pub(super) fn handle(peer: &mut Peer, cx: &mut Context<'_>, id: u8, payload: &[u8]) -> Step {
    let bad = End::Now(Reason::BadMessage);
    if id == HANDSHAKE_ID {
        let handshake = ExtensionHandshake::parse(payload).map_err(|_| bad)?;
        peer.ids = peer.ids.updated(handshake.ids);
        peer.upload_only = handshake.upload_only.unwrap_or(peer.upload_only);
        return peer.leave_if_pointless();
    }
    if Some(id) == OFFERED.upload_only {
        peer.upload_only = parse_upload_only(payload).ok_or(bad)?;
        return peer.leave_if_pointless();
    }
    if Some(id) == OFFERED.lt_donthave {
        parse_lt_donthave(payload).ok_or(bad)?;
        peer.pieces = peer.pieces.saturating_sub(1);
    } else if Some(id) == OFFERED.ut_metadata
        && let Some(MetadataMessage::Request { piece }) = MetadataMessage::parse(payload)
        && !(peer_can_take(peer, piece) && peer.asks.push(Ask::Metadata(piece)))
    {
        send(peer, cx, &MetadataMessage::Reject { piece });
    }
    Ok(())
}

fn peer_can_take(peer: &Peer, piece: u32) -> bool {
    let total = peer.metainfo.as_ref().and_then(|metainfo| u32::try_from(metainfo.info_bytes.len()).ok());
    total.is_some_and(|total| piece_range(piece, total).is_some())
}

/// Queues a piece of the info dictionary.
pub(super) fn send_metadata(peer: &mut Peer, cx: &mut Context<'_>, piece: u32) {
    let Some(metainfo) = peer.metainfo.clone() else { return };
    let Ok(total_size) = u32::try_from(metainfo.info_bytes.len()) else { return };
    let data = piece_range(piece, total_size).and_then(|range| metainfo.info_bytes.get(range));
    let message = match data {
        Some(data) => MetadataMessage::Data { piece, total_size, data },
        None => MetadataMessage::Reject { piece },
    };
    send(peer, cx, &message);
}

/// Queues that a piece is here no longer. False for a peer that cannot be told.
pub(super) fn take_back(peer: &mut Peer, cx: &mut Context<'_>, piece: u32) -> bool {
    let Some(id) = peer.ids.lt_donthave.filter(|id| *id != HANDSHAKE_ID) else { return false };
    push(peer, cx, id, &lt_donthave(piece));
    true
}

/// Under the number that the peer gave the extension; a peer that gave none cannot be answered.
fn send(peer: &mut Peer, cx: &mut Context<'_>, message: &MetadataMessage<'_>) {
    let Some(id) = peer.ids.ut_metadata.filter(|id| *id != HANDSHAKE_ID) else { return };
    let mut payload = [0; METADATA_BYTES_MAX];
    if let Ok(bytes) = message.encode(&mut payload) {
        push(peer, cx, id, &payload[..bytes]);
    }
}

fn push(peer: &mut Peer, cx: &mut Context<'_>, id: u8, payload: &[u8]) {
    peer.outbox.push_long(cx.output, &Message::Extended { id, payload });
}
