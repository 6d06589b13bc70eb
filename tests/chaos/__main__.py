"""`python -m tests.chaos SEED SECONDS REPLICAS`: one chaos run, its report on standard output, its folder kept."""

from __future__ import annotations

import asyncio
import json
import sys

from tests.chaos.run import ChaosRun, Plan


def main() -> None:
    seed, seconds, replicas = (int(text) for text in sys.argv[1:4])
    report = asyncio.run(ChaosRun(Plan(seed, seconds, replicas), keep=True).run())
    json.dump(report, sys.stdout, indent=1)
    print()
    sys.exit(not report["clean"])


if __name__ == "__main__":
    main()
