from __future__ import annotations

from collections import Counter
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from mesh.demo.picture import AWAY, FOLLOWS, KILLED, LEADS, WORKS, Picture
from mesh.demo.processes import Process
from mesh.demo.screen import LiveScreen, PlainScreen, make_screen
from mesh_sdk import RunInfo, StepInfo, WorkerInfo


def process(name: str, killed: bool = False) -> Process:
    popen: Any = SimpleNamespace(pid=12345)
    return Process(name, 9000, popen, Path("unused"), id=name, killed=killed)


def picture() -> Picture:
    made = Picture(Counter({"multiprocessing": 23, "asyncio": 1}))
    made.processes = [process("scheduler-1", killed=True), process("scheduler-2"), process("worker-1"), process("worker-2")]
    made.roles = {"scheduler-1": AWAY, "scheduler-2": LEADS}
    made.see_workers([WorkerInfo(id="worker-1", slots=4, used=1, running=2)])
    step = StepInfo(status="succeeded", worker="worker-1")
    made.see_runs(
        [
            RunInfo(run_id="1", workflow="w", status="succeeded", steps={"a": step, "b": step}, metadata={"package": "asyncio"}),
            RunInfo(run_id="2", workflow="w", status="running", steps={"a": step}, metadata={"package": "multiprocessing"}),
        ]
    )
    return made


def test_the_picture_adds_up():
    seen = picture()
    assert (seen.files_done, seen.files_total, seen.steps["worker-1"], seen.used["worker-1"]) == (1, 24, 3, 2)
    assert [seen.state_of(each) for each in seen.processes] == [KILLED, LEADS, WORKS, AWAY]
    assert seen.leader is seen.processes[1]
    seen.roles["scheduler-2"] = FOLLOWS
    assert seen.leader is None


def test_the_live_table_fits_an_ordinary_terminal():
    console = Console(file=StringIO(), width=80, height=24, force_terminal=True, color_system=None, legacy_windows=False)
    screen = make_screen(console, picture())
    assert isinstance(screen, LiveScreen)
    with screen:
        screen.say("something happened")
    text = console.file.getvalue()
    for whole in ("something happened", "scheduler-1 12345 killed", "■■□□", "multiprocessing", "0/23", "1/1 ", "1/24 files, 1/2 packages"):
        assert whole in text, whole
    assert "…" not in text


def test_a_pipe_gets_plain_lines():
    console = Console(file=StringIO(), width=40)
    screen = make_screen(console, picture())
    assert isinstance(screen, PlainScreen)
    with screen:
        screen.say("one line, however long it may be, is never wrapped", "bold red")
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("s  one line, however long it may be, is never wrapped")
