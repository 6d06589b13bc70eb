"""A scheduler whose acknowledged journal frames are written down, and that makes snapshots after few frames."""

from __future__ import annotations

import logging
import os

from mesh.cli.process import run, until_signal
from mesh.engine import Engine
from mesh.scheduler import free
from tests.chaos import witness
from tests.chaos.history import of_this_process


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    witness.watch(of_this_process())
    free.SNAPSHOT_FRAMES = int(os.environ.get("CHAOS_SNAPSHOT_FRAMES", free.SNAPSHOT_FRAMES))
    engine = Engine(os.environ["MESH_URL"])
    run(lambda on_ready: until_signal(lambda stop: engine.run(on_ready, stop)))


if __name__ == "__main__":
    main()
