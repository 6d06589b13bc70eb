"""`mesh doctor`: checks everything between here and a finished run, and says what to do about what is wrong.

Rule: a check never raises and never writes; each has its own bound in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from mesh.cli import options
from mesh.cli.exits import Exit
from mesh.cli.output import print_json
from mesh.cli.where import Where
from mesh_sdk.errors import MeshError

if TYPE_CHECKING:
    from mesh_sdk.protocol.beats import LeaderBeat
    from mesh_sdk.protocol.subjects import Subjects
    from mesh_sdk.transport.bus import StreamSettings, StreamState
    from mesh_sdk.transport.connection import Link

OK = "ok"
WARNING = "warning"
FAILED = "failed"

ANSWER_S = 5.0
BEAT_S = 3.0
"""Beats come several times a second; a take-over takes two."""
FULL_PART = 0.9
MIB = 1 << 20


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `state` is ok, warning or failed; `advice` says what to do unless it is ok."""

    check: str
    state: str
    detail: str
    advice: str = ""


@click.command("doctor")
@options.where
@options.as_json
def command(where: Where, as_json: bool) -> int:
    """Check server, streams, scheduler and workers; ends with 15 when something is wrong, and says what to do."""
    checks = asyncio.run(_all_checks(where, quiet=as_json))
    if as_json:
        print_json([asdict(check) for check in checks])
    return Exit.UNHEALTHY if any(check.state == FAILED for check in checks) else Exit.OK


async def _all_checks(where: Where, *, quiet: bool) -> list[Check]:
    checks = []
    async for check in _examine(where):
        checks.append(check)
        if not quiet:
            colour = {OK: "green", WARNING: "yellow", FAILED: "red"}[check.state]
            click.echo(f"{click.style(f'{check.state:<8}', fg=colour)}{check.check}: {check.detail}")
            if check.advice:
                click.echo(f"        → {check.advice}")
    return checks


async def _examine(where: Where) -> AsyncIterator[Check]:
    from mesh_sdk.transport.connection import connect

    yield _executable()
    try:
        link = await connect(where.url.split(","), name="mesh doctor", connect_timeout=ANSWER_S)
    except MeshError as error:
        yield Check("connection", FAILED, str(error), "start a server (mesh dev, or nats-server -js), or set MESH_URL or --url")
        return
    try:
        yield Check("connection", OK, f"{where.url}, namespace {where.namespace}")
        yield _version(str(link.client.server_info.get("version", "")))
        async for check in _streams(link, where):
            yield check
        leader = await _leader(link, where)
        yield leader
    finally:
        await link.close()
    if leader.state == OK:
        yield await _workers(where)


def _executable() -> Check:
    from mesh.errors import ServerBinaryMissing
    from mesh.server.binary import check_version, find_binary, spell

    try:
        binary = find_binary()
        return Check("executable", OK, f"{binary} {spell(check_version(binary))}, for mesh dev and mesh demo")
    except ServerBinaryMissing as error:
        # Only mesh dev, mesh demo and the test kit start one.
        return Check("executable", WARNING, "no nats-server to embed", str(error))


def _version(text: str) -> Check:
    from mesh.server.binary import VERSION_RECOMMENDED, parse_version, spell

    version = parse_version(text)
    if version is None or version < VERSION_RECOMMENDED:
        return Check(
            "server version", WARNING, text or "unknown", f"{spell(VERSION_RECOMMENDED)} or newer is recommended: update the server"
        )
    return Check("server version", OK, f"{text}, JetStream answers")


async def _streams(link: Link, where: Where) -> AsyncIterator[Check]:
    from mesh.store.topology import Topology
    from mesh_sdk.protocol.subjects import Subjects
    from mesh_sdk.transport.errors import TransportError

    topology = Topology(Subjects(where.namespace))
    for settings in (*topology.stored(), *topology.remembered(), topology.lanes()):
        try:
            yield _stream(settings, await asyncio.wait_for(link.stream_state(settings.name), ANSWER_S))
        except (TransportError, TimeoutError) as error:
            yield Check(settings.name, FAILED, f"can't be read: {error}", "look at the server's log; has the cluster a majority?")


def _stream(settings: StreamSettings, state: StreamState | None) -> Check:
    if state is None:
        return Check(settings.name, FAILED, "is not there", "start a scheduler (mesh scheduler, mesh dev): it makes its streams")
    limit = f"of {state.limit_bytes / MIB:.0f} MiB" if state.limit_bytes > 0 else "without a limit"
    detail = f"{state.messages} messages, {state.bytes / MIB:.1f} {limit}"
    if state.limit_bytes <= 0:
        return Check(settings.name, WARNING, detail, f"it should have one, of {settings.max_bytes / MIB:.0f} MiB: start a scheduler")
    if state.bytes > state.limit_bytes * FULL_PART:
        return Check(settings.name, WARNING, detail, "nearly full, it will refuse what comes: does a scheduler lead, do workers keep up?")
    return Check(settings.name, OK, detail)


async def _leader(link: Link, where: Where) -> Check:
    from mesh_sdk.protocol.subjects import Subjects
    from mesh_sdk.transport.errors import TransportError

    try:
        beat = await _beat(link, Subjects(where.namespace))
    except (TransportError, TimeoutError):
        return Check("leader", FAILED, f"no beat within {BEAT_S:g} s", "no scheduler leads this namespace: start one with mesh scheduler")
    return Check("leader", OK, f"{beat.holder} in term {beat.term}, journal at {beat.sequence}")


async def _beat(link: Link, subjects: Subjects) -> LeaderBeat:
    from mesh_sdk.protocol.codec import decode_leader_beat

    heard: asyncio.Future[LeaderBeat] = asyncio.get_running_loop().create_future()

    def on_beat(subject: str, reply: str, data: bytes) -> None:
        beat = decode_leader_beat(data)
        if not heard.done() and not beat.resigned:
            heard.set_result(beat)

    subscription = await link.subscribe(subjects.leader_beat, on_beat)
    try:
        return await asyncio.wait_for(heard, BEAT_S)
    finally:
        await subscription.close()


async def _workers(where: Where) -> Check:
    from mesh_sdk import Mesh

    try:
        async with Mesh(url=where.url, namespace=where.namespace) as mesh:
            workers = await mesh.workers.list()
    except MeshError as error:
        return Check("workers", FAILED, str(error), "the leader beats but does not answer: look at its log")
    if not workers:
        return Check("workers", WARNING, "none", "start one: mesh worker module")
    used, slots = sum(worker.used for worker in workers), sum(worker.slots for worker in workers)
    return Check("workers", OK, f"{len(workers)} with {used} of {slots} slots used")
