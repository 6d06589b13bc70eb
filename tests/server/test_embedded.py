"""The embedded server against the real executable: ready, alone on its store, gone with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nats
import pytest

from mesh.errors import PortTaken, ServerBinaryMissing, ServerStartFailed, StoreLocked
from mesh.server import EmbeddedServer
from mesh.server.probe import ask_jetstream

OWNER = """
import sys
from mesh.server import EmbeddedServer
server = EmbeddedServer(sys.argv[1]).start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def _eventually(holds: Callable[[], bool], within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_started_means_jetstream_answers(tmp_path):
    with EmbeddedServer(tmp_path / "store") as server:
        info = ask_jetstream("127.0.0.1", server.port, 5)
        assert info["host"] == "127.0.0.1"
        assert info["max_payload"] == 8 << 20
        assert server.version is not None
        assert server.version >= (2, 12, 0)
        assert server.url == f"nats://127.0.0.1:{server.port}"
    assert not server.running


def test_the_store_ignores_itself_and_syncs_always(tmp_path):
    with EmbeddedServer(tmp_path / "store") as server:
        assert (server.store / ".gitignore").read_text() == "*\n"
        assert 'sync_interval: "always"' in (server.store / "nats.conf").read_text()


def test_without_sync_the_default_of_the_server_stands(tmp_path):
    with EmbeddedServer(tmp_path / "store", sync=None) as server:
        assert "sync_interval" not in (server.store / "nats.conf").read_text()


def test_default_store_is_a_folder_of_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert EmbeddedServer().store == tmp_path / ".mesh"


async def test_a_kill_and_a_restart_keep_port_and_data(tmp_path):
    async with EmbeddedServer(tmp_path / "store") as server:
        connection = await nats.connect(server.url)
        stream = connection.jetstream()
        await stream.add_stream(name="KEPT", subjects=["kept.>"])
        for number in range(20):
            await stream.publish("kept.here", b"%d" % number)
        await connection.close()
        url, pid = server.url, server.pid
        server.kill()
        assert not server.running
        await asyncio.to_thread(server.restart)
        assert server.url == url
        assert server.pid != pid
        connection = await nats.connect(server.url)
        info = await connection.jetstream().stream_info("KEPT")
        await connection.close()
        assert info.state.messages == 20


def test_a_stop_and_a_new_server_object_find_the_data(tmp_path):
    with EmbeddedServer(tmp_path / "store"):
        pass
    with EmbeddedServer(tmp_path / "store") as server:
        assert server.running


def test_a_locked_store_names_the_process_and_the_folder(tmp_path):
    with EmbeddedServer(tmp_path / "store"), pytest.raises(StoreLocked) as refusal:
        EmbeddedServer(tmp_path / "store").start()
    assert str(os.getpid()) in str(refusal.value)
    assert str(tmp_path / "store") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_refused_server_leaves_the_first_one_alone(tmp_path):
    with EmbeddedServer(tmp_path / "store") as server:
        with pytest.raises(StoreLocked):
            EmbeddedServer(tmp_path / "store").start()
        ask_jetstream("127.0.0.1", server.port, 5)


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = EmbeddedServer(tmp_path / "store", port=port)
        with pytest.raises(PortTaken, match=str(port)):
            server.start()
    assert not server.running
    with server:  # the failed start left no lock behind
        assert server.port == port


def test_a_store_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(ServerStartFailed, match="store"):
        EmbeddedServer(tmp_path / "store").start()


def test_a_setting_that_the_server_refuses_is_told(tmp_path):
    with pytest.raises(ServerStartFailed, match="nats-server ended at once"):
        EmbeddedServer(tmp_path / "store", extra="no_such_block { x: 1 }\n").start()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_dies_with_its_parent(tmp_path, how):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path / "store"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert _runs(pid)
        owner.send_signal(how)
        owner.wait(10)
        assert _eventually(lambda: not _runs(pid))
    with EmbeddedServer(tmp_path / "store") as server:  # and its lock went with it
        assert server.running


async def test_a_server_started_from_a_passing_thread_lives_on(tmp_path):
    server = EmbeddedServer(tmp_path / "store")
    await asyncio.to_thread(server.start)
    loop = asyncio.get_running_loop()
    await loop.shutdown_default_executor()  # the thread that called start is gone now
    try:
        ask_jetstream("127.0.0.1", server.port, 5)
    finally:
        server.stop()


def test_a_missing_executable_names_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("MESH_NATS_SERVER_BIN", str(tmp_path / "nothing"))
    with pytest.raises(ServerBinaryMissing, match="MESH_NATS_SERVER_BIN"):
        EmbeddedServer(tmp_path / "store").start()


def test_no_executable_at_all_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerBinaryMissing, match=r"natsmesh\[server\]"):
        EmbeddedServer(tmp_path / "store").start()


@pytest.mark.parametrize(("says", "told"), [("nats-server: v2.10.4", "2.10.4"), ("something else", "no version")])
def test_an_unsuitable_executable_is_refused(tmp_path, says, told):
    binary = tmp_path / "nats-server"
    binary.write_text(f"#!/bin/sh\necho '{says}'\n")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ServerBinaryMissing, match=told):
        EmbeddedServer(tmp_path / "store", binary=binary).start()
    assert not (tmp_path / "store").exists()
