//! What decides, besides the code, how many instructions there are.

use std::process::Command;

/// Names and values.
pub(crate) fn conditions() -> Vec<(&'static str, String)> {
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let compiler = said(&compiler, &["--verbose", "--version"]);
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("unknown");
    vec![
        ("compiler", compiler.lines().next().unwrap_or("unknown").to_owned()),
        ("host", host.to_owned()),
        ("library", said("getconf", &["GNU_LIBC_VERSION"]).trim().to_owned()),
        ("valgrind", said("valgrind", &["--version"]).trim().to_owned()),
        ("avx2", if has_avx2() { "yes" } else { "no" }.to_owned()),
    ]
}

/// Copies and hashes take another path with it, under valgrind too. What valgrind does not know (SHA, AVX-512) never counts.
fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}
