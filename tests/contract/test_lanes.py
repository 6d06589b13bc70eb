"""Lanes: the shared one pulled by demand, the private one in strict order with its gaps filled."""

from __future__ import annotations

import asyncio

from mesh_sdk.transport.bus import Bus, LaneMessage
from tests.contract.conftest import MakeBus, lanes, until
from tests.contract.proxy import Proxy
from tests.contract.servers import Server


class Worker:
    """Holds what it pulls, up to its slots."""

    def __init__(self, bus: Bus, stream: str, slots: int) -> None:
        self.slots = slots
        self.held: list[LaneMessage] = []
        self.got: list[LaneMessage] = []
        self.most = 0
        self.puller = bus.puller(stream, "pool", lambda: self.slots - len(self.held), self._take)

    def _take(self, message: LaneMessage) -> None:
        self.held.append(message)
        self.got.append(message)
        self.most = max(self.most, len(self.held))

    @property
    def numbers(self) -> set[int]:
        return {int(message.data) for message in self.got}

    def finish(self) -> None:
        for message in self.held:
            message.ack()
        self.held.clear()
        self.puller.poke()


async def pool(bus: Bus, name: str, ack_wait_s: float = 30) -> None:
    await bus.ensure_consumer(name, "pool", f"{name}.lane.shared.p", ack_wait_s=ack_wait_s, memory=True)


async def test_never_more_than_demanded(bus: Bus, name: str):
    await bus.ensure_stream(lanes(name))
    await pool(bus, name)
    worker = Worker(bus, name, 5)
    await worker.puller.start()
    for n in range(23):
        await bus.append(f"{name}.lane.shared.p", b"%d" % n)
    done = 0
    while done < 23:
        await until(lambda done=done: len(worker.held) >= min(5, 23 - done))
        done += len(worker.held)
        worker.finish()
    assert [int(message.data) for message in worker.got] == list(range(23))
    assert worker.most <= 5
    assert {message.deliveries for message in worker.got} == {1}
    await worker.puller.close()


async def test_demand_that_was_none_grows(bus: Bus, name: str):
    await bus.ensure_stream(lanes(name))
    await pool(bus, name)
    await bus.append(f"{name}.lane.shared.p", b"1")
    worker = Worker(bus, name, 0)
    await worker.puller.start()
    await bus.request(f"$JS.API.STREAM.INFO.{name}", b"", 5)
    assert worker.got == []
    worker.slots = 1
    worker.puller.poke()
    await until(lambda: len(worker.got) == 1)
    await worker.puller.close()


async def test_what_is_not_acknowledged_comes_again_and_says_so(bus: Bus, name: str):
    await bus.ensure_stream(lanes(name))
    await pool(bus, name, ack_wait_s=0.3)
    await pool(bus, name, ack_wait_s=9)  # left as it is
    await bus.append(f"{name}.lane.shared.p", b"1")
    worker = Worker(bus, name, 2)
    await worker.puller.start()
    await until(lambda: len(worker.got) == 2)
    assert [(message.sequence, message.deliveries) for message in worker.got] == [(1, 1), (1, 2)]
    await worker.puller.close()


async def test_pulling_goes_on_over_cuts_and_deleted_consumers(make_bus: MakeBus, proxy: Proxy, server: Server, name: str):
    other, bus = await make_bus(server.url), await make_bus(proxy.url)
    await other.ensure_stream(lanes(name))
    await pool(other, name, ack_wait_s=0.3)  # what is delivered into the cut comes again after this
    worker = Worker(bus, name, 4)
    await worker.puller.start()
    for n in range(6):
        await other.append(f"{name}.lane.shared.p", b"%d" % n)
        await until(lambda n=n: worker.numbers >= set(range(n + 1)))
        worker.finish()
        if n == 1:
            proxy.cut()
        if n == 3:
            await other.purge(name)
            await other.delete_consumer(name, "pool")
            await pool(other, name, ack_wait_s=0.3)
    assert worker.numbers == set(range(6))
    await worker.puller.close()


async def test_pulling_waits_for_lanes_that_a_restart_has_lost(make_bus: MakeBus, own_server: Server, name: str):
    bus = await make_bus(own_server.url)
    await bus.ensure_stream(lanes(name))
    await pool(bus, name)
    worker = Worker(bus, name, 4)
    await worker.puller.start()
    own_server.kill()
    await until(lambda: not bus.connected)
    own_server.start()
    await until(lambda: bus.connected)
    await bus.ensure_stream(lanes(name))
    await pool(bus, name)
    await bus.append(f"{name}.lane.shared.p", b"1")
    await until(lambda: len(worker.got) == 1)
    await worker.puller.close()


