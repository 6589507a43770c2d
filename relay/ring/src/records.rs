//! What is in flight of one kind, in numbered slots: the kernel names the slot in its completion, and a generation tells a late completion
//! of an earlier user of the slot.

use crate::token::{Kind, Parts, Token};

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    record: Option<T>,
}

/// Records of operations in flight, each with whatever the kernel may still read or write.
#[derive(Debug)]
pub(crate) struct Records<T> {
    kind: Kind,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Records<T> {
    /// None yet, of operations of this kind.
    pub(crate) fn new(kind: Kind) -> Self {
        Records { kind, slots: Vec::new(), free: Vec::new() }
    }

    /// Keeps a record until it is [taken](Self::take) and returns the token for its request.
    pub(crate) fn insert(&mut self, record: T) -> Token {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, record: None });
            // As many as there are buffers of 2 MiB: far below the slots of a token.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[number as usize];
        slot.record = Some(record);
        Token::new(self.kind, number, slot.generation)
    }

    /// The record of an operation that goes on.
    ///
    /// # Panics
    /// When there is none: the kernel has completed something twice.
    pub(crate) fn of(&mut self, token: Parts) -> &mut T {
        let slot = self.slots.get_mut(token.slot as usize);
        let record = slot.filter(|slot| slot.generation == token.generation);
        let record = record.and_then(|slot| slot.record.as_mut());
        record.unwrap_or_else(|| panic!("the kernel completed {:?}, which is not in flight", token.kind))
    }

    /// The record of an operation that has ended.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    pub(crate) fn take(&mut self, token: Parts) -> T {
        let slot = self.slots.get_mut(token.slot as usize).filter(|slot| slot.generation == token.generation);
        let record = slot.and_then(|slot| {
            slot.generation = slot.generation.wrapping_add(1);
            slot.record.take()
        });
        self.free.push(token.slot);
        record.unwrap_or_else(|| panic!("the kernel completed {:?}, which is not in flight", token.kind))
    }

    /// The tokens of what is in flight.
    pub(crate) fn in_flight(&self) -> Vec<Token> {
        let used = self.slots.iter().zip(0..).filter(|(slot, _)| slot.record.is_some());
        used.map(|(slot, number)| Token::new(self.kind, number, slot.generation)).collect()
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Leaves everything in place for good.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.slots));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(token: Token) -> Parts {
        Token::take_apart(token.user_data()).unwrap()
    }

    #[test]
    fn a_record_is_kept_until_its_operation_has_ended() {
        let mut records = Records::new(Kind::Read);
        let [one, other] = ["one", "other"].map(|name| records.insert(name));
        assert_eq!(records.in_flight(), [one, other]);
        assert_eq!(*records.of(parts(one)), "one");
        assert_eq!(records.take(parts(one)), "one");
        assert!(!records.is_idle());
        let next = records.insert("next");
        assert_eq!(parts(next).slot, parts(one).slot, "its slot is used again");
        assert_ne!(next, one);
        assert_eq!([records.take(parts(next)), records.take(parts(other))], ["next", "other"]);
        assert!(records.is_idle());
    }

    #[test]
    #[should_panic(expected = "not in flight")]
    fn a_completion_too_many_is_a_breach_of_contract() {
        let mut records = Records::new(Kind::Read);
        let token = records.insert(());
        records.take(parts(token));
        let _: &mut () = records.of(parts(token));
    }
}
