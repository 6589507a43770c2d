//! One value read or written.

use std::hint::black_box;

use millrace_proto::bencode::decode_canonical;
use millrace_proto::http::date::HttpDate;
use millrace_proto::http::range::{self, ByteRange};
use millrace_proto::http::request::{self, Parsed};
use millrace_proto::http::response::HeadWriter;
use millrace_proto::merkle::{hash_block, root};
use millrace_proto::metainfo::Metainfo;
use millrace_proto::peer::frame::{Frame, FrameLimits, next_frame};
use millrace_proto::peer::handshake::{Handshake, Progress, Reserved};
use millrace_proto::peer::message::{Block, Message};
use millrace_proto::peer::mse::{self, Initiator, KeyPair, Responder};

use crate::{Case, torrents};

pub(crate) const CASES: &[Case] = &[
    case("bencode/decode", "read a .torrent of 4,096 pieces (210 kB) as bencoding", 50, || {
        let bytes = torrents::image().to_bytes();
        Box::new(move || assert!(decode_canonical(black_box(&bytes)).unwrap().as_dict().is_some()))
    }),
    case(
        "metainfo/parse_image",
        "read the same as metainfo, piece layer checked against its root",
        2,
        || {
            let bytes = torrents::image().to_bytes();
            Box::new(move || {
                assert_eq!(Metainfo::parse(black_box(&bytes)).unwrap().info.piece_count(), 4_096)
            })
        },
    ),
    case("metainfo/parse_folder", "read a hybrid .torrent of 1,000 files", 2, || {
        let bytes = torrents::folder().to_bytes();
        let count = torrents::folder().info.files.len();
        Box::new(move || assert_eq!(Metainfo::parse(black_box(&bytes)).unwrap().info.files.len(), count))
    }),
    case("metainfo/write_image", "write the .torrent of 4,096 pieces", 20, || {
        let metainfo = torrents::image();
        let bytes = metainfo.to_bytes().len();
        Box::new(move || assert_eq!(black_box(&metainfo).to_bytes().len(), bytes))
    }),
    case(
        "merkle/block",
        "SHA-256 of a block of 16 KiB, without the processor's instructions for it",
        10,
        || {
            let block = vec![1; 16 << 10];
            Box::new(move || assert_ne!(hash_block(black_box(&block)), [0; 32]))
        },
    ),
    case("merkle/piece", "the 63 nodes above the blocks of a piece of 1 MiB", 20, || {
        let leaves = vec![[1; 32]; 64];
        Box::new(move || assert_ne!(root(black_box(&leaves), 0), [0; 32]))
    }),
    case("peer/handshake", "read a handshake", 2_000, || {
        let reserved = Reserved::default().with_fast().with_extension_protocol();
        let sent = Handshake { reserved, infohash: [1; 20], peer_id: [2; 20] };
        let bytes = sent.encode();
        Box::new(move || assert_eq!(Handshake::parse(black_box(&bytes)), Progress::Whole(sent)))
    }),
    case("peer/encrypted", "take a handshake behind message stream encryption", 20, || {
        let (keys, initiator) = (KeyPair::new([7; 20]), Initiator::new([9; 20], [1; 20]));
        let said = [initiator.open(&[0; 256]), initiator.ask(keys.public(), &[], &[2; 68])].concat();
        Box::new(move || {
            let (mut responder, mut answer) = (Responder::default(), Vec::with_capacity(256));
            let taken = responder.handle(black_box(&said), &keys, |_| Some([1; 20]), &mut answer);
            assert_eq!(taken, Ok(mse::Progress::Plain(vec![2; 68])));
        })
    }),
    case("peer/request", "read a `request`", 2_000, || {
        frame(&Message::Request(Block { index: 7, begin: 16_384, length: 16_384 }))
    }),
    case("peer/piece", "read a `piece` with its 16 KiB, which stay where they are", 2_000, || {
        frame(&Message::Piece { index: 7, begin: 16_384, block: &[1; 16_384] })
    }),
    case("http/request_curl", "read the head that curl sends", 1_000, || {
        head(include_bytes!("../../../../proto/tests/corpus/http/ok-curl"))
    }),
    case("http/request_aria2", "read the head that aria2 sends", 1_000, || {
        head(include_bytes!("../../../../proto/tests/corpus/http/ok-aria2"))
    }),
    case("http/range_single", "select the bytes of `bytes=a-b`", 2_000, || {
        ranges(b"bytes=1073741824-1073758207", 1)
    }),
    case("http/range_multi", "select five ranges, two of which touch", 1_000, || {
        ranges(b"bytes=0-99, 4096-8191,8192-12287, 1073741824-1073758207, -1000", 4)
    }),
    case("http/response_206", "write the head of a 206, prepared lines apart", 1_000, || {
        let date = HttpDate::from_unix(1_700_000_000);
        let range = ByteRange { start: 1 << 30, end: (1 << 30) + 16_384 };
        Box::new(move || {
            let mut buffer = [0; 1024];
            let mut head = HeadWriter::new(&mut buffer, black_box(206), &date);
            head.accept_ranges(true).content_length(range.byte_count());
            head.content_type("application/octet-stream").content_range(range, 4 << 30).cors();
            head.connection(true, 1);
            assert_eq!(head.finish().unwrap(), 428);
            black_box(&buffer);
        })
    }),
];

const fn case(
    name: &'static str,
    operation: &'static str,
    rounds: u64,
    prepare: fn() -> Box<dyn FnMut()>,
) -> Case {
    Case { name, operation, operations: 1, rounds, prepare }
}

fn frame(message: &Message<'_>) -> Box<dyn FnMut()> {
    let mut bytes = vec![0; message.encoded_bytes()];
    message.encode(&mut bytes).unwrap();
    let limits = FrameLimits::exchange(512);
    Box::new(move || {
        let frame = black_box(next_frame(black_box(&bytes), &limits));
        assert!(matches!(frame, Frame::Whole { consumed, .. } if consumed == bytes.len()));
    })
}

fn head(bytes: &'static [u8]) -> Box<dyn FnMut()> {
    let limits = request::Limits::default();
    Box::new(move || {
        let parsed = black_box(request::parse(black_box(bytes), &limits));
        assert!(matches!(parsed, Parsed::Request { head_bytes, .. } if head_bytes == bytes.len()));
    })
}

fn ranges(value: &'static [u8], count: usize) -> Box<dyn FnMut()> {
    Box::new(move || {
        let ranges = black_box(range::select(black_box(value), 4 << 30));
        assert_eq!(ranges.as_slice().len(), count);
    })
}
