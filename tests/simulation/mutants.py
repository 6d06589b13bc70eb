"""`python -m tests.simulation.mutants`: takes one rule after the other out of a copy of the mesh; each time some seed must break.

To be run in the root of the repository; words choose mutants by name. They stand in `mutants.json`: file, old text, new
text. Rule: a text that is not found is a failure too, and so is a seed that breaks without the mutant: it proves nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

ROOT = Path.cwd()
LIST = Path(__file__).with_name("mutants.json")
SEEDS_MAX = 400
_BROKEN = re.compile(r"^seed (\d+): BROKEN.*?^  >> (.*?)$", re.MULTILINE | re.DOTALL)


class Mutant(Struct):
    """A rule taken out."""

    name: str
    file: str
    old: str
    new: str


def mutants() -> list[Mutant]:
    """The list."""
    return msgspec.json.decode(LIST.read_bytes(), type=list[Mutant])


def main() -> int:
    """Run as a program; 1 when one of them survives, or can't be made."""
    chosen = [mutant for mutant in mutants() if all(word in mutant.name for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for part in ("mesh", "sdk", "tests"):
            shutil.copytree(ROOT / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
        survivors = [mutant for mutant in chosen if not _caught(mutant, Path(folder))]
    print(f"{len(chosen)} mutants, {len(survivors)} survive")
    return int(bool(survivors))


def _caught(mutant: Mutant, folder: Path) -> bool:
    place = folder / mutant.file
    text = place.read_text()
    if text.count(mutant.old) != 1:
        print(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}, not once")
        return False
    first = 0
    while first < SEEDS_MAX:
        place.write_text(text.replace(mutant.old, mutant.new))
        said = _simulate(folder, f"{first}-{SEEDS_MAX}")
        place.write_text(text)
        broken = _BROKEN.search(said)
        if broken is None:
            break
        if not _BROKEN.search(_simulate(folder, broken[1])):
            print(f"{mutant.name}: caught by seed {broken[1]}: {broken[2]}", flush=True)
            return True
        first = int(broken[1]) + 1
    print(f"{mutant.name}: SURVIVES {SEEDS_MAX} seeds", flush=True)
    return False


def _simulate(folder: Path, seeds: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": f"{folder}:{folder / 'sdk'}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.simulation", seeds, "--stop"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the simulation has ended with {done.returncode}: {done.stderr[-2_000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
