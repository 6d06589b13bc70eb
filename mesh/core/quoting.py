"""What is written down of input that may be anything: names, ids and reasons are cut to a length that they can have.

Rule: whatever a refusal quotes goes through here. A refused start is remembered like any run, and a name may have come
with as many bytes as a message.
"""

from __future__ import annotations

NAME_CHARACTERS_MAX = 256
"""Of a workflow's or a step's name, a worker's, a host's; the SDK's own limits are lower."""
REASON_CHARACTERS_MAX = 1_000
"""Why something was refused quotes it: what is too long to be taken must not be written down longer still."""


def cut(text: str, most: int = NAME_CHARACTERS_MAX) -> str:
    """The text, or its beginning with "…" at the end.

    Example:
        >>> cut("fulfil"), cut("fulfil", 4)
        ('fulfil', 'ful…')
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def quoted(text: str) -> str:
    """A name off the wire, for a message."""
    return repr(cut(text))


def reason(text: str) -> str:
    """Why something was refused, as it is written down."""
    return cut(text, REASON_CHARACTERS_MAX)
