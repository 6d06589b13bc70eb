"""`python -m tests.simulation 0-200`: simulate seeds, say which promises break, and how to see it again.

`--trace` tells everything that happens in a seed; `--twice` runs each seed a second time and compares every journaled byte.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import time
from collections import Counter

from tests.simulation.verdict import Verdict
from tests.simulation.world import World


def main() -> int:
    """Run as a program; the number of broken seeds, at most 1."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    arguments = _arguments()
    handler = logging.StreamHandler() if arguments.log else logging.NullHandler()
    logging.basicConfig(level=logging.INFO if arguments.log else logging.ERROR, format="%(name)s %(message)s", handlers=[handler])
    gc.freeze()  # what is loaded by now stays: it needn't be looked through after every seed
    began, broken, count = time.perf_counter(), [], 0
    struck: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for seed in _seeds(arguments.seeds):
        verdict = World(seed, print if arguments.trace else None, arguments.known).run()
        count += 1
        struck += verdict.struck
        seen += verdict.seen
        if verdict.good and arguments.twice:
            _compare(verdict, arguments.known)
        if arguments.trace or arguments.each or not verdict.good:
            print(verdict)
        if not verdict.good:
            broken.append(seed)
            _tell(verdict)
            if arguments.stop:
                break
    for what, counted in (("seen", seen), ("struck", struck)):
        print(f"{what}: " + ", ".join(f"{kind} {times}" for kind, times in counted.most_common()))
    seconds = time.perf_counter() - began
    print(f"{count} seeds, {len(broken)} broken{f': {broken}' if broken else ''}; {seconds:.1f} s, {count / seconds:.2f} seeds/s")
    return int(bool(broken))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="?", default="0-200", help="a seed, or a range FROM-TO (TO not included)")
    parser.add_argument("--trace", action="store_true", help="tell everything that happens")
    parser.add_argument("--log", action="store_true", help="with the log lines of the mesh itself")
    parser.add_argument("--each", action="store_true", help="a line for every seed")
    parser.add_argument("--twice", action="store_true", help="run each seed again and compare")
    parser.add_argument("--stop", action="store_true", help="stop at the first broken seed")
    parser.add_argument("--known", default="", help="a pattern: broken promises that match it are known and do not end a seed")
    return parser.parse_args()


def _seeds(text: str) -> range:
    first, dash, end = text.partition("-")
    return range(int(first), int(end)) if dash else range(int(first), int(first) + 1)


def _compare(verdict: Verdict, known: str) -> None:
    again = World(verdict.seed, None, known).run()
    if (again.journal, again.handled) != (verdict.journal, verdict.handled):
        verdict.failures.append(f"the second time it went another way: {again}")


def _tell(verdict: Verdict) -> None:
    print(f"  {verdict.plan}")
    for line in verdict.tail:
        print(f"  {line}")
    for failure in verdict.failures[:5]:
        print(f"  >> {failure}")
    print(f"  again: python -m tests.simulation {verdict.seed} --trace --log")


if __name__ == "__main__":
    sys.exit(main())
