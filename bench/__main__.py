"""`make bench`: the mesh beside a raw nats-py loop, in the same run, on one server each time.

Prints, for `sync_interval: always` and for the server's default: runs a second of one-step runs awaited with 1,000 in
flight, p50 and p99 of runs awaited one after the other, and CPU microseconds a run of each process. Medians of the
repeats; the ratios are of figures measured side by side in one repeat.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from bench.load import measure
from bench.raw import RawClient, prepare
from mesh.server import EmbeddedServer

ROOT = Path(__file__).parent.parent
PAYLOAD = "x" * 256


def start(*command: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a process of ours and wait for its `ready`."""
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("ready"):
        raise SystemExit(f"{' '.join(command)} did not get ready: {line!r}")
    return process


async def measure_raw(url: str, server: int, count: int, sequential: int) -> dict[str, Any]:
    """The yardstick's figures."""
    await prepare(url)
    worker = start(sys.executable, "-m", "bench.raw", url)
    client = await RawClient().open(url)
    try:
        pids = {"server": server, "worker": worker.pid, "client": os.getpid()}
        return await measure(lambda: client.call(PAYLOAD), count, sequential, pids)
    finally:
        await client.close()
        worker.terminate()
        worker.wait()


async def measure_mesh(url: str, server: int, count: int, sequential: int, chains: int) -> dict[str, dict[str, Any]]:
    """The mesh's figures: one-step runs, and chains of three, sticky or not."""
    os.environ["MESH_URL"] = url
    from bench.program import CHAINS, In, mesh, one

    command = str(Path(sys.executable).with_name("mesh"))
    env = dict(os.environ, MESH_URL=url)
    scheduler = start(command, "scheduler", env=env)
    worker = start(command, "worker", "bench.program", env=env)
    try:
        pids = {"server": server, "scheduler": scheduler.pid, "worker": worker.pid, "client": os.getpid()}
        found = {"one step": await measure(lambda: one.run(In(p=PAYLOAD)), count, sequential, pids)}
        for name, chain in CHAINS.items() if chains else ():
            found[name] = await measure(lambda chain=chain: chain.run(In(p=PAYLOAD)), chains, sequential // 3, pids)  # type: ignore[misc]
        await mesh.close()
        return found
    finally:
        for process in (worker, scheduler):
            process.terminate()
        for process in (worker, scheduler):
            process.wait()


def tuned(coroutine: Any) -> Any:
    """Run the client's side as the mesh's own processes run theirs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    return uvloop.run(coroutine)


def repeat(sync: str | None, options: argparse.Namespace, which: str) -> Any:
    """One repeat of one kind, on a server of its own, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder), port=0, sync=sync) as server:
        if which == "raw":
            return tuned(measure_raw(server.url, server.pid, options.raw, options.sequential))
        return tuned(measure_mesh(server.url, server.pid, options.runs, options.sequential, options.chains))


def in_child(sync: str | None, options: argparse.Namespace, which: str) -> Any:
    """A repeat in a child, so that each starts with a fresh client."""
    numbers = [str(n) for n in (options.raw, options.runs, options.chains, options.sequential)]
    command = [sys.executable, "-m", "bench", "--child", which, "--sync", sync or "default"]
    out = subprocess.run(
        [*command, "--raw", numbers[0], "--runs", numbers[1], "--chains", numbers[2], "--sequential", numbers[3]],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(out.stdout.splitlines()[-1])


def median(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def line(name: str, rows: list[dict[str, Any]], beside: list[dict[str, Any]] | None, what: str = "raw") -> str:
    us = {process: statistics.median(row["us"][process] for row in rows) for process in rows[0]["us"]}
    spent = " + ".join(f"{process} {value:.0f}" for process, value in us.items())
    text = f"{name:>12}  {median(rows, 'per_s'):>8,.0f}/s   p50 {median(rows, 'p50_ms'):6.2f} ms   p99 {median(rows, 'p99_ms'):6.2f} ms   "
    text += f"CPU {sum(us.values()):4.0f} µs = {spent}"
    if beside is not None:
        rate = statistics.median(row["per_s"] / base["per_s"] for row, base in zip(rows, beside, strict=True))
        wait = statistics.median(row["p50_ms"] / base["p50_ms"] for row, base in zip(rows, beside, strict=True))
        text += f"\n{'':>12}  {rate:.2f} times the rate of {what}, {wait:.2f} times its p50"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--raw", type=int, default=6000)
    parser.add_argument("--runs", type=int, default=20000)
    parser.add_argument("--chains", type=int, default=5000)
    parser.add_argument("--sequential", type=int, default=300)
    parser.add_argument("--sync", choices=["always", "default", "both"], default="both")
    parser.add_argument("--child", choices=["raw", "mesh"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(repeat(None if options.sync == "default" else "always", options, options.child)))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {options.repeats} repeats; every process on this machine")
    for sync in ("always", "default") if options.sync == "both" else (options.sync,):
        raws: list[dict[str, Any]] = []
        figures: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.repeats):
            raws.append(in_child(None if sync == "default" else sync, options, "raw"))
            for name, row in in_child(None if sync == "default" else sync, options, "mesh").items():
                figures.setdefault(name, []).append(row)
        print(f"\nsync_interval: {sync}")
        print(line("raw nats-py", raws, None))
        print(line("one step", figures["one step"], raws))
        for name, rows in figures.items():
            if name != "one step":
                print(line(name, rows, figures["three steps"], "the unsticky chain") if "," in name else line(name, rows, None))
        if options.json:
            print(json.dumps({"sync": sync, "raw": raws} | figures))


if __name__ == "__main__":
    main()
