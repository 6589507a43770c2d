#!/usr/bin/env python3
"""Runs a command under a seccomp filter that answers EPERM to the three system calls of io_uring, as most container
runtimes do. Needs no privilege: `no_new_privs` is set first.

    without-io-uring.py COMMAND [ARGUMENT…]
"""

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
BPF_LD_W_ABS, BPF_JEQ, BPF_JGE, BPF_RET = 0x20, 0x15, 0x35, 0x06
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
# io_uring_setup, _enter and _register have these numbers on every architecture.
FIRST, LAST = 425, 427


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    instructions = [
        (BPF_LD_W_ABS, 0, 0, 0),  # the number of the system call
        (BPF_JGE, 0, 2, FIRST),  # below: allow
        (BPF_JGE, 1, 0, LAST + 1),  # above: allow
        (BPF_RET, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM),
        (BPF_RET, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    program = Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    for call in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)]:
        if libc.prctl(*call) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # The proof that the filter holds, before anything relies on it.
    if libc.syscall(FIRST, 1, None) != -1 or ctypes.get_errno() != errno.EPERM:
        sys.exit("io_uring_setup is not forbidden: the filter does not work here")
    os.execvp(sys.argv[1], sys.argv[1:])


main()
