"""Headers and reply subjects as bytes."""

from __future__ import annotations

import pytest

from mesh_sdk.transport.headers import description, header, number, origin, parse, status, time_ns, value

RAW = b"NATS/1.0\r\nNats-Sequence: 6\r\nNats-Last-Sequence: 4\r\nEmpty:\r\nA:b:c\r\n\r\n"


def test_values_are_found_by_their_whole_name():
    assert (number(RAW, b"Nats-Sequence"), number(RAW, b"Nats-Last-Sequence"), number(RAW, b"Sequence")) == (6, 4, 0)
    assert (value(RAW, b"A"), value(RAW, b"Empty"), value(RAW, b"B"), value(None, b"A")) == (b"b:c", b"", None, None)
    assert parse(RAW) == {"Nats-Sequence": "6", "Nats-Last-Sequence": "4", "Empty": "", "A": "b:c"}


def test_a_status_stands_before_the_headers():
    raw = b"NATS/1.0 409 Leadership Change\r\nNats-Pending-Messages: 3\r\n\r\n"
    assert (status(raw), description(raw), number(raw, b"Nats-Pending-Messages")) == (409, "leadership change", 3)
    assert (status(b"NATS/1.0 503\r\n\r\n"), status(RAW), status(None)) == (503, 0, 0)


def test_both_forms_of_the_reply_subject():
    old = b"$JS.ACK.S.C.1.42.7.1795312450215192918.3"
    assert origin(old) == origin(b"$JS.ACK.hub.acc.S.C.1.42.7.1795312450215192918.3.token") == (1, 42, 7, 1795312450215192918, 3)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-11-22T01:53:12.956493403Z", 1_795_312_392_956_493_403),
    ],
)
def test_timestamps_keep_their_nanoseconds(text: str, nanoseconds: int):
    assert time_ns(text) == nanoseconds


def test_a_value_can_not_forge_a_line():
    assert header("A", "b") == b"A: b\r\n"
    with pytest.raises(ValueError, match="control"):
        header("A", "b\r\nC: d")
