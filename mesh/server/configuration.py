"""The configuration file of an embedded nats-server.

Rule: listens on the loopback only, and every limit is written down; what the file doesn't say is the server's default.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"

MIB = 1 << 20
GIB = 1 << 30
FILE_STORE_MAX = 64 * GIB
"""Enough for anything embedded; the disk usually says less."""
DISK_PART = 0.8
"""Of what is free on the disk: a full one stops every stream until the server starts again."""
MEMORY_STORE_MAX = 4 * GIB
"""Reserved against, not allocated: lanes and presence use little of it."""


@dataclass(frozen=True, kw_only=True)
class ServerConfiguration:
    """What an embedded server is told.

    Attributes:
        store: the folder of everything that it keeps.
        port: -1 lets the server choose a free one.
        sync: how often the disk is synced: "always", a duration like "2m", None for the server's own default.
        name: the server's name, "" lets it choose.
        extra: further configuration text, such as a cluster block.
    """

    store: Path
    port: int = -1
    sync: str | None = "always"
    name: str = ""
    max_payload: int = 8 * MIB
    max_file_store: int = 0
    """Bytes; 0: a part of what is free on the disk."""
    max_memory_store: int = MEMORY_STORE_MAX
    ping_interval: str = "10s"
    extra: str = ""

    @property
    def file(self) -> Path:
        return self.store / "nats.conf"

    @property
    def log(self) -> Path:
        return self.store / "nats.log"

    @property
    def ports(self) -> Path:
        """Folder where the server writes down what it listens on."""
        return self.store / "ports"

    def render(self) -> str:
        """The file's text."""
        sync = f"  sync_interval: {json.dumps(self.sync)}\n" if self.sync else ""
        name = f"server_name: {_text(self.name)}\n" if self.name else ""
        return (
            f"{name}listen: {HOST}:{self.port}\n"
            f"ports_file_dir: {_text(self.ports)}\n"
            f"max_payload: {self.max_payload}\n"
            f"ping_interval: {_text(self.ping_interval)}\n"
            f"log_file: {_text(self.log)}\n"
            f"logfile_size_limit: {16 * MIB}\n"
            "logfile_max_num: 3\n"
            "jetstream {\n"
            f"  store_dir: {_text(self.store)}\n"
            f"{sync}"
            f"  max_file_store: {self.max_file_store or _part_of_the_disk(self.store)}\n"
            f"  max_memory_store: {self.max_memory_store}\n"
            "}\n"
            f"{self.extra}"
        )


def _text(value: str | Path) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _part_of_the_disk(store: Path) -> int:
    # What the store already holds counts as free: it is the server's own.
    held = sum(path.stat().st_size for path in (store / "jetstream").rglob("*.blk"))
    return min(FILE_STORE_MAX, int((shutil.disk_usage(store).free + held) * DISK_PART))
