//! How many system calls sending takes, for the tests of this crate: whoever makes one notes it.

#[cfg(test)]
std::thread_local! {
    static NOTED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Notes one call of this thread. Nothing outside of tests.
pub(crate) fn note() {
    #[cfg(test)]
    NOTED.set(NOTED.get() + 1);
}

/// How many calls `act` made on this thread, and what it gave.
#[cfg(test)]
pub(crate) fn counted<T>(act: impl FnOnce() -> T) -> (u32, T) {
    let before = NOTED.get();
    let given = act();
    (NOTED.get() - before, given)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::path::PathBuf;
    use std::sync::Arc;

    use millrace_engine::counters::Counters;
    use millrace_engine::event::Sent;
    use millrace_engine::ids::ConnId;
    use millrace_engine::output::Output;
    use millrace_pagecache::content::Content;
    use millrace_pagecache::layout::{Layout, PieceIndex};
    use millrace_pagecache::new_content::Shape;
    use millrace_pagecache::{NewContent, Options, Store};
    use millrace_proto::id::ContentId;

    use super::*;
    use crate::pipe::Pipe;
    use crate::{HeaderTables, Outcome, Residency, SendPath, Sender};

    const PIECE_BYTES: u32 = 1 << 20;
    const BLOCK_BYTES: u32 = 16 << 10;
    const BLOCKS: u32 = 50;
    const ROUNDS_MAX: usize = 1_000;

    /// What a pipe of 1 MiB has.
    const SLOTS: usize = 256;

    /// A content of two pieces in a store of its own, removed at the end.
    struct Stored {
        folder: PathBuf,
        content: Arc<Content>,
        _store: Store,
    }

    impl Stored {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("millrace-calls-{name}-{}", std::process::id()));
            let store = Store::open(&folder, Options::default()).unwrap();
            let layout = Layout::single("file", 2 * u64::from(PIECE_BYTES), PIECE_BYTES).unwrap();
            let new = NewContent::new(ContentId([7; 16]), "file", Shape::Layout(layout), "\"1\"");
            let content = store.add(new).unwrap();
            for piece in 0..2 {
                content.write(u64::from(piece * PIECE_BYTES), &vec![1; PIECE_BYTES as usize]).unwrap();
                content.mark_verified(PieceIndex(piece));
            }
            Stored { folder, content, _store: store }
        }
    }

    impl Drop for Stored {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    /// A connection as accepted, but with nothing bounding what it holds unsent: its reader need not keep up.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
        (socket, reader)
    }

    /// Sends what `fill` queues until the socket took all of it at once, and checks how many calls that took. What the reader leaves room for
    /// is the kernel's choice; once it has emptied the socket a few times, there is room for all.
    #[track_caller]
    fn check(name: &str, fill: impl Fn(&mut Output), calls_max: u32) {
        if Pipe::new().unwrap().slots() < SLOTS {
            assert!(std::env::var_os("MILLRACE_REQUIRE_CLIENTS").is_none(), "{name}: no pipe of 1 MiB");
            writeln!(std::io::stderr(), "SKIPPED {name}: this user may have no more pipes of 1 MiB").ok();
            return;
        }
        let stored = Stored::new(name);
        let headers = Arc::new(HeaderTables::default());
        headers.cover(PIECE_BYTES, 2).unwrap();
        let counters = Arc::new(Counters::default());
        let mut sender = Sender::new(SendPath::Reference, counters, headers).unwrap();
        let mut output = Output::default();
        output.lease(&stored.content);
        let (socket, mut reader) = pair();
        for _ in 0..ROUNDS_MAX {
            fill(&mut output);
            let queued = output.bytes();
            while !output.is_empty() {
                let (calls, outcome) = counted(|| {
                    sender.send(ConnId::new(0, 0), socket.as_fd(), &output, u64::MAX, Residency::Assume)
                });
                let Outcome::Sent(Sent::Bytes { bytes, .. }) = outcome else { panic!("{outcome:?}") };
                if bytes == queued {
                    assert_eq!(calls, calls_max, "for {bytes} bytes");
                    return;
                }
                output.consume(bytes);
                reader.read_exact(&mut vec![0; usize::try_from(bytes).unwrap()]).unwrap();
            }
        }
        panic!("the socket never took all at once");
    }

    #[test]
    fn a_mebibyte_over_http_takes_a_handful_of_calls() {
        let fill = |output: &mut Output| {
            output.push_bytes(&[b'h'; 400]);
            output.push_extent(0, 1 << 20);
        };
        // Cork, head, pages into the pipe, pages out of it, uncork.
        check("http", fill, 5);
    }

    #[test]
    fn fifty_blocks_take_three_calls() {
        let fill = |output: &mut Output| {
            for block in 0..BLOCKS {
                let at = block * BLOCK_BYTES;
                output.push_block(at / PIECE_BYTES, at % PIECE_BYTES, BLOCK_BYTES, u64::from(at));
            }
        };
        // How much the socket takes, blocks into the pipe, blocks out of it.
        check("blocks", fill, 3);
    }
}
