"""`python bench/core.py`: microseconds of the pure core a one-step run, by phase, without IO."""

from __future__ import annotations

import gc
import itertools
import sys
import time

from msgspec import Raw

from mesh.core.core import Core
from mesh.core.effects import Teller
from mesh.core.inputs import SELF, Sender, TermBegan
from mesh.core.records import JOURNAL_VERSION, JournalFrame
from mesh.core.state import State
from mesh.scheduler.journal import encode_frame
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.codec import encode, report_frames, trigger_frames
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition

FRAME = 100


def main(runs: int) -> None:
    state = State(10_000)
    tokens = itertools.count()
    core = Core(state, lambda: f"{next(tokens):016x}")
    teller = Teller(state)
    core.begin(1_700_000_000_000)
    core.decide(TermBegan("me"), SELF)
    worker = Sender("w1", "0001")
    core.decide(wire.Register("w1", FRAME, [WorkflowDefinition("one", [StepDefinition("one")])], {}, "c"), worker)
    core.take()
    spent = dict.fromkeys(
        ("decode starts", "start", "effects", "encode", "lanes", "decode reports", "finish", "effects 2", "encode 2", "done"), 0.0
    )
    clock = time.perf_counter
    client = Sender("client", "", 0, 1)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    for number in range(runs // FRAME):
        ids = [f"{1_700_000_000_000:012x}{number * FRAME + i:020x}" for i in range(FRAME)]
        starts = encode(wire.TriggerFrame(1, "client", [wire.Start(id, "one", Raw(b'{"p":"' + b"x" * 256 + b'"}')) for id in ids]))
        t0 = clock()
        frame, _ = trigger_frames.decode(starts)
        t1 = clock()
        for record in frame.records:
            core.decide(record, client)
        records = core.take()
        t2 = clock()
        effects = teller.tell(records)
        t3 = clock()
        encode_frame(JournalFrame(JOURNAL_VERSION, 1, state.now, {"start1": [number, 0]}, records))
        t4 = clock()
        orders = [order for lane in effects.shared.values() for order in lane]
        encode(wire.LaneFrame(1, 1, orders))
        t5 = clock()
        reports = encode(
            wire.ReportFrame(1, "w1", "0001", [wire.Finished(o.run, o.step, o.attempt, o.token, Raw(b'{"n":256}')) for o in orders])
        )
        t6 = clock()
        report, _ = report_frames.decode(reports)
        t7 = clock()
        for record in report.records:
            core.decide(record, worker)
        records = core.take()
        t8 = clock()
        effects = teller.tell(records)
        t9 = clock()
        encode_frame(JournalFrame(JOURNAL_VERSION, 1, state.now, {"start1": [number, 0]}, records))
        t10 = clock()
        for notices in effects.notices.values():
            encode(wire.NoticeFrame(1, 1, notices))
        t11 = clock()
        for name, took in zip(
            spent, (t1 - t0, t2 - t1, t3 - t2, t4 - t3, t5 - t4, t7 - t6, t8 - t7, t9 - t8, t10 - t9, t11 - t10), strict=True
        ):
            spent[name] += took
    for name, seconds in spent.items():
        print(f"{name:>16} {seconds / runs * 1e6:6.2f} µs")
    print(f"{'together':>16} {sum(spent.values()) / runs * 1e6:6.2f} µs a run")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
