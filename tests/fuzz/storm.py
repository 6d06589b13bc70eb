"""What a stranger with a connection may send, to every subject there is: broken, forged, replayed, too large, in any order.

Drawn from a seed. Rule: nothing here could pass for real work, so whatever is executed afterwards was started by somebody else.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.beats import LeaderBeat, WorkerBeat
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.records import NULL, VERSION
from mesh_sdk.protocol.subjects import PRIORITIES, Subjects
from tests.fuzz.strangers import BAD_RECORDS, TOKENS, broken, random_bytes

RUN = "0" * 32
CALLS = ("runs.get", "runs.list", "results", "started", "workers.list", "workers.binding", "workflows.get", "no.such.call", "none")
NO_EVENTS = (b"{not json", b"\xff\xfe", b"[" * 3_000, b'"\xff"', b"", b"9" * 5_000, b"{} {}", b'{"a":NaN}', b"[1,]", b"null!")
ORDERS = ({"ask": "register"}, {"ask": "register", "incarnation": "0"}, {"ask": ["holding"]}, {"ask": "holding"}, {"ask": "digest"}, 7)
TERMS = (0, 1, 7, 2**31, 2**62, -1)
Message = tuple[str, bytes]


class Storm:
    """Makes messages.

    Args:
        seed: of all of them.
        names: of the namespace.
        worker, incarnation, pool: of the worker that is there.
        clients: whose `done` subjects are known.
        replays: messages that were really sent before: (subject, data).
    """

    def __init__(
        self, seed: int, names: Subjects, worker: str, incarnation: str, pool: str, clients: list[str], replays: list[Message]
    ) -> None:
        self.rng = random.Random(seed)
        self.names = names
        self.worker = worker
        self.incarnation = incarnation
        self.pool = pool
        self.clients = clients
        self.replays = replays
        self._stored: list[Callable[[], Message]] = [self._trigger, self._trigger, self._report, self._report, self._event, self._replay]
        self._passing: list[Callable[[], Message]] = [self._worker_beat, self._leader_beat, self._control, self._done, self._push]

    def stored(self) -> Message:
        """For a stream: triggers, reports, events."""
        return self.rng.choice(self._stored)()

    def lane(self) -> Message:
        """For the lanes."""
        lanes = [
            self.names.shared_lane(self.pool), self.names.shared_lane("nobody"), self.names.worker_lane(self.worker, self.incarnation),
            self.names.worker_lane("nobody", "0"),
        ]  # fmt: skip
        orders: list[Any] = [
            wire.Withdraw(RUN, 0, 1, self._word(), "a stranger says so"), wire.Forget(RUN, "moved"),
            wire.Assign(RUN, 0, 1, "forged", "no such workflow", "step", NULL, {}),
        ]  # fmt: skip
        return self.rng.choice(lanes), self._frame([VERSION, self.rng.choice(TERMS)], orders)

    def passing(self) -> Message:
        """For a core subject: nobody keeps it."""
        return self.rng.choice(self._passing)()

    def bucket(self) -> tuple[str, str, bytes]:
        """(bucket, key, value): presence and slots of workers that there are and are not."""
        bucket = self.rng.choice([self.names.workers_bucket, self.names.slots_bucket])
        return bucket, self.rng.choice([self.worker, "nobody", "a.b"]), self._junk()

    def question(self) -> tuple[str, bytes]:
        """(call, body) for the API."""
        call = self.rng.choice(CALLS)
        bodies = [
            {"run_id": self._word()}, {"limit": -1}, {"limit": 10**9}, {"runs": [self._word()] * 50}, {"requested": ""}, {"name": "\x00"},
            {"worker": "*", "workflow": ">"}, {"since": 10**15}, {"until": -(10**15)}, {"after": "\ue000" * 500}, {"metadata": {"a": "b"}},
        ]  # fmt: skip
        return call, self.rng.choice([self._junk(), encode(self.rng.choice(bodies))])

    # ---- streams ------------------------------------------------------------------------------------------------------------

    def _trigger(self) -> Message:
        subject = self.rng.choice([*map(self.names.trigger, PRIORITIES), self.names.trigger_control])
        starts: list[Any] = [
            wire.Start(self._word(), "nobody registers this", NULL, priority=self._number()),
            wire.Start("not a run id", "once", NULL, delay_ms=self._number()),
            wire.Start(RUN, "once", NULL, delay_ms=2**62),
            wire.Start(RUN, "once", NULL, worker="a worker of an unsticky workflow"),
            wire.Cancel(self._word(), "a stranger says so"),
        ]
        return subject, self._frame([VERSION, self._word()], starts)

    def _report(self) -> Message:
        ids = (self.rng.choice([RUN, self._word()]), self._number(), self._number(), self._word())
        failed = wire.Failed(*ids, wire.StepError("E", "forged"), retry=self._number())
        full = wire.Register("forged", 10**9, [], {}, "c")
        reports: list[Any] = [
            wire.Accepted(*ids), wire.Finished(*ids, NULL), failed, wire.Returned(*ids, "redelivered"), wire.Lent(*ids), wire.Resumed(*ids),
            wire.Refresh(*ids, self._number()), wire.Holding([ids, ids]), wire.Spawn(*ids, "p", "d", self._word(), "once", NULL), full,
            wire.Draining(), wire.Left(),
        ]  # fmt: skip
        known = self.rng.random() < 0.5
        sender = [self.worker if known else self._word(), "0" if known else self._word()]
        if self.rng.random() < 0.3:
            sender, reports = [self.worker, self.incarnation], reports[:9]  # forged well, without the token
        return self.names.report, self._frame([VERSION, *sender], reports)

    def _event(self) -> Message:
        name = self.rng.choice(["user:create", "user:other", "nobody.listens", "größe", "a.b.c.d.e.f"])
        valid = name not in ("user:create", "user:other")
        return self.names.event(name), b"{}" if valid and self.rng.random() < 0.5 else self.rng.choice(NO_EVENTS)

    def _replay(self) -> Message:
        return self.rng.choice(self.replays)

    # ---- core subjects --------------------------------------------------------------------------------------------------------

    def _worker_beat(self) -> Message:
        worker = self.rng.choice([self.worker, "nobody", "a b", "*", ">", "", "w" * 6_000, "w\r\nPUB x 0\r\n", "größe"])
        incarnation = self.rng.choice([self.incarnation, "", "zzzz", "0", "ff" * 9])
        beat = WorkerBeat(VERSION, worker, incarnation, "n", self._number(), self._number(), self._number(), self._number(), self._number())
        return self.names.worker_beat(self.rng.choice([self.worker, "x"])), self._whole(beat)

    def _leader_beat(self) -> Message:
        """None that resigns: that is an order to take over, and `test_strangers` gives it."""
        data = self._whole(LeaderBeat(VERSION, self._word(), self.rng.choice(TERMS), self._number()))
        return self.names.leader_beat, data.replace(b"true", b"false")

    def _control(self) -> Message:
        subject = self.rng.choice([self.names.control(self.worker), self.names.control_all, self.names.control("schedulers")])
        return subject, self.rng.choice([self._junk(), json.dumps(self.rng.choice(ORDERS)).encode()])

    def _done(self) -> Message:
        notices: list[Any] = [
            wire.Done(RUN, "succeeded", NULL), wire.Done(self._word(), self._word(), NULL), wire.Started(RUN, self._word()),
            wire.Registered(self.worker, "0", "a stranger says so"), wire.Registered("nobody", self.incarnation, "so"),
        ]  # fmt: skip
        subject = self.rng.choice([*map(self.names.done, self.clients), self.names.live(RUN)])
        return subject, self._frame([VERSION, self.rng.choice(TERMS)], notices)

    def _push(self) -> Message:
        """What only the server republishes: without its headers nobody may take it."""
        return self.names.worker_push(self.worker, self.incarnation), self.lane()[1]

    # ---- bytes ----------------------------------------------------------------------------------------------------------------

    def _frame(self, head: list[Any], good: list[Any]) -> bytes:
        """A frame: as it should be, of another version, among bad records, broken, or nothing of the kind."""
        records = [encode(record) for record in self.rng.sample(good, self.rng.randint(1, 3))]
        way = self.rng.randrange(6)
        if way == 0:
            head = [self.rng.choice([0, 2, 10**30, "1", None]), *head[1:]]
        elif way <= 2:
            records += self.rng.sample(BAD_RECORDS, self.rng.randint(1, 3))
            self.rng.shuffle(records)
        data = encode(head)[:-1] + b",[" + b",".join(records) + b"]]"
        return broken(self.rng, data) if way == 3 else self._junk() if way == 4 else data

    def _whole(self, beat: Any) -> bytes:
        data = encode(beat)
        return self.rng.choice([data, data, broken(self.rng, data), self._junk()])

    def _junk(self) -> bytes:
        return self.rng.choice([random_bytes(self.rng), self.rng.choice(TOKENS), self.rng.choice(BAD_RECORDS), b""])

    def _word(self) -> str:
        return self.rng.choice(["", "x", RUN, self.rng.randbytes(16).hex(), "\x00", "größe", "*", "w" * 2_000])

    def _number(self) -> int:
        return self.rng.choice([0, 1, -1, 5, 2**31, 2**53, -(2**62), 2**62])
