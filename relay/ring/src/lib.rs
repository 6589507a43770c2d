//! Engine operations over io_uring
