"""Seeds, simulated: whatever fails, processes, connections and servers, what was promised is kept. `make sim` runs thousands.

In a process of their own, because the order of sets must be the same in every run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

SEEDS = 300
BATCH = 150


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-W", "error", "-m", "tests.simulation", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(400)
def test_promises_are_kept() -> None:
    """About a minute on two cores; each process simulates many, because starting one costs as much as ten seeds."""
    with ThreadPoolExecutor(2) as both:
        for done in both.map(simulate, (f"{first}-{first + BATCH}" for first in range(0, SEEDS, BATCH))):
            assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]


@pytest.mark.timeout(120)
def test_a_seed_says_everything() -> None:
    """The same seed twice in one process, and in another one: the same journal, byte by byte."""
    once, again = simulate("1000-1006", "--twice", "--each"), simulate("1000-1006", "--each")
    assert once.returncode == 0, once.stdout[-20_000:] + once.stderr[-5_000:]
    assert once.stdout.splitlines()[:-1] == again.stdout.splitlines()[:-1]
