"""Reading what comes on a lane. Rule: what can't be read is set aside alone, and never stops what can."""

from __future__ import annotations

from collections.abc import Callable

from mesh_sdk.protocol import codec
from mesh_sdk.protocol.records import Order


def read_orders(data: bytes, on_unreadable: Callable[[bytes, str], None]) -> list[Order]:
    """The orders of a lane message.

    Args:
        data: the message.
        on_unreadable: gets the message and the reason, when it or some of its records can't be read.
    """
    try:
        frame, bad = codec.lane_frames.decode(data)
    except codec.BadFrame as error:
        on_unreadable(data, str(error))
        return []
    if bad:
        on_unreadable(data, "; ".join(f"record {index}: {reason}" for index, reason in bad))
    return frame.records
