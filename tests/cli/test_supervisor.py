"""Children of the supervisor: ready, started again, ended in order, gone."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from mesh.cli.supervisor import Child, ChildFailed, Stopped, Supervisor, port_arguments

STEADY = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print('ready', flush=True)
signal.sigwait({signal.SIGTERM})
"""
"""Ends well when it is told to, also when that is just before it waits for it."""
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\nwhile True: signal.pause()"
BROKEN = "import sys; sys.exit(3)"


def _child(code: str, name: str = "child") -> Child:
    return Child(name, [sys.executable, "-c", code], dict(os.environ))


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_ready_is_awaited_and_told_with_the_name(capfd):
    supervisor = Supervisor()
    child = _child(STEADY, "mine")
    supervisor.start(child)
    try:
        supervisor.wait_ready(child)
        assert child.ready
        assert not _gone(child.pid)
        pid = child.pid
    finally:
        supervisor.end_all()
    assert _gone(pid)
    assert "mine | ready" in capfd.readouterr().out


def test_a_child_that_ends_before_it_is_ready_is_an_error_with_its_code():
    supervisor = Supervisor()
    child = _child(BROKEN, "broken")
    supervisor.start(child)
    with pytest.raises(ChildFailed, match=r"broken .* 3 ") as failure:
        supervisor.wait_ready(child)
    assert failure.value.code == 3


def test_a_killed_child_is_started_again():
    supervisor = Supervisor()
    child = _child(STEADY)
    supervisor.start(child)
    with supervisor.signals():
        try:
            supervisor.wait_ready(child)
            first = child.pid
            os.kill(first, signal.SIGKILL)

            def look() -> None:
                if child.ready and child.pid not in (None, first):
                    os.kill(os.getpid(), signal.SIGTERM)

            with pytest.raises(Stopped):
                supervisor.watch(0.05, look)
            assert child.pid != first
        finally:
            supervisor.end_all()


def test_a_child_that_was_told_to_end_is_not_started_again(capfd):
    supervisor = Supervisor()
    told, other = _child(STEADY, "told"), _child(STEADY, "other")
    with supervisor.signals():
        try:
            for child in (told, other):
                supervisor.start(child)
            supervisor.wait_ready(told, other)
            os.kill(told.pid, signal.SIGTERM)

            def look() -> None:
                if told.process is None and other.process is not None:
                    os.kill(other.pid, signal.SIGTERM)

            with pytest.raises(Stopped):
                supervisor.watch(0.05, look)  # which ends, for none is left
            assert (told.process, told.due, other.process, other.due) == (None, 0.0, None, 0.0)
        finally:
            supervisor.end_all()
    assert "told ended with exit code 0, as it was told to" in capfd.readouterr().err


def test_a_signal_ends_the_wait_for_ready():
    supervisor = Supervisor()
    child = _child("import signal; signal.pause()")
    supervisor.start(child)
    with supervisor.signals():
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(Stopped):
            supervisor.wait_ready(child)
        timer.join()
        supervisor.end_all()


def test_a_child_that_does_not_drain_is_killed_after_the_grace():
    supervisor = Supervisor()
    child = _child(STUBBORN)
    supervisor.start(child)
    supervisor.wait_ready(child)
    pid = child.pid
    supervisor.end(child, grace_s=0.2)
    assert _gone(pid)


def test_each_child_has_a_metrics_port_of_its_own():
    assert port_arguments(None, 1) == []
    assert port_arguments(9000, 2) == ["--metrics-port", "9002"]
    assert port_arguments(0, 2) == ["--metrics-port", "0"]
