"""Shows the demo: a live table on a terminal, plain lines anywhere else.

Rule: shows a picture and tells what happened; decides nothing.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.align import Align
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mesh.demo.picture import AWAY, FOLLOWS, KILLED, LEADS, WORKS, Picture
from mesh.demo.processes import Process

FRAMES_PER_S = 8
PACKAGES_SHOWN = 8
BAR_CHARACTERS = 10
_COLOURS = {LEADS: "bold green", WORKS: "green", FOLLOWS: "cyan", KILLED: "bold red", AWAY: "yellow"}


class Screen(Protocol):
    """Where the demo is shown."""

    def say(self, text: str, style: str = "") -> None:
        """Tell that something happened, with the time."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class LiveScreen:
    """A table that is drawn again and again below what was said.

    Args:
        console: a terminal.
        picture: what to draw.
    """

    def __init__(self, console: Console, picture: Picture) -> None:
        self._console = console
        self._picture = picture
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=FRAMES_PER_S, transient=False)

    def say(self, text: str, style: str = "") -> None:
        """Tell that something happened, with the time."""
        self._console.print(_line(self._picture, text, style))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def _draw(self) -> RenderableType:
        side_by_side = Table.grid(padding=(0, 2))
        side_by_side.add_row(_processes(self._picture), _packages(self._picture))
        return Panel(Group(side_by_side, Text(), _progress(self._picture)), title="mesh demo", title_align="left", border_style="dim")


class PlainScreen:
    """Lines: each tenth of the work, and what happened.

    Args:
        console: a file or a pipe.
        picture: what to tell of.
    """

    def __init__(self, console: Console, picture: Picture) -> None:
        self._console = console
        self._picture = picture

    def say(self, text: str, style: str = "") -> None:
        """Tell that something happened, with the time."""
        self._console.print(_line(self._picture, text, style), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is held."""


def make_screen(console: Console, picture: Picture) -> Screen:
    """The screen that suits the console."""
    return LiveScreen(console, picture) if console.is_terminal else PlainScreen(console, picture)


def _line(picture: Picture, text: str, style: str) -> Text:
    return Text.assemble((f"{picture.elapsed:6.1f} s  ", "dim"), (text, style))


def _processes(picture: Picture) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    for heading in ("process", "pid", "", "slots"):
        table.add_column(heading, no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    for process in picture.processes:
        state = picture.state_of(process)
        worker = process.name.startswith("worker")
        table.add_row(
            Text(process.name, "strike dim" if process.killed else ""),
            Text(str(process.pid), "dim"),
            Text(state, _COLOURS[state]),
            _slots(picture, process) if worker and not process.killed else Text(),
            f"{picture.steps[process.name]:,}" if worker else "",
        )
    return table


def _slots(picture: Picture, process: Process) -> Text:
    slots, used = picture.slots.get(process.name, 0), picture.used.get(process.name, 0)
    return Text("■" * used, "green") + Text("□" * (slots - used), "dim")


def _packages(picture: Picture) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    table.add_column("package", no_wrap=True)
    table.add_column("files", width=BAR_CHARACTERS)
    table.add_column("", justify="right", no_wrap=True)
    for name, files in picture.files.most_common(PACKAGES_SHOWN):
        done = picture.done[name]
        table.add_row(name, _bar(files, done, BAR_CHARACTERS), Text(f"{done}/{files}", "green" if done == files else ""))
    return table


def _progress(picture: Picture) -> RenderableType:
    complete = sum(picture.done[name] == files for name, files in picture.files.items())
    table = Table.grid(padding=(0, 1))
    table.add_row(
        Text(f"{picture.elapsed:5.1f} s"),
        _bar(picture.files_total, picture.files_done, 30),
        Text(f"{picture.files_done}/{picture.files_total} files, {complete}/{len(picture.files)} packages"),
    )
    return Align.left(table)


def _bar(total: int, done: int, width: int) -> ProgressBar:
    return ProgressBar(total=max(1, total), completed=done, width=width, complete_style="green", finished_style="bold green")
