"""Golden scripts: what the core records and sends for each command. `MESH_REWRITE_SCRIPTS=1` writes what it really does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.core.script import run_script

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_script(path: Path) -> None:
    told = run_script(path)
    if os.environ.get("MESH_REWRITE_SCRIPTS"):
        path.write_text(told)
    assert told == path.read_text()
