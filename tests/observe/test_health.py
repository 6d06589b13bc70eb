from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mesh_sdk.observe import health
from mesh_sdk.observe.health import BLOCKED_SECONDS_MAX, Check, HealthServer, LoopBeat
from tests.observe.readings import full_worker


def well() -> tuple[bool, str]:
    return True, "well"


def ill() -> tuple[bool, str]:
    return False, "not registered yet"


def broken() -> tuple[bool, str]:
    raise ValueError("check failed")


@contextmanager
def serving(healthy: Check = well, ready: Check = well) -> Iterator[HealthServer]:
    server = HealthServer(0, full_worker().registry, healthy, ready)
    assert server.start()
    try:
        yield server
    finally:
        server.stop()


def get(port: int, path: str, method: str = "GET", accept: str = "") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


def test_metrics_are_served_as_text_and_as_open_metrics() -> None:
    with serving() as server:
        status, kind, body = get(server.port, "/metrics")
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert "mesh_worker_slots 5.0" in body
        status, kind, body = get(server.port, "/metrics?name=x", accept="application/openmetrics-text; version=1.0.0")
        assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
        assert body.endswith("# EOF\n")


def test_health_and_readiness_answer_with_what_the_checks_say() -> None:
    with serving(healthy=well, ready=ill) as server:
        assert get(server.port, "/healthz")[::2] == (200, "well\n")
        assert get(server.port, "/readyz")[::2] == (503, "not registered yet\n")
        assert get(server.port, "/healthz", method="HEAD")[::2] == (200, "")
        assert get(server.port, "/")[0] == 404
        assert get(server.port, "/healthz", method="POST")[0] == 501


def test_a_failing_check_is_an_answer_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with serving(ready=broken) as server:
        assert get(server.port, "/readyz")[::2] == (500, "ValueError: check failed\n")
        assert get(server.port, "/healthz")[0] == 200
    assert "/readyz failed" in caplog.text


def test_a_taken_port_is_a_warning_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as first, caplog.at_level(logging.WARNING):
        second = HealthServer(first.port, full_worker().registry, well, well)
        assert not second.start()
        assert second.port == 0
        second.stop()
        assert f"port {first.port}" in caplog.text
        assert "--metrics-port" in caplog.text
        assert get(first.port, "/healthz")[0] == 200


@pytest.mark.parametrize(("port", "host"), [(70_000, "127.0.0.1"), (0, "203.0.113.1")])
def test_an_address_that_can_not_be_had_is_a_warning(port: int, host: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not HealthServer(port, full_worker().registry, well, well, host=host).start()
    assert f"port {port}" in caplog.text


def test_the_environment_names_the_address_unless_the_caller_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MESH_METRICS_HOST", "203.0.113.1")
    assert not HealthServer(0, full_worker().registry, well, well).start()
    assert "203.0.113.1" in caplog.text
    own = HealthServer(0, full_worker().registry, well, well, host="127.0.0.1")
    assert own.start()
    own.stop()


def test_after_stop_the_port_is_free_again() -> None:
    with serving() as server:
        port = server.port
    again = HealthServer(port, full_worker().registry, well, well)
    assert again.start()
    assert again.start()
    assert again.port == port
    again.stop()
    again.stop()
    with pytest.raises(ConnectionRefusedError):
        get(port, "/healthz")


def test_silent_clients_can_not_take_all_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REQUESTS_MAX", 2)
    with serving() as server:
        silent = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(2)]
        try:
            third = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            with third:
                assert third.recv(1) == b""
        finally:
            for connection in silent:
                connection.close()


def test_a_loop_that_does_not_come_round_is_unhealthy() -> None:
    now = [100.0]
    beat = LoopBeat(lambda: now[0])
    now[0] += BLOCKED_SECONDS_MAX
    assert beat.check() == (True, "healthy")
    now[0] += 0.5
    assert beat.check() == (False, "the event loop has been blocked for 5.5 s")
    beat.beat()
    assert beat.check()[0]
