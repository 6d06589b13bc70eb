"""Cancelling a run that is known by its id alone.

Rule: the cancel is stored first, with or without a leader; asking for the run only tells whether there is one.
"""

from __future__ import annotations

from mesh_sdk.client import Client
from mesh_sdk.errors import MeshError, RunNotFound
from mesh_sdk.protocol.ids import RUN_ID_CHARACTERS, is_run_id
from mesh_sdk.protocol.records import Cancel


async def cancel_run(client: Client, run_id: str, reason: str) -> None:
    """Have the cancel of a run stored, and see that there is such a run.

    Args:
        client: stores and asks.
        run_id: as its user has it.
        reason: what the run will say.

    Raises:
        RunNotFound: no run can have this id (nothing was stored); or the leader has read every start that was stored before, and knows
            no such run. While nobody leads, that is not found out.
        Unavailable: the cancel could not be stored.
    """
    given: object = run_id
    if not isinstance(given, str) or is_run_id(given) is None:
        raise RunNotFound(f"there is no run {run_id!r}: the id of a run is {RUN_ID_CHARACTERS} hex digits, as `ref.run_id` has it")
    await client.control(Cancel(run_id, reason), f"the cancel of run {run_id}")
    try:
        await client.call("runs.get", {"run_id": run_id})
    except RunNotFound:
        raise
    except MeshError:
        return  # it is stored: whoever leads next will see to it
