//! Contents on disk whose bytes are a function of the offset, and connections over loopback.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use millrace_engine::counters::Counters;
use millrace_engine::event::Sent;
use millrace_engine::ids::ConnId;
use millrace_engine::output::{Output, Part};
use millrace_pagecache::content::Content;
use millrace_pagecache::layout::{FileSpan, Layout};
use millrace_pagecache::new_content::NewContent;
use millrace_pagecache::{Options, Store};
use millrace_proto::id::ContentId;
use millrace_send::{HeaderTables, Outcome, Residency, SendPath, Sender};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The connection of tests that have one.
pub(crate) fn conn() -> ConnId {
    ConnId::new(0, 0)
}

/// A sender with what it counts in.
pub(crate) struct Bench {
    pub(crate) sender: Sender,
    pub(crate) counters: Arc<Counters>,
    pub(crate) headers: Arc<HeaderTables>,
}

impl Bench {
    pub(crate) fn new(path: SendPath) -> Self {
        let (counters, headers) = (Arc::new(Counters::default()), Arc::new(HeaderTables::default()));
        let sender = Sender::new(path, Arc::clone(&counters), Arc::clone(&headers)).unwrap();
        Bench { sender, counters, headers }
    }

    pub(crate) fn send(&mut self, socket: &TcpStream, output: &Output, bytes_max: u64) -> Outcome {
        self.sender.send(conn(), socket.as_fd(), output, bytes_max, Residency::Assume)
    }
}

impl Deref for Bench {
    type Target = Sender;

    fn deref(&self) -> &Sender {
        &self.sender
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Sender {
        &mut self.sender
    }
}

/// Sends all of `output`, waiting for the socket where it is full.
pub(crate) fn send_all(bench: &mut Bench, socket: &TcpStream, output: &mut Output, bytes_max: u64) {
    while !output.is_empty() {
        let Outcome::Sent(Sent::Bytes { bytes, blocked }) = bench.send(socket, output, bytes_max) else {
            panic!("the send failed")
        };
        assert!(bytes <= bytes_max);
        assert!(bytes > 0 || blocked, "no progress, and no reason to wait");
        output.consume(bytes);
        if blocked {
            poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE).unwrap();
        }
    }
}

/// Reads `total` bytes in small steps.
pub(crate) fn receive(mut reader: TcpStream, total: usize) -> Vec<u8> {
    let mut received = Vec::with_capacity(total);
    let mut step = vec![0; 30_000];
    while received.len() < total {
        let read = reader.read(&mut step).unwrap();
        assert!(read > 0, "the connection ended after {} of {total} bytes", received.len());
        received.extend_from_slice(&step[..read]);
    }
    received
}

/// A non-blocking sending end, with a send buffer of about `sndbuf` bytes, and a blocking reading end.
pub(crate) fn tcp_pair(sndbuf: Option<usize>) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    millrace_send::socket::tune_accepted(&socket).unwrap();
    if let Some(bytes) = sndbuf {
        socket2::SockRef::from(&socket).set_send_buffer_size(bytes).unwrap();
    }
    (socket, reader)
}

/// A content in files of its own, removed at the end.
pub(crate) struct Stored {
    pub(crate) content: Arc<Content>,
    folder: PathBuf,
    _store: Store,
}

impl Stored {
    /// Files of these lengths, one after the other; true for padding.
    pub(crate) fn new(piece_bytes: u32, files: &[(u64, bool)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("millrace-send-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (mut offset, mut spans, mut paths) = (0, Vec::new(), Vec::new());
        for (index, &(length, padding)) in files.iter().enumerate() {
            let path = folder.join(index.to_string());
            if !padding {
                let bytes: Vec<u8> = (offset..offset + length).map(byte_at).collect();
                File::create(&path).unwrap().write_all(&bytes).unwrap();
            }
            spans.push(FileSpan { path: vec![index.to_string()], offset, length, padding });
            paths.push(path);
            offset += length;
        }
        let layout = Layout::new(piece_bytes, offset, spans).unwrap();
        let store = Store::open(&folder.join("store"), Options::default()).unwrap();
        let new = NewContent::imported(ContentId([7; 16]), "test", layout, paths, "\"1\"");
        let content = store.add(new).unwrap();
        Stored { content, folder, _store: store }
    }

    /// What `output` is to put on the wire.
    pub(crate) fn model(&self, output: &Output) -> Vec<u8> {
        let mut expected = Vec::new();
        for part in output.parts() {
            match part {
                Part::Bytes(bytes) | Part::BlockHead { bytes, .. } => expected.extend_from_slice(bytes),
                Part::Extent { offset, bytes } => {
                    expected.extend((offset..offset + bytes).map(|at| self.byte(at)))
                }
            }
        }
        expected
    }

    fn byte(&self, offset: u64) -> u8 {
        let files = self.content.layout().files();
        let stored = files.iter().any(|file| !file.padding && (file.offset..file.end()).contains(&offset));
        if stored { byte_at(offset) } else { 0 }
    }

    /// Unlinks the files, as eviction does.
    pub(crate) fn remove(&self) {
        for entry in fs::read_dir(&self.folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Makes a file shorter, as its owner might.
    pub(crate) fn truncate(&self, file: usize, bytes: u64) {
        let path = self.folder.join(file.to_string());
        File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
    }

    /// Marks a file as changed, at another time than it was made, whatever the clock's tick.
    pub(crate) fn touch(&self, file: usize) {
        let file = File::options().write(true).open(self.folder.join(file.to_string())).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }

    /// Reads a file until all of it is in memory: what the host reclaims meanwhile is read again.
    pub(crate) fn read_into_memory(&self, file: usize) {
        let file = File::open(self.folder.join(file.to_string())).unwrap();
        let bytes = file.metadata().unwrap().len();
        let is_resident = || millrace_pagecache::disk::residency::resident(&file, 0, bytes);
        for _ in 0..1_000 {
            std::io::copy(&mut &file, &mut std::io::sink()).unwrap();
            // None where the kernel does not tell: then nobody asks it.
            if is_resident() != Some(false) {
                return;
            }
            std::io::Seek::rewind(&mut &file).unwrap();
        }
        panic!("the host keeps taking the file out of memory");
    }

    /// Asks the kernel to forget the pages of a file; false where it keeps its start.
    pub(crate) fn drop_from_memory(&self, file: usize) -> bool {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        let file = File::open(self.folder.join(file.to_string())).unwrap();
        file.sync_all().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        millrace_pagecache::disk::residency::resident(&file, 0, 1) == Some(false)
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn byte_at(offset: u64) -> u8 {
    offset.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7] ^ offset.to_le_bytes()[1]
}

/// A small generator (xorshift64*), so that a failure can be repeated from its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let mut state = self.0.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(3_037_000_493);
        state ^= state >> 29;
        self.0 = state;
        (state >> 3) % end
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}
