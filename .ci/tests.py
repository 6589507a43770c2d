#!/usr/bin/env python3
"""Runs the tests that `cargo test --workspace` would run, as another user or under a seccomp filter that forbids io_uring.

Nothing is built anew: the same test programs run again, each in the folder of its package as cargo does it.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

NOBODY = 65534
ROOT = pathlib.Path(__file__).resolve().parent.parent


def programs():
    """Test programs of the workspace and the folders they run in."""
    command = ["cargo", "test", "--workspace", "--no-run", "--quiet", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    for line in output.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message.get("executable") and message["profile"]["test"]:
            yield message["executable"], pathlib.Path(message["manifest_path"]).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as-nobody", action="store_true")
    parser.add_argument("--without-io-uring", action="store_true")
    arguments = parser.parse_args()

    home = tempfile.mkdtemp(prefix="millrace-ci-")
    environment = dict(os.environ, HOME=home, TMPDIR=home, MILLRACE_REQUIRE_CLIENTS="1")
    environment.pop("MILLRACE_REQUIRE_URING", None)
    launcher = []
    if arguments.as_nobody:
        os.chown(home, NOBODY, NOBODY)
        launcher = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
        # Interpreters and tools below root's home are out of reach.
        environment["PATH"] = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    if arguments.without_io_uring:
        launcher += ["/usr/bin/python3", str(ROOT / "interop/scripts/without-io-uring.py")]
    elif arguments.as_nobody:
        environment["MILLRACE_REQUIRE_URING"] = "1"

    tests = list(programs())
    if arguments.as_nobody:
        readable = subprocess.run(launcher + ["test", "-x", tests[0][0]], env=environment).returncode == 0
        if not readable:
            sys.exit(f"an ordinary user cannot reach {tests[0][0]}: run this in a checkout whose folders are open to all")
    failed, counts = [], {"passed": 0, "failed": 0, "ignored": 0}
    for program, folder in tests:
        process = subprocess.run(
            launcher + [program, "--test-threads", "2"],
            cwd=folder,
            env=dict(environment, CARGO_MANIFEST_DIR=str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for number, what in re.findall(r"(\d+) (passed|failed|ignored)", process.stdout.rpartition("test result")[2]):
            counts[what] += int(number)
        for line in sorted(set(re.findall(r"^.*skipped:.*$", process.stdout, re.M))):
            print(f"  {line.strip()}")
        if process.returncode != 0:
            failed.append(program)
            print(f"--- {program} failed\n{process.stdout[-8000:]}")
    shutil.rmtree(home, ignore_errors=True)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['ignored']} ignored")
    if failed or not counts["passed"]:
        sys.exit(1)


main()
