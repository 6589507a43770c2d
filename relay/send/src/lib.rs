//! The one send path of a Millrace relay: page references, sendfile, the pipe, the header table
