"""The table of faults × promises in docs/reliability.md, written from the reports that chaos runs leave behind.

`python -m tests.chaos.report` takes every report of `.mesh/chaos` and rewrites what stands between the marks. Rule: no figure of
that part is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos.ledger import PROMISES

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / ".mesh" / "chaos"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
FIGURES = (
    "kills", "pauses", "stops", "cuts", "partitions", "clock jumps", "starts", "steps", "executed to the end more than once",
    "attempts executed twice", "completions lost", "recorded twice",
)  # fmt: skip
"""Columns of the table of runs."""
MORE_FIGURES = ("events", "runs", "acknowledgements", "frames", "terms")

Report = dict[str, Any]


def keep(report: Report, time: int, place: int) -> Path:
    """Write a run's report where the table is made from.

    Args:
        report: of the run.
        time: which of several `make chaos` in a row, from 1 on.
        place: of the run in it.
    """
    REPORTS.mkdir(parents=True, exist_ok=True)
    file = REPORTS / f"{time}-{place}-r{report['replicas']}-{report['seed']}.json"
    file.write_text(json.dumps(report | {"time": time}, indent=1) + "\n")
    return file


def figures(reports: list[Report]) -> str:
    """The generated part of the page."""
    parts = [_covered(reports), _runs(reports), _sums(reports), _table(reports), _notes(reports), _findings(reports)]
    return "\n\n".join(part for part in parts if part)


def _covered(reports: list[Report]) -> str:
    """What the tables are of."""
    times, seeds = {report["time"] for report in reports}, {report["seed"] for report in reports}
    clean = sum(report["clean"] for report in reports)
    same = "all on the same code" if len({report["code"] for report in reports}) == 1 else "**not all on the same code**"
    seconds = sum(report["seconds"] for report in reports)
    machines = " and ".join(sorted({report["machine"] for report in reports}))
    return (
        f"`make chaos` {_times(len(times))}: {len(reports)} runs with {len(seeds)} different seeds, {clean} of them clean, {same}; "
        f"faults for {seconds:,.0f} s in all. On {machines}."
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times in a row"


def _runs(reports: list[Report]) -> str:
    columns = ("time", "seed", "copies", "faults for", *FIGURES, "came to rest after", "new work then took", "promises broken")
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for report in reports:
        own = report.get("figures", {})
        tails = [took for took in own.get("tail s", []) if took is not None]
        broken = sum(promise["broken"] for promise in report.get("promises", {}).values()) if "promises" in report else "the run broke"
        tail = f"{max(tails):.2f} s" if tails else "–"
        rest = f"{own['at rest after s']} s" if own else "–"
        cells = [report["time"], report["seed"], report["replicas"], f"{report['seconds']:g} s"]
        cells += [f"{own[name]:,}" if name in own else "–" for name in FIGURES]
        rows.append("| " + " | ".join(map(str, [*cells, rest, tail, broken])) + " |")
    sums = _summed(reports, FIGURES)
    rows.append("| **all** | | | | " + " | ".join(f"**{sums[name]:,}**" for name in FIGURES) + " | | | |")
    return "\n".join(rows)


def _sums(reports: list[Report]) -> str:
    sums = _summed(reports, MORE_FIGURES)
    return "All together, besides: " + ", ".join(f"{name} {sums[name]:,}" for name in MORE_FIGURES) + "."


def _summed(reports: list[Report], names: tuple[str, ...]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for report in reports:
        sums.update({name: report.get("figures", {}).get(name, 0) for name in names})
    return sums


def _table(reports: list[Report]) -> str:
    """Rows are kinds of faults, columns promises; a cell is how much was checked while such a fault was in force."""
    times: Counter[str] = Counter()
    checked: Counter[tuple[str, str]] = Counter()
    broken: Counter[tuple[str, str]] = Counter()
    for report in reports:
        for kind, found in report.get("faults", {}).items():
            times[kind] += found["times"]
            for promise, counts in found["promises"].items():
                checked[kind, promise] += counts["checked"]
                broken[kind, promise] += counts["broken"]
        for promise, counts in report.get("promises", {}).items():
            checked["", promise] += counts["checked"]
            broken["", promise] += counts["broken"]
    columns = [promise for promise in PROMISES if promise != "tail"]
    rows = ["| fault | times | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for kind in [*sorted(times), ""]:
        cells = [_cell(checked[kind, promise], broken[kind, promise]) for promise in columns]
        rows.append(f"| {kind or '**whole runs**'} | {times[kind] if kind else times.total()} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(checked: int, broken: int) -> str:
    return f"{checked:,}" if not broken else f"{checked:,}, **{broken} broken**"


def _notes(reports: list[Report]) -> str:
    """What could not be attacked on this machine."""
    lines = sorted({note for report in reports for note in report.get("notes", []) if "not possible here" in note})
    return "Left out: " + "; ".join(lines) + "." if lines else ""


def _findings(reports: list[Report]) -> str:
    lines = [f"- seed {report['seed']}, {report['replicas']} copies: {text}" for report in reports for text in report["findings"][:5]]
    return "What was broken:\n\n" + "\n".join(lines) if lines else ""


def write(page: Path = PAGE, files: list[Path] | None = None) -> None:
    """Rewrite the generated part of the page."""
    reports = [json.loads(file.read_text()) for file in sorted(files if files is not None else REPORTS.glob("*.json"))]
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{figures(reports)}\n\n{END}{after}")


if __name__ == "__main__":
    write(files=[Path(name) for name in sys.argv[1:]] or None)
