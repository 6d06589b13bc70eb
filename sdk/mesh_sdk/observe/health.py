"""`/metrics`, `/healthz` and `/readyz` on one port, served from threads of their own.

Rule: watching never breaks what is watched. A port that is taken is a warning, a failing check is an answer, and nothing
here raises into the process or waits for its event loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import BoundedSemaphore, Thread
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

log = logging.getLogger(__name__)

BLOCKED_SECONDS_MAX = 5.0
"""A main loop that has not come round for longer is unhealthy."""

REQUEST_SECONDS_MAX = 10
"""A client that is slower than this with its request is dropped."""

REQUESTS_MAX = 16
"""Requests answered at the same time; past it a connection is closed at once."""

TEXT = "text/plain; charset=utf-8"

Check = Callable[[], tuple[bool, str]]
"""Tells whether all is well, and in words what is the matter or how it stands. Called on a thread of the server."""


class HealthServer:
    """Serves one process's metrics and health.

    Args:
        port: where to listen; 0 takes any free port.
        registry: what `/metrics` shows.
        healthy: `/healthz` answers 503 while it says no: the process is stuck and should be restarted.
        ready: `/readyz` answers 503 while it says no: the process does no work now.
        host: the address to listen on; None takes MESH_METRICS_HOST, else 127.0.0.1. "0.0.0.0" in a container.

    Example:
        health = HealthServer(9090, metrics.registry, healthy=lambda: beat.check(clock()), ready=lambda: (True, "ready"))
        health.start()
        health.stop()
    """

    def __init__(self, port: int, registry: CollectorRegistry, healthy: Check, ready: Check, host: str | None = None) -> None:
        self._address = (host or os.environ.get("MESH_METRICS_HOST") or "127.0.0.1", port)
        self._registry = registry
        self._checks = {"/healthz": healthy, "/readyz": ready}
        self._server: _Server | None = None
        self._thread: Thread | None = None

    @property
    def port(self) -> int:
        """The port that is served; 0 while none is."""
        return int(self._server.server_address[1]) if self._server else 0

    def start(self) -> bool:
        """Listen and serve.

        Returns:
            False when the port can't be had: logged as a warning, the process goes on without.
        """
        if self._server:
            return True
        try:
            self._server = _Server(self._address, _Handler)
        except (OSError, OverflowError) as error:
            host, port = self._address
            log.warning(
                "metrics and health are not served: port %d on %s can't be had (%s); choose another with --metrics-port, 0 for any",
                port,
                host,
                error,
            )
            return False
        self._server.answer = self._answer
        self._thread = Thread(target=self._server.serve_forever, args=(0.25,), name="mesh-health", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        """Stop listening; waits for the listening thread, not for clients."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server and thread:
            server.shutdown()
            thread.join()
            server.server_close()

    def _answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return 200, content_type, encode(self._registry)
        check = self._checks.get(path)
        if check is None:
            return 404, TEXT, b"there is /metrics, /healthz and /readyz\n"
        well, text = check()
        return 200 if well else 503, TEXT, f"{text}\n".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    answer: Callable[[str, str], tuple[int, str, bytes]]

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = BoundedSemaphore(REQUESTS_MAX)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks its host name up in the DNS, which can take seconds and is needed by nobody here.
        TCPServer.server_bind(self)

    def verify_request(self, request: object, client_address: object) -> bool:
        return self._room.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("request from %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS_MAX
    server: _Server

    def do_GET(self) -> None:
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        self._send(with_body=False)

    def _send(self, with_body: bool) -> None:
        try:
            status, content_type, body = self.server.answer(urlsplit(self.path).path, self.headers.get("Accept", ""))
        except Exception as error:  # a check or a collector is the caller's code; whoever asks must get an answer
            log.exception("%s failed", self.path)
            status, content_type, body = 500, TEXT, f"{type(error).__name__}: {error}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)


class LoopBeat:
    """Tells from another thread whether an event loop still comes round.

    The loop calls `beat` regularly (at least once a second); the health server asks `check`.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """The loop is here."""
        self._last = self._clock()

    def blocked_seconds(self) -> float:
        """How long ago the loop was last here."""
        return self._clock() - self._last

    def check(self) -> tuple[bool, str]:
        """Healthy unless the loop has been away for longer than BLOCKED_SECONDS_MAX."""
        seconds = self.blocked_seconds()
        if seconds > BLOCKED_SECONDS_MAX:
            return False, f"the event loop has been blocked for {seconds:.1f} s"
        return True, "healthy"
