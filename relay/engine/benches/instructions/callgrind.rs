//! Playing a case under callgrind.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Case;

/// Instructions of one operation.
pub(crate) fn count(case: &Case) -> u64 {
    // Both at the same time: nothing that one does is counted in the other.
    let [fewer, more] = [1, 2].map(|times| start(case, case.rounds * times, Path::new("/dev/null")));
    let [fewer, more] = [fewer, more].map(|run| collected(case, run));
    (more - fewer) / (case.rounds * case.operations)
}

/// Prints the functions that a case spends most in, with set-up, which many rounds outweigh.
pub(crate) fn profile(case: &Case) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind.out");
    collected(case, start(case, case.rounds * 20, &file));
    let annotated = Command::new("callgrind_annotate").arg("--auto=no").arg(&file).status();
    assert!(
        annotated.is_ok_and(|status| status.success()),
        "callgrind_annotate failed; it comes with valgrind"
    );
}

fn start(case: &Case, rounds: u64, file: &Path) -> Child {
    let run = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--play", case.name, &rounds.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    run.unwrap_or_else(|error| panic!("valgrind cannot be started, install its package: {error}"))
}

/// The count that callgrind prints at the end.
fn collected(case: &Case, run: Child) -> u64 {
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {said}", case.name);
    let count = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.unwrap_or_else(|| panic!("{}: no count in what callgrind said: {said}", case.name))
}
