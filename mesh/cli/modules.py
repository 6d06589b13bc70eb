"""Loads a user's module and finds the worker in it.

Rule: the current directory is looked in first, as if the module were run there.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import mesh
import mesh_sdk
from mesh_sdk.errors import DefinitionError
from mesh_sdk.worker.importing import importing

if TYPE_CHECKING:
    from mesh_sdk import Worker

_OURS = [Path(folder) for package in (mesh, mesh_sdk) for folder in package.__path__]


def load_worker(target: str) -> Worker:
    """The worker that `module` or `module:attribute` names.

    Args:
        target: a dotted module, or a path like `app/worker.py`; without an attribute the module must hold exactly one
            worker.

    Raises:
        DefinitionError: when there is no such module, it can't be imported, or the worker is not clear.
    """
    from mesh_sdk import Worker

    name, _, attribute = target.partition(":")
    module = _load(name)
    if attribute:
        found = _attribute(module, attribute)
        if not isinstance(found, Worker):
            raise DefinitionError(f"{target} is a {type(found).__name__}, not a worker: name what mesh.worker(...) returned")
        return found
    # The same worker under two names is one worker.
    workers = {id(value): (key, value) for key, value in vars(module).items() if isinstance(value, Worker)}
    if len(workers) == 1:
        return next(iter(workers.values()))[1]
    if not workers:
        raise DefinitionError(f"module {name!r} holds no worker: add one with worker = mesh.worker(...), or name it as {name}:attribute")
    names = ", ".join(sorted(key for key, _ in workers.values()))
    raise DefinitionError(f"module {name!r} holds {len(workers)} workers ({names}): say which, as {name}:{names.split(', ')[0]}")


def _load(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    dotted = name.removesuffix(".py").replace("/", ".") if name.endswith(".py") else name
    if not dotted or not all(part.isidentifier() for part in dotted.split(".")):
        raise DefinitionError(f"{name!r} is no module: use a dotted name such as app.worker, or app.worker:attribute")
    token = importing.set(True)
    try:
        return import_module(dotted)
    except ModuleNotFoundError as error:
        if error.name and (dotted == error.name or dotted.startswith(error.name + ".")):
            raise DefinitionError(f"there is no module {dotted!r} in {folder} or on sys.path") from error
        raise _broken(dotted, error) from error
    except (Exception, SystemExit) as error:  # the user's own code: whatever it raises while being imported
        raise _broken(dotted, error) from error
    finally:
        importing.reset(token)


def _broken(name: str, error: BaseException) -> DefinitionError:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    # The user's line that called into the SDK, not the SDK's own that refused; the first frame is ours.
    users = list(takewhile(lambda frame: not _is_ours(frame.filename), frames[1:])) or frames[1:]
    place = f" ({users[-1].filename}, line {users[-1].lineno})" if users else ""
    return DefinitionError(f"module {name!r} can't be imported: {type(error).__name__}: {error}{place}")


def _is_ours(file: str) -> bool:
    return any(Path(file).is_relative_to(folder) for folder in _OURS)


def _attribute(module: ModuleType, path: str) -> Any:
    value: Any = module
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise DefinitionError(f"module {module.__name__!r} has no attribute {path!r}") from None
    return value
