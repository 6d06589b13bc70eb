"""The arrows between packages: who may import whom."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.tidy.sources import ROOT, Source, imports, is_in, packages

PURE = (
    "__future__",
    "abc",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "enum",
    "fnmatch",
    "functools",
    "hashlib",
    "heapq",
)
PURE += ("itertools", "math", "operator", "re", "string", "types", "typing", "typing_extensions")
"""Modules of the standard library that can't do IO, tell the time or roll dice."""

Allowed = Callable[[str], bool]


def _first(name: str) -> str:
    return name.partition(".")[0]


def _own(name: str) -> bool:
    return is_in(name, "mesh", "mesh_sdk")


RULES: list[tuple[str, str, Allowed]] = [
    (
        "mesh.core",
        "pure standard library, msgspec, mesh.core, mesh_sdk.protocol, mesh_sdk.errors",
        lambda name: _first(name) in PURE or is_in(name, "msgspec", "mesh.core", "mesh_sdk.protocol", "mesh_sdk.errors"),
    ),
    (
        "mesh_sdk.protocol",
        "pure standard library, msgspec, mesh_sdk.protocol, mesh_sdk.errors",
        lambda name: _first(name) in PURE or is_in(name, "msgspec", "mesh_sdk.protocol", "mesh_sdk.errors"),
    ),
    ("mesh_sdk", "never mesh", lambda name: not is_in(name, "mesh")),
    (
        "mesh_sdk.transport",
        "of our own only mesh_sdk.protocol, .transport, .errors",
        lambda name: not _own(name) or is_in(name, "mesh_sdk.protocol", "mesh_sdk.transport", "mesh_sdk.errors"),
    ),
    (
        "mesh_sdk.observe",
        "of our own only mesh_sdk.protocol, .observe, .errors",
        lambda name: not _own(name) or is_in(name, "mesh_sdk.protocol", "mesh_sdk.observe", "mesh_sdk.errors"),
    ),
    (
        "mesh",
        "of mesh_sdk only .protocol, .transport, .observe, .errors",
        lambda name: (
            not is_in(name, "mesh_sdk") or is_in(name, "mesh_sdk.protocol", "mesh_sdk.transport", "mesh_sdk.observe", "mesh_sdk.errors")
        ),
    ),
    (
        "mesh.store",
        "nothing of mesh.scheduler, .cli, .web, .server",
        lambda name: not is_in(name, "mesh.scheduler", "mesh.cli", "mesh.web", "mesh.server"),
    ),
    (
        "mesh.scheduler",
        "nothing of mesh.cli, .web, .server",
        lambda name: not is_in(name, "mesh.cli", "mesh.web", "mesh.server", "mesh.engine"),
    ),
    (
        "mesh.server",
        "of mesh only mesh.server, mesh.errors",
        lambda name: not is_in(name, "mesh") or is_in(name, "mesh.server", "mesh.errors"),
    ),
]

USES_ANY_OF_THE_SDK = ("mesh.cli", "mesh.demo", "mesh.testing")


def _governed(source: Source, package: str) -> bool:
    if package == "mesh" and is_in(source.module, *USES_ANY_OF_THE_SDK):
        return False
    return is_in(source.module, package)


@pytest.mark.parametrize(("package", "may_use", "allowed"), RULES, ids=[rule[0] for rule in RULES])
def test_package_imports_only_what_it_may(package: str, may_use: str, allowed: Allowed):
    wrong = [
        f"{source.path}:{line} imports {name}; {package} may use: {may_use}"
        for source in packages()
        if _governed(source, package)
        for line, name in imports(source.tree)
        if not allowed(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_transport_imports_nats():
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in packages()
        if not is_in(source.module, "mesh_sdk.transport")
        for line, name in imports(source.tree)
        if is_in(name, "nats")
    ]
    assert not wrong, "\n".join(wrong)


def _modules_after(statement: str) -> set[str]:
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'sdk')!r}]; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_sdk_loads_neither_nats_nor_the_engine():
    loaded = _modules_after("import mesh_sdk; from mesh_sdk import *")
    assert not loaded & {"nats", "mesh", "click", "rich", "starlette", "uvicorn"}


def test_the_command_line_starts_light():
    loaded = _modules_after("import mesh.cli")
    assert not loaded & {"nats", "rich", "pydantic", "starlette", "uvicorn", "asyncio"}
