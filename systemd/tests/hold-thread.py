#!/usr/bin/env python3
"""Stops one thread of a process, as a debugger does, and holds it until it is killed: hold-thread.py PROCESS THREAD-NAME"""
import ctypes
import os
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207

process, name = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_ulong, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
tasks = f"/proc/{process}/task"
thread = next(int(t) for t in os.listdir(tasks) if open(f"{tasks}/{t}/comm").read().strip() == name)
for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
    if libc.ptrace(request, thread, None, None) != 0:
        sys.exit(f"{name} of {process} cannot be traced: {os.strerror(ctypes.get_errno())}")
print(f"holding {name}", flush=True)
# Who traces a thread has to take note of its end, or the process never ends for its parent.
WALL = 0x40000000
while os.WIFSTOPPED(os.waitpid(thread, WALL)[1]):
    pass
