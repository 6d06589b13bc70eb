"""Which of the server's refusals pass, and are waited out, and which are for good."""

from __future__ import annotations

import pytest

from mesh_sdk.transport.errors import Busy, Refused, StreamFull, StreamMissing, TooFewServers, WrongSequence, refusal


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10071, WrongSequence),
        (10158, Busy),  # sent again while a cluster is still storing it
        (10164, Busy),
        (10008, Busy),
        (10077, StreamFull),
        (10059, StreamMissing),
        (10074, TooFewServers),
        (10054, Refused),  # larger than the stream takes
    ],
)
def test_kinds(code: int, kind: type[Refused]) -> None:
    error = refusal(code, "as the server says", "a.subject")
    assert type(error) is kind
    assert error.code == code
    assert str(error) == f"a.subject: as the server says ({code})"


@pytest.mark.parametrize(
    ("lacks", "kind"),
    [
        ("", TooFewServers),
        (", insufficient storage", StreamFull),
        (", tags not matched ['ssd']", Refused),  # whatever else it is, it is no reason to make do with fewer copies
    ],
)
def test_what_a_cluster_lacks_stands_in_the_text_alone(lacks: str, kind: type[Refused]) -> None:
    assert type(refusal(10005, f"no suitable peers for placement{lacks}", "CREATE")) is kind
