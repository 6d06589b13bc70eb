"""The demo's workflows and the worker that runs them: `mesh worker mesh.demo.workflows`.

                       ┌─▶ parse ─┐
    index-file:  read ─┤          ├─▶ summarise         one run for each event `file.found`
                       └─▶ count ─┘
    index-library:  packages ─▶ total                   `packages` spawns one child run of index-package for each package

index-file is sticky: a run's steps share the file in the memory of one worker. `read` also gives it out packed, and so
the run can go on elsewhere when that worker dies.

Rule: written as any user would write it, with nothing but `mesh_sdk`.
"""

from __future__ import annotations

import asyncio
import zlib
from base64 import b64decode, b64encode

from pydantic import BaseModel

from mesh.demo.counting import Counts, Lines, Shape, add_up, counts_of, lines_of, shape_of
from mesh.demo.stdlib import SourceFile
from mesh_sdk import Context, Mesh, MeshError, RunInfo, Spawn, StickyStrategy

EVENT = "file.found"
SLOTS = 4
LIST_LIMIT = 500

mesh = Mesh()


class Source(BaseModel):
    """A file as it was read: should the run move to another worker, later steps still see the same bytes."""

    size: int
    packed: str

    @classmethod
    def of(cls, data: bytes) -> Source:
        """Pack a file's bytes: compressed, as text that JSON can carry."""
        return cls(size=len(data), packed=b64encode(zlib.compress(data)).decode())

    def unpack(self) -> bytes:
        """The file's bytes."""
        return zlib.decompress(b64decode(self.packed))


class Package(BaseModel):
    """A package and how many of its files have been indexed."""

    name: str
    files: int


class Library(BaseModel):
    """All packages of the library."""

    packages: list[Package]


class Totals(BaseModel):
    """What was found: by package, and altogether."""

    packages: dict[str, Counts]
    total: Counts


index_file = mesh.workflow(name="index-file", on_events=[EVENT], input=SourceFile, sticky=StickyStrategy.SOFT)


@index_file.step()
def read(file: SourceFile, ctx: Context) -> Source:
    """Read the file and keep it at hand."""
    ctx.local["source"] = file.read()
    return Source.of(ctx.local["source"])


@index_file.on_moved()
def unpack(ctx: Context) -> None:
    """The worker that had the file at hand is gone: have it at hand here."""
    ctx.local["source"] = ctx.step_output(read).unpack()


@index_file.step(parents=[read])
def parse(file: SourceFile, ctx: Context) -> Shape:
    """Count functions, classes and imports."""
    return shape_of(ctx.local["source"])


@index_file.step(parents=[read])
def count(file: SourceFile, ctx: Context) -> Lines:
    """Count lines and code lines."""
    return lines_of(ctx.local["source"])


@index_file.step(parents=[read, parse, count])
def summarise(file: SourceFile, ctx: Context) -> Counts:
    """Put together what the others found."""
    return counts_of(ctx.step_output(read).size, ctx.step_output(parse), ctx.step_output(count))


@mesh.task(name="index-package")
async def index_package(package: Package, ctx: Context) -> Counts:
    """Ask the mesh for the results of the package's files and add them up."""
    runs = await all_runs(mesh, "index-file", {"package": package.name})
    if len(runs) != package.files:
        raise MeshError(f"package {package.name!r} has {len(runs)} indexed files, not {package.files}")
    results = [await mesh.runs.get(run.run_id) for run in runs]
    return add_up(Counts.model_validate(result.output) for result in results)


index_library = mesh.workflow(name="index-library", input=Library)


@index_library.step()
async def packages(library: Library, ctx: Context) -> dict[str, Counts]:
    """Spawn a child run for each package and await them all; the slot is lent out meanwhile."""
    children = ctx.spawn_workflows([Spawn(index_package, package, key=package.name) for package in library.packages])
    found = await asyncio.gather(*(child.result() for child in children))
    return {package.name: counts for package, counts in zip(library.packages, found, strict=True)}


@index_library.step(parents=[packages])
def total(library: Library, ctx: Context) -> Totals:
    """Add up the packages."""
    found = ctx.step_output(packages)
    return Totals(packages=found, total=add_up(found.values()))


async def all_runs(mesh: Mesh, workflow: str, metadata: dict[str, str] | None = None) -> list[RunInfo]:
    """Every run of a workflow, page by page, newest first.

    Args:
        mesh: to ask.
        workflow: its name.
        metadata: only runs that have these.
    """
    found: list[RunInfo] = []
    after: str | None = None
    while True:
        page = await mesh.runs.list(workflow=workflow, metadata=metadata, limit=LIST_LIMIT, after=after)
        found += page
        if (after := page.next) is None:
            return found


worker = mesh.worker("demo", slots=SLOTS, workflows=[index_file, index_package, index_library])
