"""The key under which a workflow stands in the workflows bucket. Pure.

Rule: a name that can be a key is its own key; any other is `_` and the hex digits of its UTF-8.
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9-](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")


def workflow_key(name: str) -> str:
    """The key of a workflow's name.

    Example:
        >>> workflow_key("fulfil"), workflow_key("año")
        ('fulfil', '_61c3b16f')
    """
    if _PLAIN.fullmatch(name) and ".." not in name:
        return name
    return "_" + name.encode().hex()
