//! Requests that the sender has to make: reads of what is not in memory, and sends out of what was read.

use millrace_send::Outward;
use millrace_send::cold::Read;

use super::Driver;

impl<F: FnMut(Outward)> Driver<'_, F> {
    /// Reads past the page cache go through the ring. Those into it may wait for the disk in the middle of a submission, and are for
    /// threads.
    pub(super) fn begin_reads(&mut self) {
        while let Some(read) = self.sender.next_read() {
            match read {
                Read::BringIn(_) => self.disk.threads.begin(read),
                Read::Direct(read) => {
                    let request = self.reads.begin(read);
                    // SAFETY: `Reads` keeps file and memory until the read has ended, and leaks them when it is dropped before.
                    unsafe { self.ring.push(request) };
                }
            }
        }
    }

    /// Zero-copy sends that were made since the last loop.
    pub(super) fn begin_zero_copies(&mut self) {
        while let Some(send) = self.sender.next_zero_copy() {
            let Some(socket) = self.table.send(send.conn()) else {
                debug_assert!(false, "the sender has forgotten what is for connections that were closed");
                self.sender.finish_zero_copy(send, true);
                continue;
            };
            let request = self.zero_copies.begin(socket, send);
            // SAFETY: `ZeroCopies` keeps the memory until the last completion. When it is dropped before, the kernel, which only reads,
            // has references to the pages.
            unsafe { self.ring.push(request) };
        }
    }
}
