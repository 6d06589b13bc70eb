"""What `mesh runs` and `mesh workers` put on the screen about sticky runs and about waiting."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from mesh.cli import runs, workers
from mesh.cli.app import run as mesh_command
from mesh.cli.output import moment
from mesh_sdk.reads import RunInfo, RunList, StepInfo, Wait, WorkerInfo

SINCE = datetime(2025, 1, 31, 10, tzinfo=UTC)
UNTIL = datetime(2025, 1, 31, 10, 5, tzinfo=UTC)
WAIT = Wait(kind="worker", cause="worker w-3 is away", step="b", worker="w-3", since=SINCE, until=UNTIL, then="given up")
RUN = RunInfo(
    run_id="0" * 32,
    workflow="chain",
    status="waiting",
    steps={"b": StepInfo(status="queued")},
    sticky="HARD",
    worker="w-3",
    waiting="waiting: worker w-3 is away (since …)",
    wait=WAIT,
)


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: Any, answer: Any, *arguments: str) -> list[str]:
    monkeypatch.setattr(module, "ask", lambda where, question: answer)
    assert mesh_command([*arguments, "--url", "nats://127.0.0.1:1"]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("run", "lines"),
    [
        (RUN, ["reason waiting: worker w-3 is away", "waiting step b", "sticky HARD, bound to w-3"]),
        (replace(RUN, worker=None), ["sticky HARD, not bound yet"]),
        (replace(RUN, sticky="SOFT", moves=1), ["sticky SOFT, bound to w-3, moved once"]),
        (replace(RUN, sticky="SOFT", moves=3), ["sticky SOFT, bound to w-3, moved 3 times"]),
        (
            replace(RUN, wait=replace(WAIT, then="moves to another worker")),
            [f"waiting until {moment(UNTIL)}, then it moves to another worker"],
        ),
        (RUN, [f"waiting since {moment(SINCE)}", f"waiting until {moment(UNTIL)}, then it is given up"]),
        (replace(RUN, wait=None), ["reason waiting: worker w-3 is away (since …)"]),
    ],
)
def test_a_run_says_where_it_is_bound_and_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: RunInfo, lines: list[str]
) -> None:
    told = [re.sub(r"\s+", " ", line) for line in shown(monkeypatch, capsys, runs, run, "runs", "show", run.run_id)]
    for line in lines:
        assert line in told


def test_a_run_that_neither_waits_nor_sticks_says_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = RunInfo(run_id="0" * 32, workflow="chain", status="running")
    told = "\n".join(shown(monkeypatch, capsys, runs, plain, "runs", "show", plain.run_id))
    assert "sticky" not in told
    assert "waiting" not in told
    assert "reason" not in told


def test_lists_are_short(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    delayed = replace(RUN, waiting="waiting: starts at 10:05", wait=replace(WAIT, kind="delay", cause="its start is delayed"))
    told = shown(monkeypatch, capsys, runs, RunList([RUN, delayed], None), "runs", "list")
    assert told[1].rstrip().endswith("  worker w-3 is away")
    assert told[2].rstrip().endswith("  waiting: starts at 10:05")
    told = shown(
        monkeypatch, capsys, workers, [WorkerInfo(id="w-3", name="n", slots=5, used=2, bound=7, state="active")], "workers", "list"
    )
    assert told[0].split()[:6] == ["WORKER", "NAME", "POOL", "SLOTS", "BOUND", "STATE"]
    assert told[1].split() == ["w-3", "n", "2/5", "7", "active", "0"]
