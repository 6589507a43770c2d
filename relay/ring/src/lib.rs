//! Engine operations over io_uring
pub(crate) mod buffers;
pub mod probe;
pub(crate) mod ring;
pub(crate) mod token;
