"""`make flow`: what docs/flow-control.md promises, on real processes and under kills of the leader. Ends with 1 if anything does not hold.

Rule: each show prints what was measured, and each of its claims with ✓ or ✗.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.faults.flow_fleet import Show
from tests.faults.flow_groups import bursts, max_runs
from tests.faults.flow_order import FLOOD, OTHERS, Served, ageing, fairness, urgent
from tests.faults.flow_placement import affinity
from tests.faults.flow_rates import rate
from tests.longlife.curves import draw
from tests.longlife.sampling import Curve

PICTURE = "flow-fairness.svg"


def _counted(name: str, moments: list[float]) -> Curve:
    """How many had begun, over time."""
    return Curve(name, [(0.0, 0.0), *((at, float(count)) for count, at in enumerate(sorted(moments), 1))])


def picture(file: Path, found: dict[str, Served]) -> None:
    """Runs of the keys with short queues: how many have begun, over time."""
    turns, fifo = found["turns"], found["FIFO"]
    curves = [
        _counted(f"turns, ideal ({statistics.fmean(turns.ideal):.2f} s)", turns.ideal),
        _counted(f"turns ({statistics.fmean(turns.others):.2f} s)", turns.others),
        _counted(f"FIFO ({statistics.fmean(fifo.others):.2f} s)", fifo.others),
    ]
    title = f"Runs of {OTHERS[0]} to {OTHERS[-1]} that have begun, behind {len(turns.begun[FLOOD]):,} of {FLOOD} (mean wait)"
    draw(file, title, "runs", curves)


async def turns(folder: Path, pictures: Path | None) -> Show:
    """See `fairness`; with its picture."""
    show, found = await fairness(folder)
    if pictures is not None:
        picture(pictures / PICTURE, found)
    return show


def main() -> int:
    """Run as a program."""
    shows: dict[str, Callable[[Path], Awaitable[Show]]] = {
        "max_runs": max_runs,
        "bursts": bursts,
        "rate": rate,
        "turns": lambda folder: turns(folder, given.pictures),
        "urgent": urgent,
        "ageing": ageing,
        "affinity": affinity,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", metavar="SHOW", help=f"some of {', '.join(shows)}; all unless given")
    parser.add_argument("--pictures", type=Path, help="the folder for the picture")
    given = parser.parse_args()
    if unknown := set(given.only) - shows.keys():
        parser.error(f"no such show: {', '.join(sorted(unknown))}")
    logging.basicConfig(level=logging.ERROR)  # that nobody leads for a moment is meant to be
    wrong = 0
    for name in given.only or shows:
        with tempfile.TemporaryDirectory(prefix="flow") as folder:
            show = asyncio.run(shows[name](Path(folder)))
        print(f"{show}\n", flush=True)
        wrong += len(show.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
