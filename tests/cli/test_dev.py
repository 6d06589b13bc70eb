"""`mesh dev`: everything together, started again when files change or processes die, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.server import EmbeddedServer
from tests.cli.processes import COMMAND, Running, mesh

MODULE = """
from mesh_sdk import Context, Mesh

mesh = Mesh()

@mesh.task()
async def answer(ctx: Context) -> str:
    return "ANSWER"

worker = mesh.worker("dev-tests", slots=2, workflows=[answer])
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _pids(folder: Path) -> dict[str, int]:
    return json.loads((folder / ".mesh" / "dev.json").read_text())["pids"]


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _eventually(answer: Callable[[], Any], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not answer():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_all_of_it_is_ready_found_and_leaves_nothing(tmp_path, port):
    (tmp_path / "app.py").write_text(MODULE)
    with Running("dev", "app", "--port", str(port), folder=tmp_path) as dev:
        assert dev.line("for programs") == (
            f"for programs in other terminals: export MESH_URL=nats://127.0.0.1:{port} MESH_NAMESPACE=default"
        )
        assert str(port) in dev.line("ready")
        file = tmp_path / ".mesh" / "dev.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        pids = _pids(tmp_path)
        assert set(pids) == {"dev", "server", "scheduler", "worker"}
        assert not any(map(_gone, pids.values()))
        # Found by the folder alone, without a setting.
        assert json.loads(mesh("run", "answer", "--wait", folder=tmp_path)) == "ANSWER"
        assert dev.end() == 0
    assert all(map(_gone, pids.values()))
    assert not file.exists()


def test_a_changed_file_starts_the_worker_again(tmp_path, port):
    (tmp_path / "app.py").write_text(MODULE)
    with Running("dev", "app:worker", "--reload", "--port", str(port), folder=tmp_path) as dev:
        dev.line("ready")
        before = _pids(tmp_path)
        (tmp_path / "app.py").write_text(MODULE.replace("ANSWER", "ANOTHER ANSWER"))
        dev.line("worker | ready")
        after = _pids(tmp_path)
        assert after["worker"] != before["worker"]
        assert after["scheduler"] == before["scheduler"]
        assert json.loads(mesh("run", "answer", "--wait", folder=tmp_path)) == "ANOTHER ANSWER"
        assert dev.end() == 0


@pytest.mark.parametrize("killed", [["scheduler"], ["worker"], ["server"], ["worker", "server"]], ids="+".join)
def test_what_is_killed_is_started_again(tmp_path, port, killed):
    (tmp_path / "app.py").write_text(MODULE)
    with Running("dev", "app", "--port", str(port), folder=tmp_path) as dev:
        dev.line("ready")
        before = _pids(tmp_path)
        for name in killed:
            os.kill(before[name], signal.SIGKILL)
        for name in killed:
            _eventually(lambda name=name: _pids(tmp_path)[name] not in (None, before[name]))
        if "worker" in killed:
            dev.line("worker | ready")
        assert json.loads(mesh("run", "answer", "--wait", folder=tmp_path)) == "ANSWER"
        assert dev.end(signal.SIGINT) == 0


def test_its_own_kill_leaves_no_process(tmp_path, port):
    (tmp_path / "app.py").write_text(MODULE)
    with Running("dev", "app", "--port", str(port), folder=tmp_path) as dev:
        dev.line("ready")
        pids = _pids(tmp_path)
        assert dev.end(signal.SIGKILL) == -signal.SIGKILL
    _eventually(lambda: all(map(_gone, pids.values())))


def _dev(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "dev", *arguments], cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def test_a_broken_module_ends_it_with_the_reason(tmp_path, port):
    (tmp_path / "app.py").write_text("1 / 0\n")
    done = _dev("app", "--port", str(port), "--log-level", "error", folder=tmp_path)
    assert done.returncode == 12
    assert "ZeroDivisionError" in done.stderr
    assert not (tmp_path / ".mesh" / "dev.json").exists()


def test_a_locked_store_and_a_taken_port_are_told(tmp_path, port):
    with EmbeddedServer(tmp_path / ".mesh", port=port):
        locked = _dev(folder=tmp_path)
        assert locked.returncode == 9
        assert str(os.getpid()) in locked.stderr
        taken = _dev("--port", str(port), "--store", "other", folder=tmp_path)
        assert taken.returncode == 10
        assert str(port) in taken.stderr
        for done in (locked, taken):
            assert done.stderr.count("\n") == 1
            assert done.stdout == ""
