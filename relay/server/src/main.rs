//! The relay program. Everything it does is in the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    millrace_relay::run(std::env::args_os())
}