class Follower:
    """Follows the private lane of worker `w`."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.got: list[tuple[int, bytes]] = []
        self.resets = 0
        self.lane = bus.private_lane(name, f"{name}.lane.worker.w", f"{name}.push.w", self._take, self._reset)

    def _take(self, sequence: int, data: bytes) -> None:
        self.got.append((sequence, data))

    def _reset(self) -> None:
        self.resets += 1

    @property
    def numbers(self) -> list[int]:
        return [int(data) for _, data in self.got]


async def test_a_private_lane_begins_with_what_it_holds(bus: Bus, name: str):
    await bus.ensure_stream(lanes(name))
    for n in range(3):
        await bus.append(f"{name}.lane.worker.w", b"%d" % n)
        await bus.append(f"{name}.lane.worker.other", b"99")
    follower = Follower(bus, name)
    await follower.lane.start()
    assert follower.got == [(1, b"0"), (3, b"1"), (5, b"2")]
    await bus.append(f"{name}.lane.worker.w", b"3")
    await until(lambda: follower.numbers == [0, 1, 2, 3])
    assert follower.resets == 0
    await follower.lane.close()


async def test_it_goes_on_after_a_purge(bus: Bus, name: str):
    await bus.ensure_stream(lanes(name))
    follower = Follower(bus, name)
    await follower.lane.start()
    for n in range(4):
        await bus.append(f"{name}.lane.worker.w", b"%d" % n)
        await bus.purge(name, subject=f"{name}.lane.worker.w")
    await until(lambda: follower.numbers == [0, 1, 2, 3])
    assert follower.resets == 0
    await follower.lane.close()


async def test_a_gap_is_filled_in_order(bus: Bus, name: str):
    await bus.ensure_stream(lanes(name))
    follower = Follower(bus, name)
    await follower.lane.start()
    await bus.append(f"{name}.lane.worker.w", b"0")
    await until(lambda: follower.numbers == [0])
    # Without republish the next two are stored but not pushed.
    settings = lanes(name)
    await _republish(bus, name, None)
    await bus.append(f"{name}.lane.worker.w", b"1")
    await bus.append(f"{name}.lane.worker.w", b"2")
    await _republish(bus, name, settings.republish)
    await asyncio.gather(*(bus.append_soon(f"{name}.lane.worker.w", b"%d" % n) for n in range(3, 60)))
    await until(lambda: len(follower.got) >= 60)
    assert follower.numbers == list(range(60))
    await follower.lane.close()


async def test_a_missed_end_is_found_by_check(bus: Bus, name: str):
    await bus.ensure_stream(lanes(name))
    follower = Follower(bus, name)
    await follower.lane.start()
    await _republish(bus, name, None)
    await bus.append(f"{name}.lane.worker.w", b"0")
    assert follower.got == []
    follower.lane.check()
    await until(lambda: follower.numbers == [0])
    await follower.lane.close()


async def test_nothing_is_lost_nor_doubled_over_holes_and_cuts(make_bus: MakeBus, proxy: Proxy, server: Server, name: str):
    other, bus = await make_bus(server.url), await make_bus(proxy.url)
    await other.ensure_stream(lanes(name))
    follower = Follower(bus, name)
    await follower.lane.start()
    count = 0
    for _ in range(5):
        for hole in (False, True):
            proxy.hole = hole
            for _ in range(20):
                await other.append(f"{name}.lane.worker.w", b"%d" % count)
                count += 1
        proxy.cut()
        proxy.hole = False
        await until(lambda count=count: len(follower.got) >= count)
    assert follower.numbers == list(range(count))
    assert follower.resets == 0
    await follower.lane.close()


async def test_lost_lanes_are_told_and_begun_anew(make_bus: MakeBus, own_server: Server, name: str):
    bus = await make_bus(own_server.url)
    await bus.ensure_stream(lanes(name))
    follower = Follower(bus, name)
    await follower.lane.start()
    for n in range(5):
        await bus.append(f"{name}.lane.worker.w", b"%d" % n)
    await until(lambda: len(follower.got) == 5)
    own_server.kill()
    await until(lambda: not bus.connected)
    own_server.start()
    await until(lambda: bus.connected)
    follower.got.clear()
    await bus.ensure_stream(lanes(name))
    for n in range(10):
        await bus.append(f"{name}.lane.worker.other", b"x")
        await bus.append(f"{name}.lane.worker.w", b"%d" % n)
    await until(lambda: len(follower.got) >= 10)
    assert follower.numbers == list(range(10))
    assert follower.got[0][0] == 2
    assert follower.resets == 1
    await follower.lane.close()


async def test_lanes_made_anew_while_connected_are_noticed(bus: Bus, name: str):
    await bus.ensure_stream(lanes(name))
    follower = Follower(bus, name)
    await follower.lane.start()
    for n in range(5):
        await bus.append(f"{name}.lane.worker.w", b"%d" % n)
    await until(lambda: len(follower.got) == 5)
    follower.got.clear()
    await bus.request(f"$JS.API.STREAM.DELETE.{name}", b"", 5)
    await bus.ensure_stream(lanes(name))
    for n in range(3):
        await bus.append(f"{name}.lane.worker.w", b"%d" % n)
    await until(lambda: len(follower.got) >= 3)
    assert (follower.got, follower.resets) == ([(1, b"0"), (2, b"1"), (3, b"2")], 1)
    await follower.lane.close()


async def _republish(bus: Bus, name: str, republish: tuple[str, str] | None) -> None:
    old = lanes(name)
    await bus.ensure_stream(
        type(old)(
            name=old.name,
            subjects=old.subjects,
            max_bytes=old.max_bytes,
            memory=True,
            atomic=True,
            direct=True,
            republish=republish,
        )
    )
