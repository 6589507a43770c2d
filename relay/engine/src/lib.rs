//! The shard of a Millrace relay as a state machine: no I/O, no clock, no unsafe
