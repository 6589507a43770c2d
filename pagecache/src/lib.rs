//! The shared, mapped piece store of a Millrace relay
