"""The lock on a store: two servers on one store do not notice each other and destroy it.

Rule: the lock lives as long as *either* the process that took it or the server it started. The server inherits the
open file, so that a store whose owner was killed stays locked until its server is gone too.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from mesh.errors import StoreLocked

_FILE = "lock"
_DYING_S = 2.0
"""How long a server may outlive its killed owner."""
_POLL_S = 0.01


class StoreLock:
    """Exclusive use of a store's folder, from `acquire` to `release`.

    Args:
        store: the folder; it exists.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._file: int | None = None

    @property
    def file(self) -> int:
        """The open file that carries the lock, for the server to inherit."""
        assert self._file is not None, "the lock is not held"
        return self._file

    def acquire(self) -> None:
        """Take the lock and write this process's id into it.

        Raises:
            StoreLocked: when another process has it; the message names its id.
        """
        if self._file is not None:
            return
        file = os.open(self._store / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._flock(file)
        except BaseException:
            os.close(file)
            raise
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        """Give the lock back; nothing happens when it isn't held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _flock(self, file: int) -> None:
        deadline = time.monotonic() + _DYING_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(file, 32, 0).decode(errors="replace").strip()
                if _lives(holder) or time.monotonic() > deadline:
                    raise StoreLocked(
                        f"the store {self._store} is in use by process {holder or 'unknown'}: stop that process, or choose another folder"
                    ) from None
                time.sleep(_POLL_S)
            else:
                return


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ValueError:
        return False
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
