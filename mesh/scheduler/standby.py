"""Answers questions about this scheduler, whether it leads or follows: `control.scheduler-<id>`, and all of them at once."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mesh.core.image import digest
from mesh.scheduler.follower import Follower
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Subscription

ALL = "schedulers"


class Standby:
    """Answers `{"ask": "digest"}` while this scheduler follows, and a plain ping always."""

    def __init__(self, bus: Bus, subjects: Subjects, id: str, follower: Follower, leading: Callable[[], bool]) -> None:
        self._bus = bus
        self._subjects = subjects
        self._id = id
        self._follower = follower
        self._leading = leading
        self._subscriptions: list[Subscription] = []

    async def __aenter__(self) -> Standby:
        for name in (f"scheduler-{self._id}", ALL):
            self._subscriptions.append(await self._bus.subscribe(self._subjects.control(name), self._hear))
        return self

    async def __aexit__(self, *error: object) -> None:
        for subscription in self._subscriptions:
            await subscription.close()

    def _hear(self, subject: str, reply: str, data: bytes) -> None:
        if not reply:
            return
        answer: dict[str, object] = {"scheduler": self._id, "leads": self._leading(), "sequence": self._follower.sequence}
        if not self._leading() and b"digest" in data:
            answer["digest"] = digest(self._follower.state)
        self._bus.publish(reply, msgspec.json.encode(answer))
