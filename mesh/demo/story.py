"""What happens in the demo, in order: start, publish, watch, kill, watch on, add up, check.

Rule: all waiting is bounded, and what is waited for is asked of the mesh itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
from rich.console import Console

from mesh.demo.counting import count_plainly
from mesh.demo.picture import AWAY, FOLLOWS, LEADS, Picture
from mesh.demo.processes import NAMESPACE, Process, Processes
from mesh.demo.report import Check, Effort, Memory, check_all, check_places, show_checks, show_effort, show_memory, show_totals
from mesh.demo.scrape import scrape
from mesh.demo.screen import Screen, make_screen
from mesh.demo.stdlib import SourceFile
from mesh.demo.workflows import EVENT, SLOTS, Library, Package, Totals, all_runs
from mesh_sdk import Event, Mesh, MeshError
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.errors import TransportError

SCHEDULERS = 2
WORKERS = 3
HALFWAY, AT_THE_LATEST = 5, 8
"""When two processes are killed, in tenths of the files."""
LOOK_S = 0.25
ASK_LEADER_S = 0.1
ANSWER_S = 1.0
INDEXING_S = 90.0
ADDING_UP_S = 20.0
"""How long each part may take; an ordinary machine needs a few seconds."""


class Story:
    """One demo.

    Args:
        console: where it is shown.
        mesh: client of the demo's mesh.
        processes: starts and holds them.
        files: what is indexed.
    """

    def __init__(self, console: Console, mesh: Mesh, processes: Processes, files: Sequence[SourceFile]) -> None:
        self._console = console
        self._mesh = mesh
        self._processes = processes
        self._files = files
        self._picture = Picture(Counter(file.package for file in files))
        self._screen: Screen = make_screen(console, self._picture)
        self._killed: list[str] = []
        self._killed_at = 0.0

    async def tell(self) -> bool:
        """Run it to its end; True when everything that was checked holds.

        Raises:
            MeshError: when a process did not start, or the work did not end in time.
        """
        with self._screen:
            await self._start()
            leaders = asyncio.create_task(self._watch_leaders())
            try:
                await self._publish()
                await self._index()
                found = await self._add_up()
                await self._look()
            finally:
                leaders.cancel()
            self._screen.say("counting again, plainly: one process, no mesh")
            plain = await asyncio.to_thread(count_plainly, self._files)
        show_totals(self._console, found)
        file_runs, package_runs, library_runs = [await all_runs(self._mesh, f"index-{what}") for what in ("file", "package", "library")]
        lost = await _counted(self._processes.schedulers, 'mesh_retries_total{reason="lost"}')
        show_effort(self._console, Effort.of([*file_runs, *package_runs, *library_runs], lost), self._killed)
        show_memory(self._console, await self._memory(len(file_runs)), self._killed)
        checks = [*check_all(self._files, file_runs, package_runs, found, plain), check_places(file_runs, self._killed)]
        return show_checks(self._console, [*checks, Check("a worker and the leader were killed on the way", len(self._killed) == 2)])

    async def _memory(self, runs: int) -> Memory:
        processes = self._processes
        steps = 'mesh_worker_sticky_steps_total{{result="{}",workflow="index-file"}}'
        return Memory(
            runs=runs,
            workers=[each.name for each in processes.workers if not each.killed],
            found=await _counted(processes.workers, steps.format("hit")),
            missed=await _counted(processes.workers, steps.format("miss")),
            moves=await _counted(processes.schedulers, 'mesh_sticky_moves_total{reason="gone"}'),
        )

    async def _start(self) -> None:
        schedulers = [self._processes.scheduler(number + 1) for number in range(SCHEDULERS)]
        self._picture.processes = self._processes.all
        await asyncio.gather(*(each.ready() for each in schedulers))
        workers = [self._processes.worker(number + 1) for number in range(WORKERS)]
        await asyncio.gather(*(each.ready() for each in workers))
        self._screen.say(f"{SCHEDULERS} schedulers and {WORKERS} workers are ready")
        self._screen.say("metrics on 127.0.0.1: " + " ".join(f"{each.name}={each.port}" for each in self._processes.all))

    async def _publish(self) -> None:
        events = [Event(EVENT, file, metadata={"path": file.path, "package": file.package}) for file in self._files]
        await self._mesh.events.publish_many(events)
        self._screen.say(f"published {len(events)} events {EVENT!r}, one for each file")

    async def _index(self) -> None:
        """Watch until every file is indexed; halfway, kill."""
        tenths = 0
        async with _bounded("indexing the files", INDEXING_S, self._progress):
            while self._picture.files_done < self._picture.files_total:
                await self._look()
                share = self._picture.files_done * 10 // self._picture.files_total
                if share > tenths:
                    tenths = share
                    self._tell_progress()
                if not self._killed and self._is_time_to_kill(share):
                    self._kill_two()
                await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        self._picture.see_runs(await all_runs(self._mesh, "index-file"))
        before = set(self._picture.used)
        self._picture.see_workers(await self._mesh.workers.list())
        for name in sorted(before - set(self._picture.used)):
            self._screen.say(f"the leader has given {name} up: others do its steps", "green")

    def _progress(self) -> str:
        statuses = Counter(run.status for run in self._picture.runs)
        return f"{self._picture.files_done} of {self._picture.files_total} files are indexed; runs: {dict(statuses)}"

    def _tell_progress(self) -> None:
        if not self._console.is_terminal:  # a terminal shows it all the time
            self._screen.say(f"{self._picture.files_done} of {self._picture.files_total} files are indexed")

    def _is_time_to_kill(self, tenths: int) -> bool:
        """From the middle on, as soon as a worker is seen with steps in its hands, so that its death costs something."""
        return tenths >= HALFWAY and (any(self._picture.used.values()) or tenths >= AT_THE_LATEST)

    def _kill_two(self) -> None:
        """SIGKILL the busiest worker and the scheduler that leads."""
        used = self._picture.used
        worker = max(self._processes.workers, key=lambda each: used.get(each.name, 0))
        leader = self._picture.leader or self._processes.schedulers[0]
        busy = f"a worker with {used.get(worker.name, 0)} of its {SLOTS} slots in use"
        for process, what in ((worker, busy), (leader, "the leading scheduler")):
            process.kill()
            self._killed_at = self._picture.elapsed
            self._killed.append(process.name)
            self._screen.say(f"SIGKILL {process.name} (pid {process.pid}), {what}", "bold red")

    async def _watch_leaders(self) -> None:
        """Keep asking every scheduler whether it leads, and tell when another one does."""
        bus = await self._mesh.clients.here().bus()
        subjects = Subjects(NAMESPACE)

        async def role(process: Process) -> str:
            if process.killed:
                return AWAY
            try:
                answer = await bus.request(subjects.control(f"scheduler-{process.id}"), b"{}", ANSWER_S)
            except TransportError:  # shown as away, and asked again
                return AWAY
            return LEADS if msgspec.json.decode(answer)["leads"] else FOLLOWS

        before: Process | None = None
        while True:
            asked = self._processes.schedulers
            self._picture.roles = {each.name: found for each, found in zip(asked, await asyncio.gather(*map(role, asked)), strict=True)}
            now = self._picture.leader
            if now is not None and now is not before:
                after = f", {self._picture.elapsed - self._killed_at:.1f} s after the kill" if before else ""
                self._screen.say(f"{now.name} leads{after}", "green")
            before = now or before
            await asyncio.sleep(ASK_LEADER_S)

    async def _add_up(self) -> Totals:
        """Start the library's run; it spawns a child for each package."""
        packages = [Package(name=name, files=count) for name, count in sorted(self._picture.files.items())]
        self._screen.say(f"every file is indexed; adding up in {len(packages)} child runs, one for each package")
        async with _bounded("adding up", ADDING_UP_S, lambda: "the run index-library has not ended"):
            run = await self._mesh.start("index-library", Library(packages=packages))
            return Totals.model_validate(await run.result())


async def _counted(processes: Sequence[Process], series: str) -> int:
    """What those of the processes that live have counted, all together."""
    living = [each for each in processes if not each.killed]
    return int(sum([await asyncio.to_thread(scrape, each.metrics, series) for each in living]))


@asynccontextmanager
async def _bounded(what: str, most_s: float, how_far: Callable[[], str]) -> AsyncIterator[None]:
    """Give a part of the story so many seconds; past it, say how far it came."""
    try:
        async with asyncio.timeout(most_s):
            yield
    except TimeoutError:
        raise MeshError(f"{what} took longer than {most_s:g} s: {how_far()}") from None
