"""What a seed decides before anything happens: how large the mesh is, and how hard it is treated.

Rule: everything that differs between seeds stands here or is drawn from the seed by whoever does it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """One seed's circumstances."""

    lone: bool
    """One server, whose restarts lose what is in memory; else a cluster."""
    schedulers: int
    workers: int
    users: int
    slots: tuple[int, ...]
    lanes_bytes_max: int
    live_runs_max: int
    finished_runs_max: int
    snapshot_frames: int
    latency_s: float
    core_loss: float
    ack_loss: float
    trouble_s: float
    """How long faults go on."""
    every_s: float
    """Mean time between two of them."""
    kinds: tuple[str, ...]
    steers_s: float
    """Mean time between two words of an operator to workers; 0: there is none."""


KINDS = (
    "kill scheduler", "kill leader", "kill worker", "kill user", "kill helper", "freeze leader", "freeze scheduler", "freeze worker",
    "freeze user", "block worker", "stop worker", "stop leader", "cut", "slow", "restart server", "stall", "steal lease", "drop lanes",
    "lanes away", "drop consumer", "relabel worker",
)  # fmt: skip


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(f"plan {seed}")
    workers = rng.randint(1, 4)
    calm = rng.random() < 0.1
    return Plan(
        lone=rng.random() < 0.6,
        schedulers=rng.randint(1, 3),
        workers=workers,
        users=rng.randint(1, 3),
        slots=tuple(rng.choice([1, 1, 2, 4]) for _ in range(workers)),
        lanes_bytes_max=rng.choice([20_000, 60_000, 1_000_000, 1_000_000]),
        live_runs_max=rng.choice([3, 10, 1_000]),
        finished_runs_max=rng.choice([5, 30, 1_000]),
        snapshot_frames=rng.choice([20, 100, 1_000]),
        latency_s=rng.choice([0.0003, 0.002, 0.02]),
        core_loss=rng.choice([0.0, 0.0, 0.01, 0.1]),
        ack_loss=rng.choice([0.0, 0.0, 0.01, 0.05]),
        trouble_s=rng.choice([4.0, 8.0, 12.0]),
        every_s=100.0 if calm else rng.choice([0.2, 0.5, 1.0, 2.0]),
        kinds=tuple(rng.sample(KINDS, rng.randint(2, len(KINDS)))),
        steers_s=0.0 if calm else rng.choice([0.0, 0.0, 0.5, 2.0]),
    )
