"""One chaos run: start everything, make faults, let it come to rest, check all promises, write the report.

Rule: whatever goes wrong, everything that was started is ended, and the folder of a failing run is kept and named.
"""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
import tempfile
import time
import traceback
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tests.chaos.audit import Audit
from tests.chaos.checks import Checks
from tests.chaos.clocks import Clocks
from tests.chaos.faults import Faults
from tests.chaos.fleet import CLIENTS, Fleet
from tests.chaos.history import History, read
from tests.chaos.network import Network
from tests.chaos.servers import Servers

ROOT = Path(__file__).resolve().parents[2]
LEASES_S = {1: 5.0, 3: 15.0}
SLOTS = 4
SNAPSHOT_FRAMES = 300
SETTLE_S = 150.0
TAIL_S = 60.0
LOG_LINES = 3


@dataclass(frozen=True)
class Plan:
    """What a run is to be."""

    seed: int
    seconds: float
    replicas: int = 3
    pace_s: float = 0.8


class ChaosRun:
    """See the module.

    Args:
        plan: of the run.
        keep: keep the folder of a clean run too.
    """

    def __init__(self, plan: Plan, *, keep: bool = False) -> None:
        self.plan = plan
        self._keep = keep
        self.folder = Path(tempfile.mkdtemp(prefix=f"chaos-{plan.seed}-"))
        for name in ("history", "logs"):
            (self.folder / name).mkdir()
        self._history = History(self.folder / "history", "chaos")
        self._compared = 0
        self._notes: list[str] = []
        self._waiting: list[str] = []
        """Clients that do not know everything at the end."""

    async def run(self) -> dict[str, Any]:
        """Do it all; the report. A clean run's folder is removed."""
        report: dict[str, Any] = {
            "seed": self.plan.seed,
            "seconds": self.plan.seconds,
            "replicas": self.plan.replicas,
            "machine": _machine(),
            "code": _code(),
        }
        try:
            report |= await self._attack()
        except Exception as error:  # whatever broke it is the report's first finding
            report |= {"findings": [f"the run broke: {error!r}"], "trace": traceback.format_exc()}
        if report["code"] != _code():  # processes start all the time: some ran the old code, some the new
            report["findings"].insert(0, "the code was changed while the run went on: what it found counts for nothing")
        report["clean"] = not report["findings"]
        report["notes"] = self._notes
        if report["clean"] and not self._keep:
            shutil.rmtree(self.folder)
        else:
            report["folder"] = str(self.folder)
            (self.folder / "report.json").write_text(json.dumps(report, indent=1))
        return report

    async def _attack(self) -> dict[str, Any]:
        plan = self.plan
        async with AsyncExitStack() as undo:
            servers = Servers(self.folder / "nats", plan.replicas)
            undo.push_async_callback(asyncio.to_thread, servers.stop)
            await asyncio.to_thread(servers.start)
            network = Network(servers.ports)
            undo.callback(network.close)
            given = {"MESH_REPLICAS": plan.replicas, "CHAOS_SEED": plan.seed, "CHAOS_PACE_S": plan.pace_s}
            given |= {"CHAOS_SLOTS": SLOTS, "CHAOS_SNAPSHOT_FRAMES": SNAPSHOT_FRAMES}
            clocks = Clocks(self.folder / "clocks")
            fleet = Fleet(self.folder, self._history, network, clocks, {name: str(value) for name, value in given.items()})
            undo.callback(fleet.kill)
            await fleet.start()
            audit = await Audit.open(servers.url)
            undo.push_async_callback(audit.close)
            await audit.start()
            background = [asyncio.create_task(fleet.watch()), asyncio.create_task(audit.sample())]
            undo.callback(lambda: [task.cancel() for task in background])
            faults = Faults(
                fleet, network, clocks, servers, self._history, plan.seed, LEASES_S[plan.replicas], lambda died: self._compare(audit, died)
            )
            if servers.small_disk is None:
                self._notes.append("disk full: not possible here, a small disk can't be mounted")
            if clocks.why_not:
                self._notes.append(f"clock jump: not possible here, {clocks.why_not}")
            began = time.monotonic()
            await faults.run(plan.seconds)
            self._history.say("calm", after_s=time.monotonic() - began)
            tail = await self._come_to_rest(fleet, audit)
            past = await asyncio.to_thread(servers.direct_routes)
            assert not past, f"no partition counts, servers reach one another past the proxies: {past}"
            agreed = await audit.agreed()
            await self._compare(audit, time.monotonic())
            background[0].cancel()
            codes = await fleet.end()
            return self._judge(audit, tail, agreed, codes)

    async def _compare(self, audit: Audit, before: float) -> None:
        """What was acknowledged before this moment must be there."""
        lines = [line for line in read(self.folder / "history") if line.what == "ack" and line.at < before]
        compared, wrong = await audit.compare(lines)
        self._compared += compared
        self._history.say("compared", compared=compared, wrong=wrong)

    async def _come_to_rest(self, fleet: Fleet, audit: Audit) -> list[tuple[str, float | None]]:
        """Until everything that was acknowledged has ended; then how long new work takes, by client."""
        began = time.monotonic()
        asking = [asyncio.create_task(fleet.ask(name, "stop", SETTLE_S)) for name in CLIENTS]
        starts = [line.fields["requested"] for line in read(self.folder / "history") if line.what == "start"]
        await audit.settled(starts, SETTLE_S)
        quiet = await asyncio.gather(*asking)
        self._history.say("rest", after_s=time.monotonic() - began, quiet=quiet)
        self._waiting = [name for name, said in zip(CLIENTS, quiet, strict=True) if said is None]
        tails = await asyncio.gather(*[fleet.ask(name, "tail", TAIL_S) for name in CLIENTS])
        return [(name, float(tail.split()[1]) if tail else None) for name, tail in zip(CLIENTS, tails, strict=True)]

    def _judge(self, audit: Audit, tail: list[tuple[str, float | None]], agreed: bool, codes: dict[str, int | None]) -> dict[str, Any]:
        lines = read(self.folder / "history")
        audit.write(self.folder / "journal.txt")
        checks = Checks(lines, audit, SLOTS)
        ledger = checks.all()
        for name, took in tail:
            ledger.check("tail", took is not None, f"{name} could not run new work within {TAIL_S:g} s")
        for name in self._waiting:
            ledger.check("result", False, f"{name} still waits for a result, {SETTLE_S:g} s after the faults")
        ledger.check("state", agreed, "the schedulers do not agree at the end")
        for line in lines:
            if line.what == "compared":
                for text in line.fields["wrong"]:
                    ledger.check("stored", False, text, line.at)
        self._note_ends(lines, codes)
        rest = next(line.fields["after_s"] for line in lines if line.what == "rest")
        figures = {"at rest after s": round(rest, 1), "tail s": [took for _, took in tail], "compared in streams": self._compared}
        return ledger.summary() | {"figures": checks.figures() | figures}

    def _note_ends(self, lines: list[Any], codes: dict[str, int | None]) -> None:
        """Processes that ended of their own accord, or not as a SIGTERM should end them."""
        for line in lines:
            if line.what in ("exit", "ended") and line.fields["code"] != 0:
                said = " | ".join(Path(line.fields["log"]).read_text(errors="replace").splitlines()[-LOG_LINES:])
                how = "after a SIGTERM" if line.what == "ended" else "by itself"
                self._notes.append(f"{line.fields['name']} ended {how} with {line.fields['code']}: {said[-400:]}")
        bare = [line.fields["error"] for line in lines if line.what == "bare"]
        self._notes += [f"an error of the transport reached a user {len(bare)} times: {bare[0]}"] if bare else []
        self._notes += [f"{name} ended with {code} at the end" for name, code in codes.items() if code != 0]


def _code() -> str:
    """Digest of the code under test."""
    found = blake2b(digest_size=6)
    for folder in (ROOT / "mesh", ROOT / "sdk"):
        for file in sorted(folder.rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()


def _machine() -> str:
    return f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
