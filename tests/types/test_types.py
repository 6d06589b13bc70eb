"""The typing promised to users, held by mypy --strict and by pyright in its strict mode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

FILES = [Path(__file__).with_name(name) for name in ("promises.py", "mistakes.py")]
ROOT = Path(__file__).resolve().parents[2]


def _run(*command: str) -> str:
    environment = {**os.environ, "MYPYPATH": str(ROOT / "sdk"), "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170, cwd=ROOT, env=environment)
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


@pytest.mark.timeout(180)
def test_mypy_strict(tmp_path: Path):
    configuration = tmp_path / "mypy.ini"
    configuration.write_text("[mypy]\nstrict = true\nexplicit_package_bases = true\n[mypy-nats.*]\nignore_missing_imports = true\n")
    cache = ROOT / ".mypy_cache"
    said = _run(sys.executable, "-m", "mypy", "--config-file", str(configuration), "--cache-dir", str(cache), *map(str, FILES))
    assert not said, said


@pytest.mark.timeout(180)
def test_pyright_strict(tmp_path: Path):
    configuration = tmp_path / "pyrightconfig.json"
    settings = {
        "include": [str(file) for file in FILES],
        "extraPaths": [str(ROOT / "sdk")],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "enableTypeIgnoreComments": False,
        "venvPath": str(Path(sys.prefix).parent),
        "venv": Path(sys.prefix).name,
    }
    configuration.write_text(json.dumps(settings))
    said = _run(str(Path(sysconfig.get_path("scripts")) / "basedpyright"), "-p", str(configuration))
    assert not said, said
