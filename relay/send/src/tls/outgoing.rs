//! Records that were encrypted and that the socket has not taken yet, in the order in which they were made.
//!
//! The engine counts payload, and a cap holds at the send call: so a byte of payload counts when a byte of its record is taken, and the
//! last one when the whole record is. What is empty here has been counted, and what has been counted is in the socket.

use std::collections::VecDeque;

/// One record, or bytes that carry no payload.
#[derive(Debug, Clone, Copy)]
struct Record {
    payload: usize,
    bytes: usize,
    taken: usize,
}

impl Record {
    /// Bytes of its payload that count as sent.
    fn sent(self) -> usize {
        if self.taken == self.bytes { self.payload } else { self.taken.min(self.payload.saturating_sub(1)) }
    }
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Those from `start` to `end` are queued.
    memory: Vec<u8>,
    start: usize,
    end: usize,
    records: VecDeque<Record>,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Takes `spare` for its memory where it has none, and gives it back where it needs none any more.
    pub(super) fn share(&mut self, spare: &mut Vec<u8>) {
        if self.is_empty() && self.memory.len() != spare.len() {
            std::mem::swap(&mut self.memory, spare);
        }
    }

    /// Room for at least `bytes`, of which [`push`](Self::push) says how many were used.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.memory.len() - self.end < bytes {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.memory.resize(self.memory.len().max(self.end + bytes), 0);
        }
        &mut self.memory[self.end..]
    }

    /// The first `bytes` of the room are a record with so much payload.
    pub(super) fn push(&mut self, payload: usize, bytes: usize) {
        self.end += bytes;
        if bytes > 0 {
            self.records.push_back(Record { payload, bytes, taken: 0 });
        }
    }

    /// Queues bytes as they are.
    pub(super) fn push_plain(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.push(0, bytes.len());
    }

    /// What may be sent now, without counting more than `payload_max`.
    pub(super) fn sendable(&self, payload_max: u64) -> &[u8] {
        let mut left = usize::try_from(payload_max).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for record in &self.records {
            let unsent = record.payload - record.sent();
            if unsent > left {
                bytes += (record.sent() + left).saturating_sub(record.taken);
                break;
            }
            left -= unsent;
            bytes += record.bytes - record.taken;
        }
        &self.memory[self.start..self.start + bytes]
    }

    /// The socket took the first `bytes`. Returns how much payload counts as sent with them.
    pub(super) fn take(&mut self, mut bytes: usize) -> u64 {
        self.start += bytes;
        let mut payload = 0;
        while let Some(record) = self.records.front_mut().filter(|_| bytes > 0) {
            let taken = bytes.min(record.bytes - record.taken);
            let before = record.sent();
            record.taken += taken;
            bytes -= taken;
            payload += record.sent() - before;
            if record.taken == record.bytes {
                self.records.pop_front();
            }
        }
        if self.records.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        payload as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends everything in steps of at most `step` bytes and `payload_max` of payload. Returns what each step counted.
    fn send(outgoing: &mut Outgoing, step: usize, payload_max: u64) -> (Vec<u8>, Vec<u64>) {
        let (mut sent, mut counted) = (Vec::new(), Vec::new());
        while !outgoing.is_empty() {
            let sendable = outgoing.sendable(payload_max);
            let taken = &sendable[..sendable.len().min(step)];
            sent.extend_from_slice(taken);
            let taken = taken.len();
            assert!(taken > 0, "it gets stuck");
            counted.push(outgoing.take(taken));
        }
        (sent, counted)
    }

    fn three_records() -> Outgoing {
        let mut outgoing = Outgoing::default();
        outgoing.push_plain(b"hello");
        for payload in [100, 1] {
            outgoing.room(payload + 22).fill(7);
            outgoing.push(payload, payload + 22);
        }
        outgoing
    }

    #[test]
    fn all_of_the_payload_is_counted_once_and_never_more_than_is_allowed() {
        for (step, payload_max) in [(1000, 1000), (1, 1000), (7, 3), (1000, 1), (150, 101), (149, 100)] {
            let (sent, counted) = send(&mut three_records(), step, payload_max);
            assert_eq!(sent.len(), 5 + 122 + 23);
            assert_eq!(counted.iter().sum::<u64>(), 101, "by {step}");
            assert!(counted.iter().all(|count| *count <= payload_max), "{counted:?}");
        }
    }

    #[test]
    fn the_last_byte_of_a_record_counts_when_the_socket_has_all_of_it() {
        let mut outgoing = three_records();
        assert_eq!(outgoing.take(5 + 121), 99);
        assert_eq!(outgoing.take(1), 1);
        assert_eq!(outgoing.take(22), 0);
        assert!(!outgoing.is_empty());
        assert_eq!(outgoing.take(1), 1);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn without_a_budget_only_what_carries_no_payload_may_go() {
        assert_eq!(three_records().sendable(0), b"hello");
    }

    #[test]
    fn memory_is_lent_and_given_back() {
        let mut spare = vec![0; 4096];
        let mut outgoing = Outgoing::default();
        outgoing.share(&mut spare);
        outgoing.push_plain(b"a record");
        outgoing.share(&mut spare);
        assert!(spare.is_empty(), "it is in use");
        outgoing.take(8);
        outgoing.share(&mut spare);
        assert!(outgoing.memory.is_empty() && spare.len() == 4096);
    }
}
