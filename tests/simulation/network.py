"""Chance between processes and server: how long bytes take, what is lost on the way.

Rule: a connection keeps its order, as TCP does; only whole connections lose what is under way. What a server may drop by
its own rules (core messages, an acknowledgement while a stream changes its leader) is dropped here.
"""

from __future__ import annotations

import asyncio
import random

SAME_MOMENT_S = 1e-7
"""Between two things that happen in order."""


class Line:
    """What leaves in order: when the last of it did."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = 0.0


class Network:
    """See the module.

    Args:
        loop: whose time it is.
        rng: from the seed.

    Attributes:
        latency_s: usual time of a message from a client to the server or back.
        core_loss: how many of the core messages of the mesh are lost.
        ack_loss: how many acknowledgements of stored messages are.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.latency_s = 0.0003
        self.core_loss = 0.0
        self.ack_loss = 0.0

    def latency(self) -> float:
        """Seconds on the wire."""
        return self.latency_s * (0.2 + self.rng.expovariate(1.0))

    def tick(self) -> float:
        """Seconds that the server takes for something."""
        return 0.0005 * self.rng.expovariate(1.0)

    def loses_core(self, subject: str) -> bool:
        """Whether a core message is lost. Questions and answers are not: whoever asks has a timeout, which is rare enough."""
        return self.core_loss > 0 and not subject.startswith("_INBOX") and self.rng.random() < self.core_loss

    def loses_ack(self) -> bool:
        """Whether nobody hears that a message was stored."""
        return self.ack_loss > 0 and self.rng.random() < self.ack_loss
