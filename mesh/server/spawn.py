"""Starts a process that can't outlive this one: the kernel kills it when its parent dies, however it dies.

Rule: the kernel watches the *thread* that started the process, so processes are only started from threads that live as
long as this process does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import IO

# Runs in a bare interpreter of its own and then becomes the program (the same pid), instead of in a fork of this
# process, where other threads may hold locks. prctl(1) is PR_SET_PDEATHSIG; it stays in force over exec. A parent that
# died before the call is noticed by its id.
_BECOME = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def spawn(
    command: Sequence[str | Path],
    *,
    inherit: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` (its first part an absolute path) so that it is killed when this process dies.

    Where the kernel has no parent-death signal (anything but Linux) it is an ordinary child.

    Args:
        inherit: open files that the process keeps.
        environment: instead of this process's own.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            _tied(command),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(inherit),
            env=environment,
            start_new_session=True,  # a Ctrl-C at the terminal is this process's to hand on, in its own order
        )

    if threading.current_thread() is threading.main_thread():
        return start()
    return _lasting_thread().submit(start).result()


def _tied(command: Sequence[str | Path]) -> list[str]:
    parts = [str(part) for part in command]
    if sys.platform != "linux":
        return parts
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *parts]


@cache
def _lasting_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="mesh-spawn")
