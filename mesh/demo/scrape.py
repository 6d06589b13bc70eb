"""Reads one figure off a process's metrics, as Prometheus would.

Rule: only for what the mesh has no other words for.
"""

from __future__ import annotations

import re
from urllib.request import urlopen

from mesh_sdk.errors import MeshError

ANSWER_S = 5.0


def scrape(address: str, series: str) -> float:
    """The value of a series.

    Args:
        address: `host:port` of the process's metrics.
        series: name and labels, as they stand in the text.

    Raises:
        MeshError: when nobody answers there, or there is no such series.
    """
    try:
        with urlopen(f"http://{address}/metrics", timeout=ANSWER_S) as response:
            text: str = response.read().decode()
    except OSError as error:
        raise MeshError(f"no metrics at {address}: {error}") from error
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise MeshError(f"{address} shows no {series}")
    return float(found[1])
