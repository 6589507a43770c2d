//! Reads past the page cache that are in flight: file and buffer belong to the record of the read until its completion.

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use millrace_send::cold::DirectRead;

use crate::token::{Kind, Token};

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    reading: Option<DirectRead>,
}

/// All of a shard. There are as many as buffers at most.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Reads {
    /// Makes the request of a read. What it names stays in place until [`ended`](Self::ended); if this is dropped before, it leaks
    /// what the kernel may write to.
    pub(crate) fn begin(&mut self, mut read: DirectRead) -> squeue::Entry {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // As many as there are buffers of 2 MiB: far below the slots of a token.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[number as usize];
        let bytes = u32::try_from(read.bytes()).unwrap_or(0);
        let request = opcode::Read::new(Fd(read.descriptor()), read.start().as_ptr(), bytes)
            .offset(read.offset())
            .build()
            .user_data(Token::new(Kind::Read, number, slot.generation).user_data());
        slot.reading = Some(read);
        request
    }

    /// A read has ended.
    ///
    /// # Panics
    /// When no such read is in flight: the kernel has completed something twice.
    pub(crate) fn ended(&mut self, number: u32, generation: u32) -> DirectRead {
        let slot = self.slots.get_mut(number as usize).filter(|slot| slot.generation == generation);
        let read = slot.and_then(|slot| {
            slot.generation = slot.generation.wrapping_add(1);
            slot.reading.take()
        });
        self.free.push(number);
        read.expect("the kernel completed a read that is not in flight")
    }

    /// The tokens of what is in flight.
    pub(crate) fn in_flight(&self) -> Vec<Token> {
        let reading = self.slots.iter().zip(0..).filter(|(slot, _)| slot.reading.is_some());
        reading.map(|(slot, number)| Token::new(Kind::Read, number, slot.generation)).collect()
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        if !self.is_idle() {
            // The loop ended in a panic or an error, and the kernel may still write to the buffers.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}
