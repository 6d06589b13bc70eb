"""A real Prometheus for tests: scrapes given targets every half second and answers queries over its HTTP API."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

START_TRIES = 3
READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0


def binary(name: str) -> str:
    """Path of `prometheus` or `promtool`; a missing one fails the test, it never skips it."""
    found = shutil.which(name)
    if not found:
        raise AssertionError(f"{name} is missing: install the packages in tests/apt-packages.txt")
    return found


def promtool(*arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool; the caller looks at its exit code."""
    return subprocess.run([binary("promtool"), *arguments], input=input, capture_output=True, text=True, timeout=30, check=False)


class Prometheus:
    """Use it in a `with`.

    Args:
        targets: `host:port` by job, with the jobs' names of `deploy/prometheus/prometheus.yml`.

    Example:
        with Prometheus({"mesh-worker": ["127.0.0.1:9464"]}) as prometheus:
            prometheus.wait_for_scrapes(5)
            assert prometheus.query("sum(mesh_worker_slots)")
    """

    def __init__(self, targets: Mapping[str, Sequence[str]]) -> None:
        self._targets = targets
        self._folder = tempfile.TemporaryDirectory(prefix="mesh-prometheus-")
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Prometheus:
        try:
            for attempt in range(START_TRIES):
                if self._start(last=attempt == START_TRIES - 1):
                    return self
            raise AssertionError("unreachable: the last try raises")
        except BaseException:
            self._stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now: `[{"metric": {label: value}, "value": [time, text]}]`, empty when nothing matches."""
        result: list[dict[str, Any]] = self._get("/api/v1/query", query=expression)["result"]
        return result

    def value(self, expression: str) -> float:
        """The value of an expression that has exactly one series."""
        result = self.query(expression)
        assert len(result) == 1, f"{expression} has {len(result)} series: {result}"
        return float(result[0]["value"][1])

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = READY_SECONDS_MAX) -> None:
        """Poll until the condition holds; fails past the deadline, saying what did not come."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds:.0f} s; targets: {self._get('/api/v1/targets')['activeTargets']}")
            time.sleep(0.1)

    def wait_for_scrapes(self, count: int = 3) -> None:
        """Wait until every target has been scraped at least so many times with success (a rate needs two)."""
        addresses = {address for each in self._targets.values() for address in each}

        def scraped() -> bool:
            result = self.query("sum by (instance) (sum_over_time(up[5m]))")
            return addresses <= {each["metric"]["instance"] for each in result if float(each["value"][1]) >= count}

        self.wait_for(scraped, f"{count} scrapes of each of {sorted(addresses)}")

    def _start(self, last: bool) -> bool:
        """Start on a free port; False when somebody else took the port meanwhile and there is another try."""
        folder = Path(self._folder.name)
        jobs = [{"job_name": job, "static_configs": [{"targets": list(each)}]} for job, each in self._targets.items()]
        config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        log = folder / "log"
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                [
                    binary("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                stdout=sink,
                stderr=sink,
            )
        deadline = time.monotonic() + READY_SECONDS_MAX
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urlopen(f"{self._url}/-/ready", timeout=5) as response:
                    if response.status == 200:
                        return True
            except (URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        if last:
            raise AssertionError(f"prometheus did not become ready:\n{log.read_text()}")
        self._end()
        return False

    def _get(self, path: str, **parameters: str) -> Any:
        try:
            with urlopen(f"{self._url}{path}?{urlencode(parameters)}", timeout=10) as response:
                return json.load(response)["data"]
        except URLError as error:
            body = error.read().decode() if hasattr(error, "read") else ""
            raise AssertionError(f"prometheus refused {parameters or path}: {error} {body}") from None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _stop(self) -> None:
        self._end()
        self._folder.cleanup()


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels of a dashboard, those inside collapsed rows included."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries(dashboard: Mapping[str, Any], rate_interval: str = "5s") -> Iterator[tuple[str, str]]:
    """Every query of a dashboard as Prometheus would get it: (where it stands, expression).

    Args:
        dashboard: a dashboard as read from its JSON.
        rate_interval: put in place of Grafana's `$__rate_interval`; at least four scrape intervals.
    """
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", rate_interval).replace("$pool", ".*")
            yield f"{panel['title']} / {target['refId']}", expression


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
