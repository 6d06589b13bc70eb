"""What a worker holds of the shared lane while its event loop stands still."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh_sdk.transport.bus import LaneMessage
from mesh_sdk.worker.hold import GRACE_S, LATE_S, Holds


class _Time:
    """A clock, and how late the loop is."""

    now = 100.0
    lag = LATE_S + 0.01


def _message(sequence: int, acked: Callable[[], None] = lambda: None, deliveries: int = 1) -> LaneMessage:
    return LaneMessage(sequence, deliveries, b"", acked, f"ack.{sequence}.{deliveries}")


@pytest.fixture
def time() -> _Time:
    return _Time()


@pytest.fixture
def holds(time: _Time) -> Holds:
    return Holds(lambda: time.now, lambda: time.lag)


def test_messages_are_in_progress_only_while_the_loop_stands_still(time: _Time, holds: Holds):
    holds.take(_message(1), 1).begun(time.now, 2.0)
    assert holds.in_progress() == ["ack.1.1"]
    time.lag = LATE_S
    assert holds.in_progress() == []


def test_and_no_longer_than_their_steps_may_run(time: _Time, holds: Holds):
    hold = holds.take(_message(1), 2)
    assert holds.in_progress() == [], "none of its steps has begun"
    hold.begun(time.now, 2.0)
    hold.begun(time.now, 60.0)
    hold.begun(time.now + 1, 0.5)
    time.now += 60.0 + GRACE_S - 0.1
    assert holds.in_progress() == ["ack.1.1"]
    time.now += 0.1
    assert holds.in_progress() == []


def test_nor_once_they_are_acknowledged(time: _Time, holds: Holds):
    acked: list[int] = []
    hold = holds.take(_message(1, lambda: acked.append(1)), 2)
    hold.begun(time.now, 2.0)
    hold.answered()
    assert (acked, holds.in_progress()) == ([], ["ack.1.1"])
    hold.answered()
    assert (acked, holds.in_progress()) == ([1], [])


def test_a_message_delivered_again_takes_the_place_of_its_first_delivery(time: _Time, holds: Holds):
    first = holds.take(_message(1), 1)
    again = holds.take(_message(1, deliveries=2), 1)
    for hold in (first, again):
        hold.begun(time.now, 2.0)
    assert holds.in_progress() == ["ack.1.2"]
    first.answered()
    assert holds.in_progress() == ["ack.1.2"]
    again.answered()
    assert holds.in_progress() == []


def test_what_an_incarnation_held_that_was_given_up_is_for_others(time: _Time, holds: Holds):
    hold = holds.take(_message(1), 1)
    hold.begun(time.now, 2.0)
    holds.clear()
    assert holds.in_progress() == []
    hold.answered()
